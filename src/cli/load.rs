//! Reading topologies from the file system, for every command that takes some.
//!
//! The only place where the pure check of [`crate::topology`] meets the real world: files, folders, environment.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::access;
use crate::toolchain;
use crate::topology::{PathKind, Source, Surroundings, bounds, cases};

/// Everything is fine.
pub const EXIT_OK: u8 = 0;
/// The command failed at its work.
pub const EXIT_FAILED: u8 = 1;
/// The command was called in a way that makes no sense, such as with a file that is not there.
pub const EXIT_USAGE: u8 = 2;
/// The configuration is wrong: `EX_CONFIG` of BSD's sysexits.
pub const EXIT_BAD_CONFIGURATION: u8 = 78;

/// Why the files of topologies cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing to read, or it may not be read.
    #[error("cannot read `{}`: {error}; name a topology file, or a folder of them", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why it cannot.
        error: io::Error,
    },
    /// A folder without topologies.
    #[error("there is no topology in `{}`; its topologies are the files that end with .yaml or .yml", path.display())]
    EmptyFolder { path: PathBuf },
    /// Nothing to test.
    #[error("there are no tests in `{}`; tests are the files that end with .test.yaml, beside the topology that they \
        test", path.display())]
    NoTests {
        /// The folder or the topology.
        path: PathBuf,
    },
    /// A file is not text.
    #[error("`{}` is not text: line {line} is not UTF-8; save the file as UTF-8", path.display())]
    NotText {
        path: PathBuf,
        /// The first line that is not UTF-8, from 1.
        line: usize,
    },
}

impl LoadError {
    /// The exit code of a command that fails because of this.
    pub fn exit_code(&self) -> u8 {
        match self {
            LoadError::Unreadable { .. } | LoadError::EmptyFolder { .. } | LoadError::NoTests { .. } => EXIT_USAGE,
            LoadError::NotText { .. } => EXIT_BAD_CONFIGURATION,
        }
    }
}

/// What messages call the topology that comes from standard input. Paths in it start from the working folder.
const STDIN: &str = "standard input";

/// Reads files, `-` from standard input, and of folders every `*.yaml` and `*.yml` that is neither hidden nor a test
/// file or an access file, by name. What is named twice is read once.
///
/// # Errors
///
/// Everything that cannot be read.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Source>, Vec<LoadError>> {
    let mut sources = load_with_access(paths)?;
    sources.retain(|source| paths.contains(&source.path) || !access::is_access_file(source));
    Ok(sources)
}

/// As [`load`], with the access files in folders, which are no topologies.
///
/// # Errors
///
/// Everything that cannot be read.
pub(super) fn load_with_access(paths: &[PathBuf]) -> Result<Vec<Source>, Vec<LoadError>> {
    load_files(paths, topologies)
}

/// Reads test files: those that are named, those beside the topologies that are named, and all in the folders that are.
///
/// # Errors
///
/// Everything that cannot be read.
pub fn load_tests(paths: &[PathBuf]) -> Result<Vec<Source>, Vec<LoadError>> {
    load_files(paths, tests)
}

fn load_files(
    paths: &[PathBuf],
    files: impl Fn(&Path) -> Result<Vec<PathBuf>, LoadError>,
) -> Result<Vec<Source>, Vec<LoadError>> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let files = match files(path) {
            Ok(files) => files,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for file in files {
            let same = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if !seen.insert(same) {
                continue;
            }
            match read(file) {
                Ok(source) => sources.push(source),
                Err(error) => errors.push(error),
            }
        }
    }
    if errors.is_empty() { Ok(sources) } else { Err(errors) }
}

/// Writes why loading failed, and returns the exit code for it.
pub(super) fn refuse(errors: &[LoadError], to: &mut dyn Write) -> io::Result<u8> {
    for error in errors {
        writeln!(to, "error: {error}")?;
    }
    Ok(errors.iter().map(LoadError::exit_code).min().unwrap_or(EXIT_USAGE))
}

/// Whether there is a file.
///
/// # Errors
/// It cannot be told, such as in a folder that this user may not look into.
pub(super) fn is_file(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file()),
        // what is below a file is not there either
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn topologies(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    if is_stdin(path) || !is_folder(path)? {
        return Ok(vec![path.to_owned()]);
    }
    let files = files_in(path, |file| !cases::is_test_file(file))?;
    if files.is_empty() { Err(LoadError::EmptyFolder { path: path.to_owned() }) } else { Ok(files) }
}

