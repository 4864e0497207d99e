//! A full disk beneath versions: room for components is asked for first, and nothing is left of what found none.

use wattle::deploy::TopologyError;
use wattle::engine::Engine;

use crate::common::trees::{data, plan_of};
use crate::reload::bed::{LONG, ONE, World};
use crate::reload::renaming::{Disks, ends, open, proposal, publish, start, two};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topology_that_brings_components_asks_for_room_before_anything_else() {
    let (world, disks) = (World::of(ONE, "a", LONG), Disks::new());
    let (bus, before) = start(open(&disks.log), disks.plugins.clone(), &world, Some(&plan_of(&[ONE]))).await.unwrap();
    publish(&bus, "in", "1").await;
    let (topics, kept) = (bus.tree.engine().topics(), disks.plugins.contents());
    let used = disks.log.contents().values().map(|file| file.len().next_multiple_of(512) as u64).sum();
    disks.log.set_capacity(Some(used));
    assert!(!bus.tree.engine().storage().takes_events);
    let refused = bus.reloader.apply(proposal(&world, &plan_of(&[&two()])), true).await.unwrap_err();
    assert!(matches!(refused, TopologyError::NoRoom), "{refused}");
    assert_eq!(bus.tree.plan(), before);
    assert_eq!(disks.plugins.contents(), kept, "nothing of it is left");
    assert_eq!(bus.tree.engine().topics(), topics, "and no number was given");
    // what brings no component is not kept out: it may be what makes room
    let shorter = ONE.replace("in: {", "in: { retention: { age: 30d },");
    bus.reloader.apply(proposal(&world, &plan_of(&[&shorter])), true).await.unwrap();
    disks.log.set_capacity(None);
    bus.reloader.apply(proposal(&world, &plan_of(&[&two()])), true).await.unwrap();
    publish(&bus, "in", "2").await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"]);
    ends(bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_finds_no_room_for_another_component_runs_the_one_that_was_decided_on() {
    let (world, disks) = (World::of(ONE, "a", LONG), Disks::new());
    let files = plan_of(&[ONE]);
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, Some(&files)).await.unwrap();
    ends(bus).await;
    let kept = disks.plugins.contents();
    world.write(&format!("b {}", "x".repeat(10_000)));
    disks.plugins.set_capacity(Some(kept.values().map(|file| file.len() as u64 + 512).sum::<u64>() + 4_096));
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, Some(&files)).await.unwrap();
    publish(&bus, "in", "1").await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1"], "what was decided runs");
    let note = bus.status().reload.unwrap();
    assert!(note.contains("too little room"), "{note}");
    let names = |contents: std::collections::BTreeMap<String, Vec<u8>>| contents.into_keys().collect::<Vec<_>>();
    assert_eq!(names(disks.plugins.contents()), names(kept), "nothing of the other one is left");
    ends(bus).await;
    // with room it is proposed again
    disks.plugins.set_capacity(None);
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, Some(&files)).await.unwrap();
    publish(&bus, "in", "2").await;
    assert_eq!(data(&bus.tree, "out").await, ["a 1", "b 2"]);
    ends(bus).await;
}
