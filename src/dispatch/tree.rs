//! A running tree: the lanes of every subscriber, and what one can ask of them from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backlog::Backlog;
use super::capsule::{Capsule, Recorder, Sink};
use super::claims::Claims;
use super::command::Command;
use super::delay::{self, DelayLane, Delayed};
use super::flow::{Backoff, Flow};
use super::handler::Handler;
use super::lane::{Lane, LaneError, Parts, Policy};
use super::outputs::{Emitter, Target};
use super::publish::{self, Publisher, Targets};
use super::status::{Counters, Snapshot, SubscriberStatus, TopicStatus};
use super::versions::{Roster, Taken, Terms, Version};
use crate::engine::{ApplyError, Blueprint, Bounds, Engine, Numbers, SessionError, Stopped, SubscriberSpec, TopicSpec};
use crate::limits;
use crate::model::{LaneId, OutputIds, PartitionId, SubscriberId, TopicId, TopicSettings, VersionId};
use crate::topology::{LifecyclePlan, Plan, SubscriberPlan, TopicIndex, TopicPlan};

/// Why a tree does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine refused what the topology wants.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A lane could not be acquired.
    #[error("cannot start `{subscriber}` on partition {partition}: {error}")]
    Lane {
        /// The subscriber's full name.
        subscriber: String,
        /// The partition.
        partition: u32,
        /// Why.
        error: SessionError,
    },
    /// What a lane keeps cannot be read.
    #[error("cannot start `{subscriber}` on partition {partition}: what it keeps cannot be read: {reason}")]
    Unreadable {
        /// The subscriber's full name.
        subscriber: String,
        /// The partition.
        partition: u32,
        /// Why.
        reason: String,
    },
    /// The caller gave another number of handlers than there are subscribers.
    #[error("{handlers} handlers for {subscribers} subscribers")]
    Handlers {
        /// How many were given.
        handlers: usize,
        /// How many are needed.
        subscribers: usize,
    },
}

/// A running tree. Cheap to clone. Its lanes run until [`Tree::drain`].
pub struct Tree<E> {
    pub(super) shared: Arc<Shared<E>>,
}

impl<E> Clone for Tree<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(super) struct Shared<E> {
    pub(super) engine: E,
    pub(super) plan: Plan,
    pub(super) numbers: Numbers,
    /// By subscriber.
    pub(super) rosters: Vec<Arc<Roster>>,
    counters: Vec<Arc<Counters>>,
    /// To the lanes, by subscriber and partition.
    pub(super) commands: Vec<Vec<mpsc::Sender<Command>>>,
    /// What waits in front of each topic until it is due; none for those of dead letters.
    delayed: Vec<Option<Arc<Delayed>>>,
    publisher: Publisher<E>,
    capsules: Sink,
    /// Whoever takes a snapshot has it.
    pub(super) snapshots: Arc<tokio::sync::Mutex<()>>,
    stop: CancellationToken,
    lanes: TaskTracker,
}

impl<E> Shared<E> {
    /// Digest of the version that a subscriber runs, hexadecimal.
    pub(super) fn digest(&self, subscriber: usize) -> String {
        self.rosters.get(subscriber).map(|roster| roster.assignment().proven.digest.to_string()).unwrap_or_default()
    }
}

/// A plan's nodes with the engine's numbers.
struct Numbered<'a> {
    plan: &'a Plan,
    numbers: &'a Numbers,
}

impl<'a> Numbered<'a> {
    fn topics(&self) -> impl Iterator<Item = (&'a TopicPlan, TopicId)> {
        self.plan.topics.iter().zip(self.numbers.topics.iter().copied())
    }

    fn topic(&self, index: TopicIndex) -> Option<(&'a TopicPlan, TopicId)> {
        let at = index.0 as usize;
        Some((self.plan.topics.get(at)?, *self.numbers.topics.get(at)?))
    }

