//! Events on their way down: levels, keys, partitions, identity.

use std::collections::BTreeMap;

use wattle::engine::memory::MemoryEngine;
use wattle::model::{OutputIds, partition_of};

use crate::common::trees::{by_key, contents, data, event, only, plan_of, settled, typed};
use crate::dispatch::bed::{ONE, one, publish, start, start_on};
use crate::dispatch::script::{Script, Step, copy, on, out};

const THREE_LEVELS: &str = "
wattle: v1
name: t
topics:
  in: { partitions: 4 }
  middle: {}
  low: {}
subscribers:
  high:
    from: in
    plugin: p.wasm
    to: [middle]
  mid:
    from: middle
    plugin: p.wasm
    to: [low]
  leaf:
    from: low
    plugin: p.wasm
";

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("e{n}")).collect()
}

#[tokio::test]
async fn events_flow_through_three_levels_with_their_keys_in_their_order() {
    let pass = || Script::each(|given| Step::Emit(vec![out(format!("{}.", given.data))]));
    let leaf = Script::each(|_| Step::Emit(Vec::new()));
    let tree = start(THREE_LEVELS, &[("high", &pass()), ("mid", &pass()), ("leaf", &leaf)]).await;
    for round in 0..20 {
        let events: Vec<_> =
            (0..10).map(|key| event(&format!("{round}-{key}"), &format!("k{key}"), &round.to_string())).collect();
        tree.publisher().publish("t/in", &events, None).await.unwrap();
    }
    settled(&tree).await;

    let expected = |dots: &str| -> BTreeMap<String, Vec<String>> {
        (0..10).map(|key| (format!("k{key}"), (0..20).map(|round| format!("{round}{dots}")).collect())).collect()
    };
    assert_eq!(by_key(&tree, "in").await, expected(""));
    assert_eq!(by_key(&tree, "middle").await, expected("."));
    assert_eq!(by_key(&tree, "low").await, expected(".."));
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for given in leaf.called().into_iter().flat_map(|call| call.events) {
        seen.entry(given.key).or_default().push(given.data);
    }
    assert_eq!(seen, expected(".."), "what the leaf was given");
    for topic in ["in", "middle", "low"] {
        let partitions = contents(&tree, topic).await;
        assert_eq!(partitions.len(), 4, "children have as many as their parent");
        for seen in partitions.iter().flatten() {
            assert_eq!(seen.partition, partition_of(&seen.key, 4), "{topic}");
        }
    }
}

#[tokio::test]
async fn every_subscriber_of_a_topic_gets_every_event() {
    let yaml = "
wattle: v1
name: t
topics: { in: {}, a: {}, b: {} }
subscribers:
  one: { from: in, plugin: p.wasm, to: [a] }
  two: { from: in, plugin: p.wasm, to: [b] }
  three: { from: in, plugin: p.wasm }
";
    let (one, two) = (Script::each(copy), Script::each(|given| Step::Emit(vec![out(given.data.clone()), out("more")])));
    let three = Script::each(|_| Step::Emit(Vec::new()));
    let tree = start(yaml, &[("one", &one), ("two", &two), ("three", &three)]).await;
    publish(&tree, "in", &["x", "y"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "a").await, ["x", "y"]);
    assert_eq!(data(&tree, "b").await, ["x", "more", "y", "more"]);
    assert_eq!(three.times(), BTreeMap::from([("x".to_owned(), 1), ("y".to_owned(), 1)]));
}

#[tokio::test]
async fn ports_lead_to_their_topics_and_several_may_lead_to_one() {
    let yaml = "
wattle: v1
name: t
topics: { in: {}, left: {}, right: {} }
subscribers:
  work: { from: in, plugin: p.wasm, to: { z: left, m: right, a: left } }
";
    let work = Script::each(|given| Step::Emit((0..3).map(|port| on(port, format!("{}{port}", given.data))).collect()));
    let tree = start(yaml, &[("work", &work)]).await;
    publish(&tree, "in", &["x", "y"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "left").await, ["x0", "x2", "y0", "y2"]);
    assert_eq!(data(&tree, "right").await, ["x1", "y1"]);
}

#[tokio::test]
async fn the_key_is_the_plugins_else_the_topics_else_the_parents() {
    let yaml = "
wattle: v1
name: t
topics:
  in: { partitions: 3 }
  plain: { partitions: 5 }
  keyed: { partitions: 7, key: data.to }
  composed: { key: 'key + \"/\" + type + \"/\" + string(attributes[\"hue\"])' }
subscribers:
  work: { from: in, plugin: p.wasm, to: [plain, keyed, composed] }
";
    let work = Script::each(|_| {
        let own = |mut output: wattle::model::call::Output| {
            output.key = Some("own".into());
            output
        };
        let json = r#"{"to":"there"}"#;
        let mut hued = on(2, json);
        hued.attributes = "hue=red\n".into();
        Step::Emit(vec![on(0, json), own(on(0, json)), on(1, json), own(on(1, json)), hued])
    });
    let tree = start(yaml, &[("work", &work)]).await;
    publish(&tree, "in", &["x"]).await;
    settled(&tree).await;
    for (topic, partitions, keys) in
        [("plain", 5, &["x", "own"][..]), ("keyed", 7, &["there", "own"]), ("composed", 3, &["x/out/red"])]
    {
        let seen: Vec<_> = contents(&tree, topic).await.into_iter().flatten().collect();
        let mut found: Vec<_> = seen.iter().map(|seen| seen.key.as_str()).collect();
        let mut keys = keys.to_vec();
        found.sort_unstable();
        keys.sort_unstable();
        assert_eq!(found, keys, "{topic}");
        for seen in seen {
            assert_eq!(seen.partition, partition_of(&seen.key, partitions), "{topic}");
        }
    }
}

