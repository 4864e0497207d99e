//! Topologies that change while their bus runs, and across its starts.

use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;

use super::bus::{Bus, Ran, wattle};
use crate::common::guests::guest;
use crate::common::trees::PATIENCE;

const BEFORE: &str = "wattle: v1
name: shop
topics: { jobs: { dedupe: off }, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, config: { describe: done }, to: [done], retry: { attempts: 1 } }
";

/// The same with `sms` beside `work`.
fn after() -> String {
    let sms =
        "  sms: { from: jobs, plugin: work.wasm, config: { describe: sent }, to: [sent], retry: { attempts: 1 } }\n";
    format!("{}{sms}", BEFORE.replace("done: {} }", "done: {}, sent: {} }"))
}

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(shop.path("work.wasm"), guest("hostile")).unwrap();
        shop.write(BEFORE);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("shop.yaml"), text).unwrap();
    }

    fn file(&self) -> String {
        self.path("shop.yaml").display().to_string()
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = wattle();
        command.arg("run").arg(self.path("shop.yaml")).arg("--data").arg(self.path("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
        command
    }
}

/// Waits until so many events are in a topic.
fn has(bus: &Bus, topic: &str, events: usize) {
    let begin = Instant::now();
    loop {
        let found = bus.run(&["tail", topic]).json().len();
        if found >= events {
            assert_eq!(found, events, "{topic}");
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{}", bus.run(&["status"]).ok());
    }
}

fn publish(bus: &Bus, data: &str) {
    bus.run(&["publish", "jobs", data, "--key", "k"]).ok();
}

#[test]
fn a_subscriber_is_added_to_a_running_bus_and_stays_over_a_start() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    assert_eq!(bus.run(&["plan", &shop.file()]).ok(), "nothing changes\n");
    shop.write(&after());
    let plan = bus.run(&["plan", &shop.file()]).ok();
    assert!(plan.starts_with("+ topic shop/sent: added\n    a child of shop/sms\n"), "{plan}");
    assert!(plan.contains("+ subscriber shop/sms: added\n    takes from shop/jobs, all stored events\n"), "{plan}");
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("the files say something else") && status.contains("+ topic shop/sent"), "{status}");
    assert_eq!(bus.run(&["apply", &shop.file()]).ok(), plan);
    has(&bus, "sent", 1);
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("what runs is what the files say"), "{status}");
    bus.stop();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 2");
    has(&bus, "sent", 2);
    has(&bus, "done", 2);
    bus.stop();
}

/// A command that the README tells to run, and that this test runs.
fn told(line: &str) -> Vec<&str> {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().any(|told| told.split("  #").next().unwrap().trim_end() == line), "not told: {line}");
    line.split_once("wattle ").map_or_else(|| line.split_once(" -- ").unwrap().1, |(_, line)| line).split(' ').collect()
}

#[test]
fn the_first_thing_to_try_goes_as_the_readme_tells() {
    guest("sms"); // also the others
    let mut command = wattle();
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(told("cargo run --release -- dev topologies/orders.yaml --input topologies/orders.ndjson"));
    command.args(["--listen", "127.0.0.1:0"]);
    let mut bus = Bus::spawn_dev(command);
    bus.wait_for("published the input");
    let plan = bus.run(&told("wattle plan topologies/orders-sms.yaml")).ok();
    let added = "+ topic shop/texts: added\n    a child of shop/sms\n+ subscriber shop/sms: added\n    takes from \
        shop/parcels, \
                 all stored events\n";
    assert!(plan.starts_with(added), "{plan}");
    assert!(plan.contains("= topic shop/orders: would be removed with --prune\n"), "{plan}");
    assert_eq!(bus.run(&told("wattle apply topologies/orders-sms.yaml")).ok(), added);
    has(&bus, "texts", 195);
    has(&bus, "messages", 195);
    let texts = bus.run(&told("wattle tail texts --count 3")).json();
    let text = texts[0]["event"]["data"]["text"].as_str().unwrap();
    assert!(texts.len() == 3 && text.contains("is on its way, number WTL-o-"), "{texts:?}");
    let status = bus.run(&told("wattle status")).ok();
    assert!(status.contains("└─ sms") && status.contains("195 handled, 195 emitted\n"), "{status}");
    bus.stop();
}

