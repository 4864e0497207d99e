//! What the manifest of a plugin folder declares: the version of its state, and the schema of its configuration.
//!
//! ```text
//! package.json      "wattle": { … }          pyproject.toml    [tool.wattle] …          wattle.toml    all of it
//! ```
//!
//! A setting is a JSON Schema with one more word, `required`, so that it is declared in one place. Plugins that use an
//! SDK declare both in their code instead, and Rust has no other way.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::BuildError;
use super::language::{Language, OWN_MANIFEST};

/// What a folder declares.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declarations {
    /// How a `wattle.toml` names the language; elsewhere the manifest's name does.
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    state_version: u32,
    /// Settings by name; `None` where the plugin does not declare any.
    #[serde(default)]
    config: Option<BTreeMap<String, Map<String, Value>>>,
}

/// What a folder of a language declares.
///
/// # Errors
/// When its manifest cannot be read, or declares something else.
pub(super) fn declarations(folder: &Path, language: Language) -> Result<Declarations, BuildError> {
    let (name, pointer) = match language {
        Language::Rust => return Ok(Declarations::default()),
        Language::TypeScript | Language::JavaScript => ("package.json", "/wattle"),
        Language::Python => ("pyproject.toml", "/tool/wattle"),
        Language::Go | Language::C | Language::Cpp | Language::Zig => (OWN_MANIFEST, ""),
    };
    let path = folder.join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Declarations::default()),
        Err(source) => return Err(BuildError::Io { path, source }),
    };
    parse(&text, path, pointer)
}

fn parse(text: &str, path: PathBuf, pointer: &str) -> Result<Declarations, BuildError> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let whole: Result<Value, String> = match is_json {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => toml::from_str(text).map_err(|error| error.to_string()),
    };
    let declared = whole.and_then(|mut whole| match whole.pointer_mut(pointer) {
        Some(table) => serde_json::from_value(table.take()).map_err(|error| error.to_string()),
        None => Ok(Declarations::default()),
    });
    declared.map_err(|why| BuildError::Manifest { path, why })
}

impl Declarations {
    /// The custom sections that say this, by name.
    pub(super) fn sections(&self) -> Vec<(String, String)> {
        let mut sections = Vec::new();
        if self.state_version > 0 {
            sections.push(("wattle:state-version".into(), self.state_version.to_string()));
        }
        if let Some(config) = &self.config {
            sections.push(("wattle:config-schema".into(), schema(config).to_string()));
        }
        sections
    }
}

/// The JSON Schema of a configuration.
fn schema(config: &BTreeMap<String, Map<String, Value>>) -> Value {
    let mut required = Vec::new();
    let mut properties = Map::new();
    for (name, setting) in config {
        let mut setting = setting.clone();
        if setting.remove("required") == Some(Value::Bool(true)) {
            required.push(name.clone());
        }
        properties.insert(name.clone(), Value::Object(setting));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "state_version = 3\n[config.word]\ntype = \"string\"\ndefault = \"Hello\"\n\
        [config.language]\ntype = \"string\"\nrequired = true\n";

    #[test]
    fn each_manifest_declares_the_same_in_its_own_form() {
        let own = parse(&format!("language = \"c\"\n{TABLE}"), "wattle.toml".into(), "").unwrap();
        let python = TABLE.replace("[config", "[tool.wattle.config");
        let python = parse(&format!("[tool.wattle]\n{python}"), "pyproject.toml".into(), "/tool/wattle").unwrap();
        let json = r#"{"name": "greet", "wattle": {"state_version": 3, "config": {
            "word": {"type": "string", "default": "Hello"}, "language": {"type": "string", "required": true}}}}"#;
        let node = parse(json, "package.json".into(), "/wattle").unwrap();
        assert_eq!(own.sections(), node.sections());
        assert_eq!(python, node);
        let [version, schema] = node.sections().try_into().unwrap();
        assert_eq!(version, ("wattle:state-version".to_owned(), "3".to_owned()));
        let schema: Value = serde_json::from_str(&schema.1).unwrap();
        assert_eq!(schema["required"], json!(["language"]));
        assert_eq!(schema["properties"]["word"], json!({"type": "string", "default": "Hello"}));
        assert_eq!(schema["properties"]["language"], json!({"type": "string"}));
        assert_eq!(schema["additionalProperties"], json!(false));
    }

    #[test]
    fn a_folder_that_declares_nothing_adds_nothing_and_a_mistyped_word_is_refused() {
        let none = parse("[project]\nname = \"greet\"\n", "pyproject.toml".into(), "/tool/wattle").unwrap();
        assert_eq!(none.sections(), []);
        let error = parse("stateversion = 3\n", "wattle.toml".into(), "").unwrap_err().to_string();
        assert!(error.contains("wattle.toml") && error.contains("stateversion"), "{error}");
        let error = parse("{", "package.json".into(), "/wattle").unwrap_err().to_string();
        assert!(error.contains("package.json"), "{error}");
    }
}
