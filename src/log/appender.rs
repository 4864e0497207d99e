//! The one writer: takes submissions in their order, gives offsets, writes them as a group, hands it to the syncer.
//!
//! ```text
//!   submitted -> judged -> encoded -> written ------> durable -> acked (events from outside)
//!                                        └-> lanes see it         └-> readers outside see it
//! ```
//!
//! Everything that has an order goes through the queue, also the acquisition of lanes, so a fenced session's units are
//! either in front of the acquisition, and counted in the position that it returns, or behind it, and refused.
//!
//! It waits for the disk, and for a checkpoint where the recent part is full; for nothing else.

use std::collections::HashMap;
use std::io;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec::IntoIter;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::checkpointer::Turn;
use super::clock::ClockState;
use super::files::JournalFile;
use super::frame::{Consumed, Kept, Kind, LaneChange, Link, UnitBody, frames, write_frame, write_unit};
use super::guards::{Guards, Looked};
use super::partition::Partition;
use super::queue::{NotPlaced, Permit, Placed, Submission};
use super::sealed::{Hashing, SealedLook};
use super::sequencer::{Judged, Sequencer};
use super::store::Sequenced;
use super::syncer::{Ack, End, Ends, Syncer, Written};
use super::tail::{Group, GroupChanges};
use super::{Durability, Lane, LogOptions, Shared, is_passing};
use crate::limits;
use crate::model::slices::Slice;
use crate::model::{Chunk, Fence, GuardRefused, LaneWrite, Offset, PartitionId, Slices, keeper_of};

/// What is done once the group is written.
enum Then {
    Ack(Ack),
    Unit(Box<WrittenUnit>),
    /// What a partition of a topic keeps.
    Kept(Box<WrittenKept>),
    /// A unit with guards is written, or refused.
    Verdict(oneshot::Sender<Result<(), GuardRefused>>, Result<(), GuardRefused>),
    Acquired(oneshot::Sender<(Offset, u64)>, (Offset, u64)),
    Barrier(oneshot::Sender<()>),
}

/// A unit of a lane that is written.
struct WrittenUnit {
    lane: Arc<Lane>,
    consumed_to: Offset,
    writes: Vec<LaneWrite>,
    number: u64,
    /// Behind its frame.
    end_position: u64,
    permit: Permit,
}

/// What a partition of a topic keeps from now on.
struct WrittenKept {
    keeper: Arc<Lane>,
    writes: Vec<LaneWrite>,
    number: u64,
    /// Behind its frame.
    end_position: u64,
}

/// A group on its way: its frames, where in them events are, what else they say, and what is done once they are written.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    slices: Vec<PlacedSlice>,
    changes: GroupChanges,
    then: Vec<Then>,
}

/// Events of a group that have their place.
struct PlacedSlice {
    partition: PartitionId,
    base_offset: Offset,
    count: u32,
    /// Of the group's bytes.
    records: Range<usize>,
}

/// A partition as the appender knows it.
struct Writer {
    partition: Arc<Partition>,
    next_offset: Offset,
}

pub(super) struct Appender {
    shared: Arc<Shared>,
    syncer: Arc<Syncer>,
    options: LogOptions,
    file: Arc<JournalFile>,
    /// Of the next frame that is encoded.
    link: Link,
    /// Of all that is encoded now.
    trusted_time_ns: u64,
    /// The position behind the last group that is written.
    written: u64,
    writers: HashMap<PartitionId, Writer>,
    sequencer: Sequencer,
    hashing: Hashing,
    /// The last frame is a mark, so another would say nothing new.
    is_marked: bool,
    /// Bytes that were written and not given to the syncer, where nobody waits for it.
    unsynced_bytes: usize,
    /// The group that is encoded, and not written.
    unfinished: Option<Encoded>,
    /// Nobody else makes checkpoints: there are no threads, or not yet.
    is_alone: bool,
}

