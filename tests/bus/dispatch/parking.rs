//! What becomes of events that failed for the last time where they are not given up: parked keys, halted lanes.

use wattle::api::{Filter, LaneState, ListPosition, SubscriberStatus};
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::CallErrorKind;
use wattle::model::partition_of;
use wattle::topology::Plan;

use crate::common::trees::{by_key, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, backlog, ends, start_on};
use crate::dispatch::script::{Given, Script, Step, copy, out};

fn plan(on_failure: &str) -> Plan {
    plan_of(&[&format!("{ONE}    on_failure: {on_failure}\n")])
}

fn of<E: Engine>(tree: &Tree<E>) -> SubscriberStatus {
    status(&tree.snapshot(), "t/work")
}

/// Acts on event `b` as told, copies all others.
fn on_b(act: impl Fn(&Given) -> Step + Send + Sync + 'static) -> Script {
    Script::each(move |given| if given.data == "b" { act(given) } else { copy(given) })
}

const EVENTS: [(&str, &str); 7] =
    [("k", "a"), ("k", "b"), ("k", "c"), ("x", "x0"), ("k", "d"), ("x", "x1"), ("y", "y0")];

async fn parked<H: Home>(home: H) {
    let plan = plan("park");
    let work = on_b(|_| Step::Break(CallErrorKind::Trap));
    let mut tree = backlog(home.open().await, &plan, &work, &EVENTS).await;
    for life in 0..3 {
        settled(&tree).await;
        let out = by_key(&tree, "out").await;
        assert_eq!((&out["k"], out["x"].len(), out["y"].len()), (&vec!["a".to_owned()], 2 + life, 1));
        let now = of(&tree);
        assert_eq!((now.waiting, now.parked, now.lag, now.dead_lettered), (3, 1, 0, 0), "life {life}");
        assert_eq!(now.lanes, [LaneState::Running]);
        assert!(only(&tree, "work.dead").await.is_empty());
        ends(tree).await;
        tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
        let more = format!("more{life}");
        tree.publisher().publish("in", &[event(&more, "x", &more)], None).await.unwrap();
    }
    settled(&tree).await;
    assert_eq!(work.times()["b"], 1 + 3, "in the batch, and three attempts");
    assert_eq!(work.times()["d"], 1, "only in that batch");
    tree.publisher().publish("in", &[event("e", "k", "e")], None).await.unwrap();
    settled(&tree).await;
    assert_eq!((of(&tree).waiting, work.times().contains_key("e")), (4, false), "what comes later waits as well");
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_holds_its_successors_and_nobody_else_in_memory() {
    parked(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_holds_its_successors_and_nobody_else_on_disk() {
    parked(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn where_parked_events_fill_the_set_the_lane_stands_still() {
    let plan = plan_of(&[&format!("{ONE}    on_failure: park\n    retry_queue: {{ max: 2 }}\n")]);
    let work = on_b(|_| Step::Retry(None));
    let tree = backlog(MemoryEngine::default(), &plan, &work, &EVENTS).await;
    until("it is full", || of(&tree).lanes == [LaneState::Full] && of(&tree).parked == 1).await;
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    assert_eq!((of(&tree).waiting, of(&tree).lag, of(&tree).lanes), (2, 3, vec![LaneState::Full]));
    assert!(!tree.is_settled(), "there is more to do");
    assert_eq!(data(&tree, "out").await, ["a", "x0"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_rejects_is_not_parked() {
    let work = on_b(|_| Step::Reject);
    let tree = backlog(MemoryEngine::default(), &plan("park"), &work, &EVENTS).await;
    settled(&tree).await;
    assert_eq!(by_key(&tree, "out").await["k"], ["a", "c", "d"]);
    let letters = only(&tree, "work.dead").await;
    assert_eq!((letters.len(), letters[0].attribute("wattlefailure").as_str()), (1, "reject"));
    assert_eq!((of(&tree).waiting, of(&tree).parked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_that_waited_for_its_key_goes_to_the_dead_letters_in_its_turn() {
    let work = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("b", 1..3) => Step::Retry(None),
        ("c", _) => Step::Reject,
        _ => copy(given),
    });
    let tree = backlog(MemoryEngine::default(), &plan("park"), &work, &EVENTS).await;
    settled(&tree).await;
    assert_eq!(by_key(&tree, "out").await["k"], ["a", "b", "d"]);
    assert_eq!(only(&tree, "work.dead").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_output_is_parked_at_once() {
    let work = on_b(|given| {
        Step::Emit(vec![out(given.data.clone()), crate::dispatch::script::on(7, "there is no such port")])
    });
    let tree = backlog(MemoryEngine::default(), &plan("park"), &work, &EVENTS).await;
    settled(&tree).await;
    assert_eq!((of(&tree).parked, of(&tree).waiting, work.times()["b"]), (1, 3, 1));
    assert_eq!(by_key(&tree, "out").await["k"], ["a"]);
}

async fn halted<H: Home>(home: H, step: Step) {
    let plan = plan("halt");
    let work = on_b(move |_| step.clone());
    let mut tree = backlog(home.open().await, &plan, &work, &EVENTS).await;
    assert!(plan.topics.iter().all(|topic| topic.dead_letters_of.is_none()));
    let mut calls = None;
    for life in 0..3 {
        until("it halts", || of(&tree).lanes == [LaneState::Halted]).await;
        let before = *calls.get_or_insert(work.called().len());
        tree.publisher().publish("in", &[event(&format!("z{life}"), "z", "z")], None).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1000)).await;
        assert_eq!(work.called().len(), before, "it calls nothing more, life {life}");
        let now = of(&tree);
        assert_eq!((now.lanes.as_slice(), now.parked), (&[LaneState::Halted][..], 0));
        // what was committed, what waits, and what is to be read: nothing is lost
        let done = data(&tree, "out").await.len() as u64;
        assert_eq!(done + now.waiting + now.lag, 7 + life + 1, "{now:?}");
        assert!(!tree.is_settled(), "there is more to do");
        ends(tree).await;
        tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    }
    assert_eq!(by_key(&tree, "out").await["k"], ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_halted_lane_does_nothing_more_also_after_a_restart_in_memory() {
    halted(MemoryEngine::default(), Step::Retry(None)).await;
}

#[tokio::test(start_paused = true)]
async fn a_halted_lane_does_nothing_more_also_after_a_restart_on_disk() {
    halted(tempfile::tempdir().unwrap(), Step::Break(CallErrorKind::Trap)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reject_halts_where_there_are_no_dead_letters_in_memory() {
    halted(MemoryEngine::default(), Step::Reject).await;
}

#[tokio::test(start_paused = true)]
async fn a_reject_halts_where_there_are_no_dead_letters_on_disk() {
    halted(tempfile::tempdir().unwrap(), Step::Reject).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_halts_alone() {
    let yaml = format!("{}    on_failure: halt\n", ONE.replace("in: {}", "in: { partitions: 4 }"));
    let work = on_b(|_| Step::Reject);
    let names: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let mut events = vec![("b", "b")];
    events.extend(names.iter().map(|name| (name.as_str(), name.as_str())));
    let tree = backlog(MemoryEngine::default(), &plan_of(&[&yaml]), &work, &events).await;
    let lane = partition_of("b", 4);
    let others = names.iter().filter(|name| partition_of(name, 4) != lane).count() as u64;
    until("it halts", || of(&tree).lanes[lane as usize] == LaneState::Halted).await;
    until("the others are done", || of(&tree).handled >= others).await;
    assert_eq!(of(&tree).lanes.iter().filter(|lane| **lane == LaneState::Halted).count(), 1);
    assert_eq!((of(&tree).handled, of(&tree).waiting, of(&tree).lag), (others, 1, 40 - others));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_goes_on_after_a_halt_tries_as_if_for_the_first_time() {
    for step in [Step::Reject, Step::Retry(None)] {
        let work = on_b(move |_| step.clone());
        let tree = backlog(MemoryEngine::default(), &plan("halt"), &work, &EVENTS).await;
        let attempts = || {
            let events = work.called().into_iter().flat_map(|call| call.events).filter(|given| given.data == "b");
            events.map(|given| given.attempt).collect::<Vec<_>>()
        };
        until("it halts", || of(&tree).lanes == [LaneState::Halted]).await;
        let before = attempts();
        tree.subscriber("work").unwrap().resume().await.unwrap();
        until("it halts again", || of(&tree).lanes == [LaneState::Halted] && attempts().len() == 2 * before.len())
            .await;
        assert_eq!(attempts(), [before.clone(), before].concat());
    }
}

async fn numbers<E: Engine>(tree: &Tree<E>) -> Vec<u64> {
    let page =
        tree.subscriber("work").unwrap().retry_queue().list(&Filter::default(), ListPosition::default(), 100).unwrap();
    page.found.iter().map(|failed| failed.number).collect()
}

/// Whoever comes back with a number that was listed before a restart does not hit another event.
async fn numbered<H: Home>(home: H) {
    let (plan, mut seen) = (plan("park"), std::collections::BTreeSet::new());
    for life in 0..3 {
        let work = Script::each(|_| Step::Retry(None));
        let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
        for event_of in ["a", "b"] {
            let name = format!("{event_of}{life}");
            tree.publisher().publish("in", &[event(&name, &name, &name)], None).await.unwrap();
        }
        settled(&tree).await;
        let numbers = numbers(&tree).await;
        assert_eq!(numbers.len(), 2);
        assert!(numbers.iter().all(|number| seen.insert(*number)), "life {life}: {numbers:?} of {seen:?}");
        assert_eq!(tree.subscriber("work").unwrap().retry_queue().drop(&Filter::default()).await.unwrap(), 2);
        ends(tree).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_is_no_other_events_after_a_restart_in_memory() {
    numbered(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_number_is_no_other_events_after_a_restart_on_disk() {
    numbered(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn who_mistypes_a_subscriber_is_told_the_nearest() {
    let work = Script::each(copy);
    let tree = start_on(MemoryEngine::default(), &plan("park"), &[("work", &work)]).await;
    for (asked, told) in [
        ("wrok", "there is no subscriber `wrok`; did you mean `work`?"),
        ("t/wor", "there is no subscriber `t/wor`; did you mean `t/work`?"),
        ("something", "there is no subscriber `something`; `wattle status` lists them"),
    ] {
        assert_eq!(tree.subscriber(asked).err().map(|error| error.to_string()).as_deref(), Some(told));
    }
}
