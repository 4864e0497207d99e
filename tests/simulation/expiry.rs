//! What retention may have removed, by trusted time; whether that is right is looked at in `trust.rs`.
//!
//! Promised: nothing goes before it is as old as the settings say, or before its partition is larger than they say, or
//! before every live subscriber has processed it, unless the settings force that; and nothing goes for its age while
//! the wall clock is far ahead.

use std::collections::BTreeMap;
use std::time::Duration;

use wattle::log::{Log, Settings};
use wattle::model::{PartitionId, Retention};

use super::model::Model;
use super::plan::PARTITIONS;

#[derive(Default)]
pub(crate) struct Expiry {
    /// Up to where events may be gone, at the most.
    allowed: BTreeMap<PartitionId, u64>,
}

/// Bytes of events in a segment, and around them, at the most.
fn bytes_max(model: &Model, id: PartitionId, from: u64, end: u64) -> u64 {
    let Some(events) = model.partitions.get(&id) else { return 0 };
    events[from as usize..end as usize].iter().map(|event| event.bytes.len() as u64 + 100).sum()
}

impl Expiry {
    /// As the settings and the clock are at this step: what may go, may go.
    pub(crate) fn allow(&mut self, model: &Model, settings: &Settings, trusted_ns: u64, is_frozen: bool) {
        for id in PARTITIONS {
            let Some(topic) = settings.topics.get(&id.topic) else { continue };
            let readers = settings.readers.get(&id.topic).map(Vec::as_slice).unwrap_or_default();
            let reached = match topic.retention.force {
                true => u64::MAX,
                false => model.reached(id, readers, model.published),
            };
            let retention = Retention { age: topic.retention.age.filter(|_| !is_frozen), ..topic.retention };
            let end = model.end(id, model.published);
            let allowed = self.allowed.get(&id).copied().unwrap_or(0);
            let until = Self::until(model, id, &retention, (allowed.min(end), end), trusted_ns);
            self.allowed.insert(id, allowed.max(until.min(reached)));
        }
    }

    fn until(model: &Model, id: PartitionId, retention: &Retention, (from, end): (u64, u64), trusted_ns: u64) -> u64 {
        if retention.partition_bytes.is_some_and(|max| bytes_max(model, id, 0, end) > max) {
            return end;
        }
        let Some(age_ns) = retention.age.map(|age: Duration| age.as_nanos() as u64) else { return from };
        let is_old = |offset: &u64| {
            let unit = &model.units[model.partitions[&id][*offset as usize].unit];
            trusted_ns - unit.trusted_ns >= age_ns
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
