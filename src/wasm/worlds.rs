//! What a component is made for, by the names of its exports and imports.
//!
//! Promises: a component for another world, or for another version of this one, is told which, and what would make it
//! fit. Relies on names alone, so it answers before anything is compiled. Must not know: types of functions.

use std::fmt::Write as _;

use super::words;

/// The contract of this host.
pub(super) const HANDLER: &str = "wattle:plugin/handler";
pub(super) const CONTRACT_VERSION: &str = "0.1.0";

/// The other world of this host.
pub(super) const MESSAGING_HANDLER: &str = "wasmcloud:messaging/handler";
pub(super) const MESSAGING_CONSUMER: &str = "wasmcloud:messaging/consumer";
pub(super) const MESSAGING_VERSION: &str = "0.2.0";

/// The version of WASI.
const WASI: &str = "0.2.12";
/// The version of those parts of WASI 0.3 that are synchronous, and have the shape of those of 0.2.
const WASI_0_3: &str = "0.3.0";

/// Exports of other worlds: the interface, what a component with it is, and what to do.
const OTHER_WORLDS: [(&str, &str); 7] = [
    (
        "wasi:cli/run",
        "it is a program with a `main`. Make it a library that exports the handler (in Rust \
         `crate-type = [\"cdylib\"]` and the macro `plugin!` of the SDK). `wattle new` writes one that builds",
    ),
    ("wasi:http/incoming-handler", HTTP),
    ("wasi:http/handler", HTTP),
    ("wasi:messaging/incoming-handler", MESSAGING),
    ("wasi:messaging/messaging-guest", MESSAGING),
    (
        "wasmcloud:messaging/handler",
        "of `wasmcloud:messaging` this host has version 0.2.0. Build it for that one, or for `wattle:plugin/plugin` \
         (`wattle new` writes a plugin to start from)",
    ),
    (
        "fermyon:spin/inbound-redis",
        "it is made for the Redis trigger of Spin. Build it for `wattle:plugin/plugin`: a handler gets the message as \
         the data of an event. `wattle new` writes a plugin to start from",
    ),
];

const HTTP: &str = "it answers HTTP requests (the world `wasi:http/proxy`), and the bus makes none. Move what it does \
    with the body of a request into a handler, which gets it as the data of an event (`wattle new` writes a plugin to \
    start from), or run it in a host for HTTP, such as `wasmtime serve`";

const MESSAGING: &str = "it is made for `wasi:messaging`, a draft that this host does not have. Build it for \
    `wasmcloud:messaging@0.2.0`, where a handler gets and publishes messages in the same way, or for \
    `wattle:plugin/plugin` (`wattle new` writes a plugin to start from)";

/// Why exports are not those of a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExportFault {
    /// The handler has this version.
    Version(String),
    /// There is no handler, in words.
    NoHandler(String),
}

/// The world that a component was made for, by its exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    /// The contract of this host.
    Plugin,
    /// `wasmcloud:messaging@0.2.0`, which the host adapts.
    Messaging,
}

/// The world of a component, if it has one of this host.
pub(super) fn check_exports(exports: &[&str]) -> Result<World, ExportFault> {
    let versions = versions_of(exports, HANDLER);
    if versions.iter().any(|version| compatible(version, CONTRACT_VERSION)) {
        return Ok(World::Plugin);
    }
    if versions.is_empty() && versions_of(exports, MESSAGING_HANDLER).iter().any(|of| compatible(of, MESSAGING_VERSION))
    {
        return Ok(World::Messaging);
    }
    if let Some(found) = versions.first() {
        return Err(ExportFault::Version(words::name(found)));
    }
    let mut message = format!("the component does not export `{HANDLER}@{CONTRACT_VERSION}`, so it is no plugin; ");
    let other = |(interface, what): &(&str, &'static str)| {
        Some((exports.iter().find(|name| parts(name).0 == *interface)?, *what))
    };
    if let Some((export, what)) = OTHER_WORLDS.iter().find_map(other) {
        let _ = write!(message, "it exports `{}`: {what}", words::name(export));
    } else if exports.is_empty() {
        message.push_str("it exports nothing. With the Rust SDK, the macro `plugin!` exports the handler");
    } else {
        let _ = write!(
            message,
            "it exports {}. It should implement the world `wattle:plugin/plugin`",
            words::listed(exports)
        );
    }
    Err(ExportFault::NoHandler(message))
}

/// The versions of an interface among exports.
fn versions_of<'a>(exports: &[&'a str], interface: &str) -> Vec<&'a str> {
    exports.iter().copied().map(parts).filter(|(name, _)| *name == interface).map(|(_, version)| version).collect()
}

