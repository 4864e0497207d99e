//! What a good topology becomes: the plan, its defaults, what is shown of it and the pictures.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wattle::model::{Compression, Dedupe, Retention, TopicSettings};
use wattle::topology::{
    BatchPlan, Condition, ConfigValue, Delivery, Limits, OnFailure, OutOfOrder, PathKind, Per, Plan, PluginSource,
    Rate, Retry, RetryQueue, Source, StatePlan, SubscriberKind, SubscriberPlan, Surroundings, TrialPlan, check, draw,
    show,
};

/// A world in which every folder is a plugin and every file exists.
struct GenerousWorld;

impl Surroundings for GenerousWorld {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "PARTITIONS").then(|| "3".to_owned())
    }

    fn at(&self, path: &Path) -> PathKind {
        match path.extension() {
            Some(_) => PathKind::File,
            None => PathKind::Folder { manifest: true },
        }
    }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.to_owned() }
}

fn plan_of(sources: &[Source]) -> Plan {
    let (plan, diagnostics) = check(sources, &GenerousWorld);
    assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    plan.unwrap()
}

fn orders() -> Plan {
    let text = include_str!("../../topologies/orders.yaml");
    plan_of(&[source("topologies/orders.yaml", text)])
}

#[test]
fn the_order_system_is_one_tree_with_parents_first() {
    let plan = orders();
    let names: Vec<_> = plan.topics.iter().map(|topic| topic.name.as_str()).collect();
    let expected = [
        "orders",
        "orders.accepted",
        "orders.refused",
        "validate.dead",
        "stock.reserved",
        "stock.short",
        "inventory.dead",
        "parcels",
        "shipping.dead",
        "messages",
        "notify.dead",
    ];
    assert_eq!(names, expected);
    let names: Vec<_> = plan.subscribers.iter().map(|subscriber| subscriber.label()).collect();
    assert_eq!(names, ["shop/validate", "shop/inventory", "shop/shipping", "shop/notify"]);
    for (index, topic) in plan.topics() {
        assert_eq!(topic.partitions, 8, "{}: partitions come from the root", topic.name);
        if let Some(parent) = topic.parent {
            assert!(plan[parent].from < index, "{}: parents come first", topic.name);
        }
    }
    let validate = &plan.subscribers[0];
    let dead = validate.dead_letters.unwrap();
    assert_eq!(plan[dead].dead_letters_of, plan[dead].parent);
    assert_eq!(plan[plan[dead].parent.unwrap()].name, "validate");
    let ports: Vec<_> =
        validate.ports.iter().map(|(port, topic)| (port.as_str(), plan[*topic].name.as_str())).collect();
    assert_eq!(ports, [("accepted", "orders.accepted"), ("refused", "orders.refused")]);
    assert_eq!(validate.runs, SubscriberKind::Plugin(PluginSource::Folder("topologies/../plugins/validate".into())));
    assert_eq!(plan.topics[0].key.as_ref().unwrap().text(), "data.order_id");
}

