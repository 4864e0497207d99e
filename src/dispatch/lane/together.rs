//! Number of events per unit while guards refuse some of them.
//!
//! A single refused event makes the whole unit fail. With full batches after each refusal, `k` refusals would cost `k`
//! whole batches. So after a refusal the next unit has as many events as were before the refused one, and the number
//! doubles with each unit that succeeds: the wasted work is proportional to the successful work, and if every event is
//! refused, each goes alone.

use crate::limits;

/// Number of events per unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventsPerUnit(usize);

impl Default for EventsPerUnit {
    /// As many as a batch has.
    fn default() -> Self {
        Self(limits::BATCH_EVENTS_MAX as usize)
    }
}

impl EventsPerUnit {
    /// Maximum number of events in the next unit.
    pub(crate) fn most(self) -> usize {
        self.0
    }

    /// An event was refused; `in_front` is the number of events before it.
    pub(crate) fn refused(&mut self, in_front: usize) {
        self.0 = in_front.max(1);
    }

    /// A unit with this number of events has succeeded.
    pub(super) fn passed(&mut self, events: usize) {
        if events >= self.0 {
            self.0 = (2 * self.0).min(limits::BATCH_EVENTS_MAX as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of submitted events, with repetitions, and of units, until a batch is done in which these are refused.
    fn handed_in(count: usize, is_refused: impl Fn(usize) -> bool) -> (usize, usize) {
        let (mut together, mut at, mut events, mut units) = (EventsPerUnit::default(), 0, 0, 0);
        while at < count {
            let unit = together.most().min(count - at);
            (events, units) = (events + unit, units + 1);
            match (at..at + unit).position(&is_refused) {
                None => {
                    together.passed(unit);
                    at += unit;
                }
                Some(in_front) => {
                    together.refused(in_front);
                    // the events before it, and the handling of the refused one
                    (events, units) = (events + in_front + 1, units + 1);
                    at += in_front + 1;
                }
            }
        }
        (events, units)
    }

    #[test]
    fn refusals_cost_a_multiple_of_the_events_and_not_of_their_product() {
        let batch = limits::BATCH_EVENTS_MAX as usize;
        assert_eq!(handed_in(batch, |_| false), (batch, 1));
        let (events, units) = handed_in(batch, |_| true);
        assert!(events <= 3 * batch && units <= 2 * batch, "all: {events} events in {units} units");
        for apart in [2, 3, 5, 10, 50, 100] {
            for first in 0..apart {
                let (events, units) = handed_in(batch, |at| at % apart == first);
                let refused = batch / apart + 1;
                let rounds = usize::ilog2(apart) as usize + 3;
                assert!(events <= 5 * batch, "each {apart}th from {first}: {events} events");
                assert!(units <= refused * rounds + 8, "each {apart}th from {first}: {units} units");
            }
        }
    }

    #[test]
    fn after_the_refusals_batches_are_whole_again_soon() {
        let mut together = EventsPerUnit::default();
        together.refused(0);
        let grown = std::iter::repeat_with(|| {
            let most = together.most();
            together.passed(most);
            most
        });
        assert_eq!(grown.take(10).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    }
}
