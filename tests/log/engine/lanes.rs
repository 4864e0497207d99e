//! Sessions: read, commit, fence, resume.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wattle::engine::{Engine, Entries, LaneWrite, PageBudget, ReadBudget, ReadError, Session, SessionError, Unit};
use wattle::model::TopicId;

use super::home::Home;
use super::{ALL, append, commit, everything, lane, large, partition, settle, slices, still_waits, texts, tree};

pub(crate) async fn a_lane_waits_for_events(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let mut session = engine.acquire(lane(tree.validate, 1)).await.unwrap();
    assert_eq!(session.next_offset(), 0);
    assert!(still_waits(session.read(ALL)).await);
    append(&engine, partition(tree.orders, 0), &["of another lane"]).await;
    assert!(still_waits(session.read(ALL)).await);
    let reads = tokio::spawn(async move { texts(&session.read(ALL).await.unwrap()) });
    append(&engine, partition(tree.orders, 1), &["its own"]).await;
    assert_eq!(reads.await.unwrap(), ["its own"]);
}

pub(crate) async fn a_lane_reads_on_where_it_stopped(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 0), &["a", "b", "c"]).await;
    append(&engine, partition(tree.orders, 0), &["d", "e"]).await;
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let read = texts(&session.read(ReadBudget { events: 2, bytes: 1000 }).await.unwrap());
        assert!((1..=2).contains(&read.len()));
        seen.extend(read);
        assert_eq!(session.next_offset(), seen.len() as u64);
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    assert_eq!(engine.position(lane(tree.validate, 0)), Some(0), "reading moves nothing");
}

pub(crate) async fn a_read_that_is_given_up_loses_nothing(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    for number in 0..20u64 {
        let before = session.next_offset();
        still_waits(session.read(ALL)).await;
        assert_eq!(session.next_offset(), before, "nothing was there to be read");
        append(&engine, partition(tree.orders, 0), &[&number.to_string()]).await;
        assert_eq!(texts(&session.read(ALL).await.unwrap()), [number.to_string()]);
    }
}

pub(crate) async fn a_unit_moves_the_position_and_emits(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 2), &["a", "b"]).await;
    let mut session = engine.acquire(lane(tree.validate, 2)).await.unwrap();
    session.read(ALL).await.unwrap();
    let (yes, no) = (partition(tree.accepted, 1), partition(tree.refused, 0));
    commit(&mut session, 2, &[(yes, "a'"), (no, "b'"), (yes, "a''")]).await.unwrap();
    session.flush().await.unwrap();
    assert_eq!(engine.position(lane(tree.validate, 2)), Some(2));
    assert_eq!(engine.bounds(yes).unwrap().written, 2);
    // a unit without outputs only moves the position; one with the same position only emits
    commit(&mut session, 2, &[(no, "more")]).await.unwrap();
    commit(&mut session, 2, &[]).await.unwrap();
    session.flush().await.unwrap();
    settle(&engine, yes).await;
    settle(&engine, no).await;
    assert_eq!(everything(&engine, yes).await, ["a'", "a''"]);
    assert_eq!(everything(&engine, no).await, ["b'", "more"]);
}

pub(crate) async fn who_sees_a_position_sees_its_outputs(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (own, out) = (lane(tree.validate, 0), partition(tree.accepted, 0));
    let done = Arc::new(AtomicBool::new(false));
    let observer = std::thread::spawn({
        let (engine, done) = (engine.clone(), done.clone());
        move || {
            while !done.load(Ordering::Acquire) {
                let position = engine.position(own).unwrap();
                let written = engine.bounds(out).unwrap().written;
                assert!(written >= position, "position {position}, but only {written} outputs");
            }
        }
    });
    let mut session = engine.acquire(own).await.unwrap();
    for consumed_to in 1..=500 {
        commit(&mut session, consumed_to, &[(out, "x")]).await.unwrap();
        if consumed_to % 7 == 0 {
            session.flush().await.unwrap();
        }
    }
    session.flush().await.unwrap();
    done.store(true, Ordering::Release);
    observer.join().unwrap();
    assert_eq!(engine.bounds(out).unwrap().written, 500);
}

pub(crate) async fn units_are_pipelined_and_keep_their_order(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let outs = [partition(tree.accepted, 0), partition(tree.accepted, 1), partition(tree.refused, 0)];
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    for number in 0..200u64 {
        let out = outs[(number % 3) as usize];
        commit(&mut session, number + 1, &[(out, &format!("{number:03}"))]).await.unwrap();
    }
    session.flush().await.unwrap();
    assert_eq!(engine.position(lane(tree.validate, 0)), Some(200));
    let mut total = 0;
    for out in outs {
        settle(&engine, out).await;
        let texts = everything(&engine, out).await;
        assert!(texts.is_sorted(), "{texts:?}");
        total += texts.len();
    }
    assert_eq!(total, 200);
}

