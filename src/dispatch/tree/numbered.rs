//! A plan together with the engine's numbers for its topics (hidden ones included) and subscribers.
//!
//! Relies on: the order of nodes in a blueprint, which is the order of the engine's numbers.

use std::collections::{HashMap, HashSet};

use super::changes::{ClaimGroup, group};
use crate::dispatch::lane::outputs::{Emitter, OutputTopic};
use crate::dispatch::lane::versions::{CurrentVersion, VersionSlot};
use crate::dispatch::lane::{claims, delay, held};
use crate::dispatch::rules;
use crate::dispatch::rules::guards::TopicGuard;
use crate::engine::{Blueprint, Engine, Numbers, SubscriberSpec, TopicSpec};
use crate::model::{OutputIds, SubscriberId, TopicId, TopicSettings};
use crate::topology::{Plan, SubscriberPlan, TopicIndex, TopicPlan};

/// Nodes of a plan. Tests count the accesses, since plans have tens of thousands of nodes and each is queried.
struct Nodes<'a, T>(&'a [T]);

#[cfg(test)]
thread_local! {
    /// Number of node accesses on this thread.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts one access.
fn looks() {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + 1);
}

impl<'a, T> Nodes<'a, T> {
    fn get(&self, at: usize) -> Option<&'a T> {
        looks();
        self.0.get(at)
    }

    fn iter(&self) -> impl Iterator<Item = &'a T> + use<'a, T> {
        self.0.iter().inspect(|_| looks())
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A plan's nodes with the engine's numbers.
pub(crate) struct NumberedPlan<'a> {
    topics: Nodes<'a, TopicPlan>,
    subscribers: Nodes<'a, SubscriberPlan>,
    numbers: &'a Numbers,
    /// For each topic, the number of topics before it that have a guard; then the total.
    guards_before: Vec<usize>,
    guards: usize,
}

impl<'a> NumberedPlan<'a> {
    pub(crate) fn new(plan: &'a Plan, numbers: &'a Numbers) -> Self {
        let (topics, subscribers) = (Nodes(&plan.topics), Nodes(&plan.subscribers));
        let mut guards = 0;
        let counted = topics.iter().map(|topic| {
            guards += usize::from(topic.lifecycle.is_some());
            guards - usize::from(topic.lifecycle.is_some())
        });
        let guards_before = counted.collect();
        Self { topics, subscribers, numbers, guards_before, guards }
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&'a TopicPlan, TopicId)> {
        self.topics.iter().zip(self.numbers.topics.iter().copied())
    }

    pub(crate) fn topic(&self, index: TopicIndex) -> Option<(&'a TopicPlan, TopicId)> {
        let at = index.0 as usize;
        Some((self.topics.get(at)?, *self.numbers.topics.get(at)?))
    }

    pub(crate) fn target(&self, index: TopicIndex) -> Option<OutputTopic> {
        let (topic, number) = self.topic(index)?;
        let delayed = self.delayed(index).map(|(delayed, _)| delayed);
        let TopicPlan { partitions, key, schema, .. } = topic.clone();
        Some(OutputTopic { topic: number, partitions, key, schema, delayed, guard: self.guard(index) })
    }

    /// The hidden topic in which delayed events of a topic wait, and the subscriber that reads it. Their numbers follow
    /// those of the plan's topics.
    pub(crate) fn delayed(&self, index: TopicIndex) -> Option<(TopicId, SubscriberId)> {
        let at = index.0 as usize;
        self.topics.get(at).filter(|topic| topic.dead_letters_of.is_none())?;
        let topic = self.numbers.topics.get(self.topics.len() + at)?;
        Some((*topic, *self.numbers.subscribers.get(self.subscribers.len() + at)?))
    }

