//! The checkpointer: moves what is settled from the journal into segments and the state store, and lets old segments go.
//!
//! ```text
//!            move, often: memory is given back          checkpoint, rarely: the journal is given back
//!
//!            ┌ 1. blocks ──> segments, not synced ┐                           ┌ 4. journal files are recycled
//!   groups ──┤       where readers see them       ├─ 2. one sync  ─ 3. one ───┤
//!            └ 1. cursors, identities… in memory ─┘      for all      commit  └ 5. segments that expired are removed
//! ```
//!
//! Promises:
//! - Only what may be acked is taken.
//! - The commit comes after the sync of all that it speaks of, the journal up to there as well, and everything that cannot
//!   be undone comes after the commit. So a crash anywhere leaves the state before or after, and files, and ends of files,
//!   that nobody speaks of.
//! - Where the disk is full, or descriptors are short, nothing has happened, and it is tried again.
//! - An event goes only when its topic's settings let it, and when every subscriber has processed it (durably), unless the
//!   settings force it, or its topic is gone for good.
//!
//! Must not know: who waits for what, what is inside a record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::block::write_block;
use super::clock::ClockState;
use super::gone::Leaving;
use super::identities::{Identities, Resealed};
use super::producers::Forgetting;
use super::sealed::Sealed;
use super::segment::{SegmentId, SegmentMeta, is_out_of_descriptors};
use super::segments::Segments;
use super::store::{Changes, Checkpoint, Contents, Entries, Extent, RowRange, Store, StoreError};
use super::syncer::End;
use super::unsynced::Unsynced;
use super::{Durability, LogOptions, Settings, Shared, failed_sync, is_passing, lock};
use crate::limits;
use crate::model::{Chunk, LaneId, Offset, PartitionId, Retention, SubscriberId, TopicId};

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// Nothing has happened; the same may succeed later.
    #[error("the disk is full")]
    Full,
    /// Nothing has happened; the same may succeed later.
    #[error("too many files are open")]
    Descriptors,
    /// The disk failed: nothing can be promised any more.
    #[error("{what}: {error}")]
    Disk { what: String, error: io::Error },
    #[error("the state store failed: {0}")]
    Store(StoreError),
}

fn disk_error(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> CheckpointError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull => CheckpointError::Full,
        _ if is_out_of_descriptors(&error) => CheckpointError::Descriptors,
        _ => CheckpointError::Disk { what: what(), error },
    }
}

impl From<StoreError> for CheckpointError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => Self::Full,
            StoreError::Disk(error) if is_out_of_descriptors(&error) => Self::Descriptors,
            error => Self::Store(error),
        }
    }
}

/// A partition as the checkpointer knows it.
#[derive(Debug, Clone, Default)]
struct Kept {
    extent: Extent,
    segments: Segments,
}

/// How far the checkpointer goes in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// What is written is moved, and a checkpoint is made where enough was.
    Move,
    /// A checkpoint is made of all there is.
    Checkpoint,
}

pub(super) struct Checkpointer {
    store: Store,
    entries: Entries,
    checkpoint: Checkpoint,
    /// What was moved since, up to the link: what the next checkpoint says of it.
    pending: Changes,
    /// A commit that failed: it may have happened. Nothing is moved before that is known.
    unsure: Option<Outcome>,
    /// In an order, so that a simulation sees the same each time.
    partitions: BTreeMap<PartitionId, Kept>,
    cursors: HashMap<LaneId, Offset>,
    identities: Identities,
    forgetting: Forgetting,
    leaving: Leaving,
    unsynced: Unsynced,
    /// Trusted time of the last frame that was moved, 0 before the first one since the start: no frame that is not moved is
    /// older.
    moved_ns: u64,
    /// When it was last looked what has expired, by the clock that never jumps.
    looked_ns: u64,
    checkpoint_bytes: usize,
}

/// What is so once a checkpoint is committed, beside what is pending.
struct Outcome {
    changes: Changes,
    /// Those that it let something go of.
    partitions: BTreeMap<PartitionId, Kept>,
    identities: Resealed,
    /// Topics that are gone for good of which rows were looked for.
    leaves: Vec<Leaves>,
    /// How many there were, where that is known.
    rows_gone: Option<usize>,
}

