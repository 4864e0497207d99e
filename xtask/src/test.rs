//! Everything that has to hold before a change is done, in steps.
//!
//! It first names what it will install (the Wasm target, strace, the tools of languages, where they are missing). Steps
//! run in the order of the table; the last ones run side by side, since tests mostly wait (`jobs.rs`). The tools of
//! languages are installed while plugins and tests are built, since that waits for the network. Nothing is begun after
//! a failure; at the end it says how long each step took.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::jobs::{self, Job};
use crate::tools::Languages;

/// One thing that has to hold.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Commands, each with the folder in which it runs and what is added to its environment.
    commands: &'static [Run],
    /// Whether it runs at the same time as the others with this mark.
    is_side_by_side: bool,
}

pub(crate) struct Run {
    folder: &'static str,
    line: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

pub(crate) const fn run(line: &'static [&'static str]) -> Run {
    Run { folder: ".", line, environment: &[] }
}

const fn guests(line: &'static [&'static str]) -> Run {
    Run { folder: "plugins", line, environment: &[] }
}

/// Where it cannot be installed, the tests that need it say so.
const INSTALL_STRACE: &str = "command -v strace || [ $(uname) != Linux ] || \
    { [ $(id -u) = 0 ] && apt-get update -q && apt-get install -qy strace; } || \
    echo 'strace is missing: apt-get install strace'";

/// The step that installs the tools of languages as well.
const SETUP: &str = "setup";
/// The step whose test programs run two at a time.
const TESTS: &str = "test";
const BUILD_TESTS: &[&str] =
    &["test", "--locked", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
/// Where the outputs of what runs side by side are.
const LOGS: &str = "target/test-logs";
/// The slowest programs, which are started first.
const SLOWEST: [&str; 8] = ["toolchain", "languages", "cli", "bus", "wasm", "log", "memory", "simulation"];
/// Most tests wait, for disks, timers and child processes: two cores have time for four of each program.
const THREADS: &str = "4";

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: SETUP,
        what: "the Wasm target is installed, the tools of languages, and strace for the tests of faults",
        commands: &[run(&["rustup", "target", "add", "wasm32-wasip2"]), run(&["sh", "-c", INSTALL_STRACE])],
        is_side_by_side: false,
    },
    Step {
        name: "format",
        what: "the code is formatted",
        commands: &[run(&["cargo", "fmt", "--all", "--check"]), guests(&["cargo", "fmt", "--all", "--check"])],
        is_side_by_side: false,
    },
    Step {
        name: "plugins",
        what: "the example plugins build, and their own tests pass",
        commands: &[
            guests(&["cargo", "build", "--locked", "--release", "--target", "wasm32-wasip2"]),
            guests(&["cargo", "test", "--locked"]),
        ],
        is_side_by_side: false,
    },
    Step {
        name: TESTS,
        what: "all tests pass; generated files, floors and examples are among them",
        commands: &[],
        is_side_by_side: true,
    },
    Step {
        name: "lint",
        what: "clippy has nothing to say, and documents are plain",
        commands: &[
            run(&["cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
            run(&["cargo", "run", "--locked", "--quiet", "--package", "xtask", "--", "words"]),
            guests(&["cargo", "clippy", "--locked", "--release", "--target", "wasm32-wasip2", "--", "-D", "warnings"]),
        ],
        is_side_by_side: true,
    },
    Step {
        name: "doc",
        what: "the documentation builds without a warning",
        commands: &[Run {
            folder: ".",
            // With examples, dependencies have the features that clippy has checked them with.
            line: &["cargo", "doc", "--locked", "--workspace", "--no-deps", "--lib", "--bins", "--examples"],
            environment: &[("RUSTDOCFLAGS", "-D warnings")],
        }],
        is_side_by_side: true,
    },
    Step {
        name: "prove",
        what: "examples hold on a real bus",
        commands: &[run(&["cargo", "run", "--locked", "--quiet", "--package", "xtask", "--", "prove", "--all"])],
        is_side_by_side: true,
    },
];

/// What an argument before the name of a language says.
const WITHOUT: &str = "--without";

/// The steps that arguments name, and the languages that they leave out.
fn parse(arguments: &[String]) -> Result<(Vec<String>, Languages), String> {
    let (mut names, mut without) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == WITHOUT {
            without.push(rest.next().ok_or("`--without` needs the name of a language")?.clone());
        } else {
            names.push(argument.clone());
        }
    }
    Ok((names, Languages::without(without)?))
}

