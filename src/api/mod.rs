//! The contract with callers: what `proto/` says, as Rust, and the plain data of requests and answers.
//!
//! Promises: each message is translated in one place, next to the data that it carries. Events stay encoded: they are
//! [`bytes::Bytes`], slices of the message that carried them, never decoded and, inwards, never copied. Must not know:
//! where events come from or go to, how an answer is found. Server and client share this module and do not see each
//! other; of the bus, the client uses only this module, `model` and `limits`.

mod codec;
mod component;
mod digest;
mod failed;
mod pending;
mod publishing;
pub mod reason;
mod seek;
mod shadow;
mod snapshots;
mod state;
mod status;
pub mod times;
pub(crate) mod topologies;
mod trace;
mod versions;

pub use codec::Codec;
pub use component::Component;
pub use digest::{Digest, NotADigest};
pub use failed::{FailedEvent, Filter, LetterProgress, LettersPart, ListPosition, Reason, Reasons, Times};
pub use pending::{PendingEvent, PendingFilter, PendingKind};
pub use publishing::{AddressedEvent, DivertedEvent, Numbering, Placement, PublishReceipt};
pub use seek::{LaneMove, Seek, SeekState, SeekTo};
pub use shadow::{Cost, Difference, DifferenceKind, ShadowOutput, ShadowRange, ShadowReport, ShadowResult};
pub use snapshots::{SnapshotCause, SnapshotInfo};
pub use state::{StateEntry, StateFilter, StateOfPartition, StatePosition};
pub use status::{
    Bounds, LaneState, MissingEvents, Room, Snapshot, Storage, SubscriberStatus, TopicStatus, TrialStatus,
};
pub use topologies::{Base, Change, ChangeKind, Changes, Garbage, Node, Proposal};
pub use trace::{Handling, Origin, Trace, TraceOutcome, TraceQuery, TracedEvent};
pub use versions::{DeployOutcome, Deployment, Policy, StoredVersion, Summary, UnpinResult, VersionRole};

/// What the generator made of `proto/wattle/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::large_futures,
    reason = "generated: the comments are in proto/"
)]
pub mod v1 {
    tonic::include_proto!("wattle.v1");
}

/// The contract as it is written, an encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

/// The domain of the reasons in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "wattle";
