//! Data that a plan would lose: the same answer for a preview, for an apply, and for a start.
//!
//! | change | loss |
//! |---|---|
//! | a removed topic | its events, including held and delayed ones |
//! | a shorter `retention` | events beyond it |
//! | `force` | events beyond the retention that a subscriber has not handled |
//! | another `key` | the order of stored events with later ones of the same key; state of other partitions |
//! | a shorter `dedupe`, another `id` | deduplication of events that were accepted before |
//! | a shorter `remember`, a smaller `remember_max` | the record of ended keys, which may begin again |
//! | a new or shorter `ttl` | older state |
//! | a subscriber that is removed, or reads another topic | its position and its data |
//! | a `state.max` below the stored size | nothing, but writes are refused |
//!
//! Promises: reports every possible loss with an upper bound, and nothing that stays. Reads memory, a few entries per
//! lane, and at most [`LOOK_ENTRIES`] entries per subscriber if the state has no time index. Must not know: the caller,
//! whether the loss is allowed.

use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use super::changes::{places, topic_places};
use super::renames::Renames;
use crate::api::{Bounds, Node};
use crate::dispatch::lane::delay;
use crate::dispatch::lane::state::{self, ExpiryEstimate};
use crate::dispatch::rules;
use crate::engine::{Engine, Entries, GuardCounts, PageBudget, ReadError, RetentionBounds};
use crate::model::units::{show_duration, show_size};
use crate::model::{Dedupe, LaneId, PartitionId, Retention, TopicId};
use crate::topology::{Plan, SubscriberPlan, TopicPlan};

/// Entries of a subscriber's state that are read if no index gives their age: some megabytes.
const LOOK_ENTRIES: usize = 10_000;

/// Data that would be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(super) node: Node,
    /// Full name of the node that loses it, as in the new plan.
    pub(crate) name: String,
    /// What and how much, as the end of a sentence about the node.
    pub(crate) what: String,
    /// How to avoid the loss.
    stays: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = match self.node {
            Node::Topic => "topic",
            Node::Subscriber => "subscriber",
        };
        write!(formatter, "{node} `{}` {} ({})", self.name, self.what, self.stays)
    }
}

/// What `new` would lose of the engine's data for `old`, the plan that runs or ran last.
pub(super) fn losses<E: Engine>(engine: &E, old: &Plan, new: &Plan) -> Vec<Loss> {
    let renames = Renames::of(old, new);
    let followed = renames.follow(old);
    let looker = LossSearch { engine, now_ns: engine.trusted_now_ns() };
    let mut found = Vec::new();
    let topics = topic_places(new);
    for (was, called) in old.topics.iter().zip(&followed.topics).filter(|(was, _)| was.dead_letters_of.is_none()) {
        let name = called.label();
        let is = topics.get(&name).and_then(|at| new.topics.get(*at));
        let mut lost = NodeLosses { node: Node::Topic, name: &name, found: &mut found };
        looker.topic(old, (was, is), &mut lost);
    }
    let subscribers = places(new);
    for (was, called) in old.subscribers.iter().zip(&followed.subscribers) {
        let name = called.label();
        let is = subscribers.get(&name).and_then(|at| new.subscribers.get(*at));
        let mut lost = NodeLosses { node: Node::Subscriber, name: &name, found: &mut found };
        // a subscriber that reads another topic counts as a new one
        match is.filter(|is| new[is.from].label() == followed[called.from].label()) {
            Some(is) => looker.subscriber(old, (was, is), &mut lost),
            None => looker.gone(old, was, &mut lost),
        }
    }
    found
}

/// Losses of one node.
struct NodeLosses<'a> {
    node: Node,
    name: &'a str,
    found: &'a mut Vec<Loss>,
}

impl NodeLosses<'_> {
    fn add(&mut self, what: String, stays: impl Into<String>) {
        self.found.push(Loss { node: self.node, name: self.name.to_owned(), what, stays: stays.into() });
    }

    /// Unwraps a read; data that cannot be read counts as possibly lost.
    fn looked<T>(&mut self, of: &str, looked: Result<T, ReadError>) -> Option<T> {
        looked.inspect_err(|error| self.add(format!("may lose {of}, which cannot be read: {error}"), "try again")).ok()
    }
}

struct LossSearch<'e, E> {
    engine: &'e E,
    now_ns: u64,
}

/// How a topic detects duplicates.
#[derive(PartialEq, Eq)]
enum DuplicateCheck {
    Nothing,
    InWindow(Dedupe),
    PerKey,
}

impl DuplicateCheck {
    fn of(topic: &TopicPlan) -> Self {
        match topic.settings.dedupe {
            _ if topic.per_key => Self::PerKey,
            Some(dedupe) => Self::InWindow(dedupe),
            None => Self::Nothing,
        }
    }
}

