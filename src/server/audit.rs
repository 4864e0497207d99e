//! Who has changed what: a record of each call that operates, deploys or applies, and of each that was denied.
//!
//! Promises: the record is durable before the caller gets its answer. Where it cannot be stored, since the disk is
//! full, it is in the log: whoever frees the disk must not be kept from it. Denials of one caller are recorded up to a
//! rate. Must not know: protocols, how a record is stored.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::auth::Caller;
use super::listener::Peer;
use crate::dispatch::{AUDIT_TOPIC, Publisher};
use crate::effects;
use crate::engine::Engine;
use crate::model::Event;
use crate::model::event::{Attribute, Data};

/// Denials of one caller that are recorded within [`DENIALS_WITHIN`].
const DENIALS_MAX: u32 = 10;
const DENIALS_WITHIN: Duration = Duration::from_secs(1);
/// Callers whose denials are counted at once; those of all others count together.
const DENIED_CALLERS_MAX: usize = 1_024;
/// Bytes of a text in a record.
const TEXT_BYTES_MAX: usize = 1_024;
/// The type of the records, a CloudEvents type.
const TYPE: &str = "wattle.audit.v1";
/// Their source, a URI reference.
const SOURCE: &str = "wattle";

/// Stores records.
pub(super) trait Journal: Send + Sync + 'static {
    /// Resolves when the event is durable; else the reason, in words.
    fn append(&self, event: Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

impl<E: Engine> Journal for Publisher<E> {
    fn append(&self, event: Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move { self.publish_internal(AUDIT_TOPIC, &event).await.map_err(|error| error.to_string()) })
    }
}

/// Whether a call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decision {
    Allowed,
    Denied,
}

/// What is recorded of a call: the data of the event, as JSON.
#[derive(Debug, Serialize)]
struct Record<'a> {
    /// The caller's name; `anonymous` where it has shown nothing.
    who: &'a str,
    /// The address and the port that it calls from.
    from: String,
    /// The method or the route.
    call: &'a str,
    /// What the call was about: names, filters, digests.
    request: Map<String, Value>,
    decision: Decision,
    /// `OK`, or the code of the refusal.
    outcome: &'a str,
    /// Further denials of the caller that were not recorded, since there were too many.
    #[serde(skip_serializing_if = "is_zero")]
    unrecorded: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a call is about, as its service says. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject(Arc<Mutex<Map<String, Value>>>);

impl Subject {
    /// Adds a value; long texts are cut.
    pub(super) fn set(&self, name: &str, value: impl Into<Value>) {
        let value = match value.into() {
            Value::Null => return,
            Value::String(mut text) => {
                text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
                Value::String(text)
            }
            other => other,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value);
    }

    fn take(&self) -> Map<String, Value> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Records calls. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) struct Audit(Arc<Inner>);

struct Inner {
    journal: Box<dyn Journal>,
    denials: Mutex<Denials>,
}

impl Audit {
    pub(super) fn new(journal: impl Journal) -> Self {
        Self(Arc::new(Inner { journal: Box::new(journal), denials: Mutex::default() }))
    }

    /// Records a call that was made; resolves when the record is durable, or cannot be stored.
    pub(super) async fn made(&self, who: &str, peer: &Peer, call: &str, subject: &Subject, outcome: &str) {
        self.record(Record {
            who,
            from: peer.address.to_string(),
            call,
            request: subject.take(),
            decision: Decision::Allowed,
            outcome,
            unrecorded: 0,
        })
        .await;
    }

    /// Records a call that was denied, unless the caller was denied too often within a short time.
    pub(super) async fn denied(&self, who: Option<&str>, peer: &Peer, call: &str, subject: &Subject, outcome: &str) {
        // Callers that are nobody are told apart by their hosts, as far as that goes.
        let key = who.map_or_else(|| peer.address.ip().to_string(), str::to_owned);
        let counted = self.0.denials.lock().unwrap_or_else(PoisonError::into_inner).count(&key, Instant::now());
        let Some(unrecorded) = counted else { return };
        self.record(Record {
            who: who.unwrap_or(Caller::ANONYMOUS),
            from: peer.address.to_string(),
            call,
            request: subject.take(),
            decision: Decision::Denied,
            outcome,
            unrecorded,
        })
        .await;
    }

    async fn record(&self, record: Record<'_>) {
        let data = serde_json::to_string(&record).unwrap_or_default();
        let attributes = [("datacontenttype".to_owned(), Attribute::String("application/json".to_owned()))];
        let event = Event {
            id: format!("{:016x}{:016x}", effects::random(), effects::random()),
            source: SOURCE.to_owned(),
            r#type: TYPE.to_owned(),
            attributes: attributes.into(),
            data: Some(Data::Text(data.clone())),
        };
        if let Err(error) = self.0.journal.append(event.encode()).await {
            tracing::error!(record = data, error, "an audit record was not stored: this line has it");
        }
    }
}

#[derive(Default)]
struct Denials {
    began: Option<Instant>,
    counts: HashMap<String, u32>,
    /// Denials within earlier times that were not recorded, by caller.
    unrecorded: HashMap<String, u32>,
}

impl Denials {
    /// Counts a denial: how many before it were not recorded, where it is to be recorded.
    fn count(&mut self, key: &str, now: Instant) -> Option<u32> {
        if self.began.is_none_or(|began| now.duration_since(began) >= DENIALS_WITHIN) {
            self.began = Some(now);
            self.counts.clear();
        }
        let is_known = self.counts.contains_key(key) || self.counts.len() < DENIED_CALLERS_MAX;
        let key = if is_known { key } else { "" };
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        if *count <= DENIALS_MAX {
            return Some(self.unrecorded.remove(key).unwrap_or_default());
        }
        let is_known = self.unrecorded.contains_key(key) || self.unrecorded.len() < DENIED_CALLERS_MAX;
        let unrecorded = self.unrecorded.entry(if is_known { key } else { "" }.to_owned()).or_default();
        *unrecorded = unrecorded.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn denials_of_one_caller_are_recorded_up_to_a_rate_and_the_rest_is_counted() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        let recorded = (0..25).filter(|_| denials.count("a", now).is_some()).count();
        assert_eq!(recorded, 10);
        assert_eq!(denials.count("b", now), Some(0), "another caller has a rate of its own");
        assert_eq!(denials.count("a", now + DENIALS_WITHIN), Some(15));
        assert_eq!(denials.count("a", now + DENIALS_WITHIN), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_denied_callers_costs_bounded_memory() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        for number in 0..10 * DENIED_CALLERS_MAX {
            for _ in 0..=DENIALS_MAX {
                denials.count(&number.to_string(), now);
            }
        }
        assert!(denials.counts.len() <= DENIED_CALLERS_MAX + 1);
        assert!(denials.unrecorded.len() <= DENIED_CALLERS_MAX + 1);
    }
}