/// Runs the named steps, or all.
pub(crate) fn test(arguments: &[String]) -> ExitCode {
    let (names, languages) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("xtask: {error}; see `cargo xtask help`");
            return ExitCode::from(2);
        }
    };
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        eprintln!("xtask: there is no step `{unknown}`; see `cargo xtask help`");
        return ExitCode::from(2);
    }
    let wanted = STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name));
    let (together, alone): (Vec<&Step>, Vec<&Step>) = wanted.partition(|step| step.is_side_by_side);
    if alone.iter().any(|step| step.name == SETUP) {
        eprintln!("== {}", installs(has_target(), has_strace(), languages.missing()));
    }
    match std::thread::scope(|scope| {
        let mut summary = Vec::new();
        let mut tools = None;
        for step in alone {
            eprintln!("\n== {}: {}", step.name, step.what);
            let start = Instant::now();
            step.commands.iter().try_for_each(execute).map_err(|failure| format!("{}: {failure}", step.name))?;
            if step.name == SETUP {
                tools = Some(scope.spawn(|| languages.install()));
            }
            summary.push(format!("   {:<8} {:>5.0} s", step.name, start.elapsed().as_secs_f32()));
        }
        let installed = move || tools.map_or(Ok(()), |tools| tools.join().unwrap_or(Err("setup has panicked".into())));
        summary.extend(side_by_side(&together, &languages, installed)?);
        Ok::<_, String>(summary)
    }) {
        Ok(summary) => {
            eprintln!("\n== everything holds\n{}", summary.join("\n"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("\n== FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs test programs two at a time, and the commands of the other steps one after another at the same time: cargo
/// waits for itself. Tests wait until their tools are `installed`.
fn side_by_side(
    steps: &[&Step],
    languages: &Languages,
    installed: impl FnOnce() -> Result<(), String>,
) -> Result<Vec<String>, String> {
    for step in steps {
        eprintln!("\n== {}: {}", step.name, step.what);
    }
    let mut summary = Vec::new();
    let mut programs = VecDeque::new();
    if steps.iter().any(|step| step.name == TESTS) {
        let start = Instant::now();
        programs = test_programs(languages)?;
        summary.push(format!("   {:<8} {:>5.0} s", "build", start.elapsed().as_secs_f32()));
    }
    installed()?;
    let commands = steps.iter().flat_map(|step| step.commands.iter().map(|run| Job::new(step.name, command(run))));
    let queues = [(commands.collect(), 1), (programs, 2)];
    summary.extend(
        jobs::run(Path::new(LOGS), queues)?.into_iter().map(|(name, seconds)| format!("   {name:<8} {seconds:>5.0} s")),
    );
    Ok(summary)
}

/// Builds all test programs. Each runs in the folder of its package, as cargo runs it.
fn test_programs(languages: &Languages) -> Result<VecDeque<Job>, String> {
    eprintln!("   $ cargo {}", BUILD_TESTS.join(" "));
    let built = Command::new("cargo").args(BUILD_TESTS).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("`cargo` could not be started: {error}; is it installed?"))?;
    if !built.status.success() {
        return Err(format!("`cargo {}` ended with {}", BUILD_TESTS.join(" "), built.status));
    }
    let mut programs: Vec<(String, Command)> = String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|artifact| {
            let name = artifact.pointer("/target/name")?.as_str()?.to_owned();
            let kind = artifact.pointer("/target/kind/0")?.as_str()?;
            let is_test = artifact.pointer("/profile/test")?.as_bool()?;
            let mut command = Command::new(artifact.get("executable")?.as_str()?);
            let manifest = Path::new(artifact.get("manifest_path")?.as_str()?);
            command.current_dir(manifest.parent()?).env("RUST_TEST_THREADS", THREADS);
            languages.tell(&mut command);
            let name = if kind == "test" { name } else { format!("{name} ({kind})") };
            is_test.then_some((name, command))
        })
        .collect();
    if programs.is_empty() {
        return Err("cargo has named no test program".to_owned());
    }
    let place = |name: &str| SLOWEST.iter().position(|slow| *slow == name).unwrap_or(SLOWEST.len());
    programs.sort_by_key(|(name, _)| place(name));
    Ok(programs.into_iter().map(|(name, command)| Job::new(&name, command)).collect())
}

/// What the step `setup` will do to this machine, in one line.
fn installs(has_target: bool, has_strace: bool, tools: Vec<String>) -> String {
    let missing =
        [(has_target, "the Rust target wasm32-wasip2 (rustup)"), (has_strace, "strace (apt-get, as root only)")];
    let missing = missing.into_iter().filter(|(is_there, _)| !is_there).map(|(_, what)| what.to_owned());
    let missing: Vec<String> = missing.chain(tools).collect();
    match missing.as_slice() {
        [] => "nothing has to be installed".to_owned(),
        missing => format!("to be installed: {}", missing.join(", ")),
    }
}

fn has_target() -> bool {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "wasm32-wasip2"))
}

fn has_strace() -> bool {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Runs a command with the output of this process.
pub(crate) fn execute(run: &Run) -> Result<(), String> {
    let line = run.line.join(" ");
    eprintln!("   $ {line}{}", if run.folder == "." { String::new() } else { format!("   (in {})", run.folder) });
    match command(run).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}")),
        Err(error) => Err(format!("`{line}` could not be started: {error}; is it installed?")),
    }
}

fn command(run: &Run) -> Command {
    let mut command = Command::new(run.line.first().copied().unwrap_or_default());
    command.args(run.line.get(1..).unwrap_or_default());
    command.current_dir(run.folder).envs(run.environment.iter().copied());
    if run.folder != "." {
        // The guests are a workspace of their own; nothing that cargo set for this one is meant for them.
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_TARGET_DIR"] {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::installs;

    #[test]
    fn what_is_missing_is_named_before_it_is_installed() {
        assert_eq!(installs(true, true, Vec::new()), "nothing has to be installed");
        assert_eq!(
            installs(false, false, Vec::new()),
            "to be installed: the Rust target wasm32-wasip2 (rustup), strace (apt-get, as root only)"
        );
        let tools = installs(false, true, vec!["Go".into()]);
        assert!(!tools.contains("strace") && tools.ends_with("(rustup), Go"), "{tools}");
    }

    #[test]
    fn steps_and_languages_that_are_left_out_may_be_mixed() {
        let parse = |line: &str| super::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let (names, _) = parse("test --without python lint --without go").ok().unwrap();
        assert_eq!(names, ["test", "lint"]);
        assert!(parse("test --without").is_err() && parse("--without pascal").is_err());
    }
}
