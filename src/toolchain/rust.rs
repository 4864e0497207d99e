//! Rust: components by cargo.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;

use super::built::{self, BuildOutput, Packages, TARGET, compiled};
use super::error::BuildError;
use super::language::Language;
use super::plugin::BuiltPlugin;
use super::requirement;
use super::tool::{LastLines, each_line};
use crate::api::Digest;

/// Builds a folder with a `Cargo.toml`.
pub(super) fn build(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
    require_target(folder, progress)?;
    let workspace = workspace(folder)?;
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|source| BuildError::Io { path: manifest, source })?;
    let mut compiled = compile(folder, &workspace, &manifest, progress)?;
    let mut packages = Packages::of(&compiled);
    let stale = packages.stale(&compiled);
    if !stale.is_empty() {
        // Cargo goes by the time of a file alone, which is an old one where the file was copied or checked out with it.
        progress("sources have changed, though none is newer than what was built of them: building them anew");
        clean(folder, &workspace, &stale)?;
        compiled = compile(folder, &workspace, &manifest, progress)?;
        packages = Packages::of(&compiled);
    }
    packages.keep(&compiled);
    let wasm = compiled.component.ok_or_else(|| BuildError::NoComponent { folder: folder.to_owned() })?;
    let bytes = std::fs::read(&wasm).map_err(|source| BuildError::Io { path: wasm.clone(), source })?;
    let own = manifest.parent().unwrap_or(folder).to_owned();
    let around = ["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name)).into_iter().filter(|_| workspace != own);
    let others = compiled.packages.into_keys().filter(|package| *package != own);
    let depends_on = others.chain(around).chain(built::included(&wasm)).collect();
    let (size_bytes, digest) = (bytes.len() as u64, Digest::of(&bytes));
    Ok(BuiltPlugin { folder: folder.to_owned(), wasm, size_bytes, digest, depends_on })
}

/// Runs the compiler once.
fn compile(
    folder: &Path,
    workspace: &Path,
    manifest: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<BuildOutput, BuildError> {
    let mut cargo = tool("cargo", folder);
    cargo
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--target-dir")
        .arg(workspace.join("target"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = cargo.spawn().map_err(|source| broken("cargo", source))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (compiled, said) = thread::scope(|scope| {
        let compiled = scope.spawn(|| compiled(stdout, manifest));
        let mut said = LastLines::default();
        each_line(stderr, |line| {
            progress(&line);
            said.push(line);
        });
        (compiled.join().unwrap_or_default(), said.text())
    });
    let status = child.wait().map_err(|source| BuildError::Io { path: folder.to_owned(), source })?;
    match status.success() {
        true => Ok(compiled),
        false => Err(BuildError::Compile { folder: folder.to_owned(), output: said }),
    }
}

/// Removes the build results of packages.
fn clean(folder: &Path, workspace: &Path, packages: &[&str]) -> Result<(), BuildError> {
    let mut cargo = tool("cargo", folder);
    cargo.args(["clean", "--release", "--target", TARGET, "--target-dir"]).arg(workspace.join("target"));
    for package in packages {
        cargo.args(["--package", package]);
    }
    let output = cargo.output().map_err(|source| broken("cargo", source))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BuildError::Compile { folder: folder.to_owned(), output })
}

/// What `cargo metadata` says of a workspace.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

/// The component that [`build`] made of a folder before.
pub(super) fn built(folder: &Path) -> Result<PathBuf, BuildError> {
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|source| BuildError::Io { path: manifest, source })?;
    let output = tool("cargo", folder).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return built::before(folder).ok_or_else(|| BuildError::NotBuilt { folder: folder.to_owned() });
        }
        output => output.map_err(|source| broken("cargo", source))?,
    };
    let refused = |output: String| BuildError::Compile { folder: folder.to_owned(), output };
    if !output.status.success() {
        return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| refused(format!("cargo metadata: {error}")))?;
    let is_it = |package: &Package| package.manifest_path.canonicalize().is_ok_and(|path| path == manifest);
    let targets = metadata.packages.into_iter().find(is_it).map(|package| package.targets).unwrap_or_default();
    let component = targets.into_iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
    let name = component.ok_or_else(|| BuildError::NoComponent { folder: folder.to_owned() })?.name;
    let file = format!("{}.wasm", name.replace('-', "_"));
    let wasm = workspace(folder)?.join("target").join(TARGET).join("release").join(file);
    if wasm.is_file() { Ok(wasm) } else { Err(BuildError::NotBuilt { folder: folder.to_owned() }) }
}

