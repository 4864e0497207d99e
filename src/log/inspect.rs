//! Inspects and repairs an offline log: verifies it, lists the frames of its journal, and truncates a damaged end.
//!
//! Promises: [`verify`] and [`dump`] change neither journal nor segments; [`repair`] removes exactly the requested
//! part, and only after the last checkpoint.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::files::{JournalFile, file_name};
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, Link, UnitBody};
use super::recovery::{self, LogFiles};
use super::segment::{SegmentFile, SegmentId};
use super::walk::{Walk, WalkError};
use super::{LogOptions, OpenError};
use crate::effects::Disk;
use crate::limits;
use crate::model::{LaneId, Offset, PartitionId};

/// The result of [`verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Everything before this position of the journal is in segments and in the state store.
    pub checkpoint_position: u64,
    /// The end of the journal, as far as it can be read.
    pub end_position: u64,
    /// Frames between the two.
    pub frames: u64,
    /// Number of segments.
    pub segments: u64,
    /// Readable events in segments and in the journal.
    pub events: u64,
    /// Descriptions of the damage; empty if the log is intact.
    pub damage: Vec<String>,
    /// The position of damage in the journal: the journal can be truncated there.
    pub damaged_position: Option<u64>,
    /// Intact frames after that position, and the events in them.
    pub behind: Option<(u64, u64)>,
}

/// Description of a journal frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameInfo {
    /// In the journal, in bytes.
    pub position: u64,
    /// Including its head.
    pub bytes: u64,
    /// `unit`, `mark` or `catalogue`.
    pub kind: &'static str,
    /// The recovery epoch in which it was written.
    pub epoch: u32,
    /// The sequence number of the frame.
    pub sequence: u64,
    /// Engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// Everything before this position was durable when the frame was written.
    pub durable_position: u64,
    /// The lane whose unit it is, and the offset up to which that has consumed.
    pub consumed: Option<(LaneId, Offset)>,
    /// Events that it appends: the partition, the first offset, their number, and their bytes.
    pub appended: Vec<(PartitionId, Offset, u32, u64)>,
}

/// Why a log was not repaired. Nothing was changed, except after an error of the disk.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The log cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An I/O error.
    #[error("the journal cannot be changed: {0}")]
    Disk(#[from] io::Error),
    /// The events there are no longer only in the journal.
    #[error("everything before position {checkpoint} is in segments: only a later part can be truncated")]
    InFront {
        /// The position of the last checkpoint.
        checkpoint: u64,
    },
    /// No frame begins at the position.
    #[error("no frame begins at position {position}; the last one before it begins at {nearest}")]
    NoFrame {
        /// The requested position.
        position: u64,
        /// The last position before it at which a frame begins.
        nearest: u64,
    },
}

/// What a repair removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairSummary {
    /// Intact frames.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
}

/// Verifies everything: every frame after the last checkpoint, every block of every segment, all of the state store.
///
/// # Errors
/// [`OpenError`] if the log cannot be opened; that is damage as well.
pub fn verify(disk: &Arc<dyn Disk>) -> Result<Inspection, OpenError> {
    let found = recovery::find(disk, &LogOptions::default())?;
    let mut inspection =
        Inspection { checkpoint_position: found.contents.checkpoint.link.position, ..Inspection::default() };
    verify_journal(&found, &mut inspection)?;
    for (partition, segments) in &found.contents.segments {
        let mut expected = found.contents.partitions.get(partition).map_or(0, |extent| extent.start);
        for meta in segments {
            inspection.segments += 1;
            let name = SegmentId { partition: *partition, base_offset: meta.base_offset }.file_name();
            if meta.base_offset > expected {
                inspection.damage.push(format!("the segment before {name} is unknown"));
            }
            expected = meta.end_offset;
            let damage = SegmentFile::open(disk.as_ref(), *partition, meta).and_then(|segment| segment.verify(meta));
            let damage = match damage {
                Ok(damage) => damage,
                Err(error) => vec![(meta.end_offset - meta.base_offset, error)],
            };
            let lost: u64 = damage.iter().map(|(events, _)| events).sum();
            inspection.events += (meta.end_offset - meta.base_offset).saturating_sub(lost);
            inspection.damage.extend(damage.into_iter().map(|(_, error)| error.to_string()));
        }
    }
    Ok(inspection)
}

