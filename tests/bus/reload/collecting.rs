//! What is kept of topics that were removed, and a crash at each step of forgetting it.

use std::collections::BTreeSet;

use wattle::api::{Garbage, Node};
use wattle::deploy::TopologyError;
use wattle::dispatch::AUDIT_TOPIC;
use wattle::effects::{Disk, MemoryDisk};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::model::PartitionId;

use crate::common::random::Random;
use crate::common::trees::{data, plan_of, settled, until};
use crate::reload::bed::{Bus, LONG, ONE, World};
use crate::reload::renaming::{Disks, ends, open, proposal, publish, start, two};

/// The topics of which there are segments.
pub(crate) fn segments_of(log: &MemoryDisk) -> BTreeSet<u32> {
    let names = log.list().unwrap();
    let topics = names.iter().filter_map(|name| name.strip_prefix("segment-")?.split('-').next());
    topics.map(|topic| u32::from_str_radix(topic, 16).unwrap()).collect()
}

/// All that is on the disk is of a topic that runs, or that is listed as one that was removed.
pub(crate) async fn all_is_listed(log: &MemoryDisk, bus: &Bus<EmbeddedEngine>, context: &str) {
    let engine = bus.tree.engine();
    let known = || engine.topics().iter().map(|topic| topic.number.0).collect::<BTreeSet<_>>();
    until(&format!("{context}: what is gone is gone from the disk"), || segments_of(log).is_subset(&known())).await;
    let mut listed: BTreeSet<String> = bus.tree.plan().topics.iter().map(|topic| topic.label()).collect();
    listed.insert(AUDIT_TOPIC.to_owned());
    listed.extend(bus.reloader.garbage().await.unwrap().into_iter().map(|of| of.name));
    for topic in engine.topics() {
        let name = topic.name.split('@').next().unwrap();
        assert!(listed.contains(name), "{context}: {topic:?} is not in {listed:?}");
    }
}

fn removed(garbage: &[Garbage]) -> Option<(u64, bool)> {
    let topic = garbage.iter().find(|of| of.node == Node::Topic && of.name == "t/extra")?;
    Some((topic.events, topic.bytes > 0))
}

async fn apply(bus: &Bus<EmbeddedEngine>, world: &World, yaml: &str) {
    bus.reloader.apply(proposal(world, &plan_of(&[yaml])), true).await.unwrap();
    settled(&bus.tree).await;
}

/// A bus on which one event went through `extra` and `more`, which have been removed since.
async fn begun(world: &World, disks: &Disks) -> Bus<EmbeddedEngine> {
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), world, Some(&plan_of(&[&two()]))).await.unwrap();
    publish(&bus, "in", "1").await;
    assert_eq!(data(&bus.tree, "extra").await, ["a 1"]);
    apply(&bus, world, ONE).await;
    bus
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_removed_comes_back_as_it_was_until_it_is_forgotten_and_then_as_a_new_one() {
    let (world, disks) = (World::of(ONE, "a", LONG), Disks::new());
    let bus = begun(&world, &disks).await;
    assert_eq!(removed(&bus.reloader.garbage().await.unwrap()), Some((1, true)));
    let number = bus.tree.engine().topic("t/extra").unwrap();
    apply(&bus, &world, &two()).await;
    assert_eq!(bus.reloader.garbage().await.unwrap(), []);
    assert_eq!(data(&bus.tree, "extra").await, ["a 1"], "it is the one that it was");
    apply(&bus, &world, ONE).await;
    let other = two().replace("extra: {}", "extra: { partitions: 3 }");
    let refused = bus.reloader.apply(proposal(&world, &plan_of(&[&other])), true).await.unwrap_err().to_string();
    assert!(refused.contains("has 1 partitions and cannot have 3") && refused.contains("`wattle gc`"), "{refused}");

    let loss = bus.reloader.collect(false).await.unwrap_err();
    let TopologyError::Loss(words) = &loss else { panic!("{loss}") };
    assert!(words.iter().any(|words| words.starts_with("topic `t/extra` still has 1 events (")), "{words:?}");
    assert_eq!(removed(&bus.reloader.collect(true).await.unwrap()), Some((1, true)));
    assert_eq!(bus.reloader.garbage().await.unwrap(), []);
    all_is_listed(&disks.log, &bus, "collected").await;
    assert!(!segments_of(&disks.log).contains(&number.0));
    apply(&bus, &world, &other).await;
    assert!(bus.tree.engine().topic("t/extra").unwrap() > number, "another one");
    publish(&bus, "in", "2").await;
    let engine = bus.tree.engine();
    let topic = engine.topic("t/extra").unwrap();
    let bounds = (0..3).map(|partition| engine.bounds(PartitionId { topic, partition }).unwrap());
    assert_eq!(bounds.map(|bounds| bounds.written).sum::<u64>(), 2, "of its new subscriber, which begins at the front");
    ends(bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_leaves_it_as_it_was_or_forgotten() {
    let world = World::of(ONE, "a", LONG);
    let disks = Disks::new();
    ends(begun(&world, &disks).await).await;
    let (log, plugins) = disks.after_crash(&mut Random::new(1));
    let (mut outcomes, mut random) = (BTreeSet::new(), Random::new(2));
    for crash_at in 0.. {
        let mut disks = Disks::new();
        (disks.log, disks.plugins) = (log.after_crash(|| true), plugins.after_crash(|| true));
        let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, None).await.unwrap();
        disks.fail_at(crash_at);
        let is_answered = bus.reloader.collect(true).await.is_ok();
        let is_over = !disks.has_failed(crash_at);
        bus.reloader.stop().await;
        bus.tree.drain(std::time::Duration::from_secs(60)).await;
        drop(bus);
        let context = format!("crash at {crash_at}");
        (disks.log, disks.plugins) = disks.after_crash(&mut random);
        let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, None).await.unwrap();
        until("what was begun is gone on with", || {
            let is_there = bus.tree.engine().topic("t/extra").is_some();
            is_there != bus.reloader.retired().is_empty()
        })
        .await;
        let found = removed(&bus.reloader.garbage().await.unwrap());
        assert!(found.is_none() || found == Some((1, true)) && !is_answered, "{context}: {found:?}");
        outcomes.insert((is_answered, found.is_some()));
        all_is_listed(&disks.log, &bus, &context).await;
        if crash_at % 2 == 0 {
            bus.reloader.collect(true).await.unwrap();
            assert_eq!(bus.reloader.garbage().await.unwrap(), [], "{context}");
        }
        apply(&bus, &world, &two()).await;
        publish(&bus, "in", "2").await;
        assert_eq!(data(&bus.tree, "extra").await, ["a 1", "a 2"], "{context}: once, by the old one or a new one");
        assert_eq!(data(&bus.tree, "out").await, ["a 1", "a 2"], "{context}");
        ends(bus).await;
        if is_over {
            break;
        }
    }
    assert_eq!(outcomes, [(false, false), (false, true), (true, false)].into());
}
