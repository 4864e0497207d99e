//! Threads with names, and tasks whose owners wait for their end.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that is named in backtraces and in the lists of the operating system. A name has at most 15 bytes
/// there.
///
/// # Errors
/// The operating system has no room for another thread.
#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

/// Spawns a task on the current runtime. Its owner keeps the handle, to wait for its end or to stop it.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks outside of a tracker")]
#[must_use = "the task is to be waited for or stopped; a `TaskTracker` does that for many"]
pub fn task<F: Future<Output: Send + 'static> + Send + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    tokio::spawn(task)
}
