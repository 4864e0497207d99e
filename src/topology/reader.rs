//! From YAML nodes to the types of [`super::raw`], collecting every problem on the way.
//!
//! Promises: a problem with one value never hides one with another; unknown parts are reported, never skipped.
//! An absent value and a reported one are different things, so that nothing is reported twice.
//!
//! The types themselves are declared with `keys!` and `choice!`, from which come three things that so cannot disagree:
//! the reading, the names to suggest for a mistyped one, and the JSON Schema.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::bounds::{DATA_SCHEMA_BYTES_MAX, SUGGESTIONS_MAX};
use super::data_schema::{DataSchema, SchemaError};
use super::diagnostic::{Code, Diagnostic, Problems, Span};
use super::expression::{CompileError, Expression, Lint};
use super::yaml::{Children, NodeRef, Scalar, View};
use super::{Surroundings, names, variables};

/// Reads the nodes of one file.
pub(crate) struct Reader<'c> {
    /// What relative paths start from.
    directory: PathBuf,
    pub(crate) surroundings: &'c dyn Surroundings,
    pub(crate) problems: Problems,
    shared: &'c mut ReadContext,
}

/// What the readers of all files of a check have in common.
#[derive(Default)]
pub(crate) struct ReadContext {
    /// Large topologies have the same few expressions on thousands of topics.
    expressions: HashMap<String, Result<Expression, Vec<CompileError>>>,
    /// Many topics may have the same file: the result, or the problem and its remedy.
    data_schemas: HashMap<PathBuf, Result<DataSchema, (String, &'static str)>>,
    suggestions: usize,
    /// Where keys are that had another name once: their names and those.
    pub(crate) former_keys: BTreeMap<Span, (&'static str, &'static str)>,
    /// What variables of the environment were, and their names.
    variables: BTreeMap<String, String>,
}

/// Shorter values of variables are no secrets, and are in many words by chance.
const SECRET_BYTES_MIN: usize = 4;

impl ReadContext {
    /// Puts the names of variables where their values are: the author of a topology may not be allowed to see the
    /// environment that it is checked in, and messages go into logs.
    pub(crate) fn hide_variables(&self, diagnostics: &mut [Diagnostic]) {
        let mut values: Vec<(Cow<'_, str>, String)> = Vec::new();
        for (value, name) in self.variables.iter().filter(|(value, _)| value.trim().len() >= SECRET_BYTES_MIN) {
            let shown = format!("${{{name}}}");
            values.extend(names::seemingly(value).map(|value| (value.into(), shown.clone())));
            values.push((value.trim().into(), shown));
        }
        // Of two, one of which begins like the other, the longer first.
        values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        let hide = |text: &mut String| {
            for (value, name) in &values {
                if text.contains(value.as_ref()) {
                    *text = text.replace(value.as_ref(), name);
                }
            }
        };
        for diagnostic in diagnostics {
            hide(&mut diagnostic.message);
            diagnostic.help.as_mut().map(hide);
            diagnostic.labels.iter_mut().for_each(|label| hide(&mut label.message));
        }
    }
}

/// A type that can be read from a node.
pub(crate) trait FromNode: Sized {
    /// Reads the value of a key; `None` if problems were reported instead.
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self>;
}

/// The key that a value belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'k> {
    pub(crate) key: &'k str,
    pub(crate) span: Span,
}

impl Owner<'_> {
    /// What messages call it. At the top of a file no key is written, but what the file is, in several words.
    fn called(self) -> Cow<'static, str> {
        match self.key {
            "" => "a topology".into(),
            key if key.contains(' ') => key.to_owned().into(),
            key => format!("`{key}`").into(),
        }
    }
}

/// A key that is present, and its value unless that was reported.
#[derive(Debug, Clone)]
pub(crate) struct Field<T> {
    /// Where the key is.
    pub(crate) key: Span,
    /// Where the value is.
    pub(crate) span: Span,
    pub(crate) value: Option<T>,
}

/// A key of a mapping that has many, most of them absent: in a box, so that absent ones take no room.
pub(crate) type Key<T> = Option<Box<Field<T>>>;

/// A text with its variables replaced.
pub(crate) struct Text<'t> {
    pub(crate) text: Cow<'t, str>,
    /// As it is written, where variables of the environment were put in.
    pub(crate) with_variables: Option<&'t str>,
    pub(crate) span: Span,
    quote: Option<u32>,
}

