//! A registered plugin and its instances.
//!
//! ```text
//!            instance()                     handle() ok, below the marks
//!  (none) ──────────────▶ leased ─────────────────────────────────────────────▶ idle
//!    ▲                      │  ▲                                                  │
//!    │   failed, dropped    │  └──────────────── instance() ──────────────────────┤
//!    └──── in a call, or ◀──┘                                                     │
//!    │     past a mark                                                          │
//!    └───────────────────── another plugin waits for room ◀───────────────────────┘
//! ```
//!
//! Each instance has its own store, and a store is not reused after any failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Store, UpdateDeadline};

use super::entry::{Entry, EntryPre};
use super::host::HostInner;
use super::limits::{INSTANTIATION_TIME, crossing_bytes, handles_mark, memory_mark_bytes};
use super::logs::{Gate, Log};
use super::room::InstancePermit;
use super::store_data::{StopCause, StoreData};
use super::ticker::Slice;
use super::{call, words};
use crate::api::Digest;
use crate::model::call::{Batch, CallError, CallErrorKind, Handled, InstanceError, Limits, PluginSettings};

/// A checked plugin that is ready to handle events. Cheap to clone; the last clone drops its instances.
#[derive(Clone)]
pub struct Plugin(Arc<PluginInner>);

pub(super) struct PluginInner {
    pub(super) host: Arc<HostInner>,
    pub(super) kind: InstanceParts,
    pub(super) digest: Digest,
    pub(super) wasm_digest: Digest,
    pub(super) settings: Arc<PluginSettings>,
    pub(super) state_version: u32,
    /// For each port in the plugin's order, its index in `PluginSpec::ports`.
    pub(super) port_order: Vec<u32>,
    /// Whether it declares its ports.
    pub(super) declares_ports: bool,
    pub(super) seats: Arc<Semaphore>,
    pub(super) idle: Mutex<Vec<Instance>>,
    /// Number of resets. Changed while `idle` is locked.
    pub(super) generation: AtomicU64,
    /// The maximum memory of an instance after a call.
    pub(super) memory_peak_bytes: AtomicU64,
}

/// The parts from which instances of a plugin are made.
pub(super) struct InstanceParts {
    pub(super) subscriber: Arc<str>,
    pub(super) pre: EntryPre,
    pub(super) limits: Limits,
    pub(super) ports: Arc<[String]>,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) gate: Arc<Gate>,
}

impl Plugin {
    pub(super) fn new(shared: Arc<PluginInner>) -> Plugin {
        Plugin(shared)
    }

    /// The digest of this version: of the component, its configuration, limits and ports.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// The digest of the component alone.
    pub fn wasm_digest(&self) -> &Digest {
        &self.0.wasm_digest
    }

    /// Its settings without the component.
    pub fn settings(&self) -> Arc<PluginSettings> {
        self.0.settings.clone()
    }

    /// Whether it declares its ports; otherwise it has those that the topology connects.
    pub fn declares_ports(&self) -> bool {
        self.0.declares_ports
    }

    /// The version of its state: a plugin with another version cannot read it. 0 if undeclared.
    pub fn state_version(&self) -> u32 {
        self.0.state_version
    }

    /// The limits that it was registered with.
    pub fn limits(&self) -> &Limits {
        &self.0.kind.limits
    }

    /// The maximum memory of any instance so far, in bytes.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.0.memory_peak_bytes.load(Ordering::Relaxed)
    }

    /// Discards all present instances once they are returned: later calls find nothing in memory from earlier ones.
    pub fn begin_afresh(&self) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.generation.fetch_add(1, Ordering::Relaxed);
        idle.clear();
    }

    /// An instance for a call. Waits while the maximum number is leased, or while there is no room for another one.
    ///
    /// # Errors
    /// A new instance was needed and did not start within five seconds of running, or trapped while it started.
    pub async fn instance(&self) -> Result<Lease, InstanceError> {
        let shared = &self.0;
        let closed = || InstanceError::Closed { subscriber: shared.kind.subscriber.to_string() };
        let seat = Arc::clone(&shared.seats).acquire_owned().await.map_err(|_| closed())?;
        let generation = shared.generation.load(Ordering::Relaxed);
        let instance = match shared.take_idle() {
            Some(instance) => instance,
            None => {
                let host = &shared.host;
                let place = host.room.take(shared.kind.limits.memory_bytes, || host.evict()).await;
                let place = place.ok_or_else(closed)?;
                Instance::start(host, &shared.kind, Some(place)).await.map_err(|error| InstanceError::Start {
                    subscriber: shared.kind.subscriber.to_string(),
                    message: error.to_string(),
                })?
            }
        };
        Ok(Lease { instance: Some(instance), generation, plugin: Arc::clone(shared), _seat: seat })
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {})", self.0.kind.subscriber, self.0.digest.short())
    }
}

impl PluginInner {
    /// Evicts an idle instance. Returns false if there is none.
    pub(super) fn evict(&self) -> bool {
        self.take_idle().is_some()
    }

    fn take_idle(&self) -> Option<Instance> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn give_back(&self, instance: Instance, generation: u64) {
        if instance.is_worn(&self.kind.limits) {
            return;
        }
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if self.generation.load(Ordering::Relaxed) == generation {
                idle.push(instance);
            }
        }
        // In this order: a waiting call either finds the instance here, or was counted before this check.
        if self.host.room.is_wanted() {
            self.evict();
        }
    }
}

