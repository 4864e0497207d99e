//! A plan as it is kept: data with names of its own, complete, whatever topologies are written like meanwhile.
//!
//! Promises: the plan that is read is the plan that was written. Nothing is left out and nothing has a default, so a
//! release with other defaults, or with other names for keys, reads the same plan. Additions of a later release come
//! with their meaning where they are missing (`serde(default)`); what this one does not know is refused. The numbers
//! and names below are on disks: a golden record in `tests/formats/` holds them still. Values out of the environment
//! are not in it: the caller that keeps a plan says what is written in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::data_schema::DataSchema;
use super::expression::{Condition, KeyExpression};
use super::plan::{self, ConfigValue, Plan, PluginSource, Runs, StartAt, SubscriberIndex, TopicIndex};
use crate::model::{self, Time};

/// Why a record has no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    #[error("the expression `{text}` of `{of}` cannot be read: {why}")]
    Expression { of: String, text: String, why: String },
    #[error("the schema {} {why}", path.display())]
    Schema {
        /// Where it was.
        path: PathBuf,
        why: String,
    },
    /// The value of a variable.
    #[error("what `{written}` stands for in `config.{setting}` of `{of}` is not kept any more")]
    Value {
        of: String,
        setting: String,
        /// How it is written.
        written: String,
    },
    /// A number that stands for nothing, or one that can be none.
    #[error("{0} of `{1}` is none")]
    Number(&'static str, String),
}

/// A path, also if it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeptPath {
    /// A path in UTF-8.
    Text(String),
    /// Any other path.
    Bytes(Vec<u8>),
}

