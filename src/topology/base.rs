//! Files on top of the applied topology.
//!
//! ```text
//!   the plan that is applied ──Base──▶ texts, "as applied" ──┐
//!   files ───────────────────────────────────────────────────┴──check_on──▶ one plan, and what of it the files declare
//! ```
//!
//! Promises: a declaration of a file replaces the applied one of the same name, whole. Applied nodes that are not
//! declared stay as they are; with `prune` they go, where a file names their namespace, and never elsewhere. What a
//! file calls otherwise (`renamed_from`) is called so by all that is applied as well. The whole is checked as if one
//! hand had written it; a problem with a part that is applied is shown in that part's text.
//!
//! Must not know: where the applied topology is stored, who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity};
use super::namespace::Order;
use super::plan::{ConfigValue, Plan};
use super::reader::{Key, ReadContext};
use super::resolve::{self, File, FilesContext};
use super::values::{NamedTable, OrRefuse, Word};
use super::{PathKind, Problems, Source, Surroundings, names, raw, read, show};
use crate::api::Base;

/// The name of texts of the applied topology in diagnostics.
const AS_APPLIED: &str = "as applied";

/// A plan of files and what is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedPlan {
    pub plan: Plan,
    /// The namespaces that the files name.
    pub namespaces: BTreeSet<String>,
    /// The full names of the topics that they declare.
    pub topics: BTreeSet<String>,
    /// The full names of the subscribers that they declare.
    pub subscribers: BTreeSet<String>,
    /// The full names of topics in those namespaces that are applied, stay, and are not declared.
    pub missing_topics: Vec<String>,
    /// The same of subscribers.
    pub missing_subscribers: Vec<String>,
}

impl Base {
    /// The namespaces of a plan that are asked for.
    pub fn of(plan: &Plan, is_asked_for: impl Fn(&str) -> bool) -> Self {
        let topics = plan.topics.iter().filter(|topic| is_asked_for(&topic.namespace));
        let schemas = topics.filter_map(|topic| topic.schema.as_ref());
        Self {
            schemas: schemas.map(|schema| (schema.path().to_owned(), schema.text().to_owned())).collect(),
            folders: show::folders(plan, &is_asked_for),
            documents: show::applied(plan, &is_asked_for),
        }
    }

    /// The texts, as diagnostics call them.
    pub fn sources(&self) -> Vec<Source> {
        self.documents.iter().map(|text| Source { path: AS_APPLIED.into(), text: text.clone() }).collect()
    }
}

impl Surroundings for Base {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, path: &Path) -> PathKind {
        if self.folders.contains(path) { PathKind::Folder { manifest: true } } else { PathKind::File }
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        self.schemas.get(path).cloned().ok_or_else(|| "is not among what is applied".to_owned())
    }

    fn lints(&self) -> bool {
        false
    }
}

impl MergedPlan {
    /// A plan of which files declare all.
    pub fn whole(plan: Plan) -> Self {
        let written = plan.topics.iter().filter(|topic| topic.dead_letters_of.is_none());
        let spaces = plan.topics.iter().map(|topic| &topic.namespace);
        Self {
            namespaces: spaces.cloned().collect(),
            topics: written.map(|topic| topic.label()).collect(),
            subscribers: plan.subscribers.iter().map(|of| of.label()).collect(),
            missing_topics: Vec::new(),
            missing_subscribers: Vec::new(),
            plan,
        }
    }

    /// The declarations of the files as YAML texts, one for each of their namespaces, complete except for their
    /// references. Values of variables are in them.
    pub fn documents(&self) -> Vec<String> {
        show::part(&self.plan, &self.namespaces, &self.topics, &self.subscribers)
    }

    /// Gives nodes that are only applied the configuration and schemas of the applied plan, which texts do not contain.
    #[must_use]
    pub fn with_applied(mut self, applied: &Plan) -> Self {
        let topics: BTreeMap<_, _> = applied.topics.iter().map(|topic| (topic.label(), topic)).collect();
        for topic in &mut self.plan.topics {
            let name = topic.label();
            if let Some(before) = topics.get(&name).filter(|_| !self.topics.contains(&name)) {
                topic.schema.clone_from(&before.schema);
            }
        }
        let subscribers: BTreeMap<_, _> = applied.subscribers.iter().map(|of| (of.label(), of)).collect();
        for subscriber in &mut self.plan.subscribers {
            let name = subscriber.label();
            if let Some(before) = subscribers.get(&name).filter(|_| !self.subscribers.contains(&name)) {
                subscriber.config.clone_from(&before.config);
            }
        }
        self
    }

