//! The blocks of a segment: their layout, which is a promise, and their codec.
//!
//! ```text
//! block v2, little endian, 64 bytes and the body
//!    0  u32  magic              0x424C5457 ("WTLB")
//!    4  u8   version            2; blocks of version 1 are read as well
//!    5  u8   compression        0 none, 1 LZ4 (block format)
//!    6  u16  0
//!    8  u32  body length        in bytes, as stored
//!   12  u32  body checksum      CRC32C, as stored
//!   16  u32  topic
//!   20  u32  partition
//!   24  u64  base offset        of the first event
//!   32  u32  count              of events
//!   36  u32  run count
//!   40  u32  raw length         of the body in bytes, decompressed
//!   44  u64  first append time  engine time, Unix nanoseconds
//!   52  u64  last append time
//!   60  u32  head checksum      CRC32C of bytes 0..60
//!
//! body
//!    0  per run; a run is the records of one append
//!       u64  append time
//!       u64  trusted time       only from version 2 on, in version 1 it is the append time
//!       u32  epoch
//!       u32  count              of events
//!       u32  length             of its records in bytes
//!    +  the records of all runs, each u32 length and bytes
//! ```
//!
//! The head has a checksum of its own, so that blocks can be skipped by reading their heads alone. It also names the
//! partition, so that a block in the wrong place is detected.

use bytes::{Buf, BufMut, Bytes};

use crate::model::{Chunk, Compression, Offset, PartitionId, TopicId};

/// Bytes of a block before its body.
pub(super) const BLOCK_HEAD_BYTES: usize = 64;
const RUN_BYTES: usize = 28;
const RUN_V1_BYTES: usize = 20;
const MAGIC: u32 = u32::from_le_bytes(*b"WTLB");
const VERSION: u8 = 2;
const OLDEST_VERSION: u8 = 1;
const UNCOMPRESSED: u8 = 0;
const LZ4: u8 = 1;

/// A block's head, without the fields that only identify the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub(super) partition: PartitionId,
    pub(super) base_offset: Offset,
    pub(super) count: u32,
    pub(super) first_time_ns: u64,
    pub(super) last_time_ns: u64,
    version: u8,
    compression: u8,
    body_bytes: u32,
    body_checksum: u32,
    run_count: u32,
    raw_bytes: u32,
}

/// Why bytes are not the expected block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    #[error("the file ends inside a block")]
    Short,
    #[error("there is no block")]
    Magic,
    #[error("the checksum of the block's head is wrong")]
    HeadChecksum,
    #[error("the block is of version {0}; this release knows versions {OLDEST_VERSION} and {VERSION}")]
    Version(u8),
    #[error("the block holds events that belong to another place")]
    Misplaced,
    #[error("the checksum of the block's events is wrong")]
    BodyChecksum,
    #[error("the block's events are malformed although their checksum is right")]
    Body,
}

impl BlockHead {
    /// Length of the block in bytes.
    pub(super) fn block_bytes(&self) -> u64 {
        BLOCK_HEAD_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// The offset after its last event.
    pub(super) fn end_offset(&self) -> Offset {
        self.base_offset + Offset::from(self.count)
    }

    /// Parses a head and checks all of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let bytes = bytes.get(..BLOCK_HEAD_BYTES).ok_or(BlockError::Short)?;
        let (checked, mut sum) = bytes.split_at_checked(BLOCK_HEAD_BYTES - 4).ok_or(BlockError::Short)?;
        let mut head = checked;
        if head.get_u32_le() != MAGIC {
            return Err(BlockError::Magic);
        }
        if crc32c::crc32c(checked) != sum.get_u32_le() {
            return Err(BlockError::HeadChecksum);
        }
        let (version, compression, _) = (head.get_u8(), head.get_u8(), head.get_u16_le());
        if !(OLDEST_VERSION..=VERSION).contains(&version) || compression > LZ4 {
            return Err(BlockError::Version(version));
        }
        Ok(Self {
            version,
            compression,
            body_bytes: head.get_u32_le(),
            body_checksum: head.get_u32_le(),
            partition: PartitionId { topic: TopicId(head.get_u32_le()), partition: head.get_u32_le() },
            base_offset: head.get_u64_le(),
            count: head.get_u32_le(),
            run_count: head.get_u32_le(),
            raw_bytes: head.get_u32_le(),
            first_time_ns: head.get_u64_le(),
            last_time_ns: head.get_u64_le(),
        })
    }

