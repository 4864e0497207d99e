//! Measures what replacing a plugin version costs the events in flight.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{BenchError, Subject, checked, fresh, quantile, runtime, sample};
use crate::api::{Digest, Policy};
use crate::deploy::{BeginError, Compile, Progress, Reloader, Store, begin};
use crate::dispatch::Tree;
use crate::effects::{Clock, DiskFolder, MemoryDisk, SystemClock};
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::engine::{Engine, ReadBudget};
use crate::model::call::{Batch, HandleError, Handled, Handler};
use crate::model::{PartitionId, Record};
use crate::server;
use crate::wasm::{Host, HostOptions, Plugin, PluginSpec, RegisterError};

/// The first part of `topologies/orders.yaml`, with its first plugin.
const TREE: &str = "
wattle: v1
name: bench
topics: { orders: { partitions: 4, key: data.order_id }, accepted: {}, refused: {} }
subscribers:
  validate:
    from: orders
    plugin: validate.wasm
    to: { accepted: accepted, refused: refused }
    trial: { events: 200, for: 0s }
";
const PORTS: [&str; 2] = ["accepted", "refused"];
/// How many times calm, reloads and compiling alternate.
const ROUNDS: usize = 10;
/// Duration of the calm phase of a round.
const CALM: Duration = Duration::from_secs(1);
/// Uncached versions per round.
const NEW_OF_ROUND: usize = 2;
/// How often a producer checks whether events are due.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);
/// The maximum per publish when the producer is late.
const PUBLISH_EVENTS_MAX: usize = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Pause between reloads: every lane has made its first call by then, and none of these calls waits for the next
/// reload's disk writes.
const REST: Duration = Duration::from_millis(10);

/// A distribution in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread {
    /// Number of values.
    pub count: usize,
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    pub max: f64,
}

/// Measurements of calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calls {
    /// How long the lane had input but no output: until the end of the call, from the end of the previous one or, if
    /// later, from the append of its oldest event.
    pub pause: Spread,
    /// From the due time of the call's oldest event to the end of the call.
    pub latency: Spread,
    /// The duration of the call.
    pub took: Spread,
}

/// What one run of `bench reload` measured.
#[derive(Debug, Clone)]
pub struct Reload {
    /// Events per second.
    pub rate: f64,
    /// Number of published events.
    pub events: usize,
    /// Number of version replacements.
    pub reloads: usize,
    /// Events without an output.
    pub lost: usize,
    /// Events with more than one output.
    pub doubled: usize,
    /// Outputs after one of a later event of their partition.
    pub reordered: usize,
    /// All calls in calm phases (the yardstick).
    pub calm: Calls,
    /// The first call of each lane to a version that replaces another.
    pub replaced: Calls,
    /// The first call of each lane to a candidate version.
    pub tried: Calls,
    /// All calls while a component is compiled in the background.
    pub compiling: Calls,
    /// From the request until lanes call a version that was compiled before.
    pub reload: Spread,
    /// Compiling and checking a component in the background.
    pub compile: Spread,
    /// By subscriber of the whole tree: start time with cached code, in milliseconds.
    pub cached_starts: Vec<(String, f64)>,
}

/// The phase of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Not measured.
    #[default]
    Other,
    Calm,
    Replace,
    Try,
    Compile,
}

struct Call {
    phase: Phase,
    is_first: bool,
    pause: Duration,
    latency: Duration,
    took: Duration,
}

#[derive(Default)]
struct Observations {
    phase: Phase,
    /// By partition: the end of the last call, and its version.
    last: Vec<Option<(Instant, [u8; 32])>>,
    calls: Vec<Call>,
    /// Durations of background compilations.
    compiled: Vec<(Phase, Duration)>,
}

/// Collects the observations.
struct Observer {
    began: Instant,
    rate: f64,
    seen: Mutex<Observations>,
}

impl Observer {
    fn seen(&self) -> MutexGuard<'_, Observations> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self, number: usize) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }

    fn turn(&self, phase: Phase) {
        self.seen().phase = phase;
    }
}

/// A plugin that reports its calls.
#[derive(Clone)]
struct MeteredPlugin {
    plugin: Plugin,
    watch: Arc<Observer>,
}

fn number_of(key: &str) -> Option<usize> {
    key.rsplit('-').next()?.parse().ok()
}

