//! Runs plugins: WebAssembly components, functions from events to events, each in a sandbox of its own.
//!
//! **Promises.** Whatever a plugin does harms only the event it is on: it cannot keep a thread, grow past its memory,
//! read the machine's clock or files, or leave anything behind for the next event but its own memory. What it sees of
//! the world follows from the current event, so the same event gives the same outputs in any batch and any instance.
//! What a call returns has been checked: ports exist, outputs are in order and within their limits.
//!
//! **Relies on** wasmtime for isolation, on a tokio-like executor that polls calls, and on callers for the answers of
//! [`EventContext`].
//!
//! **Must not know** offsets, topologies, delivery policy, or what becomes of outputs and failures. Types of wasmtime do
//! not leave it.
//!
//! ```text
//! Host ── register ──▶ Plugin ── instance ──▶ Lease ── handle(batch) ──▶ Handled | CallError
//!  engine, ticker,      pre-instantiated       a store with
//!  cache, room          component, idle        one instance
//!                       instances
//! ```

mod answer;
mod cache;
mod call;
mod context;
mod contract;
mod digest;
mod engine;
mod host;
mod limits;
mod logs;
mod plugin;
mod refusal;
mod room;
mod state;
mod ticker;
mod wasi;

pub use call::{Action, Batch, CallError, CallErrorKind, Event, EventContext, Failure, Handled, Output};
pub use digest::Digest;
pub use host::{Host, HostError, HostOptions, Inspection, PluginSpec};
pub use limits::{COMPONENT_BYTES_MAX, Limits};
pub use logs::LogLevel;
pub use plugin::{InstanceError, Lease, Plugin};
pub use refusal::RegisterError;
