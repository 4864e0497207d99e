//! The parts of a lane, which stay when it is loaded again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::capsule::Recorder;
use super::claims::Share;
use super::command::Command;
use super::error::LaneError;
use super::flow::{Backoff, Flow};
use super::outputs::Emitter;
use super::status::Counters;
use super::supervisor::SupervisedParts;
use super::versions::VersionSlot;
use crate::api::LaneState;
use crate::dispatch::intake::backlog::Backlog;
use crate::engine::{Entries, Session, SessionError};
use crate::model::Offset;
use crate::topology::{BatchPlan, Condition, Delivery, OnFailure, RetryQueue, StatePlan, SubscriberPlan};

/// How a lane treats events, from its topology.
#[derive(Debug, Clone)]
pub(in crate::dispatch) struct Policy {
    pub(in crate::dispatch) when: Option<Condition>,
    pub(in crate::dispatch) on_failure: OnFailure,
    pub(in crate::dispatch) delivery: Delivery,
    pub(in crate::dispatch) retry_queue: RetryQueue,
    pub(in crate::dispatch) batch: BatchPlan,
    pub(in crate::dispatch) state: StatePlan,
    pub(in crate::dispatch) queue_group: Option<String>,
    pub(in crate::dispatch) queue_group_timeout: Duration,
}

impl Policy {
    pub(in crate::dispatch) fn of(plan: &SubscriberPlan) -> Self {
        let SubscriberPlan {
            when,
            on_failure,
            delivery,
            retry_queue,
            batch,
            state,
            queue_group,
            queue_group_timeout,
            ..
        } = plan;
        Self {
            when: when.clone(),
            on_failure: *on_failure,
            delivery: *delivery,
            retry_queue: *retry_queue,
            batch: *batch,
            state: *state,
            queue_group: queue_group.clone(),
            queue_group_timeout: *queue_group_timeout,
        }
    }
}

/// Returns the first stored offset of a partition of dead letters.
pub(in crate::dispatch) type FirstOffsets = Arc<dyn Fn(u32) -> Offset + Send + Sync>;

/// The engine's clock of append times, Unix nanoseconds.
pub(in crate::dispatch) type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The parts of a lane.
pub(in crate::dispatch) struct LaneParts<S, K> {
    pub(in crate::dispatch) session: S,
    pub(in crate::dispatch) entries: K,
    pub(in crate::dispatch) roster: Arc<VersionSlot>,
    pub(in crate::dispatch) emitter: Emitter,
    pub(in crate::dispatch) backoff: Backoff,
    pub(in crate::dispatch) policy: Policy,
    /// Its membership in a claim group.
    pub(in crate::dispatch) share: Option<Share<S, K>>,
    pub(in crate::dispatch) flow: Arc<Flow>,
    /// Backlogs of the topics that it publishes to, if they are limited.
    pub(in crate::dispatch) children: Vec<Arc<Backlog>>,
    /// Start offsets of its dead-letter topic, if it has one.
    pub(in crate::dispatch) letters: Option<FirstOffsets>,
    pub(in crate::dispatch) partition: u32,
    pub(in crate::dispatch) subscriber: Arc<str>,
    pub(in crate::dispatch) clock: WallClock,
    pub(in crate::dispatch) counters: Arc<Counters>,
    pub(in crate::dispatch) recorder: Recorder,
    pub(in crate::dispatch) commands: mpsc::Receiver<Command>,
    pub(in crate::dispatch) stop: CancellationToken,
}

impl<S, K> LaneParts<S, K> {
    /// The time that is stored with an event, Unix nanoseconds; never 0, which stands for no time there.
    pub(super) fn now_ns(&self) -> u64 {
        (self.clock)().max(1)
    }
}

impl<S: Session, K: Entries> SupervisedParts for LaneParts<S, K> {
    type Session = S;

    fn set_session(&mut self, session: S) {
        self.session = session;
    }

    fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    async fn told(&mut self) -> Command {
        match self.commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    fn log(&self, error: &LaneError, is_over: bool) {
        let (subscriber, partition) = (&*self.subscriber, self.partition);
        match is_over {
            true => tracing::error!(subscriber, partition, %error, "the lane has stopped"),
            false => tracing::error!(subscriber, partition, %error, "the lane cannot go on; it is started again"),
        }
    }

    fn show(&self, error: &LaneError, is_over: bool) {
        if !matches!(error, LaneError::Stopped | LaneError::Session(SessionError::Stopped(_))) {
            self.counters.failed(&error.to_string());
        }
        self.counters.set_lane(self.partition, if is_over { LaneState::Stopped } else { LaneState::Failing });
    }
}
