//! The same events, and the same of everything: outputs, state, attempts, kinds of failure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::probes::{Lab, Probe, REFERENCE, event, probes};

/// One event for each behaviour.
const EVENTS: &str = include_str!("../../sdk/probe/events.ndjson");
/// The largest event has this many bytes of data besides its attributes.
const LARGE_BYTES: usize = (1 << 20) - 1_024;
/// Verbs that end instances: what is left of memory is in their reasons.
const ENDINGS: [&str; 5] = [LOOP, "grow", "recurse", "exit", "panic"];
/// Verbs whose outputs are the language's own. Each is compared with itself, by shadow runs.
const OWN: [&str; 2] = ["random", "hash"];

/// Time per event where no probe runs for ever: shadow runs have a low priority, and a machine may be busy.
const CALM_TIME: &str = "1m";
/// Runs until its time is over, at each attempt.
const LOOP: &str = "loop";
/// Time per event where nothing else is handled.
const LOOP_TIME: &str = "200ms";

/// What a language does otherwise with a verb: `sdk/probe/README.md` has the reasons.
const EXCEPTIONS: [(&str, &str, &str); 6] = [
    ("ts", "exit", "reject"),
    ("ts", "sleep", "reject"),
    ("ts", "recurse", "stack"),
    ("python", "exit", "trap"),
    ("go", "recurse", "stack"),
    ("c", "panic", "trap"),
];

/// The file that a reason names where an uncaught error was raised.
const SOURCES: [(&str, &str); 5] =
    [("rust", "failures.rs:"), ("ts", "probe.ts:"), ("python", "handler.py:"), ("go", ".go:"), ("c", "probe.c:")];

fn exception(language: &str, verb: &str) -> Option<&'static str> {
    EXCEPTIONS.iter().find(|(of, other, _)| *of == language && *other == verb).map(|(.., kind)| *kind)
}

/// All events, with those that are too large for a file.
fn events() -> String {
    let large = ["x".repeat(LARGE_BYTES), "ü".repeat(LARGE_BYTES / 2)];
    let large = large.iter().enumerate().flat_map(|(number, text)| {
        ["echo", "length"].map(|verb| event(&format!("large-{number}-{verb}"), verb, &json!(text)).to_string() + "\n")
    });
    EVENTS.to_owned() + &large.collect::<String>()
}

fn verb(of: &Value) -> &str {
    of["type"].as_str().unwrap().trim_start_matches("probe.")
}

/// Whether a line is an event of one of these verbs.
fn is_verb(line: &str, verbs: &[&str]) -> bool {
    verbs.contains(&verb(&serde_json::from_str(line).unwrap()))
}

/// What a language made of the events.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Outputs by port and key, in order.
    outputs: BTreeMap<(String, String), Vec<Value>>,
    /// The kind of the failure of each dead letter, and its attempts.
    failures: BTreeMap<String, (String, String)>,
    state: BTreeMap<(String, String), Value>,
}

impl Outcome {
    fn of(lab: &Lab, language: &str) -> Self {
        let mut outcome = Self { state: lab.state(language), ..Self::default() };
        for port in ["out", "other"] {
            for mut output in lab.events(&format!("{language}.{port}")) {
                let key = output["key"].as_str().unwrap().to_owned();
                let mut event = output["event"].take();
                let fields = event.as_object_mut().unwrap();
                // They follow from the subscriber's name.
                fields.retain(|name, _| name != "id" && name != "source");
                if !OWN.contains(&verb(&event)) {
                    outcome.outputs.entry((port.to_owned(), key)).or_default().push(event);
                }
            }
        }
        for dead in lab.events(&format!("{language}.dead")) {
            let text = |name: &str| dead["event"][name].as_str().unwrap().to_owned();
            outcome.failures.insert(text("id"), (text("wattlefailure"), text("wattleattempts")));
        }
        outcome
    }

