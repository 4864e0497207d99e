//! Where versions are kept: components by their hash, and the record of what was decided.
//!
//! ```text
//! <hash>.wasm     a component
//! record          "wattle plugins v2 <hash of what follows>\n", then the record as JSON; v1 has other digests
//! topology        "wattle topology v1 <hash of what follows>\n", then what was applied as JSON
//! *.new           on its way to one of these; nothing
//! ```
//!
//! Promises: a change of the record happened or did not, whatever crashes when; what the record names is there, since it
//! was made durable first and is removed only after the record that does not name it is. After a write whose outcome is not
//! known nothing more is changed: what runs goes on, and the next start finds out. Damage is said and never repaired. A write
//! that fails before that leaves nothing behind. Who looks waits for no write ([`Shown`]), and no record waits for a component
//! ([`Shelf`]).
//! Must not know: who decides, what a component does.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{Decided, Record};
use super::topology::Applied;
use crate::dispatch::Renames;
use crate::effects::Disk;
use crate::wasm::Digest;

const RECORD: &str = "record";
const NEW: &str = ".new";
const WASM: &str = ".wasm";
const MAGIC: &str = "wattle plugins v2 ";
const MAGIC_V1: &str = "wattle plugins v1 ";
const TOPOLOGY: &str = "topology";
const TOPOLOGY_MAGIC: &str = "wattle topology v1 ";

/// Why versions cannot be kept or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("cannot {what} in the folder of plugins: {error}")]
    Disk {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// A write before failed, and what is on the disk is not known.
    #[error(
        "a write to the folder of plugins failed ({reason}): no version is changed until the bus has been restarted"
    )]
    Poisoned {
        /// Why.
        reason: String,
    },
    /// The record is not as it was written.
    #[error(
        "the record of plugin versions is damaged ({why}): put back `plugins/record` of the data folder from a backup, or \
         remove it, and the files of the topology are run as if for the first time"
    )]
    Damaged {
        /// What is wrong.
        why: String,
    },
    /// The topology that was applied is not as it was written.
    #[error(
        "the record of the topology that was applied is damaged ({why}): put back `plugins/topology` of the data folder from \
         a backup, or remove it, and what the files say is applied as if for the first time"
    )]
    DamagedTopology {
        /// What is wrong.
        why: String,
    },
    /// A component is missing or is not as it was written.
    #[error("the component {wasm} that is kept is {what}")]
    Component {
        /// Its hash.
        wasm: Digest,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What is kept, for those who only look: as it was after the last change.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<RwLock<Arc<(Record, Option<Applied>)>>>);