#[test]
fn what_is_wrong_changes_nothing_and_says_why() {
    let shop = Shop::new();
    std::fs::write(shop.path("bad.wasm"), "no component").unwrap();
    let bus = Bus::spawn(shop.command(&[]));
    for (text, words) in [
        (BEFORE.replace("from: jobs", "from: nowhere"), "nowhere"),
        (BEFORE.replace("jobs: {", "jobs: { partitions: 2,"), "partitions"),
        (after().replace("sms: { from: jobs, plugin: work.wasm", "sms: { from: jobs, plugin: bad.wasm"), "bad.wasm"),
    ] {
        shop.write(&text);
        let applied = bus.run(&["apply", &shop.file()]);
        assert_ne!(applied.code, Some(0), "{words}");
        assert!(applied.notices.contains(words), "{words}: {}", applied.notices);
    }
    shop.write(BEFORE);
    for command in ["plan", "apply"] {
        let ran = bus.run(&[command, &shop.file()]);
        assert_eq!((ran.code, &*ran.out, &*ran.notices), (Some(0), "nothing changes\n", ""));
    }
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    bus.stop();
}

#[test]
fn a_start_with_files_that_have_not_changed_runs_what_was_applied_since() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    let sms = after().lines().last().unwrap().to_owned();
    let sms = format!("wattle: v1\nname: shop\ntopics: {{ sent: {{}} }}\nsubscribers:\n{sms}\n");
    std::fs::write(shop.path("sms.yaml"), sms).unwrap();
    bus.run(&["apply", &shop.path("sms.yaml").display().to_string()]).ok();
    bus.signal("KILL");
    bus.end();
    for number in 1..3 {
        let bus = Bus::spawn(shop.command(&[]));
        publish(&bus, &format!("echo {number}"));
        has(&bus, "sent", number);
        let status = bus.run(&["status", "--files", &shop.file()]).ok();
        assert!(status.contains("what runs is what the files say and more"), "{status}");
        assert!(status.contains("= subscriber shop/sms: would be removed with --prune\n"), "{status}");
        bus.signal("TERM");
        let (_, said) = bus.end();
        assert!(!said.contains("not the files"), "it is what they say, and more: {said}");
    }
    // What was applied is the last word also where the file says something else.
    let other = shop.path("other.yaml");
    std::fs::write(&other, BEFORE.replace("attempts: 1", "attempts: 3")).unwrap();
    let bus = Bus::spawn(shop.command(&[]));
    bus.run(&["apply", &other.display().to_string()]).ok();
    bus.stop();
    let bus = Bus::spawn(shop.command(&[]));
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("the files say something else"), "{status}");
    bus.signal("TERM");
    let (_, said) = bus.end();
    assert!(said.contains("the applied topology runs, not the files, which are unchanged"), "{said}");
    // A file that has changed proposes what it says, on top of what is applied.
    shop.write(&BEFORE.replace("attempts: 1", "attempts: 2"));
    let bus = Bus::spawn(shop.command(&[]));
    has(&bus, "sent", 2);
    assert!(!bus.run(&["status"]).ok().contains("does not run"));
    bus.stop();
    let bus = Bus::spawn(shop.command(&["--prune"]));
    has(&bus, "sent", 2);
    assert!(bus.run(&["status"]).ok().contains("topic `shop/sent` still has 2 events"), "it is lost by nobody");
    bus.stop();
    let bus = Bus::spawn(shop.command(&["--prune", "--allow-loss"]));
    assert_ne!(bus.run(&["tail", "sent"]).code, Some(0), "it is gone");
    bus.stop();
}

