//! The guards of topics, as the appender asks them: in the order of places, behind what was published already.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::Kept;
use super::kept::EntriesOf;
use super::{Settings, Shared};
use crate::model::{Duplicate, GuardJudge, GuardRefused, GuardStates, PartitionId, Slices, keeper_of};

/// The guards of topics.
pub(super) struct Guards<'s> {
    pub(super) shared: &'s Shared,
    pub(super) settings: &'s Settings,
}

impl Guards<'_> {
    /// What partitions keep once these records, but for the duplicates among them, have their places.
    pub(super) fn judge(&self, slices: &Slices, duplicates: &[Duplicate]) -> Result<Vec<Kept>, GuardRefused> {
        if !slices.is_guarded() {
            return Ok(Vec::new());
        }
        let mut judge = GuardJudge::new(self);
        for (number, slice) in (0..).zip(slices.iter()) {
            let Some(lifecycle) = self.settings.lifecycles.get(&slice.partition.topic) else { continue };
            for (record, guard) in (0..).zip(&slice.guards) {
                let at = duplicates.binary_search_by_key(&(number, record), |known| (known.slice, known.record));
                if at.is_err() {
                    judge.judge(slice.partition, lifecycle, guard)?;
                }
            }
        }
        Ok(judge.writes())
    }
}

impl GuardStates for Guards<'_> {
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        let lane = self.shared.lane(keeper_of(partition));
        EntriesOf { shared: self.shared, lane: &lane }.get(key).map_err(|error| error.to_string().into())
    }
}
