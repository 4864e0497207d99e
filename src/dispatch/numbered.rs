//! A plan with the engine's numbers: which topic, hidden ones as well, and which subscriber is which.
//!
//! Relies on: the order of a blueprint, in which numbers come back.

use std::collections::{HashMap, HashSet};

use super::changes::{Group, group};
use super::claims;
use super::delay;
use super::held;
use super::outputs::{Emitter, Target};
use super::versions::{Roster, Taken};
use crate::engine::{Blueprint, Numbers, SubscriberSpec, TopicSpec};
use crate::model::{OutputIds, SubscriberId, TopicId, TopicSettings};
use crate::topology::{LifecyclePlan, Plan, SubscriberPlan, TopicIndex, TopicPlan};

/// A plan's nodes with the engine's numbers.
pub(super) struct Numbered<'a> {
    pub(super) plan: &'a Plan,
    pub(super) numbers: &'a Numbers,
}

impl<'a> Numbered<'a> {
    pub(super) fn topics(&self) -> impl Iterator<Item = (&'a TopicPlan, TopicId)> {
        self.plan.topics.iter().zip(self.numbers.topics.iter().copied())
    }

    pub(super) fn topic(&self, index: TopicIndex) -> Option<(&'a TopicPlan, TopicId)> {
        let at = index.0 as usize;
        Some((self.plan.topics.get(at)?, *self.numbers.topics.get(at)?))
    }

    pub(super) fn target(&self, index: TopicIndex) -> Option<Target> {
        let (topic, number) = self.topic(index)?;
        let delayed = self.delayed(index).map(|(delayed, _)| delayed);
        let TopicPlan { partitions, key, schema, lifecycle, .. } = topic.clone();
        let held = self.held(index).map(|held| held.topic);
        Some(Target { topic: number, partitions, key, schema, delayed, lifecycle, held })
    }

    /// The hidden topic in which what is to come later waits, and who takes it from there. Behind all that the plan has.
    pub(super) fn delayed(&self, index: TopicIndex) -> Option<(TopicId, SubscriberId)> {
        let Plan { topics, subscribers } = self.plan;
        let at = index.0 as usize;
        topics.get(at).filter(|topic| topic.dead_letters_of.is_none())?;
        let topic = self.numbers.topics.get(topics.len() + at)?;
        Some((*topic, *self.numbers.subscribers.get(subscribers.len() + at)?))
    }

    /// The guard of a topic, and the hidden topic of what it refuses when it is due.
    pub(super) fn guarded(&self, index: TopicIndex) -> Option<(LifecyclePlan, TopicId)> {
        let (topics, at) = (&self.plan.topics, index.0 as usize);
        let lifecycle = topics.get(at)?.lifecycle.clone()?;
        let in_front = topics.iter().take(at).filter(|topic| topic.lifecycle.is_some()).count();
        Some((lifecycle, *self.numbers.topics.get(2 * topics.len() + in_front)?))
    }

    /// The hidden topic of events that are held, and who takes them from there. All that have a guard have it: what was held
    /// before they say `refuse` is held on.
    pub(super) fn held(&self, index: TopicIndex) -> Option<Held> {
        let (Plan { topics, subscribers }, at) = (self.plan, index.0 as usize);
        topics.get(at).filter(|topic| holds(topic))?;
        let in_front = topics.iter().take(at).filter(|topic| holds(topic)).count();
        let guarded = topics.iter().filter(|topic| topic.lifecycle.is_some()).count();
        Some(Held {
            topic: *self.numbers.topics.get(2 * topics.len() + guarded + in_front)?,
            subscriber: *self.numbers.subscribers.get(subscribers.len() + topics.len() + in_front)?,
        })
    }

    pub(super) fn parent(&self, topic: &TopicPlan) -> Option<String> {
        let parent = self.plan.subscribers.get(topic.parent?.0 as usize)?;
        Some(parent.label())
    }
}

/// What holds events of a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) topic: TopicId,
    pub(super) subscriber: SubscriberId,
}

fn holds(topic: &TopicPlan) -> bool {
    topic.lifecycle.is_some()
}

/// The groups that share events, each by its first member and its name.
pub(super) fn groups(plan: &Plan) -> impl Iterator<Item = (&SubscriberPlan, &String)> {
    let mut seen = HashSet::new();
    let groups = plan.subscribers.iter().filter_map(|member| Some((member, member.claim.as_ref()?)));
    groups.filter(move |(member, group)| seen.insert((&member.namespace, *group)))
}

/// Who keeps what each group shares.
pub(super) fn keepers<'p>(plan: &'p Plan, numbers: &Numbers) -> HashMap<Group<'p>, SubscriberId> {
    groups(plan).filter_map(|(member, _)| group(member)).zip(numbers.keepers.iter().copied()).collect()
}

/// How the hidden topics keep events in which those of a topic wait. Producers are not forgotten there: that one sends no
/// event that is to wait does not say that it sends none.
fn hidden(topic: &TopicPlan) -> TopicSettings {
    TopicSettings { retention: delay::RETENTION, forget_producers: None, ..topic.settings }
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
        settings: hidden(topic),
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
    let holding = || plan.topics.iter().filter(|topic| holds(topic));
    let held = |topic: &TopicPlan| format!("{}{}", topic.label(), held::SUFFIX);
    let helds = holding().map(|topic| TopicSpec {
        name: held(topic),
        partitions: topic.partitions,
        settings: hidden(topic),
        lifecycle: None,
    });
    let holders = holding().map(|topic| SubscriberSpec { name: held(topic), from: held(topic) });
    let timers = plan.topics.iter().map(|topic| SubscriberSpec { name: delayed(topic), from: delayed(topic) });
    let from = |index: TopicIndex| plan.topics.get(index.0 as usize).map(TopicPlan::label).unwrap_or_default();
    let subscribers = plan.subscribers.iter();
    Blueprint {
        topics: topics.chain(delays).chain(refused).chain(helds).collect(),
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

/// What a lane of a subscriber makes its units with.
pub(super) fn emitter(
    numbered: &Numbered<'_>,
    index: usize,
    subscriber: &SubscriberPlan,
    roster: &Roster,
    partition: u32,
) -> Option<Emitter> {
    let name = subscriber.label();
    let taken = Taken::of(roster, partition);
    let (input, _) = numbered.topic(subscriber.from)?;
    // Who handles an event again names its outputs the same, whatever it and its topic are called meanwhile.
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
