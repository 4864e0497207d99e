//! What the tree says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wattle::api::{Filter, LaneState};
use wattle::dispatch::Tree;
use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::log::Durability;
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, event, plan_of, settled, status, until};
use crate::dispatch::bed::{Hand, Home, ONE, ends, one, publish, start, start_on};
use crate::dispatch::script::{Script, Step, copy, out};

#[tokio::test(start_paused = true)]
async fn a_snapshot_counts_what_happened() {
    let work = Script::each(|given| match (given.data.as_bytes()[0], given.attempt) {
        (b'r', _) => Step::Reject,
        (b'l', 1..3) => Step::Retry(None),
        (b'f', _) => Step::Retry(None),
        (b't', _) if !given.is_alone => Step::Break(wattle::model::call::CallErrorKind::Trap),
        (b'z', _) => Step::Emit(Vec::new()),
        _ => Step::Emit(vec![out("1"), out("2")]),
    });
    let tree = one(&work, &["a", "r", "l", "b", "f", "t", "z", "c"]).await;
    settled(&tree).await;
    let snapshot = tree.snapshot();
    let found = status(&snapshot, "t/work");
    assert_eq!((found.from.as_str(), found.dead_letters.as_deref()), ("t/in", Some("t/work.dead")));
    assert_eq!(found.to, [("out".to_owned(), "t/out".to_owned())]);
    assert_eq!(found.digest, "01".repeat(32));
    assert_eq!((found.handled, found.dead_lettered), (8, 2));
    assert_eq!(found.emitted, 10, "a, l, b, t and c, two each");
    assert_eq!(found.retried, 4, "two of l, two of f");
    assert_eq!((found.lag, found.lanes.as_slice()), (0, &[LaneState::Running][..]));
    assert_eq!(found.last_failure.as_deref(), Some("event f: no f"));
    let topics: Vec<_> = snapshot
        .topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.parent.as_deref(), topic.is_dead_letters, topic.events()))
        .collect();
    assert_eq!(topics.len(), 3);
    for topic in
        [("t/in", None, false, 8), ("t/out", Some("t/work"), false, 10), ("t/work.dead", Some("t/work"), true, 2)]
    {
        assert!(topics.contains(&topic), "{topic:?} in {topics:?}");
    }
}

#[tokio::test]
async fn the_state_of_a_lane_is_its_own() {
    let yaml =
        ONE.replace("in: {}", "in: { partitions: 4 }").replace("initial: 100ms, max: 1s", "initial: 1h, max: 1h");
    let work =
        Script::each(|given| if given.data == "b" && given.attempt < 2 { Step::Retry(None) } else { copy(given) });
    let tree = start(&yaml, &[("work", &work)]).await;
    let lanes = || status(&tree.snapshot(), "t/work").lanes;
    assert_eq!(lanes(), [LaneState::Running; 4]);
    let partition = publish(&tree, "in", &["b"]).await.places[0].partition as usize;
    let mut expected = [LaneState::Running; 4];
    expected[partition] = LaneState::Retrying;
    until("it retries", || lanes() == expected).await;
    assert_eq!(status(&tree.snapshot(), "t/work").waiting, 1);
    assert!(tree.drain(PATIENCE).await, "also in the middle of an hour");
    assert_eq!(lanes(), [LaneState::Stopped; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_tried_again_with_success_runs_again() {
    for step in [Step::Retry(None), Step::NoInstance] {
        let first = std::sync::atomic::AtomicBool::new(true);
        let work = Script::each(move |given| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => step.clone(),
            false => copy(given),
        });
        let tree = one(&work, &["a"]).await;
        settled(&tree).await;
        assert_eq!(status(&tree.snapshot(), "t/work").lanes, [LaneState::Running]);
    }
}

const WIDE: &str = "
wattle: v1
name: t
topics: { in: { partitions: 3 }, a: {}, b: { partitions: 2 }, aa: {} }
subscribers:
  one: { from: in, plugin: p.wasm, to: [a, b] }
  two: { from: a, plugin: p.wasm, to: [aa] }
  three: { from: b, plugin: p.wasm, retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } } }
  four: { from: aa, plugin: p.wasm }
";

/// Each event makes two in `a`, one in `b`, two in `aa` and one dead letter. Every other one at the second attempt.
fn scripts() -> [Script; 4] {
    let one = |given: &crate::dispatch::script::Given| {
        if given.attempt == 1 && given.id.ends_with('1') {
            return Step::Retry(Some(Duration::ZERO));
        }
        Step::Emit(vec![out(given.data.clone()), crate::dispatch::script::on(1, "b"), out(given.data.clone())])
    };
    [
        Script::each(one),
        Script::each(copy),
        Script::each(|_| Step::Retry(None)),
        Script::each(|_| Step::Emit(Vec::new())),
    ]
}

