//! Calls a plugin the way dispatch does, with a context that remembers what was said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use wattle::model::call::{Batch, CallError, CallEvent, EventContext, Handled, Limits, LogLevel, NoState, StateView};
use wattle::wasm::{Host, HostOptions, Plugin, PluginSpec};

use super::guests::guest;

/// 2026-01-01T00:00:00Z in nanoseconds; the event with index n of a batch is n seconds later unless it says otherwise.
pub const START_NS: u64 = 1_767_225_600_000_000_000;

/// An event of a test.
#[derive(Clone)]
pub struct Sent {
    pub key: String,
    pub time_ns: u64,
    pub attempt: u32,
    pub data: Vec<u8>,
    /// Stands for the event's identity: its attributes and its seed follow from it.
    pub id: String,
}

pub fn sent(id: &str, data: impl Into<Vec<u8>>) -> Sent {
    Sent { key: format!("key-{id}"), time_ns: START_NS, attempt: 1, data: data.into(), id: id.to_owned() }
}

/// Answers from the events' identities, and remembers log lines.
#[derive(Default)]
pub struct Context {
    pub ids: Vec<String>,
    pub lines: Mutex<Vec<(Option<u32>, LogLevel, String)>>,
}

impl EventContext for Context {
    fn attributes(&self, index: u32) -> String {
        let id = &self.ids[index as usize];
        // Some have an address for answers.
        let reply = id.strip_prefix("ask-").map(|to| format!("replyto={to}\n")).unwrap_or_default();
        format!("id={id}\nsource=/test\nsubject=about {id}\n{reply}")
    }

    fn seed(&self, index: u32) -> [u8; 32] {
        let mut seed = [7; 32];
        for (to, from) in seed.iter_mut().zip(self.ids[index as usize].bytes()) {
            *to = from;
        }
        seed
    }

    fn log(&self, index: Option<u32>, level: LogLevel, context: &str, line: &str) {
        let line = if context.is_empty() { line.to_owned() } else { format!("[{context}] {line}") };
        self.lines.lock().unwrap().push((index, level, line));
    }
}

pub fn host() -> Host {
    Host::new(HostOptions::default()).expect("the sandbox can be set up")
}

pub fn spec(name: &str, ports: &[&str]) -> PluginSpec {
    PluginSpec {
        subscriber: name.to_owned(),
        wasm: guest(name),
        config: BTreeMap::new(),
        hidden: BTreeMap::new(),
        ports: ports.iter().map(|port| (*port).to_owned()).collect(),
        limits: Limits::default(),
    }
}

/// Calls a plugin with these events, on an instance of its own choice.
pub async fn call(plugin: &Plugin, events: &[Sent]) -> (Result<Handled, CallError>, Arc<Context>) {
    let mut lease = plugin.instance().await.expect("an instance starts");
    call_on(&mut lease, events).await
}

/// Calls a leased instance.
pub async fn call_on(lease: &mut wattle::wasm::Lease, events: &[Sent]) -> (Result<Handled, CallError>, Arc<Context>) {
    call_over(Arc::new(NoState), lease, events).await
}

/// Calls a leased instance over the state of a lane.
pub async fn call_over(
    state: Arc<dyn StateView>,
    lease: &mut wattle::wasm::Lease,
    events: &[Sent],
) -> (Result<Handled, CallError>, Arc<Context>) {
    let ids = events.iter().map(|event| event.id.clone()).collect();
    let context = Arc::new(Context { ids, lines: Mutex::default() });
    let lowered = lowered(events);
    let batch = Batch {
        topic: "orders",
        partition: 3,
        content_type: "application/json",
        events: &lowered,
        context: Arc::clone(&context) as Arc<dyn EventContext>,
        state,
    };
    (lease.handle(batch).await, context)
}

pub fn lowered(events: &[Sent]) -> Vec<CallEvent<'_>> {
    let lowered = events.iter().map(|event| CallEvent {
        key: &event.key,
        r#type: "test",
        time_ns: event.time_ns,
        trusted_time_ns: event.time_ns,
        attempt: event.attempt,
        data: &event.data,
    });
    lowered.collect()
}
