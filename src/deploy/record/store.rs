//! The store of versions: components by digest, and the record of decisions.
//!
//! ```text
//! <hash>.wasm     a component that a record names, or an upload (`uploads`)
//! record          "wattle plugins v2 <hash of the rest>\n", then the record as JSON; v1 has other digests
//! topology        "wattle topology v2 <hash of the rest>\n", then the applied topology as JSON; v1 has it as YAML
//! values          "wattle values v1 <hash of the rest>\n", then the values of variables as JSON: nowhere else
//! *.new           an incomplete write of one of these; ignored
//! ```
//!
//! A record states its version, and the earliest version of a reader. It is parsed again before it is written, and read
//! back before it gets its name.
//!
//! Promises: a change of the record happens or not, whatever crashes when. The components in the record exist: they are
//! made durable before it and removed only after a record without them is durable. After a write with an unknown result
//! nothing more is changed: everything continues to run, and the next start finds out. Damage is reported and never
//! repaired. A write that fails earlier leaves nothing behind. Readers never wait for writes ([`StoreView`]), and
//! records never wait for components ([`Shelf`]). Must not know: who decides, what a component does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::api::{Component, Digest};
use crate::deploy::record::applied::AppliedTopology;
use crate::deploy::record::decided::{Decisions, Record};
use crate::deploy::record::error::StoreError;
use crate::deploy::record::file::{NEW, RecordFormat, StoreFailure, WASM, body, failed, parse, read, text_of, write};
use crate::deploy::record::shelf::{Shelf, name_of};
use crate::deploy::record::uploads::Uploads;
use crate::deploy::record::values::Values;
use crate::dispatch::Renames;
use crate::effects::{Clock, Disk};
use crate::topology::Plan;

const RECORD: &str = "record";
const TOPOLOGY: &str = "topology";
const VALUES: &str = "values";
const VALUES_MAGIC: &str = "wattle values v1 ";

/// The stored data as of the last change, for readers.
#[derive(Clone, Default)]
pub(crate) struct StoreView(Arc<RwLock<Arc<StoreContent>>>);

/// The decided versions, the applied topology, and its revision.
pub(crate) type StoreContent = (Record, Option<AppliedTopology>, Arc<str>);

impl StoreView {
    /// The present data.
    pub(crate) fn now(&self) -> Arc<StoreContent> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, record: &Record, topology: Option<&AppliedTopology>, revision: &Arc<str>) {
        let shown = Arc::new((record.clone(), topology.cloned(), revision.clone()));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

/// The store of a bus. Blocks on the disk.
pub struct Store {
    disk: Arc<dyn Disk>,
    /// The clock of all times that it stores.
    clock: Arc<dyn Clock>,
    shelf: Shelf,
    shown: StoreView,
    record: Record,
    topology: Option<AppliedTopology>,
    /// The revision of the applied topology.
    revision: Arc<str>,
    /// The values of variables as on the disk, or a new salt that is not stored yet.
    values: Values,
    has_values: bool,
    /// The values used by each record on the disk.
    named: BTreeMap<&'static str, BTreeSet<String>>,
    /// Components that future records will use, with the number of users.
    pub(super) to_be_named: BTreeMap<String, usize>,
    pub(crate) uploads: Uploads,
    /// There is no room for more components.
    is_full: bool,
    poison: Option<String>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("record", &self.record).finish_non_exhaustive()
    }
}

fn revision_of(applied: Option<&AppliedTopology>, values: &Values) -> Arc<str> {
    applied.map(|applied| applied.revision(values)).unwrap_or_default().into()
}

impl Store {
    /// The name of the file with the applied topology.
    pub const TOPOLOGY: &str = TOPOLOGY;

