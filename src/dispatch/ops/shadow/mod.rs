//! Runs another version of a plugin over events that the running one has handled, and reports the differences.
//!
//! ```text
//!   events of the subscriber's topic ──┬─> running ──> A ─┬─ A against the recorded outputs ─┐ not
//!   before its position                ├─> running ──> A' ┴─ A against A'                    ├─ deterministic
//!                                      │   other batches                                    ─┘
//!                                      └─> other  ───> B ─── B against A: differences of the other version
//! ```
//!
//! Promises: commits nothing, and does not disturb lanes. A plugin that differs from itself is reported as not
//! deterministic, and such events are counted but not compared with the other version. The compared results are those
//! that a lane would commit: outputs with id, key and topic, state writes, and the failure after all attempts,
//! including the failure for exceeding the state limit. Relies on: the lineage in outputs, to find the recorded results
//! of an event; handlers with instances that no lane uses.
//!
//! Events, and the initial state of all three runs:
//!
//! | over | events | state before the first |
//! |---|---|---|
//! | `Last` | the last stored ones | given by the caller, since the original state is no longer known |
//! | `Behind` | those after a snapshot | the snapshot's |
//! | `Coming` | new ones, after the lanes have handled them | the lanes' current state |
//!
//! Differences from results that the running version recorded with another state are reported separately.

mod coming;
mod record;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::api::{Cost, Difference, DifferenceKind, ShadowOutput, ShadowRange, ShadowReport, ShadowResult};
use crate::dispatch::ops::error::ControlError;
use crate::dispatch::ops::subscriber::Subscriber;
use crate::engine::{Engine, ReadError, StopReason};
use crate::model::EventView;
use crate::model::call::{Handler, InstanceError};
use record::{RecordedResults, Selection};
use run::{EventRun, States};

/// Options of a comparison.
#[derive(Debug, Clone)]
pub struct ShadowOptions {
    pub over: ShadowRange,
    /// Maximum number of differences in the report; all are counted.
    pub shown: usize,
    /// Cancel to end a comparison over future events early; the report then has the results so far.
    pub enough: CancellationToken,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// Data of the subscriber cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored event is invalid.
    #[error("{0}")]
    Unreadable(String),
    /// One of the versions cannot be instantiated.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
    /// The events or results do not fit into memory.
    #[error(
        "the events, their results, or the plugin's state exceed {max} bytes, the memory limit of a comparison; \
         compare fewer events"
    )]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
}

impl<E: Engine> Subscriber<E> {
    /// Runs another version of its plugin over handled events of its topic, next to the running version, and
    /// reports the differences. `running` and `other` must be handlers of their own, with fresh instances.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub async fn shadow<H: Handler>(
        &self,
        running: &H,
        other: &H,
        options: &ShadowOptions,
    ) -> Result<ShadowReport, ShadowError> {
        let (mut report, versions) = (ShadowReport::default(), VersionPair { running, other });
        let (parts, state) = match &options.over {
            ShadowRange::Last { events, state } => (self.select_last(*events).await?, state.clone()),
            ShadowRange::Behind { snapshot, events } => {
                let (positions, state) = self.snapshots().state_of(*snapshot).await?;
                (self.select_behind(&positions, *events).await?, state)
            }
            ShadowRange::Coming { events, time } => {
                let (events, enough) = (events.unwrap_or(u64::MAX), options.enough.child_token());
                let coming = self.shadow_coming(&versions, (events, &enough), options.shown, &mut report);
                let is_over = async {
                    match time {
                        Some(time) => tokio::time::sleep(*time).await,
                        None => std::future::pending().await,
                    }
                    enough.cancel(); // which ends it with the results so far
                    std::future::pending().await
                };
                tokio::select! {
                    compared = coming => compared?,
                    never = is_over => never,
                }
                (Vec::new(), Vec::new())
            }
        };
        let with_states = |part: Selection| {
            let states = States::of(&state, part.partition, self.plan());
            (part, states)
        };
        let mut parts: Vec<_> = parts.into_iter().map(with_states).collect();
        let parts: Vec<_> = parts.iter_mut().map(|(part, states)| (part, &*states)).collect();
        self.compare_parts(&versions, parts, (true, options.shown), &mut report).await?;
        report.running.memory_peak_bytes = running.memory_peak_bytes();
        report.other.memory_peak_bytes = other.memory_peak_bytes();
        Ok(report)
    }

    /// Runs the versions over parts, and adds the results to the report. `against_record`: also compares the running
    /// version with its record.
    async fn compare_parts<H: Handler>(
        &self,
        versions: &VersionPair<'_, H>,
        mut parts: Vec<(&mut Selection, &States)>,
        (against_record, shown): (bool, usize),
        report: &mut ShadowReport,
    ) -> Result<(), ShadowError> {
        let recorded = match against_record {
            true => self.recorded(parts.iter().map(|(part, _)| &**part)).await?,
            false => RecordedResults::default(),
        };
        for (part, states) in &mut parts {
            if self.plan().queue_group.is_some() {
                // In a claim group, nothing else tells which member handled an event.
                report.not_its_own += recorded.keep_known(part);
            }
            report.passed_over += part.passed_over;
            report.waiting += part.waiting;
            let Some(runner) = self.runner(part) else { continue };
            let expected = runner.run(versions.running, &states.running, SEED, &mut report.running).await?;
            // The result must not depend on the boundaries of calls, or on earlier events of an instance.
            let again = runner.run(versions.running, &states.again, OTHER_SEED, &mut Cost::default()).await?;
            let others = runner.run(versions.other, &states.other, SEED, &mut report.other).await?;
            for ((ran, again), other) in expected.into_iter().zip(again).zip(others) {
                report.events += 1;
                report.compare(part, &recorded, ran, again, other, shown)?;
            }
        }
        Ok(())
    }
}

