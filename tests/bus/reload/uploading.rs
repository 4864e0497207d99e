//! Components that are uploaded before a topology names them: nothing else of a client is on the machine of the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use wattle::api::{ChangeKind, Component, DeployOutcome, Digest, Policy, Proposal, VersionRole};
use wattle::deploy::{ReloadError, Reloader, Store, TopologyError, begin, rooted};
use wattle::dispatch::Tree;
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::topology::Plan;

use crate::common::trees::{data, plan_of, until};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// [`ONE`] with `more` beside `work`.
fn two() -> Plan {
    let more = "  more: { from: in, plugin: more.wasm, to: { out: extra } }\n";
    plan_of(&[&format!("{ONE}{more}").replace("out: {} }", "out: {}, extra: {} }")])
}

/// A topology whose components are all uploaded.
fn proposal(plan: &Plan, texts: &[&str]) -> Proposal {
    let components: Vec<Component> = texts.iter().map(|text| Digest::of(text.as_bytes()).into()).collect();
    Proposal::of(plan, &components)
}

async fn upload(bus: &Bus, text: &str) -> Result<(), ReloadError> {
    bus.reloader.upload(Digest::of(text.as_bytes()), text.into()).await
}

async fn missing(bus: &Bus, text: &str) -> bool {
    !bus.reloader.missing_components(vec![Digest::of(text.as_bytes())]).await.unwrap().is_empty()
}

/// The components on a disk, by their content.
fn on_disk(disk: &MemoryDisk) -> Vec<String> {
    let contents: BTreeMap<_, _> = disk.contents();
    let wasm = contents.iter().filter(|(name, _)| name.ends_with(".wasm"));
    let mut found: Vec<_> = wasm.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    found.sort();
    found
}

/// Starts with what was applied last, and without any file.
async fn restart(world: &World, disk: MemoryDisk) -> (Bus, Vec<Component>) {
    let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
    let (plan, components) = store.topology().unwrap();
    let begun = begin(store, &world.texts, &plan, &components, &|_| ()).unwrap();
    let tree = Tree::start_with(world.engine.clone(), &plan, begun.starts, &Handle::current()).await.unwrap();
    let versions = (begun.store, begun.notes);
    let reloader = Reloader::start(tree.clone(), world.texts.clone(), &plan, versions, &Handle::current());
    (Bus { tree, reloader }, components)
}

#[tokio::test]
async fn an_applied_topology_runs_by_its_uploads_alone_also_after_a_restart() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    let wanted = proposal(&two(), &["a", "m"]);
    let planned = bus.reloader.changes(&wanted).unwrap_err();
    assert!(matches!(&planned, TopologyError::NotUploaded(of) if *of == [Digest::of(b"m")]), "{planned}");
    let refused = bus.reloader.apply(wanted.clone(), false).await.unwrap_err();
    assert_eq!(refused.to_string(), planned.to_string());
    assert!(refused.to_string().contains(&Digest::of(b"m").short()), "{refused}");

    upload(&bus, "m").await.unwrap();
    std::fs::remove_file(world.file()).unwrap();
    let planned = bus.reloader.changes(&wanted).unwrap();
    assert!(planned.refusals.is_empty(), "{planned:?}");
    let applied = bus.reloader.apply(wanted.clone(), false).await.unwrap();
    assert_eq!(applied.changes, planned.changes);
    bus.publish(&["1"]).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1"]);
    let versions = bus.reloader.versions("more").unwrap();
    assert_eq!((versions[0].wasm, versions[0].cause.as_str()), (Digest::of(b"m"), "applied"));
    let revision = bus.reloader.revision();
    bus.stop().await;

    world.engine.hold_clock(u64::MAX / 2); // however late that is
    let (bus, components) = restart(&world, world.disk.clone()).await;
    assert_eq!(components, [Digest::of(b"a").into(), Digest::of(b"m").into()]);
    assert_eq!(bus.reloader.revision(), revision);
    assert!(bus.reloader.changes(&wanted).unwrap().is_empty());
    bus.publish(&["2"]).await;
    assert_eq!(data(&bus.tree, "extra").await, ["m 1", "m 2"]);
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"]);
    bus.stop().await;
}