    /// The events of a block, given its body. Without compression they share the body's memory.
    pub(super) fn chunks(&self, body: Bytes) -> Result<Vec<Chunk>, BlockError> {
        if body.len() != self.body_bytes as usize {
            return Err(BlockError::Short);
        }
        if crc32c::crc32c(&body) != self.body_checksum {
            return Err(BlockError::BodyChecksum);
        }
        let mut raw = match self.compression {
            UNCOMPRESSED => body,
            _ => lz4_flex::block::decompress(&body, self.raw_bytes as usize).map_err(|_| BlockError::Body)?.into(),
        };
        let has_trusted = self.version > 1;
        let runs_bytes = self.run_count as usize * if has_trusted { RUN_BYTES } else { RUN_V1_BYTES };
        if raw.len() != self.raw_bytes as usize || raw.len() < runs_bytes {
            return Err(BlockError::Body);
        }
        let mut runs = raw.split_to(runs_bytes);
        let mut chunks = Vec::with_capacity(self.run_count as usize);
        let mut base_offset = self.base_offset;
        for _ in 0..self.run_count {
            let append_time_ns = runs.get_u64_le();
            let trusted_time_ns = if has_trusted { runs.get_u64_le() } else { append_time_ns };
            let epoch = runs.get_u32_le();
            let (count, length) = (runs.get_u32_le(), runs.get_u32_le() as usize);
            if length > raw.len() {
                return Err(BlockError::Body);
            }
            let records = raw.split_to(length);
            chunks.push(Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch, records });
            base_offset += Offset::from(count);
        }
        if base_offset == self.end_offset() && raw.is_empty() { Ok(chunks) } else { Err(BlockError::Body) }
    }
}

