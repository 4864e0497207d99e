//! What every source keeps to, and no formatter or lint can ask for: the width of lines with comments, docs that say
//! more than the name does, nouns for types and one name for one type in a room, one style of modules, one order of
//! derives, and no lock of standard error that outlives a statement.
//!
//! Each rule has an allowance: as much as was there when the rule came. It may only shrink; with fewer than that the
//! test passes and prints the new number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const COLUMNS_MAX: usize = 120;
/// Derives in this order, before all others.
const DERIVES: [&str; 9] = ["Debug", "Clone", "Copy", "Default", "PartialEq", "Eq", "PartialOrd", "Ord", "Hash"];
const ITEMS: [&str; 10] =
    ["fn", "async fn", "const fn", "struct", "enum", "trait", "type", "const", "static", "unsafe fn"];

/// Names that say no thing: verbs, pronouns, and participles without -ed.
const NO_NOUNS: &str = "\
    Admitting Alone AllKept Answering As At Beginning Begun Beside Built Chosen Done Elsewhere Fetching Found \
    From Given Gone Heard Held Hidden How Importing Instead Is Kept Known Leave Look Lost NotKept Of OnTrial \
    Over Own Ran Read Restoring Running Said Seen Sent Shown Standing Taken TakenBy Takes Told Unread Waits \
    What Whole Why Within";
/// Names that stay: `Handled` is a record of the plugin contract (`wit/`).
const NO_NOUNS_LEFT: &[&str] = &["Handled"];
/// Lines that are too wide: break the line.
const WIDE: usize = 0;
/// Comments of one noun: say what must hold, or remove it (fields and variants need none).
const NOUNS: usize = 0;
/// Public items without a comment.
const UNDOCUMENTED: usize = 0;
/// Derives in another order.
const DERIVES_APART: usize = 0;
/// Types that have the name of another one in the same room.
const NAMED_TWICE: &[&str] = &[];

/// A place and how to mend it.
type Fault = String;

/// A source by its path from the root of the project.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without its tests.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.contains("/tests")
    }

    fn fault(&self, line: usize, fix: &str) -> Fault {
        format!("{}:{}: {fix}", self.path, line + 1)
    }
}

fn sources() -> Vec<Source> {
    fn add(folder: &Path, root: &Path, into: &mut Vec<Source>) {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                add(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                into.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches", "xtask/src"] {
        add(&root.join(folder), root, &mut sources);
    }
    sources
}

/// A raw string on one line is data of a test, and as wide as that.
fn too_wide(source: &Source) -> Vec<Fault> {
    let fix = format!("wider than {COLUMNS_MAX} columns: break the line");
    let is_data = |line: &str| ["r\"", "r#\"", "r##\""].iter().any(|raw| line.contains(raw));
    let wide = source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX && !is_data(line));
    wide.map(|(at, _)| source.fault(at, &fix)).collect()
}

/// A variable that keeps standard error locked: other threads that say something would wait for it, and this one
/// perhaps for them.
fn locks_standard_error(source: &Source) -> Vec<Fault> {
    let locks = |line: &str| line.trim_start().starts_with("let ") && line.contains("stderr().lock()");
    let lines = source.code().lines().enumerate().filter(|(_, line)| !source.is_test() && locks(line));
    lines.map(|(at, _)| source.fault(at, "keeps standard error locked: write to `stderr()` itself")).collect()
}

/// A comment of one line that is an article and a noun.
fn nouns(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let is_doc = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("///"));
    let is_noun = |line: &str| {
        let words: Vec<&str> = line.trim_start_matches('/').trim().trim_end_matches('.').split(' ').collect();
        match words.as_slice() {
            [_] => true,
            [article, _] => ["The", "A", "An", "Its", "Their", "All"].contains(article),
            _ => false,
        }
    };
    let alone = (0..lines.len()).filter(|at| is_doc(*at) && !is_doc(at + 1) && !(*at > 0 && is_doc(at - 1)));
    let fix = "a comment of one noun: say what must hold, or remove it";
    alone.filter(|at| is_noun(lines[*at])).map(|at| source.fault(at, fix)).collect()
}

