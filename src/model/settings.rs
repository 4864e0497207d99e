//! How a topic keeps its events: what a topology says of it, and what the engine does.

use std::time::Duration;

/// How a topic keeps its events. The default keeps them for ever, as they are, and recognises nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// How long events are kept.
    pub retention: Retention,
    /// How long an event that is published twice is recognised; `None` for not at all.
    pub dedupe: Option<Dedupe>,
    /// After how long without any number of theirs producers are forgotten; `None`: never.
    pub forget_producers: Option<Duration>,
    /// How events are stored once they are no longer recent.
    pub compression: Compression,
}

/// How long events are kept at least. They go by whole segments, the oldest first, and only once every subscriber has
/// processed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How old they may become; `None` for as old as they like.
    pub age: Option<Duration>,
    /// How large each partition may become in bytes on the disk; `None` for as large as the disk is.
    pub partition_bytes: Option<u64>,
    /// They go even when a subscriber has yet to process them.
    pub force: bool,
}

/// How long an event that is published twice is recognised: until either bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// Time.
    pub window: Duration,
    /// Number of later events of the topic; `None` for as many as there are.
    pub count: Option<u32>,
}

/// How events are stored once they are no longer recent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they came.
    #[default]
    None,
    /// In blocks compressed by LZ4, where that makes them smaller.
    Lz4,
}
