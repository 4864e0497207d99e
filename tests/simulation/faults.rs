//! What goes wrong with the disk, and the clocks.
//!
//! Injected: errors of the device (EIO) and for want of room, of every operation, of all files or of one kind, once or
//! several times; a disk that is nearly full; the loss of the power after so many operations, after which nothing
//! succeeds. A crash leaves of each unsynced block the new or the old contents, a torn mixture, zeroes or a flipped
//! bit; of lengths and of changes of names any subset. Zeroes and flipped bits only where the block held nothing
//! durable: what a disk destroys of what it had promised is damage, and `damage.rs` plants that.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wattle::effects::memory::{BLOCK_BYTES, Operation, Survival, UnsyncedChange};
use wattle::effects::{Clock, MemoryDisk};

use super::random::Random;

/// So many operations in one step, and somebody makes room on the full disk.
const PATIENCE: u64 = 200;

/// One fault to come.
#[derive(Debug, Clone)]
pub(crate) struct Armed {
    pub(crate) kind: &'static str,
    /// How the name of the file begins.
    pub(crate) of: &'static str,
    pub(crate) skip: u64,
    pub(crate) times: u64,
    pub(crate) is_full: bool,
}

#[derive(Default)]
struct State {
    /// So many more operations that change something succeed.
    power: Option<u64>,
    armed: Vec<Armed>,
    fired: Fired,
    operations: u64,
}

/// What has failed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fired {
    /// For which the log may stop.
    pub(crate) hard: u64,
    /// For want of room, which passes.
    pub(crate) soft: u64,
    pub(crate) reads: u64,
}

/// Decides what fails.
#[derive(Default)]
pub(crate) struct Faults(Mutex<State>);

fn kind(operation: Operation) -> &'static str {
    match operation {
        Operation::Read(_) => "read",
        Operation::Write(_) => "write",
        Operation::Sync => "sync",
        Operation::Truncate => "truncate",
        Operation::Allocate(_) => "allocate",
        Operation::Create => "create",
        Operation::Remove => "remove",
        Operation::Rename => "rename",
        Operation::SyncFolder => "sync_folder",
        Operation::SyncAll => "sync_all",
    }
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this disk ask here.
    pub(crate) fn attach(self: &Arc<Self>, disk: &MemoryDisk) {
        let (faults, of) = (self.clone(), disk.clone());
        disk.set_fault_on(move |name, operation| faults.answer(&of, name, operation));
    }

    fn answer(&self, disk: &MemoryDisk, name: &str, operation: Operation) -> io::Result<()> {
        let mut state = self.state();
        state.operations += 1;
        if state.operations > PATIENCE {
            drop(state);
            disk.set_capacity(None);
            state = self.state();
        }
        let kind = kind(operation);
        if kind != "read"
            && let Some(left) = &mut state.power
        {
            if *left == 0 {
                state.fired.hard += 1;
                return Err(io::Error::other("the power is gone"));
            }
            *left -= 1;
        }
        let mut failure = None;
        for armed in &mut state.armed {
            if armed.kind != kind || !name.starts_with(armed.of) || armed.times == 0 {
                continue;
            }
            if armed.skip > 0 {
                armed.skip -= 1;
                continue;
            }
            armed.times -= 1;
            failure = Some(armed.is_full);
        }
        // a sync that fails is never only for want of room
        let passes = matches!(kind, "write" | "allocate" | "create" | "rename" | "remove");
        match failure {
            None => Ok(()),
            Some(true) => {
                *(if passes { &mut state.fired.soft } else { &mut state.fired.hard }) += 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(false) => {
                state.fired.hard += 1;
                state.fired.reads += u64::from(kind == "read");
                Err(io::Error::from_raw_os_error(5))
            }
        }
    }

    pub(crate) fn arm(&self, armed: Armed) {
        self.state().armed.push(armed);
    }

    pub(crate) fn power_off_after(&self, operations: u64) {
        self.state().power = Some(operations);
    }

    /// Nothing fails any more.
    pub(crate) fn disarm(&self) {
        let mut state = self.state();
        (state.power, state.armed) = (None, Vec::new());
    }

    /// There is room from now on.
    pub(crate) fn disarm_full(&self) {
        self.state().armed.retain(|armed| !armed.is_full);
    }

    pub(crate) fn begin_step(&self) {
        self.state().operations = 0;
    }

    pub(crate) fn fired(&self) -> Fired {
        self.state().fired
    }
}

