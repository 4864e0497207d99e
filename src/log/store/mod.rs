//! The state store: the content of a checkpoint, committed in one transaction.
//!
//! ```text
//! the file `state`: a redb database with one table, keys in big endian, values in little endian
//!   key                                          value, each followed by a CRC32C of key and value
//!   01                                           checkpoint: u32 version (3), u64 generation, u64 position,
//!                                                u64 sequence, u32 previous checksum, u32 epoch, u64 append time,
//!                                                u64 trusted time and u64 wall clock when it was made (up to
//!                                                version 2 u64 engine time minus trusted time, u64 unused)
//!   02 u32 number                                an entry of the catalogue
//!   03 u32 subscriber, u32 partition             cursor: u64 offset
//!   04 u32 topic, u32 partition                  partition: u64 start, u64 end
//!   05 u32 topic, u32 partition, u64 base offset segment: u64 end, u64 bytes, u64 first and u64 last append time,
//!                                                u8 sealed, u64 first and u64 last trusted time (from version 3 on)
//!   06 u32 topic, u64 position, u128 first       a row of the run of identities that the checkpoint at this position
//!                                                wrote, from identity `first` on (0 in the run's first row),
//!                                                ascending: per event u128 identity, u32 partition, u64 offset,
//!                                                u64 trusted time, u64 number within the topic
//!   06 u32 topic, u64 position                   up to version 2: the same without numbers, in the order of offsets
//!   07 u32 topic, u32 partition, u128 producer   u64 sequence, u64 offset
//!   07 u32 topic, 2^32 - 1, u128 producer        u64 highest number of the last frame in which it sent something to
//!                                                any partition, u64 trusted time of that frame, or its stated start
//!                                                if later
//!   08 u32 subscriber, u32 partition, key        an entry of a lane (from version 2 on); if the first number is that
//!                                                of a topic plus 2^31, an entry of its partition
//!   09 u32 topic                                 u64: producers of the topic that were last seen before this time
//!                                                may be forgotten
//! ```
//!
//! A run is stored in rows of some KiB, so that an identity is found with one read of one row.
//!
//! Promises: [`Store::commit`] is atomic, whatever the disk does. Reads return committed data, or the store is refused:
//! all of it is verified when it is opened, and each value again when it is read. Relies on: redb, over the disk of
//! [`crate::effects`], so that a simulation can inject faults. Commits are two-phase: with one phase, redb would
//! silently return to the previous commit after a flipped bit in the last one, and lose both after a failed sync and a
//! power failure after the next start.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::{Buf, BufMut, Bytes};
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, TableDefinition};

use super::clock::ClockState;
use super::failed_sync;
use super::frame::Link;
use super::runs::{Generation, Hashing, TopicRuns};
use super::segment::SegmentMeta;
use crate::effects::{Disk, DiskFile};
use crate::limits;
use crate::model::{EntryPage, LaneId, Offset, PageBudget, PartitionId, ProducerId, SubscriberId, TopicId, keeper_of};

/// The name of its file.
pub(super) const FILE_NAME: &str = "state";
/// Its name until it is complete.
const NEW_FILE_NAME: &str = "state.new";
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const VERSION: u32 = 3;
const OLDEST_VERSION: u32 = 1;
const TRUSTED_FROM_VERSION: u32 = 3;
/// The page size of redb.
const PAGE_BYTES: u64 = 4096;

const CHECKPOINT: u8 = 1;
const CATALOGUE: u8 = 2;
const CURSOR: u8 = 3;
const PARTITION: u8 = 4;
const SEGMENT: u8 = 5;
const IDENTITIES: u8 = 6;
const PRODUCER: u8 = 7;
/// There may be many rows of this kind; they are not read when the store is opened.
const ENTRY: u8 = 8;
const FORGOTTEN: u8 = 9;

/// Why the state store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
    #[error("a checkpoint failed for lack of room or descriptors, and it is unknown whether it was committed")]
    Closed,
    #[error("it is of version {0}; this release knows versions {OLDEST_VERSION} to {VERSION}")]
    Version(u32),
}

impl StoreError {
    /// Whether a repetition may succeed: the stored data is intact.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Disk(error) => super::is_passing(error),
            Self::Damaged(_) | Self::Version(_) => false,
        }
    }

    /// redb reports some damage as an I/O error: a wrong magic number, a file that ends too early.
    fn of_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Disk(error),
        }
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::of_io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::of_io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// The position of a checkpoint, and the clock at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Counts the commits.
    pub(super) generation: u64,
    /// The link of the first frame after the checkpoint.
    pub(super) link: Link,
    pub(super) clock: ClockState,
}

