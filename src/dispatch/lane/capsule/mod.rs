//! Capsules: an event that finally failed, with everything that its plugin saw, so that the failure can be reproduced
//! anywhere.
//!
//! ```text
//! "wattle capsule 1 " BLAKE3 of the rest, hexadecimal, "\n"
//! a JSON object; new fields have a default
//! ```
//!
//! A plugin is a function of its event and of the state that it reads. So a capsule contains the event with its
//! position, time, attempt and random seed, the state that it read, and the plugin's settings: configuration (without
//! secrets), ports, limits.
//!
//! Promises: a damaged capsule is refused. Making a capsule costs a lane one copy; if their receiver is slow, some are
//! not made. Must not know: files, the origin of a plugin's component.

mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::batch::{BatchEvent, Context, call_events, content_type};
use super::failure::LastFailure;
use crate::model::call::{
    Batch, EventContext, HandleError, Handled, Handler, InstanceError, Keys, Limits, LogLevel, StateError, StateView,
};
use crate::model::{Event, Offset, Record};

pub(crate) use recorder::{Recorder, Sink, Source};

/// Prefix of every capsule: name and version of the format.
const HEAD: &str = "wattle capsule 1 ";
const HEAD_OF_ANY: &str = "wattle capsule ";

/// An event that finally failed, and everything that its plugin saw.
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
    /// Partition of the lane.
    pub partition: u32,
    /// The offset of the event in it.
    pub offset: Offset,
    pub key: String,
    /// Its append time, engine time, Unix nanoseconds; the plugin's clocks show it.
    pub append_time_ns: u64,
    /// Seed of its random bytes, hexadecimal.
    pub seed: String,
    /// The attempt that failed.
    pub attempt: u32,
    /// The event with all its attributes, in the CloudEvents protobuf format.
    #[serde(with = "base64_bytes")]
    pub event: Vec<u8>,
    /// Hexadecimal digest of the version that failed.
    pub digest: String,
    /// Hexadecimal hash of its component; empty if it has none.
    #[serde(default)]
    pub wasm_digest: String,
    pub ports: Vec<String>,
    pub limits: CapsuleLimits,
    /// Its configuration; `None` for secrets and values from variables, which are not included.
    #[serde(default)]
    pub config: BTreeMap<String, Option<String>>,
    /// Names of secret configuration values, which are not part of the version; `None` in capsules of early releases.
    #[serde(default)]
    pub secrets: Option<BTreeSet<String>>,
    /// The state that it read; `None` if that exceeded the limit.
    #[serde(default)]
    pub state: Option<Vec<RecordedRead>>,
    /// How it failed.
    pub failure: CapsuleFailure,
    /// Number of capsules to retain for this subscriber.
    #[serde(skip)]
    pub keep: u32,
}

/// The limits of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleLimits {
    /// Memory of an instance.
    pub memory_bytes: u64,
    /// Time per event.
    pub time_ns: u64,
    /// Output per event.
    pub output_bytes: u64,
    /// Handles of an instance; `None` in capsules of early releases.
    #[serde(default)]
    pub handles: Option<u32>,
    /// Log lines; `None` in capsules of early releases.
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
    /// The reason, in the plugin's or the sandbox's words.
    pub reason: String,
    /// The plugin's stack, innermost first, one function per line.
    #[serde(default)]
    pub backtrace: Option<String>,
}

/// A recorded read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedRead {
    /// The value of a key.
    Value {
        bucket: String,
        key: String,
        /// The value; `None` if the key did not exist.
        value: Option<RecordedValue>,
    },
    /// Keys of a bucket.
    Keys {
        bucket: String,
        /// Only keys after this one.
        after: Option<String>,
        keys: Vec<String>,
        /// Up to where the bucket was read; there may be more keys after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looked_to: Option<String>,
    },
}

/// A value, as text if possible, so that it is readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedValue {
    Text(String),
    /// Any bytes.
    Base64(#[serde(with = "base64_bytes")] Vec<u8>),
}

impl RecordedValue {
    /// The value's bytes.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            RecordedValue::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            RecordedValue::Base64(bytes) => Bytes::copy_from_slice(bytes),
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
    /// Another format.
    #[error("it is not a capsule: those begin with `{HEAD_OF_ANY}`")]
    Other,
    /// Made by a later release.
    #[error("it is a capsule of format {version}, and this release reads format 1: use a later one")]
    Later {
        /// Its format version.
        version: String,
    },
    /// The checksum does not match.
    #[error("it is damaged: what is in it does not have the checksum that it names")]
    Damaged,
    /// The content is invalid.
    #[error("it cannot be understood: {0}")]
    Malformed(String),
}

impl Capsule {
    /// Encodes the capsule.
    pub fn encode(&self) -> Vec<u8> {
        // It has no maps with non-string keys, so the JSON encoding cannot fail.
        let mut body = serde_json::to_vec_pretty(self).unwrap_or_default();
        body.push(b'\n');
        let mut encoded = format!("{HEAD}{}\n", blake3::hash(&body)).into_bytes();
        encoded.append(&mut body);
        encoded
    }

