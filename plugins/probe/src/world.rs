//! The verbs of what is around a plugin: log, clocks, files, random numbers.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wattle_plugin::{Event, Failure, Level, OrFail, Output, log};

mod wasi {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package test:probe;
            world more {
                import wasi:random/random@0.2.12;
            }
        ",
        world: "test:probe/more",
        generate_all,
    });
}

/// What becomes of the event; none where its verb is another.
pub(super) fn handle(event: &Event) -> Option<Result<Output, Failure>> {
    let answer = match super::verb(event) {
        "log" => event.text().map(|words| logged(event, words)),
        "clock" => Ok(clock(event)),
        "sleep" => sleep(event),
        "files" => event.text().map(|path| files(event, path)),
        "random" => Ok(random(event)),
        "hash" => Ok(hash(event)),
        _ => return None,
    };
    Some(answer)
}

fn logged(event: &Event, words: &str) -> Output {
    for level in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error] {
        log(level, words);
    }
    println!("{words}");
    eprintln!("{words}");
    super::text(event, "ok")
}

fn clock(event: &Event) -> Output {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let appended = u128::from(event.time_ns / 1_000_000);
    match wall == appended {
        true => super::text(event, "same"),
        false => super::text(event, format!("{wall} {appended}")),
    }
}

fn sleep(event: &Event) -> Result<Output, Failure> {
    let time = Duration::from_millis(event.text()?.parse().or_reject("how long")?);
    let (begin, begin_of_wall) = (Instant::now(), SystemTime::now());
    std::thread::sleep(time);
    let wall = SystemTime::now().duration_since(begin_of_wall).unwrap_or_default();
    let moved = begin.elapsed().min(wall);
    Ok(match moved >= time {
        true => super::text(event, "moved"),
        false => super::text(event, moved.as_millis()),
    })
}

fn files(event: &Event, path: &str) -> Output {
    match std::fs::read(path) {
        Ok(content) => super::text(event, format!("{} bytes", content.len())),
        Err(_) => super::text(event, "refused"),
    }
}

fn random(event: &Event) -> Output {
    let random = wasi::wasi::random::random::get_random_u64;
    super::text(event, format!("{:x} {:x} {:x}", random(), random(), random()))
}

fn hash(event: &Event) -> Output {
    let map: HashMap<&str, ()> = ["z", "b", "1", "a", "0"].into_iter().map(|key| (key, ())).collect();
    let keys: Vec<&str> = map.into_keys().collect();
    super::text(event, keys.join(" "))
}
