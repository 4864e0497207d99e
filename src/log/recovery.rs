//! Recovery: decides which part of the log is accepted, which is void, and which is damaged.
//!
//! It starts at the position of the last checkpoint: everything before that is in segments and in the state store. From
//! there the journal is read once. Each row depends on the bytes at the position of the next frame, and on whether a
//! later frame proves that this position had been durable. Such a proof is an intact frame of this journal whose
//! durable position is after this position.
//!
//! ```text
//!      the state store and the files                               decision
//!   S  no store, no segments, a journal from position 0, or none   a new log, or one of an earlier release
//!   T  no store, but segments, or a journal from later on          damage: refuse, the store is missing
//!   U  a store that cannot be read whole                           damage: refuse
//!   V  a store of an unknown version                               refuse: a newer release wrote it
//!   W  a store, and no journal file that holds its position        damage: refuse
//!   X  a store, and files wholly before its position               the files are reused
//!   Y  a store, and a segment in it has no file                    serve all others, report the missing events
//!
//!      at the position of the next frame            later proof    decision
//!   A  the end of the last file                     -              accept, the journal ends here
//!   B  no intact frame (torn, zeroes, stale)        no             accept everything before, the rest is void
//!   C  no intact frame                              yes            damage: refuse
//!   D  an intact frame of an unknown version/kind   any            refuse: a newer release wrote it
//!   E  anything, at the next file's first position  -              continue in the next file
//!   F  anything else, and a later file              yes (it is)    damage: refuse
//!   G  a last file that ends inside its head        -              never used: remove it, then as A
//!   H  a file with a wrong head                     -              damage: refuse
//!   I  an intact frame that is inconsistent         any            damage: refuse, because no torn write is intact
//! ```
//!
//! A file is begun only after the previous one is durable, so a later file proves the whole of an earlier one. A file
//! gets its name only after its head is durable (G is for files of earlier releases).
//!
//! Accepted frames that are not proved durable are written again, the same bytes to the same place, and synced: after
//! the death of a process they may be only in the page cache, and after a failed sync the cache may treat them as
//! clean. Then a mark opens the new epoch. Nothing is served before that. Void bytes stay in the file: their frames
//! have an older epoch and do not match the checksum of the frames that will precede them, so they are never accepted
//! as frames or as proof.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::clock::ClockState;
use super::files::{FILE_HEAD_BYTES, Files, JournalFile, encode_head, file_name, position_of_name};
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, Link, UnitBody, write_frame};
use super::segment::SegmentId;
use super::store::{self, Checkpoint, Contents, Store, StoreError};
use super::walk::{Walk, WalkError};
use super::{LogOptions, OpenError};
use crate::effects::Disk;
use crate::model::{Offset, PartitionId};

/// The data on the disk is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A part of the journal that had been durable cannot be read.
    #[error(
        "{file} is damaged at byte {byte} (position {position}): {what}, but it had been durable. Nothing was changed. \
         Restore the file from a copy. If there is none: `wattle log verify` shows what comes after it, and \
         `wattle log repair --truncate-at {position}` removes all of that"
    )]
    Journal {
        file: String,
        /// In the file.
        byte: u64,
        /// In the journal.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of the journal is missing.
    #[error(
        "the journal has a gap: {file} is missing, or the end of the file before it, although it is needed. \
         Nothing was changed. Put the file back"
    )]
    MissingFile { file: String },
    /// The state store is missing.
    #[error(
        "the file `state` is missing, or the first file of the journal, although the folder contains later events. \
         Nothing was changed. Put the file back: it records which events are processed"
    )]
    MissingState,
    /// The state store is damaged.
    #[error(
        "the file `state` is damaged: {what}. Nothing was changed. Restore the whole folder from a copy: this file \
         records which events are processed"
    )]
    State {
        /// What is wrong with it.
        what: String,
    },
    /// Written by a newer release.
    #[error("{file}, byte {byte}: {what}. Nothing was changed. Use the release that wrote it, or a newer one")]
    Version {
        file: String,
        /// In the file.
        byte: u64,
        /// The unknown version.
        what: String,
    },
}

