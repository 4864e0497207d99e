//! A single event from an argument or from standard input: what is taken, and what is refused before anything is
//! published.

use serde_json::{Value, json};

use super::bus::{bus, run, run_with};

#[test]
fn standard_input_is_the_data_of_one_event_where_no_data_is_given() {
    let (_folder, bus) = bus();
    for (arguments, input, data) in [
        (&["publish", "log"][..], "hello\n", json!("hello")),
        (&["publish", "log", "-"], "hello\nworld\r\n", json!("hello\nworld")),
        (&["publish", "log"], "{\n  \"a\": 1\n}\n", json!({ "a": 1 })),
        (&["publish", "log", "--text"], "{\"a\":", json!("{\"a\":")),
        (&["publish", "log", "given"], "not looked at\n", json!("given")),
        (&["publish", "log", ""], "not looked at\n", json!("")),
        (&["publish", "log", "--empty"], "not looked at\n", Value::Null),
    ] {
        bus.run_with(arguments, input).ok();
        let events = bus.run(&["tail", "log", "-n", "1"]).json();
        let event = &events[0]["event"];
        let found = match event["data_base64"].as_str() {
            // JSON over several lines
            Some(_) => serde_json::from_str(&bus.run(&["tail", "log", "-n", "1", "-o", "data"]).ok()).unwrap(),
            None => event["data"].clone(),
        };
        assert_eq!(found, data, "{arguments:?} {input:?}");
        assert_eq!(event.get("datacontenttype").is_none(), data.is_null(), "{event}");
    }
    for stdin in [&["publish", "orders", "--plain"][..], &["publish", "orders", "--plain", "-"]] {
        let lines = bus.run_with(stdin, "a\nb\n");
        assert!(lines.notices.contains("published 2 events"), "{stdin:?}: {lines:?}");
    }
    bus.stop();
}

#[test]
fn what_is_no_event_is_refused_before_anything_is_sent() {
    // Nobody is there to send it to.
    let server = ["--server", "127.0.0.1:1"];
    for (arguments, input, words) in [
        (&["publish", "log"][..], "", "standard input is empty: --empty"),
        (&["publish", "log", "-"], "\n", "standard input is empty"),
        (&["publish", "log"], "{\"a\":1}\n{\"a\":2}\n", "standard input:2:1: this looks like JSON and is not"),
        (&["publish", "log"], "{\n  \"a\": 1\n  \"b\": 2\n}", "standard input:3:3:"),
        (&["publish", "log", "{\"a\":1,}"], "", "data:1:8:"),
        (&["publish", "log", "{\"a\":1,}"], "", "--text"),
        (&["publish", "log", "x", "--empty"], "", "--empty"),
        (&["publish", "log", "x", "--plain"], "", "--plain publishes an event of each line"),
        (&["publish", "log", "\"unterminated"], "", "data:1:13: this looks like JSON and is not"),
        (&["publish", "log", "\"unterminated"], "", "with --text it is published as text"),
        (&["publish", "log", "--text", "--empty"], "", "--empty"),
    ] {
        let ran = run_with(&[arguments, &server].concat(), input);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(ran.notices.contains(words), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_topology_is_checked_from_standard_input() {
    let good = run_with(&["check", "-"], super::bus::TOPOLOGY);
    assert_eq!(good.ok(), "standard input: ok (2 topics of which 2 roots, 0 subscribers)\n");
    let bad = run_with(&["check", "-"], "wattle: v1\nname: shop\ntopics: { a: { colour: red } }\n");
    assert_eq!(bad.code, Some(78), "{bad:?}");
    assert!(bad.notices.contains("standard input:3") && bad.notices.contains("unknown-key"), "{bad:?}");
}

#[test]
fn help_says_more_of_a_command_in_two_ways() {
    for command in [&["publish"][..], &["dead", "redrive"], &["plugin", "deploy"]] {
        let asked = run(&[&["help"], command].concat()).ok();
        assert_eq!(asked, run(&[command, &["--help"]].concat()).ok(), "{command:?}");
        assert!(asked.contains("Examples:"));
    }
    assert_eq!(run(&["help", "nonsense"]).code, Some(2));
    assert!(run(&["help"]).ok().contains("Running bus:"));
}

#[test]
fn a_shell_completes_commands_and_the_names_that_the_bus_has() {
    let (_folder, bus) = bus();
    let complete = |words: &[&str], server: &str| {
        let mut command = super::bus::wattle();
        let index = (words.len() - 1).to_string();
        // As the script for bash does.
        command.env("WATTLE_COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", index);
        command.env("WATTLE_SERVER", server).arg("--").args(words);
        super::bus::Ran::from(command.output().unwrap()).ok()
    };
    let found = |words: &[&str]| complete(words, &bus.address);
    assert_eq!(found(&["wattle", "pub"]), "publish");
    assert_eq!(found(&["wattle", "tail", "o"]), "orders");
    assert_eq!(found(&["wattle", "publish", "shop/"]), "shop/orders\nshop/log");
    assert_eq!(found(&["wattle", "dead", "list", ""]).lines().find(|line| !line.starts_with('-')), None);
    assert_eq!(complete(&["wattle", "tail", "o"], "127.0.0.1:1"), "", "where there is no bus");
    bus.stop();
}
