//! Two groups of vendors over one topic: whatever a producer sends again, each group tells a customer of each state
//! once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::bus::{Bus, Stored};
use super::{Given, Outcome};

const TREE: &str = "two-groups.yaml";
const ALL: [&str; 5] = ["groups/validate", "groups/sms-a", "groups/sms-b", "groups/mail-a", "groups/mail-b"];
/// Longer than the root recognises an id.
const PAST_THE_WINDOW: Duration = Duration::from_millis(2_500);

pub(super) fn run(given: &Given) -> Outcome<String> {
    let input = given.input("two-groups.ndjson")?;
    let bus = Bus::start(given, &[TREE], "data")?;
    bus.run(&["pause", "sms-b"])?;
    publish(&bus, &input)?;
    publish(&bus, &input)?;
    let within = bus.tail("orders")?.len();
    std::thread::sleep(PAST_THE_WINDOW);
    publish(&bus, &input)?;
    let past = bus.tail("orders")?.len();
    publish(&bus, &other_ids(&input)?)?;
    bus.settled(&["groups/validate", "groups/sms-a", "groups/mail-a", "groups/mail-b"])?;
    let of_paused = bus.tail("texts.b")?.len();
    bus.run(&["resume", "sms-b"])?;
    bus.settled(&ALL)?;
    let orders = bus.tail("orders")?;
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for order in &orders {
        *states.entry(order.text("tracking").to_owned()).or_default() += 1;
    }
    let counts = [within, past - within, orders.len() - past];
    if counts != [input.len(); 3] || states.values().any(|count| *count != 3) {
        return Err(format!(
            "of {} events, {counts:?} were stored at once, past the window, under another id",
            input.len()
        ));
    }
    let told = |what: &str| {
        let (a, b) = (bus.tail(&format!("{what}.a"))?, bus.tail(&format!("{what}.b"))?);
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for event in a.iter().chain(&b) {
            *told.entry(number(event)).or_default() += 1;
        }
        let is_wrong = |state: &&String| told.get(state.as_str()) != Some(&1);
        match states.keys().find(is_wrong) {
            None if told.len() == states.len() => Ok((a.len(), b.len())),
            None => Err(format!("{what} tell of what nobody sent")),
            Some(state) => Err(format!("{} {what} tell of {state}", told.get(state.as_str()).unwrap_or(&0))),
        }
    };
    let (texts, mails) = (told("texts")?, told("mails")?);
    if of_paused + texts.1 > 0 {
        return Err(format!("the paused vendor sent {} texts", texts.1));
    }
    Ok(format!(
        "{} states of orders, each stored 3 times of 4; one text each ({} of one vendor, {} of the paused one), one \
         mail each ({} and {})",
        states.len(),
        texts.0,
        texts.1,
        mails.0,
        mails.1
    ))
}

fn publish(bus: &Bus, lines: &[String]) -> Outcome<()> {
    let mut producer = bus.producer("orders")?;
    let given = lines.iter().all(|line| producer.give(line));
    if producer.end()? && given { Ok(()) } else { Err("the producer was refused".to_owned()) }
}

fn other_ids(lines: &[String]) -> Outcome<Vec<String>> {
    let other = |line: &String| {
        let mut event: Value = serde_json::from_str(line).ok()?;
        let id = format!("{}-again", event.get("id")?.as_str()?);
        event.as_object_mut()?.insert("id".to_owned(), json!(id));
        Some(event.to_string())
    };
    lines.iter().map(|line| other(line).ok_or_else(|| format!("not an event: {line}"))).collect()
}

/// What a text or a mail tells of, by the number in it.
fn number(told: &Stored) -> &str {
    let mut words = told.text("text").split_whitespace().map(|word| word.trim_end_matches('.'));
    words.rfind(|word| word.starts_with("WTL-")).unwrap_or_default()
}
