//! `wattle build`: plugin folders to components, with the compiler of their language.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use bytesize::ByteSize;
use serde::Deserialize;

use super::built::{self, Compiled, Packages, compiled};
use super::components;
use crate::api::Digest;
use crate::deploy;
use crate::topology::{ConfigSchema, Plan, PluginSource, Runs, SubscriberPlan};
use crate::wasm::{Host, HostOptions, RegisterError, config_schema};

/// Build plugin folders, or the plugins of topologies.
///
/// Shows the digest of each component, and of the versions that it makes with what topologies say: a version is a component
/// with the configuration, limits and ports of a subscriber. `wattle plugin versions` shows both likewise.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Plugin folders, topology files, or folders of them
    #[arg(value_name = "FOLDER|TOPOLOGY", default_value = ".")]
    pub what: Vec<PathBuf>,
}

/// A component that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltPlugin {
    /// The folder that it was built from.
    pub folder: PathBuf,
    /// Where the component is.
    pub wasm: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The hash of its bytes.
    pub digest: Digest,
    /// What it is built from beside its folder: folders of packages that it depends on by path, and files of its workspace.
    pub depends_on: Vec<PathBuf>,
}

/// Why a folder was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no such folder.
    #[error("{} is not a folder", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Nothing in the folder tells its language.
    #[error(
        "{} is not a plugin folder: it has no Cargo.toml. `wattle new NAME` writes one that builds",
        folder.display()
    )]
    NoManifest {
        /// The folder.
        folder: PathBuf,
    },
    /// The language has no support in this release.
    #[error("{} is written in {language}, and this release builds plugins in Rust only", folder.display())]
    Language {
        /// The folder.
        folder: PathBuf,
        /// What its manifest says.
        language: &'static str,
    },
    /// A tool is not installed.
    #[error(
        "`{tool}` cannot be run, and building a Rust plugin needs it: install Rust from https://rustup.rs ({source})"
    )]
    NoTool {
        /// Its name.
        tool: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The standard library for WebAssembly is not installed, and could not be added.
    #[error("Rust's target {TARGET} is not installed and could not be added: {why}")]
    NoTarget {
        /// What was tried, and what came of it.
        why: String,
    },
    /// The manifest cannot be read, or the compiler refuses the code.
    #[error("{} does not build:\n{output}", folder.display())]
    Compile {
        /// The folder.
        folder: PathBuf,
        /// What the compiler said last.
        output: String,
    },
    /// It built, and no component came of it.
    #[error(
        "{} builds, but not to a component: its Cargo.toml needs\n    [lib]\n    crate-type = [\"cdylib\"]",
        folder.display()
    )]
    NoComponent {
        /// The folder.
        folder: PathBuf,
    },
    /// It was not built yet.
    #[error("{} was not built yet, and this command builds nothing: run `wattle build {}` first", folder.display(), folder.display())]
    NotBuilt {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or a pipe failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What Rust calls components with WASI 0.2.
pub(super) const TARGET: &str = "wasm32-wasip2";

/// How much of what the compiler said is kept for the error.
const OUTPUT_LINES_KEPT: usize = 200;

/// Runs the command. `plan_of` gives the plan of a topology, or says what is wrong with it.
pub fn run(args: &BuildArgs, plan_of: impl Fn(&Path) -> Result<Plan, String>) -> ExitCode {
    let (mut folders, mut subscribers) = (Vec::new(), Vec::new());
    for what in &args.what {
        if is_plugin_folder(what) || !matches!(what.try_exists(), Ok(true)) {
            folders.push(what.clone());
            continue;
        }
        match plan_of(what) {
            Ok(plan) => {
                folders.extend(components::folders(&plan));
                subscribers.extend(plan.subscribers);
            }
            Err(message) => {
                anstream::eprintln!("{message}");
                return ExitCode::FAILURE;
            }
        }
    }
    folders.sort();
    folders.dedup();
    let host = match Host::new(HostOptions::default()) {
        Ok(host) => host,
        Err(error) => {
            anstream::eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for folder in &folders {
        let runs_it = |subscriber: &&SubscriberPlan| matches!(&subscriber.runs, Runs::Plugin(PluginSource::Folder(of)) if of == folder);
        let of_folder: Vec<_> = subscribers.iter().filter(runs_it).collect();
        if let Err(message) = build_and_show(&host, folder, &of_folder) {
            anstream::eprintln!("error: {message}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn build_and_show(host: &Host, folder: &Path, subscribers: &[&SubscriberPlan]) -> Result<(), String> {
    // The compiler's own lines are enough of an error, so that they are not said twice.
    let built = build_folder(folder, &mut |line| anstream::eprintln!("{line}")).map_err(|error| match error {
        BuildError::Compile { folder, .. } => format!("{} does not build", folder.display()),
        error => error.to_string(),
    })?;
    let (ports, config) = looked_at(host, &built)?;
    let ports = if ports.is_empty() { "any".to_owned() } else { ports.join(", ") };
    let config = config.filter(|names| !names.is_empty()).map(|names| format!(", config: {}", names.join(", ")));
    anstream::println!("{}", built.wasm.display());
    anstream::println!(
        "    {}, component {}, ports: {ports}{}",
        ByteSize(built.size_bytes),
        built.digest.short(),
        config.unwrap_or_default()
    );
    for subscriber in subscribers {
        let version = deploy::version(subscriber, &built.digest);
        anstream::println!("    version {} of {}", version.short(), subscriber.label());
    }
    Ok(())
}

/// The ports of a component and the settings that it declares. Starts it once, which also shows that the bus will take it.
fn looked_at(host: &Host, built: &BuiltPlugin) -> Result<(Vec<String>, Option<Vec<String>>), String> {
    let wasm = std::fs::read(&built.wasm).map_err(|error| format!("{}: {error}", built.wasm.display()))?;
    let refused = |error: RegisterError| format!("{} was built, but is no plugin: {error}", built.wasm.display());
    let ports = host.inspect(&wasm, BTreeMap::new()).map_err(refused)?.ports;
    let schema = config_schema(&wasm).and_then(|schema| schema.map(ConfigSchema::compile).transpose());
    let schema =
        schema.map_err(|why| format!("{} was built, but its `wattle:config-schema` {why}", built.wasm.display()))?;
    Ok((ports, schema.map(|schema| schema.names().to_vec())))
}

/// Manifests that tell a language, in the order in which they are looked for.
const MANIFESTS: [(&str, &str); 4] =
    [("Cargo.toml", "Rust"), ("go.mod", "Go"), ("package.json", "JavaScript"), ("pyproject.toml", "Python")];

/// A folder that is to be built, or was. What this user may not look into is no folder that is missing.
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

fn language(folder: &Path) -> Option<&'static str> {
    MANIFESTS.iter().find(|(manifest, _)| folder.join(manifest).is_file()).map(|(_, language)| *language)
}

/// Whether a path is a folder with a manifest that `build_folder` looks for.
pub fn is_plugin_folder(path: &Path) -> bool {
    path.is_dir() && language(path).is_some()
}

/// Builds a plugin folder in release mode. The language follows from its manifest. `progress` is given what the tools say,
/// line by line, while they say it.
///
/// Blocks for as long as the compiler takes.
///
/// # Errors
/// When the folder, its language or a tool is not there, or when the code does not compile.
pub fn build_folder(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
    look_into(folder)?;
    match language(folder) {
        Some("Rust") => build_rust(folder, progress),
        Some(language) => Err(BuildError::Language { folder: folder.to_owned(), language }),
        None => Err(BuildError::NoManifest { folder: folder.to_owned() }),
    }
}

fn build_rust(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<BuiltPlugin, BuildError> {
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
    let depends_on = others.chain(around).collect();
    let (size_bytes, digest) = (bytes.len() as u64, Digest::of(&bytes));
    Ok(BuiltPlugin { folder: folder.to_owned(), wasm, size_bytes, digest, depends_on })
}

/// Runs the compiler once.
fn compile(
    folder: &Path,
    workspace: &Path,
    manifest: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Compiled, BuildError> {
    let mut cargo = tool("cargo", folder);
    cargo
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--target-dir")
        .arg(workspace.join("target"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = cargo.spawn().map_err(|source| BuildError::NoTool { tool: "cargo", source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (compiled, said) = thread::scope(|scope| {
        let compiled = scope.spawn(|| compiled(stdout, manifest));
        let said = pass_on(stderr, progress);
        (compiled.join().unwrap_or_default(), said)
    });
    let status = child.wait().map_err(|source| BuildError::Io { path: folder.to_owned(), source })?;
    match status.success() {
        true => Ok(compiled),
        false => Err(BuildError::Compile { folder: folder.to_owned(), output: said }),
    }
}

/// Removes what was built of some packages.
fn clean(folder: &Path, workspace: &Path, packages: &[&str]) -> Result<(), BuildError> {
    let mut cargo = tool("cargo", folder);
    cargo.args(["clean", "--release", "--target", TARGET, "--target-dir"]).arg(workspace.join("target"));
    for package in packages {
        cargo.args(["--package", package]);
    }
    let output = cargo.output().map_err(|source| BuildError::NoTool { tool: "cargo", source })?;
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

/// The component that [`build_folder`] made of a folder before. Builds nothing.
///
/// # Errors
/// When there is none, or cargo cannot say where it would be.
pub fn built(folder: &Path) -> Result<PathBuf, BuildError> {
    look_into(folder)?;
    match language(folder) {
        Some("Rust") => {}
        Some(language) => return Err(BuildError::Language { folder: folder.to_owned(), language }),
        None => return Err(BuildError::NoManifest { folder: folder.to_owned() }),
    }
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|source| BuildError::Io { path: manifest, source })?;
    let output = tool("cargo", folder).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return built::before(folder).ok_or_else(|| BuildError::NotBuilt { folder: folder.to_owned() });
        }
        output => output.map_err(|source| BuildError::NoTool { tool: "cargo", source })?,
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
        .map_err(|source| BuildError::NoTool { tool: "rustc", source })?;
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
        .map_err(|source| BuildError::NoTool { tool: "cargo", source })?;
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

/// A tool of Rust, run in a folder, as if from a shell: `cargo run` passes its own toolchain, target folder and flags on
/// to this process, and they are not for plugins.
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

/// Gives each line to `progress`, and the last ones back.
fn pass_on(stderr: Option<impl Read>, progress: &mut dyn FnMut(&str)) -> String {
    let mut kept = std::collections::VecDeque::new();
    for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')).map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
        progress(&line);
        if kept.len() == OUTPUT_LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
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
