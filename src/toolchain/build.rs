//! Plugin folders to components, by the toolchain of their language.

use std::io;
use std::path::{Path, PathBuf};

use super::error::BuildError;
use super::language::Language;
use super::plugin::BuiltPlugin;
use super::rust;

/// Checks that a folder exists and can be read. A folder that this user may not read is not a missing one.
fn look_into(folder: &Path) -> Result<(), BuildError> {
    let unreadable = |source| BuildError::Io { path: folder.to_owned(), source };
    match std::fs::read_dir(folder) {
        // with what is in it, which may be closed where the folder is not
        Ok(_) => folder.join("Cargo.toml").try_exists().map(drop).map_err(unreadable),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(BuildError::NoFolder { folder: folder.to_owned() })
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// Whether a path is a folder with a manifest that [`build_folder`] looks for.
pub fn is_plugin_folder(path: &Path) -> bool {
    path.is_dir() && Language::of(path).is_some()
}

/// Builds a plugin folder in release mode. The language follows from its manifest. `progress` is given the output of
/// the tools, line by line, while they print it.
///
/// Blocks for as long as the compiler takes.
///
/// # Errors
/// When the folder, its language or a tool is not there, or when the code does not compile.
pub fn build_folder(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
    look_into(folder)?;
    match Language::of(folder) {
        Some(Language::Rust) => rust::build(folder, progress),
        other => Err(unsupported(folder, other)),
    }
}

/// The component that [`build_folder`] made of a folder before. Builds nothing.
///
/// # Errors
/// When there is none, or the tools of the language cannot tell its path.
pub fn built(folder: &Path) -> Result<PathBuf, BuildError> {
    look_into(folder)?;
    match Language::of(folder) {
        Some(Language::Rust) => rust::built(folder),
        other => Err(unsupported(folder, other)),
    }
}

fn unsupported(folder: &Path, language: Option<Language>) -> BuildError {
    match language {
        Some(language) => BuildError::Language { folder: folder.to_owned(), language: language.name() },
        None => BuildError::NoManifest { folder: folder.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_by_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let built = |path: &Path| build_folder(path, &mut |_| {}).unwrap_err();
        assert!(matches!(built(&path.join("none")), BuildError::NoFolder { .. }));
        assert!(matches!(built(path), BuildError::NoManifest { .. }));
        std::fs::write(path.join("go.mod"), "").unwrap();
        assert!(matches!(built(path), BuildError::Language { language: "Go", .. }));
        assert!(is_plugin_folder(path));
    }
}
