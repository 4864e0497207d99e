//! TypeScript and JavaScript: npm, esbuild and componentize-qjs, in the versions of the folder's lock file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

use super::error::BuildError;
use super::language::Language;
use super::requirement;
use super::results::{LIBRARY, Results};
use super::tool::Tool;

/// The handler where `package.json` has no `main`.
const ENTRIES: [&str; 2] = ["src/handler.ts", "src/handler.js"];
/// The script of the library that makes a bundle.
const BUNDLER: &str = "bundle.mjs";
/// Modules that the host has.
const EXTERNAL: [&str; 2] = ["--external:wattle:*", "--external:wasi:*"];

/// Builds a folder with a `package.json`, to a component.
pub(super) fn build(
    results: &Results,
    language: Language,
    wit: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let folder = results.folder();
    let needs = (&requirement::NODE, language);
    let missing = || BuildError::NoTool { requirement: needs.0, language };
    let node = Tool::find(folder, &["node"]).ok_or_else(missing)?;
    let npm = Tool::find(folder, &["npm"]).ok_or_else(missing)?;
    node.require_at_least(folder, &["--version"], requirement::NODE_VERSION_MIN, needs)?;
    let path = path_with(&node);
    install(folder, &npm, &path, progress)?;
    let entry = entry(folder)?;
    // Types are checked while the component is made: neither needs the other.
    let types = match language {
        Language::TypeScript => Some(types(results, &path)?),
        _ => None,
    };
    let (types, made) = thread::scope(|scope| {
        let types = types.map(|mut types| scope.spawn(move || types.output()));
        let made = make(results, &node, &path, &entry, wit, progress);
        (types.and_then(|types| types.join().ok()), made)
    });
    if let Some(types) = types {
        let types = types.map_err(|source| BuildError::Tool { tool: "tsc".into(), source })?;
        report(folder, &types, progress)?;
    }
    made
}

/// The PATH with the folder of a tool first: scripts of packages look there for `node`.
fn path_with(node: &Tool) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = node.program.parent().map(Path::to_owned);
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
}

/// Installs the packages, where those that are there are not those of the lock file.
fn install(folder: &Path, npm: &Tool, path: &OsString, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let read = |file: &str| -> Option<Value> { serde_json::from_slice(&std::fs::read(folder.join(file)).ok()?).ok() };
    let lock = read("package-lock.json");
    let is_there = match (&lock, read("node_modules/.package-lock.json")) {
        (Some(lock), Some(installed)) => is_installed(lock, &installed),
        (None, Some(_)) => true,
        // Packages of a workspace are installed above it.
        (None, None) => script(folder, "esbuild").is_some() && script(folder, "componentize-qjs").is_some(),
        (Some(_), None) => false,
    };
    if is_there {
        return Ok(());
    }
    let verb = if lock.is_some() { "ci" } else { "install" };
    progress(&format!("installing packages: npm {verb}"));
    let mut command = npm.command(folder);
    command.args([verb, "--no-audit", "--no-fund", "--no-update-notifier"]).env("PATH", path);
    npm.run(command, folder, progress)
}

/// Whether the packages that npm installed are those of a lock file, except for those of other systems.
fn is_installed(lock: &Value, installed: &Value) -> bool {
    let packages = |of: &Value| of.get("packages").and_then(Value::as_object).cloned().unwrap_or_default();
    let (wanted, there) = (packages(lock), packages(installed));
    let is_same = |one: &Value, other: &Value| ["version", "integrity"].iter().all(|of| one.get(of) == other.get(of));
    wanted.iter().filter(|(path, _)| !path.is_empty()).all(|(path, package)| match there.get(path) {
        Some(found) => is_same(package, found),
        None => package.get("optional") == Some(&Value::Bool(true)),
    })
}

/// The handler's file.
fn entry(folder: &Path) -> Result<PathBuf, BuildError> {
    let manifest = folder.join("package.json");
    let text = std::fs::read(&manifest).map_err(|source| BuildError::Io { path: manifest.clone(), source })?;
    let package: Value = serde_json::from_slice(&text)
        .map_err(|error| BuildError::Manifest { path: manifest, why: error.to_string() })?;
    let main = package.get("main").and_then(Value::as_str);
    let entry = main.or_else(|| ENTRIES.into_iter().find(|entry| folder.join(entry).is_file()));
    let path = folder.join(entry.unwrap_or(ENTRIES[0]));
    match path.is_file() {
        true => Ok(path),
        false => Err(BuildError::NoFile { path, why: "it is the handler, as `main` of package.json names it" }),
    }
}

/// A program of a package, installed in the folder or above it.
fn script(folder: &Path, name: &str) -> Option<PathBuf> {
    folder.ancestors().map(|above| above.join("node_modules/.bin").join(name)).find(|script| script.is_file())
}

