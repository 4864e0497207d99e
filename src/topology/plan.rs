//! What a checked topology is to the rest of the system: a forest, with every default filled in.
//!
//! Promises: parents come before children in both lists; every index is in range; each topic has at most one parent;
//! names are unique per namespace. Knows nothing of YAML or of where the text was written.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Index;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bounds::{
    ATTEMPTS_DEFAULT, BACKOFF_FACTOR_DEFAULT, BACKOFF_INITIAL_DEFAULT, BACKOFF_MAX_DEFAULT, LOG_LINES_DEFAULT,
    MEMORY_BYTES_DEFAULT, OUTPUT_BYTES_DEFAULT, STATE_BYTES_DEFAULT, TIME_DEFAULT, TRIAL_AT_MOST_DEFAULT,
    TRIAL_EVENTS_DEFAULT, TRIAL_TIME_DEFAULT, WAITING_BYTES_DEFAULT, WAITING_EVENTS_DEFAULT,
};
use super::data_schema::DataSchema;
use super::expression::{Condition, KeyExpression};
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::model::{Dedupe, Lifecycle, Time, TopicSettings};

/// A checked topology. Made by [`super::check`] only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The topics, with those for dead letters; parents before children.
    pub topics: Vec<TopicPlan>,
    /// The subscribers; parents before children.
    pub subscribers: Vec<SubscriberPlan>,
}

/// Position of a topic in [`Plan::topics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIndex(pub u32);

/// Position of a subscriber in [`Plan::subscribers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberIndex(pub u32);

/// A topic with all its settings filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPlan {
    pub namespace: String,
    /// Its name within the namespace.
    pub name: String,
    /// Its number of partitions, at least one.
    pub partitions: u32,
    /// What its ordering key is, if the topology says.
    pub key: Option<KeyExpression>,
    /// What makes two of its events the same, if the topology says; else their `source` and `id` do.
    pub id: Option<KeyExpression>,
    /// What the data of its events has to fit, if the topology says.
    pub schema: Option<DataSchema>,
    /// How it keeps its events.
    pub settings: TopicSettings,
    /// Which orders of states its keys may go through; any if the topology does not say.
    pub lifecycle: Option<LifecyclePlan>,
    /// Whether its events are recognised for as long as their keys are known.
    pub per_key: bool,
    /// How many events may wait in it, if the topology says.
    pub backlog: Option<BacklogPlan>,
    /// Who publishes to it; no subscriber if it is a root, or if another topic diverts to it.
    pub parent: Option<SubscriberIndex>,
    /// Where events go whose state may not follow that of their key, if its lifecycle diverts them.
    pub diverts_to: Option<TopicIndex>,
    /// The topic that diverts such events to it; nothing else publishes to it then.
    pub diverted_from: Option<TopicIndex>,
    /// Whose dead letters it has; such a topic is not written in the topology, and its parent is the same subscriber.
    pub dead_letters_of: Option<SubscriberIndex>,
    /// Its name within the namespace before it was renamed, if the topology says.
    pub renamed_from: Option<String>,
}

/// A guard of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecyclePlan {
    /// What the state of an event is.
    pub state: KeyExpression,
    /// The states and their order.
    pub lifecycle: Arc<Lifecycle>,
    /// What becomes of an event whose state may not follow that of its key now.
    pub out_of_order: OutOfOrder,
}

/// What becomes of an event whose state may not follow that of its key now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutOfOrder {
    /// It is refused.
    #[default]
    Refuse,
    /// It is held until it may follow.
    Hold(HoldPlan),
    /// It goes to another topic instead: [`TopicPlan::diverts_to`].
    Divert,
}

/// How events are held whose state may not follow now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldPlan {
    /// How long.
    pub period: Duration,
    /// Most of each partition.
    pub max: u64,
}

/// How many events may wait in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogPlan {
    /// Maximum number of events not yet consumed by the slowest subscriber, over all partitions; at least one.
    pub max_events: u64,
    /// What happens to a publish from outside when there are as many.
    pub when_full: WhenFull,
}

/// What happens to a publish that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    Reject,
    /// It waits.
    Wait,
}

