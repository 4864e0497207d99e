//! Uploads of the components that a proposal names by their files here, so that a bus on another machine has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Exit, Failure};
use crate::api::{Changes, Component, Digest, Proposal};
use crate::client::Client;
use crate::deploy::{self, PluginError};

/// The files of uploaded components, which the bus does not know.
#[derive(Debug, Default)]
pub(super) struct UploadedFiles(BTreeMap<Digest, PathBuf>);

impl UploadedFiles {
    /// A message of the bus, with the file instead of its component.
    fn with_files(&self, message: &str) -> String {
        let with = |message: String, (component, file): (&Digest, &PathBuf)| {
            let uploaded = format!("plugin {}", Component::Stored(*component));
            message.replace(&uploaded, &format!("plugin {}", file.display()))
        };
        self.0.iter().fold(message.to_owned(), with)
    }

    pub(super) fn changes(&self, mut changes: Changes) -> Changes {
        changes.refusals.iter_mut().for_each(|refusal| *refusal = self.with_files(refusal));
        changes
    }

    pub(super) fn failure(&self, failure: Failure) -> Failure {
        Failure { message: self.with_files(&failure.message), ..failure }
    }
}

/// Uploads what the bus does not have, and addresses all components of the proposal by their digests.
pub(super) async fn upload(client: &Client, proposal: &mut Proposal) -> Result<UploadedFiles, Failure> {
    let (mut files, mut subscribers) = (BTreeMap::new(), BTreeMap::new());
    let mut digests: BTreeMap<PathBuf, Digest> = BTreeMap::new();
    for (subscriber, component) in &mut proposal.components {
        let Some(file) = component.file().map(Path::to_owned) else { continue };
        let digest = match digests.get(&file) {
            Some(digest) => *digest,
            None => Digest::of(&read(subscriber, &file)?),
        };
        digests.insert(file.clone(), digest);
        files.insert(digest, file);
        subscribers.insert(digest, subscriber.clone());
        *component = digest.into();
    }
    let known: Vec<Digest> = files.keys().copied().collect();
    if known.is_empty() {
        return Ok(UploadedFiles::default());
    }
    for component in client.missing_components(&known).await? {
        let Some((file, subscriber)) = files.get(&component).zip(subscribers.get(&component)) else { continue };
        // Read again, one at a time, because all of them may be large. A file that changed meanwhile is refused.
        client.upload(component, read(subscriber, file)?.into()).await?;
    }
    Ok(UploadedFiles(files))
}

fn read(subscriber: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    deploy::read(subscriber, file).map_err(|error: PluginError| Failure::new(Exit::BadConfiguration, error))
}
