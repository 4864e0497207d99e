//! A hostile plugin in a real tree on the disk: whatever it does harms only the event that it does it for.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wattle::dispatch::Tree;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::Durability;
use wattle::model::call::{Batch, HandleError, Handled, Handler, Limits};
use wattle::wasm::Plugin;

use crate::common::plugin_calls::{host, spec};
use crate::common::trees::{PATIENCE, contents, data, event, only, plan_of, settled, status, until};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { partitions: 3 }, out: {}, accepted: {}, refused: {}, below: {} }
subscribers:
  hostile:
    from: in
    plugin: hostile.wasm
    to: [out]
    retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } }
  beside: { from: in, plugin: validate.wasm, to: [accepted, refused] }
  under: { from: out, plugin: hostile.wasm, to: { out: below } }
";

/// Time for an event: much more than any but a loop needs, also where many others want the processor.
const GENEROUS: Duration = Duration::from_millis(400);

struct Bed {
    tree: Tree<EmbeddedEngine>,
    _folder: TempDir,
}

/// The tree, with so much time for an event of `hostile`.
async fn start(time: Duration) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let plan = plan_of(&[TREE]);
    let handlers = tokio::task::spawn_blocking(move || {
        let host = host();
        let small = Limits { time, memory_bytes: 16 << 20, ..Limits::default() };
        let handlers = plan.subscribers.iter().map(|subscriber| {
            let ports: Vec<&str> = subscriber.ports.iter().map(|(port, _)| port.as_str()).collect();
            let name = if subscriber.name == "beside" { "validate" } else { "hostile" };
            let mut spec = spec(name, &ports);
            if subscriber.name == "hostile" {
                spec.limits = small;
            }
            host.register(spec).unwrap()
        });
        let handlers: Vec<_> = handlers.collect();
        (plan, handlers)
    });
    let (plan, handlers) = handlers.await.unwrap();
    let tree = Tree::start(engine, &plan, handlers, &Handle::current()).await.unwrap();
    Bed { tree, _folder: folder }
}

