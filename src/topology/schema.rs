//! The JSON Schema of a topology file, made from the types that read it.
//!
//! It is for editors: it completes keys, shows what they mean, and underlines most mistakes while typing. `check` is
//! what decides. Where a variable (`${VAR}`) may stand for a number the schema allows a text.

use schemars::generate::SchemaSettings;

use super::raw::Topology;

/// The JSON Schema of a topology file, as committed in `topology.schema.json`: pretty-printed, with a line break at
/// the end.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Topology>();
    schema.insert("title".into(), "Wattle topology".into());
    // A schema is made of maps with text keys, which always have a JSON text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
