//! The identities in the store: sorted runs, each from one checkpoint or merged from several small ones, and in-memory
//! filters that say which run may contain an identity.
//!
//! ```text
//!   generations, the oldest first     [ filter: runs 1 2 3 4 ] [ filter: runs 5 6 ] [ filter: run 7 ]
//!                                                    │ may contain it
//!   the store                          1  2  3  4    v 5  6  7      one lookup of one row
//! ```
//!
//! Small runs are merged when the next one is written. Large ones stay as they are, and only their filters are merged,
//! so that few filters are asked however long the window is.
//!
//! Promises: an identity in a window is found; each hit is confirmed by the store, so there are no false positives.
//! Memory is about 3 bytes per identity, and bounded: beyond that, lookups read the runs instead of asking a filter.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3;

use super::checkpointer::Turn;
use super::filter::{Entry, Filter, TOUCHED_MAX, join};
use super::producers::{ProducerKey, floor_ns};
use super::store::{IdentityLookup, IdentityRow, LastSequence, StoreError};
use super::window::EventPlace;
use super::{LogInner, lock};
use crate::limits;
use crate::model::{Dedupe, TopicId};

/// Merged filters may cover 1/N of a topic's identities, because identities are forgotten in such parts.
const GENERATION_PART: usize = 4;
/// A generation is rebuilt when 1/N of it is outside of the window.
const FORGOTTEN_PART: usize = 4;

/// How published identities and numbers of producers are stored.
#[derive(Debug, Clone, Copy)]
pub struct WindowOptions {
    /// Runs with fewer identities than this are merged when the next one is written.
    pub run_identities: usize,
    /// Maximum memory of the filters of all topics, in bytes.
    pub filter_bytes_max: usize,
    /// Bits of a fingerprint, at most 40.
    pub fingerprint_bits: u32,
    /// Maximum number of producers in the store whose last numbers are also cached in memory.
    pub producers_max: usize,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self {
            run_identities: limits::IDENTITIES_RUN_MAX,
            filter_bytes_max: limits::IDENTITIES_FILTER_BYTES_MAX,
            fingerprint_bits: limits::IDENTITIES_FINGERPRINT_BITS,
            producers_max: limits::PRODUCERS_CACHED_MAX,
        }
    }
}

/// How identities are hashed: with a secret seed, because producers choose what is hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing {
    pub(super) seed: u64,
    pub(super) options: WindowOptions,
}

impl Hashing {
    #[inline]
    pub(super) fn hash(&self, identity: u128) -> u64 {
        xxh3::xxh3_64_with_seed(&identity.to_le_bytes(), self.seed)
    }

    #[inline]
    fn fingerprint(&self, hash: u64) -> u64 {
        hash >> (64 - self.options.fingerprint_bits)
    }
}

/// The limits of a window: it contains identities at or after a time and at or above a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Horizon {
    time_ns: u64,
    number: u64,
}

impl Horizon {
    /// The horizon of a window now, where `next_number` is that of the topic's next identity.
    pub(super) fn new(dedupe: Dedupe, now_ns: u64, next_number: u64) -> Self {
        let window_ns = u64::try_from(dedupe.window.as_nanos()).unwrap_or(u64::MAX);
        let count = dedupe.count.map_or(u64::MAX, u64::from);
        Self { time_ns: now_ns.saturating_sub(window_ns), number: next_number.saturating_sub(count) }
    }

    /// The horizon of an unlimited window.
    pub(super) fn everything() -> Self {
        Self { time_ns: 0, number: 0 }
    }

    #[inline]
    pub(super) fn has(&self, time_ns: u64, number: u64) -> bool {
        time_ns >= self.time_ns && number >= self.number
    }
}

/// A run in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Position of the checkpoint that wrote it, which is its name.
    pub(super) position: u64,
    pub(super) count: usize,
    /// Of its last identity.
    last_time_ns: u64,
    last_number: u64,
}

/// Runs that share a filter, the oldest first.
#[derive(Debug)]
pub(super) struct Generation {
    runs: Box<[Run]>,
    /// `None` if memory is short: then any run may contain an identity.
    filter: Option<Filter>,
}

