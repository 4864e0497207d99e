//! The composition root: from a checked plan to a bus that serves, and the orderly shutdown.
//!
//! Promises: cheap checks come before slow steps; all refused plugins are reported, not only the first;
//! [`RunningBus::stop`] refuses new work, then answers and drains at the same time, then closes, and loses nothing that
//! was acknowledged. Relies on: everything below. It is the only place that knows all parts. Must not know: the command
//! line, terminals, signals; where plans and components come from.

pub mod capsules;
pub mod cases;
mod security;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::api::Component;
use crate::dispatch::{PrepareError, Tree};
use crate::engine::embedded::{Durability, EmbeddedEngine, EmbeddedError, Recovery};
use crate::engine::{ApplyError, Engine, StopReason};
use crate::server::{self, Port, Server};
use crate::topology::{FilesDigest, Plan};
use crate::wasm::{Host, HostError, HostOptions};

use crate::deploy::{
    self, BeginError, Files, Reloader, Replacement, SecretFolders, StartTopology, Store, StoreError, StoreInspection,
    TopologyError,
};
use crate::effects::{self, Clock, DiskFolder, ReadOnlyFolder, SystemClock};
use security::Security;
pub use security::{Listening, SecurityError};

/// The folder for versions of plugins in the data folder.
const VERSIONS: &str = "plugins";
/// The folder in which earlier releases cached compiled plugins.
const OLD_CODE: &str = "code";
/// How long a runtime may take to end its blocking tasks after everything else has ended.
const RUNTIME_END: Duration = Duration::from_millis(500);

/// Settings of the bus that are not in the topology.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address on which it listens, and the files that say who may come in.
    pub listen: Listening,
    /// The data folder.
    pub data: PathBuf,
    /// When a publish is acknowledged.
    pub durability: Durability,
    /// Maximum memory of all plugin instances together, in bytes; `None` for a default that depends on the machine.
    pub plugin_memory_bytes: Option<u64>,
    /// The folder for compiled plugins; `None` disables the cache.
    pub code_cache: Option<PathBuf>,
    /// Whether compiled functions are kept there as well, for plugins that are changed while they are written.
    pub keeps_functions: bool,
    /// The folders for secrets of topologies that are applied while it runs.
    pub secrets: SecretFolders,
    /// Applies a topology even if that loses data.
    pub allow_loss: bool,
    /// Confirms the machine's clock, however long the bus was stopped.
    pub confirm_clock: bool,
}

/// Progress of a start, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The data folder has been opened.
    Opened {
        /// The result of recovery.
        recovery: Recovery,
        took: Duration,
    },
    /// Progress of a plugin.
    Plugin(deploy::Progress),
}

/// Why the bus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system provides no threads.
    #[error("cannot start the threads of the bus: {0}")]
    Runtime(#[source] std::io::Error),
    /// An error of the service.
    #[error(transparent)]
    Server(#[from] server::StartError),
    /// An error of the files of TLS and access.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// An error of the data folder.
    #[error(transparent)]
    Engine(#[from] EmbeddedError),
    /// An error of the sandbox.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The folder of plugin versions cannot be opened.
    #[error("cannot open the folder of plugins in the data folder: {0}")]
    Versions(#[source] std::io::Error),
    /// Plugin versions cannot be read or stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The errors of all plugins.
    #[error(transparent)]
    Plugins(BeginError),
    /// An error of the applied or the new topology.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// There is no topology.
    #[error(
        "no topology was applied to this data folder yet, and no file says one: name topology files, or folders of them"
    )]
    Nothing,
    /// An error of the tree.
    #[error(transparent)]
    Tree(#[from] crate::dispatch::StartError),
}

impl StartError {
    /// Whether the configuration is at fault, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Plugins(error) => matches!(error, BeginError::Plugins(_)),
            Self::Tree(error) => matches!(error, crate::dispatch::StartError::Apply(_)),
            Self::Topology(error) => matches!(
                error,
                TopologyError::Refused(_)
                    | TopologyError::Loss(_)
                    | TopologyError::Prepare(PrepareError::Apply(ApplyError::Partitions { .. }))
            ),
            Self::Server(error) => matches!(error, server::StartError::Remote(_)),
            Self::Nothing | Self::Security(_) => true,
            Self::Engine(error) => matches!(error, EmbeddedError::NotOurs { .. } | EmbeddedError::Stranger { .. }),
            Self::Runtime(_) | Self::Host(_) | Self::Versions(_) | Self::Store(_) => false,
        }
    }
}

