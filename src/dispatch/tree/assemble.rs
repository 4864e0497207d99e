//! Puts together what is to run: backlogs, the lanes of subscribers, and those that delay and hold events of topics.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::changes;
use super::error::StartError;
use super::numbered::{self, NumberedPlan, emitter, keepers};
use super::running::{Holder, LaneGroup, ReusedParts, RunningSubscriber, SubscriberStart, Task, Timer, TreeState};
use crate::dispatch::intake::backlog::{self, Backlog};
use crate::dispatch::lane::Lane;
use crate::dispatch::lane::capsule::{Recorder, Sink};
use crate::dispatch::lane::claims::{GroupDedupe, Groups, Share};
use crate::dispatch::lane::delay::{self, DelayLane};
use crate::dispatch::lane::flow::{Backoff, Flow};
use crate::dispatch::lane::held::{self, HeldLane};
use crate::dispatch::lane::hidden::HiddenLaneStatus;
use crate::dispatch::lane::parts::{FirstOffsets, LaneParts, Policy, WallClock};
use crate::dispatch::lane::status::Counters;
use crate::dispatch::lane::supervisor::{SupervisedLane, SupervisedParts, keep_up};
use crate::dispatch::lane::versions::VersionSlot;
use crate::dispatch::rules;
use crate::engine::{Engine, Numbers, Session};
use crate::limits;
use crate::model::{LaneId, Offset, PartitionId, SubscriberId, TopicId};
use crate::topology::{Plan, SubscriberPlan, TopicIndex, TopicPlan};

/// Builds the next plan, and the tasks of all lanes that are not reused. Spawns nothing.
pub(super) async fn assemble<E: Engine>(
    engine: &E,
    plan: &Plan,
    numbers: Numbers,
    takes: ReusedParts,
    capsules: &Sink,
    stop: &CancellationToken,
) -> Result<(TreeState, Vec<Task>), StartError> {
    let mut running =
        TreeState { plan: plan.clone(), numbers, branches: Vec::new(), timers: Vec::new(), backlogs: Vec::new() };
    let TreeState { plan, numbers, .. } = &running;
    let mut assembly = Assembly {
        engine,
        plan,
        numbers,
        numbered: NumberedPlan::new(plan, numbers),
        keepers: keepers(plan, numbers),
        groups: Groups::default(),
        backlogs: backlogs(engine, plan, numbers, takes.backlogs),
        capsules,
        stop,
        tasks: Vec::new(),
    };
    let (mut branches, mut timers) = (Vec::new(), Vec::new());
    for (subscriber, given) in plan.subscribers.iter().enumerate().zip(takes.branches) {
        branches.push(match given {
            SubscriberStart::Kept(branch) => branch,
            SubscriberStart::Started(roster, counters) => assembly.subscriber(subscriber, roster, counters).await?,
        });
    }
    let mut taken = takes.timers.into_iter();
    for (index, topic) in plan.topics() {
        let taken = taken.next().flatten();
        timers.push(match assembly.numbered.topic(index).zip(assembly.numbered.delayed(index)) {
            None => None,
            Some(_) if taken.is_some() => taken,
            Some(((_, number), (_, timer))) => Some(assembly.timer(index, topic, number, timer).await?),
        });
    }
    let Assembly { backlogs, tasks, .. } = assembly;
    (running.branches, running.timers, running.backlogs) = (branches, timers, backlogs);
    Ok((running, tasks))
}

/// The backlogs of the topics: those that are taken over look at the new readers.
fn backlogs<E: Engine>(
    engine: &E,
    plan: &Plan,
    numbers: &Numbers,
    taken: Vec<Option<Arc<Backlog>>>,
) -> Vec<Option<Arc<Backlog>>> {
    let (mut taken, readers) = (taken.into_iter(), backlog::readers(plan, numbers));
    let topics = plan.topics.iter().zip(&numbers.topics).zip(&readers);
    let of = topics.map(|((topic, number), readers)| match taken.next().flatten() {
        Some(backlog) => {
            backlog.follow(engine, topic, readers);
            Some(backlog)
        }
        None => Backlog::of(engine, topic, *number, readers),
    });
    of.collect()
}

