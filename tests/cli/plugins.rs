//! Versions of real plugins, changed by commands and by files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use wattle::model::call::Limits;
use wattle::wasm::{Host, HostOptions, PluginSpec};

use super::bus::{Bus, wattle};
use crate::common::components::declaring;
use crate::common::guests::{guest, guest_path};
use crate::common::trees::PATIENCE;

/// A subscriber that does what the data of events says.
const TOPOLOGY: &str = "wattle: v1
name: shop
topics: { jobs: { dedupe: off }, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, config: { describe: done }, to: [done], retry: { attempts: 1 } }
";

/// The same plugin with something that nobody looks at: another version that does the same.
fn marked(wasm: &[u8], mark: u8) -> Vec<u8> {
    [wasm, &[0, 3, 1, b'm', mark]].concat() // a custom section named `m`
}

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(shop.path("shop.yaml"), TOPOLOGY).unwrap();
        shop.write(&guest("hostile"));
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, wasm: &[u8]) {
        std::fs::write(self.path("work.wasm"), wasm).unwrap();
    }

    /// As editors and compilers do it.
    fn rename_over(&self, wasm: &[u8]) {
        std::fs::write(self.path("aside"), wasm).unwrap();
        std::fs::rename(self.path("aside"), self.path("work.wasm")).unwrap();
    }

    /// A file beside the one that is run.
    fn other(&self, mark: u8) -> String {
        let path = self.path(&format!("other-{mark}.wasm"));
        std::fs::write(&path, marked(&guest("hostile"), mark)).unwrap();
        path.display().to_string()
    }

    fn start(&self, more: &[&str]) -> Bus {
        let mut command = wattle();
        command.arg("run").arg(self.path("shop.yaml")).arg("--data").arg(self.path("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(more);
        Bus::spawn(command)
    }
}

fn versions(bus: &Bus) -> Vec<Value> {
    bus.run(&["plugin", "versions", "work", "-o", "json"]).json()
}

fn standings(bus: &Bus) -> Vec<String> {
    versions(bus).iter().map(|kept| kept["state"].as_str().unwrap().to_owned()).collect()
}

/// What came of every job so far, in their order.
fn done(bus: &Bus) -> Vec<String> {
    let text = |line: &Value| match &line["event"] {
        event if event["data_base64"].is_string() => {
            let data = STANDARD.decode(event["data_base64"].as_str().unwrap()).unwrap();
            String::from_utf8(data).unwrap()
        }
        event => event["data"].as_str().map_or_else(|| event["data"].to_string(), str::to_owned),
    };
    bus.run(&["tail", "done"]).json().iter().map(text).collect()
}

/// What comes of a job.
fn job(bus: &Bus, data: &str) -> String {
    let before = done(bus).len();
    bus.run(&["publish", "jobs", data, "--key", "k"]).ok();
    let begin = Instant::now();
    loop {
        match done(bus).get(before) {
            Some(done) => return done.clone(),
            None => assert!(begin.elapsed() < PATIENCE, "{}", bus.run(&["status"]).ok()),
        }
    }
}

#[test]
fn versions_are_deployed_listed_gone_back_from_and_pinned() {
    let shop = Shop::new();
    let bus = shop.start(&[]);
    assert_eq!(standings(&bus), ["stable"]);
    bus.run(&["publish", "jobs", "state set a=1", "--key", "k"]).ok();
    assert_eq!(job(&bus, "echo 0"), "echo 0");
    assert!(bus.run(&["plugin", "deploy", "work", &shop.other(1)]).ok().contains(" as a candidate"));
    assert_eq!(standings(&bus), ["stable", "candidate"]);
    let snapshots = bus.run(&["state", "snapshots", "work"]).ok();
    assert!(snapshots.contains(" deploy ") && snapshots.contains("before the deploy of "), "{snapshots}");
    let status = bus.run(&["status"]).ok();
    // How many seconds it has taken depends on the machine.
    assert!(status.contains(" in 1 of 1 lane: 0 of 1,000 events, "), "{status}");
    assert!(status.contains(" s of 1 min, ends at the latest in "), "{status}");
    assert_eq!(job(&bus, "echo"), "echo");
    let status: Value = serde_json::from_str(&bus.run(&["status", "-o", "json"]).ok()).unwrap();
    assert_eq!(status["subscribers"][0]["candidate"]["handled"], 1);
    let again = bus.run(&["plugin", "deploy", "work", &shop.other(1)]).ok();
    assert!(again.contains(" already: 1 of 1,000 events, "), "{again}");
    let table = bus.run(&["plugin", "versions", "work"]).ok();
    assert!(table.contains("COMPONENT") && table.contains(" 1 of 1,000 events, "), "{table}");
    assert!(bus.run(&["plugin", "rollback", "work"]).ok().ends_with(" again\n"));
    assert_eq!(standings(&bus), ["stable", "rolled back"]);
    let deployed =
        bus.run(&["plugin", "deploy", "work", &shop.other(2), "--policy", "replace", "-o", "json"]).json().remove(0);
    assert_eq!(deployed["outcome"], "runs");
    let all = versions(&bus);
    assert_eq!((&all[2]["version"], &all[2]["state"]), (&deployed["version"], &json!("stable")));
    assert_eq!((&all[0]["next_back"], &all[1]["next_back"]), (&json!(true), &json!(false)));

    bus.run(&["plugin", "deploy", "work", &shop.other(4), "--policy", "canary"]).ok();
    let promoted = bus.run(&["plugin", "promote", "work", "-o", "json"]).json().remove(0);
    let component = blake3::hash(&marked(&guest("hostile"), 4)).to_string();
    let kept = versions(&bus).pop().unwrap();
    assert_eq!((&kept["version"], &kept["state"]), (&promoted["version"], &json!("stable")));
    assert_eq!(kept["component"], component, "as `wattle build` calls it");
    let refused = bus.run(&["plugin", "promote", "work"]);
    assert!(refused.code == Some(1) && refused.notices.contains("no candidate"), "{refused:?}");
    let first = all[0]["version"].as_str().unwrap();
    let pinned = bus.run(&["plugin", "pin", "work", &first[..10]]).ok();
    assert_eq!(pinned, format!("work is pinned to {} until `wattle plugin pin work --off`\n", &first[..16]));
    let refused = bus.run(&["plugin", "deploy", "work", &shop.other(3)]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.notices.contains("wattle plugin pin shop/work --off"), "{}", refused.notices);
    let list = bus.run(&["plugin", "list"]).ok();
    assert!(list.lines().nth(1).unwrap().starts_with("shop/work ") && list.contains(" yes "), "{list}");
    assert_eq!(bus.run(&["plugin", "pin", "work", "--off"]).ok(), "work is not pinned\n");
    assert_eq!(bus.run(&["plugin", "list", "-o", "json"]).json()[0]["pinned"], false);
    let table = bus.run(&["plugin", "versions", "work"]).ok();
    assert!(table.starts_with("VERSION ") && table.ends_with("4 versions\n"), "{table}");
    bus.stop();
}

#[test]
fn a_version_that_handles_what_it_has_to_is_proven_by_itself() {
    let shop = Shop::new();
    let trial = "retry: { attempts: 1 }, trial: { events: 2, for: 0s } }";
    std::fs::write(shop.path("shop.yaml"), TOPOLOGY.replace("retry: { attempts: 1 } }", trial)).unwrap();
    let mut bus = shop.start(&[]);
    bus.run(&["plugin", "deploy", "work", &shop.other(1)]).ok();
    assert_eq!([job(&bus, "echo 1"), job(&bus, "echo 2")], ["echo 1", "echo 2"]);
    bus.wait_for("the new version is stable");
    assert_eq!(standings(&bus), ["kept", "stable"]);
    bus.stop();
}

/// What a plugin declares that has one setting.
const ONE_SETTING: &str = r#"{ "properties": { "describe": { "type": "string" } }, "additionalProperties": false }"#;

#[test]
fn a_mistyped_setting_is_refused_by_every_command_with_its_place() {
    let shop = Shop::new();
    shop.write(&declaring(&guest("hostile"), ONE_SETTING));
    let bus = shop.start(&[]);
    let mistyped = shop.path("mistyped.yaml").display().to_string();
    std::fs::write(&mistyped, TOPOLOGY.replace("describe: done", "decribe: done")).unwrap();
    let case = "topology: mistyped.yaml\ncases: [{ name: one, events: [{ data: { a: 1 } }], expect: { outputs: { done: \
        [] } } }]\n";
    std::fs::write(shop.path("mistyped.test.yaml"), case).unwrap();
    for command in ["check", "plan", "apply", "test"] {
        let refused = bus.run(&[command, &mistyped]);
        assert_eq!(refused.code, Some(78), "{command}: {refused:?}");
        for words in ["mistyped.yaml:5:", "the plugin has no setting `decribe`", "did you mean `describe`?"] {
            assert!(refused.notices.contains(words), "{command}: {}", refused.notices);
        }
    }
    let other = shop.path("other.wasm");
    std::fs::write(&other, declaring(&guest("hostile"), &ONE_SETTING.replace("describe", "described"))).unwrap();
    let refused = bus.run(&["plugin", "deploy", "work", &other.display().to_string()]);
    assert_eq!(refused.code, Some(1));
    let words = "the plugin has no setting `describe`: did you mean `described`?";
    assert!(refused.notices.contains(words), "{}", refused.notices);
    assert_eq!(job(&bus, "echo 1"), "echo 1");
    bus.stop();
}

#[test]
fn ports_that_do_not_match_are_said_by_every_command_with_their_place() {
    let shop = Shop::new();
    let bus = shop.start(&[]);
    let ported = shop.path("ported.yaml").display().to_string();
    let run = |data: &str| {
        let mut command = wattle();
        command
            .args(["run", &ported, "--listen", "127.0.0.1:0", "--log-format", "json", "--data"])
            .arg(shop.path(data));
        command
    };
    std::fs::write(&ported, TOPOLOGY.replace("to: [done]", "to: { dnoe: done }")).unwrap();
    let mut all: Vec<_> = ["check", "plan", "apply"].map(|command| (command, bus.run(&[command, &ported]))).into();
    all.push(("run", run("other").output().unwrap().into()));
    for (command, refused) in all {
        assert_eq!(refused.code, Some(78), "{command}: {refused:?}");
        for words in ["ported.yaml:5:", "connects `dnoe`, which the plugin does not have", "did you mean `done`?"] {
            assert!(refused.notices.contains(words), "{command}: {}", refused.notices);
        }
    }
    // one that declares none can send to any, which is rarely meant
    std::fs::write(&ported, TOPOLOGY.replace("config: { describe: done }, ", "")).unwrap();
    let words = ["ported.yaml:5:", "connects `done`, and the plugin declares no ports"];
    for command in ["check", "plan", "apply"] {
        let warned = bus.run(&[command, &ported]);
        assert_eq!(warned.code, Some(0), "{command}: {warned:?}");
        for words in words {
            assert!(warned.notices.contains(words), "{command}: {}", warned.notices);
        }
    }
    bus.stop();
    let started = Bus::spawn(run("third"));
    started.signal("TERM");
    let said = started.end().1;
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
    let again = Bus::spawn(run("third"));
    again.signal("TERM");
    let said = again.end().1;
    assert!(!words.iter().any(|words| said.contains(words)), "unchanged files say nothing new: {said}");
}

#[test]
fn what_was_deployed_outlives_a_kill() {
    let shop = Shop::new();
    let bus = shop.start(&[]);
    let deployed = bus.run(&["plugin", "deploy", "work", &shop.other(1), "-o", "json"]).json().remove(0);
    bus.signal("KILL");
    bus.end();
    shop.write(b"not a plugin"); // what is kept is enough
    let mut bus = shop.start(&[]);
    let all = versions(&bus);
    assert_eq!((&all[1]["version"], &all[1]["state"]), (&deployed["version"], &json!("candidate")));
    assert_eq!(job(&bus, "echo 1"), "echo 1");
    bus.run(&["plugin", "rollback", "work"]).ok();
    bus.signal("KILL");
    bus.end();
    bus = shop.start(&[]);
    assert_eq!(standings(&bus), ["stable", "rolled back"]);
    assert_eq!(job(&bus, "echo 2"), "echo 2");
    bus.stop();
}

#[test]
fn a_file_that_changed_while_nothing_ran_has_the_state_from_before_it_in_a_snapshot() {
    let shop = Shop::new();
    let bus = shop.start(&[]);
    bus.run(&["publish", "jobs", "state set a=1", "--key", "k"]).ok();
    assert_eq!(job(&bus, "echo 1"), "echo 1");
    bus.stop();
    let bus = shop.start(&[]);
    assert_eq!(bus.run(&["state", "snapshots", "work"]).ok(), "0 snapshots\n", "nothing has changed");
    bus.stop();
    shop.write(&marked(&guest("hostile"), 1));
    let bus = shop.start(&[]);
    assert_eq!(standings(&bus), ["stable", "candidate"]);
    let taken = bus.run(&["state", "snapshots", "work", "-o", "json"]).json();
    let before = versions(&bus)[0]["version"].clone();
    assert_eq!((taken.len(), &taken[0]["by"], &taken[0]["digest"]), (1, &json!("deploy"), &before));
    assert_eq!((&taken[0]["records"], &taken[0]["positions"]), (&json!(1), &json!([2])));
    bus.run(&["pause", "work"]).ok();
    bus.run(&["seek", "work", "--state", "1"]).ok();
    bus.stop();
}

#[test]
fn a_file_that_changes_is_reloaded_and_a_bad_one_is_not() {
    let shop = Shop::new();
    let mut bus = shop.start(&["--watch"]);
    let whole = guest("hostile");
    shop.rename_over(&marked(&whole, 1));
    bus.wait_for("the new version is called from now on");
    assert_eq!(standings(&bus), ["stable", "candidate"]);
    shop.write(&whole[..whole.len() / 2]);
    bus.wait_for("keeping the previous version");
    assert_eq!(job(&bus, "echo 1"), "echo 1", "the one before serves");
    assert!(bus.run(&["status"]).ok().contains("last reload of shop/work: "));
    shop.write(&marked(&whole, 2)); // it is whole now
    bus.wait_for("the new version is called from now on");
    std::fs::remove_file(shop.path("work.wasm")).unwrap();
    bus.wait_for("the file of the plugin is gone");
    assert_eq!(job(&bus, "echo 2"), "echo 2");
    shop.write(&marked(&whole, 3));
    bus.wait_for("the new version is called from now on");
    assert_eq!(versions(&bus).len(), 4);
    bus.stop();

    // a bad file at a start: what was decided runs
    shop.write(b"not a plugin");
    let bus = shop.start(&[]);
    assert_eq!(job(&bus, "echo 3"), "echo 3");
    assert_eq!(versions(&bus).len(), 4);
    bus.stop();
}

/// Takes orders, and rejects those that it cannot read.
const ORDERS: &str = "wattle: v1
name: shop
topics: { orders: {}, accepted: {}, refused: {} }
subscribers:
  work: { from: orders, plugin: work.wasm, to: [accepted, refused] }
";

#[test]
fn a_new_version_that_fails_where_the_old_one_does_not_is_rolled_back_by_itself() {
    let shop = Shop::new();
    std::fs::write(shop.path("shop.yaml"), ORDERS).unwrap();
    shop.write(&guest("validate"));
    let mut bus = shop.start(&["--watch"]);
    shop.rename_over(&guest("hostile")); // which can do nothing with orders
    bus.wait_for("the new version is called from now on");
    let order = r#"{"order_id":"a","status":"created","currency":"EUR","customer":{"name":"N","email":"n@example.test"},
        "items":[{"sku":"rug","qty":1,"price_cents":100}],"total_cents":100}"#;
    bus.run(&["publish", "orders", order]).ok();
    bus.wait_for("it is not tried again until its file changes");
    assert_eq!(standings(&bus), ["stable", "rolled back"]);
    assert_eq!(bus.run(&["tail", "accepted"]).json().len(), 1);
    assert_eq!(bus.run(&["dead", "list", "work"]).ok(), "no dead letters\n");
    let status = bus.run(&["status"]).ok();
    assert!(status.contains("was rolled back at 20") && status.contains("Z: it failed on event "), "{status}");
    bus.stop();
}

