//! Orders whose states come out of order: those that may not follow are beside the others, each once, and spoil
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::bus::{Bus, Stored};
use super::{Given, Outcome};

const TREE: &str = "late-orders.yaml";

/// The states of each order, in the order in which they came.
type Orders = BTreeMap<String, Vec<String>>;

pub(super) fn run(given: &Given) -> Outcome<String> {
    let input = given.input("late-orders.ndjson")?;
    let bus = Bus::start(given, &[TREE], "data")?;
    for _ in 0..2 {
        let mut producer = bus.producer("orders")?;
        let given = input.iter().all(|line| producer.give(line));
        if !producer.end()? || !given {
            return Err("the producer was refused".to_owned());
        }
    }
    bus.settled(&["late/notify", "late/tell"])?;
    let (wanted, wanted_late) = sorted(&input);
    let (stored, late) = (bus.tail("orders")?, bus.tail("orders.late")?);
    for (what, found, wanted) in [("orders", &stored, &wanted), ("orders.late", &late, &wanted_late)] {
        let found = by_order(found);
        if let Some(order) = wanted.keys().chain(found.keys()).find(|order| wanted.get(*order) != found.get(*order)) {
            let (found, wanted) = (found.get(order), wanted.get(order));
            return Err(format!("{what} has {found:?} of order {order}, and not {wanted:?}"));
        }
    }
    let (messages, texts) = (bus.tail("messages")?, bus.tail("texts")?);
    for (what, found, orders) in [("messages", &messages, &wanted), ("texts", &texts, &wanted_late)] {
        let is_shipped = |(_, states): &(&String, &Vec<String>)| states.iter().any(|state| state == "shipped");
        let shipped: Vec<_> = orders.iter().filter(is_shipped).map(|(order, _)| order.as_str()).collect();
        if told(found) != shipped {
            return Err(format!("{what} tell of {:?}, and not of {shipped:?}", told(found)));
        }
    }
    if stored.is_empty() || late.is_empty() || texts.is_empty() {
        return Err("nothing is out of order".to_owned());
    }
    Ok(format!(
        "of {} events sent, {} stored in legal lives of {} orders and {} beside them, each once; {} messages, {} texts \
         of parcels \
         that left out of order",
        2 * input.len(),
        stored.len(),
        wanted.len(),
        late.len(),
        messages.len(),
        texts.len()
    ))
}

/// What follows and what does not, by the rules of the topology.
fn sorted(input: &[String]) -> (Orders, Orders) {
    let (mut lives, mut late, mut known) = (Orders::new(), Orders::new(), BTreeSet::new());
    for line in input {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let field =
            |name| event.get("data").and_then(|data| data.get(name)).and_then(Value::as_str).unwrap_or_default();
        let (order, status) = (field("order_id").to_owned(), field("status").to_owned());
        if !known.insert((order.clone(), status.clone())) {
            continue;
        }
        let follows = match (lives.get(&order).and_then(|life| life.last()).map(String::as_str), status.as_str()) {
            (None, "created") => true,
            (Some("created"), next) => ["paid", "cancelled"].contains(&next),
            (Some("paid"), next) => ["shipped", "cancelled"].contains(&next),
            _ => false,
        };
        let into = if follows { &mut lives } else { &mut late };
        into.entry(order).or_default().push(status);
    }
    (lives, late)
}

fn by_order(events: &[Stored]) -> Orders {
    let mut orders = Orders::new();
    for event in events {
        orders.entry(event.key.clone()).or_default().push(event.text("status").to_owned());
    }
    orders
}

/// Of which orders something was told: of one as often as it was.
fn told(events: &[Stored]) -> Vec<&str> {
    let mut orders: Vec<_> = events.iter().map(|event| event.key.as_str()).collect();
    orders.sort_unstable();
    orders
}
