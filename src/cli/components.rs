//! From the arguments to what a bus is started with: a checked plan, and the component of every subscriber.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::diagnostics::{WIDTH, write_diagnostics};
use super::load::{WithoutPlugins, World, load, refuse};
use super::{Exit, Failure, args, say};
use crate::api::{Base, Component, Proposal};
use crate::app::OpenBus;
use crate::deploy::{self, Files, SecretFolders};
use crate::limits::COMPONENT_BYTES_MAX;
use crate::model::units::show_rough_size;
use crate::toolchain;
use crate::topology::render::{self, Style};
use crate::topology::{
    self, Code, ConfigValue, Diagnostic, MergedPlan, PathKind, Plan, PluginSource, Source, SubscriberKind,
    SubscriberPlan, Surroundings, check, check_said_on,
};
use crate::wasm::{Host, config_schema};

/// The world, with what the plugins in it declare of their configuration: those that are components, and those that
/// were built lately, or are known to be built.
#[derive(Debug, Default)]
pub(super) struct PluginWorld {
    built: BTreeMap<PathBuf, PathBuf>,
    known: RefCell<BTreeMap<PathBuf, Result<Option<String>, String>>>,
    /// Where components are also started, to be asked for their ports.
    starts: Option<ComponentStarter>,
}

/// What components are started with.
#[derive(Debug)]
struct ComponentStarter {
    secrets: SecretFolders,
    host: OnceCell<Option<Host>>,
    ports: RefCell<BTreeMap<ComponentKey, Option<Vec<String>>>>,
}

/// A component and its configuration.
type ComponentKey = (PathBuf, String);

impl ComponentStarter {
    fn new(sources: &[Source]) -> Option<Self> {
        let secrets = secret_folders(&[], sources).ok()?;
        Some(Self { secrets, host: OnceCell::new(), ports: RefCell::default() })
    }

    fn ports(&self, component: PathBuf, told: &BTreeMap<String, ConfigValue>) -> Option<Vec<String>> {
        let host = self.host.get_or_init(|| Host::new(args::authors_host()).ok());
        let host = host.as_ref()?;
        let mut known = self.ports.borrow_mut();
        let ports = known.entry((component, format!("{told:?}")));
        let describe = |(component, _): &ComponentKey| {
            let bytes = std::fs::metadata(component).map_or(0, |about| about.len());
            let slow = format!("compiling {} ({})…", component.display(), show_rough_size(bytes));
            let described = || deploy::described_ports(host, component, told, &self.secrets);
            deploy::while_telling(|| say(&slow), described)
        };
        ports.or_insert_with_key(describe).clone()
    }
}

impl PluginWorld {
    /// The same, and components are started to be asked for their ports.
    pub(super) fn with_ports(self, sources: &[Source]) -> Self {
        Self { starts: ComponentStarter::new(sources), ..self }
    }

    /// The component of a plugin, as far as there is one.
    fn component(&self, plugin: &PluginSource) -> Option<PathBuf> {
        match plugin {
            PluginSource::Wasm(path) => Some(path.clone()),
            PluginSource::Folder(path) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                self.built.get(&absolute).cloned().or_else(|| toolchain::lately(path))
            }
            PluginSource::Stored { .. } => None,
        }
    }

    fn look(component: &Path) -> Result<Option<String>, String> {
        let is_accepted = std::fs::metadata(component).is_ok_and(|about| about.len() <= COMPONENT_BYTES_MAX);
        // What is no component, or not there, is refused where it is to run.
        let wasm = if is_accepted { std::fs::read(component).unwrap_or_default() } else { Vec::new() };
        Ok(config_schema(&wasm)?.map(str::to_owned))
    }
}

impl Surroundings for PluginWorld {
    fn variable(&self, name: &str) -> Option<String> {
        World.variable(name)
    }

