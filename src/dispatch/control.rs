//! What can be asked of a running subscriber, and what it can be told: its state, what waits, its dead letters, where it
//! is.
//!
//! Promises: what is looked at is looked at while the lanes run, without a pause; what changes something is done by the
//! lane itself between two calls, in one unit, and answered when that is durable. Whoever asks again after an answer that
//! was lost does no harm: a dead letter is redriven once.
//! Must not know: gRPC, the command line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::command::{Answer, Command, Letter, Refusal, Seek, SeekFrom};
use super::entries::DONE;
use super::publish::{nearest, shown};
use super::running::Running;
use super::snapshots::{Restoring, SnapshotError};
use super::state::{self, StateEntry};
use super::tree::Tree;
use super::waiting::{self, Waiter, WaitingError, now_ns};
use crate::engine::{Engine, Entries, ReadBudget, ReadError};
use crate::model::{EventView, LaneId, Offset, PartitionId, Record, SubscriberId, TopicId};
use crate::topology::{SubscriberIndex, SubscriberPlan};

/// Dead letters that a lane is given at once.
const LETTERS_MAX: usize = 256;
/// Waiting events that a lane is told about at once.
const NUMBERS_MAX: usize = 1_000;
/// Bytes of events that a listing has, unless one event alone has more: several listings are nothing, and one is a message.
const LISTING_BYTES: usize = 4 << 20;
/// Dead letters that one part of a listing looks through: what a filter leaves out takes time as well.
const LOOKED_AT_MAX: usize = 50_000;
/// Dead letters that something is done to before it says how far it has come.
const PART_LETTERS_MAX: u64 = 10_000;
/// The same in time, before the next ones are begun.
const PART_WITHIN: Duration = Duration::from_secs(10);
/// Entries of a state that are read at once: each may be as large as a value may be.
const STATE_ENTRIES: usize = 32;
/// Entries of a state that one part of a listing looks through.
const STATE_LOOKED_AT_MAX: usize = 10_000;
/// How long a lane that has no room is waited for before whoever asked is told.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// How soon a lane that had no room is asked again.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a lane that is in the middle of a call is waited for.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// No subscriber of that name.
    #[error("there is no subscriber `{subscriber}`; {}", nearest.as_ref().map_or_else(|| "`wattle status` lists them".to_owned(), |name| format!("did you mean `{name}`?")))]
    UnknownSubscriber {
        /// What was asked for.
        subscriber: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A short name that several namespaces have.
    #[error("`{subscriber}` is the name of several subscribers: say which, as one of {}", candidates.join(", "))]
    AmbiguousSubscriber {
        /// What was asked for.
        subscriber: String,
        /// The full names.
        candidates: Vec<String>,
    },
    /// It has no such partition.
    #[error("subscriber `{subscriber}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition {
        /// The subscriber.
        subscriber: String,
        /// What was asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },
    /// It keeps no dead letters.
    #[error(
        "subscriber `{subscriber}` has no dead letters: it halts instead, since its topology says `on_failure: halt`"
    )]
    NoDeadLetters {
        /// The subscriber.
        subscriber: String,
    },
    /// It has state, and nobody said what becomes of it.
    #[error(
        "subscriber `{subscriber}` keeps state: say whether it is emptied (`--state empty`), goes back to a snapshot (`--state \
         NUMBER`; `wattle state snapshots {subscriber}` lists them), or stays as it is though it may know events that come \
         again (`--state keep`)"
    )]
    HasState {
        /// The subscriber.
        subscriber: String,
    },
    /// A lane does not do it.
    #[error("partition {partition}: {refusal}")]
    Refused {
        /// The lane's partition.
        partition: u32,
        /// Why.
        refusal: Refusal,
    },
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What is stored cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl From<ReadError> for ControlError {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<WaitingError> for ControlError {
    fn from(error: WaitingError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Which events are meant: those of which all that is said is true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this key.
    pub key: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// Whose failure is of this kind, or whose reason has this text in it.
    pub reason: Option<String>,
    /// Whose last attempt failed at least so long ago; of an event that was never tried, that waits for at least so long.
    pub older_than: Option<Duration>,
    /// Of this partition of the subscriber's input.
    pub partition: Option<u32>,
    /// Only those that are parked. Of dead letters, none is.
    pub parked: bool,
}

impl Filter {
    fn matches(&self, event: &FailedEvent) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let waiter = &event.waiter;
        let is_reason = |wanted: &String| waiter.failure == *wanted || waiter.reason.contains(wanted.as_str());
        let last_ns = if waiter.failed_ns == 0 { waiter.since_ns } else { waiter.failed_ns };
        let age_ns = now_ns().saturating_sub(last_ns);
        is(&self.key, &event.key)
            && is(&self.id, &event.id)
            && self.partition.is_none_or(|partition| partition == event.partition)
            && self.reason.as_ref().is_none_or(is_reason)
            && self.older_than.is_none_or(|age| u128::from(age_ns) >= age.as_nanos())
            && (!self.parked || waiter.is_parked)
    }
}

/// An event that a subscriber has not handled: one that waits, or a dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedEvent {
    /// Where it is listed: a number in the waiting set of its lane, or the offset of the dead letter.
    pub number: u64,
    /// The partition of the subscriber's input that it is of.
    pub partition: u32,
    /// Its ordering key.
    pub key: String,
    /// Its CloudEvents id.
    pub id: String,
    /// What became of it.
    pub waiter: Waiter,
    /// The event, untouched, in the CloudEvents protobuf format.
    pub event: Bytes,
    /// The partition of the dead-letter topic, for a dead letter.
    pub dead_partition: Option<u32>,
}

