//! The only writer of the journal: takes submissions in order, assigns offsets, writes them as a group, and passes the
//! group to the syncer.
//!
//! ```text
//!   submitted -> judged -> encoded -> written ------> durable -> acked (events from outside)
//!                                        └-> lanes see it         └-> readers outside see it
//! ```
//!
//! Everything that needs an order goes through the queue, also the acquisition of lanes. So a unit of a fenced session
//! is either before the acquisition, and counted in the position that the acquisition returns, or after it, and
//! refused.
//!
//! The appender waits for the disk, and for a checkpoint if the recent part is full; for nothing else.

mod encode;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use encode::{Completion, EncodedGroup, EntriesCompletion, PlacedSlice, UnitCompletion};

use super::checkpointer::Turn;
use super::files::JournalFile;
use super::frame::{Kind, Link, UnitBody, frames};
use super::partition::Partition;
use super::queue::Submission;
use super::runs::Hashing;
use super::sequencer::Sequencer;
use super::store::LastSequence;
use super::syncer::{Ack, End, Ends, Syncer, WrittenGroup};
use super::tail::{Group, GroupChanges};
use super::{Durability, LogInner, LogOptions, is_passing};
use crate::limits;
use crate::model::{Chunk, LaneWrite, Offset, PartitionId, keeper_of};

/// A partition from the appender's view.
struct Writer {
    partition: Arc<Partition>,
    next_offset: Offset,
}

pub(super) struct Appender {
    shared: Arc<LogInner>,
    syncer: Arc<Syncer>,
    options: LogOptions,
    file: Arc<JournalFile>,
    /// Link of the next frame to encode.
    link: Link,
    /// Trusted time of the group that is being encoded.
    trusted_time_ns: u64,
    /// The end position of the last written group.
    written: u64,
    writers: HashMap<PartitionId, Writer>,
    sequencer: Sequencer,
    hashing: Hashing,
    /// The last frame is a mark: another mark would add nothing.
    is_marked: bool,
    /// Bytes written but not yet passed to the syncer, because no ack depends on them.
    unsynced_bytes: usize,
    /// The group that is encoded but not written.
    unfinished: Option<EncodedGroup>,
    /// Submissions that follow the unfinished group and are not encoded yet.
    left: VecDeque<Submission>,
    /// Whether the current thread may wait for room or for the disk. If not, submissions stay in `left`.
    may_wait: bool,
    /// No other thread makes checkpoints: the log is stepped, or its threads have not started yet.
    is_alone: bool,
}

