//! Events that somebody has damaged: never a panic, and never two answers about what they are.
//!
//! 150 cases each; `PROPTEST_CASES` says how many more, `WATTLE_SEED` which ones.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use wattle::client::ClientError;
use wattle::model::event::Data;
use wattle::model::json::{from_json, to_json};
use wattle::model::{Attribute, Event, EventView};

use super::bed::{LOG, all_of, bed, read_all};
use crate::common::events::{canonical, cases, event, json, seed, text};
use crate::common::random::Random;

/// The event as a library reads it that is made from the contract.
#[derive(Clone, PartialEq, Message)]
struct CloudEvent {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    spec_version: String,
    #[prost(string, tag = "4")]
    r#type: String,
    #[prost(map = "string, message", tag = "5")]
    attributes: HashMap<String, AttributeValue>,
    #[prost(oneof = "Payload", tags = "6, 7, 8")]
    data: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Payload {
    #[prost(bytes, tag = "6")]
    Binary(Vec<u8>),
    #[prost(string, tag = "7")]
    Text(String),
    #[prost(message, tag = "8")]
    Proto(prost_types::Any),
}

#[derive(Clone, PartialEq, Message)]
struct AttributeValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 7")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(bool, tag = "1")]
    Boolean(bool),
    #[prost(int32, tag = "2")]
    Integer(i32),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(bytes, tag = "4")]
    Bytes(Vec<u8>),
    #[prost(string, tag = "5")]
    Uri(String),
    #[prost(string, tag = "6")]
    UriRef(String),
    #[prost(message, tag = "7")]
    Timestamp(prost_types::Timestamp),
}

impl CloudEvent {
    /// The same as this project has it.
    fn event(self) -> Event {
        let attribute = |value: AttributeValue| match value.value.expect("a value") {
            Value::Boolean(value) => Attribute::Boolean(value),
            Value::Integer(value) => Attribute::Integer(value),
            Value::String(value) => Attribute::String(value),
            Value::Bytes(value) => Attribute::Bytes(value),
            Value::Uri(value) => Attribute::Uri(value),
            Value::UriRef(value) => Attribute::UriRef(value),
            Value::Timestamp(time) => {
                let nanosecond = u32::try_from(time.nanos).expect("nanoseconds");
                Attribute::Timestamp(wattle::model::Time::new(time.seconds, nanosecond).expect("a time"))
            }
        };
        assert_eq!(self.spec_version, "1.0");
        Event {
            id: self.id,
            source: self.source,
            r#type: self.r#type,
            attributes: self.attributes.into_iter().map(|(name, value)| (name, attribute(value))).collect(),
            data: self.data.map(|data| match data {
                Payload::Binary(bytes) => Data::Binary(bytes.into()),
                Payload::Text(text) => Data::Text(text),
                Payload::Proto(_) => panic!("it is refused"),
            }),
        }
    }
}

/// Some bytes of it are others, gone, or there twice.
fn damaged(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let more = random.below(12) as usize;
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1 << random.below(8)),
            2 => drop(bytes.drain(at..(at + more).min(bytes.len()))),
            3 => {
                let again = bytes[at..(at + more).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes.insert(at, random.next() as u8),
        }
    }
    bytes
}

/// Fields of a message, in any order and as often as it comes.
fn shuffled(random: &mut Random, event: &Event, other: &Event) -> Vec<u8> {
    let mut bytes = event.encode().to_vec();
    if random.one_in(3) {
        bytes.extend_from_slice(&other.encode());
    }
    if random.one_in(3) {
        let mut field = vec![(random.below(128)) as u8];
        field.extend((0..random.below(6)).map(|_| random.next() as u8));
        bytes.extend_from_slice(&field);
    }
    bytes
}