/// The last number of a producer in a partition, with the event's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastSequence {
    pub(super) sequence: u64,
    pub(super) offset: Offset,
}

/// An identity with the place of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdentityRow {
    pub(super) identity: u128,
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) trusted_time_ns: u64,
    /// Its index among all identities of the topic.
    pub(super) number: u64,
}

/// The result of a lookup of an identity in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityLookup {
    Row(IdentityRow),
    Nothing,
    /// The run does not exist any more.
    NoRun,
}

/// A partition's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The offset of the first retained event.
    pub(super) start: Offset,
    /// The offset after the last event in its segments.
    pub(super) end: Offset,
}

/// The content of the store, except the entries of lanes.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) checkpoint: Checkpoint,
    pub(super) catalogue: Vec<Bytes>,
    pub(super) cursors: HashMap<LaneId, Offset>,
    pub(super) partitions: HashMap<PartitionId, Extent>,
    /// Ordered by offset.
    pub(super) segments: BTreeMap<PartitionId, Vec<SegmentMeta>>,
    pub(super) runs: BTreeMap<TopicId, TopicRuns>,
    /// Identities in the format before runs, in the order of their checkpoints.
    pub(super) old_identities: BTreeMap<TopicId, Vec<(u64, Vec<IdentityRow>)>>,
    /// Producers that were last seen before this time may be forgotten.
    pub(super) forgotten: BTreeMap<TopicId, u64>,
}

/// The changes of a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    pub(super) checkpoint: Checkpoint,
    /// New entries, after the existing ones.
    pub(super) catalogue: Vec<Bytes>,
    pub(super) cursors: BTreeMap<LaneId, Offset>,
    pub(super) partitions: BTreeMap<PartitionId, Extent>,
    pub(super) segments: BTreeMap<(PartitionId, Offset), SegmentMeta>,
    pub(super) segments_gone: Vec<(PartitionId, Offset)>,
    /// Sorted by identity, without repetitions.
    pub(super) runs: Vec<(TopicId, u64, Vec<IdentityRow>)>,
    pub(super) runs_gone: Vec<(TopicId, u64)>,
    /// Rows in the format before runs.
    pub(super) old_identities_gone: Vec<(TopicId, u64)>,
    pub(super) producers: BTreeMap<(PartitionId, ProducerId), LastSequence>,
    pub(super) producers_gone: Vec<(PartitionId, ProducerId)>,
    /// Producers that were last seen before this time may be forgotten from now on.
    pub(super) forgotten: BTreeMap<TopicId, u64>,
    /// Entries of lanes; `None` deletes an entry.
    pub(super) entries: BTreeMap<(LaneId, Bytes), Option<Bytes>>,
    /// Total bytes of `entries`.
    pub(super) entries_bytes: usize,
    /// Rows that are deleted after all other changes, within the limits [`limits::GONE_ROWS`] and
    /// [`limits::GONE_BYTES`].
    pub(super) rows_gone: Vec<RowRange>,
}

/// A range of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowRange {
    first: Vec<u8>,
    behind: Vec<u8>,
}

impl RowRange {
    /// All rows of a kind whose first number is this.
    fn of(kind: u8, number: u32) -> Self {
        let key = |number| Key::new(kind).u32(number).0;
        Self { first: key(number), behind: key(number.saturating_add(1)) }
    }

    /// The cursors and entries of a subscriber's lanes.
    pub(super) fn of_subscriber(subscriber: SubscriberId) -> [Self; 2] {
        [CURSOR, ENTRY].map(|kind| Self::of(kind, subscriber.0))
    }

    /// All rows of a topic except those of its partitions.
    pub(super) fn of_topic(topic: TopicId) -> [Self; 6] {
        let keeper = keeper_of(PartitionId { topic, partition: 0 }).subscriber;
        let [places, kept] = Self::of_subscriber(keeper);
        let [segments, identities, producers, forgotten] =
            [SEGMENT, IDENTITIES, PRODUCER, FORGOTTEN].map(|kind| Self::of(kind, topic.0));
        [places, kept, segments, identities, producers, forgotten]
    }

    /// The partitions of a topic.
    pub(super) fn of_partitions(topic: TopicId) -> Self {
        Self::of(PARTITION, topic.0)
    }
}