    /// How settings of the files' subscribers are written whose values, in the texts of [`Self::documents`], come out
    /// of the environment.
    pub fn written(&self) -> BTreeMap<(String, String), String> {
        let mut written = BTreeMap::new();
        for subscriber in self.plan.subscribers.iter().filter(|of| self.subscribers.contains(&of.label())) {
            for (setting, value) in &subscriber.config {
                if let ConfigValue::Variable { written: as_written, .. } = value {
                    written.insert((subscriber.label(), setting.clone()), as_written.clone());
                }
            }
        }
        written
    }
}

/// Checks files together with the applied topology. The diagnostics are in the order of the files, followed by
/// [`Base::sources`], and of the places in them; there is a plan exactly when none of them is an error.
pub fn check_on(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    base: &Base,
    prune: bool,
) -> (Option<MergedPlan>, Vec<Diagnostic>) {
    check_with(sources, surroundings, (base, prune), &mut ReadContext::default())
}

/// As [`check_on`]; what the readers of the files have in common is the caller's.
pub(super) fn check_with(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    (base, prune): (&Base, bool),
    shared: &mut ReadContext,
) -> (Option<MergedPlan>, Vec<Diagnostic>) {
    let mut shared_applied = ReadContext::default();
    let mut problems = Problems::default();
    let mut read_all = |first: usize, sources: &[Source], surroundings: &dyn Surroundings, shared: &mut ReadContext| {
        let read_one = |(index, source)| {
            let (file, found) = read(index, source, surroundings, shared);
            problems.append(found);
            file
        };
        (first as u32..).zip(sources).map(read_one).collect::<Vec<_>>()
    };
    let applied_sources = base.sources();
    let files = read_all(0, sources, surroundings, shared);
    let applied = read_all(sources.len(), &applied_sources, base, &mut shared_applied);
    let merge = Merge::of(&files, &applied, prune);
    let texts: Vec<&str> = sources.iter().chain(&applied_sources).map(|source| source.text.as_str()).collect();
    let applied = applied.into_iter().filter_map(|file| merge.stays(file));
    let files: Vec<File> = files.into_iter().chain(applied).collect();
    let applied_from = sources.len() as u32;
    let whole = FilesContext { applied_from, emptied: &merge.emptied, order: &merge.order };
    let plan = resolve::resolve(&files, &texts, whole, shared, &mut problems);
    let mut diagnostics = problems.finish();
    shared.hide_variables(&mut diagnostics);
    for diagnostic in &mut diagnostics {
        say_what_is_applied(diagnostic, applied_from);
    }
    (plan.map(|plan| merge.of_plan(plan)), diagnostics)
}

/// Says what can be done about a part that is applied and does not go with the files.
fn say_what_is_applied(diagnostic: &mut Diagnostic, applied_from: u32) {
    let is_applied = diagnostic.labels.iter().any(|label| label.span.source >= applied_from);
    if !is_applied || diagnostic.severity == Severity::Warning {
        return;
    }
    let more = "what is shown as applied is in none of these files: declare it in one to change it, or --prune to have \
        all \
                that they do not declare removed from their namespaces";
    diagnostic.help = Some(match diagnostic.help.take() {
        Some(help) => format!("{help}; {more}"),
        None => more.to_owned(),
    });
}

/// Names that are declared, and which of them were called otherwise, by their old names.
#[derive(Default)]
struct DeclaredNames {
    names: BTreeSet<String>,
    renamed_from: BTreeMap<String, String>,
}

