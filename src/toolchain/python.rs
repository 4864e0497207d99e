//! Python: components by componentize-py, in the version that the folder names.

use std::path::Path;

use super::error::BuildError;
use super::language::Language;
use super::requirement::{COMPONENTIZE_PY, COMPONENTIZE_PY_VERSION};
use super::results::{LIBRARY, Results};
use super::tool::Tool;

/// The module of the library that exports the plugin.
const ENTRY: &str = "wattle_entry";
/// The script of the library that finds what the plugin declares.
const DECLARE: &str = "declare.py";
/// The author's module, which the other one imports.
const HANDLER: &str = "handler";

/// Builds a folder with a `pyproject.toml`, to a component.
pub(super) fn build(results: &Results, wit: &Path, progress: &mut dyn FnMut(&str)) -> Result<Vec<u8>, BuildError> {
    let (folder, language) = (results.folder(), Language::Python);
    let tool = Tool::find(folder, &["componentize-py"]);
    let tool = tool.ok_or(BuildError::NoTool { requirement: &COMPONENTIZE_PY, language })?;
    let needed = pinned(folder)?;
    let found = tool.version(folder, &["--version"])?;
    if found != needed {
        let program = tool.program;
        return Err(BuildError::ToolVersion { requirement: &COMPONENTIZE_PY, language, program, found, needed });
    }
    let entry = match folder.join(LIBRARY).join(ENTRY).with_extension("py").is_file() {
        true => ENTRY,
        false => HANDLER,
    };
    declare(results, progress)?;
    let wasm = results.target().join("made.wasm");
    progress("making the component: componentize-py");
    let mut command = tool.command(folder);
    command
        .arg("-q")
        .arg("-d")
        .arg(wit)
        .args(["-w", "plugin", "componentize", "-p", ".", "-p", LIBRARY, entry, "-o"])
        .arg(&wasm);
    // What is imported leaves no files that the next build would see, and has no seed of its own.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHASHSEED", "0");
    tool.run(command, folder, progress)?;
    std::fs::read(&wasm).map_err(|source| BuildError::Io { path: wasm, source })
}

/// Runs the plugin's own declarations without a bus, where the library has a script for it, which writes what it finds
/// among the results.
fn declare(results: &Results, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let (folder, language) = (results.folder(), Language::Python);
    let script = Path::new(LIBRARY).join(DECLARE);
    if !folder.join(&script).is_file() {
        return Ok(());
    }
    let python = Tool::find(folder, &["python3", "python"]);
    let python = python.ok_or(BuildError::NoTool { requirement: &COMPONENTIZE_PY, language })?;
    let mut command = python.command(folder);
    command.arg(script).arg(results.target()).env("PYTHONDONTWRITEBYTECODE", "1");
    python.run(command, folder, progress)
}

/// The version of componentize-py that the manifest names.
fn pinned(folder: &Path) -> Result<String, BuildError> {
    let path = folder.join("pyproject.toml");
    let text = std::fs::read_to_string(&path).map_err(|source| BuildError::Io { path, source })?;
    Ok(version(&text).unwrap_or(COMPONENTIZE_PY_VERSION).to_owned())
}

fn version(manifest: &str) -> Option<&str> {
    let (_, after) = manifest.split_once("componentize-py==")?;
    let end = after.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(after.len());
    after.get(..end).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_the_manifest_names() {
        assert_eq!(version("[dependency-groups]\ndev = [\"componentize-py==0.24.0\", \"x\"]\n"), Some("0.24.0"));
        assert_eq!(version("dependencies = [\"componentize-py\"]"), None);
        assert_eq!(version("dependencies = [\"componentize-py==\"]"), None);
    }
}
