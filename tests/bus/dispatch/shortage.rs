//! A disk on which a checkpoint finds no room: what lanes keep cannot be read until there is some, and then everything
//! goes on by itself. That lanes are started again for it is looked at on the disk in memory: on a real one they may as
//! well just wait.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use wattle::api::{LaneState, Seek, SeekState, SeekTo, StateEntry};
use wattle::dispatch::{ControlError, Refusal, Tree};
use wattle::effects::memory::Operation;
use wattle::effects::{Clock, MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::log::Durability;
use wattle::model::{Attribute, Event};

use crate::common::mounted::Mounted;
use crate::common::trees::{PATIENCE, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{self, ONE, start_on};
use crate::dispatch::script::{Script, Step, copy, out};

const TREE: &str = "
wattle: v1
name: t
topics:
  in: {}
  out: {}
  guarded: { lifecycle: { state: data.s, start: [new], allow: { new: [new] } } }
  orders: { lifecycle: { state: data.s, start: [new], allow: { new: [paid] }, out_of_order: { hold: 1h } } }
subscribers:
  work:
    from: in
    plugin: p.wasm
    to: { out: out }
    retry: { attempts: 1000, backoff: { initial: 5ms, max: 5ms } }
  guards:
    from: in
    plugin: p.wasm
    to: { out: guarded }
";

/// Bytes of an event that is there to make checkpoints come.
const FILLER: usize = 1_000;

/// The machine's clock, and how far it is ahead of that.
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now_ns(&self) -> u64 {
        SystemClock.now_ns() + self.0.load(SeqCst)
    }

    fn elapsed_ns(&self) -> u64 {
        SystemClock.elapsed_ns() + self.0.load(SeqCst)
    }
}

/// A disk whose state store finds no room while somebody says so.
struct Disk {
    disk: MemoryDisk,
    is_full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    synced: Arc<AtomicU64>,
    clock: Arc<Ahead>,
}

impl Disk {
    fn new() -> Self {
        let (disk, is_full) = (MemoryDisk::default(), Arc::new(AtomicBool::new(false)));
        let (refused, synced) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        disk.set_fault_on({
            let (is_full, refused, synced) = (is_full.clone(), refused.clone(), synced.clone());
            move |name, operation| match operation {
                Operation::Write(_) | Operation::Allocate(_) if name == "state" && is_full.load(SeqCst) => {
                    refused.fetch_add(1, SeqCst);
                    Err(io::ErrorKind::StorageFull.into())
                }
                Operation::Sync if name == "state" => {
                    synced.fetch_add(1, SeqCst);
                    Ok(())
                }
                _ => Ok(()),
            }
        });
        Self { disk, is_full, refused, synced, clock: Arc::new(Ahead(AtomicU64::new(0))) }
    }

    fn open(&self) -> EmbeddedEngine {
        let options = LogOptions {
            file_bytes: 16 << 10,
            move_bytes: 4 << 10,
            checkpoint_bytes: 8 << 10,
            ..LogOptions::default()
        };
        let disk = Arc::new(self.disk.clone());
        EmbeddedEngine::open_with(Path::new("memory"), disk, self.clock.clone(), options).unwrap()
    }
}

fn named(name: &str, key: &str, bytes: usize) -> Bytes {
    event(name, key, &json!({ "s": "new", "n": name, "fill": "x".repeat(bytes) }).to_string())
}

fn late(name: &str, after: &str) -> Bytes {
    let mut late = Event::decode(&named(name, name, 0)).unwrap();
    late.attributes.insert("delay".into(), Attribute::String(after.into()));
    late.encode()
}

fn name(data: &str) -> String {
    serde_json::from_str::<serde_json::Value>(data).unwrap()["n"].as_str().unwrap().to_owned()
}

async fn publish<E: Engine>(tree: &Tree<E>, event: Bytes) {
    tree.publisher().publish("in", &[event], None).await.unwrap();
}

/// Publishes events, of the keys that were there before, until something is so.
async fn fill_until<E: Engine>(tree: &Tree<E>, count: &mut usize, so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not after {PATIENCE:?}: {:#?}", tree.snapshot());
        // a log that waits for a checkpoint takes nothing in
        let filler = [named(&format!("f{count}"), &format!("k{}", *count % 3), FILLER)];
        match tokio::time::timeout(Duration::from_millis(200), tree.publisher().publish("in", &filler, None)).await {
            Ok(published) => drop(published.unwrap()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        *count += 1;
    }
}

fn lane<E: Engine>(tree: &Tree<E>, subscriber: &str) -> LaneState {
    status(&tree.snapshot(), subscriber).lanes[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_room_ends_no_lane_and_all_goes_on_once_there_is_some() {
    let disk = Disk::new();
    let passes = Arc::new(AtomicBool::new(false));
    let work = Script::each({
        let passes = passes.clone();
        move |given| {
            if name(&given.data) == "stubborn" && !passes.load(SeqCst) {
                return Step::Retry(None);
            }
            given.state.set("seen", &given.key, name(&given.data));
            Step::Emit(vec![out(json!({ "n": name(&given.data) }).to_string())])
        }
    });
    let guards = Script::each(|given| Step::Emit(vec![out(json!({ "s": "new", "n": name(&given.data) }).to_string())]));
    let tree = start_on(disk.open(), &plan_of(&[TREE]), &[("work", &work), ("guards", &guards)]).await;
    let named_topic =
        |tree: &Tree<_>, name: &str| tree.snapshot().topics.iter().find(|topic| topic.name == name).unwrap().clone();
    let topic = |tree: &Tree<_>| named_topic(tree, "t/in");
    let orders = |tree: &Tree<_>| named_topic(tree, "t/orders");

    // All that is to be read is in the store, and nowhere else.
    publish(&tree, named("stubborn", "s", 0)).await;
    publish(&tree, late("late", "1h")).await;
    let paid = event("paid", "p", &json!({ "s": "paid", "n": "paid" }).to_string());
    tree.publisher().publish("orders", &[paid], None).await.unwrap();
    until("it waits", || status(&tree.snapshot(), "t/work").waiting == 1 && topic(&tree).delayed == 1).await;
    let (mut count, synced) = (0, disk.synced.load(SeqCst));
    fill_until(&tree, &mut count, || disk.synced.load(SeqCst) >= synced + 8).await;

    disk.is_full.store(true, SeqCst);
    fill_until(&tree, &mut count, || disk.refused.load(SeqCst) > 0).await;
    disk.clock.0.store(2 * 3600 * 1_000_000_000, SeqCst);
    let fails = |subscriber| lane(&tree, subscriber) == LaneState::Failing;
    fill_until(&tree, &mut count, || fails("t/work") && topic(&tree).delay_failure.is_some()).await;
    fill_until(&tree, &mut count, || orders(&tree).held_failure.is_some()).await;
    let why = status(&tree.snapshot(), "t/work").last_failure.unwrap();
    assert!(why.contains("at the moment"), "{why}");
    // It is tried at once, and said why that fails.
    let told = tokio::time::timeout(Duration::from_secs(10), tree.subscriber("t/work").unwrap().pause())
        .await
        .expect("an answer");
    assert!(
        matches!(&told, Err(ControlError::Refused { refusal: Refusal::Stopped { reason }, .. }) if reason.contains("at \
            the moment")),
        "{told:?}"
    );

    disk.is_full.store(false, SeqCst);
    passes.store(true, SeqCst);
    settled(&tree).await;
    assert_eq!((lane(&tree, "t/work"), lane(&tree, "t/guards")), (LaneState::Running, LaneState::Running));
    assert_eq!((topic(&tree).delay_failure, orders(&tree).held_failure), (None, None));
    assert_eq!(only(&tree, "orders@refused").await.len(), 1, "what was held is given up once it can be read");
    let published: Vec<_> = data(&tree, "in").await.iter().map(|data| name(data)).collect();
    for topic in ["out", "guarded"] {
        let mut made: Vec<_> = data(&tree, topic).await.iter().map(|data| name(data)).collect();
        let mut wanted = published.clone();
        made.sort();
        wanted.sort();
        assert_eq!(made, wanted, "{topic}: each once");
    }
    assert!(published.contains(&"late".to_owned()));
    for dead in ["work.dead", "guards.dead"] {
        assert!(only(&tree, dead).await.is_empty(), "{dead}");
    }
    assert_eq!(tree.subscriber("t/work").unwrap().state().get(("seen", "s"), 0).unwrap().0.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_disk_that_another_program_fills_loses_and_doubles_nothing() {
    let Some(disk) = Mounted::of(32) else { return };
    let passes = Arc::new(AtomicBool::new(false));
    let work = Script::each({
        let passes = passes.clone();
        move |given| {
            if name(&given.data) == "stubborn" && !passes.load(SeqCst) {
                return Step::Retry(None);
            }
            given.state.set("seen", &name(&given.data), "x".repeat(20_000));
            Step::Emit(vec![out(json!({ "n": name(&given.data) }).to_string())])
        }
    });
    let guards = Script::each(|given| Step::Emit(vec![out(json!({ "s": "new", "n": name(&given.data) }).to_string())]));
    let engine = EmbeddedEngine::open(&disk.path().join("data"), Durability::Os).unwrap();
    let tree = start_on(engine, &plan_of(&[TREE]), &[("work", &work), ("guards", &guards)]).await;
    publish(&tree, named("stubborn", "s", 0)).await;
    until("it waits", || status(&tree.snapshot(), "t/work").waiting == 1).await;
    tree.subscriber("t/work").unwrap().pause().await.unwrap();
    for count in 0..500 {
        publish(&tree, named(&format!("e{count}"), &format!("k{}", count % 7), 0)).await;
    }
    let ballast = disk.take(usize::MAX);
    tree.subscriber("t/work").unwrap().resume().await.unwrap();
    // more state than there is room for
    until("it is full", || !tree.engine().storage().takes_outputs).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!tree.is_settled());
    std::fs::remove_file(ballast).unwrap();
    passes.store(true, SeqCst);
    settled(&tree).await;
    for topic in ["out", "guarded"] {
        let made: Vec<_> = data(&tree, topic).await.iter().map(|data| name(data)).collect();
        let once: std::collections::BTreeSet<_> = made.iter().collect();
        assert_eq!((made.len(), once.len()), (501, 501), "{topic}: each once");
    }
    assert_eq!(lane(&tree, "t/work"), LaneState::Running);
    assert!(only(&tree, "work.dead").await.is_empty());
    tree.engine().close().await.unwrap();
}

/// Something that is asked for while a lane waits for room, and given up before there is some.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_by_somebody_who_is_gone_is_not_done_once_there_is_room() {
    let disk = Disk::new();
    let script = Script::each(copy);
    let tree = start_on(disk.open(), &plan_of(&[ONE]), &[("work", &script)]).await;
    tree.subscriber("t/work").unwrap().pause().await.unwrap();
    bed::publish(&tree, "in", &["a"]).await;
    let bytes: usize = disk.disk.contents().values().map(Vec::len).sum();
    disk.disk.set_capacity(Some(bytes as u64 / 2));
    until("it is full", || !tree.engine().storage().takes_outputs).await;
    tree.subscriber("t/work").unwrap().resume().await.unwrap();
    until("what it emits waits for room", || script.called().len() == 1).await;
    let state = SeekState::Empty;
    let to_start = Seek { to: SeekTo::Start, partition: None, state: Some(state), drops_waiting: true, dry_run: false };
    let moment = Duration::from_millis(20);
    assert!(
        tokio::time::timeout(moment, tree.subscriber("t/work").unwrap().seek(to_start)).await.is_err(),
        "the lane is not free"
    );
    let entry = StateEntry { bucket: "b".into(), key: "k".into(), written_ns: 1, value: "v".into() };
    assert!(
        tokio::time::timeout(moment, tree.subscriber("t/work").unwrap().state().import(0, &[entry])).await.is_err()
    );
    assert!(tokio::time::timeout(moment, tree.subscriber("t/work").unwrap().pause()).await.is_err());

    disk.disk.set_capacity(None);
    tree.subscriber("t/work").unwrap().resume().await.unwrap(); // it is told that behind all else
    settled(&tree).await;
    assert_eq!(lane(&tree, "t/work"), LaneState::Running);
    assert_eq!(script.called().len(), 1, "it was not moved");
    assert!(tree.subscriber("t/work").unwrap().state().get(("b", "k"), 0).unwrap().0.is_empty(), "nothing was put in");
    assert_eq!(data(&tree, "out").await, ["a"]);
}
