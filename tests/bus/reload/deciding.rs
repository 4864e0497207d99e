//! Deploying, going back, pinning, and what comes of files that change.

use std::sync::atomic::Ordering;

use wattle::api::{DeployOutcome, LaneState, Policy, VersionRole};
use wattle::deploy::ReloadError;
use wattle::dispatch::Terms;
use wattle::topology::TrialPlan;

use crate::common::trees::{PATIENCE, data, event, settled, until};
use crate::reload::bed::{Bus, LONG, ONE, SHORT, Texts, World};

/// What each version is, by its text, the oldest first.
fn standings(bus: &Bus) -> Vec<(String, VersionRole)> {
    let versions = bus.reloader.versions("work").unwrap();
    versions.iter().map(|kept| (kept.cause.clone(), kept.standing)).collect()
}

fn stands(bus: &Bus) -> Vec<VersionRole> {
    standings(bus).into_iter().map(|(_, standing)| standing).collect()
}

#[tokio::test]
async fn a_version_that_handles_enough_is_proven() {
    let world = World::of(ONE, "a", SHORT);
    let bus = world.start().await;
    assert_eq!(bus.deploy("b", Policy::Swap).await, DeployOutcome::Tried);
    assert_eq!(stands(&bus), [VersionRole::Proven, VersionRole::Tried]);
    let on_trial = bus.status().on_trial.unwrap();
    assert_eq!((on_trial.lanes, on_trial.handled, on_trial.events), (1, 0, 2));
    bus.publish(&["1", "2"]).await;
    bus.is_proven().await;
    assert_eq!(data(&bus.tree, "out").await, ["b 1", "b 2"]);
    assert_eq!(stands(&bus), [VersionRole::Kept, VersionRole::Proven]);
    until("it is said", || bus.status().reload.is_some_and(|said| said.ends_with("is stable"))).await;
    assert_eq!(bus.status().on_trial, None);
}

#[tokio::test]
async fn a_version_that_fails_is_taken_back_and_its_file_ignored_until_it_changes() {
    let world = World::new("a");
    let bus = world.start().await;
    assert_eq!(bus.propose(&world).await, DeployOutcome::Unchanged);
    world.write("b reject=2");
    assert_eq!(bus.propose(&world).await, DeployOutcome::Tried);
    assert_eq!(bus.propose(&world).await, DeployOutcome::Unchanged, "while it is tried");
    bus.publish(&["1", "2", "3"]).await;
    let said = bus.is_taken_back().await;
    assert!(said.contains("rolled back") && said.contains("event 2 (partition 0, offset 1): b rejects 2"), "{said}");
    assert_eq!(data(&bus.tree, "out").await, ["b 1", "a 2", "a 3"]);
    assert!(data(&bus.tree, "work.dead").await.is_empty());
    assert_eq!(stands(&bus), [VersionRole::Proven, VersionRole::TakenBack]);
    assert_eq!(bus.propose(&world).await, DeployOutcome::Ignored);
    assert_eq!(bus.who().await, "a");
    world.write("c");
    assert_eq!(bus.propose(&world).await, DeployOutcome::Tried);
    assert_eq!(bus.who().await, "c");
    world.write("b reject=2");
    assert_eq!(bus.propose(&world).await, DeployOutcome::Tried, "it has changed since");
}

#[tokio::test]
async fn what_is_reloaded_unchanged_does_nothing() {
    let world = World::new("a");
    let bus = world.start().await;
    for _ in 0..3 {
        world.write("a");
        assert_eq!(bus.propose(&world).await, DeployOutcome::Unchanged);
        assert_eq!(bus.deploy("a", Policy::Replace).await, DeployOutcome::Unchanged);
    }
    assert_eq!(world.texts.begun.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing was compiled");
    assert_eq!(stands(&bus), [VersionRole::Proven]);
}

#[tokio::test]
async fn a_version_that_is_replaced_is_not_compared() {
    let world = World::new("a");
    let bus = world.start().await;
    assert_eq!(bus.deploy("b reject=2", Policy::Replace).await, DeployOutcome::Runs);
    bus.publish(&["1", "2"]).await;
    assert_eq!(data(&bus.tree, "out").await, ["b 1"]);
    assert_eq!(data(&bus.tree, "work.dead").await, ["2"]);
}

#[tokio::test]
async fn one_goes_back_step_by_step() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Replace).await;
    bus.deploy("c", Policy::Replace).await;
    bus.deploy("d", Policy::Swap).await;
    for expected in ["c", "b", "a"] {
        bus.reloader.rollback("work").await.unwrap();
        assert_eq!(bus.who().await, expected);
    }
    let error = bus.reloader.rollback("work").await.unwrap_err();
    assert!(matches!(error, ReloadError::NoneBefore { .. }), "{error}");
    assert_eq!(bus.who().await, "a");
    let taken_back = VersionRole::TakenBack;
    assert_eq!(stands(&bus), [VersionRole::Proven, taken_back, taken_back, taken_back]);
    let times: Vec<_> = bus.reloader.versions("work").unwrap().iter().map(|kept| kept.decided_ns).collect();
    assert!(times[1] > times[2] && times[2] > times[3], "the last rollback is the latest decision: {times:?}");
    assert!(bus.status().reload.unwrap().contains(" runs since 2"), "with its time");
}

