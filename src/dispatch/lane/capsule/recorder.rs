//! Records the calls of a lane, and makes capsules of the events that finally failed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Capsule, CapsuleFailure, RecordedRead, RecordedValue};
use crate::dispatch::lane::batch::{ParsedEvent, seed};
use crate::dispatch::lane::failure::LastFailure;
use crate::dispatch::lane::state::HandlerState;
use crate::engine::Entries;
use crate::model::Offset;
use crate::model::call::{Keys, PluginSettings, Reads, StateError, StateRead, StateView};
use crate::topology::SubscriberPlan;

/// Receiver of the lanes' capsules, once there is one.
pub(crate) type Sink = Arc<OnceLock<mpsc::Sender<Capsule>>>;

/// Makes the capsules of a lane.
pub(crate) struct Recorder {
    sink: Sink,
    keep: u32,
    /// Offsets of the events of the last call, and their reads.
    called: Vec<Offset>,
    reads: Arc<Mutex<Reads>>,
}

impl Recorder {
    pub(crate) fn new(sink: Sink, plan: &SubscriberPlan) -> Self {
        Self { sink, keep: plan.capsules, called: Vec::new(), reads: Arc::default() }
    }

    /// Starts recording a call. Returns the state for its plugin.
    pub(crate) fn begin<K: Entries>(
        &mut self,
        state: &Arc<HandlerState<K>>,
        run: &[ParsedEvent<'_>],
    ) -> Arc<dyn StateView> {
        if self.keep == 0 || self.sink.get().is_none() {
            return state.clone();
        }
        self.called.clear();
        self.called.extend(run.iter().map(|event| event.offset));
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = Reads::default();
        Arc::new(RecordingState { state: state.clone(), reads: self.reads.clone() })
    }

    /// Takes out the recording of the last call, while another version handles the same event.
    pub(crate) fn take(&mut self) -> CallReads {
        (std::mem::take(&mut self.called), std::mem::take(&mut self.reads))
    }

    /// Restores the recording that [`Self::take`] returned.
    pub(crate) fn put_back(&mut self, recorded: CallReads) {
        (self.called, self.reads) = recorded;
    }

    /// Sends a capsule for an event of the last call that finally failed, unless the receiver is too slow.
    pub(crate) fn save(&self, event: &ParsedEvent<'_>, failure: &LastFailure, attempt: u32, of: Source<'_>) {
        let Some(sink) = self.sink.get().filter(|_| self.keep > 0) else { return };
        // The failure is not the plugin's, so a replay cannot reproduce it.
        if matches!(failure.kind, "refused" | "when") {
            return;
        }
        let Ok(permit) = sink.try_reserve() else {
            tracing::debug!(subscriber = of.subscriber, offset = event.offset, "no capsule: too many at once");
            return;
        };
        let index = self.called.iter().position(|offset| *offset == event.offset);
        let reads = index.and_then(|index| {
            let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.of(u32::try_from(index).ok()?)
        });
        permit.send(Capsule {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            saved_ns: of.saved_ns,
            subscriber: of.subscriber.to_owned(),
            topic: of.topic.to_owned(),
            partition: of.partition,
            offset: event.offset,
            key: event.key.to_owned(),
            append_time_ns: event.append_time_ns,
            seed: blake3::Hash::from(seed(of.origin, Some(&event.view))).to_string(),
            attempt,
            event: event.view.encoded().to_vec(),
            digest: of.digest.to_owned(),
            wasm_digest: of.wasm_digest.map(|digest| blake3::Hash::from(digest).to_string()).unwrap_or_default(),
            ports: of.settings.ports.clone(),
            limits: of.settings.limits.into(),
            config: of.settings.config.clone(),
            secrets: Some(of.settings.secrets.clone()),
            state: reads.map(|reads| reads.into_iter().map(kept).collect()),
            failure: CapsuleFailure {
                kind: failure.kind.to_owned(),
                reason: failure.reason.clone(),
                backtrace: failure.backtrace.clone(),
            },
            keep: self.keep,
        });
    }
}

/// Offsets of the events of a call, and their reads.
pub(crate) type CallReads = (Vec<Offset>, Arc<Mutex<Reads>>);

/// Origin of a capsule's event.
pub(crate) struct Source<'a> {
    pub(crate) subscriber: &'a str,
    /// The subscriber's original name.
    pub(crate) origin: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) digest: &'a str,
    pub(crate) wasm_digest: Option<[u8; 32]>,
    /// Settings of the version that failed.
    pub(crate) settings: &'a PluginSettings,
    /// The present time, Unix nanoseconds.
    pub(crate) saved_ns: u64,
}

fn kept(read: StateRead) -> RecordedRead {
    match read {
        StateRead::Value { bucket, key, value } => {
            let value = value.map(|value| match std::str::from_utf8(&value) {
                Ok(text) => RecordedValue::Text(text.to_owned()),
                Err(_) => RecordedValue::Base64(value.to_vec()),
            });
            RecordedRead::Value { bucket, key, value }
        }
        StateRead::Keys { bucket, after, found: Keys { keys, looked_to } } => {
            RecordedRead::Keys { bucket, after, keys, looked_to }
        }
    }
}

/// The state of a lane, with a recorder of its reads.
struct RecordingState<K> {
    state: Arc<HandlerState<K>>,
    reads: Arc<Mutex<Reads>>,
}

impl<K: Entries> StateView for RecordingState<K> {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError> {
        self.state.get(bucket, key, time_ns)
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError> {
        self.state.keys(bucket, after, count, time_ns)
    }

    fn has_expired(&self, bucket: &str, written_ns: u64, time_ns: u64) -> bool {
        self.state.has_expired(bucket, written_ns, time_ns)
    }

    fn wants_reads(&self) -> bool {
        true
    }

    fn have_read(&self, reads: Reads) {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = reads;
    }
}
