//! The versions of each subscriber's plugin.
//!
//! Promises: one change at a time per subscriber; a version is decided durably before a lane calls it; a candidate
//! becomes stable, or is rolled back if it fails on an event that the stable version handles. Relies on:
//! [`Reloader`](super::Reloader) for locks, `record` for durability. Must not know: how topologies are applied.

use std::path::Path;
use std::time::Duration;

use crate::dispatch::{OnTrial, Terms};
use crate::topology::TrialPlan;
use crate::wasm::Digest;

pub(super) mod by_hand;
pub(super) mod deploy;
pub(super) mod follow;
pub(super) mod judge;
pub(super) mod listing;
pub(super) mod shadow;
pub(super) mod snapshot;
pub(super) mod source;
pub(super) mod start;
pub(super) mod storing;
pub(super) mod subjects;

/// The terms of a trial in all or some lanes that began `passed` ago.
fn terms(TrialPlan { events, time, at_most }: TrialPlan, lanes: Option<u32>, passed: Duration) -> Terms {
    Terms { events, lanes, time, at_most, passed }
}

/// How a version replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All lanes call the candidate.
    Swap,
    /// A share of the lanes calls the candidate first, then all do.
    Canary {
        /// Percentage of lanes, rounded up.
        percent: u32,
    },
    /// All lanes call it without a comparison: for a version that is meant to refuse events that the previous one
    /// accepted.
    Replace,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the candidate.
    Tried,
    Runs,
    /// It was already running.
    Unchanged,
    /// It was already the candidate.
    OnTrial,
    /// Its file is unchanged since it was last decided, or its subscriber is pinned.
    Ignored,
}

/// A requested version, and the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    pub version: Digest,
    pub outcome: Outcome,
    /// A note, as a message.
    pub notice: Option<String>,
}

/// The result of an unpin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// The candidate from now on, because the file or the topology has changed meanwhile.
    pub tries: Option<Digest>,
    /// Why that was refused, as a message.
    pub refused: Option<String>,
}

/// A summary of a subscriber's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The stable version.
    pub proven: Digest,
    /// The candidate, while a trial runs.
    pub tried: Option<Digest>,
    /// Other versions may not replace the stable one.
    pub is_pinned: bool,
    /// Number of stored versions.
    pub kept: u64,
}

/// The role of a version for its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The stable version, which runs.
    Proven,
    /// It is the candidate.
    Tried,
    /// It was rolled back.
    TakenBack,
    /// It is stored.
    Kept,
}

/// A stored version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    pub version: Digest,
    /// The digest of its component.
    pub wasm: Digest,
    /// Its role for its subscriber.
    pub standing: Standing,
    /// `rollback` returns to it.
    pub is_next_back: bool,
    /// Its origin, as a message.
    pub cause: String,
    /// The time of the last decision about it, Unix nanoseconds.
    pub decided_ns: u64,
    /// Why it was rolled back, if it was.
    pub taken_back: Option<String>,
    /// The state of its trial, if it is the candidate.
    pub trial: Option<OnTrial>,
}

/// The note for a version without declared outputs that replaces one with some, which may be a mistake; `None` if the
/// topology connects none.
fn declares_no_outputs(version: Digest, ports: &[String]) -> Option<String> {
    let connected =
        || format!("{} declares no outputs; the topology connects `{}`", version.short(), ports.join("`, `"));
    (!ports.is_empty()).then(connected)
}

/// The cause of a version that has the component of another.
const OTHER_SETTINGS: &str = "other settings in the topology";

/// The cause of a version from a file.
fn cause_of_file(path: &Path) -> String {
    format!("file {}", path.display())
}
