//! Topology files that change while they run: checked, built and applied, or reported with their problems while the topology before
//! runs on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{changes, components, load};
use crate::api::Changes;
use crate::app::Running;
use crate::deploy::Watch;
use crate::telemetry;
use crate::toolchain;
use crate::topology::Source;

/// Applies the files each time that they say something else, for as long as this is polled. `built` has the component of each
/// folder that was built.
pub(super) async fn reapply(
    running: &Running,
    topologies: &[PathBuf],
    mut said: Vec<Source>,
    mut built: BTreeMap<PathBuf, PathBuf>,
) {
    let mut watch = Watch::default();
    watch.follow(topologies.iter().filter(|path| !load::is_stdin(path)).cloned());
    loop {
        let changed = watch.changed().await;
        // A file that is written anew is gone for a moment.
        if changed.iter().all(|changed| changed.is_gone) {
            continue;
        }
        let applied = match load::load(topologies) {
            Ok(sources) if sources == said => continue,
            Ok(sources) => {
                said.clone_from(&sources);
                apply(running, &sources, &mut built).await
            }
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        };
        match applied {
            Ok(changes) => {
                tracing::info!(changes = changes.changes.len(), "the topology has changed and was applied");
                telemetry::say(changes::text(&changes).trim_end());
            }
            Err(why) => {
                telemetry::say(why.trim_end());
                tracing::error!("the topology has changed and was not applied: what ran before runs on");
            }
        }
    }
}

/// Applies files as a start does: nodes of their namespaces that they do not declare go. Else the reason, in words.
async fn apply(
    running: &Running,
    sources: &[Source],
    built: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<Changes, String> {
    let reloader = running.reloader();
    let namespaces = components::namespaces(sources);
    let base = || reloader.base(|name| namespaces.iter().any(|of| of == name)).0;
    for folder in components::folders(&components::merged(sources, &base())?.plan) {
        if built.contains_key(&folder) {
            continue;
        }
        tracing::info!(folder = %folder.display(), "building");
        let build = tokio::task::spawn_blocking(move || toolchain::build_folder(&folder, &mut |_| ()));
        let done = build.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        built.insert(done.folder, done.wasm);
    }
    let component = |folder: &std::path::Path| built.get(folder).cloned().ok_or_else(|| "it was not built".to_owned());
    let merged = components::merged(sources, &base())?;
    let proposal = components::proposal(merged, true, component).map_err(|failure| failure.message)?;
    reloader.apply(proposal, true).await.map_err(|error| error.to_string())
}
