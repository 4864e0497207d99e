//! A version of a real plugin beside the one that runs, on the disk.

use tokio::runtime::Handle;
use wattle::api::{DifferenceKind, ShadowRange, ShadowReport};
use wattle::dispatch::Tree;
use wattle::dispatch::shadow::ShadowOptions;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::Durability;
use wattle::wasm::{Host, Plugin};

use crate::common::plugin_calls::{host, spec};
use crate::common::trees::{event, plan_of, settled};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { partitions: 2 }, out: {} }
subscribers:
  hostile: { from: in, plugin: hostile.wasm, to: [out], retry: { attempts: 2, backoff: { initial: 1ms } } }
";

fn plugin(host: &Host, config: &[(&str, &str)]) -> Plugin {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    host.register(wattle::wasm::PluginSpec { config: config.collect(), ..spec("hostile", &["out"]) }).unwrap()
}

/// Has these events handled, each of another key or all of one, and compares the last of them with another registration
/// of the same plugin.
async fn compared(events: &[&str], key: Option<&str>, last: u32) -> ShadowReport {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let plan = plan_of(&[TREE]);
    let handlers = tokio::task::spawn_blocking(|| {
        let host = host();
        [plugin(&host, &[]), plugin(&host, &[]), plugin(&host, &[("more", "told")])]
    });
    let [lane, running, other] = handlers.await.unwrap();
    let tree = Tree::start(engine, &plan, vec![lane], &Handle::current()).await.unwrap();
    let events: Vec<_> = (0..)
        .map(|number: u32| number.to_string())
        .zip(events)
        .map(|(id, data)| event(&id, key.unwrap_or(&id), data))
        .collect();
    tree.publisher().publish("in", &events, None).await.unwrap();
    settled(&tree).await;
    let options = ShadowOptions {
        over: ShadowRange::Last { events: last, state: Vec::new() },
        shown: 100,
        enough: Default::default(),
    };
    tree.subscriber("hostile").unwrap().shadow(&running, &other, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_does_on_stored_events_what_it_did_when_they_came() {
    // Clocks, random bytes, attempts, attributes, traps, rejections, state from the first event on.
    let events =
        ["look", "until 2", "panic at once", "reject", "state increment a=1", "state increment a=1\nget a", "random 8"];
    let report = compared(&events, None, 100).await;
    assert_eq!((report.events, report.held_against_record), (7, 7), "{report:?}");
    assert_eq!((report.not_deterministic, report.over_other_state, report.differing), (0, 0, 0), "{report:?}");
    assert_eq!((report.running.failed, report.other.failed), (2, 2));
    assert!(report.running.memory_peak_bytes.is_some_and(|bytes| bytes >= 64 << 10), "{report:?}");
    assert!(report.running.took > std::time::Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_an_instance_shows_as_what_is_not_deterministic() {
    let events = ["echo", "count", "echo 2", "count", "count"];
    let report = compared(&events, None, 100).await;
    assert_eq!((report.events, report.differing), (5, 0), "{report:?}");
    assert!(report.not_deterministic >= 1, "{report:?}");
    let kinds = [DifferenceKind::NotDeterministic, DifferenceKind::NotAsRecorded];
    assert!(report.shown.iter().all(|shown| kinds.contains(&shown.kind)), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_on_state_that_is_not_there_any_more_is_told_apart() {
    let report = compared(&["state set a=1", "state get a", "echo"], Some("k"), 2).await;
    assert_eq!((report.events, report.over_other_state), (2, 1), "{report:?}");
    assert_eq!((report.not_deterministic, report.differing), (0, 0), "{report:?}");
}
