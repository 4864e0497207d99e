//! What `wattle log` stands on: damage is found and named, and what is given up is exactly what was said.

use std::sync::Arc;

use wattle::effects::{Disk, MemoryDisk};
use wattle::log::{Inspection, RepairError, dump, repair, verify};

use super::layout::{FILE_HEAD, Writer, name};
use super::support::{P, append, open, options, stored, try_open, without_memory};

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Four durable events in the journal, and the position of each frame.
fn journal() -> (MemoryDisk, Vec<u64>) {
    let mut writer = Writer::new();
    for offset in 0..4 {
        writer.event(offset, &format!("event{offset}"));
        writer.synced();
    }
    writer.mark();
    (MemoryDisk::with_contents(writer.files.clone()), writer.positions)
}

#[test]
fn a_healthy_log_is_told_to_be_so() {
    let (disk, positions) = journal();
    let found = verify(&shared(&disk)).unwrap();
    let expected = Inspection { end_position: found.end_position, frames: 6, events: 4, ..Inspection::default() };
    assert_eq!(found, expected);
    let mut frames = Vec::new();
    let (end, why) = dump(&shared(&disk), &mut |frame| {
        frames.push((frame.position, frame.kind, frame.appended.len()));
        true
    })
    .unwrap();
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), positions);
    assert_eq!(
        frames.iter().map(|frame| frame.1).collect::<Vec<_>>(),
        ["mark", "unit", "unit", "unit", "unit", "mark"]
    );
    assert_eq!(end, found.end_position);
    assert_eq!(why, None);
}

#[tokio::test]
async fn damage_is_named_with_what_is_behind_it_and_can_be_given_up() {
    let (disk, positions) = journal();
    let damaged = positions[3];
    assert!(disk.damage(&name(0), FILE_HEAD as u64 + damaged + 60, 1));
    let refusal = try_open(&disk, options()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains(&format!("--truncate-at {damaged}")), "{refusal}");
    let found = verify(&shared(&disk)).unwrap();
    assert_eq!((found.damaged_position, found.behind), (Some(damaged), Some((2, 1))), "an event and a mark");
    assert!(found.damage[0].contains(&name(0)), "{:?}", found.damage);
    // only where a frame begins
    let error = repair(&shared(&disk), damaged + 1).unwrap_err();
    assert!(matches!(error, RepairError::NoFrame { nearest, .. } if nearest == damaged), "{error}");
    let gone = repair(&shared(&disk), damaged).unwrap();
    assert_eq!((gone.frames, gone.events), (2, 1));
    let (log, _) = open(&disk.after_crash(|| false), options());
    assert_eq!(stored(&log, P), ["event0", "event1"], "durably");
    assert_eq!(append(&log, P, "after").await, 2);
    log.close();
    assert!(verify(&shared(&disk)).unwrap().damage.is_empty());
}

#[tokio::test]
async fn what_is_in_segments_cannot_be_given_up() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, without_memory());
    append(&log, P, "kept").await;
    log.close();
    let error = repair(&shared(&disk), 0).unwrap_err();
    assert!(matches!(error, RepairError::InFront { .. }), "{error}");
}

#[tokio::test]
async fn later_files_go_as_well() {
    let mut writer = Writer::new();
    for offset in 0..6 {
        writer.event(offset, "event");
        writer.synced();
        if offset == 1 || offset == 3 {
            writer.roll();
        }
    }
    let disk = MemoryDisk::with_contents(writer.files.clone());
    let at = writer.positions[2];
    assert_eq!(repair(&shared(&disk), at).unwrap().events, 5);
    let (log, _) = open(&disk, options());
    assert_eq!(stored(&log, P), ["event"]);
}

#[tokio::test]
async fn every_damaged_byte_of_a_segment_is_found() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, without_memory());
    for number in 0..3 {
        append(&log, P, &format!("event {number}")).await;
    }
    log.close();
    drop(log);
    let whole = disk.contents();
    let segment = whole.keys().find(|name| name.starts_with("segment-")).unwrap();
    for byte in 0..whole[segment].len() {
        let disk = MemoryDisk::with_contents(whole.clone());
        assert!(disk.damage(segment, byte as u64, 1 << (byte % 8)));
        let found = verify(&shared(&disk)).unwrap();
        assert_eq!((found.damage.len(), found.events), (1, 2), "byte {byte}: {:?}", found.damage);
        assert!(found.damage[0].contains(segment), "{:?}", found.damage);
    }
}
