//! What is done while plugins run: on threads of low priority, so that they keep the processor.

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that compile beside running plugins. One: a reload may take a little longer.
const THREADS: usize = 1;
/// How much they give way to others, as `nice` has it: a tenth of the processor where others want all of it.
const NICENESS: i32 = 10;

/// Has the thread that calls give way to others for good.
pub fn give_way() {
    // On Linux this is the thread that calls. Whoever may not give way goes on all the same.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// The threads, which the compiler uses for everything that it does in parallel.
pub(super) struct Beside(ThreadPool);

impl Beside {
    pub(super) fn start() -> Result<Beside, ThreadPoolBuildError> {
        let threads = ThreadPoolBuilder::new().num_threads(THREADS).start_handler(|_| give_way());
        threads.thread_name(|_| "compile".to_owned()).build().map(Beside)
    }

    /// Does something on them, while this thread waits.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }
}
