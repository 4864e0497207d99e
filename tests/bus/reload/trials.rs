//! When trials end: by themselves, as the topology says, or because somebody says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wattle::api::{DeployOutcome, Policy, Proposal, TrialStatus, VersionRole};
use wattle::deploy::ReloadError;
use wattle::effects::ManualClock;
use wattle::topology::TrialPlan;

use crate::common::trees::{PATIENCE, until};
use crate::reload::bed::{Bus, LONG, ONE, SHORT, World, tried};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START_NS: u64 = 1_700_000_000_000_000_000;

fn standings(bus: &Bus) -> Vec<VersionRole> {
    bus.reloader.versions("work").unwrap().iter().map(|kept| kept.standing).collect()
}

fn trial(bus: &Bus) -> TrialStatus {
    bus.status().on_trial.expect("a version is on trial")
}

/// Lets this much time pass, and whatever is due in it happen.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_trial_of_a_quiet_topic_ends_after_the_longest_time() {
    let world = World::of(ONE, "a", TrialPlan { events: 1_000, time: MINUTE, at_most: 10 * MINUTE });
    let bus = world.start().await;
    bus.deploy("b", Policy::Swap).await;
    pass(2 * MINUTE).await;
    let TrialStatus { handled, events, lasted, time, ends_in, .. } = trial(&bus);
    assert_eq!((handled, events, lasted, time), (0, 1_000, MINUTE, MINUTE));
    assert!(ends_in <= 8 * MINUTE && ends_in > 7 * MINUTE, "{ends_in:?}");
    pass(7 * MINUTE).await;
    assert_eq!(standings(&bus), [VersionRole::Proven, VersionRole::Tried]);
    pass(2 * MINUTE).await;
    bus.is_proven().await;
    assert_eq!(standings(&bus), [VersionRole::Kept, VersionRole::Proven]);
    bus.stop().await;
}

#[tokio::test(start_paused = true)]
async fn enough_events_end_a_trial_once_it_has_lasted_and_not_before() {
    let world = World::of(ONE, "a", TrialPlan { events: 2, time: MINUTE, at_most: 10 * MINUTE });
    let bus = world.start().await;
    bus.deploy("b", Policy::Swap).await;
    bus.publish(&["1", "2", "3"]).await;
    pass(MINUTE / 2).await;
    assert_eq!((trial(&bus).handled, standings(&bus)[1]), (3, VersionRole::Tried));
    pass(MINUTE).await;
    bus.is_proven().await;
    assert_eq!(standings(&bus)[1], VersionRole::Proven);
    bus.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_canary_goes_on_to_all_lanes_and_is_tried_there_as_long_again() {
    let world = World::of(
        &ONE.replace("partitions: 1", "partitions: 4"),
        "a",
        TrialPlan { events: 1_000, time: MINUTE, at_most: 10 * MINUTE },
    );
    let bus = world.start().await;
    bus.deploy("b", Policy::Canary { percent: 25 }).await;
    assert_eq!(trial(&bus).lanes, 1);
    pass(11 * MINUTE).await;
    until("it is tried in all lanes", || bus.status().on_trial.is_some_and(|trial| trial.lanes == 4)).await;
    pass(8 * MINUTE).await;
    assert_eq!(standings(&bus)[1], VersionRole::Tried);
    pass(3 * MINUTE).await;
    bus.is_proven().await;
    bus.stop().await;
}

/// Of a trial that goes on after a crash the longest time has gone on as well, and the shortest begins again.
#[tokio::test(start_paused = true)]
async fn a_restart_takes_nothing_off_the_longest_time_and_all_of_the_shortest() {
    let plan = TrialPlan { events: 1_000, time: MINUTE, at_most: 10 * MINUTE };
    let (mut world, clock) = (World::of(ONE, "a", plan), Arc::new(ManualClock(START_NS.into())));
    world.clock = clock.clone();
    let bus = world.start().await;
    bus.deploy("b", Policy::Swap).await;
    assert_eq!(bus.reloader.versions("work").unwrap()[1].decided_ns, START_NS);
    bus.stop().await;
    for (passes, left) in [(4 * MINUTE, 6 * MINUTE), (26 * MINUTE, MINUTE)] {
        clock.0.fetch_add(passes.as_nanos() as u64, Ordering::SeqCst);
        let bus = world.start().await;
        let TrialStatus { lasted, ends_in, .. } = trial(&bus);
        assert!(lasted < SECOND && ends_in <= left && ends_in + SECOND > left, "{left:?}: {ends_in:?}");
        bus.stop().await;
    }
    let bus = world.start().await;
    pass(2 * MINUTE).await;
    bus.is_proven().await;
    assert_eq!(standings(&bus)[1], VersionRole::Proven);
    bus.stop().await;
}

#[tokio::test]
async fn somebody_ends_a_trial_at_once_also_of_a_canary_and_one_that_asks() {
    for policy in [Policy::Swap, Policy::Canary { percent: 25 }] {
        let world = World::of(&ONE.replace("partitions: 1", "partitions: 4"), "a", LONG);
        let bus = world.start().await;
        let none = bus.reloader.promote("work").await.unwrap_err();
        assert!(matches!(none, ReloadError::NoTrial { .. }), "{none}");
        bus.deploy("b", policy).await;
        let version = bus.reloader.promote("work").await.unwrap();
        assert_eq!(standings(&bus), [VersionRole::Kept, VersionRole::Proven]);
        assert_eq!((bus.status().on_trial, bus.status().digest), (None, version.to_string()));
        bus.stop().await;
        let bus = world.start().await;
        assert_eq!(bus.status().digest, version.to_string());
        bus.stop().await;
    }
    let world = World::new("a state=1");
    let bus = world.start().await;
    bus.deploy("b state=2 reject=1", Policy::Swap).await;
    let events = [crate::common::trees::event("1", "1", "1")];
    bus.tree.publisher().publish("in", &events, None).await.unwrap();
    until("it asks", || bus.status().reload.is_some_and(|said| said.contains("plugin promote t/work"))).await;
    bus.reloader.promote("work").await.unwrap();
    assert_eq!(standings(&bus), [VersionRole::Kept, VersionRole::Proven]);
    bus.stop().await;
}

#[tokio::test]
async fn what_is_on_trial_already_is_said_to_be() {
    let world = World::new("a");
    let bus = world.start().await;
    assert_eq!(bus.deploy("b", Policy::Swap).await, DeployOutcome::Tried);
    assert_eq!(bus.deploy("b", Policy::Swap).await, DeployOutcome::OnTrial);
    let kept = bus.reloader.versions("work").unwrap();
    assert_eq!((kept[0].trial.clone(), kept[1].trial.as_ref().unwrap().events), (None, 1_000));
    bus.stop().await;
}

#[tokio::test]
async fn when_trials_end_is_no_part_of_a_version_and_restarts_nothing() {
    let world = World::new("a");
    let bus = world.start().await;
    let proposal = Proposal::of(&tried(world.plan.clone(), SHORT), &[world.file()]);
    let applied = bus.reloader.apply(proposal, false).await.unwrap();
    let words: Vec<_> = applied.changes.iter().flat_map(|change| &change.words).collect();
    assert_eq!((applied.changes.len(), words), (1, vec![&"another `trial`".to_owned()]));
    assert_eq!(standings(&bus), [VersionRole::Proven]);
    bus.deploy("b", Policy::Swap).await;
    bus.publish(&["1", "2"]).await;
    tokio::time::timeout(PATIENCE, bus.is_proven()).await.unwrap();
    bus.stop().await;
}
