//! A component beside the version that a subscriber runs: compiled, compared, and forgotten.

use super::{Compile, KeptError, ReloadError, Reloader, source, start};
use crate::dispatch::ControlError;
use crate::dispatch::shadow::{ShadowError, ShadowOptions, ShadowReport};
use crate::engine::Engine;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One of the versions cannot be had.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// They could not be compared.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Runs a component beside the proven version of a subscriber over the last events that it has handled. Both are compiled
    /// anew for it, so that lanes keep their instances. Changes nothing; dropping the future ends it.
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
                let unknown = || ControlError::UnknownSubscriber { subscriber: name.clone(), nearest: None };
                let decided = store.decided(&name).ok_or_else(unknown)?;
                start::kept_spec(&store, &plan, decided, decided.proven)?
            };
            let other = source::spec(&plan, wasm).map_err(ReloadError::Source)?;
            let compiler = &reloader.shared.compiler;
            let other = compiler.compile_beside(other)?;
            let running = compiler.compile_beside(running).map_err(KeptError::Refused)?;
            Ok((running, other))
        });
        let (running, other) = compiled.await?;
        Ok(self.shared.tree.shadow(&subject.name, &running, &other, options).await?)
    }
}
