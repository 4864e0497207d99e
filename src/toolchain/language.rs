//! The languages of plugins.

use std::path::Path;

/// A language of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// With cargo.
    Rust,
    /// Recognised, and not supported in this release.
    Go,
    /// As for Go.
    JavaScript,
    /// As for Go.
    Python,
}

/// Manifests by which a language is recognised, in the order in which they are searched.
const MANIFESTS: [(&str, Language); 4] = [
    ("Cargo.toml", Language::Rust),
    ("go.mod", Language::Go),
    ("package.json", Language::JavaScript),
    ("pyproject.toml", Language::Python),
];

impl Language {
    /// The languages that can be built and created.
    pub const SUPPORTED: [Self; 1] = [Self::Rust];

    /// The language of a plugin folder, by its manifest.
    pub fn of(folder: &Path) -> Option<Self> {
        MANIFESTS.iter().find(|(manifest, _)| folder.join(manifest).is_file()).map(|(_, language)| *language)
    }

    /// Its name in commands.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }

    /// The name as `--lang` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
        }
    }
}