impl Handler for MeteredPlugin {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let (partition, first) = (
            batch.partition as usize,
            batch.events.first().and_then(|event| Some((number_of(event.key)?, event.time_ns))),
        );
        let began = Instant::now();
        let handled = Handler::handle(&self.plugin, batch).await?;
        let (now, version) = (Instant::now(), Handler::digest(self));
        let mut seen = self.watch.seen();
        if seen.last.len() <= partition {
            seen.last.resize(partition + 1, None);
        }
        let last = seen.last.get_mut(partition).and_then(|last| last.replace((now, version)));
        if let (Some((ended, before)), Some((first, appended_ns))) = (last, first) {
            let (phase, is_first) = (seen.phase, before != version);
            let latency = now.saturating_duration_since(self.watch.due(first));
            let since_append = Duration::from_nanos(SystemClock.now_ns().saturating_sub(appended_ns));
            let pause = since_append.min(now - ended);
            seen.calls.push(Call { phase, is_first, pause, latency, took: now - began });
        }
        Ok(handled)
    }
}

/// The sandbox, with compile times reported.
#[derive(Clone)]
struct TimedCompiler {
    host: Host,
    watch: Arc<Observer>,
}

impl Compile for TimedCompiler {
    type Handler = MeteredPlugin;

    fn compile(&self, spec: PluginSpec) -> Result<MeteredPlugin, RegisterError> {
        Ok(MeteredPlugin { plugin: self.host.register(spec)?, watch: self.watch.clone() })
    }

    fn compile_beside(&self, spec: PluginSpec) -> Result<MeteredPlugin, RegisterError> {
        let began = Instant::now();
        let plugin = self.host.register_beside(spec)?;
        let mut seen = self.watch.seen();
        let phase = seen.phase;
        seen.compiled.push((phase, began.elapsed()));
        drop(seen);
        Ok(MeteredPlugin { plugin, watch: self.watch.clone() })
    }

    fn is_compiled(&self, component: &Digest) -> bool {
        self.host.is_compiled(component)
    }

    fn state_version(&self, wasm: &[u8]) -> Option<u32> {
        Compile::state_version(&self.host, wasm)
    }
}

/// The component of the tree's plugin.
fn component(subject: &Subject) -> Result<Vec<u8>, BenchError> {
    let has_ports = |ports: &[(String, _)]| ports.iter().map(|(port, _)| port.as_str()).eq(PORTS);
    let at = subject.plan.subscribers.iter().position(|subscriber| has_ports(&subscriber.ports));
    let file = at.and_then(|at| subject.components.get(at));
    let file = file.ok_or_else(|| BenchError::Unfit(format!("no subscriber has the ports {}", PORTS.join(", "))))?;
    Ok(std::fs::read(file)?)
}

/// The same component with a different digest: with an unused section at the end.
fn version(component: &[u8], number: u64) -> Vec<u8> {
    const NAME: &[u8; 7] = b"version";
    let mut bytes = component.to_vec();
    bytes.extend([0, 1 + 7 + 8, 7]); // a custom section, its length, and the length of its name
    bytes.extend(NAME);
    bytes.extend(number.to_le_bytes());
    bytes
}

