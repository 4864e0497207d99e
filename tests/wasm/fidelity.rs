//! Random events through a component and back: what a handler is given, and what it answers, are what they were.
//!
//! 300 events; `PROPTEST_CASES` says how many more, `WATTLE_SEED` which ones.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::runtime::Handle;
use wattle::dispatch::Tree;
use wattle::engine::memory::MemoryEngine;
use wattle::model::Event;
use wattle::wasm::PluginSpec;

use crate::common::events::{assert_mirrored, cases, event, seed};
use crate::common::plugin_calls::{host, spec};
use crate::common::random::Random;
use crate::common::trees::{contents, plan_of, settled};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { dedupe: off, partitions: 3 }, out: {} }
subscribers:
  mirror: { from: in, plugin: hostile.wasm, to: [out] }
";

#[tokio::test]
async fn an_event_goes_through_a_component_as_it_came() {
    let (seed, count) = (seed(), cases(300));
    eprintln!("{count} events of WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    let events: Vec<Event> = (0..count).map(|number| event(&mut random, number)).collect();
    let handler = tokio::task::spawn_blocking(|| {
        let config = [("answers".to_owned(), "mirror".to_owned())].into();
        host().register(PluginSpec { config, ..spec("hostile", &["out"]) }).unwrap()
    });
    let handler = handler.await.unwrap();
    let tree =
        Tree::start(MemoryEngine::default(), &plan_of(&[TREE]), vec![handler], &Handle::current()).await.unwrap();
    let encoded: Vec<Bytes> = events.iter().map(Event::encode).collect();
    for part in encoded.chunks(1_000) {
        tree.publisher().publish("in", part, None).await.unwrap();
    }
    settled(&tree).await;
    let came = contents(&tree, "in").await.concat();
    let came: HashMap<(u32, u64), &Event> =
        came.iter().map(|seen| ((seen.partition, seen.offset), &seen.event)).collect();
    let answers = contents(&tree, "out").await.concat();
    assert_eq!(answers.len(), events.len());
    for answer in &answers {
        let lineage = answer.lineage.unwrap();
        assert_mirrored(came[&(lineage.partition, lineage.offset)], &answer.event);
    }
}
