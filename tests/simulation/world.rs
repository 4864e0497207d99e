//! One log on one disk: the lives that it has, and what is known of it from outside.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot::error::TryRecvError;
use wattle::effects::{Clock, MemoryDisk};
use wattle::log::{
    AppendRefusal, ColdError, ColdReader, Condition, Durability, LaneOwnership, Log, LogOptions, RecentRead, Settings,
    SlicePlaces, Stepper, SubmitError, Ticket,
};
use wattle::model::{Fence, GuardRefusal, LaneId, PartitionId, TopicId};

use super::expiry::Expiry;
use super::faults::{Armed, Faults, Fired, Hands, any_fault, crashed};
use super::model::{Expected, Model, NoPlace, Submitted};
use super::notes::Notes;
use super::plan::{self, DAY, Guarding, HOUR, LANES, PARTITIONS, START, YEAR};
use super::random::Random;
use super::steps;
use super::trust::Trust;

/// What somebody waits for.
pub(crate) enum Waiting {
    Append(Ticket<Result<SlicePlaces, AppendRefusal>>),
    Acquire(LaneId, Pin<Box<dyn Future<Output = Result<LaneOwnership, SubmitError>>>>),
    Done(Pin<Box<dyn Future<Output = Result<(), SubmitError>>>>),
    /// Of a unit with guards, by the session that waits for it, which was at that position before.
    Verdict(VerdictFuture, (LaneId, u64), u64),
}

pub(crate) type VerdictFuture = Pin<Box<dyn Future<Output = Result<Result<(), GuardRefusal>, SubmitError>>>>;

/// A session of a lane.
pub(crate) struct Session {
    pub(crate) id: LaneId,
    pub(crate) acquired: LaneOwnership,
    /// To where it has got by its own account.
    pub(crate) position: u64,
}

impl Session {
    pub(crate) fn is(&self, id: LaneId, owner: u64) -> bool {
        (self.id, self.acquired.owner) == (id, owner)
    }
}

/// A log that runs.
pub(crate) struct Life {
    pub(crate) log: Arc<Log>,
    /// Gone once it has closed the log.
    pub(crate) stepper: Option<Stepper>,
    pub(crate) reader: ColdReader,
    pub(crate) queue: Vec<Submitted>,
    /// In the order in which they were given; each with what it must resolve to, once that is known.
    pub(crate) waiting: BTreeMap<usize, (Waiting, Option<(Expected, usize)>)>,
    pub(crate) sessions: Vec<Session>,
    /// What is published one behind the other, until something of it is refused.
    pub(crate) stream: Option<(Fence, usize)>,
    pub(crate) is_poisoned: bool,
    pub(crate) seen: BTreeMap<PartitionId, (u64, u64, u64)>,
    pub(crate) fired: Fired,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) notes: Notes,
    pub(crate) disk: MemoryDisk,
    pub(crate) faults: Arc<Faults>,
    pub(crate) hands: Arc<Hands>,
    pub(crate) true_ns: u64,
    pub(crate) options: LogOptions,
    pub(crate) settings: Settings,
    /// How often each step is done.
    pub(crate) weights: Vec<u64>,
    pub(crate) model: Model,
    pub(crate) expiry: Expiry,
    pub(crate) trust: Trust,
    /// Identities that were used, also for events that were lost, of each topic since its dedupe changed.
    pub(crate) identities: BTreeMap<TopicId, (u64, Vec<u64>)>,
    /// When producers say that they began, by their names, the latest last.
    pub(crate) beginnings: BTreeMap<&'static str, Vec<Option<u64>>>,
    pub(crate) next_number: u64,
    pub(crate) next_ticket: usize,
    /// Nothing is done to the disk that could fail.
    pub(crate) is_calm: bool,
    /// Some events are guarded. Then no read fails: where a state cannot be read, there is no verdict.
    pub(crate) guarding: Option<Guarding>,
    /// A file that was damaged: reads of it may fail.
    pub(crate) damaged: Option<String>,
}

