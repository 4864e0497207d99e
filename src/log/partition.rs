//! A partition as readers see it: its recent events in memory, its segments, its watermarks.
//!
//! ```text
//!   start ....... segments ....... recent ....... durable ....... written
//!                            └ the two overlap: the recent part begins no later than the end of the segments,
//!                              so every event is in at least one of them
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::segments::Segments;
use super::store::Extent;
use super::unconsumed::Counts;
use crate::model::{Chunk, Meter, Offset, Retention, TimeOf};

/// A partition. The appender and the checkpointer write it, all readers share it.
#[derive(Debug, Default)]
pub struct Partition {
    recent: Mutex<VecDeque<Chunk>>,
    /// Ordered by offset.
    segments: Mutex<Segments>,
    start: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    written_changed: Notify,
    durable_changed: Notify,
    /// Number of outside readers that wait for events to become durable.
    awaited_outside: AtomicUsize,
    counts: Counts,
    /// Rate of appended events, by trusted time.
    appended: Meter,
}

/// The result of a read from memory.
#[derive(Debug)]
pub enum RecentRead {
    /// These events.
    Chunks(Vec<Chunk>),
    /// No event has been written there yet.
    AtEnd,
    /// The events are no longer in memory: read them from the disk.
    Cold,
}

/// The result of a search by append time in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeSearch {
    /// The event at this offset, in memory.
    Recent(Offset),
    /// The event may be in a segment.
    Cold,
    /// There is no such event.
    None,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// A partition as of a checkpoint.
    pub(super) fn recovered(extent: Extent, segments: Segments) -> Self {
        Self {
            segments: Mutex::new(segments),
            start: extent.start.into(),
            written: extent.end.into(),
            durable: extent.end.into(),
            ..Self::default()
        }
    }

    /// The offset of the first retained event.
    pub fn start(&self) -> Offset {
        self.start.load(Ordering::Acquire)
    }

    /// The offset after the last written event.
    pub fn written(&self) -> Offset {
        self.written.load(Ordering::Acquire)
    }

    /// The offset after the last durable event.
    pub fn durable(&self) -> Offset {
        self.durable.load(Ordering::Acquire)
    }

    /// Events from `from` on and before `end`, from memory: at least one chunk if there is any, then as many as
    /// `events` and `bytes` allow.
    pub fn recent(&self, from: Offset, end: Offset, events: u32, bytes: usize) -> RecentRead {
        if from >= end {
            return RecentRead::AtEnd;
        }
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.end_offset() <= from);
        match recent.get(first) {
            Some(chunk) if chunk.base_offset <= from => {}
            _ => return RecentRead::Cold,
        }
        let mut taken = ChunkLimiter::new(from, end, events, bytes);
        for chunk in recent.range(first..) {
            if !taken.add(chunk.clone()) {
                break;
            }
        }
        RecentRead::Chunks(taken.chunks)
    }

    /// All events from `from` to before `end`. They are in memory, and both are bounds of chunks.
    pub(super) fn chunks(&self, from: Offset, end: Offset) -> Vec<Chunk> {
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.end_offset() <= from);
        recent.range(first..).take_while(|chunk| chunk.base_offset < end).cloned().collect()
    }

    /// Resolves when the event at `offset` is written, when `stopped` says so, or when something changed: look again.
    pub async fn wait_written(&self, offset: Offset, stopped: impl Fn() -> bool) {
        wait(&self.written_changed, || self.written() > offset || stopped()).await;
    }

    /// Resolves when the event at `offset` is durable, when `stopped` says so, or when something changed: look again.
    /// Calls `hurry` if the event is written but not synced.
    pub(super) async fn wait_durable(&self, offset: Offset, stopped: impl Fn() -> bool, hurry: impl Fn()) {
        let _awaits = WaiterGuard::new(&self.awaited_outside);
        if self.durable() <= offset && self.written() > offset {
            hurry();
        }
        wait(&self.durable_changed, || self.durable() > offset || stopped()).await;
    }

    /// Whether an outside reader waits for its next events to become durable. A reader that starts to wait at the same
    /// time may be missed, and waits until the next sync.
    pub(super) fn is_awaited_outside(&self) -> bool {
        self.awaited_outside.load(Ordering::SeqCst) > 0
    }

    /// Adds written events. Readers are woken by [`Self::wake_written`].
    pub(super) fn push(&self, chunk: Chunk) {
        let end = chunk.end_offset();
        self.appended.add(chunk.trusted_time_ns, u64::from(chunk.count));
        lock(&self.recent).push_back(chunk);
        self.written.store(end, Ordering::SeqCst);
        self.counts.count_anew();
    }

    #[cfg(test)]
    pub(super) fn written_up_to(&self, end: Offset) {
        self.written.store(end, Ordering::SeqCst);
    }

    pub(super) fn wake_written(&self) {
        self.written_changed.notify_waiters();
    }

    /// Makes everything before `end` visible to outside readers.
    pub(super) fn set_durable(&self, end: Offset) {
        self.durable.store(end, Ordering::Release);
        self.durable_changed.notify_waiters();
    }

    /// Wakes all readers, so that they see that the log has stopped.
    pub(super) fn wake_all(&self) {
        self.written_changed.notify_waiters();
        self.durable_changed.notify_waiters();
    }

    /// Removes everything before `end` from memory.
    pub(super) fn forget(&self, end: Offset) {
        let mut recent = lock(&self.recent);
        while recent.front().is_some_and(|chunk| chunk.end_offset() <= end) {
            recent.pop_front();
        }
    }

    /// The segments, ordered by offset.
    pub(super) fn segments(&self) -> Segments {
        lock(&self.segments).clone()
    }

    /// A checkpoint is durable: sets the segments, and removes events before `start`.
    pub(super) fn set_segments(&self, segments: Segments, start: Offset) {
        *lock(&self.segments) = segments;
        self.start.store(start, Ordering::Release);
        self.counts.count_anew();
    }

    /// The offsets after the last event that certainly, and that possibly, is outside of a retention at a trusted time.
    /// They can differ, because only the first and the last time of a segment are known.
    pub(super) fn beyond(&self, retention: &Retention, now_ns: u64) -> (Offset, Offset) {
        let (start, segments) = (self.start(), self.segments());
        let moved = segments.last().map_or(start, |last| last.end_offset);
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.end_offset() <= moved);
        let (mut surely, mut perhaps) = (start, start);
        if let Some(age) = retention.age {
            let horizon_ns = now_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
            let old = segments.iter().take_while(|segment| segment.last_trusted_ns < horizon_ns);
            let young = segments.iter().find(|segment| segment.first_trusted_ns >= horizon_ns);
            let between = recent.partition_point(|chunk| chunk.trusted_time_ns < horizon_ns);
            let old_recent = between.checked_sub(1).and_then(|last| recent.get(last)).map(Chunk::end_offset);
            surely = old.last().map(|segment| segment.end_offset).max(old_recent).unwrap_or(start).max(start);
            let young = young.map(|segment| segment.base_offset);
            let young_recent = recent.get(between).map(|chunk| chunk.base_offset);
            let ends = young.into_iter().chain(young_recent).min();
            perhaps = ends.unwrap_or_else(|| self.written()).max(surely);
        }
        if let Some(bytes_max) = retention.partition_bytes {
            let of_segments = segments.iter().map(|segment| (segment.end_offset, segment.bytes));
            let of_recent = recent.range(first..).map(|chunk| (chunk.end_offset(), chunk.records.len() as u64));
            let all: Vec<(Offset, u64)> = of_segments.chain(of_recent).collect();
            let mut bytes: u64 = all.iter().map(|(_, bytes)| bytes).sum();
            for (end_offset, of_these) in all {
                if bytes <= bytes_max {
                    break;
                }
                bytes -= of_these;
                (surely, perhaps) = (surely.max(end_offset), perhaps.max(end_offset));
            }
        }
        (surely, perhaps)
    }

    /// Bytes of its events, in segments and in the part of memory that is not in segments.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments();
        let moved = segments.last().map_or(self.start(), |last| last.end_offset);
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.end_offset() <= moved);
        let in_memory = recent.range(first..).map(|chunk| chunk.records.len() as u64);
        segments.iter().map(|segment| segment.bytes).chain(in_memory).sum()
    }

    /// Counters of unprocessed events.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Number of events appended within the last minute before a trusted time.
    pub(super) fn appended_per_minute(&self, now_ns: u64) -> u64 {
        self.appended.per_minute(now_ns)
    }

    /// When the event at an offset (or the first retained one after it) was appended; `None` if there is none.
    pub fn time_of(&self, offset: Offset) -> Option<TimeOf> {
        let offset = offset.max(self.start());
        if offset >= self.written() {
            return None;
        }
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.end_offset() <= offset);
        if let Some(chunk) = recent.get(first).filter(|chunk| chunk.base_offset <= offset) {
            return Some(TimeOf::At(chunk.trusted_time_ns));
        }
        drop(recent);
        let segments = self.segments();
        let segment = segments.find(offset)?;
        let is_known = segment.base_offset >= offset || segment.first_trusted_ns == segment.last_trusted_ns;
        Some(if is_known { TimeOf::At(segment.first_trusted_ns) } else { TimeOf::NotBefore(segment.first_trusted_ns) })
    }

    /// The first event before `end` that was appended at or after a time.
    pub(super) fn recent_at_time(&self, time_ns: u64, end: Offset) -> TimeSearch {
        let recent = lock(&self.recent);
        let first = recent.partition_point(|chunk| chunk.append_time_ns < time_ns);
        match recent.get(first) {
            // memory begins too late to know about earlier events
            Some(chunk) if first == 0 && chunk.base_offset > self.start() => TimeSearch::Cold,
            // memory may still contain expired events
            Some(chunk) if chunk.base_offset.max(self.start()) < end => {
                TimeSearch::Recent(chunk.base_offset.max(self.start()))
            }
            None if recent.is_empty() && self.start() < end => TimeSearch::Cold,
            _ => TimeSearch::None,
        }
    }
}

