//! Compares durable publishing through gRPC with the disk itself.
//!
//! The topic is a root with default settings, so events are deduplicated.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::groups::{Groups, recording};
use super::threads::ThreadTimes;
use super::{BenchError, Comparison, checked, client_runtime, fresh, loopback, median, quiet, sample};
use crate::client::{Client, Window};
use crate::dispatch::Tree;
use crate::effects::{DiskFolder, SystemClock};
use crate::engine::Engine;
use crate::engine::embedded::{EmbeddedEngine, LogOptions};
use crate::server::{self, Port, Server};
use crate::wasm::Plugin;

const TOPIC: &str = "bench/events";
const PARTITIONS: u32 = 8;
/// Bytes per write while preallocating a file.
const PREALLOCATE_BYTES: usize = 1 << 20;

/// What one run of `bench publish` measured.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Compared with a growing file, the simplest way to write.
    pub growing: Comparison,
    /// The same groups written into a preallocated file, one figure per round, in events per second.
    pub preallocated: Vec<f64>,
    /// Processor time per event by thread, in microseconds, over all rounds; highest first.
    pub threads: Vec<(String, f64)>,
}

impl Publish {
    /// The median of the ratios to the preallocated file.
    pub fn preallocated_ratio_median(&self) -> f64 {
        let ratios = self.growing.ours.iter().zip(&self.preallocated).map(|(ours, raw)| ours / raw);
        median(&ratios.collect::<Vec<f64>>())
    }
}

/// Durable publishes of `batches` batches of `batch_events` events with `data_bytes` bytes of data each, through gRPC
/// on loopback, in events per second. The yardsticks write the same number of bytes in the same groups to one file,
/// each group followed by `fdatasync`. The groups are those that the engine formed in its last run, recorded at its
/// disk: a yardstick that synced each batch would be slower than the bus, which syncs several at once.
///
/// The first run is a warm-up. The yardsticks come first in every other round, and before each measurement the disk
/// finishes the writes of the previous one.
///
/// # Errors
/// [`BenchError`].
pub fn publish(
    folder: &Path,
    batches: usize,
    batch_events: usize,
    data_bytes: usize,
    rounds: usize,
) -> Result<Publish, BenchError> {
    let events = (batches * batch_events) as f64;
    let made: Vec<Vec<Bytes>> = (0..batches)
        .map(|batch| (0..batch_events).map(|event| sample::plain(batch * batch_events + event, data_bytes)).collect())
        .collect();
    let (mut ours, mut yardstick, mut preallocated) = (Vec::new(), Vec::new(), Vec::new());
    let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
    let bus = || {
        let data = fresh(folder, "bus")?;
        quiet(folder)?;
        through_grpc(&data, &made)
    };
    let bare = |groups: &[usize]| {
        let (mut growing, mut written) = (0.0, 0.0);
        for (is_preallocated, took) in [(false, &mut growing), (true, &mut written)] {
            let data = fresh(folder, "raw")?;
            quiet(folder)?;
            *took = raw(&data, groups, is_preallocated)?;
        }
        Ok::<_, BenchError>((growing, written))
    };
    let mut groups = bus()?.groups;
    for round in 0..rounds {
        let is_first = round % 2 == 0;
        let before = if is_first { None } else { Some(bare(&groups)?) };
        let Round { took, groups: of_now, spent } = bus()?;
        groups = of_now;
        let (growing, written) = match before {
            Some(before) => before,
            None => bare(&groups)?,
        };
        ours.push(events / took);
        yardstick.push(events / growing);
        preallocated.push(events / written);
        for (name, time) in spent {
            *threads.entry(name).or_default() += time;
        }
    }
    let of_event = |(name, time): (String, Duration)| (name, time.as_secs_f64() * 1e6 / (events * rounds as f64));
    let mut threads: Vec<_> = threads.into_iter().map(of_event).collect();
    threads.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let yardstick_is = "write + fdatasync of the same bytes in the same groups";
    let growing = Comparison { unit: "events/s", yardstick_is, ours, yardstick };
    Ok(Publish { growing, preallocated, threads })
}

/// The duration in seconds.
fn raw(folder: &Path, groups: &[usize], is_preallocated: bool) -> Result<f64, BenchError> {
    let file = File::create(folder.join("file"))?;
    if is_preallocated {
        let (room, zeroes) = (groups.iter().sum::<usize>(), vec![0; PREALLOCATE_BYTES]);
        for position in (0..room).step_by(PREALLOCATE_BYTES) {
            file.write_all_at(&zeroes, position as u64)?;
        }
        file.sync_all()?;
    }
    let longest = groups.iter().copied().max().unwrap_or(0);
    let bytes: Vec<u8> = (0..longest).map(|at| (at % 251) as u8).collect();
    let (start, mut position) = (Instant::now(), 0);
    for group in groups.iter().filter_map(|length| bytes.get(..*length)) {
        file.write_all_at(group, position)?;
        file.sync_data()?;
        position += group.len() as u64;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The result of publishing all batches once.
struct Round {
    /// Seconds from the first batch to the last ack.
    took: f64,
    /// The groups that were written and synced.
    groups: Vec<usize>,
    /// Processor time by thread.
    spent: Vec<(String, Duration)>,
}

fn through_grpc(folder: &Path, batches: &[Vec<Bytes>]) -> Result<Round, BenchError> {
    let service = server::runtime()?;
    let entered = service.enter();
    let groups = Groups::default();
    let disk = Arc::new(recording(DiskFolder::create(folder)?, groups.clone()));
    let engine = EmbeddedEngine::open_with(folder, disk, Arc::new(SystemClock), LogOptions::default())?;
    let port = Port::take(&loopback())?;
    drop(entered);
    let (server, address) = service.block_on(async {
        let text = format!("wattle: v1\nname: bench\ntopics: {{ events: {{ partitions: {PARTITIONS} }} }}\n");
        let plan = checked(&text)?;
        let tree = Tree::start(engine.clone(), &plan, Vec::<Plugin>::new(), &tokio::runtime::Handle::current()).await?;
        let server = Server::start(port, tree).await?;
        let address = server.address().to_string();
        Ok::<_, BenchError>((server, address))
    })?;
    let outside = client_runtime()?;
    let measured = outside.block_on(async {
        let client = Client::connect(&address).await?;
        let mut publishing = client.publishing(TOPIC, Window::default());
        groups.take();
        let (start, before) = (Instant::now(), ThreadTimes::now());
        for batch in batches {
            publishing.send(batch.clone()).await?;
        }
        publishing.finish().await?;
        let took = start.elapsed().as_secs_f64();
        Ok::<_, BenchError>(Round { took, groups: groups.take(), spent: ThreadTimes::now().since(&before) })
    })?;
    service.block_on(async {
        server.stop(Duration::from_secs(5)).await;
        // the measurement is complete, so an error while closing does not matter
        drop(engine.close().await);
    });
    Ok(measured)
}
