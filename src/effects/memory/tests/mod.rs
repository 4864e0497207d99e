//! Tests of each promise of the disk.

mod trace;

use std::collections::BTreeSet;

use super::*;

fn crashed(disk: &MemoryDisk, keep: bool) -> BTreeMap<String, Vec<u8>> {
    disk.after_crash(|| keep).contents()
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap()
}

fn disk_with(name: &str, bytes: &[u8]) -> (MemoryDisk, Box<dyn DiskFile>) {
    let disk = MemoryDisk::with_contents(BTreeMap::from([(name.to_owned(), bytes.to_vec())]));
    let file = disk.open(name).unwrap();
    (disk, file)
}

fn fail(disk: &MemoryDisk, which: fn(Operation) -> bool) {
    disk.set_fault(move |operation| if which(operation) { Err(io::Error::other("EIO")) } else { Ok(()) });
}

/// The file after a crash with this outcome for all unsynced changes.
fn left(disk: &MemoryDisk, survival: Survival) -> Vec<u8> {
    disk.after_crash_with(|_| survival).contents()["a"].clone()
}

fn is_full(result: io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

#[test]
fn what_was_synced_survives_and_the_rest_may_be_lost() {
    let (disk, file) = disk_with("a", b"");
    file.write_at(b"one", 0).unwrap();
    assert_eq!(crashed(&disk, false)["a"], b"");
    assert_eq!(crashed(&disk, true)["a"], b"one");
    file.sync().unwrap();
    file.write_at(b"two", 3).unwrap();
    assert_eq!(crashed(&disk, false)["a"], b"one");
    assert_eq!(crashed(&disk, true)["a"], b"onetwo");
    assert_eq!(disk.contents()["a"], b"onetwo");
}

#[test]
fn a_later_block_may_survive_without_an_earlier_one() {
    let (disk, file) = disk_with("a", b"");
    file.write_at(&[7; 2 * BLOCK_BYTES], 0).unwrap();
    let mut choices = [false, true, true].into_iter();
    let left = disk.after_crash(|| choices.next().unwrap()).contents();
    assert_eq!(left["a"], [[0; BLOCK_BYTES], [7; BLOCK_BYTES]].concat());
}

#[test]
fn reads_end_where_the_file_does() {
    let (_disk, file) = disk_with("a", &[7; 100]);
    let mut buffer = [0; 80];
    assert_eq!(file.read_at(&mut buffer, 50).unwrap(), 50);
    assert_eq!(buffer, *[[7; 50].as_slice(), &[0; 30]].concat());
    assert_eq!(file.read_at(&mut buffer, 100).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, u64::MAX / 2).unwrap(), 0);
}

#[test]
fn a_sync_after_a_failed_one_says_nothing_of_what_was_written_before() {
    let (disk, file) = disk_with("a", &[1; 4]);
    file.write_at(&[2; 4], 0).unwrap();
    fail(&disk, |operation| operation == Operation::Sync);
    assert!(file.sync().is_err());
    disk.clear_fault();
    disk.open("a").unwrap().sync().unwrap();
    file.sync().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [1; 4]);
    disk.sync_all().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [1; 4]);
    assert_eq!(crashed(&disk, true)["a"], [2; 4]);
    file.write_at(&[2; 4], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [2; 4]);
}

#[test]
fn a_failed_sync_says_nothing_of_other_files() {
    let (disk, file) = disk_with("a", &[1; 4]);
    let other = disk.create("b").unwrap();
    disk.sync_folder().unwrap();
    file.write_at(&[2; 4], 0).unwrap();
    other.write_at(&[3; 4], 0).unwrap();
    disk.set_fault_on(|name, _| if name == "a" { Err(io::Error::other("EIO")) } else { Ok(()) });
    assert!(file.sync().is_err());
    other.sync().unwrap();
    assert_eq!(crashed(&disk, false), BTreeMap::from([("a".to_owned(), vec![1; 4]), ("b".to_owned(), vec![3; 4])]));
}

