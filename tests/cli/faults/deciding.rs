//! A bus that is killed at any call that changes its disk while a version of a plugin, or a topology, takes the place
//! of another (rows 22 and 23): the next one starts, runs what ran before or what was asked for, as a whole, and that
//! where it was answered; and every event is handled once, by one version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use wattle::api::{Digest, TraceQuery};
use wattle::client::Client;
use wattle::deploy::Store;
use wattle::effects::{DiskFolder, SystemClock};

use crate::common::guests::guest;
use crate::faults::bus::{Home, PATIENCE, event, events, quick_folder};
use crate::faults::strace::Fault;

/// A subscriber that does what the data of events says.
const ONE: &str = "wattle: v1
name: shop
topics: { jobs: { partitions: 4 }, done: {} }
subscribers:
  work: { from: jobs, plugin: work.wasm, config: { describe: done }, to: [done], retry: { attempts: 1 } }
";

/// `work` with another configuration, so another version of it, and `sms` beside it.
fn two() -> String {
    let sms =
        "  sms: { from: jobs, plugin: work.wasm, config: { describe: sent }, to: [sent], retry: { attempts: 1 } }\n";
    let work =
        ONE.replace("done: {} }", "done: {}, sent: {} }").replace("{ describe: done }", "{ describe: done, a: b }");
    work + sms
}

const JOURNAL: &str = "journal-0000000000000000";

/// Something that a command changes.
struct Change {
    command: &'static [&'static str],
    /// What is done before it.
    before: &'static [&'static [&'static str]],
    /// The least number of kills that come before its answer.
    kills_min: usize,
    /// Whether some of them have to come after the decision. With an upload, the thread that decides may make each call
    /// for the first time, as the one that uploads did: calls are counted by thread, so the kill comes earlier.
    reaches_decision: bool,
}

/// What runs: the proven version of each subscriber, and the one on trial, which runs if there is one.
type Runs = BTreeMap<String, (String, Option<String>)>;

/// A bus on whose topic some jobs have been done, and others wait.
struct Shop {
    home: Home,
    /// The jobs of each key, in their order.
    jobs: BTreeMap<String, Vec<String>>,
}

impl Shop {
    fn new() -> Self {
        let home = Home::with_topology(ONE);
        std::fs::write(home.path("two.yaml"), two()).unwrap();
        let work = guest("hostile");
        std::fs::write(home.path("work.wasm"), &work).unwrap();
        std::fs::write(home.path("other.wasm"), other(&work)).unwrap();
        Self { home, jobs: BTreeMap::new() }
    }

    /// A job for each partition and more.
    async fn publish(&mut self, client: &Client) -> Vec<String> {
        let mut ids = Vec::new();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let jobs = self.jobs.entry(key.to_owned()).or_default();
            let (id, job) = (format!("{key}-{}", jobs.len()), format!("echo {key}-{}", jobs.len()));
            client.publish("jobs", vec![event(&id, key, job.clone())]).await.unwrap();
            jobs.push(job);
            ids.push(id);
        }
        ids
    }

    /// Every job was done once, in the order of its key.
    async fn all_done(&self, client: &Client, topic: &str, context: &str) {
        let mut done: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in events(client, topic).await.unwrap() {
            let job = String::from_utf8(event.data.unwrap().as_bytes().to_vec()).unwrap();
            let key = job.split([' ', '-']).nth(1).unwrap().to_owned();
            done.entry(key).or_default().push(job);
        }
        assert_eq!(done, self.jobs, "{context}: {topic}");
    }

    /// The files by which it is decided what runs.
    fn records(&self) -> Vec<PathBuf> {
        let folder = self.home.data("plugins");
        let names = ["record", "record.new", "topology", "topology.new"];
        names.iter().map(|name| folder.join(name)).chain([folder.clone()]).collect()
    }

    /// The new component, which another thread writes: calls are counted by thread.
    fn component(&self) -> Vec<PathBuf> {
        let component = Digest::of(&std::fs::read(self.home.path("other.wasm")).unwrap()).to_string() + ".wasm";
        let folder = self.home.data("plugins");
        vec![folder.join(format!("{component}.new")), folder.join(component)]
    }

    /// The subscribers of the topology that was applied last.
    fn decided(&self) -> BTreeSet<String> {
        let copy = quick_folder();
        std::fs::copy(self.home.data("plugins/topology"), copy.path().join("topology")).unwrap();
        let store = Store::open(DiskFolder::create(copy.path()).unwrap(), Arc::new(SystemClock)).unwrap();
        let (plan, _) = store.topology().unwrap();
        plan.subscribers.iter().map(|subscriber| subscriber.label()).collect()
    }
}

