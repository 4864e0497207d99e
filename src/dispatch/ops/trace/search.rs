//! Searches stored events for a trace, without an index: backwards for an event with a given id, forwards from an event
//! for its outputs.

use std::ops::Range;

use bytes::Bytes;

use super::TraceError;
use crate::engine::{Chunk, Engine, ReadBudget, ReadError};
use crate::model::{EventView, LaneId, Lineage, Offset, PartitionId, Place, Record};

/// Limits of one read.
const PAGE: ReadBudget = ReadBudget { events: 1_000, bytes: 1 << 20 };
/// Events per partition in the first round of a backward search; the number doubles each round.
const FIRST_ROUND: u64 = 1_000;
/// Maximum number of events per partition in a round.
const ROUND_MAX: u64 = 64_000;
/// Events read after the first output that the same lane made of a later event. A lane works in order, except that a
/// retried event is handled later.
const BEHIND_MAX: u64 = 100_000;

/// Remaining number of events that a search may read.
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    pub(super) fn new(events: u64) -> Self {
        Self { left: events }
    }

    /// Whether the limit is reached.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn spend(&mut self, chunks: &[Chunk]) {
        self.left = self.left.saturating_sub(chunks.iter().map(|chunk| u64::from(chunk.count)).sum());
    }
}

/// A stored event.
#[derive(Debug, Clone)]
pub(super) struct FoundEvent {
    pub(super) place: Place,
    pub(super) append_time_ns: u64,
    pub(super) record: Bytes,
}

impl FoundEvent {
    /// Parses the record and the event.
    pub(super) fn parse(&self) -> Result<(Record<'_>, EventView<'_>), ReadError> {
        let unreadable = |why: String| {
            ReadError::Storage(format!("the event at offset {} is damaged: {why}", self.place.offset).into())
        };
        let record = Record::parse(&self.record).map_err(|error| unreadable(error.to_string()))?;
        let view = record.view().map_err(|error| unreadable(error.to_string()))?;
        Ok((record, view))
    }

    /// The event's origin.
    pub(super) fn lineage(&self) -> Result<Option<Lineage>, ReadError> {
        Ok(self.parse()?.0.lineage)
    }
}

/// How the outputs of an event are spread over the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputSpread {
    /// All in one unit, and so with one append time.
    OneUnit,
    /// Independent of each other.
    Any,
}

/// A part of a partition that remains to be searched.
pub(super) struct SearchPart {
    partition: PartitionId,
    range: Range<Offset>,
    /// Remaining number of events once the lane has moved on to later inputs.
    left: Option<u64>,
}

/// Searches stored events.
pub(super) struct Search<'a, E> {
    pub(super) engine: &'a E,
}

