//! `wattle test`.

use std::path::Path;

use serde_json::Value;

use super::bus::{Ran, wattle};
use crate::common::guests::guest_path;

/// A topology of one plugin that does as its events say, and one that counts; and the cases in a file beside it.
fn write(folder: &Path, more: &str, cases: &str) {
    let (hostile, counter) = (guest_path("hostile"), guest_path("counter"));
    let topology = format!(
        "wattle: v1\nname: lab\ntopics: {{ orders: {{ partitions: 4 }}, done: {{}}, totals: {{}}, log: {{}} }}\n\
         subscribers:\n  do:\n    from: orders\n    plugin: {}\n    to: [done]\n    retry: {{ attempts: 3, backoff: \
         {{ initial: 1h, max: 1h }} }}\n    rate: 1/h\n{more}  count:\n    from: log\n    plugin: {}\n    to: \
         [totals]\n    \
         state: {{ ttl: 1h }}\n",
        hostile.display(),
        counter.display(),
    );
    std::fs::write(folder.join("lab.yaml"), topology).unwrap();
    std::fs::write(folder.join("lab.test.yaml"), cases).unwrap();
}

fn test(folder: &Path, arguments: &[&str]) -> Ran {
    wattle().current_dir(folder).arg("test").args(arguments).output().unwrap().into()
}

/// Runs one case, whose lines are indented by two.
fn one(more: &str, case: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), more, &format!("cases:\n- name: it\n{case}"));
    test(folder.path(), &["lab.yaml"])
}

/// Runs one case that has to fail, and gives what is said about it.
fn fails(more: &str, case: &str) -> String {
    let ran = one(more, case);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("FAILED  it") && ran.out.contains("lab.test.yaml:2"), "{ran:?}");
    assert!(ran.out.contains("0 passed, 1 failed"), "{ran:?}");
    ran.out
}

/// What subscribers keep is by partition, and so may be what comes of events: a case says so, or fails.
#[test]
fn a_case_has_to_come_out_the_same_with_all_partitions() {
    let events = |verb: &str| {
        let events: Vec<String> =
            (0..8).map(|key| format!("{{ topic: orders, key: k{key}, data: '{verb}' }}")).collect();
        format!("  events: [{}]\n", events.join(", "))
    };
    // A count of its own for each partition.
    let expect = "  expect: { state: { do: { default: { n: 8 } } } }\n";
    let said = fails("", &format!("{}{expect}", events("state increment n=1")));
    assert!(said.contains("as many partitions as the topology has") && said.contains("(partition "), "{said}");
    one("", &format!("  partitions: 1\n{}{expect}", events("state increment n=1"))).ok();
    // What is by key is the same, given or not.
    let outputs = |count: u32| {
        let outputs: Vec<String> = (0..8).map(|key| format!("{{ key: k{key}, data: '{count}' }}")).collect();
        format!("  expect: {{ outputs: {{ done: [{}] }} }}\n", outputs.join(", "))
    };
    let program = "state get g";
    one("", &format!("  state: {{ do: {{ default: {{ g: '7' }} }} }}\n{}{}", events(program), outputs(7))).ok();
    let kept = "  expect: { state: { do: { default: { g: '7' } } } }\n";
    one("", &format!("  state: {{ do: {{ default: {{ g: '7' }} }} }}\n{}{kept}", events(program))).ok();
    let kept = "  expect: { state: { do: { default: {} } } }\n";
    let deleted = "  events: [{ topic: orders, data: 'state delete g' }]\n";
    one("", &format!("  state: {{ do: {{ default: {{ g: '7' }} }} }}\n{deleted}{kept}")).ok();
}