    fn target(&self, index: TopicIndex) -> Option<Target> {
        let (topic, number) = self.topic(index)?;
        let delayed = self.delayed(index).map(|(delayed, _)| delayed);
        let TopicPlan { partitions, key, schema, lifecycle, .. } = topic.clone();
        Some(Target { topic: number, partitions, key, schema, delayed, lifecycle })
    }

    /// The hidden topic in which what is to come later waits, and who takes it from there. Behind all that the plan has.
    fn delayed(&self, index: TopicIndex) -> Option<(TopicId, SubscriberId)> {
        let Plan { topics, subscribers } = self.plan;
        let at = index.0 as usize;
        topics.get(at).filter(|topic| topic.dead_letters_of.is_none())?;
        let topic = self.numbers.topics.get(topics.len() + at)?;
        Some((*topic, *self.numbers.subscribers.get(subscribers.len() + at)?))
    }

    /// The guard of a topic, and the hidden topic of what it refuses when it is due.
    fn guarded(&self, index: TopicIndex) -> Option<(LifecyclePlan, TopicId)> {
        let (topics, at) = (&self.plan.topics, index.0 as usize);
        let lifecycle = topics.get(at)?.lifecycle.clone()?;
        let in_front = topics.iter().take(at).filter(|topic| topic.lifecycle.is_some()).count();
        Some((lifecycle, *self.numbers.topics.get(2 * topics.len() + in_front)?))
    }

    fn parent(&self, topic: &TopicPlan) -> Option<String> {
        let parent = self.plan.subscribers.get(topic.parent?.0 as usize)?;
        Some(parent.label())
    }
}

/// What is to exist for a plan.
pub(super) fn blueprint(plan: &Plan, versions: Vec<[u8; 32]>) -> Blueprint {
    let topics = plan.topics.iter().map(|topic| TopicSpec {
        name: topic.label(),
        partitions: topic.partitions,
        settings: topic.settings,
        lifecycle: topic.lifecycle.as_ref().map(|guard| guard.lifecycle.clone()),
    });
    let delayed = |topic: &TopicPlan| format!("{}{}", topic.label(), delay::SUFFIX);
    let delays = plan.topics.iter().map(|topic| TopicSpec {
        name: delayed(topic),
        partitions: 1,
        settings: TopicSettings { retention: delay::RETENTION, ..topic.settings },
        lifecycle: None,
    });
    // what a lifecycle refuses when it is due
    let guarded = plan.topics.iter().filter(|topic| topic.lifecycle.is_some());
    let refused = guarded.map(|topic| TopicSpec {
        name: format!("{}{}", topic.label(), delay::REFUSED_SUFFIX),
        partitions: 1,
        settings: topic.settings,
        lifecycle: None,
    });
    let timers = plan.topics.iter().map(|topic| SubscriberSpec { name: delayed(topic), from: delayed(topic) });
    let from = |index: TopicIndex| plan.topics.get(index.0 as usize).map(TopicPlan::label).unwrap_or_default();
    let subscribers = plan.subscribers.iter();
    Blueprint {
        topics: topics.chain(delays).chain(refused).collect(),
        subscribers: subscribers
            .map(|s| SubscriberSpec { name: s.label(), from: from(s.from) })
            .chain(timers)
            .collect(),
        versions,
    }
}

/// The versions that a subscriber starts with.
#[derive(Debug, Clone)]
pub struct Starts<H> {
    /// The one that is proven.
    pub proven: H,
    /// The one that is tried.
    pub on_trial: Option<(H, Terms)>,
}

impl<E: Engine> Tree<E> {
    /// Starts the lanes of a plan on `runtime`, with one handler for each subscriber, in the plan's order.
    ///
    /// # Errors
    /// [`StartError`]; no lane runs then.
    pub async fn start<H: Handler>(
        engine: E,
        plan: &Plan,
        handlers: Vec<H>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let starts = handlers.into_iter().map(|proven| Starts { proven, on_trial: None }).collect();
        Self::start_with(engine, plan, starts, runtime).await
    }

