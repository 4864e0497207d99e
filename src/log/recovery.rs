//! Recovery: what of the journal is accepted, what is void, and what is damage.
//!
//! The journal is read once from its first file. Each row is decided by two things: what stands where the next frame
//! should be, and whether anything behind it proves that it had been durable: a whole frame of this journal further on
//! which says that everything in front of a position behind this one was durable when it was written.
//!
//! ```text
//!      what stands there                        proof behind it   decision
//!   A  the end of the last file                 -                 accept, the journal ends here
//!   B  no whole frame (torn, zeroes, stale)     no                accept what is in front, the rest is void
//!   C  no whole frame                           yes               damage: refuse
//!   D  a whole frame of an unknown version/kind  any               refuse: a newer release wrote it
//!   E  the end of a file, the next one follows  -                 go on there
//!   F  the end of a file, the next is missing   yes (it exists)   damage: refuse
//!   G  a last file without a whole head         -                 it was never used: remove it, go on as at A
//!   H  a used or earlier file without one       yes               damage: refuse
//!   I  a whole frame that makes no sense        any               damage: refuse, since no torn write is whole
//! ```
//!
//! A file is begun only after the one in front is durable, so a later file proves the whole of an earlier one.
//!
//! What is accepted and not proved durable is written again, the same bytes to the same place, and synced: after a
//! process died it may be in the page cache only, and after a failed sync the cache may call it clean. Then a mark opens
//! the new epoch. Nothing is served before that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::files::{FILE_HEAD_BYTES, Files, JournalFile, encode_head, file_name, position_of_name};
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, Link, UnitBody, write_frame};
use super::partition::{IndexEntry, Partition};
use super::{Lane, OpenError, Replay};
use crate::effects::Disk;
use crate::model::{LaneId, PartitionId};

/// What is on the disk is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A part of the journal that had been durable cannot be read back.
    #[error(
        "{file} is damaged at byte {byte}: {what}, but it had been durable. Nothing was changed. \
         Restore the file from a copy; the events behind this point cannot be served without it"
    )]
    Journal {
        /// The file.
        file: String,
        /// In the file.
        byte: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of the journal is not there.
    #[error(
        "the journal has a hole: {file} is missing, or the end of the file in front of it, though a later file exists. \
         Nothing was changed. Put the file back"
    )]
    MissingFile {
        /// The file.
        file: String,
    },
    /// Written by a newer release.
    #[error("{file}, byte {byte}: {what}. Nothing was changed. Use the release that wrote it, or a newer one")]
    Version {
        /// The file.
        file: String,
        /// In the file.
        byte: u64,
        /// Which version.
        what: String,
    },
}

/// What recovery found and made durable.
pub(super) struct Recovered {
    pub(super) partitions: HashMap<PartitionId, Arc<Partition>>,
    pub(super) lanes: HashMap<LaneId, Arc<Lane>>,
    pub(super) files: Files,
    /// For the next frame.
    pub(super) link: Link,
    /// Everything in front of it is durable.
    pub(super) durable: u64,
    pub(super) replay: Replay,
}

fn disk_error(what: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    move |error| OpenError::Disk { what, name: name.to_owned(), error }
}

/// What the accepted frames say.
struct Accepted {
    partitions: HashMap<PartitionId, Arc<Partition>>,
    lanes: HashMap<LaneId, Arc<Lane>>,
    replay: Replay,
    link: Link,
    /// The highest position that an accepted frame says to be durable.
    proved_durable: u64,
}

pub(super) fn recover(disk: &Arc<dyn Disk>, first_sequence: u64) -> Result<Recovered, OpenError> {
    let mut positions: Vec<u64> = disk
        .list()
        .map_err(disk_error("list", "the journal's folder"))?
        .iter()
        .filter_map(|name| position_of_name(name))
        .collect();
    positions.sort_unstable();
    let mut accepted = Accepted {
        partitions: HashMap::new(),
        lanes: HashMap::new(),
        replay: Replay::default(),
        link: Link { position: 0, sequence: first_sequence, previous_checksum: 0, epoch: 0, append_time_ns: 0 },
        proved_durable: 0,
    };
    let mut files: Vec<JournalFile> = Vec::new();
    for (index, first_position) in positions.iter().copied().enumerate() {
        let name = file_name(first_position);
        let is_last = index + 1 == positions.len();
        if first_position != accepted.link.position {
            return Err(Damage::MissingFile { file: file_name(accepted.link.position) }.into()); // F
        }
        let file = disk.open(&name).map_err(disk_error("open", &name))?;
        // One file at a time in memory: recovery needs as much as one file is long.
        let bytes = read_whole(file.as_ref(), &name)?;
        if bytes.get(..FILE_HEAD_BYTES as usize) != Some(&encode_head(first_position)[..]) {
            if is_last && bytes.len() <= FILE_HEAD_BYTES as usize {
                drop(file);
                disk.remove(&name).map_err(disk_error("remove", &name))?; // G
                disk.sync_folder().map_err(disk_error("sync", "the journal's folder"))?;
                break;
            }
            let what = "its head is not that of this journal file".to_owned();
            return Err(Damage::Journal { file: name, byte: 0, what }.into()); // H
        }
        let file = JournalFile { first_position, file };
        let frames = bytes.slice(FILE_HEAD_BYTES as usize..);
        accept_frames(&mut accepted, &frames, first_position, &name, is_last)?;
        let end = (accepted.link.position - first_position) as usize;
        if end < frames.len() {
            accepted.replay.void_bytes = (frames.len() - end) as u64;
            file.truncate(accepted.link.position).map_err(disk_error("truncate", &name))?;
        }
        files.push(file);
    }
    make_durable(disk, accepted, files)
}

