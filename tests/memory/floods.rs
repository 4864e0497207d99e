//! Clients that abuse HTTP/2 lose their connection, and nobody else loses anything.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::alone::is_alone;
use bed::{Bed, LOG, bed, event};

#[path = "../bus/service/bed.rs"]
#[allow(dead_code, reason = "shared with the tests of the service; not all of it is used here")]
mod bed;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const DATA: u8 = 0;
const END_HEADERS: u8 = 4;

/// Frames of HTTP/2, made by hand so that they arrive together.
struct Frames(Vec<u8>);

impl Frames {
    fn new() -> Self {
        let mut frames = Self(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
        frames.put(SETTINGS, 0, 0, &[]);
        frames
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
    }

    /// The head of a call to publish.
    fn call(&mut self, stream: u32) {
        // POST and http by their numbers in HPACK's static table, the rest as literals
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [(0x04, "/wattle.v1.PublisherService/Publish"), (0x01, "localhost")] {
            headers.extend_from_slice(&[name, value.len() as u8]);
            headers.extend_from_slice(value.as_bytes());
        }
        let content_type = "application/grpc";
        headers.extend_from_slice(&[0x0f, 0x10, content_type.len() as u8]);
        headers.extend_from_slice(content_type.as_bytes());
        self.put(HEADERS, END_HEADERS, stream, &headers);
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Sends everything, then reads until the connection ends. Whether it was told to go away.
async fn send(bed: &Bed, frames: Frames) -> bool {
    let stream = TcpStream::connect(&bed.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = tokio::spawn(async move {
        // Fails once the other side has had enough.
        let _ = writer.write_all(&frames.0).await;
        writer
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    writing.await.unwrap();
    let mut rest = answer.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        if *kind == GO_AWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = tail.get(length..).unwrap_or_default();
    }
    false
}

async fn is_survived(what: &str, frames: impl FnOnce(&mut Frames)) {
    let bed = bed().await;
    bed.client.publish(LOG, vec![event("before", "k")]).await.unwrap();
    let mut flood = Frames::new();
    frames(&mut flood);
    let before = resident_bytes();
    assert!(send(&bed, flood).await, "{what}: it is told to go away");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{what}: {grown} bytes");
    bed.client.publish(LOG, vec![event("after", "k")]).await.expect("others are not harmed");
}

#[tokio::test]
async fn floods_end_their_connection_and_take_no_memory() {
    if !is_alone("floods::floods_end_their_connection_and_take_no_memory") {
        return;
    }
    is_survived("calls that are reset at once", |frames| {
        for number in 0..10_000 {
            frames.call(2 * number + 1);
            frames.put(RESET, 0, 2 * number + 1, &8u32.to_be_bytes());
        }
    })
    .await;
    is_survived("frames without data", |frames| {
        frames.call(1);
        for _ in 0..100_000 {
            frames.put(DATA, 0, 1, &[]);
        }
    })
    .await;
    another_protocol().await;
}

async fn another_protocol() {
    let bed = bed().await;
    let mut stream = TcpStream::connect(&bed.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n and a good deal more than a preface").await.unwrap();
    let mut answer = Vec::new();
    // Whether cleanly or with a reset, it ends.
    let _ = stream.read_to_end(&mut answer).await;
    bed.client.publish(LOG, vec![event("after", "k")]).await.expect("others are not harmed");
}
