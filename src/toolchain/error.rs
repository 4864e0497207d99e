//! Why plugins are not built.

use std::io;
use std::path::PathBuf;

use super::built::TARGET;
use super::language::{self, Language};
use super::requirement::Requirement;

/// Why a folder was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no such folder.
    #[error("{} is not a folder", folder.display())]
    NoFolder { folder: PathBuf },
    /// Nothing in the folder tells its language.
    #[error(
        "{} is not a plugin folder: it has none of {}. `wattle new NAME` writes one that builds",
        folder.display(),
        language::manifests()
    )]
    NoManifest { folder: PathBuf },
    /// Its manifest names no language.
    #[error(
        "{} names no language of plugins: write one of {} in it, such as `language = \"c\"`",
        folder.join(language::OWN_MANIFEST).display(),
        Language::own_manifests()
    )]
    NoLanguage { folder: PathBuf },
    /// A tool is not installed.
    #[error("{}", requirement.missing(language.name()))]
    NoTool {
        requirement: &'static Requirement,
        /// The language that needs it.
        language: Language,
    },
    /// A tool has another version than the one that is needed.
    #[error("{}", requirement.other(language.name(), program, found, needed))]
    ToolVersion {
        requirement: &'static Requirement,
        /// The language that needs it.
        language: Language,
        program: PathBuf,
        /// The version that it says it has.
        found: String,
        /// The version that it should have.
        needed: String,
    },
    /// A tool is there and cannot be run.
    #[error("`{tool}` cannot be run: {source}")]
    Tool {
        tool: String,
        /// What the system says.
        source: io::Error,
    },
    /// The standard library for WebAssembly is not installed, and could not be added.
    #[error("Rust's target {TARGET} is not installed and could not be added: {why}")]
    NoTarget {
        /// The attempt and its result.
        why: String,
    },
    /// The manifest declares something that it cannot.
    #[error("{}: {why}", path.display())]
    Manifest {
        path: PathBuf,
        /// The problem with it.
        why: String,
    },
    /// A file that a build needs is not there.
    #[error("{} is missing: {why}", path.display())]
    NoFile {
        path: PathBuf,
        /// What it is for, and how it comes there.
        why: &'static str,
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
    /// The compiler's result does not fit the contract.
    #[error("{} builds, but its result cannot be made a component: {why}", folder.display())]
    Encode {
        folder: PathBuf,
        /// What does not fit.
        why: String,
    },
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
