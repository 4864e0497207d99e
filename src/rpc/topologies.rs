//! Topologies in the contract's words, and back.

use std::path::PathBuf;

use super::v1;
use crate::dispatch::{Change, Changes, Node, What};
use crate::reload::Proposal;

fn shown(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

impl From<Proposal> for v1::Topology {
    fn from(Proposal { documents, schemas, folders, components, written }: Proposal) -> Self {
        let written = written.into_iter();
        Self {
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
    fn from(v1::Topology { documents, schemas, folders, components, written }: v1::Topology) -> Self {
        let written = written.into_iter();
        Self {
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

impl From<Change> for v1::NodeChange {
    fn from(Change { node, name, was, what, words }: Change) -> Self {
        let node = match node {
            Node::Topic => v1::NodeKind::Topic,
            Node::Subscriber => v1::NodeKind::Subscriber,
        };
        let fate = match what {
            What::Added => v1::NodeFate::Added,
            What::Removed => v1::NodeFate::Removed,
            What::Changed => v1::NodeFate::Changed,
            What::Moved => v1::NodeFate::Moved,
            What::Renamed => v1::NodeFate::Renamed,
        };
        Self { node: node.into(), name, was, fate: fate.into(), words }
    }
}

impl From<v1::NodeChange> for Change {
    /// What a later release calls otherwise is a change of something.
    fn from(change: v1::NodeChange) -> Self {
        let node = match change.node() {
            v1::NodeKind::Topic => Node::Topic,
            v1::NodeKind::Subscriber | v1::NodeKind::Unspecified => Node::Subscriber,
        };
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

impl From<Changes> for v1::PlanTopologyResponse {
    fn from(Changes { changes, refusals, losses }: Changes) -> Self {
        Self { changes: changes.into_iter().map(Into::into).collect(), refusals, losses }
    }
}

impl From<v1::PlanTopologyResponse> for Changes {
    fn from(v1::PlanTopologyResponse { changes, refusals, losses }: v1::PlanTopologyResponse) -> Self {
        Self { changes: changes.into_iter().map(Into::into).collect(), refusals, losses }
    }
}