impl DeclaredNames {
    fn add<T>(&mut self, declared: &Key<NamedTable<T>>, renamed_from: impl Fn(&T) -> Option<&str>) {
        let declared = declared.iter().filter_map(|field| field.value.as_ref()).flat_map(|declared| &declared.0);
        for (name, field) in declared {
            self.names.insert(name.clone());
            if let Some(old) = field.value.as_ref().and_then(&renamed_from) {
                self.renamed_from.insert(old.to_owned(), name.clone());
            }
        }
    }

    /// What an applied name is called by these, where they rename it.
    fn renamed(&self, old: &str, applied: &Self) -> Option<&String> {
        let new = self.renamed_from.get(old).filter(|_| !self.names.contains(old) && applied.names.contains(old))?;
        (!applied.names.contains(new)).then_some(new)
    }
}

/// The declarations of a namespace.
#[derive(Default)]
struct Declarations {
    topics: DeclaredNames,
    subscribers: DeclaredNames,
}

fn namespace(topology: &raw::Topology) -> Option<&str> {
    Some(&topology.name.as_ref()?.value.as_ref()?.0)
}

/// The namespaces that files name, as far as they can be read.
pub fn namespaces(sources: &[Source], surroundings: &dyn Surroundings) -> BTreeSet<String> {
    let mut shared = ReadContext::default();
    let read_one = |(index, source)| read(index, source, surroundings, &mut shared).0;
    let files: Vec<_> = (0..).zip(sources).map(read_one).collect();
    declared(&files).into_keys().collect()
}

fn declared(files: &[File]) -> BTreeMap<String, Declarations> {
    let mut all: BTreeMap<String, Declarations> = BTreeMap::new();
    for topology in files.iter().filter_map(|file| file.topology.as_ref()) {
        let Some(name) = namespace(topology) else { continue };
        let declared = all.entry(name.to_owned()).or_default();
        declared.topics.add(&topology.topics, |topic| Some(&topic.renamed_from.as_ref()?.value.as_ref()?.0));
        declared.subscribers.add(&topology.subscribers, |of| Some(&of.renamed_from.as_ref()?.value.as_ref()?.0));
    }
    all
}

/// How the applied topology is merged with files.
struct Merge {
    files: BTreeMap<String, Declarations>,
    applied: BTreeMap<String, Declarations>,
    prune: bool,
    /// Namespaces of which the files may leave nothing.
    emptied: BTreeSet<String>,
    /// Where more is applied than the files declare it keeps its order, so that a plan in which nothing changes is the
    /// same.
    order: BTreeMap<String, Order>,
}

impl Merge {
    fn of(files: &[File], applied: &[File], prune: bool) -> Self {
        let texts = applied;
        let (files, applied) = (declared(files), declared(texts));
        let emptied = files.keys().filter(|name| prune && applied.contains_key(*name)).cloned().collect();
        let mut merge = Self { files, applied, prune, emptied, order: BTreeMap::new() };
        for topology in texts.iter().filter_map(|file| file.topology.as_ref()) {
            merge.remember_order(topology);
        }
        merge
    }

    fn remember_order(&mut self, topology: &raw::Topology) {
        fn place<T>(
            declared: &Key<NamedTable<T>>,
            places: &mut HashMap<String, usize>,
            both: Option<(&DeclaredNames, &DeclaredNames)>,
        ) {
            let declared = declared.iter().filter_map(|field| field.value.as_ref()).flat_map(|declared| &declared.0);
            for (name, _) in declared {
                let name = both.and_then(|(files, applied)| files.renamed(name, applied)).unwrap_or(name);
                let next = places.len();
                places.insert(name.clone(), next);
            }
        }
        let Some(name) = namespace(topology) else { return };
        let both = self.files.get(name).zip(self.applied.get(name));
        let is_all = |(files, applied): (&Declarations, &Declarations)| {
            let all = |files: &DeclaredNames, applied: &DeclaredNames| {
                applied.names.iter().all(|name| files.names.contains(name) || files.renamed(name, applied).is_some())
            };
            all(&files.topics, &applied.topics) && all(&files.subscribers, &applied.subscribers)
        };
        if both.is_some_and(|both| self.prune || is_all(both)) {
            return; // the files say all of it, in their own order
        }
        let order = self.order.entry(name.to_owned()).or_default();
        let topics = both.map(|(files, applied)| (&files.topics, &applied.topics));
        place(&topology.topics, &mut order.topics, topics);
        let subscribers = both.map(|(files, applied)| (&files.subscribers, &applied.subscribers));
        place(&topology.subscribers, &mut order.subscribers, subscribers);
    }