    fn at(&self, path: &Path) -> PathKind {
        World.at(path)
    }

    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        World.text(path, bytes_max)
    }

    fn config_schema(&self, plugin: &PluginSource) -> Result<Option<String>, String> {
        let Some(component) = self.component(plugin) else { return Ok(None) };
        let mut known = self.known.borrow_mut();
        known.entry(component).or_insert_with_key(|component| Self::look(component)).clone()
    }

    fn ports(&self, plugin: &PluginSource, told: &BTreeMap<String, ConfigValue>) -> Option<Vec<String>> {
        self.starts.as_ref()?.ports(self.component(plugin)?, told)
    }
}

/// Holds what topologies tell their plugins against what those declare, now that they are built; what does not fit is
/// printed. All else was checked before.
pub(super) fn hold(topologies: &[PathBuf], plan: &Plan, components: &[PathBuf]) -> Result<(), Failure> {
    let Ok(sources) = load(topologies) else { return Ok(()) };
    let here = here()?;
    let built = plan.subscribers.iter().zip(components).filter_map(|(subscriber, component)| match &subscriber.runs {
        SubscriberKind::Plugin(PluginSource::Folder(folder)) => Some((here.join(folder), here.join(component))),
        SubscriberKind::Plugin(PluginSource::Wasm(_) | PluginSource::Stored { .. })
        | SubscriberKind::Push { .. }
        | SubscriberKind::Pull => None,
    });
    let before = check(&sources, &World).1;
    let declared = PluginWorld { built: built.collect(), ..PluginWorld::default() }.with_ports(&sources);
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
    let sources = sources(topologies)?;
    let mut plan = checked(&sources, &World, (&Base::default(), false))?.plan;
    with_secrets(&mut plan, &secret_folders(&[], &sources)?)?;
    Ok(plan)
}

/// The folders of secrets: the given ones, or else the folders of the files.
pub(super) fn secret_folders(given: &[PathBuf], sources: &[Source]) -> Result<SecretFolders, Failure> {
    let here = here()?;
    if let Some(missing) = given.iter().find(|folder| !folder.is_dir()) {
        return Err(Failure::new(Exit::Usage, format!("there is no folder `{}` (--secrets)", missing.display())));
    }
    let below = |folder: &Path| if folder == "" { here.clone() } else { here.join(folder) };
    Ok(match given {
        [] => SecretFolders::new(sources.iter().map(|source| below(source.path.parent().unwrap_or(Path::new(""))))),
        given => SecretFolders::new(given.iter().map(|folder| below(folder))),
    })
}

/// Makes the paths of secrets absolute in a plan of files that may name any.
fn with_secrets(plan: &mut Plan, secrets: &SecretFolders) -> Result<(), Failure> {
    secrets.root(plan).map_err(|refused| Failure::new(Exit::BadConfiguration, refused.join("\n")))
}

fn here() -> Result<PathBuf, Failure> {
    std::path::absolute(".").map_err(|error| Failure::failed(format!("cannot tell which folder this is: {error}")))
}

/// The files of topologies; why they cannot be read has been printed.
pub(super) fn sources(topologies: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    load(topologies).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        match refuse(&errors, &mut anstream::stderr().lock()) {
            Ok(code) if code == Exit::Usage as u8 => Failure::printed(Exit::Usage, first),
            Ok(_) => Failure::printed(Exit::BadConfiguration, first),
            Err(error) => error.into(),
        }
    })
}

/// Checks files on top of the applied topology, and prints all of their problems.
pub(super) fn checked(
    sources: &[Source],
    world: &dyn Surroundings,
    (base, prune): (&Base, bool),
) -> Result<MergedPlan, Failure> {
    look(sources, world, (base, prune), true)?
}

/// Number of errors in the message of a failure, after all of them were printed.
const ERRORS_IN_FAILURE: usize = 3;

