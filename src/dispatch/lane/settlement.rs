//! What a lane does with the answer to a call, event after event: pure tables.
//!
//! | verdict of the event | and | step |
//! |---|---|---|
//! | `not_reached` | so are all later events of the call | `CallAgain`: it is called again, with those |
//! | any other | an earlier event of its key waits | `Queue`: after that one; its own verdict does not count |
//! | `done` | | `Commit`, in one unit with the events that follow and are done |
//! | `retry`, `reject` | | `Fail`: a failed attempt |
//! | `pending` | | `Wait`: in the retry queue, and called again after a pause |
//! | `not_reached` | a later event has another verdict | `Queue`: in the retry queue, and called again at once |
//!
//! A step is chosen when the one before it has been executed: whether a failed event is in the retry queue, or is
//! a dead letter and holds back nothing, depends on the topology.
//!
//! | outputs | state | bytes | a unit of events that are done ends |
//! |---|---|---|---|
//! | fit | fits | fit | after the last event |
//! | fit up to k | fits, or is refused after k | fit | before k, which begins the next unit |
//! | are refused at k | fits, or is refused after k | fit | before k, which has failed |
//! | fit up to k, or are refused at k | is refused at k or before | fit | before that event, which has failed |
//! | | | do not fit | in the middle; a single event has failed |

use super::outputs::Fit;
use crate::limits;
use crate::model::call::EventVerdict;

/// What is to be done next with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettleStep {
    /// The events before `end` are done.
    Commit { end: usize },
    /// The attempt at the event failed.
    Fail,
    /// Into the retry queue, without an attempt.
    Queue,
    /// Into the retry queue, without an attempt, and called again after a pause.
    Wait,
    /// Nothing is known of the event and of all later ones.
    CallAgain,
}

impl SettleStep {
    /// The step for the event at `at`; `None` after the last one. `is_behind`: an earlier event of the same key is
    /// in the retry queue.
    pub(super) fn next(verdicts: &[EventVerdict], at: usize, is_behind: impl Fn(usize) -> bool) -> Option<Self> {
        let rest = verdicts.get(at..)?;
        let first = rest.first()?;
        if rest.iter().all(|verdict| *verdict == EventVerdict::NotReached) {
            return Some(Self::CallAgain);
        }
        Some(match first {
            _ if is_behind(at) => Self::Queue,
            EventVerdict::Done => {
                let later = (at + 1..).zip(rest.iter().skip(1));
                let done = later.take_while(|(at, verdict)| **verdict == EventVerdict::Done && !is_behind(*at));
                Self::Commit { end: at + 1 + done.count() }
            }
            EventVerdict::Retry { .. } | EventVerdict::Reject { .. } => Self::Fail,
            EventVerdict::Pending => Self::Wait,
            EventVerdict::NotReached => Self::Queue,
        })
    }
}

/// Where a unit of events that are done ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnitEnd {
    pub(super) end: usize,
    /// Why the event at the end has failed; `None` where it is not to blame.
    pub(super) refused: Option<String>,
}

impl UnitEnd {
    /// Of events before `end` whose outputs fit so far, and of which one makes the state larger than it may be.
    pub(super) fn of(end: usize, fit: Fit, state_full: Option<(u32, String)>) -> Self {
        let (end, refused) = match fit {
            Fit::All => (end, None),
            Fit::UpTo(event) => (event as usize, None),
            Fit::Refused(event, reason) => (event as usize, Some(reason)),
        };
        match state_full {
            Some((event, reason)) if event as usize <= end => Self { end: event as usize, refused: Some(reason) },
            _ => Self { end, refused },
        }
    }

