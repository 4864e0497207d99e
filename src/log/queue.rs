//! The appender's queue: ordered, bounded submissions, and the calls that submit them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::entries::EntryChanges;
use super::frame::{HEAD_BYTES, unit_frame_bytes, writes_bytes};
use super::guards::{GuardLookup, look_up};
use super::unconsumed::Counts;
use super::{Lane, Log};
use crate::limits;
use crate::model::{DivertedRecord, Duplicate, GuardRefusal, LaneId, LaneWrite, Offset, ProducerUnknown, Slices};

/// The offsets of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePlaces {
    /// The offset of the first new record of each slice.
    pub base_offsets: Vec<Offset>,
    /// Records that were published before, in the order of slices and records; they get no offset.
    pub duplicates: Vec<Duplicate>,
    /// Records that were set aside in another topic, in the same order; they get no offset here either.
    pub aside: Vec<DivertedRecord>,
}

/// Why an append was refused. None of its records was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendRefusal {
    /// A guard refuses one of the records.
    Guard(GuardRefusal),
    /// Its topic does not know its producer, which may have been forgotten.
    Producer(ProducerUnknown),
    /// An earlier append with the same fence was refused.
    Fenced,
}

/// The result of acquiring a lane.
#[derive(Debug, Clone)]
pub struct LaneOwnership {
    pub lane: Arc<Lane>,
    /// Its committed position.
    pub position: Offset,
    /// The owner's number, passed with each unit.
    pub owner: u64,
}

/// Resolves when the submission is written or durable, as the call states; an error means that the log has stopped.
pub type Ticket<T> = oneshot::Receiver<T>;

/// Room in the queue, released when the submission has been written or acked.
pub(super) struct Permit {
    _count: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

pub(super) enum Submission {
    /// Events from outside; the ticket resolves when they are durable.
    Append {
        slices: Slices,
        /// Looked-up state of its guards.
        looked: Option<Box<GuardLookup>>,
        ticket: oneshot::Sender<Result<SlicePlaces, AppendRefusal>>,
        permit: Permit,
    },
    /// A lane's unit.
    Unit {
        lane: Arc<Lane>,
        owner: u64,
        consumed_to: Offset,
        slices: Slices,
        /// Looked-up state of its guards.
        looked: Option<Box<GuardLookup>>,
        /// The changed entries of the lane, and the number of the unit that changes them.
        writes: Vec<LaneWrite>,
        unit: u64,
        /// If it has guards: resolved once the unit is written or refused.
        verdict: Option<oneshot::Sender<Result<(), GuardRefusal>>>,
        permit: Permit,
    },
    /// A new owner of a lane.
    Acquire { lane: Arc<Lane>, ticket: oneshot::Sender<(Offset, u64)> },
    /// A catalogue entry; the ticket resolves when it is durable.
    Catalogue { entry: Bytes, ticket: oneshot::Sender<()> },
    /// Resolves when everything before it is durable.
    Sync { ticket: oneshot::Sender<()> },
    /// Resolves when everything before it is written.
    Barrier { ticket: oneshot::Sender<()> },
}

/// Bytes of the identities that are written again with the states of keys.
fn identities_bytes(looked: &Option<Box<GuardLookup>>) -> usize {
    looked.as_ref().map_or(0, |looked| looked.identities_bytes)
}

impl Submission {
    /// Upper bound of the bytes of its frame; 0 if it has none.
    pub(super) fn frame_bytes(&self) -> usize {
        match self {
            Self::Append { slices, looked, .. } => unit_frame_bytes(slices, None) + identities_bytes(looked),
            Self::Unit { slices, looked, writes, .. } => {
                unit_frame_bytes(slices, Some(writes)) + identities_bytes(looked)
            }
            Self::Catalogue { entry, .. } => HEAD_BYTES + entry.len(),
            Self::Acquire { .. } | Self::Sync { .. } | Self::Barrier { .. } => 0,
        }
    }
}

/// The queue of the appender.
pub(super) struct Queue {
    waiting: Mutex<QueueState>,
    arrived: Condvar,
    producers: Budget,
    lanes: Budget,
    wanted: Reservation,
}

/// Limits of one kind of waiting submissions. Producers and lanes have one each, so that neither waits for the other.
struct Budget {
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// Reserves room for the largest append that was refused: smaller ones leave it free until that append is repeated, or
/// for a limited time. Otherwise small appends, which fit into any gap, would starve large ones.
#[derive(Default)]
struct Reservation {
    bytes: AtomicUsize,
    until_ns: AtomicU64,
}

struct QueueState {
    submissions: Vec<Submission>,
    /// Upper bound of the bytes of their frames.
    bytes: usize,
    closed: bool,
    /// Something was written that no mark states to be durable.
    is_unmarked: bool,
    sleep: Sleep,
}

impl QueueState {
    fn take(&mut self) -> Vec<Submission> {
        self.bytes = 0;
        std::mem::take(&mut self.submissions)
    }
}

/// Whether the appender's thread has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// Awake; it checks the queue before it sleeps.
    Awake,
    /// Sleeps until woken or until a timeout.
    Light,
    /// Sleeps until woken.
    Deep,
}

/// Why the appender's thread was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeReason {
    /// There may be submissions.
    Called,
    /// The timeout has passed without submissions.
    Time,
    /// The queue is empty and closed.
    Closed,
}