/// Where a listing goes on: a partition, and a number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListPosition {
    /// The partition.
    pub partition: u32,
    /// The number or offset.
    pub number: u64,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What was found.
    pub found: Vec<T>,
    /// Where to go on; `None`: there is no more.
    pub next: Option<ListPosition>,
}

/// How far something has come that is done to dead letters. It is done to those that were there when it began, so that it
/// ends although what is redriven may fail again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterProgress {
    /// The next one to look at.
    pub at: ListPosition,
    /// Behind the last one, of each partition of their topic.
    pub ends: Vec<Offset>,
}

/// Some dead letters that something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersDone {
    /// How many.
    pub count: u64,
    /// Where to go on; `None`: it is done to all.
    pub next: Option<LetterProgress>,
}

/// Which entries of a subscriber's state are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFilter {
    /// Of this partition.
    pub partition: Option<u32>,
    /// Of this bucket.
    pub bucket: Option<String>,
    /// Whose key begins so.
    pub prefix: String,
}

/// Where a listing of state goes on: behind an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatePosition {
    /// Its partition.
    pub partition: u32,
    /// Its bucket.
    pub bucket: String,
    /// Its key; where it is empty, at the beginning of the bucket.
    pub key: String,
}

/// A part of a listing of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePage {
    /// What was found.
    pub found: Vec<StateOfPartition>,
    /// Where to go on; `None`: there is no more.
    pub next: Option<StatePosition>,
}

/// What becomes of the state of a handler whose subscriber is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekState {
    /// It stays as it is, though it may know events that come again.
    Keep,
    /// It is emptied.
    Empty,
    /// It is that of the snapshot with this number, and of the events that waited then, those wait again that do not come again.
    Snapshot(u64),
}

/// Where a subscriber is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// At the first event that is kept.
    Start,
    /// Behind the last one.
    End,
    /// At this offset of each partition.
    Offset(Offset),
    /// At the first event that was appended at or after this time, Unix nanoseconds.
    Time(u64),
    /// Where it was when the snapshot was taken whose state it gets.
    Snapshot,
}

/// How a subscriber is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub to: SeekTo,
    /// Only this partition; `None` for all.
    pub partition: Option<u32>,
    /// What becomes of its handler's state.
    pub state: SeekState,
    /// Events that wait are forgotten.
    pub drops_waiting: bool,
    /// Nothing is done: only what would be.
    pub dry_run: bool,
}

/// How a lane was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Its partition.
    pub partition: u32,
    /// Where it was.
    pub from: Offset,
    /// Where it is.
    pub to: Offset,
}

/// An entry of the state with its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOfPartition {
    /// The partition.
    pub partition: u32,
    /// The entry.
    pub entry: StateEntry,
}

/// A subscriber of the tree.
pub(super) struct Found {
    pub(super) running: Arc<Running>,
    pub(super) index: usize,
    pub(super) number: SubscriberId,
    pub(super) input: TopicId,
    pub(super) partitions: u32,
}

