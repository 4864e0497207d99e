//! What plugins keep: each event is a savepoint, and what counts is what handled events wrote.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use wattle::model::call::{Action, CallError, CallErrorKind, Handled, Keys, Limits, StateError, StateView, StateWrite};
use wattle::wasm::{Host, Plugin};

use crate::common::plugin_calls::{START_NS, Sent, call_over, host, sent, spec};
use crate::common::random::Random;
use crate::common::states::{MemoryState, Unreadable};

static HOST: LazyLock<Host> = LazyLock::new(host);

/// So much time that a busy machine makes no difference.
fn limits() -> Limits {
    Limits { time: Duration::from_secs(60), ..Limits::default() }
}

static HOSTILE: LazyLock<Plugin> = LazyLock::new(|| {
    let mut spec = spec("hostile", &["out"]);
    spec.limits = limits();
    HOST.register(spec).unwrap()
});

/// An event that does these things to the state, and answers with a line for each.
fn does(lines: &[&str]) -> Sent {
    sent("e", format!("state {}", lines.join("\n")))
}

async fn over(state: impl StateView + 'static, events: &[Sent]) -> Result<Handled, CallError> {
    let mut lease = HOSTILE.instance().await.unwrap();
    call_over(Arc::new(state), &mut lease, events).await.0
}

/// What the events of a call answered.
fn answers(handled: &Handled) -> Vec<&str> {
    assert_eq!(handled.failure(), None);
    handled.outputs.iter().map(|output| std::str::from_utf8(&output.data).unwrap()).collect()
}

/// The answers of one event over this state, one a line.
async fn lines(state: MemoryState, lines: &[&str]) -> Vec<String> {
    let handled = over(state, &[does(lines)]).await.unwrap();
    answers(&handled)[0].split('\n').map(str::to_owned).collect()
}

fn write(event: u32, key: &str, value: Option<&str>) -> StateWrite {
    let value = value.map(|value| value.to_owned().into());
    StateWrite { event, bucket: "default".into(), key: key.into(), value }
}

#[tokio::test]
async fn an_event_reads_what_was_there_what_came_before_it_in_the_call_and_what_it_wrote_itself() {
    let events = [
        does(&["get a", "get b", "set a=2", "get a", "exists a", "exists b"]),
        does(&["get a", "delete a", "get a", "exists a"]),
        does(&["get a", "set b=3"]),
    ];
    let handled = over(MemoryState::of(&[("a", "1")]), &events).await.unwrap();
    assert_eq!(answers(&handled), ["1\nnothing\ndone\n2\ntrue\nfalse", "2\ndone\nnothing\nfalse", "nothing\ndone"]);
    assert_eq!(handled.writes, [write(0, "a", Some("2")), write(1, "a", None), write(2, "b", Some("3"))]);
}

#[tokio::test]
async fn the_last_write_of_a_key_in_an_event_wins_and_an_empty_value_is_a_value() {
    let events = [does(&["set a=1", "set b=1", "set a=2", "delete b", "set a=", "get a"]), does(&["set a=3"])];
    let handled = over(MemoryState::default(), &events).await.unwrap();
    assert!(answers(&handled)[0].ends_with("done\n"));
    assert_eq!(handled.writes, [write(0, "a", Some("")), write(0, "b", None), write(1, "a", Some("3"))]);
}

#[tokio::test]
async fn a_failed_event_leaves_nothing_and_those_before_it_all() {
    for (how, action) in [("fail", Action::Retry(None)), ("reject", Action::Reject)] {
        let events = [does(&["set a=1"]), does(&["get a", "set a=2", "set b=2", how]), does(&["set c=3"])];
        let handled = over(MemoryState::default(), &events).await.unwrap();
        let failed = handled.failure().unwrap();
        assert_eq!((failed.event, failed.action, failed.reason.as_str()), (1, action, "1\ndone\ndone"));
        assert_eq!(handled.writes, [write(0, "a", Some("1"))]);
    }
    let alone = over(MemoryState::default(), &[does(&["set a=1", "fail"])]).await.unwrap();
    assert_eq!(alone.writes, []);
}

