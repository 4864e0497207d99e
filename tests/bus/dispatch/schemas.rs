//! A topic's schema: what does not fit it is never stored, wherever it comes from.

use wattle::api::{AddressedEvent, Filter};
use wattle::dispatch::publish::EventRefusal;
use wattle::dispatch::{PublishError, Tree};
use wattle::engine::memory::MemoryEngine;

use crate::common::trees::{data, event, only, plan_with, settled, typed};
use crate::dispatch::bed::start_on;
use crate::dispatch::script::{Script, Step, out};

const GUARDED: &str = "
wattle: v1
name: t
topics: { in: { schema: in.json, key: data.id }, free: {}, out: { schema: out.json } }
subscribers:
  work: { from: in, plugin: p.wasm, to: [out], retry: { attempts: 3 } }
";

const FILES: [(&str, &str); 2] = [
    ("in.json", r#"{ "required": ["id"], "properties": { "items": { "items": { "type": "integer" } } } }"#),
    ("out.json", r#"{ "type": "object", "required": ["total"] }"#),
];

async fn guarded(script: &Script) -> Tree<MemoryEngine> {
    start_on(MemoryEngine::default(), &plan_with(&[GUARDED], &FILES), &[("work", script)]).await
}

fn silent() -> Script {
    Script::each(|_| Step::Emit(Vec::new()))
}

#[tokio::test]
async fn a_publish_with_data_that_does_not_fit_is_refused_whole_and_says_where() {
    let tree = guarded(&silent()).await;
    let good = || event("good", "k", r#"{"id":"a","items":[1,2]}"#);
    for (bad, words) in [
        (event("b", "k", r#"{"id":"a","items":[1,"2"]}"#), "at `/items/1`: the value is not of type \"integer\""),
        (event("b", "k", "{}"), "\"id\" is a required property"),
        (event("b", "k", "no"), "the data is not JSON: expected ident at line 1 column 2"),
        (typed("b", "k", "{}", "text/plain"), "the data says to be `text/plain`, not JSON"),
    ] {
        let error = tree.publisher().publish("in", &[good(), bad.clone()], None).await.unwrap_err();
        let expected = format!("event 1 for `t/in`: its data does not fit the topic's schema: {words}");
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, PublishError::Event { error: EventRefusal::Schema(_), .. }), "{error:?}");
        let together =
            [("free", good()), ("in", bad)].map(|(topic, event)| AddressedEvent { topic: topic.into(), event });
        let error = tree.publisher().publish_together(&together, None).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!((only(&tree, "in").await.len(), only(&tree, "free").await.len()), (0, 0));
    tree.publisher().publish("in", &[good()], None).await.unwrap();
    assert_eq!(only(&tree, "in").await.len(), 1);
}

#[tokio::test]
async fn an_output_that_does_not_fit_fails_the_event_that_it_was_made_of_and_no_other() {
    let work = Script::each(|event| match event.key.as_str() {
        "bad" => Step::Emit(vec![out(r#"{"total":1}"#), out(r#"{"sum":1}"#)]),
        "text" => {
            let mut output = out(r#"{"total":1}"#);
            output.content_type = "text/plain".into();
            Step::Emit(vec![output])
        }
        "untyped" => {
            let mut output = out(r#"{"total":3}"#);
            output.content_type = String::new();
            Step::Emit(vec![output])
        }
        _ => Step::Emit(vec![out(r#"{"total":2}"#)]),
    });
    let tree = guarded(&work).await;
    let of = |id: &str| event(id, "ignored", &format!(r#"{{"id":"{id}"}}"#));
    let events = ["one", "bad", "text", "untyped"].map(of);
    tree.publisher().publish("in", &events, None).await.unwrap();
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, [r#"{"total":2}"#, r#"{"total":3}"#]);
    let dead = tree
        .subscriber("work")
        .unwrap()
        .dead_letters()
        .list(&Filter::default(), Default::default(), 9)
        .await
        .unwrap()
        .found;
    let reasons: Vec<_> = dead.iter().map(|letter| (letter.id.as_str(), letter.reason.as_str())).collect();
    let words = "the data of an output does not fit the schema of the topic behind its port: ";
    let expected = [
        ("bad", format!("{words}\"total\" is a required property")),
        ("text", format!("{words}the data says to be `text/plain`, not JSON")),
    ];
    assert_eq!(reasons, expected.each_ref().map(|(id, reason)| (*id, reason.as_str())));
    assert!(dead.iter().all(|letter| letter.failure == "refused" && letter.attempts == 1), "{dead:?}");
}
