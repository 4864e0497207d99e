//! The build result of a folder in another language than Rust, remembered by the contents of its sources.
//!
//! ```text
//!   FOLDER/target/NAME.wasm     the component
//!   FOLDER/target/NAME.json     the sources that it was built from, and the component, as digests
//! ```
//!
//! Where both are as the digests say, no tool runs. Everything in the folder and in the SDK that it uses is a source,
//! except what tools put there.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::BuildError;
use super::plugin::BuiltPlugin;
use crate::api::Digest;
use crate::deploy::{is_no_source, is_output};
use crate::effects::random;

/// Changes with what is made of the same sources.
const RECIPE: u32 = 1;

/// The folder of the library in a plugin's folder. It may be a link.
pub(super) const LIBRARY: &str = "wattle";
/// The folder of what is built.
const TARGET: &str = "target";
/// Locked by the process that builds, below it.
const LOCK: &str = ".wattle.lock";
/// Files and folders of a plugin: with more it is none.
const FILES_MAX: usize = 20_000;
/// Of a larger file, its length and time say whether it is another.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What was built of what.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    recipe: u32,
    release: String,
    sources: String,
    component: String,
}

/// A folder's result.
pub(super) struct Results {
    /// As it was named.
    named: PathBuf,
    folder: PathBuf,
    /// Folders outside of it that it is built from.
    others: Vec<PathBuf>,
    name: String,
}

impl Results {
    /// Of a folder that is built from `others` as well.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn of(folder: &Path, others: Vec<PathBuf>) -> Result<Self, BuildError> {
        let named = folder.to_owned();
        let folder = folder.canonicalize().map_err(|source| BuildError::Io { path: named.clone(), source })?;
        let name = folder.file_name().map_or_else(|| "plugin".into(), |name| name.to_string_lossy().into_owned());
        let library = folder.join(LIBRARY).canonicalize().ok();
        let all = library.into_iter().chain(others.into_iter().filter_map(|other| other.canonicalize().ok()));
        let mut others: Vec<PathBuf> = all.filter(|other| !other.starts_with(&folder)).collect();
        others.sort();
        others.dedup();
        Ok(Self { named, folder, others, name })
    }

    /// The folder, with no link in its path.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where tools put what they make.
    pub(super) fn target(&self) -> PathBuf {
        self.folder.join(TARGET)
    }

    /// The component's file.
    pub(super) fn wasm(&self) -> PathBuf {
        self.target().join(format!("{}.wasm", self.name))
    }

    fn record(&self) -> PathBuf {
        self.target().join(format!("{}.json", self.name))
    }

    /// Makes the folder of results, and keeps other processes from building there for as long as what is returned is
    /// held. Waits while one does: tools that install packages or write results into the same folder break each other.
    /// Returns none where the file system has no locks.
    ///
    /// # Errors
    /// When the folder cannot be made, or the file of the lock.
    pub(super) fn lock(&self, progress: &mut dyn FnMut(&str)) -> Result<Option<File>, BuildError> {
        let path = self.target().join(LOCK);
        let failed = |source| BuildError::Io { path: path.clone(), source };
        std::fs::create_dir_all(self.target()).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                progress("waiting for another process that builds this folder");
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match locked {
            Ok(()) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The sources as they are now. Where there are too many files to read, no two answers are alike.
    pub(super) fn sources(&self) -> Digest {
        let (mut all, mut walk) = (blake3::Hasher::new(), Walk::default());
        // By their paths in the folder, so that a copy of it elsewhere is the same.
        for top in [&self.folder].into_iter().chain(&self.others) {
            all.update(b"\0top\0");
            walk.files(top, &mut |path| add(top, path, &mut all));
        }
        if walk.count > FILES_MAX {
            all.update(&random().to_le_bytes());
        }
        Digest::from(*all.finalize().as_bytes())
    }

    /// The result, where it was built of these sources by this release.
    pub(super) fn kept(&self, sources: &Digest) -> Option<BuiltPlugin> {
        let record: Record = serde_json::from_slice(&std::fs::read(self.record()).ok()?).ok()?;
        let wasm = std::fs::read(self.wasm()).ok()?;
        let component = Digest::of(&wasm);
        (record == Record::new(sources, &component)).then(|| self.built(wasm.len() as u64, component))
    }

    /// Writes a component that was built of sources.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep(&self, sources: &Digest, wasm: &[u8]) -> Result<BuiltPlugin, BuildError> {
        let path = self.wasm();
        let failed = |source| BuildError::Io { path: path.clone(), source };
        std::fs::create_dir_all(self.target()).map_err(failed)?;
        // Renamed, so that a bus which watches it reads all of it.
        let aside = path.with_extension("wasm.new");
        std::fs::write(&aside, wasm).map_err(failed)?;
        std::fs::rename(&aside, &path).map_err(failed)?;
        let component = Digest::of(wasm);
        let record = serde_json::to_vec(&Record::new(sources, &component)).unwrap_or_default();
        // Where it is not kept, the next build runs the tools.
        let _ = std::fs::write(self.record(), record);
        Ok(self.built(wasm.len() as u64, component))
    }

    fn built(&self, size_bytes: u64, digest: Digest) -> BuiltPlugin {
        let mut depends_on = self.others.clone();
        // Texts that code may embed. Those beside the manifest are the topology, its tests and the README.
        Walk::default().files(&self.folder, &mut |path| {
            if is_no_source(path) && path.parent() != Some(&self.folder) {
                depends_on.push(path.to_owned());
            }
        });
        BuiltPlugin { folder: self.named.clone(), wasm: self.wasm(), size_bytes, digest, depends_on }
    }
}

