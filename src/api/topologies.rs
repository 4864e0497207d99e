//! Topologies on their way to a bus, and what they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Component, Digest, NotADigest, v1};

/// A topic or a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Topic,
    Subscriber,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It begins.
    Added,
    /// It ends; its data stays.
    Removed,
    /// It continues as the same, with other settings.
    Changed,
    /// A subscriber takes from another topic, and so is another one.
    Moved,
    /// It continues under another name, perhaps with other settings.
    Renamed,
}

/// A change of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What kind of node.
    pub node: Node,
    /// Its full name.
    pub name: String,
    /// Its full name before, where that is another.
    pub renamed_from: Option<String>,
    /// What happens to it.
    pub what: ChangeKind,
    /// Notes, each a sentence.
    pub words: Vec<String>,
}

/// Everything that another plan changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The nodes that change: topics, then subscribers, each by name.
    pub changes: Vec<Change>,
    /// Why it cannot be, in words.
    pub refusals: Vec<String>,
    /// Data that it would lose, in words: it has to be allowed.
    pub losses: Vec<String>,
    /// Running nodes that the files do not declare and that stay, by full names: `prune` would remove them.
    pub missing: Vec<(Node, String)>,
    /// What stays as it is and does not run with the settings that are applied, and why, in words.
    pub differs: Vec<String>,
}

/// Stored data of a removed topic or subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    pub node: Node,
    /// Its full name.
    pub name: String,
    /// For a subscriber, the full name of its input topic.
    pub from: Option<String>,
    /// Events: of a topic those in it, of a subscriber those that it has not handled.
    pub events: u64,
    /// Retained events that a subscriber has handled: a new subscriber with its name would get them again.
    pub handled: u64,
    /// Approximate bytes of a topic's events.
    pub bytes: u64,
    /// Entries of a subscriber: of its state and its retry queue.
    pub entries: u64,
    /// Number of snapshots.
    pub snapshots: u64,
}

/// A topology, or a part of one, in a form that can be read anywhere and later: it depends on no other files except
/// secrets, and plugins that are not uploaded. Its serialized form was stored in records of version 1, which are still
/// read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// YAML texts with all defaults written out.
    pub documents: Vec<String>,
    /// The texts of the referenced schemas, by path.
    #[serde(default)]
    pub schemas: BTreeMap<PathBuf, String>,
    /// The source folders of plugins.
    #[serde(default)]
    pub folders: BTreeSet<PathBuf>,
    /// The component of each subscriber, by its full name.
    #[serde(default)]
    pub components: BTreeMap<String, Component>,
    /// Settings as written with variables in them, by subscriber and setting. The documents contain the values, which
    /// are not shown. Not in records of version 1.
    #[serde(skip)]
    pub written: BTreeMap<(String, String), String>,
    /// Items of its namespaces that are applied and not declared in it are removed. Not stored in records.
    #[serde(skip)]
    pub prune: bool,
}

/// The applied topology, as texts that need nothing else to be read. The `config` of plugins is not in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// YAML texts with absolute paths; several may be of one namespace.
    pub documents: Vec<String>,
    /// The texts of the schemas that they name, by path.
    pub schemas: BTreeMap<PathBuf, String>,
    /// The source folders of plugins.
    pub folders: BTreeSet<PathBuf>,
}

impl Node {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Subscriber => "subscriber",
        }
    }
}

impl ChangeKind {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Moved => "moved",
            Self::Renamed => "renamed",
        }
    }
}

impl Changes {
    /// Whether everything stays as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.refusals.is_empty()
    }
}

impl Garbage {
    /// Whether something is lost when it is forgotten.
    pub fn is_loss(&self) -> bool {
        self.events + self.handled + self.entries + self.snapshots > 0
    }
}

