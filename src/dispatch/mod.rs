//! From topics to handlers: lanes, delivery policy, admission.
//!
//! Promises: every event of a topic reaches every subscriber of it once, in order per key; what cannot be handled goes
//! the way that the topology says and holds up nothing but its key.
//! Relies on: the engine's sessions for exactly once, the Wasm host for isolation.
//! Must not know: gRPC, the command line, how an engine keeps what it keeps.

mod apart;
mod apply;
mod backlog;
mod batch;
pub mod capsule;
mod changes;
mod claims;
mod collect;
mod command;
mod committed;
pub mod control;
mod delay;
mod entries;
mod flow;
mod guards;
mod handler;
mod held;
mod hidden;
mod keys;
mod lag;
mod lane;
mod losses;
mod numbered;
mod open_letters;
mod outputs;
mod pending;
pub mod publish;
mod reload;
mod renames;
mod running;
pub mod shadow;
pub mod snapshots;
mod state;
pub mod status;
mod supervisor;
mod together;
pub mod trace;
mod tree;
mod versions;
mod waiting;
mod when;

pub use apply::{PrepareError, changes_of, prepare, rename, untouched};
pub use backlog::{Admission, BacklogFull};
pub use capsule::Capsule;
pub use changes::{Change, Changes, Node, What};
pub use collect::{CollectError, Gone, Kept, RemovedTopic};
pub use command::Refusal;
pub use control::{
    ControlError, FailedEvent, Filter, LetterProgress, LettersDone, ListPosition, Move, Moved, Page, Reason, Reasons,
    SeekState, SeekTo, StateFilter, StateOfPartition, StatePage, StatePosition, Times,
};
pub use delay::DelayRefused;
pub use guards::StateUnknown;
pub use handler::{HandleError, Handler};
pub use pending::{PendingError, PendingEvent, PendingFilter, PendingKind, PendingPage};
pub use publish::{Addressed, Diverted, Numbering, PublishError, Published, Publisher};
pub use reload::{Called, VersionError};
pub use renames::{Renames, unremembered};
pub use snapshots::{SnapshotError, SnapshotInfo, TakenBy};
pub use state::StateEntry;
pub use status::{LaneState, OnTrial, Snapshot, SubscriberStatus, TopicStatus};
pub use trace::{Trace, TraceError, TraceOf};
pub use tree::{StartError, Starts, Tree};
pub use versions::{Terms, Trial, TrialFailure, Verdict};
pub use waiting::{Waiter, WaitingError};