/// Adds the standard library for WebAssembly where it lacks. Asks the compiler rather than rustup, which not everybody
/// has.
fn require_target(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let mut rustc = tool("rustc", folder);
    let output = rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|source| broken("rustc", source))?;
    if !output.status.success() {
        let why = format!("this compiler does not know it ({})", first_line(&output.stderr));
        return Err(BuildError::NoTarget { why });
    }
    if Path::new(first_line(&output.stdout).as_str()).is_dir() {
        return Ok(());
    }
    progress(&format!("adding Rust's target {TARGET}: rustup target add {TARGET}"));
    let added = tool("rustup", folder).args(["target", "add", TARGET]).output().map_err(|error| {
        let why = format!("there is no rustup to add it with ({error}); install your system's package for it");
        BuildError::NoTarget { why }
    })?;
    if added.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&added.stderr);
    Err(BuildError::NoTarget { why: format!("`rustup target add {TARGET}` says: {}", said.trim()) })
}

/// The folder of the workspace that a folder belongs to: its builds share one target folder.
fn workspace(folder: &Path) -> Result<PathBuf, BuildError> {
    let output = tool("cargo", folder)
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()
        .map_err(|source| broken("cargo", source))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::Compile { folder: folder.to_owned(), output });
    }
    let manifest = PathBuf::from(first_line(&output.stdout));
    Ok(manifest.parent().map_or_else(|| folder.to_owned(), Path::to_owned))
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned()
}

/// Variables of cargo that are the user's and not those of a cargo around this process.
const KEPT: [&str; 6] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_", "CARGO_SOURCE_"];

/// Flags meant for the machine's own code.
const NOT_FOR_GUESTS: [&str; 2] = ["RUSTFLAGS", "RUSTDOCFLAGS"];

/// Why a tool of Rust does not run: most often it is not there.
fn broken(tool: &str, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::NotFound => BuildError::NoTool { requirement: &requirement::RUST, language: Language::Rust },
        _ => BuildError::Tool { tool: tool.to_owned(), source },
    }
}

/// A tool of Rust, run in a folder, as if from a shell: `cargo run` passes its own toolchain, target folder and flags
/// on to this process, and they are not for plugins.
fn tool(name: &'static str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(folder);
    let within_cargo = std::env::var_os("CARGO").is_some();
    for (variable, _) in std::env::vars_os() {
        if is_foreign(&variable, within_cargo) {
            command.env_remove(variable);
        }
    }
    command
}

fn is_foreign(variable: &OsStr, within_cargo: bool) -> bool {
    let Some(variable) = variable.to_str() else { return false };
    let cargos = variable == "CARGO" || variable.starts_with("CARGO_");
    let kept = KEPT.iter().any(|kept| variable.starts_with(kept));
    cargos && !kept || NOT_FOR_GUESTS.contains(&variable) || within_cargo && variable == "RUSTUP_TOOLCHAIN"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cargo_around_this_process_says_of_itself_is_not_passed_on() {
        let foreign = |name: &str, within| is_foreign(OsStr::new(name), within);
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
            assert!(foreign(name, false), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_REGISTRIES_X_INDEX", "CARGO_NET_OFFLINE", "PATH", "RUSTUP_HOME", "CARGOX"] {
            assert!(!foreign(name, true), "{name}");
        }
        assert!(foreign("RUSTUP_TOOLCHAIN", true));
        assert!(!foreign("RUSTUP_TOOLCHAIN", false), "the user said it");
    }
}
