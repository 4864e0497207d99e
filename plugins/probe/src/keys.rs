//! The verbs of the state.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, state};

#[derive(Deserialize)]
struct Entry {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct Large {
    key: String,
    size: usize,
}

#[derive(Deserialize)]
struct Increment {
    key: String,
    by: i64,
}

#[derive(Deserialize)]
struct Count {
    count: u32,
}

#[derive(Deserialize)]
struct BucketEntry {
    bucket: String,
    key: String,
    value: String,
}

#[derive(Serialize)]
struct Both {
    there: Option<String>,
    default: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
struct Visits {
    count: u64,
    last: String,
}

/// What becomes of the event; none where its verb is another.
pub(super) fn handle(event: &Event) -> Option<Result<Output, Failure>> {
    let verb = super::verb(event);
    let answer = match verb {
        "get" => get(event),
        "set" => event.json().and_then(|Entry { key, value }| state::set(&key, value)).map(|()| ok(event)),
        "set-large" => {
            event.json().and_then(|Large { key, size }| state::set(&key, vec![b'x'; size])).map(|()| ok(event))
        }
        "delete" => event.text().and_then(state::delete).map(|()| ok(event)),
        "exists" => event.text().and_then(state::exists).map(|is_there| super::text(event, is_there)),
        "increment" => {
            event.json().and_then(|Increment { key, by }| state::increment(&key, by)).map(|sum| super::text(event, sum))
        }
        "fill" => fill(event),
        "keys" => state::keys()
            .and_then(|keys| keys.collect::<Result<Vec<_>, _>>())
            .map(|keys| super::text(event, keys.join("\n"))),
        "bucket" => bucket(event),
        "visit" => visit(event),
        "bad-key" => state::set("", "x").map(|()| ok(event)),
        "bad-key-caught" => Ok(super::text(event, if state::set("", "x").is_err() { "refused" } else { "taken" })),
        "set-then-reject" => undone(event).and_then(|()| Err(Failure::reject("on purpose"))),
        "set-then-retry" => undone(event).and_then(|()| Err(Failure::retry("on purpose"))),
        "set-then-panic" => undone(event).map(|()| panic!("on purpose")),
        _ => return None,
    };
    Some(answer)
}

fn ok(event: &Event) -> Output {
    super::text(event, "ok")
}

fn readable(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}

fn get(event: &Event) -> Result<Output, Failure> {
    let value = state::get(event.text()?)?;
    Ok(Output { data: value.unwrap_or_else(|| b"none".to_vec()), ..super::text(event, "") })
}

fn fill(event: &Event) -> Result<Output, Failure> {
    let Count { count } = event.json()?;
    for number in 0..count {
        state::set(&format!("fill/{number:05}"), "1")?;
    }
    Ok(ok(event))
}

fn bucket(event: &Event) -> Result<Output, Failure> {
    let BucketEntry { bucket, key, value } = event.json()?;
    let bucket = state::bucket(&bucket)?;
    bucket.set(&key, value)?;
    let both = Both { there: bucket.get(&key)?.map(readable), default: state::get(&key)?.map(readable) };
    super::json(event, &both)
}

fn visit(event: &Event) -> Result<Output, Failure> {
    let mut visits: Visits = state::get_json("visit")?.unwrap_or_default();
    visits.count += 1;
    visits.last = event.text()?.to_owned();
    state::set_json("visit", &visits)?;
    super::json(event, &visits)
}

fn undone(event: &Event) -> Result<(), Failure> {
    state::set(event.text()?, "undone")
}
