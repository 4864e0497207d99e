//! `wattle status` again and again.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::bus::{bus, wattle};

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
fn it_is_shown_again_each_second_and_ends_with_the_bus() {
    let (_folder, bus) = bus();
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
    lines.next().unwrap().unwrap();
    bus.stop();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}
