//! What a version is: a component that was decided on, with the settings of the topology, and the secrets of the day.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wattle::api::{Changes, DeployOutcome, Digest, Policy, Proposal, StoredVersion, VersionRole};
use wattle::deploy::{ReloadError, Store};
use wattle::dispatch::Capsule;
use wattle::effects::{Disk, MemoryDisk, SystemClock};
use wattle::topology::Plan;
use wattle::wasm::{HiddenReason, PluginSpec};

use crate::common::trees::{PATIENCE, plan_of};
use crate::reload::bed::{Bus, LONG, ONE, SHORT, World, tried};

/// [`ONE`], whose plugin is told this.
fn told(config: &str) -> Plan {
    plan_of(&[&ONE.replace("to: {", &format!("config: {{ {config} }}, to: {{"))])
}

/// A world whose plugin has a secret.
fn with_secret(file: &str, secret: &str) -> World {
    let mut world = World::new(file);
    world.plan = told(&format!("word: hello, key: {{ file: {} }}", secret_file(&world).display()));
    rotate(&world, secret);
    world
}

fn secret_file(world: &World) -> std::path::PathBuf {
    world.folder.path().join("secret")
}

fn rotate(world: &World, secret: &str) {
    std::fs::write(secret_file(world), secret).unwrap();
}

fn version(bus: &Bus, standing: VersionRole) -> StoredVersion {
    let found = bus.reloader.versions("work").unwrap();
    found.into_iter().find(|version| version.standing == standing).unwrap_or_else(|| panic!("none is {standing:?}"))
}

async fn apply(bus: &Bus, world: &World, plan: &Plan) -> Vec<String> {
    let proposal = Proposal { prune: true, ..Proposal::of(plan, &[world.file()]) };
    let planned = bus.reloader.changes(&proposal).unwrap();
    let applied = bus.reloader.apply(proposal, false).await.unwrap();
    assert_eq!(planned, applied);
    applied.changes.into_iter().flat_map(|change| change.words).collect()
}

#[tokio::test]
async fn new_settings_are_for_the_component_that_was_deployed_and_not_for_that_of_the_file() {
    let limits = plan_of(&[&ONE.replace("to: {", "limits: { time: 2s }, to: {")]);
    for (new, is_live) in [(told("a: b"), true), (told("a: b"), false), (limits.clone(), true), (limits, false)] {
        let mut world = World::new("a");
        let bus = world.start().await;
        bus.deploy("b", Policy::Replace).await;
        let was = version(&bus, VersionRole::Proven);
        let bus = if is_live {
            let words = apply(&bus, &world, &new).await.join("; ");
            let (runs, file) = (was.wasm.short(), Digest::of(b"a").short());
            assert!(
                words.contains(&format!("component {runs}, which runs, becomes a candidate with the new settings")),
                "{words}"
            );
            assert!(words.contains(&format!("its file, with {file}, is unchanged")), "{words}");
            bus
        } else {
            bus.stop().await;
            world.plan = new.clone();
            world.start().await
        };
        assert_eq!(bus.who().await, "b");
        assert_eq!(version(&bus, VersionRole::Proven).version, was.version);
        let tried = version(&bus, VersionRole::Tried);
        assert!(tried.wasm == was.wasm && tried.version != was.version);
        // what is taken back is not tried again before something is new
        bus.reloader.rollback("work").await.unwrap();
        bus.stop().await;
        world.plan = new;
        let bus = world.start().await;
        assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("b", None));
        assert_eq!(version(&bus, VersionRole::Proven).version, was.version);
        bus.stop().await;
        // and the file still has its say
        world.write("c");
        let bus = world.start().await;
        assert_eq!((bus.who().await.as_str(), version(&bus, VersionRole::Tried).wasm), ("c", Digest::of(b"c")));
        bus.stop().await;
    }
}

#[tokio::test]
async fn new_settings_while_a_version_is_on_trial_are_for_that_one_in_as_many_lanes() {
    let wide = |plan: &str| plan.replace("partitions: 1", "partitions: 8");
    let mut world = World::of(&wide(ONE), "a", LONG);
    let bus = world.start().await;
    assert_eq!(bus.deploy("b", Policy::Canary { percent: 20 }).await, DeployOutcome::Tried);
    bus.stop().await;
    world.plan = plan_of(&[&wide(ONE).replace("to: {", "config: { a: b }, to: {")]);
    let bus = world.start().await;
    assert_eq!(version(&bus, VersionRole::Tried).wasm, Digest::of(b"b"));
    assert_eq!(version(&bus, VersionRole::Proven).wasm, Digest::of(b"a"));
    assert_eq!(bus.status().on_trial.unwrap().lanes, 2);
    bus.stop().await;
}

