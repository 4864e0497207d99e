//! Capsules in the data folder: `capsules/NAMESPACE/SUBSCRIBER/TIME-PARTITION-OFFSET.capsule`, the latest of each
//! subscriber.
//!
//! Promises: existing capsules are complete; a subscriber has at most the number in its topology, within a limit of
//! bytes; the oldest are removed first. Capsules are best effort: one that cannot be written is reported and skipped,
//! and no event waits for it.

mod door;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Digest;
use crate::dispatch::Capsule;
use crate::dispatch::capsule::{CapsuleError, Replay, ReplayError};
use crate::effects::{create_private, write_private};
use crate::limits;
use crate::wasm::{HiddenReason, Host, PluginSpec, RegisterError};

pub(super) use door::CapsuleFolder;
pub use door::file_name;

/// The folder in a data folder.
const FOLDER: &str = "capsules";
/// The folder in a data folder with components by digest.
const PLUGINS: &str = "plugins";
/// The extension of capsules.
const EXTENSION: &str = "capsule";
/// The extension of incomplete capsules.
const UNNAMED: &str = "new";

/// The folder with the capsules of a data folder.
pub fn folder(data: &Path) -> PathBuf {
    data.join(FOLDER)
}

/// Stores the capsules of a running bus.
pub(super) struct CapsuleWriter {
    folder: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl CapsuleWriter {
    /// Starts on the current runtime. Capsules that are sent are stored.
    pub(super) fn start(data: &Path) -> (Self, mpsc::Sender<Capsule>) {
        let (sender, mut receiver) = mpsc::channel(limits::CAPSULES_QUEUED_MAX);
        let (kept, stop, tasks) = (folder(data), CancellationToken::new(), TaskTracker::new());
        let (folder, stopped) = (kept.clone(), stop.clone());
        tasks.spawn(async move {
            let left = folder.clone();
            drop(tokio::task::spawn_blocking(move || sweep(&left)).await);
            loop {
                let capsule = tokio::select! {
                    biased;
                    Some(capsule) = receiver.recv() => capsule,
                    () = stopped.cancelled() => return,
                };
                let folder = folder.clone();
                // One after the other: a slow disk makes them fewer, not many at once.
                let kept = tokio::task::spawn_blocking(move || keep(&folder, &capsule)).await;
                match kept {
                    Ok(Ok(path)) => tracing::debug!(capsule = %path.display(), "a failure was recorded"),
                    Ok(Err(error)) => tracing::warn!(%error, "a capsule could not be written"),
                    Err(error) => tracing::warn!(%error, "a capsule was not written"),
                }
            }
        });
        (Self { folder: kept, stop, tasks }, sender)
    }

    /// Removes the capsules of deleted subscribers, after each deletion.
    pub(super) fn follow(
        &self,
        mut forgotten: watch::Receiver<u64>,
        is_remembered: impl Fn(&str) -> bool + Clone + Send + 'static,
    ) {
        let (folder, stopped) = (self.folder.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            while let Some(Ok(())) = stopped.run_until_cancelled(forgotten.changed()).await {
                let (folder, is_remembered) = (folder.clone(), is_remembered.clone());
                let removed = tokio::task::spawn_blocking(move || forget(&folder, is_remembered)).await;
                if let Ok(Err(error)) = removed {
                    tracing::warn!(%error, "capsules of subscribers that were forgotten are still there");
                }
            }
        });
    }

    /// Ends after everything sent so far is written.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Writes a capsule, and removes the oldest beyond the limits.
fn keep(folder: &Path, capsule: &Capsule) -> io::Result<PathBuf> {
    let encoded = capsule.encode();
    if encoded.len() > limits::CAPSULE_BYTES_MAX {
        let (bytes, max) = (encoded.len(), limits::CAPSULE_BYTES_MAX);
        return Err(io::Error::other(format!("it has {bytes} bytes, and may have {max}")));
    }
    // A full name consists of a namespace and a name without slashes or leading dots.
    let folder = folder.join(&capsule.subscriber);
    create_private(&folder)?;
    let name = format!("{:020}-{}-{}", capsule.saved_ns, capsule.partition, capsule.offset);
    let (path, new) = (folder.join(format!("{name}.{EXTENSION}")), folder.join(format!("{name}.{UNNAMED}")));
    // Synced before the rename: a named capsule is complete, also after a power failure.
    let written = write_private(&new, &encoded).and_then(|()| fs::rename(&new, &path));
    if let Err(error) = written {
        drop(fs::remove_file(&new));
        return Err(error);
    }
    prune(&folder, capsule.keep as usize)?;
    Ok(path)
}

/// Removes incomplete capsules after a crash.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(of) if of.is_dir() => sweep(&path),
            Ok(of) if of.is_file() && path.extension().is_some_and(|extension| extension == UNNAMED) => {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(file = %path.display(), %error, "what is left of a capsule stays");
                }
            }
            _ => {}
        }
    }
}