    /// Without what a language does otherwise.
    fn without(&mut self, language: &str) {
        for outputs in self.outputs.values_mut() {
            outputs.retain(|event| exception(language, verb(event)).is_none());
        }
        self.failures.retain(|id, _| exception(language, id.split_once('-').unwrap().1).is_none());
    }
}

fn assert_same(language: &str, mut theirs: Outcome, mut reference: Outcome) {
    for outcome in [&mut theirs, &mut reference] {
        outcome.without(language);
    }
    let keys: BTreeSet<_> = theirs.outputs.keys().chain(reference.outputs.keys()).collect();
    for key in keys {
        let (own, expected) = (theirs.outputs.get(key), reference.outputs.get(key));
        let (own, expected) = (own.map_or(&[][..], Vec::as_slice), expected.map_or(&[][..], Vec::as_slice));
        for (own, expected) in own.iter().zip(expected) {
            assert_eq!(shown(own), shown(expected), "{language}, outputs of {key:?}");
            assert_eq!(own, expected, "{language}, outputs of {key:?}");
        }
        assert_eq!(own.len(), expected.len(), "{language}, outputs of {key:?}");
    }
    assert_eq!(theirs.failures, reference.failures, "{language}");
    assert_eq!(theirs.state.keys().collect::<Vec<_>>(), reference.state.keys().collect::<Vec<_>>(), "{language}");
    assert_eq!(theirs.state, reference.state, "{language}");
}

/// The beginning of an event, for messages: data may have a megabyte.
fn shown(event: &Value) -> String {
    event.to_string().chars().take(400).collect()
}

#[test]
fn each_language_gives_what_rust_gives() {
    let probes = probes();
    let events = events();
    let (loops, others): (Vec<&str>, Vec<&str>) = events.split_inclusive('\n').partition(|line| is_verb(line, &[LOOP]));
    let mut lab = Lab::new(&probes, "5s");
    lab.handle(&others.concat());
    let lines = lab.bus.said();
    let reference = Outcome::of(&lab, REFERENCE);
    assert!(reference.outputs.values().map(Vec::len).sum::<usize>() > 400, "{reference:#?}");
    assert!(reference.failures.len() > 40, "{:#?}", reference.failures);
    assert!(!logged(&lines, REFERENCE).is_empty(), "{lines}");
    for Probe { language, .. } in &probes {
        let outcome = Outcome::of(&lab, language);
        assert_exceptions(language, &outcome);
        assert_reasons(&lab, language);
        assert_random(&lab, language);
        assert_eq!(logged(&lines, language), logged(&lines, REFERENCE), "{language}");
        assert_same(language, outcome, Outcome::of(&lab, REFERENCE));
    }
    lab.bus.stop();
    let lab = Lab::new(&probes, LOOP_TIME);
    lab.handle(&loops.concat());
    for Probe { language, .. } in &probes {
        let failures = Outcome::of(&lab, language).failures;
        assert_eq!(failures.into_values().collect::<Vec<_>>(), [("timeout".into(), "3".into())], "{language}");
        assert_reasons(&lab, language);
    }
    lab.bus.stop();
}

/// What a language does otherwise, it does as the table says.
fn assert_exceptions(language: &str, outcome: &Outcome) {
    for (_, excepted, kind) in EXCEPTIONS.iter().filter(|(of, ..)| *of == language) {
        let kinds = outcome.failures.iter().filter(|(id, _)| id.split_once('-').unwrap().1 == *excepted);
        let kinds: BTreeSet<&str> = kinds.map(|(_, (kind, _))| kind.as_str()).collect();
        assert_eq!(kinds, BTreeSet::from([*kind]), "{language}, {excepted}");
    }
}

