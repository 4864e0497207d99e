use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::entries::WRITTEN;
use super::{lock, time_of, write_of, *};
use crate::api::StateEntry;
use crate::dispatch::lane::entries::STATE;
use crate::engine::{Entries, EntryPage, LaneWrite, PageBudget, ReadError};
use crate::model::call::StateWrite;
use crate::topology::StatePlan;

/// Entries of a lane, and the number of entries read.
#[derive(Debug, Clone, Default)]
struct StoredEntries(Arc<Mutex<BTreeMap<Bytes, Bytes>>>, Arc<AtomicU64>);

impl Entries for StoredEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(lock(&self.0).get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, until: &[u8], mut budget: PageBudget) -> Result<EntryPage, ReadError> {
        let mut page = EntryPage::default();
        let kept = lock(&self.0);
        let mut found = kept.range::<[u8], _>((from, Bound::Excluded(until)));
        page.is_last = found.all(|(key, value)| page.take(&mut budget, key, value, || (key.clone(), value.clone())));
        self.1.fetch_add(page.entries.len() as u64, Ordering::Relaxed);
        Ok(page)
    }

    fn frozen(&self) -> Result<Self, ReadError> {
        Ok(self.clone())
    }
}

impl StoredEntries {
    fn commit(&self, writes: Vec<LaneWrite>) {
        let mut kept = lock(&self.0);
        for LaneWrite { key, value } in writes {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
    }

    fn of(&self, kind: u8) -> Vec<(Bytes, Bytes)> {
        let kept = lock(&self.0);
        kept.iter()
            .filter(|(key, _)| key.first() == Some(&kind))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn load(&self, ttl: Option<Duration>) -> HandlerState<Self> {
        HandlerState::load(self.clone(), StatePlan { ttl, max_bytes: u64::MAX }).unwrap()
    }
}

fn write(key: &str, bytes: Option<usize>) -> StateWrite {
    let value = bytes.map(|bytes| vec![b'x'; bytes].into());
    StateWrite { event: 0, bucket: "b".to_owned(), key: key.to_owned(), value }
}

impl HandlerState<StoredEntries> {
    fn commit(&self, mut writes: Vec<LaneWrite>) {
        self.account(&mut writes).unwrap();
        self.entries.commit(writes);
    }

    fn event(&self, time_ns: u64, writes: &[StateWrite]) {
        let (made, refused) = self.entries_of(writes, |_| time_ns).unwrap();
        assert_eq!(refused, None);
        self.commit(made.into_iter().map(|(_, write)| write).collect());
    }

    /// Takes some steps, or all. Whether the end was reached.
    fn goes(&self, time_ns: u64, all: bool, steps: usize) -> bool {
        for _ in 0..steps {
            let Some(step) = self.expire(time_ns, all).unwrap() else { return true };
            self.commit(step.writes);
        }
        false
    }
}

const SECOND: u64 = 1_000_000_000;
const TTL: Duration = Duration::from_secs(100);

#[test]
fn a_step_looks_at_few_entries_and_few_bytes() {
    let kept = StoredEntries::default();
    let state = kept.load(Some(TTL));
    for n in 0..20 {
        state.event(SECOND, &[write(&n.to_string(), Some(1 << 20))]);
    }
    let step = state.expire(200 * SECOND, false).unwrap().unwrap();
    assert_eq!((step.looked_at, step.writes.len()), (1, 1), "each is as large as what a step looks at");
    state.commit(step.writes);
    assert!(state.goes(200 * SECOND, false, 20));
    assert_eq!((kept.of(STATE).len(), kept.of(WRITTEN).len(), state.size()), (0, 0, 0));
    let writes: Vec<_> = (0..5_000).map(|n| write(&n.to_string(), Some(1))).collect();
    state.event(300 * SECOND, &writes);
    let step = state.expire(500 * SECOND, false).unwrap().unwrap();
    assert_eq!(step.looked_at, crate::limits::STATE_SWEEP_ENTRIES);
}

#[test]
fn what_is_written_again_and_again_is_entered_once_a_second() {
    let kept = StoredEntries::default();
    let state = kept.load(Some(TTL));
    let mut entered = std::collections::BTreeSet::new();
    for n in 0..1_000 {
        let mut writes = vec![write_of(&StateEntry {
            bucket: "b".into(),
            key: "k".into(),
            written_ns: n * SECOND / 100,
            value: Bytes::new(),
        })];
        state.account(&mut writes).unwrap();
        entered.extend(writes.iter().map(|write| write.key.clone()).filter(|key| key.first() == Some(&WRITTEN)));
        kept.commit(writes);
    }
    assert_eq!((entered.len(), kept.of(WRITTEN).len()), (10, 1));
}

#[test]
fn what_did_not_happen_is_taken_back() {
    let kept = StoredEntries::default();
    let state = kept.load(Some(TTL));
    let (made, _) = state.entries_of(&[write("a", Some(5))], |_| SECOND).unwrap();
    let mut writes: Vec<_> = made.into_iter().map(|(_, write)| write).collect();
    let accounted = state.account(&mut writes).unwrap();
    state.take_back(accounted);
    assert_eq!(state.size(), 0);
    state.event(SECOND, &[write("b", Some(5))]);
    // the mark was kept: the next owner does not search the state
    assert!(!kept.load(Some(TTL)).is_behind());
}

#[derive(Debug, Clone)]
enum Act {
    /// Time advances, an event writes.
    Event(u64, Vec<(u8, Option<usize>)>),
    /// A waiting event of an earlier time writes.
    Late(u64, u8),
    Steps(usize, bool),
    /// Another owner, with or without a `ttl`.
    Reload(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let write = (0..12u8, prop::option::weighted(0.8, 0..40usize));
    let act = prop_oneof![
        4 => (0..20 * SECOND, prop::collection::vec(write, 0..8)).prop_map(|(by, writes)| Act::Event(by, writes)),
        1 => (0..150 * SECOND, 0..12u8).prop_map(|(by, key)| Act::Late(by, key)),
        2 => (0..4usize, any::<bool>()).prop_map(|(steps, all)| Act::Steps(steps, all)),
        1 => prop::bool::weighted(0.7).prop_map(Act::Reload),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    /// In any sequence: unexpired state is there, expired state is invisible and gets removed, the size is right, and a
    /// complete index has each key once.
    #[test]
    fn the_state_is_what_was_written_and_has_not_expired(acts in acts()) {
        let (kept, mut now_ns, mut has_ttl) = (StoredEntries::default(), 1_000 * SECOND, true);
        let mut state = kept.load(Some(TTL));
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Event(by, writes) => {
                    now_ns += by;
                    let all: BTreeMap<u8, Option<usize>> = writes.into_iter().collect();
                    let writes: Vec<_> = all.iter().map(|(key, bytes)| write(&key.to_string(), *bytes)).collect();
                    state.event(now_ns, &writes);
                    for StateWrite { key, value, .. } in writes {
                        if value.is_some() { model.insert(key, now_ns) } else { model.remove(&key) };
                    }
                }
                Act::Late(by, key) => {
                    state.event(now_ns - by, &[write(&key.to_string(), Some(3))]);
                    model.insert(key.to_string(), now_ns - by);
                }
                Act::Steps(steps, all) => drop(state.goes(now_ns, all, steps)),
                Act::Reload(with_ttl) => {
                    has_ttl = with_ttl;
                    state = kept.load(has_ttl.then_some(TTL));
                }
            }
            let expired = |written_ns: u64| has_ttl && written_ns + 100 * SECOND <= now_ns;
            for (key, written_ns) in &model {
                let found = state.get("b", key, now_ns).unwrap();
                prop_assert_eq!(found.is_some(), !expired(*written_ns));
            }
            if has_ttl {
                model.retain(|_, written_ns| !expired(*written_ns));
            }
            let bytes: usize = kept.of(STATE).iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert_eq!(state.size(), bytes as u64);
        }
        // in the end, exactly the unexpired state remains
        state = kept.load(Some(TTL));
        prop_assert!(state.goes(now_ns, true, 1_000));
        let kept_keys = kept.of(STATE);
        let kept_keys = kept_keys.iter().map(|(key, value)| (key.slice(3..), time_of(value).unwrap()));
        let kept_keys: Vec<_> = kept_keys.collect();
        prop_assert!(kept_keys.iter().all(|(_, written_ns)| written_ns + 100 * SECOND > now_ns));
        model.retain(|_, written_ns| *written_ns + 100 * SECOND > now_ns);
        let expected: Vec<_> = model.iter().map(|(key, written_ns)| (Bytes::from(key.clone()), *written_ns)).collect();
        prop_assert_eq!(kept_keys, expected);
        prop_assert_eq!(kept.of(STATE).len(), kept.of(WRITTEN).len());
        prop_assert!(!state.is_behind());
        // and then all of it expires
        now_ns += 200 * SECOND;
        prop_assert!(state.goes(now_ns, false, 1_000));
        prop_assert_eq!((kept.of(STATE).len(), kept.of(WRITTEN).len(), state.size()), (0, 0, 0));
    }
}

#[test]
fn a_look_for_keys_ends_however_much_it_has_to_pass_over() {
    let kept = StoredEntries::default();
    let state = kept.load(Some(TTL));
    for n in 0..100 {
        let writes: Vec<_> = (0..200).map(|key| write(&format!("{:06}", n * 200 + key), Some(1))).collect();
        state.event(SECOND, &writes);
    }
    let large: Vec<_> = (0..20).map(|key| write(&format!("9{key:05}"), Some(600 << 10))).collect();
    state.event(150 * SECOND, &large);
    let (mut looks, mut after, mut keys) = (0, None, Vec::new());
    loop {
        let before = kept.1.load(Ordering::Relaxed);
        let found = state.keys("b", after.as_deref(), 1_001, 200 * SECOND).unwrap();
        let looked_at = kept.1.load(Ordering::Relaxed) - before;
        assert!(looked_at <= 4 * 1_001 && found.keys.len() <= 4, "{looked_at}, {found:?}");
        looks += 1;
        keys.extend(found.keys);
        after = found.looked_to;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = large.into_iter().map(|write| write.key).collect();
    assert_eq!(keys, expected, "what has not expired, each once");
    assert!((9..=11).contains(&looks), "{looks}");
}
