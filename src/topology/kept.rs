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
use super::plan::{self, ConfigValue, Plan, PluginSource, StartAt, SubscriberIndex, SubscriberKind, TopicIndex};
use crate::model::{self, Time};

/// Why a record has no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanRecordError {
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
pub enum PathRecord {
    /// A path in UTF-8.
    Text(String),
    /// Any other path.
    Bytes(Vec<u8>),
}

impl From<&Path> for PathRecord {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<PathRecord> for PathBuf {
    fn from(path: PathRecord) -> Self {
        match path {
            PathRecord::Text(text) => text.into(),
            PathRecord::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

/// A plan as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    topics: Vec<TopicRecord>,
    subscribers: Vec<SubscriberRecord>,
    /// Each that topics name, once.
    schemas: Vec<SchemaRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaRecord {
    path: PathRecord,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicRecord {
    namespace: String,
    name: String,
    partitions: u32,
    key: Option<String>,
    id: Option<String>,
    schema: Option<u32>,
    age_ns: Option<u64>,
    partition_bytes: Option<u64>,
    force: bool,
    dedupe: Option<DedupeRecord>,
    forget_producers_ns: Option<u64>,
    compression: CompressionRecord,
    lifecycle: Option<LifecycleRecord>,
    per_key: bool,
    backlog: Option<BacklogRecord>,
    parent: Option<u32>,
    diverts_to: Option<u32>,
    diverted_from: Option<u32>,
    dead_letters_of: Option<u32>,
    #[serde(alias = "was")] // in version 2 of the record
    renamed_from: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DedupeRecord {
    window_ns: u64,
    count: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CompressionRecord {
    None,
    Lz4,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LifecycleRecord {
    state: String,
    start: BTreeSet<String>,
    allow: BTreeMap<String, BTreeSet<String>>,
    keys_max: u64,
    remember_ns: Option<u64>,
    remembered_max: u64,
    out_of_order: OutOfOrderRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum OutOfOrderRecord {
    Refuse,
    Hold { period_ns: u64, max: u64 },
    Divert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BacklogRecord {
    max_events: u64,
    waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriberRecord {
    namespace: String,
    name: String,
    from: u32,
    runs: HandlerRecord,
    when: Option<String>,
    ports: Vec<(String, u32)>,
    dead_letters: Option<u32>,
    config: BTreeMap<String, ValueRecord>,
    memory_bytes: u64,
    time_ns: u64,
    output_bytes: u64,
    /// Added later: one hundred where it is missing, whatever the default is.
    #[serde(default = "hundred", skip_serializing_if = "is_hundred")]
    log_lines_per_second: u32,
    state_ttl_ns: Option<u64>,
    state_bytes: u64,
    retry: RetryRecord,
    on_failure: OnFailureRecord,
    capsules: u32,
    /// Missing in earlier records, which have this default. The default is left out, for releases that do not know the
    /// field.
    #[serde(default, skip_serializing_if = "TrialRecord::is_default")]
    trial: TrialRecord,
    #[serde(alias = "waiting_events")] // in version 2
    retry_queue_events: u32,
    #[serde(alias = "waiting_bytes")]
    retry_queue_bytes: u64,
    delivery: DeliveryRecord,
    rate: Option<RateRecord>,
    concurrency: Option<u32>,
    batch: BatchRecord,
    #[serde(alias = "group")] // in version 2
    queue_group: Option<String>,
    #[serde(alias = "group_timeout_ns")]
    queue_group_timeout_ns: u64,
    start: StartRecord,
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
enum HandlerRecord {
    Folder(PathRecord),
    Wasm(PathRecord),
    Stored { name: String, digest: String },
    Push { url: String },
    Pull,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ValueRecord {
    Text(String),
    /// `sealed` stands for the value, which is elsewhere.
    Variable {
        written: String,
        sealed: String,
    },
    SecretFile(PathRecord),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRecord {
    attempts: u32,
    initial_ns: u64,
    max_ns: u64,
    /// In decimal, since numbers of JSON are read in another way by each reader.
    factor: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialRecord {
    events: u64,
    time_ns: u64,
    at_most_ns: u64,
}

impl Default for TrialRecord {
    fn default() -> Self {
        Self { events: 1_000, time_ns: 60 * 1_000_000_000, at_most_ns: 3_600 * 1_000_000_000 }
    }
}

impl TrialRecord {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailureRecord {
    DeadLetter,
    Park,
    Halt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names that topologies have for it")]
enum DeliveryRecord {
    ExactlyOnce,
    AtLeastOnce,
    AtMostOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateRecord {
    events: u32,
    per: RateUnitRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RateUnitRecord {
    Second,
    Minute,
    Hour,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRecord {
    max_events: u32,
    max_bytes: u64,
    wait_ns: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StartRecord {
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

impl PlanRecord {
    /// A plan. `seal` says what stands for the value of a variable.
    pub fn of(plan: &Plan, seal: &dyn Fn(&str) -> String) -> Self {
        let mut kept = Self::default();
        let mut numbers: BTreeMap<(&Path, &str), u32> = BTreeMap::new();
        for topic in &plan.topics {
            let schema = topic.schema.as_ref().map(|schema| {
                let next = numbers.len() as u32;
                *numbers.entry((schema.path(), schema.text())).or_insert_with(|| {
                    kept.schemas.push(SchemaRecord { path: schema.path().into(), text: schema.text().to_owned() });
                    next
                })
            });
            kept.topics.push(TopicRecord::of(topic, schema));
        }
        kept.subscribers = plan.subscribers.iter().map(|subscriber| SubscriberRecord::of(subscriber, seal)).collect();
        kept
    }

    /// The plan. `open` says what stands behind the value of a variable.
    ///
    /// # Errors
    /// [`PlanRecordError`].
    pub fn read(self, open: &dyn Fn(&str) -> Option<String>) -> Result<Plan, PlanRecordError> {
        let schemas = self.schemas.into_iter().map(|SchemaRecord { path, text }| {
            let path = PathBuf::from(path);
            DataSchema::compile(&path, &text).map_err(|why| PlanRecordError::Schema { path, why: why.to_string() })
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
    fn topic(self, number: u32, of: &str) -> Result<TopicIndex, PlanRecordError> {
        let is_one = (number as usize) < self.topics;
        is_one
            .then_some(TopicIndex(number))
            .ok_or_else(|| PlanRecordError::Number("the number of a topic", of.to_owned()))
    }

    fn subscriber(self, number: u32, of: &str) -> Result<SubscriberIndex, PlanRecordError> {
        let unknown = || PlanRecordError::Number("the number of a subscriber", of.to_owned());
        ((number as usize) < self.subscribers).then_some(SubscriberIndex(number)).ok_or_else(unknown)
    }
}

fn compiled<T, E: ToString>(
    text: String,
    compile: impl Fn(&str) -> Result<T, Vec<E>>,
    of: &str,
) -> Result<T, PlanRecordError> {
    compile(&text).map_err(|errors| {
        let why = errors.first().map(ToString::to_string).unwrap_or_default();
        PlanRecordError::Expression { of: of.to_owned(), text, why }
    })
}

impl TopicRecord {
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
            dedupe: dedupe
                .map(|model::Dedupe { window, count }| DedupeRecord { window_ns: nanoseconds(window), count }),
            forget_producers_ns: forget_producers.map(nanoseconds),
            compression: match compression {
                model::Compression::None => CompressionRecord::None,
                model::Compression::Lz4 => CompressionRecord::Lz4,
            },
            lifecycle: lifecycle.as_ref().map(LifecycleRecord::of),
            per_key: *per_key,
            backlog: backlog.map(|plan::BacklogPlan { max_events, when_full }| BacklogRecord {
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

    fn read(self, schemas: &[DataSchema], bounds: Bounds) -> Result<plan::TopicPlan, PlanRecordError> {
        let of = format!("{}/{}", self.namespace, self.name);
        let key = |text: Option<String>| text.map(|text| compiled(text, KeyExpression::compile, &of)).transpose();
        let topic = |number: Option<u32>| number.map(|number| bounds.topic(number, &of)).transpose();
        let subscriber = |number: Option<u32>| number.map(|number| bounds.subscriber(number, &of)).transpose();
        let schema = self.schema.map(|number| {
            let unknown = || PlanRecordError::Number("the number of the schema", of.clone());
            schemas.get(number as usize).cloned().ok_or_else(unknown)
        });
        if self.partitions == 0 {
            return Err(PlanRecordError::Number("the number of partitions", of));
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
                dedupe: self.dedupe.map(|DedupeRecord { window_ns, count }| model::Dedupe {
                    window: Duration::from_nanos(window_ns),
                    count,
                }),
                forget_producers: period(self.forget_producers_ns),
                compression: match self.compression {
                    CompressionRecord::None => model::Compression::None,
                    CompressionRecord::Lz4 => model::Compression::Lz4,
                },
            },
            lifecycle: self.lifecycle.map(|lifecycle| lifecycle.read(&of)).transpose()?,
            per_key: self.per_key,
            backlog: self.backlog.map(|BacklogRecord { max_events, waits }| plan::BacklogPlan {
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

impl LifecycleRecord {
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
                plan::OutOfOrder::Refuse => OutOfOrderRecord::Refuse,
                plan::OutOfOrder::Hold(plan::HoldPlan { period, max }) => {
                    OutOfOrderRecord::Hold { period_ns: nanoseconds(*period), max: *max }
                }
                plan::OutOfOrder::Divert => OutOfOrderRecord::Divert,
            },
        }
    }

    fn read(self, of: &str) -> Result<plan::LifecyclePlan, PlanRecordError> {
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
                OutOfOrderRecord::Refuse => plan::OutOfOrder::Refuse,
                OutOfOrderRecord::Hold { period_ns, max } => {
                    plan::OutOfOrder::Hold(plan::HoldPlan { period: Duration::from_nanos(period_ns), max })
                }
                OutOfOrderRecord::Divert => plan::OutOfOrder::Divert,
            },
        })
    }
}

impl SubscriberRecord {
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
            ConfigValue::Text(text) => ValueRecord::Text(text.clone()),
            ConfigValue::Variable { text, written } => {
                ValueRecord::Variable { written: written.clone(), sealed: seal(text) }
            }
            ConfigValue::SecretFile(path) => ValueRecord::SecretFile(path.as_path().into()),
        };
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            from: from.0,
            runs: match runs {
                SubscriberKind::Plugin(PluginSource::Folder(path)) => HandlerRecord::Folder(path.as_path().into()),
                SubscriberKind::Plugin(PluginSource::Wasm(path)) => HandlerRecord::Wasm(path.as_path().into()),
                SubscriberKind::Plugin(PluginSource::Stored { name, digest }) => {
                    HandlerRecord::Stored { name: name.clone(), digest: digest.clone() }
                }
                SubscriberKind::Push { url } => HandlerRecord::Push { url: url.clone() },
                SubscriberKind::Pull => HandlerRecord::Pull,
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
            retry: RetryRecord {
                attempts: *attempts,
                initial_ns: nanoseconds(*initial),
                max_ns: nanoseconds(*max),
                factor: factor.to_string(),
            },
            on_failure: match on_failure {
                plan::OnFailure::DeadLetter => OnFailureRecord::DeadLetter,
                plan::OnFailure::Park => OnFailureRecord::Park,
                plan::OnFailure::Halt => OnFailureRecord::Halt,
            },
            capsules: *capsules,
            trial: TrialRecord { events: *events, time_ns: nanoseconds(*least), at_most_ns: nanoseconds(*at_most) },
            retry_queue_events: retry_queue.max_events,
            retry_queue_bytes: retry_queue.max_bytes,
            delivery: match delivery {
                plan::Delivery::ExactlyOnce => DeliveryRecord::ExactlyOnce,
                plan::Delivery::AtLeastOnce => DeliveryRecord::AtLeastOnce,
                plan::Delivery::AtMostOnce => DeliveryRecord::AtMostOnce,
            },
            rate: rate.map(|plan::Rate { events, per }| RateRecord {
                events: events.get(),
                per: match per {
                    plan::Per::Second => RateUnitRecord::Second,
                    plan::Per::Minute => RateUnitRecord::Minute,
                    plan::Per::Hour => RateUnitRecord::Hour,
                },
            }),
            concurrency: concurrency.map(NonZeroU32::get),
            batch: BatchRecord {
                max_events: batch.max_events,
                max_bytes: batch.max_bytes as u64,
                wait_ns: batch.wait.map(nanoseconds),
            },
            queue_group: queue_group.clone(),
            queue_group_timeout_ns: nanoseconds(*queue_group_timeout),
            start: match start {
                StartAt::Earliest => StartRecord::Earliest,
                StartAt::Latest => StartRecord::Latest,
                StartAt::Time(time) => StartRecord::Time(time.to_string()),
            },
            renamed_from: renamed_from.clone(),
        }
    }

    fn read(
        self,
        open: &dyn Fn(&str) -> Option<String>,
        bounds: Bounds,
    ) -> Result<plan::SubscriberPlan, PlanRecordError> {
        let of = format!("{}/{}", self.namespace, self.name);
        let none = |what| PlanRecordError::Number(what, of.clone());
        let value = |(setting, value): (String, ValueRecord)| {
            let value = match value {
                ValueRecord::Text(text) => ConfigValue::Text(text),
                ValueRecord::SecretFile(path) => ConfigValue::SecretFile(path.into()),
                ValueRecord::Variable { written, sealed } => match open(&sealed) {
                    Some(text) => ConfigValue::Variable { text, written },
                    None => return Err(PlanRecordError::Value { of: of.clone(), setting, written }),
                },
            };
            Ok((setting, value))
        };
        let rate = |RateRecord { events, per }: RateRecord| {
            let per = match per {
                RateUnitRecord::Second => plan::Per::Second,
                RateUnitRecord::Minute => plan::Per::Minute,
                RateUnitRecord::Hour => plan::Per::Hour,
            };
            Ok(plan::Rate { events: NonZeroU32::new(events).ok_or_else(|| none("the rate"))?, per })
        };
        let ports = self.ports.into_iter().map(|(port, topic)| Ok((port, bounds.topic(topic, &of)?)));
        let concurrency = self.concurrency.map(|count| NonZeroU32::new(count).ok_or_else(|| none("the concurrency")));
        Ok(plan::SubscriberPlan {
            from: bounds.topic(self.from, &of)?,
            runs: match self.runs {
                HandlerRecord::Folder(path) => SubscriberKind::Plugin(PluginSource::Folder(path.into())),
                HandlerRecord::Wasm(path) => SubscriberKind::Plugin(PluginSource::Wasm(path.into())),
                HandlerRecord::Stored { name, digest } => SubscriberKind::Plugin(PluginSource::Stored { name, digest }),
                HandlerRecord::Push { url } => SubscriberKind::Push { url },
                HandlerRecord::Pull => SubscriberKind::Pull,
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
                OnFailureRecord::DeadLetter => plan::OnFailure::DeadLetter,
                OnFailureRecord::Park => plan::OnFailure::Park,
                OnFailureRecord::Halt => plan::OnFailure::Halt,
            },
            capsules: self.capsules,
            trial: plan::TrialPlan {
                events: self.trial.events,
                time: Duration::from_nanos(self.trial.time_ns),
                at_most: Duration::from_nanos(self.trial.at_most_ns),
            },
            retry_queue: plan::RetryQueue { max_events: self.retry_queue_events, max_bytes: self.retry_queue_bytes },
            delivery: match self.delivery {
                DeliveryRecord::ExactlyOnce => plan::Delivery::ExactlyOnce,
                DeliveryRecord::AtLeastOnce => plan::Delivery::AtLeastOnce,
                DeliveryRecord::AtMostOnce => plan::Delivery::AtMostOnce,
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
                StartRecord::Earliest => StartAt::Earliest,
                StartRecord::Latest => StartAt::Latest,
                StartRecord::Time(time) => {
                    StartAt::Time(Time::parse(&time).ok_or_else(|| none("the time of `start`"))?)
                }
            },
            renamed_from: self.renamed_from,
            namespace: self.namespace,
            name: self.name,
        })
    }
}
