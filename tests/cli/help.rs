//! The help of every command, as a file: `UPDATE_EXPECT=1 cargo test --test cli help` rewrites it, and the difference
//! is reviewed.

use std::fmt::Write as _;
use std::path::Path;

/// Columns of a terminal that is wide enough.
const WIDTH: usize = 100;

/// The help of a command and of those below it, each below the words that call it.
fn write_help(command: &clap::Command, path: &str, all: &mut String) {
    let mut shown = command.clone().term_width(WIDTH).mut_args(|argument| argument.hide_env_values(true));
    let help = shown.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = writeln!(all, "## {path}\n\n{}\n", lines.join("\n").trim_end());
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_help(below, &format!("{path} {}", below.get_name()), all);
    }
}

#[test]
fn the_help_of_every_command_is_the_one_that_was_reviewed() {
    let mut command = wattle::cli::command().version("VERSION");
    command.build();
    let mut help = String::new();
    write_help(&command, "wattle", &mut help);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &help).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    let different = help.lines().zip(expected.lines()).position(|(one, other)| one != other);
    assert!(
        help == expected,
        "tests/cli/help.txt is not the help of today, first in line {}: rewrite it with UPDATE_EXPECT=1 and review it",
        different.map_or(help.lines().count().min(expected.lines().count()), |line| line) + 1
    );
}
