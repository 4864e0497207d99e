//! Dead letters: listing, redriving, dropping.
//!
//! ```text
//!   the topic `S.dead` ──> matching open ones ──┬─ redrive: the lane adds it to its retry queue, and marks it as done
//!                                               └─ drop: the lane marks it as done
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::error::ControlError;
use super::failed::{Page, is_full};
use super::retry_queue::NUMBERS_MAX;
use super::subscriber::{Subscriber, stopped};
use crate::api::{FailedEvent, Filter, LetterProgress, LettersPart, ListPosition};
use crate::dispatch::lane::command::{Command, Letter};
use crate::dispatch::lane::done::done_key;
use crate::dispatch::lane::outputs::FIRST_OF_FAILURE;
use crate::dispatch::lane::waiting::Waiter;
use crate::engine::{Engine, Entries, ReadBudget};
use crate::model::{Offset, PartitionId, Record, TopicId};

/// Dead letters in one command to a lane.
const LETTERS_MAX: usize = 256;
/// Dead letters that one page of a listing reads at most, including those that the filter excludes.
const LOOKED_AT_MAX: usize = 50_000;
/// Dead letters that are processed before progress is reported.
const PART_LETTERS_MAX: u64 = 10_000;
/// Time after which progress is reported.
const PART_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for a lane whose retry queue is full before progress is reported.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// Interval between commands to a lane whose retry queue is full.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Decodes a stored dead letter into the original event and its failure.
pub(crate) fn dead_letter(dead_partition: u32, offset: Offset, record: &[u8]) -> Option<FailedEvent> {
    let record = Record::parse(record).ok()?;
    let (lineage, view) = (record.lineage?, record.view().ok()?);
    let original = view.before_failure(FIRST_OF_FAILURE)?;
    let mut waiter = Waiter::new(lineage.offset, (0, 0), 0);
    for (name, value) in view.attributes() {
        let Some(text) = value.as_text() else { continue };
        let number = || text.parse().unwrap_or(0);
        match name {
            // attributes before it belong to the original event, in dead letters of an early release
            FIRST_OF_FAILURE => waiter = Waiter::new(lineage.offset, (0, 0), 0),
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
        event: original,
        dead_partition: Some(dead_partition),
        ..FailedEvent::of(waiter)
    })
}

/// Runs an operation part by part. Returns the number of dead letters processed.
async fn to_the_end(
    part: impl AsyncFn(Option<LetterProgress>) -> Result<LettersPart, ControlError>,
) -> Result<u64, ControlError> {
    let (mut from, mut done) = (None, 0);
    loop {
        let LettersPart { count, next } = part(from).await?;
        done += count;
        match next {
            Some(next) => from = Some(next),
            None => return Ok(done),
        }
    }
}

/// The dead letters of a subscriber that are neither redriven nor dropped.
pub struct DeadLetters<'a, E>(&'a Subscriber<E>);

impl<E: Engine> Subscriber<E> {
    /// Its open dead letters.
    pub fn dead_letters(&self) -> DeadLetters<'_, E> {
        DeadLetters(self)
    }
}

