//! Benchmarks of whole paths, with yardsticks in the same run.
//!
//! Promises: measurements and yardsticks alternate, so a machine whose speed drifts favours neither; figures are
//! medians over the rounds; everything is real (disk, sandbox, sockets). Must not know: arguments, terminals.

mod groups;
mod handlers;
mod languages;
mod latency;
mod memory;
mod peak;
mod publish;
mod reload;
mod sample;
mod threads;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::ClientError;
use crate::deploy::{BeginError, ReloadError};
use crate::dispatch::StartError;
use crate::effects::{Disk as _, DiskFolder};
use crate::engine::AppendError;
use crate::engine::embedded::EmbeddedError;
use crate::model::call::HandleError;
use crate::server;
use crate::topology::{PathKind, Plan, Source, Surroundings, check};
use crate::wasm::{HostError, Plugin};
pub use handlers::handlers;
pub use languages::{LanguageComponent, LanguageFigures, languages};
pub use latency::{Latency, latency};
pub use memory::{Memory, memory};
pub use peak::{Peak, peak};
pub use publish::{Publish, publish};
pub use reload::{Calls, Reload, Spread, reload};

/// The subject of a benchmark.
pub struct Subject {
    /// The tree, whose root accepts the orders of `topologies/orders.yaml`.
    pub plan: Plan,
    /// The plugin of each subscriber, in the plan's order.
    pub plugins: Vec<Plugin>,
    /// Their components, in the same order.
    pub components: Vec<PathBuf>,
    /// A data folder on the measured file system, emptied before each measurement.
    pub folder: PathBuf,
}

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// I/O errors of the data folder, or a failure to start threads.
    #[error("an error of the disk or the machine: {0}")]
    Io(#[from] io::Error),
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] EmbeddedError),
    /// An error of the tree.
    #[error(transparent)]
    Tree(#[from] StartError),
    /// An error of the service.
    #[error(transparent)]
    Server(#[from] server::StartError),
    /// An error of the client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An error of an in-process publish.
    #[error(transparent)]
    Publish(#[from] crate::dispatch::PublishError),
    /// An error of an in-process append.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// An error of a handler.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// An error of the sandbox.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An error of the first versions.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// An error of a later version.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The bus broke a promise, which makes its figures meaningless.
    #[error("the bus broke a promise: {0}")]
    Broken(String),
    /// The tree is not suitable for the benchmark.
    #[error("this tree cannot be measured: {0}")]
    Unfit(String),
}

/// A measurement and its yardstick, alternating.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The quantity and its unit.
    pub unit: &'static str,
    /// A description of the yardstick.
    pub yardstick_is: &'static str,
    /// The measurement, one figure per round.
    pub ours: Vec<f64>,
    /// The yardstick, one figure per round.
    pub yardstick: Vec<f64>,
}

impl Comparison {
    /// The median of the measurement.
    pub fn ours_median(&self) -> f64 {
        median(&self.ours)
    }

    /// The median of the yardstick.
    pub fn yardstick_median(&self) -> f64 {
        median(&self.yardstick)
    }

    /// The median of the ratios per round.
    pub fn ratio_median(&self) -> f64 {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.yardstick).map(|(ours, other)| ours / other).collect();
        median(&ratios)
    }
}

/// The median; 0 if there are no figures.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// Processor time of the whole process so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn runtime(name: &str) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_name(name).enable_all().build()
}

/// A runtime for a client, as in a program that does little else.
fn client_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("client").enable_all().build()
}

/// A free port on the loopback interface.
fn loopback() -> server::Options {
    server::Options::open((std::net::Ipv4Addr::LOCALHOST, 0).into())
}

/// An environment in which every file exists.
struct AllFilesExist;

impl Surroundings for AllFilesExist {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::File
    }
}

/// Checks a topology text.
fn checked(text: &str) -> Result<Plan, BenchError> {
    let source = Source { path: "bench.yaml".into(), text: text.to_owned() };
    let (plan, diagnostics) = check(&[source], &AllFilesExist);
    plan.ok_or_else(|| BenchError::Unfit(format!("its own tree is refused: {diagnostics:?}")))
}

/// Waits until the disk has everything that was written to a folder's file system, so that writeback of one measurement
/// does not disturb the next.
fn quiet(folder: &Path) -> io::Result<()> {
    DiskFolder::create(folder)?.sync_all()
}

/// An empty subfolder of `folder`.
fn fresh(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let path = folder.join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_round_by_round() {
        let comparison = Comparison {
            unit: "s",
            yardstick_is: "other",
            ours: vec![2.0, 20.0, 6.0],
            yardstick: vec![1.0, 10.0, 2.0],
        };
        assert_eq!(comparison.ratio_median(), 2.0);
        assert_eq!((comparison.ours_median(), comparison.yardstick_median()), (6.0, 2.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
