//! Compares the result of a case with the expectation; pure.
//!
//! Outputs of a topic are compared in their order per key, which is the order that a bus guarantees.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use imara_diff::{Algorithm, Diff, InternedInput};
use serde_json::{Map, Value};

use super::{CaseFailure, CaseResult, TopicEvent};
use crate::model::event::Data;
use crate::model::json::is_json;
use crate::topology::cases::{ExpectedFailure, ExpectedOutput, ExpectedRefusal, ExpectedResults};
use crate::topology::{Plan, SubscriberIndex};

/// One difference from the expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub what: String,
    /// The expected and the actual text.
    pub diff: Vec<DiffLine>,
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffLine {
    /// As expected.
    Same(String),
    /// Expected, but missing.
    Missing(String),
    Extra(String),
}

/// Compares what happened in a case with what it expects; empty where they agree.
pub fn compare(plan: &Plan, expected: &ExpectedResults, happened: &CaseResult) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    // A topic without possible senders is included if something is expected there.
    let topics: BTreeSet<_> = happened.topics.keys().chain(expected.outputs.keys()).collect();
    for topic in topics {
        let sent = happened.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let outputs = match expected.outputs.get(topic) {
            Some(outputs) => outputs.as_slice(),
            // Dead letters are compared as failures.
            None if expected.nothing_else && plan[*topic].dead_letters_of.is_none() => &[],
            None => continue,
        };
        mismatches.extend(compare_outputs(&plan[*topic].label(), outputs, sent));
    }
    for (subscriber, buckets) in &expected.state {
        let kept = happened.state.get(subscriber);
        for (bucket, values) in buckets {
            let kept = kept.and_then(|kept| kept.get(bucket));
            let what = format!("what `{}` keeps in bucket `{bucket}`", plan[*subscriber].label());
            mismatches.extend(compare_state(what, values, kept));
        }
    }
    mismatches.extend(compare_failures(plan, &expected.failures, &happened.failures));
    mismatches.extend(compare_refused(expected.refused.as_deref().unwrap_or_default(), &happened.refused));
    mismatches
}

/// Compares two texts line by line: missing are the lines that only `expected` has.
pub fn diff_lines(expected: &str, actual: &str) -> Vec<DiffLine> {
    // The last lines are equal whether another line follows or not.
    let ended = |text: &str| if text.is_empty() { String::new() } else { format!("{text}\n") };
    let (expected, actual) = (ended(expected), ended(actual));
    let input = InternedInput::new(expected.as_str(), actual.as_str());
    let mut diff = Diff::compute(Algorithm::Myers, &input);
    diff.postprocess_lines(&input);
    let (mut expected, mut actual) = (expected.lines().map(str::to_owned), actual.lines().map(str::to_owned));
    let mut shown = Vec::new();
    let mut at = 0;
    for hunk in diff.hunks() {
        let same = hunk.before.start.saturating_sub(at) as usize;
        shown.extend(expected.by_ref().take(same).map(DiffLine::Same));
        actual.by_ref().take(same).for_each(drop);
        shown.extend(expected.by_ref().take(hunk.before.len()).map(DiffLine::Missing));
        shown.extend(actual.by_ref().take(hunk.after.len()).map(DiffLine::Extra));
        at = hunk.before.end;
    }
    shown.extend(expected.map(DiffLine::Same));
    shown
}

fn differs(what: String, expected: &str, actual: &str) -> Option<Mismatch> {
    Some(Mismatch { what, diff: diff_lines(expected, actual) })
}

fn compare_outputs(topic: &str, expected: &[ExpectedOutput], sent: &[TopicEvent]) -> Option<Mismatch> {
    let matches = |of: &ExpectedOutput, sent: &TopicEvent| is_expected(of, sent);
    let pairs = pair(expected, sent, matches);
    let all_match = pairs.iter().all(|(of, sent)| matches!((of, sent), (Some(of), Some(sent)) if matches(of, sent.1)));
    let is_in_order = in_order(&pairs);
    if all_match && is_in_order {
        return None;
    }
    let shown = |pairs: &[Pair<'_, ExpectedOutput, TopicEvent>]| {
        let actual = pairs.iter().filter_map(|(of, sent)| Some(show_sent(*of, sent.as_ref()?.1)));
        texts(actual)
    };
    let wanted = texts(pairs.iter().filter_map(|(of, _)| Some(show_output((*of)?))));
    if all_match {
        let mut ordered = pairs.clone();
        ordered.sort_by_key(|(_, sent)| sent.map(|(at, _)| at));
        return differs(format!("the order of the outputs in `{topic}`"), &wanted, &shown(&ordered));
    }
    differs(format!("the outputs in `{topic}`"), &wanted, &shown(&pairs))
}

