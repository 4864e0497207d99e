//! A running `wattle run` over topics that nobody consumes, and the command for everything else.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

use serde_json::Value;
use tempfile::TempDir;

/// Two roots, of four partitions and of one.
pub(crate) const TOPOLOGY: &str =
    "wattle: v1\nname: shop\ntopics:\n  orders: { partitions: 4 }\n  log: {}\nsubscribers: {}\n";

/// The command, away from the settings of whoever runs the tests.
pub(crate) fn wattle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
    // What one test has compiled, the next does not.
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WATTLE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) notices: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            notices: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Its results, where it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its results as JSON lines.
    pub(crate) fn json(self) -> Vec<Value> {
        self.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    wattle().args(arguments).output().unwrap().into()
}

/// Runs the command with something on standard input.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Ran {
    let mut command = wattle();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// A bus.
pub(crate) struct Bus {
    pub(crate) address: String,
    child: Child,
    log: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Bus {
    /// Starts a bus on a data folder, and waits until it serves.
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        let topology = folder.join("shop.yaml");
        std::fs::write(&topology, TOPOLOGY).unwrap();
        let mut command = wattle();
        command.arg("run").arg(&topology).arg("--data").arg(folder.join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
        Self::spawn(command)
    }

    /// Starts a bus with this command, and waits until it serves.
    pub(crate) fn spawn(command: Command) -> Self {
        let mut bus = Self::spawn_silent(command);
        bus.serves();
        bus
    }

    /// Waits until it serves.
    pub(crate) fn serves(&mut self) {
        let serving = self.wait_for("\"serving\"");
        let serving: Value = serde_json::from_str(&serving).unwrap();
        self.address = serving["address"].as_str().unwrap().to_owned();
    }

    /// The same with `wattle dev`, which says so in words.
    pub(crate) fn spawn_dev(command: Command) -> Self {
        let mut bus = Self::spawn_silent(command);
        let serving = bus.wait_for("serving on ");
        let address = serving.split("serving on ").nth(1).unwrap().split(';').next().unwrap();
        bus.address = address.to_owned();
        bus
    }

    pub(crate) fn spawn_silent(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { address: String::new(), child, log, said: Vec::new() }
    }

    /// Waits for a log line with these words.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        while let Ok(line) = self.log.recv() {
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        panic!("the bus ended without saying {words:?}: {:#?}", self.said);
    }

    /// Sends a signal (`TERM`, `INT`, `KILL`).
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits for its end: how it ended, and everything that it said.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.said.extend(self.log.iter());
        (status, self.said.join("\n"))
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let (status, said) = self.end();
        assert_eq!(status.code(), Some(0), "{said}");
    }

    /// Runs a client command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        wattle().env("WATTLE_SERVER", &self.address).args(arguments).output().unwrap().into()
    }

    /// Runs a client command with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let server = ["--server", &self.address];
        run_with(&[arguments, &server].concat(), input)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Of a test that failed; the others have waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bus on a folder of its own.
pub(crate) fn bus() -> (TempDir, Bus) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), &[]);
    (folder, bus)
}
