//! Stored data of removed topics and subscribers, and its deletion.

use std::collections::HashSet;

use tokio::sync::watch;

use crate::api::{Changes, Garbage};
use crate::deploy::compile::Compile;
use crate::deploy::record::applied::{AppliedTopology, RetiredSubscriber};
use crate::deploy::reloader::Reloader;
use crate::deploy::topology::adopt::permit;
use crate::deploy::topology::error::TopologyError;
use crate::dispatch::{RemovedTopic, RetainedData};
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Removed subscribers that are remembered.
    pub fn retired(&self) -> Vec<RetiredSubscriber> {
        self.shown().1.iter().flat_map(|applied| applied.retired.iter().cloned()).collect()
    }

    /// The stored data of removed topics and subscribers. Changes nothing.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub async fn garbage(&self) -> Result<Vec<Garbage>, TopologyError> {
        let _alone = self.shared.applying.lock().await;
        let mut found = self.looked_for_garbage().await?.0;
        // including those whose deletion was interrupted
        let begun: Vec<RetiredSubscriber> =
            self.shown().1.iter().flat_map(|applied| applied.forgetting.clone()).collect();
        found.extend(begun.into_iter().map(|gone| Garbage::subscriber(gone, RetainedData::default())));
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

    /// Deletes the stored data of removed topics and subscribers: events, positions, state and retry queues. Returns
    /// what was deleted.
    ///
    /// # Errors
    /// [`TopologyError`]. If data would be lost without permission, nothing is deleted.
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
        // Decided first: a new item with the name of a partly deleted one begins empty.
        let names = topics.iter().flat_map(|topic| topic.names.clone()).collect();
        self.change_applied(move |applied| applied.forgets(&topics)).await?;
        self.shared.tree.forget_topics(names).await?;
        // including those whose deletion was interrupted before
        let known = found.iter().map(|garbage| garbage.name.clone()).collect::<HashSet<_>>();
        let all = self.forget_all().await?.into_iter().filter(|gone| !known.contains(&gone.name));
        found.extend(all.map(|gone| Garbage::subscriber(gone, RetainedData::default())));
        Ok(found)
    }

    /// Deletes all marked subscribers, including those of an interrupted deletion. An apply waits meanwhile.
    async fn forget_all(&self) -> Result<Vec<RetiredSubscriber>, TopologyError> {
        let all: Vec<RetiredSubscriber> =
            self.shown().1.iter().flat_map(|applied| applied.forgetting.iter().cloned()).collect();
        for gone in &all {
            self.shared.tree.forget(&gone.clone().into()).await?;
        }
        self.change_applied(AppliedTopology::forgot).await?;
        self.shared.forgotten.send_modify(|count| *count += 1);
        Ok(all)
    }

    /// Changes whenever subscribers were deleted, for parts that store data of their own about them.
    pub fn forgotten(&self) -> watch::Receiver<u64> {
        self.shared.forgotten.subscribe()
    }

    /// Whether a subscriber with this full name exists or is remembered.
    pub fn remembers(&self, subscriber: &str) -> bool {
        self.shown().1.as_ref().is_none_or(|applied| applied.remembers(subscriber))
    }

    /// Continues a deletion that was interrupted by the end of the bus.
    pub(crate) fn go_on_forgetting(&self) {
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
        change: impl FnOnce(AppliedTopology) -> AppliedTopology + Send + 'static,
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
}
