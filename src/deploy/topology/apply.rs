//! Applies topologies to the running bus, durably and independently of the files.
//!
//! ```text
//!   queue ─> check ─> compile in background ─> add numbers, ... ─> DECIDE ─> versions ─> stop what changes ─> start it
//!            │ refused, or would lose data     harmless            one rename            at a batch boundary
//!            └─> nothing has changed
//! ```
//!
//! Promises: all or nothing: an error in any part of a topology leaves everything running unchanged. The decision
//! replaces one record by another, so that after a crash at any moment the next start has exactly the old topology or
//! the new one. A removed subscriber is remembered, so that it continues at its position when it returns. A rename
//! takes effect with that record: it contains the numbers of renamed items, so that the engine can be told again any
//! number of times; before the decision, versions are under both names, after it under the new one. A subscriber of
//! which only the uploaded component is new continues: its lanes call the new version as after a deploy. Relies on:
//! [`crate::dispatch::Tree::apply`] to keep unchanged lanes running, [`super::Store`] for durability. Must not know:
//! gRPC, the command line, which files propose.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::api::{Changes, Component, Proposal};
use crate::deploy::compile::Compile;
use crate::deploy::error::{PluginError, ReloadError};
use crate::deploy::record::applied::{AppliedTopology, news};
use crate::deploy::reloader::Reloader;
use crate::deploy::topology::adopt::permit;
use crate::deploy::topology::changes::tell_notes;
use crate::deploy::topology::error::{TopologyError, first_of};
use crate::deploy::versions::snapshot::snapshot_where_it_does_not_run;
use crate::deploy::versions::start::{self, Change, Choices, Replacement};
use crate::deploy::versions::unavailable::Loadable;
use crate::dispatch::{InitialVersions, NameError, Renames};
use crate::engine::{ApplyError, Engine};
use crate::topology::{Plan, SubscriberPlan};

