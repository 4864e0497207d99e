//! The lineage of one event: the tree of all events that were made from its root event.
//!
//! ```text
//!   find it by its id ──> up, parent by parent ──> down from there: for each event, the outcome at every
//!   newest first          one read each            subscriber of its topic, and its outputs
//! ```
//!
//! The tree makes it cheap: an event has one parent, whose place is stored with it, and all outputs of an event were
//! appended in one unit, at one time, after it. So a search only reads the topics below the event's own, from its
//! append time on, and once one output is found, only events with that append time.
//!
//! Promises: shows durable data; changes nothing and does not delay lanes. Reads a bounded number of events, and
//! reports if that was not enough ([`Trace::is_cut`]). Cannot know what is not stored: an event that was handled
//! without outputs, one that was dropped from the retry queue and one that a seek skipped look the same.

mod search;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::letters::dead_letter;
use crate::api::{FailedEvent, Handling, Origin, Trace, TraceOutcome, TraceQuery, TracedEvent};
use crate::dispatch::Tree;
use crate::dispatch::lane::done::done_key;
use crate::dispatch::lane::waiting::{self, Waiter, WaitingError};
use crate::dispatch::rules::names::NameError;
use crate::dispatch::rules::when;
use crate::dispatch::trace::search::{Budget, Search};
use crate::dispatch::tree::running::TreeState;
use crate::engine::{Engine, Entries, ReadError, StopReason};
use crate::model::{EventView, LaneId, Lineage, Offset, PartitionId, Place, SubscriberId, partition_of};
use crate::topology::{SubscriberPlan, TopicIndex};
use search::{FoundEvent, OutputSpread};

/// Maximum number of events of a trace, more than anybody reads.
const EVENTS_MAX: usize = 1_000;
/// Maximum size of a trace, since it is sent as one message.
const BYTES_MAX: usize = 4 << 20;
/// Maximum number of events read to find the requested event, and again to find the events made of it: some seconds
/// each.
const LOOKED_AT_MAX: u64 = 4_000_000;
/// Waiting events that are read at once.
const WAITING_PAGE: usize = 1_000;

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The topic does not exist.
    #[error(transparent)]
    Topic(#[from] NameError),
    /// No stored event matches.
    #[error("event `{id}` not found among retained events{}; `wattle pending` lists delayed and held \
        events", of_topic(topic.as_ref()))]
    NotFound {
        /// The requested id.
        id: String,
        /// The only topic that was searched.
        topic: Option<String>,
    },
    /// The searched part of the events contains no match.
    #[error(
        "the event `{id}` is not among the latest {looked_at} events: pass its topic (`--topic`) or its earliest time \
         (`--since`)"
    )]
    NotReached {
        /// The requested id.
        id: String,
        /// Number of events searched.
        looked_at: u64,
    },
    /// Stored data cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

fn of_topic(topic: Option<&String>) -> String {
    topic.map(|topic| format!(" of topic `{topic}`")).unwrap_or_default()
}

