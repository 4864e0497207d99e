//! Whatever a plugin does harms only the event it is on.

use std::future::Future;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::{Duration, Instant};

use wattle::model::call::{Action, CallErrorKind, Limits, LogLevel};
use wattle::wasm::{Host, Plugin};

use crate::common::plugin_calls::{Sent, call, call_on, host, sent, spec};

static HOST: LazyLock<Host> = LazyLock::new(host);

fn hostile(limits: Limits) -> Plugin {
    let mut spec = spec("hostile", &["out"]);
    spec.limits = limits;
    HOST.register(spec).unwrap()
}

/// Little memory, so that what uses it up does so soon; so much time that a busy machine makes no difference.
fn small() -> Limits {
    Limits { time: Duration::from_secs(60), memory_bytes: 16 << 20, handles: 1_000, ..Limits::default() }
}

/// An event of this data between two good ones.
fn between(data: &str) -> [Sent; 3] {
    [sent("a", "echo a"), sent("b", data), sent("c", "echo c")]
}

/// The bad event is blamed within a batch and alone, in the same words, and the plugin's next call works.
async fn blamed(plugin: &Plugin, data: &str, kind: CallErrorKind, words: &str) {
    for events in [&between(data)[..], &[sent("b", data)]] {
        let (handled, _) = call(plugin, events).await;
        let error = handled.expect_err(data);
        assert_eq!(error.kind, kind, "{data}: {error}");
        let blamed = if events.len() == 1 { 0 } else { 1 };
        assert_eq!(error.event, Some(blamed), "{data}: {error}");
        assert!(error.message.contains(words), "{data}: {error}");
    }
    let (handled, _) = call(plugin, &[sent("a", "echo a"), sent("c", "echo c")]).await;
    assert_eq!(handled.expect("the next call works").outputs.len(), 2, "after {data}");
}

#[tokio::test]
async fn traps_blame_the_event_and_say_what_happened() {
    let plugin = hostile(small());
    blamed(&plugin, "unreachable", CallErrorKind::Trap, "unreachable").await;
    blamed(&plugin, "panic no such shelf", CallErrorKind::Trap, "it panicked at hostile/src/lib.rs:").await;
    blamed(&plugin, "panic no such shelf", CallErrorKind::Trap, ": no such shelf").await;
    blamed(&plugin, "divide 0", CallErrorKind::Trap, "attempt to divide by zero").await;
    blamed(&plugin, "bounds", CallErrorKind::Trap, "out of bounds memory access").await;
    blamed(&plugin, "exit", CallErrorKind::Trap, "it called exit").await;
}

/// Real bindings of a standard library, which has all interfaces of the package with their functions.
#[tokio::test]
async fn a_plugin_that_opens_a_connection_is_told_that_there_is_no_network() {
    let plugin = hostile(small());
    for (does, function) in [
        ("connect 127.0.0.1:80", "create-tcp-socket"),
        ("connect bus.test:80", "instance-network"),
        ("bind 127.0.0.1:0", "create-udp-socket"),
    ] {
        let words = format!("it called `{function}`, but there is no network");
        blamed(&plugin, does, CallErrorKind::Trap, &words).await;
    }
}

#[tokio::test]
async fn a_trap_tells_where_in_the_plugin_it_was() {
    let (handled, _) = call(&hostile(small()), &[sent("a", "panic oh")]).await;
    let backtrace = handled.unwrap_err().backtrace.unwrap();
    assert!(backtrace.contains("hostile"), "{backtrace}");
}

#[tokio::test]
async fn endless_loops_end_with_the_time_of_their_event() {
    let plugin = hostile(Limits { time: Duration::from_millis(400), ..Limits::default() });
    blamed(&plugin, "loop", CallErrorKind::Timeout, "its limit of 400ms").await;
    blamed(&plugin, "clocks", CallErrorKind::Timeout, "its limit of 400ms").await;
}

#[tokio::test]
async fn what_is_too_deep_too_large_or_too_many_ends_the_call() {
    let plugin = hostile(small());
    blamed(&plugin, "deep 1000000000", CallErrorKind::Stack, "nested too deeply").await;
    blamed(&plugin, "recurse 1000000000", CallErrorKind::Trap, "out of bounds memory access").await;
    blamed(&plugin, "grow 1073741824", CallErrorKind::Memory, "its limit is 16777216").await;
    blamed(&plugin, "return 1073741824", CallErrorKind::Memory, "its limit is 16777216").await;
    blamed(&plugin, "return 1048577", CallErrorKind::OutputTooLarge, "more than 1048576 bytes").await;
    blamed(&plugin, "outputs 10001", CallErrorKind::OutputTooLarge, "more than 10000 outputs").await;
    blamed(&plugin, "handles 5000", CallErrorKind::Handles, "handles open").await;
    blamed(&plugin, "random 4000000000", CallErrorKind::Protocol, "4000000000 random bytes at once").await;
}