/// As [`checked`], where the failure has the first messages, and with or without warnings.
fn look(
    sources: &[Source],
    world: &dyn Surroundings,
    (base, prune): (&Base, bool),
    has_warnings: bool,
) -> Result<Result<MergedPlan, Failure>, Failure> {
    let (merged, mut diagnostics, _) = check_said_on(sources, world, &here()?, (base, prune));
    diagnostics.retain(|diagnostic| has_warnings || diagnostic.is_error());
    let sources: Vec<_> = sources.iter().cloned().chain(base.sources()).collect();
    write_diagnostics(&sources, &diagnostics, &mut anstream::stderr().lock())?;
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).take(ERRORS_IN_FAILURE);
    let first = errors.map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ");
    Ok(merged.ok_or_else(|| Failure::printed(Exit::BadConfiguration, first)))
}

/// Files on top of what is applied, with absolute paths, where what they do not declare of their namespaces goes; or
/// everything that is wrong with them, in words.
pub(super) fn merged(sources: &[Source], base: &Base) -> Result<MergedPlan, String> {
    let here = here().map_err(|failure| failure.message)?;
    let declared = PluginWorld::default().with_ports(sources);
    let (merged, diagnostics, _) = check_said_on(sources, &declared, &here, (base, true));
    let shown: Vec<_> = sources.iter().cloned().chain(base.sources()).collect();
    let mut merged = merged.ok_or_else(|| render::text(&shown, &diagnostics, Style { colour: false, width: WIDTH }))?;
    merged.plan = deploy::rooted(merged.plan, &here);
    Ok(merged)
}

/// The plan of files by themselves, with absolute paths but for those of secrets. Only problems are printed.
pub(super) fn alone(sources: &[Source]) -> Result<Plan, Failure> {
    let (plan, diagnostics) = check(sources, &World);
    match plan {
        Some(plan) => Ok(deploy::rooted(plan, &here()?)),
        None => {
            write_diagnostics(sources, &diagnostics, &mut anstream::stderr().lock())?;
            Err(Failure::silent(Exit::BadConfiguration))
        }
    }
}

/// The namespaces that files name, as far as they can be read.
pub(super) fn namespaces(sources: &[Source]) -> Vec<String> {
    topology::namespaces(sources, &World).into_iter().collect()
}

