//! Snapshots of a subscriber.

use serde::{Deserialize, Serialize};

use super::times::{nanoseconds, timestamp};
use super::v1;
use crate::model::Offset;

/// Who took a snapshot. Files contain the names of the variants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotCause {
    #[default]
    Hand,
    /// A version that was about to take the place of another.
    Deploy,
}

/// A copy of a subscriber's state and positions, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its number among those of its subscriber, which grow.
    pub number: u64,
    /// When it was taken, Unix nanoseconds.
    pub taken_ns: u64,
    /// The version that ran, hexadecimal digest.
    pub digest: String,
    /// Why it was taken, in words.
    pub note: String,
    /// Who had it taken.
    pub by: SnapshotCause,
    /// Where each lane was, by partition.
    pub positions: Vec<Offset>,
    /// How many entries it has: keys of the state, and two for each event that waits.
    pub entries: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl From<SnapshotInfo> for v1::Snapshot {
    fn from(snapshot: SnapshotInfo) -> Self {
        let SnapshotInfo { number, taken_ns, digest, note, by, positions, entries, bytes } = snapshot;
        let (take_time, is_of_deploy) = (Some(timestamp(taken_ns)), by == SnapshotCause::Deploy);
        Self { number, take_time, digest, note, positions, entries, bytes, is_of_deploy }
    }
}

impl From<v1::Snapshot> for SnapshotInfo {
    fn from(snapshot: v1::Snapshot) -> Self {
        let v1::Snapshot { number, take_time, digest, note, positions, entries, bytes, is_of_deploy } = snapshot;
        let taken_ns = take_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let by = if is_of_deploy { SnapshotCause::Deploy } else { SnapshotCause::Hand };
        Self { number, taken_ns, digest, note, by, positions, entries, bytes }
    }
}
