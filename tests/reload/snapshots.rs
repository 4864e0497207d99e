//! The snapshot of the state that a new version has behind it.

use std::sync::Arc;

use wattle::dispatch::{Move, SeekState, SeekTo, TakenBy, Tree};
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::LogOptions;
use wattle::reload::{Outcome, Policy};

use crate::bed::{Bus, World};

/// What a handler left in its state.
fn last<E: Engine>(tree: &Tree<E>) -> String {
    let found = tree.state("work", ("b", "last"), 0).unwrap().0;
    String::from_utf8(found[0].entry.value.to_vec()).unwrap()
}

fn notes<E: Engine>(bus: &Bus<E>) -> Vec<String> {
    bus.tree.snapshots("work").unwrap().into_iter().map(|taken| taken.note).collect()
}

#[tokio::test]
async fn a_deploy_leaves_the_state_that_it_found_in_a_snapshot() {
    let world = World::new("a keeps");
    let bus = world.start().await;
    let digest = bus.status().digest;
    assert_eq!(bus.deploy("a2 keeps", Policy::Replace).await, Outcome::Runs);
    assert_eq!(notes(&bus), [""; 0], "there is nothing to be kept yet");
    bus.publish(&["1"]).await;
    assert_eq!(last(&bus.tree), "a2");

    let before = bus.status().digest;
    assert_ne!(before, digest);
    assert_eq!(bus.deploy("b keeps", Policy::Swap).await, Outcome::Tried);
    bus.publish(&["2"]).await;
    assert_eq!(last(&bus.tree), "b");
    let taken = bus.tree.snapshots("work").unwrap();
    let on_trial = bus.status().on_trial.unwrap().digest;
    let note = format!("in front of the deploy of {} in place of {}", &on_trial[..16], &before[..16]);
    assert_eq!(taken.iter().map(|taken| (&taken.note, &taken.digest)).collect::<Vec<_>>(), [(&note, &before)]);
    assert_eq!((taken[0].by, bus.status().reload), (TakenBy::Deploy, None));

    // nothing of the new version is in it
    let (to, state) = (SeekTo::Snapshot, SeekState::Snapshot(taken[0].number));
    bus.tree.pause("work").await.unwrap();
    bus.tree.seek("work", Move { to, partition: None, state, drops_waiting: false, dry_run: false }).await.unwrap();
    assert_eq!(last(&bus.tree), "a2");
    bus.tree.resume("work").await.unwrap();

    // what changes nothing, and what is refused, takes none
    assert_eq!(bus.deploy("b keeps", Policy::Swap).await, Outcome::OnTrial);
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
        ("b keeps", Policy::Swap, Outcome::Tried),
        ("c keeps", Policy::Canary { percent: 1 }, Outcome::Tried),
        ("d keeps", Policy::Replace, Outcome::Runs),
    ] {
        assert_eq!(bus.deploy(text, policy).await, outcome);
        let said = bus.status().reload.unwrap();
        assert!(said.contains("there is no snapshot of the state"), "{said}");
        assert_eq!(bus.who().await, &text[..1]);
    }
    bus.stop().await;
}
