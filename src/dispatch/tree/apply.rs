//! Replaces the running plan by another one, live.
//!
//! ```text
//!   changes ──> prepare ─────────────────> (the caller decides) ──> apply
//!   read-only   creates new nodes and                               stops changed lanes at a batch boundary;
//!               their start positions                               starts them and the new ones
//! ```
//!
//! Promises: lanes of unchanged subscribers keep running throughout. [`Tree::prepare`] only adds: the running plan
//! continues under its current names, whether or not an apply follows. A stopping lane finishes and commits its current
//! call; its successor continues after it. Relies on: the caller applies one plan at a time, and makes its decision
//! durable between the two steps. Must not know: files, who decides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::assemble::assemble;
use super::changes::{self, places, topic_places};
use super::error::StartError;
use super::leftovers::{clear, count};
use super::losses::losses;
use super::numbered::{NumberedPlan, blueprint, blueprint_on, groups};
use super::renames::Renames;
use super::running::{ReusedParts, RunningSubscriber, SubscriberStart, Timer, TreeState};
use super::{InitialVersions, Tree, digests, rosters};
use crate::api::{Change, ChangeKind, Changes, Node};
use crate::dispatch::lane::claims;
use crate::engine::{
    ApplyError, Blueprint, Engine, NameChanges, Numbers, ReadError, SessionError, StopReason, SubscriberSpec,
};
use crate::model::call::Handler;
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};
use crate::topology::bounds::PARTITIONS_MAX;
use crate::topology::{Plan, StartAt, SubscriberPlan, TopicPlan};

/// Why new nodes cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The engine refused the topics or subscribers of the topology.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The start position of a subscriber cannot be determined or stored.
    #[error("cannot say where `{subscriber}` begins in partition {partition}: {error}")]
    Begin {
        /// Full name of the subscriber.
        subscriber: String,
        /// Partition of the lane.
        partition: u32,
        error: SessionError,
    },
}

impl<E: Engine> Tree<E> {
    /// The running plan.
    pub fn plan(&self) -> Plan {
        self.shared.running().plan.clone()
    }

    /// What another plan would change and lose. Changes nothing. May read from disk.
    pub fn changes(&self, plan: &Plan) -> Changes {
        let running = self.shared.running();
        let mut found = both_sides(&self.shared.engine, &running.plan, plan);
        let snapshot = self.snapshot();
        let subscribers: HashMap<&str, _> = snapshot.subscribers.iter().map(|of| (of.name.as_str(), of)).collect();
        for change in
            found.changes.iter_mut().filter(|change| (change.node, change.what) == (Node::Topic, ChangeKind::Added))
        {
            // it has a number, so it existed before
            if let Some(number) = self.shared.engine.topic(&change.name) {
                let events = events_of(&self.shared.engine, number);
                change.words.push(format!("it was removed before, and comes back with its {events} events"));
            }
        }
        let started: HashSet<String> = self.started_by(plan).into_iter().collect();
        let is_there = |change: &&mut Change| change.node == Node::Subscriber && change.what != ChangeKind::Added;
        for change in found.changes.iter_mut().filter(is_there) {
            let runs_as = change.renamed_from.as_ref().unwrap_or(&change.name);
            let Some(of) = subscribers.get(runs_as.as_str()) else { continue };
            if matches!(change.what, ChangeKind::Changed | ChangeKind::Renamed) {
                if started.contains(&change.name) {
                    change.words.push("its lanes end their calls and continue at their positions".to_owned());
                }
            } else if of.lag + of.waiting > 0 {
                let words = format!("{} events of {} are not handled, and {} wait", of.lag, of.from, of.waiting);
                change.words.push(words);
            }
        }
        found
    }

    /// Full names of the subscribers whose lanes a plan would start: new and changed ones.
    pub fn started_by(&self, plan: &Plan) -> Vec<String> {
        let same = changes::same(&self.shared.running().plan, plan);
        let started = plan.subscribers.iter().zip(same).filter(|(_, same)| same.is_none());
        started.map(|(subscriber, _)| subscriber.label()).collect()
    }

