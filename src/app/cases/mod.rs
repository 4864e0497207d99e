//! Runs the cases of test files: the real lanes and plugins of a topology on an in-memory engine.
//!
//! Promises: cases are isolated; the clock of a case is set by it; nothing waits for pauses. So a case gives the same
//! result on every machine under any load, and in both call modes if its plugins are deterministic. Differences from a
//! bus: pauses between attempts, rates and `batch.wait` take no time. A case can run with one partition per topic, so
//! that the state of subscribers is in one place, and with the planned number. Then each partition gets the given
//! state, and the result has the changes of all of them. Must not know: files, terminals, how results are printed.

mod compare;
mod handlers;
mod merged;
mod repeat;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};

use super::StartError;
use crate::api::{FailedEvent, Filter, LaneState, ListPosition, StateEntry};
use crate::deploy::{self, PluginError};
use crate::dispatch::capsule::{CapsuleFailure, ReplayError, ReplayOutcome};
use crate::dispatch::{Capsule, ControlError, PublishError, Subscriber, Tree};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Blueprint, Engine, ReadBudget, ReadError, TopicSpec};
use crate::model::call::Output;
use crate::model::units::show_duration;
use crate::model::{Event, PartitionId, Record};
use crate::topology::cases::{Case, CaseInput, End, GivenEvent, State};
use crate::topology::{Plan, SubscriberIndex, SubscriberPlan, TopicIndex, TopicPlan};
use crate::wasm::{Host, HostOptions, Plugin};
pub use compare::{DiffLine, Mismatch, compare, diff_lines};
pub use handlers::CallMode;
use handlers::CasePlugin;
use merged::MergedState;
pub use repeat::differences;

/// How often to check whether everything is handled.
const AT_REST_EVERY: Duration = Duration::from_millis(1);
/// The pause between attempts: without one, a lane whose plugin does not start would spin.
const PAUSE: Duration = Duration::from_millis(1);
/// How long lanes may take to end once they are idle.
const DRAIN: Duration = Duration::from_secs(10);

/// An environment to run cases.
#[derive(Debug)]
pub struct TestBed {
    runtime: Runtime,
    host: Host,
}

/// The number of partitions per topic in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    One,
    /// As in the topology.
    AsPlanned,
}

/// A topology with its plugins, ready to run cases.
#[derive(Debug)]
pub struct LoadedTopology {
    plan: Plan,
    plugins: Vec<Plugin>,
}

/// The result of a case.
#[derive(Debug, Clone, Default)]
pub struct CaseResult {
    /// The events in each output topic, in order.
    pub topics: BTreeMap<TopicIndex, Vec<TopicEvent>>,
    /// The state of the subscribers, by bucket and key.
    pub state: BTreeMap<SubscriberIndex, Buckets>,
    /// The events that were not handled, by subscriber.
    pub failures: Vec<CaseFailure>,
    /// The ids of refused events, if refusals are allowed, with the reasons.
    pub refused: Vec<(String, String)>,
}

/// The state of a subscriber, by bucket and key.
pub type Buckets = BTreeMap<String, BTreeMap<String, Bytes>>;

/// An event in a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicEvent {
    pub key: String,
    pub event: Event,
}

/// An event that failed finally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseFailure {
    pub subscriber: SubscriberIndex,
    /// The event's id.
    pub event: String,
    /// The kind of failure.
    pub kind: String,
    pub reason: String,
    /// Number of attempts.
    pub attempts: u32,
    pub end: End,
}

/// Why a case has no result.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The tree does not start.
    #[error(transparent)]
    Start(#[from] crate::dispatch::StartError),
    /// A given event is refused.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Given state cannot be stored, or the result cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A topic cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A topic contains invalid bytes.
    #[error("what is in `{topic}` cannot be read: {reason}")]
    Unreadable { topic: String, reason: String },
    /// It does not come to an end.
    #[error(
        "it did not come to an end within {}{}",
        show_duration(*.after),
        said(last_failure.as_deref())
    )]
    Endless {
        /// The time limit.
        after: Duration,
        last_failure: Option<String>,
    },
    /// A lane has stopped.
    #[error("`{subscriber}` has stopped{}", said(last_failure.as_deref()))]
    Stopped {
        /// The subscriber of the lane.
        subscriber: String,
        last_failure: Option<String>,
    },
    /// The case needs a capsule.
    #[error("the capsule of this case is missing")]
    NoCapsule,
    /// The topology does not have the capsule's subscriber.
    #[error("the capsule is of subscriber `{subscriber}`, which the topology does not have")]
    OtherSubscriber { subscriber: String },
    /// The result depends on unknown state.
    #[error("the plugin reads {what}, which is not in the capsule: what it is there for cannot be known")]
    NotInCapsule {
        /// The missing part of the state.
        what: String,
    },
    /// The capsule cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