/// The result of recovery, made durable.
pub(super) struct RecoveredLog {
    pub(super) store: Store,
    pub(super) contents: Contents,
    pub(super) files: Files,
    /// Link of the next frame. Everything before it is durable.
    pub(super) link: Link,
    /// The last recorded trusted time.
    pub(super) clock: ClockState,
    /// Number of frames accepted after the checkpoint.
    pub(super) frames: u64,
    /// Bytes of an incomplete frame at the end of the journal, which is void.
    pub(super) void_bytes: u64,
}

fn disk_error(what: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    move |error| OpenError::Disk { what, name: name.to_owned(), error }
}

fn store_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Disk(error) => disk_error("read", store::FILE_NAME)(error),
        StoreError::Damaged(what) => Damage::State { what }.into(),
        StoreError::Closed => Damage::State { what: error.to_string() }.into(),
        StoreError::Version(_) => {
            Damage::Version { file: store::FILE_NAME.to_owned(), byte: 0, what: error.to_string() }.into()
        }
    }
}

/// A log as found on the disk, unchanged.
pub(super) struct LogFiles {
    /// All names in the folder.
    pub(super) names: Vec<String>,
    pub(super) store: Option<Store>,
    pub(super) contents: Contents,
    /// The journal's files, from the one that contains the checkpoint's position.
    pub(super) files: Vec<JournalFile>,
    /// Files wholly before that position.
    pub(super) past: Vec<JournalFile>,
    /// The last file, if it was never used.
    unused: Option<String>,
}

/// The content of the accepted frames.
struct AcceptedFrames {
    /// The end offset of each partition.
    ends: HashMap<PartitionId, Offset>,
    link: Link,
    /// The highest durable position in an accepted frame.
    proved_durable: u64,
    clock: ClockState,
    frames: u64,
    void_bytes: u64,
}

