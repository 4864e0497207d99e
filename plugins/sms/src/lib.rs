//! Makes a text message for each parcel, short enough to be one.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, plugin};

plugin!(handle, ports: { SENT = "sent" });

/// Characters of one text message; more are sent, and paid for, as several.
const TEXT_CHARS_MAX: usize = 160;

#[derive(Deserialize)]
struct Parcel {
    part: String,
    order_id: String,
    tracking: String,
    customer: Customer,
}

#[derive(Deserialize)]
struct Customer {
    name: String,
    email: String,
}

#[derive(Serialize)]
struct Text {
    /// Whose it is: orders have no numbers, so whoever sends it looks this up.
    customer: String,
    text: String,
}

fn handle(event: Event) -> Result<Output, Failure> {
    let parcel: Parcel = event.json()?;
    Ok(SENT.json(&text(parcel))?.kind("text.sent"))
}

/// What is to be known is never cut off: the name is, where it is long.
fn text(Parcel { part, order_id, tracking, customer }: Parcel) -> Text {
    let rest = format!(": parcel {part} of order {order_id} is on its way, number {tracking}");
    let room = TEXT_CHARS_MAX.saturating_sub(rest.chars().count());
    let name: String = customer.name.chars().take(room).collect();
    Text { customer: customer.email, text: name + &rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_for(name: &str) -> Text {
        let customer = Customer { name: name.into(), email: "ada@example.test".into() };
        text(Parcel { part: "1/2".into(), order_id: "o-7".into(), tracking: "WTL-o-7-1".into(), customer })
    }

    #[test]
    fn a_text_says_which_parcel_is_on_its_way() {
        let text = text_for("Ada");
        assert_eq!(text.customer, "ada@example.test");
        assert_eq!(text.text, "Ada: parcel 1/2 of order o-7 is on its way, number WTL-o-7-1");
    }

    #[test]
    fn a_text_is_one_message_and_has_the_number_however_long_the_name_is() {
        let text = text_for(&"Ä".repeat(500)).text;
        assert_eq!(text.chars().count(), TEXT_CHARS_MAX);
        assert!(text.ends_with("is on its way, number WTL-o-7-1"), "{text}");
    }
}
