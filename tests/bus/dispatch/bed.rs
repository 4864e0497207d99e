//! A tree of scripted handlers on an engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use wattle::api::PublishReceipt;
use wattle::dispatch::Tree;
use wattle::effects::{Clock, MemoryDisk};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::log::{Durability, LogOptions};
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, event, plan_of, until};
use crate::dispatch::script::Script;

/// Topic `in` of namespace `t` -> `work` -> `out`, with quick retries.
pub(crate) const ONE: &str = "
wattle: v1
name: t
topics: { in: {}, out: {} }
subscribers:
  work:
    from: in
    plugin: work.wasm
    to: { out: out }
    retry: { attempts: 3, backoff: { initial: 100ms, max: 1s, factor: 4 } }
";

/// Starts a tree on an engine, with the handlers by the subscribers' short names.
pub(crate) async fn start_on<E: Engine>(engine: E, plan: &Plan, scripts: &[(&str, &Script)]) -> Tree<E> {
    let handlers = plan.subscribers.iter().map(|subscriber| {
        let found = scripts.iter().find(|(name, _)| *name == subscriber.name);
        found.unwrap_or_else(|| panic!("no script for {}", subscriber.name)).1.clone()
    });
    Tree::start(engine, plan, handlers.collect(), &Handle::current()).await.unwrap()
}

/// Starts a tree in memory.
pub(crate) async fn start(yaml: &str, scripts: &[(&str, &Script)]) -> Tree<MemoryEngine> {
    start_on(MemoryEngine::default(), &plan_of(&[yaml]), scripts).await
}

/// A tree of [`ONE`] in whose root the events are before it starts, so that they are one batch: `a` and so on, each its
/// own id, key and data.
pub(crate) async fn one(script: &Script, events: &[&str]) -> Tree<MemoryEngine> {
    one_of(ONE, script, events).await
}

/// As [`one`], of another topology with the same names.
pub(crate) async fn one_of(yaml: &str, script: &Script, events: &[&str]) -> Tree<MemoryEngine> {
    let engine = MemoryEngine::default();
    let plan = plan_of(&[yaml]);
    // A tree that is stopped at once creates the topics.
    let first = start_on(engine.clone(), &plan, &[("work", script)]).await;
    assert!(first.drain(PATIENCE).await);
    publish(&first, "in", events).await;
    start_on(engine, &plan, &[("work", script)]).await
}

/// Publishes events, each its own id, key and data, in one call.
pub(crate) async fn publish<E: Engine>(tree: &Tree<E>, topic: &str, events: &[&str]) -> PublishReceipt {
    let events: Vec<_> = events.iter().map(|name| event(name, name, name)).collect();
    tree.publisher().publish(topic, &events, None).await.unwrap()
}

/// An engine that is opened again and again, each time with what the last one had.
pub(crate) trait Home {
    type Engine: Engine;

    async fn open(&self) -> Self::Engine;
}

impl Home for MemoryEngine {
    type Engine = Self;

    async fn open(&self) -> Self {
        self.clone()
    }
}

impl Home for tempfile::TempDir {
    type Engine = EmbeddedEngine;

    async fn open(&self) -> EmbeddedEngine {
        reopened(self.path(), Durability::Os).await
    }
}

/// Opens a folder as soon as its last owner has let it go.
pub(crate) async fn reopened(folder: &Path, durability: Durability) -> EmbeddedEngine {
    let mut engine = None;
    until("the folder is free", || {
        engine = EmbeddedEngine::open(folder, durability).ok();
        engine.is_some()
    })
    .await;
    engine.unwrap()
}

/// Stops a tree and lets its engine go. A disk is not there in time where a paused clock flies, so it is waited for
/// again.
pub(crate) async fn ends<E: Engine>(tree: Tree<E>) {
    let start = std::time::Instant::now();
    while !tree.drain(PATIENCE).await {
        assert!(start.elapsed() < PATIENCE, "not drained: {:#?}", tree.snapshot());
    }
}

/// A tree with these events in its root before it starts, so that they are read together: each with its key, and with
/// its name as id and data.
pub(crate) async fn backlog<E: Engine>(engine: E, plan: &Plan, script: &Script, events: &[(&str, &str)]) -> Tree<E> {
    let events: Vec<_> = events.iter().map(|(key, name)| event(name, key, name)).collect();
    backlog_of(engine, plan, script, &events).await
}

/// As [`backlog`], of any events.
pub(crate) async fn backlog_of<E: Engine>(engine: E, plan: &Plan, script: &Script, events: &[Bytes]) -> Tree<E> {
    let first = start_on(engine.clone(), plan, &[("work", script)]).await;
    while !first.drain(PATIENCE).await {}
    first.publisher().publish("in", events, None).await.unwrap();
    drop(first);
    start_on(engine, plan, &[("work", script)]).await
}

/// A clock that a test moves.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn now_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.elapsed_ns()
    }

    fn elapsed_ns(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Hand {
    /// Time passes.
    pub(crate) fn moves(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, SeqCst);
    }

    /// An engine on a disk, by this clock.
    pub(crate) fn engine(&self, disk: &MemoryDisk) -> EmbeddedEngine {
        let options = LogOptions::default();
        EmbeddedEngine::open_with(Path::new("here"), Arc::new(disk.clone()), Arc::new(self.clone()), options).unwrap()
    }
}