impl<E: Engine> DeadLetters<'_, E> {
    /// Open dead letters, starting at `from`, at most `count`. A page may have fewer, or none, although more follow.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list(
        &self,
        filter: &Filter,
        from: ListPosition,
        count: usize,
    ) -> Result<Page<FailedEvent>, ControlError> {
        self.list_to(filter, from, count, &self.ends().await?).await
    }

    /// The dead-letter topic, and the number of its partitions.
    fn topic(&self) -> Result<(TopicId, u32), ControlError> {
        let Subscriber { running, .. } = self.0;
        let none = || ControlError::NoDeadLetters { subscriber: self.0.name() };
        let at = self.0.plan().dead_letters.ok_or_else(none)?.0 as usize;
        let topic = *running.numbers.topics.get(at).ok_or_else(none)?;
        Ok((topic, running.plan.topics.get(at).ok_or_else(none)?.partitions))
    }

    /// Current end offset of each partition of the dead-letter topic.
    async fn ends(&self) -> Result<Vec<Offset>, ControlError> {
        let (topic, partitions) = self.topic()?;
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let bounds = self.0.engine().durable_bounds(PartitionId { topic, partition }).await;
            ends.push(bounds.map_err(|error| stopped(partition, &error.to_string()))?.unwrap_or_default().durable);
        }
        Ok(ends)
    }

    /// As [`Self::list`], of those before these ends.
    pub(super) async fn list_to(
        &self,
        filter: &Filter,
        from: ListPosition,
        count: usize,
        ends: &[Offset],
    ) -> Result<Page<FailedEvent>, ControlError> {
        let (topic, partitions) = self.topic()?;
        self.0.check(filter.partition)?;
        let now_ns = self.0.engine().now_ns();
        let (mut letters, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for (partition, end) in (0..partitions).zip(ends).skip(from.partition as usize) {
            let mut offset = if partition == from.partition { from.number } else { 0 };
            let budget = ReadBudget { events: 1_000, bytes: 1 << 20 };
            while offset < *end {
                let chunks = self.0.engine().read(PartitionId { topic, partition }, offset, budget).await?;
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
                    if !filter.matches(&letter, now_ns) {
                        continue;
                    }
                    let entries = self.0.entries(letter.partition)?;
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

    /// Handles them again, each key in order, after the waiting events of the same key; other subscribers do
    /// not see them. Resolves when all dead letters that existed at the call are in the retry queues, which may have to
    /// become shorter first. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`]; some of them may have been redriven.
    pub async fn redrive(&self, filter: &Filter) -> Result<u64, ControlError> {
        to_the_end(async |from| self.redrive_some(filter, from).await).await
    }

    /// A part of [`Self::redrive`], short enough for a caller to wait for, from the beginning or from the end of the
    /// previous part.
    ///
    /// # Errors
    /// [`ControlError`]; some of them may have been redriven.
    pub async fn redrive_some(
        &self,
        filter: &Filter,
        from: Option<LetterProgress>,
    ) -> Result<LettersPart, ControlError> {
        let mut progress = self.progress(from).await?;
        // Concurrent calls may redrive the same dead letters, so each lane counts those that were still open.
        let redriven = Arc::new(AtomicU64::new(0));
        let done = |next| LettersPart { count: redriven.load(Ordering::Relaxed), next };
        let (end, mut looked_at) = (Instant::now() + PART_WITHIN, 0);
        let mut room_by = Instant::now() + ROOM_WITHIN;
        loop {
            let page = self.list_to(filter, progress.at, LETTERS_MAX, &progress.ends).await?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                progress.at = first.place();
                let now = Instant::now();
                if now >= end || now >= room_by || looked_at >= PART_LETTERS_MAX {
                    return Ok(done(Some(progress)));
                }
                let partition = first.partition;
                let count = rest.iter().take_while(|letter| letter.partition == partition).count();
                let now_ns = self.0.engine().now_ns();
                let letters: Vec<_> = rest.iter().take(count).filter_map(|failed| failed.letter(now_ns)).collect();
                let redrive = |answer| Command::Redrive(letters, redriven.clone(), answer);
                let taken = self.0.tell(partition, redrive).await?;
                match taken {
                    0 => tokio::time::sleep(ROOM_LOOK_EVERY).await,
                    _ => room_by = Instant::now() + ROOM_WITHIN,
                }
                looked_at += taken;
                rest = rest.get(taken as usize..).unwrap_or_default();
            }
            let Some(next) = page.next else { return Ok(done(None)) };
            progress.at = next;
            if Instant::now() >= end {
                return Ok(done(Some(progress)));
            }
            room_by = Instant::now() + ROOM_WITHIN;
        }
    }

    pub(super) async fn progress(&self, from: Option<LetterProgress>) -> Result<LetterProgress, ControlError> {
        let ends = self.ends().await?;
        Ok(from.unwrap_or(LetterProgress { at: ListPosition::default(), ends }))
    }

    /// Marks them as done, so that they are no longer listed; they stay in their topic for its retention.
    /// Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop(&self, filter: &Filter) -> Result<u64, ControlError> {
        to_the_end(async |from| self.drop_some(filter, from).await).await
    }

    /// A part of [`Self::drop`], short enough for a caller to wait for, from the beginning or from the end
    /// of the previous part.
    ///
    /// # Errors
    /// [`ControlError`]; some of them may have been dropped.
    pub async fn drop_some(&self, filter: &Filter, from: Option<LetterProgress>) -> Result<LettersPart, ControlError> {
        let mut progress = self.progress(from).await?;
        let (end, mut done) = (Instant::now() + PART_WITHIN, 0);
        loop {
            let page = self.list_to(filter, progress.at, NUMBERS_MAX, &progress.ends).await?;
            for partition in 0..self.0.partitions() {
                let of_partition = page.found.iter().filter(|letter| letter.partition == partition);
                let keys: Vec<_> = of_partition.map(FailedEvent::done_key).collect();
                if !keys.is_empty() {
                    done += self.0.tell(partition, |answer| Command::Forget(keys, answer)).await?;
                }
            }
            let Some(next) = page.next else { return Ok(LettersPart { count: done, next: None }) };
            progress.at = next;
            if Instant::now() >= end || done >= PART_LETTERS_MAX {
                return Ok(LettersPart { count: done, next: Some(progress) });
            }
        }
    }
}

impl FailedEvent {
    fn done_key(&self) -> Bytes {
        done_key(self.dead_partition.unwrap_or(0), self.number)
    }

    /// The listing position of a dead letter.
    fn place(&self) -> ListPosition {
        ListPosition { partition: self.dead_partition.unwrap_or(0), number: self.number }
    }

    /// The dead letter in the form that its lane takes, to wait since `since_ns`.
    fn letter(&self, since_ns: u64) -> Option<Letter> {
        let waiter = Waiter {
            failed_ns: self.failed_ns,
            failure: self.failure.clone(),
            reason: self.reason.clone(),
            backtrace: self.backtrace.clone(),
            digest: self.digest.clone(),
            ..Waiter::new(self.offset, (self.append_time_ns, 0), since_ns)
        };
        let mut record = Vec::with_capacity(self.key.len() + self.event.len() + 16);
        // the key was stored before, so it fits
        Record { key: &self.key, lineage: None, event: &self.event }.write(&mut record).ok()?;
        Some(Letter { done: self.done_key(), waiter, record: record.into() })
    }
}
