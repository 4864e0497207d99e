//! Rules and certificates that change while the bus runs, and the record of who has changed what.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use wattle::api::v1::admin_service_client::AdminServiceClient;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::api::v1::reader_service_client::ReaderServiceClient;
use wattle::api::v1::subscriber_service_client::SubscriberServiceClient;
use wattle::api::v1::topology_service_client::TopologyServiceClient;
use wattle::api::{Digest, v1};
use wattle::dispatch::AUDIT_TOPIC;
use wattle::model::Event;
use wattle::server::{Tls, TlsTexts};

use super::bed::{Authority, House, SUBSCRIBER, TOPIC, rules, token};
use crate::common::trees::event;

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let bearer: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

fn file(may: &str, expires: &str) -> String {
    format!(
        "wattle: access/v1\nprincipals:\n  ada: {{ token: \"{}\"{expires} }}\nrules:\n  - {{ who: [ada], may: [{may}], \
         topics: [\"*/*\"] }}\n",
        token(1).1
    )
}

async fn ended<T>(stream: &mut tonic::Streaming<T>) -> Status {
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), end).await.expect("the stream ends")
}

fn follow() -> v1::ReadRequest {
    v1::ReadRequest { topic: TOPIC.to_owned(), follow: true, ..v1::ReadRequest::default() }
}

#[tokio::test]
async fn streams_end_when_their_caller_loses_the_right() {
    let house = House::open(&file("read, publish", ""), "").await;
    let channel = house.connect(None).await.unwrap();
    let token = token(1).0;
    let mut reading =
        ReaderServiceClient::new(channel.clone()).read(with(follow(), &token)).await.unwrap().into_inner();
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let requests = with(tokio_stream::wrappers::ReceiverStream::new(requests), &token);
    let mut publisher = PublisherServiceClient::new(channel.clone());
    let publish = |id: &str| v1::PublishStreamRequest {
        topic: TOPIC.to_owned(),
        events: vec![event(id, "a", "x")],
        ..v1::PublishStreamRequest::default()
    };
    sender.send(publish("1")).await.unwrap();
    let mut published = publisher.publish_stream(requests).await.unwrap().into_inner();
    assert!(published.message().await.unwrap().is_some());

    // Without a change of its rights nothing ends.
    house.gate.replace(rules(&file("publish, read", ""), ""));
    sender.send(publish("2")).await.unwrap();
    assert!(published.message().await.unwrap().is_some());

    house.gate.replace(rules(&file("publish", ""), ""));
    assert_eq!(ended(&mut reading).await.code(), Code::PermissionDenied);
    house.gate.replace(rules(&file("read", ""), ""));
    assert_eq!(ended(&mut published).await.code(), Code::PermissionDenied);
    let again = ReaderServiceClient::new(channel.clone()).read(with(follow(), &token)).await;
    let mut reading = again.unwrap().into_inner();
    house.gate.replace(rules("wattle: access/v1\nprincipals: {}\nrules: []\n", ""));
    assert_eq!(ended(&mut reading).await.code(), Code::Unauthenticated, "the token is gone");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    // A second before the token expires, by the clock of the bus.
    let house = House::open(&file("read", ", expires: 2027-01-16T00:00:00Z"), "").await;
    house.set_clock(EXPIRES_S - 1);
    let channel = house.connect(None).await.unwrap();
    let mut reading = ReaderServiceClient::new(channel).read(with(follow(), &token(1).0)).await.unwrap().into_inner();
    house.set_clock(EXPIRES_S);
    assert_eq!(ended(&mut reading).await.code(), Code::Unauthenticated);
}

