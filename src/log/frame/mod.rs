//! The frames of the journal: their layout, which is a promise, and their codec.
//!
//! ```text
//! frame v5, little endian, 56 bytes and the body
//!    0  u32  magic              0x4C545457 ("WTTL")
//!    4  u8   version            5; frames of versions 1 to 4 are read as well
//!    5  u8   kind               1 unit, 2 mark, 3 catalogue
//!    6  u16  0
//!    8  u32  body length        in bytes
//!   12  u32  checksum           CRC32C of bytes 0..12, then 16.. to the end of the body
//!   16  u64  position           of this frame in the journal; at any other position it is invalid
//!   24  u64  durable position   everything before it was durable when this frame was written
//!   32  u64  append time        engine time, Unix nanoseconds, never less than that of the previous frame
//!   40  u64  sequence           one more than that of the previous frame; the first is random, so that no
//!                               producer can imitate a later frame in the data of an event
//!   48  u32  epoch              of the recovery after which it was written; grows with each start
//!   52  u32  previous checksum  of the previous frame; 0 for the first one
//!
//! unit body
//!    0  u32  slice count
//!    4  u32  flags              bit 0: has a lane; from version 2 on bit 1: identities, bit 2: a producer;
//!                               from version 3 on bit 3: a lane's entries; from version 4 on bit 4: entries of topics;
//!                               from version 5 on bit 5: the producer's start
//!    8 [u64  trusted time       Unix nanoseconds; only from version 5 on, in earlier ones it is the append time]
//!    + [u32  subscriber         only with a lane, 16 bytes
//!       u32  partition
//!       u64  consumed to]
//!    + [u128 producer           only with a producer, 16 bytes]
//!    + [u64  its start          Unix nanoseconds, as the producer stated; only with bit 5]
//!    + [u32  entry count        only with a lane's entries; per entry
//!       u16  key length
//!       u32  value length       2^32 - 1: the entry is deleted and has no value
//!       the key, the value]
//!    + [u32  topic count        only with entries of topics; per topic
//!       u32  topic
//!       u32  partition
//!       u32  entry count, and the entries in the same form]
//!    +  per slice
//!       u32  topic
//!       u32  partition
//!       u64  base offset
//!       u32  record count
//!       u32  records length     in bytes
//!       the records, each u32 length and bytes
//!      [u128 identity of each record, only with identities]
//!      [u64  sequence of the last record, only with a producer]
//!
//! mark body: empty. catalogue body: defined by the engine.
//!
//! In every version, the first 16 bytes and the range of the checksum are the same: so a release can tell a
//! frame of a later release from a torn write.
//! ```

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};

use crate::limits;
use crate::model::guard::GUARD_ENTRIES_BYTES;
use crate::model::slices::Slice;
use crate::model::{
    Chunk, EventId, Guard, LaneId, LaneWrite, Offset, PartitionId, ProducerId, Slices, SubscriberId, TopicId,
};

/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: usize = 56;
const MAGIC: u32 = u32::from_le_bytes(*b"WTTL");
const VERSION: u8 = 5;
/// The first version whose units state their trusted time.
const TRUSTED_FROM_VERSION: u8 = 5;
const OLDEST_VERSION: u8 = 1;
const UNIT_HEAD_BYTES: usize = 8;
const TRUSTED_BYTES: usize = 8;
const LANE_BYTES: usize = 16;
const PRODUCER_BYTES: usize = 16;
const BEGAN_BYTES: usize = 8;
const SLICE_HEAD_BYTES: usize = 24;
const IDENTITY_BYTES: usize = 16;
const SEQUENCE_BYTES: usize = 8;
const HAS_LANE: u32 = 1;
const HAS_IDENTITIES: u32 = 2;
const HAS_PRODUCER: u32 = 4;
const HAS_WRITES: u32 = 8;
const HAS_KEPT: u32 = 16;
const HAS_BEGAN: u32 = 32;
const KEPT_HEAD_BYTES: usize = 8;
const WRITE_COUNT_BYTES: usize = 4;
const WRITE_HEAD_BYTES: usize = 6;
const DELETED: u32 = u32::MAX;

