//! Processor time per event and handler through the tree, against calling the same plugins in a bare loop.
//!
//! Orders are published first; then the lanes start, and the processor time of the whole process counts until everything is
//! handled: reading, calling, committing, the journal. The bare loop then calls the same plugins with the very events that
//! each had, in batches as large as a lane's, on one thread, and forgets the outputs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::bed::{self, Bed, PLUGINS};
use super::{Common, Failure, Figure, Scratch, median, say, yardstick};
use crate::dispatch::Tree;
use crate::engine::embedded::EmbeddedEngine;
use crate::engine::{Engine, ReadBudget};
use crate::limits;
use crate::model::{Offset, PartitionId, Record};
use crate::topology::Plan;
use crate::wasm::{Batch, Event, EventContext, LogLevel, Plugin};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Orders of each repetition; each goes through four handlers
    #[arg(long, default_value_t = 100_000)]
    events: u64,

    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    pub(super) fn with(common: Common) -> Self {
        Self { events: 100_000, common }
    }
}

/// How often it is looked whether everything is handled.
const SETTLED_EVERY: Duration = Duration::from_millis(20);

pub(super) fn run(args: &Args) -> Result<Vec<Figure>, Failure> {
    let components = bed::components(&args.common.plugins, &PLUGINS)?;
    let plan = bed::plan(bed::topology(&components))?;
    let host = bed::host()?;
    let plugins = bed::plugins(&host, &plan, &components)?;
    let (mut tree, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..=args.common.repetitions {
        let scratch = Scratch::new(&args.common.data, "handle")?;
        let (through, alone) = once(&scratch.0, args.events, &plan, &plugins)?;
        say(&format!("handle, repetition {repetition}: {through:.2} us through the tree, {alone:.2} us alone"));
        if repetition > 0 {
            tree.push(through);
            bare.push(alone);
            ratios.push(through / alone);
        }
    }
    Ok(vec![Figure {
        name: "processor time per event and handler".to_owned(),
        unit: "us",
        bus: median(&tree),
        yardstick: median(&bare),
        ratio: median(&ratios),
        aim: "at most 1.5",
    }])
}

fn processor() -> Result<f64, Failure> {
    yardstick::processor_seconds().map_err(|error| Failure::failed(format!("cannot measure processor time: {error}")))
}

/// Microseconds per event and handler, through the tree and alone.
fn once(folder: &Path, events: u64, plan: &Plan, plugins: &[Plugin]) -> Result<(f64, f64), Failure> {
    let bed = Bed::new(folder)?;
    // The roots alone, so that nothing is handled yet.
    let roots =
        Plan { topics: plan.topics.iter().filter(|topic| topic.is_root()).cloned().collect(), subscribers: Vec::new() };
    let publisher = bed.tree::<Plugin>(&roots, Vec::new())?;
    bed.block_on(async {
        let mut batch = Vec::new();
        for number in 0..events {
            batch.push(bed::order(number));
            if batch.len() == 1_000 || number + 1 == events {
                publisher.publisher().publish("orders", &batch).await.map_err(Failure::failed)?;
                batch.clear();
            }
        }
        Ok::<_, Failure>(())
    })?;

    let before = processor()?;
    let tree = bed.tree(plan, plugins.to_vec())?;
    bed.block_on(async {
        while !tree.is_settled() {
            tokio::time::sleep(SETTLED_EVERY).await;
        }
    });
    let through = processor()? - before;
    let snapshot = tree.snapshot();
    let handled: u64 = snapshot.subscribers.iter().map(|subscriber| subscriber.handled).sum();
    let dead: u64 = snapshot.subscribers.iter().map(|subscriber| subscriber.dead_lettered).sum();
    if handled != events * plugins.len() as u64 || dead > 0 {
        return Err(Failure::failed(format!("{handled} events were handled, {dead} given up: the plugins do not fit")));
    }

    let mut alone = 0.0;
    for (subscriber, plugin) in plan.subscribers.iter().zip(plugins) {
        let topic = plan.topics.get(subscriber.from.0 as usize);
        let (name, partitions) = topic.map_or((String::new(), 0), |topic| (topic.label(), topic.partitions));
        let inputs = bed.block_on(inputs(&tree, &name, partitions))?;
        let before = processor()?;
        bed.block_on(call(plugin, &name, &inputs))?;
        alone += processor()? - before;
    }
    bed.end(None, &tree)?;
    let each = 1e6 / handled as f64;
    Ok((through * each, alone * each))
}

/// An event, looked into before the time counts.
struct Input {
    key: String,
    r#type: String,
    time_ns: u64,
    data: Vec<u8>,
}

/// The events of every partition of a topic.
async fn inputs(tree: &Tree<EmbeddedEngine>, topic: &str, partitions: u32) -> Result<Vec<Vec<Input>>, Failure> {
    let target = tree.publisher().targets().find(topic).map_err(Failure::failed)?;
    let mut all = Vec::new();
    for partition in 0..partitions {
        let id = PartitionId { topic: target.topic, partition };
        let (mut inputs, mut from): (Vec<Input>, Offset) = (Vec::new(), 0);
        // What is settled is written; what is read has to be durable as well.
        let end = tree.engine().bounds(id).map_or(0, |bounds| bounds.written);
        while from < end {
            tree.engine().wait_durable(id, from).await.map_err(Failure::failed)?;
            let budget = ReadBudget { events: u32::MAX, bytes: 8 << 20 };
            for chunk in tree.engine().read(id, from, budget).await.map_err(Failure::failed)? {
                for stored in chunk.iter() {
                    let record = Record::parse(stored.record).map_err(Failure::failed)?;
                    let view = record.view().map_err(Failure::failed)?;
                    inputs.push(Input {
                        key: record.key.to_owned(),
                        r#type: view.r#type.to_owned(),
                        time_ns: stored.append_time_ns,
                        data: view.data.unwrap_or_default().to_vec(),
                    });
                }
                from = chunk.end_offset();
            }
        }
        all.push(inputs);
    }
    Ok(all)
}

struct NoContext;

impl EventContext for NoContext {
    fn attributes(&self, _: u32) -> String {
        "id=bench\nsource=/bench\n".to_owned()
    }

    fn seed(&self, _: u32) -> [u8; 32] {
        [7; 32]
    }

    fn log(&self, _: Option<u32>, _: LogLevel, _: &str, _: &str) {}
}

/// Calls a plugin with all of them.
async fn call(plugin: &Plugin, topic: &str, partitions: &[Vec<Input>]) -> Result<(), Failure> {
    let context = Arc::new(NoContext);
    let mut instance = plugin.instance().await.map_err(Failure::failed)?;
    for (partition, inputs) in (0..).zip(partitions) {
        for inputs in inputs.chunks(limits::BATCH_EVENTS_MAX as usize) {
            let events: Vec<Event<'_>> = inputs
                .iter()
                .map(|input| Event {
                    key: &input.key,
                    r#type: &input.r#type,
                    time_ns: input.time_ns,
                    attempt: 1,
                    data: &input.data,
                })
                .collect();
            let (content_type, context) = ("application/json", context.clone());
            let handled = instance.handle(Batch { topic, partition, content_type, events: &events, context }).await;
            std::hint::black_box(handled.map_err(Failure::failed)?);
        }
    }
    Ok(())
}