/// Removes the oldest capsules beyond the limits of number and bytes.
fn prune(folder: &Path, keep: usize) -> io::Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for path in files_of(folder)?.iter().rev() {
        count += 1;
        bytes += fs::metadata(path)?.len();
        if count > keep || bytes > limits::CAPSULES_BYTES_MAX {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes the folders of subscribers that are not remembered.
fn forget(folder: &Path, is_remembered: impl Fn(&str) -> bool) -> io::Result<()> {
    for namespace in folders_of(folder)? {
        for subscriber in folders_of(&namespace)? {
            let [namespace, name] = [&namespace, &subscriber].map(|path| path.file_name().unwrap_or_default());
            if !is_remembered(&format!("{}/{}", namespace.display(), name.display())) {
                fs::remove_dir_all(&subscriber)?;
            }
        }
    }
    Ok(())
}

/// The folders in a folder; none if it does not exist. Excludes links, whose targets must not be removed.
fn folders_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The capsules in one subscriber's folder, oldest first.
fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The capsules in a folder and its subfolders, by subscriber, oldest first. None if the folder does not exist.
///
/// # Errors
/// I/O errors.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = match files_of(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    // Excludes links: a folder that contains itself would have no end.
    for folder in folders_of(folder)? {
        found.extend(list(&folder)?);
    }
    Ok(found)
}

/// Why a capsule cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its file cannot be read.
    #[error("cannot read the capsule {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// It is not a capsule.
    #[error("{}: {error}", path.display())]
    Capsule { path: PathBuf, error: CapsuleError },
}

/// Reads a capsule.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Capsule, ReadError> {
    let unreadable = |error| ReadError::Unreadable { path: path.to_owned(), error };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > limits::CAPSULE_BYTES_MAX as u64 {
        return Err(unreadable(io::Error::other(format!("{length} bytes are more than a capsule has"))));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    Capsule::decode(&bytes).map_err(|error| ReadError::Capsule { path: path.to_owned(), error })
}

/// Decodes a capsule; messages call it `name`.
///
/// # Errors
/// [`ReadError::Capsule`].
pub fn decode(name: &str, bytes: &[u8]) -> Result<Capsule, ReadError> {
    Capsule::decode(bytes).map_err(|error| ReadError::Capsule { path: name.into(), error })
}

/// The component of a capsule's plugin: next to the capsule, in the data folders, or one of these files.
pub fn component_of(capsule: &Capsule, path: &Path, data: &[PathBuf], files: &[PathBuf]) -> Option<Vec<u8>> {
    let name = format!("{}.wasm", capsule.wasm_digest);
    let folder = path.parent().unwrap_or(Path::new(""));
    // In a data folder, a capsule is three levels down.
    let around = folder.ancestors().nth(3).map(|data| data.join(PLUGINS));
    let folders = [folder.to_owned()].into_iter().chain(around).chain(data.iter().map(|data| data.join(PLUGINS)));
    let candidates = folders.map(|folder| folder.join(&name)).chain(files.iter().cloned());
    candidates.filter_map(|path| fs::read(path).ok()).find(|wasm| Digest::of(wasm).to_string() == capsule.wasm_digest)
}

/// Why a capsule was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The sandbox refuses the plugin.
    #[error("the plugin is refused: {0}")]
    Register(#[from] RegisterError),
    /// It has no outcome.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// The result of a replay, and the version.
#[derive(Debug, Clone, PartialEq)]
pub struct CapsuleRun {
    pub replayed: Replay,
    /// The replayed version.
    pub version: Digest,
    /// Its settings (configuration or limits) differ from those of the failed version, so the result is not comparable.
    pub has_other_settings: bool,
}

/// Replays a capsule with a component: with the configuration of the original plugin, and `hidden` for values that are
/// not in the capsule.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    host: &Host,
    capsule: &Capsule,
    wasm: Vec<u8>,
    hidden: &[(String, String)],
) -> Result<CapsuleRun, RunError> {
    let told = capsule.config.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    let is_secret = |name: &String| capsule.secrets.as_ref().is_none_or(|secrets| secrets.contains(name));
    let why = |name: &String| if is_secret(name) { HiddenReason::Secret } else { HiddenReason::Variable };
    let unsaid = capsule.config.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| (name.clone(), why(name)));
    let spec = PluginSpec {
        subscriber: capsule.subscriber.clone(),
        wasm,
        config: told.chain(hidden.iter().cloned()).collect(),
        hidden: unsaid.collect(),
        ports: capsule.ports.clone(),
        limits: capsule.plugin_limits(),
    };
    let has_other_settings = has_other_settings(capsule, &spec);
    let version = spec.digest();
    let plugin = host.register(spec)?;
    Ok(CapsuleRun { replayed: capsule.replay(&plugin).await?, version, has_other_settings })
}

