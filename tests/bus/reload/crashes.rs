//! A crash at each step of a change: what runs afterwards is what was decided before it, or by it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Runtime;
use wattle::api::{DeployOutcome, Digest, Policy, VersionRole};
use wattle::deploy::{Files, ReloadError, Replacement, StartedVersions, Store, adopt, begin_with, instead};
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::topology::{FilesDigest, Plan};

use crate::common::random::Random;
use crate::common::trees::{plan_of, until};
use crate::reload::bed::{Bus, LONG, ONE, SHORT, Worker, World};

type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), ReloadError>> + 'a>>;

/// A change: what runs in front of it is `before`, and what runs once it has succeeded `after`.
struct Change {
    name: &'static str,
    before: &'static str,
    after: &'static str,
    /// A version is on trial in front of it.
    is_trying: bool,
    make: for<'a> fn(&'a Bus) -> Doing<'a>,
}

async fn deploy(bus: &Bus, text: &'static str, policy: Policy) -> Result<(), ReloadError> {
    bus.reloader.deploy("work", text.into(), policy, "a test").await.map(drop)
}

/// Waits until the bus has noted the end of a trial, or that it cannot.
async fn noted(bus: &Bus) -> Result<(), ReloadError> {
    until("it is said", || bus.status().reload.is_some()).await;
    let said = bus.status().reload.unwrap();
    if said.contains("folder of plugins") { Err(ReloadError::Closed) } else { Ok(()) }
}

const CHANGES: [Change; 8] = [
    Change {
        name: "a deploy",
        before: "b",
        after: "c",
        is_trying: false,
        make: |bus| Box::pin(deploy(bus, "c", Policy::Swap)),
    },
    Change {
        name: "a deploy without a trial",
        before: "b",
        after: "c",
        is_trying: false,
        make: |bus| Box::pin(deploy(bus, "c", Policy::Replace)),
    },
    Change {
        name: "a deploy in place of a version on trial",
        before: "try",
        after: "c",
        is_trying: true,
        make: |bus| Box::pin(deploy(bus, "c", Policy::Swap)),
    },
    Change {
        name: "going back",
        before: "b",
        after: "a",
        is_trying: false,
        make: |bus| Box::pin(async { bus.reloader.rollback("work").await.map(drop) }),
    },
    Change {
        name: "going back from a version on trial",
        before: "try",
        after: "b",
        is_trying: true,
        make: |bus| Box::pin(async { bus.reloader.rollback("work").await.map(drop) }),
    },
    Change {
        name: "the end of a trial that somebody asks for",
        before: "try",
        after: "try",
        is_trying: true,
        make: |bus| Box::pin(async { bus.reloader.promote("work").await.map(drop) }),
    },
    Change {
        name: "a pin to an older version",
        before: "try",
        after: "a",
        is_trying: true,
        make: |bus| {
            let first = bus.reloader.versions("work").unwrap()[0].version.to_string();
            Box::pin(async move { bus.reloader.pin("work", Some(&first)).await.map(drop) })
        },
    },
    Change {
        name: "a version on trial that fails",
        before: "try",
        after: "b",
        is_trying: true,
        make: |bus| {
            Box::pin(async {
                bus.publish(&["bad"]).await;
                noted(bus).await
            })
        },
    },
];

