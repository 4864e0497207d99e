//! The lineage of an event.

use super::times::{nanoseconds, timestamp};
use super::v1;
use super::v1::traced_event;
use crate::model::Offset;

/// Which event is meant: of those of which all that is said is true, the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceQuery {
    /// Its CloudEvents id.
    pub id: String,
    /// Its CloudEvents source.
    pub source: Option<String>,
    /// The topic that it is in, by its full or its short name.
    pub topic: Option<String>,
    /// It was appended at this time or later, Unix nanoseconds.
    pub since_ns: Option<u64>,
}

/// The lineage of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Parents before children; the first is what all others were made from, as far back as it is kept.
    pub events: Vec<TracedEvent>,
    /// Which of them was asked for.
    pub found: usize,
    /// There may be more than what is shown: a limit of its size or of the search was reached.
    pub is_cut: bool,
    /// Further events, in topics that the caller may not inspect.
    pub hidden_events: usize,
    /// Outcomes of the shown events at subscribers that the caller may not inspect.
    pub hidden_handlings: usize,
}

/// An event of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedEvent {
    /// The full name of its topic.
    pub topic: String,
    pub partition: u32,
    pub offset: Offset,
    /// When it was appended, engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// Its ordering key.
    pub key: String,
    /// Its CloudEvents id.
    pub id: String,
    /// Its CloudEvents source.
    pub source: String,
    /// Its CloudEvents type.
    pub r#type: String,
    /// Its subscriber and parent; `None` for a published event.
    pub origin: Option<Origin>,
    /// What became of it, one for each subscriber of its topic.
    pub handlings: Vec<Handling>,
}

/// Where an event comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Which event of the trace it was made from; `None` where that is not kept any more.
    pub parent: Option<usize>,
    /// The full name of the subscriber that made it; `None` where it is not in the topology any more.
    pub subscriber: Option<String>,
    /// The version that made it, hexadecimal digest; `None` where the engine does not know it.
    pub digest: Option<String>,
    /// It is what that subscriber could not handle.
    pub is_dead_letter: bool,
}

/// What became of an event at a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handling {
    /// The subscriber's full name.
    pub subscriber: String,
    /// What became of it.
    pub outcome: TraceOutcome,
    /// Events that were made of it, dead letters not among them.
    pub outputs: u64,
    /// Attempts so far, where they are known: of what waits, and of dead letters.
    pub attempts: Option<u32>,
    /// The version that handled it, or that failed last, hexadecimal digest; `None` where that left no trace.
    pub digest: Option<String>,
    /// The kind of the last failure; empty where there was none, or none is known.
    pub failure: String,
    /// The same in words.
    pub reason: String,
    /// When it is tried again, Unix nanoseconds.
    pub due_ns: Option<u64>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceOutcome {
    /// Nothing: the subscriber has not come to it.
    NotYet,
    /// It was handled.
    Handled,
    /// The subscriber does not want it, as its `when` says now.
    PassedOver,
    /// It waits for another attempt, or behind one of its key that does.
    Waiting,
    /// It waits until it is released.
    Parked,
    /// It was given up.
    DeadLetter,
    /// It was given up, and its dead letter was redriven or dropped; nothing came of that.
    DeadLetterDone,
}

impl Trace {
    /// The part that a caller sees who may inspect only some topics and subscribers: the rest is counted. `None` if the
    /// requested event is not in that part.
    pub fn restricted(self, topic: impl Fn(&str) -> bool, subscriber: impl Fn(&str) -> bool) -> Option<Self> {
        let Self { events, found, is_cut, .. } = self;
        let mut shown = Self { is_cut, ..Self::default() };
        // The new place of each event, by its old one.
        let mut places = Vec::with_capacity(events.len());
        for mut event in events {
            if !topic(&event.topic) {
                shown.hidden_events += 1;
                places.push(None);
                continue;
            }
            if let Some(origin) = &mut event.origin {
                origin.parent = origin.parent.and_then(|parent| *places.get(parent)?);
                origin.subscriber = origin.subscriber.take().filter(|name| subscriber(name));
            }
            let all = event.handlings.len();
            event.handlings.retain(|handling| subscriber(&handling.subscriber));
            shown.hidden_handlings += all - event.handlings.len();
            places.push(Some(shown.events.len()));
            shown.events.push(event);
        }
        shown.found = (*places.get(found)?)?;
        Some(shown)
    }
}