#[test]
fn files_that_cannot_run_keep_no_bus_from_starting_with_what_was_applied() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    bus.stop();
    let broken = [
        ("a syntax error", "topics: [".to_owned(), "invalid"),
        ("a wrong type", BEFORE.replace("attempts: 1", "attempts: x"), "invalid"),
        ("a topic that is not there", BEFORE.replace("from: jobs", "from: nowhere"), "invalid"),
        ("a port that the plugin does not have", BEFORE.replace("to: [done]", "to: { uot: done }"), "uot"),
        (
            "a component that does not compile",
            after().replace("sms: { from: jobs, plugin: work", "sms: { from: jobs, plugin: broken"),
            "broken.wasm",
        ),
    ];
    std::fs::write(shop.path("broken.wasm"), b"\0asm\x0d\0\x01\0broken").unwrap();
    for (number, (what, text, why)) in (2..).zip(&broken) {
        assert_ne!(text, BEFORE, "{what}");
        shop.write(text);
        let bus = Bus::spawn(shop.command(&[]));
        publish(&bus, &format!("echo {number}"));
        has(&bus, "done", number);
        let status = bus.run(&["status"]).ok();
        assert!(status.contains(why), "{what}: {status}");
        bus.stop();
    }
    std::fs::remove_file(shop.file()).unwrap();
    let bus = Bus::spawn(shop.command(&[]));
    has(&bus, "done", 6);
    assert!(bus.run(&["status"]).ok().contains("cannot read the topology files"));
    bus.stop();
    shop.write(BEFORE);
    let bus = Bus::spawn(shop.command(&[]));
    assert!(!bus.run(&["status"]).ok().contains("topology files"));
    bus.stop();
}

#[test]
fn what_would_lose_events_has_to_be_allowed_also_at_a_start() {
    let shop = Shop::new();
    shop.write(&after());
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "sent", 1);
    has(&bus, "done", 1);
    shop.write(BEFORE);
    let shown = bus.run(&["plan", "--prune", &shop.file()]);
    assert_eq!(shown.code, Some(78), "an apply would be refused");
    let plan = bus.run(&["plan", "--prune", &shop.file(), "--allow-loss"]).ok();
    assert_eq!(plan, shown.out);
    assert!(plan.contains("- subscriber shop/sms: removed\n"), "{plan}");
    assert!(plan.contains("needs --allow-loss: topic `shop/sent` still has 1 events"), "{plan}");
    let refused = bus.run(&["apply", "--prune", &shop.file()]);
    assert!(refused.code != Some(0) && refused.notices.contains("--allow-loss"), "{}", refused.notices);
    bus.stop();
    // A start with such a file runs what was applied, says so, and says the same as a plan; as often as it is started.
    for _ in 0..2 {
        let bus = Bus::spawn(shop.command(&["--prune"]));
        has(&bus, "sent", 1);
        assert_eq!(bus.run(&["plan", "--prune", &shop.file()]).out, shown.out);
        let status = bus.run(&["status"]).ok();
        let lost = shown.out.lines().find_map(|line| line.strip_prefix("needs --allow-loss: ")).unwrap();
        assert!(status.contains(&format!("what the files of the start say does not run: {lost}\n")), "{status}");
        let status = &bus.run(&["status", "-o", "json"]).json()[0];
        assert_eq!(status["files_refused"][0], lost);
        bus.signal("TERM");
        let (_, said) = bus.end();
        assert!(said.contains("still has 1 events") && said.contains("--allow-loss"), "{said}");
        assert!(said.contains("the applied topology runs, not the files, which were refused"), "{said}");
    }
    // What cannot be runs as little, and what is applied live is the last word.
    shop.write(&after().replace("jobs: {", "jobs: { partitions: 2,"));
    let bus = Bus::spawn(shop.command(&["--allow-loss"]));
    assert!(bus.run(&["status"]).ok().contains("has 1 partitions and cannot have 2"));
    shop.write(&after());
    bus.run(&["apply", &shop.file()]).ok();
    assert!(!bus.run(&["status"]).ok().contains("does not run"));
    has(&bus, "sent", 1);
    bus.stop();
    shop.write(BEFORE);
    let bus = Bus::spawn(shop.command(&["--prune", "--allow-loss"]));
    assert_ne!(bus.run(&["tail", "sent"]).code, Some(0), "it is gone");
    publish(&bus, "echo 2");
    has(&bus, "done", 2);
    let refused = bus.run(&["gc"]);
    assert!(refused.code != Some(0) && refused.notices.contains("has not handled 1 events"), "{}", refused.notices);
    let shown = bus.run(&["gc", "--dry-run"]);
    assert_eq!(shown.code, refused.code, "as it would exit: {shown:?}");
    let sms = "shop/sms (from shop/jobs) would be deleted\n    needs --allow-loss: `shop/sms` has not handled 1";
    assert!(shown.out.starts_with(sms), "{}", shown.out);
    assert_eq!(shown.out.matches("shop/sms ").count(), 1, "each once: {}", shown.out);
    let shown = bus.run(&["gc", "--dry-run", "--allow-loss", "-o", "json"]).json();
    assert_eq!(shown[0]["would_delete"][0], "shop/sms (from shop/jobs)");
    assert_eq!(
        bus.run(&["gc", "--allow-loss"]).ok(),
        "shop/sms (from shop/jobs) deleted\ntopic shop/sent deleted\ntopic shop/sms.dead deleted\n"
    );
    assert_eq!(bus.run(&["gc"]).ok(), "there is nothing to delete\n");
    bus.stop();
}