/// An expected item, and an actual one with its index.
type Pair<'a, W, A> = (Option<&'a W>, Option<(usize, &'a A)>);

/// Pairs expected with actual items: in order if that matches, else the first match for each; unmatched items of both
/// sides follow in order.
fn pair<'a, W, A>(wanted: &'a [W], there: &'a [A], matches: impl Fn(&W, &A) -> bool) -> Vec<Pair<'a, W, A>> {
    let fits = wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| matches(wanted, there));
    let mut free: Vec<Option<&A>> = there.iter().map(Some).collect();
    let mut take = |is_it: &dyn Fn(usize, &A) -> bool| {
        let at = free.iter().enumerate().position(|(at, there)| there.is_some_and(|there| is_it(at, there)))?;
        Some((at, free.get_mut(at)?.take()?))
    };
    let mut pairs: Vec<Pair<'a, W, A>> = wanted
        .iter()
        .enumerate()
        .map(|(index, wanted)| {
            (Some(wanted), take(&|at, there| if fits { at == index } else { matches(wanted, there) }))
        })
        .collect();
    for pair in pairs.iter_mut().filter(|(_, there)| there.is_none()) {
        pair.1 = take(&|_, _| true);
    }
    pairs.extend(free.into_iter().enumerate().filter_map(|(at, there)| Some((None, Some((at, there?))))));
    pairs
}

/// Whether the outputs of each key are in the expected order.
fn in_order(pairs: &[Pair<'_, ExpectedOutput, TopicEvent>]) -> bool {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    pairs.iter().filter_map(|(_, sent)| *sent).all(|(at, sent)| {
        let before = last.insert(&sent.key, at);
        before.is_none_or(|before| before < at)
    })
}

fn is_expected(expected: &ExpectedOutput, sent: &TopicEvent) -> bool {
    let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    let attribute = |(name, wanted): (&String, &Option<String>)| attribute_of(sent, name) == *wanted;
    is(&expected.r#type, &sent.event.r#type)
        && is(&expected.key, &sent.key)
        && expected.attributes.iter().all(attribute)
        && expected.data.as_ref().is_none_or(|data| same(data, &data_of(sent)))
        && expected.has.as_ref().is_none_or(|part| has(part, &data_of(sent)))
}

fn attribute_of(sent: &TopicEvent, name: &str) -> Option<String> {
    match name {
        "id" => Some(sent.event.id.clone()),
        "source" => Some(sent.event.source.clone()),
        name => sent.event.attributes.get(name).map(ToString::to_string),
    }
}

/// The data of an event as JSON.
pub(super) fn data_of(sent: &TopicEvent) -> Value {
    let content_type = sent.event.attributes.get("datacontenttype").map(ToString::to_string);
    match sent.event.data.as_ref().map(Data::as_bytes) {
        None => Value::Null,
        Some(bytes) if content_type.as_deref().is_none_or(is_json) => json_of(bytes),
        Some(bytes) => text_of(bytes),
    }
}

/// Bytes as JSON, or else as text.
pub(super) fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| text_of(bytes))
}

fn text_of(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => Value::String(format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes))),
    }
}

/// Whether two values are equal, regardless of the notation of numbers.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64() && (one.is_f64() || other.is_f64())
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in = |(key, value): (&String, &Value)| other.get(key).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(is_in)
        }
        (one, other) => one == other,
    }
}

/// Whether a value contains a part: objects may have more keys.
fn has(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|whole| has(value, whole)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| has(part, whole))
        }
        (part, whole) => same(part, whole),
    }
}

/// The parts of a value that are expected.
fn asked_for(part: &Value, whole: Value) -> Value {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            let asked =
                whole.into_iter().filter_map(|(key, value)| Some((key.clone(), asked_for(part.get(&key)?, value))));
            Value::Object(asked.collect())
        }
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            part.iter().zip(whole).map(|(part, whole)| asked_for(part, whole)).collect()
        }
        // Equal values are shown in the expected notation.
        (part, whole) => {
            if same(part, &whole) {
                part.clone()
            } else {
                whole
            }
        }
    }
}

