//! Who has changed what: a record of each call that operates, deploys or applies, and of each that was denied.
//!
//! Promises: the record is durable before the caller gets its answer, and is made also where the caller goes away.
//! Where it cannot be stored, since the disk is full, it is in the log: whoever frees the disk must not be kept from
//! it. Denials of one caller are recorded up to a rate. Must not know: protocols, how a record is stored.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::auth::Caller;
use super::calls::Calls;
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
struct Record {
    /// The caller's name; `anonymous` where it has shown nothing.
    who: String,
    /// The address and the port that it calls from.
    from: String,
    /// The method or the route.
    call: String,
    /// What the call was about: names, filters, digests.
    request: Map<String, Value>,
    decision: Decision,
    /// `OK`, or the code of the refusal; [`CANCELLED`].
    outcome: String,
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
    /// A stop waits for records.
    calls: Calls,
}

impl Audit {
    pub(super) fn new(journal: impl Journal, calls: Calls) -> Self {
        Self(Arc::new(Inner { journal: Box::new(journal), denials: Mutex::default(), calls }))
    }

    /// A call that is about to be made, and is recorded when it has ended.
    pub(super) fn open(&self, who: &str, peer: &Peer, call: &str, subject: &Subject) -> OpenRecord {
        OpenRecord {
            audit: self.clone(),
            who: who.to_owned(),
            from: peer.address.to_string(),
            call: call.to_owned(),
            subject: subject.clone(),
            is_open: true,
        }
    }

    /// Records a call that was denied, unless the caller was denied too often within a short time.
    pub(super) async fn denied(&self, who: Option<&str>, peer: &Peer, call: &str, subject: &Subject, outcome: &str) {
        // Callers that are nobody are told apart by their hosts, as far as that goes.
        let key = who.map_or_else(|| peer.address.ip().to_string(), str::to_owned);
        let counted = self.0.denials.lock().unwrap_or_else(PoisonError::into_inner).count(&key, Instant::now());
        let Some(unrecorded) = counted else { return };
        let record = Record {
            who: who.unwrap_or(Caller::ANONYMOUS).to_owned(),
            from: peer.address.to_string(),
            call: call.to_owned(),
            request: subject.take(),
            decision: Decision::Denied,
            outcome: outcome.to_owned(),
            unrecorded,
        };
        let _ = self.record(record).await;
    }

    /// Records in a task of its own, which ends also where nobody waits for it any more.
    fn record(&self, record: Record) -> JoinHandle<()> {
        let (audit, call) = (self.clone(), self.0.calls.token());
        effects::task(async move {
            let _call = call;
            audit.store(&record).await;
        })
    }

    async fn store(&self, record: &Record) {
        let data = serde_json::to_string(record).unwrap_or_default();
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

/// The outcome of a call whose caller went away before its answer: it may have been done.
const CANCELLED: &str = "CANCELLED";

/// A call that was allowed. It is recorded also where its caller goes away, which takes the call's future away with it:
/// what it has begun may go on.
pub(super) struct OpenRecord {
    audit: Audit,
    who: String,
    from: String,
    call: String,
    subject: Subject,
    is_open: bool,
}

impl OpenRecord {
    /// Records the outcome; resolves when the record is durable, or cannot be stored.
    pub(super) async fn close(mut self, outcome: &str) {
        let recording = self.record(outcome);
        let _ = recording.await;
    }

    /// It was denied after all, which is recorded as such.
    pub(super) fn withdraw(mut self) {
        self.is_open = false;
    }

    fn record(&mut self, outcome: &str) -> JoinHandle<()> {
        self.is_open = false;
        self.audit.record(Record {
            who: std::mem::take(&mut self.who),
            from: std::mem::take(&mut self.from),
            call: std::mem::take(&mut self.call),
            request: self.subject.take(),
            decision: Decision::Allowed,
            outcome: outcome.to_owned(),
            unrecorded: 0,
        })
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        // Without a runtime the process ends.
        if self.is_open && Handle::try_current().is_ok() {
            drop(self.record(CANCELLED));
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

    struct Sent(tokio::sync::mpsc::UnboundedSender<Bytes>);

    impl Journal for Sent {
        fn append(&self, event: Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            let sent = self.0.send(event).map_err(|error| error.to_string());
            Box::pin(std::future::ready(sent))
        }
    }

    #[tokio::test]
    async fn a_call_is_recorded_once_also_where_its_caller_goes_away() {
        let (sender, mut records) = tokio::sync::mpsc::unbounded_channel();
        let calls = Calls::default();
        let audit = Audit::new(Sent(sender), calls.clone());
        let peer = Peer { address: ([127, 0, 0, 1], 7).into(), certificate: None, shares: Mutex::default() };
        let subject = Subject::default();
        let mut outcome = async || {
            let event = Event::decode(&records.recv().await.unwrap()).unwrap();
            let record: Value = serde_json::from_slice(event.data.unwrap().as_bytes()).unwrap();
            (record["request"]["number"].clone(), record["outcome"].as_str().unwrap().to_owned())
        };
        subject.set("number", 1);
        audit.open("ada", &peer, "/Pause", &subject).close("OK").await;
        assert_eq!(outcome().await, (1.into(), "OK".to_owned()));
        subject.set("number", 2);
        drop(audit.open("ada", &peer, "/Pause", &subject));
        assert_eq!(outcome().await, (2.into(), CANCELLED.to_owned()));
        audit.open("ada", &peer, "/Pause", &subject).withdraw();
        subject.set("number", 3);
        audit.denied(None, &peer, "/Pause", &subject, "FORBIDDEN").await;
        assert_eq!(outcome().await, (3.into(), "FORBIDDEN".to_owned()), "nothing of what was withdrawn");
        assert!(calls.answered(Duration::from_secs(60)).await, "a stop waits for records");
    }

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