/// Counts a waiting reader until it is dropped.
struct WaiterGuard<'c>(&'c AtomicUsize);

impl<'c> WaiterGuard<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Resolves when `done`, or when woken once without it. `done` is also checked after the waiter is registered, so that
/// a change (or the stop of the log) just before is not missed.
async fn wait(changed: &Notify, done: impl Fn() -> bool) {
    let notified = changed.notified();
    tokio::pin!(notified);
    notified.as_mut().enable(); // before the check: a change between the two would be missed
    if !done() {
        notified.await;
    }
}

/// Chunks, cut to the limits of a read.
pub(super) struct ChunkLimiter {
    pub(super) chunks: Vec<Chunk>,
    /// The next offset to read.
    pub(super) from: Offset,
    end: Offset,
    events: u32,
    bytes: usize,
}

impl ChunkLimiter {
    pub(super) fn new(from: Offset, end: Offset, events: u32, bytes: usize) -> Self {
        Self { chunks: Vec::new(), from, end, events: events.max(1), bytes }
    }

    /// Adds the requested part of a chunk; returns false when the read is complete.
    pub(super) fn add(&mut self, chunk: Chunk) -> bool {
        if chunk.base_offset >= self.end || self.events == 0 {
            return false;
        }
        let mut chunk = chunk.starting_at(self.from);
        if chunk.count == 0 {
            return true;
        }
        let wanted = u32::try_from(self.end - chunk.base_offset).unwrap_or(u32::MAX).min(self.events);
        let front = chunk.split_front(wanted, self.bytes);
        if front.records.len() > self.bytes && !self.chunks.is_empty() {
            return false;
        }
        self.from = front.end_offset();
        self.events -= front.count;
        self.bytes = self.bytes.saturating_sub(front.records.len());
        self.chunks.push(front);
        chunk.count == 0 && self.events > 0 && self.bytes > 0 && self.from < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PartitionId, Slices, TopicId};