/// The same, or how it comes there.
fn package(folder: &Path, name: &str, why: &'static str) -> Result<Tool, BuildError> {
    let missing = || BuildError::NoFile { path: folder.join("node_modules/.bin").join(name), why };
    script(folder, name).map(Tool::at).ok_or_else(missing)
}

/// The check of types.
fn types(results: &Results, path: &OsString) -> Result<Command, BuildError> {
    let why = "it checks types: `npm install --save-dev --save-exact typescript`";
    let folder = results.folder();
    let mut command = package(folder, "tsc", why)?.command(folder);
    command.args(["--noEmit", "--incremental", "--pretty", "false", "--tsBuildInfoFile"]);
    command.arg(results.target().join("types.json")).env("PATH", path);
    Ok(command)
}

/// Shows what the check of types found.
fn report(folder: &Path, types: &Output, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    if types.status.success() {
        return Ok(());
    }
    let output = [types.stdout.as_slice(), &types.stderr].concat();
    let output = String::from_utf8_lossy(&output).trim_end().to_owned();
    output.lines().for_each(progress);
    Err(BuildError::Compile { folder: folder.to_owned(), output })
}

/// Bundles the handler, and makes a component of the bundle.
fn make(
    results: &Results,
    node: &Tool,
    path: &OsString,
    entry: &Path,
    wit: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let (folder, target) = (results.folder(), results.target());
    let (bundle, wasm) = (target.join("bundle.js"), target.join("made.wasm"));
    let bundler = folder.join(LIBRARY).join(BUNDLER);
    // By its path in the folder: the bundle names it, and is the same in a copy of the folder.
    let entry = entry.strip_prefix(folder).unwrap_or(entry);
    progress("bundling");
    let (tool, mut command) = if bundler.is_file() {
        let mut command = node.command(folder);
        command.arg(Path::new(LIBRARY).join(BUNDLER)).arg(entry).arg(&bundle);
        (node.clone(), command)
    } else {
        let esbuild = package(folder, "esbuild", "it bundles: `npm install --save-dev --save-exact esbuild`")?;
        let mut command = esbuild.command(folder);
        command.arg(entry).args(["--bundle", "--format=esm", "--log-level=warning", "--color=false"]).args(EXTERNAL);
        command.arg(format!("--outfile={}", bundle.display()));
        (esbuild, command)
    };
    command.env("PATH", path);
    tool.run(command, folder, progress)?;
    let why = "it makes the component: `npm install --save-dev --save-exact componentize-qjs`";
    let componentize = package(folder, "componentize-qjs", why)?;
    progress("making the component");
    let mut command = componentize.command(folder);
    // The bus calls plugins one event at a time, so without `--sync` it could not call this one.
    command.args(["--world", "plugin", "--sync", "--wit"]).arg(wit).arg("--js").arg(&bundle);
    command.arg("--output").arg(&wasm).env("PATH", path);
    let mut said = Vec::new();
    let made = componentize.run(command, folder, &mut |line| said.push(line.to_owned()));
    if made.is_err() {
        // Else it only repeats what it was told.
        said.iter().for_each(|line| progress(line));
    }
    made?;
    std::fs::read(&wasm).map_err(|source| BuildError::Io { path: wasm, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_are_installed_where_all_but_those_of_other_systems_are_those_of_the_lock_file() {
        let package = |version: &str| json!({"version": version, "integrity": "sha512-x"});
        let optional = json!({"version": "1.0.0", "integrity": "sha512-x", "optional": true});
        let packages = |packages: Value| json!({"lockfileVersion": 3, "packages": packages});
        let lock =
            packages(json!({"": {"name": "greet"}, "node_modules/a": package("1.0.0"), "node_modules/b": optional}));
        for (there, expected) in [
            (json!({"node_modules/a": package("1.0.0")}), true),
            (json!({"node_modules/a": package("1.0.0"), "node_modules/b": optional}), true),
            (json!({"node_modules/a": package("1.0.1")}), false),
            (json!({"node_modules/b": optional}), false),
        ] {
            assert_eq!(is_installed(&lock, &packages(there.clone())), expected, "{there}");
        }
    }

    #[test]
    fn the_handler_is_the_main_file_of_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        write("package.json", "{}");
        let error = entry(folder.path()).unwrap_err().to_string();
        assert!(error.contains("src/handler.ts is missing"), "{error}");
        write("src/handler.js", "");
        assert!(entry(folder.path()).unwrap().ends_with("src/handler.js"));
        write("package.json", r#"{"main": "other.js"}"#);
        write("other.js", "");
        assert!(entry(folder.path()).unwrap().ends_with("other.js"));
        write("package.json", "{");
        assert!(matches!(entry(folder.path()), Err(BuildError::Manifest { .. })));
    }
}
