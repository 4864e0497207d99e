//! Topologies that are applied while they run, with versions of plugins, and a crash at each step of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use wattle::api::{Component, DeployOutcome, Digest, Garbage, Policy, Proposal, SnapshotCause};
use wattle::deploy::{
    BeginError, ReloadError, Reloader, SecretFolders, Store, StoreError, TopologyError, adopt, begin,
};
use wattle::dispatch::Tree;
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::topology::Plan;

use crate::common::random::Random;
use crate::common::trees::{data, plan_of, plan_with, settled, status, until};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// [`ONE`] with `more` beside `work`, another retry of `work`, and nothing else.
pub(crate) fn two() -> Plan {
    let more = "  more: { from: in, plugin: more.wasm, to: { out: extra } }\n";
    plan_of(&[&format!("{ONE}{more}").replace("out: {} }", "out: {}, extra: {} }")])
}

fn changed() -> Plan {
    plan_of(&[&ONE.replace("attempts: 2", "attempts: 3").replace("to: {", "config: { a: b }, to: {")])
}

/// A component for each subscriber of a plan, by its name.
pub(crate) fn components(world: &World, plan: &Plan) -> Vec<Component> {
    let path = |name: &str| Component::File(world.folder.path().join(format!("{name}.wasm")));
    plan.subscribers.iter().map(|subscriber| path(&subscriber.name)).collect()
}

pub(crate) fn proposal(world: &World, plan: &Plan) -> Proposal {
    Proposal { prune: true, ..Proposal::of(plan, &components(world, plan)) }
}

pub(crate) fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.folder.path().join(format!("{name}.wasm")), text).unwrap();
}

/// Starts with what was applied last; what the world says where nothing was.
pub(crate) async fn start(world: &World, disk: MemoryDisk) -> (Bus, Plan) {
    let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
    let (plan, components) = store.topology().unwrap_or_else(|| (world.plan.clone(), components(world, &world.plan)));
    let begun = begin(store, &world.texts, &plan, &components, &|_| ()).unwrap();
    let tree: Tree<MemoryEngine> =
        Tree::start_with(world.engine.clone(), &plan, begun.starts, &Handle::current()).await.unwrap();
    let (versions, runtime) = ((begun.store, begun.notes), Handle::current());
    let reloader = Reloader::start(tree.clone(), world.texts.clone(), &plan, versions, &runtime);
    (Bus { tree, reloader }, plan)
}

#[test]
fn what_is_proposed_is_read_again_without_its_files() {
    let text =
        ONE.replace("in: {", "in: { schema: a.json, ").replace("plugin: work.wasm", "plugin: work.wasm, start: latest");
    let plan =
        plan_with(&[&text, "wattle: v1\nname: other\ntopics: { a: {} }"], &[("a.json", "{ \"type\": \"object\" }")]);
    let proposal = Proposal::of(&plan, &["/there/work.wasm"]);
    assert_eq!(proposal.read().unwrap(), (plan, vec!["/there/work.wasm".into()]));
    let without = Proposal { components: Default::default(), ..proposal };
    assert!(without.read().unwrap_err().to_string().contains("no component for `t/work`"));
}

#[tokio::test]
async fn a_subscriber_is_added_and_its_plugin_is_changed_and_taken_out_again() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m");
    let (bus, before) = start(&world, world.disk.clone()).await;
    bus.publish(&["1"]).await;
    let changes = bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    assert!(!changes.is_empty());
    bus.publish(&["2"]).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2"]);
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"]);
    let deployed = bus.reloader.deploy("more", b"n".to_vec(), Policy::Replace, "a test").await.unwrap();
    assert_eq!(deployed.outcome, DeployOutcome::Runs);
    bus.publish(&["3"]).await;
    assert_eq!(data(&bus.tree, "extra").await.last().unwrap(), "n 3");
    let loss = bus.reloader.apply(proposal(&world, &before), false).await.unwrap_err();
    assert!(
        matches!(&loss, TopologyError::Loss(losses) if losses[0].contains("`t/extra` still has 3 events")),
        "{loss}"
    );
    assert_eq!(bus.tree.plan(), two(), "nothing has changed");
    bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
    assert_eq!(bus.tree.plan(), before);
    assert_eq!(bus.reloader.list().len(), 1);
    assert_eq!(bus.reloader.retired()[0].name, "t/more");
    bus.publish(&["4"]).await;
    // It comes back, to its place and the version that was decided on, and the plan says so.
    let planned = bus.reloader.changes(&proposal(&world, &two())).unwrap();
    let words = |name: &str| &planned.changes.iter().find(|change| change.name == name).unwrap().words;
    assert_eq!(
        words("t/more")[0],
        "comes back: it continues in t/in at its position, with its stored data; lag: 1 events"
    );
    assert_eq!(words("t/extra")[1], "it was removed before, and comes back with its 3 events");
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2", "n 3", "n 4"]);
    assert!(bus.reloader.retired().is_empty());
    bus.stop().await;
}

