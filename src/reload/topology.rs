//! The topology that was applied: what runs, durably, whatever the files say meanwhile.
//!
//! ```text
//!   turns ─> check ─> compile beside ─> add numbers, places ─> DECIDE ─> versions ─> stop what changes ─> start it
//!            │ refused, or would lose     harmless              one rename            at a batch boundary
//!            └─> nothing has changed
//! ```
//!
//! Promises: all or nothing: what is wrong with any part of a topology leaves all that runs as it is. The decision is one
//! record in place of another, so that after a crash at any moment the next start has exactly the topology from before or
//! the new one. A subscriber that is gone is remembered, so that it goes on from its place when it comes back. What is called
//! otherwise (`was`) has its new name by that record: it says the numbers of what is renamed, so that the engine can be told
//! again, however often; versions are under both names in front of it, and under the one that counts behind it.
//! Relies on: [`crate::dispatch::Tree::apply`] for lanes that are not touched, [`super::Store`] for what is durable.
//! Must not know: gRPC, the command line, which files propose.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::{MutexGuard, watch};

use super::adopt::permit;
use super::applied::{Applied, Retired, news, taken};
use super::garbage::Garbage;
use super::proposal::Proposed;
use super::snapshot::snapshot_where_it_does_not_run;
use super::source::PluginError;
use super::start::{Change, Chosen};
use super::{Compile, Proposal, Reloader, Replaced, SecretFolders, StoreError};
use crate::dispatch::{Changes, CollectError, Kept, Node, PrepareError, RemovedTopic, Renames, StartError, What};
use crate::engine::Engine;
use crate::topology::{Base, Plan, SubscriberPlan};

/// Losses that a refusal says one by one: it has to fit into the head of an answer.
const LOSSES_SAID: usize = 20;

/// Why a topology was not applied.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It cannot be read: it was not made by this release, or not as it is now.
    #[error("the topology cannot be read: {0}")]
    Unreadable(String),
    /// It cannot be.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// It would lose something, and nobody said that it may.
    #[error("this would lose data, so nothing was changed: {}; say --allow-loss if that is meant", first_of(.0))]
    Loss(Vec<String>),
    /// Something else is applied than what was looked at.
    #[error(
        "what is applied has changed since it was looked at, so nothing was changed: revision {is} is applied, not {expected}; \
         {since}. Look again, with `wattle plan`"
    )]
    Moved {
        /// The revision that was looked at.
        expected: String,
        /// The one that is applied.
        is: String,
        /// What has changed, in words.
        since: String,
    },
    /// Plugins, all that do not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// What is new cannot be there.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The disk has no room for the components that it brings.
    #[error("the disk has too little room to keep other versions of plugins, so nothing was changed: make some first")]
    NoRoom,
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is kept of subscribers that are gone.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// It was decided, and does not run as a whole.
    #[error("the topology is applied, and does not run as a whole before the bus is started again: {0}")]
    Start(#[source] StartError),
    /// One before was decided, and does not run as a whole.
    #[error("the topology that was applied before does not run as a whole: start the bus again first, which runs it")]
    Unfinished,
    /// The bus is on its way down.
    #[error("the bus is shutting down")]
    Closed,
}

/// What is to run, compiled, and which versions it takes the place of.
type Ready<H> = (Chosen<H>, Vec<Replaced>);

/// The first of some words, and how many more there are.
fn first_of(words: &[String]) -> String {
    let (first, more) = words.split_at(words.len().min(LOSSES_SAID));
    let more = (!more.is_empty()).then(|| format!("and {} more, which `wattle plan` shows", more.len()));
    first.iter().cloned().chain(more).collect::<Vec<_>>().join("; ")
}

