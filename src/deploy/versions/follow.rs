//! Following the files of the plugins that run, and of those that run later.
//!
//! Promises: a file is proposed when it has changed, and once when its subscriber comes to be followed, since what changed
//! before is not seen as a change. What a topology adds is followed from then on, what it takes out is not any more.
//! Relies on: [`Watch`] for what changes, [`Reloader::propose`] for what becomes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::deploy::compile::Compile;
use crate::deploy::error::{PluginError, ReloadError};
use crate::deploy::record::proposal::Proposal;
use crate::deploy::reloader::Reloader;
use crate::deploy::versions::Policy;
use crate::deploy::watch::{Changed, Watch};
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// The topology that runs, and from then on each that takes its place.
    pub fn topology(&self) -> Receiver<Arc<Proposal>> {
        self.shared.topology.subscribe()
    }

    /// Watches the files of subscribers' plugins, and proposes those that change, for as long as this is polled. What is
    /// wrong with one is logged, and it is looked at again when it changes.
    pub async fn watch(&self, policy: Policy) {
        let mut topology = self.topology();
        let mut files = BTreeMap::new();
        let mut watch = Watch::default();
        loop {
            let now = topology.borrow_and_update().components.clone();
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
                for Changed { path, is_gone } in changed {
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

    /// Proposes a file. Each for itself: what compiles for long holds up no other.
    fn look_at(&self, subscriber: &str, file: &Path, policy: Policy) {
        let (reloader, subscriber, file): (_, _, PathBuf) = (self.clone(), subscriber.to_owned(), file.to_owned());
        self.shared.tasks.spawn_on(
            async move {
                match reloader.propose(&subscriber, &file, policy).await {
                    Ok(_) | Err(ReloadError::Superseded { .. } | ReloadError::Closed) => {}
                    // the start has said so
                    Err(ReloadError::Source(errors)) if errors.iter().all(PluginError::is_gone) => {
                        tracing::debug!(subscriber, "the file of the plugin is not there");
                    }
                    Err(error) => tracing::error!(subscriber, %error, "the version before runs on"),
                }
            },
            &self.shared.runtime,
        );
    }
}
