//! A lane's part in a group that shares events: what it claims, what it gives back, and what it goes back for.

use std::time::Duration;

use super::error::LaneError;
use super::reading::Reading;
use super::{Lane, Leave, claims};
use crate::engine::{Entries, Session, Unit};
use crate::limits;
use crate::model::Offset;

/// What a lane knows of its part.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Since when it is paused or halted, trusted time; `None` once it has given back what it had.
    pub(super) stands_since_ns: Option<u64>,
    /// It has gone back as far as there is something to look at, and was there before.
    errand: Option<Errand>,
}

#[derive(Debug, Clone, Copy)]
struct Errand {
    until: Offset,
    was_at: Offset,
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Claims those of some events that it may handle, and leaves out those that are somebody else's.
    pub(super) async fn share(&mut self, reading: &mut Reading) -> Result<(), Leave> {
        let Some(share) = &self.parts.share else { return Ok(()) };
        let wanted: Vec<_> = reading.held.iter().map(|held| share.wanted(held)).collect();
        let claimed = share.claim(self.position, &wanted).await?;
        self.parts.counters.repeated(claimed.repeated);
        reading.leave_out(&claimed.lost);
        if claimed.is_new {
            self.parts.session.sync().await?;
        }
        if share.has_former {
            let writes = claims::former_entries(&self.parts.entries)?;
            if let Some(share) = &mut self.parts.share {
                share.has_former = !writes.is_empty();
            }
            self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
        }
        Ok(())
    }

    /// It stands still from now on: durably, as what is returned.
    pub(super) fn stands(&mut self) -> Vec<u8> {
        let Some(share) = &self.parts.share else { return Vec::new() };
        let now_ns = share.now_ns();
        self.part.stands_since_ns.get_or_insert(now_ns).to_le_bytes().to_vec()
    }

    /// Where it was left standing still, and since when, as far as that was kept.
    pub(super) fn stood(&mut self, since: Option<&[u8]>) {
        if let Some(share) = &self.parts.share {
            let since_ns = since.and_then(|since| Some(u64::from_le_bytes(since.try_into().ok()?)));
            self.part.stands_since_ns = Some(since_ns.unwrap_or_else(|| share.now_ns()));
        }
    }

    pub(super) fn goes_on(&mut self) {
        self.part.stands_since_ns = None;
    }

    /// How long it may be until it gives back what it has claimed, where it stands still.
    pub(super) fn keeps_claims_for(&self) -> Option<Duration> {
        let (share, since_ns) = (self.parts.share.as_ref()?, self.part.stands_since_ns?);
        let stood = Duration::from_nanos(share.now_ns().saturating_sub(since_ns));
        Some(self.parts.policy.claim_timeout.saturating_sub(stood))
    }

    /// Gives back what it has claimed and not begun, where it has stood still for long enough.
    pub(super) async fn give_back(&mut self) -> Result<(), LaneError> {
        if self.works() || self.keeps_claims_for() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.part.stands_since_ns = None;
        let Some(share) = &self.parts.share else { return Ok(()) };
        if share.give_back(self.position).await? {
            let (subscriber, partition, position) = (&*self.parts.subscriber, self.parts.partition, self.position);
            tracing::warn!(subscriber, partition, position, "what it has claimed and not begun is its group's again");
        }
        Ok(())
    }

    /// Goes back for what others have given back, and from there to where it was.
    pub(super) async fn run_errands(&mut self) -> Result<(), LaneError> {
        let Some(share) = self.parts.share.as_mut().filter(|_| self.told == super::Told::default()) else {
            return Ok(());
        };
        let was_at = self.part.errand.map_or(self.position, |errand| errand.was_at.max(self.position));
        if let Some((from, until)) = share.go_back(self.position).await? {
            self.part.errand = Some(Errand { until, was_at });
            self.position = from;
            self.seek_to_position().await?;
        }
        if let Some(errand) = self.part.errand.filter(|errand| errand.until <= self.position) {
            self.part.errand = None;
            if self.position < errand.was_at {
                self.position = errand.was_at;
                self.seek_to_position().await?;
            }
        }
        Ok(())
    }
}

/// Sleeps until a lane that stands still may give back what it has claimed.
pub(super) async fn claims_end(left: Option<Duration>) {
    match left {
        // the clock by which that goes may be set meanwhile
        Some(left) => tokio::time::sleep(left.min(limits::DELAY_LOOK_EVERY)).await,
        None => std::future::pending().await,
    }
}
