//! What cargo alone cannot do: set up a machine and run everything that has to hold before a change is done.
//!
//! `cargo xtask test` is the whole of it, and what CI runs. It first names what it will install (the Wasm target,
//! strace, where they are missing), stops at the first step that fails, and says how long each took.
//! `cargo xtask test STEP…` runs only some steps.
//!
//! `cargo xtask sim --seeds N` runs many simulated histories of the log, optimised, on two cores.
//!
//! `cargo xtask prove NAME` runs an example against a real bus and says in one line what that holds (`prove`).
//! `cargo xtask upgrade` does so with an older program until half of the kills.
//!
//! `cargo xtask words` counts phrases that are hard to read (`words.rs`).

mod dist;
mod prove;
mod words;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

/// One thing that has to hold.
struct Step {
    name: &'static str,
    what: &'static str,
    /// Commands, each with the folder in which it runs and what is added to its environment.
    commands: &'static [Run],
}

struct Run {
    folder: &'static str,
    line: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const fn run(line: &'static [&'static str]) -> Run {
    Run { folder: ".", line, environment: &[] }
}

const fn guests(line: &'static [&'static str]) -> Run {
    Run { folder: "plugins", line, environment: &[] }
}

/// Where it cannot be installed, the tests that need it say so.
const INSTALL_STRACE: &str = "command -v strace || [ $(uname) != Linux ] || \
    { [ $(id -u) = 0 ] && apt-get update -q && apt-get install -qy strace; } || \
    echo 'strace is missing: apt-get install strace'";

const STEPS: &[Step] = &[
    Step {
        name: "setup",
        what: "the Wasm target is installed, and strace for the tests of faults",
        commands: &[run(&["rustup", "target", "add", "wasm32-wasip2"]), run(&["sh", "-c", INSTALL_STRACE])],
    },
    Step {
        name: "format",
        what: "the code is formatted",
        commands: &[run(&["cargo", "fmt", "--all", "--check"]), guests(&["cargo", "fmt", "--all", "--check"])],
    },
    Step {
        name: "plugins",
        what: "the example plugins build, and their own tests pass",
        commands: &[
            guests(&["cargo", "build", "--locked", "--release", "--target", "wasm32-wasip2"]),
            guests(&["cargo", "test", "--locked"]),
        ],
    },
    Step {
        name: "lint",
        what: "clippy has nothing to say, and documents are plain",
        commands: &[
            run(&["cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
            run(&["cargo", "run", "--locked", "--quiet", "--package", "xtask", "--", "words"]),
            guests(&["cargo", "clippy", "--locked", "--release", "--target", "wasm32-wasip2", "--", "-D", "warnings"]),
        ],
    },
    Step {
        name: "test",
        what: "all tests pass; generated files, floors and examples are among them",
        // Most tests wait, for disks, timers and child processes: two cores have time for four.
        commands: &[Run {
            folder: ".",
            line: &["cargo", "test", "--locked", "--workspace"],
            environment: &[("RUST_TEST_THREADS", "4")],
        }],
    },
    Step {
        name: "prove",
        what: "examples hold on a real bus",
        commands: &[run(&["cargo", "run", "--locked", "--quiet", "--package", "xtask", "--", "prove", "--all"])],
    },
    Step {
        name: "doc",
        what: "the documentation builds without a warning",
        commands: &[Run {
            folder: ".",
            line: &["cargo", "doc", "--locked", "--workspace", "--no-deps"],
            environment: &[("RUSTDOCFLAGS", "-D warnings")],
        }],
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, names) = match arguments.split_first() {
        Some((command, names)) => (command.as_str(), names),
        None => ("help", &[][..]),
    };
    match command {
        "test" => test(names),
        "sim" => match Seeds::parse(names) {
            Ok(seeds) => simulate(&seeds),
            Err(error) => {
                eprintln!("xtask: {error}; see `cargo xtask help`");
                ExitCode::from(2)
            }
        },
        "prove" => prove::prove(names),
        "upgrade" => prove::upgrade(names),
        "dist" => dist::dist(names),
        "words" => words::words(names),
        "help" | "--help" | "-h" => {
            println!("cargo xtask test [STEP…]   everything that has to hold, or only some of it:\n");
            for step in STEPS {
                println!("  {:<8} {}", step.name, step.what);
            }
            println!(
                "\ncargo xtask sim --seeds N [--first M]   N simulated histories of the log, from seed M on (0)\n"
            );
            println!(
                "  A seed that fails is printed with its options and its last steps, and is seen again, step by step, \
                 with"
            );
            println!("  WATTLE_SIM_SEED=n cargo test --release --test simulation");
            println!("\ncargo xtask prove NAME… | --all   an example of topologies/ against a real bus:\n");
            prove::list();
            println!(
                "\ncargo xtask upgrade [COMMIT]   a data folder that an older commit wrote under load, until it was \
                 killed"
            );
            println!(
                "cargo xtask dist [TARGET…]     archives of a release, with completions, manual pages, licences and \
                 checksums"
            );
            println!("\ncargo xtask words [--lower]   phrases in documents and doc comments that are hard to read");
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("xtask: there is no command `{other}`; see `cargo xtask help`");
            ExitCode::from(2)
        }
    }
}

fn test(names: &[String]) -> ExitCode {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        eprintln!("xtask: there is no step `{unknown}`; see `cargo xtask help`");
        return ExitCode::from(2);
    }
    let is_wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| name == step.name);
    if STEPS.iter().filter(is_wanted).any(|step| step.name == "setup") {
        eprintln!("== {}", installs(has_target(), has_strace()));
    }
    let mut summary = Vec::new();
    for step in STEPS.iter().filter(is_wanted) {
        eprintln!("\n== {}: {}", step.name, step.what);
        let start = Instant::now();
        if let Some(failure) = step.commands.iter().find_map(|command| execute(command).err()) {
            eprintln!("\n== {} FAILED: {failure}", step.name);
            return ExitCode::FAILURE;
        }
        summary.push(format!("   {:<8} {:>5.0} s", step.name, start.elapsed().as_secs_f32()));
    }
    eprintln!("\n== everything holds\n{}", summary.join("\n"));
    ExitCode::SUCCESS
}

