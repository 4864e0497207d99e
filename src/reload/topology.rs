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
//! Relies on: [`crate::dispatch::Tree::apply`] for lanes that are not touched, [`Store`] for what is durable.
//! Must not know: gRPC, the command line, which files propose.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::adopt::permit;
use super::snapshot::snapshot_where_nothing_runs;
use super::source::PluginError;
use super::start::{Change, Chosen};
use super::{Compile, Reloader, Replaced, Store, StoreError};
use crate::dispatch::{Changes, CollectError, Gone, Kept, Node, PrepareError, Renames, StartError, rename};
use crate::engine::{Engine, Names};
use crate::model::{SubscriberId, TopicId};
use crate::topology::{
    ConfigValue, Found, Plan, PluginSource, Runs, Source, SubscriberPlan, Surroundings, check, documents,
};
use crate::wasm::Digest;

/// Of records of what was applied. In version 0 every `dedupe` that did not say a `count` had one of 100,000 written out.
const VERSION: u32 = 1;
/// Losses that a refusal says one by one: it has to fit into the head of an answer.
const LOSSES_SAID: usize = 20;
/// How the line of `dedupe` began and ended then.
const DEDUPE: &str = "    dedupe: { window: ";
const OLD_COUNT: &str = ", count: 100000 }";

/// A topology with all that is needed to read it again, wherever and whenever: nothing of it is in other files but plugins
/// and secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// A YAML text for each namespace, with every default written out.
    pub documents: Vec<String>,
    /// The texts of the schemas that they name, by path.
    #[serde(default)]
    pub schemas: BTreeMap<PathBuf, String>,
    /// The source folders of plugins.
    #[serde(default)]
    pub folders: BTreeSet<PathBuf>,
    /// The component of each subscriber, by its full name.
    #[serde(default)]
    pub components: BTreeMap<String, PathBuf>,
}

/// What was applied last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) topology: Proposal,
    /// Subscribers that are gone, whose places and state are kept.
    #[serde(default)]
    pub(super) retired: BTreeSet<Retired>,
    /// Those of them that are to be forgotten, which has begun and may have broken off: whoever comes by such a name is new.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    forgetting: BTreeSet<Retired>,
    /// What has another name since then.
    #[serde(default)]
    renamed: Renamed,
    /// What the files of the last start said: as long as they say that, they propose nothing.
    #[serde(default)]
    seen: Option<Digest>,
    /// By which version that was said.
    #[serde(default)]
    version: u32,
}

/// Names by the engine's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Renamed {
    topics: BTreeMap<u32, String>,
    subscribers: BTreeMap<u32, String>,
}

/// A subscriber that is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retired {
    /// Its full name.
    pub name: String,
    /// The full name of the topic that it took from.
    pub from: String,
    /// How many partitions that has.
    pub partitions: u32,
}

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
    /// Plugins, all that do not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// What is new cannot be there.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
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

/// The first of some words, and how many more there are.
fn first_of(words: &[String]) -> String {
    let (first, more) = words.split_at(words.len().min(LOSSES_SAID));
    let more = (!more.is_empty()).then(|| format!("and {} more, which `wattle plan` shows", more.len()));
    first.iter().cloned().chain(more).collect::<Vec<_>>().join("; ")
}

impl Proposal {
    /// A plan whose paths are absolute, with the component of each subscriber, in its order.
    pub fn of(plan: &Plan, components: &[PathBuf]) -> Self {
        let schemas = plan.topics.iter().filter_map(|topic| topic.schema.as_ref());
        let folder = |subscriber: &SubscriberPlan| match &subscriber.runs {
            Runs::Plugin(PluginSource::Folder(path)) => Some(path.clone()),
            _ => None,
        };
        Self {
            documents: documents(plan),
            schemas: schemas.map(|schema| (schema.path().to_owned(), schema.text().to_owned())).collect(),
            folders: plan.subscribers.iter().filter_map(folder).collect(),
            components: plan.subscribers.iter().map(SubscriberPlan::label).zip(components.iter().cloned()).collect(),
        }
    }

    /// As a version of records has it: in version 0 with a count for each `dedupe` that says none, later without that.
    fn as_of(&self, version: u32) -> Self {
        let line = |line: &str| match (line.starts_with(DEDUPE), version) {
            (true, 0) if !line.contains(", count: ") => line.replace(" }", OLD_COUNT),
            (true, 1..) => line.replace(OLD_COUNT, " }"),
            _ => line.to_owned(),
        };
        let document = |text: &String| text.split_inclusive('\n').map(line).collect();
        Self { documents: self.documents.iter().map(document).collect(), ..self.clone() }
    }