/// The same second as in the access file above.
const EXPIRES_S: u64 = 1_800_057_600;

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_the_open_ones_go_on() {
    let mut house = House::open(&file("inspect", ""), "").await;
    let before = house.connect(None).await.unwrap();
    let list = async |channel| {
        AdminServiceClient::new(channel).list_topics(with(v1::ListTopicsRequest {}, &token(1).0)).await.map(drop)
    };
    list(before.clone()).await.unwrap();
    let renewed = Authority::new();
    house.tls.replace(&House::texts(&renewed)).unwrap();
    list(before.clone()).await.unwrap();
    house.connect(None).await.expect_err("the client knows the old authority only");
    house.authority = renewed;
    list(house.connect(None).await.unwrap()).await.unwrap();

    // A pair that does not fit changes nothing.
    let other = Authority::new();
    let unfit = TlsTexts { key: other.issue("localhost", false).key.into_bytes(), ..House::texts(&other) };
    assert!(house.tls.replace(&unfit).is_err());
    assert!(Tls::new(&TlsTexts { certificate: b"no PEM".to_vec(), ..House::texts(&other) }).is_err());
    list(house.connect(None).await.unwrap()).await.unwrap();
    list(before).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_one_that_is_over_gives_no_call() {
    let text = "wattle: access/v1\nprincipals:\n  ada: { certificate: \"spiffe://test/ada\" }\nrules:\n  - { who: \
                [ada], may: [inspect], topics: [\"*/*\"] }\n";
    let house = House::open(text, "").await;
    let list = async |identity| match house.connect(Some(&identity)).await {
        Ok(channel) => AdminServiceClient::new(channel).list_topics(v1::ListTopicsRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(list(house.authority.issue("spiffe://test/ada", false)).await);
    assert!(!list(house.authority.issue("spiffe://test/ada", true)).await, "expired");
    assert!(!list(Authority::new().issue("spiffe://test/ada", false)).await, "of another authority");
    assert!(!list(house.authority.issue("spiffe://test/adax", false)).await, "another name");
}

/// The audit records, oldest first.
async fn records(house: &House) -> Vec<Value> {
    let topic = house.bus.tree.topic(AUDIT_TOPIC).unwrap();
    let partition = wattle::model::PartitionId { topic: topic.number(), partition: 0 };
    let budget = wattle::engine::ReadBudget { events: 1_000, bytes: 1 << 20 };
    use wattle::engine::Engine;
    let chunks = house.bus.tree.engine().read(partition, 0, budget).await.unwrap();
    let stored = chunks.iter().flat_map(|chunk| chunk.iter());
    let data = stored.map(|stored| {
        let record = wattle::model::Record::parse(stored.record).unwrap();
        let event = Event::decode(record.event).unwrap();
        serde_json::from_slice(event.data.unwrap().as_bytes()).unwrap()
    });
    data.collect()
}

#[tokio::test]
async fn a_change_is_recorded_before_its_answer_and_so_are_denials() {
    let text = format!(
        "wattle: access/v1\nprincipals:\n  ada: {{ token: \"{}\" }}\n  bob: {{ token: \"{}\" }}\nrules:\n  - {{ who: \
         [ada], may: [operate], subscribers: [\"t/*\"] }}\n  - {{ who: [bob], may: [inspect], subscribers: [\"t/*\"] \
         }}\n",
        token(1).1,
        token(2).1
    );
    let house = House::open(&text, "").await;
    let mut client = SubscriberServiceClient::new(house.connect(None).await.unwrap());
    let (ada, bob) = (token(1).0, token(2).0);
    let pause = || v1::PauseRequest { subscriber: "work".to_owned() };
    client.pause(with(pause(), &ada)).await.unwrap();
    let made = records(&house).await;
    assert_eq!(made.len(), 1, "{made:#?}");
    let expected = json!({
        "who": "ada", "call": "/wattle.v1.SubscriberService/Pause", "request": { "subscriber": SUBSCRIBER },
        "decision": "allowed", "outcome": "OK", "from": made[0]["from"],
    });
    assert_eq!(made[0], expected);

    // What only looks is not recorded, and what is refused for another reason is.
    client.list_snapshots(with(v1::ListSnapshotsRequest { subscriber: "work".to_owned() }, &bob)).await.unwrap();
    let drop = v1::DropSnapshotRequest { subscriber: "work".to_owned(), number: 7 };
    client.drop_snapshot(with(drop, &ada)).await.unwrap_err();
    let refused = records(&house).await.pop().unwrap();
    assert_eq!((&refused["decision"], &refused["request"]["number"]), (&json!("allowed"), &json!("7")));
    assert_ne!(refused["outcome"], json!("OK"));

    // Denials: of a principal without the right, and of nobody.
    client.pause(with(pause(), &bob)).await.unwrap_err();
    let denied = records(&house).await.pop().unwrap();
    assert_eq!((&denied["decision"], &denied["who"]), (&json!("denied"), &json!("bob")));
    client.pause(Request::new(pause())).await.unwrap_err();
    let denied = records(&house).await.pop().unwrap();
    assert_eq!((&denied["decision"], &denied["who"]), (&json!("denied"), &json!("anonymous")));

    // The records are for those only who may read them, and come from the bus only.
    let read = v1::ReadRequest { topic: AUDIT_TOPIC.to_owned(), ..v1::ReadRequest::default() };
    let mut reader = ReaderServiceClient::new(house.connect(None).await.unwrap());
    assert_eq!(reader.read(with(read, &bob)).await.unwrap_err().code(), Code::PermissionDenied);
    let all = text.replace("may: [inspect], subscribers: [\"t/*\"]", "may: [read, publish], topics: [\"*/*\"]");
    house.gate.replace(rules(&all, ""));
    let read = v1::ReadRequest { topic: AUDIT_TOPIC.to_owned(), ..v1::ReadRequest::default() };
    let mut reading = reader.read(with(read, &bob)).await.unwrap().into_inner();
    assert!(reading.message().await.unwrap().is_some());
    let mut publisher = PublisherServiceClient::new(house.connect(None).await.unwrap());
    let forged = v1::PublishRequest {
        topic: AUDIT_TOPIC.to_owned(),
        events: vec![event("1", "a", "x")],
        ..v1::PublishRequest::default()
    };
    assert_eq!(publisher.publish(with(forged, &bob)).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_topology_is_judged_by_its_namespaces() {
    let file = || {
        format!(
            "wattle: access/v1\nprincipals:\n  ada: {{ token: \"{}\" }}\nrules:\n  - {{ who: [ada], may: [apply], \
             topics: [\"u/*\"], subscribers: [\"u/*\"] }}\n",
            token(1).1
        )
    };
    let house = House::open(&file(), "").await;
    let mut client = TopologyServiceClient::new(house.connect(None).await.unwrap());
    let mut planned = async |document: &str, component: Option<&str>| {
        let component = component.map(|name| (name.to_owned(), Digest::of(b"nothing").to_string()));
        let topology = v1::Topology {
            documents: vec![document.to_owned()],
            components: component.into_iter().collect(),
            ..v1::Topology::default()
        };
        let request = v1::PlanTopologyRequest { topology: Some(topology) };
        client.plan_topology(with(request, &token(1).0)).await.unwrap_err()
    };
    let foreign =
        "wattle: v1\nname: t\ntopics: { in: {}, more: {} }\nsubscribers: { more: { from: more, plugin: /a.wasm } }\n";
    assert_eq!(planned(foreign, Some("t/more")).await.code(), Code::PermissionDenied);

    let own = "wattle: v1\nname: u\ntopics: { a: {} }\nsubscribers: { own: { from: a, plugin: /a.wasm } }\n";
    assert_eq!(planned(own, Some("u/own")).await.code(), Code::NotFound, "the component is not uploaded");
    let reserved = "wattle: v1\nname: wattle\ntopics: { a: {} }\nsubscribers: { own: { from: a, plugin: /a.wasm } }\n";
    assert_eq!(planned(reserved, Some("wattle/own")).await.code(), Code::PermissionDenied);
    house.gate.replace(rules(&file().replace("u/*", "*/*"), ""));
    let refused = planned(reserved, None).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("reserved"), "{refused:?}");

    // A subscriber would give the events of a topic to whoever writes its handler: there is none in another namespace.
    let spy = "wattle: v1\nname: u\ntopics: {}\nsubscribers: { spy: { from: t/in, plugin: /a.wasm } }\n";
    let refused = planned(spy, None).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("t/in"), "{refused:?}");
}

#[tokio::test]
async fn a_principal_over_its_limits_is_refused_and_others_are_not() {
    let text = format!(
        "wattle: access/v1\nprincipals:\n  ci: {{ token: \"{}\" }}\n  ada: {{ token: \"{}\" }}\nrules:\n  - {{ who: \
         [ci, ada], may: [inspect, publish], topics: [\"*/*\"] }}\nlimits:\n  ci: {{ connections: 1, publish: 1KiB/s \
         }}\n",
        token(1).1,
        token(2).1
    );
    let house = House::open(&text, "").await;
    let (first, second) = (house.connect(None).await.unwrap(), house.connect(None).await.unwrap());
    let list = async |channel: &tonic::transport::Channel, number| {
        let request = with(v1::ListTopicsRequest {}, &token(number).0);
        AdminServiceClient::new(channel.clone()).list_topics(request).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(list(&first, 1).await, Ok(()));
    assert_eq!(list(&first, 1).await, Ok(()), "the connection counts once");
    assert_eq!(list(&second, 1).await, Err(Code::ResourceExhausted));
    assert_eq!(list(&second, 2).await, Ok(()), "another principal on it");

    let publish = async |number: u8, id: &str| {
        let events = vec![event(id, "a", &"x".repeat(8 << 10))];
        let request = v1::PublishRequest { topic: TOPIC.to_owned(), events, ..v1::PublishRequest::default() };
        let published = PublisherServiceClient::new(first.clone()).publish(with(request, &token(number).0)).await;
        published.map(drop).map_err(|status| status.code())
    };
    assert_eq!(publish(1, "1").await, Ok(()), "eight seconds' worth");
    assert_eq!(publish(1, "2").await, Err(Code::ResourceExhausted));
    assert_eq!(publish(2, "3").await, Ok(()));
    // A connection that ends is given back.
    drop(first);
    let again = async {
        while list(&second, 1).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("its place is free");
}
