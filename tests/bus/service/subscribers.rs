//! Subscribers are looked after through the client and, where that would not ask so, through the contract itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use wattle::api::v1::subscriber_service_client::SubscriberServiceClient;
use wattle::api::{
    FailedEvent, Filter, LaneState, Seek, SeekState, SeekTo, StateEntry, StateFilter, StateOfPartition,
    SubscriberStatus, v1,
};
use wattle::client::{Client, ClientError, Listing, Source};
use wattle::engine::Engine;
use wattle::limits;
use wattle::model::event::Data;
use wattle::model::{Event, partition_of};

use super::bed::{Bed, JOBS, ORDERS, SMALL, VALIDATE, WORK, all_of, bed, id, read_all};
use crate::common::trees::{event, settled, status, until};

/// Publishes events, and waits until they have become what they can.
async fn publish(bed: &Bed, topic: &str, events: &[(&str, &str, &str)]) {
    let events = events.iter().map(|(id, key, data)| event(id, key, data)).collect();
    bed.client.publish(topic, events).await.unwrap();
    settled(&bed.tree).await;
}

async fn all<S: Source>(mut listing: Listing<S>) -> Result<Vec<S::Item>, ClientError> {
    let mut all = Vec::new();
    while let Some(item) = listing.next().await? {
        all.push(item);
    }
    Ok(all)
}

fn ids(events: &[FailedEvent]) -> String {
    let mut ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    ids.sort_unstable();
    ids.join(" ")
}

async fn waiting(client: &Client, filter: Filter) -> String {
    ids(&all(client.waiting(WORK, filter)).await.unwrap())
}

async fn dead(client: &Client, filter: Filter) -> String {
    ids(&all(client.dead_letters(VALIDATE, filter)).await.unwrap())
}

async fn in_topic(bed: &Bed, topic: &str) -> String {
    let mut ids: Vec<String> =
        read_all(&bed.client, all_of(topic)).await.iter().map(|event| id(&event.event)).collect();
    ids.sort_unstable();
    ids.join(" ")
}

fn of(bed: &Bed, subscriber: &str) -> SubscriberStatus {
    status(&bed.tree.snapshot(), subscriber)
}

fn key(key: &str) -> Filter {
    Filter { key: Some(key.to_owned()), ..Filter::default() }
}

async fn redrive(client: &Client, filter: Filter) -> u64 {
    let (mut count, mut from) = (0, None);
    loop {
        let done = client.redrive(VALIDATE, filter.clone(), from).await.unwrap();
        count += done.count;
        match done.next {
            Some(next) => from = Some(next),
            None => return count,
        }
    }
}

#[tokio::test]
async fn what_waits_is_listed_with_all_that_is_known_of_it() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "fail"), ("b", "k", "fine"), ("c", "other", "fine")]).await;
    let events = all(bed.client.waiting(WORK, Filter::default())).await.unwrap();
    let [a, b] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((a.id.as_str(), a.key.as_str(), a.attempts, a.is_parked), ("a", "k", 1, true));
    assert_eq!((a.failure.as_str(), a.reason.as_str()), ("retry", "there is no paper"));
    assert_eq!((a.offset, a.dead_partition), (0, None));
    assert_eq!(a.digest, "07".repeat(32));
    assert!(a.append_time_ns > 0 && a.failed_ns > 0 && a.since_ns > 0);
    assert_eq!(a.event, event("a", "k", "fail"), "as it was published");
    assert_eq!((b.attempts, b.is_parked, b.failed_ns), (0, false, 0));
    let status = of(&bed, WORK);
    assert_eq!((status.waiting, status.parked), (2, 1));
}

#[tokio::test]
async fn filters_choose_among_what_waits() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "fail"), ("b", "k", "fine"), ("c", "l", "fail")]).await;
    let partition = all(bed.client.waiting(WORK, key("k"))).await.unwrap()[0].partition;
    for (filter, found) in [
        (Filter::default(), "a b c"),
        (key("k"), "a b"),
        (key("nobody"), ""),
        (Filter { id: Some("c".into()), ..Filter::default() }, "c"),
        (Filter { reason: Some("retry".into()), ..Filter::default() }, "a c"),
        (Filter { reason: Some("paper".into()), ..Filter::default() }, "a c"),
        (Filter { reason: Some("ink".into()), ..Filter::default() }, ""),
        (Filter { older_than: Some(Duration::ZERO), ..Filter::default() }, "a b c"),
        (Filter { older_than: Some(Duration::from_secs(60)), ..Filter::default() }, ""),
        (Filter { older_than: Some(Duration::MAX), ..Filter::default() }, ""),
        (Filter { parked: true, ..Filter::default() }, "a c"),
        (Filter { partition: Some(partition), ..key("k") }, "a b"),
        (Filter { partition: Some(1 - partition), ..key("k") }, ""),
    ] {
        assert_eq!(waiting(&bed.client, filter.clone()).await, found, "{filter:?}");
    }
}