/// Publishes `rate` orders per second through the embedded engine and meanwhile replaces the running version `reloads`
/// times, half of them with a trial: by two cached components in turns, and occasionally by an uncached one.
///
/// # Errors
/// [`BenchError`].
pub fn reload(subject: &Subject, rate: f64, reloads: usize) -> Result<Reload, BenchError> {
    let (plan, component, folder) = (checked(TREE)?, component(subject)?, fresh(&subject.folder, "reload")?);
    let cache = HostOptions { cache_folder: Some(folder.join("code")), ..HostOptions::default() };
    let (service, lanes) = (server::runtime()?, runtime("lane")?);
    let file = folder.join("validate.wasm");
    std::fs::write(&file, version(&component, 0))?;

    let watch = Arc::new(Observer { began: Instant::now() + CALM, rate, seen: Mutex::default() });
    let timed = TimedCompiler { host: Host::new(cache.clone())?, watch: watch.clone() };
    let store =
        Store::open(DiskFolder::create(&folder.join("versions"))?, Arc::new(SystemClock)).map_err(BeginError::Store)?;
    let begun = begin(store, &timed, &plan, std::slice::from_ref(&file), &|_| ())?;
    let (tree, reloader) = service.block_on(async {
        let engine = EmbeddedEngine::open(&folder.join("data"), Durability::Sync)?;
        let tree = Tree::start_with(engine, &plan, begun.starts, lanes.handle()).await?;
        let versions = (begun.store, begun.notes);
        let reloader = Reloader::start(tree.clone(), timed, &plan, versions, &Handle::current());
        Ok::<_, BenchError>((tree, reloader))
    })?;

    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let producer = service.spawn(produce(tree.clone(), watch.clone(), stop.clone(), sent.clone()));
    let reloaded = service.block_on(take_turns(&reloader, &watch, &component, reloads));
    stop.store(true, Ordering::Release);
    let found = service.block_on(async {
        producer.await.map_err(std::io::Error::other)??;
        let took = reloaded?;
        while !tree.is_settled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let found = look_through(&tree, sent.load(Ordering::Acquire)).await?;
        reloader.stop().await;
        tree.drain(Duration::from_secs(5)).await;
        drop(tree.engine().close().await);
        Ok::<_, BenchError>((took, found))
    });
    let (took, (lost, doubled, reordered)) = found?;

    let seen = watch.seen();
    let calls = |phase: Phase, is_first: bool| {
        let calls: Vec<_> =
            seen.calls.iter().filter(|call| call.phase == phase && (!is_first || call.is_first)).collect();
        let spread_of = |part: fn(&Call) -> Duration| spread(calls.iter().map(|call| part(call)));
        Calls {
            pause: spread_of(|call| call.pause),
            latency: spread_of(|call| call.latency),
            took: spread_of(|call| call.took),
        }
    };
    let compiled = seen.compiled.iter().filter(|(phase, _)| *phase == Phase::Compile);
    Ok(Reload {
        rate,
        events: sent.load(Ordering::Acquire),
        reloads: took.len() + ROUNDS * NEW_OF_ROUND,
        lost,
        doubled,
        reordered,
        calm: calls(Phase::Calm, false),
        replaced: calls(Phase::Replace, true),
        tried: calls(Phase::Try, true),
        compiling: calls(Phase::Compile, false),
        reload: spread(took.into_iter()),
        compile: spread(compiled.map(|(_, took)| *took)),
        cached_starts: cached_starts(subject, &cache)?,
    })
}