/// A subscriber with all its settings filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriberPlan {
    pub namespace: String,
    /// Its name within the namespace.
    pub name: String,
    /// Its source topic.
    pub from: TopicIndex,
    /// The handler of its events.
    pub runs: SubscriberKind,
    /// Which events it takes, if not all; the others are skipped.
    pub when: Option<Condition>,
    /// Where outputs go: the ports in the order of the topology, each with its topic. Several may have the same.
    pub ports: Vec<(String, TopicIndex)>,
    /// Topic of events that failed for the last time or were rejected; none if it halts.
    pub dead_letters: Option<TopicIndex>,
    /// What its plugin is told.
    pub config: BTreeMap<String, ConfigValue>,
    /// What its plugin may use.
    pub limits: Limits,
    /// What its plugin may keep.
    pub state: StatePlan,
    /// When it tries again.
    pub retry: Retry,
    /// What happens after the last attempt.
    pub on_failure: OnFailure,
    /// Of how many events that failed for the last time a capsule is kept.
    pub capsules: u32,
    /// When the trial of a new version of its plugin ends.
    pub trial: TrialPlan,
    /// Limits of the retry queue of a lane.
    pub retry_queue: RetryQueue,
    /// Delivery guarantee.
    pub delivery: Delivery,
    /// How many events it takes per time, all lanes together; as many as there are if it does not say.
    pub rate: Option<Rate>,
    /// How many calls there are at the same time, all lanes together; one for each lane if it does not say.
    pub concurrency: Option<NonZeroU32>,
    /// How events are grouped for a call.
    pub batch: BatchPlan,
    /// Queue group: each event goes to one of its subscribers.
    pub queue_group: Option<String>,
    /// Time for which it keeps assigned events that are not in progress while it is paused or halted.
    pub queue_group_timeout: Duration,
    /// Where it begins when it is new.
    pub start: StartAt,
    /// Its name within the namespace before it was renamed, if the topology says.
    pub renamed_from: Option<String>,
}

/// Where a new subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With all that is kept of its topic.
    Earliest,
    /// Only new events.
    Latest,
    /// Events appended since a time.
    Time(Time),
}

/// What a subscriber does with events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriberKind {
    /// It calls a plugin.
    Plugin(PluginSource),
    /// It sends them to a URL. Refused by the check of this release.
    Push { url: String },
    /// It waits for a consumer outside. Refused by the check of this release.
    Pull,
}

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginSource {
    /// A source folder with a manifest, which `dev` and `build` build.
    Folder(PathBuf),
    /// A Wasm component.
    Wasm(PathBuf),
    /// A plugin that is stored already. Refused by the check of this release.
    Stored {
        name: String,
        /// Its digest, or the start of it, as lower-case hexadecimal digits.
        digest: String,
    },
}

/// A value that a plugin is told.
#[derive(Debug, Clone)]
pub enum ConfigValue {
    /// The value itself; numbers and booleans as they are written.
    Text(String),
    /// The value, into which variables of the environment were put: it may be a secret.
    Variable {
        text: String,
        /// As it is written, with `${NAME}`.
        written: String,
    },
    /// The file whose content is the value. Not necessarily there when the topology is checked.
    SecretFile(PathBuf),
}

/// The same where a plugin is told the same, however that is written.
impl PartialEq for ConfigValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::SecretFile(one), Self::SecretFile(other)) => one == other,
            (
                Self::Text(one) | Self::Variable { text: one, .. },
                Self::Text(other) | Self::Variable { text: other, .. },
            ) => one == other,
            (Self::SecretFile(_), _) | (_, Self::SecretFile(_)) => false,
        }
    }
}

impl Eq for ConfigValue {}

/// What a plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// Time per event.
    pub time: Duration,
    /// Output per event, in bytes.
    pub output_bytes: u64,
    /// Log lines per second, over all instances.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: MEMORY_BYTES_DEFAULT,
            time: TIME_DEFAULT,
            output_bytes: OUTPUT_BYTES_DEFAULT,
            log_lines_per_second: LOG_LINES_DEFAULT,
        }
    }
}

/// When a failed event is tried again: after `initial`, then each time after a pause `factor` times as long, up to
/// `max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts, counting the first; at least one.
    pub attempts: u32,
    /// The first pause.
    pub initial: Duration,
    /// The longest pause, at least `initial`.
    pub max: Duration,
    /// Growth of the pause, at least 1.
    pub factor: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: ATTEMPTS_DEFAULT,
            initial: BACKOFF_INITIAL_DEFAULT,
            max: BACKOFF_MAX_DEFAULT,
            factor: BACKOFF_FACTOR_DEFAULT,
        }
    }
}

/// What happens to an event after its last attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It goes to the topic for dead letters.
    #[default]
    DeadLetter,
    /// Its key waits until it is released. What a plugin rejects goes to the topic for dead letters.
    Park,
    /// Its lane stops, also for what a plugin rejects: there is no topic for dead letters.
    Halt,
}