impl Text<'_> {
    /// Where bytes of the text are in the file; all of it where that cannot be said.
    pub(crate) fn part(&self, range: &std::ops::Range<usize>) -> Span {
        match self.quote {
            Some(quote) => {
                let place = |at: usize| self.span.start + quote + at as u32;
                Span { start: place(range.start), end: place(range.end), ..self.span }
            }
            None => self.span,
        }
    }
}

/// A key of a mapping with its value.
pub(crate) struct KeyValue<'t> {
    pub(crate) key: &'t str,
    pub(crate) key_span: Span,
    pub(crate) value: NodeRef<'t>,
}

/// The keys and values of a mapping while they are collected.
#[derive(Default)]
struct Entries<'t> {
    list: Vec<KeyValue<'t>>,
    /// Where the keys are, once there are too many to look through.
    index: HashMap<&'t str, Span>,
}

impl<'t> Entries<'t> {
    /// From how many keys on an index is faster.
    const INDEXED: usize = 16;

    /// Adds an entry; if its key is there, says where instead.
    fn add(&mut self, entry: KeyValue<'t>) -> Option<Span> {
        let first = match self.index.is_empty() {
            true => self.list.iter().find(|known| known.key == entry.key).map(|known| known.key_span),
            false => self.index.get(entry.key).copied(),
        };
        if first.is_some() {
            return first;
        }
        if !self.index.is_empty() {
            self.index.insert(entry.key, entry.key_span);
        }
        self.list.push(entry);
        if self.index.is_empty() && self.list.len() >= Self::INDEXED {
            self.index = self.list.iter().map(|known| (known.key, known.key_span)).collect();
        }
        None
    }
}

