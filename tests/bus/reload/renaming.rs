//! Topologies that call things otherwise, with versions of plugins, and a crash at each step of it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use wattle::api::{Component, Policy, Proposal};
use wattle::deploy::{Reloader, Store, TopologyError, adopt, begin_with};
use wattle::dispatch::Tree;
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::log::LogOptions;
use wattle::topology::Plan;

use crate::common::random::Random;
use crate::common::trees::{data, event, only, plan_of, settled, status};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// [`ONE`] with other names for its root, for what it makes, and for who makes that.
fn renamed() -> String {
    ONE.replace("in: {", "orders: { renamed_from: in,")
        .replace("out: {}", "made: { renamed_from: out }")
        .replace("work: { from: in,", "check: { renamed_from: work, from: orders,")
        .replace("to: { out: out }", "to: { out: made }")
}

/// [`ONE`] with `more` beside `work`.
pub(crate) fn two() -> String {
    let more = "  more: { from: in, plugin: more.wasm, to: { out: extra } }\n";
    format!("{ONE}{more}").replace("out: {} }", "out: {}, extra: {} }")
}

/// One component for all.
fn components(world: &World, plan: &Plan) -> Vec<Component> {
    plan.subscribers.iter().map(|_| world.file().into()).collect()
}

pub(crate) fn proposal(world: &World, plan: &Plan) -> Proposal {
    Proposal { prune: true, ..Proposal::of(plan, &components(world, plan)) }
}

pub(crate) fn open(disk: &MemoryDisk) -> EmbeddedEngine {
    let options = LogOptions { file_bytes: 16 << 10, ..LogOptions::default() };
    EmbeddedEngine::open_with(Path::new("memory"), Arc::new(disk.clone()), Arc::new(SystemClock), options).unwrap()
}

/// Starts as a process does: with what files say, or with what was applied last.
pub(crate) async fn start<E: Engine>(
    engine: E,
    disk: MemoryDisk,
    world: &World,
    files: Option<&Plan>,
) -> Result<(Bus<E>, Plan), TopologyError> {
    let store = Store::open(disk, Arc::new(SystemClock))?;
    let (plan, components) = match files {
        Some(plan) => (plan.clone(), components(world, plan)),
        None => store.topology().unwrap(),
    };
    let (texts, begun) = (world.texts.clone(), (engine.clone(), plan.clone(), components));
    let runtime = Handle::current();
    let beginning = tokio::task::spawn_blocking(move || {
        let (engine, plan, components) = begun;
        let decide = |store: &mut Store| runtime.block_on(adopt(&engine, store, &plan, &components, (false, &[])));
        begin_with(store, &texts, &plan, &components, &|_| (), |store, _| decide(store).map_err(Began::Topology))
    });
    let begun = beginning.await.unwrap().map_err(|error| match error {
        Began::Topology(error) => error,
        Began::Versions(error) => TopologyError::Unreadable(error.to_string()),
    })?;
    let tree = Tree::start_with(engine, &plan, begun.starts, &Handle::current()).await;
    let tree = tree.map_err(TopologyError::Start)?;
    let versions = (begun.store, begun.notes);
    let reloader = Reloader::start(tree.clone(), world.texts.clone(), &plan, versions, &Handle::current());
    Ok((Bus { tree, reloader }, plan))
}

enum Began {
    Topology(TopologyError),
    Versions(wattle::deploy::BeginError),
}

impl From<wattle::deploy::BeginError> for Began {
    fn from(error: wattle::deploy::BeginError) -> Self {
        Self::Versions(error)
    }
}

pub(crate) async fn publish<E: Engine>(bus: &Bus<E>, topic: &str, name: &str) {
    bus.tree.publisher().publish(topic, &[event(name, name, name)], None).await.unwrap();
    settled(&bus.tree).await;
}

/// The disks of a bus, and how many times they were asked to change something.
pub(crate) struct Disks {
    pub(crate) log: MemoryDisk,
    pub(crate) plugins: MemoryDisk,
    operations: Arc<AtomicUsize>,
}

impl Disks {
    pub(crate) fn new() -> Self {
        Self { log: MemoryDisk::default(), plugins: MemoryDisk::default(), operations: Arc::default() }
    }

