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
//! known nothing more is changed: what runs goes on, and the next start finds out. Damage is said and never repaired.
//! Must not know: who decides, what a component does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

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

/// The versions of a bus. Blocks on the disk.
pub struct Store {
    disk: Arc<dyn Disk>,
    record: Record,
    topology: Option<Applied>,
    /// Names of components that were kept for a record which is still to come.
    to_be_named: BTreeSet<String>,
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
        let mut store = Self { disk, record, topology, to_be_named: BTreeSet::new(), poison: None };
        store.record = store.record_by(&Renames::default());
        Ok(store)
    }

    /// What is kept as it is now, to look at, with the names that subscribers are to have.
    pub(super) fn view(&self, renames: &Renames) -> Self {
        let Self { disk, topology, to_be_named, poison, .. } = self;
        let (disk, topology, to_be_named) = (disk.clone(), topology.clone(), to_be_named.clone());
        Self { disk, record: self.record_by(renames), topology, to_be_named, poison: poison.clone() }
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

    /// Keeps a component, durably: until a record names it that comes after, and as long as one does.
    pub(super) fn keep(&mut self, wasm: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        let name = name_of(wasm);
        self.to_be_named.insert(name.clone());
        match read(&*self.disk, &name) {
            // it was durable before the record that names it
            Ok(there) if Digest::of(&there) == wasm && self.names(&name) => return Ok(()),
            Ok(there) if Digest::of(&there) == wasm => return self.sync_folder(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read a component")(error)),
        }
        self.write(&name, bytes)
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
        self.sweep();
        Ok(())
    }

    /// Removes components that the record does not name, nor one to come. What cannot be removed only takes room.
    fn sweep(&mut self) {
        let named: Vec<_> = self.to_be_named.iter().filter(|name| self.names(name)).cloned().collect();
        for name in named {
            self.to_be_named.remove(&name);
        }
        for name in self.disk.list().unwrap_or_default() {
            if name.ends_with(WASM) && !self.names(&name) && !self.to_be_named.contains(&name) {
                let _ = self.disk.remove(&name);
            }
        }
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
        let new = format!("{name}{NEW}");
        let aside = || {
            match self.disk.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = self.disk.create(&new)?;
            file.write_at(bytes, 0)?;
            file.sync()
        };
        // Until it has its name nothing has happened.
        aside().map_err(failed("write a file"))?;
        self.disk.rename(&new, name).map_err(failed("rename a file"))?;
        self.sync_folder()
    }

    fn sync_folder(&mut self) -> Result<(), StoreError> {
        self.disk.sync_folder().map_err(|error| {
            self.poison = Some(error.to_string());
            failed("sync the folder")(error)
        })
    }
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
}
