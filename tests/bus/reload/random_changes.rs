//! Two clients that apply, deploy, roll back, pin and rename in any order, and a power cut between: one state is
//! decided, it is what runs, and nothing is on the disk that is not of it, or listed as removed.
//!
//! A few changes each time; `WATTLE_CHANGES=1000 cargo test --test bus random_changes` makes more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use wattle::api::Policy;
use wattle::effects::Disk;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::topology::Plan;

use crate::common::random::Random;
use crate::common::trees::{data, event, plan_of, settled, until};
use crate::reload::bed::{Bus, LONG, ONE, SHORT, World};
use crate::reload::collecting::all_is_listed;
use crate::reload::renaming::{Disks, ends, open, proposal, start};

/// How many changes are tried after each other before the power goes, or a start that is meant.
const AT_ONCE: u64 = 6;

/// The names of the root, of what is made, and of the subscriber, one way and the other.
const NAMES: [[&str; 3]; 2] = [["in", "out", "work"], ["orders", "made", "check"]];

/// [`ONE`] by one of the two sets of names, which says what it was called by the other.
fn called_by(way: usize) -> String {
    let ([root, made, who], [old_root, old_made, old_who]) = (NAMES[way], NAMES[1 - way]);
    ONE.replace("in: {", &format!("{root}: {{ renamed_from: {old_root},"))
        .replace("out: {}", &format!("{made}: {{ renamed_from: {old_made} }}"))
        .replace("work: { from: in,", &format!("{who}: {{ renamed_from: {old_who}, from: {root},"))
        .replace("to: { out: out }", &format!("to: {{ out: {made} }}"))
}

/// Such a topology, perhaps with another configuration, and with a second subscriber.
fn topology(random: &mut Random) -> String {
    let way = random.below(2) as usize;
    let (root, mut text) = (NAMES[way][0], called_by(way));
    if random.one_in(3) {
        text = text.replace("plugin: work.wasm", "plugin: work.wasm, config: { word: other }");
    }
    if random.one_in(3) {
        let more = format!("  more: {{ from: {root}, plugin: more.wasm, to: {{ out: extra }} }}\n");
        text = format!("{text}{more}").replace(" } }\nsubscribers", " }, extra: {} }\nsubscribers");
    }
    text
}

/// What one client does, in words for a test that fails.
async fn act(bus: &Bus<EmbeddedEngine>, world: &World, random: &mut Random) -> String {
    let who = ["work", "check", "more"][random.below(3) as usize];
    let reloader = &bus.reloader;
    match random.below(11) {
        0..=2 => {
            let (text, allow_loss) = (topology(random), random.one_in(2));
            let applied = reloader.apply(proposal(world, &plan_of(&[&text])), allow_loss).await;
            format!("apply {text} {allow_loss}: {:?}", applied.map(drop).map_err(|error| error.to_string()))
        }
        3..=6 => {
            let text = ["a", "b", "c", "d", "bad"][random.below(5) as usize];
            let policy = [Policy::Swap, Policy::Replace, Policy::Canary { percent: 50 }][random.below(3) as usize];
            let deployed = reloader.deploy(who, text.as_bytes().to_vec(), policy, "a test").await;
            format!("deploy {who} {text} {policy:?}: {:?}", deployed.map(|it| it.outcome).map_err(|it| it.to_string()))
        }
        7 => format!("rollback {who}: {:?}", reloader.rollback(who).await.map_err(|error| error.to_string())),
        8 => match random.one_in(2) {
            true => format!("pin {who}: {:?}", reloader.pin(who, None).await.map_err(|error| error.to_string())),
            false => format!("unpin {who}: {:?}", reloader.unpin(who).await.map_err(|error| error.to_string())),
        },
        9 => format!("promote {who}: {:?}", reloader.promote(who).await.map_err(|error| error.to_string())),
        _ => format!("collect: {:?}", reloader.collect(true).await.map_err(|error| error.to_string())),
    }
}

/// The version that is proven, and the one on trial, of each subscriber.
type Versions = BTreeMap<String, (String, Option<String>)>;

/// By the record.
fn decided(bus: &Bus<EmbeddedEngine>) -> Versions {
    let versions =
        |it: wattle::api::Summary| (it.subscriber, (it.proven.to_string(), it.tried.map(|tried| tried.to_string())));
    bus.reloader.list().into_iter().map(versions).collect()
}

/// By the lanes.
fn called(bus: &Bus<EmbeddedEngine>) -> Versions {
    let subscribers = bus.tree.snapshot().subscribers.into_iter();
    subscribers.map(|it| (it.name, (it.digest, it.on_trial.map(|trial| trial.digest)))).collect()
}

/// The names of the root and of what is made from it.
fn topics(plan: &Plan) -> (String, String) {
    let root = plan.topics.iter().find(|topic| topic.is_root()).unwrap().label();
    let made = if root == "t/in" { "t/out" } else { "t/made" };
    (root, made.to_owned())
}

/// What can be found on the disk of plugins: what the versions name, and two records.
fn files_are_named(disk: &impl Disk, bus: &Bus<EmbeddedEngine>, context: &str) {
    let mut named: BTreeSet<String> = ["record", "topology"].map(str::to_owned).into();
    for summary in bus.reloader.list() {
        named.extend(bus.reloader.versions(&summary.subscriber).unwrap().iter().map(|it| format!("{}.wasm", it.wasm)));
    }
    // those that are gone keep theirs until they are collected
    let is_kept = !bus.reloader.retired().is_empty();
    let found: BTreeSet<String> = disk.list().unwrap().into_iter().collect();
    let others: Vec<_> = found.difference(&named).filter(|name| !(is_kept && name.ends_with(".wasm"))).collect();
    assert!(others.is_empty(), "{context}: {others:?} is on the disk, and nothing names it: {named:?}");
}