impl Appender {
    pub(super) fn new(
        shared: Arc<Shared>,
        syncer: Arc<Syncer>,
        options: LogOptions,
        file: Arc<JournalFile>,
        link: Link,
        sequencer: Sequencer,
        hashing: Hashing,
    ) -> Self {
        Self {
            shared,
            syncer,
            options,
            file,
            link,
            trusted_time_ns: 0,
            written: link.position,
            writers: HashMap::new(),
            sequencer,
            hashing,
            is_marked: true,
            unsynced_bytes: 0,
            unfinished: None,
            is_alone: true,
        }
    }

    /// Writes what was handed in, waiting for room and for the disk where it must.
    pub(super) fn write(&mut self, submissions: Vec<Submission>) -> io::Result<()> {
        self.finish_group()?;
        let mut rest = submissions.into_iter().peekable();
        while rest.peek().is_some() {
            self.encode_group(&mut rest)?;
            self.finish_group()?;
        }
        Ok(())
    }

    /// Whether this many bytes can be written without waiting for anything.
    pub(super) fn writes_at_once(&self, bytes: usize) -> bool {
        let used = self.written - self.file.first_position;
        bytes <= limits::CALLER_GROUP_BYTES_MAX
            && self.unfinished.is_none()
            && used + bytes as u64 <= self.options.file_bytes
            && self.shared.tail.has_room_for_long(bytes)
            && self.syncer.is_keeping_up()
    }