impl From<ReadError> for TraceError {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<WaitingError> for TraceError {
    fn from(error: WaitingError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl<E: Engine> Tree<E> {
    /// The lineage of an event: its ancestors, all their descendants, and the outcome of each.
    ///
    /// # Errors
    /// [`TraceError`].
    pub async fn trace(&self, of: &TraceQuery) -> Result<Trace, TraceError> {
        let search = Search { engine: &self.shared.engine };
        let found = self.find(&search, of).await?;
        let mut walk = Walk {
            tree: self,
            running: self.shared.running(),
            search,
            budget: Budget::new(LOOKED_AT_MAX),
            lanes: HashMap::new(),
        };
        walk.run(found).await
    }

    /// The latest event that matches.
    async fn find(&self, search: &Search<'_, E>, of: &TraceQuery) -> Result<FoundEvent, TraceError> {
        let only = of.topic.as_ref().map(|topic| self.topic(topic)).transpose()?.map(|topic| topic.number());
        let running = self.shared.running();
        let topics = running.plan.topics.iter().zip(&running.numbers.topics);
        let partitions =
            topics.filter(|(_, number)| only.is_none_or(|only| only == **number)).flat_map(|(topic, number)| {
                (0..topic.partitions).map(|partition| PartitionId { topic: *number, partition })
            });
        let mut ranges = Vec::new();
        for partition in partitions {
            ranges.push(search.range(partition, of.since_ns).await?);
        }
        let is_meant =
            |view: &EventView<'_>| view.id == of.id && of.source.as_ref().is_none_or(|source| source == view.source);
        let mut budget = Budget::new(LOOKED_AT_MAX);
        let found = search.latest(ranges, is_meant, &mut budget).await?;
        found.ok_or_else(|| match budget.is_spent() {
            true => TraceError::NotReached { id: of.id.clone(), looked_at: LOOKED_AT_MAX },
            false => TraceError::NotFound { id: of.id.clone(), topic: of.topic.clone() },
        })
    }
}

/// Builds a trace.
struct Walk<'a, E: Engine> {
    tree: &'a Tree<E>,
    running: Arc<TreeState>,
    search: Search<'a, E>,
    budget: Budget,
    lanes: HashMap<LaneId, LaneProgress>,
}

/// State of a lane. The position was read first: an event before it that is not waiting is handled.
struct LaneProgress {
    position: Offset,
    /// By offset.
    waiting: HashMap<Offset, Waiter>,
}

/// The events of a trace while it is built.
#[derive(Default)]
struct Events {
    trace: Trace,
    places: HashSet<Place>,
    /// Events whose outputs are still to be found, with their stored records.
    next: VecDeque<(usize, FoundEvent)>,
    bytes: usize,
}

impl Events {
    fn push(&mut self, found: FoundEvent, event: TracedEvent) -> usize {
        let index = self.trace.events.len();
        self.bytes += event.bytes();
        self.places.insert(found.place);
        self.trace.events.push(event);
        self.next.push_back((index, found));
        index
    }

    fn has_room(&self) -> bool {
        self.trace.events.len() < EVENTS_MAX && self.bytes < BYTES_MAX
    }
}

impl TracedEvent {
    /// Approximate size.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.id.len() + self.source.len() + self.r#type.len()
    }
}

fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<E: Engine> Walk<'_, E> {
    async fn run(&mut self, found: FoundEvent) -> Result<Trace, TraceError> {
        // The path from the oldest stored ancestor to the requested event is always shown.
        let mut line = vec![found];
        while let Some(parent) = match line.last() {
            Some(event) => self.parent(event).await?,
            None => None,
        } {
            line.push(parent);
        }
        let mut events = Events::default();
        let mut parent = None;
        for found in line.into_iter().rev() {
            let event = self.event(&found, parent)?;
            parent = Some(events.push(found, event));
        }
        events.trace.found = parent.unwrap_or(0);
        while let Some((index, found)) = events.next.pop_front() {
            self.follow(index, &found, &mut events).await?;
        }
        events.trace.is_cut |= self.budget.is_spent();
        Ok(events.trace)
    }

    /// The parent of an event, if it is still stored.
    async fn parent(&self, child: &FoundEvent) -> Result<Option<FoundEvent>, TraceError> {
        let Some(lineage) = child.lineage()? else { return Ok(None) };
        let Some((subscriber, _)) = self.subscriber(lineage.subscriber) else { return Ok(None) };
        let Some(topic) = self.number(subscriber.from) else { return Ok(None) };
        let partition = PartitionId { topic, partition: lineage.partition };
        Ok(self.search.at(Place { partition, offset: lineage.offset }).await?)
    }

    fn subscriber(&self, number: SubscriberId) -> Option<(&SubscriberPlan, usize)> {
        let running = &self.running;
        let index = running.numbers.subscribers.iter().position(|of| *of == number)?;
        Some((running.plan.subscribers.get(index)?, index))
    }

    fn number(&self, topic: TopicIndex) -> Option<crate::model::TopicId> {
        self.running.numbers.topics.get(topic.0 as usize).copied()
    }

    fn index(&self, found: &FoundEvent) -> Option<TopicIndex> {
        let topic = found.place.partition.topic;
        let index = self.running.numbers.topics.iter().position(|of| *of == topic)?;
        Some(TopicIndex(u32::try_from(index).ok()?))
    }

    fn digest(&self, lineage: Lineage) -> Option<String> {
        self.tree.shared.engine.digest(lineage.version).map(hex)
    }

