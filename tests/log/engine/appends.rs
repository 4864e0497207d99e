//! Appends: all or nothing, in order, acknowledged when they are what the engine promises.

use std::collections::BTreeMap;

use wattle::engine::{AppendError, Engine, Health, Slices};
use wattle::model::TopicId;

use super::home::Home;
use super::{append, everything, large, partition, slices, texts, tree};

pub(crate) async fn capabilities_hold(home: impl Home) {
    let engine = home.open();
    let capabilities = engine.capabilities();
    assert!(capabilities.atomic_across_partitions);
    assert!(capabilities.unit_bytes_max >= wattle::limits::MESSAGE_BYTES_MAX, "a publish call fits");
    assert_eq!(*engine.health().borrow(), Health::Serving);
}

pub(crate) async fn offsets_count_up_from_zero_in_each_partition(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (zero, one) = (partition(tree.orders, 0), partition(tree.orders, 1));
    assert_eq!(append(&engine, zero, &["a", "b"]).await, 0);
    assert_eq!(append(&engine, zero, &["c"]).await, 2);
    assert_eq!(append(&engine, one, &["d"]).await, 0);
    let appended = engine.append(slices(&[(one, "e"), (zero, "f"), (one, "g")])).await.unwrap();
    assert_eq!(appended.base_offsets, [1, 3], "one for each slice, in their order");
    assert_eq!(everything(&engine, zero).await, ["a", "b", "c", "f"]);
    assert_eq!(everything(&engine, one).await, ["d", "e", "g"]);
}

pub(crate) async fn an_append_is_there_in_all_its_partitions(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let all = [0, 1, 2].map(|number| partition(tree.orders, number));
    engine.append(slices(&all.map(|partition| (partition, "x")))).await.unwrap();
    for partition in all {
        let bounds = engine.bounds(partition).unwrap();
        assert_eq!((bounds.start, bounds.written, bounds.durable), (0, 1, 1));
    }
}

pub(crate) async fn producers_at_once_each_keep_their_order(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    let (producers, events) = (8, 40);
    let tasks: Vec<_> = (0..producers)
        .map(|producer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for number in 0..events {
                    let text = format!("{producer}:{number}");
                    placed.push((append(&engine, partition, &[&text]).await, text));
                }
                placed
            })
        })
        .collect();
    let mut placed = BTreeMap::new();
    for task in tasks {
        let own = task.await.unwrap();
        assert!(own.is_sorted_by_key(|(offset, _)| *offset), "a producer that waits for its acks sees its own order");
        placed.extend(own);
    }
    let stored = everything(&engine, partition).await;
    assert_eq!(stored.len(), producers * events);
    assert_eq!(placed.into_values().collect::<Vec<_>>(), stored, "each event is where its ack says");
}

pub(crate) async fn an_append_without_events_changes_nothing(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    assert!(engine.append(Slices::default()).await.unwrap().base_offsets.is_empty());
    assert_eq!(append(&engine, partition(tree.orders, 0), &["first"]).await, 0);
}

pub(crate) async fn an_event_may_be_empty(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 0), &["", "a", ""]).await;
    assert_eq!(everything(&engine, partition(tree.orders, 0)).await, ["", "a", ""]);
}

pub(crate) async fn the_largest_append_passes_and_a_larger_one_changes_nothing(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    let max = engine.capabilities().unit_bytes_max;
    let length_bytes = large(partition, 0).bytes();
    let error = engine.append(large(partition, max - length_bytes + 1)).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { bytes, max: of } if bytes == max + 1 && of == max), "{error:?}");
    assert!(error.has_no_side_effects() && !error.is_retryable());
    assert_eq!(engine.bounds(partition).unwrap().written, 0);
    assert_eq!(engine.append(large(partition, max - length_bytes)).await.unwrap().base_offsets, [0]);
    let chunks = engine.read(partition, 0, super::ALL).await.unwrap();
    assert_eq!(texts(&chunks)[0].len(), max - length_bytes);
}

pub(crate) async fn an_append_to_an_unknown_partition_is_refused_whole(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let (known, unknown) = (partition(tree.orders, 0), partition(TopicId(99), 0));
    let error = engine.append(slices(&[(known, "x"), (unknown, "y")])).await.unwrap_err();
    assert!(matches!(error, AppendError::UnknownPartition(of) if of == unknown), "{error:?}");
    assert!(error.has_no_side_effects() && !error.is_retryable());
    assert_eq!(engine.bounds(known).unwrap().written, 0);
}

pub(crate) async fn what_is_acknowledged_is_seen_outside(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    for number in 0..50 {
        let offset = append(&engine, partition, &[&number.to_string()]).await;
        assert_eq!(offset, number);
        let bounds = engine.bounds(partition).unwrap();
        assert!(bounds.durable > offset && bounds.written >= bounds.durable);
        let chunks = engine.read(partition, offset, super::ALL).await.unwrap();
        assert_eq!(texts(&chunks), [number.to_string()]);
    }
}