fn show_output(of: &ExpectedOutput) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Option<Value>| drop(value.map(|value| shown.insert(name.to_owned(), value)));
    put("type", of.r#type.clone().map(Value::from));
    put("key", of.key.clone().map(Value::from));
    let attributes = of.attributes.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    put("attributes", (!of.attributes.is_empty()).then(|| Value::Object(attributes.collect())));
    put("data", of.data.clone().or_else(|| of.has.clone()));
    Value::Object(shown)
}

/// The expected parts of an output, or all relevant parts without an expectation.
fn show_sent(of: Option<&ExpectedOutput>, sent: &TopicEvent) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    if of.is_none_or(|of| of.r#type.is_some()) {
        put("type", sent.event.r#type.clone().into());
    }
    if of.is_none_or(|of| of.key.is_some()) {
        put("key", sent.key.clone().into());
    }
    if let Some(of) = of.filter(|of| !of.attributes.is_empty()) {
        let attributes = of.attributes.keys().map(|name| (name.clone(), Value::from(attribute_of(sent, name))));
        put("attributes", Value::Object(attributes.collect()));
    }
    match of {
        None => put("data", data_of(sent)),
        Some(ExpectedOutput { data: Some(data), .. }) => {
            let found = data_of(sent);
            put("data", if same(data, &found) { data.clone() } else { found });
        }
        Some(ExpectedOutput { has: Some(part), .. }) => put("data", asked_for(part, data_of(sent))),
        Some(_) => {}
    }
    Value::Object(shown)
}

fn texts(values: impl Iterator<Item = Value>) -> String {
    let text = |value: Value| serde_json::to_string_pretty(&value).unwrap_or_default();
    values.map(text).collect::<Vec<_>>().join("\n")
}

fn compare_state(
    what: String,
    expected: &BTreeMap<String, Value>,
    kept: Option<&BTreeMap<String, Bytes>>,
) -> Option<Mismatch> {
    // Texts are compared as stored, others as JSON.
    let read = |key: &String, bytes: &Bytes| match expected.get(key) {
        Some(Value::String(_)) => text_of(bytes),
        Some(value) => {
            let found = json_of(bytes);
            if same(value, &found) { value.clone() } else { found }
        }
        None => json_of(bytes),
    };
    let there: Map<String, Value> =
        kept.into_iter().flatten().map(|(key, value)| (key.clone(), read(key, value))).collect();
    let wanted: Map<String, Value> = expected
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if wanted == there {
        return None;
    }
    differs(what, &texts([Value::Object(wanted)].into_iter()), &texts([Value::Object(there)].into_iter()))
}

fn compare_refused(expected: &[ExpectedRefusal], refused: &[(String, String)]) -> Option<Mismatch> {
    let matches = |of: &ExpectedRefusal, (event, reason): &(String, String)| {
        of.event.as_ref().is_none_or(|wanted| wanted == event)
            && of.reason.as_ref().is_none_or(|part| reason.contains(part.as_str()))
    };
    let pairs = pair(expected, refused, matches);
    if pairs.iter().all(|(of, there)| matches!((of, there), (Some(of), Some((_, there))) if matches(of, there))) {
        return None;
    }
    let shown = |event: Option<String>, reason: Option<String>| {
        let fields = [("event", event), ("reason", reason)];
        Value::Object(fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))).collect())
    };
    let wanted = texts(pairs.iter().filter_map(|(of, _)| (*of).map(|of| shown(of.event.clone(), of.reason.clone()))));
    let there = texts(pairs.iter().filter_map(|(of, there)| {
        let (_, (event, reason)) = (*there)?;
        let part = of.and_then(|of| of.reason.clone()).filter(|part| reason.contains(part.as_str()));
        let is_asked = |is_asked: fn(&ExpectedRefusal) -> bool| of.is_none_or(is_asked);
        let event = is_asked(|of| of.event.is_some()).then(|| event.clone());
        let reason = is_asked(|of| of.reason.is_some()).then(|| part.unwrap_or_else(|| reason.clone()));
        Some(shown(event, reason))
    }));
    differs("the events that are not taken in".to_owned(), &wanted, &there)
}

