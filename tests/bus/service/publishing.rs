//! Publishing through the client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Request};
use wattle::api::v1;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::api::{AddressedEvent, Numbering};
use wattle::client::{Client, ClientError, ReceivedEvent, Window};
use wattle::model::Event;
use wattle::model::event::Data;

use super::bed::{Gate, LOG, ORDERS, PAYMENTS, all_of, bed, event, id, read_all};
use crate::common::trees::{PATIENCE, until};

#[tokio::test]
async fn published_events_are_at_the_places_that_were_answered() {
    let bed = bed().await;
    let events: Vec<_> = (0..100).map(|number| event(number.to_string(), &format!("key-{}", number % 7))).collect();
    let published = bed.client.publish(ORDERS, events.clone()).await.unwrap();
    assert_eq!(published.places.len(), 100);
    let stored = read_all(&bed.client, all_of(ORDERS)).await;
    assert_eq!(stored.len(), 100);
    for (event, place) in events.iter().zip(published.places) {
        let is_there =
            |stored: &&ReceivedEvent| (stored.partition, Some(stored.offset)) == (place.partition, place.offset);
        let found = stored.iter().find(is_there).unwrap();
        assert_eq!((&found.event, found.epoch), (event, published.epoch));
    }
}

#[tokio::test]
async fn a_short_name_is_enough_where_it_is_the_only_one() {
    let bed = bed().await;
    bed.client.publish("orders", vec![event("a", "k")]).await.unwrap();
    assert_eq!(read_all(&bed.client, all_of("orders")).await.len(), 1);
}

#[tokio::test]
async fn a_stream_answers_in_order_and_keeps_the_order_of_its_events() {
    let bed = bed().await;
    let mut publishing = bed.client.publishing(LOG, Window { batches: 8, bytes: 1 << 20 });
    let mut answers = Vec::new();
    for batch in 0..200 {
        let events = (0..3).map(|number| event(format!("{batch}-{number}"), "k")).collect();
        answers.extend(publishing.send(events).await.unwrap());
    }
    answers.extend(publishing.finish().await.unwrap());
    assert_eq!(publishing.answered_events(), 600);
    let offsets: Vec<u64> =
        answers.iter().flat_map(|answer| answer.places.iter().filter_map(|place| place.offset)).collect();
    assert_eq!(offsets, (0..600).collect::<Vec<_>>());
    let stored = read_all(&bed.client, all_of(LOG)).await;
    assert_eq!(id(&stored[301].event), "100-1");
}

#[tokio::test]
async fn requests_of_a_stream_are_taken_before_earlier_ones_are_answered() {
    let bed = bed().await;
    bed.engine.gate.send_replace(Gate::Shut);
    let mut publishing = bed.client.publishing(LOG, Window { batches: 10, bytes: 1 << 20 });
    for number in 0..10 {
        publishing.send(vec![event(number.to_string(), "k")]).await.unwrap();
    }
    bed.engine.arrivals(10).await;
    assert_eq!(publishing.answered_events(), 0);
    bed.engine.gate.send_replace(Gate::Open);
    publishing.finish().await.unwrap();
    assert_eq!(publishing.answered_events(), 10);
}

#[tokio::test]
async fn a_busy_bus_delays_a_stream_and_never_reorders_or_repeats_it() {
    let bed = bed().await;
    let mut publishing = bed.client.publishing(LOG, Window { batches: 8, bytes: 1 << 20 });
    for number in 0..100 {
        if number % 10 == 5 {
            bed.engine.busy.store(2, Ordering::SeqCst);
        }
        publishing.send(vec![event(number.to_string(), "k")]).await.unwrap();
    }
    publishing.finish().await.unwrap();
    let ids: Vec<String> = read_all(&bed.client, all_of(LOG)).await.iter().map(|event| id(&event.event)).collect();
    assert_eq!(ids, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_busy_bus_says_when_to_try_again() {
    let bed = bed().await;
    bed.engine.busy.store(1, Ordering::SeqCst);
    let error = bed.client.publish(LOG, vec![event("a", "k")]).await.unwrap_err();
    assert!(error.is_retryable() && error.has_no_side_effects());
    let ClientError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "BUSY"));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(5)));
}

