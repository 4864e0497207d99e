//! A bus of handlers that are made of texts in no time: of what a version is, everything but the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Handle;
use wattle::api::{DeployOutcome, Digest, Policy, SubscriberStatus};
use wattle::deploy::{BeginError, Compile, Reloader, SecretFolders, StartedVersions, Store, begin};
use wattle::dispatch::Tree;
use wattle::effects::{Clock, MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::{
    Action, Batch, CallError, CallErrorKind, Failure, HandleError, Handled, Handler, Output, PluginSettings, StateWrite,
};
use wattle::topology::{Plan, TrialPlan};
use wattle::wasm::{PluginSpec, RegisterError};

use crate::common::trees::{data, event, plan_of, settled, status, until};

/// Topic `in` of namespace `t` -> `work` -> `out`.
pub(crate) const ONE: &str = "
wattle: v1
name: t
topics: { in: { partitions: 1 }, out: {} }
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: out }, retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } } }
";

/// A handler that emits its name and the event's data. Its text is `NAME`, then words: `reject=DATA`, `timeout=DATA`,
/// `sometimes=N`, which rejects data whose number is divisible by that, `state=N`, the version of its state, `keeps`:
/// it leaves its name in its state, under `last`, `portless`: it says nothing of outputs, and `tells=KEY`: it adds what
/// its configuration says of that to its name.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    version: Digest,
    text: String,
    settings: Arc<PluginSettings>,
    config: BTreeMap<String, String>,
    pauses: Arc<Pauses>,
}

impl Worker {
    fn does(&self, verb: &str, data: &str) -> bool {
        self.text.split_whitespace().any(|word| word.strip_prefix(verb) == Some(&format!("={data}")))
    }

    fn rejects(&self, data: &str) -> bool {
        let every = self.text.split_whitespace().find_map(|word| word.strip_prefix("sometimes=")?.parse::<u64>().ok());
        let number = data.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
        self.does("reject", data) || every.zip(number).is_some_and(|(every, number)| number % every == 0)
    }

    fn name(&self) -> String {
        let mut words = self.text.split_whitespace();
        let name = words.next().unwrap_or_default();
        match words.find_map(|word| self.config.get(word.strip_prefix("tells=")?)) {
            Some(told) => format!("{name}:{told}"),
            None => name.to_owned(),
        }
    }
}

/// What a text says of its state.
fn state_version(text: &str) -> u32 {
    text.split_whitespace().find_map(|word| word.strip_prefix("state=")?.parse().ok()).unwrap_or(0)
}

impl Handler for Worker {
    fn digest(&self) -> [u8; 32] {
        *self.version.as_bytes()
    }

    fn settings(&self) -> Arc<PluginSettings> {
        self.settings.clone()
    }

    fn declares_ports(&self) -> bool {
        !self.text.contains("portless")
    }

    fn state_version(&self) -> u32 {
        state_version(&self.text)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        self.pauses.begin(batch.partition);
        let mut handled = Handled::done(batch.events.len());
        let mut failed = None;
        for (event, index) in batch.events.iter().zip(0..) {
            let data = String::from_utf8_lossy(event.data);
            if self.rejects(&data) {
                let reason = format!("{} rejects {data}", self.name());
                failed = Some(Failure { event: index, action: Action::Reject, reason });
                break;
            }
            if self.does("timeout", &data) {
                let message = "too long".to_owned();
                let kind = CallErrorKind::Timeout;
                return Err(CallError { event: Some(index), kind, message, backtrace: None }.into());
            }
            if self.text.split_whitespace().any(|word| word == "keeps") && index == 0 {
                let value = Some(self.name().into());
                handled.writes.push(StateWrite { event: 0, bucket: "b".into(), key: "last".into(), value });
            }
            handled.outputs.push(Output {
                event: index,
                port: 0,
                key: None,
                r#type: "out".into(),
                content_type: "text/plain".into(),
                attributes: String::new(),
                data: format!("{} {data}", self.name()).into_bytes(),
            });
        }
        self.pauses.end(batch.partition);
        handled.verdicts = Handled::in_order(batch.events.len(), failed).verdicts;
        Ok(handled)
    }
}

