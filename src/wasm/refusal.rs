//! Why a component is refused, with advice for its author.
//!
//! ```text
//! bytes ─▶ is it a component? ─▶ compile ─▶ exports? ─▶ imports? ─▶ types ─▶ start ─▶ ports
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Type};

use super::cache::Cache;
use super::contract::SandboxPre;
use super::limits::{
    FUNCTION_BYTES_MAX, LARGE_FUNCTION_BYTES, LARGE_FUNCTIONS_BYTES_MAX, PORT_NAME_BYTES_MAX, PORTS_MAX,
};
use super::sections;
use super::store_data::StoreData;
use super::words;
use crate::api::Digest;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::model::units::show_size;

/// The contract of this host.
const HANDLER: &str = "wattle:plugin/handler";
const CONTRACT_VERSION: &str = "0.1.0";

/// Why a plugin was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The bytes are not WebAssembly.
    #[error("this is not a WebAssembly file: it does not begin with \"\\0asm\"")]
    NotWasm, // no details, because the bus reads files that clients name
    /// A core module instead of a component.
    #[error(
        "this is a core WebAssembly module, and a plugin is a component: build with `--target wasm32-wasip2` (Rust), \
         or make a component of it with `wasm-tools component new`"
    )]
    CoreModule,
    /// The file is too large.
    #[error(
        "the component has {bytes} bytes, and at most {COMPONENT_BYTES_MAX} are accepted: build it in release mode and \
         strip debug information"
    )]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
    },
    /// One of its functions is too large.
    #[error(
        "a function of the component has {bytes} bytes, and at most {FUNCTION_BYTES_MAX} are accepted, since compiling \
         it would take too long: split what generates it, or keep large tables as data"
    )]
    LargeFunction {
        /// Its size in bytes.
        bytes: usize,
    },
    /// Its large functions are too many.
    #[error(
        "the large functions of the component ({LARGE_FUNCTION_BYTES} bytes or more) have {bytes} bytes together, and \
         at most \
         {LARGE_FUNCTIONS_BYTES_MAX} are accepted, since compiling them would take too long: split what generates \
         them, or \
         keep large tables as data"
    )]
    LargeFunctions {
        /// Their size in bytes.
        bytes: usize,
    },
    /// Its memory limit could never be met.
    #[error(
        "its memory limit of {} is more than all plugins of the bus may use together: lower `limits.memory`, or start \
         the bus with a larger `--plugin-memory`",
        show_size(*memory_bytes)
    )]
    TooMuchMemory {
        /// The limit in bytes.
        memory_bytes: u64,
    },
    /// It does not compile.
    #[error("this is not a valid component for this host: {message}")]
    Invalid {
        /// The error and its place.
        message: String,
    },
    /// It needs the asynchronous component model.
    #[error(
        "the component uses the asynchronous component model (WASI 0.3), which plugins do not: declare its exports \
         without `async` and build for WASI 0.2. ({message})"
    )]
    Async {
        /// The part that needs it.
        message: String,
    },
    /// The version of its state is malformed.
    #[error("the section `wattle:state-version` of the component does not say a version: {message}")]
    StateVersion { message: String },
    /// It does not export the handler.
    #[error("{message}")]
    NoHandler {
        /// Its exports, and the required one.
        message: String,
    },
    /// It was built for a contract that this host does not support.
    #[error(
        "the plugin was built for {HANDLER}@{found}, and this host speaks {CONTRACT_VERSION}: build it with a matching \
         SDK"
    )]
    ContractVersion {
        /// The version that it was built for.
        found: String,
    },
    /// It has imports that are not granted.
    #[error("{message}")]
    Imports {
        /// The imports, and why they are not granted.
        message: String,
    },
    /// An import or export has another type than in the contract.
    #[error(
        "the plugin does not fit the contract {CONTRACT_VERSION}: {message}. Build it with the `wit/` of this release"
    )]
    Signature { message: String },
    /// It failed when it was started.
    #[error("the plugin did not start: {message}")]
    DoesNotStart {
        /// The error, and the plugin's last output.
        message: String,
    },
    /// It failed when it was asked for its ports.
    #[error("the plugin failed when it was asked for its ports (`describe`): {message}")]
    Describe {
        /// The error, and the plugin's last output.
        message: String,
    },
    /// Its ports are not those that the topology connects.
    #[error("{message}")]
    Ports {
        /// The ports on both sides.
        message: String,
    },
}