/// The largest body: a unit's records, and the heads of as many slices as records can cause.
pub(super) const BODY_BYTES_MAX: usize = limits::UNIT_BYTES_MAX * 8;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unit = 1,
    Mark = 2,
    Catalogue = 3,
}

/// A frame's head, without the fields that only identify the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    version: u8,
    pub(super) kind: Kind,
    pub(super) body_bytes: u32,
    pub(super) checksum: u32,
    pub(super) position: u64,
    pub(super) durable_position: u64,
    pub(super) append_time_ns: u64,
    pub(super) sequence: u64,
    pub(super) epoch: u32,
    pub(super) previous_checksum: u32,
}

/// Why bytes are not the expected frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the file ends inside it")]
    Short,
    #[error("it does not begin like a frame")]
    Magic,
    #[error(
        "it is of version {version} and kind {kind}; \
         this release knows versions {OLDEST_VERSION} to {VERSION}, kinds 1 to 3"
    )]
    Unknown { version: u8, kind: u8 },
    #[error("its header is invalid")]
    Head,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it belongs at another position")]
    Position,
    #[error("it does not follow the previous frame")]
    Chain,
    #[error("its body is malformed")]
    Body,
    #[error("events before those in it are missing")]
    Hole,
}

impl Head {
    /// Length of the frame in bytes.
    pub(super) fn frame_bytes(&self) -> usize {
        HEAD_BYTES + self.body_bytes as usize
    }

    /// The position after the frame.
    pub(super) fn end_position(&self) -> u64 {
        self.position + self.frame_bytes() as u64
    }

    /// Parses a head and checks all that can be checked without the body.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        match Self::parse_known(bytes) {
            // A torn write can show any version and kind: only an intact frame was written by a later release.
            Err(FrameError::Unknown { version, kind }) => {
                let mut lengths = bytes.get(8..16).ok_or(FrameError::Short)?;
                verify(bytes, lengths.get_u32_le(), lengths.get_u32_le())?;
                Err(FrameError::Unknown { version, kind })
            }
            parsed => parsed,
        }
    }

    /// As [`Self::parse`], but does not verify frames of unknown versions: so its cost does not depend on the bytes.
    pub(super) fn parse_known(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut head = bytes.get(..HEAD_BYTES).ok_or(FrameError::Short)?;
        if head.get_u32_le() != MAGIC {
            return Err(FrameError::Magic);
        }
        let (version, kind, reserved) = (head.get_u8(), head.get_u8(), head.get_u16_le());
        let (body_bytes, checksum) = (head.get_u32_le(), head.get_u32_le());
        if body_bytes as usize > BODY_BYTES_MAX {
            return Err(FrameError::Head);
        }
        let kind = match (version, kind, reserved) {
            (OLDEST_VERSION..=VERSION, 1, 0) => Kind::Unit,
            (OLDEST_VERSION..=VERSION, 2, 0) => Kind::Mark,
            (OLDEST_VERSION..=VERSION, 3, 0) => Kind::Catalogue,
            _ => return Err(FrameError::Unknown { version, kind }),
        };
        Ok(Self {
            version,
            kind,
            body_bytes,
            checksum,
            position: head.get_u64_le(),
            durable_position: head.get_u64_le(),
            append_time_ns: head.get_u64_le(),
            sequence: head.get_u64_le(),
            epoch: head.get_u32_le(),
            previous_checksum: head.get_u32_le(),
        })
    }

    /// Verifies the whole frame at the start of `bytes`.
    pub(super) fn verify(&self, bytes: &[u8]) -> Result<(), FrameError> {
        verify(bytes, self.body_bytes, self.checksum)
    }
}

fn verify(bytes: &[u8], body_bytes: u32, expected: u32) -> Result<(), FrameError> {
    let frame = bytes.get(..HEAD_BYTES + body_bytes as usize).ok_or(FrameError::Short)?;
    if checksum(frame) == Some(expected) { Ok(()) } else { Err(FrameError::Checksum) }
}

fn checksum(frame: &[u8]) -> Option<u32> {
    #[cfg(test)]
    CHECKSUMMED_BYTES.with(|bytes| bytes.set(bytes.get() + frame.len()));
    let before = crc32c::crc32c(frame.get(..12)?);
    Some(crc32c::crc32c_append(before, frame.get(16..)?))
}

