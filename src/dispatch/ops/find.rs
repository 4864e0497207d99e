//! Finds subscribers by name, and sends commands to their lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::ControlError;
use crate::dispatch::lane::command::{Answer, Command, Refusal};
use crate::dispatch::rules::names::{nearest, shown};
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::running::Running;
use crate::engine::Engine;
use crate::model::{LaneId, SubscriberId, TopicId};
use crate::topology::{SubscriberIndex, SubscriberPlan};

/// Time limit for a lane's answer; a lane answers only between two calls.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A subscriber of the running tree.
pub(crate) struct Found {
    pub(crate) running: Arc<Running>,
    pub(crate) index: usize,
    pub(crate) number: SubscriberId,
    pub(crate) input: TopicId,
    pub(crate) partitions: u32,
}

impl<E: Engine> Tree<E> {
    pub(crate) fn subscriber(&self, name: &str) -> Result<Found, ControlError> {
        let running = self.shared.running();
        let plan = &running.plan;
        let named = plan.subscribers.iter().enumerate().filter(|(_, plan)| plan.label() == name || plan.name == name);
        let named: Vec<_> = named.collect();
        let (index, plan_of) = match named.as_slice() {
            [found] => *found,
            [] => {
                let names: Vec<_> = plan.subscribers.iter().map(|plan| plan.label()).collect();
                let nearest = nearest(names.iter().map(String::as_str), name);
                return Err(ControlError::UnknownSubscriber { subscriber: shown(name), nearest });
            }
            several => {
                let candidates = several.iter().map(|(_, plan)| plan.label()).collect();
                return Err(ControlError::AmbiguousSubscriber { subscriber: name.to_owned(), candidates });
            }
        };
        let unknown = || ControlError::UnknownSubscriber { subscriber: name.to_owned(), nearest: None };
        let number = *running.numbers.subscribers.get(index).ok_or_else(unknown)?;
        let from = plan_of.from.0 as usize;
        let input = *running.numbers.topics.get(from).ok_or_else(unknown)?;
        let partitions = plan.topics.get(from).ok_or_else(unknown)?.partitions;
        Ok(Found { running: running.clone(), index, number, input, partitions })
    }

    /// The full name of a subscriber.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn full_name(&self, name: &str) -> Result<String, ControlError> {
        Ok(self.subscriber(name)?.plan().label())
    }

    pub(crate) fn entries(&self, found: &Found, partition: u32) -> Result<E::Entries, ControlError> {
        let entries = self.shared.engine.entries(LaneId { subscriber: found.number, partition });
        entries.ok_or_else(|| found.unknown(partition))
    }

    /// Sends a command to a lane, and waits for its answer.
    pub(super) async fn tell(
        &self,
        found: &Found,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let told = self.hand_in(found, partition, command);
        let in_time = tokio::time::timeout(ANSWER_WITHIN, async { told.await?.answer().await }).await;
        in_time.unwrap_or_else(|_| Err(late(partition)))
    }

    /// Sends a command to a lane without waiting for the answer.
    pub(super) async fn hand_in(
        &self,
        found: &Found,
        partition: u32,
        command: impl FnOnce(Answer) -> Command,
    ) -> Result<Told, ControlError> {
        let branch = found.running.branches.get(found.index);
        let lane = branch
            .and_then(|branch| branch.commands.get(partition as usize))
            .ok_or_else(|| found.unknown(partition))?;
        let (sender, answer) = oneshot::channel();
        match lane.send(command(sender)).await {
            Ok(()) => Ok(Told { partition, answer }),
            Err(_) => Err(stopped(partition, "it has stopped; `wattle status` says why")),
        }
    }

    /// Number of partitions of a subscriber.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn partitions_of(&self, subscriber: &str) -> Result<u32, ControlError> {
        Ok(self.subscriber(subscriber)?.partitions)
    }
}

impl Found {
    /// The subscriber in the running plan.
    pub(crate) fn plan(&self) -> &SubscriberPlan {
        &self.running.plan[SubscriberIndex(self.index as u32)]
    }

    /// Returns an error for a partition that does not exist.
    pub(super) fn check(&self, partition: Option<u32>) -> Result<(), ControlError> {
        match partition {
            Some(partition) if partition >= self.partitions => Err(self.unknown(partition)),
            _ => Ok(()),
        }
    }

    fn unknown(&self, partition: u32) -> ControlError {
        let (subscriber, partitions) = (self.plan().label(), self.partitions);
        ControlError::UnknownPartition { subscriber, partition, partitions }
    }
}

/// A lane with a pending command.
pub(crate) struct Told {
    pub(crate) partition: u32,
    answer: oneshot::Receiver<Result<u64, Refusal>>,
}

impl Told {
    pub(crate) async fn answer(self) -> Result<u64, ControlError> {
        let partition = self.partition;
        match self.answer.await {
            Ok(answer) => answer.map_err(|refusal| ControlError::Refused { partition, refusal }),
            Err(_) => Err(stopped(partition, "it stopped meanwhile; `wattle status` says why")),
        }
    }
}

/// The error for a lane that did not answer in time.
pub(crate) fn late(partition: u32) -> ControlError {
    stopped(partition, "its current call does not end; a command that it has not started is cancelled")
}

/// The error for a lane that does not answer, with a reason.
pub(super) fn stopped(partition: u32, reason: &str) -> ControlError {
    ControlError::Refused { partition, refusal: Refusal::Stopped { reason: reason.to_owned() } }
}