#[tokio::test]
async fn other_ports_are_those_of_the_component_that_was_deployed() {
    let mut world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Replace).await;
    bus.stop().await;
    let yaml = ONE.replace("out: {} }", "out: {}, more: {} }").replace("{ out: out }", "{ out: out, more: more }");
    world.plan = plan_of(&[&yaml]);
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("b", None));
    bus.stop().await;
}

#[tokio::test]
async fn a_pinned_version_has_its_settings_until_it_is_let_go() {
    let world = World::new("a");
    let bus = world.start().await;
    let pinned = bus.reloader.pin("work", None).await.unwrap();
    let words = apply(&bus, &world, &told("a: b")).await.join("; ");
    assert!(words.contains("runs on with the settings that it has: it is pinned"), "{words}");
    assert_eq!((version(&bus, VersionRole::Proven).version, bus.status().on_trial), (pinned, None));
    let other = |bus: &Bus| {
        let mut statuses = [bus.status()];
        bus.reloader.tell(&mut statuses);
        let [status] = statuses;
        (status.is_pinned, status.other_settings.unwrap_or_default())
    };
    // both what runs and what is applied are told of, by a look, an apply and the status
    let differs = |changes: &Changes| changes.changes.is_empty() && changes.differs.len() == 1;
    let same = Proposal { prune: true, ..Proposal::of(&told("a: b"), &[world.file()]) };
    let changes = bus.reloader.apply(same.clone(), false).await.unwrap();
    assert!(differs(&changes) && changes.differs[0].contains("it is pinned to"), "{changes:?}");
    let (is_pinned, why) = other(&bus);
    assert!(is_pinned && why.contains("`wattle plugin pin t/work --off` starts a trial of the applied ones"), "{why}");
    // letting it go tries what was applied, at once, and says so
    let unpinned = bus.reloader.unpin("work").await.unwrap();
    let tried = version(&bus, VersionRole::Tried);
    assert_eq!((unpinned.tries, tried.wasm), (Some(tried.version), Digest::of(b"a")));
    assert!(tried.cause.contains("other settings"), "its file is as it was: {}", tried.cause);
    assert_eq!(other(&bus), (false, String::new()));
    assert_eq!(bus.propose(&world).await, DeployOutcome::Unchanged);
    // what was applied and taken back is told of as long as it is applied
    bus.reloader.rollback("work").await.unwrap();
    let changes = bus.reloader.apply(same, false).await.unwrap();
    assert!(
        differs(&changes) && changes.differs[0].contains("was rolled back: it was rolled back by hand"),
        "{changes:?}"
    );
    let (is_pinned, why) = other(&bus);
    assert!(!is_pinned && why.contains("`wattle plugin deploy t/work FILE` tries the applied ones again"), "{why}");
    assert_eq!(bus.deploy("a", Policy::Swap).await, DeployOutcome::Tried);
    assert_eq!(other(&bus), (false, String::new()));
    bus.stop().await;
}