/// Publishes a little, waits for the tree to say that it is settled, and looks at that moment whether it is.
async fn hammer<E: Engine>(engine: E, plan: &Plan, rounds: u64) {
    let [one, two, three, four] = scripts();
    let tree = start_on(engine, plan, &[("one", &one), ("two", &two), ("three", &three), ("four", &four)]).await;
    let mut published = 0;
    for round in 0..rounds {
        let events: Vec<_> =
            (0..round % 4 + 1).map(|n| event(&format!("{round}-{n}"), &format!("{}", (round + n) % 5), "x")).collect();
        published += events.len() as u64;
        tree.publisher().publish("in", &events, None).await.unwrap();
        let looked = std::time::Instant::now();
        while !tree.is_settled() {
            assert!(looked.elapsed() < PATIENCE, "{:#?}", tree.snapshot());
            tokio::task::yield_now().await;
        }
        let snapshot = tree.snapshot();
        for (topic, each) in [("t/in", 1), ("t/a", 2), ("t/b", 1), ("t/aa", 2), ("t/three.dead", 1)] {
            let found = snapshot.topics.iter().find(|found| found.name == topic).unwrap();
            assert_eq!(found.events(), published * each, "{topic} in round {round}");
        }
        for (subscriber, handled, emitted) in [("t/one", 1, 3), ("t/two", 2, 2), ("t/three", 1, 0), ("t/four", 2, 0)] {
            let found = status(&snapshot, subscriber);
            let counts = (found.handled, found.emitted, found.lag);
            assert_eq!(counts, (published * handled, published * emitted, 0), "{subscriber} in round {round}");
        }
        assert_eq!(status(&snapshot, "t/three").dead_lettered, published, "round {round}");
    }
    assert!(tree.drain(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_tree_in_memory_is_never_settled_while_anything_is_in_flight() {
    hammer(MemoryEngine::default(), &plan_of(&[WIDE]), 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_tree_on_disk_is_never_settled_while_anything_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    hammer(engine, &plan_of(&[WIDE]), 300).await;
}

#[tokio::test]
async fn lag_is_what_waits_also_before_the_first_unit() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let open = gate.clone();
    let work = Script::calls(move |call| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            crate::dispatch::script::by_event(&call, copy)
        }
    });
    let tree: Tree<MemoryEngine> = one(&work, &["a", "b", "c"]).await;
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 3);
    assert!(!tree.is_settled());
    open.add_permits(10);
    settled(&tree).await;
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 0);
    assert!(tree.drain(Duration::from_secs(1)).await);
}

async fn open_dead_letters_are_those_that_nothing_was_done_about(home: impl Home) {
    let plan = plan_of(&[&ONE.replace("in: {}", "in: { partitions: 3 }")]);
    let rejects = Script::each(|_| Step::Reject);
    let of = |tree: &Tree<_>| {
        let now = status(&tree.snapshot(), "t/work");
        (now.open_dead_letters, now.dead_lettered)
    };
    let tree = start_on(home.open().await, &plan, &[("work", &rejects)]).await;
    assert_eq!(of(&tree), (Some(0), 0));
    publish(&tree, "in", &["a", "b", "c", "d", "e"]).await;
    settled(&tree).await;
    assert_eq!(of(&tree), (Some(5), 5));
    let only = |id: &str| Filter { id: Some(id.into()), ..Filter::default() };
    for _ in 0..2 {
        tree.subscriber("work").unwrap().dead_letters().drop(&only("b")).await.unwrap();
        assert_eq!(of(&tree), (Some(4), 5), "dropped twice is dropped once");
    }
    tree.subscriber("work").unwrap().dead_letters().redrive(&only("d")).await.unwrap();
    settled(&tree).await;
    assert_eq!(of(&tree), (Some(4), 6), "what fails again is another one");
    ends(tree).await;

    let copies = Script::each(copy);
    let tree = start_on(home.open().await, &plan, &[("work", &copies)]).await;
    assert_eq!(of(&tree), (Some(4), 0), "what is kept outlives a start, what is counted does not");
    tree.subscriber("work").unwrap().dead_letters().redrive(&Filter::default()).await.unwrap();
    settled(&tree).await;
    assert_eq!(of(&tree), (Some(0), 0));
    ends(tree).await;
}

