//! Outputs that cannot be taken fail the event that they answer, and nothing else. Clocks are paused.

use wattle::dispatch::Tree;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::{EVENT_BYTES_MAX, UNIT_BYTES_MAX};
use wattle::model::call::Output;
use wattle::model::event::ATTRIBUTE_VALUE_BYTES_MAX;
use wattle::model::record::KEY_BYTES_MAX;

use crate::common::trees::{PATIENCE, contents, data, event, only, plan_of, settled};
use crate::dispatch::bed::{ONE, one, one_of, start_on};
use crate::dispatch::script::{Script, Step, copy, out};

/// A tree in which event `b` gives this output between two good ones, and others are copied.
async fn with(yaml: &str, output: Output) -> Tree<MemoryEngine> {
    let work = Script::each(move |given| match given.data.as_str() {
        "b" => Step::Emit(vec![out("before"), output.clone(), out("after")]),
        _ => copy(given),
    });
    let tree = one_of(yaml, &work, &["a", "b", "c"]).await;
    settled(&tree).await;
    tree
}

/// Event `b` was refused because of its output, in these words; nothing of it is there, and all of the others.
async fn refused(yaml: &str, output: Output, words: &str) {
    let tree = with(yaml, output).await;
    assert_eq!(data(&tree, "out").await, ["a", "c"], "{words}");
    let [letter] = <[_; 1]>::try_from(only(&tree, "work.dead").await).unwrap();
    assert_eq!((letter.data(), letter.attribute("wattlefailure").as_str()), ("b", "refused"), "{words}");
    assert_eq!(letter.attribute("wattleattempts"), "1", "{words}");
    let reason = letter.attribute("wattlereason");
    assert!(reason.contains(words), "{reason:?} does not say {words:?}");
}

#[tokio::test(start_paused = true)]
async fn an_output_larger_than_an_event_may_be_is_refused() {
    refused(ONE, out(vec![b'x'; EVENT_BYTES_MAX + 1]), "more than an event may have").await;
    let attributes = (0..80_000).map(|n| format!("a{n}=0123456789\n")).collect();
    refused(ONE, Output { attributes, ..out("") }, "more than an event may have").await;
}

