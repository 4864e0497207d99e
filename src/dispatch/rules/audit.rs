//! The topic in which the bus records who has changed what.
//!
//! Promises: it is there in every tree, its events come from the bus alone, and no topology can declare it. Must not
//! know: what is recorded.

use std::time::Duration;

use crate::model::{Retention, TopicSettings};

/// Its full name. Topologies have no namespace of this name.
pub const TOPIC: &str = "wattle/audit";

/// How long records are kept.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Fixed settings, since no topology declares the topic: no deduplication, and a fixed retention.
pub(crate) fn settings() -> TopicSettings {
    let retention = Retention { age: Some(KEPT), partition_bytes: None, force: false };
    TopicSettings { retention, ..TopicSettings::default() }
}
