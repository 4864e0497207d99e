//! Nodes that another plan renames (`renamed_from`).
//!
//! ```text
//!   running plan ──follow──> the same with new names ──compare──> all other changes
//!   next plan    ──back────> the same with old names: what to create before the renames take effect
//! ```
//!
//! Promises: a rename takes effect once, if the running plan has the old name and not the new one; after that the same
//! `renamed_from` has no effect. The hidden topics of a renamed topic (delayed, held and refused events) and the dead
//! letters of a renamed subscriber follow it, even if neither plan contains them. Relies on: the topology check, which
//! ensures that no declared node was another one. Must not know: who decides, stored data.

use std::collections::BTreeMap;

use crate::dispatch::lane::held;
use crate::dispatch::rules::delay;
use crate::engine::{Blueprint, Engine, NameChanges};
use crate::topology::bounds::DEAD_LETTERS_SUFFIX;
use crate::topology::{Plan, SubscriberPlan, TopicIndex, TopicPlan};

/// The renames from the running plan to another one, by full names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renames {
    /// Old names of topics by new name, dead-letter topics included.
    topics: BTreeMap<String, String>,
    /// Old names by new name.
    subscribers: BTreeMap<String, String>,
}

fn full(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Renames {
    /// The renames from `old`, the running plan, to `new`.
    pub fn of(old: &Plan, new: &Plan) -> Self {
        let written = |topic: &&TopicPlan| topic.dead_letters_of.is_none();
        let topics: BTreeMap<_, _> = old.topics.iter().filter(written).map(|topic| (topic.label(), ())).collect();
        let subscribers: BTreeMap<_, _> =
            old.subscribers.iter().map(|subscriber| (subscriber.label(), subscriber.from)).collect();
        let mut renames = Self::default();
        for topic in new.topics.iter().filter(written) {
            let Some(was) = &topic.renamed_from else { continue };
            let was = full(&topic.namespace, was);
            if topics.contains_key(&was) && !topics.contains_key(&topic.label()) {
                renames.topics.insert(topic.label(), was);
            }
        }
        // Parents come first, so that dead-letter topics are renamed before their subscribers are compared.
        for subscriber in &new.subscribers {
            let Some(was) = &subscriber.renamed_from else { continue };
            let was = full(&subscriber.namespace, was);
            let Some(from) = subscribers.get(&was).filter(|_| !subscribers.contains_key(&subscriber.label())) else {
                continue;
            };
            // A subscriber that reads another topic is not the same one.
            if renames.old_topic(&new[subscriber.from].label()) == old[*from].label() {
                let dead = |name: &str| format!("{name}{DEAD_LETTERS_SUFFIX}");
                renames.topics.insert(dead(&subscriber.label()), dead(&was));
                renames.subscribers.insert(subscriber.label(), was);
            }
        }
        renames
    }

    /// Whether nothing is renamed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.subscribers.is_empty()
    }

    /// Old names of the renamed subscribers, by new name.
    pub fn subscribers(&self) -> &BTreeMap<String, String> {
        &self.subscribers
    }

    /// The old name of a renamed topic.
    pub fn topic(&self, name: &str) -> Option<&String> {
        self.topics.get(name)
    }

    /// The name of a topic before the renames.
    pub fn old_topic<'a>(&'a self, name: &'a str) -> &'a str {
        self.topics.get(name).map_or(name, String::as_str)
    }

    /// The name of a subscriber before the renames.
    pub fn old_subscriber<'a>(&'a self, name: &'a str) -> &'a str {
        self.subscribers.get(name).map_or(name, String::as_str)
    }

    /// The name of a topic after the renames.
    pub fn new_topic<'a>(&'a self, name: &'a str) -> &'a str {
        self.topics.iter().find(|(_, old)| *old == name).map_or(name, |(new, _)| new)
    }

    /// Whether a subscriber or its input topic is renamed.
    pub(super) fn touches(&self, plan: &Plan, subscriber: &SubscriberPlan) -> bool {
        self.subscribers.contains_key(&subscriber.label()) || self.topics.contains_key(&plan[subscriber.from].label())
    }

    /// The running plan with the new names, in the same order.
    pub fn follow(&self, old: &Plan) -> Plan {
        let mut plan = old.clone();
        if self.is_empty() {
            return plan;
        }
        fn by_old(names: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
            names.iter().map(|(new, old)| (old.as_str(), new.as_str())).collect()
        }
        let (topics, subscribers) = (by_old(&self.topics), by_old(&self.subscribers));
        // A rename never changes the namespace.
        let short = |new: &str, namespace: &str| new.get(namespace.len() + 1..).unwrap_or_default().to_owned();
        for topic in &mut plan.topics {
            if let Some(new) = topics.get(topic.label().as_str()) {
                topic.name = short(new, &topic.namespace);
            }
        }
        for subscriber in &mut plan.subscribers {
            if let Some(new) = subscribers.get(subscriber.label().as_str()) {
                subscriber.name = short(new, &subscriber.namespace);
            }
        }
        plan
    }

    /// A blueprint with the old names.
    pub(crate) fn back(&self, mut blueprint: Blueprint) -> Blueprint {
        if self.is_empty() {
            return blueprint;
        }
        let hidden: BTreeMap<String, String> = self.all_topics().map(|(old, new)| (new, old)).collect();
        let old = |name: &mut String, names: &BTreeMap<String, String>| {
            if let Some(old) = names.get(name) {
                name.clone_from(old);
            }
        };
        for topic in &mut blueprint.topics {
            old(&mut topic.name, &hidden);
        }
        for subscriber in &mut blueprint.subscribers {
            // the timer of a topic has the name of its queue, which no other subscriber can have
            let is_timer = [delay::SUFFIX, held::SUFFIX].iter().any(|suffix| subscriber.name.ends_with(suffix));
            old(&mut subscriber.name, if is_timer { &hidden } else { &self.subscribers });
            old(&mut subscriber.from, &hidden);
        }
        for keeper in &mut blueprint.keepers {
            old(&mut keeper.from, &hidden);
        }
        blueprint
    }

    /// Old and new names of all renamed topics, hidden ones included.
    fn all_topics(&self) -> impl Iterator<Item = (String, String)> {
        let with = |suffix: &'static str| {
            self.topics.iter().map(move |(new, old)| (format!("{old}{suffix}"), format!("{new}{suffix}")))
        };
        with("").chain(with(delay::SUFFIX)).chain(with(delay::REFUSED_SUFFIX)).chain(with(held::SUFFIX))
    }

    /// The new names by the engine's numbers, for all renamed nodes that the engine has. `new` is the plan with the new
    /// names.
    pub(crate) fn names<E: Engine>(&self, engine: &E, new: &Plan) -> NameChanges {
        let mut names = NameChanges::default();
        for (old, name) in self.all_topics() {
            let Some(number) = engine.topic(&old) else { continue };
            if let Some(timer) = engine.subscriber(&old, number) {
                names.subscribers.push((timer, name.clone()));
            }
            names.topics.push((number, name));
        }
        let from = |index: TopicIndex| engine.topic(self.old_topic(&new[index].label()));
        for subscriber in &new.subscribers {
            let name = subscriber.label();
            let Some(old) = self.subscribers.get(&name) else { continue };
            let number = from(subscriber.from).and_then(|from| engine.subscriber(old, from));
            names.subscribers.extend(number.map(|number| (number, name)));
        }
        names
    }
}

