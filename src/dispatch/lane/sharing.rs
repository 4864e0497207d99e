//! A lane's membership in a queue group: claims events, returns them, and goes back for returned events.

use std::time::Duration;

use super::error::LaneError;
use super::reading::ReadEvents;
use super::{Lane, LeaveReason, claims};
use crate::engine::{Entries, Session, Unit};
use crate::limits;
use crate::model::Offset;

/// State of a lane's membership.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// Since when it is paused or halted, trusted time; `None` once it has returned its claims.
    pub(super) stands_since_ns: Option<u64>,
    /// It has gone back to handle returned events.
    errand: Option<Errand>,
}

#[derive(Debug, Clone, Copy)]
struct Errand {
    until: Offset,
    was_at: Offset,
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Claims the events that the lane may handle, and skips those of other members.
    pub(super) async fn share(&mut self, reading: &mut ReadEvents) -> Result<(), LeaveReason> {
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

    /// The lane stops from now on. Returns the time to be stored durably.
    pub(super) fn stands(&mut self) -> Vec<u8> {
        let Some(share) = &self.parts.share else { return Vec::new() };
        let now_ns = share.now_ns();
        self.part.stands_since_ns.get_or_insert(now_ns).to_le_bytes().to_vec()
    }

    /// Restores since when the lane is stopped, from the stored time.
    pub(super) fn stood(&mut self, since: Option<&[u8]>) {
        if let Some(share) = &self.parts.share {
            let since_ns = since.and_then(|since| Some(u64::from_le_bytes(since.try_into().ok()?)));
            self.part.stands_since_ns = Some(since_ns.unwrap_or_else(|| share.now_ns()));
        }
    }

    pub(super) fn goes_on(&mut self) {
        self.part.stands_since_ns = None;
    }

    /// Time until a stopped lane returns its claims.
    pub(super) fn keeps_claims_for(&self) -> Option<Duration> {
        let (share, since_ns) = (self.parts.share.as_ref()?, self.part.stands_since_ns?);
        let stood = Duration::from_nanos(share.now_ns().saturating_sub(since_ns));
        Some(self.parts.policy.queue_group_timeout.saturating_sub(stood))
    }

    /// Returns claims that are not begun, if the lane has been stopped for long enough.
    pub(super) async fn give_back(&mut self) -> Result<(), LaneError> {
        if self.works() || self.keeps_claims_for() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.part.stands_since_ns = None;
        let Some(share) = &self.parts.share else { return Ok(()) };
        if share.give_back(self.position).await? {
            let (subscriber, partition, position) = (&*self.parts.subscriber, self.parts.partition, self.position);
            tracing::warn!(subscriber, partition, position, "its claims that it has not begun went back to its group");
        }
        Ok(())
    }

    /// Goes back for events that others have returned, and then to its previous position.
    pub(super) async fn run_errands(&mut self) -> Result<(), LaneError> {
        let works = self.works();
        let Some(share) = self.parts.share.as_mut().filter(|_| works) else { return Ok(()) };
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

/// Sleeps until a stopped lane may return its claims.
pub(super) async fn claims_end(left: Option<Duration>) {
    match left {
        // its clock may be set meanwhile
        Some(left) => tokio::time::sleep(left.min(limits::DELAY_LOOK_EVERY)).await,
        None => std::future::pending().await,
    }
}
