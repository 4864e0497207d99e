//! What a check says, for each kind of mistake: in `topology/diagnostics` there is a topology, or a folder of them, and
//! beside it the text that is expected. `UPDATE_EXPECT=1` writes what is said now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use wattle::topology::cases;
use wattle::topology::render::{self, Style};
use wattle::topology::{Code, ConfigValue, Diagnostic, PathKind, PluginSource, Source, Surroundings, check};

/// A small world: one variable, some plugins, a schema and a secret.
struct SmallWorld;

impl Surroundings for SmallWorld {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "REGION").then(|| "eu".to_owned())
    }

    fn at(&self, path: &Path) -> PathKind {
        match path.to_str().unwrap() {
            "plugins/a" | "plugins/b" => PathKind::Folder { manifest: true },
            "empty" => PathKind::Folder { manifest: false },
            "build/c.wasm"
            | "build/declares.wasm"
            | "build/open.wasm"
            | "build/broken.wasm"
            | "build/ported.wasm"
            | "readme.md"
            | "secrets/key"
            | "schemas/order.json" => PathKind::File,
            path if schema(path).is_some() => PathKind::File,
            _ => PathKind::Nothing,
        }
    }

    fn config_schema(&self, plugin: &PluginSource) -> Result<Option<String>, String> {
        let PluginSource::Wasm(path) = plugin else { return Ok(None) };
        Ok(match path.to_str().unwrap() {
            "build/declares.wasm" => Some(
                r#"{ "type": "object", "additionalProperties": false, "required": ["currency"], "properties": {
                    "currency": { "type": "string", "pattern": "^[A-Z]{3}$" }, "key": { "type": "string" },
                    "per_order": { "type": "integer", "maximum": 100 }, "express": { "type": "boolean" } } }"#
                    .to_owned(),
            ),
            "build/open.wasm" => Some(r#"{ "properties": { "currency": {} } }"#.to_owned()),
            "build/broken.wasm" => Some("{".to_owned()),
            _ => None,
        })
    }

    fn ports(&self, plugin: &PluginSource, told: &BTreeMap<String, ConfigValue>) -> Option<Vec<String>> {
        let is_ported = *plugin == PluginSource::Wasm("build/ported.wasm".into());
        let ports: &[&str] = if told.contains_key("any") { &[] } else { &["accepted", "refused"] };
        is_ported.then(|| ports.iter().map(|port| (*port).to_owned()).collect())
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        match schema(path.to_str().unwrap()) {
            Some(text) => Ok(text.to_owned()),
            None => Err("it is not UTF-8".to_owned()),
        }
    }
}

/// The text of a schema; `schemas/order.json` is no text.
fn schema(path: &str) -> Option<&'static str> {
    Some(match path {
        "schemas/good.json" => r#"{ "type": "object", "required": ["order_id"] }"#,
        "schemas/broken.json" => "{ \"type\": \"object\",\n  \"required\": [order_id] }",
        "schemas/remote.json" => r#"{ "properties": { "address": { "$ref": "https://example.test/address.json" } } }"#,
        "schemas/beside.json" => r#"{ "$ref": "address.json" }"#,
        "schemas/wrong.json" => r#"{ "properties": { "amount": { "minimum": "0" } } }"#,
        "schemas/pattern.json" => r#"{ "pattern": "^(?!test)" }"#,
        _ => return None,
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topology/diagnostics")
}

/// The cases: each a name and its files.
fn cases() -> Vec<(String, Vec<Source>)> {
    let source =
        |path: &Path| Source { path: path.file_name().unwrap().into(), text: fs::read_to_string(path).unwrap() };
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    let mut cases = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.retain(is_yaml);
            files.sort();
            cases.push((name, files.iter().map(|file| source(file)).collect()));
        } else if is_yaml(&path) {
            cases.push((name, vec![source(&path)]));
        }
    }
    cases
}

fn rendered(sources: &[Source]) -> (String, Vec<Diagnostic>) {
    let (plan, diagnostics) = check(sources, &SmallWorld);
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    assert_eq!(plan.is_some(), errors == 0, "there is a plan exactly when there is no error");
    let text = render::text(sources, &diagnostics, Style { colour: false, width: 140 });
    let summary = render::summary(&diagnostics).unwrap_or("nothing to say".into());
    (format!("{text}{summary}\n"), diagnostics)
}

#[test]
fn each_mistake_is_said_as_expected() {
    let mut wrong = Vec::new();
    for (name, sources) in cases() {
        let (text, _) = rendered(&sources);
        let path = folder().join(&name).with_extension("txt");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if text != expected {
            wrong.push(format!("==== {name}: expected\n{expected}---- but it says\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes what is said now", wrong.join("\n"));
}

#[test]
fn each_code_has_a_case() {
    let said: BTreeSet<Code> =
        cases().iter().flat_map(|(_, sources)| rendered(sources).1).map(|diagnostic| diagnostic.code).collect();
    assert_eq!(said, Code::ALL.into_iter().collect());
}

#[test]
fn every_diagnostic_points_into_its_file_and_says_what_to_do() {
    for (name, sources) in cases() {
        for diagnostic in rendered(&sources).1 {
            assert!(diagnostic.help.is_some(), "{name}: {diagnostic:?}");
            assert!(!diagnostic.labels.is_empty(), "{name}: {diagnostic:?}");
            for label in &diagnostic.labels {
                let text = &sources[label.span.source as usize].text;
                let range = label.span.start as usize..label.span.end as usize;
                assert!(text.get(range).is_some(), "{name}: {diagnostic:?}");
            }
        }
    }
}

#[test]
fn no_place_is_blamed_twice_for_the_same() {
    for (name, sources) in cases() {
        let mut seen = BTreeSet::new();
        for diagnostic in rendered(&sources).1 {
            let again = !seen.insert((diagnostic.span(), diagnostic.code, diagnostic.message.clone()));
            assert!(!again, "{name}: {diagnostic:?}");
        }
    }
}

#[test]
fn a_key_that_an_item_of_a_list_lacks_has_the_place_of_the_item() {
    let text = "topology: readme.md\ncases:\n  - name: one\n    expect: {}\n  - name: two\n  - { name: three }\n";
    let source = Source { path: "shop.test.yaml".into(), text: text.to_owned() };
    let (file, diagnostics) = cases::read(0, &source, &SmallWorld);
    assert!(file.is_none());
    let missing = diagnostics.iter().filter(|diagnostic| diagnostic.code == Code::MissingKey);
    let places: Vec<&str> = missing.map(|diagnostic| text[diagnostic.span().start as usize..].trim_end()).collect();
    assert_eq!(places.len(), 2, "{diagnostics:?}");
    assert!(places[0].starts_with("name: two") && places[1].starts_with("{ name: three }"), "{places:?}");
}
