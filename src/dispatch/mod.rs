//! Delivery from topics to handlers: lanes, delivery policy, admission.
//!
//! ```floors
//! ops
//! tree
//! lane
//! intake
//! rules apart
//! ```
//!
//! | room | content |
//! |---|---|
//! | `ops` | operations on a running bus, by subscriber and by topic: listings, dead letters, seek, snapshots, traces |
//! | `tree` | the running plan: starts it, replaces it, drains it |
//! | `lane` | one subscriber on one partition: reads, calls the handler, commits, and stores all data of the lane |
//! | `intake` | producers: admission, and the partition of each event |
//! | `rules` | the topology's rules for a single event: key, conditions, guards, delays; pure |
//! | `apart` | long computations, which do not block other tasks of a thread |
//!
//! Promises: every event of a topic reaches every subscriber of it once, in order per key; a failing event goes the way
//! that the topology says and blocks only its own key. Relies on: the engine's sessions for exactly-once, the Wasm host
//! for isolation. Must not know: gRPC, the command line, how an engine stores data.

mod apart;
mod intake;
mod lane;
mod ops;
mod rules;
mod tree;

pub use intake::backlog::{Admission, BacklogFull};
pub use intake::publish::{self, PublishError, Publisher};
pub use lane::capsule::{self, Capsule};
pub use lane::command::Refusal;
pub use lane::status;
pub use lane::versions::{Terms, Trial, TrialFailure, Verdict};
pub use lane::waiting::{Waiter, WaitingError};
pub use ops::collect::{CollectError, RemovedSubscriber, RemovedTopic, RetainedData};
pub use ops::error::{ControlError, SnapshotError};
pub use ops::failed::Page;
pub use ops::letters::DeadLetters;
pub use ops::pending::{PendingError, PendingPage};
pub use ops::retry_queue::WaitingEvents;
pub use ops::snapshots::Snapshots;
pub use ops::state::{StatePage, SubscriberState};
pub use ops::subscriber::Subscriber;
pub use ops::topic::Topic;
pub use ops::trace::{self, TraceError};
pub use ops::versions::{CurrentVersions, Versions};
pub use ops::{shadow, snapshots};
pub use rules::audit::TOPIC as AUDIT_TOPIC;
pub use rules::delay::DelayRefusal;
pub use rules::guards::StateUnknown;
pub use rules::names::{NameError, NameKind};
pub use tree::apply::{PrepareError, changes_of, prepare, rename, untouched};
pub use tree::error::StartError;
pub use tree::renames::{Renames, unremembered};
pub use tree::{InitialVersions, Tree};