/// The versions of a comparison.
struct VersionPair<'a, H> {
    running: &'a H,
    other: &'a H,
}

/// Seeds of the batch sizes; equal for the two runs whose cost is compared.
const SEED: u64 = 1;
const OTHER_SEED: u64 = 2;

impl ShadowReport {
    fn compare(
        &mut self,
        part: &Selection,
        recorded: &RecordedResults,
        ran: EventRun,
        again: EventRun,
        other: EventRun,
        shown_max: usize,
    ) -> Result<(), ShadowError> {
        let mut differs = |kind: DifferenceKind, running: &ShadowResult, other: &ShadowResult| {
            if self.shown.len() < shown_max {
                let held = part.held.get(ran.at);
                let parsed = held.map(|held| held.parse()).transpose();
                let parsed = parsed.map_err(|error| ShadowError::Unreadable(error.to_string()))?;
                self.shown.extend(parsed.map(|event| Difference {
                    partition: part.partition,
                    offset: event.offset,
                    id: event.view.id.to_owned(),
                    key: event.key.to_owned(),
                    kind,
                    running: running.clone(),
                    other: other.clone(),
                }));
            }
            Ok::<_, ShadowError>(())
        };
        if ran.seen != again.seen {
            differs(DifferenceKind::NotDeterministic, &ran.seen, &again.seen)?;
            self.not_deterministic += 1;
            return Ok(());
        }
        if let Some(record) = recorded.of(part, ran.at) {
            self.held_against_record += 1;
            if !record.is_like(&ran.seen) {
                let kind = match ran.has_read {
                    true => DifferenceKind::OverOtherState,
                    false => DifferenceKind::NotAsRecorded,
                };
                differs(kind, &record.seen, &ran.seen)?;
                match kind {
                    DifferenceKind::OverOtherState => self.over_other_state += 1,
                    _ => self.not_as_recorded += 1,
                }
            }
        }
        self.compared += 1;
        let outputs = ran.seen.outputs != other.seen.outputs;
        let state = ran.seen.writes != other.seen.writes;
        let failures = ran.seen.failure != other.seen.failure;
        if outputs || state || failures {
            differs(DifferenceKind::OtherVersion, &ran.seen, &other.seen)?;
            self.differing += 1;
            self.outputs += u64::from(outputs);
            self.state += u64::from(state);
            self.failures += u64::from(failures);
        }
        Ok(())
    }
}

/// The id and the content of a stored output.
fn output_of(topic: &str, record: &[u8], is_delayed: bool) -> Result<(String, ShadowOutput), String> {
    let record = crate::model::Record::parse(record).map_err(|error| error.to_string())?;
    let id = EventView::parse(record.event).map_err(|error| error.to_string())?.id.to_owned();
    let (topic, key, event) = (topic.to_owned(), record.key.to_owned(), Bytes::copy_from_slice(record.event));
    Ok((id, ShadowOutput { topic, key, event, is_delayed }))
}

/// Names of topics by number, and whether they hold dead letters.
type TopicNames = Arc<BTreeMap<crate::model::TopicId, (String, bool)>>;
