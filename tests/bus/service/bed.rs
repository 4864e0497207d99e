//! A service on a free port over the in-memory engine, whose gate holds back, refuses or fails appends on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use wattle::api::{Bounds, Storage};
use wattle::client::{Client, ReadRequest, ReceivedEvent};
use wattle::dispatch::Tree;
use wattle::effects::Disk;
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{
    AppendError, AppendReceipt, ApplyError, Blueprint, Capabilities, CatalogueTopic, Chunk, Engine, Health, Hold,
    Numbers, ProducerUnknown, ReadBudget, ReadError, Retention, RetentionBounds, SessionError, Slices, StopReason,
    TimeOf,
};
use wattle::model::call::{Action, Batch, Failure, HandleError, Handled, Handler, Output, StateWrite};
use wattle::model::event::Data;
use wattle::model::{Attribute, Event, LaneId, Offset, PartitionId, SubscriberId, TopicId, VersionId};
use wattle::server::{Options, Port, Server};

use crate::common::trees::plan_with;

/// What the engine does with appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Appends wait.
    Shut,
}

/// The in-memory engine behind a gate.
#[derive(Clone)]
pub(crate) struct GatedEngine {
    inner: MemoryEngine,
    pub(crate) gate: watch::Sender<Gate>,
    /// Bytes of records that were read.
    pub(crate) given: Arc<AtomicUsize>,
    /// So many appends are refused as busy.
    pub(crate) busy: Arc<AtomicUsize>,
    /// It does not know who numbers events.
    pub(crate) forgets: watch::Sender<bool>,
    /// How it says that its disk and clock are. Without room for events it takes none.
    pub(crate) storage: watch::Sender<Storage>,
    /// Appends that have come to the gate.
    pub(crate) arrived: watch::Sender<usize>,
    pub(crate) health: watch::Sender<Health>,
}

impl GatedEngine {
    fn new() -> Self {
        Self {
            inner: MemoryEngine::default(),
            gate: watch::Sender::new(Gate::Open),
            given: Arc::default(),
            busy: Arc::default(),
            forgets: watch::Sender::new(false),
            storage: watch::Sender::new(Storage::default()),
            arrived: watch::Sender::new(0),
            health: watch::Sender::new(Health::Serving),
        }
    }

    pub(crate) fn poison(&self) {
        self.health.send_replace(Health::Stopped(StopReason::Poisoned("no space on device".into())));
    }

    /// Waits until so many appends have come to the gate since the start.
    pub(crate) async fn arrivals(&self, count: usize) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.unwrap();
    }
}

