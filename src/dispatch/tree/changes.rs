//! The difference between the running plan and another one.
//!
//! Promises: a subscriber is unchanged exactly if its lanes would treat every event the same way; unchanged nodes are
//! never listed. Pure: stored data of the nodes is the caller's business. Must not know: lanes, engines.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::renames::Renames;
use crate::api::{Change, ChangeKind, Changes, Node};
use crate::dispatch::tree::HashMap;
use crate::model::units::show_duration;
use crate::topology::{ConfigValue, LifecyclePlan, OutOfOrder, Plan, StartAt, SubscriberPlan, TopicIndex, TopicPlan};

/// Characters of a value that a change shows.
const VALUE_CHARS_SHOWN: usize = 80;

/// Shown for a subscriber that moves to a topic that it has never read.
const BEGINS_WITH_NEITHER: &str = "it begins without either";

impl Change {
    /// Marks a new subscriber as one that existed before on the same topic, and continues from its position.
    pub fn comes_back(&mut self, from: &str, behind: u64) {
        let back =
            format!("comes back: it continues in {from} at its position, with its stored data; lag: {behind} events");
        self.words.retain(|word| word != BEGINS_WITH_NEITHER);
        match self.words.first_mut() {
            Some(begins) => *begins = back,
            None => self.words.push(back),
        }
    }
}

/// For each subscriber of `new`, the index of the unchanged subscriber in `old`, if there is one. A subscriber counts
/// as changed if its name or the name of its topic changes, since its outputs carry both.
pub(crate) fn same(old: &Plan, new: &Plan) -> Vec<Option<usize>> {
    let renames = Renames::of(old, new);
    let old = &renames.follow(old);
    let places = places(old);
    let is_same = |subscriber: &SubscriberPlan| {
        let at = *places.get(&subscriber.label()).filter(|_| !renames.touches(new, subscriber))?;
        differences((old, old.subscribers.get(at)?), (new, subscriber)).is_empty().then_some(at)
    };
    let same: Vec<_> = new.subscribers.iter().map(is_same).collect();
    // Members of a claim group know each other from the start, so a change of one restarts all of them.
    let stay: HashSet<usize> = same.iter().flatten().copied().collect();
    let come = new.subscribers.iter().zip(&same).filter(|(_, place)| place.is_none()).map(|(subscriber, _)| subscriber);
    let go = old.subscribers.iter().enumerate().filter(|(at, _)| !stay.contains(at)).map(|(_, subscriber)| subscriber);
    let broken: HashSet<ClaimGroup<'_>> = come.chain(go).filter_map(group).collect();
    let is_broken = |subscriber| group(subscriber).is_some_and(|group| broken.contains(&group));
    new.subscribers.iter().zip(&same).map(|(subscriber, place)| place.filter(|_| !is_broken(subscriber))).collect()
}

/// A claim group: namespace and name.
pub(crate) type ClaimGroup<'p> = (&'p str, &'p str);

pub(crate) fn group(subscriber: &SubscriberPlan) -> Option<ClaimGroup<'_>> {
    Some((&subscriber.namespace, subscriber.queue_group.as_ref()?))
}

/// Indices of a plan's topics by full name.
pub(super) fn topic_places(plan: &Plan) -> BTreeMap<String, usize> {
    plan.topics.iter().enumerate().map(|(at, topic)| (topic.label(), at)).collect()
}

/// Indices of a plan's subscribers by full name.
pub(crate) fn places(plan: &Plan) -> BTreeMap<String, usize> {
    plan.subscribers.iter().enumerate().map(|(at, subscriber)| (subscriber.label(), at)).collect()
}

