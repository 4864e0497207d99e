//! `wattle status` again and again.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::bus::{Bus, bus, wattle};

/// What it prints first when it goes on.
fn first_lines(address: &str, arguments: &[&str], count: usize) -> Vec<String> {
    let mut command = wattle();
    command.env("WATTLE_SERVER", address).args(["status", "--watch"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).take(count).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    lines
}

#[test]
fn it_is_shown_again_each_second_and_goes_on_where_the_bus_starts_again() {
    let (folder, bus) = bus();
    bus.run(&["publish", "orders", "{}"]).ok();
    let lines = first_lines(&bus.address, &["-o", "json"], 2);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let uptime = |of: &Value| of["uptime_seconds"].as_f64().unwrap();
    assert!(uptime(&lines[1]) > uptime(&lines[0]), "{lines:?}");
    assert_eq!((&lines[0]["topics"][0]["events"], &lines[0]["topics"][0]["events_per_minute"]), (&1.into(), &1.into()));

    let once = bus.run(&["status"]).ok().lines().count();
    let text = first_lines(&bus.address, &[], 2 * once + 1);
    assert_eq!(text[once], "", "a block each time: {text:#?}");
    assert!(text[0].starts_with("wattle ") && text[once + 1].starts_with("wattle "), "{text:#?}");

    let mut command = wattle();
    command.env("WATTLE_SERVER", &bus.address).args(["status", "--watch", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut notices = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let address = bus.address.clone();
    bus.stop();
    assert!(notices.next().unwrap().unwrap().contains("looking again each second"));
    let mut command = wattle();
    command.arg("run").arg(folder.path().join("shop.yaml")).arg("--data").arg(folder.path().join("data"));
    command.args(["--listen", &address, "--log-format", "json"]);
    let bus = Bus::spawn(command);
    assert_eq!(notices.next().unwrap().unwrap(), "the bus is there again");
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["topics"][0]["events"], 1);
    // Nobody reads it any more.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    bus.stop();

    let ran = wattle().args(["status", "--watch", "--server", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(3), "a bus that was never there");
}