/// All checks that do not run the component.
pub(super) fn examine(
    engine: &Engine,
    linker: &Linker<StoreData>,
    cache: Option<&Cache>,
    wasm: &[u8],
    digest: &Digest,
) -> Result<SandboxPre<StoreData>, RegisterError> {
    check_kind(wasm)?;
    let (bytes, of_large) = sections::function_bytes(wasm, LARGE_FUNCTION_BYTES);
    if bytes > FUNCTION_BYTES_MAX {
        return Err(RegisterError::LargeFunction { bytes });
    }
    if of_large > LARGE_FUNCTIONS_BYTES_MAX {
        return Err(RegisterError::LargeFunctions { bytes: of_large });
    }
    let component = match cache.and_then(|cache| cache.load(engine, digest)) {
        Some(component) => component,
        None => {
            let component = Component::from_binary(engine, wasm).map_err(|error| invalid(&error))?;
            if let Some(cache) = cache {
                cache.store(&component, digest);
            }
            component
        }
    };
    check_exports(engine, &component)?;
    check_imports(engine, &component)?;
    let pre = linker.instantiate_pre(&component).map_err(|error| signature(&error))?;
    SandboxPre::new(pre).map_err(|error| signature(&error))
}

/// The first eight bytes distinguish components, core modules and other files.
fn check_kind(wasm: &[u8]) -> Result<(), RegisterError> {
    let bytes = wasm.len() as u64;
    if bytes > COMPONENT_BYTES_MAX {
        return Err(RegisterError::TooLarge { bytes });
    }
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(RegisterError::CoreModule),
        _ => Err(RegisterError::NotWasm),
    }
}

fn invalid(error: &wasmtime::Error) -> RegisterError {
    let message = words::error(error);
    if message.contains("async") { RegisterError::Async { message } } else { RegisterError::Invalid { message } }
}

fn signature(error: &wasmtime::Error) -> RegisterError {
    RegisterError::Signature { message: words::error(error) }
}

/// A function of the handler has another type: finds out which, because wasmtime does not report it.
pub(super) fn misfit(engine: &Engine, component: &Component, why: &str) -> RegisterError {
    let ty = component.component_type();
    let handler = ty.exports(engine).find_map(|(name, export)| match export.ty {
        ComponentItem::ComponentInstance(handler) if name.starts_with(HANDLER) => Some(handler),
        _ => None,
    });
    let describe = handler.and_then(|handler| match handler.get_export(engine, "describe")?.ty {
        ComponentItem::ComponentFunc(describe) => Some(describe),
        _ => None,
    });
    let fits = describe.is_some_and(|describe| {
        let results = describe.results().collect::<Vec<_>>();
        let names = matches!(results.as_slice(), [Type::List(names)] if names.ty() == Type::String);
        names && describe.params().len() == 0
    });
    let function = if fits { "handle" } else { "describe" };
    RegisterError::Signature { message: format!("the handler's function `{function}` has another type: {why}") }
}

fn check_exports(engine: &Engine, component: &Component) -> Result<(), RegisterError> {
    let ty = component.component_type();
    let exports = ty.exports(engine).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let versions = exports.iter().filter_map(|name| {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        (interface == HANDLER).then_some(version)
    });
    let versions = versions.collect::<Vec<_>>();
    if versions.iter().any(|version| compatible(version, CONTRACT_VERSION)) {
        return Ok(());
    }
    if let Some(found) = versions.first() {
        return Err(RegisterError::ContractVersion { found: words::name(found) });
    }
    let mut message = format!("the component does not export `{HANDLER}@{CONTRACT_VERSION}`, so it is no plugin; ");
    if exports.iter().any(|name| name.starts_with("wasi:cli/run@")) {
        message.push_str(
            "it is a program with a `main`. Make it a library: `crate-type = [\"cdylib\"]` and the macro `plugin!` of \
             the SDK. `wattle new` writes one that builds",
        );
    } else if exports.is_empty() {
        message.push_str("it exports nothing. With the Rust SDK, the macro `plugin!` exports the handler");
    } else {
        let _ = write!(
            message,
            "it exports {}. It should implement the world `wattle:plugin/plugin`",
            words::listed(&exports)
        );
    }
    Err(RegisterError::NoHandler { message })
}

/// The granted imports: an interface, and its implemented version.
const GRANTED: [(&str, &str); 27] = [
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
];

const WASI: &str = "0.2.12";

fn check_imports(engine: &Engine, component: &Component) -> Result<(), RegisterError> {
    let ty = component.component_type();
    let refused = ty.imports(engine).filter_map(|(import, _)| {
        let (interface, version) = import.split_once('@').unwrap_or((import, ""));
        let why = match GRANTED.iter().find(|(granted, _)| *granted == interface) {
            Some((_, granted)) if compatible(version, granted) => return None,
            Some((_, granted)) => format!("this host has {granted}, which does not fit it"),
            None => why_not(interface).to_owned(),
        };
        Some(format!("`{}`: {why}", words::name(import)))
    });
    let mut refused = refused.peekable();
    if refused.peek().is_none() {
        return Ok(());
    }
    let refused = words::first(refused, "; ");
    Err(RegisterError::Imports { message: format!("the plugin imports what it is not granted: {refused}") })
}

