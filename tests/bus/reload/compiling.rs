//! A start without compiled code: the bus runs, and the subscribers whose versions are being compiled wait.

use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wattle::api::{DeployOutcome, Digest, LaneState, Policy, VersionRole};
use wattle::server::{Options, Port, Server};

use crate::common::trees::{data, event, settled, status, until};
use crate::reload::applying::{proposal, start, two, write};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// Of the health service.
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// A stopped bus whose subscriber `work` runs the text `a`, and whose subscriber `more` runs `m`, after one event.
async fn stopped() -> World {
    let mut world = World::of(ONE, "a", LONG);
    write(&world, "more", "m");
    let plan = two();
    world.plan = plan.clone();
    let (bus, _) = start(&world, world.disk.clone()).await;
    bus.reloader.apply(proposal(&world, &plan), false).await.unwrap();
    bus.publish(&["1"]).await;
    bus.stop().await;
    world
}

/// From now on these have to be compiled, as after an upgrade, and that does not end before the gate opens.
fn cool(world: &World, texts: &[&str]) {
    world.texts.cold.lock().unwrap().extend(texts.iter().map(|text| Digest::of(text.as_bytes())));
    world.texts.shut(true);
}

fn breaks(world: &World, text: &str) {
    world.texts.broken.lock().unwrap().insert(Digest::of(text.as_bytes()));
}

/// Starts while `work` is compiled: it waits with its event, and `more` handles it.
async fn started_without_work(world: &World) -> Bus {
    let (bus, _) = start(world, world.disk.clone()).await;
    assert_eq!(bus.status().lanes, [LaneState::Compiling]);
    bus.tree.publisher().publish("in", &[event("2", "2", "2")], None).await.unwrap();
    until("the other subscriber handles it", || status(&bus.tree.snapshot(), "t/more").lag == 0).await;
    let work = bus.status();
    assert_eq!((work.lanes.as_slice(), work.lag, work.last_failure), (&[LaneState::Compiling][..], 1, None));
    assert!(!bus.tree.is_at_rest(), "there is something that will still happen");
    bus
}

#[tokio::test]
async fn a_lane_waits_for_its_plugin_and_everything_else_runs() {
    let world = stopped().await;
    cool(&world, &["a"]);
    let bus = started_without_work(&world).await;
    world.texts.shut(false);
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"]);
    let work = bus.status();
    assert_eq!((work.lanes.as_slice(), work.reload), (&[LaneState::Running][..], None));
    bus.stop().await;
}

#[tokio::test]
async fn a_version_that_does_not_compile_later_halts_its_lanes_alone() {
    let world = stopped().await;
    cool(&world, &["a"]);
    breaks(&world, "a");
    let bus = started_without_work(&world).await;
    world.texts.shut(false);
    until("it halts", || bus.status().lanes == [LaneState::Halted]).await;
    let work = bus.status();
    for said in [work.last_failure, work.reload] {
        let said = said.unwrap();
        assert!(said.contains("too large for its compiler") && said.contains("wattle apply"), "{said}");
    }
    bus.tree.publisher().publish("in", &[event("3", "3", "3")], None).await.unwrap();
    until("the other subscriber goes on", || status(&bus.tree.snapshot(), "t/more").lag == 0).await;
    assert!(bus.tree.is_at_rest());
    assert_eq!(bus.deploy("b", Policy::Replace).await, DeployOutcome::Runs);
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "b 2", "b 3"]);
    bus.stop().await;
}

/// The bus takes events, so it serves; who wants to wait for its plugins asks for them.
#[tokio::test]
async fn health_tells_plugins_apart_from_the_bus() {
    for is_broken in [false, true] {
        let world = stopped().await;
        cool(&world, &["a"]);
        let bus = started_without_work(&world).await;
        let listen = Options::open("127.0.0.1:0".parse().unwrap());
        let (tree, reloader) = (bus.tree.clone(), Some(bus.reloader.clone()));
        let server = Server::start_with(Port::take(&listen).unwrap(), tree, reloader, None).await.unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
        let mut health = HealthClient::new(channel.connect().await.unwrap());
        let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(asked("")).await.unwrap().into_inner().status, SERVING);
        let mut plugins = health.watch(asked("wattle.plugins")).await.unwrap().into_inner();
        assert_eq!(plugins.message().await.unwrap().unwrap().status, NOT_SERVING);
        if is_broken {
            breaks(&world, "a");
        }
        world.texts.shut(false);
        if is_broken {
            until("it halts", || bus.status().lanes == [LaneState::Halted]).await;
            assert_eq!(health.check(asked("")).await.unwrap().into_inner().status, SERVING);
            // It is looked at twice a second, and told where it changes.
            let told = tokio::time::timeout(Duration::from_secs(2), plugins.message()).await;
            assert!(told.is_err(), "{told:?}");
            assert_eq!(bus.deploy("b", Policy::Replace).await, DeployOutcome::Runs);
        }
        assert_eq!(plugins.message().await.unwrap().unwrap().status, SERVING);
        drop((plugins, health));
        assert!(server.stop(Duration::from_secs(30)).await);
        bus.stop().await;
    }
}

