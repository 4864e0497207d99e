//! `cargo xtask upgrade`: an older commit writes a data folder under load and is killed, and this one carries on with
//! it.
//!
//! It is the proof of `three-semantics` with two programs: the older one until half of the kills, then this one. Both
//! run on today's topologies and plugins, so the topology must be one that the older commit can read.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::{Given, Outcome, build, cargo_in, in_folder_with, three_semantics};

/// The commit before keys of topologies got other names.
const BEFORE: &str = "a460fb9";

pub(crate) fn upgrade(arguments: &[String]) -> ExitCode {
    let commit = match arguments {
        [] => BEFORE,
        [commit] => commit,
        _ => {
            eprintln!("xtask: `upgrade` takes at most one commit; see `cargo xtask help`");
            return ExitCode::from(2);
        }
    };
    match run(commit) {
        Ok(line) => {
            println!("upgrade from {commit}: {line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("upgrade from {commit}: WRONG: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(commit: &str) -> Outcome<String> {
    let old = older(commit)?;
    let program = build()?;
    in_folder_with("upgrade", &program, |given| {
        let old = Given { program: old, topologies: given.topologies.clone(), folder: given.folder.clone() };
        three_semantics::run_with(|kill| if kill < three_semantics::KILLS / 2 { &old } else { given })
    })
}

/// Builds the program of another commit, in a work tree of its own and with the dependencies of this one.
fn older(commit: &str) -> Outcome<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().map_err(|error| error.to_string())?;
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let built = here.with_file_name(format!("wattle{}", std::env::consts::EXE_SUFFIX));
    let target = here.ancestors().nth(2).ok_or("this program is in no target folder")?;
    let sources = target.join("upgrade").join(commit);
    if !sources.exists() {
        let mut git = Command::new("git");
        git.current_dir(&root).args(["worktree", "add", "--force", "--detach"]).arg(&sources).arg(commit);
        if !git.status().map_err(|error| format!("git could not be started: {error}"))?.success() {
            return Err(format!(
                "there is no commit {commit} here; a shallow clone gets it with `git fetch --unshallow`"
            ));
        }
    }
    cargo_in(&sources, &["build", "--locked", "--bin", "wattle", "--target-dir", &target.display().to_string()])?;
    let kept = target.join("upgrade").join(format!("wattle-{commit}"));
    std::fs::copy(&built, &kept).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(kept)
}
