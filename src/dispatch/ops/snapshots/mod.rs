//! Snapshots of a subscriber: the state and the retry queue of each lane, with its position, taken between two calls.
//!
//! ```text
//!   lanes, each between two calls ──> frozen entries, position ──> one complete file
//!                        and continue     read concurrently
//!
//!   the complete, verified file ──> lane by lane: delete the entries, write those of the file, set the position
//! ```
//!
//! Promises: a lane pauses no longer than it takes to copy its changes since the last checkpoint. A snapshot contains
//! only durable data. A seek to a snapshot restores state, waiting events and position together; if it is interrupted,
//! the lane stays stopped until the next seek. Not included: commands to lanes, and which dead letters are done.

mod file;

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::SnapshotError;
use crate::api::{SnapshotCause, SnapshotInfo, StateEntry, StateOfPartition};
use crate::dispatch::lane::command::{Command, LaneQuery, SnapshotPart};
use crate::dispatch::lane::entries::{RECORD, STATE, end_of};
use crate::dispatch::lane::state::{self};
use crate::dispatch::ops::error::ControlError;
use crate::dispatch::ops::subscriber::{ANSWER_WITHIN, Subscriber, late};
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::renames::Renames;
use crate::dispatch::tree::turns::SnapshotLocks;
use crate::effects::Disk;
use crate::engine::{Engine, Entries, PageBudget};
use crate::limits::SHADOW_BYTES_MAX;
use crate::model::{LaneId, Offset, PartitionId, SubscriberId};
use crate::topology::Plan;
use file::{FileError, FilePart, Reader, Size, SnapshotHeader, Writer};

/// Entries that are read at once.
const PAGE: usize = 1_000;
/// Blocks of a file that are buffered for a lane.
const BLOCKS_AHEAD: usize = 4;
/// Default number of snapshots that are retained per subscriber, separately for manual ones and for those of deploys.
pub const KEPT_DEFAULT: usize = 8;

fn unusable(number: u64) -> impl Fn(FileError) -> SnapshotError {
    move |error| SnapshotError::Unusable { number, reason: error.to_string() }
}

impl SnapshotInfo {
    fn new(number: u64, about: SnapshotHeader, size: Size) -> Self {
        let SnapshotHeader { taken_ns, digest, note, by, positions, .. } = about;
        Self { number, taken_ns, digest, note, by, positions, entries: size.entries, bytes: size.bytes }
    }
}

/// The numbers of a subscriber's snapshots, ascending.
fn numbers(disk: &dyn Disk, subscriber: SubscriberId) -> io::Result<Vec<u64>> {
    let names = disk.list()?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| file::number_of(subscriber, name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Number of snapshots of a subscriber.
pub(crate) fn count_of(disk: &dyn Disk, subscriber: SubscriberId) -> Result<u64, SnapshotError> {
    Ok(numbers(disk, subscriber)?.len() as u64)
}

/// Removes all snapshots of a subscriber.
pub(crate) fn remove_of(disk: &dyn Disk, subscriber: SubscriberId) -> Result<(), SnapshotError> {
    for number in numbers(disk, subscriber)? {
        disk.remove(&file::name_of(subscriber, number))?;
    }
    Ok(disk.sync_folder()?)
}

/// Writes a snapshot, and removes old ones with the same origin.
fn add<E: Engine>(
    engine: &E,
    disk: &Arc<dyn Disk>,
    subscriber: SubscriberId,
    about: SnapshotHeader,
    lanes: &[E::Entries],
    keep: usize,
) -> Result<SnapshotInfo, SnapshotError> {
    let number = numbers(&**disk, subscriber)?.last().map_or(1, |last| last + 1);
    let name = file::name_of(subscriber, number);
    let size = write(disk.clone(), &name, &about, lanes, || engine.storage().takes_events)?;
    forget_old(&**disk, subscriber, about.by, keep)?;
    Ok(SnapshotInfo::new(number, about, size))
}

/// Like [`Snapshots::take`], for a subscriber whose lanes have stopped or never started, before its plan runs.
/// Returns `None` if it has no state. `renames` are those that have not taken effect yet.
///
/// Relies on: nothing runs, so there is no concurrent snapshot; with a running tree use
/// [`Tree::take_where_it_does_not_run`].
///
/// # Errors
/// [`SnapshotError`]; nothing has changed then.
pub async fn take_where_nothing_runs<E: Engine>(
    engine: &E,
    names: (&Plan, &Renames),
    subscriber: &str,
    about: (SnapshotCause, &str, &str),
    keep: usize,
) -> Result<Option<SnapshotInfo>, SnapshotError> {
    take_in_turn(engine, &SnapshotLocks::default(), names, subscriber, about, keep).await
}

async fn take_in_turn<E: Engine>(
    engine: &E,
    turns: &SnapshotLocks,
    (plan, renames): (&Plan, &Renames),
    subscriber: &str,
    (by, digest, note): (SnapshotCause, &str, &str),
    keep: usize,
) -> Result<Option<SnapshotInfo>, SnapshotError> {
    let Some(of) = plan.subscribers.iter().find(|of| of.label() == subscriber) else { return Ok(None) };
    let input = engine.topic(renames.old_topic(&plan[of.from].label()));
    let number = input.and_then(|input| engine.subscriber(renames.old_subscriber(subscriber), input));
    let Some(number) = number else { return Ok(None) };
    // a snapshot that began while the subscriber ran may still be written
    let one_at_a_time = turns.of(number).lock_owned().await;
    let (mut positions, mut lanes, mut has_state) = (Vec::new(), Vec::new(), false);
    for partition in 0..plan[of.from].partitions {
        let lane = LaneId { subscriber: number, partition };
        let Some(entries) = engine.entries(lane) else { return Ok(None) };
        let entries = entries.frozen()?; // no lane owns them, so there are no pending changes
        has_state |= !state::list(&entries, None, 1)?.0.is_empty();
        positions.push(engine.position(lane).unwrap_or(0));
        lanes.push(entries);
    }
    if !has_state {
        return Ok(None);
    }
    let disk = engine.snapshots().ok_or(SnapshotError::Unsupported)?;
    let (subscriber, digest, note) = (subscriber.to_owned(), digest.to_owned(), note.to_owned());
    let about = SnapshotHeader { subscriber, taken_ns: engine.now_ns(), digest, note, by, positions };
    let engine = engine.clone();
    let written = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = one_at_a_time;
        add(&engine, &disk, number, about, &lanes, keep)
    });
    Ok(Some(written.await.map_err(|error| SnapshotError::Disk(error.to_string()))??))
}