fn why_not(interface: &str) -> &'static str {
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    match package {
        "wasi:sockets" | "wasi:http" => {
            "plugins have no network; remove what opens connections, or do it in a subscriber with `push`"
        }
        "wasi:keyvalue" => "of key-value state plugins have `store`, `atomics` and `batch`",
        "wasi:messaging" | "wasmcloud:messaging" => "plugins send by returning outputs for their ports",
        "wattle:plugin" => "the contract of this host does not have it; it comes with a later release",
        _ if !interface.contains('/') => "a plugin imports interfaces only",
        _ => "it is neither in the contract nor among what the runtimes of languages need",
    }
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

/// Ports in the plugin's order, and the index of each in the topology's order.
type Ports = (Arc<[String]>, Vec<u32>);

/// Matches the ports that a plugin describes, which have been checked, with those that the topology connects. The
/// plugin's order counts, if it has one.
pub(super) fn matched(described: Vec<String>, connected: &Arc<[String]>) -> Result<Ports, RegisterError> {
    if described.is_empty() {
        return Ok((Arc::clone(connected), (0..).zip(connected.iter()).map(|(place, _)| place).collect()));
    }
    let places: HashMap<&str, u32> = connected.iter().map(String::as_str).zip(0..).collect();
    let names: HashSet<&str> = described.iter().map(String::as_str).collect();
    let place = |port: &String| places.get(port.as_str()).copied();
    let unconnected = described.iter().filter(|port| place(port).is_none()).collect::<Vec<_>>();
    let unknown = connected.iter().filter(|port| !names.contains(port.as_str())).collect::<Vec<_>>();
    let problem = if !unconnected.is_empty() {
        format!("the topology does not connect {}: add it to this subscriber's `to:`", words::listed(&unconnected))
    } else if !unknown.is_empty() {
        format!("the topology connects {}, which the plugin does not have", words::listed(&unknown))
    } else {
        let order = described.iter().filter_map(place).collect();
        return Ok((described.into(), order));
    };
    let message = format!(
        "{problem}. The plugin's ports: {}; the topology's: {}",
        words::listed(&described),
        words::listed(connected)
    );
    Err(RegisterError::Ports { message })
}

/// Checks the described ports alone, before any use.
pub(super) fn check_ports(described: &[String]) -> Result<(), RegisterError> {
    let refused = |message: String| Err(RegisterError::Ports { message });
    if described.len() > PORTS_MAX {
        return refused(format!(
            "the plugin describes {} ports, and at most {PORTS_MAX} are accepted",
            described.len()
        ));
    }
    let is_name = |port: &str| {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
        !port.is_empty() && port.len() <= PORT_NAME_BYTES_MAX && port.bytes().all(allowed)
    };
    if let Some(port) = described.iter().find(|port| !is_name(port)) {
        let port = words::name(port);
        return refused(format!("the plugin describes a port `{port}`, which no topology can name"));
    }
    let mut seen = HashSet::new();
    match described.iter().find(|port| !seen.insert(port.as_str())) {
        Some(port) => refused(format!("the plugin describes the port `{port}` twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn versions_fit_within_a_series_and_prereleases_only_themselves() {
        assert!(compatible("0.2.0", "0.2.12"));
        assert!(compatible("0.2.40", "0.2.12"));
        assert!(compatible("1.9.0", "1.2.0"));
        assert!(!compatible("0.3.0", "0.2.12"));
        assert!(!compatible("0.2.0-draft2", "0.2.0"));
        assert!(compatible("0.1.0-draft", "0.1.0-draft"));
    }

    #[test]
    fn outputs_number_ports_as_the_plugin_does() {
        let connected: Arc<[String]> = names(&["refused", "accepted"]).into();
        let (ports, order) = matched(names(&["accepted", "refused"]), &connected).unwrap();
        assert_eq!((ports.to_vec(), order), (names(&["accepted", "refused"]), vec![1, 0]));
        let (ports, order) = matched(vec![], &connected).unwrap();
        assert_eq!((ports.to_vec(), order), (names(&["refused", "accepted"]), vec![0, 1]));
    }

    #[test]
    fn ports_that_do_not_match_are_listed_on_both_sides() {
        let connected: Arc<[String]> = names(&["accepted"]).into();
        assert_eq!(
            matched(names(&["accepted", "refused"]), &connected).unwrap_err().to_string(),
            "the topology does not connect `refused`: add it to this subscriber's `to:`. The plugin's ports: \
             `accepted`, `refused`; the topology's: `accepted`"
        );
        assert_eq!(
            matched(names(&["sent"]), &names(&["sent", "lost"]).into()).unwrap_err().to_string(),
            "the topology connects `lost`, which the plugin does not have. The plugin's ports: `sent`; the topology's: \
             `sent`, `lost`"
        );
    }

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        assert_eq!(check_kind(b"\0asm\x0d\0\x01\0"), Ok(()));
        assert_eq!(check_kind(b"\0asm\x01\0\0\0rest"), Err(RegisterError::CoreModule));
        assert_eq!(check_kind(b"(component)"), Err(RegisterError::NotWasm));
        assert_eq!(check_kind(b""), Err(RegisterError::NotWasm));
    }
}
