//! Handlers, which can be called with a batch.

use std::future::Future;
use std::sync::Arc;

use super::{Batch, CallError, Handled, PluginSettings};

/// A function from a batch of events to outputs. Cheap to clone.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The identity of this version.
    fn digest(&self) -> [u8; 32];

    /// The digest of its component, if it has one.
    fn wasm_digest(&self) -> Option<[u8; 32]> {
        None
    }

    fn settings(&self) -> Arc<PluginSettings> {
        Arc::default()
    }

    /// Whether it declares its outputs; otherwise it has those that the topology connects.
    fn declares_ports(&self) -> bool {
        true
    }

    /// The version of its state: a handler with another version cannot read it.
    fn state_version(&self) -> u32 {
        0
    }

    /// The maximum memory of any of its instances, in bytes, if known.
    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }

    /// Why it cannot be called at all; `None` if it can. Its lanes halt.
    fn unavailable(&self) -> Option<&str> {
        None
    }

    /// Whether it is still being compiled: it cannot be called yet, and its lanes wait for the compiled version.
    fn is_compiling(&self) -> bool {
        false
    }

    /// Handles a batch, and says what became of each of its events.
    fn handle(&self, batch: Batch<'_>) -> impl Future<Output = Result<Handled, HandleError>> + Send;
}

/// The handler gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The call failed; the error states the event to blame, if that is certain.
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
        /// The plugin's subscriber.
        subscriber: String,
        /// The error, and the plugin's last output.
        message: String,
    },
    /// The bus is shutting down.
    #[error("plugin of `{subscriber}` cannot start: the plugin host is gone")]
    Closed {
        /// The plugin's subscriber.
        subscriber: String,
    },
}