    /// Writes what was handed in, which [`Self::writes_at_once`]. False: the disk had no room after all, and the next
    /// [`Self::write`] begins with it.
    pub(super) fn write_at_once(&mut self, submissions: Vec<Submission>) -> io::Result<bool> {
        let mut rest = submissions.into_iter().peekable();
        self.encode_group(&mut rest)?;
        debug_assert!(rest.peek().is_none(), "it is one group");
        let Some(group) = self.unfinished.take() else { return Ok(true) };
        match self.file.write(&group.bytes, self.written) {
            Ok(()) => {
                self.written += group.bytes.len() as u64;
                self.group_written(group);
                Ok(true)
            }
            Err(error) if is_passing(&error) => {
                self.unfinished = Some(group);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The position behind what is written, where no mark says that it is durable.
    pub(super) fn unmarked(&self) -> Option<u64> {
        (!self.is_marked || self.unfinished.is_some()).then_some(self.written)
    }

    /// Nothing more comes: what is written is handed to the syncer.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.finish_group()?;
        self.submit(Ends::default(), Vec::new());
        Ok(())
    }

    /// Nothing has come for a while: what is not durable is made so, then a mark says that it is.
    pub(super) fn idle(&mut self) -> io::Result<()> {
        self.finish_group()?;
        if self.syncer.durable() == self.link.position {
            self.write_mark()?;
        }
        self.submit(Ends::default(), Vec::new());
        self.sequencer.release(self.shared.sealed().position, usize::MAX);
        Ok(())
    }

    /// Everything is durable, and the next start shall know it.
    pub(super) fn last_mark(&mut self) -> io::Result<()> {
        if self.is_marked || self.shared.is_poisoned() {
            return Ok(());
        }
        self.write_mark()?;
        self.file.file.sync()?;
        self.shared.tail.set_settled(self.written);
        Ok(())
    }

    fn write_mark(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes, Kind::Mark, |_, _| ());
        self.write_bytes(&bytes)?;
        self.publish(bytes.into(), &[], GroupChanges::default());
        self.is_marked = true;
        Ok(())
    }

    fn submit(&mut self, ends: Ends, acks: Vec<Ack>) {
        let (file, end_position) = (self.file.clone(), self.written);
        self.unsynced_bytes = 0;
        self.syncer.submit(Written { file, end_position, ends, acks }, &self.shared);
    }

    /// Encodes as many submissions as make one group. It is not longer than a file, which has its room already, unless one
    /// alone is; or, step by step, all that waits, so that a simulation can say what a step does.
    fn encode_group(&mut self, submissions: &mut Peekable<IntoIter<Submission>>) -> io::Result<()> {
        let file_bytes = match self.options.is_stepped {
            true => usize::MAX,
            false => usize::try_from(self.options.file_bytes).unwrap_or(usize::MAX),
        };
        let room_max = file_bytes.clamp(limits::SMALL_GROUP_BYTES_MAX, limits::GROUP_BYTES_MAX);
        let (mut group, mut room) = (Vec::new(), 0);
        while let Some(submission) = submissions.next_if(|next| room == 0 || room + next.frame_bytes() <= room_max) {
            room += submission.frame_bytes();
            group.push(submission);
        }
        // Exactly as large as it gets: readers share this memory for as long as it is recent, spare room and all.
        let bytes = Vec::with_capacity(room);
        let mut encoded = Encoded { bytes, then: Vec::with_capacity(group.len()), ..Encoded::default() };
        let ClockState { trusted_ns, wall_ns } = self.shared.trusted.now();
        self.link.append_time_ns = self.link.append_time_ns.max(wall_ns);
        self.trusted_time_ns = trusted_ns;
        for submission in group {
            self.encode_submission(submission, &mut encoded)?;
        }
        let bytes = &mut encoded.bytes;
        if bytes.capacity() - bytes.len() > bytes.len() / 8 {
            bytes.shrink_to_fit(); // guards may bring less than there was room for
        }
        self.unfinished = Some(encoded);
        Ok(())
    }

    /// Writes the group that is encoded, where there is one, however long that takes.
    fn finish_group(&mut self) -> io::Result<()> {
        let Some(group) = self.unfinished.take() else { return Ok(()) };
        if !group.bytes.is_empty() {
            self.wait_for_room(group.bytes.len())?;
            self.roll_before(group.bytes.len())?;
            self.write_bytes(&group.bytes)?;
        }
        self.group_written(group);
        Ok(())
    }

    /// Tells everybody of a group that is written.
    fn group_written(&mut self, Encoded { bytes, slices, changes, then }: Encoded) {
        let mut ends = Ends::default();
        if !bytes.is_empty() {
            self.shared.space.note(bytes.len());
            self.unsynced_bytes += bytes.len();
            ends = self.publish(bytes.into(), &slices, changes);
            self.is_marked = false;
        }
        let mut acks = Vec::new();
        for then in then {
            match then {
                Then::Ack(ack) => acks.push(ack),
                Then::Unit(unit) => {
                    let WrittenUnit { lane, consumed_to, writes, number, end_position, permit } = *unit;
                    if !writes.is_empty() {
                        lane.changed.written(number, end_position, writes);
                    }
                    // after the outputs: whoever sees the position sees what was emitted for it
                    lane.position.store(consumed_to, Ordering::Release);
                    lane.counts.count_anew();
                    drop(permit);
                }
                Then::Kept(kept) => {
                    let WrittenKept { keeper, writes, number, end_position } = *kept;
                    keeper.changed.written(number, end_position, writes);
                }
                Then::Verdict(ticket, verdict) => drop(ticket.send(verdict)),
                Then::Acquired(ticket, acquired) => drop(ticket.send(acquired)),
                Then::Barrier(ticket) => drop(ticket.send(())),
            }
        }
        if self.options.durability == Durability::Sync {
            // Lanes are woken after the syncer: the disk takes longest.
            self.submit(ends.clone(), acks);
            return wake(&ends);
        }
        wake(&ends);
        // The setting promises no more than that it is written.
        for end in ends.iter() {
            end.partition.set_durable(end.offset);
        }
        self.shared.tail.set_settled(self.written);
        acks.into_iter().for_each(Ack::send);
        // Even where nothing else asks for a sync: the one at the end of a file shall have little to do.
        if self.options.durability != Durability::Os || self.unsynced_bytes >= self.options.move_bytes {
            self.submit(Ends::default(), Vec::new());
        }
    }

    fn encode_submission(&mut self, submission: Submission, group: &mut Encoded) -> io::Result<()> {
        match submission {
            Submission::Append { mut slices, looked, ticket, permit } => {
                let (duplicates, kept, aside) = match self.judge(&mut slices, looked.as_deref())? {
                    Ok(judged) => judged,
                    Err(refused) => {
                        group.then.push(Then::Ack(Ack::Append(ticket, Err(refused), permit)));
                        return Ok(());
                    }
                };
                let base_offsets = match slices.count() {
                    0 => vec![0; slices.iter().len()],
                    _ => self.encode_unit(group, None, &kept, &slices),
                };
                self.keep(kept, group);
                group.then.push(Then::Ack(Ack::Append(ticket, Ok(Placed { base_offsets, duplicates, aside }), permit)));
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
                    return Ok(()); // fenced while it waited; its session finds out at its next commit
                }
                let Self { shared, writers, trusted_time_ns, .. } = self;
                let (settings, mut duplicates) = (shared.settings(), Vec::new());
                let guards =
                    Guards { shared, settings: &settings, now_ns: *trusted_time_ns, looked: looked.as_deref() };
                let next_offset = |id| writer(writers, shared, id).next_offset;
                let (kept, mut aside) = match guards.judge(&slices, &mut duplicates, next_offset) {
                    Ok(judged) => judged,
                    Err(refused) => {
                        group.then.extend(verdict.map(|ticket| Then::Verdict(ticket, Err(refused))));
                        return Ok(());
                    }
                };
                slices.sort_out(&mut duplicates, &mut aside, |_| 0);
                let change = LaneChange { consumed: Consumed { lane: lane.id, consumed_to }, writes: &writes };
                self.encode_unit(group, Some(change), &kept, &slices);
                group.changes.cursors.push((lane.id, consumed_to));
                group.changes.entries.extend(writes.iter().map(|write| (lane.id, write.clone())));
                let end_position = self.link.position;
                group.then.push(Then::Unit(Box::new(WrittenUnit {
                    lane,
                    consumed_to,
                    writes,
                    number,
                    end_position,
                    permit,
                })));
                self.keep(kept, group);
                group.then.extend(verdict.map(|ticket| Then::Verdict(ticket, Ok(()))));
            }
            Submission::Acquire { lane, ticket } => {
                let owner = lane.owner.fetch_add(1, Ordering::AcqRel) + 1;
                lane.changed.acquired(owner);
                let pending = group.then.iter().rev().find_map(|then| match then {
                    Then::Unit(unit) if unit.lane.id == lane.id => Some(unit.consumed_to),
                    _ => None,
                });
                let position = pending.unwrap_or_else(|| lane.position());
                group.then.push(Then::Acquired(ticket, (position, owner)));
            }
            Submission::Catalogue { entry, ticket } => {
                self.encode(&mut group.bytes, Kind::Catalogue, |_, out| out.extend_from_slice(&entry));
                group.changes.catalogue.push(entry);
                group.then.push(Then::Ack(Ack::Durable(ticket)));
            }
            Submission::Sync { ticket } => group.then.push(Then::Ack(Ack::Durable(ticket))),
            Submission::Barrier { ticket } => group.then.push(Then::Barrier(ticket)),
        }
        Ok(())
    }

