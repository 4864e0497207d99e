//! Snapshots: state, what waits and position as they were together, taken while lanes run, and gone back to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use wattle::api::{Filter, LaneState, Seek, SeekState, SeekTo, SnapshotCause, StateEntry};
use wattle::dispatch::{ControlError, NameError, NameKind, Refusal, SnapshotError, Tree};
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::SEEK_WRITES_MAX;
use wattle::log::LogOptions;
use wattle::model::call::CallErrorKind;
use wattle::model::{LaneId, SubscriberId};
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, by_key, event, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, ends, start, start_on};
use crate::dispatch::script::{Given, Script, Step, copy, out};

const LANES: u32 = 3;

fn plan() -> Plan {
    plan_of(&[&format!("{}    on_failure: park\n", ONE.replace("in: {}", "in: { partitions: 3, dedupe: off }"))])
}

/// Counts the events of each key, and all of its lane; an event whose data begins with `bad` fails until it is healed.
fn counting(healed: &Arc<AtomicBool>) -> Script {
    let healed = healed.clone();
    Script::each(move |given: &Given| {
        if given.data.starts_with("bad") && !healed.load(SeqCst) {
            return Step::Break(CallErrorKind::Protocol); // never better, so it is parked at once
        }
        let add = |key: &str| {
            let count = given.state.get("b", key).map_or(0, |count| count.parse::<u64>().unwrap()) + 1;
            given.state.set("b", key, count.to_string());
            count
        };
        add("all");
        Step::Emit(vec![out(format!("{} {}", given.data, add(&given.key)))])
    })
}

async fn started<E: Engine>(engine: E) -> (Tree<E>, Arc<AtomicBool>) {
    let healed = Arc::default();
    (start_on(engine, &plan(), &[("work", &counting(&healed))]).await, healed)
}

async fn publish<E: Engine>(tree: &Tree<E>, numbers: std::ops::Range<u32>) {
    let events: Vec<_> = numbers.map(|n| event(&n.to_string(), &format!("k{}", n % 7), &n.to_string())).collect();
    tree.publisher().publish("in", &events, None).await.unwrap();
}

fn back_to(number: u64) -> Seek {
    let (to, state) = (SeekTo::Snapshot, SeekState::Snapshot(number));
    Seek { to, partition: None, state: Some(state), drops_waiting: false, dry_run: false }
}

/// What is under a key of the state, by partition.
fn state<E: Engine>(tree: &Tree<E>, key: &str) -> BTreeMap<u32, u64> {
    let found = tree.subscriber("work").unwrap().state().get(("b", key), 0).unwrap().0;
    let value = |entry: &StateEntry| String::from_utf8(entry.value.to_vec()).unwrap().parse().unwrap();
    found.iter().map(|found| (found.partition, value(&found.entry))).collect()
}

async fn a_seek_to_a_snapshot_goes_on_as_if_nothing_had_come_after_it(home: impl Home) {
    let (tree, _) = started(home.open().await).await;
    publish(&tree, 0..50).await;
    settled(&tree).await;
    let taken = tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "before", 9).await.unwrap();
    assert_eq!((taken.number, taken.note.as_str(), taken.digest.as_str()), (1, "before", "01".repeat(32).as_str()));
    assert_eq!(taken.positions.iter().sum::<u64>(), 50);
    assert_eq!((taken.entries, taken.bytes > 0), (7 + u64::from(LANES), true));
    publish(&tree, 50..90).await;
    settled(&tree).await;
    let (once, counts) = (by_key(&tree, "out").await, state(&tree, "all"));
    ends(tree).await;

    let (tree, _) = started(home.open().await).await;
    assert_eq!(
        tree.subscriber("work").unwrap().snapshots().list().unwrap(),
        std::slice::from_ref(&taken),
        "it survives"
    );
    let dry = tree.subscriber("work").unwrap().seek(Seek { dry_run: true, ..back_to(1) }).await.unwrap();
    assert_eq!(state(&tree, "all"), counts, "nothing was moved");
    let moved = tree.subscriber("work").unwrap().seek(back_to(1)).await.unwrap();
    assert_eq!(moved, dry);
    assert_eq!(moved.iter().map(|moved| moved.to).collect::<Vec<_>>(), taken.positions);
    settled(&tree).await;
    assert_eq!(state(&tree, "all"), counts, "the state is what it would have been");
    for (key, twice) in by_key(&tree, "out").await {
        let (first, again) = twice.split_at(once[&key].len());
        assert_eq!(first, once[&key]);
        assert_eq!(again, &once[&key][once[&key].len() - again.len()..], "and so is what is emitted");
    }
    ends(tree).await;
}

