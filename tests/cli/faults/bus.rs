//! A bus as people run it, on a data folder of its own, with faults where a test wants them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use wattle::client::{Client, ClientError, ReadRequest};
use wattle::model::event::Data;
use wattle::model::{Attribute, Event};

use crate::common::process::{Process, address, wattle};
use crate::faults::strace::{Fault, cannot_start};

/// How long anything may take before a test gives up. Nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two roots, of four partitions and of one, that nobody consumes.
pub(crate) const TOPOLOGY: &str =
    "wattle: v1\nname: shop\ntopics:\n  orders: { partitions: 4 }\n  log: {}\nsubscribers: {}\n";

/// A folder that is quick: faults are injected, not waited for.
pub(crate) fn quick_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A topology and a data folder; the program itself runs in [`Bus`].
pub(crate) struct Home {
    folder: TempDir,
    data: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with_topology(TOPOLOGY)
    }

    pub(crate) fn with_topology(topology: &str) -> Self {
        let folder = quick_folder();
        let data = folder.path().join("data");
        Self::with(folder, data, topology)
    }

    /// A home whose data are somewhere else.
    pub(crate) fn with_data(data: &Path, topology: &str) -> Self {
        Self::with(quick_folder(), data.to_owned(), topology)
    }

    fn with(folder: TempDir, data: PathBuf, topology: &str) -> Self {
        std::fs::write(folder.path().join("shop.yaml"), topology).unwrap();
        Self { folder, data }
    }

    /// A file or folder of the data.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// A file of the log.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data("log").join(name)
    }

    /// The program, in the folder of the topology.
    fn wattle(&self) -> Command {
        let mut command = wattle();
        command.current_dir(self.folder.path());
        command
    }

    /// A file beside the topology, which is `shop.yaml`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a client command does with a bus.
    pub(crate) fn run(&self, bus: &Bus, arguments: &[&str]) -> Output {
        self.wattle().env("WATTLE_SERVER", &bus.address).args(arguments).output().unwrap()
    }

    /// The same where it has to succeed.
    pub(crate) fn ok(&self, bus: &Bus, arguments: &[&str]) {
        let ran = self.run(bus, arguments);
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Puts what the bus keeps aside.
    pub(crate) fn save(&self) {
        copy(&self.data, &self.path("saved"));
    }

    /// Has the bus keep again what was put aside.
    pub(crate) fn restore(&self) {
        std::fs::remove_dir_all(&self.data).unwrap();
        copy(&self.path("saved"), &self.data);
    }

    /// The command that starts a bus.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.wattle();
        command.arg("run").arg(self.path("shop.yaml")).arg("--data").arg(&self.data);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        command
    }

    /// Starts a bus.
    pub(crate) fn start(&self) -> Bus {
        Bus::spawn(self.command()).unwrap_or_else(|ended| panic!("it does not start: {ended:?}"))
    }

    /// Starts a bus with a fault, which may keep it from serving.
    pub(crate) fn start_with(&self, fault: &Fault) -> Result<Bus, Ended> {
        Bus::spawn(fault.command(&self.command(), &self.path("trace")))
    }

    /// The calls that the last bus with a fault has made so far, of those that the fault is about.
    pub(crate) fn calls(&self) -> String {
        std::fs::read_to_string(self.path("trace")).unwrap_or_default()
    }

    /// What the fault came to, for messages.
    pub(crate) fn trace(&self) -> String {
        let trace = self.calls();
        let lines: Vec<_> = trace.lines().filter(|line| line.contains("INJECTED")).take(5).collect();
        lines.join("\n")
    }

    /// Reads everything of a topic after a start without faults, and sees that no byte of the folder is damaged.
    pub(crate) async fn stored(&self, topic: &str) -> Vec<String> {
        let bus = self.start();
        let stored = read(&bus.client().await, topic).await.unwrap();
        bus.stop();
        let verified = self.wattle().args(["log", "verify", "--data"]).arg(&self.data).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        stored
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// How a bus ended, and everything that it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Ended {
    /// It ended by itself, in order, and said why.
    pub(crate) fn assert_failed_with(&self, words: &str) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert!(self.said.contains(words), "it does not say {words:?}: {self:#?}");
        self.assert_no_panic();
    }

    pub(crate) fn assert_no_panic(&self) {
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }
}

/// A bus that serves.
pub(crate) struct Bus {
    pub(crate) address: String,
    process: Process,
}

