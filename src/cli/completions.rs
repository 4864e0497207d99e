//! `wattle completions`: completions for a shell.

use std::io::Write;

use super::Outcome;

/// Print completions for a shell
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle completions bash > ~/.local/share/bash-completion/completions/wattle
  wattle completions zsh > \"${fpath[1]}/_wattle\"
  wattle completions fish > ~/.config/fish/completions/wattle.fish")]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "wattle", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
