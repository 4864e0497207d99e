//! Counts dead letters by failure reason.
//!
//! Promises: bounded memory for any number of reasons; reasons beyond the limit are counted by the kind of their
//! failure.

use super::error::ControlError;
use super::letters::DeadLetters;
use super::places::without_positions;
use crate::api::{FailedEvent, Filter, LetterProgress, Reason, Reasons, Times};
use crate::engine::Engine;

/// Bytes of a reason that distinguish it, within its first line.
const REASON_BYTES_MAX: usize = 200;
/// Dead letters that are read at once.
const LETTERS_AT_ONCE: usize = 10_000;

impl Reasons {
    fn count(&mut self, letter: &FailedEvent) {
        let line = without_positions(letter.reason.lines().next().unwrap_or_default());
        let failed_ns = letter.failed_ns;
        let words = match line.get(..line.floor_char_boundary(REASON_BYTES_MAX)) {
            Some(begin) if begin.len() < line.len() => format!("{begin}…"),
            _ => line.to_owned(),
        };
        let reason = Reason { failure: letter.failure.clone(), words };
        self.add(reason, Times { count: 1, first_ns: failed_ns, last_ns: failed_ns });
    }
}

impl<E: Engine> DeadLetters<'_, E> {
    /// Counts open dead letters by failure reason: a part of those that existed at the beginning, and where to
    /// continue.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn count_some(
        &self,
        filter: &Filter,
        from: Option<LetterProgress>,
    ) -> Result<(Reasons, Option<LetterProgress>), ControlError> {
        let progress = self.progress(from).await?;
        let page = self.list_to(filter, progress.at, LETTERS_AT_ONCE, &progress.ends).await?;
        let mut reasons = Reasons::default();
        page.found.iter().for_each(|letter| reasons.count(letter));
        Ok((reasons, page.next.map(|at| LetterProgress { at, ends: progress.ends })))
    }
}
