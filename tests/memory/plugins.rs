//! What the process holds stays within what plugins may use.

use wattle::model::call::{CallErrorKind, Limits};

use crate::alone::is_alone;
use crate::common::plugin_calls::{call, host, sent, spec};

const MIB: u64 = 1 << 20;

/// The most memory that the process ever held since the mark was reset, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[tokio::test]
async fn a_plugin_that_eats_memory_costs_its_limit_and_no_more() {
    if !is_alone("plugins::a_plugin_that_eats_memory_costs_its_limit_and_no_more") {
        return;
    }
    let limit = 32 * MIB;
    let mut spec = spec("hostile", &["out"]);
    spec.limits = Limits { memory_bytes: limit, ..Limits::default() };
    let plugin = host().register(spec).unwrap();
    for _ in 0..10 {
        call(&plugin, &[sent("a", "echo a"), sent("b", "grow 100000")]).await.0.unwrap();
    }

    reset_peak();
    let before = peak_bytes();
    for data in ["grow 30000000", "grow 40000000", "grow 4000000000", "recurse 1000000000", "return 1073741824"] {
        for _ in 0..5 {
            let (handled, _) = call(&plugin, &[sent("a", data)]).await;
            if data != "grow 30000000" {
                let kind = handled.unwrap_err().kind;
                assert!(matches!(kind, CallErrorKind::Memory | CallErrorKind::Trap), "{data}: {kind:?}");
            }
        }
    }
    let more = peak_bytes().saturating_sub(before);
    assert!(more <= limit + MIB, "the process grew by {more} bytes; the plugin may use {limit}");
    assert!(more > limit / 2, "the plugin did use its memory: {more}");
}
