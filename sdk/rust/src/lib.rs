//! Write a handler for the Wattle event bus: a function from one event to the events that follow from it.
//!
//! ```ignore
//! use serde::{Deserialize, Serialize};
//! use wattle_plugin::{Event, Failure, Output, plugin};
//!
//! plugin!(handle, ports: { GREETED = "greeted" });
//!
//! #[derive(Deserialize)]
//! struct Visit { name: String }
//!
//! #[derive(Serialize)]
//! struct Greeting { text: String }
//!
//! fn handle(event: Event) -> Result<Output, Failure> {
//!     let visit: Visit = event.json()?;
//!     GREETED.json(&Greeting { text: format!("Hello, {}!", visit.name) })
//! }
//! ```
//!
//! A handler is called for one event after the other and should depend on nothing else, but for what it keeps in
//! [`state`]: what it keeps in statics is a cache that may be gone at the next event. Time is the event's time, random
//! bytes follow from the event, and `println!` writes a log line. A panic loses the event's outputs and nothing else;
//! the bus goes on with the next one.
//!
//! Whatever ends in an output should come out in the same order every time: prefer `BTreeMap` to `HashMap`.

mod config;
pub mod contract;
mod event;
mod failure;
mod log;
mod output;
#[doc(hidden)]
pub mod schema;
pub mod state;

pub use config::{Setting, config, config_or, config_required, setting};
pub use event::Event;
pub use failure::{Failure, OrFail};
pub use log::{Level, log};
pub use output::{Output, Outputs, Port};

use contract::wattle::plugin::context;
use contract::wattle::plugin::types;

/// Makes a component of a handler: `plugin!(handle)`, or `plugin!(handle, ports: { ACCEPTED = "accepted", … })`.
///
/// The handler is a `fn(Event) -> Result<O, Failure>` where `O` is [`Output`], [`Outputs`] or `()`. For each port, a
/// constant of type [`Port`] is made, and the bus refuses a topology that does not connect exactly these.
#[macro_export]
macro_rules! plugin {
    ($handler:path) => { $crate::plugin!($handler, ports: {}); };
    ($handler:path, ports: { $($port:ident = $name:literal),* $(,)? }) => {
        // Numbers the ports in the order in which `describe` lists them. One more, since none is not allowed.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        #[repr(u32)]
        enum __WattlePort { $($port,)* __WattleEnd }
        $(
            #[doc = concat!("The port `", $name, "`.")]
            const $port: $crate::Port = $crate::Port::numbered(__WattlePort::$port as u32);
        )*

        struct __WattlePlugin;

        impl $crate::contract::exports::wattle::plugin::handler::Guest for __WattlePlugin {
            fn describe() -> Vec<String> {
                $crate::on_panic_log();
                vec![$(String::from($name)),*]
            }
            fn handle(
                info: $crate::contract::wattle::plugin::types::Batch,
                events: Vec<$crate::contract::wattle::plugin::types::Event>,
            ) -> $crate::contract::wattle::plugin::types::Handled {
                $crate::run(&info, &events, $handler)
            }
        }

        $crate::contract::export_component!(__WattlePlugin with_types_in $crate::contract);
    };
}

/// Declares the version of the state that the handler keeps: `state_version!(2)`. Without it the version is 0.
///
/// Raise it when a handler of the version before could not read what this one writes. When a reload goes from one
/// version of the state to another and the new handler fails, the bus does not go back by itself: it halts and asks.
#[macro_export]
macro_rules! state_version {
    ($version:literal) => {
        const _: () = {
            const NUMBER: u32 = $version;
            // Nothing that runs: a section of the component, which the bus reads beside the code.
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "wattle:state-version"))]
            #[used]
            static VERSION: [u8; $crate::digits(NUMBER)] = $crate::decimal(NUMBER);
        };
    };
}

/// How many digits a number has.
#[doc(hidden)]
pub const fn digits(number: u32) -> usize {
    match number.checked_ilog10() {
        Some(tens) => tens as usize + 1,
        None => 1,
    }
}

/// A number in decimal digits.
#[doc(hidden)]
pub const fn decimal<const DIGITS: usize>(mut number: u32) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    let mut at = DIGITS;
    while at > 0 {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

/// Runs a handler over a batch. The macro [`plugin!`] calls it; a plugin that implements `Guest` by hand may.
pub fn run<O: Into<Outputs>>(
    batch: &types::Batch,
    events: &[types::Event],
    handler: impl Fn(Event<'_>) -> Result<O, Failure>,
) -> types::Handled {
    on_panic_log();
    let mut outputs = Vec::with_capacity(events.len());
    for (index, event) in (0u32..).zip(events) {
        context::current(index);
        match handler(Event::new(batch, event)) {
            Ok(out) => outputs.extend(out.into().0.into_iter().map(|output| output.answering(index))),
            Err(failure) => return types::Handled { outputs, failed: Some(failure.of(index)) },
        }
    }
    types::Handled { outputs, failed: None }
}

/// Says in the log where a panic happened, as one line that the bus repeats in its own messages.
#[doc(hidden)]
pub fn on_panic_log() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let what = info.payload_as_str().unwrap_or("panic").lines().map(str::trim).collect::<Vec<_>>().join(" ");
            let line = match info.location() {
                Some(at) => format!("panicked at {}:{}:{}: {what}", at.file(), at.line(), at.column()),
                None => format!("panicked: {what}"),
            };
            contract::wasi::logging::logging::log(contract::wasi::logging::logging::Level::Critical, "panic", &line);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_decimal_digits() {
        assert_eq!((digits(0), &decimal::<1>(0)), (1, b"0"));
        assert_eq!((digits(1_000), &decimal::<4>(0x3e8)), (4, b"1000"));
        assert_eq!((digits(u32::MAX), &decimal::<10>(u32::MAX)), (10, b"4294967295"));
    }
}
