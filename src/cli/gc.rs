//! `wattle gc`: what is kept of subscribers that are gone.

use std::io::Write;

use serde_json::json;

use super::words::plain;
use super::{Outcome, Output, ServerArg, block_on};

/// Forget what is kept of subscribers that are gone
///
/// A subscriber that was taken out of the topology keeps its place, its state and what waits, and goes on with them when it
/// comes back. From here on it is new when it does. Its snapshots and capsules go as well. What breaks off is gone on with by
/// the next start, or by this once more. The events of topics stay.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle gc
  wattle gc --allow-loss")]
pub(super) struct Args {
    /// Also where they have state, snapshots, or events that they have yet to handle
    #[arg(long)]
    allow_loss: bool,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let forgotten = block_on(async { Ok(args.server.connect().await?.collect_garbage(args.allow_loss).await?) })?;
    let mut out = anstream::stdout().lock();
    match (args.output, forgotten.as_slice()) {
        (Output::Json, all) => writeln!(out, "{}", json!({ "forgotten": all }))?,
        (Output::Text, []) => writeln!(out, "there is nothing to forget")?,
        (Output::Text, all) => all.iter().try_for_each(|name| writeln!(out, "{} is forgotten", plain(name)))?,
    }
    Ok(())
}