impl Bus {
    /// Starts a bus with this command, and waits until it serves or has ended.
    pub(crate) fn spawn(mut command: Command) -> Result<Self, Ended> {
        let spawned = Process::spawn(command.stdout(Stdio::null()));
        let mut process = spawned.unwrap_or_else(|error| cannot_start(&command, &error));
        match process.find(address) {
            Some(address) => Ok(Self { address, process }),
            None => Err(ended(process)),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.address).await.unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Ended {
        ended(self.process)
    }

    /// What it has said so far.
    pub(crate) fn said(&mut self) -> String {
        self.process.said()
    }

    /// Tells it to stop, and sees that it does so in order.
    pub(crate) fn stop(self) {
        self.process.signal("TERM");
        let ended = self.end();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.assert_no_panic();
    }

    /// Watches its health. Resolves when it stops being SERVING: when that was, and whether it said so itself.
    pub(crate) async fn watch_health(&self) -> tokio::task::JoinHandle<(Instant, bool)> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let request = HealthCheckRequest { service: String::new() };
        let mut answers = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        tokio::spawn(async move {
            let next = answers.message().await;
            let said_so = matches!(&next, Ok(Some(answer)) if answer.status() == ServingStatus::NotServing);
            (Instant::now(), said_so)
        })
    }
}

fn ended(process: Process) -> Ended {
    let (status, said) = process.end();
    Ended { code: status.code(), said }
}

/// All events of a topic, in the order in which they come.
pub(crate) async fn events(client: &Client, topic: &str) -> Result<Vec<Event>, ClientError> {
    let mut events = Vec::new();
    let mut reading = client.read(ReadRequest { topic: topic.to_owned(), ..ReadRequest::default() }).await?;
    while let Some(received) = reading.next().await? {
        events.extend(received.iter().map(|received| Event::decode(&received.event).unwrap()));
    }
    Ok(events)
}

/// The ids of the same.
pub(crate) async fn read(client: &Client, topic: &str) -> Result<Vec<String>, ClientError> {
    Ok(events(client, topic).await?.into_iter().map(|event| event.id).collect())
}

/// What producers know of what they sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// In front of all names: each producer has its own.
    producer: u64,
    next: u64,
    /// These must be there.
    pub(crate) acked: BTreeSet<String>,
    /// These may be there.
    unknown: BTreeSet<String>,
    /// These must not: the bus said that nothing had happened.
    pub(crate) refused: BTreeSet<String>,
}

pub(crate) fn event(id: &str, key: &str, data: String) -> Bytes {
    let mut event = Event { id: id.into(), source: "/faults".into(), r#type: "t".into(), ..Event::default() };
    event.attributes.insert("partitionkey".into(), Attribute::String(key.into()));
    event.data = Some(Data::Text(data));
    event.encode()
}

impl Sent {
    /// What one of several producers knows.
    pub(crate) fn of(producer: u64) -> Self {
        Self { producer, ..Self::default() }
    }

    /// Takes over what another one knows.
    pub(crate) fn join(&mut self, other: Self) {
        self.acked.extend(other.acked);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
    }

    /// Publishes one event of about so many bytes. It never is a second time.
    pub(crate) async fn publish(&mut self, client: &Client, topic: &str, bytes: usize) -> Result<(), ClientError> {
        self.publish_many(client, topic, 1, bytes).await
    }

    /// Publishes some events at once.
    pub(crate) async fn publish_many(
        &mut self,
        client: &Client,
        topic: &str,
        count: usize,
        bytes: usize,
    ) -> Result<(), ClientError> {
        let ids: Vec<String> =
            (0..count as u64).map(|number| format!("{}-{}", self.producer, self.next + number)).collect();
        self.next += count as u64;
        let events = ids.iter().map(|id| event(id, id, "x".repeat(bytes))).collect();
        let published = tokio::time::timeout(PATIENCE, client.publish(topic, events)).await.expect("no answer");
        match &published {
            Ok(_) => self.acked.extend(ids),
            Err(error) if error.has_no_side_effects() => self.refused.extend(ids),
            Err(_) => self.unknown.extend(ids),
        }
        published.map(drop)
    }

    /// Holds what is there to what was promised.
    pub(crate) fn check(&self, stored: &[String], context: &str) {
        let distinct: BTreeSet<&String> = stored.iter().collect();
        assert_eq!(distinct.len(), stored.len(), "{context}: something is there twice");
        let lost: Vec<_> = self.acked.iter().filter(|id| !distinct.contains(id)).collect();
        assert!(lost.is_empty(), "{context}: {} of {} acknowledged are lost: {lost:?}", lost.len(), self.acked.len());
        let ghosts: Vec<_> = self.refused.iter().filter(|id| distinct.contains(id)).collect();
        assert!(ghosts.is_empty(), "{context}: these were said not to have happened: {ghosts:?}");
        let known = |id: &String| self.acked.contains(id) || self.unknown.contains(id);
        assert!(stored.iter().all(known), "{context}: there are events that nobody sent");
    }
}
