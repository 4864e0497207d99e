//! Watches files and folders for changes.
//!
//! ```text
//!   unchanged ──(another stamp)──> changing ──(stable for a while)──> reported, once
//!       ^                            │  ^  │ yet another stamp
//!       └──(the original stamp)──────┘  └──┘
//! ```
//!
//! Notifications of the system only trigger a look; the stamps decide. So the result is the same whether an editor
//! writes twice, renames a file over the old one, or removes it first, and a change without a notification is found a
//! little later. A writer that makes long pauses is reported twice. Must not know: the content of the files, and how
//! changes are handled.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a file has to be unchanged: longer than editors and compilers pause between two writes.
const SETTLE: Duration = Duration::from_millis(150);
/// The same for a missing file, which may be about to be replaced.
const SETTLE_GONE: Duration = Duration::from_secs(1);
/// How often to look while something changes.
const LOOK_SOON: Duration = Duration::from_millis(30);
/// How often to look without notifications.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same if the system provides none.
const LOOK_EVERY_BLIND: Duration = Duration::from_millis(500);
/// Maximum number of files in a folder: more are no sources.
const FILES_MAX: usize = 10_000;
/// Folders that tools make, besides those whose names begin with a point.
const OUTPUTS: [&str; 5] = ["target", "node_modules", "__pycache__", "venv", "zig-out"];

/// Extensions of topologies, tests and texts next to a plugin, which its toolchain does not read.
const NO_SOURCES: [&str; 3] = ["md", "yaml", "yml"];

/// A changed file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    pub path: PathBuf,
    /// It is missing now.
    pub is_gone: bool,
}

/// A digest of the metadata; `None` if it does not exist.
type Stamp = Option<u64>;

struct WatchedPath {
    seen: Stamp,
    /// The new stamp and its time, while it differs.
    changing: Option<(Stamp, Instant)>,
}

/// A set of watched files and folders.
pub struct Watch {
    watched: BTreeMap<PathBuf, WatchedPath>,
    /// `None` if the system provides no notifications.
    watcher: Option<RecommendedWatcher>,
    /// Folders with notifications.
    told_of: BTreeSet<PathBuf>,
    woken: Arc<Notify>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").field("told_of", &self.told_of).finish_non_exhaustive()
    }
}

impl Default for Watch {
    /// Watches nothing yet.
    fn default() -> Self {
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_err() || event.is_ok_and(|event| may_have_changed(event.kind)) {
                wake.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, every = ?LOOK_EVERY_BLIND, "no notifications of file changes: files are polled");
        });
        Self { watched: BTreeMap::new(), watcher: watcher.ok(), told_of: BTreeSet::new(), woken }
    }
}

impl Watch {
    /// Watches exactly these files, and these folders with their content. New ones start with their present state,
    /// others keep theirs.
    pub fn follow(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut before = std::mem::take(&mut self.watched);
        for path in paths {
            let watched = before.remove(&path).unwrap_or_else(|| WatchedPath { seen: stamp(&path), changing: None });
            self.watched.entry(path).or_insert(watched);
        }
        self.ask();
    }