impl<'c> Reader<'c> {
    pub(crate) fn new(path: &Path, surroundings: &'c dyn Surroundings, shared: &'c mut ReadContext) -> Self {
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Reader { directory, surroundings, problems: Problems::default(), shared }
    }

    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.problems.push(diagnostic);
    }

    /// Reports a value that cannot be, and what would be possible.
    pub(crate) fn bad<T>(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.report(Diagnostic::error(Code::BadValue, span, "", message).help(help));
        None
    }

    /// Reports a part that is valid but not supported yet.
    pub(crate) fn unsupported(&mut self, span: Span, what: &str) {
        let message = format!("this release does not do {what} yet");
        let help = "remove it; a later release will do what it says, this one does not ignore it";
        self.report(Diagnostic::error(Code::Unsupported, span, "not in this release", message).help(help));
    }

    /// A path as the topology writes it, from where the file is.
    pub(crate) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    /// The known name nearest to `name`, as long as looking is cheap.
    pub(crate) fn nearest<'k>(&mut self, name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        self.shared.nearest(name, known)
    }

    /// The scalar of a node as text, or a report that says that `what` was expected.
    pub(crate) fn text<'t>(&mut self, node: NodeRef<'t>, what: &str) -> Option<Text<'t>> {
        let scalar = self.scalar(node, what)?;
        let span = node.span();
        let surroundings = self.surroundings;
        let found = RefCell::new(Vec::new());
        let variable = |name: &str| {
            let value = surroundings.variable(name);
            found.borrow_mut().extend(value.clone().map(|value| (value, name.to_owned())));
            value
        };
        let replaced = variables::replace(scalar.text, &variable);
        let found = found.into_inner();
        let with_variables = (!found.is_empty()).then_some(scalar.text);
        self.shared.variables.extend(found);
        match replaced {
            Ok(text) => {
                let quote = scalar.quote.filter(|_| text == scalar.text);
                Some(Text { text, with_variables, span, quote })
            }
            Err(errors) => {
                let written = Text { text: scalar.text.into(), with_variables, span, quote: scalar.quote };
                for error in errors {
                    self.bad::<()>(written.part(&error.range), error.message, error.help);
                }
                None
            }
        }
    }

    fn scalar<'t>(&mut self, node: NodeRef<'t>, what: &str) -> Option<Scalar<'t>> {
        let found = match node.view() {
            View::Scalar(scalar) => return Some(scalar),
            View::Null => "nothing",
            View::Mapping(_) => "a mapping",
            View::Sequence(_) => "a list",
            View::Tagged => return self.tagged(node),
            View::Unknown => return None,
        };
        self.bad(node.span(), format!("{what} is needed here, this is {found}"), format!("write {what}"))
    }

    /// The items of a list.
    pub(crate) fn list<'t>(&mut self, node: NodeRef<'t>, what: &str) -> Option<Children<'t>> {
        let found = match node.view() {
            View::Sequence(items) => return Some(items),
            View::Null => "nothing",
            View::Scalar(_) => "a text",
            View::Mapping(_) => "a mapping",
            View::Tagged => return self.tagged(node),
            View::Unknown => return None,
        };
        self.bad(node.span(), format!("{what} is needed here, this is {found}"), "write a list: `[a, b]`")
    }

    /// The keys and values of a mapping, with what `<<` merges into it; nothing counts as an empty one.
    ///
    /// A key that is there twice is reported, and its first value counts.
    pub(crate) fn mapping<'t>(&mut self, node: NodeRef<'t>, what: &str) -> Option<Vec<KeyValue<'t>>> {
        let mut entries = Entries::default();
        self.mapping_into(node, what, &mut entries, false)?;
        Some(entries.list)
    }

    fn mapping_into<'t>(
        &mut self,
        node: NodeRef<'t>,
        what: &str,
        entries: &mut Entries<'t>,
        merging: bool,
    ) -> Option<()> {
        let mut children = match node.view() {
            View::Mapping(children) => children,
            View::Null => return Some(()),
            View::Scalar(_) | View::Sequence(_) => {
                let found = if matches!(node.view(), View::Sequence(_)) { "a list" } else { "a text" };
                let message = format!("{what} is needed here, this is {found}");
                return self.bad(
                    node.span(),
                    message,
                    "write a mapping: `{ key: value }`, or keys on lines of their own",
                );
            }
            View::Tagged => return self.tagged(node),
            View::Unknown => return None,
        };
        let mut merges = Vec::new();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            let View::Scalar(scalar) = key.view() else {
                self.bad::<()>(key.span(), "a key is a text", "write `key: value`");
                continue;
            };
            if scalar.text == "<<" && scalar.plain {
                merges.push(value);
                continue;
            }
            let key_span = key.span();
            match entries.add(KeyValue { key: scalar.text, key_span, value }) {
                Some(first) if !merging => {
                    self.duplicate(scalar.text, key_span, first, "a key can be there once", "remove one of the two");
                }
                // What is written beats what is merged.
                _ => {}
            }
        }
        for merge in merges {
            match merge.view() {
                View::Sequence(items) => {
                    for item in items {
                        self.mapping_into(item, "a mapping to merge", entries, true);
                    }
                }
                _ => drop(self.mapping_into(merge, "a mapping to merge", entries, true)),
            }
        }
        Some(())
    }

    /// Reports a name that is there twice.
    pub(crate) fn duplicate(&mut self, name: &str, again: Span, first: Span, rule: &str, help: &str) {
        let message = format!("`{name}` is declared twice: {rule}");
        let duplicate = Diagnostic::error(Code::DuplicateName, again, "again here", message);
        self.report(duplicate.label(first, "first here").help(help));
    }

    fn tagged<T>(&mut self, node: NodeRef<'_>) -> Option<T> {
        self.bad(node.span(), "tags (`!name`) mean nothing in a topology", "remove the tag")
    }

    /// Reports a key that the place does not have. Returns the probable intention.
    pub(crate) fn unknown_key<'k>(
        &mut self,
        owner: Owner<'_>,
        entry: &KeyValue<'_>,
        known: &[&'k str],
    ) -> Option<&'k str> {
        let message = format!("{} has no key `{}`", owner.called(), entry.key);
        let near = self.nearest(entry.key, known.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        self.report(Diagnostic::error(Code::UnknownKey, entry.key_span, "unknown key", message).help(help));
        near
    }

    /// Reports a key that has another name since files were written like this one.
    pub(crate) fn renamed_key(&mut self, entry: &KeyValue<'_>, name: &str) {
        let message = format!("the key `{}` is called `{name}` now", entry.key);
        let old = Diagnostic::error(Code::UnknownKey, entry.key_span, "old name", message);
        self.report(old.help(format!("write `{name}`; nothing else about it is different")));
    }

    /// Remembers that a key had another name once, and where it is.
    pub(crate) fn has_former_name(&mut self, key: Span, name: &'static str, former: &'static str) {
        self.shared.former_keys.insert(key, (name, former));
    }

    /// Reports a key that should be there.
    pub(crate) fn missing_key(&mut self, owner: Owner<'_>, key: &str, help: &str) {
        let message = format!("{} needs the key `{key}`", owner.called());
        let missing = Diagnostic::error(Code::MissingKey, owner.span, format!("`{key}` is missing"), message);
        self.report(missing.help(format!("add `{key}`: {}", first_sentence(help))));
    }

    /// Compiles an expression of the type that `of` makes, or reports its problems.
    pub(crate) fn expression<T>(
        &mut self,
        text: &Text<'_>,
        of: fn(Expression) -> Result<T, Vec<CompileError>>,
    ) -> Option<T> {
        let compiled = match self.shared.expressions.get(text.text.as_ref()) {
            Some(compiled) => compiled.clone(),
            None => {
                let compiled = Expression::compile(&text.text);
                self.shared.expressions.insert(text.text.clone().into_owned(), compiled.clone());
                compiled
            }
        };
        let lints = match &compiled {
            Ok(expression) if self.surroundings.lints() => expression.lints(),
            _ => Vec::new(),
        };
        match compiled.and_then(of) {
            Ok(expression) => {
                let mut fails = false;
                for lint in lints {
                    let lint = match lint {
                        Lint::Fails(CompileError { message, range, help }) => {
                            fails = true;
                            (Diagnostic::error(Code::BadValue, text.part(&range), "", message), help)
                        }
                        Lint::Odd(CompileError { message, range, help }) => {
                            (Diagnostic::warning(Code::BadValue, text.part(&range), "", message), help)
                        }
                    };
                    self.report(match lint {
                        (lint, Some(help)) => lint.help(help),
                        (lint, None) => lint,
                    });
                }
                (!fails).then_some(expression)
            }
            Err(errors) => {
                for error in errors {
                    let bad = Diagnostic::error(Code::BadValue, text.part(&error.range), "", error.message);
                    let help =
                        "an expression is CEL over `data`, `id`, `source`, `type`, `subject`, `time`, `attributes`";
                    self.report(bad.help(error.help.as_deref().unwrap_or(help)));
                }
                None
            }
        }
    }
}

