//! A plan as the YAML that it stands for, with every default written out.
//!
//! Promises: checking the shown text, from the same folder and in the same environment, gives the same plan. What
//! variables were put into is shown with their names; [`documents`] need no environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::bounds::DEDUPE_WINDOW_DEFAULT;
use super::plan::{
    ConfigValue, Delivery, HoldPlan, LifecyclePlan, OnFailure, OutOfOrder, Per, Plan, PluginSource, Rate, StartAt,
    SubscriberKind, SubscriberPlan, TopicPlan, TrialPlan, WhenFull,
};
use crate::model::units::{show_duration, show_size};
use crate::model::{Compression, Dedupe};

/// Shows a plan: one YAML document for each namespace. Values out of the environment are not in it.
pub fn show(plan: &Plan) -> String {
    documents_of(&PlanPart::whole(plan), ShowOptions { variables: Variables::ByName, ..ShowOptions::default() })
        .join("---\n")
}

/// A plan as YAML texts, one for each namespace, complete by itself: values out of the environment are in it.
pub fn documents(plan: &Plan) -> Vec<String> {
    documents_of(&PlanPart::whole(plan), ShowOptions::default())
}

/// A part of a plan as [`documents`]: these topics and subscribers of these namespaces.
pub(super) fn part(
    plan: &Plan,
    namespaces: &BTreeSet<String>,
    topics: &BTreeSet<String>,
    subscribers: &BTreeSet<String>,
) -> Vec<String> {
    let mut part = PlanPart { plan, namespaces: BTreeMap::new() };
    for namespace in namespaces {
        part.namespaces.entry(namespace).or_default();
    }
    part.add(|topic| topics.contains(&topic.label()), |subscriber| subscribers.contains(&subscriber.label()));
    documents_of(&part, ShowOptions::default())
}

/// Most nodes of a text of the applied topology: far below what one file may have.
const APPLIED_NODES_MAX: usize = 1_000;

/// The requested namespaces of an applied plan: without what only means something once (`renamed_from`), without what
/// plugins are told (`config`), which only they read, and with what roots have by themselves only where it is
/// another than they have by default, since they may become something else. Several texts may be of one namespace.
pub(super) fn applied(plan: &Plan, is_asked_for: impl Fn(&str) -> bool) -> Vec<String> {
    let mut whole = PlanPart::whole(plan);
    whole.namespaces.retain(|name, _| is_asked_for(name));
    let mut texts = Vec::new();
    for (name, (topics, subscribers)) in whole.namespaces {
        let mut one = |topics: &[&TopicPlan], subscribers: &[&SubscriberPlan]| {
            let namespaces = BTreeMap::from([(name, (topics.to_vec(), subscribers.to_vec()))]);
            texts.extend(documents_of(
                &PlanPart { plan, namespaces },
                ShowOptions { is_applied: true, ..ShowOptions::default() },
            ));
        };
        topics.chunks(APPLIED_NODES_MAX).for_each(|topics| one(topics, &[]));
        subscribers.chunks(APPLIED_NODES_MAX).for_each(|subscribers| one(&[], subscribers));
    }
    texts
}

/// The source folders of the namespaces of a plan that are asked for.
pub(super) fn folders(plan: &Plan, is_asked_for: impl Fn(&str) -> bool) -> BTreeSet<PathBuf> {
    let folder = |subscriber: &SubscriberPlan| match &subscriber.runs {
        SubscriberKind::Plugin(PluginSource::Folder(path)) => Some(path.clone()),
        _ => None,
    };
    plan.subscribers.iter().filter(|subscriber| is_asked_for(&subscriber.namespace)).filter_map(folder).collect()
}

/// How the values of variables are shown.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Variables {
    ByName,
    #[default]
    InClear,
}

/// How a plan is shown.
#[derive(Clone, Copy, Default)]
struct ShowOptions {
    variables: Variables,
    /// As [`applied`].
    is_applied: bool,
}

/// The shown part of a plan, by namespace.
struct PlanPart<'p> {
    plan: &'p Plan,
    namespaces: BTreeMap<&'p str, (Vec<&'p TopicPlan>, Vec<&'p SubscriberPlan>)>,
}