#[tokio::test]
async fn a_failed_disk_says_that_the_outcome_is_unknown_and_ends_health() {
    let bed = bed().await;
    bed.engine.poison();
    let error = bed.client.publish(LOG, vec![event("a", "k")]).await.unwrap_err();
    assert!(!error.has_no_side_effects());
    let ClientError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "STORAGE_FAILED"));
    let status = bed.client.status().await.unwrap();
    assert!(status.serving.unwrap_err().contains("no space on device"));
}

#[tokio::test]
async fn the_deadline_of_a_stream_is_kept_after_its_answers_have_begun() {
    let bed = bed().await;
    bed.engine.gate.send_replace(Gate::Shut);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", bed.address)).unwrap();
    let mut client = PublisherServiceClient::new(channel.connect().await.unwrap());
    let first = v1::PublishStreamRequest { topic: LOG.into(), events: vec![event("b", "k")], numbering: None };
    let mut request =
        Request::new(tokio_stream::StreamExt::chain(tokio_stream::iter([first]), tokio_stream::pending()));
    request.metadata_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let mut answers = client.publish_stream(request).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::connect(&free.to_string()).await.unwrap_err();
    assert!(error.is_unreachable() && error.has_no_side_effects(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    for wrong in ["", "not an address", "ftp://127.0.0.1:1"] {
        assert!(matches!(Client::connect(wrong).await, Err(ClientError::Address { .. })), "{wrong:?}");
    }
}

#[tokio::test]
async fn events_for_several_topics_are_published_together_or_not_at_all() {
    let bed = bed().await;
    let to = |topic: &str, event| AddressedEvent { topic: topic.to_owned(), event };
    let together = |events: Vec<AddressedEvent>| bed.client.publish_together(events, None);
    let events = vec![to(LOG, event("a", "k")), to(PAYMENTS, event("b", "k")), to("", event("c", "k"))];
    let published = together(events.clone()).await.unwrap();
    assert_eq!((published.places.len(), published.duplicates()), (3, 0));
    assert_eq!(together(events).await.unwrap().duplicates(), 2, "the log recognises nothing");
    let stored = async |topic| read_all(&bed.client, all_of(topic)).await.len();
    assert_eq!((stored(LOG).await, stored(PAYMENTS).await), (2, 2));

    let bad = vec![to(LOG, event("d", "k")), to(PAYMENTS, "no event".into())];
    let ClientError::Refused(refused) = together(bad).await.unwrap_err() else { panic!("it is refused") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_EVENT"));
    assert_eq!(refused.fields, ["events[1]"]);
    assert!(refused.message.contains("event 1 for `shop/payments`"), "{}", refused.message);
    assert_eq!((stored(LOG).await, stored(PAYMENTS).await), (2, 2));

    let numbering = || Some(Numbering { producer: "till".into(), first_sequence: 1, began_ns: None });
    let numbered = || vec![to(LOG, event("e", "k")), to(PAYMENTS, event("e", "k"))];
    for duplicates in [0, 2] {
        let published = bed.client.publish_together(numbered(), numbering()).await.unwrap();
        assert_eq!(published.duplicates(), duplicates);
    }
}

#[tokio::test]
async fn data_that_does_not_fit_its_schema_is_refused_with_its_place() {
    let bed = bed().await;
    let events = ["{}", r#"{"amount":"a lot"}"#].map(|data| crate::common::trees::event("a", "k", data));
    let ClientError::Refused(refused) = bed.client.publish("checked", events.to_vec()).await.unwrap_err() else {
        panic!("it is refused")
    };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "SCHEMA_MISMATCH"));
    assert_eq!((refused.fields, refused.retry_after), (vec!["events[1]".to_owned()], None));
    assert!(refused.message.contains("event 1 for `shop/checked`") && refused.message.contains("`/amount`"));
}

#[tokio::test]
async fn a_full_backlog_is_refused_with_a_time_to_try_again() {
    let bed = bed().await;
    bed.tree.subscriber("slow").unwrap().pause().await.unwrap();
    bed.client.publish("bounded", vec![event("a", "k"), event("b", "k")]).await.unwrap();
    let error = bed.client.publish("bounded", vec![event("c", "k")]).await.unwrap_err();
    assert!(error.is_retryable() && error.has_no_side_effects(), "{error:?}");
    let ClientError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "BACKLOG_FULL"));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(200)));
    assert!(refused.message.contains("`shop/bounded`"), "{}", refused.message);
    let together = vec![AddressedEvent { topic: "bounded".into(), event: event("c", "k") }];
    let ClientError::Refused(refused) = bed.client.publish_together(together, None).await.unwrap_err() else {
        panic!("it is refused")
    };
    assert_eq!(refused.reason, "BACKLOG_FULL");
    // a client that streams tries again by itself
    let mut publishing = bed.client.publishing("bounded", Window::default());
    publishing.send(vec![event("d", "k")]).await.unwrap();
    bed.tree.subscriber("slow").unwrap().resume().await.unwrap();
    publishing.finish().await.unwrap();
    assert_eq!(publishing.answered_events(), 1);
}

