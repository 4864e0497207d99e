//! Input of a comparison: the last events that a subscriber has handled, and their recorded results.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{ShadowError, TopicNames, output_of};
use crate::api::ShadowResult;
use crate::dispatch::lane::batch::BatchEvent;
use crate::dispatch::lane::waiting;
use crate::dispatch::ops::error::ControlError;
use crate::dispatch::ops::subscriber::Subscriber;
use crate::dispatch::rules::when;
use crate::engine::{Engine, ReadBudget};
use crate::limits;
use crate::model::{Offset, PartitionId, Record};

const BUDGET: ReadBudget = ReadBudget { events: 1_000, bytes: 1 << 20 };
/// Waiting events that are read at once.
const WAITING_PAGE: usize = 1_000;

/// Events of one partition.
pub(super) struct Selection {
    pub(super) partition: u32,
    /// The handled events, in order.
    pub(super) held: Arc<Vec<BatchEvent>>,
    pub(super) passed_over: u64,
    pub(super) waiting: u64,
}

/// The recorded results of events.
#[derive(Default)]
pub(super) struct RecordedResults {
    events: BTreeMap<(u32, Offset), RecordedResult>,
    /// Per partition, the offset from which on the running version has handled the events.
    running_from: BTreeMap<u32, Offset>,
    /// Outputs of events before this time may have been removed by retention.
    whole_from_ns: u64,
}

/// The recorded result of one event.
#[derive(Default)]
pub(super) struct RecordedResult {
    pub(super) seen: ShadowResult,
}

impl RecordedResult {
    /// Whether `seen` equals the record: the same outputs, or a failure in both.
    pub(super) fn is_like(&self, seen: &ShadowResult) -> bool {
        let (recorded, made) = (&self.seen.outputs, &seen.outputs);
        let is_there = |(id, output): (&String, &super::ShadowOutput)| match recorded.get(id) {
            Some(recorded) => {
                (&recorded.topic, &recorded.key, &recorded.event) == (&output.topic, &output.key, &output.event)
            }
            None => output.is_delayed,
        };
        let has_failed = self.seen.failure.is_some() && recorded.is_empty();
        made.iter().all(is_there)
            && recorded.keys().all(|id| made.contains_key(id))
            && has_failed == seen.failure.is_some()
    }
}

impl RecordedResults {
    /// Removes the events without a recorded result. Returns their number.
    pub(super) fn keep_known(&self, part: &mut Selection) -> u64 {
        let Some(mut held) = Arc::get_mut(&mut part.held).map(std::mem::take) else { return 0 };
        let before = held.len();
        held.retain(|held| self.events.contains_key(&(part.partition, held.offset)));
        let left_out = before - held.len();
        part.held = Arc::new(held);
        left_out as u64
    }

    /// The recorded result of an event, if it is complete and stems from the running version. `None` if nothing is
    /// recorded, since a seek or a drop may have skipped the event.
    pub(super) fn of(&self, part: &Selection, at: usize) -> Option<&RecordedResult> {
        let held = part.held.get(at)?;
        let is_running = self.running_from.get(&part.partition).is_some_and(|from| held.offset >= *from);
        if !is_running || held.append_time_ns < self.whole_from_ns {
            return None;
        }
        self.events.get(&(part.partition, held.offset))
    }
}

/// How many of its last events each partition contributes so that the sum is `last`, or as close as possible.
fn shares(available: &[u64], last: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..available.len()).collect();
    order.sort_by_key(|index| available.get(*index).copied());
    let (mut shares, mut left, mut partitions) = (vec![0; available.len()], last, available.len() as u64);
    for index in order {
        let share = available.get(index).copied().unwrap_or(0).min(left.div_ceil(partitions.max(1)));
        if let Some(of) = shares.get_mut(index) {
            *of = share;
        }
        left -= share;
        partitions -= 1;
    }
    shares
}

impl<E: Engine> Subscriber<E> {
    /// The last events that it has handled.
    pub(super) async fn select_last(&self, last: u32) -> Result<Vec<Selection>, ShadowError> {
        let handled = self.handled();
        let available: Vec<u64> = handled.iter().map(|of| of.end.saturating_sub(of.start)).collect();
        let shares = shares(&available, u64::from(last));
        let ranges = handled.into_iter().zip(shares).map(|(of, share)| of.end - share..of.end);
        self.read_parts(ranges.collect()).await
    }

