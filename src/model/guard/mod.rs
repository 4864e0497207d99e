//! Guards: enforce the order of states of each key in a topic.
//!
//! The state of a key is that of its last event. A guarded record states its new state; whether that may follow is
//! decided once, when the record gets its offset, in the order of offsets.
//!
//! The entries of a partition for its keys, written in the frame that changes them:
//!
//! ```text
//!   key                     value
//!   the key's hash, 16 B    the state of a living key; or, of a key whose life has ended:
//!                           0xff, u64 number of its slot, u64 time of its end, its last state
//!   00                      u64: number of living keys
//!   01                      u64, u64: the first slot in use, the next slot to assign
//!   03                      u64: events that are held until their key is in another state
//!   02 u64 number           a slot: u64 time of the end, the key's hash; empty after that key has restarted
//! ```
//!
//! If a topic deduplicates per key, the identities of a key's events precede its state (`identities.rs`). A key that
//! has not started, but has held events, is stored like one that ended in an empty state, so that it is forgotten like
//! those.
//!
//! Slots are assigned in the order of ends, so the first slot is the oldest end: the next one to forget is found with
//! one lookup. Integers are little endian; those in keys and the hash, big endian.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3;

use super::identity::{EventId, LaneId, Offset, PartitionId, SubscriberId};

mod identities;

pub use identities::KEY_IDENTITIES_MAX;
pub(crate) use identities::identities_bytes;
pub(super) use identities::{Identities, ROW_BYTES};

/// The states of a topic's keys, and their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// The first states of a key.
    pub start: BTreeSet<Arc<str>>,
    /// The states that may follow each state. After a state without any, the key's life has ended.
    pub allow: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Maximum number of living keys per partition.
    pub keys_max: u64,
    /// How long an ended key is remembered and cannot start again; `None`: it can at once.
    pub remember: Option<Duration>,
    /// Maximum number of ended keys that a partition remembers; the oldest are forgotten first.
    pub remembered_max: u64,
}

impl Lifecycle {
    /// A state by name; `None` if it does not exist.
    pub fn state(&self, name: &str) -> Option<Arc<str>> {
        let among = |states: &BTreeSet<Arc<str>>| states.get(name).cloned();
        let listed = self.allow.get_key_value(name).map(|(state, _)| state.clone());
        listed.or_else(|| among(&self.start)).or_else(|| self.allow.values().find_map(among))
    }

    /// Every state that the rule names, from or to.
    pub fn states(&self) -> BTreeSet<&str> {
        let followed = self.allow.keys().chain(&self.start);
        followed.chain(self.allow.values().flatten()).map(AsRef::as_ref).collect()
    }

    /// The states that may follow a state; `None` if it is final.
    pub(crate) fn follows(&self, state: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.allow.get(state).filter(|next| !next.is_empty())
    }

    /// Whether an end at that time is no longer remembered.
    pub(super) fn forgets(&self, ended_ns: u64, now_ns: u64) -> bool {
        let remember = |remember: Duration| u64::try_from(remember.as_nanos()).unwrap_or(u64::MAX);
        self.remember.is_none_or(|period| ended_ns.saturating_add(remember(period)) <= now_ns)
    }

    /// The states that may follow the state of a key; the error is its final state.
    pub(super) fn next_of<'a>(&'a self, known: &KeyState<'a>, now_ns: u64) -> Result<&'a BTreeSet<Arc<str>>, &'a str> {
        let state = match known {
            KeyState::Nothing => return Ok(&self.start),
            KeyState::Living(state) | KeyState::Ended { state, .. } => state,
        };
        if let Some(next) = self.follows(state) {
            return Ok(next);
        }
        let is_forgotten = match known {
            KeyState::Ended { ended_ns, .. } => self.forgets(*ended_ns, now_ns),
            _ => self.remember.is_none(),
        };
        // a state that was removed from the lifecycle restricts nothing
        if is_forgotten || self.state(state).is_none() { Ok(&self.start) } else { Err(state) }
    }
}

