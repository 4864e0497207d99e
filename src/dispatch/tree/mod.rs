//! A running tree: starts, is replaced, shows its status, drains. Operations on one subscriber or topic are those of
//! [`crate::dispatch::Subscriber`] and [`crate::dispatch::Topic`].

pub(super) mod apply;
mod assemble;
pub(super) mod changes;
pub(super) mod error;
mod lag;
pub(super) mod leftovers;
pub(super) mod losses;
pub(super) mod numbered;
pub(super) mod renames;
pub(super) mod running;
pub(super) mod turns;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Bounds, Snapshot, SubscriberStatus, TopicStatus};
use crate::dispatch::intake::publish::Publisher;
use crate::dispatch::lane::capsule::{Capsule, Sink};
use crate::dispatch::lane::done::read_done;
use crate::dispatch::lane::status::Counters;
use crate::dispatch::lane::versions::{Terms, Version, VersionSlot};
use crate::dispatch::tree::turns::SnapshotLocks;
use crate::engine::{Engine, Entries, GuardCounts, StopReason};
use crate::limits;
use crate::model::call::Handler;
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId, VersionId};
use crate::topology::{Plan, SubscriberPlan, TopicIndex};
use assemble::assemble;
use error::StartError;
use numbered::{NumberedPlan, blueprint_on};
use running::{Holder, ReusedParts, RunningSubscriber, SubscriberStart, Task, Timer, TreeState};

/// A running tree. Cheap to clone. Its lanes run until [`Tree::drain`].
pub struct Tree<E> {
    pub(super) shared: Arc<TreeInner<E>>,
}

impl<E> Clone for Tree<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(super) struct TreeInner<E> {
    pub(super) engine: E,
    /// The running plan.
    running: RwLock<Arc<TreeState>>,
    publisher: Publisher<E>,
    pub(super) capsules: Sink,
    /// Locks per subscriber, held while a snapshot is taken.
    pub(super) snapshots: SnapshotLocks,
    /// Held while the engine applies a blueprint.
    pub(super) applying: tokio::sync::Mutex<()>,
    pub(super) stop: CancellationToken,
    lanes: TaskTracker,
    runtime: Handle,
    began: Instant,
}

impl<E: Engine> TreeInner<E> {
    /// The running plan.
    pub(super) fn running(&self) -> Arc<TreeState> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the running plan, and spawns the lanes that are new in it.
    pub(super) fn run(&self, running: TreeState, tasks: Vec<Task>) {
        self.publisher.publish_into(running.targets());
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(running);
        for task in tasks {
            self.lanes.spawn_on(task, &self.runtime);
        }
    }
}

/// The versions that a subscriber starts with.
#[derive(Debug, Clone)]
pub struct InitialVersions<H> {
    /// The stable version.
    pub proven: H,
    /// The candidate, with the terms of its trial.
    pub on_trial: Option<(H, Terms)>,
}

impl<E: Engine> Tree<E> {
    /// Starts the lanes of a plan on `runtime`, with one handler per subscriber, in the order of the plan.
    ///
    /// # Errors
    /// [`StartError`]; no lane runs then.
    pub async fn start<H: Handler>(
        engine: E,
        plan: &Plan,
        handlers: Vec<H>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let starts = handlers.into_iter().map(|proven| InitialVersions { proven, on_trial: None }).collect();
        Self::start_with(engine, plan, starts, runtime).await
    }

