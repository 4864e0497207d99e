//! What is refused at registration, in words that a plugin's author can act on; and the cache of compiled code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use wattle::model::call::Limits;
use wattle::wasm::{Host, HostOptions, Plugin, PluginSpec, RegisterError, config_schema};

use crate::common::guests::guest;
use crate::common::plugin_calls::{call, host, sent, spec};

static HOST: LazyLock<Host> = LazyLock::new(host);

/// Registers a component given as text.
fn register(wat: &str) -> Result<Plugin, RegisterError> {
    HOST.register(PluginSpec {
        subscriber: "odd".into(),
        wasm: wat::parse_str(wat).unwrap(),
        config: BTreeMap::new(),
        hidden: BTreeMap::new(),
        ports: vec![],
        limits: Limits::default(),
    })
}

fn refusal(wat: &str) -> String {
    register(wat).expect_err("it is refused").to_string()
}

/// A component whose handler interface exists, with functions of no use, and whose core module is this.
fn with_handler(version: &str, core: &str) -> String {
    format!(
        r#"(component
            (core module $m {core} (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $handler (export "describe" (func $f)) (export "handle" (func $f)))
            (export "wattle:plugin/handler{version}" (instance $handler)))"#
    )
}

#[test]
fn the_sdk_declares_the_configuration_as_a_schema() {
    let schema = |name: &str| {
        let wasm = guest(name);
        let text = config_schema(&wasm).unwrap().map(str::to_owned);
        text.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap())
    };
    let expected = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "description": "What the shop takes.",
        "additionalProperties": false,
        "properties": {
            "currency": { "type": "string", "description": "The currency of its orders.", "default": "EUR" },
        },
        "required": [],
    });
    assert_eq!(schema("validate"), Some(expected));
    let inventory = schema("inventory").unwrap();
    assert_eq!(inventory["properties"]["per_order"]["default"], 100);
    assert_eq!(schema("sink").unwrap()["properties"]["bytes_max"]["default"], serde_json::Value::Null);
    assert_eq!(schema("hostile"), None);
}

#[test]
fn what_is_not_a_component_is_told_apart() {
    let of = |wasm: &[u8]| {
        let spec = PluginSpec { wasm: wasm.to_vec(), ..spec("validate", &[]) };
        HOST.register(spec).unwrap_err()
    };
    assert!(matches!(of(b"#!/bin/sh"), RegisterError::NotWasm));
    assert_eq!(of(&wat::parse_str("(module)").unwrap()), RegisterError::CoreModule);
    let module = of(&wat::parse_str("(module)").unwrap()).to_string();
    assert!(module.contains("`wattle build`") && module.contains("--target wasm32-wasip2"), "{module}");
    let mut broken = guest("validate");
    broken.truncate(broken.len() / 2);
    assert!(matches!(of(&broken), RegisterError::Invalid { .. }));
}

/// Bytes that were changed anywhere, by a generator that gives the same ones each time.
#[test]
fn damaged_components_are_refused_or_run_and_leave_the_host_alone() {
    let whole = guest("notify");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let mut refused = 0;
    for round in 0..80 {
        let mut wasm = whole.clone();
        match round % 4 {
            // Most of a component is code, which is checked last and takes longest: the head is hit more often.
            0 => wasm[8 + next(2_000)] ^= 1 << next(8),
            1 => wasm[8 + next(whole.len() - 8)] ^= 1 << next(8),
            2 => wasm.truncate(next(whole.len())),
            _ => {
                let (from, to) = (8 + next(4_000), 8 + next(4_000));
                wasm.copy_within(from..from + 40, to);
            }
        }
        let spec = PluginSpec { wasm, ..spec("notify", &["sent"]) };
        refused += usize::from(HOST.register(spec).is_err());
    }
    assert!(refused > 40, "{refused}");
    HOST.register(spec("notify", &["sent"])).unwrap();
}