fn verify_journal(found: &LogFiles, inspection: &mut Inspection) -> Result<(), OpenError> {
    let mut ends: BTreeMap<PartitionId, Offset> =
        found.contents.partitions.iter().map(|(id, extent)| (*id, extent.end)).collect();
    let mut events = 0;
    let stop = walk(found, found.contents.checkpoint.link, &mut |head, frame| {
        for (partition, base_offset, count, _) in info(head, frame)?.appended {
            let end = ends.entry(partition).or_default();
            if base_offset != *end {
                return Err(FrameError::Hole);
            }
            *end = base_offset + Offset::from(count);
            events += u64::from(count);
        }
        inspection.frames += 1;
        Ok(true)
    })?;
    inspection.events += events;
    inspection.end_position = stop.link.position;
    let Some(error) = stop.error else { return Ok(()) };
    let is_last = found.files.last().is_some_and(|last| last.first_position <= stop.link.position);
    let file = found.files.iter().rfind(|file| file.first_position <= stop.link.position);
    let Some(file) = file else { return Ok(()) };
    let is_proved = Walk::new(file).is_proved_behind(&stop.link).map_err(|error| disk_error(file, error))?;
    let makes_no_sense = matches!(error, FrameError::Body | FrameError::Hole | FrameError::Unknown { .. });
    if !is_last || is_proved || makes_no_sense {
        let (name, byte) = (file_name(file.first_position), file.at(stop.link.position));
        let position = stop.link.position;
        inspection.damage.push(format!("{name} is damaged at byte {byte} (position {position}): {error}"));
        inspection.damaged_position = Some(position);
        inspection.behind = Some(behind(found, position + 1)?);
    }
    Ok(())
}

fn disk_error(file: &JournalFile, error: WalkError) -> OpenError {
    let error = match error {
        WalkError::Disk(error) => error,
        WalkError::Frame(error) => io::Error::other(error),
    };
    OpenError::Disk { what: "read", name: file_name(file.first_position), error }
}

/// Where a walk ended; `error` says why if that is not the end of the last file.
struct Stop {
    link: Link,
    error: Option<FrameError>,
}

/// Follows the chain of frames from a link on, while `each` returns true.
fn walk(
    found: &LogFiles,
    mut link: Link,
    each: &mut dyn FnMut(&Head, &bytes::Bytes) -> Result<bool, FrameError>,
) -> Result<Stop, OpenError> {
    for (index, file) in found.files.iter().enumerate() {
        let next = found.files.get(index + 1).map(|next| next.first_position);
        let mut walk = Walk::new(file);
        while next.is_none_or(|next| link.position < next) {
            let frame = match walk.frame(link.position) {
                Ok((head, frame)) => link.check(&head).map(|()| (head, frame)),
                Err(WalkError::Frame(error)) => Err(error),
                Err(error) => return Err(disk_error(file, error)),
            };
            match frame.and_then(|(head, frame)| each(&head, &frame).map(|more| (head, more))) {
                Ok((head, more)) => {
                    link = Link::after(&head);
                    if !more {
                        return Ok(Stop { link, error: None });
                    }
                }
                Err(error) => return Ok(Stop { link, error: Some(error) }),
            }
        }
    }
    Ok(Stop { link, error: None })
}

/// Intact frames at their own position, from `position` on, and the events in them.
fn behind(found: &LogFiles, position: u64) -> Result<(u64, u64), OpenError> {
    let (mut frames, mut events) = (0, 0);
    for (index, file) in found.files.iter().enumerate() {
        let next = found.files.get(index + 1).map_or(u64::MAX, |next| next.first_position);
        if next <= position {
            continue;
        }
        let mut walk = Walk::new(file);
        let mut at = position.max(file.first_position);
        while let Some(here) = walk.next_magic(at).map_err(|error| disk_error(file, error))? {
            match walk.frame_if(here, |_| here < next).map_err(|error| disk_error(file, error))? {
                Some((head, frame)) => {
                    frames += 1;
                    let info = info(&head, &frame);
                    events += info.map_or(0, |info| info.appended.iter().map(|slice| u64::from(slice.2)).sum());
                    at = head.end_position();
                }
                None => at = here + 1,
            }
        }
    }
    Ok((frames, events))
}

