//! What another topology would lose of what is kept: said with how much, and nothing where nothing would be lost.

use std::time::Duration;

use wattle::dispatch::{Tree, changes_of};
use wattle::effects::MemoryDisk;
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;

use crate::common::trees::{data, event, plan_of, settled, until};
use crate::dispatch::bed::{Hand, ends, publish, start, start_on};
use crate::dispatch::script::{Script, copy};

const HOUR: Duration = Duration::from_secs(3_600);

/// `in` -> `keep` -> `kept`, with what is said of the topic and of the subscriber.
fn yaml(topic: &str, subscriber: &str) -> String {
    format!(
        "wattle: v1\nname: t\ntopics: {{ in: {{ partitions: 1, {topic} }}, kept: {{}} }}\nsubscribers:\n  keep: {{ \
         from: in, \
         plugin: keep.wasm, to: {{ out: kept }}, {subscriber} }}\n"
    )
}

/// What a plan is told to lose while it runs, which is what a start is told.
async fn lost<E: Engine>(tree: &Tree<E>, before: &str, after: &str) -> Vec<String> {
    let (old, new) = (plan_of(&[before]), plan_of(&[after]));
    let live = tree.changes(&new).losses;
    assert_eq!(changes_of(tree.engine(), &old, &new).await.unwrap().losses, live, "a start says the same");
    live
}

async fn publish_hourly<E: Engine>(tree: &Tree<E>, clock: impl Fn(Duration), names: &[&str]) {
    for name in names {
        clock(HOUR);
        publish(tree, "in", &[name]).await;
        settled(tree).await;
    }
}

/// A topic with an event of each of four hours, on an engine whose clock a test moves.
async fn four_hours(topic: &str) -> (Tree<EmbeddedEngine>, Hand, MemoryDisk) {
    let (hand, disk) = (Hand::default(), MemoryDisk::default());
    let tree = start_on(hand.engine(&disk), &plan_of(&[&yaml(topic, "")]), &[("keep", &Script::each(copy))]).await;
    publish_hourly(&tree, |by| hand.moves(by), &["a", "b", "c", "d"]).await;
    hand.moves(HOUR / 2);
    (tree, hand, disk)
}

#[tokio::test]
async fn another_key_loses_order_where_there_are_partitions_and_events() {
    let yaml = |partitions: u32, key: &str| {
        format!(
            "wattle: v1\nname: t\ntopics: {{ in: {{ partitions: {partitions}{key} }}, kept: {{}} }}\nsubscribers:\n  \
             keep: {{ from: in, \
             plugin: keep.wasm, to: {{ out: kept }} }}\n"
        )
    };
    for partitions in [1, 2] {
        let before = yaml(partitions, ", key: id");
        let tree = start(&before, &[("keep", &Script::each(copy))]).await;
        let after = yaml(partitions, ", key: type");
        assert!(lost(&tree, &before, &after).await.is_empty(), "there are no events yet");
        publish(&tree, "in", &["one", "two"]).await;
        settled(&tree).await;
        assert!(lost(&tree, &before, &before).await.is_empty());
        let losses = lost(&tree, &before, &after).await.concat();
        assert_eq!(
            losses.contains("with `key: type` sends events to other partitions than the 2 before"),
            partitions > 1,
            "{losses}"
        );
        assert_eq!(lost(&tree, &before, &yaml(partitions, "")).await.len(), usize::from(partitions > 1));
    }
}

#[tokio::test]
async fn a_shorter_retention_loses_events_and_says_how_many() {
    let before = yaml("retention: { age: 7d }", "");
    let (tree, ..) = four_hours("retention: { age: 7d }").await;
    let age = lost(&tree, &before, &yaml("retention: { age: 80m }", "")).await;
    let expected =
        "topic `t/in` has up to 3 events beyond `retention: { age: 1h20m }` (they stay with `retention: { age: 7d }`)";
    assert_eq!(age, [expected]);
    let size = lost(&tree, &before, &yaml("retention: { age: 7d, size: 1B }", "")).await;
    assert!(size.concat().contains("up to 4 events beyond `retention: { age: 7d, size: 1B }`"), "{size:?}");
    for kept in ["retention: { age: 5h }", "retention: { age: 8d }", "retention: { age: 7d, size: 1GiB }"] {
        assert_eq!(lost(&tree, &before, &yaml(kept, "")).await, Vec::<String>::new(), "{kept}");
    }
    ends(tree).await;
}

