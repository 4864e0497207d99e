//! What runs at a moment: a plan with its numbers, and the lanes of each subscriber in a group of its own.
//!
//! Promises: what is assembled beside what runs takes over the groups that stay as they are, the very same lanes; the tasks
//! of the others are given back and run once they are spawned.
//! Relies on: whoever assembles has stopped the lanes that others take the place of.
//! Must not know: which subscribers change, who decided on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::numbered::Numbered;
use crate::dispatch::intake::backlog::Backlog;
use crate::dispatch::intake::publish::{self, Targets};
use crate::dispatch::lane::command::Command;
use crate::dispatch::lane::hidden::Seen;
use crate::dispatch::lane::status::Counters;
use crate::dispatch::lane::versions::Roster;
use crate::dispatch::rules;
use crate::engine::Numbers;
use crate::model::{SubscriberId, TopicId};
use crate::topology::{Plan, TopicIndex};

/// A task of a lane, not spawned yet.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What runs. Replaced as a whole.
pub(crate) struct Running {
    pub(crate) plan: Plan,
    pub(crate) numbers: Numbers,
    /// By subscriber.
    pub(crate) branches: Vec<Arc<Branch>>,
    /// What waits in front of each topic until it is due; none for those of dead letters.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

/// Lanes that start and stop together.
pub(crate) struct Group {
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A subscriber that runs.
pub(crate) struct Branch {
    pub(crate) roster: Arc<Roster>,
    pub(crate) counters: Arc<Counters>,
    /// To its lanes, by partition.
    pub(crate) commands: Vec<mpsc::Sender<Command>>,
    pub(crate) group: Group,
}

/// The queue of what comes later to a topic, and what is held for it.
pub(crate) struct Timer {
    pub(crate) seen: Arc<Seen>,
    /// Events that are due by the wall clock, but not by trusted time.
    pub(crate) awaits_clock: Arc<AtomicU64>,
    /// What holds events for it: who, the hidden topic, and what is seen of each partition.
    pub(crate) held: Option<Holder>,
    pub(crate) group: Group,
}

/// What holds events for a topic.
pub(crate) struct Holder {
    pub(crate) subscriber: SubscriberId,
    /// The hidden topic.
    pub(crate) topic: TopicId,
    /// By partition.
    pub(crate) seen: Vec<Arc<Seen>>,
}

/// What a subscriber is to run as.
pub(crate) enum Given {
    /// As it runs.
    Kept(Arc<Branch>),
    /// Its lanes start, with these versions; its counts go on from where they were.
    Started(Arc<Roster>, Option<Arc<Counters>>),
}

/// What is taken over.
pub(crate) struct Takes {
    /// By subscriber.
    pub(crate) branches: Vec<Given>,
    /// By topic.
    pub(crate) timers: Vec<Option<Arc<Timer>>>,
    /// By topic.
    pub(super) backlogs: Vec<Option<Arc<Backlog>>>,
}

impl Group {
    pub(super) fn below(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), tasks: TaskTracker::new() }
    }

    /// Lets its lanes end the call that they are at.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Lets its lanes end the call that they are at and commit it, and waits until they have.
    pub(crate) async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Running {
    pub(crate) fn numbered(&self) -> Numbered<'_> {
        Numbered::new(&self.plan, &self.numbers)
    }

    /// The topics as producers see them.
    pub(crate) fn targets(&self) -> Targets {
        let numbered = self.numbered();
        let targets = numbered.topics().zip(&self.backlogs).zip((0..).map(TopicIndex));
        let targets = targets.map(|(((topic, number), backlog), index)| publish::Target {
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
        });
        let refused = numbered.topics().zip((0..).map(TopicIndex)).filter_map(|((topic, _), index)| {
            Some(publish::Target {
                name: format!("{}{}", topic.label(), rules::delay::REFUSED_SUFFIX),
                topic: numbered.guard(index)?.refused,
                partitions: 1,
                parent: Some(format!("{}{}", topic.label(), rules::delay::SUFFIX)),
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
            })
        });
        Targets::new(targets.chain(refused))
    }
}
