//! What makes handlers of components.

use crate::api::Digest;
use crate::model::call::Handler;
use crate::wasm::{Host, Plugin, PluginSpec, RegisterError, declared_state_version};

/// Makes handlers from components: the sandbox, or a fast replacement in tests.
pub trait Compile: Clone + Send + Sync + 'static {
    type Handler: Handler;

    /// Compiles and checks a component as fast as possible. Blocks.
    ///
    /// # Errors
    /// The component is refused.
    fn compile(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;

    /// The same in the background, with priority for running handlers.
    ///
    /// # Errors
    /// The component is refused.
    fn compile_beside(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;

    /// Whether a component was compiled before, so that [`Self::compile`] only loads it.
    fn is_compiled(&self, component: &Digest) -> bool;

    /// The version of the state that a component declares, without compiling it. `None` if it cannot be read.
    fn state_version(&self, wasm: &[u8]) -> Option<u32>;
}

impl Compile for Host {
    type Handler = Plugin;

    fn compile(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register(spec)
    }

    fn compile_beside(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register_beside(spec)
    }

    fn is_compiled(&self, component: &Digest) -> bool {
        self.has_code_of(component)
    }

    fn state_version(&self, wasm: &[u8]) -> Option<u32> {
        declared_state_version(wasm)
    }
}
