//! Capsules: an event that failed for the last time, with all that its plugin saw, so that the same failure can be had
//! anywhere.
//!
//! ```text
//! "wattle capsule 1 " BLAKE3 of what follows, hexadecimal, "\n"
//! a JSON object; it grows by fields that have a default
//! ```
//!
//! A plugin is a function of its event and of the state that it reads. So what is kept is the event with its place, time,
//! attempt and random seed, what was read, and what the plugin was told: configuration (without secrets), ports, limits.
//!
//! Promises: what is read back is what was written, or is refused. Making one costs a lane a copy; who takes them out of the
//! lane's hands may be slow, and then some are not made.
//! Must not know: files, where a plugin's component comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::batch::{Context, Held, Parsed, call_events, content_type, seed};
use super::failure::LastFailure;
use super::state::LaneState;
use super::waiting::now_ns;
use crate::engine::Entries;
use crate::model::call::{
    Batch, EventContext, HandleError, Handled, Handler, InstanceError, Keys, Limits, LogLevel, PluginSettings, Reads,
    StateError, StateRead, StateView,
};
use crate::model::{Event, Offset, Record};
use crate::topology::SubscriberPlan;

/// What capsules begin with: their format's name and version.
const HEAD: &str = "wattle capsule 1 ";
const HEAD_OF_ANY: &str = "wattle capsule ";

/// An event that failed for the last time, and all that its plugin saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capsule {
    /// The release of Wattle that made it.
    pub release: String,
    /// When it was made, Unix nanoseconds.
    pub saved_ns: u64,
    /// Full name of the subscriber.
    pub subscriber: String,
    /// Full name of the topic that it consumes.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the event in it.
    pub offset: Offset,
    /// Its key.
    pub key: String,
    /// When it was appended, engine time, Unix nanoseconds: what its clocks read.
    pub append_time_ns: u64,
    /// What its random bytes follow from, hexadecimal.
    pub seed: String,
    /// Which attempt failed.
    pub attempt: u32,
    /// The event with all its attributes, in the CloudEvents protobuf format.
    #[serde(with = "base64_bytes")]
    pub event: Vec<u8>,
    /// The version that failed, hexadecimal digest.
    pub digest: String,
    /// The hash of its component, hexadecimal; empty where it has none.
    #[serde(default)]
    pub wasm_digest: String,
    /// Its ports.
    pub ports: Vec<String>,
    /// Its limits.
    pub limits: CapsuleLimits,
    /// What it was told; `None` for secrets and values from variables, which are not kept.
    #[serde(default)]
    pub config: BTreeMap<String, Option<String>>,
    /// The names of its configuration that are secrets, and so no part of the version; `None` where that was not kept yet.
    #[serde(default)]
    pub secrets: Option<BTreeSet<String>>,
    /// What it has read of its state; `None`: more than is remembered.
    #[serde(default)]
    pub state: Option<Vec<KeptRead>>,
    /// How it failed.
    pub failure: CapsuleFailure,
    /// How many capsules of this subscriber are kept.
    #[serde(skip)]
    pub keep: u32,
}

/// The limits of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleLimits {
    /// Memory of an instance.
    pub memory_bytes: u64,
    /// Time for an event.
    pub time_ns: u64,
    /// Output of an event.
    pub output_bytes: u64,
    /// Handles of an instance; `None` where that was not kept yet.
    #[serde(default)]
    pub handles: Option<u32>,
    /// Log lines; `None` where that was not kept yet.
    #[serde(default)]
    pub log_lines_per_second: Option<u32>,
}

impl From<Limits> for CapsuleLimits {
    fn from(limits: Limits) -> Self {
        let Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second } = limits;
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (handles, log_lines_per_second) = (Some(handles), Some(log_lines_per_second));
        Self { memory_bytes, time_ns, output_bytes, handles, log_lines_per_second }
    }
}

/// How an event failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleFailure {
    /// `reject`, `retry`, or the kind of a call's failure.
    pub kind: String,
    /// Why, in the plugin's or the sandbox's words.
    pub reason: String,
    /// Where in the plugin it happened, innermost first, one function a line.
    #[serde(default)]
    pub backtrace: Option<String>,
}

/// Something that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptRead {
    /// What is under a key.
    Value {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The value; none: there was nothing.
        value: Option<KeptValue>,
    },
    /// Keys of a bucket.
    Keys {
        /// The bucket.
        bucket: String,
        /// Those behind this one.
        after: Option<String>,
        /// The keys.
        keys: Vec<String>,
        /// There may be more behind this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looked_to: Option<String>,
    },
}

/// A value: as a text where it is one, so that people can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptValue {
    /// A text.
    Text(String),
    /// Any bytes.
    Base64(#[serde(with = "base64_bytes")] Vec<u8>),
}

