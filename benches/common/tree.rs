//! A tree on the real disk, with handlers of a benchmark's own.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wattle::dispatch::Tree;
use wattle::engine::embedded::{Durability, EmbeddedEngine};
use wattle::model::call::Handler;
use wattle::topology::Plan;

#[path = "../../tests/common/trees.rs"]
#[allow(
    unreachable_pub,
    dead_code,
    clippy::panic,
    clippy::expect_used,
    reason = "shared with the tests, of which benchmarks use a part"
)]
mod trees;

#[allow(unused_imports, reason = "each benchmark uses a part")]
pub(crate) use trees::{event, plan_of};

/// Runs a benchmark, which gets a folder of its own.
pub(crate) fn run(benchmark: impl AsyncFnOnce(&Path)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    runtime.block_on(benchmark(home.path()));
}

/// Starts a tree in a folder, with a handler for each subscriber by its short name.
pub(crate) async fn start<H: Handler>(
    folder: &Path,
    durability: Durability,
    plan: &Plan,
    handler: impl Fn(&str) -> H,
) -> Tree<EmbeddedEngine> {
    let engine = EmbeddedEngine::open(folder, durability).unwrap();
    let handlers = plan.subscribers.iter().map(|subscriber| handler(&subscriber.name)).collect();
    Tree::start(engine, plan, handlers, &Handle::current()).await.unwrap()
}

/// Waits until something is so.
#[allow(dead_code, reason = "each benchmark uses a part")]
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(300), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