/// Why a submission was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    /// The queue is full of appends of producers.
    Busy,
    /// The disk is nearly full; the rest is reserved for work that frees room.
    Full,
    /// The log has stopped.
    Stopped,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(QueueState {
                submissions: Vec::new(),
                bytes: 0,
                closed: false,
                is_unmarked: false,
                sleep: Sleep::Awake,
            }),
            arrived: Condvar::new(),
            producers: Budget::new(limits::PRODUCER_QUEUE_BYTES_MAX),
            lanes: Budget::new(limits::LANE_QUEUE_BYTES_MAX),
            wanted: Reservation::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, QueueState> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were admitted and have not been written or acked.
    pub(super) fn bytes(&self) -> u64 {
        self.producers.used() + self.lanes.used()
    }

    /// Admits an append of `bytes`, or refuses it: producers do not wait here.
    fn admit_producer(&self, bytes: usize, now_ns: u64) -> Result<Permit, SubmitError> {
        let count = self.producers.try_take(&self.producers.count, 1)?;
        let taken = self.producers.try_take(&self.producers.bytes, bytes);
        let wanted = self.wanted.bytes(now_ns);
        match taken {
            Err(SubmitError::Busy) => self.wanted.want(bytes.max(wanted), now_ns),
            // acquired before the check, so that two concurrent calls do not both see enough room
            Ok(_) if bytes < wanted && self.producers.bytes.available_permits() < wanted => {
                return Err(SubmitError::Busy);
            }
            Ok(_) if bytes >= wanted => self.wanted.nothing(),
            _ => {}
        }
        Ok(Permit { _count: count, _bytes: taken? })
    }

    /// Admits a unit of `bytes`; lanes wait for room in order.
    async fn admit_lane(&self, bytes: usize) -> Result<Permit, SubmitError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = self.lanes.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| SubmitError::Stopped)?;
        let count = self.lanes.count.clone().acquire_owned().await.map_err(|_| SubmitError::Stopped)?;
        Ok(Permit { _count: count, _bytes: bytes })
    }

    /// Adds a submission to the end. The caller makes sure that it is written.
    fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(SubmitError::Stopped);
        }
        waiting.bytes += submission.frame_bytes();
        waiting.submissions.push(submission);
        Ok(())
    }

    /// Whether there are no submissions.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().submissions.is_empty()
    }

    /// Takes all submissions, if `may_be` accepts the bytes of their frames (an upper bound).
    pub(super) fn take_if(&self, may_be: impl FnOnce(usize) -> bool) -> Option<Vec<Submission>> {
        let mut waiting = self.waiting();
        may_be(waiting.bytes).then(|| waiting.take())
    }

    /// Wakes the appender's thread if it sleeps.
    pub(super) fn wake(&self) {
        self.wake_from(self.waiting(), &[Sleep::Light, Sleep::Deep]);
    }

    /// Sets whether something was written that no mark states to be durable. If so, the appender's thread wakes
    /// regularly, and writes a mark when no more submissions arrive. The caller must hold the appender.
    pub(super) fn set_unmarked(&self, is_unmarked: bool) {
        let mut waiting = self.waiting();
        if waiting.is_unmarked != is_unmarked {
            waiting.is_unmarked = is_unmarked;
            self.wake_from(waiting, &[Sleep::Deep]);
        }
    }

    fn wake_from(&self, mut waiting: MutexGuard<'_, QueueState>, sleeps: &[Sleep]) {
        let wake = sleeps.contains(&waiting.sleep);
        if wake {
            waiting.sleep = Sleep::Awake;
        }
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Closes the queue: nothing more is accepted, and callers that wait for room get an error.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.sleep = Sleep::Awake;
        drop(waiting);
        self.arrived.notify_one();
        for budget in [&self.producers, &self.lanes] {
            budget.count.close();
            budget.bytes.close();
        }
    }

    /// Whether submissions are accepted.
    pub(super) fn is_open(&self) -> bool {
        !self.waiting().closed
    }

    /// Drops submissions that will not be written: their callers see the closed ticket.
    pub(super) fn clear(&self) {
        drop(self.take());
    }

    /// Takes all submissions.
    pub(super) fn take(&self) -> Vec<Submission> {
        self.waiting().take()
    }

    /// Blocks the appender's thread until there are submissions, it is woken, or (if something is unmarked) `patience`
    /// has passed.
    pub(super) fn wait(&self, patience: Duration) -> WakeReason {
        let mut waiting = self.waiting();
        let patience = waiting.is_unmarked.then_some(patience);
        if waiting.submissions.is_empty() && !waiting.closed {
            let sleep = if patience.is_some() { Sleep::Light } else { Sleep::Deep };
            waiting.sleep = sleep;
            let sleeps = |waiting: &mut QueueState| waiting.sleep == sleep;
            waiting = match patience {
                None => self.arrived.wait_while(waiting, sleeps).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let woken = self.arrived.wait_timeout_while(waiting, patience, sleeps);
                    let (mut waiting, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
                    waiting.sleep = Sleep::Awake;
                    if timeout.timed_out() && waiting.submissions.is_empty() && !waiting.closed {
                        return WakeReason::Time;
                    }
                    waiting
                }
            };
        }
        if waiting.closed && waiting.submissions.is_empty() { WakeReason::Closed } else { WakeReason::Called }
    }
}

