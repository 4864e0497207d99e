//! Events in and out: results on standard output, everything else on standard error.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::bus::{Bus, bus, wattle};

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect()
}

#[test]
fn an_event_from_arguments_is_the_event_that_tail_prints() {
    let (_folder, bus) = bus();
    let arguments = ["publish", "orders", "--id", "1", "--type", "paid", "--source", "/till", "--subject", "s"];
    let place = bus.run(&[&arguments[..], &["--key", "k", r#"{"a":[1]}"#, "-o", "json"]].concat()).json();
    let [place] = place.as_slice() else { panic!("{place:?}") };
    let events = bus.run(&["tail", "orders"]).json();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    for name in ["topic", "partition", "offset", "epoch"] {
        assert_eq!(event[name], place[name], "{name}");
    }
    assert_eq!(event["key"], "k");
    let expected = json!({
        "specversion": "1.0", "id": "1", "type": "paid", "source": "/till", "subject": "s", "partitionkey": "k",
        "datacontenttype": "application/json", "data": { "a": [1] },
    });
    assert_eq!(event["event"], expected);
    bus.stop();
}

#[test]
fn an_event_has_further_attributes_and_may_come_later() {
    let (_folder, bus) = bus();
    let ran = bus.run(&["publish", "orders", "x", "--attribute", "delay=1h", "--attribute", "tenant=a=b"]);
    assert!(ran.code == Some(0) && ran.notices.contains("kept for orders until it is due"), "{ran:?}");
    let ran = bus.run(&["publish", "orders", "x", "--attribute", "delay=1h", "-o", "json"]).json();
    assert_eq!((&ran[0]["delayed"], &ran[0]["offset"]), (&json!(true), &Value::Null));
    bus.run(&["publish", "orders", "y", "--attribute", "tenant=a=b"]).ok();
    let events = bus.run(&["tail", "orders"]).json();
    assert_eq!((events.len(), &events[0]["event"]["tenant"]), (1, &json!("a=b")), "{events:?}");
    assert!(bus.run(&["status"]).out.contains("2 to come"));
    for (wrong, says) in
        [("delay=5", "the unit is missing"), ("delay=5M", "minutes are `m`"), ("deliverat=soon", "not a time")]
    {
        let ran = bus.run(&["publish", "orders", "x", "--attribute", wrong]);
        assert!(ran.code == Some(1) && ran.notices.contains(says), "{ran:?}");
    }
    for wrong in ["delay", "Delay=1h", "id=7", "time=yesterday", "dataschema=5", "wattlereason=x", "x=a\nb"] {
        assert_eq!(bus.run(&["publish", "orders", "x", "--attribute", wrong]).code, Some(2), "{wrong}");
    }
    bus.stop();
}

#[test]
fn results_and_notices_are_apart() {
    let (_folder, bus) = bus();
    let ran = bus.run(&["publish", "orders", "x"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert!(ran.notices.contains("published to orders, partition"), "{}", ran.notices);
    bus.stop();
}

#[test]
fn files_and_standard_input_are_published_in_their_order() {
    let (folder, bus) = bus();
    let line = |id: u32| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","partitionkey":"k"}}"#);
    let lines = |range: std::ops::Range<u32>| range.map(|id| line(id) + "\n").collect::<String>();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, lines(0..5_000)).unwrap();
    let ran = bus.run(&["publish", "orders", "--file", file.to_str().unwrap()]);
    assert!(ran.notices.contains("published 5000 events to orders"), "{ran:?}");
    bus.run_with(&["publish", "orders", "--file", "-"], &lines(5_000..6_000)).ok();
    let expected: Vec<String> = (0..6_000).map(|id| id.to_string()).collect();
    assert_eq!(ids(&bus.run(&["tail", "orders"]).json()), expected);

    let plain = bus.run_with(&["publish", "log", "--file", "-", "--plain", "--type", "line", "-o", "json"], "a\n\n7\n");
    assert_eq!(plain.json().len(), 3);
    let events = bus.run(&["tail", "log"]).json();
    let data: Vec<_> = events.iter().map(|event| &event["event"]["data"]).collect();
    assert_eq!(data, [&json!("a"), &json!(""), &json!(7)], "an empty line is an event as well");
    bus.stop();
}

#[test]
fn what_is_published_twice_is_there_once_and_said_so() {
    let (folder, bus) = bus();
    let line = |id: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\"}}\n");
    let lines = |ids: std::ops::Range<u32>| ids.map(line).collect::<String>();
    let file = folder.path().join("events.ndjson");
    let arguments = ["publish", "log", "--file", file.to_str().unwrap()];
    for (count, words) in [
        (2_000, "published 2000 events to log\n"),
        (2_000, "published 0 events to log; 2000 were there already and are not stored again\n"),
        (2_001, "published 1 event to log; 2000 were there already and are not stored again\n"),
    ] {
        std::fs::write(&file, lines(0..count)).unwrap();
        let ran = bus.run(&arguments);
        assert!(ran.notices.ends_with(words), "{ran:?}");
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let places = bus.run(&[&arguments[..], &["-o", "json"]].concat()).json();
    assert!(
        places.iter().zip(0..).all(|(place, at)| place["duplicate"] == true && place["offset"] == at),
        "{places:?}"
    );
    assert_eq!(bus.run(&["tail", "log"]).json().len(), 2_001);

    let one = ["publish", "orders", "x", "--id", "1"];
    assert!(bus.run(&one).notices.starts_with("published to orders, partition"));
    assert!(bus.run(&one).notices.starts_with("already in orders, partition"));
    assert_eq!(bus.run(&[&one[..], &["-o", "json"]].concat()).json()[0]["duplicate"], true);
    bus.stop();
}

#[test]
fn a_clock_that_has_not_jumped_needs_no_word() {
    let (_folder, bus) = bus();
    assert_eq!(bus.run(&["clock", "confirm"]).ok(), "nothing was waiting: the clock has not jumped\n");
    assert_eq!(bus.run(&["clock", "confirm", "-o", "json"]).json(), [json!({ "was_waiting": false })]);
    let status: Value = serde_json::from_str(&bus.run(&["status", "-o", "json"]).ok()).unwrap();
    let storage = &status["storage"];
    assert_eq!((&storage["takes_events"], &storage["takes_outputs"]), (&json!(true), &json!(true)));
    assert_eq!((&storage["clock_jumped_seconds"], &storage["missing"]), (&Value::Null, &json!([])));
    let bytes = |what: &str| storage[what].as_u64().unwrap();
    assert!(bytes("left_bytes") > bytes("reserve_bytes"), "{storage}");
    bus.stop();
}

#[test]
fn a_bad_line_is_named_and_what_is_in_front_of_it_is_published() {
    let (_folder, bus) = bus();
    let good = |id: &str| format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\"}}\n");
    let input = [&good("a"), "\n", &good("b"), "{\"specversion\":\"1.0\"}\n", &good("c")].concat();
    let ran = bus.run_with(&["publish", "log", "--file", "-"], &input);
    assert_eq!(ran.code, Some(1));
    assert!(ran.notices.contains("standard input:4:") && ran.notices.contains("no `id`"), "{}", ran.notices);
    assert!(ran.notices.contains("2 events before it had been published"), "{}", ran.notices);
    assert_eq!(ids(&bus.run(&["tail", "log"]).json()), ["a", "b"]);

    // What only the bus knows to be wrong is named by its line as well.
    let long = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"d\",\"source\":\"/s\",\"type\":\"t\",\"partitionkey\":\"{}\"}}\n",
        "k".repeat(2000)
    );
    let ran = bus.run_with(&["publish", "log", "--file", "-"], &["\n\n", &long].concat());
    assert!(ran.notices.contains("standard input:3:") && ran.notices.contains("2000 bytes"), "{}", ran.notices);
    bus.stop();
}

#[test]
fn tail_chooses_by_position_key_type_and_count() {
    let (_folder, bus) = bus();
    for (id, key, r#type) in [("a", "k", "t"), ("b", "l", "t"), ("c", "k", "u"), ("d", "l", "u")] {
        bus.run(&["publish", "log", "--empty", "--id", id, "--key", key, "--type", r#type]).ok();
    }
    let tail = |more: &[&str]| {
        let events = bus.run(&[&["tail", "log"], more].concat()).json();
        ids(&events).join("")
    };
    assert_eq!(tail(&[]), "abcd");
    assert_eq!(tail(&["--from", "2"]), "cd");
    assert_eq!(tail(&["--from", "latest"]), "");
    assert_eq!(tail(&["--from", "1h"]), "abcd");
    assert_eq!(tail(&["--from", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(tail(&["--key", "k"]), "ac");
    assert_eq!(tail(&["--type", "u", "-n", "1"]), "d");
    assert_eq!(tail(&["--type", "u", "-n", "1", "--from", "earliest"]), "c");
    assert_eq!(tail(&["--partition", "0", "--follow", "--from", "earliest", "-n", "3"]), "abc");
    bus.stop();
}

#[test]
fn tail_follows_and_ends_quietly_when_nobody_reads() {
    let (_folder, bus) = bus();
    bus.run(&["publish", "log", "--empty", "--id", "before"]).ok();
    let mut command = wattle();
    command.args(["tail", "log", "--follow", "--from", "earliest", "--server", &bus.address]);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("before"));
    bus.run(&["publish", "log", "--empty", "--id", "after"]).ok();
    assert!(lines.next().unwrap().unwrap().contains("after"));
    drop(lines);
    bus.run(&["publish", "log", "--empty", "--id", "unheard"]).ok();
    let output = tail.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    bus.stop();
}

#[test]
fn a_tail_ends_with_its_reader_though_nothing_comes() {
    let (_folder, bus) = bus();
    bus.run(&["publish", "log", "--empty", "--id", "last"]).ok();
    for more in [&["-n", "1"][..], &["--from", "earliest"], &["-n", "1", "-o", "data"]] {
        let mut command = wattle();
        command.args(["tail", "log", "--follow", "--server", &bus.address]).args(more);
        let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        drop(lines);
        let output = tail.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{more:?}");
    }
    bus.stop();
}

#[test]
fn a_publish_that_is_refused_says_what_to_do_and_no_number_of_the_only_event() {
    let folder = tempfile::tempdir().unwrap();
    let topology = folder.path().join("keyed.yaml");
    std::fs::write(&topology, "wattle: v1\nname: shop\ntopics: { orders: { key: data.id } }\nsubscribers: {}\n")
        .unwrap();
    let mut command = wattle();
    command.arg("run").arg(&topology).arg("--data").arg(folder.path().join("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    let bus = Bus::spawn(command);
    for (data, words) in [
        ("--empty", "`data.id` is read from the data, and this event has none: publish it with data"),
        ("{}", "this event has no `data.id`"),
    ] {
        let ran = bus.run(&["publish", "orders", data]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.notices.contains(words) && !ran.notices.contains("event 0"), "{ran:?}");
        assert!(ran.notices.contains("`shop/orders`"), "{ran:?}");
    }
    let ran = bus.run_with(&["publish", "orders", "--plain"], "{\"id\":\"a\"}\n{}\n");
    assert!(ran.notices.contains("standard input:2: `shop/orders`: "), "{ran:?}");
    bus.stop();
}

#[test]
fn topics_and_status_say_what_is_there() {
    let (_folder, bus) = bus();
    bus.run(&["publish", "log", "x"]).ok();
    let topics = bus.run(&["topics"]).ok();
    assert!(topics.contains("shop/log") && topics.contains("shop/orders"), "{topics}");
    let topics: Value = serde_json::from_str(&bus.run(&["topics", "-o", "json"]).ok()).unwrap();
    let log = topics.as_array().unwrap().iter().find(|topic| topic["name"] == "shop/log").unwrap();
    assert_eq!((&log["events"], &log["parent"]), (&json!(1), &Value::Null));
    assert_eq!(log["partitions"], json!([{ "start": 0, "written": 1, "durable": 1 }]));
    let status: Value = serde_json::from_str(&bus.run(&["status", "-o", "json"]).ok()).unwrap();
    assert_eq!((&status["serving"], &status["topics"]), (&json!(true), &topics));
    let status = bus.run(&["status"]).ok();
    assert!(status.contains("serving") && status.contains("1 event"), "{status}");
    bus.stop();
}

#[test]
fn events_of_a_file_go_to_several_topics_at_once() {
    let (_folder, bus) = bus();
    bus.run(&["publish", "orders", "1", "--id", "1", "--key", "k"]).ok();
    let line = |topic: &str, id: u32| {
        let event = json!({ "specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "t" });
        json!({ "topic": topic, "event": event }).to_string() + "\n"
    };
    let lines = line("orders", 2) + "\n" + &line("log", 3);
    let ran = bus.run_with(&["publish", "--together", "-"], &lines);
    assert!(ran.notices.contains("published 2 events to 2 topics at once"), "{ran:?}");
    let places = bus.run_with(&["publish", "--together", "-", "-o", "json"], &lines).json();
    let seen: Vec<_> = places.iter().map(|place| (&place["topic"], &place["duplicate"])).collect();
    assert_eq!(seen, [(&json!("orders"), &json!(true)), (&json!("log"), &json!(true))]);
    // what `tail` prints can be published as it is
    let tailed = bus.run(&["tail", "log"]).ok();
    assert!(bus.run_with(&["publish", "--together", "-"], &tailed).notices.contains("was there already"));

    for (bad, words) in [
        (line("log", 4) + "{}", "standard input:2: it is not `{\"topic\""),
        (line("log", 4) + &line("", 5), "standard input:2: its topic has no name"),
        (line("log", 4) + "{\"topic\":\"log\",\"event\":{}}", "standard input:2: "),
        (line("log", 4) + "\n" + &line("lgo", 5), "standard input:3: there is no topic `lgo`; did you mean"),
        (line("log", 4) + &line("lgo", 5), "; nothing was published"),
        (line("log", 4) + "[", "standard input:2:1: "),
        (line("log", 4) + "{\"topic\":\"log\",\"event\":{\"specversion\":x}}", "standard input:2:39: it is not"),
        (line("log", 4) + "{\"topic\":\"log\",\"topic\":\"log\",\"event\":{}}", "duplicate field `topic`"),
    ] {
        let ran = bus.run_with(&["publish", "--together", "-"], &bad);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.notices.contains(words), "{bad}: {}", ran.notices);
    }
    assert_eq!(ids(&bus.run(&["tail", "log"]).json()), ["3"]);
    bus.stop();
}

const LATE: &str = "wattle: v1
name: shop
topics:
  orders:
    partitions: 4
    lifecycle: { state: data.s, start: [new], allow: { new: [paid] }, out_of_order: { divert: orders.late } }
  orders.late: {}
";

#[test]
fn what_is_diverted_is_said_and_shown_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let topology = folder.path().join("shop.yaml");
    std::fs::write(&topology, LATE).unwrap();
    let mut command = wattle();
    command.arg("run").arg(&topology).arg("--data").arg(folder.path().join("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    let bus = Bus::spawn(command);
    let ran = bus.run(&["publish", "orders", r#"{"s":"paid"}"#, "--key", "a"]);
    assert!(ran.code == Some(0) && ran.notices.contains("diverted to shop/orders.late, partition "), "{ran:?}");
    let place = &bus.run(&["publish", "orders", r#"{"s":"paid"}"#, "--key", "a", "-o", "json"]).json()[0];
    assert_eq!((&place["diverted_to"], &place["offset"]), (&json!("shop/orders.late"), &json!(1)), "{place}");
    let place = &bus.run(&["publish", "orders", r#"{"s":"new"}"#, "--key", "a", "-o", "json"]).json()[0];
    assert_eq!((&place["diverted_to"], &place["offset"]), (&Value::Null, &json!(0)), "{place}");
    assert_eq!(bus.run(&["tail", "orders.late"]).json().len(), 2);
    let straight = bus.run(&["publish", "orders.late", "x"]);
    assert!(straight.code == Some(1) && straight.notices.contains("publish to `shop/orders`"), "{straight:?}");
    let status = bus.run(&["status"]).out;
    assert!(status.contains("└─ out of order ▸ shop/orders.late"), "{status}");
    let topics = bus.run(&["topics"]).out;
    assert!(topics.contains("shop/orders, out of order"), "{topics}");
    bus.stop();
}

#[test]
fn what_is_held_and_what_is_to_come_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    let lifecycle = "{ state: data.s, start: [new], allow: { new: [paid] }, out_of_order: { hold: 1h } }";
    let topology =
        format!("wattle: v1\nname: shop\ntopics:\n  orders: {{ lifecycle: {lifecycle} }}\nsubscribers: {{}}\n");
    std::fs::write(&file, topology).unwrap();
    let mut command = wattle();
    command.arg("run").arg(&file).arg("--data").arg(folder.path().join("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    let bus = Bus::spawn(command);
    assert_eq!(bus.run(&["pending", "orders"]).ok(), "0 events held, 0 to come\n");
    for (id, key, more) in [("1", "a", "later=x"), ("2", "b", "later=x"), ("3", "a", "delay=2h")] {
        bus.run(&["publish", "orders", r#"{"s":"paid"}"#, "--id", id, "--key", key, "--attribute", more]).ok();
    }
    let ids = |arguments: &[&str]| {
        let events = bus.run(&[&["pending", "orders", "-o", "json"], arguments].concat()).json();
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut all = ids(&[]);
    all.sort_unstable();
    assert_eq!(all, ["1", "2", "3"]);
    assert_eq!((ids(&["--delayed"]), ids(&["--held", "--key", "a"])), (vec!["3".to_owned()], vec!["1".to_owned()]));
    assert_eq!((ids(&["--key", "a"]), ids(&["-n", "2"]).len()), (vec!["1".to_owned(), "3".to_owned()], 2));
    let held = bus.run(&["pending", "orders", "--held", "--key", "b", "-o", "json"]).json();
    let why = "the lifecycle of the topic does not allow `paid` as the first state of a key";
    for (name, expected) in [
        ("topic", json!("shop/orders")),
        ("partition", json!(0)),
        ("kind", json!("held")),
        ("key", json!("b")),
        ("state", json!("paid")),
        ("reason", json!(why)),
    ] {
        assert_eq!(held[0][name], expected, "{name}");
    }
    assert_eq!((&held[0]["event"]["id"], &held[0]["event"]["data"]["s"]), (&json!("2"), &json!("paid")));
    let time = |name: &str| held[0][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("due_time").duration_since(time("since_time")).as_secs().abs_diff(3_600) / 60, 0);
    let text = bus.run(&["pending", "orders"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[4]), (5, "2 events held, 1 to come"), "{text}");
    let columns = ["ID", "KEY", "PARTITION", "TYPE", "IS", "STATE", "SINCE", "UNTIL", "REASON"];
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), columns);
    assert!(lines[1].ends_with(why) && lines[3].contains("to come"), "{text}");
    assert!(bus.run(&["pending", "orders", "-n", "1"]).ok().ends_with("1 event held, 0 to come, and there are more\n"));
    let unknown = bus.run(&["pending", "order"]);
    assert!(unknown.code == Some(1) && unknown.notices.contains("did you mean `orders`?"), "{unknown:?}");
    assert_eq!(bus.run(&["pending", "orders", "--held", "--delayed"]).code, Some(2));
    bus.stop();
}
