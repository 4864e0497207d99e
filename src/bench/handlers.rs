//! Measures the cost that the tree adds to its handlers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{BenchError, Comparison, Subject, fresh, processor_time, runtime, sample};
use crate::dispatch::{PublishError, Tree};
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::limits;
use crate::model::EventView;
use crate::model::call::{Batch, CallEvent, EventContext, HandleError, LogLevel, NoState};
use crate::topology::{Plan, TopicIndex};
use crate::wasm::Plugin;

/// Events per publish.
const PUBLISH_EVENTS: usize = 1_000;
/// Concurrent publishes, as from a client: the tree is as busy as the loop.
const PUBLISHES_AT_ONCE: usize = 16;
/// How often the tree is asked whether it is idle; asking costs processor time too.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Processor time per event and handler, in microseconds, for `events` orders published in process and handled by the
/// whole tree on the real disk. The yardstick calls the same components with the same events, in full batches, in a
/// bare loop: no bus, no disk, nothing stored.
///
/// # Errors
/// [`BenchError`].
pub fn handlers(subject: &Subject, events: usize, rounds: usize) -> Result<Comparison, BenchError> {
    let orders: Vec<Bytes> = (0..events).map(sample::order).collect();
    let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (calls, bare) = bare_loop(subject, &orders)?;
        yardstick.push(bare.as_secs_f64() * 1e6 / calls as f64);
        let (handled, tree) = through_the_tree(subject, &orders)?;
        if handled != calls {
            return Err(BenchError::Unfit(format!("the tree handled {handled} events, the loop {calls}")));
        }
        ours.push(tree.as_secs_f64() * 1e6 / handled as f64);
    }
    let yardstick_is = "the same components, called in a bare loop";
    Ok(Comparison { unit: "us of processor per event and handler", yardstick_is, ours, yardstick })
}

fn root(plan: &Plan) -> Result<String, BenchError> {
    let root = plan.topics.iter().find(|topic| topic.is_root());
    root.map(|topic| topic.label()).ok_or_else(|| BenchError::Unfit("it has no root".to_owned()))
}

fn through_the_tree(subject: &Subject, orders: &[Bytes]) -> Result<(u64, Duration), BenchError> {
    let lanes = runtime("lane")?;
    let folder = fresh(&subject.folder, "tree")?;
    let topic = root(&subject.plan)?;
    lanes.block_on(async {
        let engine = EmbeddedEngine::open(&folder, Durability::Sync)?;
        let tree = Tree::start(engine, &subject.plan, subject.plugins.clone(), lanes.handle()).await?;
        let start = processor_time();
        let mut publishing: JoinSet<Result<_, PublishError>> = JoinSet::new();
        for batch in orders.chunks(PUBLISH_EVENTS) {
            if publishing.len() >= PUBLISHES_AT_ONCE
                && let Some(published) = publishing.join_next().await
            {
                published.map_err(std::io::Error::other)??;
            }
            let (publisher, topic, batch) = (tree.publisher().clone(), topic.clone(), batch.to_vec());
            publishing.spawn(async move { publisher.publish(&topic, &batch, None).await });
        }
        while let Some(published) = publishing.join_next().await {
            published.map_err(std::io::Error::other)??;
        }
        while !tree.is_settled() {
            tokio::time::sleep(ASK_EVERY).await;
        }
        let took = processor_time() - start;
        let handled = tree.snapshot().subscribers.iter().map(|subscriber| subscriber.handled).sum();
        tree.drain(Duration::from_secs(5)).await;
        drop(tree.engine().close().await);
        Ok((handled, took))
    })
}

struct NoContext;

impl EventContext for NoContext {
    fn attributes(&self, _: u32) -> String {
        String::new()
    }

    fn seed(&self, _: u32) -> [u8; 32] {
        [0; 32]
    }

    fn log(&self, _: Option<u32>, _: LogLevel, _: &str, _: &str) {}
}

/// An event between two handlers of the loop.
pub(super) struct CarriedEvent {
    pub(super) key: String,
    pub(super) r#type: String,
    pub(super) data: Vec<u8>,
}

fn bare_loop(subject: &Subject, orders: &[Bytes]) -> Result<(u64, Duration), BenchError> {
    // Only the calls count: inputs are prepared before, and outputs are kept until after.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut topics: BTreeMap<TopicIndex, Vec<CarriedEvent>> = BTreeMap::new();
    for (index, topic) in (0u32..).zip(&subject.plan.topics) {
        if topic.is_root() {
            let carried = orders.iter().filter_map(|order| {
                let view = EventView::parse(order).ok()?;
                let data = view.data.unwrap_or_default().to_vec();
                Some(CarriedEvent { key: view.id.to_owned(), r#type: view.r#type.to_owned(), data })
            });
            topics.insert(TopicIndex(index), carried.collect());
        }
    }
    let (mut calls, mut took) = (0, Duration::ZERO);
    for (subscriber, plugin) in subject.plan.subscribers.iter().zip(&subject.plugins) {
        let input = topics.get(&subscriber.from).map(Vec::as_slice).unwrap_or_default();
        let (outputs, time) = runtime.block_on(call_all(plugin, input))?;
        (calls, took) = (calls + input.len() as u64, took + time);
        for (port, carried) in outputs {
            if let Some((_, topic)) = subscriber.ports.get(port as usize) {
                topics.entry(*topic).or_default().push(carried);
            }
        }
    }
    Ok((calls, took))
}

/// Outputs, each with its port.
type SentEvents = Vec<(u32, CarriedEvent)>;

/// Calls a plugin with all events, in full batches. Gives its outputs, and the processor time of the calls alone.
pub(super) async fn call_all(plugin: &Plugin, input: &[CarriedEvent]) -> Result<(SentEvents, Duration), BenchError> {
    let context: Arc<dyn EventContext> = Arc::new(NoContext);
    let (mut sent, mut took) = (Vec::new(), Duration::ZERO);
    for chunk in input.chunks(limits::BATCH_EVENTS_MAX as usize) {
        let events: Vec<CallEvent<'_>> = chunk.iter().map(borrowed).collect();
        let batch = Batch {
            topic: "bare",
            partition: 0,
            content_type: "application/json",
            events: &events,
            context: context.clone(),
            state: Arc::new(NoState),
        };
        // For each batch, as the bus does: an instance that has grown too large is replaced.
        let mut instance = plugin.instance().await.map_err(HandleError::from)?;
        let start = processor_time();
        let handled = instance.handle(batch).await.map_err(HandleError::from)?;
        took += processor_time() - start;
        if let Some(failed) = handled.failure() {
            return Err(BenchError::Unfit(format!("a handler failed: {}", failed.reason)));
        }
        for output in handled.outputs {
            let key = chunk.get(output.event as usize).map(|carried| carried.key.clone()).unwrap_or_default();
            sent.push((output.port, CarriedEvent { key, r#type: output.r#type, data: output.data }));
        }
    }
    Ok((sent, took))
}

fn borrowed(carried: &CarriedEvent) -> CallEvent<'_> {
    CallEvent {
        key: &carried.key,
        r#type: &carried.r#type,
        time_ns: 1,
        trusted_time_ns: 1,
        attempt: 1,
        data: &carried.data,
    }
}
