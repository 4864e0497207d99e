//! What was published before: recognised, answered with its place, and not stored.

use std::sync::atomic::Ordering;

use tonic::Code;
use tonic_types::StatusExt;
use wattle::api::v1;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::api::{Numbering, Placement, PublishReceipt};
use wattle::client::{Client, ReadRequest, Window};
use wattle::engine::Health;
use wattle::limits::PRODUCER_BYTES_MAX;

use super::bed::{Gate, LOG, ORDERS, PAYMENTS, all_of, bed, event, id, read_all};

fn till(first_sequence: u64) -> Numbering {
    Numbering { producer: "till-7".into(), first_sequence, began_ns: None }
}

/// As if these had been published before.
fn again(published: &PublishReceipt) -> PublishReceipt {
    let places = published.places.iter().map(|place| Placement { is_duplicate: true, ..*place });
    PublishReceipt {
        epoch: published.epoch,
        places: places.collect(),
        delayed: Vec::new(),
        held: Vec::new(),
        diverted: Vec::new(),
    }
}

async fn ids(client: &Client, topic: &str) -> Vec<String> {
    read_all(client, all_of(topic)).await.iter().map(|event| id(&event.event)).collect()
}

#[tokio::test]
async fn events_that_are_published_again_are_answered_with_their_places() {
    let bed = bed().await;
    let events: Vec<_> = (0..10).map(|number| event(number.to_string(), &format!("key {number}"))).collect();
    let first = bed.client.publish(PAYMENTS, events[..5].to_vec()).await.unwrap();
    assert_eq!(first.duplicates(), 0);
    let all = bed.client.publish(PAYMENTS, events.clone()).await.unwrap();
    assert_eq!(all.duplicates(), 5);
    assert_eq!(all.places[..5], again(&first).places);
    // With another key it would have gone to another partition.
    let moved = (0..10).map(|number| event(number.to_string(), "another key")).collect();
    let mut publishing = bed.client.publishing(PAYMENTS, Window::default());
    let mut answers = publishing.send(moved).await.unwrap();
    answers.extend(publishing.finish().await.unwrap());
    assert_eq!(answers, [again(&all)]);
    assert_eq!(ids(&bed.client, PAYMENTS).await.len(), 10);
}

#[tokio::test]
async fn the_answers_of_both_calls_name_the_duplicates() {
    let bed = bed().await;
    let mut client = PublisherServiceClient::connect(format!("http://{}", bed.address)).await.unwrap();
    let events = vec![event("a", "k"), event("b", "k"), event("a", "k")];
    let unary = v1::PublishRequest { topic: PAYMENTS.into(), events: events.clone(), numbering: None };
    let answer = client.publish(unary).await.unwrap().into_inner();
    let duplicate = |index, is_place_known| v1::Duplicate { index, is_place_known };
    assert_eq!(answer.duplicates, [duplicate(2, true)]);
    assert_eq!(answer.offsets, [0, 1, 0]);
    let batch = |ids: &[&str], first_sequence: Option<u64>| v1::PublishStreamRequest {
        topic: PAYMENTS.into(),
        events: ids.iter().map(|id| event(*id, "k")).collect(),
        numbering: first_sequence.map(|first| till(first).into()),
    };
    let requests = [batch(&["b", "c"], None), batch(&["x", "y"], Some(7)), batch(&["x", "y"], Some(7))];
    let mut answers = client.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap();
    let answer = next().await;
    assert_eq!((answer.duplicates, answer.offsets), (vec![duplicate(0, true)], vec![1, 2]));
    let answer = next().await;
    assert_eq!((answer.duplicates, answer.offsets), (vec![], vec![3, 4]));
    let answer = next().await;
    assert_eq!((answer.duplicates, answer.offsets), (vec![duplicate(0, false), duplicate(1, true)], vec![0, 4]));
}

#[tokio::test]
async fn numbered_events_are_stored_once_whatever_the_topic_recognises() {
    let bed = bed().await;
    let events = |range: std::ops::Range<u64>| range.map(|number| event(number.to_string(), "k")).collect::<Vec<_>>();
    bed.client.publish_numbered(LOG, events(0..3), till(100)).await.unwrap();
    let published = bed.client.publish_numbered(LOG, events(0..5), till(100)).await.unwrap();
    let offsets: Vec<_> = published.places.iter().map(|place| (place.offset, place.is_duplicate)).collect();
    assert_eq!(offsets, [(None, true), (None, true), (Some(2), true), (Some(3), false), (Some(4), false)]);
    assert_eq!(ids(&bed.client, LOG).await, ["0", "1", "2", "3", "4"]);
    // Numbered, an event is not looked at for its id.
    bed.client.publish(PAYMENTS, events(0..1)).await.unwrap();
    assert_eq!(bed.client.publish_numbered(PAYMENTS, events(0..1), till(0)).await.unwrap().duplicates(), 0);
}

