//! `cargo xtask dist [TARGET…]`: archives of the program with completions, manual pages, licences and an SBOM, and
//! their checksums, in `target/archives`.
//!
//! Nothing is installed but the Rust target; a C compiler of the target that is missing is named with its Debian
//! package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use super::prove::{Outcome, PROGRAM, cargo_in};

struct Target {
    name: &'static str,
    /// Compiles the C code of dependencies, and links where the program is not static: a static one is linked with what
    /// Rust brings, since `musl-gcc` makes one of it that needs musl's loader.
    compiler: &'static str,
    /// The Debian package that has the compiler.
    package: &'static str,
}

/// The first one is built where none is named.
const TARGETS: [Target; 3] = [
    Target { name: "x86_64-unknown-linux-musl", compiler: "musl-gcc", package: "musl-tools" },
    Target { name: "aarch64-unknown-linux-gnu", compiler: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
    Target { name: "x86_64-unknown-linux-gnu", compiler: "cc", package: "gcc" },
];

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

pub(crate) fn dist(names: &[String]) -> ExitCode {
    let wanted: Vec<&Target> = match names {
        [] => TARGETS.iter().take(1).collect(),
        names => TARGETS.iter().filter(|target| names.iter().any(|name| name == target.name)).collect(),
    };
    if wanted.len() != names.len().max(1) {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("xtask: targets are {}", known.join(", "));
        return ExitCode::from(2);
    }
    match wanted.into_iter().try_for_each(archive).and_then(|()| checksums()) {
        Ok(sums) => {
            print!("{sums}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn output() -> PathBuf {
    root().join("target/archives")
}

/// Builds one archive.
fn archive(target: &Target) -> Outcome<()> {
    let Target { name, compiler, package } = target;
    if Command::new(compiler).arg("--version").output().is_err() {
        return Err(format!("`{compiler}` is missing: apt-get install {package}"));
    }
    run(Command::new("rustup").args(["target", "add", name]))?;
    let of_cargo = name.to_uppercase().replace('-', "_");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["build", "--locked", "--profile", "dist", "--bin", "wattle", "--target", name]);
    cargo.env(format!("CC_{}", name.replace('-', "_")), compiler);
    let is_static = name.ends_with("musl");
    if !is_static {
        cargo.env(format!("CARGO_TARGET_{of_cargo}_LINKER"), compiler);
    }
    run(&mut cargo)?;
    let program = root().join("target").join(name).join("dist/wattle");
    if is_static && needs_loader(&program)? {
        return Err(format!("{} is not static: it needs a loader", program.display()));
    }
    let metadata = metadata(name)?;
    let version = metadata.iter().find(|package| text(package, "name") == "wattle").map(|it| text(it, "version"));
    let title = format!("wattle-{}-{name}", version.unwrap_or_default());
    let folder = output().join(&title);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    for part in ["completions", "man"] {
        fs::create_dir_all(folder.join(part)).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    copy(&program, &folder.join("wattle"))?;
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        copy(&root().join(file), &folder.join(file))?;
    }
    // The program of this machine writes both: that of the target may not run here.
    cargo_in(&root(), PROGRAM)?;
    run(Command::new(root().join("target/debug/examples/man")).arg(folder.join("man")))?;
    for shell in SHELLS {
        let printed = Command::new(root().join("target/debug/wattle")).args(["completions", shell]).output();
        let printed = printed.map_err(|error| error.to_string())?;
        write(&folder.join("completions").join(format!("wattle.{shell}")), &printed.stdout)?;
    }
    write(&folder.join("LICENCES.txt"), licences(&metadata).as_bytes())?;
    write(&folder.join("sbom.cdx.json"), format!("{:#}\n", sbom(&metadata)).as_bytes())?;
    let archive = output().join(format!("{title}.tar.gz"));
    // The same content is the same archive.
    let fixed = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
    run(Command::new("tar").args(fixed).arg("-czf").arg(&archive).arg("-C").arg(output()).arg(&title))
}

/// Whether the system needs another program to start this one.
fn needs_loader(program: &Path) -> Outcome<bool> {
    let printed = Command::new("readelf").args(["--program-headers", "--wide"]).arg(program).output();
    let printed = printed.map_err(|error| format!("readelf: {error}; apt-get install binutils"))?;
    match printed.status.success() {
        true => Ok(String::from_utf8_lossy(&printed.stdout).contains("INTERP")),
        false => Err(format!("readelf: {}", String::from_utf8_lossy(&printed.stderr))),
    }
}

/// The packages that are in the program, by name and version.
fn metadata(target: &str) -> Outcome<Vec<Value>> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target]);
    let printed = cargo.output().map_err(|error| error.to_string())?;
    let all: Value = serde_json::from_slice(&printed.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(linked(&all))
}

/// Follows normal dependencies, not those of builds and tests, from `wattle` on.
fn linked(metadata: &Value) -> Vec<Value> {
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let packages = list(metadata, "packages");
    let nodes = metadata.get("resolve").map(|resolve| list(resolve, "nodes")).unwrap_or_default();
    let root = packages.iter().find(|package| text(package, "name") == "wattle").map(|package| text(package, "id"));
    let mut open: Vec<String> = root.into_iter().collect();
    let mut seen: BTreeSet<String> = open.iter().cloned().collect();
    while let Some(id) = open.pop() {
        let Some(node) = nodes.iter().find(|node| text(node, "id") == id) else { continue };
        for dependency in list(node, "deps") {
            let is_normal = list(&dependency, "dep_kinds").iter().any(|kind| kind.get("kind") == Some(&Value::Null));
            let id = text(&dependency, "pkg");
            if is_normal && seen.insert(id.clone()) {
                open.push(id);
            }
        }
    }
    let mut linked: Vec<Value> = packages.into_iter().filter(|package| seen.contains(&text(package, "id"))).collect();
    linked.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    linked
}

fn text(of: &Value, name: &str) -> String {
    of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn licences(packages: &[Value]) -> String {
    let line = |package: &Value| {
        let licence = text(package, "license");
        let licence = if licence.is_empty() { "see its own file".to_owned() } else { licence };
        format!("{} {}: {licence}, {}\n", text(package, "name"), text(package, "version"), text(package, "repository"))
    };
    packages.iter().map(line).collect()
}

/// A bill of materials as CycloneDX 1.5.
fn sbom(packages: &[Value]) -> Value {
    let component = |package: &Value| {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let purl = format!("pkg:cargo/{name}@{version}");
        let licences = json!([{ "expression": text(package, "license").replace('/', " OR ") }]);
        json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "licenses": licences,
        })
    };
    let (own, others): (Vec<_>, Vec<_>) = packages.iter().partition(|package| text(package, "name") == "wattle");
    let own: Vec<Value> = own.into_iter().map(|package| json!({ "component": component(package) })).collect();
    let others: Vec<Value> = others.into_iter().map(component).collect();
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": own.first(), "components": others,
    })
}