impl Record {
    fn new(sources: &Digest, component: &Digest) -> Self {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        Self { recipe: RECIPE, release, sources: sources.to_string(), component: component.to_string() }
    }
}

/// A walk over files. Each folder behind a link is visited once.
#[derive(Default)]
struct Walk {
    links: Vec<PathBuf>,
    count: usize,
}

impl Walk {
    /// Visits all files below a folder, in a fixed order.
    fn files(&mut self, top: &Path, see: &mut dyn FnMut(&Path)) {
        let mut folders = vec![top.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
            let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            entries.sort();
            for path in entries {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                self.count += 1;
                if is_output(name) {
                    continue;
                }
                if self.count > FILES_MAX {
                    return;
                }
                match std::fs::metadata(&path) {
                    Ok(about) if about.is_dir() && self.is_new(&path) => folders.push(path),
                    Ok(about) if about.is_file() => see(&path),
                    _ => {} // it is gone by now, or was visited
                }
            }
        }
    }

    /// Whether a folder is none behind a link, or behind one that was not followed before.
    fn is_new(&mut self, folder: &Path) -> bool {
        let is_link = std::fs::symlink_metadata(folder).is_ok_and(|about| about.is_symlink());
        let Some(real) = folder.canonicalize().ok().filter(|_| is_link) else { return true };
        let is_new = !self.links.contains(&real);
        self.links.push(real);
        is_new
    }
}

/// Adds a file to a digest, by its path below a folder.
fn add(top: &Path, path: &Path, all: &mut blake3::Hasher) {
    let content = match std::fs::metadata(path) {
        Ok(about) if about.len() > FILE_BYTES_MAX => {
            format!("{} {:?}", about.len(), about.modified().ok()).into_bytes()
        }
        _ => std::fs::read(path).unwrap_or_default(),
    };
    let inside = path.strip_prefix(top).unwrap_or(path).as_os_str().as_encoded_bytes();
    all.update(&(inside.len() as u64).to_le_bytes()).update(inside);
    all.update(Digest::of(&content).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_for_the_sources_that_it_was_built_of_wherever_the_folder_is() {
        let around = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = around.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let of = |name: &str| Results::of(&around.path().join(name), Vec::new()).unwrap();
        for file in ["one/src/handler.c", "one/src/texts.yaml", "one/greeting.yaml"] {
            write(file, "1");
            write(&file.replace("one", "two"), "1");
        }
        let (one, two) = (of("one"), of("two"));
        let sources = one.sources();
        assert_eq!(sources, two.sources());
        assert_eq!(one.kept(&sources), None);
        let built = one.keep(&sources, b"wasm").unwrap();
        assert_eq!((built.size_bytes, built.digest), (4, Digest::of(b"wasm")));
        assert!(built.wasm.ends_with("one/target/one.wasm"), "{}", built.wasm.display());
        assert_eq!(built.depends_on, [one.folder().join("src/texts.yaml")], "code may embed it");
        for output in ["one/node_modules/a.js", "one/.venv/b.py", "one/src/__pycache__/c.pyc"] {
            write(output, "made by a tool");
        }
        assert_eq!(one.kept(&one.sources()), Some(built), "what tools make is no source");
        // A file that code may embed is one, whatever its name is.
        for (path, text) in [("one/src/handler.c", "2"), ("one/greeting.yaml", "2"), ("one/src/new.c", "")] {
            write(path, text);
            let now = one.sources();
            assert_eq!(one.kept(&now), None, "{path}");
            one.keep(&now, b"wasm").unwrap();
        }
        write("one/target/one.wasm", "another");
        assert_eq!(one.kept(&one.sources()), None, "the component was replaced");
    }

    #[test]
    fn a_folder_of_too_many_files_is_built_each_time() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES_MAX {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let results = Results::of(folder.path(), Vec::new()).unwrap();
        assert_eq!(results.sources(), results.sources());
        std::fs::write(folder.path().join("one more"), "").unwrap();
        let built = results.keep(&results.sources(), b"wasm").unwrap();
        assert_eq!((built.size_bytes, results.kept(&results.sources())), (4, None));
    }

    #[test]
    fn a_library_behind_a_link_is_a_source_and_a_link_to_itself_ends() {
        let around = tempfile::tempdir().unwrap();
        let at = |path: &str| around.path().join(path);
        std::fs::create_dir_all(at("sdk/deep")).unwrap();
        std::fs::create_dir(at("greet")).unwrap();
        std::fs::write(at("sdk/deep/wattle.h"), "1").unwrap();
        std::os::unix::fs::symlink(at("sdk"), at("greet/wattle")).unwrap();
        std::os::unix::fs::symlink(at("greet"), at("sdk/loop")).unwrap();
        let results = Results::of(&at("greet"), Vec::new()).unwrap();
        let before = results.sources();
        let mut seen = Vec::new();
        Walk::default().files(&at("greet"), &mut |path| seen.push(path.to_owned()));
        assert_eq!(seen, [at("greet/wattle/deep/wattle.h")]);
        std::fs::write(at("sdk/deep/wattle.h"), "2").unwrap();
        assert_ne!(results.sources(), before);
        let built = results.keep(&results.sources(), b"wasm").unwrap();
        assert_eq!(built.depends_on, [at("sdk").canonicalize().unwrap()], "it is watched as well");
    }
}
