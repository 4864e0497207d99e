//! What runs at a moment: a plan with its numbers, and the lanes of each subscriber in a group of its own.
//!
//! Promises: what is assembled beside what runs takes over the groups that stay as they are, the very same lanes; the tasks
//! of the others are given back and run once they are spawned.
//! Relies on: whoever assembles has stopped the lanes that others take the place of.
//! Must not know: which subscribers change, who decided on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes;
use super::error::StartError;
use super::numbered::{self, Numbered, emitter, keepers};
use crate::dispatch::intake::backlog::{self, Backlog};
use crate::dispatch::intake::publish::{self, Targets};
use crate::dispatch::lane::capsule::{Recorder, Sink};
use crate::dispatch::lane::claims::{Groups, Remembers};
use crate::dispatch::lane::command::Command;
use crate::dispatch::lane::delay::{self, DelayLane};
use crate::dispatch::lane::flow::{Backoff, Flow};
use crate::dispatch::lane::held::{self, HeldLane};
use crate::dispatch::lane::hidden::Seen;
use crate::dispatch::lane::status::Counters;
use crate::dispatch::lane::supervisor::{Supervised as _, keep_up};
use crate::dispatch::lane::versions::Roster;
use crate::dispatch::lane::{Lane, Parts, Policy, Starts};
use crate::dispatch::rules;
use crate::engine::{Engine, Numbers, Session};
use crate::limits;
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};
use crate::topology::{Plan, TopicIndex};

/// A task of a lane, not spawned yet.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What runs. Replaced as a whole.
pub(crate) struct Running {
    pub(crate) plan: Plan,
    pub(crate) numbers: Numbers,
    /// By subscriber.
    pub(crate) branches: Vec<Arc<Branch>>,
    /// What waits in front of each topic until it is due; none for those of dead letters.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

/// Lanes that start and stop together.
pub(crate) struct Group {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A subscriber that runs.
pub(crate) struct Branch {
    pub(crate) roster: Arc<Roster>,
    pub(crate) counters: Arc<Counters>,
    /// To its lanes, by partition.
    pub(crate) commands: Vec<mpsc::Sender<Command>>,
    pub(crate) group: Group,
}

/// The queue of what comes later to a topic, and what is held for it.
pub(crate) struct Timer {
    pub(crate) seen: Arc<Seen>,
    /// Events that are due by the wall clock, but not by trusted time.
    pub(crate) awaits_clock: Arc<AtomicU64>,
    /// What holds events for it: who, the hidden topic, and what is seen of each partition.
    pub(crate) held: Option<Holder>,
    pub(crate) group: Group,
}

/// What holds events for a topic.
pub(crate) struct Holder {
    pub(crate) subscriber: SubscriberId,
    /// The hidden topic.
    pub(crate) topic: TopicId,
    /// By partition.
    pub(crate) seen: Vec<Arc<Seen>>,
}

/// What a subscriber is to run as.
pub(crate) enum Given {
    /// As it runs.
    Kept(Arc<Branch>),
    /// Its lanes start, with these versions; its counts go on from where they were.
    Started(Arc<Roster>, Option<Arc<Counters>>),
}

/// What is taken over.
pub(crate) struct Takes {
    /// By subscriber.
    pub(crate) branches: Vec<Given>,
    /// By topic.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

impl Group {
    fn below(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), tasks: TaskTracker::new() }
    }

    /// Lets its lanes end the call that they are at.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Lets its lanes end the call that they are at and commit it, and waits until they have.
    pub(crate) async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Running {
    pub(crate) fn numbered(&self) -> Numbered<'_> {
        Numbered::new(&self.plan, &self.numbers)
    }