#[cfg(test)]
thread_local! {
    /// Bytes that this thread has checksummed: the cost of a search.
    pub(super) static CHECKSUMMED_BYTES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The chain: what the next frame must state about its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The position of the next frame.
    pub(super) position: u64,
    pub(super) sequence: u64,
    /// The checksum of the previous frame.
    pub(super) previous_checksum: u32,
    /// Its epoch, or a lower bound of it.
    pub(super) epoch: u32,
    /// A lower bound of its append time.
    pub(super) append_time_ns: u64,
}

impl Link {
    /// The link of the first frame of a new journal.
    pub(super) fn first(sequence: u64) -> Self {
        Self { position: 0, sequence, previous_checksum: 0, epoch: 0, append_time_ns: 0 }
    }

    /// Whether a frame is the next one.
    pub(super) fn check(&self, head: &Head) -> Result<(), FrameError> {
        if head.position != self.position {
            return Err(FrameError::Position);
        }
        // At the beginning of the journal, the first frame chooses the first sequence number.
        let counts_on = head.sequence == self.sequence || self.position == 0;
        let follows = counts_on
            && head.previous_checksum == self.previous_checksum
            && head.epoch >= self.epoch
            && head.append_time_ns >= self.append_time_ns
            && head.durable_position <= head.position;
        if follows { Ok(()) } else { Err(FrameError::Chain) }
    }

    /// Whether an intact frame found after this place belongs to this journal and proves that the missing frame here
    /// was durable. Frames inside the data of an event can be intact too, but their sequence is a guess.
    pub(super) fn is_proved_by(&self, head: &Head) -> bool {
        let frames_between = head.position.checked_sub(self.position).map(|bytes| bytes / HEAD_BYTES as u64);
        let ahead = head.sequence.checked_sub(self.sequence);
        let is_plausible = ahead.zip(frames_between).is_some_and(|(ahead, most)| (1..=most).contains(&ahead));
        head.durable_position > self.position && (is_plausible || self.position == 0)
    }

    /// The link after a frame.
    pub(super) fn after(head: &Head) -> Self {
        Self {
            position: head.end_position(),
            sequence: head.sequence + 1,
            previous_checksum: head.checksum,
            epoch: head.epoch,
            append_time_ns: head.append_time_ns,
        }
    }
}

/// Appends one frame to `out`, with the body that `body` writes. Returns its head.
pub(super) fn write_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    link: &Link,
    durable_position: u64,
    body: impl FnOnce(&mut Vec<u8>),
) -> Option<Head> {
    let start = out.len();
    out.put_bytes(0, HEAD_BYTES);
    body(out);
    let frame = out.get_mut(start..)?;
    let body_bytes = u32::try_from(frame.len() - HEAD_BYTES).ok()?;
    let mut head = Head {
        version: VERSION,
        kind,
        body_bytes,
        checksum: 0,
        position: link.position,
        durable_position,
        append_time_ns: link.append_time_ns,
        sequence: link.sequence,
        epoch: link.epoch,
        previous_checksum: link.previous_checksum,
    };
    let mut space = frame.get_mut(..HEAD_BYTES)?;
    space.put_u32_le(MAGIC);
    space.put_u8(VERSION);
    space.put_u8(kind as u8);
    space.put_u16_le(0);
    space.put_u32_le(body_bytes);
    space.put_u32_le(0);
    space.put_u64_le(head.position);
    space.put_u64_le(head.durable_position);
    space.put_u64_le(head.append_time_ns);
    space.put_u64_le(head.sequence);
    space.put_u32_le(head.epoch);
    space.put_u32_le(head.previous_checksum);
    head.checksum = checksum(frame)?;
    frame.get_mut(12..16)?.copy_from_slice(&head.checksum.to_le_bytes());
    Some(head)
}

/// The new position of a lane in a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CursorUpdate {
    pub(super) lane: LaneId,
    pub(super) consumed_to: Offset,
}

/// The new position and the changed entries of a lane in a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneChange<'a> {
    pub(super) consumed: CursorUpdate,
    pub(super) writes: &'a [LaneWrite],
}