impl<E: Engine> Search<'_, E> {
    /// The events of a partition since a time. Events that are written but not yet durable are included: waits for
    /// them.
    pub(super) async fn range(&self, partition: PartitionId, since_ns: Option<u64>) -> Result<SearchPart, TraceError> {
        let bounds = self.engine.durable_bounds(partition).await?.unwrap_or_default();
        let start = match since_ns {
            Some(time_ns) if bounds.start < bounds.durable => self.engine.offset_at_time(partition, time_ns).await?,
            _ => bounds.start,
        };
        Ok(SearchPart { partition, range: start.max(bounds.start)..bounds.durable, left: None })
    }

    /// The first events of a range.
    async fn page(&self, part: &SearchPart, budget: &mut Budget) -> Result<Vec<Chunk>, ReadError> {
        let chunks = self.engine.read(part.partition, part.range.start, PAGE).await?;
        budget.spend(&chunks);
        Ok(chunks)
    }

    /// The event at a place, if it is still stored.
    pub(super) async fn at(&self, place: Place) -> Result<Option<FoundEvent>, ReadError> {
        let one = ReadBudget { events: 1, bytes: 0 };
        let chunks = self.engine.read(place.partition, place.offset, one).await?;
        Ok(each(place.partition, &chunks).find(|found| found.place == place))
    }

    /// The latest event that matches, over all parts. Searches the newest events first, in growing rounds, since most
    /// queries are for recent events.
    pub(super) async fn latest(
        &self,
        mut parts: Vec<SearchPart>,
        is_meant: impl Fn(&EventView<'_>) -> bool,
        budget: &mut Budget,
    ) -> Result<Option<FoundEvent>, ReadError> {
        let mut round = FIRST_ROUND;
        while parts.iter().any(|part| !part.range.is_empty()) && !budget.is_spent() {
            let mut latest: Option<FoundEvent> = None;
            for part in parts.iter_mut().filter(|part| !part.range.is_empty()) {
                let from = part.range.end.saturating_sub(round).max(part.range.start);
                let mut rest = SearchPart { partition: part.partition, range: from..part.range.end, left: None };
                part.range.end = from;
                while !rest.range.is_empty() {
                    let chunks = self.page(&rest, budget).await?;
                    for found in each(rest.partition, &chunks).filter(|found| rest.range.contains(&found.place.offset))
                    {
                        let is_later =
                            latest.as_ref().is_none_or(|latest| latest.append_time_ns <= found.append_time_ns);
                        if is_later && is_meant(&found.parse()?.1) {
                            latest = Some(found);
                        }
                    }
                    rest.range.start = end_of(&chunks, &rest);
                }
            }
            if latest.is_some() {
                return Ok(latest);
            }
            round = (round * 2).min(ROUND_MAX);
        }
        Ok(None)
    }

    /// The outputs that a lane made of an event, in these partitions, in their order.
    pub(super) async fn made_of(
        &self,
        lane: LaneId,
        parent: &FoundEvent,
        partitions: &[PartitionId],
        within: OutputSpread,
        budget: &mut Budget,
    ) -> Result<Vec<FoundEvent>, TraceError> {
        let of_lane = |found: &FoundEvent| -> Result<Option<Offset>, ReadError> {
            let record = Record::parse(&found.record).map_err(|error| ReadError::Storage(error.to_string().into()))?;
            let lineage =
                record.lineage.filter(|of| (of.subscriber, of.partition) == (lane.subscriber, lane.partition));
            Ok(lineage.map(|lineage| lineage.offset))
        };
        let mut parts = Vec::with_capacity(partitions.len());
        for partition in partitions {
            parts.push(self.range(*partition, Some(parent.append_time_ns)).await?);
        }
        let mut made = Vec::new();
        while parts.iter().any(|part| !part.range.is_empty()) && !budget.is_spent() {
            for part in parts.iter_mut().filter(|part| !part.range.is_empty()) {
                let chunks = self.page(part, budget).await?;
                let mut looked_at = 0;
                for found in each(part.partition, &chunks).take_while(|found| found.place.offset < part.range.end) {
                    looked_at += 1;
                    match of_lane(&found)? {
                        Some(offset) if offset == parent.place.offset && within == OutputSpread::OneUnit => {
                            return self
                                .at_time(found.append_time_ns, partitions, |found| {
                                    Ok(of_lane(found)? == Some(parent.place.offset))
                                })
                                .await;
                        }
                        Some(offset) if offset == parent.place.offset => made.push(found),
                        Some(offset) if offset > parent.place.offset && within == OutputSpread::OneUnit => {
                            part.left.get_or_insert(BEHIND_MAX);
                        }
                        _ => {}
                    }
                }
                part.range.start = end_of(&chunks, part);
                if let Some(left) = &mut part.left {
                    *left = left.saturating_sub(looked_at);
                    if *left == 0 {
                        part.range.start = part.range.end;
                    }
                }
            }
        }
        Ok(made)
    }

    /// The matching events with this append time.
    async fn at_time(
        &self,
        time_ns: u64,
        partitions: &[PartitionId],
        is_meant: impl Fn(&FoundEvent) -> Result<bool, ReadError>,
    ) -> Result<Vec<FoundEvent>, TraceError> {
        let mut all = Vec::new();
        for partition in partitions {
            let mut part = self.range(*partition, Some(time_ns)).await?;
            while !part.range.is_empty() {
                let chunks = self.engine.read(part.partition, part.range.start, PAGE).await?;
                part.range.start = end_of(&chunks, &part);
                for found in each(*partition, &chunks) {
                    if found.append_time_ns > time_ns {
                        part.range.start = part.range.end;
                        break;
                    }
                    if is_meant(&found)? {
                        all.push(found);
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Start of the next page: the end of this one, or the end of the part if the page is empty.
fn end_of(chunks: &[Chunk], part: &SearchPart) -> Offset {
    chunks.last().map_or(part.range.end, Chunk::end_offset).min(part.range.end)
}

fn each(partition: PartitionId, chunks: &[Chunk]) -> impl Iterator<Item = FoundEvent> {
    chunks.iter().flat_map(move |chunk| {
        chunk.iter().map(move |stored| FoundEvent {
            place: Place { partition, offset: stored.offset },
            append_time_ns: stored.append_time_ns,
            record: chunk.records.slice_ref(stored.record),
        })
    })
}
