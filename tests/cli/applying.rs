//! Topologies that change while their bus runs, and across its starts.

use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;

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
        "  sms: { from: jobs, plugin: work.wasm, config: { describe: sent }, to: [sent], retry: { attempts: 1 } }\n";
    format!("{}{sms}", BEFORE.replace("done: {} }", "done: {}, sent: {} }"))
}

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(shop.path("work.wasm"), guest("hostile")).unwrap();
        shop.write(BEFORE);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("shop.yaml"), text).unwrap();
    }

    fn file(&self) -> String {
        self.path("shop.yaml").display().to_string()
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = wattle();
        command.arg("run").arg(self.path("shop.yaml")).arg("--data").arg(self.path("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
        command
    }
}

/// Waits until so many events are in a topic.
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

fn publish(bus: &Bus, data: &str) {
    bus.run(&["publish", "jobs", data, "--key", "k"]).ok();
}

#[test]
fn a_subscriber_is_added_to_a_running_bus_and_stays_over_a_start() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    assert_eq!(bus.run(&["plan", &shop.file()]).ok(), "nothing changes\n");
    shop.write(&after());
    let plan = bus.run(&["plan", &shop.file()]).ok();
    assert!(plan.starts_with("+ topic shop/sent: added\n    a child of shop/sms\n"), "{plan}");
    assert!(plan.contains("+ subscriber shop/sms: added\n    takes from shop/jobs, all that it has\n"), "{plan}");
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("the files say something else") && status.contains("+ topic shop/sent"), "{status}");
    assert_eq!(bus.run(&["apply", &shop.file()]).ok(), plan);
    has(&bus, "sent", 1);
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("what runs is what the files say"), "{status}");
    bus.stop();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 2");
    has(&bus, "sent", 2);
    has(&bus, "done", 2);
    bus.stop();
}

#[test]
fn what_is_wrong_changes_nothing_and_says_why() {
    let shop = Shop::new();
    std::fs::write(shop.path("bad.wasm"), "no component").unwrap();
    let bus = Bus::spawn(shop.command(&[]));
    for (text, words) in [
        (BEFORE.replace("from: jobs", "from: nowhere"), "nowhere"),
        (BEFORE.replace("jobs: {", "jobs: { partitions: 2,"), "partitions"),
        (after().replace("sms: { from: jobs, plugin: work.wasm", "sms: { from: jobs, plugin: bad.wasm"), "bad.wasm"),
    ] {
        shop.write(&text);
        let applied = bus.run(&["apply", &shop.file()]);
        assert_ne!(applied.code, Some(0), "{words}");
        assert!(applied.notices.contains(words), "{words}: {}", applied.notices);
    }
    shop.write(BEFORE);
    assert_eq!(bus.run(&["plan", &shop.file()]).ok(), "nothing changes\n");
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    bus.stop();
}

#[test]
fn what_would_lose_events_has_to_be_allowed_also_at_a_start() {
    let shop = Shop::new();
    shop.write(&after());
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "sent", 1);
    has(&bus, "done", 1);
    shop.write(BEFORE);
    let plan = bus.run(&["plan", &shop.file()]).ok();
    assert!(plan.contains("- subscriber shop/sms: removed\n"), "{plan}");
    assert!(plan.contains("needs --allow-loss: topic `shop/sent` still has 1 events"), "{plan}");
    let refused = bus.run(&["apply", &shop.file()]);
    assert!(refused.code != Some(0) && refused.notices.contains("--allow-loss"), "{}", refused.notices);
    bus.stop();
    let refused = shop.command(&[]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("still has 1 events") && said.contains("--allow-loss"), "{said}");
    // Nothing was decided: what ran before still does.
    shop.write(&after());
    let bus = Bus::spawn(shop.command(&[]));
    has(&bus, "sent", 1);
    bus.stop();
    shop.write(BEFORE);
    let bus = Bus::spawn(shop.command(&["--allow-loss"]));
    assert_ne!(bus.run(&["tail", "sent"]).code, Some(0), "it is gone");
    publish(&bus, "echo 2");
    has(&bus, "done", 2);
    let refused = bus.run(&["gc"]);
    assert!(refused.code != Some(0) && refused.notices.contains("has yet to handle 1 events"), "{}", refused.notices);
    assert_eq!(bus.run(&["gc", "--allow-loss"]).ok(), "shop/sms is forgotten\n");
    assert_eq!(bus.run(&["gc"]).ok(), "there is nothing to forget\n");
    bus.stop();
}

#[test]
fn what_is_renamed_is_found_by_its_new_name_with_all_that_it_has() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    publish(&bus, "reject");
    has(&bus, "done", 1);
    has(&bus, "work.dead", 1);
    let versions = bus.run(&["plugin", "versions", "work"]).ok();
    let renamed = BEFORE
        .replace("jobs: {", "tasks: { was: jobs,")
        .replace("work: { from: jobs", "worker: { was: work, from: tasks");
    shop.write(&renamed);
    let plan = bus.run(&["plan", &shop.file()]).ok();
    let words = "its lanes end their calls and go on from where they are";
    let called = "what it takes from is called shop/tasks, and was shop/jobs";
    let expected = format!(
        "~ topic shop/jobs -> shop/tasks: renamed\n~ subscriber shop/work -> shop/worker: renamed\n    {called}\n    {words}\n"
    );
    assert_eq!(plan, expected);
    assert_eq!(bus.run(&["apply", &shop.file()]).ok(), plan);
    assert_eq!(bus.run(&["plan", &shop.file()]).ok(), "nothing changes\n");
    assert_eq!(bus.run(&["plugin", "versions", "worker"]).ok(), versions);
    assert_eq!(bus.run(&["gc"]).ok(), "there is nothing to forget\n");
    has(&bus, "worker.dead", 1);
    assert_ne!(bus.run(&["tail", "jobs"]).code, Some(0), "the old name is free");
    bus.stop();
    // And at a start, on a file that calls the other topic otherwise.
    shop.write(&renamed.replace("done: {}", "results: { was: done }").replace("to: [done]", "to: { done: results }"));
    let bus = Bus::spawn(shop.command(&[]));
    has(&bus, "results", 1);
    bus.run(&["publish", "tasks", "echo 2", "--key", "k"]).ok();
    has(&bus, "results", 2);
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("what runs is what the files say"), "{status}");
    bus.stop();
}
