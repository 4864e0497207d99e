//! What comes in is what comes out: bytes of data, and attributes, by command.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wattle::model::Event;
use wattle::model::json::{check, from_json, to_json};

use super::bus::{Bus, bus, wattle};
use crate::common::components::{DESCRIBE, HANDLE, plugin};
use crate::common::events::{cases, event, json as random_json, payload, reference, seed, text};
use crate::common::random::Random;

/// Events whose data, or attributes, are easily something else on their way.
const EVENTS: [&str; 9] = [
    r#"{"data":{"b":1,"a":1.10,"z":-0,"n":18446744073709551616,"u":"\u00e9"},"datacontenttype":"application/json","id":"numbers","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data":{ "b" : [ 1 ,2 ] },"datacontenttype":"application/json","id":"spaces","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data":{"a":1,"a":"\ud800"},"datacontenttype":"Foo/JSON","id":"twice","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data":"text","datacontenttype":"application/problem+JSON","id":"problem","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data":" te\nxt ","datacontenttype":"text/plain","id":"text","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data_base64":"bnVsbA==","datacontenttype":"application/json","id":"null","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"data_base64":"AAEC/w==","id":"bytes","source":"/s","specversion":"1.0","type":"t"}"#,
    r#"{"count":-2147483648,"dataschema":"https://example.com/a.json","id":"attributes","partitionkey":"k","source":"/s","specversion":"1.0","subject":"a ü\u00a0b","time":"9999-12-31T23:59:59.999999999Z","type":"t","yes":true}"#,
    r#"{"id":"nothing","source":"/s","specversion":"1.0","type":"t"}"#,
];

/// The events of lines that `tail` has printed, as their text.
fn printed(lines: &str) -> Vec<String> {
    let event = |line: &str| {
        let (_, rest) = line.split_once("\"event\":").unwrap();
        rest.strip_suffix('}').unwrap().to_owned()
    };
    lines.lines().map(event).collect()
}

#[test]
fn what_tail_prints_is_what_was_published_and_can_be_published_again() {
    let (_folder, bus) = bus();
    let events = EVENTS.map(|event| event.replace("\\u00a0", "\u{a0}"));
    bus.run_with(&["publish", "log", "--file", "-"], &events.join("\n")).ok();
    let tailed = bus.run(&["tail", "log"]).ok();
    assert_eq!(printed(&tailed), events);

    // the same from one topic to another, in both forms
    let moved: String = printed(&tailed).join("\n");
    bus.run_with(&["publish", "orders", "--file", "-"], &moved).ok();
    let mut again = printed(&bus.run(&["tail", "orders"]).ok());
    let mut sorted = events.to_vec();
    again.sort();
    sorted.sort();
    assert_eq!(again, sorted);
    let ran = bus.run_with(&["publish", "--together", "-"], &tailed);
    assert!(ran.notices.contains(&format!("{} were there already", EVENTS.len())), "{ran:?}");
    bus.stop();
}

#[test]
fn a_member_that_is_null_is_not_there() {
    let (_folder, bus) = bus();
    let nulls = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t","subject":null,"time":null,"data":null,"data_base64":null}"#;
    bus.run_with(&["publish", "log", "--file", "-"], nulls).ok();
    let event = json!({ "specversion": "1.0", "id": "a", "source": "/s", "type": "t" });
    assert_eq!(bus.run(&["tail", "log"]).json()[0]["event"], event);
    bus.stop();
}

#[test]
fn values_may_begin_with_a_hyphen() {
    let (_folder, bus) = bus();
    let given = ["publish", "log", "-17", "--key", "-17", "--id", "-x", "--type", "-t", "--subject", "--help"];
    bus.run(&given).ok();
    let line = &bus.run(&["tail", "log", "--key", "-17", "--type", "-t"]).json()[0];
    assert_eq!(line["key"], "-17");
    let event = &line["event"];
    assert_eq!((&event["id"], &event["data"], &event["subject"]), (&json!("-x"), &json!(-17), &json!("--help")));
    assert!(bus.run(&["trace", "-x"]).out.contains("-x"));
    let known = bus.run(&["publish", "log", "x", "-o", "json"]).json();
    assert_eq!(known[0]["offset"], 1, "an option is still one");
    bus.stop();
}