    /// Decodes a capsule.
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
        // Checks what a replay relies on.
        Event::decode(&capsule.event).map_err(|error| CapsuleError::Malformed(error.to_string()))?;
        capsule.seed().ok_or_else(|| CapsuleError::Malformed("its seed is not one".to_owned()))?;
        Ok(capsule)
    }

    /// The limits in the sandbox's form.
    pub fn plugin_limits(&self) -> Limits {
        let CapsuleLimits { memory_bytes, time_ns, output_bytes, handles, log_lines_per_second } = self.limits;
        let (time, others) = (Duration::from_nanos(time_ns), Limits::default());
        let handles = handles.unwrap_or(others.handles);
        let log_lines_per_second = log_lines_per_second.unwrap_or(others.log_lines_per_second);
        Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second }
    }

    /// The recorded values of keys that existed.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, Bytes)> {
        self.state.iter().flatten().filter_map(|read| match read {
            RecordedRead::Value { bucket, key, value: Some(value) } => {
                Some((bucket.as_str(), key.as_str(), value.to_bytes()))
            }
            RecordedRead::Value { .. } | RecordedRead::Keys { .. } => None,
        })
    }

    /// Its event in the form that lanes use.
    pub(crate) fn held(&self) -> Result<BatchEvent, ReplayError> {
        let mut record = Vec::new();
        let written = Record { key: &self.key, lineage: None, event: &self.event }.write(&mut record);
        written.map_err(|error| ReplayError::Capsule(CapsuleError::Malformed(error.to_string())))?;
        let (offset, append_time_ns) = (self.offset, self.append_time_ns);
        // its reads had not expired, whatever the trusted time was
        Ok(BatchEvent { offset, append_time_ns, trusted_time_ns: append_time_ns, record: record.into() })
    }

    fn seed(&self) -> Option<[u8; 32]> {
        blake3::Hash::from_hex(&self.seed).ok().map(|hash| *hash.as_bytes())
    }

    /// Calls a handler with the event in the same way as when it failed: alone, at its time, with the recorded state.
    ///
    /// # Errors
    /// If the handler could not be called at all. A failure of the event is not an error.
    pub async fn replay(&self, handler: &impl Handler) -> Result<Replay, ReplayError> {
        let malformed = |error: String| ReplayError::Capsule(CapsuleError::Malformed(error));
        let held = self.held()?;
        let held = Arc::new(vec![held]);
        let run = held.iter().map(BatchEvent::parse).collect::<Result<Vec<_>, _>>();
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
            context: Arc::new(SeededContext { context, seed }),
            state: state.clone(),
        };
        let failure = match handler.handle(batch).await {
            Ok(handled) => match handled.unfinished() {
                None => return Ok(Replay { outcome: ReplayOutcome::Handled(handled), unknown: state.unknown() }),
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
        let outcome =
            if failure == self.failure { ReplayOutcome::Reproduced } else { ReplayOutcome::FailedOtherwise(failure) };
        Ok(Replay { outcome, unknown: state.unknown() })
    }
}

/// Why a capsule cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The plugin has no instance.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The content is invalid.
    #[error(transparent)]
    Capsule(CapsuleError),
}

/// Result of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    pub outcome: ReplayOutcome,
    /// Reads that the capsule does not contain, as bucket and key, or a bucket alone for a listing. They were answered
    /// as empty.
    pub unknown: Vec<(String, Option<String>)>,
}

/// Outcome of a replay.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplayOutcome {
    /// The same failure: kind, reason and backtrace.
    Reproduced,
    /// Another failure.
    FailedOtherwise(CapsuleFailure),
    /// The event was handled.
    Handled(Handled),
}

/// A context with the recorded seed.
struct SeededContext {
    context: Context,
    seed: [u8; 32],
}

impl EventContext for SeededContext {
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

/// The recorded state.
struct ReadState {
    values: BTreeMap<(String, String), Option<Bytes>>,
    /// Existing keys, by bucket.
    keys: BTreeMap<String, BTreeSet<String>>,
    /// Listings, by bucket and by the key that they start after.
    listings: BTreeMap<(String, Option<String>), Keys>,
    unknown: Mutex<BTreeSet<(String, Option<String>)>>,
}

impl ReadState {
    fn of(reads: &[RecordedRead]) -> Self {
        let mut state = Self {
            values: BTreeMap::new(),
            keys: BTreeMap::new(),
            listings: BTreeMap::new(),
            unknown: Mutex::default(),
        };
        for read in reads {
            match read {
                RecordedRead::Value { bucket, key, value } => {
                    let value = value.as_ref().map(RecordedValue::to_bytes);
                    if value.is_some() {
                        state.keys.entry(bucket.clone()).or_default().insert(key.clone());
                    }
                    state.values.insert((bucket.clone(), key.clone()), value);
                }
                RecordedRead::Keys { bucket, after, keys, looked_to } => {
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

    /// Up to `count` keys after one, and whether they are certain: recorded listings cover the range without a gap.
    fn known(&self, bucket: &str, after: Option<&str>, count: usize) -> (Vec<String>, bool) {
        let keys = self.keys.get(bucket).into_iter().flatten();
        let keys: Vec<_> =
            keys.filter(|key| after.is_none_or(|after| key.as_str() > after)).take(count).cloned().collect();
        // The end of the range that has to be covered: the last key if `count` were found.
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
            // the listing that reaches farthest; without a limit it reaches the end of the bucket
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

#[cfg(test)]
mod tests;
