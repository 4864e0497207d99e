//! Reading through the client.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tonic::Code;
use wattle::api::TraceQuery;
use wattle::client::{ClientError, Position, ReadRequest, Start};
use wattle::model::Event;

use super::bed::{Bed, LOG, ORDERS, all_of, bed, event, id, read_all};
use crate::common::trees::settled;

async fn publish(bed: &Bed, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let event = event(number.to_string(), &format!("key-{}", number % 10));
        bed.client.publish(topic, vec![event]).await.unwrap();
    }
}

#[tokio::test]
async fn all_partitions_are_read_each_in_order() {
    let bed = bed().await;
    publish(&bed, ORDERS, 0..100).await;
    let events = read_all(&bed.client, all_of(ORDERS)).await;
    assert_eq!(events.len(), 100);
    let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for event in &events {
        offsets.entry(event.partition).or_default().push(event.offset);
    }
    for (partition, offsets) in offsets {
        assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[tokio::test]
async fn a_long_partition_does_not_keep_the_others_waiting() {
    let bed = bed().await;
    // One key is one partition; more than an answer's worth of it.
    for _ in 0..5 {
        bed.client.publish(ORDERS, (0..2_000).map(|number| event(number.to_string(), "long")).collect()).await.unwrap();
    }
    let others: Vec<_> = (0..50).map(|number| event(number.to_string(), &format!("other-{number}"))).collect();
    bed.client.publish(ORDERS, others).await.unwrap();
    let events = read_all(&bed.client, all_of(ORDERS)).await;
    assert_eq!(events.len(), 10_050);
    let long = events.iter().find(|event| event.key == "long").unwrap().partition;
    let last_elsewhere = events.iter().rposition(|event| event.partition != long).unwrap();
    assert!(last_elsewhere < 5_000, "the last event of another partition came at {last_elsewhere}");
}

#[tokio::test]
async fn filters_and_limits_choose() {
    let bed = bed().await;
    publish(&bed, ORDERS, 0..100).await;
    let keyed = read_all(&bed.client, ReadRequest { key: Some("key-3".into()), ..all_of(ORDERS) }).await;
    let ids: Vec<String> = keyed.iter().map(|event| id(&event.event)).collect();
    assert_eq!(ids, (0..10).map(|ten| format!("{}", ten * 10 + 3)).collect::<Vec<_>>());

    let other = Event { id: "x".into(), source: "/s".into(), r#type: "other".into(), ..Event::default() };
    bed.client.publish(ORDERS, vec![other.encode()]).await.unwrap();
    let typed = read_all(&bed.client, ReadRequest { r#type: Some("other".into()), ..all_of(ORDERS) }).await;
    assert_eq!(typed.iter().map(|event| id(&event.event)).collect::<Vec<_>>(), ["x"]);

    let limited = ReadRequest { limit: Some(7), ..all_of(ORDERS) };
    assert_eq!(read_all(&bed.client, limited).await.len(), 7);
    let limited = ReadRequest { limit: Some(2), key: Some("key-3".into()), follow: true, ..all_of(ORDERS) };
    assert_eq!(read_all(&bed.client, limited).await.len(), 2);
}

#[tokio::test]
async fn a_read_starts_where_it_is_told_to() {
    let bed = bed().await;
    publish(&bed, LOG, 0..10).await;
    let all = read_all(&bed.client, all_of(LOG)).await;
    let first = async |start| {
        let events = read_all(&bed.client, ReadRequest { start, ..all_of(LOG) }).await;
        events.first().map(|event| event.offset)
    };
    assert_eq!(first(Start::Earliest).await, Some(0));
    assert_eq!(first(Start::Latest).await, None);
    assert_eq!(first(Start::Offset(4)).await, Some(4));
    assert_eq!(first(Start::Offset(400)).await, None);
    assert_eq!(first(Start::Time(all[6].append_time)).await, Some(6));
    let position = Position { partition: 0, offset: 8, epoch: Some(all[7].epoch) };
    assert_eq!(first(Start::Positions(vec![position])).await, Some(8));
}

#[tokio::test]
async fn who_follows_from_the_latest_sees_everything_after_the_answer_began() {
    let bed = bed().await;
    publish(&bed, ORDERS, 0..20).await;
    let read = ReadRequest { start: Start::Latest, follow: true, limit: Some(30), ..all_of(ORDERS) };
    let mut reading = bed.client.read(read).await.unwrap();
    publish(&bed, ORDERS, 100..130).await;
    let mut numbers = Vec::new();
    while let Some(events) = reading.next().await.unwrap() {
        numbers.extend(events.iter().map(|event| id(&event.event).parse::<u32>().unwrap()));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (100..130).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody() {
    let bed = bed().await;
    let data = wattle::model::event::Data::Binary(vec![7; 64 << 10].into());
    let large = Event { id: "l".into(), source: "/s".into(), r#type: "t".into(), data: Some(data), ..Event::default() };
    let large = large.encode();
    for _ in 0..20 {
        bed.client.publish(LOG, vec![large.clone(); 50]).await.unwrap();
    }
    // 64 MiB lie there; this one takes nothing of it, on the same connection as the others.
    let idle = bed.client.read(ReadRequest { follow: true, ..all_of(LOG) }).await.unwrap();
    publish(&bed, ORDERS, 0..50).await;
    assert_eq!(read_all(&bed.client, all_of(ORDERS)).await.len(), 50);
    assert_eq!(read_all(&bed.client, all_of(LOG)).await.len(), 1_000);
    drop(idle);
    // What the two that read took, and what HTTP/2 holds for the one that did not: no more was read for it.
    let given = bed.engine.given.load(Ordering::SeqCst);
    assert!(given < (64 << 20) + (8 << 20), "{given} bytes were read");
}

#[tokio::test]
async fn the_lineage_of_an_event_is_asked_for_by_its_id() {
    let bed = bed().await;
    bed.client.publish(ORDERS, vec![crate::common::trees::event("o-1", "k", "emit")]).await.unwrap();
    settled(&bed.tree).await;
    let of = |id: &str| TraceQuery { id: id.to_owned(), ..TraceQuery::default() };
    let trace = bed.client.trace(of("o-1")).await.unwrap();
    assert_eq!(trace, bed.tree.trace(&of("o-1")).await.unwrap(), "nothing of it is lost on the way");
    assert_eq!(trace.events.len(), 2, "{trace:#?}");
    let ask = |of: TraceQuery| async { bed.client.trace(of).await.unwrap_err() };
    for (of, code, reason) in [
        (of("nobody"), Code::NotFound, "UNKNOWN_EVENT"),
        (of(""), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (TraceQuery { topic: Some("nowhere".into()), ..of("o-1") }, Code::NotFound, "UNKNOWN_TOPIC"),
    ] {
        let ClientError::Refused(refused) = ask(of.clone()).await else { panic!("{of:?}") };
        assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{of:?}");
    }
}

#[tokio::test]
async fn a_listing_of_what_has_no_place_yet_is_refused_where_it_is_not_one() {
    use wattle::api::v1::{ListPendingRequest, reader_service_client::ReaderServiceClient};
    let bed = bed().await;
    let mut reader = ReaderServiceClient::connect(format!("http://{}", bed.address)).await.unwrap();
    let request = |topic: &str, page_token: &'static [u8], kind| ListPendingRequest {
        topic: topic.to_owned(),
        page_token: page_token.into(),
        kind,
        ..Default::default()
    };
    for (request, code, words) in [
        (request("nothing", b"", 0), Code::NotFound, "nothing"),
        (request(ORDERS, b"?", 0), Code::InvalidArgument, "page_token is not what an earlier page"),
        (request(ORDERS, b"", 7), Code::InvalidArgument, "kind is not a known value"),
    ] {
        let refused = reader.list_pending(request).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(words), "{refused:?}");
    }
    let listed = reader.list_pending(request(ORDERS, b"", 0)).await.unwrap().into_inner();
    assert_eq!((listed.events.len(), listed.next_page_token.len()), (0, 0));
}
