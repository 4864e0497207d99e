//! Producers: what they publish is admitted, judged, and given its place.

pub(super) mod backlog;
pub mod publish;
