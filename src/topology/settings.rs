//! What one declaration means by itself: defaults filled in, and values compared that must fit each other.
//!
//! Looks at one topic or one subscriber. Relations to other declarations belong to [`super::resolve`].

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::bounds::{
    CAPSULES_DEFAULT, DEDUPE_WINDOW_DEFAULT, HELD_DEFAULT, LIFECYCLE_KEYS_DEFAULT, PARTITIONS_DEFAULT,
    QUEUE_GROUP_TIMEOUT_DEFAULT, REMEMBER_DEFAULT, REMEMBERED_DEFAULT, RETENTION_AGE_DEFAULT,
};
use super::data_schema::DataSchema;
use super::diagnostic::{Code, Diagnostic, Problems, Span};
use super::expression::{Condition, KeyExpression};
use super::plan::{
    BacklogPlan, BatchPlan, ConfigValue, Delivery, HoldPlan, LifecyclePlan, Limits, OnFailure, OutOfOrder,
    PluginSource, Rate, Retry, RetryQueue, StartAt, StatePlan, SubscriberKind, TrialPlan, WhenFull,
};
use super::raw;
use super::reader::{Field, Key, ReadContext};
use super::setting::Setting;
use super::values::{ByQuantity, Count, List, OrOff, OrRefuse, Word};
use crate::model::units::show_duration;
use crate::model::{Compression, Dedupe, Lifecycle, Retention, TopicSettings};

/// A topic, as far as it does not depend on others. The default is one of which nothing is said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topic {
    /// As written; a child that does not say takes its parent's.
    pub(crate) partitions: Option<u32>,
    pub(crate) key: Option<KeyExpression>,
    pub(crate) id: Option<KeyExpression>,
    pub(crate) schema: Option<DataSchema>,
    pub(crate) keeping: StorageSettings,
    pub(crate) lifecycle: Option<LifecyclePlan>,
    /// Where it says that its events are recognised for as long as their keys are known.
    pub(crate) per_key: Option<Span>,
    pub(crate) backlog: Option<BacklogPlan>,
    /// The topic that takes events whose state may not follow, and where that is named.
    pub(crate) diverts_to: Option<(String, Span)>,
    /// Keys that only mean something where producers outside publish.
    pub(crate) roots_only: Vec<(&'static str, Span)>,
    /// Keys that mean nothing where all events come from a topic that diverts them.
    pub(crate) not_diverted: Vec<(&'static str, Span)>,
    pub(crate) renamed_from: Option<(String, Span)>,
}

/// How a topic keeps its events, as far as it does not depend on its place in the tree.
#[derive(Debug, Clone)]
pub(crate) struct StorageSettings {
    age: Option<Duration>,
    /// Size of all partitions together.
    bytes: Option<u64>,
    force: bool,
    /// Of a topic that recognises events.
    dedupe: Option<Dedupe>,
    forget_producers: Option<Duration>,
    compression: Compression,
}

impl Default for StorageSettings {
    fn default() -> Self {
        keeping(&raw::Topic::default())
    }
}

impl Topic {
    /// Whether it says how events are recognised.
    pub(crate) fn says_what_is_recognised(&self) -> bool {
        self.roots_only.iter().any(|(key, _)| is_of_recognition(key))
    }
}

/// Whether a key of roots says how events are recognised: topics of queue groups have those, too.
pub(crate) fn is_of_recognition(key: &str) -> bool {
    matches!(key, "dedupe" | "id")
}

impl StorageSettings {
    /// The settings of a topic with this number of partitions, at least one.
    pub(crate) fn settings(&self, partitions: u32, recognises: bool) -> TopicSettings {
        // A bound of nothing would be none that can be kept to; what is shown of it could not be read either.
        let partition_bytes = self.bytes.map(|bytes| (bytes / u64::from(partitions)).max(1));
        TopicSettings {
            retention: Retention { age: self.age, partition_bytes, force: self.force },
            dedupe: self.dedupe.filter(|_| recognises),
            forget_producers: self.forget_producers,
            compression: self.compression,
        }
    }
}

/// A subscriber, as far as it does not depend on others.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) from: Option<(String, Span)>,
    pub(crate) ports: Vec<Port>,
    /// Its handler. `None` if a problem was reported.
    pub(crate) runs: Option<SubscriberKind>,
    pub(crate) when: Option<Condition>,
    pub(crate) config: BTreeMap<String, ConfigValue>,
    pub(crate) limits: Limits,
    pub(crate) state: StatePlan,
    pub(crate) retry: Retry,
    pub(crate) on_failure: OnFailure,
    pub(crate) capsules: u32,
    pub(crate) trial: TrialPlan,
    pub(crate) retry_queue: RetryQueue,
    pub(crate) delivery: Delivery,
    pub(crate) rate: Option<Rate>,
    pub(crate) concurrency: Option<NonZeroU32>,
    pub(crate) batch: BatchPlan,
    /// Whether it has a topic for dead letters, as far as can be told.
    pub(crate) dead_letters: bool,
    pub(crate) queue_group: Option<(String, Span)>,
    pub(crate) queue_group_timeout: Duration,
    pub(crate) start: StartAt,
    pub(crate) renamed_from: Option<(String, Span)>,
}

