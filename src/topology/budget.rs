//! What one evaluation of an expression or a schema may cost, in steps.
//!
//! The producer of an event chooses how long lists are, and the author of a topology chooses how they are gone through:
//! together they can ask for more work than any machine has. So an evaluation counts its steps, and past the budget it
//! is left.
//!
//! Promises: the same expression or schema takes the same number of steps for the same event, on every machine and each
//! time. Memory that an evaluation takes is bounded as well, since its results count.
//!
//! It is left by unwinding, past everything that would take an error for a reason to look further (`||`, `anyOf`).
//! Nothing is printed, and nothing that evaluates holds a lock or leaves anything half done.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Steps of an evaluation, whatever the event is: about 10 ms of a processor.
pub const STEPS_MIN: u64 = 100_000;
/// Steps more for each byte of the event's data.
pub const STEPS_PER_DATA_BYTE: u64 = 8;

thread_local! {
    /// The rest of the budget; no limit outside of [`within`].
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// It takes more than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManySteps {
    /// The whole budget.
    pub(super) budget: u64,
}

/// The budget of an evaluation over this many bytes of data.
pub(super) fn of_data(bytes: usize) -> u64 {
    STEPS_MIN + STEPS_PER_DATA_BYTE * bytes as u64
}

/// Evaluates something that [`spend`]s at most `budget` steps.
///
/// # Errors
/// [`TooManySteps`]: it was left.
pub(super) fn within<T>(budget: u64, evaluate: impl FnOnce() -> T) -> Result<T, TooManySteps> {
    let before = LEFT.replace(budget);
    // What it has made so far goes; what it looks at is shared and does not change.
    let evaluated = catch_unwind(AssertUnwindSafe(evaluate));
    LEFT.set(before);
    evaluated.or_else(|payload| match payload.downcast::<TooManySteps>() {
        Ok(_) => Err(TooManySteps { budget }),
        Err(payload) => resume_unwind(payload),
    })
}

/// Counts steps, and leaves the evaluation where there are too many.
pub(super) fn spend(steps: u64) {
    match LEFT.get().checked_sub(steps) {
        Some(left) => LEFT.set(left),
        None => resume_unwind(Box::new(TooManySteps { budget: 0 })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spends_more_is_left_and_what_is_around_it_goes_on() {
        let outer = within(10, || {
            let inner = within(3, || {
                spend(2);
                spend(2);
                unreachable!("it was left")
            });
            assert_eq!(inner, Err::<(), _>(TooManySteps { budget: 3 }));
            spend(10);
            7
        });
        assert_eq!(outer, Ok(7));
        spend(u64::MAX - 1); // outside there is no budget
    }
}
