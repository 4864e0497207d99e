use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{GIVEN_BACK, RUN, *};
use crate::dispatch::lane::claims::identities::Window;
use crate::dispatch::lane::entries::CLAIM;
use crate::engine::{Entries, EntryPage, LaneWrite, PageBudget, ReadError};
use crate::model::{Offset, SubscriberId};

const NONE: [Offset; 0] = [];
const WHOLE: PageBudget = PageBudget { entries: usize::MAX, bytes: usize::MAX };

/// Entries of a lane.
#[derive(Clone, Default)]
struct StoredEntries(Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

impl StoredEntries {
    fn apply(&self, writes: Vec<LaneWrite>) {
        let mut kept = self.0.lock().unwrap();
        for LaneWrite { key, value } in writes {
            match value {
                Some(value) => drop(kept.insert(key, value)),
                None => drop(kept.remove(&key)),
            }
        }
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Entries for StoredEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, until: &[u8], mut budget: PageBudget) -> Result<EntryPage, ReadError> {
        let (mut page, kept) = (EntryPage::default(), self.0.lock().unwrap());
        let mut range = kept.range::<[u8], _>((from, Bound::Excluded(until)));
        page.is_last = range.all(|(key, value)| page.take(&mut budget, key, value, || (key.clone(), value.clone())));
        Ok(page)
    }

    fn frozen(&self) -> Result<Self, ReadError> {
        Ok(self.clone())
    }
}

/// A keeper whose units are all committed.
struct Keeper {
    book: ClaimBook,
    entries: StoredEntries,
}

impl Keeper {
    /// With members at these positions.
    fn open(entries: &StoredEntries, positions: &[Offset]) -> Self {
        let mut book = ClaimBook::load(entries).unwrap();
        for (number, position) in (1..).map(SubscriberId).zip(positions) {
            book.join(entries, number, *position).unwrap();
        }
        Self { book, entries: entries.clone() }
    }

    fn new(positions: &[Offset]) -> Self {
        Self::open(&StoredEntries::default(), positions)
    }

    /// Returns the offsets that the member does not get.
    fn claim(&mut self, member: usize, position: Offset, wanted: impl IntoIterator<Item = Offset>) -> Vec<Offset> {
        self.entries.apply(self.book.begin());
        self.claim_of(member, position, wanted.into_iter().map(ClaimRequest::from).collect(), None)
    }

    fn claim_of(
        &mut self,
        member: usize,
        position: Offset,
        wanted: Vec<ClaimRequest>,
        window: Option<Window>,
    ) -> Vec<Offset> {
        let (claimed, writes) = self.book.claim(&self.entries, member, position, &wanted, window).unwrap();
        assert_eq!(claimed.is_new || claimed.repeated > 0, !writes.is_empty());
        self.entries.apply(writes);
        let runs = self.entries.range(Bound::Included(&[CLAIM, RUN]), &[CLAIM, RUN + 1], WHOLE).unwrap();
        assert_eq!(self.book.runs, runs.entries.len() as u64);
        let mut lost: Vec<_> = claimed.lost.into_iter().collect();
        lost.sort_unstable();
        lost
    }

    fn again(self, positions: &[Offset]) -> Self {
        Self::open(&self.entries, positions)
    }
}

#[test]
fn who_comes_first_gets_it_also_after_a_restart() {
    let mut keeper = Keeper::new(&[0, 0]);
    assert_eq!(keeper.claim(0, 0, [0, 1, 4]), NONE);
    assert_eq!(keeper.claim(1, 0, 0..6), [0, 1, 4]);
    assert_eq!(keeper.claim(0, 0, [0, 1, 4]), NONE, "they are its own already");
    let mut keeper = keeper.again(&[0, 0]);
    assert_eq!(keeper.claim(1, 0, 0..6), [0, 1, 4]);
    assert_eq!(keeper.claim(0, 0, 0..6), [2, 3, 5]);
}

#[test]
fn what_one_passes_over_is_anothers_to_take() {
    let mut keeper = Keeper::new(&[0, 0]);
    assert_eq!(keeper.claim(0, 0, (0..100).filter(|at| at % 3 == 0)), NONE);
    let mut keeper = keeper.again(&[100, 0]);
    let thirds: Vec<_> = (0..50).filter(|at| at % 3 == 0).collect();
    assert_eq!(keeper.claim(1, 0, 0..50), thirds);
    assert_eq!(keeper.claim(1, 50, [50, 51, 53, 98, 99, 100]), [51, 99]);
    assert_eq!(keeper.claim(0, 100, [100, 101, 102]), [100]);
}

#[test]
fn a_paused_member_costs_nothing_however_many_events_the_others_take() {
    let entries = |batches: u64| {
        let mut keeper = Keeper::new(&[0, 0, 0]);
        for batch in 0..batches {
            let from = batch * 256;
            assert_eq!(keeper.claim((batch % 2) as usize, from, from..from + 256), NONE);
        }
        let (positions, end) = ([(batches - 2) * 256, (batches - 1) * 256, 0], batches * 256);
        let own: usize = keeper.book.members.iter().map(|member| member.own.len()).sum();
        let kept = keeper.entries.len();
        let mut keeper = keeper.again(&positions);
        assert_eq!(keeper.claim(2, 0, 0..end).len(), end as usize, "they are somebody's, also after a restart");
        assert_eq!(keeper.claim(0, positions[0], [end]), NONE);
        assert_eq!(keeper.claim(2, end, [end, end + 1]), [end]);
        (kept, own)
    };
    assert_eq!(entries(8), entries(800), "a hundred times the events");
    assert!(entries(8).0 <= 4);
}

#[test]
fn what_all_have_passed_is_forgotten_and_still_nobodys_to_take() {
    let mut keeper = Keeper::new(&[0, 0]);
    for batch in 0..500 {
        let from = batch * 4;
        // two of four that neither takes
        keeper.claim(0, from, [from]);
        keeper.claim(1, from, [from + 2]);
        assert!(keeper.entries.len() < 12, "{}", keeper.entries.len());
    }
    let mut keeper = keeper.again(&[2_000, 2_000, 0]);
    keeper.claim(0, 2_000, [2_000]);
    assert_eq!(keeper.claim(2, 0, 0..1_990).len(), 1_990, "a newcomer finds none");
    assert_eq!(keeper.claim(2, 2_000, 2_000..2_003), [2_000]);
}

#[test]
fn in_any_order_of_claims_restarts_and_returns_each_event_is_done_by_one_member() {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    // each takes two thirds, and not the same
    let wants = |member: usize| move |offset: &Offset| !(offset * 7 + member as u64).is_multiple_of(3);
    let mut went_back = 0;
    for _ in 0..300 {
        let mut positions = [0; 3];
        let mut keeper = Keeper::new(&positions);
        let (mut owners, mut done) = (BTreeMap::<Offset, usize>::new(), BTreeMap::<Offset, usize>::new());
        for _ in 0..80 {
            let member = next(3) as usize;
            if next(10) == 0 {
                keeper = keeper.again(&positions);
            }
            if next(6) == 0 {
                let given = keeper.book.give_back(member, positions[member]);
                keeper.entries.apply(given);
                owners.retain(|offset, owner| *owner != member || *offset < positions[member]);
            }
            if next(3) == 0
                && let Some(((from, _), writes)) = keeper.book.go_back(member, positions[member])
            {
                keeper.entries.apply(writes);
                positions[member] = from;
                went_back += 1;
            }
            let from = positions[member];
            let wanted: Vec<_> = (from..from + 1 + next(8)).filter(wants(member)).collect();
            let lost = keeper.claim(member, from, wanted.clone());
            // sometimes it stops in the middle of a batch, and reads the rest again
            positions[member] = wanted.last().map_or(from, |last| last + 1 - next(2).min(last + 1 - from));
            for offset in wanted {
                let owner = *owners.entry(offset).or_insert(member);
                let is_lost = owner != member || done.contains_key(&offset);
                assert_eq!(lost.contains(&offset), is_lost, "{offset} of {owner}, wanted by {member}: {done:?}");
                if !is_lost && offset < positions[member] {
                    assert_eq!(done.insert(offset, member), None);
                }
            }
        }
        // one stops for good; the others read to the end, and go back for the returned events: then every event is done
        let (stands, end) = (next(3) as usize, positions.iter().max().unwrap() + 8);
        let given = keeper.book.give_back(stands, positions[stands]);
        keeper.entries.apply(given);
        for member in [0, 1, 2, 0, 1, 2].into_iter().filter(|member| *member != stands) {
            // its first claim has no part in the returned events
            let from = positions[member];
            let wanted: Vec<_> = (from..end).filter(wants(member)).collect();
            let lost = keeper.claim(member, from, wanted.clone());
            done.extend(wanted.into_iter().filter(|offset| !lost.contains(offset)).map(|offset| (offset, member)));
            positions[member] = end;
            keeper = keeper.again(&positions);
            if let Some(((from, _), writes)) = keeper.book.go_back(member, end) {
                keeper.entries.apply(writes);
                positions[member] = from;
            }
        }
        let left: Vec<_> = (0..end).filter(|offset| !done.contains_key(offset)).collect();
        assert!(left.is_empty(), "{left:?} of {end} are nobody's");
    }
    assert!(went_back > 100, "{went_back}");
}

#[test]
fn what_is_given_back_is_for_who_goes_back_and_looked_at_no_more_once_all_are_past_it() {
    let mut keeper = Keeper::new(&[0, 0]);
    assert_eq!(keeper.claim(0, 0, 0..4), NONE);
    assert_eq!(keeper.claim(1, 0, 0..8), [0, 1, 2, 3]);
    // it has done one of its four
    let given = keeper.book.give_back(0, 1);
    keeper.entries.apply(given);
    assert!(keeper.book.give_back(0, 1).is_empty(), "once");
    let mut keeper = keeper.again(&[1, 8]);
    let ((from, until), writes) = keeper.book.go_back(1, 8).unwrap();
    keeper.entries.apply(writes);
    assert_eq!((from, until), (1, 4));
    assert_eq!(keeper.claim(1, 1, 1..8), [4, 5, 6, 7], "those are done");
    assert_eq!(keeper.claim(0, 1, 1..9), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(keeper.claim(1, 8, [8, 9]), [8]);
    assert_eq!(keeper.claim(0, 9, [9, 10]), [9]);
    assert!(keeper.book.go_back(1, 10).is_none());
    assert!(keeper.entries.get(GIVEN_BACK).unwrap().is_none());
}

#[test]
fn an_identity_is_given_once_within_the_window_also_after_a_restart_and_to_who_gives_it_back() {
    use std::time::Duration;

    use crate::model::EventId;

    let at = |seconds: u64| {
        Some(Window { now_ns: seconds * 1_000_000_000, length: Duration::from_secs(10), count: u64::MAX })
    };
    let of = |ids: &[(Offset, u128)]| -> Vec<ClaimRequest> {
        ids.iter().map(|(offset, id)| ClaimRequest { offset: *offset, identity: Some(EventId(*id)) }).collect()
    };
    let mut keeper = Keeper::new(&[0, 0]);
    keeper.entries.apply(keeper.book.begin());
    assert_eq!(keeper.claim_of(0, 0, of(&[(0, 1), (1, 2), (2, 1)]), at(1)), [2], "within one batch");
    assert_eq!(keeper.claim_of(1, 0, of(&[(0, 1), (1, 2), (2, 1), (3, 2), (4, 3)]), at(5)), [0, 1, 2, 3]);
    assert_eq!(keeper.book.identities, 3);
    let mut keeper = keeper.again(&[0, 5]);
    assert_eq!(keeper.claim_of(1, 5, of(&[(5, 3), (6, 1)]), at(10)), [5, 6]);
    // the first event with identity 1 is returned, and goes to the other member
    let given = keeper.book.give_back(0, 0);
    keeper.entries.apply(given);
    let (_, writes) = keeper.book.go_back(1, 7).unwrap();
    keeper.entries.apply(writes);
    assert_eq!(keeper.claim_of(1, 0, of(&[(0, 1), (1, 2), (2, 1), (3, 2), (4, 3)]), at(10)), [2, 3, 4]);
    // after the window they are new, and no entries remain
    assert_eq!(keeper.claim_of(1, 7, of(&[(7, 1), (8, 3)]), at(11)), [8]);
    assert_eq!(keeper.claim_of(1, 9, of(&[(9, 4), (10, 5), (11, 6)]), at(100)), NONE);
    assert_eq!(keeper.book.identities, 3);
    let left = |kind: u8| {
        keeper.entries.range(Bound::Included(&[CLAIM, kind]), &[CLAIM, kind + 1], WHOLE).unwrap().entries.len()
    };
    assert_eq!((left(4), left(5)), (3, 3));
}

#[test]
fn no_more_identities_are_kept_than_may_be() {
    use std::time::Duration;

    use crate::model::EventId;

    let window = |now_ns| Some(Window { now_ns, length: Duration::MAX, count: 100 });
    let mut keeper = Keeper::new(&[0, 0]);
    keeper.entries.apply(keeper.book.begin());
    for offset in 0..1_000 {
        let wanted = ClaimRequest { offset, identity: Some(EventId(u128::from(offset))) };
        assert_eq!(keeper.claim_of(0, offset, vec![wanted], window(offset)), NONE);
        assert!(keeper.book.identities <= 101);
    }
    assert!(keeper.entries.len() < 2 * 101 + 10);
}

#[test]
fn what_an_earlier_release_kept_with_its_members_is_taken_over() {
    let former = |ranges: &[(Offset, Offset)], floor: Offset| {
        let kept = StoredEntries::default();
        let key = |first: Offset| [&[CLAIM][..], &first.to_be_bytes()].concat();
        kept.apply(ranges.iter().map(|(first, end)| put(key(*first).into(), *end)).collect());
        kept.apply(vec![put(Bytes::from_static(&[CLAIM]), floor)]);
        kept
    };
    let members = [former(&[(10, 12), (14, 20)], 10), former(&[(12, 13), (22, 24)], 4), StoredEntries::default()];
    let mut keeper = Keeper::new(&[16, 22, 8]);
    for (member, kept) in members.iter().enumerate() {
        assert_eq!(keeper.book.join_former(member, kept).unwrap(), member < 2);
    }
    assert_eq!(keeper.claim(2, 8, 8..30), [8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 22, 23]);
    assert_eq!(keeper.claim(0, 16, 16..26), [20, 21, 22, 23, 24, 25], "its own again");
    let mut keeper = keeper.again(&[20, 22, 30]);
    assert!(keeper.book.join_former(0, &members[0]).unwrap(), "there is something to delete");
    assert_eq!(keeper.claim(1, 22, 22..31), [24, 25, 26, 27, 28, 29]);
}