/// Rows S to X, G and H: reads the state store and opens the files. (Y is checked after everything else is read.)
pub(super) fn find(disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<LogFiles, OpenError> {
    let names = disk.list().map_err(disk_error("list", "the log's folder"))?;
    let mut positions: Vec<u64> = names.iter().filter_map(|name| position_of_name(name)).collect();
    positions.sort_unstable();
    let opened = Store::open(disk, &options.hashing()).map_err(store_error)?;
    let (store, contents) = match opened {
        Some((store, contents)) => (Some(store), contents),
        None => {
            let has_segments = names.iter().any(|name| SegmentId::of_file_name(name).is_some());
            if has_segments || positions.first().is_some_and(|first| *first > 0) {
                return Err(Damage::MissingState.into()); // T
            }
            (None, Contents::new(Checkpoint::first(Link::first(options.first_sequence)))) // S
        }
    };
    let from = contents.checkpoint.link.position;
    let first = positions.iter().rposition(|position| *position <= from).unwrap_or(0);
    let (mut past, mut files) = (Vec::new(), Vec::new());
    let mut unused = None;
    for (index, first_position) in positions.iter().copied().enumerate() {
        let name = file_name(first_position);
        let file = disk.open(&name).map_err(disk_error("open", &name))?;
        if index < first {
            // Its head is not checked: the file may have been reused already, under a name that a crash undid.
            past.push(JournalFile { first_position, file }); // X
            continue;
        }
        let length = file.length().map_err(disk_error("read", &name))?;
        let is_last = index + 1 == positions.len();
        let head = file.read_bytes(0, FILE_HEAD_BYTES as usize).map_err(disk_error("read", &name))?;
        if head[..] != encode_head(first_position)[..] {
            if is_last && length <= FILE_HEAD_BYTES && first_position >= from {
                unused = Some(name); // G
                break;
            }
            let what = "its head is not that of this journal file".to_owned();
            return Err(Damage::Journal { file: name, byte: 0, position: first_position, what }.into()); // H
        }
        files.push(JournalFile { first_position, file });
    }
    if store.is_some() && files.first().is_none_or(|file| file.first_position > from) {
        return Err(Damage::MissingFile { file: file_name(from) }.into()); // W
    }
    Ok(LogFiles { names, store, contents, files, past, unused })
}

/// Reads the log, decides, and makes durable what it accepts.
pub(super) fn recover(disk: &Arc<dyn Disk>, options: &LogOptions, file_bytes: u64) -> Result<RecoveredLog, OpenError> {
    let found = find(disk, options)?;
    let accepted = accept(&found)?;
    make_durable(disk, found, accepted, file_bytes)
}

/// Rows A to F and I: accepts frames up to the end or the first invalid one.
fn accept(found: &LogFiles) -> Result<AcceptedFrames, OpenError> {
    let mut accepted = AcceptedFrames {
        ends: found.contents.partitions.iter().map(|(id, extent)| (*id, extent.end)).collect(),
        link: found.contents.checkpoint.link,
        proved_durable: found.contents.checkpoint.link.position,
        clock: found.contents.checkpoint.clock,
        frames: 0,
        void_bytes: 0,
    };
    for (index, file) in found.files.iter().enumerate() {
        let next = found.files.get(index + 1).map(|next| next.first_position);
        accept_file(&mut accepted, file, next)?;
        if next.is_some_and(|next| accepted.link.position != next) {
            return Err(Damage::MissingFile { file: file_name(accepted.link.position) }.into()); // F
        }
    }
    Ok(accepted)
}

/// Accepts the frames of one file. `next` is the first position of the next file.
fn accept_file(accepted: &mut AcceptedFrames, file: &JournalFile, next: Option<u64>) -> Result<(), OpenError> {
    let name = file_name(file.first_position);
    let mut walk = Walk::new(file);
    loop {
        let position = accepted.link.position;
        if next.is_some_and(|next| position >= next) {
            return Ok(()); // E
        }
        let error = match walk.frame(position) {
            Ok((head, frame)) => match accept_frame(accepted, &head, frame) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(WalkError::Frame(error)) => error,
            Err(WalkError::Disk(error)) => return Err(disk_error("read", &name)(error)),
        };
        if walk.is_at_end(position).map_err(disk_error("read", &name))? {
            return Ok(()); // A, F
        }
        let byte = file.at(position);
        if let FrameError::Unknown { .. } = error {
            return Err(Damage::Version { file: name, byte, what: error.to_string() }.into()); // D
        }
        let makes_no_sense = matches!(error, FrameError::Body | FrameError::Hole);
        let mut is_damage = next.is_some() || makes_no_sense;
        if !is_damage {
            is_damage = walk.is_proved_behind(&accepted.link).map_err(|error| match error {
                WalkError::Disk(error) => disk_error("read", &name)(error),
                WalkError::Frame(error) => disk_error("read", &name)(std::io::Error::other(error)),
            })?;
        }
        if is_damage {
            return Err(Damage::Journal { file: name, byte, position, what: error.to_string() }.into()); // C, F, I
        }
        accepted.void_bytes = begun_behind(file, &accepted.link).map_err(disk_error("read", &name))?;
        return Ok(()); // B
    }
}

/// Bytes of the incomplete frame at the end, according to its head.
fn begun_behind(file: &JournalFile, link: &Link) -> std::io::Result<u64> {
    let bytes = file.file.read_bytes(file.at(link.position), HEAD_BYTES)?;
    let begun = Head::parse(&bytes).ok().filter(|head| head.position == link.position);
    Ok(begun.map_or(0, |head| head.frame_bytes() as u64))
}

fn accept_frame(accepted: &mut AcceptedFrames, head: &Head, frame: Bytes) -> Result<(), FrameError> {
    accepted.link.check(head)?;
    if head.kind == Kind::Unit {
        let mut unit = UnitBody::parse(head, frame.slice(HEAD_BYTES..))?;
        let then = ClockState { trusted_ns: unit.trusted_time_ns, wall_ns: head.append_time_ns };
        accepted.clock = accepted.clock.later(then);
        while let Some(slice) = unit.next_slice()? {
            let end = accepted.ends.entry(slice.partition).or_default();
            if slice.chunk.base_offset != *end {
                return Err(FrameError::Hole);
            }
            *end = slice.chunk.end_offset();
        }
    }
    accepted.proved_durable = accepted.proved_durable.max(head.durable_position);
    accepted.link = Link::after(head);
    accepted.frames += 1;
    Ok(())
}

fn make_durable(
    disk: &Arc<dyn Disk>,
    found: LogFiles,
    mut accepted: AcceptedFrames,
    file_bytes: u64,
) -> Result<RecoveredLog, OpenError> {
    let end = accepted.link.position;
    for (index, file) in found.files.iter().enumerate() {
        let next = found.files.get(index + 1).map_or(end, |next| next.first_position);
        let from = accepted.proved_durable.max(file.first_position);
        if from > next {
            continue;
        }
        let name = file_name(file.first_position);
        // the head too: the sync that failed may have been that of the head
        file.file.write_at(&encode_head(file.first_position), 0).map_err(disk_error("rewrite", &name))?;
        rewrite(file, from, next).map_err(disk_error("rewrite", &name))?;
        file.file.sync().map_err(disk_error("sync", &name))?;
    }
    if let Some(name) = found.unused {
        disk.remove(&name).map_err(disk_error("remove", &name))?;
    }
    disk.sync_folder().map_err(disk_error("sync", "the log's folder"))?;
    let files = found.past.into_iter().chain(found.files).collect();
    let files = Files::new(disk.clone(), file_bytes, files, &found.names);
    let file = match files.find(end) {
        Some(file) => file,
        None => files.begin(end).map_err(disk_error("begin", &file_name(end)))?,
    };
    // after the journal's first file: a store without one is damage (W), a file without a store is not (S)
    let store = match found.store {
        Some(store) => store,
        None => Store::create(disk, found.contents.checkpoint).map_err(store_error)?,
    };
    accepted.link.epoch += 1;
    let mut bytes = Vec::new();
    if let Some(head) = write_frame(&mut bytes, Kind::Mark, &accepted.link, end, |_| ()) {
        let name = file_name(file.first_position);
        file.write(&bytes, end).map_err(disk_error("write", &name))?;
        file.file.sync().map_err(disk_error("sync", &name))?;
        accepted.link = Link::after(&head);
    }
    Ok(RecoveredLog {
        store,
        contents: found.contents,
        files,
        link: accepted.link,
        clock: accepted.clock,
        frames: accepted.frames,
        void_bytes: accepted.void_bytes,
    })
}

/// Writes the bytes between two positions again, so that the next sync certainly covers them.
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

/// A segment in the state store whose file is missing or truncated: it was removed, or only a part of the folder was
/// restored. Its events cannot all be read, all others can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSegment {
    /// The file to restore.
    pub file: String,
    /// The partition of its events.
    pub partition: PartitionId,
    /// Of its first event.
    pub base_offset: Offset,
    /// After its last event.
    pub end_offset: Offset,
    /// The file is there, with fewer bytes than were written.
    pub is_truncated: bool,
}

