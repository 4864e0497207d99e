//! Ctrl-C and SIGTERM: the first asks, the second ends the process at once. A terminal that is closed (SIGHUP) asks as
//! well, however often, unless the process was started to outlive it (`nohup`).
//!
//! They are listened to on a thread and a runtime of their own, so that the second one works whatever the rest is
//! doing. Ending at once loses nothing that was acknowledged: that is on the disk already.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, Failure, say};
use crate::effects;

/// The first signal, once it has come.
#[derive(Debug, Clone)]
pub(super) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Starts listening.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot listen to signals: {error}"));
        let (sender, receiver) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            // A file that is larger than the process may write (`ulimit -f`) is an error of the write, not the end of
            // the process.
            drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map_err(failed)?);
            let hangup = if outlives_terminal() { None } else { Some(signal(SignalKind::hangup()).map_err(failed)?) };
            (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?, hangup)
        };
        let listen = move || {
            runtime.block_on(async {
                let hung_up = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = next(&mut interrupt, &mut terminate) => {}
                    _ = hung_up => {}
                }
                say("stopping; once more to stop at once");
                sender.send_replace(true);
                let exit = next(&mut interrupt, &mut terminate).await;
                std::process::exit(exit as i32);
            });
        };
        effects::thread("signals", listen).map_err(failed)?;
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

/// The first Ctrl-C or SIGTERM, for a command that then says how far it has come and ends.
#[derive(Debug)]
pub(super) struct Interruption(Option<(Signal, Signal)>);

impl Interruption {
    /// Starts listening.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot listen to signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Self(Some((interrupt, signal(SignalKind::terminate()).map_err(failed)?))))
    }

    /// Signals are handled elsewhere in this process.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Resolves when it has come, with how the process ends.
    pub(super) async fn came(&mut self) -> Exit {
        match &mut self.0 {
            Some((interrupt, terminate)) => next(interrupt, terminate).await,
            None => std::future::pending().await,
        }
    }
}

/// Whether SIGHUP is ignored, which is how a process is started that outlives its terminal.
fn outlives_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores_hangup(&status)
}

/// Whether the status of a process says that it ignores the first signal, which is SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> Exit {
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}

#[cfg(test)]
mod tests {
    use super::ignores_hangup;

    #[test]
    fn a_process_that_was_started_to_outlive_its_terminal_is_known() {
        assert!(ignores_hangup("Name:\twattle\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }
}
