//! Go: core modules by its own compiler.

use std::path::{Path, PathBuf};

use super::error::BuildError;
use super::language::Language;
use super::requirement::{GO, GO_VERSION_MIN};
use super::results::{LIBRARY, Results};
use super::tool::Tool;

/// The package of the library that finds what a plugin declares.
const DECLARE: &str = "declare";

/// Builds a folder with a `go.mod`, to a core module.
pub(super) fn build(results: &Results, progress: &mut dyn FnMut(&str)) -> Result<Vec<u8>, BuildError> {
    let (folder, language) = (results.folder(), Language::Go);
    let go = Tool::find(folder, &["go"]).ok_or(BuildError::NoTool { requirement: &GO, language })?;
    go.require_at_least(folder, &["version"], GO_VERSION_MIN, (&GO, language))?;
    declare(results, &go, progress)?;
    let core = results.target().join("core.wasm");
    progress("compiling: go build");
    let mut command = go.command(folder);
    command.env("GOOS", "wasip1").env("GOARCH", "wasm").env("CGO_ENABLED", "0");
    // The same everywhere: no paths, no state of a repository, no symbols.
    command.args(["build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared"]);
    command.arg("-ldflags=-s -w -buildid=").arg("-o").arg(&core).arg(".");
    go.run(command, folder, progress)?;
    std::fs::read(&core).map_err(|source| BuildError::Io { path: core, source })
}

/// Reads what the plugin declares in its source, with the program of the library for it, on this machine.
fn declare(results: &Results, go: &Tool, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let folder = results.folder();
    let has_program = |library: &PathBuf| library.join(DECLARE).join("main.go").is_file();
    if !replacements(folder).iter().any(has_program) {
        return Ok(());
    }
    let mut command = go.command(folder);
    command.env_remove("GOOS").env_remove("GOARCH").args(["run", "-buildvcs=false"]);
    command.arg(Path::new(LIBRARY).join(DECLARE)).arg(results.target());
    go.run(command, folder, progress)
}

/// Folders that a module takes the place of others with, as `replace` lines of its `go.mod` name them.
pub(super) fn replacements(folder: &Path) -> Vec<PathBuf> {
    let manifest = std::fs::read_to_string(folder.join("go.mod")).unwrap_or_default();
    let targets = manifest.lines().filter_map(|line| line.split("//").next()?.split_once("=>"));
    let paths = targets.map(|(_, target)| target.trim()).filter(|target| target.starts_with(['.', '/']));
    paths.map(|path| folder.join(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_by_folders_are_found_in_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "module greet\nreplace wattle => ./wattle // here\nreplace (\n\ta.test/b v1.0.0 => ../b\n\tc => d v1\n)\n";
        std::fs::write(folder.path().join("go.mod"), text).unwrap();
        let expected = ["./wattle", "../b"].map(|path| folder.path().join(path));
        assert_eq!(replacements(folder.path()), expected);
    }
}