    /// The guard of a topic. Every guard has hidden topics for held and for refused events: events held before a switch
    /// to `refuse` stay held.
    pub(crate) fn guard(&self, index: TopicIndex) -> Option<TopicGuard> {
        let (topic, at) = (self.topics.get(index.0 as usize)?, index.0 as usize);
        let (plan, before) = (topic.lifecycle.clone()?, *self.guards_before.get(at)?);
        let hidden = 2 * self.topics.len() + before;
        let diverted = topic.diverts_to.and_then(|to| self.topic(to));
        Some(TopicGuard {
            plan,
            refused: *self.numbers.topics.get(hidden)?,
            held: *self.numbers.topics.get(hidden + self.guards)?,
            diverted: diverted.map(|(to, number)| (number, to.label().into())),
        })
    }

    /// The hidden topic of who has changed what.
    pub(crate) fn audit(&self) -> Option<TopicId> {
        self.numbers.topics.get(2 * (self.topics.len() + self.guards)).copied()
    }

    /// The subscriber that reads the hidden topic of held events.
    pub(crate) fn holder(&self, index: TopicIndex) -> Option<SubscriberId> {
        let at = index.0 as usize;
        self.topics.get(at)?.lifecycle.as_ref()?;
        let before = *self.guards_before.get(at)?;
        self.numbers.subscribers.get(self.subscribers.len() + self.topics.len() + before).copied()
    }

    pub(crate) fn parent(&self, topic: &TopicPlan) -> Option<String> {
        let parent = self.subscribers.get(topic.parent?.0 as usize)?;
        Some(parent.label())
    }

    pub(crate) fn diverted_from(&self, topic: &TopicPlan) -> Option<String> {
        Some(self.topics.get(topic.diverted_from?.0 as usize)?.label())
    }
}

/// The claim groups, each by its first member and its name.
pub(super) fn groups(plan: &Plan) -> impl Iterator<Item = (&SubscriberPlan, &String)> {
    let mut seen = HashSet::new();
    let groups = plan.subscribers.iter().filter_map(|member| Some((member, member.queue_group.as_ref()?)));
    groups.filter(move |(member, group)| seen.insert((&member.namespace, *group)))
}

/// The subscriber that stores the claims of each group.
pub(crate) fn keepers<'p>(plan: &'p Plan, numbers: &Numbers) -> HashMap<ClaimGroup<'p>, SubscriberId> {
    groups(plan).filter_map(|(member, _)| group(member)).zip(numbers.keepers.iter().copied()).collect()
}

/// Settings of the hidden topics of a topic. They never forget producers: a producer that sends no delayed events may
/// still be active.
fn hidden(topic: &TopicPlan) -> TopicSettings {
    TopicSettings { retention: delay::RETENTION, forget_producers: None, ..topic.settings }
}

