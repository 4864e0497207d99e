//! The topology files of a start, and whether they propose something.
//!
//! Promises: files propose each change once: while they are unchanged since the last start, the applied topology runs.

use std::collections::BTreeMap;

use crate::api::{Component, Proposal};
use crate::deploy::record::applied::{AppliedTopology, FilesFingerprint, NamesByNumber, by_name};
use crate::deploy::record::error::StoreError;
use crate::deploy::record::proposal::ProposalError;
use crate::deploy::record::store::Store;
use crate::dispatch::{PrepareError, Renames, rename};
use crate::engine::{Engine, NameChanges};
use crate::model::{SubscriberId, TopicId};
use crate::topology::{FilesDigest, MergedPlan, Plan, SubscriberPlan};

/// The files of a start.
#[derive(Debug, Clone)]
pub struct Files {
    /// Their plan on top of the applied topology, with absolute paths.
    pub plan: Plan,
    /// The component of each subscriber, in order.
    pub components: Vec<Component>,
    /// Their declarations alone.
    pub own: Proposal,
    /// The digest of their bytes.
    pub said: FilesDigest,
}

impl Files {
    /// Files that declare all of a plan.
    pub fn whole(plan: Plan, components: Vec<Component>, said: FilesDigest) -> Self {
        let own = Proposal::of(&plan, &components);
        Self { plan, components, own, said }
    }

    /// Files on top of the applied topology, with the components of their subscribers by full name.
    ///
    /// # Errors
    /// The subscribers with unknown components.
    pub fn on(
        applied: Option<&(Plan, Vec<Component>)>,
        merged: MergedPlan,
        components: BTreeMap<String, Component>,
        (said, prune): (FilesDigest, bool),
    ) -> Result<Self, ProposalError> {
        let own = Proposal { prune, ..Proposal::of_files(&merged, components) };
        let known = applied.map(|(plan, components)| by_name(plan, components)).unwrap_or_default();
        let plan = match applied {
            Some((plan, _)) => merged.with_applied(plan).plan,
            None => merged.plan,
        };
        let component = |subscriber: &SubscriberPlan| {
            let name = subscriber.label();
            let missing = || ProposalError::Unreadable(format!("no component is known for `{name}`"));
            own.components.get(&name).or_else(|| known.get(&name)).cloned().ok_or_else(missing)
        };
        let components = plan.subscribers.iter().map(component).collect::<Result<_, _>>()?;
        Ok(Self { plan, components, own, said })
    }
}

impl Store {
    /// The topology that was applied last, and the component of each subscriber.
    pub fn topology(&self) -> Option<(Plan, Vec<Component>)> {
        self.applied().map(|applied| (applied.plan.clone(), applied.components.clone()))
    }

    /// The renames from the topology that was applied last to a plan.
    pub(crate) fn renames(&self, plan: &Plan) -> Renames {
        self.applied().map(|applied| Renames::of(&applied.plan, plan)).unwrap_or_default()
    }

    /// The topology that a start runs instead of its files: the one applied last, if that is different and the files
    /// are unchanged since the last start.
    pub fn applied_since(&self, files: &Files) -> Option<(Plan, Vec<Component>)> {
        let applied = self.applied()?;
        let is_other = (&applied.plan, &applied.components) != (&files.plan, &files.components);
        (is_other && applied.has_seen(&files.own, &self.sealed(files.said, files.own.prune)))
            .then(|| self.topology())?
    }

    /// Whether files from which no plan can be made now are unchanged since the last start.
    pub fn has_seen(&self, said: FilesDigest, prune: bool) -> bool {
        match self.applied().map(|applied| &applied.seen) {
            Some(Some(FilesFingerprint::Files(seen))) => self.sealed(said, prune).contains(seen),
            _ => false,
        }
    }

    /// What stands for what files say, first as it is remembered, then as it may have been: to prune is something to
    /// say, not to prune is nothing new, nor is a key that has another name now.
    fn sealed(&self, said: FilesDigest, prune: bool) -> Vec<String> {
        let both = [said.as_bytes(), said.with_former_keys()];
        let with_prune = both.iter().map(|said| [said.as_slice(), b"prune"].concat());
        let without = both.iter().filter(|_| !prune).map(|said| said.to_vec());
        without.chain(with_prune).map(|bytes| self.seal(&bytes)).collect()
    }

    /// Remembers the files of a start, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn saw(&mut self, files: &Files) -> Result<(), StoreError> {
        let sealed = self.sealed(files.said, files.own.prune).into_iter().next();
        match self.applied().zip(sealed).map(|(applied, sealed)| applied.saw(sealed)) {
            Some(applied) => self.apply(applied),
            None => Ok(()),
        }
    }

    /// Repeats the decided renames to an engine. Must come before everything else, because the engine may not have them
    /// yet.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub async fn follow<E: Engine>(&self, engine: &E) -> Result<(), PrepareError> {
        let Some(AppliedTopology { plan, renamed: NamesByNumber { topics, subscribers }, .. }) = self.applied() else {
            return Ok(());
        };
        if topics.is_empty() && subscribers.is_empty() {
            return Ok(());
        }
        let names = NameChanges {
            topics: topics.iter().map(|(number, name)| (TopicId(*number), name.clone())).collect(),
            subscribers: subscribers.iter().map(|(number, name)| (SubscriberId(*number), name.clone())).collect(),
        };
        Ok(rename(engine, plan, names).await?)
    }
}
