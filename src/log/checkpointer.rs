//! The checkpointer: moves durable events from the journal into segments and the state store, and removes expired
//! segments.
//!
//! ```text
//!            move, often: frees memory                  checkpoint, rarely: frees the journal
//!
//!            ┌ 1. blocks ──> segments, not synced ┐                           ┌ 4. journal files are recycled
//!   groups ──┤       where readers see them       ├─ 2. one sync  ─ 3. one ───┤
//!            └ 1. cursors, identities… in memory ─┘      for all      commit  └ 5. segments that expired are removed
//! ```
//!
//! Promises:
//! - Only events that may be acked are moved.
//! - The commit comes after the sync of everything that it refers to, including the journal up to that position, and
//!   before every step that cannot be undone. So a crash at any point leaves the state before or after the commit, and
//!   at most files, or ends of files, to which nothing refers.
//! - If the disk is full or descriptors are short, nothing has changed, and the checkpoint is repeated later.
//! - An event is removed only when its topic's settings allow it and every subscriber has durably processed it, unless
//!   the settings force the removal or its topic is removed for good.
//!
//! Must not know: who waits for a checkpoint, what a record contains.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::block::write_block;
use super::clock::ClockState;
use super::gone::Removals;
use super::identities::{ChangedRuns, Identities};
use super::producers::ProducerExpiry;
use super::runs::StoredRuns;
use super::segment::{SegmentId, SegmentMeta, is_out_of_descriptors};
use super::segments::Segments;
use super::store::{Changes, Checkpoint, Contents, Extent, RowRange, Store, StoreError, StoreReader};
use super::syncer::End;
use super::unsynced::UnsyncedSegments;
use super::{Durability, LogInner, LogOptions, Settings, failed_sync, is_passing, lock};
use crate::limits;
use crate::model::{Chunk, LaneId, Offset, PartitionId, Retention, SubscriberId, TopicId};

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// Nothing has changed; a repetition may succeed.
    #[error("the disk is full")]
    Full,
    /// Nothing has changed; a repetition may succeed.
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

/// A partition from the checkpointer's view.
#[derive(Debug, Clone, Default)]
struct PartitionState {
    extent: Extent,
    segments: Segments,
}

/// What one turn of the checkpointer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Moves written groups, and makes a checkpoint if one is due.
    Move,
    /// Moves written groups and makes a checkpoint of them.
    Checkpoint,
}

pub(super) struct Checkpointer {
    store: Store,
    entries: StoreReader,
    checkpoint: Checkpoint,
    /// Changes that were moved since the last checkpoint, up to the link: the next checkpoint commits them.
    pending: Changes,
    /// A commit that failed and may have happened nevertheless. Nothing is moved until that is known.
    unsure: Option<Outcome>,
    /// Ordered, so that a simulation is deterministic.
    partitions: BTreeMap<PartitionId, PartitionState>,
    cursors: HashMap<LaneId, Offset>,
    identities: Identities,
    forgetting: ProducerExpiry,
    leaving: Removals,
    unsynced: UnsyncedSegments,
    /// Trusted time of the last moved frame, 0 before the first one since the start. No frame that is not moved yet is
    /// older.
    moved_ns: u64,
    /// When expiry was last checked, by the monotonic clock.
    looked_ns: u64,
    checkpoint_bytes: usize,
}

/// The state after a checkpoint is committed, in addition to the pending changes.
struct Outcome {
    changes: Changes,
    /// The partitions of which segments expire.
    partitions: BTreeMap<PartitionId, PartitionState>,
    identities: ChangedRuns,
    /// Removed topics whose rows this checkpoint deletes.
    leaves: Vec<TopicRemoval>,
    /// How many rows it deleted, if known.
    rows_gone: Option<usize>,
}

/// A removed topic whose rows a checkpoint deletes.
struct TopicRemoval {
    topic: TopicId,
    /// The rows of its partitions are among them.
    is_last: bool,
    /// No other rows of it have to wait for a later start.
    is_all: bool,
}

