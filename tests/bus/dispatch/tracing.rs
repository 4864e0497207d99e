//! The lineage of an event: found by its id, followed up and down, and what became of each.

use wattle::api::{Filter, Trace, TraceOutcome, TraceQuery, TracedEvent};
use wattle::dispatch::{NameError, TraceError, Tree};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::log::Durability;

use crate::common::trees::{event, plan_of, settled};
use crate::dispatch::bed::{publish, start, start_on};
use crate::dispatch::script::{Script, Step, copy, on, out};

/// `in` -> `split` (two ports) -> `left`, `right` -> `last` takes from `left`.
const TWO: &str = "
wattle: v1
name: t
topics: { in: { partitions: 3 }, left: { partitions: 2 }, right: {}, end: { partitions: 4 } }
subscribers:
  split: { from: in, plugin: a.wasm, to: { left: left, right: right } }
  last: { from: left, plugin: b.wasm, to: [end], when: \"data.ok\", retry: { attempts: 1 } }
  other: { from: left, plugin: c.wasm, retry: { attempts: 2 }, on_failure: park }
";

fn of(id: &str) -> TraceQuery {
    TraceQuery { id: id.to_owned(), ..TraceQuery::default() }
}

/// Topic, id of the parent, and what became of it at each subscriber.
fn shape(trace: &Trace) -> Vec<String> {
    let of = |event: &TracedEvent| {
        let parent = event.origin.as_ref().and_then(|origin| origin.parent).map(|at| trace.events[at].topic.clone());
        let handlings: Vec<_> =
            event.handlings.iter().map(|it| format!("{} {:?} {}", it.subscriber, it.outcome, it.outputs)).collect();
        format!("{} of {}: {}", event.topic, parent.unwrap_or_default(), handlings.join(", "))
    };
    trace.events.iter().map(of).collect()
}

/// Two to the left, under keys of their own, and one to the right.
fn splitting() -> Script {
    Script::each(|event| {
        let keyed = |key: &str, data: String| {
            let mut output = on(0, data);
            output.key = Some(key.to_owned());
            output
        };
        match event.data.as_str() {
            "{}" => Step::Emit(Vec::new()),
            data => Step::Emit(vec![
                keyed("one", data.to_owned()),
                keyed("two", data.replace("true", "false")),
                on(1, data.to_owned()),
            ]),
        }
    })
}

async fn two<E: Engine>(engine: E, other: &Script) -> Tree<E> {
    let (split, last) = (splitting(), Script::each(copy));
    let scripts = [("split", &split), ("last", &last), ("other", other)];
    let tree = start_on(engine, &plan_of(&[TWO]), &scripts).await;
    for number in 0..40 {
        let (id, key) = (format!("e{number}"), format!("k{}", number % 7));
        let data = if number % 10 == 3 { "{}".to_owned() } else { format!("{{\"ok\":true,\"n\":{number}}}") };
        tree.publisher().publish("in", &[event(&id, &key, &data)], None).await.unwrap();
    }
    settled(&tree).await;
    tree
}

fn whole() -> Vec<&'static str> {
    vec![
        "t/in of : t/split Handled 3",
        "t/left of t/in: t/last Handled 1, t/other Handled 0",
        "t/left of t/in: t/last PassedOver 0, t/other Handled 0",
        "t/right of t/in: ",
        "t/end of t/left: ",
    ]
}

async fn any_event_of_a_tree_shows_all_of_it(engine: impl Engine) {
    let tree = two(engine, &Script::each(|_| Step::Emit(Vec::new()))).await;
    for number in [0, 7, 26, 39] {
        let trace = tree.trace(&of(&format!("e{number}"))).await.unwrap();
        assert_eq!((trace.found, trace.is_cut), (0, false));
        let mut found = shape(&trace);
        found[1..3].sort(); // in the order of partitions
        assert_eq!(found, whole(), "{trace:#?}");
        for (index, event) in trace.events.iter().enumerate() {
            let from_here = tree.trace(&of(&event.id)).await.unwrap();
            assert_eq!(from_here.events[from_here.found].id, event.id);
            let mut found = shape(&from_here);
            found.sort();
            let mut wanted = shape(&trace);
            wanted.sort();
            assert_eq!(found, wanted, "from event {index}");
        }
    }
    let nothing = tree.trace(&of("e3")).await.unwrap();
    assert_eq!(shape(&nothing), ["t/in of : t/split Handled 0"]);
}