#[tokio::test]
async fn a_seek_to_a_snapshot_in_memory() {
    a_seek_to_a_snapshot_goes_on_as_if_nothing_had_come_after_it(MemoryEngine::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_to_a_snapshot_on_disk() {
    a_seek_to_a_snapshot_goes_on_as_if_nothing_had_come_after_it(tempfile::tempdir().unwrap()).await;
}

/// Each event counts once, so the count is the position: of whatever moment the snapshot is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_lanes_that_run_has_state_and_position_of_one_moment() {
    let home = tempfile::tempdir().unwrap();
    let (tree, _) = started(home.open().await).await;
    let enough = Arc::new(AtomicBool::new(false));
    let publishing = {
        let (tree, enough) = (tree.clone(), enough.clone());
        tokio::spawn(async move {
            let mut published = 0;
            while !enough.load(SeqCst) {
                publish(&tree, published..published + 20).await;
                published += 20;
            }
            u64::from(published)
        })
    };
    let (mut taken, mut between, begin) = (Vec::new(), 0, Instant::now());
    while between < 5 {
        let before = state(&tree, "all").values().sum::<u64>();
        taken.push(tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 1_000).await.unwrap());
        // whatever it is of, more was handled in front of it and behind it
        let of = taken.last().unwrap().positions.iter().sum::<u64>();
        assert!(of >= before, "what was handled before is in it");
        until("more is handled behind it", || state(&tree, "all").values().sum::<u64>() > of).await;
        between += usize::from(before > 0);
        assert!(begin.elapsed() < PATIENCE, "{between} of {} were taken while something went on", taken.len());
    }
    enough.store(true, SeqCst);
    let published = publishing.await.unwrap();
    settled(&tree).await;
    assert_eq!(state(&tree, "all").values().sum::<u64>(), published);
    tree.subscriber("work").unwrap().pause().await.unwrap();
    for taken in &taken {
        tree.subscriber("work").unwrap().seek(back_to(taken.number)).await.unwrap();
        let counts = state(&tree, "all");
        let counts: Vec<_> = (0..LANES).map(|lane| counts.get(&lane).copied().unwrap_or(0)).collect();
        assert_eq!(counts, taken.positions, "snapshot {}", taken.number);
    }
    tree.subscriber("work").unwrap().resume().await.unwrap();
    settled(&tree).await;
    assert_eq!(state(&tree, "all").values().sum::<u64>(), published);
    ends(tree).await;
}

#[tokio::test]
async fn what_waited_waits_again_unless_it_comes_again() {
    let (tree, healed) = started(MemoryEngine::default()).await;
    let events = [("a", "fine"), ("a", "bad"), ("a", "behind"), ("b", "fine")];
    let events: Vec<_> = events.iter().map(|(key, data)| event(data, key, data)).collect();
    tree.publisher().publish("in", &events, None).await.unwrap();
    settled(&tree).await;
    let waiting = || status(&tree.snapshot(), "t/work").waiting;
    assert_eq!(waiting(), 2, "one is parked, and one is behind it");
    tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 9).await.unwrap();
    let refused = tree.subscriber("work").unwrap().seek(back_to(1)).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused { refusal: Refusal::Waits { waiting: 2 }, .. }), "{refused:?}");
    tree.subscriber("work").unwrap().retry_queue().drop(&Filter::default()).await.unwrap();
    assert_eq!(waiting(), 0);

    tree.subscriber("work").unwrap().seek(back_to(1)).await.unwrap();
    settled(&tree).await;
    assert_eq!(waiting(), 2);
    let found =
        tree.subscriber("work").unwrap().retry_queue().list(&Filter::default(), Default::default(), 9).unwrap().found;
    assert_eq!(found.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["bad", "behind"]);
    assert_eq!((found[0].attempts, found[0].is_parked), (1, true));
    // from the start they come again, so they are not among what waits as well
    tree.subscriber("work").unwrap().seek(Seek { to: SeekTo::Start, drops_waiting: true, ..back_to(1) }).await.unwrap();
    settled(&tree).await;
    assert_eq!(waiting(), 2);
    healed.store(true, SeqCst);
    tree.subscriber("work").unwrap().retry_queue().release(&Filter::default()).await.unwrap();
    settled(&tree).await;
    let data = by_key(&tree, "out").await["a"].clone();
    assert_eq!(
        data[data.len() - 2..],
        ["bad 3", "behind 4"],
        "once each: two are from the snapshot, `fine` came again"
    );
}

