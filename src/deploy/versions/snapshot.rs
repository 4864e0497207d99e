//! Snapshots of state before a new version.
//!
//! Promises: the snapshot has the state of the previous version. A failure is reported but does not prevent the deploy,
//! because the new version may be the fix.

use std::time::Duration;

use crate::api::{Digest, SnapshotCause, SnapshotInfo};
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::reloader::{Reloader, Subject};
use crate::deploy::versions::start::Replacement;
use crate::dispatch::snapshots::{KEPT_DEFAULT, take_where_nothing_runs};
use crate::dispatch::{Renames, SnapshotError, Tree};
use crate::engine::Engine;
use crate::topology::Plan;

/// How long a new version waits for the snapshot. Enough for hundreds of megabytes; a lane in a call that never returns
/// must not keep out the version that fixes it.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(5);

fn note(version: Digest, before: Option<Digest>) -> String {
    let before = before.map(|before| format!(" in place of {}", before.short())).unwrap_or_default();
    format!("before the deploy of {}{before}", version.short())
}

/// Waits for a snapshot, with a timeout. Returns why there is none, as a message.
async fn in_time<F: std::error::Error>(
    subscriber: &str,
    version: Digest,
    taken: impl Future<Output = Result<Option<SnapshotInfo>, F>>,
) -> Option<String> {
    // An unfinished snapshot is completed in the background.
    let taken = match tokio::time::timeout(SNAPSHOT_WITHIN, taken).await {
        Ok(taken) => taken.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it was not there in {} s", SNAPSHOT_WITHIN.as_secs())),
    };
    told(subscriber, version, taken)
}

/// Logs the result of a snapshot. Returns why there is none, as a message.
fn told(subscriber: &str, version: Digest, taken: Result<Option<SnapshotInfo>, String>) -> Option<String> {
    let why = match taken {
        Ok(taken) => {
            if let Some(taken) = taken {
                tracing::info!(subscriber, snapshot = taken.number, "snapshot taken before deploy");
            }
            return None;
        }
        Err(why) => why,
    };
    let digest = version.short();
    tracing::warn!(subscriber, digest, why, "no snapshot before deploy");
    Some(format!("no snapshot before deploy of {digest}: {why}"))
}

/// Takes a snapshot of a subscriber in a plan, before its lanes start with another version. Returns why there is none,
/// as a message, which is also logged.
pub(crate) async fn snapshot_where_nothing_runs<E: Engine>(
    engine: &E,
    names: (&Plan, &Renames),
    replaced: &Replacement,
) -> Option<String> {
    snapshot_before(replaced, async |subscriber, by| {
        take_where_nothing_runs(engine, names, subscriber, by, KEPT_DEFAULT).await
    })
    .await
}

/// The same while other subscribers run.
pub(crate) async fn snapshot_where_it_does_not_run<E: Engine>(
    tree: &Tree<E>,
    names: (&Plan, &Renames),
    replaced: &Replacement,
) -> Option<String> {
    snapshot_before(replaced, async |subscriber, by| {
        tree.take_where_it_does_not_run(names, subscriber, by, KEPT_DEFAULT).await
    })
    .await
}

async fn snapshot_before(
    replaced: &Replacement,
    take: impl AsyncFnOnce(&str, (SnapshotCause, &str, &str)) -> Result<Option<SnapshotInfo>, SnapshotError>,
) -> Option<String> {
    let Replacement { subscriber, before, version } = replaced;
    let (digest, note) = (before.to_string(), note(*version, Some(*before)));
    let taken = take(subscriber, (SnapshotCause::Deploy, digest.as_str(), note.as_str())).await;
    // Nothing runs that would wait for it, and the subscriber's next snapshot must find it complete.
    told(subscriber, *version, taken.map_err(|error| error.to_string()))
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Takes a snapshot of a subscriber before a version changes its state. Returns why there is none, as a message.
    pub(crate) async fn snapshot(&self, subject: &Subject, version: Digest) -> Option<String> {
        let name = subject.name.clone();
        let looked = self.blocking(move |reloader| {
            let runs = reloader.store().decided(&name).map(|decided| decided.proven);
            Ok((!reloader.shared.tree.subscriber(&name)?.state().is_empty(None)?, runs))
        });
        let taken = async {
            let (has_state, runs) = looked.await?;
            if !has_state {
                return Ok(None);
            }
            let note = note(version, runs);
            let running = self.running(subject)?;
            Ok::<_, ReloadError>(Some(running.snapshots().take(SnapshotCause::Deploy, &note, KEPT_DEFAULT).await?))
        };
        in_time(&subject.name, version, taken).await
    }
}