    /// Opens the store on a disk. `clock` says when something is decided; the same at every start, since a trial
    /// continues by it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(disk: impl Disk, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let names = disk.list().map_err(failed("list the files"))?;
        for name in names.iter().filter(|name| name.ends_with(NEW)) {
            // Left by an interrupted write. If it cannot be removed, the next write does it.
            let _ = disk.remove(name);
        }
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let bytes = |name| has(name).then(|| read(&*disk, name).map_err(failed("read a record"))).transpose();
        let (record, topology, values) = (bytes(RECORD)?, bytes(TOPOLOGY)?, bytes(VALUES)?);
        let has_values = values.is_some();
        let values = values.map(|bytes| values_of(&bytes).map_err(|why| StoreError::DamagedValues { why }));
        let values = values.transpose()?.unwrap_or_default();
        let record: Record = record.map(|bytes| parse(&bytes, &values)).transpose()?.unwrap_or_default();
        let topology: Option<AppliedTopology> = topology.map(|bytes| parse(&bytes, &values)).transpose()?;
        let of_topology = topology.iter().flat_map(RecordFormat::variables).collect();
        let named = BTreeMap::from([(RECORD, record.variables()), (TOPOLOGY, of_topology)]);
        let shelf = Shelf { disk: disk.clone(), one_at_a_time: Arc::default() };
        let (shown, to_be_named, is_full, poison) = (StoreView::default(), BTreeMap::new(), false, None);
        let revision = revision_of(topology.as_ref(), &values);
        let mut store = Self {
            disk,
            clock,
            shelf,
            shown,
            record,
            topology,
            revision,
            values,
            has_values,
            named,
            to_be_named,
            uploads: Uploads::default(),
            is_full,
            poison,
        };
        store.record = store.record_by(&Renames::default());
        store.show();
        // Left by an interrupted change. The record without them must be durable first; it may only have been written.
        if !store.unnamed().is_empty() && store.disk.sync_folder().is_ok() {
            store.sweep();
        }
        Ok(store)
    }

    /// A copy for reading, with the future names of subscribers.
    pub(crate) fn view(&self, renames: &Renames) -> Self {
        let Self { disk, clock, shelf, topology, revision, values, has_values, named, .. } = self;
        let Self { to_be_named, is_full, poison, .. } = self;
        Self {
            disk: disk.clone(),
            clock: clock.clone(),
            shelf: shelf.clone(),
            shown: StoreView::default(),
            record: self.record_by(renames),
            topology: topology.clone(),
            revision: revision.clone(),
            values: values.clone(),
            has_values: *has_values,
            named: named.clone(),
            to_be_named: to_be_named.clone(),
            uploads: Uploads::default(),
            is_full: *is_full,
            poison: poison.clone(),
        }
    }

    /// Accepts no more components: proposals of files wait for the next start, and the decided versions run.
    pub fn takes_no_more(&mut self) {
        self.is_full = true;
    }

    /// The clock of the times that it stores.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether new components may be stored.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full
    }

    /// The stored data, for readers.
    pub(crate) fn shown(&self) -> StoreView {
        self.shown.clone()
    }

    fn show(&self) {
        self.shown.show(&self.record, self.topology.as_ref(), &self.revision);
    }

    /// The revision of the topology that was applied last.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The decisions about existing subscribers, under their present and future names. Entries under other names, left
    /// by a rename or an interrupted one, are dropped.
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

    /// Copies the decisions about subscribers to their future names, durably. They have no effect before the rename is
    /// decided.
    pub(crate) fn rename(&mut self, renames: &Renames) -> Result<(), StoreError> {
        let record = self.record_by(renames);
        self.change(|subscribers| *subscribers = record.subscribers)
    }

    /// The topology that was applied last.
    pub(crate) fn applied(&self) -> Option<&AppliedTopology> {
        self.topology.as_ref()
    }

    /// Records another applied topology, durably and atomically.
    pub(crate) fn apply(&mut self, applied: AppliedTopology) -> Result<(), StoreError> {
        self.check()?;
        // compared as written: plans are equal even if one has the name of a variable and the other its value
        let text = |applied: &AppliedTopology| applied.text(&self.values);
        if self.topology.as_ref().is_some_and(|before| text(before) == text(&applied)) {
            return Ok(());
        }
        self.write_record(&applied)?;
        self.revision = revision_of(Some(&applied), &self.values);
        self.topology = Some(applied);
        self.record = self.record_by(&Renames::default());
        self.show();
        self.sweep();
        self.sweep_values();
        Ok(())
    }

    /// The salted hash of bytes that must not be shown.
    pub(crate) fn seal(&self, bytes: &[u8]) -> String {
        self.values.seal(bytes)
    }

    /// Replaces a record durably, after a check that it can be parsed. The values in it are stored before.
    fn write_record<R: RecordFormat>(&mut self, record: &R) -> Result<(), StoreError> {
        let unwritable = |why| StoreError::Unwritable { file: R::FILE, why };
        let variables = record.variables();
        let values = self.values.with(self.variables().chain(variables.iter().cloned()));
        let text = text_of(R::MAGIC, &record.text(&values).map_err(unwritable)?);
        let again: R = parse(text.as_bytes(), &values).map_err(|error| unwritable(error.to_string()))?;
        if again != *record || text_of(R::MAGIC, &again.text(&values).map_err(unwritable)?) != text {
            return Err(unwritable("it would say something else".to_owned()));
        }
        if !self.has_values && record.is_sealed() || !self.values.has(&values) {
            self.write_values(values)?;
        }
        self.write(R::FILE, text.as_bytes())?;
        self.named.insert(R::FILE, variables);
        Ok(())
    }

    /// The values used by records.
    fn variables(&self) -> impl Iterator<Item = String> {
        self.named.values().flatten().cloned()
    }

    fn write_values(&mut self, values: Values) -> Result<(), StoreError> {
        let why = |why: serde_json::Error| StoreError::Unwritable { file: VALUES, why: why.to_string() };
        let text = text_of(VALUES_MAGIC, &serde_json::to_string_pretty(&values).map_err(why)?);
        if values_of(text.as_bytes()).as_ref() != Ok(&values) {
            let why = "it would say something else".to_owned();
            return Err(StoreError::Unwritable { file: VALUES, why });
        }
        self.write(VALUES, text.as_bytes())?;
        (self.values, self.has_values) = (values, true);
        Ok(())
    }

    /// Removes unused values. Those that cannot be removed go with a later change.
    fn sweep_values(&mut self) {
        let values = self.values.with(self.variables());
        if !values.has(&self.values)
            && let Err(error) = self.write_values(values)
        {
            tracing::warn!(%error, "values of variables that nothing uses any more are still kept");
        }
    }

    /// Hides values of variables also in stored versions whose record may predate variable names.
    pub(crate) fn hide_variables(&mut self, plan: &Plan) -> Result<(), StoreError> {
        self.change(|subscribers| {
            for subscriber in &plan.subscribers {
                if let Some(decided) = subscribers.get_mut(&subscriber.label()) {
                    decided.hide_variables(&subscriber.config);
                }
            }
        })
    }

    /// Changes the decision about one subscriber, as [`Self::change`]. Does nothing without a decision.
    pub(crate) fn decide(&mut self, subscriber: &str, change: impl FnOnce(&mut Decisions)) -> Result<(), StoreError> {
        self.change(|subscribers| {
            if let Some(decided) = subscribers.get_mut(subscriber) {
                change(decided);
            }
        })
    }

    /// The decision about a subscriber.
    pub(crate) fn decided(&self, subscriber: &str) -> Option<&Decisions> {
        self.record.subscribers.get(subscriber)
    }

    /// Stores a component durably: until it is released, and as long as a record uses it.
    pub(crate) fn keep(&mut self, wasm: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let shelf = self.announce(wasm)?;
        let put = shelf.put(wasm, bytes);
        self.kept(wasm, put)
    }

    /// Announces a component: first this, then [`Shelf::put`], which needs no lock on the store, then [`Self::kept`],
    /// and after the decision [`Self::release`].
    pub(crate) fn announce(&mut self, wasm: Digest) -> Result<Shelf, StoreError> {
        self.check()?;
        *self.to_be_named.entry(name_of(wasm)).or_default() += 1;
        Ok(self.shelf.clone())
    }

    /// Reports the result of storing a component.
    pub(crate) fn kept(&mut self, wasm: Digest, put: Result<(), StoreFailure>) -> Result<(), StoreError> {
        let Err(StoreFailure { error, is_unknown }) = put else { return Ok(()) };
        if is_unknown {
            self.poison = Some(error.to_string());
        }
        self.release(wasm);
        Err(error)
    }

    /// The record that uses a component exists, or will not. An unused component is removed.
    pub(crate) fn release(&mut self, wasm: Digest) {
        let name = name_of(wasm);
        match self.to_be_named.get_mut(&name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.to_be_named.remove(&name)),
        }
        if self.poison.is_none() && !self.names(&name) && !self.to_be_named.contains_key(&name) {
            let _ = self.disk.remove(&name); // a leftover only takes room
        }
    }

    /// A stored component.
    pub(crate) fn component(&self, wasm: Digest) -> Result<Vec<u8>, StoreError> {
        self.shelf.get(wasm)
    }

    /// The stored components, for reading without a lock on the store.
    pub(crate) fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// Changes decisions, durably and atomically. Removes components that are no longer used.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Decisions>)) -> Result<(), StoreError> {
        self.check()?;
        let mut next = self.record.clone();
        change(&mut next.subscribers);
        if next == self.record {
            return Ok(());
        }
        self.write_record(&next)?;
        self.record = next;
        self.show();
        self.sweep();
        self.sweep_values();
        Ok(())
    }

    /// Removes components that neither the record nor a future one uses. A leftover only takes room.
    fn sweep(&mut self) {
        for name in self.unnamed() {
            let _ = self.disk.remove(&name);
        }
    }

    /// Components that neither the record nor a future one uses.
    fn unnamed(&self) -> Vec<String> {
        let names = self.disk.list().unwrap_or_default().into_iter();
        names.filter(|name| name.ends_with(WASM) && !self.names(name) && !self.to_be_named.contains_key(name)).collect()
    }

    /// Whether a record uses a component with this file name.
    fn names(&self, name: &str) -> bool {
        self.named_components().any(|component| name_of(component) == name)
    }

    /// The components that records use.
    pub(super) fn named_components(&self) -> impl Iterator<Item = Digest> {
        let versions = self.record.subscribers.values().flat_map(|decided| &decided.kept).map(|kept| kept.wasm);
        let applied = self.topology.iter().flat_map(|applied| &applied.components);
        versions.chain(applied.filter_map(Component::stored))
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.poison {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Replaces a file, durably.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write(&*self.disk, name, bytes).map_err(|StoreFailure { error, is_unknown }| {
            if is_unknown {
                self.poison = Some(error.to_string());
            }
            error
        })
    }
}