impl Changes {
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            catalogue: Vec::new(),
            cursors: BTreeMap::new(),
            partitions: BTreeMap::new(),
            segments: BTreeMap::new(),
            segments_gone: Vec::new(),
            runs: Vec::new(),
            runs_gone: Vec::new(),
            old_identities_gone: Vec::new(),
            producers: BTreeMap::new(),
            producers_gone: Vec::new(),
            forgotten: BTreeMap::new(),
            entries: BTreeMap::new(),
            entries_bytes: 0,
            rows_gone: Vec::new(),
        }
    }

    /// The number of changes of kinds that can be many.
    pub(super) fn count(&self) -> usize {
        self.cursors.len() + self.producers.len() + self.segments.len() + self.entries.len()
    }

    /// Sets or deletes an entry of a lane.
    pub(super) fn put_entry(&mut self, lane: LaneId, key: Bytes, value: Option<Bytes>) {
        let value_bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let (key_bytes, more) = (key.len(), value_bytes(&value));
        match self.entries.insert((lane, key), value) {
            Some(before) => self.entries_bytes -= value_bytes(&before),
            None => self.entries_bytes += key_bytes,
        }
        self.entries_bytes += more;
    }
}

pub(super) struct Store {
    shelf: Arc<Shelf>,
    catalogue_entries: u32,
}

/// Shares the database between one writer and many readers, so that the file is never opened twice at once.
struct Shelf {
    disk: Arc<dyn Disk>,
    /// `None` after a failed commit, until the next use reopens it.
    database: RwLock<Option<Database>>,
    /// How many times it was closed: pinned tables from before may be overwritten.
    closed: AtomicU64,
    /// The table that readers see, opened by the first read after a commit and used by all reads until the next one, so
    /// that a read needs no transaction of its own. Nothing else retains it, so it delays only the reuse of the pages
    /// that one commit replaces.
    view: Mutex<Option<Arc<Rows>>>,
}

impl Shelf {
    fn new(disk: &Arc<dyn Disk>, database: Database) -> Arc<Self> {
        let (database, closed) = (RwLock::new(Some(database)), AtomicU64::new(0));
        Arc::new(Self { disk: disk.clone(), database, closed, view: Mutex::new(None) })
    }

    /// Uses the database, and reopens it after a failure. Not for readers, because reopening may write, and a failed
    /// write is a failure of the disk.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
                return act(database);
            }
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if database.is_none() {
                *database = Some(open_database(self.disk.open(FILE_NAME)?)?);
            }
        }
    }

    /// After a failure: closes the database until its next use.
    fn close(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.fetch_add(1, Ordering::AcqRel);
        self.let_go();
        drop(database.take());
    }

    /// The table that readers see.
    fn view(&self, database: &Database) -> Result<Arc<Rows>, StoreError> {
        // Opened under the lock: otherwise it could be from before a commit and be stored after it.
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        match &*view {
            Some(view) => Ok(view.clone()),
            None => Ok(view.insert(Arc::new(pin(database)?)).clone()),
        }
    }

    /// Drops the readers' table, which is no longer current.
    fn let_go(&self) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