pub(crate) async fn the_next_session_resumes_at_the_position(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 0), &["a", "b", "c", "d"]).await;
    let mut first = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert_eq!(texts(&first.read(ALL).await.unwrap()).len(), 4);
    commit(&mut first, 2, &[]).await.unwrap();
    drop(first);
    let mut second = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert_eq!(second.next_offset(), 2, "what was handed in counts, though nobody waited for it");
    assert_eq!(texts(&second.read(ALL).await.unwrap()), ["c", "d"]);
}

pub(crate) async fn a_fenced_session_commits_nothing_more(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let out = partition(tree.accepted, 0);
    append(&engine, partition(tree.orders, 0), &["a", "b"]).await;
    let mut old = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    commit(&mut old, 1, &[(out, "old")]).await.unwrap();
    old.flush().await.unwrap();
    let mut new = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert!(matches!(commit(&mut old, 2, &[(out, "late")]).await, Err(SessionError::Fenced)));
    assert!(matches!(old.flush().await, Err(SessionError::Fenced)));
    assert_eq!(texts(&old.read(ALL).await.unwrap()), ["a", "b"], "it can read");
    commit(&mut new, 2, &[(out, "new")]).await.unwrap();
    new.flush().await.unwrap();
    assert!(matches!(commit(&mut old, 3, &[(out, "later")]).await, Err(SessionError::Fenced)));
    settle(&engine, out).await;
    assert_eq!(everything(&engine, out).await, ["old", "new"]);
    assert_eq!(engine.position(lane(tree.validate, 0)), Some(2));
}

