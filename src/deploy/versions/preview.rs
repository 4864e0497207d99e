//! What a start or an apply would do with versions, in words. Decides nothing.

use std::collections::{BTreeMap, HashSet};

use crate::api::{Component, Digest};
use crate::deploy::record::decided::SourceDigests;
use crate::deploy::record::store::Store;
use crate::deploy::versions::source::{held, of_deployed, ports, read, read_component, settings, settings_spec};
use crate::deploy::versions::start::{NamedComponent, wasm_of};
use crate::topology::{Plan, SubscriberPlan};
use crate::wasm::PluginSpec;

/// The digest of a component, without reading a stored one.
fn digest_of(subscriber: &str, component: &Component) -> Option<Digest> {
    match component {
        Component::File(path) => read(subscriber, path).ok().map(|wasm| Digest::of(&wasm)),
        Component::Stored(digest) => Some(*digest),
    }
}

/// The subscribers that an apply affects, in the order of the plan: it starts them, or their lanes continue and their
/// uploaded component is new. A file is proposed when it changes, and not by an apply.
pub(crate) fn affected(store: &Store, plan: &Plan, named: &[Component], started: &[String]) -> Vec<String> {
    let started: HashSet<&String> = started.iter().collect();
    let is_new = |subscriber: &SubscriberPlan, name: &str, component: &Component| {
        let Some((decided, digest)) = store.decided(name).zip(component.stored()) else { return false };
        let said = SourceDigests { component: Some(digest), settings: settings(subscriber) };
        decided.is_of_file(said) && decided.proposed(said).is_some()
    };
    let affected = |(subscriber, component): (&SubscriberPlan, &Component)| {
        Some(subscriber.label()).filter(|name| started.contains(name) || is_new(subscriber, name, component))
    };
    plan.subscribers.iter().zip(named).filter_map(affected).collect()
}

/// Descriptions of version changes for subscribers that another plan starts, by name. Reads files, changes nothing.
pub(crate) fn words(store: &Store, plan: &Plan, named: &[Component], only: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (subscriber, of) in plan.subscribers.iter().zip(named) {
        let name = subscriber.label();
        let Some(decided) = store.decided(&name).filter(|_| only.contains(&name)) else { continue };
        let component = digest_of(&name, of);
        let said = SourceDigests { component, settings: settings(subscriber) };
        let short = |digest: Option<Digest>| digest.map(|digest| digest.short()).unwrap_or_default();
        let (before, proposed) = (decided.component(), decided.proposed(said));
        let is_other = decided.find(decided.newest()).is_some_and(|kept| kept.said().settings != said.settings);
        let is_compared = decided.find(decided.proven).is_some_and(|kept| kept.ports == ports(subscriber));
        let comes =
            if is_compared { "becomes a candidate" } else { "runs at once, since other ports cannot be compared," };
        let words = match proposed {
            Some(_) if proposed == before && !is_other => {
                format!("component {}, which runs, has these settings already", short(before))
            }
            Some(_) if proposed == component && component != before => {
                format!("component {} of its file {comes} in place of {}", short(component), short(before))
            }
            Some(_) if component.is_some() && proposed != component => format!(
                "component {}, which runs, {comes} with the new settings; its file, with {}, is unchanged",
                short(proposed),
                short(component),
            ),
            Some(_) => format!("component {}, which runs, {comes} with the new settings", short(proposed)),
            None if is_other => {
                let why = if decided.is_pinned { "it is pinned" } else { "the new ones were looked at before" };
                format!("component {} runs on with the settings that it has: {why}", short(before))
            }
            None => continue,
        };
        found.insert(name, words);
    }
    found
}

/// For subscribers that an apply does not affect: those that run with other settings, or another component, and why.
pub(crate) fn differs(store: &Store, plan: &Plan, named: &[Component], affected: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (subscriber, component) in plan.subscribers.iter().zip(named) {
        let name = subscriber.label();
        let Some(decided) = store.decided(&name).filter(|_| !affected.contains(&name)) else { continue };
        let settings = decided.other_settings(settings(subscriber), &name);
        let component = component.stored().and_then(|component| decided.waiting_component(component, &name));
        found.extend(settings.into_iter().chain(component).map(|words| format!("subscriber {name}: {words}")));
    }
    found
}

/// Mismatches between the settings of subscribers that another plan starts and the schemas of their components. Reads
/// files, changes nothing.
pub(crate) fn misfits(store: &Store, plan: &Plan, named: &[Component], only: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (subscriber, of) in plan.subscribers.iter().zip(named) {
        let name = subscriber.label();
        // Unreadable components and secrets are reported elsewhere.
        let Ok(spec) = settings_spec(subscriber) else { continue };
        let of_file = read_component(store, &name, of).ok().map(NamedComponent::of);
        let said =
            SourceDigests { component: of_file.as_ref().map(|file| file.digest), settings: settings(subscriber) };
        let proposed = match store.decided(&name).filter(|_| only.contains(&name)) {
            None => said.component.filter(|_| only.contains(&name)),
            Some(decided) => decided.proposed(said),
        };
        let Some(component) = proposed else { continue };
        let Ok(wasm) = wasm_of(store, component, of_file.as_ref()) else { continue };
        let is_of_file = said.component == Some(component);
        let errors = held(PluginSpec { wasm, ..spec }).err().unwrap_or_default();
        let errors = if is_of_file { errors } else { of_deployed(errors, &component) };
        found.extend(errors.iter().map(ToString::to_string));
    }
    found
}