impl<E: Engine> Tree<E> {
    /// Like [`take_where_nothing_runs`], for a stopped subscriber of a running tree.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing has changed then.
    pub async fn take_where_it_does_not_run(
        &self,
        names: (&Plan, &Renames),
        subscriber: &str,
        about: (SnapshotCause, &str, &str),
        keep: usize,
    ) -> Result<Option<SnapshotInfo>, SnapshotError> {
        take_in_turn(&self.shared.engine, &self.shared.snapshots, names, subscriber, about, keep).await
    }
}

/// The snapshots of a subscriber.
pub struct Snapshots<'a, E>(&'a Subscriber<E>);

impl<E: Engine> Subscriber<E> {
    /// Its snapshots, to list, take and remove.
    pub fn snapshots(&self) -> Snapshots<'_, E> {
        Snapshots(self)
    }
}

impl<E: Engine> Snapshots<'_, E> {
    /// Takes a snapshot. Removes old ones with the same origin, down to `keep`, but never the new one. `note` says why
    /// it was taken.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed then.
    pub async fn take(&self, by: SnapshotCause, note: &str, keep: usize) -> Result<SnapshotInfo, ControlError> {
        let (number_of, disk) = (self.0.number, self.disk()?);
        // The lock is per subscriber: a large state does not delay snapshots of other subscribers.
        let one_at_a_time = self.0.tree.shared.snapshots.of(number_of).lock_owned().await;
        let (positions, lanes): (Vec<Offset>, Vec<E::Entries>) = self.freeze().await?.into_iter().unzip();
        let about = SnapshotHeader {
            subscriber: self.0.name(),
            taken_ns: self.0.engine().now_ns(),
            digest: self.0.branch.roster.assignment().proven.digest.to_string(),
            note: note.to_owned(),
            by,
            positions,
        };
        let engine = self.0.engine().clone();
        let written = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = one_at_a_time; // held until the file is written, even if the caller is gone
            add(&engine, &disk, number_of, about, &lanes, keep)
        });
        Ok(written.await.map_err(|error| SnapshotError::Disk(error.to_string()))??)
    }

    /// Entries and position of each lane, taken between two calls, with the durability of the last commit.
    pub(crate) async fn freeze(&self) -> Result<Vec<(Offset, E::Entries)>, ControlError> {
        let within = Instant::now() + ANSWER_WITHIN;
        let mut told = Vec::new();
        for partition in 0..self.0.partitions() {
            let entries = self.0.entries(partition)?;
            let (sender, frozen) = oneshot::channel();
            let look = LaneQuery(Box::new(move |position| {
                let frozen = entries.frozen().map(|entries| (position, entries));
                drop(sender.send(frozen)); // the receiver may be gone
            }));
            let handed_in = self.0.hand_in(partition, |answer| Command::Look(look, answer));
            let handed_in = tokio::time::timeout_at(within, handed_in).await;
            told.push((handed_in.unwrap_or_else(|_| Err(late(partition)))?, frozen));
        }
        let mut lanes = Vec::new();
        for (told, frozen) in told {
            let partition = told.partition;
            tokio::time::timeout_at(within, told.answer()).await.unwrap_or_else(|_| Err(late(partition)))?;
            // an answered command has run
            lanes.push(frozen.await.map_err(|_| late(partition))??);
        }
        Ok(lanes)
    }

    fn disk(&self) -> Result<Arc<dyn Disk>, SnapshotError> {
        self.0.engine().snapshots().ok_or(SnapshotError::Unsupported)
    }

    /// Its snapshots, the oldest first. Reads from disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, ControlError> {
        let (subscriber, disk) = (self.0.number, self.disk()?);
        let info = |number| {
            let (reader, about) = Reader::open(&*disk, &file::name_of(subscriber, number))?;
            Ok::<_, FileError>(SnapshotInfo::new(number, about, reader.size()?))
        };
        let numbers = numbers(&*disk, subscriber).map_err(SnapshotError::from)?;
        Ok(numbers.into_iter().map(|number| info(number).map_err(unusable(number))).collect::<Result<_, _>>()?)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn remove(&self, number: u64) -> Result<(), ControlError> {
        let disk = self.disk()?;
        let removed = disk.remove(&file::name_of(self.0.number, number)).and_then(|()| disk.sync_folder());
        Ok(removed.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SnapshotError::Unknown { subscriber: self.0.name(), number },
            _ => error.into(),
        })?)
    }

    /// Positions of the lanes in a snapshot, and the state in it, if the events after those positions are still stored.
    pub(crate) async fn state_of(&self, number: u64) -> Result<(Vec<Offset>, Vec<StateOfPartition>), ControlError> {
        let snapshot = self.restoring(number).await?;
        for partition in 0..self.0.partitions() {
            let kept = self.0.engine().bounds(PartitionId { topic: self.0.input, partition }).unwrap_or_default();
            snapshot.position(partition, kept.start, kept.written)?;
        }
        let read = tokio::task::spawn_blocking(move || {
            let bytes = snapshot.reader.size().map_err(unusable(number))?.bytes;
            if bytes > SHADOW_BYTES_MAX as u64 {
                let reason = format!("it has {bytes} bytes, and a comparison holds at most {SHADOW_BYTES_MAX}");
                return Err(SnapshotError::Unusable { number, reason });
            }
            snapshot.state().map_err(unusable(number))
        });
        Ok(read.await.map_err(|error| SnapshotError::Disk(error.to_string()))??)
    }

    /// Opens a snapshot for a seek, after verifying the whole file.
    pub(crate) async fn restoring(&self, number: u64) -> Result<SnapshotRestore, ControlError> {
        let (disk, name) = (self.disk()?, file::name_of(self.0.number, number));
        let (subscriber, partitions) = (self.0.name(), self.0.partitions() as usize);
        let opened = tokio::task::spawn_blocking(move || {
            let open = || match Reader::open(&*disk, &name) {
                Err(FileError::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {
                    Err(SnapshotError::Unknown { subscriber: subscriber.clone(), number })
                }
                opened => opened.map_err(unusable(number)),
            };
            let (mut reader, about) = open()?;
            while reader.next().map_err(unusable(number))?.is_some() {}
            if about.positions.len() != partitions {
                let reason = format!("it is of {} partitions, and there are {partitions}", about.positions.len());
                return Err(SnapshotError::Unusable { number, reason });
            }
            let (reader, _) = open()?;
            Ok(SnapshotRestore { number, positions: about.positions, reader, lane: None })
        });
        Ok(opened.await.map_err(|error| SnapshotError::Disk(error.to_string()))??)
    }
}

