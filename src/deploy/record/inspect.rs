//! Verifies the stored versions and the applied topology of a data folder that no bus uses.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::deploy::record::store::Store;
use crate::effects::{Disk, SystemClock};

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreInspection {
    /// Whether a topology was applied.
    pub has_topology: bool,
    /// Number of subscribers with a decided version.
    pub subscribers: u64,
    /// Number of stored components.
    pub components: u64,
    /// Descriptions of the damage; empty if everything is intact.
    pub damage: Vec<String>,
}

impl StoreInspection {
    /// Reads every record and every component.
    pub fn of(disk: impl Disk) -> Self {
        let store = match Store::open(disk, Arc::new(SystemClock)) {
            Ok(store) => store,
            Err(error) => return Self { damage: vec![error.to_string()], ..Self::default() },
        };
        let shown = store.shown().now();
        let decided = shown.0.subscribers.values();
        let components: BTreeSet<_> = decided.flat_map(|decided| &decided.kept).map(|kept| kept.wasm).collect();
        let damage = components.iter().filter_map(|component| store.component(*component).err());
        Self {
            has_topology: store.topology().is_some(),
            subscribers: shown.0.subscribers.len() as u64,
            components: components.len() as u64,
            damage: damage.map(|error| error.to_string()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::record::decided::Decisions;
    use crate::deploy::record::store::tests::kept;
    use crate::effects::MemoryDisk;

    #[test]
    fn components_that_are_missing_or_damaged_are_named() {
        let disk = MemoryDisk::default();
        let mut store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
        let first = kept(b"first");
        store.keep(first.wasm, b"first").unwrap();
        store.change(|subscribers| drop(subscribers.insert("a".into(), Decisions::first(first.clone())))).unwrap();
        let whole = StoreInspection { subscribers: 1, components: 1, ..StoreInspection::default() };
        assert_eq!(StoreInspection::of(disk.clone()), whole);
        let file = disk.contents().into_keys().find(|name| name.ends_with(".wasm")).unwrap();
        assert!(disk.damage(&file, 0, 1));
        let damage = StoreInspection::of(disk.clone()).damage;
        assert!(damage[0].contains(&first.wasm.to_string()), "{damage:?}");
        assert!(disk.remove_durably(&file));
        assert_eq!(StoreInspection::of(disk).damage.len(), 1);
    }
}