fn said(last_failure: Option<&str>) -> String {
    last_failure.map(|failure| format!("; the last failure was: {failure}")).unwrap_or_default()
}

impl TestBed {
    /// Sets up the sandbox. `code_cache` is the folder for compiled plugins; `None` disables the cache.
    ///
    /// # Errors
    /// The machine lacks threads, or features that the sandbox needs.
    pub fn new(code_cache: Option<PathBuf>) -> Result<Self, StartError> {
        let options = HostOptions { cache_folder: code_cache, keeps_functions: true, ..HostOptions::default() };
        Ok(Self { runtime: super::runtime("case")?, host: Host::new(options)? })
    }

    /// Registers the plugins of a topology. `components` are their files, one per subscriber.
    ///
    /// # Errors
    /// The errors of all plugins.
    pub fn load(&self, plan: Plan, components: &[PathBuf]) -> Result<LoadedTopology, Vec<PluginError>> {
        let plugins = deploy::register(&self.host, &plan, components)?;
        Ok(LoadedTopology { plan, plugins })
    }

    /// Runs a case with a time limit. Blocks.
    ///
    /// # Errors
    /// It has no result.
    pub fn run(
        &self,
        loaded: &LoadedTopology,
        case: &Case,
        (partitions, mode): (Partitions, CallMode),
        deadline: Duration,
    ) -> Result<CaseResult, CaseError> {
        let CaseInput::Events { subscriber, state, at_ns, events } = &case.given else {
            return Err(CaseError::NoCapsule);
        };
        let (plan, plugins) = match subscriber {
            None => (loaded.plan.clone(), loaded.plugins.clone()),
            Some(only) => {
                let plugins = loaded.plugins.get(only.0 as usize).cloned();
                (alone(&loaded.plan, *only), plugins.into_iter().collect())
            }
        };
        let plan = unhurried(plan, partitions, mode);
        plugins.iter().for_each(Plugin::begin_afresh);
        let handlers = plugins.into_iter().map(|plugin| CasePlugin { plugin, mode }).collect();
        let may_refuse = case.expected.refused.is_some();
        let run = Run { whole: &loaded.plan, plan: &plan, deadline, began: Instant::now(), may_refuse };
        self.runtime.block_on(run.run(handlers, state, *at_ns, events, self.runtime.handle()))
    }
}

impl TestBed {
    /// Replays a capsule with the plugin of its subscriber in the topology. Blocks.
    ///
    /// # Errors
    /// It has no result.
    pub fn replay(&self, loaded: &LoadedTopology, capsule: &Capsule, mode: CallMode) -> Result<CaseResult, CaseError> {
        let other = || CaseError::OtherSubscriber { subscriber: capsule.subscriber.clone() };
        let mut subscribers = loaded.plan.subscribers().zip(&loaded.plugins);
        let is_it = |((_, plan), _): &((SubscriberIndex, &SubscriberPlan), &Plugin)| plan.label() == capsule.subscriber;
        let ((index, plan), plugin) = subscribers.find(is_it).ok_or_else(other)?;
        plugin.begin_afresh();
        let replayed = self.runtime.block_on(capsule.replay(&CasePlugin { plugin: plugin.clone(), mode }))?;
        if let Some((bucket, key)) = replayed.unknown.first() {
            let what = match key {
                Some(key) => format!("the key `{key}` of bucket `{bucket}`"),
                None => format!("the keys of bucket `{bucket}`"),
            };
            return Err(CaseError::NotInCapsule { what });
        }
        let mut happened = CaseResult::default();
        happened.topics.extend(plan.ports.iter().map(|(_, topic)| (*topic, Vec::new())));
        let failed = |failure: CapsuleFailure, event: String| CaseFailure {
            subscriber: index,
            event,
            kind: failure.kind,
            reason: failure.reason,
            attempts: capsule.attempt,
            end: End::DeadLetter,
        };
        let event = Event::decode(&capsule.event).map(|event| event.id).unwrap_or_default();
        let handled = match replayed.outcome {
            ReplayOutcome::Handled(handled) => handled,
            ReplayOutcome::Reproduced => {
                happened.failures.push(failed(capsule.failure.clone(), event));
                return Ok(happened);
            }
            ReplayOutcome::FailedOtherwise(failure) => {
                happened.failures.push(failed(failure, event));
                return Ok(happened);
            }
        };
        let committed =
            self.runtime.block_on(self.committed(&loaded.plan, index, plugin, capsule, &handled.outputs))?;
        match committed {
            Err(reason) => {
                let failure = CapsuleFailure { kind: "refused".to_owned(), reason, backtrace: None };
                happened.failures.push(failed(failure, event));
                return Ok(happened);
            }
            Ok(committed) => {
                for (port, record) in committed {
                    let Some((_, topic)) = plan.ports.get(port) else { continue };
                    let sent = sent(&record).map_err(|reason| {
                        let topic = loaded.plan[*topic].label();
                        CaseError::Unreadable { topic, reason }
                    })?;
                    happened.topics.entry(*topic).or_default().push(sent);
                }
            }
        }
        let buckets = happened.state.entry(index).or_default();
        for (bucket, key, value) in capsule.values() {
            buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), value);
        }
        for write in handled.writes {
            let values = buckets.entry(write.bucket).or_default();
            match write.value {
                Some(value) => drop(values.insert(write.key, value)),
                None => drop(values.remove(&write.key)),
            }
        }
        Ok(happened)
    }

    /// The events that a lane of the subscriber would make of outputs.
    async fn committed(
        &self,
        plan: &Plan,
        index: SubscriberIndex,
        plugin: &Plugin,
        capsule: &Capsule,
        outputs: &[Output],
    ) -> Result<Result<Vec<(usize, Bytes)>, String>, CaseError> {
        let engine = MemoryEngine::default();
        engine.hold_clock(capsule.append_time_ns);
        let handlers = vec![CasePlugin { plugin: plugin.clone(), mode: CallMode::Batches }];
        let tree = Tree::start(engine.clone(), &alone(plan, index), handlers, self.runtime.handle()).await?;
        let committed = tree.subscriber(&capsule.subscriber).map(|of| of.would_commit(capsule, outputs));
        tree.drain(DRAIN).await;
        drop(engine.close().await);
        Ok(committed.map_err(ControlError::from)??)
    }
}

