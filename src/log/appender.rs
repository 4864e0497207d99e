//! The one writer: takes submissions in their order, gives offsets, writes them as a group, syncs, acks.
//!
//! ```text
//!   submitted -> encoded -> written ------> durable -> acked (events from outside)
//!                              └-> lanes see it         └-> readers outside see it
//! ```
//!
//! Everything that has an order goes through the queue, also the acquisition of lanes, so a fenced session's units are
//! either in front of the acquisition, and counted in the position that it returns, or behind it, and refused.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::files::JournalFile;
use super::frame::{Consumed, HEAD_BYTES, Head, Kind, Link, UnitBody, write_frame, write_unit};
use super::partition::{IndexEntry, Partition};
use super::{Condition, Durability, Lane, Log, LogOptions, OpenError, Shared};
use crate::effects::{Clock, Disk};
use crate::limits;
use crate::model::{LaneId, Offset, PartitionId, Slices};

/// Where the slices of an append went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Offset of the first record of each slice.
    pub base_offsets: Vec<Offset>,
}

/// What a session gets of its lane.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Its committed position.
    pub position: Offset,
    /// To be given with each unit.
    pub owner: u64,
}

/// Resolves when what was submitted has come as far as was asked; an error means that the log has stopped.
pub type Ticket<T> = oneshot::Receiver<T>;

/// Room in the queue, given back when the submission has been written or acked.
pub(super) struct Permit {
    _count: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

enum Submission {
    /// Events from outside; the ticket resolves when they are durable.
    Append { slices: Slices, ticket: oneshot::Sender<Placed>, permit: Permit },
    /// A lane's unit.
    Unit { lane: Arc<Lane>, owner: u64, consumed_to: Offset, slices: Slices, permit: Permit },
    /// A new owner of a lane.
    Acquire { lane: Arc<Lane>, ticket: oneshot::Sender<(Offset, u64)> },
    /// A catalogue entry; the ticket resolves when it is durable.
    Catalogue { entry: Bytes, ticket: oneshot::Sender<()> },
    /// Resolves when everything in front of it is written.
    Barrier { ticket: oneshot::Sender<()> },
}

/// What waits for the appender.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    count: Arc<Semaphore>,
    producer_bytes: Arc<Semaphore>,
    lane_bytes: Arc<Semaphore>,
}

struct Waiting {
    submissions: Vec<Submission>,
    closed: bool,
    /// The appender sleeps, so it has to be woken.
    idle: bool,
}

/// Why something was not submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Producers have as much waiting as they may.
    Busy,
    /// The log has stopped.
    Stopped,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting { submissions: Vec::new(), closed: false, idle: false }),
            arrived: Condvar::new(),
            count: Arc::new(Semaphore::new(limits::QUEUE_SUBMISSIONS_MAX)),
            producer_bytes: Arc::new(Semaphore::new(limits::PRODUCER_QUEUE_BYTES_MAX)),
            lane_bytes: Arc::new(Semaphore::new(limits::LANE_QUEUE_BYTES_MAX)),
        }
    }

    fn submit(&self, submission: Submission) -> Result<(), Refused> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return Err(Refused::Stopped);
        }
        waiting.submissions.push(submission);
        let wake = std::mem::take(&mut waiting.idle);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Nothing more is taken; who waits for room is told.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        waiting.idle = false;
        drop(waiting);
        self.arrived.notify_one();
        for semaphore in [&self.count, &self.producer_bytes, &self.lane_bytes] {
            semaphore.close();
        }
    }

    /// Waits for submissions and takes them all. Empty: `patience` is over. `None`: closed, and nothing is left.
    fn take(&self, patience: Option<Duration>, into: &mut Vec<Submission>) -> Option<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.submissions.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting.idle = true;
            waiting = match patience {
                None => self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let woken = self.arrived.wait_timeout(waiting, patience);
                    let (mut waiting, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && waiting.submissions.is_empty() {
                        waiting.idle = false;
                        return if waiting.closed { None } else { Some(()) };
                    }
                    waiting
                }
            };
        }
        waiting.idle = false;
        std::mem::swap(&mut waiting.submissions, into);
        Some(())
    }
}

impl Lane {
    pub(super) fn new(id: LaneId) -> Self {
        Self { id, position: 0.into(), owner: 0.into() }
    }

    /// Everything below is consumed, by units that are written.
    pub fn position(&self) -> Offset {
        self.position.load(Ordering::Acquire)
    }

    /// Whether a session of this number is still the owner.
    pub fn is_owner(&self, owner: u64) -> bool {
        self.owner.load(Ordering::Acquire) == owner
    }
}

