//! Compares versions over new events, after the lanes have handled them, so that their recorded results exist.
//!
//! ```text
//!   lanes   ──────────────────> position        state and position of each lane are read once, between two calls
//!   shadow  ─────> next ~ ~ ~ ~ ~ ^             from there on each version continues with its own copy of the state
//! ```
//!
//! Promises: does not delay lanes, and does not prevent retention: events that expire before they are compared are
//! counted and skipped. A cancelled round leaves the report unchanged.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::run::States;
use super::{ShadowError, VersionPair};
use crate::api::{ShadowReport, StateOfPartition};
use crate::dispatch::lane::state;
use crate::dispatch::ops::error::{ControlError, SnapshotError};
use crate::dispatch::ops::subscriber::Subscriber;
use crate::engine::{Engine, Entries};
use crate::limits;
use crate::model::Offset;
use crate::model::call::Handler;

/// Events of a partition that are compared before the next partition is served.
const ROUND_EVENTS: u64 = 256;
/// Maximum distance to the newest event at which events are compared with their recorded results. The search for
/// recorded results reads from the first event to the end, so its cost grows with the distance.
const RECORD_WITHIN: u64 = 1_000;
/// Interval at which the positions of the lanes are checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// State entries that are read at once.
const STATE_PAGE: usize = 1_000;
/// Memory of an entry in addition to its key and value.
const ENTRY_BYTES: usize = 128;

/// Progress of the comparison in a partition.
struct PartitionProgress {
    partition: u32,
    next: Offset,
    states: States,
}

impl<E: Engine> Subscriber<E> {
    /// Compares over the events that lanes handle from now on.
    pub(super) async fn shadow_coming<H: Handler>(
        &self,
        versions: &VersionPair<'_, H>,
        (events, enough): (u64, &CancellationToken),
        shown: usize,
        report: &mut ShadowReport,
    ) -> Result<(), ShadowError> {
        let Some(begun) = enough.run_until_cancelled(self.state_now()).await else { return Ok(()) };
        let (positions, states) = begun?;
        let place = |(partition, (next, state)): (u32, (Offset, Vec<_>))| PartitionProgress {
            partition,
            next,
            states: States::of(&state, partition, self.plan()),
        };
        let mut places: Vec<_> = (0..).zip(positions.into_iter().zip(states)).map(place).collect();
        let followed = self.follow(versions, &mut places, (events, enough), shown, report).await;
        for place in &places {
            report.not_reached += self.handled_of(place.partition).end.saturating_sub(place.next);
        }
        match followed {
            // The results before the error count, however long they took.
            Err(error) if report.events > 0 => report.broke_off = Some(error.to_string()),
            followed => followed?,
        }
        Ok(())
    }

    /// Compares over newly handled events. After an error the report has the results before it.
    async fn follow<H: Handler>(
        &self,
        versions: &VersionPair<'_, H>,
        places: &mut [PartitionProgress],
        (events, enough): (u64, &CancellationToken),
        shown: usize,
        report: &mut ShadowReport,
    ) -> Result<(), ShadowError> {
        let (name, compared) = (self.name(), self.stable_version());
        while !enough.is_cancelled() && report.events < events {
            let now = self.tree.subscriber(&name).ok();
            let now = now.filter(|now| now.number == self.number && now.input == self.input);
            if now.is_none_or(|now| now.stable_version() != compared) {
                report.is_superseded = true;
                break;
            }
            let mut is_idle = true;
            for place in &mut *places {
                // it may have been changed or removed
                let now = self.tree.subscriber(&name).map_err(ControlError::from)?;
                let (before, most) = (report.clone(), events.saturating_sub(report.events).min(ROUND_EVENTS));
                let round = now.round(versions, place, (most, shown), report);
                match enough.run_until_cancelled(round).await {
                    Some(Ok(compared)) => is_idle &= !compared,
                    Some(Err(error)) => {
                        *report = before;
                        return Err(error);
                    }
                    None => {
                        *report = before;
                        break;
                    }
                }
            }
            if places.iter().map(|place| place.states.bytes()).sum::<u64>() > limits::SHADOW_BYTES_MAX as u64 {
                return Err(ShadowError::TooLarge { max: limits::SHADOW_BYTES_MAX });
            }
            if is_idle {
                enough.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
            }
        }
        Ok(())
    }

    /// Compares the next events of a partition; false if there are none.
    async fn round<H: Handler>(
        &self,
        versions: &VersionPair<'_, H>,
        place: &mut PartitionProgress,
        (most, shown): (u64, usize),
        report: &mut ShadowReport,
    ) -> Result<bool, ShadowError> {
        let handled = self.handled_of(place.partition);
        if place.next < handled.start {
            report.not_reached += handled.start - place.next;
            place.next = handled.start;
        }
        if place.next >= handled.end || most == 0 {
            return Ok(false);
        }
        let (mut part, next) = self.read_part(place.partition, place.next..handled.end, most, &mut 0).await?;
        // In a claim group, only the record tells which subscriber handled an event.
        let is_near = handled.end - place.next <= RECORD_WITHIN || self.plan().queue_group.is_some();
        let parts = vec![(&mut part, &place.states)];
        self.compare_parts(versions, parts, (is_near, shown), report).await?;
        place.next = next;
        Ok(true)
    }

    /// Position and state of each lane, consistent per lane.
    async fn state_now(&self) -> Result<(Vec<Offset>, Vec<Vec<StateOfPartition>>), ShadowError> {
        let (positions, lanes): (Vec<Offset>, Vec<E::Entries>) = self.snapshots().freeze().await?.into_iter().unzip();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = 0;
            let states = (0..).zip(&lanes).map(|(partition, entries)| read_state(partition, entries, &mut bytes));
            states.collect::<Result<Vec<_>, ShadowError>>()
        });
        let state = read.await.map_err(|error| ControlError::Snapshot(SnapshotError::Disk(error.to_string())))??;
        Ok((positions, state))
    }
}

/// The state of a lane. `bytes` is the running total of bytes read.
fn read_state(partition: u32, entries: &impl Entries, bytes: &mut usize) -> Result<Vec<StateOfPartition>, ShadowError> {
    let (mut behind, mut all) = (None::<Vec<u8>>, Vec::new());
    loop {
        let (page, is_last) = state::list(entries, behind.as_deref(), STATE_PAGE)?;
        behind = page.last().map(|last| state::position_behind(&last.bucket, &last.key));
        *bytes += page.iter().map(|entry| entry.key.len() + entry.value.len() + ENTRY_BYTES).sum::<usize>();
        if *bytes > limits::SHADOW_BYTES_MAX {
            return Err(ShadowError::TooLarge { max: limits::SHADOW_BYTES_MAX });
        }
        all.extend(page.into_iter().map(|entry| StateOfPartition { partition, entry }));
        if is_last {
            return Ok(all);
        }
    }
}
