//! What makes handlers of components.

use crate::model::call::Handler;
use crate::wasm::{Host, Plugin, PluginSpec, RegisterError};

/// What makes handlers of components: the sandbox, or in tests something quicker.
pub trait Compile: Clone + Send + Sync + 'static {
    /// What it makes.
    type Handler: Handler;

    /// Compiles and checks a component, as quickly as it can. Blocks.
    ///
    /// # Errors
    /// When it does not fit.
    fn compile(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;

    /// The same beside handlers that run, which it gives way to.
    ///
    /// # Errors
    /// When it does not fit.
    fn compile_beside(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;
}

impl Compile for Host {
    type Handler = Plugin;

    fn compile(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register(spec)
    }

    fn compile_beside(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register_beside(spec)
    }
}