/// Whether the failed version, with these settings, is another one. False for capsules in which hidden values are, or
/// may be, a part of the version.
fn has_other_settings(capsule: &Capsule, spec: &PluginSpec) -> bool {
    let Some(secrets) = &capsule.secrets else {
        return capsule.config.values().all(Option::is_some) && differs(capsule, spec, &BTreeSet::new());
    };
    differs(capsule, spec, secrets)
}

fn differs(capsule: &Capsule, spec: &PluginSpec, secrets: &BTreeSet<String>) -> bool {
    let Ok(wasm) = capsule.wasm_digest.parse::<Digest>() else { return false };
    // the name of a secret is a part of the version, given or not
    let mut told: BTreeMap<&str, Option<&str>> = secrets.iter().map(|name| (name.as_str(), None)).collect();
    for (name, value) in spec.config.iter().filter(|(name, _)| !secrets.contains(*name)) {
        told.insert(name, Some(value));
    }
    let version =
        Digest::of_version(&wasm, told.iter().map(|(name, value)| (*name, *value)), &spec.limits, &spec.ports);
    version.to_string() != capsule.digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::capsule::{CapsuleFailure, CapsuleLimits};
    use crate::model::Event;

    pub(super) fn capsule(saved_ns: u64, keep: u32) -> Capsule {
        let event = Event { id: "1".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
        Capsule {
            release: "0".into(),
            saved_ns,
            subscriber: "shop/validate".into(),
            topic: "shop/orders".into(),
            partition: 3,
            offset: 7,
            key: "k".into(),
            append_time_ns: 5,
            seed: "07".repeat(32),
            attempt: 1,
            event: event.encode().to_vec(),
            digest: String::new(),
            wasm_digest: String::new(),
            ports: Vec::new(),
            limits: CapsuleLimits {
                memory_bytes: 1 << 20,
                time_ns: 1,
                output_bytes: 1,
                handles: None,
                log_lines_per_second: None,
            },
            config: [("secret".to_owned(), None)].into(),
            secrets: None,
            state: None,
            failure: CapsuleFailure { kind: "reject".into(), reason: "no".into(), backtrace: None },
            keep,
        }
    }

    #[test]
    fn those_of_subscribers_that_are_not_remembered_go() {
        let data = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (folder(data.path()), data.path().join("elsewhere"));
        forget(&folder, |_| false).unwrap();
        for subscriber in ["shop/validate", "shop/gone", "other/gone"] {
            keep(&folder, &Capsule { subscriber: subscriber.into(), ..capsule(7, 2) }).unwrap();
        }
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.join("shop/link")).unwrap();
        forget(&folder, |name| name == "shop/validate").unwrap();
        let left = list(&folder).unwrap();
        assert!(left.len() == 1 && left[0].starts_with(folder.join("shop/validate")), "{left:?}");
        assert!(elsewhere.exists());
    }

    #[test]
    fn as_many_are_kept_as_are_asked_for_and_the_oldest_goes_first() {
        let data = tempfile::tempdir().unwrap();
        let folder = folder(data.path());
        assert_eq!(list(&folder).unwrap(), Vec::<PathBuf>::new());
        keep(&folder, &capsule(7, 2)).unwrap();
        let mode =
            |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777;
        assert_eq!((mode(&folder), mode(&list(&folder).unwrap()[0])), (0o700, 0o600), "an event may be anything");
        // Numbers of different lengths: their names are still in time order.
        for saved_ns in [8, 9, 10, 11] {
            keep(&folder, &capsule(saved_ns, 2)).unwrap();
        }
        let found: Vec<u64> = list(&folder).unwrap().iter().map(|path| read(path).unwrap().saved_ns).collect();
        assert_eq!(found, [10, 11]);
        assert_eq!(fs::read_dir(folder.join("shop/validate")).unwrap().count(), 2, "nothing else is left");
    }

    #[tokio::test]
    async fn what_a_crash_has_left_goes_at_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let kept = keep(&folder(data.path()), &capsule(1, 5)).unwrap();
        let left = kept.with_extension("new");
        fs::write(&left, "half of one").unwrap();
        let (keeper, sender) = CapsuleWriter::start(data.path());
        sender.send(capsule(2, 5)).await.unwrap();
        keeper.stop().await;
        assert!(!left.exists());
        assert_eq!(list(&folder(data.path())).unwrap().len(), 2);
    }

    #[test]
    fn a_capsule_is_read_as_it_was_written_or_not_at_all() {
        let data = tempfile::tempdir().unwrap();
        let written = capsule(1, 5);
        let path = keep(data.path(), &written).unwrap();
        assert_eq!(read(&path).unwrap(), Capsule { keep: 0, ..written.clone() });
        let whole = written.encode();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Capsule::decode(&damaged).is_err(), "byte {at}");
            assert!(Capsule::decode(&whole[..at]).is_err(), "cut at {at}");
        }
        let later = String::from_utf8(whole).unwrap().replacen("capsule 1 ", "capsule 2 ", 1);
        let error = Capsule::decode(later.as_bytes()).unwrap_err();
        assert_eq!(error, CapsuleError::Later { version: "2".into() });
    }
}