    /// The first events that it has handled after these positions.
    pub(super) async fn select_behind(&self, positions: &[Offset], most: u32) -> Result<Vec<Selection>, ShadowError> {
        let ends = self.handled().into_iter().map(|of| of.end);
        let behind: Vec<_> = positions.iter().zip(ends).map(|(from, end)| *from..end.max(*from)).collect();
        let available: Vec<u64> = behind.iter().map(|of| of.end - of.start).collect();
        let shares = shares(&available, u64::from(most));
        let ranges = behind.into_iter().zip(shares).map(|(of, share)| of.start..of.start + share);
        self.read_parts(ranges.collect()).await
    }

    /// The stored events that it has handled, by partition.
    fn handled(&self) -> Vec<Range<Offset>> {
        (0..self.partitions()).map(|partition| self.handled_of(partition)).collect()
    }

    pub(super) fn handled_of(&self, partition: u32) -> Range<Offset> {
        let position = self.engine().position(self.lane(partition)).unwrap_or(0);
        let kept = self.engine().bounds(PartitionId { topic: self.input, partition }).unwrap_or_default();
        kept.start..position.min(kept.written)
    }

    async fn read_parts(&self, ranges: Vec<Range<Offset>>) -> Result<Vec<Selection>, ShadowError> {
        let (mut selected, mut bytes) = (Vec::new(), 0);
        for (partition, range) in (0..).zip(ranges) {
            let (part, _) = self.read_part(partition, range, u64::MAX, &mut bytes).await?;
            selected.push(part);
        }
        Ok(selected)
    }