/// Asks for something: its caller, once it has been handed in.
async fn ask<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let is_handed_in = Arc::new(AtomicBool::new(false));
    let asked = {
        let is_handed_in = is_handed_in.clone();
        tokio::spawn(async move {
            is_handed_in.store(true, Ordering::SeqCst);
            work.await
        })
    };
    until("it is handed in", || is_handed_in.load(Ordering::SeqCst)).await;
    asked
}

/// A caller goes away.
async fn leave<T>(caller: JoinHandle<T>) {
    caller.abort();
    assert!(caller.await.is_err());
}

#[tokio::test]
async fn what_waits_for_its_turn_is_given_up_where_its_caller_goes_away() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m");
    let (bus, before) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
    assert_eq!(bus.reloader.retired().len(), 1);
    let compiled = world.texts.begun.load(Ordering::SeqCst);
    world.texts.shut(true);
    let deploying = {
        let reloader = bus.reloader.clone();
        tokio::spawn(async move { reloader.deploy("work", b"b".to_vec(), Policy::Replace, "a test").await })
    };
    until("it compiles", || world.texts.begun.load(Ordering::SeqCst) > compiled).await;
    // what changes `work` has to wait for that, and the other for both
    let (applier, collector) = (bus.reloader.clone(), bus.reloader.clone());
    let changed = proposal(&world, &changed());
    let last = {
        let (reloader, same) = (bus.reloader.clone(), proposal(&world, &before));
        let first = ask(async move { applier.apply(changed, true).await }).await;
        let second = ask(async move { collector.collect(true).await }).await;
        // The second before the first, which would let it begin.
        leave(second).await;
        leave(first).await;
        tokio::spawn(async move { reloader.apply(same, false).await })
    };
    world.texts.shut(false);
    deploying.await.unwrap().unwrap();
    last.await.unwrap().unwrap(); // behind all of them
    assert_eq!(bus.tree.plan(), before, "it was not applied");
    assert_eq!(bus.reloader.retired().len(), 1, "nothing was forgotten");
    assert_eq!(bus.who().await, "b");
    bus.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_goes_back_to_a_topic_continues_there_and_the_plan_says_so() {
    let text = ONE.replace("topics: {", "topics: { other: { partitions: 1 },");
    let (here, there) = (plan_of(&[&text]), plan_of(&[&text.replace("from: in", "from: other")]));
    let world = World::of(&text, "a", LONG);
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.publish(&["1"]).await;
    let words = |plan: &Plan| {
        let planned = bus.reloader.changes(&proposal(&world, plan)).unwrap();
        planned.changes.into_iter().find(|change| change.name == "t/work").unwrap().words
    };
    assert_eq!(words(&there)[0], "takes from t/other, all stored events");
    assert!(words(&there).contains(&"it begins without either".to_owned()));
    bus.reloader.apply(proposal(&world, &there), true).await.unwrap();
    assert_eq!(
        words(&here)[0],
        "comes back: it continues in t/in at its position, with its stored data; lag: 0 events"
    );
    assert!(words(&here).contains(&"its stored data, and its position in t/other, stay until `wattle gc`".to_owned()));
    assert!(!words(&here).contains(&"it begins without either".to_owned()));
    bus.reloader.apply(proposal(&world, &here), true).await.unwrap();
    assert_eq!(data(&bus.tree, "out").await, ["a 1"]);
    bus.stop().await;
}

fn names(garbage: Vec<Garbage>) -> Vec<String> {
    garbage.into_iter().map(|of| of.name).collect()
}

