//! The commands `check`, `graph` and `schema` on real files.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use wattle::cli::{check, graph, schema};

/// The command line as far as these commands need it.
#[derive(clap::Parser)]
enum Command {
    Check(check::CheckArgs),
    Graph(graph::GraphArgs),
    Schema(schema::SchemaArgs),
}

/// Exit code, what was printed, and notices, without colours.
fn run(arguments: &[&str]) -> (u8, String, String) {
    let command = Command::try_parse_from([&["wattle"], arguments].concat()).unwrap();
    let (mut out, mut notices) = (Vec::new(), Vec::new());
    let code = {
        let mut out = anstream::StripStream::new(&mut out);
        let mut notices = anstream::StripStream::new(&mut notices);
        match command {
            Command::Check(args) => check::write(&args, &mut out, &mut notices),
            Command::Graph(args) => graph::write(&args, &mut out, &mut notices),
            Command::Schema(args) => schema::write(&args, &mut out),
        }
    };
    (code.unwrap(), String::from_utf8(out).unwrap(), String::from_utf8(notices).unwrap())
}

/// A folder with a good topology, its plugins and its secret.
fn good() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topologies");
    fs::create_dir_all(&path).unwrap();
    fs::create_dir_all(folder.path().join("plugins/a")).unwrap();
    fs::write(folder.path().join("plugins/a/Cargo.toml"), "").unwrap();
    fs::write(folder.path().join("plugins/b.wasm"), "").unwrap();
    write(
        &path,
        "a.yaml",
        "wattle: v1\nname: n\ntopics: { t: {}, u: {} }\nsubscribers: { s: { from: t, plugin: ../plugins/a, to: [u] } \
         }\n",
    );
    (folder, path)
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(folder.join(name), text).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_good_topology_is_ok() {
    let (_folder, path) = good();
    let (code, out, notices) = run(&["check", text(&path)]);
    assert_eq!((code, notices.as_str()), (0, ""));
    assert!(out.ends_with("a.yaml: ok (2 topics of which 1 root, 1 subscriber)\n"), "{out}");
    let (code, out, _) = run(&["check", text(&path), "-o", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, json!({ "ok": true, "diagnostics": [] })));
}

#[test]
fn the_files_of_a_folder_are_checked_together() {
    let (_folder, path) = good();
    write(&path, "b.yml", "wattle: v1\nname: n\nsubscribers: { r: { from: u, plugin: ../plugins/b.wasm } }\n");
    write(&path, ".hidden.yaml", "not: a topology\n");
    write(&path, "notes.txt", "neither\n");
    fs::create_dir(path.join("folder.yaml")).unwrap();
    let (code, out, notices) = run(&["check", text(&path)]);
    assert_eq!((code, notices.as_str()), (0, ""));
    assert_eq!(out, "2 files: ok (2 topics of which 1 root, 2 subscribers)\n");
    // A file that is named beside its folder is read once.
    let (code, out, _) = run(&["check", text(&path), text(&path.join("b.yml"))]);
    assert_eq!((code, out.as_str()), (0, "2 files: ok (2 topics of which 1 root, 2 subscribers)\n"));
}

