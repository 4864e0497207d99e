//! Which versions a bus starts with.
//!
//! ```text
//!   nothing decided yet ───────────────────────────> the file
//!   the file is as when it was looked at last, ────> what was decided; what was on trial is again
//!   or pinned away, or refused
//!   the file is another ───────────────────────────> the file, on trial beside what was proven
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::{Decided, Kept};
use super::source::{PluginError, config, each, ports, spec_of_file};
use super::store::{Store, StoreError};
use super::{Compile, KeptError, Replaced};
use crate::dispatch::{Starts, Terms};
use crate::effects::{Clock, SystemClock};
use crate::topology::{Plan, SubscriberPlan};
use crate::wasm::{Digest, PluginSpec};

/// Why there are no versions to start with.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Plugins, all that do not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// What was decided cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What happens to a plugin during a start, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is being compiled, or loaded as it was compiled before.
    Compiling {
        /// The subscriber that runs it.
        subscriber: String,
    },
    /// It is ready.
    Compiled {
        /// The subscriber that runs it.
        subscriber: String,
        /// The start of its version's digest.
        digest: String,
        /// How long that took.
        took: Duration,
    },
}

/// What a bus starts with.
#[derive(Debug)]
pub struct Begun<H> {
    /// What was decided.
    pub store: Store,
    /// The versions, by subscriber in the plan's order.
    pub starts: Vec<Starts<H>>,
    /// What is to be said of each subscriber.
    pub notes: Vec<Option<String>>,
}

/// What one subscriber starts with.
struct Choice<H> {
    starts: Starts<H>,
    note: Option<String>,
    change: Change,
}

pub(super) enum Change {
    None,
    /// The file is what runs already.
    Seen(Digest),
    /// The file is what was proven, and another was on trial.
    Back,
    /// The first version.
    First(Kept, Vec<u8>),
    /// On trial.
    Try(Kept, Vec<u8>),
    /// In place of one that cannot be compared with.
    Replace(Kept, Vec<u8>),
}

impl Change {
    /// Which version comes in place of which.
    pub(super) fn replaces(&self, store: &Store, subscriber: &str) -> Option<Replaced> {
        let (Self::Try(kept, _) | Self::Replace(kept, _)) = self else { return None };
        let before = store.decided(subscriber)?.proven;
        Some(Replaced { subscriber: subscriber.to_owned(), before, version: kept.version })
    }
}

struct Beginning<'a, C> {
    store: &'a Store,
    compiler: &'a C,
    events: u64,
    now_ns: u64,
    /// Handlers run beside.
    is_beside: bool,
    progress: &'a (dyn Fn(Progress) + Sync),
}