/// The topology files of a start.
#[derive(Debug, Clone, Copy)]
pub enum StartFiles<'a> {
    /// There are none: what was applied runs.
    None,
    /// They cannot be read or are invalid, for this reason: what was applied runs, where something was.
    Invalid(&'a str),
    /// They propose this.
    Valid(&'a Files),
}

/// The result of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopResult {
    /// All admitted requests were answered.
    pub answered: bool,
    /// Every lane completed and committed its call; otherwise that call is repeated after the next start.
    pub drained: bool,
    /// Whether the engine closed without an error.
    pub closed: Result<(), StopReason>,
}

/// A running bus.
///
/// Lanes have a runtime of their own, so that plugins which use all of their processor time do not keep the service
/// from answering.
pub struct RunningBus {
    service: Runtime,
    lanes: Runtime,
    server: Server,
    /// Follows the files of TLS and access.
    following: JoinHandle<()>,
    tree: Tree<EmbeddedEngine>,
    capsules: capsules::CapsuleWriter,
    reloader: Reloader<EmbeddedEngine, Host>,
    recovery: Recovery,
}

impl From<BeginError> for StartError {
    fn from(error: BeginError) -> Self {
        Self::Plugins(error)
    }
}

/// Reports that the applied topology runs, and not the files.
fn tell_what_runs(refused: &[String]) {
    if refused.is_empty() {
        tracing::warn!(
            "the applied topology runs, not the files, which are unchanged since the last start: `wattle status \
             --files` shows the difference, `wattle apply` applies them"
        );
    }
    for why in refused {
        tracing::warn!(why, "the applied topology runs, not the files, which were refused");
    }
    if !refused.is_empty() {
        tracing::warn!(
            "`wattle plan FILES` shows everything that they would change and what is wrong with them; where they would \
             only lose \
             data, `wattle apply FILES --allow-loss` applies them"
        );
    }
}

/// Opens what was decided.
fn open_store(data: &Path, engine: &EmbeddedEngine, clock: &Arc<dyn Clock>) -> Result<Store, StartError> {
    let versions = DiskFolder::create(&data.join(VERSIONS)).map_err(StartError::Versions)?;
    let mut store = Store::open(versions, clock.clone())?;
    if !engine.storage().takes_events {
        store.takes_no_more();
    }
    Ok(store)
}

/// Removes compiled plugins of earlier releases, which are no longer used. Other files there stay.
fn remove_old_code(data: &Path) {
    let folder = data.join(OLD_CODE);
    let is_code = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "code"))
    };
    let is_folder = std::fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir());
    if !is_folder || !std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.all(is_code)) {
        return;
    }
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => tracing::info!("removed what an earlier release kept of compiled plugins in the data folder"),
        Err(error) => tracing::warn!(%error, "cannot remove what an earlier release kept of compiled plugins"),
    }
}

fn runtime(name: &'static str) -> Result<Runtime, StartError> {
    Builder::new_multi_thread().thread_name(name).enable_all().build().map_err(StartError::Runtime)
}

/// A bus whose data folder is open, but that runs nothing yet.
pub struct OpenBus {
    service: Runtime,
    lanes: Runtime,
    port: Port,
    security: Security,
    engine: EmbeddedEngine,
    clock: Arc<dyn Clock>,
    recovery: Recovery,
    store: Store,
}

/// Whether a topology was applied to a data folder, as far as can be seen without opening it.
///
/// # Errors
/// It cannot be seen, for example for lack of permission.
pub fn was_applied(data: &Path) -> Result<bool, StartError> {
    let unreadable = |error| EmbeddedError::Io { what: "look into", path: data.to_owned(), error };
    Ok(data.join(VERSIONS).join(Store::TOPOLOGY).try_exists().map_err(unreadable)?)
}

