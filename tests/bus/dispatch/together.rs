//! Events for several roots in one commit: all of them or none, in order, each once.

use bytes::Bytes;
use wattle::api::{AddressedEvent, Numbering};
use wattle::dispatch::{NameError, PublishError, Tree};
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::PUBLISH_EVENTS_MAX;

use crate::common::trees::{contents, event, only, plan_of};
use crate::dispatch::bed::{Home, ends, publish, start_on};
use crate::dispatch::script::{Script, copy};

/// Roots that recognise what comes again, and one that does not; `out` is none.
const ROOTS: &str = "
wattle: v1
name: t
topics: { orders: { partitions: 3, key: data.id }, payments: {}, log: { dedupe: off }, out: {} }
subscribers:
  work: { from: log, plugin: p.wasm, to: [out] }
";

async fn roots<E: Engine>(engine: E) -> Tree<E> {
    start_on(engine, &plan_of(&[ROOTS]), &[("work", &Script::each(copy))]).await
}

fn to(topic: &str, id: &str) -> AddressedEvent {
    AddressedEvent { topic: topic.to_owned(), event: event(id, "k", &format!(r#"{{"id":"{id}"}}"#)) }
}

async fn ids<E: Engine>(tree: &Tree<E>, topic: &str) -> Vec<String> {
    let mut ids: Vec<_> = contents(tree, topic).await.concat().iter().map(|seen| seen.id().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn events_of_several_topics_are_where_the_answer_says() {
    let tree = roots(MemoryEngine::default()).await;
    let events =
        [to("orders", "a"), to("", "b"), to("t/payments", "c"), to("log", "d"), to("orders", "e"), to("", "f")];
    let published = tree.publisher().publish_together(&events, None).await.unwrap();
    let topics = ["orders", "orders", "payments", "log", "orders", "orders"];
    for ((place, topic), id) in published.places.iter().zip(topics).zip(["a", "b", "c", "d", "e", "f"]) {
        let stored = &contents(&tree, topic).await[place.partition as usize];
        assert_eq!(stored.iter().find(|seen| Some(seen.offset) == place.offset).unwrap().id(), id);
    }
    let one_time = contents(&tree, "orders").await.concat();
    assert_eq!(one_time.len(), 4);
    assert_eq!(tree.publisher().publish_together(&[], None).await.unwrap().places, []);
}

#[tokio::test]
async fn what_is_wrong_with_one_is_said_with_its_topic_and_nothing_is_stored_anywhere() {
    let tree = roots(MemoryEngine::default()).await;
    let bad = AddressedEvent { topic: "orders".into(), event: event("b", "k", "{}") };
    let refusal = async |events: &[AddressedEvent]| tree.publisher().publish_together(events, None).await.unwrap_err();
    let error = refusal(&[to("log", "a"), to("payments", "a"), bad, to("log", "c")]).await;
    assert!(error.to_string().starts_with("event 2 for `t/orders`: "), "{error}");
    let of_topic = async |events: &[AddressedEvent]| match refusal(events).await {
        PublishError::Addressed { index, error } => (index, *error),
        other => panic!("{other}"),
    };
    assert!(matches!(of_topic(&[to("log", "a"), to("out", "a")]).await, (1, PublishError::NotARoot { .. })));
    assert!(matches!(
        of_topic(&[to("log", "a"), to("lgo", "a")]).await,
        (1, PublishError::Name(NameError::Unknown { .. }))
    ));
    assert!(
        matches!(of_topic(&[to("", "a")]).await, (0, PublishError::Name(NameError::Unknown { .. }))),
        "there is none in front of it"
    );
    let many = vec![to("log", "a"); PUBLISH_EVENTS_MAX + 1];
    assert!(matches!(refusal(&many).await, PublishError::TooMany { .. }));
    for topic in ["orders", "payments", "log"] {
        assert_eq!(ids(&tree, topic).await, [""; 0], "{topic}");
    }
}

/// What is recognised is so after a restart as well, where a topic of the same commit recognises nothing.
async fn what_comes_again_is_stored_once_where_the_topic_says_so(home: impl Home) {
    let tree = roots(home.open().await).await;
    let events = [to("log", "a"), to("orders", "a"), to("payments", "a")];
    assert_eq!(tree.publisher().publish_together(&events, None).await.unwrap().duplicates(), 0);
    let more = [to("orders", "a"), to("log", "a"), to("orders", "b")];
    for is_again in [false, true] {
        let places = tree.publisher().publish_together(&more, None).await.unwrap().places;
        let duplicates: Vec<_> = places.iter().map(|place| place.is_duplicate).collect();
        assert_eq!(duplicates, [true, false, is_again]);
    }
    ends(tree).await;
    let tree = roots(home.open().await).await;
    assert_eq!(tree.publisher().publish_together(&events, None).await.unwrap().duplicates(), 2);
    let event = std::slice::from_ref(&events[2].event);
    assert_eq!(tree.publisher().publish("payments", event, None).await.unwrap().duplicates(), 1);
    publish(&tree, "log", &["b"]).await;
    assert_eq!(ids(&tree, "orders").await, ["a", "b"]);
    assert_eq!(ids(&tree, "payments").await, ["a"]);
    assert_eq!(ids(&tree, "log").await, ["a", "a", "a", "a", "b"]);
    ends(tree).await;
}

#[tokio::test]
async fn what_comes_again_is_stored_once_in_memory() {
    what_comes_again_is_stored_once_where_the_topic_says_so(MemoryEngine::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_again_is_stored_once_on_a_disk() {
    what_comes_again_is_stored_once_where_the_topic_says_so(tempfile::tempdir().unwrap()).await;
}

#[tokio::test]
async fn numbers_run_through_the_events_of_all_topics() {
    let tree = roots(MemoryEngine::default()).await;
    let events = [to("log", "a"), to("payments", "b"), to("log", "c")];
    let numbering = |first_sequence| Some(Numbering { producer: "till-7".into(), first_sequence, began_ns: None });
    for duplicates in [0, 3] {
        let published = tree.publisher().publish_together(&events, numbering(10)).await.unwrap();
        assert_eq!(published.duplicates(), duplicates);
    }
    // the same producer goes on with one topic: what of that has a number that is not above its last one came before
    let more: Vec<Bytes> = ["d", "e"].map(|id| event(id, "k", "{}")).to_vec();
    assert_eq!(tree.publisher().publish("log", &more, numbering(12)).await.unwrap().duplicates(), 1);
    assert_eq!(only(&tree, "log").await.len(), 3);
    let error = tree.publisher().publish_together(&events, numbering(u64::MAX - 1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Numbering(_)), "{error}");
}