#[tokio::test]
async fn a_released_event_is_tried_again_and_its_key_goes_on() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "fail"), ("b", "k", "emit"), ("c", "l", "fail")]).await;
    assert_eq!(bed.client.release(WORK, key("nobody")).await.unwrap(), 0);
    assert_eq!(bed.client.release(WORK, Filter { parked: true, ..key("k") }).await.unwrap(), 1);
    settled(&bed.tree).await;
    assert_eq!(waiting(&bed.client, Filter::default()).await, "a b c", "it has failed again");
    bed.healed.send_replace(true);
    assert_eq!(bed.client.release("shop/work", key("k")).await.unwrap(), 2);
    settled(&bed.tree).await;
    assert_eq!(waiting(&bed.client, Filter::default()).await, "c");
    let data: Vec<_> = read_all(&bed.client, all_of("jobs.done")).await.iter().map(data).collect();
    assert_eq!(data, ["fail", "emit"], "in their order");
}

fn data(received: &wattle::client::ReceivedEvent) -> String {
    String::from_utf8(Event::decode(&received.event).unwrap().data.unwrap().as_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_dropped_event_is_never_handled() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "fail"), ("b", "k", "emit")]).await;
    bed.healed.send_replace(true);
    assert_eq!(bed.client.drop_waiting(WORK, Filter { id: Some("a".into()), ..Filter::default() }).await.unwrap(), 1);
    settled(&bed.tree).await;
    assert_eq!(waiting(&bed.client, Filter::default()).await, "");
    let done = read_all(&bed.client, all_of("jobs.done")).await;
    assert_eq!(done.iter().map(data).collect::<Vec<_>>(), ["emit"]);
}

#[tokio::test]
async fn dead_letters_are_listed_as_the_events_that_they_were() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "fail"), ("b", "l", "reject"), ("c", "l", "fine")]).await;
    let letters = all(bed.client.dead_letters(VALIDATE, Filter::default())).await.unwrap();
    assert_eq!(ids(&letters), "a b");
    let b = letters.iter().find(|letter| letter.id == "b").unwrap();
    assert_eq!((b.failure.as_str(), b.reason.as_str()), ("reject", "it is no job"));
    assert_eq!((b.attempts, b.key.as_str(), b.digest.as_str()), (1, "l", &*"07".repeat(32)));
    assert_eq!(b.event, event("b", "l", "reject"), "nothing is added to it");
    assert!(b.append_time_ns > 0 && b.failed_ns > 0 && b.dead_partition.is_some());
    assert_eq!(dead(&bed.client, Filter { reason: Some("reject".into()), ..Filter::default() }).await, "b");
    assert_eq!(dead(&bed.client, key("k")).await, "a");
    assert_eq!(dead(&bed.client, Filter { parked: true, ..Filter::default() }).await, "");
}

#[tokio::test]
async fn a_redriven_letter_is_handled_once() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "fail"), ("b", "l", "fail"), ("c", "m", "reject")]).await;
    assert_eq!(redrive(&bed.client, key("k")).await, 1);
    settled(&bed.tree).await;
    assert_eq!(dead(&bed.client, Filter::default()).await, "a b c", "it has failed again, and is a letter again");
    bed.healed.send_replace(true);
    assert_eq!(redrive(&bed.client, key("k")).await, 1);
    assert_eq!(redrive(&bed.client, key("k")).await, 0);
    settled(&bed.tree).await;
    assert_eq!(dead(&bed.client, Filter::default()).await, "b c");
    assert_eq!(redrive(&bed.client, Filter::default()).await, 2);
    settled(&bed.tree).await;
    assert_eq!(dead(&bed.client, Filter::default()).await, "c", "it can never pass");
    assert_eq!(read_all(&bed.client, all_of("orders.accepted")).await.len(), 2);
}

