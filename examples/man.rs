//! Writes the manual pages of `wattle` and all its commands into a folder: `cargo run --example man FOLDER`.

use std::io;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("a folder is missing"))?;
    clap_mangen::generate_to(wattle::cli::command(), folder)
}