/// All differences that follow from the two plans alone, without looking at stored data.
pub(crate) fn compare(old: &Plan, new: &Plan) -> Changes {
    let mut changes = Changes::default();
    let renames = Renames::of(old, new);
    let followed = renames.follow(old);
    topics(&followed, new, &renames, &mut changes);
    subscribers(&followed, new, &renames, &mut changes);
    let (old_subscribers, new_topics, new_subscribers) = (places(old), topic_places(new), places(new));
    for change in changes.changes.iter_mut().filter(|change| change.what == ChangeKind::Added) {
        let was = match change.node {
            Node::Topic => new_topics.get(&change.name).and_then(|at| new.topics.get(*at)?.renamed_from.as_ref()),
            Node::Subscriber => {
                new_subscribers.get(&change.name).and_then(|at| new.subscribers.get(*at)?.renamed_from.as_ref())
            }
        };
        let namespace = change.name.split('/').next().unwrap_or_default();
        let Some(was) = was.map(|was| format!("{namespace}/{was}")) else { continue };
        change.words.push(match old_subscribers.contains_key(&was) && change.node == Node::Subscriber {
            true => format!("{was} takes from another topic, so that this is not the same by another name"),
            false => format!("nothing that runs is called {was}, so that `renamed_from` says nothing"),
        });
    }
    changes.changes.sort_by(|one, other| (one.node, &one.name).cmp(&(other.node, &other.name)));
    changes
}

