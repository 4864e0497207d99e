//! Stores components of versions before the decision about them.

use crate::api::Digest;
use crate::deploy::compile::Compile;
use crate::deploy::record::error::StoreError;
use crate::deploy::reloader::Reloader;
use crate::deploy::versions::start;
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Stores the components of changes durably: all or none. Blocks; the store is usable meanwhile.
    pub(crate) fn keep(&self, changes: &[(String, start::Change)]) -> Result<(), StoreError> {
        for (at, (component, wasm)) in start::components(changes).enumerate() {
            if let Err(error) = self.keep_one(component, wasm) {
                start::components(changes).take(at).for_each(|(component, _)| self.store().release(component));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The changes will not be decided.
    pub(crate) fn release(&self, changes: &[(String, start::Change)]) {
        start::components(changes).for_each(|(component, _)| self.store().release(component));
    }

    pub(super) fn keep_one(&self, component: Digest, wasm: &[u8]) -> Result<(), StoreError> {
        let shelf = self.store().announce(component)?;
        let put = shelf.put(component, wasm);
        self.store().kept(component, put)
    }
}
