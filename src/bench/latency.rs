//! Measures how long an event takes to the last of three levels.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{BenchError, Subject, client_runtime, fresh, loopback, quantile, runtime, sample};
use crate::client::{Client, ReadRequest, Start};
use crate::dispatch::Tree;
use crate::effects;
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::model::call::{Batch, HandleError, Handled, Handler};
use crate::server::{self, Port, Server};
use crate::topology::{Plan, SubscriberIndex};
use crate::wasm::Plugin;

/// Number of handler levels that an event passes.
const LEVELS: usize = 3;
/// Duration of the warm-up at the steady rate, in seconds.
const WARM_UP_SECONDS: f64 = 1.0;
/// Concurrent publishes: an open loop waits for none, up to this limit.
const PUBLISHERS: usize = 8;

/// The results, in microseconds.
#[derive(Debug, Clone)]
pub struct Latency {
    /// The steady rate, in events per second.
    pub rate: f64,
    /// One `fdatasync` of one event's bytes, median and 99th percentile, measured before and after: the idle disk is a
    /// strict yardstick, since syncs of the bus compete with each other.
    pub sync: (f64, f64),
    /// A call that publishes nothing, through the same connections at the same rate, median and 99th percentile: the
    /// cost of gRPC and the processors without the bus.
    pub called: (f64, f64),
    /// From the time at which an event was due to the ack, median and 99th percentile.
    pub acked: (f64, f64),
    /// From there to the end of the handler's call on the third level.
    pub handled: (f64, f64),
    /// From there until an outside reader gets that handler's output, which is durable then.
    pub read: (f64, f64),
}

/// The time at which each event reached some point, by key.
type Times = Arc<Mutex<HashMap<String, Instant>>>;

/// A plugin that records when its calls end.
#[derive(Clone)]
struct TimedPlugin {
    plugin: Plugin,
    times: Option<Times>,
}

impl Handler for TimedPlugin {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let keys: Vec<String> = match &self.times {
            Some(_) => batch.events.iter().map(|event| event.key.to_owned()).collect(),
            None => Vec::new(),
        };
        let handled = Handler::handle(&self.plugin, batch).await?;
        if let Some(times) = &self.times {
            let now = Instant::now();
            times.lock().unwrap_or_else(PoisonError::into_inner).extend(keys.into_iter().map(|key| (key, now)));
        }
        Ok(handled)
    }
}

/// A subscriber on the third level, and its output topic.
fn third_level(plan: &Plan) -> Option<(usize, String)> {
    let depth = |mut index: SubscriberIndex| {
        let mut depth = 1;
        while let Some(parent) = plan
            .subscribers
            .get(index.0 as usize)
            .and_then(|s| plan.topics.get(s.from.0 as usize))
            .and_then(|t| t.parent)
        {
            (index, depth) = (parent, depth + 1);
        }
        depth
    };
    let at = (0..plan.subscribers.len()).find(|at| depth(SubscriberIndex(*at as u32)) == LEVELS)?;
    let (_, topic) = plan.subscribers.get(at)?.ports.first()?;
    Some((at, plan.topics.get(topic.0 as usize)?.label()))
}

/// Publishes single orders through gRPC at a steady rate and follows them. It is an open loop: it does not wait for
/// acks, and a late publish counts from its due time.
///
/// # Errors
/// [`BenchError`].
pub fn latency(subject: &Subject, rate: f64, seconds: f64) -> Result<Latency, BenchError> {
    let mut syncs = syncs(&fresh(&subject.folder, "raw")?)?;
    let (third, last_topic) = third_level(&subject.plan)
        .ok_or_else(|| BenchError::Unfit("it has no three levels with a port on the third".to_owned()))?;
    let root = subject.plan.topics.iter().find(|topic| topic.is_root()).map(|topic| topic.label()).unwrap_or_default();
    let handled = Times::default();
    let tap = |(at, plugin): (usize, &Plugin)| TimedPlugin {
        plugin: plugin.clone(),
        times: (at == third).then(|| handled.clone()),
    };
    let handlers = subject.plugins.iter().enumerate().map(tap).collect();
    let (service, lanes, outside) = (server::runtime()?, runtime("lane")?, client_runtime()?);
    let folder = fresh(&subject.folder, "bus")?;
    let (server, tree) = service.block_on(async {
        let engine = EmbeddedEngine::open(&folder, Durability::Sync)?;
        let tree = Tree::start(engine, &subject.plan, handlers, lanes.handle()).await?;
        let server = Server::start(Port::take(&loopback())?, tree.clone()).await?;
        Ok::<_, BenchError>((server, tree))
    })?;
    let address = server.address().to_string();
    let total = ((WARM_UP_SECONDS + seconds) * rate) as usize;
    let calls = (WARM_UP_SECONDS * rate) as usize;
    let (called_due, called) = outside.block_on(publish_at(&address, &root, rate, calls, |_| Vec::new()))?;
    let (due, acked, read) = outside.block_on(run(&address, &root, &last_topic, rate, total))?;
    service.block_on(async {
        server.stop(Duration::from_secs(5)).await;
        tree.drain(Duration::from_secs(5)).await;
        drop(tree.engine().close().await);
    });
    syncs.extend(self::syncs(&fresh(&subject.folder, "raw")?)?);

    let warm_up = (WARM_UP_SECONDS * rate) as usize;
    let handled = std::mem::take(&mut *handled.lock().unwrap_or_else(PoisonError::into_inner));
    let since = |due: &[Instant], times: &HashMap<String, Instant>| -> Vec<f64> {
        let took = |(number, due): (usize, &Instant)| Some(times.get(&key(number))?.saturating_duration_since(*due));
        due.iter().enumerate().filter_map(took).map(|took| took.as_secs_f64() * 1e6).collect()
    };
    let spread = |times: &HashMap<String, Instant>| {
        let figures = since(&due, times).split_off(warm_up.min(times.len()));
        (figures.len() + warm_up == total)
            .then(|| (quantile(&figures, 0.5), quantile(&figures, 0.99)))
            .ok_or_else(|| BenchError::Unfit(format!("{} of {total} events came through", figures.len() + warm_up)))
    };
    let called = since(&called_due, &called);
    Ok(Latency {
        rate,
        called: (quantile(&called, 0.5), quantile(&called, 0.99)),
        sync: (quantile(&syncs, 0.5), quantile(&syncs, 0.99)),
        acked: spread(&acked)?,
        handled: spread(&handled)?,
        read: spread(&read)?,
    })
}

