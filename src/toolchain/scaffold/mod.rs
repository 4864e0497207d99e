//! What `wattle new` writes: a plugin folder that needs nothing but its language's compiler, because the contract and
//! the SDK come out of this binary.

/// A file: its path in its folder, and its text. `{{name}}` in the text stands for the plugin's name, and `{{sdk}}` for
/// where the SDK is.
pub(super) type File = (&'static str, &'static str);

/// A plugin in Rust.
pub(super) const RUST: [File; 3] = [
    ("README.md", include_str!("../../../sdk/rust/template/README.md")),
    ("src/lib.rs", include_str!("../../../sdk/rust/template/lib.rs")),
    ("topology.yaml", include_str!("../../../sdk/rust/template/topology.yaml")),
];

pub(super) const MEMBER: File = ("Cargo.toml", include_str!("../../../sdk/rust/template/member.toml.in"));
/// How it is built, in the manifest of its workspace.
pub(super) const PROFILE: &str = include_str!("../../../sdk/rust/template/profile.toml.in");
/// The manifest of a workspace.
pub(super) const WORKSPACE: &str = include_str!("../../../sdk/rust/template/workspace.toml.in");

/// Next to the manifest of a workspace. The versions in the lock file are those of this release: cargo drops what of it
/// is not needed.
pub(super) const BESIDE: [File; 2] =
    [("Cargo.lock", include_str!("../../../plugins/Cargo.lock")), (".gitignore", "/target/\n")];

/// The folder of the SDK.
pub(super) const SDK_FOLDER: &str = "wattle-plugin";

/// The SDK and the contract, as of this release.
pub(super) const SDK: [File; 16] = [
    ("Cargo.toml", include_str!("../../../sdk/rust/Cargo.toml")),
    ("src/lib.rs", include_str!("../../../sdk/rust/src/lib.rs")),
    ("src/config.rs", include_str!("../../../sdk/rust/src/config.rs")),
    (CONTRACT, include_str!("../../../sdk/rust/src/contract.rs")),
    ("src/event.rs", include_str!("../../../sdk/rust/src/event.rs")),
    ("src/failure.rs", include_str!("../../../sdk/rust/src/failure.rs")),
    ("src/log.rs", include_str!("../../../sdk/rust/src/log.rs")),
    ("src/output.rs", include_str!("../../../sdk/rust/src/output.rs")),
    ("src/schema.rs", include_str!("../../../sdk/rust/src/schema.rs")),
    ("src/state.rs", include_str!("../../../sdk/rust/src/state.rs")),
    ("LICENSE", include_str!("../../../LICENSE")),
    ("wit/README.md", include_str!("../../../wit/README.md")),
    ("wit/plugin.wit", include_str!("../../../wit/plugin.wit")),
    ("wit/deps/wasi-config.wit", include_str!("../../../wit/deps/wasi-config.wit")),
    ("wit/deps/wasi-keyvalue.wit", include_str!("../../../wit/deps/wasi-keyvalue.wit")),
    ("wit/deps/wasi-logging.wit", include_str!("../../../wit/deps/wasi-logging.wit")),
];

/// The file that says where the contract is: next to the SDK in a new folder, at the top of the project here.
const CONTRACT: &str = "src/contract.rs";
const CONTRACT_HERE: &str = "path: \"../../wit\"";
const CONTRACT_THERE: &str = "path: \"wit\"";

/// The workspace of the SDK in this project. In a new folder it is a member of the one around it.
const SDK_MANIFEST: &str = "Cargo.toml";
const WORKSPACE_HERE: &str = "# The guests are its workspace.\nworkspace = \"../../plugins\"\n";

/// A text for a plugin of this name, whose SDK is there.
pub(super) fn text(text: &str, name: &str, sdk: &str) -> String {
    text.replace("{{name}}", name).replace("{{sdk}}", sdk)
}

/// The text of a file of the SDK.
pub(super) fn sdk_text((path, text): File) -> String {
    match path {
        CONTRACT => text.replace(CONTRACT_HERE, CONTRACT_THERE),
        SDK_MANIFEST => text.replace(WORKSPACE_HERE, ""),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_names_the_contract_and_its_workspace_in_the_places_that_are_changed() {
        let contract = SDK.iter().find(|(path, _)| *path == CONTRACT).unwrap();
        assert_eq!(contract.1.matches(CONTRACT_HERE).count(), 1);
        assert_eq!(sdk_text(*contract).matches(CONTRACT_THERE).count(), 1);
        let manifest = SDK.iter().find(|(path, _)| *path == SDK_MANIFEST).unwrap();
        assert_eq!(manifest.1.matches(WORKSPACE_HERE).count(), 1);
    }

    #[test]
    fn every_module_of_the_sdk_is_in_it() {
        let library = SDK.iter().find(|(path, _)| *path == "src/lib.rs").unwrap().1;
        for module in library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")) {
            let Some(module) = module.strip_suffix(';') else { continue };
            let file = format!("src/{module}.rs");
            assert!(SDK.iter().any(|(path, _)| *path == file), "{file}");
        }
    }
}
