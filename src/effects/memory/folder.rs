//! The names of files: those that a process sees, those that are durable, and the changes in between.
//!
//! Promises:
//! - `seen` is `synced` after all of `changes`.
//! - Of changes of different names a crash leaves any subset. For one name, changes after a lost one are lost too: so a
//!   rename is atomic, no file has two names, and a name always denotes a file that once had it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Survival, UnsyncedChange};

/// File indices by name.
pub(super) type Names = BTreeMap<String, usize>;

#[derive(Default)]
pub(super) struct NameTable {
    seen: Names,
    synced: Names,
    changes: Vec<NameChange>,
}

pub(super) enum NameChange {
    Create(String, usize),
    Remove(String),
    Rename { from: String, to: String },
}

impl NameChange {
    /// The names that the change affects.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        let (first, second) = match self {
            Self::Create(name, _) | Self::Remove(name) => (name, None),
            Self::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn unsynced(&self) -> UnsyncedChange<'_> {
        match self {
            Self::Create(name, _) => UnsyncedChange::Name { name, change: Operation::Create },
            Self::Remove(name) => UnsyncedChange::Name { name, change: Operation::Remove },
            Self::Rename { to, .. } => UnsyncedChange::Name { name: to, change: Operation::Rename },
        }
    }
}

impl NameTable {
    pub(super) fn durable(names: Names) -> Self {
        Self { seen: names.clone(), synced: names, changes: Vec::new() }
    }

    pub(super) fn seen(&self) -> &Names {
        &self.seen
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            change.apply(&mut self.synced);
        }
    }

    pub(super) fn crash(&self, choose: &mut dyn FnMut(UnsyncedChange<'_>) -> Survival) -> Names {
        let mut left = self.synced.clone();
        let mut lost: BTreeSet<&String> = BTreeSet::new();
        for change in &self.changes {
            if change.names().any(|name| lost.contains(name)) || choose(change.unsynced()) == Survival::Old {
                lost.extend(change.names());
            } else {
                change.apply(&mut left);
            }
        }
        left
    }

    /// The files that a crash may leave.
    pub(super) fn within_reach(&self) -> BTreeSet<usize> {
        let created = self.changes.iter().filter_map(|change| match change {
            NameChange::Create(_, file) => Some(*file),
            NameChange::Remove(_) | NameChange::Rename { .. } => None,
        });
        self.synced.values().copied().chain(created).collect()
    }
}