/// Makes this thread wake as exactly as Linux can.
fn sleep_exactly() {
    let thread = std::fs::read_link("/proc/thread-self");
    if let Some(number) = thread.as_ref().ok().and_then(|thread| thread.file_name()) {
        let slack = Path::new("/proc").join(number).join("timerslack_ns");
        let _ = std::fs::write(slack, "1"); // without permission, figures are some microseconds higher
    }
}

fn key(number: usize) -> String {
    format!("b-{number:08}")
}

/// When each event was due, acked, and read after the third level.
type Timeline = (Vec<Instant>, HashMap<String, Instant>, HashMap<String, Instant>);

async fn run(address: &str, root: &str, last: &str, rate: f64, total: usize) -> Result<Timeline, BenchError> {
    let client = Client::connect(address).await?;
    let follow = ReadRequest { topic: last.to_owned(), start: Start::Earliest, follow: true, ..ReadRequest::default() };
    let mut reading = client.read(ReadRequest { limit: Some(total as u64), ..follow }).await?;
    let reader = effects::task(async move {
        let mut read = HashMap::new();
        while let Some(events) = reading.next().await? {
            let now = Instant::now();
            read.extend(events.into_iter().map(|event| (event.key, now)));
        }
        Ok::<_, BenchError>(read)
    });
    let (due, acked) = publish_at(address, root, rate, total, |number| vec![sample::order(number)]).await?;
    let read = tokio::time::timeout(Duration::from_secs(30), reader).await;
    let read = read.map_err(|_| BenchError::Unfit("not every event came through in 30 s".to_owned()))?;
    let read = read.map_err(std::io::Error::other)??;
    Ok((due, acked, read))
}

/// Makes calls at a steady rate. Returns the due times and the times of the answers.
async fn publish_at(
    address: &str,
    root: &str,
    rate: f64,
    total: usize,
    events: impl Fn(usize) -> Vec<Bytes> + Clone + Send + 'static,
) -> Result<(Vec<Instant>, HashMap<String, Instant>), BenchError> {
    let acked = Times::default();
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        // separate connections: a slow answer does not delay the next publish
        let client = Client::connect(address).await?;
        let (sender, mut orders) = mpsc::channel::<usize>(64);
        let (acked, root, events) = (acked.clone(), root.to_owned(), events.clone());
        let task = effects::task(async move {
            while let Some(number) = orders.recv().await {
                client.publish(&root, events(number)).await?;
                acked.lock().unwrap_or_else(PoisonError::into_inner).insert(key(number), Instant::now());
            }
            Ok::<_, BenchError>(())
        });
        publishers.push((sender, task));
    }
    // A thread of its own: tokio's timer has a resolution of a millisecond, and by default Linux may extend sleeps by
    // 50 microseconds.
    let senders: Vec<_> = publishers.iter().map(|(sender, _)| sender.clone()).collect();
    let pacer = effects::thread("pacer", move || {
        sleep_exactly();
        let start = Instant::now() + Duration::from_millis(100);
        let mut due = Vec::with_capacity(total);
        for (number, sender) in (0..total).zip(senders.iter().cycle()) {
            let at = start + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due.push(at);
            if sender.blocking_send(number).is_err() {
                break; // its task reports the error
            }
        }
        due
    })?;
    let paced = tokio::task::spawn_blocking(move || pacer.join());
    let due = match paced.await {
        Ok(Ok(due)) => due,
        _ => return Err(BenchError::Unfit("the pacer panicked".to_owned())),
    };
    for (sender, task) in publishers {
        drop(sender);
        task.await.map_err(std::io::Error::other)??;
    }
    let acked = std::mem::take(&mut *acked.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((due, acked))
}

/// Durations of a write and `fdatasync` of one event, in microseconds.
fn syncs(folder: &Path) -> Result<Vec<f64>, BenchError> {
    let file = File::create(folder.join("file"))?;
    let bytes = sample::order(0);
    let mut times = Vec::new();
    for number in 0..500u64 {
        let start = Instant::now();
        file.write_all_at(&bytes, number * bytes.len() as u64)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}