impl From<Trace> for v1::TraceResponse {
    fn from(trace: Trace) -> Self {
        let Trace { events, found, is_cut, hidden_events, hidden_handlings } = trace;
        Self {
            events: events.into_iter().map(Into::into).collect(),
            found: index(found),
            is_cut,
            hidden_events: index(hidden_events),
            hidden_handlings: index(hidden_handlings),
        }
    }
}

impl From<v1::TraceResponse> for Trace {
    fn from(response: v1::TraceResponse) -> Self {
        let v1::TraceResponse { events, found, is_cut, hidden_events, hidden_handlings } = response;
        Self {
            events: events.into_iter().map(Into::into).collect(),
            found: found as usize,
            is_cut,
            hidden_events: hidden_events as usize,
            hidden_handlings: hidden_handlings as usize,
        }
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
        let outcome = v1::TraceOutcome::try_from(outcome).map_or(TraceOutcome::NotYet, Into::into);
        let due_ns = due_time.as_ref().and_then(nanoseconds);
        Self { subscriber, outcome, outputs, attempts, digest, failure, reason, due_ns }
    }
}

impl From<TraceOutcome> for v1::TraceOutcome {
    fn from(outcome: TraceOutcome) -> Self {
        match outcome {
            TraceOutcome::NotYet => Self::NotYet,
            TraceOutcome::Handled => Self::Handled,
            TraceOutcome::PassedOver => Self::Filtered,
            TraceOutcome::Waiting => Self::RetryQueue,
            TraceOutcome::Parked => Self::Parked,
            TraceOutcome::DeadLetter => Self::DeadLetter,
            TraceOutcome::DeadLetterDone => Self::DeadLetterDone,
        }
    }
}

impl From<v1::TraceOutcome> for TraceOutcome {
    fn from(outcome: v1::TraceOutcome) -> Self {
        match outcome {
            v1::TraceOutcome::NotYet | v1::TraceOutcome::Unspecified => Self::NotYet,
            v1::TraceOutcome::Handled => Self::Handled,
            v1::TraceOutcome::Filtered => Self::PassedOver,
            v1::TraceOutcome::RetryQueue => Self::Waiting,
            v1::TraceOutcome::Parked => Self::Parked,
            v1::TraceOutcome::DeadLetter => Self::DeadLetter,
            v1::TraceOutcome::DeadLetterDone => Self::DeadLetterDone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, parent: Option<usize>, subscribers: &[&str]) -> TracedEvent {
        let origin = parent.map(|parent| Origin {
            parent: Some(parent),
            subscriber: Some("a/s".to_owned()),
            ..Origin::default()
        });
        let handling = |name: &&str| Handling {
            subscriber: (*name).to_owned(),
            outcome: TraceOutcome::Handled,
            outputs: 0,
            attempts: None,
            digest: None,
            failure: String::new(),
            reason: String::new(),
            due_ns: None,
        };
        let handlings = subscribers.iter().map(handling).collect();
        TracedEvent { topic: topic.to_owned(), origin, handlings, ..TracedEvent::default() }
    }

    #[test]
    fn who_may_not_see_all_of_a_trace_sees_the_numbers_of_the_rest() {
        let events = vec![
            event("a/in", None, &["a/s", "b/s"]),
            event("b/out", Some(0), &["b/t"]),
            event("a/out", Some(1), &[]),
            event("a/out", Some(0), &["a/t"]),
        ];
        let trace = Trace { events, found: 3, ..Trace::default() };
        let is_own = |name: &str| name.starts_with("a/");
        let shown = trace.clone().restricted(is_own, is_own).unwrap();
        let topics: Vec<_> = shown.events.iter().map(|event| event.topic.as_str()).collect();
        assert_eq!((topics, shown.found), (vec!["a/in", "a/out", "a/out"], 2));
        assert_eq!((shown.hidden_events, shown.hidden_handlings), (1, 1));
        let parents = shown.events.iter().map(|event| event.origin.as_ref().map(|origin| origin.parent));
        assert_eq!(parents.collect::<Vec<_>>(), [None, Some(None), Some(Some(0))]);

        assert_eq!(trace.clone().restricted(|_| true, |_| true), Some(trace.clone()));
        let other = Trace { found: 1, ..trace };
        assert_eq!(other.restricted(is_own, is_own), None, "what was asked for is not to be seen");
    }
}
