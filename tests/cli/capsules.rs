//! `wattle capsule`, and capsules as cases of `wattle test`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bus::{Bus, Ran, wattle};
use crate::common::guests::guest_path;

/// A bus that has handled these events, each with its data, and ended; what it kept is in `data`.
fn handled(folder: &Path, more: &str, data: &[&str]) {
    let plugin = guest_path("hostile");
    let topology = format!(
        "wattle: v1\nname: lab\ntopics: {{ orders: {{}}, done: {{}} }}\nsubscribers:\n  do:\n    from: orders\n    \
         plugin: \
         {}\n    to: [done]\n    retry: {{ attempts: 2, backoff: {{ initial: 1ms }} }}\n    config: {{ public: told, \
         secret: {{ file: key }} }}\n{more}",
        plugin.display()
    );
    std::fs::write(folder.join("lab.yaml"), topology).unwrap();
    std::fs::write(folder.join("key"), "hush-hush").unwrap();
    let event = |(id, data): (usize, &&str)| {
        let data = serde_json::to_string(data).unwrap();
        let head = r#"{"specversion":"1.0","source":"/s","type":"t","subject":"k","datacontenttype":"text/plain""#;
        format!("{head},\"id\":\"e{id}\",\"data\":{data}}}\n")
    };
    std::fs::write(folder.join("events.ndjson"), data.iter().enumerate().map(event).collect::<String>()).unwrap();
    let arguments =
        ["dev", "lab.yaml", "--listen", "127.0.0.1:0", "--once", "--data", "data", "--input", "events.ndjson"];
    Ran::from(wattle().current_dir(folder).args(arguments).output().unwrap()).ok();
}

fn capsule(folder: &Path, arguments: &[&str]) -> Ran {
    wattle().current_dir(folder).env("WATTLE_DATA", "data").arg("capsule").args(arguments).output().unwrap().into()
}

/// The capsules of a data folder, oldest first.
fn listed(folder: &Path) -> Vec<Value> {
    capsule(folder, &["list", "-o", "json"]).json()
}

/// A bus on the data folder that [`handled`] has left.
fn served(folder: &Path) -> Bus {
    let mut command = wattle();
    command.current_dir(folder).args(["run", "lab.yaml", "--data", "data", "--listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json"]);
    Bus::spawn(command)
}

#[test]
fn capsules_of_a_bus_elsewhere_are_listed_shown_fetched_and_run() {
    let folder = tempfile::tempdir().unwrap();
    handled(folder.path(), "    capsules: 3\n", &["panic no such shelf", "reject", "echo", "state get a\nreject"]);
    let local = listed(folder.path());
    let bus = served(folder.path());
    let (elsewhere, server) = (tempfile::tempdir().unwrap(), bus.address.clone());
    let run = |arguments: &[&str]| -> Ran {
        let mut command = wattle();
        command.current_dir(elsewhere.path()).env("WATTLE_SERVER", &server).arg("capsule").args(arguments);
        command.output().unwrap().into()
    };
    let kept = run(&["list", "-o", "json"]).json();
    let seen = |of: &Value| {
        let of = ["saved_ns", "subscriber", "partition", "offset", "key", "digest", "wasm_digest"].map(|key| &of[key]);
        of.map(Value::clone)
    };
    assert_eq!(kept.iter().map(seen).collect::<Vec<_>>(), local.iter().map(seen).collect::<Vec<_>>());
    assert!(kept.iter().zip(&local).all(|(one, other)| one["event"]["id"] == other["event"]["id"]), "{kept:#?}");
    let place = |of: &Value| of["capsule"].as_str().unwrap().to_owned();
    let panicked = place(&kept[0]);
    let text = run(&["list"]).ok();
    assert!(text.contains(&panicked) && text.contains("no such shelf"), "{text}");

    let whole = run(&["show", &panicked, "-o", "json"]).json().remove(0);
    let mut expected = local[0].clone();
    expected.as_object_mut().unwrap().remove("file");
    assert_eq!(whole, expected);
    assert!(run(&["show", panicked.strip_prefix("lab/").unwrap()]).ok().contains("no such shelf"), "by the short name");

    // the component comes from the bus as well
    let ran = run(&["run", &panicked]);
    assert!(ran.code == Some(0) && ran.out.contains("reproduced"), "{ran:?}");
    let saved = run(&["fetch", &panicked, "--to", "failed", "-o", "json"]).json().remove(0);
    let [capsule, component] = ["capsule", "component"].map(|key| saved[key].as_str().unwrap().to_owned());
    assert!(elsewhere.path().join(component).is_file());
    let stored = std::fs::read(folder.path().join(file(&local[0]))).unwrap();
    assert_eq!(std::fs::read(elsewhere.path().join(&capsule)).unwrap(), stored);

    let missing = run(&["show", "lab/do/00000000000000000001-0-0"]);
    assert!(missing.code == Some(1) && missing.notices.contains("there is no capsule"), "{missing:?}");
    let nobody = run(&["show", "lab/nobody/00000000000000000001-0-0"]);
    assert!(nobody.code == Some(1) && nobody.notices.contains("there is no"), "{nobody:?}");
    let misspelt = run(&["show", "failed/nothing.capsule"]);
    assert!(misspelt.code == Some(2) && misspelt.notices.contains("there is no file"), "{misspelt:?}");
    // with a data folder no bus is asked
    let by_folder = |arguments: &[&str]| capsule_of(folder.path(), arguments);
    assert_eq!(by_folder(&["list", "-o", "json"]).json().len(), 3);
    assert!(by_folder(&["show", &panicked]).ok().contains("no such shelf"));
    bus.stop();

    // nor is one needed for what was fetched
    let ran = run(&["run", &capsule]);
    assert!(ran.code == Some(0) && ran.out.contains("reproduced"), "{ran:?}");
    assert_eq!(run(&["list"]).code, Some(3));
}

