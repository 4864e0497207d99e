//! Events that have no place yet in the contract's words, and back.

use super::times::{nanoseconds, timestamp};
use super::v1;
use crate::dispatch::{PendingEvent, PendingKind};

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
