//! Tells customers that a parcel is on its way.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, config, debug, plugin};

plugin!(handle, ports: { SENT = "sent" });

config! {
    /// Who writes.
    struct Settings {
        /// The name of the shop.
        shop: String = "Wattle & Daub",
    }
}

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
struct Message {
    to: String,
    subject: String,
    text: String,
}

fn handle(event: Event) -> Result<Output, Failure> {
    let parcel: Parcel = event.json()?;
    debug!("parcel {} goes to {}", parcel.tracking, parcel.customer.name);
    Ok(SENT.json(&message(parcel, &Settings::get()?.shop))?.kind("message.sent"))
}

fn message(parcel: Parcel, shop: &str) -> Message {
    Message {
        to: parcel.customer.email,
        subject: format!("Your order {} is on its way", parcel.order_id),
        text: format!(
            "Hello {},\nparcel {} of your order left us today. Its number is {}.\nYours, {shop}",
            parcel.customer.name, parcel.part, parcel.tracking
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_customer_and_the_parcel() {
        let customer = Customer { name: "Ada".into(), email: "ada@example.test".into() };
        let parcel = Parcel { part: "1/2".into(), order_id: "o-7".into(), tracking: "WTL-o-7-1".into(), customer };
        let message = message(parcel, "Shop");
        assert_eq!(message.to, "ada@example.test");
        assert_eq!(
            message.text,
            "Hello Ada,\nparcel 1/2 of your order left us today. Its number is WTL-o-7-1.\nYours, Shop"
        );
    }
}
