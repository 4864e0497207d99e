//! How often documents and doc comments use phrases that readers understand only at the second reading.
//!
//! `cargo xtask words` counts them per 1,000 words, in each of a few texts by itself, and fails where a text has more
//! than its limit in `xtask/words.txt`. `cargo xtask words --lower` writes today's numbers there where they are lower;
//! none is ever raised beyond what it is, and none below [`TARGET`] is needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use regex::Regex;

/// The phrases. The field has plain words for each: *before*, *after*, *next to*, *N*, and the noun itself.
const PHRASES: &str = r"(?i)\b(whoever|whom|somebody|nobody|so many|in front of|beside|goes on|go on|have (?:a|the|an) \w+ \w+ (?:more|again)|what (?:is|was|runs|it|there|comes|came|fails|has|they)|one that|those that|who (?:comes|waits|has)|in its place|as they came|had its turn|is at)\b";
/// Phrases per 1,000 words that are few enough.
const TARGET: f64 = 2.5;
const LIMITS: &str = "xtask/words.txt";
const HEADER: &str = "# Most phrases per 1,000 words (`cargo xtask words`). Numbers here only go down, to 2.5.\n";

type Outcome<T> = Result<T, String>;

/// Counts; 1 where a text has more than it may have.
pub(crate) fn words(arguments: &[String]) -> ExitCode {
    let lowers = match arguments {
        [] => false,
        [argument] if argument == "--lower" => true,
        _ => {
            eprintln!("xtask: `words` takes `--lower`, or nothing");
            return ExitCode::from(2);
        }
    };
    match count(lowers) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn count(lowers: bool) -> Outcome<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask is in no workspace")?;
    let (phrases, words) = (regex(PHRASES)?, regex(r"\w+")?);
    let mut limits = read_limits(&read(&root.join(LIMITS))?)?;
    let mut holds = true;
    for (name, text) in texts(root)? {
        let (found, all) = (phrases.find_iter(&text).count(), words.find_iter(&text).count().max(1));
        let rate = found as f64 * 1000.0 / all as f64;
        // As it is written: rounded up, so that today's text is never beyond its own number.
        let rounded = ((rate * 10.0).ceil() / 10.0).max(TARGET);
        let limit = limits.entry(name.to_owned()).or_insert(TARGET);
        println!("{name:<14} {rate:>5.1} per 1,000 words ({found} in {all}), at most {limit}");
        if rate > *limit {
            holds = false;
            let shown: Vec<_> = phrases.find_iter(&text).map(|found| found.as_str()).take(12).collect();
            println!("    such as: {}", shown.join(", "));
        } else if lowers {
            *limit = limit.min(rounded);
        }
    }
    if lowers {
        let lines = limits.iter().fold(HEADER.to_owned(), |mut lines, (name, limit)| {
            let _ = writeln!(lines, "{name} {limit}");
            lines
        });
        std::fs::write(root.join(LIMITS), lines).map_err(|error| format!("{LIMITS}: {error}"))?;
    }
    Ok(holds)
}

fn regex(pattern: &str) -> Outcome<Regex> {
    Regex::new(pattern).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Lines of a name and a number.
fn read_limits(text: &str) -> Outcome<BTreeMap<String, f64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let limit = |line: &str| {
        let (name, limit) = line.split_once(' ')?;
        Some((name.to_owned(), limit.trim().parse().ok()?))
    };
    lines.map(|line| limit(line).ok_or_else(|| format!("{LIMITS}: `{line}` is not a name and a number"))).collect()
}

/// The texts that are counted, by name.
fn texts(root: &Path) -> Outcome<Vec<(&'static str, String)>> {
    Ok(vec![
        ("README", read(&root.join("README.md"))?),
        ("ARCHITECTURE", read(&root.join("ARCHITECTURE.md"))?),
        ("GLOSSARY", read(&root.join("GLOSSARY.md"))?),
        ("help", read(&root.join("tests/cli/help.txt"))?),
        ("docs", docs(&root.join("src"))?),
    ])
}

/// The doc comments of modules and public items below a folder.
fn docs(folder: &Path) -> Outcome<String> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut docs = String::new();
    for file in files {
        of_public_items(&read(&file)?, &mut docs);
    }
    Ok(docs)
}

/// Adds the doc comments of a module and of its public items: those that begin with `pub `, and all in public enums and
/// traits. Relies on the layout of rustfmt.
fn of_public_items(source: &str, docs: &mut String) {
    let mut block: Vec<&str> = Vec::new();
    // The indentation of the public enum or trait around a line.
    let mut inside: Option<usize> = None;
    for line in source.lines() {
        let text = line.trim_start();
        let indentation = line.len() - text.len();
        if let Some(doc) = text.strip_prefix("//!") {
            docs.extend([doc, "\n"]);
            continue;
        }
        if let Some(doc) = text.strip_prefix("///") {
            block.push(doc);
            continue;
        }
        if text.starts_with('#') || (!block.is_empty() && text.starts_with([')', ']'])) {
            continue; // an attribute between a doc comment and its item
        }
        let is_member = inside.is_some_and(|around| indentation > around);
        if text.starts_with("pub ") || is_member {
            block.iter().for_each(|doc| docs.extend([*doc, "\n"]));
        }
        block.clear();
        if (text.starts_with("pub enum ") || text.starts_with("pub trait ")) && text.ends_with('{') {
            inside = Some(indentation);
        } else if inside == Some(indentation) && text.starts_with('}') {
            inside = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn phrases_are_counted_whatever_their_case() {
        let phrases = regex(PHRASES).unwrap();
        let text =
            "Whoever waits in front of it goes on; what is there has had its turn. The lag is behind, what else?";
        let found: Vec<_> = phrases.find_iter(text).map(|found| found.as_str()).collect();
        assert_eq!(found, ["Whoever", "in front of", "goes on", "what is", "had its turn"]);
    }

    #[test]
    fn only_docs_of_modules_and_public_items_are_counted() {
        let source = "//! module\n\n/// seen\n#[derive(Debug)]\npub enum A {\n    /// variant\n    B,\n}\n\n/// \
            hidden\nstruct C;\n\n\
                      /// crate\npub(crate) fn f() {}\n\n/// function\npub fn g() {}\n";
        let mut docs = String::new();
        of_public_items(source, &mut docs);
        assert_eq!(docs.split_whitespace().collect::<Vec<_>>(), ["module", "seen", "variant", "function"]);
    }

    #[test]
    fn limits_are_names_and_numbers() {
        assert_eq!(read_limits("# why\nhelp 2.5\n").unwrap(), [("help".to_owned(), 2.5)].into());
        assert!(read_limits("help\n").is_err());
    }
}