impl Reader<'_> {
    /// The JSON Schema in a file; else the problem and its remedy.
    pub(crate) fn data_schema(&mut self, path: &Path) -> Result<DataSchema, (String, &'static str)> {
        if let Some(known) = self.shared.data_schemas.get(path) {
            return known.clone();
        }
        let schema = self.compile_data_schema(path);
        self.shared.data_schemas.insert(path.to_owned(), schema.clone());
        schema
    }

    fn compile_data_schema(&self, path: &Path) -> Result<DataSchema, (String, &'static str)> {
        let text = self.surroundings.text(path, DATA_SCHEMA_BYTES_MAX);
        let text = text.map_err(|why| (format!("cannot be read: {why}"), "name a file with a JSON Schema"))?;
        DataSchema::compile(path, &text).map_err(|error| {
            let help = match &error {
                SchemaError::NotJson(_) => "a schema is a JSON document, such as `{ \"type\": \"object\" }`",
                SchemaError::External { .. } => {
                    "put what it refers to below `$defs` in the same file: nothing is \
                    fetched"
                }
                SchemaError::Invalid { .. } => {
                    "patterns are without look-around and back-references; all else is JSON Schema as of its \
                     `$schema`, \
                     2020-12 where there is none"
                }
            };
            (error.to_string(), help)
        })
    }
}

impl ReadContext {
    pub(crate) fn nearest<'k>(&mut self, name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        self.suggestions += 1;
        if self.suggestions > SUGGESTIONS_MAX { None } else { names::nearest(name, known) }
    }
}