#[tokio::test]
async fn a_dropped_letter_is_off_the_list_and_stays_in_its_topic() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "fail"), ("b", "l", "reject")]).await;
    let done = bed.client.drop_dead_letters(VALIDATE, key("k"), None).await.unwrap();
    assert_eq!((done.count, done.next), (1, None));
    assert_eq!(dead(&bed.client, Filter::default()).await, "b");
    assert_eq!(redrive(&bed.client, key("k")).await, 0);
    assert_eq!(in_topic(&bed, "validate.dead").await, "a b");
}

#[tokio::test]
async fn long_lists_come_in_pages_that_fit_a_message() {
    let bed = bed().await;
    // as many of nearly the largest size as are more than a message holds; then many small ones
    let large = |number: u32| {
        let mut event = Event::decode(&event(&format!("large-{number}"), "k", "x")).unwrap();
        event.data = Some(Data::Binary(vec![0; limits::EVENT_BYTES_MAX - 1_000].into()));
        event.encode()
    };
    publish(&bed, JOBS, &[("first", "k", "fail")]).await;
    for number in 0..12 {
        bed.client.publish(JOBS, vec![large(number)]).await.unwrap();
    }
    let small: Vec<Bytes> = (0..2_500).map(|number| event(&format!("small-{number}"), "k", "fine")).collect();
    bed.client.publish(JOBS, small).await.unwrap();
    settled(&bed.tree).await;
    let events = all(bed.client.waiting(WORK, Filter::default())).await.unwrap();
    assert_eq!(events.len(), 1 + 12 + 2_500);
    assert!(events.is_sorted_by_key(|event| event.offset), "in their order");
    let mut client = service(&bed).await;
    let request = v1::ListRetryQueueRequest { subscriber: WORK.into(), page_size: 5_000, ..Default::default() };
    let page = client.list_retry_queue(request.clone()).await.unwrap().into_inner();
    assert!(page.events.len() < 12, "{}", page.events.len());
    let small = Some(v1::ListPosition { partition: events[0].partition, number: 13 });
    let last = v1::ListRetryQueueRequest { from: small, ..request.clone() };
    let page = client.list_retry_queue(last).await.unwrap().into_inner();
    assert_eq!(page.events.len(), 1_000);
    let page = client.list_retry_queue(v1::ListRetryQueueRequest { page_size: 3, ..request.clone() }).await.unwrap();
    assert_eq!(page.into_inner().events.len(), 3);
    let beyond = v1::ListRetryQueueRequest { from: Some(v1::ListPosition { partition: 9, number: 0 }), ..request };
    assert_eq!(client.list_retry_queue(beyond).await.unwrap().into_inner(), v1::ListRetryQueueResponse::default());
}