    fn event(&self, found: &FoundEvent, parent: Option<usize>) -> Result<TracedEvent, TraceError> {
        let topic = self.index(found).and_then(|index| self.running.plan.topics.get(index.0 as usize));
        let (record, view) = found.parse()?;
        let origin = record.lineage.map(|lineage| Origin {
            parent,
            subscriber: self.subscriber(lineage.subscriber).map(|(subscriber, _)| subscriber.label()),
            digest: self.digest(lineage),
            is_dead_letter: topic.is_some_and(|topic| topic.dead_letters_of.is_some()),
        });
        Ok(TracedEvent {
            topic: topic.map(|topic| topic.label()).unwrap_or_default(),
            partition: found.place.partition.partition,
            offset: found.place.offset,
            append_time_ns: found.append_time_ns,
            key: record.key.to_owned(),
            id: view.id.to_owned(),
            source: view.source.to_owned(),
            r#type: view.r#type.to_owned(),
            origin,
            handlings: Vec::new(),
        })
    }

    /// Adds the outcome of an event at every subscriber of its topic, and queues its outputs.
    async fn follow(&mut self, index: usize, found: &FoundEvent, events: &mut Events) -> Result<(), TraceError> {
        let Some(topic) = self.index(found) else { return Ok(()) };
        let running = self.running.clone();
        let subscribers = running.plan.subscribers.iter().zip(&running.numbers.subscribers);
        for (subscriber, number) in subscribers.filter(|(subscriber, _)| subscriber.from == topic) {
            let lane = LaneId { subscriber: *number, partition: found.place.partition.partition };
            let (handling, made) = self.handling(subscriber, lane, found).await?;
            if let Some(event) = events.trace.events.get_mut(index) {
                event.handlings.push(handling);
            }
            for child in made {
                if events.places.contains(&child.place) {
                    continue; // it is on the path to the requested event
                }
                if !events.has_room() {
                    events.trace.is_cut = true;
                    return Ok(());
                }
                let event = self.event(&child, Some(index))?;
                events.push(child, event);
            }
        }
        Ok(())
    }

    /// The outcome of an event at a subscriber, and its outputs.
    async fn handling(
        &mut self,
        subscriber: &SubscriberPlan,
        lane: LaneId,
        found: &FoundEvent,
    ) -> Result<(Handling, Vec<FoundEvent>), TraceError> {
        let mut handling = Handling::of(subscriber.label());
        let seen = self.look(lane).await?;
        if found.place.offset >= seen.position {
            return Ok((handling, Vec::new()));
        }
        if let Some(waiter) = seen.waiting.get(&found.place.offset) {
            handling.waits(waiter);
            return Ok((handling, Vec::new()));
        }
        let made = self.outputs(subscriber, lane, found).await?;
        handling.outcome = TraceOutcome::Handled;
        handling.outputs = made.len() as u64;
        if let Some(lineage) = made.first().map(FoundEvent::lineage).transpose()?.flatten() {
            handling.digest = self.digest(lineage);
        }
        let letter = self.dead_letter(subscriber, lane, found).await?;
        if let (Some((_, letter, is_done)), true) = (&letter, made.is_empty()) {
            handling.given_up(letter, *is_done);
        } else if made.is_empty() && Self::is_passed_over(subscriber, found)? {
            handling.outcome = TraceOutcome::PassedOver;
        }
        Ok((handling, made.into_iter().chain(letter.map(|(found, ..)| found)).collect()))
    }

    fn is_passed_over(subscriber: &SubscriberPlan, found: &FoundEvent) -> Result<bool, TraceError> {
        let Some(condition) = &subscriber.when else { return Ok(false) };
        let (record, view) = found.parse()?;
        Ok(when::passes(condition, &view, Some(record.key)) == Ok(false))
    }

    /// The state of a lane, read once.
    async fn look(&mut self, lane: LaneId) -> Result<&LaneProgress, TraceError> {
        if !self.lanes.contains_key(&lane) {
            let engine = &self.tree.shared.engine;
            let position = engine.position(lane).unwrap_or(0);
            let entries = engine.entries(lane);
            let read = tokio::task::spawn_blocking(move || entries.map_or(Ok(HashMap::new()), |of| read_waiting(&of)));
            // the task only fails when the runtime shuts down
            let waiting = read.await.map_err(|_| StopReason::Closed)??;
            self.lanes.insert(lane, LaneProgress { position, waiting });
        }
        self.lanes.get(&lane).ok_or_else(|| TraceError::Unreadable("a lane is gone".to_owned()))
    }

