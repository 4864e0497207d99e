//! `dedupe: { per: key }`: an event is stored once for as long as its key is known.

use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::{Attribute, Event};

use crate::common::trees::{data, event, plan_of, settled};
use crate::dispatch::bed::{Home, ends, start_on};
use crate::dispatch::script::{Script, copy};

const YAML: &str = "\
wattle: v1
name: t
topics:
  in:
    id: data.order + '/' + data.s
    dedupe: { per: key }
    lifecycle: { state: data.s, start: [new], allow: { new: [paid, lost], paid: [done] }, out_of_order: { hold: 1h } }
  out: {}
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: out } }
";

fn of(id: &str, order: &str, state: &str) -> bytes::Bytes {
    event(id, order, &format!(r#"{{"id":"{id}","order":"{order}","s":"{state}"}}"#))
}

/// How many of some events had been published before, and how many are held.
async fn publish<E: Engine>(tree: &Tree<E>, events: &[bytes::Bytes]) -> (usize, usize) {
    let published = tree.publisher().publish("in", events, None).await.unwrap();
    (published.duplicates(), published.held.len())
}

async fn ids<E: Engine>(tree: &Tree<E>) -> Vec<String> {
    let id =
        |data: &String| serde_json::from_str::<serde_json::Value>(data).unwrap()["id"].as_str().unwrap().to_owned();
    data(tree, "out").await.iter().map(id).collect()
}

async fn each_event_of_a_key_is_stored_once(home: impl Home) {
    let (plan, work) = (plan_of(&[YAML]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(publish(&tree, &[of("1", "a", "new"), of("2", "b", "paid"), of("3", "a", "new")]).await, (1, 1));
    assert_eq!(publish(&tree, &[of("4", "b", "paid"), of("5", "a", "new")]).await, (2, 0), "one is held, one stored");
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(publish(&tree, &[of("6", "b", "new"), of("7", "b", "paid"), of("8", "a", "paid")]).await, (1, 0));
    // the same, to come later, and something else
    let later = |id: &str, state: &str| {
        let mut event = Event::decode(&of(id, "a", state)).unwrap();
        event.attributes.insert("delay".into(), Attribute::String("100ms".into()));
        event.encode()
    };
    publish(&tree, &[later("9", "paid"), later("10", "done"), later("11", "done")]).await;
    while ids(&tree).await.len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    settled(&tree).await;
    let mut found = ids(&tree).await;
    found.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert_eq!(found, ["1", "2", "6", "8", "10"]);
    assert_eq!(data(&tree, "in@refused").await.len(), 0, "what came before is no event that is refused");
    assert_eq!(publish(&tree, &[of("12", "a", "done"), of("13", "a", "new")]).await, (2, 0), "it has ended");
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn each_event_of_a_key_is_stored_once_in_memory() {
    each_event_of_a_key_is_stored_once(MemoryEngine::default()).await;
}

#[tokio::test]
async fn each_event_of_a_key_is_stored_once_on_disk() {
    each_event_of_a_key_is_stored_once(tempfile::tempdir().unwrap()).await;
}
