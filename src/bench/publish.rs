//! How near is durable publishing through gRPC to the disk itself?

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::groups::{Groups, recording};
use super::{BenchError, Comparison, fresh, loopback, runtime, sample};
use crate::client::{Client, Window};
use crate::dispatch::Tree;
use crate::effects::{DiskFolder, SystemClock};
use crate::engine::Engine;
use crate::engine::embedded::{EmbeddedEngine, LogOptions};
use crate::model::TopicSettings;
use crate::server::{Port, Server};
use crate::topology::{Plan, TopicPlan};
use crate::wasm::Plugin;

const TOPIC: &str = "bench/events";
const PARTITIONS: u32 = 8;

/// Durable publishes of `batches` batches of `batch_events` events with `data_bytes` bytes of data each, through gRPC on
/// loopback, in events per second; the yardstick writes as many bytes in the same groups to one file, each followed by
/// `fdatasync`. The groups are those that the engine made of the batches in the same round, recorded at its disk: a
/// yardstick that synced after every batch would be slower than the bus, which syncs several at once.
///
/// # Errors
/// [`BenchError`].
pub fn publish(
    folder: &Path,
    batches: usize,
    batch_events: usize,
    data_bytes: usize,
    rounds: usize,
) -> Result<Comparison, BenchError> {
    let events = (batches * batch_events) as f64;
    let made: Vec<Vec<Bytes>> = (0..batches)
        .map(|batch| (0..batch_events).map(|event| sample::plain(batch * batch_events + event, data_bytes)).collect())
        .collect();
    let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, groups) = through_grpc(&fresh(folder, "bus")?, &made)?;
        ours.push(events / took);
        yardstick.push(events / raw(&fresh(folder, "raw")?, &groups)?);
    }
    let yardstick_is = "write + fdatasync of the same bytes in the same groups";
    Ok(Comparison { unit: "events/s", yardstick_is, ours, yardstick })
}

/// Seconds.
fn raw(folder: &Path, groups: &[usize]) -> Result<f64, BenchError> {
    let file = File::create(folder.join("file"))?;
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

/// Seconds from the first batch to the last ack, and the groups that were written and synced in them.
fn through_grpc(folder: &Path, batches: &[Vec<Bytes>]) -> Result<(f64, Vec<usize>), BenchError> {
    let service = runtime("service")?;
    let entered = service.enter();
    let groups = Groups::default();
    let disk = Arc::new(recording(DiskFolder::create(folder)?, groups.clone()));
    let engine = EmbeddedEngine::open_with(folder, disk, Arc::new(SystemClock), LogOptions::default())?;
    let port = Port::take(&loopback())?;
    drop(entered);
    let (server, address) = service.block_on(async {
        let topic = TopicPlan {
            namespace: "bench".to_owned(),
            name: "events".to_owned(),
            partitions: PARTITIONS,
            id: None,
            key: None,
            lifecycle: None,
            schema: None,
            settings: TopicSettings::default(),
            backlog: None,
            parent: None,
            dead_letters_of: None,
            was: None,
        };
        let plan = Plan { topics: vec![topic], ..Plan::default() };
        let tree = Tree::start(engine.clone(), &plan, Vec::<Plugin>::new(), &tokio::runtime::Handle::current()).await?;
        let server = Server::start(port, tree).await?;
        let address = server.address().to_string();
        Ok::<_, BenchError>((server, address))
    })?;
    let client_runtime = runtime("client")?;
    let measured = client_runtime.block_on(async {
        let client = Client::connect(&address).await?;
        let mut publishing = client.publishing(TOPIC, Window::default());
        groups.take();
        let start = Instant::now();
        for batch in batches {
            publishing.send(batch.clone()).await?;
        }
        publishing.finish().await?;
        Ok::<_, BenchError>((start.elapsed().as_secs_f64(), groups.take()))
    })?;
    service.block_on(async {
        server.stop(std::time::Duration::from_secs(5)).await;
        // the figure is taken; how the data folder ends does not matter to it
        drop(engine.close().await);
    });
    Ok(measured)
}
