//! Files that were made to hurt: whatever the text, a check ends, refuses, and stays within bounds. What it takes is
//! the same plan when it comes back from what is shown, from the record of what is applied, and from a client's
//! request.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use wattle::api::{Component, Proposal};
use wattle::topology::bounds::{ALIASES_MAX, NODES_MAX, TEXT_BYTES_MAX};
use wattle::topology::kept::PlanRecord;
use wattle::topology::render::{self, Style};
use wattle::topology::{Code, PathKind, Source, SubscriberPlan, Surroundings, check, show};

struct World;

impl Surroundings for World {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::Folder { manifest: true }
    }
}

fn codes(text: &str) -> Vec<Code> {
    let sources = [Source { path: "t.yaml".into(), text: text.to_owned() }];
    let (plan, diagnostics) = check(&sources, &World);
    assert_eq!(plan.is_none(), diagnostics.iter().any(|diagnostic| diagnostic.is_error()));
    diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// `a: &a …`, each level ten times the one before, `levels` high.
fn laughs(levels: usize) -> String {
    let mut text = String::from("l0: &l0 [lol]\n");
    for level in 1..=levels {
        let uses = vec![format!("*l{}", level - 1); 10].join(", ");
        text += &format!("l{level}: &l{level} [{uses}]\n");
    }
    text
}

#[test]
fn a_billion_laughs_are_refused() {
    assert_eq!(codes(&laughs(9)), [Code::TooLarge]);
    assert_eq!(codes(&laughs(25)), [Code::TooLarge]);
}

#[test]
fn laughs_in_merges_are_refused() {
    let text = laughs(9).replace("[lol]", "{ a: b }").replace("[", "{ <<: [").replace("]", "] }");
    assert_eq!(codes(&text), [Code::TooLarge]);
}

#[test]
fn too_many_uses_of_an_anchor_are_refused() {
    let text = |uses: usize| format!("a: &a x\nb: [{}]\n", "*a, ".repeat(uses));
    assert!(!codes(&text(ALIASES_MAX)).contains(&Code::TooLarge));
    assert_eq!(codes(&text(ALIASES_MAX + 1)), [Code::TooLarge]);
}

#[test]
fn depth_counts_through_anchors() {
    let text = format!("a: &a {}x{}\nb: {}*a{}\n", "[".repeat(20), "]".repeat(20), "[".repeat(20), "]".repeat(20));
    assert_eq!(codes(&text), [Code::TooLarge]);
}

#[test]
fn nesting_is_refused_in_every_style() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
        assert_eq!(codes(&text), [Code::TooLarge], "{}", &text[..8]);
    }
    let indented: String = (0..1_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(codes(&indented), [Code::TooLarge]);
}

#[test]
fn endless_values_are_refused() {
    assert_eq!(codes("a: &a [*a]"), [Code::TooLarge]);
    assert_eq!(codes("&a { <<: *a }"), [Code::TooLarge]);
}

#[test]
fn masses_of_nodes_and_of_text_are_refused() {
    assert_eq!(codes(&format!("[{}]", "a,".repeat(NODES_MAX))), [Code::TooLarge]);
    assert_eq!(codes(&"# nothing\n".repeat(TEXT_BYTES_MAX / 10 + 1)), [Code::TooLarge]);
}

#[test]
fn a_refused_file_does_not_hide_another() {
    let source = |path: &str, text: String| Source { path: path.into(), text };
    let bomb = source("a.yaml", laughs(9));
    let other = source("b.yaml", "wattle: v1\nname: n\ntopics: { t: { partitions: 0 } }\n".into());
    let (_, diagnostics) = check(&[bomb, other], &World);
    let codes: Vec<_> = diagnostics.iter().map(|diagnostic| (diagnostic.span().source, diagnostic.code)).collect();
    assert_eq!(codes, [(0, Code::TooLarge), (1, Code::BadValue)]);
}

#[test]
fn masses_of_problems_are_summed_up() {
    let topics = |value: &str| (0..5_000).map(|topic| format!("  t{topic}: {value}\n")).collect::<String>();
    let found = codes(&format!("wattle: v1\nname: n\ntopics:\n{}", topics("5")));
    let count = |code: Code| found.iter().filter(|found| **found == code).count();
    assert_eq!(
        (count(Code::BadValue), count(Code::UnusedTopic), count(Code::TooLarge)),
        (1_000, 1, 1),
        "unused topics are one warning"
    );
    // Warnings never crowd out what is an error, nor are they one.
    let odd = topics("{ id: \"'x'\" }");
    let found = codes(&format!("wattle: v1\nname: n\ntopics:\n{odd}"));
    assert_eq!((found.len(), found.last()), (1_001, Some(&Code::TooLarge)));
    let error = codes(&format!("wattle: v1\nname: n\ntopics:\n{odd}  last: 5\n"));
    assert!(error.contains(&Code::BadValue));
}

