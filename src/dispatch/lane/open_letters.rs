//! Counts the open dead letters of a subscriber: stored, and neither redriven nor dropped.
//!
//! ```text
//!   partition of their topic    start ─────────────────────────── written
//!   done (runs of offsets)       ███    ██████████      █            open: the gaps between them
//! ```
//!
//! The lanes' entries mark dead letters that are done (`entries::DONE`). They are read once, at the first query after
//! there are dead letters, and updated by the lanes from then on, so queries do not read the disk. Redriving or
//! dropping all dead letters results in a single run.
//!
//! Promises: a dead letter counts as done only once a lane has durably marked it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::Bounds;
use crate::engine::ReadError;
use crate::model::Offset;

/// Maximum number of runs per subscriber, some 40 bytes each. Beyond that the count is unknown.
const RUNS_MAX: usize = 100_000;

/// The dead letters of a subscriber that are done.
#[derive(Debug, Default)]
pub(crate) struct OpenLetters(Mutex<DoneLetters>);

#[derive(Debug, Default)]
struct DoneLetters {
    is_read: bool,
    /// The number of runs exceeded the limit, so the count is unknown until the next start.
    is_over: bool,
    runs: LetterRuns,
}

/// By partition and first offset, each with the offset after its last one. Runs never touch.
#[derive(Debug, Default)]
struct LetterRuns(BTreeMap<(u32, Offset), Offset>);

impl LetterRuns {
    fn add(&mut self, partition: u32, offset: Offset) {
        let before = self.0.range(..=(partition, offset)).next_back();
        let before = before.filter(|((of, _), _)| *of == partition).map(|(run, end)| (*run, *end));
        let begin = match before {
            Some((_, end)) if end > offset => return,
            Some((run, end)) if end == offset => run,
            _ => (partition, offset),
        };
        // merges it with the run that begins right after it
        let end = self.0.remove(&(partition, offset + 1)).unwrap_or(offset + 1);
        self.0.insert(begin, end);
    }

    /// Number of offsets in runs, among the stored ones of a partition. Drops runs before those.
    fn count(&mut self, partition: u32, kept: Bounds) -> u64 {
        while let Some((run, end)) = self.0.range((partition, 0)..(partition, kept.start)).next() {
            let (run, end) = (*run, *end);
            self.0.remove(&run);
            if end > kept.start {
                self.0.insert((partition, kept.start), end);
                break;
            }
        }
        let runs = self.0.range((partition, kept.start)..=(partition, u64::MAX));
        runs.map(|((_, begin), end)| end.min(&kept.written).saturating_sub(*begin)).sum()
    }
}

impl DoneLetters {
    fn add(&mut self, partition: u32, offset: Offset) {
        self.is_over |= self.runs.0.len() >= RUNS_MAX;
        match self.is_over {
            true => self.runs.0.clear(),
            false => self.runs.add(partition, offset),
        }
    }
}

impl OpenLetters {
    fn done(&self) -> MutexGuard<'_, DoneLetters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds dead letters that are durably done.
    pub(super) fn are_done(&self, letters: impl Iterator<Item = (u32, Offset)>) {
        let mut done = self.done();
        letters.for_each(|(partition, offset)| done.add(partition, offset));
    }

    /// Some dead letters may or may not be done after a failed commit; they are read again.
    pub(super) fn may_be_done(&self) {
        self.done().is_read = false;
    }

