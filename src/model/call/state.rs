//! The state of a lane as a handler sees it, with its reads and writes.

use bytes::Bytes;

/// Maximum bytes of recorded reads of a call: twice the largest `get-many`. An event that reads more is recorded as
/// incomplete.
pub const STATE_READS_BYTES_MAX: usize = 8 << 20;

/// The state of a lane when a call begins. Keys and values belong to the handler; buckets have names.
///
/// It must not change during a call: a plugin that reads twice reads the same.
pub trait StateView: Send + Sync {
    /// The value of a key at a time, in nanoseconds since 1970, unless it has expired by then.
    ///
    /// # Errors
    /// The state cannot be read. Ends the call, and blames no event.
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError>;

    /// At most `count` keys of a bucket after `after`, in ascending order of their bytes. Takes a bounded time: if many
    /// entries have to be skipped, there are fewer keys, and the result states where to continue.
    ///
    /// # Errors
    /// The state cannot be read. Ends the call, and blames no event.
    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError>;

    /// Whether a value that an event of this call wrote at `written_ns` has expired for a later event of the call, at
    /// `time_ns`. It must agree with [`get`](Self::get) in separate calls: then batching changes nothing.
    fn has_expired(&self, bucket: &str, written_ns: u64, time_ns: u64) -> bool {
        let _ = (bucket, written_ns, time_ns);
        false
    }

    /// Whether the reads of a call's events should be recorded.
    fn wants_reads(&self) -> bool {
        false
    }

    /// Called with the reads of the call's events at its end, however it ended, if requested.
    fn have_read(&self, reads: Reads) {
        let _ = reads;
    }
}

/// Some keys of a bucket, in ascending order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    pub keys: Vec<String>,
    /// There may be more keys after this one: the last key in the page, or one that was skipped. `None`: there are no
    /// more.
    pub looked_to: Option<String>,
}

impl Keys {
    /// The first keys, at most `count`.
    pub fn first(keys: &mut dyn Iterator<Item = String>, count: usize) -> Keys {
        let first: Vec<String> = keys.take(count).collect();
        let looked_to = if first.len() == count { first.last().cloned() } else { None };
        Keys { keys: first, looked_to }
    }
}

/// A read of an event from the state before it: from before the call, or written by earlier events of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateRead {
    /// The value of a key.
    Value {
        bucket: String,
        key: String,
        /// The value; `None` if the key did not exist.
        value: Option<Bytes>,
    },
    /// Keys of a bucket in order.
    Keys {
        bucket: String,
        /// The key before the first; `None`: from the start.
        after: Option<String>,
        found: Keys,
    },
}

impl StateRead {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                StateRead::Value { bucket, key, value } => {
                    bucket.len() + key.len() + value.as_ref().map_or(0, Bytes::len)
                }
                StateRead::Keys { bucket, found, .. } => {
                    bucket.len() + found.keys.iter().map(|key| size_of::<String>() + key.len()).sum::<usize>()
                }
            }
    }
}

/// The reads of a call's events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    of_events: Vec<(u32, StateRead)>,
    bytes: usize,
    /// The reads of events up to this one are incomplete.
    cut_to: Option<u32>,
}

impl Reads {
    /// The reads of an event in order. `None`: there were too many to record.
    pub fn of(&self, event: u32) -> Option<Vec<StateRead>> {
        if self.cut_to.is_some_and(|cut| event <= cut) {
            return None;
        }
        Some(self.of_events.iter().filter(|(of, _)| *of == event).map(|(_, read)| read.clone()).collect())
    }

    /// Records a read of an event. Beyond the limit, reads of earlier events are dropped.
    pub fn add(&mut self, event: u32, read: StateRead) {
        self.bytes += read.bytes();
        self.of_events.push((event, read));
        if self.bytes > STATE_READS_BYTES_MAX {
            // Reads of earlier events are dropped first.
            self.of_events.retain(|(of, _)| *of == event);
            self.cut_to = event.checked_sub(1).or(self.cut_to);
            self.bytes = self.of_events.iter().map(|(_, read)| read.bytes()).sum();
        }
        if self.bytes > STATE_READS_BYTES_MAX {
            *self = Reads { cut_to: Some(event), ..Reads::default() };
        }
    }

    /// Whether the reads of an event are incomplete.
    pub(crate) fn is_cut(&self, event: u32) -> bool {
        self.cut_to.is_some_and(|cut| event <= cut)
    }
}

/// The state could not be read: the disk does not answer, or its data is damaged. A message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateError(pub String);

/// A write of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The index of the event.
    pub event: u32,
    /// The name of the bucket; never empty.
    pub bucket: String,
    pub key: String,
    /// The value; `None`: it was deleted.
    pub value: Option<Bytes>,
}

/// The state of a lane without state.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoState;

impl StateView for NoState {
    fn get(&self, _: &str, _: &str, _: u64) -> Result<Option<Bytes>, StateError> {
        Ok(None)
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize, _: u64) -> Result<Keys, StateError> {
        Ok(Keys::default())
    }
}