impl Appender {
    pub(super) fn new(
        shared: Arc<LogInner>,
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
            left: VecDeque::new(),
            may_wait: true,
            is_alone: true,
        }
    }

    /// Writes submissions, waiting for room and for the disk if necessary.
    pub(super) fn write(&mut self, submissions: Vec<Submission>) -> io::Result<()> {
        self.left.extend(submissions);
        self.finish_left()
    }

    /// Writes all submissions that were accepted so far.
    fn finish_left(&mut self) -> io::Result<()> {
        let mut finish = || loop {
            self.finish_group()?;
            if self.left.is_empty() {
                return Ok(());
            }
            self.encode_group()?;
        };
        let finished = finish();
        if finished.is_err() {
            // dropping them tells their callers
            let (group, left) = (self.unfinished.take(), std::mem::take(&mut self.left));
            let requests = group.as_ref().map_or(0, |group| group.then.len()) + left.len();
            if self.shared.has_given_up() {
                let bytes = group.map_or(0, |group| group.bytes.len());
                tracing::error!(
                    requests,
                    bytes,
                    "the log closes although its disk is full: requests that were not acknowledged are not stored"
                );
            }
        }
        finished
    }

    /// Whether this many bytes can be written without waiting for anything.
    pub(super) fn writes_at_once(&self, bytes: usize) -> bool {
        let used = self.written - self.file.first_position;
        bytes <= limits::CALLER_GROUP_BYTES_MAX
            && self.unfinished.is_none()
            && self.left.is_empty()
            && used + bytes as u64 <= self.options.file_bytes
            && self.shared.tail.has_room_for_long(bytes)
            && self.syncer.is_keeping_up()
    }

    /// Writes submissions for which [`Self::writes_at_once`] was true. Returns false if the disk had no room after all,
    /// or if it would have to wait for a checkpoint; then the next [`Self::write`] begins with the rest.
    pub(super) fn write_at_once(&mut self, submissions: Vec<Submission>) -> io::Result<bool> {
        self.left.extend(submissions);
        self.may_wait = false;
        let encoded = self.encode_group();
        self.may_wait = true;
        encoded?;
        let Some(group) = self.unfinished.take() else { return Ok(self.left.is_empty()) };
        match self.file.write(&group.bytes, self.written) {
            Ok(()) => {
                self.written += group.bytes.len() as u64;
                self.group_written(group);
                Ok(self.left.is_empty())
            }
            Err(error) if is_passing(&error) => {
                self.unfinished = Some(group);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The end of the written part, if no mark states yet that it is durable.
    pub(super) fn unmarked(&self) -> Option<u64> {
        (!self.is_marked || self.unfinished.is_some() || !self.left.is_empty()).then_some(self.written)
    }

    /// Writes the remaining submissions and passes everything to the syncer. No submissions follow.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let finished = self.finish_left();
        self.submit(Ends::default(), Vec::new());
        finished
    }

    /// Called when no submission has arrived for a while: makes everything durable, then writes a mark that says so.
    pub(super) fn idle(&mut self) -> io::Result<()> {
        self.finish_left()?;
        if self.syncer.durable() == self.link.position {
            self.write_mark()?;
        }
        self.submit(Ends::default(), Vec::new());
        self.sequencer.release(self.shared.sealed().position, usize::MAX);
        Ok(())
    }

    /// Writes the final mark of a clean close: everything is durable, and the next start can rely on it.
    pub(super) fn last_mark(&mut self) -> io::Result<()> {
        // after a group that was given up there is no valid position for a mark
        if self.is_marked || self.shared.is_poisoned() || self.shared.has_given_up() {
            return Ok(());
        }
        if let Err(error) = self.write_mark() {
            return self.shared.unless_given_up(Err(error)); // without the mark, the next start searches for the end
        }
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
        self.syncer.submit(WrittenGroup { file, end_position, ends, acks }, &self.shared);
    }

    /// Writes the encoded group, if there is one, however long that takes.
    fn finish_group(&mut self) -> io::Result<()> {
        let Some(group) = self.unfinished.take() else { return Ok(()) };
        let length = group.bytes.len();
        let mut write = || {
            self.wait_for_room(length)?;
            self.roll_before(length)?;
            self.write_bytes(&group.bytes)
        };
        let written = if length > 0 { write() } else { Ok(()) };
        match written {
            Ok(()) => self.group_written(group),
            Err(_) => self.unfinished = Some(group),
        }
        written
    }

    /// Publishes a written group: partitions, lanes and callers see it.
    fn group_written(&mut self, EncodedGroup { bytes, slices, changes, then }: EncodedGroup) {
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
                Completion::Ack(ack) => acks.push(ack),
                Completion::Unit(unit) => {
                    let UnitCompletion { lane, consumed_to, writes, number, end_position, permit } = *unit;
                    if !writes.is_empty() {
                        lane.changed.written(number, end_position, writes);
                    }
                    // after the outputs: a reader that sees the position also sees the outputs of those events
                    lane.position.store(consumed_to, Ordering::Release);
                    lane.counts.count_anew();
                    drop(permit);
                }
                Completion::PartitionEntries(kept) => {
                    let EntriesCompletion { keeper, writes, number, end_position } = *kept;
                    keeper.changed.written(number, end_position, writes);
                }
                Completion::Verdict(ticket, verdict) => drop(ticket.send(verdict)),
                Completion::Acquired(ticket, acquired) => drop(ticket.send(acquired)),
                Completion::Barrier(ticket) => drop(ticket.send(())),
            }
        }
        if self.options.durability == Durability::Sync {
            // Wake the lanes after the syncer: the disk takes longest.
            self.submit(ends.clone(), acks);
            return wake(&ends);
        }
        wake(&ends);
        // This setting promises only that events are written.
        for end in ends.iter() {
            end.partition.set_durable(end.offset);
        }
        self.shared.tail.set_settled(self.written);
        acks.into_iter().for_each(Ack::send);
        // Sync regularly although no ack needs it, so that the sync at the end of a file has little left to do.
        if self.options.durability != Durability::Os || self.unsynced_bytes >= self.options.move_bytes {
            self.submit(Ends::default(), Vec::new());
        }
    }

    /// Waits while the recent part is full, or while too much of the journal has no checkpoint.
    fn wait_for_room(&mut self, bytes: usize) -> io::Result<()> {
        while !self.shared.tail.has_room(bytes) {
            if self.is_alone {
                self.syncer.settle(&self.file, self.written, &self.shared)?; // only durable data can be moved out
                self.shared.checkpoint(Turn::Move);
            } else {
                self.syncer.hurry();
                self.shared.tail.wait_for_room(bytes, limits::ROOM_LOOK_EVERY);
            }
            if self.shared.is_poisoned() {
                return Err(io::Error::other("the log has stopped"));
            }
            if self.shared.gives_up_on_checkpoints() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    /// Begins the next file if a group of `length` bytes does not fit into this one.
    fn roll_before(&mut self, length: usize) -> io::Result<()> {
        let used = self.written - self.file.first_position;
        if used == 0 || used + length as u64 <= self.options.file_bytes {
            return Ok(());
        }
        // The existence of a next file proves that all of this one is durable: recovery relies on it.
        self.syncer.settle(&self.file, self.written, &self.shared)?;
        self.file = self.when_there_is_room(|appender| appender.shared.files.begin(appender.written))?;
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.when_there_is_room(|appender| appender.file.write(bytes, appender.written))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Repeats a write while the disk is full or descriptors are short, unless the log is closing: writing the same
    /// bytes to the same position again is harmless.
    fn when_there_is_room<T>(&self, act: impl Fn(&Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(self) {
                Err(error) if is_passing(&error) && !self.shared.is_poisoned() && !self.shared.gives_up() => {
                    self.shared.open_segments.clear(); // readers reopen theirs
                    // a checkpoint frees journal files
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

    /// Makes a written group, whose frames are `bytes`, visible to lanes without waking them. Returns the new end of
    /// each partition.
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

    /// Adds events to the partitions' recent parts. Lanes are not woken yet.
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

    /// Passes a written group to the checkpointer.
    fn push(&mut self, bytes: Bytes, ends: Ends, changes: GroupChanges) {
        let identities = self.sequencer.written(self.link.position).into();
        self.shared.tail.push(Group { bytes, end: self.link, ends, changes: Arc::new(changes), identities });
    }

    /// Recovery has finished: every accepted frame has been replayed.
    pub(super) fn replayed(&mut self) {
        self.is_alone = self.options.is_stepped;
    }

    /// Applies frames that recovery has accepted and made durable, as if they had just been written.
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
                Kind::Unit => UnitBody::parse(&head, body).map_err(io::Error::other)?, // recovery has parsed it before
            };
            let mut numbers = Vec::new();
            while let Some(slice) = unit.next_slice().map_err(io::Error::other)? {
                let (id, base_offset, end) = (slice.partition, slice.chunk.base_offset, slice.chunk.end_offset());
                self.sequencer.note(id, slice.identities(), base_offset, unit.trusted_time_ns);
                if let (Some(producer), Some(sequence)) = (unit.producer, slice.last_sequence) {
                    let last = LastSequence { sequence, offset: end.saturating_sub(1) };
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

/// Wakes the lanes that read these partitions.
fn wake(ends: &Ends) {
    ends.iter().for_each(|end| end.partition.wake_written());
}

/// Copies entries into memory of their own: they live longer than the frames from which they come.
fn compact(writes: Vec<LaneWrite>) -> Vec<LaneWrite> {
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    writes.iter().map(|write| LaneWrite { key: own(&write.key), value: write.value.as_ref().map(own) }).collect()
}

fn writer<'a>(writers: &'a mut HashMap<PartitionId, Writer>, shared: &LogInner, id: PartitionId) -> &'a mut Writer {
    writers.entry(id).or_insert_with(|| {
        let partition = shared.partition(id);
        let next_offset = partition.written();
        Writer { partition, next_offset }
    })
}
