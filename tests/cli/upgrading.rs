//! A data folder that an earlier release wrote under load until it was killed is carried on with.
//!
//! `tests/formats/data-old-keys.tar.gz` was written by the release before keys of topologies got their names of now
//! (`waiting`, `claim`, `was`), started on the `pay.yaml` in it. While payments of 23 accounts were published, a
//! topology was applied in which `totals` is called `sums`. Then it was killed with `kill -9`, when it had acknowledged
//! 3,500 payments and handled about a third of them. What it stores is kept for 100 years.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bus::{Bus, wattle};
use crate::common::trees::PATIENCE;

const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/data-old-keys.tar.gz");
/// Payments that the producer knew to be stored.
const ACKNOWLEDGED: usize = 3_500;

/// The amounts in a topic of payments, or the sums in one of totals, by account.
fn by_account(bus: &Bus, topic: &str, name: &str) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in bus.run(&["tail", topic, "--from", "earliest"]).json() {
        let key = event["key"].as_str().unwrap().to_owned();
        all.entry(key).or_default().push(event["event"]["data"][name].as_u64().unwrap());
    }
    all
}

/// The sums that a handler emits that is given these amounts, each once and in this order.
fn sums(amounts: &[u64]) -> Vec<u64> {
    let add = |sum: &mut u64, amount: &u64| {
        *sum += amount;
        Some(*sum)
    };
    amounts.iter().scan(0, add).collect()
}

/// The amounts that make these sums.
fn steps(sums: &[u64]) -> Vec<u64> {
    let before = [0].iter().chain(sums);
    before.zip(sums).map(|(before, sum)| sum - before).collect()
}

fn waits(bus: &Bus) -> Vec<String> {
    let status: Value = serde_json::from_str(&bus.run(&["status", "-o", "json"]).ok()).unwrap();
    let subscribers = status["subscribers"].as_array().unwrap().iter();
    let waiting = subscribers.filter(|subscriber| subscriber["lag"] != 0 || subscriber["retry_queue"] != 0);
    waiting.map(|subscriber| subscriber["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_folder_that_an_earlier_release_wrote_under_load_is_carried_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(ARCHIVE).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    let start = |folder: &Path| {
        let mut command = wattle();
        command.current_dir(folder).args(["run", "--data", "data", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        Bus::spawn(command)
    };
    let bus = start(folder.path());
    let begin = Instant::now();
    while !waits(&bus).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{:?} wait", waits(&bus));
        std::thread::sleep(Duration::from_millis(20));
    }

    let payments = by_account(&bus, "payments", "amount");
    let stored: usize = payments.values().map(Vec::len).sum();
    assert_eq!(stored, ACKNOWLEDGED);
    // What was applied runs, not what the files of the start said.
    assert_ne!(bus.run(&["tail", "totals", "-n", "1"]).code, Some(0));
    let expected: BTreeMap<_, _> = payments.iter().map(|(key, paid)| (key.clone(), sums(paid))).collect();
    assert_eq!(by_account(&bus, "sums", "sum"), expected);
    // Each payment went to one of the queue group.
    let (left, right) = (by_account(&bus, "totals.left", "sum"), by_account(&bus, "totals.right", "sum"));
    for (account, paid) in &payments {
        let of = |side: &BTreeMap<String, Vec<u64>>| side.get(account).map(|sums| steps(sums)).unwrap_or_default();
        let (left, right) = (of(&left), of(&right));
        assert!(left.is_sorted() && right.is_sorted() && !left.is_empty() && !right.is_empty(), "{left:?} {right:?}");
        let mut both = [left, right].concat();
        both.sort_unstable();
        assert_eq!(&both, paid, "{account}");
    }

    // A producer that sends everything again is recognised.
    let line = |number: usize| {
        let account = number % 23;
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"p-{number:05}\",\"source\":\"/till\",\"type\":\"paid\",\
             \"data\":{{\"account\":\"a-{account:02}\",\"amount\":{number}}}}}\n"
        )
    };
    let again: String = (1..=ACKNOWLEDGED).map(line).collect();
    bus.run_with(&["publish", "payments", "--file", "-"], &again).ok();
    assert_eq!(by_account(&bus, "payments", "amount"), payments);
    bus.stop();
    start(folder.path()).stop();
}