impl LoadedTopology {
    /// The checked topology that the cases run on.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether a topic has several partitions.
    pub fn is_partitioned(&self) -> bool {
        self.plan.topics.iter().any(|topic| topic.partitions > 1)
    }
}

/// The plan of one subscriber alone, whose input becomes a root.
fn alone(plan: &Plan, only: SubscriberIndex) -> Plan {
    let mut subscriber = plan[only].clone();
    let mut topics: Vec<(TopicIndex, TopicPlan)> = Vec::new();
    let mut take = |index: TopicIndex, is_root: bool| match topics.iter().position(|(known, _)| *known == index) {
        Some(at) => TopicIndex(at as u32),
        None => {
            let mut topic = plan[index].clone();
            if is_root && !topic.is_root() {
                topic.settings.dedupe = None;
            }
            topic.parent = (!is_root).then_some(SubscriberIndex(0));
            topic.diverted_from = None;
            // events given to a dead-letter root are dead letters, with the bus's attributes
            topic.dead_letters_of = topic.dead_letters_of.map(|_| SubscriberIndex(0));
            topics.push((index, topic));
            TopicIndex(topics.len() as u32 - 1)
        }
    };
    subscriber.from = take(subscriber.from, true);
    for (_, topic) in &mut subscriber.ports {
        *topic = take(*topic, false);
    }
    subscriber.dead_letters = subscriber.dead_letters.map(|topic| take(topic, false));
    for at in 0..topics.len() {
        let next = TopicIndex(topics.len() as u32);
        let Some((_, topic)) = topics.get_mut(at) else { break };
        if let Some(to) = topic.diverts_to.replace(next) {
            let diverted = TopicPlan { diverted_from: Some(TopicIndex(at as u32)), ..plan[to].clone() };
            topics.push((to, diverted));
        } else {
            topic.diverts_to = None;
        }
    }
    Plan { topics: topics.into_iter().map(|(_, topic)| topic).collect(), subscribers: vec![subscriber] }
}

/// The plan without settings that only take time, and with calls of one event where the mode says so.
fn unhurried(mut plan: Plan, partitions: Partitions, mode: CallMode) -> Plan {
    for topic in plan.topics.iter_mut().filter(|_| partitions == Partitions::One) {
        topic.partitions = 1;
    }
    for subscriber in &mut plan.subscribers {
        (subscriber.retry.initial, subscriber.retry.max) = (PAUSE, PAUSE);
        subscriber.rate = None;
        subscriber.batch.wait = None;
        if mode == CallMode::Alone {
            subscriber.batch.max_events = 1;
        }
    }
    plan
}