#[tokio::test]
async fn outputs_are_named_after_what_they_were_made_from_and_say_so() {
    let work = Script::each(|given| {
        let mut output = out(given.data.clone());
        output.attributes = "subject=the subject\nhue=red\n".into();
        output.content_type = "text/plain".into();
        output.r#type = "made".into();
        Step::Emit(vec![output, out("second")])
    });
    let tree = one(&work, &["a", "b"]).await;
    settled(&tree).await;
    let ids = OutputIds::new("t/work", "t/in", 0);
    let seen = only(&tree, "out").await;
    let expected: Vec<_> =
        [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(offset, index)| ids.id(offset, index).to_string()).to_vec();
    assert_eq!(seen.iter().map(|seen| seen.id().to_owned()).collect::<Vec<_>>(), expected);
    for (seen, parent) in seen.iter().zip([0, 0, 1, 1]) {
        assert_eq!(seen.event.source, "/t/work");
        let lineage = seen.lineage.unwrap();
        assert_eq!((lineage.partition, lineage.offset), (0, parent));
    }
    let first = &seen[0];
    assert_eq!((first.event.r#type.as_str(), first.attribute("datacontenttype").as_str()), ("made", "text/plain"));
    assert_eq!((first.attribute("subject").as_str(), first.attribute("hue").as_str()), ("the subject", "red"));
    assert_eq!(first.event.attributes.len(), 3);
    assert!(only(&tree, "in").await.iter().all(|seen| seen.lineage.is_none()));
}

#[tokio::test]
async fn a_rerun_names_its_outputs_the_same() {
    let mut runs = Vec::new();
    for batches in [vec![vec!["a", "b", "c", "d"]], vec![vec!["a"], vec!["b", "c"], vec!["d"]]] {
        let work = Script::each(copy);
        let tree = start(ONE, &[("work", &work)]).await;
        for batch in &batches {
            publish(&tree, "in", batch).await;
            settled(&tree).await;
        }
        let same = |seen: &crate::common::trees::Seen| (seen.offset, seen.lineage, seen.encoded.clone());
        runs.push(only(&tree, "out").await.iter().map(same).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0].len(), 4);
}

#[tokio::test]
async fn a_call_has_one_content_type_and_batches_are_cut_where_it_changes() {
    let work = Script::each(copy);
    let plan = plan_of(&[ONE]);
    let engine = MemoryEngine::default();
    let first = start_on(engine.clone(), &plan, &[("work", &work)]).await;
    first.drain(crate::common::trees::PATIENCE).await;
    let kinds = [("a", "text/plain"), ("b", "text/plain"), ("c", ""), ("d", ""), ("e", "text/plain"), ("f", "x/y")];
    let events: Vec<_> = kinds.iter().map(|(name, kind)| typed(name, "k", name, kind)).collect();
    first.publisher().publish("in", &events, None).await.unwrap();
    let tree = start_on(engine, &plan, &[("work", &work)]).await;
    settled(&tree).await;
    let calls: Vec<_> = work.called().iter().map(|call| (call.content_type.clone(), call.data().concat())).collect();
    let expected = [("text/plain", "ab"), ("", "cd"), ("text/plain", "e"), ("x/y", "f")];
    assert_eq!(calls, expected.map(|(kind, data)| (kind.to_owned(), data.to_owned())));
    assert_eq!(data(&tree, "out").await, ["a", "b", "c", "d", "e", "f"]);
}

#[tokio::test]
async fn a_handler_is_told_what_it_is_called_for() {
    let work = Script::each(copy);
    let yaml = ONE.replace("in: {}", "in: { partitions: 2 }");
    let tree = start(&yaml, &[("work", &work)]).await;
    let places = publish(&tree, "in", &["x"]).await.places;
    settled(&tree).await;
    let [call] = <[_; 1]>::try_from(work.called()).unwrap();
    assert_eq!(
        (call.topic.as_str(), call.partition, call.content_type.as_str()),
        ("t/in", places[0].partition, "application/json")
    );
    let given = &call.events[0];
    assert_eq!((given.id.as_str(), given.key.as_str(), given.attempt), ("x", "x", 1));
    assert!(given.time_ns > 0);
}

#[tokio::test]
async fn a_backlog_is_handled_in_bounded_batches() {
    let names = names(1000);
    let work = Script::each(copy);
    let tree = one(&work, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settled(&tree).await;
    assert!(work.called().iter().all(|call| call.events.len() <= wattle::limits::BATCH_EVENTS_MAX as usize));
    assert!(work.called().len() < 20, "batches are not tiny either: {}", work.called().len());
    assert_eq!(data(&tree, "out").await, names);
}

#[tokio::test]
async fn two_namespaces_run_beside_each_other() {
    let work = Script::each(copy);
    let other = ONE.replace("name: t", "name: u");
    let tree = start_on(MemoryEngine::default(), &plan_of(&[ONE, &other]), &[("work", &work)]).await;
    publish(&tree, "t/in", &["x"]).await;
    publish(&tree, "u/in", &["y"]).await;
    settled(&tree).await;
    let (t, u) = (only(&tree, "t/out").await, only(&tree, "u/out").await);
    assert_eq!((t[0].data(), t[0].event.source.as_str()), ("x", "/t/work"));
    assert_eq!((u[0].data(), u[0].event.source.as_str()), ("y", "/u/work"));
    assert_ne!(t[0].id(), u[0].id());
}
