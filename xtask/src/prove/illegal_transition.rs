//! Orders whose states come in any order, twice, or late: whatever producers send, each order goes through a legal life
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bus::Bus;
use super::{Given, Outcome};

const TREE: &str = "illegal-transition.yaml";
/// Longer than the root recognises what makes two publishes the same.
const PAST_THE_WINDOW: Duration = Duration::from_millis(10_500);
/// How long an event may be held although its key has moved on.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(given: &Given) -> Outcome<String> {
    let input = given.input("illegal-transition.ndjson")?;
    let is_later = |line: &&String| ["paid", "shipped", "teleported"].iter().any(|state| state_of(line) == *state);
    let (later, sooner): (Vec<&String>, Vec<&String>) = input.iter().partition(is_later);
    let bus = Bus::start(given, &[TREE], "data")?;
    let accepted = publish(&bus, &sooner)?;
    if accepted != sooner.len() {
        return Err(format!("{} of {} events that may be, now or later, were accepted", accepted, sooner.len()));
    }
    nothing_is_held(&bus)?;
    publish(&bus, &later)?;
    std::thread::sleep(PAST_THE_WINDOW);
    publish(&bus, &input.iter().collect::<Vec<_>>())?;
    nothing_is_held(&bus)?;
    bus.settled(&["transitions/notify"])?;

    let stored = bus.tail("orders")?;
    let mut lives: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &stored {
        lives.entry(&event.key).or_default().push(event.text("status"));
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for message in bus.tail("messages")? {
        *told.entry(message.key).or_default() += 1;
    }
    let (mut cancelled, mut shipped) = (0, 0);
    for (order, life) in &lives {
        match (life.as_slice(), told.get(*order)) {
            (["created", "paid", "shipped"], Some(1)) => shipped += 1,
            (["created", "cancelled"], None) => cancelled += 1,
            (life, told) => return Err(format!("order {order} went through {life:?}, with {told:?} messages")),
        }
    }
    // each of the input's orders ends, some of both kinds
    let orders = input.iter().map(|line| field(line, "order_id")).collect::<BTreeSet<_>>().len();
    if cancelled + shipped != orders || told.len() != shipped || cancelled == 0 || shipped == 0 {
        return Err(format!(
            "{orders} orders, of which {cancelled} were cancelled, {shipped} shipped, {} told",
            told.len()
        ));
    }
    Ok(format!(
        "{} events stored of {} sent; {cancelled} orders cancelled once and none of them shipped, {shipped} paid once, \
         shipped \
         and told once; 0 held",
        stored.len(),
        2 * input.len(),
    ))
}

fn field(line: &str, name: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    event.get("data").and_then(|data| data.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn state_of(line: &str) -> String {
    field(line, "status")
}

/// Publishes line by line, each on its own: what one refusal stops is only that line. How many were accepted.
fn publish(bus: &Bus, lines: &[&String]) -> Outcome<usize> {
    let mut accepted = 0;
    for line in lines {
        let mut producer = bus.producer("orders")?;
        producer.give(line);
        accepted += usize::from(producer.end()?);
    }
    Ok(accepted)
}

/// Waits until every event that was held has found its place, or was given up.
fn nothing_is_held(bus: &Bus) -> Outcome<()> {
    let start = Instant::now();
    loop {
        let topics: Value =
            serde_json::from_str(&bus.run(&["topics", "-o", "json"])?).map_err(|error| error.to_string())?;
        let topics =
            topics.get("topics").and_then(Value::as_array).or(topics.as_array()).ok_or("there are no topics")?;
        let held = |topic: &Value| topic.get("keys")?.get("held")?.as_u64();
        match topics.iter().find_map(held) {
            None => return Err("no topic says how many events are held".to_owned()),
            Some(0) => return Ok(()),
            Some(held) if start.elapsed() > PATIENCE => return Err(format!("{held} events are still held")),
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
