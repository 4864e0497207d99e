//! The one writer: takes submissions in their order, gives offsets, writes them as a group, hands it to the syncer.
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
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::files::JournalFile;
use super::frame::{Consumed, HEAD_BYTES, Head, Kind, Link, UnitBody, unit_frame_bytes, write_frame, write_unit};
use super::partition::{IndexEntry, Partition};
use super::syncer::{Ack, Ends, Syncer, Written};
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

impl Submission {
    /// Bytes of its frame; none where it has no frame.
    fn frame_bytes(&self) -> usize {
        match self {
            Self::Append { slices, .. } => unit_frame_bytes(slices, false),
            Self::Unit { slices, .. } => unit_frame_bytes(slices, true),
            Self::Catalogue { entry, .. } => HEAD_BYTES + entry.len(),
            Self::Acquire { .. } | Self::Barrier { .. } => 0,
        }
    }
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
            _count: permit(&self.shared.queue.count, 1)?,
            _bytes: permit(&self.shared.queue.producer_bytes, slices.bytes())?,
        };
        let (sender, ticket) = oneshot::channel();
        self.shared.queue.submit(Submission::Append { slices, ticket: sender, permit })?;
        Ok(ticket)
    }

    /// Hands in a lane's unit, waiting for room. Its owner must have been given by [`Log::acquire`].
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn unit(&self, lane: &Acquired, consumed_to: Offset, slices: Slices) -> Result<(), Refused> {
        let room = u32::try_from(slices.bytes()).unwrap_or(u32::MAX);
        let bytes =
            self.shared.queue.lane_bytes.clone().acquire_many_owned(room).await.map_err(|_| Refused::Stopped)?;
        let count = self.shared.queue.count.clone().acquire_owned().await.map_err(|_| Refused::Stopped)?;
        let permit = Permit { _count: count, _bytes: bytes };
        let (owner, lane) = (lane.owner, lane.lane.clone());
        self.shared.queue.submit(Submission::Unit { lane, owner, consumed_to, slices, permit })
    }

    /// Makes the caller the owner of a lane.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn acquire(&self, id: LaneId) -> Result<Acquired, Refused> {
        let lane = self.lane(id);
        let (sender, ticket) = oneshot::channel();
        self.shared.queue.submit(Submission::Acquire { lane: lane.clone(), ticket: sender })?;
        let (position, owner) = ticket.await.map_err(|_| Refused::Stopped)?;
        Ok(Acquired { lane, position, owner })
    }

    /// Appends a catalogue entry, and resolves when it is durable.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn catalogue(&self, entry: Bytes) -> Result<(), Refused> {
        let (sender, ticket) = oneshot::channel();
        self.shared.queue.submit(Submission::Catalogue { entry, ticket: sender })?;
        ticket.await.map_err(|_| Refused::Stopped)
    }

    /// Resolves when everything that was submitted before is written.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn barrier(&self) -> Result<(), Refused> {
        let (sender, ticket) = oneshot::channel();
        self.shared.queue.submit(Submission::Barrier { ticket: sender })?;
        ticket.await.map_err(|_| Refused::Stopped)
    }
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
}

pub(super) struct Appender {
    shared: Arc<Shared>,
    syncer: Arc<Syncer>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: LogOptions,
    file: Arc<JournalFile>,
    link: Link,
    writers: HashMap<PartitionId, Writer>,
    /// The groups that are in memory, oldest first: their bytes, and how far they go.
    recent: VecDeque<(usize, Ends)>,
    recent_bytes: usize,
    /// The last frame is a mark, so another would say nothing new.
    is_marked: bool,
}

impl Appender {
    pub(super) fn start(
        shared: Arc<Shared>,
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
        let interval = match options.durability {
            Durability::Interval(interval) => interval,
            Durability::Sync | Durability::Os => Duration::ZERO,
        };
        Ok(Self {
            shared,
            syncer: Arc::new(Syncer::new(durable, interval)),
            disk,
            clock,
            options,
            file,
            link,
            writers: HashMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            is_marked: true,
        })
    }