#[test]
fn what_is_not_said_has_its_default() {
    let plan =
        plan_of(&[source("t.yaml", "wattle: v1\nname: n\ntopics: { t: }\nsubscribers: { s: { from: t, plugin: p } }")]);
    let subscriber = &plan.subscribers[0];
    let (time, log_lines_per_second) = (Duration::from_secs(1), 100);
    let limits = Limits { memory_bytes: 64 << 20, time, output_bytes: 1 << 20, log_lines_per_second };
    let (initial, max) = (Duration::from_millis(100), Duration::from_secs(30));
    assert_eq!(subscriber.limits, limits);
    assert_eq!(subscriber.retry, Retry { attempts: 5, initial, max, factor: 2.0 });
    assert_eq!((subscriber.on_failure, subscriber.delivery), (OnFailure::DeadLetter, Delivery::ExactlyOnce));
    assert_eq!(subscriber.config, BTreeMap::new());
    assert_eq!(subscriber.retry_queue, RetryQueue { max_events: 10_000, max_bytes: 16 << 20 });
    assert_eq!(subscriber.batch, BatchPlan { max_events: 256, max_bytes: 1 << 20, wait: None });
    assert_eq!(subscriber.state, StatePlan { ttl: None, max_bytes: 256 << 20 });
    assert_eq!((&subscriber.when, subscriber.rate, subscriber.concurrency), (&None, None, None));
    assert_eq!(plan.topics.iter().map(|topic| topic.partitions).collect::<Vec<_>>(), [1, 1]);
    assert!(plan.topics[0].key.is_none());
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of a plan's topics by name.
fn settings(plan: &Plan) -> BTreeMap<&str, TopicSettings> {
    plan.topics.iter().map(|topic| (topic.name.as_str(), topic.settings)).collect()
}

/// What a root says of how it keeps its events, as YAML, and what that means for one with eight partitions.
fn settings_of(yaml: &str) -> TopicSettings {
    let text = format!(
        "wattle: v1\nname: n\ntopics: {{ t: {{ partitions: 8, {yaml} }} }}\n\
         subscribers: {{ s: {{ from: t, plugin: p }} }}"
    );
    let plan = plan_of(&[source("t.yaml", &text)]);
    assert_eq!(plan_of(&[source("", &show(&plan))]), plan, "{yaml}: what is shown means the same");
    plan.topics[0].settings
}

#[test]
fn a_topic_that_does_not_say_how_it_keeps_events_has_defaults() {
    let text = "wattle: v1\nname: n\ntopics: { root: {}, child: {} }\n\
                subscribers: { s: { from: root, plugin: p, to: [child] }, t: { from: child, plugin: p } }";
    let plan = plan_of(&[source("t.yaml", text)]);
    let retention = Retention { age: Some(7 * DAY), partition_bytes: None, force: false };
    let child = TopicSettings { retention, ..TopicSettings::default() };
    let dedupe = Dedupe { window: Duration::from_secs(120), count: None };
    let root = TopicSettings { dedupe: Some(dedupe), ..child };
    assert_eq!(settings(&plan), [("root", root), ("child", child), ("s.dead", child), ("t.dead", child)].into());
}

#[test]
fn a_bound_that_is_given_stands_alone() {
    let retention = |age, partition_bytes, force| Retention { age, partition_bytes, force };
    let of = |yaml: &str| settings_of(yaml).retention;
    assert_eq!(of("retention: { age: 1h }"), retention(Some(DAY / 24), None, false));
    assert_eq!(of("retention: { size: 8GiB }"), retention(None, Some(1 << 30), false), "any age");
    assert_eq!(of("retention: { age: 30d, size: 8GiB }"), retention(Some(30 * DAY), Some(1 << 30), false));
    assert_eq!(of("retention: { force: true }"), retention(Some(7 * DAY), None, true), "force is no bound");
    assert_eq!(of("retention:"), retention(Some(7 * DAY), None, false));
}

#[test]
fn the_size_of_a_topic_is_divided_among_its_partitions() {
    let partition_bytes = |yaml: &str| settings_of(yaml).retention.partition_bytes;
    assert_eq!(partition_bytes("retention: { size: 80B }"), Some(10));
    assert_eq!(partition_bytes("retention: { size: 87B }"), Some(10), "the topic never becomes larger");
    assert_eq!(partition_bytes("retention: { size: 1B }"), Some(1), "a bound of nothing could not be kept to");
    // A child that does not say has as many partitions as its parent, which only the tree knows.
    let text = "wattle: v1\nname: n\ntopics: { root: { partitions: 4 }, child: { retention: { size: 4MiB } } }\n\
                subscribers: { s: { from: root, plugin: p, to: [child] }, t: { from: child, plugin: p } }";
    let plan = plan_of(&[source("t.yaml", text)]);
    assert_eq!(settings(&plan)["child"].retention.partition_bytes, Some(1 << 20));
    assert_eq!(plan_of(&[source("", &show(&plan))]), plan);
}

#[test]
fn dedupe_has_a_default_for_what_it_does_not_say_and_can_be_off() {
    let dedupe = |yaml: &str| settings_of(yaml).dedupe;
    let of = |seconds, count| Some(Dedupe { window: Duration::from_secs(seconds), count });
    assert_eq!(dedupe("dedupe: { window: 10m }"), of(600, None));
    assert_eq!(dedupe("dedupe: { count: 1000000 }"), of(120, Some(1_000_000)));
    assert_eq!(dedupe("dedupe: { window: 1h, count: 1 }"), of(3_600, Some(1)));
    assert_eq!(dedupe("dedupe: {}"), of(120, None));
    assert_eq!(dedupe("dedupe:"), of(120, None));
    assert_eq!(dedupe("dedupe: off"), None);
    assert_eq!(dedupe("dedupe: 'off'"), None);
    assert_eq!(dedupe("dedupe: '${DEDUPE:-off}'"), None);
}

#[test]
fn compression_is_asked_for() {
    assert_eq!(settings_of("compression: lz4").compression, Compression::Lz4);
    assert_eq!(settings_of("compression: none").compression, Compression::None);
}

/// A subscriber of which so much is said, as YAML.
fn subscriber_of(yaml: &str) -> SubscriberPlan {
    let text = format!("wattle: v1\nname: n\ntopics: {{ t: }}\nsubscribers: {{ s: {{ from: t, plugin: p, {yaml} }} }}");
    let plan = plan_of(&[source("t.yaml", &text)]);
    assert_eq!(plan_of(&[source("", &show(&plan))]), plan, "{yaml}: what is shown means the same");
    plan.subscribers[0].clone()
}

#[test]
fn a_condition_is_compiled_with_the_topology() {
    let when = |yaml: &str| subscriber_of(yaml).when;
    assert_eq!(when("when: data.amount > 100"), Some(Condition::compile("data.amount > 100").unwrap()));
    assert_eq!(when("when: 'has(data.vip) && data.vip'").unwrap().text(), "has(data.vip) && data.vip");
    assert_eq!(when("when: true").unwrap().text(), "true");
}

#[test]
fn how_fast_events_are_taken_can_be_bounded() {
    let rate = |yaml: &str| subscriber_of(yaml).rate.unwrap();
    let of = |events, per| Rate { events: NonZeroU32::new(events).unwrap(), per };
    assert_eq!(rate("rate: 100/s"), of(100, Per::Second));
    assert_eq!(rate("rate: 30 / m"), of(30, Per::Minute));
    assert_eq!(rate("rate: 7/h"), of(7, Per::Hour));
    assert_eq!(rate("rate: 30/m").per_second(), 0.5);
    assert_eq!(subscriber_of("concurrency: 4").concurrency, NonZeroU32::new(4));
    let batch = |yaml: &str| subscriber_of(yaml).batch;
    let wait = Some(Duration::from_millis(5));
    assert_eq!(batch("batch: { max: 16 }"), BatchPlan { max_events: 16, ..BatchPlan::default() });
    assert_eq!(batch("batch: { size: 64KiB, wait: 5ms }"), BatchPlan { max_events: 256, max_bytes: 64 << 10, wait });
}

#[test]
fn what_waits_and_what_is_kept_can_be_bounded() {
    let waiting = subscriber_of("retry_queue: { max: 5, size: 1GiB }").retry_queue;
    assert_eq!(waiting, RetryQueue { max_events: 5, max_bytes: 1 << 30 });
    let state = subscriber_of("state: { ttl: 30d, max: 1GiB }").state;
    assert_eq!(state, StatePlan { ttl: Some(30 * DAY), max_bytes: 1 << 30 });
}

#[test]
fn what_is_delivered_at_most_once_is_tried_once_and_alone() {
    let (least, most) = (subscriber_of("delivery: at_least_once"), subscriber_of("delivery: at_most_once"));
    assert_eq!((least.delivery, least.retry.attempts, least.batch.max_events), (Delivery::AtLeastOnce, 5, 256));
    assert_eq!((most.delivery, most.retry.attempts, most.batch.max_events), (Delivery::AtMostOnce, 1, 1));
    assert_eq!(subscriber_of("delivery: at_most_once, retry: { attempts: 1 }, batch: { max: 1 }"), most);
}

#[test]
fn only_who_halts_has_no_dead_letters() {
    let dead = |yaml: &str| {
        let subscriber = subscriber_of(yaml);
        (subscriber.on_failure, subscriber.dead_letters.is_some())
    };
    assert_eq!(dead("on_failure: dead_letter"), (OnFailure::DeadLetter, true));
    assert_eq!(dead("on_failure: park"), (OnFailure::Park, true), "what is rejected goes there");
    assert_eq!(dead("on_failure: halt"), (OnFailure::Halt, false));
}

const EVERYTHING: &str = r#"
wattle: v1
name: all
topics:
  in:
    partitions: "${PARTITIONS}"
    key: 'data["a b"].c + "$"'
    id: data.order + '/' + data.status
    retention: { age: 1h30m, size: 10GiB, force: true }
    dedupe: { window: 10m, count: 7 }
    producers: { forget: 30d }
    compression: lz4
  out: { partitions: 5, retention: { size: 1GB }, renamed_from: outputs }
  same: {}
  repaired: {}
subscribers:
  busy:
    from: in
    plugin: ../plugins/busy.wasm
    when: 'data.price != "$$5"'
    to: { a: out, b: out, c: same }
    config: { text: EUR, number: 1.50, flag: no, empty: "", money: $$5, secret: { file: secrets/key.txt } }
    limits: &limits { memory: 256MiB, time: 1m30s, output: 1B, log: 7 }
    retry: { attempts: 1, backoff: { initial: 1h, factor: 1.5 } }
    on_failure: dead_letter
    retry_queue: { max: 7, size: 2MiB }
    delivery: exactly_once
    rate: 30/m
    concurrency: 2
    capsules: 3
    trial: { events: 3, for: 0s, at_most: 7m }
    batch: { max: 2, size: 1KiB, wait: 1s }
    state: { ttl: 1d, max: 1KiB }
    start: start
    renamed_from: idle
  repair:
    from: busy.dead
    plugin: repair
    to: [repaired]
    limits: { <<: *limits, time: 2s }
"#;

#[test]
fn what_is_said_counts() {
    let plan = plan_of(&[source("some/folder/t.yaml", EVERYTHING)]);
    let busy = &plan.subscribers[0];
    assert_eq!(busy.runs, SubscriberKind::Plugin(PluginSource::Wasm("some/folder/../plugins/busy.wasm".into())));
    let text = |text: &str| ConfigValue::Text(text.into());
    let expected = [
        ("empty", text("")),
        ("flag", text("no")),
        ("money", text("$5")),
        ("number", text("1.50")),
        ("secret", ConfigValue::SecretFile("secrets/key.txt".into())),
        ("text", text("EUR")),
    ];
    assert_eq!(busy.config, expected.map(|(key, value)| (key.to_owned(), value)).into());
    let (time, log_lines_per_second) = (Duration::from_secs(90), 7);
    assert_eq!(busy.limits, Limits { memory_bytes: 256 << 20, time, output_bytes: 1, log_lines_per_second });
    let at_most = Duration::from_secs(7 * 60);
    assert_eq!(busy.trial, TrialPlan { events: 3, time: Duration::ZERO, at_most });
    assert_eq!(busy.when.as_ref().unwrap().text(), "data.price != \"$5\"");
    // A longer first pause moves the default of the longest.
    let hour = Duration::from_secs(3_600);
    assert_eq!(busy.retry, Retry { attempts: 1, initial: hour, max: hour, factor: 1.5 });
    assert_eq!(busy.renamed_from.as_deref(), Some("idle"));
    assert_eq!(plan.topics.iter().find_map(|topic| topic.renamed_from.as_deref()), Some("outputs"));
    let repair = &plan.subscribers[1];
    assert_eq!(repair.limits.time, Duration::from_secs(2), "what is written beats what is merged");
    assert_eq!(repair.limits.memory_bytes, 256 << 20, "what is merged counts");
    assert_eq!(plan[repair.from].dead_letters_of, plan[repair.from].parent);
    let partitions: BTreeMap<_, _> = plan.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    let expected = [("in", 3), ("out", 5), ("same", 3), ("busy.dead", 3), ("repaired", 3), ("repair.dead", 3)].into();
    assert_eq!(partitions, expected);
    let to: Vec<_> = busy.ports.iter().map(|(port, topic)| (port.as_str(), plan[*topic].name.as_str())).collect();
    assert_eq!(to, [("a", "out"), ("b", "out"), ("c", "same")], "two ports to one topic are one parent");
}

#[test]
fn files_with_the_same_name_are_one_namespace() {
    let a = source("a.yaml", "wattle: v1\nname: one\ntopics: { t: {} }");
    let b = source("b.yaml", "wattle: v1\nname: one\nsubscribers: { s: { from: t, plugin: p } }");
    let c = source("c.yaml", "wattle: v1\nname: two\ntopics: { t: {} }\nsubscribers: { s: { from: t, plugin: p } }");
    let plan = plan_of(&[c, a, b]);
    let labels: Vec<_> = plan.topics.iter().map(|topic| topic.label()).collect();
    assert_eq!(labels, ["one/t", "one/s.dead", "two/t", "two/s.dead"]);
}

#[test]
fn the_order_of_files_does_not_matter() {
    let a = source("a.yaml", "wattle: v1\nname: n\ntopics: { t: {}, u: {} }");
    let b = source("b.yaml", "wattle: v1\nname: n\nsubscribers: { s: { from: t, plugin: p, to: [u] } }");
    assert_eq!(plan_of(&[a.clone(), b.clone()]), plan_of(&[b, a]));
}

#[test]
fn what_is_shown_is_a_topology_that_means_the_same() {
    let plan = plan_of(&[source("some/folder/t.yaml", EVERYTHING)]);
    let shown = show(&plan);
    assert_eq!(plan_of(&[source("", &shown)]), plan, "{shown}");
    let plan = orders();
    assert_eq!(plan_of(&[source("", &show(&plan))]), plan);
}

#[test]
fn the_schema_is_current() {
    let schemas = [
        ("topology.schema.json", wattle::topology::schema()),
        ("test.schema.json", wattle::topology::cases::schema()),
        ("access.schema.json", wattle::access::schema()),
    ];
    for (name, schema) in schemas {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &schema).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(schema == committed, "{name} is not what the types say; UPDATE_EXPECT=1 writes it");
    }
}

