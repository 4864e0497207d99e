//! `wattle clock`: whether the bus may believe its clock.

use std::io::Write;

use serde_json::json;

use super::{ClientArgs, Outcome, Output, block_on};

/// Confirm the clock after a jump
///
/// Retention and delays use the time that passes while the bus runs, not the clock of the machine, which may jump. A
/// difference of up to a day is corrected slowly, by one percent of the time that passes. A clock that is further
/// ahead, as after the bus was down for days, is ignored and no event expires by age until it is confirmed; `wattle
/// status` shows this.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle clock confirm"
)]
pub(super) struct ClockArgs {
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ClockCommand {
    Confirm(Confirm),
}

/// Confirm the clock, so that retention and delays continue with it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle status
  date && wattle clock confirm")]
struct Confirm {
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &ClockArgs) -> Outcome {
    let ClockCommand::Confirm(confirm) = &args.command;
    let was_waiting = block_on(async { Ok(confirm.client.server.connect().await?.confirm_clock().await?) })?;
    let mut out = anstream::stdout().lock();
    match (confirm.client.output, was_waiting) {
        (Output::Json, _) => writeln!(out, "{}", json!({ "was_waiting": was_waiting }))?,
        (Output::Text, true) => {
            writeln!(out, "the clock is confirmed: what is too old is removed from now on, and what is due comes")?
        }
        (Output::Text, false) => writeln!(out, "nothing was waiting: the clock has not jumped")?,
    }
    Ok(())
}