impl KeptValue {
    /// The value's bytes.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            KeptValue::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            KeptValue::Base64(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Why bytes are not a capsule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// They are something else.
    #[error("it is not a capsule: those begin with `{HEAD_OF_ANY}`")]
    Other,
    /// It was made by a later release.
    #[error("it is a capsule of format {version}, and this release reads format 1: use a later one")]
    Later {
        /// Its version.
        version: String,
    },
    /// It is not as it was written.
    #[error("it is damaged: what is in it does not have the checksum that it names")]
    Damaged,
    /// What is in it is not what should be.
    #[error("it cannot be understood: {0}")]
    Malformed(String),
}

impl Capsule {
    /// The capsule as bytes.
    pub fn encode(&self) -> Vec<u8> {
        // It has no map with keys that are not texts, so it always has a JSON text.
        let mut body = serde_json::to_vec_pretty(self).unwrap_or_default();
        body.push(b'\n');
        let mut encoded = format!("{HEAD}{}\n", blake3::hash(&body)).into_bytes();
        encoded.append(&mut body);
        encoded
    }

    /// The capsule that bytes are.
    ///
    /// # Errors
    /// [`CapsuleError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CapsuleError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(CapsuleError::Other)?;
        let (head, body) = bytes.split_at_checked(end + 1).ok_or(CapsuleError::Other)?;
        let head = std::str::from_utf8(head).map_err(|_| CapsuleError::Other)?.trim_end();
        let rest = head.strip_prefix(HEAD_OF_ANY).ok_or(CapsuleError::Other)?;
        let Some(checksum) = head.strip_prefix(HEAD) else {
            let version = rest.split(' ').next().unwrap_or_default().to_owned();
            return Err(CapsuleError::Later { version });
        };
        if blake3::hash(body).to_hex().as_str() != checksum {
            return Err(CapsuleError::Damaged);
        }
        let capsule: Self = serde_json::from_slice(body).map_err(|error| CapsuleError::Malformed(error.to_string()))?;
        // What a run relies on.
        Event::decode(&capsule.event).map_err(|error| CapsuleError::Malformed(error.to_string()))?;
        capsule.seed().ok_or_else(|| CapsuleError::Malformed("its seed is not one".to_owned()))?;
        Ok(capsule)
    }

    /// The limits as the sandbox takes them.
    pub fn plugin_limits(&self) -> Limits {
        let CapsuleLimits { memory_bytes, time_ns, output_bytes, handles, log_lines_per_second } = self.limits;
        let (time, others) = (Duration::from_nanos(time_ns), Limits::default());
        let handles = handles.unwrap_or(others.handles);
        let log_lines_per_second = log_lines_per_second.unwrap_or(others.log_lines_per_second);
        Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second }
    }

    /// The values that were read and were there.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, Bytes)> {
        self.state.iter().flatten().filter_map(|read| match read {
            KeptRead::Value { bucket, key, value: Some(value) } => {
                Some((bucket.as_str(), key.as_str(), value.to_bytes()))
            }
            KeptRead::Value { .. } | KeptRead::Keys { .. } => None,
        })
    }

    /// Its event as a lane has it.
    pub(crate) fn held(&self) -> Result<Held, ReplayError> {
        let mut record = Vec::new();
        let written = Record { key: &self.key, lineage: None, event: &self.event }.write(&mut record);
        written.map_err(|error| ReplayError::Capsule(CapsuleError::Malformed(error.to_string())))?;
        let (offset, append_time_ns) = (self.offset, self.append_time_ns);
        // what it read had not expired, whatever its trusted time was
        Ok(Held { offset, append_time_ns, trusted_time_ns: append_time_ns, record: record.into() })
    }

    fn seed(&self) -> Option<[u8; 32]> {
        blake3::Hash::from_hex(&self.seed).ok().map(|hash| *hash.as_bytes())
    }

    /// Gives the event to a handler as it was given when it failed: alone, at its time, over what was read then.
    ///
    /// # Errors
    /// When the handler could not be called at all. How the event fails is no error.
    pub async fn replay(&self, handler: &impl Handler) -> Result<Replayed, ReplayError> {
        let malformed = |error: String| ReplayError::Capsule(CapsuleError::Malformed(error));
        let held = self.held()?;
        let held = Arc::new(vec![held]);
        let run = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>();
        let run = run.map_err(|error| malformed(error.to_string()))?;
        let events = call_events(&run, self.attempt);
        let subscriber: Arc<str> = self.subscriber.as_str().into();
        let context = Context { origin: subscriber.clone(), subscriber, held: held.clone(), first: 0 };
        let seed = self.seed().ok_or_else(|| malformed("its seed is not one".to_owned()))?;
        let state = Arc::new(ReadState::of(self.state.as_deref().unwrap_or_default()));
        let batch = Batch {
            topic: &self.topic,
            partition: self.partition,
            content_type: content_type(&run),
            events: &events,
            context: Arc::new(Seeded { context, seed }),
            state: state.clone(),
        };
        let failure = match handler.handle(batch).await {
            Ok(handled) => match handled.unfinished() {
                None => return Ok(Replayed { outcome: Outcome::Handled(handled), unknown: state.unknown() }),
                Some((_, verdict)) => {
                    let LastFailure { kind, reason, .. } = LastFailure::of_verdict(verdict);
                    CapsuleFailure { kind: kind.to_owned(), reason, backtrace: None }
                }
            },
            Err(HandleError::Call(error)) => CapsuleFailure {
                kind: error.kind.as_str().to_owned(),
                reason: error.message,
                backtrace: error.backtrace,
            },
            Err(HandleError::Instance(error)) => return Err(ReplayError::Instance(error)),
        };
        let outcome = if failure == self.failure { Outcome::Reproduced } else { Outcome::FailedOtherwise(failure) };
        Ok(Replayed { outcome, unknown: state.unknown() })
    }
}