/// What a handler keeps in its memory is a cache, and no case finds that of another one.
#[test]
fn a_case_begins_with_fresh_instances() {
    let folder = tempfile::tempdir().unwrap();
    let case = |name: &str| {
        format!(
            "- name: {name}\n  events: [{{ topic: orders, data: count }}]\n  expect: {{ outputs: {{ done: [{{ data: \
             '1' }}] }} }}\n"
        )
    };
    write(folder.path(), "", &format!("cases:\n{}{}", case("a"), case("b")));
    test(folder.path(), &["lab.yaml", "--once"]).ok();
}

/// What depends on the past of an instance, such as a random generator with one seed for all its events, a variable, or
/// the order of a map that follows from how many there were.
#[test]
fn what_does_not_follow_from_the_event_and_the_state_is_found_by_a_second_run() {
    let outputs = |count: usize| ["{}"].repeat(count).join(", ");
    for (events, count) in [
        ("{ topic: orders, data: count }", 1),
        ("{ topic: orders, data: order }", 1),
        ("{ topic: orders, key: a, data: echo 1 }, { topic: orders, key: b, data: count }", 2),
    ] {
        let case = format!("  events: [{events}]\n  expect: {{ outputs: {{ done: [{}] }} }}\n", outputs(count));
        let said = fails("", &case);
        assert!(said.contains("when it runs again") && said.contains("(- first run, + second run)"), "{said}");
        assert!(said.contains("the outputs in `lab/done`") && !said.contains("- expected"), "{said}");
    }
    let said =
        fails("", "  events: [{ topic: orders, data: count }]\n  expect: { outputs: { done: [{ data: '1' }] } }\n");
    assert!(has(&said, &["-   \"data\": \"1\",", "+   \"data\": \"2\","]), "{said}");
    // All that the bus gives is of the event.
    one(
        "",
        "  events: [{ topic: orders, key: a, data: random 8 }, { topic: orders, key: b, data: look }]\n  expect: { \
        outputs: { done: [{}, {}] } }\n",
    )
    .ok();
}

/// The second run answers with state, failures and retries as the first one does.
#[test]
fn a_second_run_of_a_deterministic_plugin_is_like_the_first() {
    let event = |key: &str, data: &str| format!("  - {{ topic: orders, key: {key}, data: {data} }}\n");
    let events = [
        event("a", "state increment n=1"),
        event("b", "until 2"),
        event("a", "panic oh"),
        event("c", "reject"),
        event("b", "state increment n=1"),
    ];
    let expect = "  expect: { outputs: { done: [{}, {}, {}] }, failures: [{ kind: trap }, { kind: reject }], state: { \
        do: { default: { n: 2 } } } }\n";
    one("", &format!("  partitions: 1\n  events:\n{}{expect}", events.concat())).ok();
}

#[test]
fn compiled_plugins_are_kept_where_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let case =
        "cases:\n- name: it\n  events: [{ topic: orders, data: echo 1 }]\n  expect: { outputs: { done: [{}] } }\n";
    write(folder.path(), "", case);
    test(folder.path(), &["lab.yaml", "--cache", "code"]).ok();
    let kept = || std::fs::read_dir(folder.path().join("code")).unwrap().count();
    assert_eq!(kept(), 4, "a key, compiled functions, and the code of two plugins");
    test(folder.path(), &["lab.yaml", "--cache", "code"]).ok();
    assert_eq!(kept(), 4);
    let ran = test(folder.path(), &["lab.yaml", "--cache", "lab.yaml"]);
    assert!(ran.code == Some(2) && ran.notices.contains("cannot be kept in lab.yaml (--cache)"), "{ran:?}");
}

#[test]
fn outputs_without_a_topic_are_a_mistake() {
    let ran = one("", "  events: [{ topic: orders, data: echo 1 }]\n  expect: { outputs: {} }\n");
    assert!(ran.code == Some(78) && ran.notices.contains("write `none`"), "{ran:?}");
}