#[test]
fn a_bad_topology_is_bad_configuration() {
    let (_folder, path) = good();
    let file = path.join("b.yaml");
    write(&path, "b.yaml", "wattle: v1\nname: ä\ntopics:\n  \"ü\": { partitions: 0 }\n");
    let (code, out, notices) = run(&["check", text(&file)]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(
        notices.contains("error[bad-value]: a name cannot have `ä`") && notices.ends_with("3 errors\n"),
        "{notices}"
    );
    let (code, out, notices) = run(&["check", text(&file), "-o", "json"]);
    assert_eq!((code, notices.as_str()), (78, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({
        "code": "bad-value",
        "severity": "error",
        "message": "`partitions` is a whole number from 1 to 1024, not `0`",
        "file": text(&file),
        "line": 4,
        "column": 22,
        "help": "write a whole number from 1 to 1024",
        "labels": [{ "file": text(&file), "line": 4, "column": 22, "message": "" }],
    });
    assert_eq!(report["ok"], false);
    assert_eq!(report["diagnostics"].as_array().unwrap().last(), Some(&expected), "columns count characters");
    assert_eq!(out.lines().count(), 1, "one object, on one line");
}

#[test]
fn warnings_fail_only_when_they_are_denied() {
    let (_folder, path) = good();
    write(&path, "a.yaml", "wattle: v1\nname: n\ntopics: { unused: {} }\n");
    let (code, out, notices) = run(&["check", text(&path)]);
    assert_eq!(code, 0);
    assert!(out.contains("ok (1 topic") && notices.ends_with("1 warning\n"), "{out}{notices}");
    let (code, out, _) = run(&["check", text(&path), "--deny-warnings"]);
    assert_eq!((code, out.as_str()), (78, ""));
    let (code, out, _) = run(&["check", text(&path), "--deny-warnings", "-o", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["ok"].clone()), (78, json!(false)));
}

#[test]
fn what_cannot_be_read_is_wrong_usage() {
    let (folder, path) = good();
    let missing = path.join("missing.yaml");
    let (code, _, notices) = run(&["check", text(&missing), text(&folder.path().join("plugins"))]);
    assert_eq!(code, 2);
    assert!(
        notices.contains("missing.yaml") && notices.contains("there is no topology in"),
        "both are said: {notices}"
    );
    assert!(Command::try_parse_from(["wattle", "check"]).is_err());
    let (code, _, _) = run(&["graph", text(&missing)]);
    assert_eq!(code, 2);
}

#[test]
fn what_is_not_text_is_bad_configuration() {
    let (_folder, path) = good();
    write(&path, "b.yaml", b"wattle: v1\nname: \xff\n");
    let (code, _, notices) = run(&["check", text(&path.join("b.yaml"))]);
    assert_eq!(code, 78);
    assert!(notices.contains("line 2 is not UTF-8"), "{notices}");
}

#[test]
fn a_huge_file_is_refused_wherever_it_is_cut() {
    let (_folder, path) = good();
    for shift in 0..3 {
        write(&path, "b.yaml", format!("# {}{}", "x".repeat(shift), "€".repeat(3 << 20)));
        let (code, _, notices) = run(&["check", text(&path.join("b.yaml"))]);
        assert_eq!(code, 78);
        assert!(notices.starts_with("error[too-large]"), "{}", &notices[..200]);
    }
}

#[test]
fn effective_values_can_be_shown() {
    let (_folder, path) = good();
    let (code, out, _) = run(&["check", text(&path), "--show"]);
    assert_eq!(code, 0);
    assert!(out.contains("limits: { memory: 64MiB, time: 1s, output: 1MiB, log: 100 }"), "{out}");
    assert!(out.contains("retention: { age: 7d, force: false }"), "{out}");
    assert_eq!(out.matches("dedupe: { window: 2m }").count(), 1, "only roots have it: {out}");
    let shown = path.join("shown.yaml");
    fs::write(&shown, &out).unwrap();
    assert_eq!(run(&["check", text(&shown), "--show"]).1, out, "what is shown is a topology");
    let (_, json, _) = run(&["check", text(&path.join("a.yaml")), "--show", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["effective"], out);
}

#[test]
fn good_topologies_are_drawn_and_bad_ones_are_explained() {
    let (_folder, path) = good();
    let (code, out, _) = run(&["graph", text(&path)]);
    assert_eq!(code, 0);
    assert!(out.contains("└─ s  ") && out.contains("   └─ ● u"), "{out}");
    for (format, start) in [("dot", "digraph"), ("mermaid", "flowchart"), ("svg", "<svg"), ("json", "{")] {
        let (code, out, _) = run(&["graph", text(&path), "--format", format]);
        assert_eq!(code, 0);
        assert!(out.starts_with(start), "{out}");
    }
    write(&path, "a.yaml", "wattle: v1\n");
    let (code, out, notices) = run(&["graph", text(&path)]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(notices.contains("missing-key"));
}

#[test]
fn the_schema_is_printed() {
    let (code, out, _) = run(&["schema"]);
    assert_eq!(code, 0);
    assert_eq!(out, include_str!("../../topology.schema.json"));
    let (code, out, _) = run(&["schema", "--tests"]);
    assert_eq!(code, 0);
    assert_eq!(out, include_str!("../../test.schema.json"));
    let (code, out, _) = run(&["schema", "--access"]);
    assert_eq!(code, 0);
    assert_eq!(out, include_str!("../../access.schema.json"));
}

const ACCESS: &str = "wattle: access/v1
issuers: { idp: { issuer: https://idp.example, audience: wattle, keys: keys/jwks.json, algorithms: [EdDSA] } }
principals: { ops: { issuer: idp, claim: { groups: wattle-ops } } }
rules: [{ who: [ops], may: [inspect], topics: [\"n/*\"] }]
";

/// A set with one key.
const KEYS: &str =
    r#"{ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }"#;

#[test]
fn access_files_are_checked_with_the_topologies() {
    let (_folder, path) = good();
    write(&path, "access.yaml", ACCESS);
    fs::create_dir(path.join("keys")).unwrap();
    write(&path, "keys/jwks.json", KEYS);
    let (code, out, notices) = run(&["check", text(&path)]);
    assert_eq!((code, notices.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("a.yaml: ok (2 topics of which 1 root, 1 subscriber)"), "{out}");
    assert!(lines[1].ends_with("access.yaml: ok (1 principal, 1 rule)") && lines.len() == 2, "{out}");
    let file = path.join("access.yaml");
    let (code, out, notices) = run(&["check", text(&file)]);
    assert_eq!((code, notices.as_str()), (0, ""));
    assert!(out.ends_with("access.yaml: ok (1 principal, 1 rule)\n") && out.lines().count() == 1, "{out}");
    let (code, out, _) = run(&["check", text(&path), "--show"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("wattle: v1") && !out.contains("access"), "what is shown is a topology: {out}");
}

#[test]
fn what_is_wrong_with_an_access_file_is_said_in_its_place() {
    let (_folder, path) = good();
    write(&path, "b.yaml", "wattle: v1\nname: n\ntopics: { unused: {} }\n");
    write(&path, "access.yaml", ACCESS.replace("claim:", "clam:"));
    let (code, out, notices) = run(&["check", text(&path)]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(notices.contains("b.yaml:3:11") && notices.contains("access.yaml:3:35"), "{notices}");
    assert!(notices.contains("did you mean `claim`?"), "{notices}");
    assert!(notices.contains("keys/jwks.json` cannot be read") && notices.contains("access.yaml:2:"), "{notices}");
    let (code, out, _) = run(&["check", text(&path.join("access.yaml")), "-o", "json"]);
    assert_eq!(code, 78);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["ok"], &report["diagnostics"][0]["line"]), (&json!(false), &json!(2)));
}

#[test]
fn a_token_in_an_access_file_is_not_shown() {
    let (_folder, path) = good();
    let secret = "0123456789abcdef".repeat(4);
    write(
        &path,
        "access.yaml",
        format!("wattle: access/v1\nprincipals: {{ ci: {{ token: wtl_01234567_{secret} }} }}\n"),
    );
    for output in ["text", "json"] {
        let (code, out, notices) = run(&["check", text(&path), "-o", output]);
        assert_eq!(code, 78);
        let all = out + &notices;
        assert!(all.contains("this is a token itself") && !all.contains(&secret[..16]), "{all}");
    }
}

#[test]
fn a_schema_is_the_file_beside_the_topology_and_not_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(
        path,
        "t.yaml",
        "wattle: v1\nname: n\ntopics: { t: { schema: s.json, backlog: 5, when_full: wait } }\nsubscribers: {}\n",
    );
    let (file, shown) = (path.join("t.yaml"), path.join("shown.yaml"));
    write(path, "s.json", r#"{ "type": "object" }"#);
    let (code, out, _) = run(&["check", text(&file), "--show"]);
    assert_eq!(code, 0);
    assert!(out.contains(&format!("schema: {}\n", text(&path.join("s.json")))), "{out}");
    assert!(out.contains("backlog: 5\n    when_full: wait\n"), "{out}");
    fs::write(&shown, &out).unwrap();
    assert_eq!(run(&["check", text(&shown), "--show"]).1, out, "what is shown is a topology");
    for (contents, words) in [
        (vec![b' '; 256 * 1024 + 1], "cannot be read: it has more than 262144 bytes"),
        (vec![0xff], "cannot be read: it is not UTF-8"),
        (b"{}}".to_vec(), "is not JSON: trailing characters at line 1 column 3"),
    ] {
        fs::write(path.join("s.json"), contents).unwrap();
        let (code, _, notices) = run(&["check", text(&file)]);
        assert!(code == 78 && notices.contains(words), "{code}: {notices}");
    }
}
