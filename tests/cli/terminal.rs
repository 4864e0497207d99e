//! Nothing that somebody else chose is obeyed by the terminal on which a command prints it.

use std::path::Path;

use super::bus::{Bus, Ran, wattle};
use crate::common::guests::guest_path;

/// Sets the title of a terminal, clears it, and shows what follows in another order.
const TITLE: &str = "\u{1b}]0;owned\u{7}";
const CLEAR: &str = "\u{1b}[2J";
const REVERSE: &str = "\u{202e}";

/// What a terminal would obey of a text that has styles of ours in it.
fn obeyed(text: &str) -> Vec<&str> {
    [TITLE, CLEAR, REVERSE, "\u{7}", "\u{9b}", "\u{7f}", "\r"].into_iter().filter(|what| text.contains(what)).collect()
}

/// A bus whose plugin fails in words that events choose, with events that choose such words.
fn start(folder: &Path) -> Bus {
    let plugin = guest_path("hostile").display().to_string();
    let topology = format!(
        "wattle: v1\nname: lab\ntopics: {{ jobs: {{}}, slow: {{}}, done: {{}}, more: {{}} }}\nsubscribers:\n  do: {{ \
         from: jobs, \
         plugin: {plugin}, to: {{ done: done }}, config: {{ describe: done }}, retry: {{ attempts: 1 }} }}\n  hold: {{ \
         from: \
         slow, plugin: {plugin}, to: {{ done: more }}, config: {{ describe: done }}, on_failure: park, retry: {{ \
         attempts: 1 \
         }} }}\n"
    );
    std::fs::write(folder.join("lab.yaml"), topology).unwrap();
    let mut command = wattle();
    command.current_dir(folder).args(["run", "lab.yaml", "--data", "data", "--listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]);
    let bus = Bus::spawn(command);
    let id = format!("e{REVERSE}1");
    let event = |id: &str, data: &str| {
        let data = serde_json::to_string(data).unwrap();
        let head = format!(r#"{{"specversion":"1.0","source":"/s","type":"t{REVERSE}","subject":"k{REVERSE}""#);
        format!("{head},\"id\":\"{id}\",\"datacontenttype\":\"text/plain\",\"data\":{data}}}")
    };
    let wrong = format!("{TITLE}{CLEAR}\nsecond{REVERSE}\u{9b}31m");
    let jobs = [
        event(&id, &wrong),
        event("p", &format!("panic {wrong}")),
        event("s", &format!("state set {CLEAR}a={TITLE}\u{7f}")),
    ];
    bus.run_with(&["publish", "jobs", "--file", "-"], &jobs.join("\n")).ok();
    bus.run_with(&["publish", "slow", "--file", "-"], &event("w", &format!("panic {wrong}"))).ok();
    bus
}

/// What is walked: each command that prints what others chose, as text.
const WALKED: &[&[&str]] = &[
    &["status"],
    &["topics"],
    &["dead", "list"],
    &["dead", "list", "do"],
    &["dead", "show", "do"],
    &["parked", "list", "hold"],
    &["parked", "show", "hold"],
    &["parked", "list", "hold", "--id", "\u{1b}]0;owned\u{7}"],
    &["dead", "show", "do", "--id", "\u{1b}]0;owned\u{7}"],
    &["trace", "p"],
    &["trace", "e\u{202e}1"],
    &["trace", "\u{1b}[2J"],
    &["pending", "jobs"],
    &["plugin", "list"],
    &["plugin", "versions", "do"],
    &["plugin", "versions", "\u{1b}[2J"],
    &["plugin", "rollback", "\u{1b}[2J"],
    &["plugin", "pin", "do", "\u{1b}[2J"],
    &["state", "list", "do"],
    &["state", "snapshot", "do", "--note", "\u{1b}[2J"],
    &["state", "snapshots", "do"],
    &["capsule", "list"],
    &["capsule", "list", "--data", "data"],
    &["gc"],
    &["plan", "lab.yaml"],
    &["pause", "\u{1b}[2J"],
    &["resume", "\u{1b}[2J"],
    &["seek", "\u{1b}[2J", "--to", "earliest"],
    &["tail", "\u{1b}[2J"],
    &["publish", "\u{1b}[2J", "{}"],
    &["apply", "lab.yaml"],
    &["log", "verify", "--data", "\u{1b}[2J"],
];

/// Commands that print nothing that anybody but their caller chose.
const OTHERS: &[&str] = &[
    "run",
    "dev",
    "check",
    "graph",
    "schema",
    "new",
    "build",
    "test",
    "clock",
    "bench",
    "completions",
    "help",
    "profile",
    "token",
];

#[test]
fn nothing_that_others_chose_is_obeyed_by_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path());
    let run = |arguments: &[&str]| -> Ran {
        let mut command = wattle();
        // as on a terminal: what is not one gets nothing that could be obeyed anyway
        command.current_dir(folder.path()).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1");
        command.env("WATTLE_SERVER", &bus.address).args(arguments).output().unwrap().into()
    };
    let begin = std::time::Instant::now();
    while !run(&["status", "-o", "json"]).ok().contains(r#""parked":1"#)
        || run(&["dead", "list"]).ok().lines().count() < 4
    {
        assert!(begin.elapsed() < crate::common::trees::PATIENCE, "{}", run(&["dead", "list"]).ok());
    }
    let mut walked: Vec<Vec<String>> =
        WALKED.iter().map(|arguments| arguments.iter().map(|argument| (*argument).to_owned()).collect()).collect();
    let capsules = run(&["capsule", "list", "-o", "json"]).json();
    assert_eq!(capsules.len(), 3, "{capsules:#?}");
    for capsule in &capsules {
        for action in ["show", "run"] {
            walked.push(vec!["capsule".into(), action.into(), capsule["capsule"].as_str().unwrap().into()]);
        }
    }
    let mut words = 0;
    for arguments in &walked {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Ran { out, notices, .. } = run(&arguments);
        for text in [&out, &notices] {
            assert_eq!(obeyed(text), Vec::<&str>::new(), "{arguments:?}: {text:?}");
        }
        words += usize::from(out.contains("owned") || notices.contains("owned"));
    }
    assert!(words >= 10, "they have said it, in {words} ways");
    // every command is here
    let help = bus.run(&["--help"]).ok();
    let commands = help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with([' ', '-']));
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        let is_walked = WALKED.iter().any(|arguments| arguments[0] == command);
        assert!(is_walked != OTHERS.contains(&command), "{command}");
    }
    bus.stop();
}