/// A topic that is gone for good of which rows are removed.
struct Leaves {
    topic: TopicId,
    /// Those of its partitions among them.
    is_last: bool,
    /// There is nothing else that has to wait.
    is_all: bool,
}

impl Checkpointer {
    /// Goes on from what the store holds.
    pub(super) fn new(store: Store, contents: &Contents, options: &LogOptions) -> Self {
        let hashing = options.hashing();
        let mut partitions: BTreeMap<PartitionId, Kept> = BTreeMap::new();
        for (id, extent) in &contents.partitions {
            partitions.entry(*id).or_default().extent = *extent;
        }
        for (id, segments) in &contents.segments {
            let kept = partitions.entry(*id).or_default();
            kept.segments = segments.as_slice().into();
        }
        Self {
            entries: store.entries(),
            store,
            checkpoint: contents.checkpoint,
            pending: Changes::new(contents.checkpoint),
            unsure: None,
            partitions,
            cursors: contents.cursors.clone(),
            identities: Identities::new(contents, hashing),
            forgetting: Forgetting::default(),
            leaving: Leaving::default(),
            unsynced: Unsynced::new(options.durability != Durability::Sync),
            moved_ns: 0,
            looked_ns: 0,
            checkpoint_bytes: options.checkpoint_bytes,
        }
    }

    /// The identities that are in the store.
    pub(super) fn sealed(&self) -> Arc<Sealed> {
        self.identities.sealed()
    }

    /// Moves all that is written, and makes a checkpoint where that is due: with one, what has expired is removed as well.
    pub(super) fn turn(&mut self, shared: &Shared, turn: Turn) -> Result<(), CheckpointError> {
        self.settle(shared)?;
        let moved = self.move_waiting(shared);
        let since_ns = shared.clock.elapsed_ns().saturating_sub(self.looked_ns);
        let is_due = since_ns >= limits::RETENTION_EVERY.as_nanos() as u64
            || shared.tail.uncommitted_bytes() >= self.checkpoint_bytes
            || self.pending.count() > limits::CHECKPOINT_ENTRIES
            || self.pending.entries_bytes > limits::CHECKPOINT_ENTRIES_BYTES
            || self.identities.pending_bytes() > limits::CHECKPOINT_IDENTITIES_BYTES
            || shared.space.is_tight();
        // what finds no room may find it once a checkpoint has given files back
        if turn == Turn::Checkpoint || is_due || moved.is_err() {
            self.commit(shared)?;
        }
        moved
    }

    /// Writes the groups of the tail into segments, and gives their memory back.
    fn move_waiting(&mut self, shared: &Shared) -> Result<(), CheckpointError> {
        let groups = shared.tail.waiting();
        let Some(link) = groups.last().map(|group| group.end) else { return Ok(()) };
        let settings = shared.settings();
        let mut ends: BTreeMap<PartitionId, &End> = BTreeMap::new();
        ends.extend(groups.iter().flat_map(|group| group.ends.iter()).map(|end| (end.id, end)));
        let mut moved_ns = self.moved_ns;
        // Until all is written, nothing of it is so: after an error the same is written once more.
        let (mut partitions, mut changed): (BTreeMap<PartitionId, Kept>, Vec<_>) = Default::default();
        for (id, end) in ends {
            let mut partition = self.partitions.get(&id).cloned().unwrap_or_default();
            let chunks = end.partition.chunks(partition.extent.end, end.offset);
            moved_ns = chunks.last().map_or(moved_ns, |chunk| moved_ns.max(chunk.trusted_time_ns));
            let metas = add(shared, &mut self.unsynced, &settings, id, &mut partition, &chunks)?;
            changed.extend(metas.into_iter().map(|meta| ((id, meta.base_offset), meta)));
            partitions.insert(id, partition);
            // All of it takes milliseconds, and where processors are few a sync that is done waits for its thread to run.
            std::thread::yield_now();
        }
        let moved = partitions.len();
        for (id, partition) in partitions {
            self.pending.partitions.insert(id, partition.extent);
            self.adopt(shared, id, partition);
        }
        self.moved_ns = moved_ns;
        self.pending.checkpoint.link = link;
        self.pending.segments.extend(changed);
        for changes in groups.iter().map(|group| &group.changes) {
            self.pending.catalogue.extend_from_slice(&changes.catalogue);
            self.pending.producers.extend(changes.producers.iter().copied());
            self.cursors.extend(changes.cursors.iter().copied());
            self.pending.cursors.extend(changes.cursors.iter().copied());
            for (lane, write) in &changes.entries {
                self.pending.put_entry(*lane, write.key.clone(), write.value.clone());
            }
        }
        self.identities.take(&settings, groups.iter().flat_map(|group| &*group.identities));
        shared.tail.moved(groups.len(), moved);
        // What is much waits for no quiet moment: the rest is begun bit by bit.
        self.unsynced.begin(self.unsynced.to_begin().saturating_sub(limits::SEGMENTS_BEGUN_LATER_BYTES_MAX));
        Ok(())
    }

