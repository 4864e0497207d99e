//! Producers: admits published events, checks them, and assigns their partitions.

pub(super) mod backlog;
pub mod publish;
