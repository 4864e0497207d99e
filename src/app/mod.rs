//! The composition root: from a checked plan to a bus that serves, and back down.
//!
//! Promises: what can fail cheaply fails before what is slow; every plugin that does not fit is named, not only the first;
//! [`Running::stop`] refuses, then answers and drains at the same time, then closes, and nothing that was acknowledged is lost.
//! Relies on: everything below. It is the only place that knows all of it.
//! Must not know: the command line, terminals, signals; where plans and components come from.

pub mod capsules;
pub mod cases;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::dispatch::{PrepareError, Tree};
use crate::engine::embedded::{Durability, EmbeddedEngine, EmbeddedError, Recovery};
use crate::engine::{ApplyError, Engine, Stopped};
use crate::server::{self, Port, Server};
use crate::topology::{Plan, Said};
use crate::wasm::{Host, HostError, HostOptions};

use crate::deploy::{
    self, BeginError, Files, Instead, Reloader, Replaced, SecretFolders, Store, StoreError, TopologyError,
};
use crate::effects::DiskFolder;

/// The folder in the data folder that holds versions of plugins.
const VERSIONS: &str = "plugins";
/// The folder in the data folder in which earlier code kept compiled plugins.
const OLD_CODE: &str = "code";
/// How long a runtime may take to end its blocking tasks once everything else has ended.
const RUNTIME_END: Duration = Duration::from_millis(500);

/// How the bus is set up; none of it is in the topology.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub listen: server::Options,
    /// Where it keeps what it keeps.
    pub data: PathBuf,
    /// When something counts as kept.
    pub durability: Durability,
    /// Memory that all instances of all plugins may take together, in bytes; `None` for as much as the sandbox thinks
    /// right for the machine.
    pub plugin_memory_bytes: Option<u64>,
    /// Where compiled plugins are kept between runs; `None` for nowhere.
    pub code_cache: Option<PathBuf>,
    /// The folders below which topologies that are applied while it runs name secrets.
    pub secrets: SecretFolders,
    /// A topology is applied also where that loses something.
    pub allow_loss: bool,
    /// The machine's clock is right, however long the bus was off.
    pub confirm_clock: bool,
}

/// What happens during a start, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The data folder has been opened.
    Opened {
        /// What was found in it.
        recovery: Recovery,
        /// How long that took.
        took: Duration,
    },
    /// Something happens to a plugin.
    Plugin(deploy::Progress),
}

/// Why the bus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system gives no threads.
    #[error("cannot start the threads of the bus: {0}")]
    Runtime(#[source] std::io::Error),
    /// The service.
    #[error(transparent)]
    Server(#[from] server::StartError),
    /// The data folder.
    #[error(transparent)]
    Engine(#[from] EmbeddedError),
    /// The sandbox.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The folder of plugin versions.
    #[error("cannot open the folder of plugins in the data folder: {0}")]
    Versions(#[source] std::io::Error),
    /// Plugin versions.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Plugins, all that do not fit.
    #[error(transparent)]
    Plugins(BeginError),
    /// What was applied last, or what is to be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// There is nothing to run.
    #[error(
        "no topology was applied to this data folder yet, and no file says one: name topology files, or folders of them"
    )]
    Nothing,
    /// The tree.
    #[error(transparent)]
    Tree(#[from] crate::dispatch::StartError),
}

impl StartError {
    /// Whether what is wrong is what was configured, rather than the machine.
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
            Self::Nothing => true,
            Self::Engine(error) => matches!(error, EmbeddedError::NotOurs { .. } | EmbeddedError::Stranger { .. }),
            Self::Runtime(_) | Self::Host(_) | Self::Versions(_) | Self::Store(_) => false,
        }
    }
}

/// How a stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Everything that was admitted was answered.
    pub answered: bool,
    /// Every lane ended its call and committed it; otherwise that call is done again after the next start.
    pub drained: bool,
    /// Whether the engine ended as it should.
    pub closed: Result<(), Stopped>,
}

/// A running bus.
///
/// Lanes have a runtime of their own, so that plugins which take all the processor time that they may do not keep the
/// service from answering.
pub struct Running {
    service: Runtime,
    lanes: Runtime,
    server: Server,
    tree: Tree<EmbeddedEngine>,
    capsules: capsules::Keeper,
    reloader: Reloader<EmbeddedEngine, Host>,
    recovery: Recovery,
}

impl From<BeginError> for StartError {
    fn from(error: BeginError) -> Self {
        Self::Plugins(error)
    }
}

/// What was applied before runs, and not what the files say.
fn tell_what_runs(refused: &[String]) {
    if refused.is_empty() {
        tracing::warn!(
            "what was applied since the last start runs, not what the files say, which have not changed: `wattle status \
             --files` shows how they differ, `wattle apply` applies them"
        );
    }
    for why in refused {
        tracing::warn!(why, "what was applied before runs, not what the files say, which may not take its place");
    }
    if !refused.is_empty() {
        tracing::warn!(
            "`wattle plan` shows all that the files would change; `wattle apply --allow-loss` also loses what they lose"
        );
    }
}

/// Removes what earlier code kept of compiled plugins: it is not used any more. All other files there stay.
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

/// A bus whose data folder is open, and that runs nothing yet.
pub struct Opened {
    service: Runtime,
    lanes: Runtime,
    port: Port,
    engine: EmbeddedEngine,
    recovery: Recovery,
    store: Store,
}

