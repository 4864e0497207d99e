//! Plugins that were built.

use std::path::PathBuf;

use crate::api::Digest;

/// A component that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltPlugin {
    /// The folder that it was built from.
    pub folder: PathBuf,
    /// Where the component is.
    pub wasm: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The hash of its bytes.
    pub digest: Digest,
    /// Other sources that it is built from: folders of packages and libraries outside of its own, files of its
    /// workspace, and texts that its code may include.
    pub depends_on: Vec<PathBuf>,
}
