//! A disk that really is full: a file system in memory of a few MiB (row 8).

use std::time::{Duration, Instant};

use wattle::api::reason;
use wattle::client::{Client, ClientError};

use crate::common::mounted::Mounted;
use crate::faults::bus::{Bus, Home, Sent, TOPOLOGY, read};

/// How soon a bus must take events again once there is room.
const WRITABLE_WITHIN: Duration = Duration::from_secs(5);

fn home(disk: &Mounted, topology: &str) -> Home {
    Home::with_data(&disk.path().join("data"), topology)
}

/// The refusal of a full disk, which a producer can act on.
fn assert_full(error: &ClientError) {
    let ClientError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!(refused.code, tonic::Code::ResourceExhausted, "{refused:?}");
    assert_eq!(refused.reason, reason::DISK_FULL, "{refused:?}");
    assert!(refused.retry_after.is_some() && !refused.outcome_unknown, "{refused:?}");
}

/// Publishes until the disk is full.
async fn fill(client: &Client, sent: &mut Sent, bytes: usize) {
    loop {
        match sent.publish(client, "log", bytes).await {
            Ok(()) => {}
            Err(error) => return assert_full(&error),
        }
    }
}

/// Tries again and again. How long it took.
async fn until_taken(client: &Client, sent: &mut Sent, bytes: usize) -> Duration {
    let start = Instant::now();
    while let Err(error) = sent.publish(client, "log", bytes).await {
        assert_full(&error);
        assert!(start.elapsed() < 2 * WRITABLE_WITHIN, "it still is full: {error:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_producers_serves_readers_and_recovers_by_itself() {
    for megabytes in [4, 16, 64] {
        let Some(disk) = Mounted::of(megabytes) else { return };
        let context = format!("{megabytes} MiB");
        let ballast = disk.take((megabytes as usize) << 18); // a quarter
        let home = home(&disk, TOPOLOGY);
        let bus = home.start();
        let client = bus.client().await;
        let mut sent = Sent::default();
        let bytes = (megabytes as usize) << 10;
        fill(&client, &mut sent, bytes).await;
        assert!(sent.acked.len() > 20, "{context}: {}", sent.acked.len());
        sent.check(&read(&client, "log").await.unwrap(), &context);
        // It stays so: checkpoints that come in the meantime neither end it nor fill what is kept for them.
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Err(error) = sent.publish(&client, "log", bytes).await {
                assert_full(&error);
            }
        }
        assert_eq!(client.status().await.unwrap().serving, Ok(()));
        std::fs::remove_file(ballast).unwrap();
        let took = until_taken(&client, &mut sent, bytes).await;
        eprintln!("{context}: {} acknowledged, writable {took:?} after there was room", sent.acked.len());
        assert!(took <= WRITABLE_WITHIN, "{context}: {took:?}");
        bus.stop();
        sent.check(&home.stored("log").await, &context);
    }
}

/// However much comes at once, nothing is taken in that there is no room for: it would wait for room that nobody makes.
#[tokio::test(flavor = "multi_thread")]
async fn many_producers_at_once_are_refused_too() {
    let Some(disk) = Mounted::of(8) else { return };
    let home = home(&disk, TOPOLOGY);
    let bus = home.start();
    let producers = (0..16).map(|number| {
        let address = bus.address.clone();
        tokio::spawn(async move {
            let client = Client::connect(&address).await.unwrap();
            let mut sent = Sent::of(number);
            // the smaller ones find room for longer
            fill(&client, &mut sent, 4_000 << (number % 8)).await;
            sent
        })
    });
    let mut sent = Sent::default();
    for producer in producers.collect::<Vec<_>>() {
        sent.join(producer.await.unwrap());
    }
    assert_eq!(bus.client().await.status().await.unwrap().serving, Ok(()));
    bus.stop();
    sent.check(&home.stored("log").await, "many producers");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_makes_room_on_a_full_disk() {
    let Some(disk) = Mounted::of(16) else { return };
    let topology = TOPOLOGY.replace("log: {}", "log: { retention: { size: 2MiB } }");
    let home = home(&disk, &topology);
    let bus = home.start();
    let client = bus.client().await;
    let mut sent = Sent::default();
    let mut worst = Duration::ZERO;
    // Three times what fits.
    for _ in 0..48 * 8 {
        worst = worst.max(until_taken(&client, &mut sent, 128 << 10).await);
    }
    eprintln!("longest wait for retention: {worst:?}; {} refusals", sent.refused.len());
    assert!(worst <= WRITABLE_WITHIN, "{worst:?}");
    let kept = read(&client, "log").await.unwrap();
    let last = kept.last().unwrap();
    assert!(sent.acked.contains(last) && kept.len() < 20 * 8, "{} are kept", kept.len());
    bus.stop();
    assert_eq!(home.stored("log").await.last(), Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_what_to_do_and_loses_nothing() {
    for megabytes in [1, 16] {
        let Some(disk) = Mounted::of(megabytes) else { return };
        let home = home(&disk, TOPOLOGY);
        // nothing is there yet
        let ballast = disk.take(usize::MAX);
        let refused = Bus::spawn(home.command()).err().expect("it serves without any room");
        refused.assert_failed_with("make room on the disk");
        std::fs::remove_file(&ballast).unwrap();
        // something is there
        let mut sent = Sent::default();
        let bus = home.start();
        let client = bus.client().await;
        for _ in 0..10 {
            sent.publish(&client, "log", 1_000).await.unwrap();
        }
        drop(bus); // which kills it
        let ballast = disk.take(usize::MAX);
        match Bus::spawn(home.command()) {
            Ok(bus) => {
                let client = bus.client().await;
                sent.check(&read(&client, "log").await.unwrap(), "a start on a full disk");
                assert_full(&sent.publish(&client, "log", 1_000).await.unwrap_err());
                bus.stop();
            }
            Err(refused) => refused.assert_failed_with("make room on the disk"),
        }
        std::fs::remove_file(&ballast).unwrap();
        sent.check(&home.stored("log").await, "a start after a full disk");
    }
}