#[tokio::test]
async fn memory_counts_over_the_life_of_an_instance_and_small_events_still_fit() {
    let plugin = hostile(small());
    let mut lease = plugin.instance().await.unwrap();
    for _ in 0..20 {
        let (handled, _) = call_on(&mut lease, &[sent("a", "grow 4000000")]).await;
        assert_eq!(handled.unwrap().outputs[0].data, b"977");
    }
}

#[tokio::test]
async fn an_answer_larger_than_a_crossing_blames_nobody_until_each_is_alone() {
    let plugin = hostile(Limits { memory_bytes: 256 << 20, ..Limits::default() });
    let (handled, _) = call(&plugin, &between("return 100000000")).await;
    let error = handled.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::OutputTooLarge, None), "{error}");
    let (handled, _) = call(&plugin, &[sent("b", "return 100000000")]).await;
    let error = handled.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::OutputTooLarge, Some(0)), "{error}");
    let (handled, _) = call(&plugin, &[sent("c", "return 1000000")]).await;
    assert_eq!(handled.unwrap().outputs[0].data.len(), 1_000_000);
}

#[tokio::test]
async fn a_batch_whose_answers_are_large_together_is_too_large_without_anyone_to_blame() {
    let plugin = hostile(Limits { memory_bytes: 256 << 20, ..Limits::default() });
    let events = (0..12).map(|n| sent(&n.to_string(), "return 1000000")).collect::<Vec<_>>();
    let (handled, _) = call(&plugin, &events).await;
    let error = handled.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::OutputTooLarge, None), "{error}");
    let (handled, _) = call(&plugin, &events[..4]).await;
    assert_eq!(handled.unwrap().outputs.len(), 4);
}

#[tokio::test]
async fn an_output_that_cannot_be_fails_its_event_and_keeps_those_before() {
    let plugin = hostile(small());
    for (data, words) in [
        ("port 9", "port 9, but the topology connects only 0 `out`"),
        ("attribute Subject=x", "the name \"Subject\" is not 1 to 20 lower-case letters and digits"),
        ("attribute source=/forged", "`source` is not the plugin's to give"),
    ] {
        let (handled, _) = call(&plugin, &between(data)).await;
        let handled = handled.unwrap();
        assert_eq!(handled.outputs.len(), 1, "{data}");
        let failed = handled.failure().unwrap();
        assert_eq!((failed.event, failed.action), (1, Action::Reject), "{data}");
        assert!(failed.reason.contains(words), "{data}: {}", failed.reason);
    }
}

#[tokio::test]
async fn answers_for_events_that_are_not_there_are_not_believed() {
    let plugin = hostile(small());
    for (data, alone) in [("answer 7", Some(0)), ("fail 9", Some(0))] {
        let (handled, _) = call(&plugin, &between(data)).await;
        let error = handled.unwrap_err();
        assert_eq!((error.kind, error.event), (CallErrorKind::Protocol, None), "{data}: {error}");
        let (handled, _) = call(&plugin, &[sent("b", data)]).await;
        assert_eq!(handled.unwrap_err().event, alone, "{data}");
    }
    let (handled, _) = call(&plugin, &between("answer 0")).await;
    assert_eq!(handled.unwrap().outputs.len(), 3, "an event may be answered as long as the order is kept");
}

#[tokio::test]
async fn an_event_cannot_be_named_twice_to_gain_time() {
    let plugin = hostile(small());
    blamed(&plugin, "current 99", CallErrorKind::Protocol, "names event 99").await;
    let (handled, _) = call(&plugin, &between("current 1")).await;
    let error = handled.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::Protocol, Some(1)));
    assert!(error.message.contains("each is to be named once"), "{error}");
}

