//! A plan as JSON, for programs.

use serde_json::{Value, json};

use super::subscriber_note;
use crate::topology::plan::{Plan, PluginSource, SubscriberKind};

/// One object with all topics and subscribers, those for dead letters too; they refer to each other by full names.
/// Pretty-printed, with a line break at the end.
pub fn json(plan: &Plan) -> String {
    let topics = plan.topics().map(|(_, topic)| {
        json!({
            "name": topic.label(),
            "partitions": topic.partitions,
            "key": topic.key.as_ref().map(|key| key.text()),
            "id": topic.id.as_ref().map(|id| id.text()),
            "parent": topic.parent.map(|parent| plan[parent].label()),
            "diverts_to": topic.diverts_to.map(|to| plan[to].label()),
            "diverted_from": topic.diverted_from.map(|from| plan[from].label()),
            "dead_letters_of": topic.dead_letters_of.map(|subscriber| plan[subscriber].label()),
        })
    });
    let subscribers = plan.subscribers().map(|(index, subscriber)| {
        let to = subscriber.ports.iter().map(|(port, topic)| (port.clone(), plan[*topic].label().into()));
        let kind = match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Stored { .. } | PluginSource::Folder(_) | PluginSource::Wasm(_)) => {
                "plugin"
            }
            SubscriberKind::Push { .. } => "push",
            SubscriberKind::Pull => "pull",
        };
        json!({
            "name": subscriber.label(),
            "from": plan[subscriber.from].label(),
            "runs": { "kind": kind, "what": subscriber_note(plan, index) },
            "to": Value::Object(to.collect()),
            "dead_letters": subscriber.dead_letters.map(|topic| plan[topic].label()),
        })
    });
    let graph = json!({ "topics": topics.collect::<Vec<_>>(), "subscribers": subscribers.collect::<Vec<_>>() });
    // Alternate form is indented; a JSON value always has a text.
    format!("{graph:#}\n")
}
