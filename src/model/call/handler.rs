//! What can be called with a batch.

use std::future::Future;
use std::sync::Arc;

use super::{Batch, CallError, Handled, PluginSettings};

/// A function from a batch of events to outputs. Cheap to clone.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The identity of this version.
    fn digest(&self) -> [u8; 32];

    /// The hash of its component, if it has one: what it can be found by.
    fn wasm_digest(&self) -> Option<[u8; 32]> {
        None
    }

    /// What it was made with beside its component.
    fn settings(&self) -> Arc<PluginSettings> {
        Arc::default()
    }

    /// Whether it says which outputs it has; else it has those that the topology connects.
    fn declares_ports(&self) -> bool {
        true
    }

    /// The version of the state that it keeps: one of another version cannot read what this one has written.
    fn state_version(&self) -> u32 {
        0
    }

    /// The most memory that any of its instances had, in bytes, if that is known.
    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }

    /// Handles a batch, and says what became of each of its events.
    fn handle(&self, batch: Batch<'_>) -> impl Future<Output = Result<Handled, HandleError>> + Send;
}

/// The handler gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The call failed; it says which event is to blame, if any is for sure.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There was no instance to call: no event is to blame.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Why a plugin could not start an instance, although it could when it was registered.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The plugin failed while it started.
    #[error("plugin of `{subscriber}` did not start: {message}")]
    Start {
        /// The subscriber whose plugin it is.
        subscriber: String,
        /// What happened, and what the plugin said last.
        message: String,
    },
    /// The bus is shutting down.
    #[error("plugin of `{subscriber}` cannot start: the plugin host is gone")]
    Closed {
        /// The subscriber whose plugin it is.
        subscriber: String,
    },
}
