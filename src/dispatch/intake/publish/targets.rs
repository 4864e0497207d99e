//! The topics of a tree as producers see them, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::backlog::Backlog;
use super::PublishError;
use crate::api::AddressedEvent;
use crate::dispatch::rules::guards::TopicGuard;
use crate::dispatch::rules::names::{NameError, NameKind};
use crate::model::TopicId;
use crate::topology::{DataSchema, KeyExpression};

/// A topic as a producer sees it.
pub struct PublishTarget {
    /// Full name (`namespace/name`).
    pub name: String,
    /// Number of the snapshot.
    pub topic: TopicId,
    /// Number of partitions.
    pub partitions: u32,
    /// The subscriber that writes to it; `None` for a root.
    pub parent: Option<String>,
    /// Full name of the topic that diverts to it; `None` for a root.
    pub diverted_from: Option<String>,
    /// Its `key:` expression.
    pub key: Option<KeyExpression>,
    /// Its `id:` expression.
    pub id: Option<KeyExpression>,
    /// Schema of its events' data.
    pub schema: Option<DataSchema>,
    /// Whether it detects duplicates, by its `id:` or else by `source` and `id`.
    pub dedupes: bool,
    /// Whether it detects duplicates for as long as their key is known.
    pub per_key: bool,
    /// Whether its events are dead letters, which have attributes that only the bus sets. They come from outside only
    /// in tests.
    pub is_dead_letters: bool,
    /// The hidden topic of delayed events.
    pub delayed: Option<TopicId>,
    pub guard: Option<TopicGuard>,
    /// Its backlog limit.
    pub(crate) backlog: Option<Arc<Backlog>>,
    /// Only the bus writes to it; it is found by its full name only.
    pub is_internal: bool,
}

impl PublishTarget {
    fn expressions(&self) -> impl Iterator<Item = &KeyExpression> {
        let state = self.guard.as_ref().map(|guard| &guard.plan.state);
        self.key.iter().chain(&self.id).chain(state)
    }

    /// Whether an expression or the schema of the topic may need much longer per event than parsing it.
    pub(super) fn takes_long(&self) -> bool {
        self.expressions().any(KeyExpression::takes_long) || self.schema.as_ref().is_some_and(DataSchema::takes_long)
    }

    /// Whether checking an event reads its data.
    pub(super) fn reads_data(&self) -> bool {
        self.schema.is_some() || self.expressions().next().is_some()
    }
}

/// The topics by name.
pub struct Targets {
    by_name: BTreeMap<String, PublishTarget>,
    /// Full names by short name.
    by_short_name: HashMap<String, Vec<String>>,
}

impl Targets {
    /// All topics of a tree.
    pub fn new(targets: impl IntoIterator<Item = PublishTarget>) -> Self {
        let by_name: BTreeMap<_, _> = targets.into_iter().map(|target| (target.name.clone(), target)).collect();
        let mut by_short_name: HashMap<String, Vec<String>> = HashMap::new();
        for full in by_name.values().filter(|target| !target.is_internal).map(|target| &target.name) {
            if let Some((_, short)) = full.split_once('/') {
                by_short_name.entry(short.to_owned()).or_default().push(full.clone());
            }
        }
        Self { by_name, by_short_name }
    }

    /// Finds a topic by its full name, or by a short name that is unique among the namespaces.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn find(&self, name: &str) -> Result<&PublishTarget, NameError> {
        if let Some(target) = self.by_name.get(name) {
            return Ok(target);
        }
        let candidates = self.by_short_name.get(name).map(Vec::as_slice).unwrap_or_default();
        if candidates.len() > 1 {
            let (kind, name, candidates) = (NameKind::Topic, name.to_owned(), candidates.to_vec());
            return Err(NameError::Ambiguous { kind, name, candidates });
        }
        let found = candidates.first().and_then(|full| self.by_name.get(full));
        let names = || self.by_name.values().filter(|target| !target.is_internal).map(|target| target.name.as_str());
        found.ok_or_else(|| NameError::unknown(NameKind::Topic, name, names()))
    }

    /// Finds a topic that accepts events from outside.
    ///
    /// # Errors
    /// Like [`Self::find`], and [`PublishError::NotARoot`], [`PublishError::Diverted`].
    pub(super) fn root(&self, name: &str) -> Result<&PublishTarget, PublishError> {
        let target = self.find(name)?;
        let topic = || target.name.clone();
        if target.is_internal {
            return Err(PublishError::Internal { topic: topic() });
        }
        match (&target.parent, &target.diverted_from) {
            (Some(parent), _) => Err(PublishError::NotARoot { topic: topic(), parent: parent.clone() }),
            (None, Some(from)) => Err(PublishError::Diverted { topic: topic(), from: from.clone() }),
            (None, None) => Ok(target),
        }
    }

    /// The topics of addressed events.
    pub(super) fn addressed<'a>(
        &'a self,
        events: &'a [AddressedEvent],
    ) -> Result<Vec<(&'a PublishTarget, &'a Bytes)>, PublishError> {
        let (mut named, mut before): (BTreeMap<&str, &PublishTarget>, _) = (BTreeMap::new(), "");
        let mut addressed: Vec<(&PublishTarget, &Bytes)> = Vec::with_capacity(events.len());
        for (index, AddressedEvent { topic, event }) in events.iter().enumerate() {
            before = if topic.is_empty() { before } else { topic };
            let target = match named.get(before) {
                Some(target) => target,
                None => self.root(before).map_err(|error| PublishError::Addressed { index, error: Box::new(error) })?,
            };
            named.insert(before, target);
            addressed.push((target, event));
        }
        Ok(addressed)
    }
}
