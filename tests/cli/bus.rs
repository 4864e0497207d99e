//! A running `wattle run` over topics that nobody consumes, and the command for everything else.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use crate::common::process::wattle;
use crate::common::process::{Process, address};

/// Two roots, of four partitions and of one.
pub(crate) const TOPOLOGY: &str =
    "wattle: v1\nname: shop\ntopics:\n  orders: { partitions: 4 }\n  log: {}\nsubscribers: {}\n";

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

pub(crate) struct Bus {
    pub(crate) address: String,
    process: Process,
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
        let found = self.process.find(address);
        self.address = found.unwrap_or_else(|| panic!("it does not serve:\n{}", self.process.said()));
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
        Self { address: String::new(), process: Process::spawn(&mut command).unwrap() }
    }

    /// Waits for a log line with these words.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        let found = self.process.find(|line| line.contains(words).then(|| line.to_owned()));
        found.unwrap_or_else(|| panic!("the bus did not say {words:?}:\n{}", self.process.said()))
    }

    /// All its log lines so far.
    #[allow(dead_code, reason = "the tests of languages compare log lines")]
    pub(crate) fn said(&mut self) -> String {
        self.process.said()
    }

    /// Sends a signal (`TERM`, `INT`, `KILL`).
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits for its end: how it ended, and everything that it said.
    pub(crate) fn end(self) -> (ExitStatus, String) {
        self.process.end()
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

/// A bus on a folder of its own.
pub(crate) fn bus() -> (TempDir, Bus) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), &[]);
    (folder, bus)
}