/// Public items, which fields and variants are not, that nothing is said of.
fn undocumented(source: &Source) -> Vec<Fault> {
    if source.is_test() {
        return Vec::new();
    }
    let lines: Vec<&str> = source.code().lines().map(str::trim).collect();
    let is_item = |line: &str| {
        let item = line.strip_prefix("pub ").unwrap_or_default();
        ITEMS.iter().any(|kind| item.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')))
    };
    let is_documented = |at: usize| {
        let mut before = at;
        while before > 0 {
            before -= 1;
            let line = lines[before];
            if ["///", "#[doc", "$(#["].iter().any(|doc| line.starts_with(doc)) {
                return true;
            }
            let ends_an_attribute = line.ends_with(")]") || line.ends_with("]") && line.starts_with("#[");
            let is_inside = !line.starts_with("#[") && ends_an_attribute;
            if is_inside {
                while before > 0 && !lines[before].starts_with("#[") {
                    before -= 1;
                }
            } else if !line.starts_with("#[") {
                return false;
            }
        }
        false
    };
    let items = (0..lines.len()).filter(|at| is_item(lines[*at]));
    let fix = "a public item without a comment: say what it promises";
    items.filter(|at| !is_documented(*at)).map(|at| source.fault(at, fix)).collect()
}

fn derives_apart(source: &Source) -> Vec<Fault> {
    let place = |derive: &str| DERIVES.iter().position(|known| *known == derive).unwrap_or(DERIVES.len());
    let lines = source.text.lines().enumerate();
    let derives = lines.filter_map(|(at, line)| Some((at, line.trim().strip_prefix("#[derive(")?.strip_suffix(")]")?)));
    let fix = format!("derives in the order {}, then others", DERIVES.join(", "));
    derives
        .filter(|(_, derives)| !derives.split(", ").map(place).is_sorted())
        .map(|(at, _)| source.fault(at, &fix))
        .collect()
}

/// The types that a source declares outside of functions, tests and macros: the number of the line, and the name.
fn types(source: &Source) -> Vec<(usize, &str)> {
    fn declared(line: &str) -> Option<&str> {
        let line = line.strip_prefix("pub").unwrap_or(line);
        let line = line.strip_prefix('(').and_then(|line| line.split_once(')')).map_or(line, |(_, line)| line);
        let line = Some(line).filter(|line| !line.starts_with("  "))?.trim_start_matches(' ');
        let name = ["struct ", "enum ", "trait ", "type "].iter().find_map(|kind| line.strip_prefix(kind))?;
        name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    }
    let lines = source.code().lines().enumerate();
    lines.filter_map(|(at, line)| declared(line).map(|name| (at, name))).collect()
}

/// Names of types that a room, a folder of `src`, has twice.
fn named_twice(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some((room, _)) = source.path.trim_start_matches("src/").split_once('/') else { continue };
        for (_, name) in types(source) {
            found.entry((room, name)).or_default().push(&source.path);
        }
    }
    let twice = found.into_iter().filter(|(_, paths)| paths.len() > 1);
    twice.map(|((_, name), paths)| (name.to_owned(), paths.into_iter().map(str::to_owned).collect())).collect()
}

/// Types whose name is no noun. A participle may stand before a noun: `HeldEvent`.
fn no_nouns(source: &Source) -> Vec<Fault> {
    if source.is_test() {
        return Vec::new();
    }
    let is_no_noun = |name: &str| {
        let last = name.rfind(char::is_uppercase).map_or(name, |at| &name[at..]);
        // Not `Bed`, nor `Feed`.
        let is_participle = last.len() > 4 && last.ends_with("ed") && !last.ends_with("eed");
        !NO_NOUNS_LEFT.contains(&name) && (is_participle || NO_NOUNS.split(' ').any(|word| word == name))
    };
    let fix = |name: &str| format!("`{name}` is no noun: name the type by what it is, such as `HeldEvent` for `Held`");
    types(source).iter().filter(|(_, name)| is_no_noun(name)).map(|(at, name)| source.fault(*at, &fix(name))).collect()
}