    fn digest(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes()) // its keys are texts
    }

    /// The plan, with the component of each subscriber, in its order.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`].
    pub fn read(&self) -> Result<(Plan, Vec<PathBuf>), TopologyError> {
        let source = |(number, text): (usize, &String)| Source {
            path: format!("applied-{number}.yaml").into(),
            text: text.clone(),
        };
        let sources: Vec<_> = self.documents.iter().enumerate().map(source).collect();
        let (plan, problems) = check(&sources, &Alone(self));
        let Some(plan) = plan else {
            let words: Vec<_> =
                problems.iter().filter(|problem| problem.is_error()).map(|it| it.message.clone()).collect();
            return Err(TopologyError::Unreadable(words.join("; ")));
        };
        let component = |subscriber: &SubscriberPlan| {
            let name = subscriber.label();
            let missing = || TopologyError::Unreadable(format!("it names no component for `{name}`"));
            self.components.get(&name).cloned().ok_or_else(missing)
        };
        let components = plan.subscribers.iter().map(component).collect::<Result<_, _>>()?;
        Ok((plan, components))
    }
}

/// What a proposal says of the world: nothing is looked up.
struct Alone<'a>(&'a Proposal);

impl Surroundings for Alone<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, path: &Path) -> Found {
        if self.0.folders.contains(path) { Found::Folder { manifest: true } } else { Found::File }
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        self.0.schemas.get(path).cloned().ok_or_else(|| "is not in the record".to_owned())
    }
}

/// A plan with absolute paths: what is relative starts from a folder.
#[must_use]
pub fn rooted(mut plan: Plan, at: &Path) -> Plan {
    for topic in &mut plan.topics {
        topic.schema = topic.schema.take().map(|schema| schema.rooted(at));
    }
    for subscriber in &mut plan.subscribers {
        if let Runs::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) = &mut subscriber.runs {
            *path = at.join(&*path);
        }
        for value in subscriber.config.values_mut() {
            if let ConfigValue::SecretFile(path) = value {
                *path = at.join(&*path);
            }
        }
    }
    plan
}

impl Applied {
    /// What is applied after this, where something was applied, and what is called otherwise by that.
    pub(super) fn next(before: Option<&Self>, old: &Plan, topology: Proposal, new: &Plan, names: Names) -> Self {
        let (mut retired, mut forgetting) = (known(before, old, new), forgotten(before, &Renames::of(old, new)));
        for subscriber in &new.subscribers {
            retired.remove(&Retired::of(new, subscriber));
            forgetting.remove(&Retired::of(new, subscriber)); // it has begun anew, with nothing
        }
        let renamed = Renamed {
            topics: names.topics.into_iter().map(|(number, name)| (number.0, name)).collect(),
            subscribers: names.subscribers.into_iter().map(|(number, name)| (number.0, name)).collect(),
        };
        let (seen, version) = before.map_or((None, VERSION), |before| (before.seen, before.version));
        Self { topology, retired, forgetting, renamed, seen, version }
    }

    /// As this release writes it, whatever wrote it.
    pub(super) fn read(self) -> Self {
        match self.version {
            0 => Self { topology: self.topology.as_of(VERSION), ..self },
            _ => self,
        }
    }

    /// Whether there is a subscriber of this name, or was.
    pub(super) fn remembers(&self, subscriber: &str) -> bool {
        self.topology.components.contains_key(subscriber) || self.retired.iter().any(|gone| gone.name == subscriber)
    }
}

/// Every subscriber that there is or was, by the names that `new` has for it and for what it takes from.
fn known(applied: Option<&Applied>, old: &Plan, new: &Plan) -> BTreeSet<Retired> {
    let renames = Renames::of(old, new);
    let retired = applied.into_iter().flat_map(|applied| &applied.retired);
    let mut known: BTreeSet<_> =
        retired.map(|gone| Retired { from: renames.new_topic(&gone.from).to_owned(), ..gone.clone() }).collect();
    let old = renames.follow(old);
    known.extend(old.subscribers.iter().map(|subscriber| Retired::of(&old, subscriber)));
    known
}