impl Budget {
    fn new(bytes_max: usize) -> Self {
        let count = Arc::new(Semaphore::new(limits::QUEUE_SUBMISSIONS_MAX));
        Self { count, bytes: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    fn used(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes.available_permits()) as u64
    }

    fn try_take(&self, of: &Arc<Semaphore>, room: usize) -> Result<OwnedSemaphorePermit, SubmitError> {
        let room = u32::try_from(room).map_err(|_| SubmitError::Busy)?;
        of.clone().try_acquire_many_owned(room).map_err(|error| match error {
            TryAcquireError::Closed => SubmitError::Stopped,
            TryAcquireError::NoPermits => SubmitError::Busy,
        })
    }
}

impl Reservation {
    /// The number of bytes to leave free now.
    fn bytes(&self, now_ns: u64) -> usize {
        match self.bytes.load(Ordering::Relaxed) {
            0 => 0,
            _ if now_ns >= self.until_ns.load(Ordering::Relaxed) => 0,
            bytes => bytes,
        }
    }

    fn want(&self, bytes: usize, now_ns: u64) {
        let until_ns = now_ns.saturating_add(limits::PRODUCER_ROOM_LEFT_FOR.as_nanos() as u64);
        self.until_ns.store(until_ns, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn nothing(&self) {
        // usually nothing is reserved: avoid writing to a shared cache line
        if self.bytes.load(Ordering::Relaxed) != 0 {
            self.bytes.store(0, Ordering::Relaxed);
        }
    }
}

impl Lane {
    pub(super) fn new(id: LaneId, position: Offset) -> Self {
        Self {
            id,
            position: position.into(),
            owner: 0.into(),
            changed: EntryChanges::default(),
            counts: Counts::default(),
        }
    }

    /// Everything before this offset is consumed by written units.
    pub fn position(&self) -> Offset {
        self.position.load(Ordering::Acquire)
    }

    /// Whether a session of this number is still the owner.
    pub fn is_owner(&self, owner: u64) -> bool {
        self.owner.load(Ordering::Acquire) == owner
    }
}

impl Log {
    fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        self.shared.queue.submit(submission)?;
        if let Some(seat) = &self.seat {
            seat.write_what_waits();
        }
        Ok(())
    }

    /// Appends events. The ticket resolves when they are durable.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] if the queue is full, [`SubmitError::Full`] if the disk is; nothing was submitted then.
    pub fn append(&self, slices: Slices) -> Result<Ticket<Result<SlicePlaces, AppendRefusal>>, SubmitError> {
        if !self.shared.space.level(&self.shared, slices.bytes()).admits_producers() {
            return Err(SubmitError::Full);
        }
        let permit = self.shared.queue.admit_producer(slices.bytes(), self.shared.clock.elapsed_ns())?;
        let looked = look_up(&self.shared, &slices);
        let (sender, ticket) = oneshot::channel();
        self.submit(Submission::Append { slices, looked, ticket: sender, permit })?;
        Ok(ticket)
    }

    /// Submits a lane's unit. Waits for room in the queue and, if it emits events, on the disk. `lane` must come from
    /// [`Log::acquire`]. If the unit has guards, waits for their verdict; a refused unit has no effect.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn unit(
        &self,
        lane: &LaneOwnership,
        consumed_to: Offset,
        slices: Slices,
        writes: Vec<LaneWrite>,
    ) -> Result<Result<(), GuardRefusal>, SubmitError> {
        while !slices.is_empty() && !self.shared.space.level(&self.shared, slices.bytes()).admits_emits() {
            let mut condition = self.condition();
            let stopped = condition.wait_for(|condition| *condition != super::Condition::Working);
            if tokio::time::timeout(limits::SPACE_LOOK_EVERY, stopped).await.is_ok() {
                return Err(SubmitError::Stopped);
            }
        }
        let permit = self.shared.queue.admit_lane(slices.bytes() + writes_bytes(&writes)).await?;
        let (owner, lane) = (lane.owner, lane.lane.clone());
        // Only the owner submits for this lane, so units are numbered in order. The appender also refuses a unit of a
        // replaced owner.
        let unit = if writes.is_empty() { None } else { lane.changed.hand_in(owner, &writes) };
        let unit = unit.unwrap_or(0);
        let looked = look_up(&self.shared, &slices);
        let (verdict, told) = if slices.is_guarded() { Some(oneshot::channel()) } else { None }.unzip();
        let submission =
            Submission::Unit { lane: lane.clone(), owner, consumed_to, slices, looked, writes, unit, verdict, permit };
        self.submit(submission)?;
        let Some(told) = told else { return Ok(Ok(())) };
        match told.await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(refused)) => {
                lane.changed.withdraw(unit);
                Ok(Err(refused))
            }
            // fenced, which the session learns at its next commit, or stopped
            Err(_) if lane.is_owner(owner) => Err(SubmitError::Stopped),
            Err(_) => Ok(Ok(())),
        }
    }

    /// Makes the caller the owner of a lane.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn acquire(&self, id: LaneId) -> Result<LaneOwnership, SubmitError> {
        let lane = self.lane(id);
        let (sender, ticket) = oneshot::channel();
        self.submit(Submission::Acquire { lane: lane.clone(), ticket: sender })?;
        let (position, owner) = ticket.await.map_err(|_| SubmitError::Stopped)?;
        Ok(LaneOwnership { lane, position, owner })
    }

    /// Appends a catalogue entry, and resolves when it is durable.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn catalogue(&self, entry: Bytes) -> Result<(), SubmitError> {
        let (sender, ticket) = oneshot::channel();
        self.submit(Submission::Catalogue { entry, ticket: sender })?;
        ticket.await.map_err(|_| SubmitError::Stopped)
    }

    /// Resolves when everything that was submitted before is as durable as the log promises.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn sync(&self) -> Result<(), SubmitError> {
        let (sender, ticket) = oneshot::channel();
        self.submit(Submission::Sync { ticket: sender })?;
        ticket.await.map_err(|_| SubmitError::Stopped)
    }

    /// Resolves when everything that was submitted before is written.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn barrier(&self) -> Result<(), SubmitError> {
        let (sender, ticket) = oneshot::channel();
        self.submit(Submission::Barrier { ticket: sender })?;
        ticket.await.map_err(|_| SubmitError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_large_append_is_not_kept_out_by_small_ones() {
        let queue = Queue::new();
        let mut small: Vec<Permit> = std::iter::from_fn(|| queue.admit_producer(MIB, 0).ok()).collect();
        assert_eq!(small.len(), limits::PRODUCER_QUEUE_BYTES_MAX / MIB);
        // Each time one is written, another small one follows at once; the large one is repeated every fourth time.
        for freed in 1.. {
            assert!(freed <= 4 * 32 + 4, "the large append starves");
            drop(small.pop().unwrap());
            if freed % 4 == 0 && queue.admit_producer(32 * MIB, 0).is_ok() {
                break;
            }
            small.extend(queue.admit_producer(MIB, 0));
        }
        assert!(queue.admit_producer(MIB, 0).is_ok(), "the reservation has ended");
    }

    #[test]
    fn room_is_left_for_a_while_only() {
        let queue = Queue::new();
        let mut small: Vec<Permit> = std::iter::from_fn(|| queue.admit_producer(MIB, 0).ok()).collect();
        assert_eq!(queue.admit_producer(32 * MIB, 0).err(), Some(SubmitError::Busy));
        small.truncate(small.len() - 32);
        assert_eq!(
            queue.admit_producer(1, 0).err(),
            Some(SubmitError::Busy),
            "all of it is reserved for the large one"
        );
        small.pop();
        let _fits_as_well = queue.admit_producer(MIB, 0).unwrap();
        let over = limits::PRODUCER_ROOM_LEFT_FOR.as_nanos() as u64;
        assert!(queue.admit_producer(1, over).is_ok(), "it was not repeated");
    }

    #[test]
    fn lanes_do_not_wait_for_producers() {
        let queue = Queue::new();
        let producers: Vec<Permit> = std::iter::from_fn(|| queue.admit_producer(1, 0).ok()).collect();
        assert_eq!(producers.len(), limits::QUEUE_SUBMISSIONS_MAX);
        let mut lane = std::pin::pin!(queue.admit_lane(MIB));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(lane.as_mut().poll(&mut cx).is_ready());
    }
}