impl Checkpointer {
    /// Continues from the contents of the store.
    pub(super) fn new(store: Store, contents: &Contents, options: &LogOptions) -> Self {
        let hashing = options.hashing();
        let mut partitions: BTreeMap<PartitionId, PartitionState> = BTreeMap::new();
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
            forgetting: ProducerExpiry::default(),
            leaving: Removals::default(),
            unsynced: UnsyncedSegments::new(options.durability != Durability::Sync),
            moved_ns: 0,
            looked_ns: 0,
            checkpoint_bytes: options.checkpoint_bytes,
        }
    }

    /// The identities in the store.
    pub(super) fn sealed(&self) -> Arc<StoredRuns> {
        self.identities.sealed()
    }

    /// Moves all written groups, and makes a checkpoint if one is due. A checkpoint also removes expired segments.
    pub(super) fn turn(&mut self, shared: &LogInner, turn: Turn) -> Result<(), CheckpointError> {
        self.settle(shared)?;
        let moved = self.move_waiting(shared);
        let since_ns = shared.clock.elapsed_ns().saturating_sub(self.looked_ns);
        let is_due = since_ns >= limits::RETENTION_EVERY.as_nanos() as u64
            || shared.tail.uncommitted_bytes() >= self.checkpoint_bytes
            || self.pending.count() > limits::CHECKPOINT_ENTRIES
            || self.pending.entries_bytes > limits::CHECKPOINT_ENTRIES_BYTES
            || self.identities.pending_bytes() > limits::CHECKPOINT_IDENTITIES_BYTES
            || shared.space.is_tight();
        // after a move that found no room: a checkpoint frees files
        if turn == Turn::Checkpoint || is_due || moved.is_err() {
            self.commit(shared)?;
        }
        moved
    }

    /// Writes the groups of the tail into segments and frees their memory.
    fn move_waiting(&mut self, shared: &LogInner) -> Result<(), CheckpointError> {
        let groups = shared.tail.waiting();
        let Some(link) = groups.last().map(|group| group.end) else { return Ok(()) };
        let settings = shared.settings();
        let mut ends: BTreeMap<PartitionId, &End> = BTreeMap::new();
        ends.extend(groups.iter().flat_map(|group| group.ends.iter()).map(|end| (end.id, end)));
        let mut moved_ns = self.moved_ns;
        // The state changes only after all of it is written: after an error, the same is written again.
        let (mut partitions, mut changed): (BTreeMap<PartitionId, PartitionState>, Vec<_>) = Default::default();
        for (id, end) in ends {
            let mut partition = self.partitions.get(&id).cloned().unwrap_or_default();
            let chunks = end.partition.chunks(partition.extent.end, end.offset);
            moved_ns = chunks.last().map_or(moved_ns, |chunk| moved_ns.max(chunk.trusted_time_ns));
            let metas = add(shared, &mut self.unsynced, &settings, id, &mut partition, &chunks)?;
            changed.extend(metas.into_iter().map(|meta| ((id, meta.base_offset), meta)));
            partitions.insert(id, partition);
            // The whole move takes milliseconds; with few processors, a thread whose sync has finished would wait for
            // it.
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
        // A large backlog does not wait for a quiet moment: start writing the excess now.
        self.unsynced.begin(self.unsynced.to_begin().saturating_sub(limits::SEGMENTS_BEGUN_LATER_BYTES_MAX));
        Ok(())
    }

    /// Starts the writeback of a part of the moved data. Returns whether more is left.
    pub(super) fn begin_writing(&mut self) -> bool {
        let bytes = self.unsynced.to_begin();
        self.unsynced.begin((bytes / limits::SEGMENTS_BEGUN_PART).max(limits::SEGMENTS_BEGUN_AT_ONCE_BYTES));
        self.unsynced.to_begin() > 0
    }

    /// Makes a partition's new segments visible to readers.
    fn adopt(&mut self, shared: &LogInner, id: PartitionId, partition: PartitionState) {
        shared.partition(id).set_segments(partition.segments.clone(), partition.extent.start);
        self.partitions.insert(id, partition);
    }

    /// Makes a checkpoint of everything that was moved.
    fn commit(&mut self, shared: &LogInner) -> Result<(), CheckpointError> {
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
        // Not by the current time: a frame that is not moved yet may come from a producer that would otherwise be
        // forgotten.
        self.forgetting.forget(&settings, self.moved_ns, &self.entries, changed, of_topic)?;
        for (topic, floor_ns) in &changes.forgotten {
            // before they are removed from the store: a reader that does not find a producer must see this
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

    /// Finds out whether a failed commit has happened.
    pub(super) fn settle(&mut self, shared: &LogInner) -> Result<(), CheckpointError> {
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

    /// A checkpoint is durable: publishes the new state and removes files that are no longer needed.
    fn happened(&mut self, shared: &LogInner, outcome: Outcome) {
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

    /// Adds the rows of removed topics to the deletions of this checkpoint. Returns those topics.
    fn leave(
        &self,
        shared: &LogInner,
        settings: &Settings,
        changed: &BTreeMap<PartitionId, PartitionState>,
        changes: &mut Changes,
    ) -> Vec<TopicRemoval> {
        let is_quiet = |id: &PartitionId, kept: &PartitionState| {
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
            // A partition that can still be written to needs its row for the next offset.
            let is_last = gone.is_closed && self.partitions.range(all_of(topic)).all(|(id, kept)| is_quiet(id, kept));
            if is_last {
                changes.rows_gone.push(RowRange::of_partitions(topic));
            }
            leaves.push(TopicRemoval { topic, is_last, is_all: is_last || !gone.is_closed });
        }
        leaves
    }

    /// Rows of removed topics were deleted.
    fn left(&mut self, shared: &LogInner, leaves: &[TopicRemoval], rows: Option<usize>) {
        if leaves.is_empty() {
            return;
        }
        if rows != Some(0) {
            shared.tail.ask(); // there may be more rows
            return;
        }
        for TopicRemoval { topic, is_last, .. } in leaves.iter().filter(|leaves| leaves.is_all) {
            self.leaving.has_left(*topic);
            let all: Vec<_> = self.partitions.range(all_of(*topic)).map(|(id, _)| *id).collect();
            for id in all.iter().filter(|_| *is_last) {
                self.partitions.remove(id);
                shared.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
        }
    }

    /// Selects the segments that expire.
    fn expire(
        &self,
        shared: &LogInner,
        (settings, now): (&Settings, ClockState),
        kept: &mut BTreeMap<PartitionId, PartitionState>,
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
            // no longer declared: it keeps everything
            let Some(topic) = settings.topics.get(&id.topic) else { continue };
            let seals = partition.segments.open().is_some_and(|open| {
                is_to_be_sealed(&open, &topic.retention, now.horizon_ns(seal_age(&topic.retention)))
            });
            let cursor = |lane: LaneId| self.cursors.get(&lane).copied().unwrap_or(0);
            let mut gone = expired(&topic.retention, now, partition, reached(settings, *id, cursor), seals);
            if gone > 0 {
                // A lane that seeks back moves before the seek is durable; the hold for the seek may be released by
                // then.
                let back = |lane: LaneId| cursor(lane).min(shared.lane(lane).position());
                gone = expired(&topic.retention, now, partition, reached(settings, *id, back), seals);
                let held = holds.first(*id);
                gone = partition.segments.iter().take(gone).take_while(|gone| gone.end_offset <= held).count();
            }
            if !seals && gone == 0 {
                continue; // the usual case: nothing is copied
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

/// The range of all partitions of a topic.
fn all_of(topic: TopicId) -> RangeInclusive<PartitionId> {
    PartitionId { topic, partition: 0 }..=PartitionId { topic, partition: u32::MAX }
}

/// How many segments of a partition may be removed, from the first on. `seals` states that the last one is sealed now.
fn expired(retention: &Retention, now: ClockState, partition: &PartitionState, reached: Offset, seals: bool) -> usize {
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

/// The offset up to which every live subscriber has processed the partition.
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

/// Whether a segment should be closed: it is large enough, or its first event is older than the horizon.
fn is_to_be_sealed(segment: &SegmentMeta, retention: &Retention, horizon_ns: Option<u64>) -> bool {
    segment.bytes >= seal_bytes(retention) || horizon_ns.is_some_and(|horizon| segment.first_trusted_ns < horizon)
}

/// Appends events to the partition's segments on the disk. Returns the segments that changed.
fn add(
    shared: &LogInner,
    unsynced: &mut UnsyncedSegments,
    settings: &Settings,
    id: PartitionId,
    partition: &mut PartitionState,
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
                break; // the rest with the next write, reusing the buffer
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

/// Groups chunks into blocks and splits chunks that are larger than a block.
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

/// Removes files that are no longer needed. The next checkpoint or the next start repeats a removal that fails.
fn clean_up(shared: &LogInner, changes: &Changes) {
    let report = |what: &str, error: &io::Error| {
        tracing::warn!(what, %error, "cannot clean up; the next checkpoint tries again");
    };
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
    // A spare file for the next roll, unless that room is needed for something more important.
    if shared.queue.is_open()
        && shared.space.has_room_for(shared, shared.files.file_bytes())
        && let Err(error) = shared.files.keep_a_spare()
        && !is_passing(&error)
    {
        report("a spare journal file", &error);
    }
}