/// Bytes of these entries in a unit's frame.
pub(super) fn writes_bytes(writes: &[LaneWrite]) -> usize {
    let count = if writes.is_empty() { 0 } else { WRITE_COUNT_BYTES };
    count + writes.iter().map(|write| WRITE_HEAD_BYTES + write.bytes()).sum::<usize>()
}

/// Bytes of a unit's frame, including the entries of its lane if it has one.
pub(super) fn unit_frame_bytes(slices: &Slices, lane_writes: Option<&[LaneWrite]>) -> usize {
    let lane_bytes = lane_writes.map_or(0, |writes| LANE_BYTES + writes_bytes(writes));
    let (producer_bytes, sequence_bytes) = match slices.producer() {
        Some(_) => (PRODUCER_BYTES + slices.began_ns().map_or(0, |_| BEGAN_BYTES), SEQUENCE_BYTES),
        None => (0, 0),
    };
    let marks = |slice: &Slice| slice.identities.len() * IDENTITY_BYTES + sequence_bytes + guard_bytes(slice);
    // a record that is set aside gets a slice of its own
    let aside = |slice: &Slice| match slice.guards.first().is_some_and(Guard::may_go_aside) {
        true => SLICE_HEAD_BYTES + sequence_bytes,
        false => 0,
    };
    let released =
        slices.released().len() * (KEPT_HEAD_BYTES + WRITE_COUNT_BYTES + WRITE_HEAD_BYTES + GUARD_ENTRIES_BYTES);
    let slices_bytes: usize = slices.iter().map(|slice| SLICE_HEAD_BYTES + marks(slice) + aside(slice)).sum();
    HEAD_BYTES
        + UNIT_HEAD_BYTES
        + TRUSTED_BYTES
        + lane_bytes
        + producer_bytes
        + slices_bytes
        + released
        + slices.bytes()
}

/// Changed entries of a partition of a topic.
pub(super) type PartitionEntries = (PartitionId, Vec<LaneWrite>);

/// An upper bound of the entry bytes that a partition stores for the guarded records of a slice.
fn guard_bytes(slice: &Slice) -> usize {
    let entry = |guard: &Guard| {
        let (bytes, count) = guard.entries();
        bytes + count * WRITE_HEAD_BYTES
    };
    match slice.guards.as_slice() {
        [] => 0,
        guards => {
            let head =
                WRITE_COUNT_BYTES + KEPT_HEAD_BYTES + WRITE_COUNT_BYTES + 3 * WRITE_HEAD_BYTES + GUARD_ENTRIES_BYTES;
            head + guards.iter().map(entry).sum::<usize>()
        }
    }
}

/// Writes the body of a unit. For each slice, `place` gets the range of its records in `out` and returns the offset of
/// the first one.
pub(super) fn write_unit(
    out: &mut Vec<u8>,
    trusted_time_ns: u64,
    lane: Option<LaneChange<'_>>,
    kept: &[PartitionEntries],
    slices: &Slices,
    mut place: impl FnMut(&Slice, Range<usize>) -> Offset,
) {
    let has_identities = slices.iter().any(|slice| !slice.identities.is_empty());
    let flag = |present: bool, flag: u32| if present { flag } else { 0 };
    out.put_u32_le(slices.iter().len() as u32);
    out.put_u32_le(
        flag(lane.is_some(), HAS_LANE)
            | flag(has_identities, HAS_IDENTITIES)
            | flag(slices.producer().is_some(), HAS_PRODUCER)
            | flag(lane.is_some_and(|lane| !lane.writes.is_empty()), HAS_WRITES)
            | flag(!kept.is_empty(), HAS_KEPT)
            | flag(slices.producer().and(slices.began_ns()).is_some(), HAS_BEGAN),
    );
    out.put_u64_le(trusted_time_ns);
    if let Some(LaneChange { consumed, .. }) = lane {
        out.put_u32_le(consumed.lane.subscriber.0);
        out.put_u32_le(consumed.lane.partition);
        out.put_u64_le(consumed.consumed_to);
    }
    if let Some(producer) = slices.producer() {
        out.put_u128_le(producer.0);
        slices.began_ns().into_iter().for_each(|began_ns| out.put_u64_le(began_ns));
    }
    if let Some(LaneChange { writes, .. }) = lane.filter(|lane| !lane.writes.is_empty()) {
        put_writes(out, writes);
    }
    if !kept.is_empty() {
        out.put_u32_le(kept.len() as u32);
        for (partition, writes) in kept {
            out.put_u32_le(partition.topic.0);
            out.put_u32_le(partition.partition);
            put_writes(out, writes);
        }
    }
    for slice in slices.iter() {
        out.put_u32_le(slice.partition.topic.0);
        out.put_u32_le(slice.partition.partition);
        let start = out.len() + SLICE_HEAD_BYTES - 8;
        out.put_u64_le(place(slice, start..start + slice.records.len()));
        out.put_u32_le(slice.count);
        out.put_u32_le(slice.records.len() as u32);
        out.put_slice(&slice.records);
        for identity in &slice.identities {
            out.put_u128_le(identity.0);
        }
        if slices.producer().is_some() {
            out.put_u64_le(slice.sequences.last().copied().unwrap_or(0));
        }
    }
}

