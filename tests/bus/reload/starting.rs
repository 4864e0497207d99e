//! Which version a bus starts with: what was decided, and what its files propose.

use wattle::api::Policy;
use wattle::deploy::BeginError;

use crate::common::trees::{data, plan_of};
use crate::reload::bed::{ONE, SHORT, World};

#[tokio::test]
async fn a_file_that_has_changed_is_tried_beside_what_was_proven() {
    let world = World::new("a");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "a");
    bus.stop().await;
    world.write("b reject=2");
    let bus = world.start().await;
    bus.publish(&["1", "2"]).await;
    assert_eq!(data(&bus.tree, "out").await, ["a ?", "b 1", "a 2"]);
    bus.is_taken_back().await;
    bus.stop().await;
    // what was rolled back is not tried again until it changes
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("a", None));
    bus.stop().await;
    world.write("c");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "c");
    assert!(bus.status().on_trial.is_some());
}

#[tokio::test]
async fn a_trial_goes_on_after_a_restart() {
    let world = World::of(ONE, "a", SHORT);
    let bus = world.start().await;
    bus.deploy("b reject=2", Policy::Swap).await;
    assert_eq!(bus.who().await, "b");
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b");
    bus.publish(&["2"]).await;
    bus.is_taken_back().await;
    assert_eq!(data(&bus.tree, "out").await, ["b ?", "b ?", "a 2"]);
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(bus.who().await, "a");
}

#[tokio::test]
async fn a_file_that_was_put_back_while_nothing_ran_ends_the_trial_of_its_change() {
    let world = World::new("a");
    world.start().await.stop().await;
    world.write("b");
    world.start().await.stop().await;
    world.write("a");
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("a", None));
    assert_eq!(bus.reloader.list()[0].tried, None);
}

#[tokio::test]
async fn what_was_deployed_by_hand_runs_although_the_file_is_another() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Replace).await;
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b");
    bus.reloader.rollback("work").await.unwrap();
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(bus.who().await, "a");
}

#[tokio::test]
async fn a_pin_outlives_restarts_and_files() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.reloader.pin("work", None).await.unwrap();
    bus.stop().await;
    world.write("b");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "a");
    bus.reloader.unpin("work").await.unwrap();
    bus.stop().await;
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b");
}

#[tokio::test]
async fn a_file_that_is_bad_or_gone_lets_what_was_decided_run() {
    let world = World::new("a");
    let bus = world.start().await;
    bus.deploy("b", Policy::Swap).await;
    bus.stop().await;
    world.write("bad");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b");
    let said = bus.status().reload.unwrap();
    assert!(said.contains("subscriber `t/work`: its plugin") && said.contains("is refused"), "{said}");
    bus.stop().await;
    std::fs::remove_file(world.file()).unwrap();
    let bus = world.start().await;
    assert_eq!(bus.who().await, "b");
    assert!(bus.status().reload.unwrap().contains("cannot read its plugin"));
    bus.stop().await;
    world.write("c");
    let bus = world.start().await;
    assert_eq!(bus.who().await, "c");
}

#[tokio::test]
async fn a_first_start_with_a_bad_file_is_refused() {
    let world = World::new("bad");
    assert!(matches!(world.begin().unwrap_err(), BeginError::Plugins(errors) if errors.len() == 1));
    world.write("a");
    assert_eq!(world.start().await.who().await, "a", "and nothing was decided by it");
}

#[tokio::test]
async fn another_configuration_is_another_version_and_compared() {
    let mut world = World::new("a");
    world.start().await.stop().await;
    world.plan = plan_of(&[&ONE.replace("retry:", "config: { currency: EUR }, retry:")]);
    let bus = world.start().await;
    let versions = bus.reloader.versions("work").unwrap();
    assert_eq!(versions.len(), 2);
    assert!(versions[0].wasm == versions[1].wasm && versions[0].version != versions[1].version);
    assert!(bus.status().on_trial.is_some());
}

#[tokio::test]
async fn other_ports_leave_nothing_to_compare_with() {
    let mut world = World::new("a");
    world.start().await.stop().await;
    let more = "topics: { in: { partitions: 1 }, out: {}, more: {} }";
    let yaml = ONE.replace("topics: { in: { partitions: 1 }, out: {} }", more);
    world.plan = plan_of(&[&yaml.replace("{ out: out }", "{ out: out, more: more }")]);
    let bus = world.start().await;
    assert_eq!((bus.who().await.as_str(), bus.status().on_trial), ("a", None));
    let error = bus.reloader.rollback("work").await.unwrap_err().to_string();
    assert!(error.contains("has the ports `out`, and the topology connects `out, more`"), "{error}");
    assert_eq!(bus.who().await, "a");
}

#[tokio::test]
async fn what_is_kept_and_damaged_is_said() {
    let world = World::new("a");
    world.start().await.stop().await;
    let names: Vec<_> = world.disk.contents().into_keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let component = names.iter().find(|name| name.ends_with(".wasm")).unwrap();
    assert!(world.disk.damage(component, 0, 1));
    // the file is the same, so nobody misses it
    world.start().await.stop().await;
    std::fs::remove_file(world.file()).unwrap();
    let error = world.begin().unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains("cannot read its plugin"), "{error}");
    assert!(world.disk.damage("record", 100, 1));
    let error = world.begin().unwrap_err().to_string();
    assert!(error.contains("record of plugin versions is damaged"), "{error}");
}
