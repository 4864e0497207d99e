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

/// A type of Zig as C writes it.
fn c_type(zig: &str) -> String {
    let zig = zig.trim().trim_start_matches('?');
    if let Some(of) = zig.strip_prefix("*const ") {
        return format!("const {of} *");
    }
    if let Some(of) = zig.strip_prefix('*') {
        return format!("{of} *");
    }
    let simple = match zig {
        "[*:0]const u8" => "const char *",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "i64" => "int64_t",
        "usize" => "size_t",
        "f64" => "double",
        "c_int" => "int",
        "noreturn" => "void",
        "wattle_text" => "wattle_str",
        other => other,
    };
    simple.to_owned()
}

/// Declarations in one line each, with one space between words.
fn joined(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace("{ ", "{").replace(" }", "}")
}

#[test]
fn what_zig_uses_of_the_library_for_c_is_declared_as_there() {
    let zig = fs::read_to_string(root().join("sdk/zig/c.zig")).unwrap();
    let header = joined(&fs::read_to_string(root().join("sdk/c/wattle/wattle.h")).unwrap());
    let declared = |name_and_type: &str, separator: &str| {
        let (name, of) = name_and_type.split_once(separator)?;
        Some((name.trim().to_owned(), c_type(of.split('=').next()?)))
    };
    let written = |(name, of): (String, String)| match of.ends_with('*') {
        true => format!("{of}{name}"),
        false => format!("{of} {name}"),
    };
    let mut count = 0;
    for line in zig.lines().filter_map(|line| line.strip_prefix("pub extern fn ")) {
        let (name, rest) = line.split_once('(').unwrap();
        let (parameters, result) = rest.trim_end_matches(';').rsplit_once(") ").unwrap();
        let parameters = parameters.split(", ").map(|of| declared(of, ":").map_or_else(|| of.to_owned(), written));
        let parameters: Vec<String> = parameters.collect();
        let wanted = format!("{}({}", written((name.to_owned(), c_type(result))), parameters.join(", "));
        assert!(header.contains(&format!("{wanted})")), "wattle.h does not declare {wanted})");
        count += 1;
    }
    assert!(count > 30, "{count} functions");
    for structure in ["wattle_event", "wattle_output"] {
        let from = zig.split_once(&format!("pub const {structure} = extern struct {{")).unwrap().1;
        let fields = from.split_once("};").unwrap().0.replace(".{", "").replace('\n', " ");
        let fields = fields.split(',').filter_map(|field| declared(field, ":"));
        let fields: Vec<String> = fields.map(|field| written(field) + ";").collect();
        let wanted = format!("struct {structure} {{{}}}", fields.join(" "));
        let without_comments = comments_left_out(&header);
        assert!(without_comments.contains(&wanted), "wattle.h does not declare {wanted}");
    }
}

fn comments_left_out(text: &str) -> String {
    let mut parts = text.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    joined(&parts.fold(first, |all, part| all + part.split_once("*/").map_or("", |(_, rest)| rest)))
}
