//! A bus of its own process, and what it says of itself through its own commands.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::{Given, Outcome};

/// How long a bus may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running bus.
pub(super) struct Bus {
    program: PathBuf,
    address: String,
    child: Child,
}

/// An event as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) appended: Timestamp,
    pub(super) event: Value,
}

impl Stored {
    pub(super) fn data(&self, name: &str) -> &Value {
        self.event.get("data").and_then(|data| data.get(name)).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.data(name).as_str().unwrap_or_default()
    }
}

/// A subscriber's status.
pub(super) struct Subscriber(Value);

impl Subscriber {
    pub(super) fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        let since_start = || self.0.get("since_start")?.get(name);
        self.0.get(name).or_else(since_start).and_then(Value::as_u64).unwrap_or_default()
    }
}

/// The program, away from the settings of whoever runs this.
fn wattle(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WATTLE_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

impl Bus {
    /// Starts a bus on a folder below the run's, and waits until it serves.
    pub(super) fn start(given: &Given, topologies: &[&str], data: &str) -> Outcome<Self> {
        let mut command = wattle(&given.program);
        command.arg("run").args(topologies.iter().map(|file| given.example(file)));
        command.arg("--data").arg(given.folder.join(data));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        let mut child =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        let stderr = child.stderr.take().ok_or("it has no log")?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let mut said = String::new();
        let serving = lines.by_ref().find_map(|line| {
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            said = line;
            let is_serving = value.get("message").and_then(Value::as_str) == Some("serving");
            value.get("address").and_then(Value::as_str).filter(|_| is_serving).map(str::to_owned)
        });
        std::thread::spawn(move || lines.for_each(drop));
        let mut bus = Self { program: given.program.clone(), address: String::new(), child };
        bus.address = serving.ok_or_else(|| format!("the bus does not start: {said}"))?;
        Ok(bus)
    }

    /// A command about this bus.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wattle(&self.program);
        command.args(arguments).args(["--server", &self.address]);
        command
    }

    /// Runs a command to its end. What it printed.
    pub(super) fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.command(arguments).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("`wattle {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything in a topic, each partition in its order.
    pub(super) fn tail(&self, topic: &str) -> Outcome<Vec<Stored>> {
        let stored = |line: &str| {
            let mut line: Value = serde_json::from_str(line).ok()?;
            let key = line.get("key")?.as_str()?.to_owned();
            let appended = line.get("append_time")?.as_str()?.parse().ok()?;
            Some(Stored { key, appended, event: line.get_mut("event")?.take() })
        };
        let text = self.run(&["tail", topic])?;
        text.lines().map(|line| stored(line).ok_or_else(|| format!("not an event: {line}"))).collect()
    }

    pub(super) fn subscribers(&self) -> Outcome<Vec<Subscriber>> {
        let status: Value =
            serde_json::from_str(&self.run(&["status", "-o", "json"])?).map_err(|error| error.to_string())?;
        let subscribers = status.get("subscribers").and_then(Value::as_array).ok_or("the status has no subscribers")?;
        Ok(subscribers.iter().cloned().map(Subscriber).collect())
    }

    /// Waits until something is so of the subscribers.
    pub(super) fn until(&self, what: &str, so: impl Fn(&[Subscriber]) -> bool) -> Outcome<()> {
        let start = Instant::now();
        while !so(&self.subscribers()?) {
            if start.elapsed() > PATIENCE {
                return Err(format!("{what}: not within {PATIENCE:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until some subscribers have handled everything, as long as their backlog shrinks.
    pub(super) fn settled(&self, names: &[&str]) -> Outcome<()> {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let all = self.subscribers()?;
            let left = all.iter().filter(|of| names.contains(&of.name()));
            let left: u64 = left.map(|of| of.number("lag") + of.number("retry_queue")).sum();
            if left == 0 {
                break;
            }
            if left < least {
                (least, since) = (left, Instant::now());
            } else if since.elapsed() > PATIENCE {
                return Err(format!("{left} events are not handled, and no fewer since {PATIENCE:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // what was seen to be written is durable by then, and so is what a reader sees
        std::thread::sleep(LOOK_EVERY * 4);
        Ok(())
    }

    /// A producer that publishes what it is given, line by line.
    pub(super) fn producer(&self, topic: &str) -> Outcome<Producer> {
        let mut command = self.command(&["publish", topic, "--file", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let lines = child.stdin.take().ok_or("the producer takes nothing")?;
        Ok(Producer { child, lines: Some(lines) })
    }

    /// The power goes, as far as a process is concerned.
    pub(super) fn kill(&mut self) -> Outcome<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A producer of a process of its own.
pub(super) struct Producer {
    child: Child,
    lines: Option<ChildStdin>,
}

impl Producer {
    /// Gives it a line. False where it has ended.
    pub(super) fn give(&mut self, line: &str) -> bool {
        self.lines.as_mut().is_some_and(|lines| writeln!(lines, "{line}").and_then(|()| lines.flush()).is_ok())
    }

    /// Gives it no more, and waits for its end. Whether all was published.
    pub(super) fn end(mut self) -> Outcome<bool> {
        drop(self.lines.take());
        self.child.wait().map(|status| status.success()).map_err(|error| error.to_string())
    }
}
