//! Topologies in the contract's words, and back.

use std::path::PathBuf;

use super::v1;
use crate::deploy::{Garbage, Proposal};
use crate::dispatch::{Change, Changes, Node, What};
use crate::topology::Base;

fn shown(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
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
            components: components.into_iter().map(|(name, path)| (name, shown(path))).collect(),
        }
    }
}

impl From<v1::Topology> for Proposal {
    fn from(v1::Topology { documents, schemas, folders, components, written, prune }: v1::Topology) -> Self {
        let written = written.into_iter();
        Self {
            prune,
            written: written
                .map(|v1::WrittenSetting { subscriber, setting, written }| ((subscriber, setting), written))
                .collect(),
            documents,
            schemas: schemas.into_iter().map(|(path, text)| (path.into(), text)).collect(),
            folders: folders.into_iter().map(PathBuf::from).collect(),
            components: components.into_iter().map(|(name, path)| (name, path.into())).collect(),
        }
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
    fn from(Change { node, name, was, what, words }: Change) -> Self {
        let fate = match what {
            What::Added => v1::NodeFate::Added,
            What::Removed => v1::NodeFate::Removed,
            What::Changed => v1::NodeFate::Changed,
            What::Moved => v1::NodeFate::Moved,
            What::Renamed => v1::NodeFate::Renamed,
        };
        Self { node: kind(node).into(), name, was, fate: fate.into(), words }
    }
}

impl From<v1::NodeChange> for Change {
    /// What a later release calls otherwise is a change of something.
    fn from(change: v1::NodeChange) -> Self {
        let node = node(change.node());
        let what = match change.fate() {
            v1::NodeFate::Added => What::Added,
            v1::NodeFate::Removed => What::Removed,
            v1::NodeFate::Moved => What::Moved,
            v1::NodeFate::Renamed => What::Renamed,
            v1::NodeFate::Changed | v1::NodeFate::Unspecified => What::Changed,
        };
        Self { node, name: change.name, was: change.was, what, words: change.words }
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

/// What would change, and the revision of what is applied.
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

/// What is applied, and its revision.
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
