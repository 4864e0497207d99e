//! The libraries of `sdk/` that no compiler of this project reads: they belong to the contract of today, the lists of
//! files of new plugins have all of them, and their lines are no wider than others.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What the libraries call by its binary form.
const CONTRACT: [&str; 4] = ["plugin.wit", "deps/wasi-config.wit", "deps/wasi-keyvalue.wit", "deps/wasi-logging.wit"];
/// The declarations for which they were written, as digests.
const WRITTEN_FOR: &str = "sdk/contract.b3";
/// Where they were written.
const BINDINGS: &str = "sdk/c/wattle/wasm.c, sdk/go/wattle/internal/bus/{bus,layout}_wasip1.go";
/// The folder of the library of a language, and the lists that have it.
const LIBRARIES: [(&str, &[&str]); 2] = [("go", &["go"]), ("c", &["c", "cpp", "zig"])];
const COLUMNS_MAX: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a file of WIT declares, without its comments.
fn declarations(path: &str) -> String {
    let text = fs::read_to_string(root().join("wit").join(path)).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn libraries_that_know_the_binary_form_of_the_contract_are_written_for_that_of_today() {
    let mut digests = String::new();
    for path in CONTRACT {
        writeln!(digests, "{}  wit/{path}", blake3::hash(declarations(path).as_bytes())).unwrap();
    }
    let file = root().join(WRITTEN_FOR);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(file, digests).unwrap();
        return;
    }
    let expected = fs::read_to_string(file).unwrap();
    assert_eq!(digests, expected, "the contract declares something else: change {BINDINGS}, then set UPDATE_EXPECT=1");
}

/// The files below a folder, by their paths in it.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inside)).unwrap() {
            let (path, kind) = entry.map(|entry| (inside.join(entry.file_name()), entry.file_type().unwrap())).unwrap();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match kind {
                kind if kind.is_file() => drop(found.insert(path)),
                // Outputs of tools, and links to folders that are read elsewhere.
                kind if kind.is_dir() && name != "target" && name != "node_modules" => folders.push(path),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_new_plugin_gets_all_files_of_its_library_and_template() {
    let sdk = root().join("sdk");
    for (library, lists) in LIBRARIES {
        for list in lists {
            let text = fs::read_to_string(sdk.join(list).join("files.txt")).unwrap();
            let listed: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
            let of_library = files(&sdk.join(library).join("wattle"));
            let of_library = of_library.iter().map(|path| Path::new("wattle").join(path));
            let of_template = files(&sdk.join(list).join("template"));
            for path in of_library.chain(of_template) {
                let path = path.to_str().unwrap();
                let is_test_of_library = path.starts_with("wattle/") && path.ends_with("_test.go");
                assert!(is_test_of_library || listed.contains(path), "sdk/{list}/files.txt lacks {path}");
            }
        }
    }
}

#[test]
fn lines_of_libraries_are_no_wider_than_others() {
    let mut wide = Vec::new();
    for folder in ["sdk", "plugins"] {
        for path in files(&root().join(folder)) {
            let extension = path.extension().unwrap_or_default().to_str().unwrap_or_default();
            if !["c", "h", "cpp", "hpp", "go", "zig"].contains(&extension) {
                continue;
            }
            let text = fs::read_to_string(root().join(folder).join(&path)).unwrap();
            let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
            wide.extend(lines.map(|(at, _)| format!("{folder}/{}:{}", path.display(), at + 1)));
        }
    }
    assert!(wide.is_empty(), "wider than {COLUMNS_MAX} columns: {wide:#?}");
}
