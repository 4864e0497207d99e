//! Exit codes, and words that say what, where and what to do.

use super::bus::{Bus, TOPOLOGY, bus, run, wattle};

#[test]
fn nobody_at_the_address_is_3() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in [
        &["publish", "t", "x"][..],
        &["tail", "t"],
        &["trace", "i"],
        &["topics"],
        &["status"],
        &["clock", "confirm"],
        &["dead", "list", "s"],
        &["dead", "redrive", "s", "--all"],
        &["parked", "show", "s"],
        &["parked", "release", "s", "--id", "x"],
        &["pause", "s"],
        &["resume", "s"],
        &["seek", "s", "--to", "earliest"],
        &["state", "get", "s", "k"],
        &["state", "export", "s"],
        &["plugin", "list"],
        &["plugin", "versions", "s"],
        &["plugin", "rollback", "s"],
        &["plugin", "pin", "s", "--off"],
        &["plugin", "deploy", "s", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
        &["state", "snapshot", "s"],
        &["state", "snapshots", "s"],
    ] {
        let ran = run(&[command, &["--server", &free]].concat());
        assert_eq!(ran.code, Some(3), "{command:?}");
        assert!(ran.notices.contains(&free) && ran.notices.lines().count() == 1, "{}", ran.notices);
    }
}

#[test]
fn wrong_usage_is_2() {
    let (_folder, bus) = bus();
    for arguments in [
        &["nonsense"][..],
        &["publish"],
        &["publish", "log", "y", "--file", "x"],
        &["publish", "log"],
        &["publish", "log", "--together", "x"],
        &["publish", "--together", "x", "--plain"],
        &["publish", "log", "--file", "-", "--type", "t"],
        &["tail", "log", "--from", "yesterday"],
        &["publish", "log", "--file", "/no/such/file"],
        &["publish", "log", "1e999"],
        &["state", "import", "nobody", "/no/such/file"],
        &["plugin", "deploy", "nobody", "/no/such/file.wasm"],
        &["plugin", "shadow", "nobody", "/no/such/file.wasm"],
        &["capsule", "run", "/no/such/capsule"],
        &["check", "/no/such/file.yaml"],
        &["graph", "/no/such/file.yaml"],
        &["test", "/no/such/file.yaml"],
        &["plan", "/no/such/file.yaml"],
        &["apply", "/no/such/file.yaml"],
        &["build", "/no/such/folder"],
        &["log", "verify", "--data", "/no/such/folder"],
        &["trace"],
        &["trace", "i", "--since", "yesterday"],
        &["topics", "--server", "ftp://127.0.0.1:1"],
        &["topics", "--server", "http://127.0.0.1:1", "--tls-ca", "ca.pem"],
        &["topics", "--server", "https://127.0.0.1:1", "--tls-ca", "/no/such/file"],
        &["topics", "--server", "127.0.0.1:1", "--token-file", "/no/such/file"],
        &["topics", "--client-cert", "me.pem"],
        &["topics", "--profile", "nobody"],
        &["profile"],
        &["profile", "use"],
        &["profile", "use", "nobody"],
        &["profile", "remove", "nobody"],
        &["profile", "add", "UP", "--server", "127.0.0.1"],
        &["profile", "add", "a"],
        &["run", "/no/such/file.yaml"],
        &["run", "x.yaml", "--durability", "never"],
        &["run", "x.yaml", "--plugin-memory", "12"],
        &["dev"],
        &["clock"],
        &["clock", "set"],
        &["dead"],
        &["dead", "show"],
        &["dead", "redrive", "s"],
        &["dead", "drop", "s"],
        &["dead", "list", "s", "--older-than", "5"],
        &["dead", "redrive", "s", "--reason", ""],
        &["dead", "drop", "s", "--id", ""],
        &["dead", "drop", "s", "--older-than", "0s"],
        &["parked", "drop", "s", "--reason", ""],
        &["status", "--timeout", "5"],
        &["dead", "list", "s", "-n", "0"],
        &["parked"],
        &["parked", "release", "s"],
        &["parked", "drop", "s", "--retry-queue"],
        &["pause"],
        &["seek", "s"],
        &["seek", "s", "--state", "keep"],
        &["seek", "s", "--to", "yesterday"],
        &["state", "snapshot", "s", "--keep", "0"],
        &["seek", "s", "--to", "earliest", "--state", "old"],
        &["state"],
        &["state", "get", "s"],
        &["state", "import", "s"],
    ] {
        let ran = bus.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(!ran.notices.is_empty(), "{arguments:?}");
    }
    bus.stop();
}