#[tokio::test]
async fn the_oldest_go_and_those_that_are_named() {
    let (tree, _) = started(MemoryEngine::default()).await;
    let numbers = || {
        tree.subscriber("work")
            .unwrap()
            .snapshots()
            .list()
            .unwrap()
            .iter()
            .map(|taken| taken.number)
            .collect::<Vec<_>>()
    };
    for _ in 0..5 {
        tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 3).await.unwrap();
    }
    assert_eq!(numbers(), [3, 4, 5]);
    tree.subscriber("t/work").unwrap().snapshots().remove(4).unwrap();
    assert_eq!(numbers(), [3, 5]);
    assert_eq!(tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 0).await.unwrap().number, 6);
    assert_eq!(numbers(), [6], "the new one stays in any case");
    let unknown = |error| matches!(error, ControlError::Snapshot(SnapshotError::Unknown { number: 4, .. }));
    assert!(unknown(tree.subscriber("work").unwrap().snapshots().remove(4).unwrap_err()));
    assert!(unknown(tree.subscriber("work").unwrap().seek(back_to(4)).await.unwrap_err()));
    let unsaid =
        tree.subscriber("work").unwrap().seek(Seek { state: Some(SeekState::Keep), ..back_to(6) }).await.unwrap_err();
    assert!(matches!(unsaid, ControlError::Snapshot(SnapshotError::NoPosition)), "{unsaid:?}");
    assert!(matches!(tree.subscriber("nobody"), Err(NameError::Unknown { kind: NameKind::Subscriber, .. })));
}

#[tokio::test]
async fn a_snapshot_has_the_time_of_the_engine() {
    let tree = start(ONE, &[("work", &Script::each(copy))]).await;
    tree.engine().hold_clock(7_000_000_000);
    let taken = tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 9).await.unwrap();
    assert_eq!(taken.taken_ns, 7_000_000_000);
    ends(tree).await;
}

#[tokio::test]
async fn those_of_deploys_and_those_by_hand_do_not_push_each_other_out() {
    let (tree, _) = started(MemoryEngine::default()).await;
    let kinds = || {
        tree.subscriber("work")
            .unwrap()
            .snapshots()
            .list()
            .unwrap()
            .iter()
            .map(|taken| (taken.number, taken.by))
            .collect::<Vec<_>>()
    };
    tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 1).await.unwrap();
    for _ in 0..4 {
        tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Deploy, "", 2).await.unwrap();
    }
    assert_eq!(kinds(), [(1, SnapshotCause::Hand), (4, SnapshotCause::Deploy), (5, SnapshotCause::Deploy)]);
    tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 1).await.unwrap();
    assert_eq!(kinds(), [(4, SnapshotCause::Deploy), (5, SnapshotCause::Deploy), (6, SnapshotCause::Hand)]);
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_whole() {
    let (tree, _) = started(MemoryEngine::default()).await;
    publish(&tree, 0..50).await;
    settled(&tree).await;
    tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 9).await.unwrap();
    publish(&tree, 50..60).await;
    settled(&tree).await;
    let counts = state(&tree, "all");
    let disk = tree.engine().snapshots().unwrap();
    let [name] = <[String; 1]>::try_from(disk.list().unwrap()).unwrap();
    let file = disk.open(&name).unwrap();
    let at = file.length().unwrap() - 60; // of the last lane
    let byte = file.read_bytes(at, 1).unwrap();
    file.write_at(&[!byte[0]], at).unwrap();
    let refused = tree.subscriber("work").unwrap().seek(back_to(1)).await.unwrap_err();
    assert!(matches!(refused, ControlError::Snapshot(SnapshotError::Unusable { number: 1, .. })), "{refused:?}");
    settled(&tree).await;
    assert_eq!(state(&tree, "all"), counts, "no lane was touched");
    file.write_at(&byte, at).unwrap();
    tree.subscriber("work").unwrap().seek(back_to(1)).await.unwrap();
}

