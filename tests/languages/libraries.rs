//! Libraries, templates and example plugins pass their own tests, in the tools of their languages.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::process::{Process, wattle};
use crate::common::trees::PATIENCE;
use crate::probes::build;
use crate::projects::{Project, is_tested, path, said};

/// A tree with a language on each level.
#[test]
fn what_the_polyglot_example_says_of_itself_is_so() {
    if !["ts", "python", "go", "c"].into_iter().all(is_tested) {
        return;
    }
    let mut test = wattle();
    test.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "topologies/polyglot.test.yaml"]).env("PATH", path());
    let output = test.output().unwrap();
    let tested = said(&output);
    assert!(output.status.success() && tested.contains("polyglot.test.yaml"), "{tested}");

    // Without compiled code it says what it compiles, while it checks.
    let cache = tempfile::tempdir().unwrap();
    let mut check = wattle();
    check.current_dir(env!("CARGO_MANIFEST_DIR")).args(["check", "topologies/polyglot.yaml"]);
    let mut check = Process::spawn(check.env("XDG_CACHE_HOME", cache.path())).unwrap();
    let begin = Instant::now();
    while check.is_running() {
        assert!(begin.elapsed() < 5 * PATIENCE, "it does not end:\n{}", check.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, checked) = check.end();
    assert!(status.success() && checked.contains("compiling") && checked.contains("fraud"), "{checked}");
}

fn run(folder: &str, program: &str, arguments: &[&str]) {
    run_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), program, arguments);
}

fn run_in(folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("PATH", path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{}: {program} {arguments:?}\n{}", folder.display(), said(&output));
}

#[test]
fn typescript() {
    if !is_tested("ts") {
        return;
    }
    for folder in ["sdk/typescript/probe", "plugins/pricing"] {
        // It installs the packages, and other tests build the same folders meanwhile.
        build(folder);
        run(folder, "npm", &["run", "check"]);
        run(folder, "npm", &["test"]);
    }
}

#[test]
fn python() {
    if !is_tested("python") {
        return;
    }
    run("sdk/python/probe", "python3", &["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    run("sdk/python/probe", "python3", &["-m", "mypy", "--strict", "--cache-dir=/dev/null", "wattle", "tests"]);
    run("plugins/fraud", "python3", &["-m", "unittest"]);
}

#[test]
fn go() {
    if !is_tested("go") {
        return;
    }
    let project = Project::new("go");
    let tested = ["sdk/go/wattle", "plugins/routing"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    for folder in tested.iter().chain([&project.folder]) {
        run_in(folder, "go", &["vet", "./..."]);
        run_in(folder, "go", &["test", "./..."]);
    }
    run("sdk/go/probe", "go", &["vet", "./..."]);
}

#[test]
fn c() {
    if !is_tested("c") {
        return;
    }
    run("sdk/c", "make", &["test"]);
    run("plugins/labels", "make", &["test"]);
    run_in(&Project::new("c").folder, "make", &["test"]);
}

#[test]
fn cpp() {
    if !is_tested("cpp") {
        return;
    }
    run_in(&Project::new("cpp").folder, "make", &["test"]);
}

#[test]
fn zig() {
    if !is_tested("zig") {
        return;
    }
    let runs = |name: &&str| Command::new(name).arg("version").env("PATH", path()).output().is_ok();
    let zig = ["zig", "python-zig"].into_iter().find(runs).expect("its tools are there");
    run_in(&Project::new("zig").folder, zig, &["build", "test"]);
}