/// The state that a record brings for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// A hash of the key.
    pub(super) key: u128,
    /// The new state.
    pub(super) state: Arc<str>,
    /// The number of its event in the publish or the call, for error reports.
    pub(super) of: u32,
    /// Where to set it aside if its state may not follow now.
    pub(super) aside: Option<Diversion>,
    /// The partition with held events of the same partition, whether or not this one could be held.
    pub(super) held: Option<PartitionId>,
    /// Its identity, recognised as long as its key is known.
    pub(super) id: Option<EventId>,
}

/// Where to set aside a record whose state may not follow now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diversion {
    /// The partition that receives it.
    pub to: PartitionId,
    /// Maximum number of held events of the original partition; `None`: it is not held but diverted for good.
    pub held_max: Option<u64>,
}

/// A record that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DivertedRecord {
    /// The slice that contained it.
    pub slice: u32,
    /// Its index in the slice.
    pub record: u32,
    /// The partition that received it.
    pub to: PartitionId,
    /// Its new slice, and its index there.
    pub at: (u32, u32),
}

/// The outcome for a record that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It gets its offset.
    Follows,
    /// It is set aside in this partition.
    Aside(PartitionId),
    /// It is a duplicate of the event at this offset, if it has one.
    Known(Option<Offset>),
}

impl Guard {
    /// The key of the entry with the state of its key.
    pub(crate) fn entry_key(&self) -> [u8; 16] {
        self.key.to_be_bytes()
    }

    /// A guard for a record with this key.
    pub fn new(key: &str, state: Arc<str>, of: u32) -> Self {
        Self { key: xxh3::xxh3_128(key.as_bytes()), state, of, aside: None, held: None, id: None }
    }

    /// Adds an identity, recognised as long as the key is known.
    pub fn recognised_by(self, id: EventId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Sets where the record goes if its state may not follow now, instead of being refused.
    pub fn or_aside(self, aside: Option<Diversion>) -> Self {
        Self { aside, ..self }
    }

    /// Sets the partition with held events of the same partition; they count as duplicates.
    pub fn with_held_in(self, held: PartitionId) -> Self {
        Self { held: Some(held), ..self }
    }

    /// Whether the record may be set aside.
    pub(crate) fn may_go_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Other partitions that may contain records of the same partition.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let aside = self.aside.map(|aside| aside.to).filter(|to| Some(*to) != self.held);
        self.held.into_iter().chain(aside)
    }

    /// Upper bound of the bytes and the number of entries that it may write.
    pub(crate) fn entries(&self) -> (usize, usize) {
        let (key, slot_key) = (size_of::<u128>(), 1 + size_of::<u64>());
        // without the existing identities of the key
        let state = key + ENDED_HEAD_BYTES + self.state.len() + self.id.map_or(0, |_| ROW_BYTES);
        let forgotten = FORGOTTEN_AT_ONCE * (key + slot_key);
        // the state, its slot, and the slot of an earlier end
        (state + 2 * slot_key + SLOT_BYTES + forgotten, 3 + 2 * FORGOTTEN_AT_ONCE)
    }
}

/// Why a record is refused. The whole append or unit had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRefusal {
    /// The number of its event in the publish or the call.
    pub of: u32,
    pub why: GuardReason,
}

impl GuardRefusal {
    /// Whether the event itself is refused: a repetition would have the same verdict.
    pub fn is_for_its_event(&self) -> bool {
        !matches!(self.why, GuardReason::Unreadable(_))
    }
}

/// Why a state may not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardReason {
    /// The lifecycle of the topic does not allow this order of states.
    #[error(
        "the lifecycle of the topic does not allow `{to}` {}",
        from.as_ref().map_or("as the first state of a key".to_owned(), |from| format!("to follow `{from}`"))
    )]
    Order {
        /// The state of the key; `None` if it has not started.
        from: Option<String>,
        /// The new state.
        to: Arc<str>,
    },
    /// The maximum number of living keys is reached.
    #[error(
        "{max} keys of this partition have started their lifecycle and not ended it, which is the maximum: end some \
         of them, or raise `lifecycle.max`"
    )]
    Full { max: u64 },
    /// The maximum number of held events is reached.
    #[error(
        "{why}; it would be held until its key is in another state, but {max} events of this partition are held \
         already, which is the maximum"
    )]
    HeldFull {
        /// Why the event would be held.
        why: Box<GuardReason>,
        max: u64,
    },
    /// The maximum number of identities of the key is reached.
    #[error(
        "{max} events of its key are recognised already, which is the maximum with `dedupe: {{ per: key }}`: end the \
         lifecycle of the key, or set a `window` in `dedupe`"
    )]
    Recognised { max: usize },
    /// The state of its key cannot be read.
    #[error("the state of its key cannot be read: {0}")]
    Unreadable(Arc<str>),
}

