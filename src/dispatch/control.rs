//! What can be asked of a running subscriber, and what it can be told: its state, what waits, its dead letters, where it
//! is.
//!
//! Promises: what is looked at is looked at while the lanes run, without a pause; what changes something is done by the
//! lane itself between two calls, in one unit, and answered when that is durable. Whoever asks again after an answer that
//! was lost does no harm: a dead letter is redriven once.
//! Must not know: gRPC, the command line.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::command::{Answer, Command, Letter, Refusal, Seek};
use super::entries::DONE;
use super::state::{self, StateEntry};
use super::tree::Tree;
use super::waiting::{self, Waiter, WaitingError, now_ns};
use crate::engine::{Engine, Entries, ReadBudget, ReadError};
use crate::model::{EventView, LaneId, Offset, PartitionId, Record, SubscriberId, TopicId};
use crate::topology::SubscriberPlan;

/// Dead letters that a lane is given at once.
const LETTERS_MAX: usize = 256;
/// Waiting events that a lane is told about at once.
const NUMBERS_MAX: usize = 1_000;
/// How soon a lane that had no room is asked again.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a lane that is in the middle of a call is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// No subscriber of that name.
    #[error("there is no subscriber `{subscriber}`; `wattle status` lists them")]
    UnknownSubscriber {
        /// What was asked for.
        subscriber: String,
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
    /// A lane does not do it.
    #[error("partition {partition}: {refusal}")]
    Refused {
        /// The lane's partition.
        partition: u32,
        /// Why.
        refusal: Refusal,
    },
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
    /// Whose last attempt failed at least so long ago.
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
        let age_ns = now_ns().saturating_sub(waiter.failed_ns);
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
    record: Bytes,
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
}

/// How a subscriber is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub to: SeekTo,
    /// Only this partition; `None` for all.
    pub partition: Option<u32>,
    /// Its handler's state is emptied. Where that is false it stays as it is, though it may know events that come again.
    pub empties_state: bool,
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
struct Found<'a> {
    plan: &'a SubscriberPlan,
    index: usize,
    number: SubscriberId,
    input: TopicId,
    partitions: u32,
}