    /// As [`Self::start`], with versions that are on trial from the beginning.
    ///
    /// # Errors
    /// [`StartError`]; no lane runs then.
    pub async fn start_with<H: Handler>(
        engine: E,
        plan: &Plan,
        starts: Vec<Starts<H>>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        if starts.len() != plan.subscribers.len() {
            return Err(StartError::Handlers { handlers: starts.len(), subscribers: plan.subscribers.len() });
        }
        let on_trial = starts.iter().filter_map(|starts| Some(starts.on_trial.as_ref()?.0.digest()));
        let versions: Vec<_> = starts.iter().map(|starts| starts.proven.digest()).chain(on_trial).collect();
        let numbers = engine.apply(&blueprint(plan, versions)).await?;
        let mut tried = numbers.versions.iter().copied().skip(starts.len());
        let rosters: Vec<_> = starts
            .into_iter()
            .zip(&numbers.versions)
            .map(|(Starts { proven, on_trial }, number)| {
                let on_trial =
                    on_trial.and_then(|(handler, terms)| Some((Version::new(handler, tried.next()?), terms)));
                Arc::new(Roster::new(Version::new(proven, *number), on_trial))
            })
            .collect();
        let numbered = Numbered { plan, numbers: &numbers };
        let backlog = |index| Backlog::of(&engine, plan, &numbers, index);
        let backlogs: Vec<_> = (0..).zip(&plan.topics).map(|(index, _)| backlog(TopicIndex(index))).collect();
        let targets = numbered.topics().zip(&backlogs).zip((0..).map(TopicIndex));
        let targets = targets.map(|(((topic, number), backlog), index)| publish::Target {
            name: topic.label(),
            topic: number,
            partitions: topic.partitions,
            parent: numbered.parent(topic),
            key: topic.key.clone(),
            schema: topic.schema.clone(),
            dedupes: topic.settings.dedupe.is_some(),
            delayed: numbered.delayed(index).map(|(delayed, _)| delayed),
            lifecycle: topic.lifecycle.clone(),
            backlog: backlog.clone(),
        });
        let refused = numbered.topics().zip((0..).map(TopicIndex)).filter_map(|((topic, _), index)| {
            Some(publish::Target {
                name: format!("{}{}", topic.label(), delay::REFUSED_SUFFIX),
                topic: numbered.guarded(index)?.1,
                partitions: 1,
                parent: Some(format!("{}{}", topic.label(), delay::SUFFIX)),
                key: None,
                schema: None,
                dedupes: false,
                delayed: None,
                lifecycle: None,
                backlog: None,
            })
        });
        let targets = Targets::new(targets.chain(refused));
        let publisher = Publisher::new(engine.clone(), Arc::new(targets));
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let capsules = Sink::default();
        let mut counters = Vec::new();
        let (mut lanes, mut commands) = (Vec::new(), Vec::new());
        let mut claims: HashMap<(&String, &String, u32), Arc<Claims>> = HashMap::new();
        for (index, (subscriber, roster)) in plan.subscribers.iter().zip(&rosters).enumerate() {
            let Some((input, _)) = numbered.topic(subscriber.from) else { continue };
            let shared_counters = Arc::new(Counters::new(input.partitions));
            counters.push(shared_counters.clone());
            let mut children: Vec<_> = subscriber.ports.iter().map(|(_, topic)| topic.0 as usize).collect();
            children.sort_unstable();
            children.dedup();
            let children = children.iter().filter_map(|topic| backlogs.get(*topic)?.clone());
            let children: Vec<Arc<Backlog>> = children.collect();
            let flow = Arc::new(Flow::new(subscriber.rate, subscriber.concurrency));
            let mut senders = Vec::new();
            for partition in 0..input.partitions {
                let Some(emitter) = emitter(&numbered, index, subscriber, roster, partition) else { continue };
                let id = LaneId { subscriber: emitter.subscriber, partition };
                let session = engine.acquire(id).await.map_err(|error| StartError::Lane {
                    subscriber: subscriber.label(),
                    partition,
                    error,
                })?;
                let unreadable =
                    |reason: String| StartError::Unreadable { subscriber: subscriber.label(), partition, reason };
                let entries = engine.entries(id).ok_or_else(|| unreadable("there is no such lane".to_owned()))?;
                let (sender, commands) = mpsc::channel(limits::LANE_COMMANDS_MAX);
                senders.push(sender);
                let claims = subscriber.claim.as_ref().map(|group| {
                    let shared = (&subscriber.namespace, group, partition);
                    claims.entry(shared).or_insert_with(|| Arc::new(Claims::default())).clone()
                });
                let lane = Lane::load(Parts {
                    session,
                    entries,
                    roster: roster.clone(),
                    emitter,
                    backoff: Backoff::new(subscriber.retry.clone(), &subscriber.label(), partition),
                    policy: Policy::of(subscriber),
                    claims,
                    flow: flow.clone(),
                    children: children.clone(),
                    partition,
                    subscriber: subscriber.label().into(),
                    counters: shared_counters.clone(),
                    recorder: Recorder::new(capsules.clone(), subscriber),
                    commands,
                    stop: stop.clone(),
                });
                let lane = lane.map_err(|error| unreadable(error.to_string()))?;
                lanes.push((subscriber.label(), partition, shared_counters.clone(), lane));
            }
            commands.push(senders);
        }
        let mut delayed = Vec::new();
        for index in (0..plan.topics.len() as u32).map(TopicIndex) {
            let Some(((topic, number), (_, timer))) = numbered.topic(index).zip(numbered.delayed(index)) else {
                delayed.push(None);
                continue;
            };
            let (name, id) = (topic.label(), LaneId { subscriber: timer, partition: 0 });
            let subscriber = || format!("{name}{}", delay::SUFFIX);
            let unreadable = |reason: String| StartError::Unreadable { subscriber: subscriber(), partition: 0, reason };
            let session = engine.acquire(id).await;
            let session =
                session.map_err(|error| StartError::Lane { subscriber: subscriber(), partition: 0, error })?;
            let entries = engine.entries(id).ok_or_else(|| unreadable("there is no such lane".to_owned()))?;
            let seen = Arc::new(Delayed::default());
            let lane = DelayLane::load(delay::Parts {
                engine: engine.clone(),
                session,
                entries,
                topic: number,
                partitions: topic.partitions,
                guarded: numbered.guarded(index),
                seen: seen.clone(),
                stop: stop.clone(),
            });
            let lane = lane.map_err(|error| unreadable(error.to_string()))?;
            delayed.push(Some(seen));
            tracker.spawn_on(
                async move {
                    match lane.run().await {
                        Ok(()) | Err(LaneError::Stopped | LaneError::Session(SessionError::Stopped(_))) => {}
                        Err(error) => tracing::error!(topic = name, %error, "what is to come later does not come"),
                    }
                },
                runtime,
            );
        }
        for (subscriber, partition, counters, lane) in lanes {
            tracker.spawn_on(
                async move {
                    match lane.run().await {
                        // an engine that has stopped says so itself, once
                        Ok(()) | Err(LaneError::Stopped | LaneError::Session(SessionError::Stopped(_))) => {}
                        Err(error) => {
                            tracing::error!(subscriber, partition, %error, "the lane has stopped");
                            counters.failed(&error.to_string());
                        }
                    }
                },
                runtime,
            );
        }
        tracker.close();
        let plan = plan.clone();
        let (snapshots, lanes) = (Arc::default(), tracker);
        let shared = Shared {
            engine,
            plan,
            numbers,
            rosters,
            counters,
            commands,
            delayed,
            publisher,
            capsules,
            snapshots,
            stop,
            lanes,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// From now on, capsules of events that fail for the last time go there, as far as there is room; subscribers whose
    /// topology says that none are kept make none. Said once; later ones count for nothing.
    pub fn hand_capsules_to(&self, sender: mpsc::Sender<Capsule>) {
        drop(self.shared.capsules.set(sender));
    }

    /// Publishes into the tree's roots.
    pub fn publisher(&self) -> &Publisher<E> {
        &self.shared.publisher
    }

    /// The engine that the tree runs on.
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// What a lane of a subscriber makes its units with.
    pub(super) fn emitter_of(&self, index: usize, partition: u32) -> Option<Emitter> {
        let subscriber = self.shared.plan.subscribers.get(index)?;
        emitter(&self.numbered(), index, subscriber, self.shared.rosters.get(index)?, partition)
    }

    /// The version of a subscriber that is proven.
    pub(super) fn proven_version(&self, index: usize) -> Option<VersionId> {
        Some(self.shared.rosters.get(index)?.assignment().proven.number)
    }

    fn numbered(&self) -> Numbered<'_> {
        Numbered { plan: &self.shared.plan, numbers: &self.shared.numbers }
    }

    fn bounds(&self, topic: TopicId, partitions: u32) -> impl Iterator<Item = Bounds> {
        let engine = &self.shared.engine;
        (0..partitions).map(move |partition| engine.bounds(PartitionId { topic, partition }).unwrap_or_default())
    }

    /// Events of its input that a subscriber has not consumed; positions are read first.
    fn lag(&self, subscriber: &SubscriberPlan, number: SubscriberId) -> u64 {
        let Some((topic, input)) = self.numbered().topic(subscriber.from) else { return 0 };
        let lane = |partition| LaneId { subscriber: number, partition };
        let positions: Vec<_> = (0..topic.partitions).map(|p| self.shared.engine.position(lane(p))).collect();
        let bounds = self.bounds(input, topic.partitions).zip(positions);
        // what has expired is not to be consumed any more
        let next = |bounds: &Bounds, position: Option<u64>| position.unwrap_or(0).max(bounds.start);
        bounds.map(|(bounds, position)| bounds.written.saturating_sub(next(&bounds, position))).sum()
    }

    /// Whether every lane has consumed everything: nothing is on its way anywhere in the tree.
    pub fn is_settled(&self) -> bool {
        self.has_settled(|_, _| false, true)
    }

    /// The same, but for lanes that stand still until somebody does something about it: their events do not go on by
    /// waiting for them.
    pub fn is_at_rest(&self) -> bool {
        self.has_settled(|counters, partition| counters.stands_still(partition), true)
    }

    /// Where the tree is at rest but for events that come later: when the next of them does, engine time.
    pub fn next_due_ns(&self) -> Option<u64> {
        if !self.has_settled(|counters, partition| counters.stands_still(partition), false) {
            return None;
        }
        self.shared.delayed.iter().flatten().filter_map(|delayed| delayed.next_ns()).min()
    }

    fn has_settled(&self, is_left_out: impl Fn(&Counters, u32) -> bool, counts_delayed: bool) -> bool {
        // All positions, then what waits, then all bounds: a position that is seen has shown what waits, and what waits no
        // longer has its outputs in the bounds, as has a position.
        let subscribers = || self.shared.plan.subscribers.iter().zip(&self.shared.numbers.subscribers);
        let mut positions = Vec::new();
        for ((subscriber, number), counters) in subscribers().zip(&self.shared.counters) {
            let Some((topic, input)) = self.numbered().topic(subscriber.from) else { continue };
            for partition in (0..topic.partitions).filter(|partition| !is_left_out(counters, *partition)) {
                let position = self.shared.engine.position(LaneId { subscriber: *number, partition });
                positions.push((PartitionId { topic: input, partition }, position.unwrap_or(0)));
            }
        }
        for index in (0..self.shared.plan.topics.len() as u32).map(TopicIndex) {
            let Some((topic, timer)) = self.numbered().delayed(index) else { continue };
            let position = self.shared.engine.position(LaneId { subscriber: timer, partition: 0 });
            positions.push((PartitionId { topic, partition: 0 }, position.unwrap_or(0)));
        }
        let is_any_delayed = self.shared.delayed.iter().flatten().any(|delayed| delayed.count() > 0);
        if counts_delayed && is_any_delayed || !self.shared.counters.iter().all(|counters| counters.is_at_rest()) {
            return false;
        }
        let at_end = |(partition, position): &(PartitionId, u64)| {
            let bounds = self.shared.engine.bounds(*partition);
            bounds.is_none_or(|bounds| (*position).max(bounds.start) >= bounds.written)
        };
        positions.iter().all(at_end)
    }

    /// Every node at about this moment.
    pub fn snapshot(&self) -> Snapshot {
        let numbered = self.numbered();
        let delayed = self.shared.delayed.iter().map(|delayed| delayed.as_ref().map_or(0, |delayed| delayed.count()));
        let topics = numbered.topics().zip(delayed).map(|((topic, number), delayed)| TopicStatus {
            name: topic.label(),
            parent: numbered.parent(topic),
            is_dead_letters: topic.dead_letters_of.is_some(),
            delayed,
            partitions: self.bounds(number, topic.partitions).collect(),
        });
        let name = |index: TopicIndex| numbered.topic(index).map(|(topic, _)| topic.label()).unwrap_or_default();
        let subscribers = self.shared.plan.subscribers.iter().enumerate().map(|(index, subscriber)| {
            let number = self.shared.numbers.subscribers.get(index).copied();
            let mut status = SubscriberStatus {
                name: subscriber.label(),
                from: name(subscriber.from),
                to: subscriber.ports.iter().map(|(port, topic)| (port.clone(), name(*topic))).collect(),
                dead_letters: subscriber.dead_letters.map(name),
                lag: number.map_or(0, |number| self.lag(subscriber, number)),
                ..SubscriberStatus::default()
            };
            if let Some(counters) = self.shared.counters.get(index) {
                counters.read_into(&mut status);
            }
            if let Some(roster) = self.shared.rosters.get(index) {
                roster.read_into(&mut status);
            }
            status
        });
        Snapshot { topics: topics.collect(), subscribers: subscribers.collect() }
    }

    /// Lets every lane end its call and commit it, and stops. False where some lane did not within the deadline; what
    /// it was doing is done again after the next start.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.stop.cancel();
        tokio::time::timeout(deadline, self.shared.lanes.wait()).await.is_ok()
    }

