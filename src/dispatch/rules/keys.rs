//! Ordering keys from a topic's `key:` expression, and deduplication ids from its `id:` expression.

use crate::model::{EventId, EventView};
use crate::topology::{EventFields, ExpressionError, ExtensionAttributes, KeyExpression};

/// Extension attributes of an encoded event, in the form that expressions use.
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

/// Calls `see` with the fields of an encoded event that expressions use. `key` is its current ordering key.
pub(super) fn with_fields<T>(event: &EventView<'_>, key: Option<&str>, see: impl FnOnce(&EventFields<'_>) -> T) -> T {
    let time = event.attributes().filter(|(name, _)| *name == "time").last().map(|(_, value)| value.to_owned());
    let time = time.map(|time| time.to_string());
    see(&EventFields {
        id: event.id,
        source: event.source,
        kind: event.r#type,
        subject: event.subject,
        time: time.as_deref(),
        key,
        content_type: event.content_type,
        data: event.data.unwrap_or_default(),
        attributes: &Extensions(*event),
    })
}

/// The key that `expression` yields for an event with the current key `key`.
///
/// # Errors
/// The reason, in words for the producer of the event.
pub(crate) fn evaluate(expression: &KeyExpression, event: &EventView<'_>, key: Option<&str>) -> Result<String, String> {
    match with_fields(event, key, |fields| expression.evaluate(fields)) {
        // CloudEvents does not allow an empty partition key either: it indicates a mistake in the data, and would put
        // all such events in one order.
        Ok(key) if key.is_empty() => Err(format!("`{}` is an empty text", expression.text())),
        Ok(key) => Ok(key),
        Err(error) if is_of_data(&error) && event.data.is_none_or(<[u8]>::is_empty) => Err(format!(
            "`{}` is read from the data, and this event has none: publish it with data in JSON that has that",
            expression.text()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether an expression failed for lack of data.
fn is_of_data(error: &ExpressionError) -> bool {
    match error {
        ExpressionError::NotJson { .. } | ExpressionError::BrokenJson { .. } => true,
        ExpressionError::Missing { path, .. } => path.starts_with("data"),
        _ => false,
    }
}

/// The deduplication id of an event, from the topic's `id:` expression if it has one.
///
/// # Errors
/// Like [`evaluate`].
pub(crate) fn identity(id: Option<&KeyExpression>, event: &EventView<'_>, key: &str) -> Result<EventId, String> {
    match id {
        Some(expression) => Ok(EventId::of_text(&evaluate(expression, event, Some(key))?)),
        None => Ok(EventId::new(event.source, event.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attribute, Event, event::Data};

    fn key(expression: &str, data: &'static str) -> Result<String, String> {
        let mut event = Event { id: "i".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
        event.attributes.insert("count".into(), Attribute::Integer(7));
        event.data = Some(Data::Binary(data.into()));
        let encoded = event.encode();
        let expression = KeyExpression::compile(expression).unwrap();
        evaluate(&expression, &EventView::parse(&encoded).unwrap(), Some("old"))
    }

    #[test]
    fn a_key_comes_from_data_attributes_and_the_key_so_far() {
        assert_eq!(key("data.id", r#"{"id":"a"}"#), Ok("a".into()));
        assert_eq!(key("attributes.count + '/' + key", "{}"), Ok("7/old".into()));
    }

    #[test]
    fn an_event_without_data_is_told_that_its_key_is_read_from_there() {
        for expression in ["data.id", "data.a.b + ''", "string(data.id)"] {
            let why = key(expression, "").unwrap_err();
            assert!(why.contains("this event has none: publish it with data"), "{expression}: {why}");
        }
        assert!(key("subject", "").unwrap_err().contains("`subject`"), "no data would help");
    }

    #[test]
    fn an_empty_text_is_no_key() {
        assert_eq!(key("data.id", r#"{"id":""}"#), Err("`data.id` is an empty text".into()));
    }
}