/// A port, its topic, and where the topic is named.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) span: Span,
}

/// The partitions of a root that does not say.
pub(crate) const ROOT_PARTITIONS: u32 = PARTITIONS_DEFAULT;

fn value<T: Clone>(field: &Key<T>) -> Option<T> {
    field.as_ref()?.value.clone()
}

fn word(field: &Key<Word>) -> Option<(String, Span)> {
    let field = field.as_ref()?;
    Some((field.value.as_ref()?.0.clone(), field.span))
}

/// What a topic's keys mean.
pub(crate) fn topic(raw: &raw::Topic, shared: &mut ReadContext, problems: &mut Problems) -> Topic {
    let out_of_order =
        value(&raw.lifecycle).and_then(|raw| Some((raw.out_of_order.as_ref()?.key, value(&raw.out_of_order)?)));
    let (out_of_order, diverts_to) = match out_of_order {
        Some((span, OrRefuse(Some(raw)))) => self::out_of_order(span, &raw, problems),
        _ => (OutOfOrder::Refuse, None),
    };
    let lifecycle = value(&raw.lifecycle).and_then(|raw| lifecycle(&raw, out_of_order, shared, problems));
    let key_of = |name, key: Option<Span>| key.map(|key| (name, key));
    let roots_only = [
        key_of("dedupe", raw.dedupe.as_ref().map(|field| field.key)),
        key_of("id", raw.id.as_ref().map(|field| field.key)),
        key_of("producers", raw.producers.as_ref().map(|field| field.key)),
        key_of("when_full", raw.when_full.as_ref().map(|field| field.key)),
    ];
    let not_diverted = [
        key_of("partitions", raw.partitions.as_ref().map(|field| field.key)),
        key_of("key", raw.key.as_ref().map(|field| field.key)),
        key_of("schema", raw.schema.as_ref().map(|field| field.key)),
        key_of("lifecycle", raw.lifecycle.as_ref().map(|field| field.key)),
        key_of("backlog", raw.backlog.as_ref().map(|field| field.key)),
    ];
    if let Some(field) = raw.id.as_ref()
        && let Some(OrOff(None)) = value(&raw.dedupe)
    {
        let message = "`id` says what makes events the same, and `dedupe: off` that nothing is recognised";
        let bad = Diagnostic::error(Code::BadValue, field.key, "for what?", message);
        problems.push(bad.help("remove one of them"));
    }
    Topic {
        partitions: value(&raw.partitions).map(|count| count.0),
        key: value(&raw.key).map(|expression| expression.0),
        id: value(&raw.id).map(|expression| expression.0),
        schema: value(&raw.schema).map(|file| file.0),
        keeping: keeping(raw),
        lifecycle,
        per_key: per_key(raw, problems),
        backlog: backlog(raw, problems),
        diverts_to,
        roots_only: roots_only.into_iter().flatten().collect(),
        not_diverted: not_diverted.into_iter().flatten().collect(),
        renamed_from: raw.renamed_from.as_ref().and_then(|field| Some((field.value.clone()?.0, field.span))),
    }
}