#[tokio::test]
async fn any_event_of_a_tree_shows_all_of_it_in_memory() {
    any_event_of_a_tree_shows_all_of_it(MemoryEngine::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_event_of_a_tree_shows_all_of_it_on_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    any_event_of_a_tree_shows_all_of_it(EmbeddedEngine::open(folder.path(), Durability::Sync).unwrap()).await;
}

#[tokio::test]
async fn a_trace_says_who_made_what() {
    let tree = two(MemoryEngine::default(), &Script::each(|_| Step::Emit(Vec::new()))).await;
    let trace = tree.trace(&of("e5")).await.unwrap();
    let [root, child, ..] = trace.events.as_slice() else { panic!("{trace:#?}") };
    assert_eq!((root.key.as_str(), root.source.as_str(), root.r#type.as_str()), ("k5", "/test", "test"));
    assert_eq!(root.origin, None);
    let origin = child.origin.as_ref().unwrap();
    assert_eq!((origin.parent, origin.subscriber.as_deref(), origin.is_dead_letter), (Some(0), Some("t/split"), false));
    assert_eq!(origin.digest.as_deref(), Some("01".repeat(32).as_str()));
    assert_eq!(root.handlings[0].digest, origin.digest);
    assert!(root.append_time_ns > 0 && child.append_time_ns >= root.append_time_ns);
}

#[tokio::test(start_paused = true)]
async fn a_trace_says_what_waits_and_why() {
    let other = Script::each(|_| Step::Retry(None));
    let tree = two(MemoryEngine::default(), &other).await;
    let mut waiting = Vec::new();
    for number in (0..40).filter(|number| number % 10 != 3) {
        let trace = tree.trace(&of(&format!("e{number}"))).await.unwrap();
        waiting
            .extend(trace.events.into_iter().flat_map(|event| event.handlings).filter(|it| it.subscriber == "t/other"));
    }
    // the first event of each key, and all that came behind it
    let (parked, behind): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|it| it.outcome == TraceOutcome::Parked);
    assert_eq!((parked.len(), behind.len()), (2, 70));
    for it in parked {
        assert_eq!((it.attempts, it.failure.as_str()), (Some(2), "retry"));
        assert!(it.reason.starts_with("no {"), "{it:?}");
        assert_eq!(it.digest.as_deref(), Some("01".repeat(32).as_str()));
    }
    assert!(behind.iter().all(|it| (it.outcome, it.attempts) == (TraceOutcome::Waiting, Some(0))), "{behind:?}");
}

#[tokio::test]
async fn what_a_subscriber_has_not_come_to_is_not_yet() {
    let tree = two(MemoryEngine::default(), &Script::each(|_| Step::Emit(Vec::new()))).await;
    tree.subscriber("split").unwrap().pause().await.unwrap();
    publish(&tree, "in", &["later"]).await;
    let trace = tree.trace(&of("later")).await.unwrap();
    assert_eq!(shape(&trace), ["t/in of : t/split NotYet 0"]);
}

const DEAD: &str = "
wattle: v1
name: t
topics: { in: {}, out: {} }
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: out }, retry: { attempts: 1 } }
  read: { from: work.dead, plugin: read.wasm }
";