impl Shown {
    /// What is kept now.
    pub(super) fn now(&self) -> Arc<(Record, Option<Applied>)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, record: &Record, topology: Option<&Applied>) {
        let shown = Arc::new((record.clone(), topology.cloned()));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

/// Where components are put, one after the other.
#[derive(Clone)]
pub(super) struct Shelf {
    disk: Arc<dyn Disk>,
    one_at_a_time: Arc<Mutex<()>>,
}

/// Why a component is not on the shelf, and whether it may be all the same.
pub(super) struct NotKept {
    error: StoreError,
    is_unknown: bool,
}

/// The versions of a bus. Blocks on the disk.
pub struct Store {
    disk: Arc<dyn Disk>,
    shelf: Shelf,
    shown: Shown,
    record: Record,
    topology: Option<Applied>,
    /// Names of components that are kept for records which are still to come, and for how many.
    to_be_named: BTreeMap<String, usize>,
    poison: Option<String>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("record", &self.record).finish_non_exhaustive()
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::Disk { what, error: Arc::new(error) }
}

fn name_of(wasm: Digest) -> String {
    format!("{wasm}{WASM}")
}

impl Store {
    /// Opens what is kept on a disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(disk: impl Disk) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let names = disk.list().map_err(failed("list the files"))?;
        for name in names.iter().filter(|name| name.ends_with(NEW)) {
            // Of a write that was interrupted. Where it stays it is in nobody's way: the next write removes it.
            let _ = disk.remove(name);
        }
        let record = match names.iter().any(|name| name == RECORD) {
            true => parse(&read(&*disk, RECORD).map_err(failed("read the record"))?)?,
            false => Record::default(),
        };
        let topology = match names.iter().any(|name| name == TOPOLOGY) {
            true => {
                let bytes = read(&*disk, TOPOLOGY).map_err(failed("read the topology"))?;
                let applied = body(TOPOLOGY_MAGIC, &bytes).map_err(|why| StoreError::DamagedTopology { why })?;
                Some(Applied::read(applied))
            }
            false => None,
        };
        let shelf = Shelf { disk: disk.clone(), one_at_a_time: Arc::default() };
        let (shown, to_be_named) = (Shown::default(), BTreeMap::new());
        let mut store = Self { disk, shelf, shown, record, topology, to_be_named, poison: None };
        store.record = store.record_by(&Renames::default());
        store.show();
        // Of a change that was interrupted. What names it no more has to be durable first: it may only have been written.
        if !store.unnamed().is_empty() && store.disk.sync_folder().is_ok() {
            store.sweep();
        }
        Ok(store)
    }

    /// What is kept as it is now, to look at, with the names that subscribers are to have.
    pub(super) fn view(&self, renames: &Renames) -> Self {
        let Self { disk, shelf, topology, to_be_named, poison, .. } = self;
        let (disk, topology, to_be_named) = (disk.clone(), topology.clone(), to_be_named.clone());
        let (shelf, shown, record) = (shelf.clone(), Shown::default(), self.record_by(renames));
        Self { disk, shelf, shown, record, topology, to_be_named, poison: poison.clone() }
    }

    /// What is kept, for those who only look.
    pub(super) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    fn show(&self) {
        self.shown.show(&self.record, self.topology.as_ref());
    }

    /// What was decided about the subscribers that there are, under the names that they have and those that they are to have.
    /// What is left of other names, after a rename that was decided or one that was not, is nothing.
    fn record_by(&self, renames: &Renames) -> Record {
        let mut record = self.record.clone();
        if let Some(applied) = &self.topology {
            record.subscribers.retain(|name, _| applied.remembers(name));
        }
        for (new, old) in renames.subscribers() {
            if let Some(decided) = record.subscribers.get(old).cloned() {
                record.subscribers.insert(new.clone(), decided);
            }
        }
        record
    }

    /// Has what was decided about subscribers also be under the names that they are to have, durably. Nothing runs by them before
    /// that is decided.
    pub(super) fn rename(&mut self, renames: &Renames) -> Result<(), StoreError> {
        let record = self.record_by(renames);
        self.change(|subscribers| *subscribers = record.subscribers)
    }

    /// What was applied last.
    pub(super) fn applied(&self) -> Option<&Applied> {
        self.topology.as_ref()
    }

    /// Something else is applied, durably and at once.
    pub(super) fn apply(&mut self, applied: Applied) -> Result<(), StoreError> {
        self.check()?;
        if self.topology.as_ref() == Some(&applied) {
            return Ok(());
        }
        self.write(TOPOLOGY, text_of(TOPOLOGY_MAGIC, &applied).as_bytes())?;
        self.topology = Some(applied);
        self.record = self.record_by(&Renames::default());
        self.show();
        self.sweep();
        Ok(())
    }

    /// Changes what was decided about one subscriber, as [`Self::change`]. Nothing where nothing was decided yet.
    pub(super) fn decide(&mut self, subscriber: &str, change: impl FnOnce(&mut Decided)) -> Result<(), StoreError> {
        self.change(|subscribers| {
            if let Some(decided) = subscribers.get_mut(subscriber) {
                change(decided);
            }
        })
    }

    /// What was decided about a subscriber.
    pub(super) fn decided(&self, subscriber: &str) -> Option<&Decided> {
        self.record.subscribers.get(subscriber)
    }

    /// Keeps a component, durably: until it is released, and as long as a record names it.
    pub(super) fn keep(&mut self, wasm: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let shelf = self.announce(wasm)?;
        let put = shelf.put(wasm, bytes);
        self.kept(wasm, put)
    }

    /// A component is to be kept: first this, then [`Shelf::put`], which needs no store, then [`Self::kept`], and once it is
    /// decided about [`Self::release`].
    pub(super) fn announce(&mut self, wasm: Digest) -> Result<Shelf, StoreError> {
        self.check()?;
        *self.to_be_named.entry(name_of(wasm)).or_default() += 1;
        Ok(self.shelf.clone())
    }

    /// What became of a component that was to be kept.
    pub(super) fn kept(&mut self, wasm: Digest, put: Result<(), NotKept>) -> Result<(), StoreError> {
        let Err(NotKept { error, is_unknown }) = put else { return Ok(()) };
        if is_unknown {
            self.poison = Some(error.to_string());
        }
        self.release(wasm);
        Err(error)
    }

    /// The record that was to name a component is there, or will not be. Where nothing names it, and nothing is to, it goes.
    pub(super) fn release(&mut self, wasm: Digest) {
        let name = name_of(wasm);
        match self.to_be_named.get_mut(&name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.to_be_named.remove(&name)),
        }
        if self.poison.is_none() && !self.names(&name) && !self.to_be_named.contains_key(&name) {
            let _ = self.disk.remove(&name); // what cannot be removed only takes room
        }
    }

    /// A component that is kept.
    pub(super) fn component(&self, wasm: Digest) -> Result<Vec<u8>, StoreError> {
        match read(&*self.disk, &name_of(wasm)) {
            Ok(bytes) if Digest::of(&bytes) == wasm => Ok(bytes),
            Ok(_) => Err(StoreError::Component { wasm, what: "damaged" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Component { wasm, what: "missing" })
            }
            Err(error) => Err(failed("read a component")(error)),
        }
    }

    /// Changes what was decided, durably and at once. Components that nothing names any more go.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Decided>)) -> Result<(), StoreError> {
        self.check()?;
        let mut next = self.record.clone();
        change(&mut next.subscribers);
        if next == self.record {
            return Ok(());
        }
        self.write(RECORD, text_of(MAGIC, &next).as_bytes())?;
        self.record = next;
        self.show();
        self.sweep();
        Ok(())
    }

    /// Removes components that the record does not name, nor one to come. What cannot be removed only takes room.
    fn sweep(&mut self) {
        for name in self.unnamed() {
            let _ = self.disk.remove(&name);
        }
    }

    /// Components that the record does not name, nor one to come.
    fn unnamed(&self) -> Vec<String> {
        let names = self.disk.list().unwrap_or_default().into_iter();
        names.filter(|name| name.ends_with(WASM) && !self.names(name) && !self.to_be_named.contains_key(name)).collect()
    }

    /// Whether the record names a component by this name of its file.
    fn names(&self, name: &str) -> bool {
        let kept = self.record.subscribers.values().flat_map(|decided| &decided.kept);
        kept.into_iter().any(|kept| name_of(kept.wasm) == name)
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.poison {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Puts a file in the place of the one that may be there, durably.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write(&*self.disk, name, bytes).map_err(|NotKept { error, is_unknown }| {
            if is_unknown {
                self.poison = Some(error.to_string());
            }
            error
        })
    }
}