/// Reads the entries of a partition with the states of its keys.
pub trait GuardStates {
    /// The value of an entry.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>>;

    /// As [`Self::get`], but only if it is cheap; `None` if it is not.
    fn glance(&self, partition: PartitionId, key: &[u8]) -> Option<Option<Bytes>> {
        self.get(partition, key).ok()
    }
}

/// The key of the number of living keys.
pub(super) const LIVING: &[u8] = &[0];
/// The key of the range of slots in use.
pub(super) const ENDED: &[u8] = &[1];
/// The key of the number of held events.
pub(super) const HELD: &[u8] = &[3];
/// Prefix of the key of a slot.
const SLOT: u8 = 2;
/// Precedes the slot, time and state of an ended key: no text begins with this byte.
pub(super) const ENDED_MARK: u8 = 0xff;
const ENDED_HEAD_BYTES: usize = 1 + 2 * size_of::<u64>();
pub(super) const SLOT_BYTES: usize = size_of::<u64>() + size_of::<u128>();
/// Maximum number of ends forgotten with each record: one more than it can add, so that the backlog shrinks.
pub(super) const FORGOTTEN_AT_ONCE: usize = 2;

/// The stored state of a key.
#[derive(Debug)]
pub(super) enum KeyState<'a> {
    /// It has not started, or is forgotten.
    Nothing,
    Living(&'a str),
    Ended {
        slot: u64,
        ended_ns: u64,
        state: &'a str,
    },
}

impl<'a> KeyState<'a> {
    pub(super) fn parse(stored: Option<&'a [u8]>) -> Self {
        let Some((_, stored)) = stored.map(Identities::split) else { return Self::Nothing };
        let ended = || {
            let mut head = stored.strip_prefix(&[ENDED_MARK])?;
            let (slot, ended_ns) = (head.try_get_u64_le().ok()?, head.try_get_u64_le().ok()?);
            Some(Self::Ended { slot, ended_ns, state: std::str::from_utf8(head).ok()? })
        };
        let living = || std::str::from_utf8(stored).ok().map(Self::Living);
        ended().or_else(living).unwrap_or(Self::Nothing)
    }
}

/// The range of slots in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) first: u64,
    pub(super) next: u64,
}

impl Slots {
    pub(super) fn parse(stored: Option<&[u8]>) -> Self {
        let parse = |mut stored: &[u8]| {
            Some(Self { first: stored.try_get_u64_le().ok()?, next: stored.try_get_u64_le().ok()? })
        };
        stored.and_then(parse).unwrap_or_default()
    }

    pub(super) fn count(self) -> u64 {
        self.next.saturating_sub(self.first)
    }
}

pub(super) fn slot_key(number: u64) -> [u8; 9] {
    let mut key = [SLOT; 9];
    let [_, rest @ ..] = &mut key;
    *rest = number.to_be_bytes();
    key
}

pub(super) fn number_of(stored: Option<&[u8]>) -> u64 {
    stored.and_then(|mut stored| stored.try_get_u64_le().ok()).unwrap_or(0)
}

/// Numbers of keys and held events in a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Keys that have started and not ended.
    pub living: u64,
    /// Keys that have ended and are remembered.
    pub ended: u64,
    /// Events that are held until their key is in another state.
    pub held: u64,
}

impl GuardCounts {
    /// Reads the counts from the entries of a partition.
    ///
    /// # Errors
    /// The error of `get`.
    pub fn read<E>(mut get: impl FnMut(&[u8]) -> Result<Option<Bytes>, E>) -> Result<Self, E> {
        let (living, ended, held) = (get(LIVING)?, get(ENDED)?, get(HELD)?);
        Ok(Self {
            living: number_of(living.as_deref()),
            ended: Slots::parse(ended.as_deref()).count(),
            held: number_of(held.as_deref()),
        })
    }

