//! The real program as a child process, away from the settings of the user who runs the tests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use super::trees::PATIENCE;

/// The program without any of the settings and without input. Compiled plugins are cached for all tests: without a
/// cache, which needs `HOME` or this variable, each start compiles its plugins again, for some seconds.
pub fn wattle() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_wattle")))
}

/// The same, of a copy of the program.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    // Nobody has profiles there.
    command.env("XDG_CONFIG_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-config"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WATTLE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// The address in a log line, if the line is the one of a bus that serves.
pub fn address(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    (line["message"] == "serving").then(|| line["address"].as_str().unwrap().to_owned())
}

/// A child process and the lines of its standard error. It is killed where it is dropped, as after a failed test.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Process {
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines, said: Vec::new() })
    }

    /// Waits for a line of which `find` makes something. Nothing, if the process ends before, or is silent for too
    /// long.
    pub fn find<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
            let found = find(&line);
            self.said.push(line);
            if found.is_some() {
                return found;
            }
        }
    }

    /// All lines so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal (`TERM`, `INT`, `KILL`).
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Kills it. It must not have ended before.
    pub fn kill(mut self) {
        assert!(self.is_running(), "it had ended by itself:\n{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end: its status, and all lines.
    pub fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        while self.is_running() {
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        (status, self.said.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