    /// Creates everything that another plan needs in addition to the running one, and sets the start positions of the
    /// subscribers for which `is_new` holds. Does not affect the running plan. Returns the names to assign once the
    /// plan is decided.
    ///
    /// # Errors
    /// [`PrepareError`]; nodes created before the error do no harm.
    pub async fn prepare(
        &self,
        plan: &Plan,
        is_new: impl Fn(&SubscriberPlan) -> bool + Send + Sync,
    ) -> Result<NameChanges, PrepareError> {
        let _alone = self.shared.applying.lock().await;
        prepare(&self.shared.engine, &self.shared.running().plan, plan, is_new).await
    }

    /// Runs another plan. `starts` has the versions of all subscribers that [`Self::started_by`] returns, by full name.
    ///
    /// # Errors
    /// [`StartError`]. A missing version changes nothing; after any other error the changed lanes are stopped, and the
    /// next start runs the decided plan.
    pub async fn apply<H: Handler>(
        &self,
        plan: &Plan,
        mut starts: BTreeMap<String, InitialVersions<H>>,
    ) -> Result<(), StartError> {
        let _alone = self.shared.applying.lock().await;
        let (running, engine) = (self.shared.running(), &self.shared.engine);
        if self.shared.stop.is_cancelled() {
            return Err(StartError::Apply(StopReason::Closed.into()));
        }
        let renames = Renames::of(&running.plan, plan);
        let old = renames.follow(&running.plan);
        let same = changes::same(&running.plan, plan);
        let needed = plan.subscribers.iter().zip(&same).filter(|(_, same)| same.is_none());
        let given: Vec<InitialVersions<H>> =
            needed.clone().filter_map(|(subscriber, _)| starts.remove(&subscriber.label())).collect();
        if given.len() != needed.count() {
            let subscribers = same.iter().filter(|same| same.is_none()).count();
            return Err(StartError::Handlers { handlers: given.len(), subscribers });
        }
        let stay: HashSet<usize> = same.iter().flatten().copied().collect();
        let names = topic_places(&running.plan);
        let timers: Vec<Option<Arc<Timer>>> =
            plan.topics.iter().map(|topic| timer(&running, &names, (plan, topic))).collect();
        let ending = running.branches.iter().enumerate().filter(|(at, _)| !stay.contains(at)).map(|(_, branch)| branch);
        let queues_that_stay: HashSet<_> = timers.iter().flatten().map(|timer| Arc::as_ptr(timer).addr()).collect();
        let queues =
            running.timers.iter().flatten().filter(|timer| !queues_that_stay.contains(&Arc::as_ptr(timer).addr()));
        // stops all of them before waiting for any
        let groups: Vec<_> = ending.map(|branch| &branch.group).chain(queues.map(|timer| &timer.group)).collect();
        groups.iter().for_each(|group| group.stop());
        for group in groups {
            group.drain().await;
        }
        let names = renames.names(engine, plan);
        let numbers = engine.apply(&Blueprint { names, ..blueprint_on(engine, plan, digests(&given)) }).await?;
        let before = places(&old);
        let versions = numbers.versions.clone();
        let mut rosters = rosters(given, &versions);
        let branch = |at: usize| -> Option<Arc<RunningSubscriber>> { running.branches.get(at).cloned() };
        let mut branches = Vec::new();
        for (subscriber, same) in plan.subscribers.iter().zip(&same) {
            if let Some(branch) = same.and_then(branch) {
                branches.push(SubscriberStart::Kept(branch));
            } else if let Some(roster) = rosters.next() {
                let was = before.get(&subscriber.label()).and_then(|at| old.subscribers.get(*at));
                let goes_on = was.filter(|was| old[was.from].label() == plan[subscriber.from].label());
                let counters = goes_on.and_then(|_| branch(*before.get(&subscriber.label())?));
                branches.push(SubscriberStart::Started(roster, counters.map(|branch| branch.counters.clone())));
            }
        }
        let names = topic_places(&old);
        let backlogs = plan.topics.iter().map(|topic| backlog(&running, (&old, &names), topic)).collect();
        let takes = ReusedParts { branches, timers, backlogs };
        let (capsules, stop) = (&self.shared.capsules, &self.shared.stop);
        let (next, tasks) = assemble(engine, plan, numbers, takes, capsules, stop).await?;
        self.shared.run(next, tasks);
        Ok(())
    }
}

