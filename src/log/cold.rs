//! Reads of events that are no longer in memory: block by block from the segments.
//!
//! A reader holds only its position: the bytes are in windows that all readers share, so lanes that catch up together
//! read each byte of a segment once. Events are slices of a window unless their block is compressed. A few events are
//! copied out of the window, because a slice keeps the whole window in memory.

use std::sync::Arc;

use bytes::Bytes;

use super::LogInner;
use super::block::{BLOCK_HEAD_BYTES, BlockError, BlockHead};
use super::partition::{ChunkLimiter, Partition, TimeSearch};
use super::segment::{SegmentError, SegmentId, SegmentMeta, is_out_of_descriptors};
use crate::limits;
use crate::model::{Chunk, Offset, PartitionId};

/// A reader of one partition at a time.
pub struct ColdReader {
    shared: Arc<LogInner>,
    place: Option<ReadPosition>,
}

/// The position of a reader.
struct ReadPosition {
    partition: PartitionId,
    meta: SegmentMeta,
    /// Of the next block, in the segment.
    position: u64,
    /// The next offset to return.
    offset: Offset,
}

/// Why stored events cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ColdError(#[from] SegmentError);

impl ColdError {
    /// Whether the same read may succeed later: the stored data is intact, descriptors are short.
    pub fn is_passing(&self) -> bool {
        matches!(&self.0, SegmentError::Disk { error, .. } if is_out_of_descriptors(error))
    }
}

impl ColdReader {
    pub(super) fn new(shared: Arc<LogInner>) -> Self {
        shared.cold_cache.joined();
        Self { shared, place: None }
    }

    /// Events of a partition from `from` (or its first retained event) and before `end`. All of them must be written
    /// and no longer in memory. Returns at least one chunk if there is any, and as many as `events` and `bytes` allow
    /// and one window holds. Blocks on the disk.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn read(
        &mut self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        events: u32,
        bytes: usize,
    ) -> Result<Vec<Chunk>, ColdError> {
        let known = self.shared.partition(partition);
        let from = from.max(known.start());
        let mut taken = ChunkLimiter::new(from, end, events, bytes);
        while taken.from < end {
            let Some(mut place) = self.place(partition, &known, taken.from)? else { break };
            let head = place.block(&self.shared, taken.chunks.is_empty())?;
            let Some((head, body)) = head else {
                self.place = Some(place);
                break;
            };
            let damaged = |error| place.damaged(&self.shared, error);
            if head.base_offset > taken.from {
                return Err(damaged(BlockError::Misplaced).into()); // the block before it is damaged
            }
            let chunks = head.chunks(body).map_err(damaged)?;
            let wants_more = chunks.into_iter().all(|chunk| taken.add(chunk));
            if taken.from >= head.end_offset() {
                place.position += head.block_bytes();
            }
            place.offset = taken.from;
            if place.position >= place.meta.bytes && place.offset < place.meta.end_offset {
                return Err(place.damaged(&self.shared, BlockError::Short).into());
            }
            self.place = Some(place);
            if !wants_more {
                break;
            }
        }
        Ok(apart(taken.chunks))
    }

    /// The offset of the first event before `end` that was appended at or after a time, or `end` if there is none.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn offset_at_time(&mut self, partition: PartitionId, time_ns: u64, end: Offset) -> Result<Offset, ColdError> {
        let known = self.shared.partition(partition);
        match known.recent_at_time(time_ns, end) {
            TimeSearch::Recent(offset) => return Ok(offset),
            TimeSearch::None => return Ok(end),
            TimeSearch::Cold => {}
        }
        let segments = known.segments();
        let Some(meta) = segments.iter().find(|meta| meta.last_time_ns >= time_ns) else {
            // all events in segments are older: the result is the first one in memory, if there is one
            let behind = segments.last().map_or(known.start(), |meta| meta.end_offset);
            return Ok(behind.min(end));
        };
        let segment = self.shared.open_segments.get(self.shared.disk.as_ref(), partition, meta)?;
        let position = segment.locate_time(time_ns, meta)?;
        let mut place = ReadPosition { partition, meta: *meta, position, offset: meta.base_offset };
        while let Some((head, body)) = place.block(&self.shared, true)? {
            if head.first_time_ns >= time_ns && head.base_offset > place.offset {
                // the block before this one is damaged and may contain the event
                return Err(place.damaged(&self.shared, BlockError::Misplaced).into());
            }
            let chunks = head.chunks(body).map_err(|error| place.damaged(&self.shared, error))?;
            if let Some(chunk) = chunks.iter().find(|chunk| chunk.append_time_ns >= time_ns) {
                return Ok(chunk.base_offset.max(known.start()).min(end));
            }
            place.offset = head.end_offset();
            place.position += head.block_bytes();
        }
        Ok(meta.end_offset.min(end))
    }

    /// The position of an offset: the reader's own, or found by the index. `None` if no segment contains it.
    fn place(
        &mut self,
        partition: PartitionId,
        known: &Partition,
        offset: Offset,
    ) -> Result<Option<ReadPosition>, SegmentError> {
        if let Some(place) = self.place.take()
            && place.partition == partition
            && place.offset == offset
            && place.position < place.meta.bytes
        {
            return Ok(Some(place));
        }
        let segments = known.segments();
        let Some(meta) = segments.find(offset) else { return Ok(None) };
        let segment = self.shared.open_segments.get(self.shared.disk.as_ref(), partition, meta)?;
        let position = segment.locate(offset, meta)?;
        Ok(Some(ReadPosition { partition, meta: *meta, position, offset }))
    }
}

