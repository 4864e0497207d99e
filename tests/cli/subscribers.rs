//! What one does when something fails, on real plugins: look, understand, put right, have it done again.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bus::{Bus, Ran, wattle};
use crate::common::guests::guest_path;
use crate::common::trees::PATIENCE;

/// The first two levels of the example's tree.
fn orders() -> String {
    format!(
        "wattle: v1
name: shop
topics:
  orders: {{ partitions: 4, key: data.order_id }}
  orders.accepted: {{}}
  orders.refused: {{}}
  stock.reserved: {{}}
  stock.short: {{}}
subscribers:
  validate: {{ from: orders, plugin: {}, to: {{ accepted: orders.accepted, refused: orders.refused }} }}
  inventory: {{ from: orders.accepted, plugin: {}, to: {{ reserved: stock.reserved, short: stock.short }} }}
",
        guest_path("validate").display(),
        guest_path("inventory").display()
    )
}

/// A handler that counts payments.
fn counting() -> String {
    let plugin = guest_path("counter");
    let count = format!("count: {{ from: payments, plugin: {}, to: {{ totals: totals }} }}", plugin.display());
    format!(
        "wattle: v1\nname: shop\ntopics: {{ payments: {{ partitions: 2 }}, totals: {{}} }}\nsubscribers:\n  {count}\n"
    )
}

/// A handler in its place that can do nothing with them.
fn broken() -> String {
    let (counter, hostile) = (guest_path("counter"), guest_path("hostile"));
    let config = ", config: { describe: totals } }";
    let broken = counting().replace(&*counter.to_string_lossy(), &hostile.to_string_lossy());
    broken.strip_suffix(" }\n").unwrap().to_owned() + config + "\n"
}

/// A handler that parks what does not pass in so many attempts.
fn parking(attempts: u32) -> String {
    let work = format!("from: jobs, plugin: {}, config: {{ describe: done }}", guest_path("hostile").display());
    let retry = format!("retry: {{ attempts: {attempts}, backoff: {{ initial: 1ms }} }}");
    format!(
        "wattle: v1\nname: shop\ntopics: {{ jobs: {{}}, jobs.done: {{}} }}\n\
         subscribers:\n  work: {{ {work}, to: {{ done: jobs.done }}, on_failure: park, {retry} }}\n"
    )
}

fn start(folder: &Path, topology: &str) -> Bus {
    let file = folder.join("shop.yaml");
    std::fs::write(&file, topology).unwrap();
    let mut command = wattle();
    command.arg("run").arg(&file).arg("--data").arg(folder.join("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    Bus::spawn(command)
}

fn status(bus: &Bus) -> Vec<Value> {
    let status: Value = serde_json::from_str(&bus.run(&["status", "-o", "json"]).ok()).unwrap();
    status["subscribers"].as_array().unwrap().clone()
}

/// Waits until nothing happens any more without anybody's help.
fn settle(bus: &Bus) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let subscribers = status(bus);
        let is_at_rest = |of: &Value| of["lag"] == 0 && of["retry_queue"] == of["parked"];
        if subscribers.iter().all(is_at_rest) {
            return subscribers;
        }
        assert!(begin.elapsed() < PATIENCE, "{subscribers:#?}");
    }
}

/// A bus that has handled the example's orders.
fn with_orders() -> (TempDir, Bus) {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &orders());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/orders.ndjson");
    bus.run(&["publish", "orders", "--file", file]).ok();
    settle(&bus);
    (folder, bus)
}

fn pay(bus: &Bus, key: &str, amount: i64) {
    bus.run(&["publish", "payments", &json!({ "amount": amount }).to_string(), "--key", key]).ok();
}

fn count(ran: Ran, what: &str) -> u64 {
    let value: Value = serde_json::from_str(&ran.ok()).unwrap();
    value[what].as_u64().unwrap()
}

