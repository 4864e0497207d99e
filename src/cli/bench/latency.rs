//! From publish to the last of three levels at a steady rate, against one sync.
//!
//! The loop is open: an order has a time at which it is due, whether or not the bus is ready for it, and its latency counts
//! from then. It is measured twice: to where the last handler has answered, and to where a reader outside has the outcome,
//! which may not be shown before it is durable.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::bed::{self, Bed, PLUGINS};
use super::{Common, Failure, Figure, Scratch, median, quantile, say, yardstick};
use crate::client::{Client, Read, Start};
use crate::dispatch::{HandleError, Handler};
use crate::rpc::v1;
use crate::rpc::v1::publisher_service_client::PublisherServiceClient;
use crate::topology::Plan;
use crate::wasm::{Batch, Handled, Plugin};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Orders of each repetition
    #[arg(long, default_value_t = 10_000)]
    events: u64,

    /// Orders per second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,

    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    pub(super) fn with(common: Common) -> Self {
        Self { events: 10_000, rate: 2_000, common }
    }
}

const LEVELS: usize = 3;
/// Bytes of one sync of the yardstick: about what one order is, with what follows from it.
const SYNC_BYTES: usize = 4096;
/// Syncs of the yardstick in each repetition.
const SYNCS: usize = 200;
/// Part of the orders at the beginning that does not count: caches, connections and code are cold.
const WARM_UP: f64 = 0.1;

/// When each order was done, in nanoseconds since the beginning.
#[derive(Clone)]
struct Times {
    began: Instant,
    done: Arc<Vec<AtomicU64>>,
}

impl Times {
    fn new(count: u64) -> Self {
        Self { began: Instant::now(), done: Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()) }
    }

    fn note(&self, key: &str) {
        let now = self.began.elapsed().as_nanos() as u64;
        if let Some(time) = bed::number_of(key).and_then(|number| self.done.get(number as usize)) {
            time.store(now, Ordering::Relaxed);
        }
    }

    /// Milliseconds from when each was due.
    fn latencies(&self, due_ns: impl Fn(u64) -> u64) -> Vec<f64> {
        let skip = (self.done.len() as f64 * WARM_UP) as usize;
        let times = (0..).zip(self.done.iter()).skip(skip);
        let since = |number, time: &AtomicU64| time.load(Ordering::Relaxed).saturating_sub(due_ns(number)) as f64 / 1e6;
        times.map(|(number, time)| since(number, time)).collect()
    }
}

/// A plugin whose answers may be timed.
#[derive(Clone)]
struct Timed {
    plugin: Plugin,
    times: Option<Times>,
}

impl Handler for Timed {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let events = batch.events;
        let handled = Handler::handle(&self.plugin, batch).await?;
        if let Some(times) = &self.times {
            events.iter().for_each(|event| times.note(event.key));
        }
        Ok(handled)
    }
}

pub(super) fn run(args: &Args) -> Result<Vec<Figure>, Failure> {
    let names: Vec<&str> = PLUGINS.into_iter().take(LEVELS).collect();
    let components = bed::components(&args.common.plugins, &names)?;
    let plan = bed::plan(bed::topology(&components))?;
    let host = bed::host()?;
    let plugins = bed::plugins(&host, &plan, &components)?;
    let mut columns: [Vec<f64>; 6] = Default::default();
    for repetition in 0..=args.common.repetitions {
        let scratch = Scratch::new(&args.common.data, "latency")?;
        let syncs = yardstick::syncs(&scratch.0.join("yardstick"), SYNC_BYTES, SYNCS)
            .map_err(|error| Failure::failed(format!("cannot write to {}: {error}", scratch.0.display())))?;
        let (handled, read) = once(&scratch.0.join("data"), args, &plan, &plugins)?;
        let of = |values: &[f64]| [quantile(values, 0.5), quantile(values, 0.99)];
        let ([h50, h99], [r50, r99], [s50, s99]) = (of(&handled), of(&read), of(&syncs));
        say(&format!(
            "latency, repetition {repetition}: handled {h50:.2} ms (p99 {h99:.2}), read {r50:.2} ms (p99 {r99:.2}), \
             one sync {s50:.2} ms (p99 {s99:.2})"
        ));
        if repetition > 0 {
            for (column, value) in columns.iter_mut().zip([h50, h99, r50, r99, s50, s99]) {
                column.push(value);
            }
        }
    }
    let [h50, h99, r50, r99, s50, s99] = columns.map(|column| median(&column));
    let figure = |what: &str, bus: f64, yardstick: f64, aim| Figure {
        name: format!("publish to {what} at {}/s", args.rate),
        unit: "ms",
        bus,
        yardstick,
        ratio: bus / yardstick,
        aim,
    };
    Ok(vec![
        figure("the third handler's answer, p50", h50, s50, "at most one sync + 0.5 ms"),
        figure("the third handler's answer, p99", h99, s99, ""),
        figure("a reader of its outcome, p50", r50, s50, ""),
        figure("a reader of its outcome, p99", r99, s99, ""),
    ])
}

/// Latencies in milliseconds: to the last handler's answer, and to a reader outside.
fn once(folder: &Path, args: &Args, plan: &Plan, plugins: &[Plugin]) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let bed = Bed::new(folder)?;
    let handled = Times::new(args.events);
    let read = Times { began: handled.began, ..Times::new(args.events) };
    let last = plugins.len().saturating_sub(1);
    let handlers = plugins
        .iter()
        .enumerate()
        .map(|(level, plugin)| Timed { plugin: plugin.clone(), times: (level == last).then(|| handled.clone()) });
    let tree = bed.tree(plan, handlers.collect())?;
    let server = bed.serve(&tree)?;
    let address = server.address().to_string();

    let gap_ns = 1_000_000_000 / args.rate;
    // Time to connect, and to start reading, before the first order is due.
    let first_ns = handled.began.elapsed().as_nanos() as u64 + 500_000_000;
    let due_ns = move |number: u64| first_ns + number * gap_ns;
    let (sender, requests) = mpsc::channel(1024);
    let (began, events) = (handled.began, args.events);
    let sending = std::thread::spawn(move || {
        let mut topic = Some("orders".to_owned());
        for number in 0..events {
            let order = vec![bed::order(number)];
            let request = v1::PublishStreamRequest { topic: topic.take().unwrap_or_default(), events: order };
            let due = Duration::from_nanos(due_ns(number));
            if let Some(early) = due.checked_sub(began.elapsed()) {
                std::thread::sleep(early);
            }
            if sender.blocking_send(request).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let client = Client::connect(&address).await?;
        let parcels = Read {
            topic: "parcels".to_owned(),
            start: Start::Latest,
            follow: true,
            limit: Some(events),
            ..Read::default()
        };
        let mut reading = client.read(parcels).await?;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.map_err(Failure::failed)?.connect().await.map_err(Failure::failed)?;
        let answers = PublisherServiceClient::new(channel).publish_stream(ReceiverStream::new(requests)).await;
        let mut answers = answers.map_err(Failure::failed)?.into_inner();
        let publish = async {
            while answers.message().await.map_err(Failure::failed)?.is_some() {}
            Ok::<_, Failure>(())
        };
        let follow = async {
            while let Some(parcels) = reading.next().await? {
                parcels.iter().for_each(|parcel| read.note(&parcel.key));
            }
            Ok::<_, Failure>(())
        };
        tokio::try_join!(publish, follow)
    })?;
    // It has sent everything, since everything has arrived.
    let _ = sending.join();
    bed.end(Some(server), &tree)?;
    Ok((handled.latencies(due_ns), read.latencies(due_ns)))
}
