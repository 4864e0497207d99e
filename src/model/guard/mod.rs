//! Guards: which orders of states a key of a topic may go through.
//!
//! The state of a key is that of its last event. A record that is guarded says which state it brings; whether that may
//! follow is decided where the record gets its place, in the order of the places, and never again.
//!
//! What a partition keeps of its keys, all in the frame that changes it:
//!
//! ```text
//!   key                     value
//!   the key's hash, 16 B    the state of a key whose life goes on; or, of one whose life has ended:
//!                           0xff, u64 number of its slot, u64 time of its end, its last state
//!   00                      u64: keys whose lives go on
//!   01                      u64, u64: the first slot that is kept, the next one that is given
//!   03                      u64: events that are held until their key is in another state
//!   02 u64 number           a slot: u64 time of the end, the key's hash; empty where that key lives again
//! ```
//!
//! Where a topic recognises events for as long as it knows their keys, the identities of a key's events are before its state
//! (`identities.rs`). A key that has not begun, and of which something is held, is kept as one that ended in no state, so that it
//! is forgotten as those are.
//!
//! Slots are given in the order of ends, so the oldest end is always that of the first slot: what has been remembered for
//! long enough, or is one too many, is found with one look. Integers are little endian; those in keys and the hash, big endian.

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

/// The states of a topic's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lifecycle {
    /// With which a key may begin.
    pub start: BTreeSet<Arc<str>>,
    /// Which may follow each state. Where none may, the key's life has ended.
    pub allow: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Most keys of each partition whose lives have begun and not ended.
    pub keys_max: u64,
    /// How long the end of a key's life is remembered, and the key cannot begin again; `None`: it may at once.
    pub remember: Option<Duration>,
    /// Most ends that each partition remembers; the oldest are forgotten first.
    pub remembered_max: u64,
}

impl Lifecycle {
    /// A state by its name; `None` where there is no such state.
    pub fn state(&self, name: &str) -> Option<Arc<str>> {
        let among = |states: &BTreeSet<Arc<str>>| states.get(name).cloned();
        let listed = self.allow.get_key_value(name).map(|(state, _)| state.clone());
        listed.or_else(|| among(&self.start)).or_else(|| self.allow.values().find_map(among))
    }

    /// All states.
    pub fn states(&self) -> BTreeSet<&str> {
        let followed = self.allow.keys().chain(&self.start);
        followed.chain(self.allow.values().flatten()).map(AsRef::as_ref).collect()
    }

    /// Which states may follow one; `None` where none may.
    pub(crate) fn follows(&self, state: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.allow.get(state).filter(|next| !next.is_empty())
    }

    /// Whether an end of that time is not remembered any more.
    pub(super) fn forgets(&self, ended_ns: u64, now_ns: u64) -> bool {
        let remember = |remember: Duration| u64::try_from(remember.as_nanos()).unwrap_or(u64::MAX);
        self.remember.is_none_or(|period| ended_ns.saturating_add(remember(period)) <= now_ns)
    }

    /// The states that may follow what is known of a key; or else the state that none may follow.
    pub(super) fn next_of<'a>(&'a self, known: &Known<'a>, now_ns: u64) -> Result<&'a BTreeSet<Arc<str>>, &'a str> {
        let state = match known {
            Known::Nothing => return Ok(&self.start),
            Known::Living(state) | Known::Ended { state, .. } => state,
        };
        if let Some(next) = self.follows(state) {
            return Ok(next);
        }
        let is_forgotten = match known {
            Known::Ended { ended_ns, .. } => self.forgets(*ended_ns, now_ns),
            _ => self.remember.is_none(),
        };
        // of a state that the lifecycle does not know any more it says nothing
        if is_forgotten || self.state(state).is_none() { Ok(&self.start) } else { Err(state) }
    }
}

/// What a record says of the state of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// A hash of the key.
    pub(super) key: u128,
    /// The state that it brings.
    pub(super) state: Arc<str>,
    /// What it is for whoever hands it in: the number of its event in a publish or a call.
    pub(super) of: u32,
    /// Where it goes where its state may not follow now.
    pub(super) aside: Option<Aside>,
    /// Where others of its partition are held, whether or not it would be.
    pub(super) held: Option<PartitionId>,
    /// By what it is recognised for as long as its key is known.
    pub(super) id: Option<EventId>,
}

/// Where a record goes whose state may not follow now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// The partition that takes it.
    pub to: PartitionId,
    /// Most records that are held for the partition that it was for; `None`: it is not held there, it stays.
    pub held_max: Option<u64>,
}

/// A record that was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    /// The slice that it came in.
    pub slice: u32,
    /// Its number within that.
    pub record: u32,
    /// The partition that took it.
    pub to: PartitionId,
    /// The slice that it is in now, and its number within that.
    pub at: (u32, u32),
}

/// What becomes of a record that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It gets its place.
    Follows,
    /// It goes there instead.
    Aside(PartitionId),
    /// It came before, and got this offset then, where it has one.
    Known(Option<Offset>),
}

