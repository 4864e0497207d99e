//! Damage to what had been durable is refused, with the place, and changes nothing.

use wattle::effects::MemoryDisk;
use wattle::log::Damage;

use super::layout::{FILE_HEAD, Frame, HEAD, MARK, UNIT, Writer, frame_starts, name, unit};
use super::support::{P, append, open, options, refused, stored, try_open};

/// Four durable events behind the first mark, proved by the mark at the end.
fn journal() -> Writer {
    let mut writer = Writer::new();
    for offset in 0..4 {
        writer.event(offset, &format!("event{offset}"));
        writer.synced();
    }
    writer.mark();
    writer
}

/// A producer knows the layout, the epoch, and where its event will lie. It does not know from where frames are
/// counted.
#[test]
fn frames_in_the_data_of_an_event_prove_nothing() {
    for guessed in [1, 2, 3, 4, 1_000] {
        let mut writer = Writer::counting_from(0x5eed_5eed);
        writer.event(0, "first");
        writer.synced();
        let position = writer.next.position;
        let mut torn = writer.frame(UNIT, unit(None, &[((1, 0), 1, &[&"x".repeat(400)])]));
        let at = torn.body.len() - 200;
        let forged = Frame {
            position: position + (HEAD + at) as u64,
            durable: position + 1,
            sequence: guessed,
            body: Vec::new(),
            ..writer.frame(MARK, Vec::new())
        };
        let forged = forged.encode();
        torn.body[at..at + forged.len()].copy_from_slice(&forged);
        writer.push(&torn);
        let torn_at = FILE_HEAD + position as usize + HEAD + 40;
        writer.last()[torn_at] ^= 1;
        let disk = MemoryDisk::with_contents(writer.files.clone());
        let (log, replay) = open(&disk, options());
        assert_eq!(stored(&log, P), ["first"], "sequence {guessed}");
        assert!(replay.void_bytes > 0);
    }
}

#[test]
fn a_flipped_bit_below_a_durable_mark_is_refused_with_its_place() {
    let writer = journal();
    let whole = &writer.files[&name(0)];
    let starts = frame_starts(whole);
    let (mark, durable) = starts.split_last().unwrap();
    for byte in FILE_HEAD..*mark {
        let mut files = writer.files.clone();
        files.get_mut(&name(0)).unwrap()[byte] ^= 1 << (byte % 8);
        let damage = refused(&files);
        let Damage::Journal { file, byte: at, .. } = &damage else { panic!("byte {byte}: {damage:?}") };
        let frame = durable.iter().rev().find(|start| **start <= byte).unwrap();
        assert_eq!((file.as_str(), *at), (name(0).as_str(), *frame as u64), "{damage}");
        assert!(damage.to_string().contains(&name(0)), "{damage}");
    }
}

#[test]
fn a_flipped_bit_in_the_head_of_a_file_with_frames_is_refused() {
    let writer = journal();
    for byte in 0..FILE_HEAD {
        let mut files = writer.files.clone();
        files.get_mut(&name(0)).unwrap()[byte] ^= 4;
        let damage = refused(&files);
        assert!(matches!(&damage, Damage::Journal { byte: 0, .. }), "byte {byte}: {damage:?}");
    }
}

#[tokio::test]
async fn after_a_clean_close_nothing_depends_on_the_journal() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    for number in 0..3 {
        append(&log, P, &number.to_string()).await;
    }
    log.close();
    let files = disk.contents();
    for start in frame_starts(&files[&name(0)]) {
        let mut files = files.clone();
        files.get_mut(&name(0)).unwrap()[start + 20] ^= 1;
        let (log, replay) = try_open(&MemoryDisk::with_contents(files), options()).unwrap();
        assert_eq!((stored(&log, P).len(), replay.frames), (3, 0), "frame at {start}");
    }
}

/// Three files of two events each.
fn three_files() -> (Writer, Vec<String>) {
    let mut writer = Writer::new();
    let mut names = vec![name(0)];
    for offset in 0..6 {
        writer.event(offset, "event");
        writer.synced();
        if offset == 1 || offset == 3 {
            writer.roll();
            names.push(writer.last_name().to_owned());
        }
    }
    (writer, names)
}

