//! Bad input gets the right code, and harms nobody else.

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use wattle::api::v1::publisher_service_client::PublisherServiceClient;
use wattle::api::v1::reader_service_client::ReaderServiceClient;
use wattle::api::v1::{self, read_request};
use wattle::client::{ReadRequest, Start};
use wattle::limits;
use wattle::model::Event;

use super::bed::{CHILD, LOG, ORDERS, all_of, bed, event, id, read_all};

const NO_LIMIT: usize = usize::MAX;

async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn large(bytes: usize) -> Bytes {
    let data = wattle::model::event::Data::Binary(vec![0; bytes].into());
    Event { id: "1".into(), source: "/s".into(), r#type: "t".into(), data: Some(data), ..Event::default() }.encode()
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn refused_publishes_say_what_is_wrong_and_publish_nothing() {
    let bed = bed().await;
    let good = event("good", "k");
    let untyped = Event { id: "1".into(), source: "/s".into(), ..Event::default() }.encode();
    let blank = Event { id: "1".into(), source: "the shop".into(), r#type: "t".into(), ..Event::default() }.encode();
    let cases = vec![
        ("an unknown topic", "shop/nothing", vec![good.clone()], Code::NotFound, "UNKNOWN_TOPIC", "", "no topic"),
        ("a misspelt one", "shop/ordres", vec![good.clone()], Code::NotFound, "UNKNOWN_TOPIC", "", "did you mean"),
        ("no topic", "", vec![good.clone()], Code::NotFound, "UNKNOWN_TOPIC", "", "no topic"),
        ("a child", CHILD, vec![good.clone()], Code::FailedPrecondition, "NOT_A_ROOT", "", "shop/validate"),
        ("two of a name", "log", vec![good.clone()], Code::InvalidArgument, "AMBIGUOUS_TOPIC", "topic", "other/log"),
        (
            "no event",
            ORDERS,
            vec![good.clone(), Bytes::from_static(b"\xff\xff")],
            Code::InvalidArgument,
            "INVALID_EVENT",
            "events[1]",
            "CloudEvent",
        ),
        ("no URI", ORDERS, vec![blank], Code::InvalidArgument, "INVALID_EVENT", "events[0]", "`source` is not a URI"),
        ("no type", ORDERS, vec![untyped], Code::InvalidArgument, "INVALID_EVENT", "events[0]", "`type`"),
        (
            "a large event",
            ORDERS,
            vec![good.clone(), good.clone(), large(limits::EVENT_BYTES_MAX)],
            Code::InvalidArgument,
            "EVENT_TOO_LARGE",
            "events[2]",
            "1048576",
        ),
        (
            "a long key",
            ORDERS,
            vec![event("1", &"k".repeat(2000))],
            Code::InvalidArgument,
            "INVALID_KEY",
            "events[0]",
            "1024",
        ),
        (
            "many events",
            ORDERS,
            vec![good.clone(); limits::PUBLISH_EVENTS_MAX + 1],
            Code::InvalidArgument,
            "TOO_MANY_EVENTS",
            "events",
            "10000",
        ),
        (
            "a large message",
            ORDERS,
            vec![large(900 << 10); 10],
            Code::ResourceExhausted,
            "TOO_LARGE",
            "",
            "8388608 bytes",
        ),
    ];
    let mut client = PublisherServiceClient::new(channel(&bed.address).await).max_encoding_message_size(NO_LIMIT);
    for (name, topic, events, code, why, field, words) in cases {
        let stream = tokio_stream::iter([
            v1::PublishStreamRequest { topic: LOG.into(), events: vec![event("before", "k")], numbering: None },
            v1::PublishStreamRequest { topic: topic.into(), events: events.clone(), numbering: None },
            v1::PublishStreamRequest { topic: LOG.into(), events: vec![event("after", "k")], numbering: None },
        ]);
        let unary =
            client.publish(v1::PublishRequest { topic: topic.into(), events, numbering: None }).await.unwrap_err();
        let mut answers = client.publish_stream(stream).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some(), "{name}: what came before is answered");
        // "" means the topic of the request before to a stream
        let streamed = if topic.is_empty() { unary.clone() } else { answers.message().await.unwrap_err() };
        for status in [unary, streamed] {
            assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{name}: {status}");
            assert!(status.message().contains(words), "{name}: {}", status.message());
            assert_eq!(fields(&status).join(","), field, "{name}");
        }
    }
    assert!(read_all(&bed.client, all_of(ORDERS)).await.is_empty());
    // what followed a refusal on its stream was not published either; of the case without a topic, it was
    let ids: Vec<String> = read_all(&bed.client, all_of(LOG)).await.iter().map(|event| id(&event.event)).collect();
    assert_eq!(ids.iter().filter(|id| *id == "before").count(), 12);
    assert_eq!(ids.iter().filter(|id| *id == "after").count(), 1);
}

#[tokio::test]
async fn refused_reads_say_what_is_wrong() {
    let bed = bed().await;
    let published = bed.client.publish(LOG, vec![event("a", "k"), event("b", "k")]).await.unwrap();
    let position = |partition, offset, epoch| {
        let positions = vec![v1::Position { partition, offset, epoch }];
        Some(read_request::Start::Positions(read_request::Positions { positions }))
    };
    let time = |seconds, nanos| Some(read_request::Start::Time(prost_types::Timestamp { seconds, nanos }));
    let cases = [
        ("an unknown topic", "nothing", vec![], None, Code::NotFound, "UNKNOWN_TOPIC"),
        ("an unknown partition", LOG, vec![1], None, Code::InvalidArgument, "UNKNOWN_PARTITION"),
        ("beyond the end", LOG, vec![], position(0, 3, None), Code::FailedPrecondition, "POSITION_BEYOND_END"),
        ("another epoch", LOG, vec![], position(0, 2, Some(published.epoch + 1)), Code::DataLoss, "POSITION_LOST"),
        ("before 1970", LOG, vec![], time(-1, 0), Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("too many nanoseconds", LOG, vec![], time(0, 1_000_000_000), Code::InvalidArgument, "INVALID_ARGUMENT"),
    ];
    let mut client = ReaderServiceClient::new(channel(&bed.address).await);
    for (name, topic, partitions, start, code, why) in cases {
        let request = v1::ReadRequest { topic: topic.into(), partitions, start, ..v1::ReadRequest::default() };
        let status = client.read(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{name}: {status}");
    }
    let request = v1::ReadRequest {
        topic: LOG.into(),
        start: position(0, 2, Some(published.epoch)),
        ..v1::ReadRequest::default()
    };
    client.read(request).await.expect("the position that was published");
}

/// Sends bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn call(address: &str, path: &'static str, body: Bytes) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel(address).await);
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(body), PathAndQuery::from_static(path), Raw).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_message_of_the_contract_is_refused() {
    let bed = bed().await;
    for body in [&b"\xff\xff\xff\xff"[..], b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0f"] {
        let body = Bytes::from_static(body);
        let status = call(&bed.address, "/wattle.v1.PublisherService/Publish", body).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    for path in ["/wattle.v1.PublisherService/Delete", "/wattle.v9.PublisherService/Publish", "/"] {
        assert_eq!(call(&bed.address, path, Bytes::new()).await.code(), Code::Unimplemented, "{path}");
    }
    bed.client.publish(LOG, vec![event("good", "k")]).await.expect("others are not harmed");
}

#[tokio::test]
async fn arbitrary_bytes_never_stop_the_service() {
    let bed = bed().await;
    let mut grpc = tonic::client::Grpc::new(channel(&bed.address).await);
    // A generator of its own, so that a failure can be run again.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for round in 0..2_000 {
        let mut body = v1_request().to_vec();
        for _ in 0..1 + round % 5 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % body.len();
            body[at] = (state >> 25) as u8;
        }
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/wattle.v1.PublisherService/Publish");
        if let Err(status) = grpc.unary(Request::new(Bytes::from(body)), path, Raw).await {
            let expected = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition];
            assert!(expected.contains(&status.code()), "round {round}: {status}");
        }
    }
    bed.client.publish(LOG, vec![event("good", "k")]).await.unwrap();
}

fn v1_request() -> Bytes {
    use prost::Message;
    let events = vec![event("a", "k"), event("b", "l")];
    let numbering = Some(v1::Numbering { producer: "till-7".into(), first_sequence: 17, began: None });
    v1::PublishRequest { topic: ORDERS.into(), events, numbering }.encode_to_vec().into()
}

#[tokio::test]
async fn others_go_on_while_someone_sends_nonsense() {
    let bed = bed().await;
    let (client, address) = (bed.client.clone(), bed.address.clone());
    let good = tokio::spawn(async move {
        let mut publishing = client.publishing(LOG, wattle::client::Window::default());
        for number in 0..500 {
            publishing.send(vec![event(number.to_string(), "k")]).await.unwrap();
        }
        publishing.finish().await.unwrap();
    });
    let bad = tokio::spawn(async move {
        for _ in 0..100 {
            let body = Bytes::from_static(b"\xff\xff");
            call(&address, "/wattle.v1.PublisherService/Publish", body).await;
        }
    });
    let mut reading = bed.client.read(ReadRequest { follow: true, limit: Some(500), ..all_of(LOG) }).await.unwrap();
    let mut ids = Vec::new();
    while let Some(events) = reading.next().await.unwrap() {
        ids.extend(events.iter().map(|event| id(&event.event)));
    }
    assert_eq!(ids, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
    good.await.unwrap();
    bad.await.unwrap();
    let from_the_end = ReadRequest { start: Start::Latest, ..all_of(LOG) };
    assert!(read_all(&bed.client, from_the_end).await.is_empty());
}