#[tokio::test]
async fn a_retention_that_is_shorter_than_that_of_segments_is_told_by_their_times() {
    let (tree, hand, disk) = four_hours("retention: { age: 7d }").await;
    ends(tree).await;
    // what was in memory is in segments from here on
    let before = yaml("retention: { age: 7d }", "");
    let tree = start_on(hand.engine(&disk), &plan_of(&[&before]), &[("keep", &Script::each(copy))]).await;
    let gone = lost(&tree, &before, &yaml("retention: { age: 80m }", "")).await;
    assert!(gone.len() == 1 && gone[0].contains(" events beyond `retention: { age: 1h20m }`"), "{gone:?}");
    assert_eq!(lost(&tree, &before, &yaml("retention: { age: 5h }", "")).await, Vec::<String>::new());
    ends(tree).await;
}

#[tokio::test]
async fn force_loses_what_is_yet_to_be_handled() {
    let (hand, disk) = (Hand::default(), MemoryDisk::default());
    let (before, after) = (yaml("retention: { age: 1h }", ""), yaml("retention: { age: 1h, force: true }", ""));
    let (keep, gate) = crate::dispatch::applying::gated();
    let tree = start_on(hand.engine(&disk), &plan_of(&[&before]), &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    gate.add_permits(1);
    settled(&tree).await;
    publish(&tree, "in", &["b", "c"]).await;
    until("it waits in its call", || keep.called().len() == 2).await;
    assert_eq!(lost(&tree, &before, &after).await, Vec::<String>::new(), "nothing is old");
    hand.moves(2 * HOUR);
    let said = lost(&tree, &before, &after).await;
    let expected = "topic `t/in` has up to 2 unhandled events beyond its `retention` (they stay until they are handled \
                    without `force: true`)";
    assert_eq!(said, [expected]);
    gate.add_permits(9);
    settled(&tree).await;
    assert_eq!(lost(&tree, &before, &after).await, Vec::<String>::new(), "all is handled");
    ends(tree).await;
}

#[tokio::test]
async fn a_shorter_dedupe_forgets_what_was_taken() {
    let (tree, ..) = four_hours("dedupe: { window: 3h }").await;
    let before = yaml("dedupe: { window: 3h }", "");
    let count = |said: Vec<String>| said.concat().split(' ').find_map(|word| word.parse::<u64>().ok());
    // three of the four are within three hours
    for (after, forgotten) in [
        ("dedupe: { window: 80m }", Some(2)),
        ("dedupe: off", Some(3)),
        ("dedupe: { window: 3h, count: 1 }", Some(2)),
        ("dedupe: { window: 3h }, id: data", Some(3)),
        ("dedupe: { window: 4h }", None),
        ("dedupe: { window: 3h, count: 3 }", None),
    ] {
        let said = lost(&tree, &before, &yaml(after, "")).await;
        assert_eq!(count(said.clone()), forgotten, "{after}: {said:?}");
        assert_eq!(said.len(), usize::from(forgotten.is_some()), "{after}: {said:?}");
        let words = "no longer recognises up to";
        assert!(said.is_empty() || said[0].contains(words) && said[0].contains("`dedupe: { window: 3h }`"), "{said:?}");
    }
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn keys_whose_ends_are_forgotten_are_counted() {
    let lifecycle = |more: &str| {
        let text = "wattle: v1\nname: t\ntopics: { in: { partitions: 1, lifecycle: { state: type, start: [test], \
            allow: {} MORE } \
                    DEDUPE }, kept: {} }\nsubscribers:\n  keep: { from: in, plugin: keep.wasm, to: { out: kept } }\n";
        let (more, dedupe) = more.split_once('|').unwrap_or((more, ""));
        text.replace("MORE", more).replace("DEDUPE", dedupe)
    };
    let before = lifecycle(", remember: 200m");
    let tree = start(&before, &[("keep", &Script::each(copy))]).await;
    for name in ["a", "b", "c", "d"] {
        publish(&tree, "in", &[name]).await;
        settled(&tree).await;
        tokio::time::advance(HOUR).await;
    }
    for (after, forgotten) in [
        // the first is forgotten already, with the next event
        (", remember: 90m", Some(2)),
        (", remember: 30m", Some(3)),
        (", restart: true", Some(3)),
        (", remember: 200m, remember_max: 2", Some(1)),
        (", remember: 4h, remember_max: 4", None),
        (", remember: 200m", None),
    ] {
        let said = lost(&tree, &before, &lifecycle(after)).await;
        assert_eq!(said.len(), usize::from(forgotten.is_some()), "{after}: {said:?}");
        if let Some(forgotten) = forgotten {
            let words = format!("topic `t/in` forgets up to {forgotten} ends of keys");
            assert!(said[0].starts_with(&words) && said[0].contains("`remember: 3h20m`"), "{after}: {said:?}");
        }
    }
    let per_key = lifecycle(", remember: 3h|, dedupe: { per: key }");
    let tree = start(&per_key, &[("keep", &Script::each(copy))]).await;
    publish(&tree, "in", &["a", "b"]).await;
    let said = lost(&tree, &per_key, &before).await;
    assert!(said.concat().contains("no longer recognises the events of 2 keys"), "{said:?}");
}

/// A handler that keeps each event under its own key.
fn keeper() -> Script {
    Script::each(|event| {
        event.state.set("b", &event.id, "7".repeat(100));
        copy(event)
    })
}

#[tokio::test(start_paused = true)]
async fn a_ttl_loses_state_and_says_how_much() {
    for (before, first) in [("", "without `ttl`"), ("state: { ttl: 1d }", "with `ttl: 1d`")] {
        let before = yaml("", before);
        let tree = start(&before, &[("keep", &keeper())]).await;
        for name in ["a", "b", "c", "d"] {
            tokio::time::advance(HOUR).await;
            publish(&tree, "in", &[name]).await;
            settled(&tree).await;
        }
        tokio::time::advance(HOUR / 2).await;
        let said = lost(&tree, &before, &yaml("", "state: { ttl: 2h }")).await;
        let expected =
            format!("subscriber `t/keep` keeps 2 entries of state that are older than `ttl: 2h` (they stay {first})");
        assert_eq!(said, [expected]);
        assert_eq!(lost(&tree, &before, &yaml("", "state: { ttl: 23h }")).await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_state_is_bounded_and_says_so() {
    let before = yaml("", "");
    let tree = start(&before, &[("keep", &keeper())]).await;
    let names: Vec<String> = (0..12_000).map(|number| format!("{number:05}")).collect();
    let events: Vec<_> = names.iter().map(|name| event(name, name, name)).collect();
    for events in events.chunks(4_000) {
        tree.publisher().publish("in", events, None).await.unwrap();
    }
    settled(&tree).await;
    let read = tree.engine().entries_read();
    let said = tree.changes(&plan_of(&[&yaml("", "state: { ttl: 100d }")])).losses;
    assert!(said.concat().contains("keeps 0 entries of state at least, as only a part was read"), "{said:?}");
    assert!(tree.engine().entries_read() - read < 11_000);
}

#[tokio::test(start_paused = true)]
async fn less_room_for_state_than_it_takes_is_said() {
    let before = yaml("", "state: { max: 1MiB }");
    let tree = start(&before, &[("keep", &keeper())]).await;
    publish(&tree, "in", &["a", "b"]).await;
    settled(&tree).await;
    let said = lost(&tree, &before, &yaml("", "state: { max: 200B }")).await;
    assert!(said.concat().contains("of state in each of 1 partitions, more than `state.max: 200B`"), "{said:?}");
    assert_eq!(lost(&tree, &before, &yaml("", "state: { max: 1KiB }")).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn all_that_is_lost_is_said_at_once_and_events_on_their_way_are_counted() {
    let before = yaml("", "state: { max: 1MiB }").replace("kept: {}", "kept: {}, other: {}");
    let tree: Tree<MemoryEngine> = start(&before, &[("keep", &keeper())]).await;
    publish(&tree, "in", &["a", "b"]).await;
    publish(&tree, "other", &["x"]).await;
    settled(&tree).await;
    tokio::time::advance(HOUR).await;
    let after = yaml("retention: { age: 1m }, dedupe: off", "state: { max: 1B, ttl: 1m }");
    let said = lost(&tree, &before, &after).await;
    for words in
        ["`t/in` has up to 2 events", "`t/other` still has 1 events", "`t/keep` keeps 2 entries", "`state.max: 1B`"]
    {
        assert_eq!(said.iter().filter(|loss| loss.contains(words)).count(), 1, "{words}: {said:?}");
    }
    assert_eq!(data(&tree, "in").await, ["a", "b"], "nothing happens");
}
