//! From the arguments to what a bus is started with: a checked plan, and the component of every subscriber.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::check::{WIDTH, write_diagnostics};
use super::load::{World, load, refuse};
use super::{Exit, Failure, build};
use crate::reload::{self, Files};
use crate::topology::render::{self, Style};
use crate::topology::{Plan, PluginSource, Runs, Said, check, check_said};

/// The plan of topologies, all of their problems having been printed.
pub(super) fn plan(topologies: &[PathBuf]) -> Result<Plan, Failure> {
    Ok(checked(topologies)?.0)
}

fn here() -> Result<PathBuf, Failure> {
    std::path::absolute(".").map_err(|error| Failure::failed(format!("cannot tell which folder this is: {error}")))
}

/// The plan of topologies and what their files say, all of their problems having been printed.
pub(super) fn checked(topologies: &[PathBuf]) -> Result<(Plan, Said), Failure> {
    let mut notices = anstream::stderr().lock();
    let sources = match load(topologies) {
        Ok(sources) => sources,
        Err(errors) => {
            let code = refuse(&errors, &mut notices)?;
            let exit = if code == Exit::Usage as u8 { Exit::Usage } else { Exit::BadConfiguration };
            return Err(Failure::silent(exit));
        }
    };
    let (plan, diagnostics, said) = check_said(&sources, &World, &here()?);
    write_diagnostics(&sources, &diagnostics, &mut notices)?;
    Ok((plan.ok_or_else(|| Failure::silent(Exit::BadConfiguration))?, said))
}

/// What the files of a start say, with absolute paths, and the component of every subscriber, as [`of`].
pub(super) fn files(
    (plan, said): (Plan, Said),
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<Files, Failure> {
    let (plan, components) = with_components(plan, folder)?;
    Ok(Files { plan, components, said })
}

/// The plan of topologies with absolute paths, so that it means the same wherever it is read, and the component of every
/// subscriber, as [`of`].
pub(super) fn rooted(
    topologies: &[PathBuf],
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<(Plan, Vec<PathBuf>), Failure> {
    with_components(plan(topologies)?, folder)
}

/// As [`rooted`], of a plan.
fn with_components(
    plan: Plan,
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<(Plan, Vec<PathBuf>), Failure> {
    let here = here()?;
    let plan = reload::rooted(plan, &here);
    let components = of(&plan, folder)?.iter().map(|path| here.join(path)).collect();
    Ok((plan, components))
}

/// The component of every subscriber, built where `folder` makes one from a source folder. Each folder is asked for once.
/// Everything that is missing is said at once.
pub(super) fn of(
    plan: &Plan,
    mut folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<Vec<PathBuf>, Failure> {
    let mut known: BTreeMap<&PathBuf, Result<PathBuf, String>> = BTreeMap::new();
    let (mut components, mut errors) = (Vec::new(), Vec::new());
    for subscriber in &plan.subscribers {
        match &subscriber.runs {
            Runs::Plugin(PluginSource::Wasm(path)) => components.push(path.clone()),
            Runs::Plugin(PluginSource::Folder(source)) => {
                let is_new = !known.contains_key(source);
                match known.entry(source).or_insert_with(|| folder(source)) {
                    Ok(path) => components.push(path.clone()),
                    Err(error) if is_new => errors.push(format!("subscriber `{}`: {error}", subscriber.label())),
                    Err(_) => {}
                }
            }
            Runs::Plugin(PluginSource::Stored { .. }) | Runs::Push { .. } | Runs::Pull => {
                errors.push(format!("subscriber `{}` does not run a plugin file", subscriber.label()));
            }
        }
    }
    if errors.is_empty() { Ok(components) } else { Err(Failure::new(Exit::BadConfiguration, errors.join("\n"))) }
}

/// The source folders of a plan, each once.
pub(super) fn folders(plan: &Plan) -> Vec<PathBuf> {
    let folder = |runs: &Runs| match runs {
        Runs::Plugin(PluginSource::Folder(folder)) => Some(folder.clone()),
        Runs::Plugin(PluginSource::Wasm(_) | PluginSource::Stored { .. }) | Runs::Push { .. } | Runs::Pull => None,
    };
    let folders: BTreeSet<_> = plan.subscribers.iter().filter_map(|subscriber| folder(&subscriber.runs)).collect();
    folders.into_iter().collect()
}

/// What was built of a source folder before; nothing is built.
pub(super) fn built(folder: &Path) -> Result<PathBuf, String> {
    build::built(folder).map_err(|error| error.to_string())
}

/// The source folders that a topology names, or everything that is wrong with it, in words.
pub(super) fn folders_of(topology: &Path) -> Result<Vec<PathBuf>, String> {
    let sources = load(&[topology.to_owned()])
        .map_err(|errors| errors.iter().map(|error| format!("error: {error}")).collect::<Vec<_>>().join("\n"))?;
    let (plan, diagnostics) = check(&sources, &World);
    let plan = plan.ok_or_else(|| render::text(&sources, &diagnostics, Style { colour: true, width: WIDTH }))?;
    Ok(folders(&plan))
}