/// What is put together so far.
struct Assembly<'a, E: Engine> {
    engine: &'a E,
    plan: &'a Plan,
    numbers: &'a Numbers,
    numbered: NumberedPlan<'a>,
    /// Of the groups that share events, who keeps their claims.
    keepers: HashMap<changes::ClaimGroup<'a>, SubscriberId>,
    groups: Groups<E>,
    /// By topic.
    backlogs: Vec<Option<Arc<Backlog>>>,
    capsules: &'a Sink,
    stop: &'a CancellationToken,
    tasks: Vec<Task>,
}

/// A lane that is to start, for errors.
struct Start<'a> {
    subscriber: &'a str,
    id: LaneId,
}

impl Start<'_> {
    fn unreadable(&self, reason: impl ToString) -> StartError {
        let (subscriber, partition) = (self.subscriber.to_owned(), self.id.partition);
        StartError::Unreadable { subscriber, partition, reason: reason.to_string() }
    }

    /// What the engine keeps of it, and the right to write it.
    async fn acquire<E: Engine>(&self, engine: &E) -> Result<(E::Session, E::Entries), StartError> {
        let (subscriber, partition) = (self.subscriber.to_owned(), self.id.partition);
        let session = engine.acquire(self.id).await;
        let session = session.map_err(|error| StartError::Lane { subscriber, partition, error })?;
        let entries = engine.entries(self.id).ok_or_else(|| self.unreadable("there is no such lane"))?;
        Ok((session, entries))
    }
}

