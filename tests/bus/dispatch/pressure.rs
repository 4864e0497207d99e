//! Those who are slow slow down nobody else, and a full queue is no dead end.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wattle::dispatch::PublishError;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{AppendError, Engine};
use wattle::limits::{EVENT_BYTES_MAX, LANE_QUEUE_BYTES_MAX, UNIT_BYTES_MAX};
use wattle::log::Durability;

use crate::common::trees::{PATIENCE, contents, event, plan_of, settled, status, until};
use crate::dispatch::bed::start_on;
use crate::dispatch::script::{Script, Step, by_event, copy, out};

const SIBLINGS: &str = "
wattle: v1
name: t
topics: { in: { partitions: 2 }, a: {}, b: {} }
subscribers:
  work: { from: in, plugin: p.wasm, to: [a, b] }
  slow: { from: a, plugin: p.wasm }
  quick: { from: b, plugin: p.wasm }
  beside: { from: a, plugin: p.wasm }
";

async fn a_stuck_leaf<E: Engine>(engine: E, events: usize) {
    let work = Script::each(|given| {
        Step::Emit(vec![out(given.data.clone()), crate::dispatch::script::on(1, given.data.clone())])
    });
    let leaf = || Script::each(|_| Step::Emit(Vec::new()));
    let gate = Arc::new(Semaphore::new(0));
    let slow = {
        let gate = gate.clone();
        Script::calls(move |call| {
            let gate = gate.clone();
            async move {
                drop(gate.acquire().await.unwrap());
                by_event(&call, |_| Step::Emit(Vec::new()))
            }
        })
    };
    let (quick, beside) = (leaf(), leaf());
    let scripts = [("work", &work), ("slow", &slow), ("quick", &quick), ("beside", &beside)];
    let tree = start_on(engine, &plan_of(&[SIBLINGS]), &scripts).await;
    let mut published = 0;
    while published < events {
        let batch: Vec<_> = (published..published + 100)
            .map(|n| event(&n.to_string(), &format!("k{}", n % 9), &n.to_string()))
            .collect();
        published += batch.len();
        tree.publisher().publish("in", &batch, None).await.unwrap();
    }
    for other in ["t/work", "t/quick", "t/beside"] {
        until(other, || status(&tree.snapshot(), other).handled == published as u64).await;
    }
    assert_eq!(status(&tree.snapshot(), "t/slow").lag, published as u64);
    gate.add_permits(1);
    settled(&tree).await;
    let mut last = std::collections::BTreeMap::new();
    for given in slow.called().into_iter().flat_map(|call| call.events) {
        let number: usize = given.data.parse().unwrap();
        assert!(last.insert(given.key.clone(), number).is_none_or(|before| before + 9 == number), "{given:?}");
    }
    assert_eq!(last.len(), 9);
    assert!(tree.drain(PATIENCE).await);
}

#[tokio::test]
async fn a_stuck_leaf_stalls_neither_its_parent_nor_its_siblings_in_memory() {
    a_stuck_leaf(MemoryEngine::default(), 5_000).await;
}

#[tokio::test]
async fn a_stuck_leaf_stalls_neither_its_parent_nor_its_siblings_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    a_stuck_leaf(EmbeddedEngine::open(folder.path(), Durability::Os).unwrap(), 20_000).await;
}

/// Every lane of two levels hands in units that are nearly as large as the whole queue, while producers fill theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_fill_the_queue_at_every_level_at_once_all_pass() {
    const LANES: usize = 4;
    const EACH: usize = UNIT_BYTES_MAX / EVENT_BYTES_MAX - 2;
    const _: () = assert!(LANES * EACH * EVENT_BYTES_MAX > LANE_QUEUE_BYTES_MAX);
    let yaml = "
wattle: v1
name: t
topics: { in: { partitions: 4 }, wide: {}, down: {} }
subscribers:
  swell: { from: in, plugin: p.wasm, to: [wide] }
  pass: { from: wide, plugin: p.wasm, to: [down] }
";
    let swell = Script::each(|given| match given.data.as_str() {
        "swell" => Step::Emit(vec![out(vec![b'x'; EVENT_BYTES_MAX - 300]); EACH]),
        _ => copy(given),
    });
    let pass = Script::each(|given| Step::Emit(vec![out(given.data.clone())]));
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let tree = start_on(engine, &plan_of(&[yaml]), &[("swell", &swell), ("pass", &pass)]).await;
    // One for each partition.
    let mut events: Vec<Option<bytes::Bytes>> = vec![None; LANES];
    for n in 0.. {
        let key = format!("k{n}");
        events[wattle::model::partition_of(&key, LANES as u32) as usize]
            .get_or_insert_with(|| event(&key, &key, "swell"));
        if events.iter().all(Option::is_some) {
            break;
        }
    }
    let events: Vec<_> = events.into_iter().flatten().collect();
    tree.publisher().publish("in", &events, None).await.unwrap();
    let text = "y".repeat(EVENT_BYTES_MAX - 500);
    let mut large_ones = 0;
    for n in 0..10 {
        let large = [0, 1].map(|m| event(&format!("large {n} {m}"), "large", &text));
        match tree.publisher().publish("in", &large, None).await {
            Ok(published) => large_ones += published.places.len(),
            Err(PublishError::Append(AppendError::Busy { retry_after })) => tokio::time::sleep(retry_after).await,
            Err(error) => panic!("{error}"),
        }
    }
    settled(&tree).await;
    let found = contents(&tree, "down").await.concat().len();
    assert_eq!(found, LANES * EACH + large_ones);
    assert!(tree.drain(PATIENCE).await);
}
