//! Events that a subscriber does not take, by its `when`, and those of which that cannot be said.

use std::sync::Arc;

use tokio::sync::Notify;
use wattle::api::SubscriberStatus;
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::CallErrorKind;
use wattle::topology::Plan;

use crate::common::trees::{Seen, by_key, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, backlog_of, ends, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy};

fn plan(when: &str, more: &str) -> Plan {
    plan_of(&[&format!("{ONE}    when: {when}\n{more}")])
}

fn of<E: Engine>(tree: &Tree<E>) -> SubscriberStatus {
    status(&tree.snapshot(), "t/work")
}

/// The events of a batch as data: the key, a name, and whether it is taken; none where that is missing.
async fn run<H: Home>(home: &H, plan: &Plan, work: &Script, events: &[(&str, &str, Option<bool>)]) -> Tree<H::Engine> {
    let events: Vec<_> = events.iter().map(|(key, name, takes)| event(name, key, &text(name, *takes))).collect();
    backlog_of(home.open().await, plan, work, &events).await
}

fn text(name: &str, takes: Option<bool>) -> String {
    match takes {
        Some(takes) => format!(r#"{{"n":"{name}","takes":{takes}}}"#),
        None => format!(r#"{{"n":"{name}"}}"#),
    }
}

fn name(data: &str) -> String {
    data.split('"').nth(3).unwrap_or_default().to_owned()
}

fn names(data: &[String]) -> Vec<String> {
    data.iter().map(|data| name(data)).collect()
}

fn called(work: &Script) -> Vec<String> {
    work.called().iter().flat_map(|call| call.data().into_iter().map(name).collect::<Vec<_>>()).collect()
}

async fn passed_over<H: Home>(home: H) {
    let work = Script::each(copy);
    let events = [
        ("k", "a", Some(true)),
        ("k", "b", Some(false)),
        ("k", "c", Some(false)),
        ("l", "d", Some(true)),
        ("k", "e", None),
        ("k", "f", Some(true)),
        ("k", "g", Some(false)),
    ];
    let tree = run(&home, &plan("data.takes", ""), &work, &events).await;
    settled(&tree).await;
    assert_eq!(names(&data(&tree, "out").await), ["a", "d", "f"]);
    assert_eq!(called(&work), ["a", "d", "f"], "the others are not handed in");
    let now = of(&tree);
    assert_eq!((now.passed_over, now.handled, now.dead_lettered, now.lag, now.waiting), (3, 4, 1, 0, 0));
    let letters = only(&tree, "work.dead").await;
    let [letter] = <[Seen; 1]>::try_from(letters).unwrap();
    assert_eq!((name(letter.data()).as_str(), letter.attribute("wattlefailure").as_str()), ("e", "when"));
    assert_eq!(letter.attribute("wattleattempts"), "1");
    let reason = "its `when` has no answer: this event has no `data.takes`";
    assert_eq!(letter.attribute("wattlereason"), reason);
    ends(tree).await;
    let calls = work.called().len();
    let tree = start_on(home.open().await, &plan("data.takes", ""), &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!((of(&tree).passed_over, work.called().len()), (0, calls), "nothing again");
}

#[tokio::test]
async fn events_that_are_not_taken_are_counted_and_not_handed_in_in_memory() {
    passed_over(MemoryEngine::default()).await;
}

#[tokio::test]
async fn events_that_are_not_taken_are_counted_and_not_handed_in_on_disk() {
    passed_over(tempfile::tempdir().unwrap()).await;
}

fn numbered(count: usize) -> Vec<bytes::Bytes> {
    (0..count).map(|n| event(&format!("e{n}"), &format!("k{}", n % 7), &format!(r#"{{"n":{n}}}"#))).collect()
}

async fn whole_batches<H: Home>(home: H) {
    let work = Script::each(|given| {
        assert_eq!(given.data, format!(r#"{{"n":{}}}"#, &given.id[1..]), "what it asks of an event is of that event");
        copy(given)
    });
    let tree = backlog_of(home.open().await, &plan("data.n % 2 == 0", ""), &work, &numbered(1_000)).await;
    settled(&tree).await;
    let sizes: Vec<_> = work.batches().iter().map(Vec::len).collect();
    assert!(sizes.iter().sum::<usize>() == 500 && sizes.len() <= 5, "{sizes:?}");
    let now = of(&tree);
    assert_eq!((now.passed_over, now.handled, now.lag), (500, 500, 0));
    assert_eq!(data(&tree, "out").await.len(), 500);
}

#[tokio::test]
async fn a_call_has_all_of_a_batch_that_pass_whatever_lies_between_in_memory() {
    whole_batches(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_call_has_all_of_a_batch_that_pass_whatever_lies_between_on_disk() {
    whole_batches(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn between_events_that_are_passed_over_the_one_that_fails_is_blamed() {
    let work = Script::each(|given| match given.id.as_str() {
        "e6" => Step::Break(CallErrorKind::Trap),
        "e10" => Step::Reject,
        _ => copy(given),
    });
    let tree = backlog_of(MemoryEngine::default(), &plan("data.n % 2 == 0", ""), &work, &numbered(14)).await;
    settled(&tree).await;
    let letters = only(&tree, "work.dead").await;
    let place = |seen: &Seen| (seen.id().to_owned(), seen.lineage.unwrap().offset, seen.attribute("wattlefailure"));
    assert_eq!(
        letters.iter().map(place).collect::<Vec<_>>(),
        [("e10".into(), 10, "reject".into()), ("e6".into(), 6, "trap".into())]
    );
    let made: Vec<_> = only(&tree, "out").await.iter().map(|seen| seen.lineage.unwrap().offset).collect();
    assert_eq!(made, [0, 2, 4, 8, 12]);
    let now = of(&tree);
    assert_eq!((now.passed_over, now.handled, now.dead_lettered, now.lag), (7, 7, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_more_counts_what_passes() {
    let work = Script::each(copy);
    let more = "    batch: { max: 3, wait: 1s }\n";
    let tree = backlog_of(MemoryEngine::default(), &plan("data.n % 2 == 0", more), &work, &numbered(14)).await;
    settled(&tree).await;
    assert_eq!(work.batches().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(of(&tree).passed_over, 7);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_an_answer_keeps_its_place_behind_those_of_its_key() {
    let work = Script::each(|given| match name(&given.data).as_str() {
        "a" => Step::Retry(None),
        _ => copy(given),
    });
    let events =
        [("k", "a", Some(true)), ("k", "b", None), ("k", "c", Some(false)), ("k", "d", Some(true)), ("l", "x", None)];
    let tree = run(&MemoryEngine::default(), &plan("data.takes", ""), &work, &events).await;
    settled(&tree).await;
    let letters: Vec<_> = only(&tree, "work.dead").await.iter().map(|seen| name(seen.data())).collect();
    assert_eq!(letters, ["x", "a", "b"], "another key does not wait");
    assert_eq!(names(&data(&tree, "out").await), ["d"]);
    assert_eq!(of(&tree).passed_over, 1);
    assert!(!called(&work).contains(&"b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_event_without_an_answer_is_parked_and_holds_its_key() {
    let work = Script::each(copy);
    let events = [("k", "a", None), ("k", "b", Some(true)), ("k", "c", Some(false)), ("l", "d", Some(true))];
    let tree = run(&MemoryEngine::default(), &plan("data.takes", "    on_failure: park\n"), &work, &events).await;
    settled(&tree).await;
    assert_eq!(names(&data(&tree, "out").await), ["d"]);
    assert_eq!((of(&tree).parked, of(&tree).waiting, of(&tree).passed_over), (1, 2, 1));
}

async fn another_condition<H: Home>(home: H) {
    let work = Script::each(|given| match name(&given.data).as_str() {
        "a" if given.attempt == 1 => Step::Retry(Some(std::time::Duration::from_millis(1))),
        _ => copy(given),
    });
    let slow = Script::each(|given| match name(&given.data).as_str() {
        "a" => Step::Retry(Some(std::time::Duration::from_secs(5))),
        _ => copy(given),
    });
    let events = [("k", "a", Some(true)), ("k", "b", Some(false)), ("k", "c", Some(true)), ("k", "d", None)];
    let tree = run(&home, &plan("true", ""), &slow, &events).await;
    until("all wait", || of(&tree).waiting == 4).await;
    ends(tree).await;
    let tree = start_on(home.open().await, &plan("data.takes", ""), &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!(names(&by_key(&tree, "out").await["k"]), ["a", "c"]);
    assert_eq!(called(&work), ["a", "c"]);
    assert_eq!(of(&tree).passed_over, 1);
    assert_eq!(only(&tree, "work.dead").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_asked_by_the_condition_of_its_turn_in_memory() {
    another_condition(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_asked_by_the_condition_of_its_turn_on_disk() {
    another_condition(tempfile::tempdir().unwrap()).await;
}

#[tokio::test]
async fn a_lane_that_asks_long_about_each_event_obeys_between() {
    let gate = Arc::new(Notify::new());
    let shut = gate.clone();
    let work = Script::calls(move |call| {
        let gate = shut.clone();
        async move {
            gate.notified().await;
            by_event(&call, copy)
        }
    });
    let zeros = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(9));
    let events: Vec<_> = (0..100).map(|number| event(&number.to_string(), "k", &zeros)).collect();
    let plan = plan("\"id == '0' || !data.a.all(x, data.a.all(y, x == y))\"", "");
    let tree = backlog_of(MemoryEngine::default(), &plan, &work, &events).await;
    until("the first one is handled", || !work.called().is_empty()).await;
    let subscriber = tree.subscriber("work").unwrap();
    let (paused, ()) = tokio::join!(subscriber.pause(), async {
        tokio::task::yield_now().await;
        gate.notify_one();
    });
    paused.unwrap();
    assert!(of(&tree).lag > 0, "it was asked about all of them first");
    tree.subscriber("work").unwrap().resume().await.unwrap();
    settled(&tree).await;
    assert_eq!(called(&work).len(), 1, "the others are not for it");
}
