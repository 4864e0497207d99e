//! A version of a plugin beside the one that runs, over events that it has handled: what would be different.
//!
//! ```text
//!   events of the subscriber's topic ──┬─> running ──> A ─┬─ A against what is in the topics behind it ─┐ not
//!   in front of its position           ├─> running ──> A' ┴─ A against A'                               ├─ deterministic
//!                                      │   other batches                                               ─┘
//!                                      └─> other  ───> B ─── B against A: differences of the other version
//! ```
//!
//! Promises: nothing is committed, and lanes are not disturbed. A plugin that differs from itself is said not to be
//! deterministic, and such events are not held against the other version; how many were is said. What is compared is what a
//! lane would have committed: outputs with their identity, key and topic, what was written to the state, how an event fails
//! after all its attempts, also for a state that is larger than it may be.
//! Relies on: the lineage in outputs, to find what was recorded of an event; handlers whose instances are not those that
//! lanes use.
//!
//! Which events, and the state that all three begin with:
//!
//! | over | events | state in front of the first |
//! |---|---|---|
//! | `Last` | the last ones that are kept | what is given: what there was is not known any more |
//! | `Behind` | those behind a snapshot | the snapshot's |
//! | `Coming` | those that come, once the lanes have handled them | what the lanes keep now |
//!
//! What the running version recorded over other state is told apart.

mod coming;
mod record;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::api::{Cost, Difference, DifferenceKind, Seen, SeenOutput, ShadowReport, StateOfPartition};
use crate::dispatch::ops::error::ControlError;
use crate::dispatch::ops::find::Found;
use crate::dispatch::tree::Tree;
use crate::engine::{Engine, ReadError, Stopped};
use crate::model::EventView;
use crate::model::call::{Handler, InstanceError};
use record::{Recorded, Selected};
use run::{Ran, States};

/// Which events to compare over, all partitions together.
#[derive(Debug, Clone)]
pub enum Over {
    /// The last ones.
    Last {
        /// So many.
        events: u32,
        /// What the plugin keeps in front of the first of them, in each partition; nothing where this is empty.
        state: Vec<StateOfPartition>,
    },
    /// Those behind a snapshot, with the state that is in it.
    Behind {
        /// Its number.
        snapshot: u64,
        /// So many at the most.
        events: u32,
    },
    /// Those that the lanes handle from now on, with the state that they have now.
    Coming {
        /// Ends after so many.
        events: u64,
        /// Ends, with what was compared by then, when somebody cancels this.
        enough: CancellationToken,
    },
}

/// What to compare over.
#[derive(Debug, Clone)]
pub struct ShadowOptions {
    /// Which events.
    pub over: Over,
    /// Differences that are shown; the others are counted.
    pub shown: usize,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// There is no such subscriber, or what it keeps cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// One that is stored is not one.
    #[error("{0}")]
    Unreadable(String),
    /// One of the versions cannot be called.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// They do not fit into memory.
    #[error(
        "the events, their results, or the plugin's state exceed {max} bytes, the memory limit of a comparison; \
         compare fewer events"
    )]
    TooLarge {
        /// How many bytes they may have.
        max: usize,
    },
}

impl<E: Engine> Tree<E> {
    /// Runs another version of a subscriber's plugin beside the running one over events of its topic that it has handled, and
    /// says what differs. `running` and `other` are handlers of their own: their instances are fresh.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub async fn shadow<H: Handler>(
        &self,
        subscriber: &str,
        running: &H,
        other: &H,
        options: &ShadowOptions,
    ) -> Result<ShadowReport, ShadowError> {
        let (mut report, versions) = (ShadowReport::default(), Versions { running, other });
        let found = self.subscriber(subscriber)?;
        let (parts, state) = match &options.over {
            Over::Last { events, state } => (self.select_last(&found, *events).await?, state.clone()),
            Over::Behind { snapshot, events } => {
                let (positions, state) = self.state_of_snapshot(&found, *snapshot).await?;
                (self.select_behind(&found, &positions, *events).await?, state)
            }
            Over::Coming { events, enough } => {
                self.shadow_coming(&found, &versions, (*events, enough), options.shown, &mut report).await?;
                (Vec::new(), Vec::new())
            }
        };
        let with_states = |part: Selected| {
            let states = States::of(&state, part.partition, found.plan());
            (part, states)
        };
        let mut parts: Vec<_> = parts.into_iter().map(with_states).collect();
        let parts: Vec<_> = parts.iter_mut().map(|(part, states)| (part, &*states)).collect();
        self.compare_parts(&found, &versions, parts, (true, options.shown), &mut report).await?;
        report.running.memory_peak_bytes = running.memory_peak_bytes();
        report.other.memory_peak_bytes = other.memory_peak_bytes();
        Ok(report)
    }

    /// Runs the versions over parts, and adds what differs. The running version is held against its record, or only against
    /// itself.
    async fn compare_parts<H: Handler>(
        &self,
        found: &Found,
        versions: &Versions<'_, H>,
        mut parts: Vec<(&mut Selected, &States)>,
        (against_record, shown): (bool, usize),
        report: &mut ShadowReport,
    ) -> Result<(), ShadowError> {
        let subscriber = found.plan().label();
        let recorded = match against_record {
            true => self.recorded(&subscriber, parts.iter().map(|(part, _)| &**part)).await?,
            false => Recorded::default(),
        };
        for (part, states) in &mut parts {
            if found.plan().claim.is_some() {
                // Whose the others are is not known any more.
                report.not_its_own += recorded.keep_known(part);
            }
            report.passed_over += part.passed_over;
            report.waiting += part.waiting;
            let Some(runner) = self.runner(&subscriber, part)? else { continue };
            let expected = runner.run(versions.running, &states.running, SEED, &mut report.running).await?;
            // Where calls begin and end is nobody's business, and neither is what an instance has seen before.
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

/// The versions that are compared.
struct Versions<'a, H> {
    running: &'a H,
    other: &'a H,
}

/// What the sizes of calls follow from; the same for the two that are compared for time.
const SEED: u64 = 1;
const OTHER_SEED: u64 = 2;

impl ShadowReport {
    fn compare(
        &mut self,
        part: &Selected,
        recorded: &Recorded,
        ran: Ran,
        again: Ran,
        other: Ran,
        shown_max: usize,
    ) -> Result<(), ShadowError> {
        let mut differs = |kind: DifferenceKind, running: &Seen, other: &Seen| {
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

/// The events of a record, as far as they are outputs: with their ids.
fn output_of(topic: &str, record: &[u8], is_delayed: bool) -> Result<(String, SeenOutput), String> {
    let record = crate::model::Record::parse(record).map_err(|error| error.to_string())?;
    let id = EventView::parse(record.event).map_err(|error| error.to_string())?.id.to_owned();
    let (topic, key, event) = (topic.to_owned(), record.key.to_owned(), Bytes::copy_from_slice(record.event));
    Ok((id, SeenOutput { topic, key, event, is_delayed }))
}

/// Names of topics by number.
type TopicNames = Arc<BTreeMap<crate::model::TopicId, (String, bool)>>;