/// What the files of a start say on top of what was applied before. None where they cannot be any more, and say what
/// they said at the start before. Files that have changed are held against their plugins as well, as `declared` knows
/// those.
pub(super) fn of_start(
    sources: &[Source],
    opened: &OpenBus,
    (prune, secrets): (bool, &SecretFolders),
    declared: &dyn Surroundings,
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<Option<Files>, Failure> {
    let applied = opened.applied();
    let base = applied.as_ref().map(|(plan, _)| Base::of(plan, |_| true)).unwrap_or_default();
    // Those that ran before and are not there any more are told of: the bus has what was decided. One that is new is a
    // mistake.
    let missing = if applied.is_some() { missing_plugins(sources, (&base, prune))? } else { Vec::new() };
    let world: &dyn Surroundings = if missing.is_empty() { &World } else { &WithoutPlugins };
    let said = check_said_on(sources, world, &here()?, (&base, prune)).2;
    let has_seen = opened.has_seen(said, prune);
    let world = if missing.is_empty() && !has_seen { declared } else { world };
    let merged = look(sources, world, (&base, prune), !has_seen)?; // warnings were printed at the start before
    if let (Ok(merged), Some((plan, _)), false) = (&merged, &applied, missing.is_empty() || has_seen)
        && has_new_and_missing(&merged.plan, plan)?
    {
        look(sources, &World, (&base, prune), false)??;
        return Err(Failure::silent(Exit::BadConfiguration));
    }
    for why in &missing {
        tracing::warn!(why, "what was decided before runs where this plugin is");
    }
    let mut merged = match merged {
        Ok(merged) => merged,
        Err(_) if has_seen => {
            tracing::warn!(
                "the files say what they said at the last start and cannot be applied any more: the applied topology \
                 runs"
            );
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    with_secrets(&mut merged.plan, secrets)?;
    let (merged, components) = with_components(merged, folder)?;
    let files = Files::on(applied.as_ref(), merged, components, (said, prune));
    files.map(Some).map_err(|error| Failure::new(Exit::BadConfiguration, error))
}

/// Whether a plan names a missing plugin that the applied topology does not name.
fn has_new_and_missing(plan: &Plan, applied: &Plan) -> Result<bool, Failure> {
    fn plugins(plan: &Plan) -> impl Iterator<Item = &PathBuf> {
        plan.subscribers.iter().filter_map(|subscriber| match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) => Some(path),
            SubscriberKind::Plugin(PluginSource::Stored { .. })
            | SubscriberKind::Push { .. }
            | SubscriberKind::Pull => None,
        })
    }
    let known: BTreeSet<&PathBuf> = plugins(applied).collect();
    let plan = deploy::rooted(plan.clone(), &here()?);
    let is_there = |path: &PathBuf| matches!(World.at(path), PathKind::File | PathKind::Folder { manifest: true });
    Ok(plugins(&plan).any(|path| !is_there(path) && !known.contains(path)))
}

/// The messages about missing plugins, if files have no other problem.
fn missing_plugins(sources: &[Source], (base, prune): (&Base, bool)) -> Result<Vec<String>, Failure> {
    let (_, diagnostics, _) = check_said_on(sources, &World, &here()?, (base, prune));
    let errors: Vec<_> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    let are_all = errors.iter().all(|diagnostic| diagnostic.code == Code::PluginNotFound);
    Ok(errors.into_iter().filter(|_| are_all).map(|missing| missing.message).collect())
}

/// What was built of a source folder before. Where a data folder has what runs, one that was not built is only told of:
/// files propose, and this one proposes nothing.
pub(super) fn built_or_decided(opened: &OpenBus) -> impl FnMut(&Path) -> Result<PathBuf, String> {
    let is_applied = opened.applied().is_some();
    move |folder| {
        built(folder).or_else(|why| match is_applied {
            true => {
                tracing::warn!(why, "what was decided before runs where this plugin is");
                Ok(folder.to_owned())
            }
            false => Err(why),
        })
    }
}

/// The proposal of files on top of the applied topology.
pub(super) fn proposal(
    merged: MergedPlan,
    prune: bool,
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<Proposal, Failure> {
    let (merged, components) = with_components(merged, folder)?;
    Ok(Proposal { prune, ..Proposal::of_files(&merged, components) })
}

/// The same with absolute paths but for those of secrets, so that it means the same wherever it is read, and the
/// components of the subscribers that files declare, as [`of`].
fn with_components(
    mut merged: MergedPlan,
    folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<(MergedPlan, BTreeMap<String, Component>), Failure> {
    let here = here()?;
    merged.plan = deploy::rooted(merged.plan, &here);
    let declared = merged.plan.subscribers.iter().filter(|of| merged.subscribers.contains(&of.label()));
    let declared: Vec<_> = declared.collect();
    let components = of_each(&declared, folder)?.into_iter().map(|path| Component::File(here.join(path)));
    let components = declared.iter().map(|of| of.label()).zip(components).collect();
    Ok((merged, components))
}

/// The component of every subscriber, built where `folder` makes one from a source folder. Each folder is asked for
/// once. Everything that is missing is said at once.
pub(super) fn of(plan: &Plan, folder: impl FnMut(&Path) -> Result<PathBuf, String>) -> Result<Vec<PathBuf>, Failure> {
    of_each(&plan.subscribers.iter().collect::<Vec<_>>(), folder)
}

fn of_each(
    subscribers: &[&SubscriberPlan],
    mut folder: impl FnMut(&Path) -> Result<PathBuf, String>,
) -> Result<Vec<PathBuf>, Failure> {
    let mut known: BTreeMap<&PathBuf, Result<PathBuf, String>> = BTreeMap::new();
    let (mut components, mut errors) = (Vec::new(), Vec::new());
    for subscriber in subscribers {
        match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Wasm(path)) => components.push(path.clone()),
            SubscriberKind::Plugin(PluginSource::Folder(source)) => {
                let is_new = !known.contains_key(source);
                match known.entry(source).or_insert_with(|| folder(source)) {
                    Ok(path) => components.push(path.clone()),
                    Err(error) if is_new => errors.push(format!("subscriber `{}`: {error}", subscriber.label())),
                    Err(_) => {}
                }
            }
            SubscriberKind::Plugin(PluginSource::Stored { .. })
            | SubscriberKind::Push { .. }
            | SubscriberKind::Pull => {
                errors.push(format!("subscriber `{}` does not run a plugin file", subscriber.label()));
            }
        }
    }
    if errors.is_empty() { Ok(components) } else { Err(Failure::new(Exit::BadConfiguration, errors.join("\n"))) }
}

/// Why plugins of a plan that are built cannot be run, each in words. Nothing is built, and a file without a component
/// is skipped.
pub(super) fn misfits(sources: &[Source], plan: &Plan) -> Vec<String> {
    let mut known: BTreeMap<&PathBuf, Option<PathBuf>> = BTreeMap::new();
    let mut components = Vec::new();
    for subscriber in &plan.subscribers {
        let component = match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Folder(folder)) => {
                known.entry(folder).or_insert_with(|| built(folder).ok()).clone()
            }
            SubscriberKind::Plugin(PluginSource::Wasm(path)) => Some(path.clone()),
            SubscriberKind::Plugin(PluginSource::Stored { .. })
            | SubscriberKind::Push { .. }
            | SubscriberKind::Pull => None,
        };
        components.push(component.filter(|path| is_component(path)));
    }
    if components.iter().all(Option::is_none) {
        return Vec::new();
    }
    let mut plan = plan.clone();
    // What is not there, or in several places, is said of nothing that is only checked.
    let _ = secret_folders(&[], sources).and_then(|secrets| with_secrets(&mut plan, &secrets));
    match Host::new(args::authors_host()) {
        Ok(host) => deploy::misfits(&host, &plan, &components).iter().map(ToString::to_string).collect(),
        Err(error) => {
            tracing::warn!(%error, "plugins are not looked at");
            Vec::new()
        }
    }
}