/// A cloned folder brings no machine code, and running its tests leaves none.
#[test]
fn a_test_uses_no_code_of_the_folder_that_it_runs_in() {
    let folder = tempfile::tempdir().unwrap();
    let case =
        "cases:\n- name: it\n  events: [{ topic: orders, data: echo 1 }]\n  expect: { outputs: { done: [{}] } }\n";
    write(folder.path(), "", case);
    let caches = folder.path().join("caches");
    let ran = wattle().current_dir(folder.path()).env("XDG_CACHE_HOME", &caches).args(["test", "lab.yaml"]).output();
    Ran::from(ran.unwrap()).ok();
    assert!(!folder.path().join(".wattle").exists());
    let code = std::fs::read_dir(caches.join("wattle/code")).unwrap().count();
    assert_eq!(code, 4, "a key, compiled functions, and the code of two plugins");
}

/// Whether a text has these lines in a row, whatever their indentation.
fn has(text: &str, lines: &[&str]) -> bool {
    let found: Vec<&str> = text.lines().map(str::trim).collect();
    found.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn outputs_are_compared_as_a_whole_and_shown_with_what_differs() {
    let events = "  subscriber: do\n  events:\n  - { key: a, data: echo 1 }\n  - { key: b, data: echo 2 }\n";
    one(
        "",
        &format!("{events}  expect: {{ outputs: {{ done: [{{ key: a, data: echo 1 }}, {{ data: echo 2 }}] }} }}\n"),
    )
    .ok();
    let said =
        fails("", &format!("{events}  expect: {{ outputs: {{ done: [{{ data: echo 1 }}, {{ data: echo 3 }}] }} }}\n"));
    assert!(has(&said, &["-   \"data\": \"echo 3\"", "+   \"data\": \"echo 2\""]), "{said}");
    assert!(
        !said.contains("-   \"data\": \"echo 1\"") && !said.contains("\"key\""),
        "what fits or was not asked for: {said}"
    );
    let said = fails("", &format!("{events}  expect: {{ outputs: {{ done: [{{ data: echo 1 }}] }} }}\n"));
    assert!(said.contains("the outputs in `lab/done`") && said.contains("+   \"data\": \"echo 2\""), "{said}");
    fails("", &format!("{events}  expect: {{ outputs: {{ done: [{{}}, {{}}, {{}}] }} }}\n"));
    let said = fails("", &format!("{events}  expect: {{ outputs: none }}\n"));
    assert!(said.contains("+   \"data\": \"echo 1\""), "{said}");
}

#[test]
fn order_counts_within_a_key_only() {
    let events = "  events:\n  - { topic: orders, key: a, data: echo 1 }\n  - { topic: orders, key: b, data: echo 2 \
        }\n  - \
                  { topic: orders, key: a, data: echo 3 }\n";
    let expect = |order: [u32; 3]| {
        let outputs: Vec<String> = order.iter().map(|number| format!("{{ data: echo {number} }}")).collect();
        format!("{events}  expect: {{ outputs: {{ done: [{}] }} }}\n", outputs.join(", "))
    };
    one("", &expect([1, 2, 3])).ok();
    one("", &expect([2, 1, 3])).ok();
    let said = fails("", &expect([3, 2, 1]));
    assert!(said.contains("the order of the outputs in `lab/done`"), "{said}");
}

#[test]
fn attributes_types_and_parts_of_the_data_can_be_asked_for() {
    let events = "  events:\n  - { topic: log, key: a, data: { amount: 5 } }\n  - { topic: orders, data: attribute \
        subject=x }\n";
    one(
        "",
        &format!(
            "{events}  expect: {{ outputs: {{ totals: [{{ type: totals.changed, key: a, has: {{ sum: 5.0 }} }}] }} }}\n"
        ),
    )
    .ok();
    let said = fails("", &format!("{events}  expect: {{ outputs: {{ totals: [{{ has: {{ sum: 6 }} }}] }} }}\n"));
    assert!(said.contains("+     \"sum\": 5") && !said.contains("count"), "only what is asked for: {said}");
    let said = fails("", &format!("{events}  expect: {{ outputs: {{ totals: [{{ data: {{ sum: 5 }} }}] }} }}\n"));
    assert!(said.contains("\"count\": 1"), "all of it: {said}");
    fails("", &format!("{events}  expect: {{ outputs: {{ totals: [{{ type: other }}] }} }}\n"));
    one("", &format!("{events}  expect: {{ outputs: {{ done: [{{ attributes: {{ subject: x, time: ~ }} }}] }} }}\n"))
        .ok();
    fails("", &format!("{events}  expect: {{ outputs: {{ done: [{{ attributes: {{ subject: y }} }}] }} }}\n"));
    fails("", &format!("{events}  expect: {{ outputs: {{ done: [{{ attributes: {{ subject: ~ }} }}] }} }}\n"));
}

#[test]
fn state_is_given_and_compared_and_expires_as_time_goes_on() {
    let given = "  subscriber: count\n  state: { count: { default: { totals/a: { count: 2, sum: 7 } } } }\n  \
        events:\n  - \
                 { key: a, data: { amount: 1 } }\n";
    let kept = |more: &str, sum: u32, count: u32| {
        format!(
            "{given}{more}  expect: {{ state: {{ count: {{ default: {{ totals/a: {{ count: {count}, sum: {sum} }} }} \
             }} }} }}\n"
        )
    };
    one("", &kept("", 8, 3)).ok();
    let said = fails("", &kept("", 9, 3));
    assert!(said.contains("what `lab/count` keeps in bucket `default`"), "{said}");
    assert!(has(&said, &["-     \"sum\": 9", "+     \"sum\": 8"]), "{said}");
    fails("", &format!("{given}  expect: {{ state: {{ count: {{ default: {{}} }} }} }}\n"));
    fails("", &format!("{given}  expect: {{ state: {{ count: {{ default: {{ totals/a: ~ }} }} }} }}\n"));
    // An hour later nothing is left of it, and of the event in between there is.
    one("", &kept("  - { after: 59m, key: a, data: { amount: 1 } }\n", 9, 4)).ok();
    let late = "  - { after: 90m, key: a, data: { amount: 1 } }\n";
    one("", &kept(late, 1, 1)).ok();
    fails("", &kept(late, 9, 4));
}

#[test]
fn a_failure_is_expected_or_fails_the_case_and_nothing_waits_for_a_pause() {
    // The pauses of the topology are an hour, and so is what the plugin asks for; its rate is one an hour.
    let event = |data: &str| format!("  subscriber: do\n  events:\n  - {{ id: e, data: {data} }}\n");
    one("", &format!("{}  expect: {{ outputs: {{ done: [{{ data: '3' }}] }} }}\n", event("until 3"))).ok();
    let said = fails("", &format!("{}  expect: {{}}\n", event("retry 3600000")));
    assert!(has(&said, &["+   \"attempts\": 3,", "+   \"end\": \"dead_letter\",", "+   \"event\": \"e\","]), "{said}");
    let expect = |failure: &str| format!("  expect: {{ outputs: none, failures: [{{ {failure} }}] }}\n");
    one("", &(event("retry") + &expect("kind: retry, reason: ate, attempts: 3, end: dead_letter, event: e"))).ok();
    one("", &(event("reject") + &expect("kind: reject, attempts: 1"))).ok();
    one("", &(event("panic at the disco") + &expect("subscriber: do, kind: trap, reason: at the disco"))).ok();
    let said = fails("", &(event("reject") + &expect("kind: reject, reason: always")));
    assert!(has(&said, &["-   \"reason\": \"always\"", "+   \"reason\": \"never\""]), "{said}");
    fails("", &(event("echo") + &expect("kind: reject")));
    one("    on_failure: park\n", &(event("retry") + &expect("end: parked, attempts: 3"))).ok();
    fails("    on_failure: park\n", &(event("retry") + &expect("end: dead_letter")));
    // With more partitions, others go on.
    let two = "  partitions: 1\n".to_owned() + &event("reject") + "  - { key: other, data: echo }\n";
    one("    on_failure: halt\n", &(two.clone() + &expect("end: halted, event: e, kind: reject"))).ok();
    fails("    on_failure: halt\n", &(two + &expect("end: halted, event: '2'")));
}

#[test]
fn a_case_that_goes_on_and_on_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let case = "cases:\n- { name: it, subscriber: do, events: [{ data: loop }], expect: {} }\n";
    write(folder.path(), "    limits: { time: 10m }\n", case);
    let ran = test(folder.path(), &["--timeout", "200ms"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("it did not come to an end within 200ms"), "{ran:?}");
}

#[test]
fn what_is_wrong_with_a_file_is_shown_with_its_place_and_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    let cases = "cases:\n- name: a\n  subscriber: dot\n  evens: []\n  events: [{ topic: done, after: 5 }]\n- name: \
        a\n  events: \
                 [{ data: 1 }]\n  expect: { outputs: { orders: [] } }\n";
    write(folder.path(), "", cases);
    let ran = test(folder.path(), &["lab.test.yaml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(78), ""), "{ran:?}");
    for said in
        ["lab.test.yaml:4:3", "did you mean `events`?", "`cases` needs the key `expect`", "`after` is a duration"]
    {
        assert!(ran.notices.contains(said), "{said}: {ran:?}");
    }
    let cases = "cases:\n- name: a\n  subscriber: dot\n  expect: {}\n  events: [{ data: 1 }]\n- name: b\n  events: [{ \
        data: 1 }]\n  \
                 expect: { outputs: { orders: [] } }\n- name: b\n  expect: {}\n";
    write(folder.path(), "", cases);
    let ran = test(folder.path(), &["lab.test.yaml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(78), ""), "{ran:?}");
    for said in [
        "there is no subscriber `dot`",
        "did you mean `do`?",
        "there are several roots",
        "no subscriber sends anything to `lab/orders`",
        "two cases have the name `b`",
        "this case gives no events",
    ] {
        assert!(ran.notices.contains(said), "{said}: {ran:?}");
    }
    std::fs::write(folder.path().join("lab.yaml"), "wattle: v1\n").unwrap();
    let ran = test(folder.path(), &["lab.test.yaml"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.notices.contains("a topology needs the key `name`"), "{ran:?}");
    std::fs::remove_file(folder.path().join("lab.yaml")).unwrap();
    let ran = test(folder.path(), &["lab.test.yaml"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.notices.contains("there is no `lab.yaml` beside `lab.test.yaml`"), "{ran:?}");
    let empty = tempfile::tempdir().unwrap();
    let ran = test(empty.path(), &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.notices.contains("there are no tests in `.`"), "{ran:?}");
}

#[test]
fn results_are_for_programs_too_and_cases_are_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let case = |name: &str, data: u32| {
        format!(
            "- {{ name: {name}, subscriber: do, events: [{{ data: echo 1 }}], expect: {{ outputs: {{ done: [{{ data: \
             echo {data} }}] }} }} }}\n"
        )
    };
    write(folder.path(), "", &format!("cases:\n{}{}", case("good <one>", 1), case("bad", 2)));
    let ran = test(folder.path(), &["-o", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["ok"], &report["passed"], &report["failed"]), (&false.into(), &1.into(), &1.into()));
    let bad = &report["cases"][1];
    assert_eq!((&bad["name"], &bad["line"], &bad["ok"]), (&"bad".into(), &3.into(), &false.into()));
    assert!(bad["mismatches"][0]["diff"].as_array().unwrap().contains(&"-   \"data\": \"echo 2\"".into()), "{bad}");
    let ran = test(folder.path(), &["-o", "junit"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for part in [
        r#"<testsuites tests="2" failures="1">"#,
        r#"name="good &lt;one&gt;" file="./lab.test.yaml" line="2""#,
        r#"<failure message="the outputs in `lab/done`">"#,
        "&quot;data&quot;: &quot;echo 2&quot;",
    ] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    let out = test(folder.path(), &["--filter", "good"]).ok();
    assert!(out.contains("1 passed, 0 failed"), "{out}");
    let ran = test(folder.path(), &["--filter", "neither"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.notices.contains("no case has `neither` in its name"), "{ran:?}");
}

#[test]
fn what_the_example_topologies_say_of_themselves_is_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder.join("topologies")).unwrap().map(|entry| entry.unwrap().file_name());
    let files = files.filter_map(|name| name.to_str().unwrap().strip_suffix(".test.yaml").map(str::to_owned));
    // That one needs the tools of all languages, and is tested with them.
    let names: Vec<String> = files.filter(|name| name != "polyglot").collect();
    let files: Vec<String> = names.iter().map(|name| format!("topologies/{name}.test.yaml")).collect();
    assert!(files.len() > 7, "{files:?}");
    let out = wattle().current_dir(folder).arg("test").args(&files).output().unwrap();
    let out = Ran::from(out).ok();
    for file in files {
        assert!(out.contains(&file), "{file}: {out}");
    }
}

#[test]
fn test_files_in_a_folder_are_no_topologies() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "", "cases: []\n");
    let out = Ran::from(wattle().current_dir(folder.path()).args(["check", "."]).output().unwrap()).ok();
    assert!(out.contains("lab.yaml: ok"), "{out}");
}

#[test]
fn an_event_that_comes_later_comes_at_its_time_without_waiting() {
    let later = "  events:\n  - { topic: orders, data: look, attributes: { delay: 30d } }\n";
    // A look says what time it is; the topic is given the event when that has come.
    let out = fails("", &format!("{later}  expect: {{ outputs: {{ done: [{{ data: x }}] }} }}\n"));
    assert!(out.contains("wall 1769817600s"), "2026-01-31: {out}");
    // What is given in between is in front of it.
    let between = "  - { topic: orders, after: 1d, data: echo }\n  - { topic: orders, after: 40d, data: echo 2 }\n";
    let expect = "  expect: { outputs: { done: [{ data: echo }, {}, { data: echo 2 }] } }\n";
    one("", &format!("{later}{between}{expect}").replace("topic: orders,", "topic: orders, key: a,")).ok();
}

#[test]
fn an_event_that_is_not_taken_in_is_expected_or_fails_the_case() {
    let folder = tempfile::tempdir().unwrap();
    let topology = "wattle: v1\nname: lab\ntopics: { orders: { key: data.id, lifecycle: { state: data.is, start: \
        [new], allow: \
                    { new: [old] } } } }\n";
    std::fs::write(folder.path().join("lab.yaml"), topology).unwrap();
    let run = |expect: &str| {
        let events = "events: [{ data: { id: a, is: new } }, { id: early, data: { id: b, is: old } }, { data: { is: \
            new } }, \
                      { data: { id: a, is: old } }]";
        let cases = format!("cases:\n- name: it\n  {events}\n  expect: {expect}\n");
        std::fs::write(folder.path().join("lab.test.yaml"), cases).unwrap();
        test(folder.path(), &["lab.yaml"])
    };
    run("{ refused: [{ event: early, reason: old }, { event: '3', reason: key }] }").ok();
    let ran = run("{ refused: [{ event: early, reason: nothing like it }, { event: '3' }] }");
    assert!(ran.code == Some(1) && ran.out.contains("the events that are not taken in"), "{ran:?}");
    assert_eq!(run("{ refused: [{ event: early }] }").code, Some(1));
    assert_eq!(run("{ refused: [{}, {}, {}] }").code, Some(1));
    assert_eq!(run("{}").code, Some(1), "where none is expected");
}
