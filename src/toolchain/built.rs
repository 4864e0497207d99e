//! The build results of plugins in Rust, and their sources.
//!
//! Cargo goes by the time of a file alone. So the sources of each package on this machine are remembered by their
//! contents, next to the component: a source with other contents that cargo did not compile is stale.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::api::Digest;
use crate::deploy::{is_no_source, sources};

/// What Rust calls components with WASI 0.2.
pub(super) const TARGET: &str = "wasm32-wasip2";

/// What cargo says of a build.
#[derive(Debug, Default)]
pub(super) struct BuildOutput {
    pub(super) component: Option<PathBuf>,
    /// The packages on this machine that are in it, by their folders.
    pub(super) packages: BTreeMap<PathBuf, LocalPackage>,
}

#[derive(Debug)]
pub(super) struct LocalPackage {
    id: String,
    /// Nothing of it was compiled: cargo takes it as it is.
    is_fresh: bool,
}

/// The sources of packages, in short. The sums of the last build are next to the component.
pub(super) struct Packages(BTreeMap<String, String>);

impl Packages {
    /// As they are now.
    pub(super) fn of(compiled: &BuildOutput) -> Self {
        let digest = |folder: &PathBuf| (folder.display().to_string(), digest_of_sources(folder).to_string());
        Self(compiled.packages.keys().map(digest).collect())
    }

    fn file(compiled: &BuildOutput) -> Option<PathBuf> {
        Some(compiled.component.as_ref()?.with_extension("sources.json"))
    }

    /// Packages that changed since the last build and were not compiled.
    pub(super) fn stale<'c>(&self, compiled: &'c BuildOutput) -> Vec<&'c str> {
        let known = Self::file(compiled).and_then(|file| std::fs::read(file).ok());
        let known: BTreeMap<String, String> =
            known.and_then(|known| serde_json::from_slice(&known).ok()).unwrap_or_default();
        let is_stale = |(folder, package): (&PathBuf, &LocalPackage)| {
            let name = folder.display().to_string();
            package.is_fresh && known.get(&name).is_some_and(|before| self.0.get(&name) != Some(before))
        };
        let packages = compiled.packages.iter();
        packages.filter(|package| is_stale(*package)).map(|(_, package)| package.id.as_str()).collect()
    }

    pub(super) fn keep(&self, compiled: &BuildOutput) {
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        // Where it is not kept, the next build goes by times alone.
        let _ = Self::file(compiled).map(|file| std::fs::write(file, text));
    }
}

/// Bytes of a source that are read; of a larger one, which is none, its length and time say whether it is another.
const SOURCE_BYTES_MAX: u64 = 4 << 20;

fn digest_of_sources(folder: &Path) -> Digest {
    let mut all = Vec::new();
    sources(folder, &mut |path, is_folder| {
        let Some(about) = std::fs::metadata(path).ok().filter(|_| !is_folder) else { return };
        let content = match about.len() <= SOURCE_BYTES_MAX {
            true => std::fs::read(path).unwrap_or_default(),
            false => format!("{} {:?}", about.len(), about.modified().ok()).into_bytes(),
        };
        all.extend_from_slice(path.as_os_str().as_encoded_bytes());
        all.push(0);
        all.extend_from_slice(Digest::of(&content).as_bytes());
    });
    Digest::of(&all)
}

/// What cargo says about something that it built.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    fresh: bool,
}

/// How the id of a package on this machine begins.
const LOCAL: &str = "path+file://";

/// What cargo built from a manifest, and of what.
pub(super) fn compiled(stdout: Option<impl Read>, manifest: &Path) -> BuildOutput {
    let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok);
    let artifacts = lines.filter_map(|line| serde_json::from_str::<Artifact>(&line).ok());
    let mut compiled = BuildOutput::default();
    for artifact in artifacts.filter(|artifact| artifact.reason == "compiler-artifact") {
        let Ok(path) = artifact.manifest_path.canonicalize() else { continue };
        if path == manifest {
            let is_component = |file: &PathBuf| file.extension() == Some(OsStr::new("wasm"));
            compiled.component = compiled.component.or(artifact.filenames.into_iter().find(is_component));
        }
        if let (true, Some(folder)) = (artifact.package_id.starts_with(LOCAL), path.parent()) {
            let package = compiled.packages.entry(folder.to_owned());
            let package = package.or_insert(LocalPackage { id: artifact.package_id, is_fresh: true });
            package.is_fresh &= artifact.fresh;
        }
    }
    compiled
}

