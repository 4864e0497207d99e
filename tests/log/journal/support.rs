//! The log on a disk in memory, with a clock that ticks once a look.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wattle::effects::memory::Operation;
use wattle::effects::{Clock, MemoryDisk};
use wattle::log::{
    AppendRefusal, Condition, Damage, Durability, Log, LogOptions, OpenError, RecentRead, Replay, SlicePlaces, Ticket,
};
use wattle::model::{LaneId, PartitionId, Slices, SubscriberId, TopicId};

/// The partition of a test that needs one only.
pub(crate) const P: PartitionId = PartitionId { topic: TopicId(1), partition: 0 };
pub(crate) const Q: PartitionId = PartitionId { topic: TopicId(2), partition: 3 };
pub(crate) const LANE: LaneId = LaneId { subscriber: SubscriberId(1), partition: 0 };

/// Larger than anything in a test's journal.
pub(crate) const MANY: u32 = u32::MAX;

#[derive(Default)]
pub(crate) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn elapsed_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn now_ns(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// SplitMix64: a seed is all that a failure needs to be seen again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(crate) fn options() -> LogOptions {
    LogOptions { durability: Durability::Sync, file_bytes: 64 << 10, ..LogOptions::default() }
}

/// Nothing stays in memory: each group is in a segment before the next one is written.
pub(crate) fn without_memory() -> LogOptions {
    LogOptions { recent_bytes_max: 0, checkpoint_bytes: 0, ..options() }
}

pub(crate) fn try_open(disk: &MemoryDisk, options: LogOptions) -> Result<(Log, Replay), OpenError> {
    Log::open(Arc::new(disk.clone()), Arc::new(Ticks::default()), options)
}

pub(crate) fn open(disk: &MemoryDisk, options: LogOptions) -> (Log, Replay) {
    try_open(disk, options).unwrap()
}

/// Opens what must be refused, and sees that nothing was changed.
pub(crate) fn refused(files: &BTreeMap<String, Vec<u8>>) -> Damage {
    let disk = MemoryDisk::with_contents(files.clone());
    let error = try_open(&disk, options()).map(|(_, replay)| replay).unwrap_err();
    assert!(disk.contents() == *files, "something on the disk was changed, though it was refused: {error}");
    match error {
        OpenError::Damaged(damage) => damage,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn slices(events: &[(PartitionId, &[u8])]) -> Slices {
    let mut slices = Slices::default();
    for (partition, event) in events {
        slices
            .push(*partition, |out| {
                out.extend_from_slice(event);
                Ok::<_, ()>(())
            })
            .unwrap();
    }
    slices
}

pub(crate) fn submit(log: &Log, partition: PartitionId, event: &str) -> Ticket<Result<SlicePlaces, AppendRefusal>> {
    log.append(slices(&[(partition, event.as_bytes())])).unwrap()
}

/// Appends an event and waits for its ack. Its offset.
pub(crate) async fn append(log: &Log, partition: PartitionId, event: &str) -> u64 {
    submit(log, partition, event).await.unwrap().unwrap().base_offsets[0]
}

/// Everything written in a partition, wherever it is. Offsets must count up without a hole.
pub(crate) fn stored(log: &Log, partition: PartitionId) -> Vec<String> {
    let (mut reader, mut texts, end) = (log.cold_reader(), Vec::new(), log.partition(partition).written());
    while (texts.len() as u64) < end {
        let from = texts.len() as u64;
        let chunks = match log.partition(partition).recent(from, end, MANY, usize::MAX) {
            RecentRead::Chunks(chunks) => chunks,
            RecentRead::AtEnd => Vec::new(),
            RecentRead::Cold => reader.read(partition, from, end, MANY, usize::MAX).unwrap(),
        };
        assert!(!chunks.is_empty(), "nothing at {from}, in front of {end}");
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            assert_eq!(stored.offset, texts.len() as u64);
            texts.push(String::from_utf8(stored.record.to_vec()).unwrap());
        }
    }
    texts
}

/// Waits for the log's end and says how it was.
pub(crate) async fn end_of(log: &Log) -> Condition {
    let mut condition = log.condition();
    let ended = condition.wait_for(|condition| *condition != Condition::Working);
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap().clone()
}

/// Holds back an operation of the disk until it is let through, at the latest when the test is over.
pub(crate) struct Gate(Arc<Held>);

#[derive(Default)]
struct Held {
    state: Mutex<HeldState>,
    changed: Condvar,
}

#[derive(Default)]
struct HeldState {
    is_open: bool,
    waiting: usize,
}

impl Gate {
    /// Holds back from now on whatever `is_held` picks.
    pub(crate) fn on(disk: &MemoryDisk, is_held: impl Fn(Operation) -> bool + Send + Sync + 'static) -> Self {
        let gate = Arc::new(Held::default());
        let held = gate.clone();
        disk.set_fault(move |operation| {
            if is_held(operation) {
                held.pass();
            }
            Ok(())
        });
        Self(gate)
    }

    /// Blocks until something waits.
    pub(crate) fn wait_until_reached(&self) {
        let state = self.0.state.lock().unwrap();
        let patience = Duration::from_secs(60);
        let reached = self.0.changed.wait_timeout_while(state, patience, |state| state.waiting == 0).unwrap();
        assert!(!reached.1.timed_out(), "nobody asks for it");
    }

    pub(crate) fn open(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_open = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open(); // or a test that fails would wait for its own log to close
    }
}

impl Held {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.is_open).unwrap();
        state.waiting -= 1;
    }
}