/// Writes the entries of lanes. `has_room` says whether the disk has room for more.
fn write<K: Entries>(
    disk: Arc<dyn Disk>,
    name: &str,
    about: &SnapshotHeader,
    lanes: &[K],
    has_room: impl Fn() -> bool,
) -> Result<Size, SnapshotError> {
    let mut writer = Writer::create(disk, name, about)?;
    let mut write_all = || {
        for (partition, entries) in (0..).zip(lanes) {
            writer.lane(partition)?;
            let mut from = Bound::Included(vec![STATE]);
            loop {
                if !has_room() {
                    return Err(SnapshotError::NoRoom);
                }
                let page = entries.range(from.as_ref().map(Vec::as_slice), &end_of(RECORD), PageBudget::of(PAGE))?;
                for (key, value) in &page.entries {
                    writer.entry(key, value)?;
                }
                match page.entries.last() {
                    Some((last, _)) if !page.is_last => from = Bound::Excluded(last.to_vec()),
                    _ => break,
                }
            }
        }
        Ok(())
    };
    match write_all() {
        Ok(()) => Ok(writer.finish()?),
        Err(error) => {
            writer.abandon();
            Err(error)
        }
    }
}

/// Removes the oldest snapshots of a subscriber with this origin, down to `keep`, at least one. Unreadable ones stay,
/// since their origin is unknown.
fn forget_old(disk: &dyn Disk, subscriber: SubscriberId, by: SnapshotCause, keep: usize) -> Result<(), SnapshotError> {
    let is_by =
        |number: &u64| Reader::open(disk, &file::name_of(subscriber, *number)).is_ok_and(|(_, about)| about.by == by);
    let numbers: Vec<_> = numbers(disk, subscriber)?.into_iter().filter(is_by).collect();
    for number in numbers.iter().take(numbers.len().saturating_sub(keep.max(1))) {
        disk.remove(&file::name_of(subscriber, *number))?;
    }
    Ok(disk.sync_folder()?)
}

