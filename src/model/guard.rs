//! Guards: which orders of states a key of a topic may go through.
//!
//! The state of a key is that of its last event. A record that is guarded says which state it brings; whether that may
//! follow is decided where the record gets its place, in the order of the places, and never again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3;

use super::identity::{LaneId, PartitionId, SubscriberId};
use super::writes::LaneWrite;

/// The states of a topic's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lifecycle {
    /// With which a key may begin.
    pub start: BTreeSet<Arc<str>>,
    /// Which may follow each state. Where none may, the key's life has ended, and it may begin again.
    pub allow: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Most keys of each partition whose lives have begun and not ended.
    pub keys_max: u64,
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

    fn follows(&self, state: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.allow.get(state).filter(|next| !next.is_empty())
    }

    /// Whether `next` may follow the state of a key; `None` for a key whose life has not begun.
    fn allows(&self, current: Option<&str>, next: &str) -> bool {
        match current.and_then(|current| self.follows(current)) {
            Some(allowed) => allowed.contains(next),
            // it has not begun, or has ended, or is in a state that the lifecycle does not know any more
            None => self.start.contains(next),
        }
    }
}

/// What a record says of the state of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// A hash of the key.
    key: u128,
    /// The state that it brings.
    state: Arc<str>,
    /// What it is for whoever hands it in: the number of its event in a publish or a call.
    of: u32,
}

impl Guard {
    /// Of a record with this key.
    pub fn new(key: &str, state: Arc<str>, of: u32) -> Self {
        Self { key: xxh3::xxh3_128(key.as_bytes()), state, of }
    }

    /// Bytes of the entry that it may bring.
    pub(crate) fn entry_bytes(&self) -> usize {
        size_of::<u128>() + self.state.len()
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
}

/// The entry with the number of keys; a state's has the 16 bytes of its key's hash, big endian.
const COUNT: &[u8] = &[0];

/// Who keeps what a partition of a topic keeps: no subscriber has a number so high.
pub fn keeper_of(partition: PartitionId) -> LaneId {
    LaneId { subscriber: SubscriberId(1 << 31 | partition.topic.0), partition: partition.partition }
}

/// The verdict on some guarded records of partitions, in their order, as one: what their partitions keep from now on.
#[derive(Debug)]
pub struct GuardJudge<'s, S> {
    states: &'s S,
    changed: BTreeMap<PartitionId, BTreeMap<Bytes, Option<Bytes>>>,
}

impl<'s, S: GuardStates> GuardJudge<'s, S> {
    /// Over what is kept so far.
    pub fn new(states: &'s S) -> Self {
        Self { states, changed: BTreeMap::new() }
    }

    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        match self.changed.get(&partition).and_then(|changed| changed.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.states.get(partition, key),
        }
    }

    /// The next record.
    ///
    /// # Errors
    /// [`GuardRefused`]: nothing of what was judged may happen.
    pub fn judge(&mut self, partition: PartitionId, lifecycle: &Lifecycle, guard: &Guard) -> Result<(), GuardRefused> {
        self.decide(partition, lifecycle, guard).map_err(|why| GuardRefused { of: guard.of, why })
    }

    fn decide(&mut self, partition: PartitionId, lifecycle: &Lifecycle, guard: &Guard) -> Result<(), GuardReason> {
        let key = guard.key.to_be_bytes();
        let stored = self.get(partition, &key).map_err(GuardReason::Unreadable)?;
        let current = stored.as_deref().and_then(|state| std::str::from_utf8(state).ok());
        if !lifecycle.allows(current, &guard.state) {
            let from = current.filter(|current| lifecycle.follows(current).is_some()).map(str::to_owned);
            return Err(GuardReason::Order { from, to: guard.state.clone() });
        }
        let goes_on = lifecycle.follows(&guard.state).is_some();
        if stored.is_some() != goes_on {
            let count = self.get(partition, COUNT).map_err(GuardReason::Unreadable)?;
            let count = count.and_then(|count| Some(u64::from_le_bytes(count.as_ref().try_into().ok()?))).unwrap_or(0);
            if goes_on && count >= lifecycle.keys_max {
                return Err(GuardReason::Full { max: lifecycle.keys_max });
            }
            let count = if goes_on { count + 1 } else { count.saturating_sub(1) };
            self.put(partition, COUNT, Some(Bytes::copy_from_slice(&count.to_le_bytes())));
        }
        if stored.is_some() || goes_on {
            let state = goes_on.then(|| Bytes::copy_from_slice(guard.state.as_bytes()));
            self.put(partition, &key, state);
        }
        Ok(())
    }

    fn put(&mut self, partition: PartitionId, key: &[u8], value: Option<Bytes>) {
        self.changed.entry(partition).or_default().insert(Bytes::copy_from_slice(key), value);
    }

    /// What partitions keep, or do not any more, once the records have their places.
    pub fn writes(self) -> Vec<(PartitionId, Vec<LaneWrite>)> {
        let writes = |changed: BTreeMap<Bytes, Option<Bytes>>| {
            changed.into_iter().map(|(key, value)| LaneWrite { key, value }).collect()
        };
        self.changed.into_iter().map(|(partition, changed)| (partition, writes(changed))).collect()
    }
}

