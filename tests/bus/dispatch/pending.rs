//! What has no place in its topic yet is listed: with since when, until when and why, page by page, by key.

use std::time::Duration;

use bytes::Bytes;
use wattle::api::{PendingEvent, PendingFilter, PendingKind};
use wattle::dispatch::{PendingError, Tree};
use wattle::effects::MemoryDisk;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::{Attribute, Event, partition_of};

use crate::common::trees::{event, plan_of, settled, until};
use crate::dispatch::bed::{Hand, ends, start, start_on};
use crate::dispatch::script::{Script, copy};

const START_S: u64 = 1_700_000_000;

fn yaml(lifecycle: bool, partitions: u32) -> String {
    let lifecycle = match lifecycle {
        true => {
            ", lifecycle: { state: data.s, start: [new], allow: { new: [paid], paid: [done] }, out_of_order: { hold: \
             1h, \
             max: 200000 } }"
        }
        false => "",
    };
    format!(
        "wattle: v1\nname: t\ntopics:\n  in: {{ partitions: {partitions}{lifecycle} }}\n  out: {{}}\nsubscribers:\n  \
         work: {{ from: in, \
         plugin: w.wasm, to: {{ out: out }} }}\n"
    )
}

fn state(id: &str, key: &str, state: &str) -> Bytes {
    event(id, key, &format!(r#"{{"s":"{state}"}}"#))
}

fn delayed(id: &str, key: &str, delay: &str) -> Bytes {
    let mut event = Event::decode(&state(id, key, "new")).unwrap();
    event.attributes.insert("delay".into(), Attribute::String(delay.into()));
    event.encode()
}

async fn publish<E: Engine>(tree: &Tree<E>, events: &[Bytes]) {
    tree.publisher().publish("in", events, None).await.unwrap();
}

/// All of a listing, with so many events in each page at the most.
async fn all<E: Engine>(tree: &Tree<E>, filter: &PendingFilter, count: usize) -> Vec<PendingEvent> {
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page = tree.topic("in").unwrap().pending(filter.clone(), from, count).await.unwrap();
        assert!(page.events.len() <= count, "{}", page.events.len());
        found.extend(page.events);
        match page.next {
            Some(next) => from = Some(next),
            None => return found,
        }
    }
}

fn of(kind: Option<PendingKind>, key: Option<&str>) -> PendingFilter {
    PendingFilter { kind, key: key.map(str::to_owned) }
}

fn ids(events: &[PendingEvent]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

#[tokio::test]
async fn what_is_held_and_what_is_to_come_is_listed_with_since_when_until_when_and_why() {
    let (hand, disk) = (Hand::default(), MemoryDisk::default());
    let (plan, work) = (plan_of(&[&yaml(true, 4)]), Script::each(copy));
    let tree = start_on(hand.engine(&disk), &plan, &[("work", &work)]).await;
    publish(&tree, &[state("1", "a", "new"), state("2", "a", "done")]).await;
    hand.moves(Duration::from_secs(10));
    publish(&tree, &[state("3", "b", "paid"), delayed("4", "c", "20m"), delayed("5", "a", "10m")]).await;
    hand.moves(Duration::from_secs(10));
    publish(&tree, &[state("6", "a", "done")]).await;
    let seconds = |time_ns: u64| {
        assert_eq!(time_ns % 1_000_000_000, 0);
        time_ns / 1_000_000_000 - START_S
    };
    let look = async |tree: &Tree<_>| {
        let mut found = all(tree, &PendingFilter::default(), 100).await;
        assert!(found.is_sorted_by_key(|event| event.kind == PendingKind::Delayed), "those that are held come first");
        assert!(found.iter().all(|event| event.topic == "t/in" && event.partition == partition_of(&event.key, 4)));
        assert!(
            found.iter().all(|event| Event::decode(&event.event).unwrap().id == event.id && event.r#type == "test")
        );
        assert_eq!(ids(&found[3..]), ["5", "4"], "in the order in which they are due");
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let shown = found.iter().map(|event| {
            let (since_ns, due_ns) = (event.since_ns.unwrap(), event.due_ns.unwrap());
            (event.id.clone(), event.state.clone().unwrap_or_default(), seconds(since_ns), seconds(due_ns))
        });
        let shown: Vec<_> = shown.collect();
        let expected = [
            ("2", "done", 0, 3_600),
            ("3", "paid", 10, 3_610),
            ("4", "", 10, 1_210),
            ("5", "", 10, 610),
            ("6", "done", 20, 3_620),
        ];
        let expected = expected.map(|(id, state, since, due)| (id.to_owned(), state.to_owned(), since, due));
        assert_eq!(shown, expected);
        let reasons: Vec<_> = found.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(reasons[0], "the lifecycle of the topic does not allow `done` to follow `new`");
        assert_eq!(reasons[1], "the lifecycle of the topic does not allow `paid` as the first state of a key");
        assert_eq!(reasons[2..], ["", "", reasons[0]]);
    };
    look(&tree).await;
    ends(tree).await;
    let tree = start_on(hand.engine(&disk), &plan, &[("work", &work)]).await;
    look(&tree).await;
    // the key goes on: what is left is held for another reason, or not at all
    publish(&tree, &[state("7", "a", "paid")]).await;
    until("the first one follows", || tree.snapshot().topics[0].held() == 2).await;
    let left = all(&tree, &of(Some(PendingKind::Held), Some("a")), 100).await;
    assert_eq!((ids(&left), left[0].reason.contains("`done` to follow `done`")), (vec!["6"], true), "{left:?}");
    ends(tree).await;
    // without a lifecycle nothing is held, and what is to come waits on
    let tree = start_on(hand.engine(&disk), &plan_of(&[&yaml(false, 4)]), &[("work", &work)]).await;
    until("all has its place", || tree.snapshot().topics[0].held() == 0).await;
    assert_eq!(ids(&all(&tree, &PendingFilter::default(), 100).await), ["5", "4"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_whole_whatever_its_pages_have_and_only_of_what_is_asked_for() {
    let tree = start(&yaml(true, 3), &[("work", &Script::each(copy))]).await;
    let keys = ["a", "b", "c", "d", "e"];
    let mut events = Vec::new();
    for number in 0..20 {
        events.push(state(&format!("h{number:02}"), keys[number % 5], "paid"));
        events.push(delayed(&format!("d{number:02}"), keys[number % 5], &format!("{}m", 100 - number)));
    }
    publish(&tree, &events).await;
    let whole = all(&tree, &PendingFilter::default(), 1_000).await;
    assert_eq!(whole.len(), 40);
    for count in 1..9 {
        assert_eq!(all(&tree, &PendingFilter::default(), count).await, whole, "{count} at once");
    }
    for (kind, letter) in [(PendingKind::Held, "h"), (PendingKind::Delayed, "d")] {
        let of_kind: Vec<_> = whole.iter().filter(|event| event.kind == kind).cloned().collect();
        assert_eq!((of_kind.len(), of_kind[0].id.starts_with(letter)), (20, true));
        assert_eq!(all(&tree, &of(Some(kind), None), 3).await, of_kind);
        for key in keys {
            let of_key: Vec<_> = of_kind.iter().filter(|event| event.key == key).cloned().collect();
            assert_eq!(of_key.len(), 4);
            assert!(kind == PendingKind::Delayed || ids(&of_key).is_sorted(), "in the order in which they came");
            assert_eq!(all(&tree, &of(Some(kind), Some(key)), 3).await, of_key);
        }
    }
    assert_eq!(all(&tree, &of(None, Some("nobody")), 3).await, []);
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    settled(&tree).await;
    assert_eq!(all(&tree, &PendingFilter::default(), 3).await, [], "and nothing is listed that has left");
}

#[tokio::test]
async fn what_is_no_topic_or_no_position_is_refused() {
    let tree = start(&yaml(true, 1), &[("work", &Script::each(copy))]).await;
    let unknown = tree.topic("inn").err().unwrap();
    assert!(unknown.to_string().contains("did you mean `in`?"), "{unknown}");
    for wrong in [&b"1"[..], &[0; 5], &[0; 99], &[0, 0, 0, 0, 20].repeat(20)] {
        let wrong = Bytes::copy_from_slice(wrong);
        let refused = tree.topic("in").unwrap().pending(PendingFilter::default(), Some(wrong), 9).await.unwrap_err();
        assert!(matches!(refused, PendingError::Position), "{refused}");
    }
    let nowhere = Bytes::from_static(&[9, 0, 0, 0, 20]);
    let page = tree.topic("in").unwrap().pending(PendingFilter::default(), Some(nowhere), 9).await.unwrap();
    assert_eq!((page.events.len(), page.next), (0, None), "behind the last partition");
    for empty in ["out", "in@refused", "work.dead"] {
        let page = tree.topic(empty).unwrap().pending(PendingFilter::default(), None, 9).await.unwrap();
        assert_eq!((page.events.len(), page.next), (0, None), "{empty}");
    }
}

#[tokio::test]
async fn a_page_of_a_hundred_thousand_held_events_looks_at_as_many_as_it_has() {
    const HELD: usize = 100_000;
    const PAGE: usize = 1_000;
    let engine = MemoryEngine::default();
    let tree = start_on(engine.clone(), &plan_of(&[&yaml(true, 2)]), &[("work", &Script::each(copy))]).await;
    let events: Vec<_> =
        (0..HELD).map(|number| state(&number.to_string(), &format!("k{}", number % 1_000), "paid")).collect();
    for part in events.chunks(5_000) {
        publish(&tree, part).await;
    }
    until("all are taken in", || tree.next_due_ns().is_some()).await;
    let (mut seen, mut from) = (std::collections::BTreeSet::new(), None);
    loop {
        let before = engine.entries_read();
        let page = tree.topic("in").unwrap().pending(PendingFilter::default(), from, PAGE).await.unwrap();
        // the entries of the page, those that were read with them, and a state for each key
        assert!(engine.entries_read() - before <= 3 * PAGE as u64, "{}", engine.entries_read() - before);
        assert!(page.events.len() <= PAGE);
        seen.extend(page.events.into_iter().map(|event| event.id));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), HELD);
    let before = engine.entries_read();
    let of_key = all(&tree, &of(Some(PendingKind::Held), Some("k7")), PAGE).await;
    assert_eq!(of_key.len(), HELD / 1_000);
    assert!(engine.entries_read() - before <= 200, "a key is found without a look at the others");
    // what a filter leaves out is looked through part by part
    let later: Vec<_> = (0..25_000).map(|number| delayed(&format!("d{number}"), "k", "1h")).collect();
    for part in later.chunks(5_000) {
        publish(&tree, part).await;
    }
    publish(&tree, &[delayed("last", "z", "2h")]).await;
    let (mut pages, mut from) = (Vec::new(), None);
    loop {
        let before = engine.entries_read();
        let page =
            tree.topic("in").unwrap().pending(of(Some(PendingKind::Delayed), Some("z")), from, PAGE).await.unwrap();
        assert!(engine.entries_read() - before <= 11_000, "{}", engine.entries_read() - before);
        pages.push(page.events.len());
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, [0, 0, 1]);
}
