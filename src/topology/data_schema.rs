//! The JSON Schema of a topic's data: compiled once when the topology is checked, asked for each event.
//!
//! Promises: a schema that compiled refers to nothing outside itself, and checking reads nothing but the data. Patterns
//! are matched in time linear in the data, which strangers choose; so look-around and back-references are not among
//! them. `format` is checked, whatever the schema's draft says of it, where it is one that the drafts name. A check
//! takes a bounded number of steps (`topology/budget.rs`): how often subschemas are applied, each time to how much.
//!
//! Does not know files, YAML, topics, or the handling of data that does not conform.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Keyword, PatternOptions, ReferencingError, ValidationError, Validator};
use serde_json::{Map, Value};

use super::budget::{self, TooManySteps};
use crate::model::json::is_json;

/// Bytes of a place or a reason that are said.
const SHOWN_BYTES_MAX: usize = 400;

/// A compiled schema; clones share it. Two are equal that say the same.
#[derive(Clone)]
pub struct DataSchema(Arc<DataSchemaInner>);

struct DataSchemaInner {
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
    NotJson { reason: String },
    /// It would take too long to say.
    #[error(
        "to check the data takes more than the {steps} steps that it may take for this event; the schema goes through \
         it too often"
    )]
    TooManySteps {
        /// What it may take.
        steps: u64,
    },
    /// A part of it is not as the schema says.
    #[error("{}{reason}", at(pointer))]
    Part {
        /// Where it is: a JSON Pointer (RFC 6901), empty for all of the data.
        pointer: String,
        reason: String,
    },
}

/// The prefix of a problem at a place.
fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!("at `{pointer}`: ") }
}

impl DataSchema {
    /// Compiles the text of a file.
    pub(crate) fn compile(path: &Path, text: &str) -> Result<Self, SchemaError> {
        let schema = serde_json::from_str(text).map_err(|error| SchemaError::NotJson(error.to_string()))?;
        let validator = compiled(schema, PatternOptions::regex())?;
        Ok(Self(Arc::new(DataSchemaInner { path: path.to_owned(), text: text.to_owned(), validator })))
    }

    /// The schema as its author wrote it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether a check may take longer than reading the data does: it refers to something, so perhaps to itself.
    pub fn takes_long(&self) -> bool {
        ["\"$ref\"", "\"$dynamicRef\"", "\"$recursiveRef\""].iter().any(|keyword| self.0.text.contains(keyword))
    }

    /// The same with an absolute path: a relative one starts from a folder.
    #[must_use]
    pub fn rooted(self, at: &Path) -> Self {
        let path = at.join(self.path());
        let DataSchemaInner { text, validator, .. } = &*self.0;
        Self(Arc::new(DataSchemaInner { path, text: text.clone(), validator: validator.clone() }))
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
        let steps = budget::of_data(data.len());
        let data = serde_json::from_slice(data).map_err(|error| Misfit::NotJson { reason: error.to_string() })?;
        let checked = budget::within(steps, || self.0.validator.validate(&data));
        let checked = checked.map_err(|TooManySteps { budget }| Misfit::TooManySteps { steps: budget })?;
        checked.map_err(|error| Misfit::Part {
            pointer: shown(&error.instance_path().to_string()),
            // The value itself may be a secret.
            reason: shown(&error.masked_with("the value").to_string()),
        })
    }
}

/// Compiles a schema that refers to nothing outside, and whose checks count their steps.
pub(super) fn compiled(
    mut schema: Value,
    patterns: PatternOptions<jsonschema::Regex>,
) -> Result<Validator, SchemaError> {
    let is_first = !refers_into_lists(&schema);
    count_applied(&mut schema, is_first);
    let options = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .with_keyword(APPLIED, |_, schemas, _| Ok(Box::new(CostKeyword { schemas: schemas.as_u64().unwrap_or(1) })));
    options.build(&schema).map_err(|error| refused(&error))
}

/// A keyword that no schema has: it counts how often a subschema is applied, and what it may look at each time. Its
/// value is the number of subschemas that are applied to the same part of the data.
const APPLIED: &str = "!applied";
/// Bytes of a text that are looked at in one step.
const SEEN_BYTES: u64 = 16;

struct CostKeyword {
    schemas: u64,
}

impl CostKeyword {
    fn count(&self, data: &Value) {
        budget::spend(self.schemas.saturating_mul(size(data)));
    }
}

/// Steps to look at all of it.
fn size(data: &Value) -> u64 {
    1 + match data {
        Value::String(text) => text.len() as u64 / SEEN_BYTES,
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| name.len() as u64 / SEEN_BYTES + size(value)).sum()
        }
        _ => 0,
    }
}

impl<'i> Keyword<'i> for CostKeyword {
    fn validate(&self, data: &'i Value) -> Result<(), ValidationError<'i>> {
        self.count(data);
        Ok(())
    }

    fn is_valid(&self, data: &'i Value) -> bool {
        self.count(data);
        true
    }
}

/// Puts the counting into a schema and into all in it, as what has to fit first of all that may refer to something.
/// What is no schema, but looks like one, takes no harm.
fn count_applied(schema: &mut Value, is_first: bool) {
    let Value::Object(keywords) = schema else { return };
    let counted = serde_json::json!({ APPLIED: schemas_applied(keywords) });
    for (keyword, value) in keywords.iter_mut() {
        match (keyword.as_str(), value) {
            ("const" | "enum" | "default" | "examples", _) => {}
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies",
                Value::Object(schemas),
            ) => schemas.values_mut().for_each(|schema| count_applied(schema, is_first)),
            (_, Value::Array(schemas)) => schemas.iter_mut().for_each(|schema| count_applied(schema, is_first)),
            (_, value) => count_applied(value, is_first),
        }
    }
    match keywords.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(all) if is_first => all.insert(0, counted),
        Value::Array(all) => all.push(counted),
        _ => {} // it is refused
    }
}

