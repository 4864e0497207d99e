//! The handlers of a case: its plugins, called in one of two ways.
//!
//! A handler's answer may depend on the event and the state alone, neither on the batch nor on what an instance has
//! seen before. So a case has the same result both ways, and what is different depends on something else: random
//! numbers with a seed per instance, the order of a hash map, a variable that outlives the event.

use std::sync::Arc;

use crate::model::call::{Batch, EventContext, EventVerdict, HandleError, Handled, Handler, LogLevel};
use crate::wasm::Plugin;

/// How the events of a case reach a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallMode {
    /// In batches, by instances that continue from call to call, as on a bus.
    Batches,
    /// Each event alone, by a fresh instance that has handled this event once before.
    Alone,
}

/// A plugin whose requested retry pauses are ignored.
#[derive(Clone)]
pub(super) struct CasePlugin {
    pub(super) plugin: Plugin,
    pub(super) mode: CallMode,
}

impl CasePlugin {
    async fn call(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        if self.mode == CallMode::Batches {
            return Handler::handle(&self.plugin, batch).await;
        }
        self.plugin.begin_afresh();
        let mut instance = self.plugin.instance().await?;
        let unheard = Batch { context: Arc::new(SilentContext(batch.context.clone())), ..batch.clone() };
        // Neither its outputs nor its writes count. A failed call takes the instance along.
        if instance.handle(unheard).await.is_err() {
            drop(instance);
            instance = self.plugin.instance().await?;
        }
        let handled = instance.handle(batch).await;
        drop(instance);
        self.plugin.begin_afresh();
        Ok(handled?)
    }
}

impl Handler for CasePlugin {
    fn digest(&self) -> [u8; 32] {
        *self.plugin.digest().as_bytes()
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let mut handled = self.call(batch).await?;
        for verdict in &mut handled.verdicts {
            if let EventVerdict::Retry { after, .. } = verdict {
                *after = None;
            }
        }
        Ok(handled)
    }
}

/// The context of a call that logs nothing.
struct SilentContext(Arc<dyn EventContext>);

impl EventContext for SilentContext {
    fn attributes(&self, index: u32) -> String {
        self.0.attributes(index)
    }

    fn seed(&self, index: u32) -> [u8; 32] {
        self.0.seed(index)
    }

    fn log(&self, _: Option<u32>, _: LogLevel, _: &str, _: &str) {}
}
