//! The JSON Schema that a plugin declares for its configuration: what a topology tells it is held against that.
//!
//! A plugin reads texts, so a value fits if it does as the type that it looks like (a number, a boolean), or as a text.
//! Of a secret only its name is looked at.
//!
//! Promises: the schema is a stranger's. It refers to nothing outside itself, compiling it and a check cost bounded
//! time, and the shown part is short and on one line. Values are in no message.
//!
//! Does not know where a component keeps its schema, files, YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use super::bounds::{CONFIG_PATTERN_BYTES_MAX, CONFIG_PATTERNS_MAX, NAME_BYTES_MAX};
use super::budget::{self, TooManySteps};
use super::data_schema::{SchemaError, compiled, shown};
use super::names;

/// A compiled schema; clones share it.
#[derive(Clone)]
pub struct ConfigSchema(Arc<ConfigSchemaInner>);

struct ConfigSchemaInner {
    validator: Validator,
    /// The settings that it declares, as far as they can be shown.
    names: Vec<String>,
}

/// Values of a configuration by name; `None` for unknown ones.
pub type ConfigTexts = BTreeMap<String, Option<String>>;

/// Why a configuration does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigMisfit {
    /// A setting that the plugin does not have.
    Unknown {
        name: String,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// A setting that the plugin cannot do without.
    Missing { name: String },
    /// A value that cannot be.
    Value {
        /// The name of the setting; none where it is about several.
        name: Option<String>,
        reason: String,
    },
}

impl fmt::Display for ConfigMisfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "the plugin has no setting `{name}`: did you mean `{nearest}`?")
            }
            Self::Unknown { name, nearest: None } => write!(f, "the plugin has no setting `{name}`"),
            Self::Missing { name } => write!(f, "the plugin needs the setting `{name}`"),
            Self::Value { name: Some(name), reason } => write!(f, "the setting `{name}` does not fit: {reason}"),
            Self::Value { name: None, reason } => write!(f, "the settings do not fit: {reason}"),
        }
    }
}

