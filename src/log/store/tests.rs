use super::*;
use crate::effects::MemoryDisk;

const LANE: LaneId = LaneId { subscriber: SubscriberId(1), partition: 0 };

fn store(disk: &MemoryDisk) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::create(&disk, Checkpoint::first(Link::first(0))).unwrap()
}

/// Puts the same value under keys 0 to `keys`.
fn commit(store: &mut Store, generation: u64, keys: u32, value: &[u8]) {
    let checkpoint = Checkpoint { generation, ..Checkpoint::first(Link::first(0)) };
    let mut changes = Changes::new(checkpoint);
    for key in 0..keys {
        changes.put_entry(LANE, Bytes::copy_from_slice(&key.to_be_bytes()), Some(Bytes::copy_from_slice(value)));
    }
    store.commit(checkpoint, &[&changes]).unwrap();
}

#[test]
fn looks_between_two_commits_share_one_transaction_and_see_the_last_commit() {
    let mut store = store(&MemoryDisk::default());
    let entries = store.entries();
    let before = PINS.get();
    for generation in 1..=5_u64 {
        let value = generation.to_be_bytes();
        commit(&mut store, generation, 10, &value);
        for look in 0..1_000_u32 {
            assert_eq!(entries.get(LANE, &(look % 10).to_be_bytes()).unwrap().as_deref(), Some(value.as_slice()));
        }
        assert_eq!(PINS.get() - before, generation);
    }
}

#[test]
fn a_store_that_is_looked_at_all_the_time_does_not_grow() {
    let disk = MemoryDisk::default();
    let mut store = store(&disk);
    let entries = store.entries();
    let mut generation = 0;
    let mut bytes_behind = |commits: u64| {
        for _ in 0..commits {
            generation += 1;
            commit(&mut store, generation, 1_000, &[generation as u8; 100]);
            assert!(entries.get(LANE, &0_u32.to_be_bytes()).unwrap().is_some());
        }
        disk.contents()[FILE_NAME].len()
    };
    let few = bytes_behind(10);
    let many = bytes_behind(200);
    assert!(many <= few + few / 4, "{few} bytes, and then {many}");
}

#[test]
fn what_is_looked_at_holds_no_store_open() {
    let disk = MemoryDisk::default();
    let mut store = store(&disk);
    commit(&mut store, 1, 1, b"x");
    let entries = store.entries();
    assert!(entries.get(LANE, &0_u32.to_be_bytes()).unwrap().is_some());
    let shelf = Arc::downgrade(&entries.shelf);
    drop((store, entries));
    assert!(shelf.upgrade().is_none());
}