fn put_writes(out: &mut Vec<u8>, writes: &[LaneWrite]) {
    out.put_u32_le(writes.len() as u32);
    for write in writes {
        out.put_u16_le(write.key.len() as u16);
        out.put_u32_le(write.value.as_ref().map_or(DELETED, |value| value.len() as u32));
        out.put_slice(&write.key);
        out.put_slice(write.value.as_deref().unwrap_or_default());
    }
}

/// The parsed body of a unit.
#[derive(Debug)]
pub(super) struct UnitBody {
    pub(super) consumed: Option<CursorUpdate>,
    /// Entries of the lane, sharing the frame's memory.
    pub(super) writes: Vec<LaneWrite>,
    /// Entries of partitions of topics, sharing the frame's memory.
    pub(super) kept: Vec<PartitionEntries>,
    pub(super) producer: Option<ProducerId>,
    /// When the producer started, as it stated; 0 if it did not.
    pub(super) began_ns: u64,
    has_identities: bool,
    slices_left: u32,
    rest: Bytes,
    append_time_ns: u64,
    /// Of all events in the unit.
    pub(super) trusted_time_ns: u64,
    epoch: u32,
}

/// A slice of a unit, sharing the frame's memory.
#[derive(Debug)]
pub(super) struct UnitSlice {
    pub(super) partition: PartitionId,
    pub(super) chunk: Chunk,
    /// Of each record, if the unit has identities.
    identities: Bytes,
    /// Of the last record, if there is one and a producer numbered it.
    pub(super) last_sequence: Option<u64>,
}

impl UnitSlice {
    /// The identities for deduplication; empty if the records have none.
    pub(super) fn identities(&self) -> impl Iterator<Item = EventId> {
        let (identities, _) = self.identities.as_chunks::<IDENTITY_BYTES>();
        identities.iter().map(|bytes| EventId(u128::from_le_bytes(*bytes)))
    }
}

impl UnitBody {
    /// Parses `body`, the body of the frame of `head`.
    pub(super) fn parse(head: &Head, mut body: Bytes) -> Result<Self, FrameError> {
        if body.len() < UNIT_HEAD_BYTES {
            return Err(FrameError::Body);
        }
        let slices_left = body.get_u32_le();
        let flags = body.get_u32_le();
        if flags & !(HAS_LANE | HAS_IDENTITIES | HAS_PRODUCER | HAS_WRITES | HAS_KEPT | HAS_BEGAN) != 0 {
            return Err(FrameError::Body);
        }
        let trusted_time_ns = match head.version {
            TRUSTED_FROM_VERSION.. => body.try_get_u64_le().map_err(|_| FrameError::Body)?,
            _ => head.append_time_ns,
        };
        let consumed = match flags & HAS_LANE {
            0 => None,
            _ if body.len() >= LANE_BYTES => Some(CursorUpdate {
                lane: LaneId { subscriber: SubscriberId(body.get_u32_le()), partition: body.get_u32_le() },
                consumed_to: body.get_u64_le(),
            }),
            _ => return Err(FrameError::Body),
        };
        let producer = match flags & HAS_PRODUCER {
            0 => None,
            _ => Some(ProducerId(body.try_get_u128_le().map_err(|_| FrameError::Body)?)),
        };
        let began_ns = match flags & HAS_BEGAN {
            0 => 0,
            _ => body.try_get_u64_le().map_err(|_| FrameError::Body)?,
        };
        let writes = match flags & (HAS_WRITES | HAS_LANE) {
            both if both == HAS_WRITES | HAS_LANE => parse_writes(&mut body).ok_or(FrameError::Body)?,
            HAS_WRITES => return Err(FrameError::Body),
            _ => Vec::new(),
        };
        let kept = match flags & HAS_KEPT {
            0 => Vec::new(),
            _ => parse_kept(&mut body).ok_or(FrameError::Body)?,
        };
        Ok(Self {
            consumed,
            writes,
            kept,
            producer,
            began_ns,
            has_identities: flags & HAS_IDENTITIES != 0,
            slices_left,
            rest: body,
            append_time_ns: head.append_time_ns,
            trusted_time_ns,
            epoch: head.epoch,
        })
    }

