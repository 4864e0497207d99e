//! The example plugins through the host, as dispatch calls them.

use std::collections::BTreeMap;

use wattle::model::call::{Action, Output};
use wattle::wasm::{Host, HostOptions, Plugin};

use crate::common::plugin_calls::{START_NS, Sent, call, call_on, host, sent, spec};

const ORDER: &str = r#"{"order_id":"o-1","status":"paid","currency":"EUR","customer":{"name":"Ada","email":"ada@example.test"},
    "items":[{"sku":"lamp","qty":2,"price_cents":1999}],"total_cents":3998}"#;

#[tokio::test]
async fn a_batch_gives_outputs_by_port_up_to_the_first_failure() {
    let plugin = host().register(spec("validate", &["refused", "accepted"])).unwrap();
    let wrong = ORDER.replace("3998", "1");
    let events = [sent("a", ORDER), sent("b", wrong), sent("c", "no order"), sent("d", ORDER)];

    let (handled, _) = call(&plugin, &events).await;

    let handled = handled.unwrap();
    let [accepted, refused] = handled.outputs.as_slice() else { panic!("{handled:?}") };
    assert_eq!((accepted.event, accepted.port, accepted.r#type.as_str()), (0, 1, "order.accepted"));
    assert_eq!(accepted.data, ORDER.as_bytes());
    assert_eq!((refused.event, refused.port, refused.content_type.as_str()), (1, 0, "application/json"));
    let failed = handled.failure().unwrap();
    assert_eq!((failed.event, failed.action), (2, Action::Reject));
    assert!(failed.reason.contains("expected ident at line 1"), "{}", failed.reason);
}

/// What a clock, a random generator and a sleep say follows from the event, not from where and when it runs.
#[tokio::test]
async fn the_same_event_gives_the_same_bytes_in_any_batch_and_instance() {
    let host = host();
    let events = (0..12_u64)
        .map(|n| Sent {
            time_ns: START_NS + n * 7_000_000_001,
            ..sent(&format!("e{n}"), if n % 3 == 0 { "sleep 1500" } else { "look" })
        })
        .collect::<Vec<_>>();
    let whole = run(&host.register(spec("hostile", &["out"])).unwrap(), &events, &[12]).await;
    assert_eq!(whole.len(), 12);
    for sizes in [&[1; 12][..], &[5, 7], &[11, 1], &[3, 3, 3, 3]] {
        let again = run(&host.register(spec("hostile", &["out"])).unwrap(), &events, sizes).await;
        assert_eq!(again, whole, "in batches of {sizes:?}");
    }
}

/// Outputs of events in batches of these sizes, each on another instance than the one before.
async fn run(plugin: &Plugin, events: &[Sent], sizes: &[usize]) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut leases = Vec::new();
    let mut rest = events;
    for size in sizes {
        let (batch, later) = rest.split_at(*size);
        // Others are kept, up to what a plugin may have, so that this one is fresh.
        if leases.len() == 2 {
            leases.clear();
        }
        let mut lease = plugin.instance().await.unwrap();
        let (handled, _) = call_on(&mut lease, batch).await;
        leases.push(lease);
        outputs.extend(handled.unwrap().outputs.into_iter().map(|output| Output { event: 0, ..output }));
        rest = later;
    }
    outputs
}

#[tokio::test]
async fn a_handler_sees_the_events_world_and_nothing_of_the_machine() {
    let plugin = host().register(spec("hostile", &["out"])).unwrap();
    let (handled, _) = call(&plugin, &[Sent { time_ns: START_NS + 5, ..sent("e", "look") }]).await;
    let seen = String::from_utf8(handled.unwrap().outputs.remove(0).data).unwrap();
    for words in [
        "wall 1767225600.000000005s",
        "passed 1µs",
        "event 1767225600000000005",
        "environment 0",
        "file Err(",
        "written Err(",
        "input \"\"",
        "ports [\"out\"]",
        r#"attributes "id=e\nsource=/test\nsubject=about e\n""#,
    ] {
        assert!(seen.contains(words), "{words} is not in: {seen}");
    }
}

/// The synchronous part of WASI 0.3 is that of 0.2 under other names.
#[tokio::test]
async fn clocks_and_random_numbers_of_wasi_0_3_are_those_of_the_event_too() {
    let plugin = host().register(spec("hostile", &["out"])).unwrap();
    let at = |data: &str| Sent { time_ns: START_NS + 5, ..sent("e", data) };
    let random = call(&plugin, &[at("random 32")]).await.0.unwrap().outputs.remove(0).data;
    let number = |at: usize| u64::from_le_bytes(random[at..at + 8].try_into().unwrap());
    let seen = call(&plugin, &[sent("d", "later"), at("later")]).await.0.unwrap().outputs.remove(1).data;
    let seen = String::from_utf8(seen).unwrap();
    for words in [
        "wall 1767225600.000000005 passed 1000 resolutions (1, 1)",
        &format!("random {:?} {} insecure {:?} {} seed", &random[..8], number(8), &random[16..18], number(18)),
        "seed (8602284806637953128, 7022070732585002340)",
    ] {
        assert!(seen.contains(words), "{words} is not in: {seen}");
    }
}

#[tokio::test]
async fn sleeping_moves_the_clocks_at_once_and_only_for_its_event() {
    let plugin = host().register(spec("hostile", &["out"])).unwrap();
    let hour = sent("a", "sleep 3600000");
    let (handled, _) = call(&plugin, &[hour.clone(), sent("b", "sleep 5"), hour]).await;
    let slept = handled.unwrap().outputs.into_iter().map(|output| String::from_utf8(output.data).unwrap());
    assert_eq!(slept.collect::<Vec<_>>(), ["3600000 3600000", "5 5", "3600000 3600000"]);
}

#[tokio::test]
async fn hash_seeds_are_the_same_in_every_instance() {
    let plugin = host().register(spec("hostile", &["out"])).unwrap();
    let first = run(&plugin, &[sent("a", "order"), sent("b", "order")], &[1, 1]).await;
    assert_eq!(first[0].data, first[1].data);
}

#[tokio::test]
async fn who_asks_for_more_instances_than_there_are_waits() {
    let options = HostOptions { instances_per_plugin: 2, ..HostOptions::default() };
    let plugin = Host::new(options).unwrap().register(spec("hostile", &["out"])).unwrap();
    let (first, second) = (plugin.instance().await.unwrap(), plugin.instance().await.unwrap());
    let waiting = tokio::spawn({
        let plugin = plugin.clone();
        async move { call(&plugin, &[sent("a", "echo a")]).await.0 }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
    drop(second);
}

/// Memory for two instances at once: idle ones of one plugin go when another needs their room, and who finds all in use
/// waits.
#[tokio::test]
async fn plugins_share_the_memory_budget_and_wait_instead_of_failing() {
    let options = HostOptions { memory_budget_bytes: 2 * (64 << 20), ..HostOptions::default() };
    let host = Host::new(options).unwrap();
    let plugins = [("validate", &["accepted", "refused"][..]), ("hostile", &["out"]), ("notify", &["sent"])]
        .map(|(name, ports)| host.register(spec(name, ports)).unwrap());
    for _ in 0..3 {
        for plugin in &plugins {
            let leases = (plugin.instance().await.unwrap(), plugin.instance().await.unwrap());
            drop(leases);
        }
    }
    let (first, _second) = (plugins[0].instance().await.unwrap(), plugins[1].instance().await.unwrap());
    let waiting = tokio::spawn({
        let plugin = plugins[2].clone();
        async move { plugin.instance().await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn settings_reach_the_plugin_and_one_that_does_not_fit_is_named() {
    let inventory = |stock: &str| {
        let mut spec = spec("inventory", &["reserved", "short"]);
        spec.config.insert("stock".into(), stock.into());
        host().register(spec).unwrap()
    };
    let (handled, _) = call(&inventory("lamp=1"), &[sent("a", ORDER)]).await;
    assert_eq!(handled.unwrap().outputs[0].data, br#"{"order_id":"o-1","missing":[{"sku":"lamp","qty":1}]}"#);
    let (handled, _) = call(&inventory("lamp"), &[sent("a", ORDER)]).await;
    let failed = handled.unwrap().failure().unwrap();
    assert_eq!((failed.action, failed.reason.as_str()), (Action::Retry(None), "stock: `lamp` is not like `lamp=40`"));
}

/// The tree of `topologies/orders.yaml`, by hand: what each plugin makes of the sample orders.
#[tokio::test]
async fn the_sample_orders_are_accepted_refused_rejected_and_one_makes_a_plugin_trap() {
    let host = host();
    let register = |name: &str, ports: &[&str]| host.register(spec(name, ports)).unwrap();
    let validate = register("validate", &["accepted", "refused"]);
    let inventory = register("inventory", &["reserved", "short"]);
    let shipping = register("shipping", &["shipped"]);
    let notify = register("notify", &["sent"]);

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/orders.ndjson");
    let orders = std::fs::read_to_string(path).unwrap();
    let orders = orders.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let orders = orders.map(|event| event["data"].to_string()).collect::<Vec<_>>();

    let (accepted, rejected, trapped) = each(&validate, &orders).await;
    assert_eq!((orders.len(), accepted[&0].len(), accepted[&1].len(), rejected, trapped), (742, 696, 44, 2, 0));
    let (stock, rejected, trapped) = each(&inventory, &accepted[&0]).await;
    assert_eq!((stock[&0].len(), stock[&1].len(), rejected, trapped), (178, 2, 0, 1));
    let (parcels, ..) = each(&shipping, &stock[&0]).await;
    let (messages, ..) = each(&notify, &parcels[&0]).await;
    assert_eq!((parcels[&0].len(), messages[&0].len()), (195, 195));
}

/// Handles events one by one: the data of its outputs by port, how many were rejected, and how many made it trap.
async fn each(plugin: &Plugin, events: &[String]) -> (BTreeMap<u32, Vec<String>>, usize, usize) {
    let mut ports = BTreeMap::<u32, Vec<String>>::new();
    let (mut rejected, mut trapped) = (0, 0);
    for event in events {
        match call(plugin, &[sent("x", event.as_str())]).await.0 {
            Err(error) => {
                let words = "panicked at inventory/src/lib.rs:";
                assert!(error.message.contains(words) && error.message.ends_with("overflow"), "{error}");
                trapped += 1;
            }
            Ok(handled) => {
                rejected += usize::from(handled.failure().is_some());
                for output in handled.outputs {
                    ports.entry(output.port).or_default().push(String::from_utf8(output.data).unwrap());
                }
            }
        }
    }
    (ports, rejected, trapped)
}
