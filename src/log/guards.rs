//! The guards of topics, evaluated by the appender in the order of offsets, after deduplication.
//!
//! ```text
//!   caller: looks up what its records need ──> queue ──> appender: changes since then are in memory,
//!           in the store, as of a checkpoint              the rest is as it was looked up
//! ```
//!
//! Promises: the appender reads the store only if a checkpoint was made between the lookup and the verdict: the changes
//! are then no longer in memory, and the looked-up values may be older. Memory: for each guarded partition, some of the
//! oldest ended keys that it remembers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::entries::{EntriesError, EntryReader};
use super::frame::PartitionEntries;
use super::{LogInner, Settings, lock};
use crate::model::guard::{GUARD_ENTRIES, slots_of};
use crate::model::{
    self, DivertedRecord, Duplicate, GuardJudge, GuardRefusal, GuardStates, Offset, PartitionId, Slices, keeper_of,
};

/// How many of the oldest ended keys are looked up at once. A caller looks up more when half of them are used: the
/// other half suffices for concurrent callers.
const SLOTS_AT_ONCE: usize = 128;

/// Values that were looked up for the guarded records of a submission.
#[derive(Debug, Default)]
pub(super) struct GuardLookup {
    /// The checkpoint of the lookup.
    checkpoint: u64,
    values: BTreeMap<(PartitionId, Bytes), Option<Bytes>>,
    /// Bytes of the identities of their keys, which are written again with the states.
    pub(super) identities_bytes: usize,
}

/// The oldest ended keys that a partition remembers, as looked up.
#[derive(Debug, Default)]
pub(super) struct OldestEnds {
    checkpoint: u64,
    slots: VecDeque<(Bytes, Bytes)>,
}

/// Looks up what the verdict on these records needs and memory does not have. Values that cannot be read are left to
/// the appender, which reports the error.
pub(super) fn look_up(shared: &LogInner, slices: &Slices) -> Option<Box<GuardLookup>> {
    if !slices.is_guarded() {
        return None;
    }
    // before all lookups: each of them sees at least this checkpoint
    let checkpoint = shared.checkpoints.load(Ordering::Acquire);
    let (mut values, mut identities_bytes) = (BTreeMap::new(), 0);
    for (partition, _) in slices.released() {
        let lane = shared.lane(keeper_of(*partition));
        let entries = EntryReader { shared, lane: &lane };
        for key in GUARD_ENTRIES.map(Bytes::from_static) {
            if entries.in_memory(&key).is_none()
                && let Ok(value) = entries.get(&key)
            {
                values.insert((*partition, key), value);
            }
        }
    }
    for slice in slices.iter().filter(|slice| !slice.guards.is_empty()) {
        let lane = shared.lane(keeper_of(slice.partition));
        let entries = EntryReader { shared, lane: &lane };
        let states = slice.guards.iter().map(|guard| Bytes::copy_from_slice(&guard.entry_key()));
        for key in states.chain(GUARD_ENTRIES.map(Bytes::from_static)) {
            let in_memory = entries.in_memory(&key);
            let stored = if in_memory.is_none() { entries.get(&key).ok() } else { None };
            let known = in_memory.or(stored.clone()).flatten();
            identities_bytes += known.map_or(0, |known| model::guard::identities_bytes(&known));
            if let Some(value) = stored {
                values.insert((slice.partition, key), value);
            }
        }
        // after a failed lookup, ended keys are only remembered for longer
        let _ = look_up_oldest(shared, checkpoint, slice.partition, &entries);
    }
    Some(Box::new(GuardLookup { checkpoint, values, identities_bytes }))
}

fn look_up_oldest(
    shared: &LogInner,
    checkpoint: u64,
    partition: PartitionId,
    entries: &EntryReader<'_>,
) -> Result<(), EntriesError> {
    let [.., ended] = GUARD_ENTRIES;
    let ended = entries.get(ended)?;
    let kept = slots_of(ended.as_deref()).take(SLOTS_AT_ONCE);
    let (Some(first), Some(last)) = (kept.clone().next(), kept.clone().nth(SLOTS_AT_ONCE / 2).or(kept.clone().last()))
    else {
        return Ok(());
    };
    {
        let mut known = lock(&shared.oldest_ends);
        let known = known.entry(partition).or_default();
        while known.slots.front().is_some_and(|(slot, _)| slot.as_ref() < first.as_slice()) {
            known.slots.pop_front();
        }
        let reaches = known.slots.back().is_some_and(|(slot, _)| slot.as_ref() >= last.as_slice());
        if known.checkpoint == checkpoint && reaches {
            return Ok(());
        }
    }
    let mut slots = VecDeque::new();
    for slot in kept {
        slots.push_back((Bytes::copy_from_slice(&slot), entries.get(&slot)?.unwrap_or_default()));
    }
    lock(&shared.oldest_ends).insert(partition, OldestEnds { checkpoint, slots });
    Ok(())
}

