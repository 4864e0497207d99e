//! Compares a component with the running version of a subscriber, without deploying it.
//!
//! The comparison runs on a thread of its own with low priority.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api::ShadowReport;
use crate::deploy::compile::Compile;
use crate::deploy::error::{ReloadError, StoredVersionError};
use crate::deploy::reloader::Reloader;
use crate::deploy::versions::{source, start};
use crate::dispatch::NameError;
use crate::dispatch::shadow::{ShadowError, ShadowOptions};
use crate::effects;
use crate::engine::Engine;
use crate::wasm::give_way;

/// Why a comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One of the versions is not available.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// They could not be compared.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// No thread could be started.
    #[error("cannot start a thread to compare on: {0}")]
    Thread(#[from] std::io::Error),
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Runs a component and the stable version of a subscriber over events that it has handled. Both are compiled anew,
    /// so that lanes keep their instances. Changes nothing; dropping the future ends it.
    ///
    /// # Errors
    /// [`CompareError`].
    pub async fn shadow(
        &self,
        subscriber: &str,
        wasm: Vec<u8>,
        options: &ShadowOptions,
    ) -> Result<ShadowReport, CompareError> {
        let (_, subject) = self.subject(subscriber)?;
        let (plan, name) = (subject.plan(), subject.name.clone());
        let compiled = self.blocking(move |reloader| {
            let running = {
                let store = reloader.store();
                let unknown = || NameError::gone(&name);
                let decided = store.decided(&name).ok_or_else(unknown)?;
                start::kept_spec(&store, &plan, decided, decided.proven)?
            };
            let other = source::spec(&plan, wasm).map_err(ReloadError::Source)?;
            let compiler = &reloader.shared.compiler;
            let other = compiler.compile_beside(other)?;
            let running = compiler.compile_beside(running).map_err(StoredVersionError::Refused)?;
            Ok((running, other))
        });
        let (running, other) = compiled.await?;
        let (running_as, options) = (self.running(&subject)?, options.clone());
        let (gone, tracked) = (CancellationToken::new(), self.shared.tasks.token());
        let _goes_with_the_caller = gone.clone().drop_guard();
        let (sender, compared) = oneshot::channel();
        let compare = move || {
            let _tracked = tracked;
            give_way();
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            let compared = gone.run_until_cancelled(running_as.shadow(&running, &other, &options));
            if let Some(compared) = runtime.block_on(compared) {
                let _ = sender.send(compared.map_err(CompareError::from)); // the caller may have gone
            }
        };
        effects::thread("shadow", compare)?;
        compared.await.map_err(|_| ReloadError::Closed)?
    }
}
