//! The state of a lane as a handler sees it, and what it reads and writes there.

use bytes::Bytes;

/// What is remembered of what the events of a call have read, in bytes, for whoever wants to know it: as much as the largest
/// `get-many`, twice. An event that reads more is remembered as one that did.
pub const STATE_READS_BYTES_MAX: usize = 8 << 20;

/// The state of a lane when a call begins. Keys and values are the handler's; buckets are told apart by their name.
///
/// It must not change during a call: a plugin that reads twice reads the same.
pub trait StateView: Send + Sync {
    /// What is under a key at a time, in nanoseconds since 1970: what has expired by then is not there.
    ///
    /// # Errors
    /// When the state cannot be read. Ends the call, and blames no event.
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError>;

    /// Keys of a bucket behind `after`, in ascending order of their bytes, `count` at the most. It takes a bounded time: where
    /// much has to be passed over to find them, there are fewer, and it says where to go on.
    ///
    /// # Errors
    /// When the state cannot be read. Ends the call, and blames no event.
    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError>;

    /// Whether what an event of this call wrote at `written_ns` has expired for a later event of it, at `time_ns`. It has
    /// to agree with what [`get`](Self::get) would say if there were a call for each: then batching changes nothing.
    fn has_expired(&self, bucket: &str, written_ns: u64, time_ns: u64) -> bool {
        let _ = (bucket, written_ns, time_ns);
        false
    }

    /// Whether it is to be told what the events of a call have read.
    fn wants_reads(&self) -> bool {
        false
    }

    /// What the events of a call have read, once it is over, however it ended. Only where that is wanted.
    fn have_read(&self, reads: Reads) {
        let _ = reads;
    }
}

/// Some keys of a bucket, in ascending order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub keys: Vec<String>,
    /// There may be more behind this one: the last of these keys, or one that has been passed over. None: there are no
    /// more.
    pub looked_to: Option<String>,
}

impl Keys {
    /// The first keys, `count` at the most.
    pub fn first(keys: &mut dyn Iterator<Item = String>, count: usize) -> Keys {
        let first: Vec<String> = keys.take(count).collect();
        let looked_to = if first.len() == count { first.last().cloned() } else { None };
        Keys { keys: first, looked_to }
    }
}

/// What an event has read of what was there in front of it: before the call, or written by events of the call before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateRead {
    /// What is under a key.
    Value {
        bucket: String,
        key: String,
        /// The value; none: there was nothing.
        value: Option<Bytes>,
    },
    /// Keys of a bucket in their order.
    Keys {
        bucket: String,
        /// Those behind this one; none: from the first on.
        after: Option<String>,
        /// The keys, and where they end.
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

/// What the events of a call have read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    of_events: Vec<(u32, StateRead)>,
    bytes: usize,
    /// Of events up to this one not everything is known.
    cut_to: Option<u32>,
}

impl Reads {
    /// What an event has read, in its order. None: that was too much to be remembered.
    pub fn of(&self, event: u32) -> Option<Vec<StateRead>> {
        if self.cut_to.is_some_and(|cut| event <= cut) {
            return None;
        }
        Some(self.of_events.iter().filter(|(of, _)| *of == event).map(|(_, read)| read.clone()).collect())
    }

    /// An event has read something. More than is remembered makes room by forgetting what events in front of it have read.
    pub fn add(&mut self, event: u32, read: StateRead) {
        self.bytes += read.bytes();
        self.of_events.push((event, read));
        if self.bytes > STATE_READS_BYTES_MAX {
            // What earlier events have read goes first.
            self.of_events.retain(|(of, _)| *of == event);
            self.cut_to = event.checked_sub(1).or(self.cut_to);
            self.bytes = self.of_events.iter().map(|(_, read)| read.bytes()).sum();
        }
        if self.bytes > STATE_READS_BYTES_MAX {
            *self = Reads { cut_to: Some(event), ..Reads::default() };
        }
    }

    /// Whether not everything is known of an event.
    pub(crate) fn is_cut(&self, event: u32) -> bool {
        self.cut_to.is_some_and(|cut| event <= cut)
    }
}

/// The state could not be read: the disk does not answer, or what is on it is damaged. In words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateError(pub String);

/// What an event left under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The index of the event.
    pub event: u32,
    /// The name of the bucket; never empty.
    pub bucket: String,
    pub key: String,
    /// The value; none: it was deleted.
    pub value: Option<Bytes>,
}

/// The state of a lane that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoState;

impl StateView for NoState {
    fn get(&self, _: &str, _: &str, _: u64) -> Result<Option<Bytes>, StateError> {
        Ok(None)
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize, _: u64) -> Result<Keys, StateError> {
        Ok(Keys::default())
    }
}