/// Why a capsule has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no instance of the plugin.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// What is in it makes no sense.
    #[error(transparent)]
    Capsule(CapsuleError),
}

/// What came of a capsule.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// How it went.
    pub outcome: Outcome,
    /// What was read and is not in the capsule, as bucket and key, or a bucket alone whose keys were listed. It was taken for
    /// nothing being there.
    pub unknown: Vec<(String, Option<String>)>,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It failed in the same way: the same kind, words and backtrace.
    Reproduced,
    /// It failed in another way.
    FailedOtherwise(CapsuleFailure),
    /// It was handled.
    Handled(Handled),
}

/// The context of an event whose seed is what it was.
struct Seeded {
    context: Context,
    seed: [u8; 32],
}

impl EventContext for Seeded {
    fn attributes(&self, index: u32) -> String {
        self.context.attributes(index)
    }

    fn seed(&self, _: u32) -> [u8; 32] {
        self.seed
    }

    fn log(&self, index: Option<u32>, level: LogLevel, context: &str, line: &str) {
        self.context.log(index, level, context, line);
    }
}

/// The state as far as it was read.
struct ReadState {
    values: BTreeMap<(String, String), Option<Bytes>>,
    /// By bucket, the keys that are known to be there.
    keys: BTreeMap<String, BTreeSet<String>>,
    /// By bucket and by the key that they are behind: what was listed.
    listings: BTreeMap<(String, Option<String>), Keys>,
    unknown: Mutex<BTreeSet<(String, Option<String>)>>,
}

impl ReadState {
    fn of(reads: &[KeptRead]) -> Self {
        let mut state = Self {
            values: BTreeMap::new(),
            keys: BTreeMap::new(),
            listings: BTreeMap::new(),
            unknown: Mutex::default(),
        };
        for read in reads {
            match read {
                KeptRead::Value { bucket, key, value } => {
                    let value = value.as_ref().map(KeptValue::to_bytes);
                    if value.is_some() {
                        state.keys.entry(bucket.clone()).or_default().insert(key.clone());
                    }
                    state.values.insert((bucket.clone(), key.clone()), value);
                }
                KeptRead::Keys { bucket, after, keys, looked_to } => {
                    let found = Keys { keys: keys.clone(), looked_to: looked_to.clone() };
                    state.listings.insert((bucket.clone(), after.clone()), found);
                    state.keys.entry(bucket.clone()).or_default().extend(keys.iter().cloned());
                }
            }
        }
        state
    }

    fn unknown(&self) -> Vec<(String, Option<String>)> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The keys behind one, as many as that, and whether all that there can be between them are known: the listings that
    /// were looked at go from one to the next without a gap.
    fn known(&self, bucket: &str, after: Option<&str>, count: usize) -> (Vec<String>, bool) {
        let keys = self.keys.get(bucket).into_iter().flatten();
        let keys: Vec<_> =
            keys.filter(|key| after.is_none_or(|after| key.as_str() > after)).take(count).cloned().collect();
        // Up to where it has to be known: where as many were found as were asked for, not behind the last one.
        let last = keys.last().filter(|_| keys.len() == count).map(String::as_str);
        let mut to = after;
        loop {
            if last.is_some_and(|last| to.is_some_and(|to| to >= last)) {
                return (keys, true);
            }
            let of_bucket = self.listings.iter().filter(|((of, _), _)| of == bucket);
            let goes_on = of_bucket.filter(|((_, from), found)| {
                let begins = from.is_none() || from.as_deref() <= to;
                begins && found.looked_to.as_deref().is_none_or(|looked_to| to.is_none_or(|to| looked_to > to))
            });
            // the one that reaches farthest; to the end of all keys where it names none
            let Some(farthest) =
                goes_on.map(|(_, found)| found.looked_to.as_deref()).max_by_key(|to| (to.is_none(), *to))
            else {
                return (keys, false);
            };
            match farthest {
                None => return (keys, true),
                farthest => to = farthest,
            }
        }
    }