fn keeping(raw: &raw::Topic) -> StorageSettings {
    let retention = value(&raw.retention).map(|ByQuantity(retention)| retention).unwrap_or_default();
    let (age, bytes) = (value(&retention.age).map(|age| age.0), value(&retention.size).map(|size| size.0));
    // Who only bounds the size wants to keep what fits into it, however old it is.
    let age = age.or(bytes.is_none().then_some(RETENTION_AGE_DEFAULT));
    let OrOff(dedupe) = value(&raw.dedupe).unwrap_or(OrOff(Some(raw::Dedupe::default())));
    StorageSettings {
        age,
        bytes,
        force: value(&retention.force).is_some_and(|force| force.0),
        dedupe: dedupe.filter(|raw| raw.per.is_none()).map(|raw| Dedupe {
            window: value(&raw.window).map_or(DEDUPE_WINDOW_DEFAULT, |window| window.0),
            count: value(&raw.count).map(|count| count.0),
        }),
        forget_producers: value(&raw.producers).and_then(|raw| Some(value(&raw.forget)?.0)),
        compression: match value(&raw.compression) {
            None | Some(raw::Compression::None) => Compression::None,
            Some(raw::Compression::Lz4) => Compression::Lz4,
        },
    }
}

/// Where a topic says that its events are recognised for as long as their keys are known.
fn per_key(raw: &raw::Topic, problems: &mut Problems) -> Option<Span> {
    let OrOff(dedupe) = value(&raw.dedupe)?;
    let dedupe = dedupe?;
    let span = dedupe.per.as_ref()?.key;
    let bounds = [
        dedupe.window.as_ref().map(|field| ("window", field.key)),
        dedupe.count.as_ref().map(|field| ("count", field.key)),
    ];
    for (name, key) in bounds.into_iter().flatten() {
        let message = format!("`{name}` with `per: key`: an event is recognised for as long as its key is known");
        let bad = Diagnostic::error(Code::BadValue, key, "", message);
        problems.push(bad.label(span, "as long as this says").help("remove one of the two"));
    }
    if raw.lifecycle.is_none() {
        let message = "`per: key` needs a `lifecycle`, which says when a key is known no longer";
        let bad = Diagnostic::error(Code::BadValue, span, "until when?", message);
        problems.push(bad.help("add a `lifecycle`, or say a `window`"));
    }
    Some(span)
}

fn backlog(raw: &raw::Topic, problems: &mut Problems) -> Option<BacklogPlan> {
    if let Some(field) = raw.when_full.as_ref().filter(|_| raw.backlog.is_none()) {
        let message = "`when_full` without a `backlog`: the topic is never full";
        let bad = Diagnostic::error(Code::BadValue, field.key, "of what?", message);
        problems.push(bad.help("say how many events may wait, for example `backlog: 100000`, or remove `when_full`"));
    }
    let max_events = value(&raw.backlog)?.0.into();
    let when_full = match value(&raw.when_full) {
        None | Some(raw::WhenFull::Reject) => WhenFull::Reject,
        Some(raw::WhenFull::Wait) => WhenFull::Wait,
    };
    Some(BacklogPlan { max_events, when_full })
}

