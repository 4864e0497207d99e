//! Where the component of a subscriber is.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Digest;

/// The component of a subscriber, by its place. Records of version 1 contain only files, as paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Component {
    /// A file on the machine of the bus. Its changes are proposed.
    File(PathBuf),
    /// The bus has stored it: it was uploaded.
    Stored(Digest),
}

impl Component {
    /// Its path, if it is a file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stored(_) => None,
        }
    }

    /// Its digest, if it is stored.
    pub fn stored(&self) -> Option<Digest> {
        match self {
            Self::File(_) => None,
            Self::Stored(digest) => Some(*digest),
        }
    }
}

impl From<PathBuf> for Component {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&str> for Component {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<Digest> for Component {
    fn from(digest: Digest) -> Self {
        Self::Stored(digest)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stored(digest) => write!(f, "component {}", digest.short()),
        }
    }
}
