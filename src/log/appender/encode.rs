//! Encodes a group: submissions are judged, get their offsets, and become frames. Nothing is written here.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::super::Lane;
use super::super::clock::ClockState;
use super::super::frame::{CursorUpdate, Kind, LaneChange, Link, PartitionEntries, write_frame, write_unit};
use super::super::guards::{GuardLookup, Guards};
use super::super::queue::{AppendRefusal, Permit, SlicePlaces, Submission};
use super::super::runs::{LookupWait, RunLookup};
use super::super::sequencer::Judgement;
use super::super::store::LastSequence;
use super::super::syncer::Ack;
use super::super::tail::GroupChanges;
use super::{Appender, writer};
use crate::limits;
use crate::model::slices::Slice;
use crate::model::{Fence, GuardRefusal, LaneWrite, Offset, PartitionId, Slices, keeper_of};

/// What to do once the group is written.
pub(super) enum Completion {
    Ack(Ack),
    Unit(Box<UnitCompletion>),
    /// Changed entries of a partition of a topic.
    PartitionEntries(Box<EntriesCompletion>),
    /// The verdict on a unit with guards.
    Verdict(oneshot::Sender<Result<(), GuardRefusal>>, Result<(), GuardRefusal>),
    Acquired(oneshot::Sender<(Offset, u64)>, (Offset, u64)),
    Barrier(oneshot::Sender<()>),
}

/// A unit of a lane, once written.
pub(super) struct UnitCompletion {
    pub(super) lane: Arc<Lane>,
    pub(super) consumed_to: Offset,
    pub(super) writes: Vec<LaneWrite>,
    pub(super) number: u64,
    /// The end position of its frame.
    pub(super) end_position: u64,
    pub(super) permit: Permit,
}

/// Changed entries of a partition of a topic, once written.
pub(super) struct EntriesCompletion {
    pub(super) keeper: Arc<Lane>,
    pub(super) writes: Vec<LaneWrite>,
    pub(super) number: u64,
    /// The end position of its frame.
    pub(super) end_position: u64,
}

/// An encoded group: its frames, the positions of the events in them, its other changes, and what to do once it is
/// written.
#[derive(Default)]
pub(super) struct EncodedGroup {
    pub(super) bytes: Vec<u8>,
    pub(super) slices: Vec<PlacedSlice>,
    pub(super) changes: GroupChanges,
    pub(super) then: Vec<Completion>,
}

/// Events of a group that have offsets.
pub(super) struct PlacedSlice {
    pub(super) partition: PartitionId,
    pub(super) base_offset: Offset,
    pub(super) count: u32,
    /// In the group's bytes.
    pub(super) records: Range<usize>,
}

impl Appender {
    /// Encodes the first submissions in `left` as one group, up to the first one that needs to wait and may not. The
    /// group fits into one file, which has room, unless a single submission is larger. A stepped log encodes all
    /// submissions, so that a simulation controls what a step does.
    pub(super) fn encode_group(&mut self) -> io::Result<()> {
        let file_bytes = match self.options.is_stepped {
            true => usize::MAX,
            false => usize::try_from(self.options.file_bytes).unwrap_or(usize::MAX),
        };
        let room_max = file_bytes.clamp(limits::SMALL_GROUP_BYTES_MAX, limits::GROUP_BYTES_MAX);
        let (mut count, mut room) = (0, 0);
        for submission in &self.left {
            let bytes = submission.frame_bytes();
            if room > 0 && room + bytes > room_max {
                break;
            }
            (count, room) = (count + 1, room + bytes);
        }
        // The exact size: readers share this memory, including spare capacity, while the group is recent.
        let bytes = Vec::with_capacity(room);
        let mut encoded = EncodedGroup { bytes, then: Vec::with_capacity(count), ..EncodedGroup::default() };
        let ClockState { trusted_ns, wall_ns } = self.shared.trusted.now();
        self.link.append_time_ns = self.link.append_time_ns.max(wall_ns);
        self.trusted_time_ns = trusted_ns;
        for _ in 0..count {
            let Some(submission) = self.left.pop_front() else { break };
            if let Some(waits) = self.encode_submission(submission, &mut encoded)? {
                self.left.push_front(waits);
                break;
            }
        }
        let bytes = &mut encoded.bytes;
        if bytes.capacity() - bytes.len() > bytes.len() / 8 {
            bytes.shrink_to_fit(); // guarded records may turn out smaller than their upper bound
        }
        self.unfinished = Some(encoded);
        Ok(())
    }

