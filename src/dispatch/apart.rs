//! Runs long computations without blocking other tasks on the same thread.
//!
//! Expressions and schemas have budgets (`topology/budget.rs`), but a call with a thousand events may still occupy a
//! processor for seconds. During such work the thread leaves its runtime, which moves its other tasks to another
//! thread.

use std::num::NonZeroUsize;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Number of long calls from outside that may run at the same time: half of the processors stay free for short ones.
pub(super) fn turns() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2)
}

/// Runs `work`, outside the runtime if `takes_long`.
pub(super) fn run<T>(takes_long: bool, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
    if takes_long && has_others() { tokio::task::block_in_place(work) } else { work() }
}