    /// The part of an applied text that stays, with its new names.
    fn stays(&self, mut file: File) -> Option<File> {
        let topology = file.topology.as_mut()?;
        let name = namespace(topology)?;
        let (Some(files), Some(applied)) = (self.files.get(name), self.applied.get(name)) else { return Some(file) };
        if self.prune {
            return None;
        }
        let topic = |name: &str| files.topics.renamed(name, &applied.topics);
        let subscriber = |name: &str| files.subscribers.renamed(name, &applied.subscribers);
        if let Some(topics) = topology.topics.as_mut().and_then(|field| field.value.as_mut()) {
            topics.0.retain(|(name, _)| !files.topics.names.contains(name) && topic(name).is_none());
        }
        if let Some(subscribers) = topology.subscribers.as_mut().and_then(|field| field.value.as_mut()) {
            subscribers.0.retain(|(name, _)| !files.subscribers.names.contains(name) && subscriber(name).is_none());
        }
        follow(topology, |name| match names::dead_letters_of(name).and_then(subscriber) {
            Some(new) => Some(format!("{new}{}", super::bounds::DEAD_LETTERS_SUFFIX)),
            None => topic(name).cloned(),
        });
        Some(file)
    }

    fn of_plan(self, plan: Plan) -> MergedPlan {
        let full = |of: fn(&Declarations) -> &DeclaredNames| {
            let names = self.files.iter().flat_map(move |(space, declared)| {
                of(declared).names.iter().map(move |name| format!("{space}/{name}"))
            });
            names.collect::<BTreeSet<_>>()
        };
        let missing = |of: fn(&Declarations) -> &DeclaredNames| {
            let named = self.files.iter().filter(|_| !self.prune);
            let both = named.filter_map(|(space, files)| Some((space, of(files), of(self.applied.get(space)?))));
            let missing = both.flat_map(|(space, files, applied)| {
                let stays =
                    move |name: &&String| !files.names.contains(*name) && files.renamed(name, applied).is_none();
                applied.names.iter().filter(stays).map(move |name| format!("{space}/{name}"))
            });
            missing.collect::<Vec<_>>()
        };
        MergedPlan {
            plan,
            namespaces: self.files.keys().cloned().collect(),
            topics: full(|declared| &declared.topics),
            subscribers: full(|declared| &declared.subscribers),
            missing_topics: missing(|declared| &declared.topics),
            missing_subscribers: missing(|declared| &declared.subscribers),
        }
    }
}

/// Gives the topics that declarations refer to the names that they have from then on.
fn follow(topology: &mut raw::Topology, renamed: impl Fn(&str) -> Option<String>) {
    let rename = |word: &mut Option<Word>| {
        if let Some(Word(name)) = word
            && let Some(new) = renamed(name)
        {
            *name = new;
        }
    };
    let topics = topology.topics.iter_mut().filter_map(|field| field.value.as_mut()).flat_map(|topics| &mut topics.0);
    for (_, field) in topics {
        let lifecycle = field.value.as_mut().and_then(|topic| topic.lifecycle.as_mut()?.value.as_mut());
        let out_of_order = lifecycle.and_then(|of| of.out_of_order.as_mut()?.value.as_mut());
        if let Some(OrRefuse(Some(raw::OutOfOrder { divert: Some(divert), .. }))) = out_of_order {
            rename(&mut divert.value);
        }
    }
    let subscribers = topology.subscribers.iter_mut().filter_map(|field| field.value.as_mut());
    for (_, field) in subscribers.flat_map(|subscribers| &mut subscribers.0) {
        let Some(subscriber) = &mut field.value else { continue };
        if let Some(from) = &mut subscriber.from {
            rename(&mut from.value);
        }
        if let Some(ports) = subscriber.to.as_mut().and_then(|to| to.value.as_mut()) {
            ports.0.iter_mut().for_each(|(_, topic)| rename(&mut topic.value));
        }
    }
}