/// As many keys as need several units, in one lane.
async fn large<E: Engine>(tree: &Tree<E>, count: usize) {
    let entry = |n: usize| StateEntry { bucket: "b".into(), key: format!("{n:06}"), written_ns: 7, value: "v".into() };
    let entries: Vec<_> = (0..count).map(entry).collect();
    for part in entries.chunks(5_000) {
        tree.subscriber("work").unwrap().state().import(1, part).await.unwrap();
    }
}

fn keys<E: Engine>(tree: &Tree<E>) -> usize {
    let (mut count, mut behind) = (0, None::<String>);
    loop {
        let position = behind.as_deref().map(|key| ("b", key));
        let page = tree.subscriber("work").unwrap().state().list(1, position, 100_000).unwrap();
        let Some(last) = page.last() else { return count };
        behind = Some(last.key.clone());
        count += page.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_several_units_comes_back_whole() {
    let count = 2 * SEEK_WRITES_MAX + 500;
    let home = tempfile::tempdir().unwrap();
    let (tree, _) = started(home.open().await).await;
    large(&tree, count).await;
    let taken = tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 9).await.unwrap();
    assert_eq!(taken.entries, count as u64);
    let empty = Seek { to: SeekTo::Start, state: Some(SeekState::Empty), ..back_to(0) };
    tree.subscriber("work").unwrap().seek(empty).await.unwrap();
    assert_eq!(keys(&tree), 0);
    large(&tree, 100).await;
    tree.subscriber("work").unwrap().seek(Seek { partition: Some(1), ..back_to(1) }).await.unwrap();
    assert_eq!((keys(&tree), status(&tree.snapshot(), "t/work").lanes[1]), (count, LaneState::Running));
    ends(tree).await;
    let (tree, _) = started(home.open().await).await;
    assert_eq!((keys(&tree), status(&tree.snapshot(), "t/work").lanes[1]), (count, LaneState::Running));
    publish(&tree, 0..7).await;
    settled(&tree).await;
    ends(tree).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_seek_broke_off_stands_still_until_it_is_sought_again() {
    let disk = MemoryDisk::default();
    let open = |disk: &MemoryDisk| {
        let options = LogOptions { file_bytes: 4 << 20, ..LogOptions::default() };
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(SystemClock));
        EmbeddedEngine::open_with("a simulation".as_ref(), disk, clock, options).unwrap()
    };
    let (tree, _) = started(open(&disk)).await;
    publish(&tree, 0..30).await;
    settled(&tree).await;
    large(&tree, 3 * SEEK_WRITES_MAX).await;
    let unsupported = tree.subscriber("work").unwrap().snapshots().take(SnapshotCause::Hand, "", 1).await.unwrap_err();
    assert!(matches!(unsupported, ControlError::Snapshot(SnapshotError::Unsupported)), "{unsupported:?}");
    let entries = tree.engine().entries(LaneId { subscriber: SubscriberId(1), partition: 1 }).unwrap();
    let empty = Seek { to: SeekTo::Start, partition: Some(1), state: Some(SeekState::Empty), ..back_to(0) };
    let seeking = {
        let tree = tree.clone();
        tokio::spawn(async move { tree.subscriber("work").unwrap().seek(empty).await })
    };
    let mut crashes = Vec::new();
    while !seeking.is_finished() {
        if entries.get(b"\x04broken").unwrap().is_some() {
            crashes.push(disk.after_crash(|| true));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seeking.await.unwrap().unwrap();
    settled(&tree).await;
    ends(tree).await;

    let lane = |tree: &Tree<EmbeddedEngine>| status(&tree.snapshot(), "t/work").lanes[1];
    let mut broken = None;
    for crash in crashes {
        let (tree, _) = started(open(&crash)).await;
        if lane(&tree) == LaneState::Halted {
            broken = Some(tree);
            break;
        }
    }
    let tree = broken.expect("some crash was in the middle");
    let failure = status(&tree.snapshot(), "t/work").last_failure.unwrap();
    assert!(failure.contains("the state of the lane is incomplete"), "{failure}");
    assert!((1..3 * SEEK_WRITES_MAX).contains(&keys(&tree)), "neither the one state nor the other: {}", keys(&tree));
    tree.subscriber("work").unwrap().resume().await.unwrap();
    publish(&tree, 30..60).await;
    until("the others go on", || status(&tree.snapshot(), "t/work").handled >= 10).await;
    assert_eq!(lane(&tree), LaneState::Halted, "that is no pause");
    let kept = tree.subscriber("work").unwrap().seek(Seek { state: Some(SeekState::Keep), ..empty }).await.unwrap_err();
    assert!(matches!(kept, ControlError::Refused { partition: 1, refusal: Refusal::Broken }), "{kept:?}");
    tree.subscriber("work").unwrap().seek(empty).await.unwrap();
    settled(&tree).await;
    assert_eq!(lane(&tree), LaneState::Running);
    let events = crate::common::trees::contents(&tree, "in").await[1].len() as u64;
    assert_eq!(state(&tree, "all")[&1], events, "everything once, from the start");
    ends(tree).await;
}

/// Two subscribers, each of which keeps something.
const TWO: &str = "
wattle: v1
name: t
topics: { in: { partitions: 1 }, out: {} }
subscribers:
  one: { from: in, plugin: work.wasm, to: { out: out } }
  two: { from: in, plugin: work.wasm }
";

#[tokio::test]
async fn a_snapshot_that_takes_long_holds_up_those_of_no_other_subscriber() {
    let engine = MemoryEngine::default();
    let disk = engine.snapshot_disk();
    let handler = counting(&Arc::default());
    let tree = start_on(engine, &plan_of(&[TWO]), &[("one", &handler), ("two", &handler)]).await;
    publish(&tree, 0..3).await;
    settled(&tree).await;
    let first = tree.subscriber("one").unwrap().snapshots().take(SnapshotCause::Hand, "", 8).await.unwrap();
    let name = disk.contents().into_keys().next().unwrap();
    let (of_one, _) = name.rsplit_once(&first.number.to_string()).unwrap();
    let of_one = of_one.to_owned();
    let gate = Arc::new((std::sync::Mutex::new(true), std::sync::Condvar::new()));
    let (shut, asked) = (gate.clone(), Arc::new(AtomicBool::new(false)));
    let has_asked = asked.clone();
    disk.set_fault_on(move |name, _| {
        if name.starts_with(&of_one) {
            has_asked.store(true, SeqCst);
            drop(shut.1.wait_while(shut.0.lock().unwrap(), |is_shut| *is_shut).unwrap());
        }
        Ok(())
    });
    let slow = {
        let tree = tree.clone();
        tokio::spawn(async move { tree.subscriber("one").unwrap().snapshots().take(SnapshotCause::Hand, "", 8).await })
    };
    until("it is being written", || asked.load(SeqCst)).await;
    let other =
        tokio::time::timeout(PATIENCE, tree.subscriber("two").unwrap().snapshots().take(SnapshotCause::Deploy, "", 8))
            .await;
    assert!(!slow.is_finished());
    *gate.0.lock().unwrap() = false;
    gate.1.notify_all();
    other.expect("it waits for no other subscriber").unwrap();
    slow.await.unwrap().unwrap();
}