/// Appends a block with these events to `out` and returns its head. The chunks must be consecutive in the partition;
/// without chunks, no block is written.
pub(super) fn write_block(
    out: &mut Vec<u8>,
    partition: PartitionId,
    chunks: &[Chunk],
    compression: Compression,
) -> Option<BlockHead> {
    let (first, last) = (chunks.first()?, chunks.last()?);
    let raw_bytes: usize = chunks.iter().map(|chunk| RUN_BYTES + chunk.records.len()).sum();
    let start = out.len();
    out.reserve(BLOCK_HEAD_BYTES + raw_bytes);
    out.put_bytes(0, BLOCK_HEAD_BYTES);
    for chunk in chunks {
        out.put_u64_le(chunk.append_time_ns);
        out.put_u64_le(chunk.trusted_time_ns);
        out.put_u32_le(chunk.epoch);
        out.put_u32_le(chunk.count);
        out.put_u32_le(u32::try_from(chunk.records.len()).ok()?);
    }
    for chunk in chunks {
        out.put_slice(&chunk.records);
    }
    let mut stored_as = UNCOMPRESSED;
    if compression == Compression::Lz4 {
        let compressed = lz4_flex::block::compress(out.get(start + BLOCK_HEAD_BYTES..)?);
        if compressed.len() < raw_bytes {
            out.truncate(start + BLOCK_HEAD_BYTES);
            out.put_slice(&compressed);
            stored_as = LZ4;
        }
    }
    let (head_space, body) = out.get_mut(start..)?.split_at_mut(BLOCK_HEAD_BYTES);
    let head = BlockHead {
        partition,
        base_offset: first.base_offset,
        count: u32::try_from(last.end_offset() - first.base_offset).ok()?,
        first_time_ns: first.append_time_ns,
        last_time_ns: last.append_time_ns,
        version: VERSION,
        compression: stored_as,
        body_bytes: u32::try_from(body.len()).ok()?,
        body_checksum: crc32c::crc32c(body),
        run_count: u32::try_from(chunks.len()).ok()?,
        raw_bytes: u32::try_from(raw_bytes).ok()?,
    };
    let mut space = &mut *head_space;
    space.put_u32_le(MAGIC);
    space.put_u8(VERSION);
    space.put_u8(head.compression);
    space.put_u16_le(0);
    space.put_u32_le(head.body_bytes);
    space.put_u32_le(head.body_checksum);
    space.put_u32_le(head.partition.topic.0);
    space.put_u32_le(head.partition.partition);
    space.put_u64_le(head.base_offset);
    space.put_u32_le(head.count);
    space.put_u32_le(head.run_count);
    space.put_u32_le(head.raw_bytes);
    space.put_u64_le(head.first_time_ns);
    space.put_u64_le(head.last_time_ns);
    let sum = crc32c::crc32c(head_space.get(..BLOCK_HEAD_BYTES - 4)?);
    head_space.get_mut(BLOCK_HEAD_BYTES - 4..)?.copy_from_slice(&sum.to_le_bytes());
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: PartitionId = PartitionId { topic: TopicId(3), partition: 2 };

    fn chunks_of(runs: &[Vec<Vec<u8>>]) -> Vec<Chunk> {
        let mut base_offset = 100;
        let mut chunks = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            let mut records = Vec::new();
            for record in run {
                records.put_u32_le(record.len() as u32);
                records.put_slice(record);
            }
            let (count, append_time_ns) = (run.len() as u32, 1_000 + number as u64);
            let (trusted_time_ns, records) = (append_time_ns - 1, records.into());
            chunks.push(Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch: 7, records });
            base_offset += u64::from(count);
        }
        chunks
    }

    fn block_of(runs: &[Vec<Vec<u8>>], compression: Compression) -> (Bytes, BlockHead) {
        let mut out = vec![0xaa; 3]; // a block is independent of the bytes before it
        let head = write_block(&mut out, P, &chunks_of(runs), compression).unwrap();
        (Bytes::from(out).slice(3..), head)
    }

    fn runs() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let record = proptest::collection::vec(0u8..4, 0..40);
        proptest::collection::vec(proptest::collection::vec(record, 1..5), 1..8)
    }

    proptest! {
        #[test]
        fn a_block_survives_its_encoding(
            runs in runs(),
            compression in prop_oneof![Just(Compression::None), Just(Compression::Lz4)],
        ) {
            let (bytes, written) = block_of(&runs, compression);
            let head = BlockHead::parse(&bytes).unwrap();
            prop_assert_eq!(head, written);
            prop_assert_eq!(head.block_bytes(), bytes.len() as u64);
            let read = head.chunks(bytes.slice(BLOCK_HEAD_BYTES..)).unwrap();
            let (shown, expected) = (format!("{read:?}"), format!("{:?}", chunks_of(&runs)));
            prop_assert_eq!(shown, expected);
        }

        #[test]
        fn every_flipped_bit_is_found(
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
            compression in prop_oneof![Just(Compression::None), Just(Compression::Lz4)],
        ) {
            let (bytes, _) = block_of(&[vec![vec![7; 60], b"hello".to_vec()], vec![vec![]]], compression);
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let bytes = Bytes::from(bytes);
            let read = BlockHead::parse(&bytes).and_then(|head| head.chunks(bytes.slice(BLOCK_HEAD_BYTES..)));
            prop_assert!(read.is_err(), "byte {at} bit {bit}");
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BlockHead::parse(&bytes);
            // also after an intact head
            let (_, head) = block_of(&[vec![vec![1; 30]; 3]], Compression::Lz4);
            let body = Bytes::from(bytes);
            let forged = BlockHead { body_bytes: body.len() as u32, body_checksum: crc32c::crc32c(&body), ..head };
            let _ = forged.chunks(body);
        }
    }

    #[test]
    fn zeroes_are_never_a_block() {
        assert_eq!(BlockHead::parse(&[0; 4096]), Err(BlockError::Magic));
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let noise: Vec<u8> =
            (0..4_000u32).map(|number| (crc32c::crc32c(&(number * number).to_le_bytes()) >> 13) as u8).collect();
        let (bytes, head) = block_of(&[vec![noise]], Compression::Lz4);
        assert_eq!(head.compression, UNCOMPRESSED);
        let (_, squeezed) = block_of(&[vec![vec![0; 1_000]]], Compression::Lz4);
        assert_eq!(squeezed.compression, LZ4);
        assert!(squeezed.block_bytes() < 150, "{squeezed:?}");
        assert_eq!(bytes.len() as u64, head.block_bytes());
    }

    #[test]
    fn a_block_of_the_version_before_has_append_times() {
        let bytes = "57544c42 01 00 0000 19000000 ef7c60c4 03000000 02000000 6400000000000000 01000000 01000000 \
                     19000000 e803000000000000 e803000000000000 dadb5b1f e803000000000000 07000000 01000000 05000000 \
                     01000000 78";
        let digits = bytes.replace(' ', "");
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Bytes = (0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>().into();
        let chunks = BlockHead::parse(&bytes).unwrap().chunks(bytes.slice(BLOCK_HEAD_BYTES..)).unwrap();
        assert_eq!((chunks[0].append_time_ns, chunks[0].trusted_time_ns, chunks[0].epoch), (1_000, 1_000, 7));
        assert_eq!(chunks[0].iter().next().unwrap().record, b"x");
    }

    #[test]
    fn the_layout_is_a_promise() {
        let (bytes, _) = block_of(&[vec![b"x".to_vec()]], Compression::None);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let head = "57544c42 02 00 0000 21000000 0b890256 03000000 02000000 6400000000000000 01000000 01000000 \
                    21000000 e803000000000000 e803000000000000 5d6e2154";
        let body = "e803000000000000 e703000000000000 07000000 01000000 05000000 01000000 78";
        assert_eq!(hex, [head, body].concat().replace(' ', ""));
    }
}
