//! Which thread writes: the caller's if the appender is idle and the group small, else the appender's.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::log::{Log, LogOptions, Settings, WindowOptions};
use wattle::model::{Dedupe, EventId, Mark, Slices, TopicSettings};

use super::support::{LANE, P, Q, append, open, options, stored, submit};

/// The names of the threads that write to the journal.
fn writers(disk: &MemoryDisk) -> Arc<Mutex<Vec<String>>> {
    let writers: Arc<Mutex<Vec<String>>> = Arc::default();
    let names = writers.clone();
    disk.set_fault_on(move |name, operation| {
        if name.starts_with("journal-") && matches!(operation, Operation::Write(_)) {
            names.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
        }
        Ok(())
    });
    writers
}

#[tokio::test]
async fn a_caller_writes_what_is_small_and_the_appender_what_is_not() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    let writers = writers(&disk);
    append(&log, P, "small").await;
    let first = writers.lock().unwrap().first().cloned();
    assert_ne!(first.as_deref(), Some("wattle-appender"));
    writers.lock().unwrap().clear();
    append(&log, P, &"x".repeat(100_000)).await; // more than a file: another one is begun, which is waited for
    let names = std::mem::take(&mut *writers.lock().unwrap());
    assert!(names.iter().any(|name| name == "wattle-appender"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_callers_and_the_order_of_each_is_kept() {
    const CALLERS: usize = 8;
    const EVENTS: usize = 300;
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    let log = Arc::new(log);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let log = log.clone();
            std::thread::spawn(move || {
                // some are larger than what a caller writes itself, so that they come between those of others
                let event = |event: usize| match event % 50 {
                    7 => format!("{caller} {event}{}", " ".repeat(80_000)),
                    _ => format!("{caller} {event}"),
                };
                let hand_in = |number| submit(&log, if number % 2 == 0 { P } else { Q }, &event(number));
                (0..EVENTS).map(hand_in).collect::<Vec<_>>()
            })
        })
        .collect();
    let tickets: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    for ticket in tickets {
        tokio::time::timeout(Duration::from_secs(60), ticket).await.expect("somebody writes it").unwrap().unwrap();
    }
    for partition in [P, Q] {
        let texts = stored(&log, partition);
        assert_eq!(texts.len(), CALLERS * EVENTS / 2);
        for caller in 0..CALLERS {
            let own = texts.iter().filter_map(|text| text.strip_prefix(&format!("{caller} ")));
            let numbers: Vec<usize> = own.map(|number| number.trim_end().parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "caller {caller}: {numbers:?}");
        }
    }
}

#[tokio::test]
async fn a_caller_does_not_wait_for_a_disk_that_is_full() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    append(&log, P, "first").await;
    let (is_full, refused) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (full, count) = (is_full.clone(), refused.clone());
    disk.set_fault_on(move |name, operation| {
        let is_write = name.starts_with("journal-") && matches!(operation, Operation::Write(_));
        if !is_write || !full.load(Ordering::SeqCst) {
            return Ok(());
        }
        count.fetch_add(1, Ordering::SeqCst);
        Err(io::ErrorKind::StorageFull.into())
    });
    // each comes back at once, also behind one that found no room
    let tickets = ["second", "third", "fourth"].map(|event| submit(&log, P, event));
    assert!(refused.load(Ordering::SeqCst) > 0, "there was no room");
    is_full.store(false, Ordering::SeqCst);
    for ticket in tickets {
        tokio::time::timeout(Duration::from_secs(60), ticket).await.expect("there is room").unwrap().unwrap();
    }
    assert_eq!(stored(&log, P), ["first", "second", "third", "fourth"]);
}

#[tokio::test]
async fn a_caller_does_not_wait_for_a_checkpoint_that_finds_no_room() {
    let disk = MemoryDisk::default();
    // nearly everything may be in the store, by the filters
    let windows = WindowOptions { fingerprint_bits: 1, ..WindowOptions::default() };
    let (log, _) = open(&disk, LogOptions { windows, ..options() });
    let log = Arc::new(log);
    let dedupe = Some(Dedupe { window: Duration::from_secs(3600), count: None });
    let topic = TopicSettings { dedupe, ..TopicSettings::default() };
    log.configure(Settings { topics: [(P.topic, topic)].into(), ..Settings::default() });
    let hand_in = |log: &Log, number: u128| {
        let mut slices = Slices::default();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(number.to_string().as_bytes());
            Ok::<_, ()>(())
        };
        slices.push_marked(P, Mark::Identity(EventId(number << 64)), write).unwrap();
        log.append(slices).unwrap()
    };
    let until = async |what: &str, so: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while !so() {
            assert!(start.elapsed() < Duration::from_secs(60), "not so: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for number in 0..30 {
        hand_in(&log, number).await.unwrap().unwrap();
    }
    let (is_full, synced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (full, count) = (is_full.clone(), synced.clone());
    disk.set_fault_on(move |name, operation| match operation {
        Operation::Write(_) | Operation::Allocate(_) if name == "state" && full.load(Ordering::SeqCst) => {
            Err(io::ErrorKind::StorageFull.into())
        }
        Operation::Sync if name == "state" => {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        _ => Ok(()),
    });
    log.confirm_clock();
    until("there is a checkpoint", &|| synced.load(Ordering::SeqCst) > 0).await;
    hand_in(&log, 30).await.unwrap().unwrap();
    is_full.store(true, Ordering::SeqCst);
    log.confirm_clock();
    until("the store is closed", &|| log.entries(LANE).get(b"none").is_err()).await;
    let (sender, receiver) = std::sync::mpsc::channel();
    let caller = log.clone();
    // on a thread of its own, so that this test ends where it does not come back
    std::thread::spawn(move || sender.send([31, 7, 32].map(|number| hand_in(&caller, number))));
    let tickets = receiver.recv_timeout(Duration::from_secs(30)).expect("the caller comes back, whoever writes it");
    is_full.store(false, Ordering::SeqCst);
    let mut places = Vec::new();
    for ticket in tickets {
        let placed = tokio::time::timeout(Duration::from_secs(60), ticket).await.expect("there is room");
        let placed = placed.unwrap().unwrap();
        places.push((placed.base_offsets[0], placed.duplicates.first().and_then(|first| first.offset)));
    }
    assert_eq!((places[0], places[1].1, places[2]), ((31, None), Some(7), (32, None)));
    assert_eq!(stored(&log, P).len(), 33, "each once");
}
