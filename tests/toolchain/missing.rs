//! Builds without the tools that they need.

use crate::projects::{LANGUAGES, Project, said};

#[test]
fn a_missing_tool_is_named_with_how_to_install_it_on_each_system() {
    let nothing = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        let project = Project::new(language);
        let mut build = project.wattle(&["build"]);
        let built = build.env("PATH", nothing.path()).env_remove("WASI_SDK_PATH").output().unwrap();
        let said = said(&built);
        assert_eq!(built.status.code(), Some(1), "{said}");
        let (needs, install) = match language {
            "ts" | "js" => ("needs Node.js 20 or later", "apt install nodejs npm"),
            "python" => ("needs componentize-py", ".venv/bin/pip install componentize-py=="),
            "go" => ("needs Go 1.27 or later", "apt install golang-go"),
            "c" => ("needs clang with wasi-libc, or zig", "apt install clang lld wasi-libc"),
            "cpp" => ("needs clang++ with wasi-libc and libc++, or zig", "libc++-dev-wasm32"),
            _ => ("needs zig 0.17.1", ".venv/bin/pip install ziglang==0.17.1"),
        };
        assert!(said.contains(needs) && said.contains(install), "{language}: {said}");
        assert!(said.contains("brew install") && said.contains("pip"), "{language}: {said}");
        assert!(!project.component().exists());
    }
}

#[test]
fn a_tool_of_another_version_is_refused_with_the_one_that_is_needed() {
    for (language, tool, needed) in [
        ("js", "node", "needs version 20.0 or later"),
        ("python", "componentize-py", "needs version 0.25.1"),
        ("go", "go", "needs version 1.27 or later"),
        ("zig", "zig", "needs version 0.17"),
    ] {
        let project = Project::new(language);
        let bin = project.folder.join(".venv/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in [tool, "npm"] {
            // Its version is another one, or none. A script of this test could be busy while another test starts a
            // child.
            std::os::unix::fs::symlink("/bin/echo", bin.join(name)).unwrap();
        }
        let built = project.wattle(&["build"]).output().unwrap();
        let said = said(&built);
        assert_eq!(built.status.code(), Some(1), "{said}");
        assert!(said.contains(needed) && said.contains(&*bin.join(tool).to_string_lossy()), "{language}: {said}");
        assert!(said.contains("install it:") && said.contains("pip "), "{language}: {said}");
    }
}

#[test]
fn a_name_that_is_a_word_of_some_language_is_refused_in_all() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["lambda", "func", "match", "venv", "wattle", "Greet"] {
        for language in ["rust", "go", "python"] {
            let new = crate::common::process::wattle()
                .current_dir(folder.path())
                .args(["new", name, "--lang", language])
                .output()
                .unwrap();
            assert_eq!(new.status.code(), Some(2), "{name}: {}", said(&new));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