fn capsule_of(folder: &Path, arguments: &[&str]) -> Ran {
    let data = folder.join("data");
    let mut command = wattle();
    command.env("WATTLE_SERVER", "127.0.0.1:1").arg("capsule").args(arguments).arg("--data").arg(data);
    command.output().unwrap().into()
}

fn file(capsule: &Value) -> &str {
    capsule["file"].as_str().unwrap()
}

#[test]
fn a_failure_is_had_again_with_what_its_event_saw() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // One call has them all: the last reads what one in front of it in the same call wrote, and what it wrote itself.
    handled(folder, "", &["state set a=1", "state get a\nget b\nset a=2\nget a\nlist\npanic", "echo"]);
    let found = listed(folder);
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&found["subscriber"], &found["attempt"], &found["offset"]), (&"lab/do".into(), &2.into(), &1.into()));
    assert_eq!((&found["failure"]["kind"], &found["event"]["id"]), (&"trap".into(), &"e1".into()));
    let value =
        |key: &str, value: Value| serde_json::json!({"value": {"bucket": "default", "key": key, "value": value}});
    assert_eq!(found["state"][0], value("a", serde_json::json!({"text": "1"})), "{found}");
    assert_eq!(found["state"][1], value("b", Value::Null), "{found}");
    assert_eq!((&found["config"]["public"], &found["config"]["secret"]), (&"told".into(), &Value::Null));
    let bytes = std::fs::read(folder.join(file(found))).unwrap();
    assert!(!String::from_utf8(bytes).unwrap().contains("hush-hush"));

    let ran = capsule(folder, &["run", file(found)]);
    assert_eq!(ran.code, Some(0), "every version that ran is kept in the data folder: {ran:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(file(found)), elsewhere.path().join("it.capsule")).unwrap();
    let ran = capsule(elsewhere.path(), &["run", "it.capsule"]);
    assert_eq!(ran.code, Some(1), "the component that failed is nowhere to be found: {ran:?}");
    assert!(ran.notices.contains("--plugin") && ran.notices.contains("--topology"), "{ran:?}");
    let ran = capsule(folder, &["run", file(found), "--topology", "lab.yaml"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("reproduced") && ran.out.contains("with state written"), "{ran:?}");
    assert!(ran.notices.contains("config.secret is a secret"), "{ran:?}");
    let given = capsule(folder, &["run", file(found), "--topology", "lab.yaml", "--config", "secret=x"]);
    assert!(given.code == Some(0) && !given.notices.contains("secret"), "{given:?}");

    // Anywhere: beside its component, without the bus's folder.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(file(found)), elsewhere.path().join("it.capsule")).unwrap();
    let name = format!("{}.wasm", found["wasm_digest"].as_str().unwrap());
    std::fs::copy(guest_path("hostile"), elsewhere.path().join(name)).unwrap();
    let report = capsule(elsewhere.path(), &["run", "it.capsule", "-o", "json"]).json();
    assert_eq!(report[0]["outcome"], "reproduced");
    assert_eq!(report[0]["failure"]["backtrace"], found["failure"]["backtrace"]);
    assert!(report[0]["failure"]["backtrace"].is_string(), "{report:?}");
    assert_eq!(report[0]["unknown_reads"], serde_json::json!([]), "all that it reads is in the capsule");

    let shown = capsule(elsewhere.path(), &["show", "it.capsule"]).ok();
    for part in ["default a = 1", "default b = (nothing)", "a secret, which is not kept", "trap: ", "\"id\": \"e1\""] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let listed = capsule(folder, &["list"]).ok();
    assert!(listed.contains("lab/do") && listed.contains("e1") && listed.contains("trap"), "{listed}");
}

#[test]
fn another_plugin_handles_the_event_or_fails_in_another_way() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    handled(folder, "", &["reject", "retry"]);
    let found = listed(folder);
    assert_eq!(found.len(), 2, "{found:?}");
    // Not what it was: the counter rejects what is not JSON, in other words.
    let counter = guest_path("counter");
    let ran = capsule(folder, &["run", file(&found[0]), "--plugin", counter.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.notices.contains("the plugin is refused"), "its ports are others: {ran:?}");
    let same = guest_path("hostile");
    let ran = capsule(folder, &["run", file(&found[0]), "--plugin", same.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "what fails in the same way is no better: {ran:?}");
    assert!(ran.out.contains("reproduced"), "{ran:?}");
}

/// A capsule whose event a plugin that is told something else handles.
fn forged(folder: &Path, edit: impl Fn(&mut Value)) -> PathBuf {
    let found = listed(folder);
    let text = std::fs::read_to_string(folder.join(file(&found[0]))).unwrap();
    let mut body: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    edit(&mut body);
    let body = serde_json::to_string(&body).unwrap();
    let path = folder.join("forged.capsule");
    std::fs::write(&path, format!("wattle capsule 1 {}\n{body}", blake3::hash(body.as_bytes()))).unwrap();
    path
}

#[test]
fn what_is_no_longer_so_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    handled(folder, "", &["until 9"]);
    let run = |path: &Path| {
        let report = capsule(folder, &["run", path.to_str().unwrap(), "--topology", "lab.yaml", "-o", "json"]);
        (report.code, serde_json::from_str::<Value>(&report.out).unwrap())
    };
    let (code, report) = run(&forged(folder, |body| body["attempt"] = 9.into()));
    assert_eq!((code, &report["outcome"]), (Some(1), &"handled".into()), "{report}");
    assert_eq!((&report["outputs"][0]["data"], &report["outputs"][0]["port"]), (&"9".into(), &"done".into()));
    let (code, report) = run(&forged(folder, |body| body["failure"]["reason"] = "other words".into()));
    assert_eq!((code, &report["outcome"]), (Some(1), &"failed_otherwise".into()), "{report}");
    // the same failure, of a version that is not the one which failed
    let (_, report) = run(&forged(folder, |_| {}));
    assert_eq!((&report["other_settings"], &report["outcome"]), (&false.into(), &"reproduced".into()), "{report}");
    let edits: [fn(&mut Value); 2] =
        [|body| body["config"]["public"] = "x".into(), |body| body["limits"]["time_ns"] = 7_000_000.into()];
    for edit in edits {
        let path = forged(folder, edit);
        assert_eq!(run(&path).1["other_settings"], true);
        let said = capsule(folder, &["run", path.to_str().unwrap(), "--topology", "lab.yaml"]).notices;
        assert!(said.contains("this is not version") && said.contains("its limits are others"), "{said}");
    }
    let path = forged(folder, |_| {});
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = b' ';
    std::fs::write(&path, bytes).unwrap();
    let ran = capsule(folder, &["show", path.to_str().unwrap()]);
    assert!(ran.code == Some(78) && ran.notices.contains("it is damaged"), "{ran:?}");
}

#[test]
fn as_many_are_kept_as_the_topology_says() {
    for (more, expected) in [("    capsules: 2\n", &["e1", "e2"][..]), ("    capsules: 0\n", &[])] {
        let folder = tempfile::tempdir().unwrap();
        handled(folder.path(), &format!("    batch: {{ max: 1 }}\n{more}"), &["reject", "reject", "reject"]);
        let ids: Vec<String> =
            listed(folder.path()).iter().map(|found| found["event"]["id"].as_str().unwrap().into()).collect();
        assert_eq!(ids, expected, "{more}");
    }
}

#[test]
fn a_capsule_is_saved_whatever_becomes_of_its_event() {
    for (more, failure) in [("    on_failure: park\n", "retry"), ("    on_failure: halt\n", "reject")] {
        let folder = tempfile::tempdir().unwrap();
        handled(folder.path(), more, &[failure]);
        let found = listed(folder.path());
        assert_eq!(found.len(), 1, "{more}: {found:?}");
        assert_eq!(found[0]["failure"]["kind"], failure);
    }
}

#[test]
fn a_capsule_is_a_case() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    handled(folder, "", &["state set a=1\nset gone=x", "state get a\nget gone\nset a=2\ndelete gone\nreject"]);
    let found = listed(folder);
    let test = |capsule: &str, expect: &str| {
        let cases = format!("cases:\n- name: it\n  capsule: {capsule}\n  expect: {expect}\n");
        std::fs::write(folder.join("lab.test.yaml"), cases).unwrap();
        Ran::from(wattle().current_dir(folder).args(["test", "lab.yaml"]).output().unwrap())
    };
    let reason = r"1\nx\ndone\ndone";
    test(
        file(&found[0]),
        &format!("{{ failures: [{{ event: e1, kind: reject, reason: \"{reason}\", attempts: 1 }}] }}"),
    )
    .ok();
    let ran = test(file(&found[0]), "{}");
    assert!(ran.code == Some(1) && ran.out.contains("+   \"kind\": \"reject\""), "{ran:?}");
    // The same event for a plugin that handles it: what it writes goes over what was read.
    let data = "state get a\nget gone\nset a=2\ndelete gone";
    let fixed = forged(folder, |body| {
        let event = wattle::model::Event {
            id: "e1".into(),
            source: "/s".into(),
            r#type: "t".into(),
            data: Some(wattle::model::event::Data::Text(data.into())),
            ..wattle::model::Event::default()
        };
        use base64::Engine as _;
        body["event"] = base64::engine::general_purpose::STANDARD.encode(event.encode()).into();
    });
    let fixed = fixed.to_str().unwrap();
    let expect =
        r"{ outputs: { done: [{ key: k, data: '1\nx\ndone\ndone' }] }, state: { do: { default: { a: '2' } } } }";
    let expect = expect.replace(r"'1\nx\ndone\ndone'", "\"1\\nx\\ndone\\ndone\"");
    test(fixed, &expect).ok();
    assert_eq!(test(fixed, &expect.replace("a: '2'", "a: '3'")).code, Some(1));
    assert_eq!(test(fixed, "{ outputs: none }").code, Some(1));
    // Somebody else sends to another topic.
    let (lab, hostile) = (folder.join("lab.yaml"), guest_path("hostile"));
    let topology = std::fs::read_to_string(&lab).unwrap().replace("done: {} }", "done: {}, totals: {} }");
    let two = format!("{topology}  two: {{ from: done, plugin: {}, to: [totals] }}\n", hostile.display());
    std::fs::write(&lab, two).unwrap();
    let ran = test(fixed, &expect.replace("done: [", "totals: [{}], done: ["));
    assert!(
        ran.code == Some(1) && ran.out.contains("the outputs in `lab/totals`"),
        "nothing of it is sent there: {ran:?}"
    );
    let ran = test(fixed, "{ failures: [{ end: parked }] }");
    assert!(ran.code == Some(78) && ran.notices.contains("a capsule is one attempt"), "{ran:?}");
    let ran = test("nothing.capsule", "{}");
    assert_eq!(ran.code, Some(78), "{ran:?}");
}

