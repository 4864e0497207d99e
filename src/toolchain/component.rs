//! Core modules to components.
//!
//! Compilers of C, C++, Zig and Go make a core module that calls WASI preview 1. Here it gets the description of the
//! plugin's world, where its bindings have not brought one, and our adapter (`sdk/adapter`) from preview 1 to the part
//! of WASI 0.2 that the bus has. The same module gives the same component, byte for byte.

use std::fmt::Display;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::Resolve;

/// What compilers call WASI preview 1.
const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// The adapter; a test makes it anew of its text.
const ADAPTER: &[u8] = include_bytes!("../../sdk/adapter/adapter.wasm");
/// The world of plugins in the contract.
const WORLD: &str = "plugin";

/// The contract of this release, by path.
pub(super) const CONTRACT: [(&str, &str); 4] = [
    ("plugin.wit", include_str!("../../wit/plugin.wit")),
    ("deps/wasi-config.wit", include_str!("../../wit/deps/wasi-config.wit")),
    ("deps/wasi-keyvalue.wit", include_str!("../../wit/deps/wasi-keyvalue.wit")),
    ("deps/wasi-logging.wit", include_str!("../../wit/deps/wasi-logging.wit")),
];

/// The component of a core module, whose world is in a folder of WIT.
///
/// # Errors
/// Why it fits no plugin, in words.
pub(super) fn encode(mut core: Vec<u8>, wit: &Path) -> Result<Vec<u8>, String> {
    // Without a description of a world, nothing is left when it is taken out.
    if metadata::decode(&core).map_err(words)?.0.is_none() {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit).map_err(words)?;
        let world = resolve.select_world(&[package], Some(WORLD)).map_err(words)?;
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).map_err(words)?;
    }
    let encoder = ComponentEncoder::default().validate(true).module(&core).map_err(words)?;
    encoder.adapter(PREVIEW_1, ADAPTER).map_err(words)?.encode().map_err(words)
}

fn words(error: impl Display) -> String {
    format!("{error:#}")
}

/// Appends a custom section to a component or module.
pub(super) fn append_section(wasm: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut section = Vec::new();
    number(name.len(), &mut section);
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(content);
    wasm.push(0);
    number(section.len(), wasm);
    wasm.extend_from_slice(&section);
}

/// A number as LEB128.
fn number(mut value: usize, to: &mut Vec<u8>) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            to.push(byte);
            return;
        }
        to.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::config_schema;

    /// What the adapter imports, which is not all in the contract.
    fn adapter() -> Vec<u8> {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/adapter");
        let mut wasm = wat::parse_file(sdk.join("adapter.wat")).unwrap();
        let mut resolve = Resolve::default();
        for name in ["io", "clocks", "random", "cli"] {
            resolve.push_file(sdk.join(format!("../../wit/deps/wasi-{name}.wit"))).unwrap();
        }
        let package = resolve.push_file(sdk.join("world.wit")).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
        wasm
    }

    #[test]
    fn the_adapter_is_that_of_its_text() {
        let wasm = adapter();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/adapter/adapter.wasm"), &wasm).unwrap();
            return;
        }
        assert!(wasm == ADAPTER, "sdk/adapter/adapter.wasm is not current: run this test with UPDATE_EXPECT=1");
    }

    #[test]
    fn the_adapter_takes_no_memory() {
        // Go's runtime takes all by which memory has grown for its heap.
        let text = include_str!("../../sdk/adapter/adapter.wat");
        assert!(!text.contains("memory.grow") && !text.contains("(data"), "{text}");
    }

    #[test]
    fn a_section_is_read_again_however_long_it_is() {
        for bytes in [0, 1, 107, 108, 20_000] {
            let schema = " ".repeat(bytes);
            let mut wasm = wat::parse_str("(component)").unwrap();
            append_section(&mut wasm, "wattle:config-schema", schema.as_bytes());
            append_section(&mut wasm, "other", b"more");
            assert_eq!(config_schema(&wasm), Ok(Some(schema.as_str())));
        }
    }

    #[test]
    fn a_module_of_another_world_is_refused_with_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in CONTRACT {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let error =
            encode(wat::parse_str("(module (memory (export \"memory\") 1))").unwrap(), folder.path()).unwrap_err();
        assert!(error.contains("wattle:plugin/handler"), "{error}");
    }
}
