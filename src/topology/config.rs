//! What subscribers tell their plugins, held against what those declare.

use std::collections::HashMap;

use super::config_schema::{ConfigMisfit, ConfigSchema, ConfigTexts};
use super::diagnostic::{Code, Diagnostic, Span};
use super::plan::{ConfigValue, PluginSource};
use super::raw;
use super::reader::{Field, Reader};
use super::setting::Setting;

/// Declared settings that are named where none is near.
const NAMES_SHOWN: usize = 20;

/// Reports what does not fit, of plugins that are there and declare something.
pub(super) fn check(topology: &raw::Topology, reader: &mut Reader<'_>) {
    let subscribers = topology.subscribers.iter().filter_map(|field| field.value.as_ref()).flat_map(|named| &named.0);
    // Large topologies have the same few plugins in thousands of subscribers.
    let mut compiled = HashMap::new();
    for (_, field) in subscribers {
        let Some(subscriber) = &field.value else { continue };
        let Some(plugin) = subscriber.plugin.as_deref() else { continue };
        let Some(source) = plugin.value.as_ref().map(|plugin| &plugin.0) else { continue };
        let schema = match declared(source, reader, &mut compiled) {
            Ok(Some(schema)) => schema,
            Ok(None) => continue,
            Err(why) => {
                let message = format!("what this plugin declares of its configuration cannot be used: it {why}");
                let bad = Diagnostic::error(Code::BadValue, plugin.span, "", message);
                reader.report(bad.help("correct the section `wattle:config-schema` of the component, or leave it out"));
                continue;
            }
        };
        let settings = subscriber.config.as_ref().and_then(|field| Some(&field.value.as_ref()?.0));
        let settings = settings.map_or(&[][..], Vec::as_slice);
        let whole = subscriber.config.as_ref().map_or(plugin.span, |field| field.key);
        hold(&schema, settings, whole, reader);
    }
}

fn declared(
    plugin: &PluginSource,
    reader: &Reader<'_>,
    compiled: &mut HashMap<String, Result<ConfigSchema, String>>,
) -> Result<Option<ConfigSchema>, String> {
    let Some(text) = reader.surroundings.config_schema(plugin)? else { return Ok(None) };
    compiled.entry(text).or_insert_with_key(|text| ConfigSchema::compile(text)).clone().map(Some)
}

fn hold(schema: &ConfigSchema, settings: &[(String, Field<Setting>)], whole: Span, reader: &mut Reader<'_>) {
    let spans: HashMap<&str, (Span, Span)> =
        settings.iter().map(|(name, field)| (name.as_str(), (field.key, field.span))).collect();
    // One whose value was reported is there all the same.
    let text = |field: &Field<Setting>| match &field.value.as_ref()?.0 {
        ConfigValue::Text(text) | ConfigValue::Variable { text, .. } => Some(text.clone()),
        ConfigValue::SecretFile(_) => None,
    };
    let values: ConfigTexts = settings.iter().map(|(name, field)| (name.clone(), text(field))).collect();
    let known = || {
        let (first, more) = schema.names().split_at(schema.names().len().min(NAMES_SHOWN));
        match (first.is_empty(), more.is_empty()) {
            (true, _) => "it declares none".to_owned(),
            (false, true) => format!("its settings are `{}`", first.join("`, `")),
            (false, false) => format!("its settings are `{}` and {} more", first.join("`, `"), more.len()),
        }
    };
    let mut is_unknown = Vec::new();
    for misfit in schema.check(&values) {
        let message = misfit.to_string();
        let diagnostic = match &misfit {
            ConfigMisfit::Unknown { name, nearest } => {
                is_unknown.push(name.clone());
                let span = spans.get(name.as_str()).map_or(whole, |(key, _)| *key);
                let help = nearest.as_ref().map_or_else(known, |near| format!("did you mean `{near}`?"));
                let message = format!("the plugin has no setting `{name}`");
                Diagnostic::error(Code::UnknownKey, span, "unknown setting", message).help(help)
            }
            ConfigMisfit::Missing { name } => {
                let missing = Diagnostic::error(Code::MissingKey, whole, format!("`{name}` is missing"), message);
                missing.help(format!("add `{name}` to this subscriber's `config:`"))
            }
            ConfigMisfit::Value { name, .. } => {
                let span = name.as_ref().and_then(|name| spans.get(name.as_str())).map_or(whole, |(_, value)| *value);
                let bad = Diagnostic::error(Code::BadValue, span, "", message);
                bad.help("what a setting may be is declared by the plugin: see its documentation")
            }
        };
        reader.report(diagnostic);
    }
    for (name, field) in settings.iter().filter(|(name, _)| !is_unknown.contains(name)) {
        if let Some(near) = schema.nearest(name) {
            let message = format!("the plugin declares no setting `{name}`");
            let odd = Diagnostic::warning(Code::UnknownKey, field.key, "not declared", message);
            reader.report(odd.help(format!("did you mean `{near}`?")));
        }
    }
}