fn topics(old: &Plan, new: &Plan, renames: &Renames, changes: &mut Changes) {
    let by_name = |plan: &Plan| -> BTreeMap<String, TopicPlan> {
        let written = plan.topics.iter().filter(|topic| topic.dead_letters_of.is_none());
        written.map(|topic| (topic.label(), topic.clone())).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut change = |name: &str, what, words| {
        let was = renames.topic(name).cloned();
        let what = if was.is_some() { ChangeKind::Renamed } else { what };
        changes.changes.push(Change { node: Node::Topic, name: name.to_owned(), renamed_from: was, what, words });
    };
    for (name, topic) in &after {
        let parent = |plan: &Plan, topic: &TopicPlan| topic.parent.map(|parent| plan[parent].label());
        let diverted_from = |plan: &Plan, topic: &TopicPlan| topic.diverted_from.map(|from| plan[from].label());
        let Some(was) = before.get(name) else {
            let place = match (parent(new, topic), diverted_from(new, topic)) {
                (Some(parent), _) => format!("a child of {parent}"),
                (None, Some(from)) => format!("takes the events that {from} diverts to it"),
                (None, None) => "a root".to_owned(),
            };
            change(name, ChangeKind::Added, vec![place]);
            continue;
        };
        if was.partitions != topic.partitions {
            let (has, wanted) = (was.partitions, topic.partitions);
            changes.refusals.push(format!(
                "topic `{name}` has {has} partitions and cannot have {wanted}: the number never changes, since keys \
                 would move; set `partitions: {has}`, or make a topic of another name"
            ));
            continue;
        }
        let mut words = Vec::new();
        match (parent(old, was), parent(new, topic)) {
            (one, other) if one == other => {}
            (_, Some(parent)) => words.push(format!("only {parent} publishes to it")),
            (Some(parent), None) => words.push(format!("{parent} no longer publishes to it")),
            (None, None) => {}
        }
        match (diverted_from(old, was), diverted_from(new, topic)) {
            (one, other) if one == other => {}
            (_, Some(from)) => words.push(format!("it takes only events that {from} diverts to it")),
            (Some(from), None) => words.push(format!("{from} no longer diverts to it")),
            (None, None) => {}
        }
        if topic.is_root() && !was.is_root() {
            words.push("it is a root".to_owned());
        }
        let settings = (&was.settings, &topic.settings);
        let differs = [
            ("key", was.key != topic.key),
            ("id", was.id != topic.id),
            ("schema", was.schema != topic.schema),
            ("lifecycle", orders(was).zip(orders(topic)).is_some_and(|(before, after)| before != after)),
            ("retention", settings.0.retention != settings.1.retention),
            ("dedupe", settings.0.dedupe != settings.1.dedupe || was.per_key != topic.per_key),
            ("producers", settings.0.forget_producers != settings.1.forget_producers),
            ("compression", settings.0.compression != settings.1.compression),
            ("backlog", was.backlog != topic.backlog),
        ];
        words.extend(differing(&differs));
        words.extend(guard_words((old, was), (new, topic)));
        if !words.is_empty() || renames.topic(name).is_some() {
            change(name, ChangeKind::Changed, words);
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        change(name, ChangeKind::Removed, Vec::new());
    }
}

/// The part of a lifecycle that defines the order of states.
fn orders(topic: &TopicPlan) -> Option<impl PartialEq> {
    let LifecyclePlan { state, lifecycle, .. } = topic.lifecycle.as_ref()?;
    Some((state, &lifecycle.start, &lifecycle.allow, lifecycle.keys_max))
}

/// Consequences of a changed lifecycle for keys and held events, one sentence each.
fn guard_words((old, was): (&Plan, &TopicPlan), (new, is): (&Plan, &TopicPlan)) -> Vec<String> {
    let (before, after) = match (&was.lifecycle, &is.lifecycle) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec!["each key begins with its next event".to_owned()],
        (Some(_), None) => {
            return vec![
                "transitions are no longer checked, and held events are stored in the order in which they came".into(),
            ];
        }
        (Some(before), Some(after)) => (before, after),
    };
    let mut words = Vec::new();
    let period = show_duration;
    match (before.lifecycle.remember, after.lifecycle.remember) {
        (one, other) if one == other => {}
        (_, None) => words.push("keys that have ended may begin again at once".to_owned()),
        (None, Some(is)) => words.push(format!("ends of keys are remembered from now on, for {}", period(is))),
        (Some(was), Some(is)) if is < was => {
            words.push(format!("ends of keys that are older than {} are forgotten, a few with each event", period(is)));
        }
        (Some(_), Some(is)) => {
            words.push(format!("ends of keys are remembered for {}; forgotten ones stay forgotten", period(is)));
        }
    }
    let (had, has) = (before.lifecycle.remembered_max, after.lifecycle.remembered_max);
    if has < had {
        words.push(format!("of more than {has} ends in a partition the oldest are forgotten, a few with each event"));
    } else if has > had {
        words.push(format!("up to {has} ends are remembered in each partition"));
    }
    let to = |plan: &Plan, topic: &TopicPlan| topic.diverts_to.map(|to| plan[to].label());
    if (before.out_of_order, to(old, was)) == (after.out_of_order, to(new, is)) {
        return words;
    }
    let from_now_on = match (after.out_of_order, to(new, is)) {
        (OutOfOrder::Hold(hold), _) => format!("held for {}, at most {} in a partition", period(hold.period), hold.max),
        (OutOfOrder::Divert, Some(to)) => format!("diverted to {to}"),
        (OutOfOrder::Divert | OutOfOrder::Refuse, _) => "refused".to_owned(),
    };
    words.push(format!("events out of order are {from_now_on} from now on"));
    match (before.out_of_order, to(old, was)) {
        (OutOfOrder::Hold(_), _) => {
            let label = is.label();
            words.push(format!("held events follow when they may, or go to {label}@refused when their time is over"));
        }
        (OutOfOrder::Divert, Some(to)) => words.push(format!("events already diverted to {to} stay there")),
        (OutOfOrder::Divert | OutOfOrder::Refuse, _) => {}
    }
    words
}

fn subscribers(old: &Plan, new: &Plan, renames: &Renames, changes: &mut Changes) {
    let (before, after) = (places(old), places(new));
    let mut change = |name: &str, what, words| {
        let was = renames.subscribers().get(name).cloned();
        let what = if was.is_some() { ChangeKind::Renamed } else { what };
        changes.changes.push(Change { node: Node::Subscriber, name: name.to_owned(), renamed_from: was, what, words });
    };
    let mut left = Vec::new();
    for subscriber in &new.subscribers {
        let (name, from) = (subscriber.label(), new[subscriber.from].label());
        let begins = || match subscriber.start {
            StartAt::Earliest => format!("takes from {from}, all stored events"),
            StartAt::Latest => format!("takes from {from}, new events only"),
            StartAt::Time(time) => format!("takes from {from}, events since {time}"),
        };
        let Some(was) = before.get(&name).and_then(|at| old.subscribers.get(*at)) else {
            change(&name, ChangeKind::Added, vec![begins()]);
            continue;
        };
        let had = old[was.from].label();
        if had != from {
            left.push(was);
            let words = vec![
                begins(),
                format!("its stored data, and its position in {had}, stay until `wattle gc`"),
                BEGINS_WITH_NEITHER.to_owned(),
            ];
            change(&name, ChangeKind::Moved, words);
            continue;
        }
        if was.queue_group != subscriber.queue_group {
            left.push(was);
        }
        let mut differs = differences((old, was), (new, subscriber));
        // The trial settings do not affect how lanes handle events, so they need no restart.
        differs.extend(differing(&[("trial", was.trial != subscriber.trial)]));
        if let Some(topic) = renames.topic(&from) {
            differs.push(format!("its input topic is called {from}, and was {topic}"));
        }
        if !differs.is_empty() || renames.touches(new, subscriber) {
            change(&name, ChangeKind::Changed, differs);
        }
    }
    for subscriber in old.subscribers.iter().filter(|subscriber| !after.contains_key(&subscriber.label())) {
        left.push(subscriber);
        let words = vec!["its position and its stored data stay until `wattle gc`".to_owned()];
        change(&subscriber.label(), ChangeKind::Removed, words);
    }
    // the first member of each group
    let groups: HashMap<ClaimGroup<'_>, &SubscriberPlan> =
        new.subscribers.iter().rev().filter_map(|other| Some((group(other)?, other))).collect();
    for subscriber in left {
        let Some((namespace, group)) = group(subscriber) else { continue };
        if let Some(other) = groups.get(&(namespace, group)) {
            let (name, other) = (subscriber.label(), other.label());
            changes.refusals.push(format!(
                "`{name}` cannot leave the group `{group}` while `{other}` stays in it: the events that it has handled \
                 would be handled again; rename the group of the others, with `start: latest`, or let it stay"
            ));
        }
    }
}

/// Differences between two versions of a subscriber: keys of the topology, and output topics with other checks.
fn differences((old, was): (&Plan, &SubscriberPlan), (new, is): (&Plan, &SubscriberPlan)) -> Vec<String> {
    let ports = |plan: &Plan, of: &SubscriberPlan| -> Vec<(String, String)> {
        of.ports.iter().map(|(port, topic)| (port.clone(), plan[*topic].label())).collect()
    };
    let differs = [
        ("from", old[was.from].label() != new[is.from].label()),
        ("plugin", was.runs != is.runs),
        ("when", was.when != is.when),
        ("to", ports(old, was) != ports(new, is)),
        ("config", was.config != is.config),
        ("limits", was.limits != is.limits),
        ("state", was.state != is.state),
        ("retry", was.retry != is.retry),
        ("on_failure", was.on_failure != is.on_failure || was.dead_letters.is_some() != is.dead_letters.is_some()),
        ("capsules", was.capsules != is.capsules),
        ("retry_queue", was.retry_queue != is.retry_queue),
        ("delivery", was.delivery != is.delivery),
        ("rate", was.rate != is.rate),
        ("concurrency", was.concurrency != is.concurrency),
        ("batch", was.batch != is.batch),
        ("queue_group", was.queue_group != is.queue_group),
        ("queue_group_timeout", was.queue_group_timeout != is.queue_group_timeout),
    ];
    let mut words = differing(&differs);
    words.extend(config_words(&was.config, &is.config));
    let target = |plan: &Plan, topic: TopicIndex| {
        let TopicPlan { key, schema, lifecycle, backlog, partitions, diverts_to, .. } = plan[topic].clone();
        (key, schema, lifecycle, backlog, partitions, diverts_to.map(|to| plan[to].label()))
    };
    for ((_, before), (_, after)) in was.ports.iter().zip(&is.ports) {
        let name = new[*after].label();
        if old[*before].label() == name && target(old, *before) != target(new, *after) {
            words.push(format!("its events for {name} are checked in another way"));
        }
    }
    words
}

/// Differences between two plugin configurations, one sentence per setting. Values that may be secret are compared but
/// not shown.
fn config_words(was: &BTreeMap<String, ConfigValue>, is: &BTreeMap<String, ConfigValue>) -> Vec<String> {
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let word = |name: &&String| {
        let word = match (was.get(*name), is.get(*name)) {
            (None, Some(is)) => format!("is new: {}", shown(is, None)),
            (Some(was), None) => format!("is gone: it was {}", shown(was, None)),
            (Some(was), Some(is)) if was != is => {
                let is_same = written(was).is_some() && written(was) == written(is);
                let same = if is_same { ", of another value" } else { "" };
                format!("is {}, and was {}{same}", shown(is, Some(was)), shown(was, Some(is)))
            }
            _ => return None,
        };
        Some(format!("`config.{name}` {word}"))
    };
    names.iter().filter_map(word).collect()
}

/// A reference as written in the topology, which does not reveal the value.
fn written(value: &ConfigValue) -> Option<&str> {
    match value {
        ConfigValue::Variable { written, .. } => Some(written),
        ConfigValue::Text(_) | ConfigValue::SecretFile(_) => None,
    }
}

/// A value as far as it may be shown. If a literal replaces a variable or a file, or the other way round, the literal
/// may be the secret itself and is not shown.
fn shown(value: &ConfigValue, beside: Option<&ConfigValue>) -> String {
    match (value, beside) {
        (ConfigValue::Text(text), None | Some(ConfigValue::Text(_))) => {
            let short: String = text.chars().take(VALUE_CHARS_SHOWN).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("{short:?}{more}")
        }
        (ConfigValue::Text(_), Some(_)) => "a text that is not shown".to_owned(),
        (ConfigValue::Variable { written, .. }, _) => format!("{written:?}"),
        (ConfigValue::SecretFile(path), _) => format!("the secret in {}", path.display()),
    }
}

/// One line that names the keys that differ.
fn differing(keys: &[(&str, bool)]) -> Vec<String> {
    let differ: Vec<_> = keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("`{key}`")).collect();
    if differ.is_empty() { Vec::new() } else { vec![format!("another {}", differ.join(", "))] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_configuration_is_said_by_setting_and_secrets_are_not_shown() {
        let text = |text: &str| ConfigValue::Text(text.to_owned());
        let variable = |written: &str, text: &str| {
            let (text, written) = (text.to_owned(), written.to_owned());
            ConfigValue::Variable { text, written }
        };
        let config = |values: &[(&str, ConfigValue)]| {
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        let file = |path: &str| ConfigValue::SecretFile(path.into());
        let was = config(&[
            ("currency", text("EUR")),
            ("gone", text("1")),
            ("key", file("old/key")),
            ("moved", text("hush")),
            ("same", variable("${SAME}", "x")),
            ("token", variable("${TOKEN}", "hush 1")),
        ]);
        let is = config(&[
            ("currency", text("CHF\u{1b}[31m")),
            ("key", file("new/key")),
            ("long", text(&"x".repeat(81))),
            ("moved", variable("${MOVED}", "hush 2")),
            ("same", text("x")),
            ("token", variable("${TOKEN}", "hush 2")),
        ]);
        let words = config_words(&was, &is);
        let long = format!("`config.long` is new: \"{}\"…", "x".repeat(80));
        assert_eq!(
            words,
            [
                "`config.currency` is \"CHF\\u{1b}[31m\", and was \"EUR\"",
                "`config.gone` is gone: it was \"1\"",
                "`config.key` is the secret in new/key, and was the secret in old/key",
                &long,
                "`config.moved` is \"${MOVED}\", and was a text that is not shown",
                "`config.token` is \"${TOKEN}\", and was \"${TOKEN}\", of another value",
            ]
        );
        assert_eq!(config_words(&was, &was), [""; 0]);
    }
}