/// Those that are to be forgotten, by the names that topics are to have.
fn forgotten(applied: Option<&Applied>, renames: &Renames) -> BTreeSet<Retired> {
    let forgetting = applied.into_iter().flat_map(|applied| &applied.forgetting);
    forgetting.map(|gone| Retired { from: renames.new_topic(&gone.from).to_owned(), ..gone.clone() }).collect()
}

/// Why subscribers cannot have the names that another plan has for them.
pub(super) fn taken(applied: Option<&Applied>, old: &Plan, new: &Plan) -> Vec<String> {
    let renames = Renames::of(old, new);
    let retired = applied.into_iter().flat_map(|applied| applied.retired.iter().chain(&applied.forgetting));
    let is_taken =
        |gone: &&Retired| renames.subscribers().contains_key(&gone.name) || renames.topic(&gone.from).is_some();
    let word = |Retired { name, from, .. }: &Retired| {
        let taken = if renames.topic(from).is_some() { from } else { name };
        format!(
            "`{taken}` cannot be a new name yet: `{name}`, a subscriber of {from}, is gone, and its place and state are kept. \
             Take another name, or have it forgotten by `wattle gc` first"
        )
    };
    retired.filter(is_taken).map(word).collect()
}

impl From<Retired> for Gone {
    fn from(Retired { name, from, partitions }: Retired) -> Self {
        Self { name, from, partitions }
    }
}

impl Retired {
    fn of(plan: &Plan, subscriber: &SubscriberPlan) -> Self {
        let from = &plan[subscriber.from];
        Self { name: subscriber.label(), from: from.label(), partitions: from.partitions }
    }
}

/// Whether subscribers of a plan are new: neither there in another one, nor remembered.
pub(super) fn news<'a>(
    old: &Plan,
    applied: Option<&Applied>,
    new: &'a Plan,
) -> impl Fn(&SubscriberPlan) -> bool + Send + Sync + use<'a> {
    let known = known(applied, old, new);
    move |subscriber| !known.contains(&Retired::of(new, subscriber))
}

impl Store {
    /// The topology that was applied last.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`].
    pub fn topology(&self) -> Result<Option<(Plan, Vec<PathBuf>)>, TopologyError> {
        self.applied().map(|applied| applied.topology.read()).transpose()
    }

    /// What a plan calls otherwise than the topology that was applied last; nothing where that cannot be read.
    pub(super) fn renames(&self, plan: &Plan) -> Renames {
        self.topology().ok().flatten().map(|(old, _)| Renames::of(&old, plan)).unwrap_or_default()
    }

    /// What a start runs instead of what its files say: what was applied last, where that is something else and the files say
    /// what they said at the start before. They propose only what is new.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`].
    pub fn applied_since(&self, files: &Proposal) -> Result<Option<(Plan, Vec<PathBuf>)>, TopologyError> {
        let is_applied = |applied: &&Applied| {
            let said = if applied.version == 0 { files.as_of(0).digest() } else { files.digest() };
            applied.seen == Some(said) && applied.topology != *files
        };
        self.applied().filter(is_applied).map(|applied| applied.topology.read()).transpose()
    }

