//! The plugin host: one engine, one pool of instances and one cache of compiled code for all plugins of a bus.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::thread;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use super::beside::BackgroundPool;
use super::cache::Cache;
use super::contract::Sandbox;
use super::engine::engine;
use super::functions::FunctionCache;
use super::logs::Gate;
use super::plugin::{Instance, InstanceParts, Plugin, PluginInner, StartError};
use super::refusal::{self, RegisterError};
use super::room::InstanceBudget;
use super::store_data::StoreData;
use super::ticker::Ticker;
use super::{messaging, sections, wasi};
use crate::api::Digest;
use crate::effects::random;
use crate::model::call::{Limits, PluginSettings};

/// Settings and limits of a host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The folder for compiled code between runs. Its content is executed: a folder that others can write to is not
    /// used. `None` disables the cache.
    pub cache_folder: Option<PathBuf>,
    /// Whether compiled functions are kept there as well: a plugin that was changed a little compiles sooner, and a new
    /// one later.
    pub keeps_functions: bool,
    /// Maximum memory of all instances of all plugins together, in bytes.
    pub memory_budget_bytes: u64,
    /// Maximum number of instances of one plugin in use at once.
    pub instances_per_plugin: usize,
}

impl Default for HostOptions {
    /// No cache, two instances per core and plugin, and memory for that many instances of four plugins.
    fn default() -> HostOptions {
        let instances_per_plugin = 2 * cores();
        let instances = u64::try_from(4 * instances_per_plugin).unwrap_or(u64::MAX);
        let memory_budget_bytes = instances.saturating_mul(Limits::default().memory_bytes).max(MEMORY_BUDGET_BYTES_MIN);
        HostOptions { cache_folder: None, keeps_functions: false, memory_budget_bytes, instances_per_plugin }
    }
}

/// Enough for one plugin with an interpreter.
const MEMORY_BUDGET_BYTES_MIN: u64 = 1 << 30;

/// Limits of the number of instances of all plugins. Each reserves 16 GiB of 128 TiB of address space.
const INSTANCES_MIN: u32 = 64;
const INSTANCES_MAX: u32 = 1_000;
const PLUGINS_AT_ONCE: usize = 16;

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Why the host could not be created.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The sandbox could not be set up.
    #[error(
        "the WebAssembly sandbox could not be set up: {message}. It reserves several TiB of address space without \
         using them: a limit on virtual memory (`ulimit -v`) must allow that"
    )]
    Engine {
        /// wasmtime's message.
        message: String,
    },
    /// The thread that counts time could not be started.
    #[error("the thread that counts the time of plugins could not be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The thread that compiles while plugins run could not be started.
    #[error("the thread that compiles plugins while others run could not be started: {message}")]
    Beside {
        /// The system's message.
        message: String,
    },
}

/// Runs plugins. Cheap to clone; the last clone ends the host's thread.
#[derive(Clone)]
pub struct Host(Arc<HostInner>);

pub(super) struct HostInner {
    pub(super) engine: Engine,
    pub(super) ticker: Ticker,
    pub(super) room: InstanceBudget,
    linker: Linker<StoreData>,
    cache: Option<Cache>,
    beside: BackgroundPool,
    keeps_functions: bool,
    instances_per_plugin: usize,
    plugins: Mutex<Vec<Weak<PluginInner>>>,
}

/// The specification of a plugin.
#[derive(Clone)]
pub struct PluginSpec {
    /// The subscriber, for messages and log lines.
    pub subscriber: String,
    pub wasm: Vec<u8>,
    /// The configuration by name. Values may be secrets, so they are never logged.
    pub config: BTreeMap<String, String>,
    /// Names in the configuration whose values are never shown.
    pub hidden: BTreeMap<String, HiddenReason>,
    /// The ports that the topology connects. Outputs refer to them by index.
    pub ports: Vec<String>,
    pub limits: Limits,
}

/// Why a value of the configuration is never shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenReason {
    /// It is a secret, which may change without a new version.
    Secret,
    /// It comes from the environment, which may contain secrets. Another value makes another version.
    Variable,
}

impl PluginSpec {
    /// The digest of the version: as [`Plugin::digest`].
    pub fn digest(&self) -> Digest {
        Digest::of_version(&Digest::of(&self.wasm), self.told(), &self.limits, &self.ports)
    }

    /// The digest of everything except the component.
    pub fn settings_digest(&self) -> Digest {
        Digest::of_settings(self.told(), &self.limits, &self.ports)
    }

