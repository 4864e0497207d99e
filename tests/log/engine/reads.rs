//! Reads from outside: any start, within the budget, never more than what is durable.

use wattle::engine::{Engine, ReadBudget, ReadError, TimeOf};
use wattle::model::TopicId;

use super::home::Home;
use super::{ALL, append, partition, still_waits, texts, tree};

pub(crate) async fn a_read_starts_anywhere(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    assert!(engine.read(partition, 0, ALL).await.unwrap().is_empty(), "nothing is there yet");
    append(&engine, partition, &["a", "b", "c"]).await;
    append(&engine, partition, &["d"]).await;
    append(&engine, partition, &["e", "f"]).await;
    let all = ["a", "b", "c", "d", "e", "f"];
    for from in 0..=8u64 {
        let chunks = engine.read(partition, from, ALL).await.unwrap();
        assert_eq!(texts(&chunks), all[all.len().min(from as usize)..], "from {from}");
        assert!(chunks.iter().all(|chunk| chunk.count > 0), "a chunk is never empty");
        let offsets: Vec<u64> = chunks.iter().flat_map(|chunk| chunk.iter().map(|stored| stored.offset)).collect();
        assert_eq!(offsets, (from..6).collect::<Vec<_>>(), "from {from}");
    }
}

pub(crate) async fn a_read_keeps_to_its_budget(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    // 4 bytes of length and 6 of text: 10 bytes each
    for events in [&["event0", "event1", "event2"][..], &["event3"], &["event4", "event5"]] {
        append(&engine, partition, events).await;
    }
    for from in 0..6u64 {
        for events in 0..=7u32 {
            for bytes in [0, 9, 10, 19, 20, 25, 30, 40, 59, 60, 1000] {
                let budget = ReadBudget { events, bytes };
                let count: u64 = engine
                    .read(partition, from, budget)
                    .await
                    .unwrap()
                    .iter()
                    .map(|chunk| u64::from(chunk.count))
                    .sum();
                let most = u64::from(events).min(bytes as u64 / 10).min(6 - from).max(1);
                assert!((1..=most).contains(&count), "{count} events from {from} for {budget:?}");
                if bytes == 1000 && events == 7 {
                    assert_eq!(count, 6 - from, "a generous budget takes all");
                }
            }
        }
    }
}

pub(crate) async fn when_an_event_was_appended_is_known_and_how_many_were_lately(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (here, empty) = (partition(tree.orders, 0), partition(tree.orders, 1));
    append(&engine, here, &["a", "b"]).await;
    append(&engine, here, &["c"]).await;
    let chunks = engine.read(here, 0, ALL).await.unwrap();
    let stored = chunks.iter().flat_map(|chunk| chunk.iter().map(|stored| (stored.offset, stored.trusted_time_ns)));
    for (offset, time_ns) in stored {
        assert_eq!(engine.read_time_of(here, offset).unwrap(), Some(time_ns), "of {offset}");
        match engine.time_of(here, offset).unwrap() {
            TimeOf::At(known_ns) => assert_eq!(known_ns, time_ns),
            TimeOf::NotBefore(known_ns) => assert!(known_ns <= time_ns),
        }
    }
    let unknown = partition(TopicId(99), 0);
    for (of, offset) in [(here, 3), (empty, 0), (unknown, 0)] {
        assert_eq!(engine.time_of(of, offset), None);
        assert_eq!(engine.read_time_of(of, offset).unwrap(), None);
    }
    let lately = [here, empty, unknown].map(|of| engine.appended_per_minute(of));
    assert_eq!(lately, [3, 0, 0]);
}

pub(crate) async fn an_unknown_partition_is_not_empty_but_unknown(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    for unknown in [partition(tree.orders, 3), partition(TopicId(0), 0), partition(TopicId(99), 0)] {
        assert!(matches!(engine.read(unknown, 0, ALL).await, Err(ReadError::UnknownPartition)));
        assert!(matches!(engine.offset_at_time(unknown, 0).await, Err(ReadError::UnknownPartition)));
        assert!(engine.bounds(unknown).is_none());
    }
}

pub(crate) async fn events_carry_their_time_and_epoch(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    let mut epochs = Vec::new();
    for _ in 0..5 {
        epochs.push(engine.append(super::slices(&[(partition, "x")])).await.unwrap().epoch);
    }
    let chunks = engine.read(partition, 0, ALL).await.unwrap();
    assert!(chunks.is_sorted_by_key(|chunk| chunk.append_time_ns));
    assert!(chunks.iter().all(|chunk| chunk.append_time_ns > 0));
    assert_eq!(chunks.iter().map(|chunk| chunk.epoch).collect::<Vec<_>>(), epochs);
}

pub(crate) async fn waiting_for_an_event_ends_when_it_is_durable(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    assert!(still_waits(engine.wait_durable(partition, 0)).await);
    let waits = tokio::spawn({
        let engine = engine.clone();
        async move {
            engine.wait_durable(partition, 2).await.unwrap();
            engine.bounds(partition).unwrap().durable
        }
    });
    for number in 0..3 {
        append(&engine, partition, &[&number.to_string()]).await;
    }
    assert_eq!(waits.await.unwrap(), 3);
    assert!(!still_waits(engine.wait_durable(partition, 0)).await, "at once for what is durable");
    assert!(still_waits(engine.wait_durable(partition, 3)).await);
}

pub(crate) async fn a_time_is_found_as_an_offset(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    assert_eq!(engine.offset_at_time(partition, 0).await.unwrap(), 0, "the end, where nothing is");
    for number in 0..20 {
        append(&engine, partition, &[&format!("{number}a"), &format!("{number}b")]).await;
    }
    let times: Vec<u64> = engine
        .read(partition, 0, ALL)
        .await
        .unwrap()
        .iter()
        .flat_map(|chunk| chunk.iter().map(|stored| stored.append_time_ns).collect::<Vec<_>>())
        .collect();
    assert_eq!(times.len(), 40);
    for time in times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
        let expected = times.iter().position(|at| *at >= time).unwrap_or(times.len());
        assert_eq!(engine.offset_at_time(partition, time).await.unwrap(), expected as u64, "at {time}");
    }
    assert_eq!(engine.offset_at_time(partition, 0).await.unwrap(), 0);
    assert_eq!(engine.offset_at_time(partition, u64::MAX).await.unwrap(), 40, "the end, where none is as late");
}
