//! Deployment: the applied topology and the version of each subscriber's plugin, both of which can change while the bus
//! runs.
//!
//! ```floors
//! topology
//! versions
//! reloader
//! error compile
//! record secrets watch
//! ```
//!
//! | room | content |
//! |---|---|
//! | `topology` | plans and applies topologies, at a start and live; deletes data of removed topics and subscribers |
//! | `versions` | deploys, tries, promotes, rolls back, pins and compares versions of a plugin |
//! | `reloader` | the handle of both: shared state, and locks per subscriber |
//! | `record` | durable decisions: components by digest, versions, the applied topology, values of variables |
//!
//! Promises: a component that does not compile or does not match changes nothing. A decision is durable before it takes
//! effect, so that after a crash at any moment the next start runs what was decided. Files propose each change once: a
//! version that was rolled back is not tried again until the file or the settings change. Deploying the running version
//! does nothing. Before the first call of a new version, a snapshot of the subscriber's state is taken; a failed or
//! slow snapshot is reported, and the version runs nevertheless.
//!
//! Relies on: [`crate::dispatch::Tree`], which changes versions between two calls and topologies between two batches.
//!
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
pub use error::{PluginError, ReloadError, StoredVersionError};
pub use record::applied::RetiredSubscriber;
pub use record::error::StoreError;
pub use record::files::Files;
pub use record::inspect::StoreInspection;
pub use record::proposal::{ProposalError, rooted};
pub use record::store::Store;
pub use reloader::Reloader;
pub use secrets::SecretFolders;
pub use topology::adopt::{StartTopology, adopt, instead};
pub use topology::error::TopologyError;
pub use versions::shadow::CompareError;
pub use versions::source::{described_ports, misfits, read, register, version};
pub use versions::start::{BeginError, Progress, Replacement, StartedVersions, begin, begin_with, while_telling};
pub use versions::unavailable::{Loadable, UnavailableVersion};
pub use watch::{PathChange, Watch, is_no_source, is_output, sources};
