//! What the running tree says of itself: one snapshot for the command line, the API and the tests.

use crate::engine::Bounds;

/// Every node of the tree at about one moment, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The topics.
    pub topics: Vec<TopicStatus>,
    /// The subscribers.
    pub subscribers: Vec<SubscriberStatus>,
}

/// A topic.
#[derive(Debug, Clone)]
pub struct TopicStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The subscriber that writes to it, by full name; `None` for a root.
    pub parent: Option<String>,
    /// It takes what that subscriber could not handle.
    pub is_dead_letters: bool,
    /// What each partition holds.
    pub partitions: Vec<Bounds>,
}

impl TopicStatus {
    /// Events that are kept, as lanes see them.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.written - bounds.start).sum()
    }
}

/// A subscriber.
#[derive(Debug, Clone)]
pub struct SubscriberStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The topic that it consumes, by full name.
    pub from: String,
    /// Its ports and the topics behind them, by full name.
    pub to: Vec<(String, String)>,
    /// The topic of its dead letters, by full name.
    pub dead_letters: Option<String>,
    /// Digest of the version that runs, hexadecimal.
    pub digest: String,
    /// Events that it has handled or given up since the start of the process.
    pub handled: u64,
    /// Events that it has emitted since the start of the process.
    pub emitted: u64,
    /// Calls that failed and were tried again since the start of the process.
    pub retried: u64,
    /// Events that went to dead letters since the start of the process.
    pub dead_lettered: u64,
    /// Events that are waiting for it.
    pub lag: u64,
    /// How its lanes are, one for each partition.
    pub lanes: Vec<LaneState>,
    /// The latest failure in words.
    pub last_failure: Option<String>,
}

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Handling or waiting for events.
    Running,
    /// Waiting to try a failed event again.
    Retrying,
    /// Stopped: the process is going down, or the engine has stopped.
    Stopped,
}