#[tokio::test]
async fn the_folder_in_which_a_client_has_a_component_makes_no_difference() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    let mut revisions = BTreeSet::new();
    for folder in ["/srv", "/home/me"] {
        let there = rooted(world.plan.clone(), Path::new(folder));
        let changes = bus.reloader.apply(proposal(&there, &["a"]), false).await.unwrap();
        assert!(changes.is_empty(), "{folder}: {changes:?}");
        revisions.insert(bus.reloader.revision());
    }
    assert_eq!(revisions.len(), 1);
    let other = plan_of(&[&ONE.replace("work.wasm", "other.wasm")]);
    let changes = bus.reloader.apply(proposal(&other, &["a"]), false).await.unwrap();
    assert_eq!(changes.changes[0].words[0], "another `plugin`");
    bus.stop().await;
}

#[tokio::test]
async fn an_uploaded_component_is_planned_and_refused_as_a_file_is() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    std::fs::write(world.folder.path().join("more.wasm"), "bad").unwrap();
    upload(&bus, "bad").await.unwrap();
    let files = Proposal::of(&two(), &[world.file(), world.folder.path().join("more.wasm")]);
    let of_files = bus.reloader.changes(&files).unwrap();
    let uploaded = bus.reloader.changes(&proposal(&two(), &["a", "bad"])).unwrap();
    assert_eq!(uploaded.changes, of_files.changes);
    let path = world.folder.path().join("more.wasm").display().to_string();
    let component = format!("component {}", Digest::of(b"bad").short());
    let named: Vec<_> = of_files.refusals.iter().map(|refusal| refusal.replace(&path, &component)).collect();
    assert_eq!((uploaded.refusals.len(), uploaded.refusals), (1, named));
    let refused = bus.reloader.apply(proposal(&two(), &["a", "bad"]), false).await.unwrap_err();
    assert!(matches!(refused, TopologyError::Plugins(_)), "{refused}");
    assert!(bus.tree.plan().subscribers.len() == 1 && !missing(&bus, "bad").await);
    bus.stop().await;
}

#[tokio::test]
async fn another_component_alone_is_tried_while_the_lanes_continue() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    bus.reloader.apply(proposal(&world.plan, &["a"]), false).await.unwrap();
    upload(&bus, "b").await.unwrap();
    let planned = bus.reloader.changes(&proposal(&world.plan, &["b"])).unwrap();
    let [change] = planned.changes.as_slice() else { panic!("{planned:?}") };
    assert_eq!((change.name.as_str(), change.what), ("t/work", ChangeKind::Changed));
    let [a, b] = [Digest::of(b"a").short(), Digest::of(b"b").short()];
    assert_eq!(change.words, [format!("component {b} of its file becomes a candidate in place of {a}")]);
    let applied = bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap();
    assert_eq!(applied, planned);
    assert_eq!(bus.who().await, "b");
    let standings =
        |bus: &Bus| bus.reloader.versions("work").unwrap().into_iter().map(|of| of.standing).collect::<Vec<_>>();
    assert_eq!(standings(&bus), [VersionRole::Proven, VersionRole::Tried]);
    // the same again changes nothing, and neither does a restart
    assert!(bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap().is_empty());
    assert_eq!(standings(&bus), [VersionRole::Proven, VersionRole::Tried]);
    bus.stop().await;
    let (bus, _) = restart(&world, world.disk.clone()).await;
    assert_eq!(standings(&bus), [VersionRole::Proven, VersionRole::Tried]);
    bus.reloader.promote("work").await.unwrap();
    // back to the stable version before, by the same way
    bus.reloader.apply(proposal(&world.plan, &["a"]), false).await.unwrap();
    assert_eq!(bus.who().await, "a");
    // one that is refused changes nothing
    upload(&bus, "bad").await.unwrap();
    bus.reloader.apply(proposal(&world.plan, &["bad"]), false).await.unwrap_err();
    assert_eq!(bus.who().await, "a");
    bus.stop().await;
}

#[tokio::test]
async fn a_candidate_that_was_deployed_stays_one_where_its_component_is_applied() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    assert_eq!(bus.deploy("b", Policy::Swap).await, DeployOutcome::Tried);
    bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap();
    assert!(bus.reloader.list()[0].tried.is_some() && bus.status().on_trial.is_some());
    assert_eq!(bus.who().await, "b");
    bus.stop().await;
}

#[tokio::test]
async fn a_pinned_subscriber_gets_the_applied_component_when_it_is_unpinned() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    bus.reloader.pin("work", None).await.unwrap();
    upload(&bus, "b").await.unwrap();
    let applied = bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap();
    assert!(applied.differs[0].contains("it is pinned to"), "{applied:?}");
    assert_eq!(bus.who().await, "a");
    bus.stop().await;
    let (bus, _) = restart(&world, world.disk.clone()).await;
    assert_eq!(bus.who().await, "a");
    assert!(bus.reloader.unpin("work").await.unwrap().tries.is_some());
    assert_eq!(bus.who().await, "b");
    bus.stop().await;
}

