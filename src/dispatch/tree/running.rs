//! The running plan with its numbers, and one lane group per subscriber.
//!
//! Promises: an assembled plan reuses the groups of unchanged subscribers, with the very same lanes; the tasks of all
//! others are returned, and run when the caller spawns them. Relies on: the caller has stopped the lanes that are
//! replaced. Must not know: which subscribers change, who decides it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::numbered::NumberedPlan;
use crate::dispatch::intake::backlog::Backlog;
use crate::dispatch::intake::publish::{self, Targets};
use crate::dispatch::lane::command::Command;
use crate::dispatch::lane::hidden::HiddenLaneStatus;
use crate::dispatch::lane::status::Counters;
use crate::dispatch::lane::versions::VersionSlot;
use crate::dispatch::rules;
use crate::engine::Numbers;
use crate::model::{SubscriberId, TopicId};
use crate::topology::{Plan, TopicIndex};

/// The task of a lane, not spawned yet.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The state of a running tree; replaced as a whole.
pub(crate) struct TreeState {
    pub(crate) plan: Plan,
    pub(crate) numbers: Numbers,
    /// By subscriber.
    pub(crate) branches: Vec<Arc<RunningSubscriber>>,
    /// Delay queue and held events of each topic; `None` for dead-letter topics.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

/// Lanes that start and stop together.
pub(crate) struct LaneGroup {
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A running subscriber.
pub(crate) struct RunningSubscriber {
    pub(crate) roster: Arc<VersionSlot>,
    pub(crate) counters: Arc<Counters>,
    /// Command channels of its lanes, by partition.
    pub(crate) commands: Vec<mpsc::Sender<Command>>,
    pub(crate) group: LaneGroup,
}

/// The delay queue of a topic, and its held events.
pub(crate) struct Timer {
    pub(crate) seen: Arc<HiddenLaneStatus>,
    /// Events that are due by the wall clock, but not by trusted time.
    pub(crate) awaits_clock: Arc<AtomicU64>,
    /// The held events of the topic.
    pub(crate) held: Option<Holder>,
    pub(crate) group: LaneGroup,
}

/// The holder of a topic's held events.
pub(crate) struct Holder {
    pub(crate) subscriber: SubscriberId,
    /// The hidden topic.
    pub(crate) topic: TopicId,
    /// By partition.
    pub(crate) seen: Vec<Arc<HiddenLaneStatus>>,
}

/// How a subscriber enters the next plan.
pub(crate) enum SubscriberStart {
    /// Unchanged, with its lanes.
    Kept(Arc<RunningSubscriber>),
    /// Restarted with these versions; its counters continue if they are given.
    Started(Arc<VersionSlot>, Option<Arc<Counters>>),
}

/// What the next plan reuses of the running one.
pub(crate) struct ReusedParts {
    /// By subscriber.
    pub(crate) branches: Vec<SubscriberStart>,
    /// By topic.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

impl LaneGroup {
    pub(super) fn below(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), tasks: TaskTracker::new() }
    }

    /// Tells its lanes to stop after their current call.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops its lanes after their current call, and waits until they have committed it.
    pub(crate) async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl TreeState {
    pub(crate) fn numbered(&self) -> NumberedPlan<'_> {
        NumberedPlan::new(&self.plan, &self.numbers)
    }

    /// The topics as producers see them.
    pub(crate) fn targets(&self) -> Targets {
        let numbered = self.numbered();
        let targets = numbered.topics().zip(&self.backlogs).zip((0..).map(TopicIndex));
        let targets = targets.map(|(((topic, number), backlog), index)| publish::PublishTarget {
            name: topic.label(),
            topic: number,
            partitions: topic.partitions,
            parent: numbered.parent(topic),
            diverted_from: numbered.diverted_from(topic),
            key: topic.key.clone(),
            id: topic.id.clone(),
            schema: topic.schema.clone(),
            dedupes: topic.settings.dedupe.is_some(),
            per_key: topic.per_key,
            is_dead_letters: topic.dead_letters_of.is_some(),
            delayed: numbered.delayed(index).map(|(delayed, _)| delayed),
            guard: numbered.guard(index),
            backlog: backlog.clone(),
            is_internal: false,
        });
        let refused = numbered.topics().zip((0..).map(TopicIndex)).filter_map(|((topic, _), index)| {
            let name = format!("{}{}", topic.label(), rules::delay::REFUSED_SUFFIX);
            let parent = Some(format!("{}{}", topic.label(), rules::delay::SUFFIX));
            Some(publish::PublishTarget { parent, ..hidden_target(name, numbered.guard(index)?.refused) })
        });
        let audit = numbered.audit().map(|topic| publish::PublishTarget {
            is_internal: true,
            ..hidden_target(rules::audit::TOPIC.to_owned(), topic)
        });
        Targets::new(targets.chain(refused).chain(audit))
    }
}

/// A topic that no plan declares.
fn hidden_target(name: String, topic: TopicId) -> publish::PublishTarget {
    publish::PublishTarget {
        name,
        topic,
        partitions: 1,
        parent: None,
        diverted_from: None,
        key: None,
        id: None,
        schema: None,
        dedupes: false,
        per_key: false,
        is_dead_letters: false,
        delayed: None,
        guard: None,
        backlog: None,
        is_internal: false,
    }
}
