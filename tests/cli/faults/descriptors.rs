//! Too few file descriptors (row 9): the bus goes on with what it has, or says that it is to be tried again.

use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;
use wattle::client::{ClientError, ReadRequest};

use crate::faults::bus::{Bus, Home, Sent, read};

const TOPOLOGY: &str =
    "wattle: v1\nname: shop\ntopics:\n  log: { partitions: 200, retention: { size: 1GiB } }\nsubscribers: {}\n";

/// The bus under a limit of 64 descriptors.
fn start(home: &Home) -> Bus {
    let inner = home.command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Bus::spawn(command).unwrap_or_else(|ended| panic!("it does not start: {ended:?}"))
}

fn home() -> (tempfile::TempDir, Home) {
    let folder = crate::faults::bus::quick_folder();
    let home = Home::with_data(&folder.path().join("data"), TOPOLOGY);
    (folder, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_partitions_than_descriptors_are_written_and_read() {
    let (_folder, home) = home();
    let mut sent = Sent::default();
    let bus = start(&home);
    let client = bus.client().await;
    // Forty MiB: more than stays in memory, so that checkpoints write all segments, again and again.
    for _ in 0..40 {
        sent.publish_many(&client, "log", 1_000, 1_000).await.unwrap();
    }
    bus.stop();
    let mut bus = start(&home);
    let client = bus.client().await;
    let readers = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { read(&client, "log").await })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..20 {
        sent.publish_many(&client, "log", 1_000, 1_000).await.unwrap();
    }
    for reader in readers {
        let read = reader.await.unwrap().unwrap();
        assert!(read.len() >= 40_000, "{}", read.len());
    }
    let said = bus.said();
    bus.stop();
    assert!(!said.contains("panicked"), "{said}");
    sent.check(&home.stored("log").await, "few descriptors");
}

/// Connections that somebody opens and does nothing with take every descriptor that there is.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_take_all_descriptors_do_not_end_the_bus() {
    let (_folder, home) = home();
    let mut sent = Sent::default();
    let mut bus = start(&home);
    let client = bus.client().await;
    for _ in 0..10 {
        sent.publish_many(&client, "log", 1_000, 1_000).await.unwrap();
    }
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(&bus.address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // More than one journal file, and several checkpoints.
    for _ in 0..80 {
        match sent.publish_many(&client, "log", 1_000, 1_000).await {
            Ok(()) => {}
            Err(error) => assert!(error.is_retryable() && bus.runs(), "{error:?}: {}", bus.said()),
        }
    }
    // What is in memory no more may have to wait, but is not called damaged.
    let mut reading = client.read(ReadRequest { topic: "log".into(), ..ReadRequest::default() }).await.unwrap();
    loop {
        match reading.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error @ ClientError::Refused(_)) => {
                assert!(error.is_retryable(), "{error:?}");
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    drop(idle);
    sent.publish(&client, "log", 10).await.unwrap();
    bus.stop();
    sent.check(&home.stored("log").await, "no descriptors");
}
