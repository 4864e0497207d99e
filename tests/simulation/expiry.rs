//! What retention may have removed, by a clock that never jumps.
//!
//! Promised: nothing goes before it is as old as the settings say, or before its partition is larger than they say, or
//! before every live subscriber has processed it, unless the settings force that.
//! Not promised: a wall clock that was put ahead by less than a day between the last checkpoint and a start is believed, as
//! nothing else is there to tell; and somebody who confirms the clock is believed about all that was appended before.

use std::collections::BTreeMap;
use std::time::Duration;

use wattle::log::{Log, Settings};
use wattle::model::{PartitionId, Retention};

use super::model::Model;
use super::plan::{DAY, PARTITIONS};

#[derive(Default)]
pub(crate) struct Expiry {
    /// Up to where events may be gone, at the most.
    allowed: BTreeMap<PartitionId, u64>,
    /// By how much time may have been overestimated, because nobody could know better.
    lenience_ns: u64,
    /// By how much the wall clock has jumped ahead since the last start.
    jumped_ns: u64,
    /// When somebody confirmed the clock last.
    confirmed_ns: Option<u64>,
    /// The highest that the wall clock was when anything could expire.
    wall_ns: u64,
}

/// Bytes of events in a segment, and around them, at the most.
fn bytes_max(model: &Model, id: PartitionId, from: u64, end: u64) -> u64 {
    let Some(events) = model.partitions.get(&id) else { return 0 };
    events[from as usize..end as usize].iter().map(|event| event.bytes.len() as u64 + 100).sum()
}

impl Expiry {
    pub(crate) fn jumped(&mut self, ahead_ns: u64) {
        self.jumped_ns = self.jumped_ns.saturating_add(ahead_ns);
    }

    /// The log starts.
    pub(crate) fn started(&mut self) {
        self.lenience_ns = self.lenience_ns.saturating_add(self.jumped_ns.min(DAY));
        self.jumped_ns = 0;
    }

    pub(crate) fn confirmed(&mut self, true_ns: u64) {
        self.confirmed_ns = Some(true_ns);
    }

    /// As the settings and the clock are at this step: what may go, may go.
    pub(crate) fn allow(&mut self, model: &Model, settings: &Settings, (true_ns, wall_ns): (u64, u64)) {
        self.wall_ns = self.wall_ns.max(wall_ns);
        for id in PARTITIONS {
            let Some(topic) = settings.topics.get(&id.topic) else { continue };
            let readers = settings.readers.get(&id.topic).map(Vec::as_slice).unwrap_or_default();
            let reached = match topic.retention.force {
                true => u64::MAX,
                false => model.reached(id, readers, model.published),
            };
            let end = model.end(id, model.published);
            let allowed = self.allowed.get(&id).copied().unwrap_or(0);
            let until = self.until(model, id, &topic.retention, (allowed.min(end), end), true_ns);
            self.allowed.insert(id, allowed.max(until.min(reached)));
        }
    }

    fn until(
        &self,
        model: &Model,
        id: PartitionId,
        retention: &Retention,
        (from, end): (u64, u64),
        true_ns: u64,
    ) -> u64 {
        if retention.partition_bytes.is_some_and(|max| bytes_max(model, id, 0, end) > max) {
            return end;
        }
        let Some(age_ns) = retention.age.map(|age: Duration| age.as_nanos() as u64) else { return from };
        let is_old = |offset: &u64| {
            let unit = &model.units[model.partitions[&id][*offset as usize].unit];
            let by_wall = self.confirmed_ns.is_some_and(|confirmed| unit.true_ns <= confirmed)
                && unit.time_ns.is_some_and(|time| self.wall_ns.saturating_sub(time) >= age_ns);
            by_wall || (true_ns - unit.true_ns).saturating_add(self.lenience_ns) >= age_ns
        };
        from + (from..end).take_while(is_old).count() as u64
    }

    /// Nothing is gone that may not be.
    pub(crate) fn check(&self, log: &Log) {
        for id in PARTITIONS {
            let (start, allowed) = (log.partition(id).start(), self.allowed.get(&id).copied().unwrap_or(0));
            assert!(
                start <= allowed,
                "{id:?}: events in front of {start} are gone; only those in front of {allowed} may"
            );
        }
    }
}