    /// Number of open dead letters, given the stored bounds of each partition; `None` if unknown. `read` is called if
    /// the marks have to be read: it passes each to its argument.
    pub(crate) fn count(
        &self,
        kept: &[Bounds],
        read: impl FnOnce(&mut dyn FnMut(u32, Offset)) -> Result<(), ReadError>,
    ) -> Option<u64> {
        if kept.iter().all(|bounds| bounds.written <= bounds.start) {
            return Some(0);
        }
        let mut done = self.done();
        if !done.is_read && !done.is_over {
            read(&mut |partition, offset| done.add(partition, offset)).ok()?;
            done.is_read = true;
        }
        if done.is_over {
            return None;
        }
        let mut open = 0;
        for (partition, bounds) in (0..).zip(kept) {
            let all = bounds.written.saturating_sub(bounds.start);
            open += all.saturating_sub(done.runs.count(partition, *bounds));
        }
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(start: Offset, written: Offset) -> Bounds {
        Bounds { start, written, durable: written }
    }

    #[test]
    fn runs_grow_together() {
        let mut runs = LetterRuns::default();
        for offset in [5, 7, 6, 6, 5, 9, 4] {
            runs.add(1, offset);
        }
        assert_eq!(runs.0, BTreeMap::from([((1, 4), 8), ((1, 9), 10)]));
        runs.add(0, 8);
        runs.add(1, 8);
        assert_eq!(runs.0, BTreeMap::from([((0, 8), 9), ((1, 4), 10)]));
        assert_eq!(runs.count(1, kept(0, 20)), 6);
        assert_eq!(runs.count(1, kept(6, 9)), 3);
        assert_eq!(runs.0, BTreeMap::from([((0, 8), 9), ((1, 6), 10)]), "what is not kept any more is forgotten");
        assert_eq!(runs.count(1, kept(30, 40)), 0);
        assert_eq!((runs.count(0, kept(0, 10)), runs.0.len()), (1, 1));
    }

    #[test]
    fn what_any_order_of_notes_makes_is_what_a_set_of_them_is() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut runs, mut set) = (LetterRuns::default(), std::collections::BTreeSet::new());
        for _ in 0..2_000 {
            let (partition, offset) = (next(2) as u32, next(60));
            runs.add(partition, offset);
            set.insert((partition, offset));
            if next(50) == 0 {
                (runs, set) = Default::default();
            }
            let (start, partition) = (next(10), next(2) as u32);
            let wanted = set.range((partition, start)..(partition, 50)).count() as u64;
            assert_eq!(LetterRuns(runs.0.clone()).count(partition, kept(start, 50)), wanted);
        }
    }

    #[test]
    fn what_is_done_is_read_once_and_again_where_it_is_not_known() {
        let letters = OpenLetters::default();
        let reads = std::cell::Cell::new(0);
        let open = |kept: &[Bounds]| {
            letters.count(kept, |each| {
                reads.set(reads.get() + 1);
                each(0, 3);
                Ok(())
            })
        };
        assert_eq!((open(&[kept(7, 7)]), reads.get()), (Some(0), 0), "there are none at all");
        assert_eq!((open(&[kept(0, 10), kept(2, 4)]), reads.get()), (Some(11), 1));
        letters.are_done([(1, 2), (1, 3), (0, 3)].into_iter());
        assert_eq!((open(&[kept(0, 10), kept(2, 4)]), reads.get()), (Some(9), 1));
        letters.may_be_done();
        assert_eq!((open(&[kept(0, 10), kept(2, 4)]), reads.get()), (Some(9), 2));
        assert_eq!(open(&[kept(5, 10), kept(4, 4)]), Some(5));
        let unreadable = OpenLetters::default();
        let failing = |_: &mut dyn FnMut(u32, Offset)| Err(ReadError::Storage("no".into()));
        assert_eq!(unreadable.count(&[kept(0, 1)], failing), None);
        let many = OpenLetters::default();
        let read = |each: &mut dyn FnMut(u32, Offset)| {
            (0..300_000).for_each(|at| each(0, 2 * at));
            Ok(())
        };
        assert_eq!(many.count(&[kept(0, 600_000)], read), None);
        assert!(many.done().runs.0.is_empty(), "nothing is kept that tells nothing");
        many.are_done([(0, 1)].into_iter());
        assert_eq!(many.count(&[kept(0, 600_000)], |_| unreachable!()), None);
    }
}
