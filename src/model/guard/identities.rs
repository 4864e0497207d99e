//! The identities of a key's events, before the key's state in its entry:
//!
//! ```text
//!   0xfe, u16 count, and per event: u64 of its identity, u64 its offset (2^64 - 1: it has none)
//! ```
//!
//! So they are read, moved and forgotten together with the state, without extra lookups. Half an identity suffices
//! among the few of one key.

use bytes::{Buf, BufMut};

use crate::model::{EventId, Offset};

/// Maximum number of remembered events of a key: they are read and written with its state, 16 bytes each.
pub const KEY_IDENTITIES_MAX: usize = 256;

/// Precedes the identities: no text begins with this byte.
const MARK: u8 = 0xfe;
const HEAD_BYTES: usize = 1 + size_of::<u16>();
/// Bytes of one identity.
pub(in crate::model) const ROW_BYTES: usize = 2 * size_of::<u64>();

/// The identities of a key's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::model) struct Identities<'a>(&'a [[u8; ROW_BYTES]]);

impl<'a> Identities<'a> {
    /// The identities in an entry, and the rest of it.
    pub(in crate::model) fn split(stored: &'a [u8]) -> (Self, &'a [u8]) {
        let split = || {
            let mut rest = stored.strip_prefix(&[MARK])?;
            let count = usize::from(rest.try_get_u16_le().ok()?);
            let (rows, rest) = rest.split_at_checked(count * ROW_BYTES)?;
            Some((Self(rows.as_chunks().0), rest))
        };
        split().unwrap_or((Self::default(), stored))
    }

    /// Whether an event is among them, and its offset, if it has one.
    pub(in crate::model) fn find(self, id: EventId) -> Option<Option<Offset>> {
        let row = self.0.iter().find(|row| row.as_slice().get_u64_le() == half(id))?;
        let offset = row.as_slice().get(size_of::<u64>()..).map_or(Offset::MAX, |mut offset| offset.get_u64_le());
        Some((offset != Offset::MAX).then_some(offset))
    }

    /// Whether one more can be added.
    pub(in crate::model) fn has_room(self) -> bool {
        self.0.len() < KEY_IDENTITIES_MAX
    }

    /// The beginning of an entry with these identities and one more.
    pub(in crate::model) fn with(self, more: Option<(EventId, Option<Offset>)>) -> Vec<u8> {
        let count = self.0.len() + more.iter().len();
        let mut out = Vec::new();
        if count > 0 {
            out.reserve_exact(HEAD_BYTES + (count + 4) * ROW_BYTES);
            out.put_u8(MARK);
            out.put_u16_le(count as u16);
            out.extend_from_slice(self.0.as_flattened());
        }
        if let Some((id, offset)) = more {
            out.put_u64_le(half(id));
            out.put_u64_le(offset.unwrap_or(Offset::MAX));
        }
        out
    }
}

fn half(EventId(identity): EventId) -> u64 {
    (identity >> 64) as u64
}

/// Bytes of the identities in an entry.
pub(crate) fn identities_bytes(stored: &[u8]) -> usize {
    stored.len() - Identities::split(stored).1.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_a_promise() {
        let none = Identities::default().with(None);
        assert!(none.is_empty());
        let one = Identities::default().with(Some((EventId(7 << 64 | 1), Some(0x0203))));
        let two = [Identities::split(&one).0.with(Some((EventId(8 << 64), None))), b"paid".to_vec()].concat();
        let hex: String = two.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "fe0200\
            07000000000000000302000000000000\
            0800000000000000ffffffffffffffff70616964"
                .replace(' ', "")
        );
        let (identities, rest) = Identities::split(&two);
        assert_eq!(rest, b"paid");
        let found = [7, 8, 9].map(|id| identities.find(EventId(id << 64)));
        assert_eq!(found, [Some(Some(0x0203)), Some(None), None]);
        assert_eq!(Identities::split(b"paid"), (Identities::default(), b"paid".as_slice()));
    }
}
