//! The settings of a version in addition to its component.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The limits of a plugin, which are part of the identity of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The sum of an instance's memories, in bytes. Growth beyond it fails inside the plugin.
    pub memory_bytes: u64,
    /// Maximum running time of one event. Waiting for the processor does not count.
    pub time: Duration,
    /// Maximum bytes of one event's outputs: data, keys, types and attributes.
    pub output_bytes: u64,
    /// Maximum number of host handles (pollables, streams, buckets) of an instance.
    pub handles: u32,
    /// Maximum log lines per second, over all instances of a plugin. Further lines are counted and dropped.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 << 20,
            time: Duration::from_secs(1),
            output_bytes: 1 << 20,
            handles: 1_000,
            log_lines_per_second: 100,
        }
    }
}

/// The settings of a version, as far as they may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginSettings {
    pub ports: Vec<String>,
    pub limits: Limits,
    /// Its configuration; `None` for values that are never shown.
    pub config: BTreeMap<String, Option<String>>,
    /// Names of the configuration that are secrets.
    pub secrets: BTreeSet<String>,
    /// Equal within one process if the values of all secrets are; reveals nothing else about them.
    pub secrets_mark: [u8; 32],
}
