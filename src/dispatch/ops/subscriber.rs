//! A subscriber of the running tree, looked up by its name once, and commands to its lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::ControlError;
use crate::dispatch::lane::command::{Answer, Command, Refusal};
use crate::dispatch::lane::outputs::Emitter;
use crate::dispatch::rules::names::{NameError, NameKind};
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::numbered::emitter;
use crate::dispatch::tree::running::{RunningSubscriber, TreeState};
use crate::engine::Engine;
use crate::model::{LaneId, SubscriberId, TopicId, VersionId};
use crate::topology::{SubscriberIndex, SubscriberPlan};

/// Time limit for a lane's answer; a lane answers only between two calls.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A subscriber as it runs at its look-up. Cheap to clone.
///
/// It is for one operation: once an `apply` has replaced its lanes, they refuse commands ([`ControlError::Refused`]).
pub struct Subscriber<E> {
    pub(super) tree: Tree<E>,
    pub(super) running: Arc<TreeState>,
    pub(super) branch: Arc<RunningSubscriber>,
    index: usize,
    pub(super) number: SubscriberId,
    pub(super) input: TopicId,
    partitions: u32,
}

impl<E> Clone for Subscriber<E> {
    fn clone(&self) -> Self {
        let Self { tree, running, branch, index, number, input, partitions } = self;
        let (tree, running, branch) = (tree.clone(), running.clone(), branch.clone());
        Self { tree, running, branch, index: *index, number: *number, input: *input, partitions: *partitions }
    }
}

impl<E: Engine> Tree<E> {
    /// The subscriber with this full name, or with this short name if it is unique among the namespaces.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn subscriber(&self, name: &str) -> Result<Subscriber<E>, NameError> {
        let running = self.shared.running();
        let subscribers = || running.plan.subscribers.iter();
        let named = subscribers().enumerate().filter(|(_, plan)| plan.label() == name || plan.name == name);
        let unknown = || {
            let names: Vec<_> = subscribers().map(SubscriberPlan::label).collect();
            NameError::unknown(NameKind::Subscriber, name, names.iter().map(String::as_str))
        };
        let (index, plan) = match named.collect::<Vec<_>>().as_slice() {
            [found] => *found,
            [] => return Err(unknown()),
            several => {
                let candidates = several.iter().map(|(_, plan)| plan.label()).collect();
                return Err(NameError::Ambiguous { kind: NameKind::Subscriber, name: name.to_owned(), candidates });
            }
        };
        let from = plan.from.0 as usize;
        let number = *running.numbers.subscribers.get(index).ok_or_else(unknown)?;
        let branch = running.branches.get(index).ok_or_else(unknown)?.clone();
        let input = *running.numbers.topics.get(from).ok_or_else(unknown)?;
        let partitions = running.plan.topics.get(from).ok_or_else(unknown)?.partitions;
        Ok(Subscriber { tree: self.clone(), running: running.clone(), branch, index, number, input, partitions })
    }
}

impl<E: Engine> Subscriber<E> {
    /// Its full name.
    pub fn name(&self) -> String {
        self.plan().label()
    }

    /// The full name of the topic that it reads.
    pub fn from(&self) -> String {
        self.running.plan[self.plan().from].label()
    }

    /// Number of its lanes, one for each partition of its topic.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn engine(&self) -> &E {
        self.tree.engine()
    }

    /// Its declaration in the running plan.
    pub(super) fn plan(&self) -> &SubscriberPlan {
        &self.running.plan[SubscriberIndex(self.index as u32)]
    }

    pub(super) fn lane(&self, partition: u32) -> LaneId {
        LaneId { subscriber: self.number, partition }
    }

    pub(super) fn entries(&self, partition: u32) -> Result<E::Entries, ControlError> {
        self.engine().entries(self.lane(partition)).ok_or_else(|| self.unknown(partition))
    }

    /// The emitter of one of its lanes.
    pub(super) fn emitter(&self, partition: u32) -> Option<Emitter> {
        emitter(&self.running.numbered(), self.index, self.plan(), &self.branch.roster, partition)
    }

    /// Its stable version.
    pub(super) fn stable_version(&self) -> VersionId {
        self.branch.roster.assignment().proven.number
    }

    /// Sends a command to a lane, and waits for its answer.
    pub(super) async fn tell(
        &self,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let told = self.hand_in(partition, command);
        let in_time = tokio::time::timeout(ANSWER_WITHIN, async { told.await?.answer().await }).await;
        in_time.unwrap_or_else(|_| Err(late(partition)))
    }

    /// Sends a command to a lane without waiting for the answer.
    pub(super) async fn hand_in(
        &self,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<PendingCommand, ControlError> {
        let lane = self.branch.commands.get(partition as usize).ok_or_else(|| self.unknown(partition))?;
        let (sender, answer) = oneshot::channel();
        match lane.send(command(sender)).await {
            Ok(()) => Ok(PendingCommand { partition, answer }),
            Err(_) => Err(stopped(partition, "it has stopped; `wattle status` says why")),
        }
    }

    /// Returns an error for a partition that does not exist.
    pub(super) fn check(&self, partition: Option<u32>) -> Result<(), ControlError> {
        match partition {
            Some(partition) if partition >= self.partitions => Err(self.unknown(partition)),
            _ => Ok(()),
        }
    }

    fn unknown(&self, partition: u32) -> ControlError {
        ControlError::UnknownPartition { subscriber: self.name(), partition, partitions: self.partitions }
    }
}

/// A lane with a pending command.
pub(super) struct PendingCommand {
    pub(super) partition: u32,
    answer: oneshot::Receiver<Result<u64, Refusal>>,
}

impl PendingCommand {
    pub(super) async fn answer(self) -> Result<u64, ControlError> {
        let partition = self.partition;
        match self.answer.await {
            Ok(answer) => answer.map_err(|refusal| ControlError::Refused { partition, refusal }),
            Err(_) => Err(stopped(partition, "it stopped meanwhile; `wattle status` says why")),
        }
    }
}

/// The error for a lane that did not answer in time.
pub(super) fn late(partition: u32) -> ControlError {
    stopped(partition, "its current call does not end; a command that it has not started is cancelled")
}

/// The error for a lane that does not answer, with a reason.
pub(super) fn stopped(partition: u32, reason: &str) -> ControlError {
    ControlError::Refused { partition, refusal: Refusal::Stopped { reason: reason.to_owned() } }
}
