//! `wattle new NAME`: a plugin folder that builds by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::scaffold;

/// Write a new plugin folder that builds by itself.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// The plugin's name: lower-case letters, digits and `-`
    pub name: String,
    /// The language to write it in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub lang: Language,
    /// Where to put the folder
    #[arg(long = "in", value_name = "FOLDER", default_value = ".")]
    pub parent: PathBuf,
}

/// A language that `wattle new` can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust, with cargo.
    Rust,
}

/// Why there is no new folder.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The name cannot be one.
    #[error("`{name}` cannot be a plugin's name: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is something already.
    #[error("{} exists and is not empty: choose another name, or remove it first", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl NewError {
    /// 2 when it was asked for in a wrong way, 1 when it did not work.
    fn exit_code(&self) -> u8 {
        match self {
            NewError::Name { .. } => 2,
            NewError::Exists { .. } | NewError::Write { .. } => 1,
        }
    }
}

/// Runs the command.
pub fn run(args: &NewArgs) -> ExitCode {
    match create(args) {
        Ok(folder) => {
            let shown = folder.display();
            anstream::eprintln!("created {shown}: the handler is in {}", folder.join("src/lib.rs").display());
            anstream::eprintln!("next: wattle build {shown}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            anstream::eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes the folder and gives its path.
///
/// # Errors
/// When the name cannot be one, when the folder is there and not empty, or when it cannot be written.
pub fn create(args: &NewArgs) -> Result<PathBuf, NewError> {
    let NewArgs { name, lang, parent } = args;
    if let Some(why) = wrong_name(name) {
        return Err(NewError::Name { name: name.clone(), why });
    }
    let folder = parent.join(name);
    if !is_empty(&folder)? {
        return Err(NewError::Exists { folder });
    }
    let files = match lang {
        Language::Rust => scaffold::RUST,
    };
    for file in files {
        write(&folder.join(file.0), &scaffold::text(file, name))?;
    }
    Ok(folder)
}

/// Names of crates that this one would get in the way of.
const TAKEN: [&str; 8] = ["wattle-plugin", "test", "core", "std", "alloc", "proc-macro", "serde", "wit-bindgen"];

/// Words that Rust does not take for a name.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

const NAME_CHARACTERS_MAX: usize = 64;

fn wrong_name(name: &str) -> Option<&'static str> {
    let letter = |c: char| c.is_ascii_lowercase();
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains(['/', '\\']) {
        Some("it is a path; say where with `--in FOLDER`")
    } else if !name.starts_with(letter) {
        Some("it must begin with a lower-case letter")
    } else if !name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-') || name.ends_with('-') {
        Some("it may have lower-case letters, digits, and `-` between them")
    } else if name.len() > NAME_CHARACTERS_MAX {
        Some("it is longer than 64 characters")
    } else if KEYWORDS.contains(&name) {
        Some("it is a word of the language")
    } else if TAKEN.contains(&name) {
        Some("a crate that it uses has this name")
    } else {
        None
    }
}

fn is_empty(folder: &Path) -> Result<bool, NewError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(source) => Err(NewError::Write { path: folder.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let failed = |source| NewError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_crate_a_subscriber_and_a_folder_can_have() {
        for good in ["greet", "greet-2", "a"] {
            assert_eq!(wrong_name(good), None, "{good}");
        }
        for bad in ["", "Greet", "2greet", "greet_it", "greet-", "a b", "../greet", "gruß", "match", "serde", "-x"] {
            assert!(wrong_name(bad).is_some(), "{bad:?}");
        }
        assert!(wrong_name(&"x".repeat(65)).is_some());
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let args = NewArgs { name: "greet".into(), lang: Language::Rust, parent: parent.path().to_owned() };
        fs::create_dir(parent.path().join("greet")).unwrap();
        create(&args).unwrap();
        assert!(matches!(create(&args), Err(NewError::Exists { .. })));
        fs::write(parent.path().join("file"), "").unwrap();
        let onto_a_file = NewArgs { name: "file".into(), ..args };
        assert!(matches!(create(&onto_a_file), Err(NewError::Exists { .. })));
    }
}