/// The properties of every mapping of the schema, with what describes them.
fn keys(schema: &serde_json::Value, found: &mut Vec<(String, serde_json::Value)>) {
    if let Some(properties) = schema.get("properties").and_then(|properties| properties.as_object()) {
        found.extend(properties.iter().map(|(key, schema)| (key.clone(), schema.clone())));
    }
    match schema {
        serde_json::Value::Object(object) => object.values().for_each(|value| keys(value, found)),
        serde_json::Value::Array(items) => items.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    let schema: serde_json::Value = serde_json::from_str(&wattle::topology::schema()).unwrap();
    let mut found = Vec::new();
    keys(&schema, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for (key, schema) in found {
        let described = schema.get("description").and_then(|text| text.as_str()).is_some_and(|text| !text.is_empty());
        assert!(described, "{key}");
    }
}

const DIVERTS: &str = "
wattle: v1
name: shop
topics:
  orders:
    partitions: 4
    key: data.id
    lifecycle:
      state: data.status
      start: [created]
      allow: { created: [paid] }
      out_of_order: { divert: orders.late }
    dedupe: { window: 1h }
  orders.late: { retention: { size: 4MiB } }
  bills: { partitions: 2, lifecycle: { state: data.s, start: [open], allow: {}, out_of_order: { divert: odd } } }
  odd: {}
  looked: {}
subscribers:
  look: { from: orders.late, plugin: look, to: [looked] }
  bill: { from: orders, plugin: bill, to: [bills] }
";

#[test]
fn what_a_topic_diverts_to_is_its_child() {
    let plan = plan_of(&[source("t.yaml", DIVERTS)]);
    let at = |name: &str| plan.topics().find(|(_, topic)| topic.name == name).unwrap();
    let ((orders, from), (late, to)) = (at("orders"), at("orders.late"));
    assert_eq!((from.diverts_to, to.diverted_from, to.parent), (Some(late), Some(orders), None));
    assert!(from.is_root() && !to.is_root() && late > orders);
    assert_eq!((to.partitions, at("odd").1.partitions, at("looked").1.partitions), (4, 2, 4));
    assert_eq!(to.settings.retention.partition_bytes, Some(1 << 20), "of each of its partitions");
    assert_eq!((to.settings.dedupe, at("odd").1.settings.dedupe), (None, None));
    assert_eq!(from.lifecycle.as_ref().unwrap().out_of_order, OutOfOrder::Divert);
    assert_eq!(plan_of(&[source("t.yaml", &show(&plan))]), plan, "what is shown means the same: {}", show(&plan));
}

#[test]
fn pictures_of_what_is_diverted() {
    let plan = plan_of(&[source("t.yaml", DIVERTS)]);
    let expected = "\
shop
● orders  4 partitions, key data.id
├─ bill  bill
│  └─ ● bills  2 partitions
│     └─ out of order → ● odd
└─ out of order → ● orders.late
   └─ look  look
      └─ ● looked
";
    assert_eq!(draw::text(&plan, false), expected);
    for drawn in [draw::dot(&plan), draw::mermaid(&plan)] {
        assert_eq!(drawn.matches("out of order").count(), 2, "{drawn}");
    }
    assert_eq!(draw::svg(&plan).matches(">out of order<").count(), 2);
    let json: serde_json::Value = serde_json::from_str(&draw::json(&plan)).unwrap();
    let topic = |name: &str| json["topics"].as_array().unwrap().iter().find(|topic| topic["name"] == name).unwrap();
    assert_eq!(topic("shop/orders")["diverts_to"], "shop/orders.late");
    assert_eq!(topic("shop/odd")["diverted_from"], "shop/bills");
}

#[test]
fn pictures_of_the_order_system() {
    let plan = orders();
    let pictures = [
        ("orders.txt", draw::text(&plan, false)),
        ("orders.dot", draw::dot(&plan)),
        ("orders.mermaid", draw::mermaid(&plan)),
        ("orders.svg", draw::svg(&plan)),
        ("orders.json", draw::json(&plan)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topology/pictures");
    for (name, drawn) in pictures {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &drawn).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(drawn == expected, "{name}: expected\n{expected}---- but it is\n{drawn}");
    }
}

#[test]
fn a_colourful_picture_says_the_same() {
    let plan = plan_of(&[source("t.yaml", EVERYTHING)]);
    let colourful = draw::text(&plan, true);
    assert!(colourful.contains('\u{1b}'));
    let mut plain = String::new();
    let mut rest = colourful.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, draw::text(&plan, false));
    assert!(draw::text(&plan, false).contains("dead letters → ● busy.dead"), "subscribed dead letters are drawn");
    assert!(!draw::text(&plan, false).contains("repair.dead"), "others are not");
}

#[test]
fn a_chain_of_ten_thousand_is_no_matter() {
    let mut text = String::from("wattle: v1\nname: chain\ntopics:\n");
    (0..=10_000).for_each(|topic| text += &format!("  t{topic}: {{}}\n"));
    text += "subscribers:\n";
    (0..10_000).for_each(|at| text += &format!("  s{at}: {{ from: t{at}, plugin: p, to: [t{}] }}\n", at + 1));
    let plan = plan_of(&[source("t.yaml", &text)]);
    assert_eq!(plan.subscribers.len(), 10_000);
    for drawn in [draw::text(&plan, false), draw::dot(&plan), draw::svg(&plan), draw::json(&plan), show(&plan)] {
        assert!(drawn.len() > 1_000);
    }
}

/// A world with variables.
struct Environment;

impl Surroundings for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("Hunter_2$x".to_owned()),
            "REGION" => Some("eu".to_owned()),
            _ => None,
        }
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::Folder { manifest: true }
    }
}

