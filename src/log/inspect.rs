//! Looks at a log that nobody uses: is all of it as it was written, what is in its journal, and how to go on without a
//! part of it.
//!
//! Promises: [`verify`] and [`dump`] change neither journal nor segments; [`repair`] gives up exactly what it was told to,
//! and only what lies behind the last checkpoint.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::files::{JournalFile, file_name};
use super::frame::{FrameError, HEAD_BYTES, Head, Kind, Link, UnitBody};
use super::recovery::{self, Found};
use super::segment::{SegmentFile, SegmentId};
use super::walk::{Walk, WalkError};
use super::{LogOptions, OpenError};
use crate::effects::Disk;
use crate::limits;
use crate::model::{LaneId, Offset, PartitionId};

/// What a look at a log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Everything in front of this position of the journal is in segments and in the state store.
    pub checkpoint_position: u64,
    /// Where the journal ends, as far as it can be read.
    pub end_position: u64,
    /// Frames between the two.
    pub frames: u64,
    /// Segments.
    pub segments: u64,
    /// Events in segments and in the journal, of those that can be read.
    pub events: u64,
    /// What is wrong, in words; nothing where all is well.
    pub damage: Vec<String>,
    /// Where the journal is damaged: what lies behind can be given up there.
    pub damaged_position: Option<u64>,
    /// Whole frames behind that place, and the events in them.
    pub behind: Option<(u64, u64)>,
}

/// A frame of the journal, looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameInfo {
    /// In the journal, in bytes.
    pub position: u64,
    /// With its head, in bytes.
    pub bytes: u64,
    /// `unit`, `mark` or `catalogue`.
    pub kind: &'static str,
    /// The recovery epoch in which it was written.
    pub epoch: u32,
    /// Its number.
    pub sequence: u64,
    /// Engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// Everything in front of this position was durable when it was written.
    pub durable_position: u64,
    /// The lane whose unit it is, and up to where that has consumed.
    pub consumed: Option<(LaneId, Offset)>,
    /// Events that it appends: the partition, the first offset, how many, and their bytes.
    pub appended: Vec<(PartitionId, Offset, u32, u64)>,
}

/// Why a log was not repaired. Nothing was changed, unless it is of the disk.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It cannot be looked at.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk says no.
    #[error("the journal cannot be changed: {0}")]
    Disk(#[from] io::Error),
    /// What lies there is not in the journal alone any more.
    #[error("everything in front of position {checkpoint} is in segments: only what comes behind it can be given up")]
    InFront {
        /// The position of the last checkpoint.
        checkpoint: u64,
    },
    /// No frame begins there.
    #[error("no frame begins at position {position}: the nearest that does is at {nearest}")]
    NoFrame {
        /// What was asked for.
        position: u64,
        /// The last place in front of it.
        nearest: u64,
    },
}

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// Whole frames.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
}

/// Looks at everything: every frame behind the last checkpoint, every block of every segment, all of the state store.
///
/// # Errors
/// [`OpenError`] where it cannot even be opened; what it says is damage as well.
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
                inspection.damage.push(format!("the segment in front of {name} is not known"));
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

fn verify_journal(found: &Found, inspection: &mut Inspection) -> Result<(), OpenError> {
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

/// Where a walk has ended, and why, where it was not the end of all files.
struct Stop {
    link: Link,
    error: Option<FrameError>,
}

/// Walks along the chain of frames from a link on, for as long as `each` wants more.
fn walk(
    found: &Found,
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

/// Whole frames that lie at their own place from a position on, and the events in them.
fn behind(found: &Found, position: u64) -> Result<(u64, u64), OpenError> {
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

/// Tells of the frames behind the last checkpoint, in their order. Where that ended, and where a frame has been begun there
/// that is not whole, what is wrong with it: it was torn, or is damaged, which [`verify`] tells apart.
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

/// Gives up everything in the journal from a position on, where a frame begins, durably.
///
/// # Errors
/// [`RepairError`].
pub fn repair(disk: &Arc<dyn Disk>, truncate_at: u64) -> Result<Repaired, RepairError> {
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
    // Later files first: they prove that what is in front of them had been durable.
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
    Ok(Repaired { frames, events })
}
