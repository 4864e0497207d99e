//! Hot reload: another version of a plugin takes the place of the one that runs, and goes again where it is worse.
//!
//! ```text
//!   file, command ──> turn ──> compile beside ──> snapshot ──> keep ──> decide ──> number ──> lanes, on trial ──> judge
//!                      │          │ refused        of state     durable, in this order                            │
//!                      │          └─> the old one serves                               proven, or taken back <────┘
//!                      └─ one at a time for each subscriber, one waits, the newest
//! ```
//!
//! Promises: what does not compile or does not fit changes nothing. A version is kept and decided on, durably, before any
//! lane calls it; after a crash at any moment what runs is what was decided. A file proposes a component once, and a topology its
//! settings: what was taken back is not tried again until one of them changes, and settings are for the component that was
//! decided on. A version runs with the secrets of the day. Reloading what runs already does nothing. A new version, also one that a topology brings, calls for a
//! snapshot of the subscriber's state, where that has any, before its first call; one that fails or takes long is told of and
//! holds nothing up. Going back to a version that is kept takes none.
//! Relies on: [`crate::dispatch::Tree`] for the change between two calls and for the comparison, [`Store`] for what is durable.
//! Must not know: gRPC, the command line, how a component is built.

mod adopt;
mod applied;
mod error;
mod follow;
mod garbage;
mod judge;
mod proposal;
mod queue;
mod record;
mod reloader;
mod revision;
mod secrets;
mod shadow;
mod snapshot;
mod source;
mod start;
mod store;
mod topology;
mod values;
mod watch;

use std::path::Path;
use std::time::Duration;

use crate::dispatch::{OnTrial, Terms};
use crate::model::call::Handler;
use crate::topology::TrialPlan;
use crate::wasm::{Digest, Host, Plugin, PluginSpec, RegisterError};
pub use adopt::{Instead, adopt, instead};
pub use applied::{Files, Retired};
pub use error::{KeptError, ReloadError};
pub use garbage::Garbage;
pub use proposal::{Proposal, rooted};
pub use reloader::Reloader;
pub use secrets::SecretFolders;
pub use shadow::CompareError;
pub use snapshot::Replaced;
pub use source::{PluginError, described_ports, misfits, register, version};
pub use start::{BeginError, Begun, Progress, begin, begin_with};
pub use store::{Store, StoreError};
pub use topology::TopologyError;
pub use watch::{Changed, Watch, sources};

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

/// How a version is tried, in all lanes or in some, of which the trial began so long ago.
fn terms(TrialPlan { events, time, at_most }: TrialPlan, lanes: Option<u32>, passed: Duration) -> Terms {
    Terms { events, lanes, time, at_most, passed }
}

/// How a version takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All lanes call it, on trial.
    Swap,
    /// So many lanes of a hundred call it first, on trial, then all.
    Canary {
        /// How many of a hundred, rounded up.
        percent: u32,
    },
    /// All lanes call it, and it is not compared: for a version that is meant to refuse what the one before took.
    Replace,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on trial.
    Tried,
    /// It runs.
    Runs,
    /// It ran already.
    Unchanged,
    /// It was on trial already.
    OnTrial,
    /// It comes from a file that is as it was when it was decided about it, or its subscriber is pinned.
    Ignored,
}

/// A version that was asked for, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The version.
    pub version: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// What is to be known about it, in words.
    pub notice: Option<String>,
}

/// What became of a subscriber that is no longer pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// The version that is tried from now on, since its file or the topology has changed meanwhile.
    pub tries: Option<Digest>,
    /// Why what they say is not tried, in words.
    pub refused: Option<String>,
}

/// The versions of a subscriber, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The version that is proven.
    pub proven: Digest,
    /// The one on trial.
    pub tried: Option<Digest>,
    /// Nothing takes the place of the proven one.
    pub is_pinned: bool,
    /// How many versions are kept.
    pub kept: u64,
}

/// What a version is to its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is proven, and runs.
    Proven,
    /// It is on trial.
    Tried,
    /// It was taken back.
    TakenBack,
    /// It is kept.
    Kept,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// The version.
    pub version: Digest,
    /// The hash of its component.
    pub wasm: Digest,
    /// What it is to its subscriber.
    pub standing: Standing,
    /// `rollback` goes back to it.
    pub is_next_back: bool,
    /// Where it came from, in words.
    pub cause: String,
    /// When it was decided on last, Unix nanoseconds.
    pub decided_ns: u64,
    /// Why it was taken back, where it was.
    pub taken_back: Option<String>,
    /// How its trial goes, where lanes try it.
    pub trial: Option<OnTrial>,
}

/// Of a version that says nothing of outputs in place of one that does, which may be a mistake; none where the topology connects
/// nothing.
fn declares_no_outputs(version: Digest, ports: &[String]) -> Option<String> {
    let connected =
        || format!("{} declares no outputs; the topology connects `{}`", version.short(), ports.join("`, `"));
    (!ports.is_empty()).then(connected)
}

/// Where a version came from whose component is that of another one, in words.
const OTHER_SETTINGS: &str = "other settings in the topology";

/// Where a version from a file came from, in words.
fn cause_of_file(path: &Path) -> String {
    format!("file {}", path.display())
}