/// The key under which a lane notes that a dead letter is done.
fn done_key(dead_partition: u32, offset: Offset) -> Bytes {
    let mut key = Vec::with_capacity(13);
    key.push(DONE);
    key.extend_from_slice(&dead_partition.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key.into()
}

/// A stored dead letter, as the event that it was.
fn dead_letter(dead_partition: u32, offset: Offset, record: &[u8]) -> Option<FailedEvent> {
    let record = Record::parse(record).ok()?;
    let (lineage, view) = (record.lineage?, record.view().ok()?);
    let original = Bytes::copy_from_slice(view.in_front_of_last("wattlesubscriber")?);
    let mut waiter = Waiter::new(lineage.offset, 0);
    for (name, value) in view.attributes() {
        let Some(text) = value.as_text() else { continue };
        let number = || text.parse().unwrap_or(0);
        match name {
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
    let mut kept = Vec::new();
    Record { key: record.key, lineage: None, event: &original }.write(&mut kept).ok()?;
    Some(FailedEvent {
        number: offset,
        partition: lineage.partition,
        key: record.key.to_owned(),
        id: view.id.to_owned(),
        waiter,
        event: original,
        dead_partition: Some(dead_partition),
        record: kept.into(),
    })
}

impl<E: Engine> Tree<E> {
    fn subscriber(&self, name: &str) -> Result<Found<'_>, ControlError> {
        let plan = &self.shared.plan;
        let named = plan.subscribers.iter().enumerate().filter(|(_, plan)| plan.label() == name || plan.name == name);
        let named: Vec<_> = named.collect();
        let (index, plan_of) = match named.as_slice() {
            [found] => *found,
            [] => return Err(ControlError::UnknownSubscriber { subscriber: name.to_owned() }),
            several => {
                let candidates = several.iter().map(|(_, plan)| plan.label()).collect();
                return Err(ControlError::AmbiguousSubscriber { subscriber: name.to_owned(), candidates });
            }
        };
        let unknown = || ControlError::UnknownSubscriber { subscriber: name.to_owned() };
        let number = *self.shared.numbers.subscribers.get(index).ok_or_else(unknown)?;
        let from = plan_of.from.0 as usize;
        let input = *self.shared.numbers.topics.get(from).ok_or_else(unknown)?;
        let partitions = plan.topics.get(from).ok_or_else(unknown)?.partitions;
        Ok(Found { plan: plan_of, index, number, input, partitions })
    }

    fn entries(&self, found: &Found<'_>, partition: u32) -> Result<E::Entries, ControlError> {
        let entries = self.shared.engine.entries(LaneId { subscriber: found.number, partition });
        entries.ok_or_else(|| found.unknown(partition))
    }

    /// Tells a lane something, and waits for its answer.
    async fn tell(
        &self,
        found: &Found<'_>,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let refused = |refusal| ControlError::Refused { partition, refusal };
        let stopped = |reason: &str| refused(Refusal::Stopped { reason: reason.to_owned() });
        let lanes = self.shared.commands.get(found.index);
        let lane = lanes.and_then(|lanes| lanes.get(partition as usize)).ok_or_else(|| found.unknown(partition))?;
        let (sender, answer) = oneshot::channel();
        if lane.send(command(sender)).await.is_err() {
            return Err(stopped("it has stopped; `wattle status` says why"));
        }
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer.map_err(refused),
            Ok(Err(_)) => Err(stopped("it stopped meanwhile; `wattle status` says why")),
            Err(_) => Err(stopped("it is in a call that does not end; it will do it afterwards")),
        }
    }

    /// Events of a subscriber that wait, from a position on, at most so many.
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
        let mut events = Vec::new();
        for partition in from.partition..found.partitions {
            let entries = self.entries(&found, partition)?;
            let mut number = if partition == from.partition { from.number } else { 0 };
            loop {
                let page = waiting::list(&entries, number, NUMBERS_MAX)?;
                let Some((last, _)) = page.last() else { break };
                let next = last + 1;
                for (at, waiter) in page {
                    let Ok(record) = waiting::record(&entries, at) else { continue }; // done meanwhile
                    let Some(event) = failed_event(partition, at, waiter, record) else { continue };
                    if !filter.matches(&event) {
                        continue;
                    }
                    if events.len() == count {
                        return Ok(Page { found: events, next: Some(ListPosition { partition, number: at }) });
                    }
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

    /// Dead letters of a subscriber that are neither redriven nor dropped, from a position on, at most so many.
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
        let none = || ControlError::NoDeadLetters { subscriber: found.plan.label() };
        let at = found.plan.dead_letters.ok_or_else(none)?.0 as usize;
        let topic = *self.shared.numbers.topics.get(at).ok_or_else(none)?;
        let partitions = self.shared.plan.topics.get(at).ok_or_else(none)?.partitions;
        let mut letters = Vec::new();
        for partition in from.partition..partitions {
            let mut offset = if partition == from.partition { from.number } else { 0 };
            let budget = ReadBudget { events: 1_000, bytes: 1 << 20 };
            loop {
                let chunks = self.shared.engine.read(PartitionId { topic, partition }, offset, budget).await?;
                let Some(last) = chunks.last() else { break };
                let end = last.end_offset();
                for stored in chunks.iter().flat_map(|chunk| chunk.iter()).filter(|stored| stored.offset >= offset) {
                    let Some(letter) = dead_letter(partition, stored.offset, stored.record) else { continue };
                    if !filter.matches(&letter) {
                        continue;
                    }
                    let entries = self.entries(&found, letter.partition)?;
                    if entries.get(&done_key(partition, stored.offset))?.is_some() {
                        continue;
                    }
                    if letters.len() == count {
                        let next = Some(ListPosition { partition, number: stored.offset });
                        return Ok(Page { found: letters, next });
                    }
                    letters.push(letter);
                }
                offset = end;
            }
        }
        Ok(Page { found: letters, next: None })
    }

    /// Has a subscriber handle dead letters once more, each key's in their order, behind what waits of that key; nobody else
    /// sees them again. Resolves when all are in the lanes' waiting sets, which may have to make room first. How many.
    ///
    /// # Errors
    /// [`ControlError`]; those in front may have been redriven.
    pub async fn redrive(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let (mut from, mut done) = (ListPosition::default(), 0);
        loop {
            let page = self.dead_letters(subscriber, filter, from, LETTERS_MAX).await?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                let partition = first.partition;
                let count = rest.iter().take_while(|letter| letter.partition == partition).count();
                let letters: Vec<_> = rest.iter().take(count).map(FailedEvent::letter).collect();
                let taken = self.tell(&found, partition, |answer| Command::Redrive(letters, answer)).await?;
                if taken == 0 {
                    tokio::time::sleep(ROOM_LOOK_EVERY).await;
                }
                done += taken;
                rest = rest.get(taken as usize..).unwrap_or_default();
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
            }
        }
    }

    /// Takes dead letters off the list: they stay in their topic as long as that keeps them. How many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_dead_letters(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let (mut from, mut done) = (ListPosition::default(), 0);
        loop {
            let page = self.dead_letters(subscriber, filter, from, NUMBERS_MAX).await?;
            for partition in 0..found.partitions {
                let of_partition = page.found.iter().filter(|letter| letter.partition == partition);
                let keys: Vec<_> = of_partition.map(FailedEvent::done_key).collect();
                if !keys.is_empty() {
                    done += self.tell(&found, partition, |answer| Command::Forget(keys, answer)).await?;
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
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

    async fn tell_all(&self, subscriber: &str, command: fn(Answer) -> Command) -> Result<(), ControlError> {
        let found = self.subscriber(subscriber)?;
        for partition in 0..found.partitions {
            self.tell(&found, partition, command).await?;
        }
        Ok(())
    }

    /// Moves a subscriber. Lanes are moved one after another; each is moved whole or not at all.
    ///
    /// # Errors
    /// [`ControlError`]; lanes in front may have been moved.
    pub async fn seek(&self, subscriber: &str, to: Move) -> Result<Vec<Moved>, ControlError> {
        let found = self.subscriber(subscriber)?;
        if let Some(partition) = to.partition.filter(|partition| *partition >= found.partitions) {
            return Err(found.unknown(partition));
        }
        let mut moved = Vec::new();
        for partition in (0..found.partitions).filter(|partition| to.partition.is_none_or(|only| only == *partition)) {
            let input = PartitionId { topic: found.input, partition };
            let bounds = self.shared.engine.bounds(input).unwrap_or_default();
            let target = match to.to {
                SeekTo::Start => bounds.start,
                SeekTo::End => bounds.written,
                SeekTo::Offset(offset) => offset.clamp(bounds.start, bounds.written),
                SeekTo::Time(time_ns) => self.shared.engine.offset_at_time(input, time_ns).await?,
            };
            let lane = LaneId { subscriber: found.number, partition };
            let from = self.shared.engine.position(lane).unwrap_or(0);
            if !to.dry_run {
                let seek = Seek { to: target, empties_state: to.empties_state, drops_waiting: to.drops_waiting };
                self.tell(&found, partition, |answer| Command::Seek(seek, answer)).await?;
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

impl Found<'_> {
    fn unknown(&self, partition: u32) -> ControlError {
        let (subscriber, partitions) = (self.plan.label(), self.partitions);
        ControlError::UnknownPartition { subscriber, partition, partitions }
    }
}

impl FailedEvent {
    fn done_key(&self) -> Bytes {
        done_key(self.dead_partition.unwrap_or(0), self.number)
    }

    fn letter(&self) -> Letter {
        let waiter = Waiter { attempts: 0, since_ns: now_ns(), due_ns: 0, is_parked: false, ..self.waiter.clone() };
        Letter { done: self.done_key(), waiter, record: self.record.clone() }
    }
}

fn failed_event(partition: u32, number: u64, waiter: Waiter, record: Bytes) -> Option<FailedEvent> {
    let parsed = Record::parse(&record).ok()?;
    let view = EventView::parse(parsed.event).ok()?;
    let (key, id) = (parsed.key.to_owned(), view.id.to_owned());
    let event = record.slice_ref(parsed.event);
    Some(FailedEvent { number, partition, key, id, waiter, event, dead_partition: None, record })
}
