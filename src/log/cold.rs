//! Reads of what is no longer in memory: block by block from the segments.
//!
//! A reader keeps its place and a window of bytes, so a lane that catches up reads each byte of a segment once. Events are
//! slices of the window; nothing is copied, unless a block is compressed.

use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::block::{BLOCK_HEAD_BYTES, BlockError, BlockHead};
use super::partition::{AtTime, Partition, Taken};
use super::segment::{SegmentError, SegmentFile, SegmentMeta, is_out_of_descriptors};
use crate::limits;
use crate::model::{Chunk, Offset, PartitionId};

/// A reader of one partition at a time.
pub struct ColdReader {
    shared: Arc<Shared>,
    place: Option<Place>,
}

/// Where a reader is.
struct Place {
    partition: PartitionId,
    segment: Arc<SegmentFile>,
    meta: SegmentMeta,
    /// Of the next block.
    position: u64,
    /// The next offset that is wanted.
    offset: Offset,
    window: Bytes,
    /// The position of the window's first byte.
    window_position: u64,
}

/// Why stored events cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ColdError(#[from] SegmentError);

impl ColdError {
    /// Whether the same read may succeed later: nothing is wrong with what is stored, descriptors are short.
    pub fn is_passing(&self) -> bool {
        matches!(&self.0, SegmentError::Disk { error, .. } if is_out_of_descriptors(error))
    }
}

impl ColdReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, place: None }
    }

    /// Events of a partition from `from` on, or from its first one that is kept, in front of `end`, all of which must be
    /// written and not in memory. At least one chunk where there is any; as many as `events` and `bytes` allow and one
    /// window holds. Blocks on the disk.
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
        let mut taken = Taken::new(from, end, events, bytes);
        while taken.from < end {
            let Some(mut place) = self.place(partition, &known, taken.from)? else { break };
            let head = place.block(taken.chunks.is_empty())?;
            let Some((head, body)) = head else {
                self.place = Some(place);
                break;
            };
            let damaged = |error| place.segment.damaged(place.position, error);
            if head.base_offset > taken.from {
                return Err(damaged(BlockError::Misplaced).into()); // what should be in front of it is damaged
            }
            let chunks = head.chunks(body).map_err(damaged)?;
            let wants_more = chunks.into_iter().all(|chunk| taken.add(chunk));
            if taken.from >= head.end_offset() {
                place.position += head.block_bytes();
            }
            place.offset = taken.from;
            if place.position >= place.meta.bytes && place.offset < place.meta.end_offset {
                return Err(place.segment.damaged(place.position, BlockError::Short).into());
            }
            self.place = Some(place);
            if !wants_more {
                break;
            }
        }
        Ok(taken.chunks)
    }

    /// The first event in front of `end` that was appended at or after a time; else `end`. Blocks on the disk.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn offset_at_time(&mut self, partition: PartitionId, time_ns: u64, end: Offset) -> Result<Offset, ColdError> {
        let known = self.shared.partition(partition);
        match known.recent_at_time(time_ns, end) {
            AtTime::Recent(offset) => return Ok(offset),
            AtTime::None => return Ok(end),
            AtTime::Cold => {}
        }
        let segments = known.segments();
        let Some(meta) = segments.iter().find(|meta| meta.last_time_ns >= time_ns) else {
            // all that is in segments is older: the first one in memory is it, where there is one
            let behind = segments.last().map_or(known.start(), |meta| meta.end_offset);
            return Ok(behind.min(end));
        };
        let segment = self.shared.open_segments.get(self.shared.disk.as_ref(), partition, meta)?;
        let position = segment.locate_time(time_ns, meta)?;
        let (offset, window, window_position) = (meta.base_offset, Bytes::new(), 0);
        let mut place = Place { partition, segment, meta: *meta, position, offset, window, window_position };
        while let Some((head, body)) = place.block(true)? {
            if head.first_time_ns >= time_ns && head.base_offset > place.offset {
                // what should be in front of it is damaged, and may have been appended then as well
                return Err(place.segment.damaged(place.position, BlockError::Misplaced).into());
            }
            let chunks = head.chunks(body).map_err(|error| place.segment.damaged(place.position, error))?;
            if let Some(chunk) = chunks.iter().find(|chunk| chunk.append_time_ns >= time_ns) {
                return Ok(chunk.base_offset.max(known.start()).min(end));
            }
            place.offset = head.end_offset();
            place.position += head.block_bytes();
        }
        Ok(meta.end_offset.min(end))
    }

    /// The place of an offset: where this reader is, or found by the index. `None` where no segment has it.
    fn place(
        &mut self,
        partition: PartitionId,
        known: &Partition,
        offset: Offset,
    ) -> Result<Option<Place>, SegmentError> {
        if let Some(place) = self.place.take()
            && place.partition == partition
            && place.offset == offset
            && place.position < place.meta.bytes
        {
            return Ok(Some(place));
        }
        let segments = known.segments();
        let index = segments.partition_point(|meta| meta.end_offset <= offset);
        let Some(meta) = segments.get(index) else { return Ok(None) };
        let segment = self.shared.open_segments.get(self.shared.disk.as_ref(), partition, meta)?;
        let position = segment.locate(offset, meta)?;
        let (window, window_position) = (Bytes::new(), 0);
        Ok(Some(Place { partition, segment, meta: *meta, position, offset, window, window_position }))
    }
}

impl Place {
    /// The block at this place. `None` behind the last one, or where it is not in the window and `may_load` is false.
    fn block(&mut self, may_load: bool) -> Result<Option<(BlockHead, Bytes)>, SegmentError> {
        if self.position >= self.meta.bytes {
            return Ok(None);
        }
        let mut wanted = limits::COLD_READ_BYTES;
        // at the most: the window ends inside the head, then inside a large block
        for _ in 0..3 {
            let bytes = self.in_window();
            if bytes.len() >= BLOCK_HEAD_BYTES {
                let head = BlockHead::parse(&bytes).map_err(|error| self.segment.damaged(self.position, error))?;
                if head.partition != self.partition {
                    return Err(self.segment.damaged(self.position, BlockError::Misplaced));
                }
                let length = usize::try_from(head.block_bytes()).unwrap_or(usize::MAX);
                if bytes.len() >= length {
                    return Ok(Some((head, bytes.slice(BLOCK_HEAD_BYTES..length))));
                }
                wanted = wanted.max(length);
            }
            if !may_load {
                return Ok(None);
            }
            let left = usize::try_from(self.meta.bytes - self.position).unwrap_or(usize::MAX);
            self.window = self.segment.read(self.position, wanted.min(left))?;
            self.window_position = self.position;
        }
        Err(self.segment.damaged(self.position, BlockError::Short))
    }

    fn in_window(&self) -> Bytes {
        let skip = self.position.checked_sub(self.window_position).and_then(|skip| usize::try_from(skip).ok());
        match skip {
            Some(skip) if skip <= self.window.len() => self.window.slice(skip..),
            _ => Bytes::new(),
        }
    }
}
