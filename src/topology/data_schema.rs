//! The JSON Schema of a topic's data: compiled once when the topology is checked, asked for each event.
//!
//! Promises: a schema that compiled refers to nothing outside itself, and checking reads nothing but the data. Patterns are
//! matched in time linear in the data, which strangers choose; so look-around and back-references are not among them.
//! `format` says something only, as drafts from 2019-09 on have it, unless the schema's own draft checks it.
//!
//! Does not know files, YAML, topics or what is done with what does not fit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ReferencingError, ValidationError, Validator};

use super::expression::is_json;

/// Bytes of a place or a reason that are said.
const SHOWN_BYTES_MAX: usize = 400;

/// A compiled schema; clones share it. Two are equal that say the same.
#[derive(Clone)]
pub struct DataSchema(Arc<Inner>);

struct Inner {
    path: PathBuf,
    text: String,
    validator: Validator,
}

/// Why a text is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("is not JSON: {0}")]
    NotJson(String),
    #[error("refers to `{uri}`, which is not in the file")]
    External { uri: String },
    #[error("is not a JSON Schema: {}{reason}", at(pointer))]
    Invalid { pointer: String, reason: String },
}

/// Why data does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There is none.
    #[error("the event has no data")]
    NoData,
    /// It says to be something else.
    #[error("the data says to be `{content_type}`, not JSON")]
    OtherContentType {
        /// What it says to be.
        content_type: String,
    },
    /// It cannot be read.
    #[error("the data is not JSON: {reason}")]
    NotJson {
        /// Why.
        reason: String,
    },
    /// A part of it is not as the schema says.
    #[error("{}{reason}", at(pointer))]
    Part {
        /// Where it is: a JSON Pointer (RFC 6901), empty for all of the data.
        pointer: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// In front of what is wrong at a place.
fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!("at `{pointer}`: ") }
}

impl DataSchema {
    /// Compiles the text of a file.
    pub(crate) fn compile(path: &Path, text: &str) -> Result<Self, SchemaError> {
        let schema = serde_json::from_str(text).map_err(|error| SchemaError::NotJson(error.to_string()))?;
        let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
        let validator = options.build(&schema).map_err(|error| refused(&error))?;
        Ok(Self(Arc::new(Inner { path: path.to_owned(), text: text.to_owned(), validator })))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The same with an absolute path: a relative one starts from a folder.
    #[must_use]
    pub fn rooted(self, at: &Path) -> Self {
        let path = at.join(self.path());
        let Inner { text, validator, .. } = &*self.0;
        Self(Arc::new(Inner { path, text: text.clone(), validator: validator.clone() }))
    }

    /// Where it was.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the data of an event is as it says.
    ///
    /// # Errors
    /// [`Misfit`]: the first thing that is not.
    pub fn check(&self, data: Option<&[u8]>, content_type: Option<&str>) -> Result<(), Misfit> {
        if let Some(content_type) = content_type.filter(|content_type| !is_json(content_type)) {
            return Err(Misfit::OtherContentType { content_type: content_type.to_owned() });
        }
        let data = data.ok_or(Misfit::NoData)?;
        let data = serde_json::from_slice(data).map_err(|error| Misfit::NotJson { reason: error.to_string() })?;
        self.0.validator.validate(&data).map_err(|error| Misfit::Part {
            pointer: shown(&error.instance_path().to_string()),
            // The value itself may be a secret.
            reason: shown(&error.masked_with("the value").to_string()),
        })
    }
}

fn refused(error: &ValidationError<'_>) -> SchemaError {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => {
            SchemaError::External { uri: uri.clone() }
        }
        _ => {
            let (pointer, reason) = (error.instance_path().to_string(), error.to_string());
            SchemaError::Invalid { pointer: shown(&pointer), reason: shown(&reason) }
        }
    }
}

/// As much of a text as anybody wants to read: names and values in it may be as long as the data is.
fn shown(text: &str) -> String {
    match text.get(text.floor_char_boundary(SHOWN_BYTES_MAX)..) {
        None | Some("") => text.to_owned(),
        Some(rest) => format!("{}…", text.strip_suffix(rest).unwrap_or_default()),
    }
}

