//! What a version is made with beside its code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How much one plugin may use. Part of the identity of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The sum of an instance's memories, in bytes. Growth past it fails inside the plugin.
    pub memory_bytes: u64,
    /// How long one event may run. Time during which the plugin waited for its turn does not count.
    pub time: Duration,
    /// How much one event may send, in bytes: data, keys, types and attributes of its outputs.
    pub output_bytes: u64,
    /// How many handles of the host (pollables, streams, buckets) an instance may hold at once.
    pub handles: u32,
    /// How many log lines per second are kept, over all instances of a plugin. What is beyond is counted.
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

/// What a version was made with beside its component, as far as it may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginSettings {
    pub ports: Vec<String>,
    pub limits: Limits,
    /// What it is told; `None` for what is shown nowhere.
    pub config: BTreeMap<String, Option<String>>,
    /// Names of the configuration that are secrets.
    pub secrets: BTreeSet<String>,
    /// The same in one process where the values of all secrets are, and says nothing else of them.
    pub secrets_mark: [u8; 32],
}