#[tokio::test]
async fn what_comes_after_a_pin_is_the_same_for_a_running_bus_and_for_a_start() {
    for is_live in [true, false] {
        let mut world = World::new("a");
        let bus = world.start().await;
        apply(&bus, &world, &world.plan).await;
        bus.reloader.pin("work", None).await.unwrap();
        world.write("b");
        apply(&bus, &world, &told("a: b")).await;
        let tries = bus.reloader.unpin("work").await.unwrap().tries;
        assert!(tries.is_some());
        let bus = if is_live {
            bus
        } else {
            bus.stop().await;
            world.plan = told("a: b");
            world.start().await
        };
        let tried = version(&bus, VersionRole::Tried);
        assert_eq!((Some(tried.version), tried.wasm), (tries, Digest::of(b"b")));
        bus.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_tried_after_a_pin_is_told_and_what_ran_runs_on() {
    let world = World::new("a");
    let bus = world.start().await;
    apply(&bus, &world, &world.plan).await;
    bus.reloader.pin("work", None).await.unwrap();
    world.write("bad");
    let unpinned = bus.reloader.unpin("work").await.unwrap();
    assert!(unpinned.tries.is_none() && unpinned.refused.is_some(), "{unpinned:?}");
    assert_eq!((bus.who().await.as_str(), bus.reloader.list()[0].is_pinned), ("a", false));
    bus.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_rotated_proposes_nothing_and_what_was_decided_runs_with_it() {
    let world = with_secret("a", "first");
    let bus = world.start().await;
    bus.deploy("b tells=key", Policy::Replace).await;
    assert_eq!(bus.who().await, "b:first");
    let versions = bus.reloader.versions("work").unwrap();
    bus.stop().await;
    rotate(&world, "second");
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("b:second", None));
    assert_eq!(bus.reloader.versions("work").unwrap(), versions, "no version is new");
    bus.stop().await;
    // and where the file is gone
    std::fs::remove_file(world.file()).unwrap();
    rotate(&world, "third");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b:third");
    bus.stop().await;
}

#[tokio::test]
async fn after_a_secret_was_rotated_one_goes_back_and_pins_as_before() {
    let world = with_secret("a tells=key", "first");
    let bus = world.start().await;
    bus.deploy("b tells=key", Policy::Replace).await;
    bus.deploy("c tells=key", Policy::Swap).await;
    bus.stop().await;
    rotate(&world, "second");
    let bus = world.start().await;
    for expected in ["c:second", "b:second", "a:second"] {
        assert_eq!(bus.who().await, expected);
        if expected != "a:second" {
            bus.reloader.rollback("work").await.unwrap();
        }
    }
    rotate(&world, "third");
    let b = bus.reloader.versions("work").unwrap().into_iter().find(|kept| kept.wasm == Digest::of(b"b tells=key"));
    bus.reloader.pin("work", Some(&b.unwrap().version.to_string())).await.unwrap();
    assert_eq!(bus.who().await, "b:third");
    bus.stop().await;
    rotate(&world, "fourth");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b:fourth", "a pin is no reason not to start");
    bus.stop().await;
}

#[tokio::test]
async fn what_runs_is_deployed_again_to_run_with_the_secrets_of_the_day() {
    let world = with_secret("a tells=key", "first");
    let bus = world.start().await;
    assert_eq!(bus.deploy("a tells=key", Policy::Swap).await, DeployOutcome::Unchanged);
    rotate(&world, "second");
    assert_eq!(bus.who().await, "a:first");
    assert_eq!(bus.deploy("a tells=key", Policy::Swap).await, DeployOutcome::Runs, "the same version");
    assert_eq!((bus.who().await.as_str(), bus.reloader.versions("work").unwrap().len()), ("a:second", 1));
    bus.deploy("b tells=key", Policy::Swap).await;
    rotate(&world, "third");
    assert_eq!(bus.deploy("b tells=key", Policy::Swap).await, DeployOutcome::Tried, "it is tried with it");
    assert_eq!(bus.who().await, "b:third");
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(bus.who().await, "a:third");
    bus.stop().await;
}

#[tokio::test]
async fn a_secret_in_another_file_is_no_other_version() {
    let mut world = with_secret("a tells=key", "first");
    let bus = world.start().await;
    bus.deploy("b tells=key", Policy::Replace).await;
    bus.stop().await;
    let moved = world.folder.path().join("moved");
    std::fs::rename(secret_file(&world), &moved).unwrap();
    world.plan = told(&format!("word: hello, key: {{ file: {} }}", moved.display()));
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("b:first", None));
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(bus.who().await, "a:first");
    bus.stop().await;
}

#[tokio::test]
async fn the_mark_of_secrets_says_the_same_or_not() {
    let world = with_secret("a", "first");
    let bus = world.start().await;
    let mark = |bus: &Bus| bus.tree.subscriber("work").unwrap().versions().called().settings.secrets_mark;
    let first = mark(&bus);
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(mark(&bus), first);
    bus.stop().await;
    rotate(&world, "hush-hush");
    let bus = world.start().await;
    assert_ne!(mark(&bus), first);
    assert_ne!(mark(&bus), *blake3::hash(b"hush-hush").as_bytes());
    bus.stop().await;
    let kept = world.disk.contents();
    assert!(kept.values().all(|bytes| !bytes.windows(9).any(|part| part == b"hush-hush")), "no secret is kept");
}

/// A record of what was decided as it was before secrets were no part of a version: b was deployed, its secret rotated,
/// b deployed again, and c is on trial. The file is a.
fn before() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/plugins-v1");
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let file = (&disk as &dyn Disk).create(entry.file_name().to_str().unwrap()).unwrap();
        file.write_at(&std::fs::read(entry.path()).unwrap(), 0).unwrap();
        file.sync().unwrap();
    }
    disk
}