impl PartialEq for DataSchema {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl fmt::Debug for DataSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataSchema").field(&self.0.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<DataSchema, SchemaError> {
        DataSchema::compile(Path::new("s.json"), text)
    }

    fn misfit(schema: &str, data: &str) -> Option<String> {
        let checked = compile(schema).unwrap().check(Some(data.as_bytes()), None);
        checked.err().map(|misfit| misfit.to_string())
    }

    const ORDER: &str = r##"{
        "type": "object", "required": ["id"], "additionalProperties": false,
        "properties": { "id": { "type": "string", "pattern": "^o-[0-9]+$" }, "items": { "items": { "$ref": "#/$defs/item" } } },
        "$defs": { "item": { "properties": { "qty": { "type": "integer", "minimum": 1 } } } }
    }"##;

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        assert_eq!(misfit(ORDER, r#"{"id":"o-1","items":[{"qty":1}]}"#), None);
        for (data, words) in [
            (
                r#"{"id":"o-1","items":[{"qty":1},{"qty":0}]}"#,
                "at `/items/1/qty`: the value is less than the minimum of 1",
            ),
            (r#"{"id":"a secret"}"#, "at `/id`: the value does not match \"^o-[0-9]+$\""),
            ("{}", "\"id\" is a required property"),
            ("[]", "the value is not of type \"object\""),
            ("{", "the data is not JSON: EOF while parsing an object at line 1 column 1"),
            ("", "the data is not JSON: EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(misfit(ORDER, data).as_deref(), Some(words), "{data}");
        }
    }

    #[test]
    fn only_what_is_there_and_says_to_be_json_can_fit() {
        let anything = compile("true").unwrap();
        for content_type in [None, Some("application/json"), Some("application/cloudevents+json; charset=utf-8")] {
            assert_eq!(anything.check(Some(b"1"), content_type), Ok(()), "{content_type:?}");
        }
        assert_eq!(anything.check(None, None), Err(Misfit::NoData));
        let other = anything.check(Some(b"1"), Some("text/plain")).unwrap_err();
        assert_eq!(other.to_string(), "the data says to be `text/plain`, not JSON");
    }

    #[test]
    fn what_is_no_schema_by_itself_is_refused_with_the_reason() {
        for (text, words) in [
            ("{", "is not JSON: EOF while parsing an object at line 1 column 1"),
            (
                r#"{"$ref":"https://example.test/x.json"}"#,
                "refers to `https://example.test/x.json`, which is not in the file",
            ),
            (r#"{"$ref":"other.json#/a"}"#, "refers to `other.json#/a`, which is not in the file"),
            ("5", "is not a JSON Schema: 5 is not of types \"boolean\", \"object\""),
            (r#"{"minimum":"x"}"#, "is not a JSON Schema: at `/minimum`: \"x\" is not of type \"number\""),
            (r##"{"$ref":"#/$defs/a"}"##, "is not a JSON Schema: Pointer '/$defs/a' does not exist"),
            (r#"{"pattern":"(?=a)b"}"#, "is not a JSON Schema: at `/pattern`: \"(?=a)b\" is not a \"regex\""),
        ] {
            assert_eq!(compile(text).unwrap_err().to_string(), words, "{text}");
        }
    }

    #[test]
    fn hostile_data_and_schemas_that_refer_to_themselves_end() {
        let deep = "[".repeat(100_000);
        assert!(misfit("true", &deep).unwrap().contains("recursion limit"));
        let long = format!("{{\"{}\":1}}", "ä".repeat(100_000));
        let words = misfit(r#"{"additionalProperties":{"type":"string"}}"#, &long).unwrap();
        assert!(words.len() < 500 && words.ends_with("…`: the value is not of type \"string\""), "{words}");
        let slow = format!("\"{}!\"", "a".repeat(100_000));
        assert!(misfit(r#"{"pattern":"^(a+)+$"}"#, &slow).is_some());
        assert_eq!(misfit(r##"{"$ref":"#"}"##, "1"), None);
        assert_eq!(misfit(r##"{"allOf":[{"$ref":"#"}]}"##, "{}"), None);
        assert!(misfit(r##"{"items":{"$ref":"#"},"maxItems":1}"##, "[[[1,2]]]").is_some());
    }
}