    /// Like [`Self::start`], with trials that run from the start.
    ///
    /// # Errors
    /// [`StartError`]; no lane runs then.
    pub async fn start_with<H: Handler>(
        engine: E,
        plan: &Plan,
        starts: Vec<InitialVersions<H>>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        if starts.len() != plan.subscribers.len() {
            return Err(StartError::Handlers { handlers: starts.len(), subscribers: plan.subscribers.len() });
        }
        let numbers = engine.apply(&blueprint_on(&engine, plan, digests(&starts))).await?;
        let rosters = rosters(starts, &numbers.versions);
        let takes = ReusedParts {
            branches: rosters.map(|roster| SubscriberStart::Started(roster, None)).collect(),
            timers: Vec::new(),
            backlogs: Vec::new(),
        };
        let (capsules, stop) = (Sink::default(), CancellationToken::new());
        let (running, tasks) = assemble(&engine, plan, numbers, takes, &capsules, &stop).await?;
        let publisher = Publisher::new(engine.clone(), Arc::new(running.targets()));
        let nothing = TreeState {
            plan: Plan::default(),
            numbers: Default::default(),
            branches: Vec::new(),
            timers: Vec::new(),
            backlogs: Vec::new(),
        };
        let shared = TreeInner {
            engine,
            running: RwLock::new(Arc::new(nothing)),
            publisher,
            capsules,
            snapshots: SnapshotLocks::default(),
            applying: tokio::sync::Mutex::new(()),
            stop,
            lanes: TaskTracker::new(),
            runtime: runtime.clone(),
            began: Instant::now(),
        };
        shared.run(running, tasks);
        shared.lanes.close();
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends a capsule of each event that finally fails to `sender`, unless its queue is full or the topology of the
    /// subscriber disables capsules. Only the first call has an effect.
    pub fn hand_capsules_to(&self, sender: mpsc::Sender<Capsule>) {
        drop(self.shared.capsules.set(sender));
    }

    /// The publisher for the tree's roots.
    pub fn publisher(&self) -> &Publisher<E> {
        &self.shared.publisher
    }

    /// The engine that the tree runs on.
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// Number of keys with stored state in the partitions of a topic; unreadable partitions are left out.
    fn states(&self, topic: TopicId, partitions: u32) -> GuardCounts {
        let mut sum = GuardCounts::default();
        for partition in 0..partitions {
            let Some(states) = self.shared.engine.states(PartitionId { topic, partition }) else { continue };
            let counts = GuardCounts::read(|key| states.get(key)).unwrap_or_default();
            sum.living += counts.living;
            sum.ended += counts.ended;
            sum.held += counts.held;
        }
        sum
    }

    fn bounds(&self, topic: TopicId, partitions: u32) -> impl Iterator<Item = Bounds> {
        let engine = &self.shared.engine;
        (0..partitions).map(move |partition| engine.bounds(PartitionId { topic, partition }).unwrap_or_default())
    }

    fn events_per_minute(&self, topic: TopicId, partitions: u32) -> u64 {
        (0..partitions).map(|partition| self.shared.engine.appended_per_minute(PartitionId { topic, partition })).sum()
    }

    /// Open dead letters of a subscriber; `None` if they cannot be counted.
    fn open_letters(
        &self,
        numbered: &NumberedPlan<'_>,
        plan: &SubscriberPlan,
        subscriber: SubscriberId,
        branch: &RunningSubscriber,
    ) -> Option<u64> {
        let Some((letters, topic)) = plan.dead_letters.and_then(|letters| numbered.topic(letters)) else {
            return Some(0);
        };
        let kept: Vec<Bounds> = self.bounds(topic, letters.partitions).collect();
        branch.counters.letters.count(&kept, |each| {
            let start = |partition: u32| kept.get(partition as usize).map_or(0, |bounds| bounds.start);
            for partition in 0..branch.commands.len() as u32 {
                let Some(entries) = self.shared.engine.entries(LaneId { subscriber, partition }) else { continue };
                read_done(&entries, |of, offset| {
                    if offset >= start(of) {
                        each(of, offset);
                    }
                })?;
            }
            Ok(())
        })
    }

    /// Whether every subscriber's plugin can be called: none is being compiled, and none could not be loaded.
    pub fn has_all_plugins(&self) -> bool {
        let running = self.shared.running();
        running.branches.iter().all(|branch| branch.roster.assignment().proven.unavailable.is_none())
    }

    /// Whether every lane has consumed its whole input, and nothing waits or is delayed.
    pub fn is_settled(&self) -> bool {
        self.has_settled(|_, _| false, true)
    }

    /// Like [`Self::is_settled`], but ignores lanes that only an operator can unblock.
    pub fn is_at_rest(&self) -> bool {
        self.has_settled(|counters, partition| counters.stands_still(partition), true)
    }

    /// If only delayed or held events are left: when the next of them is due, engine time.
    pub fn next_due_ns(&self) -> Option<u64> {
        if !self.has_settled(|counters, partition| counters.stands_still(partition), false) {
            return None;
        }
        let running = self.shared.running();
        let next = |timer: &Arc<Timer>| {
            let held = timer.held.iter().flat_map(|held| &held.seen);
            std::iter::once(&timer.seen).chain(held).filter_map(|seen| seen.next_ns()).min()
        };
        running.timers.iter().flatten().filter_map(next).min()
    }

    fn has_settled(&self, is_left_out: impl Fn(&Counters, u32) -> bool, counts_delayed: bool) -> bool {
        // The order is: positions, waiting events, bounds. Once a position is visible, so is every event that it left
        // waiting; once an event no longer waits, its outputs are within the bounds.
        let running = self.shared.running();
        let numbered = running.numbered();
        let mut positions = Vec::new();
        let subscribers = running.plan.subscribers.iter().zip(&running.numbers.subscribers);
        for ((subscriber, number), branch) in subscribers.zip(&running.branches) {
            let counters = &branch.counters;
            let Some((topic, input)) = numbered.topic(subscriber.from) else { continue };
            for partition in (0..topic.partitions).filter(|partition| !is_left_out(counters, *partition)) {
                let position = self.shared.engine.position(LaneId { subscriber: *number, partition });
                positions.push((PartitionId { topic: input, partition }, position.unwrap_or(0)));
            }
        }
        for (index, _) in running.plan.topics() {
            let Some((topic, timer)) = numbered.delayed(index) else { continue };
            let position = self.shared.engine.position(LaneId { subscriber: timer, partition: 0 });
            positions.push((PartitionId { topic, partition: 0 }, position.unwrap_or(0)));
        }
        for Holder { subscriber, topic, seen } in
            running.timers.iter().flatten().filter_map(|timer| timer.held.as_ref())
        {
            for partition in 0..seen.len() as u32 {
                let position = self.shared.engine.position(LaneId { subscriber: *subscriber, partition });
                positions.push((PartitionId { topic: *topic, partition }, position.unwrap_or(0)));
            }
        }
        let held = |timer: &Timer| timer.held.iter().flat_map(|held| &held.seen).any(|seen| seen.count() > 0);
        let mut timers = running.timers.iter().flatten();
        let is_any_delayed = timers.any(|timer| timer.seen.count() > 0 || held(timer));
        if counts_delayed && is_any_delayed || !running.branches.iter().all(|branch| branch.counters.is_at_rest()) {
            return false;
        }
        let at_end = |(partition, position): &(PartitionId, u64)| {
            let bounds = self.shared.engine.bounds(*partition);
            bounds.is_none_or(|bounds| (*position).max(bounds.start) >= bounds.written)
        };
        positions.iter().all(at_end)
    }

    /// The status of every topic, parents before children. Not an atomic view.
    pub fn topics(&self) -> Vec<TopicStatus> {
        self.topics_of(&self.shared.running())
    }

    fn topics_of(&self, running: &TreeState) -> Vec<TopicStatus> {
        let numbered = running.numbered();
        let topics = numbered.topics().zip(&running.timers).map(|((topic, number), timer)| TopicStatus {
            name: topic.label(),
            parent: numbered.parent(topic),
            diverted_from: numbered.diverted_from(topic),
            is_dead_letters: topic.dead_letters_of.is_some(),
            delayed: timer.as_ref().map_or(0, |timer| timer.seen.count()),
            awaits_clock: timer.as_ref().map_or(0, |timer| timer.awaits_clock.load(Ordering::Acquire)),
            delay_failure: timer.as_ref().and_then(|timer| timer.seen.failure()),
            held_failure: timer
                .iter()
                .flat_map(|timer| &timer.held)
                .flat_map(|held| &held.seen)
                .find_map(|of| of.failure()),
            states: match timer.as_ref().is_some_and(|timer| timer.held.is_some()) {
                true => Some(self.states(number, topic.partitions)),
                false => None,
            }
            .filter(|states| topic.lifecycle.is_some() || states.held > 0),
            recognises_retries: topic.recognises_within(limits::RETRIED_FOR),
            events_per_minute: self.events_per_minute(number, topic.partitions),
            partitions: self.bounds(number, topic.partitions).collect(),
        });
        topics.collect()
    }

    /// The status of every node. Not an atomic view. May read a little from disk.
    pub fn snapshot(&self) -> Snapshot {
        let running = self.shared.running();
        let numbered = running.numbered();
        let (topics, now_ns) = (self.topics_of(&running), self.shared.engine.trusted_now_ns());
        let arrived: HashMap<&str, u64> =
            topics.iter().map(|topic| (topic.name.as_str(), topic.events_per_minute)).collect();
        let name = |index: TopicIndex| numbered.topic(index).map(|(topic, _)| topic.label()).unwrap_or_default();
        let keepers = numbered::keepers(&running.plan, &running.numbers);
        let subscribers = running.plan.subscribers.iter().enumerate().map(|(index, subscriber)| {
            let (number, branch) = (running.numbers.subscribers.get(index).copied(), running.branches.get(index));
            let input = numbered.topic(subscriber.from).map(|(topic, input)| (input, topic.partitions));
            let counters = branch.map(|branch| &*branch.counters);
            let keeper = changes::group(subscriber).and_then(|group| keepers.get(&group)).copied();
            let lag = number.zip(input).map(|(number, input)| self.lag(number, input, (counters, keeper)));
            let lag = lag.unwrap_or_default();
            let from = name(subscriber.from);
            let mut status = SubscriberStatus {
                name: subscriber.label(),
                arrived_per_minute: arrived.get(from.as_str()).copied().unwrap_or(0),
                from,
                to: subscriber.ports.iter().map(|(port, topic)| (port.clone(), name(*topic))).collect(),
                dead_letters: subscriber.dead_letters.map(name),
                lag: lag.events,
                lag_age: lag.oldest_ns.map(|oldest_ns| Duration::from_nanos(now_ns.saturating_sub(oldest_ns))),
                ..SubscriberStatus::default()
            };
            if let Some(branch) = branch {
                status.open_dead_letters =
                    number.and_then(|number| self.open_letters(&numbered, subscriber, number, branch));
                branch.counters.read_into(&mut status, self.shared.engine.now_ns());
                branch.roster.read_into(&mut status);
            }
            status
        });
        let subscribers = subscribers.collect();
        Snapshot { topics, subscribers, uptime: self.shared.began.elapsed() }
    }

    /// Stops every lane after its current call and its commit. Returns false if a lane misses the deadline; the next
    /// start repeats its call.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.stop.cancel();
        tokio::time::timeout(deadline, self.shared.lanes.wait()).await.is_ok()
    }

