//! The durable record of decisions, as files of one folder.
//!
//! Promises: each change is atomic, whatever crashes when, and can be read back. Readers wait for no write. Must not
//! know: who decides, when.

pub(super) mod applied;
pub(super) mod decided;
pub(super) mod error;
pub(super) mod file;
pub(super) mod files;
pub(super) mod history;
pub(super) mod inspect;
pub(super) mod proposal;
pub(super) mod shelf;
pub(super) mod store;
pub(super) mod uploading;
pub(super) mod uploads;
pub(super) mod values;
