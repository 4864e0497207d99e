//! Why a component is refused, with advice for its author.
//!
//! ```text
//! bytes ─▶ is it a component? ─▶ names of exports, imports ─▶ compile ─▶ types ─▶ start ─▶ ports
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Type};

use super::cache::Cache;
use super::engine::{CORE_INSTANCES_PER_COMPONENT, MEMORIES_PER_COMPONENT, TABLES_PER_COMPONENT};
use super::entry::EntryPre;
use super::limits::{
    FUNCTION_BYTES_MAX, LARGE_FUNCTION_BYTES, LARGE_FUNCTIONS_BYTES_MAX, PORT_NAME_BYTES_MAX, PORTS_MAX,
};
use super::messaging;
use super::sections;
use super::store_data::StoreData;
use super::words;
use super::worlds::{self, CONTRACT_VERSION, ExportFault, HANDLER, World};
use crate::api::Digest;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::model::units::show_size;

/// Why a plugin was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The bytes are not WebAssembly.
    #[error("this is not a WebAssembly file: it does not begin with \"\\0asm\"")]
    NotWasm, // no details, because the bus reads files that clients name
    /// A core module instead of a component.
    #[error(
        "this is a core WebAssembly module, and a plugin is a component: build it with `wattle build`, which makes \
         one, or with the tools of its language: `--target wasm32-wasip2` (Rust), `wasm-tools component new` with an \
         adapter (C, Go, Zig)"
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
    /// It is composed of too many parts.
    #[error(
        "the component has {found} {parts}, and at most {max} are accepted: compose fewer components into it. Stubs of \
         WASI are not needed: the bus has files, sockets, clocks and random numbers of its own for plugins (Python: \
         `componentize-py` without `--stub-wasi`)"
    )]
    TooManyParts {
        /// What it has too many of, in the plural.
        parts: &'static str,
        /// How many there are.
        found: u64,
        max: u32,
    },
    /// It needs the asynchronous component model.
    #[error(
        "the component uses the asynchronous component model (WASI 0.3), which plugins do not: declare its exports \
         without `async` and build for WASI 0.2 (JavaScript: `componentize-qjs --sync`). ({message})"
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
) -> Result<EntryPre, RegisterError> {
    check_kind(wasm)?;
    // By names, so that what is made for something else is told so, whatever it needs of the compiler and at once.
    if let Some(names) = sections::outer_names(wasm) {
        check_names(&names.exports, &names.imports)?;
    }
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
    let ty = component.component_type();
    let exports = ty.exports(engine).map(|(name, _)| name).collect::<Vec<_>>();
    let world = check_names(&exports, &ty.imports(engine).map(|(name, _)| name).collect::<Vec<_>>())?;
    if messaging::has_request(engine, &component) {
        let message = "the component imports the function `request` of `wasmcloud:messaging/consumer`, and nothing \
                       answers on this bus: use `publish`, and let the answer come as an event of its own, to a \
                       subscriber of the topic that it is sent to";
        return Err(RegisterError::Imports { message: message.to_owned() });
    }
    let pre = linker.instantiate_pre(&component).map_err(|error| signature(&error))?;
    EntryPre::new(pre, world).map_err(|error| signature(&error))
}

/// The world of a component, by names, and whether its imports are granted.
fn check_names(exports: &[&str], imports: &[&str]) -> Result<World, RegisterError> {
    let world = worlds::check_exports(exports).map_err(|fault| match fault {
        ExportFault::Version(found) => RegisterError::ContractVersion { found },
        ExportFault::NoHandler(message) => RegisterError::NoHandler { message },
    })?;
    worlds::check_imports(imports, world).map_err(|message| RegisterError::Imports { message })?;
    Ok(world)
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
    if let Some(error) = too_many_parts(&message) {
        return error;
    }
    if message.contains("async") { RegisterError::Async { message } } else { RegisterError::Invalid { message } }
}

/// A maximum of the sandbox, by wasmtime's message: the error has no public type; a test verifies the texts.
fn too_many_parts(message: &str) -> Option<RegisterError> {
    let (_, rest) = message.split_once("The component transitively contains ")?;
    let (found, rest) = rest.split_once(' ')?;
    let maxima = [
        ("core module instances", CORE_INSTANCES_PER_COMPONENT),
        ("Wasm linear memories", MEMORIES_PER_COMPONENT),
        ("tables", TABLES_PER_COMPONENT),
    ];
    let (parts, max) = maxima.into_iter().find(|(parts, _)| rest.starts_with(parts))?;
    Some(RegisterError::TooManyParts { parts, found: found.parse().ok()?, max })
}

fn signature(error: &wasmtime::Error) -> RegisterError {
    RegisterError::Signature { message: words::error(error) }
}

/// A function of the handler has another type: finds out which, because wasmtime does not report it.
pub(super) fn misfit(engine: &Engine, component: &Component, why: &str) -> RegisterError {
    let ty = component.component_type();
    let is_plugin = ty.exports(engine).any(|(name, _)| name.starts_with(HANDLER));
    if !is_plugin {
        let message = format!("the function `handle-message` of `wasmcloud:messaging/handler` has another type: {why}");
        return RegisterError::Signature { message };
    }
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