    /// Resolves with the reason once the engine has stopped.
    pub async fn stopped(&self) -> StopReason {
        let mut health = self.shared.engine.health();
        let changed = health.wait_for(|health| matches!(health, crate::engine::Health::Stopped(_))).await;
        match changed.as_deref() {
            Ok(crate::engine::Health::Stopped(stopped)) => stopped.clone(),
            _ => StopReason::Closed,
        }
    }
}

/// The rosters of subscribers. `numbers` has the numbers of all stable versions, then those of the candidates.
pub(super) fn rosters<H: Handler>(
    starts: Vec<InitialVersions<H>>,
    numbers: &[VersionId],
) -> impl Iterator<Item = Arc<VersionSlot>> {
    let mut tried = numbers.iter().copied().skip(starts.len());
    starts.into_iter().zip(numbers).map(move |(InitialVersions { proven, on_trial }, number)| {
        let on_trial = on_trial.and_then(|(handler, terms)| Some((Version::new(handler, tried.next()?), terms)));
        Arc::new(VersionSlot::new(Version::new(proven, *number), on_trial))
    })
}

/// The digests of versions, in the order in which [`rosters`] expects their numbers.
pub(super) fn digests<H: Handler>(starts: &[InitialVersions<H>]) -> Vec<[u8; 32]> {
    let on_trial = starts.iter().filter_map(|starts| Some(starts.on_trial.as_ref()?.0.digest()));
    starts.iter().map(|starts| starts.proven.digest()).chain(on_trial).collect()
}
