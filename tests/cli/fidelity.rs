//! What comes in is what comes out: bytes of data, and attributes, by command.

use serde_json::{Value, json};

use super::bus::bus;

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
    assert!(ran.notices.contains(&format!("{} more had been published before", EVENTS.len())), "{ran:?}");
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
        (format!("\n{},\n", good("a")), "standard input:2:56: ", "a comma stands behind"),
        (format!("{} {}\n", good("a"), good("b")), "standard input:1:57: ", "more stands behind"),
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
            format!("{}\n", good("a").replace("\"id\"", "\"wattlereason\":\"x\",\"id\"")),
            "standard input:1: ",
            "is the bus's to give",
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

    let ran = bus.run(&["publish", "log", r#"{"a":1"#]);
    assert!(ran.code == Some(2) && ran.notices.contains("--text"), "{ran:?}");
    bus.run(&["publish", "log", "--text", "--id", "t", r#"{"a":1}"#]).ok();
    let last: Value = bus.run(&["tail", "log", "--from", &events.len().to_string()]).json().remove(0);
    assert_eq!(last["event"]["data"], r#"{"a":1}"#);
    bus.stop();
}