fn info(head: &Head, frame: &bytes::Bytes) -> Result<FrameInfo, FrameError> {
    let mut info = FrameInfo {
        position: head.position,
        bytes: head.frame_bytes() as u64,
        kind: match head.kind {
            Kind::Unit => "unit",
            Kind::Mark => "mark",
            Kind::Catalogue => "catalogue",
        },
        epoch: head.epoch,
        sequence: head.sequence,
        append_time_ns: head.append_time_ns,
        durable_position: head.durable_position,
        consumed: None,
        appended: Vec::new(),
    };
    if head.kind == Kind::Unit {
        let mut unit = UnitBody::parse(head, frame.slice(HEAD_BYTES..))?;
        info.consumed = unit.consumed.map(|consumed| (consumed.lane, consumed.consumed_to));
        while let Some(slice) = unit.next_slice()? {
            let chunk = &slice.chunk;
            info.appended.push((slice.partition, chunk.base_offset, chunk.count, chunk.records.len() as u64));
        }
    }
    Ok(info)
}

/// Calls `each` for the frames after the last checkpoint, in order. Returns the position of the end and, if an
/// incomplete frame begins there, its error: a torn write or damage, which [`verify`] tells apart.
///
/// # Errors
/// As [`verify`].
pub fn dump(
    disk: &Arc<dyn Disk>,
    each: &mut dyn FnMut(&FrameInfo) -> bool,
) -> Result<(u64, Option<String>), OpenError> {
    let found = recovery::find(disk, &LogOptions::default())?;
    let stop = walk(&found, found.contents.checkpoint.link, &mut |head, frame| Ok(each(&info(head, frame)?)))?;
    let begun = stop.error.filter(|error| !matches!(error, FrameError::Magic | FrameError::Short));
    Ok((stop.link.position, begun.map(|error| error.to_string())))
}

/// Durably removes everything in the journal from a position on, at which a frame begins.
///
/// # Errors
/// [`RepairError`].
pub fn repair(disk: &Arc<dyn Disk>, truncate_at: u64) -> Result<RepairSummary, RepairError> {
    let found = recovery::find(disk, &LogOptions::default())?;
    let checkpoint = found.contents.checkpoint.link;
    if truncate_at < checkpoint.position {
        return Err(RepairError::InFront { checkpoint: checkpoint.position });
    }
    let mut nearest = checkpoint.position;
    if truncate_at > checkpoint.position {
        walk(&found, checkpoint, &mut |head, _| {
            if head.end_position() <= truncate_at {
                nearest = head.end_position();
            }
            Ok(head.end_position() < truncate_at)
        })?;
    }
    if nearest != truncate_at {
        return Err(RepairError::NoFrame { position: truncate_at, nearest });
    }
    let (frames, events) = behind(&found, truncate_at)?;
    // Later files first: their existence proves that the earlier ones were durable.
    for file in found.files.iter().rev().take_while(|file| file.first_position > truncate_at) {
        disk.remove(&file_name(file.first_position))?;
    }
    disk.sync_folder()?;
    if let Some(file) = found.files.iter().rfind(|file| file.first_position <= truncate_at) {
        let (length, mut at) = (file.file.length()?, file.at(truncate_at));
        let zeroes = vec![0; limits::SPARE_WRITE_BYTES];
        while at < length {
            let piece = zeroes.get(..usize::try_from(length - at).unwrap_or(usize::MAX).min(zeroes.len()));
            file.file.write_at(piece.unwrap_or(&zeroes), at)?;
            at += zeroes.len() as u64;
        }
        file.file.sync()?;
    }
    Ok(RepairSummary { frames, events })
}