    /// The topics as producers see them.
    pub(crate) fn targets(&self) -> Targets {
        let numbered = self.numbered();
        let targets = numbered.topics().zip(&self.backlogs).zip((0..).map(TopicIndex));
        let targets = targets.map(|(((topic, number), backlog), index)| publish::Target {
            name: topic.label(),
            topic: number,
            partitions: topic.partitions,
            parent: numbered.parent(topic),
            diverted_from: numbered.diverted_from(topic),
            key: topic.key.clone(),
            id: topic.id.clone(),
            schema: topic.schema.clone(),
            dedupes: topic.settings.dedupe.is_some(),
            per_key: topic.per_key,
            is_dead_letters: topic.dead_letters_of.is_some(),
            delayed: numbered.delayed(index).map(|(delayed, _)| delayed),
            guard: numbered.guard(index),
            backlog: backlog.clone(),
        });
        let refused = numbered.topics().zip((0..).map(TopicIndex)).filter_map(|((topic, _), index)| {
            Some(publish::Target {
                name: format!("{}{}", topic.label(), rules::delay::REFUSED_SUFFIX),
                topic: numbered.guard(index)?.refused,
                partitions: 1,
                parent: Some(format!("{}{}", topic.label(), rules::delay::SUFFIX)),
                diverted_from: None,
                key: None,
                id: None,
                schema: None,
                dedupes: false,
                per_key: false,
                is_dead_letters: false,
                delayed: None,
                guard: None,
                backlog: None,
            })
        });
        Targets::new(targets.chain(refused))
    }
}

/// Puts together what is to run, and the tasks of the lanes that are not taken over. No task runs yet.
pub(super) async fn assemble<E: Engine>(
    engine: &E,
    plan: &Plan,
    numbers: Numbers,
    takes: Takes,
    capsules: &Sink,
    stop: &CancellationToken,
) -> Result<(Running, Vec<Task>), StartError> {
    let mut running =
        Running { plan: plan.clone(), numbers, branches: Vec::new(), timers: Vec::new(), backlogs: Vec::new() };
    let Running { plan, numbers, .. } = &running;
    let (mut backlogs, mut branches, mut timers, mut tasks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut taken = takes.backlogs.into_iter();
    for ((topic, number), readers) in plan.topics.iter().zip(&numbers.topics).zip(&backlog::readers(plan, numbers)) {
        let backlog = match taken.next().flatten() {
            Some(backlog) => {
                backlog.follow(engine, topic, readers);
                Some(backlog)
            }
            None => Backlog::of(engine, topic, *number, readers),
        };
        backlogs.push(backlog);
    }
    let numbered = Numbered::new(plan, numbers);
    let (mut groups, keepers) = (Groups::<E>::default(), keepers(plan, numbers));
    for ((index, subscriber), given) in plan.subscribers.iter().enumerate().zip(takes.branches) {
        let (roster, counters) = match given {
            Given::Kept(branch) => {
                branches.push(branch);
                continue;
            }
            Given::Started(roster, counters) => (roster, counters),
        };
        let input = &plan[subscriber.from];
        let counters = counters.unwrap_or_else(|| Arc::new(Counters::new(input.partitions)));
        let group = Group::below(stop);
        let mut children: Vec<_> = subscriber.ports.iter().map(|(_, topic)| topic.0 as usize).collect();
        children.sort_unstable();
        children.dedup();
        let children = children.iter().filter_map(|topic| backlogs.get(*topic)?.clone());
        let children: Vec<Arc<Backlog>> = children.collect();
        let letters = subscriber.dead_letters.and_then(|topic| numbers.topics.get(topic.0 as usize).copied());
        let letters = letters.map(|topic| {
            let engine = engine.clone();
            let start = move |partition| engine.bounds(PartitionId { topic, partition }).unwrap_or_default().start;
            Arc::new(start) as Starts
        });
        let flow = Arc::new(Flow::new(subscriber.rate, subscriber.concurrency));
        let mut commands = Vec::new();
        for partition in 0..input.partitions {
            let Some(emitter) = emitter(&numbered, index, subscriber, &roster, partition) else { continue };
            let id = LaneId { subscriber: emitter.subscriber, partition };
            let session = engine.acquire(id).await.map_err(|error| StartError::Lane {
                subscriber: subscriber.label(),
                partition,
                error,
            })?;
            let unreadable =
                |reason: String| StartError::Unreadable { subscriber: subscriber.label(), partition, reason };
            let entries = engine.entries(id).ok_or_else(|| unreadable("there is no such lane".to_owned()))?;
            let (sender, receiver) = mpsc::channel(limits::LANE_COMMANDS_MAX);
            commands.push(sender);
            let share = match &subscriber.claim {
                None => None,
                Some(_) => {
                    let keeper = changes::group(subscriber).and_then(|group| keepers.get(&group));
                    let keeper = keeper.map(|keeper| LaneId { subscriber: *keeper, partition });
                    let keeper = keeper.ok_or_else(|| unreadable("its group has no keeper".to_owned()))?;
                    let joined = groups
                        .join(
                            engine,
                            (keeper, Remembers::of(input)),
                            emitter.subscriber,
                            session.next_offset(),
                            &entries,
                        )
                        .await;
                    Some(joined.map_err(|error| unreadable(error.to_string()))?)
                }
            };
            let lane = Lane::load(Box::new(Parts {
                session,
                entries,
                roster: roster.clone(),
                emitter,
                backoff: Backoff::new(subscriber.retry.clone(), &subscriber.label(), partition),
                policy: Policy::of(subscriber),
                share,
                flow: flow.clone(),
                children: children.clone(),
                letters: letters.clone(),
                partition,
                subscriber: subscriber.label().into(),
                counters: counters.clone(),
                recorder: Recorder::new(capsules.clone(), subscriber),
                commands: receiver,
                stop: group.stop.clone(),
            }));
            let lane = lane.map_err(|(error, _)| unreadable(error.to_string()))?;
            tasks.push(Box::pin(group.tasks.track_future(keep_up(engine.clone(), id, lane))) as Task);
        }
        branches.push(Arc::new(Branch { roster, counters, commands, group }));
    }
    let mut taken = takes.timers.into_iter();
    for (index, topic) in plan.topics() {
        let of_topic = numbered.topic(index).zip(numbered.delayed(index));
        let Some(((_, number), (_, timer))) = of_topic else {
            taken.next();
            timers.push(None);
            continue;
        };
        if let Some(timer) = taken.next().flatten() {
            timers.push(Some(timer));
            continue;
        }
        let (name, id) = (topic.label(), LaneId { subscriber: timer, partition: 0 });
        let subscriber = || format!("{}{}", topic.label(), rules::delay::SUFFIX);
        let unreadable = |reason: String| StartError::Unreadable { subscriber: subscriber(), partition: 0, reason };
        let session = engine.acquire(id).await;
        let session = session.map_err(|error| StartError::Lane { subscriber: subscriber(), partition: 0, error })?;
        let entries = engine.entries(id).ok_or_else(|| unreadable("there is no such lane".to_owned()))?;
        let (seen, awaits_clock, group) = (Arc::default(), Arc::default(), Group::below(stop));
        let seen: Arc<Seen> = seen;
        let lane = DelayLane::load(Box::new(delay::Parts {
            engine: engine.clone(),
            session,
            entries,
            name,
            partition: 0,
            fails: delay::FAILS,
            seen: seen.clone(),
            stop: group.stop.clone(),
            own: delay::Own {
                topic: number,
                partitions: topic.partitions,
                guard: numbered.guard(index),
                per_key: topic.per_key.then(|| topic.id.clone()),
                awaits_clock: Arc::clone(&awaits_clock),
            },
        }));
        let lane = lane.map_err(|(error, _)| unreadable(error.to_string()))?;
        tasks.push(Box::pin(group.tasks.track_future(keep_up(engine.clone(), id, lane))) as Task);
        let mut held = None;
        let holds = numbered.guard(index).zip(numbered.holder(index));
        let holds = holds.map(|(guard, subscriber)| (subscriber, guard.held, Some(guard)));
        // without a lifecycle, what was held before
        let before = || numbered::held_before(engine, topic).map(|(held, subscriber)| (subscriber, held, None));
        if let Some((subscriber, hidden, guard)) = holds.or_else(before) {
            let mut holding = Vec::new();
            for partition in 0..topic.partitions {
                let name = format!("{}{}", topic.label(), held::SUFFIX);
                let unreadable =
                    |reason: String| StartError::Unreadable { subscriber: name.clone(), partition, reason };
                let id = LaneId { subscriber, partition };
                let session = engine.acquire(id).await;
                let session =
                    session.map_err(|error| StartError::Lane { subscriber: name.clone(), partition, error })?;
                let (place, seen) = (PartitionId { topic: number, partition }, Arc::<Seen>::default());
                holding.push(seen.clone());
                let entries = engine.entries(id).ok_or_else(|| unreadable("there is no such lane".to_owned()))?;
                let states = engine.states(place).ok_or_else(|| unreadable("there is no such partition".to_owned()))?;
                let lane = HeldLane::load(Box::new(held::Parts {
                    engine: engine.clone(),
                    session,
                    entries,
                    name: topic.label(),
                    partition,
                    fails: held::FAILS,
                    seen: seen.clone(),
                    stop: group.stop.clone(),
                    own: held::Own { states, place, guard: guard.clone() },
                }));
                let lane = lane.map_err(|(error, _)| unreadable(error.to_string()))?;
                tasks.push(Box::pin(group.tasks.track_future(keep_up(engine.clone(), id, lane))) as Task);
            }
            held = Some(Holder { subscriber, topic: hidden, seen: holding });
        }
        timers.push(Some(Arc::new(Timer { seen, awaits_clock, held, group })));
    }
    (running.branches, running.timers, running.backlogs) = (branches, timers, backlogs);
    Ok((running, tasks))
}