/// Compiles such texts. One that begins with `bad` is refused. Beside others it waits for a gate, where that is shut.
#[derive(Clone, Default)]
pub(crate) struct Texts {
    shut: Arc<(Mutex<bool>, Condvar)>,
    /// Compilations beside running handlers that have begun.
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) pauses: Arc<Pauses>,
    /// Texts that were not compiled by this release before: they wait for the gate wherever they are compiled.
    pub(crate) cold: Arc<Mutex<BTreeSet<Digest>>>,
    /// Texts whose compilation fails.
    pub(crate) broken: Arc<Mutex<BTreeSet<Digest>>>,
}

/// How long lanes are between two calls.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// By partition: when its last call ended.
    ended: Mutex<BTreeMap<u32, Instant>>,
    longest: Mutex<Duration>,
}

impl Pauses {
    fn begin(&self, partition: u32) {
        if let Some(ended) = self.ended.lock().unwrap().get(&partition) {
            let mut longest = self.longest.lock().unwrap();
            *longest = longest.max(ended.elapsed());
        }
    }

    fn end(&self, partition: u32) {
        self.ended.lock().unwrap().insert(partition, Instant::now());
    }

    /// The longest since this was asked last.
    pub(crate) fn take_longest(&self) -> Duration {
        std::mem::take(&mut self.longest.lock().unwrap())
    }
}

impl Texts {
    pub(crate) fn shut(&self, is_shut: bool) {
        *self.shut.0.lock().unwrap() = is_shut;
        self.shut.1.notify_all();
    }

    /// Not for ever, so that a test that waits for it without opening it fails.
    fn wait(&self) {
        let shut = self.shut.0.lock().unwrap();
        drop(self.shut.1.wait_timeout_while(shut, Duration::from_secs(60), |is_shut| *is_shut).unwrap());
    }
}

impl Compile for Texts {
    type Handler = Worker;

    fn compile(&self, spec: PluginSpec) -> Result<Worker, RegisterError> {
        let (version, text) = (spec.digest(), String::from_utf8_lossy(&spec.wasm).into_owned());
        let component = Digest::of(&spec.wasm);
        if !self.is_compiled(&component) {
            self.wait();
        }
        if self.broken.lock().unwrap().contains(&component) {
            return Err(RegisterError::Invalid { message: "it is too large for its compiler".to_owned() });
        }
        match text.strip_prefix("bad") {
            Some(_) => Err(RegisterError::NotWasm),
            None => {
                let (settings, pauses) = (Arc::new(spec.settings()), self.pauses.clone());
                Ok(Worker { version, text, settings, config: spec.config, pauses })
            }
        }
    }

    fn compile_beside(&self, spec: PluginSpec) -> Result<Worker, RegisterError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.wait();
        self.compile(spec)
    }

    fn is_compiled(&self, component: &Digest) -> bool {
        !self.cold.lock().unwrap().contains(component)
    }

    fn state_version(&self, wasm: &[u8]) -> Option<u32> {
        Some(state_version(std::str::from_utf8(wasm).ok()?))
    }
}

/// What outlives a bus.
pub(crate) struct World {
    pub(crate) engine: MemoryEngine,
    pub(crate) disk: MemoryDisk,
    /// The clock of its store.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) folder: TempDir,
    pub(crate) plan: Plan,
    pub(crate) texts: Texts,
}

/// A running one.
pub(crate) struct Bus<E = MemoryEngine> {
    pub(crate) tree: Tree<E>,
    pub(crate) reloader: Reloader<E, Texts>,
}

/// As trials are where nothing is said: no test waits for their end.
pub(crate) const LONG: TrialPlan = TrialPlan { events: 1_000, time: Duration::from_secs(60), at_most: HOUR };
const HOUR: Duration = Duration::from_secs(3_600);
/// Trials end with two events.
pub(crate) const SHORT: TrialPlan = TrialPlan { events: 2, time: Duration::ZERO, at_most: HOUR };

