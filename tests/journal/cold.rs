//! Reads of what is no longer in memory give what memory gave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wattle::effects::memory::Operation;
use wattle::effects::{Disk, MemoryDisk};
use wattle::limits;
use wattle::log::{ColdError, LogOptions, Recent};

use super::layout::{FILE_HEAD, name};
use super::support::{MANY, P, Q, Random, append, cold, open, options, slices, submit};

/// What memory gives of a partition, or nothing where it is not all there.
fn warm(log: &wattle::log::Log, partition: wattle::model::PartitionId) -> Option<Vec<String>> {
    let end = log.partition(partition).written();
    match log.partition(partition).recent(0, end, MANY, usize::MAX) {
        Recent::Chunks(chunks) => {
            let text = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
            Some(chunks.iter().flat_map(|chunk| chunk.iter().map(|s| text(s.record)).collect::<Vec<_>>()).collect())
        }
        Recent::AtEnd => Some(Vec::new()),
        Recent::Cold => None,
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

#[tokio::test]
async fn cold_is_as_warm_across_files_and_windows() {
    for file_bytes in [1, 10_000, 300_000, 1 << 30] {
        let disk = MemoryDisk::default();
        let small = LogOptions { file_bytes, recent_bytes_max: 1 << 30, ..options() };
        let (log, _) = open(&disk, small.clone());
        fill(&log, 7).await;
        let (p, q) = (warm(&log, P).unwrap(), warm(&log, Q).unwrap());
        assert!(p.len() > 300 && q.len() > 10);
        assert!(cold(&log, P) == p && cold(&log, Q) == q, "files of {file_bytes} bytes");
        log.close();
        let files = disk.contents().len();
        assert!(if file_bytes == 1 { files >= 300 } else { file_bytes < (1 << 30) || files == 1 }, "{files} files");
        let (log, _) = open(&disk, small);
        assert!(warm(&log, P).is_none(), "after a start nothing is in memory");
        assert!(cold(&log, P) == p && cold(&log, Q) == q, "files of {file_bytes} bytes, after a start");
    }
}

#[tokio::test]
async fn a_cold_read_starts_anywhere_and_keeps_to_its_budget() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, LogOptions { file_bytes: 50_000, ..options() });
    fill(&log, 8).await;
    let all = warm(&log, P).unwrap();
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
        let (log, _) = open(&disk, LogOptions { file_bytes: 2_000, recent_bytes_max, ..options() });
        let log = Arc::new(log);
        let reads = std::thread::spawn({
            let log = log.clone();
            move || {
                let (mut reader, mut texts) = (log.cold_reader(), Vec::new());
                let mut colds = 0;
                while texts.len() < 600 {
                    let (from, end) = (texts.len() as u64, log.partition(P).written());
                    let chunks = match log.partition(P).recent(from, end, 7, 300) {
                        Recent::Chunks(chunks) => chunks,
                        Recent::AtEnd => continue,
                        Recent::Cold => {
                            colds += 1;
                            reader.read(P, from, end, 7, 300).unwrap()
                        }
                    };
                    assert!(!chunks.is_empty());
                    for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
                        assert_eq!(stored.offset, texts.len() as u64);
                        texts.push(String::from_utf8(stored.record.to_vec()).unwrap());
                    }
                }
                (texts, colds)
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
            ticket.await.unwrap();
        }
        let (texts, colds) = reads.join().unwrap();
        assert_eq!(texts, (0..600).map(|number| format!("event {number}")).collect::<Vec<_>>());
        assert!(recent_bytes_max > 0 || colds > 0, "without room everything is cold");
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
async fn the_index_spares_a_reader_what_lies_between() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, LogOptions { recent_bytes_max: 0, ..options() });
    // events of Q far apart, with more of P between them than a stride of the index and a window have
    let between = "x".repeat(limits::INDEX_STRIDE_BYTES as usize);
    for number in 0..6 {
        append(&log, Q, &format!("rare {number}")).await;
        for _ in 0..12 {
            append(&log, P, &between).await;
        }
    }
    for log in [&log, &open(&MemoryDisk::with_contents(disk.contents()), options()).0] {
        let _ = cold(log, Q);
    }
    let bytes = count_reads(&disk);
    assert_eq!(cold(&log, Q).len(), 6);
    let stride = limits::INDEX_STRIDE_BYTES.max(limits::COLD_READ_BYTES as u64);
    let read = bytes.load(Ordering::Relaxed);
    assert!(read <= 6 * 4 * stride, "{read} bytes read for six small events, of {} in the journal", 72 * between.len());
    // one event in the middle
    bytes.store(0, Ordering::Relaxed);
    let chunks = log.cold_reader().read(Q, 3, 4, MANY, usize::MAX).unwrap();
    assert_eq!(chunks[0].base_offset, 3);
    assert!(bytes.load(Ordering::Relaxed) <= 2 * stride);
}