/// The guards of topics, with the state that they need.
pub(super) struct Guards<'s> {
    pub(super) shared: &'s LogInner,
    pub(super) settings: &'s Settings,
    pub(super) now_ns: u64,
    pub(super) looked: Option<&'s GuardLookup>,
}

impl Guards<'_> {
    /// Judges the records of a unit except its duplicates. Returns the entries that partitions store once the records
    /// have offsets, and the records to set aside. Duplicates that are found by the remembered identities of their keys
    /// are added to `duplicates`. `next_offset` returns the next offset of a partition.
    pub(super) fn judge(
        &self,
        slices: &Slices,
        duplicates: &mut Vec<Duplicate>,
        next_offset: impl FnMut(PartitionId) -> Offset,
    ) -> Result<(Vec<PartitionEntries>, Vec<DivertedRecord>), GuardRefusal> {
        if !slices.is_guarded() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut judge = GuardJudge::new(self, self.now_ns);
        let aside = judge.judge_all(slices, |topic| self.settings.lifecycles.get(&topic), duplicates, next_offset)?;
        Ok((judge.writes(), aside))
    }

    /// Whether values that were looked up as of `checkpoint` still hold for keys that are not in memory. Must be called
    /// after the lookup in memory: a checkpoint is counted before it removes entries from memory.
    fn holds(&self, checkpoint: u64) -> bool {
        self.shared.checkpoints.load(Ordering::Acquire) == checkpoint
    }
}

