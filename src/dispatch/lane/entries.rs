//! The key space of lane entries, by first byte.
//!
//! ```text
//!   01 bucket 00 key      state of the handler         see `state`
//!   02 number             a waiting event              see `waiting`
//!   03 number             its record
//!   04 name               flags and counters of a lane see `lane`
//!   05 topic position     a dead letter that is done   see `done`
//!   06 time offset since  a delayed event              see `delay`; in lanes of their own
//!   07 ...                claims                       see `claims`; in own lanes, formerly in those of members
//!   08 time bucket 00 key when state was written       see `state::expiry`
//!   20 hash offset        a held event                 see `held`; in lanes of their own
//!   21 ...                written by earlier releases  deleted by `held`
//! ```

use bytes::{BufMut, Bytes};

pub(crate) const STATE: u8 = 1;
pub(super) const WAITING: u8 = 2;
pub(crate) const RECORD: u8 = 3;
pub(super) const TOLD: u8 = 4;
pub(super) const DONE: u8 = 5;
pub(crate) const DELAYED: u8 = 6;
pub(super) const CLAIM: u8 = 7;
pub(super) const WRITTEN: u8 = 8;
pub(crate) const HELD: u8 = 20;
pub(super) const HELD_UNTIL: u8 = 21;

/// A key of a kind with a number.
pub(crate) fn numbered(kind: u8, number: u64) -> Bytes {
    let mut key = Vec::with_capacity(9);
    key.put_u8(kind);
    key.put_u64(number);
    key.into()
}

/// The number in such a key.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

/// The end of a kind's keys.
pub(crate) fn end_of(kind: u8) -> [u8; 1] {
    [kind + 1]
}
