//! Selects the events that a subscriber handles, by its `when:` condition.

use super::keys;
use crate::model::EventView;
use crate::topology::Condition;

/// Whether an event with this ordering key meets `condition`. An event that does not is skipped, and counts as handled
/// without outputs.
///
/// # Errors
/// Why the condition cannot be evaluated, in words for its author: a field is missing or has another type. This is a
/// failure of the event, and retries do not help.
pub(crate) fn passes(condition: &Condition, event: &EventView<'_>, key: Option<&str>) -> Result<bool, String> {
    keys::with_fields(event, key, |fields| condition.evaluate(fields)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attribute, Event, event::Data};

    fn passing(condition: &str, data: &'static str) -> Result<bool, String> {
        let mut event = Event { id: "i".into(), source: "/s".into(), r#type: "paid".into(), ..Event::default() };
        event.attributes.insert("count".into(), Attribute::Integer(7));
        event.data = Some(Data::Binary(data.into()));
        let encoded = event.encode();
        let condition = Condition::compile(condition).unwrap();
        passes(&condition, &EventView::parse(&encoded).unwrap(), Some("k"))
    }

    #[test]
    fn a_condition_sees_data_attributes_and_the_key() {
        assert_eq!(passing("data.amount > 100", r#"{"amount":101}"#), Ok(true));
        assert_eq!(passing("data.amount > 100", r#"{"amount":100}"#), Ok(false));
        assert_eq!(passing("data.vip", r#"{"vip":true}"#), Ok(true));
        assert_eq!(passing("type == 'paid' && attributes.count == '7' && key == 'k'", ""), Ok(true));
        assert_eq!(passing("subject == null && time == null", ""), Ok(true));
    }

    #[test]
    fn what_is_not_there_is_no_false() {
        assert_eq!(passing("data.vip", "{}"), Err("this event has no `data.vip`".into()));
        assert_eq!(passing("has(data.vip) && data.vip", "{}"), Ok(false));
        let no_bool = "`data.vip` is a text; `true` or `false` is needed";
        assert_eq!(passing("data.vip", r#"{"vip":"yes"}"#), Err(no_bool.into()));
    }
}