impl<'p> PlanPart<'p> {
    fn whole(plan: &'p Plan) -> Self {
        let mut part = Self { plan, namespaces: BTreeMap::new() };
        part.add(|_| true, |_| true);
        part
    }

    fn add(&mut self, topics: impl Fn(&TopicPlan) -> bool, subscribers: impl Fn(&SubscriberPlan) -> bool) {
        let written = self.plan.topics.iter().filter(|topic| topic.dead_letters_of.is_none());
        for topic in written.filter(|topic| topics(topic)) {
            self.namespaces.entry(&topic.namespace).or_default().0.push(topic);
        }
        for subscriber in self.plan.subscribers.iter().filter(|subscriber| subscribers(subscriber)) {
            self.namespaces.entry(&subscriber.namespace).or_default().1.push(subscriber);
        }
    }
}

fn documents_of(part: &PlanPart<'_>, how: ShowOptions) -> Vec<String> {
    let documents = part.namespaces.iter().map(|(name, (topics, subscribers))| {
        let mut shown = format!("wattle: v1\nname: {}\n", scalar(name));
        shown += if topics.is_empty() { "topics: {}\n" } else { "topics:\n" };
        topics.iter().for_each(|shown_topic| topic(&mut shown, part.plan, shown_topic, how));
        if !subscribers.is_empty() {
            shown += "subscribers:\n";
        }
        subscribers.iter().for_each(|shown_subscriber| subscriber(&mut shown, part.plan, shown_subscriber, how));
        shown
    });
    documents.collect()
}

/// Adds a line; writing to a `String` cannot fail.
macro_rules! line {
    ($shown:expr, $($format:tt)*) => {{
        let _ = writeln!($shown, $($format)*);
    }};
}

fn topic(shown: &mut String, plan: &Plan, topic: &TopicPlan, how: ShowOptions) {
    line!(shown, "  {}:", key(&topic.name));
    if let Some(old) = topic.renamed_from.as_ref().filter(|_| !how.is_applied) {
        line!(shown, "    renamed_from: {}", scalar(old));
    }
    if topic.diverted_from.is_none() {
        line!(shown, "    partitions: {}", topic.partitions);
    }
    if let Some(key) = &topic.key {
        line!(shown, "    key: {}", scalar(key.text()));
    }
    if let Some(id) = &topic.id {
        line!(shown, "    id: {}", scalar(id.text()));
    }
    if let Some(LifecyclePlan { state, lifecycle, out_of_order }) = &topic.lifecycle {
        let list = |states: &BTreeSet<Arc<str>>| {
            let states: Vec<_> = states.iter().map(|state| scalar(state)).collect();
            format!("[{}]", states.join(", "))
        };
        line!(shown, "    lifecycle:");
        line!(shown, "      state: {}", scalar(state.text()));
        line!(shown, "      start: {}", list(&lifecycle.start));
        line!(shown, "      allow:{}", if lifecycle.allow.is_empty() { " {}" } else { "" });
        for (state, next) in &lifecycle.allow {
            line!(shown, "        {}: {}", key(state), list(next));
        }
        line!(shown, "      max: {}", lifecycle.keys_max);
        match lifecycle.remember {
            Some(period) => {
                line!(shown, "      remember: {}", show_duration(period));
                line!(shown, "      remember_max: {}", lifecycle.remembered_max);
            }
            None => line!(shown, "      restart: true"),
        }
        match (out_of_order, topic.diverts_to) {
            (OutOfOrder::Hold(HoldPlan { period, max }), _) => {
                line!(shown, "      out_of_order: {{ hold: {}, max: {max} }}", show_duration(*period));
            }
            (OutOfOrder::Divert, Some(to)) => {
                line!(shown, "      out_of_order: {{ divert: {} }}", scalar(&plan[to].name));
            }
            _ => line!(shown, "      out_of_order: refuse"),
        }
    }
    if let Some(schema) = &topic.schema {
        line!(shown, "    schema: {}", scalar(&schema.path().to_string_lossy()));
    }
    let retention = &topic.settings.retention;
    // Written is the size of the whole topic; this one is divided into the same parts again.
    let whole = |partition_bytes: u64| partition_bytes.saturating_mul(topic.partitions.into());
    let age = retention.age.map(|age| format!("age: {}, ", show_duration(age))).unwrap_or_default();
    let size =
        retention.partition_bytes.map(|bytes| format!("size: {}, ", show_size(whole(bytes)))).unwrap_or_default();
    line!(shown, "    retention: {{ {age}{size}force: {} }}", retention.force);
    let is_default = |dedupe: Dedupe| dedupe.window == DEDUPE_WINDOW_DEFAULT && dedupe.count.is_none();
    match topic.settings.dedupe {
        Some(dedupe) if how.is_applied && topic.is_root() && is_default(dedupe) => {}
        Some(Dedupe { window, count }) => {
            let count = count.map(|count| format!(", count: {count}")).unwrap_or_default();
            line!(shown, "    dedupe: {{ window: {}{count} }}", show_duration(window));
        }
        None if topic.per_key => line!(shown, "    dedupe: {{ per: key }}"),
        None if topic.is_root() => line!(shown, "    dedupe: {}", scalar("off")),
        // Only roots may say it.
        None => {}
    }
    if let Some(forget) = topic.settings.forget_producers {
        line!(shown, "    producers: {{ forget: {} }}", show_duration(forget));
    }
    let compression = match topic.settings.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
    };
    line!(shown, "    compression: {compression}");
    if let Some(backlog) = topic.backlog {
        line!(shown, "    backlog: {}", backlog.max_events);
        let when_full = match backlog.when_full {
            WhenFull::Reject => "reject",
            WhenFull::Wait => "wait",
        };
        if topic.is_root() && !(how.is_applied && backlog.when_full == WhenFull::Reject) {
            line!(shown, "    when_full: {when_full}");
        }
    }
}

