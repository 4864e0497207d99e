//! Siblings take from one topic side by side: all is done when the slowest of them is, also where one more is added
//! meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bus::{Bus, Stored};
use super::{Given, Outcome};

const TREE: &str = "order-status.yaml";
const MORE: &str = "order-status-sms.yaml";
/// The slowest sibling, by its `rate`.
const SLOWEST: &str = "status/shipping";
/// How much longer all may take than the slowest sibling takes alone: 1.00 to 1.02 on a quiet machine, and up to 1.1
/// where all cores are busy.
const RATIO_MAX: f64 = 1.5;
/// Between two lines of the producer: it is quicker than the slowest sibling.
const PACE: Duration = Duration::from_millis(1);

pub(super) fn run(given: &Given) -> Outcome<String> {
    let input = given.input("order-status.ndjson")?;
    let alone = {
        let bus = Bus::start(given, &[TREE], "alone")?;
        bus.run(&["pause", "inventory"])?;
        publish(&bus, &input, || Ok(()))?;
        bus.settled(&[SLOWEST])?;
        took(&bus.tail("orders")?, &[&bus.tail("parcels")?])?
    };
    let bus = Bus::start(given, &[TREE], "together")?;
    // the producer is in the middle of it
    publish(&bus, &input, || bus.run(&["apply", &given.example(TREE), &given.example(MORE)]).map(drop))?;
    bus.settled(&["status/inventory", "status/shipping", "status/sms"])?;
    let orders = bus.tail("orders")?;
    let (reserved, short) = (bus.tail("reserved")?, bus.tail("short")?);
    let (parcels, texts) = (bus.tail("parcels")?, bus.tail("texts")?);
    if orders.len() != input.len() {
        return Err(format!("{} of {} events were taken in", orders.len(), input.len()));
    }
    let taken = |status: &str| count(orders.iter().filter(|event| event.text("status") == status));
    for (what, status, made) in [
        ("reservations", "paid", count(reserved.iter().chain(&short))),
        ("parcels", "packed", count(&parcels)),
        ("texts", "shipped", count(&texts)),
    ] {
        if made != taken(status) {
            return Err(format!("{what} are not one for each order that is {status}: {made:?}"));
        }
    }
    let together = took(&orders, &[&reserved, &short, &parcels, &texts])?;
    let ratio = together / alone;
    let line = format!(
        "{} events of {} orders; {} reservations, {} parcels, {} texts of a sibling added meanwhile, one for each; \
         done in \
         {together:.2} s, the slowest sibling alone in {alone:.2} s: {ratio:.2}",
        orders.len(),
        count(&orders).len(),
        reserved.len() + short.len(),
        parcels.len(),
        texts.len(),
    );
    if ratio <= RATIO_MAX { Ok(line) } else { Err(format!("{line}, more than {RATIO_MAX}")) }
}

/// Publishes all of it, and does something else when a part of it is published.
fn publish(bus: &Bus, input: &[String], meanwhile: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let mut producer = bus.producer("orders")?;
    let given = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let given = input.iter().all(|line| {
                std::thread::sleep(PACE);
                producer.give(line)
            });
            producer.end().map(|ended| ended && given)
        });
        std::thread::sleep(PACE * 100);
        let done = meanwhile();
        let given = producing.join().map_err(|_| "the producer broke".to_owned())?;
        done.and(given)
    });
    if given? { Ok(()) } else { Err("the producer was refused".to_owned()) }
}

/// Events by their keys.
fn count<'a>(events: impl IntoIterator<Item = &'a Stored>) -> BTreeMap<&'a str, usize> {
    let mut by_key = BTreeMap::new();
    for event in events {
        *by_key.entry(event.key.as_str()).or_default() += 1;
    }
    by_key
}

/// Seconds from the first event to the last that was made of any, by the bus's own clock.
fn took(orders: &[Stored], made: &[&[Stored]]) -> Outcome<f64> {
    let first = orders.iter().map(|event| event.appended).min();
    let last = made.iter().flat_map(|events| events.iter()).map(|event| event.appended).max();
    let (first, last) = first.zip(last).ok_or("nothing was made")?;
    Ok(last.duration_since(first).as_secs_f64())
}