/// Files that are part of a component although they have no name of a source, such as a text that the code includes.
/// Cargo lists them next to the component.
pub(super) fn included(wasm: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_to_string(wasm.with_extension("d")).unwrap_or_default();
    let files = listed.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, files)| paths(files));
    files.filter(|path| is_no_source(path)).collect()
}

/// The paths of a line, in which a blank of a name has a backslash before it.
fn paths(line: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if chars.next_if_eq(&' ').is_some() => paths.last_mut().into_iter().for_each(|path| path.push(' ')),
            ' ' => paths.push(String::new()),
            char => paths.last_mut().into_iter().for_each(|path| path.push(char)),
        }
    }
    paths.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// The component that was built of a folder, where there is no cargo to ask: in its own target folder, or in that of
/// the workspace around it.
pub(super) fn before(folder: &Path) -> Option<PathBuf> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let file = format!("{}.wasm", library(&manifest)?.replace('-', "_"));
    let target = Path::new("target").join(TARGET).join("release").join(file);
    folder.canonicalize().ok()?.ancestors().map(|above| above.join(&target)).find(|wasm| wasm.is_file())
}

/// The component that was built of a folder last, where it is not older than the sources in it. Runs nothing: a
/// component that is found only adds details about a topology.
pub(super) fn lately(folder: &Path) -> Option<PathBuf> {
    let wasm = before(folder)?;
    let folder = folder.canonicalize().ok()?;
    let built = wasm.metadata().and_then(|about| about.modified()).ok()?;
    let mut is_older = false;
    sources(&folder, &mut |path, is_folder| {
        // A topology may be beside them.
        let is_source = path.extension().is_some_and(|of| of == "rs" || of == "toml") && !is_folder;
        let changed = std::fs::metadata(path).and_then(|about| about.modified());
        is_older |= is_source && changed.is_ok_and(|changed| changed > built);
    });
    (!is_older).then_some(wasm)
}

/// The name of the library that a manifest makes: its own, or else that of the package.
fn library(manifest: &str) -> Option<String> {
    let (mut section, mut package, mut library) = ("", None, None);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some((key, value)) = line.split_once('=')
            && key.trim() == "name"
        {
            let name = value.trim().split('"').nth(1).map(str::to_owned);
            match section {
                "[package]" => package = name,
                "[lib]" => library = name,
                _ => {}
            }
        }
    }
    library.or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_code_includes_are_listed_beside_the_component() {
        let folder = tempfile::tempdir().unwrap();
        let wasm = folder.path().join("greet.wasm");
        assert_eq!(included(&wasm), [""; 0].map(PathBuf::from));
        let line = "/a/greet.wasm: /a/src/lib.rs /a/my\\ words.md /a/table.yaml /a/data.json\n";
        std::fs::write(folder.path().join("greet.d"), line).unwrap();
        assert_eq!(included(&wasm), ["/a/my words.md", "/a/table.yaml"].map(PathBuf::from));
    }

    #[test]
    fn what_was_built_last_is_found_without_cargo_unless_it_is_older_than_its_sources() {
        let above = tempfile::tempdir().unwrap();
        let (folder, release) =
            (above.path().join("greet-all"), above.path().join("target").join(TARGET).join("release"));
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::create_dir_all(&release).unwrap();
        std::fs::write(folder.join("Cargo.toml"), "[package]\nname = \"greet-all\"\n[lib]\ncrate-type = []\n").unwrap();
        std::fs::write(folder.join("src/lib.rs"), "").unwrap();
        assert_eq!(lately(&folder), None);
        let wasm = release.join("greet_all.wasm");
        std::fs::write(&wasm, "").unwrap();
        let at = |seconds| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let date =
            |path: &Path, seconds| std::fs::File::options().write(true).open(path).unwrap().set_modified(at(seconds));
        date(&folder.join("Cargo.toml"), 1).unwrap();
        date(&folder.join("src/lib.rs"), 2).unwrap();
        date(&wasm, 2).unwrap();
        assert_eq!(lately(&folder), Some(wasm.canonicalize().unwrap()));
        std::fs::write(folder.join("topology.yaml"), "").unwrap();
        assert!(lately(&folder).is_some(), "what is no source says nothing");
        date(&folder.join("src/lib.rs"), 3).unwrap();
        assert_eq!(lately(&folder), None);
        assert_eq!(library("[package]\nname = \"a\"\n[lib]\nname=\"b\"\n[[bin]]\nname = \"c\"").as_deref(), Some("b"));
    }
}