std::thread_local! {
    /// Number of reads of the store on this thread.
    pub(super) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    /// Number of transactions for these reads on this thread.
    static PINS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Reads the store as of the last checkpoint.
pub(super) struct StoreReader {
    shelf: Arc<Shelf>,
}

impl StoreReader {
    /// The value of a lane's entry.
    pub(super) fn get(&self, lane: LaneId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|table| get(table, lane, key))
    }

    /// The entries of a lane in a range, in key order, within the budget.
    pub(super) fn range(
        &self,
        lane: LaneId,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        budget: PageBudget,
    ) -> Result<EntryPage, StoreError> {
        self.read(|table| range(table, lane, bounds, budget))
    }

    /// Looks up an identity in a run.
    pub(super) fn identity(&self, topic: TopicId, position: u64, identity: u128) -> Result<IdentityLookup, StoreError> {
        self.read(|table| {
            let (first, last) = (Key::run(topic, position, 0).0, Key::run(topic, position, identity).0);
            let Some(row) = table.range::<&[u8]>(first.as_slice()..=last.as_slice())?.next_back() else {
                return Ok(IdentityLookup::NoRun);
            };
            let (key, value) = row?;
            let rows = checked(key.value(), value.value())?.as_chunks::<RECOGNISED_BYTES>().0;
            let identity_of = |mut row: &[u8]| row.get_u128_le();
            let found = rows.binary_search_by_key(&identity, |row| identity_of(row)).ok().and_then(|at| rows.get(at));
            Ok(found.map_or(IdentityLookup::Nothing, |row| IdentityLookup::Row(decode_recognised(row))))
        })
    }

    /// The last number of a producer in a partition.
    pub(super) fn producer(
        &self,
        partition: PartitionId,
        producer: ProducerId,
    ) -> Result<Option<LastSequence>, StoreError> {
        self.read(|table| {
            let key = Key::partition(PRODUCER, partition).u128(producer.0);
            let Some(value) = table.get(key.0.as_slice())? else { return Ok(None) };
            decode_sequenced(&key.0, checked(&key.0, value.value())?).map(Some)
        })
    }

    /// The last numbers of the producers of a partition, from `from` on, at most `most` of them.
    pub(super) fn producers(
        &self,
        partition: PartitionId,
        from: ProducerId,
        most: usize,
    ) -> Result<Vec<(ProducerId, LastSequence)>, StoreError> {
        let row_key = |producer: u128| Key::partition(PRODUCER, partition).u128(producer).0;
        let (first, last) = (row_key(from.0), row_key(u128::MAX));
        self.read(|table| {
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(first.as_slice()..=last.as_slice())?.take(most) {
                let (key, value) = row?;
                let (key, value) = (key.value(), checked(key.value(), value.value())?);
                let producer = key.last_chunk().ok_or_else(|| not_as_written(key))?;
                found.push((ProducerId(u128::from_be_bytes(*producer)), decode_sequenced(key, value)?));
            }
            Ok(found)
        })
    }

    /// All rows of a run, sorted by identity.
    pub(super) fn run(&self, topic: TopicId, position: u64) -> Result<Vec<IdentityRow>, StoreError> {
        self.read(|table| {
            let (first, last) = (Key::run(topic, position, 0).0, Key::run(topic, position, u128::MAX).0);
            let mut run = Vec::new();
            for row in table.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
                let (key, value) = row?;
                let rows = checked(key.value(), value.value())?.as_chunks::<RECOGNISED_BYTES>().0;
                run.extend(rows.iter().map(|row| decode_recognised(row)));
            }
            Ok(run)
        })
    }

    /// A snapshot of the store, independent of later commits. Pages that are freed meanwhile are not reused.
    pub(super) fn pinned(&self) -> Result<StoreSnapshot, StoreError> {
        let closed = self.shelf.closed.load(Ordering::Acquire);
        let database = self.shelf.database.read().unwrap_or_else(PoisonError::into_inner);
        let table = pin(database.as_ref().ok_or(StoreError::Closed)?)?;
        Ok(StoreSnapshot { shelf: self.shelf.clone(), closed, table })
    }

    /// The keys of all rows.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|table| table.range::<&[u8]>(..)?.map(|row| Ok(row?.0.value().to_vec())).collect())
    }

    fn read<T>(&self, look: impl FnOnce(&Rows) -> Result<T, StoreError>) -> Result<T, StoreError> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let database = self.shelf.database.read().unwrap_or_else(PoisonError::into_inner);
        look(&*self.shelf.view(database.as_ref().ok_or(StoreError::Closed)?)?)
    }
}

/// The entries of lanes as of one commit.
pub(super) struct StoreSnapshot {
    shelf: Arc<Shelf>,
    closed: u64,
    table: Rows,
}

type Rows = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A snapshot of all rows, independent of later commits.
fn pin(database: &Database) -> Result<Rows, StoreError> {
    #[cfg(test)]
    PINS.set(PINS.get() + 1);
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    Ok(transaction.open_table(TABLE).map_err(redb::Error::from)?)
}

impl StoreSnapshot {
    /// The value of a lane's entry.
    pub(super) fn get(&self, lane: LaneId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.unless_closed(get(&self.table, lane, key))
    }

    /// The entries of a lane in a range, in key order, within the budget.
    pub(super) fn range(
        &self,
        lane: LaneId,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        budget: PageBudget,
    ) -> Result<EntryPage, StoreError> {
        self.unless_closed(range(&self.table, lane, bounds, budget))
    }

    /// Discards a result after the file was reopened, because the new database does not know of this snapshot.
    fn unless_closed<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        match self.shelf.closed.load(Ordering::Acquire) == self.closed {
            true => found,
            false => Err(StoreError::Closed),
        }
    }
}

fn get(table: &Rows, lane: LaneId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let key = Key::entry(lane, key);
    match table.get(key.0.as_slice())? {
        Some(value) => Ok(Some(Bytes::copy_from_slice(checked(&key.0, value.value())?))),
        None => Ok(None),
    }
}

fn range(
    table: &Rows,
    lane: LaneId,
    (from, until): (Bound<&[u8]>, Bound<&[u8]>),
    mut budget: PageBudget,
) -> Result<EntryPage, StoreError> {
    let whole = |key: &[u8]| Key::entry(lane, key).0;
    let from = if from == Bound::Unbounded { Bound::Included([].as_slice()) } else { from };
    let (from, until) = (from.map(whole), until.map(whole));
    let range = (from.as_ref().map(Vec::as_slice), until.as_ref().map(Vec::as_slice));
    let head_bytes = Key::entry(lane, &[]).0.len();
    let mut page = EntryPage::default();
    let mut rows = table.range::<&[u8]>(range)?;
    while budget.entries > 0 {
        let Some(row) = rows.next() else {
            page.is_last = true;
            break;
        };
        let (key, value) = row?;
        let value = checked(key.value(), value.value())?;
        let key = key.value().get(head_bytes..).unwrap_or_default();
        if !page.take(&mut budget, key, value, || (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))) {
            break;
        }
    }
    Ok(page)
}