/// An instance of a plugin for consecutive calls. Dropping it returns the instance, or discards it after a failed call
/// or if it exceeds its marks for memory or handles.
pub struct Lease {
    instance: Option<Instance>,
    /// The plugin's generation at the time of the lease.
    generation: u64,
    plugin: Arc<PluginInner>,
    _seat: OwnedSemaphorePermit,
}

impl Lease {
    /// Calls the plugin with a batch and checks the answer.
    ///
    /// Runs on the caller's task and yields every few milliseconds. Dropping the future ends the call and discards the
    /// instance.
    ///
    /// # Errors
    /// The call did not give a usable result; see [`CallError`] for the event to blame. The instance is discarded: take
    /// another lease.
    pub async fn handle(&mut self, batch: Batch<'_>) -> Result<Handled, CallError> {
        // Taken out during the call: if it ends early, the instance is dropped.
        let Some(mut instance) = self.instance.take() else {
            let message = "a call before this one failed and took the instance along: lease another".to_owned();
            return Err(CallError { event: None, kind: CallErrorKind::Spent, message, backtrace: None });
        };
        let handled = instance.handle(&self.plugin, &batch).await?;
        self.instance = Some(instance);
        Ok(handled)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.plugin.give_back(instance, self.generation);
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({} {})", self.plugin.kind.subscriber, self.plugin.digest.short())
    }
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// It trapped or took too long.
    #[error("{0}")]
    Failed(String),
    /// A function that it exports has another type.
    #[error("{0}")]
    Misfit(String),
}

/// A store and its only instance.
pub(super) struct Instance {
    store: Store<StoreData>,
    entry: Entry,
    slice: Slice,
    memory_at_start_bytes: u64,
    /// Handles that were open after the last call.
    handles: usize,
    _place: Option<InstancePermit>,
}

impl Instance {
    /// Starts an instance, within the time limit for that.
    pub(super) async fn start(
        host: &HostInner,
        kind: &InstanceParts,
        place: Option<InstancePermit>,
    ) -> Result<Instance, StartError> {
        let timer = host.ticker.timer(INSTANTIATION_TIME);
        let slice = timer.slice();
        let log = Log::new(Arc::clone(&kind.subscriber), Arc::clone(&kind.gate));
        let state = StoreData::new(&kind.limits, timer, log, Arc::clone(&kind.ports), Arc::clone(&kind.config));
        let mut store = Store::new(&host.engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(crossing_bytes(&kind.limits));
        store.set_max_component_handles(usize::try_from(kind.limits.handles).unwrap_or(usize::MAX));
        store.epoch_deadline_callback(|mut store| match store.data_mut().timer.spend() {
            true => Ok(UpdateDeadline::Yield(1)),
            false => Err(StopCause::Timeout.into()),
        });

        let started = {
            let _running = host.ticker.run();
            store.set_epoch_deadline(1);
            call::in_slices(&slice, kind.pre.instantiate(&mut store)).await
        };
        let entry = started.map_err(|error| {
            let call::Explanation { kind, message } = call::explain(&error, store.data(), INSTANTIATION_TIME);
            // It started, but its functions were not those of the contract.
            let misfit = kind == CallErrorKind::Protocol && call::has_returned(&error);
            if misfit { StartError::Misfit(words::error(&error)) } else { StartError::Failed(message) }
        })?;
        store.data_mut().leave();
        store.data_mut().timer.allow(kind.limits.time);
        let memory_at_start_bytes = store.data().meter.used_bytes();
        Ok(Instance { store, entry, slice, memory_at_start_bytes, handles: 0, _place: place })
    }

    /// Asks the plugin for its ports. The error is a message.
    pub(super) async fn describe(&mut self, host: &HostInner, time: Duration) -> Result<Vec<String>, String> {
        let described = {
            let _running = host.ticker.run();
            self.store.data_mut().timer.restart();
            self.store.set_epoch_deadline(1);
            call::in_slices(&self.slice, self.entry.describe(&mut self.store)).await
        };
        let described = described.map_err(|error| call::explain(&error, self.store.data(), time).message);
        self.store.data_mut().leave();
        described
    }

    async fn handle(&mut self, plugin: &PluginInner, batch: &Batch<'_>) -> Result<Handled, CallError> {
        let answer = {
            let _running = plugin.host.ticker.run();
            self.store.data_mut().enter(batch);
            self.store.set_epoch_deadline(1);
            call::in_slices(&self.slice, self.entry.handle(&mut self.store, batch)).await
        };
        self.store.data_mut().tell_reads();
        plugin.memory_peak_bytes.fetch_max(self.store.data().meter.used_bytes(), Ordering::Relaxed);
        let checked = match answer {
            Ok(answer) => call::checked(answer, batch, plugin).map(|answer| {
                let end = answer.failed.as_ref().map(|failed| failed.event);
                answer.handled(batch.events.len(), self.store.data_mut().take_writes(end))
            }),
            Err(error) => Err(call::failed(&error, self.store.data(), batch, &plugin.kind.limits)),
        };
        self.store.data_mut().leave();
        self.handles = self.store.data_mut().open_handles();
        checked
    }

    /// Whether it uses so much memory or so many handles that a fresh instance is better.
    fn is_worn(&self, limits: &Limits) -> bool {
        let used_bytes = self.store.data().meter.used_bytes();
        let is_large = used_bytes > memory_mark_bytes(limits) && used_bytes > self.memory_at_start_bytes;
        is_large || self.handles > handles_mark(limits)
    }
}
