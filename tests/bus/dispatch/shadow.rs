//! Another version beside the running one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wattle::api::{DifferenceKind, ShadowRange, ShadowReport, SnapshotCause, StateEntry, StateOfPartition};
use wattle::dispatch::shadow::{ShadowError, ShadowOptions};
use wattle::dispatch::{ControlError, SnapshotError, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::CallErrorKind;

use crate::common::trees::until;
use crate::dispatch::bed::{ONE, one, one_of, publish, start};
use crate::dispatch::script::{Given, Script, Step, by_event, copy, out};

const LAST: u32 = 1_000;

fn over(over: ShadowRange) -> ShadowOptions {
    ShadowOptions { over, shown: 100, enough: CancellationToken::new() }
}

fn options(last: u32) -> ShadowOptions {
    over(ShadowRange::Last { events: last, state: Vec::new() })
}

/// A tree that has handled these events with a script.
async fn handled(yaml: &str, script: &Script, events: &[&str]) -> Tree<MemoryEngine> {
    let tree = if yaml == ONE { one(script, events).await } else { one_of(yaml, script, events).await };
    until("all is handled", || tree.is_at_rest()).await;
    tree
}

async fn shadow(tree: &Tree<MemoryEngine>, running: &Script, other: &Script, last: u32) -> ShadowReport {
    tree.subscriber("work").unwrap().shadow(running, other, &options(last)).await.unwrap()
}

/// What a report says of whom: events, held against the record, not deterministic, over other state, differing.
fn counts(report: &ShadowReport) -> [u64; 5] {
    let ShadowReport { events, held_against_record, not_deterministic, over_other_state, differing, .. } = *report;
    [events, held_against_record, not_deterministic, over_other_state, differing]
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_the_same_does_not_differ_and_nothing_is_committed() {
    let lane = Script::each(copy);
    let tree = handled(ONE, &lane, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    let before = format!("{:?}", tree.snapshot());
    let (running, other) = (Script::each(copy), Script::each(copy));
    let report = shadow(&tree, &running, &other, LAST).await;
    assert_eq!(counts(&report), [8, 8, 0, 0, 0], "{report:?}");
    assert!(report.shown.is_empty());
    assert_eq!(format!("{:?}", tree.snapshot()), before);
    assert_eq!(lane.called().len(), 1, "lanes are not asked");
    let batches = running.batches();
    let (first, second) = batches.split_at(other.batches().len());
    assert_eq!(first, other.batches(), "the two versions have the same calls");
    assert_ne!(first, second, "and the running one has others the second time");
    assert_eq!((report.running.calls, report.other.calls), (first.len() as u64, first.len() as u64));
    let report = shadow(&tree, &running, &other, 3).await;
    assert_eq!(counts(&report), [3, 3, 0, 0, 0], "only the last ones");
}

#[tokio::test(start_paused = true)]
async fn other_outputs_are_shown_beside_those_of_the_running_version() {
    let tree = handled(ONE, &Script::each(copy), &["a", "b", "c"]).await;
    let other = Script::each(|event| match event.data.as_str() {
        "b" => Step::Emit(vec![out("B")]),
        "c" => Step::Emit(vec![out("c"), out("more")]),
        _ => copy(event),
    });
    let report = shadow(&tree, &Script::each(copy), &other, LAST).await;
    assert_eq!(counts(&report), [3, 3, 0, 0, 2], "{report:?}");
    assert_eq!((report.outputs, report.state, report.failures), (2, 0, 0));
    let [b, c] = report.shown.as_slice() else { panic!("{report:?}") };
    assert_eq!((b.id.as_str(), b.offset, b.kind), ("b", 1, DifferenceKind::OtherVersion));
    assert_eq!((b.running.outputs.len(), b.other.outputs.len()), (1, 1));
    let ids: Vec<_> = b.running.outputs.keys().collect();
    assert_eq!(ids, b.other.outputs.keys().collect::<Vec<_>>(), "the same output with other data");
    assert!(b.other.outputs.values().all(|output| output.topic == "t/out" && output.key == "b"));
    assert_eq!(c.other.outputs.len(), 2);
    let few = ShadowOptions { shown: 1, ..options(LAST) };
    let report = tree.subscriber("work").unwrap().shadow(&Script::each(copy), &other, &few).await.unwrap();
    assert_eq!((report.shown.len(), report.differing), (1, 2), "the others are counted");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_differs_from_itself_is_not_deterministic_and_the_other_is_not_blamed() {
    let tree = handled(ONE, &Script::each(copy), &["a", "b"]).await;
    let counter = Arc::new(AtomicU32::new(0));
    let fickle = Script::each(move |event| match event.data.as_str() {
        "b" => Step::Emit(vec![out(counter.fetch_add(1, Ordering::Relaxed).to_string())]),
        _ => copy(event),
    });
    let report = shadow(&tree, &fickle, &Script::each(copy), LAST).await;
    assert_eq!(counts(&report), [2, 1, 1, 0, 0], "{report:?}");
    assert_eq!(report.compared, 1, "with the other it is not known");
    assert_eq!(report.shown[0].kind, DifferenceKind::NotDeterministic);
    // Always the same, and not what was recorded.
    let moved = Script::each(|event| match event.data.as_str() {
        "b" => Step::Emit(vec![out("B")]),
        _ => copy(event),
    });
    let report = shadow(&tree, &moved, &Script::each(copy), LAST).await;
    assert_eq!(counts(&report), [2, 2, 0, 0, 1], "the other one is held against what it does today: {report:?}");
    assert_eq!((report.compared, report.not_as_recorded), (2, 1));
    let kinds: Vec<_> = report.shown.iter().map(|difference| difference.kind).collect();
    assert_eq!(kinds, [DifferenceKind::NotAsRecorded, DifferenceKind::OtherVersion]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_keeps_more_than_it_may_differs() {
    let yaml = ONE.replace("    retry:", "    state: { max: 1KiB }\n    retry:");
    let keeps = |bytes: usize| {
        Script::each(move |event| {
            event.state.set("b", "all", "x".repeat(bytes));
            copy(event)
        })
    };
    let tree = handled(&yaml, &keeps(100), &["a", "b"]).await;
    let report = shadow(&tree, &keeps(100), &keeps(100), LAST).await;
    assert_eq!(counts(&report), [2, 2, 0, 0, 0], "{report:?}");
    let report = shadow(&tree, &keeps(100), &keeps(1024), LAST).await;
    assert_eq!((report.differing, report.failures, report.other.failed), (2, 2, 2), "{report:?}");
    let (kind, reason) = report.shown[0].other.failure.clone().unwrap();
    assert!(kind == "refused" && reason.contains("`state.max`"), "as a lane does: {reason}");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_takes_no_room_in_a_comparison() {
    let yaml = ONE.replace("    retry:", "    state: { max: 1KiB, ttl: 1m }\n    retry:");
    let keeps = Script::each(|event| {
        event.state.set("b", &event.data, "x".repeat(400));
        copy(event)
    });
    let tree = one_of(&yaml, &keeps, &[]).await;
    for (name, minute) in ["a", "b", "c", "d", "e"].into_iter().zip(0..) {
        tree.engine().hold_clock(1_700_000_000_000_000_000 + minute * 60_000_000_000);
        publish(&tree, "in", &[name]).await;
        until("all is handled", || tree.is_at_rest()).await;
    }
    let report = shadow(&tree, &keeps, &keeps, LAST).await;
    assert_eq!(counts(&report), [5, 5, 0, 0, 0], "{report:?}");
    assert_eq!((report.running.failed, report.compared), (0, 5), "{report:?}");
}

/// Counts all events in its state, and sends the number on.
fn count(event: &Given) -> Step {
    let number = event.state.get("b", "n").map_or(0, |number| number.parse::<u32>().unwrap()) + 1;
    event.state.set("b", "n", number.to_string());
    Step::Emit(vec![out(number.to_string())])
}

#[tokio::test(start_paused = true)]
async fn what_was_recorded_over_other_state_is_told_apart() {
    let tree = handled(ONE, &Script::each(count), &["a", "b", "c", "d"]).await;
    let report = shadow(&tree, &Script::each(count), &Script::each(count), LAST).await;
    assert_eq!(counts(&report), [4, 4, 0, 0, 0], "from the first event on it is the state that there was");
    let report = shadow(&tree, &Script::each(count), &Script::each(count), 2).await;
    assert_eq!(counts(&report), [2, 2, 0, 2, 0], "{report:?}");
    assert_eq!(report.shown[0].kind, DifferenceKind::OverOtherState);
    // With what there was in front of them it is as recorded.
    let entry = StateEntry { bucket: "b".into(), key: "n".into(), written_ns: 0, value: "2".into() };
    let state = vec![StateOfPartition { partition: 0, entry }];
    let given = over(ShadowRange::Last { events: 2, state });
    let report =
        tree.subscriber("work").unwrap().shadow(&Script::each(count), &Script::each(count), &given).await.unwrap();
    assert_eq!(counts(&report), [2, 2, 0, 0, 0], "{report:?}");
    // Only what is written differs.
    let noting = Script::each(|event| {
        event.state.set("b", "seen", event.data.clone());
        count(event)
    });
    let report = shadow(&tree, &Script::each(count), &noting, LAST).await;
    assert_eq!(counts(&report), [4, 4, 0, 0, 4], "{report:?}");
    assert_eq!((report.outputs, report.state, report.failures), (0, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_an_events_own_after_all_its_attempts() {
    let events = ["a", "b", "c", "d", "e", "f"];
    let until_third = |event: &Given| match event.data.as_str() {
        "c" if event.attempt < 3 => Step::Retry(None),
        "e" => Step::Reject,
        _ => copy(event),
    };
    let tree = handled(ONE, &Script::each(until_third), &events).await;
    let report = shadow(&tree, &Script::each(until_third), &Script::each(until_third), LAST).await;
    assert_eq!(counts(&report), [6, 6, 0, 0, 0], "a dead letter is as recorded: {report:?}");
    assert_eq!((report.running.failed, report.other.failed), (1, 1));
    let breaks = Script::each(move |event| match event.data.as_str() {
        "b" => Step::BreakSomewhere(CallErrorKind::Trap),
        _ => until_third(event),
    });
    let report = shadow(&tree, &Script::each(until_third), &breaks, LAST).await;
    assert_eq!(counts(&report), [6, 6, 0, 0, 1], "{report:?}");
    assert_eq!((report.failures, report.other.failed), (1, 2));
    let failure = report.shown[0].other.failure.clone().unwrap();
    assert_eq!((report.shown[0].id.as_str(), failure.0.as_str()), ("b", "trap"));
    let mends = Script::each(copy);
    let report = shadow(&tree, &Script::each(until_third), &mends, LAST).await;
    assert_eq!((report.differing, report.failures), (1, 1), "what failed and does not any more differs as well");
}

#[tokio::test(start_paused = true)]
async fn events_that_wait_or_are_passed_over_are_left_out() {
    let yaml = ONE.replace("    retry:", "    when: id != 'b'\n    on_failure: park\n    retry:");
    let parks = |event: &Given| if event.data == "c" { Step::Retry(None) } else { copy(event) };
    let tree = handled(&yaml, &Script::each(parks), &["a", "b", "c", "d"]).await;
    let report = shadow(&tree, &Script::each(parks), &Script::each(copy), LAST).await;
    assert_eq!(counts(&report), [2, 2, 0, 0, 0], "{report:?}");
    assert_eq!((report.passed_over, report.waiting), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_cannot_be_called_ends_it() {
    let tree = handled(ONE, &Script::each(copy), &["a"]).await;
    let none = Script::each(|_| Step::NoInstance);
    let error = tree.subscriber("work").unwrap().shadow(&Script::each(copy), &none, &options(LAST)).await.unwrap_err();
    assert!(matches!(error, ShadowError::Instance(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn of_events_that_are_shared_only_its_own_are_compared() {
    let member = |name: &str| {
        format!(
            "  {name}: {{ from: in, plugin: w.wasm, to: {{ out: {name}s }}, queue_group: both, batch: {{ max: 1 }} }}\n"
        )
    };
    let yaml = format!(
        "wattle: v1\nname: t\ntopics: {{ in: {{}}, works: {{}}, mates: {{}} }}\nsubscribers:\n{}{}",
        member("work"),
        member("mate")
    );
    let tree = start(&yaml, &[("work", &Script::each(copy)), ("mate", &Script::each(copy))]).await;
    publish(&tree, "in", &["a", "b", "c", "d", "e"]).await;
    until("all is handled", || tree.is_at_rest()).await;
    let mut compared = 0;
    for name in ["work", "mate"] {
        let report = tree
            .subscriber(name)
            .unwrap()
            .shadow(&Script::each(copy), &Script::each(copy), &options(LAST))
            .await
            .unwrap();
        assert_eq!(
            (report.events + report.not_its_own, report.differing, report.not_deterministic),
            (5, 0, 0),
            "{report:?}"
        );
        compared += report.events;
    }
    assert_eq!(compared, 5);
}

#[tokio::test(start_paused = true)]
async fn behind_a_snapshot_it_begins_with_its_state() {
    let tree = handled(ONE, &Script::each(count), &["a", "b"]).await;
    tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 9).await.unwrap();
    publish(&tree, "in", &["c", "d", "e"]).await;
    until("all is handled", || tree.is_at_rest()).await;
    let behind = |snapshot, events| over(ShadowRange::Behind { snapshot, events });
    let report = tree
        .subscriber("work")
        .unwrap()
        .shadow(&Script::each(count), &Script::each(count), &behind(1, 9))
        .await
        .unwrap();
    assert_eq!(counts(&report), [3, 3, 0, 0, 0], "{report:?}");
    // from where it was taken, not the last ones
    let other = Script::each(|event| if event.data == "c" { Step::Reject } else { count(event) });
    let report = tree.subscriber("work").unwrap().shadow(&Script::each(count), &other, &behind(1, 1)).await.unwrap();
    assert_eq!(counts(&report), [1, 1, 0, 0, 1], "{report:?}");
    let error = tree.subscriber("work").unwrap().shadow(&other, &other, &behind(2, 1)).await.unwrap_err();
    let unknown = SnapshotError::Unknown { subscriber: "t/work".into(), number: 2 };
    assert!(matches!(&error, ShadowError::Control(ControlError::Snapshot(found)) if *found == unknown), "{error}");
}

/// Compares what comes, beside whatever the test does.
fn following(tree: &Tree<MemoryEngine>, other: &Script, events: u64, enough: &CancellationToken) -> Following {
    let (tree, other) = (tree.clone(), other.clone());
    let coming = ShadowRange::Coming { events: Some(events), time: None };
    let options = ShadowOptions { enough: enough.clone(), ..over(coming) };
    tokio::spawn(async move {
        tree.subscriber("work").unwrap().shadow(&Script::each(count), &other, &options).await.unwrap()
    })
}

type Following = tokio::task::JoinHandle<ShadowReport>;

/// Time that is paused flies only once nobody has anything to do.
async fn everybody_waits() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn events_that_come_are_compared_over_the_state_that_there_is() {
    let tree = handled(ONE, &Script::each(count), &["a", "b"]).await;
    let noting = Script::each(|event| {
        event.state.set("b", "seen", event.data.clone());
        count(event)
    });
    let (same, differs) = (
        following(&tree, &Script::each(count), 3, &CancellationToken::new()),
        following(&tree, &noting, 4, &CancellationToken::new()),
    );
    everybody_waits().await;
    for name in ["c", "d", "e"] {
        publish(&tree, "in", &[name]).await;
        everybody_waits().await;
    }
    let report = same.await.unwrap();
    assert_eq!(counts(&report), [3, 3, 0, 0, 0], "each is as it was recorded over the same state: {report:?}");
    assert!(!differs.is_finished(), "it has seen three, and waits for the fourth");
    publish(&tree, "in", &["f", "g"]).await;
    let report = differs.await.unwrap();
    assert_eq!(counts(&report), [4, 4, 0, 0, 4], "no more than were asked for: {report:?}");
    assert_eq!((report.outputs, report.state, report.shown[0].id.as_str()), (0, 4, "c"));
    assert_eq!(tree.subscriber("work").unwrap().state().get(("b", "seen"), 0).unwrap().0, [], "nothing is committed");
}

#[tokio::test(start_paused = true)]
async fn a_comparison_over_events_that_come_ends_after_its_time() {
    let (tree, began) = (handled(ONE, &Script::each(count), &["a"]).await, Instant::now());
    let hour = over(ShadowRange::Coming { events: None, time: Some(Duration::from_secs(3_600)) });
    let compares = tree.clone();
    let compared = tokio::spawn(async move {
        compares.subscriber("work").unwrap().shadow(&Script::each(count), &Script::each(count), &hour).await.unwrap()
    });
    everybody_waits().await;
    publish(&tree, "in", &["b"]).await;
    let report = compared.await.unwrap();
    assert_eq!((counts(&report), began.elapsed().as_secs()), ([1, 1, 0, 0, 0], 3_600), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_comparison_ends_where_another_version_is_proven() {
    let tree = handled(ONE, &Script::each(count), &["a"]).await;
    let report = following(&tree, &Script::each(count), 9, &CancellationToken::new());
    everybody_waits().await;
    publish(&tree, "in", &["b"]).await;
    everybody_waits().await;
    tree.subscriber("work").unwrap().versions().run(Script::each(count).version(7)).await.unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), report).await.expect("it ends").unwrap();
    assert!(report.is_superseded, "what is recorded from then on is not of the version that is compared: {report:?}");
    assert_eq!(counts(&report), [1, 1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn no_lane_waits_for_a_comparison_that_is_ended_with_what_it_has() {
    let lane = Script::each(count);
    let tree = handled(ONE, &lane, &["a"]).await;
    let sticks = Script::calls(|call| async move {
        if call.data().contains(&"c") {
            std::future::pending::<()>().await;
        }
        by_event(&call, count)
    });
    let enough = CancellationToken::new();
    let following = following(&tree, &sticks, u64::MAX, &enough);
    everybody_waits().await;
    publish(&tree, "in", &["b"]).await;
    everybody_waits().await;
    publish(&tree, "in", &["c"]).await;
    everybody_waits().await;
    publish(&tree, "in", &["d", "e"]).await;
    everybody_waits().await;
    assert!(tree.is_at_rest() && lane.times().len() == 5, "the lane has gone on: {:?}", lane.times());
    assert!(!following.is_finished());
    enough.cancel();
    let report = following.await.unwrap();
    assert_eq!(counts(&report), [1, 1, 0, 0, 0], "what was begun is left out whole: {report:?}");
    assert_eq!((report.not_reached, report.running.calls, report.other.calls), (3, 1, 1), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_breaks_off_says_what_it_has() {
    let tree = handled(ONE, &Script::each(count), &["a"]).await;
    let none = Script::each(|event| if event.data == "c" { Step::NoInstance } else { count(event) });
    let report = following(&tree, &none, 9, &CancellationToken::new());
    everybody_waits().await;
    for name in ["b", "c"] {
        publish(&tree, "in", &[name]).await;
        everybody_waits().await;
    }
    let report = report.await.unwrap();
    assert_eq!((counts(&report), report.not_reached), ([1, 1, 0, 0, 0], 1), "{report:?}");
    assert!(report.broke_off.is_some());
}