/// Reasons say what the events ask for (`reasonhas`), and those of uncaught errors where it happened, in one line.
fn assert_reasons(lab: &Lab, language: &str) {
    let (_, source) = SOURCES.iter().find(|(of, _)| *of == language).unwrap();
    for dead in lab.events(&format!("{language}.dead")) {
        let event = &dead["event"];
        let reason = event["wattlereason"].as_str().unwrap();
        if exception(language, verb(event)).is_some() && verb(event) != "panic" {
            continue;
        }
        if let Some(has) = event["reasonhas"].as_str() {
            assert!(reason.contains(has), "{language}, {}: {reason}", event["id"]);
        }
        if verb(event) == "panic" {
            let after = reason.split_once(source).map(|(_, after)| after);
            let has_line = after.is_some_and(|after| after.starts_with(|char: char| char.is_ascii_digit()));
            assert!(has_line && !reason.contains('\n'), "{language}, {}: {reason}", event["id"]);
        }
    }
}

/// Random numbers differ between events.
fn assert_random(lab: &Lab, language: &str) {
    let random = random(lab, language);
    // By generator: one that always gives the same is not hidden by the others.
    let all: Vec<&str> = random.iter().flat_map(|numbers| numbers.split(' ')).collect();
    let different: BTreeSet<&str> = all.iter().copied().collect();
    assert!(random.len() == 3 && all.len() == different.len(), "{language}: {random:?}");
}

/// The numbers of each event, separated by spaces.
fn random(lab: &Lab, language: &str) -> Vec<String> {
    let outputs = lab.events(&format!("{language}.out"));
    let random = outputs.iter().map(|of| &of["event"]).filter(|of| verb(of) == "random");
    random.map(data).collect()
}

/// The data of an event, as text.
pub(crate) fn data(event: &Value) -> String {
    use base64::Engine as _;
    let data = event["data_base64"].as_str().unwrap();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).unwrap()).unwrap()
}

/// The levels at which the text of `log` was logged.
fn logged(lines: &str, language: &str) -> Vec<String> {
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let subscriber = format!("lab/{language}");
    let of = lines.filter(|line| line["subscriber"] == subscriber.as_str() && line["message"] == "hello");
    let mut levels: Vec<String> = of.map(|line| line["level"].as_str().unwrap().to_owned()).collect();
    levels.sort();
    levels
}

#[test]
fn other_batches_and_fresh_instances_give_the_same_in_each_language() {
    let probes = probes();
    let lab = Lab::new(&probes, CALM_TIME);
    let is_calm = |line: &&str| !is_verb(line, &ENDINGS) && !is_verb(line, &["set-then-panic"]);
    let events: String = EVENTS.split_inclusive('\n').filter(is_calm).collect();
    lab.handle(&events);
    for Probe { language, wasm } in &probes {
        let shadow = ["plugin", "shadow", language, wasm.to_str().unwrap(), "-o", "json"];
        for _ in 0..2 {
            let report: Value = serde_json::from_str(&lab.bus.run(&shadow).ok()).unwrap();
            let places = report["shown"].as_array().unwrap().iter().map(|of| of["id"].to_string());
            let places: BTreeSet<String> = places.collect();
            // The order of maps depends on the instance there.
            let are_excepted = ["rust", "go"].contains(language) && places.iter().all(|id| id.contains("-hash"));
            assert!(report["compared"].as_u64().unwrap() > 100, "{language}: {report:#}");
            let differing = [&report["differing"], &report["not_deterministic"]];
            assert!(are_excepted || differing.iter().all(|of| **of == 0), "{language}: {report:#}");
        }
    }
    // A shadow run begins as the first one did. So the last random numbers are compared with those of instances that
    // made none before: they follow from the event alone.
    let alone = Lab::new(&probes, CALM_TIME);
    let is_random = |line: &&str| is_verb(line, &["random"]);
    alone.handle(&format!("{}\n", EVENTS.lines().rfind(is_random).unwrap()));
    for Probe { language, .. } in &probes {
        assert_eq!(random(&alone, language), random(&lab, language)[2..], "{language}");
    }
    alone.bus.stop();
    lab.bus.stop();
}