/// The same plugin with something that nobody looks at: another version that does the same.
fn other(wasm: &[u8]) -> Vec<u8> {
    [wasm, &[0, 3, 1, b'm', 1]].concat() // a custom section named `m`
}

async fn runs(client: &Client) -> Runs {
    let subscribers = client.status().await.unwrap().tree.subscribers.into_iter();
    let versions = |it: wattle::api::SubscriberStatus| (it.name, (it.digest, it.on_trial.map(|it| it.digest)));
    subscribers.map(versions).collect()
}

/// Waits until every job was handled and all that came of it can be read from outside.
async fn handled(client: &Client) {
    let start = Instant::now();
    loop {
        let tree = client.status().await.unwrap().tree;
        let is_handled = tree.subscribers.iter().all(|subscriber| subscriber.lag + subscriber.waiting == 0);
        let mut partitions = tree.topics.iter().flat_map(|topic| &topic.partitions);
        if is_handled && partitions.all(|bounds| bounds.durable == bounds.written) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{tree:#?}");
    }
}

/// Calls that change the disk.
const CALLS: &str = "unlink,pwrite64,fdatasync,rename,fsync";

/// How many times each thread made each call.
fn counts(trace: &str) -> BTreeMap<(String, String), u32> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let called = line.split_once(' ').and_then(|(thread, called)| Some((called.split_once('(')?.0, thread)));
        if let Some((call, thread)) = called.filter(|(call, _)| CALLS.split(',').any(|it| it == call.trim())) {
            *counts.entry((call.trim().to_owned(), thread.to_owned())).or_insert(0) += 1;
        }
    }
    counts
}

/// A call, which one of those of a thread, and the files that it is about.
type Place = (String, u32, Vec<PathBuf>);

/// The calls that a change makes, and what runs after it.
async fn places(shop: &Shop, change: &Change, before: &Runs) -> (Vec<Place>, Runs) {
    let (mut places, mut after) = (Vec::new(), None);
    for files in [shop.component(), shop.records(), vec![shop.home.file(JOURNAL)]] {
        shop.home.restore();
        let bus = shop.home.start_with(&Fault::never(CALLS).on_any(&files)).unwrap();
        let start = counts(&shop.home.calls());
        shop.home.ok(&bus, change.command);
        for ((call, thread), last) in counts(&shop.home.calls()) {
            let first = start.get(&(call.clone(), thread)).map_or(1, |calls| calls + 1);
            places.extend((first..=last).map(|nth| (call.clone(), nth, files.clone())));
        }
        let now = runs(&bus.client().await).await;
        assert!(now != *before && after.as_ref().is_none_or(|after| *after == now), "{now:?}, {before:?}, {after:?}");
        after = Some(now);
        bus.stop();
    }
    places.sort();
    places.dedup();
    (places, after.unwrap())
}

