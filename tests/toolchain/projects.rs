//! New projects of each language, and the tools with which they are built.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::process::wattle;

/// Languages besides Rust, whose folders are tested with the plugins.
pub(crate) const LANGUAGES: [&str; 7] = ["ts", "js", "python", "go", "c", "cpp", "zig"];

/// The name of new plugins.
pub(crate) const NAME: &str = "greet-all";

/// A new project in a folder of its own.
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    _around: TempDir,
}

impl Project {
    pub(crate) fn new(language: &str) -> Self {
        let around = tempfile::tempdir().unwrap();
        let created = wattle().current_dir(around.path()).args(["new", NAME, "--lang", language]).output().unwrap();
        assert!(created.status.success(), "{}", said(&created));
        let folder = around.path().canonicalize().unwrap().join(NAME);
        // Those of the lock file, which all projects share: installing them takes longer than the build.
        let packages = tools().join("npm/node_modules");
        if packages.is_dir() && folder.join("package.json").is_file() {
            std::os::unix::fs::symlink(packages, folder.join("node_modules")).unwrap();
        }
        Self { folder, _around: around }
    }

    /// The program in this folder, with the tools of languages on its path.
    pub(crate) fn wattle(&self, arguments: &[&str]) -> Command {
        let mut command = wattle();
        command.current_dir(&self.folder).args(arguments).env("PATH", path());
        command
    }

    /// Builds it, and gives what the program said and the component.
    pub(crate) fn build(&self) -> (String, Vec<u8>) {
        let built = self.wattle(&["build"]).output().unwrap();
        assert!(built.status.success(), "{}", said(&built));
        (said(&built), std::fs::read(self.component()).unwrap())
    }

    /// The handler's file.
    pub(crate) fn handler(&self) -> PathBuf {
        let names = ["handler.py", "main.go"].map(str::to_owned).into_iter();
        let mut names = names.chain(["ts", "js", "c", "cpp", "zig"].map(|of| format!("src/handler.{of}")));
        let path = names.find(|name| self.folder.join(name).is_file()).expect("there is a handler");
        self.folder.join(path)
    }

    pub(crate) fn component(&self) -> PathBuf {
        self.folder.join("target").join(format!("{NAME}.wasm"))
    }
}

/// Both outputs of a command.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Where `cargo xtask test` installs tools.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

/// The path of programs, with the tools of languages.
pub(crate) fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([tools().join("venv/bin")].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

/// Whether a language is tested here. Where it is not, that is said.
pub(crate) fn is_tested(language: &str) -> bool {
    let is_without = std::env::var("WATTLE_WITHOUT").is_ok_and(|list| list.split(',').any(|of| of == language));
    let programs: &[&[&str]] = match language {
        "ts" | "js" => &[&["node", "npm"]],
        "python" => &[&["componentize-py"]],
        "go" => &[&["go"]],
        "zig" => &[&["zig"], &["python-zig"]],
        _ => &[&["zig"], &["python-zig"], &["clang", "wasm-ld"]],
    };
    let path = path();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let has_tools = programs.iter().any(|all| all.iter().all(is_there));
    let why = match (is_without, has_tools) {
        (false, true) => return true,
        (true, _) => "it is left out by name",
        (false, false) => "its tools are not installed; `cargo xtask test setup` installs them",
    };
    let is_required = std::env::var_os("WATTLE_LANGUAGES").is_some();
    assert!(is_without || !is_required, "{language} cannot be tested: {why}");
    // Not with a macro, whose output the harness keeps for itself.
    writeln!(std::io::stderr(), "skipped: {language}: {why}").unwrap();
    false
}