/// Bytes of the entries that some records of one partition may bring, beside those of [`Guard::entry_bytes`].
pub(crate) const GUARD_COUNT_BYTES: usize = COUNT.len() + size_of::<u64>();

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::*;
    use crate::model::TopicId;

    #[derive(Default)]
    struct Kept(RefCell<HashMap<(PartitionId, Bytes), Bytes>>);

    impl GuardStates for Kept {
        fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
            Ok(self.0.borrow().get(&(partition, Bytes::copy_from_slice(key))).cloned())
        }
    }

    const HERE: PartitionId = PartitionId { topic: TopicId(1), partition: 0 };

    fn orders() -> Lifecycle {
        let states = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<_>>();
        let allow = [("created", &["paid", "cancelled"][..]), ("paid", &["shipped"]), ("cancelled", &[])];
        let allow = allow.iter().map(|(from, to)| (Arc::from(*from), states(to))).collect();
        Lifecycle { start: states(&["created"]), allow, keys_max: 2 }
    }

    /// Judges some records as one, and keeps what they bring.
    fn judge(kept: &Kept, records: &[(&str, &str)]) -> Result<(), String> {
        let lifecycle = orders();
        let mut judge = GuardJudge::new(kept);
        for (of, (key, state)) in (0..).zip(records) {
            let guard = Guard::new(key, lifecycle.state(state).unwrap(), of);
            judge.judge(HERE, &lifecycle, &guard).map_err(|refused| format!("{}: {}", refused.of, refused.why))?;
        }
        for (partition, writes) in judge.writes() {
            for LaneWrite { key, value } in writes {
                match value {
                    Some(value) => kept.0.borrow_mut().insert((partition, key), value),
                    None => kept.0.borrow_mut().remove(&(partition, key)),
                };
            }
        }
        Ok(())
    }

    #[test]
    fn a_key_goes_through_its_states_and_is_forgotten_at_the_end() {
        let kept = Kept::default();
        assert_eq!(judge(&kept, &[("a", "created"), ("a", "paid")]), Ok(()));
        assert_eq!(judge(&kept, &[("a", "shipped")]), Ok(()));
        let left: Vec<_> = kept.0.borrow().values().cloned().collect();
        assert_eq!(left, [&[0; 8][..]], "the count");
        assert_eq!(judge(&kept, &[("a", "created")]), Ok(()), "it begins again");
    }

    #[test]
    fn an_impossible_order_is_refused_whole() {
        let kept = Kept::default();
        let refused = judge(&kept, &[("b", "created"), ("a", "paid")]).unwrap_err();
        assert_eq!(refused, "1: the lifecycle of the topic does not allow `paid` as the first state of a key");
        assert!(kept.0.borrow().is_empty());
        judge(&kept, &[("a", "created")]).unwrap();
        let refused = judge(&kept, &[("a", "shipped")]).unwrap_err();
        assert_eq!(refused, "0: the lifecycle of the topic does not allow `shipped` to follow `created`");
        assert!(judge(&kept, &[("a", "created")]).is_err(), "it goes on already");
    }

    #[test]
    fn keys_that_go_on_are_bounded() {
        let kept = Kept::default();
        judge(&kept, &[("a", "created"), ("b", "created")]).unwrap();
        assert!(judge(&kept, &[("c", "created")]).unwrap_err().contains("lifecycle.max"));
        judge(&kept, &[("a", "cancelled"), ("c", "created")]).unwrap();
    }

    #[test]
    fn a_state_that_is_not_known_any_more_has_ended() {
        let kept = Kept::default();
        judge(&kept, &[("a", "created")]).unwrap();
        let kept_key: Vec<_> = kept.0.borrow().keys().filter(|(_, key)| key.len() == 16).cloned().collect();
        kept.0.borrow_mut().insert(kept_key[0].clone(), Bytes::from_static(b"old"));
        assert!(judge(&kept, &[("a", "paid")]).is_err());
        judge(&kept, &[("a", "created")]).unwrap();
        judge(&kept, &[("a", "paid")]).unwrap();
    }

    #[test]
    fn states_are_all_that_are_named() {
        let lifecycle = orders();
        assert_eq!(lifecycle.states().into_iter().collect::<Vec<_>>(), ["cancelled", "created", "paid", "shipped"]);
        assert_eq!(lifecycle.state("shipped").as_deref(), Some("shipped"));
        assert_eq!(lifecycle.state("lost"), None);
    }
}