impl Engine for GatedEngine {
    type Session = <MemoryEngine as Engine>::Session;
    type Entries = <MemoryEngine as Engine>::Entries;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, blueprint: &Blueprint) -> Result<Numbers, ApplyError> {
        self.inner.apply(blueprint).await
    }

    async fn append(&self, events: Slices) -> Result<AppendReceipt, AppendError> {
        if let Health::Stopped(stopped) = self.health.borrow().clone() {
            return Err(stopped.into());
        }
        let busy = self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if busy.is_ok() {
            return Err(AppendError::Busy { retry_after: Duration::from_millis(5) });
        }
        if !self.storage.borrow().takes_events {
            return Err(AppendError::Full { retry_after: Duration::from_secs(1) });
        }
        if *self.forgets.borrow()
            && let Some(partition) = events.partitions().next()
        {
            return Err(AppendError::Producer(ProducerUnknown { partition, since_ns: 1_700_000_000_000_000_000 }));
        }
        self.arrived.send_modify(|arrived| *arrived += 1);
        let appended = self.inner.append(events).await;
        self.gate.subscribe().wait_for(|gate| *gate == Gate::Open).await.unwrap();
        // Whoever waits while the disk fails does not get to know what became of it.
        match self.health.borrow().clone() {
            Health::Stopped(stopped) => Err(stopped.into()),
            Health::Serving => appended,
        }
    }

    async fn acquire(&self, lane: LaneId) -> Result<Self::Session, SessionError> {
        self.inner.acquire(lane).await
    }

    async fn read(&self, partition: PartitionId, from: Offset, budget: ReadBudget) -> Result<Vec<Chunk>, ReadError> {
        let chunks = self.inner.read(partition, from, budget).await?;
        self.given.fetch_add(chunks.iter().map(|chunk| chunk.records.len()).sum::<usize>(), Ordering::SeqCst);
        Ok(chunks)
    }

    async fn wait_durable(&self, partition: PartitionId, offset: Offset) -> Result<(), StopReason> {
        self.inner.wait_durable(partition, offset).await
    }

    fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        self.inner.bounds(partition)
    }

    fn beyond(&self, partition: PartitionId, retention: &Retention) -> Option<RetentionBounds> {
        self.inner.beyond(partition, retention)
    }

    fn appended_per_minute(&self, partition: PartitionId) -> u64 {
        self.inner.appended_per_minute(partition)
    }

    fn time_of(&self, partition: PartitionId, offset: Offset) -> Option<TimeOf> {
        self.inner.time_of(partition, offset)
    }

    fn read_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Option<u64>, ReadError> {
        self.inner.read_time_of(partition, offset)
    }

    fn hold(&self, partition: PartitionId) -> Option<Hold> {
        self.inner.hold(partition)
    }

    fn position(&self, lane: LaneId) -> Option<Offset> {
        self.inner.position(lane)
    }

    fn topics(&self) -> Vec<CatalogueTopic> {
        self.inner.topics()
    }

    fn bytes(&self, partition: PartitionId) -> Option<u64> {
        self.inner.bytes(partition)
    }

    fn topic(&self, name: &str) -> Option<TopicId> {
        self.inner.topic(name)
    }

    fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId> {
        self.inner.subscriber(name, from)
    }

    fn digest(&self, version: VersionId) -> Option<[u8; 32]> {
        self.inner.digest(version)
    }

    fn states(&self, partition: PartitionId) -> Option<Self::Entries> {
        self.inner.states(partition)
    }

    fn entries(&self, lane: LaneId) -> Option<Self::Entries> {
        self.inner.entries(lane)
    }

    async fn offset_at_time(&self, partition: PartitionId, time_ns: u64) -> Result<Offset, ReadError> {
        self.inner.offset_at_time(partition, time_ns).await
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn trusted_now_ns(&self) -> u64 {
        self.inner.trusted_now_ns()
    }

    fn snapshots(&self) -> Option<Arc<dyn Disk>> {
        self.inner.snapshots()
    }

    fn storage(&self) -> Storage {
        self.storage.borrow().clone()
    }

    fn confirm_clock(&self) -> bool {
        let mut was_waiting = false;
        self.storage.send_modify(|storage| was_waiting = storage.clock_jumped.take().is_some());
        was_waiting
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) -> Result<(), StopReason> {
        self.inner.close().await
    }
}

/// Root with four partitions.
pub(crate) const ORDERS: &str = "shop/orders";
/// Root with one partition.
pub(crate) const LOG: &str = "shop/log";
/// Root with four partitions that recognises what is published again.
pub(crate) const PAYMENTS: &str = "shop/payments";
/// Written by a subscriber.
pub(crate) const CHILD: &str = "shop/orders.accepted";

/// A running service.
pub(crate) struct Bed {
    pub(crate) engine: GatedEngine,
    pub(crate) server: Server,
    pub(crate) address: String,
    pub(crate) client: Client,
    pub(crate) tree: Tree<GatedEngine>,
    /// Whether what failed passes now.
    pub(crate) healed: watch::Sender<bool>,
}

/// Root with a lifecycle: `created`, then `paid`.
pub(crate) const STEPS: &str = "shop/steps";
/// Root of two partitions for `WORK`.
pub(crate) const JOBS: &str = "shop/jobs";
/// Root of one partition for a subscriber in front of which two events may wait.
pub(crate) const SMALL: &str = "shop/little";
/// Takes what is in `JOBS`; what fails is parked at once, what it rejects is a dead letter.
pub(crate) const WORK: &str = "shop/work";
/// Takes what is in `ORDERS`; what fails is a dead letter at once.
pub(crate) const VALIDATE: &str = "shop/validate";

const SHOP: &str = "
wattle: v1
name: shop
topics:
  orders: { partitions: 4, dedupe: off }
  log: { dedupe: off }
  payments: { partitions: 4, dedupe: { window: 10m, count: 1000 } }
  orders.accepted: {}
  jobs: { partitions: 2, dedupe: off }
  jobs.done: {}
  halting: { dedupe: off }
  halting.done: {}
  little: { dedupe: off }
  checked: { schema: checked.json, dedupe: off }
  searched: { key: 'data.a.all(x, data.a.all(y, data.a.all(z, z == 0))) ? id : source', dedupe: off }
  branching: { schema: branching.json, dedupe: off }
  steps: { lifecycle: { state: data.s, start: [created], allow: { created: [paid] } }, dedupe: off }
  bounded: { backlog: 2, dedupe: off }
  patient: { backlog: 2, when_full: wait, dedupe: off }
