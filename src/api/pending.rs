//! Events that have no offset yet.

use bytes::Bytes;

use super::times::{nanoseconds, timestamp};
use super::v1;

/// Why an event has no place in its topic yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// Its state may not follow that of its key now.
    Held,
    /// It is to come later.
    Delayed,
}

/// Which events are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingFilter {
    /// Only these; `None`: both.
    pub kind: Option<PendingKind>,
    /// Only those of this key.
    pub key: Option<String>,
}

/// An event that has no place in its topic yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEvent {
    /// Why not.
    pub kind: PendingKind,
    /// The full name of its topic.
    pub topic: String,
    /// The partition that it will have there.
    pub partition: u32,
    /// Its ordering key.
    pub key: String,
    /// Its CloudEvents id.
    pub id: String,
    /// Its CloudEvents type.
    pub r#type: String,
    /// The state that a held event brings to its key, if any.
    pub state: Option<String>,
    /// When it came, by the clock of the bus; `None` where an earlier version took it in.
    pub since_ns: Option<u64>,
    /// When it comes, or is given up where it is held, trusted time; `None` where that will not be.
    pub due_ns: Option<u64>,
    /// Why it is held, in words.
    pub reason: String,
    /// The event in the CloudEvents protobuf format.
    pub event: Bytes,
}

impl From<PendingKind> for v1::PendingKind {
    fn from(kind: PendingKind) -> Self {
        match kind {
            PendingKind::Held => Self::Held,
            PendingKind::Delayed => Self::Delayed,
        }
    }
}

impl From<PendingEvent> for v1::PendingEvent {
    fn from(event: PendingEvent) -> Self {
        let PendingEvent { kind, topic, partition, key, id, r#type, state, since_ns, due_ns, reason, event } = event;
        Self {
            kind: v1::PendingKind::from(kind).into(),
            topic,
            partition,
            key,
            id,
            r#type,
            state,
            since_time: since_ns.map(timestamp),
            due_time: due_ns.map(timestamp),
            reason,
            event,
        }
    }
}

impl From<v1::PendingEvent> for PendingEvent {
    fn from(event: v1::PendingEvent) -> Self {
        let kind = match event.kind() {
            v1::PendingKind::Held => PendingKind::Held,
            v1::PendingKind::Delayed | v1::PendingKind::Unspecified => PendingKind::Delayed,
        };
        Self {
            kind,
            topic: event.topic,
            partition: event.partition,
            key: event.key,
            id: event.id,
            r#type: event.r#type,
            state: event.state,
            since_ns: event.since_time.as_ref().and_then(nanoseconds),
            due_ns: event.due_time.as_ref().and_then(nanoseconds),
            reason: event.reason,
            event: event.event,
        }
    }
}