    /// Remembers what the files of a start said, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn saw(&mut self, files: &Proposal) -> Result<(), StoreError> {
        match self.applied().cloned() {
            Some(applied) => self.apply(Applied { seen: Some(files.digest()), version: VERSION, ..applied }),
            None => Ok(()),
        }
    }

    /// Has an engine call things as was decided last. To be done in front of all else: what was decided may not have been
    /// followed yet.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub async fn follow<E: Engine>(&self, engine: &E) -> Result<(), TopologyError> {
        let Some(Applied { renamed: Renamed { topics, subscribers }, .. }) = self.applied() else { return Ok(()) };
        let Some((plan, _)) = self.topology()?.filter(|_| !topics.is_empty() || !subscribers.is_empty()) else {
            return Ok(());
        };
        let names = Names {
            topics: topics.iter().map(|(number, name)| (TopicId(*number), name.clone())).collect(),
            subscribers: subscribers.iter().map(|(number, name)| (SubscriberId(*number), name.clone())).collect(),
        };
        Ok(rename(engine, &plan, names).await.map_err(PrepareError::from)?)
    }
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// What applying a topology would change. Nothing happens. Blocks on the disk.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`].
    pub fn changes(&self, proposal: &Proposal) -> Result<Changes, TopologyError> {
        let (plan, components) = proposal.read()?;
        let mut changes = self.changes_to(&plan);
        self.tell_versions(&mut changes, &plan, &components);
        Ok(changes)
    }

    /// Says which version each subscriber that starts is to run. Reads the files of components.
    fn tell_versions(&self, changes: &mut Changes, plan: &Plan, components: &[PathBuf]) {
        let tree = &self.shared.tree;
        let (started, renames) = (tree.started_by(plan), Renames::of(&tree.plan(), plan));
        let view = self.store().view(&renames);
        let mut words = super::start::words(&view, plan, components, &started);
        for change in changes.changes.iter_mut().filter(|change| change.node == Node::Subscriber) {
            change.words.extend(words.remove(&change.name));
        }
    }

    fn changes_to(&self, plan: &Plan) -> Changes {
        let mut changes = self.shared.tree.changes(plan);
        changes.refusals.extend(taken(self.shown().1.as_ref(), &self.shared.tree.plan(), plan));
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

    /// Forgets what is kept of subscribers that are gone: where they are, their state, and what waits. Those that were
    /// forgotten, by their full names.
    ///
    /// # Errors
    /// [`TopologyError`]. Where something would be lost and may not be, nothing is forgotten.
    pub async fn collect(&self, allow_loss: bool) -> Result<Vec<String>, TopologyError> {
        if self.shared.closing.is_cancelled() {
            return Err(TopologyError::Closed);
        }
        let reloader = self.clone();
        let collecting = async move { reloader.collected(allow_loss).await };
        let task = self.shared.tasks.spawn_on(collecting, &self.shared.runtime);
        task.await.unwrap_or(Err(TopologyError::Closed))
    }

    async fn collected(&self, allow_loss: bool) -> Result<Vec<String>, TopologyError> {
        let _alone = self.shared.applying.lock().await;
        self.is_finished()?;
        let mut changes = Changes::default();
        for gone in self.retired() {
            let Kept { behind, entries, snapshots } = self.shared.tree.kept_of(&gone.clone().into()).await?;
            if behind + entries + snapshots > 0 {
                let Retired { name, from, .. } = gone;
                let has_snapshots = (snapshots > 0).then(|| format!(", and {snapshots} snapshots")).unwrap_or_default();
                let words = format!(
                    "`{name}` has yet to handle {behind} events of {from}, and keeps {entries} entries{has_snapshots}"
                );
                changes.losses.push(words);
            }
        }
        permit(&changes, allow_loss)?;
        // Decided first: whoever has the name of one that is half forgotten is new, and begins with nothing.
        self.change_applied(|mut applied| {
            applied.forgetting.append(&mut applied.retired);
            applied
        })
        .await?;
        self.forget_all().await
    }

    /// Forgets those that are to be, also where that broke off before. Whoever applies a topology meanwhile waits.
    async fn forget_all(&self) -> Result<Vec<String>, TopologyError> {
        let all: Vec<Retired> = self.shown().1.iter().flat_map(|applied| applied.forgetting.iter().cloned()).collect();
        for gone in &all {
            self.shared.tree.forget(&gone.clone().into()).await?;
        }
        self.change_applied(|applied| Applied { forgetting: BTreeSet::new(), ..applied }).await?;
        self.shared.forgotten.send_modify(|count| *count += 1);
        Ok(all.into_iter().map(|gone| gone.name).collect())
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
                Ok(names) => tracing::info!(names = names.join(", "), "what was to be forgotten is"),
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

    /// Has a topology take the place of the one that runs, to its end also where whoever asked for it goes away.
    ///
    /// # Errors
    /// [`TopologyError`]; but for [`TopologyError::Start`], what ran before runs on.
    pub async fn apply(&self, proposal: Proposal, allow_loss: bool) -> Result<Changes, TopologyError> {
        if self.shared.closing.is_cancelled() {
            return Err(TopologyError::Closed);
        }
        let reloader = self.clone();
        let applying = async move { reloader.applied(proposal, allow_loss).await };
        let task = self.shared.tasks.spawn_on(applying, &self.shared.runtime);
        task.await.unwrap_or(Err(TopologyError::Closed))
    }

    fn is_finished(&self) -> Result<(), TopologyError> {
        match self.shared.is_unfinished.load(Ordering::Acquire) {
            true => Err(TopologyError::Unfinished),
            false => Ok(()),
        }
    }

    async fn applied(&self, proposal: Proposal, allow_loss: bool) -> Result<Changes, TopologyError> {
        let _alone = self.shared.applying.lock().await;
        self.is_finished()?;
        let (plan, components) = proposal.read()?;
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
            turns.push(subject.turn.lock().await);
        }
        let (reloader, wanted, files) = (self.clone(), plan.clone(), components.clone());
        let looked = self.shared.runtime.spawn_blocking(move || {
            let mut changes = reloader.changes_to(&wanted);
            reloader.tell_versions(&mut changes, &wanted, &files);
            changes
        });
        let changes = looked.await.map_err(|_| TopologyError::Closed)?;
        permit(&changes, allow_loss)?;
        let renames = Renames::of(&old, &plan);
        let (chosen, replaced) = self.choose(&plan, &components, &started, &renames).await?;
        let Chosen { starts, mut notes, changes: mut versions } = chosen;
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
                None => snapshot_where_nothing_runs(tree.engine(), (&plan, &renames), replaced).await,
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
        let (decided, called, topology) = (plan.clone(), renames.clone(), Arc::new(proposal.clone()));
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
                let next = Applied::next(store.applied(), &old, proposal, &decided, names);
                store.apply(next)
            })();
            if let Err(error) = topology {
                drop(store);
                reloader.release(&versions);
                return Err(error);
            }
            // From here on the topology is what was decided; versions follow from it, at the next start at the latest.
            if let Err(error) = super::start::decide(&mut store, versions) {
                tracing::error!(%error, "the versions of the new topology are not kept: the next start decides again");
            }
            Ok(())
        })
        .await?;
        for name in &started {
            let _ = tree.give_up_trial(renames.old_subscriber(name)); // of what is new there is none
        }
        let starts: BTreeMap<_, _> = started.iter().cloned().zip(starts).collect();
        // What runs is not what was decided where this fails, and nothing may be compared with it any more.
        self.shared.is_unfinished.store(true, Ordering::Release);
        tree.apply(&plan, starts).await.map_err(TopologyError::Start)?;
        self.shared.is_unfinished.store(false, Ordering::Release);
        self.refuse_files(Vec::new());
        let notes: BTreeMap<_, _> = started.into_iter().zip(notes).collect();
        self.follow(&plan, notes);
        self.shared.topology.send_replace(topology);
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
    ) -> Result<(Chosen<C::Handler>, Vec<Replaced>), TopologyError> {
        let (plan, components, started) = (plan.clone(), components.to_vec(), started.to_vec());
        let (reloader, renames, events) = (self.clone(), renames.clone(), self.shared.probation.events);
        let work = move || {
            let (view, compiler) = (reloader.store().view(&renames), &reloader.shared.compiler);
            let chosen = super::start::choose(&view, compiler, &plan, &components, events, Some(&started), &|_| ())?;
            let replaced = chosen.changes.iter().filter_map(|(name, change)| change.replaces(&view, name)).collect();
            Ok((chosen, replaced))
        };
        let chosen = self.shared.runtime.spawn_blocking(work).await;
        chosen.map_err(|_| TopologyError::Closed)?.map_err(TopologyError::Plugins)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::MemoryDisk;

    fn proposal(dedupe: &str) -> Proposal {
        let document = format!("wattle: v1\nname: n\ntopics:\n  in:\n    partitions: 1\n    dedupe: {dedupe}\n");
        Proposal { documents: vec![document], ..Proposal::default() }
    }

    #[test]
    fn a_record_with_the_count_that_was_a_default_is_read_as_without_it() {
        let disk = MemoryDisk::default();
        let old = |dedupe| Applied { topology: proposal(dedupe), ..Applied::default() };
        let (then, now) = (proposal("{ window: 2m, count: 100000 }"), proposal("{ window: 2m }"));
        let mut store = Store::open(disk.clone()).unwrap();
        let applied = Applied { seen: Some(then.digest()), ..old("{ window: 10m, count: 100000 }") };
        store.apply(applied).unwrap();
        let mut store = Store::open(disk.clone()).unwrap();
        let count = |plan: &Plan| plan.topics[0].settings.dedupe.unwrap().count;
        let (plan, _) = store.applied_since(&now).unwrap().expect("the files say what they said");
        assert_eq!(count(&plan), None);
        assert_eq!(count(&store.topology().unwrap().unwrap().0), None);
        // what is said since then counts
        store.saw(&now).unwrap();
        let applied = Applied { topology: then, ..store.applied().cloned().unwrap() };
        store.apply(applied).unwrap();
        let store = Store::open(disk).unwrap();
        assert_eq!(count(&store.topology().unwrap().unwrap().0), Some(100_000));
        assert_eq!(store.applied().unwrap().seen, Some(now.digest()));
    }
}