/// The plugin believes that it handled all three, and writes for all of them.
#[tokio::test]
async fn an_event_whose_output_cannot_be_leaves_nothing_nor_do_those_after_it() {
    let events = [does(&["set a=1"]), sent("e", "state-port set b=2"), does(&["set c=3"])];
    let handled = over(MemoryState::default(), &events).await.unwrap();
    assert_eq!(handled.failure().unwrap().event, 1);
    assert_eq!(handled.writes, [write(0, "a", Some("1"))]);
}

/// A plugin that went on after an event that it then says has failed.
#[tokio::test]
async fn what_is_written_for_events_behind_a_failure_is_not_believed() {
    let quietly = |line: &str| sent("e", format!("state-quietly {line}"));
    let events = [quietly("set a=1"), quietly("set b=2"), quietly("set c=3"), sent("e", "fail 1")];
    let handled = over(MemoryState::default(), &events).await.unwrap();
    assert_eq!(handled.failure().unwrap().event, 1);
    assert_eq!(handled.writes, [write(0, "a", Some("1"))]);
}

#[tokio::test]
async fn what_was_written_before_a_trap_is_gone_in_the_next_call_of_the_plugin() {
    let error = over(MemoryState::default(), &[does(&["set a=1"]), does(&["set a=2", "panic"])]).await.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::Trap, Some(1)));
    for _ in 0..3 {
        assert_eq!(lines(MemoryState::default(), &["get a"]).await, ["nothing"]);
    }
}

#[tokio::test]
async fn nothing_of_a_call_is_left_for_the_next_one_on_the_same_instance() {
    let mut lease = HOSTILE.instance().await.unwrap();
    let mut on = async |state: MemoryState, line: &str| {
        let (handled, _) = call_over(Arc::new(state), &mut lease, &[does(&[line])]).await;
        answers(&handled.unwrap())[0].to_owned()
    };
    assert_eq!(on(MemoryState::default(), "set a=1").await, "done");
    assert_eq!(on(MemoryState::default(), "get a").await, "nothing");
    // A bucket that is kept open is the bucket of whichever lane has the instance.
    assert_eq!(on(MemoryState::of(&[("a", "left")]), "kept get a").await, "left");
    assert_eq!(on(MemoryState::of(&[("a", "right")]), "kept get a").await, "right");
}

#[tokio::test]
async fn keys_are_listed_in_ascending_order_over_what_was_there_and_what_was_written() {
    let state = MemoryState::of(&[("b", "1"), ("d", "1"), ("f", "1"), ("ä", "1"), ("B", "1")]);
    let events = [
        does(&["set c=1", "delete d", "list"]),
        does(&[
            "set a=1", "set d=2", "delete c", "set z=1", "delete x", "list", "list b", "list bb", "list ä", "pages",
        ]),
    ];
    let handled = over(state, &events).await.unwrap();
    let answers = answers(&handled);
    assert_eq!(answers[0], "done\ndone\nB,b,c,f,ä then None");
    let listed = ["B,a,b,d,f,z,ä then None", "d,f,z,ä then None", "d,f,z,ä then None", " then None", "[7]"];
    assert_eq!(answers[1].split('\n').skip(5).collect::<Vec<_>>(), listed);
}

