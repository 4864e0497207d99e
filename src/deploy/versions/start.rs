//! Chooses the versions with which a bus starts.
//!
//! ```text
//!   nothing decided yet ───────────────────────────> the file
//!   file and settings unchanged since they were ───> the decided versions; a candidate stays one
//!   last read, or pinned, or refused
//!   another file ──────────────────────────────────> the file as a candidate next to the stable version
//!   only other settings ───────────────────────────> the decided component with them, also as a candidate
//! ```
//!
//! Each version runs with the present content of its secret files. Where the applied topology starts, a decided version
//! that cannot be loaded, such as for a missing secret, halts the lanes of its subscriber and nothing else. And the
//! start does not wait for its compiler: see `compiling`. A new version is checked in full before anything runs.

use std::iter;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{Component, Digest};
use crate::deploy::compile::Compile;
use crate::deploy::error::{PluginError, StoredVersionError};
use crate::deploy::record::decided::{Decisions, SourceDigests, VersionRecord};
use crate::deploy::record::error::StoreError;
use crate::deploy::record::store::Store;
use crate::deploy::versions::source::{
    config, each, held, hidden, of_deployed, ports, read_component, settings, settings_spec, spec_of,
};
use crate::deploy::versions::terms;
use crate::deploy::versions::unavailable::{Loadable, LoadedVersions, UnavailableVersion};
use crate::dispatch::InitialVersions;
use crate::model::call::Handler as _;
use crate::topology::{ConfigValue, Plan, SubscriberPlan};
use crate::wasm::PluginSpec;

/// A version that replaces another when a bus starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The stable version.
    pub before: Digest,
    /// The new version.
    pub version: Digest,
}

/// After this time it is said what is compiled.
pub(super) const MOMENT: Duration = Duration::from_secs(1);

/// Why no versions can be started.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The errors of all plugins.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// The decision cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Progress of a plugin during a start, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is being compiled, or loaded from the cache.
    Compiling {
        /// The subscriber that runs it.
        subscriber: String,
    },
    /// It takes more than a moment.
    StillCompiling {
        /// The subscriber that runs it.
        subscriber: String,
        /// The size of its component.
        bytes: u64,
    },
    /// It is ready.
    Compiled {
        /// The subscriber that runs it.
        subscriber: String,
        /// The start of its version's digest.
        digest: String,
        took: Duration,
    },
}

/// The versions with which a bus starts.
#[derive(Debug)]
pub struct StartedVersions<H> {
    /// The decided versions.
    pub store: Store,
    /// The versions by subscriber, in order.
    pub starts: Vec<InitialVersions<Loadable<H>>>,
    /// A note for each subscriber.
    pub notes: Vec<Option<String>>,
}

/// The decided versions of a subscriber, and a note if one of them cannot be loaded.
type DecidedVersions<H> = (InitialVersions<Loadable<H>>, Option<String>);

/// The versions of one subscriber.
struct Choice<H> {
    starts: InitialVersions<Loadable<H>>,
    note: Option<String>,
    change: Change,
}

pub(crate) enum Change {
    None,
    /// The proposed version already runs.
    Seen(SourceDigests),
    /// The proposed version is the stable one, while another is the candidate.
    Back(SourceDigests),
    /// The first version.
    First(ProposedVersion),
    /// A candidate in N lanes, or in all.
    Try(ProposedVersion, Option<u32>),
    /// Replaces a version with which it cannot be compared.
    Replace(ProposedVersion),
}

/// A version to decide on.
pub(crate) struct ProposedVersion {
    pub(crate) kept: VersionRecord,
    wasm: Vec<u8>,
    said: SourceDigests,
}

/// The component that the topology names: the content of a file, or a stored one.
pub(super) struct NamedComponent {
    pub(super) digest: Digest,
    wasm: Vec<u8>,
}

impl NamedComponent {
    pub(super) fn of(wasm: Vec<u8>) -> Self {
        Self { digest: Digest::of(&wasm), wasm }
    }
}

impl Change {
    /// Which version replaces which.
    pub(crate) fn replaces(&self, store: &Store, subscriber: &str) -> Option<Replacement> {
        let (Self::Try(ProposedVersion { kept, .. }, _) | Self::Replace(ProposedVersion { kept, .. })) = self else {
            return None;
        };
        let before = store.decided(subscriber)?.proven;
        Some(Replacement { subscriber: subscriber.to_owned(), before, version: kept.version })
    }
}