#[tokio::test]
async fn a_paused_subscriber_handles_nothing_until_it_is_resumed() {
    let bed = bed().await;
    bed.client.pause("validate").await.unwrap();
    bed.client.pause(VALIDATE).await.unwrap();
    assert!(of(&bed, VALIDATE).lanes.iter().all(|lane| *lane == LaneState::Paused));
    bed.client.publish(ORDERS, vec![event("a", "k", "emit")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(of(&bed, VALIDATE).lag, 1);
    bed.client.resume(VALIDATE).await.unwrap();
    settled(&bed.tree).await;
    assert_eq!(read_all(&bed.client, all_of("orders.accepted")).await.len(), 1);
}

#[tokio::test]
async fn a_halted_subscriber_goes_on_when_it_is_resumed() {
    let bed = bed().await;
    bed.client.publish("halting", vec![event("a", "k", "fail")]).await.unwrap();
    let halted = || of(&bed, "shop/stubborn").lanes == [LaneState::Halted];
    until("it halts", halted).await;
    let refused = all(bed.client.dead_letters("stubborn", Filter::default())).await.unwrap_err();
    assert!(refused.to_string().contains("on_failure: halt"), "{refused}");
    bed.healed.send_replace(true);
    bed.client.resume("stubborn").await.unwrap();
    until("it has passed", || of(&bed, "shop/stubborn").waiting == 0).await;
}

fn seek(to: SeekTo) -> Seek {
    Seek { to, partition: None, state: None, drops_waiting: false, dry_run: false }
}

#[tokio::test]
async fn a_subscriber_is_moved_and_a_dry_run_says_how() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "emit"), ("b", "k", "emit"), ("c", "k", "emit")]).await;
    let partition = bed.client.publish(ORDERS, vec![event("d", "k", "emit")]).await.unwrap().places[0].partition;
    settled(&bed.tree).await;
    let at = |moved: &[wattle::api::LaneMove]| {
        let moved = moved.iter().find(|moved| moved.partition == partition).unwrap();
        (moved.from, moved.to)
    };
    let dry = bed.client.seek(VALIDATE, Seek { dry_run: true, ..seek(SeekTo::Start) }).await.unwrap();
    assert_eq!((dry.len(), at(&dry)), (4, (4, 0)));
    let only = Seek { partition: Some(partition), ..seek(SeekTo::Offset(3)) };
    let moved = bed.client.seek(VALIDATE, only).await.unwrap();
    assert_eq!((moved.len(), at(&moved)), (1, (4, 3)));
    settled(&bed.tree).await;
    assert_eq!(read_all(&bed.client, all_of("orders.accepted")).await.len(), 5);
    let time = read_all(&bed.client, all_of(ORDERS)).await[3].append_time.as_nanosecond() as u64;
    for (to, expected) in [(SeekTo::Time(time), 3), (SeekTo::Time(time + 1_000_000_000_000), 4), (SeekTo::End, 4)] {
        let dry = bed.client.seek(VALIDATE, Seek { dry_run: true, ..seek(to) }).await.unwrap();
        assert_eq!(at(&dry), (4, expected), "{to:?}");
    }
    for (offset, is_there) in [(4, true), (5, false), (u64::MAX, false)] {
        let only = Seek { partition: Some(partition), dry_run: true, ..seek(SeekTo::Offset(offset)) };
        match bed.client.seek(VALIDATE, only).await {
            Ok(moved) => assert!(is_there && at(&moved) == (4, 4), "{offset}"),
            Err(ClientError::Refused(refused)) => {
                assert!(!is_there && refused.message.contains("ends at 4"), "{offset}: {refused:?}");
                assert_eq!(refused.reason, "POSITION_BEYOND_END");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(bed.client.seek(VALIDATE, seek(SeekTo::Offset(4))).await.is_err(), "the others end before it");
}

#[tokio::test]
async fn a_seek_leaves_nothing_behind_that_nobody_gave_up() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "fail"), ("b", "l", "keep")]).await;
    let start = seek(SeekTo::Start);
    let reason = |error: &ClientError| match error {
        ClientError::Refused(refused) => refused.reason.clone(),
        other => panic!("{other}"),
    };
    let refused = bed.client.seek(WORK, start).await.unwrap_err();
    assert_eq!(reason(&refused), "HAS_STATE");
    assert!(refused.to_string().contains("--state keep"), "{refused}");
    for dry_run in [true, false] {
        let keep = Seek { state: Some(SeekState::Keep), dry_run, ..start };
        let refused = bed.client.seek(WORK, keep).await.unwrap_err();
        assert_eq!(reason(&refused), "EVENTS_WAIT");
    }
    assert_eq!(waiting(&bed.client, Filter::default()).await, "a");
    // a paused subscriber shows what a seek alone does
    bed.client.pause(WORK).await.unwrap();
    let empty = Seek { state: Some(SeekState::Empty), drops_waiting: true, ..start };
    bed.client.seek(WORK, empty).await.unwrap();
    assert_eq!(waiting(&bed.client, Filter::default()).await, "");
    assert_eq!(all(bed.client.states(WORK, StateFilter::default())).await.unwrap(), []);
    bed.client.resume(WORK).await.unwrap();
    settled(&bed.tree).await;
    assert_eq!(waiting(&bed.client, Filter::default()).await, "a");
    assert_eq!(all(bed.client.state(WORK, "", "l")).await.unwrap().len(), 1);
}

fn entry(bucket: &str, key: &str, value: impl Into<Bytes>) -> StateEntry {
    StateEntry { bucket: bucket.into(), key: key.into(), written_ns: 1_700_000_000_000_000_007, value: value.into() }
}