/// What a bad event is told to do, and how its dead letter says that it failed.
fn misdeeds() -> Vec<(String, &'static str)> {
    let long = "x".repeat(20_000);
    [
        ("unreachable", "trap"),
        ("panic on purpose", "trap"),
        ("divide 0", "trap"),
        ("bounds", "trap"),
        ("exit", "trap"),
        ("loop", "timeout"),
        ("clocks", "timeout"),
        ("grow 1073741824", "memory"),
        ("return 1073741824", "memory"),
        ("return 1048577", "output_too_large"),
        ("outputs 10001", "output_too_large"),
        ("deep 1000000000", "stack"),
        ("handles 5000", "handles"),
        ("random 4000000000", "protocol"),
        ("port 9", "reject"),
        ("attribute Subject=x", "reject"),
        (&format!("attribute subject={long}"), "refused"),
        ("answer 900", "protocol"),
        ("fail 900", "protocol"),
        ("current 900", "protocol"),
        ("reject", "reject"),
        ("retry", "retry"),
    ]
    .map(|(deed, failure)| (deed.to_owned(), failure))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misdeed_costs_its_own_event_and_no_other() {
    let bed = start(GENEROUS).await;
    let tree = &bed.tree;
    let (mut good, mut dead) = (Vec::new(), Vec::new());
    for (number, (deed, failure)) in misdeeds().into_iter().enumerate() {
        let name = |part: &str, n: usize| format!("{number}{part}{n}");
        let mut batch: Vec<_> = Vec::new();
        for part in ["a", "b"] {
            for n in 0..4 {
                let echo = format!("echo {}", name(part, n));
                batch.push(event(&name(part, n), "one", &echo));
                good.push(echo);
            }
        }
        batch.insert(4, event(&format!("bad{number}"), "one", &deed));
        tree.publisher().publish("in", &batch, None).await.unwrap();
        settled(tree).await;
        dead.push((format!("bad{number}"), failure.to_owned()));
        let out: Vec<_> = contents(tree, "out").await.concat();
        let out: Vec<_> = out.iter().map(|seen| seen.data().to_owned()).collect();
        assert_eq!(out, good, "{deed:.60}: the others are handled once, in their order");
        let letters = contents(tree, "hostile.dead").await.concat();
        let letters: Vec<_> =
            letters.iter().map(|seen| (seen.id().to_owned(), seen.attribute("wattlefailure"))).collect();
        assert_eq!(letters, dead, "{deed:.60}");
    }
    let below: Vec<_> = contents(tree, "below").await.concat();
    assert_eq!(below.iter().map(|seen| seen.data().to_owned()).collect::<Vec<_>>(), good, "a level further down");
    assert!(contents(tree, "under.dead").await.concat().is_empty());
    assert_eq!(status(&tree.snapshot(), "t/beside").handled, (good.len() + dead.len()) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_misdeeds_in_one_batch_of_every_lane_cost_their_events_and_no_other() {
    let bed = start(GENEROUS).await;
    let tree = &bed.tree;
    let (mut batch, mut good, mut dead) = (Vec::new(), Vec::new(), Vec::new());
    for key in ["k1", "k2", "k3", "k5"] {
        for (number, (deed, failure)) in misdeeds().into_iter().enumerate() {
            let echo = format!("echo {key} {number}");
            batch.push(event(&format!("{key}-good{number}"), key, &echo));
            good.push((key.to_owned(), echo));
            batch.push(event(&format!("{key}-bad{number}"), key, &deed));
            dead.push((key.to_owned(), format!("{key}-bad{number}"), failure.to_owned()));
        }
    }
    tree.publisher().publish("in", &batch, None).await.unwrap();
    settled(tree).await;
    let mut out: Vec<_> = contents(tree, "below").await.concat();
    out.sort_by(|one, other| one.key.cmp(&other.key)); // stable: the order within a key stays
    assert_eq!(out.iter().map(|seen| (seen.key.clone(), seen.data().to_owned())).collect::<Vec<_>>(), good);
    let mut letters = contents(tree, "hostile.dead").await.concat();
    letters.sort_by(|one, other| one.key.cmp(&other.key));
    let letters = letters.iter().map(|seen| (seen.key.clone(), seen.id().to_owned(), seen.attribute("wattlefailure")));
    assert_eq!(letters.collect::<Vec<_>>(), dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_log_lines_is_no_failure_and_holds_up_nobody() {
    let bed = start(Duration::from_secs(20)).await;
    let events = ["echo a", "log 100000", "line 4000000", "echo b"];
    let events: Vec<_> = events.iter().map(|data| event(data, "one", data)).collect();
    bed.tree.publisher().publish("in", &events, None).await.unwrap();
    settled(&bed.tree).await;
    let out = contents(&bed.tree, "out").await.concat();
    assert_eq!(out.iter().map(|seen| seen.data()).collect::<Vec<_>>(), ["echo a", "echo b"]);
    assert!(contents(&bed.tree, "hostile.dead").await.concat().is_empty());
}

/// A loop has seconds for each of its attempts. Everybody else is done before the first of them ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_delays_neither_its_sibling_nor_other_lanes() {
    let bed = start(Duration::from_secs(3)).await;
    let tree = &bed.tree;
    let looping =
        tree.publisher().publish("in", &[event("loop", "one", "loop")], None).await.unwrap().places[0].partition;
    until("it loops", || status(&tree.snapshot(), "t/hostile").lag == 1).await;
    let (mut behind, mut elsewhere) = (0, 0);
    for n in 0..300 {
        let name = format!("echo {n}");
        let places = tree.publisher().publish("in", &[event(&name, &name, &name)], None).await.unwrap().places;
        if places[0].partition == looping { behind += 1 } else { elsewhere += 1 }
    }
    assert!(behind > 0 && elsewhere > 0);
    until("the sibling", || status(&tree.snapshot(), "t/beside").handled == 301).await;
    until("other lanes", || status(&tree.snapshot(), "t/hostile").handled == elsewhere).await;
    until("what is under them", || status(&tree.snapshot(), "t/under").handled == elsewhere).await;
    assert!(contents(tree, "hostile.dead").await.concat().is_empty(), "the loop has ended meanwhile");
    settled(tree).await;
    assert_eq!(status(&tree.snapshot(), "t/hostile").handled, 301);
    let letters = contents(tree, "hostile.dead").await.concat();
    assert_eq!(letters.iter().map(|seen| seen.id()).collect::<Vec<_>>(), ["loop"]);
    assert!(tree.drain(PATIENCE).await);
}

/// A plugin that tells when it is called.
#[derive(Clone)]
struct Told {
    plugin: Plugin,
    called: Arc<Notify>,
}

impl Handler for Told {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        self.called.notify_one();
        Handler::handle(&self.plugin, batch).await
    }
}

/// What the plugin is on when the tree is told to stop is done again, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_a_loop_does_not_let_end_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(&["
wattle: v1
name: t
topics: { in: {}, out: {} }
subscribers:
  hostile: { from: in, plugin: hostile.wasm, to: [out], retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } } }
"]);
    let registered = |time| {
        tokio::task::spawn_blocking(move || {
            let mut spec = spec("hostile", &["out"]);
            spec.limits = Limits { time, ..Limits::default() };
            host().register(spec).unwrap()
        })
    };
    let (patient, strict) = (registered(Duration::from_secs(3_600)), registered(GENEROUS));
    let (patient, strict) = (patient.await.unwrap(), strict.await.unwrap());
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let called = Arc::new(Notify::new());
    let patient = Told { plugin: patient, called: called.clone() };
    let old = Tree::start(engine.clone(), &plan, vec![patient], &Handle::current()).await.unwrap();
    let events: Vec<_> = ["echo a", "loop", "echo b"].iter().map(|data| event(data, "one", data)).collect();
    old.publisher().publish("in", &events, None).await.unwrap();
    called.notified().await; // by now the lane is past the point at which it would have stopped instead
    assert!(!old.drain(Duration::from_millis(300)).await);
    let new = Tree::start(engine, &plan, vec![strict], &Handle::current()).await.unwrap();
    settled(&new).await;
    assert_eq!(data(&new, "out").await, ["echo a", "echo b"]);
    assert_eq!(only(&new, "hostile.dead").await.len(), 1);
}
