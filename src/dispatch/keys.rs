//! Ordering keys by a topic's `key:` expression.

use crate::model::EventView;
use crate::topology::{EventFields, ExtensionAttributes, KeyExpression};

/// Extension attributes of an encoded event, as expressions see them.
struct Extensions<'a>(EventView<'a>);

impl ExtensionAttributes for Extensions<'_> {
    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        for (name, value) in self.0.attributes() {
            match value.as_text() {
                Some(text) => see(name, text),
                None => see(name, &value.to_owned().to_string()),
            }
        }
    }
}

/// The key that `expression` gives an event whose key was `key` so far.
///
/// # Errors
/// Why there is none, in words for who made the event.
pub(super) fn evaluate(expression: &KeyExpression, event: &EventView<'_>, key: Option<&str>) -> Result<String, String> {
    let time = event.attributes().find(|(name, _)| *name == "time").map(|(_, value)| value.to_owned());
    let time = time.map(|time| time.to_string());
    let fields = EventFields {
        id: event.id,
        source: event.source,
        kind: event.r#type,
        subject: event.subject,
        time: time.as_deref(),
        key,
        content_type: event.content_type,
        data: event.data.unwrap_or_default(),
        attributes: &Extensions(*event),
    };
    expression.evaluate(&fields).map_err(|error| error.to_string())
}