#[test]
fn sync_all_makes_every_file_and_every_name_durable() {
    let (disk, file) = disk_with("a", b"");
    file.write_at(b"one", 0).unwrap();
    disk.create("b").unwrap().write_at(b"two", 0).unwrap(); // closed at once
    disk.rename("a", "c").unwrap();
    disk.sync_all().unwrap();
    assert_eq!(crashed(&disk, false), disk.contents());
    assert_eq!(names(&disk), ["b", "c"]);
}

#[test]
fn after_a_failed_sync_all_every_file_is_in_doubt_and_names_are_unsynced() {
    let (disk, file) = disk_with("a", &[1; 4]);
    file.write_at(&[2; 4], 0).unwrap();
    disk.create("b").unwrap();
    fail(&disk, |operation| operation == Operation::SyncAll);
    assert!(disk.sync_all().is_err());
    assert_eq!(crashed(&disk, false).keys().collect::<Vec<_>>(), ["a"]);
    disk.clear_fault();
    disk.sync_all().unwrap();
    let after = crashed(&disk, false);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(after["a"], [1; 4]);
}

#[test]
fn names_are_durable_once_the_folder_is_synced() {
    let (disk, _) = disk_with("old", b"x");
    disk.create("new").unwrap();
    disk.remove("old").unwrap();
    assert_eq!(crashed(&disk, false).into_keys().collect::<Vec<_>>(), ["old"]);
    assert_eq!(crashed(&disk, true).into_keys().collect::<Vec<_>>(), ["new"]);
    disk.sync_folder().unwrap();
    assert_eq!(crashed(&disk, false).into_keys().collect::<Vec<_>>(), ["new"]);
}

/// All folders that a crash may leave, with the contents of their files.
fn folders(disk: &MemoryDisk) -> BTreeSet<Vec<String>> {
    let file = |(name, bytes): (String, Vec<u8>)| format!("{name}={}", String::from_utf8_lossy(&bytes));
    let crash = |choices: u32| {
        let mut choice = 0;
        let after = disk.after_crash(|| {
            choice += 1;
            choices >> (choice - 1) & 1 == 1
        });
        after.contents().into_iter().map(file).collect()
    };
    (0..64).map(crash).collect()
}

#[test]
fn a_rename_survives_whole_or_not_at_all() {
    let (disk, _) = disk_with("a", b"x");
    disk.rename("a", "b").unwrap();
    assert_eq!(names(&disk), ["b"]);
    assert_eq!(folders(&disk), BTreeSet::from([vec!["a=x".to_owned()], vec!["b=x".to_owned()]]));
    disk.sync_folder().unwrap();
    assert_eq!(folders(&disk), BTreeSet::from([vec!["b=x".to_owned()]]));
}

#[test]
fn a_rename_over_a_file_leaves_the_old_one_or_the_new_one() {
    let (disk, _) = disk_with("a", b"old");
    let new = disk.create("a.new").unwrap();
    new.write_at(b"new", 0).unwrap();
    new.sync().unwrap();
    disk.rename("a.new", "a").unwrap();
    assert_eq!(disk.contents(), BTreeMap::from([("a".to_owned(), b"new".to_vec())]));
    let lost = vec!["a=old".to_owned()];
    let created = vec!["a=old".to_owned(), "a.new=new".to_owned()];
    assert_eq!(folders(&disk), BTreeSet::from([lost, created, vec!["a=new".to_owned()]]));
}

#[test]
fn changes_of_different_names_survive_independently() {
    let (disk, _) = disk_with("a", b"");
    disk.create("b").unwrap();
    disk.rename("a", "c").unwrap();
    let (a, b, c) = ("a=".to_owned(), "b=".to_owned(), "c=".to_owned());
    let expected = [vec![a.clone()], vec![a, b.clone()], vec![b, c.clone()], vec![c]];
    assert_eq!(folders(&disk), BTreeSet::from(expected));
}

#[test]
fn changes_of_one_name_are_lost_from_the_last_to_the_first() {
    let (disk, _) = disk_with("a", b"1");
    disk.remove("a").unwrap();
    disk.create("a").unwrap();
    disk.rename("a", "b").unwrap();
    let states: [&[&str]; 4] = [&["a=1"], &[], &["a="], &["b="]];
    let states = states.map(|state| state.iter().map(|file| (*file).to_owned()).collect());
    assert_eq!(folders(&disk), BTreeSet::from(states));
}

