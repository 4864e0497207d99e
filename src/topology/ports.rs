//! What subscribers connect of their plugins, held against the ports that those have.

use std::collections::BTreeMap;

use super::diagnostic::{Code, Diagnostic, Span};
use super::plan::ConfigValue;
use super::raw;
use super::reader::Reader;

/// Ports that are named where none is near.
const NAMES_SHOWN: usize = 20;

/// Reports what does not fit, of plugins whose ports are known.
pub(super) fn check(topology: &raw::Topology, reader: &mut Reader<'_>) {
    let subscribers = topology.subscribers.iter().filter_map(|field| field.value.as_ref()).flat_map(|named| &named.0);
    for (_, field) in subscribers {
        let Some(subscriber) = &field.value else { continue };
        let Some(plugin) = subscriber.plugin.as_deref() else { continue };
        let Some(source) = plugin.value.as_ref().map(|plugin| &plugin.0) else { continue };
        // What was reported may be anything, and ports may depend on what the plugin is told.
        let Some(told) = told(subscriber) else { continue };
        let (whole, connected) = match &subscriber.to {
            None => (plugin.span, Vec::new()),
            Some(field) => match &field.value {
                Some(ports) => (field.key, ports.0.iter().map(|(name, port)| (name.as_str(), port.key)).collect()),
                None => continue,
            },
        };
        match reader.surroundings.ports(source, &told) {
            None => {}
            // It sends to any port that the topology connects, or nothing.
            Some(described) if described.is_empty() => warn_of_none(&connected, whole, reader),
            Some(described) => hold(&described, &connected, whole, reader),
        }
    }
}

/// What the plugin of a subscriber is told; none where some of it was reported.
fn told(subscriber: &raw::Subscriber) -> Option<BTreeMap<String, ConfigValue>> {
    let Some(config) = &subscriber.config else { return Some(BTreeMap::new()) };
    let settings = &config.value.as_ref()?.0;
    settings.iter().map(|(name, field)| Some((name.clone(), field.value.as_ref()?.0.clone()))).collect()
}

fn hold(described: &[String], connected: &[(&str, Span)], whole: Span, reader: &mut Reader<'_>) {
    let is_connected = |port: &&String| connected.iter().any(|(name, _)| name == port);
    let mut missing: Vec<&String> = described.iter().filter(|port| !is_connected(port)).collect();
    for (name, span) in connected.iter().filter(|(name, _)| !described.iter().any(|port| port == name)) {
        // Rather one that nothing is connected to: that is what was meant.
        let near = reader.nearest(name, missing.iter().map(|port| port.as_str())).map(str::to_owned);
        let help = match &near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its ports are {}", listed(described)),
        };
        missing.retain(|port| near.as_ref() != Some(*port));
        let message = format!("the topology connects `{name}`, which the plugin does not have");
        reader.report(Diagnostic::error(Code::UnknownKey, *span, "unknown port", message).help(help));
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().cloned().collect();
        let message = format!("the topology does not connect {}", listed(&missing));
        let unconnected = Diagnostic::error(Code::MissingKey, whole, "not connected", message);
        reader.report(unconnected.help("add it to this subscriber's `to:`, with the topic that its outputs go to"));
    }
}

/// A plugin that declares no ports can send to any, which is rarely meant.
fn warn_of_none(connected: &[(&str, Span)], whole: Span, reader: &mut Reader<'_>) {
    if connected.is_empty() || !reader.surroundings.lints() {
        return;
    }
    let names: Vec<String> = connected.iter().map(|(name, _)| (*name).to_owned()).collect();
    let message = format!("the topology connects {}, and the plugin declares no ports", listed(&names));
    let odd = Diagnostic::warning(Code::UnknownKey, whole, "nothing declared", message);
    reader.report(odd.help(
        "declare the ports in the plugin, with the Rust SDK as `plugin!(handle, ports: { .. })`, or leave out `to:` if \
         it sends nothing",
    ));
}

fn listed(ports: &[String]) -> String {
    let (first, more) = ports.split_at(ports.len().min(NAMES_SHOWN));
    let first = first.join("`, `");
    if more.is_empty() { format!("`{first}`") } else { format!("`{first}` and {} more", more.len()) }
}
