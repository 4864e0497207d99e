//! Reloads while events flow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use wattle::api::Policy;
use wattle::dispatch::Tree;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::Durability;
use wattle::topology::TrialPlan;

use crate::common::trees::{contents, event, settled, status, until};
use crate::reload::bed::World;

const WIDE: &str = "
wattle: v1
name: t
topics: { in: { partitions: 4, dedupe: off }, out: { partitions: 4 } }
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: out }, retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } } }
";

const KEYS: usize = 16;
const BATCH: usize = 64;
/// Events that wait while more are published: lanes are never without work.
const BACKLOG: u64 = 4_000;

/// Publishes numbered events of several keys until it is told to stop. How many of each key.
fn produce(tree: &Tree<EmbeddedEngine>, stop: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let (tree, stop) = (tree.clone(), stop.clone());
    tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            let of_key = |key: usize| (number..number + BATCH / KEYS).map(move |number| (key, number));
            let events: Vec<_> = (0..KEYS)
                .flat_map(of_key)
                .map(|(key, number)| event(&format!("{key}-{number}"), &key.to_string(), &format!("{key}-{number}")))
                .collect();
            tree.publisher().publish("in", &events, None).await.unwrap();
            number += BATCH / KEYS;
            while status(&tree.snapshot(), "t/work").lag > BACKLOG {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        number
    })
}

/// Half of the versions are tried, some of which fail on an event that is to come; the others replace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_lose_double_and_reorder_nothing() {
    let reloads: usize = std::env::var("WATTLE_RELOADS").map_or(1_000, |count| count.parse().unwrap());
    let world = World::of(WIDE, "first", TrialPlan { events: 200, time: Duration::ZERO, ..TrialPlan::default() });
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    // as the bus has it, so that lanes that take all the time that they may do not keep others from reloading
    let lanes = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bus = world.start_on(engine, world.begin().unwrap(), lanes.handle()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let producer = produce(&bus.tree, &stop);
    until("it flows", || status(&bus.tree.snapshot(), "t/work").handled > 20_000).await;
    let before = world.texts.pauses.take_longest();
    let mut rolled_back = 0;
    for number in 0..reloads {
        let (text, policy) = match number % 4 {
            0 => (format!("v{number} sometimes=7"), Policy::Swap),
            1 => (format!("v{number}"), Policy::Canary { percent: 50 }),
            2 => (format!("v{number}"), Policy::Swap),
            _ => (format!("v{number}"), Policy::Replace),
        };
        bus.deploy(&text, policy).await;
        if number % 20 == 0 {
            // time for it to fail, which every other one does that is replaced at once
            until("the trial ends", || bus.reloader.list()[0].tried.is_none()).await;
            until("it is said", || bus.status().reload.is_some()).await;
            rolled_back += usize::from(bus.status().reload.is_some_and(|said| said.contains("rolled back")));
        }
    }
    let during = world.texts.pauses.take_longest();
    stop.store(true, Ordering::SeqCst);
    let published = producer.await.unwrap();
    settled(&bus.tree).await;
    println!(
        "{reloads} reloads over {} events, {rolled_back} rollbacks seen; longest pause of a lane {during:?}, \
         {before:?} without",
        published * KEYS
    );

    let mut of_keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for seen in contents(&bus.tree, "out").await.into_iter().flatten() {
        let (name, data) = seen.data().split_once(' ').unwrap();
        names.entry(seen.lineage.unwrap().version.0).or_default().insert(name.to_owned());
        of_keys.entry(seen.key.clone()).or_default().push(data.to_owned());
    }
    assert_eq!(of_keys.len(), KEYS);
    for (key, data) in &of_keys {
        assert_eq!(data.len(), published, "key {key}: lost or doubled");
        for (number, data) in data.iter().enumerate() {
            assert_eq!(data, &format!("{key}-{number}"), "key {key}: reordered");
        }
    }
    assert!(names.values().all(|names| names.len() == 1), "an output names who made it: {names:?}");
    assert_eq!(rolled_back, reloads.div_ceil(20));
    assert!(names.len() > reloads / 10, "many versions had events: {}", names.len());
    assert!(
        contents(&bus.tree, "work.dead").await.concat().is_empty(),
        "what a new version fails on the old one handles"
    );
    bus.stop().await;
    lanes.shutdown_background();
}