/// The end of a case.
struct CaseEnd {
    /// Halted subscribers.
    halted: Vec<String>,
    refused: Vec<(String, String)>,
}

/// A running case.
struct Run<'p> {
    /// The topology, whose indices the results use.
    whole: &'p Plan,
    /// The part of it that runs.
    plan: &'p Plan,
    deadline: Duration,
    began: Instant,
    /// Events may be refused; then each is published separately.
    may_refuse: bool,
}

impl Run<'_> {
    async fn run(
        &self,
        handlers: Vec<CasePlugin>,
        state: &State,
        at_ns: u64,
        events: &[GivenEvent],
        runtime: &Handle,
    ) -> Result<CaseResult, CaseError> {
        let engine = MemoryEngine::default();
        engine.hold_clock(at_ns);
        let tree = Tree::start(engine.clone(), self.plan, handlers, runtime).await?;
        let ran = self.events(&tree, &engine, state, at_ns, events).await;
        // Ended lanes have committed everything; and none may continue after the case.
        tree.drain(DRAIN).await;
        let CaseEnd { halted, refused } = ran?;
        let happened = self.happened(&tree, &engine, state, &halted).await;
        drop(engine.close().await);
        Ok(CaseResult { refused, ..happened? })
    }

    /// Publishes the given events, and waits until everything is handled.
    async fn events(
        &self,
        tree: &Tree<MemoryEngine>,
        engine: &MemoryEngine,
        state: &State,
        at_ns: u64,
        events: &[GivenEvent],
    ) -> Result<CaseEnd, CaseError> {
        for (subscriber, buckets) in state {
            let entries: Vec<StateEntry> = buckets
                .iter()
                .flat_map(|(bucket, values)| values.iter().map(move |(key, value)| (bucket, key, value)))
                .filter_map(|(bucket, key, value)| {
                    let (bucket, key, value) = (bucket.clone(), key.clone(), bytes_of(value)?);
                    Some(StateEntry { bucket, key, written_ns: at_ns, value })
                })
                .collect();
            let subscriber = tree.subscriber(&self.whole[*subscriber].label()).map_err(ControlError::from)?;
            for partition in 0..subscriber.partitions() {
                subscriber.state().import(partition, &entries).await?;
            }
        }
        let mut refused = Vec::new();
        // Events that can be published together are, so that plugins get batches.
        let goes_along = |one: &GivenEvent, next: &GivenEvent| one.topic == next.topic && next.at_ns.is_none();
        for events in events.chunk_by(|one, next| !self.may_refuse && goes_along(one, next)) {
            let Some(first) = events.first() else { continue };
            if let Some(at_ns) = first.at_ns {
                self.rest(tree, engine, at_ns).await?;
                engine.hold_clock(at_ns);
            }
            let encoded: Vec<Bytes> = events.iter().map(|given| given.event.encode()).collect();
            match tree.publisher().publish(&self.whole[first.topic].label(), &encoded, None).await {
                Err(PublishError::Event { error, .. }) if self.may_refuse => {
                    refused.push((first.event.id.clone(), error.to_string()));
                }
                published => drop(published?),
            }
        }
        self.rest(tree, engine, u64::MAX).await?;
        let subscribers = tree.snapshot().subscribers;
        if let Some(stopped) = subscribers.iter().find(|status| status.lanes.contains(&LaneState::Stopped)) {
            let (subscriber, last_failure) = (stopped.name.clone(), stopped.last_failure.clone());
            return Err(CaseError::Stopped { subscriber, last_failure });
        }
        let halted = subscribers.into_iter().filter(|status| status.lanes.contains(&LaneState::Halted));
        Ok(CaseEnd { halted: halted.map(|status| status.name).collect(), refused })
    }

    /// Waits until everything is handled. If only delayed events are left, time advances to the next of them, up to
    /// `until_ns`.
    async fn rest(&self, tree: &Tree<MemoryEngine>, engine: &MemoryEngine, until_ns: u64) -> Result<(), CaseError> {
        while !tree.is_at_rest() {
            match tree.next_due_ns() {
                Some(due_ns) if due_ns > until_ns => return Ok(()),
                Some(due_ns) => engine.hold_clock(due_ns),
                None => {}
            }
            if self.began.elapsed() > self.deadline {
                let last_failure = tree.snapshot().subscribers.into_iter().find_map(|status| status.last_failure);
                return Err(CaseError::Endless { after: self.deadline, last_failure });
            }
            tokio::time::sleep(AT_REST_EVERY).await;
        }
        Ok(())
    }

    async fn happened(
        &self,
        tree: &Tree<MemoryEngine>,
        engine: &MemoryEngine,
        given: &State,
        halted: &[String],
    ) -> Result<CaseResult, CaseError> {
        let mut happened = CaseResult::default();
        let topics: Vec<_> = self.plan.topics.iter().map(|topic| (topic.label(), topic)).collect();
        let specs = topics.iter().map(|(name, topic)| TopicSpec {
            name: name.clone(),
            partitions: topic.partitions,
            settings: topic.settings,
            lifecycle: None, // nothing more is appended
        });
        let blueprint = Blueprint { topics: specs.collect(), ..Blueprint::default() };
        let numbers = engine.apply(&blueprint).await.map_err(crate::dispatch::StartError::from)?;
        let sent_to = topics.iter().zip(numbers.topics).filter(|((_, topic), _)| !topic.is_root());
        for ((label, plan), topic) in sent_to {
            let Some((index, _)) = self.whole.topics().find(|(_, topic)| topic.label() == *label) else { continue };
            let sent = happened.topics.entry(index).or_default();
            for partition in 0..plan.partitions {
                sent.extend(read_all(engine, label, PartitionId { topic, partition }).await?);
            }
        }
        for subscriber in &self.plan.subscribers {
            let label = subscriber.label();
            let Some((index, _)) = self.whole.subscribers().find(|(_, known)| known.label() == label) else { continue };
            let given = given.get(&index);
            let mut merged = MergedState::default();
            let asked = tree.subscriber(&label).map_err(ControlError::from)?;
            for partition in 0..asked.partitions() {
                merged.add(kept(&asked, partition)?, given);
            }
            happened.state.insert(index, merged.buckets);
            let mut failed = |found: Vec<FailedEvent>, end: End| {
                happened.failures.extend(found.into_iter().map(|event| CaseFailure {
                    subscriber: index,
                    event: event.id,
                    kind: event.failure,
                    reason: event.reason,
                    attempts: event.attempts,
                    end,
                }));
            };
            let mut from = Some(ListPosition::default());
            while let Some(position) = from.filter(|_| subscriber.dead_letters.is_some()) {
                let page = asked.dead_letters().list(&Filter::default(), position, 1_000).await?;
                failed(page.found, End::DeadLetter);
                from = page.next;
            }
            let mut from = Some(ListPosition::default());
            while let Some(position) = from {
                let page = asked.retry_queue().list(&Filter::default(), position, 1_000)?;
                let (parked, others): (Vec<_>, Vec<_>) = page.found.into_iter().partition(|event| event.is_parked);
                failed(parked, End::Parked);
                // Events without an attempt wait for an earlier one of their key, which is not their failure.
                let tried = others.into_iter().filter(|event| event.attempts > 0 && halted.contains(&label));
                failed(tried.collect(), End::Halted);
                from = page.next;
            }
        }
        Ok(happened)
    }
}

