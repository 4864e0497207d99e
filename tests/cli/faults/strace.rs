//! Faults in the calls of another process.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What happens to the calls of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    call: String,
    what: String,
    /// Only calls on these files, or on descriptors of theirs.
    files: Vec<PathBuf>,
}

impl Fault {
    /// The nth such call fails, of each thread.
    pub(crate) fn error(call: &str, error: &str, nth: u32) -> Self {
        Self { call: call.to_owned(), what: format!("error={error}:when={nth}"), files: Vec::new() }
    }

    /// The nth such call fails and so do all that follow.
    pub(crate) fn error_from(call: &str, error: &str, nth: u32) -> Self {
        Self { call: call.to_owned(), what: format!("error={error}:when={nth}+"), files: Vec::new() }
    }

    /// Some calls fail, then they work again.
    pub(crate) fn errors(call: &str, error: &str, first: u32, last: u32) -> Self {
        Self { call: call.to_owned(), what: format!("error={error}:when={first}..{last}"), files: Vec::new() }
    }

    /// The process is killed at the nth such call of one of its threads.
    pub(crate) fn kill(call: &str, nth: u32) -> Self {
        Self { call: call.to_owned(), what: format!("signal=KILL:when={nth}"), files: Vec::new() }
    }

    /// Nothing happens to the calls, some kinds with commas between them: they are only written down.
    pub(crate) fn never(calls: &str) -> Self {
        Self::kill(calls, u32::from(u16::MAX)) // the highest number that there is
    }

    /// Only calls on one file count.
    pub(crate) fn on(self, file: PathBuf) -> Self {
        self.on_any(&[file])
    }

    /// Only calls on some files count.
    pub(crate) fn on_any(mut self, files: &[PathBuf]) -> Self {
        self.files.extend_from_slice(files);
        self
    }

    /// The same command, with the fault. What was called and what came of it is written to `trace`. The process is that
    /// of the command, strace is beside it.
    pub(crate) fn command(&self, command: &Command, trace: &Path) -> Command {
        let mut traced = Command::new("strace");
        let Self { call, what, files } = self;
        traced.args(["-D", "-f", "-qq", "-e", "signal=none", "-o"]).arg(trace);
        if what.starts_with("error") {
            traced.arg("--seccomp-bpf"); // much faster, but signals get lost
        }
        traced.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}")]);
        for file in files {
            traced.arg("-P").arg(file);
        }
        traced.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        traced
    }
}

/// The words for a command that cannot be started.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> ! {
    match error.kind() {
        std::io::ErrorKind::NotFound if command.get_program() == "strace" => {
            panic!("these tests need strace: apt-get install strace, or `cargo xtask test setup`")
        }
        _ => panic!("{command:?}: {error}"),
    }
}