#[tokio::test(start_paused = true)]
async fn keys_and_texts_that_are_too_long_or_too_short_are_refused() {
    let key = Some("k".repeat(KEY_BYTES_MAX + 1));
    refused(ONE, Output { key, ..out("x") }, "the key of an output is 1025 bytes long").await;
    refused(ONE, Output { key: Some(String::new()), ..out("x") }, "the key of an output is empty").await;
    let long = || "t".repeat(ATTRIBUTE_VALUE_BYTES_MAX + 1);
    refused(ONE, Output { r#type: long(), ..out("x") }, "the type of an output").await;
    refused(ONE, Output { content_type: long(), ..out("x") }, "the content type of an output").await;
    refused(ONE, Output { attributes: format!("subject={}\n", long()), ..out("x") }, "the subject of an output").await;
}

/// What is stored and cannot be read would stop whoever consumes it, for ever.
#[tokio::test(start_paused = true)]
async fn whatever_is_accepted_can_be_read_by_a_child() {
    let yaml = ONE.to_owned() + "  below: { from: out, plugin: p.wasm }\n";
    let plan = plan_of(&[&yaml]);
    for length in ATTRIBUTE_VALUE_BYTES_MAX - 10..=ATTRIBUTE_VALUE_BYTES_MAX + 1 {
        let long = "t".repeat(length);
        let work = Script::each(move |given| {
            let long = long.clone();
            Step::Emit(vec![match given.data.as_str() {
                "type" => Output { r#type: long, ..out("x") },
                "content type" => Output { content_type: long, ..out("x") },
                "attribute" => Output { attributes: format!("subject={long}\n"), ..out("x") },
                _ => out("x"),
            }])
        });
        let below = Script::each(|_| Step::Emit(Vec::new()));
        let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work), ("below", &below)]).await;
        crate::dispatch::bed::publish(&tree, "in", &["type", "content type", "attribute", "plain"]).await;
        settled(&tree).await;
        let (accepted, refused) = (only(&tree, "out").await.len(), only(&tree, "work.dead").await.len());
        assert_eq!(accepted + refused, 4, "{length}");
        assert_eq!(below.times().into_values().sum::<usize>(), accepted, "{length}");
        assert!(tree.drain(PATIENCE).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_key_expression_gives_no_key_refuses_the_output() {
    let keyed = |key: &str| ONE.replace("out: {}", &format!("out: {{ key: {key} }}"));
    let good = r#"{"to":"x"}"#;
    for (key, bad, words) in [
        ("data.to", "{}".to_owned(), "this event has no `data.to`"),
        ("data.to", "[".to_owned(), "broken"),
        ("data.to", r#"{"to":[1]}"#.to_owned(), "a list"),
        ("data.to", r#"{"to":""}"#.to_owned(), "an empty text"),
        ("data.to", format!(r#"{{"to":"{}"}}"#, "k".repeat(KEY_BYTES_MAX + 1)), "1025 bytes long"),
        // the id is 32 characters long
        ("id + data.to", format!(r#"{{"to":"{}"}}"#, "k".repeat(KEY_BYTES_MAX - 31)), "1025 bytes long"),
        (r#""data.to == '' ? string(int(id)) : data.to""#, r#"{"to":""}"#.to_owned(), "failed"),
    ] {
        let output = bad.clone();
        let work = Script::each(move |given| match given.data.as_str() {
            "b" => Step::Emit(vec![out(good), out(output.clone()), out(good)]),
            _ => Step::Emit(vec![out(good)]),
        });
        let tree = one_of(&keyed(key), &work, &["a0", "a1", "b", "c"]).await;
        settled(&tree).await;
        let letters = only(&tree, "work.dead").await;
        let letters: Vec<_> = letters.iter().map(|seen| (seen.data(), seen.attribute("wattlereason"))).collect();
        assert!(
            matches!(letters.as_slice(), [("b", reason)] if reason.contains(words)),
            "{key} {bad:.40}: {letters:?}"
        );
        assert_eq!(data(&tree, "out").await, [good; 3], "{key} {bad:.40}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_plugins_own_needs_no_expression() {
    let yaml = ONE.replace("out: {}", "out: { key: data.to }");
    let work = Script::each(|_| Step::Emit(vec![Output { key: Some("own".into()), ..out("no json") }]));
    let tree = one_of(&yaml, &work, &["a"]).await;
    settled(&tree).await;
    assert_eq!(only(&tree, "out").await[0].key, "own");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_not_there_is_refused() {
    refused(ONE, Output { port: 7, ..out("x") }, "port 7").await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_more_output_than_a_unit_is_committed_in_parts() {
    let work = Script::each(|given| Step::Emit(vec![out(given.data.clone()), out(vec![b'x'; EVENT_BYTES_MAX - 300])]));
    let names: Vec<_> = (0..80).map(|n| format!("e{n}")).collect();
    let tree = one(&work, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settled(&tree).await;
    assert!(work.called().iter().all(|call| call.attempts().iter().all(|attempt| *attempt == 1)));
    let seen = data(&tree, "out").await;
    let small: Vec<_> = seen.iter().filter(|data| data.len() < 10).collect();
    assert_eq!((seen.len(), small), (160, names.iter().collect()));
    assert!(only(&tree, "work.dead").await.is_empty());
}

/// Nothing that a plugin sends may make a unit that the engine refuses: that would stop its lane for ever.
#[tokio::test(start_paused = true)]
async fn an_event_with_more_output_than_a_unit_is_refused_whatever_the_output_consists_of() {
    let many = |count: usize, output: Output| vec![output; count];
    let letters = |count| "t".repeat(count);
    let full = ATTRIBUTE_VALUE_BYTES_MAX - 100;
    for (what, outputs) in [
        ("data", many(40, out(vec![b'x'; EVENT_BYTES_MAX - 300]))),
        ("types", many(3_000, Output { r#type: letters(full), ..out("") })),
        ("content types", many(3_000, Output { content_type: letters(full), ..out("") })),
        ("short attributes", many(40, Output { attributes: "a=b\n".repeat(40_000), ..out("") })),
        ("keys", many(33_000, Output { key: Some(letters(KEY_BYTES_MAX)), ..out("") })),
    ] {
        let bytes: usize = outputs.iter().map(|output| output.data.len() + output.r#type.len()).sum();
        let work = Script::each(move |given| match given.data.as_str() {
            "b" => Step::Emit(outputs.clone()),
            _ => copy(given),
        });
        let tree = one(&work, &["a", "b", "c"]).await;
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await, ["a", "c"], "{what}, {bytes} bytes");
        let [letter] = <[_; 1]>::try_from(only(&tree, "work.dead").await).unwrap();
        let reason = letter.attribute("wattlereason");
        assert!(reason.contains(&UNIT_BYTES_MAX.to_string()), "{what}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_that_a_unit_may_have_can_be_used() {
    // A little less than a unit, in one event: nothing of it is refused.
    let outputs = vec![out(vec![b'x'; EVENT_BYTES_MAX - 300]); UNIT_BYTES_MAX / EVENT_BYTES_MAX];
    let count = outputs.len();
    let work = Script::each(move |_| Step::Emit(outputs.clone()));
    let tree = one(&work, &["a"]).await;
    settled(&tree).await;
    assert_eq!(only(&tree, "out").await.len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_behind_a_failure_and_a_failure_behind_a_refusal_are_both_found() {
    let work = Script::each(|given| match given.data.as_str() {
        "big" => Step::Emit(vec![out(vec![b'x'; EVENT_BYTES_MAX + 1])]),
        "reject" => Step::Reject,
        _ => copy(given),
    });
    let names = ["a", "big", "b", "reject", "c", "big", "reject", "d"];
    let engine = MemoryEngine::default();
    let plan = plan_of(&[ONE]);
    let first = start_on(engine.clone(), &plan, &[("work", &work)]).await;
    first.drain(PATIENCE).await;
    let events: Vec<_> = (0..).zip(names).map(|(n, name)| event(&format!("{n}"), "k", name)).collect();
    first.publisher().publish("in", &events, None).await.unwrap();
    let tree = start_on(engine, &plan, &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a", "b", "c", "d"]);
    let letters = contents(&tree, "work.dead").await.concat();
    assert_eq!(letters.iter().map(|seen| seen.id()).collect::<Vec<_>>(), ["1", "3", "5", "6"]);
}
