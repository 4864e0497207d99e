//! The events that a lane has read, and those of them that it handles: each event is checked once, when it is read.
//!
//! ```text
//!   read    0   1   2   3   4   5       `when` selects 1, 3 and 4
//!   held        1       3   4           these are called together
//!   ends at     3       4   6           once 3 is done, the lane is at 4
//! ```
//!
//! A skipped event has no outputs, so it is consumed together with the event before it, in the same unit; skipped
//! events before the first one are consumed together with that. Skipped events do not make calls smaller.

use std::collections::HashSet;
use std::sync::Arc;

use super::batch::{BatchEvent, ParsedEvent, Unreadable};
use crate::dispatch::rules::when;
use crate::engine::Chunk;
use crate::model::Offset;
use crate::topology::Condition;

/// Events that were read.
#[derive(Default)]
pub(crate) struct ReadEvents {
    /// Events that the lane handles, or for which the condition cannot be evaluated.
    pub(super) held: Vec<BatchEvent>,
    /// One per event in `held`.
    pub(super) places: Vec<EventSpan>,
    /// Number of skipped events before the first event in `held`; all events that were read if there is none.
    pub(super) passed_over: u64,
    /// Offset after the last event that was read.
    pub(super) end: Offset,
}

/// What is consumed together with an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventSpan {
    /// Position of the lane once the event is done: after the skipped events that follow it.
    pub(super) end: Offset,
    /// Number of skipped events consumed with it.
    pub(super) passed_over: u64,
    /// The error if the condition cannot be evaluated.
    pub(super) unanswered: Option<String>,
}

/// Events to be handled, with their places.
#[derive(Clone, Copy)]
pub(crate) struct ReadBatch<'e> {
    pub(super) held: &'e Arc<Vec<BatchEvent>>,
    pub(super) places: &'e [EventSpan],
    pub(super) events: &'e [ParsedEvent<'e>],
}

impl<'e> ReadBatch<'e> {
    /// An event with its place.
    pub(super) fn at(self, at: usize) -> Option<(&'e ParsedEvent<'e>, &'e EventSpan)> {
        Some((self.events.get(at)?, self.places.get(at)?))
    }

    /// The places of `count` events from `at` on.
    pub(super) fn places_of(self, at: usize, count: usize) -> &'e [EventSpan] {
        self.places.get(at..at + count).unwrap_or_default()
    }
}

