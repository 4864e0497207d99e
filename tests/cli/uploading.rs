//! `wattle apply` from another machine: the bus gets nothing of its client but what the client sends.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use wattle::api::Digest;
use wattle::client::Client;

use super::bus::{Bus, wattle};
use crate::common::guests::guest;
use crate::common::trees::PATIENCE;

const BEFORE: &str = "wattle: v1
name: shop
topics: { jobs: { dedupe: off }, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, config: { describe: done }, to: [done], retry: { attempts: 1 } }
";

/// The same with `sms` beside `work`.
fn after() -> String {
    let sms =
        "  sms: { from: jobs, plugin: sms.wasm, config: { describe: sent }, to: [sent], retry: { attempts: 1 } }\n";
    format!("{}{sms}", BEFORE.replace("done: {} }", "done: {}, sent: {} }"))
}

/// Another component that does the same: with a custom section named `m`.
fn marked(mark: u8) -> Vec<u8> {
    [guest("hostile").as_slice(), &[0, 3, 1, b'm', mark]].concat()
}

/// A machine: a folder of its own with a topology and its plugins.
fn machine(text: &str, plugins: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), text).unwrap();
    for (name, wasm) in plugins {
        std::fs::write(folder.path().join(name), wasm).unwrap();
    }
    folder
}

fn file(machine: &TempDir) -> String {
    machine.path().join("shop.yaml").display().to_string()
}

fn command(data: &Path, files: &[String]) -> std::process::Command {
    let mut command = wattle();
    command.arg("run").args(files).arg("--data").arg(data);
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    command
}

/// Waits until a topic has N events.
fn has(bus: &Bus, topic: &str, events: usize) {
    let begin = Instant::now();
    loop {
        let found = bus.run(&["tail", topic]).json().len();
        if found >= events {
            assert_eq!(found, events, "{topic}");
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{}", bus.run(&["status"]).ok());
    }
}

/// The components in a data folder.
fn components(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect()
}

#[test]
fn a_client_without_a_shared_disk_applies_and_nothing_of_it_is_needed_later() {
    let server = machine(BEFORE, &[("work.wasm", guest("hostile"))]);
    let data = server.path().join("data");
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    bus.run(&["publish", "jobs", "echo 1", "--key", "k"]).ok();
    has(&bus, "done", 1);
    // what runs is the same file, wherever it is
    let laptop = machine(BEFORE, &[("work.wasm", guest("hostile")), ("sms.wasm", marked(1))]);
    assert_eq!(bus.run(&["plan", &file(&laptop)]).ok(), "nothing changes\n");
    std::fs::write(file(&laptop), after()).unwrap();
    let plan = bus.run(&["plan", &file(&laptop)]).ok();
    assert!(plan.contains("+ subscriber shop/sms: added\n"), "{plan}");
    assert_eq!(bus.run(&["apply", &file(&laptop)]).ok(), plan);
    drop(laptop);
    has(&bus, "sent", 1);
    assert!(bus.run(&["plugin", "versions", "sms"]).ok().contains("applied"));
    bus.stop();
    drop(std::fs::remove_file(server.path().join("work.wasm")));

    let bus = Bus::spawn(command(&data, &[]));
    bus.run(&["publish", "jobs", "echo 2", "--key", "k"]).ok();
    has(&bus, "sent", 2);
    has(&bus, "done", 2);
    // another component is tried, and what is wrong with one is said of its file
    let laptop = machine(&after(), &[("work.wasm", guest("hostile")), ("sms.wasm", marked(2))]);
    let plan = bus.run(&["plan", &file(&laptop)]).ok();
    assert!(plan.starts_with("~ subscriber shop/sms: changed\n") && plan.contains("becomes a candidate"), "{plan}");
    assert_eq!(bus.run(&["apply", &file(&laptop)]).ok(), plan);
    let listed = bus.run(&["plugin", "list", "-o", "json"]).json();
    let of = |name: &str| listed.iter().find(|of| of["subscriber"] == name).unwrap();
    assert!(of("shop/sms")["candidate"].is_string() && of("shop/work")["candidate"].is_null(), "{listed:?}");
    std::fs::write(laptop.path().join("sms.wasm"), "no component").unwrap();
    for command in ["plan", "apply"] {
        let ran = bus.run(&[command, &file(&laptop)]);
        let said = format!("{}{}", ran.out, ran.notices);
        let path = laptop.path().join("sms.wasm").display().to_string();
        assert!(ran.code == Some(78) && said.contains(&format!("its plugin {path} is refused")), "{ran:?}");
    }
    std::fs::remove_file(laptop.path().join("sms.wasm")).unwrap();
    assert_eq!(bus.run(&["apply", &file(&laptop)]).code, Some(78));
    bus.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_upload_and_apply_leaves_nothing_and_the_apply_is_made_again() {
    let server = machine(BEFORE, &[("work.wasm", guest("hostile"))]);
    let data = server.path().join("data");
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    let (wasm, digest) = (marked(1), Digest::of(&marked(1)));
    let client = Client::connect(&bus.address).await.unwrap();
    client.upload(digest, wasm.clone().into()).await.unwrap();
    assert_eq!(client.missing_components(&[digest]).await.unwrap(), []);
    assert!(components(&data).contains(&data.join("plugins").join(format!("{digest}.wasm"))));
    bus.signal("KILL");
    bus.end();

    let bus = Bus::spawn(command(&data, &[file(&server)]));
    assert_eq!(components(&data).len(), 1, "only that of the version that runs");
    let client = Client::connect(&bus.address).await.unwrap();
    assert_eq!(client.missing_components(&[digest]).await.unwrap(), [digest]);
    let laptop = machine(&after(), &[("work.wasm", guest("hostile")), ("sms.wasm", wasm)]);
    bus.run(&["apply", &file(&laptop)]).ok();
    drop(laptop);
    bus.signal("KILL");
    bus.end();
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    bus.run(&["publish", "jobs", "echo 1", "--key", "k"]).ok();
    has(&bus, "sent", 1);
    assert_eq!(components(&data).len(), 2);
    bus.stop();
}

#[test]
fn a_start_whose_files_were_applied_as_they_are_warns_of_nothing() {
    let server = machine(BEFORE, &[("work.wasm", guest("hostile"))]);
    let data = server.path().join("data");
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    bus.run(&["apply", &file(&server)]).ok();
    bus.stop();
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    bus.signal("TERM");
    let (_, said) = bus.end();
    assert!(!said.contains("the applied topology runs, not the files"), "{said}");
    // the component of another machine runs on beside the unchanged files, which is said
    let bus = Bus::spawn(command(&data, &[file(&server)]));
    let laptop = machine(BEFORE, &[("work.wasm", marked(1))]);
    bus.run(&["apply", &file(&laptop)]).ok();
    bus.stop();
    let mut bus = Bus::spawn_silent(command(&data, &[file(&server)]));
    bus.wait_for("the applied topology runs, not the files");
    bus.serves();
    let candidate = |bus: &Bus| bus.run(&["plugin", "list", "-o", "json"]).json().remove(0)["candidate"].is_string();
    assert!(candidate(&bus));
    bus.stop();
}
