//! Comparisons of versions in the contract's words, and back.

use std::time::Duration;

use super::v1;
use crate::dispatch::shadow::{Cost, Difference, DifferenceKind, Seen, SeenOutput, ShadowReport};

impl From<ShadowReport> for v1::ShadowResponse {
    fn from(report: ShadowReport) -> Self {
        Self {
            events: report.events,
            passed_over: report.passed_over,
            waiting: report.waiting,
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
            passed_over: response.passed_over,
            waiting: response.waiting,
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

impl From<Seen> for v1::ShadowSeen {
    fn from(Seen { outputs, writes, failure }: Seen) -> Self {
        let output = |(id, output): (String, SeenOutput)| {
            let SeenOutput { topic, key, event, is_delayed } = output;
            v1::ShadowOutput { topic, key, id, event, is_delayed }
        };
        let write = |((bucket, key), value)| v1::ShadowWrite { bucket, key, value };
        let (failure, reason) = failure.map_or((None, String::new()), |(kind, reason)| (Some(kind), reason));
        let (outputs, writes) = (outputs.into_iter().map(output), writes.into_iter().map(write));
        Self { outputs: outputs.collect(), writes: writes.collect(), failure, reason }
    }
}

impl From<v1::ShadowSeen> for Seen {
    fn from(v1::ShadowSeen { outputs, writes, failure, reason }: v1::ShadowSeen) -> Self {
        let output =
            |v1::ShadowOutput { topic, key, id, event, is_delayed }| (id, SeenOutput { topic, key, event, is_delayed });
        let write = |v1::ShadowWrite { bucket, key, value }| ((bucket, key), value);
        let failure = failure.map(|kind| (kind, reason));
        Self {
            outputs: outputs.into_iter().map(output).collect(),
            writes: writes.into_iter().map(write).collect(),
            failure,
        }
    }
}