/// All missing and truncated segments, found by names and lengths alone: opening thousands of files would make each
/// start slow.
pub(super) fn missing_segments(disk: &dyn Disk, contents: &Contents) -> std::io::Result<Vec<MissingSegment>> {
    let names: HashSet<String> = disk.list()?.into_iter().collect();
    let mut missing = Vec::new();
    for (partition, segments) in &contents.segments {
        for meta in segments {
            let file = SegmentId { partition: *partition, base_offset: meta.base_offset }.file_name();
            // a length that cannot be read is no evidence: readers of the file get the error
            let is_truncated = names.contains(&file) && disk.length(&file).is_ok_and(|length| length < meta.bytes);
            if is_truncated || !names.contains(&file) {
                let (partition, base_offset, end_offset) = (*partition, meta.base_offset, meta.end_offset);
                missing.push(MissingSegment { file, partition, base_offset, end_offset, is_truncated });
            }
        }
    }
    missing.sort_by_key(|missing| (missing.partition, missing.base_offset));
    Ok(missing)
}

/// Removes segment files without a row in the store: those before the retained events, whose removal a crash undid, and
/// those of a checkpoint that was not committed.
pub(super) fn remove_leftovers(disk: &dyn Disk, contents: &Contents) -> std::io::Result<()> {
    for name in disk.list()? {
        let Some(id) = SegmentId::of_file_name(&name) else { continue };
        let extent = contents.partitions.get(&id.partition).copied().unwrap_or_default();
        let segments = contents.segments.get(&id.partition).map(Vec::as_slice).unwrap_or_default();
        let is_known = segments.iter().any(|meta| meta.base_offset == id.base_offset);
        if !is_known && (id.base_offset < extent.start || id.base_offset >= extent.end) {
            disk.remove(&name)?;
            match disk.remove(&id.index_name()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