/// States that nothing leads to are mistyped ones.
fn lifecycle(
    raw: &raw::Lifecycle,
    out_of_order: OutOfOrder,
    shared: &mut ReadContext,
    problems: &mut Problems,
) -> Option<LifecyclePlan> {
    let (start, allow) = (value(&raw.start)?, value(&raw.allow)?);
    if let Some(field) = raw.start.as_ref().filter(|_| start.0.is_empty()) {
        let message = "no key can start in any state, so every event is refused";
        let odd = Diagnostic::warning(Code::BadValue, field.span, "no state", message);
        problems.push(odd.help("name the states of first events, for example `start: [created]`"));
    }
    let followers = allow.0.iter().filter_map(|(_, field)| field.value.as_ref()).flat_map(|list| &list.0);
    let reached: BTreeSet<&str> = start.0.iter().chain(followers).map(|(_, state)| state.0.as_str()).collect();
    for (state, field) in &allow.0 {
        if !reached.contains(state.as_str()) {
            let message = format!("no key can ever be in the state `{state}`");
            let help = match shared.nearest(state, reached.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name it in `start`, or among the states that may follow another".to_owned(),
            };
            problems.push(Diagnostic::error(Code::BadValue, field.key, "nothing leads here", message).help(help));
        }
    }
    let restarts = value(&raw.restart).is_some_and(|restart| restart.0);
    let remembers = [
        raw.remember.as_ref().map(|field| ("remember", field.key)),
        raw.remember_max.as_ref().map(|field| ("remember_max", field.key)),
    ];
    for (name, span) in remembers.into_iter().flatten().filter(|_| restarts) {
        let message = format!("`{name}` with `restart: true`: a key may begin again at once, so no end is remembered");
        problems.push(Diagnostic::error(Code::BadValue, span, "", message).help("remove one of the two"));
    }
    let states = |list: &List<Word>| list.0.iter().map(|(_, state)| Arc::from(state.0.as_str())).collect();
    let follows =
        |(state, field): &(String, Field<List<Word>>)| Some((Arc::from(state.as_str()), states(field.value.as_ref()?)));
    let lifecycle = Lifecycle {
        start: states(&start),
        allow: allow.0.iter().filter_map(follows).collect(),
        keys_max: value(&raw.max).map_or(LIFECYCLE_KEYS_DEFAULT, |max| max.0).into(),
        remember: (!restarts).then(|| value(&raw.remember).map_or(REMEMBER_DEFAULT, |period| period.0)),
        remembered_max: value(&raw.remember_max).map_or(REMEMBERED_DEFAULT, |max| max.0).into(),
    };
    Some(LifecyclePlan { state: value(&raw.state)?.0, lifecycle: Arc::new(lifecycle), out_of_order })
}

/// What becomes of events that are out of order, as is said at `span`, and the topic that they are diverted to.
fn out_of_order(span: Span, raw: &raw::OutOfOrder, problems: &mut Problems) -> (OutOfOrder, Option<(String, Span)>) {
    let mut bad = |span, label, message: &str, help| {
        problems.push(Diagnostic::error(Code::BadValue, span, label, message).help(help));
    };
    match (&raw.hold, &raw.divert) {
        (None, None) => bad(
            span,
            "neither",
            "`out_of_order` needs one of the keys `hold` and `divert`",
            "say for how long such events are held, `hold: 10m`, or where they go, `divert: TOPIC`",
        ),
        (Some(_), Some(divert)) => bad(
            divert.key,
            "and diverted",
            "`hold` and `divert` together: an event that is out of order is either held or goes elsewhere",
            "remove one of the two",
        ),
        _ => {}
    }
    if let Some(max) = raw.max.as_ref().filter(|_| raw.hold.is_none()) {
        bad(max.key, "of what?", "`max` without `hold`: nothing is held", "remove `max`");
    }
    let max = value(&raw.max).map_or(HELD_DEFAULT, |max| max.0).into();
    match (value(&raw.hold), word(&raw.divert)) {
        (_, Some(topic)) => (OutOfOrder::Divert, Some(topic)),
        (Some(period), None) => (OutOfOrder::Hold(HoldPlan { period: period.0, max }), None),
        (None, None) => (OutOfOrder::Refuse, None),
    }
}

