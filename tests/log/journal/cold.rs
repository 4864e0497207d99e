//! Reads of what is no longer in memory give what memory gave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{Blueprint, Engine, ReadBudget, Session, SubscriberSpec, TopicSpec, Unit};
use wattle::limits;
use wattle::log::{ColdError, Log, LogOptions, RecentRead, Settings};
use wattle::model::{Compression, LaneId, PartitionId, Retention, TopicSettings};

use super::support::{MANY, P, Q, Random, append, open, options, slices, stored, submit, without_memory};

/// What memory gives of a partition, or nothing where it is not all there.
fn warm(log: &wattle::log::Log, partition: wattle::model::PartitionId) -> Option<Vec<String>> {
    let end = log.partition(partition).written();
    match log.partition(partition).recent(0, end, MANY, usize::MAX) {
        RecentRead::Chunks(chunks) => {
            let text = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
            Some(chunks.iter().flat_map(|chunk| chunk.iter().map(|s| text(s.record)).collect::<Vec<_>>()).collect())
        }
        RecentRead::AtEnd => Some(Vec::new()),
        RecentRead::Cold => None,
    }
}

/// Events of all sizes for two partitions, the second one rarely: frames smaller and larger than a window.
async fn fill(log: &wattle::log::Log, seed: u64) {
    let mut random = Random(seed);
    for number in 0..300 {
        let length = match random.below(20) {
            0 => random.below(2 * limits::COLD_READ_BYTES as u64),
            1..5 => random.below(20_000),
            _ => random.below(100),
        };
        let text = format!("{number}:{}", "x".repeat(length as usize));
        let partition = if random.below(10) == 0 { Q } else { P };
        let extra = format!("{number}: also");
        drop(log.append(slices(&[(partition, text.as_bytes()), (P, extra.as_bytes())])).unwrap().await.unwrap());
    }
}

/// Everything in a partition, read from the disk alone.
fn cold(log: &Log, partition: PartitionId) -> Vec<String> {
    let (mut reader, mut texts, end) = (log.cold_reader(), Vec::new(), log.partition(partition).written());
    while (texts.len() as u64) < end {
        let from = texts.len() as u64;
        let chunks = reader.read(partition, from, end, MANY, usize::MAX).unwrap();
        assert!(!chunks.is_empty(), "nothing at {from}, in front of {end}");
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            assert_eq!(stored.offset, texts.len() as u64);
            texts.push(String::from_utf8(stored.record.to_vec()).unwrap());
        }
    }
    texts
}

/// Closes a log, so that all of it is checkpointed, and opens it again.
fn reopened(log: Log, disk: &MemoryDisk, options: LogOptions) -> Log {
    log.close();
    drop(log);
    let (log, replay) = open(disk, options);
    assert!(replay.frames <= 1, "after a clean end there is nothing to replay");
    log
}

#[tokio::test]
async fn cold_is_as_warm_across_files_and_windows() {
    for file_bytes in [1, 10_000, 300_000, 1 << 24] {
        let disk = MemoryDisk::default();
        let small = LogOptions { file_bytes, recent_bytes_max: 1 << 30, ..options() };
        let (log, _) = open(&disk, small.clone());
        fill(&log, 7).await;
        let (p, q) = (warm(&log, P).unwrap(), warm(&log, Q).unwrap());
        assert!(p.len() > 300 && q.len() > 10);
        let log = reopened(log, &disk, small);
        assert!(warm(&log, P).is_none(), "after a start nothing is in memory");
        assert!(cold(&log, P) == p && cold(&log, Q) == q, "files of {file_bytes} bytes, after a start");
    }
}

#[tokio::test]
async fn compressed_is_as_it_was_and_smaller() {
    let mut sizes = Vec::new();
    for compression in [Compression::None, Compression::Lz4] {
        let disk = MemoryDisk::default();
        let (log, _) = open(&disk, LogOptions { recent_bytes_max: 1 << 30, ..options() });
        log.configure(settings_of(TopicSettings { compression, ..TopicSettings::default() }));
        fill(&log, 7).await;
        let p = warm(&log, P).unwrap();
        let log = reopened(log, &disk, options());
        assert!(cold(&log, P) == p, "{compression:?}");
        let of_p = disk.contents().into_iter().filter(|(name, _)| name.starts_with("segment-00000001-"));
        sizes.push(of_p.map(|(_, bytes)| bytes.len()).sum::<usize>());
    }
    assert!(sizes[1] * 10 < sizes[0], "texts of the same letter: {sizes:?}");
}