impl Shelf {
    /// Puts a component there, durably, where it is not yet.
    pub(super) fn put(&self, wasm: Digest, bytes: &[u8]) -> Result<(), NotKept> {
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name_of(wasm);
        match read(&*self.disk, &name) {
            // its name may not be durable yet
            Ok(there) if Digest::of(&there) == wasm => sync_folder(&*self.disk),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NotKept { error: failed("read a component")(error), is_unknown: false })
            }
            Ok(_) | Err(_) => write(&*self.disk, &name, bytes),
        }
    }
}

/// Puts a file in the place of the one that may be there, durably. Where that fails before it has its name, nothing is left.
fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), NotKept> {
    let new = format!("{name}{NEW}");
    let aside = || {
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        file.write_at(bytes, 0)?;
        file.sync()
    };
    let renamed = || disk.rename(&new, name);
    // Until it has its name nothing has happened.
    let named = aside().map_err(failed("write a file")).and_then(|()| renamed().map_err(failed("rename a file")));
    if let Err(error) = named {
        let _ = disk.remove(&new); // it would only take room, which may be what is missing
        return Err(NotKept { error, is_unknown: false });
    }
    sync_folder(disk)
}

fn sync_folder(disk: &dyn Disk) -> Result<(), NotKept> {
    disk.sync_folder().map_err(|error| NotKept { error: failed("sync the folder")(error), is_unknown: true })
}

fn read(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let length = usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(file.read_bytes(0, length)?.into())
}

/// A record as it is kept.
fn text_of(magic: &str, record: &impl Serialize) -> String {
    let body = serde_json::to_string_pretty(record).unwrap_or_default(); // its keys are texts
    format!("{magic}{}\n{body}\n", Digest::of(format!("{body}\n").as_bytes()))
}

fn parse(bytes: &[u8]) -> Result<Record, StoreError> {
    let record = match bytes.starts_with(MAGIC_V1.as_bytes()) {
        true => body(MAGIC_V1, bytes).map(Record::from_v1),
        false => body(MAGIC, bytes),
    };
    record.map_err(|why| StoreError::Damaged { why })
}

