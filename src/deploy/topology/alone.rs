//! One change of what is applied at a time.

use std::sync::atomic::Ordering;

use tokio::sync::MutexGuard;

use crate::deploy::compile::Compile;
use crate::deploy::record::error::StoreError;
use crate::deploy::reloader::Reloader;
use crate::deploy::topology::error::TopologyError;
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Waits for exclusive access to the applied topology.
    pub(super) async fn alone(&self) -> Result<MutexGuard<'_, ()>, TopologyError> {
        self.while_wanted(self.shared.applying.lock()).await.ok_or(TopologyError::Closed)
    }

    pub(super) fn is_finished(&self) -> Result<(), TopologyError> {
        match self.shared.is_unfinished.load(Ordering::Acquire) {
            true => Err(TopologyError::Unfinished),
            false => Ok(()),
        }
    }

    pub(super) async fn on_disk(
        &self,
        work: impl FnOnce(&Self) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), TopologyError> {
        let reloader = self.clone();
        let done = self.shared.runtime.spawn_blocking(move || work(&reloader)).await;
        Ok(done.map_err(|_| TopologyError::Closed)??)
    }
}