    /// At most `most` handled events of a range, and the offset to continue at. Adds their size to `bytes`.
    pub(super) async fn read_part(
        &self,
        partition: u32,
        range: Range<Offset>,
        most: u64,
        bytes: &mut usize,
    ) -> Result<(Selection, Offset), ShadowError> {
        let input = PartitionId { topic: self.input, partition };
        self.until_durable(input, range.end).await?;
        let entries = self.entries(partition)?;
        let mut waiting_offsets = BTreeSet::new();
        let mut number = 0;
        loop {
            let page = waiting::list(&entries, number, WAITING_PAGE).map_err(ControlError::from)?;
            let Some((last, _)) = page.last() else { break };
            number = last + 1;
            waiting_offsets.extend(page.into_iter().map(|(_, waiter)| waiter.offset));
        }
        let mut part = Selection { partition, held: Arc::default(), passed_over: 0, waiting: 0 };
        let (mut held, mut from, mut next) = (Vec::new(), range.start, range.end);
        'range: while from < range.end {
            let chunks = self.engine().read(input, from, BUDGET).await?;
            let Some(last) = chunks.last() else { break };
            from = last.end_offset();
            for event in BatchEvent::all(&chunks).into_iter().filter(|event| range.contains(&event.offset)) {
                if held.len() as u64 >= most {
                    next = event.offset;
                    break 'range;
                }
                if waiting_offsets.contains(&event.offset) {
                    part.waiting += 1;
                    continue;
                }
                let parsed = event.parse().map_err(|error| ShadowError::Unreadable(error.to_string()))?;
                let passes = self.plan().when.as_ref().map(|when| when::passes(when, &parsed.view, Some(parsed.key)));
                if matches!(passes, Some(Ok(false) | Err(_))) {
                    // A condition that cannot be evaluated means that the plugin was not called either.
                    part.passed_over += 1;
                    continue;
                }
                *bytes += event.bytes();
                if *bytes > limits::SHADOW_BYTES_MAX {
                    return Err(ShadowError::TooLarge { max: limits::SHADOW_BYTES_MAX });
                }
                held.push(event);
            }
        }
        part.held = Arc::new(held);
        Ok((part, next))
    }

    /// Waits until everything before `end` is durable, since only durable events can be read.
    async fn until_durable(&self, partition: PartitionId, end: Offset) -> Result<(), ShadowError> {
        match end.checked_sub(1) {
            Some(last) => Ok(self.engine().wait_durable(partition, last).await?),
            None => Ok(()),
        }
    }

    /// The topics that it publishes to, by number: their names, and whether they hold dead letters.
    pub(super) fn topics_behind(&self) -> TopicNames {
        let plan = &self.running.plan;
        let ports = self.plan().ports.iter().map(|(_, topic)| (*topic, false));
        let all = ports.chain(self.plan().dead_letters.map(|topic| (topic, true)));
        let named = all.filter_map(|(topic, is_dead)| {
            let of = plan.topics.get(topic.0 as usize)?;
            // diverted events were published to the same topic
            let numbers = [Some(topic), of.diverts_to].into_iter().flatten();
            let numbers = numbers.filter_map(|topic| self.running.numbers.topics.get(topic.0 as usize));
            Some(numbers.map(move |number| (*number, (of.label(), is_dead))))
        });
        let named = named.flatten();
        Arc::new(named.collect())
    }

    /// The recorded results of events: the events in its output topics that were made from them.
    pub(super) async fn recorded<'s>(
        &self,
        selected: impl Iterator<Item = &'s Selection> + Clone,
    ) -> Result<RecordedResults, ShadowError> {
        let running = Some(self.stable_version());
        let first = selected.clone().filter_map(|part| part.held.first()).map(|held| held.append_time_ns).min();
        let mut recorded = RecordedResults::default();
        let Some(first_ns) = first else { return Ok(recorded) };
        let ranges: BTreeMap<u32, (Offset, Offset)> = selected
            .filter_map(|part| Some((part.partition, (part.held.first()?.offset, part.held.last()?.offset))))
            .collect();
        // Per partition, the first offset with outputs of the running version, and the last with outputs of another
        // one.
        let mut versions: BTreeMap<u32, (Option<Offset>, Option<Offset>)> = BTreeMap::new();
        let mut bytes = 0;
        for (topic, (label, is_dead)) in self.topics_behind().iter() {
            for partition in (0..).map(|partition| PartitionId { topic: *topic, partition }) {
                let Some(bounds) = self.engine().bounds(partition) else { break };
                self.until_durable(partition, bounds.written).await?;
                // Outputs are never appended before their input.
                let mut from = self.engine().offset_at_time(partition, first_ns).await?.max(bounds.start);
                let mut is_first = true;
                while from < bounds.written {
                    let chunks = self.engine().read(partition, from, BUDGET).await?;
                    let Some(last) = chunks.last() else { break };
                    from = last.end_offset();
                    for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
                        if std::mem::take(&mut is_first) && bounds.start > 0 && stored.offset == bounds.start {
                            recorded.whole_from_ns = recorded.whole_from_ns.max(stored.append_time_ns);
                        }
                        let unreadable =
                            |reason: String| ShadowError::Unreadable(format!("an event in {label}: {reason}"));
                        let record = Record::parse(stored.record).map_err(|error| unreadable(error.to_string()))?;
                        let Some(lineage) = record.lineage.filter(|lineage| lineage.subscriber == self.number) else {
                            continue;
                        };
                        let (of, at) = (lineage.partition, lineage.offset);
                        if !ranges.get(&of).is_some_and(|(first, last)| (*first..=*last).contains(&at)) {
                            continue;
                        }
                        let (running_first, others_last) = versions.entry(of).or_default();
                        match Some(lineage.version) == running {
                            true => *running_first = Some(running_first.map_or(at, |first| first.min(at))),
                            false => *others_last = Some(others_last.map_or(at, |last| last.max(at))),
                        }
                        let event = recorded.events.entry((of, at)).or_default();
                        if *is_dead {
                            event.seen.failure = Some(("dead_letter".to_owned(), "it is a dead letter".to_owned()));
                            continue;
                        }
                        bytes += stored.record.len();
                        if bytes > limits::SHADOW_BYTES_MAX {
                            return Err(ShadowError::TooLarge { max: limits::SHADOW_BYTES_MAX });
                        }
                        let (id, output) = output_of(label, stored.record, false).map_err(unreadable)?;
                        event.seen.outputs.insert(id, output);
                    }
                }
                if is_first && bounds.start > 0 && bounds.start == bounds.written {
                    // All outputs have expired.
                    recorded.whole_from_ns = u64::MAX;
                }
            }
        }
        recorded.running_from = versions
            .into_iter()
            .filter_map(|(partition, (running, others))| {
                let behind_others = others.map_or(0, |last| last + 1);
                Some((partition, running?.max(behind_others)))
            })
            .collect();
        Ok(recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_give_equal_shares_as_far_as_they_have_them() {
        assert_eq!(shares(&[10, 10, 10, 10], 8), [2, 2, 2, 2]);
        assert_eq!(shares(&[1, 100, 0, 100], 9), [1, 4, 0, 4]);
        assert_eq!(shares(&[3, 4], 100), [3, 4]);
        assert_eq!(shares(&[5, 5], 1).iter().sum::<u64>(), 1);
        assert_eq!(shares(&[], 5), Vec::<u64>::new());
    }
}
