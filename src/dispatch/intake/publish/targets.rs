//! The topics of a tree as producers see them, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::backlog::Backlog;
use super::PublishError;
use crate::api::Addressed;
use crate::dispatch::rules::guards::TopicGuard;
use crate::dispatch::rules::names::{nearest, shown};
use crate::model::TopicId;
use crate::topology::{DataSchema, KeyExpression};

/// A topic as a producer sees it.
pub struct Target {
    /// Full name (`namespace/name`).
    pub name: String,
    /// Its number.
    pub topic: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
    /// The subscriber that writes to it; `None` for a root.
    pub parent: Option<String>,
    /// The topic that diverts to it, by its full name; `None` for a root.
    pub diverted_from: Option<String>,
    /// Its `key:` expression.
    pub key: Option<KeyExpression>,
    /// Its `id:` expression.
    pub id: Option<KeyExpression>,
    /// What the data of its events has to fit.
    pub schema: Option<DataSchema>,
    /// Events that are published again are recognised, by its `id:` or else by `source` and `id`.
    pub dedupes: bool,
    /// Events that are published again are recognised for as long as their key is known.
    pub per_key: bool,
    /// Its events are dead letters, which have attributes that only the bus gives. From outside they come only in tests.
    pub is_dead_letters: bool,
    /// The topic in which events wait that are to come later.
    pub delayed: Option<TopicId>,
    /// Its guard.
    pub guard: Option<TopicGuard>,
    /// How many events may wait in it.
    pub(crate) backlog: Option<Arc<Backlog>>,
}

impl Target {
    fn expressions(&self) -> impl Iterator<Item = &KeyExpression> {
        let state = self.guard.as_ref().map(|guard| &guard.plan.state);
        self.key.iter().chain(&self.id).chain(state)
    }

    /// Whether looking at one event may take longer than reading it, by what its topic says.
    pub(super) fn takes_long(&self) -> bool {
        self.expressions().any(KeyExpression::takes_long) || self.schema.as_ref().is_some_and(DataSchema::takes_long)
    }

    /// Whether it reads the data of events.
    pub(super) fn reads_data(&self) -> bool {
        self.schema.is_some() || self.expressions().next().is_some()
    }
}

/// The topics by name.
pub struct Targets {
    by_name: BTreeMap<String, Target>,
    /// The full names by the short ones.
    by_short_name: HashMap<String, Vec<String>>,
}

impl Targets {
    /// All topics of a tree.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        let by_name: BTreeMap<_, _> = targets.into_iter().map(|target| (target.name.clone(), target)).collect();
        let mut by_short_name: HashMap<String, Vec<String>> = HashMap::new();
        for full in by_name.keys() {
            if let Some((_, short)) = full.split_once('/') {
                by_short_name.entry(short.to_owned()).or_default().push(full.clone());
            }
        }
        Self { by_name, by_short_name }
    }

    /// A topic by its full name, or by its short one where only one namespace has it.
    ///
    /// # Errors
    /// [`PublishError::UnknownTopic`], [`PublishError::AmbiguousTopic`].
    pub fn find(&self, name: &str) -> Result<&Target, PublishError> {
        if let Some(target) = self.by_name.get(name) {
            return Ok(target);
        }
        let candidates = self.by_short_name.get(name).map(Vec::as_slice).unwrap_or_default();
        if candidates.len() > 1 {
            return Err(PublishError::AmbiguousTopic { topic: name.to_owned(), candidates: candidates.to_vec() });
        }
        candidates.first().and_then(|full| self.by_name.get(full)).ok_or_else(|| {
            let nearest = nearest(self.by_name.keys().map(String::as_str), name);
            PublishError::UnknownTopic { topic: shown(name), nearest }
        })
    }

    /// A topic that takes events from outside.
    ///
    /// # Errors
    /// As [`Self::find`], and [`PublishError::NotARoot`], [`PublishError::Diverted`].
    pub(super) fn root(&self, name: &str) -> Result<&Target, PublishError> {
        let target = self.find(name)?;
        let topic = || target.name.clone();
        match (&target.parent, &target.diverted_from) {
            (Some(parent), _) => Err(PublishError::NotARoot { topic: topic(), parent: parent.clone() }),
            (None, Some(from)) => Err(PublishError::Diverted { topic: topic(), from: from.clone() }),
            (None, None) => Ok(target),
        }
    }

    /// The topics of events.
    pub(super) fn addressed<'a>(
        &'a self,
        events: &'a [Addressed],
    ) -> Result<Vec<(&'a Target, &'a Bytes)>, PublishError> {
        let (mut named, mut before): (BTreeMap<&str, &Target>, _) = (BTreeMap::new(), "");
        let mut addressed: Vec<(&Target, &Bytes)> = Vec::with_capacity(events.len());
        for (index, Addressed { topic, event }) in events.iter().enumerate() {
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
