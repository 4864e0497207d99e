//! What runs: the topology that is applied, and the version of each subscriber's plugin, changed while the bus runs.
//!
//! ```floors
//! topology
//! versions
//! reloader
//! error compile
//! record secrets watch
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | `topology` | a topology is planned and applied, at a start and live; what is left of removed topics and subscribers is collected |
//! | `versions` | a version of a plugin is deployed, tried, proven or rolled back, pinned, compared with another |
//! | `reloader` | the handle of both: what they share, and whose turn it is |
//! | `record` | what was decided, durable: components by hash, versions, the applied topology, values of variables |
//!
//! Promises: what does not compile or does not fit changes nothing. What is decided is durable before anything runs by it, so that
//! after a crash at any moment the next start runs what was decided. Files propose something once: what was rolled back is not
//! tried again until the file or the settings change. Deploying the version that runs does nothing. Before a new version is
//! called for the first time, a snapshot of the subscriber's state is taken; where that fails or takes long, the version runs
//! all the same, and says so.
//! Relies on: [`crate::dispatch::Tree`], which changes versions between two calls and topologies between two batches.
//! Must not know: gRPC, the command line, how a component is built.

mod compile;
mod error;
mod record;
mod reloader;
mod secrets;
mod topology;
mod versions;
mod watch;

pub use compile::Compile;
pub use error::{KeptError, PluginError, ReloadError};
pub use record::applied::Retired;
pub use record::error::StoreError;
pub use record::files::Files;
pub use record::proposal::{Proposal, ProposalError, rooted};
pub use record::store::Store;
pub use reloader::Reloader;
pub use secrets::SecretFolders;
pub use topology::adopt::{Instead, adopt, instead};
pub use topology::error::TopologyError;
pub use topology::garbage::Garbage;
pub use versions::shadow::CompareError;
pub use versions::source::{described_ports, misfits, register, version};
pub use versions::start::{BeginError, Begun, Progress, Replaced, begin, begin_with};
pub use versions::{KeptVersion, Outcome, Policy, Reloaded, Standing, Summary, Unpinned};
pub use watch::{Changed, Watch, sources};