struct StartContext<'a, C> {
    store: &'a Store,
    compiler: &'a C,
    now_ns: u64,
    /// Handlers are running: compile in the background.
    is_beside: bool,
    /// The plan is the applied one, which starts even if some of its versions cannot run.
    is_applied: bool,
    progress: &'a (dyn Fn(Progress) + Sync),
}

/// Decides durably which versions a bus starts with, and prepares them. `components` are those in the topology, one per
/// subscriber of the plan, in order.
///
/// # Errors
/// [`BeginError`]; then nothing was decided.
pub fn begin<C: Compile, P: Clone + Into<Component>>(
    store: Store,
    compiler: &C,
    plan: &Plan,
    components: &[P],
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<StartedVersions<C::Handler>, BeginError> {
    let components: Vec<Component> = components.iter().cloned().map(Into::into).collect();
    begin_with(store, compiler, plan, &components, progress, |_, _| Ok::<_, BeginError>(()))
}

/// As [`begin`], with a step `between` the check that all versions can run and the decision. It gets the replacements.
///
/// # Errors
/// [`BeginError`], or an error of the step; then the versions were not decided.
pub fn begin_with<C: Compile, F: From<BeginError>>(
    mut store: Store,
    compiler: &C,
    plan: &Plan,
    named: &[Component],
    progress: &(dyn Fn(Progress) + Sync),
    first: impl FnOnce(&mut Store, &[Replacement]) -> Result<(), F>,
) -> Result<StartedVersions<C::Handler>, F> {
    let renames = store.renames(plan);
    let is_applied = store.topology().is_some_and(|(applied, _)| applied == *plan);
    let choose_on = |store: &Store| {
        let view = store.view(&renames);
        let now_ns = view.clock().now_ns();
        let beginning = StartContext { store: &view, compiler, now_ns, is_beside: false, is_applied, progress };
        beginning.choose_all(plan, named, None).map_err(BeginError::Plugins)
    };
    let mut chosen = choose_on(&store)?;
    if let Err(error) = keep_all(&mut store, &chosen.changes) {
        if !error.is_for_room() || !store.has_room() {
            return Err(BeginError::from(error).into());
        }
        // A bus starts with its stored versions even if the disk is full.
        store.takes_no_more();
        chosen = choose_on(&store)?;
        keep_all(&mut store, &chosen.changes).map_err(BeginError::from)?;
    }
    let Choices { starts, notes, changes } = chosen;
    let view = store.view(&renames);
    let replaced: Vec<_> =
        changes.iter().filter_map(|(subscriber, change)| change.replaces(&view, subscriber)).collect();
    first(&mut store, &replaced)?;
    decide(&mut store, changes).map_err(BeginError::from)?;
    Ok(StartedVersions { store, starts, notes })
}

/// Stores the components of changes, all or none.
fn keep_all(store: &mut Store, changes: &[(String, Change)]) -> Result<(), StoreError> {
    for (at, (component, wasm)) in components(changes).enumerate() {
        if let Err(error) = store.keep(component, wasm) {
            components(changes).take(at).for_each(|(component, _)| store.release(component));
            return Err(error);
        }
    }
    Ok(())
}

/// Versions that can run, in the order of their subscribers. Nothing is decided yet.
pub(crate) struct Choices<H> {
    pub(crate) starts: Vec<InitialVersions<Loadable<H>>>,
    pub(crate) notes: Vec<Option<String>>,
    pub(crate) changes: Vec<(String, Change)>,
}

/// Prepares the versions of subscribers with these names, while others run.
pub(crate) fn choose<C: Compile>(
    store: &Store,
    compiler: &C,
    plan: &Plan,
    named: &[Component],
    only: &[String],
) -> Result<Choices<C::Handler>, Vec<PluginError>> {
    let (now_ns, is_beside, is_applied) = (store.clock().now_ns(), true, false);
    let beginning = StartContext { store, compiler, now_ns, is_beside, is_applied, progress: &|_| () };
    beginning.choose_all(plan, named, Some(only))
}

/// The components of changes, which must be stored before the decision.
pub(crate) fn components(changes: &[(String, Change)]) -> impl Iterator<Item = (Digest, &[u8])> {
    changes.iter().filter_map(|(_, change)| match change {
        Change::First(new) | Change::Try(new, _) | Change::Replace(new) => Some((new.kept.wasm, &*new.wasm)),
        Change::None | Change::Seen(_) | Change::Back(_) => None,
    })
}

/// Decides changes whose components are stored, durably and atomically.
pub(crate) fn decide(store: &mut Store, changes: Vec<(String, Change)>) -> Result<(), StoreError> {
    let kept: Vec<_> = components(&changes).map(|(component, _)| component).collect();
    let now_ns = store.clock().now_ns();
    let decided = store.change(|subscribers| {
        for (subscriber, change) in changes {
            let decided = subscribers.get_mut(&subscriber);
            match (change, decided) {
                (Change::None, _) | (Change::Seen(_) | Change::Back(_), None) => {}
                (Change::Back(said), Some(decided)) => {
                    decided.look_at(said);
                    decided.give_up_for_proven(now_ns);
                }
                (Change::Seen(said), Some(decided)) => decided.look_at(said),
                (Change::First(new) | Change::Try(new, _) | Change::Replace(new), None) => {
                    subscribers.insert(subscriber, Decisions::first(new.kept));
                }
                (Change::Try(new, lanes), Some(decided)) => {
                    decided.look_at(new.said);
                    decided.try_version(new.kept, lanes);
                }
                (Change::First(new) | Change::Replace(new), Some(decided)) => {
                    decided.look_at(new.said);
                    decided.replace(new.kept);
                }
            }
        }
    });
    kept.into_iter().for_each(|component| store.release(component));
    decided
}

fn no_room(subscriber: &str) -> PluginError {
    PluginError::Kept { subscriber: subscriber.to_owned(), error: StoredVersionError::Store(StoreError::NoRoom) }
}

impl<C: Compile> StartContext<'_, C> {
    /// Prepares the versions of a plan's subscribers: all of them, or those with these names.
    fn choose_all(
        &self,
        plan: &Plan,
        named: &[Component],
        only: Option<&[String]>,
    ) -> Result<Choices<C::Handler>, Vec<PluginError>> {
        let choices = each(plan, |index, subscriber| {
            if only.is_some_and(|only| !only.contains(&subscriber.label())) {
                return None;
            }
            Some(match named.get(index) {
                Some(component) => self.choose(subscriber, component),
                None => Err(vec![PluginError::Missing { subscriber: subscriber.label() }]),
            })
        });
        let mut chosen = Choices { starts: Vec::new(), notes: Vec::new(), changes: Vec::new() };
        let mut errors = Vec::new();
        for (choice, subscriber) in choices.into_iter().zip(&plan.subscribers) {
            match choice {
                Some(Ok(choice)) => {
                    chosen.starts.push(choice.starts);
                    chosen.notes.push(choice.note);
                    chosen.changes.push((subscriber.label(), choice.change));
                }
                Some(Err(found)) => errors.extend(found),
                None => {}
            }
        }
        if errors.is_empty() { Ok(chosen) } else { Err(errors) }
    }

    fn choose(&self, subscriber: &SubscriberPlan, named: &Component) -> Result<Choice<C::Handler>, Vec<PluginError>> {
        let name = subscriber.label();
        let Some(decided) = self.store.decided(&name) else {
            if !self.store.has_room() {
                return Err(vec![no_room(&name)]);
            }
            let spec = spec_of(subscriber, read_component(self.store, &name, named))?;
            let kept = self.kept(&spec, subscriber, named);
            let new = ProposedVersion { said: kept.said(), kept, wasm: spec.wasm.clone() };
            let proven = Loadable::Version(self.compile(spec, named)?);
            return Ok(Choice {
                starts: InitialVersions { proven, on_trial: None },
                note: None,
                change: Change::First(new),
            });
        };
        let found = read_component(self.store, &name, named).map(NamedComponent::of);
        let spec = settings_spec(subscriber);
        let said =
            SourceDigests { component: found.as_ref().ok().map(|found| found.digest), settings: settings(subscriber) };
        let (mut refused, mut found_file) = (Vec::new(), None);
        match found {
            Ok(found) => found_file = Some(found),
            Err(error) => refused.push(error),
        }
        let proposed = match (spec, decided.proposed(said)) {
            (Ok(_), Some(component)) if !self.store.has_room() && !decided.has_component(component) => {
                refused.push(no_room(&name));
                None
            }
            (Ok(spec), Some(component)) => Some((spec, component)),
            (Ok(_), None) => None,
            (Err(errors), _) => {
                refused.extend(errors);
                None
            }
        };
        if self.is_beside && !refused.is_empty() {
            return Err(refused); // the caller gets the error, and everything stays as it is
        }
        let mut change = if decided.looked_at.is_none() { Change::Seen(said) } else { Change::None };
        if let Some((spec, component)) = proposed {
            match self.proposed(subscriber, (named, found_file.as_ref()), decided, spec, (component, said)) {
                Ok(Some(choice)) => return Ok(choice),
                Ok(None) => change = Change::Seen(said),
                Err(errors) if self.is_beside => return Err(errors),
                Err(errors) => refused.extend(errors),
            }
        }
        // The decided version runs, whatever is wrong with the proposal.
        match self.decided(subscriber, decided, found_file.as_ref()) {
            Ok((starts, halted)) => {
                let words = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                let note = halted.or(Some(words).filter(|words| !words.is_empty()));
                match &note {
                    None => {}
                    // logged already
                    Some(_) if starts.proven.unavailable().is_some() && !starts.proven.is_compiling() => {}
                    // as on a disk that contains only the data
                    Some(words) if refused.iter().all(PluginError::is_gone) => {
                        tracing::warn!(subscriber = name, "the version that was decided before runs: {words}");
                    }
                    Some(words) => {
                        tracing::error!(subscriber = name, "the version that was decided before runs: {words}");
                    }
                }
                Ok(Choice { starts, note, change })
            }
            Err(error) => {
                refused.push(PluginError::Kept { subscriber: name, error });
                Err(refused)
            }
        }
    }

    /// A proposed component with the present settings becomes a candidate. `None` if both already run.
    fn proposed(
        &self,
        subscriber: &SubscriberPlan,
        (named, file): (&Component, Option<&NamedComponent>),
        decided: &Decisions,
        spec: PluginSpec,
        (component, said): (Digest, SourceDigests),
    ) -> Result<Option<Choice<C::Handler>>, Vec<PluginError>> {
        let name = subscriber.label();
        let not_kept =
            |error| vec![PluginError::Kept { subscriber: name.clone(), error: StoredVersionError::Store(error) }];
        let wasm = wasm_of(self.store, component, file).map_err(not_kept)?;
        let spec = PluginSpec { wasm: wasm.clone(), ..spec };
        let version = spec.digest();
        if decided.runs(version) {
            return Ok(None);
        }
        let has_file_component = file.is_some_and(|file| file.digest == component);
        let spec =
            held(spec).map_err(|errors| if has_file_component { errors } else { of_deployed(errors, &component) })?;
        let is_of_file = decided.is_of_file(said);
        let kept = match is_of_file {
            true => self.kept(&spec, subscriber, named),
            false => VersionRecord::new(&spec, &subscriber.config, (super::OTHER_SETTINGS, self.now_ns)),
        };
        let (handler, note) = (self.compile(spec, named)?, None);
        if version == decided.proven {
            let starts = InitialVersions { proven: Loadable::Version(handler), on_trial: None };
            return Ok(Some(Choice { starts, note, change: Change::Back(said) }));
        }
        let (digest, new) = (version.short(), ProposedVersion { kept, wasm, said });
        Ok(Some(match self.load(subscriber, decided, decided.proven, file) {
            Ok(proven) => {
                let what = if is_of_file { "the file of its plugin has changed" } else { super::OTHER_SETTINGS };
                tracing::info!(
                    subscriber = name,
                    digest,
                    component = component.short(),
                    "{what}: a new version is tried"
                );
                // a candidate for some lanes is not widened by this
                let lanes = decided.tried.filter(|_| decided.component() == Some(component)).and_then(|it| it.lanes);
                let terms = terms(subscriber.trial, lanes, Duration::ZERO);
                let loses_ports = proven.declares_ports() && !handler.declares_ports();
                let note = super::declares_no_outputs(version, &ports(subscriber)).filter(|_| loses_ports);
                let (proven, handler) = (Loadable::Version(proven), Loadable::Version(handler));
                let starts = InitialVersions { proven, on_trial: Some((handler, terms)) };
                Choice { starts, note, change: Change::Try(new, lanes) }
            }
            Err(error) => {
                tracing::warn!(subscriber = name, digest, %error, "the new version runs without a comparison");
                let starts = InitialVersions { proven: Loadable::Version(handler), on_trial: None };
                Choice { starts, note, change: Change::Replace(new) }
            }
        }))
    }

    fn decided(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decisions,
        file: Option<&NamedComponent>,
    ) -> Result<DecidedVersions<C::Handler>, StoredVersionError> {
        if let Some(compiling) = self.compiling(subscriber, decided, file) {
            return Ok((InitialVersions { proven: Loadable::Unavailable(compiling), on_trial: None }, None));
        }
        let LoadedVersions { proven, tried } = LoadedVersions {
            proven: self.load(subscriber, decided, decided.proven, file),
            tried: decided.tried.map(|tried| (tried, self.load(subscriber, decided, tried.version, file))),
        }
        .checked(self.compiler, decided, |component| wasm_of(self.store, component, file));
        let (proven, mut note) = match proven {
            Ok(handler) => (Loadable::Version(handler), None),
            Err(error) => {
                let unavailable = self.unavailable(subscriber, decided, error)?;
                let note = Some(unavailable.reason.to_string());
                (Loadable::Unavailable(unavailable), note)
            }
        };
        let on_trial = match tried {
            None => None,
            Some((tried, Ok(handler))) => {
                let passed = decided.tried_for(tried.version, self.now_ns);
                Some((Loadable::Version(handler), terms(subscriber.trial, tried.lanes, passed)))
            }
            Some((tried, Err(error))) if self.is_applied && error.is_repairable() => {
                let (subscriber, digest) = (subscriber.label(), tried.version.short());
                tracing::error!(subscriber, digest, %error, "the candidate cannot run until a later start");
                note.get_or_insert(format!("the candidate {digest} cannot run: {error}"));
                None
            }
            Some((_, Err(error))) => return Err(error),
        };
        Ok((InitialVersions { proven, on_trial }, note))
    }

    /// In place of the stable version, which cannot be loaded.
    fn unavailable(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decisions,
        error: StoredVersionError,
    ) -> Result<UnavailableVersion, StoredVersionError> {
        let (subscriber, version) = (subscriber.label(), decided.proven);
        let component = decided.find(version).map(|kept| kept.wasm);
        let Some(component) = component.filter(|_| self.is_applied && error.is_repairable()) else {
            return Err(error);
        };
        Ok(UnavailableVersion::halted(subscriber, version, component, &error))
    }

    /// In place of the decided versions, if the start need not wait until they are compiled: they ran before, with
    /// these ports and this configuration. `None` if there is nothing to wait for, or if they cannot even be read.
    fn compiling(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decisions,
        file: Option<&NamedComponent>,
    ) -> Option<UnavailableVersion> {
        if !self.is_applied {
            return None;
        }
        let mut is_compiled = true;
        for version in iter::once(decided.proven).chain(decided.tried.map(|tried| tried.version)) {
            kept_settings(subscriber, decided, version).ok()?;
            let component = decided.find(version)?.wasm;
            wasm_of(self.store, component, file).ok()?;
            is_compiled &= self.compiler.is_compiled(&component);
        }
        let component = decided.find(decided.proven)?.wasm;
        let compiling = || UnavailableVersion::compiling(subscriber.label(), decided.proven, component);
        (!is_compiled).then(compiling)
    }

    /// A stored version; its component may be the one in the file.
    fn load(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decisions,
        version: Digest,
        file: Option<&NamedComponent>,
    ) -> Result<C::Handler, StoredVersionError> {
        let spec = kept_settings(subscriber, decided, version)?;
        let component = decided.find(version).ok_or(StoredVersionError::Unknown { version })?.wasm;
        let wasm = wasm_of(self.store, component, file)?;
        self.timed(PluginSpec { wasm, ..spec }).map_err(StoredVersionError::Refused)
    }

    fn compile(&self, spec: PluginSpec, named: &Component) -> Result<C::Handler, Vec<PluginError>> {
        let (subscriber, component) = (spec.subscriber.clone(), named.clone());
        self.timed(spec).map_err(|error| vec![PluginError::Refused { subscriber, component, error }])
    }

    fn timed(&self, spec: PluginSpec) -> Result<C::Handler, crate::wasm::RegisterError> {
        let (subscriber, digest, began) = (spec.subscriber.clone(), spec.digest().short(), Instant::now());
        (self.progress)(Progress::Compiling { subscriber: subscriber.clone() });
        let slow = Progress::StillCompiling { subscriber: subscriber.clone(), bytes: spec.wasm.len() as u64 };
        let handler = match self.is_beside {
            true => self.compiler.compile_beside(spec)?,
            false => while_telling(|| (self.progress)(slow), || self.compiler.compile(spec))?,
        };
        (self.progress)(Progress::Compiled { subscriber, digest, took: began.elapsed() });
        Ok(handler)
    }

    fn kept(&self, spec: &PluginSpec, subscriber: &SubscriberPlan, named: &Component) -> VersionRecord {
        VersionRecord::new(spec, &subscriber.config, (&super::cause(named), self.now_ns))
    }
}

