//! Expressions and schemas that ask for more than there is, on a service that has one thread.

use bytes::Bytes;
use tonic::Code;
use wattle::client::ClientError;
use wattle::model::Event;
use wattle::model::event::Data;

use super::bed::{LOG, bed, event};

fn with_data(id: String, data: &str) -> Bytes {
    let data = Some(Data::Text(data.to_owned()));
    Event { id, source: "/test".into(), r#type: "test".into(), data, ..Event::default() }.encode()
}

/// Each takes as long as its budget is.
fn long(count: usize) -> Vec<(&'static str, Vec<Bytes>)> {
    let zeros = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(999));
    let nested = "[".repeat(60) + &"]".repeat(60);
    let of = |data: &str| (0..count).map(|number| with_data(number.to_string(), data)).collect();
    vec![("shop/searched", of(&zeros)), ("shop/branching", of(&nested))]
}

fn words(error: ClientError) -> (Code, String) {
    let words = error.to_string();
    match error {
        ClientError::Refused(refused) => (refused.code, words),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_takes_more_steps_than_it_may_is_refused_by_its_place_and_the_number() {
    let bed = bed().await;
    for (topic, events) in long(1) {
        let (code, words) = words(bed.client.publish(topic, events).await.unwrap_err());
        assert_eq!(code, Code::InvalidArgument, "{topic}: {words}");
        assert!(words.contains("steps that it may take for this event"), "{topic}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn beside_calls_that_take_long_others_are_answered() {
    let bed = bed().await;
    // a third of the budget for each event
    let zeros = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(16));
    let events: Vec<Bytes> = (0..40).map(|number| with_data(number.to_string(), &zeros)).collect();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (client, events) = (bed.client.clone(), events.clone());
            tokio::spawn(async move { client.publish("shop/searched", events).await.unwrap().places.len() })
        })
        .collect();
    let mut answered = 0;
    while calls.iter().any(|call| !call.is_finished()) {
        bed.client.status().await.unwrap();
        bed.client.publish(LOG, vec![event(answered.to_string(), "k")]).await.unwrap();
        answered += 1;
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), 40);
    }
    assert!(answered >= 20, "{answered} others meanwhile: they waited");
}