pub(crate) async fn what_a_fenced_session_had_handed_in_counts_or_does_not_happen(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (own, out) = (lane(tree.validate, 0), partition(tree.accepted, 0));
    let mut expected = 0;
    for round in 0..20u64 {
        // units are still coming while the next session takes over
        let mut old = engine.acquire(own).await.unwrap();
        let start = old.next_offset();
        assert_eq!(start, expected, "round {round}");
        let commits = tokio::spawn(async move {
            for consumed_to in start + 1..start + 200 {
                if commit(&mut old, consumed_to, &[(out, &format!("{consumed_to}"))]).await.is_err() {
                    return;
                }
            }
        });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let new = engine.acquire(own).await.unwrap();
        expected = new.next_offset();
        commits.await.unwrap();
        let mut new = new;
        new.flush().await.unwrap();
        assert_eq!(engine.position(own), Some(expected), "round {round}: nothing moves after the takeover");
        assert_eq!(engine.bounds(out).unwrap().written, expected, "round {round}: one output for each consumed");
    }
    settle(&engine, out).await;
    let texts = everything(&engine, out).await;
    assert_eq!(texts, (1..=expected).map(|number| number.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_position_never_moves_back(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let out = partition(tree.accepted, 0);
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    commit(&mut session, 5, &[]).await.unwrap();
    assert!(matches!(commit(&mut session, 4, &[(out, "x")]).await, Err(SessionError::Refused(_))));
    drop(session);
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert_eq!(session.next_offset(), 5);
    assert!(matches!(commit(&mut session, 4, &[(out, "x")]).await, Err(SessionError::Refused(_))));
    assert_eq!(engine.position(lane(tree.validate, 0)), Some(5));
    assert_eq!(engine.bounds(out).unwrap().written, 0);
}

pub(crate) async fn a_unit_that_is_too_large_is_refused(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let out = partition(tree.accepted, 0);
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    let unit = Unit { consumed_to: 1, emits: large(out, engine.capabilities().unit_bytes_max), ..Unit::default() };
    assert!(matches!(session.commit(unit).await, Err(SessionError::Refused(_))));
    let session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert_eq!(session.next_offset(), 0);
    assert_eq!(engine.bounds(out).unwrap().written, 0);
}

pub(crate) async fn a_unit_for_an_unknown_partition_is_refused(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (known, unknown) = (partition(tree.accepted, 0), partition(TopicId(99), 0));
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    let unit = Unit { consumed_to: 1, emits: slices(&[(known, "x"), (unknown, "y")]), ..Unit::default() };
    assert!(matches!(session.commit(unit).await, Err(SessionError::Refused(_))));
    let session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    assert_eq!(session.next_offset(), 0, "nothing of it happened");
    assert_eq!(engine.bounds(known).unwrap().written, 0);
    assert!(engine.bounds(unknown).is_none());
}

pub(crate) async fn a_lane_that_does_not_exist_is_refused(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let unknown = wattle::model::SubscriberId(99);
    for lane in [lane(tree.validate, 3), lane(unknown, 0)] {
        let refused = engine.acquire(lane).await.err();
        assert!(matches!(refused, Some(SessionError::Read(ReadError::UnknownPartition))), "{refused:?}");
        assert_eq!(engine.position(lane), None);
    }
    assert_eq!(engine.position(super::lane(tree.validate, 2)), Some(0), "one that does exist is at its start");
}

pub(crate) async fn lanes_do_not_share_a_position(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let lanes = [lane(tree.validate, 0), lane(tree.validate, 1), lane(tree.notify, 0)];
    for (number, lane) in (1u64..).zip(lanes) {
        let mut session = engine.acquire(lane).await.unwrap();
        commit(&mut session, number * 10, &[]).await.unwrap();
        session.flush().await.unwrap();
    }
    assert_eq!(lanes.map(|lane| engine.position(lane)), [10, 20, 30].map(Some));
}

fn put(key: &'static str, value: &'static str) -> LaneWrite {
    LaneWrite::put(key, value)
}

const WHOLE: PageBudget = PageBudget { entries: usize::MAX, bytes: usize::MAX };

fn keeps(entries: &impl Entries) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let found = entries.range(Bound::Unbounded, &[255], WHOLE).unwrap();
    assert!(found.is_last);
    found.entries.iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) async fn a_lane_keeps_what_its_units_write(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (own, other) = (lane(tree.validate, 0), lane(tree.validate, 1));
    let entries = engine.entries(own).unwrap();
    let mut session = engine.acquire(own).await.unwrap();
    let unit = |writes| Unit { writes, ..Unit::default() };
    session.commit(unit(vec![put("b", "1"), put("a", "1"), put("b", "2")])).await.unwrap();
    assert_eq!(keeps(&entries), pairs(&[("a", "1"), ("b", "2")]), "at once, the last of each key");
    session.commit(unit(vec![LaneWrite::delete("a"), put("c", ""), LaneWrite::delete("never there")])).await.unwrap();
    assert_eq!(keeps(&entries), pairs(&[("b", "2"), ("c", "")]), "an empty value is one");
    assert_eq!(entries.get(b"a").unwrap(), None);
    assert_eq!(entries.get(b"c").unwrap().as_deref(), Some(b"".as_slice()));
    assert!(keeps(&engine.entries(other).unwrap()).is_empty(), "each lane has its own");
    session.flush().await.unwrap();
    let page = |from: Bound<&[u8]>, until: &[u8], count| {
        entries.range(from, until, PageBudget::of(count)).unwrap().entries.len()
    };
    assert_eq!(page(Bound::Included(b"b"), b"c", 9), 1);
    assert_eq!(page(Bound::Excluded(b"b"), b"z", 9), 1);
    assert_eq!(page(Bound::Unbounded, b"z", 1), 1);
    assert_eq!(page(Bound::Included(b"z"), b"a", 9), 0, "a range that is none is empty");
    assert!(engine.entries(lane(tree.validate, 99)).is_none());
}

pub(crate) async fn what_a_fenced_session_writes_is_not_kept(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let own = lane(tree.validate, 0);
    let mut first = engine.acquire(own).await.unwrap();
    first.commit(Unit { writes: vec![put("a", "1")], ..Unit::default() }).await.unwrap();
    let mut second = engine.acquire(own).await.unwrap();
    let refused = first.commit(Unit { writes: vec![put("a", "2")], ..Unit::default() }).await;
    assert!(matches!(refused, Err(SessionError::Fenced)));
    let entries = engine.entries(own).unwrap();
    assert_eq!(keeps(&entries), pairs(&[("a", "1")]));
    second.commit(Unit { writes: vec![put("b", "3")], ..Unit::default() }).await.unwrap();
    assert_eq!(keeps(&entries), pairs(&[("a", "1"), ("b", "3")]));
}

pub(crate) async fn a_seek_moves_the_position_anywhere(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let own = lane(tree.validate, 0);
    append(&engine, partition(tree.orders, 0), &["a", "b", "c"]).await;
    let mut session = engine.acquire(own).await.unwrap();
    session.read(ALL).await.unwrap();
    commit(&mut session, 3, &[]).await.unwrap();
    session.commit(Unit { consumed_to: 1, is_seek: true, ..Unit::default() }).await.unwrap();
    assert_eq!(texts(&session.read(ALL).await.unwrap()), ["b", "c"]);
    session.flush().await.unwrap();
    assert_eq!(engine.position(own), Some(1));
    let mut next = engine.acquire(own).await.unwrap();
    assert_eq!(texts(&next.read(ALL).await.unwrap()), ["b", "c"]);
    next.commit(Unit { consumed_to: 3, is_seek: true, ..Unit::default() }).await.unwrap();
    assert!(still_waits(next.read(ALL)).await);
}

pub(crate) async fn what_is_frozen_stays_as_it_was(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let own = lane(tree.validate, 1);
    let mut session = engine.acquire(own).await.unwrap();
    let put = |key: &str, value: &str| LaneWrite::put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let unit = |writes| Unit { writes, ..Unit::default() };
    session.commit(unit(vec![put("a", "1"), put("b", "1"), put("c", "1")])).await.unwrap();
    session.sync().await.unwrap();
    session.commit(unit(vec![put("a", "2"), LaneWrite::delete("b")])).await.unwrap(); // not written yet, perhaps
    let frozen = engine.entries(own).unwrap().frozen().unwrap();
    let as_it_was = pairs(&[("a", "2"), ("c", "1")]);
    // so much that what was changed goes to where the rest is
    let large = "x".repeat(64 << 10);
    for number in 0..300 {
        let writes = vec![put("a", "3"), put("b", "3"), put(&format!("d{number:03}"), &large), LaneWrite::delete("c")];
        session.commit(unit(writes)).await.unwrap();
        assert_eq!(keeps(&frozen), as_it_was, "{number}");
    }
    session.sync().await.unwrap();
    assert_eq!((keeps(&frozen), frozen.get(b"d000").unwrap()), (as_it_was, None));
    assert_eq!(frozen.get(b"c").unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(frozen.range(Bound::Excluded(b"a"), b"d", WHOLE).unwrap().entries.len(), 1);
    assert_eq!(keeps(&engine.entries(own).unwrap()).len(), 302);
}

/// Entries that are stored, changed, gone, and new, whatever is in memory of them.
pub(crate) async fn entries_are_the_same_in_pages_of_any_size(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let own = lane(tree.validate, 2);
    let mut session = engine.acquire(own).await.unwrap();
    let entries = engine.entries(own).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    // enough bytes for some of it to be stored and forgotten in memory
    let value = |round: u32| format!("{round}{}", "x".repeat(24 << 10));
    for round in 0..6_u32 {
        for first in (0..300_u32).step_by(50) {
            let mut writes = Vec::new();
            for number in first..first + 50 {
                let key = format!("k{number:03}");
                match (number * 7 + round * 5) % 11 {
                    0..4 => {
                        expected.insert(key.clone(), value(round));
                        writes.push(LaneWrite::put(key.into_bytes(), value(round).into_bytes()));
                    }
                    4..7 => {
                        expected.remove(&key);
                        writes.push(LaneWrite::delete(key.into_bytes()));
                    }
                    _ => {}
                }
            }
            session.commit(Unit { writes, ..Unit::default() }).await.unwrap();
        }
        let frozen = entries.frozen().unwrap();
        let budget = |entries, bytes| PageBudget { entries, bytes };
        let budgets =
            [budget(1, 0), budget(1, 1 << 20), budget(7, 1 << 20), budget(100, 1 << 20), budget(1_000, 40_000)];
        let all = [&entries, &frozen].into_iter().flat_map(|of| budgets.map(|budget| (of, budget)));
        for (entries, budget) in all {
            let (mut found, mut from) = (Vec::new(), Bound::Included(b"k".to_vec()));
            loop {
                let page = entries.range(from.as_ref().map(Vec::as_slice), b"l", budget).unwrap();
                let bytes: usize = page.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
                assert!(page.entries.len() <= budget.entries && (bytes <= budget.bytes || page.entries.len() == 1));
                let is_last = page.is_last;
                let last = page.entries.last().map(|(key, _)| key.to_vec());
                found.extend(page.entries);
                match last {
                    Some(last) if !is_last => from = Bound::Excluded(last),
                    last => break assert!(is_last, "{last:?} is no end"),
                }
            }
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let found: Vec<_> = found.iter().map(|(key, value)| (text(key), text(value))).collect();
            assert!(found == expected.clone().into_iter().collect::<Vec<_>>(), "round {round}, {budget:?}");
        }
    }
}
