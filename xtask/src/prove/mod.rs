//! Examples against a real bus, each judged by what that holds in the end.
//!
//! `cargo xtask prove NAME` builds the plugins and the bus (as `cargo build` does, unoptimised: nothing here is a
//! benchmark), runs the example in a folder of its own, and prints one line. It ends with 1 where the line is not what
//! was promised.

mod bus;
mod illegal_transition;
mod late_orders;
mod order_status;
mod three_semantics;
mod two_groups;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(crate) use upgrade::upgrade;

/// What went wrong, in words.
pub(crate) type Outcome<T> = Result<T, String>;

struct Proof {
    name: &'static str,
    what: &'static str,
    /// Says what the bus holds; an error where that is not as promised.
    run: fn(&Given) -> Outcome<String>,
}

const PROOFS: &[Proof] = &[
    Proof {
        name: "illegal-transition",
        what: "orders go through legal lives once, in whatever order and however often their states are sent",
        run: illegal_transition::run,
    },
    Proof {
        name: "late-orders",
        what: "what is out of order is in a topic of its own, once, and spoils no order's life",
        run: late_orders::run,
    },
    Proof {
        name: "order-status",
        what: "siblings run side by side, and one more is added while they do",
        run: order_status::run,
    },
    Proof {
        name: "two-groups",
        what: "each of two groups handles each order and state once, however often it is sent",
        run: two_groups::run,
    },
    Proof {
        name: "three-semantics",
        what: "what each `delivery` promises, with the bus killed under load",
        run: three_semantics::run,
    },
];

/// What an example runs with.
struct Given {
    /// The bus's program.
    program: PathBuf,
    /// The folder of the examples.
    topologies: PathBuf,
    /// A folder for this run alone.
    folder: PathBuf,
}

impl Given {
    fn example(&self, file: &str) -> String {
        self.topologies.join(file).display().to_string()
    }

    /// The input of an example, by lines.
    fn input(&self, file: &str) -> Outcome<Vec<String>> {
        let path = self.topologies.join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

pub(crate) fn list() {
    for proof in PROOFS {
        println!("  {:<20} {}", proof.name, proof.what);
    }
}

pub(crate) fn prove(names: &[String]) -> ExitCode {
    if names.is_empty() {
        list();
        return ExitCode::SUCCESS;
    }
    let all = names.iter().any(|name| name == "--all");
    if let Some(unknown) = names.iter().find(|name| *name != "--all" && PROOFS.iter().all(|proof| proof.name != **name))
    {
        eprintln!("xtask: there is no example `{unknown}`; see `cargo xtask prove`");
        return ExitCode::from(2);
    }
    let program = match build() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut holds = true;
    for proof in PROOFS.iter().filter(|proof| all || names.iter().any(|name| name == proof.name)) {
        match in_folder(proof, &program) {
            Ok(line) => println!("{}: {line}", proof.name),
            Err(error) => {
                holds = false;
                println!("{}: WRONG: {error}", proof.name);
            }
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_folder(proof: &Proof, program: &Path) -> Outcome<String> {
    in_folder_with(proof.name, program, |given| (proof.run)(given))
}

/// Runs something in a folder of its own, which stays where it fails.
fn in_folder_with(name: &str, program: &Path, run: impl FnOnce(&Given) -> Outcome<String>) -> Outcome<String> {
    let folder = std::env::temp_dir().join(format!("wattle-prove-{name}-{}", std::process::id()));
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(io)?;
    let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    let topologies = topologies.canonicalize().map_err(|error| format!("{}: {error}", topologies.display()))?;
    let line = run(&Given { program: program.to_owned(), topologies, folder: folder.clone() });
    match &line {
        Ok(_) => std::fs::remove_dir_all(&folder).map_err(io)?,
        Err(_) => eprintln!("xtask: the data of {name} are in {}", folder.display()),
    }
    line
}

/// Builds the program, and manual pages beside it: with an example, dependencies have the features that they have for
/// tests, and what was compiled for those is not compiled again.
pub(crate) const PROGRAM: &[&str] = &["build", "--locked", "--bin", "wattle", "--example", "man"];

/// Builds the example plugins and the bus. Where that is.
fn build() -> Outcome<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let plugins = ["build", "--locked", "--release", "--target", "wasm32-wasip2", "--target-dir", "target"];
    cargo_in(&root.join("plugins"), &plugins)?;
    cargo_in(&root, PROGRAM)?;
    // this program is built by the same cargo into the same folder
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = here.with_file_name(format!("wattle{}", std::env::consts::EXE_SUFFIX));
    program.is_file().then_some(program).ok_or_else(|| "the bus was built, and is not beside this program".to_owned())
}

pub(crate) fn cargo_in(folder: &Path, arguments: &[&str]) -> Outcome<()> {
    let mut cargo = Command::new("cargo");
    // What the cargo that runs this says about itself is not for another workspace.
    for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"] {
        cargo.env_remove(name);
    }
    let status = cargo.current_dir(folder).arg("--quiet").args(arguments).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`cargo {}` in {} ended with {status}", arguments.join(" "), folder.display())),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}
