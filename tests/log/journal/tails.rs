//! What a kill or a crash leaves at the end of the journal: whole frames count, the rest is void, and what is void
//! never comes back.

use std::collections::BTreeMap;

use wattle::effects::MemoryDisk;

use super::layout::{FILE_HEAD, UNIT, Writer, name, unit};
use super::support::{LANE, P, Q, Random, append, open, options, stored};

/// What follows the whole frames in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tail {
    Cut,
    Zeroes,
    Garbage,
}

/// Two durable events, and a group of three frames that was written and not synced.
fn journal() -> (Writer, Vec<u64>) {
    let mut writer = Writer::new();
    writer.event(0, "first");
    writer.synced();
    writer.event(1, "second");
    writer.mark();
    writer.synced();
    let group = writer.positions.len();
    writer.event(2, "third");
    writer
        .push(&writer.frame(UNIT, unit(Some((1, 0, 3)), &[((1, 0), 3, &["fourth"]), ((2, 3), 0, &["other", "two"])])));
    writer.event(4, "fifth");
    let mut ends = writer.positions[group..].to_vec();
    ends.push(writer.next.position);
    (writer, ends)
}

/// What the log must hold where so many frames of the group are whole: P, Q, the lane's position.
fn expected(frames: usize) -> (Vec<&'static str>, Vec<&'static str>, u64) {
    let events = ["first", "second", "third", "fourth", "fifth"];
    let (other, position) = if frames >= 2 { (vec!["other", "two"], 3) } else { (vec![], 0) };
    (events[..2 + frames].to_vec(), other, position)
}

#[tokio::test]
async fn the_group_at_the_end_survives_to_its_last_whole_frame_wherever_it_is_cut() {
    let (writer, ends) = journal();
    let whole = &writer.files[&name(0)];
    let mut random = Random(1);
    for tail in [Tail::Cut, Tail::Zeroes, Tail::Garbage] {
        for cut in FILE_HEAD + ends[0] as usize..=whole.len() {
            let mut bytes = whole[..cut].to_vec();
            match tail {
                Tail::Cut => {}
                Tail::Zeroes => bytes.resize(whole.len() + 700, 0),
                Tail::Garbage => bytes.resize_with(whole.len() + 700, || random.next() as u8),
            }
            let frames = ends.iter().filter(|end| FILE_HEAD + **end as usize <= cut).count() - 1;
            // garbage may by chance go on with the right bytes of the frame, but not with all of them
            let disk = MemoryDisk::with_contents(BTreeMap::from([(name(0), bytes.clone())]));
            let (log, replay) = open(&disk, options());
            let context = format!("{tail:?} at {cut}");
            let (events, other, position) = expected(frames);
            assert_eq!(stored(&log, P), events, "{context}");
            assert_eq!(stored(&log, Q), other, "{context}");
            assert_eq!(log.lane(LANE).position(), position, "{context}");
            assert_eq!(replay.frames, 4 + frames as u64, "{context}");
            assert_eq!(log.partition(P).durable(), events.len() as u64, "what was accepted is durable: {context}");

            // it goes on from there, and a second start agrees
            assert_eq!(append(&log, P, "after").await, events.len() as u64, "{context}");
            log.close();
            let (log, replay) = open(&disk.after_crash(|| false), options());
            assert_eq!(stored(&log, P), [&events[..], &["after"]].concat(), "{context}");
            assert_eq!(stored(&log, Q), other, "{context}");
            assert_eq!(replay.void_bytes, 0, "{context}");
        }
    }
}

#[tokio::test]
async fn a_first_file_cut_anywhere_starts_again_or_is_refused() {
    // up to its head nothing was ever in it; the first frame is the mark of the first start
    let writer = Writer::new();
    let whole = &writer.files[&name(0)];
    for cut in 0..=whole.len() {
        let disk = MemoryDisk::with_contents(BTreeMap::from([(name(0), whole[..cut].to_vec())]));
        let (log, replay) = open(&disk, options());
        assert_eq!(replay.frames, u64::from(cut == whole.len()));
        assert_eq!(append(&log, P, "a").await, 0);
        drop(log);
        assert_eq!(stored(&open(&disk, options()).0, P), ["a"], "cut at {cut}");
    }
}

#[tokio::test]
async fn frames_of_an_earlier_epoch_behind_the_end_are_never_resurrected() {
    // One life wrote six events and lost the last four; the next one wrote over some of them. All frames are of the
    // same length, so the old ones lie exactly where the next frame is looked for.
    let mut kept = Writer::new();
    kept.event(0, "kept0");
    kept.event(1, "kept1");
    kept.synced();
    let mut old = kept.clone();
    for offset in 2..6 {
        old.event(offset, &format!("lost{offset}"));
    }
    for rewritten in 0..4 {
        let mut new = kept.clone();
        new.next.epoch = 2;
        // in place of the mark an event, so that the boundaries stay where they are
        for offset in 0..rewritten {
            new.event(2 + offset, &format!("next{offset}"));
        }
        let mut bytes = new.last().clone();
        bytes.extend_from_slice(&old.last()[bytes.len()..]);
        let disk = MemoryDisk::with_contents(BTreeMap::from([(name(0), bytes)]));
        let (log, _) = open(&disk, options());
        let mut expected = vec!["kept0".to_owned(), "kept1".to_owned()];
        if rewritten == 0 {
            // nothing was written over: they are what followed, and as good as any unsynced tail
            expected.extend((2..6).map(|offset| format!("lost{offset}")));
        }
        expected.extend((0..rewritten).map(|offset| format!("next{offset}")));
        assert_eq!(stored(&log, P), expected, "{rewritten} written over");
        append(&log, P, "after").await;
        expected.push("after".to_owned());
        drop(log);
        assert_eq!(stored(&open(&disk, options()).0, P), expected, "{rewritten} written over, second start");
    }
}

#[tokio::test]
async fn a_start_that_crashes_is_a_start_that_did_not_happen() {
    // Every operation of recovery in turn is the last one before the power goes.
    let (writer, _) = journal();
    let mut files = writer.files.clone();
    files.get_mut(&name(0)).unwrap().extend(b"WTTL torn");
    let events = expected(3).0;
    for operations in 0.. {
        for seed in 0..8 {
            // what recovery finds is in the page cache only, as after a kill
            let disk = unsynced(&files, FILE_HEAD + writer.positions[4] as usize);
            let done = super::crashes::power_off_after(&disk, operations);
            let opened = super::support::try_open(&disk, options());
            let was_served = opened.is_ok();
            drop(opened);
            let mut random = Random(seed);
            let (log, _) = open(&disk.after_crash(|| random.next() & 1 == 0), options());
            let after = stored(&log, P);
            let least = if was_served { events.len() } else { 2 };
            assert!(after.len() >= least && events[..after.len()] == after, "{operations} operations: {after:?}");
            if done() < operations && seed == 7 {
                return;
            }
        }
    }
}

/// A disk on which the files are durable only up to `durable` bytes of the one that there is.
fn unsynced(files: &BTreeMap<String, Vec<u8>>, durable: usize) -> MemoryDisk {
    use wattle::effects::Disk;
    let (name, bytes) = files.first_key_value().unwrap();
    let disk = MemoryDisk::with_contents(BTreeMap::from([(name.clone(), bytes[..durable].to_vec())]));
    disk.open(name).unwrap().write_at(&bytes[durable..], durable as u64).unwrap();
    disk
}
