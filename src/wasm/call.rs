//! A call: its inputs, its outputs, and its errors.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use super::answer::PluginAnswer;
use super::contract::wattle::plugin::types;
use super::limits::crossing_bytes;
use super::plugin::PluginInner;
use super::store_data::{StopCause, StoreData};
use super::ticker::Slice;
use super::{answer, words};
use crate::model::call::{Batch, CallError, CallErrorKind, Limits};

/// Polls a call, and marks the start of each slice, so that only running counts as its time.
pub(super) async fn in_slices<F: Future>(slice: &Slice, call: F) -> F::Output {
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        slice.begin();
        call.as_mut().poll(context)
    })
    .await
}

/// Checks an answer, so that the rest of the bus can rely on it.
pub(super) fn checked(
    answer: types::Handled,
    batch: &Batch<'_>,
    plugin: &PluginInner,
) -> Result<PluginAnswer, CallError> {
    let terms = answer::Terms {
        events: batch.events.len(),
        content_type: batch.content_type,
        ports: &plugin.kind.ports,
        port_order: &plugin.port_order,
        output_bytes: plugin.kind.limits.output_bytes,
    };
    terms.check(answer)
}

/// The error of a failed call.
pub(super) fn failed(error: &wasmtime::Error, state: &StoreData, batch: &Batch<'_>, limits: &Limits) -> CallError {
    let Explanation { kind, message } = explain(error, state, limits.time);
    let event = match kind {
        // The sum of the answers of a batch, unless the batch is one event.
        CallErrorKind::OutputTooLarge | CallErrorKind::Protocol if batch.events.len() > 1 && has_returned(error) => {
            None
        }
        // No single event is to blame: each may fit alone.
        CallErrorKind::State => None,
        CallErrorKind::OutputTooLarge if !has_returned(error) => None,
        _ => state.event(),
    };
    let message = match kind {
        CallErrorKind::OutputTooLarge if has_returned(error) => {
            let most = crossing_bytes(limits);
            format!("{message}; a call may return {most} bytes")
        }
        _ => message,
    };
    CallError { event, kind, message, backtrace: words::backtrace(error) }
}

/// Whether the plugin had already returned: then reading its answer failed, or a resource in it.
pub(super) fn has_returned(error: &wasmtime::Error) -> bool {
    !error.is::<Trap>() && !error.is::<StopCause>() && !error.is::<WasmBacktrace>()
}

/// The cause of a failure, as a message.
pub(super) struct Explanation {
    pub(super) kind: CallErrorKind,
    pub(super) message: String,
}

/// Determines the cause from wasmtime's error and from the instance's state.
pub(super) fn explain(error: &wasmtime::Error, state: &StoreData, time: Duration) -> Explanation {
    let (kind, what) = if let Some(stop) = error.downcast_ref::<StopCause>() {
        match stop {
            StopCause::Timeout => (CallErrorKind::Timeout, format!("it ran longer than its limit of {time:?}")),
            StopCause::Handles(_) => (CallErrorKind::Handles, stop.to_string()),
            StopCause::Protocol(_) | StopCause::Random(_) => (CallErrorKind::Protocol, stop.to_string()),
            StopCause::StateOutside => (CallErrorKind::Protocol, stop.to_string()),
            StopCause::State(_) => (CallErrorKind::State, stop.to_string()),
            StopCause::StateOfCall | StopCause::Published => (CallErrorKind::OutputTooLarge, stop.to_string()),
            StopCause::Exit | StopCause::Files(_) | StopCause::Network(_) => (CallErrorKind::Trap, stop.to_string()),
        }
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match (trap, state.meter.refused()) {
            (Trap::StackOverflow, _) => (CallErrorKind::Stack, "its calls are nested too deeply for its stack".into()),
            (_, Some(refused)) => (CallErrorKind::Memory, refused.to_owned()),
            (Trap::UnreachableCodeReached, None) if state.log.panic().is_some() => {
                let panic = state.log.panic().unwrap_or_default();
                return Explanation { kind: CallErrorKind::Trap, message: format!("it {panic}") };
            }
            (Trap::UnreachableCodeReached, None) => (CallErrorKind::Trap, "it gave up (`unreachable`)".into()),
            (trap, None) => {
                let trap = trap.to_string();
                (CallErrorKind::Trap, format!("it trapped: {}", trap.trim_start_matches("wasm trap: ")))
            }
        }
    } else {
        let chain = words::error(error);
        if chain.contains(FUEL_EXHAUSTED) {
            (CallErrorKind::OutputTooLarge, "it handed over more data at once than is allowed".into())
        } else if let Some(refused) = state.meter.refused() {
            (CallErrorKind::Memory, refused.to_owned())
        } else if chain.contains(HANDLES_EXHAUSTED) {
            (CallErrorKind::Handles, "it has as many handles open as is allowed".into())
        } else {
            (CallErrorKind::Protocol, format!("it broke the contract: {chain}"))
        }
    };
    let said = state.log.last_words();
    let message = if said.is_empty() { what } else { format!("{what}; it said: {said}") };
    Explanation { kind, message }
}

/// wasmtime's message when too much was copied at once. The error has no public type; a test verifies the text.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// wasmtime's message when a component has too many handles.
const HANDLES_EXHAUSTED: &str = "store handle limit exceeded";
