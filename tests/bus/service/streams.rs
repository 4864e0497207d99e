//! What comes behind a refusal on its stream is not published, however late the refusal is.

use tonic::Code;
use tonic_types::StatusExt;
use wattle::api::Numbering;
use wattle::api::v1;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;

use super::bed::{Bed, Gate, STEPS, all_of, bed, id, read_all, step};

fn till(first_sequence: u64) -> Numbering {
    Numbering { producer: "till-7".into(), first_sequence, began_ns: None }
}

fn request(events: &[bytes::Bytes], numbering: Option<Numbering>) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest { topic: STEPS.into(), events: events.to_vec(), numbering: numbering.map(Into::into) }
}

async fn ids(bed: &Bed) -> Vec<String> {
    read_all(&bed.client, all_of(STEPS)).await.iter().map(|event| id(&event.event)).collect()
}

/// Sends these, and has the engine answer none of them before all have come to it. The status that ends the stream.
async fn refused(bed: &Bed, requests: Vec<v1::PublishStreamRequest>) -> tonic::Status {
    bed.engine.gate.send_replace(Gate::Shut);
    let come = *bed.engine.arrived.borrow() + requests.len();
    let mut client = PublisherServiceClient::connect(format!("http://{}", bed.address)).await.unwrap();
    let mut answers = client.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    bed.engine.arrivals(come).await;
    bed.engine.gate.send_replace(Gate::Open);
    loop {
        match answers.message().await {
            Ok(answer) => assert!(answer.is_some(), "it ends with a refusal"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn what_follows_the_late_refusal_of_a_guard_is_not_published() {
    let bed = bed().await;
    let requests = vec![
        request(&[step("0", "z", "created")], None),
        request(&[step("1", "a", "paid")], None),
        request(&[step("2", "b", "created")], None),
    ];
    let status = refused(&bed, requests).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "LIFECYCLE");
    assert_eq!(ids(&bed).await, ["0"], "what is in front of the refusal is there");
    // it is over with that stream
    bed.client.publish(STEPS, vec![step("3", "b", "created")]).await.unwrap();
    assert_eq!(ids(&bed).await, ["0", "3"]);
}

#[tokio::test]
async fn numbers_that_were_refused_are_not_passed_over() {
    let bed = bed().await;
    let paid: Vec<_> = (1..=10).map(|number| step(&number.to_string(), &format!("key {number}"), "paid")).collect();
    let behind: Vec<_> =
        (11..=20).map(|number| step(&number.to_string(), &format!("key {number}"), "created")).collect();
    let requests = vec![request(&paid, Some(till(1))), request(&behind, Some(till(11)))];
    assert_eq!(refused(&bed, requests).await.code(), Code::FailedPrecondition);
    let missing = (1..=10).map(|number| step(&format!("created {number}"), &format!("key {number}"), "created"));
    bed.client.publish(STEPS, missing.collect()).await.unwrap();
    let again = bed.client.publish_numbered(STEPS, paid, till(1)).await.unwrap();
    assert_eq!(again.duplicates(), 0);
    assert_eq!(bed.client.publish_numbered(STEPS, behind, till(11)).await.unwrap().duplicates(), 0);
    assert_eq!(ids(&bed).await.len(), 30);
}