#[test]
fn what_is_renamed_is_found_by_its_new_name_with_all_that_it_has() {
    let shop = Shop::new();
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    publish(&bus, "reject");
    has(&bus, "done", 1);
    has(&bus, "work.dead", 1);
    let versions = bus.run(&["plugin", "versions", "work"]).ok();
    let renamed = BEFORE
        .replace("jobs: {", "tasks: { renamed_from: jobs,")
        .replace("work: { from: jobs", "worker: { renamed_from: work, from: tasks");
    shop.write(&renamed);
    let plan = bus.run(&["plan", &shop.file()]).ok();
    let words = "its lanes end their calls and continue at their positions";
    let called = "its input topic is called shop/tasks, and was shop/jobs";
    let expected = format!(
        "~ topic shop/jobs -> shop/tasks: renamed\n~ subscriber shop/work -> shop/worker: renamed\n    {called}\n    \
         {words}\n"
    );
    assert_eq!(plan, expected);
    assert_eq!(bus.run(&["apply", &shop.file()]).ok(), plan);
    assert_eq!(bus.run(&["plan", &shop.file()]).ok(), "nothing changes\n");
    assert_eq!(bus.run(&["plugin", "versions", "worker"]).ok(), versions);
    assert_eq!(bus.run(&["gc"]).ok(), "there is nothing to delete\n");
    has(&bus, "worker.dead", 1);
    assert_ne!(bus.run(&["tail", "jobs"]).code, Some(0), "the old name is free");
    bus.stop();
    // And at a start, on a file that calls the other topic otherwise.
    shop.write(
        &renamed.replace("done: {}", "results: { renamed_from: done }").replace("to: [done]", "to: { done: results }"),
    );
    let bus = Bus::spawn(shop.command(&[]));
    has(&bus, "results", 1);
    bus.run(&["publish", "tasks", "echo 2", "--key", "k"]).ok();
    has(&bus, "results", 2);
    let status = bus.run(&["status", "--files", &shop.file()]).ok();
    assert!(status.contains("what runs is what the files say"), "{status}");
    bus.stop();
}