/// What a doc comment says first, as part of another sentence.
fn first_sentence(doc: &str) -> String {
    let first = doc.trim().split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut chars = first.chars();
    match chars.next() {
        Some(char) => char.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Declares the keys of a mapping: a struct with a field for each, how it is read, and its JSON Schema.
///
/// A key is `name: Type`. `name(required): Type` must be there; `name(later): Type` is read and checked, and then
/// refused as something that this release does not do yet. `name as "type": Type` is for keys that are words of Rust;
/// `name formerly "old": Type` is refused under its old name, which is read all the same, so that nothing else is
/// reported.
macro_rules! keys {
    (
        $(#[doc = $doc:literal])*
        struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident $( ($mark:ident) )? $( as $key:literal )? $( formerly $former:literal )? : $type:ty,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $( $(#[doc = $field_doc])* pub(crate) $field: $crate::topology::reader::Key<$type>, )*
        }

        impl $name {
            /// The keys, in the order of their declaration.
            pub(crate) const KEYS: &'static [&'static str] = &[
                $( $crate::topology::reader::keys!(@name $field $($key)?) ),*
            ];

            /// What a key means.
            fn doc(key: &str) -> &'static str {
                match key {
                    $( $crate::topology::reader::keys!(@name $field $($key)?) => concat!($($field_doc, "\n"),*), )*
                    _ => "",
                }
            }
        }

        impl $crate::topology::reader::FromNode for $name {
            fn read(
                node: $crate::topology::yaml::NodeRef<'_>,
                owner: $crate::topology::reader::Owner<'_>,
                reader: &mut $crate::topology::reader::Reader<'_>,
            ) -> Option<Self> {
                use $crate::topology::reader::{Field, Owner, FromNode};
                let mut read = $name::default();
                // A key that is only mistyped is not missing as well.
                let mut mistyped: Vec<&str> = Vec::new();
                for entry in reader.mapping(node, "a mapping")? {
                    match entry.key {
                        $( $crate::topology::reader::keys!(@name $field $($key)?) => {
                            let inner = Owner { key: entry.key, span: entry.key_span };
                            let value = <$type as FromNode>::read(entry.value, inner, reader);
                            $( $crate::topology::reader::keys!(@read $mark reader, entry); )?
                            $( reader.has_former_name(entry.key_span, stringify!($field), $former); )?
                            let span = entry.value.span();
                            read.$field = Some(Box::new(Field { key: entry.key_span, span, value }));
                        } )*
                        $( $( $former => {
                            let inner = Owner { key: entry.key, span: entry.key_span };
                            let value = <$type as FromNode>::read(entry.value, inner, reader);
                            reader.renamed_key(&entry, stringify!($field));
                            let read_as = Field { key: entry.key_span, span: entry.value.span(), value };
                            read.$field.get_or_insert_with(|| Box::new(read_as));
                        } )? )*
                        _ => mistyped.extend(reader.unknown_key(owner, &entry, $name::KEYS)),
                    }
                }
                $( {
                    let _key = $crate::topology::reader::keys!(@name $field $($key)?);
                    $( $crate::topology::reader::keys!(
                        @present $mark $name, read.$field, mistyped, reader, owner, _key
                    ); )?
                } )*
                Some(read)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema = $crate::topology::schema_parts::Keys::new(concat!($($doc, "\n"),*));
                $(
                    let marks: &[&str] = &[$( stringify!($mark) )?];
                    let of = generator.subschema_for::<$type>();
                    let key = $crate::topology::reader::keys!(@name $field $($key)?);
                    schema.key(key, $name::doc(key), marks, of);
                )*
                schema.finish()
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
    (@read required $reader:ident, $entry:ident) => {};
    (@read later $reader:ident, $entry:ident) => {
        $reader.unsupported($entry.key_span, &format!("`{}`", $entry.key));
    };
    (@present required $name:ident, $field:expr, $mistyped:ident, $reader:ident, $owner:ident, $key:expr) => {
        if $field.is_none() && !$mistyped.contains(&$key) {
            $reader.missing_key($owner, $key, $name::doc($key));
        }
    };
    (@present later $name:ident, $field:expr, $mistyped:ident, $reader:ident, $owner:ident, $key:expr) => {};
}
pub(crate) use keys;

/// Declares a choice between words: an enum, how it is read, and its JSON Schema. `Variant(later) = "word"` is refused
/// as something that this release does not do yet.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        enum $name:ident {
            $( $(#[doc = $variant_doc:literal])* $variant:ident $( ($mark:ident) )? = $word:literal, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[allow(clippy::enum_variant_names, reason = "the words of the file decide")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $( $(#[doc = $variant_doc])* $variant, )*
        }

        impl $crate::topology::reader::FromNode for $name {
            fn read(
                node: $crate::topology::yaml::NodeRef<'_>,
                owner: $crate::topology::reader::Owner<'_>,
                reader: &mut $crate::topology::reader::Reader<'_>,
            ) -> Option<Self> {
                let words: &[&str] = &[$( $word ),*];
                let text = reader.text(node, &$crate::topology::reader::one_of(words))?;
                match text.text.as_ref() {
                    $( $word => {
                        $( $crate::topology::reader::choice!(@$mark reader, text.span, owner.key, $word); )?
                        Some($name::$variant)
                    } )*
                    other => {
                        let help = match reader.nearest(other, words.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("write {}", $crate::topology::reader::one_of(words)),
                        };
                        reader.bad(text.span, format!("`{}` cannot be `{other}`", owner.key), help)
                    }
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let choices = [$( ($word, concat!($($variant_doc, "\n"),*), {
                    let marks: &[&str] = &[$( stringify!($mark) )?];
                    marks
                }) ),*];
                $crate::topology::schema_parts::choices(&choices)
            }
        }
    };
    (@later $reader:ident, $span:expr, $key:expr, $word:literal) => {
        $reader.unsupported($span, &format!(concat!("`{}: ", $word, "`"), $key));
    };
}
pub(crate) use choice;

/// "`a`, `b` or `c`".
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