    /// Requests notifications for every folder with something to watch, and for no other.
    fn ask(&mut self) {
        let mut folders = BTreeSet::new();
        for path in self.watched.keys() {
            // a file that is renamed into place is another file: its folder shows that
            folders.insert(
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
            );
            if path.is_dir() {
                sources(path, &mut |folder, is_folder| {
                    if is_folder {
                        folders.insert(folder.to_owned());
                    }
                });
            }
        }
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.told_of.difference(&folders) {
            let _ = watcher.unwatch(folder); // it may be gone
        }
        self.told_of.retain(|folder| folders.contains(folder));
        for folder in folders.difference(&self.told_of.clone()) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.told_of.insert(folder.clone())),
                // it may appear: until then it is checked every `LOOK_EVERY`
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "the system does not tell of changes")
                }
            }
        }
    }

    /// Waits for changes that are complete.
    pub async fn changed(&mut self) -> Vec<PathChange> {
        loop {
            let (changed, is_changing) = self.look();
            if !changed.is_empty() {
                self.ask();
                return changed;
            }
            let blind = self.watcher.is_none();
            let soon = match is_changing {
                true => LOOK_SOON,
                false if blind => LOOK_EVERY_BLIND,
                false => LOOK_EVERY,
            };
            tokio::select! {
                () = self.woken.notified(), if !is_changing => {}
                () = tokio::time::sleep(soon) => {}
            }
        }
    }

    /// The completed changes, and whether other changes are in progress.
    fn look(&mut self) -> (Vec<PathChange>, bool) {
        let (now, mut changed, mut is_changing) = (Instant::now(), Vec::new(), false);
        for (path, watched) in &mut self.watched {
            let stamp = stamp(path);
            if stamp == watched.seen {
                watched.changing = None;
                continue;
            }
            let settle = if stamp.is_some() { SETTLE } else { SETTLE_GONE };
            match watched.changing {
                Some((before, since)) if before == stamp => {
                    if now.duration_since(since) >= settle {
                        (watched.seen, watched.changing) = (stamp, None);
                        changed.push(PathChange { path: path.clone(), is_gone: stamp.is_none() });
                        continue;
                    }
                }
                _ => watched.changing = Some((stamp, now)),
            }
            is_changing = true;
        }
        (changed, is_changing)
    }
}

