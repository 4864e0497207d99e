//! Stand-in until `wattle build` lands: builds a Rust plugin with cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

pub struct BuiltPlugin {
    pub path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(String);

pub fn build_folder(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
    progress("cargo build");
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR");
    let output = command.output().map_err(|error| BuildError(error.to_string()))?;
    if !output.status.success() {
        return Err(BuildError(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(BuiltPlugin { path: artifact(folder)? })
}

pub fn artifact(folder: &Path) -> Result<PathBuf, BuildError> {
    let name = folder.file_name().map(|name| name.to_string_lossy().replace('-', "_")).unwrap_or_default();
    let missing = || BuildError(format!("{} has not been built: run `wattle build {0}` first", folder.display()));
    folder
        .ancestors()
        .take(2)
        .map(|folder| folder.join(format!("target/wasm32-wasip2/release/{name}.wasm")))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}
