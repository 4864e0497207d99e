//! From a new project to a change that runs, with the tools of each language.

use std::fs;

use wattle::api::Digest;

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

#[test]
fn every_language_is_tested() {
    let all: Vec<&str> = wattle::toolchain::Language::ALL.iter().map(|language| language.id()).collect();
    assert_eq!(all.strip_prefix(&["rust"]).unwrap(), LANGUAGES);
}
