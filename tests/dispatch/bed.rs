//! A tree of scripted handlers on an engine.

use tokio::runtime::Handle;
use wattle::dispatch::{Published, Tree};
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::topology::Plan;

use crate::common::trees::{event, plan_of};
use crate::script::Script;

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
    assert!(first.drain(crate::common::trees::PATIENCE).await);
    publish(&first, "in", events).await;
    start_on(engine, &plan, &[("work", script)]).await
}

/// Publishes events, each its own id, key and data, in one call.
pub(crate) async fn publish<E: Engine>(tree: &Tree<E>, topic: &str, events: &[&str]) -> Published {
    let events: Vec<_> = events.iter().map(|name| event(name, name, name)).collect();
    tree.publisher().publish(topic, &events, None).await.unwrap()
}