#[tokio::test]
async fn numbers_that_cannot_be_are_refused() {
    let bed = bed().await;
    let long = "x".repeat(PRODUCER_BYTES_MAX + 1);
    let mut client = PublisherServiceClient::connect(format!("http://{}", bed.address)).await.unwrap();
    let year = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    for (producer, first_sequence, began, field, words) in [
        ("", 0, None, "numbering.producer", "1 to 255 bytes"),
        (long.as_str(), 0, None, "numbering.producer", "256"),
        ("till-7", u64::MAX, None, "numbering.first_sequence", "more than there are"),
        ("till-7", 1, Some(year(4_000_000_000)), "numbering.began", "s ahead of the clock"),
        ("till-7", 1, Some(year(-1)), "numbering.began", "s ahead of the clock"),
    ] {
        let numbering = Some(v1::Numbering { producer: producer.into(), first_sequence, began });
        let events = vec![event("a", "k"), event("b", "k")];
        let unary = v1::PublishRequest { topic: LOG.into(), events: events.clone(), numbering: numbering.clone() };
        let unary = client.publish(unary).await.unwrap_err();
        let batch = v1::PublishStreamRequest { topic: LOG.into(), events, numbering };
        let mut answers = client.publish_stream(tokio_stream::iter([batch])).await.unwrap().into_inner();
        for status in [unary, answers.message().await.unwrap_err()] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(words), "{status}");
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, "INVALID_NUMBERING");
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
        }
    }
    let longest = Numbering { producer: "x".repeat(PRODUCER_BYTES_MAX), first_sequence: u64::MAX - 1, began_ns: None };
    bed.client.publish_numbered(LOG, vec![event("a", "k")], longest).await.unwrap();
    assert_eq!(ids(&bed.client, LOG).await, ["a"]);
}

#[tokio::test]
async fn a_producer_that_is_not_known_is_told_so_by_name_and_what_to_do() {
    let bed = bed().await;
    let mut client = PublisherServiceClient::connect(format!("http://{}", bed.address)).await.unwrap();
    let began = prost_types::Timestamp { seconds: 0, nanos: 17 };
    let numbering = Some(v1::Numbering { producer: "till-7".into(), first_sequence: 1, began: Some(began) });
    let request = |topic: &str| v1::PublishStreamRequest {
        topic: topic.into(),
        events: vec![event("a", "k")],
        numbering: numbering.clone(),
    };
    bed.engine.forgets.send_replace(true);
    let unary = v1::PublishRequest { topic: LOG.into(), events: vec![event("a", "k")], numbering: numbering.clone() };
    let unary = client.publish(unary).await.unwrap_err();
    let requests = [request(LOG), request(ORDERS)];
    let mut answers = client.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for status in [unary, answers.message().await.unwrap_err()] {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "PRODUCER_UNKNOWN");
        assert_eq!((info.metadata["producer"].as_str(), info.metadata["topic"].as_str()), ("till-7", LOG));
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "numbering.began");
        for words in ["`till-7`", "began at 1970-01-01", "before 2023-11-14", "Begin again"] {
            assert!(status.message().contains(words), "{words}: {status}");
        }
    }
    assert!(answers.message().await.unwrap().is_none(), "the stream has ended");
    bed.engine.forgets.send_replace(false);
    let known = Numbering { began_ns: Some(17), ..till(1) };
    assert_eq!(bed.client.publish_numbered(LOG, vec![event("a", "k")], known.clone()).await.unwrap().duplicates(), 0);
    assert_eq!(bed.client.publish_numbered(LOG, vec![event("a", "k")], known).await.unwrap().duplicates(), 1);
    let anew = Numbering { began_ns: Some(18), ..till(1) };
    assert_eq!(bed.client.publish_numbered(LOG, vec![event("a", "k")], anew).await.unwrap().duplicates(), 0);
}

#[tokio::test]
async fn a_numbered_stream_that_breaks_goes_on_where_it_broke() {
    let bed = bed().await;
    let mut publishing = bed.client.publishing(ORDERS, Window { batches: 8, bytes: 1 << 20 }).numbered("till-7", 17);
    let batch = |number: u64| vec![event(format!("{number}a"), "k"), event(format!("{number}b"), "l")];
    bed.engine.busy.store(2, Ordering::SeqCst);
    publishing.send(batch(0)).await.unwrap();
    publishing.finish().await.unwrap();
    bed.engine.gate.send_replace(Gate::Shut);
    for number in 1..6 {
        publishing.send(batch(number)).await.unwrap();
    }
    bed.engine.arrivals(6).await;
    // All are there, and the producer is told that nobody knows.
    bed.engine.poison();
    bed.engine.gate.send_replace(Gate::Open);
    let error = publishing.finish().await.unwrap_err();
    assert!(error.is_retryable() && !error.has_no_side_effects(), "{error}");
    assert!(publishing.send(batch(6)).await.is_err(), "it is still down");
    assert_eq!(publishing.answered_events(), 2);

    bed.engine.health.send_replace(Health::Serving);
    let mut answers = publishing.send(batch(7)).await.unwrap();
    answers.extend(publishing.finish().await.unwrap());
    let duplicates: Vec<_> = answers.iter().map(PublishReceipt::duplicates).collect();
    assert_eq!(duplicates, [2, 2, 2, 2, 2, 0, 0]);
    assert_eq!(publishing.answered_events(), 16);

    // Another process that knows only what it sends begins again at the front.
    let mut another = bed.client.publishing(ORDERS, Window::default()).numbered("till-7", 17);
    for number in 0..10 {
        another.send(batch(number)).await.unwrap();
    }
    another.finish().await.unwrap();
    for key in ["k", "l"] {
        let read = ReadRequest { key: Some(key.into()), ..all_of(ORDERS) };
        let stored: Vec<_> = read_all(&bed.client, read).await.iter().map(|event| id(&event.event)).collect();
        let end = if key == "k" { "a" } else { "b" };
        assert_eq!(stored, (0..10).map(|number| format!("{number}{end}")).collect::<Vec<_>>());
    }
}
