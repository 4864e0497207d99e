//! A process that lives in order to die: it opens an engine with small files and frequent checkpoints, appends, handles
//! what it has appended, and prints what was acknowledged.
//!
//! It is this test program once more, told by a variable to run [`a_life`] alone. So a fault in it is one in the real
//! engine on the real file system, at sizes at which files end, checkpoints and removals happen all the time.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use wattle::effects::{DiskFolder, SystemClock};
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::engine::{
    AppendError, Blueprint, Engine, ReadBudget, Session, SessionError, Slices, SubscriberSpec, TopicSpec, Unit,
};
use wattle::model::{LaneId, PartitionId, Retention, TopicSettings};

/// Partitions of both topics.
pub(crate) const PARTITIONS: u32 = 8;
/// How it ends where the disk has failed it.
pub(crate) const FAILED: i32 = 3;

const VARIABLE: &str = "FAULTS_LIFE";

/// What a life appends.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) folder: PathBuf,
    /// Different for each life.
    pub(crate) number: u64,
    /// How many appends, one after the other; then it closes and ends.
    pub(crate) appends: u64,
    /// Of one append: this many partitions get an event.
    pub(crate) width: u32,
    /// Bytes of an event.
    pub(crate) bytes: usize,
}

impl Life {
    /// Many small appends, so that most calls are the appender's and the syncer's.
    pub(crate) fn of_small_appends(folder: &Path, number: u64) -> Self {
        Self { folder: folder.to_owned(), number, appends: 150, width: 1, bytes: 60 }
    }

    /// Few large appends, so that most calls are the checkpointer's.
    pub(crate) fn of_large_appends(folder: &Path, number: u64) -> Self {
        Self { folder: folder.to_owned(), number, appends: 12, width: PARTITIONS, bytes: 600 }
    }

    /// The command that lives it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let Self { folder, number, appends, width, bytes } = self;
        let arguments = format!("{number} {appends} {width} {bytes} {}", folder.display());
        command.args(["--exact", "faults::life::a_life", "--nocapture"]).env(VARIABLE, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn from_variable() -> Option<Self> {
        let variable = std::env::var(VARIABLE).ok()?;
        let mut words = variable.splitn(5, ' ');
        let mut next = || words.next().unwrap();
        Some(Self {
            number: next().parse().unwrap(),
            appends: next().parse().unwrap(),
            width: next().parse().unwrap(),
            bytes: next().parse().unwrap(),
            folder: next().into(),
        })
    }
}

/// Files of 16 KiB: some hundred small appends, or three large ones.
fn options() -> LogOptions {
    LogOptions { file_bytes: 16 << 10, recent_bytes_max: 16 << 10, checkpoint_bytes: 4 << 10, ..LogOptions::default() }
}

/// An engine on a folder.
pub(crate) fn open(folder: &Path) -> Result<EmbeddedEngine, String> {
    let disk = DiskFolder::create(folder).map_err(|error| error.to_string())?;
    let opened = EmbeddedEngine::open_with(folder, Arc::new(disk), Arc::new(SystemClock), options());
    opened.map_err(|error| error.to_string())
}

/// The lanes of the subscriber, the partitions that they consume, and those that they emit to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    lane: LaneId,
    input: PartitionId,
    output: PartitionId,
}

impl Tree {
    pub(crate) fn lane(self, partition: u32) -> LaneId {
        LaneId { partition, ..self.lane }
    }

    pub(crate) fn input(self, partition: u32) -> PartitionId {
        PartitionId { partition, ..self.input }
    }

    pub(crate) fn output(self, partition: u32) -> PartitionId {
        PartitionId { partition, ..self.output }
    }
}

/// A topic, a subscriber of it, and a topic that keeps everything for what it emits.
pub(crate) async fn apply(engine: &EmbeddedEngine, retention: Retention) -> Result<Tree, String> {
    let topic = |name: &str, retention| TopicSpec {
        name: name.into(),
        partitions: PARTITIONS,
        settings: TopicSettings { retention, ..TopicSettings::default() },
        lifecycle: None,
    };
    let blueprint = Blueprint {
        topics: vec![topic("in", retention), topic("out", Retention::default())],
        subscribers: vec![SubscriberSpec { name: "s".into(), from: "in".into() }],
        ..Blueprint::default()
    };
    let numbers = engine.apply(&blueprint).await.map_err(|error| error.to_string())?;
    let partition = |topic: usize| PartitionId { topic: numbers.topics[topic], partition: 0 };
    let lane = LaneId { subscriber: numbers.subscribers[0], partition: 0 };
    Ok(Tree { lane, input: partition(0), output: partition(1) })
}