    /// The outputs that a lane made of an event.
    async fn outputs(
        &mut self,
        subscriber: &SubscriberPlan,
        lane: LaneId,
        found: &FoundEvent,
    ) -> Result<Vec<FoundEvent>, TraceError> {
        let plan = &self.running.plan;
        let diverted = |topic: TopicIndex| plan.topics.get(topic.0 as usize)?.diverts_to;
        let ports = subscriber.ports.iter().map(|(_, topic)| *topic);
        let mut topics: Vec<TopicIndex> = ports.flat_map(|topic| [Some(topic), diverted(topic)]).flatten().collect();
        topics.sort_unstable_by_key(|topic| topic.0);
        topics.dedup();
        let key = found.parse()?.0.key;
        let mut partitions = Vec::new();
        for topic in topics {
            let (Some(plan), Some(number)) = (self.running.plan.topics.get(topic.0 as usize), self.number(topic))
            else {
                continue;
            };
            // An inherited key leads to this partition. A plugin may set another key, so the others are searched as
            // well.
            let first = partition_of(key, plan.partitions);
            let others = (0..plan.partitions).filter(|other| *other != first);
            let of_topic = |partition| PartitionId { topic: number, partition };
            partitions.extend(std::iter::once(first).chain(others).map(of_topic));
        }
        let made = self.search.made_of(lane, found, &partitions, OutputSpread::OneUnit, &mut self.budget).await?;
        Ok(made)
    }

    /// The last dead letter of an event, and whether it was redriven or dropped.
    async fn dead_letter(
        &mut self,
        subscriber: &SubscriberPlan,
        lane: LaneId,
        found: &FoundEvent,
    ) -> Result<Option<(FoundEvent, FailedEvent, bool)>, TraceError> {
        let Some(topic) = subscriber.dead_letters else { return Ok(None) };
        let (Some(plan), Some(number)) = (self.running.plan.topics.get(topic.0 as usize), self.number(topic)) else {
            return Ok(None);
        };
        let key = found.parse()?.0.key;
        let partition = PartitionId { topic: number, partition: partition_of(key, plan.partitions) };
        let mut letters = self.search.made_of(lane, found, &[partition], OutputSpread::Any, &mut self.budget).await?;
        let Some(last) = letters.pop() else { return Ok(None) };
        let Some(letter) = dead_letter(partition.partition, last.place.offset, &last.record) else {
            return Ok(None);
        };
        let done = done_key(partition.partition, last.place.offset);
        let is_done = match self.tree.shared.engine.entries(lane) {
            Some(entries) => entries.get(&done)?.is_some(),
            None => false,
        };
        Ok(Some((last, letter, is_done)))
    }
}

/// The waiting events of a lane, without the fields that a trace does not show.
fn read_waiting(entries: &impl Entries) -> Result<HashMap<Offset, Waiter>, WaitingError> {
    let (mut all, mut from) = (HashMap::new(), 0);
    loop {
        let page = waiting::list(entries, from, WAITING_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        from = last + 1;
        all.extend(page.into_iter().map(|(_, waiter)| (waiter.offset, Waiter { backtrace: None, ..waiter })));
    }
}

impl Handling {
    /// The outcome before any attempt.
    fn of(subscriber: String) -> Self {
        let (failure, reason) = (String::new(), String::new());
        Self {
            subscriber,
            outcome: TraceOutcome::NotYet,
            outputs: 0,
            attempts: None,
            digest: None,
            failure,
            reason,
            due_ns: None,
        }
    }

    fn failed(&mut self, attempts: u32, digest: &str, [failure, reason]: [&str; 2]) {
        self.attempts = Some(attempts);
        self.digest = Some(digest.to_owned()).filter(|digest| !digest.is_empty());
        self.failure = failure.to_owned();
        self.reason = reason.to_owned();
    }

    fn waits(&mut self, waiter: &Waiter) {
        self.failed(waiter.attempts, &waiter.digest, [&waiter.failure, &waiter.reason]);
        self.outcome = if waiter.is_parked { TraceOutcome::Parked } else { TraceOutcome::Waiting };
        self.due_ns = Some(waiter.due_ns).filter(|due_ns| *due_ns > 0 && !waiter.is_parked);
    }

    fn given_up(&mut self, letter: &FailedEvent, is_done: bool) {
        self.failed(letter.attempts, &letter.digest, [&letter.failure, &letter.reason]);
        self.outcome = if is_done { TraceOutcome::DeadLetterDone } else { TraceOutcome::DeadLetter };
    }
}
