//! One subscriber, whose plugin goes from language to language while events arrive.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::conformance::data;
use crate::probes::{Lab, REFERENCE, event, probes};

const EVENTS_PER_LANGUAGE: usize = 300;

#[test]
fn a_plugin_goes_from_language_to_language_under_load_and_loses_nothing() {
    let probes = probes();
    let lab = Lab::new(&probes[..1], "5s");
    let mut count = 0;
    let mut publish = |lab: &Lab| {
        let mut events = String::new();
        for _ in 0..EVENTS_PER_LANGUAGE {
            count += 1;
            let data = json!({ "key": "n", "by": 1 });
            let _ = writeln!(events, "{}", event(&format!("n{count}"), "increment", &data));
        }
        lab.publish(&events);
    };
    // Each language twice: after another one, and before it.
    for probe in probes.iter().chain(&probes) {
        publish(&lab);
        let deploy = ["plugin", "deploy", REFERENCE, probe.wasm.to_str().unwrap(), "--policy", "replace"];
        lab.bus.run(&deploy).ok();
        publish(&lab);
    }
    lab.settle();
    let total = 2 * EVENTS_PER_LANGUAGE * 2 * probes.len();
    let outputs = lab.events(&format!("{REFERENCE}.out"));
    let sums: Vec<String> = outputs.iter().map(|output| data(&output["event"])).collect();
    assert_eq!(sums, (1..=total).map(|sum| sum.to_string()).collect::<Vec<_>>());
    assert_eq!(lab.events(&format!("{REFERENCE}.dead")), Vec::<Value>::new());
    lab.bus.stop();
}
