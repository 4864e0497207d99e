//! Reserves stock for paid orders.
//!
//! What an order may take at once can be set: `config: { stock: "lamp=40 chair=25", per_order: 100 }`. Orders in any
//! other state than `paid` need nothing from the shelves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, OrFail, Outputs, config, plugin};

plugin!(handle, ports: { RESERVED = "reserved", SHORT = "short" });

config! {
    /// What the shop has.
    struct Settings {
        /// What an order may take at once of each article; `*` for those that no shelf holds.
        stock: String = "lamp=40 chair=40 table=20 rug=10 shelf=30 vase=40 mug=100 gift-card=*",
        /// Units that an order may have.
        per_order: u32 = 100,
    }
}

#[derive(Deserialize, Serialize)]
struct Order {
    order_id: String,
    #[serde(skip_serializing)]
    status: String,
    customer: Customer,
    items: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
struct Customer {
    name: String,
    email: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Item {
    sku: String,
    qty: u32,
}

#[derive(Serialize)]
struct Reservation {
    #[serde(flatten)]
    order: Order,
    units: u32,
}

#[derive(Serialize)]
struct Shortage {
    order_id: String,
    missing: Vec<Item>,
}

fn handle(event: Event) -> Result<Outputs, Failure> {
    let order: Order = event.json()?;
    if order.status != "paid" {
        return Ok(Outputs::none());
    }
    let settings = Settings::get()?;
    let stock = shelves(&settings.stock)?;
    let missing = missing(&order.items, &stock);
    if !missing.is_empty() {
        let shortage = Shortage { order_id: order.order_id, missing };
        return Ok(SHORT.json(&shortage)?.kind("stock.short").into());
    }
    let mut units = 0;
    for item in &order.items {
        units += item.qty;
    }
    if units > settings.per_order {
        let shortage = Shortage { order_id: order.order_id, missing: order.items };
        return Ok(SHORT.json(&shortage)?.kind("stock.short").into());
    }
    Ok(RESERVED.json(&Reservation { order, units })?.kind("stock.reserved").into())
}

/// Reads "lamp=40 chair=25". Gift cards and such, which no shelf holds, are `*`.
fn shelves(text: &str) -> Result<BTreeMap<&str, u32>, Failure> {
    text.split_whitespace()
        .map(|shelf| {
            let (sku, level) = shelf.split_once('=').or_retry(format!("stock: `{shelf}` is not like `lamp=40`"))?;
            let level = if level == "*" { u32::MAX } else { level.parse().or_retry(format!("stock of {sku}"))? };
            Ok((sku, level))
        })
        .collect()
}

/// What the shelves cannot give, and how much of it.
fn missing(items: &[Item], stock: &BTreeMap<&str, u32>) -> Vec<Item> {
    let short = |item: &Item| item.qty.saturating_sub(stock.get(item.sku.as_str()).copied().unwrap_or(0));
    items.iter().map(|item| Item { sku: item.sku.clone(), qty: short(item) }).filter(|item| item.qty > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, qty: u32) -> Item {
        Item { sku: sku.into(), qty }
    }

    #[test]
    fn an_order_within_the_shelves_misses_nothing() {
        let stock = shelves("lamp=40 gift-card=*").unwrap();
        assert_eq!(missing(&[item("lamp", 40), item("gift-card", 4_000)], &stock), []);
    }

    #[test]
    fn what_is_missing_is_what_the_shelf_lacks() {
        let stock = shelves("lamp=40").unwrap();
        assert_eq!(missing(&[item("lamp", 42), item("rug", 1)], &stock), [item("lamp", 2), item("rug", 1)]);
    }

    #[test]
    fn a_shelf_that_cannot_be_read_names_itself() {
        assert_eq!(shelves("lamp"), Err(Failure::retry("stock: `lamp` is not like `lamp=40`")));
    }
}
