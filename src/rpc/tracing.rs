//! The lineage of an event in the contract's words, and back.

use super::times::{nanoseconds, timestamp};
use super::v1;
use super::v1::traced_event;
use crate::dispatch::trace::{Handling, Origin, Outcome, Trace, TracedEvent};

impl From<Trace> for v1::TraceResponse {
    fn from(trace: Trace) -> Self {
        let Trace { events, found, is_cut } = trace;
        Self { events: events.into_iter().map(Into::into).collect(), found: index(found), is_cut }
    }
}

impl From<v1::TraceResponse> for Trace {
    fn from(response: v1::TraceResponse) -> Self {
        let v1::TraceResponse { events, found, is_cut } = response;
        Self { events: events.into_iter().map(Into::into).collect(), found: found as usize, is_cut }
    }
}

/// A trace has some thousand events at the most.
fn index(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl From<TracedEvent> for v1::TracedEvent {
    fn from(event: TracedEvent) -> Self {
        let TracedEvent { topic, partition, offset, append_time_ns, key, id, source, r#type, origin, handlings } =
            event;
        Self {
            topic,
            partition,
            offset,
            append_time: Some(timestamp(append_time_ns)),
            key,
            id,
            source,
            r#type,
            origin: origin.map(|Origin { parent, subscriber, digest, is_dead_letter }| traced_event::Origin {
                parent: parent.map(index),
                subscriber,
                digest,
                is_dead_letter,
            }),
            handlings: handlings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::TracedEvent> for TracedEvent {
    fn from(event: v1::TracedEvent) -> Self {
        let v1::TracedEvent { topic, partition, offset, append_time, key, id, source, r#type, origin, handlings } =
            event;
        Self {
            topic,
            partition,
            offset,
            append_time_ns: append_time.as_ref().and_then(nanoseconds).unwrap_or(0),
            key,
            id,
            source,
            r#type,
            origin: origin.map(|traced_event::Origin { parent, subscriber, digest, is_dead_letter }| Origin {
                parent: parent.map(|parent| parent as usize),
                subscriber,
                digest,
                is_dead_letter,
            }),
            handlings: handlings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Handling> for traced_event::Handling {
    fn from(handling: Handling) -> Self {
        let Handling { subscriber, outcome, outputs, attempts, digest, failure, reason, due_ns } = handling;
        let outcome = v1::TraceOutcome::from(outcome).into();
        Self { subscriber, outcome, outputs, attempts, digest, failure, reason, due_time: due_ns.map(timestamp) }
    }
}

impl From<traced_event::Handling> for Handling {
    fn from(handling: traced_event::Handling) -> Self {
        let traced_event::Handling { subscriber, outcome, outputs, attempts, digest, failure, reason, due_time } =
            handling;
        // What a later bus may call it, this client does not know; that nothing became of it yet claims the least.
        let outcome = v1::TraceOutcome::try_from(outcome).map_or(Outcome::NotYet, Into::into);
        let due_ns = due_time.as_ref().and_then(nanoseconds);
        Self { subscriber, outcome, outputs, attempts, digest, failure, reason, due_ns }
    }
}

impl From<Outcome> for v1::TraceOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::NotYet => Self::NotYet,
            Outcome::Handled => Self::Handled,
            Outcome::PassedOver => Self::PassedOver,
            Outcome::Waiting => Self::Waiting,
            Outcome::Parked => Self::Parked,
            Outcome::DeadLetter => Self::DeadLetter,
            Outcome::DeadLetterDone => Self::DeadLetterDone,
        }
    }
}

impl From<v1::TraceOutcome> for Outcome {
    fn from(outcome: v1::TraceOutcome) -> Self {
        match outcome {
            v1::TraceOutcome::NotYet | v1::TraceOutcome::Unspecified => Self::NotYet,
            v1::TraceOutcome::Handled => Self::Handled,
            v1::TraceOutcome::PassedOver => Self::PassedOver,
            v1::TraceOutcome::Waiting => Self::Waiting,
            v1::TraceOutcome::Parked => Self::Parked,
            v1::TraceOutcome::DeadLetter => Self::DeadLetter,
            v1::TraceOutcome::DeadLetterDone => Self::DeadLetterDone,
        }
    }
}