impl GuardStates for Guards<'_> {
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        let lane = self.shared.lane(keeper_of(partition));
        let entries = EntryReader { shared: self.shared, lane: &lane };
        if let Some(value) = entries.in_memory(key) {
            return Ok(value);
        }
        let looked = self.looked.filter(|looked| self.holds(looked.checkpoint));
        match looked.and_then(|looked| looked.values.get(&(partition, Bytes::copy_from_slice(key)))) {
            Some(value) => Ok(value.clone()),
            None => entries.get(key).map_err(|error| error.to_string().into()),
        }
    }

    fn glance(&self, partition: PartitionId, key: &[u8]) -> Option<Option<Bytes>> {
        let lane = self.shared.lane(keeper_of(partition));
        if let Some(value) = (EntryReader { shared: self.shared, lane: &lane }).in_memory(key) {
            return Some(value);
        }
        let known = lock(&self.shared.oldest_ends);
        let known = known.get(&partition).filter(|known| self.holds(known.checkpoint))?;
        let at = known.slots.binary_search_by(|(slot, _)| slot.as_ref().cmp(key)).ok()?;
        known.slots.get(at).map(|(_, value)| Some(value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::effects::{ManualClock, MemoryDisk};
    use crate::log::store::LOOKS;
    use crate::log::{AppendRefusal, Log, LogOptions, SlicePlaces, Stepper, Ticket};
    use crate::model::{Guard, GuardCounts, Lifecycle, TopicId};

    const HERE: PartitionId = PartitionId { topic: TopicId(1), partition: 0 };
    const KEYS: u64 = 500;

    struct Fixture {
        log: Log,
        stepper: Stepper,
        hands: Arc<ManualClock>,
    }

    impl Fixture {
        fn new(remembered_max: u64) -> Self {
            let (disk, hands) = (Arc::new(MemoryDisk::default()), Arc::new(ManualClock::default()));
            let options = LogOptions { file_bytes: 1 << 20, ..LogOptions::default() };
            let (log, _, stepper) = Log::open_stepped(disk, hands.clone(), options).unwrap();
            let lifecycle = Lifecycle {
                start: ["a".into()].into(),
                allow: [("a".into(), ["b".into(), "z".into()].into()), ("b".into(), ["z".into()].into())].into(),
                keys_max: KEYS,
                remember: Some(Duration::from_secs(1)),
                remembered_max,
            };
            log.configure(Settings { lifecycles: [(HERE.topic, Arc::new(lifecycle))].into(), ..Settings::default() });
            Self { log, stepper, hands }
        }

        fn hand_in(&self, key: u64, state: &str) -> Ticket<Result<SlicePlaces, AppendRefusal>> {
            let mut slices = Slices::default();
            let write = |out: &mut Vec<u8>| {
                out.push(b'.');
                Ok::<_, ()>(())
            };
            let (slice, _) = slices.push(HERE, write).unwrap();
            slices.guard_last(slice, Guard::new(&key.to_string(), state.into(), 0));
            self.log.append(slices).unwrap()
        }

        /// Appends as the appender's thread would, and counts its lookups in the store.
        fn step(&mut self) -> u64 {
            let before = LOOKS.get();
            self.stepper.append();
            let looks = LOOKS.get() - before;
            self.stepper.sync();
            looks
        }

        /// The verdict, and the number of lookups in the store on the appender's thread.
        fn publish(&mut self, key: u64, state: &str) -> (bool, u64) {
            let mut ticket = self.hand_in(key, state);
            let looks = self.step();
            (ticket.try_recv().unwrap().is_ok(), looks)
        }

        fn checkpoint(&mut self) {
            assert!(self.stepper.move_out() && self.stepper.checkpoint());
        }

        fn counts(&self) -> (u64, u64) {
            let entries = self.log.entries(keeper_of(HERE));
            let counts = GuardCounts::read(|key| entries.get(key)).unwrap();
            (counts.living, counts.ended)
        }
    }

    #[test]
    fn the_appender_does_not_look_into_the_store_however_many_keys_there_are() {
        let mut bed = Fixture::new(KEYS / 2);
        (0..KEYS).for_each(|key| assert_eq!(bed.publish(key, "a"), (true, 0)));
        bed.checkpoint();
        for (number, key) in (0..KEYS).rev().enumerate() {
            assert_eq!(bed.publish(key, if key % 2 == 0 { "b" } else { "z" }), (true, 0), "{number}");
            if number % 50 == 0 {
                bed.checkpoint();
            }
        }
        assert_eq!(bed.counts(), (KEYS / 2, KEYS / 2));
        // each ended key now causes another one to be forgotten, all of them only in the store
        bed.checkpoint();
        for key in (0..KEYS).filter(|key| key % 2 == 0) {
            assert_eq!(bed.publish(key, "z"), (true, 0));
        }
        assert_eq!(bed.counts(), (0, KEYS / 2));
        assert_eq!(bed.publish(0, "a"), (false, 0), "remembered");
        assert_eq!(bed.publish(1, "a"), (true, 0), "forgotten");
    }

    #[test]
    fn ends_are_forgotten_by_time_without_a_look_into_the_store() {
        let mut bed = Fixture::new(KEYS);
        for key in 0..KEYS {
            bed.publish(key, "a");
            bed.publish(key, "z");
        }
        bed.checkpoint();
        bed.hands.0.store(1_000_000_000, Ordering::Relaxed);
        for key in KEYS..KEYS + KEYS / 2 {
            assert_eq!(bed.publish(key, "a"), (true, 0));
        }
        assert_eq!(bed.counts(), (KEYS / 2, 0));
    }

    #[test]
    fn a_checkpoint_between_the_look_and_the_verdict_changes_no_verdict() {
        let mut bed = Fixture::new(KEYS);
        bed.publish(1, "a");
        bed.checkpoint();
        // looked up while the key is in state `a`, judged when the key has ended and memory no longer has that
        let mut slices = Slices::default();
        let (slice, _) = slices.push(HERE, |_: &mut Vec<u8>| Ok::<_, ()>(())).unwrap();
        slices.guard_last(slice, Guard::new("1", "b".into(), 7));
        let looked = look_up(&bed.log.shared, &slices).unwrap();
        assert_eq!(bed.publish(1, "z"), (true, 0));
        let settings = bed.log.shared.settings();
        let guards = |looked| Guards { shared: &bed.log.shared, settings: &settings, now_ns: 0, looked };
        let judge = |looked| guards(looked).judge(&slices, &mut Vec::new(), |_| 0).unwrap_err().of;
        assert_eq!(judge(Some(&*looked)), 7, "it is in memory");
        bed.stepper.move_out();
        bed.stepper.checkpoint();
        assert_eq!(judge(Some(&*looked)), 7, "it is not");
        assert_eq!(judge(None), 7);
    }
}