    /// An earlier end, where the unit has more bytes than it may.
    pub(super) fn shorter(&self, start: usize, bytes: usize) -> Option<Self> {
        let max = limits::UNIT_BYTES_MAX;
        match self.end - start {
            _ if bytes <= max => None,
            0 => None,
            1 => {
                let reason = format!("its outputs and its state are {bytes} bytes together, a unit may have {max}");
                Some(Self { end: start, refused: Some(reason) })
            }
            events => Some(Self { end: start + events / 2, refused: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EventVerdict::{Done, NotReached, Pending, Reject, Retry};
    use super::*;

    #[test]
    fn each_verdict_has_its_step() {
        let (retry, reject) = (Retry { after: None, reason: "r".into() }, Reject { reason: "r".into() });
        let first = |verdicts: &[&EventVerdict], behind: &[usize]| {
            let verdicts: Vec<_> = verdicts.iter().map(|verdict| (*verdict).clone()).collect();
            SettleStep::next(&verdicts, 0, |at| behind.contains(&at))
        };
        for (verdicts, behind, step) in [
            (vec![&NotReached], &[][..], SettleStep::CallAgain),
            (vec![&NotReached, &NotReached], &[0, 1], SettleStep::CallAgain),
            (vec![&NotReached, &Done], &[], SettleStep::Queue),
            (vec![&NotReached, &Pending, &NotReached], &[], SettleStep::Queue),
            (vec![&Done], &[0], SettleStep::Queue),
            (vec![&Pending], &[0], SettleStep::Queue),
            (vec![&retry], &[0], SettleStep::Queue),
            (vec![&reject], &[0], SettleStep::Queue),
            (vec![&Done], &[], SettleStep::Commit { end: 1 }),
            (vec![&Done, &Done, &retry], &[], SettleStep::Commit { end: 2 }),
            (vec![&Done, &Done, &Done], &[1], SettleStep::Commit { end: 1 }),
            (vec![&Done, &NotReached], &[], SettleStep::Commit { end: 1 }),
            (vec![&retry, &Done], &[], SettleStep::Fail),
            (vec![&reject, &Done], &[], SettleStep::Fail),
            (vec![&Pending, &Done], &[], SettleStep::Wait),
        ] {
            assert_eq!(first(&verdicts, behind), Some(step), "{verdicts:?}, behind {behind:?}");
        }
        assert_eq!(first(&[], &[]), None);
        let done = [Done, Done, Done];
        assert_eq!(SettleStep::next(&done, 2, |_| false), Some(SettleStep::Commit { end: 3 }));
        assert_eq!((SettleStep::next(&done, 3, |_| false), SettleStep::next(&done, 4, |_| false)), (None, None));
    }

    #[test]
    fn a_unit_ends_before_the_first_event_that_does_not_go_in() {
        let end = |fit, state: Option<u32>| {
            let UnitEnd { end, refused } = UnitEnd::of(9, fit, state.map(|event| (event, "state".to_owned())));
            (end, refused)
        };
        let refused = |event| Fit::Refused(event, "outputs".to_owned());
        let (outputs, state) = (Some("outputs".to_owned()), Some("state".to_owned()));
        assert_eq!(end(Fit::All, None), (9, None));
        assert_eq!(end(Fit::All, Some(3)), (3, state.clone()));
        assert_eq!(end(Fit::UpTo(5), None), (5, None));
        assert_eq!(end(Fit::UpTo(5), Some(6)), (5, None));
        assert_eq!(end(Fit::UpTo(5), Some(5)), (5, state.clone()));
        assert_eq!(end(Fit::UpTo(5), Some(4)), (4, state.clone()));
        assert_eq!(end(refused(5), None), (5, outputs.clone()));
        assert_eq!(end(refused(5), Some(6)), (5, outputs));
        assert_eq!(end(refused(5), Some(5)), (5, state.clone()));
        assert_eq!(end(refused(5), Some(4)), (4, state));
    }

    #[test]
    fn what_is_too_large_is_halved_until_one_event_is_to_blame() {
        let max = limits::UNIT_BYTES_MAX;
        let unit = |end| UnitEnd { end, refused: None };
        assert_eq!(unit(9).shorter(0, max), None);
        assert_eq!(unit(9).shorter(2, max + 1), Some(unit(5)));
        let alone = unit(3).shorter(2, max + 1).unwrap();
        assert!(
            alone.end == 2 && alone.refused.as_ref().is_some_and(|reason| reason.contains("together")),
            "{alone:?}"
        );
        assert_eq!(alone.shorter(2, max + 1), None, "nothing is left of it");
    }
}
