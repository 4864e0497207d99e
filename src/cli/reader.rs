//! Whether anybody still reads what a command prints.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::net::unix::pipe;

/// Resolves when standard output is a pipe or a socket without a reader. A command that runs until it is stopped
/// ends then: it may have nothing to print for hours, and only a write would tell it otherwise.
pub(super) async fn gone() {
    let ended = async {
        // Unchecked, since what makes it sure of a pipe also makes writes to it not block.
        let out = pipe::Sender::from_owned_fd_unchecked(io::stdout().as_fd().try_clone_to_owned()?)?;
        out.ready(Interest::ERROR).await
    };
    if ended.await.is_err() {
        // a file has no reader that could go
        std::future::pending::<()>().await;
    }
}
