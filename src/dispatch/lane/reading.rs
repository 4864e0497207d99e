//! What a lane has read, and what of it is for the lane: asked once for each event, when it is read.
//!
//! ```text
//!   read    0   1   2   3   4   5       `when` lets 1, 3 and 4 through
//!   held        1       3   4           these are called together
//!   ends at     3       4   6           once 3 is done, the lane is at 4
//! ```
//!
//! Nothing comes of an event that is passed over, so it is consumed with the one before it, in the same unit; those before
//! the first one are consumed with that. A call has as many events as there are, however many are passed over between them.

use std::collections::HashSet;
use std::sync::Arc;

use super::batch::{Held, Parsed, Unreadable};
use crate::dispatch::rules::when;
use crate::engine::Chunk;
use crate::model::Offset;
use crate::topology::Condition;

/// Events that were read.
#[derive(Default)]
pub(crate) struct Reading {
    /// Those that are for the lane, or of which that cannot be said.
    pub(super) held: Vec<Held>,
    /// One for each of them.
    pub(super) places: Vec<Place>,
    /// How many are passed over before the first of them; all that were read, where there is none.
    pub(super) passed_over: u64,
    /// Behind the last event that was read.
    pub(super) end: Offset,
}

/// What is consumed with an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the lane is once the event is done: behind those that are passed over after it.
    pub(super) end: Offset,
    /// How many are passed over with it.
    pub(super) passed_over: u64,
    /// Why it cannot be said whether the event is for the lane, where that is so.
    pub(super) unanswered: Option<String>,
}

/// Events that were read and are for the lane, on their way to their ends.
#[derive(Clone, Copy)]
pub(crate) struct Read<'e> {
    pub(super) held: &'e Arc<Vec<Held>>,
    pub(super) places: &'e [Place],
    pub(super) events: &'e [Parsed<'e>],
}

impl<'e> Read<'e> {
    /// An event, with what is consumed with it.
    pub(super) fn at(self, at: usize) -> Option<(&'e Parsed<'e>, &'e Place)> {
        Some((self.events.get(at)?, self.places.get(at)?))
    }

    /// The places of so many events from `at` on.
    pub(super) fn places_of(self, at: usize, count: usize) -> &'e [Place] {
        self.places.get(at..at + count).unwrap_or_default()
    }
}

impl Reading {
    /// Takes in what was read next. Only what is for the lane is copied.
    pub(super) fn take(&mut self, chunks: &[Chunk], when: Option<&Condition>) -> Result<(), Unreadable> {
        self.take_asking(
            chunks,
            when.map(|condition| |event: &Parsed<'_>| when::passes(condition, &event.view, Some(event.key))),
        )
    }

    fn take_asking(
        &mut self,
        chunks: &[Chunk],
        mut passes: Option<impl FnMut(&Parsed<'_>) -> Result<bool, String>>,
    ) -> Result<(), Unreadable> {
        let mut kept = Vec::new();
        for stored in chunks.iter().flat_map(Chunk::iter) {
            let end = stored.offset + 1;
            let unanswered = match &mut passes {
                None => None,
                Some(passes) => match passes(&Parsed::of(&stored)?) {
                    Ok(true) => None,
                    Err(reason) => Some(reason),
                    Ok(false) => {
                        self.pass_over(end, 1);
                        continue;
                    }
                },
            };
            self.places.push(Place { end, passed_over: std::mem::take(&mut self.passed_over), unanswered });
            self.end = end;
            kept.push(stored);
        }
        self.held.extend(Held::copies(&kept));
        Ok(())
    }

    /// These are somebody else's.
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

    /// Bytes of the records of those that are for the lane.
    pub(super) fn bytes(&self) -> usize {
        self.held.iter().map(Held::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Record};

    /// Events from an offset on, in chunks of so many.
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

    /// Offset, end and how many are passed over, for each that is held.
    fn held(reading: &Reading) -> Vec<(Offset, Offset, u64)> {
        let places = reading.held.iter().zip(&reading.places);
        places.map(|(held, place)| (held.offset, place.end, place.passed_over)).collect()
    }

    fn of(chunks: &[Chunk], passes: impl Fn(Offset) -> Result<bool, String>) -> (Reading, Vec<Offset>) {
        let (mut reading, mut asked) = (Reading::default(), Vec::new());
        for chunk in chunks {
            let ask = |event: &Parsed<'_>| {
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
        let mut all = Reading::default();
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