#[tokio::test]
async fn a_pinned_subscriber_takes_no_other_version() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Replace).await;
    bus.deploy("c", Policy::Swap).await;
    let error = bus.reloader.pin("work", None).await.unwrap_err();
    assert!(matches!(error, ReloadError::OnTrial { .. }), "{error}");
    let a = bus.reloader.versions("work").unwrap()[0].version;
    let error = bus.reloader.pin("work", Some("")).await.unwrap_err();
    assert!(matches!(error, ReloadError::NotOne { count: 3, .. }), "{error}");
    assert_eq!(bus.reloader.pin("work", Some(&a.short())).await.unwrap(), a);
    assert_eq!(bus.who().await, "a");
    let error = bus.reloader.deploy("work", b"d".to_vec(), Policy::Swap, "a test").await.unwrap_err();
    assert!(matches!(error, ReloadError::Pinned { version, .. } if version == a), "{error}");
    world.write("e");
    assert_eq!(bus.propose(&world).await, DeployOutcome::Ignored);
    assert_eq!(bus.who().await, "a");
    bus.reloader.unpin("work").await.unwrap();
    assert_eq!(bus.propose(&world).await, DeployOutcome::Tried, "the file has its say again");
    assert_eq!(bus.who().await, "e");
    let error = bus.reloader.pin("nobody", None).await.unwrap_err();
    assert!(matches!(error, ReloadError::Control(_)), "{error}");
}

#[tokio::test]
async fn what_does_not_compile_or_cannot_be_read_changes_nothing() {
    let world = World::new("a");
    let bus = world.start().await;
    world.write("bad");
    let error = bus.reloader.propose("work", &world.file(), Policy::Swap).await.unwrap_err();
    assert!(matches!(error, ReloadError::Refused(_)), "{error}");
    assert!(bus.status().reload.unwrap().contains("keeping the previous version"));
    std::fs::remove_file(world.file()).unwrap();
    let error = bus.reloader.propose("work", &world.file(), Policy::Swap).await.unwrap_err();
    assert!(matches!(error, ReloadError::Source(_)), "{error}");
    assert_eq!((bus.who().await.as_str(), stands(&bus)), ("a", vec![VersionRole::Proven]));
    world.write("b");
    assert_eq!(bus.propose(&world).await, DeployOutcome::Tried, "once it is whole");
}

#[tokio::test]
async fn one_reload_is_under_way_and_the_newest_waits() {
    let world = World::new("a");
    let bus = world.start().await;
    world.texts.shut(true);
    let deploy = |text: &'static str| {
        let reloader = bus.reloader.clone();
        tokio::spawn(async move { reloader.deploy("work", text.into(), Policy::Replace, text).await })
    };
    let under_way = deploy("b");
    until("it compiles", || world.texts.begun.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    let mut waiting = Vec::new();
    for text in ["c", "d", "e"] {
        waiting.push(deploy(text));
        // so that they come in this order
        until("it waits", || bus.reloader.waiting("work").unwrap() == 1 + waiting.len()).await;
    }
    assert_eq!(bus.who().await, "a", "the old one serves");
    world.texts.shut(false);
    assert_eq!(under_way.await.unwrap().unwrap().outcome, DeployOutcome::Runs);
    assert_eq!(waiting.pop().unwrap().await.unwrap().unwrap().outcome, DeployOutcome::Runs);
    for superseded in waiting {
        let error = superseded.await.unwrap().unwrap_err();
        assert!(matches!(error, ReloadError::Superseded { .. }), "{error}");
    }
    let causes: Vec<_> = standings(&bus).into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(causes[1..], ["b", "e"]);
    assert_eq!(bus.who().await, "e");
}

