//! A plan is what was written, wherever it comes back from: the record of what is applied, the texts that a client
//! sends, and what `check --show` shows.
//!
//! `WATTLE_KEPT_CASES` says how many topologies are tried.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use serde_json::{Map, Value, json};
use wattle::api::{Base, Component, Proposal};
use wattle::deploy::{Store, adopt};
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::memory::MemoryEngine;
use wattle::topology::kept::PlanRecord;
use wattle::topology::{PathKind, Plan, Source, SubscriberPlan, Surroundings, check, check_on, show};

const SCHEMA: &str = "{ \"type\": \"object\", \"description\": \"\u{7f} \u{2028}\" }";

#[derive(Debug, Clone)]
struct World(BTreeMap<&'static str, String>);

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn at(&self, path: &Path) -> PathKind {
        match path.extension() {
            Some(_) => PathKind::File,
            None => PathKind::Folder { manifest: true },
        }
    }

    fn text(&self, _: &Path, _: usize) -> Result<String, String> {
        Ok(SCHEMA.to_owned())
    }
}

/// JSON as YAML, in which what is not ASCII is escaped.
fn yaml(value: &Value) -> String {
    let escaped = |char: char| match u32::from(char) {
        0x20..=0x7e => char.to_string(),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    value.to_string().chars().map(escaped).collect()
}

fn any_text() -> impl Strategy<Value = String> {
    let odd = "\u{7f}\u{80}\u{85}\u{9f}\u{a0}\u{2028}\u{2029}\
        \u{d7ff}\u{e000}\u{feff}\u{fffd}\u{fffe}\u{ffff}\u{10000}\u{10ffff}";
    let odd: Vec<char> = odd.chars().chain("\"'\\$ {}:#-\n\r\t\0\u{1}%&*!|>@`,[]?~".chars()).collect();
    let char = prop_oneof![3 => select(odd), 2 => any::<char>(), 2 => prop::char::range('a', 'z')];
    prop::collection::vec(char, 0..12).prop_map(|chars| chars.into_iter().collect())
}

/// As it stands in a place where variables are replaced.
fn said(text: &str) -> String {
    text.replace('$', "$$")
}

/// A literal of CEL: its escapes, and characters as they are.
fn literal() -> impl Strategy<Value = String> {
    let escapes =
        ["\\n", "\\\\", "\\\"", "\\'", "\\x7f", "\\u00e9", "\\U0001F600", "\\101", "\\?", "\\`", "\\a", "\\t"];
    let part = prop_oneof![
        select(escapes.to_vec()).prop_map(str::to_owned),
        any_text().prop_map(|text| text.replace(['\\', '"', '\n', '\r', '\0'], "x")),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let plain = select(vec!["subject", "data.id", "source + '/' + id", "data.a[\"b c\"].d"]).prop_map(str::to_owned);
    prop_oneof![plain, literal().prop_map(|literal| format!("subject + {literal}"))]
}

fn condition() -> impl Strategy<Value = String> {
    let plain = select(vec!["has(data.a) && data.a > 1", "data.list.exists(x, x == 1)", "type != 'x' || !has(data.b)"]);
    prop_oneof![plain.prop_map(str::to_owned), literal().prop_map(|literal| format!("data.a == {literal}"))]
}

fn duration() -> impl Strategy<Value = String> {
    let odd = select(vec!["1ns", "999ms", "1d1h1m1s1ms1us1ns", "36500d", "1.5h", "2w"]).prop_map(str::to_owned);
    prop_oneof![odd, (1..1_000_000_000_000u64).prop_map(|nanoseconds| format!("{nanoseconds}us"))]
}

fn size() -> impl Strategy<Value = String> {
    let odd = select(vec!["1GiB", "10MB", "1.5KiB", "1TiB"]).prop_map(str::to_owned);
    prop_oneof![odd, (1u64..1 << 50).prop_map(|bytes| format!("{bytes}B"))]
}

/// Some of some keys.
fn some(keys: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Map<String, Value>> {
    let each = keys.into_iter().map(|(key, value)| prop::option::of(value).prop_map(move |value| (key, value)));
    each.collect::<Vec<_>>().prop_map(|all| {
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<String, Value>>()
    })
}

fn text(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    strategy.prop_map(Value::from).boxed()
}

fn expression(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    strategy.prop_map(|text| Value::from(said(&text))).boxed()
}

fn number(range: impl Strategy<Value = u32> + 'static) -> BoxedStrategy<Value> {
    range.prop_map(Value::from).boxed()
}

fn lifecycle() -> BoxedStrategy<Value> {
    let state = (prop::char::range('a', 'z'), any_text()).prop_map(|(first, rest)| format!("{first}{rest}"));
    let states = prop::collection::btree_set(state, 2..5).prop_map(|states| states.into_iter().collect::<Vec<_>>());
    let more =
        some(vec![("max", number(1..1_000_000u32)), ("remember", text(duration())), ("remember_max", number(1..9u32))]);
    let hold = prop::option::of((duration(), 1..9u32));
    (states, key(), more, hold)
        .prop_map(|(states, state, mut more, hold)| {
            let list = |state: &String| json!([said(state)]);
            let pairs = states.iter().zip(&states[1..]).map(|(state, next)| (state.clone(), list(next)));
            more.insert("state".into(), said(&state).into());
            more.insert("start".into(), list(&states[0]));
            more.insert("allow".into(), Value::Object(pairs.collect()));
            if let Some((period, max)) = hold {
                more.insert("out_of_order".into(), json!({ "hold": period, "max": max }));
            }
            Value::Object(more)
        })
        .boxed()
}

fn topic(is_root: bool) -> impl Strategy<Value = Map<String, Value>> {
    let retention = some(vec![("age", text(duration())), ("size", text(size())), ("force", Just(json!(true)).boxed())]);
    let dedupe = some(vec![("window", text(duration())), ("count", number(1..u32::MAX))]).prop_map(Value::Object);
    let all = [
        ("partitions", number(1..9u32)),
        ("key", expression(key())),
        ("schema", Just(json!("s.json")).boxed()),
        ("retention", retention.prop_map(Value::Object).boxed()),
        ("compression", select(vec![json!("none"), json!("lz4")]).boxed()),
        ("backlog", number(1..u32::MAX)),
        ("lifecycle", lifecycle()),
    ];
    let roots = [
        ("dedupe", prop_oneof![dedupe.boxed(), Just(json!("off"))].boxed()),
        ("id", expression(key())),
        ("producers", text(duration()).prop_map(|forget| json!({ "forget": forget })).boxed()),
        ("when_full", select(vec![json!("wait"), json!("reject")]).boxed()),
    ];
    some(all.into_iter().chain(roots.into_iter().filter(|_| is_root)).collect()).prop_map(|mut topic| {
        if topic.get("dedupe") == Some(&json!("off")) {
            topic.remove("id");
        }
        if !topic.contains_key("backlog") {
            topic.remove("when_full");
        }
        topic
    })
}

fn setting() -> BoxedStrategy<Value> {
    prop_oneof![
        expression(any_text()),
        Just(json!("${WORD}")).boxed(),
        Just(json!("$$ ${ODD} ${NONE:-it's} $")).boxed(),
        Just(json!({ "file": "key.txt" })).boxed(),
        any::<u64>().prop_map(Value::from).boxed(),
        Just(json!(true)).boxed(),
    ]
    .boxed()
}

fn subscriber() -> impl Strategy<Value = Map<String, Value>> {
    let settings = prop::collection::btree_map("[a-z$ .\"'é]{1,6}", setting(), 0..4);
    let settings = settings.prop_map(|all| Value::Object(all.into_iter().collect()));
    let backoff = (1..1_000u32, 0..1_000u32, 1.0..9.0f64);
    let backoff = backoff.prop_map(|(initial, more, factor)| {
        json!({ "initial": format!("{initial}ms"), "max": format!("{}ms", initial + more), "factor": factor })
    });
    let retry = some(vec![("attempts", number(1..9u32)), ("backoff", backoff.boxed())]).prop_map(Value::Object);
    let trial = (number(0..9u32), 0..100u32, 1..100u32).prop_map(|(events, least, more)| {
        json!({ "events": events, "for": format!("{least}s"), "at_most": format!("{}s", least + more) })
    });
    let times = "[12]0[0-9]{2}-0[1-9]-[12][0-9]T0[0-9]:[0-5][0-9]:00(\\.[0-9]{1,9})?Z";
    some(vec![
        ("when", expression(condition())),
        ("config", settings.boxed()),
        ("limits", text(duration()).prop_map(|_| json!({ "memory": "5MiB", "time": "7ms", "output": "3KiB" })).boxed()),
        (
            "state",
            some(vec![("ttl", text(duration())), ("max", Just(json!("1MiB")).boxed())]).prop_map(Value::Object).boxed(),
        ),
        ("retry", retry.boxed()),
        ("on_failure", select(vec![json!("dead_letter"), json!("park"), json!("halt")]).boxed()),
        ("capsules", number(0..9u32)),
        ("trial", trial.boxed()),
        ("retry_queue", number(1..9u32).prop_map(|max| json!({ "max": max })).boxed()),
        ("delivery", select(vec![json!("exactly_once"), json!("at_least_once")]).boxed()),
        ("rate", (1..9u32, select(vec!["s", "m", "h"])).prop_map(|(n, per)| json!(format!("{n}/{per}"))).boxed()),
        ("concurrency", number(1..9u32)),
        ("batch", number(2..9u32).prop_map(|max| json!({ "max": max, "size": "64KiB", "wait": "3ms" })).boxed()),
        ("start", prop_oneof![Just(json!("latest")).boxed(), text(times)].boxed()),
    ])
}

/// A topology of a chain: each topic has a subscriber that publishes to the next one. And what its variables are.
fn topologies() -> impl Strategy<Value = (String, World)> {
    let chain = prop::collection::vec((subscriber(), any::<bool>()), 1..4);
    let variables = (any_text(), any_text()).prop_map(|(word, odd)| World([("WORD", word), ("ODD", odd)].into()));
    let rest = prop::collection::vec(topic(false), 4);
    (topic(true), rest, chain, variables).prop_map(|(root, rest, chain, variables)| {
        let (mut topics, mut subscribers) = (Map::new(), Map::new());
        topics.insert("t0".into(), Value::Object(root));
        for ((at, (mut subscriber, is_folder)), next) in chain.into_iter().enumerate().zip(rest) {
            topics.insert(format!("t{}", at + 1), Value::Object(next));
            subscriber.insert("from".into(), format!("t{at}").into());
            subscriber.insert("plugin".into(), if is_folder { "/there/src" } else { "/there/a.wasm" }.into());
            subscriber.insert("to".into(), json!({ "out": format!("t{}", at + 1) }));
            subscribers.insert(format!("s{at}"), Value::Object(subscriber));
        }
        let topology = json!({ "wattle": "v1", "name": "n", "topics": topics, "subscribers": subscribers });
        (yaml(&topology), variables)
    })
}

fn plan_of(text: &str, world: &dyn Surroundings) -> Result<Plan, String> {
    let source = Source { path: "/there/n.yaml".into(), text: text.to_owned() };
    let (plan, problems) = check(&[source], world);
    plan.ok_or_else(|| problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; "))
}

/// All of it, how variables are written too.
fn all(plan: &Plan) -> String {
    format!("{plan:#?}")
}

fn show_on(plan: &Plan) -> Vec<Source> {
    vec![Source { path: "/there/n.yaml".into(), text: show(plan) }]
}

/// All of it but the names that things had.
fn without_was(plan: &Plan) -> String {
    let mut plan = plan.clone();
    plan.topics.iter_mut().for_each(|topic| topic.renamed_from = None);
    plan.subscribers.iter_mut().for_each(|subscriber| subscriber.renamed_from = None);
    all(&plan)
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("WATTLE_KEPT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    ProptestConfig {
        cases,
        max_global_rejects: 100 * cases + 1_000,
        max_local_rejects: 100 * cases + 65_536,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_plan_comes_back_as_it_was((text, world) in topologies()) {
        let Ok(plan) = plan_of(&text, &world) else { return Err(TestCaseError::reject("it is no topology")) };
        // as data
        let kept = serde_json::to_string(&PlanRecord::of(&plan, &str::to_owned)).unwrap();
        let read = serde_json::from_str::<PlanRecord>(&kept).unwrap().read(&|sealed| Some(sealed.to_owned())).unwrap();
        prop_assert_eq!(all(&read), all(&plan));
        // as a record
        let component = |of: &SubscriberPlan| Component::File(format!("/there/{}.wasm", of.name).into());
            let components: Vec<Component> = plan.subscribers.iter().map(component).collect();
        let disk = MemoryDisk::default();
        let (engine, mut store) = (MemoryEngine::default(), Store::open(disk.clone(), Arc::new(SystemClock)).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(adopt(&engine, &mut store, &plan, &components, (false, &[]))).unwrap();
        let (read, files) = Store::open(disk, Arc::new(SystemClock)).unwrap().topology().unwrap();
        prop_assert_eq!((all(&read), files), (all(&plan), components.clone()));
        // as a client sends it
        let (read, files) = Proposal::of(&plan, &components).read().unwrap();
        prop_assert_eq!((all(&read), files), (all(&plan), components));
        // as what is applied, on top of which nothing is said, or its own texts are
        let base = Base::of(&plan, |_| true);
        let nothing = Source { path: "n.yaml".into(), text: "wattle: v1\nname: n\n".into() };
        let own = show_on(&plan);
        for (sources, prune) in [(vec![nothing], false), (own.clone(), false), (own, true)] {
            let (merged, problems) = check_on(&sources, &world, &base, prune);
            prop_assert!(merged.is_some(), "{:?}\n{:?}", problems, base.documents);
            let merged = merged.unwrap().with_applied(&plan).plan;
            prop_assert_eq!(without_was(&merged), without_was(&plan), "{:?}", base.documents);
        }
        // as it is shown
        let shown = plan_of(&show(&plan), &world);
        prop_assert_eq!(shown.as_ref().map(all), Ok(all(&plan)), "{}", show(&plan));
    }
}

#[test]
fn most_of_what_is_tried_are_topologies() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut refused, mut count) = (BTreeMap::<String, u32>::new(), 0);
    for _ in 0..300 {
        let (text, world) = topologies().new_tree(&mut runner).unwrap().current();
        match plan_of(&text, &world) {
            Ok(_) => count += 1,
            Err(why) => *refused.entry(why).or_default() += 1,
        }
    }
    assert!(count > 100, "{count} of 300: {refused:#?}");
}
