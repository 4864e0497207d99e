use std::sync::{Arc, Mutex};

use super::*;

const NONE: [Offset; 0] = [];

/// A lane's entries.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

impl Kept {
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

impl Entries for Kept {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, until: &[u8], count: usize) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let kept = self.0.lock().unwrap();
        let range = kept.range::<[u8], _>((from, Bound::Excluded(until)));
        Ok(range.take(count).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn frozen(&self) -> Result<Self, ReadError> {
        Ok(self.clone())
    }
}

/// A keeper, whose units are all kept.
struct Keeper {
    book: Book,
    entries: Kept,
}

impl Keeper {
    /// With members that have come to these positions.
    fn open(entries: &Kept, positions: &[Offset]) -> Self {
        let mut book = Book::load(entries).unwrap();
        for (number, position) in (1..).map(SubscriberId).zip(positions) {
            book.join(entries, number, *position).unwrap();
        }
        Self { book, entries: entries.clone() }
    }

    fn new(positions: &[Offset]) -> Self {
        Self::open(&Kept::default(), positions)
    }

    /// What of it is not the member's.
    fn claim(&mut self, member: usize, position: Offset, wanted: impl IntoIterator<Item = Offset>) -> Vec<Offset> {
        self.entries.apply(self.book.begin());
        let wanted: Vec<_> = wanted.into_iter().collect();
        let (claimed, writes) = self.book.claim(&self.entries, member, position, &wanted).unwrap();
        assert_eq!(claimed.is_new, !writes.is_empty());
        self.entries.apply(writes);
        let runs = self.entries.range(Bound::Included(&[CLAIM, RUN]), &[CLAIM, RUN + 1], usize::MAX).unwrap();
        assert_eq!(self.book.runs, runs.len() as u64);
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
fn any_order_of_claims_and_restarts_gives_each_event_to_one_member() {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..200 {
        let mut positions = [0; 3];
        let mut keeper = Keeper::new(&positions);
        let mut owners: BTreeMap<Offset, usize> = BTreeMap::new();
        for _ in 0..60 {
            let member = next(3) as usize;
            if next(10) == 0 {
                keeper = keeper.again(&positions);
            }
            let from = positions[member];
            let wanted: Vec<_> = (from..from + 1 + next(8)).filter(|_| next(3) > 0).collect();
            let lost = keeper.claim(member, from, wanted.clone());
            for offset in &wanted {
                let owner = *owners.entry(*offset).or_insert(member);
                assert_eq!(lost.contains(offset), owner != member, "{offset} of {owner}, wanted by {member}");
            }
            // sometimes it ends in the middle of a batch, and reads the rest again
            positions[member] = wanted.last().map_or(from, |last| last + 1 - next(2).min(last + 1 - from));
        }
    }
}

#[test]
fn what_an_earlier_release_kept_with_its_members_is_taken_over() {
    let former = |ranges: &[(Offset, Offset)], floor: Offset| {
        let kept = Kept::default();
        let key = |first: Offset| [&[CLAIM][..], &first.to_be_bytes()].concat();
        kept.apply(ranges.iter().map(|(first, end)| put(key(*first).into(), *end)).collect());
        kept.apply(vec![put(Bytes::from_static(&[CLAIM]), floor)]);
        kept
    };
    let members = [former(&[(10, 12), (14, 20)], 10), former(&[(12, 13), (22, 24)], 4), Kept::default()];
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