impl ReadEvents {
    /// Adds the events that were read next. Copies only those that the lane handles.
    pub(super) fn take(&mut self, chunks: &[Chunk], when: Option<&Condition>) -> Result<(), Unreadable> {
        self.take_asking(
            chunks,
            when.map(|condition| |event: &ParsedEvent<'_>| when::passes(condition, &event.view, Some(event.key))),
        )
    }

    fn take_asking(
        &mut self,
        chunks: &[Chunk],
        mut passes: Option<impl FnMut(&ParsedEvent<'_>) -> Result<bool, String>>,
    ) -> Result<(), Unreadable> {
        let mut kept = Vec::new();
        for stored in chunks.iter().flat_map(Chunk::iter) {
            let end = stored.offset + 1;
            let unanswered = match &mut passes {
                None => None,
                Some(passes) => match passes(&ParsedEvent::of(&stored)?) {
                    Ok(true) => None,
                    Err(reason) => Some(reason),
                    Ok(false) => {
                        self.pass_over(end, 1);
                        continue;
                    }
                },
            };
            self.places.push(EventSpan { end, passed_over: std::mem::take(&mut self.passed_over), unanswered });
            self.end = end;
            kept.push(stored);
        }
        self.held.extend(BatchEvent::copies(&kept));
        Ok(())
    }

    /// Skips these events, which belong to other members of the group.
    pub(super) fn leave_out(&mut self, lost: &HashSet<Offset>) {
        if lost.is_empty() {
            return;
        }
        let places = std::mem::take(&mut self.places);
        for (held, mut place) in std::mem::take(&mut self.held).into_iter().zip(places) {
            if lost.contains(&held.offset) {
                self.pass_over(place.end, place.passed_over + 1);
            } else {
                place.passed_over += std::mem::take(&mut self.passed_over);
                self.held.push(held);
                self.places.push(place);
            }
        }
    }

    fn pass_over(&mut self, end: Offset, count: u64) {
        self.end = self.end.max(end);
        match self.places.last_mut() {
            Some(last) => (last.end, last.passed_over) = (end, last.passed_over + count),
            None => self.passed_over += count,
        }
    }

    /// Size of the records in `held`.
    pub(super) fn bytes(&self) -> usize {
        self.held.iter().map(BatchEvent::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Record};

    /// Events from an offset on, in chunks of these sizes.
    fn chunks(from: Offset, sizes: &[u32]) -> Vec<Chunk> {
        let mut base_offset = from;
        let chunk = |count: &u32| {
            let mut slices = crate::engine::Slices::default();
            let partition = crate::model::PartitionId { topic: crate::model::TopicId(1), partition: 0 };
            for _ in 0..*count {
                let event = Event { id: "i".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
                let record = |out: &mut Vec<u8>| Record { key: "k", lineage: None, event: &event.encode() }.write(out);
                slices.push(partition, record).unwrap();
            }
            let records = slices.iter().next().unwrap().records.to_vec().into();
            let (count, append_time_ns, trusted_time_ns) = (*count, 1, 1);
            let chunk = Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch: 1, records };
            base_offset = chunk.end_offset();
            chunk
        };
        sizes.iter().map(chunk).collect()
    }

    /// Offset, end and number of skipped events for each event in `held`.
    fn held(reading: &ReadEvents) -> Vec<(Offset, Offset, u64)> {
        let places = reading.held.iter().zip(&reading.places);
        places.map(|(held, place)| (held.offset, place.end, place.passed_over)).collect()
    }

    fn of(chunks: &[Chunk], passes: impl Fn(Offset) -> Result<bool, String>) -> (ReadEvents, Vec<Offset>) {
        let (mut reading, mut asked) = (ReadEvents::default(), Vec::new());
        for chunk in chunks {
            let ask = |event: &ParsedEvent<'_>| {
                asked.push(event.offset);
                passes(event.offset)
            };
            reading.take_asking(std::slice::from_ref(chunk), Some(ask)).unwrap();
        }
        (reading, asked)
    }

    #[test]
    fn each_event_is_asked_about_once_and_consumed_with_the_one_before_it() {
        let chunks = chunks(10, &[1, 3, 2]);
        let (reading, asked) = of(&chunks, |offset| Ok([11, 13, 14].contains(&offset)));
        assert_eq!(asked, [10, 11, 12, 13, 14, 15]);
        assert_eq!(held(&reading), [(11, 13, 2), (13, 14, 0), (14, 16, 1)]);
        assert_eq!((reading.passed_over, reading.end), (0, 16));
        let mut all = ReadEvents::default();
        all.take(&chunks, None).unwrap();
        assert_eq!(held(&all), (10..16).map(|offset| (offset, offset + 1, 0)).collect::<Vec<_>>());
    }

    #[test]
    fn where_none_is_for_the_lane_all_are_passed_over() {
        let (reading, _) = of(&chunks(0, &[2, 2]), |_| Ok(false));
        assert_eq!((held(&reading).len(), reading.passed_over, reading.end), (0, 4, 4));
    }

    #[test]
    fn what_has_no_answer_is_held_with_the_reason() {
        let (reading, _) = of(&chunks(0, &[2]), |offset| if offset == 1 { Err("why".into()) } else { Ok(false) });
        assert_eq!(held(&reading), [(1, 2, 1)]);
        assert_eq!(reading.places[0].unanswered.as_deref(), Some("why"));
    }

    #[test]
    fn what_is_somebody_elses_is_passed_over_as_well() {
        let odd = || of(&chunks(0, &[8]), |offset| Ok(offset % 2 == 1)).0;
        let without = |lost: &[Offset]| {
            let mut reading = odd();
            reading.leave_out(&lost.iter().copied().collect());
            (held(&reading), reading.passed_over, reading.end)
        };
        assert_eq!(without(&[]), (vec![(1, 3, 2), (3, 5, 1), (5, 7, 1), (7, 8, 0)], 0, 8));
        assert_eq!(without(&[1, 5]), (vec![(3, 7, 6), (7, 8, 0)], 0, 8));
        assert_eq!(without(&[7]), (vec![(1, 3, 2), (3, 5, 1), (5, 8, 2)], 0, 8));
        assert_eq!(without(&[1, 3, 5, 7]), (vec![], 8, 8));
    }
}