#[tokio::test]
async fn retries_and_rejections_carry_their_words() {
    let plugin = hostile(small());
    let failure = async |data: &str, attempt| {
        let mut events = between(data);
        events[1].attempt = attempt;
        let (handled, _) = call(&plugin, &events).await;
        let handled = handled.unwrap();
        handled.failure().map(|failed| (handled.outputs.len(), failed.event, failed.action, failed.reason))
    };
    let delay = Some(Duration::from_millis(250));
    assert_eq!(failure("retry 250", 1).await, Some((1, 1, Action::Retry(delay), "later".into())));
    assert_eq!(failure("retry", 1).await, Some((1, 1, Action::Retry(None), "later".into())));
    assert_eq!(failure("reject", 1).await, Some((1, 1, Action::Reject, "never".into())));
    assert_eq!(failure("until 3", 2).await, Some((1, 1, Action::Retry(None), "not yet".into())));
    assert_eq!(failure("until 3", 3).await, None);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_held_to_its_rate() {
    let plugin = hostile(Limits { log_lines_per_second: 10, time: Duration::from_secs(60), ..Limits::default() });
    let start = Instant::now();
    let (handled, context) = call(&plugin, &[sent("a", "log 20000")]).await;
    let windows = start.elapsed().as_secs() + 1;
    handled.unwrap();
    let lines = context.lines.lock().unwrap();
    // Ten lines in each second that the call took, each but the first with a note of how many were dropped.
    assert!(lines.len() as u64 <= 11 * windows, "{} lines in {windows} s", lines.len());
    assert!(lines.len() >= 10);
}

#[tokio::test]
async fn log_lines_belong_to_the_event_that_wrote_them() {
    let plugin = hostile(small());
    let events = [sent("a", "murmur one"), sent("b", "shout two"), sent("c", "line 5000"), sent("d", "log 1")];
    let (handled, context) = call(&plugin, &events).await;
    handled.unwrap();
    let lines = context.lines.lock().unwrap();
    let cut = format!("{}… (904 more bytes)", "x".repeat(4096));
    let expected = [
        (Some(0), LogLevel::Warn, "one".to_owned()),
        (Some(1), LogLevel::Warn, "two".to_owned()),
        (Some(2), LogLevel::Info, cut),
        (Some(3), LogLevel::Info, "line 0".to_owned()),
    ];
    assert_eq!(*lines, expected);
}

#[tokio::test]
async fn a_new_instance_finds_nothing_of_the_one_before() {
    let plugin = hostile(Limits::default());
    let mut lease = plugin.instance().await.unwrap();
    let found = async |lease: &mut wattle::wasm::Lease| {
        let (handled, _) = call_on(lease, &[sent("s", "search 4000000")]).await;
        String::from_utf8(handled.unwrap().outputs.remove(0).data).unwrap().parse::<u64>().unwrap()
    };
    // In the same instance it is there to be found, or else this test would show nothing.
    call_on(&mut lease, &[sent("h", "hide 4000000")]).await.0.unwrap();
    assert!(found(&mut lease).await > 0);

    // The slot of an instance that trapped, and of one that was dropped, goes to the next one first.
    call_on(&mut lease, &[sent("p", "panic")]).await.0.unwrap_err();
    drop(lease);
    for _ in 0..20 {
        let mut lease = plugin.instance().await.unwrap();
        assert_eq!(found(&mut lease).await, 0);
        call_on(&mut lease, &[sent("h", "hide 4000000"), sent("p", "panic")]).await.0.unwrap_err();
    }
}

#[tokio::test]
async fn a_lease_is_spent_after_a_failed_call_and_the_next_one_is_fresh() {
    let plugin = hostile(small());
    let mut lease = plugin.instance().await.unwrap();
    assert_eq!(call_on(&mut lease, &[sent("a", "count")]).await.0.unwrap().outputs[0].data, b"1");
    assert_eq!(call_on(&mut lease, &[sent("a", "count")]).await.0.unwrap().outputs[0].data, b"2");
    drop(lease);
    let mut lease = plugin.instance().await.unwrap();
    assert_eq!(
        call_on(&mut lease, &[sent("a", "count")]).await.0.unwrap().outputs[0].data,
        b"3",
        "an idle one is reused"
    );
    call_on(&mut lease, &[sent("a", "panic")]).await.0.unwrap_err();
    let spent = call_on(&mut lease, &[sent("a", "count")]).await.0.unwrap_err();
    assert_eq!((spent.kind, spent.event), (CallErrorKind::Spent, None));
    drop(lease);
    assert_eq!(call(&plugin, &[sent("a", "count")]).await.0.unwrap().outputs[0].data, b"1");
}

#[tokio::test]
async fn an_instance_past_its_memory_mark_is_replaced() {
    let plugin = hostile(small());
    for (data, count) in [("grow 1000000", "2"), ("grow 13000000", "1")] {
        let mut lease = plugin.instance().await.unwrap();
        call_on(&mut lease, &[sent("a", "count"), sent("b", data)]).await.0.unwrap();
        drop(lease);
        let (handled, _) = call(&plugin, &[sent("c", "count")]).await;
        assert_eq!(handled.unwrap().outputs[0].data, count.as_bytes(), "{data}");
    }
}

#[tokio::test]
async fn an_instance_past_its_mark_of_handles_is_replaced_before_an_event_pays_for_it() {
    let plugin = hostile(Limits { handles: 40, ..small() });
    for n in 0..100 {
        let (handled, _) = call(&plugin, &[sent("a", "handles 1"), sent("b", "count")]).await;
        let count: u32 =
            String::from_utf8(handled.expect("no event fails").outputs.remove(0).data).unwrap().parse().unwrap();
        assert_eq!(count, n % 31 + 1, "it is another one each time 31 are open");
    }
}

/// A buffer that it could not have and did without says nothing about a later event.
#[tokio::test]
async fn memory_that_was_refused_to_one_event_is_not_to_blame_for_the_next() {
    let plugin = hostile(small());
    let (handled, _) = call(&plugin, &[sent("a", "try-grow 1000000000"), sent("b", "divide 0")]).await;
    let error = handled.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::Trap, Some(1)), "{error}");
    let (handled, _) = call(&plugin, &[sent("a", "try-grow 1000000000"), sent("b", "echo b")]).await;
    assert_eq!(handled.unwrap().outputs.len(), 1);
}