    /// The number of remembered ends at or before a time; restarted keys can make it slightly too high.
    ///
    /// # Errors
    /// The error of `get`.
    pub fn ended_until<E>(mut get: impl FnMut(&[u8]) -> Result<Option<Bytes>, E>, time_ns: u64) -> Result<u64, E> {
        let Slots { first, next } = Slots::parse(get(ENDED)?.as_deref());
        let (mut from, mut until) = (first, next);
        while from < until {
            let middle = from + (until - from) / 2;
            let slot = get(&slot_key(middle))?;
            // an empty slot has no time, and counts as old
            let ended_ns = slot.and_then(|mut slot| slot.try_get_u64_le().ok());
            if ended_ns.is_none_or(|ended_ns| ended_ns <= time_ns) { from = middle + 1 } else { until = middle }
        }
        Ok(from - first)
    }
}

/// The pseudo-lane that owns the entries of a topic's partition: no subscriber has such a high number.
pub fn keeper_of(partition: PartitionId) -> LaneId {
    LaneId { subscriber: SubscriberId(1 << 31 | partition.topic.0), partition: partition.partition }
}

/// The identities of a key's events: none after its end is forgotten.
pub(super) fn identities_of<'a>(stored: Option<&'a [u8]>, lifecycle: &Lifecycle, now_ns: u64) -> Identities<'a> {
    match KeyState::parse(stored) {
        KeyState::Ended { ended_ns, .. } if lifecycle.forgets(ended_ns, now_ns) => Identities::default(),
        _ => stored.map(Identities::split).unwrap_or_default().0,
    }
}

/// The hash of a key, under which a partition stores its state.
pub(crate) fn key_hash(key: &str) -> [u8; 16] {
    xxh3::xxh3_128(key.as_bytes()).to_be_bytes()
}

/// The states that may follow the stored state of a key now; `None` if none may.
pub(crate) fn may_follow<'a>(
    lifecycle: &'a Lifecycle,
    stored: Option<&'a [u8]>,
    now_ns: u64,
) -> Option<&'a BTreeSet<Arc<str>>> {
    lifecycle.next_of(&KeyState::parse(stored), now_ns).ok()
}

/// Why a state may not follow the stored state of a key now.
pub(crate) fn why_not(
    lifecycle: &Lifecycle,
    stored: Option<&[u8]>,
    state: &Arc<str>,
    now_ns: u64,
) -> Option<GuardReason> {
    check_order(lifecycle, &KeyState::parse(stored), state, now_ns).err()
}

/// Checks that a state may follow the state of its key.
pub(super) fn check_order(
    lifecycle: &Lifecycle,
    known: &KeyState<'_>,
    to: &Arc<str>,
    now_ns: u64,
) -> Result<(), GuardReason> {
    let next = lifecycle.next_of(known, now_ns);
    if next.is_ok_and(|next| next.contains(to)) {
        return Ok(());
    }
    let from = match (next, known) {
        (Err(state), _) => Some(state),
        (Ok(_), KeyState::Living(state) | KeyState::Ended { state, .. }) => {
            Some(*state).filter(|state| lifecycle.follows(state).is_some())
        }
        (Ok(_), KeyState::Nothing) => None,
    };
    Err(GuardReason::Order { from: from.map(str::to_owned), to: to.clone() })
}

/// The entries that guards of a partition read in addition to the states of keys.
pub(crate) const GUARD_ENTRIES: [&[u8]; 3] = [LIVING, HELD, ENDED];

/// Bytes of the values of [`GUARD_ENTRIES`] with their keys.
pub(crate) const GUARD_ENTRIES_BYTES: usize = 3 + 4 * size_of::<u64>();

/// The keys of the slots in use, oldest first, given the last of [`GUARD_ENTRIES`].
pub(crate) fn slots_of(ended: Option<&[u8]>) -> impl Iterator<Item = [u8; 9]> + Clone {
    let Slots { first, next } = Slots::parse(ended);
    (first..next).map(slot_key)
}

#[cfg(test)]
mod tests;
