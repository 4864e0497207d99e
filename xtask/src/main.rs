//! What cargo alone cannot do: set up a machine and run everything that has to hold before a change is done.
//!
//! `cargo xtask test` is the whole of it, and what CI runs (`test.rs`).
//!
//! `cargo xtask sim --seeds N` runs many simulated histories of the log, optimised, on two cores.
//!
//! `cargo xtask prove NAME` runs an example against a real bus and says in one line what that holds (`prove`).
//! `cargo xtask upgrade` does so with an older program until half of the kills.
//!
//! `cargo xtask words` counts phrases that are hard to read (`words.rs`).

#![allow(clippy::disallowed_methods, reason = "its threads and tasks end with it")]

mod dist;
mod jobs;
mod prove;
mod test;
mod tools;
mod words;

use std::process::{Child, Command, ExitCode};
use std::time::Instant;

use test::{Run, STEPS, execute, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, names) = match arguments.split_first() {
        Some((command, names)) => (command.as_str(), names),
        None => ("help", &[][..]),
    };
    match command {
        "test" => test::test(names),
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
            println!("cargo xtask test [STEP…] [--without LANG…]   everything that has to hold, or only some of it:\n");
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