/// The checksums of all archives that are there, those of earlier runs for other targets too.
fn checksums() -> Outcome<String> {
    let listed = fs::read_dir(output()).map_err(|error| format!("{}: {error}", output().display()))?;
    let mut names: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".tar.gz"));
    names.sort();
    let printed = Command::new("sha256sum").current_dir(output()).args(names).output();
    let printed = printed.map_err(|error| format!("sha256sum: {error}"))?;
    write(&output().join("SHA256SUMS"), &printed.stdout)?;
    Ok(String::from_utf8_lossy(&printed.stdout).into_owned())
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::copy(from, to).map(drop).map_err(|error| format!("{}: {error}", from.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(command: &mut Command) -> Outcome<()> {
    for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"] {
        command.env_remove(name);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let dependency = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let packages = ["wattle", "bytes", "memchr", "prost-build", "proptest"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                { "id": "wattle", "deps": [dependency("bytes", Value::Null), dependency("prost-build", json!("build")),
                    dependency("proptest", json!("dev"))] },
                { "id": "bytes", "deps": [dependency("memchr", Value::Null)] },
                { "id": "prost-build", "deps": [dependency("proptest", Value::Null)] },
            ] },
        });
        let linked = linked(&metadata);
        let names: Vec<_> = linked.iter().map(|package| text(package, "name")).collect();
        assert_eq!(names, ["bytes", "memchr", "wattle"]);
        assert_eq!(licences(&linked).lines().next(), Some("bytes 1.0.0: MIT/Apache-2.0, "));
        let sbom = sbom(&linked);
        assert_eq!(sbom["components"].as_array().map(Vec::len), Some(2));
        assert_eq!(sbom["metadata"]["component"]["purl"], "pkg:cargo/wattle@1.0.0");
        assert_eq!(sbom["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
