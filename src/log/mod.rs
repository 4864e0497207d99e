//! The journal: the one order of everything that happens, durable in groups.
//!
//! ```text
//!   producers ─┐  submissions   ┌──────────┐ one write per group  ┌────────┐ one fdatasync for what is written
//!              ├───────────────>│ appender ├─────────────────────>│ syncer ├───> acks, reads from outside
//!   lanes ─────┘  (bounded)     └────┬─────┘                      └────────┘
//!                                    │ into each partition's recent part, where lanes read
//!                                    v
//!                    start ........ cold | recent ....... durable ... written   (of a partition)
//! ```
//!
//! Promises:
//! - A unit is one frame: all of it happens or nothing.
//! - `durable <= written`, both only grow, and an ack comes after what it promises.
//! - What recovery accepts is made durable before anything else is done with it.
//! - After a failed write or sync nothing is acked any more: the log is poisoned.
//! - Memory is bounded: queues and the recent part by bytes, the index by one entry per stride of journal.
//!
//! Relies on: the disk of [`crate::effects`].
//! Must not know: names, topologies, what is inside a record, who reads.

mod appender;
mod cold;
mod files;
mod frame;
mod partition;
mod recovery;
mod syncer;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

pub use appender::{Acquired, Placed, Refused, Ticket};
pub use cold::{ColdError, ColdReader};
pub use partition::{Partition, Recent};
pub use recovery::Damage;

use crate::effects::{Clock, Disk};
use crate::limits;
use crate::model::{LaneId, PartitionId};
use appender::{Appender, Queue};
use files::Files;

/// When what was appended counts as durable, and so is acked and shown outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When `fdatasync` has returned for it.
    Sync,
    /// When it is written; `fdatasync` follows within the interval. The loss of the machine loses at most that.
    Interval(Duration),
    /// When it is written; the operating system writes it to the disk when it likes.
    Os,
}

/// How the log behaves.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// See there.
    pub durability: Durability,
    /// Size in bytes at which a journal file is closed and the next one begun.
    pub file_bytes: u64,
    /// Bytes of the recent part of the journal that stay in memory.
    pub recent_bytes_max: usize,
    /// From where the frames of a new journal are counted: a number that no producer can guess, below 2^63.
    pub first_sequence: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            file_bytes: limits::JOURNAL_FILE_BYTES,
            recent_bytes_max: limits::TAIL_BYTES_MAX,
            first_sequence: 1,
        }
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("cannot {what} {name}: {error}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        name: String,
        /// What the file system said.
        error: io::Error,
    },
    /// What is on the disk is not what was written. Nothing was changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The thread could not be started.
    #[error("cannot start the appender's thread: {0}")]
    Thread(io::Error),
}

/// Whether the log still works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It does.
    Working,
    /// It was closed, everything is durable.
    Closed,
    /// A write or sync failed: nothing can be promised any more.
    Poisoned(Arc<str>),
}

/// What a lane is in the log.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    /// Everything below is consumed, by units that are written.
    position: AtomicU64,
    /// How often the lane was acquired. A session with a lower number is fenced.
    owner: AtomicU64,
}

/// What the log told at its opening of what it holds.
#[derive(Debug, Default)]
pub struct Replay {
    /// The catalogue entries, in their order.
    pub catalogue: Vec<Bytes>,
    /// How many frames were accepted.
    pub frames: u64,
    /// Bytes at the end of the journal that had not been written whole, and are void.
    pub void_bytes: u64,
}

/// The log. Dropping the last handle closes it.
pub struct Log {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the appender and the readers share.
pub(crate) struct Shared {
    partitions: RwLock<HashMap<PartitionId, Arc<Partition>>>,
    lanes: RwLock<HashMap<LaneId, Arc<Lane>>>,
    files: Files,
    queue: Queue,
    condition: watch::Sender<Condition>,
    epoch: u32,
}

impl Shared {
    fn is_poisoned(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::Poisoned(_))
    }

    /// A write or sync failed: from here on nothing is acked. The first reason stays.
    fn poison(&self, reason: &str) {
        self.queue.close(); // first, so that nothing is taken in that is then forgotten
        let poisoned = self.condition.send_if_modified(|condition| {
            let works = *condition == Condition::Working;
            if works {
                *condition = Condition::Poisoned(reason.into());
            }
            works
        });
        if poisoned {
            tracing::error!(reason, "the journal cannot be written: nothing is acknowledged any more");
            self.wake_all();
        }
    }

    /// Wakes every reader, so that it sees that the log has stopped.
    fn wake_all(&self) {
        for partition in self.partitions.read().unwrap_or_else(PoisonError::into_inner).values() {
            partition.wake_all();
        }
    }

    fn partition(&self, id: PartitionId) -> Arc<Partition> {
        if let Some(partition) = self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return partition.clone();
        }
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.entry(id).or_insert_with(|| Arc::new(Partition::default())).clone()
    }

    fn lane(&self, id: LaneId) -> Arc<Lane> {
        if let Some(lane) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return lane.clone();
        }
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Lane { id, position: AtomicU64::new(0), owner: AtomicU64::new(0) });
        lanes.entry(id).or_insert_with(new).clone()
    }
}

impl Log {
    /// Opens the journal in `disk`, recovers what is there, and starts the appender.
    ///
    /// # Errors
    /// [`OpenError`]. Where it is [`OpenError::Damaged`], nothing on the disk was changed.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: LogOptions) -> Result<(Self, Replay), OpenError> {
        let recovered = recovery::recover(&disk, options.first_sequence)?;
        let shared = Arc::new(Shared {
            partitions: RwLock::new(recovered.partitions),
            lanes: RwLock::new(recovered.lanes),
            files: recovered.files,
            queue: Queue::new(),
            condition: watch::Sender::new(Condition::Working),
            epoch: recovered.link.epoch,
        });
        let appender = Appender::start(shared.clone(), disk, clock, options, recovered.link, recovered.durable)?;
        let thread = std::thread::Builder::new()
            .name("wattle-appender".into())
            .spawn(move || appender.run())
            .map_err(OpenError::Thread)?;
        let log = Self { shared, thread: Mutex::new(Some(thread)) };
        Ok((log, recovered.replay))
    }

    /// A partition; it comes into being when first asked for.
    pub fn partition(&self, id: PartitionId) -> Arc<Partition> {
        self.shared.partition(id)
    }

    /// A lane; it comes into being when first asked for.
    pub fn lane(&self, id: LaneId) -> Arc<Lane> {
        self.shared.lane(id)
    }

    /// The recovery epoch of what is appended from now on.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Whether the log works, and every change of that.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// A reader of what is no longer in memory.
    pub fn cold_reader(&self) -> ColdReader {
        ColdReader::new(self.shared.clone())
    }

    /// Takes nothing more, writes and syncs what was taken, and ends the appender. Blocks until it has.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            self.shared.condition.send_replace(Condition::Poisoned("the appender panicked".into()));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}
