//! Lifecycles: impossible orders of states are refused, in publishes and in outputs, in the order of places.

use wattle::api::Numbering;
use wattle::dispatch::publish::EventRefusal;
use wattle::dispatch::{PublishError, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{AppendError, Engine, Fence, GuardReason};
use wattle::model::{Attribute, Event};

use crate::common::trees::{data, event, only, plan_of, settled, status};
use crate::dispatch::bed::{Home, ends, start, start_on};
use crate::dispatch::script::{Given, Script, Step, copy, out};

const LIFECYCLE: &str = "{ state: data.s, start: [new], allow: { new: [paid], paid: [done] } }";

/// `in` -> `work` -> `out`, one or both of the topics with a lifecycle.
fn yaml(input: bool, output: bool, more: &str) -> String {
    let topic = |name: &str, has: bool| match has {
        true => format!("  {name}: {{ lifecycle: {LIFECYCLE} }}\n"),
        false => format!("  {name}: {{}}\n"),
    };
    format!(
        "wattle: v1\nname: t\ntopics:\n{}{}subscribers:\n  work:\n    from: in\n    plugin: work.wasm\n    to: {{ out: \
         out }}\n    retry: {{ attempts: 2, backoff: {{ initial: 10ms, max: 10ms }} }}\n{more}",
        topic("in", input),
        topic("out", output)
    )
}

fn state(id: &str, key: &str, state: &str) -> bytes::Bytes {
    event(id, key, &format!(r#"{{"s":"{state}","id":"{id}"}}"#))
}

async fn publish<E: Engine>(tree: &Tree<E>, events: &[bytes::Bytes]) -> Result<(), PublishError> {
    tree.publisher().publish("in", events, None).await.map(drop)
}

fn refused(result: Result<(), PublishError>) -> (usize, String) {
    match result.unwrap_err() {
        PublishError::Event { index, error: EventRefusal::Lifecycle(GuardReason::Order { from, to }), .. } => {
            (index, format!("{} > {to}", from.unwrap_or_default()))
        }
        other => panic!("{other}"),
    }
}

/// The ids of what is in a topic.
async fn ids<E: Engine>(tree: &Tree<E>, topic: &str) -> Vec<String> {
    let found = data(tree, topic).await;
    found
        .iter()
        .map(|data| serde_json::from_str::<serde_json::Value>(data).unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn publishes_are_guarded(home: impl Home) {
    let (plan, work) = (plan_of(&[&yaml(true, false, "")]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    publish(&tree, &[state("1", "a", "new"), state("2", "a", "paid"), state("3", "b", "new")]).await.unwrap();
    let order = publish(&tree, &[state("4", "c", "new"), state("5", "b", "done")]).await;
    assert_eq!(refused(order), (1, "new > done".to_owned()), "and nothing of it is published");
    assert_eq!(refused(publish(&tree, &[state("6", "c", "paid")]).await), (0, " > paid".to_owned()));
    settled(&tree).await;
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(refused(publish(&tree, &[state("7", "a", "new")]).await), (0, "paid > new".to_owned()));
    publish(&tree, &[state("8", "a", "done")]).await.unwrap();
    assert_eq!(refused(publish(&tree, &[state("9", "a", "new")]).await), (0, "done > new".to_owned()), "it has ended");
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["1", "2", "3", "8"]);
    assert_eq!(ids(&tree, "out").await, ["1", "2", "3", "8"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_of_an_impossible_state_is_refused_whole_in_memory() {
    publishes_are_guarded(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_publish_of_an_impossible_state_is_refused_whole_on_disk() {
    publishes_are_guarded(tempfile::tempdir().unwrap()).await;
}

/// Events of one stream, each in a request of its own, all of them handed in before any is answered.
async fn streamed<E: Engine>(tree: &Tree<E>, events: Vec<bytes::Bytes>) -> Vec<Result<(), PublishError>> {
    let (fence, mut answers) = (Fence::default(), Vec::new());
    for event in events {
        let (publisher, fence) = (tree.publisher().clone(), fence.clone());
        let admission = publisher.admit("in", 1).await.unwrap();
        let mut answer = Box::pin(async move {
            publisher.publish_admitted("in", &[event], None, admission, Some(fence)).await.map(drop)
        });
        // the first poll hands it in
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(answer.as_mut().poll(cx))).await;
        answers.push((answer, first));
    }
    let mut results = Vec::new();
    for (answer, first) in answers {
        results.push(match first {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => answer.await,
        });
    }
    results
}

async fn a_refusal_ends_its_stream(home: impl Home) {
    let (plan, work) = (plan_of(&[&yaml(true, false, "")]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    let events = vec![state("1", "a", "new"), state("2", "b", "paid"), state("3", "c", "new"), state("4", "a", "paid")];
    let mut results = streamed(&tree, events).await.into_iter();
    assert!(results.next().unwrap().is_ok());
    assert_eq!(refused(results.next().unwrap()), (0, " > paid".to_owned()));
    for behind in results {
        let error = behind.unwrap_err();
        assert!(matches!(error, PublishError::Append(AppendError::Fenced)), "{error}");
    }
    assert_eq!(ids(&tree, "in").await, ["1"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_its_stream_in_memory() {
    a_refusal_ends_its_stream(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_refusal_ends_its_stream_on_disk() {
    a_refusal_ends_its_stream(tempfile::tempdir().unwrap()).await;
}

/// An output with the data of the event.
fn same(given: &Given) -> Step {
    Step::Emit(vec![out(given.data.clone())])
}

async fn outputs_are_guarded(home: impl Home) {
    let (plan, work) = (plan_of(&[&yaml(false, true, "")]), Script::each(same));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    let events = [
        state("1", "a", "new"),
        state("2", "b", "new"),
        state("3", "a", "done"), // impossible
        state("4", "b", "paid"),
        state("5", "c", "paid"), // impossible
        state("6", "a", "paid"),
        state("7", "d", "lost"), // no state
    ];
    publish(&tree, &events).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "out").await, ["1", "2", "4", "6"]);
    let dead = only(&tree, "work.dead").await;
    let reasons: Vec<_> =
        dead.iter().map(|dead| (dead.attribute("wattlefailure"), dead.attribute("wattlereason"))).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().all(|(kind, _)| kind == "refused"), "{reasons:?}");
    assert!(reasons[0].1.contains("`done` to follow `new`"), "{reasons:?}");
    assert!(reasons[1].1.contains("`paid` as the first state"), "{reasons:?}");
    assert!(reasons[2].1.contains("`lost` is no state"), "{reasons:?}");
    let seen = status(&tree.snapshot(), "t/work");
    assert_eq!((seen.handled, seen.emitted, seen.dead_lettered), (7, 4, 3));
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    publish(&tree, &[state("8", "b", "done"), state("9", "a", "new")]).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "out").await, ["1", "2", "4", "6", "8"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_output_of_an_impossible_state_fails_its_event_and_no_other_in_memory() {
    outputs_are_guarded(MemoryEngine::default()).await;
}

#[tokio::test]
async fn an_output_of_an_impossible_state_fails_its_event_and_no_other_on_disk() {
    outputs_are_guarded(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_event_wrote_is_not_there() {
    let work = Script::each(|given| {
        given.state.set("b", &given.key, given.data.clone());
        same(given)
    });
    let tree = start(&yaml(false, true, ""), &[("work", &work)]).await;
    publish(&tree, &[state("1", "a", "new"), state("2", "z", "paid"), state("3", "a", "paid")]).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "out").await, ["1", "3"]);
    let looks = Script::each(|given| {
        assert_eq!(given.state.keys("b", None, 9), ["a"], "the refused one left nothing");
        Step::Emit(vec![])
    });
    crate::dispatch::bed::ends(tree.clone()).await;
    let plan = plan_of(&[&yaml(false, true, "")]);
    let tree = start_on(tree.engine().clone(), &plan, &[("work", &looks)]).await;
    publish(&tree, &[state("4", "q", "new")]).await.unwrap();
    settled(&tree).await;
    assert!(!looks.called().is_empty());
    assert_eq!(only(&tree, "work.dead").await.len(), 1, "only the refused one");
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_is_answered_and_not_judged_again() {
    let tree = start(&yaml(true, false, ""), &[("work", &Script::each(copy))]).await;
    let first = state("1", "a", "new");
    publish(&tree, std::slice::from_ref(&first)).await.unwrap();
    let again = tree.publisher().publish("in", &[first.clone(), state("2", "a", "paid")], None).await.unwrap();
    assert_eq!(again.duplicates(), 1);
    let order = publish(&tree, &[state("3", "x", "new"), state("4", "a", "paid")]).await;
    assert_eq!(refused(order).0, 1);
    publish(&tree, &[state("3", "x", "new")]).await.unwrap();
    assert_eq!(ids(&tree, "in").await, ["1", "2", "3"], "a refused event is not taken for one that was published");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_judged_when_it_is_due() {
    let tree = start(&yaml(true, false, ""), &[("work", &Script::each(copy))]).await;
    let late = |id: &str, key: &str, name: &str| {
        let mut event = Event::decode(&state(id, key, name)).unwrap();
        event.attributes.insert("delay".into(), Attribute::String("5s".into()));
        event.encode()
    };
    publish(&tree, &[late("1", "a", "paid"), late("2", "b", "paid"), late("3", "c", "new")]).await.unwrap();
    publish(&tree, &[state("4", "a", "new")]).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["4", "1", "3"]);
    let refused = only(&tree, "in@refused").await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].attribute("wattlereason").contains("`paid` as the first state"), "{refused:?}");
    assert_eq!((refused[0].id(), refused[0].key.as_str()), ("2", "b"));
}

/// The topology with more in its lifecycle.
fn yaml_with(more: &str) -> String {
    yaml(true, false, "").replace("start: [new]", &format!("start: [new], {more}"))
}

#[tokio::test(start_paused = true)]
async fn a_late_resend_revives_nothing_for_as_long_as_the_end_is_remembered() {
    let tree = start(&yaml_with("remember: 1h"), &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "new"), state("2", "a", "paid"), state("3", "a", "done")]).await.unwrap();
    let order = publish(&tree, &[state("4", "a", "new")]).await;
    assert_eq!(refused(order), (0, "done > new".to_owned()));
    tokio::time::sleep(std::time::Duration::from_secs(3599)).await;
    assert!(publish(&tree, &[state("5", "a", "new")]).await.is_err());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    publish(&tree, &[state("6", "a", "new")]).await.unwrap();
    assert_eq!(ids(&tree, "in").await, ["1", "2", "3", "6"]);
}

#[tokio::test(start_paused = true)]
async fn it_begins_again_where_it_restarts() {
    let tree = start(&yaml_with("restart: true"), &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "new"), state("2", "a", "paid"), state("3", "a", "done")]).await.unwrap();
    publish(&tree, &[state("4", "a", "new")]).await.unwrap();
    assert_eq!(ids(&tree, "in").await, ["1", "2", "3", "4"]);
}

const HOLD: &str = "out_of_order: { hold: 1h, max: 3 }";

/// How many events are held for `in`.
fn held<E: Engine>(tree: &Tree<E>) -> u64 {
    let snapshot = tree.snapshot();
    snapshot.topics.iter().find(|topic| topic.name == "t/in").and_then(|topic| topic.states).unwrap().held
}

/// Waits until so many are held.
async fn until_held<E: Engine>(tree: &Tree<E>, count: u64) {
    while held(tree) != count {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

async fn a_held_event_follows(home: impl Home) {
    let (plan, work) = (plan_of(&[&yaml_with(HOLD)]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    let events = [state("1", "a", "done"), state("2", "b", "new"), state("3", "a", "paid")];
    let published = tree.publisher().publish("in", &events, None).await.unwrap();
    assert_eq!(published.held, [0, 2]);
    let offsets: Vec<_> = published.places.iter().map(|place| place.offset).collect();
    assert_eq!(offsets, [None, Some(0), None], "what is held has no place");
    assert_eq!(held(&tree), 2);
    assert_eq!(ids(&tree, "in").await, ["2"]);
    // held ones are recognised, in the same life and in the next
    for _ in 0..2 {
        let again = tree.publisher().publish("in", &events, None).await.unwrap();
        assert_eq!((again.duplicates(), held(&tree)), (3, 2));
    }
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(tree.publisher().publish("in", &events, None).await.unwrap().duplicates(), 3);
    publish(&tree, &[state("4", "a", "new")]).await.unwrap();
    until_held(&tree, 0).await;
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["2", "4", "3", "1"], "each as soon as it may follow");
    assert_eq!(tree.publisher().publish("in", &events, None).await.unwrap().duplicates(), 3, "also when they follow");
    assert_eq!(ids(&tree, "out").await, ["2", "4", "3", "1"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_out_of_order_is_held_until_it_may_follow_in_memory() {
    a_held_event_follows(MemoryEngine::default()).await;
}

#[tokio::test]
async fn an_event_that_is_out_of_order_is_held_until_it_may_follow_on_disk() {
    a_held_event_follows(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_order_does_not_ship() {
    let orders =
        "{ state: data.s, start: [new], allow: { new: [paid, cancelled], paid: [done] }, out_of_order: { hold: 1h } }";
    let yaml = yaml(true, false, "").replace(LIFECYCLE, orders);
    let tree = start(&yaml, &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "cancelled"), state("2", "a", "new")]).await.unwrap();
    until_held(&tree, 0).await;
    for late in ["paid", "new", "cancelled"] {
        let late = publish(&tree, &[state(&format!("late {late}"), "a", late)]).await;
        assert!(refused(late).1.starts_with("cancelled > "), "its life has ended: to wait does not help");
    }
    assert_eq!(ids(&tree, "in").await, ["2", "1"]);
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["2", "1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_for_too_long_is_refused_and_kept() {
    let tree = start(&yaml_with(HOLD), &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "paid"), state("2", "b", "paid")]).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3590)).await;
    publish(&tree, &[state("3", "b", "new")]).await.unwrap();
    settled(&tree).await;
    assert_eq!((held(&tree), ids(&tree, "in").await), (0, vec!["3".to_owned(), "2".to_owned()]));
    let refused = only(&tree, "in@refused").await;
    assert_eq!((refused.len(), refused[0].id(), refused[0].key.as_str()), (1, "1", "a"));
    assert!(refused[0].attribute("wattlereason").contains("could not follow"), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_follow_when_its_time_is_over_follows() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use tokio::time::{Instant, sleep_until};

    let tree = start(&yaml_with(HOLD), &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "paid")]).await.unwrap();
    while tree.next_due_ns().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // its key goes on in the moment in which its time is over: its lane, which wakes then, has looked at neither
    let left_ns = tree.next_due_ns().unwrap() - tree.engine().trusted_now_ns();
    let due = Instant::now() + std::time::Duration::from_nanos(left_ns);
    let is_done = Arc::new(AtomicBool::new(false));
    // those who wake in the same moment do so in the order in which they fell asleep, or in the opposite one
    let producers = [3_000, 1_500, 700, 300, 0].map(|before_ms| {
        let (tree, is_done) = (tree.clone(), is_done.clone());
        tokio::spawn(async move {
            sleep_until(due - std::time::Duration::from_millis(before_ms)).await;
            sleep_until(due).await;
            if !is_done.swap(true, SeqCst) {
                publish(&tree, &[state("2", "a", "new")]).await.unwrap();
            }
        })
    });
    for producer in producers {
        producer.await.unwrap();
    }
    settled(&tree).await;
    assert_eq!((ids(&tree, "in").await, held(&tree)), (vec!["2".to_owned(), "1".to_owned()], 0));
    assert!(only(&tree, "in@refused").await.is_empty(), "it was not given up");
}

#[tokio::test(start_paused = true)]
async fn no_more_are_held_than_may() {
    let tree = start(&yaml_with(HOLD), &[("work", &Script::each(copy))]).await;
    publish(&tree, &[state("1", "a", "paid"), state("2", "a", "done"), state("3", "b", "paid")]).await.unwrap();
    let full = publish(&tree, &[state("4", "c", "new"), state("5", "c", "done")]).await.unwrap_err();
    assert!(full.to_string().contains("3 events of this partition are held already"), "{full}");
    assert_eq!(held(&tree), 3);
    publish(&tree, &[state("6", "a", "new")]).await.unwrap();
    until_held(&tree, 1).await;
    publish(&tree, &[state("7", "c", "done")]).await.unwrap();
    assert_eq!(held(&tree), 2);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_out_of_order_is_held_and_fails_nothing() {
    let yaml = yaml(false, true, "").replace("start: [new]", &format!("start: [new], {HOLD}"));
    let tree = start(&yaml, &[("work", &Script::each(same))]).await;
    publish(&tree, &[state("1", "a", "paid"), state("2", "b", "new"), state("3", "a", "new")]).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "out").await, ["2", "3", "1"]);
    assert!(only(&tree, "work.dead").await.is_empty());
    assert!(only(&tree, "out@refused").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn numbered_events_that_are_held_are_recognised() {
    use wattle::api::Numbering;
    let tree = start(&yaml_with(HOLD), &[("work", &Script::each(copy))]).await;
    let numbering = || Some(Numbering { producer: "p".into(), first_sequence: 1, began_ns: None });
    let events = [state("1", "a", "new"), state("2", "b", "paid"), state("3", "a", "paid"), state("4", "c", "paid")];
    let first = tree.publisher().publish("in", &events, numbering()).await.unwrap();
    assert_eq!(first.held, [1, 3]);
    for _ in 0..2 {
        let again = tree.publisher().publish("in", &events, numbering()).await.unwrap();
        assert_eq!((again.duplicates(), again.held.len(), held(&tree)), (4, 0, 2));
    }
    publish(&tree, &[state("5", "b", "new")]).await.unwrap();
    until_held(&tree, 1).await;
    assert_eq!(tree.publisher().publish("in", &events, numbering()).await.unwrap().duplicates(), 4);
    assert_eq!(ids(&tree, "in").await, ["1", "3", "5", "2"]);
}

async fn repetitions_are_told_where_the_first_one_is(home: impl Home) {
    let (plan, work) = (plan_of(&[&yaml_with(HOLD)]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    let (held, placed) = (state("1", "a", "paid"), state("2", "b", "new"));
    let events = [held.clone(), placed.clone(), placed, held];
    let published = tree.publisher().publish("in", &events, None).await.unwrap();
    let places: Vec<_> = published.places.iter().map(|place| (place.offset, place.is_duplicate)).collect();
    assert_eq!(places, [(None, false), (Some(0), false), (Some(0), true), (None, true)]);
    assert_eq!((published.held, ids(&tree, "in").await), (vec![0], vec!["2".to_owned()]));
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn what_repeats_a_held_one_of_its_publish_has_no_place_in_memory() {
    repetitions_are_told_where_the_first_one_is(MemoryEngine::default()).await;
}

#[tokio::test]
async fn what_repeats_a_held_one_of_its_publish_has_no_place_on_disk() {
    repetitions_are_told_where_the_first_one_is(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_of_no_state_is_refused() {
    let tree = start(&yaml(true, false, ""), &[("work", &Script::each(copy))]).await;
    let unknown = publish(&tree, &[state("1", "a", "lost")]).await.unwrap_err().to_string();
    assert!(
        unknown.contains("`lost` is no state of the topic's lifecycle, which has `done`, `new`, `paid`"),
        "{unknown}"
    );
    let none = publish(&tree, &[event("1", "a", "{}")]).await.unwrap_err().to_string();
    assert!(none.contains("cannot tell its state: this event has no `data.s`"), "{none}");
}

async fn refusals_are_dealt_with_one_by_one(is_refused: impl Fn(usize) -> bool) {
    let (plan, work) = (plan_of(&[&yaml(false, true, "")]), Script::each(copy));
    let engine = MemoryEngine::default();
    let events: Vec<_> =
        (0..256).map(|n| state(&n.to_string(), &format!("k{n}"), if is_refused(n) { "paid" } else { "new" })).collect();
    let tree = crate::dispatch::bed::backlog_of(engine, &plan, &work, &events).await;
    settled(&tree).await;
    let refused = (0..256).filter(|n| is_refused(*n)).count();
    assert_eq!(data(&tree, "work.dead").await.len(), refused);
    let passed: Vec<_> = (0..256).filter(|n| !is_refused(*n)).map(|n| n.to_string()).collect();
    assert_eq!(ids(&tree, "out").await, passed, "in their order");
    let called: usize = work.batches().iter().map(Vec::len).sum();
    assert!(called <= 4 * 256, "{called} events were handed in for 256, of which {refused} are refused");
}

#[tokio::test]
async fn a_batch_of_which_much_is_refused_is_not_called_again_for_each_of_them() {
    for apart in [1, 2, 5, 40] {
        refusals_are_dealt_with_one_by_one(|n| n % apart == 0).await;
        refusals_are_dealt_with_one_by_one(|n| n % apart == apart - 1).await;
    }
}

/// `in` -> `work` -> `out`; what may not follow in one of the two goes to `late`, from which `look` takes.
fn diverting(topic: &str) -> String {
    let lifecycle = LIFECYCLE.replace("start: [new]", "start: [new], out_of_order: { divert: late }");
    let of = |name: &str| if name == topic { format!("{{ lifecycle: {lifecycle} }}") } else { "{}".to_owned() };
    format!(
        "wattle: v1\nname: t\ntopics:\n  in: {}\n  out: {}\n  late: {{}}\n  seen: {{}}\nsubscribers:\n  work: {{ from: \
         in, plugin: work.wasm, to: [out] }}\n  look: {{ from: late, plugin: look.wasm, to: [seen] }}\n",
        of("in"),
        of("out")
    )
}

async fn publishes_are_diverted(home: impl Home) {
    let (plan, work) = (plan_of(&[&diverting("in")]), Script::each(copy));
    let scripts = [("work", &work), ("look", &work)];
    let tree = start_on(home.open().await, &plan, &scripts).await;
    let events = [state("1", "a", "done"), state("2", "b", "new"), state("3", "a", "paid"), state("4", "a", "new")];
    let published = tree.publisher().publish("in", &events, None).await.unwrap();
    let diverted: Vec<_> = published.diverted.iter().map(|event| (event.index, event.topic.as_ref())).collect();
    assert_eq!(diverted, [(0, "t/late"), (2, "t/late")]);
    let offsets: Vec<_> = published.places.iter().map(|place| place.offset.unwrap()).collect();
    assert_eq!((offsets, published.held.as_slice()), (vec![0, 0, 1, 1], &[][..]), "each where it is");
    let late = only(&tree, "late").await;
    let seen: Vec<_> = late.iter().map(|event| (event.id(), event.key.as_str(), event.lineage)).collect();
    assert_eq!(seen, [("1", "a", None), ("3", "a", None)], "as they came");
    // recognised where they are, in the same life and in the next
    for _ in 0..2 {
        assert_eq!(tree.publisher().publish("in", &events, None).await.unwrap().duplicates(), 4);
    }
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &scripts).await;
    assert_eq!(tree.publisher().publish("in", &events, None).await.unwrap().duplicates(), 4);
    // where it has ended as well
    publish(&tree, &[state("5", "a", "paid"), state("6", "a", "done")]).await.unwrap();
    let ended = tree.publisher().publish("in", &[state("7", "a", "new")], None).await.unwrap();
    assert_eq!((ended.diverted[0].index, ended.places[0].offset), (0, Some(2)));
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["2", "4", "5", "6"]);
    assert_eq!(ids(&tree, "out").await, ["2", "4", "5", "6"]);
    assert_eq!(ids(&tree, "seen").await, ["1", "3", "7"], "whoever takes from there has them");
    assert_eq!(held(&tree), 0);
    let straight = tree.publisher().publish("late", &[state("8", "a", "new")], None).await.unwrap_err();
    assert_eq!(
        straight.to_string(),
        "topic `t/late` takes what `t/in` diverts to it, and nothing else: publish to `t/in`"
    );
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_out_of_order_is_diverted_in_memory() {
    publishes_are_diverted(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_publish_that_is_out_of_order_is_diverted_on_disk() {
    publishes_are_diverted(tempfile::tempdir().unwrap()).await;
}

async fn outputs_are_diverted(home: impl Home) {
    let (plan, work) = (plan_of(&[&diverting("out")]), Script::each(same));
    let scripts = [("work", &work), ("look", &work)];
    let tree = start_on(home.open().await, &plan, &scripts).await;
    publish(&tree, &[state("1", "a", "paid"), state("2", "b", "new"), state("3", "a", "new")]).await.unwrap();
    settled(&tree).await;
    assert_eq!((ids(&tree, "out").await, ids(&tree, "seen").await), (vec!["2".into(), "3".into()], vec!["1".into()]));
    assert!(only(&tree, "work.dead").await.is_empty(), "nothing has failed");
    assert_eq!(status(&tree.snapshot(), "t/work").emitted, 3);
    let diverted = &only(&tree, "late").await[0];
    assert_eq!(diverted.lineage.map(|lineage| lineage.offset), Some(0), "what it was made of is known");
    ends(tree).await;
    let tree = start_on(home.open().await, &plan, &scripts).await;
    publish(&tree, &[state("4", "a", "new"), state("5", "a", "paid")]).await.unwrap();
    settled(&tree).await;
    assert_eq!(ids(&tree, "out").await, ["2", "3", "5"]);
    assert_eq!(ids(&tree, "seen").await, ["1", "4"]);
    let trace = tree.trace(&wattle::api::TraceQuery { id: "1".into(), ..Default::default() }).await.unwrap();
    let topics: Vec<_> = trace.events.iter().map(|event| event.topic.as_str()).collect();
    assert_eq!(topics, ["t/in", "t/late", "t/seen"], "its lineage goes through there");
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_out_of_order_is_diverted_in_memory() {
    outputs_are_diverted(MemoryEngine::default()).await;
}

#[tokio::test]
async fn an_output_that_is_out_of_order_is_diverted_on_disk() {
    outputs_are_diverted(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_diverted_when_it_is_due() {
    let work = Script::each(copy);
    let tree = start(&diverting("in"), &[("work", &work), ("look", &work)]).await;
    let late = |id: &str, name: &str| {
        let mut event = Event::decode(&state(id, "a", name)).unwrap();
        event.attributes.insert("delay".into(), Attribute::String("5s".into()));
        event.encode()
    };
    publish(&tree, &[late("1", "done"), late("2", "new"), late("3", "paid")]).await.unwrap();
    settled(&tree).await;
    assert_eq!((ids(&tree, "in").await, ids(&tree, "seen").await), (vec!["2".into(), "3".into()], vec!["1".into()]));
    assert!(only(&tree, "in@refused").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn numbered_events_that_are_diverted_are_recognised() {
    let work = Script::each(copy);
    let tree = start(&diverting("in"), &[("work", &work), ("look", &work)]).await;
    let numbering = || Some(Numbering { producer: "p".into(), first_sequence: 1, began_ns: None });
    let events = [state("1", "a", "new"), state("2", "b", "paid"), state("3", "a", "paid"), state("4", "c", "paid")];
    let first = tree.publisher().publish("in", &events, numbering()).await.unwrap();
    assert_eq!(first.diverted.len(), 2);
    let again = tree.publisher().publish("in", &events, numbering()).await.unwrap();
    assert_eq!((again.duplicates(), again.diverted.len()), (4, 0));
    assert_eq!(
        (ids(&tree, "in").await, ids(&tree, "late").await),
        (vec!["1".into(), "3".into()], vec!["2".into(), "4".into()])
    );
}

/// However many of a publish are diverted, each is found where it is.
#[tokio::test(start_paused = true)]
async fn a_large_publish_says_of_each_event_where_it_is() {
    let work = Script::each(copy);
    let partitioned = diverting("in").replace("in: { lifecycle", "in: { partitions: 3, lifecycle");
    let tree = start(&partitioned, &[("work", &work), ("look", &work)]).await;
    let name = |n: usize| if n.is_multiple_of(3) { "paid" } else { "new" };
    let events: Vec<_> = (0..600).map(|n| state(&n.to_string(), &format!("k{n}"), name(n))).collect();
    let published = tree.publisher().publish("in", &events, None).await.unwrap();
    let (there, late) = (by_place(&tree, "in").await, by_place(&tree, "late").await);
    for (n, place) in published.places.iter().enumerate() {
        let found = if n % 3 == 0 { &late } else { &there };
        assert_eq!(found[&(place.partition, place.offset.unwrap())], n.to_string());
    }
    assert_eq!((late.len(), published.diverted.len()), (200, 200));
}

/// The ids of what is in a topic, by where they are.
async fn by_place<E: Engine>(tree: &Tree<E>, topic: &str) -> std::collections::BTreeMap<(u32, u64), String> {
    let contents = crate::common::trees::contents(tree, topic).await;
    let partitions = (0..).zip(contents);
    partitions
        .flat_map(|(partition, events)| {
            events.into_iter().map(move |event| ((partition, event.offset), event.id().to_owned()))
        })
        .collect()
}

/// However many of a key are held, what comes by does not have all of them read again.
#[tokio::test(start_paused = true)]
async fn what_is_held_is_not_looked_through_for_each_event_of_its_key() {
    const HELD: u64 = 1_000;
    let lifecycle =
        "{ state: data.s, start: [new], allow: { new: [new, paid], paid: [paid, done] }, out_of_order: { hold: 1h } }";
    let tree = start(&yaml(true, false, "").replace(LIFECYCLE, lifecycle), &[("work", &Script::each(copy))]).await;
    let rest = async || tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let held_of =
        |key: &'static str, name: &'static str| (0..HELD).map(move |n| state(&format!("{key}{n}"), key, name));
    publish(&tree, &[state("b", "b", "new")]).await.unwrap();
    publish(&tree, &held_of("a", "paid").chain(held_of("b", "done")).collect::<Vec<_>>()).await.unwrap();
    rest().await;
    assert_eq!(held(&tree), 2 * HELD);
    let read = tree.engine().entries_read();
    for n in 0..100 {
        publish(&tree, &[state(&format!("n{n}"), "b", "new")]).await.unwrap();
        rest().await;
    }
    let for_each = (tree.engine().entries_read() - read) / 100;
    assert!(for_each < 20, "{for_each} entries for each event that comes by");
    let read = tree.engine().entries_read();
    publish(&tree, &[state("a", "a", "new")]).await.unwrap();
    rest().await;
    assert_eq!(held(&tree), HELD);
    let for_each = (tree.engine().entries_read() - read) / HELD;
    assert!(for_each < 5, "{for_each} entries for each event that follows");
}

/// The topology without a lifecycle, and with another one.
fn without() -> String {
    yaml(false, false, "")
}

async fn what_is_held_is_not_lost(home: impl Home, live: bool) {
    let (plan, later, work) = (plan_of(&[&yaml_with(HOLD)]), plan_of(&[&without()]), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    publish(&tree, &[state("1", "a", "done"), state("2", "b", "new"), state("3", "a", "paid")]).await.unwrap();
    until_held(&tree, 2).await;
    let changes = tree.changes(&later);
    let words = &changes.changes.iter().find(|change| change.name == "t/in").unwrap().words;
    assert_eq!(
        words,
        &["transitions are no longer checked, and held events are stored in the order in which they came"]
    );
    let tree = if live {
        crate::dispatch::applying::apply(&tree, &later, &[], &[]).await;
        tree
    } else {
        ends(tree).await;
        start_on(home.open().await, &later, &[("work", &work)]).await
    };
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["2", "1", "3"]);
    assert_eq!(ids(&tree, "out").await, ["2", "1", "3"]);
    ends(tree).await;
    // with a lifecycle again, nothing is counted that is held no longer
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(held(&tree), 0);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_its_lifecycle_takes_what_is_held_in_memory() {
    what_is_held_is_not_lost(MemoryEngine::default(), true).await;
    what_is_held_is_not_lost(MemoryEngine::default(), false).await;
}

#[tokio::test]
async fn a_topic_without_its_lifecycle_takes_what_is_held_on_disk() {
    what_is_held_is_not_lost(tempfile::tempdir().unwrap(), true).await;
    what_is_held_is_not_lost(tempfile::tempdir().unwrap(), false).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_when_that_is_over_follows_or_is_given_up_at_its_time() {
    let work = Script::each(copy);
    let tree = start(&yaml_with(HOLD), &[("work", &work)]).await;
    let events = [state("1", "a", "paid"), state("2", "b", "paid")];
    publish(&tree, &events).await.unwrap();
    until_held(&tree, 2).await;
    let later = plan_of(&[&yaml_with("out_of_order: refuse, remember: 1h, remember_max: 7")]);
    let changes = tree.changes(&later);
    let words = &changes.changes.iter().find(|change| change.name == "t/in").unwrap().words;
    let expected = [
        "ends of keys that are older than 1h are forgotten, a few with each event",
        "of more than 7 ends in a partition the oldest are forgotten, a few with each event",
        "events out of order are refused from now on",
        "held events follow when they may, or go to t/in@refused when their time is over",
    ];
    assert_eq!(words, &expected);
    crate::dispatch::applying::apply(&tree, &later, &[], &[]).await;
    assert_eq!(held(&tree), 2);
    assert!(publish(&tree, &[state("3", "c", "paid")]).await.is_err());
    let again = tree.publisher().publish("in", &events, None).await.unwrap();
    assert_eq!(again.duplicates(), 2, "what is held is recognised as before");
    publish(&tree, &[state("4", "a", "new")]).await.unwrap();
    until_held(&tree, 1).await;
    settled(&tree).await;
    assert_eq!(ids(&tree, "in").await, ["4", "1"]);
    assert_eq!(only(&tree, "in@refused").await[0].id(), "2");
}

#[test]
fn a_plan_says_what_another_guard_means() {
    let words = |before: &str, after: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let work = Script::each(copy);
            let tree = start(before, &[("work", &work), ("look", &work)]).await;
            let changes = tree.changes(&plan_of(&[after]));
            let change = changes.changes.iter().find(|change| change.name == "t/in");
            change.map(|change| change.words.clone()).unwrap_or_default()
        })
    };
    let (plain, diverts) = (diverting("in").replace("out_of_order: { divert: late }, ", ""), diverting("in"));
    let with = |more: &str| plain.replace("start: [new],", &format!("start: [new], {more},"));
    assert_eq!(
        words(&with("remember: 1h"), &with("remember: 2h")),
        ["ends of keys are remembered for 2h; forgotten ones stay forgotten"]
    );
    assert_eq!(words(&plain, &with("restart: true")), ["keys that have ended may begin again at once"]);
    assert_eq!(
        words(&with("restart: true"), &with("remember: 1h")),
        ["ends of keys are remembered from now on, for 1h"]
    );
    assert_eq!(words(&plain, &with("remember_max: 2000000")), ["up to 2000000 ends are remembered in each partition"]);
    assert_eq!(words(&plain, &diverts), ["events out of order are diverted to t/late from now on"]);
    assert_eq!(
        words(&diverts, &with("out_of_order: { hold: 1h }")),
        [
            "events out of order are held for 1h, at most 10000 in a partition from now on",
            "events already diverted to t/late stay there"
        ]
    );
    assert_eq!(words(&plain, &with("max: 7")), ["another `lifecycle`"]);
    assert_eq!(words(&plain, &plain.replace("paid: [done]", "paid: [done, new]")), ["another `lifecycle`"]);
}