#[tokio::test]
async fn a_record_of_before_is_read_and_files_that_are_as_they_were_propose_nothing() {
    let mut world = with_secret("a", "third");
    world.disk = before();
    world.plan = told(&format!("currency: EUR, key: {{ file: {} }}", secret_file(&world).display()));
    let record = world.disk.contents()["record"].clone();
    let bus = world.start().await;
    assert_eq!(bus.who().await, "c");
    assert_eq!(
        (version(&bus, VersionRole::Proven).wasm, version(&bus, VersionRole::Tried).wasm),
        (Digest::of(b"b"), Digest::of(b"c"))
    );
    assert_eq!(bus.reloader.versions("work").unwrap().len(), 3, "b with one secret and with another is one version");
    assert!(bus.status().reload.is_none());
    bus.stop().await;
    assert_eq!(world.disk.contents()["record"], record, "nothing was decided");
    let bus = world.start().await;
    for expected in ["b", "a"] {
        bus.reloader.rollback("work").await.unwrap();
        assert_eq!(bus.who().await, expected);
    }
    bus.stop().await;
    // as it is written now it is read again
    let kept = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap();
    drop(kept);
    world.write("d");
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), version(&bus, VersionRole::Proven).wasm), ("d", Digest::of(b"a")));
    bus.stop().await;
}

#[tokio::test]
async fn what_is_proven_with_new_settings_is_what_one_goes_back_from() {
    let world = World::of(ONE, "a", SHORT);
    let bus = world.start().await;
    let first = version(&bus, VersionRole::Proven);
    apply(&bus, &world, &tried(told("a: b"), SHORT)).await;
    bus.publish(&["1", "2"]).await;
    bus.is_proven().await;
    assert_eq!(version(&bus, VersionRole::Kept).version, first.version);
    assert_eq!(bus.reloader.rollback("work").await.unwrap(), first.version);
    bus.stop().await;
}

/// The next capsule that a bus hands out, and the version that its settings make with its component.
async fn capsule(capsules: &mut tokio::sync::mpsc::Receiver<Capsule>) -> (Capsule, Digest) {
    let capsule = tokio::time::timeout(PATIENCE, capsules.recv()).await.expect("it comes").unwrap();
    let secrets = capsule.secrets.clone().unwrap();
    let config: BTreeMap<_, _> =
        capsule.config.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())).collect();
    let spec = PluginSpec {
        subscriber: capsule.subscriber.clone(),
        wasm: b"a reject=1 reject=2 reject=3".to_vec(),
        config,
        hidden: secrets.into_iter().map(|name| (name, HiddenReason::Secret)).collect(),
        ports: capsule.ports.clone(),
        limits: capsule.plugin_limits(),
    };
    let version = spec.digest();
    (capsule, version)
}

#[tokio::test]
async fn a_capsule_has_the_settings_of_the_version_that_failed_and_not_those_of_the_topology() {
    let world = World::new("a reject=1 reject=2 reject=3");
    std::fs::write(secret_file(&world), "hush-hush").unwrap();
    let plan = |limit: &str, time: &str| {
        let more = format!(
            "limits: {{ time: {time} }}, config: {{ limit: {limit}, key: {{ file: {} }} }}, to: {{",
            secret_file(&world).display()
        );
        plan_of(&[&ONE.replace("to: {", &more)])
    };
    let bus = world.start().await;
    apply(&bus, &world, &plan("5", "2s")).await;
    let five = version(&bus, VersionRole::Tried).version;
    bus.reloader.pin("work", Some(&five.to_string())).await.unwrap();
    bus.reloader.unpin("work").await.unwrap();
    let (sender, mut capsules) = tokio::sync::mpsc::channel(8);
    bus.tree.hand_capsules_to(sender);
    let mut expect = async |event: &str, limit: &str, time_ms: u64, expected: Digest| {
        bus.publish(&[event]).await;
        let (capsule, version) = capsule(&mut capsules).await;
        assert_eq!((capsule.digest.clone(), version), (expected.to_string(), expected), "{event}");
        assert_eq!(capsule.config["limit"].as_deref(), Some(limit), "{event}");
        assert_eq!((capsule.config["key"].clone(), capsule.limits.time_ns), (None, time_ms * 1_000_000), "{event}");
        assert!(!String::from_utf8(capsule.encode()).unwrap().contains("hush-hush"));
    };
    expect("1", "5", 2_000, five).await;
    apply(&bus, &world, &plan("10", "3s")).await;
    expect("2", "10", 3_000, version(&bus, VersionRole::Tried).version).await;
    bus.reloader.rollback("work").await.unwrap();
    expect("3", "5", 2_000, five).await;
    bus.stop().await;
}

#[tokio::test]
async fn what_was_taken_back_is_not_gone_back_to() {
    let world = World::new("a");
    let bus = world.start().await;
    for text in ["b", "c"] {
        bus.deploy(text, Policy::Replace).await;
    }
    assert_eq!(bus.deploy("b", Policy::Swap).await, DeployOutcome::Tried);
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(bus.who().await, "c");
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(bus.who().await, "a", "and not the one that was taken back just before");
    assert!(matches!(bus.reloader.rollback("work").await, Err(ReloadError::NoneBefore { .. })));
    bus.stop().await;
}