#[tokio::test]
async fn what_waits_is_superseded_by_what_takes_place_and_not_by_what_is_asked_for() {
    let world = World::new("a");
    let bus = world.start().await;
    let begun = |texts: &Texts| texts.begun.load(std::sync::atomic::Ordering::SeqCst);
    for (round, later) in ["refused", "a file that was looked at"].into_iter().enumerate() {
        world.texts.shut(true);
        let deploy = |text: String| {
            let reloader = bus.reloader.clone();
            tokio::spawn(async move { reloader.deploy("work", text.into(), Policy::Replace, "a test").await })
        };
        let before = begun(&world.texts);
        let under_way = deploy(format!("b{round}"));
        until("it compiles", || begun(&world.texts) > before).await;
        let valid = deploy(format!("c{round}"));
        until("it waits", || bus.reloader.waiting("work").unwrap() == 2).await;
        let newer = match later {
            "refused" => deploy("bad".to_owned()),
            _ => {
                let (reloader, file) = (bus.reloader.clone(), world.file());
                tokio::spawn(async move { reloader.propose("work", &file, Policy::Swap).await })
            }
        };
        until("it waits, too", || bus.reloader.waiting("work").unwrap() == 3).await;
        world.texts.shut(false);
        under_way.await.unwrap().unwrap();
        let newer = newer.await.unwrap();
        assert!(newer.is_err() || newer.unwrap().outcome == DeployOutcome::Ignored, "{later}");
        assert_eq!(valid.await.unwrap().unwrap().outcome, DeployOutcome::Runs, "{later}");
        assert_eq!(bus.who().await, format!("c{round}"), "{later}");
    }
}

#[tokio::test]
async fn a_deploy_goes_on_where_whoever_asked_for_it_goes_away() {
    let world = World::new("a");
    let bus = world.start().await;
    world.texts.shut(true);
    let asked = {
        let reloader = bus.reloader.clone();
        tokio::spawn(async move { reloader.deploy("work", b"b".to_vec(), Policy::Replace, "a test").await })
    };
    until("it compiles", || world.texts.begun.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    asked.abort();
    world.texts.shut(false);
    until("it is deployed", || stands(&bus) == [VersionRole::Kept, VersionRole::Proven]).await;
    until("it runs", || bus.status().reload.is_some_and(|said| said.ends_with("runs"))).await;
    assert_eq!(bus.who().await, "b");
}

#[tokio::test]
async fn a_deploy_that_waits_for_its_turn_is_given_up_where_its_caller_goes_away() {
    let world = World::new("a");
    let bus = world.start().await;
    world.texts.shut(true);
    let deploy = |text: &'static str| {
        let reloader = bus.reloader.clone();
        tokio::spawn(async move { reloader.deploy("work", text.into(), Policy::Replace, "a test").await })
    };
    let first = deploy("b");
    until("the first compiles", || world.texts.begun.load(Ordering::SeqCst) == 1).await;
    let second = deploy("c");
    until("the second waits", || bus.reloader.waiting("work").unwrap() == 2).await;
    second.abort();
    assert!(second.await.is_err());
    world.texts.shut(false);
    first.await.unwrap().unwrap();
    bus.reloader.unpin("work").await.unwrap(); // behind everything that waits
    assert_eq!(stands(&bus), [VersionRole::Kept, VersionRole::Proven], "only one was kept beside the first");
    assert_eq!(bus.who().await, "b");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_is_compiled_and_nothing_is_decided_then() {
    let world = World::new("a");
    let bus = world.start().await;
    world.texts.shut(true);
    let reloader = bus.reloader.clone();
    let deploys = ["b", "c"].map(|text| {
        let reloader = reloader.clone();
        tokio::spawn(async move { reloader.deploy("work", text.into(), Policy::Replace, "a test").await })
    });
    until("the first compiles", || world.texts.begun.load(Ordering::SeqCst) == 1).await;
    tokio::time::timeout(PATIENCE, reloader.stop()).await.expect("it ends");
    for deploy in deploys {
        let refused = deploy.await.unwrap();
        assert!(matches!(refused, Err(ReloadError::Closed | ReloadError::Superseded { .. })), "{refused:?}");
    }
    world.texts.shut(false);
    assert_eq!(bus.reloader.versions("work").unwrap().len(), 1, "nothing was kept");
}

#[tokio::test]
async fn a_canary_goes_from_some_lanes_to_all_and_is_proven_there() {
    let yaml = ONE.replace("partitions: 1", "partitions: 8").replace("out: {}", "out: { partitions: 1 }");
    let world = World::of(&yaml, "a", SHORT);
    let bus = world.start().await;
    assert_eq!(bus.deploy("b", Policy::Canary { percent: 20 }).await, DeployOutcome::Tried);
    let lanes = || bus.status().on_trial.map(|on_trial| on_trial.lanes);
    assert_eq!(lanes(), Some(2), "of eight, rounded up");
    let mut events = (0..).map(|number| number.to_string());
    while lanes() == Some(2) {
        bus.publish(&[&events.next().unwrap()]).await;
    }
    assert_eq!(lanes(), Some(8));
    while bus.reloader.list()[0].tried.is_some() {
        bus.publish(&[&events.next().unwrap()]).await;
    }
    assert_eq!(stands(&bus), [VersionRole::Kept, VersionRole::Proven]);
    let made = data(&bus.tree, "out").await;
    assert!(made.iter().any(|made| made.starts_with("a ")) && made.iter().any(|made| made.starts_with("b ")));
    assert_eq!(bus.who().await, "b");
}

#[tokio::test]
async fn a_canary_of_a_subscriber_with_one_lane_is_a_swap() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Canary { percent: 1 }).await;
    let trial = bus.tree.subscriber("work").unwrap().versions().trial().unwrap();
    let Terms { events, lanes, time, at_most, .. } = trial.terms();
    assert_eq!((TrialPlan { events, time, at_most }, lanes), (LONG, None));
    assert_eq!(bus.who().await, "b");
}