impl Log {
    /// Appends events. The ticket resolves when they are durable.
    ///
    /// # Errors
    /// [`Refused::Busy`] when producers have as much waiting as they may; nothing was submitted then.
    pub fn append(&self, slices: Slices) -> Result<Ticket<Placed>, Refused> {
        let permit = |semaphore: &Arc<Semaphore>, room: usize| {
            let room = u32::try_from(room).map_err(|_| Refused::Busy)?;
            semaphore.clone().try_acquire_many_owned(room).map_err(|error| match error {
                tokio::sync::TryAcquireError::Closed => Refused::Stopped,
                tokio::sync::TryAcquireError::NoPermits => Refused::Busy,
            })
        };
        let permit = Permit {
            _count: permit(&self.queue.count, 1)?,
            _bytes: permit(&self.queue.producer_bytes, slices.bytes())?,
        };
        let (sender, ticket) = oneshot::channel();
        self.queue.submit(Submission::Append { slices, ticket: sender, permit })?;
        Ok(ticket)
    }

    /// Hands in a lane's unit, waiting for room. Its owner must have been given by [`Log::acquire`].
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn unit(&self, lane: &Acquired, consumed_to: Offset, slices: Slices) -> Result<(), Refused> {
        let room = u32::try_from(slices.bytes()).unwrap_or(u32::MAX);
        let bytes = self.queue.lane_bytes.clone().acquire_many_owned(room).await.map_err(|_| Refused::Stopped)?;
        let count = self.queue.count.clone().acquire_owned().await.map_err(|_| Refused::Stopped)?;
        let permit = Permit { _count: count, _bytes: bytes };
        let (owner, lane) = (lane.owner, lane.lane.clone());
        self.queue.submit(Submission::Unit { lane, owner, consumed_to, slices, permit })
    }

    /// Makes the caller the owner of a lane.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn acquire(&self, id: LaneId) -> Result<Acquired, Refused> {
        let lane = self.lane(id);
        let (sender, ticket) = oneshot::channel();
        self.queue.submit(Submission::Acquire { lane: lane.clone(), ticket: sender })?;
        let (position, owner) = ticket.await.map_err(|_| Refused::Stopped)?;
        Ok(Acquired { lane, position, owner })
    }

    /// Appends a catalogue entry, and resolves when it is durable.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn catalogue(&self, entry: Bytes) -> Result<(), Refused> {
        let (sender, ticket) = oneshot::channel();
        self.queue.submit(Submission::Catalogue { entry, ticket: sender })?;
        ticket.await.map_err(|_| Refused::Stopped)
    }

    /// Resolves when everything that was submitted before is written.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn barrier(&self) -> Result<(), Refused> {
        let (sender, ticket) = oneshot::channel();
        self.queue.submit(Submission::Barrier { ticket: sender })?;
        ticket.await.map_err(|_| Refused::Stopped)
    }
}

/// What waits for the sync.
enum Ack {
    Append(oneshot::Sender<Placed>, Placed, Permit),
    Catalogue(oneshot::Sender<()>),
}

/// What is done once the group is written.
enum Then {
    Ack(Ack),
    Unit(Arc<Lane>, Offset, Permit),
    Acquired(oneshot::Sender<(Offset, u64)>, (Offset, u64)),
    Barrier(oneshot::Sender<()>),
}

/// A partition as the appender knows it.
struct Writer {
    partition: Arc<Partition>,
    next_offset: Offset,
    /// It is in `unsynced` already.
    is_unsynced: bool,
}

pub(super) struct Appender {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: LogOptions,
    file: Arc<JournalFile>,
    link: Link,
    /// Everything in front of it is durable.
    durable: u64,
    writers: HashMap<PartitionId, Writer>,
    /// Partitions with events that are not durable.
    unsynced: Vec<PartitionId>,
    acks: Vec<Ack>,
    /// The groups that are in memory, oldest first: their bytes, and how far they go in each partition.
    recent: VecDeque<(usize, Vec<(PartitionId, Offset)>)>,
    recent_bytes: usize,
    last_sync: Instant,
    /// The last frame is a mark, so another would say nothing new.
    is_marked: bool,
}

