//! Locks per subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::SubscriberId;

/// Locks that serialise the snapshots of each subscriber.
#[derive(Debug, Default)]
pub(crate) struct SnapshotLocks(Mutex<BTreeMap<SubscriberId, Arc<tokio::sync::Mutex<()>>>>);

impl SnapshotLocks {
    pub(crate) fn of(&self, subscriber: SubscriberId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(subscriber).or_default().clone()
    }
}