/// Settings of the topic of [`P`] alone.
fn settings_of(topic: TopicSettings) -> Settings {
    Settings { topics: HashMap::from([(P.topic, topic)]), readers: HashMap::new(), ..Settings::default() }
}

#[tokio::test]
async fn a_cold_read_starts_anywhere_and_keeps_to_its_budget() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, LogOptions { recent_bytes_max: 1 << 30, ..options() });
    fill(&log, 8).await;
    let all = warm(&log, P).unwrap();
    let log = reopened(log, &disk, options());
    let end = all.len() as u64;
    let mut random = Random(9);
    let mut reader = log.cold_reader();
    for _ in 0..2_000 {
        // mostly somewhere else than where the reader stopped, also of another partition, also in front of the end
        let from = random.below(end);
        let until = from + 1 + random.below(end - from);
        let (events, bytes) = (1 + random.below(9) as u32, random.below(50_000) as usize);
        if random.below(5) == 0 {
            reader.read(Q, 0, 1, 1, 1).unwrap();
        }
        let chunks = reader.read(P, from, until, events, bytes).unwrap();
        let texts: Vec<&[u8]> =
            chunks.iter().flat_map(|chunk| chunk.iter().map(|s| s.record).collect::<Vec<_>>()).collect();
        let context = format!("{from}..{until}, {events} events, {bytes} bytes");
        assert!(!texts.is_empty() && texts.len() <= events as usize, "{context}");
        let size: usize = texts.iter().map(|text| text.len() + 4).sum();
        assert!(texts.len() == 1 || size <= bytes, "{context}");
        assert!(from + texts.len() as u64 <= until, "{context}");
        for (text, expected) in texts.iter().zip(&all[from as usize..]) {
            assert!(*text == expected.as_bytes(), "{context}");
        }
    }
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_read_from_the_disk_at_once() {
    // what a lane reads while others append, roll and evict
    for recent_bytes_max in [0, 500, 5_000] {
        let disk = MemoryDisk::default();
        let small =
            LogOptions { file_bytes: 2_000, recent_bytes_max, checkpoint_bytes: recent_bytes_max / 4, ..options() };
        let (log, _) = open(&disk, small);
        let log = Arc::new(log);
        let reads = std::thread::spawn({
            let log = log.clone();
            move || {
                let (mut reader, mut texts) = (log.cold_reader(), Vec::new());
                while texts.len() < 600 {
                    let (from, end) = (texts.len() as u64, log.partition(P).written());
                    let chunks = match log.partition(P).recent(from, end, 7, 300) {
                        RecentRead::Chunks(chunks) => chunks,
                        RecentRead::AtEnd => continue,
                        RecentRead::Cold => reader.read(P, from, end, 7, 300).unwrap(),
                    };
                    assert!(!chunks.is_empty());
                    for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
                        assert_eq!(stored.offset, texts.len() as u64);
                        texts.push(String::from_utf8(stored.record.to_vec()).unwrap());
                    }
                }
                texts
            }
        });
        let mut tickets = Vec::new();
        for number in 0..600 {
            tickets.push(submit(&log, P, &format!("event {number}")));
            if number % 17 == 0 {
                append(&log, Q, "elsewhere").await;
            }
        }
        for ticket in tickets {
            ticket.await.unwrap().unwrap();
        }
        let texts = reads.join().unwrap();
        assert_eq!(texts, (0..600).map(|number| format!("event {number}")).collect::<Vec<_>>());
        // A quick reader may find all of it in memory. Without room it is not there for long.
        while recent_bytes_max == 0 && !matches!(log.partition(P).recent(0, 1, MANY, usize::MAX), RecentRead::Cold) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Counts the bytes that are asked of the disk.
fn count_reads(disk: &MemoryDisk) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    disk.set_fault(move |operation| {
        if let Operation::Read(length) = operation {
            counted.fetch_add(length as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    bytes
}

#[tokio::test]
async fn the_index_spares_a_reader_what_lies_in_front() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    let large = "x".repeat(limits::BLOCK_BYTES);
    for _ in 0..200 {
        append(&log, P, &large).await;
    }
    let log = reopened(log, &disk, options());
    let mut reader = log.cold_reader();
    reader.read(P, 0, 1, MANY, usize::MAX).unwrap(); // the index is made once
    let bytes = count_reads(&disk);
    let chunks = reader.read(P, 150, 151, MANY, usize::MAX).unwrap();
    assert_eq!(chunks[0].base_offset, 150);
    let read = bytes.load(Ordering::Relaxed);
    assert!(read <= 2 * limits::COLD_READ_BYTES as u64, "{read} bytes read for one of 200 large events");
}

#[tokio::test]
async fn a_reader_that_goes_on_reads_each_byte_once() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    for _ in 0..2_000 {
        append(&log, P, &"x".repeat(1_000)).await;
    }
    let log = reopened(log, &disk, options());
    let bytes = count_reads(&disk);
    let (mut reader, mut from) = (log.cold_reader(), 0);
    while from < 2_000 {
        from = reader.read(P, from, 2_000, 16, usize::MAX).unwrap().last().unwrap().end_offset();
    }
    let read = bytes.load(Ordering::Relaxed);
    assert!(read < 2_100 * 1_000 * 5 / 4, "{read} bytes read of about two million");
}

#[tokio::test]
async fn a_time_is_found_wherever_it_lies() {
    for (recent_bytes_max, checkpoint_bytes) in [(0, 0), (1_000, 100), (1 << 30, 1 << 30)] {
        let disk = MemoryDisk::default();
        let (log, _) = open(&disk, LogOptions { recent_bytes_max, checkpoint_bytes, ..options() });
        for number in 0..40 {
            append(&log, if number % 3 == 0 { Q } else { P }, &number.to_string()).await;
        }
        let mut times: HashMap<PartitionId, Vec<u64>> = HashMap::new();
        let look = |log: &Log, partition: PartitionId| {
            let (mut times, mut reader, mut from) = (Vec::new(), log.cold_reader(), 0);
            let end = log.partition(partition).written();
            while from < end {
                let chunks = match log.partition(partition).recent(from, end, MANY, usize::MAX) {
                    RecentRead::Chunks(chunks) => chunks,
                    _ => reader.read(partition, from, end, MANY, usize::MAX).unwrap(),
                };
                times
                    .extend(chunks.iter().flat_map(|chunk| chunk.iter().map(|s| s.append_time_ns).collect::<Vec<_>>()));
                from = chunks.last().unwrap().end_offset();
            }
            times
        };
        for partition in [P, Q] {
            times.insert(partition, look(&log, partition));
        }
        let last = times.values().flatten().max().unwrap() + 3;
        let check = |log: &Log, partition: PartitionId| {
            let (times, end) = (&times[&partition], log.partition(partition).written());
            for time in 0..last {
                let expected = times.iter().position(|at| *at >= time).unwrap_or(times.len()) as u64;
                assert_eq!(log.cold_reader().offset_at_time(partition, time, end).unwrap(), expected, "at {time}");
            }
        };
        [P, Q].into_iter().for_each(|partition| check(&log, partition));
        let log = reopened(log, &disk, options());
        [P, Q].into_iter().for_each(|partition| check(&log, partition));
    }
}

/// A log with a segment of some blocks of one event each, the segment's name, and what it holds.
async fn blocks() -> (MemoryDisk, String, Vec<String>) {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, without_memory());
    let texts: Vec<String> = (0..5).map(|number| format!("event {number}")).collect();
    for text in &texts {
        append(&log, P, text).await;
        append(&log, Q, "elsewhere").await;
    }
    log.close();
    drop(log);
    let name = "segment-00000001-00000000-0000000000000000".to_owned();
    assert!(disk.contents().contains_key(&name));
    (disk, name, texts)
}

/// What can be read of each event of [`P`], one by one.
fn each(log: &Log, count: u64) -> Vec<Result<String, ColdError>> {
    let read = |from| {
        let chunks = log.cold_reader().read(P, from, from + 1, 1, usize::MAX)?;
        let stored = chunks[0].iter().next().unwrap();
        assert_eq!(stored.offset, from);
        Ok(String::from_utf8(stored.record.to_vec()).unwrap())
    };
    (0..count).map(read).collect()
}

#[tokio::test]
async fn every_flipped_bit_of_a_segment_costs_its_own_events_and_no_others() {
    let (disk, name, texts) = blocks().await;
    let whole = disk.contents();
    let bytes = whole[&name].len();
    for byte in 0..bytes {
        let disk = MemoryDisk::with_contents(whole.clone());
        assert!(disk.damage(&name, byte as u64, 1 << (byte % 8)));
        let (log, _) = open(&disk, options());
        let found = each(&log, 5);
        let lost: Vec<usize> = (0..5).filter(|at| found[*at].is_err()).collect();
        assert_eq!(lost, [byte * 5 / bytes], "byte {byte}");
        for (text, found) in texts.iter().zip(&found) {
            match found {
                Ok(found) => assert_eq!(found, text),
                Err(error) => assert!(error.to_string().contains(&name), "{error}"),
            }
        }
        assert_eq!(stored(&log, Q).len(), 5, "its neighbours do not notice");
        assert_eq!(append(&log, P, "after").await, 5, "and it goes on");
    }
}

#[tokio::test]
async fn a_segment_that_is_cut_or_gone_costs_what_was_in_it() {
    let (disk, name, texts) = blocks().await;
    let whole = disk.contents();
    let bytes = whole[&name].len();
    for length in (0..bytes).step_by(7).map(Some).chain([None]) {
        let disk = MemoryDisk::with_contents(whole.clone());
        match length {
            Some(length) => assert!(disk.truncate_durably(&name, length as u64)),
            None => assert!(disk.remove_durably(&name)),
        }
        let (log, _) = open(&disk, options());
        let found = each(&log, 5);
        let readable = length.map_or(0, |length| length * 5 / bytes);
        assert!(found[..readable].iter().zip(&texts).all(|(found, text)| found.as_ref().unwrap() == text));
        assert!(found[readable..].iter().all(Result::is_err), "{length:?}");
        assert_eq!(stored(&log, Q).len(), 5);
    }
}

#[tokio::test]
async fn blocks_that_lie_in_each_others_place_are_noticed() {
    let (disk, name, _) = blocks().await;
    let mut whole = disk.contents();
    let bytes = whole.get_mut(&name).unwrap();
    let block = bytes.len() / 5;
    let (front, back) = bytes.split_at_mut(2 * block);
    front[block..].swap_with_slice(&mut back[..block]);
    let (log, _) = open(&MemoryDisk::with_contents(whole), options());
    let found = each(&log, 5);
    for (at, found) in found.iter().enumerate() {
        match found {
            Ok(text) => assert_eq!(*text, format!("event {at}")),
            Err(_) => assert!([1, 2].contains(&at), "event {at} lies where it should"),
        }
    }
    assert!(found[1].is_err());
}

#[tokio::test]
async fn an_index_is_made_again_where_it_is_gone_or_wrong() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, without_memory());
    // segments that are closed early, since the topic may have so few bytes
    let retention = Retention { partition_bytes: Some(1_000_000), ..Retention::default() };
    log.configure(settings_of(TopicSettings { retention, ..TopicSettings::default() }));
    let large = "x".repeat(40_000);
    for _ in 0..10 {
        append(&log, P, &large).await;
    }
    let log = reopened(log, &disk, without_memory());
    assert_eq!(cold(&log, P).len(), 10);
    drop(log);
    let whole = disk.contents();
    let indexes: Vec<&String> = whole.keys().filter(|name| name.starts_with("index-")).collect();
    assert!(indexes.len() >= 2, "{:?}", whole.keys());
    let index = indexes[0];
    for byte in 0..=whole[index].len() {
        let disk = MemoryDisk::with_contents(whole.clone());
        if !disk.damage(index, byte as u64, 0x10) {
            assert!(disk.remove_durably(index));
        }
        let (log, _) = open(&disk, options());
        assert_eq!(cold(&log, P).len(), 10, "byte {byte}");
        assert!(disk.contents()[index] == whole[index], "it is as it was: byte {byte}");
    }
}