/// What a subscriber's keys mean.
pub(crate) fn subscriber(name: &str, declared: Span, raw: &raw::Subscriber, problems: &mut Problems) -> Subscriber {
    let runs = runs(name, declared, raw, problems);
    let is_plugin = raw.push.is_none() && raw.pull.is_none();
    if !is_plugin {
        check_leaf(raw, problems);
    }
    let limits = value(&raw.limits).map_or_else(Limits::default, |raw| limits(&raw));
    let on_failure = match value(&raw.on_failure) {
        None | Some(raw::OnFailure::DeadLetter) => OnFailure::DeadLetter,
        Some(raw::OnFailure::Park) => OnFailure::Park,
        Some(raw::OnFailure::Halt) => OnFailure::Halt,
    };
    let delivery = match value(&raw.delivery) {
        Some(raw::Delivery::ExactlyOnce) => Delivery::ExactlyOnce,
        Some(raw::Delivery::AtLeastOnce) => Delivery::AtLeastOnce,
        Some(raw::Delivery::AtMostOnce) => Delivery::AtMostOnce,
        None if is_plugin => Delivery::ExactlyOnce,
        None => Delivery::AtLeastOnce,
    };
    // An event that is tried once is not tried again, and is not one of several that a failure takes along.
    let once = raw.delivery.as_ref().filter(|_| delivery == Delivery::AtMostOnce).map(|field| field.span);
    let retry = retry(&value(&raw.retry).unwrap_or_default(), once, problems);
    let batch = batch(&value(&raw.batch).unwrap_or_default(), once, problems);
    let port = |(name, field): &(String, Field<Word>)| {
        let topic = field.value.as_ref()?.0.clone();
        Some(Port { name: name.clone(), topic, span: field.span })
    };
    Subscriber {
        from: word(&raw.from),
        ports: value(&raw.to).map_or_else(Vec::new, |ports| ports.0.iter().filter_map(port).collect()),
        runs,
        when: value(&raw.when).map(|condition| condition.0),
        config: value(&raw.config).map_or_else(BTreeMap::new, |table| config(&table.0)),
        limits,
        state: value(&raw.state).map_or_else(StatePlan::default, |raw| state(&raw)),
        retry,
        on_failure,
        retry_queue: value(&raw.retry_queue).map_or_else(RetryQueue::default, |raw| retry_queue(&raw)),
        trial: trial(&value(&raw.trial).unwrap_or_default(), problems),
        capsules: value(&raw.capsules).map_or(CAPSULES_DEFAULT, |count| count.0),
        delivery,
        rate: value(&raw.rate).map(|rate| rate.0),
        concurrency: value(&raw.concurrency).and_then(|count| NonZeroU32::new(count.0)),
        batch,
        // What is parked is still to be handled; what is rejected never is.
        dead_letters: is_plugin && on_failure != OnFailure::Halt,
        start: value(&raw.start).map_or(StartAt::Earliest, |start| start.0),
        queue_group_timeout: queue_group_timeout(raw, problems),
        queue_group: raw.queue_group.as_ref().and_then(|field| Some((field.value.clone()?.0, field.span))),
        renamed_from: raw.renamed_from.as_ref().and_then(|field| Some((field.value.clone()?.0, field.span))),
    }
}

/// Nothing is claimed where there is no group.
fn queue_group_timeout(raw: &raw::Subscriber, problems: &mut Problems) -> Duration {
    if let Some(field) = raw.queue_group_timeout.as_ref().filter(|_| raw.queue_group.is_none()) {
        let message = "`queue_group_timeout` without a `queue_group`: there is nobody to share events with";
        let bad = Diagnostic::error(Code::BadValue, field.key, "of what?", message);
        problems.push(bad.help("name a group, for example `queue_group: workers`, or remove `queue_group_timeout`"));
    }
    value(&raw.queue_group_timeout).map_or(QUEUE_GROUP_TIMEOUT_DEFAULT, |period| period.0)
}