impl Generation {
    /// A generation of one run with these rows.
    pub(super) fn of(position: u64, rows: &[IdentityRow], hashing: &Hashing) -> Self {
        let fingerprint = |row: &IdentityRow| hashing.fingerprint(hashing.hash(row.identity));
        let mut fingerprints: Vec<u64> = rows.iter().map(fingerprint).collect();
        fingerprints.sort_unstable();
        let entries = fingerprints.iter().map(|fingerprint| (*fingerprint, 0));
        let filter = Some(Filter::new(hashing.options.fingerprint_bits, 1, rows.len(), entries));
        let last = rows.iter().max_by_key(|row| row.number);
        let (last_time_ns, last_number) = last.map_or((0, 0), |last| (last.trusted_time_ns, last.number));
        let run = Run { position, count: rows.len(), last_time_ns, last_number };
        Self { runs: [run].into(), filter }
    }

    fn count(&self) -> usize {
        self.runs.iter().map(|run| run.count).sum()
    }

    fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, Filter::bytes)
    }

    fn join(&self, next: &Self, bits: u32) -> Self {
        let runs: Box<[Run]> = self.runs.iter().chain(&next.runs).copied().collect();
        let before = self.runs.len() as u32;
        let filter = self.filter.as_ref().zip(next.filter.as_ref()).map(|(first, second)| {
            let behind = |(fingerprint, run): Entry| (fingerprint, run + before);
            let entries = join(first.entries(), second.entries().map(behind));
            Filter::new(bits, runs.len(), first.count() + second.count(), entries)
        });
        Self { runs, filter }
    }

    /// A copy without the first `gone` runs.
    fn without(&self, gone: usize, bits: u32) -> Self {
        let (_, runs) = self.runs.split_at(gone);
        let filter = self.filter.as_ref().map(|filter| {
            let first = gone as u32;
            let left = || filter.entries().filter(|(_, run)| *run >= first);
            Filter::new(bits, runs.len(), left().count(), left().map(|(fingerprint, run)| (fingerprint, run - first)))
        });
        Self { runs: runs.into(), filter }
    }
}

/// The runs of a topic, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicRuns(Vec<Arc<Generation>>);

