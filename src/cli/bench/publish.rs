//! Durable publish through gRPC, against writing and syncing the same bytes in the same groups.
//!
//! The engine's disk records how many bytes it is given between two syncs. The yardstick writes the same numbers of bytes,
//! each with one write and one fdatasync, to a file beside it.

use std::time::Instant;

use bytes::Bytes;

use super::bed::{self, Bed};
use super::{Common, Failure, Figure, Scratch, median, say, yardstick};
use crate::client::{Client, ClientError, Window};
use crate::model::event::Data;
use crate::model::{Attribute, Event};
use crate::wasm::Plugin;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Requests of each repetition
    #[arg(long, default_value_t = 500)]
    requests: u32,

    /// Events of each request
    #[arg(long, default_value_t = 1_000)]
    batch: u32,

    /// Bytes of data of each event
    #[arg(long, default_value_t = 256)]
    size: usize,

    /// Requests that are on their way at the same time
    #[arg(long, default_value_t = 16)]
    window: usize,

    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    pub(super) fn with(common: Common) -> Self {
        Self { requests: 500, batch: 1_000, size: 256, window: 16, common }
    }
}

const TOPOLOGY: &str = "wattle: v1\nname: bench\ntopics: { events: { partitions: 8 } }\nsubscribers: {}\n";

pub(super) fn run(args: &Args) -> Result<Vec<Figure>, Failure> {
    let scratch = Scratch::new(&args.common.data, "publish")?;
    let bed = Bed::new(&scratch.0.join("data"))?;
    let tree = bed.tree::<Plugin>(&bed::plan(TOPOLOGY.to_owned())?, Vec::new())?;
    let server = bed.serve(&tree)?;
    let address = server.address().to_string();
    let requests: Vec<Vec<Bytes>> = (0..args.requests).map(|request| batch(args, request)).collect();
    let events = f64::from(args.requests) * f64::from(args.batch);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let (mut bus, mut alone, mut ratios, mut group) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first repetition warms up and does not count.
    for repetition in 0..=args.common.repetitions {
        bed.groups.take();
        let began = Instant::now();
        runtime.block_on(publish(&address, &requests, args.window))?;
        let took = began.elapsed().as_secs_f64();
        let groups = bed.groups.take();
        let file = scratch.0.join("yardstick");
        let written = yardstick::write_and_sync(&file, &groups)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
        let written = written.as_secs_f64();
        say(&format!(
            "publish, repetition {repetition}: {:.0} events/s, alone {:.0}, {} groups",
            events / took,
            events / written,
            groups.len()
        ));
        if repetition > 0 {
            bus.push(events / took);
            alone.push(events / written);
            ratios.push(written / took);
            group.push(events / groups.len().max(1) as f64);
        }
    }
    bed.end(Some(server), &tree)?;
    let name = format!(
        "durable publish, {} x {} B, window {}, {:.0} events a group",
        args.batch,
        args.size,
        args.window,
        median(&group)
    );
    let (bus, yardstick, ratio) = (median(&bus), median(&alone), median(&ratios));
    Ok(vec![Figure { name, unit: "events/s", bus, yardstick, ratio, aim: "at least 0.6" }])
}

fn batch(args: &Args, request: u32) -> Vec<Bytes> {
    let event = |number: u32| {
        let mut event = Event {
            id: format!("{request}-{number}"),
            source: "/bench".to_owned(),
            r#type: "bench".to_owned(),
            data: Some(Data::Binary(vec![b'x'; args.size].into())),
            ..Event::default()
        };
        event.attributes.insert("partitionkey".to_owned(), Attribute::String(format!("key-{}", number % 1000)));
        event.encode()
    };
    (0..args.batch).map(event).collect()
}

async fn publish(address: &str, requests: &[Vec<Bytes>], window: usize) -> Result<(), ClientError> {
    let client = Client::connect(address).await?;
    let mut publishing = client.publishing("events", Window { batches: window, bytes: usize::MAX });
    for request in requests {
        publishing.send(request.clone()).await?;
    }
    publishing.finish().await?;
    Ok(())
}