/// Verifies the stored versions and the applied topology of a data folder, read-only. `None` if there are none.
///
/// # Errors
/// The folder cannot be read, for example for lack of permission.
pub fn verify_versions(data: &Path) -> Result<Option<StoreInspection>, StartError> {
    match ReadOnlyFolder::open(&data.join(VERSIONS)) {
        Ok(folder) => Ok(Some(StoreInspection::of(folder))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::Versions(error)),
    }
}

impl OpenBus {
    /// Opens a data folder. Blocks, and reports to `progress`.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is open.
    pub fn open(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Self, StartError> {
        let (service, lanes) = (server::runtime().map_err(StartError::Runtime)?, runtime("lane")?);
        // The socket and the engine's watch belong to the service.
        let entered = service.enter();
        // One clock for all that the bus stores: an age is the difference of two of its readings.
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let security = Security::read(&options.listen, clock.clone())?;
        let port = Port::take(&security.options())?;
        let opening = Instant::now();
        let engine = EmbeddedEngine::open_by(&options.data, options.durability, clock.clone())?;
        remove_old_code(&options.data);
        let recovery = engine.recovery();
        progress(Progress::Opened { recovery, took: opening.elapsed() });
        if options.confirm_clock && engine.confirm_clock() {
            tracing::info!("the clock is confirmed, as it is at each start: what it is ahead by has passed");
        }
        let store = open_store(&options.data, &engine, &clock)?;
        drop(entered);
        Ok(Self { service, lanes, port, security, engine, clock, recovery, store })
    }

    /// The topology that was applied last, with the component of each subscriber, in order.
    pub fn applied(&self) -> Option<(Plan, Vec<Component>)> {
        self.store.topology()
    }

    /// Whether files are unchanged since the last start, in which case they propose nothing.
    pub fn has_seen(&self, said: FilesDigest, prune: bool) -> bool {
        self.store.has_seen(said, prune)
    }

    /// Starts the bus with what its files say, or with what was applied before: where there are no files, and where
    /// what they say cannot run. Blocks until it serves; `progress` may be called from several threads.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub fn start(
        self,
        files: StartFiles<'_>,
        options: &Options,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<RunningBus, StartError> {
        let Self { service, lanes, port, security, engine, clock, recovery, mut store } = self;
        let entered = service.enter();
        let (cache_folder, keeps_functions) = (options.code_cache.clone(), options.keeps_functions);
        let mut host = HostOptions { cache_folder, keeps_functions, ..HostOptions::default() };
        if let Some(bytes) = options.plugin_memory_bytes {
            host.memory_budget_bytes = bytes;
        }
        let host = Host::new(host)?;
        let told = |of| progress(Progress::Plugin(of));
        let applied = store.topology();
        let as_applied = |refused: Vec<String>| {
            let (plan, components) = applied.clone()?;
            Some(StartTopology { plan, components, refused })
        };
        let mut instead = match files {
            StartFiles::Valid(files) => {
                service.block_on(deploy::instead(&engine, &store, files, options.allow_loss))?
            }
            StartFiles::Invalid(why) => Some(as_applied(vec![why.to_owned()]).ok_or(StartError::Nothing)?),
            StartFiles::None => Some(as_applied(Vec::new()).ok_or(StartError::Nothing)?),
        };
        let begun = loop {
            let refused = instead.as_ref().map_or(&[] as &[String], |instead| &instead.refused);
            let is_same = |files| instead.as_ref().is_none_or(|instead| instead.is_same(files));
            match files {
                StartFiles::Valid(files) if refused.is_empty() && is_same(files) => {}
                StartFiles::Valid(_) | StartFiles::Invalid(_) if instead.is_some() => tell_what_runs(refused),
                _ => {}
            }
            let (plan, components) = match (&instead, files) {
                (Some(instead), _) => (&instead.plan, instead.components.as_slice()),
                (None, StartFiles::Valid(files)) => (&files.plan, files.components.as_slice()),
                (None, _) => return Err(StartError::Nothing),
            };
            let decide = |store: &mut Store, replaced: &[Replacement]| {
                service.block_on(deploy::adopt(&engine, store, plan, components, (options.allow_loss, replaced)))?;
                // what was refused is proposed again by the next start, which may allow it
                if let StartFiles::Valid(files) = files
                    && refused.is_empty()
                {
                    store.saw(files)?;
                }
                Ok::<_, StartError>(())
            };
            match deploy::begin_with(store, &host, plan, components, &told, decide) {
                Ok(begun) => break begun,
                // A mistake in a file must not take down a bus that has something to run.
                Err(StartError::Plugins(BeginError::Plugins(errors))) if instead.is_none() => {
                    let refused: Vec<_> = errors.iter().map(ToString::to_string).collect();
                    let Some(found) = as_applied(refused).filter(|found| found.plan != *plan) else {
                        return Err(StartError::Plugins(BeginError::Plugins(errors)));
                    };
                    instead = Some(found);
                    store = open_store(&options.data, &engine, &clock)?;
                }
                Err(error) => return Err(error),
            }
        };
        let (plan, refused) = match (&instead, files) {
            (Some(instead), _) => (&instead.plan, instead.refused.clone()),
            (None, StartFiles::Valid(files)) => (&files.plan, Vec::new()),
            (None, _) => return Err(StartError::Nothing),
        };
        drop(entered);

        let started = service.block_on(async {
            let tree = Tree::start_with(engine, plan, begun.starts, lanes.handle()).await?;
            let (capsules, sender) = capsules::CapsuleWriter::start(&options.data);
            tree.hand_capsules_to(sender);
            let versions = (begun.store, begun.notes);
            let reloader = Reloader::start(tree.clone(), host, plan, versions, service.handle());
            reloader.refuse_files(refused);
            reloader.keep_secrets_below(options.secrets.clone());
            let remembering = reloader.clone();
            capsules.follow(reloader.forgotten(), move |name| remembering.remembers(name));
            let door: Arc<dyn server::Capsules> = Arc::new(capsules::CapsuleFolder { data: options.data.clone() });
            let server = Server::start_with(port, tree.clone(), Some(reloader.clone()), Some(door)).await?;
            let following = effects::task(security.follow());
            Ok::<_, StartError>((tree, capsules, reloader, server, following))
        });
        let (tree, capsules, reloader, server, following) = started?;
        Ok(RunningBus { service, lanes, server, following, tree, capsules, reloader, recovery })
    }
}

impl RunningBus {
    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The running tree.
    pub fn tree(&self) -> &Tree<EmbeddedEngine> {
        &self.tree
    }

