//! The floors that ARCHITECTURE.md draws are the floors of the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, top first, and what stands on each: the block marked `floors` in ARCHITECTURE.md.
fn drawn(architecture: &str) -> BTreeMap<String, usize> {
    let block = architecture.split("```floors\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("ARCHITECTURE.md has a block marked `floors`");
    let mut floors = BTreeMap::new();
    for (floor, line) in block.lines().enumerate() {
        for module in line.split_whitespace() {
            assert!(floors.insert(module.to_owned(), floor).is_none(), "`{module}` is drawn twice");
        }
    }
    floors
}

/// The modules that a source names behind `crate::` or `wattle::`, with their lines.
fn imports(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for root in ["crate::", "wattle::"] {
            for (at, _) in code.match_indices(root) {
                let boundary = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
                let rest = &code[at + root.len()..];
                let names: Vec<&str> = match rest.strip_prefix('{') {
                    Some(group) => group.split(',').map(str::trim).collect(),
                    None => vec![rest],
                };
                for name in names {
                    let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if boundary && !name.is_empty() {
                        found.push((number + 1, name));
                    }
                }
            }
        }
    }
    found
}

/// Every edge that goes up or sideways, or leads from or to a module that is not drawn.
fn broken(floors: &BTreeMap<String, usize>, path: &str, source: &str) -> Vec<String> {
    let from = path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    if from == "lib" {
        return Vec::new();
    }
    let Some(floor) = floors.get(&from) else { return vec![format!("src/{path}: `{from}` is not drawn")] };
    let mut broken = Vec::new();
    for (line, to) in imports(source) {
        // macros and items of the crate's root are no modules
        let Some(below) = floors.get(&to) else { continue };
        if to != from && below <= floor {
            broken.push(format!("src/{path}:{line}: `{from}` must not use `{to}`"));
        }
        if to == "log" && from != "log" && !path.starts_with("engine/embedded") {
            broken.push(format!("src/{path}:{line}: only `engine/embedded` may use `log`"));
        }
    }
    broken
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let floors = drawn(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    assert!(paths.len() > 20, "the sources are where they are looked for");
    let mut all = Vec::new();
    for path in paths {
        let relative = path.strip_prefix(root.join("src")).unwrap().to_string_lossy().replace('\\', "/");
        all.extend(broken(&floors, &relative, &fs::read_to_string(&path).unwrap()));
    }
    assert!(all.is_empty(), "imports that break the floors of ARCHITECTURE.md:\n{}", all.join("\n"));
}

#[test]
fn an_import_that_goes_up_or_sideways_is_named() {
    let floors = drawn("```floors\ndispatch\nengine\ntopology log wasm\nmodel\n```");
    let edges = |path, source| broken(&floors, path, source);
    assert_eq!(
        edges("model/event.rs", "use crate::engine::Engine;"),
        ["src/model/event.rs:1: `model` must not use `engine`"]
    );
    assert_eq!(
        edges("wasm/mod.rs", "\nuse crate::{model::Event, topology};"),
        ["src/wasm/mod.rs:2: `wasm` must not use `topology`"]
    );
    assert_eq!(
        edges("dispatch/lane.rs", "use crate::log::Log;"),
        ["src/dispatch/lane.rs:1: only `engine/embedded` may use `log`"]
    );
    assert!(edges("engine/embedded/mod.rs", "use crate::log::Log; // crate::dispatch").is_empty());
    assert_eq!(edges("strange/mod.rs", ""), ["src/strange/mod.rs: `strange` is not drawn"]);
}
