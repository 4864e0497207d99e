//! The end of a bus, asked for or not: what was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use wattle::api::v1;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::client::{Client, Window};
use wattle::model::Event;

use super::bus::{Bus, wattle};
use crate::common::guests::guest_path;

fn event(id: String) -> Bytes {
    Event { id, source: "/s".into(), r#type: "t".into(), ..Event::default() }.encode()
}

/// Publishes until the bus has had enough. Returns the ids that were acknowledged.
async fn publish(address: String, name: u32) -> Vec<String> {
    let Ok(client) = Client::connect(&address).await else { return Vec::new() };
    let mut publishing = client.publishing("orders", Window { batches: 8, bytes: 1 << 20 });
    let mut sent = Vec::new();
    for batch in 0.. {
        let ids: Vec<String> = (0..10).map(|number| format!("{name}-{batch}-{number}")).collect();
        sent.extend(ids.clone());
        if publishing.send(ids.into_iter().map(event).collect()).await.is_err() {
            break;
        }
    }
    sent.truncate(publishing.answered_events() as usize);
    sent
}

fn stored(folder: &Path) -> Vec<String> {
    let bus = Bus::start(folder, &[]);
    let events = bus.run(&["tail", "orders"]).json();
    bus.stop();
    events.iter().map(|event| event["event"]["id"].as_str().unwrap().to_owned()).collect()
}

/// Puts a bus under load, ends it, and compares what it acknowledged with what is there after the next start.
async fn under_load(signal: &str, expected: Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), &[]);
    let producers: Vec<_> = (0..4).map(|name| tokio::spawn(publish(bus.address.clone(), name))).collect();
    // In the middle of it: when some of it is there.
    let enough = bus.run(&["tail", "orders", "--follow", "--from", "earliest", "-n", "500"]).ok();
    assert_eq!(enough.lines().count(), 500);
    bus.signal(signal);
    let (status, said) = bus.end();
    assert_eq!(status.code(), expected, "{said}");
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.extend(producer.await.unwrap());
    }
    assert!(acknowledged.len() >= 500, "{}", acknowledged.len());
    let stored = stored(folder.path());
    let distinct: BTreeSet<&String> = stored.iter().collect();
    assert_eq!(distinct.len(), stored.len(), "nothing is there twice");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !distinct.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_under_load_that_is_told_to_stop_keeps_what_it_acknowledged() {
    under_load("TERM", Some(0)).await;
    under_load("INT", Some(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_under_load_that_is_killed_keeps_what_it_acknowledged() {
    under_load("KILL", None).await;
}

/// A call that the bus can never end, since its caller takes no answers.
async fn unending_call(bus: &Bus) -> tonic::Streaming<v1::PublishResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{}", bus.address)).unwrap().initial_stream_window_size(0);
    let channel: Channel = endpoint.connect().await.unwrap();
    let request =
        v1::PublishStreamRequest { topic: "log".into(), events: vec![event("stuck".into())], numbering: None };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let answers = PublisherServiceClient::new(channel).publish_stream(requests).await.unwrap().into_inner();
    // The call is under way as soon as its event is there.
    bus.run(&["tail", "log", "--follow", "--from", "earliest", "-n", "1"]).ok();
    answers
}

/// A bus with a subscriber to `orders` that does what the data of each event says, so many in one call.
fn working(folder: &Path, batch: u32, more: &[&str]) -> Bus {
    let topology = format!(
        "wattle: v1\nname: shop\ntopics: {{ orders: {{ partitions: 4 }}, log: {{}}, done: {{}} }}\nsubscribers:\n  \
         work: {{ from: orders, plugin: {}, config: {{ describe: done }}, to: [done], batch: {{ max: {batch} }}, \
         limits: {{ time: 1h }} }}\n",
        guest_path("hostile").display()
    );
    std::fs::write(folder.join("work.yaml"), topology).unwrap();
    let mut command = wattle();
    command.arg("run").arg(folder.join("work.yaml")).arg("--data").arg(folder.join("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
    Bus::spawn(command)
}

/// Has the handler do something, and waits until it is at it.
fn have_it(bus: &mut Bus, work: &str) {
    bus.run_with(&["publish", "orders", "--plain", "--key", "k", "--file", "-"], &format!("log 1\n{work}\n")).ok();
    bus.wait_for("line 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    for (second, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let mut bus = working(folder.path(), 2, &["--drain-deadline", "1h"]);
        have_it(&mut bus, "loop");
        bus.run(&["publish", "orders", "--empty", "--id", "acknowledged"]).ok();
        bus.signal("TERM");
        bus.wait_for("nothing more is taken in");
        bus.signal(second);
        let (status, said) = bus.end();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(stored(folder.path()).iter().any(|id| id == "acknowledged"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_no_answers_takes_no_time_from_those_that_handle_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut bus = working(folder.path(), 1, &["--drain-deadline", "10s"]);
    let _call = unending_call(&bus).await;
    // More than can be done within the deadline, each in a call of its own.
    have_it(&mut bus, &["work 300000000"; 1_000].join("\n"));
    bus.signal("TERM");
    let (status, said) = bus.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("some callers took no answers"), "{said}");
    assert!(!said.contains("still being handled"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_what_does_not_end_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), &["--drain-deadline", "100ms"]);
    let _call = unending_call(&bus).await;
    bus.signal("TERM");
    let (status, said) = bus.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("some callers took no answers, or had none within 100ms"), "{said}");
}