impl Appender {
    pub(super) fn start(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        link: Link,
        durable: u64,
    ) -> Result<Self, OpenError> {
        let (file, _) = shared.files.find(link.position).ok_or_else(|| OpenError::Disk {
            what: "find",
            name: super::files::file_name(link.position),
            error: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Self {
            shared,
            queue,
            disk,
            clock,
            options,
            file,
            link,
            durable,
            writers: HashMap::new(),
            unsynced: Vec::new(),
            acks: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            last_sync: Instant::now(),
            is_marked: true,
        })
    }

    pub(super) fn run(mut self) {
        // A panic ends the log like a failed write: whoever waits must be told, and half a group must not be acked.
        let condition = match catch_unwind(AssertUnwindSafe(|| self.serve())) {
            Ok(Ok(())) => Condition::Closed,
            Ok(Err(error)) => Condition::Poisoned(error.to_string().into()),
            Err(_) => Condition::Poisoned("the appender panicked".into()),
        };
        if let Condition::Poisoned(reason) = &condition {
            tracing::error!(%reason, "the journal cannot be written: nothing is acknowledged any more");
        }
        self.queue.close();
        self.shared.condition.send_replace(condition);
        // Whoever waits is told by the end of its ticket or looks at the condition.
        self.acks.clear();
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).submissions.clear();
        let partitions = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions.values() {
            partition.wake_all();
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut submissions = Vec::new();
        while self.queue.take(self.patience(), &mut submissions).is_some() {
            if submissions.is_empty() {
                self.idle()?;
                continue;
            }
            let mut rest = submissions.drain(..).peekable();
            while rest.peek().is_some() {
                self.group(&mut rest)?;
            }
        }
        self.idle() // the mark tells the next start that all of it was durable
    }

    /// How long to wait for work before there is something to do without it.
    fn patience(&self) -> Option<Duration> {
        match self.options.durability {
            Durability::Interval(interval) if self.durable < self.link.position => {
                Some(interval.saturating_sub(self.last_sync.elapsed()))
            }
            _ if self.is_marked => None,
            _ => Some(limits::IDLE_MARK_AFTER),
        }
    }

    fn idle(&mut self) -> io::Result<()> {
        if self.durable < self.link.position {
            self.sync()?;
        }
        if !self.is_marked {
            let mut bytes = Vec::new();
            self.encode(&mut bytes, Kind::Mark, |_, _| ());
            self.write(&bytes)?;
            self.sync()?;
            self.is_marked = true;
        }
        Ok(())
    }

    /// Encodes, writes and syncs as many submissions as make one group.
    fn group(&mut self, submissions: &mut dyn Iterator<Item = Submission>) -> io::Result<()> {
        let mut bytes: Vec<u8> = Vec::with_capacity(64 << 10);
        let mut then = Vec::new();
        self.link.append_time_ns = self.link.append_time_ns.max(self.clock.now_ns());
        let start = self.link.position;
        for submission in submissions {
            self.encode_submission(submission, &mut bytes, &mut then);
            if bytes.len() >= limits::GROUP_BYTES_MAX {
                break;
            }
        }
        if !bytes.is_empty() {
            self.roll_before(start, bytes.len())?;
            self.write(&bytes)?;
            self.publish(bytes.into());
            self.is_marked = false;
        }
        for then in then {
            match then {
                Then::Ack(ack) => self.acks.push(ack),
                Then::Unit(lane, position, permit) => {
                    // after the outputs: whoever sees the position sees what was emitted for it
                    lane.position.store(position, Ordering::Release);
                    drop(permit);
                }
                Then::Acquired(ticket, acquired) => drop(ticket.send(acquired)),
                Then::Barrier(ticket) => drop(ticket.send(())),
            }
        }
        match self.options.durability {
            Durability::Sync => self.sync(),
            Durability::Interval(interval) => {
                self.release();
                if self.last_sync.elapsed() >= interval { self.sync() } else { Ok(()) }
            }
            Durability::Os => {
                self.release();
                Ok(())
            }
        }
    }

    fn encode_submission(&mut self, submission: Submission, bytes: &mut Vec<u8>, then: &mut Vec<Then>) {
        match submission {
            Submission::Append { slices, ticket, permit } => {
                let mut base_offsets = Vec::with_capacity(slices.iter().len());
                self.encode(bytes, Kind::Unit, |appender, out| {
                    write_unit(out, None, slices.iter(), |slice| {
                        let offset = appender.place(slice.partition, slice.count);
                        base_offsets.push(offset);
                        offset
                    });
                });
                then.push(Then::Ack(Ack::Append(ticket, Placed { base_offsets }, permit)));
            }
            Submission::Unit { lane, owner, consumed_to, slices, permit } => {
                if !lane.is_owner(owner) {
                    return; // fenced while it waited; its session finds out at its next commit
                }
                let consumed = Consumed { lane: lane.id, consumed_to };
                self.encode(bytes, Kind::Unit, |appender, out| {
                    let place = |slice: &crate::model::slices::Slice| appender.place(slice.partition, slice.count);
                    write_unit(out, Some(consumed), slices.iter(), place);
                });
                then.push(Then::Unit(lane, consumed_to, permit));
            }
            Submission::Acquire { lane, ticket } => {
                let owner = lane.owner.fetch_add(1, Ordering::AcqRel) + 1;
                let pending = then.iter().rev().find_map(|then| match then {
                    Then::Unit(of, position, _) if of.id == lane.id => Some(*position),
                    _ => None,
                });
                let position = pending.unwrap_or_else(|| lane.position());
                then.push(Then::Acquired(ticket, (position, owner)));
            }
            Submission::Catalogue { entry, ticket } => {
                self.encode(bytes, Kind::Catalogue, |_, out| out.extend_from_slice(&entry));
                then.push(Then::Ack(Ack::Catalogue(ticket)));
            }
            Submission::Barrier { ticket } => then.push(Then::Barrier(ticket)),
        }
    }

    fn encode(&mut self, bytes: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        let (link, durable) = (self.link, self.durable);
        if let Some(head) = write_frame(bytes, kind, &link, durable, |out| body(self, out)) {
            self.link = Link::after(&head);
        }
    }

    fn writer(&mut self, id: PartitionId) -> &mut Writer {
        let shared = &self.shared;
        self.writers.entry(id).or_insert_with(|| {
            let partition = shared.partition(id);
            let next_offset = partition.written();
            Writer { partition, next_offset, is_unsynced: false }
        })
    }

    fn place(&mut self, partition: PartitionId, count: u32) -> Offset {
        let writer = self.writer(partition);
        let offset = writer.next_offset;
        writer.next_offset += Offset::from(count);
        offset
    }

    /// Begins the next file where a group of `length` bytes from `start` on does not fit into this one.
    fn roll_before(&mut self, start: u64, length: usize) -> io::Result<()> {
        let used = start - self.file.first_position;
        if used == 0 || used + length as u64 <= self.options.file_bytes {
            return Ok(());
        }
        // A file that follows proves that all of this one is durable: recovery relies on it.
        self.file.file.sync()?;
        self.file = Arc::new(JournalFile::create(self.disk.as_ref(), start)?);
        self.shared.files.insert(self.file.clone());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes, self.link.position - bytes.len() as u64)
    }