/// Whether an event may mean a change. Reads are ignored, because looking itself reads.
fn may_have_changed(what: EventKind) -> bool {
    !matches!(what, EventKind::Access(_)) || what == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    let mut hasher = DefaultHasher::new();
    if about.is_dir() {
        sources(path, &mut |path, is_folder| {
            if !is_folder && let Ok(about) = std::fs::metadata(path) {
                (path, about.len(), about.mtime(), about.mtime_nsec()).hash(&mut hasher);
            }
        });
    } else {
        // a file that was renamed into place may have an old time
        (about.len(), about.mtime(), about.mtime_nsec(), about.ino()).hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// Whether a file in a plugin folder is none of its sources, as far as its name says.
pub fn is_no_source(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| NO_SOURCES.contains(&extension))
}

/// Whether a file or folder of this name is made by tools, or is hidden.
pub fn is_output(name: &str) -> bool {
    name.starts_with('.') || OUTPUTS.contains(&name)
}

/// Visits every source and source folder in a folder, in a fixed order; `true` marks a folder.
pub fn sources(folder: &Path, see: &mut impl FnMut(&Path, bool)) {
    let (mut folders, mut count) = (vec![folder.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        see(&folder, true);
        let mut entries: Vec<_> =
            std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            count += 1;
            if is_output(name) || count > FILES_MAX {
                continue;
            }
            match std::fs::symlink_metadata(&path) {
                Ok(about) if about.is_dir() => folders.push(path),
                Ok(_) if is_no_source(&path) => {}
                Ok(_) => see(&path, false),
                Err(_) => {} // it is gone by now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn next(watch: &mut Watch) -> Vec<PathChange> {
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("the change is seen")
    }

    /// Whether a change of a file is reported within a generous time.
    async fn is_seen(watch: &mut Watch) -> bool {
        tokio::time::timeout(4 * SETTLE + LOOK_EVERY, watch.changed()).await.is_ok()
    }

    fn watch(paths: &[&PathBuf]) -> Watch {
        let mut watch = Watch::default();
        watch.follow(paths.iter().map(|path| (*path).clone()));
        watch
    }

    #[test]
    fn whoever_looks_is_not_told_of_it() {
        use notify::event::{CreateKind, ModifyKind, RemoveKind};
        for reads in [
            AccessKind::Any,
            AccessKind::Read,
            AccessKind::Open(AccessMode::Any),
            AccessKind::Open(AccessMode::Read),
            AccessKind::Close(AccessMode::Read),
        ] {
            assert!(!may_have_changed(EventKind::Access(reads)), "{reads:?}");
        }
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let others = [EventKind::Any, EventKind::Other, EventKind::Create(CreateKind::File)];
        let more = [EventKind::Modify(ModifyKind::Any), EventKind::Remove(RemoveKind::Any), written];
        assert!(others.into_iter().chain(more).all(may_have_changed));
    }

    fn is_another(path: &Path) -> [PathChange; 1] {
        [PathChange { path: path.to_owned(), is_gone: false }]
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_over_or_removed_is_told_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a.wasm"), folder.path().join("b.wasm"));
        fs::write(&file, "1").unwrap();
        let mut watch = watch(&[&file, &other]);
        fs::write(&file, "2").unwrap();
        assert_eq!(next(&mut watch).await, is_another(&file));
        // as editors save: write a new file and rename it
        fs::write(folder.path().join("a.wasm~"), "3").unwrap();
        fs::rename(folder.path().join("a.wasm~"), &file).unwrap();
        assert_eq!(next(&mut watch).await, is_another(&file));
        // removed, and created again at once
        fs::remove_file(&file).unwrap();
        fs::write(&file, "4").unwrap();
        assert_eq!(next(&mut watch).await, is_another(&file));
        fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut watch).await, [PathChange { path: file, is_gone: true }]);
        fs::write(&other, "1").unwrap();
        assert_eq!(next(&mut watch).await, is_another(&other));
        fs::write(folder.path().join("c.wasm"), "1").unwrap();
        assert!(!is_seen(&mut watch).await, "nobody watches that one");
    }

    #[tokio::test]
    async fn what_is_followed_later_is_told_of_and_what_is_not_any_more_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        let (stays, goes, comes) = (of("stays.wasm"), of("goes.wasm"), of("apart/comes.wasm"));
        fs::create_dir(of("apart")).unwrap();
        for file in [&stays, &goes, &comes] {
            fs::write(file, "1").unwrap();
        }
        let mut watch = watch(&[&stays, &goes]);
        fs::write(&stays, "22").unwrap();
        watch.follow([stays.clone(), comes.clone()]);
        fs::write(&goes, "22").unwrap();
        assert_eq!(next(&mut watch).await, is_another(&stays), "what it was before is remembered");
        fs::write(&comes, "22").unwrap();
        assert_eq!(next(&mut watch).await, is_another(&comes));
        watch.follow([stays]);
        fs::write(&comes, "333").unwrap();
        assert!(!is_seen(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_is_told_of_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        fs::write(&file, "").unwrap();
        let mut watch = watch(&[&file]);
        let writing = {
            let file = file.clone();
            tokio::spawn(async move {
                for end in 1..=20 {
                    fs::write(&file, "x".repeat(end)).unwrap();
                    tokio::time::sleep(SETTLE / 5).await;
                }
            })
        };
        assert_eq!(next(&mut watch).await, is_another(&file));
        assert_eq!(fs::read(&file).unwrap().len(), 20);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_changes_with_its_sources_and_not_with_what_is_built_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        fs::create_dir_all(of("src/deep")).unwrap();
        fs::create_dir_all(of("target/release")).unwrap();
        fs::write(of("src/lib.rs"), "1").unwrap();
        let mut watch = watch(&[&folder.path().to_owned()]);
        fs::write(of("src/deep/more.rs"), "1").unwrap();
        assert_eq!(next(&mut watch).await, is_another(folder.path()));
        fs::create_dir(of("src/new")).unwrap();
        fs::write(of("src/new/mod.rs"), "1").unwrap();
        assert_eq!(next(&mut watch).await, is_another(folder.path()));
        fs::write(of("src/new/mod.rs"), "22").unwrap();
        assert_eq!(next(&mut watch).await, is_another(folder.path()), "also in a folder that is new");
        for file in ["topology.yaml", "topology.test.yml", "README.md", "src/notes.md"] {
            fs::write(of(file), "1").unwrap();
        }
        assert!(!is_seen(&mut watch).await, "nothing is built of them");
        fs::write(of("target/release/a.wasm"), "1").unwrap();
        fs::write(of(".hidden"), "1").unwrap();
        assert!(!is_seen(&mut watch).await);
    }
}