/// Whether something was applied to a data folder before, as far as can be told without opening it.
///
/// # Errors
/// It cannot be told, such as of a folder that this user may not look into.
pub fn was_applied(data: &Path) -> Result<bool, StartError> {
    let unreadable = |error| EmbeddedError::Io { what: "look into", path: data.to_owned(), error };
    Ok(data.join(VERSIONS).join(Store::TOPOLOGY).try_exists().map_err(unreadable)?)
}

impl Opened {
    /// Opens a data folder. Blocks; `progress` is told of it.
    ///
    /// # Errors
    /// [`StartError`]; nothing is open then.
    pub fn open(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Self, StartError> {
        let (service, lanes) = (server::runtime().map_err(StartError::Runtime)?, runtime("lane")?);
        // The socket and the engine's watch belong to the service.
        let entered = service.enter();
        let port = Port::take(&options.listen)?;
        let opening = Instant::now();
        let engine = EmbeddedEngine::open(&options.data, options.durability)?;
        remove_old_code(&options.data);
        let recovery = engine.recovery();
        progress(Progress::Opened { recovery, took: opening.elapsed() });
        if options.confirm_clock && engine.confirm_clock() {
            tracing::info!("the clock is confirmed, as it is at each start: what it is ahead by has passed");
        }
        let versions = DiskFolder::create(&options.data.join(VERSIONS)).map_err(StartError::Versions)?;
        let mut store = Store::open(versions)?;
        if !engine.storage().takes_events {
            store.takes_no_more();
        }
        drop(entered);
        Ok(Self { service, lanes, port, engine, recovery, store })
    }

    /// What was applied last, with the component of each subscriber, in its order.
    pub fn applied(&self) -> Option<(Plan, Vec<PathBuf>)> {
        self.store.topology()
    }

    /// Whether files say what they said at the start before, by which they propose nothing.
    pub fn has_seen(&self, said: Said, prune: bool) -> bool {
        self.store.has_seen(said, prune)
    }

    /// Starts the bus with what its files say, or with what was applied before: also where there are no files. Blocks until it
    /// serves; `progress` may be called from several threads.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        self,
        files: Option<&Files>,
        options: &Options,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Running, StartError> {
        let Self { service, lanes, port, engine, recovery, store } = self;
        let entered = service.enter();
        let mut host = HostOptions { cache_folder: options.code_cache.clone(), ..HostOptions::default() };
        if let Some(bytes) = options.plugin_memory_bytes {
            host.memory_budget_bytes = bytes;
        }
        let host = Host::new(host)?;
        let told = |of| progress(Progress::Plugin(of));
        let instead = match (files, store.topology()) {
            (Some(files), _) => service.block_on(deploy::instead(&engine, &store, files, options.allow_loss))?,
            (None, Some((plan, components))) => Some(Instead { plan, components, refused: Vec::new() }),
            (None, None) => return Err(StartError::Nothing),
        };
        let refused = instead.as_ref().map(|instead| instead.refused.clone()).unwrap_or_default();
        if instead.is_some() && files.is_some() {
            tell_what_runs(&refused);
        }
        let (plan, components) = match (&instead, files) {
            (Some(instead), _) => (&instead.plan, instead.components.as_slice()),
            (None, Some(files)) => (&files.plan, files.components.as_slice()),
            (None, None) => return Err(StartError::Nothing),
        };
        let decide = |store: &mut Store, replaced: &[Replaced]| {
            service.block_on(deploy::adopt(&engine, store, plan, components, (options.allow_loss, replaced)))?;
            // what was refused is proposed again by the next start, which may allow it
            if let Some(files) = files.filter(|_| refused.is_empty()) {
                store.saw(files)?;
            }
            Ok::<_, StartError>(())
        };
        let begun = deploy::begin_with(store, &host, plan, components, &told, decide)?;
        drop(entered);

        let started = service.block_on(async {
            let tree = Tree::start_with(engine, plan, begun.starts, lanes.handle()).await?;
            let (capsules, sender) = capsules::Keeper::start(&options.data);
            tree.hand_capsules_to(sender);
            let versions = (begun.store, begun.notes);
            let reloader = Reloader::start(tree.clone(), host, plan, versions, service.handle());
            reloader.refuse_files(refused.clone());
            reloader.keep_secrets_below(options.secrets.clone());
            let remembering = reloader.clone();
            capsules.follow(reloader.forgotten(), move |name| remembering.remembers(name));
            let door: Arc<dyn server::Capsules> = Arc::new(capsules::Door { data: options.data.clone() });
            let server = Server::start_with(port, tree.clone(), Some(reloader.clone()), Some(door)).await?;
            Ok::<_, StartError>((tree, capsules, reloader, server))
        });
        let (tree, capsules, reloader, server) = started?;
        Ok(Running { service, lanes, server, tree, capsules, reloader, recovery })
    }
}

impl Running {
    /// Where it listens.
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

    /// What was found in the data folder.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Runs a future on the runtime of the service.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.service.block_on(future)
    }

    /// Stops: health says NOT_SERVING and nothing more is admitted; what was admitted is answered while lanes end what they
    /// are at; everything that was accepted is made durable. Takes about `deadline` at the most, unless the disk takes longer.
    /// Blocks.
    pub fn stop(self, deadline: Duration) -> Stop {
        let Self { service, lanes, server, tree, capsules, reloader, .. } = self;
        let stop = service.block_on(async {
            // Side by side: neither callers nor versions take the time that lanes have to end what they are at.
            let answering = server.stop(deadline);
            let deciding = tokio::time::timeout(deadline, reloader.stop());
            let (answered, _, drained) = tokio::join!(answering, deciding, tree.drain(deadline));
            capsules.stop().await;
            let closed = tree.engine().close().await;
            Stop { answered, drained, closed }
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
