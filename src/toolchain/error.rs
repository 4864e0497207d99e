//! Why plugins are not built.

use std::io;
use std::path::PathBuf;

use super::built::TARGET;

/// Why a folder was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no such folder.
    #[error("{} is not a folder", folder.display())]
    NoFolder { folder: PathBuf },
    /// Nothing in the folder tells its language.
    #[error(
        "{} is not a plugin folder: it has no Cargo.toml. `wattle new NAME` writes one that builds",
        folder.display()
    )]
    NoManifest { folder: PathBuf },
    /// The language has no support in this release.
    #[error("{} is written in {language}, and this release builds plugins in Rust only", folder.display())]
    Language {
        folder: PathBuf,
        /// What its manifest says.
        language: &'static str,
    },
    /// A tool is not installed.
    #[error(
        "`{tool}` cannot be run, and building a Rust plugin needs it: install Rust from https://rustup.rs ({source})"
    )]
    NoTool {
        tool: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The standard library for WebAssembly is not installed, and could not be added.
    #[error("Rust's target {TARGET} is not installed and could not be added: {why}")]
    NoTarget {
        /// The attempt and its result.
        why: String,
    },
    /// The manifest cannot be read, or the compiler refuses the code.
    #[error("{} does not build:\n{output}", folder.display())]
    Compile {
        folder: PathBuf,
        /// What the compiler said last.
        output: String,
    },
    /// It built, and no component came of it.
    #[error(
        "{} builds, but not to a component: its Cargo.toml needs\n    [lib]\n    crate-type = [\"cdylib\"]",
        folder.display()
    )]
    NoComponent { folder: PathBuf },
    /// It was not built yet.
    #[error("{} was not built yet, and this command builds nothing: run `wattle build {}` \
        first", folder.display(), folder.display())]
    NotBuilt { folder: PathBuf },
    /// A file or a pipe failed.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