    fn note(&self, bucket: &str, key: Option<&str>) {
        let place = (bucket.to_owned(), key.map(str::to_owned));
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
    }
}

impl StateView for ReadState {
    fn get(&self, bucket: &str, key: &str, _: u64) -> Result<Option<Bytes>, StateError> {
        match self.values.get(&(bucket.to_owned(), key.to_owned())) {
            Some(value) => Ok(value.clone()),
            None => {
                self.note(bucket, Some(key));
                Ok(None)
            }
        }
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, _: u64) -> Result<Keys, StateError> {
        let listed = self.listings.get(&(bucket.to_owned(), after.map(str::to_owned)));
        if let Some(found) = listed.filter(|found| found.keys.len() <= count) {
            return Ok(found.clone());
        }
        let (keys, is_known) = self.known(bucket, after, count);
        if !is_known {
            self.note(bucket, None);
        }
        Ok(Keys::first(&mut keys.into_iter(), count))
    }
}

/// Where lanes hand their capsules to, once somebody wants them.
pub(crate) type Sink = Arc<OnceLock<mpsc::Sender<Capsule>>>;

/// Makes the capsules of a lane.
pub(crate) struct Recorder {
    sink: Sink,
    keep: u32,
    /// The offsets of the events of the last call, and what those have read.
    called: Vec<Offset>,
    reads: Arc<Mutex<Reads>>,
}

impl Recorder {
    pub(crate) fn new(sink: Sink, plan: &SubscriberPlan) -> Self {
        Self { sink, keep: plan.capsules, called: Vec::new(), reads: Arc::default() }
    }

    /// A call begins. The state as its plugin gets it.
    pub(crate) fn begin<K: Entries>(&mut self, state: &Arc<LaneState<K>>, run: &[Parsed<'_>]) -> Arc<dyn StateView> {
        if self.keep == 0 || self.sink.get().is_none() {
            return state.clone();
        }
        self.called.clear();
        self.called.extend(run.iter().map(|event| event.offset));
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = Reads::default();
        Arc::new(Recording { state: state.clone(), reads: self.reads.clone() })
    }

    /// What the last call has read, taken out while another version is asked about the same event.
    pub(crate) fn take(&mut self) -> Recorded {
        (std::mem::take(&mut self.called), std::mem::take(&mut self.reads))
    }

    /// Puts it back: that call is the one which counts.
    pub(crate) fn put_back(&mut self, recorded: Recorded) {
        (self.called, self.reads) = recorded;
    }

    /// An event of the last call has failed for the last time: hands a capsule on, unless too many are on their way.
    pub(crate) fn save(&self, event: &Parsed<'_>, failure: &LastFailure, attempt: u32, of: Source<'_>) {
        let Some(sink) = self.sink.get().filter(|_| self.keep > 0) else { return };
        // No plugin did that, so no plugin does it again.
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
            saved_ns: now_ns(),
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

/// The offsets of the events of a call, and what those have read.
pub(crate) type Recorded = (Vec<Offset>, Arc<Mutex<Reads>>);

/// Whose event it is.
pub(crate) struct Source<'a> {
    pub(crate) subscriber: &'a str,
    /// What it is called for good.
    pub(crate) origin: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) digest: &'a str,
    pub(crate) wasm_digest: Option<[u8; 32]>,
    /// What the version that failed was made with.
    pub(crate) settings: &'a PluginSettings,
}

fn kept(read: StateRead) -> KeptRead {
    match read {
        StateRead::Value { bucket, key, value } => {
            let value = value.map(|value| match std::str::from_utf8(&value) {
                Ok(text) => KeptValue::Text(text.to_owned()),
                Err(_) => KeptValue::Base64(value.to_vec()),
            });
            KeptRead::Value { bucket, key, value }
        }
        StateRead::Keys { bucket, after, found: Keys { keys, looked_to } } => {
            KeptRead::Keys { bucket, after, keys, looked_to }
        }
    }
}

/// The state of a lane, with somebody who wants to know what is read of it.
struct Recording<K> {
    state: Arc<LaneState<K>>,
    reads: Arc<Mutex<Reads>>,
}

impl<K: Entries> StateView for Recording<K> {
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

#[cfg(test)]
mod tests;