/// The key under which a lane notes that a dead letter is done.
pub(super) fn done_key(dead_partition: u32, offset: Offset) -> Bytes {
    let mut key = Vec::with_capacity(13);
    key.push(DONE);
    key.extend_from_slice(&dead_partition.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key.into()
}

/// A stored dead letter, as the event that it was.
pub(super) fn dead_letter(dead_partition: u32, offset: Offset, record: &[u8]) -> Option<FailedEvent> {
    let record = Record::parse(record).ok()?;
    let (lineage, view) = (record.lineage?, record.view().ok()?);
    let original = Bytes::copy_from_slice(view.in_front_of_last("wattlesubscriber")?);
    let mut waiter = Waiter::new(lineage.offset, 0);
    for (name, value) in view.attributes() {
        let Some(text) = value.as_text() else { continue };
        let number = || text.parse().unwrap_or(0);
        match name {
            // what is in front is the original's, which may have been a dead letter before
            "wattlesubscriber" => waiter = Waiter::new(lineage.offset, 0),
            "wattleappended" => waiter.append_time_ns = number(),
            "wattlefailed" => waiter.failed_ns = number(),
            "wattleattempts" => waiter.attempts = text.parse().unwrap_or(0),
            "wattlefailure" => waiter.failure = text.to_owned(),
            "wattlereason" => waiter.reason = text.to_owned(),
            "wattlebacktrace" => waiter.backtrace = Some(text.to_owned()),
            "wattledigest" => waiter.digest = text.to_owned(),
            _ => {}
        }
    }
    Some(FailedEvent {
        number: offset,
        partition: lineage.partition,
        key: record.key.to_owned(),
        id: view.id.to_owned(),
        waiter,
        event: original,
        dead_partition: Some(dead_partition),
    })
}

impl<E: Engine> Tree<E> {
    pub(super) fn subscriber(&self, name: &str) -> Result<Found, ControlError> {
        let running = self.shared.running();
        let plan = &running.plan;
        let named = plan.subscribers.iter().enumerate().filter(|(_, plan)| plan.label() == name || plan.name == name);
        let named: Vec<_> = named.collect();
        let (index, plan_of) = match named.as_slice() {
            [found] => *found,
            [] => {
                let names: Vec<_> = plan.subscribers.iter().map(|plan| plan.label()).collect();
                let nearest = nearest(names.iter().map(String::as_str), name);
                return Err(ControlError::UnknownSubscriber { subscriber: shown(name), nearest });
            }
            several => {
                let candidates = several.iter().map(|(_, plan)| plan.label()).collect();
                return Err(ControlError::AmbiguousSubscriber { subscriber: name.to_owned(), candidates });
            }
        };
        let unknown = || ControlError::UnknownSubscriber { subscriber: name.to_owned(), nearest: None };
        let number = *running.numbers.subscribers.get(index).ok_or_else(unknown)?;
        let from = plan_of.from.0 as usize;
        let input = *running.numbers.topics.get(from).ok_or_else(unknown)?;
        let partitions = plan.topics.get(from).ok_or_else(unknown)?.partitions;
        Ok(Found { running: running.clone(), index, number, input, partitions })
    }

    /// The full name of a subscriber.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn full_name(&self, name: &str) -> Result<String, ControlError> {
        Ok(self.subscriber(name)?.plan().label())
    }

    pub(super) fn entries(&self, found: &Found, partition: u32) -> Result<E::Entries, ControlError> {
        let entries = self.shared.engine.entries(LaneId { subscriber: found.number, partition });
        entries.ok_or_else(|| found.unknown(partition))
    }

    /// Tells a lane something, and waits for its answer.
    async fn tell(
        &self,
        found: &Found,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let told = self.hand_in(found, partition, command);
        let in_time = tokio::time::timeout(ANSWER_WITHIN, async { told.await?.answer().await }).await;
        in_time
            .unwrap_or_else(|_| Err(stopped(partition, "it is in a call that does not end; it may do it afterwards")))
    }

    /// Tells a lane something, which it will answer.
    pub(super) async fn hand_in(
        &self,
        found: &Found,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<Told, ControlError> {
        let branch = found.running.branches.get(found.index);
        let lane = branch
            .and_then(|branch| branch.commands.get(partition as usize))
            .ok_or_else(|| found.unknown(partition))?;
        let (sender, answer) = oneshot::channel();
        match lane.send(command(sender)).await {
            Ok(()) => Ok(Told { partition, answer }),
            Err(_) => Err(stopped(partition, "it has stopped; `wattle status` says why")),
        }
    }

    /// Events of a subscriber that wait, from a position on, at most so many. There may be fewer, for their size, and more
    /// behind them. Reads from a disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn waiting(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: ListPosition,
        count: usize,
    ) -> Result<Page<FailedEvent>, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(filter.partition)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for partition in from.partition..found.partitions {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let entries = self.entries(&found, partition)?;
            let mut number = if partition == from.partition { from.number } else { 0 };
            loop {
                let page = waiting::list(&entries, number, NUMBERS_MAX)?;
                let Some((last, _)) = page.last() else { break };
                let next = last + 1;
                for (at, waiter) in page {
                    let record = match waiting::record(&entries, at) {
                        Err(WaitingError::Malformed { .. }) => continue, // done meanwhile
                        record => record?,
                    };
                    let Some(event) = failed_event(partition, at, waiter, record) else { continue };
                    if !filter.matches(&event) {
                        continue;
                    }
                    if is_full(events.len(), count, bytes, event.bytes()) {
                        return Ok(Page { found: events, next: Some(ListPosition { partition, number: at }) });
                    }
                    bytes += event.bytes();
                    events.push(event);
                }
                number = next;
            }
        }
        Ok(Page { found: events, next: None })
    }

    /// Lets waiting events be tried at once, as if for the first time; those that are parked as well. How many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn release(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        self.tell_waiting(subscriber, filter, Command::Release).await
    }

    /// Forgets waiting events. How many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_waiting(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        self.tell_waiting(subscriber, filter, Command::Drop).await
    }

    async fn tell_waiting(
        &self,
        subscriber: &str,
        filter: &Filter,
        command: fn(Vec<u64>, Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let (mut from, mut done) = (ListPosition::default(), 0);
        loop {
            let page = self.waiting(subscriber, filter, from, NUMBERS_MAX)?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                let partition = first.partition;
                let count = rest.iter().take_while(|event| event.partition == partition).count();
                let (these, others) = rest.split_at(count);
                let numbers = these.iter().map(|event| event.number).collect();
                done += self.tell(&found, partition, |answer| command(numbers, answer)).await?;
                rest = others;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
            }
        }
    }

    /// Dead letters of a subscriber that are neither redriven nor dropped, from a position on, at most so many. There may be
    /// fewer, or none, and more behind them.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn dead_letters(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: ListPosition,
        count: usize,
    ) -> Result<Page<FailedEvent>, ControlError> {
        let found = self.subscriber(subscriber)?;
        let ends = self.ends_of_letters(&found)?;
        self.letters(&found, filter, from, count, &ends).await
    }

    /// The topic of a subscriber's dead letters.
    fn topic_of_letters(&self, found: &Found) -> Result<(TopicId, u32), ControlError> {
        let none = || ControlError::NoDeadLetters { subscriber: found.plan().label() };
        let at = found.plan().dead_letters.ok_or_else(none)?.0 as usize;
        let topic = *found.running.numbers.topics.get(at).ok_or_else(none)?;
        Ok((topic, found.running.plan.topics.get(at).ok_or_else(none)?.partitions))
    }

    /// Behind the last dead letter that there is now, of each partition.
    fn ends_of_letters(&self, found: &Found) -> Result<Vec<Offset>, ControlError> {
        let (topic, partitions) = self.topic_of_letters(found)?;
        let bounds = |partition| self.shared.engine.bounds(PartitionId { topic, partition }).unwrap_or_default();
        Ok((0..partitions).map(|partition| bounds(partition).durable).collect())
    }

    async fn letters(
        &self,
        found: &Found,
        filter: &Filter,
        from: ListPosition,
        count: usize,
        ends: &[Offset],
    ) -> Result<Page<FailedEvent>, ControlError> {
        let (topic, partitions) = self.topic_of_letters(found)?;
        found.check(filter.partition)?;
        let (mut letters, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for (partition, end) in (0..partitions).zip(ends).skip(from.partition as usize) {
            let mut offset = if partition == from.partition { from.number } else { 0 };
            let budget = ReadBudget { events: 1_000, bytes: 1 << 20 };
            while offset < *end {
                let chunks = self.shared.engine.read(PartitionId { topic, partition }, offset, budget).await?;
                let Some(last) = chunks.last() else { break };
                let next = last.end_offset();
                let stored = chunks.iter().flat_map(|chunk| chunk.iter());
                for stored in stored.filter(|stored| (offset..*end).contains(&stored.offset)) {
                    looked_at += 1;
                    let here = ListPosition { partition, number: stored.offset };
                    if looked_at > LOOKED_AT_MAX {
                        return Ok(Page { found: letters, next: Some(here) });
                    }
                    let Some(letter) = dead_letter(partition, stored.offset, stored.record) else { continue };
                    if !filter.matches(&letter) {
                        continue;
                    }
                    let entries = self.entries(found, letter.partition)?;
                    if entries.get(&done_key(partition, stored.offset))?.is_some() {
                        continue;
                    }
                    if is_full(letters.len(), count, bytes, letter.bytes()) {
                        return Ok(Page { found: letters, next: Some(here) });
                    }
                    bytes += letter.bytes();
                    letters.push(letter);
                }
                offset = next;
            }
        }
        Ok(Page { found: letters, next: None })
    }

    /// Has a subscriber handle dead letters once more, each key's in their order, behind what waits of that key; nobody else
    /// sees them again. Resolves when all that there were are in the lanes' waiting sets, which may have to make room first.
    /// How many.
    ///
    /// # Errors
    /// [`ControlError`]; those in front may have been redriven.
    pub async fn redrive(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        let (mut from, mut done) = (None, 0);
        loop {
            let part = self.redrive_some(subscriber, filter, from).await?;
            done += part.count;
            match part.next {
                Some(next) => from = Some(next),
                None => return Ok(done),
            }
        }
    }

    /// The part of [`Self::redrive`] that takes no longer than a caller waits, from the beginning or where the part before
    /// ended.
    ///
    /// # Errors
    /// [`ControlError`]; those in front may have been redriven.
    pub async fn redrive_some(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: Option<LetterProgress>,
    ) -> Result<LettersDone, ControlError> {
        let found = self.subscriber(subscriber)?;
        let mut progress = self.progress(&found, from)?;
        let (end, mut done) = (Instant::now() + PART_WITHIN, 0);
        let mut room_by = Instant::now() + ROOM_WITHIN;
        loop {
            let page = self.letters(&found, filter, progress.at, LETTERS_MAX, &progress.ends).await?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                progress.at = first.place();
                let now = Instant::now();
                if now >= end || now >= room_by || done >= PART_LETTERS_MAX {
                    return Ok(LettersDone { count: done, next: Some(progress) });
                }
                let partition = first.partition;
                let count = rest.iter().take_while(|letter| letter.partition == partition).count();
                let letters: Vec<_> = rest.iter().take(count).filter_map(FailedEvent::letter).collect();
                let taken = self.tell(&found, partition, |answer| Command::Redrive(letters, answer)).await?;
                match taken {
                    0 => tokio::time::sleep(ROOM_LOOK_EVERY).await,
                    _ => room_by = Instant::now() + ROOM_WITHIN,
                }
                done += taken;
                rest = rest.get(taken as usize..).unwrap_or_default();
            }
            let Some(next) = page.next else { return Ok(LettersDone { count: done, next: None }) };
            progress.at = next;
            if Instant::now() >= end {
                return Ok(LettersDone { count: done, next: Some(progress) });
            }
            room_by = Instant::now() + ROOM_WITHIN;
        }
    }

    fn progress(&self, found: &Found, from: Option<LetterProgress>) -> Result<LetterProgress, ControlError> {
        let ends = self.ends_of_letters(found)?;
        Ok(from.unwrap_or(LetterProgress { at: ListPosition::default(), ends }))
    }

    /// Takes dead letters off the list: they stay in their topic as long as that keeps them. How many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_dead_letters(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        let (mut from, mut done) = (None, 0);
        loop {
            let part = self.drop_some_dead_letters(subscriber, filter, from).await?;
            done += part.count;
            match part.next {
                Some(next) => from = Some(next),
                None => return Ok(done),
            }
        }
    }

    /// The part of [`Self::drop_dead_letters`] that takes no longer than a caller waits, from the beginning or where the
    /// part before ended.
    ///
    /// # Errors
    /// [`ControlError`]; those in front may have been dropped.
    pub async fn drop_some_dead_letters(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: Option<LetterProgress>,
    ) -> Result<LettersDone, ControlError> {
        let found = self.subscriber(subscriber)?;
        let mut progress = self.progress(&found, from)?;
        let (end, mut done) = (Instant::now() + PART_WITHIN, 0);
        loop {
            let page = self.letters(&found, filter, progress.at, NUMBERS_MAX, &progress.ends).await?;
            for partition in 0..found.partitions {
                let of_partition = page.found.iter().filter(|letter| letter.partition == partition);
                let keys: Vec<_> = of_partition.map(FailedEvent::done_key).collect();
                if !keys.is_empty() {
                    done += self.tell(&found, partition, |answer| Command::Forget(keys, answer)).await?;
                }
            }
            let Some(next) = page.next else { return Ok(LettersDone { count: done, next: None }) };
            progress.at = next;
            if Instant::now() >= end || done >= PART_LETTERS_MAX {
                return Ok(LettersDone { count: done, next: Some(progress) });
            }
        }
    }

    /// Has a subscriber read and call nothing more until it is resumed, also after a restart.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause(&self, subscriber: &str) -> Result<(), ControlError> {
        self.tell_all(subscriber, Command::Pause).await
    }

    /// Has a subscriber go on, also where it halted: what it halted for is tried again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn resume(&self, subscriber: &str) -> Result<(), ControlError> {
        self.tell_all(subscriber, Command::Resume).await
    }

    /// Tells all lanes at once, and waits for their answers.
    async fn tell_all(&self, subscriber: &str, command: fn(Answer) -> Command) -> Result<(), ControlError> {
        let found = self.subscriber(subscriber)?;
        let within = Instant::now() + ANSWER_WITHIN;
        let mut told = Vec::new();
        for partition in 0..found.partitions {
            let handed_in = self.hand_in(&found, partition, command);
            told.push(tokio::time::timeout_at(within, handed_in).await.unwrap_or_else(|_| Err(late(partition))));
        }
        for told in told {
            let told = told?;
            let partition = told.partition;
            tokio::time::timeout_at(within, told.answer()).await.unwrap_or_else(|_| Err(late(partition)))?;
        }
        Ok(())
    }

    /// Whether a subscriber's handler keeps anything, in a partition or in any.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn has_state(&self, subscriber: &str, partition: Option<u32>) -> Result<bool, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(partition)?;
        for partition in (0..found.partitions).filter(|of| partition.is_none_or(|only| only == *of)) {
            if !state::list(&self.entries(&found, partition)?, None, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves a subscriber. Lanes are moved one after another; each is moved whole or not at all. Whether anything waits
    /// that would be left behind is looked at first, in all of them.
    ///
    /// # Errors
    /// [`ControlError`]; lanes in front may have been moved.
    pub async fn seek(&self, subscriber: &str, to: Move) -> Result<Vec<Moved>, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(to.partition)?;
        let mut moved = Vec::new();
        let partitions = || (0..found.partitions).filter(|of| to.partition.is_none_or(|only| only == *of));
        for partition in partitions().filter(|_| !to.drops_waiting) {
            let waiting = waiting::list(&self.entries(&found, partition)?, 0, NUMBERS_MAX)?.len();
            if waiting > 0 {
                return Err(ControlError::Refused { partition, refusal: Refusal::Waits { waiting } });
            }
        }
        let mut snapshot = match to.state {
            SeekState::Snapshot(number) => Some(self.restoring(&found, number).await?),
            SeekState::Keep | SeekState::Empty => None,
        };
        // Where to is fixed for all of them first: what is refused is refused whole.
        let mut targets = Vec::new();
        for partition in partitions() {
            let input = PartitionId { topic: found.input, partition };
            let bounds = self.shared.engine.bounds(input).unwrap_or_default();
            let target = match to.to {
                SeekTo::Start => bounds.start,
                SeekTo::End => bounds.written,
                SeekTo::Offset(offset) => offset.clamp(bounds.start, bounds.written),
                SeekTo::Time(time_ns) => self.shared.engine.offset_at_time(input, time_ns).await?,
                SeekTo::Snapshot => match &snapshot {
                    Some(snapshot) => snapshot.position(partition, bounds.start, bounds.written)?,
                    None => return Err(SnapshotError::NoPosition.into()),
                },
            };
            targets.push((partition, target));
        }
        for (partition, target) in targets {
            let lane = LaneId { subscriber: found.number, partition };
            let from = self.shared.engine.position(lane).unwrap_or(0);
            if !to.dry_run {
                let (state, feeding) = match (to.state, snapshot.take()) {
                    (SeekState::Snapshot(_), Some(snapshot)) => {
                        let (sender, receiver) = Restoring::channel();
                        let feeding = tokio::task::spawn_blocking(move || snapshot.feed(partition, &sender));
                        (SeekFrom::Snapshot(receiver), Some(feeding))
                    }
                    (SeekState::Empty, _) => (SeekFrom::Empty, None),
                    _ => (SeekFrom::Kept, None),
                };
                let seek = Seek { to: target, from: state, drops_waiting: to.drops_waiting };
                self.tell(&found, partition, |answer| Command::Seek(seek, answer)).await?;
                if let Some(feeding) = feeding {
                    snapshot = Some(feeding.await.map_err(|_| stopped(partition, "the snapshot was not read"))?);
                }
            }
            moved.push(Moved { partition, from, to: target });
        }
        Ok(moved)
    }

    /// What is under a key of a subscriber's state, in each partition that has it: keys of events decide where that is.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn state(&self, subscriber: &str, bucket: &str, key: &str) -> Result<Vec<StateOfPartition>, ControlError> {
        let found = self.subscriber(subscriber)?;
        let mut all = Vec::new();
        for partition in 0..found.partitions {
            let entry = state::get(&self.entries(&found, partition)?, bucket, key)?;
            all.extend(entry.map(|entry| StateOfPartition { partition, entry }));
        }
        Ok(all)
    }

    /// A subscriber's state in a partition behind an entry (bucket and key), at most so many entries: fewer only where there
    /// are no more.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list_state(
        &self,
        subscriber: &str,
        partition: u32,
        behind: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<StateEntry>, ControlError> {
        let found = self.subscriber(subscriber)?;
        let entries = self.entries(&found, partition)?;
        let behind = behind.map(|(bucket, key)| state::position_behind(bucket, key));
        Ok(state::list(&entries, behind.as_deref(), count)?)
    }

    /// Entries of a subscriber's state, by partition, bucket and key, from a position on, at most so many. There may be
    /// fewer, or none, and more behind them. Reads from a disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn state_page(
        &self,
        subscriber: &str,
        filter: &StateFilter,
        from: StatePosition,
        count: usize,
    ) -> Result<StatePage, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(filter.partition)?;
        let (mut entries, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for partition in from.partition..found.partitions {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let kept = self.entries(&found, partition)?;
            let is_begun = partition == from.partition && (&from.bucket, &from.key) != (&String::new(), &String::new());
            let mut behind = match (&filter.bucket, is_begun) {
                (_, true) => Some((from.bucket.clone(), from.key.clone())),
                (Some(bucket), false) => Some((bucket.clone(), String::new())),
                (None, false) => None,
            };
            'partition: loop {
                let position = behind.as_ref().map(|(bucket, key)| state::position_behind(bucket, key));
                let page = state::list(&kept, position.as_deref(), STATE_ENTRIES)?;
                let is_last = page.len() < STATE_ENTRIES;
                for entry in page {
                    if filter.bucket.as_ref().is_some_and(|bucket| *bucket < entry.bucket) {
                        break 'partition;
                    }
                    let (bucket, key) = behind.clone().unwrap_or_default();
                    let size = entry.bucket.len() + entry.key.len() + entry.value.len();
                    if looked_at >= STATE_LOOKED_AT_MAX || is_full(entries.len(), count, bytes, size) {
                        return Ok(StatePage { found: entries, next: Some(StatePosition { partition, bucket, key }) });
                    }
                    looked_at += 1;
                    behind = Some((entry.bucket.clone(), entry.key.clone()));
                    if filter.bucket.as_ref().is_none_or(|bucket| *bucket == entry.bucket)
                        && entry.key.starts_with(&filter.prefix)
                    {
                        bytes += size;
                        entries.push(StateOfPartition { partition, entry });
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(StatePage { found: entries, next: None })
    }

    /// How many partitions a subscriber has.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn partitions_of(&self, subscriber: &str) -> Result<u32, ControlError> {
        Ok(self.subscriber(subscriber)?.partitions)
    }

    /// Puts entries into a subscriber's state, in place of what may be there. How many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn import_state(
        &self,
        subscriber: &str,
        partition: u32,
        entries: &[StateEntry],
    ) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let writes = entries.iter().map(state::write_of).collect();
        self.tell(&found, partition, |answer| Command::Import(writes, answer)).await
    }
}