/// Adds what is to be said of subscribers that start, in their order.
fn tell_notes(changes: &mut Changes, started: &[String], notes: &[Option<String>]) {
    for change in changes.changes.iter_mut().filter(|change| change.node == Node::Subscriber) {
        let at = started.iter().position(|name| *name == change.name);
        change.words.extend(at.and_then(|at| notes.get(at)?.clone()));
    }
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// What applying a topology would change, and whether that can be: an apply would say the same. Nothing happens. Blocks on
    /// the disk, and until components are compiled.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`], [`TopologyError::Refused`].
    pub fn changes(&self, proposal: &Proposal) -> Result<Changes, TopologyError> {
        let proposed = self.proposed(proposal)?;
        let mut changes = self.looked_at(&proposed);
        if changes.refusals.is_empty() {
            let Proposed { plan, components, .. } = &proposed;
            let tree = &self.shared.tree;
            let (started, renames) = (tree.started_by(plan), Renames::of(&tree.plan(), plan));
            match self.chosen(plan, components, &started, &renames) {
                Ok((chosen, _)) => tell_notes(&mut changes, &started, &chosen.notes),
                Err(errors) => changes.refusals.extend(errors.iter().map(ToString::to_string)),
            }
        }
        Ok(changes)
    }

    /// What is proposed, on top of what is applied.
    fn proposed(&self, proposal: &Proposal) -> Result<Proposed, TopologyError> {
        let secrets = self.shared.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let admitted = |mut proposed: Proposed, applied: &Plan| Proposed {
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

    /// Topologies that are applied from now on name secrets below these folders only, but for those that are named already.
    pub fn keep_secrets_below(&self, folders: SecretFolders) {
        *self.shared.secrets.write().unwrap_or_else(PoisonError::into_inner) = folders;
    }

    /// What a plan would change, in words.
    fn looked_at(&self, Proposed { plan, components, missing, refused_secrets }: &Proposed) -> Changes {
        let mut changes = self.changes_to(plan);
        match refused_secrets.as_slice() {
            [] => self.tell_versions(&mut changes, plan, components),
            refused => changes.refusals.extend_from_slice(refused), // and nothing of them is read
        }
        Changes { missing: missing.clone(), ..changes }
    }

    /// What is applied now, as other topologies are read on top of it, as far as it is of these namespaces, and its revision.
    pub fn base(&self, is_asked_for: impl Fn(&str) -> bool) -> (Base, String) {
        let shown = self.shown();
        let base = match &shown.1 {
            Some(applied) => Base::of(&applied.plan, is_asked_for),
            None => Base::of(&self.shared.tree.plan(), is_asked_for),
        };
        (base, shown.2.to_string())
    }

    /// The revision of what is applied: the same over every start, as long as the same is applied.
    pub fn revision(&self) -> String {
        self.shown().2.to_string()
    }

    fn is_revision(&self, expected: Option<String>) -> Result<(), TopologyError> {
        let is = self.revision();
        match expected.filter(|expected| *expected != is) {
            None => Ok(()),
            Some(expected) => {
                let since = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).since(&expected);
                Err(TopologyError::Moved { expected, is, since })
            }
        }
    }

    /// Says which version each subscriber that starts is to run, and where its component declares another configuration. Reads the
    /// files of components.
    fn tell_versions(&self, changes: &mut Changes, plan: &Plan, components: &[PathBuf]) {
        let tree = &self.shared.tree;
        let (started, renames) = (tree.started_by(plan), Renames::of(&tree.plan(), plan));
        let view = self.store().view(&renames);
        let mut words = super::start::words(&view, plan, components, &started);
        changes.differs = super::start::differs(&view, plan, &started);
        changes.refusals.extend(super::start::misfits(&view, plan, components, &started));
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
        for change in changes.changes.iter_mut().filter(|change| matches!(change.what, What::Added | What::Moved)) {
            let is_it = |of: &&SubscriberPlan| change.node == Node::Subscriber && of.label() == change.name;
            if let Some(subscriber) = plan.subscribers.iter().find(is_it).filter(|subscriber| !is_new(subscriber)) {
                let back = Retired::of(plan, subscriber);
                let known_as = Retired { from: renames.old_topic(&back.from).to_owned(), ..back.clone() };
                change.comes_back(&back.from, tree.lag_of(&known_as.into()));
            }
        }
        changes
    }

    /// Why what the files of the start say does not run, each reason in words; until something is applied.
    pub fn files_refused(&self) -> Vec<String> {
        self.shared.files_refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the files of the start say does not run, for these reasons.
    pub fn refuse_files(&self, why: Vec<String>) {
        *self.shared.files_refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Subscribers that are gone, and are remembered.
    pub fn retired(&self) -> Vec<Retired> {
        self.shown().1.iter().flat_map(|applied| applied.retired.iter().cloned()).collect()
    }

    /// What is kept of topics and subscribers that are gone. Nothing happens.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub async fn garbage(&self) -> Result<Vec<Garbage>, TopologyError> {
        let _alone = self.shared.applying.lock().await;
        let mut found = self.looked_for_garbage().await?.0;
        // with those of which it was begun, and broke off
        let begun: Vec<Retired> = self.shown().1.iter().flat_map(|applied| applied.forgetting.clone()).collect();
        found.extend(begun.into_iter().map(|gone| Garbage::subscriber(gone, Kept::default())));
        Ok(found)
    }

    async fn looked_for_garbage(&self) -> Result<(Vec<Garbage>, Vec<RemovedTopic>), TopologyError> {
        let mut found = Vec::new();
        for gone in self.retired() {
            let kept = self.shared.tree.kept_of(&gone.clone().into()).await?;
            found.push(Garbage::subscriber(gone, kept));
        }
        let topics = self.shared.tree.removed_topics().await?;
        found.extend(topics.iter().map(Garbage::topic));
        Ok((found, topics))
    }

    /// Forgets what is kept of topics and subscribers that are gone: events, places, state, and what waits. What was forgotten.
    ///
    /// # Errors
    /// [`TopologyError`]. Where something would be lost and may not be, nothing is forgotten.
    pub async fn collect(&self, allow_loss: bool) -> Result<Vec<Garbage>, TopologyError> {
        let reloader = self.clone();
        let collecting = async move { reloader.collected(allow_loss).await };
        self.detached(collecting).await.unwrap_or(Err(TopologyError::Closed))
    }

    async fn collected(&self, allow_loss: bool) -> Result<Vec<Garbage>, TopologyError> {
        let _alone = self.alone().await?;
        self.is_finished()?;
        let (mut found, topics) = self.looked_for_garbage().await?;
        let losses = found.iter().filter(|garbage| garbage.is_loss()).map(ToString::to_string).collect();
        permit(&Changes { losses, ..Changes::default() }, allow_loss)?;
        // Decided first: what has the name of what is half forgotten is new, and begins with nothing.
        let names = topics.iter().flat_map(|topic| topic.names.clone()).collect();
        self.change_applied(move |applied| applied.forgets(&topics)).await?;
        self.shared.tree.forget_topics(names).await?;
        // with those of which that broke off before
        let known = found.iter().map(|garbage| garbage.name.clone()).collect::<HashSet<_>>();
        let all = self.forget_all().await?.into_iter().filter(|gone| !known.contains(&gone.name));
        found.extend(all.map(|gone| Garbage::subscriber(gone, Kept::default())));
        Ok(found)
    }

    /// Forgets those that are to be, also where that broke off before. An apply waits meanwhile.
    async fn forget_all(&self) -> Result<Vec<Retired>, TopologyError> {
        let all: Vec<Retired> = self.shown().1.iter().flat_map(|applied| applied.forgetting.iter().cloned()).collect();
        for gone in &all {
            self.shared.tree.forget(&gone.clone().into()).await?;
        }
        self.change_applied(Applied::forgot).await?;
        self.shared.forgotten.send_modify(|count| *count += 1);
        Ok(all)
    }

    /// Changes whenever subscribers were forgotten, for those who keep something beside.
    pub fn forgotten(&self) -> watch::Receiver<u64> {
        self.shared.forgotten.subscribe()
    }

    /// Whether there is a subscriber of this full name, or was one that is remembered.
    pub fn remembers(&self, subscriber: &str) -> bool {
        self.shown().1.as_ref().is_none_or(|applied| applied.remembers(subscriber))
    }

    /// Goes on with what was to be forgotten when the bus ended.
    pub(super) fn go_on_forgetting(&self) {
        if self.shown().1.iter().all(|applied| applied.forgetting.is_empty()) {
            return;
        }
        let reloader = self.clone();
        let forgetting = async move {
            let _alone = reloader.shared.applying.lock().await;
            match reloader.forget_all().await {
                Ok(all) => {
                    let names: Vec<_> = all.into_iter().map(|gone| gone.name).collect();
                    tracing::info!(names = names.join(", "), "what was to be forgotten is");
                }
                Err(error) => {
                    tracing::error!(%error, "what is to be forgotten is still there: `wattle gc` tries again")
                }
            }
        };
        self.shared.tasks.spawn_on(forgetting, &self.shared.runtime);
    }

    async fn change_applied(
        &self,
        change: impl FnOnce(Applied) -> Applied + Send + 'static,
    ) -> Result<(), TopologyError> {
        self.on_disk(|reloader| {
            let mut store = reloader.store();
            match store.applied().cloned() {
                Some(applied) => store.apply(change(applied)),
                None => Ok(()),
            }
        })
        .await
    }

    /// Applies a topology on top of what is applied, to its end also where the caller goes away, unless it still waited for its
    /// turn then.
    ///
    /// # Errors
    /// [`TopologyError`]; but for [`TopologyError::Start`], what ran before runs on.
    pub async fn apply(&self, proposal: Proposal, allow_loss: bool) -> Result<Changes, TopologyError> {
        self.apply_if(proposal, allow_loss, None).await
    }

    /// As [`Self::apply`], where this revision is what is applied.
    ///
    /// # Errors
    /// [`TopologyError`], [`TopologyError::Moved`] where another one is.
    pub async fn apply_if(
        &self,
        proposal: Proposal,
        allow_loss: bool,
        revision: Option<String>,
    ) -> Result<Changes, TopologyError> {
        let reloader = self.clone();
        let applying = async move { reloader.applied(proposal, allow_loss, revision).await };
        self.detached(applying).await.unwrap_or(Err(TopologyError::Closed))
    }

    /// Waits until nothing else changes what is applied.
    async fn alone(&self) -> Result<MutexGuard<'_, ()>, TopologyError> {
        self.while_wanted(self.shared.applying.lock()).await.ok_or(TopologyError::Closed)
    }

    fn is_finished(&self) -> Result<(), TopologyError> {
        match self.shared.is_unfinished.load(Ordering::Acquire) {
            true => Err(TopologyError::Unfinished),
            false => Ok(()),
        }
    }

    async fn applied(
        &self,
        proposal: Proposal,
        allow_loss: bool,
        revision: Option<String>,
    ) -> Result<Changes, TopologyError> {
        let _alone = self.alone().await?;
        self.is_finished()?;
        self.is_revision(revision)?;
        let before = self.revision();
        let reloader = self.clone();
        let proposed = self.shared.runtime.spawn_blocking(move || reloader.proposed(&proposal)).await;
        let proposed = proposed.map_err(|_| TopologyError::Closed)??;
        let (plan, components) = (proposed.plan.clone(), proposed.components.clone());
        let (tree, old) = (&self.shared.tree, self.shared.tree.plan());
        // Nobody changes versions of what changes meanwhile.
        let subjects = self.all();
        let started = tree.started_by(&plan);
        let places: HashMap<String, usize> =
            plan.subscribers.iter().enumerate().map(|(at, of)| (of.label(), at)).collect();
        let start: HashMap<&String, usize> = started.iter().zip(0..).collect();
        let stays = |name: &String| places.contains_key(name) && !start.contains_key(name);
        let mut turns = Vec::new();
        for subject in subjects.iter().filter(|subject| !stays(&subject.name)) {
            turns.push(self.while_wanted(subject.turn.lock()).await.ok_or(TopologyError::Closed)?);
        }
        let reloader = self.clone();
        let looked = self.shared.runtime.spawn_blocking(move || reloader.looked_at(&proposed));
        let mut changes = looked.await.map_err(|_| TopologyError::Closed)?;
        permit(&changes, allow_loss)?;
        let renames = Renames::of(&old, &plan);
        let (chosen, replaced) = self.choose(&plan, &components, &started, &renames).await?;
        let Chosen { starts, mut notes, changes: mut versions } = chosen;
        tell_notes(&mut changes, &started, &notes);
        // Components take up to 64 MiB each, and what is left is for what makes room again, as a shorter retention does.
        if super::start::components(&versions).next().is_some() && !tree.engine().storage().takes_events {
            return Err(TopologyError::NoRoom);
        }
        // Before it is decided, as in front of any other deploy.
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

        // What is new is kept before it is decided that it runs, and is nothing if that is not decided.
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
                super::start::decide(&mut store, first)?;
                let next = Applied::next(store.applied(), &old, (&decided, &files), names);
                store.apply(next)
            })();
            if let Err(error) = topology {
                drop(store);
                reloader.release(&versions);
                return Err(error);
            }
            // From here on the topology is what was decided; versions follow from it, at the next start at the latest.
            let then = super::start::decide(&mut store, versions).and_then(|()| store.hide_variables(&decided));
            if let Err(error) = then {
                tracing::error!(%error, "the versions of the new topology are not kept: the next start decides again");
            }
            Ok(())
        })
        .await?;
        // Trials of what goes as well: whoever judges one would wait for ever.
        let stay: HashSet<&str> =
            places.keys().filter(|name| stays(name)).map(|name| renames.old_subscriber(name)).collect();
        for name in subjects.iter().map(|subject| subject.name.as_str()).filter(|name| !stay.contains(name)) {
            let _ = tree.give_up_trial(name); // of what is new, and of what is gone already, there is none
        }
        let starts: BTreeMap<_, _> = started.iter().cloned().zip(starts).collect();
        // What runs is not what was decided where this fails, and nothing may be compared with it any more.
        self.shared.is_unfinished.store(true, Ordering::Release);
        tree.apply(&plan, starts).await.map_err(TopologyError::Start)?;
        self.shared.is_unfinished.store(false, Ordering::Release);
        self.refuse_files(Vec::new());
        let notes: BTreeMap<_, _> = started.into_iter().zip(notes).collect();
        self.follow(&plan, notes);
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

    /// Has the versions ready of those that start.
    async fn choose(
        &self,
        plan: &Plan,
        components: &[PathBuf],
        started: &[String],
        renames: &Renames,
    ) -> Result<Ready<C::Handler>, TopologyError> {
        let (plan, components, started) = (plan.clone(), components.to_vec(), started.to_vec());
        let (reloader, renames) = (self.clone(), renames.clone());
        let work = move || reloader.chosen(&plan, &components, &started, &renames);
        let chosen = self.shared.runtime.spawn_blocking(work).await;
        chosen.map_err(|_| TopologyError::Closed)?.map_err(TopologyError::Plugins)
    }

    /// As [`Self::choose`]. Blocks.
    fn chosen(
        &self,
        plan: &Plan,
        components: &[PathBuf],
        started: &[String],
        renames: &Renames,
    ) -> Result<Ready<C::Handler>, Vec<PluginError>> {
        let (view, compiler) = (self.store().view(renames), &self.shared.compiler);
        let chosen = super::start::choose(&view, compiler, plan, components, Some(started), &|_| ())?;
        let replaced = chosen.changes.iter().filter_map(|(name, change)| change.replaces(&view, name)).collect();
        Ok((chosen, replaced))
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Self) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), TopologyError> {
        let reloader = self.clone();
        let done = self.shared.runtime.spawn_blocking(move || work(&reloader)).await;
        Ok(done.map_err(|_| TopologyError::Closed)??)
    }
}
