//! The names of functions, as a trap tells them.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use wattle::model::call::{CallError, CallErrorKind, Limits};
use wattle::wasm::{Host, PluginSpec, RegisterError};

use crate::common::components::{logging_at_start, quoted, trapping};
use crate::common::guests::guest;
use crate::common::plugin_calls::{call_on, host, sent};

static HOST: LazyLock<Host> = LazyLock::new(host);

pub(crate) fn spec(wasm: Vec<u8>) -> PluginSpec {
    PluginSpec {
        subscriber: "odd".into(),
        wasm,
        config: BTreeMap::new(),
        hidden: BTreeMap::new(),
        ports: vec![],
        limits: Limits::default(),
    }
}

/// What a call says of a component that traps in functions of these names, and how long it took.
async fn trapped(names: &[&str]) -> (CallError, Duration) {
    let plugin = HOST.register(spec(trapping(names))).unwrap();
    let mut lease = plugin.instance().await.unwrap();
    let start = Instant::now();
    let (handled, _) = call_on(&mut lease, &[sent("a", "x")]).await;
    (handled.unwrap_err(), start.elapsed())
}

/// A name of C++ that is this many doublings longer when it is written out, and is referred to this often.
fn doubled(doublings: usize, references: usize) -> String {
    let mut name = "_Z1f1AIiiE".to_owned();
    let number = |n: usize| char::from_digit(u32::try_from(n).unwrap(), 36).unwrap().to_ascii_uppercase();
    for n in 0..doublings {
        name += &format!("S_IS{0}_S{0}_E", number(n));
    }
    name + &format!("S{}_", number(doublings)).repeat(references)
}

#[tokio::test]
async fn a_name_that_would_be_long_when_it_is_written_out_is_not_written_out() {
    let name = doubled(12, 1_000);
    let (error, took) = trapped(&[name.as_str(); 3]).await;
    assert_eq!(error.kind, CallErrorKind::Trap, "{error}");
    let backtrace = error.backtrace.unwrap();
    assert!(backtrace.len() < 16 << 10, "{} bytes", backtrace.len());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_name_is_cut_and_cannot_look_like_other_lines() {
    let long = "n".repeat(99_000);
    let mangled = "_RNvNtCs1234_7mycrate3foo3bar";
    let names = ["two\n9: 0x1 - forged!line", &long, mangled, "\u{1b}[2J"];
    let (error, _) = trapped(&names).await;
    let backtrace = error.backtrace.unwrap();
    let lines: Vec<&str> = backtrace.lines().collect();
    assert_eq!(lines.len(), names.len() + 1, "with `handle`: {backtrace}");
    assert!(backtrace.len() < 4 << 10 && !backtrace.contains(|c: char| c.is_control() && c != '\n'), "{backtrace:?}");
    assert!(lines[0].ends_with("!\\u{1b}[2J"), "{backtrace}");
    assert!(lines[1].ends_with("!mycrate::foo::bar"), "{backtrace}");
    assert!(lines[2].ends_with("nn…"), "it is cut: {backtrace}");
    assert!(lines[3].ends_with("two\\n9: 0x1 - forged!line"), "{backtrace}");
}

/// What breaks the contract fails in the middle of functions, too, and is told in other words than a trap.
#[tokio::test]
async fn a_refused_request_is_told_without_the_names_of_functions() {
    let name = quoted(&doubled(12, 1_000));
    // 4 GiB of log line.
    let text = logging_at_start(&format!(
        "(func (@name \"{name}\") (call 0 (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 0) (i32.const -1)))"
    ));
    let start = Instant::now();
    let error = HOST.register(spec(text)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(matches!(error, RegisterError::DoesNotStart { .. }), "{error}");
    let error = error.to_string();
    assert!(error.len() < 1 << 10 && error.contains("it broke the contract"), "{error}");
}

#[test]
fn names_of_what_is_imported_and_exported_are_cut_and_counted() {
    let long = "x".repeat(20_000);
    let imports: String = (0..100).map(|n| format!("(import \"{long}{n}\" (func))")).collect();
    let handler = r#"(instance $handler) (export "wattle:plugin/handler@0.1.0" (instance $handler))"#;
    let error = HOST.register(spec(wat::parse_str(format!("(component {imports} {handler})")).unwrap())).unwrap_err();
    assert!(matches!(error, RegisterError::Imports { .. }));
    assert!(error.to_string().len() < 16 << 10, "{} bytes", error.to_string().len());
    assert!(error.to_string().ends_with("and 80 more"), "{error}");

    let exports: String = (0..100).map(|n| format!("(export \"{long}{n}\" (instance $i))")).collect();
    let error =
        HOST.register(spec(wat::parse_str(format!("(component (instance $i) {exports})")).unwrap())).unwrap_err();
    assert!(error.to_string().len() < 16 << 10 && error.to_string().contains("and 80 more"), "{error}");
}

#[test]
fn a_section_is_quoted_as_far_as_a_number_may_be() {
    let version = "x".repeat(10_000_000);
    let text = format!("(component (@custom \"wattle:state-version\" \"{version}\"))");
    let error = HOST.register(spec(wat::parse_str(text).unwrap())).unwrap_err();
    assert!(matches!(error, RegisterError::StateVersion { .. }));
    assert!(error.to_string().len() < 1 << 10, "{} bytes", error.to_string().len());
}

/// Ports that a plugin describes.
fn described(ports: &str) -> String {
    let config = BTreeMap::from([("describe".to_owned(), ports.to_owned())]);
    let limits = Limits { memory_bytes: 256 << 20, time: Duration::from_secs(60), ..Limits::default() };
    let hostile = PluginSpec { config, limits, ..spec(guest("hostile")) };
    HOST.register(hostile).unwrap_err().to_string()
}

#[test]
fn a_plugin_describes_as_many_ports_as_somebody_may_connect() {
    described("a"); // compiled
    let start = Instant::now();
    let message = described("many 200000");
    assert!(message.contains("200000 ports, and at most 1000"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let message = described("many 1000");
    assert!(message.len() < 4 << 10 && message.contains("`port-19`, and 980 more"), "{message}");
}

#[test]
fn a_port_has_a_name_that_a_topology_can_have() {
    let message = described(&"x".repeat(1_000_000));
    assert!(message.len() < 1 << 10 && message.contains("which no topology can name"), "{message}");
    assert!(described("a \u{7}").contains("\\u{7}"));
}

#[tokio::test]
#[ignore = "measures"]
async fn what_names_cost_is_measured_by_hand() {
    for refs in [1, 100, 1_000, 3_000] {
        let name = doubled(12, refs);
        let (error, took) = trapped(&[name.as_str(); 3]).await;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        println!("name {} bytes, backtrace {} bytes, {took:?}, {peak}", name.len(), error.backtrace.unwrap().len());
    }
}
