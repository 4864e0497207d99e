//! How long does an event take to the last of three levels?

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{BenchError, Subject, client_runtime, fresh, loopback, quantile, runtime, sample};
use crate::client::{Client, Read, Start};
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::model::call::{Batch, HandleError, Handled, Handler};
use crate::server::{self, Port, Server};
use crate::topology::{Plan, SubscriberIndex};
use crate::wasm::Plugin;

/// How many levels of handlers an event goes through.
const LEVELS: usize = 3;
/// Events that are sent before the measurement begins, in seconds of the steady rate.
const WARM_UP_SECONDS: f64 = 1.0;
/// Publishes on their way at once: an open loop waits for none, within reason.
const PUBLISHERS: usize = 8;

/// What was measured; all figures in microseconds.
#[derive(Debug, Clone)]
pub struct Latency {
    /// The steady rate, in events per second.
    pub rate: f64,
    /// One `fdatasync` of one event's bytes, median and 99th percentile, measured before and after: on an idle disk, so the bus,
    /// whose syncs meet each other, is not flattered.
    pub sync: (f64, f64),
    /// A call that publishes nothing, through the same connections at the same rate, median and 99th percentile: what gRPC
    /// and the processors cost without the bus.
    pub called: (f64, f64),
    /// From the moment at which an event was due to be published to the ack, median and 99th percentile.
    pub acked: (f64, f64),
    /// To the end of the handler's call on the third level.
    pub handled: (f64, f64),
    /// To the arrival of that handler's output at a reader outside, so durable.
    pub read: (f64, f64),
}

/// When each event came where, by key.
type Times = Arc<Mutex<HashMap<String, Instant>>>;

/// A plugin whose calls are noted.
#[derive(Clone)]
struct Tapped {
    plugin: Plugin,
    times: Option<Times>,
}

impl Handler for Tapped {
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

/// The third subscriber on some path down, and the topic that it writes to.
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

/// Publishes single orders through gRPC at a steady rate, whether or not earlier ones have been acked (an open loop: a
/// late publish counts from when it was due), and follows them.
///
/// # Errors
/// [`BenchError`].
pub fn latency(subject: &Subject, rate: f64, seconds: f64) -> Result<Latency, BenchError> {
    let mut syncs = syncs(&fresh(&subject.folder, "raw")?)?;
    let (third, last_topic) = third_level(&subject.plan)
        .ok_or_else(|| BenchError::Unfit("it has no three levels with a port on the third".to_owned()))?;
    let root = subject.plan.topics.iter().find(|topic| topic.is_root()).map(|topic| topic.label()).unwrap_or_default();
    let handled = Times::default();
    let tap = |(at, plugin): (usize, &Plugin)| Tapped {
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

/// Has this thread woken when it asked for, as far as Linux can.
fn sleep_exactly() {
    let thread = std::fs::read_link("/proc/thread-self");
    if let Some(number) = thread.as_ref().ok().and_then(|thread| thread.file_name()) {
        let slack = Path::new("/proc").join(number).join("timerslack_ns");
        let _ = std::fs::write(slack, "1"); // where it may not, figures are some microseconds higher
    }
}

fn key(number: usize) -> String {
    format!("b-{number:08}")
}

/// When each event was due, was acked, and was read behind the third level.
type Outside = (Vec<Instant>, HashMap<String, Instant>, HashMap<String, Instant>);

async fn run(address: &str, root: &str, last: &str, rate: f64, total: usize) -> Result<Outside, BenchError> {
    let client = Client::connect(address).await?;
    let follow = Read { topic: last.to_owned(), start: Start::Earliest, follow: true, ..Read::default() };
    let mut reading = client.read(Read { limit: Some(total as u64), ..follow }).await?;
    let reader = tokio::spawn(async move {
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

/// Makes calls at a steady rate. When each was due, and when it was answered.
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
        // a connection each: one slow answer does not delay the next publish
        let client = Client::connect(address).await?;
        let (sender, mut orders) = mpsc::channel::<usize>(64);
        let (acked, root, events) = (acked.clone(), root.to_owned(), events.clone());
        let task = tokio::spawn(async move {
            while let Some(number) = orders.recv().await {
                client.publish(&root, events(number)).await?;
                acked.lock().unwrap_or_else(PoisonError::into_inner).insert(key(number), Instant::now());
            }
            Ok::<_, BenchError>(())
        });
        publishers.push((sender, task));
    }
    // A thread that sleeps to the microsecond: the timer of tokio is only good to the millisecond, and Linux lets a thread
    // sleep up to 50 microseconds longer than it asked for unless it says that it minds.
    let senders: Vec<_> = publishers.iter().map(|(sender, _)| sender.clone()).collect();
    let pacer = std::thread::spawn(move || {
        sleep_exactly();
        let start = Instant::now() + Duration::from_millis(100);
        let mut due = Vec::with_capacity(total);
        for (number, sender) in (0..total).zip(senders.iter().cycle()) {
            let at = start + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due.push(at);
            if sender.blocking_send(number).is_err() {
                break; // its task says why
            }
        }
        due
    });
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

/// Times of a write and `fdatasync` of one event, in microseconds.
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
