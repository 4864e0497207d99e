//! Events from outside: all of a call or nothing, and words for what is wrong.

use bytes::Bytes;
use wattle::api::{Numbering, Placement};
use wattle::dispatch::publish::EventRefusal;
use wattle::dispatch::{NameError, NameKind, PublishError, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{AppendError, Engine, StopReason};
use wattle::limits::{EVENT_BYTES_MAX, PUBLISH_EVENTS_MAX, UNIT_BYTES_MAX};
use wattle::model::record::KEY_BYTES_MAX;
use wattle::model::{Event, EventError, RecordError, partition_of};

use crate::common::trees::{contents, event, only, plan_of, settled, typed};
use crate::dispatch::bed::{ONE, publish, start, start_on};
use crate::dispatch::script::{Script, copy};

const KEYED: &str = "
wattle: v1
name: t
topics: { in: { partitions: 6, key: data.to }, out: {} }
subscribers:
  work: { from: in, plugin: p.wasm, to: [out] }
";

async fn tree(yaml: &str) -> Tree<MemoryEngine> {
    start(yaml, &[("work", &Script::each(copy))]).await
}

async fn refusal<E: Engine>(tree: &Tree<E>, topic: &str, events: &[Bytes]) -> PublishError {
    tree.publisher().publish(topic, events, None).await.expect_err(topic)
}

#[tokio::test]
async fn the_places_are_where_the_events_are() {
    let tree = tree(KEYED).await;
    let events: Vec<_> =
        (0..50).map(|n| event(&n.to_string(), "ignored", &format!(r#"{{"to":"k{}"}}"#, n % 7))).collect();
    let mut places = Vec::new();
    for half in events.chunks(25) {
        let published = tree.publisher().publish("in", half, None).await.unwrap();
        assert!(published.epoch > 0);
        places.extend(published.places);
    }
    let stored = contents(&tree, "in").await;
    for (n, Placement { partition, offset, is_duplicate }) in places.iter().enumerate() {
        let seen = stored[*partition as usize].iter().find(|seen| Some(seen.offset) == *offset).unwrap();
        assert!(!is_duplicate);
        assert_eq!((seen.id(), seen.key.as_str()), (n.to_string().as_str(), format!("k{}", n % 7).as_str()));
        assert_eq!(*partition, partition_of(&seen.key, 6));
        assert_eq!(seen.encoded, events[n], "stored as it came");
    }
}

#[tokio::test]
async fn without_an_expression_the_key_is_the_partitionkey_else_the_subject_else_the_id() {
    let tree = tree(ONE).await;
    let plain = Event { id: "the id".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
    let mut subject = Event { source: "/another".into(), ..plain.clone() };
    subject.attributes.insert("subject".into(), wattle::model::Attribute::String("the subject".into()));
    let mut both = Event { source: "/a-third".into(), ..subject.clone() };
    both.attributes.insert("partitionkey".into(), wattle::model::Attribute::String("the key".into()));
    tree.publisher().publish("in", &[plain.encode(), subject.encode(), both.encode()], None).await.unwrap();
    let keys: Vec<_> = only(&tree, "in").await.into_iter().map(|seen| seen.key).collect();
    assert_eq!(keys, ["the id", "the subject", "the key"]);
}

#[tokio::test]
async fn an_unknown_topic_is_told_with_the_nearest_one() {
    let tree = tree(ONE).await;
    let nearest = async |name: &str| match refusal(&tree, name, &[event("a", "a", "a")]).await {
        PublishError::Name(NameError::Unknown { kind: NameKind::Topic, name: asked, nearest }) if asked == name => {
            nearest
        }
        error => panic!("{error:?}"),
    };
    assert_eq!(nearest("ni").await.as_deref(), Some("in"));
    assert_eq!(nearest("t/imn").await.as_deref(), Some("t/in"));
    assert_eq!(nearest("something/else").await, None);
    assert_eq!(nearest("").await.as_deref(), Some("in"));
    let error = refusal(&tree, "ni", &[]).await;
    assert_eq!(error.to_string(), "there is no topic `ni`; did you mean `in`?");
}

#[tokio::test]
async fn a_giant_name_costs_nothing() {
    let tree = tree(ONE).await;
    // To compare it with every name would take gigabytes, and half a minute.
    let error = refusal(&tree, &"x".repeat(64 << 20), &[]).await;
    assert!(matches!(error, PublishError::Name(NameError::Unknown { nearest: None, .. })));
    assert!(error.to_string().len() < 1000, "nor is it said again");
}

#[tokio::test]
async fn a_name_that_several_namespaces_have_needs_its_namespace() {
    let plan = plan_of(&[ONE, &ONE.replace("name: t", "name: u")]);
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &Script::each(copy))]).await;
    match refusal(&tree, "in", &[event("a", "a", "a")]).await {
        PublishError::Name(NameError::Ambiguous { kind: NameKind::Topic, name, candidates }) => {
            assert_eq!((name.as_str(), candidates), ("in", vec!["t/in".to_owned(), "u/in".to_owned()]));
        }
        error => panic!("{error:?}"),
    }
    publish(&tree, "u/in", &["a"]).await;
    assert_eq!((only(&tree, "t/in").await.len(), only(&tree, "u/in").await.len()), (0, 1));
}

#[tokio::test]
async fn only_roots_take_events_from_outside() {
    let tree = tree(ONE).await;
    for topic in ["out", "t/out", "work.dead"] {
        match refusal(&tree, topic, &[event("a", "a", "a")]).await {
            PublishError::NotARoot { topic: named, parent } => {
                assert_eq!(
                    (named.as_str(), parent.as_str()),
                    (if topic == "work.dead" { "t/work.dead" } else { "t/out" }, "t/work")
                );
            }
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_bad_event_is_named_and_nothing_of_its_call_is_stored() {
    let tree = tree(KEYED).await;
    let good = |id: &str| event(id, "k", r#"{"to":"x"}"#);
    let nameless = Event { source: "/s".into(), r#type: "t".into(), ..Event::default() }.encode();
    let long = format!(r#"{{"to":"{}"}}"#, "k".repeat(KEY_BYTES_MAX + 1));
    type Case = (Bytes, fn(&EventRefusal) -> bool);
    let cases: [Case; 8] = [
        (event("b", "", r#"{"to":"x"}"#), |e| matches!(e, EventRefusal::Event(EventError::AttributeValue { .. }))),
        (event("b", "k", r#"{"to":""}"#), |e| matches!(e, EventRefusal::Key(words) if words.contains("empty"))),
        (Bytes::from_static(b"\xff\xff"), |e| matches!(e, EventRefusal::Event(EventError::Malformed))),
        (nameless, |e| matches!(e, EventRefusal::Event(EventError::Missing("id")))),
        (event("b", "k", "{}"), |e| matches!(e, EventRefusal::Key(words) if words.contains("data.to"))),
        (
            typed("b", "k", "plain", "text/plain"),
            |e| matches!(e, EventRefusal::Key(words) if words.contains("text/plain")),
        ),
        (event("b", "k", &long), |e| matches!(e, EventRefusal::Record(RecordError::KeyTooLong(1025)))),
        (event("b", "k", &"x".repeat(EVENT_BYTES_MAX)), |e| matches!(e, EventRefusal::TooLarge { .. })),
    ];
    for (bad, expected) in cases {
        match refusal(&tree, "in", &[good("a"), good("b"), bad, good("c")]).await {
            PublishError::Event { index: 2, topic, error } if topic == "t/in" && expected(&error) => {}
            error => panic!("{error:?}"),
        }
    }
    settled(&tree).await;
    assert_eq!(contents(&tree, "in").await.concat(), []);
    assert_eq!(contents(&tree, "out").await.concat(), []);
}

#[tokio::test]
async fn too_many_or_too_large_together_is_refused_whole() {
    let tree = tree(ONE).await;
    let mut many: Vec<_> = (0..=PUBLISH_EVENTS_MAX).map(|number| event(&number.to_string(), "a", "a")).collect();
    match refusal(&tree, "in", &many).await {
        PublishError::TooMany { count, max } => assert_eq!((count, max), (PUBLISH_EVENTS_MAX + 1, PUBLISH_EVENTS_MAX)),
        error => panic!("{error:?}"),
    }
    let text = "x".repeat(EVENT_BYTES_MAX - 200);
    let large: Vec<_> = (0..33).map(|number| event(&format!("large {number}"), "a", &text)).collect();
    match refusal(&tree, "in", &large).await {
        PublishError::Append(AppendError::TooLarge { bytes, max }) => assert!(bytes > max && max == UNIT_BYTES_MAX),
        error => panic!("{error:?}"),
    }
    assert_eq!(only(&tree, "in").await, []);
    many.truncate(PUBLISH_EVENTS_MAX);
    for accepted in [&many[..], &large[..20]] {
        let published = tree.publisher().publish("in", accepted, None).await.unwrap();
        assert_eq!((published.places.len(), published.duplicates()), (accepted.len(), 0));
    }
    assert_eq!(only(&tree, "in").await.len(), PUBLISH_EVENTS_MAX + 20);
}

#[tokio::test]
async fn a_root_recognises_what_is_published_again_unless_it_says_otherwise() {
    let stored = async |dedupe: &str| {
        let tree = tree(&KEYED.replace("key: data.to", &format!("key: data.to{dedupe}"))).await;
        let [one, other] = ["x", "y"].map(|to| event("a", "ignored", &format!(r#"{{"to":"{to}"}}"#)));
        let first = tree.publisher().publish("in", std::slice::from_ref(&one), None).await.unwrap().places;
        let again = tree.publisher().publish("in", &[other, one], None).await.unwrap().places;
        let stored = contents(&tree, "in").await.concat();
        settled(&tree).await;
        assert_eq!(contents(&tree, "out").await.concat().len(), stored.len(), "handled as often as it is there");
        (stored.len(), again.iter().all(|place| *place == Placement { is_duplicate: true, ..first[0] }))
    };
    assert_eq!(stored("").await, (1, true));
    assert_eq!(stored(", dedupe: { window: 1h }").await, (1, true));
    assert_eq!(stored(", dedupe: off").await, (3, false));
}

#[tokio::test]
async fn a_topic_says_what_makes_two_publishes_the_same_whoever_sent_them() {
    let tree = tree(&KEYED.replace("key: data.to", "key: data.to, id: data.to + '/' + data.state")).await;
    let publish =
        async |id: &str, data: &str| tree.publisher().publish("in", &[event(id, "ignored", data)], None).await;
    let first = publish("1", r#"{"to":"x","state":"paid"}"#).await.unwrap().places[0];
    let again = publish("2", r#"{"to":"x","state":"paid","by":"another"}"#).await.unwrap();
    assert_eq!(again.places, [Placement { is_duplicate: true, ..first }]);
    assert_eq!(publish("1", r#"{"to":"x","state":"shipped"}"#).await.unwrap().duplicates(), 0);
    for data in [r#"{"to":"x"}"#, r#"{"to":"x","state":7}"#] {
        let refused = publish("3", data).await.unwrap_err();
        let is_of_id = matches!(&refused, PublishError::Event { error: EventRefusal::Id(_), .. });
        assert!(is_of_id && refused.to_string().contains("`id`"), "{refused}");
    }
    settled(&tree).await;
    assert_eq!(contents(&tree, "in").await.concat().len(), 2);
}

#[tokio::test]
async fn numbered_events_are_recognised_by_their_numbers_alone() {
    let tree = tree(KEYED).await;
    let events: Vec<_> =
        ["x", "y", "x"].map(|to| event("the same", "ignored", &format!(r#"{{"to":"{to}"}}"#))).to_vec();
    let numbering =
        |producer: &str, first_sequence| Some(Numbering { producer: producer.into(), first_sequence, began_ns: None });
    let publish = async |numbering| tree.publisher().publish("in", &events, numbering).await.unwrap().duplicates();
    assert_eq!(publish(numbering("till-7", 10)).await, 0);
    assert_eq!(publish(numbering("till-8", 10)).await, 0);
    assert_eq!(publish(numbering("till-7", 10)).await, 3);
    assert_eq!(publish(numbering("till-7", 13)).await, 0);
    assert_eq!(contents(&tree, "in").await.concat().len(), 9);
    for (producer, first_sequence) in [("", 1), ("till-7", u64::MAX - 2)] {
        let error = tree.publisher().publish("in", &events, numbering(producer, first_sequence)).await.unwrap_err();
        assert!(matches!(error, PublishError::Numbering(_)), "{error:?}");
    }
}

#[tokio::test]
async fn nothing_is_nothing() {
    let tree = tree(ONE).await;
    assert_eq!(tree.publisher().publish("in", &[], None).await.unwrap().places, []);
    assert!(matches!(refusal(&tree, "out", &[]).await, PublishError::NotARoot { .. }));
}

#[tokio::test]
async fn a_closed_engine_takes_nothing() {
    let tree = tree(ONE).await;
    tree.engine().close().await.unwrap();
    let error = refusal(&tree, "in", &[event("a", "a", "a")]).await;
    assert!(matches!(error, PublishError::Append(AppendError::Stopped(StopReason::Closed))), "{error:?}");
    assert_eq!(tree.stopped().await, StopReason::Closed);
}