/// Counts the reads of segments that are for more than a head, and their bytes.
fn reads_of_segments(disk: &MemoryDisk) -> Arc<(AtomicU64, AtomicU64)> {
    let reads = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let counted = reads.clone();
    disk.set_fault_on(move |name, operation| {
        if let Operation::Read(bytes) = operation
            && name.starts_with("segment-")
            && bytes > 1_000
        {
            counted.0.fetch_add(1, Ordering::Relaxed);
            counted.1.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    reads
}

#[tokio::test]
async fn lanes_that_catch_up_together_read_each_byte_once() {
    let (disk, event) = (MemoryDisk::default(), vec![7; 1_000]);
    let (log, _) = open(&disk, options());
    for _ in 0..400 {
        let ten: Vec<_> = (0..10).map(|_| (P, event.as_slice())).collect();
        drop(log.append(slices(&ten)).unwrap().await.unwrap());
    }
    let log = reopened(log, &disk, options());
    let (end, reads) = (log.partition(P).written(), reads_of_segments(&disk));
    let mut readers: Vec<_> = (0..3).map(|_| (log.cold_reader(), 0)).collect();
    while readers.iter().any(|(_, from)| *from < end) {
        for (reader, from) in &mut readers {
            let chunks = reader.read(P, *from, end, 50, usize::MAX).unwrap();
            *from = chunks.last().map_or(end, wattle::model::Chunk::end_offset);
        }
    }
    let (stored, read) = (end * 1_000, reads.1.load(Ordering::Relaxed));
    assert!(read * 10 < stored * 13, "{read} bytes read for {stored}");
}

#[tokio::test]
async fn however_many_are_behind_what_is_kept_for_them_is_bounded() {
    let (disk, event) = (MemoryDisk::default(), vec![7; 40_000]);
    let (log, _) = open(&disk, options());
    let partition = |partition| PartitionId { topic: P.topic, partition };
    for number in 0..1_024 {
        drop(log.append(slices(&[(partition(number), event.as_slice())])).unwrap().await.unwrap());
    }
    let log = reopened(log, &disk, options());
    let mut readers = Vec::new();
    for number in 0..1_024 {
        for _ in 0..3 {
            let mut reader = log.cold_reader();
            assert_eq!(reader.read(partition(number), 0, 1, 1, 1).unwrap().len(), 1);
            readers.push(reader);
        }
    }
    assert!(log.cold_bytes() <= limits::COLD_CACHE_BYTES, "{} bytes", log.cold_bytes());
    assert!(log.cold_bytes() > limits::COLD_CACHE_BYTES / 2, "it was full once");
}

#[tokio::test]
async fn several_who_want_the_same_window_wait_for_one_read() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    drop(log.append(slices(&[(P, vec![7; 20_000].as_slice())])).unwrap().await.unwrap());
    let log = reopened(log, &disk, options());
    let reads = reads_of_segments(&disk);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(log.cold_reader().read(P, 0, 1, 1, 1).unwrap().len(), 1));
        }
    });
    assert_eq!(reads.0.load(Ordering::Relaxed), 1);
}

