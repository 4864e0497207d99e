//! `wattle bench`: placeholder while the rest is being fitted.
use super::Outcome;
/// Measure whole paths against yardsticks
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: &Args) -> Outcome {
    Ok(())
}
