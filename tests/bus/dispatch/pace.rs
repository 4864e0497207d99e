//! How fast a subscriber is called, and with how much at once. Clocks are paused.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::Instant;
use wattle::api::{Filter, Seek, SeekState, SeekTo};
use wattle::engine::memory::MemoryEngine;
use wattle::model::partition_of;
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, contents, data, event, plan_of, settled, status, until};
use crate::dispatch::bed::{ONE, backlog, publish, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy};

fn plan(partitions: u32, more: &str) -> Plan {
    plan_of(&[&format!("{}    {more}\n", ONE.replace("in: {}", &format!("in: {{ partitions: {partitions} }}")))])
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n}")).collect()
}

fn keyed(names: &[String]) -> Vec<(&str, &str)> {
    names.iter().map(|name| (name.as_str(), name.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_for_all_lanes_together() {
    for partitions in [1, 4] {
        let work = Script::each(copy);
        let start = Instant::now();
        let names = many(200);
        let tree = backlog(MemoryEngine::default(), &plan(partitions, "rate: 100/s"), &work, &keyed(&names)).await;
        settled(&tree).await;
        let calls = work.called();
        let took = calls.last().unwrap().at - calls[0].at;
        assert!((1900..=2010).contains(&took.as_millis()), "{partitions}: {took:?} for 200 events");
        for from in 0..calls.len() {
            let window = calls[from..].iter().take_while(|call| call.at < calls[from].at + Duration::from_secs(1));
            let events: usize = window.map(|call| call.events.len()).sum();
            assert!(events <= 105, "{partitions}: {events} within a second");
        }
        assert!(start.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_counts_for_the_rate_as_well() {
    let plan = plan_of(&[&format!("{}    rate: 1/s\n", ONE.replace("100ms", "1ms").replace("max: 1s", "max: 1ms"))]);
    let work = Script::each(|given| if given.attempt < 3 { Step::Retry(None) } else { copy(given) });
    let tree = backlog(MemoryEngine::default(), &plan, &work, &[("a", "a"), ("b", "b")]).await;
    settled(&tree).await;
    let calls = work.called();
    assert_eq!(calls.len(), 6);
    assert!(calls.windows(2).all(|pair| (pair[1].at - pair[0].at).as_millis() >= 1_000), "{calls:?}");
}

/// What a lane is told it does within this time, whatever it waits for: nobody waits for the disk here.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_its_rate_obeys_at_once_and_goes_on_from_there() {
    let work = Script::each(copy);
    let tree = start_on(MemoryEngine::default(), &plan(1, "rate: 1/h"), &[("work", &work)]).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    until("the first call", || work.called().len() == 1).await;
    tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().pause())
        .await
        .expect("it waits for its rate")
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(work.called().len(), 1, "it is paused");
    tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().resume()).await.unwrap().unwrap();
    until("the second call", || work.called().len() == 2).await;
    let back =
        Seek { to: SeekTo::Start, partition: None, state: Some(SeekState::Keep), drops_waiting: false, dry_run: false };
    tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().seek(back))
        .await
        .expect("it waits for its rate")
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    assert_eq!(work.batches().concat(), ["a", "b", "a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_another_ones_call_obeys_at_once() {
    let work = Script::calls(|_| std::future::pending());
    let tree = start_on(MemoryEngine::default(), &plan(2, "concurrency: 1"), &[("work", &work)]).await;
    let of = |wanted| (0..).map(|n| format!("k{n}")).find(|key| partition_of(key, 2) == wanted).unwrap();
    for partition in 0..2 {
        publish(&tree, "in", &[&of(partition)]).await;
        until("the first call", || work.called().len() == 1).await;
    }
    // the clock flies once everybody waits
    tokio::time::sleep(AT_ONCE).await;
    let back = |partition| {
        let (to, state) = (SeekTo::Start, SeekState::Keep);
        Seek { to, partition: Some(partition), state: Some(state), drops_waiting: false, dry_run: false }
    };
    let told = tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().seek(back(1))).await;
    assert_eq!(told.expect("it waits for its turn").unwrap()[0].to, 0);
    let told = tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().seek(back(0))).await;
    assert!(told.is_err(), "that one is in its call");
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_while_it_waits_for_its_turn_is_not_called_again() {
    let work = Script::each(|_| Step::Retry(Some(Duration::from_millis(10))));
    let tree = start_on(MemoryEngine::default(), &plan(1, "rate: 1/h"), &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    until("it failed", || status(&tree.snapshot(), "t/work").waiting == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dropped =
        tokio::time::timeout(AT_ONCE, tree.subscriber("t/work").unwrap().retry_queue().drop(&Filter::default())).await;
    assert_eq!(dropped.expect("it waits for its rate").unwrap(), 1);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(work.called().len(), 1);
    assert!(tree.is_settled());
}

#[tokio::test(start_paused = true)]
async fn concurrency_bounds_the_calls_of_all_lanes() {
    for (bound, most) in [("concurrency: 3", 3), ("concurrency: 1", 1), ("batch: { max: 1 }", 8)] {
        let (now, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (calls, most_seen) = (now.clone(), seen.clone());
        let work = Script::calls(move |call| {
            let (now, seen) = (calls.clone(), most_seen.clone());
            async move {
                seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
                by_event(&call, copy)
            }
        });
        let names = many(100);
        let tree = backlog(MemoryEngine::default(), &plan(8, bound), &work, &keyed(&names)).await;
        settled(&tree).await;
        assert_eq!(seen.load(SeqCst), most, "{bound}");
        let events: usize = contents(&tree, "out").await.iter().map(Vec::len).sum();
        assert_eq!(events, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_as_many_events_as_it_may() {
    let work = Script::each(copy);
    let names = many(10);
    let tree = backlog(MemoryEngine::default(), &plan(1, "batch: { max: 4 }"), &work, &keyed(&names)).await;
    settled(&tree).await;
    assert_eq!(work.batches().iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(data(&tree, "out").await, names);
}

/// Publishes events of some kilobytes each, at once or one after another, and tells the sizes of the calls.
async fn sizes(more: &str, kilobytes: &[usize], is_one_by_one: bool) -> Vec<usize> {
    let work = Script::each(copy);
    let plan = plan(1, more);
    let idle = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    let events: Vec<_> =
        (0..).zip(kilobytes).map(|(n, size)| event(&n.to_string(), &n.to_string(), &"x".repeat(size * 1000))).collect();
    if !is_one_by_one {
        assert!(idle.drain(PATIENCE).await);
    }
    for event in &events {
        idle.publisher().publish("in", std::slice::from_ref(event), None).await.unwrap();
        if is_one_by_one {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let tree = match is_one_by_one {
        true => idle,
        false => start_on(idle.engine().clone(), &plan, &[("work", &work)]).await,
    };
    settled(&tree).await;
    work.batches().iter().map(Vec::len).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_as_many_bytes_as_it_may_and_one_event_alone_may_have_more() {
    assert_eq!(sizes("batch: { size: 10KiB }", &[4, 4, 4, 4, 4], false).await, [2, 2, 1]);
    assert_eq!(sizes("batch: { size: 10KiB }", &[4, 40, 4, 4], false).await, [1, 1, 2]);
    assert_eq!(sizes("batch: { size: 10KiB, wait: 100ms }", &[4, 4, 4, 4, 4], true).await, [2, 1, 2]);
    assert_eq!(sizes("batch: { size: 10KiB, wait: 100ms }", &[4, 40, 4, 4], true).await, [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_more_but_no_longer_than_it_may() {
    let plan = plan(1, "batch: { max: 3, wait: 500ms }");
    let work = Script::each(copy);
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    let start = Instant::now();
    publish(&tree, "in", &["a"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(&tree, "in", &["b"]).await;
    until("the call", || work.called().len() == 1).await;
    let call = work.called()[0].clone();
    assert_eq!(call.data(), ["a", "b"]);
    assert_eq!((call.at - start).as_millis(), 500, "counted from the first");
    let start = Instant::now();
    publish(&tree, "in", &["c", "d", "e", "f"]).await;
    until("the call", || work.called().len() == 2).await;
    assert_eq!((work.called()[1].data(), (work.called()[1].at - start).as_millis()), (vec!["c", "d", "e"], 0));
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a", "b", "c", "d", "e", "f"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_does_not_wait_for_a_batch_to_fill() {
    let plan = plan(1, "batch: { max: 9, wait: 5s }");
    let work = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("a", 1) => Step::Retry(Some(Duration::from_millis(50))),
        _ => copy(given),
    });
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    until("it failed", || work.called().len() == 1).await;
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    let calls = work.called();
    let of = |name: &str| calls.iter().rev().find(|call| call.data() == [name]).unwrap().at;
    assert_eq!((of("a") - calls[0].at).as_millis(), 50);
    assert!((of("b") - calls[0].at).as_millis() >= 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_batch_to_fill() {
    let plan = plan(1, "batch: { max: 9, wait: 5s }");
    let work = Script::each(copy);
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(tree.drain(Duration::from_secs(1)).await);
    assert!(work.called().is_empty());
    let tree = start_on(tree.engine().clone(), &plan, &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a"]);
}