/// A lane that was told something.
pub(super) struct Told {
    pub(super) partition: u32,
    answer: oneshot::Receiver<Result<u64, Refusal>>,
}

impl Told {
    pub(super) async fn answer(self) -> Result<u64, ControlError> {
        let partition = self.partition;
        match self.answer.await {
            Ok(answer) => answer.map_err(|refusal| ControlError::Refused { partition, refusal }),
            Err(_) => Err(stopped(partition, "it stopped meanwhile; `wattle status` says why")),
        }
    }
}

/// A lane does not answer.
pub(super) fn late(partition: u32) -> ControlError {
    stopped(partition, "it is in a call that does not end; it will do it afterwards")
}

/// A lane does not answer, with the reason.
fn stopped(partition: u32, reason: &str) -> ControlError {
    ControlError::Refused { partition, refusal: Refusal::Stopped { reason: reason.to_owned() } }
}

/// Whether a listing that has so many entries and bytes takes one more.
fn is_full(entries: usize, entries_max: usize, bytes: usize, more_bytes: usize) -> bool {
    entries >= entries_max || (entries > 0 && bytes + more_bytes > LISTING_BYTES)
}

impl Found {
    /// What the topology says of it.
    pub(super) fn plan(&self) -> &SubscriberPlan {
        &self.running.plan[SubscriberIndex(self.index as u32)]
    }