#[tokio::test]
async fn what_is_kept_of_one_that_is_gone_is_forgotten_when_that_is_asked_for() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m");
    let (bus, before) = start(&world, world.disk.clone()).await;
    assert!(bus.reloader.collect(false).await.unwrap().is_empty(), "there is nothing");
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    bus.publish(&["1"]).await;
    bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
    bus.publish(&["2"]).await;
    let loss = bus.reloader.collect(false).await.unwrap_err();
    let words =
        "`t/more` has not handled 1 events of t/in, has handled 1 that it would get again, and stores 0 entries";
    assert!(matches!(&loss, TopologyError::Loss(losses) if losses[0] == words), "{loss}");
    assert_eq!(bus.reloader.retired().len(), 1, "it is remembered");
    assert_eq!(names(bus.reloader.collect(true).await.unwrap()), ["t/more", "t/extra", "t/more.dead"]);
    assert!(bus.reloader.retired().is_empty());
    // It is new when it comes back: it begins where it says.
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2"]);
    bus.stop().await;
}

#[tokio::test]
async fn a_changed_configuration_is_another_version_that_is_tried() {
    let world = World::of(ONE, "a", LONG);
    let (bus, before) = start(&world, world.disk.clone()).await;
    let was = status(&bus.tree.snapshot(), "t/work").digest;
    bus.reloader.apply(proposal(&world, &changed()), false).await.unwrap();
    let now = status(&bus.tree.snapshot(), "t/work");
    let trial = now.on_trial.expect("it is compared with the one before");
    assert_eq!(now.digest, was);
    assert_ne!(trial.digest, was);
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(bus.who().await, "a");
    let planned = bus.reloader.changes(&proposal(&world, &before)).unwrap();
    let last = planned.changes[0].words.last().unwrap();
    assert!(last.contains("has these settings already"), "nothing comes on trial: {last}");
    bus.stop().await;
}

#[tokio::test]
async fn a_version_that_a_topology_brings_has_the_state_from_before_it_in_a_snapshot() {
    let world = World::of(ONE, "a keeps", LONG);
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.publish(&["1"]).await;
    let was = bus.status().digest;
    bus.reloader.apply(proposal(&world, &changed()), false).await.unwrap();
    let taken = bus.tree.subscriber("work").unwrap().snapshots().list().unwrap();
    assert_eq!(
        taken.iter().map(|taken| (taken.by, &taken.digest)).collect::<Vec<_>>(),
        [(SnapshotCause::Deploy, &was)]
    );
    assert_eq!(bus.status().reload, None);
    bus.stop().await;
}

#[tokio::test]
async fn who_comes_back_with_another_version_has_the_state_from_before_it_in_a_snapshot() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m keeps");
    let (bus, before) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    bus.publish(&["1"]).await;
    let was = status(&bus.tree.snapshot(), "t/more").digest;
    bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
    write(&world, "more", "n keeps");
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    let taken = bus.tree.subscriber("more").unwrap().snapshots().list().unwrap();
    assert_eq!(
        taken.iter().map(|taken| (taken.by, &taken.digest)).collect::<Vec<_>>(),
        [(SnapshotCause::Deploy, &was)]
    );
    assert!(bus.tree.subscriber("work").unwrap().snapshots().list().unwrap().is_empty(), "it goes on as it is");
    bus.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_changes_nothing() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "bad");
    let (bus, before) = start(&world, world.disk.clone()).await;
    let error = bus.reloader.apply(proposal(&world, &two()), false).await.unwrap_err();
    assert!(matches!(error, TopologyError::Plugins(_)), "{error}");
    let wider = plan_of(&[&ONE.replace("partitions: 1", "partitions: 2")]);
    let error = bus.reloader.apply(proposal(&world, &wider), true).await.unwrap_err();
    assert!(matches!(error, TopologyError::Refused(_)), "{error}");
    let nonsense = Proposal { documents: vec!["wattle: v2".into()], ..Proposal::default() };
    let error = bus.reloader.apply(nonsense, true).await.unwrap_err();
    assert!(matches!(error, TopologyError::Unreadable(_)), "{error}");
    assert_eq!(bus.tree.plan(), before);
    assert_eq!(bus.who().await, "a");
    assert!(
        Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap().topology().is_none(),
        "nothing was decided"
    );
    bus.stop().await;
}

