//! Files of topologies that change while they run: checked, built and applied, or reported with their problems while
//! the topology before runs on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::super::{changes, components, load};
use crate::api::Changes;
use crate::app::RunningBus;
use crate::deploy::Watch;
use crate::telemetry;
use crate::toolchain;
use crate::topology::Source;

/// Applies the files each time that they say something else, for as long as this is polled. `built` has the component
/// of each folder that was built.
pub(super) async fn reapply(
    running: &RunningBus,
    topologies: &[PathBuf],
    mut said: Vec<Source>,
    mut built: BTreeMap<PathBuf, PathBuf>,
) {
    let mut watch = Watch::default();
    // A component that is missing while it is linked, or a schema that is half written, is there a moment later.
    let mut is_pending = false;
    // What changed between the reading of the files and now is noticed by no watch: it is compared once.
    let mut is_first = true;
    loop {
        let topologies_only = topologies.iter().filter(|path| !load::is_stdin(path)).cloned();
        let (schemas, components) = (schemas(running), built.values().cloned().collect::<BTreeSet<_>>());
        watch.follow(topologies_only.chain(schemas.iter().cloned()).chain(components.iter().cloned()));
        let is_compared = std::mem::take(&mut is_first);
        let changed = if is_compared { Vec::new() } else { watch.changed().await };
        let is_of_schema =
            changed.iter().any(|changed| schemas.contains(&changed.path)) || is_compared && has_other_schemas(running);
        // A topology that is written anew is gone for a moment; a component alone is for those who watch plugins.
        let is_of_files = changed.iter().any(|changed| !changed.is_gone && !components.contains(&changed.path));
        let is_there_again = is_pending && changed.iter().any(|changed| !changed.is_gone);
        if !(is_compared || is_of_schema || is_of_files || is_there_again) {
            continue;
        }
        let applied = match load::load(topologies) {
            Ok(sources) if sources == said && !is_of_schema && !is_pending => continue,
            Ok(sources) => {
                tell_left_behind(&said, &sources);
                said.clone_from(&sources);
                apply(running, &sources, &mut built).await
            }
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        };
        is_pending = applied.is_err();
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

/// The schema files of what runs.
fn schemas(running: &RunningBus) -> BTreeSet<PathBuf> {
    let plan = running.tree().plan();
    plan.topics.iter().filter_map(|topic| topic.schema.as_ref()).map(|schema| schema.path().to_owned()).collect()
}

/// Whether a schema file has another text than the schema that runs.
fn has_other_schemas(running: &RunningBus) -> bool {
    let plan = running.tree().plan();
    let schemas = plan.topics.iter().filter_map(|topic| topic.schema.as_ref());
    schemas.into_iter().any(|schema| std::fs::read_to_string(schema.path()).is_ok_and(|text| text != schema.text()))
}

/// Topologies are applied by namespace: one that no file declares any more keeps running, which is said.
fn tell_left_behind(before: &[Source], now: &[Source]) {
    let declared = components::namespaces(now);
    for name in components::namespaces(before).iter().filter(|name| !declared.contains(name)) {
        tracing::warn!(
            namespace = name,
            "no file declares this namespace any more; its topics and subscribers run until `wattle dev` is started \
             again"
        );
    }
}

/// Applies files as a start does: nodes of their namespaces that they do not declare go. Else the reason, in words.
async fn apply(
    running: &RunningBus,
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
    let component = |folder: &Path| built.get(folder).cloned().ok_or_else(|| "it was not built".to_owned());
    let merged = components::merged(sources, &base())?;
    let proposal = components::proposal(merged, true, component).map_err(|failure| failure.message)?;
    reloader.apply(proposal, true).await.map_err(|error| error.to_string())
}