impl Store {
    /// The generation of the last commit, after a failed one that may have happened.
    pub(super) fn generation(&mut self) -> Result<u64, StoreError> {
        let contents = self.shelf.with(read)?;
        // including those of a commit that happened in spite of its error
        self.catalogue_entries = contents.catalogue.len() as u32;
        Ok(contents.checkpoint.generation)
    }

    /// A reader of the store.
    pub(super) fn entries(&self) -> StoreReader {
        StoreReader { shelf: self.shelf.clone() }
    }

    /// Opens the store and reads it; `None` if there is none.
    pub(super) fn open(disk: &Arc<dyn Disk>, hashing: &Hashing) -> Result<Option<(Self, Contents)>, StoreError> {
        let file = match disk.open(FILE_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if file.length()? == 0 {
            // redb would create a new database in it
            return Err(StoreError::Damaged("its file is empty".to_owned()));
        }
        let database = open_database(file)?;
        let mut contents = read(&database)?;
        read_identities(&database, &mut contents, hashing)?;
        let catalogue_entries = contents.catalogue.len() as u32;
        Ok(Some((Self { shelf: Shelf::new(disk, database), catalogue_entries }, contents)))
    }

    /// Creates a new store, durably. It gets its name only when it is complete.
    pub(super) fn create(disk: &Arc<dyn Disk>, checkpoint: Checkpoint) -> Result<Self, StoreError> {
        match disk.remove(NEW_FILE_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = open_database(disk.create(NEW_FILE_NAME)?)?;
        let mut store = Self { shelf: Shelf::new(disk, database), catalogue_entries: 0 };
        store.commit(checkpoint, &[&Changes::new(checkpoint)])?;
        disk.rename(NEW_FILE_NAME, FILE_NAME)?;
        disk.sync_folder()?;
        Ok(store)
    }

    /// Commits a checkpoint with these changes in order, durably. After an error it may have happened nevertheless: see
    /// [`Store::generation`]. Returns the number of deleted [`Changes::rows_gone`]; 0 means that none are left.
    pub(super) fn commit(&mut self, checkpoint: Checkpoint, changes: &[&Changes]) -> Result<usize, StoreError> {
        // so that the next commit can reuse the pages that this one replaces, if no read intervenes
        self.shelf.let_go();
        let written = self.shelf.with(|database| write(database, &checkpoint, changes, self.catalogue_entries));
        self.shelf.let_go(); // before memory drops what is in the store from here on
        match written {
            Ok(_) => self.catalogue_entries += changes.iter().map(|of| of.catalogue.len() as u32).sum::<u32>(),
            Err(_) => self.shelf.close(),
        }
        written
    }
}

fn open_database(file: Box<dyn DiskFile>) -> Result<Database, StoreError> {
    let backend = Backend { file };
    let mut builder = Database::builder();
    builder.set_cache_size(limits::STATE_CACHE_BYTES).set_check_integrity_on_open(true);
    // redb returns an error for a damaged file; if it panics instead, the process must not.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.create_with_backend(backend)));
    match opened {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(StoreError::Damaged("it is malformed".to_owned())),
    }
}

/// Adapts our disk to redb.
struct Backend {
    file: Box<dyn DiskFile>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        // A failed allocation may have extended the file a little, and redb treats a length within a page as damage.
        Ok(self.file.length()? / PAGE_BYTES * PAGE_BYTES)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let count = self.file.read_at(out, offset)?;
        if count < out.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let current = self.file.length()?;
        if length > current { self.file.allocate(length) } else { self.file.truncate(length) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync().map_err(failed_sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}

/// A key, encoded in sort order.
struct Key(Vec<u8>);

impl Key {
    fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    fn u128(mut self, value: u128) -> Self {
        self.0.put_u128(value);
        self
    }

    fn partition(kind: u8, partition: PartitionId) -> Self {
        Self::new(kind).u32(partition.topic.0).u32(partition.partition)
    }

    fn segment((partition, base_offset): (PartitionId, Offset)) -> Self {
        Self::partition(SEGMENT, partition).u64(base_offset)
    }

    fn identities((topic, position): (TopicId, u64)) -> Self {
        Self::new(IDENTITIES).u32(topic.0).u64(position)
    }

    fn run(topic: TopicId, position: u64, first: u128) -> Self {
        Self::identities((topic, position)).u128(first)
    }

    fn entry(lane: LaneId, key: &[u8]) -> Self {
        let mut entry = Self::new(ENTRY).u32(lane.subscriber.0).u32(lane.partition);
        entry.0.extend_from_slice(key);
        entry
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

fn write(
    database: &Database,
    checkpoint: &Checkpoint,
    changes: &[&Changes],
    mut catalogue_entries: u32,
) -> Result<usize, StoreError> {
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction.set_two_phase_commit(true);
    let removed = {
        let mut table = transaction.open_table(TABLE).map_err(redb::Error::from)?;
        put(&mut table, &Key::new(CHECKPOINT), encode_checkpoint(checkpoint))?;
        for changes in changes {
            write_changes(&mut table, changes, catalogue_entries)?;
            catalogue_entries += changes.catalogue.len() as u32;
        }
        // after all insertions
        remove_rows(&mut table, changes.iter().flat_map(|changes| &changes.rows_gone))?
    };
    transaction.commit().map_err(redb::Error::from)?;
    Ok(removed)
}

/// Deletes rows, within the limits of one commit. Returns their number.
fn remove_rows<'r>(table: &mut Table<'_>, ranges: impl Iterator<Item = &'r RowRange>) -> Result<usize, StoreError> {
    let (mut rows, mut bytes) = (0, 0);
    let is_enough = |rows, bytes| rows >= limits::GONE_ROWS || bytes >= limits::GONE_BYTES;
    for RowRange { first, behind } in ranges {
        if is_enough(rows, bytes) {
            break;
        }
        // rows that the iterator does not reach stay
        let mut going = table.extract_from_if::<&[u8], _>(first.as_slice()..behind.as_slice(), |_, _| true)?;
        while !is_enough(rows, bytes)
            && let Some(row) = going.next()
        {
            rows += 1;
            bytes += row?.1.value().len();
        }
    }
    Ok(rows)
}

type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

fn put(table: &mut Table<'_>, key: &Key, mut value: Vec<u8>) -> Result<(), StoreError> {
    let sum = checksum(&key.0, &value);
    value.put_u32_le(sum);
    table.insert(key.0.as_slice(), value.as_slice())?;
    Ok(())
}

fn write_changes(table: &mut Table<'_>, changes: &Changes, catalogue_entries: u32) -> Result<(), StoreError> {
    for (number, entry) in (catalogue_entries..).zip(&changes.catalogue) {
        put(table, &Key::new(CATALOGUE).u32(number), entry.to_vec())?;
    }
    for (lane, offset) in &changes.cursors {
        let key = Key::new(CURSOR).u32(lane.subscriber.0).u32(lane.partition);
        put(table, &key, offset.to_le_bytes().to_vec())?;
    }
    for (partition, extent) in &changes.partitions {
        let mut value = Vec::new();
        value.put_u64_le(extent.start);
        value.put_u64_le(extent.end);
        put(table, &Key::partition(PARTITION, *partition), value)?;
    }
    for (segment, meta) in &changes.segments {
        let mut value = Vec::new();
        value.put_u64_le(meta.end_offset);
        value.put_u64_le(meta.bytes);
        value.put_u64_le(meta.first_time_ns);
        value.put_u64_le(meta.last_time_ns);
        value.put_u8(u8::from(meta.is_sealed));
        value.put_u64_le(meta.first_trusted_ns);
        value.put_u64_le(meta.last_trusted_ns);
        put(table, &Key::segment(*segment), value)?;
    }
    for (topic, position) in &changes.runs_gone {
        let (first, last) = (Key::run(*topic, *position, 0).0, Key::run(*topic, *position, u128::MAX).0);
        table.retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |_, _| false)?;
    }
    for (topic, position, run) in &changes.runs {
        for (number, rows) in run.chunks(RUN_ROW_IDENTITIES).enumerate() {
            // the first row starts at 0, so that the lookup of any identity finds a row of the run
            let first = if number == 0 { 0 } else { rows.first().map_or(0, |row| row.identity) };
            let mut value = Vec::with_capacity(rows.len() * RECOGNISED_BYTES + 4);
            rows.iter().for_each(|row| encode_recognised(row, &mut value));
            put(table, &Key::run(*topic, *position, first), value)?;
        }
    }
    for ((partition, producer), sequenced) in &changes.producers {
        let mut value = Vec::new();
        value.put_u64_le(sequenced.sequence);
        value.put_u64_le(sequenced.offset);
        put(table, &Key::partition(PRODUCER, *partition).u128(producer.0), value)?;
    }
    for (partition, producer) in &changes.producers_gone {
        table.remove(Key::partition(PRODUCER, *partition).u128(producer.0).0.as_slice())?;
    }
    for (topic, floor_ns) in &changes.forgotten {
        put(table, &Key::new(FORGOTTEN).u32(topic.0), floor_ns.to_le_bytes().to_vec())?;
    }
    for ((lane, key), value) in changes.entries.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        put(table, &Key::entry(*lane, key), value.to_vec())?;
    }
    for ((lane, key), _) in changes.entries.iter().filter(|(_, value)| value.is_none()) {
        table.remove(Key::entry(*lane, key).0.as_slice())?;
    }
    for segment in &changes.segments_gone {
        table.remove(Key::segment(*segment).0.as_slice())?;
    }
    for gone in &changes.old_identities_gone {
        table.remove(Key::identities(*gone).0.as_slice())?;
    }
    Ok(())
}

fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let (link, clock) = (&checkpoint.link, &checkpoint.clock);
    let mut value = Vec::new();
    value.put_u32_le(VERSION);
    value.put_u64_le(checkpoint.generation);
    value.put_u64_le(link.position);
    value.put_u64_le(link.sequence);
    value.put_u32_le(link.previous_checksum);
    value.put_u32_le(link.epoch);
    value.put_u64_le(link.append_time_ns);
    value.put_u64_le(clock.trusted_ns);
    value.put_u64_le(clock.wall_ns);
    value
}

const RECOGNISED_BYTES: usize = 44;
/// Identities per row of a run: with its key, a row fills four pages of redb.
const RUN_ROW_IDENTITIES: usize = 360;
const OLD_RECOGNISED_BYTES: usize = 36;

fn encode_recognised(row: &IdentityRow, out: &mut Vec<u8>) {
    out.put_u128_le(row.identity);
    out.put_u32_le(row.partition);
    out.put_u64_le(row.offset);
    out.put_u64_le(row.trusted_time_ns);
    out.put_u64_le(row.number);
}

/// Decodes either format; the older one has no number.
fn decode_recognised(mut row: &[u8]) -> IdentityRow {
    IdentityRow {
        identity: row.get_u128_le(),
        partition: row.get_u32_le(),
        offset: row.get_u64_le(),
        trusted_time_ns: row.get_u64_le(),
        number: row.try_get_u64_le().unwrap_or(0),
    }
}

fn decode_sequenced(key: &[u8], mut value: &[u8]) -> Result<LastSequence, StoreError> {
    let mut number = || value.try_get_u64_le().map_err(|_| not_as_written(key));
    Ok(LastSequence { sequence: number()?, offset: number()? })
}

fn read(database: &Database) -> Result<Contents, StoreError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = transaction.open_table(TABLE).map_err(redb::Error::from)?;
    let mut checkpoint = None;
    let mut contents = Contents::new(Checkpoint::first(Link::first(0)));
    let rows = table.range::<&[u8]>(..[IDENTITIES].as_slice())?;
    for row in rows.chain(table.range::<&[u8]>([FORGOTTEN].as_slice()..)?) {
        let (key, value) = row?;
        let key = key.value();
        let value = checked(key, value.value())?;
        let damaged = || not_as_written(key);
        if key == [CHECKPOINT] {
            checkpoint = Some(decode_checkpoint(value)?.ok_or_else(damaged)?);
        } else {
            contents.take(key, value).ok_or_else(damaged)?;
        }
    }
    contents.checkpoint = checkpoint.ok_or_else(|| StoreError::Damaged("it contains no checkpoint".to_owned()))?;
    Ok(contents)
}

/// Reads all identities, run by run, into filters.
fn read_identities(database: &Database, contents: &mut Contents, hashing: &Hashing) -> Result<(), StoreError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = transaction.open_table(TABLE).map_err(redb::Error::from)?;
    let (mut of, mut run): (_, Vec<IdentityRow>) = (None, Vec::new());
    let mut end_run = |of: &mut Option<(TopicId, u64)>, run: &mut Vec<IdentityRow>| {
        if let Some((topic, position)) = of.take() {
            let generation = Generation::of(position, run, hashing);
            contents.runs.entry(topic).or_default().push(generation, &hashing.options);
        }
        run.clear();
    };
    for row in table.range::<&[u8]>([IDENTITIES].as_slice()..[PRODUCER].as_slice())? {
        let (whole_key, value) = row?;
        let mut key = whole_key.value();
        let value = checked(key, value.value())?;
        let damaged = || not_as_written(whole_key.value());
        key.advance(1);
        let topic = TopicId(key.try_get_u32().map_err(|_| damaged())?);
        let position = key.try_get_u64().map_err(|_| damaged())?;
        if key.is_empty() {
            let (rows, rest) = value.as_chunks::<OLD_RECOGNISED_BYTES>();
            let events = rows.iter().map(|row| decode_recognised(row)).collect();
            contents.old_identities.entry(topic).or_default().push((position, events));
            if rest.is_empty() { continue } else { return Err(damaged()) }
        }
        if of != Some((topic, position)) {
            end_run(&mut of, &mut run);
            of = Some((topic, position));
        }
        let (rows, rest) = value.as_chunks::<RECOGNISED_BYTES>();
        run.extend(rows.iter().map(|row| decode_recognised(row)));
        if key.len() != 16 || !rest.is_empty() {
            return Err(damaged());
        }
    }
    end_run(&mut of, &mut run);
    Ok(())
}

