//! What lives have promised, and whether a folder keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{Engine, ReadBudget};
use wattle::model::{PartitionId, Retention};

use crate::faults::bus::quick_folder;
use crate::faults::life::{FAILED, Life, PARTITIONS, apply, image, name_of, open};
use crate::faults::strace::{Fault, cannot_start};

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, all done.
    Survived,
    /// It was killed.
    Killed,
    /// It said that the disk had failed.
    Failed,
}

/// A folder in which one life follows another, and what they have been told.
pub(crate) struct Ledger {
    folder: TempDir,
    /// Names of events by partition and offset.
    acked: BTreeMap<(u32, u64), String>,
    lives: u64,
    /// What the last life said.
    pub(crate) said: String,
}

const SIGKILL: i32 = 9;

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { folder: quick_folder(), acked: BTreeMap::new(), lives: 0, said: String::new() }
    }

    /// The folder of the log.
    pub(crate) fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    /// Whether the last life met its fault.
    pub(crate) fn was_injected(&self) -> bool {
        std::fs::read_to_string(self.folder.path().join("trace")).unwrap_or_default().contains("INJECTED")
    }

    pub(crate) fn acked(&self) -> usize {
        self.acked.len()
    }

    /// Lives once, to the end or to the fault.
    pub(crate) fn live(&mut self, life: impl Fn(&Path, u64) -> Life, fault: Option<&Fault>) -> End {
        let mut command = self.command(life);
        if let Some(fault) = fault {
            command = fault.command(&command, &self.folder.path().join("trace"));
            command.stdin(std::process::Stdio::null());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        }
        let output = command.output().unwrap_or_else(|error| cannot_start(&command, &error));
        self.take(&output)
    }

    /// Lives until it is killed from outside.
    pub(crate) fn live_for(&mut self, life: impl Fn(&Path, u64) -> Life, time: Duration) -> End {
        let mut child = self.command(life).spawn().unwrap();
        std::thread::sleep(time);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        self.take(&output)
    }

    fn command(&mut self, life: impl Fn(&Path, u64) -> Life) -> Command {
        self.lives += 1;
        life(&self.log(), self.lives).command()
    }

    /// Remembers what a life was told.
    fn take(&mut self, output: &Output) -> End {
        self.said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!self.said.contains("panicked"), "{}", self.said);
        let said = String::from_utf8_lossy(&output.stdout);
        // it may have been killed in the middle of its last line
        for line in said.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Some(acked) = line.trim_end().split_once("acked ") else { continue };
            let words: Vec<&str> = acked.1.split(' ').collect();
            let place = (words[0].parse().unwrap(), words[1].parse().unwrap());
            let before = self.acked.insert(place, words[2].to_owned());
            assert_eq!(before, None, "two events were acknowledged at {place:?}, the second is {}", words[2]);
        }
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => End::Survived,
            (Some(FAILED), _) => End::Failed,
            (_, Some(SIGKILL)) => End::Killed,
            _ => panic!("{:?}: {}", output.status, self.said),
        }
    }

    /// Opens a copy of the folder, so that the next life finds what this one left, and holds it to everything that was
    /// promised. Returns how long the opening took.
    pub(crate) async fn check(&self, context: &str) -> Duration {
        if !self.log().exists() {
            assert!(self.acked.is_empty(), "{context}");
            return Duration::ZERO;
        }
        let copy = quick_folder();
        for entry in std::fs::read_dir(self.log()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let start = Instant::now();
        let engine = open(copy.path()).unwrap_or_else(|error| panic!("{context}: it does not open: {error}"));
        let took = start.elapsed();
        let tree = apply(&engine, Retention::default()).await.unwrap(); // nothing more shall go while it is read
        for partition in 0..PARTITIONS {
            let context = format!("{context}, partition {partition}");
            let (input, output) = (tree.input(partition), tree.output(partition));
            let start = engine.bounds(input).unwrap().start;
            let inputs = records(&engine, input, start, &context).await;
            let outputs = records(&engine, output, 0, &context).await;
            let handled = engine.position(tree.lane(partition)).unwrap();
            assert!(start <= handled, "{context}: events up to {start} are gone, and {handled} were processed");
            assert_eq!(outputs.len() as u64, handled, "{context}: each event that was processed has one output");
            let end = start + inputs.len() as u64;
            assert!(handled <= end, "{context}: {handled} were processed of {end}");
            for offset in start..handled {
                let (record, output) = (&inputs[(offset - start) as usize], &outputs[offset as usize]);
                assert_eq!(image(record.as_bytes()), *output, "{context}: the output of {offset}");
            }
            let names =
                inputs.iter().skip((handled - start) as usize).map(|record| name_of(record.as_bytes()).to_owned());
            let names: Vec<String> =
                outputs.iter().map(|output| output.trim_end_matches('\'').to_owned()).chain(names).collect();
            let distinct: BTreeSet<&String> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{context}: something is there twice");
            for ((_, offset), name) in self.acked.range((partition, 0)..(partition + 1, 0)) {
                let found = names.get(*offset as usize);
                assert_eq!(found, Some(name), "{context}: what was acknowledged at {offset}");
            }
        }
        engine.close().await.unwrap();
        took
    }
}

/// All records of a partition from an offset on, one at each.
async fn records(engine: &EmbeddedEngine, partition: PartitionId, mut from: u64, context: &str) -> Vec<String> {
    let mut records = Vec::new();
    loop {
        let chunks = engine.read(partition, from, ReadBudget { events: u32::MAX, bytes: usize::MAX }).await.unwrap();
        if chunks.is_empty() {
            return records;
        }
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            assert_eq!(stored.offset, from, "{context}: a hole");
            records.push(String::from_utf8(stored.record.to_vec()).unwrap());
            from += 1;
        }
    }
}
