//! What plugins say, in the log of the bus.

use std::path::Path;

use super::bus::{Bus, wattle};
use crate::common::guests::guest_path;

fn start(folder: &Path, more: &str) -> Bus {
    let plugin = guest_path("hostile");
    let topology = format!(
        "wattle: v1\nname: lab\ntopics: {{ jobs: {{}}, done: {{}} }}\nsubscribers:\n  do:\n    from: jobs\n    plugin: \
         {}\n    \
         to: [done]\n    retry: {{ attempts: 2, backoff: {{ initial: 1ms }} }}\n{more}",
        plugin.display()
    );
    std::fs::write(folder.join("lab.yaml"), topology).unwrap();
    let mut command = wattle();
    command.current_dir(folder).args(["run", "lab.yaml", "--data", "data", "--listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]);
    Bus::spawn(command)
}

#[test]
fn how_many_lines_were_left_out_is_said_though_no_more_come() {
    let folder = tempfile::tempdir().unwrap();
    let mut bus = start(folder.path(), "    limits: { log: 10 }\n");
    bus.run(&["publish", "jobs", "log 500", "--key", "k"]).ok();
    let line = bus.wait_for("left out");
    assert!(line.contains("490 log lines left out: 10 are logged in a second") && line.contains("lab/do"), "{line}");
    bus.run(&["publish", "jobs", "log 12", "--key", "k"]).ok();
    bus.wait_for("line 9");
    bus.signal("TERM");
    let (_, said) = bus.end();
    assert!(said.contains("2 log lines left out"), "also at the end: {said}");
    assert_eq!(said.matches("\"line ").count(), 20, "{said}");
}

#[test]
fn a_panic_is_logged_once_for_each_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), "    batch: { wait: 200ms }\n");
    let lines: Vec<String> = (0..3)
        .map(|number| {
            let data = if number == 1 { "panic no such shelf" } else { "count" };
            format!(
                r#"{{"specversion":"1.0","id":"{number}","source":"/s","type":"t","datacontenttype":"text/plain","data":"{data}"}}"#
            )
        })
        .collect();
    bus.run_with(&["publish", "jobs", "--file", "-"], &lines.join("\n")).ok();
    let mut bus = bus;
    bus.wait_for("given up");
    bus.signal("TERM");
    let (_, said) = bus.end();
    let about: Vec<&str> = said.lines().filter(|line| line.contains("no such shelf")).collect();
    assert_eq!(about.len(), 2, "{about:#?}");
    assert!(about[0].contains("will try again") && about[1].contains("given up"), "{about:#?}");
}