fn not_as_written(key: &[u8]) -> StoreError {
    StoreError::Damaged(format!("the value of key {} is not what was written", hex(key)))
}

/// A value without its checksum, which is verified.
fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let (value, mut sum) = value.split_at_checked(value.len().wrapping_sub(4)).ok_or_else(|| not_as_written(key))?;
    if sum.get_u32_le() == checksum(key, value) { Ok(value) } else { Err(not_as_written(key)) }
}

fn decode_checkpoint(mut value: &[u8]) -> Result<Option<Checkpoint>, StoreError> {
    let version = value.try_get_u32_le().unwrap_or(0);
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(StoreError::Version(version));
    }
    if value.len() != 56 {
        return Ok(None);
    }
    let generation = value.get_u64_le();
    let link = Link {
        position: value.get_u64_le(),
        sequence: value.get_u64_le(),
        previous_checksum: value.get_u32_le(),
        epoch: value.get_u32_le(),
        append_time_ns: value.get_u64_le(),
    };
    let (first, second) = (value.get_u64_le(), value.get_u64_le());
    let clock = match version {
        OLDEST_VERSION..TRUSTED_FROM_VERSION => {
            let wall_ns = link.append_time_ns;
            ClockState { trusted_ns: wall_ns.saturating_sub(first), wall_ns }
        }
        _ => ClockState { trusted_ns: first, wall_ns: second },
    };
    Ok(Some(Checkpoint { generation, link, clock }))
}