/// Whatever it says again, a single event has what one event may have.
#[tokio::test]
async fn a_single_event_that_is_named_late_does_not_begin_anew() {
    let plugin = hostile(small());
    let mut lease = plugin.instance().await.unwrap();
    let large = "x".repeat(1 << 20);
    let (handled, _) = call_on(&mut lease, &[sent("a", format!("early set k={large}"))]).await;
    handled.unwrap();
    // Of its four megabytes one is written before it says which event it is on.
    let data = format!("early-state set k={large}\nset a={large}\nset b={large}\nset c={large}");
    let (handled, _) = call_on(&mut lease, &[sent("a", data)]).await;
    let answers = String::from_utf8(handled.unwrap().outputs.remove(0).data).unwrap();
    assert!(answers.ends_with("which is the limit for one event"), "{answers}");
    let (handled, _) = call_on(&mut lease, &[sent("a", "early-clock")]).await;
    let same = String::from_utf8(handled.unwrap().outputs.remove(0).data).unwrap();
    assert_eq!(same, "clock goes on, random goes on");
}

/// One thread: a call that kept it would keep the others from ever running.
#[tokio::test(flavor = "current_thread")]
async fn a_loop_gives_way_to_others_on_its_thread() {
    let plugin = hostile(Limits { time: Duration::from_secs(3_600), ..Limits::default() });
    let (started, running) = tokio::sync::oneshot::channel();
    let looping = tokio::spawn({
        let plugin = plugin.clone();
        async move {
            let mut lease = plugin.instance().await.unwrap();
            started.send(()).unwrap();
            call_on(&mut lease, &[sent("a", "loop")]).await.0
        }
    });
    running.await.unwrap();
    for _ in 0..10 {
        call(&plugin, &[sent("b", "echo b")]).await.0.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!looping.is_finished(), "ten calls went through while the loop ran");
    looping.abort();
    assert!(looping.await.unwrap_err().is_cancelled());
}

/// Polls a future once and drops it.
async fn abandoned<F: Future>(future: F) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_may_be_dropped_at_any_point() {
    let plugin = hostile(Limits { time: Duration::from_secs(60), ..Limits::default() });
    let task = |mid_call: bool, count: usize| {
        let plugin = plugin.clone();
        tokio::spawn(async move {
            for n in 0..count {
                let mut lease = plugin.instance().await.unwrap();
                if mid_call {
                    assert!(abandoned(call_on(&mut lease, &[sent("a", "loop")])).await);
                    let spent = call_on(&mut lease, &[sent("a", "echo")]).await.0.unwrap_err();
                    assert_eq!(spent.kind, CallErrorKind::Spent);
                } else if n % 2 == 0 {
                    drop(call_on(&mut lease, &[sent("a", "loop")]));
                } else {
                    let waits = (0..20).map(|_| abandoned(plugin.instance()));
                    for wait in waits {
                        wait.await;
                    }
                }
            }
        })
    };
    // A call in the middle takes a tick to get there, so that not all of them are.
    for task in [task(true, 500), task(true, 500), task(false, 4_500), task(false, 4_500)] {
        task.await.unwrap();
    }
    call(&plugin, &[sent("a", "echo a")]).await.0.unwrap();
}
