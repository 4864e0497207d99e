//! Components that were uploaded and that no record names yet.
//!
//! ```text
//!   absent ── begin ──> being written ── end ──> held ── an apply or deploy uses it ──> stored while a record names it
//!                                                  └── HELD_FOR, or the end of the process ──> removed
//! ```
//!
//! Promises: uploads are bounded in bytes and in time. They are listed in memory only: a start removes all components
//! that no record names, so that a crash leaves none. The same component is held once. Must not know: who uploads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::Digest;
use crate::deploy::record::error::StoreError;
use crate::limits::COMPONENT_BYTES_MAX;

/// How long a component waits for its use: an upload is followed by its apply within seconds, and people who run `plan`
/// read before they run `apply`.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(3_600);
/// Bytes of all uploads: the components of a large topology.
pub(crate) const HELD_BYTES_MAX: u64 = 16 * COMPONENT_BYTES_MAX;
/// A smaller component counts as this many bytes, which bounds the number of files.
const COUNTED_BYTES_MIN: u64 = 1 << 20;

/// The uploads of a store.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    held: BTreeMap<Digest, Upload>,
    /// Bytes of uploads that are being written.
    writing_bytes: u64,
    /// A task looks for expired ones.
    pub(crate) is_watched: bool,
}

#[derive(Debug)]
struct Upload {
    bytes: u64,
    /// Unix nanoseconds.
    until_ns: u64,
}

fn counted(bytes: u64) -> u64 {
    bytes.max(COUNTED_BYTES_MIN)
}

fn until(now_ns: u64) -> u64 {
    now_ns.saturating_add(u64::try_from(HELD_FOR.as_nanos()).unwrap_or(u64::MAX))
}

impl Uploads {
    /// Extends the time of a component. Whether it is held.
    pub(super) fn renew(&mut self, component: Digest, now_ns: u64) -> bool {
        let held = self.held.get_mut(&component);
        held.map(|upload| upload.until_ns = upload.until_ns.max(until(now_ns))).is_some()
    }

    /// Whether there is room for another component.
    pub(super) fn admit(&self, bytes: u64, now_ns: u64) -> Result<(), StoreError> {
        let held = self.writing_bytes + self.held.values().map(|upload| upload.bytes).sum::<u64>();
        if held + counted(bytes) <= HELD_BYTES_MAX {
            return Ok(());
        }
        let first = self.held.values().map(|upload| upload.until_ns.saturating_sub(now_ns)).min().unwrap_or(0);
        Err(StoreError::UploadsFull { held, max: HELD_BYTES_MAX, wait: Duration::from_nanos(first) })
    }

    pub(super) fn begin(&mut self, bytes: u64) {
        self.writing_bytes += counted(bytes);
    }

    pub(super) fn end(&mut self, bytes: u64) {
        self.writing_bytes = self.writing_bytes.saturating_sub(counted(bytes));
    }

    pub(super) fn hold(&mut self, component: Digest, bytes: u64, now_ns: u64) {
        self.held.insert(component, Upload { bytes: counted(bytes), until_ns: until(now_ns) });
    }

    /// Holds a component no longer. Whether it was held.
    pub(super) fn remove(&mut self, component: Digest) -> bool {
        self.held.remove(&component).is_some()
    }

    /// Removes the components whose time is over, and returns them.
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Digest> {
        self.held.extract_if(.., |_, upload| upload.until_ns <= now_ns).map(|(component, _)| component).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