#[tokio::test]
async fn state_is_looked_at_and_put_in() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "keep")]).await;
    let kept = all(bed.client.state(WORK, "default", "k")).await.unwrap();
    let [StateOfPartition { partition, entry: found }] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((found.bucket.as_str(), found.key.as_str(), &found.value[..]), ("default", "k", &b"kept"[..]));
    assert!(found.written_ns > 0);
    assert_eq!(all(bed.client.state(WORK, "default", "nothing")).await.unwrap(), []);

    let large = vec![1; 1 << 20];
    let put = vec![entry("default", "k", "put"), entry("box", "k1", large.clone()), entry("box", "k2", &b"\xff"[..])];
    assert_eq!(bed.client.import_state(WORK, *partition, put.clone()).await.unwrap(), 3);
    assert_eq!(bed.client.import_state(WORK, 1 - *partition, vec![entry("z", "z", "z")]).await.unwrap(), 1);
    assert_eq!(all(bed.client.state(WORK, "", "k")).await.unwrap()[0].entry, put[0]);
    let listed = async |partition, bucket: Option<&str>, prefix: &str| {
        let filter = StateFilter { partition, bucket: bucket.map(Into::into), prefix: prefix.into() };
        let entries = all(bed.client.states(WORK, filter)).await.unwrap();
        let mut keys: Vec<_> = entries.iter().map(|of| format!("{}/{}", of.entry.bucket, of.entry.key)).collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    assert_eq!(listed(None, None, "").await, "box/k1 box/k2 default/k z/z");
    assert_eq!(listed(Some(*partition), None, "").await, "box/k1 box/k2 default/k");
    assert_eq!(listed(None, Some("box"), "").await, "box/k1 box/k2");
    assert_eq!(listed(None, Some("bo"), "").await, "");
    assert_eq!(listed(None, None, "k").await, "box/k1 box/k2 default/k");
    assert_eq!(listed(None, Some("box"), "k2").await, "box/k2");
}

#[tokio::test]
async fn a_large_state_comes_in_pages() {
    let bed = bed().await;
    for round in 0..3 {
        let entries = (0..6).map(|at| entry("large", &format!("{round}-{at}"), vec![1; 1 << 20])).collect();
        bed.client.import_state(WORK, 0, entries).await.unwrap();
    }
    let many = (0..3_000).map(|at| entry("many", &format!("{at:04}"), "x")).collect();
    bed.client.import_state(WORK, 1, many).await.unwrap();
    let all = all(bed.client.states(WORK, StateFilter::default())).await.unwrap();
    assert_eq!(all.len(), 18 + 3_000);
    let order = |of: &StateOfPartition| (of.partition, of.entry.bucket.clone(), of.entry.key.clone());
    assert!(all.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])), "each once, in order");
}