    fn chunk(base_offset: Offset, records: &[&str]) -> Chunk {
        let mut slices = Slices::default();
        for record in records {
            let partition = PartitionId { topic: TopicId(1), partition: 0 };
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(record.as_bytes());
                Ok::<_, ()>(())
            };
            slices.push(partition, write).unwrap();
        }
        let records = slices.iter().next().unwrap().records.clone().into();
        Chunk { base_offset, count: slices.count() as u32, append_time_ns: 0, trusted_time_ns: 0, epoch: 1, records }
    }

    fn texts(recent: RecentRead) -> Vec<String> {
        let RecentRead::Chunks(chunks) = recent else { panic!("{recent:?}") };
        let text = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
        chunks.iter().flat_map(|chunk| chunk.iter().map(|stored| text(stored.record)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn a_read_is_cut_to_what_was_asked_for() {
        let partition = Partition::default();
        partition.push(chunk(0, &["a", "b", "c"]));
        partition.push(chunk(3, &["d"]));
        assert_eq!(texts(partition.recent(0, 4, 9, 999)), ["a", "b", "c", "d"]);
        assert_eq!(texts(partition.recent(1, 4, 2, 999)), ["b", "c"]);
        assert_eq!(texts(partition.recent(1, 2, 9, 999)), ["b"]);
        assert_eq!(texts(partition.recent(1, 4, 9, 10)), ["b", "c"]);
        assert_eq!(texts(partition.recent(0, 4, 9, 1)), ["a"], "one event at least, however large");
        assert!(matches!(partition.recent(4, 4, 9, 999), RecentRead::AtEnd));
        partition.forget(3);
        assert!(matches!(partition.recent(2, 4, 9, 999), RecentRead::Cold));
        assert_eq!(texts(partition.recent(3, 4, 9, 999)), ["d"]);
    }

    #[test]
    fn when_an_event_was_appended_is_known_as_far_as_it_is_in_memory() {
        let partition = Partition::default();
        for (base_offset, trusted_time_ns) in [(0, 10), (1, 20), (2, 30)] {
            partition.push(Chunk { trusted_time_ns, ..chunk(base_offset, &["x"]) });
        }
        let times = |partition: &Partition| [0, 1, 2, 3].map(|offset| partition.time_of(offset));
        assert_eq!(times(&partition), [Some(TimeOf::At(10)), Some(TimeOf::At(20)), Some(TimeOf::At(30)), None]);
        let segment = super::super::segment::SegmentMeta {
            base_offset: 0,
            end_offset: 2,
            bytes: 1,
            first_time_ns: 10,
            last_time_ns: 20,
            first_trusted_ns: 10,
            last_trusted_ns: 20,
            is_sealed: false,
        };
        partition.set_segments([segment].as_slice().into(), 0);
        partition.forget(2);
        assert_eq!(times(&partition)[..3], [Some(TimeOf::At(10)), Some(TimeOf::NotBefore(10)), Some(TimeOf::At(30))]);
        assert_eq!(partition.appended_per_minute(30), 3);
        partition.set_segments([segment].as_slice().into(), 2);
        assert_eq!(times(&partition), [Some(TimeOf::At(30)), Some(TimeOf::At(30)), Some(TimeOf::At(30)), None]);
    }

    #[test]
    fn a_time_is_looked_for_in_memory_where_memory_can_tell() {
        let partition = Partition::default();
        for (base_offset, append_time_ns) in [(0, 10), (1, 20), (2, 30)] {
            partition.push(Chunk { append_time_ns, ..chunk(base_offset, &["x"]) });
        }
        assert_eq!(partition.recent_at_time(5, 3), TimeSearch::Recent(0));
        assert_eq!(partition.recent_at_time(20, 3), TimeSearch::Recent(1));
        assert_eq!(partition.recent_at_time(21, 2), TimeSearch::None, "the end is before it");
        assert_eq!(partition.recent_at_time(31, 3), TimeSearch::None);
        partition.forget(1);
        assert_eq!(partition.recent_at_time(20, 3), TimeSearch::Cold, "the one before may have that time as well");
        assert_eq!(partition.recent_at_time(21, 3), TimeSearch::Recent(2));
        partition.forget(3);
        assert_eq!(partition.recent_at_time(21, 3), TimeSearch::Cold);
    }
}