/// A plugin folder of its own, whose dependencies are those of the examples, built already. Tests side by side build
/// into one folder, so each has a name for its own.
fn source(folder: &Path, name: &str) -> PathBuf {
    guest_path("notify"); // they are built
    let (plugins, of) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins"), folder.join(name));
    std::fs::create_dir_all(of.join("src")).unwrap();
    std::os::unix::fs::symlink(plugins.join("target"), of.join("target")).unwrap();
    let examples = std::fs::read_to_string(plugins.join("Cargo.toml")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nwattle-plugin = {{ path = {:?} }}\n[workspace]\n{}",
        plugins.join("../sdk/rust"),
        examples.split_once("[profile.release]").map(|(_, profile)| format!("[profile.release]{profile}")).unwrap()
    );
    std::fs::write(of.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(plugins.join("Cargo.lock"), of.join("Cargo.lock")).unwrap();
    let toolchain = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust-toolchain.toml");
    std::fs::copy(toolchain, of.join("rust-toolchain.toml")).unwrap();
    says(&of, "one");
    of
}

/// Has the plugin send a text for each event.
fn says(folder: &Path, text: &str) {
    let code = format!(
        "use wattle_plugin::{{Event, Failure, Output, plugin}};
plugin!(handle, ports: {{ DONE = \"done\" }});
wattle_plugin::state_version!(3);
fn handle(_: Event) -> Result<Output, Failure> {{
    Ok(DONE.bytes(\"{text}\"))
}}
"
    );
    std::fs::write(folder.join("src/lib.rs"), code).unwrap();
}

#[test]
fn dev_builds_sources_that_change_and_runs_what_comes_of_them() {
    let shop = Shop::new();
    let sources = source(shop.folder.path(), "reloaded");
    let topology = TOPOLOGY.replace("plugin: work.wasm, config: { describe: done }", "plugin: reloaded");
    std::fs::write(shop.path("shop.yaml"), topology).unwrap();
    let mut command = wattle();
    command.current_dir(shop.folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "info").args(["--log-format", "json"]);
    let mut bus = Bus::spawn_dev(command);
    assert_eq!(job(&bus, "x"), "one");
    // both digests are those that the bus shows, under the same names
    let built = wattle().current_dir(shop.folder.path()).args(["build", "shop.yaml"]).output().unwrap();
    let (built, runs) = (String::from_utf8(built.stdout).unwrap(), versions(&bus).remove(0));
    let short = |name: &str| runs[name].as_str().unwrap()[..16].to_owned();
    let version = format!("version {} of shop/work", short("version"));
    assert!(built.contains(&format!("component {}", short("component"))) && built.contains(&version), "{built}");
    // what the sources declare is in the component
    let spec = PluginSpec {
        subscriber: "work".into(),
        wasm: guest("reloaded"),
        config: BTreeMap::new(),
        hidden: BTreeMap::new(),
        ports: vec!["done".into()],
        limits: Limits::default(),
    };
    assert_eq!(Host::new(HostOptions::default()).unwrap().register(spec).unwrap().state_version(), 3);
    says(&sources, "two");
    bus.wait_for("the new version is called from now on");
    assert_eq!(job(&bus, "x"), "two");
    std::fs::write(sources.join("src/lib.rs"), "what?").unwrap();
    bus.wait_for("what was built before runs on");
    assert_eq!(job(&bus, "x"), "two");
    says(&sources, "three");
    bus.wait_for("the new version is called from now on");
    assert_eq!(job(&bus, "x"), "three");
    bus.stop();
}

#[test]
fn dev_sees_what_a_plugin_depends_on_by_path_and_sources_that_come_with_an_old_time() {
    let shop = Shop::new();
    let sources = source(shop.folder.path(), "depending");
    let words = shop.path("words");
    std::fs::create_dir_all(words.join("src")).unwrap();
    let manifest = "[package]\nname = \"words\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(words.join("Cargo.toml"), manifest).unwrap();
    let word = |text: &str| format!("pub const WORD: &str = \"{text}\";\n");
    std::fs::write(words.join("src/lib.rs"), word("one")).unwrap();
    let manifest = std::fs::read_to_string(sources.join("Cargo.toml")).unwrap();
    let manifest = manifest.replace("[dependencies]\n", "[dependencies]\nwords = { path = \"../words\" }\n");
    std::fs::write(sources.join("Cargo.toml"), manifest).unwrap();
    let code = std::fs::read_to_string(sources.join("src/lib.rs")).unwrap().replace("\"one\"", "words::WORD");
    std::fs::write(sources.join("src/lib.rs"), &code).unwrap();

    let topology = TOPOLOGY.replace("plugin: work.wasm, config: { describe: done }", "plugin: depending");
    std::fs::write(shop.path("shop.yaml"), topology).unwrap();
    let mut command = wattle();
    command.current_dir(shop.folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "info").args(["--log-format", "json"]);
    let mut bus = Bus::spawn_dev(command);
    assert_eq!(job(&bus, "x"), "one");
    std::fs::write(words.join("src/lib.rs"), word("two")).unwrap();
    bus.wait_for("the new version is called from now on");
    assert_eq!(job(&bus, "x"), "two");
    // As `cp -p` leaves it: of the dependency, and of the plugin itself.
    for (file, text, says) in [
        (words.join("src/lib.rs"), word("three"), "three"),
        (sources.join("src/lib.rs"), code.replace("words::WORD", "\"four\""), "four"),
    ] {
        let aside = shop.path("aside");
        std::fs::write(&aside, text).unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(24 * 60 * 60);
        std::fs::File::options().write(true).open(&aside).unwrap().set_modified(old).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        bus.wait_for("the new version is called from now on");
        assert_eq!(job(&bus, "x"), says);
    }
    bus.stop();
}

#[test]
fn dev_builds_the_sources_of_what_was_applied_while_it_runs() {
    let shop = Shop::new();
    let sources = source(shop.folder.path(), "applied");
    wattle().args(["build", &sources.display().to_string()]).output().unwrap();
    let mut command = wattle();
    command.current_dir(shop.folder.path()).args(["dev", "shop.yaml", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "info").args(["--log-format", "json"]);
    let mut bus = Bus::spawn_dev(command);
    let added = "wattle: v1\nname: shop\ntopics: { more: {} }\nsubscribers:\n  added: { from: jobs, plugin: applied, \
        to: { done: more } }\n";
    std::fs::write(shop.path("added.yaml"), added).unwrap();
    let [shop_file, added_file] = ["shop.yaml", "added.yaml"].map(|name| shop.path(name).display().to_string());
    bus.run(&["apply", &shop_file, &added_file]).ok();
    says(&sources, "two");
    bus.wait_for("the new version is called from now on");
    bus.run(&["publish", "jobs", "x", "--key", "k"]).ok();
    let begin = Instant::now();
    while bus.run(&["tail", "more"]).json().is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{}", bus.run(&["status"]).ok());
    }
    let more = bus.run(&["tail", "more"]).json();
    assert_eq!(more[0]["event"]["data_base64"], STANDARD.encode("two"));
    bus.stop();
}