    /// Lets the disk begin to write a part of what was moved. Whether there is more.
    pub(super) fn begin_writing(&mut self) -> bool {
        let bytes = self.unsynced.to_begin();
        self.unsynced.begin((bytes / limits::SEGMENTS_BEGUN_PART).max(limits::SEGMENTS_BEGUN_AT_ONCE_BYTES));
        self.unsynced.to_begin() > 0
    }

    /// Lets readers see a partition's segments.
    fn adopt(&mut self, shared: &Shared, id: PartitionId, partition: Kept) {
        shared.partition(id).set_segments(partition.segments.clone(), partition.extent.start);
        self.partitions.insert(id, partition);
    }

    /// Makes a checkpoint of all that was moved.
    fn commit(&mut self, shared: &Shared) -> Result<(), CheckpointError> {
        let settings = shared.settings();
        let (generation, now) = (self.checkpoint.generation + 1, shared.trusted.now());
        let mut changes = Changes::new(Checkpoint { generation, clock: now, ..self.pending.checkpoint });
        let mut partitions = BTreeMap::new();
        self.expire(shared, (&settings, now), &mut partitions, &mut changes);
        self.looked_ns = shared.clock.elapsed_ns();
        let leaves = self.leave(shared, &settings, &partitions, &mut changes);
        let noted_ns = now.trusted_ns.saturating_sub(self.checkpoint.clock.trusted_ns);
        let is_needed = changes.checkpoint.link != self.checkpoint.link
            || !partitions.is_empty()
            || !leaves.is_empty()
            || noted_ns >= limits::CLOCK_NOTED_EVERY.as_nanos() as u64;
        if !is_needed {
            return Ok(());
        }
        let identities = self.identities.seal(&settings, now.trusted_ns, &self.entries, &mut changes)?;
        let of_topic = |topic| self.partitions.range(all_of(topic)).map(|(id, _)| *id).collect();
        let changed = (&self.pending, &mut changes);
        // not by the time of now: a frame that is not moved may be of a producer whose time is over but for that
        self.forgetting.forget(&settings, self.moved_ns, &self.entries, changed, of_topic)?;
        for (topic, floor_ns) in &changes.forgotten {
            // before they are gone from the store: who does not find them is to see it
            let mut forgotten = lock(&shared.forgotten);
            let known = forgotten.entry(*topic).or_default();
            *known = (*known).max(*floor_ns);
        }
        if changes.checkpoint.link != self.checkpoint.link {
            let synced = self.unsynced.sync(shared.disk.as_ref()).map_err(failed_sync);
            synced.map_err(disk_error(|| "segments are not durable".to_owned()))?;
        }
        let committed =
            self.store.commit(changes.checkpoint, &[&self.pending, &changes]).map_err(CheckpointError::from);
        let outcome = Outcome { changes, partitions, identities, leaves, rows_gone: None };
        match committed {
            Ok(rows) => self.happened(shared, Outcome { rows_gone: Some(rows), ..outcome }),
            Err(error) => {
                self.unsure = Some(outcome);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finds out about a commit that failed.
    pub(super) fn settle(&mut self, shared: &Shared) -> Result<(), CheckpointError> {
        if self.unsure.is_none() {
            return Ok(());
        }
        let generation = self.store.generation()?;
        if let Some(outcome) = self.unsure.take()
            && outcome.changes.checkpoint.generation == generation
        {
            self.happened(shared, outcome);
        }
        Ok(())
    }

    /// A checkpoint is durable: whoever should know is told, and what it makes superfluous is removed.
    fn happened(&mut self, shared: &Shared, outcome: Outcome) {
        let Outcome { changes, partitions, identities, leaves, rows_gone } = outcome;
        self.checkpoint = changes.checkpoint;
        self.identities.happened(shared, changes.checkpoint.link.position, identities);
        let pending = std::mem::replace(&mut self.pending, Changes::new(changes.checkpoint));
        shared.checkpoints.fetch_add(1, Ordering::AcqRel);
        let changed: BTreeSet<LaneId> = pending.entries.keys().map(|(lane, _)| *lane).collect();
        for lane in changed {
            shared.lane(lane).changed.committed(changes.checkpoint.link.position);
        }
        for (id, partition) in partitions {
            self.adopt(shared, id, partition);
        }
        self.left(shared, &leaves, rows_gone);
        shared.tail.committed();
        clean_up(shared, &changes);
    }

    /// Takes out rows of topics that are gone for good. Those of which it does.
    fn leave(
        &self,
        shared: &Shared,
        settings: &Settings,
        changed: &BTreeMap<PartitionId, Kept>,
        changes: &mut Changes,
    ) -> Vec<Leaves> {
        let is_quiet = |id: &PartitionId, kept: &Kept| {
            !changed.contains_key(id)
                && kept.segments.last().is_none()
                && kept.extent.end == shared.partition(*id).written()
        };
        let mut leaves = Vec::new();
        for (topic, gone) in self.leaving.next(settings) {
            for lane in gone.readers.iter().flat_map(|reader| RowRange::of_subscriber(*reader)) {
                changes.rows_gone.push(lane);
            }
            changes.rows_gone.extend(RowRange::of_topic(topic));
            // What may still be written to has to say where it goes on.
            let is_last = gone.is_closed && self.partitions.range(all_of(topic)).all(|(id, kept)| is_quiet(id, kept));
            if is_last {
                changes.rows_gone.push(RowRange::of_partitions(topic));
            }
            leaves.push(Leaves { topic, is_last, is_all: is_last || !gone.is_closed });
        }
        leaves
    }

    /// A number of rows of topics that are gone for good are gone.
    fn left(&mut self, shared: &Shared, leaves: &[Leaves], rows: Option<usize>) {
        if leaves.is_empty() {
            return;
        }
        if rows != Some(0) {
            shared.tail.ask(); // there may be more
            return;
        }
        for Leaves { topic, is_last, .. } in leaves.iter().filter(|leaves| leaves.is_all) {
            self.leaving.has_left(*topic);
            let all: Vec<_> = self.partitions.range(all_of(*topic)).map(|(id, _)| *id).collect();
            for id in all.iter().filter(|_| *is_last) {
                self.partitions.remove(id);
                shared.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
        }
    }

    /// Takes out the segments that may go.
    fn expire(
        &self,
        shared: &Shared,
        (settings, now): (&Settings, ClockState),
        kept: &mut BTreeMap<PartitionId, Kept>,
        changes: &mut Changes,
    ) {
        let mut holds = shared.holds.decide();
        for (id, partition) in &self.partitions {
            if settings.gone.contains_key(&id.topic) {
                let mut partition = partition.clone();
                let all = partition.segments.iter().count();
                if all == 0 {
                    continue;
                }
                for segment in partition.segments.remove_first(all) {
                    changes.segments_gone.push((*id, segment.base_offset));
                }
                partition.extent.start = partition.extent.end;
                holds.goes(*id, partition.extent.start);
                changes.partitions.insert(*id, partition.extent);
                kept.insert(*id, partition);
                continue;
            }
            let Some(topic) = settings.topics.get(&id.topic) else { continue }; // not declared any more: kept
            let seals = partition.segments.open().is_some_and(|open| {
                is_to_be_sealed(&open, &topic.retention, now.horizon_ns(seal_age(&topic.retention)))
            });
            let cursor = |lane: LaneId| self.cursors.get(&lane).copied().unwrap_or(0);
            let mut gone = expired(&topic.retention, now, partition, reached(settings, *id, cursor), seals);
            if gone > 0 {
                // A lane that goes back does so before that is durable; whoever sent it there has let go by then.
                let back = |lane: LaneId| cursor(lane).min(shared.lane(lane).position());
                gone = expired(&topic.retention, now, partition, reached(settings, *id, back), seals);
                let held = holds.first(*id);
                gone = partition.segments.iter().take(gone).take_while(|gone| gone.end_offset <= held).count();
            }
            if !seals && gone == 0 {
                continue; // as nearly always, so nothing is copied for it
            }
            let mut partition = partition.clone();
            if let Some(open) = partition.segments.open().filter(|_| seals) {
                let sealed = SegmentMeta { is_sealed: true, ..open };
                changes.segments.insert((*id, sealed.base_offset), sealed);
                partition.segments.put(sealed);
            }
            for first in partition.segments.remove_first(gone) {
                changes.segments_gone.push((*id, first.base_offset));
                partition.extent.start = first.end_offset;
            }
            holds.goes(*id, partition.extent.start);
            changes.partitions.insert(*id, partition.extent);
            kept.insert(*id, partition);
        }
    }
}

/// All partitions of a topic.
fn all_of(topic: TopicId) -> RangeInclusive<PartitionId> {
    PartitionId { topic, partition: 0 }..=PartitionId { topic, partition: u32::MAX }
}

/// How many segments of a partition may go, from the first on; `seals` says that the last one is sealed now.
fn expired(retention: &Retention, now: ClockState, partition: &Kept, reached: Offset, seals: bool) -> usize {
    let horizon_ns = retention.age.and_then(|age| now.horizon_ns(age));
    let mut bytes: u64 = partition.segments.iter().map(|meta| meta.bytes).sum();
    let mut may_go = |segment: &SegmentMeta| {
        let is_old = horizon_ns.is_some_and(|horizon_ns| segment.last_trusted_ns < horizon_ns);
        let is_much = retention.partition_bytes.is_some_and(|max| bytes > max);
        bytes -= segment.bytes;
        (segment.is_sealed || seals) && (retention.force || segment.end_offset <= reached) && (is_old || is_much)
    };
    partition.segments.iter().take_while(|segment| may_go(segment)).count()
}

/// Up to where every live subscriber of a partition has processed it.
fn reached(settings: &Settings, id: PartitionId, cursor: impl Fn(LaneId) -> Offset) -> Offset {
    let readers = settings.readers.get(&id.topic).map(Vec::as_slice).unwrap_or_default();
    let lane = |subscriber: &SubscriberId| LaneId { subscriber: *subscriber, partition: id.partition };
    readers.iter().map(|subscriber| cursor(lane(subscriber))).min().unwrap_or(Offset::MAX)
}

fn seal_age(retention: &Retention) -> std::time::Duration {
    let part = |age: std::time::Duration| (age / limits::RETENTION_PARTS).max(limits::SEGMENT_AGE_MIN);
    retention.age.map_or(std::time::Duration::MAX, part)
}

fn seal_bytes(retention: &Retention) -> u64 {
    let part = |bytes: u64| bytes / u64::from(limits::RETENTION_PARTS);
    retention.partition_bytes.map_or(limits::SEGMENT_BYTES, part).clamp(1, limits::SEGMENT_BYTES)
}

/// Whether nothing more shall be added to a segment; events older than the horizon are so old that it is to be closed.
fn is_to_be_sealed(segment: &SegmentMeta, retention: &Retention, horizon_ns: Option<u64>) -> bool {
    segment.bytes >= seal_bytes(retention) || horizon_ns.is_some_and(|horizon| segment.first_trusted_ns < horizon)
}

/// Adds events to the partition's segments on the disk. The segments that changed.
fn add(
    shared: &Shared,
    unsynced: &mut Unsynced,
    settings: &Settings,
    id: PartitionId,
    partition: &mut Kept,
    chunks: &[Chunk],
) -> Result<Vec<SegmentMeta>, CheckpointError> {
    let topic = settings.topics.get(&id.topic).copied().unwrap_or_default();
    let mut changed: Vec<SegmentMeta> = Vec::new();
    let mut rest = blocks(chunks).into_iter().peekable();
    let mut bytes = Vec::new();
    while rest.peek().is_some() {
        let open = partition.segments.open();
        let mut meta = open.unwrap_or(SegmentMeta {
            base_offset: partition.extent.end,
            end_offset: partition.extent.end,
            bytes: 0,
            first_time_ns: 0,
            last_time_ns: 0,
            first_trusted_ns: 0,
            last_trusted_ns: 0,
            is_sealed: false,
        });
        bytes.clear();
        let start = meta.bytes;
        for block in rest.by_ref() {
            let Some(head) = write_block(&mut bytes, id, &block, topic.compression) else { continue };
            let trusted_ns = |chunk: Option<&Chunk>| chunk.map_or(0, |chunk| chunk.trusted_time_ns);
            if meta.bytes == 0 {
                (meta.first_time_ns, meta.first_trusted_ns) = (head.first_time_ns, trusted_ns(block.first()));
            }
            meta.last_trusted_ns = trusted_ns(block.last());
            meta.bytes += head.block_bytes();
            (meta.end_offset, meta.last_time_ns) = (head.end_offset(), head.last_time_ns);
            if meta.bytes >= seal_bytes(&topic.retention) {
                meta.is_sealed = true;
                break;
            }
            if bytes.len() >= limits::SEGMENT_WRITE_BYTES {
                break; // the rest with the next write, from the same memory
            }
        }
        let segment = SegmentId { partition: id, base_offset: meta.base_offset };
        let at = (start, meta.is_sealed);
        let written = unsynced.write(shared.disk.as_ref(), &shared.open_segments, segment, &bytes, at);
        written.map_err(disk_error(|| format!("{} cannot be written", segment.file_name())))?;
        partition.extent.end = meta.end_offset;
        partition.segments.put(meta);
        changed.push(meta);
    }
    Ok(changed)
}

/// Groups chunks into blocks, splitting those that are larger.
fn blocks(chunks: &[Chunk]) -> Vec<Vec<Chunk>> {
    let (mut blocks, mut block, mut room) = (Vec::new(), Vec::new(), limits::BLOCK_BYTES);
    for chunk in chunks {
        let mut chunk = chunk.clone();
        while chunk.count > 0 {
            if room == 0 {
                blocks.push(std::mem::take(&mut block));
                room = limits::BLOCK_BYTES;
            }
            let front = chunk.split_front(u32::MAX, room);
            room = if chunk.count > 0 { 0 } else { room.saturating_sub(front.records.len()) };
            if front.count > 0 {
                block.push(front);
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

/// Removes what nobody needs any more. What fails is done again by the next checkpoint or the next start.
fn clean_up(shared: &Shared, changes: &Changes) {
    let report = |what: &str, error: &io::Error| tracing::warn!(what, %error, "cannot clean up; it is tried again");
    for (partition, base_offset) in &changes.segments_gone {
        let id = SegmentId { partition: *partition, base_offset: *base_offset };
        shared.open_segments.close(id);
        shared.cold_cache.forget(id);
        for name in [id.file_name(), id.index_name()] {
            match shared.disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => report(&name, &error),
                _ => {}
            }
        }
    }
    if let Err(error) = shared.files.recycle(changes.checkpoint.link.position) {
        report("the journal", &error);
    }
    // The one for the next file, unless the room that it takes is needed for something better.
    if shared.queue.is_open()
        && shared.space.has_room_for(shared, shared.files.file_bytes())
        && let Err(error) = shared.files.keep_a_spare()
        && !is_passing(&error)
    {
        report("a spare journal file", &error);
    }
}