fn compare_failures(plan: &Plan, expected: &[ExpectedFailure], failures: &[CaseFailure]) -> Option<Mismatch> {
    let matches = |of: &ExpectedFailure, failed: &CaseFailure| {
        of.subscriber.is_none_or(|subscriber| subscriber == failed.subscriber)
            && of.event.as_ref().is_none_or(|event| *event == failed.event)
            && of.kind.as_ref().is_none_or(|kind| *kind == failed.kind)
            && of.reason.as_ref().is_none_or(|reason| failed.reason.contains(reason.as_str()))
            && of.attempts.is_none_or(|attempts| attempts == failed.attempts)
            && of.end.is_none_or(|end| end == failed.end)
    };
    let pairs = pair(expected, failures, matches);
    if pairs.iter().all(|(of, failed)| matches!((of, failed), (Some(of), Some((_, failed))) if matches(of, failed))) {
        return None;
    }
    let label = |subscriber: SubscriberIndex| Value::from(plan[subscriber].label());
    let object = |fields: [(&str, Option<Value>); 6]| -> Value {
        Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    };
    let wanted = texts(pairs.iter().filter_map(|(of, _)| {
        let of = (*of)?;
        Some(object([
            ("subscriber", of.subscriber.map(label)),
            ("event", of.event.clone().map(Value::from)),
            ("kind", of.kind.clone().map(Value::from)),
            ("reason", of.reason.clone().map(Value::from)),
            ("attempts", of.attempts.map(Value::from)),
            ("end", of.end.map(|end| end.as_str().into())),
        ]))
    }));
    let there = texts(pairs.iter().filter_map(|(of, failed)| {
        let (_, failed) = (*failed)?;
        let asked = |is_asked: fn(&ExpectedFailure) -> bool| of.is_none_or(is_asked);
        // A reason that contains the expected one is shown as expected.
        let reason = of.and_then(|of| of.reason.clone()).filter(|reason| failed.reason.contains(reason.as_str()));
        Some(object([
            ("subscriber", asked(|of| of.subscriber.is_some()).then(|| label(failed.subscriber))),
            ("event", asked(|of| of.event.is_some()).then(|| failed.event.clone().into())),
            ("kind", asked(|of| of.kind.is_some()).then(|| failed.kind.clone().into())),
            ("reason", asked(|of| of.reason.is_some()).then(|| reason.unwrap_or_else(|| failed.reason.clone()).into())),
            ("attempts", asked(|of| of.attempts.is_some()).then(|| failed.attempts.into())),
            ("end", asked(|of| of.end.is_some()).then(|| failed.end.as_str().into())),
        ]))
    }));
    differs("the events that are not handled".to_owned(), &wanted, &there)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_ends_one_text_and_not_the_other_is_the_same() {
        let same = |text: &str| DiffLine::Same(text.to_owned());
        assert_eq!(diff_lines("a\nb", "a\nb\nc"), [same("a"), same("b"), DiffLine::Extra("c".to_owned())]);
        assert_eq!(diff_lines("", "a"), [DiffLine::Extra("a".to_owned())]);
        assert_eq!(diff_lines("a", "a"), [same("a")]);
    }

    fn text_of_line(line: &DiffLine) -> &str {
        match line {
            DiffLine::Same(text) | DiffLine::Missing(text) | DiffLine::Extra(text) => text,
        }
    }

    proptest! {
        #[test]
        fn both_texts_are_in_their_difference(expected in "[ab\n]{0,12}", actual in "[ab\n]{0,12}") {
            let diff = diff_lines(&expected, &actual);
            let side = |other: fn(&DiffLine) -> bool| -> Vec<&str> {
                diff.iter().filter(|line| !other(line)).map(text_of_line).collect()
            };
            let lines = |text: &'_ str| -> Vec<String> {
                if text.is_empty() { Vec::new() } else { format!("{text}\n").lines().map(str::to_owned).collect() }
            };
            prop_assert_eq!(side(|line| matches!(line, DiffLine::Extra(_))), lines(&expected));
            prop_assert_eq!(side(|line| matches!(line, DiffLine::Missing(_))), lines(&actual));
        }
    }
}