fn read_whole(file: &dyn crate::effects::DiskFile, name: &str) -> Result<Bytes, OpenError> {
    let length = file.length().map_err(disk_error("read", name))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let count = file.read_at(&mut bytes, 0).map_err(disk_error("read", name))?;
    bytes.truncate(count);
    Ok(bytes.into())
}

/// Accepts the frames of one file, as far as they go.
fn accept_frames(
    accepted: &mut Accepted,
    frames: &Bytes,
    first_position: u64,
    name: &str,
    is_last: bool,
) -> Result<(), OpenError> {
    loop {
        let at = (accepted.link.position - first_position) as usize;
        let rest = frames.slice(at.min(frames.len())..);
        if rest.is_empty() {
            return Ok(()); // A, E
        }
        let byte = FILE_HEAD_BYTES + at as u64;
        let error = match accept_frame(accepted, &rest) {
            Ok(()) => continue,
            Err(error) => error,
        };
        if let FrameError::Unknown { .. } = error {
            let what = error.to_string();
            return Err(Damage::Version { file: name.to_owned(), byte, what }.into()); // D
        }
        let makes_no_sense = matches!(error, FrameError::Body | FrameError::Hole);
        if !is_last || makes_no_sense || proved_behind(&rest, &accepted.link) {
            return Err(Damage::Journal { file: name.to_owned(), byte, what: error.to_string() }.into()); // C, I
        }
        return Ok(()); // B
    }
}

fn accept_frame(accepted: &mut Accepted, rest: &Bytes) -> Result<(), FrameError> {
    let head = Head::parse(rest)?;
    head.verify(rest)?;
    accepted.link.check(&head)?;
    let body = rest.slice(HEAD_BYTES..head.frame_bytes());
    match head.kind {
        Kind::Mark => {}
        Kind::Catalogue => accepted.replay.catalogue.push(body),
        Kind::Unit => {
            let mut unit = UnitBody::parse(&head, body)?;
            if let Some(consumed) = unit.consumed {
                let lane = accepted.lanes.entry(consumed.lane).or_insert_with(|| Arc::new(Lane::new(consumed.lane)));
                lane.position.store(consumed.consumed_to, Ordering::Release);
            }
            while let Some((partition, chunk)) = unit.next_slice()? {
                let partition = accepted.partitions.entry(partition).or_default();
                if chunk.base_offset != partition.written() {
                    return Err(FrameError::Hole);
                }
                partition.recovered(chunk.end_offset());
                partition.note(IndexEntry {
                    base_offset: chunk.base_offset,
                    append_time_ns: chunk.append_time_ns,
                    position: head.position,
                });
            }
        }
    }
    accepted.proved_durable = accepted.proved_durable.max(head.durable_position);
    accepted.link = Link::after(&head);
    accepted.replay.frames += 1;
    Ok(())
}

/// Whether a whole frame further on proves that what should be at `link` (the first byte of `rest`) was durable.
fn proved_behind(rest: &[u8], link: &Link) -> bool {
    (1..rest.len()).any(|at| {
        let Some(here) = rest.get(at..) else { return false };
        Head::parse(here).is_ok_and(|head| {
            head.position == link.position + at as u64 && link.is_proved_by(&head) && head.verify(here).is_ok()
        })
    })
}

fn make_durable(
    disk: &Arc<dyn Disk>,
    mut accepted: Accepted,
    mut files: Vec<JournalFile>,
) -> Result<Recovered, OpenError> {
    let end = accepted.link.position;
    if files.is_empty() {
        let name = file_name(end);
        files.push(JournalFile::create(disk.as_ref(), end).map_err(disk_error("create", &name))?);
    }
    for (index, file) in files.iter().enumerate() {
        let next = files.get(index + 1).map_or(end, |next| next.first_position);
        let from = accepted.proved_durable.max(file.first_position);
        if from > next {
            continue;
        }
        let name = file_name(file.first_position);
        // the head too: its sync may have been the one that failed
        file.file.write_at(&encode_head(file.first_position), 0).map_err(disk_error("rewrite", &name))?;
        rewrite(file, from, next).map_err(disk_error("rewrite", &name))?;
        file.file.sync().map_err(disk_error("sync", &name))?;
    }
    disk.sync_folder().map_err(disk_error("sync", "the journal's folder"))?;
    accepted.link.epoch += 1;
    if let Some(file) = files.last() {
        let name = file_name(file.first_position);
        let mut bytes = Vec::new();
        if let Some(head) = write_frame(&mut bytes, Kind::Mark, &accepted.link, end, |_| ()) {
            file.write(&bytes, end).map_err(disk_error("write", &name))?;
            file.file.sync().map_err(disk_error("sync", &name))?;
            accepted.link = Link::after(&head);
        }
    }
    Ok(Recovered {
        partitions: accepted.partitions,
        lanes: accepted.lanes,
        files: Files::new(files),
        link: accepted.link,
        durable: accepted.link.position,
        replay: accepted.replay,
    })
}

/// Writes the bytes between two positions again, so that the next sync is sure to be for them.
fn rewrite(file: &JournalFile, mut from: u64, to: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while from < to {
        let length = usize::try_from(to - from).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..length).unwrap_or_default();
        if file.read(piece, from)? < piece.len() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        file.write(piece, from)?;
        from += length as u64;
    }
    Ok(())
}
