//! The end of a service: what was admitted is answered, everything else is told to go away.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wattle::api::v1;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::client::{Client, ClientError, ReadRequest, Window};

use super::bed::{Gate, LOG, all_of, bed, event, read_all};

const LONG: Duration = Duration::from_secs(60);

fn code(error: &ClientError) -> Code {
    match error {
        ClientError::Refused(refused) => refused.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn health_says_not_serving_before_anything_is_refused() {
    let bed = bed().await;
    bed.engine.gate.send_replace(Gate::Shut);
    let client = bed.client.clone();
    let admitted = tokio::spawn(async move { client.publish(LOG, vec![event("a", "k")]).await });
    bed.engine.arrivals(1).await;

    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", bed.address)).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    for service in ["", "wattle.v1.PublisherService", "wattle.v1.ReaderService", "wattle.v1.AdminService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service:?} is SERVING");
    }
    let mut watching = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status, 1);

    let stopping = tokio::spawn(bed.server.stop(LONG));
    assert_eq!(watching.message().await.unwrap().unwrap().status, 2, "NOT_SERVING");
    // The connection is still there, and so is the call that was admitted.
    bed.engine.gate.send_replace(Gate::Open);
    assert_eq!(admitted.await.unwrap().unwrap().places.len(), 1);
    assert!(stopping.await.unwrap(), "everything was answered");
    assert!(watching.message().await.map_or(true, |message| message.is_none()), "watching has ended");
    assert!(Client::connect(&bed.address).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_stream_is_answered_up_to_where_it_was_taken_and_then_told() {
    let bed = bed().await;
    bed.engine.gate.send_replace(Gate::Shut);
    let mut publishing = bed.client.publishing(LOG, Window { batches: 5, bytes: 1 << 20 });
    for number in 0..5 {
        publishing.send(vec![event(number.to_string(), "k")]).await.unwrap();
    }
    bed.engine.arrivals(5).await;
    let stopping = tokio::spawn(bed.server.stop(LONG));
    bed.engine.gate.send_replace(Gate::Open);
    let error = loop {
        if let Err(error) = publishing.send(vec![event("late", "k")]).await {
            break error;
        }
    };
    assert_eq!(code(&error), Code::Unavailable, "{error}");
    assert!(error.is_retryable());
    assert!(publishing.answered_events() >= 5);
    assert!(stopping.await.unwrap());
}

#[tokio::test]
async fn followers_are_told_to_come_back() {
    let bed = bed().await;
    let mut reading = bed.client.read(ReadRequest { follow: true, ..all_of(LOG) }).await.unwrap();
    let waiting = tokio::spawn(async move { reading.next().await });
    assert!(bed.server.stop(LONG).await);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(code(&error), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn what_never_answers_does_not_hold_up_the_end_past_its_deadline() {
    let bed = bed().await;
    bed.engine.gate.send_replace(Gate::Shut);
    let client = bed.client.clone();
    let stuck = tokio::spawn(async move { client.publish(LOG, vec![event("a", "k")]).await });
    bed.engine.arrivals(1).await;
    assert!(!bed.server.stop(Duration::from_millis(20)).await, "it says that something was left");
    let error = stuck.await.unwrap().unwrap_err();
    assert!(!error.has_no_side_effects(), "{error}");
}

#[tokio::test]
async fn idle_connections_and_idle_streams_do_not_hold_up_the_end() {
    let bed = bed().await;
    let others: Vec<Client> = futures(&bed.address, 5).await;
    let mut idle = others[0].publishing(LOG, Window { batches: 5, bytes: 1 << 20 });
    idle.send(vec![event("a", "k")]).await.unwrap();
    bed.engine.arrivals(1).await;
    let _silent = tokio::net::TcpStream::connect(&bed.address).await.unwrap();
    for other in &others {
        assert_eq!(read_all(other, all_of(LOG)).await.len(), 1);
    }
    assert!(bed.server.stop(LONG).await);
}

#[tokio::test]
async fn a_caller_that_takes_no_answers_does_not_hold_up_the_end() {
    let bed = bed().await;
    // HTTP/2 lets nothing through to it.
    let endpoint = Endpoint::from_shared(format!("http://{}", bed.address)).unwrap().initial_stream_window_size(0);
    let mut publisher = PublisherServiceClient::new(endpoint.connect().await.unwrap());
    let request = v1::PublishStreamRequest { topic: LOG.into(), events: vec![event("stuck", "k")], numbering: None };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let _answers = publisher.publish_stream(requests).await.unwrap().into_inner();
    bed.engine.arrivals(1).await;
    let begin = Instant::now();
    assert!(!bed.server.stop(LONG).await, "it says that somebody was not answered");
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
}

async fn futures(address: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(address).await.unwrap());
    }
    clients
}