/// The granted imports: an interface, and its implemented version.
const GRANTED: [(&str, &str); 40] = [
    ("wattle:plugin/types", CONTRACT_VERSION),
    ("wattle:plugin/context", CONTRACT_VERSION),
    ("wasi:logging/logging", "0.1.0-draft"),
    ("wasi:config/store", "0.2.0-rc.1"),
    ("wasi:keyvalue/store", "0.2.0-draft2"),
    ("wasi:keyvalue/atomics", "0.2.0-draft2"),
    ("wasi:keyvalue/batch", "0.2.0-draft2"),
    ("wasi:cli/environment", WASI),
    ("wasi:cli/exit", WASI),
    ("wasi:cli/stdin", WASI),
    ("wasi:cli/stdout", WASI),
    ("wasi:cli/stderr", WASI),
    ("wasi:cli/terminal-input", WASI),
    ("wasi:cli/terminal-output", WASI),
    ("wasi:cli/terminal-stdin", WASI),
    ("wasi:cli/terminal-stdout", WASI),
    ("wasi:cli/terminal-stderr", WASI),
    ("wasi:clocks/monotonic-clock", WASI),
    ("wasi:clocks/wall-clock", WASI),
    ("wasi:filesystem/types", WASI),
    ("wasi:filesystem/preopens", WASI),
    ("wasi:io/error", WASI),
    ("wasi:io/poll", WASI),
    ("wasi:io/streams", WASI),
    ("wasi:random/random", WASI),
    ("wasi:random/insecure", WASI),
    ("wasi:random/insecure-seed", WASI),
    ("wasi:sockets/instance-network", WASI),
    ("wasi:sockets/ip-name-lookup", WASI),
    ("wasi:sockets/network", WASI),
    ("wasi:sockets/tcp", WASI),
    ("wasi:sockets/tcp-create-socket", WASI),
    ("wasi:sockets/udp", WASI),
    ("wasi:sockets/udp-create-socket", WASI),
    // Their synchronous functions, in the shape of WASI 0.3.
    ("wasi:clocks/types", WASI_0_3),
    ("wasi:clocks/monotonic-clock", WASI_0_3),
    ("wasi:clocks/system-clock", WASI_0_3),
    ("wasi:random/random", WASI_0_3),
    ("wasi:random/insecure", WASI_0_3),
    ("wasi:random/insecure-seed", WASI_0_3),
];

/// Imports that only components of that world are granted.
const GRANTED_TO_MESSAGING: [(&str, &str); 2] =
    [("wasmcloud:messaging/types", MESSAGING_VERSION), (MESSAGING_CONSUMER, MESSAGING_VERSION)];

/// Checks that all imports are granted; the error names those that are not.
pub(super) fn check_imports(imports: &[&str], world: World) -> Result<(), String> {
    let refused = imports.iter().filter_map(|import| {
        let why = refused(import, world)?;
        Some(format!("`{}`: {why}", words::name(import)))
    });
    let mut refused = refused.peekable();
    if refused.peek().is_none() {
        return Ok(());
    }
    let refused = words::first(refused, "; ");
    Err(format!("the plugin imports what it is not granted: {refused}"))
}

/// Why an import is not granted, if it is not.
fn refused(import: &str, world: World) -> Option<String> {
    let (interface, version) = parts(import);
    let further = if world == World::Messaging { &GRANTED_TO_MESSAGING[..] } else { &[] };
    let granted = GRANTED.iter().chain(further).filter(|(granted, _)| *granted == interface);
    let mut granted = granted.map(|(_, granted)| *granted).peekable();
    let is_wasi = interface.starts_with("wasi:");
    match granted.peek().copied() {
        Some(_) if granted.any(|granted| compatible(version, granted)) => None,
        _ if is_wasi && version.starts_with("0.3.") => {
            Some(format!("it was made for WASI 0.3, and this host has {WASI}: build it with tools for WASI 0.2"))
        }
        Some(granted) => Some(format!("this host has {granted}, which does not fit it")),
        None => Some(why_not(interface).to_owned()),
    }
}

fn why_not(interface: &str) -> &'static str {
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    match package {
        "wasi:sockets" | "wasi:http" => {
            "plugins have no network; remove what opens connections, or do it in a program that reads the topic"
        }
        "wasi:keyvalue" => "of key-value state plugins have `store`, `atomics` and `batch`",
        "wasi:messaging" | "wasmcloud:messaging" => {
            "plugins of this contract send by returning outputs for their ports; components that export \
             `wasmcloud:messaging/handler@0.2.0` publish"
        }
        "wattle:plugin" => "the contract of this host does not have it; it comes with a later release",
        _ if !interface.contains('/') => "a plugin imports interfaces only",
        _ => "it is neither in the contract nor among what the runtimes of languages need",
    }
}

/// The name of an interface, and its version.
fn parts(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// Whether a component that wants `wanted` can use version `granted`: they must agree in the parts that are
/// incompatible between releases.
fn compatible(wanted: &str, granted: &str) -> bool {
    if wanted == granted {
        return true;
    }
    // A pre-release is compatible only with itself.
    if wanted.contains('-') || granted.contains('-') {
        return false;
    }
    let series = |version: &str| {
        let mut numbers = version.split('.').map(str::to_owned);
        let major = numbers.next()?;
        let minor = numbers.next()?;
        Some(if major == "0" { format!("0.{minor}") } else { major })
    };
    series(wanted).is_some_and(|wanted| Some(wanted) == series(granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_within_a_series_and_prereleases_only_themselves() {
        assert!(compatible("0.2.0", "0.2.12"));
        assert!(compatible("0.2.40", "0.2.12"));
        assert!(compatible("1.9.0", "1.2.0"));
        assert!(!compatible("0.3.0", "0.2.12"));
        assert!(!compatible("0.2.0-draft2", "0.2.0"));
        assert!(compatible("0.1.0-draft", "0.1.0-draft"));
    }
}