pub(crate) fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl World {
    pub(crate) fn new(seed: u64, is_calm: bool, notes: Notes) -> Self {
        let mut random = Random::new(seed);
        let options = plan::options(&mut random);
        let guarding = random.once_in(2).then(|| Guarding::new(&mut random));
        let settings = plan::settings(&mut random, None, guarding.as_ref());
        let weights = steps::weights(&mut random);
        notes.head(format!("seed {seed}: {options:?}\n{settings:?}\n{guarding:?}"));
        Self {
            random,
            notes,
            disk: MemoryDisk::default(),
            faults: Arc::new(Faults::default()),
            hands: Hands::new(START, 0),
            true_ns: 0,
            options,
            settings,
            weights,
            model: Model::new(guarding),
            expiry: Expiry::default(),
            trust: Trust::default(),
            identities: BTreeMap::new(),
            beginnings: BTreeMap::new(),
            next_number: 0,
            next_ticket: 0,
            is_calm,
            guarding,
            damaged: None,
        }
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.step(text.into());
    }

    /// Time passes, for both hands.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.hands.pass(ns);
        self.true_ns += ns;
    }

    /// The wall clock is put somewhere else.
    pub(crate) fn jump(&mut self) {
        let now = self.hands.now_ns();
        let by = self.random.pick(&[HOUR / 2, 2 * HOUR, 20 * HOUR, 10 * YEAR, 10 * YEAR]);
        let right = START + self.true_ns;
        let to = match self.random.below(4) {
            0 => right,
            1 => now.saturating_sub(by),
            2 => right + by,
            _ => now + by.min(DAY / 2),
        };
        self.note(format!("the wall clock jumps from {now} to {to}"));
        self.trust.jumped();
        self.hands.set_wall(to);
    }

    pub(crate) fn arm(&mut self) {
        let mut armed: Armed = any_fault(&mut self.random);
        while self.guarding.is_some() && armed.kind == "read" {
            armed = any_fault(&mut self.random);
        }
        self.note(format!("{armed:?}"));
        self.faults.arm(armed);
    }

    /// The queue is written, as far as it is.
    pub(crate) fn take_in(&mut self, life: &mut Life, act: impl FnOnce(&mut Life)) {
        self.open_states(life);
        let first = self.model.units.len();
        if life.is_poisoned {
            life.queue.clear();
        }
        let now = (self.hands.now_ns(), life.log.trusted_now_ns());
        let answers = self.model.process(std::mem::take(&mut life.queue), &self.settings, now);
        for (ticket, expected, units) in answers {
            if let Some((_, answer)) = life.waiting.get_mut(&ticket) {
                *answer = Some((expected, units));
            }
        }
        act(life);
        if self.is_poisoned(life) && seen(life) != self.seen_by_model(self.model.units.len()) {
            return; // it was not written
        }
        self.model.published = self.model.units.len();
        // the first event of all that was written at once tells when that was
        for id in PARTITIONS {
            let from = self.model.end(id, first);
            if from < self.model.end(id, self.model.published)
                && let RecentRead::Chunks(chunks) = life.log.partition(id).recent(from, from + 1, 1, usize::MAX)
            {
                let time_ns = chunks[0].append_time_ns;
                if let Some(expected) = self.model.engine_ns {
                    assert_eq!(time_ns, expected, "the append time");
                }
                assert!(time_ns >= now.0 && time_ns <= self.model.engine_max_ns, "the append time {time_ns}");
                self.model.saw_time(first, time_ns);
                break;
            }
        }
    }

    fn seen_by_model(&self, units: usize) -> (Vec<u64>, Vec<u64>) {
        let ends = PARTITIONS.iter().map(|id| self.model.end(*id, units)).collect();
        (ends, LANES.iter().map(|id| self.model.cursor(*id, units)).collect())
    }

    fn is_poisoned(&self, life: &Life) -> bool {
        match &*life.log.condition().borrow() {
            Condition::Poisoned(reason) => {
                assert!(!reason.contains("panicked"), "{reason}");
                let hard = self.faults.fired().hard - life.fired.hard;
                assert!(hard > 0, "the log has stopped, though nothing was wrong: {reason}");
                true
            }
            Condition::Working | Condition::Closed => false,
        }
    }

    /// What must hold after each step.
    pub(crate) fn after_step(&mut self, life: &mut Life) {
        let (trusted_ns, wall_ns) = (life.log.trusted_now_ns(), self.hands.now_ns());
        self.trust.look(trusted_ns, self.true_ns, wall_ns);
        assert_eq!(life.log.frozen().is_some(), wall_ns.saturating_sub(trusted_ns) > DAY, "whether retention waits");
        self.expiry.allow(&self.model, &self.settings, trusted_ns, life.log.frozen().is_some());
        self.expiry.check(&life.log);
        assert_eq!(seen(life), self.seen_by_model(self.model.published), "what lanes see");
        for id in PARTITIONS {
            let partition = life.log.partition(id);
            let now = (partition.start(), partition.durable(), partition.written());
            assert!(now.0 <= now.1 && now.1 <= now.2, "{id:?}: start, durable, written are {now:?}");
            let seen = life.seen.insert(id, now).unwrap_or(now);
            assert!(now.0 >= seen.0 && now.1 >= seen.1 && now.2 >= seen.2, "{id:?}: {now:?} after {seen:?}");
            if self.options.durability == Durability::Sync && now.1 > 0 {
                // others outside have seen it
                self.model.must = self.model.must.max(self.model.partitions[&id][now.1 as usize - 1].unit + 1);
            }
        }
        let was_poisoned = life.is_poisoned;
        life.is_poisoned = self.is_poisoned(life);
        if life.is_poisoned && !was_poisoned {
            self.note(format!("!! {:?}", *life.log.condition().borrow()));
        }
        self.resolve(life, was_poisoned);
    }

    /// Looks who has got an answer, and whether it is the right one.
    fn resolve(&mut self, life: &mut Life, was_poisoned: bool) {
        for (number, (mut waiting, expected)) in std::mem::take(&mut life.waiting) {
            let mut session = None;
            let answer = match &mut waiting {
                Waiting::Append(ticket) => match ticket.try_recv() {
                    Ok(Ok(placed)) => Some(Ok(Expected::Placed(placed))),
                    Ok(Err(AppendRefusal::Guard(refused))) => Some(Ok(Expected::Refused(NoPlace::Guard(refused.of)))),
                    Ok(Err(AppendRefusal::Producer(_))) => Some(Ok(Expected::Refused(NoPlace::Producer))),
                    Ok(Err(AppendRefusal::Fenced)) => Some(Ok(Expected::Fenced)),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Closed) => Some(Err(SubmitError::Stopped)),
                },
                Waiting::Acquire(lane, future) => poll(future).map(|acquired| {
                    acquired.map(|acquired| {
                        let (position, owner) = (acquired.position, acquired.owner);
                        session = Some(Session { id: *lane, acquired, position });
                        Expected::Acquired { position, owner }
                    })
                }),
                Waiting::Verdict(future, (lane, owner), before) => poll(future).map(|verdict| {
                    verdict.map(|verdict| {
                        let refused = verdict.err().map(|refused| {
                            let session = life.sessions.iter_mut().find(|session| session.is(*lane, *owner));
                            session.unwrap().position = *before;
                            refused.of
                        });
                        Expected::Verdict(refused)
                    })
                }),
                Waiting::Done(future) => poll(future).map(|done| {
                    let is_written = matches!(expected, Some((Expected::Written, _)));
                    done.map(|()| if is_written { Expected::Written } else { Expected::Durable })
                }),
            };
            match answer {
                None => drop(life.waiting.insert(number, (waiting, expected))),
                Some(Err(_)) => assert!(life.is_poisoned, "ticket {number} is forgotten, though the log works"),
                Some(Ok(answer)) => {
                    let Some((expected, units)) = expected else { panic!("{answer:?} before it was written") };
                    assert_eq!(answer, expected, "ticket {number}");
                    let is_ack = matches!(
                        answer,
                        Expected::Placed(_) | Expected::Refused(_) | Expected::Fenced | Expected::Durable
                    );
                    assert!(!is_ack || !was_poisoned, "ticket {number} is acknowledged after the log was poisoned");
                    if is_ack && self.options.durability == Durability::Sync {
                        self.model.must = self.model.must.max(units);
                    }
                    life.sessions.extend(session);
                }
            }
        }
    }

    /// Everything is durable, and a mark says so.
    pub(crate) fn prove(&mut self, life: &mut Life) {
        self.take_in(life, |life| {
            let stepper = life.stepper.as_mut().unwrap();
            stepper.append();
            stepper.idle();
            stepper.sync();
            stepper.idle();
            stepper.sync();
        });
        self.after_step(life);
        self.model.must = self.model.units.len();
    }

    /// The power goes: what was not synced may be lost, block by block.
    pub(crate) fn crash(&mut self) {
        self.note("-- the power is lost");
        let after = crashed(&self.disk, &mut self.random);
        self.disk.clear_fault();
        self.disk = after;
    }

    /// How a life ends: cleanly, by a kill, or with the power.
    pub(crate) fn end(&mut self, mut life: Life) {
        self.faults.begin_step();
        match self.random.below(if self.is_calm { 2 } else { 6 }) {
            0 => {
                // While it closes it may give up what finds no room (`tests/log/journal/shortage.rs`), and what is
                // closed may be gone before its append time was seen.
                self.take_in(&mut life, |life| life.stepper.as_mut().unwrap().append());
                self.note("-- close");
                self.take_in(&mut life, |life| life.stepper.take().unwrap().close());
                self.after_step(&mut life);
                if !life.is_poisoned {
                    assert!(life.waiting.is_empty(), "closed, and somebody still waits");
                    self.model.must = self.model.units.len();
                }
                drop(life);
                if !self.is_calm && self.random.once_in(2) {
                    self.crash();
                }
            }
            1 | 2 => self.note("-- kill"),
            _ => {
                drop(life);
                self.crash();
            }
        }
    }
}

/// Whether an error tells of this damaged file.
pub(crate) fn is_of(error: &ColdError, damaged: Option<&String>) -> bool {
    damaged.is_some_and(|name| error.to_string().contains(name))
}

/// What lanes see: how far partitions go, and the lanes' positions.
fn seen(life: &Life) -> (Vec<u64>, Vec<u64>) {
    let ends = PARTITIONS.iter().map(|id| life.log.partition(*id).written()).collect();
    (ends, LANES.iter().map(|id| life.log.lane(*id).position()).collect())
}
