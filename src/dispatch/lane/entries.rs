//! What lanes keep, by the first byte of its key: who shares a lane's entries, and how each finds its own.
//!
//! ```text
//!   01 bucket 00 key      state of the handler         see `state`
//!   02 number             an event that waits          see `waiting`
//!   03 number             its record
//!   04 name               what the lane is told to be  see `lane`
//!   05 topic position     a dead letter that is done   see `lane`
//!   06 time offset since  an event that is to come     see `delay`; in lanes of their own
//!   07 ...                whose events are whose       see `claims`; in lanes of their own, and once in those of members
//!   08 time bucket 00 key when state was written       see `state::expiry`
//!   20 hash offset        an event that is held        see `held`; in lanes of their own
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

/// Where a kind's keys end.
pub(crate) fn end_of(kind: u8) -> [u8; 1] {
    [kind + 1]
}