impl Guard {
    /// The key of the entry with the state of its key.
    pub(crate) fn entry_key(&self) -> [u8; 16] {
        self.key.to_be_bytes()
    }

    /// Of a record with this key.
    pub fn new(key: &str, state: Arc<str>, of: u32) -> Self {
        Self { key: xxh3::xxh3_128(key.as_bytes()), state, of, aside: None, held: None, id: None }
    }

    /// It is recognised by this when it comes again, for as long as its key is known.
    pub fn recognised_by(self, id: EventId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Where the record goes where its state may not follow now, rather than being refused.
    pub fn or_aside(self, aside: Option<Aside>) -> Self {
        Self { aside, ..self }
    }

    /// Others of its partition are held there, and are recognised when they come again.
    pub fn beside(self, held: PartitionId) -> Self {
        Self { held: Some(held), ..self }
    }

    /// Whether it goes elsewhere where its state may not follow now.
    pub(crate) fn may_go_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Where records may be that were for the same partition, beside that.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let aside = self.aside.map(|aside| aside.to).filter(|to| Some(*to) != self.held);
        self.held.into_iter().chain(aside)
    }

    /// Bytes of the entries that it may bring, and how many.
    pub(crate) fn entries(&self) -> (usize, usize) {
        let (key, slot_key) = (size_of::<u128>(), 1 + size_of::<u64>());
        // what is known of the key already comes on top
        let state = key + ENDED_HEAD_BYTES + self.state.len() + self.id.map_or(0, |_| ROW_BYTES);
        let forgotten = FORGOTTEN_AT_ONCE * (key + slot_key);
        // the state, its slot, and the one of an earlier end
        (state + 2 * slot_key + SLOT_BYTES + forgotten, 3 + 2 * FORGOTTEN_AT_ONCE)
    }
}

/// Why a record is refused. Nothing of what it came with happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRefused {
    /// The number of its event in the publish or the call.
    pub of: u32,
    /// Why.
    pub why: GuardReason,
}

impl GuardRefused {
    /// Whether it is the event that is refused: nothing else would have another verdict.
    pub fn is_for_its_event(&self) -> bool {
        !matches!(self.why, GuardReason::Unreadable(_))
    }
}

/// Why a state may not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardReason {
    /// The order of states is not one that the topic's lifecycle allows.
    #[error(
        "the lifecycle of the topic does not allow `{to}` {}",
        from.as_ref().map_or("as the first state of a key".to_owned(), |from| format!("to follow `{from}`"))
    )]
    Order {
        /// The state of the key; `None` where its life has not begun.
        from: Option<String>,
        /// The state that was to follow.
        to: Arc<str>,
    },
    /// The lives of as many keys as may have begun and not ended.
    #[error(
        "{max} keys of this partition have begun their lifecycle and not ended it, and there may be no more: end some of \
         them, or raise `lifecycle.max`"
    )]
    Full {
        /// How many.
        max: u64,
    },
    /// As many events are held as may.
    #[error(
        "{why}; it would be held until its key is in another state, but {max} events of this partition are held already, and \
         there may be no more"
    )]
    HeldFull {
        /// Why it would be held.
        why: Box<GuardReason>,
        /// How many.
        max: u64,
    },
    /// As many events of its key are recognised as may be.
    #[error(
        "{max} events of its key are recognised already, and there may be no more with `dedupe: {{ per: key }}`: end the lifecycle \
         of the key, or have `dedupe` say a `window`"
    )]
    Recognised {
        /// How many.
        max: usize,
    },
    /// The state of its key cannot be read.
    #[error("the state of its key cannot be read: {0}")]
    Unreadable(Arc<str>),
}

/// What a topic's partition keeps of its keys' states.
pub trait GuardStates {
    /// The value of an entry.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>>;

    /// As [`Self::get`], of what is not needed now: `None` where it is not at hand.
    fn glance(&self, partition: PartitionId, key: &[u8]) -> Option<Option<Bytes>> {
        self.get(partition, key).ok()
    }
}

/// The entry with the number of keys whose lives go on.
pub(super) const LIVING: &[u8] = &[0];
/// The entry with the slots of ends that are remembered.
pub(super) const ENDED: &[u8] = &[1];
/// The entry with the number of events that are held.
pub(super) const HELD: &[u8] = &[3];
/// In the key of a slot, before its number.
const SLOT: u8 = 2;
/// Before the state of a key whose life has ended: nothing that a text can begin with, then its slot and its time.
pub(super) const ENDED_MARK: u8 = 0xff;
const ENDED_HEAD_BYTES: usize = 1 + 2 * size_of::<u64>();
pub(super) const SLOT_BYTES: usize = size_of::<u64>() + size_of::<u128>();
/// Ends that are forgotten with each record at the most: one more than it can bring, so that what is due comes to an end.
pub(super) const FORGOTTEN_AT_ONCE: usize = 2;

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// It has not begun, or is forgotten.
    Nothing,
    Living(&'a str),
    Ended {
        slot: u64,
        ended_ns: u64,
        state: &'a str,
    },
}

