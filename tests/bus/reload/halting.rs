//! Subscribers whose version cannot be loaded at a start: their lanes halt, and everything else runs.

use std::sync::Arc;

use wattle::api::{DeployOutcome, LaneState, Policy};
use wattle::deploy::{SecretFolders, Store, begin};
use wattle::effects::SystemClock;
use wattle::topology::Plan;

use crate::common::trees::{data, event, plan_of, settled, status, until};
use crate::reload::applying::{components, proposal, start, write};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// [`ONE`] with a secret for `work`, and `more`, which has none.
fn text_with_secret(world: &World) -> String {
    let config = format!("config: {{ token: {{ file: {} }} }}, to: {{", world.folder.path().join("token").display());
    let one = ONE.replace("to: {", &config).replace("out: {} }", "out: {}, extra: {} }");
    format!("{one}  more: {{ from: in, plugin: more.wasm, to: {{ out: extra }} }}\n")
}

fn with_secret(world: &World) -> Plan {
    plan_of(&[&text_with_secret(world)])
}

fn token(world: &World, text: Option<&str>) {
    let path = world.folder.path().join("token");
    match text {
        Some(text) => std::fs::write(path, text).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
}

/// A bus whose topology with a secret was applied and has handled one event.
async fn applied(text: &str) -> (World, Plan) {
    let mut world = World::of(ONE, text, LONG);
    write(&world, "more", "m");
    token(&world, Some("first"));
    let plan = with_secret(&world);
    world.plan = plan.clone();
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.reloader.keep_secrets_below(SecretFolders::new([world.folder.path().to_owned()]));
    bus.reloader.apply(proposal(&world, &plan), false).await.unwrap();
    bus.publish(&["1"]).await;
    bus.stop().await;
    (world, plan)
}

async fn publish(bus: &Bus, name: &str) {
    bus.tree.publisher().publish("in", &[event(name, name, name)], None).await.unwrap();
}

/// Starts where `work` cannot run, and shows that `more` does.
async fn started_without_work(world: &World, plan: &Plan, why: &str) -> Bus {
    let (bus, runs) = start(world, world.disk.clone()).await;
    assert_eq!(&runs, plan);
    publish(&bus, "2").await;
    until("the other subscriber handles it", || status(&bus.tree.snapshot(), "t/more").lag == 0).await;
    let work = bus.status();
    assert_eq!((work.lanes.as_slice(), work.lag), (&[LaneState::Halted][..], 1));
    for said in [work.last_failure, work.reload] {
        let said = said.unwrap();
        assert!(said.contains(why) && said.contains("wattle apply"), "{said}");
    }
    assert!(bus.tree.is_at_rest());
    bus
}

async fn works(bus: &Bus, outputs: &[&str]) {
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "out").await, outputs);
    assert_eq!(bus.status().lanes, [LaneState::Running]);
}

#[tokio::test]
async fn a_missing_secret_halts_the_lanes_of_its_subscriber_until_a_start_finds_it() {
    let (world, plan) = applied("a tells=token").await;
    token(&world, None);
    let bus = started_without_work(&world, &plan, "cannot read the secret of `config.token`").await;
    bus.stop().await;
    token(&world, Some("second"));
    let (bus, _) = start(&world, world.disk.clone()).await;
    works(&bus, &["a:first 1", "a:second 2"]).await;
    bus.stop().await;
}

#[tokio::test]
async fn an_apply_of_the_same_topology_runs_a_subscriber_whose_secret_is_back() {
    let (world, plan) = applied("a tells=token").await;
    token(&world, None);
    let bus = started_without_work(&world, &plan, "cannot read the secret").await;
    bus.reloader.apply(proposal(&world, &plan), false).await.unwrap();
    assert_eq!(bus.status().lanes, [LaneState::Halted], "it is still missing");
    token(&world, Some("second"));
    bus.reloader.apply(proposal(&world, &plan), false).await.unwrap();
    works(&bus, &["a:first 1", "a:second 2"]).await;
    bus.stop().await;
}

#[tokio::test]
async fn a_deploy_of_any_version_runs_a_subscriber_whose_secret_is_back() {
    for (text, outcome, output) in
        [("a tells=token", DeployOutcome::Runs, "a:second 2"), ("b", DeployOutcome::Runs, "b 2")]
    {
        let (world, plan) = applied("a tells=token").await;
        token(&world, None);
        let bus = started_without_work(&world, &plan, "cannot read the secret").await;
        let refused = bus.reloader.deploy("work", text.into(), Policy::Replace, "a test").await.unwrap_err();
        assert!(refused.to_string().contains("config.token"), "{refused}");
        token(&world, Some("second"));
        assert_eq!(bus.deploy(text, Policy::Replace).await, outcome);
        works(&bus, &["a:first 1", output]).await;
        bus.stop().await;
    }
}

#[tokio::test]
async fn a_component_that_is_gone_halts_the_lanes_of_its_subscriber() {
    let (world, plan) = applied("a").await;
    let kept = world.disk.contents();
    let component = kept.iter().find(|(_, bytes)| *bytes == b"a").unwrap().0.clone();
    assert!(world.disk.remove_durably(&component));
    std::fs::remove_file(world.file()).unwrap();
    let bus = started_without_work(&world, &plan, "component").await;
    bus.stop().await;
    world.write("a"); // the same component in the file of its plugin
    let (bus, _) = start(&world, world.disk.clone()).await;
    works(&bus, &["a 1", "a 2"]).await;
    bus.stop().await;
}

#[tokio::test]
async fn a_missing_secret_of_a_candidate_leaves_the_stable_version_running() {
    let (world, _) = applied("a tells=token").await;
    let (bus, plan) = start(&world, world.disk.clone()).await;
    let other = world.folder.path().join("other");
    std::fs::write(&other, "x").unwrap();
    let config = format!("other: {{ file: {} }}, token:", other.display());
    let both = text_with_secret(&world).replace("token:", &config);
    bus.reloader.keep_secrets_below(SecretFolders::new([world.folder.path().to_owned()]));
    bus.reloader.apply(proposal(&world, &plan_of(&[&both])), false).await.unwrap();
    assert!(bus.status().on_trial.is_some() && plan != bus.tree.plan());
    bus.stop().await;
    std::fs::remove_file(&other).unwrap();
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.publish(&["2"]).await;
    works(&bus, &["a:first 1", "a:first 2"]).await;
    assert!(bus.status().on_trial.is_none() && bus.status().reload.unwrap().contains("the candidate"));
    bus.stop().await;
    std::fs::write(&other, "x").unwrap();
    let (bus, _) = start(&world, world.disk.clone()).await;
    assert!(bus.status().on_trial.is_some(), "it is tried again");
    bus.stop().await;
}

#[tokio::test]
async fn a_topology_that_was_never_applied_needs_its_secrets() {
    let world = World::of(ONE, "a", LONG);
    write(&world, "more", "m");
    let plan = with_secret(&world);
    let store = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap();
    let refused = begin(store, &world.texts, &plan, &components(&world, &plan), &|_| ()).unwrap_err();
    assert!(refused.to_string().contains("config.token"), "{refused}");
}
