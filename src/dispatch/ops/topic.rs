//! A topic of the running tree, looked up by its name once.

use std::sync::Arc;

use crate::dispatch::rules::guards::TopicGuard;
use crate::dispatch::rules::names::NameError;
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::running::TreeState;
use crate::engine::Engine;
use crate::model::TopicId;

/// A topic as it runs at its look-up, or the hidden topic of the refused events of one.
pub struct Topic<E> {
    pub(super) tree: Tree<E>,
    pub(super) running: Arc<TreeState>,
    pub(super) guard: Option<TopicGuard>,
    name: String,
    number: TopicId,
    partitions: u32,
}

impl<E: Engine> Tree<E> {
    /// The topic with this full name, or with this short name if it is unique among the namespaces.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn topic(&self, name: &str) -> Result<Topic<E>, NameError> {
        let (targets, running) = (self.publisher().targets(), self.shared.running());
        let target = targets.find(name)?;
        let (name, guard) = (target.name.clone(), target.guard.clone());
        let (number, partitions) = (target.topic, target.partitions);
        Ok(Topic { tree: self.clone(), running, guard, name, number, partitions })
    }
}

impl<E: Engine> Topic<E> {
    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in the engine.
    pub fn number(&self) -> TopicId {
        self.number
    }

    /// Number of its partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }
}