    /// Refuses a partition that it does not have.
    fn check(&self, partition: Option<u32>) -> Result<(), ControlError> {
        match partition {
            Some(partition) if partition >= self.partitions => Err(self.unknown(partition)),
            _ => Ok(()),
        }
    }

    fn unknown(&self, partition: u32) -> ControlError {
        let (subscriber, partitions) = (self.plan().label(), self.partitions);
        ControlError::UnknownPartition { subscriber, partition, partitions }
    }
}

impl FailedEvent {
    fn done_key(&self) -> Bytes {
        done_key(self.dead_partition.unwrap_or(0), self.number)
    }

    /// Where a dead letter is listed.
    fn place(&self) -> ListPosition {
        ListPosition { partition: self.dead_partition.unwrap_or(0), number: self.number }
    }

    /// About how much room it takes in a listing.
    fn bytes(&self) -> usize {
        let Waiter { reason, backtrace, .. } = &self.waiter;
        let texts = self.key.len() + self.id.len() + reason.len() + backtrace.as_ref().map_or(0, String::len);
        std::mem::size_of::<Self>() + texts + self.event.len()
    }

    /// As its lane takes it in.
    fn letter(&self) -> Option<Letter> {
        let waiter = Waiter { attempts: 0, since_ns: now_ns(), due_ns: 0, is_parked: false, ..self.waiter.clone() };
        let mut record = Vec::with_capacity(self.key.len() + self.event.len() + 16);
        // its key was stored before, so it fits
        Record { key: &self.key, lineage: None, event: &self.event }.write(&mut record).ok()?;
        Some(Letter { done: self.done_key(), waiter, record: record.into() })
    }
}

fn failed_event(partition: u32, number: u64, waiter: Waiter, record: Bytes) -> Option<FailedEvent> {
    let parsed = Record::parse(&record).ok()?;
    let view = EventView::parse(parsed.event).ok()?;
    let (key, id) = (parsed.key.to_owned(), view.id.to_owned());
    let event = record.slice_ref(parsed.event);
    Some(FailedEvent { number, partition, key, id, waiter, event, dead_partition: None })
}
