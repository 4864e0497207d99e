//! Components that callers upload before they deploy or apply them.
//!
//! Promises: a component is stored only if its digest is the announced one; it is durable before its upload is
//! answered; if no deploy or apply uses it, it is removed after a time. Relies on: `record` for bounds. Must not know:
//! how bytes come in.

use std::time::Duration;

use crate::api::{Deployment, Digest, Policy};
use crate::deploy::compile::Compile;
use crate::deploy::error::{ReloadError, StoredVersionError};
use crate::deploy::record::error::StoreError;
use crate::deploy::reloader::Reloader;
use crate::engine::Engine;

/// How often expired uploads are removed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// The components that are not stored here. Stored uploads stay for longer.
    ///
    /// # Errors
    /// [`ReloadError::Closed`].
    pub async fn missing_components(&self, components: Vec<Digest>) -> Result<Vec<Digest>, ReloadError> {
        self.blocking(move |reloader| Ok(reloader.store().missing(&components, reloader.trusted_now_ns()))).await
    }

    /// Whether an upload of this size is needed and would be accepted. False if it was uploaded before.
    ///
    /// # Errors
    /// [`ReloadError::Store`] if there is no room for it.
    pub async fn needs_upload(&self, component: Digest, bytes: u64) -> Result<bool, ReloadError> {
        self.blocking(move |reloader| {
            let is_needed = reloader.store().needs_upload(component, bytes, reloader.trusted_now_ns())?;
            if is_needed && !reloader.shared.tree.engine().storage().takes_events {
                return Err(StoreError::NoRoom.into());
            }
            Ok(is_needed)
        })
        .await
    }

    /// Stores a component durably, for a time, until a deploy or an apply uses it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing is stored.
    pub async fn upload(&self, component: Digest, wasm: Vec<u8>) -> Result<(), ReloadError> {
        match self.needs_upload(component, wasm.len() as u64).await? {
            true => self.blocking(move |reloader| reloader.uploaded(component, &wasm)).await,
            false => Ok(()),
        }
    }

    fn uploaded(&self, component: Digest, wasm: &[u8]) -> Result<(), ReloadError> {
        let is = Digest::of(wasm);
        if is != component {
            return Err(ReloadError::OtherDigest { component, is });
        }
        let bytes = wasm.len() as u64;
        let Some(shelf) = self.store().begin_upload(component, bytes, self.trusted_now_ns())? else { return Ok(()) };
        let put = shelf.put(component, wasm);
        let ended = self.store().end_upload(component, bytes, (put, self.trusted_now_ns()));
        ended.map_err(|error| if error.is_for_room() { StoreError::NoRoom } else { error })?;
        self.watch_uploads();
        Ok(())
    }

    /// As [`Self::deploy`], with a component that was uploaded or is stored, and provided that the last decided
    /// version, candidate or stable, begins with `expected`.
    ///
    /// # Errors
    /// [`ReloadError`]: [`ReloadError::NotUploaded`] if it is missing, [`ReloadError::Moved`] if it is another version.
    pub async fn deploy_uploaded(
        &self,
        subscriber: &str,
        component: Digest,
        (policy, cause): (Policy, &str),
        expected: Option<String>,
    ) -> Result<Deployment, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, cause) = (self.clone(), cause.to_owned());
        self.whole(async move {
            reloader.hold(vec![component]).await?;
            let read = move |reloader: &Self| {
                let shelf = reloader.store().shelf();
                shelf.get(component).map_err(|error| StoredVersionError::Store(error).into())
            };
            let reloaded = reloader.deployed(index, read, (policy, cause), expected).await;
            reloader.let_go(vec![component], reloaded.is_ok()).await;
            reloaded
        })
        .await
    }

    /// Keeps components until [`Self::let_go`].
    pub(crate) async fn hold(&self, components: Vec<Digest>) -> Result<(), ReloadError> {
        self.blocking(move |reloader| {
            let held = reloader.store().hold(&components, reloader.trusted_now_ns());
            held.map_err(|components| ReloadError::NotUploaded { components })
        })
        .await
    }

    pub(crate) async fn let_go(&self, components: Vec<Digest>, are_used: bool) {
        let work = move |reloader: &Self| {
            reloader.store().let_go(&components, are_used);
            Ok(())
        };
        let _ = self.blocking(work).await; // fails only while the process ends, and a start removes what is left
    }

    /// The length of a stored component in bytes.
    ///
    /// # Errors
    /// [`ReloadError::NotUploaded`].
    pub async fn component_bytes(&self, component: Digest) -> Result<u64, ReloadError> {
        self.blocking(move |reloader| {
            let shelf = reloader.store().shelf();
            shelf.length(component).map_err(|_| ReloadError::NotUploaded { components: vec![component] })
        })
        .await
    }

    pub(crate) fn trusted_now_ns(&self) -> u64 {
        self.shared.tree.engine().trusted_now_ns()
    }

    /// Removes expired uploads from time to time, as long as there are any.
    fn watch_uploads(&self) {
        if std::mem::replace(&mut self.store().uploads.is_watched, true) {
            return;
        }
        let (reloader, closing) = (self.clone(), self.shared.closing.clone());
        let watching = async move {
            loop {
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let expired = reloader.blocking(|reloader| {
                    let mut store = reloader.store();
                    store.uploads.is_watched = store.expire_uploads(reloader.trusted_now_ns());
                    Ok(store.uploads.is_watched)
                });
                if !matches!(expired.await, Ok(true)) {
                    return;
                }
            }
        };
        self.shared.tasks.spawn_on(watching, &self.shared.runtime);
    }
}