/// Creates everything that a plan needs before anything runs, and sets the start positions of the subscribers for which
/// `is_new` holds. Like [`Tree::prepare`] without a running tree; `old` is the plan that ran last, with its names.
///
/// # Errors
/// [`PrepareError`]; nodes created before the error do no harm.
pub async fn prepare<E: Engine>(
    engine: &E,
    old: &Plan,
    plan: &Plan,
    is_new: impl Fn(&SubscriberPlan) -> bool + Send + Sync,
) -> Result<NameChanges, PrepareError> {
    let renames = Renames::of(old, plan);
    let wanted = renames.back(blueprint(plan, Vec::new()));
    let all = both(blueprint(old, Vec::new()), &wanted);
    let numbers = of_blueprint(&wanted, &all, &engine.apply(&all).await?);
    begin(engine, plan, &numbers, is_new).await?;
    Ok(renames.names(engine, plan))
}

/// Assigns the names of a decided plan, before any of its lanes run. Idempotent.
///
/// # Errors
/// [`ApplyError`]; no name has changed then.
pub async fn rename<E: Engine>(engine: &E, plan: &Plan, names: NameChanges) -> Result<(), ApplyError> {
    engine.apply(&Blueprint { names, ..blueprint(plan, Vec::new()) }).await.map(drop)
}

/// The subscribers of a plan without any progress or data, which count as new if no record of earlier plans exists. The
/// engine must have applied the plan.
///
/// # Errors
/// [`ApplyError`].
pub async fn untouched<E: Engine>(engine: &E, plan: &Plan) -> Result<Vec<String>, ApplyError> {
    let numbers = engine.apply(&blueprint(plan, Vec::new())).await?;
    let is_untouched = |(subscriber, number): &(&SubscriberPlan, &SubscriberId)| {
        let lane = |partition| LaneId { subscriber: **number, partition };
        let is_empty =
            |lane| engine.position(lane).unwrap_or(0) == 0 && count(engine, lane).is_ok_and(|found| found == 0);
        (0..plan[subscriber.from].partitions).all(|partition| is_empty(lane(partition)))
    };
    let subscribers = plan.subscribers.iter().zip(&numbers.subscribers).filter(is_untouched);
    Ok(subscribers.map(|(subscriber, _)| subscriber.label()).collect())
}

/// What `new` would change and lose compared with `old`, the plan that ran last, while nothing runs. Changes no data.
///
/// # Errors
/// [`ApplyError`].
pub async fn changes_of<E: Engine>(engine: &E, old: &Plan, new: &Plan) -> Result<Changes, ApplyError> {
    engine.apply(&blueprint_on(engine, old, Vec::new())).await?;
    Ok(both_sides(engine, old, new))
}

/// Number of events of a topic.
fn events_of<E: Engine>(engine: &E, topic: TopicId) -> u64 {
    let bounds = |partition| engine.bounds(PartitionId { topic, partition });
    (0..PARTITIONS_MAX).map_while(bounds).map(|bounds| bounds.written - bounds.start).sum()
}

