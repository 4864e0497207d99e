//! Common parts of the lanes of hidden topics, which store events of a topic until they are appended to it.
//!
//! They take no commands, and are restarted like other lanes. `status` shows the number of their events, and their
//! failures.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::error::LaneError;
use super::failure::cut;
use super::supervisor::SupervisedParts;
use crate::engine::{Engine, Slices};
use crate::model::event::EventWriter;
use crate::model::{PartitionId, Record, RecordError, TopicId};

/// Status of such a lane.
#[derive(Debug)]
pub(crate) struct HiddenLaneStatus {
    count: AtomicU64,
    /// When the first event leaves, trusted time; `u64::MAX`: none, or not known yet.
    next_ns: AtomicU64,
    /// Why no events leave at the moment.
    failure: Mutex<Option<String>>,
}

impl Default for HiddenLaneStatus {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), next_ns: AtomicU64::new(u64::MAX), failure: Mutex::default() }
    }
}

impl HiddenLaneStatus {
    /// Number of stored events.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn set_count(&self, count: u64) {
        self.count.store(count, Ordering::Release);
    }

    /// When the first event leaves, trusted time.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        Some(self.next_ns.load(Ordering::Acquire)).filter(|next_ns| *next_ns != u64::MAX)
    }

    pub(super) fn set_next(&self, next_ns: Option<u64>) {
        self.next_ns.store(next_ns.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Why no events leave at the moment, if that is so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// The parts of such a lane; `own`: those that only one kind has.
pub(crate) struct HiddenLaneParts<E: Engine, O> {
    pub(crate) engine: E,
    pub(crate) session: E::Session,
    pub(crate) entries: E::Entries,
    /// The name of the topic.
    pub(crate) name: String,
    /// The partition of the hidden topic.
    pub(crate) partition: u32,
    /// Consequence of a failure, for the log.
    pub(crate) fails: &'static str,
    pub(crate) seen: Arc<HiddenLaneStatus>,
    pub(crate) stop: CancellationToken,
    pub(crate) own: O,
}

impl<E: Engine, O: Send> SupervisedParts for HiddenLaneParts<E, O> {
    type Session = E::Session;

    fn set_session(&mut self, session: E::Session) {
        self.session = session;
    }

    fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    fn told(&mut self) -> impl Future<Output = Command> + Send {
        std::future::pending()
    }

    fn log(&self, error: &LaneError, is_over: bool) {
        let (topic, partition, fails) = (&self.name, self.partition, self.fails);
        match is_over {
            true => tracing::error!(topic, partition, %error, "{fails}"),
            false => tracing::error!(topic, partition, %error, "{fails}; that is tried again"),
        }
    }

    fn show(&self, error: &LaneError, _: bool) {
        self.seen.set_failure(Some(error.to_string()));
    }
}

/// Appends a stored record to the topic of refused events, with the reason.
pub(super) fn refuse(emits: &mut Slices, topic: TopicId, record: &[u8], why: &str) -> Result<(), RecordError> {
    let parsed = Record::parse(record)?;
    tracing::warn!(event = parsed.view().map_or("", |view| view.id), why, "an event is refused by its topic");
    let pushed = emits.push(PartitionId { topic, partition: 0 }, |out| {
        Record { event: &[], ..parsed }.write(out)?;
        EventWriter::extend(out, parsed.event).attribute("wattlereason", &cut(why));
        Ok::<_, RecordError>(())
    });
    debug_assert!(pushed.is_ok(), "a key that was stored before fits again");
    Ok(())
}

/// Appends a stored record to a partition. Returns the index of its slice.
pub(crate) fn put(slices: &mut Slices, partition: PartitionId, record: &[u8]) -> usize {
    let pushed = slices.push(partition, |out| {
        out.extend_from_slice(record);
        Ok::<_, std::convert::Infallible>(())
    });
    debug_assert!(pushed.is_ok(), "a record that was stored before fits again");
    pushed.map_or(0, |(slice, _)| slice)
}

pub(crate) async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
