use std::sync::Arc;

use super::file::{Reader, SnapshotHeader, Writer};
use super::*;
use crate::dispatch::lane::command::SnapshotPart;
use crate::dispatch::ops::error::SnapshotError;
use crate::effects::{Disk, MemoryDisk};

/// A snapshot of two lanes, at offsets 5 and 9.
fn restoring() -> SnapshotRestore {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (subscriber, digest, note) = ("t/work".to_owned(), String::new(), String::new());
    let about =
        SnapshotHeader { subscriber, taken_ns: 7, digest, note, by: SnapshotCause::Hand, positions: vec![5, 9] };
    let mut writer = Writer::create(disk.clone(), "1-3.snapshot", &about).unwrap();
    for partition in 0..2 {
        writer.lane(partition).unwrap();
        writer.entry(b"\x01b\0k", &[partition as u8]).unwrap();
    }
    writer.finish().unwrap();
    let (reader, about) = Reader::open(&*disk, "1-3.snapshot").unwrap();
    SnapshotRestore { number: 3, positions: about.positions, reader, lane: None }
}

#[test]
fn a_position_is_gone_back_to_only_where_its_events_are_there() {
    let snapshot = restoring();
    assert_eq!(snapshot.position(0, 5, 5), Ok(5));
    assert_eq!(snapshot.position(1, 0, 100), Ok(9));
    assert!(matches!(
        snapshot.position(1, 10, 100),
        Err(SnapshotError::Expired { number: 3, partition: 1, position: 9, start: 10 })
    ));
    assert!(matches!(
        snapshot.position(0, 0, 4),
        Err(SnapshotError::Ahead { number: 3, partition: 0, position: 5, end: 4 })
    ));
    assert!(matches!(snapshot.position(2, 0, 100), Err(SnapshotError::Unusable { .. })));
}

#[test]
fn each_lane_gets_its_own_entries_whichever_are_asked_for() {
    let fed = |snapshot: SnapshotRestore, partition| {
        let (sender, mut lane) = SnapshotRestore::channel();
        let snapshot = snapshot.feed(partition, &sender);
        let mut values = Vec::new();
        while let Some(part) = lane.blocking_recv() {
            match part {
                SnapshotPart::Entries(entries) => values.extend(entries.into_iter().map(|(_, value)| value[0])),
                SnapshotPart::End => break,
                SnapshotPart::Broken(reason) => panic!("{reason}"),
            }
        }
        (snapshot, values)
    };
    let (snapshot, first) = fed(restoring(), 0);
    let (_, second) = fed(snapshot, 1);
    assert_eq!((first, second), (vec![0], vec![1]));
    assert_eq!(fed(restoring(), 1).1, [1], "also where the one in front of it is not wanted");
}
