//! Documents name files that exist, so that a move of code is a move in the documents as well.

use std::fs;
use std::path::{Path, PathBuf};

/// The names of source files in backticks, such as `log/seat.rs`.
fn named(text: &str) -> Vec<&str> {
    let names = text.split('`').skip(1).step_by(2);
    names.filter(|name| name.ends_with(".rs") && name.contains('/') && !name.contains(['*', '…', ' ', '{'])).collect()
}

/// A name is a path from the root, from `src`, or from a room of `src`.
fn exists(root: &Path, name: &str) -> bool {
    let source = root.join("src");
    let rooms = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path());
    [root.to_owned(), source.clone()].into_iter().chain(rooms).any(|folder| folder.join(name).is_file())
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "GLOSSARY.md", "SECURITY.md"]
        .map(|name| root.join(name))
        .into();
    documents.extend(fs::read_dir(root.join("docs/decisions")).unwrap().map(|entry| entry.unwrap().path()));
    let (mut count, mut missing) = (0, Vec::new());
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for name in named(&text) {
            count += 1;
            if !exists(root, name) {
                missing.push(format!("{}: `{name}`", document.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(count > 50, "the names are where they are looked for");
    assert!(missing.is_empty(), "files that documents name and that are not there:\n{}", missing.join("\n"));
}