#[test]
fn dead_letters_say_what_they_were_and_why() {
    let (_folder, bus) = with_orders();
    let list = bus.run(&["dead", "list", "validate"]).ok();
    assert!(list.starts_with("ID ") && list.ends_with("2 dead letters\n"), "{list}");
    assert!(list.contains("o-0222-created") && list.contains("missing field `currency`"), "{list}");
    assert!(bus.run(&["dead", "list", "validate", "-n", "1"]).ok().ends_with("1 dead letter, and there are more\n"));

    let shown = bus.run(&["dead", "show", "shop/validate", "--id", "o-0222-created", "-o", "json"]).json();
    let [shown] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((&shown["failure"], &shown["attempts"], &shown["key"]), (&json!("reject"), &json!(1), &json!("o-0222")));
    assert_eq!(shown["event"]["data"]["order_id"], "o-0222");
    assert_eq!(shown["event"]["source"], "/shop/checkout");
    assert!(shown["event"].get("wattlereason").is_none(), "the event as it was: {shown}");
    assert_eq!(shown["digest"].as_str().unwrap().len(), 64);

    let trap: Value = serde_json::from_str(&bus.run(&["dead", "show", "inventory"]).ok()).unwrap();
    assert_eq!(trap["failure"], "trap");
    let backtrace = trap["backtrace"].as_array().unwrap();
    assert!(backtrace.iter().any(|line| line.as_str().unwrap().contains("inventory.wasm!")), "{trap:#}");
    assert_eq!(bus.run(&["dead", "list", "inventory", "--reason", "overflow"]).ok().lines().count(), 3);
    assert_eq!(bus.run(&["dead", "list", "inventory", "--older-than", "1h"]).ok(), "no dead letters\n");

    // of all subscribers, by why
    let all = bus.run(&["dead", "list"]).ok();
    let end = "3 dead letters of 2 subscribers: `wattle dead list SUBSCRIBER` lists them\n";
    assert!(all.starts_with("SUBSCRIBER ") && all.ends_with(end), "{all}");
    let reasons = bus.run(&["dead", "list", "-o", "json"]).json();
    let counts: Vec<_> = reasons.iter().map(|of| (&of["subscriber"], &of["failure"], &of["count"])).collect();
    let (validate, inventory) = (json!("shop/validate"), json!("shop/inventory"));
    assert!(counts.contains(&(&inventory, &json!("trap"), &json!(1))), "{reasons:#?}");
    let of_validate = counts.iter().filter(|(subscriber, ..)| **subscriber == validate);
    assert_eq!(of_validate.map(|(.., count)| count.as_u64().unwrap()).sum::<u64>(), 2, "{reasons:#?}");
    assert!(reasons.iter().all(|of| of["first_failed_time"].is_string() && of["reason"] != ""), "{reasons:#?}");
    let some = bus.run(&["dead", "list", "--reason", "trap"]).ok();
    assert!(some.ends_with("1 dead letter of 1 subscriber: `wattle dead list SUBSCRIBER` lists them\n"), "{some}");
    let first = bus.run(&["dead", "list", "-n", "1"]).ok();
    assert!(first.lines().count() == 3 && first.contains(" more: `wattle"), "{first}");

    for change in [&["dead", "redrive"][..], &["dead", "drop"], &["parked", "release"], &["parked", "drop"]] {
        let ran = bus.run(&[change, &["validate", "--id", "nothing"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.notices.contains("of validate has the id `nothing`"), "{ran:?}");
    }
    let missing = bus.run(&["dead", "list", "--reason", "missing field `currency` at line N column N", "-o", "json"]);
    assert_eq!(missing.json()[0]["reason"].as_str().map(|why| why.contains("column N")), Some(true));
    let wrong = bus.run(&["dead", "list", "--all"]);
    assert!(wrong.code == Some(2) && !wrong.notices.contains("as a value"), "{wrong:?}");
    let none = bus.run(&["dead", "show", "validate", "--id", "nothing"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.notices.contains("wattle dead list validate"), "{}", none.notices);
    bus.stop();
}

#[test]
fn dead_letters_are_dropped_and_those_that_fail_again_come_again() {
    let (_folder, bus) = with_orders();
    assert_eq!(bus.run(&["dead", "drop", "validate", "--id", "o-0033-created"]).ok(), "dropped 1 dead letter\n");
    assert_eq!(bus.run(&["dead", "list", "validate"]).ok().lines().count(), 3);
    let accepted = || bus.run(&["tail", "orders.accepted"]).ok().lines().count();
    let before = accepted();
    assert_eq!(bus.run(&["dead", "redrive", "validate", "--all"]).ok(), "redrove 1 dead letter\n");
    settle(&bus);
    assert_eq!(count(bus.run(&["dead", "drop", "validate", "--all", "-o", "json"]), "dropped"), 1, "a new one");
    assert_eq!(bus.run(&["dead", "list", "validate"]).ok(), "no dead letters\n");
    let open = status(&bus).iter().map(|of| of["open_dead_letters"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(open, 1, "inventory has one, whatever is kept of those of validate");
    assert_eq!((accepted(), bus.run(&["tail", "validate.dead"]).json().len()), (before, 3));
    bus.stop();
}

#[test]
fn what_a_broken_handler_gave_up_is_done_by_its_repaired_one_once() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &broken());
    for (key, amount) in [("a", 1), ("b", 2), ("a", 10)] {
        pay(&bus, key, amount);
    }
    settle(&bus);
    assert_eq!(bus.run(&["dead", "list", "count", "-o", "json"]).json().len(), 3);
    bus.stop();

    let bus = start(folder.path(), &counting());
    assert_eq!(bus.run(&["dead", "redrive", "count", "--key", "a"]).ok(), "redrove 2 dead letters\n");
    assert_eq!(count(bus.run(&["dead", "redrive", "count", "--all", "-o", "json"]), "redriven"), 1);
    assert_eq!(count(bus.run(&["dead", "redrive", "count", "--all", "-o", "json"]), "redriven"), 0);
    settle(&bus);
    assert_eq!(bus.run(&["dead", "list", "count"]).ok(), "no dead letters\n");
    let totals = bus.run(&["tail", "totals"]).json();
    let mut totals: Vec<_> = totals.iter().map(|line| (line["key"].to_string(), &line["event"]["data"])).collect();
    totals.sort_by_key(|(key, data)| (key.clone(), data["count"].as_u64()));
    let total = |count, sum| json!({ "count": count, "sum": sum });
    let (a1, a2, b1) = (total(1, 1), total(2, 11), total(1, 2));
    assert_eq!(totals, [(r#""a""#.to_owned(), &a1), (r#""a""#.to_owned(), &a2), (r#""b""#.to_owned(), &b1)]);
    bus.stop();

    // what was redriven stays redriven
    let bus = start(folder.path(), &counting());
    assert_eq!(count(bus.run(&["dead", "redrive", "count", "--all", "-o", "json"]), "redriven"), 0);
    bus.stop();
}

#[test]
fn parked_events_hold_their_key_until_they_are_released_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &parking(1));
    for (key, data) in [("a", "until 2"), ("a", "echo"), ("b", "panic 1"), ("c", "echo")] {
        bus.run(&["publish", "jobs", data, "--key", key]).ok();
    }
    let begin = Instant::now();
    let of = loop {
        let of = status(&bus)[0].clone();
        if of["parked"] == 2 && of["lag"] == 0 {
            break of;
        }
        assert!(begin.elapsed() < PATIENCE, "{of:#}");
    };
    assert_eq!(of["retry_queue"], 3);
    let shown = bus.run(&["status"]).ok();
    assert!(shown.contains("3 in the retry queue (") && shown.contains("), 2 parked"), "{shown}");
    let parked = bus.run(&["parked", "list", "work"]).ok();
    assert!(parked.ends_with("2 parked events\n") && parked.contains("trap: "), "{parked}");
    let all = bus.run(&["parked", "list", "work", "--all", "--key", "a"]).ok();
    assert!(all.ends_with("2 events, 1 of them parked\n") && all.contains("waiting for its key"), "{all}");
    let shown = bus.run(&["parked", "show", "work", "--key", "b", "-o", "json"]).json();
    assert_eq!((&shown[0]["failure"], &shown[0]["event"]["data"]), (&json!("trap"), &json!("panic 1")));
    let refused = bus.run(&["seek", "work", "--to", "earliest", "--dry-run"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.notices.contains("--drop-retry-queue"), "{}", refused.notices);
    bus.stop();

    let bus = start(folder.path(), &parking(2));
    assert_eq!(bus.run(&["parked", "list", "work"]).ok().lines().count(), 4, "still there");
    assert_eq!(bus.run(&["parked", "release", "work", "--key", "a"]).ok(), "released 1 event\n");
    assert_eq!(bus.run(&["parked", "drop", "work", "--reason", "trap"]).ok(), "dropped 1 event\n");
    settle(&bus);
    assert_eq!(bus.run(&["parked", "list", "work", "--all"]).ok(), "no events\n");
    let done = bus.run(&["tail", "jobs.done"]).json();
    let done: Vec<_> = done.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(done, ["c", "a", "a"], "each once, and the dropped one never");
    bus.stop();
}

#[test]
fn a_pause_outlasts_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &counting());
    assert!(bus.run(&["pause", "count"]).ok().contains("wattle resume count"));
    pay(&bus, "a", 1);
    bus.stop();
    let bus = start(folder.path(), &counting());
    let of = &status(&bus)[0];
    assert_eq!(
        (&of["lanes"], &of["lag"], &of["since_start"]["handled"]),
        (&json!(["paused", "paused"]), &json!(1), &json!(0))
    );
    let shown = bus.run(&["status"]).ok();
    assert!(shown.contains("lag 1 (") && shown.contains("), 2 lanes paused"), "{shown}");
    assert!(of["lag_seconds"].as_f64().unwrap() >= 0.0, "{of}");
    bus.run(&["resume", "count"]).ok();
    settle(&bus);
    assert_eq!(bus.run(&["tail", "totals"]).json().len(), 1);
    bus.stop();
}

#[test]
fn a_seek_says_that_a_lane_is_still_halted() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &parking(1).replace("on_failure: park", "on_failure: halt"));
    bus.run(&["publish", "jobs", "panic 1", "--key", "a"]).ok();
    let begin = Instant::now();
    while status(&bus)[0]["lanes"] != json!(["halted"]) {
        assert!(begin.elapsed() < PATIENCE, "{:#?}", status(&bus));
    }
    let still = "work still has 1 lane halted: `wattle resume work` resumes it";
    let moved = bus.run(&["seek", "work", "--to", "latest", "--drop-retry-queue"]);
    assert!(moved.code == Some(0) && moved.notices.contains(still), "{moved:?}");
    let moved = bus.run(&["seek", "work", "--to", "latest", "-o", "json"]).json();
    assert_eq!((&moved[0]["halted"], &moved[0]["paused"]), (&json!([0]), &json!([])));
    bus.run(&["resume", "work"]).ok();
    let moved = bus.run(&["seek", "work", "--to", "latest"]);
    assert!(moved.code == Some(0) && !moved.notices.contains("halted"), "{moved:?}");
    bus.run(&["pause", "work"]).ok();
    let moved = bus.run(&["seek", "work", "--to", "latest"]);
    assert!(moved.notices.contains("1 lane paused: `wattle resume work`"), "{moved:?}");
    bus.stop();
}

#[test]
fn a_seek_says_where_it_goes_and_goes_there() {
    let (_folder, bus) = with_orders();
    let seek = |more: &[&str]| {
        let ran = bus.run(&[&["seek", "inventory", "-o", "json"], more].concat());
        let moved: Value = serde_json::from_str(&ran.ok()).unwrap();
        let sum =
            |what: &str| moved["partitions"].as_array().unwrap().iter().map(|of| of[what].as_u64().unwrap()).sum();
        (sum("from"), sum("to"))
    };
    let emitted = || bus.run(&["tail", "stock.reserved"]).ok().lines().count();
    let (before, accepted) = (emitted(), bus.run(&["tail", "orders.accepted"]).ok().lines().count() as u64);
    for (to, expected) in [("earliest", 0), ("latest", accepted), ("2020-01-01T00:00:00Z", 0), ("0s", accepted)] {
        assert_eq!(seek(&["--to", to, "--dry-run"]), (accepted, expected), "{to}");
    }
    let text = bus.run(&["seek", "inventory", "--to", "5", "--dry-run", "--partition", "1"]).ok();
    assert!(text.contains("PARTITION") && text.contains("nothing was moved"), "{text}");
    settle(&bus);
    assert_eq!(emitted(), before);
    assert_eq!(seek(&["--to", "earliest"]), (accepted, 0));
    settle(&bus);
    assert_eq!(emitted(), 2 * before, "everything once more");
    bus.stop();
}

#[test]
fn state_is_saved_put_back_and_not_forgotten_by_a_seek() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &counting());
    for number in 0..30 {
        pay(&bus, &format!("k{}", number % 10), number);
    }
    settle(&bus);
    let get = |key: &str| bus.run(&["state", "get", "count", &format!("totals/{key}")]).ok();
    assert_eq!(get("k3"), "{\"count\":3,\"sum\":39}\n");
    let list = bus.run(&["state", "list", "count", "--prefix", "totals/k1"]).ok();
    assert!(list.contains("{\"count\":3,\"sum\":33}") && list.ends_with("1 key\n"), "{list}");
    let exported = bus.run(&["state", "export", "count"]).ok();
    assert_eq!(exported.lines().count(), 10);

    let refused = bus.run(&["seek", "count", "--to", "earliest"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.notices.contains("--state empty") && refused.notices.contains("--state keep"), "{refused:?}");
    bus.run(&["seek", "count", "--to", "latest", "--state", "empty"]).ok();
    assert_eq!(bus.run(&["state", "list", "count"]).ok(), "0 keys\n");
    let none = bus.run(&["state", "get", "count", "totals/k3"]);
    assert!(none.code == Some(1) && none.notices.contains("wattle state list count"), "{none:?}");

    let imported = bus.run_with(&["state", "import", "count", "-"], &exported);
    assert!(imported.code == Some(0) && imported.notices.contains("imported 10 entries"), "{imported:?}");
    assert_eq!(bus.run(&["state", "export", "count"]).ok(), exported, "to the byte");
    pay(&bus, "k3", 1);
    settle(&bus);
    assert_eq!(get("k3"), "{\"count\":4,\"sum\":40}\n", "the handler goes on from there");

    let file = folder.path().join("more.ndjson");
    std::fs::write(&file, "{\"partition\":1,\"key\":\"x\",\"value_base64\":\"/w==\"}\n\n{\"key\":\"y\"}\n").unwrap();
    let ran = bus.run(&["state", "import", "count", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.notices.contains("line 3") && ran.notices.contains("0 entries"), "{}", ran.notices);
    let ran = bus.run_with(&["state", "import", "count", "-"], "{\"partition\":7,\"key\":\"x\",\"value\":\"\"}\n");
    assert!(ran.code == Some(1) && ran.notices.contains("no partition 7"), "{ran:?}");
    bus.stop();
}

#[test]
fn an_event_is_traced_through_the_tree() {
    let (_folder, bus) = with_orders();
    let dead = bus.run(&["trace", "o-0222-created"]).ok();
    let lines: Vec<_> = dead.lines().collect();
    let [event, handling, letter] = lines.as_slice() else { panic!("{dead}") };
    assert!(event.starts_with("shop/orders ") && event.contains("o-0222-created"), "{dead}");
    assert!(handling.starts_with("└─ validate  dead letter after 1 attempt: "), "{dead}");
    assert!(handling.contains("missing field `currency`") && handling.contains("  plugin "), "{dead}");
    assert!(letter.starts_with("   └─ shop/validate.dead "), "{dead}");

    let made = &bus.run(&["tail", "stock.reserved", "-n", "1"]).json()[0]["event"];
    let trace: Value =
        serde_json::from_str(&bus.run(&["trace", made["id"].as_str().unwrap(), "-o", "json"]).ok()).unwrap();
    let events = trace["events"].as_array().unwrap();
    let topics: Vec<_> = events.iter().map(|event| event["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["shop/orders", "shop/orders.accepted", "shop/stock.reserved"]);
    assert_eq!((&trace["found"], &trace["is_cut"]), (&json!(2), &json!(false)));
    assert_eq!(events[2]["made_by"]["subscriber"], "shop/inventory");
    assert_eq!(events[1]["handlings"][0]["outcome"], "handled");
    assert_eq!(events[1]["handlings"][0]["digest"], events[2]["made_by"]["digest"]);
    assert_eq!(events[0]["made_by"], Value::Null);

    let none = bus.run(&["trace", "nobody", "--topic", "orders"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(
        none.notices.contains("event `nobody` not found") && none.notices.contains("topic `orders`"),
        "{}",
        none.notices
    );
    bus.stop();
}

#[test]
fn a_subscriber_goes_back_to_a_snapshot_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(folder.path(), &counting());
    pay(&bus, "a", 1);
    pay(&bus, "b", 2);
    settle(&bus);
    let said = bus.run(&["state", "snapshot", "count", "--note", "two payments"]).ok();
    assert_eq!(said, "took snapshot 1 with 2 records: `wattle seek count --state 1` goes back to it\n");
    pay(&bus, "a", 10);
    settle(&bus);
    let state = |bus: &Bus| {
        let mut state: Vec<_> = bus.run(&["state", "list", "count", "-o", "json"]).json();
        state.sort_by_key(|entry| entry["key"].to_string());
        state.iter().map(|entry| entry["value"].clone()).collect::<Vec<_>>()
    };
    let whole = state(&bus);
    bus.stop();

    let bus = start(folder.path(), &counting());
    let listed = bus.run(&["state", "snapshots", "shop/count"]).ok();
    assert!(listed.contains("two payments") && listed.ends_with("1 snapshot\n"), "{listed}");
    let listed = bus.run(&["state", "snapshots", "count", "-o", "json"]).json();
    assert_eq!(["number", "records", "by"].map(|field| &listed[0][field]), [&json!(1), &json!(2), &json!("hand")]);
    bus.run(&["pause", "count"]).ok();
    assert!(bus.run(&["seek", "count", "--state", "1"]).ok().ends_with("moved 2 partitions\n"));
    assert_ne!(state(&bus), whole);
    bus.run(&["resume", "count"]).ok();
    settle(&bus);
    assert_eq!(state(&bus), whole);
    let totals = bus.run(&["tail", "totals", "--key", "a"]).json();
    let counts: Vec<_> = totals.iter().map(|line| line["event"]["data"]["sum"].clone()).collect();
    assert_eq!(counts, [1, 11, 11], "the last one came again");
    let none = bus.run(&["seek", "count", "--state", "7"]);
    assert!(none.code == Some(1) && none.notices.contains("wattle state snapshots"), "{none:?}");
    assert!(bus.run(&["state", "drop-snapshot", "count", "1"]).notices.contains("removed snapshot 1"));
    assert_eq!(bus.run(&["state", "snapshots", "count"]).ok(), "0 snapshots\n");
    bus.stop();
}