    /// The power goes in front of this operation, of either of them.
    pub(crate) fn fail_at(&self, crash_at: usize) {
        for disk in [&self.log, &self.plugins] {
            let counted = self.operations.clone();
            disk.set_fault(move |operation| match operation {
                Operation::Read(_) => Ok(()),
                _ if counted.fetch_add(1, Ordering::SeqCst) < crash_at => Ok(()),
                _ => Err(io::Error::other("the power is gone")),
            });
        }
    }

    /// Whether the power has gone.
    pub(crate) fn has_failed(&self, crash_at: usize) -> bool {
        self.operations.load(Ordering::SeqCst) > crash_at
    }

    pub(crate) fn after_crash(&self, random: &mut Random) -> (MemoryDisk, MemoryDisk) {
        (self.log.after_crash(|| random.one_in(2)), self.plugins.after_crash(|| random.one_in(2)))
    }
}

/// A bus that has run for a while: by a version that no file has any more, with a dead letter and an output.
async fn begun(world: &World, disks: &Disks) -> Bus<EmbeddedEngine> {
    let before = plan_of(&[ONE]);
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), world, Some(&before)).await.unwrap();
    assert_eq!(bus.deploy("b reject=bad", Policy::Replace).await, wattle::api::DeployOutcome::Runs);
    publish(&bus, "in", "1").await;
    publish(&bus, "in", "bad").await;
    bus
}

pub(crate) async fn ends(bus: Bus<EmbeddedEngine>) {
    bus.reloader.stop().await;
    assert!(bus.tree.drain(Duration::from_secs(60)).await);
    bus.tree.engine().close().await.unwrap();
}

