//! Where events and dead letters expire: a reader that goes back to them misses none, and nothing is kept of those that
//! are gone.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::ops::Bound;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use wattle::api::{Filter, Seek, SeekState, SeekTo};
use wattle::dispatch::Tree;
use wattle::effects::MemoryDisk;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{Engine, PageBudget};
use wattle::model::{LaneId, PartitionId};
use wattle::topology::Plan;

use crate::common::trees::{data, plan_of, settled, until};
use crate::dispatch::bed::{Hand, ONE, ends, publish, start_on};
use crate::dispatch::script::{Script, Step, copy};

const HOUR: Duration = Duration::from_secs(3_600);

/// A plan in which what some topics have expires after an hour.
fn plan(topics: &[&str]) -> Plan {
    let mut plan = plan_of(&[ONE]);
    for topic in plan.topics.iter_mut().filter(|topic| topics.contains(&topic.name.as_str())) {
        topic.settings.retention.age = Some(HOUR);
    }
    plan
}

fn start_of(tree: &Tree<EmbeddedEngine>, topic: &str) -> u64 {
    let topic = tree.engine().topic(topic).unwrap();
    tree.engine().bounds(PartitionId { topic, partition: 0 }).unwrap().start
}

#[tokio::test]
async fn a_seek_begins_where_it_says_although_that_expires_meanwhile() {
    let (clock, disk, work) = (Hand::default(), MemoryDisk::default(), Script::each(copy));
    let tree = start_on(clock.engine(&disk), &plan(&["in", "out"]), &[("work", &work)]).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    settled(&tree).await;
    clock.moves(2 * HOUR);
    let to =
        Seek { to: SeekTo::Start, partition: None, state: Some(SeekState::Keep), drops_waiting: false, dry_run: false };
    let subscriber = tree.subscriber("work").unwrap();
    let mut seek = pin!(subscriber.seek(to));
    // It is known where to, and the lane has yet to hear of it, since nothing else runs on this thread.
    assert!(poll_fn(|cx| Poll::Ready(seek.as_mut().poll(cx).is_pending())).await);
    tree.engine().confirm_clock(); // which asks for a checkpoint
    let asked = std::time::Instant::now();
    while start_of(&tree, "t/out") < 3 {
        assert!(asked.elapsed() < Duration::from_secs(60), "nothing expires");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(seek.await.unwrap()[0].to, 0);
    settled(&tree).await;
    assert_eq!(work.times().values().collect::<Vec<_>>(), [&2, &2, &2], "all of them come again");
    // and then they may go
    tree.engine().confirm_clock();
    until("they expire", || start_of(&tree, "t/in") == 3).await;
}

/// The offsets of the dead letters that the lane has noted as done.
fn notes(tree: &Tree<EmbeddedEngine>) -> Vec<u64> {
    let engine = tree.engine();
    let subscriber = engine.subscriber("t/work", engine.topic("t/in").unwrap()).unwrap();
    let entries = engine.entries(LaneId { subscriber, partition: 0 }).unwrap();
    let notes = entries.range(Bound::Included(&[5]), &[6], PageBudget::of(100)).unwrap().entries;
    notes.iter().map(|(key, _)| u64::from_be_bytes(key[5..].try_into().unwrap())).collect()
}

#[tokio::test]
async fn what_is_noted_of_dead_letters_goes_when_they_do_and_none_is_redriven_twice() {
    let (clock, disk) = (Hand::default(), MemoryDisk::default());
    let seen = Mutex::new(HashSet::new());
    // each fails when it comes for the first time
    let work = Script::each(move |given| {
        let is_new = seen.lock().unwrap().insert(given.data.clone());
        if is_new { Step::Reject } else { copy(given) }
    });
    let plan = plan(&["work.dead"]);
    let key = |key: &str| Filter { key: Some(key.into()), ..Filter::default() };
    let tree = start_on(clock.engine(&disk), &plan, &[("work", &work)]).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    settled(&tree).await;
    assert_eq!(tree.subscriber("work").unwrap().dead_letters().drop(&key("a")).await.unwrap(), 1);
    assert_eq!(tree.subscriber("work").unwrap().dead_letters().redrive(&key("b")).await.unwrap(), 1);
    settled(&tree).await;
    assert_eq!(notes(&tree), [0, 1]);
    clock.moves(2 * HOUR);
    tree.engine().confirm_clock(); // which asks for a checkpoint
    until("they expire", || start_of(&tree, "t/work.dead") == 3).await;
    publish(&tree, "in", &["d", "e", "f"]).await;
    settled(&tree).await;
    assert_eq!(tree.subscriber("work").unwrap().dead_letters().drop(&key("d")).await.unwrap(), 1);
    assert_eq!(tree.subscriber("work").unwrap().dead_letters().redrive(&key("e")).await.unwrap(), 1);
    settled(&tree).await;
    // not all the while: the disk would not be there in time
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    until("the others are forgotten", || notes(&tree) == [3, 4]).await;
    ends(tree).await;
    let tree = start_on(clock.engine(&disk), &plan, &[("work", &work)]).await;
    assert_eq!(
        tree.subscriber("work").unwrap().dead_letters().redrive(&Filter::default()).await.unwrap(),
        1,
        "only the last one is left"
    );
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["b", "e", "f"], "each once");
    assert_eq!(notes(&tree), [3, 4, 5]);
}

#[tokio::test]
async fn two_that_redrive_or_drop_the_same_dead_letters_count_each_once() {
    let seen = Mutex::new(HashSet::new());
    let work = Script::each(
        move |given| if seen.lock().unwrap().insert(given.data.clone()) { Step::Reject } else { copy(given) },
    );
    let disk = MemoryDisk::default();
    let tree = start_on(Hand::default().engine(&disk), &plan(&["work.dead"]), &[("work", &work)]).await;
    let names: Vec<String> = (0..50).map(|n| format!("e{n:02}")).collect();
    publish(&tree, "in", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settled(&tree).await;
    let only = |key: &str| Filter { key: Some(key.into()), ..Filter::default() };
    let (first, fifth) = (only("e00"), only("e05"));
    let subscriber = tree.subscriber("work").unwrap();
    let letters = subscriber.dead_letters();
    let dropped = tokio::join!(letters.drop(&first), letters.drop(&first));
    assert_eq!(dropped.0.unwrap() + dropped.1.unwrap(), 1);
    // Each has listed them before either has told the lane.
    let (all, some) = (Filter::default(), fifth);
    let redriven = tokio::join!(letters.redrive(&all), letters.redrive(&all), letters.redrive(&some));
    assert_eq!(redriven.0.unwrap() + redriven.1.unwrap() + redriven.2.unwrap(), 49);
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, names[1..], "each once, in their order");
}
