//! What `wattle new` writes: a plugin folder that needs nothing but its language's tools, because the contract and the
//! SDK come out of this program.
//!
//! `sdk/LANG/files.txt` lists the files of a language, and the build script embeds them.

use std::borrow::Cow;

use super::language::Language;
use super::results::LIBRARY;

/// A file: its path in its folder, and its content. In a text `{{name}}` stands for the plugin's name, `{{name_snake}}`
/// for the same with `_`, and `{{sdk}}`, in Rust, for where the SDK is.
pub(super) type File = (&'static str, &'static [u8]);

include!(concat!(env!("OUT_DIR"), "/scaffolds.rs"));

/// The manifest of a plugin in Rust.
pub(super) const MEMBER: &str = include_str!("../../sdk/rust/template/member.toml.in");
/// How it is built, in the manifest of its workspace.
pub(super) const PROFILE: &str = include_str!("../../sdk/rust/template/profile.toml.in");
/// The manifest of a workspace.
pub(super) const WORKSPACE: &str = include_str!("../../sdk/rust/template/workspace.toml.in");

/// Next to the manifest of a workspace. The versions in the lock file are those of this release: cargo drops what of it
/// is not needed.
pub(super) const BESIDE: [(&str, &str); 2] =
    [("Cargo.lock", include_str!("../../plugins/Cargo.lock")), (".gitignore", "/target/\n")];

/// The folder of the SDK for Rust, which the plugins of a workspace share.
pub(super) const SDK_FOLDER: &str = "wattle-plugin";

/// The file that says where the contract is: next to the SDK in a new folder, at the top of the project here.
const CONTRACT: &str = "wattle-plugin/src/contract.rs";
const CONTRACT_HERE: &str = "path: \"../../wit\"";
const CONTRACT_THERE: &str = "path: \"wit\"";

/// The workspace of the SDK in this project. In a new folder it is a member of the one around it.
const SDK_MANIFEST: &str = "wattle-plugin/Cargo.toml";
const WORKSPACE_HERE: &str = "# The guests are its workspace.\nworkspace = \"../../plugins\"\n";

/// The files of a new plugin.
pub(super) fn files(language: Language) -> &'static [File] {
    match language {
        Language::Rust => RUST,
        Language::TypeScript => TYPESCRIPT,
        Language::JavaScript => JAVASCRIPT,
        Language::Python => PYTHON,
        Language::Go => GO,
        Language::C => C,
        Language::Cpp => CPP,
        Language::Zig => ZIG,
    }
}

/// What handlers are called.
const HANDLERS: [&str; 5] = ["handler", "app", "main", "lib", "plugin"];

/// The file with the handler.
pub(super) fn handler(language: Language) -> Option<&'static str> {
    let is_handler = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        !is_of_sdk(path) && name.split_once('.').is_some_and(|(stem, of)| HANDLERS.contains(&stem) && is_code(of))
    };
    files(language).iter().map(|(path, _)| *path).find(is_handler)
}

fn is_code(extension: &str) -> bool {
    ["rs", "ts", "js", "py", "go", "c", "cpp", "zig"].contains(&extension)
}

/// Whether a file is one of the SDK.
pub(super) fn is_of_sdk(path: &str) -> bool {
    path.split_once('/').is_some_and(|(top, _)| top == SDK_FOLDER || top == LIBRARY)
}

/// The content of a file for a plugin of this name, whose SDK for Rust is there.
pub(super) fn content((path, content): &File, name: &str, sdk: &str) -> Cow<'static, [u8]> {
    let Ok(text) = std::str::from_utf8(content) else { return Cow::Borrowed(content) };
    let text = match *path {
        CONTRACT => text.replace(CONTRACT_HERE, CONTRACT_THERE),
        SDK_MANIFEST => text.replace(WORKSPACE_HERE, ""),
        // It says what it stands for.
        path if is_of_sdk(path) => return Cow::Borrowed(content),
        _ => self::text(text, name, sdk),
    };
    Cow::Owned(text.into_bytes())
}

/// A text for a plugin of this name, whose SDK for Rust is there.
pub(super) fn text(text: &str, name: &str, sdk: &str) -> String {
    text.replace("{{name}}", name).replace("{{name_snake}}", &name.replace('-', "_")).replace("{{sdk}}", sdk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(language: Language, path: &str) -> (File, &'static str) {
        let file = files(language).iter().find(|(of, _)| *of == path).unwrap();
        (*file, std::str::from_utf8(file.1).unwrap())
    }

    #[test]
    fn the_sdk_names_the_contract_and_its_workspace_in_the_places_that_are_changed() {
        for (path, here) in [(CONTRACT, CONTRACT_HERE), (SDK_MANIFEST, WORKSPACE_HERE)] {
            let (file, text) = file(Language::Rust, path);
            assert_eq!(text.matches(here).count(), 1, "{path}");
            let there = String::from_utf8(content(&file, "greet", "..").into_owned()).unwrap();
            assert!(!there.contains(here), "{there}");
        }
    }

    #[test]
    fn every_module_of_the_sdk_for_rust_is_in_it() {
        let (_, library) = file(Language::Rust, "wattle-plugin/src/lib.rs");
        for module in library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")) {
            let Some(module) = module.strip_suffix(';') else { continue };
            file(Language::Rust, &format!("wattle-plugin/src/{module}.rs"));
        }
    }

    #[test]
    fn names_are_put_in_for_their_marks() {
        assert_eq!(text("{{name}} {{name_snake}} {{sdk}}", "greet-all", "../x"), "greet-all greet_all ../x");
        assert_eq!(content(&("a.o", b"{{name}}\xff"), "greet", "").as_ref(), b"{{name}}\xff");
        assert_eq!(content(&("a.c", b"{{name}}"), "greet", "").as_ref(), b"greet");
    }

    #[test]
    fn every_language_has_a_folder_with_a_handler_its_tests_a_topology_and_a_readme() {
        for language in Language::ALL {
            let all = files(language);
            for path in ["README.md", "topology.yaml", "topology.test.yaml"] {
                assert!(all.iter().any(|(of, _)| *of == path), "{language:?} has no {path}");
            }
            let (_, readme) = file(language, "README.md");
            for part in ["wattle build", "wattle test", "wattle dev topology.yaml", "## Pitfalls"] {
                assert!(readme.contains(part), "{language:?}: its README says nothing of {part}");
            }
            let own = all.iter().filter(|(path, _)| !is_of_sdk(path) && path.rsplit('.').next().is_some_and(is_code));
            let tests = ["#[test]", "test(\"", "def test_", "func Test", "TEST(", "test \""];
            let has_tests = |text: &[u8]| tests.iter().any(|test| String::from_utf8_lossy(text).contains(test));
            assert!(own.clone().any(|(_, text)| has_tests(text)), "{language:?} has no unit test");
            assert!(handler(language).is_some(), "{language:?} has no handler");
            let mut paths: Vec<_> = all.iter().map(|(path, _)| path).collect();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), all.len(), "{language:?} has a file twice");
        }
    }
}