/// What the step `setup` will do to this machine, in one line.
fn installs(has_target: bool, has_strace: bool) -> String {
    let missing =
        [(has_target, "the Rust target wasm32-wasip2 (rustup)"), (has_strace, "strace (apt-get, as root only)")];
    let missing: Vec<&str> = missing.into_iter().filter(|(is_there, _)| !is_there).map(|(_, what)| what).collect();
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

/// Which histories to run.
struct Seeds {
    first: u64,
    count: u64,
}

impl Seeds {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut first, mut count) = (0, None);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().and_then(|value| value.parse::<u64>().ok());
            let value = value.ok_or_else(|| format!("`{name}` wants a number"))?;
            match name.as_str() {
                "--seeds" => count = Some(value),
                "--first" => first = value,
                _ => return Err(format!("there is no option `{name}`")),
            }
        }
        Ok(Self { first, count: count.ok_or("`--seeds` is missing")? })
    }
}

const SIMULATION: &[&str] = &["cargo", "test", "--locked", "--release", "--test", "simulation"];
const SIMULATION_BUILD: Run = run(&["cargo", "test", "--locked", "--release", "--test", "simulation", "--no-run"]);

/// Half of the histories in each of two processes of one thread: together they take two cores.
fn simulate(seeds: &Seeds) -> ExitCode {
    if let Err(failure) = execute(&SIMULATION_BUILD) {
        eprintln!("xtask: {failure}");
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let half = seeds.count / 2;
    let halves = [(seeds.first, half), (seeds.first + half, seeds.count - half)];
    let mut failure = None;
    let begun: Vec<(u64, u64, Child)> = halves
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .filter_map(|(first, count)| match begin(first, count) {
            Ok(child) => Some((first, count, child)),
            Err(error) => {
                failure = Some(error);
                None
            }
        })
        .collect();
    for (first, count, mut child) in begun {
        match child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => failure = Some(format!("seeds {first} to {} ended with {status}", first + count - 1)),
            Err(error) => failure = Some(error.to_string()),
        }
    }
    let seconds = start.elapsed().as_secs_f32();
    match failure {
        None => {
            eprintln!("\n== {} histories keep the promises; {seconds:.0} s", seeds.count);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            eprintln!("\n== sim FAILED after {seconds:.0} s: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn begin(first: u64, count: u64) -> Result<Child, String> {
    let Some((program, arguments)) = SIMULATION.split_first() else { return Err("there is no command".to_owned()) };
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("WATTLE_SIM_FIRST", first.to_string()).env("WATTLE_SIM_SEEDS", count.to_string());
    command.env("WATTLE_SIM_THREADS", "1");
    command.spawn().map_err(|error| format!("`{program}` could not be started: {error}; is it installed?"))
}

fn execute(run: &Run) -> Result<(), String> {
    let line = run.line.join(" ");
    eprintln!("   $ {line}{}", if run.folder == "." { String::new() } else { format!("   (in {})", run.folder) });
    let Some((program, arguments)) = run.line.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(run.folder).envs(run.environment.iter().copied());
    if run.folder != "." {
        // The guests are a workspace of their own; nothing that cargo set for this one is meant for them.
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_TARGET_DIR"] {
            command.env_remove(name);
        }
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}")),
        Err(error) => Err(format!("`{program}` could not be started: {error}; is it installed?")),
    }
}

#[cfg(test)]
mod tests {
    use super::installs;

    #[test]
    fn what_is_missing_is_named_before_it_is_installed() {
        assert_eq!(installs(true, true), "nothing has to be installed");
        assert_eq!(
            installs(false, false),
            "to be installed: the Rust target wasm32-wasip2 (rustup), strace (apt-get, as root only)"
        );
        assert!(!installs(false, true).contains("strace"));
    }
}
