//! From a new project to a change that runs, with the tools of each language.

use std::fs::{self, File};

use wattle::api::Digest;

use crate::common::process::Process;
use crate::developing::what_is_saved_runs_soon;
use crate::projects::{LANGUAGES, Project, is_tested, said};

/// Each language is a test of its own, so that they run side by side and each says whether it was skipped. It goes
/// through all steps with one project: what takes time is the first build.
macro_rules! of_each_language {
    ($($test:ident: $language:literal),*) => { $(
        #[test]
        fn $test() {
            if is_tested($language) {
                let project = Project::new($language);
                a_new_project_builds_passes_its_tests_and_is_the_same_elsewhere(&project, $language);
                what_is_saved_runs_soon(&project, $language);
                what_does_not_compile_says_so_and_changes_nothing(&project);
            }
        }
    )* };
}

of_each_language!(
    typescript: "ts",
    javascript: "js",
    python: "python",
    go: "go",
    c: "c",
    cpp: "cpp",
    zig: "zig"
);

fn a_new_project_builds_passes_its_tests_and_is_the_same_elsewhere(project: &Project, language: &str) {
    let (first, component) = project.build();
    assert!(first.contains(Digest::of(&component).short().as_str()), "{first}");

    // Its own cases, through the component.
    let tested = project.wattle(&["test"]).output().unwrap();
    let passed = said(&tested);
    assert!(tested.status.success() && passed.contains(" passed") && !passed.contains("0 passed"), "{passed}");

    // Nothing has changed: no tool runs, and none is needed.
    let nothing = tempfile::tempdir().unwrap();
    let again = project.wattle(&["build"]).env("PATH", nothing.path()).output().unwrap();
    assert!(again.status.success(), "{}", said(&again));

    // The same sources in another folder. An interpreter is stored as it is after its start, with seeds of its own.
    if !["ts", "js", "python"].contains(&language) {
        let (_, elsewhere) = Project::new(language).build();
        assert!(elsewhere == component, "{language}: another component of the same sources");
    }
}

/// In the tool's own words. The component stays as it is.
fn what_does_not_compile_says_so_and_changes_nothing(project: &Project) {
    let component = fs::read(project.component()).unwrap();
    let handler = project.handler();
    let code = fs::read_to_string(&handler).unwrap();
    fs::write(&handler, format!("{code}\nthis is no code of (any language\n")).unwrap();
    let broken = project.wattle(&["build"]).output().unwrap();
    let said = said(&broken);
    assert_eq!(broken.status.code(), Some(1), "{said}");
    let name = handler.file_name().unwrap().to_str().unwrap();
    assert!(said.contains("does not build") && said.contains(name), "{said}");
    assert!(fs::read(project.component()).unwrap() == component);
}

/// Such as `wattle dev` and `wattle test`. Which of them comes first is up to this test, which has the lock itself.
#[test]
fn of_two_processes_that_build_a_folder_one_waits_for_the_other() {
    if !is_tested("c") {
        return;
    }
    let project = Project::new("c");
    let target = project.folder.join("target");
    fs::create_dir(&target).unwrap();
    let first = File::create(target.join(".wattle.lock")).unwrap();
    first.lock().unwrap();
    let mut second = Process::spawn(&mut project.wattle(&["build"])).unwrap();
    second.find(|line| line.contains("waiting for another process").then_some(())).expect("it says what it waits for");
    assert!(second.is_running() && !project.component().exists());
    drop(first);
    let (status, said) = second.end();
    assert!(status.success() && project.component().exists(), "{said}");
}

#[test]
fn every_language_is_tested() {
    let all: Vec<&str> = wattle::toolchain::Language::ALL.iter().map(|language| language.id()).collect();
    assert_eq!(all.strip_prefix(&["rust"]).unwrap(), LANGUAGES);
}
