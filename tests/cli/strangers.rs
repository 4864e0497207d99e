//! Addresses by name and without a port, and servers that answer there and are no bus.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::bus::{Bus, Ran, bus, run, wattle};

/// Answers every connection with these bytes, and keeps it open.
fn says(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut first = [0; 16];
                let _ = stream.read(&mut first);
                let _ = stream.write_all(bytes);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    address
}

/// A server of gRPC that has nothing but this.
async fn other_grpc() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    address
}

fn check(ran: &Ran, address: &str, words: &str) {
    let said = match words {
        "TLS" => format!("write https://{address}"),
        _ => format!("what answers at {address} is no Wattle bus"),
    };
    assert!(ran.notices.contains(&said) && ran.notices.contains(words), "{ran:?}");
    assert!(ran.code == Some(3) && ran.notices.lines().count() == 1, "{ran:?}");
}

const COMMANDS: [&[&str]; 8] = [
    &["status"],
    &["tail", "t"],
    &["tail", "t", "--follow"],
    &["publish", "t", "x"],
    &["publish", "t", "--plain", "--file", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
    &["pause", "s"],
    &["dead", "redrive", "s", "--all"],
    &["plugin", "deploy", "s", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
];

#[test]
fn what_answers_and_is_no_bus_is_said_to_be_none() {
    for (bytes, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "something else"),
        (b"\0", "no answer"),
    ] {
        let address = says(bytes);
        for command in COMMANDS {
            let ran = run(&[command, &["--server", &address, "--timeout", "300ms"]].concat());
            if words == "no answer" {
                assert!(ran.notices.contains(words), "{ran:?}");
            } else {
                check(&ran, &address, words);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_of_grpc_is_no_bus() {
    let address = other_grpc().await;
    for command in COMMANDS {
        check(&run(&[command, &["--server", &address]].concat()), &address, "gRPC");
    }
}

#[test]
fn a_bus_is_found_by_name_and_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start(folder.path(), &[]);
    let port = bus.address.rsplit_once(':').unwrap().1;
    for server in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("http://localhost:{port}/")] {
        assert!(run(&["status", "--server", &server]).ok().contains("serving"), "{server}");
    }
    bus.stop();

    // Where the machine has IPv6.
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let mut command = wattle();
    command.arg("run").arg(folder.path().join("shop.yaml")).arg("--data").arg(folder.path().join("data"));
    command.args(["--listen", "[::1]:0", "--log-format", "json"]);
    let bus = Bus::spawn(command);
    assert!(bus.address.starts_with("[::1]:"), "{}", bus.address);
    assert!(bus.run(&["status"]).ok().contains("serving"));
    bus.stop();
}

#[test]
fn a_terminal_that_is_closed_stops_the_bus_in_order_unless_it_was_started_to_outlive_it() {
    let (folder, bus) = bus();
    bus.signal("HUP");
    bus.signal("HUP");
    let (status, said) = bus.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("stopped"), "{said}");

    let mut command = std::process::Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_wattle")).arg("run").arg(folder.path().join("shop.yaml"));
    command.arg("--data").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    let bus = Bus::spawn(command);
    bus.signal("HUP");
    assert!(bus.run(&["status"]).ok().contains("serving"));
    bus.stop();
}