#[tokio::test]
async fn a_dead_letter_is_an_event_of_the_trace_and_its_reason_is_said() {
    let healed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_healed = healed.clone();
    let work = Script::each(move |event| match event.data.as_str() {
        "bad" if !is_healed.load(std::sync::atomic::Ordering::SeqCst) => Step::Retry(None),
        "hopeless" => Step::Reject,
        data => Step::Emit(vec![out(data)]),
    });
    let read = Script::each(|_| Step::Emit(Vec::new()));
    let tree = start(DEAD, &[("work", &work), ("read", &read)]).await;
    publish(&tree, "in", &["good", "bad", "hopeless", "fine"]).await;
    settled(&tree).await;
    let trace = tree.trace(&of("bad")).await.unwrap();
    assert_eq!(shape(&trace), ["t/in of : t/work DeadLetter 0", "t/work.dead of t/in: t/read Handled 0"]);
    let handling = &trace.events[0].handlings[0];
    assert_eq!((handling.attempts, handling.reason.as_str()), (Some(1), "no bad"));
    assert!(trace.events[1].origin.as_ref().unwrap().is_dead_letter);
    assert_eq!(trace.events[1].id, "bad", "it is the same event");

    tree.subscriber("work")
        .unwrap()
        .dead_letters()
        .redrive(&Filter { id: Some("bad".into()), ..Filter::default() })
        .await
        .unwrap();
    tree.subscriber("work")
        .unwrap()
        .dead_letters()
        .drop(&Filter { id: Some("hopeless".into()), ..Filter::default() })
        .await
        .unwrap();
    settled(&tree).await;
    // it has failed again: the second letter is the last word
    let again = shape(&tree.trace(&of("bad")).await.unwrap());
    assert_eq!(again[0], "t/in of : t/work DeadLetter 0");
    let dropped = shape(&tree.trace(&of("hopeless")).await.unwrap());
    assert_eq!(dropped[0], "t/in of : t/work DeadLetterDone 0");

    healed.store(true, std::sync::atomic::Ordering::SeqCst);
    tree.subscriber("work").unwrap().dead_letters().redrive(&Filter::default()).await.unwrap();
    settled(&tree).await;
    let handled = shape(&tree.trace(&of("bad")).await.unwrap());
    assert!(handled.contains(&"t/in of : t/work Handled 1".to_owned()), "{handled:?}");
    assert!(handled.contains(&"t/out of t/in: ".to_owned()), "{handled:?}");
}

#[tokio::test]
async fn of_several_with_the_id_the_latest_is_meant_unless_more_is_said() {
    const ROOTS: &str = "
wattle: v1
name: t
topics: { one: { dedupe: off }, other: { dedupe: off } }
subscribers: {}
";
    let tree = start(ROOTS, &[]).await;
    for topic in ["one", "other", "one"] {
        publish(&tree, topic, &["same"]).await;
    }
    let place = async |of: &TraceQuery| {
        let trace = tree.trace(of).await.unwrap();
        (trace.events[0].topic.clone(), trace.events[0].offset, trace.events[0].append_time_ns)
    };
    let (topic, offset, last_ns) = place(&of("same")).await;
    assert_eq!((topic.as_str(), offset), ("t/one", 1));
    let (topic, ..) = place(&TraceQuery { topic: Some("other".into()), ..of("same") }).await;
    assert_eq!(topic, "t/other");
    assert_eq!(place(&TraceQuery { since_ns: Some(last_ns), ..of("same") }).await.1, 1);
    let missing = async |of: TraceQuery| matches!(tree.trace(&of).await, Err(TraceError::NotFound { .. }));
    assert!(missing(TraceQuery { since_ns: Some(last_ns + 1), ..of("same") }).await);
    assert!(missing(TraceQuery { source: Some("/elsewhere".into()), ..of("same") }).await);
    assert!(missing(of("nobody")).await);
    let unknown = tree.trace(&TraceQuery { topic: Some("onne".into()), ..of("same") }).await.unwrap_err();
    assert!(matches!(unknown, TraceError::Topic(NameError::Unknown { .. })), "{unknown}");
}

#[tokio::test]
async fn a_trace_of_very_many_events_is_cut_and_says_so() {
    const WIDE: &str = "
wattle: v1
name: t
topics: { in: {}, out: {} }
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: out } }
";
    let work = Script::each(|_| Step::Emit((0..1_500).map(|number| out(number.to_string())).collect()));
    let tree = start(WIDE, &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let trace = tree.trace(&of("a")).await.unwrap();
    assert!(trace.is_cut && trace.events.len() == 1_000, "{}", trace.events.len());
    assert_eq!(trace.events[0].handlings[0].outputs, 1_500, "all of them are counted");
    let last = crate::common::trees::only(&tree, "out").await.pop().unwrap();
    let trace = tree.trace(&of(last.id())).await.unwrap();
    assert_eq!(trace.events[trace.found].id, last.id(), "what was asked for is shown in any case");
}
