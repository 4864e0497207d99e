//! From topics to handlers: lanes, delivery policy, admission.
//!
//! Promises: every event of a topic reaches every subscriber of it once, in order per key; what cannot be handled goes
//! the way that the topology says and holds up no other lane.
//! Relies on: the engine's sessions for exactly once, the Wasm host for isolation.
//! Must not know: gRPC, the command line, how an engine keeps what it keeps.

mod batch;
#[cfg_attr(not(test), expect(dead_code, reason = "the lanes do not act on these settings yet"))]
mod flow;
mod handler;
mod keys;
mod lane;
mod outputs;
pub mod publish;
pub mod status;
mod tree;
#[cfg_attr(not(test), expect(dead_code, reason = "the lanes do not act on these settings yet"))]
mod when;

pub use handler::{HandleError, Handler};
pub use publish::{Numbering, PublishError, Published, Publisher};
pub use status::{LaneState, Snapshot, SubscriberStatus, TopicStatus};
pub use tree::{StartError, Tree};