/// What is found after a crash is one of the two, whole: nothing is twice, nothing left out.
async fn holds(world: &World, (log, plugins): (MemoryDisk, MemoryDisk), is_decided: bool, context: &str) -> bool {
    let (bus, found) = start(open(&log), plugins.clone(), world, None).await.unwrap();
    let is_renamed = found == plan_of(&[&renamed()]);
    assert!(is_renamed || found == plan_of(&[ONE]) && !is_decided, "{context}: {found:?}");
    let [root, made, who, gone] = match is_renamed {
        true => ["orders", "made", "check", "in"],
        false => ["in", "out", "work", "orders"],
    };
    publish(&bus, root, "2").await;
    assert_eq!(data(&bus.tree, made).await, ["b 1", "b 2"], "{context}");
    assert_eq!(data(&bus.tree, root).await, ["1", "bad", "2"], "{context}");
    assert_eq!(only(&bus.tree, &format!("{who}.dead")).await.len(), 1, "{context}");
    assert_eq!(bus.reloader.versions(who).unwrap().len(), 2, "{context}");
    assert_eq!(bus.tree.engine().topic(&format!("t/{gone}")), None, "{context}: no other one was made");
    assert!(bus.reloader.retired().is_empty(), "{context}");
    assert!(bus.reloader.collect(false).await.unwrap().is_empty(), "{context}");
    ends(bus).await;
    // A start with the file that says it goes on to the end of it, and once that is done the file says nothing any
    // more.
    for number in 3..5 {
        let (bus, _) = start(open(&log), plugins.clone(), world, Some(&plan_of(&[&renamed()]))).await.unwrap();
        publish(&bus, "orders", &number.to_string()).await;
        let made = data(&bus.tree, "made").await;
        assert_eq!((made.len(), made[0].as_str()), (number, "b 1"), "{context}: {made:?}");
        ends(bus).await;
    }
    is_renamed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_rename_that_is_applied_leaves_one_of_the_two_names() {
    let (mut random, after, mut behind) = (Random::of("renaming"), plan_of(&[&renamed()]), 0);
    for crash_at in 0.. {
        let (world, disks) = (World::of(ONE, "a", LONG), Disks::new());
        let bus = begun(&world, &disks).await;
        disks.fail_at(crash_at);
        let result = bus.reloader.apply(proposal(&world, &after), false).await;
        let operations = disks.operations.load(Ordering::SeqCst);
        bus.reloader.stop().await;
        bus.tree.drain(Duration::from_secs(60)).await;
        for _ in 0..4 {
            let left = disks.after_crash(&mut random);
            let is_renamed = holds(&world, left, result.is_ok(), &format!("crash at {crash_at}: {result:?}")).await;
            behind += usize::from(result.is_err() && is_renamed);
        }
        if result.is_ok() && operations <= crash_at {
            assert!(crash_at >= 8, "two files with their names, and the engine's entry: {crash_at}");
            break;
        }
    }
    assert!(behind > 0, "a crash behind the decision is among them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_start_that_renames_leaves_one_of_the_two_names() {
    let (mut random, after, mut behind) = (Random::of("renaming at a start"), plan_of(&[&renamed()]), 0);
    for crash_at in 0.. {
        let (world, mut disks) = (World::of(ONE, "a", LONG), Disks::new());
        let bus = begun(&world, &disks).await;
        ends(bus).await;
        disks = Disks { log: disks.log.after_crash(|| true), plugins: disks.plugins.after_crash(|| true), ..disks };
        // What an engine does when it is opened is not what this is about.
        let engine = open(&disks.log);
        disks.fail_at(crash_at);
        let result = start(engine, disks.plugins.clone(), &world, Some(&after)).await;
        let operations = disks.operations.load(Ordering::SeqCst);
        let is_decided = result.is_ok();
        if let Ok((bus, _)) = result {
            bus.reloader.stop().await;
            bus.tree.drain(Duration::from_secs(60)).await;
        }
        for _ in 0..4 {
            let left = disks.after_crash(&mut random);
            behind +=
                usize::from(holds(&world, left, is_decided, &format!("crash at {crash_at}")).await && !is_decided);
        }
        if is_decided && operations <= crash_at {
            break;
        }
    }
    assert!(behind > 0, "a crash behind the decision is among them");
}

async fn in_memory(world: &World, yaml: &str) -> Bus {
    start(world.engine.clone(), world.disk.clone(), world, Some(&plan_of(&[yaml]))).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_go_on_by_the_new_name_also_one_on_trial() {
    let world = World::of(ONE, "a", LONG);
    let bus = in_memory(&world, ONE).await;
    bus.deploy("b", Policy::Replace).await;
    bus.deploy("c", Policy::Swap).await;
    let was = status(&bus.tree.snapshot(), "t/work");
    bus.reloader.apply(proposal(&world, &plan_of(&[&renamed()])), false).await.unwrap();
    let now = status(&bus.tree.snapshot(), "t/check");
    assert_eq!((now.digest, now.on_trial.unwrap().digest), (was.digest, was.on_trial.unwrap().digest));
    assert_eq!(bus.reloader.list().len(), 1);
    assert_eq!(bus.reloader.list()[0].subscriber, "t/check");
    assert_eq!(bus.reloader.versions("check").unwrap().len(), 3);
    assert!(bus.reloader.versions("work").is_err());
    bus.reloader.rollback("check").await.unwrap();
    bus.reloader.rollback("check").await.unwrap();
    publish(&bus, "orders", "1").await;
    assert_eq!(data(&bus.tree, "made").await, ["a 1"]);
    bus.stop().await;
    let bus = in_memory(&world, &renamed()).await;
    publish(&bus, "orders", "2").await;
    assert_eq!(data(&bus.tree, "made").await, ["a 1", "a 2"]);
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_gone_is_found_again_by_its_topics_new_name() {
    let world = World::of(ONE, "a", LONG);
    let bus = in_memory(&world, &two()).await;
    publish(&bus, "in", "1").await;
    bus.reloader.apply(proposal(&world, &plan_of(&[ONE])), true).await.unwrap();
    let renamed = |yaml: &str| yaml.replace("from: in", "from: orders").replace("in: {", "orders: { renamed_from: in,");
    bus.reloader.apply(proposal(&world, &plan_of(&[&renamed(ONE)])), false).await.unwrap();
    publish(&bus, "orders", "2").await;
    assert_eq!(bus.reloader.retired()[0].from, "t/orders");
    let loss = bus.reloader.collect(false).await.unwrap_err().to_string();
    assert!(loss.contains("1 events of t/orders"), "{loss}");
    bus.reloader.apply(proposal(&world, &plan_of(&[&renamed(&two())])), false).await.unwrap();
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "extra").await, ["a 1", "a 2"], "from its place");
    assert!(bus.reloader.retired().is_empty());
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_whose_place_is_kept_is_not_taken() {
    let world = World::of(ONE, "a", LONG);
    let bus = in_memory(&world, &two()).await;
    publish(&bus, "in", "1").await;
    bus.reloader.apply(proposal(&world, &plan_of(&[ONE])), true).await.unwrap();
    let taking = plan_of(&[&ONE.replace("work: {", "more: { renamed_from: work,")]);
    let refusals = bus.reloader.changes(&proposal(&world, &taking)).unwrap().refusals;
    assert!(refusals[0].contains("`t/more`") && refusals[0].contains("wattle gc"), "{refusals:?}");
    let refused = bus.reloader.apply(proposal(&world, &taking), true).await.unwrap_err();
    assert!(matches!(refused, TopologyError::Refused(_)), "{refused}");
    bus.stop().await;
    let refused = start(world.engine.clone(), world.disk.clone(), &world, Some(&taking)).await.map(drop).unwrap_err();
    assert!(matches!(refused, TopologyError::Refused(_)), "{refused}");
    let bus = in_memory(&world, ONE).await;
    bus.reloader.collect(true).await.unwrap();
    bus.reloader.apply(proposal(&world, &taking), false).await.unwrap();
    publish(&bus, "in", "2").await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"], "its own place, not that of the one that is gone");
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_refused_leaves_the_versions_of_who_is_gone() {
    let world = World::of(ONE, "a", LONG);
    let bus = in_memory(&world, &two()).await;
    bus.deploy("b", Policy::Replace).await; // of `work` alone
    bus.reloader.apply(proposal(&world, &plan_of(&[ONE])), true).await.unwrap();
    bus.stop().await;
    let taking = plan_of(&[&ONE.replace("work: {", "more: { renamed_from: work,")]);
    let refused = start(world.engine.clone(), world.disk.clone(), &world, Some(&taking)).await.map(drop).unwrap_err();
    assert!(matches!(refused, TopologyError::Refused(_)), "{refused}");
    let bus = in_memory(&world, &two()).await;
    assert_eq!(bus.reloader.versions("work").unwrap().len(), 2);
    assert_eq!(bus.reloader.versions("more").unwrap().len(), 1, "its own, not those of the other one");
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_does_not_take_the_name_of_one_whose_subscribers_are_kept() {
    let world = World::of(ONE, "a", LONG);
    let more = "  more: { from: side, plugin: more.wasm, to: { out: extra } }\n";
    let beside = format!("{ONE}{more}").replace("out: {} }", "out: {}, side: { partitions: 2 }, extra: {} }");
    let bus = in_memory(&world, &beside).await;
    publish(&bus, "in", "1").await;
    bus.reloader.apply(proposal(&world, &plan_of(&[ONE])), true).await.unwrap();
    let taking = plan_of(&[&ONE.replace("from: in", "from: side").replace("in: {", "side: { renamed_from: in,")]);
    let refused = bus.reloader.apply(proposal(&world, &taking), true).await.unwrap_err().to_string();
    assert!(refused.contains("`t/side`") && refused.contains("`t/more`") && refused.contains("wattle gc"), "{refused}");
    bus.reloader.collect(true).await.unwrap();
    bus.reloader.apply(proposal(&world, &taking), true).await.unwrap();
    assert_eq!(data(&bus.tree, "side").await, ["1"], "the events came along");
    assert!(bus.reloader.collect(false).await.unwrap().is_empty());
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_nothing_makes_what_is_called_so_and_one_that_does_not_know_refuses() {
    let world = World::of(ONE, "a", LONG);
    let bus = in_memory(&world, &renamed()).await;
    publish(&bus, "orders", "1").await;
    assert_eq!(data(&bus.tree, "made").await, ["a 1"]);
    bus.stop().await;
    // An engine that has the old names, and nobody who remembers what ran.
    let old = World::of(ONE, "a", LONG);
    let bus = in_memory(&old, ONE).await;
    publish(&bus, "in", "1").await;
    bus.stop().await;
    let (engine, after) = (old.engine.clone(), plan_of(&[&renamed()]));
    let refused = start(engine.clone(), MemoryDisk::default(), &old, Some(&after)).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("`t/in` is in the data folder"), "{refused}");
    assert_eq!(engine.topic("t/orders"), None, "nothing was made");
    start(MemoryEngine::default(), MemoryDisk::default(), &old, Some(&after)).await.unwrap().0.stop().await;
}
