//! Accepts or refuses orders.
//!
//! An order that passes goes on as it came; one that does not goes to `refused` with all that is wrong with it. Data
//! that is not an order at all is a dead letter.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, config, plugin};

plugin!(handle, ports: { ACCEPTED = "accepted", REFUSED = "refused" });

config! {
    /// What the shop takes.
    struct Settings {
        /// The currency of its orders.
        currency: String = "EUR",
    }
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
    status: String,
    currency: String,
    customer: Customer,
    items: Vec<Item>,
    total_cents: u64,
}

#[derive(Deserialize)]
struct Customer {
    email: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    qty: u32,
    price_cents: u64,
}

#[derive(Serialize)]
struct Refusal {
    order_id: String,
    status: String,
    reasons: Vec<String>,
}

fn handle(event: Event) -> Result<Output, Failure> {
    let order: Order = event.json()?;
    let reasons = faults(&order, &Settings::get()?.currency);
    if reasons.is_empty() {
        return Ok(ACCEPTED.bytes(event.data).kind("order.accepted"));
    }
    let Order { order_id, status, .. } = order;
    Ok(REFUSED.json(&Refusal { order_id, status, reasons })?.kind("order.refused"))
}

/// Everything that is wrong with an order.
fn faults(order: &Order, currency: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if order.currency != currency {
        faults.push(format!("the currency is {}, this shop takes {currency}", order.currency));
    }
    if !order.customer.email.contains('@') {
        faults.push(format!("{:?} is no e-mail address", order.customer.email));
    }
    if order.items.is_empty() {
        faults.push("there is nothing in it".into());
    }
    for item in order.items.iter().filter(|item| item.qty == 0) {
        faults.push(format!("it asks for zero of {}", item.sku));
    }
    let sum: u128 = order.items.iter().map(|item| u128::from(item.qty) * u128::from(item.price_cents)).sum();
    if sum != u128::from(order.total_cents) {
        faults.push(format!("its items cost {sum} cents, its total says {}", order.total_cents));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(items: Vec<Item>, total_cents: u64) -> Order {
        let customer = Customer { email: "ada@example.test".into() };
        Order { order_id: "o-1".into(), status: "created".into(), currency: "EUR".into(), customer, items, total_cents }
    }

    #[test]
    fn an_order_whose_sums_add_up_is_accepted() {
        let lamps = Item { sku: "lamp".into(), qty: 2, price_cents: 1_999 };
        assert_eq!(faults(&order(vec![lamps], 3_998), "EUR"), Vec::<String>::new());
    }

    #[test]
    fn a_refusal_names_everything_that_is_wrong() {
        let none = Item { sku: "lamp".into(), qty: 0, price_cents: 1_999 };
        let wrong = Order { customer: Customer { email: "ada".into() }, ..order(vec![none], 10) };
        assert_eq!(
            faults(&wrong, "CHF"),
            [
                "the currency is EUR, this shop takes CHF",
                "\"ada\" is no e-mail address",
                "it asks for zero of lamp",
                "its items cost 0 cents, its total says 10",
            ]
        );
    }
}