/// What a mutated message is, if it is taken.
fn taken(bytes: &[u8]) -> bool {
    let Ok(view) = EventView::accept(bytes) else { return false };
    let event = Event::decode(bytes).expect("what is taken can be read");
    let elsewhere = CloudEvent::decode(bytes).expect("what is taken can be read by every library");
    assert_eq!(elsewhere.event(), event);
    assert_eq!((view.id, view.source, view.r#type), (event.id.as_str(), event.source.as_str(), event.r#type.as_str()));
    assert_eq!(view.data, event.data.as_ref().map(Data::as_bytes));
    let subject = event.attributes.get("subject").map(ToString::to_string);
    assert_eq!(view.subject, subject.as_deref());
    let attributes = view.attributes().map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(attributes.collect::<std::collections::BTreeMap<_, _>>(), event.attributes);
    // and it is the same in the other format
    let printed = serde_json::to_string(&to_json(&event)).unwrap();
    assert_eq!(canonical(&from_json(&printed).unwrap()), canonical_in_json(&event), "{printed}");
    true
}

/// In JSON a `time` that was a text is a time.
fn canonical_in_json(event: &Event) -> (String, String, String, Vec<(String, String)>, Option<Bytes>) {
    let mut event = event.clone();
    if let Some(time) = event.attributes.get_mut("time") {
        *time = Attribute::of_text("time", time.to_string()).unwrap();
    }
    canonical(&event)
}

#[test]
fn bytes_of_an_event_are_what_every_library_says_or_are_refused() {
    let (seed, count) = (seed(), cases(150));
    eprintln!("{count} cases of WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut seen = [0; 2];
    for number in 0..count {
        let (one, other) = (event(&mut random, number), event(&mut random, number));
        let bytes = shuffled(&mut random, &one, &other);
        let bytes = damaged(&mut random, bytes);
        seen[usize::from(taken(&bytes))] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "some are taken and some are not: {seen:?}");
}

#[test]
fn a_text_is_one_event_or_none() {
    let (seed, count) = (seed(), cases(150));
    eprintln!("{count} cases of WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut seen = [0; 2];
    for number in 0..count {
        let line = match random.below(8) {
            0 => json(&mut random, 0),
            1 => {
                let head = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
                let name = *[r#""x""#, r#""data""#, r#""data_base64""#, r#""time""#, r#""id""#]
                    .get(random.below(5) as usize)
                    .unwrap();
                format!("{{{head},{name}:{}}}", json(&mut random, 0))
            }
            2 => text(&mut random),
            _ => serde_json::to_string(&to_json(&event(&mut random, number))).unwrap(),
        };
        let line = String::from_utf8_lossy(&damaged(&mut random, line.into_bytes())).into_owned();
        let read = from_json(&line);
        if let Err(error) = &read {
            assert!(!error.to_string().is_empty() && error.column() != Some(0), "{line}");
        }
        let Ok(event) = read else {
            seen[0] += 1;
            continue;
        };
        // what a parser says that keeps the last of each name
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) {
            assert_eq!(
                (value["id"].as_str(), value["type"].as_str()),
                (Some(&*event.id), Some(&*event.r#type)),
                "{line}"
            );
        }
        let encoded = event.encode();
        if EventView::accept(&encoded).is_err() {
            seen[0] += 1;
            continue;
        }
        seen[1] += 1;
        assert!(taken(&encoded));
        let printed = serde_json::to_string(&to_json(&event)).unwrap();
        assert_eq!(canonical(&from_json(&printed).unwrap()), canonical(&event), "{line}");
    }
    assert!(seen.iter().all(|count| *count > 0), "some are events and some are not: {seen:?}");
}

#[tokio::test]
async fn a_service_keeps_what_it_takes_of_damaged_events_byte_for_byte() {
    let (seed, count) = (seed(), cases(150));
    eprintln!("{count} cases of WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    let bed = bed().await;
    let mut kept = Vec::new();
    for number in 0..count {
        let (one, other) = (event(&mut random, number), event(&mut random, number));
        let bytes = shuffled(&mut random, &one, &other);
        let bytes = Bytes::from(damaged(&mut random, bytes));
        let is_taken = EventView::accept(&bytes).is_ok();
        match bed.client.publish(LOG, vec![bytes.clone()]).await {
            Ok(published) => {
                assert!(is_taken || bytes.is_empty());
                if published.places.first().is_some_and(|place| place.offset.is_some()) {
                    kept.push(bytes);
                }
            }
            Err(ClientError::Refused(refused)) => {
                assert_eq!(refused.code, tonic::Code::InvalidArgument, "{}", refused.message);
            }
            Err(error) => panic!("{error}"),
        }
    }
    let stored: Vec<Bytes> = read_all(&bed.client, all_of(LOG)).await.into_iter().map(|event| event.event).collect();
    assert_eq!(stored, kept);
    assert!(!kept.is_empty() && kept.len() < count);
}