/// Which of the three ways to handle events it is.
fn runs(name: &str, declared: Span, raw: &raw::Subscriber, problems: &mut Problems) -> Option<SubscriberKind> {
    let ways = [
        raw.plugin.as_ref().map(|field| ("plugin", field.key)),
        raw.push.as_ref().map(|field| ("push", field.key)),
        raw.pull.as_ref().map(|field| ("pull", field.key)),
    ];
    let ways: Vec<_> = ways.into_iter().flatten().collect();
    match ways.as_slice() {
        [] => {
            let message = format!("`{name}` needs the key `plugin`");
            let missing = Diagnostic::error(Code::MissingKey, declared, "`plugin` is missing", message);
            problems.push(missing.help("add `plugin`: a plugin's source folder, or a .wasm file"));
        }
        [_] => {}
        [(first, first_key), (second, second_key), ..] => {
            let message = format!("`{name}` has both `{first}` and `{second}`");
            let both = Diagnostic::error(Code::BadValue, *second_key, "a second way to handle events", message);
            let help = "remove one of them; two subscribers can take from the same topic";
            problems.push(both.label(*first_key, "the first").help(help));
        }
    }
    let plugin: Option<PluginSource> = value(&raw.plugin).map(|plugin| plugin.0);
    let push = || value(&raw.push).and_then(|push| value(&push.url)).map(|url| SubscriberKind::Push { url: url.0 });
    plugin.map(SubscriberKind::Plugin).or_else(push).or_else(|| raw.pull.as_ref().map(|_| SubscriberKind::Pull))
}

/// Push and pull hand events to the world outside: nothing comes out of them here, and there is no plugin to set up.
fn check_leaf(raw: &raw::Subscriber, problems: &mut Problems) {
    let way = if raw.push.is_some() { "push" } else { "pull" };
    let mut refuse = |key: &str, span: Option<Span>, rule: &str| {
        if let Some(span) = span.filter(|_| raw.plugin.is_none()) {
            let message = format!("`{key}` does not go with `{way}`: {rule}");
            problems.push(Diagnostic::error(Code::BadValue, span, "", message).help(format!("remove `{key}`")));
        }
    };
    refuse("to", raw.to.as_ref().map(|field| field.key), "what is pushed or pulled leaves the tree");
    let rule = "only a plugin has it";
    refuse("config", raw.config.as_ref().map(|field| field.key), rule);
    refuse("limits", raw.limits.as_ref().map(|field| field.key), rule);
    refuse("grants", raw.grants.as_ref().map(|field| field.key), rule);
    refuse("capsules", raw.capsules.as_ref().map(|field| field.key), rule);
    refuse("trial", raw.trial.as_ref().map(|field| field.key), rule);
    refuse("state", raw.state.as_ref().map(|field| field.key), rule);
    let exactly_once = raw.delivery.as_ref().filter(|field| field.value == Some(raw::Delivery::ExactlyOnce));
    refuse("delivery: exactly_once", exactly_once.map(|field| field.span), "the world outside is not part of a unit");
}

fn limits(raw: &raw::Limits) -> Limits {
    let default = Limits::default();
    Limits {
        memory_bytes: value(&raw.memory).map_or(default.memory_bytes, |size| size.0),
        time: value(&raw.time).map_or(default.time, |period| period.0),
        output_bytes: value(&raw.output).map_or(default.output_bytes, |size| size.0),
        log_lines_per_second: value(&raw.log).map_or(default.log_lines_per_second, |count| count.0),
    }
}

fn state(raw: &raw::State) -> StatePlan {
    let default = StatePlan::default();
    StatePlan {
        ttl: value(&raw.ttl).map(|period| period.0),
        max_bytes: value(&raw.max).map_or(default.max_bytes, |size| size.0),
    }
}

fn trial(raw: &raw::Trial, problems: &mut Problems) -> TrialPlan {
    let default = TrialPlan::default();
    let (time, at_most) = (value(&raw.time).map(|period| period.0), value(&raw.at_most).map(|period| period.0));
    if let (Some(field), Some(time), Some(longest)) = (&raw.at_most, time, at_most.filter(|most| Some(*most) < time)) {
        let (longest, time) = (show_duration(longest), show_duration(time));
        let message =
            format!("the trial lasts at most {longest}, which is shorter than the {time} that it lasts at least");
        let bad = Diagnostic::error(Code::BadValue, field.span, "at most", message);
        let least = raw.time.as_ref().map(|field| field.span);
        let bad = least.into_iter().fold(bad, |bad, span| bad.label(span, "at least"));
        problems.push(bad.help(format!("write an `at_most` of {time} or more")));
    }
    TrialPlan {
        events: value(&raw.events).map_or(default.events, |count| count.0.into()),
        // Who only says one of them does not mean the other to contradict it.
        time: time.unwrap_or(default.time.min(at_most.unwrap_or(default.time))),
        at_most: at_most.unwrap_or(default.at_most.max(time.unwrap_or(default.at_most))),
    }
}

