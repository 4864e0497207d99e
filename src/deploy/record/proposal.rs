//! A topology, or a part of one, on its way to a bus: self-contained on top of the applied topology.
//!
//! Must not know: what is stored, who decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::api::{Base, Component, Node, Proposal};
use crate::topology::{
    Code, ConfigValue, Diagnostic, MergedPlan, PathKind, Plan, PluginSource, Source, SubscriberKind, SubscriberPlan,
    Surroundings, check_on, documents, namespaces,
};

/// Why there is no plan of what is proposed.
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    /// It cannot be read: another release made it, or it was changed on its way.
    #[error("the topology cannot be read: {0}")]
    Unreadable(String),
    /// Its declarations conflict with the applied topology.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
}

/// A proposal combined with the applied topology.
#[derive(Debug, Clone)]
pub(crate) struct MergedProposal {
    pub(crate) plan: Plan,
    /// The component of each subscriber, in order.
    pub(crate) components: Vec<Component>,
    /// Applied items of its namespaces that it does not declare and that stay, by full name.
    pub(crate) missing: Vec<(Node, String)>,
    /// Secret files that it may not use, as messages.
    pub(crate) refused_secrets: Vec<String>,
}

impl Proposal {
    /// A plan with absolute paths, and the component of each subscriber, in order.
    pub fn of<C: Clone + Into<Component>>(plan: &Plan, components: &[C]) -> Self {
        let whole = MergedPlan::whole(plan.clone());
        let names = plan.subscribers.iter().map(SubscriberPlan::label);
        let components = names.zip(components.iter().cloned().map(Into::into)).collect();
        Self { documents: documents(plan), ..Self::of_files(&whole, components) }
    }

    /// The declarations of files, with absolute paths, and the components of their subscribers by full name.
    pub fn of_files(merged: &MergedPlan, components: BTreeMap<String, Component>) -> Self {
        let plan = &merged.plan;
        let topics = plan.topics.iter().filter(|topic| merged.topics.contains(&topic.label()));
        let schemas = topics.filter_map(|topic| topic.schema.as_ref());
        let folder = |subscriber: &SubscriberPlan| match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Folder(path)) => Some(path.clone()),
            _ => None,
        };
        let subscribers = plan.subscribers.iter().filter(|of| merged.subscribers.contains(&of.label()));
        Self {
            documents: merged.documents(),
            schemas: schemas.map(|schema| (schema.path().to_owned(), schema.text().to_owned())).collect(),
            folders: subscribers.filter_map(folder).collect(),
            components,
            written: merged.written(),
            prune: false,
        }
    }

    /// The plan of this alone, with the component of each subscriber, in order.
    ///
    /// # Errors
    /// [`ProposalError::Unreadable`].
    pub fn read(&self) -> Result<(Plan, Vec<Component>), ProposalError> {
        let MergedProposal { plan, components, .. } = self.read_on(&Plan::default(), &BTreeMap::new())?;
        Ok((plan, components))
    }

    /// The namespaces that it names, as far as it can be read.
    pub fn namespaces(&self) -> BTreeSet<String> {
        namespaces(&self.sources(), &ProposalSurroundings(self))
    }

    fn sources(&self) -> Vec<Source> {
        let source = |(number, text): (usize, &String)| Source {
            path: format!("applied-{number}.yaml").into(),
            text: text.clone(),
        };
        self.documents.iter().enumerate().map(source).collect()
    }

    /// The plan of this on top of the applied topology, whose components are given by full names of subscribers.
    pub(crate) fn read_on(
        &self,
        applied: &Plan,
        known: &BTreeMap<String, Component>,
    ) -> Result<MergedProposal, ProposalError> {
        let sources = self.sources();
        let (merged, problems) =
            check_on(&sources, &ProposalSurroundings(self), &Base::of(applied, |_| true), self.prune);
        let Some(merged) = merged else { return Err(unreadable(&problems)) };
        let MergedPlan { mut plan, subscribers, missing_topics, missing_subscribers, .. } =
            merged.with_applied(applied);
        let before: BTreeMap<String, &SubscriberKind> =
            applied.subscribers.iter().map(|subscriber| (subscriber.label(), &subscriber.runs)).collect();
        for subscriber in &mut plan.subscribers {
            let name = subscriber.label();
            // An uploaded component is known by its digest: the folder in which a client has it makes no difference.
            let is_uploaded = self.components.get(&name).is_some_and(|component| component.stored().is_some());
            match before.get(&name) {
                Some(before) if is_uploaded && has_same_name(before, &subscriber.runs) => {
                    subscriber.runs = (*before).clone();
                }
                _ => {}
            }
            for (setting, value) in &mut subscriber.config {
                if let (ConfigValue::Text(text), Some(written)) =
                    (&*value, self.written.get(&(name.clone(), setting.clone())))
                {
                    *value = ConfigValue::Variable { text: text.clone(), written: written.clone() };
                }
            }
        }
        let component = |subscriber: &SubscriberPlan| {
            let name = subscriber.label();
            let component = if subscribers.contains(&name) { self.components.get(&name) } else { known.get(&name) };
            let missing = || ProposalError::Unreadable(format!("it names no component for `{name}`"));
            component.cloned().ok_or_else(missing)
        };
        let components = plan.subscribers.iter().map(component).collect::<Result<_, _>>()?;
        let of = |node| move |name| (node, name);
        let missing = missing_topics.into_iter().map(of(Node::Topic));
        let missing = missing.chain(missing_subscribers.into_iter().map(of(Node::Subscriber))).collect();
        Ok(MergedProposal { plan, components, missing, refused_secrets: Vec::new() })
    }
}

