//! Ctrl-C and SIGTERM: the first asks, the second ends the process at once.
//!
//! They are listened to on a thread and a runtime of their own, so that the second one works whatever the rest is doing.
//! Ending at once loses nothing that was acknowledged: that is on the disk already.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, Failure, say};

/// The first signal, once it has come.
#[derive(Debug, Clone)]
pub(super) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Starts listening.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot listen to signals: {error}"));
        let (sender, receiver) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
        };
        let listen = move || {
            runtime.block_on(async {
                next(&mut interrupt, &mut terminate).await;
                say("stopping; once more to stop at once");
                sender.send_replace(true);
                let exit = next(&mut interrupt, &mut terminate).await;
                std::process::exit(exit as i32);
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(Self(receiver))
    }

    /// Resolves when the first signal has come.
    pub(super) async fn first(&mut self) {
        if self.0.wait_for(|came| *came).await.is_err() {
            // The thread is gone, and no signal will come.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> Exit {
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}