#[tokio::test]
async fn a_component_with_another_digest_is_not_stored() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    let error = bus.reloader.upload(Digest::of(b"b"), b"c".to_vec()).await.unwrap_err();
    assert!(matches!(error, ReloadError::OtherDigest { .. }), "{error}");
    assert_eq!(on_disk(&world.disk), ["a"]);
    assert!(missing(&bus, "b").await && missing(&bus, "c").await);
    bus.stop().await;
}

#[tokio::test]
async fn the_same_component_is_stored_and_counted_once() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    let (one, other) = tokio::join!(upload(&bus, "b"), upload(&bus, "b"));
    one.and(other).unwrap();
    assert_eq!(on_disk(&world.disk), ["a", "b"]);
    world.disk.set_fault(|operation| match operation {
        Operation::Create => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    upload(&bus, "b").await.expect("it is not written again");
    world.disk.clear_fault();
    // used by one of two clients, it is still there for the other one
    bus.reloader.deploy_uploaded("work", Digest::of(b"b"), (Policy::Swap, "a test"), None).await.unwrap();
    assert!(!missing(&bus, "b").await);
    bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap();
    assert_eq!(on_disk(&world.disk), ["a", "b"]);
    bus.stop().await;
}

#[tokio::test]
async fn what_nothing_uses_is_removed_after_an_hour() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    let hour = Duration::from_secs(3_600).as_nanos() as u64;
    world.engine.hold_clock(1_000 * hour);
    upload(&bus, "b").await.unwrap();
    upload(&bus, "c").await.unwrap();
    world.engine.hold_clock(1_001 * hour - 1);
    assert!(!missing(&bus, "b").await, "it is renewed, because a client is about to use it");
    world.engine.hold_clock(1_001 * hour);
    assert!(missing(&bus, "c").await);
    assert_eq!(on_disk(&world.disk), ["a", "b"]);
    let refused = bus.reloader.deploy_uploaded("work", Digest::of(b"c"), (Policy::Swap, "a test"), None).await;
    assert!(matches!(refused, Err(ReloadError::NotUploaded { .. })), "{refused:?}");
    // one that is used stays
    bus.reloader.apply(proposal(&world.plan, &["b"]), false).await.unwrap();
    world.engine.hold_clock(2_000 * hour);
    assert!(!missing(&bus, "b").await && bus.who().await == "b");
    bus.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_removed_without_being_asked_for() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    upload(&bus, "b").await.unwrap();
    assert_eq!(on_disk(&world.disk), ["a", "b"]);
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert_eq!(on_disk(&world.disk), ["a", "b"]);
    tokio::time::sleep(Duration::from_secs(200)).await;
    until("it is removed", || on_disk(&world.disk) == ["a"]).await;
}

/// The disk fails from each of its operations on, from the upload to the answer of an apply, and the process ends.
#[tokio::test]
async fn a_crash_between_upload_and_apply_leaves_nothing_that_no_record_names() {
    for crash in 0.. {
        let world = World::of(ONE, "a", LONG);
        let bus = world.start().await;
        bus.reloader.apply(proposal(&world.plan, &["a"]), false).await.unwrap();
        let left = AtomicUsize::new(crash);
        let fails = move |_| match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::Other.into()),
        };
        world.disk.set_fault(fails);
        let applied = match upload(&bus, "m").await {
            Ok(()) => bus.reloader.apply(proposal(&two(), &["a", "m"]), false).await.is_ok(),
            Err(_) => false,
        };
        world.disk.clear_fault();
        for is_written in [true, false] {
            let disk = world.disk.after_crash(|| is_written);
            let (plan, components) = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap().topology().unwrap();
            assert!(plan.subscribers.len() == 2 || !applied, "after {crash} operations: it was answered");
            let contents = disk.contents();
            let texts = [&contents["record"], &contents["topology"]].map(|text| String::from_utf8_lossy(text));
            for name in contents.keys().filter_map(|name| name.strip_suffix(".wasm")) {
                assert!(texts.iter().any(|text| text.contains(name)), "after {crash} operations: {name}");
            }
            let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
            begin(store, &world.texts, &plan, &components, &|_| ()).unwrap();
        }
        if applied {
            assert!(crash > 5, "it fails where it should");
            return;
        }
    }
}