    /// Encodes a unit. The offset of the first record of each slice.
    fn encode_unit(
        &mut self,
        group: &mut Encoded,
        lane: Option<LaneChange<'_>>,
        kept: &[Kept],
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
                        producers.push(((partition, producer), Sequenced { sequence, offset }));
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

    /// Partitions keep this from now on: what is judged next sees it, though it is not written yet.
    fn keep(&self, kept: Vec<Kept>, group: &mut Encoded) {
        for (partition, writes) in kept {
            let keeper = self.shared.lane(keeper_of(partition));
            group.changes.entries.extend(writes.iter().map(|write| (keeper.id, write.clone())));
            let number = keeper.changed.hand_in(0, &writes).unwrap_or(0);
            let end_position = self.link.position;
            group.then.push(Then::Kept(Box::new(WrittenKept { keeper, writes, number, end_position })));
        }
    }

    /// What was published before, and what partitions keep. A refusal is for what comes behind the same fence as well.
    fn judge(&mut self, slices: &mut Slices, looked: Option<&Looked>) -> io::Result<Result<Judged, NotPlaced>> {
        let fence = slices.fence().cloned();
        if fence.as_ref().is_some_and(Fence::is_shut) {
            return Ok(Err(NotPlaced::Fenced));
        }
        let judged = self.judge_alone(slices, looked)?;
        Ok(judged.inspect_err(|_| fence.iter().for_each(Fence::shut)))
    }

    fn judge_alone(&mut self, slices: &mut Slices, looked: Option<&Looked>) -> io::Result<Result<Judged, NotPlaced>> {
        let Self { sequencer, shared, writers, trusted_time_ns, .. } = self;
        let patience = (!self.is_alone).then_some(limits::ROOM_LOOK_EVERY);
        let mut look = SealedLook::new(shared, self.hashing, patience);
        let settings = shared.settings();
        let guards = Guards { shared, settings: &settings, now_ns: *trusted_time_ns, looked };
        let settings = |topic| settings.topics.get(&topic).copied().unwrap_or_default();
        let next_offset = |id| writer(writers, shared, id).next_offset;
        sequencer.judge(slices, *trusted_time_ns, &guards, &mut look, settings, next_offset)
    }

    fn encode(&mut self, bytes: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Self, &mut Vec<u8>)) {
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

    /// Waits where the recent part is full, or too much has no checkpoint.
    fn wait_for_room(&mut self, bytes: usize) -> io::Result<()> {
        while !self.shared.tail.has_room(bytes) {
            if self.is_alone {
                self.syncer.settle(&self.file, self.written, &self.shared)?; // only what is settled goes
                self.shared.checkpoint(Turn::Move);
            } else {
                self.syncer.hurry();
                self.shared.tail.wait_for_room(bytes, limits::ROOM_LOOK_EVERY);
            }
            if self.shared.is_poisoned() {
                return Err(io::Error::other("the log has stopped"));
            }
        }
        Ok(())
    }

    /// Begins the next file where a group of `length` bytes does not fit into this one.
    fn roll_before(&mut self, length: usize) -> io::Result<()> {
        let used = self.written - self.file.first_position;
        if used == 0 || used + length as u64 <= self.options.file_bytes {
            return Ok(());
        }
        // A file that follows proves that all of this one is durable: recovery relies on it.
        self.syncer.settle(&self.file, self.written, &self.shared)?;
        self.file = self.when_there_is_room(|appender| appender.shared.files.begin(appender.written))?;
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.when_there_is_room(|appender| appender.file.write(bytes, appender.written))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Tries again for as long as the disk is full, or descriptors are short: the same bytes in the same place are harmless.
    fn when_there_is_room<T>(&self, act: impl Fn(&Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(self) {
                Err(error) if is_passing(&error) && !self.shared.is_poisoned() => {
                    self.shared.open_segments.clear(); // readers open theirs again
                    // a checkpoint gives journal files back
                    if self.is_alone {
                        self.shared.checkpoint(Turn::Checkpoint);
                    } else {
                        self.shared.tail.ask();
                        std::thread::sleep(limits::ROOM_LOOK_EVERY);
                    }
                }
                done => return done,
            }
        }
    }

    /// Lets lanes see a written group, whose frames `bytes` are, once they look. How far it goes in each partition.
    fn publish(&mut self, bytes: Bytes, slices: &[PlacedSlice], changes: GroupChanges) -> Ends {
        let (append_time_ns, trusted_time_ns, epoch) =
            (self.link.append_time_ns, self.trusted_time_ns, self.link.epoch);
        let chunks = slices.iter().map(|slice| {
            let PlacedSlice { partition, base_offset, count, records } = slice;
            let (base_offset, count, records) = (*base_offset, *count, bytes.slice(records.clone()));
            (*partition, Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch, records })
        });
        let ends = self.show(chunks);
        self.push(bytes, ends.clone(), changes);
        ends
    }

    /// Adds events to what lanes see. They are not woken yet.
    fn show(&mut self, chunks: impl Iterator<Item = (PartitionId, Chunk)>) -> Ends {
        let mut ends: Vec<End> = Vec::new();
        for (id, chunk) in chunks {
            let offset = chunk.end_offset();
            let partition = &writer(&mut self.writers, &self.shared, id).partition;
            partition.push(chunk);
            match ends.iter_mut().rfind(|end| end.id == id) {
                Some(end) => end.offset = offset,
                None => ends.push(End { id, partition: partition.clone(), offset }),
            }
        }
        ends.into()
    }

    /// Hands a written group to the checkpointer.
    fn push(&mut self, bytes: Bytes, ends: Ends, changes: GroupChanges) {
        let identities = self.sequencer.written(self.link.position).into();
        self.shared.tail.push(Group { bytes, end: self.link, ends, changes: Arc::new(changes), identities });
    }

    /// Everything that recovery accepted has been taken in.
    pub(super) fn replayed(&mut self) {
        self.is_alone = self.options.is_stepped;
    }

    /// Takes in frames that recovery has accepted and made durable, as if they had just been written.
    pub(super) fn replay(&mut self, bytes: Bytes, end: Link) -> io::Result<()> {
        self.wait_for_room(bytes.len())?;
        let (mut chunks, mut changes) = (Vec::new(), GroupChanges::default());
        for (head, body) in frames(&bytes) {
            let mut unit = match head.kind {
                Kind::Mark => continue,
                Kind::Catalogue => {
                    changes.catalogue.push(body);
                    continue;
                }
                Kind::Unit => UnitBody::parse(&head, body).map_err(io::Error::other)?, // it was parsed before
            };
            let mut numbers = Vec::new();
            while let Some(slice) = unit.next_slice().map_err(io::Error::other)? {
                let (id, base_offset, end) = (slice.partition, slice.chunk.base_offset, slice.chunk.end_offset());
                self.sequencer.note(id, slice.identities(), base_offset, unit.trusted_time_ns);
                if let (Some(producer), Some(sequence)) = (unit.producer, slice.last_sequence) {
                    let last = Sequenced { sequence, offset: end.saturating_sub(1) };
                    self.sequencer.note_sequence(id, producer, last);
                    changes.producers.push(((id, producer), last));
                    numbers.push((id, sequence));
                }
                writer(&mut self.writers, &self.shared, id).next_offset = end;
                chunks.push((id, slice.chunk));
            }
            if let Some(producer) = unit.producer {
                let (trusted_ns, began_ns) = (unit.trusted_time_ns, unit.began_ns);
                changes.add_numbers(numbers.iter().copied(), producer, trusted_ns, began_ns);
                self.sequencer.note_in_topics(numbers.into_iter(), producer, trusted_ns, began_ns);
            }
            for (partition, writes) in std::mem::take(&mut unit.kept) {
                let (keeper, writes) = (self.shared.lane(keeper_of(partition)), compact(writes));
                changes.entries.extend(writes.iter().map(|write| (keeper.id, write.clone())));
                keeper.changed.written(0, head.end_position(), writes);
            }
            if let Some(consumed) = unit.consumed {
                let (lane, writes) = (self.shared.lane(consumed.lane), compact(unit.writes));
                changes.cursors.push((lane.id, consumed.consumed_to));
                changes.entries.extend(writes.iter().map(|write| (lane.id, write.clone())));
                lane.changed.written(0, head.end_position(), writes);
                lane.position.store(consumed.consumed_to, Ordering::Release);
            }
        }
        (self.link, self.written) = (end, end.position);
        let ends = self.show(chunks.into_iter());
        self.push(bytes, ends.clone(), changes);
        wake(&ends);
        for end in ends.iter() {
            end.partition.set_durable(end.offset);
        }
        self.shared.tail.set_settled(self.written);
        Ok(())
    }
}

/// Lanes see what was written.
fn wake(ends: &Ends) {
    ends.iter().for_each(|end| end.partition.wake_written());
}

/// Entries with memory of their own: they stay longer than the frames that they came in.
fn compact(writes: Vec<LaneWrite>) -> Vec<LaneWrite> {
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    writes.iter().map(|write| LaneWrite { key: own(&write.key), value: write.value.as_ref().map(own) }).collect()
}

fn writer<'a>(writers: &'a mut HashMap<PartitionId, Writer>, shared: &Shared, id: PartitionId) -> &'a mut Writer {
    writers.entry(id).or_insert_with(|| {
        let partition = shared.partition(id);
        let next_offset = partition.written();
        Writer { partition, next_offset }
    })
}