/// What comes of a capsule is what a bus would do with it: with the key, the schema and the limits of the topic behind
/// the port.
#[test]
fn the_outputs_of_a_capsule_are_those_that_would_be_committed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    handled(folder, "", &["reject"]);
    let event = |data: &str| {
        let data = Some(wattle::model::event::Data::Text(data.into()));
        let (id, source, r#type) = ("e1".into(), "/s".into(), "t".into());
        wattle::model::Event { id, source, r#type, data, ..wattle::model::Event::default() }.encode()
    };
    use base64::Engine as _;
    let capsule = |data: &str| {
        let event = base64::engine::general_purpose::STANDARD.encode(event(data));
        forged(folder, |body| body["event"] = event.clone().into())
    };
    let topology = std::fs::read_to_string(folder.join("lab.yaml")).unwrap();
    let test = |done: &str, capsule: &Path, expect: &str| {
        std::fs::write(folder.join("lab.yaml"), topology.replace("done: {}", &format!("done: {done}"))).unwrap();
        let cases = format!("cases:\n- name: it\n  capsule: {}\n  expect: {expect}\n", capsule.display());
        std::fs::write(folder.join("lab.test.yaml"), cases).unwrap();
        Ran::from(wattle().current_dir(folder).args(["test", "lab.yaml"]).output().unwrap())
    };
    let good = capsule("until 1");
    test("{}", &good, "{ outputs: { done: [{ key: k, data: 1 }] } }").ok();
    test("{ key: \"'k' + string(data)\", partitions: 3 }", &good, "{ outputs: { done: [{ key: k1, data: 1 }] } }").ok();
    std::fs::write(folder.join("text.json"), r#"{"type": "string"}"#).unwrap();
    let refused = "{ failures: [{ event: e1, kind: refused, reason: does not fit the schema }] }";
    test("{ schema: text.json }", &good, refused).ok();
    assert_eq!(test("{ schema: text.json }", &good, "{ outputs: { done: [{}] } }").code, Some(1));
    test("{}", &capsule("attribute delay=never"), "{ failures: [{ kind: refused }] }").ok();
    // What was not read when it failed is not in the capsule, and nothing says what it would be.
    let ran = test("{}", &capsule("state get other"), "{}");
    assert!(ran.code == Some(1) && ran.out.contains("which is not in the capsule"), "{ran:?}");
}