    /// The next slice, sharing the body's memory.
    pub(super) fn next_slice(&mut self) -> Result<Option<UnitSlice>, FrameError> {
        if self.slices_left == 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(FrameError::Body) };
        }
        if self.rest.len() < SLICE_HEAD_BYTES {
            return Err(FrameError::Body);
        }
        self.slices_left -= 1;
        let partition = PartitionId { topic: TopicId(self.rest.get_u32_le()), partition: self.rest.get_u32_le() };
        let base_offset = self.rest.get_u64_le();
        let count = self.rest.get_u32_le();
        let length = self.rest.get_u32_le() as usize;
        if length > self.rest.len() {
            return Err(FrameError::Body);
        }
        let records = self.rest.split_to(length);
        let (append_time_ns, trusted_time_ns, epoch) = (self.append_time_ns, self.trusted_time_ns, self.epoch);
        let chunk = Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch, records };
        let marks = if self.has_identities { count as usize * IDENTITY_BYTES } else { 0 };
        if marks > self.rest.len() {
            return Err(FrameError::Body);
        }
        let identities = self.rest.split_to(marks);
        let last_sequence = match self.producer {
            Some(_) => Some(self.rest.try_get_u64_le().map_err(|_| FrameError::Body)?),
            None => None,
        };
        // a slice whose records were all duplicates has no numbered record left
        let last_sequence = last_sequence.filter(|_| count > 0);
        Ok(Some(UnitSlice { partition, chunk, identities, last_sequence }))
    }
}

fn parse_kept(body: &mut Bytes) -> Option<Vec<PartitionEntries>> {
    let count = body.try_get_u32_le().ok()?;
    let mut kept = Vec::new();
    for _ in 0..count {
        let topic = TopicId(body.try_get_u32_le().ok()?);
        let partition = PartitionId { topic, partition: body.try_get_u32_le().ok()? };
        kept.push((partition, parse_writes(body)?));
    }
    Some(kept)
}

fn parse_writes(body: &mut Bytes) -> Option<Vec<LaneWrite>> {
    let count = body.try_get_u32_le().ok()?;
    let mut writes = Vec::new(); // no capacity from an unverified count
    for _ in 0..count {
        let key_bytes = usize::from(body.try_get_u16_le().ok()?);
        let value_bytes = body.try_get_u32_le().ok()?;
        let mut take = |bytes: usize| (bytes <= body.len()).then(|| body.split_to(bytes));
        let key = take(key_bytes)?;
        let value = if value_bytes == DELETED { None } else { Some(take(value_bytes as usize)?) };
        writes.push(LaneWrite { key, value });
    }
    Some(writes)
}

/// The frames in `bytes` with their bodies, in order. They were verified or written by this process.
pub(super) fn frames(bytes: &Bytes) -> impl Iterator<Item = (Head, Bytes)> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        let head = Head::parse(&rest).ok()?;
        let mut frame = rest.split_to(head.frame_bytes().min(rest.len()));
        Some((head, frame.split_off(HEAD_BYTES.min(frame.len()))))
    })
}

#[cfg(test)]
mod tests;
