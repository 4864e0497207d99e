//! The `wattle` command.

fn main() -> std::process::ExitCode {
    wattle::cli::main()
}