fn retry_queue(raw: &raw::RetryQueue) -> RetryQueue {
    let default = RetryQueue::default();
    RetryQueue {
        max_events: value(&raw.max).map_or(default.max_events, |count| count.0),
        max_bytes: value(&raw.size).map_or(default.max_bytes, |size| size.0),
    }
}

/// A count, which can only be one where events are delivered at most once, as is said at `once`.
fn one_if<const MIN: u32, const MAX: u32>(
    once: Option<Span>,
    field: &Key<Count<MIN, MAX>>,
    default: u32,
    (key, rule): (&str, &str),
    problems: &mut Problems,
) -> u32 {
    let count = value(field).map(|count| count.0);
    let Some(once) = once else { return count.unwrap_or(default) };
    if let (Some(field), Some(count)) = (field, count.filter(|count| *count != 1)) {
        let message = format!("`{key}: {count}` contradicts `delivery: at_most_once`: {rule}");
        let bad = Diagnostic::error(Code::BadValue, field.span, "more than one", message);
        let bad = bad.label(once, "at most once");
        problems.push(bad.help(format!("remove `{key}`, or write `delivery: at_least_once`")));
    }
    1
}

fn batch(raw: &raw::Batch, once: Option<Span>, problems: &mut Problems) -> BatchPlan {
    let default = BatchPlan::default();
    let rule = ("max", "each call has one event");
    let max_events = one_if(once, &raw.max, default.max_events, rule, problems);
    let wait = value(&raw.wait).map(|period| period.0);
    if let Some(field) = raw.wait.as_ref().filter(|_| wait.is_some() && max_events == 1) {
        let message = "`wait` waits for more events, but a call has one".to_owned();
        let bad = Diagnostic::error(Code::BadValue, field.key, "for no more events", message);
        let one = once.or(raw.max.as_ref().map(|field| field.span));
        let bad = one.into_iter().fold(bad, |bad, span| bad.label(span, "one event for each call"));
        problems.push(bad.help("remove `wait`"));
    }
    BatchPlan {
        max_events,
        max_bytes: value(&raw.size).and_then(|size| usize::try_from(size.0).ok()).unwrap_or(default.max_bytes),
        wait,
    }
}

fn retry(raw: &raw::Retry, once: Option<Span>, problems: &mut Problems) -> Retry {
    let default = Retry::default();
    let rule = ("attempts", "each event is tried once");
    let attempts = one_if(once, &raw.attempts, default.attempts, rule, problems);
    let backoff = value(&raw.backoff).unwrap_or_default();
    let initial = value(&backoff.initial).map_or(default.initial, |period| period.0);
    // Who only asks for a longer first pause does not mean it to be cut.
    let max = value(&backoff.max).map_or(default.max.max(initial), |period| period.0);
    if let Some(field) = backoff.max.as_ref().filter(|_| initial > max) {
        let (max, initial) = (show_duration(max), show_duration(initial));
        let message = format!("the longest pause, {max}, is shorter than the first, {initial}");
        let bad = Diagnostic::error(Code::BadValue, field.span, "the longest", message);
        let first = backoff.initial.as_ref().map(|field| field.span);
        let bad = first.into_iter().fold(bad, |bad, span| bad.label(span, "the first"));
        problems.push(bad.help(format!("write a `max` of {initial} or more")));
    }
    Retry { attempts, initial, max, factor: value(&backoff.factor).map_or(default.factor, |factor| factor.0) }
}

fn config(settings: &[(String, Field<Setting>)]) -> BTreeMap<String, ConfigValue> {
    let setting = |(name, field): &(String, Field<Setting>)| Some((name.clone(), field.value.clone()?.0));
    settings.iter().filter_map(setting).collect()
}