/// Whoever looks at a topology, or at what is wrong with it, does not see the environment that it is checked in.
#[test]
fn values_of_variables_are_in_no_message_and_not_shown() {
    let checked = |text: &str| check(&[Source { path: "t.yaml".into(), text: text.to_owned() }], &Environment);
    let told = |value: &str| {
        format!(
            "wattle: v1\nname: n\ntopics: {{ t: {{}} }}\nsubscribers:\n  s:\n    from: t\n    plugin: p\n    \
             config:\n      k: {value}\n"
        )
    };
    for (value, is) in [
        ("\"${TOKEN}\"", "Hunter_2$x"),
        ("\"Bearer ${TOKEN}: $${REGION}\"", "Bearer Hunter_2$x: ${REGION}"),
        ("${NONE:-${REGION}", ""),
    ] {
        let (plan, diagnostics) = checked(&told(value));
        if is.is_empty() {
            assert!(plan.is_none() && !diagnostics.is_empty());
            continue;
        }
        let plan = plan.unwrap();
        let setting = |plan: &Plan| plan.subscribers[0].config["k"].clone();
        assert_eq!(setting(&plan), ConfigValue::Text(is.to_owned()), "a plugin is told what it is");
        let shown = wattle::topology::show(&plan);
        assert!(!shown.contains("Hunter") && shown.contains("${TOKEN}"), "{shown}");
        let (again, _) = checked(&shown);
        assert_eq!(again.as_ref(), Some(&plan), "{shown}");
        assert!(wattle::topology::documents(&plan)[0].contains("Hunter"), "which need no environment");
    }
    for text in [
        "wattle: v1\nname: n\ntopics: { t: { partitions: \"${TOKEN}\" } }\n",
        "wattle: v1\nname: \"${TOKEN}\"\ntopics: { t: {} }\n",
        "wattle: v1\nname: n\ntopics: { t: {} }\nsubscribers: { s: { from: \"${TOKEN}\", plugin: p } }\n",
        "wattle: v1\nname: n\ntopics: { t: { key: \"${TOKEN}\" } }\n",
        "wattle: v1\nname: n\ntopics: { t: { retention: \"x${TOKEN}\" } }\n",
    ] {
        let (_, diagnostics) = checked(text);
        assert!(!diagnostics.is_empty(), "{text}");
        let said = format!("{diagnostics:?}").to_lowercase();
        assert!(!said.contains("hunter"), "{text}: {said}");
    }
}

#[test]
fn events_that_are_recognised_with_their_keys_are_shown_as_they_are_written() {
    let topic = "{ dedupe: { per: key }, lifecycle: { state: data.s, start: [a], allow: { a: [b] } } }";
    let text =
        format!("wattle: v1\nname: n\ntopics:\n  in: {topic}\nsubscribers:\n  s: {{ from: in, plugin: p.wasm }}\n");
    let plan = plan_of(&[source("", &text)]);
    assert!(plan.topics[0].per_key && plan.topics[0].settings.dedupe.is_none());
    assert_eq!(plan_of(&[source("", &show(&plan))]), plan);
}
