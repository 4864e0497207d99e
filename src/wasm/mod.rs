//! Runs plugins: WebAssembly components of the contract or of `wasmcloud:messaging`, functions from events to events,
//! each in a sandbox of its own.
//!
//! **Promises.** A misbehaving plugin harms only the current event: it cannot block a thread, exceed its memory, read
//! the machine's clock or files, or leave anything for the next event except its own memory. Its inputs depend only on
//! the current event and the lane's state, so the same event with the same state gives the same outputs and writes, in
//! any batch and any instance. The result of a call has been checked: ports exist, outputs are in order, outputs and
//! writes are within their limits. It has no writes of a failed event.
//!
//! **Relies on** wasmtime for isolation, on a tokio-like executor that polls calls, and on callers that implement
//! [`EventContext`](crate::model::call::EventContext) and [`StateView`](crate::model::call::StateView).
//!
//! **Must not know** offsets, topologies, delivery policy, how state is stored, or how outputs and failures are
//! handled. Types of wasmtime stay inside.
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
mod entry;
mod functions;
mod handler;
mod host;
mod keyvalue;
mod limits;
mod logs;
mod messaging;
mod overlay;
mod plugin;
mod published;
mod refusal;
mod room;
mod sections;
mod store_data;
mod ticker;
mod wasi;
mod words;
mod worlds;

pub use beside::give_way;
pub use cache::check_cache;
pub use host::{HiddenReason, Host, HostError, HostOptions, Inspection, PluginSpec};
pub use limits::{STATE_BUCKET_BYTES_MAX, STATE_CALL_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
pub use plugin::{Lease, Plugin};
pub use refusal::RegisterError;
pub use sections::{config_schema, declared_state_version};
