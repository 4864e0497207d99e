//! Decides what a start runs: its files, or the applied topology.
//!
//! ```text
//!   nothing was ever applied ───────────────────────────────────────> the files; their errors end the start
//!   the files are unchanged since the last start ───────────────────> the applied topology
//!   they have changed ────────> would lose data, or are ────────────> the applied topology, with a warning
//!                               refused on top of it
//!                           └───────────────────────────────────────> the files: they are applied
//! ```
//!
//! Promises: an edit that would lose data never ends the bus, whenever it is started: it is refused as by
//! [`Reloader::apply`](super::Reloader::apply), by the same rules and with the same messages. Must not know: where
//! files are, who starts the bus.

use crate::api::{Changes, Component, Digest};
use crate::deploy::record::applied::{AppliedTopology, news, taken};
use crate::deploy::record::files::Files;
use crate::deploy::record::store::Store;
use crate::deploy::topology::error::TopologyError;
use crate::deploy::versions::snapshot::snapshot_where_nothing_runs;
use crate::deploy::versions::source;
use crate::deploy::versions::start::Replacement;
use crate::dispatch::{PrepareError, Renames, changes_of, prepare, unremembered, untouched};
use crate::engine::Engine;
use crate::topology::Plan;

/// The topology that a start runs instead of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct StartTopology {
    /// The plan that was applied last.
    pub plan: Plan,
    /// The component of each subscriber, in order.
    pub components: Vec<Component>,
    /// Why the files were refused, as messages; empty if they are unchanged.
    pub refused: Vec<String>,
}

impl StartTopology {
    /// Whether the files say the same: an uploaded component may be that of a file. Reads those.
    pub fn is_same(&self, files: &Files) -> bool {
        let is_same = |(applied, file): (&Component, &Component)| match (applied, file) {
            (Component::Stored(digest), Component::File(path)) => {
                source::read("", path).is_ok_and(|wasm| Digest::of(&wasm) == *digest)
            }
            (applied, file) => applied == file,
        };
        self.plan == files.plan && self.components.iter().zip(&files.components).all(is_same)
    }
}

/// Whether a start runs something other than its files. Decides nothing.
///
/// # Errors
/// [`TopologyError`].
pub async fn instead<E: Engine>(
    engine: &E,
    store: &Store,
    files: &Files,
    allow_loss: bool,
) -> Result<Option<StartTopology>, TopologyError> {
    if let Some((plan, components)) = store.applied_since(files) {
        return Ok(Some(StartTopology { plan, components, refused: Vec::new() }));
    }
    let Some((applied, components)) = store.topology() else { return Ok(None) };
    store.follow(engine).await?;
    let changes = changes_at_start(engine, store, Some(&applied), &files.plan).await?;
    match permit(&changes, allow_loss) {
        Ok(()) => Ok(None),
        Err(_) => {
            let losses = changes.losses.into_iter().filter(|_| !allow_loss);
            let refused = changes.refusals.into_iter().chain(losses).collect();
            Ok(Some(StartTopology { plan: applied, components, refused }))
        }
    }
}

/// The changes that the files of a start would make.
async fn changes_at_start<E: Engine>(
    engine: &E,
    store: &Store,
    applied: Option<&Plan>,
    plan: &Plan,
) -> Result<Changes, TopologyError> {
    let nothing = Plan::default();
    let mut changes = changes_of(engine, applied.unwrap_or(&nothing), plan).await.map_err(PrepareError::from)?;
    changes.refusals.extend(match applied {
        Some(old) => taken(store.applied(), old, plan),
        None => unremembered(engine, plan),
    });
    Ok(changes)
}

/// Applies files before anything runs, by the rules of an apply: it changes nothing if it is refused or would lose
/// data.
///
/// # Errors
/// [`TopologyError`]; then the earlier decision stands.
pub async fn adopt<E: Engine>(
    engine: &E,
    store: &mut Store,
    plan: &Plan,
    components: &[Component],
    (allow_loss, replaced): (bool, &[Replacement]),
) -> Result<(), TopologyError> {
    store.follow(engine).await?;
    let applied = store.topology().map(|(plan, _)| plan);
    let old = applied.clone().unwrap_or_default();
    let changes = changes_at_start(engine, store, applied.as_ref(), plan).await?;
    permit(&changes, allow_loss)?;
    let renames = Renames::of(&old, plan);
    store.rename(&renames)?; // not earlier, because a refused topology changes nothing
    for replaced in replaced {
        let _ = snapshot_where_nothing_runs(engine, (plan, &renames), replaced).await; // reported in the log
    }
    for change in changes.changes.iter().filter(|_| applied.is_some()) {
        tracing::info!(name = change.name, what = ?change.what, words = change.words.join("; "), "applied");
    }
    let names = match &applied {
        Some(old) => prepare(engine, old, plan, news(old, store.applied(), plan)).await?,
        None => {
            // It ran before applied topologies were recorded, or never.
            let new = untouched(engine, plan).await.map_err(PrepareError::from)?;
            prepare(engine, &old, plan, |subscriber| new.contains(&subscriber.label())).await?
        }
    };
    let next = AppliedTopology::next(store.applied(), &old, (plan, components), names);
    store.apply(next)?;
    store.hide_variables(plan)?;
    Ok(store.follow(engine).await?)
}

/// Refuses invalid changes, and losses without permission.
///
/// # Errors
/// [`TopologyError::Refused`], [`TopologyError::Loss`].
pub(crate) fn permit(changes: &Changes, allow_loss: bool) -> Result<(), TopologyError> {
    if !changes.refusals.is_empty() {
        return Err(TopologyError::Refused(changes.refusals.clone()));
    }
    if !changes.losses.is_empty() && !allow_loss {
        return Err(TopologyError::Loss(changes.losses.clone()));
    }
    Ok(())
}