/// Whether two plugins are in files, or in folders, of the same name.
fn has_same_name(one: &SubscriberKind, other: &SubscriberKind) -> bool {
    match (one, other) {
        (SubscriberKind::Plugin(PluginSource::Wasm(one)), SubscriberKind::Plugin(PluginSource::Wasm(other)))
        | (SubscriberKind::Plugin(PluginSource::Folder(one)), SubscriberKind::Plugin(PluginSource::Folder(other))) => {
            one.file_name() == other.file_name()
        }
        _ => false,
    }
}

/// Why a proposal has no plan: it cannot be read, or it conflicts with the applied topology.
fn unreadable(problems: &[Diagnostic]) -> ProposalError {
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    let is_of_whole = |problem: &&Diagnostic| {
        matches!(
            problem.code,
            Code::UnknownTopic | Code::Cycle | Code::TwoParents | Code::SelfLoop | Code::NoRoot | Code::DuplicateName
        )
    };
    let words: Vec<_> = errors.iter().map(|problem| problem.message.clone()).collect();
    match errors.iter().all(is_of_whole) {
        true => ProposalError::Refused(words),
        false => ProposalError::Unreadable(words.join("; ")),
    }
}

/// The environment of a proposal: nothing outside of it is read.
struct ProposalSurroundings<'a>(&'a Proposal);

impl Surroundings for ProposalSurroundings<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, path: &Path) -> PathKind {
        if self.0.folders.contains(path) { PathKind::Folder { manifest: true } } else { PathKind::File }
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        self.0.schemas.get(path).cloned().ok_or_else(|| "is not in the record".to_owned())
    }

    fn lints(&self) -> bool {
        false
    }
}

/// Makes the paths of a plan absolute, starting from a folder, except those of secrets
/// ([`SecretFolders`](crate::deploy::SecretFolders)).
#[must_use]
pub fn rooted(mut plan: Plan, at: &Path) -> Plan {
    for topic in &mut plan.topics {
        topic.schema = topic.schema.take().map(|schema| schema.rooted(at));
    }
    for subscriber in &mut plan.subscribers {
        if let SubscriberKind::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) = &mut subscriber.runs {
            *path = at.join(&*path);
        }
    }
    plan
}