/// Does some work, and tells once if it takes more than a second.
pub fn while_telling<T>(tell: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            if ended.recv_timeout(MOMENT) == Err(mpsc::RecvTimeoutError::Timeout) {
                tell();
            }
        });
        let done = work();
        drop(end);
        done
    })
}

/// A component by hash, from the named one if it matches.
pub(super) fn wasm_of(store: &Store, component: Digest, file: Option<&NamedComponent>) -> Result<Vec<u8>, StoreError> {
    match file.filter(|file| file.digest == component) {
        Some(file) => Ok(file.wasm.clone()),
        None => store.component(component),
    }
}

/// The specification of a stored version, with those settings of the topology that are not part of the version.
pub(crate) fn kept_spec(
    store: &Store,
    subscriber: &SubscriberPlan,
    decided: &Decisions,
    version: Digest,
) -> Result<PluginSpec, StoredVersionError> {
    let spec = kept_settings(subscriber, decided, version)?;
    let component = decided.find(version).ok_or(StoredVersionError::Unknown { version })?.wasm;
    Ok(PluginSpec { wasm: store.component(component)?, ..spec })
}

/// As [`kept_spec`], without the component. Secrets are read from the files that the topology names.
fn kept_settings(
    subscriber: &SubscriberPlan,
    decided: &Decisions,
    version: Digest,
) -> Result<PluginSpec, StoredVersionError> {
    let kept = decided.find(version).ok_or(StoredVersionError::Unknown { version })?;
    if kept.ports != ports(subscriber) {
        let (has, topology) = (kept.ports.join(", "), ports(subscriber).join(", "));
        return Err(StoredVersionError::Ports { version, has, topology });
    }
    let mut values = kept.config_values();
    for (name, value) in &mut values {
        match (&*value, subscriber.config.get(name)) {
            (ConfigValue::SecretFile(_), Some(now @ ConfigValue::SecretFile(_))) => *value = now.clone(),
            (ConfigValue::Text(text), Some(ConfigValue::Variable { written, .. })) => {
                *value = ConfigValue::Variable { text: text.clone(), written: written.clone() };
            }
            _ => {}
        }
    }
    let name = subscriber.label();
    let config = config(&name, &values).map_err(StoredVersionError::Source)?;
    let (ports, limits) = (kept.ports.clone(), kept.limits.into());
    Ok(PluginSpec { subscriber: name, wasm: Vec::new(), config, hidden: hidden(&values), ports, limits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_longer_than_a_moment_is_told_and_other_is_not() {
        let (tell, told) = mpsc::channel();
        let was_told = while_telling(move || _ = tell.send(()), || told.recv_timeout(60 * MOMENT).is_ok());
        assert!(was_told);
        let (tell, told) = mpsc::channel();
        while_telling(move || _ = tell.send(()), || ());
        assert!(told.recv().is_err());
    }
}
