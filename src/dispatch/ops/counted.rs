//! Dead letters counted by why they failed.
//!
//! Promises: bounded, however many reasons there are: those that find no room are counted by the kind of their failure.

use std::collections::BTreeMap;

use super::error::ControlError;
use super::letters::LetterProgress;
use super::listings::{FailedEvent, Filter};
use super::places::without_positions;
use crate::dispatch::tree::Tree;
use crate::engine::Engine;

/// Reasons that are told apart. Who looks at more of them looks at a listing.
const REASONS_MAX: usize = 100;
/// Bytes of a reason that tell it from others: its first line, where that is not longer.
const REASON_BYTES_MAX: usize = 200;
/// Dead letters that are read at once.
const LETTERS_AT_ONCE: usize = 10_000;

/// Why dead letters failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reason {
    /// The kind of the failure.
    pub failure: String,
    /// The first line of the reason without places in the data, or the beginning of it; empty for all others of this kind.
    pub words: String,
}

/// How many failed for one reason, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// When the first of them did, Unix nanoseconds.
    pub first_ns: u64,
    /// When the last of them did, Unix nanoseconds.
    pub last_ns: u64,
}

/// Dead letters by why they failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reasons(BTreeMap<Reason, Times>);

impl Reasons {
    /// Counts some more.
    pub fn add(&mut self, reason: Reason, more: Times) {
        let has_room = self.0.len() < REASONS_MAX || self.0.contains_key(&reason);
        let reason = if has_room { reason } else { Reason { words: String::new(), ..reason } };
        let times = self.0.entry(reason).or_insert(Times { count: 0, first_ns: u64::MAX, last_ns: 0 });
        times.count += more.count;
        times.first_ns = times.first_ns.min(more.first_ns);
        times.last_ns = times.last_ns.max(more.last_ns);
    }

    fn count(&mut self, letter: &FailedEvent) {
        let line = without_positions(letter.waiter.reason.lines().next().unwrap_or_default());
        let failed_ns = letter.waiter.failed_ns;
        let words = match line.get(..line.floor_char_boundary(REASON_BYTES_MAX)) {
            Some(begin) if begin.len() < line.len() => format!("{begin}…"),
            _ => line.to_owned(),
        };
        let reason = Reason { failure: letter.waiter.failure.clone(), words };
        self.add(reason, Times { count: 1, first_ns: failed_ns, last_ns: failed_ns });
    }

    /// Each with how many and when, the most frequent first.
    pub fn by_count(&self) -> Vec<(&Reason, Times)> {
        let mut reasons: Vec<_> = self.0.iter().map(|(reason, times)| (reason, *times)).collect();
        reasons.sort_by_key(|(_, times)| std::cmp::Reverse(times.count));
        reasons
    }

    /// How many there are altogether.
    pub fn total(&self) -> u64 {
        self.0.values().map(|times| times.count).sum()
    }
}

impl IntoIterator for Reasons {
    type Item = (Reason, Times);
    type IntoIter = std::collections::btree_map::IntoIter<Reason, Times>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<E: Engine> Tree<E> {
    /// Counts dead letters of a subscriber that are neither redriven nor dropped, by why they failed: some of those that there
    /// were at the beginning, and where to go on with the others.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn count_some_dead_letters(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: Option<LetterProgress>,
    ) -> Result<(Reasons, Option<LetterProgress>), ControlError> {
        let found = self.subscriber(subscriber)?;
        let progress = self.progress(&found, from).await?;
        let page = self.letters(&found, filter, progress.at, LETTERS_AT_ONCE, &progress.ends).await?;
        let mut reasons = Reasons::default();
        page.found.iter().for_each(|letter| reasons.count(letter));
        Ok((reasons, page.next.map(|at| LetterProgress { at, ends: progress.ends })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(failure: &str, words: &str) -> Reason {
        Reason { failure: failure.into(), words: words.into() }
    }

    fn at(time_ns: u64) -> Times {
        Times { count: 1, first_ns: time_ns, last_ns: time_ns }
    }

    #[test]
    fn reasons_are_counted_and_the_most_frequent_is_first() {
        let mut reasons = Reasons::default();
        for (failure, words, time_ns) in [("trap", "a", 5), ("reject", "b", 9), ("reject", "b", 7)] {
            reasons.add(reason(failure, words), at(time_ns));
        }
        let both = (&reason("reject", "b"), Times { count: 2, first_ns: 7, last_ns: 9 });
        assert_eq!(reasons.by_count(), [both, (&reason("trap", "a"), at(5))]);
        assert_eq!(reasons.total(), 3);
    }

    #[test]
    fn however_many_reasons_there_are_they_are_bounded_and_all_are_counted() {
        let mut reasons = Reasons::default();
        for number in 0..10_000 {
            reasons.add(reason(if number % 2 == 0 { "reject" } else { "trap" }, &number.to_string()), at(number));
        }
        assert_eq!((reasons.total(), reasons.by_count().len()), (10_000, REASONS_MAX + 2));
        assert!(reasons.by_count()[0].0.words.is_empty(), "those that found no room");
    }
}
