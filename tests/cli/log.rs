//! `wattle log` on folders in which nothing may be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::bus::{Bus, Ran, bus, run, wattle};

/// Every file in a folder, with what is in it and when it was changed.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, of) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        match of.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), (std::fs::read(&path).unwrap(), of.modified().unwrap()))),
        }
    }
    found
}

#[test]
fn a_file_of_events_that_is_missing_is_named_at_the_start_and_all_else_is_served() {
    let (folder, bus) = bus();
    for id in ["a", "b"] {
        bus.run(&["publish", "log", "x", "--id", id]).ok();
        bus.run(&["publish", "orders", "x", "--id", id]).ok();
    }
    bus.stop();
    let log = folder.path().join("data/log");
    let mut files = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let is_of_log = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // by the number of its topic, which is the third one: that of the audit is the first
        name.starts_with("segment-00000003-")
    };
    let file = files.find(is_of_log).expect("what was published is in segments");
    std::fs::rename(&file, folder.path().join("aside")).unwrap();

    let topology = folder.path().join("shop.yaml");
    let start = || {
        let mut command = wattle();
        command.arg("run").arg(&topology).arg("--data").arg(folder.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        Bus::spawn_silent(command)
    };
    let mut bus = start();
    let said = bus.wait_for("a file of events is missing");
    let name = file.file_name().unwrap().to_str().unwrap();
    for words in [name, "shop/log", "\"partition\":0", "\"first_offset\":0", "\"last_offset\":1", "put it back"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    bus.serves();
    let status = bus.run(&["status"]).ok();
    assert!(status.contains(name) && status.contains("offsets 0 to 1 of shop/log, partition 0"), "{status}");
    let json: serde_json::Value = bus.run(&["status", "-o", "json"]).json().remove(0);
    assert_eq!((&json["serving"], &json["storage"]["missing"][0]["topic"]), (&true.into(), &"shop/log".into()));
    assert_eq!(bus.run(&["tail", "orders"]).json().len(), 2, "all else is there");
    let unreadable = bus.run(&["tail", "log", "--from", "earliest"]);
    assert!(unreadable.code == Some(1) && unreadable.notices.contains(name), "{unreadable:?}");
    bus.stop();

    std::fs::rename(folder.path().join("aside"), &file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let mut bus = start();
    let said = bus.wait_for("a file of events is truncated");
    assert!(said.contains(name) && said.contains("\"last_offset\":1"), "{said}");
    bus.serves();
    let status = bus.run(&["status"]).ok();
    assert!(status.contains("a file of events is truncated") && status.contains(name), "{status}");
    let json: serde_json::Value = bus.run(&["status", "-o", "json"]).json().remove(0);
    assert_eq!(json["storage"]["missing"][0]["truncated"], true);
    bus.stop();

    std::fs::write(&file, &whole).unwrap();
    let mut bus = start();
    bus.serves();
    assert!(!bus.run(&["status"]).ok().contains("a file of events"));
    assert_eq!(bus.run(&["tail", "log"]).json().len(), 2);
    bus.stop();
}

/// Runs the command as somebody who may not look everywhere, where the tests are run by somebody who may.
fn as_nobody(arguments: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt;
    let mut command = wattle();
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.args(arguments).output().unwrap().into()
}

#[test]
fn what_may_not_be_looked_into_is_said_to_be_that_and_not_to_be_missing() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(home.path(), 0o755);
    let closed = home.path().join("closed");
    std::fs::create_dir_all(closed.join("log")).unwrap();
    std::fs::create_dir_all(closed.join("capsules")).unwrap();
    for file in ["Cargo.toml", "shop.yaml", "capsule", "a.wasm", "events"] {
        std::fs::write(closed.join(file), "").unwrap();
    }
    let topology = home.path().join("open.yaml");
    let plugin = closed.join("a.wasm");
    let text = format!(
        "wattle: v1\nname: s\ntopics: {{ t: {{}} }}\nsubscribers:\n  s: {{ from: t, plugin: {} }}\n",
        plugin.display()
    );
    std::fs::write(&topology, text).unwrap();
    let empty = home.path().join("empty.yaml");
    std::fs::write(&empty, super::bus::TOPOLOGY).unwrap();
    mode(&closed, 0o000);
    let in_it = |name: &str| closed.join(name).display().to_string();
    let (closed_name, topology, empty) =
        (closed.display().to_string(), topology.display().to_string(), empty.display().to_string());
    let inputs = format!("log={}", in_it("events"));
    for arguments in [
        &["log", "verify", "--data", &closed_name][..],
        &["log", "dump", "--data", &closed_name],
        &["log", "repair", "--data", &closed_name, "--truncate-at", "0"],
        &["run", "--data", &closed_name, "--listen", "127.0.0.1:0"],
        &["run", &empty, "--data", &closed_name, "--listen", "127.0.0.1:0"],
        &["capsule", "list", "--data", &closed_name],
        &["capsule", "list", &closed_name],
        &["capsule", "list", &in_it("capsules")],
        &["capsule", "show", &in_it("capsule")],
        &["capsule", "show", "shop/s/1", "--data", &closed_name],
        &["check", &in_it("shop.yaml")],
        &["check", &closed_name],
        &["check", &topology],
        &["build", &closed_name],
        &["publish", "t", "--file", &in_it("events"), "--server", "127.0.0.1:1"],
        &["dev", &empty, "--input", &inputs, "--listen", "127.0.0.1:0"],
    ] {
        let ran = as_nobody(arguments);
        assert!(!matches!(ran.code, Some(0) | None), "{arguments:?}: {ran:?}");
        let all = format!("{}{}", ran.out, ran.notices);
        let is_said = all.contains("Permission denied") || all.contains("may not look there");
        // who is asked for first may be the bus
        assert!(is_said || ran.code == Some(3), "{arguments:?}: {ran:?}");
        for wrong in ["is not the data folder", "no capsule", "there is no", "is not a folder", "there is nothing at"] {
            assert!(!all.contains(wrong), "{arguments:?}: {ran:?}");
        }
    }
    mode(&closed, 0o700);
}

#[test]
fn who_only_looks_writes_nothing_and_waits_for_no_one() {
    let (folder, bus) = bus();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    bus.run(&["publish", "orders", "{}"]).ok();
    for command in [&["log", "verify"][..], &["log", "dump"]] {
        let refused = run(&[command, &["--data", data]].concat());
        assert_eq!(refused.code, Some(1));
        assert!(refused.notices.contains("belongs to another running bus"), "{refused:?}");
    }
    bus.signal("KILL");
    drop(bus);

    // a copy, as a snapshot of the disk is
    std::fs::remove_file(Path::new(data).join("lock")).unwrap();
    let before = contents(Path::new(data));
    let verified = run(&["log", "verify", "--data", data]).ok();
    assert!(verified.contains("no damage found"), "{verified}");
    assert!(verified.contains("plugins: 0 components of 0 subscribers, and the applied topology"), "{verified}");
    assert!(run(&["log", "dump", "--data", data]).ok().contains("unit"), "the event is in the journal");
    let after = contents(Path::new(data));
    let changed: Vec<_> =
        after.iter().filter(|(path, of)| before.get(*path) != Some(of)).map(|(path, _)| path).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
}

#[test]
fn a_verification_says_what_it_checked_and_did_not_find() {
    let (folder, bus) = bus();
    bus.run(&["publish", "orders", "{}"]).ok();
    bus.stop();
    let data = folder.path().join("data");
    let verify = |more: &[&str]| run(&[&["log", "verify", "--data", data.to_str().unwrap()], more].concat());
    let plugins = data.join("plugins");
    let topology = std::fs::read(plugins.join("topology")).unwrap();
    std::fs::write(plugins.join("topology"), &topology[..topology.len() - 2]).unwrap();
    let damaged = verify(&[]);
    assert!(damaged.code == Some(1) && damaged.out.contains("the applied topology is damaged"), "{damaged:?}");
    std::fs::remove_file(plugins.join("topology")).unwrap();
    let without = verify(&[]).ok();
    assert!(without.contains("not found: `plugins/topology`") && without.contains("no damage found"), "{without}");
    std::fs::remove_dir_all(&plugins).unwrap();
    let without = verify(&[]).ok();
    assert!(without.contains("not found: `plugins`") && without.contains("1 events"), "{without}");
    assert_eq!(verify(&["-o", "json"]).json()[0]["plugins"], serde_json::Value::Null);
}