#[test]
fn a_component_without_a_handler_hears_what_it_exports_instead() {
    assert!(refusal("(component)").contains("does not export `wattle:plugin/handler@0.1.0`"));
    assert!(refusal("(component)").contains("it exports nothing"));
    let other = r#"(component (instance $i) (export "test:other/thing@1.0.0" (instance $i)))"#;
    assert!(refusal(other).contains("it exports `test:other/thing@1.0.0`"));
    let program = r#"(component (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#;
    assert!(refusal(program).contains("crate-type = [\"cdylib\"]"));
}

/// By its exports alone: none of these would get through the compiler, or past the check of types.
#[test]
fn a_component_for_another_world_is_told_which_and_what_would_make_it_fit() {
    let exporting = |name: &str| {
        refusal(&format!(
            r#"(component
                (core module $m
                    (func (export "f") (result i32) i32.const 0)
                    (func (export "cb") (param i32 i32 i32) (result i32) i32.const 0))
                (core instance $i (instantiate $m))
                (func $f async (canon lift (core func $i "f") async (callback (core func $i "cb"))))
                (instance $handler (export "handle" (func $f)))
                (export "{name}" (instance $handler)))"#
        ))
    };
    for (name, words) in [
        ("wasi:http/incoming-handler@0.2.4", ["the world `wasi:http/proxy`", "`wasmtime serve`"]),
        ("wasi:http/handler@0.3.0", ["it exports `wasi:http/handler@0.3.0`: it answers HTTP", "`wasmtime serve`"]),
        ("wasi:cli/run@0.3.0", ["it is a program with a `main`", "`wattle new`"]),
        ("wasi:messaging/incoming-handler@0.2.0-draft", ["it is made for `wasi:messaging`", "`wattle:plugin/plugin`"]),
        ("fermyon:spin/inbound-redis", ["the Redis trigger of Spin", "`wattle new`"]),
    ] {
        let message = exporting(name);
        assert!(words.iter().all(|words| message.contains(words)), "{message}");
    }
}

#[test]
fn another_version_of_the_contract_is_named() {
    let message = refusal(&with_handler("@0.2.0", ""));
    assert!(message.contains("built for wattle:plugin/handler@0.2.0"), "{message}");
    assert!(message.contains("this host speaks 0.1.0"), "{message}");
}