/// The topics and subscribers that a plan needs.
pub(crate) fn blueprint(plan: &Plan, versions: Vec<[u8; 32]>) -> Blueprint {
    let topics = plan.topics.iter().map(|topic| TopicSpec {
        name: topic.label(),
        partitions: topic.partitions,
        settings: match topic.diverted_from {
            // duplicates are also detected when an event is published again from there
            Some(from) => TopicSettings { dedupe: plan[from].settings.dedupe, ..topic.settings },
            None => topic.settings,
        },
        lifecycle: topic.lifecycle.as_ref().map(|guard| guard.lifecycle.clone()),
    });
    let delayed = |topic: &TopicPlan| format!("{}{}", topic.label(), rules::delay::SUFFIX);
    let delays = plan.topics.iter().map(|topic| TopicSpec {
        name: delayed(topic),
        partitions: 1,
        settings: hidden(topic),
        lifecycle: None,
    });
    // topics for delayed events that the lifecycle refuses when they are due
    let guarded = || plan.topics.iter().filter(|topic| topic.lifecycle.is_some());
    let refused = guarded().map(|topic| TopicSpec {
        name: format!("{}{}", topic.label(), rules::delay::REFUSED_SUFFIX),
        partitions: 1,
        settings: topic.settings,
        lifecycle: None,
    });
    let held = |topic: &TopicPlan| format!("{}{}", topic.label(), held::SUFFIX);
    let helds = guarded().map(|topic| TopicSpec {
        name: held(topic),
        partitions: topic.partitions,
        settings: hidden(topic),
        lifecycle: None,
    });
    let audit = TopicSpec {
        name: rules::audit::TOPIC.to_owned(),
        partitions: 1,
        settings: rules::audit::settings(),
        lifecycle: None,
    };
    let holders = guarded().map(|topic| SubscriberSpec { name: held(topic), from: held(topic) });
    let timers = plan.topics.iter().map(|topic| SubscriberSpec { name: delayed(topic), from: delayed(topic) });
    let from = |index: TopicIndex| plan.topics.get(index.0 as usize).map(TopicPlan::label).unwrap_or_default();
    let subscribers = plan.subscribers.iter();
    Blueprint {
        topics: topics.chain(delays).chain(refused).chain(helds).chain([audit]).collect(),
        subscribers: subscribers
            .map(|s| SubscriberSpec { name: s.label(), from: from(s.from) })
            .chain(timers)
            .chain(holders)
            .collect(),
        keepers: groups(plan)
            .map(|(member, group)| SubscriberSpec { name: claims::keeper_name(member, group), from: from(member.from) })
            .collect(),
        versions,
        ..Blueprint::default()
    }
}

/// The hidden topic of held events, and its subscriber, of a topic that no longer has a lifecycle: the events in it are
/// still delivered.
pub(super) fn held_before<E: Engine>(engine: &E, topic: &TopicPlan) -> Option<(TopicId, SubscriberId)> {
    let name = format!("{}{}", topic.label(), held::SUFFIX);
    let number = engine.topic(&name).filter(|_| topic.lifecycle.is_none())?;
    Some((number, engine.subscriber(&name, number)?))
}

/// The topics and subscribers that a running plan needs, hidden topics of former lifecycles included.
pub(crate) fn blueprint_on<E: Engine>(engine: &E, plan: &Plan, versions: Vec<[u8; 32]>) -> Blueprint {
    let mut wanted = blueprint(plan, versions);
    for topic in plan.topics.iter().filter(|topic| held_before(engine, topic).is_some()) {
        let name = format!("{}{}", topic.label(), held::SUFFIX);
        let (partitions, settings) = (topic.partitions, hidden(topic));
        wanted.topics.push(TopicSpec { name: name.clone(), partitions, settings, lifecycle: None });
        wanted.subscribers.push(SubscriberSpec { name: name.clone(), from: name });
    }
    wanted
}

/// The emitter of one lane of a subscriber.
pub(crate) fn emitter(
    numbered: &NumberedPlan<'_>,
    index: usize,
    subscriber: &SubscriberPlan,
    roster: &VersionSlot,
    partition: u32,
) -> Option<Emitter> {
    let name = subscriber.label();
    let taken = CurrentVersion::of(roster, partition);
    let (input, _) = numbered.topic(subscriber.from)?;
    // A second run over an event must give the outputs the same ids, so the ids derive from the original names, which
    // renames do not change.
    let numbers = numbered.numbers;
    let origin = numbers.subscriber_origins.get(index)?;
    Some(Emitter {
        subscriber: *numbers.subscribers.get(index)?,
        source: format!("/{name}"),
        from: input.label(),
        partition,
        version: taken.version.number,
        digest: taken.version.digest.to_string(),
        targets: subscriber.ports.iter().map(|(_, topic)| numbered.target(*topic)).collect::<Option<_>>()?,
        dead_letters: subscriber.dead_letters.and_then(|topic| numbered.target(topic)),
        ids: OutputIds::new(origin, numbers.topic_origins.get(subscriber.from.0 as usize)?, partition),
        origin: origin.clone(),
        name,
    })
}