#[test]
fn what_the_bus_refuses_is_1() {
    let (_folder, bus) = bus();
    for (arguments, words) in [
        (&["publish", "ordres", "x"][..], "did you mean `orders`"),
        (&["tail", "nothing"], "no topic `nothing`"),
        (&["tail", "log", "--partition", "7"], "no partition 7"),
        (&["dead", "list", "nobody"], "no subscriber `nobody`"),
        (&["dead", "drop", "nobody", "--all"], "wattle status"),
        (&["parked", "list", "nobody"], "no subscriber `nobody`"),
        (&["parked", "drop", "nobody", "--all"], "no subscriber `nobody`"),
        (&["pause", "nobody"], "no subscriber `nobody`"),
        (&["resume", "nobody"], "no subscriber `nobody`"),
        (&["seek", "nobody", "--to", "latest"], "no subscriber `nobody`"),
        (&["state", "list", "nobody"], "no subscriber `nobody`"),
    ] {
        let ran = bus.run(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert!(ran.notices.contains(words), "{arguments:?}: {}", ran.notices);
    }
    bus.stop();
}

#[test]
fn an_error_is_json_where_results_are() {
    let (_folder, bus) = bus();
    let error = |arguments: &[&str]| {
        let ran = bus.run(&[arguments, &["-o", "json"]].concat());
        let line: serde_json::Value = serde_json::from_str(ran.notices.lines().last().unwrap()).unwrap();
        let error = line["error"].clone();
        assert_eq!((ran.out.as_str(), error["exit_code"].as_i64().map(|code| code as i32)), ("", ran.code), "{error}");
        error
    };
    let refused = error(&["publish", "ordres", "x"]);
    assert_eq!((&refused["code"], &refused["reason"]), (&"NOT_FOUND".into(), &"UNKNOWN_TOPIC".into()));
    assert!(refused["message"].as_str().unwrap().contains("did you mean `orders`"), "{refused}");
    let refused = error(&["tail", "log", "--partition", "7"]);
    assert_eq!((&refused["code"], &refused["fields"]), (&"INVALID_ARGUMENT".into(), &["partitions"].into()));
    let local = error(&["publish", "log", "--file", "/no/such/file"]);
    assert_eq!((&local["code"], &local["reason"]), (&"USAGE".into(), &serde_json::Value::Null));
    let local = error(&["plan", "/no/such/file.yaml"]);
    assert_eq!((&local["code"], &local["exit_code"]), (&"USAGE".into(), &2.into()));
    bus.stop();
}

#[test]
fn a_bad_configuration_is_78() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yaml");
    let data = folder.path().join("data");
    let start = |text: &str, more: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let mut command = wattle();
        command.arg("run").arg(&path).arg("--data").arg(&data).args(["--listen", "127.0.0.1:0"]).args(more);
        super::bus::Ran::from(command.output().unwrap())
    };
    let ran = start("wattle: v1\nname: shop\ntopics: { a: { colour: red } }\n", &[]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.notices.contains("unknown-key"), "{}", ran.notices);

    let ran = start(TOPOLOGY, &["--listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, Some(2), "given twice: {ran:?}");
    assert!(!data.exists(), "nothing was begun");

    std::fs::write(folder.path().join("no.wasm"), "no component").unwrap();
    let with_plugin = "wattle: v1\nname: shop\ntopics: { a: {} }\nsubscribers: { s: { from: a, plugin: no.wasm } }\n";
    let ran = start(with_plugin, &[]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.notices.contains("shop/s") && ran.notices.contains("not a WebAssembly file"), "{}", ran.notices);
}

#[test]
fn an_address_that_others_can_reach_is_refused_unless_one_insists() {
    let folder = tempfile::tempdir().unwrap();
    let topology = folder.path().join("shop.yaml");
    std::fs::write(&topology, TOPOLOGY).unwrap();
    let command = || {
        let mut command = wattle();
        command.arg("run").arg(&topology).arg("--data").arg(folder.path().join("data"));
        command.args(["--listen", "0.0.0.0:0", "--log-format", "json"]);
        command
    };
    let ran = super::bus::Ran::from(command().output().unwrap());
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.notices.contains("--insecure-allow-remote"), "{}", ran.notices);
    let mut insisting = command();
    insisting.env("WATTLE_INSECURE_ALLOW_REMOTE", "1");
    Bus::spawn(insisting).stop();
}

#[test]
fn a_port_or_a_data_folder_in_use_is_1_and_says_whose() {
    let (folder, bus) = bus();
    let topology = folder.path().join("shop.yaml");
    let start = |data: &str, listen: &str| {
        let mut command = wattle();
        command.arg("run").arg(&topology).arg("--data").arg(folder.path().join(data)).args(["--listen", listen]);
        super::bus::Ran::from(command.output().unwrap())
    };
    let ran = start("other", &bus.address);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.notices.contains(&bus.address) && ran.notices.contains("--listen"), "{}", ran.notices);
    assert!(!folder.path().join("other").exists(), "nothing was begun");
    let ran = start("data", "127.0.0.1:0");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.notices.contains("another running bus") && ran.notices.contains("--data"), "{}", ran.notices);
    bus.stop();
}

#[test]
fn help_has_examples_and_every_shell_has_completions() {
    for command in [
        "run",
        "dev",
        "publish",
        "tail",
        "topics",
        "status",
        "clock",
        "clock confirm",
        "dead",
        "dead list",
        "dead show",
        "dead redrive",
        "dead drop",
        "parked",
        "parked list",
        "parked show",
        "parked release",
        "parked drop",
        "pause",
        "resume",
        "seek",
        "state",
        "state get",
        "state list",
        "state export",
        "state import",
        "bench",
        "completions",
    ] {
        let help = run(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat()).ok();
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let completions = run(&["completions", shell]).ok();
        assert!(completions.contains("WATTLE_COMPLETE"), "{shell}: {completions}");
    }
    assert!(run(&["--help"]).ok().contains("Running bus:"));
}