impl<'a> Known<'a> {
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

/// The numbers of the slots that are kept.
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

/// How many keys a partition keeps something of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Those whose lives have begun and not ended.
    pub living: u64,
    /// Those whose lives have ended, and that are remembered.
    pub ended: u64,
    /// Events that are held until their key is in another state.
    pub held: u64,
}

impl GuardCounts {
    /// Out of what a partition keeps.
    ///
    /// # Errors
    /// What `get` returns.
    pub fn read<E>(mut get: impl FnMut(&[u8]) -> Result<Option<Bytes>, E>) -> Result<Self, E> {
        let (living, ended, held) = (get(LIVING)?, get(ENDED)?, get(HELD)?);
        Ok(Self {
            living: number_of(living.as_deref()),
            ended: Slots::parse(ended.as_deref()).count(),
            held: number_of(held.as_deref()),
        })
    }

    /// How many of the ends that are remembered came at a time or before, and slightly more where their keys live again.
    ///
    /// # Errors
    /// What `get` returns.
    pub fn ended_until<E>(mut get: impl FnMut(&[u8]) -> Result<Option<Bytes>, E>, time_ns: u64) -> Result<u64, E> {
        let Slots { first, next } = Slots::parse(get(ENDED)?.as_deref());
        let (mut from, mut until) = (first, next);
        while from < until {
            let middle = from + (until - from) / 2;
            let slot = get(&slot_key(middle))?;
            // an empty one says nothing, and counts as old
            let ended_ns = slot.and_then(|mut slot| slot.try_get_u64_le().ok());
            if ended_ns.is_none_or(|ended_ns| ended_ns <= time_ns) { from = middle + 1 } else { until = middle }
        }
        Ok(from - first)
    }
}

/// Who keeps what a partition of a topic keeps: no subscriber has a number so high.
pub fn keeper_of(partition: PartitionId) -> LaneId {
    LaneId { subscriber: SubscriberId(1 << 31 | partition.topic.0), partition: partition.partition }
}

/// What is recognised of a key: nothing once its end is forgotten.
pub(super) fn identities_of<'a>(stored: Option<&'a [u8]>, lifecycle: &Lifecycle, now_ns: u64) -> Identities<'a> {
    match Known::parse(stored) {
        Known::Ended { ended_ns, .. } if lifecycle.forgets(ended_ns, now_ns) => Identities::default(),
        _ => stored.map(Identities::split).unwrap_or_default().0,
    }
}

/// The hash of a key under which a partition keeps its state.
pub(crate) fn key_hash(key: &str) -> [u8; 16] {
    xxh3::xxh3_128(key.as_bytes()).to_be_bytes()
}

/// The states that may follow now for a key of which a partition keeps this; `None` where none may.
pub(crate) fn may_follow<'a>(
    lifecycle: &'a Lifecycle,
    stored: Option<&'a [u8]>,
    now_ns: u64,
) -> Option<&'a BTreeSet<Arc<str>>> {
    lifecycle.next_of(&Known::parse(stored), now_ns).ok()
}

/// Why a state may not follow now that of a key of which a partition keeps this.
pub(crate) fn why_not(
    lifecycle: &Lifecycle,
    stored: Option<&[u8]>,
    state: &Arc<str>,
    now_ns: u64,
) -> Option<GuardReason> {
    check_order(lifecycle, &Known::parse(stored), state, now_ns).err()
}

/// That a state may follow what is known of its key.
pub(super) fn check_order(
    lifecycle: &Lifecycle,
    known: &Known<'_>,
    to: &Arc<str>,
    now_ns: u64,
) -> Result<(), GuardReason> {
    let next = lifecycle.next_of(known, now_ns);
    if next.is_ok_and(|next| next.contains(to)) {
        return Ok(());
    }
    let from = match (next, known) {
        (Err(state), _) => Some(state),
        (Ok(_), Known::Living(state) | Known::Ended { state, .. }) => {
            Some(*state).filter(|state| lifecycle.follows(state).is_some())
        }
        (Ok(_), Known::Nothing) => None,
    };
    Err(GuardReason::Order { from: from.map(str::to_owned), to: to.clone() })
}

/// What is looked at for some guarded records of a partition beside the states of their keys.
pub(crate) const GUARD_ENTRIES: [&[u8]; 3] = [LIVING, HELD, ENDED];

/// Bytes of the values of [`GUARD_ENTRIES`] with their keys.
pub(crate) const GUARD_ENTRIES_BYTES: usize = 3 + 4 * size_of::<u64>();

/// The keys of the slots that are kept, oldest first, out of the entry that [`GUARD_ENTRIES`] ends with.
pub(crate) fn slots_of(ended: Option<&[u8]>) -> impl Iterator<Item = [u8; 9]> + Clone {
    let Slots { first, next } = Slots::parse(ended);
    (first..next).map(slot_key)
}

#[cfg(test)]
mod tests;