impl Checkpoint {
    /// The checkpoint of an empty log.
    pub(super) fn first(link: Link) -> Self {
        Self { generation: 0, link, clock: ClockState::default() }
    }
}

impl Contents {
    /// The content of an empty store.
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            catalogue: Vec::new(),
            cursors: HashMap::new(),
            partitions: HashMap::new(),
            segments: BTreeMap::new(),
            runs: BTreeMap::new(),
            old_identities: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    /// Adds a row; `None` if it is malformed.
    fn take(&mut self, mut key: &[u8], mut value: &[u8]) -> Option<()> {
        let kind = key.try_get_u8().ok()?;
        let first = key.try_get_u32().ok()?;
        let partition = |second| PartitionId { topic: TopicId(first), partition: second };
        match kind {
            CATALOGUE if first as usize == self.catalogue.len() => self.catalogue.push(Bytes::copy_from_slice(value)),
            CURSOR => {
                let lane = LaneId { subscriber: SubscriberId(first), partition: key.try_get_u32().ok()? };
                self.cursors.insert(lane, value.try_get_u64_le().ok()?);
            }
            PARTITION => {
                let partition = partition(key.try_get_u32().ok()?);
                let extent = Extent { start: value.try_get_u64_le().ok()?, end: value.try_get_u64_le().ok()? };
                self.partitions.insert(partition, extent);
            }
            SEGMENT => {
                let partition = partition(key.try_get_u32().ok()?);
                let base_offset = key.try_get_u64().ok()?;
                let (end_offset, bytes) = (value.try_get_u64_le().ok()?, value.try_get_u64_le().ok()?);
                let (first_time_ns, last_time_ns) = (value.try_get_u64_le().ok()?, value.try_get_u64_le().ok()?);
                let is_sealed = value.try_get_u8().ok()? == 1;
                let (first_trusted_ns, last_trusted_ns) = match value.is_empty() {
                    true => (first_time_ns, last_time_ns), // from an earlier version
                    false => (value.try_get_u64_le().ok()?, value.try_get_u64_le().ok()?),
                };
                let meta = SegmentMeta {
                    base_offset,
                    end_offset,
                    bytes,
                    first_time_ns,
                    last_time_ns,
                    first_trusted_ns,
                    last_trusted_ns,
                    is_sealed,
                };
                self.segments.entry(partition).or_default().push(meta);
            }
            FORGOTTEN => drop(self.forgotten.insert(TopicId(first), value.try_get_u64_le().ok()?)),
            _ => return None,
        }
        (key.is_empty() && (value.is_empty() || kind == CATALOGUE)).then_some(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