impl<E: Engine> LossSearch<'_, E> {
    fn topic(&self, old: &Plan, (was, is): (&TopicPlan, Option<&TopicPlan>), lost: &mut NodeLosses<'_>) {
        let Some(number) = self.engine.topic(&was.label()) else { return };
        let Some(is) = is else {
            let kept = lost.looked("events", self.events(was, number));
            if let Some(kept @ 1..) = kept {
                lost.add(format!("still has {kept} events"), "they stay reachable as long as it is declared");
            }
            return;
        };
        if was.partitions != is.partitions {
            return; // not possible
        }
        self.key((was, is), number, lost);
        self.retention(old, (was, is), number, lost);
        self.recognised((was, is), number, lost);
        self.ends((was, is), number, lost);
    }

    /// With another key, the later events of what had one key go to other partitions than the earlier ones.
    fn key(&self, (was, is): (&TopicPlan, &TopicPlan), number: TopicId, lost: &mut NodeLosses<'_>) {
        let [before, after] = [was, is].map(|topic| topic.key.as_ref().map(|key| key.text().to_owned()));
        if before == after || is.partitions == 1 {
            return;
        }
        let written: u64 = (0..is.partitions).map(|partition| self.bounds(number, partition).written).sum();
        if written > 0 {
            let key = after.map_or("no `key`".to_owned(), |key| format!("`key: {key}`"));
            let what = format!(
                "with {key} sends events to other partitions than the {written} before, so that their order with those \
                 and the \
                 state that was kept for them are lost"
            );
            lost.add(what, "write a new topic to change the key");
        }
    }

    fn bounds(&self, topic: TopicId, partition: u32) -> Bounds {
        self.engine.bounds(PartitionId { topic, partition }).unwrap_or_default()
    }

    /// Events of a topic, including held and delayed ones.
    fn events(&self, topic: &TopicPlan, number: TopicId) -> Result<u64, ReadError> {
        let mut events = 0;
        for partition in 0..topic.partitions {
            let Bounds { start, written, .. } = self.bounds(number, partition);
            events += written.saturating_sub(start);
            events += self.guard_counts(number, partition)?.held;
        }
        let delayed = format!("{}{}", topic.label(), rules::delay::SUFFIX);
        let lane = self.engine.topic(&delayed).and_then(|topic| self.engine.subscriber(&delayed, topic));
        let lane = lane.map(|subscriber| LaneId { subscriber, partition: 0 });
        if let Some(entries) = lane.and_then(|lane| self.engine.entries(lane)) {
            events += delay::waiting(&entries)?;
        }
        Ok(events)
    }

    fn guard_counts(&self, topic: TopicId, partition: u32) -> Result<GuardCounts, ReadError> {
        let Some(states) = self.engine.states(PartitionId { topic, partition }) else { return Ok(Default::default()) };
        GuardCounts::read(|key| states.get(key))
    }

    fn beyond(&self, topic: TopicId, partition: u32, retention: &Retention) -> RetentionBounds {
        self.engine.beyond(PartitionId { topic, partition }, retention).unwrap_or_default()
    }

    fn retention(&self, old: &Plan, (was, is): (&TopicPlan, &TopicPlan), number: TopicId, lost: &mut NodeLosses<'_>) {
        let (before, after) = (was.settings.retention, is.settings.retention);
        let is_less = |was: Option<u64>, is: Option<u64>| is.is_some_and(|is| was.is_none_or(|was| is < was));
        let nanoseconds = |age: Option<Duration>| age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let is_shorter = is_less(nanoseconds(before.age), nanoseconds(after.age))
            || is_less(before.partition_bytes, after.partition_bytes);
        // events that the lifecycle refused when they were due have the same retention as the topic
        let refused = self.engine.topic(&format!("{}{}", was.label(), rules::delay::REFUSED_SUFFIX));
        let all = (0..was.partitions).map(|partition| (number, partition)).chain(refused.map(|topic| (topic, 0)));
        if is_shorter {
            let goes = |(topic, partition)| {
                let kept_from = self.beyond(topic, partition, &before).surely.max(self.bounds(topic, partition).start);
                self.beyond(topic, partition, &after).perhaps.saturating_sub(kept_from)
            };
            let events = all.map(goes).sum::<u64>();
            if events > 0 {
                let what = format!("has up to {events} events beyond `retention: {}`", shown(&after, is.partitions));
                lost.add(what, format!("they stay with `retention: {}`", shown(&before, was.partitions)));
            }
        }
        if after.force && !before.force {
            let readers = old.subscribers.iter().filter(|reader| old[reader.from].label() == was.label());
            let readers: Vec<_> =
                readers.filter_map(|reader| self.engine.subscriber(&reader.label(), number)).collect();
            let waits = |partition| {
                let position = |subscriber: &_| self.engine.position(LaneId { subscriber: *subscriber, partition });
                let slowest = readers.iter().map(|reader| position(reader).unwrap_or(0)).min()?;
                let from = slowest.max(self.bounds(number, partition).start);
                Some(self.beyond(number, partition, &after).perhaps.saturating_sub(from))
            };
            let events = (0..was.partitions).filter_map(waits).sum::<u64>();
            if events > 0 {
                let what = format!("has up to {events} unhandled events beyond its `retention`");
                lost.add(what, "they stay until they are handled without `force: true`");
            }
        }
    }

    fn recognised(&self, (was, is): (&TopicPlan, &TopicPlan), number: TopicId, lost: &mut NodeLosses<'_>) {
        let (before, after) = (DuplicateCheck::of(was), DuplicateCheck::of(is));
        let is_other = was.id.as_ref().map(|id| id.text()) != is.id.as_ref().map(|id| id.text());
        match before {
            DuplicateCheck::Nothing => {}
            DuplicateCheck::PerKey if is_other || after != DuplicateCheck::PerKey => {
                let keys = (0..was.partitions)
                    .map(|partition| self.guard_counts(number, partition).map(|counts| counts.living + counts.ended));
                if let Some(keys @ 1..) = lost.looked("deduplication of keys", keys.sum()) {
                    let what = format!("no longer recognises the events of {keys} keys that it has taken already");
                    lost.add(what, "it does with `dedupe: { per: key }` and the same `id`");
                }
            }
            DuplicateCheck::PerKey => {}
            DuplicateCheck::InWindow(before) => {
                let after = match after {
                    DuplicateCheck::InWindow(after) if !is_other => Some(after),
                    _ => None,
                };
                let events = self.unrecognised(was, number, before, after);
                if events > 0 {
                    let count = before.count.map(|count| format!(", count: {count}")).unwrap_or_default();
                    let window = format!("`dedupe: {{ window: {}{count} }}`", show_duration(before.window));
                    let what = format!("no longer recognises up to {events} events that it has taken already");
                    lost.add(what, format!("it does with {window} and the same `id`"));
                }
            }
        }
    }

    /// Upper bound of the events whose duplicates would no longer be detected.
    fn unrecognised(&self, topic: &TopicPlan, number: TopicId, before: Dedupe, after: Option<Dedupe>) -> u64 {
        let age = |window| Retention { age: Some(window), ..Retention::default() };
        let (mut were, mut are) = (0, 0);
        for partition in 0..topic.partitions {
            let Bounds { start, written, .. } = self.bounds(number, partition);
            // deduplication may cover events that retention has removed
            let from = Some(self.beyond(number, partition, &age(before.window)).surely).filter(|from| *from > start);
            let from = from.unwrap_or(0);
            were += written.saturating_sub(from);
            are += match after {
                None => 0,
                Some(after) if after.window >= before.window => written.saturating_sub(from),
                Some(after) => {
                    let beyond = self.beyond(number, partition, &age(after.window)).perhaps;
                    written.saturating_sub(beyond.max(from))
                }
            };
        }
        let at_most = |dedupe: Dedupe, events: u64| events.min(dedupe.count.map_or(u64::MAX, u64::from));
        at_most(before, were).saturating_sub(after.map_or(0, |after| at_most(after, are)))
    }

    fn ends(&self, (was, is): (&TopicPlan, &TopicPlan), number: TopicId, lost: &mut NodeLosses<'_>) {
        let (Some(before), Some(after)) = (&was.lifecycle, &is.lifecycle) else { return };
        let (before, after) = (&before.lifecycle, &after.lifecycle);
        let Some(was_remembered) = before.remember else { return };
        let is_shorter = after.remember.is_none_or(|remember| remember < was_remembered);
        if !is_shorter && after.remembered_max >= before.remembered_max {
            return;
        }
        let forgotten = (0..was.partitions).map(|partition| {
            let Some(states) = self.engine.states(PartitionId { topic: number, partition }) else { return Ok(0) };
            let until =
                |period: Duration| self.now_ns.saturating_sub(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
            let ended_until = |time_ns| GuardCounts::ended_until(|key| states.get(key), time_ns);
            let all = GuardCounts::read(|key| states.get(key))?.ended;
            let were_old = ended_until(until(was_remembered))?;
            let are_old = after.remember.map_or(Ok(all), |remember| ended_until(until(remember)))?;
            let too_many = all.saturating_sub(after.remembered_max);
            Ok(are_old.max(too_many).saturating_sub(were_old))
        });
        if let Some(ends @ 1..) = lost.looked("ends of keys", forgotten.sum()) {
            let (remember, max) = (show_duration(was_remembered), before.remembered_max);
            let what = format!("forgets up to {ends} ends of keys, which may begin again then");
            lost.add(what, format!("they are remembered with `remember: {remember}` and `remember_max: {max}`"));
        }
    }

    /// A removed subscriber loses its position and its data.
    fn gone(&self, old: &Plan, was: &SubscriberPlan, lost: &mut NodeLosses<'_>) {
        let input = &old[was.from];
        let Some(topic) = self.engine.topic(&input.label()) else { return };
        let Some(subscriber) = self.engine.subscriber(&was.label(), topic) else { return };
        let (mut handled, mut found, mut is_all) = (0, 0, true);
        for partition in 0..input.partitions {
            let lane = LaneId { subscriber, partition };
            let Bounds { start, written, .. } = self.bounds(topic, partition);
            handled += self.engine.position(lane).unwrap_or(0).min(written).saturating_sub(start);
            let Some(entries) = self.engine.entries(lane).filter(|_| found < LOOK_ENTRIES) else { continue };
            let page = entries.range(Bound::Unbounded, &[u8::MAX], PageBudget::of(LOOK_ENTRIES - found));
            let Some(page) = lost.looked("its stored data", page) else { return };
            (found, is_all) = (found + page.entries.len(), is_all && found + page.entries.len() < LOOK_ENTRIES);
        }
        if handled > 0 || found > 0 {
            let more = if is_all { "" } else { " or more" };
            let what =
                format!("loses its position in {}, after {handled} events, and {found} entries{more}", input.label());
            lost.add(what, "they stay until `wattle gc`, in case it comes back");
        }
    }

    fn subscriber(&self, old: &Plan, (was, is): (&SubscriberPlan, &SubscriberPlan), lost: &mut NodeLosses<'_>) {
        let (before, after) = (was.state, is.state);
        let ttl = after.ttl.filter(|ttl| before.ttl.is_none_or(|before| *ttl < before));
        if ttl.is_none() && after.max_bytes >= before.max_bytes {
            return;
        }
        let input = &old[was.from];
        let number = self.engine.topic(&input.label());
        let Some(number) = number.and_then(|topic| self.engine.subscriber(&was.label(), topic)) else { return };
        let lanes = (0..input.partitions).map(|partition| LaneId { subscriber: number, partition });
        let entries: Vec<_> = lanes.filter_map(|lane| self.engine.entries(lane)).collect();
        if let Some(ttl) = ttl {
            let mut look = ExpiryEstimate::new(LOOK_ENTRIES, (before.ttl, ttl), self.now_ns);
            let looked = entries.iter().try_for_each(|entries| look.at(entries));
            if lost.looked("state", looked).is_some() && (look.expired > 0 || !look.is_all) {
                let more = if look.is_all { "" } else { " at least, as only a part was read," };
                let what = format!(
                    "keeps {} entries of state{more} that are older than `ttl: {}`",
                    look.expired,
                    show_duration(ttl)
                );
                let before =
                    before.ttl.map_or("without `ttl`".to_owned(), |ttl| format!("with `ttl: {}`", show_duration(ttl)));
                lost.add(what, format!("they stay {before}"));
            }
        }
        if after.max_bytes < before.max_bytes {
            let sizes = entries.iter().map(state::size_of).collect::<Result<Vec<_>, _>>();
            let Some(sizes) = lost.looked("room for state", sizes) else { return };
            let full = sizes.iter().filter(|size| **size > after.max_bytes).count();
            if let (1.., Some(largest)) = (full, sizes.iter().max()) {
                let what = format!(
                    "keeps up to {} of state in each of {full} partitions, more than `state.max: {}`: events that need \
                     room there fail",
                    show_size(*largest),
                    show_size(after.max_bytes)
                );
                lost.add(what, format!("there is room with `max: {}`", show_size(before.max_bytes)));
            }
        }
    }
}

/// A retention as the topology writes it, for a topic with `partitions` partitions.
fn shown(retention: &Retention, partitions: u32) -> String {
    let whole = |bytes: u64| bytes.saturating_mul(partitions.into());
    let age = retention.age.map(|age| format!("age: {}", show_duration(age)));
    let size = retention.partition_bytes.map(|bytes| format!("size: {}", show_size(whole(bytes))));
    let bounds: Vec<_> = age.into_iter().chain(size).collect();
    format!("{{ {} }}", bounds.join(", "))
}
