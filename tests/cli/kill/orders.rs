//! The four order plugins as pure functions, written a second time: what the tree must make of an order.

use serde::{Deserialize, Serialize};

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A port and data for each output.
    Outputs(Vec<(&'static str, String)>),
    /// How it failed.
    Dead(&'static str),
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) status: String,
    pub(crate) currency: String,
    pub(crate) customer: Customer,
    pub(crate) items: Vec<Item>,
    pub(crate) total_cents: u64,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Customer {
    pub(crate) name: String,
    pub(crate) email: String,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) qty: u32,
    pub(crate) price_cents: u64,
}

#[derive(Deserialize, Serialize)]
struct Needed {
    order_id: String,
    customer: Customer,
    items: Vec<Unpriced>,
    #[serde(default)]
    units: u32,
}

#[derive(Deserialize, Serialize)]
struct Unpriced {
    sku: String,
    qty: u32,
}

#[derive(Serialize)]
struct Refusal {
    order_id: String,
    status: String,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Shortage {
    order_id: String,
    missing: Vec<Unpriced>,
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    order_id: String,
    part: String,
    customer: Customer,
    units: u32,
    tracking: String,
}

#[derive(Serialize)]
struct Message {
    to: String,
    subject: String,
    text: String,
}

/// What the shelves have, and how much an order may take at once; as the topology of the test says.
const STOCK: [(&str, u32); 2] = [("lamp", 40), ("card", u32::MAX)];
const PER_ORDER: u32 = 100;
const UNITS_PER_PARCEL: u32 = 20;

/// The handlers' configuration, for the topology.
pub(crate) const STOCK_CONFIG: &str = "lamp=40 card=*";

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// What a subscriber makes of an event's data.
pub(crate) fn outcome(subscriber: &str, data: &str) -> Outcome {
    match subscriber {
        "validate" => validate(data),
        "inventory" => inventory(data),
        "shipping" => shipping(data),
        "notify" => notify(data),
        other => panic!("nobody knows {other}"),
    }
}

fn validate(data: &str) -> Outcome {
    let Ok(order) = serde_json::from_str::<Order>(data) else { return Outcome::Dead("reject") };
    let mut reasons = Vec::new();
    if order.currency != "EUR" {
        reasons.push(format!("the currency is {}, this shop takes EUR", order.currency));
    }
    let sum: u128 = order.items.iter().map(|item| u128::from(item.qty) * u128::from(item.price_cents)).sum();
    if sum != u128::from(order.total_cents) {
        reasons.push(format!("its items cost {sum} cents, its total says {}", order.total_cents));
    }
    Outcome::Outputs(vec![match reasons.is_empty() {
        true => ("accepted", data.to_owned()),
        false => ("refused", json(&Refusal { order_id: order.order_id, status: order.status, reasons })),
    }])
}

fn inventory(data: &str) -> Outcome {
    let order: Order = serde_json::from_str(data).unwrap();
    if order.status != "paid" {
        return Outcome::Outputs(Vec::new());
    }
    let stock = |sku: &str| STOCK.iter().find(|(known, _)| *known == sku).map_or(0, |(_, level)| *level);
    let missing = order.items.iter().map(|item| (item, item.qty.saturating_sub(stock(&item.sku))));
    let missing: Vec<_> =
        missing.filter(|(_, qty)| *qty > 0).map(|(item, qty)| Unpriced { sku: item.sku.clone(), qty }).collect();
    let Order { order_id, customer, items, .. } = order;
    if !missing.is_empty() {
        return Outcome::Outputs(vec![("short", json(&Shortage { order_id, missing }))]);
    }
    let Some(units) = items.iter().try_fold(0_u32, |units, item| units.checked_add(item.qty)) else {
        return Outcome::Dead("trap");
    };
    let items = items.into_iter().map(|item| Unpriced { sku: item.sku, qty: item.qty }).collect();
    Outcome::Outputs(vec![match units > PER_ORDER {
        true => ("short", json(&Shortage { order_id, missing: items })),
        false => ("reserved", json(&Needed { order_id, customer, items, units })),
    }])
}

fn shipping(data: &str) -> Outcome {
    let Needed { order_id, customer, units, .. } = serde_json::from_str(data).unwrap();
    let parcels = units.div_ceil(UNITS_PER_PARCEL);
    let parcel = |number: u32| Parcel {
        order_id: order_id.clone(),
        part: format!("{number}/{parcels}"),
        customer: customer.clone(),
        units: UNITS_PER_PARCEL.min(units - (number - 1) * UNITS_PER_PARCEL),
        tracking: format!("WTL-{order_id}-{number}"),
    };
    Outcome::Outputs((1..=parcels).map(|number| ("shipped", json(&parcel(number)))).collect())
}

fn notify(data: &str) -> Outcome {
    let parcel: Parcel = serde_json::from_str(data).unwrap();
    let text = format!(
        "Hello {},\nparcel {} of your order left us today. Its number is {}.\nYours, Wattle & Daub",
        parcel.customer.name, parcel.part, parcel.tracking
    );
    let subject = format!("Your order {} is on its way", parcel.order_id);
    Outcome::Outputs(vec![("sent", json(&Message { to: parcel.customer.email, subject, text }))])
}