#[tokio::test]
async fn several_files_are_one_journal() {
    let (writer, names) = three_files();
    let disk = MemoryDisk::with_contents(writer.files);
    let (log, replay) = open(&disk, options());
    assert_eq!((stored(&log, P).len(), replay.frames), (6, 7));
    append(&log, P, "after").await;
    log.close();
    let left: Vec<_> = disk.contents().into_keys().filter(|name| name.starts_with("journal-")).collect();
    assert_eq!(left, names[2..], "all is checkpointed, so earlier files are not needed any more");
    assert_eq!(stored(&open(&disk, options()).0, P).len(), 7);
}

#[test]
fn a_missing_file_is_named() {
    let (writer, names) = three_files();
    for missing in &names[..2] {
        let mut files = writer.files.clone();
        files.remove(missing);
        let damage = refused(&files);
        match &damage {
            Damage::MissingFile { file } => assert_eq!(file, missing),
            // without the first file and a checkpoint there is no telling where to begin
            other => assert!(matches!(other, Damage::MissingState) && *missing == names[0], "{damage:?}"),
        }
    }
}

#[test]
fn an_earlier_file_is_proved_to_its_last_byte() {
    let (writer, names) = three_files();
    for (earlier, next) in [(0, 1), (1, 2)] {
        let whole = writer.files[&names[earlier]].clone();
        let starts = frame_starts(&whole);
        for cut in 0..whole.len() {
            let mut files = writer.files.clone();
            files.insert(names[earlier].clone(), whole[..cut].to_vec());
            let damage = refused(&files);
            match &damage {
                Damage::Journal { file, byte, .. } => {
                    let expected = starts.iter().rev().find(|start| cut >= FILE_HEAD && **start <= cut).unwrap_or(&0);
                    assert_eq!((file, *byte), (&names[earlier], *expected as u64), "cut at {cut}");
                }
                // cut between two frames: what is there is whole, and the next file begins too far on
                Damage::MissingFile { .. } => assert!(starts.contains(&cut), "cut at {cut}, in front of {next}"),
                _ => panic!("cut at {cut}: {damage}"),
            }
        }
    }
}

#[tokio::test]
async fn a_last_file_that_was_never_used_is_removed() {
    let (mut writer, _) = three_files();
    writer.roll();
    let last = writer.last_name().to_owned();
    for head in [vec![], vec![0; 7], vec![0; FILE_HEAD], writer.last()[..FILE_HEAD - 1].to_vec()] {
        writer.files.insert(last.clone(), head);
        let disk = MemoryDisk::with_contents(writer.files.clone());
        let (log, _) = open(&disk, options());
        assert!(!disk.contents().contains_key(&last));
        append(&log, P, "after").await;
        log.close();
        assert_eq!(stored(&open(&disk, options()).0, P).len(), 7);
    }
}

#[test]
fn what_a_newer_release_wrote_is_refused_and_not_taken_for_a_torn_write() {
    for (version, kind) in [(6, 1), (1, 4), (2, 4), (3, 4), (5, 4), (255, 255)] {
        let mut writer = journal();
        let at = writer.last().len() as u64;
        let mut frame = writer.frame(kind, b"of a kind to come".to_vec());
        frame.version = version;
        writer.push(&frame);
        let damage = refused(&writer.files);
        let Damage::Version { file, byte, .. } = &damage else { panic!("{damage:?}") };
        assert_eq!((file, *byte), (&name(0), at), "{damage}");
    }
}

#[test]
fn a_torn_frame_is_no_newer_release() {
    // the first block has only the magic: the version is still to come
    for length in 4..HEAD {
        let mut writer = journal();
        let frame = writer.frame(super::layout::UNIT, vec![1; 40]).encode();
        let mut torn = frame[..length].to_vec();
        torn.resize(frame.len(), 0);
        writer.last().extend(torn);
        let (log, replay) = open(&MemoryDisk::with_contents(writer.files), options());
        assert_eq!((stored(&log, P).len(), replay.frames), (4, 6), "{length} bytes of it");
    }
}