/// Reasons why removed topics cannot be restored: a different number of partitions.
fn other_partitions<E: Engine>(engine: &E, old: &Plan, new: &Plan) -> Vec<String> {
    let known = topic_places(&Renames::of(old, new).follow(old));
    let back = new.topics.iter().filter(|topic| !known.contains_key(&topic.label()));
    let word = |topic: &TopicPlan| {
        let number = engine.topic(&topic.label())?;
        let has = |partition: &u32| engine.bounds(PartitionId { topic: number, partition: *partition }).is_some();
        let existing = (0..PARTITIONS_MAX).take_while(has).count() as u32;
        let partitions = || ApplyError::Partitions { topic: topic.label(), existing, wanted: topic.partitions };
        let words = || format!("{}; or delete the removed topic with `wattle gc` first", partitions());
        (existing != topic.partitions).then(words)
    };
    back.filter_map(word).collect()
}

/// Reasons why topics cannot take the name of a removed topic that still has events: those would become unreachable.
fn names_of_removed<E: Engine>(engine: &E, old: &Plan, new: &Plan) -> Vec<String> {
    let renames = Renames::of(old, new);
    let word = |topic: &TopicPlan| {
        let name = topic.label();
        let number = renames.topic(&name).and_then(|_| engine.topic(&name))?;
        let events = events_of(engine, number);
        let words = || {
            format!(
                "`{name}` cannot be a new name yet: a topic with that name was removed, and its {events} events are \
                 still stored. Choose another name, or delete the topic with `wattle gc` first"
            )
        };
        (events > 0).then(words)
    };
    new.topics.iter().filter_map(word).collect()
}

/// All changes and losses, from the plans and from stored data.
fn both_sides<E: Engine>(engine: &E, old: &Plan, new: &Plan) -> Changes {
    let mut found = changes::compare(old, new);
    found.refusals.extend(other_partitions(engine, old, new));
    found.refusals.extend(names_of_removed(engine, old, new));
    for loss in losses(engine, old, new) {
        let of = |change: &&mut Change| (change.node, &change.name) == (loss.node, &loss.name);
        let goes = |change: &&mut Change| matches!(change.what, ChangeKind::Removed | ChangeKind::Moved);
        if let Some(change) = found.changes.iter_mut().find(of).filter(goes) {
            change.words.push(format!("it {}", loss.what));
        }
        found.losses.push(loss.to_string());
    }
    found
}

/// The delay queue and held events of a topic, to be reused if its name, partitions, lifecycle and divert target are
/// unchanged.
fn timer(
    running: &TreeState,
    names: &BTreeMap<String, usize>,
    (plan, topic): (&Plan, &TopicPlan),
) -> Option<Arc<Timer>> {
    let at = *names.get(&topic.label())?;
    let was = running.plan.topics.get(at)?;
    let diverts_to = |plan: &Plan, topic: &TopicPlan| topic.diverts_to.map(|to| plan[to].label());
    let is_same = was.lifecycle == topic.lifecycle
        && was.partitions == topic.partitions
        && diverts_to(&running.plan, was) == diverts_to(plan, topic);
    running.timers.get(at)?.clone().filter(|_| is_same && topic.dead_letters_of.is_none())
}

fn backlog(
    running: &TreeState,
    (old, names): (&Plan, &BTreeMap<String, usize>),
    topic: &TopicPlan,
) -> Option<Arc<crate::dispatch::intake::backlog::Backlog>> {
    let at = *names.get(&topic.label())?;
    let was = old.topics.get(at)?;
    running.backlogs.get(at)?.clone().filter(|_| was.backlog == topic.backlog && was.partitions == topic.partitions)
}

/// The union of two blueprints; nodes of the running one are unchanged.
fn both(mut running: Blueprint, wanted: &Blueprint) -> Blueprint {
    let there: HashSet<&str> = running.topics.iter().map(|topic| topic.name.as_str()).collect();
    let new = wanted.topics.iter().filter(|topic| !there.contains(topic.name.as_str()));
    let new: Vec<_> = new.cloned().collect();
    running.topics.extend(new);
    let there: HashSet<&SubscriberSpec> = running.subscribers.iter().collect();
    let new: Vec<_> = wanted.subscribers.iter().filter(|subscriber| !there.contains(subscriber)).cloned().collect();
    running.subscribers.extend(new);
    let there: HashSet<&SubscriberSpec> = running.keepers.iter().collect();
    let new: Vec<_> = wanted.keepers.iter().filter(|keeper| !there.contains(keeper)).cloned().collect();
    running.keepers.extend(new);
    running
}

