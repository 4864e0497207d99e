//! Runs are deterministic, and the trace shows if they are not.

use std::collections::BTreeSet;

use super::*;

/// A random sequence of operations for a seed. Returns the disk at the end, and the trace.
fn life(seed: u64) -> (MemoryDisk, u64) {
    let mut disk = MemoryDisk::with_contents(BTreeMap::from([("0".to_owned(), vec![9; 3000])]));
    disk.set_capacity(Some(40_000));
    let mut at = 0;
    let mut below = move |bound: u64| {
        at += 1;
        xxh3_64_with_seed(&u64::to_le_bytes(at), seed) % bound
    };
    for _ in 0..300 {
        let (name, other) = (below(4).to_string(), below(4).to_string());
        let _ = match (below(24), disk.open(&name)) {
            (0, _) => disk.remove(&name),
            (1..3, _) => disk.rename(&name, &other),
            (3, _) => disk.sync_folder(),
            (4, _) => disk.sync_all(),
            (5, _) => {
                fail(&disk, |operation| matches!(operation, Operation::Sync | Operation::Read(_)));
                Ok(())
            }
            (6, _) => {
                disk.clear_fault();
                Ok(())
            }
            (7, _) => {
                assert_eq!(crashed(&disk, true), disk.contents(), "all of it survives, if all survives");
                disk = disk.after_crash_with(|_| match below(6) {
                    0 => Survival::Old,
                    1 => Survival::Torn(below(600) as u16),
                    2 => Survival::Zeroed,
                    3 => Survival::Garbled(below(1 << 16) as u16),
                    _ => Survival::New,
                });
                assert_eq!(disk.contents(), crashed(&disk, false), "what a crash left is durable");
                Ok(())
            }
            (_, Err(_)) => disk.create(&name).map(drop),
            (8, Ok(file)) => file.truncate(below(8000)),
            (9..11, Ok(file)) => file.allocate(below(8000)),
            (11..14, Ok(file)) => file.sync(),
            (14, Ok(file)) => file.read_at(&mut [0; 700], below(8000)).map(drop),
            (_, Ok(file)) => file.write_at(&vec![below(256) as u8; below(2000) as usize], below(8000)),
        };
        let space = disk.space().unwrap();
        let used: u64 = disk.contents().values().map(|bytes| bytes.len().next_multiple_of(BLOCK_BYTES) as u64).sum();
        let total = space.total_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        assert_eq!(space.free_bytes, total.saturating_sub(used), "seed {seed}");
    }
    let trace = disk.trace();
    (disk, trace)
}

#[test]
fn the_same_seed_leaves_the_same_trace_and_the_same_files() {
    let mut traces = BTreeSet::new();
    for seed in 0..100 {
        let (disk, trace) = life(seed);
        let (again, trace_again) = life(seed);
        assert_eq!(disk.contents(), again.contents());
        assert_eq!(trace, trace_again, "seed {seed}");
        traces.insert(trace);
        disk.clear_fault();
        disk.sync_all().unwrap();
        assert_eq!(crashed(&disk, false).keys().collect::<Vec<_>>(), disk.contents().keys().collect::<Vec<_>>());
    }
    assert_eq!(traces.len(), 100);
}

#[test]
fn whatever_is_done_otherwise_leaves_another_trace() {
    type Act = fn(&MemoryDisk, &dyn DiskFile);
    let acts: &[Act] = &[
        |_, _| {},
        |_, file| file.write_at(b"x", 0).unwrap(),
        |_, file| file.write_at(b"y", 0).unwrap(),
        |_, file| file.write_at(b"x", 1).unwrap(),
        |_, file| file.sync().unwrap(),
        |disk, _| {
            fail(disk, |_| true);
            assert!(disk.open("a").unwrap().sync().is_err());
        },
        |disk, _| disk.create("x").map(drop).unwrap(),
        |disk, _| disk.remove("a").unwrap(),
        |disk, _| disk.rename("a", "x").unwrap(),
        |disk, _| disk.rename("a", "y").unwrap(),
        |disk, _| assert!(disk.damage("a", 0, 1)),
        |disk, _| assert!(disk.remove_durably("a")),
        |disk, _| assert!(disk.truncate_durably("a", 0)),
        |_, file| assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1),
        |_, file| assert_eq!(file.read_at(&mut [0], 10).unwrap(), 0),
    ];
    let traces = acts.iter().map(|act| {
        let (disk, file) = disk_with("a", b"z");
        act(&disk, file.as_ref());
        disk.trace()
    });
    assert_eq!(traces.collect::<BTreeSet<_>>().len(), acts.len());
    let order = |first: &[u8], second: &[u8]| {
        let (disk, file) = disk_with("a", b"z");
        file.write_at(first, 0).unwrap();
        file.write_at(second, 0).unwrap();
        [disk.trace(), disk.after_crash(|| true).trace(), disk.after_crash(|| false).trace()]
    };
    let traces = [order(b"x", b"y"), order(b"y", b"x")].concat();
    assert_eq!(traces.into_iter().collect::<BTreeSet<_>>().len(), 6);
}
