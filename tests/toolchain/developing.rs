//! `wattle dev`: what is saved is built, and runs.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::process::{Process, wattle};
use crate::common::trees::PATIENCE;
use crate::projects::{Project, said};

/// Of a project that was built: an interpreter takes longer to compile than a process may be silent.
pub(crate) fn what_is_saved_runs_soon(project: &Project, language: &str) {
    let mut process =
        Process::spawn(&mut project.wattle(&["dev", "topology.yaml", "--listen", "127.0.0.1:0"])).unwrap();
    let serving = process.find(|line| line.split("serving on ").nth(1).map(str::to_owned));
    let serving = serving.unwrap_or_else(|| panic!("it does not serve:\n{}", process.said()));
    let server = serving.split(';').next().unwrap();
    assert_eq!(greeted(server), "Hello, Ada!");

    let handler = project.handler();
    let code = fs::read_to_string(&handler).unwrap();
    // Each handler has it at the end of a text.
    let changed = code.replace("!\"", "?\"").replace("!`", "?`");
    assert_ne!(changed, code);
    let saved = Instant::now();
    fs::write(&handler, changed).unwrap();
    while greeted(server) != "Hello, Ada?" {
        assert!(saved.elapsed() < 5 * PATIENCE, "what was saved does not run:\n{}", process.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    // How long it takes depends on the machine, so that nothing holds it to a time: it is said.
    let seconds = saved.elapsed().as_secs_f32();
    writeln!(std::io::stderr(), "measured: {language}: {seconds:.1} s from saved to running").unwrap();
    process.signal("TERM");
    let (status, log) = process.end();
    assert!(status.success(), "{log}");
}

/// What the running handler makes of a visit.
fn greeted(server: &str) -> String {
    let client = |arguments: &[&str]| {
        let output = wattle().env("WATTLE_SERVER", server).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let count = |text: String| text.lines().count();
    let before = count(client(&["tail", "greetings", "--from", "earliest", "-o", "data"]));
    client(&["publish", "visits", r#"{"name":"Ada"}"#]);
    let start = Instant::now();
    loop {
        let greetings = client(&["tail", "greetings", "--from", "earliest", "-o", "data"]);
        if greetings.lines().count() > before {
            let greeting: serde_json::Value = serde_json::from_str(greetings.lines().last().unwrap()).unwrap();
            return greeting["text"].as_str().unwrap().to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "a visit was not answered");
        std::thread::sleep(Duration::from_millis(20));
    }
}