/// The state of a subscriber in a partition.
fn kept(subscriber: &Subscriber<MemoryEngine>, partition: u32) -> Result<Buckets, CaseError> {
    let (mut buckets, mut behind): (Buckets, Option<(String, String)>) = (Buckets::new(), None);
    loop {
        let position = behind.as_ref().map(|(bucket, key)| (bucket.as_str(), key.as_str()));
        let page = subscriber.state().list(partition, position, 1_000)?;
        let Some(last) = page.last() else { return Ok(buckets) };
        behind = Some((last.bucket.clone(), last.key.clone()));
        for StateEntry { bucket, key, value, .. } in page {
            buckets.entry(bucket).or_default().insert(key, value);
        }
    }
}

async fn read_all(engine: &MemoryEngine, label: &str, partition: PartitionId) -> Result<Vec<TopicEvent>, CaseError> {
    let unreadable = |reason: String| CaseError::Unreadable { topic: label.to_owned(), reason };
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let chunks = engine.read(partition, from, ReadBudget { events: 1_000, bytes: 1 << 20 }).await?;
        let Some(last) = chunks.last() else { return Ok(all) };
        from = last.end_offset();
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            all.push(sent(stored.record).map_err(unreadable)?);
        }
    }
}

/// Decodes a stored event.
fn sent(record: &[u8]) -> Result<TopicEvent, String> {
    let record = Record::parse(record).map_err(|error| error.to_string())?;
    let event = Event::decode(record.event).map_err(|error| error.to_string())?;
    Ok(TopicEvent { key: record.key.to_owned(), event })
}

/// A value as a handler stores it: strings as text, others as JSON, `null` as absent.
fn bytes_of(value: &Value) -> Option<Bytes> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        other => Some(other.to_string().into()),
    }
}
