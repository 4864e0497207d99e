//! The whole bus is killed again and again under load: what it acknowledged is there, once, and everything below is
//! what the handlers make of it, once and in order.

mod bus;
mod orders;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use wattle::client::{Client, ReadRequest};
use wattle::model::event::Data;
use wattle::model::{Event, OutputIds};

use crate::common::random::Random;
use crate::common::trees::PATIENCE;
use bus::{Bus, PARTITIONS, TREE};
use orders::{Outcome, outcome};
use producer::{Producer, Sent};

/// Connections that publish.
const PRODUCERS: u64 = 4;

/// An event of a topic, as the outside sees it.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    offset: u64,
    epoch: u32,
    key: String,
    id: String,
    data: String,
    /// For a dead letter, how it failed.
    failure: String,
}

/// Everything in a topic, by partition.
async fn read(client: &Client, topic: &str) -> Vec<Vec<Found>> {
    let mut partitions = vec![Vec::new(); PARTITIONS as usize];
    let mut reading =
        client.read(ReadRequest { topic: format!("shop/{topic}"), ..ReadRequest::default() }).await.unwrap();
    while let Some(events) = reading.next().await.unwrap() {
        for received in events {
            let event = Event::decode(&received.event).unwrap();
            partitions[received.partition as usize].push(Found {
                offset: received.offset,
                epoch: received.epoch,
                key: received.key,
                data: String::from_utf8(event.data.as_ref().map_or(&[][..], Data::as_bytes).to_vec()).unwrap(),
                failure: event.attributes.get("wattlefailure").map_or(String::new(), ToString::to_string),
                id: event.id,
            });
        }
    }
    partitions
}

