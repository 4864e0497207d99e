//! The verbs that fail.

use std::hint::black_box;
use std::time::Duration;

use serde::Deserialize;
use wattle_plugin::{Event, Failure, Output};

#[derive(Deserialize)]
struct Retry {
    attempts: u32,
    after_ms: Option<u64>,
}

/// What becomes of the event; none where its verb is another.
pub(super) fn handle(event: &Event) -> Option<Result<Output, Failure>> {
    let answer = match super::verb(event) {
        "reject" => event.text().and_then(|reason| Err(Failure::reject(reason))),
        "retry" => retry(event),
        "panic" => event.text().map(outer),
        "exit" => std::process::exit(3),
        "loop" => spin(),
        "grow" => grow(),
        "recurse" => Ok(super::text(event, recurse(1))),
        _ => return None,
    };
    Some(answer)
}

fn retry(event: &Event) -> Result<Output, Failure> {
    let Retry { attempts, after_ms } = event.json()?;
    if event.attempt >= attempts {
        return Ok(super::text(event, event.attempt));
    }
    Err(match after_ms {
        Some(after_ms) => Failure::retry_after(Duration::from_millis(after_ms), "not yet"),
        None => Failure::retry("not yet"),
    })
}

fn outer(words: &str) -> Output {
    inner(words)
}

fn inner(words: &str) -> Output {
    panic!("{words}")
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns).wrapping_add(1);
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion, reason = "what the verb is for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[3]
}
