//! The last events, how they look, and a tail that goes on where the bus was stopped.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use super::bus::{Bus, bus, wattle};

fn ids(bus: &Bus, more: &[&str]) -> String {
    let events = bus.run(&[&["tail"], more].concat()).json();
    events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_last_events_are_those_that_came_last_of_all_partitions() {
    let (_folder, bus) = bus();
    for number in 0..40 {
        let (id, key) = (format!("e{number}"), format!("k{}", number % 7));
        let kind = if number == 3 || number == 11 { "rare" } else { "often" };
        bus.run(&["publish", "orders", "x", "--id", &id, "--key", &key, "--type", kind]).ok();
    }
    assert_eq!(ids(&bus, &["orders", "-n", "2"]), "e38 e39");
    assert_eq!(ids(&bus, &["orders", "-n", "5"]), "e35 e36 e37 e38 e39");
    assert_eq!(ids(&bus, &["orders", "-n", "1000"]).split(' ').count(), 40);
    assert_eq!(ids(&bus, &["orders", "-n", "1", "--key", "k3"]), "e38");
    assert_eq!(ids(&bus, &["orders", "-n", "5", "--type", "rare"]), "e3 e11", "however far back they are");
    assert_eq!(ids(&bus, &["orders", "-n", "1", "--type", "rare"]), "e11");
    assert_eq!(ids(&bus, &["orders", "-n", "1", "--type", "never"]), "");
    assert_eq!(ids(&bus, &["log", "-n", "3"]), "");
    assert_eq!(ids(&bus, &["orders", "-n", "0"]), "");
    assert_eq!(ids(&bus, &["orders", "-n", "0", "--from", "earliest"]), "");
    assert_eq!(ids(&bus, &["orders", "-n", "3", "--from", "earliest"]).split(' ').count(), 3);
    assert_eq!(ids(&bus, &["orders", "-n", "1", "--from", "earliest", "--key", "k0"]), "e0");
    for (wrong, words) in [
        (&["tail", "ordres", "-n", "1"][..], "did you mean"),
        (&["tail", "log", "-n", "1", "--partition", "7"], "no partition 7"),
        (&["tail", "ordres", "-n", "0"], "did you mean"),
        (&["tail", "log", "-n", "0", "--partition", "7"], "no partition 7"),
    ] {
        let ran = bus.run(wrong);
        assert!(ran.code == Some(1) && ran.notices.contains(words), "{ran:?}");
    }

    bus.run(&["publish", "log", "{\"a\": 1.10}", "--id", "x", "--key", "k"]).ok();
    assert_eq!(bus.run(&["tail", "log", "-o", "data"]).ok(), "{\"a\": 1.10}\n");
    let wide = bus.run(&["tail", "log", "-o", "wide"]).ok();
    assert!(wide.ends_with("Z  0:0  k  x  wattle.message  {\"a\": 1.10}\n"), "{wide}");
    bus.stop();
}

/// A tail whose ids come as they are printed.
struct Tail {
    child: std::process::Child,
    ids: mpsc::Receiver<String>,
    notices: mpsc::Receiver<String>,
}

impl Tail {
    fn start(server: &str, more: &[&str]) -> Self {
        let mut command = wattle();
        command.args(["tail", "orders", "--follow", "--server", server]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, ids) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                let _ = sender.send(line["event"]["id"].as_str().unwrap().to_owned());
            }
        });
        let (sender, notices) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, ids, notices }
    }

    fn next(&self) -> String {
        self.ids.recv().expect("it goes on")
    }

    fn wait_for(&self, words: &str) {
        while !self.notices.recv().expect("it goes on").contains(words) {}
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(bus: &Bus, range: std::ops::Range<u32>) {
    let line = |n: u32| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"/s\",\"type\":\"t\",\"partitionkey\":\"k{}\"}}\n",
            n % 3
        )
    };
    let mut child = wattle();
    child
        .args(["publish", "orders", "--file", "-", "--server", &bus.address])
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    range.for_each(|n| input.write_all(line(n).as_bytes()).unwrap());
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn again(folder: &Path, address: &str) -> Bus {
    let mut command = wattle();
    command.arg("run").arg(folder.join("shop.yaml")).arg("--data").arg(folder.join("data"));
    command.args(["--listen", address, "--log-format", "json"]);
    Bus::spawn(command)
}

/// The ids of that number of events, in whatever order partitions took turns.
fn some(tail: &Tail, count: u32) -> Vec<u32> {
    let mut some: Vec<u32> = (0..count).map(|_| tail.next().parse().unwrap()).collect();
    some.sort_unstable();
    some
}

#[test]
fn without_stored_events_only_new_ones_are_followed() {
    let (_folder, bus) = bus();
    publish(&bus, 0..5);
    let tail = Tail::start(&bus.address, &["-n", "0"]);
    let first = (5..).find_map(|number| {
        publish(&bus, number..number + 1);
        tail.ids.recv_timeout(Duration::from_millis(200)).ok()
    });
    assert!(first.unwrap().parse::<u32>().unwrap() >= 5);
    bus.stop();
}

#[test]
fn a_tail_goes_on_at_its_place_where_the_bus_is_stopped_or_killed_and_started_again() {
    let (folder, mut bus) = bus();
    let address = bus.address.clone();
    publish(&bus, 0..8);
    publish(&bus, 8..10);
    let tail = |more: &[&str]| Tail::start(&address, more);
    let tails =
        [tail(&[]), tail(&["--from", "earliest"]), tail(&["-n", "2"]), tail(&["--from", "1h"]), tail(&["--from", "1"])];
    assert_eq!(some(&tails[1], 10), (0..10).collect::<Vec<_>>());
    assert_eq!(some(&tails[2], 2), [8, 9]);
    assert_eq!(some(&tails[3], 10), (0..10).collect::<Vec<_>>());
    let mut behind: Vec<u32> = ids(&bus, &["orders", "--from", "1"]).split(' ').map(|id| id.parse().unwrap()).collect();
    behind.sort_unstable();
    assert!(behind.len() < 10, "the first one of each partition is not among them");
    assert_eq!(some(&tails[4], behind.len() as u32), behind);
    // The first one prints what comes from when it is there on.
    let (mut probes, mut first) = (100.., None);
    while first.is_none() {
        let probe = probes.next().unwrap();
        publish(&bus, probe..probe + 1);
        tails[1..].iter().for_each(|tail| assert_eq!(some(tail, 1), [probe]));
        first = tails[0].ids.recv_timeout(Duration::from_millis(100)).ok();
    }
    let first: u32 = first.unwrap().parse().unwrap();
    some(&tails[0], probes.start - 1 - first);
    for (round, signal) in [(1, "TERM"), (2, "KILL"), (3, "TERM")] {
        bus.signal(signal);
        bus.end();
        tails.iter().for_each(|tail| tail.wait_for("trying again"));
        bus = again(folder.path(), &address);
        let new = round * 1_000..round * 1_000 + 20;
        publish(&bus, new.clone());
        for tail in &tails {
            assert_eq!(
                some(tail, 20),
                new.clone().collect::<Vec<_>>(),
                "{signal}: nothing twice, and nothing left out"
            );
            tail.wait_for("connected again");
        }
    }
    drop(tails);
    bus.stop();
}