/// A lane gives up waiting whenever something else is due. The read that it had begun goes on, and is the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_nobody_waits_for_any_more_is_not_begun_again() {
    let disk = MemoryDisk::default();
    let open = || {
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(SystemClock));
        EmbeddedEngine::open_with("memory".as_ref(), disk, clock, options()).unwrap()
    };
    let topic = TopicSpec { name: "in".into(), partitions: 1, settings: Default::default(), lifecycle: None };
    let subscriber = SubscriberSpec { name: "reads".into(), from: "in".into() };
    let blueprint = Blueprint { topics: vec![topic], subscribers: vec![subscriber], ..Blueprint::default() };
    let engine = open();
    let numbers = engine.apply(&blueprint).await.unwrap();
    let partition = PartitionId { topic: numbers.topics[0], partition: 0 };
    for number in 0..10_u32 {
        engine.append(slices(&[(partition, &number.to_le_bytes())])).await.unwrap();
    }
    engine.close().await.unwrap();
    drop(engine);

    // what was checkpointed at the end is read from the disk
    let engine = open();
    engine.apply(&blueprint).await.unwrap();
    let lane = LaneId { subscriber: numbers.subscribers[0], partition: 0 };
    let mut session = engine.acquire(lane).await.unwrap();
    let (gate, begun) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(AtomicU64::new(0)));
    disk.set_fault({
        let (gate, begun) = (gate.clone(), begun.clone());
        move |operation| {
            if matches!(operation, Operation::Read(_)) {
                begun.fetch_add(1, Ordering::SeqCst);
                let (is_open, opened) = &*gate;
                drop(opened.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
            }
            Ok(())
        }
    });
    let budget = ReadBudget { events: 100, bytes: 1 << 20 };
    for _ in 0..20 {
        let given_up = tokio::time::timeout(Duration::from_millis(20), session.read(budget)).await;
        assert!(given_up.is_err());
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let chunks = session.read(budget).await.unwrap();
    assert_eq!(chunks.iter().map(|chunk| chunk.count).sum::<u32>(), 10);
    // a seek goes where it says
    session.commit(Unit { consumed_to: 4, is_seek: true, ..Unit::default() }).await.unwrap();
    assert_eq!(session.read(budget).await.unwrap()[0].base_offset, 4);
}
