//! A checkpoint for which there is no room, wherever in it that is found out, loses nothing: it is made later, or it
//! has been made all the same, or the log stops.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::log::{Log, LogOptions, Stepper};

use super::support::{P, Ticks, open, options, slices, stored};

/// A catalogue entry and an event, durable unless the log has stopped. Whether they are.
fn add(log: &Log, stepper: &mut Stepper, text: &str) -> bool {
    let mut entry = pin!(log.catalogue(text.to_owned().into()));
    let mut look = || entry.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if matches!(look(), Poll::Ready(Err(_))) {
        return false;
    }
    let event = log.append(slices(&[(P, text.as_bytes())]));
    stepper.append();
    stepper.sync();
    matches!(look(), Poll::Ready(Ok(()))) && event.is_ok_and(|mut ticket| ticket.try_recv().is_ok())
}

/// What a log promised in which the disk was full once, and what is left of it after a crash. `None` where the
/// checkpoint had fewer operations.
fn run(full_at: u64, checkpoints_later: usize, survives: bool) -> Option<()> {
    // several files, so that a checkpoint gives some of them back
    let options = LogOptions { file_bytes: 200, ..options() };
    let disk = MemoryDisk::default();
    let clock = Arc::new(Ticks::default());
    let (log, _, mut stepper) = Log::open_stepped(Arc::new(disk.clone()), clock, options.clone()).unwrap();
    let mut promised: Vec<String> = (0..4).map(|number| format!("entry {number}")).collect();
    assert!(promised.iter().all(|text| add(&log, &mut stepper, text)));
    // written, and not durable
    let mut unsynced = log.append(slices(&[(P, b"unsynced")])).unwrap();
    stepper.append();
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    disk.set_fault(move |operation| match operation {
        Operation::Read(_) => Ok(()),
        _ if count.fetch_add(1, Ordering::Relaxed) == full_at => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    stepper.checkpoint();
    disk.clear_fault();
    let mut events = promised.clone();
    for _ in 0..checkpoints_later {
        stepper.checkpoint();
    }
    stepper.sync();
    if unsynced.try_recv().is_ok() {
        events.push("unsynced".to_owned());
    }
    for number in 4..7 {
        let text = format!("entry {number}");
        if add(&log, &mut stepper, &text) {
            events.push(text.clone());
            promised.push(text);
        }
        if checkpoints_later > 1 {
            stepper.checkpoint();
        }
    }
    drop((log, stepper));
    let (log, replay) = open(&disk.after_crash(|| survives), options);
    let context =
        format!("operation {full_at}, {checkpoints_later} checkpoints, what is unsynced survives: {survives}");
    let catalogue: Vec<_> = replay.catalogue.iter().map(|entry| String::from_utf8(entry.to_vec()).unwrap()).collect();
    assert!(catalogue.starts_with(&promised), "{context}: {catalogue:?}, promised {promised:?}");
    assert!(stored(&log, P).starts_with(&events), "{context}: {:?}, promised {events:?}", stored(&log, P));
    (asked.load(Ordering::Relaxed) > full_at).then_some(())
}

#[test]
fn room_may_run_out_at_any_operation_of_a_checkpoint() {
    for (checkpoints_later, survives) in [(0, true), (0, false), (1, true), (1, false), (2, true), (2, false)] {
        let operations = (0..).take_while(|full_at| run(*full_at, checkpoints_later, survives).is_some()).count();
        assert!(operations > 5, "a checkpoint does more than that");
    }
}