/// How many subschemas are applied to what this one is applied to, itself included, without those that it refers to.
fn schemas_applied(keywords: &Map<String, Value>) -> u64 {
    let of = |value: &Value| value.as_object().map_or(0, schemas_applied);
    let within = keywords.iter().map(|(keyword, value)| match (keyword.as_str(), value) {
        ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter().map(of).sum(),
        ("not" | "if" | "then" | "else", schema) => of(schema),
        ("dependentSchemas" | "dependencies", Value::Object(schemas)) => schemas.values().map(of).sum(),
        _ => 0,
    });
    1 + within.sum::<u64>()
}

/// Whether something refers into a list of schemas by its place in it.
fn refers_into_lists(schema: &Value) -> bool {
    match schema {
        Value::String(text) => text.contains("/allOf/"),
        Value::Array(items) => items.iter().any(refers_into_lists),
        Value::Object(entries) => entries.values().any(refers_into_lists),
        _ => false,
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
pub(super) fn shown(text: &str) -> String {
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
        "properties": { "id": { "type": "string", "pattern": "^o-[0-9]+$" },
            "items": { "items": { "$ref": "#/$defs/item" } } },
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
    fn a_format_is_checked_whatever_the_draft() {
        for draft in ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"] {
            let schema = format!(r#"{{"$schema":"{draft}","format":"date-time"}}"#);
            assert_eq!(misfit(&schema, r#""2026-01-01T00:00:00Z""#), None, "{draft}");
            let words = "the value is not a \"date-time\"";
            assert_eq!(misfit(&schema, r#""yesterday""#).as_deref(), Some(words), "{draft}");
        }
    }

    #[test]
    fn a_check_that_takes_too_long_is_left_after_the_same_steps_each_time() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for schema in [
            r##"{"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}],"$defs":{"a":{"items":{"$ref":"#"}}}}"##,
            r##"{"$schema":"http://json-schema.org/draft-07/schema#","allOf":[{"$ref":"#/definitions/a"},{"$ref":"#/definitions/a"}],"definitions":{"a":{"items":{"$ref":"#"}}}}"##,
            r##"{"$ref":"#/elsewhere","elsewhere":{"items":{"allOf":[{"$ref":"#/elsewhere"},{"$ref":"#/elsewhere"}]}}}"##,
        ] {
            let schema = compile(schema).unwrap();
            let data = nested(60);
            let steps = budget::of_data(data.len());
            assert_eq!(
                schema.check(Some(data.as_bytes()), None),
                Err(Misfit::TooManySteps { steps }),
                "{}",
                schema.text()
            );
            let least = |depth: usize| {
                let data = serde_json::from_str(&nested(depth)).unwrap();
                (0..200_000)
                    .step_by(7)
                    .find(|steps| budget::within(*steps, || schema.0.validator.is_valid(&data)).is_ok())
            };
            assert!(least(5).is_some() && least(5) == least(5), "{:?}", least(5));
        }
        let long = format!("[{}1]", "1,".repeat(400_000));
        assert_eq!(misfit(r#"{"items":{"type":"integer","minimum":1}}"#, &long), None, "what is linear has room");
        let texts = format!("{{\"a\":\"{}\"}}", "x".repeat(900_000));
        let patterns: Vec<String> = (0..300).map(|number| format!(r#"{{"pattern":"y{number}$"}}"#)).collect();
        let patterns = patterns.join(",");
        let schema = format!(r#"{{"additionalProperties":{{"not":{{"anyOf":[{patterns}]}}}}}}"#);
        assert!(misfit(&schema, &texts).unwrap().contains("steps"));
    }

    #[test]
    fn names_that_are_keywords_elsewhere_are_properties_here() {
        let schema = r#"{"properties":{"enum":{"type":"string"},"properties":{"const":{"a":1}},"!applied":{"type":"null"}},"additionalProperties":false}"#;
        assert_eq!(misfit(schema, r#"{"enum":"x","properties":{"a":1},"!applied":null}"#), None);
        assert!(
            misfit(schema, r#"{"properties":{"a":1,"!applied":true}}"#).is_some(),
            "a constant is as it is written"
        );
        assert_eq!(compile(schema).unwrap().text(), schema);
        let by_place =
            r##"{"allOf":[{"type":"string"},{"minLength":2}],"properties":{},"$defs":{"a":{"$ref":"#/allOf/1"}}}"##;
        assert_eq!(misfit(by_place, r#""ab""#), None);
        assert!(
            misfit(
                r##"{"properties":{"a":{"$ref":"#/allOf/0"}},"allOf":[{"type":["object","string"]}]}"##,
                r#"{"a":1}"#
            )
            .is_some()
        );
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