#[test]
fn files_of_a_start_are_watched_also_where_an_upload_replaces_them_until_their_subscriber_is_removed() {
    let shop = Shop::new();
    let marked = |mark| [guest("hostile").as_slice(), &[0, 3, 1, b'm', mark]].concat(); // a custom section named `m`
    std::fs::write(shop.path("sms.wasm"), marked(0)).unwrap();
    shop.write(&after().replace("sms: { from: jobs, plugin: work.wasm", "sms: { from: jobs, plugin: sms.wasm"));
    let mut bus = Bus::spawn(shop.command(&["--watch", "--allow-loss"]));
    bus.run(&["apply", &shop.file()]).ok();
    std::fs::write(shop.path("sms.wasm"), marked(1)).unwrap();
    let called = bus.wait_for("the new version is called from now on");
    assert!(called.contains("shop/sms"), "{called}");
    shop.write(BEFORE);
    bus.run(&["apply", "--prune", &shop.file(), "--allow-loss"]).ok();
    std::fs::write(shop.path("sms.wasm"), marked(2)).unwrap();
    std::fs::write(shop.path("work.wasm"), marked(3)).unwrap();
    let called = bus.wait_for("the new version is called from now on");
    assert!(called.contains("shop/work"), "{called}");
    bus.signal("TERM");
    let (_, said) = bus.end();
    assert!(!said.contains("\"ERROR\""), "nobody looks at the file of who is gone: {said}");
}

/// Everything that the topology names is gone, and so are the tools that could build it.
fn without_files(shop: &Shop, more: &[&str]) -> std::process::Command {
    let mut command = wattle();
    command.arg("run").args(more).arg("--data").arg(shop.path("data"));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).env("PATH", "/nowhere");
    command
}

