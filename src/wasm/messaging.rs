//! Components for `wasmcloud:messaging@0.2.0`, which know nothing of this bus.
//!
//! ```text
//! event ── subject, body ──▶ handle-message ── publish(subject, body) ──▶ output for the port of that name
//!                                 │
//!                                 └─ an error: the event is tried again
//! ```
//!
//! The subject of a message is the event's attribute `subject`, or else the name of its topic. The reply subject is the
//! attribute `replyto`, in both directions. An output has the type of its port, and the key and the content type of the
//! event. Each event of a batch is a message of its own; batches only save the way into the sandbox.
//!
//! Promises: what such a component does is checked like the answer of any other. `request` does not exist: nothing
//! answers here, and a component that calls it is refused at registration.

#![allow(unsafe_code, reason = "derived: how records lie in the memory of a component, checked against its types")]

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, ComponentType, Func, InstancePre, Lift, Linker, Lower};
use wasmtime::{Engine, Result, Store, StoreContextMut};

use super::contract::wattle::plugin::types::{Action, Failure, Handled, Output};
use super::published::PublishedOutput;
use super::store_data::{StopCause, StoreData};
use super::words;
use super::worlds::{MESSAGING_CONSUMER, MESSAGING_HANDLER, MESSAGING_VERSION};
use crate::model::call::Batch;

/// The attribute of events that stands for the reply subject of a message.
const REPLY_TO: &str = "replyto";

/// A message that a component receives.
#[derive(ComponentType, Lower)]
#[component(record)]
struct ReceivedMessage<'a> {
    subject: &'a str,
    body: &'a [u8],
    #[component(name = "reply-to")]
    reply_to: Option<&'a str>,
}

/// A message that a component publishes.
#[derive(ComponentType, Lift)]
#[component(record)]
struct PublishedMessage {
    subject: String,
    body: Vec<u8>,
    #[component(name = "reply-to")]
    reply_to: Option<String>,
}

type HandleResult = (std::result::Result<(), String>,);

pub(super) fn add_to_linker(linker: &mut Linker<StoreData>) -> Result<()> {
    let mut consumer = linker.instance(&format!("{MESSAGING_CONSUMER}@{MESSAGING_VERSION}"))?;
    consumer.func_wrap("publish", |mut store: StoreContextMut<'_, StoreData>, (message,): (PublishedMessage,)| {
        Ok((publish(store.data_mut(), message)?,))
    })
}

/// Takes a message as an output of the current event. The inner error is the component's, which may report it.
fn publish(state: &mut StoreData, message: PublishedMessage) -> Result<std::result::Result<(), String>> {
    let PublishedMessage { subject, body, reply_to } = message;
    let Some(event) = state.event() else {
        return Ok(Err("messages are published while a message is handled, and not before".to_owned()));
    };
    let Some(port) = (0..).zip(state.ports.iter()).find_map(|(at, port)| (*port == subject).then_some(at)) else {
        let (subject, ports) = (words::name(&subject), words::listed(&state.ports));
        return Ok(Err(format!(
            "the topology connects no port `{subject}` of this subscriber: add it to its `to:`, with the topic for \
             that subject. It connects {ports}"
        )));
    };
    let attributes = match reply_to {
        Some(reply_to) if reply_to.contains(char::is_control) => {
            return Ok(Err("the reply subject has control characters".to_owned()));
        }
        Some(reply_to) => format!("{REPLY_TO}={reply_to}\n"),
        None => String::new(),
    };
    let output = PublishedOutput { event, port, attributes, data: body };
    if state.published.push(output) { Ok(Ok(())) } else { Err(StopCause::Published.into()) }
}

/// A component of this world that can be instantiated.
#[derive(Clone)]
pub(super) struct MessagingPre {
    pub(super) pre: InstancePre<StoreData>,
    handle: ComponentExportIndex,
}

impl MessagingPre {
    pub(super) fn new(pre: InstancePre<StoreData>) -> Result<Self> {
        let component = pre.component();
        let handler = component.get_export_index(None, &*format!("{MESSAGING_HANDLER}@{MESSAGING_VERSION}"));
        let handle = handler.and_then(|handler| component.get_export_index(Some(&handler), "handle-message"));
        let missing = || wasmtime::Error::msg(format!("`{MESSAGING_HANDLER}` has no function `handle-message`"));
        Ok(Self { handle: handle.ok_or_else(missing)?, pre })
    }

    pub(super) async fn instantiate(&self, store: &mut Store<StoreData>) -> Result<Messaging> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let missing = || wasmtime::Error::msg("`handle-message` is no function");
        let handle = instance.get_func(&mut *store, self.handle).ok_or_else(missing)?;
        // Here, so that a function of another type is refused at registration.
        handle.typed::<(ReceivedMessage<'_>,), HandleResult>(&*store)?;
        Ok(Messaging { handle })
    }
}

/// An instance of such a component.
pub(super) struct Messaging {
    handle: Func,
}

impl Messaging {
    /// Handles events until one fails.
    pub(super) async fn handle(&self, store: &mut Store<StoreData>, batch: &Batch<'_>) -> Result<Handled> {
        let handle = self.handle.typed::<(ReceivedMessage<'_>,), HandleResult>(&*store)?;
        let mut failed = None;
        for (index, event) in (0..).zip(batch.events) {
            store.data_mut().turn_to(index)?;
            let attributes = store.data().attributes();
            let attribute = |name: &str| attributes.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            let subject = attribute("subject").unwrap_or(batch.topic);
            let message = ReceivedMessage { subject, body: event.data, reply_to: attribute(REPLY_TO) };
            let (handled,) = handle.call_async(&mut *store, (message,)).await?;
            if let Err(reason) = handled {
                failed = Some(Failure { event: index, action: Action::Retry(None), reason });
                break;
            }
        }
        let end = failed.as_ref().map_or(u32::MAX, |failed| failed.event);
        let published = store.data_mut().published.take().into_iter().filter(|output| output.event < end);
        Ok(Handled { outputs: published.map(output_of).collect(), failed })
    }
}

/// As any output that says nothing of its key, type and content type.
fn output_of(PublishedOutput { event, port, attributes, data }: PublishedOutput) -> Output {
    let (type_, content_type) = (String::new(), String::new());
    Output { event, port, key: None, type_, content_type, attributes, data }
}

/// Whether a component can ask for an answer, which nothing would give.
pub(super) fn has_request(engine: &Engine, component: &Component) -> bool {
    let imports = component.component_type();
    let mut consumers = imports.imports(engine).filter(|(name, _)| name.starts_with(MESSAGING_CONSUMER));
    consumers.any(|(_, item)| match item.ty {
        ComponentItem::ComponentInstance(consumer) => consumer.get_export(engine, "request").is_some(),
        _ => false,
    })
}