/// When the trial of a new version of a plugin ends, where it does not fail: after `events` and `time`, whichever is
/// later, and after `at_most` however few events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialPlan {
    /// Events that it has to handle.
    pub events: u64,
    /// How long it lasts at least.
    pub time: Duration,
    /// How long it lasts at most; not less than `time`.
    pub at_most: Duration,
}

impl Default for TrialPlan {
    fn default() -> Self {
        TrialPlan { events: TRIAL_EVENTS_DEFAULT.into(), time: TRIAL_TIME_DEFAULT, at_most: TRIAL_AT_MOST_DEFAULT }
    }
}

/// Delivery guarantee.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Outputs, cursor and state are one unit.
    #[default]
    ExactlyOnce,
    /// The call, then the cursor.
    AtLeastOnce,
    /// The cursor, then the call: one attempt for each event, and one event for each call.
    AtMostOnce,
}

/// Limits of the retry queue of a lane: events that wait for another attempt or are parked. A lane that has no room for
/// another one stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryQueue {
    /// Most events, at least one.
    pub max_events: u32,
    /// Most bytes of them, at least those of the largest event.
    pub max_bytes: u64,
}

impl Default for RetryQueue {
    fn default() -> Self {
        RetryQueue { max_events: WAITING_EVENTS_DEFAULT, max_bytes: WAITING_BYTES_DEFAULT }
    }
}

/// How many events per time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The events, at least one.
    pub events: NonZeroU32,
    /// In each of these.
    pub per: Per,
}

/// What a rate counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Second,
    Minute,
    Hour,
}

impl Per {
    /// How long it is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 60 * 60,
        })
    }
}

impl Rate {
    /// Events per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.events.get()) / self.per.duration().as_secs_f64()
    }
}

/// How events are grouped for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlan {
    /// Most events, at least one and at most [`BATCH_EVENTS_MAX`].
    pub max_events: u32,
    /// Most bytes of their records, at most [`BATCH_BYTES_MAX`]; one event alone may have more.
    pub max_bytes: usize,
    /// How long to wait for more events than there are. Not for ones that could not be in the call.
    pub wait: Option<Duration>,
}

impl Default for BatchPlan {
    fn default() -> Self {
        BatchPlan { max_events: BATCH_EVENTS_MAX, max_bytes: BATCH_BYTES_MAX, wait: None }
    }
}

/// What a plugin may keep, in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatePlan {
    /// How long an entry is kept after its last change, in the time of events; until it is deleted if it does not say.
    pub ttl: Option<Duration>,
    /// Most bytes.
    pub max_bytes: u64,
}

impl Default for StatePlan {
    fn default() -> Self {
        StatePlan { ttl: None, max_bytes: STATE_BYTES_DEFAULT }
    }
}

impl TopicPlan {
    /// Whether a repeated publish within this time is recognised, whatever the number of events in between.
    pub fn recognises_within(&self, time: Duration) -> bool {
        let in_window = |dedupe: Dedupe| dedupe.count.is_none() && dedupe.window >= time;
        self.per_key || self.settings.dedupe.is_some_and(in_window)
    }

    /// The full name, `namespace/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether only producers outside publish to it.
    pub fn is_root(&self) -> bool {
        self.parent.is_none() && self.diverted_from.is_none()
    }
}

impl SubscriberPlan {
    /// The full name, `namespace/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Plan {
    /// The topics with their positions.
    pub fn topics(&self) -> impl Iterator<Item = (TopicIndex, &TopicPlan)> {
        (0..).map(TopicIndex).zip(&self.topics)
    }

    /// The subscribers with their positions.
    pub fn subscribers(&self) -> impl Iterator<Item = (SubscriberIndex, &SubscriberPlan)> {
        (0..).map(SubscriberIndex).zip(&self.subscribers)
    }

    /// For each topic, in their order, the subscribers that take from it.
    pub fn readers(&self) -> Vec<Vec<SubscriberIndex>> {
        let mut readers = vec![Vec::new(); self.topics.len()];
        for (index, subscriber) in self.subscribers() {
            if let Some(readers) = readers.get_mut(subscriber.from.0 as usize) {
                readers.push(index);
            }
        }
        readers
    }
}

impl Index<TopicIndex> for Plan {
    type Output = TopicPlan;

    #[expect(clippy::indexing_slicing, reason = "a plan has every index that the check put into it")]
    fn index(&self, index: TopicIndex) -> &TopicPlan {
        &self.topics[index.0 as usize]
    }
}

impl Index<SubscriberIndex> for Plan {
    type Output = SubscriberPlan;

    #[expect(clippy::indexing_slicing, reason = "a plan has every index that the check put into it")]
    fn index(&self, index: SubscriberIndex) -> &SubscriberPlan {
        &self.subscribers[index.0 as usize]
    }
}
