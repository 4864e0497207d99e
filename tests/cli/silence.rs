//! A server that takes what is sent and never answers: every command that talks to a bus ends when its time is over,
//! and says how far it came.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::bus::{Ran, wattle};

/// Longer than any command may take whose time is a moment: it hangs.
const HANGS: Duration = Duration::from_secs(60);
const MOMENT: &str = "200ms";

/// Takes connections and what comes over them. Says nothing.
fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    address
}

/// Waits for the end of a command, but not for ever.
fn end(mut child: Child, what: &str) -> Ran {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > HANGS {
            child.kill().unwrap();
            panic!("{what} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap().into()
}

fn spawn(arguments: &[String]) -> Child {
    let mut command = wattle();
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a command needs beside `--server`, where a word for each of its arguments is not enough.
fn more(path: &str, folder: &std::path::Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let words: &[&str] = match path {
        "publish" => &["t", "x", "--try-for", "1s"],
        "seek" => &["s", "--to", "earliest"],
        "state get" => &["s", "k"],
        "dead redrive" | "dead drop" | "parked release" | "parked drop" => &["s", "--all"],
        "capsule show" | "capsule fetch" | "capsule run" => &["shop/s/1"],
        "plan" | "apply" => return vec![file("shop.yaml")],
        "plugin deploy" | "plugin shadow" | "state import" => return vec!["s".to_owned(), file("lines")],
        _ => &[],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Every command that talks to a bus, as one would call it.
fn all(command: &clap::Command, path: &[&str], folder: &std::path::Path) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for sub in command.get_subcommands() {
        let path = [path, &[sub.get_name()]].concat();
        if sub.has_subcommands() {
            found.extend(all(sub, &path, folder));
        }
        if sub.get_arguments().any(|argument| argument.get_id() == "server") {
            let mut words: Vec<String> = path.iter().map(|word| (*word).to_owned()).collect();
            let mut more = more(&path.join(" "), folder);
            if more.is_empty() {
                let needed = sub.get_positionals().filter(|argument| argument.is_required_set());
                more.extend(needed.map(|_| "1".to_owned()));
            }
            words.extend(more);
            found.push(words);
        }
    }
    found
}

#[test]
fn every_command_ends_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), super::bus::TOPOLOGY).unwrap();
    let entry =
        "{\"partition\":0,\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\",\"written\":\"2026-01-01T00:00:00Z\"}\n";
    std::fs::write(folder.path().join("lines"), entry).unwrap();
    let address = silent();
    let commands = all(&wattle::cli::command(), &[], folder.path());
    assert!(commands.len() > 30, "{commands:?}");
    for some in commands.chunks(8) {
        let children: Vec<_> = some
            .iter()
            .map(|words| {
                let server = ["--server", &address, "--timeout", MOMENT].map(str::to_owned);
                (words.join(" "), spawn(&[words.as_slice(), &server].concat()))
            })
            .collect();
        for (words, child) in children {
            let ran = end(child, &words);
            // 3 where nothing can have happened, and 4 where that is not known.
            assert!(matches!(ran.code, Some(3 | 4)), "{words}: {ran:?}");
            assert!(
                ran.notices.contains("no answer from the bus") && ran.notices.contains("200ms"),
                "{words}: {ran:?}"
            );
            assert_eq!(
                ran.code == Some(4),
                ran.notices.contains("may have happened") || words.starts_with("publish"),
                "{words}: {ran:?}"
            );
        }
    }
}

#[test]
fn commands_that_only_look_say_that_there_is_no_bus_and_others_that_they_do_not_know() {
    let address = silent();
    let code = |words: &[&str]| {
        let words: Vec<String> = [words, &["--server", &address, "--timeout", MOMENT]]
            .concat()
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        end(spawn(&words), &words.join(" ")).code
    };
    for read in [
        &["status"][..],
        &["topics"],
        &["tail", "t"],
        &["tail", "t", "-n", "2"],
        &["tail", "t", "--follow"],
        &["dead", "list", "s"],
    ] {
        assert_eq!(code(read), Some(3), "{read:?}");
    }
    for change in [&["pause", "s"][..], &["clock", "confirm"], &["seek", "s", "--to", "latest"]] {
        assert_eq!(code(change), Some(4), "{change:?}");
    }
}

#[test]
fn a_publish_after_which_the_bus_is_silent_is_tried_again() {
    let address = silent();
    let words = ["publish", "t", "x", "--server", &address, "--timeout", MOMENT, "--try-for", "2s"];
    let ran = end(spawn(&words.map(str::to_owned)), "publish");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.notices.matches("trying again, with the id").count() >= 2, "{ran:?}");
    assert!(ran.notices.contains("it is not known whether the event with the id"), "{ran:?}");
}

#[test]
fn a_file_that_is_not_taken_says_how_many_of_its_events_are_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, "a\nb\n").unwrap();
    let address = silent();
    let publish = |timeout: &str| {
        let words =
            ["publish", "t", "--plain", "--file", file.to_str().unwrap(), "--server", &address, "--timeout", timeout];
        spawn(&words.map(str::to_owned))
    };
    let ran = end(publish(MOMENT), "publish");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.notices.contains("0 events had been published, and perhaps more"), "{ran:?}");

    // Where it has all the time that there is, it says that it waits, and Ctrl-C says how many are in.
    let mut child = publish("none");
    let mut notices = child.stderr.take().unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("waiting for the bus, 0 events published so far") {
        let mut bytes = [0; 256];
        let count = notices.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&bytes[..count]);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    notices.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("interrupted: 0 events had been published, and perhaps more"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