#[tokio::test]
async fn what_many_partitions_have_under_a_key_comes_in_parts() {
    let bed = bed().await;
    for partition in 0..4 {
        let large = vec![entry("default", "k", vec![1; 1 << 20])];
        bed.client.import_state(VALIDATE, partition, large).await.unwrap();
    }
    let request = v1::GetStateRequest { subscriber: VALIDATE.into(), key: "k".into(), ..Default::default() };
    let part = service(&bed).await.get_state(request).await.unwrap().into_inner();
    assert_eq!((part.entries.len(), part.next_partition), (3, Some(3)), "as much as fits");
    let partitions = all(bed.client.state(VALIDATE, "", "k")).await.unwrap();
    assert_eq!(partitions.iter().map(|of| of.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// What is logged on this thread, which is that of the bus as well.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn has(&self, words: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(words)
    }
}

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_not_begun_when_its_caller_goes_away_is_not_done() {
    let log = Log::default();
    let writer = log.clone();
    // While only one subscriber is known, a log line that another test reaches first on its own thread is switched off
    // for all.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let logging = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(logging);
    let bed = bed().await;
    let key_of = |partition| (0..).map(|n| n.to_string()).find(|key| partition_of(key, 2) == partition).unwrap();
    let (first, second) = (key_of(0), key_of(1));
    publish(&bed, JOBS, &[("a", &first, "emit")]).await;
    bed.client.publish(JOBS, vec![event("b", &second, "wait")]).await.unwrap();
    let client = bed.client.clone();
    let asked = tokio::spawn(async move { client.seek(WORK, seek(SeekTo::Start)).await });
    until("the first partition is moved", || of(&bed, WORK).handled == 2).await;
    asked.abort();
    assert!(asked.await.is_err(), "the second one is in a call");
    until("the bus knows", || log.has("the caller is gone")).await;
    bed.healed.send_replace(true);
    bed.client.resume(WORK).await.unwrap(); // behind all that it was told
    settled(&bed.tree).await;
    assert_eq!(of(&bed, WORK).handled, 2 + 1, "the second one was not moved");
    assert!(log.has("moving a partition") && log.has("asked for"));
}

async fn service(bed: &Bed) -> SubscriberServiceClient<tonic::transport::Channel> {
    let channel = Endpoint::from_shared(format!("http://{}", bed.address)).unwrap().connect().await.unwrap();
    SubscriberServiceClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
}

/// The reason of a refusal, and the field to blame.
fn blame(status: &Status) -> (String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    (reason, fields.first().map(|violation| violation.field.clone()).unwrap_or_default())
}

#[tokio::test]
async fn every_call_refuses_a_subscriber_that_is_not_there() {
    let bed = bed().await;
    let mut client = service(&bed).await;
    for (name, code, why, words) in [
        ("nobody", Code::NotFound, ("UNKNOWN_SUBSCRIBER", ""), "wattle status"),
        ("", Code::NotFound, ("UNKNOWN_SUBSCRIBER", ""), ""),
        ("work", Code::InvalidArgument, ("AMBIGUOUS_SUBSCRIBER", "subscriber"), "other/work"),
    ] {
        let subscriber = || name.to_owned();
        let start = Some(v1::seek_request::To::Start(v1::seek_request::Start {}));
        let entry = v1::StateEntry {
            partition: 0,
            bucket: "b".into(),
            key: "k".into(),
            write_time: Some(prost_types::Timestamp::default()),
            value: Bytes::new(),
        };
        let default = || v1::ListRetryQueueRequest { subscriber: subscriber(), ..Default::default() };
        let refusals = [
            client.list_retry_queue(default()).await.map(drop),
            client.release(v1::ReleaseRequest { subscriber: subscriber(), ..Default::default() }).await.map(drop),
            client
                .drop_retry_queue(v1::DropRetryQueueRequest { subscriber: subscriber(), filter: None })
                .await
                .map(drop),
            client
                .list_dead_letters(v1::ListDeadLettersRequest { subscriber: subscriber(), ..Default::default() })
                .await
                .map(drop),
            client.redrive(v1::RedriveRequest { subscriber: subscriber(), ..Default::default() }).await.map(drop),
            client
                .drop_dead_letters(v1::DropDeadLettersRequest { subscriber: subscriber(), ..Default::default() })
                .await
                .map(drop),
            client.pause(v1::PauseRequest { subscriber: subscriber() }).await.map(drop),
            client.resume(v1::ResumeRequest { subscriber: subscriber() }).await.map(drop),
            client.seek(v1::SeekRequest { subscriber: subscriber(), to: start, ..Default::default() }).await.map(drop),
            client.get_state(v1::GetStateRequest { subscriber: subscriber(), ..Default::default() }).await.map(drop),
            client.list_state(v1::ListStateRequest { subscriber: subscriber(), ..Default::default() }).await.map(drop),
            client
                .import_state(v1::ImportStateRequest { subscriber: subscriber(), entries: vec![entry] })
                .await
                .map(drop),
        ];
        for (at, refused) in refusals.into_iter().enumerate() {
            let status = refused.expect_err(&format!("{name:?}, call {at}"));
            assert_eq!(status.code(), code, "{name:?}, call {at}: {status}");
            assert_eq!(blame(&status), (why.0.to_owned(), why.1.to_owned()), "{name:?}, call {at}");
            assert!(status.message().contains(words), "{status}");
        }
    }
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let bed = bed().await;
    let mut client = service(&bed).await;
    let subscriber = || WORK.to_owned();
    let filter =
        |filter| v1::ListRetryQueueRequest { subscriber: subscriber(), filter: Some(filter), ..Default::default() };
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let cases = [
        v1::FailedFilter { older_than: Some(negative), ..Default::default() },
        v1::FailedFilter { partition: Some(2), ..Default::default() },
    ];
    let [age, partition] = cases;
    let status = client.list_retry_queue(filter(age.clone())).await.unwrap_err();
    assert_eq!((status.code(), blame(&status).1.as_str()), (Code::InvalidArgument, "filter.older_than"));
    let status = client.list_retry_queue(filter(partition.clone())).await.unwrap_err();
    assert_eq!(blame(&status), ("UNKNOWN_PARTITION".to_owned(), "partition".to_owned()));
    let release = v1::ReleaseRequest { subscriber: subscriber(), filter: Some(partition.clone()) };
    assert_eq!(client.release(release).await.unwrap_err().code(), Code::InvalidArgument);
    let redrive = v1::RedriveRequest { subscriber: VALIDATE.into(), filter: Some(age), from: None };
    assert_eq!(client.redrive(redrive).await.unwrap_err().code(), Code::InvalidArgument);

    let seek = v1::SeekRequest { subscriber: subscriber(), ..Default::default() };
    let time = v1::seek_request::To::Time(prost_types::Timestamp { seconds: -1, nanos: 0 });
    let end = Some(v1::seek_request::To::End(v1::seek_request::End {}));
    for (request, field) in [
        (seek.clone(), "to"),
        (v1::SeekRequest { to: Some(time), ..seek.clone() }, "time"),
        (v1::SeekRequest { to: end, state: 7, ..seek.clone() }, "state"),
        (v1::SeekRequest { to: end, partition: Some(2), ..seek }, "partition"),
    ] {
        let status = client.seek(request).await.unwrap_err();
        assert_eq!((status.code(), blame(&status).1.as_str()), (Code::InvalidArgument, field), "{status}");
    }

    let good = v1::StateEntry {
        partition: 1,
        bucket: "b".into(),
        key: "k".into(),
        write_time: Some(prost_types::Timestamp::default()),
        value: Bytes::new(),
    };
    for (bad, field) in [
        (v1::StateEntry { partition: 0, ..good.clone() }, "entries[1].partition"),
        (v1::StateEntry { bucket: String::new(), ..good.clone() }, "entries[1].bucket"),
        (v1::StateEntry { bucket: "a\0b".into(), ..good.clone() }, "entries[1].bucket"),
        (v1::StateEntry { bucket: "b".repeat(65), ..good.clone() }, "entries[1].bucket"),
        (v1::StateEntry { key: String::new(), ..good.clone() }, "entries[1].key"),
        (v1::StateEntry { key: "k".repeat(1_025), ..good.clone() }, "entries[1].key"),
        (v1::StateEntry { value: vec![0; (1 << 20) + 1].into(), ..good.clone() }, "entries[1].value"),
        (v1::StateEntry { write_time: None, ..good.clone() }, "entries[1].write_time"),
    ] {
        let request = v1::ImportStateRequest { subscriber: subscriber(), entries: vec![good.clone(), bad] };
        let status = client.import_state(request).await.unwrap_err();
        assert_eq!((status.code(), blame(&status).1.as_str()), (Code::InvalidArgument, field), "{status}");
    }
    let many = v1::ImportStateRequest { subscriber: subscriber(), entries: vec![good.clone(); 10_001] };
    assert_eq!(client.import_state(many).await.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = v1::StateEntry { partition: 2, ..good };
    let nowhere = v1::ImportStateRequest { subscriber: subscriber(), entries: vec![nowhere] };
    assert_eq!(blame(&client.import_state(nowhere).await.unwrap_err()).0, "UNKNOWN_PARTITION");
    assert_eq!(all(bed.client.states(WORK, StateFilter::default())).await.unwrap(), [], "all or none");
}

#[tokio::test]
async fn lanes_that_have_stopped_say_so() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "fail")]).await;
    assert!(bed.tree.drain(Duration::from_secs(10)).await);
    let refused = bed.client.pause(VALIDATE).await.unwrap_err();
    let ClientError::Refused(refused) = refused else { panic!("{refused}") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "LANE_STOPPED"));
    assert!(refused.message.contains("wattle status"), "{}", refused.message);
    assert_eq!(dead(&bed.client, Filter::default()).await, "a", "one may still look");
}

