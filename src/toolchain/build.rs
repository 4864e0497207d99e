//! Plugin folders to components, by the tools of their language.
//!
//! ```text
//!   Rust                      cargo ─────────────────────────────────────────────────> component
//!   TypeScript, JavaScript    npm, bundler, componentize-qjs ─┐
//!   Python                    componentize-py ────────────────┴────> + declarations ─> component
//!   Go, C, C++, Zig           compiler ─> core module ─> encoded ──> + declarations ─> component
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::BuildError;
use super::language::{Language, has_manifest};
use super::plugin::BuiltPlugin;
use super::results::{LIBRARY, Results};
use super::{c, component, go, manifest, node, python, rust, zig};

/// The contract in a folder's library: the bindings there were made for it.
const WIT: &str = "wit";
/// What the library found at build time, in the folder of results.
const DECLARED: &str = "declared.json";

/// Checks that a folder exists and can be read. A folder that this user may not read is not a missing one.
fn look_into(folder: &Path) -> Result<Language, BuildError> {
    let unreadable = |source| BuildError::Io { path: folder.to_owned(), source };
    match std::fs::read_dir(folder) {
        // with what is in it, which may be closed where the folder is not
        Ok(_) => folder.join("Cargo.toml").try_exists().map(drop).map_err(unreadable)?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(BuildError::NoFolder { folder: folder.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    }
    let folder = folder.to_owned();
    match Language::of(&folder) {
        Some(language) => Ok(language),
        None if has_manifest(&folder) => Err(BuildError::NoLanguage { folder }),
        None => Err(BuildError::NoManifest { folder }),
    }
}

/// Whether a path is a folder with a manifest that [`build_folder`] looks for.
pub fn is_plugin_folder(path: &Path) -> bool {
    path.is_dir() && has_manifest(path)
}

/// Builds a plugin folder in release mode. The language follows from its manifest. `progress` is given the output of
/// the tools, line by line, while they print it.
///
/// Blocks for as long as the tools take. Where nothing has changed since the last build, none runs, except for cargo.
///
/// # Errors
/// When the folder, its language or a tool is not there, or when the code does not compile.
pub fn build_folder(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
    match look_into(folder)? {
        Language::Rust => rust::build(folder, progress),
        language => build_with_tools(folder, language, progress),
    }
}

/// The component that [`build_folder`] made of a folder before. Builds nothing.
///
/// # Errors
/// When there is none, or the tools of the language cannot tell its path.
pub fn built(folder: &Path) -> Result<PathBuf, BuildError> {
    match look_into(folder)? {
        Language::Rust => rust::built(folder),
        _ => {
            let wasm = Results::of(folder, Vec::new())?.wasm();
            if wasm.is_file() { Ok(wasm) } else { Err(BuildError::NotBuilt { folder: folder.to_owned() }) }
        }
    }
}

/// The component that was built of a folder last, where its sources are those that it was built of. Runs nothing: a
/// component that is found only adds details about a topology.
pub(crate) fn lately(folder: &Path) -> Option<PathBuf> {
    match Language::of(folder)? {
        Language::Rust => super::built::lately(folder),
        language => {
            let results = results(folder, language).ok()?;
            results.kept(&results.sources()).map(|built| built.wasm)
        }
    }
}

fn results(folder: &Path, language: Language) -> Result<Results, BuildError> {
    let others = if language == Language::Go { go::replacements(folder) } else { Vec::new() };
    Results::of(folder, others)
}

fn build_with_tools(
    folder: &Path,
    language: Language,
    progress: &mut dyn FnMut(&str),
) -> Result<BuiltPlugin, BuildError> {
    let results = results(folder, language)?;
    if let Some(built) = results.kept(&results.sources()) {
        return Ok(built);
    }
    let _locked = results.lock(progress)?;
    // Taken before tools run, since what is saved during the build is built the next time; and after another process
    // has built, since nothing is left to do then.
    let sources = results.sources();
    if let Some(built) = results.kept(&sources) {
        return Ok(built);
    }
    let declarations = manifest::declarations(folder, language)?;
    let declared = results.target().join(DECLARED);
    let _ = std::fs::remove_file(&declared);
    let wit = contract(&results)?;
    let encoded = |core: Vec<u8>| {
        let encoded = component::encode(core, &wit);
        encoded.map_err(|why| BuildError::Encode { folder: folder.to_owned(), why })
    };
    let mut wasm = match language {
        Language::TypeScript | Language::JavaScript => node::build(&results, language, &wit, progress)?,
        Language::Python => python::build(&results, &wit, progress)?,
        Language::Go => encoded(go::build(&results, progress)?)?,
        Language::C | Language::Cpp => encoded(c::build(&results, language, progress)?)?,
        Language::Zig => encoded(zig::build(&results, progress)?)?,
        Language::Rust => return rust::build(folder, progress),
    };
    for (name, content) in found_by_library(declared)?.into_iter().chain(declarations.sections()) {
        component::append_section(&mut wasm, &name, content.as_bytes());
    }
    results.keep(&sources, &wasm)
}

/// The sections that a library found when it ran the plugin's own declarations.
#[derive(Default, Deserialize)]
struct SectionList {
    sections: Vec<(String, String)>,
}

fn found_by_library(path: PathBuf) -> Result<Vec<(String, String)>, BuildError> {
    match std::fs::read(&path) {
        Ok(text) => {
            let declared: Result<SectionList, _> = serde_json::from_slice(&text);
            declared
                .map(|declared| declared.sections)
                .map_err(|error| BuildError::Manifest { path, why: error.to_string() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(BuildError::Io { path, source }),
    }
}

/// The folder of the contract: the library's, or else that of this release.
fn contract(results: &Results) -> Result<PathBuf, BuildError> {
    let of_library = results.folder().join(LIBRARY).join(WIT);
    if of_library.is_dir() {
        return Ok(of_library);
    }
    let folder = results.target().join(WIT);
    for (path, text) in component::CONTRACT {
        let path = folder.join(path);
        let failed = |source| BuildError::Io { path: path.clone(), source };
        std::fs::create_dir_all(path.parent().unwrap_or(&folder)).map_err(failed)?;
        std::fs::write(&path, text).map_err(failed)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plugin_folder_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let refused = |path: &Path| build_folder(path, &mut |_| {}).unwrap_err();
        assert!(matches!(refused(&path.join("none")), BuildError::NoFolder { .. }));
        let error = refused(path);
        assert!(matches!(error, BuildError::NoManifest { .. }) && error.to_string().contains("go.mod"), "{error}");
        assert!(!is_plugin_folder(path));
        std::fs::write(path.join("wattle.toml"), "language = \"fortran\"").unwrap();
        let error = refused(path);
        assert!(matches!(error, BuildError::NoLanguage { .. }) && error.to_string().contains("zig"), "{error}");
        assert!(is_plugin_folder(path));
        std::fs::write(path.join("wattle.toml"), "language = \"c\"").unwrap();
        assert!(matches!(built(path), Err(BuildError::NotBuilt { .. })));
    }
}