    /// Encodes a submission. Returns it unchanged if it needs to wait and may not.
    fn encode_submission(
        &mut self,
        submission: Submission,
        group: &mut EncodedGroup,
    ) -> io::Result<Option<Submission>> {
        match submission {
            Submission::Append { mut slices, looked, ticket, permit } => {
                let (duplicates, kept, aside) = match self.judge(&mut slices, looked.as_deref()) {
                    Ok(Ok(judged)) => judged,
                    Ok(Err(refused)) => {
                        group.then.push(Completion::Ack(Ack::Append(ticket, Err(refused), permit)));
                        return Ok(None);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Some(Submission::Append { slices, looked, ticket, permit }));
                    }
                    Err(error) => return Err(error),
                };
                let base_offsets = match slices.count() {
                    0 => vec![0; slices.iter().len()],
                    _ => self.encode_unit(group, None, &kept, &slices),
                };
                self.keep(kept, group);
                group.then.push(Completion::Ack(Ack::Append(
                    ticket,
                    Ok(SlicePlaces { base_offsets, duplicates, aside }),
                    permit,
                )));
            }
            Submission::Unit {
                lane,
                owner,
                consumed_to,
                mut slices,
                looked,
                writes,
                unit: number,
                verdict,
                permit,
            } => {
                if !lane.is_owner(owner) {
                    return Ok(None); // fenced while it was queued; its session learns that at its next commit
                }
                let Self { shared, writers, trusted_time_ns, .. } = self;
                let (settings, mut duplicates) = (shared.settings(), Vec::new());
                let guards =
                    Guards { shared, settings: &settings, now_ns: *trusted_time_ns, looked: looked.as_deref() };
                let next_offset = |id| writer(writers, shared, id).next_offset;
                let (kept, mut aside) = match guards.judge(&slices, &mut duplicates, next_offset) {
                    Ok(judged) => judged,
                    Err(refused) => {
                        group.then.extend(verdict.map(|ticket| Completion::Verdict(ticket, Err(refused))));
                        return Ok(None);
                    }
                };
                slices.sort_out(&mut duplicates, &mut aside, |_| 0);
                let change = LaneChange { consumed: CursorUpdate { lane: lane.id, consumed_to }, writes: &writes };
                self.encode_unit(group, Some(change), &kept, &slices);
                group.changes.cursors.push((lane.id, consumed_to));
                group.changes.entries.extend(writes.iter().map(|write| (lane.id, write.clone())));
                let end_position = self.link.position;
                group.then.push(Completion::Unit(Box::new(UnitCompletion {
                    lane,
                    consumed_to,
                    writes,
                    number,
                    end_position,
                    permit,
                })));
                self.keep(kept, group);
                group.then.extend(verdict.map(|ticket| Completion::Verdict(ticket, Ok(()))));
            }
            Submission::Acquire { lane, ticket } => {
                let owner = lane.owner.fetch_add(1, Ordering::AcqRel) + 1;
                lane.changed.acquired(owner);
                let pending = group.then.iter().rev().find_map(|then| match then {
                    Completion::Unit(unit) if unit.lane.id == lane.id => Some(unit.consumed_to),
                    _ => None,
                });
                let position = pending.unwrap_or_else(|| lane.position());
                group.then.push(Completion::Acquired(ticket, (position, owner)));
            }
            Submission::Catalogue { entry, ticket } => {
                self.encode(&mut group.bytes, Kind::Catalogue, |_, out| out.extend_from_slice(&entry));
                group.changes.catalogue.push(entry);
                group.then.push(Completion::Ack(Ack::Durable(ticket)));
            }
            Submission::Sync { ticket } => group.then.push(Completion::Ack(Ack::Durable(ticket))),
            Submission::Barrier { ticket } => group.then.push(Completion::Barrier(ticket)),
        }
        Ok(None)
    }

    /// Encodes a unit. Returns the offset of the first record of each slice.
    fn encode_unit(
        &mut self,
        group: &mut EncodedGroup,
        lane: Option<LaneChange<'_>>,
        kept: &[PartitionEntries],
        slices: &Slices,
    ) -> Vec<Offset> {
        let mut base_offsets = Vec::with_capacity(slices.iter().len());
        let mut numbers = Vec::new();
        let (placed, producers) = (&mut group.slices, &mut group.changes.producers);
        self.encode(&mut group.bytes, Kind::Unit, |appender, out| {
            write_unit(out, appender.trusted_time_ns, lane, kept, slices, |slice, records| {
                let (partition, count) = (slice.partition, slice.count);
                let base_offset = appender.place(slice);
                base_offsets.push(base_offset);
                if count > 0 {
                    placed.push(PlacedSlice { partition, base_offset, count, records });
                    let last = slice.sequences.last().copied();
                    let offset = base_offset + Offset::from(count) - 1;
                    if let Some((producer, sequence)) = slices.producer().zip(last) {
                        producers.push(((partition, producer), LastSequence { sequence, offset }));
                        numbers.push((partition, sequence));
                    }
                }
                base_offset
            });
        });
        if let Some(producer) = slices.producer() {
            let (trusted_ns, began_ns) = (self.trusted_time_ns, slices.began_ns().unwrap_or(0));
            group.changes.add_numbers(numbers.into_iter(), producer, trusted_ns, began_ns);
        }
        base_offsets
    }

    /// Applies the entries of partitions, so that the next verdicts see them before they are written.
    fn keep(&self, kept: Vec<PartitionEntries>, group: &mut EncodedGroup) {
        for (partition, writes) in kept {
            let keeper = self.shared.lane(keeper_of(partition));
            group.changes.entries.extend(writes.iter().map(|write| (keeper.id, write.clone())));
            let number = keeper.changed.hand_in(0, &writes).unwrap_or(0);
            let end_position = self.link.position;
            group.then.push(Completion::PartitionEntries(Box::new(EntriesCompletion {
                keeper,
                writes,
                number,
                end_position,
            })));
        }
    }

    /// Judges an append: duplicates, entries of partitions, records to set aside. A refusal also applies to later
    /// appends with the same fence.
    fn judge(
        &mut self,
        slices: &mut Slices,
        looked: Option<&GuardLookup>,
    ) -> io::Result<Result<Judgement, AppendRefusal>> {
        let fence = slices.fence().cloned();
        if fence.as_ref().is_some_and(Fence::is_shut) {
            return Ok(Err(AppendRefusal::Fenced));
        }
        let judged = self.judge_alone(slices, looked)?;
        Ok(judged.inspect_err(|_| fence.iter().for_each(Fence::shut)))
    }

    fn judge_alone(
        &mut self,
        slices: &mut Slices,
        looked: Option<&GuardLookup>,
    ) -> io::Result<Result<Judgement, AppendRefusal>> {
        let Self { sequencer, shared, writers, trusted_time_ns, .. } = self;
        let waits = match (self.may_wait, self.is_alone) {
            (false, _) => LookupWait::Not,
            (true, true) => LookupWait::Alone,
            (true, false) => LookupWait::WithPauses,
        };
        let mut look = RunLookup::new(shared, self.hashing, waits);
        let settings = shared.settings();
        let guards = Guards { shared, settings: &settings, now_ns: *trusted_time_ns, looked };
        let settings = |topic| settings.topics.get(&topic).copied().unwrap_or_default();
        let next_offset = |id| writer(writers, shared, id).next_offset;
        sequencer.judge(slices, *trusted_time_ns, &guards, &mut look, settings, next_offset)
    }

    pub(super) fn encode(&mut self, bytes: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        let (link, durable) = (self.link, self.syncer.durable());
        if let Some(head) = write_frame(bytes, kind, &link, durable, |out| body(self, out)) {
            self.link = Link::after(&head);
        }
    }

    fn place(&mut self, slice: &Slice) -> Offset {
        let writer = writer(&mut self.writers, &self.shared, slice.partition);
        let offset = writer.next_offset;
        writer.next_offset += Offset::from(slice.count);
        offset
    }
}