#[test]
fn a_file_keeps_its_handles_through_a_rename_and_a_removal() {
    let (disk, file) = disk_with("a", b"x");
    disk.rename("a", "b").unwrap();
    file.write_at(b"y", 0).unwrap();
    assert_eq!(disk.contents()["b"], b"y");
    disk.remove("b").unwrap();
    disk.sync_folder().unwrap();
    file.write_at(b"z", 0).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, *b"z");
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let disk = MemoryDisk::default();
    for result in [disk.open("a").map(drop), disk.remove("a"), disk.rename("a", "b")] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    disk.create("a").unwrap();
    assert_eq!(disk.create("a").map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.rename("a", "a").unwrap();
    assert_eq!(names(&disk), ["a"]);
}

#[test]
fn a_truncation_is_durable_once_it_is_synced() {
    let (disk, file) = disk_with("a", &[1; 700]);
    file.truncate(600).unwrap();
    assert_eq!(crashed(&disk, false)["a"], [1; 700]);
    assert_eq!(crashed(&disk, true)["a"], [1; 600]);
    file.sync().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [1; 600]);
}

#[test]
fn what_was_cut_off_is_zeroes_where_the_file_grows_again() {
    let (disk, file) = disk_with("a", &[1; 2 * BLOCK_BYTES]);
    file.truncate(0).unwrap();
    file.allocate(2 * BLOCK_BYTES as u64).unwrap();
    assert_eq!(disk.contents()["a"], [0; 2 * BLOCK_BYTES]);
    let mut choices = [true, false].into_iter();
    let left = disk.after_crash(|| choices.next().unwrap()).contents();
    assert_eq!(left["a"], [[0; BLOCK_BYTES], [1; BLOCK_BYTES]].concat(), "either, until it is synced");
    file.sync().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [0; 2 * BLOCK_BYTES]);
}

#[test]
fn an_allocation_is_zeroes_and_durable_once_it_is_synced() {
    let (disk, file) = disk_with("a", b"x");
    file.allocate(1000).unwrap();
    file.allocate(10).unwrap(); // is already that long
    assert_eq!(file.length().unwrap(), 1000);
    assert_eq!(crashed(&disk, false)["a"], b"x");
    file.sync().unwrap();
    assert_eq!(crashed(&disk, false)["a"], [b"x".as_slice(), &[0; 999]].concat());
}

#[test]
fn a_write_behind_the_end_leaves_zeroes_between() {
    let (disk, file) = disk_with("a", b"x");
    file.write_at(b"y", 2000).unwrap();
    assert_eq!(disk.contents()["a"], [b"x".as_slice(), &[0; 1999], b"y"].concat());
    assert_eq!(crashed(&disk, true), disk.contents());
    file.write_at(b"", 5000).unwrap();
    assert_eq!(file.length().unwrap(), 2001, "of nothing there is no hole either");
}

#[test]
fn a_write_or_an_allocation_that_fails_has_done_a_part() {
    let (disk, file) = disk_with("a", b"");
    fail(&disk, |_| true);
    assert!(file.write_at(b"half", 0).is_err());
    assert_eq!(disk.contents()["a"], b"ha");
    assert!(file.allocate(10).is_err());
    assert_eq!(disk.contents()["a"], b"ha\0\0\0\0");
}

#[test]
fn anything_else_that_fails_has_done_nothing() {
    let (disk, file) = disk_with("a", b"x");
    fail(&disk, |_| true);
    let failed = [file.truncate(0), disk.create("b").map(drop), disk.remove("a"), disk.rename("a", "b")];
    assert!(failed.iter().all(Result::is_err));
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(disk.contents(), BTreeMap::from([("a".to_owned(), b"x".to_vec())]));
}