#[tokio::test]
async fn a_progress_that_somebody_made_up_does_no_harm() {
    let bed = bed().await;
    publish(&bed, ORDERS, &[("a", "k", "fail")]).await;
    let far = wattle::api::LetterProgress {
        at: wattle::api::ListPosition { partition: 77, number: 5 },
        ends: vec![u64::MAX; 9],
    };
    let done = bed.client.redrive(VALIDATE, Filter::default(), Some(far)).await.unwrap();
    assert_eq!((done.count, done.next), (0, None));
    let none = wattle::api::LetterProgress::default();
    let done = bed.client.redrive(VALIDATE, Filter::default(), Some(none)).await.unwrap();
    assert_eq!((done.count, done.next), (0, None));
    assert_eq!(dead(&bed.client, Filter::default()).await, "a");
}

#[tokio::test]
async fn a_redrive_that_finds_no_room_says_so_and_goes_on_later() {
    let bed = bed().await;
    let data: Vec<(String, String)> = (0..4).map(|number| (format!("e{number}"), format!("k{number}"))).collect();
    let events: Vec<_> = data.iter().map(|(id, key)| (id.as_str(), key.as_str(), "reject")).collect();
    publish(&bed, SMALL, &events).await;
    // what waits fills the set of two events
    let full: Vec<_> = data.iter().take(2).map(|(id, key)| (id.as_str(), key.as_str(), "fail")).collect();
    publish(&bed, SMALL, &full).await;
    let done = bed.client.redrive("small", Filter::default(), None).await.unwrap();
    assert_eq!(done.count, 0);
    let next = done.next.expect("there is more to do");
    assert_eq!(next.ends, [4]);
    bed.client.drop_waiting("small", Filter::default()).await.unwrap();
    let (mut redriven, mut from) = (0, Some(next));
    while let Some(next) = from {
        let done = bed.client.redrive("small", Filter::default(), Some(next)).await.unwrap();
        redriven += done.count;
        from = done.next;
    }
    assert_eq!(redriven, 4, "and not those that failed again meanwhile");
    settled(&bed.tree).await;
    assert_eq!(all(bed.client.dead_letters("small", Filter::default())).await.unwrap().len(), 4);
}