/// A crash in front of each operation of the disk, until there is none left. How many there were.
async fn crash_everywhere(change: &Change, random: &mut Random) -> usize {
    for crash_at in 0.. {
        let world = World::of(ONE, "a", LONG);
        let bus = world.start().await;
        std::fs::remove_file(world.file()).unwrap(); // from here on all of it is what is kept
        deploy(&bus, "b", Policy::Replace).await.unwrap();
        if change.is_trying {
            deploy(&bus, "try reject=bad", Policy::Swap).await.unwrap();
        }
        assert_eq!(bus.who().await, change.before, "{}", change.name);
        bus.tree.subscriber("work").unwrap().versions().note_reload(None);
        let operations = Arc::new(AtomicUsize::new(0));
        let counted = operations.clone();
        world.disk.set_fault(move |operation| match operation {
            Operation::Read(_) => Ok(()),
            _ if counted.fetch_add(1, Ordering::SeqCst) < crash_at => Ok(()),
            _ => Err(io::Error::other("the power is gone")),
        });
        let result = (change.make)(&bus).await;
        assert_eq!(result.is_ok(), operations.load(Ordering::SeqCst) <= crash_at, "{} {crash_at}", change.name);
        let ran = bus.who().await;
        assert!([change.before, change.after].contains(&ran.as_str()), "{} {crash_at}: {ran}", change.name);
        bus.stop().await;
        for _ in 0..4 {
            let disk = world.disk.after_crash(|| random.one_in(2));
            let found = World { disk, folder: tempfile::tempdir().unwrap(), plan: world.plan.clone(), ..fresh(&world) };
            let bus = found.start().await;
            let runs = bus.who().await;
            let allowed = if result.is_ok() { vec![change.after] } else { vec![change.before, change.after] };
            assert!(allowed.contains(&runs.as_str()), "{} {crash_at}: {runs}", change.name);
            assert_eq!(bus.who().await, runs, "one version");
            // and what was decided can be changed again
            deploy(&bus, "d", Policy::Swap).await.or_else(pinned).unwrap();
            bus.stop().await;
        }
        if result.is_ok() {
            return crash_at;
        }
    }
    unreachable!()
}

fn pinned(error: ReloadError) -> Result<(), ReloadError> {
    if matches!(error, ReloadError::Pinned { .. }) { Ok(()) } else { Err(error) }
}

fn fresh(world: &World) -> World {
    let World { engine, disk, clock, plan, texts, .. } = world;
    let folder = tempfile::tempdir().unwrap();
    let (engine, disk, clock) = (engine.clone(), disk.clone(), clock.clone());
    World { engine, disk, clock, folder, plan: plan.clone(), texts: texts.clone() }
}

#[tokio::test]
async fn after_a_crash_at_any_step_what_runs_was_decided() {
    let mut random = Random::of("crashes");
    for change in &CHANGES {
        let operations = crash_everywhere(change, &mut random).await;
        // at least a file, its sync, its name and the sync of that
        assert!(operations >= 4, "{}: {operations}", change.name);
    }
}

#[tokio::test]
async fn a_version_is_proven_once_and_a_crash_in_front_of_that_tries_it_again() {
    for crash_at in 0..6 {
        let world = World::of(ONE, "a", SHORT);
        let bus = world.start().await;
        deploy(&bus, "b", Policy::Swap).await.unwrap();
        bus.tree.subscriber("work").unwrap().versions().note_reload(None);
        let operations = AtomicUsize::new(0);
        world.disk.set_fault(move |_| match operations.fetch_add(1, Ordering::SeqCst) < crash_at {
            true => Ok(()),
            false => Err(io::Error::other("the power is gone")),
        });
        bus.publish(&["1", "2"]).await;
        let is_noted = noted(&bus).await.is_ok();
        assert_eq!(bus.who().await, "b");
        bus.stop().await;
        let mut random = Random::new(crash_at as u64);
        let found = World { disk: world.disk.after_crash(|| random.one_in(2)), ..fresh(&world) };
        let bus = found.start().await;
        if is_noted {
            assert_eq!(bus.status().on_trial, None, "{crash_at}");
        }
        assert_eq!(bus.who().await, "b", "{crash_at}");
    }
}

/// What lanes call is what is recorded.
fn agree(bus: &Bus, when: &str) {
    let (called, listed) = (bus.tree.subscriber("work").unwrap().versions().called(), bus.reloader.list().remove(0));
    let called = (called.proven, called.tried.map(|(version, _)| version));
    assert_eq!(called, (listed.proven.to_string(), listed.tried.map(|version| version.to_string())), "{when}");
}

/// No operation but this many and reads, as on a disk that is full.
fn fill(world: &World, operations: usize) {
    let counted = AtomicUsize::new(0);
    world.disk.set_fault(move |operation| match operation {
        Operation::Read(_) => Ok(()),
        _ if counted.fetch_add(1, Ordering::SeqCst) < operations => Ok(()),
        _ => Err(io::ErrorKind::StorageFull.into()),
    });
}