#[tokio::test]
async fn after_a_crash_at_any_step_the_old_topology_runs_or_the_new_one_as_a_whole() {
    let mut random = Random::of("applying");
    for new in [two(), changed()] {
        let mut decided = 0;
        for crash_at in 0.. {
            let world = World::of(ONE, "a", LONG);
            write(&world, "more", "m");
            let (bus, before) = start(&world, world.disk.clone()).await;
            // what was applied before is on the disk
            bus.reloader.apply(proposal(&world, &before), false).await.unwrap();
            bus.publish(&["1"]).await;
            let operations = Arc::new(AtomicUsize::new(0));
            let counted = operations.clone();
            world.disk.set_fault(move |operation| match operation {
                Operation::Read(_) => Ok(()),
                _ if counted.fetch_add(1, Ordering::SeqCst) < crash_at => Ok(()),
                _ => Err(io::Error::other("the power is gone")),
            });
            let result = bus.reloader.apply(proposal(&world, &new), false).await;
            let runs = bus.tree.plan();
            assert_eq!(runs, if result.is_ok() { new.clone() } else { before.clone() }, "{crash_at}");
            bus.publish(&["2"]).await;
            bus.stop().await;
            for crash in 0..8 {
                // all of what was not synced, nothing of it, and parts
                let disk = world.disk.after_crash(|| match crash {
                    0 | 1 => crash == 0,
                    _ => random.one_in(2),
                });
                let (bus, found) = start(&world, disk).await;
                assert!(found == before || found == new, "{crash_at}: {found:?}");
                assert!(result.is_err() || found == new, "{crash_at}: what was acknowledged runs");
                decided += usize::from(result.is_err() && found == new);
                settled(&bus.tree).await;
                let out = data(&bus.tree, "out").await;
                assert_eq!(out[..2], ["a 1", "a 2"], "{crash_at}: nothing twice, nothing left out");
                if bus.tree.publisher().targets().find("extra").is_ok() {
                    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2"], "{crash_at}");
                }
                bus.stop().await;
            }
            if result.is_ok() && operations.load(Ordering::SeqCst) <= crash_at {
                assert!(crash_at >= 4, "a file, its sync, its name and the sync of that: {crash_at}");
                break;
            }
        }
        assert!(decided > 0, "a crash behind the decision is among them");
    }
}

#[tokio::test]
async fn a_record_that_is_not_as_it_was_written_is_said() {
    let world = World::of(ONE, "a", LONG);
    let (bus, before) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &before), false).await.unwrap();
    bus.stop().await;
    let disk: &dyn wattle::effects::Disk = &world.disk;
    disk.open("topology").unwrap().write_at(b"x", 100).unwrap();
    let error = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap_err();
    assert!(matches!(error, StoreError::DamagedTopology { .. }), "{error}");
    assert!(matches!(BeginError::from(error), BeginError::Store(_)));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_refused_alike_by_a_plan_an_apply_and_a_start() {
    const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;
    let world = World::of(&ONE.replace("in: {", "in: { retention: { age: 30d },"), "a", LONG);
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &world.plan), false).await.unwrap();
    world.engine.hold_clock(DAY_NS);
    bus.publish(&["1", "2"]).await;
    world.engine.hold_clock(8 * DAY_NS);
    let shorter = plan_of(&[&ONE.replace("in: {", "in: { retention: { age: 1h },")]);
    let said = bus.reloader.changes(&proposal(&world, &shorter)).unwrap().losses;
    assert!(said.len() == 1 && said[0].contains("has up to 2 events beyond `retention: { age: 1h }`"), "{said:?}");
    let refused = bus.reloader.apply(proposal(&world, &shorter), false).await.unwrap_err();
    assert!(matches!(&refused, TopologyError::Loss(losses) if *losses == said), "{refused}");
    assert!(refused.to_string().contains("--allow-loss"), "{refused}");
    bus.stop().await;
    let mut store = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap();
    let files = components(&world, &shorter);
    let refused = adopt(&world.engine, &mut store, &shorter, &files, (false, &[])).await.unwrap_err();
    assert!(matches!(&refused, TopologyError::Loss(losses) if *losses == said), "{refused}");
    assert_eq!(store.topology().unwrap().0, world.plan, "nothing was decided");
    adopt(&world.engine, &mut store, &shorter, &files, (true, &[])).await.unwrap();
    assert_eq!(store.topology().unwrap().0, shorter);
}

/// A plan without `work`, and one in which it is called otherwise, each with something that is compiled first.
fn without_work() -> [Plan; 2] {
    let text = format!("{ONE}  more: {{ from: in, plugin: more.wasm, to: {{ out: extra }} }}\n");
    let text = text.replace("out: {} }", "out: {}, extra: {} }");
    let (head, work) = text.split_once("  work: ").unwrap();
    let more = work.split_once('\n').unwrap().1;
    let renamed = text.replace("  work: {", "  labour: { renamed_from: work,");
    [plan_of(&[&format!("{head}{more}")]), plan_of(&[&renamed])]
}

