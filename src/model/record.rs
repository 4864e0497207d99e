//! A stored event: its key, its origin, and its encoding.
//!
//! ```text
//! record v1, little endian
//!   0   u8   flags           bit 0: has lineage; all others 0
//!   1   u8   0
//!   2   u16  key length
//!   4  [u32  subscriber      only with lineage, 20 bytes
//!       u32  partition
//!       u64  offset
//!       u32  version]
//!   +   key                  UTF-8
//!   +   event                CloudEvents protobuf format, to the end of the record
//! ```
//!
//! The length of the record is stored by its container. So are offset and append time, which are known only after the
//! append.

use super::event::{EventError, EventView, EventWriter};
use super::identity::{Offset, SubscriberId, VersionId};

const HAS_LINEAGE: u8 = 1;
const LINEAGE_BYTES: usize = 20;

/// Longest ordering key in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// The origin of an output: the subscriber that made it and the event from which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage {
    /// The subscriber that made the event.
    pub subscriber: SubscriberId,
    /// The partition of the subscriber's input topic that contains the parent.
    pub partition: u32,
    /// The parent's offset there.
    pub offset: Offset,
    /// The version of the plugin that made it.
    pub version: VersionId,
}

/// A stored event as a view of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The ordering key.
    pub key: &'a str,
    /// `None` for events from outside.
    pub lineage: Option<Lineage>,
    /// The event in the CloudEvents protobuf format.
    pub event: &'a [u8],
}

/// Why a record cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not a record of a known version.
    #[error("the stored event is malformed")]
    Malformed,
    /// The ordering key is too long.
    #[error(
        "the ordering key is {0} bytes long, at most {KEY_BYTES_MAX} are accepted; it is the id of an event that has \
         no other"
    )]
    KeyTooLong(usize),
    /// The event in it is invalid.
    #[error(transparent)]
    Event(#[from] EventError),
}

impl<'a> Record<'a> {
    /// Appends this record to `out`.
    ///
    /// # Errors
    /// [`RecordError::KeyTooLong`]; then nothing was written.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        Self::write_head(out, self.key, self.lineage)?;
        out.extend_from_slice(self.event);
        Ok(())
    }

    /// Appends the head of a record and starts its event; the writer ends it. For outputs, which are encoded directly
    /// into their record.
    ///
    /// # Errors
    /// [`RecordError::KeyTooLong`]; then nothing was written.
    #[inline]
    pub fn start<'o>(
        out: &'o mut Vec<u8>,
        key: &str,
        lineage: Option<Lineage>,
        id: &str,
        source: &str,
        r#type: &str,
    ) -> Result<EventWriter<'o>, RecordError> {
        Self::write_head(out, key, lineage)?;
        Ok(EventWriter::new(out, id, source, r#type))
    }

    #[inline]
    fn write_head(out: &mut Vec<u8>, key: &str, lineage: Option<Lineage>) -> Result<(), RecordError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(RecordError::KeyTooLong(key.len()));
        }
        out.push(if lineage.is_some() { HAS_LINEAGE } else { 0 });
        out.push(0);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        if let Some(lineage) = lineage {
            out.extend_from_slice(&lineage.subscriber.0.to_le_bytes());
            out.extend_from_slice(&lineage.partition.to_le_bytes());
            out.extend_from_slice(&lineage.offset.to_le_bytes());
            out.extend_from_slice(&lineage.version.0.to_le_bytes());
        }
        out.extend_from_slice(key.as_bytes());
        Ok(())
    }

    /// Parses a record without copying.
    ///
    /// # Errors
    /// [`RecordError::Malformed`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        Self::split(bytes).ok_or(RecordError::Malformed)
    }

    #[inline]
    fn split(bytes: &'a [u8]) -> Option<Self> {
        let ([flags, 0, low, high], mut rest) = bytes.split_first_chunk::<4>()? else { return None };
        let lineage = match *flags {
            0 => None,
            HAS_LINEAGE => {
                let (head, tail) = rest.split_first_chunk::<LINEAGE_BYTES>()?;
                rest = tail;
                let (subscriber, head) = head.split_first_chunk()?;
                let (partition, head) = head.split_first_chunk()?;
                let (offset, version) = head.split_first_chunk()?;
                Some(Lineage {
                    subscriber: SubscriberId(u32::from_le_bytes(*subscriber)),
                    partition: u32::from_le_bytes(*partition),
                    offset: u64::from_le_bytes(*offset),
                    version: VersionId(u32::from_le_bytes(version.try_into().ok()?)),
                })
            }
            _ => return None,
        };
        let (key, event) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        Some(Self { key: std::str::from_utf8(key).ok()?, lineage, event })
    }

    /// Parses the event.
    ///
    /// # Errors
    /// [`EventError`] if the stored bytes are not an event.
    pub fn view(&self) -> Result<EventView<'a>, EventError> {
        EventView::parse(self.event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_survives_its_encoding(
            key in ".{0,40}",
            lineage in proptest::option::of((any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>())),
            event in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let lineage = lineage.map(|(subscriber, partition, offset, version)| Lineage {
                subscriber: SubscriberId(subscriber), partition, offset, version: VersionId(version),
            });
            let record = Record { key: &key, lineage, event: &event };
            let mut out = Vec::new();
            record.write(&mut out).unwrap();
            prop_assert_eq!(Record::parse(&out).unwrap(), record);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Record::parse(&bytes);
        }
    }

    #[test]
    fn a_key_past_the_limit_is_refused_and_nothing_is_written() {
        let mut out = Vec::new();
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        assert!(Record { key: &key, lineage: None, event: &[] }.write(&mut out).is_err());
        assert!(out.is_empty());
    }
}
