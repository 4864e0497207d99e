//! Makes a plugin a handler: an instance is leased for each batch, because there are many lanes and few instances.

use std::sync::Arc;

use super::Plugin;
use crate::model::call::{Batch, HandleError, Handled, Handler, PluginSettings};

impl Handler for Plugin {
    fn digest(&self) -> [u8; 32] {
        *Plugin::digest(self).as_bytes()
    }

    fn wasm_digest(&self) -> Option<[u8; 32]> {
        Some(*Plugin::wasm_digest(self).as_bytes())
    }

    fn settings(&self) -> Arc<PluginSettings> {
        Plugin::settings(self)
    }

    fn declares_ports(&self) -> bool {
        Plugin::declares_ports(self)
    }

    fn state_version(&self) -> u32 {
        Plugin::state_version(self)
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        Some(Plugin::memory_peak_bytes(self))
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        // Leased for one batch: there are many lanes and few instances.
        let mut instance = self.instance().await?;
        Ok(instance.handle(batch).await?)
    }
}