impl ConfigSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The problem in words.
    pub fn compile(text: &str) -> Result<Self, String> {
        let words = |error: SchemaError| plain(&error.to_string());
        let schema: Value =
            serde_json::from_str(text).map_err(|error| words(SchemaError::NotJson(error.to_string())))?;
        let patterns = patterns(&schema);
        if patterns > CONFIG_PATTERNS_MAX {
            return Err(format!("has {patterns} patterns, and at most {CONFIG_PATTERNS_MAX} are accepted"));
        }
        let declared = schema.get("properties").and_then(Value::as_object);
        let can_be_shown = |name: &&String| name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
        let names = declared.map(|declared| declared.keys().filter(can_be_shown).cloned().collect());
        let validator = compiled(schema, PatternOptions::regex().size_limit(CONFIG_PATTERN_BYTES_MAX));
        Ok(Self(Arc::new(ConfigSchemaInner { validator: validator.map_err(words)?, names: names.unwrap_or_default() })))
    }

    /// The settings that it declares.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// The declared setting that one of another name was probably meant to be; none where it is declared.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let names = self.names().iter().map(String::as_str);
        if names.clone().any(|known| known == name) { None } else { names::nearest(name, names) }
    }

    /// Everything about a configuration that does not fit.
    pub fn check(&self, values: &ConfigTexts) -> Vec<ConfigMisfit> {
        let texts = Map::from_iter(
            values.iter().map(|(name, value)| (name.clone(), Value::from(value.clone().unwrap_or_default()))),
        );
        let mut seeming = texts.clone();
        for (name, text) in values {
            if let Some(value) = text.as_deref().and_then(seems) {
                seeming.insert(name.clone(), value);
            }
        }
        let bytes = values.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum();
        match budget::within(budget::of_data(bytes), || self.misfits(values, seeming, texts)) {
            Ok(found) => {
                // One that is only mistyped is not missing as well.
                let is_mistyped = |name: &String| {
                    found
                        .iter()
                        .any(|other| matches!(other, ConfigMisfit::Unknown { nearest: Some(near), .. } if near == name))
                };
                let counts = |misfit: &&ConfigMisfit| match misfit {
                    ConfigMisfit::Missing { name } => !is_mistyped(name),
                    _ => true,
                };
                found.iter().filter(counts).cloned().collect()
            }
            Err(TooManySteps { budget }) => {
                let reason = format!("to check them takes more than the {budget} steps that it may take");
                vec![ConfigMisfit::Value { name: None, reason }]
            }
        }
    }

    /// Values that do not fit as the type that they look like are tried as texts.
    fn misfits(
        &self,
        values: &ConfigTexts,
        mut seeming: Map<String, Value>,
        texts: Map<String, Value>,
    ) -> BTreeSet<ConfigMisfit> {
        let first = self.errors(values, seeming.clone());
        let is_text = |name: &String| seeming.get(name).is_none_or(Value::is_string);
        let refused: Vec<String> =
            first.iter().filter_map(|error| error.name.clone()).filter(|name| !is_text(name)).collect();
        for name in refused {
            let text = texts.get(&name).cloned().unwrap_or_default();
            seeming.insert(name, text);
        }
        let second = self.errors(values, seeming);
        if second.is_empty() || self.errors(values, texts).is_empty() {
            return BTreeSet::new();
        }
        // A number that is too large is not "not a text".
        let better = |error: &Error| {
            first.iter().find(|other| other.name.is_some() && other.name == error.name && !other.is_of_type).cloned()
        };
        second.into_iter().map(|error| better(&error).unwrap_or(error).misfit).collect()
    }

    fn errors(&self, values: &ConfigTexts, config: Map<String, Value>) -> Vec<Error> {
        let config = Value::Object(config);
        let errors = self.0.validator.iter_errors(&config).flat_map(|error| self.said(&error));
        let is_known = |error: &Error| error.name.as_ref().is_none_or(|name| values.get(name) != Some(&None));
        errors.filter(is_known).collect()
    }

    fn said(&self, error: &ValidationError<'_>) -> Vec<Error> {
        let of = |name: Option<String>, misfit| Error { name, is_of_type: false, misfit };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let unknown = |name: &String| {
                    let nearest = self.nearest(name).map(str::to_owned);
                    of(None, ConfigMisfit::Unknown { name: plain(name), nearest })
                };
                unexpected.iter().map(unknown).collect()
            }
            ValidationErrorKind::Required { property: Value::String(name) } => {
                vec![of(None, ConfigMisfit::Missing { name: plain(name) })]
            }
            kind => {
                let pointer = error.instance_path().to_string();
                let name = pointer.split('/').nth(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
                let reason = plain(&error.masked_with("the value").to_string());
                let is_of_type = matches!(kind, ValidationErrorKind::Type { .. });
                let misfit = ConfigMisfit::Value { name: name.clone(), reason };
                vec![Error { name, is_of_type, misfit }]
            }
        }
    }
}

/// What a check says.
#[derive(Clone)]
struct Error {
    /// The setting whose value it is about.
    name: Option<String>,
    /// It is another type.
    is_of_type: bool,
    misfit: ConfigMisfit,
}

/// What a text looks like, where that is no text.
fn seems(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_number() || value.is_boolean()).then_some(value)
}

/// How many patterns a schema has.
fn patterns(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(entries) => entries
            .iter()
            .map(|(keyword, value)| match (keyword.as_str(), value) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(all)) => all.len() + patterns(value),
                (_, value) => patterns(value),
            })
            .sum(),
        _ => 0,
    }
}

/// A stranger's text on one line, as much of it as anybody wants to read.
fn plain(text: &str) -> String {
    let is_odd = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    shown(text)
        .chars()
        .flat_map(|char| {
            let (odd, usual) = if is_odd(char) { (Some(char.escape_default()), None) } else { (None, Some(char)) };
            odd.into_iter().flatten().chain(usual)
        })
        .collect()
}