/// What the subscriber makes of an event: its name, with an accent.
pub(crate) fn image(record: &[u8]) -> String {
    format!("{}'", name_of(record))
}

/// An event without its padding.
pub(crate) fn name_of(record: &[u8]) -> &str {
    std::str::from_utf8(record).unwrap().split(' ').next().unwrap()
}

/// Runs a lane until the engine stops. A read that fails ends the session, and a new one goes on from the committed
/// position, as the bus itself does it: the reader needs files too, and may be the one that meets the fault.
async fn run_lane(engine: EmbeddedEngine, tree: Tree, partition: u32) -> Result<(), SessionError> {
    loop {
        match handle(&engine, tree, partition).await {
            Err(SessionError::Read(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            ended => return ended,
        }
    }
}

async fn handle(engine: &EmbeddedEngine, tree: Tree, partition: u32) -> Result<(), SessionError> {
    let mut session = engine.acquire(tree.lane(partition)).await?;
    loop {
        let chunks = session.read(ReadBudget { events: 16, bytes: usize::MAX }).await?;
        let mut emits = Slices::default();
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            push(&mut emits, tree.output(partition), image(stored.record).as_bytes());
        }
        let consumed_to = session.next_offset();
        session.commit(Unit { consumed_to, emits, ..Unit::default() }).await?;
    }
}

pub(crate) fn push(slices: &mut Slices, partition: PartitionId, record: &[u8]) {
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(record);
        Ok::<_, ()>(())
    };
    slices.push(partition, write).unwrap();
}

async fn live(life: &Life) -> Result<(), String> {
    let engine = open(&life.folder)?;
    // little, so that old events go all the time
    let tree = apply(&engine, Retention { partition_bytes: Some(4_000), ..Retention::default() }).await?;
    let lanes: Vec<_> =
        (0..PARTITIONS).map(|partition| tokio::spawn(run_lane(engine.clone(), tree, partition))).collect();
    for number in 0..life.appends {
        append(&engine, tree, life, number).await?;
    }
    for partition in 0..PARTITIONS {
        let input = tree.input(partition);
        while engine.position(tree.lane(partition)) < engine.bounds(input).map(|bounds| bounds.written) {
            if lanes.iter().any(tokio::task::JoinHandle::is_finished) {
                break; // since the engine has stopped, as closing says
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    engine.close().await.map_err(|error| error.to_string())?;
    for lane in lanes {
        match lane.await.unwrap() {
            Err(SessionError::Stopped(_)) => {}
            other => panic!("a lane ended: {other:?}"),
        }
    }
    Ok(())
}

/// Appends, as often as it takes, and says so where it was acknowledged.
async fn append(engine: &EmbeddedEngine, tree: Tree, life: &Life, number: u64) -> Result<(), String> {
    let partitions = (0..life.width).map(|nth| (number as u32 + nth) % PARTITIONS);
    let events: Vec<_> =
        partitions.map(|partition| (partition, format!("{}-{number}-{partition}", life.number))).collect();
    loop {
        let mut slices = Slices::default();
        for (partition, name) in &events {
            let record = format!("{name} {}", "x".repeat(life.bytes));
            push(&mut slices, tree.input(*partition), record.as_bytes());
        }
        match engine.append(slices).await {
            Ok(appended) => {
                let mut lines = String::new();
                for ((partition, name), offset) in events.iter().zip(&appended.base_offsets) {
                    writeln!(lines, "acked {partition} {offset} {name}").unwrap();
                }
                std::io::stdout().write_all(lines.as_bytes()).unwrap();
                return Ok(());
            }
            Err(AppendError::Busy { .. } | AppendError::Full { .. }) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(AppendError::Stopped(stopped)) => return Err(stopped.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Not a test of its own: what the others start.
#[test]
fn a_life() {
    let Some(life) = Life::from_variable() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lived = runtime.block_on(live(&life));
    if let Err(error) = &lived {
        eprintln!("failed: {error}");
    }
    std::process::exit(if lived.is_ok() { 0 } else { FAILED });
}