subscribers:
  validate: { from: orders, plugin: w.wasm, to: { out: orders.accepted }, retry: { attempts: 1 } }
  work: { from: jobs, plugin: w.wasm, to: { out: jobs.done }, retry: { attempts: 1 }, on_failure: park }
  stubborn: { from: halting, plugin: w.wasm, to: { out: halting.done }, retry: { attempts: 1 }, on_failure: halt }
  small: { from: little, plugin: w.wasm, retry: { attempts: 1 }, on_failure: park, retry_queue: { max: 2 } }
  slow: { from: bounded, plugin: w.wasm }
  slower: { from: patient, plugin: w.wasm }
";

/// Takes twice as long for each level of the data.
const BRANCHING: &str = r##"{ "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }], "$defs": { "a": { "items": { "$ref": "#" } } } }"##;

const OTHER: &str = "
wattle: v1
name: other
topics: { log: { dedupe: off } }
subscribers:
  work: { from: log, plugin: w.wasm }
";

/// Does what the data of an event says: `reject`, `fail` (until it is healed), `wait` (for that), `emit` itself, `keep`
/// itself under the event's key. Anything else is handled without a trace.
#[derive(Clone)]
pub(crate) struct Worker {
    healed: watch::Sender<bool>,
}

impl Handler for Worker {
    fn digest(&self) -> [u8; 32] {
        [7; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let mut handled = Handled::done(batch.events.len());
        let mut failed = None;
        for (event, index) in batch.events.iter().zip(0..) {
            let fail = |action, reason: &str| Some(Failure { event: index, action, reason: reason.to_owned() });
            if event.data == b"wait" {
                let _ = self.healed.subscribe().wait_for(|healed| *healed).await;
            }
            match event.data {
                b"reject" => failed = fail(Action::Reject, "it is no job"),
                b"fail" if !*self.healed.borrow() => failed = fail(Action::Retry(None), "there is no paper"),
                b"emit" | b"fail" => handled.outputs.push(Output {
                    event: index,
                    port: 0,
                    key: None,
                    r#type: "done".into(),
                    content_type: "text/plain".into(),
                    attributes: String::new(),
                    data: event.data.to_vec(),
                }),
                b"keep" => handled.writes.push(StateWrite {
                    event: index,
                    bucket: "default".into(),
                    key: event.key.to_owned(),
                    value: Some(Bytes::from_static(b"kept")),
                }),
                _ => {}
            }
            if failed.is_some() {
                break;
            }
        }
        handled.verdicts = Handled::in_order(batch.events.len(), failed).verdicts;
        Ok(handled)
    }
}

/// Starts a service with a tree in `shop`, and one named as parts of that in `other`.
pub(crate) async fn bed() -> Bed {
    let engine = GatedEngine::new();
    let schema = r#"{ "properties": { "amount": { "type": "integer" } } }"#;
    let plan = plan_with(&[SHOP, OTHER], &[("checked.json", schema), ("branching.json", BRANCHING)]);
    let healed = watch::Sender::new(false);
    let handlers = plan.subscribers.iter().map(|_| Worker { healed: healed.clone() }).collect();
    let tree = Tree::start(engine.clone(), &plan, handlers, &tokio::runtime::Handle::current()).await.unwrap();
    let options = Options::open("127.0.0.1:0".parse().unwrap());
    let server = Server::start(Port::take(&options).unwrap(), tree.clone()).await.unwrap();
    let address = server.address().to_string();
    let client = Client::connect(&address).await.unwrap();
    Bed { engine, server, address, client, tree, healed }
}

pub(crate) fn event(id: impl Into<String>, key: &str) -> Bytes {
    let mut event = Event { id: id.into(), source: "/test".into(), r#type: "test".into(), ..Event::default() };
    event.attributes.insert("partitionkey".into(), Attribute::String(key.into()));
    event.data = Some(Data::Text("some data".into()));
    event.encode()
}

/// An event that brings its key into a state.
pub(crate) fn step(id: &str, key: &str, state: &str) -> Bytes {
    let mut event = Event { id: id.into(), source: "/test".into(), r#type: "test".into(), ..Event::default() };
    event.attributes.insert("partitionkey".into(), Attribute::String(key.into()));
    event.data = Some(Data::Text(format!(r#"{{"s":"{state}"}}"#)));
    event.encode()
}

/// The id of an event.
pub(crate) fn id(event: &Bytes) -> String {
    Event::decode(event).unwrap().id
}

/// Everything that a read gives, to its end.
pub(crate) async fn read_all(client: &Client, read: ReadRequest) -> Vec<ReceivedEvent> {
    let mut reading = client.read(read).await.unwrap();
    let mut all = Vec::new();
    while let Some(events) = reading.next().await.unwrap() {
        all.extend(events);
    }
    all
}

/// Everything in a topic.
pub(crate) fn all_of(topic: &str) -> ReadRequest {
    ReadRequest { topic: topic.to_owned(), ..ReadRequest::default() }
}