impl<'a, E: Engine> Assembly<'a, E> {
    /// Loads a lane. It runs once its task is spawned.
    fn add<L>(&mut self, start: &Start<'_>, group: &LaneGroup, parts: L::Parts) -> Result<(), StartError>
    where
        L: SupervisedLane<Parts: SupervisedParts<Session = E::Session>> + 'static,
    {
        let lane = L::load(Box::new(parts)).map_err(|(error, _)| start.unreadable(error))?;
        self.tasks.push(Box::pin(group.tasks.track_future(keep_up(self.engine.clone(), start.id, lane))));
        Ok(())
    }

    /// A subscriber whose lanes start.
    async fn subscriber(
        &mut self,
        (index, subscriber): (usize, &'a SubscriberPlan),
        roster: Arc<VersionSlot>,
        counters: Option<Arc<Counters>>,
    ) -> Result<Arc<RunningSubscriber>, StartError> {
        let plan = self.plan;
        let (label, input) = (subscriber.label(), &plan[subscriber.from]);
        let counters = counters.unwrap_or_else(|| Arc::new(Counters::new(input.partitions)));
        let (group, children, letters) =
            (LaneGroup::below(self.stop), self.children(subscriber), self.letters(subscriber));
        let flow = Arc::new(Flow::new(subscriber.rate, subscriber.concurrency));
        let clock = self.clock();
        let mut commands = Vec::new();
        for partition in 0..input.partitions {
            let Some(emitter) = emitter(&self.numbered, index, subscriber, &roster, partition) else { continue };
            let start = Start { subscriber: &label, id: LaneId { subscriber: emitter.subscriber, partition } };
            let (session, entries) = start.acquire(self.engine).await?;
            let (sender, receiver) = mpsc::channel(limits::LANE_COMMANDS_MAX);
            commands.push(sender);
            let share = self.share(&start, subscriber, session.next_offset(), &entries).await?;
            let parts = LaneParts {
                session,
                entries,
                roster: roster.clone(),
                emitter,
                backoff: Backoff::new(subscriber.retry.clone(), &label, partition),
                policy: Policy::of(subscriber),
                share,
                flow: flow.clone(),
                children: children.clone(),
                letters: letters.clone(),
                partition,
                subscriber: label.as_str().into(),
                clock: clock.clone(),
                counters: counters.clone(),
                recorder: Recorder::new(self.capsules.clone(), subscriber),
                commands: receiver,
                stop: group.stop.clone(),
            };
            self.add::<Lane<E::Session, E::Entries>>(&start, &group, parts)?;
        }
        Ok(Arc::new(RunningSubscriber { roster, counters, commands, group }))
    }

    /// The bounded topics to which a subscriber publishes.
    fn children(&self, subscriber: &SubscriberPlan) -> Vec<Arc<Backlog>> {
        let mut topics: Vec<_> = subscriber.ports.iter().map(|(_, topic)| topic.0 as usize).collect();
        topics.sort_unstable();
        topics.dedup();
        topics.iter().filter_map(|topic| self.backlogs.get(*topic)?.clone()).collect()
    }

    fn clock(&self) -> WallClock {
        let engine = self.engine.clone();
        Arc::new(move || engine.now_ns())
    }

    /// Where what is kept of its dead letters begins.
    fn letters(&self, subscriber: &SubscriberPlan) -> Option<FirstOffsets> {
        let topic = *self.numbers.topics.get(subscriber.dead_letters?.0 as usize)?;
        let engine = self.engine.clone();
        Some(Arc::new(move |partition| engine.bounds(PartitionId { topic, partition }).unwrap_or_default().start))
    }

    /// The part of a lane in a group that shares events.
    async fn share(
        &mut self,
        start: &Start<'_>,
        subscriber: &SubscriberPlan,
        position: Offset,
        entries: &E::Entries,
    ) -> Result<Option<Share<E::Session, E::Entries>>, StartError> {
        if subscriber.queue_group.is_none() {
            return Ok(None);
        }
        let keeper = changes::group(subscriber).and_then(|group| self.keepers.get(&group));
        let keeper = keeper.map(|keeper| LaneId { subscriber: *keeper, ..start.id });
        let keeper = keeper.ok_or_else(|| start.unreadable("its group has no keeper"))?;
        let remembers = GroupDedupe::of(&self.plan[subscriber.from]);
        let joined = self.groups.join(self.engine, (keeper, remembers), start.id.subscriber, position, entries).await;
        joined.map(Some).map_err(|error| start.unreadable(error))
    }

    /// The lanes of a topic that delay events and hold those that may not follow yet.
    async fn timer(
        &mut self,
        index: TopicIndex,
        topic: &TopicPlan,
        number: TopicId,
        timer: SubscriberId,
    ) -> Result<Arc<Timer>, StartError> {
        let name = format!("{}{}", topic.label(), rules::delay::SUFFIX);
        let start = Start { subscriber: &name, id: LaneId { subscriber: timer, partition: 0 } };
        let (session, entries) = start.acquire(self.engine).await?;
        let (seen, awaits_clock, group) =
            (Arc::<HiddenLaneStatus>::default(), Arc::default(), LaneGroup::below(self.stop));
        let parts = delay::DelayLaneParts {
            engine: self.engine.clone(),
            session,
            entries,
            name: topic.label(),
            partition: 0,
            fails: delay::FAILS,
            seen: seen.clone(),
            stop: group.stop.clone(),
            own: delay::DelayParts {
                topic: number,
                partitions: topic.partitions,
                guard: self.numbered.guard(index),
                per_key: topic.per_key.then(|| topic.id.clone()),
                awaits_clock: Arc::clone(&awaits_clock),
            },
        };
        self.add::<DelayLane<E>>(&start, &group, parts)?;
        let held = self.holder(index, topic, number, &group).await?;
        Ok(Arc::new(Timer { seen, awaits_clock, held, group }))
    }

    /// The lanes that hold events for a topic, where there are any.
    async fn holder(
        &mut self,
        index: TopicIndex,
        topic: &TopicPlan,
        number: TopicId,
        group: &LaneGroup,
    ) -> Result<Option<Holder>, StartError> {
        let holds = self.numbered.guard(index).zip(self.numbered.holder(index));
        let holds = holds.map(|(guard, subscriber)| (subscriber, guard.held, Some(guard)));
        // without a lifecycle, events that a former one holds
        let before = || numbered::held_before(self.engine, topic).map(|(held, subscriber)| (subscriber, held, None));
        let Some((subscriber, hidden, guard)) = holds.or_else(before) else { return Ok(None) };
        let name = format!("{}{}", topic.label(), held::SUFFIX);
        let mut holding = Vec::new();
        for partition in 0..topic.partitions {
            let start = Start { subscriber: &name, id: LaneId { subscriber, partition } };
            let (session, entries) = start.acquire(self.engine).await?;
            let (place, seen) = (PartitionId { topic: number, partition }, Arc::<HiddenLaneStatus>::default());
            holding.push(seen.clone());
            let states = self.engine.states(place).ok_or_else(|| start.unreadable("there is no such partition"))?;
            let parts = held::HeldLaneParts {
                engine: self.engine.clone(),
                session,
                entries,
                name: topic.label(),
                partition,
                fails: held::FAILS,
                seen,
                stop: group.stop.clone(),
                own: held::HeldParts { states, place, guard: guard.clone() },
            };
            self.add::<HeldLane<E>>(&start, group, parts)?;
        }
        Ok(Some(Holder { subscriber, topic: hidden, seen: holding }))
    }
}