/// One life of a bus: some changes by two clients, then its end, by a power cut or as it should be.
async fn live(
    world: &World,
    disks: Disks,
    random: &mut Random,
    published: &mut Vec<String>,
    context: &str,
) -> (Disks, u64) {
    let files = plan_of(&[ONE]);
    let is_first = published.is_empty();
    let begun = start(open(&disks.log), disks.plugins.clone(), world, is_first.then_some(&files)).await;
    let (bus, plan) = begun.unwrap_or_else(|error| panic!("{context}: it does not start: {error}"));
    until(&format!("{context}: what runs after a start is what was decided"), || called(&bus) == decided(&bus)).await;
    files_are_named(&disks.plugins, &bus, context);
    all_is_listed(&disks.log, &bus, context).await;
    let (root, made) = topics(&plan);
    // what was acked before is there, handled once and in order
    for _ in 0..3 {
        let id = published.len().to_string();
        bus.tree.publisher().publish(&root, &[event(&id, "k", &id)], None).await.unwrap();
        published.push(id);
    }
    settled(&bus.tree).await;
    let handled: Vec<String> =
        data(&bus.tree, &made).await.iter().map(|data| data.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(handled, *published, "{context}");

    let cut = random.one_in(2);
    if cut {
        disks.fail_at(random.below(60) as usize);
    }
    let (mut first, mut second) = (Random::new(random.next()), Random::new(random.next()));
    let changes = 1 + random.below(AT_ONCE);
    let client = async |random: &mut Random| {
        let mut said = Vec::new();
        for _ in 0..changes {
            said.push(act(&bus, world, random).await);
        }
        said
    };
    let said = tokio::join!(client(&mut first), client(&mut second));
    if std::env::var_os("WATTLE_CHANGES_SHOWN").is_some() {
        eprintln!("{context}: {said:#?}");
    }
    if !cut {
        // a trial that ends by itself just now is decided first
        until(&format!("{context}: what runs is what was decided: {said:#?}"), || called(&bus) == decided(&bus)).await;
        ends(bus).await;
    } else {
        bus.reloader.stop().await;
        bus.tree.drain(Duration::from_secs(60)).await;
    }
    // what was not synced is there or is not
    let (log, plugins) = match cut {
        true => disks.after_crash(random),
        false => (disks.log.after_crash(|| true), disks.plugins.after_crash(|| true)),
    };
    let mut after = Disks::new();
    (after.log, after.plugins) = (log, plugins);
    (after, 2 * changes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_two_clients_change_in_whatever_order_one_state_is_decided_and_runs() {
    let wanted = std::env::var("WATTLE_CHANGES").ok().map_or(80, |wanted| wanted.parse().unwrap());
    let seed = std::env::var("WATTLE_SEED").ok().map_or(1, |seed| seed.parse::<u64>().unwrap());
    let mut random = Random::new(seed);
    let trial = if random.one_in(2) { SHORT } else { LONG };
    let (world, mut disks, mut published) = (World::of(ONE, "a", trial), Disks::new(), Vec::new());
    let (mut changes, mut lives) = (0, 0);
    while changes < wanted {
        let context = format!("seed {seed}, life {lives}");
        let made;
        (disks, made) = Box::pin(live(&world, disks, &mut random, &mut published, &context)).await;
        changes += made;
        lives += 1;
    }
    eprintln!("{changes} changes in {lives} lives");
}

/// What a bus holds in memory for what runs on it: handlers, and tasks.
fn held(world: &World) -> (usize, usize) {
    (Arc::strong_count(&world.texts.pauses), Handle::current().metrics().num_alive_tasks())
}

/// The compiler, once for who has it, the version that runs, and the one that a lane called last, until it looks again.
const HANDLERS_MAX: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_was_changed_a_bus_holds_what_runs_and_nothing_else() {
    let wanted = std::env::var("WATTLE_CHANGES").ok().map_or(60, |wanted| wanted.parse::<u64>().unwrap());
    let seed = std::env::var("WATTLE_SEED").ok().map_or(1, |seed| seed.parse::<u64>().unwrap());
    let (mut random, world, disks) = (Random::new(seed), World::of(ONE, "a", SHORT), Disks::new());
    let (bus, _) = start(open(&disks.log), disks.plugins.clone(), &world, Some(&plan_of(&[ONE]))).await.unwrap();
    let mut first = None;
    for round in 0..5 {
        for _ in 0..if round == 0 { 0 } else { wanted / 4 } {
            act(&bus, &world, &mut random).await;
        }
        // the same state each time: one topology, and a version that is new and not on trial
        bus.reloader.apply(proposal(&world, &plan_of(&[&called_by(0)])), true).await.unwrap();
        bus.reloader.unpin("work").await.unwrap();
        bus.deploy(&format!("z{round}"), Policy::Replace).await;
        bus.reloader.collect(true).await.unwrap();
        until("what runs is what was decided", || called(&bus) == decided(&bus)).await;
        let Some(tasks) = first else {
            tokio::time::sleep(Duration::from_millis(500)).await; // what has ended is gone by then, or counts as held
            first = Some(held(&world).1);
            continue;
        };
        let is_as_before = || {
            let (handlers, now) = held(&world);
            now <= tasks && handlers <= HANDLERS_MAX
        };
        until(
            &format!("seed {seed}, round {round}: it holds {:?}, {first:?} tasks at first", held(&world)),
            is_as_before,
        )
        .await;
    }
    ends(bus).await;
}