/// A snapshot that is being restored into lanes, in the order of partitions.
pub(crate) struct SnapshotRestore {
    number: u64,
    positions: Vec<Offset>,
    reader: Reader,
    /// The lane whose entries come next.
    lane: Option<u32>,
}

impl SnapshotRestore {
    /// The position of a lane, if the stored events of its topic allow to continue there.
    pub(crate) fn position(&self, partition: u32, start: Offset, end: Offset) -> Result<Offset, SnapshotError> {
        let number = self.number;
        match self.positions.get(partition as usize).copied() {
            Some(position) if position < start => Err(SnapshotError::Expired { number, partition, position, start }),
            Some(position) if position > end => Err(SnapshotError::Ahead { number, partition, position, end }),
            Some(position) => Ok(position),
            None => Err(SnapshotError::Unusable { number, reason: format!("it has no partition {partition}") }),
        }
    }

    /// Sends a lane its entries. Blocks on the disk and while the lane is busy; ends early if the lane drops the
    /// channel.
    pub(crate) fn feed(mut self, partition: u32, lane: &mpsc::Sender<SnapshotPart>) -> Self {
        let end = match self.feed_all(partition, lane) {
            Ok(()) => SnapshotPart::End,
            Err(error) => SnapshotPart::Broken(error.to_string()),
        };
        drop(lane.blocking_send(end)); // the lane may have stopped
        self
    }

    fn feed_all(&mut self, partition: u32, lane: &mpsc::Sender<SnapshotPart>) -> Result<(), FileError> {
        loop {
            match self.reader.next()? {
                Some(FilePart::Lane(next)) => {
                    if self.lane.replace(next) == Some(partition) {
                        return Ok(());
                    }
                }
                Some(FilePart::Entries(entries)) => {
                    if self.lane == Some(partition) && lane.blocking_send(SnapshotPart::Entries(entries)).is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }

    /// Positions and state in the snapshot. Blocks on the disk.
    fn state(mut self) -> Result<(Vec<Offset>, Vec<StateOfPartition>), FileError> {
        let (mut partition, mut state) = (0, Vec::new());
        while let Some(part) = self.reader.next()? {
            match part {
                FilePart::Lane(next) => partition = next,
                FilePart::Entries(entries) => {
                    let of_state = entries.iter().filter(|(key, _)| key.first() == Some(&STATE));
                    let entries = of_state.filter_map(|(key, value)| StateEntry::parse(key, value));
                    state.extend(entries.map(|entry| StateOfPartition { partition, entry }));
                }
            }
        }
        Ok((self.positions, state))
    }

    /// A channel for the entries of a lane.
    pub(crate) fn channel() -> (mpsc::Sender<SnapshotPart>, mpsc::Receiver<SnapshotPart>) {
        mpsc::channel(BLOCKS_AHEAD)
    }
}

#[cfg(test)]
mod tests;
