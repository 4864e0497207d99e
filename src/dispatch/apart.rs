//! Work that may take long, apart from the threads that others share.
//!
//! Expressions and schemas have budgets (`topology/budget.rs`), and still a call of a thousand events may keep a processor busy
//! for seconds. Meanwhile the thread is taken out of its runtime: what else it would do goes to another one.

use std::num::NonZeroUsize;

use tokio::runtime::{Handle, RuntimeFlavor};

/// How many of such calls from outside go on at the same time: half of the processors are for what does not take long.
pub(super) fn turns() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2)
}

/// Does it; apart from the runtime where it may take long.
pub(super) fn run<T>(takes_long: bool, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
    if takes_long && has_others() { tokio::task::block_in_place(work) } else { work() }
}