/// A fault by chance.
pub(crate) fn any_fault(random: &mut Random) -> Armed {
    let kinds =
        ["write", "sync", "sync_all", "read", "rename", "remove", "create", "allocate", "truncate", "sync_folder"];
    let mut armed = Armed {
        kind: random.pick(&kinds),
        of: random.pick(&["", "", "journal-", "segment-", "state", "spare-", "index-"]),
        skip: random.pick(&[0, 0, 0, 1, 2, 5, 20]),
        times: random.pick(&[1, 1, 1, 2, 5]),
        is_full: random.once_in(2),
    };
    if armed.kind == "sync" {
        armed.of = random.pick(&["", "journal-", "state"]);
    }
    if matches!(armed.kind, "sync_all" | "sync_folder") {
        armed.of = "";
    }
    if matches!(armed.kind, "read" | "truncate") {
        armed.is_full = false;
    }
    armed
}

/// The disk after the loss of the power.
pub(crate) fn crashed(disk: &MemoryDisk, random: &mut Random) -> MemoryDisk {
    let (seen, synced) = (disk.contents(), disk.after_crash(|| false).contents());
    // from nothing at all to everything, and how much of the rest is worse than that
    let keep = random.below(5);
    let worse = random.pick(&[0, 0, 1, 4]);
    let mut choice = Random::new(random.next());
    disk.after_crash_with(|unsynced| {
        let survival = if choice.below(4) < keep { Survival::New } else { Survival::Old };
        let UnsyncedChange::Block { name, block } = unsynced else { return survival };
        if choice.below(8) >= worse {
            return survival;
        }
        match choice.below(3) {
            1 if held_nothing(&seen, &synced, name, block) => Survival::Zeroed,
            2 if held_nothing(&seen, &synced, name, block) => Survival::Garbled(choice.next() as u16),
            _ => Survival::Torn(choice.below(BLOCK_BYTES as u64 + 1) as u16),
        }
    })
}

/// Whether a block held nothing durable: files are written from the front to the back, so one that begins with
/// something new holds nothing else.
fn held_nothing(
    seen: &BTreeMap<String, Vec<u8>>,
    synced: &BTreeMap<String, Vec<u8>>,
    name: &str,
    block: usize,
) -> bool {
    let first = |files: &BTreeMap<String, Vec<u8>>| files.get(name)?.get(block * BLOCK_BYTES).copied();
    if name.starts_with("state") {
        return false; // written in place, page by page
    }
    match (first(seen), first(synced)) {
        (Some(new), Some(old)) => new != old,
        // it grew, or has just come into being; what was renamed held something under its other name
        (Some(_), None) => synced.contains_key(name) || name.starts_with("segment-"),
        (None, _) => false,
    }
}

/// Two hands: the wall clock, which jumps, and one that never does.
#[derive(Default)]
pub(crate) struct Hands {
    wall_ns: AtomicU64,
    elapsed_ns: AtomicU64,
}

impl Hands {
    pub(crate) fn new(wall_ns: u64, elapsed_ns: u64) -> Arc<Self> {
        Arc::new(Self { wall_ns: wall_ns.into(), elapsed_ns: elapsed_ns.into() })
    }

    pub(crate) fn pass(&self, ns: u64) {
        self.wall_ns.fetch_add(ns, Ordering::Relaxed);
        self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn set_wall(&self, ns: u64) {
        self.wall_ns.store(ns, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.wall_ns.load(Ordering::Relaxed)
    }

    fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns.load(Ordering::Relaxed)
    }
}