fn tests(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let none = || LoadError::NoTests { path: path.to_owned() };
    if is_folder(path)? {
        let files = files_in(path, cases::is_test_file)?;
        return if files.is_empty() { Err(none()) } else { Ok(files) };
    }
    if cases::is_test_file(path) {
        return Ok(vec![path.to_owned()]);
    }
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let beside = cases::SUFFIXES.iter().map(|suffix| path.with_file_name(format!("{stem}{suffix}")));
    for file in beside {
        if is_file(&file).map_err(|error| LoadError::Unreadable { path: file.clone(), error })? {
            return Ok(vec![file]);
        }
    }
    Err(none())
}

fn is_folder(path: &Path) -> Result<bool, LoadError> {
    let found = fs::metadata(path).map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
    Ok(found.is_dir())
}

/// The YAML files of a folder that are asked for, by name.
fn files_in(path: &Path, is_asked_for: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: path.to_owned(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if yaml && !hidden && is_asked_for(&file) {
            match is_file(&file) {
                Ok(true) => files.push(file),
                Ok(false) => {}
                Err(error) => return Err(LoadError::Unreadable { path: file, error }),
            }
        }
    }
    files.sort_by(|one, other| {
        one.file_name().map(OsStr::as_encoded_bytes).cmp(&other.file_name().map(OsStr::as_encoded_bytes))
    });
    Ok(files)
}

fn read(path: PathBuf) -> Result<Source, LoadError> {
    // One byte more than a check accepts, so that it sees that there is more, without reading what it refuses anyway.
    let most = bounds::TEXT_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let (path, read) = match is_stdin(&path) {
        true => (PathBuf::from(STDIN), io::stdin().lock().take(most).read_to_end(&mut bytes)),
        false => {
            let read = File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
            (path, read)
        }
    };
    if let Err(error) = read {
        return Err(LoadError::Unreadable { path, error });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { path, text }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            let line = bytes.iter().take(good).filter(|byte| **byte == b'\n').count() + 1;
            if bytes.len() as u64 == most && good + 4 > bytes.len() {
                // Only the cut went through a character. What is missing is refused for its length.
                bytes.truncate(good);
                let padding = bounds::TEXT_BYTES_MAX + 1 - good;
                bytes.extend(std::iter::repeat_n(b'\n', padding));
                return Ok(Source { path, text: String::from_utf8(bytes).unwrap_or_default() });
            }
            Err(LoadError::NotText { path, line })
        }
    }
}

/// The world around this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct World;

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn at(&self, path: &Path) -> PathKind {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let manifests = toolchain::MANIFESTS.iter().map(|manifest| is_file(&path.join(manifest)));
                match manifests.collect::<io::Result<Vec<bool>>>() {
                    Ok(are_there) => PathKind::Folder { manifest: are_there.contains(&true) },
                    Err(_) => PathKind::Unreadable,
                }
            }
            Ok(found) if found.is_file() => PathKind::File,
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                PathKind::Unreadable
            }
            _ => PathKind::Nothing,
        }
    }

    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| error.to_string())?;
        if bytes.len() > bytes_max {
            return Err(format!("it has more than {bytes_max} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
    }
}

/// The same where neither plugins nor their sources need to exist.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WithoutPlugins;

impl Surroundings for WithoutPlugins {
    fn variable(&self, name: &str) -> Option<String> {
        World.variable(name)
    }

    fn at(&self, path: &Path) -> PathKind {
        match World.at(path) {
            PathKind::Nothing if path.extension() == Some(OsStr::new("wasm")) => PathKind::File,
            PathKind::Nothing | PathKind::Folder { .. } => PathKind::Folder { manifest: true },
            found @ (PathKind::File | PathKind::Unreadable) => found,
        }
    }

    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        World.text(path, bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_file_beside_topologies_is_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let (topology, access) = (folder.path().join("a.yaml"), folder.path().join("access.yaml"));
        std::fs::write(&topology, "wattle: v1\nname: a\n").unwrap();
        std::fs::write(&access, "wattle: access/v1\nprincipals: {}\nrules: []\n").unwrap();
        let loaded = |paths: &[PathBuf]| -> Vec<PathBuf> {
            load(paths).unwrap().into_iter().map(|source| source.path).collect()
        };
        assert_eq!(loaded(&[folder.path().to_owned()]), [topology]);
        assert_eq!(loaded(std::slice::from_ref(&access)), [access], "it is named, and refused with words");
        assert_eq!(load_with_access(&[folder.path().to_owned()]).unwrap().len(), 2);
    }
}
