//! A process that is killed at any call that writes, syncs, names or removes a file: whatever it was about, the end
//! of a journal file, a checkpoint, the removal of old events or a start, the next process finds all that was
//! acknowledged, each event processed at most once, and nothing gone that was not processed (rows 10 to 12).

use std::path::Path;

use crate::faults::is_thorough;
use crate::faults::ledger::{End, Ledger};
use crate::faults::life::Life;
use crate::faults::strace::Fault;

/// Lives in one folder, so that each start finds what a kill has left, which may be another start. Then a new folder,
/// so that it does not grow for ever.
const LIVES_PER_FOLDER: u32 = 20;

/// Kills at the nth call for growing n, until a life comes through.
async fn kill_at_every(call: &'static str, first: u32, life: impl Fn(&Path, u64) -> Life) {
    let mut ledger = Ledger::new();
    let (mut nth, mut lives, mut killed, mut survived, mut acked) = (first, 0, 0, 0, 0);
    while survived < 2 {
        let fault = Fault::kill(call, nth);
        match ledger.live(&life, Some(&fault)) {
            End::Killed => (killed, survived) = (killed + 1, 0),
            End::Survived => survived += 1,
            End::Failed => panic!("{fault:?}: {}", ledger.said),
        }
        ledger.check(&format!("{fault:?}, life {lives}")).await;
        nth += if is_thorough() { 1 } else { 1 + nth / 6 };
        lives += 1;
        if lives % LIVES_PER_FOLDER == 0 {
            acked += ledger.acked();
            ledger = Ledger::new();
        }
    }
    acked += ledger.acked();
    eprintln!("{call}: {killed} of {lives} lives were killed, up to its call {nth}; {acked} events acknowledged");
    // a file is cut off only where a kill has left too much of it
    assert!(killed > 0 || call == "ftruncate", "{call} is never called");
    assert!(acked > 0);
}

/// Calls that change the disk. A program opens files before it is ours, so the first ones are left out.
const CALLS: [(&str, u32); 7] =
    [("pwrite64", 1), ("fdatasync", 1), ("fsync", 1), ("rename", 1), ("unlink", 1), ("fallocate", 1), ("openat", 16)];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_while_it_appends_it_loses_nothing() {
    for (call, first) in CALLS {
        kill_at_every(call, first, Life::of_small_appends).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_while_it_makes_checkpoints_it_loses_nothing() {
    for (call, first) in CALLS {
        kill_at_every(call, first, Life::of_large_appends).await;
    }
    kill_at_every("ftruncate", 1, Life::of_large_appends).await;
}
