//! The versions of each subscriber's plugin.
//!
//! Promises: one change at a time per subscriber; a version is decided durably before a lane calls it; a candidate
//! becomes stable, or is rolled back if it fails on an event that the stable version handles. Relies on:
//! [`Reloader`](super::Reloader) for locks, `record` for durability. Must not know: how topologies are applied.

use std::time::Duration;

use crate::api::{Component, Digest};
use crate::dispatch::Terms;
use crate::model::Time;
use crate::topology::TrialPlan;

pub(super) mod by_hand;
pub(super) mod compiling;
pub(super) mod deploy;
pub(super) mod follow;
pub(super) mod judge;
pub(super) mod listing;
pub(super) mod preview;
pub(super) mod shadow;
pub(super) mod snapshot;
pub(super) mod source;
pub(super) mod start;
pub(super) mod storing;
pub(super) mod subjects;
pub(super) mod unavailable;
pub(super) mod upload;

/// The terms of a trial in all or some lanes that began `passed` ago.
fn terms(TrialPlan { events, time, at_most }: TrialPlan, lanes: Option<u32>, passed: Duration) -> Terms {
    Terms { events, lanes, time, at_most, passed }
}

/// The note for a version without declared outputs that replaces one with some, which may be a mistake; `None` if the
/// topology connects none.
fn declares_no_outputs(version: Digest, ports: &[String]) -> Option<String> {
    let connected =
        || format!("{} declares no outputs; the topology connects `{}`", version.short(), ports.join("`, `"));
    (!ports.is_empty()).then(connected)
}

/// A time for notes, in whole seconds.
fn shown_time(time_ns: u64) -> String {
    Time::new((time_ns / 1_000_000_000) as i64, 0).map(|time| time.to_string()).unwrap_or_default()
}

/// The cause of a version that has the component of another.
const OTHER_SETTINGS: &str = "other settings in the topology";

/// The cause of a version from the topology.
fn cause(component: &Component) -> String {
    match component {
        Component::File(path) => format!("file {}", path.display()),
        Component::Stored(_) => "applied".to_owned(),
    }
}