impl fmt::Debug for ConfigSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConfigSchema").field(&self.0.names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r#"{
        "type": "object", "additionalProperties": false, "required": ["key"],
        "properties": {
            "currency": { "type": "string", "pattern": "^[A-Z]{3}$" },
            "per_order": { "type": "integer", "maximum": 100 },
            "express": { "type": "boolean" }, "key": { "type": "string", "minLength": 20 }, "any": {},
            "code": { "type": "string", "maxLength": 3 }
        }
    }"#;

    fn misfits(schema: &str, values: &[(&str, Option<&str>)]) -> Vec<String> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        ConfigSchema::compile(schema).unwrap().check(&values).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_value_fits_as_what_it_looks_like_or_as_a_text() {
        let good = [("key", None), ("currency", Some("EUR")), ("per_order", Some("7")), ("express", Some("true"))];
        assert_eq!(misfits(SHOP, &good), [""; 0]);
        let texts = [("key", None), ("any", Some("7")), ("code", Some("007"))];
        assert_eq!(misfits(SHOP, &texts), [""; 0]);
        assert_eq!(misfits(SHOP, &[("key", None), ("code", Some("7"))]), [""; 0], "a number that is written as a text");
        let either = r#"{ "oneOf": [{ "properties": { "a": { "type": "string" } } }, { "not": true }] }"#;
        assert_eq!(misfits(either, &[("a", Some("7"))]), [""; 0]);
    }

    #[test]
    fn everything_that_does_not_fit_is_said_without_values() {
        let wrong = [
            ("curency", Some("EUR")),
            ("currency", Some("hush")),
            ("per_order", Some("101")),
            ("express", Some("yes")),
            ("code", Some("12345")),
        ];
        assert_eq!(
            misfits(SHOP, &wrong),
            [
                "the plugin has no setting `curency`: did you mean `currency`?",
                "the plugin needs the setting `key`",
                "the setting `code` does not fit: the value is longer than 3 characters",
                "the setting `currency` does not fit: the value does not match \"^[A-Z]{3}$\"",
                "the setting `express` does not fit: the value is not of type \"boolean\"",
                "the setting `per_order` does not fit: the value is greater than the maximum of 100",
            ]
        );
    }

    #[test]
    fn a_schema_of_a_stranger_costs_bounded_time_and_words() {
        let refused = |text: &str| ConfigSchema::compile(text).unwrap_err();
        assert!(refused("{").starts_with("is not JSON"));
        assert!(refused(r#"{"$ref":"https://example.test/x.json"}"#).starts_with("refers to"));
        let many = vec![r#"{"pattern":"a{1000}{1000}"}"#; CONFIG_PATTERNS_MAX + 1].join(",");
        assert!(refused(&format!(r#"{{"allOf":[{many}]}}"#)).contains("patterns"));
        assert!(refused(r#"{"pattern":"(a{1000}){1000}"}"#).contains("regex"));
        assert!(!refused("{\"minimum\":\"\\u001b[31m\\n\"}").contains(['\u{1b}', '\n']));
        // Each of 40 applies the next one twice.
        let apply =
            |next: usize| format!(r##"{{"allOf":[{{"$ref":"#/$defs/a{next}"}},{{"$ref":"#/$defs/a{next}"}}]}}"##);
        let all: Vec<_> = (0..40).map(|at| format!(r#""a{at}":{}"#, apply(at + 1))).collect();
        let doubling = format!(r##"{{"$ref":"#/$defs/a0","$defs":{{{},"a40":{{}}}}}}"##, all.join(","));
        assert!(misfits(&doubling, &[])[0].contains("steps"), "{:?}", misfits(&doubling, &[]));
    }

    #[test]
    fn what_was_probably_meant_is_one_that_is_declared() {
        let schema = ConfigSchema::compile(r#"{ "properties": { "currency": {}, "a\nb": {} } }"#).unwrap();
        assert_eq!((schema.names(), schema.nearest("curency")), (&["currency".to_owned()][..], Some("currency")));
        assert_eq!((schema.nearest("currency"), schema.nearest("per_order")), (None, None));
    }
}
