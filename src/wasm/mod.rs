//! Runs plugins: WebAssembly components, functions from events to events, each in a sandbox of its own.
//!
//! **Promises.** Whatever a plugin does harms only the event it is on: it cannot keep a thread, grow past its memory,
//! read the machine's clock or files, or leave anything behind for the next event but its own memory. What it sees of
//! the world follows from the current event and the lane's state, so the same event over the same state gives the same
//! outputs and writes, in any batch and any instance. What a call returns has been checked: ports exist, outputs are in
//! order, outputs and writes within their limits. What a failed event wrote is not in it.
//!
//! **Relies on** wasmtime for isolation, on a tokio-like executor that polls calls, and on callers for the answers of
//! [`EventContext`](crate::model::call::EventContext) and [`StateView`](crate::model::call::StateView).
//!
//! **Must not know** offsets, topologies, delivery policy, how state is kept, or what becomes of outputs and failures. Types of wasmtime do
//! not leave it.
//!
//! ```text
//! Host ── register ──▶ Plugin ── instance ──▶ Lease ── handle(batch) ──▶ Handled | CallError
//!  engine, ticker,      pre-instantiated       a store with
//!  cache, room          component, idle        one instance
//!                       instances
//! ```

mod answer;
mod beside;
mod cache;
mod call;
mod context;
mod contract;
mod digest;
mod engine;
mod handler;
mod host;
mod keyvalue;
mod limits;
mod logs;
mod plugin;
mod refusal;
mod room;
mod sections;
mod state;
mod store;
mod ticker;
mod wasi;
mod words;

pub use beside::give_way;
pub use digest::{Digest, NotADigest};
pub use host::{Hidden, Host, HostError, HostOptions, Inspection, PluginSpec};
pub use limits::{
    COMPONENT_BYTES_MAX, STATE_BUCKET_BYTES_MAX, STATE_CALL_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX,
};
pub use plugin::{Lease, Plugin};
pub use refusal::RegisterError;
pub use sections::config_schema;
