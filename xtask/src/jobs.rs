//! Commands that run at the same time, without their outputs getting mixed.
//!
//! The output of each goes into a file and is printed when the command has failed. After a failure nothing more is
//! begun, and those that run end first.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A command, by the name under which its time is reported.
pub(crate) struct Job {
    name: String,
    command: Command,
}

impl Job {
    pub(crate) fn new(name: &str, command: Command) -> Self {
        Self { name: name.to_owned(), command }
    }
}

/// Jobs that wait for one of a number of workers.
pub(crate) type Queue = (VecDeque<Job>, usize);

/// What has been done so far.
#[derive(Default)]
struct Progress {
    /// Names and seconds, in the order of their ends; jobs of one name are one.
    ended: Vec<(String, f32)>,
    failures: Vec<String>,
}

/// Runs all queues at the same time, with outputs in files below `logs`. Gives the seconds of each name.
///
/// # Errors
/// What failed, in one line.
pub(crate) fn run<const N: usize>(logs: &Path, queues: [Queue; N]) -> Result<Vec<(String, f32)>, String> {
    fs::create_dir_all(logs).map_err(|error| format!("cannot create {}: {error}", logs.display()))?;
    let progress = Mutex::new(Progress::default());
    let queues = queues.map(|(jobs, workers)| (Mutex::new(jobs), workers));
    std::thread::scope(|scope| {
        for (jobs, workers) in &queues {
            for _ in 0..*workers {
                scope.spawn(|| work(jobs, logs, &progress));
            }
        }
    });
    let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    if progress.failures.is_empty() { Ok(progress.ended) } else { Err(progress.failures.join("; ")) }
}

fn work(jobs: &Mutex<VecDeque<Job>>, logs: &Path, progress: &Mutex<Progress>) {
    let locked = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if !locked().failures.is_empty() {
            return;
        }
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(Job { name, mut command }) = next else { return };
        let line = shown(&command);
        eprintln!("   $ {line}");
        let start = Instant::now();
        let log = logs.join(format!("{}.log", line.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
        let outcome = execute(&mut command, &log);
        let seconds = start.elapsed().as_secs_f32();
        let mut progress = locked();
        match progress.ended.iter_mut().find(|(ended, _)| *ended == name) {
            Some((_, sum)) => *sum += seconds,
            None => progress.ended.push((name.clone(), seconds)),
        }
        match outcome {
            Ok(results) => eprintln!("   {name}: {seconds:.0} s{results}"),
            Err(failure) => {
                let output = fs::read(&log).unwrap_or_default();
                eprintln!("\n{}\n== {name} FAILED after {seconds:.0} s: {failure}", String::from_utf8_lossy(&output));
                progress.failures.push(format!("{name}: `{line}` {failure}"));
            }
        }
    }
}

/// Gives what a test program says of its results.
fn execute(command: &mut Command, log: &Path) -> Result<String, String> {
    let broken = |error: std::io::Error| format!("cannot write {}: {error}", log.display());
    let file = File::create(log).map_err(broken)?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(broken)?).stderr(file);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("ended with {status}")),
        Err(error) => return Err(format!("could not be started: {error}; is it installed?")),
    }
    let output = fs::read(log).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let results = results.filter_map(|line| line.split(';').next()).map(|passed| format!(", {passed}"));
    // What a test leaves out is never silent.
    let skipped = output.lines().filter(|line| line.starts_with("skipped: ")).map(|line| format!("\n     {line}"));
    Ok(results.chain(skipped).collect())
}

/// The command in one line, programs by their names alone.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_time_of_a_name_is_that_of_all_its_commands_and_a_failure_begins_nothing_more() {
        let folder = std::env::temp_dir().join(format!("xtask-jobs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mark = |name: &str| format!("touch {}", folder.join(name).display());
        let jobs = |scripts: &[&str]| scripts.iter().map(|script| Job::new("step", shell(script))).collect();
        let both = run(&folder, [(jobs(&[&mark("a"), &mark("b")]), 1), (VecDeque::new(), 2)]).unwrap();
        assert_eq!(both.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["step"]);
        assert!(folder.join("a").exists() && folder.join("b").exists());
        let failure = run(&folder, [(jobs(&["exit 3", &mark("c")]), 1)]).unwrap_err();
        assert!(failure.contains("step: `sh -c exit 3` ended with exit status: 3"), "{failure}");
        assert!(!folder.join("c").exists(), "nothing is begun after a failure");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
