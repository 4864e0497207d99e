//! The languages of plugins, and how a folder says which one it is written in.

use std::path::Path;

use serde_json::{Map, Value};

/// A language of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// With cargo.
    Rust,
    /// With npm, checked by the compiler of TypeScript.
    TypeScript,
    /// As TypeScript, without types.
    JavaScript,
    /// With componentize-py.
    Python,
    /// With the compiler of Go.
    Go,
    /// With clang or zig.
    C,
    /// As C.
    Cpp,
    /// With zig.
    Zig,
}

/// The manifest of languages that have none of their own.
pub(super) const OWN_MANIFEST: &str = "wattle.toml";

/// Manifests by which a language is recognised, in the order in which they are searched.
pub const MANIFESTS: [&str; 5] = ["Cargo.toml", "package.json", "pyproject.toml", "go.mod", OWN_MANIFEST];

impl Language {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Rust, Self::TypeScript, Self::JavaScript, Self::Python, Self::Go, Self::C, Self::Cpp, Self::Zig];

    /// The language of a plugin folder, by its manifest.
    pub fn of(folder: &Path) -> Option<Self> {
        let manifest = MANIFESTS.iter().find(|manifest| folder.join(manifest).is_file())?;
        match *manifest {
            "Cargo.toml" => Some(Self::Rust),
            "package.json" if folder.join("tsconfig.json").is_file() => Some(Self::TypeScript),
            "package.json" => Some(Self::JavaScript),
            "pyproject.toml" => Some(Self::Python),
            "go.mod" => Some(Self::Go),
            _ => Self::ALL.into_iter().find(|language| named(folder).as_deref() == Some(language.id())),
        }
    }

    /// The languages whose manifest is `wattle.toml`.
    pub(super) fn own_manifests() -> String {
        [Self::C, Self::Cpp, Self::Zig].map(|language| format!("\"{}\"", language.id())).join(", ")
    }

    /// The name as `--lang` takes it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::TypeScript => "ts",
            Self::JavaScript => "js",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Zig => "zig",
        }
    }

    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::TypeScript => "TypeScript",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Zig => "Zig",
        }
    }
}

/// The language that a `wattle.toml` names.
fn named(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(OWN_MANIFEST)).ok()?;
    toml::from_str::<Map<String, Value>>(&text).ok()?.get("language")?.as_str().map(str::to_owned)
}

/// Whether a file is there by which a language is recognised.
pub(super) fn has_manifest(folder: &Path) -> bool {
    MANIFESTS.iter().any(|manifest| folder.join(manifest).is_file())
}

/// The manifests in words.
pub(super) fn manifests() -> String {
    MANIFESTS.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_by_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        let mut told = vec![Language::of(path)];
        for (name, text) in [
            ("wattle.toml", "language = \"fortran\"\n"),
            ("wattle.toml", "# c\nlanguage = \"cpp\"\n[config.word]\ntype = \"string\"\n"),
            ("go.mod", ""),
            ("pyproject.toml", ""),
            ("package.json", "{}"),
            ("tsconfig.json", "{}"),
            ("Cargo.toml", ""),
        ] {
            write(name, text);
            told.push(Language::of(path));
        }
        let expected = [None, None, Some("cpp"), Some("go"), Some("python"), Some("js"), Some("ts"), Some("rust")];
        assert_eq!(told.iter().map(|language| language.map(Language::id)).collect::<Vec<_>>(), expected);
        assert!(has_manifest(path));
    }
}