/// Reasons why a plan cannot rename nodes of an engine when the previous plan is unknown: nothing tells whether the old
/// name is still in use.
pub fn unremembered<E: Engine>(engine: &E, plan: &Plan) -> Vec<String> {
    let topics = plan.topics.iter().filter_map(|topic| {
        let was = full(&topic.namespace, topic.renamed_from.as_ref()?);
        (engine.topic(&topic.label()).is_none() && engine.topic(&was).is_some()).then_some(was)
    });
    let subscribers = plan.subscribers.iter().filter_map(|subscriber| {
        let (was, from) = (
            full(&subscriber.namespace, subscriber.renamed_from.as_ref()?),
            engine.topic(&plan[subscriber.from].label())?,
        );
        let is_there = |name: &str| engine.subscriber(name, from).is_some();
        (!is_there(&subscriber.label()) && is_there(&was)).then_some(was)
    });
    let word = |was| {
        format!(
            "`{was}` is in the data folder, but the topology that ran there is unknown: start once with the old name, \
             then rename it"
        )
    };
    topics.chain(subscribers).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{PathKind, Source, Surroundings, check};

    struct Anything;

    impl Surroundings for Anything {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn at(&self, _: &std::path::Path) -> PathKind {
            PathKind::File
        }
    }

    fn plan(topics: &str, subscribers: &str) -> Plan {
        let text = format!("wattle: v1\nname: t\ntopics: {{ {topics} }}\nsubscribers: {{ {subscribers} }}\n");
        let (plan, problems) = check(&[Source { path: "t.yaml".into(), text }], &Anything);
        plan.unwrap_or_else(|| panic!("{problems:?}"))
    }

    #[test]
    fn a_rename_takes_effect_once_and_takes_along_what_hangs_on_a_name() {
        let old = plan("a: {}, b: {}", "s: { from: a, plugin: s.wasm, to: [b] }, d: { from: s.dead, plugin: d.wasm }");
        let new = plan(
            "x: { renamed_from: a }, b: {}",
            "r: { from: x, plugin: s.wasm, to: [b], renamed_from: s }, d: { from: r.dead, plugin: d.wasm }",
        );
        let renames = Renames::of(&old, &new);
        let followed = renames.follow(&old);
        let names = |plan: &Plan| -> Vec<String> {
            plan.topics.iter().map(TopicPlan::label).chain(plan.subscribers.iter().map(SubscriberPlan::label)).collect()
        };
        assert_eq!(names(&followed), names(&new));
        assert_eq!(Renames::of(&followed, &new), Renames::default(), "the same words say nothing any more");
        assert_eq!(Renames::of(&Plan::default(), &new), Renames::default(), "nothing was there");
        let (before, after) =
            (super::super::numbered::blueprint(&old, Vec::new()), super::super::numbered::blueprint(&new, Vec::new()));
        let back = renames.back(after);
        assert_eq!((back.topics, back.subscribers), (before.topics, before.subscribers));
    }

    #[test]
    fn one_that_takes_from_another_topic_too_is_another_subscriber() {
        let old = plan("a: {}, b: {}", "s: { from: a, plugin: s.wasm }");
        let new = plan("a: {}, b: {}", "r: { from: b, plugin: s.wasm, renamed_from: s }");
        assert!(Renames::of(&old, &new).is_empty());
    }
}