/// The numbers of a blueprint, extracted from those of a superset.
fn of_blueprint(wanted: &Blueprint, all: &Blueprint, numbers: &Numbers) -> Numbers {
    let topics: HashMap<&str, TopicId> =
        all.topics.iter().map(|topic| topic.name.as_str()).zip(numbers.topics.iter().copied()).collect();
    let subscribers: HashMap<&SubscriberSpec, SubscriberId> =
        all.subscribers.iter().zip(numbers.subscribers.iter().copied()).collect();
    let keepers: HashMap<&SubscriberSpec, SubscriberId> =
        all.keepers.iter().zip(numbers.keepers.iter().copied()).collect();
    Numbers {
        topics: wanted.topics.iter().filter_map(|wanted| topics.get(wanted.name.as_str()).copied()).collect(),
        subscribers: wanted.subscribers.iter().filter_map(|wanted| subscribers.get(wanted).copied()).collect(),
        keepers: wanted.keepers.iter().filter_map(|wanted| keepers.get(wanted).copied()).collect(),
        ..Numbers::default()
    }
}

/// Durably sets the start positions of the lanes of new subscribers, without any data.
async fn begin<E: Engine>(
    engine: &E,
    plan: &Plan,
    numbers: &Numbers,
    is_new: impl Fn(&SubscriberPlan) -> bool + Send + Sync,
) -> Result<(), PrepareError> {
    let numbered = NumberedPlan::new(plan, numbers);
    for (subscriber, number) in plan.subscribers.iter().zip(&numbers.subscribers) {
        let Some((topic, input)) = numbered.topic(subscriber.from).filter(|_| is_new(subscriber)) else { continue };
        for partition in 0..topic.partitions {
            let place = PartitionId { topic: input, partition };
            let lane = LaneId { subscriber: *number, partition };
            let moved = async {
                let consumed_to = match subscriber.start {
                    StartAt::Earliest => 0,
                    StartAt::Latest => engine.bounds(place).ok_or(ReadError::UnknownPartition)?.written,
                    StartAt::Time(time) => {
                        let time_ns = time.unix_ns().unwrap_or(if time.second() < 0 { 0 } else { u64::MAX });
                        engine.offset_at_time(place, time_ns).await?
                    }
                };
                clear(engine, lane, consumed_to).await
            };
            let name = || subscriber.label();
            moved.await.map_err(|error| PrepareError::Begin { subscriber: name(), partition, error })?;
        }
    }
    // a group that is entirely new has no claims
    let known: HashSet<_> = plan.subscribers.iter().filter(|of| !is_new(of)).filter_map(changes::group).collect();
    for ((member, group), number) in groups(plan).zip(&numbers.keepers) {
        if changes::group(member).is_some_and(|group| known.contains(&group)) {
            continue;
        }
        for partition in 0..plan[member.from].partitions {
            let cleared = clear(engine, LaneId { subscriber: *number, partition }, 0).await;
            let subscriber = claims::keeper_name(member, group);
            cleared.map_err(|error| PrepareError::Begin { subscriber, partition, error })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::engine::memory::MemoryEngine;
    use crate::topology::{PathKind, Source, Surroundings, TopicIndex, check};

    struct Anything;

    impl Surroundings for Anything {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn at(&self, _: &std::path::Path) -> PathKind {
            PathKind::File
        }
    }

    /// A plan with `count` topics, each with two subscribers in a claim group.
    fn wide(count: u32) -> Plan {
        let text = "wattle: v1\nname: t\ntopics: { a: { lifecycle: { state: id, start: [a], allow: {} } } }\n\
                    subscribers: { s: { from: a, plugin: s.wasm, queue_group: g } }\n";
        let (plan, problems) = check(&[Source { path: "t.yaml".into(), text: text.to_owned() }], &Anything);
        let plan = plan.unwrap_or_else(|| panic!("{problems:?}"));
        let numbered = |name: &str, number: u32| format!("{name}-{number}");
        let topic = |number| TopicPlan { name: numbered("a", number), ..plan.topics[0].clone() };
        let subscriber = |number: u32| SubscriberPlan {
            name: numbered("s", number),
            from: TopicIndex(number),
            queue_group: Some(numbered("g", number / 2)),
            dead_letters: None,
            ..plan.subscribers[0].clone()
        };
        Plan { topics: (0..count).map(topic).collect(), subscribers: (0..count).map(subscriber).collect() }
    }

    /// Processor time of applying a plan without its lanes; the minimum of several runs.
    fn cost(count: u32) -> u64 {
        let (old, new) = (wide(count), wide(count + 2));
        let once = |_| {
            let spent = || clock_gettime(ClockId::ThreadCPUTime);
            let began = spent();
            assert_eq!(changes::compare(&old, &new).changes.len(), 4);
            assert_eq!(changes::same(&old, &new).iter().flatten().count(), count as usize);
            let wanted = blueprint(&new, Vec::new());
            let all = both(blueprint(&old, Vec::new()), &wanted);
            let engine = MemoryEngine::default();
            let mut applied = std::pin::pin!(engine.apply(&all));
            let Poll::Ready(numbers) = applied.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("it waits for nothing")
            };
            let numbers = of_blueprint(&wanted, &all, &numbers.unwrap());
            assert_eq!((numbers.topics.len(), numbers.keepers.len()), (4 * new.topics.len() + 1, new.topics.len() / 2));
            let numbered = NumberedPlan::new(&new, &numbers);
            let has_guard = |index| numbered.guard(index).zip(numbered.holder(index)).is_some();
            assert!(new.topics().all(|(index, _)| has_guard(index)));
            let ended = spent();
            (ended.tv_sec - began.tv_sec) as u64 * 1_000_000_000 + ended.tv_nsec as u64 - began.tv_nsec as u64
        };
        (0..3).map(once).min().unwrap()
    }

    /// Number of node accesses while querying each topic of a plan.
    fn looked_at(count: u32) -> usize {
        use super::super::numbered::LOOKED_AT;
        let plan = wide(count);
        let hidden = plan.topics.len() * 4;
        let numbers = Numbers {
            topics: (0..hidden as u32).map(crate::model::TopicId).collect(),
            subscribers: (0..hidden as u32).map(SubscriberId).collect(),
            ..Numbers::default()
        };
        let before = LOOKED_AT.get();
        let numbered = NumberedPlan::new(&plan, &numbers);
        for (index, topic) in plan.topics() {
            assert!(numbered.guard(index).zip(numbered.holder(index)).zip(numbered.target(index)).is_some());
            assert!(numbered.parent(topic).is_none() && numbered.diverted_from(topic).is_none());
        }
        LOOKED_AT.get() - before
    }

    #[test]
    fn each_topic_is_asked_about_without_a_look_at_the_others() {
        assert_eq!(looked_at(20_000), 10 * looked_at(2_000));
        assert!(looked_at(2_000) <= 10 * 2_000, "{}", looked_at(2_000));
    }

    #[test]
    fn ten_times_the_topics_cost_ten_times_the_work_and_not_a_hundred() {
        let (small, large) = (cost(2_000), cost(20_000));
        let ratio = large as f64 / small as f64;
        println!("2,000 topics: {} ms, 20,000 topics: {} ms, {ratio:.1}", small / 1_000_000, large / 1_000_000);
        assert!(ratio < 33.0, "{ratio}");
    }
}
