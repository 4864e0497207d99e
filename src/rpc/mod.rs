//! The gRPC contract: what `proto/` says, as Rust, and how the words of the tree are said in it.
//!
//! Promises: events go through as the bytes that they are, never decoded and, inwards, never copied: the fields are
//! [`bytes::Bytes`], slices of the message that carried them.
//! Must not know: where events come from or go to; server and client share it and do not see each other.

mod codec;
mod pending;
mod plugins;
pub mod reason;
mod shadow;
mod subscribers;
pub mod times;
pub mod topologies;
mod tracing;
mod words;

pub use codec::Codec;

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