    /// Resolves when the engine has stopped, with why.
    pub async fn stopped(&self) -> Stopped {
        let mut health = self.shared.engine.health();
        let changed = health.wait_for(|health| matches!(health, crate::engine::Health::Stopped(_))).await;
        match changed.as_deref() {
            Ok(crate::engine::Health::Stopped(stopped)) => stopped.clone(),
            _ => Stopped::Closed,
        }
    }
}

fn emitter(
    numbered: &Numbered<'_>,
    index: usize,
    subscriber: &SubscriberPlan,
    roster: &Roster,
    partition: u32,
) -> Option<Emitter> {
    let name = subscriber.label();
    let taken = Taken::of(roster, partition);
    let (input, _) = numbered.topic(subscriber.from)?;
    Some(Emitter {
        subscriber: *numbered.numbers.subscribers.get(index)?,
        source: format!("/{name}"),
        from: input.label(),
        partition,
        version: taken.version.number,
        digest: taken.version.digest.to_string(),
        targets: subscriber.ports.iter().map(|(_, topic)| numbered.target(*topic)).collect::<Option<_>>()?,
        dead_letters: subscriber.dead_letters.and_then(|topic| numbered.target(topic)),
        ids: OutputIds::new(&name, &input.label(), partition),
        name,
    })
}