impl From<&Path> for KeptPath {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<KeptPath> for PathBuf {
    fn from(path: KeptPath) -> Self {
        match path {
            KeptPath::Text(text) => text.into(),
            KeptPath::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

/// A plan as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPlan {
    topics: Vec<Topic>,
    subscribers: Vec<Subscriber>,
    /// Each that topics name, once.
    schemas: Vec<Schema>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    path: KeptPath,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    namespace: String,
    name: String,
    partitions: u32,
    key: Option<String>,
    id: Option<String>,
    schema: Option<u32>,
    age_ns: Option<u64>,
    partition_bytes: Option<u64>,
    force: bool,
    dedupe: Option<Dedupe>,
    forget_producers_ns: Option<u64>,
    compression: Compression,
    lifecycle: Option<Lifecycle>,
    per_key: bool,
    backlog: Option<Backlog>,
    parent: Option<u32>,
    diverts_to: Option<u32>,
    diverted_from: Option<u32>,
    dead_letters_of: Option<u32>,
    #[serde(alias = "was")] // in version 2 of the record
    renamed_from: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dedupe {
    window_ns: u64,
    count: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compression {
    None,
    Lz4,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lifecycle {
    state: String,
    start: BTreeSet<String>,
    allow: BTreeMap<String, BTreeSet<String>>,
    keys_max: u64,
    remember_ns: Option<u64>,
    remembered_max: u64,
    out_of_order: OutOfOrder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum OutOfOrder {
    Refuse,
    Hold { period_ns: u64, max: u64 },
    Divert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backlog {
    max_events: u64,
    waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscriber {
    namespace: String,
    name: String,
    from: u32,
    runs: Kind,
    when: Option<String>,
    ports: Vec<(String, u32)>,
    dead_letters: Option<u32>,
    config: BTreeMap<String, Value>,
    memory_bytes: u64,
    time_ns: u64,
    output_bytes: u64,
    /// Added later: one hundred where it is missing, whatever the default is.
    #[serde(default = "hundred", skip_serializing_if = "is_hundred")]
    log_lines_per_second: u32,
    state_ttl_ns: Option<u64>,
    state_bytes: u64,
    retry: Retry,
    on_failure: OnFailure,
    capsules: u32,
    /// Missing in earlier records, which have this default. The default is left out, for releases that do not know the
    /// field.
    #[serde(default, skip_serializing_if = "Trial::is_default")]
    trial: Trial,
    #[serde(alias = "waiting_events")] // in version 2
    retry_queue_events: u32,
    #[serde(alias = "waiting_bytes")]
    retry_queue_bytes: u64,
    delivery: Delivery,
    rate: Option<Rate>,
    concurrency: Option<u32>,
    batch: Batch,
    #[serde(alias = "group")] // in version 2
    queue_group: Option<String>,
    #[serde(alias = "group_timeout_ns")]
    queue_group_timeout_ns: u64,
    start: Start,
    #[serde(alias = "was")] // in version 2 of the record
    renamed_from: Option<String>,
}

fn hundred() -> u32 {
    100
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_hundred(count: &u32) -> bool {
    *count == hundred()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    Folder(KeptPath),
    Wasm(KeptPath),
    Stored { name: String, digest: String },
    Push { url: String },
    Pull,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Value {
    Text(String),
    /// `sealed` stands for the value, which is elsewhere.
    Variable {
        written: String,
        sealed: String,
    },
    SecretFile(KeptPath),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    attempts: u32,
    initial_ns: u64,
    max_ns: u64,
    /// In decimal, since numbers of JSON are read in another way by each reader.
    factor: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    events: u64,
    time_ns: u64,
    at_most_ns: u64,
}

impl Default for Trial {
    fn default() -> Self {
        Self { events: 1_000, time_ns: 60 * 1_000_000_000, at_most_ns: 3_600 * 1_000_000_000 }
    }
}

impl Trial {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    DeadLetter,
    Park,
    Halt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names that topologies have for it")]
enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
    AtMostOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    events: u32,
    per: Per,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Per {
    Second,
    Minute,
    Hour,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    max_events: u32,
    max_bytes: u64,
    wait_ns: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Start {
    Earliest,
    Latest,
    /// RFC 3339, with all its digits.
    Time(String),
}

fn nanoseconds(period: Duration) -> u64 {
    u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)
}

fn period(nanoseconds: Option<u64>) -> Option<Duration> {
    nanoseconds.map(Duration::from_nanos)
}

impl KeptPlan {
    /// A plan. `seal` says what stands for the value of a variable.
    pub fn of(plan: &Plan, seal: &dyn Fn(&str) -> String) -> Self {
        let mut kept = Self::default();
        let mut numbers: BTreeMap<(&Path, &str), u32> = BTreeMap::new();
        for topic in &plan.topics {
            let schema = topic.schema.as_ref().map(|schema| {
                let next = numbers.len() as u32;
                *numbers.entry((schema.path(), schema.text())).or_insert_with(|| {
                    kept.schemas.push(Schema { path: schema.path().into(), text: schema.text().to_owned() });
                    next
                })
            });
            kept.topics.push(Topic::of(topic, schema));
        }
        kept.subscribers = plan.subscribers.iter().map(|subscriber| Subscriber::of(subscriber, seal)).collect();
        kept
    }

    /// The plan. `open` says what stands behind the value of a variable.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn read(self, open: &dyn Fn(&str) -> Option<String>) -> Result<Plan, KeptError> {
        let schemas = self.schemas.into_iter().map(|Schema { path, text }| {
            let path = PathBuf::from(path);
            DataSchema::compile(&path, &text).map_err(|why| KeptError::Schema { path, why: why.to_string() })
        });
        let schemas = schemas.collect::<Result<Vec<_>, _>>()?;
        let (topics, subscribers) = (self.topics.len(), self.subscribers.len());
        let bounds = Bounds { topics, subscribers };
        Ok(Plan {
            topics: self.topics.into_iter().map(|topic| topic.read(&schemas, bounds)).collect::<Result<_, _>>()?,
            subscribers: self
                .subscribers
                .into_iter()
                .map(|subscriber| subscriber.read(open, bounds))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// How many there are of each.
#[derive(Clone, Copy)]
struct Bounds {
    topics: usize,
    subscribers: usize,
}

impl Bounds {
    fn topic(self, number: u32, of: &str) -> Result<TopicIndex, KeptError> {
        let is_one = (number as usize) < self.topics;
        is_one.then_some(TopicIndex(number)).ok_or_else(|| KeptError::Number("the number of a topic", of.to_owned()))
    }

    fn subscriber(self, number: u32, of: &str) -> Result<SubscriberIndex, KeptError> {
        let unknown = || KeptError::Number("the number of a subscriber", of.to_owned());
        ((number as usize) < self.subscribers).then_some(SubscriberIndex(number)).ok_or_else(unknown)
    }
}

fn compiled<T, E: ToString>(
    text: String,
    compile: impl Fn(&str) -> Result<T, Vec<E>>,
    of: &str,
) -> Result<T, KeptError> {
    compile(&text).map_err(|errors| {
        let why = errors.first().map(ToString::to_string).unwrap_or_default();
        KeptError::Expression { of: of.to_owned(), text, why }
    })
}

impl Topic {
    fn of(topic: &plan::TopicPlan, schema: Option<u32>) -> Self {
        let plan::TopicPlan {
            namespace,
            name,
            partitions,
            key,
            id,
            schema: _,
            settings: model::TopicSettings { retention, dedupe, forget_producers, compression },
            lifecycle,
            per_key,
            backlog,
            parent,
            diverts_to,
            diverted_from,
            dead_letters_of,
            renamed_from,
        } = topic;
        let model::Retention { age, partition_bytes, force } = *retention;
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            partitions: *partitions,
            key: key.as_ref().map(|key| key.text().to_owned()),
            id: id.as_ref().map(|id| id.text().to_owned()),
            schema,
            age_ns: age.map(nanoseconds),
            partition_bytes,
            force,
            dedupe: dedupe.map(|model::Dedupe { window, count }| Dedupe { window_ns: nanoseconds(window), count }),
            forget_producers_ns: forget_producers.map(nanoseconds),
            compression: match compression {
                model::Compression::None => Compression::None,
                model::Compression::Lz4 => Compression::Lz4,
            },
            lifecycle: lifecycle.as_ref().map(Lifecycle::of),
            per_key: *per_key,
            backlog: backlog.map(|plan::BacklogPlan { max_events, when_full }| Backlog {
                max_events,
                waits: match when_full {
                    plan::WhenFull::Reject => false,
                    plan::WhenFull::Wait => true,
                },
            }),
            parent: parent.map(|parent| parent.0),
            diverts_to: diverts_to.map(|to| to.0),
            diverted_from: diverted_from.map(|from| from.0),
            dead_letters_of: dead_letters_of.map(|of| of.0),
            renamed_from: renamed_from.clone(),
        }
    }

    fn read(self, schemas: &[DataSchema], bounds: Bounds) -> Result<plan::TopicPlan, KeptError> {
        let of = format!("{}/{}", self.namespace, self.name);
        let key = |text: Option<String>| text.map(|text| compiled(text, KeyExpression::compile, &of)).transpose();
        let topic = |number: Option<u32>| number.map(|number| bounds.topic(number, &of)).transpose();
        let subscriber = |number: Option<u32>| number.map(|number| bounds.subscriber(number, &of)).transpose();
        let schema = self.schema.map(|number| {
            let unknown = || KeptError::Number("the number of the schema", of.clone());
            schemas.get(number as usize).cloned().ok_or_else(unknown)
        });
        if self.partitions == 0 {
            return Err(KeptError::Number("the number of partitions", of));
        }
        Ok(plan::TopicPlan {
            partitions: self.partitions,
            key: key(self.key)?,
            id: key(self.id)?,
            schema: schema.transpose()?,
            settings: model::TopicSettings {
                retention: model::Retention {
                    age: period(self.age_ns),
                    partition_bytes: self.partition_bytes,
                    force: self.force,
                },
                dedupe: self.dedupe.map(|Dedupe { window_ns, count }| model::Dedupe {
                    window: Duration::from_nanos(window_ns),
                    count,
                }),
                forget_producers: period(self.forget_producers_ns),
                compression: match self.compression {
                    Compression::None => model::Compression::None,
                    Compression::Lz4 => model::Compression::Lz4,
                },
            },
            lifecycle: self.lifecycle.map(|lifecycle| lifecycle.read(&of)).transpose()?,
            per_key: self.per_key,
            backlog: self.backlog.map(|Backlog { max_events, waits }| plan::BacklogPlan {
                max_events,
                when_full: if waits { plan::WhenFull::Wait } else { plan::WhenFull::Reject },
            }),
            parent: subscriber(self.parent)?,
            diverts_to: topic(self.diverts_to)?,
            diverted_from: topic(self.diverted_from)?,
            dead_letters_of: subscriber(self.dead_letters_of)?,
            renamed_from: self.renamed_from,
            namespace: self.namespace,
            name: self.name,
        })
    }
}

impl Lifecycle {
    fn of(lifecycle: &plan::LifecyclePlan) -> Self {
        let plan::LifecyclePlan { state, lifecycle, out_of_order } = lifecycle;
        let model::Lifecycle { start, allow, keys_max, remember, remembered_max } = &**lifecycle;
        let names = |states: &BTreeSet<Arc<str>>| states.iter().map(|state| state.to_string()).collect();
        Self {
            state: state.text().to_owned(),
            start: names(start),
            allow: allow.iter().map(|(state, next)| (state.to_string(), names(next))).collect(),
            keys_max: *keys_max,
            remember_ns: remember.map(nanoseconds),
            remembered_max: *remembered_max,
            out_of_order: match out_of_order {
                plan::OutOfOrder::Refuse => OutOfOrder::Refuse,
                plan::OutOfOrder::Hold(plan::HoldPlan { period, max }) => {
                    OutOfOrder::Hold { period_ns: nanoseconds(*period), max: *max }
                }
                plan::OutOfOrder::Divert => OutOfOrder::Divert,
            },
        }
    }

    fn read(self, of: &str) -> Result<plan::LifecyclePlan, KeptError> {
        let names = |states: BTreeSet<String>| states.into_iter().map(Arc::from).collect();
        let lifecycle = model::Lifecycle {
            start: names(self.start),
            allow: self.allow.into_iter().map(|(state, next)| (Arc::from(state), names(next))).collect(),
            keys_max: self.keys_max,
            remember: period(self.remember_ns),
            remembered_max: self.remembered_max,
        };
        Ok(plan::LifecyclePlan {
            state: compiled(self.state, KeyExpression::compile, of)?,
            lifecycle: Arc::new(lifecycle),
            out_of_order: match self.out_of_order {
                OutOfOrder::Refuse => plan::OutOfOrder::Refuse,
                OutOfOrder::Hold { period_ns, max } => {
                    plan::OutOfOrder::Hold(plan::HoldPlan { period: Duration::from_nanos(period_ns), max })
                }
                OutOfOrder::Divert => plan::OutOfOrder::Divert,
            },
        })
    }
}

impl Subscriber {
    fn of(subscriber: &plan::SubscriberPlan, seal: &dyn Fn(&str) -> String) -> Self {
        let plan::SubscriberPlan {
            namespace,
            name,
            from,
            runs,
            when,
            ports,
            dead_letters,
            config,
            limits: plan::Limits { memory_bytes, time, output_bytes, log_lines_per_second },
            state: plan::StatePlan { ttl, max_bytes },
            retry: plan::Retry { attempts, initial, max, factor },
            on_failure,
            capsules,
            trial: plan::TrialPlan { events, time: least, at_most },
            retry_queue,
            delivery,
            rate,
            concurrency,
            batch,
            queue_group,
            queue_group_timeout,
            start,
            renamed_from,
        } = subscriber;
        let value = |value: &ConfigValue| match value {
            ConfigValue::Text(text) => Value::Text(text.clone()),
            ConfigValue::Variable { text, written } => Value::Variable { written: written.clone(), sealed: seal(text) },
            ConfigValue::SecretFile(path) => Value::SecretFile(path.as_path().into()),
        };
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            from: from.0,
            runs: match runs {
                Runs::Plugin(PluginSource::Folder(path)) => Kind::Folder(path.as_path().into()),
                Runs::Plugin(PluginSource::Wasm(path)) => Kind::Wasm(path.as_path().into()),
                Runs::Plugin(PluginSource::Stored { name, digest }) => {
                    Kind::Stored { name: name.clone(), digest: digest.clone() }
                }
                Runs::Push { url } => Kind::Push { url: url.clone() },
                Runs::Pull => Kind::Pull,
            },
            when: when.as_ref().map(|when| when.text().to_owned()),
            ports: ports.iter().map(|(port, topic)| (port.clone(), topic.0)).collect(),
            dead_letters: dead_letters.map(|topic| topic.0),
            config: config.iter().map(|(name, of)| (name.clone(), value(of))).collect(),
            memory_bytes: *memory_bytes,
            time_ns: nanoseconds(*time),
            output_bytes: *output_bytes,
            log_lines_per_second: *log_lines_per_second,
            state_ttl_ns: ttl.map(nanoseconds),
            state_bytes: *max_bytes,
            retry: Retry {
                attempts: *attempts,
                initial_ns: nanoseconds(*initial),
                max_ns: nanoseconds(*max),
                factor: factor.to_string(),
            },
            on_failure: match on_failure {
                plan::OnFailure::DeadLetter => OnFailure::DeadLetter,
                plan::OnFailure::Park => OnFailure::Park,
                plan::OnFailure::Halt => OnFailure::Halt,
            },
            capsules: *capsules,
            trial: Trial { events: *events, time_ns: nanoseconds(*least), at_most_ns: nanoseconds(*at_most) },
            retry_queue_events: retry_queue.max_events,
            retry_queue_bytes: retry_queue.max_bytes,
            delivery: match delivery {
                plan::Delivery::ExactlyOnce => Delivery::ExactlyOnce,
                plan::Delivery::AtLeastOnce => Delivery::AtLeastOnce,
                plan::Delivery::AtMostOnce => Delivery::AtMostOnce,
            },
            rate: rate.map(|plan::Rate { events, per }| Rate {
                events: events.get(),
                per: match per {
                    plan::Per::Second => Per::Second,
                    plan::Per::Minute => Per::Minute,
                    plan::Per::Hour => Per::Hour,
                },
            }),
            concurrency: concurrency.map(NonZeroU32::get),
            batch: Batch {
                max_events: batch.max_events,
                max_bytes: batch.max_bytes as u64,
                wait_ns: batch.wait.map(nanoseconds),
            },
            queue_group: queue_group.clone(),
            queue_group_timeout_ns: nanoseconds(*queue_group_timeout),
            start: match start {
                StartAt::Earliest => Start::Earliest,
                StartAt::Latest => Start::Latest,
                StartAt::Time(time) => Start::Time(time.to_string()),
            },
            renamed_from: renamed_from.clone(),
        }
    }

    fn read(self, open: &dyn Fn(&str) -> Option<String>, bounds: Bounds) -> Result<plan::SubscriberPlan, KeptError> {
        let of = format!("{}/{}", self.namespace, self.name);
        let none = |what| KeptError::Number(what, of.clone());
        let value = |(setting, value): (String, Value)| {
            let value = match value {
                Value::Text(text) => ConfigValue::Text(text),
                Value::SecretFile(path) => ConfigValue::SecretFile(path.into()),
                Value::Variable { written, sealed } => match open(&sealed) {
                    Some(text) => ConfigValue::Variable { text, written },
                    None => return Err(KeptError::Value { of: of.clone(), setting, written }),
                },
            };
            Ok((setting, value))
        };
        let rate = |Rate { events, per }: Rate| {
            let per = match per {
                Per::Second => plan::Per::Second,
                Per::Minute => plan::Per::Minute,
                Per::Hour => plan::Per::Hour,
            };
            Ok(plan::Rate { events: NonZeroU32::new(events).ok_or_else(|| none("the rate"))?, per })
        };
        let ports = self.ports.into_iter().map(|(port, topic)| Ok((port, bounds.topic(topic, &of)?)));
        let concurrency = self.concurrency.map(|count| NonZeroU32::new(count).ok_or_else(|| none("the concurrency")));
        Ok(plan::SubscriberPlan {
            from: bounds.topic(self.from, &of)?,
            runs: match self.runs {
                Kind::Folder(path) => Runs::Plugin(PluginSource::Folder(path.into())),
                Kind::Wasm(path) => Runs::Plugin(PluginSource::Wasm(path.into())),
                Kind::Stored { name, digest } => Runs::Plugin(PluginSource::Stored { name, digest }),
                Kind::Push { url } => Runs::Push { url },
                Kind::Pull => Runs::Pull,
            },
            when: self.when.map(|text| compiled(text, Condition::compile, &of)).transpose()?,
            ports: ports.collect::<Result<_, _>>()?,
            dead_letters: self.dead_letters.map(|topic| bounds.topic(topic, &of)).transpose()?,
            config: self.config.into_iter().map(value).collect::<Result<_, _>>()?,
            limits: plan::Limits {
                memory_bytes: self.memory_bytes,
                time: Duration::from_nanos(self.time_ns),
                output_bytes: self.output_bytes,
                log_lines_per_second: self.log_lines_per_second,
            },
            state: plan::StatePlan { ttl: period(self.state_ttl_ns), max_bytes: self.state_bytes },
            retry: plan::Retry {
                attempts: self.retry.attempts,
                initial: Duration::from_nanos(self.retry.initial_ns),
                max: Duration::from_nanos(self.retry.max_ns),
                factor: self.retry.factor.parse().map_err(|_| none("the factor of `retry`"))?,
            },
            on_failure: match self.on_failure {
                OnFailure::DeadLetter => plan::OnFailure::DeadLetter,
                OnFailure::Park => plan::OnFailure::Park,
                OnFailure::Halt => plan::OnFailure::Halt,
            },
            capsules: self.capsules,
            trial: plan::TrialPlan {
                events: self.trial.events,
                time: Duration::from_nanos(self.trial.time_ns),
                at_most: Duration::from_nanos(self.trial.at_most_ns),
            },
            retry_queue: plan::RetryQueue { max_events: self.retry_queue_events, max_bytes: self.retry_queue_bytes },
            delivery: match self.delivery {
                Delivery::ExactlyOnce => plan::Delivery::ExactlyOnce,
                Delivery::AtLeastOnce => plan::Delivery::AtLeastOnce,
                Delivery::AtMostOnce => plan::Delivery::AtMostOnce,
            },
            rate: self.rate.map(rate).transpose()?,
            concurrency: concurrency.transpose()?,
            batch: plan::BatchPlan {
                max_events: self.batch.max_events,
                max_bytes: usize::try_from(self.batch.max_bytes).map_err(|_| none("the size of `batch`"))?,
                wait: period(self.batch.wait_ns),
            },
            queue_group: self.queue_group,
            queue_group_timeout: Duration::from_nanos(self.queue_group_timeout_ns),
            start: match self.start {
                Start::Earliest => StartAt::Earliest,
                Start::Latest => StartAt::Latest,
                Start::Time(time) => StartAt::Time(Time::parse(&time).ok_or_else(|| none("the time of `start`"))?),
            },
            renamed_from: self.renamed_from,
            namespace: self.namespace,
            name: self.name,
        })
    }
}
