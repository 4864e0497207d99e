//! Reads the frames of a journal file in order, in windows of bytes.

use std::io;

use bytes::Bytes;

use super::files::{FILE_HEAD_BYTES, JournalFile};
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, Link};
use crate::effects::DiskFile;

/// Bytes per read.
const WINDOW_BYTES: usize = 1 << 20;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A reader of the frames in a file.
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    first_position: u64,
    window: Bytes,
    /// The position of the window's first byte.
    window_position: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a JournalFile) -> Self {
        Self {
            file: file.file.as_ref(),
            first_position: file.first_position,
            window: Bytes::new(),
            window_position: file.first_position,
        }
    }

    /// The intact frame at a position; the caller must check that it belongs there.
    pub(super) fn frame(&mut self, position: u64) -> Result<(Head, Bytes), WalkError> {
        if self.in_window(position).len() < HEAD_BYTES {
            self.load(position, WINDOW_BYTES)?;
        }
        let head = match Head::parse(&self.in_window(position)) {
            Err(FrameError::Unknown { .. } | FrameError::Short) => {
                // whether a newer release wrote it is known only from the whole frame
                self.load(position, super::frame::BODY_BYTES_MAX.min(self.left(position)?))?;
                Head::parse(&self.in_window(position))?
            }
            parsed => parsed?,
        };
        if self.in_window(position).len() < head.frame_bytes() {
            self.load(position, head.frame_bytes().max(WINDOW_BYTES))?;
        }
        let frame = self.in_window(position);
        head.verify(&frame)?;
        Ok((head, frame.slice(..head.frame_bytes())))
    }

    /// The intact frames from `position` on and before `end` that lie in one window, the link after them, and their
    /// catalogue entries.
    pub(super) fn run(&mut self, position: u64, end: u64) -> Result<(Bytes, Link, Vec<Bytes>), WalkError> {
        let (mut head, frame) = self.frame(position)?;
        let mut entries = Vec::new();
        let mut note = |head: &Head, frame: &Bytes| {
            if head.kind == Kind::Catalogue {
                entries.push(frame.slice(HEAD_BYTES..head.frame_bytes()));
            }
        };
        note(&head, &frame);
        let mut length = frame.len();
        while head.end_position() < end {
            let rest = self.in_window(head.end_position());
            let Some(next) = Head::parse(&rest).ok().filter(|next| next.frame_bytes() <= rest.len()) else { break };
            note(&next, &rest);
            length += next.frame_bytes();
            head = next;
        }
        Ok((self.in_window(position).slice(..length), Link::after(&head), entries))
    }

    /// Whether the file ends at a position.
    pub(super) fn is_at_end(&self, position: u64) -> io::Result<bool> {
        Ok(self.left(position)? == 0)
    }

    /// Bytes of the file from a position on.
    fn left(&self, position: u64) -> io::Result<usize> {
        let at = FILE_HEAD_BYTES + (position - self.first_position);
        Ok(usize::try_from(self.file.length()?.saturating_sub(at)).unwrap_or(usize::MAX))
    }

    fn in_window(&self, position: u64) -> Bytes {
        let skip = position.checked_sub(self.window_position).and_then(|skip| usize::try_from(skip).ok());
        match skip {
            Some(skip) if skip <= self.window.len() => self.window.slice(skip..),
            _ => Bytes::new(),
        }
    }

    fn load(&mut self, position: u64, length: usize) -> io::Result<()> {
        let at = FILE_HEAD_BYTES + (position - self.first_position);
        self.window = self.file.read_bytes(at, length)?;
        self.window_position = position;
        Ok(())
    }

    /// The first position from `from` on where a frame may begin.
    pub(super) fn next_magic(&mut self, from: u64) -> Result<Option<u64>, WalkError> {
        let mut at = from;
        loop {
            self.load(at, WINDOW_BYTES)?;
            if let Some(found) = memchr::memmem::find(&self.window, b"WTTL") {
                return Ok(Some(at + found as u64));
            }
            if self.window.len() < WINDOW_BYTES {
                return Ok(None);
            }
            at += (self.window.len() - 3) as u64; // the magic may straddle the edge
        }
    }

    /// The intact frame at a position, if a known version begins there, belongs there and `is_wanted`. Only then is a
    /// checksum computed over its claimed length, because the bytes may come from a producer.
    pub(super) fn frame_if(
        &mut self,
        position: u64,
        is_wanted: impl Fn(&Head) -> bool,
    ) -> Result<Option<(Head, Bytes)>, WalkError> {
        if self.in_window(position).len() < HEAD_BYTES {
            self.load(position, WINDOW_BYTES)?;
        }
        let head = Head::parse_known(&self.in_window(position)).ok();
        if head.is_none_or(|head| head.position != position || !is_wanted(&head)) {
            return Ok(None);
        }
        match self.frame(position) {
            Ok(found) => Ok(Some(found)),
            Err(WalkError::Frame(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a later intact frame proves that the frame at `link` was durable.
    pub(super) fn is_proved_behind(&mut self, link: &Link) -> Result<bool, WalkError> {
        let mut at = link.position;
        loop {
            self.load(at, WINDOW_BYTES)?;
            let window = self.window.clone();
            for found in memchr::memmem::find_iter(&window, b"WTTL") {
                if found + HEAD_BYTES > window.len() {
                    break; // it is at the beginning of the next window, or the file ends in it
                }
                let position = at + found as u64;
                let is_proof = |head: &Head| position > link.position && link.is_proved_by(head);
                if self.frame_if(position, is_proof)?.is_some() {
                    return Ok(true);
                }
            }
            if window.len() < WINDOW_BYTES {
                return Ok(false);
            }
            at += (window.len() - HEAD_BYTES) as u64; // a head may straddle the edge
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::super::frame::{CHECKSUMMED_BYTES, write_frame};
    use super::*;
    use crate::effects::{Disk, MemoryDisk};

    const LINK: Link = Link { position: 0, sequence: 1 << 40, previous_checksum: 7, epoch: 1, append_time_ns: 1 };

    fn file_of(bytes: &[u8]) -> JournalFile {
        let file = MemoryDisk::default().create("journal").unwrap();
        file.write_at(bytes, FILE_HEAD_BYTES).unwrap();
        JournalFile { first_position: 0, file }
    }

    /// Heads that a producer could put into events, one after the other, each claiming the longest possible frame.
    fn hostile(version: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() + 16 <= WINDOW_BYTES {
            let left = WINDOW_BYTES - bytes.len();
            bytes.put_slice(b"WTTL");
            bytes.put_slice(&[version, 1, 0, 0]);
            bytes.put_u32_le(left.saturating_sub(HEAD_BYTES) as u32);
            bytes.put_u32_le(0);
        }
        bytes
    }

    #[test]
    fn no_data_makes_a_search_for_proof_slow() {
        for version in [0xff, 4, 1] {
            let mut bytes = hostile(version);
            let link = Link { position: 16, ..LINK };
            CHECKSUMMED_BYTES.set(0);
            assert!(!Walk::new(&file_of(&bytes)).is_proved_behind(&link).unwrap());
            assert_eq!(CHECKSUMMED_BYTES.get(), 0, "version {version}: none of it can be a proof");
            // a real proof after all that is found
            let position = bytes.len() as u64;
            let proof = Link { position, sequence: link.sequence + 1, ..link };
            write_frame(&mut bytes, Kind::Mark, &proof, position, |_| ()).unwrap();
            CHECKSUMMED_BYTES.set(0);
            assert!(Walk::new(&file_of(&bytes)).is_proved_behind(&link).unwrap());
            assert_eq!(CHECKSUMMED_BYTES.get(), HEAD_BYTES, "version {version}: the proof alone");
        }
    }

    #[test]
    fn no_data_makes_a_look_for_whole_frames_slow() {
        let bytes = hostile(0xff);
        let file = file_of(&bytes);
        let mut walk = Walk::new(&file);
        CHECKSUMMED_BYTES.set(0);
        let mut at = 0;
        while let Some(here) = walk.next_magic(at).unwrap() {
            assert!(walk.frame_if(here, |_| true).unwrap().is_none());
            at = here + 1 + (bytes.len() / 64) as u64; // a sample is enough
        }
        assert_eq!(CHECKSUMMED_BYTES.get(), 0);
    }
}