impl Drop for ColdReader {
    fn drop(&mut self) {
        self.shared.cold_cache.left();
    }
}

impl ReadPosition {
    fn id(&self) -> SegmentId {
        SegmentId { partition: self.partition, base_offset: self.meta.base_offset }
    }

    /// The stored bytes are not the written ones. The cached window is dropped, so that the next read looks at the
    /// disk.
    fn damaged(&self, shared: &LogInner, error: BlockError) -> SegmentError {
        shared.cold_cache.forget(self.id());
        self.id().damaged(self.position, error)
    }

    /// The block at this position. `None` after the last one, or if no window has it and `may_load` is false.
    fn block(&self, shared: &LogInner, may_load: bool) -> Result<Option<(BlockHead, Bytes)>, SegmentError> {
        if self.position >= self.meta.bytes {
            return Ok(None);
        }
        let load = |position, length| -> Result<Bytes, SegmentError> {
            let segment = shared.open_segments.get(shared.disk.as_ref(), self.partition, &self.meta)?;
            segment.read(position, length)
        };
        let mut wanted = BLOCK_HEAD_BYTES;
        // Twice at most: the window may end inside the block.
        for _ in 0..2 {
            let bytes = if may_load {
                shared.cold_cache.get(self.id(), self.position, wanted, self.meta.bytes, load)?
            } else {
                let Some(bytes) = shared.cold_cache.find(self.id(), self.position, wanted) else { return Ok(None) };
                bytes
            };
            if bytes.len() < wanted {
                break;
            }
            let head = BlockHead::parse(&bytes).map_err(|error| self.damaged(shared, error))?;
            if head.partition != self.partition {
                return Err(self.damaged(shared, BlockError::Misplaced));
            }
            let length = usize::try_from(head.block_bytes()).unwrap_or(usize::MAX);
            if bytes.len() >= length {
                return Ok(Some((head, bytes.slice(BLOCK_HEAD_BYTES..length))));
            }
            wanted = length;
        }
        Err(self.damaged(shared, BlockError::Short))
    }
}

/// Copies a few events into memory of their own: otherwise they would keep a window in memory that no limit counts.
fn apart(mut chunks: Vec<Chunk>) -> Vec<Chunk> {
    let bytes = chunks.iter().map(|chunk| chunk.records.len()).sum();
    if bytes < limits::COLD_READ_BYTES / 2 {
        let mut own = Vec::with_capacity(bytes);
        chunks.iter().for_each(|chunk| own.extend_from_slice(&chunk.records));
        let mut own = Bytes::from(own);
        for chunk in &mut chunks {
            chunk.records = own.split_to(chunk.records.len());
        }
    }
    chunks
}