#[test]
fn a_fault_is_told_what_and_where() {
    let (disk, file) = disk_with("a", b"");
    let (asked, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let told = asked.clone();
    disk.set_fault_on(move |name, operation| {
        told.lock().unwrap().push((name.to_owned(), operation));
        Ok(())
    });
    file.write_at(&[0; 3], 0).unwrap();
    file.allocate(10).unwrap();
    disk.rename("a", "b").unwrap();
    file.sync().unwrap();
    disk.remove("b").unwrap();
    file.read_at(&mut [0; 2], 0).unwrap();
    disk.sync_folder().unwrap();
    let told = seen.clone();
    disk.set_fault(move |operation| {
        told.lock().unwrap().push(operation);
        Ok(())
    });
    disk.sync_all().unwrap();
    let expected = [
        ("a", Operation::Write(3)),
        ("a", Operation::Allocate(7)),
        ("a", Operation::Rename),
        ("b", Operation::Sync),
        ("b", Operation::Remove),
        ("b", Operation::Read(2)),
        ("", Operation::SyncFolder),
    ];
    assert_eq!(*asked.lock().unwrap(), expected.map(|(name, operation)| (name.to_owned(), operation)));
    assert_eq!(*seen.lock().unwrap(), [Operation::SyncAll]);
}

#[test]
fn a_disk_without_a_capacity_is_never_full() {
    let disk = MemoryDisk::default();
    let file = disk.create("a").unwrap();
    file.allocate(1 << 20).unwrap();
    assert_eq!(disk.space().unwrap(), Space { total_bytes: u64::MAX / 4, free_bytes: u64::MAX / 4 });
}

#[test]
fn what_does_not_fit_is_written_as_far_as_it_fits() {
    let (disk, file) = disk_with("a", &[1; 100]);
    disk.set_capacity(Some(3 * BLOCK_BYTES as u64 + 17)); // a partial block does not count
    assert_eq!(disk.space().unwrap().free_bytes, 2 * BLOCK_BYTES as u64);
    assert!(is_full(file.write_at(&[2; 2000], 100)));
    assert_eq!(disk.contents()["a"], [[1; 100].as_slice(), &[2; 3 * BLOCK_BYTES - 100]].concat());
    assert_eq!(disk.space().unwrap().free_bytes, 0);
    file.write_at(&[3; 3 * BLOCK_BYTES], 0).unwrap(); // within the length
    assert!(is_full(file.write_at(&[4; 1], 3 * BLOCK_BYTES as u64)));
    assert!(is_full(file.write_at(&[4; 1], 30 * BLOCK_BYTES as u64)));
    assert_eq!(disk.contents()["a"], [3; 3 * BLOCK_BYTES]);
}

#[test]
fn allocated_room_is_there_for_writes_whatever_else_takes_room() {
    let (disk, file) = disk_with("a", b"");
    disk.set_capacity(Some(4 * BLOCK_BYTES as u64));
    file.allocate(2 * BLOCK_BYTES as u64).unwrap();
    let other = disk.create("b").unwrap();
    assert!(is_full(other.allocate(3 * BLOCK_BYTES as u64)));
    assert_eq!(other.length().unwrap(), 2 * BLOCK_BYTES as u64, "as ext4 does, it took what there was");
    assert!(is_full(file.truncate(2 * BLOCK_BYTES as u64 + 1)));
    file.write_at(&[1; 2 * BLOCK_BYTES], 0).unwrap();
}

#[test]
fn room_comes_back_from_what_is_cut_off_removed_or_replaced() {
    let (disk, file) = disk_with("a", &[1; 3 * BLOCK_BYTES]);
    let free = || disk.space().unwrap().free_bytes / BLOCK_BYTES as u64;
    disk.set_capacity(Some(4 * BLOCK_BYTES as u64));
    assert_eq!(free(), 1);
    file.truncate(BLOCK_BYTES as u64 + 1).unwrap();
    assert_eq!(free(), 2);
    disk.remove("a").unwrap();
    assert_eq!(free(), 2, "it is open");
    drop(file);
    assert_eq!(free(), 4);
    for (name, length) in [("b", 1), ("c", 2)] {
        disk.create(name).unwrap().allocate(length * BLOCK_BYTES as u64).unwrap();
    }
    disk.rename("c", "b").unwrap();
    assert_eq!(free(), 2);
    assert_eq!(disk.after_crash(|| true).space().unwrap(), disk.space().unwrap());
}

#[test]
fn a_removal_that_is_lost_brings_back_what_was_in_the_file() {
    let (disk, file) = disk_with("a", b"x");
    drop(file);
    disk.remove("a").unwrap();
    drop(disk.create("b").unwrap());
    assert_eq!(crashed(&disk, false)["a"], b"x");
    let created = disk.create("c").unwrap();
    created.write_at(b"y", 0).unwrap();
    created.sync().unwrap();
    disk.remove("c").unwrap();
    drop(created);
    let is_created =
        |unsynced: UnsyncedChange<'_>| matches!(unsynced, UnsyncedChange::Name { change: Operation::Create, .. });
    let left = disk.after_crash_with(|unsynced| if is_created(unsynced) { Survival::New } else { Survival::Old });
    assert_eq!(left.contents()["c"], b"y");
}

#[test]
fn contents_that_nothing_can_find_any_more_are_freed() {
    let (disk, file) = disk_with("a", b"x");
    let bytes = || disk.state().files.iter().map(|file| file.contents.len() + file.synced.len()).sum::<usize>();
    disk.create("b").unwrap().write_at(b"y", 0).unwrap();
    for name in ["a", "b"] {
        disk.remove(name).unwrap();
    }
    assert_eq!(bytes(), 3, "a crash may find them");
    disk.sync_folder().unwrap();
    assert_eq!(bytes(), 2, "one is open");
    drop(file);
    assert_eq!(bytes(), 0);
}

#[test]
fn a_torn_block_is_new_up_to_somewhere_and_then_old() {
    let (disk, file) = disk_with("a", &[1; BLOCK_BYTES]);
    file.write_at(&[2; BLOCK_BYTES + 10], 0).unwrap();
    let torn = [[2; 100].as_slice(), &[1; BLOCK_BYTES - 100], &[2; 10]].concat();
    assert_eq!(left(&disk, Survival::Torn(100)), torn, "the second block is shorter than what is left of it");
    assert_eq!(left(&disk, Survival::Torn(5))[BLOCK_BYTES..], [2, 2, 2, 2, 2, 0, 0, 0, 0, 0]);
    assert_eq!(left(&disk, Survival::Torn(u16::MAX)), [2; BLOCK_BYTES + 10]);
}

#[test]
fn a_zeroed_block_is_neither_old_nor_new() {
    let (disk, file) = disk_with("a", &[1; 2 * BLOCK_BYTES]);
    file.write_at(&[2; 10], 0).unwrap();
    assert_eq!(left(&disk, Survival::Zeroed), [[0; BLOCK_BYTES], [1; BLOCK_BYTES]].concat());
    file.write_at(&[2; 10], 2 * BLOCK_BYTES as u64).unwrap();
    assert_eq!(left(&disk, Survival::Zeroed).len(), 2 * BLOCK_BYTES + 10, "its length is another matter");
}

#[test]
fn a_garbled_block_is_new_but_for_one_bit() {
    let (disk, file) = disk_with("a", &[1; 8]);
    file.write_at(&[2; 8], 0).unwrap();
    assert_eq!(left(&disk, Survival::Garbled(0)), [3, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(left(&disk, Survival::Garbled(63)), [2, 2, 2, 2, 2, 2, 2, 130]);
    assert_eq!(left(&disk, Survival::Garbled(64)), left(&disk, Survival::Garbled(0)));
}

/// The questions that a crash asks.
fn asked(disk: &MemoryDisk) -> Vec<String> {
    let mut asked = Vec::new();
    let _after = disk.after_crash_with(|unsynced| {
        asked.push(format!("{unsynced:?}"));
        Survival::New
    });
    asked
}

fn told(questions: &[UnsyncedChange<'_>]) -> Vec<String> {
    questions.iter().map(|unsynced| format!("{unsynced:?}")).collect()
}

#[test]
fn a_crash_does_not_ask_about_what_is_durable_or_was_not_changed() {
    let (disk, file) = disk_with("a", &[1; 700]);
    file.write_at(&[2; 10], 0).unwrap();
    fail(&disk, |operation| operation == Operation::Sync);
    assert!(file.sync().is_err());
    disk.clear_fault();
    assert_eq!(asked(&disk), told(&[UnsyncedChange::Block { name: "a", block: 0 }]));
    file.write_at(&[2; 10], 0).unwrap();
    disk.create("b").unwrap();
    file.sync().unwrap();
    disk.sync_folder().unwrap();
    file.write_at(b"", 100).unwrap();
    file.truncate(700).unwrap();
    disk.rename("a", "a").unwrap();
    assert_eq!(asked(&disk), told(&[]));
    assert_eq!(crashed(&disk, false), disk.contents());
}

#[test]
fn a_crash_does_not_ask_about_blocks_that_are_cut_off() {
    let (disk, file) = disk_with("a", &[1; 5 * BLOCK_BYTES]);
    file.truncate(2 * BLOCK_BYTES as u64).unwrap();
    assert_eq!(asked(&disk), told(&[UnsyncedChange::Length { name: "a" }]));
    fail(&disk, |operation| operation == Operation::Sync);
    assert!(file.sync().is_err());
    file.write_at(&[2; 3 * BLOCK_BYTES], BLOCK_BYTES as u64).unwrap();
    assert!(disk.truncate_durably("a", BLOCK_BYTES as u64));
    assert_eq!(asked(&disk), told(&[]));
    file.truncate(5 * BLOCK_BYTES as u64).unwrap();
    assert_eq!(asked(&disk), told(&[UnsyncedChange::Length { name: "a" }]), "nor when the file is longer again");
}

#[test]
fn a_crash_asks_in_a_fixed_order() {
    let (disk, file) = disk_with("b", &[1; 700]);
    disk.create("c").unwrap().write_at(&[1; 600], 0).unwrap();
    file.write_at(&[2], 600).unwrap();
    file.write_at(&[2], 0).unwrap();
    disk.rename("b", "a").unwrap();
    let expected = [
        UnsyncedChange::Name { name: "c", change: Operation::Create },
        UnsyncedChange::Name { name: "a", change: Operation::Rename },
        UnsyncedChange::Block { name: "a", block: 0 },
        UnsyncedChange::Block { name: "a", block: 1 },
        UnsyncedChange::Block { name: "c", block: 0 },
        UnsyncedChange::Block { name: "c", block: 1 },
        UnsyncedChange::Length { name: "c" },
    ];
    assert_eq!(asked(&disk), told(&expected));
}

#[test]
fn damage_flips_bits_of_what_is_durable() {
    let (disk, file) = disk_with("a", &[1; 4]);
    file.write_at(&[1; 4], 4).unwrap();
    assert!(disk.damage("a", 2, 6));
    assert_eq!(disk.contents()["a"], [1, 1, 7, 1, 1, 1, 1, 1]);
    assert_eq!(crashed(&disk, false)["a"], [1, 1, 7, 1]);
    assert!(!disk.damage("a", 4, 1), "not synced");
    assert!(!disk.damage("a", 9, 1));
    assert!(!disk.damage("b", 0, 1));
    file.truncate(1).unwrap();
    assert!(!disk.damage("a", 2, 1), "not seen");
}

#[test]
fn what_is_removed_or_cut_off_by_hand_never_comes_back() {
    let (disk, file) = disk_with("a", &[1; 4]);
    file.write_at(&[2; 2000], 2).unwrap();
    assert!(disk.truncate_durably("a", 3));
    for keep in [false, true] {
        assert_eq!(crashed(&disk, keep)["a"], [1, 1, if keep { 2 } else { 1 }]);
    }
    assert!(!disk.truncate_durably("a", 4));
    disk.rename("a", "b").unwrap();
    assert!(!disk.remove_durably("a"));
    assert!(disk.remove_durably("b"));
    assert_eq!(crashed(&disk, false), BTreeMap::new());
    assert_eq!(crashed(&disk, true), BTreeMap::new());
}