fn subscriber(shown: &mut String, plan: &Plan, subscriber: &SubscriberPlan, how: ShowOptions) {
    line!(shown, "  {}:", key(&subscriber.name));
    if let Some(old) = subscriber.renamed_from.as_ref().filter(|_| !how.is_applied) {
        line!(shown, "    renamed_from: {}", scalar(old));
    }
    line!(shown, "    from: {}", scalar(&plan[subscriber.from].name));
    match &subscriber.runs {
        SubscriberKind::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) => {
            line!(shown, "    plugin: {}", scalar(&path.to_string_lossy()));
        }
        SubscriberKind::Plugin(PluginSource::Stored { name, digest }) => {
            line!(shown, "    plugin: {}", scalar(&format!("{name}@{digest}")));
        }
        SubscriberKind::Push { url } => line!(shown, "    push: {{ url: {} }}", scalar(url)),
        SubscriberKind::Pull => line!(shown, "    pull: {{}}"),
    }
    if let Some(when) = &subscriber.when {
        line!(shown, "    when: {}", scalar(when.text()));
    }
    if !subscriber.ports.is_empty() {
        line!(shown, "    to:");
    }
    for (port, topic) in &subscriber.ports {
        line!(shown, "      {}: {}", key(port), scalar(&plan[*topic].name));
    }
    if let SubscriberKind::Plugin(_) = subscriber.runs {
        let config = if how.is_applied { &BTreeMap::new() } else { &subscriber.config };
        if !config.is_empty() {
            line!(shown, "    config:");
        }
        for (setting, value) in config {
            match value {
                ConfigValue::Variable { written, .. } if how.variables == Variables::ByName => {
                    // As it was read: what is not a reference is escaped already.
                    line!(shown, "      {}: {}", key(setting), quoted(written));
                }
                ConfigValue::Text(text) | ConfigValue::Variable { text, .. } => {
                    line!(shown, "      {}: {}", key(setting), scalar(text))
                }
                ConfigValue::SecretFile(path) => {
                    line!(shown, "      {}: {{ file: {} }}", key(setting), scalar(&path.to_string_lossy()));
                }
            }
        }
        let limits = &subscriber.limits;
        let (memory, time) = (show_size(limits.memory_bytes), show_duration(limits.time));
        let (output, log) = (show_size(limits.output_bytes), limits.log_lines_per_second);
        line!(shown, "    limits: {{ memory: {memory}, time: {time}, output: {output}, log: {log} }}");
        let state = &subscriber.state;
        let ttl = state.ttl.map(|ttl| format!("ttl: {}, ", show_duration(ttl))).unwrap_or_default();
        line!(shown, "    state: {{ {ttl}max: {} }}", show_size(state.max_bytes));
    }
    let retry = &subscriber.retry;
    let (initial, max) = (show_duration(retry.initial), show_duration(retry.max));
    line!(shown, "    retry:");
    line!(shown, "      attempts: {}", retry.attempts);
    line!(shown, "      backoff: {{ initial: {initial}, max: {max}, factor: {} }}", retry.factor);
    let on_failure = match subscriber.on_failure {
        OnFailure::DeadLetter => "dead_letter",
        OnFailure::Park => "park",
        OnFailure::Halt => "halt",
    };
    let delivery = match subscriber.delivery {
        Delivery::ExactlyOnce => "exactly_once",
        Delivery::AtLeastOnce => "at_least_once",
        Delivery::AtMostOnce => "at_most_once",
    };
    line!(shown, "    on_failure: {on_failure}");
    if let SubscriberKind::Plugin(_) = subscriber.runs {
        line!(shown, "    capsules: {}", subscriber.capsules);
        let TrialPlan { events, time, at_most } = subscriber.trial;
        let (time, at_most) = (show_duration(time), show_duration(at_most));
        line!(shown, "    trial: {{ events: {events}, for: {time}, at_most: {at_most} }}");
    }
    let retry_queue = &subscriber.retry_queue;
    let (max, size) = (retry_queue.max_events, show_size(retry_queue.max_bytes));
    line!(shown, "    retry_queue: {{ max: {max}, size: {size} }}");
    line!(shown, "    delivery: {delivery}");
    if let Some(Rate { events, per }) = subscriber.rate {
        let per = match per {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        };
        line!(shown, "    rate: {}", scalar(&format!("{events}/{per}")));
    }
    if let Some(concurrency) = subscriber.concurrency {
        line!(shown, "    concurrency: {concurrency}");
    }
    let batch = &subscriber.batch;
    let wait = batch.wait.map(|wait| format!(", wait: {}", show_duration(wait))).unwrap_or_default();
    if let Some(group) = &subscriber.queue_group {
        line!(shown, "    queue_group: {}", scalar(group));
        line!(shown, "    queue_group_timeout: {}", show_duration(subscriber.queue_group_timeout));
    }
    let start = match subscriber.start {
        StartAt::Earliest => "earliest".to_owned(),
        StartAt::Latest => "latest".to_owned(),
        StartAt::Time(time) => scalar(&time.to_string()),
    };
    line!(shown, "    start: {start}");
    line!(shown, "    batch: {{ max: {}, size: {}{wait} }}", batch.max_events, show_size(batch.max_bytes as u64));
}

/// A text as YAML, in a place where variables are replaced: `$` is doubled, since variables were replaced.
fn scalar(text: &str) -> String {
    key(&text.replace('$', "$$"))
}

/// A text as YAML: bare where every reader takes it for that text, quoted elsewhere. As a key it is that text: nothing
/// is replaced there.
fn key(text: &str) -> String {
    let bare = |char: char| char.is_ascii_alphanumeric() || "._-/".contains(char);
    let starts = text.starts_with(|char: char| char.is_ascii_alphabetic() || char == '.' || char == '/');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | ".nan" | ".inf"
    );
    if starts && !word && text.chars().all(bare) {
        return text.to_owned();
    }
    quoted(text)
}

/// A text in double quotes: a JSON string, in which YAML also wants what it does not print, and what it takes for the
/// end of a line, to be escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for char in serde_json::Value::from(text).to_string().chars() {
        match char {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            _ => quoted.push(char),
        }
    }
    quoted
}