#[tokio::test]
async fn what_waits_behind_an_apply_is_not_done_to_a_subscriber_that_is_gone_by_then() {
    for after in without_work() {
        let world = World::of(ONE, "a", LONG);
        write(&world, "more", "m");
        write(&world, "labour", "a");
        let (bus, _) = start(&world, world.disk.clone()).await;
        bus.reloader.deploy("work", b"b".to_vec(), Policy::Replace, "a test").await.unwrap();
        let versions = bus.reloader.versions("work").unwrap().len();
        world.texts.shut(true);
        let compiled = world.texts.begun.load(Ordering::SeqCst);
        let applying = {
            let (reloader, proposal) = (bus.reloader.clone(), proposal(&world, &after));
            tokio::spawn(async move { reloader.apply(proposal, true).await })
        };
        until("it holds the turns", || world.texts.begun.load(Ordering::SeqCst) > compiled).await;
        let deploying = {
            let reloader = bus.reloader.clone();
            tokio::spawn(async move { reloader.deploy("work", b"c".to_vec(), Policy::Replace, "a test").await })
        };
        let others = {
            let (one, other) = (bus.reloader.clone(), bus.reloader.clone());
            let back = tokio::spawn(async move { one.rollback("work").await.map(drop) });
            let pin = tokio::spawn(async move { other.pin("work", None).await.map(drop) });
            [back, pin]
        };
        until("it waits", || bus.reloader.waiting("work").unwrap() == 1).await;
        world.texts.shut(false);
        applying.await.unwrap().unwrap();
        let error = deploying.await.unwrap().unwrap_err();
        assert!(matches!(error, ReloadError::Control(_)), "{error}");
        for other in others {
            let error = other.await.unwrap().unwrap_err();
            assert!(matches!(error, ReloadError::Control(_)), "{error}");
        }
        let c = format!("{}.wasm", Digest::of(b"c"));
        assert!(!world.disk.contents().contains_key(&c), "nothing of it is kept");
        // it comes back as what it was
        let back = plan_of(&[&ONE.replace("work: {", "work: { renamed_from: labour,")]);
        bus.reloader.apply(proposal(&world, &back), true).await.unwrap();
        assert_eq!(bus.reloader.versions("work").unwrap().len(), versions);
        assert_eq!(bus.who().await, "b");
        bus.stop().await;
    }
}

#[tokio::test]
async fn what_was_decided_and_is_not_called_is_said_to_be_so() {
    let world = World::of(ONE, "a", LONG);
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.tree.engine().close().await.unwrap();
    let error = bus.reloader.deploy("work", b"b".to_vec(), Policy::Replace, "a test").await.unwrap_err();
    assert!(matches!(error, ReloadError::NotCalled { .. }), "{error}");
    let error = bus.reloader.deploy("work", b"c".to_vec(), Policy::Swap, "a test").await.unwrap_err();
    assert!(matches!(error, ReloadError::NotCalled { .. }), "{error}");
    bus.reloader.stop().await;
}

#[tokio::test]
async fn what_is_to_be_forgotten_is_gone_on_with_after_it_broke_off() {
    for is_restarted in [false, true] {
        let world = World::of(ONE, "a", LONG);
        write(&world, "more", "m keeps");
        let (bus, before) = start(&world, world.disk.clone()).await;
        bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
        bus.publish(&["1"]).await;
        bus.tree.subscriber("more").unwrap().snapshots().take(SnapshotCause::Hand, "", 8).await.unwrap();
        bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
        let snapshots = world.engine.snapshot_disk();
        snapshots.set_fault(|operation| match operation {
            Operation::Remove => Err(io::Error::other("not now")),
            _ => Ok(()),
        });
        let loss = bus.reloader.collect(false).await.unwrap_err().to_string();
        assert!(loss.contains("and stores 2 entries, and 1 snapshots"), "{loss}");
        assert_eq!(bus.reloader.retired().len(), 1, "nothing was decided");
        let error = bus.reloader.collect(true).await.unwrap_err();
        assert!(matches!(error, TopologyError::Collect(_)), "{error}");
        assert!(bus.reloader.retired().is_empty(), "that it is forgotten is decided");
        snapshots.clear_fault();
        let bus = if is_restarted {
            bus.stop().await;
            let (bus, _) = start(&world, world.disk.clone()).await;
            until("it goes on", || snapshots.contents().is_empty()).await;
            bus
        } else {
            assert_eq!(names(bus.reloader.collect(false).await.unwrap()), ["t/more"], "it was allowed");
            bus
        };
        assert!(snapshots.contents().is_empty());
        assert!(bus.reloader.collect(false).await.unwrap().is_empty(), "there is nothing left to forget");
        bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
        settled(&bus.tree).await;
        assert_eq!(data(&bus.tree, "extra").await, ["m 1"], "it is new");
        bus.stop().await;
    }
}