#[tokio::test]
async fn a_page_has_a_thousand_keys_and_a_cursor_when_there_are_more() {
    let numbers = |count: usize| (0..count).map(|n| format!("{n:06}")).collect::<Vec<_>>();
    let state = |count| {
        let keys = numbers(count);
        MemoryState::of(&keys.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>())
    };
    for (count, pages) in
        [(0, "[0]"), (999, "[999]"), (1000, "[1000]"), (1001, "[1000, 1]"), (2500, "[1000, 1000, 500]")]
    {
        assert_eq!(lines(state(count), &["pages"]).await, [pages], "{count} that were there");
        assert_eq!(lines(state(0), &[&format!("rows ={count}"), "pages"]).await[1], pages, "{count} that were written");
    }
    // Deleted ones count for no page, also where all of a page of the store's are: 1,200 of 2,500 are left.
    let deletes = numbers(1300).chunks(1000).map(|keys| format!("delete-many {}", keys.join(","))).collect::<Vec<_>>();
    let listed = lines(state(2500), &[&deletes[0], &deletes[1], "pages", "set 000000=1", "pages"]).await;
    assert_eq!(listed, ["done", "done", "[1000, 200]", "done", "[1000, 201]"]);
    let page = &lines(state(1001), &["list", "list 000999", "list 001000"]).await;
    assert!(page[0].ends_with(",000998,000999 then Some(\"000999\")"), "{}", page[0]);
    assert_eq!(page[1..], ["001000 then None", " then None"]);
}

/// A store that looks at a few keys at once, most of which are not there any more.
struct Passing(MemoryState);