/// Whether a file begins as components do. An empty or other file, which a build has yet to replace, is not looked
/// into.
fn is_component(path: &Path) -> bool {
    let mut head = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *b"\0asm"
}

/// The source folders of a plan, each once.
pub(super) fn folders(plan: &Plan) -> Vec<PathBuf> {
    let folder = |runs: &SubscriberKind| match runs {
        SubscriberKind::Plugin(PluginSource::Folder(folder)) => Some(folder.clone()),
        SubscriberKind::Plugin(PluginSource::Wasm(_) | PluginSource::Stored { .. })
        | SubscriberKind::Push { .. }
        | SubscriberKind::Pull => None,
    };
    let folders: BTreeSet<_> = plan.subscribers.iter().filter_map(|subscriber| folder(&subscriber.runs)).collect();
    folders.into_iter().collect()
}

/// The earlier build result of a source folder; nothing is built.
pub(super) fn built(folder: &Path) -> Result<PathBuf, String> {
    toolchain::built(folder).map_err(|error| error.to_string())
}

/// The plan of a topology, or everything that is wrong with it, in words.
pub(super) fn plan_of(topology: &Path) -> Result<Plan, String> {
    let sources = load(&[topology.to_owned()])
        .map_err(|errors| errors.iter().map(|error| format!("error: {error}")).collect::<Vec<_>>().join("\n"))?;
    let (plan, diagnostics) = check(&sources, &World);
    plan.ok_or_else(|| render::text(&sources, &diagnostics, Style { colour: true, width: WIDTH }))
}