/// Modules that are a file and a folder of the same name.
fn other_modules(sources: &[Source]) -> Vec<Fault> {
    let folders: BTreeSet<_> =
        sources.iter().filter_map(|source| source.path.rsplit_once('/')).map(|it| it.0).collect();
    let both = sources.iter().filter(|source| folders.contains(source.path.trim_end_matches(".rs")));
    both.map(|source| source.fault(0, "a module with modules in it is NAME/mod.rs")).collect()
}

/// Fails for more faults than the allowance.
fn assert_allowed(what: &str, faults: &[Fault], allowed: usize) {
    if faults.len() < allowed {
        eprintln!("{what}: {} left, the allowance in tests/house/tidy.rs is {allowed}: lower it", faults.len());
    }
    assert!(faults.len() <= allowed, "{what}: {} where {allowed} are allowed\n{}", faults.len(), faults.join("\n"));
}

fn all(rule: impl Fn(&Source) -> Vec<Fault>) -> Vec<Fault> {
    sources().iter().flat_map(rule).collect()
}

#[test]
fn no_line_is_wider_than_the_screen() {
    assert_allowed("wide lines", &all(too_wide), WIDE);
}

#[test]
fn nothing_keeps_standard_error_locked() {
    assert_allowed("locks of standard error", &all(locks_standard_error), 0);
}

#[test]
fn comments_say_more_than_one_noun() {
    assert_allowed("comments of one noun", &all(nouns), NOUNS);
}

#[test]
fn public_items_are_documented() {
    assert_allowed("public items without a comment", &all(undocumented), UNDOCUMENTED);
}

#[test]
fn derives_have_one_order() {
    assert_allowed("derives", &all(derives_apart), DERIVES_APART);
}

#[test]
fn no_type_has_the_name_of_another_in_its_room() {
    let found = named_twice(&sources());
    let more: Vec<_> = found.iter().filter(|(name, _)| !NAMED_TWICE.contains(&name.as_str())).collect();
    assert!(more.is_empty(), "a room has two types of one name: rename one\n{more:#?}");
    let gone: Vec<_> = NAMED_TWICE.iter().filter(|name| !found.contains_key(**name)).collect();
    if !gone.is_empty() {
        eprintln!("no longer twice, remove from NAMED_TWICE: {gone:?}");
    }
}

#[test]
fn types_are_nouns() {
    assert_allowed("types that are no nouns", &all(no_nouns), 0);
}

#[test]
fn modules_have_one_style() {
    assert_allowed("modules", &other_modules(&sources()), 0);
}

#[test]
fn each_rule_finds_what_it_is_for() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let of = |text: &str| source("src/log/window.rs", text);
    assert_eq!(too_wide(&of(&format!("// {}\n// {}\n", "ä".repeat(117), "x".repeat(118)))).len(), 1);
    assert_eq!(nouns(&of("/// The folder.\npub a: u8,\n/// The folder\n/// of all.\n/// Opened twice.\n")).len(), 1);
    let items = "/// It is.\n#[derive(Debug)]\n#[allow(\n    dead_code,\n    reason = \"r\"\n)]\npub struct A {\n    \
        pub b: u8,\n}\n\
                 pub fn c() {}\npub(crate) fn d() {}\npub use e::F;\n";
    assert_eq!(
        undocumented(&of(items)),
        ["src/log/window.rs:10: a public item without a comment: say what it promises"]
    );
    assert_eq!(derives_apart(&of("#[derive(Clone, Debug)]\n#[derive(Debug, Clone, Hash, clap::Args)]\n")).len(), 1);
    let twice = [
        of("pub(super) struct A<T>(T);\nenum B {}"),
        source("src/log/tail.rs", "struct A;"),
        source("src/c/b.rs", "enum B {}"),
    ];
    assert_eq!(named_twice(&twice).keys().collect::<Vec<_>>(), ["A"]);
    let named = of("pub(crate) struct Held {\n}\ntype Feed = u8;\ntype EventRefused<T> = T;\nenum Parsed {}\n\
                    enum HeldEvent {}\n");
    let faults = no_nouns(&named);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].starts_with("src/log/window.rs:1: `Held` is no noun"), "{faults:?}");
    assert_eq!(no_nouns(&source("tests/log/window.rs", &named.text)), Vec::<Fault>::new());
    assert_eq!(other_modules(&[source("src/a.rs", ""), source("src/a/b.rs", "")]).len(), 1);
}