/// Waits until every subscriber has consumed everything and all that came of it can be read from outside. Nobody
/// publishes meanwhile, and a snapshot looks at parents first, so that nothing slips through between two looks.
async fn handled(client: &Client) {
    let (mut start, mut before) = (Instant::now(), 0);
    loop {
        let status = client.status().await.unwrap();
        let so_far: u64 = status.tree.subscribers.iter().map(|subscriber| subscriber.handled).sum();
        if so_far > before {
            (start, before) = (Instant::now(), so_far); // much may have been published; nothing may stand still
        }
        let mut partitions = status.tree.topics.iter().flat_map(|topic| &topic.partitions);
        let is_handled = status.tree.subscribers.iter().all(|it| it.lag == 0 && it.waiting == 0);
        if is_handled && partitions.all(|bounds| bounds.durable == bounds.written) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{:#?}", status.tree);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every acknowledged event is in the root, once and where it was said to be. Of the others, each is there at most
/// once. The events of a key are in the order in which they were published.
fn check_root(root: &[Vec<Found>], sent: &[Sent], seed: u64) {
    let mut places = BTreeMap::new();
    let mut last_of_key: BTreeMap<&str, u64> = BTreeMap::new();
    for (partition, events) in (0..).zip(root) {
        for found in events {
            let before = places.insert(found.id.as_str(), (found.epoch, partition, found.offset));
            assert_eq!(before, None, "seed {seed}: {} is there twice", found.id);
            let number = producer::number_of(&found.id);
            let before = last_of_key.insert(&found.key, number);
            assert!(before.is_none_or(|before| before < number), "seed {seed}: {} is out of order", found.id);
        }
    }
    let known: BTreeSet<&str> = sent.iter().map(|sent| sent.id.as_str()).collect();
    for id in places.keys() {
        assert!(known.contains(id), "seed {seed}: nobody sent {id}");
    }
    for sent in sent {
        if let Some(place) = sent.place {
            assert_eq!(places.get(sent.id.as_str()), Some(&place), "seed {seed}: {} was acknowledged", sent.id);
        }
    }
}

/// What is promised of an event below the root.
#[derive(Debug, PartialEq)]
struct Promised {
    id: String,
    key: String,
    data: String,
    failure: String,
}

/// Every topic below is what its subscriber makes of its input, in the same order. Keys stay, so partitions do.
fn check_below(all: &BTreeMap<String, Vec<Vec<Found>>>, seed: u64) {
    for (subscriber, from, ports) in TREE {
        let mut promised: BTreeMap<(String, usize), Vec<Promised>> = BTreeMap::new();
        for (partition, events) in all[from].iter().enumerate() {
            let ids = OutputIds::new(&format!("shop/{subscriber}"), &format!("shop/{from}"), partition as u32);
            for parent in events {
                let key = parent.key.clone();
                match outcome(subscriber, &parent.data) {
                    Outcome::Outputs(outputs) => {
                        for (index, (port, data)) in (0..).zip(outputs) {
                            let topic = ports.iter().find(|(name, _)| *name == port).unwrap().1;
                            let (id, key) = (ids.id(parent.offset, index).to_string(), key.clone());
                            let output = Promised { id, key, data, failure: String::new() };
                            promised.entry((topic.to_owned(), partition)).or_default().push(output);
                        }
                    }
                    Outcome::Dead(failure) => {
                        let (id, data) = (parent.id.clone(), parent.data.clone());
                        let letter = Promised { id, key, data, failure: failure.to_owned() };
                        promised.entry((format!("{subscriber}.dead"), partition)).or_default().push(letter);
                    }
                }
            }
        }
        let dead = format!("{subscriber}.dead");
        for topic in ports.iter().map(|(_, topic)| *topic).chain([dead.as_str()]) {
            for (partition, events) in all[topic].iter().enumerate() {
                let mut found: Vec<_> = events
                    .iter()
                    .map(|Found { id, key, data, failure, .. }| Promised {
                        id: id.clone(),
                        key: key.clone(),
                        data: data.clone(),
                        failure: failure.clone(),
                    })
                    .collect();
                let mut wanted = promised.remove(&(topic.to_owned(), partition)).unwrap_or_default();
                // Each key's are in order; an event that fails holds up no other key.
                found.sort_by(|a, b| a.key.cmp(&b.key));
                wanted.sort_by(|a, b| a.key.cmp(&b.key));
                let differs = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
                let at = differs.unwrap_or(found.len().min(wanted.len()));
                assert!(
                    found == wanted,
                    "seed {seed}: {topic}/{partition} has {} events and should have {}; first difference at {at}: {:?} \
                     instead of {:?}",
                    found.len(),
                    wanted.len(),
                    found.get(at),
                    wanted.get(at),
                );
            }
        }
    }
}

/// Ends the bus so often, nearly always by killing it, and then holds it to its promises.
async fn kill_and_check(durability: &'static str, ends: u64, seed: u64) {
    eprintln!("durability {durability}, WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    let bus = Bus::new(durability);
    let mut producers: Vec<_> = (0..PRODUCERS).map(|number| Producer::new(number, seed)).collect();
    for round in 0..ends {
        let mut running = bus.start();
        if round % 8 == 7 {
            // in the middle of its start
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            running.kill();
            continue;
        }
        let address = running.serving();
        let publishing = producers.drain(..).map(|mut producer| {
            let address = address.clone();
            tokio::spawn(async move {
                producer.publish_until_it_breaks(&address).await;
                producer
            })
        });
        let publishing: Vec<_> = publishing.collect();
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        if round % 8 == 3 {
            // Once in a while it is asked to end, which must not make anything worse.
            assert_eq!(running.terminate().code(), Some(0));
        } else {
            running.kill();
        }
        for producer in publishing {
            producers.push(producer.await.unwrap());
        }
    }
    let mut running = bus.start();
    let client = Client::connect(&running.serving()).await.unwrap();
    handled(&client).await;
    let mut all = BTreeMap::new();
    for topic in client.topics().await.unwrap() {
        let name = topic.name.trim_start_matches("shop/").to_owned();
        all.insert(name.clone(), read(&client, &name).await);
    }
    let sent: Vec<_> = producers.iter().flat_map(|producer| producer.sent.iter().cloned()).collect();
    let acked = sent.iter().filter(|sent| sent.place.is_some()).count();
    let leaves: usize = all["messages"].iter().map(Vec::len).sum();
    eprintln!("{ends} ends, {} events sent, {acked} acknowledged, {leaves} messages at the end", sent.len());
    assert!(acked > 0 && leaves > 0);
    check_root(&all["orders"], &sent, seed);
    check_below(&all, seed);
    assert_eq!(running.terminate().code(), Some(0));
}

/// The seed of a run: `WATTLE_SEED`, if it is set.
fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::env::var("WATTLE_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("WATTLE_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_nothing_acknowledged_and_double_nothing() {
    kill_and_check("sync", 58, seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operating_system_was_given_survives_the_death_of_the_process() {
    kill_and_check("os", 10, seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_interval_survives_the_death_of_the_process() {
    kill_and_check("interval=50ms", 10, seed()).await;
}
