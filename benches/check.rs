//! How long does a check take? Of a topology far larger than people write, and of one that wants to take long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has failed"
)]

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use wattle::topology::{EventFields, KeyExpression, PathKind, Source, Surroundings, check};

struct World;

impl Surroundings for World {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::Folder { manifest: true }
    }
}

fn source(text: String) -> Vec<Source> {
    vec![Source { path: "topology.yaml".into(), text }]
}

/// 10,000 topics with 10,000 subscribers: trees of 100 topics, each of which has a subscriber with two ports.
fn large() -> Vec<Source> {
    let mut text = String::from("wattle: v1\nname: large\ntopics:\n");
    for topic in 0..10_000 {
        let key = if topic % 100 == 0 { "partitions: 8, key: data.order_id" } else { "" };
        text += &format!("  topic-{topic}: {{ {key} }}\n");
    }
    text += "subscribers:\n";
    for topic in 0..10_000 {
        text += &format!("  subscriber-{topic}:\n    from: topic-{topic}\n    plugin: ../plugins/p{}\n", topic % 7);
        let children = [2 * (topic % 100) + 1, 2 * (topic % 100) + 2].into_iter().filter(|child| *child < 100);
        let ports: Vec<_> =
            children.map(|child| format!("port{child}: topic-{}", topic - topic % 100 + child)).collect();
        text += &format!("    to: {{ {} }}\n", ports.join(", "));
        text += "    retry: { attempts: 3 }\n";
    }
    source(text)
}

/// A "billion laughs": nine levels of anchors, each ten times the one below.
fn laughs() -> Vec<Source> {
    let mut text = String::from("l0: &l0 [lol]\n");
    for level in 1..=9 {
        text += &format!("l{level}: &l{level} [{}]\n", vec![format!("*l{}", level - 1); 10].join(", "));
    }
    source(text)
}

/// As many values as fit into the longest text.
fn masses() -> Vec<Source> {
    source(format!("[{}]", "a,".repeat((4 << 20) / 2 - 2)))
}

fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let sources = large();
    let (plan, diagnostics) = check(&sources, &World);
    assert!(plan.is_some(), "{diagnostics:?}");
    group.bench_function("10,000 topics and 10,000 subscribers", |bencher| bencher.iter(|| check(&sources, &World)));
    let sources = laughs();
    group.bench_function("a billion laughs", |bencher| bencher.iter(|| check(&sources, &World)));
    let sources = masses();
    group.bench_function("two million values", |bencher| bencher.iter(|| check(&sources, &World)));
    group.finish();
}

fn keys(criterion: &mut Criterion) {
    let data = br#"{"order_id": "o-4711", "customer": {"name": "Jo", "city": "Ulm"}, "items": [
        {"sku": "a-1", "count": 3, "price": 9.5}, {"sku": "b-2", "count": 1, "price": 120}], "status": "created"}"#;
    let attributes = [("tenant", "acme")];
    let event = EventFields {
        id: "e-1",
        source: "/shop",
        kind: "order.created",
        subject: None,
        time: None,
        key: None,
        content_type: Some("application/json"),
        data,
        attributes: &attributes,
    };
    let mut group = criterion.benchmark_group("key");
    for expression in ["data.order_id", "data.order_id + ''", "attributes.tenant"] {
        let key = KeyExpression::compile(expression).expect("an expression");
        group.bench_function(expression, |bencher| bencher.iter(|| key.evaluate(&event)));
    }
    group.finish();
}

criterion_group!(benches, checks, keys);
criterion_main!(benches);
