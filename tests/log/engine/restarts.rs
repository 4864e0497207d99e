//! What an engine that keeps things still has when it is opened again.

use std::ops::Bound;
use std::time::Duration;

use wattle::engine::embedded::EmbeddedError;
use wattle::engine::{
    Blueprint, Duplicate, Engine, Entries, LaneWrite, NameChanges, PageBudget, Session, TopicSettings, Unit,
};
use wattle::model::Dedupe;

use super::duplicates::{named, numbered, roots};
use super::home::{Home, OnDisk};
use super::{ALL, append, blueprint, commit, everything, lane, partition, slices, still_waits, texts, tree};

pub(crate) async fn everything_accepted_is_there_after_a_restart(home: OnDisk) {
    let mut expected: Vec<String> = Vec::new();
    for round in 0..4u64 {
        let engine = home.open();
        let tree = tree(&engine).await;
        let (own, out) = (lane(tree.validate, 0), partition(tree.accepted, 0));
        let input = partition(tree.orders, 0);
        assert_eq!(everything(&engine, out).await, expected, "round {round}");
        assert_eq!(engine.position(own), Some(round * 3));
        assert_eq!(engine.recovery().void_bytes, 0);
        append(&engine, input, &["a", "b", "c", "d"]).await;
        let mut session = engine.acquire(own).await.unwrap();
        assert_eq!(session.next_offset(), round * 3);
        assert!(!texts(&session.read(ALL).await.unwrap()).is_empty());
        for step in 1..=3 {
            let text = format!("{round}.{step}");
            // handed in, and nobody waits: closing does
            commit(&mut session, round * 3 + step, &[(out, &text)]).await.unwrap();
            expected.push(text);
        }
        engine.close().await.unwrap();
    }
    let engine = home.open();
    let tree = tree(&engine).await;
    assert_eq!(everything(&engine, partition(tree.orders, 0)).await.len(), 16);
    assert_eq!(everything(&engine, partition(tree.accepted, 0)).await, expected);
}

pub(crate) async fn dropping_the_engine_closes_it(home: OnDisk) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 0), &["a"]).await;
    drop(engine);
    assert_eq!(everything(&home.open(), partition(tree.orders, 0)).await, ["a"]);
}

pub(crate) async fn epochs_and_times_only_grow(home: OnDisk) {
    let mut epochs = Vec::new();
    let mut input = None;
    for _ in 0..3 {
        let engine = home.open();
        let tree = tree(&engine).await;
        let partition = partition(tree.orders, 0);
        let appended = engine.append(slices(&[(partition, "x")])).await.unwrap();
        assert_eq!(appended.epoch, engine.recovery().epoch);
        epochs.push(appended.epoch);
        input = Some(partition);
        engine.close().await.unwrap();
    }
    assert!(epochs.is_sorted_by(|before, after| before < after), "{epochs:?}");
    let chunks = home.open().read(input.unwrap(), 0, ALL).await.unwrap();
    assert_eq!(chunks.iter().map(|chunk| chunk.epoch).collect::<Vec<_>>(), epochs);
    assert!(chunks.is_sorted_by_key(|chunk| chunk.append_time_ns));
}

pub(crate) async fn what_is_gone_is_gone_after_a_restart(home: OnDisk) {
    let engine = home.open();
    let both = blueprint(&[("a", 1), ("b", 1)], &[("s", "a")]);
    let first = engine.apply(&both).await.unwrap();
    append(&engine, partition(first.topics[0], 0), &["x"]).await;
    append(&engine, partition(first.topics[1], 0), &["y"]).await;
    let names =
        NameChanges { topics: vec![(first.topics[0], engine.topics()[0].gone_name())], ..NameChanges::default() };
    engine.apply(&Blueprint { names, ..blueprint(&[("b", 1)], &[]) }).await.unwrap();
    drop(engine);
    for _ in 0..2 {
        let engine = home.open();
        assert_eq!((engine.topic("a"), engine.topics().len()), (None, 1));
        engine.apply(&blueprint(&[("b", 1)], &[])).await.unwrap();
        assert_eq!(everything(&engine, partition(first.topics[1], 0)).await, ["y"]);
        drop(engine);
        let segments = std::fs::read_dir(home.folder().join("log")).unwrap().map(|file| file.unwrap().file_name());
        let segments: Vec<_> =
            segments.filter(|name| name.to_string_lossy().starts_with("segment-00000001-")).collect();
        assert!(segments.is_empty(), "{segments:?}");
    }
    let engine = home.open();
    let again = engine.apply(&both).await.unwrap();
    assert!(again.topics[0] != first.topics[0] && everything(&engine, partition(again.topics[0], 0)).await.is_empty());
}