impl StateView for Passing {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<bytes::Bytes>, StateError> {
        self.0.get(bucket, key, time_ns)
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError> {
        let mut found = self.0.keys(bucket, after, count.min(5), time_ns)?;
        found.keys.retain(|key| key.ends_with('0'));
        Ok(found)
    }
}

/// A page is as long as what was looked at in a bounded time; the cursor says how far that was.
#[tokio::test]
async fn a_short_page_goes_on_at_its_cursor_with_what_was_written_meanwhile() {
    let keys: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    let state = || Passing(MemoryState::of(&keys.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>()));
    let program = ["set 07=1", "delete 10", "list", "list 04", "list 09", "list 14", "list 19", "pages"];
    let handled = over(state(), &[does(&program)]).await.unwrap();
    let said: Vec<&str> = answers(&handled)[0].split('\n').skip(2).collect();
    let expected = [
        "00 then Some(\"04\")",
        "07 then Some(\"09\")",
        " then Some(\"14\")",
        " then Some(\"19\")",
        " then None",
        "[1, 1, 0, 0, 0]",
    ];
    assert_eq!(said, expected);
}

/// Any mixture of what was there, written and deleted lists what a map lists.
#[tokio::test]
async fn listing_agrees_with_a_map_whatever_was_written() {
    let mut random = Random::new(7);
    for round in 0..40 {
        let mut key = || format!("{:02}", random.below(40));
        let there = (0..15).map(|_| key()).collect::<Vec<_>>();
        let program =
            (0..30).map(|n| if n % 3 == 0 { format!("delete {}", key()) } else { format!("set {}=1", key()) });
        let mut program = program.collect::<Vec<_>>();
        let state = MemoryState::of(&there.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>());
        let mut after = state.clone();
        let cursor = key();
        program.push(format!("list {cursor}"));
        let program = program.iter().map(String::as_str).collect::<Vec<_>>();
        let handled = over(state, &[does(&program)]).await.unwrap();
        after.apply(&handled.writes, &[START_NS]);
        let expected = after.keys("default", Some(&cursor), 1000, START_NS).unwrap().keys.join(",");
        let listed = answers(&handled)[0].split('\n').next_back().unwrap();
        assert_eq!(listed, format!("{expected} then None"), "round {round}: {program:?}");
    }
}

#[tokio::test]
async fn buckets_are_told_apart_by_name_and_the_empty_name_is_the_default() {
    let events = [
        does(&["put-in =1", "put-in other=2", "get-in default", "get-in other", "get-in third", "get here", "list"]),
        does(&["put-in default=3", "get-in ", "get-in other"]),
    ];
    let handled = over(MemoryState::default(), &events).await.unwrap();
    let said = ["done\ndone\n1\n2\nnothing\n1\nhere then None", "done\n3\n2"];
    assert_eq!(answers(&handled), said);
    let buckets = handled.writes.iter().map(|write| (write.event, write.bucket.as_str())).collect::<Vec<_>>();
    assert_eq!(buckets, [(0, "default"), (0, "other"), (1, "default")]);
}

#[tokio::test]
async fn what_is_too_long_too_large_or_too_much_is_refused_in_words_and_the_event_goes_on() {
    let name = "n".repeat(65);
    let long = format!("get-in {name}");
    let long_fits = format!("get-in {}", &name[1..]);
    let cursor = format!("list {}", "c".repeat(1025));
    for (line, words) in [
        (long_fits.as_str(), "nothing"),
        (&long, "the bucket's name has 65 bytes, and at most 64 are allowed"),
        ("long =1024", "done"),
        ("long =1025", "the key has 1025 bytes, and at most 1024 are allowed"),
        ("get ", "the key is empty; keys have 1 to 1024 bytes"),
        ("delete ", "the key is empty; keys have 1 to 1024 bytes"),
        ("large a=1048576", "done"),
        ("large a=1048577", "the value has 1048577 bytes, and at most 1048576 are allowed"),
        ("large a=4000000", "the value has 4000000 bytes, and at most 1048576 are allowed"),
        ("flood =20", "after 15: what this event writes has more than 4194304 bytes, which is the limit for one event"),
        ("rows =10000", "10000"),
        ("rows =10001", "after 10000: this event writes more than 10000 keys, which is the limit for one event"),
        ("many k=1000", "1000"),
        ("many k=1001", "1001 keys are too many at once: at most 1000 are allowed"),
        (&cursor, "the cursor has 1025 bytes, which no key has: it is the last key of a page"),
    ] {
        let handled = over(MemoryState::default(), &[does(&[line, "set after=1", "delete after", "get after"])]).await;
        let handled = handled.unwrap_or_else(|error| panic!("{line}: {error}"));
        let answers = answers(&handled)[0].split('\n').collect::<Vec<_>>();
        assert_eq!(answers[0], words, "{line}");
        assert_eq!(answers[3], "nothing", "{line}");
    }
}

#[tokio::test]
async fn what_an_event_overwrites_does_not_count_and_each_event_has_its_own_share() {
    // Sixteen times the limit, under one key.
    let again = vec!["large a=1000000"; 64];
    let answered = lines(MemoryState::default(), &again).await;
    assert!(answered.iter().all(|answer| answer == "done"), "{answered:?}");
    let share = ["flood =15"; 1];
    let handled = over(MemoryState::default(), &[does(&share), does(&share), does(&share)]).await.unwrap();
    assert_eq!(answers(&handled), ["15", "15", "15"]);
    assert_eq!(handled.writes.len(), 45);
}

#[tokio::test]
async fn a_call_that_writes_too_much_together_blames_nobody_and_each_event_alone_has_room() {
    // Few large values, and many small ones.
    for (line, count) in [("flood =15", 15), ("rows =10000", 10_000)] {
        let events = (0..8).map(|_| does(&[line])).collect::<Vec<_>>();
        let error = over(MemoryState::default(), &events).await.unwrap_err();
        assert_eq!((error.kind, error.event), (CallErrorKind::OutputTooLarge, None), "{error}");
        assert!(error.message.contains("write more state together than 16777216 bytes hold"), "{error}");
        assert_eq!(over(MemoryState::default(), &events[..1]).await.unwrap().writes.len(), count);
    }
}

#[tokio::test]
async fn get_many_gives_no_more_than_the_plugin_could_hold() {
    let value = "v".repeat(1 << 20);
    let keys = ["a", "b", "c", "d", "e"].map(|key| (key, value.as_str()));
    let limits = Limits { output_bytes: 8 << 20, ..limits() };
    let plugin = HOST.register(wattle::wasm::PluginSpec { limits, ..spec("hostile", &["out"]) }).unwrap();
    let mut lease = plugin.instance().await.unwrap();
    let state = Arc::new(MemoryState::of(&keys));
    let events = [does(&["get-many a,b,c,d"]), does(&["get-many a,b,c,d,e"])];
    let handled = call_over(state, &mut lease, &events).await.0.unwrap();
    let answers = answers(&handled);
    assert_eq!(answers[0].len(), 4 * ((1 << 20) + 2) + 3);
    assert_eq!(answers[1], "the values under these keys have more than 4194304 bytes: ask for fewer at once");
}

#[tokio::test]
async fn numbers_are_decimal_digits_and_what_is_none_stays_as_it_is() {
    let state = MemoryState::of(&[("n", "40"), ("word", "forty"), ("raw", "\u{1}\0\0\0\0\0\0\0"), ("blank", " 1")]);
    let answered = lines(
        state,
        &[
            "increment n=2",
            "get n",
            "increment new=-7",
            "get new",
            "increment new=0",
            "increment word=1",
            "get word",
            "increment raw=1",
            "increment blank=1",
            "increment n=9223372036854775807",
            "set n=9223372036854775806",
            "increment n=1",
            "increment n=1",
            "get n",
        ],
    )
    .await;
    let no_number = "the value under this key is not a number in decimal digits";
    let said = [
        "42",
        "42",
        "-7",
        "-7",
        "-7",
        no_number,
        "forty",
        no_number,
        no_number,
        "42 and 9223372036854775807 are more than 64 bits hold",
        "done",
        "9223372036854775807",
        "9223372036854775807 and 1 are more than 64 bits hold",
        "9223372036854775807",
    ];
    assert_eq!(answered, said);
}

#[tokio::test]
async fn a_swap_fails_once_the_value_is_another_and_the_handle_it_gives_back_works() {
    let answered = lines(
        MemoryState::of(&[("a", "1")]),
        &[
            "cas a",
            "current",
            "swap 2",
            "get a", // as it was
            "cas a",
            "set a=3",
            "current",
            "swap 4",
            "get a",
            "swap 5",
            "get a", // changed in between
            "cas new",
            "current",
            "swap 1",
            "get new", // not there before
            "cas new",
            "delete new",
            "swap 2",
            "current", // gone in between
            "cas a",
            "swap",
        ],
    )
    .await;
    let said = [
        "made",
        "1",
        "swapped",
        "2", //
        "made",
        "done",
        "3",
        "it was another",
        "3",
        "swapped",
        "5", //
        "made",
        "nothing",
        "swapped",
        "1", //
        "made",
        "done",
        "it was another",
        "nothing", //
        "made",
        "swapped",
    ];
    assert_eq!(answered, said);
    let handled = over(MemoryState::default(), &[does(&["cas a", "swap 1"])]).await.unwrap();
    assert_eq!(handled.writes, [write(0, "a", Some("1"))]);
}

#[tokio::test]
async fn batches_of_keys_keep_their_order_and_stop_at_the_first_that_cannot_be() {
    let answered = lines(
        MemoryState::of(&[("b", "1")]),
        &[
            "get-many b,a,b",
            "set-many a=1,b=2,a=3",
            "get-many a,b",
            "delete-many a,x",
            "get-many a,b",
            "set-many c=1,=2,d=3",
            "list",
        ],
    )
    .await;
    let said = [
        "b=1,a=nothing,b=1",
        "done",
        "a=3,b=2",
        "done",
        "a=nothing,b=2",
        "the key is empty; keys have 1 to 1024 bytes",
        "b,c then None",
    ];
    assert_eq!(answered, said);
}

#[tokio::test]
async fn keys_are_any_text() {
    let keys = ["a\0", "\0", "a", "a\0b", "ключ", "🔑", "e\u{301}", "\u{e9}", "\u{10ffff}"];
    let program = keys.iter().map(|key| format!("set {key}={key}")).collect::<Vec<_>>();
    let program = program.iter().map(String::as_str).chain(["get a\0", "list"]).collect::<Vec<_>>();
    let handled = over(MemoryState::default(), &[does(&program)]).await.unwrap();
    let written = handled.writes.iter().map(|write| write.key.as_str()).collect::<Vec<_>>();
    assert_eq!(written, keys);
    let answers = answers(&handled)[0].split('\n').collect::<Vec<_>>();
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(answers[keys.len()..], ["a\0", &format!("{} then None", sorted.join(","))]);
}

#[tokio::test]
async fn outside_of_an_event_there_is_no_state() {
    // A batch, before the first event of it is named. Alone, an event is named from the start.
    let early = [sent("a", "early get a"), sent("b", "echo b")];
    let error = over(MemoryState::default(), &early).await.unwrap_err();
    assert_eq!((error.kind, error.event), (CallErrorKind::Protocol, None), "{error}");
    assert!(error.message.contains("state belongs to an event: call `current` first"), "{error}");
    assert!(over(MemoryState::default(), &early[..1]).await.unwrap().failure().is_none());
    for program in
        ["early set a=1", "early list", "early increment a=1", "early cas a", "early many a=1", "early delete a"]
    {
        let error = over(MemoryState::default(), &[sent("a", program), sent("b", "echo b")]).await.unwrap_err();
        assert!(error.message.contains("state belongs to an event"), "{program}: {error}");
    }

    let mut spec = spec("hostile", &["out"]);
    spec.config.insert("describe".into(), "state".into());
    let message = HOST.register(spec).unwrap_err().to_string();
    assert!(message.contains("`describe`") && message.contains("state belongs to an event"), "{message}");
}

#[tokio::test]
async fn state_that_cannot_be_read_ends_the_call_and_blames_no_event() {
    for line in ["get a", "exists a", "list", "increment a=1", "cas a", "many a=1"] {
        for events in [&[sent("a", "echo a"), does(&[line])][..], &[does(&[line])]] {
            let error = over(Unreadable, events).await.expect_err(line);
            assert_eq!((error.kind, error.event), (CallErrorKind::State, None), "{line}: {error}");
            assert_eq!(error.message, "its state cannot be read: the disk does not answer");
        }
    }
    // Writing does not look at what is there.
    assert_eq!(over(Unreadable, &[does(&["set a=1", "get a", "delete a"])]).await.unwrap().writes.len(), 1);
}

#[tokio::test]
async fn open_buckets_are_handles_and_have_their_limit() {
    let plugin = HOST.register(wattle::wasm::PluginSpec { limits: limits(), ..spec("hostile", &["out"]) }).unwrap();
    for name in ["", "other"] {
        let mut lease = plugin.instance().await.unwrap();
        let events = [sent("a", "echo a"), does(&["set a=1", &format!("leak {name}=2000")])];
        let error = call_over(Arc::new(MemoryState::default()), &mut lease, &events).await.0.unwrap_err();
        assert_eq!((error.kind, error.event), (CallErrorKind::Handles, Some(1)), "{error}");
    }
    // Those that are closed again do not count.
    let mut lease = plugin.instance().await.unwrap();
    for _ in 0..30 {
        let program = vec!["get-in a"; 100];
        let (handled, _) = call_over(Arc::new(MemoryState::default()), &mut lease, &[does(&program)]).await;
        handled.unwrap();
    }
}

/// Batching must change nothing, so what one event of a call wrote expires for a later one, too.
#[tokio::test]
async fn what_expired_is_gone_in_one_call_as_it_is_in_two() {
    let at = |seconds: u64, lines: &[&str]| Sent { time_ns: START_NS + seconds * 1_000_000_000, ..does(lines) };
    let events = [
        at(0, &["set a=1", "increment n=5"]),
        at(5, &["get a", "set b=2"]),
        at(9, &["get a", "list"]),
        at(10, &["get a", "increment n=1", "exists a", "list", "get-many a,b"]),
    ];
    let empty = MemoryState { ttl_ns: Some(10_000_000_000), ..MemoryState::default() };
    let together = over(empty.clone(), &events).await.unwrap();
    let mut state = empty;
    let mut apart = Vec::new();
    for event in &events {
        let handled = over(state.clone(), std::slice::from_ref(event)).await.unwrap();
        state.apply(&handled.writes, &[event.time_ns]);
        apart.push(answers(&handled)[0].to_owned());
    }
    assert_eq!(apart, ["done\n5", "1\ndone", "1\na,b,n then None", "nothing\n1\nfalse\nb,n then None\na=nothing,b=2"]);
    assert_eq!(answers(&together), apart);
}

/// The same events over the same state, in any batches, on any instance: the same answers, and the same state in the
/// end.
#[tokio::test]
async fn the_same_events_leave_the_same_state_in_any_batches() {
    let mut random = Random::new(11);
    let events = (0..60)
        .map(|n| {
            let mut key = || format!("k{}", random.below(12));
            let program = [
                format!("increment {}=3", key()),
                format!("set {}={n}", key()),
                format!("delete {}", key()),
                format!("get {}", key()),
                "list".to_owned(),
            ];
            does(&program.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect::<Vec<_>>();
    let whole = in_batches(&events, 60).await;
    assert!(whole.0.entries.len() > 3, "{whole:?}");
    assert_eq!(in_batches(&events, 60).await, whole);
    for size in [1, 7, 20] {
        let apart = in_batches(&events, size).await;
        assert_eq!((&apart.0, &apart.1), (&whole.0, &whole.1), "in batches of {size}");
    }
}

/// The state in the end, the answers, and the writes as they came.
async fn in_batches(events: &[Sent], size: usize) -> (MemoryState, Vec<String>, Vec<StateWrite>) {
    let (mut state, mut said, mut writes) = (MemoryState::default(), Vec::new(), Vec::new());
    for batch in events.chunks(size) {
        let handled = over(state.clone(), batch).await.unwrap();
        said.extend(answers(&handled).into_iter().map(str::to_owned));
        state.apply(&handled.writes, &vec![START_NS; batch.len()]);
        writes.extend(handled.writes);
    }
    (state, said, writes)
}

#[tokio::test]
async fn a_counter_counts_by_key_and_a_failed_event_does_not_count() {
    let plugin = HOST.register(spec("counter", &["totals"])).unwrap();
    let mut lease = plugin.instance().await.unwrap();
    let payment = |key: &str, amount: i64| Sent { key: key.into(), ..sent("e", format!(r#"{{"amount":{amount}}}"#)) };
    let mut state = MemoryState::default();
    let first = [payment("ada", 5), payment("bob", 7), payment("ada", 10)];
    let handled = call_over(Arc::new(state.clone()), &mut lease, &first).await.0.unwrap();
    assert_eq!(answers(&handled), [r#"{"count":1,"sum":5}"#, r#"{"count":1,"sum":7}"#, r#"{"count":2,"sum":15}"#]);
    state.apply(&handled.writes, &[START_NS; 3]);

    let next = [payment("ada", -1), payment("ada", i64::MAX), payment("ada", 1)];
    let handled = call_over(Arc::new(state.clone()), &mut lease, &next).await.0.unwrap();
    assert_eq!(handled.outputs[0].data, br#"{"count":3,"sum":14}"#);
    let failed = handled.failure().unwrap();
    assert_eq!((failed.event, failed.action), (1, Action::Reject), "{}", failed.reason);
    state.apply(&handled.writes, &[START_NS; 3]);
    let handled = call_over(Arc::new(state), &mut lease, &next[2..]).await.0.unwrap();
    assert_eq!(answers(&handled), [r#"{"count":4,"sum":15}"#]);
}

/// What the SDK makes of trouble may pass.
#[tokio::test]
async fn trouble_with_state_is_tried_again() {
    let plugin = HOST.register(spec("counter", &["totals"])).unwrap();
    let mut lease = plugin.instance().await.unwrap();
    let long = Sent { key: "k".repeat(1020), ..sent("e", r#"{"amount":1}"#) };
    let handled = call_over(Arc::new(MemoryState::default()), &mut lease, &[long]).await.0.unwrap();
    let failed = handled.failure().unwrap();
    assert_eq!(failed.action, Action::Retry(None), "{}", failed.reason);
    assert!(failed.reason.contains("the key has 1027 bytes, and at most 1024 are allowed"), "{}", failed.reason);
}
