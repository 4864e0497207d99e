//! Compares two runs of one case, whose results must be equal; pure.
//!
//! Outputs and failures are compared in the order of each key, which is the order that a bus guarantees. Dead letters
//! are compared as failures: their attributes say when they failed.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::compare::{data_of, json_of};
use super::{Buckets, CaseFailure, CaseResult, Mismatch, TopicEvent, diff_lines};
use crate::model::event::Data;
use crate::topology::{Plan, TopicIndex};

/// Failures whose reason contains measurements of the host, or nothing that the plugin said.
const MEASURED: [&str; 5] = ["memory", "timeout", "stack", "handles", "instance"];

/// The differences between two runs, as what the second one has instead; empty where they agree.
pub fn differences(plan: &Plan, first: &CaseResult, second: &CaseResult) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let topics: BTreeSet<_> = first.topics.keys().chain(second.topics.keys()).collect();
    for topic in topics.into_iter().filter(|topic| plan[**topic].dead_letters_of.is_none()) {
        found.extend(outputs(&plan[*topic].label(), &by_key(first, *topic), &by_key(second, *topic)));
    }
    let subscribers: BTreeSet<_> = first.state.keys().chain(second.state.keys()).collect();
    for subscriber in subscribers {
        let none = Buckets::new();
        let kept = |run: &CaseResult| run.state.get(subscriber).unwrap_or(&none).clone();
        found.extend(state(&plan[*subscriber].label(), &kept(first), &kept(second)));
    }
    let failed = |run: &CaseResult| failures(plan, &run.failures);
    found.extend(differ("the events that are not handled".to_owned(), &failed(first), &failed(second)));
    let refused = |run: &CaseResult| {
        run.refused.iter().map(|(event, reason)| text(&json!({ "event": event, "reason": reason }))).collect::<Vec<_>>()
    };
    found.extend(differ("the events that are not taken in".to_owned(), &refused(first), &refused(second)));
    found
}

/// The events of a topic, in order within each key.
type SentByKey<'a> = BTreeMap<&'a str, Vec<&'a TopicEvent>>;

fn by_key(run: &CaseResult, topic: TopicIndex) -> SentByKey<'_> {
    let mut keys = SentByKey::new();
    for event in run.topics.get(&topic).into_iter().flatten() {
        keys.entry(event.key.as_str()).or_default().push(event);
    }
    keys
}

/// Of the outputs in a topic, those of the keys that differ.
fn outputs(topic: &str, first: &SentByKey<'_>, second: &SentByKey<'_>) -> Option<Mismatch> {
    let keys: BTreeSet<_> = first.keys().chain(second.keys()).copied().collect();
    let keys: Vec<_> = keys.into_iter().filter(|key| first.get(key) != second.get(key)).collect();
    let shown = |run: &SentByKey<'_>, show: fn(&TopicEvent) -> Value| {
        let events = keys.iter().filter_map(|key| run.get(key)).flatten();
        events.map(|event| text(&show(event))).collect::<Vec<_>>()
    };
    let what = format!("the outputs in `{topic}`");
    // As JSON where the difference can be seen so, such as not in the order of the members of an object.
    differ(what.clone(), &shown(first, of_json), &shown(second, of_json))
        .or_else(|| differ(what, &shown(first, of_bytes), &shown(second, of_bytes)))
}

fn of_json(sent: &TopicEvent) -> Value {
    shown(sent, data_of(sent))
}

fn of_bytes(sent: &TopicEvent) -> Value {
    shown(sent, sent.event.data.as_ref().map(Data::as_bytes).map_or(Value::Null, as_stored))
}

fn shown(sent: &TopicEvent, data: Value) -> Value {
    let attributes = sent.event.attributes.iter().map(|(name, value)| (name.clone(), value.to_string().into()));
    let mut shown = json!({ "key": sent.key, "type": sent.event.r#type, "id": sent.event.id, "data": data });
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("attributes".to_owned(), Value::Object(attributes.collect()));
    }
    shown
}

/// Bytes as text where they are one.
fn as_stored(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes)).into(),
    }
}

/// Of the state of a subscriber, the values that differ.
fn state(subscriber: &str, first: &Buckets, second: &Buckets) -> Option<Mismatch> {
    let value = |run: &Buckets, (bucket, key): &(String, String)| run.get(bucket)?.get(key).cloned();
    let places = |run: &Buckets| -> Vec<(String, String)> {
        let keys = run.iter().flat_map(|(bucket, values)| values.keys().map(|key| (bucket.clone(), key.clone())));
        keys.collect()
    };
    let all: BTreeSet<_> = places(first).into_iter().chain(places(second)).collect();
    let other: Vec<_> = all.into_iter().filter(|place| value(first, place) != value(second, place)).collect();
    let shown = |run: &Buckets, show: fn(&Bytes) -> Value| {
        let mut buckets = Map::new();
        for place in &other {
            let Some(value) = value(run, place) else { continue };
            let bucket = buckets.entry(place.0.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(bucket) = bucket.as_object_mut() {
                bucket.insert(place.1.clone(), show(&value));
            }
        }
        [text(&Value::Object(buckets))]
    };
    let what = format!("what `{subscriber}` keeps");
    differ(what.clone(), &shown(first, |value| json_of(value)), &shown(second, |value| json_of(value)))
        .or_else(|| differ(what, &shown(first, |value| as_stored(value)), &shown(second, |value| as_stored(value))))
}

fn failures(plan: &Plan, failures: &[CaseFailure]) -> Vec<String> {
    let shown = |failure: &CaseFailure| {
        let reason = Some(&failure.reason).filter(|_| !MEASURED.contains(&failure.kind.as_str()));
        let shown = json!({
            "subscriber": plan[failure.subscriber].label(),
            "event": failure.event,
            "kind": failure.kind,
            "reason": reason,
            "attempts": failure.attempts,
            "end": failure.end.as_str(),
        });
        ((failure.subscriber, failure.event.clone()), text(&shown))
    };
    let mut all: Vec<_> = failures.iter().map(shown).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.into_iter().map(|(_, text)| text).collect()
}

fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn differ(what: String, first: &[String], second: &[String]) -> Option<Mismatch> {
    (first != second).then(|| Mismatch { what, diff: diff_lines(&first.join("\n"), &second.join("\n")) })
}
