//! From the text of an access file to its rules.
//!
//! Promises: every problem at once, each with its place and what to do; rules exactly when none of them is an error.

use std::borrow::Cow;
use std::path::Path;

use schemars::generate::SchemaSettings;

use super::bounds::FILE_BYTES_MAX;
use super::files::Files;
use super::identity::ANONYMOUS;
use super::resolve::{Resolver, SHORTER};
use super::rules::Access;
use super::{raw, token};
use crate::topology::diagnostic::{Code, Diagnostic, Problems, Span};
use crate::topology::reader::{FromNode, Owner, ReadContext, Reader};
use crate::topology::yaml::{self, NodeRef, View};
use crate::topology::{PathKind, Source, Surroundings, names};

/// What the top of an access file is called in messages.
const TOP: &str = "an access file";
/// The begin of each version of the format.
const FORMAT: &str = "access/";

/// The world as the reader of topologies asks for it, without all that access files must not depend on.
struct NoSurroundings;

impl Surroundings for NoSurroundings {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn at(&self, _path: &Path) -> PathKind {
        PathKind::Nothing
    }
}

/// The JSON Schema of access files, as committed in `access.schema.json`: pretty-printed, with a line break at the end.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<raw::AccessFile>();
    schema.insert("title".into(), "Wattle access".into());
    // A schema is made of maps with text keys, which always have a JSON text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// Whether a file says that it is an access file, of any version.
pub fn is_access_file(source: &Source) -> bool {
    let is_format = |text: &str| text.starts_with(FORMAT);
    if !source.text.contains(FORMAT) {
        return false;
    }
    let (tree, _) = yaml::parse(0, &source.text);
    match tree.as_ref().map(|tree| tree.root().map(NodeRef::view)) {
        Some(Some(View::Mapping(mut children))) => {
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                if let (View::Scalar(key), View::Scalar(value)) = (key.view(), value.view())
                    && key.text == "wattle"
                {
                    return is_format(value.text);
                }
            }
            false
        }
        Some(_) => false,
        // It is no YAML: as far as it can be told.
        None => source
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("wattle:"))
            .any(|version| is_format(version.trim_start().trim_start_matches(['"', '\'']))),
    }
}

/// Why a principal cannot have this name, and what to do.
pub fn principal_name_problem(name: &str) -> Option<(String, String)> {
    match name {
        ANONYMOUS => Some(("this is the caller without credentials".to_owned(), "choose another name".to_owned())),
        name => names::problem(name),
    }
}

/// The source with tokens that were pasted into it masked, so that its lines can be printed. Spans stay valid.
pub fn masked(source: &Source) -> Cow<'_, Source> {
    match token::mask(&source.text) {
        Cow::Borrowed(_) => Cow::Borrowed(source),
        Cow::Owned(text) => Cow::Owned(Source { path: source.path.clone(), text }),
    }
}

/// Checks an access file. There are rules exactly when none of the diagnostics is an error. To print lines of
/// the file with them, use its [`masked`] source.
pub fn check(source: &Source, files: &dyn Files) -> (Option<Access>, Vec<Diagnostic>) {
    check_numbered(0, source, files)
}

/// The same of the source with this number of a check.
pub fn check_numbered(number: u32, source: &Source, files: &dyn Files) -> (Option<Access>, Vec<Diagnostic>) {
    let mut problems = Problems::default();
    let top = Span { source: number, start: 0, end: 0 };
    if source.text.len() > FILE_BYTES_MAX {
        let message = format!("this file has {} bytes, at most {FILE_BYTES_MAX} are read", source.text.len());
        problems.push(Diagnostic::error(Code::TooLarge, top, "too long", message).help(SHORTER));
        return (None, problems.finish());
    }
    let source = masked(source);
    let (tree, diagnostics) = yaml::parse(number, &source.text);
    problems.extend(diagnostics.into_iter().map(|diagnostic| match diagnostic.code {
        Code::TooLarge => diagnostic.help(SHORTER),
        _ => diagnostic,
    }));
    let Some(tree) = tree else { return (None, problems.finish()) };
    let mut shared = ReadContext::default();
    let mut reader = Reader::new(&source.path, &NoSurroundings, &mut shared);
    let file = match tree.root() {
        Some(root) => raw::AccessFile::read(root, Owner { key: TOP, span: root.span() }, &mut reader),
        None => {
            let empty = Diagnostic::error(Code::MissingKey, top, "nothing here", "this file is empty");
            reader
                .report(empty.help("an access file begins with `wattle: access/v1`, and has `principals` and `rules`"));
            None
        }
    };
    let access = file.map(|file| Resolver::new(&mut reader, files).resolve(&file, top));
    problems.append(reader.problems);
    let is_good = !problems.any_error();
    (access.filter(|_| is_good), problems.finish())
}