fn values_of(bytes: &[u8]) -> Result<Values, String> {
    serde_json::from_str(body(VALUES_MAGIC, bytes)?).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use super::*;
    use crate::deploy::record::decided::VersionRecord;
    use crate::effects::{MemoryDisk, SystemClock};
    use crate::topology::ConfigValue;
    use crate::wasm::PluginSpec;

    pub(in crate::deploy::record) fn kept(wasm: &[u8]) -> VersionRecord {
        let spec = PluginSpec {
            subscriber: "s".into(),
            wasm: wasm.to_vec(),
            config: BTreeMap::new(),
            hidden: BTreeMap::new(),
            ports: Vec::new(),
            limits: crate::model::call::Limits::default(),
        };
        VersionRecord::new(&spec, &BTreeMap::<String, ConfigValue>::new(), ("test", 1))
    }

    #[test]
    fn a_component_that_is_kept_waits_for_the_record_that_names_it() {
        let mut store = Store::open(MemoryDisk::default(), Arc::new(SystemClock)).unwrap();
        let [first, second, third] = [b"first", b"secon", b"third"].map(|wasm| (kept(wasm), wasm));
        for (kept, wasm) in [&first, &second] {
            store.keep(kept.wasm, *wasm).unwrap();
        }
        let name = |store: &mut Store, subscriber: &str, kept: &VersionRecord| {
            store
                .change(|subscribers| drop(subscribers.insert(subscriber.into(), Decisions::first(kept.clone()))))
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
            let mut store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
            disk.set_fault(move |operation| match fails(operation) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            });
            let component = kept(b"first");
            store.keep(component.wasm, b"first").unwrap_err();
            let record =
                |store: &mut Store| store.change(|of| drop(of.insert("a".into(), Decisions::first(component.clone()))));
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
        let mut store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
        let [first, second] = [b"first", b"secon"].map(|wasm| (kept(wasm), wasm));
        store.keep(first.0.wasm, first.1).unwrap();
        store.keep(second.0.wasm, second.1).unwrap();
        store.change(|subscribers| drop(subscribers.insert("a".into(), Decisions::first(first.0.clone())))).unwrap();
        store.keep(second.0.wasm, second.1).unwrap(); // by another caller at the same time
        store.release(first.0.wasm);
        store.release(second.0.wasm);
        assert_eq!(store.component(first.0.wasm).unwrap(), first.1, "the record names it");
        assert_eq!(store.component(second.0.wasm).unwrap(), second.1, "another record is to name it");
        store.release(second.0.wasm);
        assert!(store.component(second.0.wasm).is_err());
    }
}
