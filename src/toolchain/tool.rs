//! Tools of the user: found, asked for their version, and run.
//!
//! They are searched in the folder's own `.venv` and on the PATH, and run with the user's environment.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::error::BuildError;
use super::language::Language;
use super::requirement::Requirement;

/// How much of what a tool said is kept for the error.
const OUTPUT_LINES_KEPT: usize = 200;

/// A program with the arguments that make it the tool, such as `python3 -m ziglang`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) program: PathBuf,
    arguments: Vec<&'static str>,
}

impl Tool {
    /// The first of several programs that a folder can run.
    pub(super) fn find(folder: &Path, names: &[&str]) -> Option<Self> {
        names.iter().find_map(|name| find(folder, name)).map(Self::at)
    }

    pub(super) fn at(program: PathBuf) -> Self {
        Self { program, arguments: Vec::new() }
    }

    /// The same with arguments that come first.
    pub(super) fn with(mut self, arguments: &[&'static str]) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// To be run in a folder.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(folder).stdin(Stdio::null());
        command
    }

    /// The first number with a point in what it says when it is asked for its version.
    pub(super) fn version(&self, folder: &Path, ask: &[&str]) -> Result<String, BuildError> {
        let output = self.command(folder).args(ask).output().map_err(|source| self.broken(source))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(version(&String::from_utf8_lossy(&said)).unwrap_or_else(|| "of no known version".to_owned()))
    }

    /// Refuses a version before the oldest that will do.
    pub(super) fn require_at_least(
        &self,
        folder: &Path,
        ask: &[&str],
        oldest: [u32; 2],
        (requirement, language): (&'static Requirement, Language),
    ) -> Result<(), BuildError> {
        let found = self.version(folder, ask)?;
        let mut numbers = found.split('.').map(|number| number.parse().unwrap_or(0));
        if [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)] >= oldest {
            return Ok(());
        }
        let [major, minor] = oldest;
        let (program, needed) = (self.program.clone(), format!("{major}.{minor} or later"));
        Err(BuildError::ToolVersion { requirement, language, program, found, needed })
    }

    /// That it cannot be run.
    pub(super) fn broken(&self, source: std::io::Error) -> BuildError {
        BuildError::Tool { tool: self.program.display().to_string(), source }
    }

    /// Runs a command of it to its end. `progress` is given its output, line by line.
    pub(super) fn run(
        &self,
        mut command: Command,
        folder: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), BuildError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.broken(source))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let said = thread::scope(|scope| {
            let (sender, lines) = mpsc::channel();
            let other = sender.clone();
            scope.spawn(move || each_line(stdout, |line| drop(sender.send(line))));
            scope.spawn(move || each_line(stderr, |line| drop(other.send(line))));
            let mut kept = LastLines::default();
            for line in lines {
                progress(&line);
                kept.push(line);
            }
            kept.text()
        });
        let status = child.wait().map_err(|source| self.broken(source))?;
        match status.success() {
            true => Ok(()),
            false if said.is_empty() => {
                let output = format!("`{}` ended with {status}", self.program.display());
                Err(BuildError::Compile { folder: folder.to_owned(), output })
            }
            false => Err(BuildError::Compile { folder: folder.to_owned(), output: said }),
        }
    }
}

/// The path of a program that may be run.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let own = std::path::absolute(folder.join(".venv/bin")).ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = own.into_iter().chain(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    let may_run = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    folders.find_map(|folder| Some(folder.join(OsStr::new(name))).filter(may_run))
}

/// The first number with a point in a text.
fn version(said: &str) -> Option<String> {
    let words = said.split(|char: char| !char.is_ascii_digit() && char != '.');
    words.map(|word| word.trim_matches('.')).find(|word| word.contains('.')).map(str::to_owned)
}

/// The last lines of an output.
#[derive(Default)]
pub(super) struct LastLines(VecDeque<String>);

impl LastLines {
    pub(super) fn push(&mut self, line: String) {
        if self.0.len() == OUTPUT_LINES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    pub(super) fn text(self) -> String {
        Vec::from(self.0).join("\n")
    }
}

/// Visits each line of an output, whatever bytes it has.
pub(super) fn each_line(output: Option<impl Read>, mut see: impl FnMut(String)) {
    for line in output.into_iter().flat_map(|output| BufReader::new(output).split(b'\n')).map_while(Result::ok) {
        see(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::requirement;

    #[test]
    fn a_version_is_found_in_what_tools_say() {
        for (said, expected) in [
            ("go version go1.27.3 linux/amd64", Some("1.27.3")),
            ("componentize-py 0.25.1\n", Some("0.25.1")),
            ("v20.20.2", Some("20.20.2")),
            ("0.17.1-dev.3+abc", Some("0.17.1")),
            ("nothing.", None),
        ] {
            assert_eq!(version(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn a_tool_of_the_folder_comes_first_and_one_that_may_not_be_run_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join(".venv/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("sh"), "").unwrap();
        let found = |names: &[&str]| Tool::find(folder.path(), names).map(|tool| tool.program);
        assert_ne!(found(&["none-of-this-name", "sh"]).unwrap(), bin.join("sh"));
        std::fs::set_permissions(bin.join("sh"), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(found(&["none-of-this-name", "sh"]).unwrap(), bin.join("sh"));
        assert_eq!(found(&["none-of-this-name"]), None);
    }

    #[test]
    fn both_outputs_are_shown_and_a_failure_says_them_again() {
        let (folder, tool) = (Path::new("."), Tool::at("/bin/sh".into()).with(&["-c"]));
        let run = |code: &str| {
            let mut said = Vec::new();
            let mut command = tool.command(folder);
            command.arg(format!("echo one; echo two >&2; exit {code}"));
            let outcome = tool.run(command, folder, &mut |line| said.push(line.to_owned()));
            said.sort();
            assert_eq!(said, ["one", "two"]);
            outcome
        };
        run("0").unwrap();
        let error = run("3").unwrap_err().to_string();
        assert!(error.contains("does not build") && error.contains("one") && error.contains("two"), "{error}");
    }

    #[test]
    fn an_old_version_is_refused_with_how_to_install_another() {
        let tool = Tool::at("/bin/sh".into()).with(&["-c"]);
        let needs = (&requirement::NODE, Language::JavaScript);
        let require = |oldest| tool.require_at_least(Path::new("."), &["echo v18.19.0"], oldest, needs);
        require([18, 19]).unwrap();
        let error = require([20, 0]).unwrap_err().to_string();
        assert!(error.contains("needs version 20.0 or later") && error.contains("is 18.19.0"), "{error}");
        assert!(error.contains("brew install node"), "{error}");
    }
}