    /// Lets lanes see a written group, whose frames `bytes` are.
    fn publish(&mut self, bytes: Bytes) {
        let mut ends: Vec<(PartitionId, Offset)> = Vec::new();
        let mut at = 0;
        while let Ok(head) = Head::parse(bytes.get(at..).unwrap_or_default()) {
            let frame_end = at + head.frame_bytes();
            if head.kind == Kind::Unit
                && let Ok(mut unit) = UnitBody::parse(&head, bytes.slice(at + HEAD_BYTES..frame_end))
            {
                while let Ok(Some((id, chunk))) = unit.next_slice() {
                    let end = chunk.end_offset();
                    let writer = self.writer(id);
                    writer.partition.note(IndexEntry {
                        base_offset: chunk.base_offset,
                        append_time_ns: chunk.append_time_ns,
                        position: head.position,
                    });
                    writer.partition.push(chunk);
                    if !std::mem::replace(&mut writer.is_unsynced, true) {
                        self.unsynced.push(id);
                    }
                    match ends.iter_mut().rfind(|(known, _)| *known == id) {
                        Some((_, known)) => *known = end,
                        None => ends.push((id, end)),
                    }
                }
            }
            at = frame_end;
        }
        for (id, _) in &ends {
            self.writer(*id).partition.wake_written();
        }
        self.recent_bytes += bytes.len();
        self.recent.push_back((bytes.len(), ends));
        while self.recent_bytes > self.options.recent_bytes_max
            && let Some((length, ends)) = self.recent.pop_front()
        {
            self.recent_bytes -= length;
            for (id, end) in ends {
                self.writer(id).partition.forget(end);
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.durable < self.link.position {
            self.file.file.sync()?;
            self.durable = self.link.position;
            self.last_sync = Instant::now();
        }
        self.release();
        Ok(())
    }

    /// Acks, and shows outside, what has come as far as the setting promises.
    fn release(&mut self) {
        for id in std::mem::take(&mut self.unsynced) {
            let writer = self.writer(id);
            writer.is_unsynced = false;
            writer.partition.set_durable(writer.next_offset);
        }
        for ack in self.acks.drain(..) {
            match ack {
                Ack::Append(ticket, placed, permit) => {
                    drop(permit);
                    drop(ticket.send(placed));
                }
                Ack::Catalogue(ticket) => drop(ticket.send(())),
            }
        }
    }
}
