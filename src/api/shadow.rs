//! Comparisons of two versions of a plugin.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::state::StateOfPartition;
use super::v1;
use crate::model::Offset;

/// Selects the events of a comparison, over all partitions.
#[derive(Debug, Clone)]
pub enum ShadowRange {
    /// The last handled events.
    Last {
        events: u32,
        /// The plugin's state before the first of them, in each partition; may be empty.
        state: Vec<StateOfPartition>,
    },
    /// The events after a snapshot, with its state.
    Behind {
        /// Number of the snapshot.
        snapshot: u64,
        /// Maximum number of events.
        events: u32,
    },
    /// The events that the lanes handle from now on, with the lanes' current state.
    Coming {
        /// Ends after this number of events.
        events: Option<u64>,
        /// Ends after this time.
        time: Option<Duration>,
    },
}

/// How two versions compare.
#[derive(Debug, Clone, Default)]
pub struct ShadowReport {
    /// Events that were handled by both.
    pub events: u64,
    /// Events that the subscriber's `when` passes over.
    pub passed_over: u64,
    /// Events that wait in a lane for another attempt or their key, and were left out.
    pub waiting: u64,
    /// Events that another member of the queue group may have handled: no output of this member is recorded.
    pub not_its_own: u64,
    /// Of future events: handled ones that the comparison did not reach, or that were already deleted.
    pub not_reached: u64,
    /// Of events that come: it ended since another version was proven, or the subscriber is another one.
    pub is_superseded: bool,
    /// Of events that come: why it ended before there were enough, where something went wrong.
    pub broke_off: Option<String>,
    /// Events of which something is recorded, by the running version, and all of it is still there.
    pub held_against_record: u64,
    /// Events with which the running version does not differ from itself, so that the other one was held against it.
    pub compared: u64,
    /// Events with which the running version differs from itself.
    pub not_deterministic: u64,
    /// Events whose recorded outputs differ, though the version agrees with itself and has read no state.
    pub not_as_recorded: u64,
    /// Events whose recorded outputs differ, and whose call has read state, which was different then.
    pub over_other_state: u64,
    /// Events with which the other version differs.
    pub differing: u64,
    /// Those of them with other outputs.
    pub outputs: u64,
    /// Those of them with other writes to the state.
    pub state: u64,
    /// Those of them with which only one of the two fails, or both in other ways.
    pub failures: u64,
    /// What the running version cost.
    pub running: Cost,
    /// What the other version cost.
    pub other: Cost,
    /// Differences, by partition and offset; no more than were asked for.
    pub shown: Vec<Difference>,
}

/// What a version cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub calls: u64,
    /// Events that failed for the last time.
    pub failed: u64,
    /// Time in calls.
    pub took: Duration,
    /// The most memory that an instance had, in bytes.
    pub memory_peak_bytes: Option<u64>,
}

/// An event with which something differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub partition: u32,
    pub offset: Offset,
    pub id: String,
    pub key: String,
    /// What differs from what.
    pub kind: DifferenceKind,
    /// The expected result, of the running version.
    pub running: ShadowResult,
    /// The actual result.
    pub other: ShadowResult,
}

/// What differs from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The running version from itself, in other batches.
    NotDeterministic,
    /// The running version from its recorded outputs, which depend on no state.
    NotAsRecorded,
    /// The running version from its outputs that were recorded over other state.
    OverOtherState,
    /// The other version from the running one.
    OtherVersion,
}

/// The result of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShadowResult {
    /// Its outputs by their ids.
    pub outputs: BTreeMap<String, ShadowOutput>,
    /// Writes to the state, by bucket and key; `None` deletes.
    pub writes: BTreeMap<(String, String), Option<Bytes>>,
    /// How it fails: the kind, and why. Of a recorded failure only the fact is known.
    pub failure: Option<(String, String)>,
}

/// What a handler emitted for one event, as a shadow run compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowOutput {
    /// Full name of the topic.
    pub topic: String,
    pub key: String,
    /// The event in the CloudEvents protobuf format.
    pub event: Bytes,
    /// It comes later, so it need not be there yet.
    pub is_delayed: bool,
}