/// A file that could not be read whole may declare any name that is in it; that there are many of either is no matter.
#[test]
fn names_that_nobody_declares_are_looked_for_once() {
    let subscribers: String = (0..20_000).map(|n| format!("  s{n}: {{ from: x, to: [y] }}\n")).collect();
    let text = format!("wattle: v1\n# {}\nsubscribers:\n{subscribers}", "x".repeat(3 << 20));
    let start = Instant::now();
    assert!(codes(&text).contains(&Code::MissingKey));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Pieces from which topologies and broken topologies are made.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "wattle: v1\n",
        "name: shop\n",
        "topics:\n",
        "subscribers:\n",
        "  orders: {}\n",
        "  orders:\n",
        "  a:\n",
        "    from: orders\n",
        "    plugin: p\n",
        "    to: [orders, b]\n",
        "    to: { x: orders }\n",
        "  b: ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "!t ",
        "!!str ",
        "'",
        "\"",
        "|\n",
        ">\n",
        "~",
        "\n",
        "  ",
        "\t",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "# x\n",
        "${X}",
        "${X:-y}",
        "$",
        "key: data.x +\n",
        "partitions: 8\n",
        "\u{feff}",
        "ä",
        "\r\n",
        "limits: { time: 1s }\n",
        "a.dead",
        "on_failure: park\n",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Topologies that are right, to begin with.
const GOOD: [&str; 5] = [
    include_str!("../../topologies/orders.yaml"),
    include_str!("../../topologies/three-semantics.yaml"),
    include_str!("../../topologies/two-groups.yaml"),
    include_str!("../../topologies/illegal-transition.yaml"),
    include_str!("../../topologies/late-orders.yaml"),
];

/// A topology with lines that are missing, elsewhere, there twice, or with something of another one in them.
fn edited() -> impl Strategy<Value = String> {
    let word = || {
        let words = GOOD.iter().flat_map(|text| text.split_whitespace()).collect::<Vec<_>>();
        prop_oneof![3 => prop::sample::select(words).prop_map(str::to_owned), 1 => pieces()]
    };
    let edit = (0..5_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), word());
    (prop::sample::select(GOOD.to_vec()), prop::collection::vec(edit, 0..5)).prop_map(|(text, edits)| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (kind, at, other, word) in edits {
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match kind {
                0 => drop((lines.len() > 1).then(|| lines.remove(at))),
                1 => lines.insert(other, lines[at].clone()),
                2 => lines.swap(at, other),
                3 => lines[at] = format!("{} {word}", lines[at]),
                _ => {
                    let mut words: Vec<&str> = lines[at].split(' ').collect();
                    let place = other % words.len();
                    words[place] = &word;
                    lines[at] = words.join(" ");
                }
            }
        }
        lines.join("\n")
    })
}

/// By hand for longer: `PROPTEST_CASES=1000000 cargo test --release --test topology no_text`.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked_for = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked_for { default.cases } else { 3_000 }, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_text_breaks_the_checker(text in prop_oneof![pieces(), any::<String>(), edited()]) {
        let sources = [Source { path: "t.yaml".into(), text }];
        let start = Instant::now();
        let (plan, diagnostics) = check(&sources, &World);
        prop_assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        if let Some(plan) = &plan {
            let shown = show(plan);
            let (again, _) = check(&[Source { path: "t.yaml".into(), text: shown.clone() }], &World);
            prop_assert_eq!(again.as_ref(), Some(plan), "{}", shown);
            let record = serde_json::to_string(&PlanRecord::of(plan, &str::to_owned)).unwrap();
            let kept: PlanRecord = serde_json::from_str(&record).unwrap();
            let read = kept.read(&|sealed| Some(sealed.to_owned())).map_err(|error| format!("{error:?}"));
            prop_assert_eq!(read.as_ref(), Ok(plan), "{}", record);
            let component = |of: &SubscriberPlan| Component::File(format!("{}.wasm", of.name).into());
            let components: Vec<Component> = plan.subscribers.iter().map(component).collect();
            let sent = Proposal::of(plan, &components).read().map_err(|error| format!("{error:?}"));
            prop_assert_eq!(sent, Ok((plan.clone(), components)));
        }
        prop_assert_eq!(plan.is_some(), !diagnostics.iter().any(|diagnostic| diagnostic.is_error()));
        for label in diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
            let (start, end) = (label.span.start as usize, label.span.end as usize);
            prop_assert!(sources[0].text.get(start..end).is_some(), "{:?}", label);
        }
        // Whatever was found can be said.
        render::text(&sources, &diagnostics, Style { colour: false, width: 100 });
        render::report(&sources, &diagnostics, false);
    }
}
