//! Follows the plugin files of running subscribers, and of subscribers that start later.
//!
//! Promises: a file is proposed when it has changed, and once when its subscriber begins to be followed, because
//! earlier changes are not seen. Subscribers that a topology adds are followed from then on, removed ones no longer. If
//! an uploaded component replaces a file, the next change of that file is proposed.
//! Relies on: [`Watch`] to detect changes, [`Reloader::propose`] to handle them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::api::{Component, Policy, Proposal};
use crate::deploy::compile::Compile;
use crate::deploy::error::{PluginError, ReloadError};
use crate::deploy::reloader::Reloader;
use crate::deploy::watch::{PathChange, Watch};
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Watches the running topology.
    pub fn topology(&self) -> Receiver<Arc<Proposal>> {
        self.shared.topology.subscribe()
    }

    /// Watches the plugin files of subscribers and proposes changed ones, as long as this is polled. Errors are logged;
    /// the file is read again after its next change.
    pub async fn watch(&self, policy: Policy) {
        let mut topology = self.topology();
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut watch = Watch::default();
        loop {
            let file = |(name, component): (&String, &Component)| {
                let file = component.file().map(Path::to_owned).or_else(|| files.get(name).cloned())?;
                Some((name.clone(), file))
            };
            let now: BTreeMap<_, _> = topology.borrow_and_update().components.iter().filter_map(file).collect();
            watch.follow(now.values().cloned());
            for (subscriber, file) in &now {
                if files.get(subscriber) != Some(file) {
                    self.look_at(subscriber, file, policy);
                }
            }
            files = now;
            loop {
                let changed = tokio::select! {
                    changed = watch.changed() => changed,
                    another = topology.changed() => match another {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                };
                for PathChange { path, is_gone } in changed {
                    for (subscriber, file) in files.iter().filter(|(_, file)| **file == path) {
                        match is_gone {
                            true => tracing::warn!(
                                subscriber,
                                file = %file.display(),
                                "the file of the plugin is gone: what it was runs on"
                            ),
                            false => self.look_at(subscriber, file, policy),
                        }
                    }
                }
            }
        }
    }

    /// Proposes a file in a task of its own, so that a long compilation does not delay other files.
    fn look_at(&self, subscriber: &str, file: &Path, policy: Policy) {
        let (reloader, subscriber, file): (_, _, PathBuf) = (self.clone(), subscriber.to_owned(), file.to_owned());
        self.shared.tasks.spawn_on(
            async move {
                match reloader.propose(&subscriber, &file, policy).await {
                    Ok(_) | Err(ReloadError::Superseded { .. } | ReloadError::Closed) => {}
                    // reported at the start
                    Err(ReloadError::Source(errors)) if errors.iter().all(PluginError::is_gone) => {
                        tracing::debug!(subscriber, "the file of the plugin is not there");
                    }
                    Err(error) => tracing::error!(subscriber, %error, "keeping the previous version"),
                }
            },
            &self.shared.runtime,
        );
    }
}