#[test]
fn a_data_folder_alone_has_all_that_a_bus_needs() {
    let shop = Shop::new();
    let nothing = without_files(&shop, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(
        nothing.status.code() == Some(2) && said.contains("no topology was applied to this data folder yet"),
        "{said}"
    );
    assert!(!shop.path("data").exists(), "nothing is made");
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    bus.stop();
    std::fs::remove_file(shop.path("work.wasm")).unwrap();
    std::fs::remove_file(shop.path("shop.yaml")).unwrap();
    let bus = Bus::spawn(without_files(&shop, &[]));
    publish(&bus, "echo 2");
    has(&bus, "done", 2);
    bus.stop();
}

#[test]
fn a_missing_secret_halts_its_subscriber_and_nothing_else() {
    let shop = Shop::new();
    let token = shop.path("token");
    std::fs::write(&token, "hunter2").unwrap();
    let secret = format!("config: {{ describe: done, token: {{ file: {} }} }}", token.display());
    shop.write(&after().replacen("config: { describe: done }", &secret, 1));
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    bus.stop();
    std::fs::remove_file(&token).unwrap();
    let mut bus = Bus::spawn_silent(shop.command(&[]));
    bus.wait_for("halted: the deployed version cannot run");
    bus.serves();
    publish(&bus, "echo 2");
    has(&bus, "sent", 2);
    let status = bus.run(&["status"]).ok();
    for words in ["1 lane halted", "cannot read the secret of `config.token`", "`wattle apply` the topology again"] {
        assert!(status.contains(words), "{words}: {status}");
    }
    let json: serde_json::Value = bus.run(&["status", "-o", "json"]).json().remove(0);
    let lanes: Vec<_> = json["subscribers"].as_array().unwrap().iter().map(|of| of["lanes"].to_string()).collect();
    assert_eq!(lanes, [r#"["halted"]"#, r#"["running"]"#]);
    bus.run(&["apply", &shop.file()]).ok();
    assert!(bus.run(&["status"]).ok().contains("still halted"), "it is still missing");
    std::fs::write(&token, "hunter2").unwrap();
    bus.run(&["apply", &shop.file()]).ok();
    has(&bus, "done", 2);
    bus.stop();
}

#[test]
fn files_whose_plugins_are_gone_propose_nothing_and_what_was_decided_runs() {
    let shop = Shop::new();
    let plugin = shop.path("work");
    std::fs::create_dir_all(plugin.join("target/wasm32-wasip2/release")).unwrap();
    std::fs::write(plugin.join("Cargo.toml"), "[package]\nname = \"work\"\n").unwrap();
    std::fs::rename(shop.path("work.wasm"), plugin.join("target/wasm32-wasip2/release/work.wasm")).unwrap();
    shop.write(&BEFORE.replace("plugin: work.wasm", "plugin: work"));
    let file = shop.file();
    // what was built is run where there is nothing to build with
    let bus = Bus::spawn(without_files(&shop, &[&file]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    let planned = wattle().args(["plan", &file]).env("WATTLE_SERVER", &bus.address).env("PATH", "/nowhere").output();
    let planned = planned.unwrap();
    assert_eq!(String::from_utf8_lossy(&planned.stdout), "nothing changes\n");
    bus.stop();
    for gone in [plugin.join("target"), plugin.clone()] {
        std::fs::remove_dir_all(gone).unwrap();
        let mut bus = Bus::spawn_silent(without_files(&shop, &[&file]));
        bus.wait_for("what was decided before runs where this plugin is");
        bus.serves();
        publish(&bus, "echo 2");
        bus.stop();
    }
    // one that was never decided on has to be there, so the files are refused as a whole
    shop.write(&after().replace("plugin: work.wasm", "plugin: work"));
    let bus = Bus::spawn(without_files(&shop, &[&file]));
    let status = bus.run(&["status"]).ok();
    assert!(status.contains("what the files of the start say does not run"), "{status}");
    assert!(!bus.run(&["topics"]).ok().contains("shop/sent"), "the files are refused as a whole");
    bus.stop();
}

#[test]
fn a_folder_of_something_else_is_no_data_folder() {
    let shop = Shop::new();
    let mut command = wattle();
    command.arg("run").arg(shop.path("shop.yaml")).arg("--data").arg(shop.folder.path());
    let refused = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(78) && said.contains("is not the data folder of a bus"), "{said}");
    let mut found: Vec<_> = std::fs::read_dir(shop.folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["shop.yaml", "work.wasm"], "nothing was changed");
}

#[test]
fn a_topology_that_is_applied_names_secrets_of_the_bus_and_no_others() {
    let shop = Shop::new();
    let with = |secret: &str| {
        let config = format!("config: {{ describe: done, token: {{ file: {secret} }} }}");
        let text = BEFORE.replace("config: { describe: done }", &config);
        text.replace("work.wasm", &shop.path("work.wasm").display().to_string())
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let at = |name: &str| elsewhere.path().join(name).display().to_string();
    for path in [shop.path("token"), at("own").into(), at("key").into()] {
        std::fs::write(path, "hunter2").unwrap();
    }
    shop.write(&with(&at("own"))); // the files of a start may name any
    let bus = Bus::spawn(shop.command(&[]));
    publish(&bus, "echo 1");
    has(&bus, "done", 1);
    // whoever applies need not have the file
    let apply = |bus: &Bus, secret: &str| {
        std::fs::write(at("shop.yaml"), with(secret)).unwrap();
        bus.run(&["apply", &at("shop.yaml")])
    };
    apply(&bus, "token").ok();
    let refused = apply(&bus, &at("key"));
    assert_eq!(refused.code, Some(78), "{refused:?}");
    for words in ["`config.token`", "not a file below a secret folder", "wattle run --secrets FOLDER"] {
        assert!(refused.notices.contains(words), "{words}: {refused:?}");
    }
    let planned = bus.run(&["plan", &at("shop.yaml")]);
    assert!(planned.code == Some(78) && planned.out.contains("refused: subscriber `shop/work`"), "{planned:?}");
    bus.stop();
    let bus = Bus::spawn(shop.command(&["--secrets", elsewhere.path().to_str().unwrap()]));
    publish(&bus, "echo 2");
    has(&bus, "done", 2);
    apply(&bus, "key").ok();
    assert_eq!(apply(&bus, "token").code, Some(78));
    bus.stop();
    let missing: Ran = shop.command(&["--secrets", "no-such-folder"]).output().unwrap().into();
    assert!(missing.notices.contains("there is no folder `no-such-folder` (--secrets)"), "{missing:?}");
}
