//! What was published before: recognised by its identity or its producer's number, answered with the first one's place.

use std::time::Duration;

use wattle::api::Placement;
use wattle::engine::{
    AppendReceipt, Blueprint, Duplicate, Engine, Mark, Slices, SubscriberSpec, TopicSettings, TopicSpec,
};
use wattle::model::{Compression, Dedupe, EventId, PartitionId, ProducerId, Retention, TopicId};

use super::home::Home;
use super::{append, everything, partition};

fn recognising(count: u32) -> TopicSettings {
    let dedupe = Dedupe { window: Duration::from_secs(600), count: Some(count) };
    TopicSettings { dedupe: Some(dedupe), ..TopicSettings::default() }
}

/// A root of three partitions, and another one.
pub(crate) async fn roots(engine: &impl Engine, settings: TopicSettings) -> [TopicId; 2] {
    let topics = [("shop/orders", 3), ("shop/payments", 1)];
    let topics =
        topics.map(|(name, partitions)| TopicSpec { name: name.into(), partitions, settings, lifecycle: None });
    let blueprint = Blueprint { topics: topics.to_vec(), ..Blueprint::default() };
    engine.apply(&blueprint).await.unwrap().topics.try_into().unwrap()
}

/// Appends events that are recognised by their text.
pub(crate) async fn named(engine: &impl Engine, events: &[(PartitionId, &str)]) -> AppendReceipt {
    let mut slices = Slices::default();
    for (partition, text) in events {
        push(&mut slices, *partition, Mark::Identity(EventId::new("/test", text)), text);
    }
    engine.append(slices).await.unwrap()
}

/// Appends events of a producer, whose texts are their numbers.
pub(crate) async fn numbered(engine: &impl Engine, producer: &str, events: &[(PartitionId, u64)]) -> AppendReceipt {
    let mut slices = Slices::default();
    slices.set_producer(ProducerId::new(producer));
    for (partition, number) in events {
        push(&mut slices, *partition, Mark::Sequence(*number), &number.to_string());
    }
    engine.append(slices).await.unwrap()
}

fn push(slices: &mut Slices, partition: PartitionId, mark: Mark, text: &str) {
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(text.as_bytes());
        Ok::<_, ()>(())
    };
    slices.push_marked(partition, mark, write).unwrap();
}

fn duplicate(slice: u32, record: u32, partition: u32, offset: impl Into<Option<u64>>) -> Duplicate {
    Duplicate { slice, record, partition, offset: offset.into() }
}

pub(crate) async fn what_comes_again_is_answered_with_the_first_place_and_not_stored(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(100)).await;
    let zero = partition(orders, 0);
    assert_eq!(named(&engine, &[(zero, "a"), (zero, "b")]).await.duplicates, []);
    let appended = named(&engine, &[(zero, "c"), (zero, "b"), (zero, "d"), (zero, "a"), (zero, "e")]).await;
    assert_eq!(appended.duplicates, [duplicate(0, 1, 0, 1), duplicate(0, 3, 0, 0)]);
    let places: Vec<_> = (0..5).map(|record| appended.place(0, record, 0)).collect();
    let place = |offset, is_duplicate| Placement { partition: 0, offset: Some(offset), is_duplicate };
    assert_eq!(places, [place(2, false), place(1, true), place(3, false), place(0, true), place(4, false)]);
    assert_eq!(everything(&engine, zero).await, ["a", "b", "c", "d", "e"]);
}

pub(crate) async fn an_event_is_recognised_within_a_call(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(100)).await;
    let (zero, one) = (partition(orders, 0), partition(orders, 1));
    let appended = named(&engine, &[(zero, "a"), (zero, "a"), (one, "b"), (zero, "a"), (one, "b"), (zero, "c")]).await;
    assert_eq!(appended.duplicates, [duplicate(0, 1, 0, 0), duplicate(0, 2, 0, 0), duplicate(1, 1, 1, 0)]);
    assert_eq!(appended.place(0, 3, 0), Placement { partition: 0, offset: Some(1), is_duplicate: false });
    assert_eq!(everything(&engine, zero).await, ["a", "c"]);
    assert_eq!(everything(&engine, one).await, ["b"]);
}

pub(crate) async fn an_event_is_recognised_in_another_partition(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(100)).await;
    named(&engine, &[(partition(orders, 2), "a")]).await;
    // Whoever changed its key meanwhile gets the place that it has.
    let appended = named(&engine, &[(partition(orders, 0), "b"), (partition(orders, 1), "a")]).await;
    assert_eq!(appended.duplicates, [duplicate(1, 0, 2, 0)]);
    assert_eq!(appended.place(1, 0, 1), Placement { partition: 2, offset: Some(0), is_duplicate: true });
    assert_eq!(everything(&engine, partition(orders, 1)).await, Vec::<String>::new());
}

pub(crate) async fn an_append_of_nothing_new_changes_nothing(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(100)).await;
    let zero = partition(orders, 0);
    named(&engine, &[(zero, "a"), (zero, "b")]).await;
    for _ in 0..3 {
        let appended = named(&engine, &[(zero, "a"), (zero, "b")]).await;
        assert_eq!(appended.duplicates, [duplicate(0, 0, 0, 0), duplicate(0, 1, 0, 1)]);
    }
    assert_eq!(engine.bounds(zero).unwrap().written, 2);
    assert_eq!(append(&engine, zero, &["c"]).await, 2);
}

pub(crate) async fn without_dedupe_everything_is_stored(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, TopicSettings::default()).await;
    let zero = partition(orders, 0);
    for _ in 0..2 {
        assert_eq!(named(&engine, &[(zero, "a"), (zero, "a")]).await.duplicates, []);
    }
    assert_eq!(everything(&engine, zero).await, ["a", "a", "a", "a"]);
}

