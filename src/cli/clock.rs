//! `wattle clock`: whether the bus may believe its clock.

use std::io::Write;

use serde_json::json;

use super::{Outcome, Output, ServerArg, block_on};

/// Say that the clock of the bus is right
///
/// What is too old, and what is due, is decided by the time that really passes while the bus runs, not by the clock of the
/// machine: that may jump. A clock that is ahead, or behind, by up to a day is taken over slowly, a hundredth of what passes.
/// One that is ahead by more, as after a bus was off for days, does not count, and no event is removed for its age, until this
/// says that it is right: `wattle status` says so. Then what it is ahead by has passed: what is too old goes, and what is
/// due comes.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle clock confirm"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    Confirm(Confirm),
}

/// Say that the clock is right: what waited for that is removed where it is too old
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle status
  date && wattle clock confirm")]
struct Confirm {
    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let Command::Confirm(confirm) = &args.command;
    let was_waiting = block_on(async { Ok(confirm.server.connect().await?.confirm_clock().await?) })?;
    let mut out = anstream::stdout().lock();
    match (confirm.output, was_waiting) {
        (Output::Json, _) => writeln!(out, "{}", json!({ "was_waiting": was_waiting }))?,
        (Output::Text, true) => {
            writeln!(out, "the clock is confirmed: what is too old is removed from now on, and what is due comes")?
        }
        (Output::Text, false) => writeln!(out, "nothing was waiting: the clock has not jumped")?,
    }
    Ok(())
}