fn spread(times: impl Iterator<Item = Duration>) -> Spread {
    let figures: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
    let at = |share| quantile(&figures, share);
    Spread { count: figures.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

/// Publishes events that are due, until `stop`.
async fn produce(
    tree: Tree<EmbeddedEngine>,
    watch: Arc<Observer>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) -> Result<(), BenchError> {
    let mut next = 0;
    while !stop.load(Ordering::Acquire) {
        let elapsed = Instant::now().saturating_duration_since(watch.began);
        let due = ((elapsed.as_secs_f64() * watch.rate) as usize).min(next + PUBLISH_EVENTS_MAX);
        if due <= next {
            tokio::time::sleep(PUBLISH_EVERY).await;
            continue;
        }
        let orders: Vec<Bytes> = (next..due).map(sample::order).collect();
        tree.publisher().publish("orders", &orders, None).await?;
        next = due;
        sent.store(next, Ordering::Release);
    }
    Ok(())
}

type Reloads = Reloader<EmbeddedEngine, TimedCompiler>;

async fn deploy(reloader: &Reloads, wasm: Vec<u8>, policy: Policy) -> Result<Duration, BenchError> {
    let began = Instant::now();
    reloader.deploy("validate", wasm, policy, "wattle bench").await?;
    let took = began.elapsed();
    // wait for the end of a trial, so that the next deploy replaces a stable version
    while reloader.list().iter().any(|summary| summary.tried.is_some()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(REST).await;
    Ok(took)
}

/// Alternates calm, reloads of cached versions, and compiling. Returns the durations of the reloads.
async fn take_turns(
    reloader: &Reloads,
    watch: &Observer,
    component: &[u8],
    reloads: usize,
) -> Result<Vec<Duration>, BenchError> {
    let (mut took, mut new) = (Vec::new(), 2);
    // both are compiled, and everything has run once
    for number in [1, 0] {
        deploy(reloader, version(component, number), Policy::Replace).await?;
    }
    tokio::time::sleep(2 * CALM).await;
    for _ in 0..ROUNDS {
        watch.turn(Phase::Calm);
        tokio::time::sleep(CALM).await;
        for (phase, policy) in [(Phase::Replace, Policy::Replace), (Phase::Try, Policy::Swap)] {
            watch.turn(phase);
            for _ in 0..reloads.div_ceil(2 * ROUNDS) {
                let number = 1 - took.len() as u64 % 2;
                took.push(deploy(reloader, version(component, number), policy).await?);
            }
        }
        watch.turn(Phase::Compile);
        for _ in 0..NEW_OF_ROUND {
            deploy(reloader, version(component, new), Policy::Replace).await?;
            new += 1;
        }
        watch.turn(Phase::Other);
        // so that the next reload changes the version
        let last = 1 - (took.len() as u64 + 1) % 2;
        deploy(reloader, version(component, last), Policy::Replace).await?;
    }
    Ok(took)
}

/// Of `events` orders, the numbers without an output, with several, and with one after that of a later order.
async fn look_through(tree: &Tree<EmbeddedEngine>, events: usize) -> Result<(usize, usize, usize), BenchError> {
    let unread = |error: &dyn std::fmt::Display| BenchError::Unfit(format!("outputs cannot be read: {error}"));
    let topic = tree.topic("accepted").map_err(|error| unread(&error))?;
    let (mut times, mut reordered) = (vec![0u32; events], 0);
    for partition in 0..topic.partitions() {
        let id = PartitionId { topic: topic.number(), partition };
        let bounds = tree.engine().bounds(id).ok_or_else(|| unread(&"it has no such partition"))?;
        let (mut from, mut last) = (bounds.start, None);
        if let Some(last) = bounds.written.checked_sub(1) {
            tree.engine().wait_durable(id, last).await.map_err(|error| unread(&error))?;
        }
        while from < bounds.written {
            let budget = ReadBudget { events: 1_000, bytes: 8 << 20 };
            let chunks = tree.engine().read(id, from, budget).await.map_err(|error| unread(&error))?;
            for chunk in &chunks {
                for stored in chunk.iter() {
                    let record = Record::parse(stored.record).map_err(|error| unread(&error))?;
                    let number = number_of(record.key).unwrap_or(usize::MAX);
                    if let Some(times) = times.get_mut(number) {
                        *times += 1;
                    }
                    reordered += usize::from(last.is_some_and(|last| number < last));
                    last = Some(number);
                }
                from = chunk.end_offset();
            }
        }
    }
    let count = |is: fn(u32) -> bool| times.iter().filter(|times| is(**times)).count();
    Ok((count(|times| times == 0), count(|times| times > 1), reordered))
}

/// The start time of each plugin of the whole tree with cached code.
fn cached_starts(subject: &Subject, cache: &HostOptions) -> Result<Vec<(String, f64)>, BenchError> {
    let start = || {
        let starts = Mutex::new(Vec::new());
        let note = |progress: Progress| {
            if let Progress::Compiled { subscriber, took, .. } = progress {
                starts.lock().unwrap_or_else(PoisonError::into_inner).push((subscriber, took.as_secs_f64() * 1e3));
            }
        };
        let store = Store::open(MemoryDisk::default(), Arc::new(SystemClock)).map_err(BeginError::Store)?;
        begin(store, &Host::new(cache.clone())?, &subject.plan, &subject.components, &note)?;
        Ok::<_, BenchError>(starts.into_inner().unwrap_or_else(PoisonError::into_inner))
    };
    start()?; // compiles them
    start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_component_with_a_section_behind_it() {
        let (one, other) = (version(b"component", 1), version(b"component", 2));
        assert_ne!(one, other);
        let section = one.strip_prefix(b"component").unwrap();
        // id, length of the rest, length of the name
        assert_eq!((section[0], usize::from(section[1]), usize::from(section[2])), (0, section.len() - 2, 7));
        assert_eq!(&section[3..10], b"version");
    }

    #[test]
    fn its_tree_is_one() {
        assert_eq!(checked(TREE).unwrap().subscribers.len(), 1);
    }
}