pub(crate) async fn what_the_count_has_passed_is_no_longer_recognised(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(3)).await;
    for (number, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
        named(&engine, &[(partition(orders, number as u32 % 3), text)]).await;
    }
    assert_eq!(named(&engine, &[(partition(orders, 0), "b")]).await.duplicates, [duplicate(0, 0, 1, 0)]);
    assert_eq!(named(&engine, &[(partition(orders, 0), "a")]).await.duplicates, []);
    assert_eq!(everything(&engine, partition(orders, 0)).await, ["a", "d", "a"]);
}

pub(crate) async fn a_topic_recognises_only_its_own_events(home: impl Home) {
    let engine = home.open();
    let [orders, payments] = roots(&engine, recognising(100)).await;
    named(&engine, &[(partition(orders, 0), "a")]).await;
    assert_eq!(named(&engine, &[(partition(payments, 0), "a")]).await.duplicates, []);
    numbered(&engine, "till", &[(partition(orders, 0), 7)]).await;
    assert_eq!(numbered(&engine, "till", &[(partition(payments, 0), 7)]).await.duplicates, []);
}

pub(crate) async fn the_numbers_of_a_producer_only_grow(home: impl Home) {
    let engine = home.open();
    // Whatever the topic recognises by identity: numbers have nothing to do with it.
    let [orders, _] = roots(&engine, TopicSettings::default()).await;
    let zero = partition(orders, 0);
    assert_eq!(numbered(&engine, "till", &[(zero, 5), (zero, 6), (zero, 9)]).await.duplicates, []);
    let appended = numbered(&engine, "till", &[(zero, 4), (zero, 6), (zero, 9), (zero, 10)]).await;
    assert_eq!(appended.duplicates, [duplicate(0, 0, 0, None), duplicate(0, 1, 0, None), duplicate(0, 2, 0, 2)]);
    assert_eq!(appended.place(0, 0, 0), Placement { partition: 0, offset: None, is_duplicate: true });
    assert_eq!(appended.place(0, 3, 0), Placement { partition: 0, offset: Some(3), is_duplicate: false });
    assert_eq!(numbered(&engine, "till", &[(zero, 10)]).await.duplicates, [duplicate(0, 0, 0, 3)]);
    assert_eq!(everything(&engine, zero).await, ["5", "6", "9", "10"]);
}

pub(crate) async fn producers_and_partitions_have_their_own_numbers(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(100)).await;
    let (zero, one) = (partition(orders, 0), partition(orders, 1));
    let events = [(zero, 1), (one, 2), (zero, 3), (one, 4)];
    numbered(&engine, "till", &events).await;
    assert_eq!(numbered(&engine, "other", &events).await.duplicates, []);
    let again = numbered(&engine, "till", &events).await.duplicates;
    let expected = [duplicate(0, 0, 0, None), duplicate(0, 1, 0, 1), duplicate(1, 0, 1, None), duplicate(1, 1, 1, 1)];
    assert_eq!(again, expected);
    assert_eq!(everything(&engine, zero).await, ["1", "3", "1", "3"]);
}

pub(crate) async fn a_duplicate_is_answered_when_the_first_is_durable(home: impl Home) {
    let engine = home.open();
    let [orders, _] = roots(&engine, recognising(1000)).await;
    let zero = partition(orders, 0);
    for number in 0..50 {
        let (name, events) = (format!("event {number}"), [(zero, number)]);
        let answered = async |appended: AppendReceipt| {
            let durable = engine.bounds(zero).unwrap().durable;
            let place = appended.place(0, 0, 0);
            assert!(place.offset.unwrap() < durable, "{place:?} is answered, and only {durable} are durable");
            place.is_duplicate
        };
        let name = async || answered(named(&engine, &[(zero, &name)]).await).await;
        assert!(matches!(tokio::join!(name(), name()), (false, true) | (true, false)));
        let number = async || answered(numbered(&engine, "till", &events).await).await;
        assert!(matches!(tokio::join!(number(), number()), (false, true) | (true, false)));
    }
}

pub(crate) async fn settings_may_change(home: impl Home) {
    let engine = home.open();
    let retention = Retention { age: Some(Duration::from_secs(3600)), partition_bytes: Some(1 << 30), force: false };
    let kept = TopicSettings { retention, compression: Compression::Lz4, ..recognising(10) };
    let [orders, payments] = roots(&engine, kept).await;
    let zero = partition(orders, 0);
    named(&engine, &[(zero, "a")]).await;
    assert_eq!(roots(&engine, TopicSettings::default()).await, [orders, payments]);
    assert_eq!(named(&engine, &[(zero, "a")]).await.duplicates, [], "nothing is recognised any more");
    let force = TopicSettings { retention: Retention { force: true, ..retention }, ..kept };
    let topic = |name: &str, partitions| TopicSpec { name: name.into(), partitions, settings: force, lifecycle: None };
    let topics = vec![topic("shop/orders", 3), topic("shop/payments", 1)];
    let subscribers = vec![SubscriberSpec { name: "shop/validate".into(), from: "shop/orders".into() }];
    let numbers = engine.apply(&Blueprint { topics, subscribers, ..Blueprint::default() }).await.unwrap();
    assert_eq!(numbers.topics, [orders, payments]);
    named(&engine, &[(zero, "b")]).await;
    assert_eq!(named(&engine, &[(zero, "b")]).await.duplicates, [duplicate(0, 0, 0, 2)]);
    assert_eq!(everything(&engine, zero).await, ["a", "a", "b"], "young events stay");
}
