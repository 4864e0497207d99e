//! Clocks that jump: nothing that a handler keeps, nothing that was published before, and nothing that is to come later
//! goes by them. The wall clock, and the one that never jumps, are in the test's hands.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use wattle::api::{Filter, ListPosition};
use wattle::dispatch::Tree;
use wattle::effects::{Clock, MemoryDisk};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::LogOptions;
use wattle::model::{Attribute, Event};
use wattle::topology::Plan;

use crate::common::trees::{data, event, plan_of, settled, status, until};
use crate::dispatch::bed::{ONE, ends, publish, start_on};
use crate::dispatch::script::{Script, Step, copy, out};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const START_NS: u64 = 1_700_000_000_000_000_000;

#[derive(Clone)]
struct Hands(Arc<(AtomicU64, AtomicU64)>);

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.0.0.load(SeqCst)
    }

    fn elapsed_ns(&self) -> u64 {
        self.0.1.load(SeqCst)
    }
}

impl Hands {
    fn new() -> Self {
        Self(Arc::new((START_NS.into(), 0.into())))
    }

    fn jump(&self, by: Duration) {
        self.0.0.fetch_add(by.as_nanos() as u64, SeqCst);
    }

    fn jump_back(&self, by: Duration) {
        self.0.0.fetch_sub(by.as_nanos() as u64, SeqCst);
    }

    fn pass(&self, time: Duration) {
        self.0.1.fetch_add(time.as_nanos() as u64, SeqCst);
        self.jump(time);
    }

    async fn start(&self, disk: &MemoryDisk, plan: &Plan, work: &Script) -> Tree<EmbeddedEngine> {
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(self.clone()));
        let engine = EmbeddedEngine::open_with(Path::new("here"), disk, clock, LogOptions::default()).unwrap();
        start_on(engine, plan, &[("work", work)]).await
    }
}

/// Keeps each event under its name, and says what else it has.
fn keeper() -> Script {
    Script::each(|given| {
        let keys = given.state.keys("b", None, 100).join(",");
        given.state.set("b", &given.data, "x");
        Step::Emit(vec![out(format!("{}: {keys}", given.data))])
    })
}

fn with(name: &str, attribute: &str, value: &str) -> Bytes {
    let mut event = Event::decode(&event(name, name, name)).unwrap();
    event.attributes.insert(attribute.into(), Attribute::String(value.into()));
    event.encode()
}

async fn later<E: Engine>(tree: &Tree<E>, events: &[Bytes]) {
    let before = waiting(tree);
    tree.publisher().publish("in", events, None).await.unwrap();
    until("they are taken in", || waiting(tree) == before + events.len() as u64).await;
}

fn waiting<E: Engine>(tree: &Tree<E>) -> u64 {
    tree.snapshot().topics.iter().map(|status| status.delayed).sum()
}

/// Longer than a queue of timers goes without a look at its clock.
async fn looks() {
    tokio::time::sleep(wattle::limits::DELAY_LOOK_EVERY + Duration::from_millis(200)).await;
}

#[tokio::test]
async fn what_a_handler_keeps_outlives_a_clock_that_jumps_and_expires_by_what_really_passes() {
    for jump in [2 * HOUR, YEARS] {
        let (hands, disk, work) = (Hands::new(), MemoryDisk::default(), keeper());
        let plan = plan_of(&[&format!("{ONE}    state: {{ ttl: 1h }}\n    batch: {{ max: 1 }}\n")]);
        let mut tree = hands.start(&disk, &plan, &work).await;
        publish(&tree, "in", &["a"]).await;
        settled(&tree).await;
        hands.jump(jump);
        // so many that whatever sweeps has swept
        publish(&tree, "in", &["b"; 1]).await;
        for n in 0..10 {
            publish(&tree, "in", &[format!("more {n}").as_str()]).await;
        }
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await[1], "b: a", "{jump:?}: while it is ahead");
        ends(tree).await;
        tree = hands.start(&disk, &plan, &work).await;
        hands.jump_back(jump);
        hands.pass(HOUR - 40 * SECOND);
        publish(&tree, "in", &["c"]).await;
        settled(&tree).await;
        assert!(data(&tree, "out").await[12].starts_with("c: a,b,"), "{jump:?}: when it is right again");
        hands.pass(41 * SECOND);
        publish(&tree, "in", &["d"]).await;
        settled(&tree).await;
        assert_eq!(
            data(&tree, "out").await[13],
            "d: c",
            "{jump:?}: an hour has really passed, also for what came while it was ahead"
        );
    }
}

#[tokio::test]
async fn what_was_published_before_is_recognised_whatever_the_clock_does() {
    for jump in [180 * SECOND, YEARS] {
        let (hands, disk, work) = (Hands::new(), MemoryDisk::default(), Script::each(copy));
        let tree = hands.start(&disk, &plan_of(&[ONE]), &work).await;
        publish(&tree, "in", &["a"]).await;
        hands.jump(jump);
        assert!(publish(&tree, "in", &["a"]).await.places[0].is_duplicate, "{jump:?}");
        ends(tree).await;
        let tree = hands.start(&disk, &plan_of(&[ONE]), &work).await;
        assert!(publish(&tree, "in", &["a"]).await.places[0].is_duplicate, "{jump:?}, after a start");
        hands.pass(122 * SECOND);
        assert!(
            !publish(&tree, "in", &["a"]).await.places[0].is_duplicate,
            "{jump:?}: the window has ended all the same"
        );
    }
}