fn shown(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn sent(component: Component) -> String {
    match component {
        Component::File(path) => shown(path),
        Component::Stored(digest) => digest.to_string(),
    }
}

impl From<Proposal> for v1::Topology {
    fn from(Proposal { documents, schemas, folders, components, written, prune }: Proposal) -> Self {
        let written = written.into_iter();
        Self {
            prune,
            written: written
                .map(|((subscriber, setting), written)| v1::WrittenSetting { subscriber, setting, written })
                .collect(),
            documents,
            schemas: schemas.into_iter().map(|(path, text)| (shown(path), text)).collect(),
            folders: folders.into_iter().map(shown).collect(),
            // a file means nothing elsewhere, and is refused
            components: components.into_iter().map(|(name, component)| (name, sent(component))).collect(),
        }
    }
}

impl TryFrom<v1::Topology> for Proposal {
    type Error = NotADigest;

    fn try_from(topology: v1::Topology) -> Result<Self, NotADigest> {
        let v1::Topology { documents, schemas, folders, components, written, prune } = topology;
        let written = written.into_iter();
        let stored = |(name, digest): (String, String)| Ok((name, Component::Stored(digest.parse::<Digest>()?)));
        Ok(Self {
            prune,
            written: written
                .map(|v1::WrittenSetting { subscriber, setting, written }| ((subscriber, setting), written))
                .collect(),
            documents,
            schemas: schemas.into_iter().map(|(path, text)| (path.into(), text)).collect(),
            folders: folders.into_iter().map(PathBuf::from).collect(),
            components: components.into_iter().map(stored).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Vec<Garbage>> for v1::CollectGarbageResponse {
    fn from(garbage: Vec<Garbage>) -> Self {
        let subscribers = garbage.iter().filter(|of| of.node == Node::Subscriber).map(|of| of.name.clone()).collect();
        let of = |Garbage { node, name, from, events, handled, bytes, entries, snapshots }: Garbage| {
            let node = kind(node).into();
            v1::Garbage { node, name, from, events, bytes, entries, snapshots, handled }
        };
        let losses = garbage.iter().filter(|of| of.is_loss()).map(ToString::to_string).collect();
        Self { subscribers, losses, garbage: garbage.into_iter().map(of).collect() }
    }
}

impl From<v1::CollectGarbageResponse> for Vec<Garbage> {
    fn from(answer: v1::CollectGarbageResponse) -> Self {
        let of = |garbage: v1::Garbage| {
            let node = node(garbage.node());
            let v1::Garbage { name, from, events, bytes, entries, snapshots, handled, .. } = garbage;
            Garbage { node, name, from, events, handled, bytes, entries, snapshots }
        };
        answer.garbage.into_iter().map(of).collect()
    }
}

impl From<Change> for v1::NodeChange {
    fn from(Change { node, name, renamed_from, what, words }: Change) -> Self {
        let fate = match what {
            ChangeKind::Added => v1::NodeFate::Added,
            ChangeKind::Removed => v1::NodeFate::Removed,
            ChangeKind::Changed => v1::NodeFate::Changed,
            ChangeKind::Moved => v1::NodeFate::Moved,
            ChangeKind::Renamed => v1::NodeFate::Renamed,
        };
        Self { node: kind(node).into(), name, renamed_from, fate: fate.into(), words }
    }
}

impl From<v1::NodeChange> for Change {
    /// What a later release calls otherwise is a change of something.
    fn from(change: v1::NodeChange) -> Self {
        let node = node(change.node());
        let what = match change.fate() {
            v1::NodeFate::Added => ChangeKind::Added,
            v1::NodeFate::Removed => ChangeKind::Removed,
            v1::NodeFate::Moved => ChangeKind::Moved,
            v1::NodeFate::Renamed => ChangeKind::Renamed,
            v1::NodeFate::Changed | v1::NodeFate::Unspecified => ChangeKind::Changed,
        };
        Self { node, name: change.name, renamed_from: change.renamed_from, what, words: change.words }
    }
}

fn kind(node: Node) -> v1::NodeKind {
    match node {
        Node::Topic => v1::NodeKind::Topic,
        Node::Subscriber => v1::NodeKind::Subscriber,
    }
}

fn node(kind: v1::NodeKind) -> Node {
    match kind {
        v1::NodeKind::Topic => Node::Topic,
        v1::NodeKind::Subscriber | v1::NodeKind::Unspecified => Node::Subscriber,
    }
}

/// The planned changes, and the revision of the applied topology.
pub(crate) fn planned(changes: Changes, revision: String) -> v1::PlanTopologyResponse {
    let Changes { changes, refusals, losses, missing, differs } = changes;
    let name = |(node, name)| v1::NodeName { node: kind(node).into(), name };
    v1::PlanTopologyResponse {
        changes: changes.into_iter().map(Into::into).collect(),
        refusals,
        losses,
        missing: missing.into_iter().map(name).collect(),
        revision,
        differs,
    }
}

impl From<v1::PlanTopologyResponse> for Changes {
    fn from(answer: v1::PlanTopologyResponse) -> Self {
        let v1::PlanTopologyResponse { changes, refusals, losses, missing, differs, .. } = answer;
        let missing = missing.into_iter().map(|of| (node(of.node()), of.name)).collect();
        Self { changes: changes.into_iter().map(Into::into).collect(), refusals, losses, missing, differs }
    }
}

/// The applied topology, and its revision.
pub(crate) fn applied((base, revision): (Base, String)) -> v1::GetTopologyResponse {
    let Base { documents, schemas, folders } = base;
    v1::GetTopologyResponse {
        revision,
        documents,
        schemas: schemas.into_iter().map(|(path, text)| (shown(path), text)).collect(),
        folders: folders.into_iter().map(shown).collect(),
    }
}

impl From<v1::GetTopologyResponse> for Base {
    fn from(v1::GetTopologyResponse { documents, schemas, folders, .. }: v1::GetTopologyResponse) -> Self {
        Self {
            documents,
            schemas: schemas.into_iter().map(|(path, text)| (path.into(), text)).collect(),
            folders: folders.into_iter().map(PathBuf::from).collect(),
        }
    }
}
