//! The versions of each subscriber's plugin.
//!
//! Promises: one change at a time for each subscriber; a version is decided on durably before a lane calls it; a version on trial is
//! proven, or rolled back where it fails and the one before did not.
//! Relies on: [`Reloader`](super::Reloader) for turns, `record` for what is durable.
//! Must not know: how topologies are applied.

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

/// How a version is tried, in all lanes or in some, of which the trial began so long ago.
fn terms(TrialPlan { events, time, at_most }: TrialPlan, lanes: Option<u32>, passed: Duration) -> Terms {
    Terms { events, lanes, time, at_most, passed }
}

/// How a version takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All lanes call it, on trial.
    Swap,
    /// So many lanes of a hundred call it first, on trial, then all.
    Canary {
        /// How many of a hundred, rounded up.
        percent: u32,
    },
    /// All lanes call it, and it is not compared: for a version that is meant to refuse what the one before took.
    Replace,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on trial.
    Tried,
    /// It runs.
    Runs,
    /// It ran already.
    Unchanged,
    /// It was on trial already.
    OnTrial,
    /// It comes from a file that is as it was when it was decided about it, or its subscriber is pinned.
    Ignored,
}

/// A version that was asked for, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The version.
    pub version: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// What is to be known about it, in words.
    pub notice: Option<String>,
}

/// What became of a subscriber that is no longer pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// The version that is tried from now on, since its file or the topology has changed meanwhile.
    pub tries: Option<Digest>,
    /// Why what they say is not tried, in words.
    pub refused: Option<String>,
}

/// The versions of a subscriber, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The version that is proven.
    pub proven: Digest,
    /// The one on trial.
    pub tried: Option<Digest>,
    /// Nothing takes the place of the proven one.
    pub is_pinned: bool,
    /// How many versions are kept.
    pub kept: u64,
}

/// What a version is to its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is proven, and runs.
    Proven,
    /// It is on trial.
    Tried,
    /// It was taken back.
    TakenBack,
    /// It is kept.
    Kept,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// The version.
    pub version: Digest,
    /// The hash of its component.
    pub wasm: Digest,
    /// What it is to its subscriber.
    pub standing: Standing,
    /// `rollback` goes back to it.
    pub is_next_back: bool,
    /// Where it came from, in words.
    pub cause: String,
    /// When it was decided on last, Unix nanoseconds.
    pub decided_ns: u64,
    /// Why it was taken back, where it was.
    pub taken_back: Option<String>,
    /// How its trial goes, where lanes try it.
    pub trial: Option<OnTrial>,
}

/// Of a version that says nothing of outputs in place of one that does, which may be a mistake; none where the topology connects
/// nothing.
fn declares_no_outputs(version: Digest, ports: &[String]) -> Option<String> {
    let connected =
        || format!("{} declares no outputs; the topology connects `{}`", version.short(), ports.join("`, `"));
    (!ports.is_empty()).then(connected)
}

/// Where a version came from whose component is that of another one, in words.
const OTHER_SETTINGS: &str = "other settings in the topology";

/// Where a version from a file came from, in words.
fn cause_of_file(path: &Path) -> String {
    format!("file {}", path.display())
}