#[tokio::test]
async fn lanes_call_what_is_recorded_also_where_the_end_of_a_trial_could_not_be_kept() {
    let mut kept = 0;
    for (text, operations) in ["b", "b reject=2"].into_iter().flat_map(|text| (0..7).map(move |at| (text, at))) {
        let when = format!("{text} {operations}");
        let world = World::of(ONE, "a", SHORT);
        let bus = world.start().await;
        deploy(&bus, text, Policy::Swap).await.unwrap();
        bus.tree.subscriber("work").unwrap().versions().note_reload(None);
        fill(&world, operations);
        bus.publish(&["1", "2"]).await;
        let is_noted = noted(&bus).await.is_ok();
        kept += usize::from(is_noted);
        if !text.contains("reject") || is_noted {
            agree(&bus, &when);
        }
        world.disk.clear_fault();
        match bus.reloader.rollback("work").await {
            Ok(_) => assert_eq!(bus.who().await, "a", "{when}"),
            // it was taken back before that, or the store waits for a restart
            Err(ReloadError::NoneBefore { .. } | ReloadError::Store(_)) => {}
            Err(error) => panic!("{when}: {error}"),
        }
        if !text.contains("reject") {
            agree(&bus, &when);
        }
        bus.stop().await;
    }
    assert!((2..14).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_trial_ends_once_there_is_room_to_keep_its_end() {
    for (text, runs) in [("b", "b"), ("b reject=2", "a")] {
        let world = World::of(ONE, "a", SHORT);
        let bus = world.start().await;
        deploy(&bus, text, Policy::Swap).await.unwrap();
        bus.tree.subscriber("work").unwrap().versions().note_reload(None);
        fill(&world, 0);
        bus.publish(&["1", "2"]).await;
        noted(&bus).await.unwrap_err();
        assert_eq!(bus.who().await, runs, "{text}");
        assert!(bus.reloader.list()[0].tried.is_some(), "{text}: the end is not kept");
        world.disk.clear_fault();
        bus.is_proven().await;
        until("lanes follow", || bus.status().on_trial.is_none()).await;
        agree(&bus, text);
        bus.stop().await;
        let bus = world.start().await;
        assert_eq!((bus.who().await.as_str(), bus.status().on_trial), (runs, None), "{text}");
        bus.stop().await;
    }
}

#[tokio::test]
async fn what_failed_and_could_not_be_taken_back_is_tried_again_where_it_is_deployed_again() {
    let world = World::of(ONE, "a", LONG);
    let bus = world.start().await;
    deploy(&bus, "b reject=2 reject=3", Policy::Swap).await.unwrap();
    bus.tree.subscriber("work").unwrap().versions().note_reload(None);
    fill(&world, 0);
    bus.publish(&["1", "2"]).await;
    noted(&bus).await.unwrap_err();
    assert_eq!(bus.who().await, "a");
    assert_eq!(bus.deploy("b reject=2 reject=3", Policy::Swap).await, DeployOutcome::Tried);
    assert_eq!(bus.who().await, "b");
    agree(&bus, "again");
    world.disk.clear_fault();
    bus.publish(&["3"]).await;
    bus.is_taken_back().await;
    agree(&bus, "taken back");
    bus.stop().await;
}

#[tokio::test]
async fn after_a_sync_whose_outcome_is_not_known_nothing_is_changed_and_what_runs_goes_on() {
    let world = World::new("a");
    let bus = world.start().await;
    world.disk.set_fault(|operation| match operation {
        Operation::SyncFolder => Err(io::Error::other("EIO")),
        _ => Ok(()),
    });
    assert!(matches!(deploy(&bus, "b", Policy::Replace).await, Err(ReloadError::Store(_))));
    world.disk.clear_fault();
    let error = deploy(&bus, "c", Policy::Replace).await.unwrap_err().to_string();
    assert!(error.contains("until the bus has been restarted"), "{error}");
    assert_eq!(bus.who().await, "a");
    bus.stop().await;
    let bus = world.start().await;
    deploy(&bus, "c", Policy::Replace).await.unwrap();
    assert_eq!(bus.who().await, "c");
}

/// What a start does: its files are applied, or what was applied before them, and decided on.
fn started(
    world: &World,
    plan: &Plan,
    disk: MemoryDisk,
    runtime: &Runtime,
) -> Result<(StartedVersions<Worker>, Plan), Broken> {
    let (store, files) = (Store::open(disk, Arc::new(SystemClock))?, [world.file().into()]);
    let said = FilesDigest::of(format!("{plan:?}").as_bytes());
    let said = Files::whole(plan.clone(), files.to_vec(), said);
    let before = runtime.block_on(instead(&world.engine, &store, &said, false))?;
    let plan = before.map_or_else(|| plan.clone(), |before| before.plan);
    let decide = |store: &mut Store, replaced: &[Replacement]| {
        runtime.block_on(adopt(&world.engine, store, &plan, &files, (false, replaced)))?;
        Ok::<_, Broken>(store.saw(&said)?)
    };
    let begun = begin_with(store, &world.texts, &plan, &files, &|_| (), decide)?;
    Ok((begun, plan))
}

/// A start that broke off.
#[derive(Debug)]
#[expect(dead_code, reason = "it is shown")]
struct Broken(String);

impl<T: std::error::Error> From<T> for Broken {
    fn from(error: T) -> Self {
        Self(error.to_string())
    }
}

#[test]
fn after_a_crash_at_any_step_of_a_start_the_next_one_runs_what_its_files_say_with_what_was_deployed() {
    let (mut random, runtime) = (Random::of("starts"), Runtime::new().unwrap());
    let new = plan_of(&[&ONE.replace("attempts: 2", "attempts: 3").replace("to: {", "config: { a: b }, to: {")]);
    // only the settings are new, or the file is, too
    for (file, expected) in [("a", "b"), ("c", "c")] {
        let mut crashes = 0;
        for crash_at in 0.. {
            let world = World::of(ONE, "a", LONG);
            let (begun, plan) = started(&world, &world.plan, world.disk.clone(), &runtime).unwrap();
            let lanes = runtime.handle();
            runtime.block_on(async {
                let bus = world.start_on(world.engine.clone(), begun, lanes).await;
                assert_eq!(plan, world.plan);
                bus.deploy("b", Policy::Replace).await;
                bus.stop().await;
            });
            world.write(file);
            let operations = Arc::new(AtomicUsize::new(0));
            let counted = operations.clone();
            world.disk.set_fault(move |operation| match operation {
                Operation::Read(_) => Ok(()),
                _ if counted.fetch_add(1, Ordering::SeqCst) < crash_at => Ok(()),
                _ => Err(io::Error::other("the power is gone")),
            });
            let is_done = started(&world, &new, world.disk.clone(), &runtime).is_ok();
            for _ in 0..4 {
                let disk = world.disk.after_crash(|| random.one_in(2));
                for start in 0..2 {
                    let (begun, plan) = started(&world, &new, disk.clone(), &runtime).unwrap();
                    assert_eq!(plan, new, "{crash_at} {start}");
                    runtime.block_on(async {
                        let found = World { plan, disk: disk.clone(), ..fresh(&world) };
                        let bus = found.start_on(world.engine.clone(), begun, lanes).await;
                        assert_eq!(bus.who().await, expected, "{file} {crash_at} {start}");
                        let versions = bus.reloader.versions("work").unwrap();
                        let standing = |standing| versions.iter().find(|kept| kept.standing == standing).unwrap();
                        let (proven, tried) = (standing(VersionRole::Proven), standing(VersionRole::Tried));
                        assert_eq!(proven.wasm, Digest::of(b"b"), "{file} {crash_at} {start}");
                        assert_eq!(tried.wasm, Digest::of(expected.as_bytes()), "{file} {crash_at} {start}");
                        assert_eq!(versions.len(), 3, "{file} {crash_at} {start}: {versions:?}");
                        agree(&bus, "after a start");
                        bus.stop().await;
                    });
                }
            }
            crashes += 1;
            if is_done && operations.load(Ordering::SeqCst) <= crash_at {
                break;
            }
        }
        assert!(crashes > 12, "the record, what the files said, and the versions: {crashes}");
    }
}
