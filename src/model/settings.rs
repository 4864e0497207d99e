//! The storage settings of topics, set by topologies and applied by engines.

use std::time::Duration;

/// How a topic stores its events. By default it keeps them for ever, uncompressed, and does not deduplicate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long events are kept.
    pub retention: Retention,
    /// How long a repeated publish of an event is recognised; `None`: not at all.
    pub dedupe: Option<Dedupe>,
    /// Producers that have sent nothing for this long are forgotten; `None`: never.
    pub forget_producers: Option<Duration>,
    /// How events are stored after they leave memory.
    pub compression: Compression,
}

/// How long events are kept at least. Whole segments are removed, the oldest first, and only after every subscriber has
/// processed them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age; `None`: unlimited.
    pub age: Option<Duration>,
    /// Maximum size of each partition in bytes on the disk; `None`: unlimited.
    pub partition_bytes: Option<u64>,
    /// Removes events even if a subscriber has not processed them.
    pub force: bool,
}

/// How long a repeated publish of an event is recognised: until either bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    pub window: Duration,
    /// Maximum number of later events of the topic; `None`: unlimited.
    pub count: Option<u32>,
}

/// How events are stored after they leave memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    None,
    /// In LZ4-compressed blocks, if that makes them smaller.
    Lz4,
}
