//! The `wattle` command.

/// Groups, batches and events come and go in sizes for which the system's allocator asks the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wattle::cli::main()
}
