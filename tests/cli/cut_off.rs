//! Connections that end in the middle of a call: what is not known is said to be not known, and a publish finds out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bus::{Bus, Ran, TOPOLOGY, bus, wattle};

/// Stands between a client and a bus. It lets nothing through to the client of its first connection, which it cuts when
/// it is told to, but not before the client has asked for something.
struct Middle {
    address: String,
    cut: Arc<AtomicBool>,
}

impl Middle {
    fn new(bus: &Bus, cuts_at_once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bus, cut) =
            (listener.local_addr().unwrap().to_string(), bus.address.clone(), Arc::new(AtomicBool::new(cuts_at_once)));
        let told = cut.clone();
        std::thread::spawn(move || {
            for (index, client) in listener.incoming().enumerate() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&bus).unwrap());
                let (to_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                if index > 0 {
                    std::thread::spawn(move || carry(server, to_client));
                    std::thread::spawn(move || carry(client, to_server));
                    continue;
                }
                let told = told.clone();
                std::thread::spawn(move || {
                    client.set_read_timeout(Some(std::time::Duration::from_millis(5))).unwrap();
                    let (mut client, mut server, mut bytes, mut said) = (client, server, [0; 4096], Vec::new());
                    while !(has_asked(&said) && told.load(Ordering::SeqCst)) {
                        let Ok(count) = client.read(&mut bytes) else { continue };
                        said.extend_from_slice(&bytes[..count]);
                        server.write_all(&bytes[..count]).unwrap();
                    }
                    client.shutdown(Shutdown::Both).unwrap();
                });
            }
        });
        Self { address, cut }
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

/// Whether the headers of a request are among the frames of HTTP/2 behind its preface.
fn has_asked(said: &[u8]) -> bool {
    let mut rest = said.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = rest {
        if *kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Publishes an event to a topic, and cuts the connection once it is stored.
fn publish(bus: &Bus, topic: &str, more: &[&str]) -> Ran {
    let middle = Middle::new(bus, false);
    let mut command = wattle();
    command.args(["publish", topic, "a", "--server", &middle.address]).args(more);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bus.run(&["tail", topic, "--follow", "--from", "earliest", "-n", "1"]).ok();
    middle.cut();
    child.wait_with_output().unwrap().into()
}

fn ids(bus: &Bus, topic: &str) -> Vec<String> {
    let events = bus.run(&["tail", topic]).json();
    events.iter().map(|event| event["event"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_publish_that_is_cut_off_is_tried_again_and_stored_once() {
    let (_folder, bus) = bus();
    let ran = publish(&bus, "log", &["-o", "json"]);
    let ids = ids(&bus, "log");
    assert_eq!(ids.len(), 1, "{ran:?}");
    assert!(ran.notices.contains(&ids[0]), "{ran:?}");
    let place = &ran.json()[0];
    assert_eq!((place["id"].as_str().unwrap(), place["duplicate"].as_bool()), (ids[0].as_str(), Some(true)));
    bus.stop();
}

#[test]
fn a_publish_of_which_nobody_knows_is_4_and_names_its_id() {
    let (folder, bus) = bus();
    let ran = publish(&bus, "log", &["--try-for", "0s"]);
    let ids_of_log = ids(&bus, "log");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.notices.contains(&format!("--id {}", ids_of_log[0])), "{ran:?}");
    let again = bus.run(&["publish", "log", "a", "--id", &ids_of_log[0]]);
    assert!(again.notices.contains("already in log"), "{again:?}");
    bus.stop();

    // One that would be stored again is not tried again.
    let forgetful = TOPOLOGY.replace("log: {}", "log: { dedupe: off }");
    std::fs::write(folder.path().join("forgetful.yaml"), forgetful).unwrap();
    let mut command = wattle();
    command.arg("run").arg(folder.path().join("forgetful.yaml")).arg("--data").arg(folder.path().join("other"));
    let bus = Bus::spawn({
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        command
    });
    let ran = publish(&bus, "log", &[]);
    assert_eq!((ran.code, ids(&bus, "log").len()), (Some(4), 1), "{ran:?}");
    assert!(ran.notices.contains("does not recognise"), "{ran:?}");
    bus.stop();
}

#[test]
fn what_may_have_been_done_is_4_and_what_only_looks_is_3() {
    let (folder, bus) = bus();
    let file = folder.path().join("shop.yaml");
    std::fs::write(folder.path().join("events.ndjson"), "a\n").unwrap();
    let (file, events) = (file.to_str().unwrap(), folder.path().join("events.ndjson"));
    for (command, code) in [
        (&["clock", "confirm"][..], 4),
        (&["publish", "log", "--plain", "--file", events.to_str().unwrap()], 4),
        (&["pause", "s"], 4),
        (&["gc"], 4),
        (&["status"], 3),
        (&["topics"], 3),
        (&["tail", "log"], 3),
        (&["plan", file], 3),
        (&["plugin", "list"], 3),
    ] {
        let middle = Middle::new(&bus, true);
        let ran = bus.run(&[command, &["--server", &middle.address]].concat());
        assert_eq!(ran.code, Some(code), "{command:?}: {ran:?}");
        assert_eq!(ran.notices.contains("may have happened or not"), code == 4, "{command:?}: {ran:?}");
    }
    bus.stop();
}
