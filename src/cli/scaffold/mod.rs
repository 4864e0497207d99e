//! What `wattle new` writes: a plugin folder that needs nothing but its language's compiler, because the contract and
//! the SDK come out of this binary.

/// A file of a new folder: its path in it, and its text. `{{name}}` in the text stands for the plugin's name.
pub(super) type File = (&'static str, &'static str);

/// The folder for a plugin in Rust. The SDK and the contract are those of this release, and so are the versions in the
/// lock file: cargo drops what of it is not needed.
pub(super) const RUST: [File; 21] = [
    ("Cargo.toml", include_str!("rust/Cargo.toml.in")),
    ("Cargo.lock", include_str!("../../../plugins/Cargo.lock")),
    (".gitignore", "/target/\n"),
    ("README.md", include_str!("rust/README.md")),
    ("src/lib.rs", include_str!("rust/lib.rs")),
    ("wattle-plugin/Cargo.toml", include_str!("../../../plugins/sdk-rust/Cargo.toml")),
    ("wattle-plugin/src/lib.rs", include_str!("../../../plugins/sdk-rust/src/lib.rs")),
    ("wattle-plugin/src/config.rs", include_str!("../../../plugins/sdk-rust/src/config.rs")),
    (RUST_CONTRACT, include_str!("../../../plugins/sdk-rust/src/contract.rs")),
    ("wattle-plugin/src/event.rs", include_str!("../../../plugins/sdk-rust/src/event.rs")),
    ("wattle-plugin/src/failure.rs", include_str!("../../../plugins/sdk-rust/src/failure.rs")),
    ("wattle-plugin/src/log.rs", include_str!("../../../plugins/sdk-rust/src/log.rs")),
    ("wattle-plugin/src/output.rs", include_str!("../../../plugins/sdk-rust/src/output.rs")),
    ("wattle-plugin/src/state.rs", include_str!("../../../plugins/sdk-rust/src/state.rs")),
    ("wattle-plugin/LICENSE", include_str!("../../../LICENSE")),
    ("wattle-plugin/wit/README.md", include_str!("../../../wit/README.md")),
    ("wattle-plugin/wit/plugin.wit", include_str!("../../../wit/plugin.wit")),
    ("wattle-plugin/wit/deps/wasi-config.wit", include_str!("../../../wit/deps/wasi-config.wit")),
    ("wattle-plugin/wit/deps/wasi-keyvalue.wit", include_str!("../../../wit/deps/wasi-keyvalue.wit")),
    ("wattle-plugin/wit/deps/wasi-logging.wit", include_str!("../../../wit/deps/wasi-logging.wit")),
    ("topology.yaml", include_str!("rust/topology.yaml")),
];

/// The file that says where the contract is: beside the SDK in a new folder, at the top of the project here.
const RUST_CONTRACT: &str = "wattle-plugin/src/contract.rs";
const CONTRACT_HERE: &str = "path: \"../../wit\"";
const CONTRACT_THERE: &str = "path: \"wit\"";

/// The text of a file, for a plugin of this name.
pub(super) fn text((path, text): File, name: &str) -> String {
    let text = text.replace("{{name}}", name);
    if path == RUST_CONTRACT { text.replace(CONTRACT_HERE, CONTRACT_THERE) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_says_where_the_contract_is_in_the_one_place_that_is_changed() {
        let contract = RUST.iter().find(|(path, _)| *path == RUST_CONTRACT).unwrap();
        assert_eq!(contract.1.matches(CONTRACT_HERE).count(), 1);
        assert_eq!(text(*contract, "x").matches(CONTRACT_THERE).count(), 1);
    }
}
