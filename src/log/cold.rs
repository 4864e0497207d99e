//! Reads of what is no longer in memory: a walk along the journal from the index's last note.
//!
//! A reader keeps its place and a window of bytes, so a lane that catches up reads each byte of the journal once. Events
//! are slices of the window; nothing is copied.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, UnitBody};
use super::partition::Taken;
use crate::limits;
use crate::model::{Chunk, Offset, PartitionId};

/// A reader of one partition at a time.
pub struct ColdReader {
    shared: Arc<Shared>,
    /// Where the next frame is, and the offset that it was found for.
    place: Option<(PartitionId, Offset, u64)>,
    window: Bytes,
    /// The position of the window's first byte.
    window_position: u64,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// The disk says no.
    #[error("the journal cannot be read at position {position}: {error}")]
    Disk {
        /// In the journal, in bytes.
        position: u64,
        /// What the file system said.
        error: io::Error,
    },
    /// What is there is not what was written.
    #[error("the journal is damaged at position {position}: {what}")]
    Damaged {
        /// In the journal, in bytes.
        position: u64,
        /// What is wrong.
        what: String,
    },
}

impl ColdReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, place: None, window: Bytes::new(), window_position: 0 }
    }

    /// Events of a partition from `from` on, in front of `end`, all of which must be written. At least one chunk where
    /// `from < end`; as many as `events` and `bytes` allow and one window holds. Blocks on the disk.
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
        if from >= end {
            return Ok(Vec::new());
        }
        let noted = self.shared.partition(partition).locate(from).map_or(0, |entry| entry.position);
        let mut position = match self.place {
            // where events of the partition are far apart, the index knows better than the place behind the last one
            Some((known, offset, position)) if known == partition && offset == from => position.max(noted),
            _ => noted,
        };
        let mut taken = Taken::new(from, end, events, bytes);
        loop {
            let Some((head, frame)) = self.frame(position, taken.chunks.is_empty())? else { break };
            let mut more = true;
            if head.kind == Kind::Unit {
                more = take(&head, frame, partition, &mut taken).map_err(|error| damaged(position, &error))?;
            }
            if !more {
                break; // the frame may have more events that are wanted next time
            }
            position = head.end_position();
        }
        self.place = Some((partition, taken.from, position));
        Ok(taken.chunks)
    }

    /// Where the partition's first event is that was appended at or after a time, in front of `end`; else `end`.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn offset_at_time(&mut self, partition: PartitionId, time_ns: u64, end: Offset) -> Result<Offset, ColdError> {
        let Some(entry) = self.shared.partition(partition).locate_time(time_ns) else { return Ok(end) };
        let mut from = entry.base_offset;
        while from < end {
            for chunk in self.read(partition, from, end, u32::MAX, limits::COLD_READ_BYTES)? {
                if chunk.append_time_ns >= time_ns {
                    return Ok(chunk.base_offset);
                }
                from = chunk.end_offset();
            }
        }
        Ok(end)
    }

    /// The frame at a position. `None` where it is not in the window and `may_load` is false.
    fn frame(&mut self, position: u64, may_load: bool) -> Result<Option<(Head, Bytes)>, ColdError> {
        for wanted in [HEAD_BYTES, limits::COLD_READ_BYTES] {
            let bytes = self.in_window(position);
            if bytes.len() >= wanted.min(HEAD_BYTES) {
                let head = Head::parse(&bytes).map_err(|error| damaged(position, &error))?;
                if head.position != position {
                    return Err(damaged(position, &FrameError::Position));
                }
                if bytes.len() >= head.frame_bytes() {
                    return Ok(Some((head, bytes.slice(..head.frame_bytes()))));
                }
                if !may_load {
                    return Ok(None);
                }
                self.load(position, head.frame_bytes().max(limits::COLD_READ_BYTES))?;
                let bytes = self.in_window(position);
                if bytes.len() < head.frame_bytes() {
                    return Err(damaged(position, &FrameError::Short));
                }
                return Ok(Some((head, bytes.slice(..head.frame_bytes()))));
            }
            if !may_load {
                return Ok(None);
            }
            self.load(position, limits::COLD_READ_BYTES)?;
        }
        Err(damaged(position, &FrameError::Short))
    }

    fn in_window(&self, position: u64) -> Bytes {
        let skip = position.checked_sub(self.window_position).and_then(|skip| usize::try_from(skip).ok());
        match skip {
            Some(skip) if skip <= self.window.len() => self.window.slice(skip..),
            _ => Bytes::new(),
        }
    }

    /// Reads a window of `length` bytes from `position` on, less where the file ends.
    fn load(&mut self, position: u64, length: usize) -> Result<(), ColdError> {
        let Some((file, next)) = self.shared.files.find(position) else {
            return Err(damaged(position, &FrameError::Short));
        };
        let limit = next.map_or(u64::MAX, |next| next - position);
        let mut buffer = vec![0; length.min(usize::try_from(limit).unwrap_or(usize::MAX))];
        let count = file.read(&mut buffer, position).map_err(|error| ColdError::Disk { position, error })?;
        buffer.truncate(count);
        self.window = buffer.into();
        self.window_position = position;
        Ok(())
    }
}

/// Takes what is wanted of a frame; false when nothing more is wanted.
fn take(head: &Head, frame: Bytes, partition: PartitionId, taken: &mut Taken) -> Result<bool, FrameError> {
    let mut unit = UnitBody::parse(head, frame.slice(HEAD_BYTES..))?;
    let mut verified = false;
    while let Some((of, chunk)) = unit.next_slice()? {
        if of != partition || chunk.end_offset() <= taken.from {
            continue;
        }
        if !verified {
            // only frames that are used: hopping over the others must not cost a pass over their bytes
            head.verify(&frame)?;
            verified = true;
        }
        if chunk.base_offset > taken.from {
            return Err(FrameError::Hole); // a frame in front was hopped over as another partition's, and is not
        }
        if !taken.add(chunk) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn damaged(position: u64, error: &FrameError) -> ColdError {
    ColdError::Damaged { position, what: error.to_string() }
}
