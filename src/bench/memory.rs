//! Measures whether memory grows with the backlog.

use std::time::Duration;

use bytes::Bytes;

use super::{BenchError, Subject, fresh, runtime, sample};
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::model::call::{Batch, HandleError, Handled, Handler};
use crate::wasm::Plugin;

/// Events per publish.
const PUBLISH_EVENTS: usize = 1_000;

/// The results, in bytes of resident memory of the process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// When everything has started and nothing is published.
    pub idle_bytes: u64,
    /// The maximum with the backlog and nothing of it handled.
    pub backlog_bytes: u64,
    /// Events of the backlog.
    pub events: u64,
}

/// A plugin whose calls never return: its lanes hold the events that they have read.
#[derive(Clone)]
struct StuckPlugin(Plugin);

impl Handler for StuckPlugin {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.0)
    }

    async fn handle(&self, _: Batch<'_>) -> Result<Handled, HandleError> {
        std::future::pending().await
    }
}

/// Resident memory with a backlog of `events` orders that no handler completes, compared with idle.
///
/// # Errors
/// [`BenchError`].
pub fn memory(subject: &Subject, events: usize) -> Result<Memory, BenchError> {
    let lanes = runtime("lane")?;
    let folder = fresh(&subject.folder, "bus")?;
    let root = subject.plan.topics.iter().find(|topic| topic.is_root()).map(|topic| topic.label()).unwrap_or_default();
    lanes.block_on(async {
        let engine = EmbeddedEngine::open(&folder, Durability::Sync)?;
        let handlers = subject.plugins.iter().cloned().map(StuckPlugin).collect();
        let tree = Tree::start(engine, &subject.plan, handlers, lanes.handle()).await?;
        // one publish first, so that one-time setup counts as idle
        tree.publisher().publish(&root, &[sample::order(0)], None).await?;
        let idle_bytes = resident_bytes()?;
        let mut backlog_bytes = idle_bytes;
        for batch in 0..events.div_ceil(PUBLISH_EVENTS) {
            let first = 1 + batch * PUBLISH_EVENTS;
            let orders: Vec<Bytes> = (first..first + PUBLISH_EVENTS).map(sample::order).collect();
            tree.publisher().publish(&root, &orders, None).await?;
            backlog_bytes = backlog_bytes.max(resident_bytes()?);
        }
        tree.drain(Duration::from_millis(100)).await;
        drop(tree.engine().close().await);
        Ok(Memory { idle_bytes, backlog_bytes, events: events as u64 })
    })
}

/// Resident memory of this process.
pub(super) fn resident_bytes() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| BenchError::Unfit("the system does not report resident memory".into()))
}