#[tokio::test]
async fn what_is_to_come_later_comes_when_the_time_has_really_passed() {
    let (hands, disk, work) = (Hands::new(), MemoryDisk::default(), Script::each(copy));
    let tree = hands.start(&disk, &plan_of(&[ONE]), &work).await;
    later(&tree, &[with("hour", "delay", "1h"), with("at", "deliverat", "2024-01-01T00:00:00Z")]).await;
    hands.jump(YEARS);
    looks().await;
    assert_eq!(waiting(&tree), 2, "ten years have not passed");
    let awaits_clock = || tree.snapshot().topics.iter().map(|status| status.awaits_clock).sum::<u64>();
    assert_eq!(awaits_clock(), 2, "it is said what waits for a word");
    hands.pass(HOUR - SECOND);
    looks().await;
    assert_eq!(waiting(&tree), 2);
    hands.pass(2 * SECOND);
    until("the hour is over", || waiting(&tree) == 1).await;
    assert_eq!(data(&tree, "in").await, ["hour"]);
    assert!(tree.engine().confirm_clock());
    settled(&tree).await;
    until("nothing waits for a word", || awaits_clock() == 0).await;
    // the other one may be too old by now
    assert_eq!(data(&tree, "in").await.last().unwrap(), "at", "somebody says that they have");
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_put_back_makes_nothing_late() {
    for jump in [HOUR, YEARS] {
        let (hands, disk, work) = (Hands::new(), MemoryDisk::default(), Script::each(copy));
        let tree = hands.start(&disk, &plan_of(&[ONE]), &work).await;
        hands.jump(jump);
        publish(&tree, "in", &["ahead"]).await;
        hands.jump_back(jump);
        later(&tree, &[with("late", "delay", "1s")]).await;
        hands.pass(2 * SECOND);
        settled(&tree).await;
        assert_eq!(data(&tree, "in").await, ["ahead", "late"], "{jump:?}");
    }
}

#[tokio::test]
async fn a_time_of_day_is_waited_for_where_the_clock_is_put_back() {
    let (hands, disk, work) = (Hands::new(), MemoryDisk::default(), Script::each(copy));
    let tree = hands.start(&disk, &plan_of(&[ONE]), &work).await;
    // 2023-11-14T22:13:20Z
    later(&tree, &[with("at", "deliverat", "2023-11-14T23:13:20Z"), with("after", "delay", "1h")]).await;
    hands.jump_back(HOUR);
    hands.pass(HOUR + 60 * SECOND);
    until("the hour is over", || waiting(&tree) == 1).await;
    looks().await;
    assert_eq!(data(&tree, "in").await, ["after"]);
    hands.pass(HOUR - 61 * SECOND);
    looks().await;
    assert_eq!(waiting(&tree), 1);
    hands.pass(60 * SECOND);
    settled(&tree).await;
    assert_eq!(data(&tree, "in").await, ["after", "at"]);
}

#[tokio::test]
async fn failures_have_the_time_of_the_engine_and_wait_by_it() {
    let (hands, disk, plan) = (Hands::new(), MemoryDisk::default(), plan_of(&[ONE]));
    let work = Script::each(|given| match given.data.as_str() {
        "a" => Step::Reject,
        _ => Step::Retry(Some(HOUR)),
    });
    let tree = hands.start(&disk, &plan, &work).await;
    publish(&tree, "in", &["a", "b"]).await;
    let count = |tree: &Tree<EmbeddedEngine>| {
        let status = status(&tree.snapshot(), "t/work");
        (status.waiting, status.open_dead_letters)
    };
    until("both have failed", || count(&tree) == (1, Some(1))).await;
    hands.pass(HOUR);
    let subscriber = tree.subscriber("work").unwrap();
    let failed = async |age: Duration| {
        let (filter, from) = (Filter { older_than: Some(age), ..Filter::default() }, ListPosition::default());
        let mut found = subscriber.retry_queue().list(&filter, from, 9).unwrap().found;
        found.extend(subscriber.dead_letters().list(&filter, from, 9).await.unwrap().found);
        found.into_iter().map(|event| (event.id, event.failed_ns)).collect::<Vec<_>>()
    };
    assert_eq!(failed(HOUR).await, [("b".to_owned(), START_NS), ("a".to_owned(), START_NS)]);
    assert_eq!(failed(HOUR + SECOND).await, []);
    assert_eq!(status(&tree.snapshot(), "t/work").waiting_age, Some(HOUR));
    drop(subscriber);
    ends(tree).await;
    // It failed an hour ago, so its pause is over.
    let tree = hands.start(&disk, &plan, &work).await;
    until("it is tried again", || work.times()["b"] == 2).await;
    ends(tree).await;
}