pub(crate) async fn names_survive_a_restart(home: OnDisk) {
    let engine = home.open();
    let first = engine.apply(&blueprint(&[("a", 1)], &[("s", "a")])).await.unwrap();
    append(&engine, partition(first.topics[0], 0), &["x"]).await;
    let names = NameChanges {
        topics: vec![(first.topics[0], "b".into())],
        subscribers: vec![(first.subscribers[0], "t".into())],
    };
    let renamed = blueprint(&[("b", 1), ("a", 1)], &[("t", "b"), ("s", "b")]);
    let numbers = engine.apply(&Blueprint { names, ..renamed.clone() }).await.unwrap();
    drop(engine);
    for _ in 0..2 {
        // from the journal, then from the state store
        let engine = home.open();
        assert_eq!(engine.apply(&renamed).await.unwrap(), numbers);
        assert_eq!(everything(&engine, partition(first.topics[0], 0)).await, ["x"]);
        engine.close().await.unwrap();
    }
}

pub(crate) async fn numbers_survive_a_restart(home: OnDisk) {
    let engine = home.open();
    let before = tree(&engine).await;
    engine.close().await.unwrap();
    drop(engine);
    let engine = home.open();
    assert!(engine.bounds(partition(before.orders, 2)).is_some(), "before anything is applied again");
    assert_eq!(engine.position(lane(before.notify, 1)), Some(0));
    let after = tree(&engine).await;
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

pub(crate) async fn an_apply_that_nobody_waits_for_shares_no_number_later(home: OnDisk) {
    let engine = home.open();
    still_waits(engine.apply(&blueprint(&[("given up", 1)], &[]))).await;
    let kept = engine.apply(&blueprint(&[("kept", 1)], &[])).await.unwrap();
    append(&engine, partition(kept.topics[0], 0), &["kept"]).await;
    engine.close().await.unwrap();
    drop(engine);
    let engine = home.open();
    let both = engine.apply(&blueprint(&[("given up", 1), ("kept", 1)], &[])).await.unwrap();
    assert_eq!(both.topics[1], kept.topics[0]);
    assert_ne!(both.topics[0], both.topics[1]);
    assert_eq!(everything(&engine, partition(both.topics[1], 0)).await, ["kept"]);
}

pub(crate) async fn a_folder_belongs_to_one_engine(home: OnDisk) {
    let engine = home.open();
    let error = home.try_open().err();
    assert!(matches!(&error, Some(EmbeddedError::InUse { folder }) if folder == home.folder()), "{error:?}");
    drop(engine);
    home.open();
}

pub(crate) async fn what_was_published_is_recognised_after_a_restart(home: OnDisk) {
    let dedupe = Some(Dedupe { window: Duration::from_secs(600), count: Some(100) });
    let settings = TopicSettings { dedupe, ..TopicSettings::default() };
    for round in 0..4 {
        let engine = home.open();
        let [orders, _] = roots(&engine, settings).await;
        let (zero, one) = (partition(orders, 0), partition(orders, 1));
        let name = format!("{round}");
        assert_eq!(named(&engine, &[(one, &name)]).await.duplicates, []);
        assert_eq!(numbered(&engine, "till", &[(zero, 2 * round), (zero, 2 * round + 1)]).await.duplicates, []);
        for known in 0..=round {
            let duplicate = Duplicate { slice: 0, record: 0, partition: 1, offset: Some(known) };
            assert_eq!(named(&engine, &[(zero, &known.to_string())]).await.duplicates, [duplicate], "round {round}");
            let [older, newest] = [0, 1].map(|record| 2 * known + record);
            let duplicates = numbered(&engine, "till", &[(zero, older), (zero, newest)]).await.duplicates;
            let offsets: Vec<_> = duplicates.iter().map(|duplicate| duplicate.offset).collect();
            assert_eq!(offsets, [None, (known == round).then_some(newest)], "round {round}");
        }
        engine.close().await.unwrap();
    }
}

pub(crate) async fn what_lanes_keep_is_there_after_a_restart(home: OnDisk) {
    for round in 0..4u64 {
        let engine = home.open();
        let tree = tree(&engine).await;
        let own = lane(tree.validate, 0);
        let entries = engine.entries(own).unwrap();
        let count = |entries: &_| {
            Entries::range(entries, Bound::Unbounded, &[255], PageBudget { entries: usize::MAX, bytes: usize::MAX })
                .unwrap()
                .entries
                .len() as u64
        };
        assert_eq!(count(&entries), round * 50, "round {round}");
        let mut session = engine.acquire(own).await.unwrap();
        for number in 0..100 {
            let key = format!("{round}-{number:02}");
            let writes = vec![LaneWrite::put(key.clone(), vec![7; 100])];
            session.commit(Unit { writes, ..Unit::default() }).await.unwrap();
            if number % 2 == 0 {
                let writes = vec![LaneWrite::delete(key)];
                session.commit(Unit { writes, ..Unit::default() }).await.unwrap();
            }
        }
        assert_eq!(count(&entries), (round + 1) * 50);
        engine.close().await.unwrap();
    }
}