impl TopicRuns {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self) -> usize {
        self.0.iter().map(|generation| generation.count()).sum()
    }

    fn filter_bytes(&self) -> usize {
        self.0.iter().map(|generation| generation.filter_bytes()).sum()
    }

    /// The number of the topic's next identity.
    pub(super) fn next_number(&self) -> u64 {
        let last = self.0.last().and_then(|generation| generation.runs.last());
        last.map_or(0, |run| run.last_number + 1)
    }

    /// Adds a run at the end, and merges filters.
    pub(super) fn push(&mut self, generation: Generation, options: &WindowOptions) {
        let is_large = |generation: &Generation| generation.runs.iter().all(|run| run.count >= options.run_identities);
        self.0.push(Arc::new(generation));
        let count_max = self.count() / GENERATION_PART;
        let is_joined = |pair: &[Arc<Generation>]| match pair {
            [first, second] => {
                let (before, behind) = (first.count(), second.count());
                is_large(first) && is_large(second) && before < 2 * behind && before + behind <= count_max
            }
            _ => false,
        };
        // also older ones: a part that was too large for a small total may fit into a larger one
        while let Some(at) = self.0.windows(2).rposition(is_joined)
            && let Some([first, second]) = self.0.get(at..at + 2)
        {
            let joined = Arc::new(first.join(second, options.fingerprint_bits));
            self.0.splice(at..at + 2, [joined]);
        }
    }

    /// Removes and returns the small runs at the end, to merge them with a run of `count` identities.
    pub(super) fn take_small(&mut self, mut count: usize, options: &WindowOptions) -> Vec<Run> {
        let mut taken = Vec::new();
        while let Some(last) = self.0.last()
            && let [run] = *last.runs
            && run.count < options.run_identities
            && run.count <= 2 * count
            && count < options.run_identities
        {
            count += run.count;
            taken.push(run);
            self.0.pop();
        }
        taken
    }

    /// Number of first runs that are wholly outside of the window.
    fn forgotten(generation: &Generation, horizon: Horizon) -> usize {
        generation.runs.iter().take_while(|run| !horizon.has(run.last_time_ns, run.last_number)).count()
    }

    /// Number of runs of the first generation to remove now: they are removed in parts.
    fn going(&self, horizon: Horizon) -> usize {
        let Some(first) = self.0.first() else { return 0 };
        let gone = Self::forgotten(first, horizon);
        let count: usize = first.runs.iter().take(gone).map(|run| run.count).sum();
        if gone == first.runs.len() || count * FORGOTTEN_PART >= first.count() { gone } else { 0 }
    }

    /// Whether there are runs to forget.
    pub(super) fn is_old(&self, horizon: Horizon) -> bool {
        self.going(horizon) > 0
    }

    /// Removes runs outside of the window, and returns their names.
    pub(super) fn forget(&mut self, horizon: Horizon, options: &WindowOptions) -> Vec<u64> {
        let mut forgotten = Vec::new();
        loop {
            let gone = self.going(horizon);
            let Some(first) = self.0.first_mut().filter(|_| gone > 0) else { return forgotten };
            forgotten.extend(first.runs.iter().take(gone).map(|run| run.position));
            if gone == first.runs.len() {
                self.0.remove(0);
            } else {
                *first = Arc::new(first.without(gone, options.fingerprint_bits));
            }
        }
    }

    /// The names of all runs.
    pub(super) fn positions(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|generation| generation.runs.iter().map(|run| run.position))
    }

    /// The runs that may contain the identity with this fingerprint, the newest first.
    fn candidates(&self, fingerprint: u64) -> impl Iterator<Item = &Run> {
        self.0.iter().rev().flat_map(move |generation| {
            let (found, all) = match &generation.filter {
                Some(filter) => (Some(filter.find(fingerprint).rev()), None),
                None => (None, Some(generation.runs.iter().rev())),
            };
            let found = found.into_iter().flatten().filter_map(|run| generation.runs.get(run as usize));
            found.chain(all.into_iter().flatten())
        })
    }
}

/// All runs in the store as of a checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredRuns {
    /// Everything before this position of the journal is included; 0 before the first checkpoint of this process.
    pub(super) position: u64,
    pub(super) topics: BTreeMap<TopicId, Arc<TopicRuns>>,
}

impl StoredRuns {
    /// Drops filters, the oldest first, until the rest fits into the limit.
    pub(super) fn keep_within(&mut self, bytes_max: usize) {
        let mut bytes: usize = self.topics.values().map(|runs| runs.filter_bytes()).sum();
        while bytes > bytes_max {
            let first = |runs: &TopicRuns| {
                let filters = runs.0.iter().enumerate().filter(|(_, generation)| generation.filter.is_some());
                filters.map(|(at, generation)| (generation.runs.last().map_or(0, |run| run.position), at)).next()
            };
            let oldest = self.topics.iter_mut().filter_map(|(_, runs)| Some((first(runs)?, runs)));
            let Some(((_, at), runs)) = oldest.min_by_key(|(first, _)| *first) else { return };
            if let Some(generation) = Arc::make_mut(runs).0.get_mut(at) {
                bytes -= generation.filter_bytes();
                *generation = Arc::new(Generation { runs: generation.runs.clone(), filter: None });
            }
        }
    }
}

/// What a lookup does if it needs a checkpoint first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupWait {
    /// Returns `WouldBlock`.
    Not,
    /// Makes the checkpoint, repeatedly if the disk is full.
    Alone,
    /// The same with pauses in which another thread can free room.
    WithPauses,
}

/// The appender's lookups in the store.
pub(super) struct RunLookup<'s> {
    shared: &'s LogInner,
    sealed: Arc<StoredRuns>,
    hashing: Hashing,
    waits: LookupWait,
}

impl<'s> RunLookup<'s> {
    pub(super) fn new(shared: &'s LogInner, hashing: Hashing, waits: LookupWait) -> Self {
        Self { shared, sealed: shared.sealed(), hashing, waits }
    }