/// What a record says, or what is wrong with it.
fn body<T: DeserializeOwned>(magic: &str, bytes: &[u8]) -> Result<T, String> {
    let damaged = str::to_owned;
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let (head, body) = text.split_once('\n').ok_or_else(|| damaged("it has one line"))?;
    let sum = head.strip_prefix(magic).ok_or_else(|| damaged("it is not of this format, or of a later release"))?;
    if sum.parse() != Ok(Digest::of(body.as_bytes())) {
        return Err(damaged("its checksum is another"));
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::MemoryDisk;
    use crate::reload::record::Kept;
    use crate::topology::ConfigValue;
    use crate::wasm::PluginSpec;

    fn kept(wasm: &[u8]) -> Kept {
        let spec = PluginSpec {
            subscriber: "s".into(),
            wasm: wasm.to_vec(),
            config: BTreeMap::new(),
            hidden: BTreeMap::new(),
            ports: Vec::new(),
            limits: crate::wasm::Limits::default(),
        };
        Kept::new(&spec, &BTreeMap::<String, ConfigValue>::new(), ("test", 1))
    }

    #[test]
    fn a_component_that_is_kept_waits_for_the_record_that_names_it() {
        let mut store = Store::open(MemoryDisk::default()).unwrap();
        let [first, second, third] = [b"first", b"secon", b"third"].map(|wasm| (kept(wasm), wasm));
        for (kept, wasm) in [&first, &second] {
            store.keep(kept.wasm, *wasm).unwrap();
        }
        let name = |store: &mut Store, subscriber: &str, kept: &Kept| {
            store
                .change(|subscribers| drop(subscribers.insert(subscriber.into(), Decided::first(kept.clone()))))
                .unwrap();
            store.release(kept.wasm);
        };
        name(&mut store, "a", &first.0);
        assert_eq!(store.component(second.0.wasm).unwrap(), second.1, "its record comes after another one");
        name(&mut store, "b", &second.0);
        store.keep(third.0.wasm, third.1).unwrap();
        name(&mut store, "b", &third.0);
        assert!(store.component(second.0.wasm).is_err(), "nothing names it any more");
        assert_eq!(store.component(first.0.wasm).unwrap(), first.1);
        assert_eq!(store.component(third.0.wasm).unwrap(), third.1);
    }

    #[test]
    fn what_could_not_be_written_leaves_nothing_on_the_disk() {
        use crate::effects::memory::Operation;
        let fails: [fn(Operation) -> bool; 4] = [
            |operation| operation == Operation::Create,
            |operation| matches!(operation, Operation::Write(_)),
            |operation| operation == Operation::Sync,
            |operation| operation == Operation::Rename,
        ];
        for (at, fails) in fails.into_iter().enumerate() {
            let disk = MemoryDisk::default();
            let mut store = Store::open(disk.clone()).unwrap();
            disk.set_fault(move |operation| match fails(operation) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            });
            let component = kept(b"first");
            store.keep(component.wasm, b"first").unwrap_err();
            let record =
                |store: &mut Store| store.change(|of| drop(of.insert("a".into(), Decided::first(component.clone()))));
            record(&mut store).unwrap_err();
            disk.clear_fault();
            assert!(disk.contents().is_empty(), "{at}: {:?}", disk.contents().keys());
            store.keep(component.wasm, b"first").unwrap();
            record(&mut store).unwrap();
        }
    }

    #[test]
    fn a_component_that_no_record_is_to_name_goes() {
        let disk = MemoryDisk::default();
        let mut store = Store::open(disk.clone()).unwrap();
        let [first, second] = [b"first", b"secon"].map(|wasm| (kept(wasm), wasm));
        store.keep(first.0.wasm, first.1).unwrap();
        store.keep(second.0.wasm, second.1).unwrap();
        store.change(|subscribers| drop(subscribers.insert("a".into(), Decided::first(first.0.clone())))).unwrap();
        store.keep(second.0.wasm, second.1).unwrap(); // by somebody else at the same time
        store.release(first.0.wasm);
        store.release(second.0.wasm);
        assert_eq!(store.component(first.0.wasm).unwrap(), first.1, "the record names it");
        assert_eq!(store.component(second.0.wasm).unwrap(), second.1, "another record is to name it");
        store.release(second.0.wasm);
        assert!(store.component(second.0.wasm).is_err());
    }
}