/// As if it had not been stopped: the candidate is called, and judged.
#[tokio::test]
async fn a_candidate_is_compiled_with_the_stable_version_and_tried_again() {
    for broken in [None, Some("b reject=4")] {
        let world = stopped().await;
        let (bus, _) = start(&world, world.disk.clone()).await;
        assert_eq!(bus.deploy("b reject=4", Policy::Swap).await, DeployOutcome::Tried);
        bus.stop().await;
        cool(&world, &["b reject=4"]);
        broken.iter().for_each(|text| breaks(&world, text));
        let bus = started_without_work(&world).await;
        assert!(bus.status().on_trial.is_none(), "nothing is called");
        world.texts.shut(false);
        until("it is tried, or not", || bus.status().on_trial.is_some() || bus.status().reload.is_some()).await;
        settled(&bus.tree).await;
        bus.publish(&["3"]).await;
        let work = bus.status();
        match broken {
            // From the event on that waited: the stable version is not called in between.
            None => {
                assert_eq!(data(&bus.tree, "out").await, ["a 1", "b 2", "b 3"]);
                bus.publish(&["4"]).await;
                let newest = || bus.reloader.versions("work").unwrap().last().unwrap().standing;
                until("it is rolled back", || newest() == VersionRole::TakenBack).await;
                assert_eq!(data(&bus.tree, "out").await.last().unwrap(), "a 4");
            }
            Some(_) => {
                assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2", "a 3"]);
                assert_eq!(work.on_trial, None);
                assert!(work.reload.as_ref().unwrap().contains("the candidate"), "{:?}", work.reload);
            }
        }
        bus.stop().await;
    }
}

/// The stable version cannot read what the candidate has left in the state.
#[tokio::test]
async fn with_the_state_of_a_candidate_that_cannot_run_nothing_is_called() {
    const CANDIDATE: &str = "b state=1 keeps";
    for is_compiled_before in [false, true] {
        let world = stopped().await;
        let (bus, _) = start(&world, world.disk.clone()).await;
        assert_eq!(bus.deploy(CANDIDATE, Policy::Swap).await, DeployOutcome::Tried);
        bus.publish(&["2"]).await;
        bus.stop().await;
        breaks(&world, CANDIDATE);
        if !is_compiled_before {
            cool(&world, &[CANDIDATE]);
        }
        let (bus, _) = start(&world, world.disk.clone()).await;
        bus.tree.publisher().publish("in", &[event("3", "3", "3")], None).await.unwrap();
        world.texts.shut(false);
        until("it halts", || bus.status().lanes == [LaneState::Halted]).await;
        for said in [bus.status().last_failure, bus.status().reload] {
            let said = said.unwrap();
            assert!(said.contains("which has another state version, cannot run either: "), "{said}");
        }
        assert_eq!(data(&bus.tree, "out").await, ["a 1", "b 2"]);
        bus.stop().await;
        world.texts.broken.lock().unwrap().clear();
        let (bus, _) = start(&world, world.disk.clone()).await;
        settled(&bus.tree).await;
        assert_eq!(data(&bus.tree, "out").await, ["a 1", "b 2", "b 3"]);
        bus.stop().await;
    }
}

#[tokio::test]
async fn a_deploy_in_the_meantime_comes_after_it() {
    let world = stopped().await;
    cool(&world, &["a"]);
    let bus = started_without_work(&world).await;
    let reloader = bus.reloader.clone();
    let deploying = tokio::spawn(async move {
        reloader.deploy("work", b"b".to_vec(), Policy::Replace, "a test").await.unwrap().outcome
    });
    world.texts.shut(false);
    assert_eq!(deploying.await.unwrap(), DeployOutcome::Runs);
    settled(&bus.tree).await;
    assert_eq!(bus.who().await, "b");
    bus.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_compiler() {
    let world = stopped().await;
    cool(&world, &["a"]);
    let bus = started_without_work(&world).await;
    let stopping = tokio::time::timeout(Duration::from_secs(30), bus.stop()).await;
    world.texts.shut(false); // its thread ends
    stopping.unwrap();
    let (bus, _) = start(&world, world.disk.clone()).await;
    settled(&bus.tree).await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"]);
    bus.stop().await;
}