#[tokio::test]
async fn who_comes_back_while_it_is_to_be_forgotten_is_new_and_stays() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m keeps");
    let (bus, before) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    bus.publish(&["1"]).await;
    bus.tree.subscriber("more").unwrap().snapshots().take(SnapshotCause::Hand, "", 8).await.unwrap();
    bus.reloader.apply(proposal(&world, &before), true).await.unwrap();
    let snapshots = world.engine.snapshot_disk();
    snapshots.set_fault(|operation| match operation {
        Operation::Remove => Err(io::Error::other("not now")),
        _ => Ok(()),
    });
    bus.reloader.collect(true).await.unwrap_err();
    bus.reloader.apply(proposal(&world, &two()), false).await.unwrap();
    settled(&bus.tree).await;
    snapshots.clear_fault();
    assert!(bus.reloader.collect(true).await.unwrap().is_empty(), "what runs is not forgotten");
    bus.publish(&["2"]).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2"]);
    assert!(!bus.tree.subscriber("more").unwrap().state().get(("b", "last"), 0).unwrap().0.is_empty());
    bus.stop().await;
}

#[tokio::test]
async fn secrets_are_named_below_the_folders_of_the_start_only() {
    let home = tempfile::tempdir().unwrap();
    let [inside, outside] = ["inside", "outside"].map(|name| home.path().join(name));
    for folder in [&inside, &outside] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("token"), "hunter2").unwrap();
    }
    std::fs::write(outside.join("of-the-start"), "hunter2").unwrap();
    std::os::unix::fs::symlink(outside.join("token"), inside.join("link")).unwrap();
    let text = |path: &std::path::Path| {
        let config = format!("config: {{ token: {{ file: {:?} }} }}, to: {{ out: out }}", path.display().to_string());
        ONE.replace("to: { out: out }", &config)
    };
    let mut world = World::of(ONE, "a", LONG);
    world.plan = plan_of(&[&text(&outside.join("of-the-start"))]);
    let (bus, _) = start(&world, world.disk.clone()).await;
    let with = |path: PathBuf| Proposal::of(&plan_of(&[&text(&path)]), &[world.file()]);
    // without a folder none is named anew
    assert_eq!(bus.reloader.changes(&with(inside.join("token"))).unwrap().refusals.len(), 1);
    bus.reloader.keep_secrets_below(SecretFolders::new([inside.clone()]));
    for strange in [
        outside.join("token"),
        inside.join("link"),
        inside.join("../outside/token"),
        "link".into(),
        "of-the-start".into(),
    ] {
        let refusals = bus.reloader.changes(&with(strange.clone())).unwrap().refusals;
        assert!(refusals[0].starts_with("subscriber `t/work`: `config.token` names the secret"), "{refusals:?}");
        let refused = bus.reloader.apply(with(strange), true).await.unwrap_err();
        assert!(matches!(&refused, TopologyError::Refused(_)), "{refused}");
        assert!(refused.to_string().contains("--secrets"), "{refused}");
    }
    let up = |text: &String| text.replace("strange", "../outside/token");
    let up =
        Proposal { documents: with("strange".into()).documents.iter().map(up).collect(), ..with("strange".into()) };
    let up = bus.reloader.apply(up, true).await.unwrap_err().to_string();
    assert!(up.contains("leads out of the folder of secrets"), "{up}");
    // what is applied goes on, wherever it is, until it is not named any more
    assert_eq!(bus.reloader.changes(&with(outside.join("of-the-start"))).unwrap().refusals, [""; 0]);
    bus.reloader.apply(with("token".into()), true).await.unwrap();
    assert_eq!(bus.reloader.changes(&with(inside.join("token"))).unwrap().changes, [], "kept as an absolute path");
    assert_eq!(bus.reloader.changes(&with(outside.join("of-the-start"))).unwrap().refusals.len(), 1);
    bus.stop().await;
    // and over a start, which needs no folder for it
    let (bus, plan) = start(&world, world.disk.clone()).await;
    assert_eq!(plan, plan_of(&[&text(&inside.join("token"))]));
    bus.stop().await;
}