    /// Everything except the component, for display.
    pub fn settings(&self) -> PluginSettings {
        let shown = |(name, value): (&String, &String)| {
            (name.clone(), Some(value.clone()).filter(|_| !self.hidden.contains_key(name)))
        };
        let secrets =
            self.hidden.iter().filter(|(_, hidden)| **hidden == HiddenReason::Secret).map(|(name, _)| name.clone());
        PluginSettings {
            ports: self.ports.clone(),
            limits: self.limits,
            config: self.config.iter().map(shown).collect(),
            secrets: secrets.collect(),
            secrets_mark: self.secrets_mark(),
        }
    }

    /// The part of the configuration that makes up the version.
    fn told(&self) -> impl Iterator<Item = (&str, Option<&str>)> + Clone {
        let is_secret = |name: &String| self.hidden.get(name) == Some(&HiddenReason::Secret);
        self.config.iter().map(move |(name, value)| (name.as_str(), Some(value.as_str()).filter(|_| !is_secret(name))))
    }

    /// As [`PluginSettings::secrets_mark`].
    fn secrets_mark(&self) -> [u8; 32] {
        /// A secret of this process, so that marks cannot be guessed.
        static SALT: LazyLock<[u8; 32]> = LazyLock::new(|| {
            let mut hasher = blake3::Hasher::new();
            for _ in 0..4 {
                hasher.update(&random().to_le_bytes());
            }
            *hasher.finalize().as_bytes()
        });
        let mut hasher = blake3::Hasher::new_keyed(&SALT);
        for (name, value) in
            self.config.iter().filter(|(name, _)| self.hidden.get(*name) == Some(&HiddenReason::Secret))
        {
            for part in [name, value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// A component's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The ports to which it sends; empty: any.
    pub ports: Vec<String>,
}

impl Host {
    /// Sets up the sandbox.
    ///
    /// # Errors
    /// The address space or the thread that it needs is not available.
    pub fn new(options: HostOptions) -> Result<Host, HostError> {
        let sandbox = |error: wasmtime::Error| HostError::Engine { message: format!("{error:#}") };
        let instances_per_plugin = options.instances_per_plugin.max(1);
        let instances = u32::try_from(instances_per_plugin.saturating_mul(PLUGINS_AT_ONCE)).unwrap_or(u32::MAX);
        let instances = instances.clamp(INSTANCES_MIN, INSTANCES_MAX);
        let functions = options.cache_folder.as_deref().filter(|_| options.keeps_functions).and_then(|folder| {
            let unused = |error| tracing::debug!(folder = %folder.display(), "functions are not kept: {error}");
            FunctionCache::open(folder).map_err(unused).ok()
        });
        let engine = engine(instances, functions).map_err(sandbox)?;
        let mut linker = Linker::new(&engine);
        Sandbox::add_to_linker::<StoreData, HasSelf<StoreData>>(&mut linker, |state| state).map_err(sandbox)?;
        wasi::files::add_to_linker(&mut linker).map_err(sandbox)?;
        wasi::sockets::add_to_linker(&mut linker).map_err(sandbox)?;
        wasi::v0_3::add_to_linker(&mut linker).map_err(sandbox)?;
        messaging::add_to_linker(&mut linker).map_err(sandbox)?;
        let cache = options.cache_folder.and_then(|folder| {
            let cache = Cache::open(&folder, &engine);
            // The cache only saves time.
            let unused = |error| tracing::warn!(folder = %folder.display(), "compiled code is not kept: {error}");
            cache.map_err(unused).ok()
        });
        let beside = BackgroundPool::start().map_err(|error| HostError::Beside { message: error.to_string() })?;
        let ticker = Ticker::start(engine.weak()).map_err(HostError::Thread)?;
        Ok(Host(Arc::new(HostInner {
            ticker,
            room: InstanceBudget::new(instances, options.memory_budget_bytes),
            linker,
            cache,
            beside,
            keeps_functions: options.keeps_functions,
            instances_per_plugin,
            plugins: Mutex::default(),
            engine,
        })))
    }

    /// Compiles a component, or loads it from the cache, and checks it: it starts an instance and asks for its ports.
    /// Takes from a millisecond to several seconds, on this thread and those of the compiler: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// The component is refused; the error tells its author what to do.
    pub fn register(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        let (digest, settings) = (spec.digest(), Arc::new(spec.settings()));
        let PluginSpec { subscriber, wasm, config, ports, limits, .. } = spec;
        let host = &self.0;
        if !host.room.could_hold(limits.memory_bytes) {
            return Err(RegisterError::TooMuchMemory { memory_bytes: limits.memory_bytes });
        }
        let state_version =
            sections::state_version(&wasm).map_err(|message| RegisterError::StateVersion { message })?;
        let wasm_digest = Digest::of(&wasm);
        let pre = refusal::examine(&host.engine, &host.linker, host.cache.as_ref(), &wasm, &wasm_digest)?;
        let subscriber: Arc<str> = subscriber.into();
        let mut kind = InstanceParts {
            gate: Gate::new(&subscriber, limits.log_lines_per_second),
            subscriber,
            pre,
            limits,
            ports: ports.into(),
            config: Arc::new(config),
        };
        let (described, instance) = describe(host, &kind)?;
        let declares_ports = !described.is_empty();
        let (ports, port_order) = refusal::matched(described, &kind.ports)?;
        // The first call can use this instance, unless it was told other ports.
        let ready = (ports == kind.ports).then_some(instance);
        kind.ports = ports;
        let shared = Arc::new(PluginInner {
            host: Arc::clone(host),
            kind,
            digest,
            wasm_digest,
            settings,
            state_version,
            port_order,
            declares_ports,
            seats: Arc::new(Semaphore::new(host.instances_per_plugin.min(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
        });
        host.remember(&shared); // first: a call that waits for room can then evict its idle instances
        if let Some(instance) = ready {
            shared.give_back(instance, 0);
        }
        Ok(Plugin::new(shared))
    }

    /// As [`Host::register`], on a few threads with low priority: for plugins that are to replace running ones. A host
    /// that keeps functions is an author's and uses normal priority.
    ///
    /// # Errors
    /// As [`Host::register`].
    pub fn register_beside(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        // The author waits for the change to run, and no other plugin needs the processor.
        if self.0.keeps_functions { self.register(spec) } else { self.0.beside.run(|| self.register(spec)) }
    }

    /// Whether the cache has the compiled code of a component.
    pub fn has_code_of(&self, wasm: &Digest) -> bool {
        self.0.cache.as_ref().is_some_and(|cache| cache.has(wasm))
    }

    /// A component's description of itself with this configuration, checked as by [`Host::register`] but without a
    /// topology.
    ///
    /// # Errors
    /// It is not a plugin.
    pub fn inspect(&self, wasm: &[u8], config: BTreeMap<String, String>) -> Result<Inspection, RegisterError> {
        let host = &self.0;
        let digest = Digest::of(wasm);
        let pre = refusal::examine(&host.engine, &host.linker, host.cache.as_ref(), wasm, &digest)?;
        let limits = Limits::default();
        let subscriber: Arc<str> = "inspection".into();
        let kind = InstanceParts {
            gate: Gate::new(&subscriber, limits.log_lines_per_second),
            subscriber,
            pre,
            limits,
            ports: Arc::new([]),
            config: Arc::new(config),
        };
        Ok(Inspection { digest, ports: describe(host, &kind)?.0 })
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("instances_per_plugin", &self.0.instances_per_plugin).finish_non_exhaustive()
    }
}

/// Starts an instance as a test, and asks it for its ports.
fn describe(host: &HostInner, kind: &InstanceParts) -> Result<(Vec<String>, Instance), RegisterError> {
    wait_for(async {
        let place = host.room.take(kind.limits.memory_bytes, || host.evict()).await;
        let mut instance = Instance::start(host, kind, place).await.map_err(|error| match error {
            StartError::Failed(message) => RegisterError::DoesNotStart { message },
            StartError::Misfit(why) => refusal::misfit(&host.engine, kind.pre.component(), &why),
        })?;
        let time = kind.limits.time;
        let ports = instance.describe(host, time).await;
        let ports = ports.map_err(|message| RegisterError::Describe { message })?;
        refusal::check_ports(&ports)?;
        Ok((ports, instance))
    })
}

impl HostInner {
    /// Evicts an idle instance of any plugin. Returns false if there is none.
    pub(super) fn evict(&self) -> bool {
        // Cloned out of the lock, because dropping an instance takes a while.
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner).clone();
        plugins.iter().filter_map(Weak::upgrade).any(|plugin| plugin.evict())
    }

    fn remember(&self, plugin: &Arc<PluginInner>) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.retain(|plugin| plugin.strong_count() > 0);
        plugins.push(Arc::downgrade(plugin));
    }
}

/// Runs a future on this thread, which may block.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}
