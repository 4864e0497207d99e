//! Keeps the place of a decided version that cannot be loaded when a bus starts, or that is still being compiled.
//!
//! Promises: only the lanes of its subscriber halt or wait, at their positions, and the status gives the reason. Relies
//! on: the lanes, which call no handler that is unavailable, and wait for another one.

use std::sync::Arc;

use crate::api::Digest;
use crate::deploy::compile::Compile;
use crate::deploy::error::StoredVersionError;
use crate::deploy::record::decided::{Candidate, Decisions};
use crate::deploy::record::error::StoreError;
use crate::model::call::{Batch, HandleError, Handled, Handler, InstanceError, PluginSettings};

/// A version, or what stands for one that cannot be loaded.
#[derive(Debug, Clone)]
pub enum Loadable<H> {
    Version(H),
    Unavailable(UnavailableVersion),
}

/// A decided version that cannot be loaded now.
#[derive(Debug, Clone)]
pub struct UnavailableVersion {
    pub(crate) subscriber: String,
    pub(crate) version: Digest,
    pub(crate) component: Digest,
    /// Why it cannot be loaded, and how to repair that.
    pub(crate) reason: Arc<str>,
    /// It can be called as soon as it has been compiled.
    pub(crate) is_compiling: bool,
}

impl UnavailableVersion {
    /// A version that is being compiled.
    pub(super) fn compiling(subscriber: String, version: Digest, component: Digest) -> Self {
        let reason = format!("version {} is being compiled", version.short());
        Self { subscriber, version, component, reason: reason.into(), is_compiling: true }
    }

    /// A version that cannot be loaded.
    pub(super) fn halted(subscriber: String, version: Digest, component: Digest, error: &StoredVersionError) -> Self {
        tracing::error!(subscriber, digest = version.short(), %error, "halted: the deployed version cannot run");
        let reason = format!(
            "halted, because the deployed version {} cannot run: {error}. Repair it, then `wattle apply` the topology \
             again, or restart the bus",
            version.short()
        );
        Self { subscriber, version, component, reason: reason.into(), is_compiling: false }
    }
}

/// The decided versions of a subscriber, as far as they could be loaded.
pub(super) struct LoadedVersions<H> {
    pub(super) proven: Result<H, StoredVersionError>,
    pub(super) tried: Option<(Candidate, Result<H, StoredVersionError>)>,
}

impl<H: Handler> LoadedVersions<H> {
    /// The same without a stable version that would be called with the state of a candidate that cannot run, if that
    /// state has another version. `component` gives the bytes of a component by its digest.
    pub(super) fn checked(
        self,
        compiler: &impl Compile,
        decided: &Decisions,
        component: impl FnOnce(Digest) -> Result<Vec<u8>, StoreError>,
    ) -> Self {
        let (Ok(handler), Some((tried, Err(error)))) = (&self.proven, &self.tried) else { return self };
        // Where its component is lost, nothing says that the state is another one.
        let wasm = decided.find(tried.version).and_then(|kept| component(kept.wasm).ok());
        let state_version = wasm.and_then(|wasm| compiler.state_version(&wasm));
        if state_version.is_none_or(|version| version == handler.state_version()) {
            return self;
        }
        let error = StoredVersionError::StateOfCandidate { candidate: tried.version, why: error.to_string() };
        Self { proven: Err(error), ..self }
    }
}

impl<H: Handler> Handler for Loadable<H> {
    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Version(handler) => handler.digest(),
            Self::Unavailable(version) => *version.version.as_bytes(),
        }
    }

    fn wasm_digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Version(handler) => handler.wasm_digest(),
            Self::Unavailable(version) => Some(*version.component.as_bytes()),
        }
    }

    fn settings(&self) -> Arc<PluginSettings> {
        match self {
            Self::Version(handler) => handler.settings(),
            Self::Unavailable(_) => Arc::default(),
        }
    }

    fn declares_ports(&self) -> bool {
        match self {
            Self::Version(handler) => handler.declares_ports(),
            Self::Unavailable(_) => true,
        }
    }

    fn state_version(&self) -> u32 {
        match self {
            Self::Version(handler) => handler.state_version(),
            Self::Unavailable(_) => 0,
        }
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        match self {
            Self::Version(handler) => handler.memory_peak_bytes(),
            Self::Unavailable(_) => None,
        }
    }

    fn unavailable(&self) -> Option<&str> {
        match self {
            Self::Version(handler) => handler.unavailable(),
            Self::Unavailable(version) => Some(&version.reason),
        }
    }

    fn is_compiling(&self) -> bool {
        match self {
            Self::Version(handler) => handler.is_compiling(),
            Self::Unavailable(version) => version.is_compiling,
        }
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        match self {
            Self::Version(handler) => handler.handle(batch).await,
            Self::Unavailable(UnavailableVersion { subscriber, reason, .. }) => {
                let (subscriber, message) = (subscriber.clone(), reason.to_string());
                Err(InstanceError::Start { subscriber, message }.into())
            }
        }
    }
}