#[tokio::test]
async fn a_stream_that_waits_for_room_keeps_the_order_of_its_events() {
    let bed = bed().await;
    bed.tree.subscriber("slower").unwrap().pause().await.unwrap();
    let mut publishing = bed.client.publishing("patient", Window::default());
    let mut sent = Vec::new();
    for (number, size) in [(0, 1), (1, 2), (2, 1), (3, 1)] {
        let batch: Vec<_> = (0..size).map(|of| event(format!("{number}.{of}"), "k")).collect();
        sent.extend(batch.iter().map(id));
        publishing.send(batch).await.unwrap();
    }
    // the second batch waits, and the third one, which would have room, waits behind it
    until("the first is answered", || bed.tree.snapshot().topics.iter().any(|topic| topic.events() == 1)).await;
    tokio::task::yield_now().await;
    assert_eq!(read_all(&bed.client, all_of("patient")).await.len(), 1);
    bed.tree.subscriber("slower").unwrap().resume().await.unwrap();
    publishing.finish().await.unwrap();
    let stored: Vec<_> = read_all(&bed.client, all_of("patient")).await.iter().map(|event| id(&event.event)).collect();
    assert_eq!(stored, sent);
}

#[tokio::test]
async fn whoever_waits_for_room_is_told_when_the_bus_stops_and_nothing_was_published() {
    let bed = bed().await;
    bed.tree.subscriber("slower").unwrap().pause().await.unwrap();
    bed.client.publish("patient", vec![event("a", "k"), event("b", "k")]).await.unwrap();
    let client = bed.client.clone();
    let waits = tokio::spawn(async move { client.publish("patient", vec![event("c", "k")]).await });
    let mut streams = bed.client.publishing("patient", Window::default());
    streams.send(vec![event("d", "k")]).await.unwrap();
    assert!(bed.server.stop(PATIENCE).await, "nothing that was admitted is unanswered");
    for error in [waits.await.unwrap().unwrap_err(), streams.finish().await.unwrap_err()] {
        assert!(matches!(&error, ClientError::Refused(refused) if refused.reason == "SHUTTING_DOWN"), "{error:?}");
    }
    assert_eq!(bed.tree.snapshot().topics.iter().find(|topic| topic.name == "shop/patient").unwrap().events(), 2);
}

#[tokio::test]
async fn what_waits_for_room_in_its_topic_is_bounded_in_bytes() {
    let bed = bed().await;
    bed.tree.subscriber("slower").unwrap().pause().await.unwrap();
    bed.client.publish("patient", vec![event("a", "k"), event("b", "k")]).await.unwrap();
    // Nine of these are 63 MiB, of which 64 may wait.
    let large = |request: usize| {
        let data = Data::Binary(vec![0; 1_000_000].into());
        let event = move |number| Event {
            id: format!("{request}-{number}"),
            source: "/s".into(),
            r#type: "t".into(),
            data: Some(data.clone()),
            ..Event::default()
        };
        (0..7).map(move |number| event(number).encode()).collect::<Vec<_>>()
    };
    let mut waiting = tokio::task::JoinSet::new();
    for request in 0..12 {
        let (client, events) = (bed.client.clone(), large(request));
        waiting.spawn(async move { client.publish("patient", events).await });
    }
    for _ in 0..3 {
        let error = waiting.join_next().await.unwrap().unwrap().unwrap_err();
        let ClientError::Refused(refused) = &error else { panic!("{error}") };
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "BACKLOG_FULL"));
        assert!(error.is_retryable() && error.has_no_side_effects(), "{error:?}");
    }
    bed.tree.subscriber("slower").unwrap().resume().await.unwrap();
    while let Some(published) = waiting.join_next().await {
        assert_eq!(published.unwrap().unwrap().places.len(), 7, "the others have waited");
    }
}
