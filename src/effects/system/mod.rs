//! What operating systems do each in its own way.
//!
//! Data folders are made for Linux. Elsewhere `portable` does what every Unix can, which is enough to develop plugins
//! and topologies; each of its functions says which promise is weaker there. Its tests run on Linux as well.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;

#[cfg(target_os = "linux")]
pub(super) use linux::{allocate, elapsed, start_writing, sync_all};
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{allocate, elapsed, start_writing, sync_all};
