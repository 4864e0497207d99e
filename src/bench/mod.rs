//! Whole paths, measured against yardsticks in the same run.
//!
//! Promises: what is measured and its yardstick take turns, so a machine whose speed drifts is unfair to neither; figures
//! are medians over the rounds; nothing is measured that the bus does not do in earnest (real disk, real sandbox, real
//! sockets).
//! Must not know: arguments, terminals.

mod groups;
mod handlers;
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
use crate::engine::AppendError;
use crate::engine::embedded::EmbeddedError;
use crate::model::call::HandleError;
use crate::server;
use crate::topology::{Found, Plan, Source, Surroundings, check};
use crate::wasm::{HostError, Plugin};
pub use handlers::handlers;
pub use latency::{Latency, latency};
pub use memory::{Memory, memory};
pub use peak::{Peak, peak};
pub use publish::{Publish, publish};
pub use reload::{Calls, Reload, Spread, reload};

/// What is measured.
pub struct Subject {
    /// The tree, whose root takes orders as `topologies/orders.yaml` has them.
    pub plan: Plan,
    /// The plugin of each subscriber, in the plan's order.
    pub plugins: Vec<Plugin>,
    /// Their components, in the same order.
    pub components: Vec<PathBuf>,
    /// A folder for data, emptied before each measurement; its file system is the one that is measured.
    pub folder: PathBuf,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The folder for data, or threads.
    #[error("the disk or the machine refuses: {0}")]
    Io(#[from] io::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EmbeddedError),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] StartError),
    /// The service.
    #[error(transparent)]
    Server(#[from] server::StartError),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Publishing in process.
    #[error(transparent)]
    Publish(#[from] crate::dispatch::PublishError),
    /// Appending in process.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A handler.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// The sandbox.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The versions to start with.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// Another version.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The bus did not keep what it promises, so that its figures count for nothing.
    #[error("the bus did not do what it promises: {0}")]
    Broken(String),
    /// The tree does not do what the benchmark needs.
    #[error("this tree cannot be measured: {0}")]
    Unfit(String),
}

/// A figure and its yardstick, measured in turns.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What the figures are, with their unit.
    pub unit: &'static str,
    /// What the yardstick is.
    pub yardstick_is: &'static str,
    /// Ours, one figure a round.
    pub ours: Vec<f64>,
    /// The yardstick's, one figure a round.
    pub yardstick: Vec<f64>,
}

impl Comparison {
    /// The median of our figures.
    pub fn ours_median(&self) -> f64 {
        median(&self.ours)
    }

    /// The median of the yardstick's figures.
    pub fn yardstick_median(&self) -> f64 {
        median(&self.yardstick)
    }

    /// The median of the ratios of each round.
    pub fn ratio_median(&self) -> f64 {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.yardstick).map(|(ours, other)| ours / other).collect();
        median(&ratios)
    }
}

/// The middle of some figures; 0 of none.
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

/// Of a client, as a program has it that does little else.
fn client_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("client").enable_all().build()
}

/// A free port of this machine, for nobody else.
fn loopback() -> server::Options {
    server::Options { listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(), insecure_allow_remote: false }
}

/// A world in which every file is there.
struct Everything;

impl Surroundings for Everything {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> Found {
        Found::File
    }
}

/// The tree of a topology's text.
fn checked(text: &str) -> Result<Plan, BenchError> {
    let source = Source { path: "bench.yaml".into(), text: text.to_owned() };
    let (plan, diagnostics) = check(&[source], &Everything);
    plan.ok_or_else(|| BenchError::Unfit(format!("its own tree is refused: {diagnostics:?}")))
}

/// Waits until the disk has all that was written to a folder's file system: what a measurement has left is not written back
/// during the next one.
fn quiet(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(rustix::fs::syncfs(std::fs::File::open(folder)?)?)
}

/// An empty folder below the subject's.
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