/// Decides which versions a bus starts with, durably, and has them ready. `files` are the components that the topology names,
/// one for each subscriber of the plan, in its order; a version on trial has to handle so many `events`.
///
/// # Errors
/// [`BeginError`]; nothing was decided then.
pub fn begin<C: Compile>(
    store: Store,
    compiler: &C,
    plan: &Plan,
    files: &[PathBuf],
    events: u64,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Begun<C::Handler>, BeginError> {
    begin_with(store, compiler, plan, files, events, progress, |_, _| Ok::<_, BeginError>(()))
}

/// As [`begin`], with something that is to be done and decided once it is certain that all of them can run, and before it is
/// decided which ones do: it is told which ones take the place of others.
///
/// # Errors
/// [`BeginError`], and those of that; which versions run was not decided then.
pub fn begin_with<C: Compile, F: From<BeginError>>(
    mut store: Store,
    compiler: &C,
    plan: &Plan,
    files: &[PathBuf],
    events: u64,
    progress: &(dyn Fn(Progress) + Sync),
    first: impl FnOnce(&mut Store, &[Replaced]) -> Result<(), F>,
) -> Result<Begun<C::Handler>, F> {
    let renames = store.renames(plan);
    let chosen = choose(&store.view(&renames), compiler, plan, files, events, None, progress);
    let Chosen { starts, notes, changes } = chosen.map_err(BeginError::Plugins)?;
    keep(&mut store, &changes).map_err(BeginError::from)?;
    let view = store.view(&renames);
    let replaced: Vec<_> =
        changes.iter().filter_map(|(subscriber, change)| change.replaces(&view, subscriber)).collect();
    first(&mut store, &replaced)?;
    decide(&mut store, changes).map_err(BeginError::from)?;
    Ok(Begun { store, starts, notes })
}

/// Versions that can run, in the order of their subscribers. Nothing is decided.
pub(super) struct Chosen<H> {
    pub(super) starts: Vec<Starts<H>>,
    pub(super) notes: Vec<Option<String>>,
    pub(super) changes: Vec<(String, Change)>,
}

/// Has the versions ready that subscribers of a plan are to run: all of them, or beside others those of these names.
pub(super) fn choose<C: Compile>(
    store: &Store,
    compiler: &C,
    plan: &Plan,
    files: &[PathBuf],
    events: u64,
    only: Option<&[String]>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Chosen<C::Handler>, Vec<PluginError>> {
    let now_ns = SystemClock.now_ns();
    let beginning = Beginning { store, compiler, events, now_ns, is_beside: only.is_some(), progress };
    let choices = each(plan, |index, subscriber| {
        if only.is_some_and(|only| !only.contains(&subscriber.label())) {
            return None;
        }
        Some(match files.get(index) {
            Some(file) => beginning.choose(subscriber, file),
            None => Err(vec![PluginError::Missing { subscriber: subscriber.label() }]),
        })
    });
    let mut chosen = Chosen { starts: Vec::new(), notes: Vec::new(), changes: Vec::new() };
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

/// Keeps the components of what changes, durably.
pub(super) fn keep(store: &mut Store, changes: &[(String, Change)]) -> Result<(), StoreError> {
    for (_, change) in changes {
        if let Change::First(kept, wasm) | Change::Try(kept, wasm) | Change::Replace(kept, wasm) = change {
            store.keep(kept.wasm, wasm)?;
        }
    }
    Ok(())
}

/// Decides on what changes, durably and at once.
pub(super) fn decide(store: &mut Store, changes: Vec<(String, Change)>) -> Result<(), StoreError> {
    store.change(|subscribers| {
        for (subscriber, change) in changes {
            let decided = subscribers.get_mut(&subscriber);
            match (change, decided) {
                (Change::None, _) | (Change::Seen(_) | Change::Back, None) => {}
                (Change::Back, Some(decided)) => decided.give_up_for_proven(true),
                (Change::Seen(version), Some(decided)) => decided.seen = Some(version),
                (Change::First(kept, _) | Change::Try(kept, _) | Change::Replace(kept, _), None) => {
                    subscribers.insert(subscriber, Decided::first(kept));
                }
                (Change::Try(kept, _), Some(decided)) => {
                    decided.seen = Some(kept.version);
                    decided.try_version(kept, None);
                }
                (Change::First(kept, _) | Change::Replace(kept, _), Some(decided)) => {
                    decided.seen = Some(kept.version);
                    decided.replace(kept);
                }
            }
        }
    })
}

impl<C: Compile> Beginning<'_, C> {
    fn choose(&self, subscriber: &SubscriberPlan, file: &Path) -> Result<Choice<C::Handler>, Vec<PluginError>> {
        let name = subscriber.label();
        let proposed = spec_of_file(subscriber, file);
        let Some(decided) = self.store.decided(&name) else {
            let spec = proposed?;
            let change = Change::First(self.kept(&spec, subscriber, file), spec.wasm.clone());
            let proven = self.compile(spec, file)?;
            return Ok(Choice { starts: Starts { proven, on_trial: None }, note: None, change });
        };
        let is_fresh = |spec: &&PluginSpec| {
            let version = spec.digest();
            !decided.is_pinned && decided.seen != Some(version) && !decided.runs(version)
        };
        let refused = match proposed.as_ref().ok().filter(is_fresh) {
            Some(spec) if spec.digest() == decided.proven => {
                let proven = self.compile(spec.clone(), file)?;
                return Ok(Choice { starts: Starts { proven, on_trial: None }, note: None, change: Change::Back });
            }
            Some(spec) => match self.compile(spec.clone(), file) {
                Ok(handler) => return Ok(self.proposed(subscriber, file, spec, decided, handler)),
                Err(errors) => Some(errors),
            },
            None => None,
        };
        let (spec, refused) = match (proposed, refused) {
            // Beside others there is somebody to say it to, and all goes on as it is.
            (Ok(_), Some(errors)) | (Err(errors), _) if self.is_beside => return Err(errors),
            (Ok(spec), refused) => (Some(spec), refused),
            (Err(errors), _) => (None, Some(errors)),
        };
        // What was decided goes on, whatever is the matter with the file.
        match self.decided(subscriber, decided, spec.as_ref()) {
            Ok(starts) => {
                let note = refused.map(|errors| {
                    let words = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    tracing::error!(subscriber = name, "what was decided before runs: {words}");
                    words
                });
                let version = spec.as_ref().map(PluginSpec::digest).filter(|version| decided.runs(*version));
                let change = version.map_or(Change::None, Change::Seen);
                Ok(Choice { starts, note, change })
            }
            Err(error) => {
                let mut errors = refused.unwrap_or_default();
                errors.push(PluginError::Kept { subscriber: name, error });
                Err(errors)
            }
        }
    }

    /// The file is another than it was: it is tried.
    fn proposed(
        &self,
        subscriber: &SubscriberPlan,
        file: &Path,
        spec: &PluginSpec,
        decided: &Decided,
        handler: C::Handler,
    ) -> Choice<C::Handler> {
        let (kept, wasm) = (self.kept(spec, subscriber, file), spec.wasm.clone());
        let (name, digest) = (subscriber.label(), kept.version.short());
        match self.load(subscriber, decided, decided.proven, None) {
            Ok(proven) => {
                tracing::info!(
                    subscriber = name,
                    digest,
                    "the file of its plugin has changed: the new version is tried"
                );
                let terms = Terms { events: self.events, lanes: None };
                let starts = Starts { proven, on_trial: Some((handler, terms)) };
                Choice { starts, note: None, change: Change::Try(kept, wasm) }
            }
            Err(error) => {
                tracing::warn!(subscriber = name, digest, %error, "the new version runs without being compared with the one before");
                let starts = Starts { proven: handler, on_trial: None };
                Choice { starts, note: None, change: Change::Replace(kept, wasm) }
            }
        }
    }

    /// What was decided before.
    fn decided(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decided,
        file_spec: Option<&PluginSpec>,
    ) -> Result<Starts<C::Handler>, KeptError> {
        let proven = self.load(subscriber, decided, decided.proven, file_spec)?;
        let on_trial = match decided.tried {
            None => None,
            Some(tried) => {
                let handler = self.load(subscriber, decided, tried.version, file_spec)?;
                Some((handler, Terms { events: self.events, lanes: tried.lanes }))
            }
        };
        Ok(Starts { proven, on_trial })
    }

    /// A version that is kept, or the file where it is the same.
    fn load(
        &self,
        subscriber: &SubscriberPlan,
        decided: &Decided,
        version: Digest,
        file_spec: Option<&PluginSpec>,
    ) -> Result<C::Handler, KeptError> {
        let spec = match file_spec.filter(|spec| spec.digest() == version) {
            Some(spec) => spec.clone(),
            None => kept_spec(self.store, subscriber, decided, version)?,
        };
        self.timed(spec).map_err(KeptError::Refused)
    }

    fn compile(&self, spec: PluginSpec, file: &Path) -> Result<C::Handler, Vec<PluginError>> {
        let subscriber = spec.subscriber.clone();
        self.timed(spec).map_err(|error| vec![PluginError::Refused { subscriber, path: file.to_owned(), error }])
    }

    fn timed(&self, spec: PluginSpec) -> Result<C::Handler, crate::wasm::RegisterError> {
        let (subscriber, digest, began) = (spec.subscriber.clone(), spec.digest().short(), Instant::now());
        (self.progress)(Progress::Compiling { subscriber: subscriber.clone() });
        let handler = match self.is_beside {
            true => self.compiler.compile_beside(spec)?,
            false => self.compiler.compile(spec)?,
        };
        (self.progress)(Progress::Compiled { subscriber, digest, took: began.elapsed() });
        Ok(handler)
    }

    fn kept(&self, spec: &PluginSpec, subscriber: &SubscriberPlan, file: &Path) -> Kept {
        Kept::new(spec, &subscriber.config, (&super::cause_of_file(file), self.now_ns))
    }
}

/// A version that is kept, with what the topology says where that does not belong to the version.
pub(super) fn kept_spec(
    store: &Store,
    subscriber: &SubscriberPlan,
    decided: &Decided,
    version: Digest,
) -> Result<PluginSpec, KeptError> {
    let kept = decided.find(version).ok_or(KeptError::Unknown { version })?;
    if kept.ports != ports(subscriber) {
        let (has, topology) = (kept.ports.join(", "), ports(subscriber).join(", "));
        return Err(KeptError::Ports { version, has, topology });
    }
    let config = config(&subscriber.label(), &kept.config_values()).map_err(KeptError::Source)?;
    let wasm = store.component(kept.wasm)?;
    let (subscriber, ports, limits) = (subscriber.label(), kept.ports.clone(), kept.limits.into());
    let spec = PluginSpec { subscriber, wasm, config, ports, limits };
    if spec.digest() != version {
        return Err(KeptError::Secrets { version });
    }
    Ok(spec)
}