    /// The versions of its plugins.
    pub fn reloader(&self) -> &Reloader<EmbeddedEngine, Host> {
        &self.reloader
    }

    /// The result of recovery.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Runs a future on the runtime of the service.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.service.block_on(future)
    }

    /// Stops: health reports NOT_SERVING and new requests are refused; admitted ones are answered while lanes complete
    /// their calls; everything that was accepted is made durable. Takes about `deadline` at most, unless the disk takes
    /// longer. Blocks.
    pub fn stop(self, deadline: Duration) -> StopResult {
        let Self { service, lanes, server, following, tree, capsules, reloader, .. } = self;
        following.abort();
        let stop = service.block_on(async {
            // Concurrently: neither callers nor versions use up the time of the lanes.
            let answering = server.stop(deadline);
            let deciding = tokio::time::timeout(deadline, reloader.stop());
            let (answered, _, drained) = tokio::join!(answering, deciding, tree.drain(deadline));
            capsules.stop().await;
            let closed = tree.engine().close().await;
            StopResult { answered, drained, closed }
        });
        lanes.shutdown_timeout(RUNTIME_END);
        service.shutdown_timeout(RUNTIME_END);
        stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_plugins_of_earlier_code_go_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(OLD_CODE);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a-b.code"), "x").unwrap();
        std::fs::write(folder.join("mine.txt"), "x").unwrap();
        remove_old_code(data.path());
        assert!(folder.join("a-b.code").exists(), "somebody else's folder");
        std::fs::remove_file(folder.join("mine.txt")).unwrap();
        remove_old_code(data.path());
        assert!(!folder.exists());
        remove_old_code(data.path());
    }
}