#[test]
fn what_is_not_granted_is_named_with_its_reason_all_at_once() {
    let message = refusal(
        r#"(component
            (import "wasi:http/outgoing-handler@0.2.0" (instance))
            (import "wasi:keyvalue/watcher@0.2.0-draft2" (instance))
            (import "wasi:keyvalue/store@0.2.0-draft" (instance))
            (import "wattle:plugin/text@0.1.0" (instance))
            (import "wasi:cli/stdout@0.3.0" (instance))
            (import "wasi:clocks/types@0.3.0-rc-2025-09-16" (instance))
            (import "acme:secrets/vault@1.0.0" (instance))
            (instance $handler)
            (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#,
    );
    for words in [
        "`wasi:http/outgoing-handler@0.2.0`: plugins have no network",
        "`wasi:keyvalue/watcher@0.2.0-draft2`: of key-value state plugins have `store`",
        "`wasi:keyvalue/store@0.2.0-draft`: this host has 0.2.0-draft2",
        "`wattle:plugin/text@0.1.0`: the contract of this host does not have it",
        "`wasi:cli/stdout@0.3.0`: it was made for WASI 0.3, and this host has 0.2.12",
        "`wasi:clocks/types@0.3.0-rc-2025-09-16`: it was made for WASI 0.3",
        "`acme:secrets/vault@1.0.0`: it is neither in the contract",
    ] {
        assert!(message.contains(words), "{words} is not in: {message}");
    }
}

#[test]
fn functions_of_another_type_are_named() {
    let error = register(&with_handler("@0.1.0", "")).unwrap_err();
    assert!(matches!(error, RegisterError::Signature { .. }), "{error}");
    assert!(error.to_string().contains("describe"), "{error}");
    let missing = r#"(component (instance $i) (export "wattle:plugin/handler@0.1.0" (instance $i)))"#;
    assert!(refusal(missing).contains("describe"), "{}", refusal(missing));
    let import = r#"(component
        (import "wattle:plugin/context@0.1.0" (instance (export "current" (func (param "index" string)))))
        (instance $handler)
        (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#;
    assert!(refusal(import).contains("wattle:plugin/context@0.1.0"), "{}", refusal(import));
}

/// The draft has one function in two shapes under one version; an older one is not taken for the newer.
#[test]
fn get_many_in_its_older_shape_is_refused_and_the_newer_is_not() {
    let with_result = |result: &str| {
        refusal(&format!(
            r#"(component
                (import "wasi:keyvalue/store@0.2.0-draft2" (instance $store
                    (export "bucket" (type (sub resource)))
                    (type $e (variant (case "no-such-store") (case "access-denied") (case "other" string)))
                    (export "error" (type (eq $e)))))
                (alias export $store "bucket" (type $bucket))
                (alias export $store "error" (type $error))
                (import "wasi:keyvalue/batch@0.2.0-draft2" (instance
                    (alias outer 1 $bucket (type $b))
                    (alias outer 1 $error (type $e))
                    (export "get-many" (func (param "bucket" (borrow $b)) (param "keys" (list string))
                        (result (result (list {result}) (error $e)))))))
                (instance $handler)
                (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#
        ))
    };
    let older = with_result("(option (tuple string (list u8)))");
    assert!(older.contains("wasi:keyvalue/batch@0.2.0-draft2"), "{older}");
    // This one's imports are fine; what it lacks is a handler.
    let newer = with_result("(tuple string (option (list u8)))");
    assert!(newer.contains("describe") && !newer.contains("keyvalue"), "{newer}");
}

#[tokio::test]
async fn a_plugin_without_ports_and_with_a_number_in_any_notation_is_one() {
    let mut sink = spec("sink", &[]);
    sink.config.insert("bytes_max".into(), "hunter2".into());
    let sink = HOST.register(sink).unwrap();
    assert_eq!(sink.state_version(), 1_000);
    // A setting may be a secret, and what is said of a failure is kept.
    let failed = call(&sink, &[sent("a", "x")]).await.0.unwrap().failure().unwrap();
    assert_eq!(failed.reason, "the setting `bytes_max` does not fit: invalid digit found in string");
}

#[test]
fn plugins_import_state_only_when_they_use_it() {
    let imports = |name: &str| String::from_utf8_lossy(&guest(name)).contains("wasi:keyvalue/");
    assert!(imports("counter") && !imports("validate"));
}

#[test]
fn asynchronous_components_are_named() {
    let error = register(
        r#"(component
            (core module $m
                (func (export "f") (result i32) i32.const 0)
                (func (export "cb") (param i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f async (canon lift (core func $i "f") async (callback (core func $i "cb"))))
            (instance $handler (export "describe" (func $f)))
            (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#,
    )
    .unwrap_err();
    assert!(matches!(error, RegisterError::Async { .. }), "{error}");
    assert!(error.to_string().contains("`componentize-qjs --sync`"), "{error}");
}

/// By wasmtime's words, which are no promise of it.
#[test]
fn a_component_of_too_many_parts_is_told_what_to_leave_out() {
    let composed = |module: &str, instances: usize| {
        let instances = "(core instance (instantiate $part))".repeat(instances);
        let text = with_handler("@0.1.0", "");
        register(&text.replacen("(component", &format!("(component (core module $part {module}) {instances}"), 1))
            .unwrap_err()
    };
    let parts = |error: &RegisterError| match error {
        RegisterError::TooManyParts { parts, found, max } => Some((*parts, *found, *max)),
        _ => None,
    };
    // One more is the handler's.
    let error = composed("", 64);
    assert_eq!(parts(&error), Some(("core module instances", 65, 64)), "{error}");
    let words = "has 65 core module instances, and at most 64 are accepted: compose fewer components into it";
    assert!(error.to_string().contains(words), "{error}");
    assert!(matches!(composed("", 63), RegisterError::Signature { .. }), "{}", composed("", 63));
    assert_eq!(parts(&composed("(memory 1)", 5)), Some(("Wasm linear memories", 5, 4)));
    assert_eq!(parts(&composed("(table 1 funcref)", 9)), Some(("tables", 9, 8)));
}

#[test]
fn what_fails_at_its_start_says_how() {
    let trap = register(&with_handler("@0.1.0", "(func $s unreachable) (start $s)")).unwrap_err();
    assert!(matches!(trap, RegisterError::DoesNotStart { .. }), "{trap}");
    let large = register(&with_handler("@0.1.0", "(memory 2000)")).unwrap_err();
    assert!(large.to_string().contains("its limit is 67108864"), "{large}");
    let endless = register(&with_handler("@0.1.0", "(func $s (loop $l (br $l))) (start $s)")).unwrap_err();
    assert!(endless.to_string().contains("longer than its limit of 5s"), "{endless}");
}

#[test]
fn a_plugin_that_fails_to_describe_itself_says_how() {
    let described = |how: &str| {
        let mut spec = spec("hostile", &["out"]);
        spec.config.insert("describe".into(), how.into());
        spec.limits.time = std::time::Duration::from_millis(200);
        HOST.register(spec)
    };
    let panic = described("panic").unwrap_err().to_string();
    assert!(panic.contains("`describe`") && panic.contains("no ports today"), "{panic}");
    let endless = described("loop").unwrap_err().to_string();
    assert!(endless.contains("longer than its limit of 200ms"), "{endless}");
    let twice = described("out out").unwrap_err().to_string();
    assert!(twice.contains("describes the port `out` twice"), "{twice}");
}

#[test]
fn ports_must_be_those_that_the_topology_connects() {
    let message = |ports: &[&str]| HOST.register(spec("validate", ports)).unwrap_err().to_string();
    assert!(message(&["accepted"]).contains("does not connect `refused`"));
    assert!(message(&["accepted", "refused", "lost"]).contains("connects `lost`, which the plugin does not have"));
    assert_eq!(HOST.inspect(&guest("validate"), BTreeMap::new()).unwrap().ports, ["accepted", "refused"]);
}

#[test]
fn a_memory_limit_above_the_budget_is_refused() {
    let mut spec = spec("validate", &["accepted", "refused"]);
    spec.limits.memory_bytes = 1 << 50;
    let message = HOST.register(spec).unwrap_err().to_string();
    assert!(message.contains("lower `limits.memory`"), "{message}");
}

#[test]
fn the_same_plugin_has_the_same_digest_and_another_configuration_another() {
    let plain = HOST.register(spec("validate", &["accepted", "refused"])).unwrap();
    let again = HOST.register(spec("validate", &["accepted", "refused"])).unwrap();
    let mut other = spec("validate", &["accepted", "refused"]);
    other.config.insert("currency".into(), "CHF".into());
    let other = HOST.register(other).unwrap();
    assert_eq!(plain.digest(), again.digest());
    assert_ne!(plain.digest(), other.digest());
    assert_eq!(plain.wasm_digest(), other.wasm_digest());
}

fn cached(folder: &Path) -> Host {
    Host::new(HostOptions { cache_folder: Some(folder.to_owned()), ..HostOptions::default() }).unwrap()
}

fn only_entry(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| path.extension().is_some_and(|code| code == "code")).collect::<Vec<_>>();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].clone()
}

#[tokio::test]
async fn compiled_code_is_kept_and_a_damaged_entry_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    let works = async || {
        let plugin = cached(&folder).register(spec("hostile", &["out"])).unwrap();
        call(&plugin, &[sent("a", "echo a")]).await.0.unwrap();
    };
    works().await;
    let entry = only_entry(&folder);
    let good = fs::read(&entry).unwrap();
    let written = fs::metadata(&entry).unwrap().modified().unwrap();
    works().await;
    assert_eq!(fs::metadata(&entry).unwrap().modified().unwrap(), written, "it was loaded, not compiled again");

    let flipped = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        bytes
    };
    let damages = [
        flipped(0),
        flipped(20),
        flipped(60),
        flipped(100),
        flipped(good.len() / 2),
        flipped(good.len() - 1),
        good[..good.len() - 1].to_vec(),
        good[..50].to_vec(),
        Vec::new(),
        [&good[..], b"more"].concat(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        fs::write(&entry, damage).unwrap();
        works().await;
        assert!(fs::read(&entry).unwrap() == good, "damage {number} was replaced by what it should be");
    }
}

/// Whoever brings a folder of machine code would write it as this does: anything that is no secret can be computed
/// again.
#[tokio::test]
async fn code_that_somebody_else_has_made_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    let compiled = || drop(cached(&folder).register(spec("hostile", &["out"])).unwrap());
    compiled();
    let entry = only_entry(&folder);
    let good = fs::read(&entry).unwrap();
    let mut code = good[112..].to_vec();
    *code.last_mut().unwrap() ^= 1;
    let macs = [*blake3::hash(&code).as_bytes(), *blake3::keyed_hash(&[0; 32], &code).as_bytes()];
    for mac in macs {
        fs::write(&entry, [&good[..80], &mac, &code].concat()).unwrap();
        compiled();
        assert!(fs::read(&entry).unwrap() == good, "it was compiled again");
    }
    // As in another clone: what was right elsewhere is not right with another key.
    fs::remove_file(folder.join("key")).unwrap();
    compiled();
    assert!(fs::read(&entry).unwrap() != good);
}

#[test]
fn a_folder_that_others_may_write_to_is_not_used() {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    let outer = tempfile::tempdir().unwrap();
    let entries = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    let compiled = |folder: &Path| drop(cached(folder).register(spec("hostile", &["out"])).unwrap());

    let open = outer.path().join("open");
    fs::create_dir(&open).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        compiled(&open);
        assert_eq!(entries(&open), 0, "{mode:o}");
    }
    fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).unwrap();
    let link = outer.path().join("link");
    symlink(&open, &link).unwrap();
    compiled(&link);
    assert_eq!(entries(&open), 0, "through a link");

    // A key that others can read is no secret, and one that is a link is somebody's choice.
    compiled(&open);
    assert_eq!(entries(&open), 2, "the key and an entry");
    let (entry, key) = (only_entry(&open), open.join("key"));
    let written = fs::metadata(&entry).unwrap().modified().unwrap();
    fs::remove_file(&entry).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    compiled(&open);
    assert_eq!(entries(&open), 1);
    fs::rename(&key, outer.path().join("key")).unwrap();
    fs::set_permissions(outer.path().join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink(outer.path().join("key"), &key).unwrap();
    compiled(&open);
    assert_eq!(entries(&open), 1);
    fs::remove_file(&key).unwrap();
    compiled(&open);
    assert!(fs::metadata(&entry).unwrap().modified().unwrap() > written);

    // An entry that others may write to.
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o622)).unwrap();
    compiled(&open);
    assert_eq!(fs::metadata(&entry).unwrap().permissions().mode() & 0o777, 0o600, "it was written anew");

    // Only root can give a folder away.
    if chown(&open, Some(12_345), None).is_ok() {
        fs::remove_file(&entry).unwrap();
        compiled(&open);
        assert_eq!(entries(&open), 1);
    }
}

#[test]
fn processes_that_begin_together_have_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| cached(&folder)))));
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["key"]);
}

#[test]
fn the_folder_of_compiled_code_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    cached(&folder);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("key"))), (0o700, 0o600));
}