#[tokio::test]
async fn a_reader_that_goes_on_reads_each_byte_once() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, LogOptions { recent_bytes_max: 0, ..options() });
    for _ in 0..2_000 {
        append(&log, P, &"x".repeat(1_000)).await;
    }
    let bytes = count_reads(&disk);
    let (mut reader, mut from) = (log.cold_reader(), 0);
    while from < 2_000 {
        from = reader.read(P, from, 2_000, 16, usize::MAX).unwrap().last().unwrap().end_offset();
    }
    let (read, length) = (bytes.load(Ordering::Relaxed), disk.contents()[&name(0)].len() as u64);
    assert!(read < length + length / 4, "{read} bytes read of a journal of {length}");
}

#[tokio::test]
async fn a_time_is_found_wherever_it_lies() {
    for file_bytes in [1, 1_000, 1 << 30] {
        let disk = MemoryDisk::default();
        let (log, _) = open(&disk, LogOptions { file_bytes, recent_bytes_max: 0, ..options() });
        for number in 0..40 {
            append(&log, if number % 3 == 0 { Q } else { P }, &number.to_string()).await;
        }
        for partition in [P, Q] {
            let end = log.partition(partition).written();
            let chunks = log.cold_reader().read(partition, 0, end, MANY, usize::MAX).unwrap();
            let mut times = Vec::new();
            let mut from = 0;
            let mut reader = log.cold_reader();
            drop(chunks);
            while from < end {
                for chunk in reader.read(partition, from, end, MANY, usize::MAX).unwrap() {
                    times.extend(chunk.iter().map(|stored| stored.append_time_ns));
                    from = chunk.end_offset();
                }
            }
            for time in 0..60 {
                let expected = times.iter().position(|at| *at >= time).unwrap_or(times.len()) as u64;
                assert_eq!(log.cold_reader().offset_at_time(partition, time, end).unwrap(), expected, "at {time}");
            }
        }
    }
}

#[tokio::test]
async fn a_cold_read_of_damage_is_an_error_and_never_a_hole() {
    // Every bit matters here: also those that say to which partition and offset the events belong.
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, LogOptions { recent_bytes_max: 0, ..options() });
    for number in 0..4 {
        append(&log, P, &format!("event {number}")).await;
        append(&log, Q, "elsewhere").await;
    }
    let file = disk.open(&name(0)).unwrap();
    let whole = disk.contents()[&name(0)].clone();
    let expected = ["event 0", "event 1", "event 2", "event 3"];
    let last_frame = *super::layout::frame_starts(&whole).last().unwrap();
    let mut refusals = 0;
    for byte in FILE_HEAD..whole.len() {
        file.write_at(&[whole[byte] ^ (1 << (byte % 8))], byte as u64).unwrap();
        let (mut reader, mut texts): (_, Vec<String>) = (log.cold_reader(), Vec::new());
        while texts.len() < 4 {
            match reader.read(P, texts.len() as u64, 4, MANY, usize::MAX) {
                Ok(chunks) => {
                    let stored = chunks.iter().flat_map(|chunk| chunk.iter());
                    texts.extend(stored.map(|stored| String::from_utf8(stored.record.to_vec()).unwrap()));
                }
                Err(ColdError::Damaged { position, .. }) => {
                    assert!(position <= (byte - FILE_HEAD) as u64 || position < whole.len() as u64);
                    refusals += 1;
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        if byte >= last_frame {
            assert_eq!(texts, expected, "byte {byte} lies behind all that is asked for");
        }
        assert!(expected.starts_with(&texts.iter().map(String::as_str).collect::<Vec<_>>()), "byte {byte}: {texts:?}");
        file.write_at(&whole[byte..=byte], byte as u64).unwrap();
    }
    assert!(refusals > 4 * 60, "most flips hit the four frames of the partition: {refusals}");
    assert_eq!(cold(&log, P), expected, "and whole again it is read again");
}
