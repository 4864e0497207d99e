//! Events that come later: on time, once, in order, across restarts. Clocks are paused.

use bytes::Bytes;
use tokio::time::Instant;
use wattle::dispatch::publish::EventRefusal;
use wattle::dispatch::{PublishError, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{Engine, ReadBudget};
use wattle::model::{Attribute, Event, PartitionId, Record};

use crate::common::trees::{by_key, contents, data, event, only, plan_of, settled, until};
use crate::dispatch::bed::{Home, ONE, ends, start, start_on};
use crate::dispatch::script::{Script, copy, out};

/// An event that is its own id, key and data, with one more attribute.
fn with(name: &str, attribute: &str, value: impl Into<Attribute>) -> Bytes {
    with_key(name, name, attribute, value)
}

fn with_key(name: &str, key: &str, attribute: &str, value: impl Into<Attribute>) -> Bytes {
    let mut event = Event::decode(&event(name, key, name)).unwrap();
    event.attributes.insert(attribute.into(), value.into());
    event.encode()
}

fn text(value: &str) -> Attribute {
    Attribute::String(value.into())
}

fn delayed<E: Engine>(tree: &Tree<E>, topic: &str) -> u64 {
    tree.snapshot().topics.iter().find(|status| status.name == topic).unwrap().delayed
}

async fn publish<E: Engine>(tree: &Tree<E>, events: &[Bytes]) -> wattle::api::PublishReceipt {
    tree.publisher().publish("in", events, None).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_gets_its_place_when_it_is_due_and_others_go_in_front_of_it() {
    let work = Script::each(copy);
    let tree = start(ONE, &[("work", &work)]).await;
    let began = Instant::now();
    let published = publish(&tree, &[with("late", "delay", text("5s")), event("now", "now", "now")]).await;
    assert_eq!(published.delayed, [0]);
    assert_eq!((published.places[0].offset, published.places[1].offset), (None, Some(0)));
    until("the first one", || work.called().len() == 1).await;
    assert_eq!(delayed(&tree, "t/in"), 1);
    assert!(!tree.is_settled(), "something is to come");
    settled(&tree).await;
    let late = (work.called()[1].at - began).as_millis();
    assert!((5_000..5_050).contains(&late), "{late} ms");
    assert_eq!(data(&tree, "in").await, ["now", "late"]);
    let stored = &only(&tree, "in").await[1];
    assert_eq!((stored.offset, stored.attribute("delay").as_str()), (1, "5s"), "untouched");
    assert_eq!(delayed(&tree, "t/in"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_time_is_a_timestamp_or_a_text() {
    let work = Script::each(copy);
    let tree = start(ONE, &[("work", &work)]).await;
    let began = Instant::now();
    // the clock of the engine in memory begins at zero
    let events = [
        with("b", "deliverat", text("1970-01-01T02:00:10+02:00")),
        with("a", "deliverat", Attribute::Timestamp(wattle::model::Time::new(5, 0).unwrap())),
        with("past", "deliverat", text("1960-01-01T00:00:00Z")),
    ];
    publish(&tree, &events).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "in").await, ["past", "a", "b"]);
    let after = |call: usize| (work.called()[call].at - began).as_millis();
    assert!(after(0) < 50);
    assert!((5_000..5_050).contains(&after(1)) && (10_000..10_050).contains(&after(2)));
}

#[tokio::test(start_paused = true)]
async fn those_of_the_same_time_come_in_their_order_in_their_keys_partitions() {
    let work = Script::each(copy);
    let yaml = ONE.replace("in: {}", "in: { partitions: 4 }");
    let tree = start(&yaml, &[("work", &work)]).await;
    for from in [0, 500] {
        let events: Vec<_> = (from..from + 500)
            .map(|n| with_key(&format!("e{n}"), &format!("k{}", n % 7), "deliverat", text("1970-01-01T00:00:07Z")))
            .collect();
        publish(&tree, &events).await;
    }
    settled(&tree).await;
    for topic in ["in", "out"] {
        for (key, found) in by_key(&tree, topic).await {
            let of_key = (0..1000).filter(|n| format!("k{}", n % 7) == key).map(|n| format!("e{n}"));
            assert_eq!(found, of_key.collect::<Vec<_>>(), "{topic} {key}");
        }
    }
    let here = contents(&tree, "in").await;
    assert!(here.iter().all(|partition| !partition.is_empty()), "each key in its own partition");
}

/// Publishes events that are due after a while, stops the tree, and starts it again.
async fn survives(home: impl Home) {
    let (plan, work) = (plan_of(&[ONE]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    let events: Vec<_> = (0..300).map(|n| with_key(&format!("e{n}"), "k", "delay", text("2s"))).collect();
    publish(&tree, &events).await;
    until("all are taken in", || delayed(&tree, "t/in") == 300).await;
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert!(delayed(&tree, "t/in") > 0 || !data(&tree, "in").await.is_empty());
    settled(&tree).await;
    let all: Vec<_> = (0..300).map(|n| format!("e{n}")).collect();
    assert_eq!(data(&tree, "in").await, all);
    assert_eq!(data(&tree, "out").await, all, "each is handled once");
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "in").await, all, "and never again");
    assert_eq!(delayed(&tree, "t/in"), 0);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_come_survives_a_restart_in_memory() {
    survives(MemoryEngine::default()).await;
}

#[tokio::test]
async fn what_is_to_come_survives_a_restart_on_disk() {
    survives(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_handlers_outputs_may_come_later_as_well() {
    let work = Script::each(|given| {
        let mut later = out(format!("remind {}", given.data));
        later.attributes = "delay=4s\n".into();
        crate::dispatch::script::Step::Emit(vec![later, out(given.data.clone())])
    });
    let tree = start(ONE, &[("work", &work)]).await;
    publish(&tree, &[event("a", "a", "a")]).await;
    until("it is handled", || !work.called().is_empty() && delayed(&tree, "t/out") == 1).await;
    assert_eq!(data(&tree, "out").await, ["a"]);
    settled(&tree).await;
    let found = only(&tree, "out").await;
    assert_eq!(found[1].data(), "remind a");
    assert_eq!(found[1].lineage, found[0].lineage, "its parent is known");
    assert_ne!(found[1].id(), found[0].id());
}

#[tokio::test(start_paused = true)]
async fn an_output_that_cannot_come_later_fails_its_event() {
    let work = Script::each(|given| {
        let mut later = out(given.data.clone());
        later.attributes = "delay=soon\n".into();
        crate::dispatch::script::Step::Emit(vec![later])
    });
    let tree = start(ONE, &[("work", &work)]).await;
    publish(&tree, &[event("a", "a", "a")]).await;
    settled(&tree).await;
    let dead = only(&tree, "work.dead").await;
    assert!(dead[0].attribute("wattlereason").contains("`delay` is not a duration"), "{dead:?}");
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_makes_no_sense_is_refused_whole() {
    let tree = start(ONE, &[("work", &Script::each(copy))]).await;
    let events = [event("a", "a", "a"), with("b", "delay", text("5"))];
    let refused = tree.publisher().publish("in", &events, None).await.unwrap_err();
    let PublishError::Event { index: 1, error: EventRefusal::Delay(why), .. } = &refused else { panic!("{refused}") };
    assert!(why.to_string().contains("90s"), "{refused}");
    assert!(data(&tree, "in").await.is_empty());
}

async fn what_comes_now_and_what_comes_later_is_one(home: impl Home) {
    let yaml = ONE.replace("in: {}", "in: { dedupe: { window: 1h } }");
    let script = Script::each(copy);
    let tree = start_on(home.open().await, &plan_of(&[&yaml]), &[("work", &script)]).await;
    let later = |name: &str| with(name, "delay", text("4s"));
    let now = |name: &str| event(name, name, name);
    assert_eq!(publish(&tree, &[later("a"), now("b")]).await.duplicates(), 0);
    for again in [now("a"), later("a"), later("b"), now("b")] {
        assert_eq!(publish(&tree, &[again]).await.duplicates(), 1);
    }
    let at_once = publish(&tree, &[now("c"), later("c"), later("d"), now("d")]).await;
    assert_eq!(at_once.duplicates(), 2, "also within one call");
    settled(&tree).await;
    assert_eq!(publish(&tree, &[now("a"), later("d")]).await.duplicates(), 2, "and once it has come");
    let mut stored = data(&tree, "in").await;
    stored.sort();
    assert_eq!(stored, ["a", "b", "c", "d"]);
    ends(tree).await;
    let tree = start_on(home.open().await, &plan_of(&[&yaml]), &[("work", &script)]).await;
    assert_eq!(publish(&tree, &[now("a"), later("b"), now("d"), later("c")]).await.duplicates(), 4, "after a start");
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_now_and_what_comes_later_is_one_in_memory() {
    what_comes_now_and_what_comes_later_is_one(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_now_and_what_comes_later_is_one_on_disk() {
    what_comes_now_and_what_comes_later_is_one(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_published_again_is_recognised_while_it_waits() {
    let yaml = ONE.replace("in: {}", "in: { dedupe: { window: 1h } }");
    let tree = start(&yaml, &[("work", &Script::each(copy))]).await;
    let late = with("late", "delay", text("4s"));
    assert_eq!(publish(&tree, std::slice::from_ref(&late)).await.duplicates(), 0);
    assert_eq!(publish(&tree, &[late]).await.duplicates(), 1);
    settled(&tree).await;
    assert_eq!(data(&tree, "in").await, ["late"]);
}

/// What waits costs no memory but what is on its way to the disk: it is all in the hidden topic and the lane's entries.
#[tokio::test(start_paused = true)]
async fn the_hidden_topic_has_the_records_as_they_are_stored_later() {
    let tree = start(ONE, &[("work", &Script::each(copy))]).await;
    publish(&tree, &[with("late", "delay", text("4s"))]).await;
    settled(&tree).await;
    let targets = tree.publisher().targets();
    let number = targets.find("in").unwrap().delayed.unwrap();
    let hidden = PartitionId { topic: number, partition: 0 };
    let budget = ReadBudget { events: 10, bytes: 1 << 20 };
    let chunks = tree.engine().read(hidden, 0, budget).await.unwrap();
    let records: Vec<_> = chunks.iter().flat_map(|chunk| chunk.iter()).collect();
    let record = Record::parse(records[0].record).unwrap();
    assert_eq!(record.event, only(&tree, "in").await[0].encoded);
}