#[tokio::test]
async fn snapshots_are_taken_listed_gone_back_to_and_removed() {
    let bed = bed().await;
    publish(&bed, JOBS, &[("a", "k", "keep"), ("b", "l", "keep")]).await;
    let taken = bed.client.take_snapshot(WORK, 0, "in front of it").await.unwrap();
    assert_eq!((taken.number, taken.entries, taken.note.as_str()), (1, 2, "in front of it"));
    assert_eq!((taken.positions.iter().sum::<u64>(), taken.digest.as_str()), (2, "07".repeat(32).as_str()));
    assert!(taken.taken_ns > 0 && taken.bytes > 0);
    publish(&bed, JOBS, &[("c", "m", "keep"), ("d", "k", "emit")]).await;
    assert_eq!(bed.client.take_snapshot(WORK, 2, "").await.unwrap().number, 2);
    let listed = bed.client.snapshots(WORK).await.unwrap();
    assert_eq!((listed.len(), &listed[0]), (2, &taken));

    let seek = |number| Seek {
        to: SeekTo::Snapshot,
        partition: None,
        state: Some(SeekState::Snapshot(number)),
        drops_waiting: false,
        dry_run: false,
    };
    let moved = bed.client.seek(WORK, seek(1)).await.unwrap();
    assert_eq!(moved.iter().map(|moved| moved.to).collect::<Vec<_>>(), taken.positions);
    settled(&bed.tree).await;
    assert_eq!(in_topic(&bed, "jobs.done").await.split(' ').count(), 2, "`d` was handled again");
    bed.client.drop_snapshot(WORK, 2).await.unwrap();
    assert_eq!(bed.client.snapshots(WORK).await.unwrap(), [taken]);

    let long = "x".repeat(201);
    for (refused, code, reason) in [
        (bed.client.seek(WORK, seek(7)).await.map(drop), Code::NotFound, "UNKNOWN_SNAPSHOT"),
        (bed.client.drop_snapshot(WORK, 2).await, Code::NotFound, "UNKNOWN_SNAPSHOT"),
        (bed.client.take_snapshot("nobody", 0, "").await.map(drop), Code::NotFound, "UNKNOWN_SUBSCRIBER"),
        (bed.client.take_snapshot(WORK, 0, &long).await.map(drop), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            bed.client.seek(WORK, Seek { state: Some(SeekState::Keep), ..seek(1) }).await.map(drop),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
    ] {
        let Err(ClientError::Refused(refused)) = refused else { panic!("{reason}: {refused:?}") };
        assert_eq!((refused.code, refused.reason.as_str()), (code, reason));
    }
    bed.engine.storage.send_modify(|storage| storage.takes_events = false);
    let full = bed.client.take_snapshot(WORK, 0, "").await.unwrap_err();
    assert!(full.is_retryable() && full.has_no_side_effects(), "{full:?}");
    assert_eq!(bed.engine.snapshots().unwrap().list().unwrap().len(), 1, "what was begun is gone");
}