#[test]
fn what_is_not_one_event_on_each_line_is_named_by_line_and_column() {
    let (_folder, bus) = bus();
    let good = |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#);
    for (input, at, says) in [
        (format!("[\n{},\n{}\n]\n", good("a"), good("b")), "standard input:1: ", "`jq -c '.[]'`"),
        ("{\n  \"id\": 1\n}\n".to_owned(), "standard input:1:", "on a line of its own"),
        (format!("\n{},\n", good("a")), "standard input:2:56: ", "a comma follows"),
        (format!("{} {}\n", good("a"), good("b")), "standard input:1:57: ", "more text follows"),
        (format!("\n\u{feff}{}\n", good("a")), "standard input:2:1: ", "a byte order mark"),
        (
            format!("{}\n", good("a").replace("\"id\"", "\"id\":\"b\",\"id\"")),
            "standard input:1: ",
            "`id` is there more",
        ),
        (
            format!("{}\n", good("a\\u0007")),
            "standard input:1: ",
            "attribute `id` is a text with the control character U+0007",
        ),
        (
            format!("{}\n", good("a").replace("/s", "the shop")),
            "standard input:1: ",
            "attribute `source` is not a URI reference",
        ),
        (
            format!("{}\n", good("a").replace("\"id\"", "\"wattlereason\":\"x\",\"id\"")),
            "standard input:1: ",
            "is reserved: only the bus",
        ),
    ] {
        let ran = bus.run_with(&["publish", "log", "--file", "-"], &input);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.notices.contains(at) && ran.notices.contains(says), "{input}: {}", ran.notices);
        let plain = bus.run_with(&["publish", "log", "--file", "-", "--plain", "--text"], &input);
        assert_eq!(plain.code, Some(0), "it is text where it is said to be: {plain:?}");
    }
    let events = bus.run(&["tail", "log"]).json();
    assert!(events.iter().all(|event| event["event"]["datacontenttype"] == "text/plain"));

    let ran = bus.run(&["publish", "log", "--source", "the shop", "x"]);
    assert!(ran.code == Some(1) && ran.notices.contains("`source` is not a URI reference"), "{ran:?}");
    let ran = bus.run(&["publish", "log", r#"{"a":1"#]);
    assert!(ran.code == Some(2) && ran.notices.contains("--text"), "{ran:?}");
    bus.run(&["publish", "log", "--text", "--id", "t", r#"{"a":1}"#]).ok();
    let last: Value = bus.run(&["tail", "log", "--from", &events.len().to_string()]).json().remove(0);
    assert_eq!(last["event"]["data"], r#"{"a":1}"#);
    bus.stop();
}

/// Random events, as they are printed.
fn random_events(random: &mut Random, count: usize) -> Vec<String> {
    (0..count).map(|number| serde_json::to_string(&to_json(&event(random, number))).unwrap()).collect()
}

fn random() -> Random {
    let seed = seed();
    eprintln!("WATTLE_SEED={seed}");
    Random::new(seed)
}

#[test]
fn random_events_come_out_of_files_as_they_went_in() {
    let (_folder, bus) = bus();
    let events = random_events(&mut random(), cases(300).min(9_000));
    bus.run_with(&["publish", "log", "--file", "-"], &events.join("\n")).ok();
    let tailed = bus.run(&["tail", "log"]).ok();
    assert_eq!(printed(&tailed), events);
    let together: String = events.iter().map(|event| format!("{{\"topic\":\"orders\",\"event\":{event}}}\n")).collect();
    bus.run_with(&["publish", "--together", "-"], &together).ok();
    let (mut again, mut sorted) = (printed(&bus.run(&["tail", "orders"]).ok()), events.clone());
    again.sort();
    sorted.sort();
    assert_eq!(again, sorted);
    let ran = bus.run_with(&["publish", "--together", "-"], &tailed);
    assert!(ran.notices.contains(&format!("{} were there already", events.len())), "{ran:?}");
    bus.stop();
}

/// The events that `tail` has printed.
fn decoded(lines: &str) -> Vec<Event> {
    printed(lines).iter().map(|text| from_json(text).unwrap()).collect()
}

#[test]
fn random_data_comes_out_of_arguments_and_plain_lines_as_it_went_in() {
    let (_folder, bus) = bus();
    let mut random = random();
    let data = |random: &mut Random| if random.one_in(2) { text(random) } else { random_json(random, 0) };
    let given: Vec<[String; 6]> = (0..50)
        .map(|number| {
            let of = data(&mut random);
            // what begins so is taken for an option where it could be one
            let of = if of.starts_with('-') { format!("x{of}") } else { of };
            let source = reference(&mut random);
            [of, format!("-{number}"), text(&mut random), source, text(&mut random), text(&mut random)]
        })
        .collect();
    for [data, id, kind, source, key, extension] in &given {
        let extension = format!("extension={extension}");
        let mut arguments = vec!["publish", "log", data, "--id", id, "--type", kind, "--source", source, "--key", key];
        arguments.extend(["--attribute", &extension]);
        if check(data.as_bytes()).is_err() {
            arguments.push("--text");
        }
        bus.run(&arguments).ok();
    }
    for ([data, id, kind, source, key, extension], event) in given.iter().zip(decoded(&bus.run(&["tail", "log"]).ok()))
    {
        assert_eq!(payload(&event).unwrap(), data.as_bytes());
        assert_eq!([&event.id, &event.r#type, &event.source], [id, kind, source]);
        assert_eq!(
            [&event.attributes["partitionkey"].to_string(), &event.attributes["extension"].to_string()],
            [key, extension]
        );
    }

    let mut lines: Vec<String> = vec!["first".to_owned()];
    lines.extend((0..cases(300)).map(|_| data(&mut random)));
    let is_line = |line: &String| {
        let begins = line.trim_start();
        let looks_so =
            begins.starts_with(['{', '[', '"', '-']) || begins.starts_with(|char: char| char.is_ascii_digit());
        !line.contains('\n') && !line.ends_with('\r') && (!looks_so || check(line.as_bytes()).is_ok())
    };
    lines.retain(is_line);
    bus.run_with(&["publish", "log", "--plain", "--file", "-"], &lines.join("\n")).ok();
    let stored = decoded(&bus.run(&["tail", "log", "--from", "50"]).ok());
    assert_eq!(stored.len(), lines.len());
    for (line, event) in lines.iter().zip(&stored) {
        assert_eq!(payload(event).unwrap(), line.as_bytes());
    }
    bus.stop();
}

/// A member of a line, as its text.
fn member(line: &str, name: &str) -> String {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
    members[name].get().to_owned()
}

#[test]
fn random_events_come_out_of_failures_and_capsules_and_values_out_of_a_state_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    // its answer, at 16: no outputs, and that the first event is rejected
    let rejects = format!(
        r#"{DESCRIBE} (func (export "handle") {HANDLE} i32.const 16) (data (i32.const 24) "\01") (data (i32.const 40) "\01")"#
    );
    std::fs::write(folder.path().join("reject.wasm"), plugin(&rejects)).unwrap();
    let topology = folder.path().join("shop.yaml");
    let yaml = "wattle: v1\nname: shop\ntopics: { log: {} }\nsubscribers:\n  reject: { from: log, plugin: reject.wasm, \
                retry: { attempts: 1 }, capsules: 60, batch: { max: 1 } }\n";
    std::fs::write(&topology, yaml).unwrap();
    let data = folder.path().join("data");
    let mut command = wattle();
    command.arg("run").arg(&topology).arg("--data").arg(&data).args([
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]);
    let bus = Bus::spawn(command);
    let mut random = random();
    let mut events = random_events(&mut random, 50);
    bus.run_with(&["publish", "log", "--file", "-"], &events.join("\n")).ok();
    events.sort();
    let shown = |from: u64| {
        // what is redriven is a dead letter again, behind the others
        let begun = std::time::Instant::now();
        loop {
            let letters = bus.run(&["dead", "show", "reject", "-o", "json", "-n", "1000"]);
            let of = |line: &str| member(line, "dead_offset").parse::<u64>().unwrap();
            let lines: Vec<&str> = letters.out.lines().filter(|line| of(line) >= from).collect();
            if lines.len() == events.len() {
                let mut found: Vec<String> = lines.iter().map(|line| member(line, "event")).collect();
                found.sort();
                return found;
            }
            assert!(begun.elapsed().as_secs() < 60, "{} of {}", lines.len(), events.len());
        }
    };
    assert_eq!(shown(0), events);
    bus.run(&["dead", "redrive", "reject", "--all"]).ok();
    assert_eq!(shown(50), events);

    let values: BTreeMap<String, String> =
        (0..300).map(|number| (format!("{number}{}", text(&mut random)), random_json(&mut random, 0))).collect();
    let lines: String =
        values.iter().map(|(key, value)| json!({ "key": key, "value": value }).to_string() + "\n").collect();
    bus.run_with(&["state", "import", "reject", "-"], &lines).ok();
    let exported = bus.run(&["state", "export", "reject"]).json();
    let exported = exported.iter().map(|entry| {
        let value = match (&entry["value"], &entry["value_base64"]) {
            (Value::String(text), _) => text.clone(),
            (_, bytes) => String::from_utf8(STANDARD.decode(bytes.as_str().unwrap()).unwrap()).unwrap(),
        };
        (entry["key"].as_str().unwrap().to_owned(), value)
    });
    assert_eq!(exported.collect::<BTreeMap<_, _>>(), values);
    bus.stop();

    let mut capsules = wattle();
    capsules.args(["capsule", "list", "-o", "json", "--data"]).arg(&data);
    let listed = String::from_utf8(capsules.output().unwrap().stdout).unwrap();
    assert!(listed.lines().count() > 0);
    for line in listed.lines() {
        let event = member(line, "event");
        assert!(events.contains(&event), "{event}");
    }
}
