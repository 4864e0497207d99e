//! The snapshot of the state that a new version has behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use wattle::api::{DeployOutcome, Policy, Seek, SeekState, SeekTo, SnapshotCause};
use wattle::dispatch::{Renames, Tree};
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::LogOptions;

use crate::common::trees::until;
use crate::reload::bed::{Bus, World};

/// What a handler left in its state.
fn last<E: Engine>(tree: &Tree<E>) -> String {
    let found = tree.subscriber("work").unwrap().state().get(("b", "last"), 0).unwrap().0;
    String::from_utf8(found[0].entry.value.to_vec()).unwrap()
}

fn notes<E: Engine>(bus: &Bus<E>) -> Vec<String> {
    bus.tree.subscriber("work").unwrap().snapshots().list().unwrap().into_iter().map(|taken| taken.note).collect()
}

#[tokio::test]
async fn a_deploy_leaves_the_state_that_it_found_in_a_snapshot() {
    let world = World::new("a keeps");
    let bus = world.start().await;
    let digest = bus.status().digest;
    assert_eq!(bus.deploy("a2 keeps", Policy::Replace).await, DeployOutcome::Runs);
    assert_eq!(notes(&bus), [""; 0], "there is nothing to be kept yet");
    bus.publish(&["1"]).await;
    assert_eq!(last(&bus.tree), "a2");

    let before = bus.status().digest;
    assert_ne!(before, digest);
    assert_eq!(bus.deploy("b keeps", Policy::Swap).await, DeployOutcome::Tried);
    bus.publish(&["2"]).await;
    assert_eq!(last(&bus.tree), "b");
    let taken = bus.tree.subscriber("work").unwrap().snapshots().list().unwrap();
    let on_trial = bus.status().on_trial.unwrap().digest;
    let note = format!("before the deploy of {} in place of {}", &on_trial[..16], &before[..16]);
    assert_eq!(taken.iter().map(|taken| (&taken.note, &taken.digest)).collect::<Vec<_>>(), [(&note, &before)]);
    assert_eq!((taken[0].by, bus.status().reload), (SnapshotCause::Deploy, None));

    // nothing of the new version is in it
    let (to, state) = (SeekTo::Snapshot, SeekState::Snapshot(taken[0].number));
    bus.tree.subscriber("work").unwrap().pause().await.unwrap();
    bus.tree
        .subscriber("work")
        .unwrap()
        .seek(Seek { to, partition: None, state: Some(state), drops_waiting: false, dry_run: false })
        .await
        .unwrap();
    assert_eq!(last(&bus.tree), "a2");
    bus.tree.subscriber("work").unwrap().resume().await.unwrap();

    // what changes nothing, and what is refused, takes none
    assert_eq!(bus.deploy("b keeps", Policy::Swap).await, DeployOutcome::OnTrial);
    bus.reloader.deploy("work", b"bad".to_vec(), Policy::Swap, "a test").await.unwrap_err();
    bus.reloader.rollback("work").await.unwrap();
    assert_eq!(notes(&bus).len(), 1);
    bus.stop().await;
}

#[tokio::test]
async fn a_deploy_goes_on_where_there_can_be_no_snapshot_and_says_so() {
    let world = World::new("a keeps");
    // an engine on a disk of its own keeps none
    let (disk, clock, options) = (Arc::new(MemoryDisk::default()), Arc::new(SystemClock), LogOptions::default());
    let options = LogOptions { file_bytes: 4 << 20, ..options };
    let engine = EmbeddedEngine::open_with("a simulation".as_ref(), disk, clock, options).unwrap();
    let bus = world.start_on(engine, world.begin().unwrap(), &tokio::runtime::Handle::current()).await;
    bus.publish(&["1"]).await;
    for (text, policy, outcome) in [
        ("b keeps", Policy::Swap, DeployOutcome::Tried),
        ("c keeps", Policy::Canary { percent: 1 }, DeployOutcome::Tried),
        ("d keeps", Policy::Replace, DeployOutcome::Runs),
    ] {
        assert_eq!(bus.deploy(text, policy).await, outcome);
        let said = bus.status().reload.unwrap();
        assert!(said.contains("no snapshot before deploy"), "{said}");
        assert_eq!(bus.who().await, &text[..1]);
    }
    bus.stop().await;
}

/// Holds back the first write of a disk until it is let through.
fn hold_first_write(disk: &MemoryDisk) -> (Arc<AtomicBool>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let (is_held, gate) = (Arc::new(AtomicBool::new(false)), Mutex::new(gate));
    let held = is_held.clone();
    disk.set_fault(move |operation| {
        if matches!(operation, Operation::Write(_)) && !held.swap(true, Ordering::SeqCst) {
            let _ = gate.lock().unwrap().recv();
        }
        Ok(())
    });
    (is_held, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_before_a_start_waits_for_one_by_hand_that_is_being_written() {
    let world = World::new("a keeps");
    let bus = world.start().await;
    bus.publish(&["1"]).await;
    let (is_held, open) = hold_first_write(&world.engine.snapshot_disk());
    let (tree, plan) = (bus.tree.clone(), bus.tree.plan());
    let by_hand =
        tokio::spawn(
            async move { tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 8).await },
        );
    until("it is being written", || is_held.load(Ordering::SeqCst)).await;
    let (renames, about) = (Renames::default(), (SnapshotCause::Deploy, "d", "n"));
    let mut other = Box::pin(bus.tree.take_where_it_does_not_run((&plan, &renames), "t/work", about, 8));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut other).await;
    assert!(early.is_err(), "{early:?}");
    open.send(()).unwrap();
    let numbers = [by_hand.await.unwrap().unwrap().number, other.await.unwrap().unwrap().number];
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        bus.tree.subscriber("work").unwrap().snapshots().list().unwrap().len(),
        2,
        "neither took the place of the other"
    );
    bus.stop().await;
}