impl From<ShadowReport> for v1::ShadowResponse {
    fn from(report: ShadowReport) -> Self {
        Self {
            events: report.events,
            filtered: report.passed_over,
            retry_queue: report.waiting,
            not_its_own: report.not_its_own,
            not_reached: report.not_reached,
            is_superseded: report.is_superseded,
            broke_off: report.broke_off,
            compared: report.compared,
            not_as_recorded: report.not_as_recorded,
            held_against_record: report.held_against_record,
            not_deterministic: report.not_deterministic,
            over_other_state: report.over_other_state,
            differing: report.differing,
            outputs: report.outputs,
            state: report.state,
            failures: report.failures,
            running: Some(report.running.into()),
            other: Some(report.other.into()),
            shown: report.shown.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::ShadowResponse> for ShadowReport {
    fn from(response: v1::ShadowResponse) -> Self {
        Self {
            events: response.events,
            passed_over: response.filtered,
            waiting: response.retry_queue,
            not_its_own: response.not_its_own,
            not_reached: response.not_reached,
            is_superseded: response.is_superseded,
            broke_off: response.broke_off,
            compared: response.compared,
            not_as_recorded: response.not_as_recorded,
            held_against_record: response.held_against_record,
            not_deterministic: response.not_deterministic,
            over_other_state: response.over_other_state,
            differing: response.differing,
            outputs: response.outputs,
            state: response.state,
            failures: response.failures,
            running: response.running.unwrap_or_default().into(),
            other: response.other.unwrap_or_default().into(),
            shown: response.shown.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Cost> for v1::ShadowCost {
    fn from(Cost { calls, failed, took, memory_peak_bytes }: Cost) -> Self {
        Self { calls, failed, took: prost_types::Duration::try_from(took).ok(), memory_peak_bytes }
    }
}

impl From<v1::ShadowCost> for Cost {
    fn from(v1::ShadowCost { calls, failed, took, memory_peak_bytes }: v1::ShadowCost) -> Self {
        let took = took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
        Self { calls, failed, took, memory_peak_bytes }
    }
}

impl From<Difference> for v1::ShadowDifference {
    fn from(Difference { partition, offset, id, key, kind, running, other }: Difference) -> Self {
        let kind = match kind {
            DifferenceKind::NotDeterministic => v1::ShadowDifferenceKind::NotDeterministic,
            DifferenceKind::NotAsRecorded => v1::ShadowDifferenceKind::NotAsRecorded,
            DifferenceKind::OverOtherState => v1::ShadowDifferenceKind::OverOtherState,
            DifferenceKind::OtherVersion => v1::ShadowDifferenceKind::OtherVersion,
        };
        let (running, other) = (Some(running.into()), Some(other.into()));
        Self { partition, offset, id, key, kind: kind.into(), running, other }
    }
}

impl From<v1::ShadowDifference> for Difference {
    fn from(difference: v1::ShadowDifference) -> Self {
        let kind = match difference.kind() {
            v1::ShadowDifferenceKind::NotDeterministic => DifferenceKind::NotDeterministic,
            v1::ShadowDifferenceKind::NotAsRecorded => DifferenceKind::NotAsRecorded,
            v1::ShadowDifferenceKind::OverOtherState => DifferenceKind::OverOtherState,
            v1::ShadowDifferenceKind::OtherVersion | v1::ShadowDifferenceKind::Unspecified => {
                DifferenceKind::OtherVersion
            }
        };
        let v1::ShadowDifference { partition, offset, id, key, running, other, .. } = difference;
        let (running, other) = (running.unwrap_or_default().into(), other.unwrap_or_default().into());
        Self { partition, offset, id, key, kind, running, other }
    }
}

impl From<ShadowResult> for v1::ShadowSeen {
    fn from(ShadowResult { outputs, writes, failure }: ShadowResult) -> Self {
        let output = |(id, output): (String, ShadowOutput)| {
            let ShadowOutput { topic, key, event, is_delayed } = output;
            v1::ShadowOutput { topic, key, id, event, is_delayed }
        };
        let write = |((bucket, key), value)| v1::ShadowWrite { bucket, key, value };
        let (failure, reason) = failure.map_or((None, String::new()), |(kind, reason)| (Some(kind), reason));
        let (outputs, writes) = (outputs.into_iter().map(output), writes.into_iter().map(write));
        Self { outputs: outputs.collect(), writes: writes.collect(), failure, reason }
    }
}

impl From<v1::ShadowSeen> for ShadowResult {
    fn from(v1::ShadowSeen { outputs, writes, failure, reason }: v1::ShadowSeen) -> Self {
        let output = |v1::ShadowOutput { topic, key, id, event, is_delayed }| {
            (id, ShadowOutput { topic, key, event, is_delayed })
        };
        let write = |v1::ShadowWrite { bucket, key, value }| ((bucket, key), value);
        let failure = failure.map(|kind| (kind, reason));
        Self {
            outputs: outputs.into_iter().map(output).collect(),
            writes: writes.into_iter().map(write).collect(),
            failure,
        }
    }
}