    /// Serves until the log is closed or poisoned. Nothing runs and nobody waits when it returns.
    pub(super) fn run(mut self) {
        let (syncer, shared) = (self.syncer.clone(), self.shared.clone());
        let thread = std::thread::Builder::new().name("wattle-syncer".into()).spawn(move || syncer.run(&shared));
        let served = match thread {
            Err(error) => Err(error),
            Ok(thread) => {
                // A panic ends the log like a failed write: whoever waits must be told, and half a group not acked.
                let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
                let served = served.unwrap_or_else(|_| Err(io::Error::other("the appender panicked")));
                if let Err(error) = &served {
                    self.shared.poison(&error.to_string()); // before the syncer ends: it must not ack past it
                }
                self.syncer.close();
                let joined = thread.join().map_err(|_| io::Error::other("the syncer panicked"));
                joined.and(served).and_then(|()| self.last_mark())
            }
        };
        if let Err(error) = served {
            self.shared.poison(&error.to_string());
        }
        self.shared.queue.close();
        let closed = |condition: &mut Condition| {
            let works = *condition == Condition::Working;
            if works {
                *condition = Condition::Closed;
            }
            works
        };
        self.shared.condition.send_if_modified(closed);
        // Whoever still waits is told by the end of its ticket, or looks at the condition.
        self.shared.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).submissions.clear();
        self.shared.wake_all();
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut submissions = Vec::new();
        let patience = |marked: bool| (!marked).then_some(limits::IDLE_MARK_AFTER);
        while self.shared.queue.take(patience(self.is_marked), &mut submissions).is_some() {
            if self.shared.is_poisoned() {
                return Ok(()); // by the syncer, which has said why
            }
            if submissions.is_empty() {
                self.idle()?;
                continue;
            }
            let mut rest = submissions.drain(..).peekable();
            while rest.peek().is_some() {
                self.group(&mut rest)?;
            }
        }
        self.submit(Ends::default(), Vec::new());
        Ok(())
    }

    /// Nothing has come for a while: what is not durable is made so, then a mark says that it is.
    fn idle(&mut self) -> io::Result<()> {
        if self.syncer.durable() == self.link.position {
            self.write_mark()?;
        }
        self.submit(Ends::default(), Vec::new());
        Ok(())
    }

    /// Everything is durable, and the next start shall know it.
    fn last_mark(&mut self) -> io::Result<()> {
        if self.is_marked || self.shared.is_poisoned() {
            return Ok(());
        }
        self.write_mark()?;
        self.file.file.sync()
    }

    fn write_mark(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes, Kind::Mark, |_, _| ());
        self.write(&bytes)?;
        self.is_marked = true;
        Ok(())
    }

    fn submit(&self, ends: Ends, acks: Vec<Ack>) {
        let (file, end_position) = (self.file.clone(), self.link.position);
        self.syncer.submit(Written { file, end_position, ends, acks });
    }

    /// Encodes and writes as many submissions as make one group.
    fn group(&mut self, submissions: &mut dyn Iterator<Item = Submission>) -> io::Result<()> {
        let (mut group, mut room) = (Vec::new(), 0);
        for submission in submissions {
            room += submission.frame_bytes();
            group.push(submission);
            if room >= limits::GROUP_BYTES_MAX {
                break;
            }
        }
        // Exactly as large as it gets: readers share this memory for as long as it is recent, spare room and all.
        let mut bytes: Vec<u8> = Vec::with_capacity(room);
        let mut then = Vec::with_capacity(group.len());
        self.link.append_time_ns = self.link.append_time_ns.max(self.clock.now_ns());
        let start = self.link.position;
        for submission in group {
            self.encode_submission(submission, &mut bytes, &mut then);
        }
        let mut ends = Ends::default();
        if !bytes.is_empty() {
            self.roll_before(start, bytes.len())?;
            self.write(&bytes)?;
            ends = self.publish(bytes.into());
            self.is_marked = false;
        }
        let mut acks = Vec::new();
        for then in then {
            match then {
                Then::Ack(ack) => acks.push(ack),
                Then::Unit(lane, position, permit) => {
                    // after the outputs: whoever sees the position sees what was emitted for it
                    lane.position.store(position, Ordering::Release);
                    drop(permit);
                }
                Then::Acquired(ticket, acquired) => drop(ticket.send(acquired)),
                Then::Barrier(ticket) => drop(ticket.send(())),
            }
        }
        if self.options.durability == Durability::Sync {
            self.submit(ends, acks);
            return Ok(());
        }
        // The setting promises no more than that it is written.
        for (partition, end) in ends.iter() {
            partition.set_durable(*end);
        }
        acks.into_iter().for_each(Ack::send);
        if self.options.durability != Durability::Os {
            self.submit(Ends::default(), Vec::new());
        }
        Ok(())
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
        let (link, durable) = (self.link, self.syncer.durable());
        if let Some(head) = write_frame(bytes, kind, &link, durable, |out| body(self, out)) {
            self.link = Link::after(&head);
        }
    }

    fn writer(&mut self, id: PartitionId) -> &mut Writer {
        let shared = &self.shared;
        self.writers.entry(id).or_insert_with(|| {
            let partition = shared.partition(id);
            let next_offset = partition.written();
            Writer { partition, next_offset }
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
        let file = self.file.clone();
        self.syncer.submit(Written { file, end_position: start, ends: Ends::default(), acks: Vec::new() });
        self.syncer.settle(start)?;
        self.file = Arc::new(JournalFile::create(self.disk.as_ref(), start)?);
        self.shared.files.insert(self.file.clone());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes, self.link.position - bytes.len() as u64)
    }

    /// Lets lanes see a written group, whose frames `bytes` are. How far it goes in each partition.
    fn publish(&mut self, bytes: Bytes) -> Ends {
        let mut ends: Vec<(Arc<Partition>, Offset)> = Vec::new();
        let mut at = 0;
        while let Ok(head) = Head::parse(bytes.get(at..).unwrap_or_default()) {
            let frame_end = at + head.frame_bytes();
            if head.kind == Kind::Unit
                && let Ok(mut unit) = UnitBody::parse(&head, bytes.slice(at + HEAD_BYTES..frame_end))
            {
                while let Ok(Some((id, chunk))) = unit.next_slice() {
                    let end = chunk.end_offset();
                    let partition = &self.writer(id).partition;
                    partition.note(IndexEntry {
                        base_offset: chunk.base_offset,
                        append_time_ns: chunk.append_time_ns,
                        position: head.position,
                    });
                    partition.push(chunk);
                    match ends.iter_mut().rfind(|(known, _)| Arc::ptr_eq(known, partition)) {
                        Some((_, known)) => *known = end,
                        None => ends.push((partition.clone(), end)),
                    }
                }
            }
            at = frame_end;
        }
        for (partition, _) in &ends {
            partition.wake_written();
        }
        let ends: Ends = ends.into();
        self.recent_bytes += bytes.len();
        self.recent.push_back((bytes.len(), ends.clone()));
        while self.recent_bytes > self.options.recent_bytes_max
            && let Some((length, ends)) = self.recent.pop_front()
        {
            self.recent_bytes -= length;
            for (partition, end) in ends.iter() {
                partition.forget(*end);
            }
        }
        ends
    }
}
