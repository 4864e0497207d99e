//! Parts of a JSON Schema, for the types that a topology file is read into.

use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value};

/// The prefix of the description of an unsupported key.
const LATER: &str = "(Not in this release.) ";

/// A schema for a mapping with known keys.
pub(crate) struct Keys {
    description: String,
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Keys {
    pub(crate) fn new(doc: &str) -> Self {
        Keys { description: description(doc), properties: Map::new(), required: Vec::new() }
    }

    /// Adds a key.
    pub(crate) fn key(&mut self, name: &str, doc: &str, marks: &[&str], of: Schema) {
        let mut schema = of;
        let doc = description(doc);
        let doc = if marks.contains(&"later") { format!("{LATER}{doc}") } else { doc };
        schema.insert("description".into(), doc.into());
        self.properties.insert(name.into(), schema.to_value());
        if marks.contains(&"required") {
            self.required.push(name.into());
        }
    }

    pub(crate) fn finish(self) -> Schema {
        // A mapping of which nothing is required may be left out: `topics: { orders: }`.
        let kind: Value = if self.required.is_empty() { vec!["object", "null"].into() } else { "object".into() };
        let mut schema = json_schema!({
            "description": self.description,
            "type": kind,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema.insert("required".into(), self.required.into());
        }
        schema
    }
}

/// A schema for a choice between words, given with what they mean and their marks.
pub(crate) fn choices(choices: &[(&str, &str, &[&str])]) -> Schema {
    let choices: Vec<Value> = choices
        .iter()
        .map(|(word, doc, marks)| {
            let doc = description(doc);
            let doc = if marks.contains(&"later") { format!("{LATER}{doc}") } else { doc };
            serde_json::json!({ "const": word, "description": doc })
        })
        .collect();
    json_schema!({ "oneOf": choices })
}

/// The text of a doc comment, in one line.
fn description(doc: &str) -> String {
    doc.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A schema for a text of a form, where a variable may stand for a part of it.
pub(crate) fn text(pattern: &str, examples: &[&str]) -> Schema {
    json_schema!({ "type": "string", "pattern": format!(r"({pattern})|\$\{{"), "examples": examples })
}

/// A schema for a whole number, or a variable that stands for it.
pub(crate) fn count(min: u32, max: u32) -> Schema {
    json_schema!({ "type": ["integer", "string"], "minimum": min, "maximum": max, "pattern": r"^\d+$|\$\{" })
}

/// A schema for a mapping from names to `T`.
pub(crate) fn map<T: JsonSchema>(generator: &mut schemars::SchemaGenerator, names: Option<&str>) -> Schema {
    let of = generator.subschema_for::<T>();
    let mut schema = json_schema!({ "type": ["object", "null"], "additionalProperties": of });
    if let Some(pattern) = names {
        schema.insert("propertyNames".into(), serde_json::json!({ "pattern": pattern }));
    }
    schema
}
