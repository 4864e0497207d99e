use std::cell::RefCell;
use std::collections::HashMap;

use super::*;
use crate::model::{GuardJudge, LaneWrite, TopicId};

#[derive(Default)]
struct TestStates(RefCell<HashMap<(PartitionId, Bytes), Bytes>>);

impl GuardStates for TestStates {
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        Ok(self.0.borrow().get(&(partition, Bytes::copy_from_slice(key))).cloned())
    }
}

const HERE: PartitionId = PartitionId { topic: TopicId(1), partition: 0 };

fn orders() -> Lifecycle {
    let states = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<_>>();
    let allow = [("created", &["paid", "cancelled"][..]), ("paid", &["shipped"]), ("cancelled", &[])];
    let allow = allow.iter().map(|(from, to)| (Arc::from(*from), states(to))).collect();
    let remember = Some(Duration::from_nanos(REMEMBER_NS));
    Lifecycle { start: states(&["created"]), allow, keys_max: 2, remember, remembered_max: 3 }
}

const REMEMBER_NS: u64 = 1_000;

/// Judges some records as one append, and stores the changed entries.
fn judge(kept: &TestStates, records: &[(&str, &str)]) -> Result<(), String> {
    judge_at(kept, &orders(), 0, records)
}

fn judge_at(kept: &TestStates, lifecycle: &Lifecycle, now_ns: u64, records: &[(&str, &str)]) -> Result<(), String> {
    let mut judge = GuardJudge::new(kept, now_ns);
    for (of, (key, state)) in (0..).zip(records) {
        let guard = Guard::new(key, lifecycle.state(state).unwrap(), of);
        let verdict = judge.judge(HERE, lifecycle, &guard, 0);
        assert_eq!(verdict.map_err(|refused| format!("{}: {}", refused.of, refused.why))?, Verdict::Follows);
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

fn counts(kept: &TestStates) -> (u64, u64) {
    let counts = GuardCounts::read(|key| kept.get(HERE, key)).unwrap();
    (counts.living, counts.ended)
}

const REVIVED: &str = "0: the lifecycle of the topic does not allow `created` to follow `cancelled`";

#[test]
fn a_final_state_stays_final_for_as_long_as_it_is_remembered() {
    let kept = TestStates::default();
    judge(&kept, &[("a", "created"), ("a", "cancelled")]).unwrap();
    assert_eq!(counts(&kept), (0, 1));
    let revive = |now_ns| judge_at(&kept, &orders(), now_ns, &[("a", "created")]);
    for now_ns in [0, 1, REMEMBER_NS - 1] {
        assert_eq!(revive(now_ns).unwrap_err(), REVIVED, "a late resend, after {now_ns} ns");
    }
    assert_eq!(judge(&kept, &[("a", "cancelled")]).unwrap_err(), REVIVED.replace("created", "cancelled"));
    revive(REMEMBER_NS).unwrap();
    assert_eq!(counts(&kept).0, 1);
    judge_at(&kept, &orders(), REMEMBER_NS, &[("a", "cancelled")]).unwrap();
    // this is a new end
    assert_eq!(revive(2 * REMEMBER_NS - 1).unwrap_err(), REVIVED);
}

#[test]
fn it_begins_again_at_once_where_it_may() {
    let kept = TestStates::default();
    let restarts = Lifecycle { remember: None, ..orders() };
    let all = [("a", "created"), ("a", "paid"), ("a", "shipped")];
    judge_at(&kept, &restarts, 0, &all).unwrap();
    let left: Vec<_> = kept.0.borrow().values().cloned().collect();
    assert_eq!(left, [&[0; 8][..]], "the count");
    judge_at(&kept, &restarts, 0, &[("a", "created"), ("a", "cancelled"), ("a", "created")]).unwrap();
}

#[test]
fn ends_that_were_remembered_go_once_keys_may_begin_again_at_once() {
    let kept = TestStates::default();
    judge(&kept, &[("a", "created"), ("a", "cancelled"), ("b", "created"), ("b", "cancelled")]).unwrap();
    let restarts = Lifecycle { remember: None, ..orders() };
    judge_at(&kept, &restarts, 0, &[("b", "created")]).unwrap();
    judge_at(&kept, &restarts, 0, &[("a", "created")]).unwrap();
    assert_eq!(counts(&kept), (2, 0));
    // removing the slot must not remove a key that has restarted
    judge_at(&kept, &restarts, 0, &[("a", "paid"), ("b", "paid")]).unwrap();
    assert_eq!(kept.0.borrow().len(), 4, "two states, two counts");
}

#[test]
fn of_too_many_ends_the_oldest_are_forgotten() {
    let kept = TestStates::default();
    let keys = ["a", "b", "c", "d", "e"];
    for (now_ns, key) in (0..).zip(keys) {
        judge_at(&kept, &orders(), now_ns, &[(key, "created"), (key, "cancelled")]).unwrap();
    }
    assert_eq!(counts(&kept), (0, 3));
    for key in ["c", "d", "e"] {
        assert_eq!(judge(&kept, &[(key, "created")]).unwrap_err(), REVIVED);
    }
    judge(&kept, &[("a", "created"), ("b", "created")]).unwrap();
    assert_eq!(kept.0.borrow().len(), 2 + 2 * 3 + 2, "nothing is left of what is forgotten");
    // with a lower maximum, each record forgets more ends than it adds
    let fewer = Lifecycle { remembered_max: 1, keys_max: 9, ..orders() };
    judge_at(&kept, &fewer, 9, &[("f", "created"), ("f", "cancelled")]).unwrap();
    assert_eq!(counts(&kept), (2, 1));
}

#[test]
fn what_is_old_is_forgotten_with_later_records_a_few_at_once() {
    let kept = TestStates::default();
    let many = Lifecycle { remembered_max: 9, keys_max: 9, ..orders() };
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        judge_at(&kept, &many, 0, &[(key, "created"), (key, "cancelled")]).unwrap();
    }
    judge_at(&kept, &many, REMEMBER_NS, &[("f", "created")]).unwrap();
    assert_eq!(counts(&kept), (1, 3));
    judge_at(&kept, &many, REMEMBER_NS, &[("e", "created")]).unwrap(); // its slot still exists
    judge_at(&kept, &many, REMEMBER_NS, &[("g", "created")]).unwrap();
    assert_eq!(counts(&kept), (3, 0));
    judge_at(&kept, &many, REMEMBER_NS, &[("e", "paid")]).unwrap();
}

#[test]
fn a_key_goes_on_where_the_lifecycle_has_more_states_now() {
    let kept = TestStates::default();
    judge(&kept, &[("a", "created"), ("a", "paid"), ("a", "shipped")]).unwrap();
    let mut more = orders();
    more.allow.insert("shipped".into(), ["returned".into()].into());
    judge_at(&kept, &more, 1, &[("a", "returned")]).unwrap();
    assert_eq!(counts(&kept).0, 0);
    assert!(judge_at(&kept, &more, 1, &[("a", "created")]).is_err());
}

#[test]
fn what_was_kept_before_ends_were_remembered_is_read() {
    let kept = TestStates::default();
    kept.0.borrow_mut().insert((HERE, LIVING.into()), Bytes::copy_from_slice(&1u64.to_le_bytes()));
    let key = Guard::new("a", "paid".into(), 0).entry_key();
    kept.0.borrow_mut().insert((HERE, Bytes::copy_from_slice(&key)), "created".into());
    judge(&kept, &[("a", "paid"), ("a", "shipped")]).unwrap();
    assert_eq!(counts(&kept), (0, 1));
}

#[test]
fn an_impossible_order_is_refused_whole() {
    let kept = TestStates::default();
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
    let kept = TestStates::default();
    judge(&kept, &[("a", "created"), ("b", "created")]).unwrap();
    assert!(judge(&kept, &[("c", "created")]).unwrap_err().contains("lifecycle.max"));
    judge(&kept, &[("a", "cancelled"), ("c", "created")]).unwrap();
}

#[test]
fn a_state_that_is_not_known_any_more_has_ended() {
    let kept = TestStates::default();
    judge(&kept, &[("a", "created")]).unwrap();
    // nor is it remembered as ended
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
