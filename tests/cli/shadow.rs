//! `wattle plugin shadow`, with real plugins on a running bus.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::bus::{Bus, Ran, run_with, wattle};
use crate::common::guests::{guest, guest_path};
use crate::common::trees::PATIENCE;

const TOPOLOGY: &str = "wattle: v1
name: shop
topics: { jobs: {}, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, to: [done], retry: { attempts: 1 } }
";

struct Shop {
    folder: TempDir,
    bus: Bus,
}

impl Shop {
    /// A bus that has handled these jobs.
    fn new(jobs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("shop.yaml"), TOPOLOGY).unwrap();
        std::fs::write(folder.path().join("work.wasm"), guest("hostile")).unwrap();
        let mut command = wattle();
        command.arg("run").arg(folder.path().join("shop.yaml")).arg("--data").arg(folder.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        let bus = Bus::spawn(command);
        let shop = Self { folder, bus };
        shop.publish(jobs);
        shop
    }

    /// Has jobs handled, each an event of its own, of the key `k`.
    fn publish(&self, jobs: &[&str]) {
        static PUBLISHED: AtomicUsize = AtomicUsize::new(0);
        let event = |job: &&str| {
            let (job, number) = (serde_json::to_string(job).unwrap(), PUBLISHED.fetch_add(1, Ordering::SeqCst));
            let head = r#"{"specversion":"1.0","source":"/s","type":"t","subject":"k","datacontenttype":"text/plain""#;
            format!("{head},\"id\":\"e{number}\",\"data\":{job}}}\n")
        };
        let (bus, events) = (&self.bus, jobs.iter().map(event).collect::<String>());
        run_with(&["publish", "jobs", "--server", &bus.address, "--file", "-"], &events).ok();
        let is_behind = || {
            let status = bus.run(&["status", "-o", "json"]).ok();
            let status: Value = serde_json::from_str(status.lines().next().unwrap()).unwrap();
            status["subscribers"][0]["lag"] != 0
        };
        let begin = std::time::Instant::now();
        while is_behind() {
            assert!(begin.elapsed() < PATIENCE, "{}", bus.run(&["status"]).ok());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn shadow(&self, file: &Path, more: &[&str]) -> Ran {
        let mut arguments = vec!["plugin", "shadow", "work", file.to_str().unwrap()];
        arguments.extend(more);
        self.bus.run(&arguments)
    }

    /// The same plugin with other words for what it rejects.
    fn other(&self) -> PathBuf {
        let mut wasm = guest("hostile");
        let places: Vec<usize> = (0..wasm.len() - 5).filter(|at| &wasm[*at..at + 5] == b"never").collect();
        assert!(!places.is_empty(), "the words are in the component");
        places.iter().for_each(|at| wasm[*at..at + 5].copy_from_slice(b"nevah"));
        let path = self.folder.path().join("other.wasm");
        std::fs::write(&path, wasm).unwrap();
        path
    }
}

#[test]
fn what_another_version_would_do_is_shown_and_nothing_is_changed() {
    let shop = Shop::new(&["echo 1", "reject", "state increment a=1", "echo 2"]);
    let report = shop.shadow(&guest_path("hostile"), &["--fail-on-diff"]).ok();
    assert!(report.contains("4 events compared") && report.contains("does not differ"), "{report}");
    let before = shop.bus.run(&["tail", "done"]).ok();
    let other = shop.other();
    let report = shop.shadow(&other, &[]).ok();
    assert!(report.contains("differs with 1 event: outputs with 0, state with 0, failures with 1"), "{report}");
    assert!(report.contains(" (key k, partition 0, offset 1)"), "{report}");
    assert!(report.contains("\"reason\": \"never\"") && report.contains("\"reason\": \"nevah\""), "{report}");
    let ran = shop.shadow(&other, &["--fail-on-diff", "-o", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&report["events"], &report["differing"], &report["held_against_record"]),
        (&4.into(), &1.into(), &4.into())
    );
    assert_eq!(report["shown"][0]["new"]["failure"]["reason"], "nevah");
    assert!(report["new"]["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
    assert_eq!(shop.bus.run(&["tail", "done"]).ok(), before);
    let versions = shop.bus.run(&["plugin", "versions", "work", "-o", "json"]).json();
    assert_eq!(versions.len(), 1, "it is not kept: {versions:?}");
    shop.bus.stop();
}

#[test]
fn a_gate_is_not_open_where_nothing_was_compared() {
    let counts = Shop::new(&["count", "count", "count"]);
    let ran = counts.shadow(&guest_path("hostile"), &["--fail-on-diff", "--allow-nondeterministic"]);
    assert_eq!(ran.code, Some(1), "all of them are left out: {ran:?}");
    assert!(ran.out.contains("is not known") && ran.notices.contains("no event was compared"), "{ran:?}");
    counts.bus.stop();
    let shop = Shop::new(&["state increment a=1"]);
    shop.bus.run(&["state", "snapshot", "work"]).ok();
    let ran = shop.shadow(&guest_path("hostile"), &["--state", "1", "--fail-on-diff"]);
    assert_eq!((ran.code, ran.out.trim()), (Some(1), "0 events compared"), "{ran:?}");
    shop.shadow(&guest_path("hostile"), &["--state", "1"]).ok();
    shop.bus.stop();
}

#[test]
fn it_begins_with_no_state_or_with_a_snapshot_and_with_as_many_events_as_are_asked_for() {
    let shop = Shop::new(&["state increment a=1", "state increment a=1", "state get a"]);
    let same = guest_path("hostile");
    let report = shop.shadow(&same, &["--last", "2", "-o", "json"]).json();
    let [report] = report.as_slice() else { panic!("{report:?}") };
    assert_eq!(
        (&report["events"], &report["over_other_state"], &report["differing"]),
        (&2.into(), &2.into(), &0.into())
    );
    let snapshot = shop.folder.path().join("before.ndjson");
    std::fs::write(&snapshot, "{\"key\":\"a\",\"value\":\"1\"}\n").unwrap();
    let report = shop.shadow(&same, &["--last", "2", "--state", snapshot.to_str().unwrap(), "-o", "json"]).json();
    assert_eq!(
        (&report[0]["over_other_state"], &report[0]["held_against_record"]),
        (&0.into(), &2.into()),
        "{report:?}"
    );
    let ran = shop.shadow(&same, &["--state", "nothing.ndjson"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    shop.bus.stop();
}

#[test]
fn behind_a_snapshot_it_begins_with_its_state() {
    let shop = Shop::new(&["state increment a=1"]);
    shop.bus.run(&["state", "snapshot", "work"]).ok();
    shop.publish(&["state increment a=1", "state get a"]);
    let report = shop.shadow(&guest_path("hostile"), &["--state", "1", "-o", "json"]).json().remove(0);
    let field = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(["events", "held_against_record", "over_other_state"].map(field), [2, 2, 0], "{report}");
    let ran = shop.shadow(&guest_path("hostile"), &["--state", "7"]);
    assert!(ran.code == Some(1) && ran.notices.contains("no snapshot 7"), "{ran:?}");
    shop.bus.stop();
}

#[test]
fn events_that_come_are_compared_until_there_were_enough_or_somebody_says_so() {
    let shop = Shop::new(&["state increment a=1"]);
    let follow = |more: &[&str]| {
        let mut command = wattle();
        command.env("WATTLE_SERVER", &shop.bus.address).args(["plugin", "shadow", "work", "--live", "-o", "json"]);
        command.arg(shop.other()).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // When it has begun nobody says, so jobs are published until it has had enough of them.
    let mut enough = follow(&["--events", "2"]);
    while enough.try_wait().unwrap().is_none() {
        shop.publish(&["reject"]);
    }
    let report = &Ran::from(enough.wait_with_output().unwrap()).json()[0];
    assert_eq!((&report["events"], &report["differing"]), (&2.into(), &2.into()), "{report}");

    let mut asked = follow(&[]);
    let mut notices = BufReader::new(asked.stderr.take().unwrap()).lines();
    assert!(notices.next().unwrap().unwrap().contains("Ctrl-C"));
    let interrupt = Command::new("kill").args(["-s", "INT", &asked.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let ran = Ran::from(asked.wait_with_output().unwrap());
    assert_eq!(ran.json()[0]["events"], 0, "the report so far");
    let ran = shop.shadow(&shop.other(), &["--live", "--for", "1ms"]);
    assert!(ran.ok().starts_with("0 events compared\n"));
    shop.bus.stop();
}

#[test]
fn a_plugin_that_is_not_deterministic_is_found_out_and_one_that_does_not_fit_is_refused() {
    let shop = Shop::new(&["count", "echo", "count"]);
    let ran = shop.shadow(&guest_path("hostile"), &["--fail-on-diff"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("the running version is not deterministic"), "{ran:?}");
    assert!(ran.notices.contains("--allow-nondeterministic"), "{ran:?}");
    shop.shadow(&guest_path("hostile"), &["--fail-on-diff", "--allow-nondeterministic"]).ok();
    let ran = shop.shadow(&guest_path("validate"), &[]);
    assert!(ran.code == Some(1) && ran.notices.contains("accepted"), "{ran:?}");
    let ran = shop.bus.run(&["plugin", "shadow", "wrok", guest_path("hostile").to_str().unwrap()]);
    assert!(ran.code == Some(1) && ran.notices.contains("wrok"), "{ran:?}");
    shop.bus.stop();
}