/// Why the lanes of a subscriber do not call the version that was decided.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// The compiled versions, and the versions that they replace.
type ReadyVersions<H> = (Choices<H>, Vec<Replacement>);

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Applies a topology on top of the applied one. If the caller goes away, the work continues to its end, unless it
    /// has not begun.
    ///
    /// # Errors
    /// [`TopologyError`]; except for [`TopologyError::Start`], everything runs as before.
    pub async fn apply(&self, proposal: Proposal, allow_loss: bool) -> Result<Changes, TopologyError> {
        self.apply_if(proposal, allow_loss, None).await
    }

    /// As [`Self::apply`], provided that this revision is applied.
    ///
    /// # Errors
    /// [`TopologyError`], [`TopologyError::Moved`] if another one is.
    pub async fn apply_if(
        &self,
        proposal: Proposal,
        allow_loss: bool,
        revision: Option<String>,
    ) -> Result<Changes, TopologyError> {
        let reloader = self.clone();
        let applying = async move {
            let _alone = reloader.alone().await?;
            let uploaded: Vec<_> = proposal.components.values().filter_map(Component::stored).collect();
            reloader.hold(uploaded.clone()).await.map_err(|error| match error {
                ReloadError::NotUploaded { components } => TopologyError::NotUploaded(components),
                _ => TopologyError::Closed,
            })?;
            let applied = reloader.applied(proposal, allow_loss, revision).await;
            reloader.let_go(uploaded, applied.is_ok()).await;
            applied
        };
        self.detached(applying).await.unwrap_or(Err(TopologyError::Closed))
    }

    /// Applies it while no other topology is applied.
    async fn applied(
        &self,
        proposal: Proposal,
        allow_loss: bool,
        revision: Option<String>,
    ) -> Result<Changes, TopologyError> {
        self.is_finished()?;
        self.is_revision(revision)?;
        let before = self.revision();
        let reloader = self.clone();
        let proposed = self.shared.runtime.spawn_blocking(move || reloader.proposed(&proposal)).await;
        let proposed = proposed.map_err(|_| TopologyError::Closed)??;
        let (plan, components) = (proposed.plan.clone(), proposed.components.clone());
        let (tree, old) = (&self.shared.tree, self.shared.tree.plan());
        // Versions of changing subscribers are locked meanwhile.
        let subjects = self.all();
        let renames = Renames::of(&old, &plan);
        let affected = self.affected(&plan, &components, &renames);
        let places: HashMap<String, usize> =
            plan.subscribers.iter().enumerate().map(|(at, of)| (of.label(), at)).collect();
        let start: HashMap<&String, usize> = affected.iter().zip(0..).collect();
        let stays = |name: &String| places.contains_key(name) && !start.contains_key(name);
        let mut turns = Vec::new();
        for subject in subjects.iter().filter(|subject| !stays(&subject.name)) {
            turns.push(self.while_wanted(subject.turn.lock()).await.ok_or(TopologyError::Closed)?);
        }
        let reloader = self.clone();
        let looked = self.shared.runtime.spawn_blocking(move || reloader.looked_at(&proposed));
        let mut changes = looked.await.map_err(|_| TopologyError::Closed)?;
        permit(&changes, allow_loss)?;
        let (chosen, replaced) = self.choose(&plan, &components, &affected, &renames).await?;
        let Choices { starts, mut notes, changes: mut versions } = chosen;
        tell_notes(&mut changes, &affected, &notes);
        let started: HashSet<String> = tree.started_by(&plan).into_iter().collect();
        // The lanes of these continue, and call another version.
        let is_other = |change: &Change| !matches!(change, Change::None | Change::Seen(_));
        let others = versions.iter().filter(|(name, change)| !started.contains(name) && is_other(change));
        let others: HashSet<String> = others.map(|(name, _)| name.clone()).collect();
        // Components have up to 64 MiB, and the remaining room is reserved for changes that free some, such as a
        // shorter retention.
        if start::components(&versions).next().is_some() && !tree.engine().storage().takes_events {
            return Err(TopologyError::NoRoom);
        }
        // Before the decision, as for any other deploy.
        let takes_from = |of: &SubscriberPlan, plan: &Plan| (of.label(), plan[of.from].label());
        let ran: HashSet<(String, String)> = old.subscribers.iter().map(|of| takes_from(of, &old)).collect();
        let known: HashMap<&String, _> = subjects.iter().map(|subject| (&subject.name, subject)).collect();
        for replaced in &replaced {
            let name = &replaced.subscriber;
            let runs_as = renames.old_subscriber(name).to_owned();
            let from = places.get(name).and_then(|at| plan.subscribers.get(*at)).map(|of| plan[of.from].label());
            let from = renames.old_topic(&from.unwrap_or_default()).to_owned();
            let running = known.get(&runs_as);
            let why_not = match running.filter(|_| ran.contains(&(runs_as.clone(), from))) {
                Some(subject) => self.snapshot(subject, replaced.version).await,
                None => snapshot_where_it_does_not_run(tree, (&plan, &renames), replaced).await,
            };
            let note = start.get(name).and_then(|at| notes.get_mut(*at));
            if let (Some(note), Some(why_not)) = (note, why_not) {
                *note = Some(why_not);
            }
        }
        let is_new = news(&old, self.shown().1.as_ref(), &plan);
        let names = tree.prepare(&plan, is_new).await?;

        // New components are stored before the decision, and removed if it is not made.
        let first: Vec<_> = versions.extract_if(.., |(_, change)| matches!(change, Change::First(..))).collect();
        let (decided, called, files) = (plan.clone(), renames.clone(), components.clone());
        self.on_disk(move |reloader| {
            reloader.keep(&first)?;
            if let Err(error) = reloader.keep(&versions) {
                reloader.release(&first);
                return Err(error);
            }
            let mut store = reloader.store();
            let topology = (|| {
                store.rename(&called)?;
                start::decide(&mut store, first)?;
                let next = AppliedTopology::next(store.applied(), &old, (&decided, &files), names);
                store.apply(next)
            })();
            if let Err(error) = topology {
                drop(store);
                reloader.release(&versions);
                return Err(error);
            }
            // From here on the topology is decided; versions follow from it, at the next start at the latest.
            let then = start::decide(&mut store, versions).and_then(|()| store.hide_variables(&decided));
            if let Err(error) = then {
                tracing::error!(%error, "the versions of the new topology are not kept: the next start decides again");
            }
            Ok(())
        })
        .await?;
        // Also trials of removed subscribers, whose judges would wait for ever.
        let continues = |name: &&String| !started.contains(*name) && !others.contains(*name);
        let stay: HashSet<&str> = places.keys().filter(continues).map(|name| renames.old_subscriber(name)).collect();
        for name in subjects.iter().map(|subject| subject.name.as_str()).filter(|name| !stay.contains(name)) {
            // new and already removed subscribers have none
            if let Ok(running) = tree.subscriber(name) {
                running.versions().give_up_trial();
            }
        }
        let starts = affected.iter().cloned().zip(starts);
        let (starts, called): (BTreeMap<_, _>, BTreeMap<_, _>) = starts.partition(|(name, _)| started.contains(name));
        // If this fails, the running topology is not the decided one, and comparisons with it are invalid.
        self.shared.is_unfinished.store(true, Ordering::Release);
        tree.apply(&plan, starts).await.map_err(TopologyError::Start)?;
        self.shared.is_unfinished.store(false, Ordering::Release);
        self.refuse_files(Vec::new());
        let mut notes: BTreeMap<_, _> = affected.into_iter().zip(notes).collect();
        notes.retain(|name, _| started.contains(name) || others.contains(name));
        for (name, starts) in called.into_iter().filter(|(name, _)| others.contains(name)) {
            if let Err(error) = self.call(&name, starts).await {
                tracing::error!(subscriber = name, %error, "the next start calls the decided version");
                notes.insert(name, Some(error.to_string()));
            }
        }
        self.follow(&plan, notes);
        drop(turns);
        self.load_unavailable().await;
        self.shared.topology.send_replace(Arc::new(Proposal::of(&plan, &components)));
        if self.revision() != before {
            let words = changes.changes.iter().map(|change| format!("{} was {}", change.name, change.what.word()));
            let words = Some(first_of(&words.collect::<Vec<_>>())).filter(|words| !words.is_empty());
            let words = words.unwrap_or_else(|| "it was written in another way".to_owned());
            self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).add(before, words);
        }
        for change in &changes.changes {
            tracing::info!(name = change.name, what = ?change.what, words = change.words.join("; "), "applied");
        }
        Ok(changes)
    }

    /// Makes the lanes of a subscriber that continues call its new version.
    async fn call(&self, subscriber: &str, starts: InitialVersions<Loadable<C::Handler>>) -> Result<(), CallError> {
        let running = self.shared.tree.subscriber(subscriber)?;
        match starts.on_trial {
            Some((handler, terms)) => running.versions().run_on_trial(handler, terms).await.map(drop)?,
            None => running.versions().run(starts.proven).await?,
        }
        Ok(())
    }

    /// Prepares the versions of affected subscribers.
    async fn choose(
        &self,
        plan: &Plan,
        components: &[Component],
        affected: &[String],
        renames: &Renames,
    ) -> Result<ReadyVersions<C::Handler>, TopologyError> {
        let (plan, components, affected) = (plan.clone(), components.to_vec(), affected.to_vec());
        let (reloader, renames) = (self.clone(), renames.clone());
        let work = move || reloader.chosen(&plan, &components, &affected, &renames);
        let chosen = self.shared.runtime.spawn_blocking(work).await;
        chosen.map_err(|_| TopologyError::Closed)?.map_err(TopologyError::Plugins)
    }

    /// As [`Self::choose`]. Blocks.
    pub(super) fn chosen(
        &self,
        plan: &Plan,
        components: &[Component],
        affected: &[String],
        renames: &Renames,
    ) -> Result<ReadyVersions<C::Handler>, Vec<PluginError>> {
        let (view, compiler) = (self.store().view(renames), &self.shared.compiler);
        let chosen = start::choose(&view, compiler, plan, components, affected)?;
        let replaced = chosen.changes.iter().filter_map(|(name, change)| change.replaces(&view, name)).collect();
        Ok((chosen, replaced))
    }
}
