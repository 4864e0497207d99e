//! What an apply, a plan and a start are about: the namespaces of their files, on top of what is applied.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::bus::{Bus, Ran, run, wattle};
use crate::common::guests::guest;

const JOBS: &str = "wattle: v1
name: shop
topics: { jobs: { dedupe: off }, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, config: { describe: done }, to: [done] }
";

/// Of the same namespace, and nothing without the other.
const SMS: &str = "wattle: v1
name: shop
topics: { sent: {} }
subscribers:
  sms: { from: done, plugin: work.wasm, config: { describe: sent }, to: [sent] }
";

const OTHER: &str = "wattle: v1
name: other
topics: { log: {}, kept: {} }
subscribers:
  keep: { from: log, plugin: work.wasm, config: { describe: kept }, to: [kept] }
";

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(shop.path("work.wasm"), guest("hostile")).unwrap();
        for (name, text) in [("jobs", JOBS), ("sms", SMS), ("other", OTHER)] {
            shop.write(name, text);
        }
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(&format!("{name}.yaml")), text).unwrap();
        self.file(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(&format!("{name}.yaml")).display().to_string()
    }

    fn command(&self, files: &[&str], more: &[&str]) -> std::process::Command {
        let mut command = wattle();
        command.arg("run").args(files.iter().map(|name| self.file(name))).arg("--data").arg(self.path("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
        command
    }

    fn start(&self, files: &[&str], more: &[&str]) -> Bus {
        Bus::spawn(self.command(files, more))
    }
}

fn subscribers(bus: &Bus) -> Vec<String> {
    let status = bus.run(&["status", "-o", "json"]).json().remove(0);
    let mut names: Vec<_> =
        status["subscribers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn revision(bus: &Bus) -> String {
    let status: Value = bus.run(&["status", "-o", "json"]).json().remove(0);
    status["topology_revision"].as_str().unwrap().to_owned()
}

fn refused(ran: Ran, code: i32, words: &str) {
    assert!(ran.code == Some(code) && ran.notices.contains(words), "{code} {words}: {ran:?}");
}

#[test]
fn files_are_added_to_what_is_applied_and_nothing_goes_that_they_do_not_name() {
    let shop = Shop::new();
    let bus = shop.start(&["jobs"], &[]);
    let (sms, other) = (shop.file("sms"), shop.file("other"));
    assert!(bus.run(&["apply", &sms]).ok().contains("+ subscriber shop/sms: added"));
    assert!(bus.run(&["apply", &other]).ok().contains("+ subscriber other/keep: added"));
    assert_eq!(subscribers(&bus), ["other/keep", "shop/sms", "shop/work"]);
    let plan = bus.run(&["plan", &sms]).ok();
    let stay = "nothing changes\n= topic shop/done: would be removed with --prune\n= topic shop/jobs: would be removed \
        with \
                --prune\n= subscriber shop/work: would be removed with --prune\n";
    assert_eq!(plan, stay);
    let plan = bus.run(&["plan", &sms, "-o", "json"]).json().remove(0);
    assert_eq!((plan["missing"].as_array().unwrap().len(), plan["revision"].as_str()), (3, Some(&*revision(&bus))));
    // what is pruned is of the namespace of the file
    let jobs = shop.file("jobs");
    let planned = bus.run(&["plan", "--prune", &jobs]).ok();
    assert!(planned.contains("- subscriber shop/sms: removed") && !planned.contains("other/"), "{planned}");
    assert_eq!(bus.run(&["apply", "--prune", &jobs]).ok(), planned);
    assert_eq!(subscribers(&bus), ["other/keep", "shop/work"]);
    bus.stop();
    // a start follows the same rule, as often as it starts with these files
    for _ in 0..2 {
        let bus = shop.start(&["sms"], &[]);
        assert_eq!(subscribers(&bus), ["other/keep", "shop/sms", "shop/work"]);
        bus.stop();
    }
    let bus = shop.start(&["other", "jobs"], &["--prune"]);
    assert_eq!(subscribers(&bus), ["other/keep", "shop/work"]);
    bus.stop();
}

#[test]
fn what_was_applied_runs_without_files_and_without_what_they_named() {
    let shop = Shop::new();
    refused(shop.command(&[], &[]).output().unwrap().into(), 2, "name topology files");
    assert!(!shop.path("data").exists(), "nothing was begun");
    let bus = shop.start(&["jobs", "sms"], &[]);
    let first = revision(&bus);
    bus.stop();
    for name in ["jobs.yaml", "sms.yaml", "work.wasm"] {
        std::fs::remove_file(shop.path(name)).unwrap();
    }
    for _ in 0..2 {
        let bus = shop.start(&[], &[]);
        assert_eq!((subscribers(&bus), revision(&bus)), (vec!["shop/sms".into(), "shop/work".into()], first.clone()));
        bus.stop();
    }
}

#[test]
fn files_that_do_not_go_with_what_is_applied_any_more_start_what_is_also_where_they_have_changed() {
    let shop = Shop::new();
    shop.start(&["jobs"], &[]).stop();
    let bus = shop.start(&["sms"], &[]);
    let renamed =
        JOBS.replace("done: {}", "ready: { renamed_from: done }").replace("to: [done]", "to: { done: ready }");
    bus.run(&["apply", &shop.write("renamed", &renamed)]).ok();
    bus.stop();
    let bus = shop.start(&["sms"], &[]);
    assert_eq!(subscribers(&bus), ["shop/sms", "shop/work"]);
    bus.stop();
    shop.write("sms", &SMS.replace("topics:", "# now\ntopics:"));
    let bus = shop.start(&["sms"], &[]);
    assert_eq!(subscribers(&bus), ["shop/sms", "shop/work"]);
    let status = bus.run(&["status"]).ok();
    assert!(status.contains("what the files of the start say does not run"), "{status}");
    bus.stop();
}

#[test]
fn a_mistake_is_shown_in_the_file_and_what_is_applied_is_called_so() {
    let shop = Shop::new();
    let bus = shop.start(&["jobs"], &[]);
    let second = SMS.replace("from: done", "from: jobs").replace("to: [sent]", "to: { sent: done }");
    let bad = shop.write("bad", &second.replace("topics: { sent: {} }", "topics: {}"));
    for command in ["plan", "apply"] {
        let ran = bus.run(&[command, &bad]);
        assert!(ran.notices.contains("bad.yaml:5:") && ran.notices.contains("as applied:"), "{ran:?}");
        refused(ran, 78, "error[two-parents]");
    }
    bus.stop();
    // what is wrong with a file is said although there is no bus
    let bad = shop.write("bad", &SMS.replace("topics", "topcis"));
    refused(run(&["apply", &bad, "--server", "127.0.0.1:1"]), 78, "did you mean `topics`?");
    refused(run(&["apply", &shop.file("jobs"), "--server", "127.0.0.1:1"]), 3, "cannot reach a bus");
}

#[test]
fn a_plan_and_a_check_exit_as_an_apply_does() {
    let shop = Shop::new();
    let bus = shop.start(&["jobs"], &[]);
    let unconnected = JOBS.replace("describe: done", "describe: other");
    for (text, checked) in [(unconnected, 78), (JOBS.replace("jobs: {", "jobs: { partitions: 2,"), 0), (JOBS.into(), 0)]
    {
        let file = shop.write("next", &text);
        let planned = bus.run(&["plan", &file]);
        let applied = bus.run(&["apply", &file]);
        assert_eq!(planned.code, applied.code, "{planned:?} {applied:?}");
        let checks = run(&["check", &file]);
        assert_eq!(checks.code, Some(checked), "{checks:?}");
        if checked == 78 {
            let words = "the topology does not connect `other`";
            assert!(planned.notices.contains(words), "{planned:?}");
            assert!(applied.notices.contains(words) && checks.notices.contains(words), "{applied:?} {checks:?}");
            let checks = run(&["check", "-o", "json", &file]);
            let report: Value = serde_json::from_str(&checks.out).unwrap();
            assert!(report["ok"] == false && report.to_string().contains(words), "{report}");
        }
    }
    bus.stop();
}

#[test]
fn who_applies_on_top_of_what_is_not_applied_any_more_is_refused_with_a_code_of_its_own() {
    let shop = Shop::new();
    let bus = shop.start(&["jobs"], &[]);
    let (before, sms, other) = (revision(&bus), shop.file("sms"), shop.file("other"));
    bus.run(&["apply", &other, "--if", &before]).ok();
    refused(bus.run(&["apply", &sms, "--if", &before]), 5, "other/keep was added");
    assert_eq!(subscribers(&bus), ["other/keep", "shop/work"]);
    bus.run(&["apply", &sms, "--if", &revision(&bus)]).ok();
    let after = revision(&bus);
    assert!(bus.run(&["status"]).ok().contains(&format!("topology: revision {after}\n")));
    // versions likewise
    let version = bus.run(&["plugin", "list", "-o", "json"]).json()[0]["stable"].as_str().unwrap().to_owned();
    let component = shop.path("work.wasm").display().to_string();
    let wrong = "0000000000000000";
    for command in
        [&["plugin", "deploy", "work", &component][..], &["plugin", "rollback", "work"], &["plugin", "pin", "work"]]
    {
        refused(bus.run(&[command, &["--if", wrong]].concat()), 5, "another change came first");
    }
    bus.run(&["plugin", "pin", "work", "--if", &version]).ok();
    bus.stop();
    let bus = shop.start(&["jobs"], &[]);
    assert_eq!(revision(&bus), after, "over a start");
    bus.stop();
}

#[test]
fn a_port_that_is_misspelt_is_shown_in_the_file_beside_all_else_that_is_wrong() {
    let shop = Shop::new();
    let misspelt = JOBS.replace("to: [done]", "to: { doen: done }, retry: { atempts: 3 }");
    let file = shop.write("next", &misspelt.replace("from: jobs", "from: jbos"));
    let checked = run(&["check", &file]);
    for words in [
        "the topology connects `doen`, which the plugin does not have",
        "next.yaml:5:76",
        "did you mean `done`?",
        "did you mean `attempts`?",
        "did you mean `jobs`?",
        "3 errors",
    ] {
        assert!(checked.notices.contains(words), "{words}: {checked:?}");
    }
    refused(checked, 78, "unknown port");
}
