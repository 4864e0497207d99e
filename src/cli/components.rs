//! From the arguments to what a bus is started with: a checked plan, and the component of every subscriber.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::check::{WIDTH, write_diagnostics};
use super::load::{World, load, refuse};
use super::{Exit, Failure, build};
use crate::reload::{self, Files};
use crate::topology::render::{self, Style};
use crate::topology::{Diagnostic, Found, Plan, PluginSource, Runs, Said, Surroundings, check, check_said};
use crate::wasm::{COMPONENT_BYTES_MAX, config_schema};

/// The world, with what the plugins in it declare of their configuration: those that are components, and those that were built
/// lately, or are known to be built.
#[derive(Debug, Default)]
pub(super) struct Declared {
    built: BTreeMap<PathBuf, PathBuf>,
    known: RefCell<BTreeMap<PathBuf, Result<Option<String>, String>>>,
}

impl Declared {
    fn look(component: &Path) -> Result<Option<String>, String> {
        let is_accepted = std::fs::metadata(component).is_ok_and(|about| about.len() <= COMPONENT_BYTES_MAX);
        // What is no component, or not there, is refused where it is to run.
        let wasm = if is_accepted { std::fs::read(component).unwrap_or_default() } else { Vec::new() };
        Ok(config_schema(&wasm)?.map(str::to_owned))
    }
}

impl Surroundings for Declared {
    fn variable(&self, name: &str) -> Option<String> {
        World.variable(name)
    }

    fn at(&self, path: &Path) -> Found {
        World.at(path)
    }

    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        World.text(path, bytes_max)
    }

    fn config_schema(&self, plugin: &PluginSource) -> Result<Option<String>, String> {
        let component = match plugin {
            PluginSource::Wasm(path) => Some(path.clone()),
            PluginSource::Folder(path) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                self.built.get(&absolute).cloned().or_else(|| build::lately(path))
            }
            PluginSource::Stored { .. } => None,
        };
        let Some(component) = component else { return Ok(None) };
        let mut known = self.known.borrow_mut();
        known.entry(component).or_insert_with_key(|component| Self::look(component)).clone()
    }
}

/// Holds what topologies tell their plugins against what those declare, now that they are built; what does not fit is printed.
/// All else was checked before.
pub(super) fn hold(topologies: &[PathBuf], plan: &Plan, components: &[PathBuf]) -> Result<(), Failure> {
    let Ok(sources) = load(topologies) else { return Ok(()) };
    let here = here()?;
    let built = plan.subscribers.iter().zip(components).filter_map(|(subscriber, component)| match &subscriber.runs {
        Runs::Plugin(PluginSource::Folder(folder)) => Some((here.join(folder), here.join(component))),
        Runs::Plugin(PluginSource::Wasm(_) | PluginSource::Stored { .. }) | Runs::Push { .. } | Runs::Pull => None,
    });
    let before = check(&sources, &World).1;
    let declared = Declared { built: built.collect(), ..Declared::default() };
    let mut diagnostics = check(&sources, &declared).1;
    diagnostics.retain(|diagnostic| !before.contains(diagnostic));
    write_diagnostics(&sources, &diagnostics, &mut anstream::stderr().lock())?;
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Err(Failure::silent(Exit::BadConfiguration)),
        false => Ok(()),
    }
}

/// The plan of topologies, all of their problems having been printed.
pub(super) fn plan(topologies: &[PathBuf]) -> Result<Plan, Failure> {
    Ok(checked(topologies)?.0)
}

fn here() -> Result<PathBuf, Failure> {
    std::path::absolute(".").map_err(|error| Failure::failed(format!("cannot tell which folder this is: {error}")))
}

/// The plan of topologies and what their files say, all of their problems having been printed.
pub(super) fn checked(topologies: &[PathBuf]) -> Result<(Plan, Said), Failure> {
    checked_in(topologies, &World)
}

fn checked_in(topologies: &[PathBuf], world: &dyn Surroundings) -> Result<(Plan, Said), Failure> {
    let mut notices = anstream::stderr().lock();
    let sources = match load(topologies) {
        Ok(sources) => sources,
        Err(errors) => {
            let code = refuse(&errors, &mut notices)?;
            let exit = if code == Exit::Usage as u8 { Exit::Usage } else { Exit::BadConfiguration };
            return Err(Failure::silent(exit));
        }
    };
    let (plan, diagnostics, said) = check_said(&sources, world, &here()?);
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
    let (plan, _) = checked_in(topologies, &Declared::default())?;
    with_components(plan, folder)
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

/// The plan of a topology, or everything that is wrong with it, in words.
pub(super) fn plan_of(topology: &Path) -> Result<Plan, String> {
    let sources = load(&[topology.to_owned()])
        .map_err(|errors| errors.iter().map(|error| format!("error: {error}")).collect::<Vec<_>>().join("\n"))?;
    let (plan, diagnostics) = check(&sources, &World);
    plan.ok_or_else(|| render::text(&sources, &diagnostics, Style { colour: true, width: WIDTH }))
}
