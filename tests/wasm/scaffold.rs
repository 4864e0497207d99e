//! `wattle new` and `wattle build`: a new folder builds by itself, and what it builds runs.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use wattle::api::Digest;
use wattle::model::call::Limits;
use wattle::toolchain::{BuildError, Language, NewPlugin, build_folder, create, is_plugin_folder};
use wattle::topology::{PathKind, Source, Surroundings, check};
use wattle::wasm::PluginSpec;

use crate::common::plugin_calls::{call, host, sent};
use crate::common::process::wattle;

/// A folder for new plugins, outside of this project, with its toolchain.
fn elsewhere() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let toolchain = "rust-toolchain.toml";
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(toolchain), folder.path().join(toolchain)).unwrap();
    folder
}

/// The machine's files, as the command line sees them.
struct Files;

impl Surroundings for Files {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn at(&self, path: &Path) -> PathKind {
        if path.is_dir() { PathKind::Folder { manifest: is_plugin_folder(path) } } else { PathKind::Nothing }
    }
}

#[test]
fn a_new_plugins_topology_runs_it() {
    let parent = tempfile::tempdir().unwrap();
    let args = NewPlugin { name: "greet-all".into(), language: Language::Rust, parent: parent.path().to_owned() };
    let path = create(&args).unwrap().folder.join("topology.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let (plan, diagnostics) = check(&[Source { path, text }], &Files);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(plan.unwrap().subscribers().count(), 1);
}

#[tokio::test]
async fn a_new_plugin_builds_by_itself_and_runs() {
    let parent = elsewhere();
    let args = NewPlugin { name: "greet-all".into(), language: Language::Rust, parent: parent.path().to_owned() };
    let folder = create(&args).unwrap().folder;

    let mut said = Vec::new();
    let built = build_folder(&folder, &mut |line| said.push(line.to_owned())).unwrap();

    assert!(said.iter().any(|line| line.contains("Compiling greet-all")), "{said:?}");
    assert!(built.wasm.starts_with(parent.path().canonicalize().unwrap()), "{}", built.wasm.display());
    let wasm = fs::read(&built.wasm).unwrap();
    assert_eq!((built.size_bytes, built.digest), (wasm.len() as u64, Digest::of(&wasm)));

    let plugin = host()
        .register(PluginSpec {
            subscriber: "greet-all".into(),
            wasm,
            config: [("word".to_owned(), "Good day".to_owned())].into(),
            hidden: [].into(),
            ports: vec!["greeted".into()],
            limits: Limits::default(),
        })
        .unwrap();
    let (handled, _) = call(&plugin, &[sent("a", r#"{"name":"Ada"}"#)]).await;
    assert_eq!(handled.unwrap().outputs[0].data, br#"{"text":"Good day, Ada!"}"#);

    // Its own cases.
    let tested = wattle().current_dir(&folder).arg("test").output().unwrap();
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success() && said.contains("2 passed"), "{said}{}", String::from_utf8_lossy(&tested.stderr));

    // What does not compile says so in the compiler's words.
    fs::write(folder.join("src/lib.rs"), "fn handle() -> Nothing {}").unwrap();
    let error = build_folder(&folder, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }));
    assert!(error.to_string().contains("cannot find type `Nothing`"), "{error}");

    // A library that is not a component says what its manifest lacks.
    fs::write(folder.join("src/lib.rs"), "").unwrap();
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest.replace("cdylib", "rlib")).unwrap();
    let error = build_folder(&folder, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("crate-type = [\"cdylib\"]"), "{error}");

    // A manifest that cannot be read is the manifest's fault.
    fs::write(folder.join("Cargo.toml"), "[package").unwrap();
    let error = build_folder(&folder, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }), "{error}");
}
