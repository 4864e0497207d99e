//! The changes that applying a topology would make, and whether they are allowed. Decides nothing.

use std::sync::PoisonError;

use crate::api::{Base, Change, ChangeKind, Changes, Component, Node, Proposal};
use crate::deploy::compile::Compile;
use crate::deploy::record::applied::{RetiredSubscriber, news, taken};
use crate::deploy::record::proposal::MergedProposal;
use crate::deploy::reloader::Reloader;
use crate::deploy::secrets::SecretFolders;
use crate::deploy::topology::error::TopologyError;
use crate::deploy::versions::preview;
use crate::dispatch::Renames;
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};

/// Adds the notes of affected subscribers, in order.
pub(crate) fn tell_notes(changes: &mut Changes, affected: &[String], notes: &[Option<String>]) {
    for change in changes.changes.iter_mut().filter(|change| change.node == Node::Subscriber) {
        let at = affected.iter().position(|name| *name == change.name);
        change.words.extend(at.and_then(|at| notes.get(at)?.clone()));
    }
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// The changes that applying a topology would make, and whether it would be refused, exactly as an apply. Changes
    /// nothing. Blocks on the disk, and until components are compiled.
    ///
    /// # Errors
    /// [`TopologyError::NotUploaded`], [`TopologyError::Unreadable`], [`TopologyError::Refused`].
    pub fn changes(&self, proposal: &Proposal) -> Result<Changes, TopologyError> {
        let uploaded: Vec<_> = proposal.components.values().filter_map(Component::stored).collect();
        let missing = self.store().missing(&uploaded, self.trusted_now_ns());
        if !missing.is_empty() {
            return Err(TopologyError::NotUploaded(missing));
        }
        let proposed = self.proposed(proposal)?;
        let mut changes = self.looked_at(&proposed);
        if changes.refusals.is_empty() {
            let MergedProposal { plan, components, .. } = &proposed;
            let renames = Renames::of(&self.shared.tree.plan(), plan);
            let affected = self.affected(plan, components, &renames);
            match self.chosen(plan, components, &affected, &renames) {
                Ok((chosen, _)) => tell_notes(&mut changes, &affected, &chosen.notes),
                Err(errors) => changes.refusals.extend(errors.iter().map(ToString::to_string)),
            }
        }
        Ok(changes)
    }

    /// A proposal combined with the applied topology.
    pub(super) fn proposed(&self, proposal: &Proposal) -> Result<MergedProposal, TopologyError> {
        let secrets = self.shared.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let admitted = |mut proposed: MergedProposal, applied: &Plan| MergedProposal {
            refused_secrets: secrets.admit(&mut proposed.plan, applied),
            ..proposed
        };
        match &self.shown().1 {
            Some(applied) => {
                let proposed = proposal.read_on(&applied.plan, &applied.components_by_name())?;
                Ok(admitted(proposed, &applied.plan))
            }
            None => {
                let running = self.shared.tree.plan();
                let proposed = proposal.read_on(&running, &self.topology().borrow().components)?;
                Ok(admitted(proposed, &running))
            }
        }
    }

    /// Restricts the secrets of topologies that are applied later to files below these folders, except for those
    /// already in use.
    pub fn keep_secrets_below(&self, folders: SecretFolders) {
        *self.shared.secrets.write().unwrap_or_else(PoisonError::into_inner) = folders;
    }

    /// The changes that a plan would make.
    pub(super) fn looked_at(
        &self,
        MergedProposal { plan, components, missing, refused_secrets }: &MergedProposal,
    ) -> Changes {
        let mut changes = self.changes_to(plan);
        match refused_secrets.as_slice() {
            [] => self.tell_versions(&mut changes, plan, components),
            refused => changes.refusals.extend_from_slice(refused), // and none of the secrets is read
        }
        Changes { missing: missing.clone(), ..changes }
    }

    /// The applied topology of some namespaces, as a base for other topologies, and its revision.
    pub fn base(&self, is_asked_for: impl Fn(&str) -> bool) -> (Base, String) {
        let shown = self.shown();
        let base = match &shown.1 {
            Some(applied) => Base::of(&applied.plan, is_asked_for),
            None => Base::of(&self.shared.tree.plan(), is_asked_for),
        };
        (base, shown.2.to_string())
    }

    /// The revision of the applied topology: the same over all starts, as long as the same is applied.
    pub fn revision(&self) -> String {
        self.shown().2.to_string()
    }

    pub(super) fn is_revision(&self, expected: Option<String>) -> Result<(), TopologyError> {
        let is = self.revision();
        match expected.filter(|expected| *expected != is) {
            None => Ok(()),
            Some(expected) => {
                let since = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).since(&expected);
                Err(TopologyError::Moved { expected, is, since })
            }
        }
    }

    /// The subscribers that an apply affects, in the order of the plan: those that it starts, and those with a new
    /// component.
    pub(super) fn affected(&self, plan: &Plan, components: &[Component], renames: &Renames) -> Vec<String> {
        let view = self.store().view(renames);
        preview::affected(&view, plan, components, &self.shared.tree.started_by(plan))
    }

    /// Adds the version that each affected subscriber would run, and mismatches with the schema of its component. Reads
    /// components.
    fn tell_versions(&self, changes: &mut Changes, plan: &Plan, components: &[Component]) {
        let renames = Renames::of(&self.shared.tree.plan(), plan);
        let affected = self.affected(plan, components, &renames);
        let view = self.store().view(&renames);
        let mut words = preview::words(&view, plan, components, &affected);
        changes.differs = preview::differs(&view, plan, components, &affected);
        changes.refusals.extend(preview::misfits(&view, plan, components, &affected));
        // a new component alone is no change of the plan
        let is_told = |name: &String| changes.changes.iter().any(|of| of.node == Node::Subscriber && of.name == *name);
        let untold: Vec<_> = affected.into_iter().filter(|name| !is_told(name)).collect();
        let change = |name| Change {
            node: Node::Subscriber,
            name,
            renamed_from: None,
            what: ChangeKind::Changed,
            words: Vec::new(),
        };
        if !untold.is_empty() {
            changes.changes.extend(untold.into_iter().map(change));
            changes.changes.sort_by(|a, b| (a.node, &a.name).cmp(&(b.node, &b.name)));
        }
        for change in changes.changes.iter_mut().filter(|change| change.node == Node::Subscriber) {
            change.words.extend(words.remove(&change.name));
        }
    }

    fn changes_to(&self, plan: &Plan) -> Changes {
        let mut changes = self.shared.tree.changes(plan);
        let (shown, tree) = (self.shown(), &self.shared.tree);
        let old = tree.plan();
        changes.refusals.extend(taken(shown.1.as_ref(), &old, plan));
        let is_new = news(&old, shown.1.as_ref(), plan);
        let renames = Renames::of(&old, plan);
        for change in
            changes.changes.iter_mut().filter(|change| matches!(change.what, ChangeKind::Added | ChangeKind::Moved))
        {
            let is_it = |of: &&SubscriberPlan| change.node == Node::Subscriber && of.label() == change.name;
            if let Some(subscriber) = plan.subscribers.iter().find(is_it).filter(|subscriber| !is_new(subscriber)) {
                let back = RetiredSubscriber::of(plan, subscriber);
                let known_as = RetiredSubscriber { from: renames.old_topic(&back.from).to_owned(), ..back.clone() };
                change.comes_back(&back.from, tree.lag_of(&known_as.into()));
            }
        }
        changes
    }

    /// Why the files of the start are not applied, as messages; until something is applied.
    pub fn files_refused(&self) -> Vec<String> {
        self.shared.files_refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that the files of the start are not applied, for these reasons.
    pub fn refuse_files(&self, why: Vec<String>) {
        *self.shared.files_refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