async fn kill_everywhere(change: Change) {
    let mut shop = Shop::new();
    let bus = shop.home.start();
    let client = bus.client().await;
    // What waits for `work` is there when it runs again, whatever it is then.
    shop.publish(&client).await;
    handled(&client).await;
    shop.home.ok(&bus, &["pause", "work"]);
    shop.publish(&client).await;
    change.before.iter().for_each(|command| shop.home.ok(&bus, command));
    let before = runs(&client).await;
    bus.stop();
    shop.home.save();

    let (mut places, after) = places(&shop, &change, &before).await;
    places.push((CALLS.to_owned(), u32::from(u16::MAX), shop.records())); // when it was answered
    let mut found = BTreeMap::new();
    let jobs = shop.jobs.clone();
    for (call, nth, files) in &places {
        shop.jobs = jobs.clone();
        std::fs::write(shop.home.path("shop.yaml"), ONE).unwrap();
        shop.home.restore();
        let fault = Fault::kill(call, *nth).on_any(files);
        let context = format!("{:?} killed at {call} {nth} of {}", change.command, files[0].display());
        let ended = match shop.home.start_with(&fault) {
            // The call comes behind the answer, or does not come this time: it is killed there.
            Ok(bus) if shop.home.run(&bus, change.command).status.success() => None,
            Ok(bus) => Some(bus.end()),
            Err(ended) => Some(ended), // a thread of the start makes as many such calls
        };
        let answered = ended.is_none();
        assert!(ended.as_ref().is_none_or(|ended| ended.code.is_none()), "{context}: it was to be killed: {ended:?}");
        // Whoever starts it has the topology that was decided: another one would be applied.
        let decided = shop.decided();
        if decided.len() > 1 {
            std::fs::write(shop.home.path("shop.yaml"), two()).unwrap();
        }
        let bus = shop.home.start();
        let client = bus.client().await;
        let now = runs(&client).await;
        assert_eq!(now.keys().cloned().collect::<BTreeSet<_>>(), decided, "{context}");
        assert!(now == after || !answered && now == before, "{context}: {now:#?}, not {before:#?} or {after:#?}");
        *found.entry((answered, now == after)).or_insert(0) += 1;
        shop.home.ok(&bus, &["resume", "work"]);
        let ids = shop.publish(&client).await;
        handled(&client).await;
        shop.all_done(&client, "done", &context).await;
        if decided.len() > 1 {
            shop.all_done(&client, "sent", &context).await;
        }
        for id in ids {
            let trace = client.trace(TraceQuery { id, ..TraceQuery::default() }).await.unwrap();
            let by = trace.events[0].handlings.iter();
            let by: BTreeMap<_, _> = by.map(|it| (it.subscriber.clone(), it.digest.clone())).collect();
            let one = now
                .iter()
                .map(|(name, (proven, tried))| (name.clone(), Some(tried.as_ref().unwrap_or(proven).clone())));
            assert_eq!(by, one.collect(), "{context}");
        }
        // What was broken off can be done.
        if now == before {
            shop.home.ok(&bus, change.command);
            assert_eq!(runs(&client).await, after, "{context}");
        }
        bus.stop();
    }
    eprintln!("{:?}: {} kills; (answered, changed): {found:?}", change.command, places.len());
    let of = |changed| found.get(&(false, changed)).copied().unwrap_or(0);
    let is_decided = of(true) > 0 || !change.reaches_decision;
    assert!(of(false) > 0 && is_decided && of(false) + of(true) >= change.kills_min, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_a_deploy_it_runs_the_version_before_or_the_new_one() {
    let command = &["plugin", "deploy", "work", "other.wasm"];
    kill_everywhere(Change { command, before: &[], kills_min: 8, reaches_decision: false }).await;
    // A component that the bus has is not uploaded: every call is one of the decision.
    let before: &[&[&str]] =
        &[&["plugin", "deploy", "work", "other.wasm", "--policy", "replace"], &["plugin", "rollback", "work"]];
    kill_everywhere(Change { command, before, kills_min: 5, reaches_decision: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_a_rollback_it_runs_the_version_before_or_the_older_one() {
    let before: &[&[&str]] = &[&["plugin", "deploy", "work", "other.wasm", "--policy", "replace"]];
    kill_everywhere(Change { command: &["plugin", "rollback", "work"], before, kills_min: 5, reaches_decision: true })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_an_apply_it_runs_the_old_topology_or_the_new_one() {
    kill_everywhere(Change { command: &["apply", "two.yaml"], before: &[], kills_min: 10, reaches_decision: true })
        .await;
}