    /// Prefetches what [`Self::find`] will read for these hashes.
    pub(super) fn touch(&self, topic: TopicId, hashes: &[u64]) {
        let Some(runs) = self.sealed.topics.get(&topic) else { return };
        let mut fingerprints = [0; TOUCHED_MAX];
        for (fingerprint, hash) in fingerprints.iter_mut().zip(hashes) {
            *fingerprint = self.hashing.fingerprint(*hash);
        }
        let fingerprints = fingerprints.get(..hashes.len()).unwrap_or_default();
        runs.0.iter().filter_map(|generation| generation.filter.as_ref()).for_each(|filter| filter.touch(fingerprints));
    }

    /// The last number of a producer.
    pub(super) fn producer(&mut self, (partition, producer): ProducerKey) -> io::Result<Option<LastSequence>> {
        loop {
            match self.shared.entries.producer(partition, producer) {
                Ok(last) => return Ok(last),
                Err(StoreError::Closed) => self.wait_for_checkpoint()?,
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }

    /// The time before which producers of a topic are forgotten; 0: none is. Must be called after the lookup of a
    /// producer: then the floor includes every deletion that the lookup saw.
    pub(super) fn floor_ns(&self, topic: TopicId, forget: Option<Duration>, now_ns: u64) -> u64 {
        floor_ns(lock(&self.shared.forgotten).get(&topic).copied(), forget, now_ns)
    }

    /// Everything before this position is in the store.
    pub(super) fn position(&self) -> u64 {
        self.sealed.position
    }

    /// The place of the event with this identity, if it is in the window.
    pub(super) fn find(
        &mut self,
        topic: TopicId,
        identity: u128,
        hash: u64,
        horizon: Horizon,
    ) -> io::Result<Option<EventPlace>> {
        let fingerprint = self.hashing.fingerprint(hash);
        'again: loop {
            let Some(runs) = self.sealed.topics.get(&topic).cloned() else { return Ok(None) };
            for run in runs.candidates(fingerprint) {
                if !horizon.has(run.last_time_ns, run.last_number) {
                    break; // the earlier runs are older
                }
                match self.shared.entries.identity(topic, run.position, identity) {
                    Ok(IdentityLookup::Row(row)) => {
                        let is_known = horizon.has(row.trusted_time_ns, row.number);
                        return Ok(is_known.then_some(EventPlace { partition: row.partition, offset: row.offset }));
                    }
                    Ok(IdentityLookup::Nothing) => {}
                    Ok(IdentityLookup::NoRun) => {
                        // a checkpoint has merged it with others and is about to publish that
                        let before = self.sealed.clone();
                        self.wait_for_checkpoint()?;
                        if Arc::ptr_eq(&before, &self.sealed) {
                            return Err(io::Error::other("identities are not in the state store"));
                        }
                        continue 'again;
                    }
                    Err(StoreError::Closed) => {
                        self.wait_for_checkpoint()?;
                        continue 'again;
                    }
                    Err(error) => return Err(io::Error::other(error.to_string())),
                }
            }
            return Ok(None);
        }
    }

    /// Waits, if allowed, for the current checkpoint, and resolves one that failed.
    fn wait_for_checkpoint(&mut self) -> io::Result<()> {
        if self.waits == LookupWait::Not {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.shared.checkpoint(Turn::Move) {
            if self.shared.gives_up() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if self.waits == LookupWait::WithPauses {
                std::thread::sleep(limits::ROOM_LOOK_EVERY);
            }
        }
        if self.shared.is_poisoned() {
            return Err(io::Error::other("the log has stopped"));
        }
        self.sealed = self.shared.sealed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashing(options: WindowOptions) -> Hashing {
        Hashing { seed: 77, options }
    }

    /// The rows of a run, as in a store.
    fn rows(first: u64, count: u64) -> Vec<IdentityRow> {
        let row = |number: u64| IdentityRow {
            identity: xxh3::xxh3_128(&number.to_le_bytes()),
            partition: 0,
            offset: number,
            trusted_time_ns: number,
            number,
        };
        (first..first + count).map(row).collect()
    }

    fn positions<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Vec<u64> {
        runs.into_iter().map(|run| run.position).collect()
    }

    /// Measures `count` identities in runs of `run` each: bytes per identity, number of filters, and false positives
    /// among 100,000 other identities.
    fn measure(count: u64, run: u64) -> (f64, usize, usize) {
        let hashing = hashing(WindowOptions::default());
        let mut runs = TopicRuns::default();
        for first in (0..count).step_by(run as usize) {
            runs.push(Generation::of(first, &rows(first, run.min(count - first)), &hashing), &hashing.options);
        }
        let others = rows(u64::MAX / 2, 100_000);
        let fingerprint = |row: &IdentityRow| hashing.fingerprint(hashing.hash(row.identity));
        let wrong = others.iter().filter(|row| runs.candidates(fingerprint(row)).next().is_some()).count();
        let known = rows(count / 2, 100);
        for row in &known {
            let position = row.number - row.number % run;
            assert!(runs.candidates(fingerprint(row)).any(|run| run.position == position));
        }
        let structs: usize = runs.0.iter().map(|of| size_of::<Generation>() + size_of_val(&*of.runs)).sum();
        ((runs.filter_bytes() + structs) as f64 / count as f64, runs.0.len(), wrong)
    }

    #[test]
    fn an_identity_takes_about_three_bytes_and_few_filters_are_asked() {
        let (bytes, filters, wrong) = measure(1_000_000, 65_536);
        assert!(bytes <= 3.3, "{bytes} bytes");
        assert!(filters <= 10 && wrong <= 40, "{filters} filters, {wrong} of 100,000");
    }

    #[test]
    #[ignore = "takes a minute where it is not optimised"]
    fn ten_million_take_32_mib() {
        let (bytes, filters, wrong) = measure(10_000_000, 200_000);
        assert!(bytes * 1e7 <= f64::from(32 << 20), "{bytes} bytes");
        assert!(filters <= 12 && wrong <= 100, "{filters} filters, {wrong} of 100,000");
    }

    #[test]
    fn small_runs_become_one_and_large_ones_share_filters() {
        let hashing = hashing(WindowOptions { run_identities: 10, ..WindowOptions::default() });
        let options = &hashing.options;
        let mut runs = TopicRuns::default();
        runs.push(Generation::of(1, &rows(0, 8), &hashing), options);
        let joined = |count| positions(&runs.clone().take_small(count, options)).len();
        assert_eq!([joined(3), joined(4), joined(10)], [0, 1, 0], "each time that it doubles, until it is large");
        let mut runs = TopicRuns::default();
        for number in 0..64 {
            runs.push(Generation::of(number, &rows(number * 10, 10), &hashing), options);
        }
        assert_eq!(runs.positions().collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
        assert!(runs.0.len() <= 10, "{} filters", runs.0.len());
        // a large part is removed once all of it is old, a small one is kept
        let horizon = |number| Horizon { time_ns: number, number: 0 };
        let gone = runs.clone().forget(horizon(322), options);
        assert!(gone.len() <= 32 && gone.len() >= 24, "{gone:?}");
        assert_eq!(runs.forget(horizon(640), options), (0..64).collect::<Vec<_>>());
        assert!(runs.is_empty());
    }

    #[test]
    fn filters_go_where_memory_is_short_and_everything_is_a_candidate_then() {
        let hashing = hashing(WindowOptions { run_identities: 10, ..WindowOptions::default() });
        let mut runs = TopicRuns::default();
        for number in 0..3 {
            runs.push(Generation::of(number, &rows(number * 10, 10), &hashing), &hashing.options);
        }
        let mut sealed = StoredRuns { position: 1, topics: [(TopicId(1), Arc::new(runs))].into() };
        let before = sealed.topics[&TopicId(1)].filter_bytes();
        sealed.keep_within(before - 1);
        let runs = &sealed.topics[&TopicId(1)];
        let (old, new) = (rows(5, 1)[0], rows(25, 1)[0]);
        let candidates = |row: IdentityRow| positions(runs.candidates(hashing.fingerprint(hashing.hash(row.identity))));
        assert_eq!((candidates(old), candidates(new)), (vec![0], vec![2, 0]), "the oldest filter was dropped");
    }
}