#[tokio::test]
async fn a_version_that_both_fail_on_stays_and_a_timeout_is_nobodys_fault() {
    let world = World::new("a reject=2");
    let bus = world.start().await;
    bus.deploy("b reject=2 timeout=3", Policy::Swap).await;
    bus.publish(&["1", "2", "3", "4"]).await;
    assert_eq!(data(&bus.tree, "out").await, ["b 1", "b 4"]);
    let mut dead = data(&bus.tree, "work.dead").await;
    dead.sort();
    assert_eq!(dead, ["2", "3"]);
    assert_eq!(stands(&bus), [VersionRole::Proven, VersionRole::Tried]);
}

#[tokio::test]
async fn a_file_that_is_put_back_while_its_change_is_tried_ends_that() {
    let world = World::new("a");
    let bus = world.start().await;
    for by_hand in [false, true] {
        world.write(if by_hand { "b" } else { "c" });
        assert_eq!(bus.propose(&world).await, DeployOutcome::Tried);
        world.write("a");
        let outcome = if by_hand { bus.deploy("a", Policy::Swap).await } else { bus.propose(&world).await };
        assert_eq!(outcome, DeployOutcome::Runs);
        assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("a", None));
    }
    assert_eq!(stands(&bus), [VersionRole::Proven, VersionRole::TakenBack, VersionRole::TakenBack]);
}

#[tokio::test]
async fn across_versions_of_the_state_somebody_is_asked() {
    for stays in [true, false] {
        let world = World::new("a");
        let bus = world.start().await;
        bus.deploy("b state=1 reject=2", Policy::Swap).await;
        let events: Vec<_> = ["1", "2"].iter().map(|name| event(name, name, name)).collect();
        bus.tree.publisher().publish("in", &events, None).await.unwrap();
        until("it asks", || bus.status().reload.is_some_and(|said| said.contains("halted and asks"))).await;
        assert_eq!(bus.status().lanes, [LaneState::Halted]);
        let said = bus.status().reload.unwrap();
        assert!(said.contains("event 2 ") && said.contains("wattle plugin promote t/work"), "{said}");
        if stays {
            let new = bus.reloader.versions("work").unwrap()[1].version.to_string();
            assert_eq!(bus.reloader.promote("work").await.unwrap().to_string(), new);
        } else {
            bus.reloader.rollback("work").await.unwrap();
        }
        bus.tree.subscriber("work").unwrap().resume().await.unwrap();
        settled(&bus.tree).await;
        let expected = if stays { vec!["b 1"] } else { vec!["b 1", "a 2"] };
        assert_eq!(data(&bus.tree, "out").await, expected);
        assert_eq!(data(&bus.tree, "work.dead").await.is_empty(), !stays);
    }
}