/// A plan whose trials end so.
pub(crate) fn tried(mut plan: Plan, trial: TrialPlan) -> Plan {
    plan.subscribers.iter_mut().for_each(|subscriber| subscriber.trial = trial);
    plan
}

impl World {
    pub(crate) fn new(file: &str) -> Self {
        Self::of(ONE, file, LONG)
    }

    pub(crate) fn of(yaml: &str, file: &str, trial: TrialPlan) -> Self {
        let world = Self {
            engine: MemoryEngine::default(),
            disk: MemoryDisk::default(),
            clock: Arc::new(SystemClock),
            folder: tempfile::tempdir().unwrap(),
            plan: tried(plan_of(&[yaml]), trial),
            texts: Texts::default(),
        };
        world.write(file);
        world
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("work.wasm")
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    pub(crate) fn begin(&self) -> Result<StartedVersions<Worker>, BeginError> {
        let store = Store::open(self.disk.clone(), self.clock.clone()).map_err(BeginError::Store)?;
        begin(store, &self.texts, &self.plan, &[self.file()], &|_| ())
    }

    pub(crate) async fn start(&self) -> Bus {
        self.start_on(self.engine.clone(), self.begin().unwrap(), &Handle::current()).await
    }

    /// Starts with its lanes on a runtime.
    pub(crate) async fn start_on<E: Engine>(
        &self,
        engine: E,
        begun: StartedVersions<Worker>,
        lanes: &Handle,
    ) -> Bus<E> {
        let runtime = Handle::current();
        let tree = Tree::start_with(engine, &self.plan, begun.starts, lanes).await.unwrap();
        let versions = (begun.store, begun.notes);
        let reloader = Reloader::start(tree.clone(), self.texts.clone(), &self.plan, versions, &runtime);
        reloader.keep_secrets_below(SecretFolders::new([self.folder.path().to_owned()]));
        Bus { tree, reloader }
    }
}

impl<E: Engine> Bus<E> {
    pub(crate) async fn deploy(&self, text: &str, policy: Policy) -> DeployOutcome {
        self.reloader.deploy("work", text.as_bytes().to_vec(), policy, "a test").await.unwrap().outcome
    }

    pub(crate) async fn propose(&self, world: &World) -> DeployOutcome {
        self.reloader.propose("work", &world.file(), Policy::Swap).await.unwrap().outcome
    }

    pub(crate) async fn publish(&self, events: &[&str]) {
        let events: Vec<_> = events.iter().map(|name| event(name, name, name)).collect();
        self.tree.publisher().publish("in", &events, None).await.unwrap();
        settled(&self.tree).await;
    }

    /// The name of the version that handles an event now.
    pub(crate) async fn who(&self) -> String {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let id = format!("?{}", ASKED.fetch_add(1, Ordering::SeqCst));
        self.tree.publisher().publish("in", &[event(&id, "?", "?")], None).await.unwrap();
        settled(&self.tree).await;
        let last = data(&self.tree, "out").await.pop().unwrap();
        last.split(' ').next().unwrap().to_owned()
    }

    pub(crate) fn status(&self) -> SubscriberStatus {
        status(&self.tree.snapshot(), "t/work")
    }

    /// Waits until a version is proven by itself.
    pub(crate) async fn is_proven(&self) {
        until("it is proven", || self.reloader.list()[0].tried.is_none()).await;
    }

    /// Waits until a version that failed is taken back for good.
    pub(crate) async fn is_taken_back(&self) -> String {
        until("it is taken back", || self.reloader.list()[0].tried.is_none()).await;
        until("it is said", || self.status().reload.is_some()).await;
        self.status().reload.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.reloader.stop().await;
        assert!(self.tree.drain(Duration::from_secs(60)).await);
    }
}