#[tokio::test]
async fn open_dead_letters_are_those_that_nothing_was_done_about_in_memory() {
    open_dead_letters_are_those_that_nothing_was_done_about(MemoryEngine::default()).await;
}

#[tokio::test]
async fn open_dead_letters_are_those_that_nothing_was_done_about_on_disk() {
    open_dead_letters_are_those_that_nothing_was_done_about(tempfile::tempdir().unwrap()).await;
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_is_behind_is_as_old_as_its_oldest_event_also_where_only_the_disk_knows_that() {
    let (disk, hand) = (MemoryDisk::default(), Hand::default());
    let (plan, work) = (plan_of(&[ONE]), Script::each(copy));
    let age = |tree: &Tree<EmbeddedEngine>| {
        let now = status(&tree.snapshot(), "t/work");
        (now.lag, now.lag_age.map(|age| age.as_secs() / 60))
    };
    let tree = start_on(hand.engine(&disk), &plan, &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    assert_eq!(age(&tree), (0, None));
    tree.subscriber("work").unwrap().pause().await.unwrap();
    for name in ["b", "c"] {
        hand.moves(HOUR);
        publish(&tree, "in", &[name]).await;
    }
    hand.moves(HOUR);
    assert_eq!(age(&tree), (2, Some(120)));
    assert!(tree.drain(PATIENCE).await);
    tree.engine().close().await.unwrap();

    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let tree = start_on(hand.engine(&disk), &plan, &[("work", &work)]).await;
    disk.set_fault_on(move |name, operation| {
        if name.starts_with("segment") && matches!(operation, Operation::Read(_)) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    assert_eq!(age(&tree), (2, Some(120)), "and not the age of the first event of its segment");
    let once = reads.swap(0, Ordering::SeqCst);
    assert!(once > 0);
    hand.moves(HOUR);
    assert_eq!((age(&tree), reads.load(Ordering::SeqCst)), ((2, Some(180)), 0), "it is read once");
    assert!(tree.drain(PATIENCE).await);
}

#[tokio::test(start_paused = true)]
async fn rates_are_those_of_the_last_minute() {
    let yaml = ONE.replace("retry: { attempts: 3", "on_failure: park\n    retry: { attempts: 1");
    let work = Script::each(|given| if given.data == "x" { Step::Retry(None) } else { copy(given) });
    let tree = start(&yaml, &[("work", &work)]).await;
    let now = || {
        let now = status(&tree.snapshot(), "t/work");
        (now.arrived_per_minute, now.handled_per_minute)
    };
    assert_eq!(now(), (0, 0));
    publish(&tree, "in", &["a", "b", "x"]).await;
    settled(&tree).await;
    assert_eq!(now(), (3, 2), "what is parked is not handled");
    tokio::time::sleep(Duration::from_secs(40)).await;
    publish(&tree, "in", &["c"]).await;
    settled(&tree).await;
    assert_eq!(now(), (4, 3));
    let topics = tree.topics();
    assert_eq!(topics.iter().find(|topic| topic.name == "t/out").unwrap().events_per_minute, 3);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(now(), (1, 1));
    let found = status(&tree.snapshot(), "t/work");
    assert_eq!((found.waiting, found.parked, found.waiting_age.is_some()), (1, 1, true));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(now(), (0, 0));
    assert!(tree.snapshot().uptime >= Duration::from_secs(110));
}

#[tokio::test]
async fn a_status_of_many_lanes_looks_at_nothing_that_they_keep() {
    let yaml = "
wattle: v1
name: t
topics: { in: { partitions: 1024 } }
subscribers:
  one: { from: in, plugin: p.wasm }
  two: { from: in, plugin: p.wasm }
  three: { from: in, plugin: p.wasm }
";
    let rejects = Script::each(|_| Step::Reject);
    let engine = MemoryEngine::default();
    let scripts = [("one", &rejects), ("two", &rejects), ("three", &rejects)];
    let tree = start_on(engine.clone(), &plan_of(&[yaml]), &scripts).await;
    let names: Vec<String> = (0..3_000).map(|name| name.to_string()).collect();
    publish(&tree, "in", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settled(&tree).await;
    let open = || ["t/one", "t/two", "t/three"].map(|name| status(&tree.snapshot(), name).open_dead_letters);
    assert_eq!(open(), [Some(3_000); 3]);
    let one = Filter { id: Some("7".into()), ..Filter::default() };
    tree.subscriber("two").unwrap().dead_letters().drop(&one).await.unwrap();
    let before = engine.entries_read();
    assert_eq!(open(), [Some(3_000), Some(2_999), Some(3_000)]);
    assert_eq!(engine.entries_read(), before);
}
