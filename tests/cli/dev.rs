//! `wattle dev`.

use std::path::Path;

use super::bus::{Bus, Ran, TOPOLOGY, wattle};

fn dev(folder: &Path, more: &[&str]) -> Ran {
    // In a folder of its own, since it keeps compiled plugins beside where it is run.
    let mut command = wattle();
    std::fs::create_dir_all(folder.join("tmp")).unwrap();
    command.env("TMPDIR", folder.join("tmp"));
    command.current_dir(folder).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0", "--once"]).args(more);
    command.output().unwrap().into()
}

#[test]
fn once_handles_its_input_prints_every_node_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), TOPOLOGY).unwrap();
    let line = |id: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\"}}\n");
    std::fs::write(folder.path().join("events.ndjson"), line(1) + &line(2) + &line(1)).unwrap();
    let report = dev(folder.path(), &["--input", "log=events.ndjson"]).ok();
    assert!(report.contains("shop/log     2 events") && report.contains("shop/orders  0 events"), "{report}");
    assert!(report.contains("no failures"), "{report}");
    let ran = dev(folder.path(), &["--input", "events.ndjson"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.notices.contains("shop/log, shop/orders") || ran.notices.contains("shop/orders, shop/log"), "{ran:?}");
    let ran = dev(folder.path(), &["--input", "log=nothing.ndjson"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let left = std::fs::read_dir(folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn a_topology_that_changes_is_applied_or_told_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, TOPOLOGY).unwrap();
    let mut command = wattle();
    command.current_dir(folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut bus = Bus::spawn_dev(command);
    let topics = |bus: &Bus| {
        let topics = bus.run(&["topics", "-o", "json"]).json().remove(0);
        let names = topics.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(topics(&bus), "shop/orders shop/log");
    std::fs::write(&file, TOPOLOGY.replace("log: {}", "log: {}\n  more: {}")).unwrap();
    bus.wait_for("has changed and was applied");
    assert_eq!(topics(&bus), "shop/orders shop/log shop/more");
    std::fs::write(&file, TOPOLOGY.replace("log: {}", "log: { colour: red }")).unwrap();
    bus.wait_for("colour");
    bus.wait_for("what ran before runs on");
    assert_eq!(topics(&bus), "shop/orders shop/log shop/more");
    // what is taken out goes, and a file that is put in its place is another one
    std::fs::write(folder.path().join("new.yaml"), TOPOLOGY).unwrap();
    std::fs::rename(folder.path().join("new.yaml"), &file).unwrap();
    bus.wait_for("has changed and was applied");
    assert_eq!(topics(&bus), "shop/orders shop/log");
    bus.stop();
}

#[test]
fn a_schema_that_changes_is_applied_and_one_that_is_broken_is_told_of_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let schema = |required: &str| {
        let text = format!(r#"{{"type":"object","required":["{required}"]}}"#);
        std::fs::write(folder.path().join("order.json"), text).unwrap();
    };
    schema("a");
    let yaml = TOPOLOGY.replace("log: {}", "log: { schema: order.json }");
    assert_ne!(yaml, TOPOLOGY);
    std::fs::write(folder.path().join("shop.yaml"), &yaml).unwrap();
    let mut command = wattle();
    command.current_dir(folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut bus = Bus::spawn_dev(command);
    bus.run(&["publish", "log", r#"{"a":1}"#]).ok();
    schema("b");
    bus.wait_for("has changed and was applied");
    bus.run(&["publish", "log", r#"{"b":1}"#]).ok();
    assert_eq!(bus.run(&["publish", "log", r#"{"a":1}"#]).code, Some(1));
    std::fs::write(folder.path().join("order.json"), "{").unwrap();
    bus.wait_for("what ran before runs on");
    bus.run(&["publish", "log", r#"{"b":1}"#]).ok();
    schema("a");
    bus.wait_for("has changed and was applied");
    bus.run(&["publish", "log", r#"{"a":1}"#]).ok();
    // a namespace that is called otherwise is another one
    std::fs::write(folder.path().join("shop.yaml"), yaml.replace("name: shop", "name: store")).unwrap();
    bus.wait_for("no file declares this namespace any more");
    bus.stop();
}

#[test]
fn a_schema_that_changes_while_the_bus_starts_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("order.json");
    std::fs::write(&schema, r#"{"required":["a"]}"#).unwrap();
    let yaml = TOPOLOGY.replace("log: {}", "log: { schema: order.json }");
    std::fs::write(folder.path().join("shop.yaml"), yaml).unwrap();
    let mut command = wattle();
    command.current_dir(folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut bus = Bus::spawn_silent(command);
    // The files have been read when this is said, and nothing is watched yet.
    bus.wait_for("unused-topic");
    std::fs::write(&schema, r#"{"required":["b"]}"#).unwrap();
    bus.wait_for("has changed and was applied");
    bus.stop();
}

#[test]
fn a_data_folder_that_is_named_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), TOPOLOGY).unwrap();
    let line = |id: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\"}}\n");
    // What was there before is recognised.
    for (input, expected) in [
        (line(1), "shop/log     1 event,"),
        (line(2), "shop/log     2 events,"),
        (line(1) + &line(2), "shop/log     2 events\n"),
    ] {
        std::fs::write(folder.path().join("events.ndjson"), input).unwrap();
        let report = dev(folder.path(), &["--data", "kept", "--input", "log=events.ndjson"]).ok();
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn plugin_folders_are_built_and_run_and_failures_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/validate");
    let topology = format!(
        "wattle: v1\nname: shop\ntopics: {{ orders: {{ key: data.order_id }}, accepted: {{}}, refused: {{}} }}\n\
         subscribers:\n  validate:\n    from: orders\n    plugin: {}\n    to: [accepted, refused]\n",
        plugin.display()
    );
    std::fs::write(folder.path().join("shop.yaml"), topology).unwrap();
    let event = |id: &str, data: &str| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\",\"data\":{data}}}\n")
    };
    let order = r#"{"order_id":"a","status":"created","currency":"EUR","customer":{"name":"N","email":"n@example.test"},
        "items":[{"sku":"rug","qty":1,"price_cents":100}],"total_cents":100}"#;
    let input = [event("good", &order.replace('\n', "")), event("bad", r#"{"order_id":"b"}"#)].concat();
    std::fs::write(folder.path().join("orders.ndjson"), input).unwrap();
    let report = dev(folder.path(), &["--input", "orders.ndjson"]).ok();
    assert!(report.contains("2 handled, 1 emitted, 1 dead"), "{report}");
    assert!(
        report.contains("accepted ▸ shop/accepted") && report.contains("shop/validate gave up 1 event"),
        "{report}"
    );
    assert!(report.contains("event bad (key b), 1 attempt, reject:"), "{report}");
}
