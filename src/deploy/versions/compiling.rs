//! Compiles the decided versions for which a start did not wait, while everything else runs.
//!
//! Promises: events of their subscribers wait meanwhile; if a version cannot be compiled, only its lanes halt, and the
//! status gives the reason. A stable version and its candidate are called from the same moment on. Priority is normal,
//! although lanes of other subscribers run: events wait for these versions.

use std::convert::Infallible;
use std::future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::api::Digest;
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::record::decided::Decisions;
use crate::deploy::reloader::{Reloader, Subject};
use crate::deploy::versions::deploy::not_called;
use crate::deploy::versions::start::MOMENT;
use crate::deploy::versions::terms;
use crate::deploy::versions::unavailable::{Loadable, LoadedVersions, UnavailableVersion};
use crate::engine::Engine;
use crate::model::units::show_rough_size;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Compiles them in tasks, as many at once as there are cores.
    pub(crate) fn compile_waiting(&self) {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let seats = Arc::new(Semaphore::new(cores));
        for (index, subject) in self.all().into_iter().enumerate() {
            if !self.is_compiling(&subject) {
                continue;
            }
            let (reloader, seats) = (self.clone(), seats.clone());
            let compiling = async move {
                let seat = async { seats.acquire().await.map_err(|_| ReloadError::Closed) };
                let Ok(_seat) = reloader.unless_closing(seat).await else { return };
                match reloader.compile_one(index, &subject).await {
                    Ok(()) | Err(ReloadError::Closed) => {}
                    Err(error) => {
                        let subscriber = &subject.name;
                        tracing::error!(subscriber, %error, "the deployed version is not called");
                        reloader.note(&subject, Some(error.to_string()));
                    }
                }
            };
            self.shared.tasks.spawn_on(compiling, &self.shared.runtime);
        }
    }

    fn is_compiling(&self, subject: &Subject) -> bool {
        self.running(subject).is_ok_and(|running| running.versions().called().is_compiling)
    }

    async fn compile_one(&self, index: usize, subject: &Subject) -> Result<(), ReloadError> {
        let _turn = self.unless_closing(self.own_turn(subject)).await?;
        if !self.is_compiling(subject) {
            return Ok(()); // another version was deployed meanwhile
        }
        let (began, plan, name) = (Instant::now(), subject.plan(), subject.name.clone());
        let compiling = self.blocking(move |reloader| {
            let Some(decided) = reloader.store().decided(&name).cloned() else { return Ok(None) };
            let compiled = |version: Digest| reloader.kept_by(&plan, version, C::compile);
            let loaded = LoadedVersions {
                proven: compiled(decided.proven),
                tried: decided.tried.map(|tried| (tried, compiled(tried.version))),
            };
            let component = |component| reloader.store().component(component);
            let loaded = loaded.checked(&reloader.shared.compiler, &decided, component);
            Ok(Some((decided, loaded)))
        });
        let compiling = self.unless_closing(compiling);
        let compiled = tokio::select! {
            biased;
            compiled = compiling => compiled?,
            never = self.tell_slow(subject) => match never {},
        };
        let Some((decided, LoadedVersions { proven, tried })) = compiled else { return Ok(()) };
        let running = self.running(subject)?;
        let not_called = |error| not_called(&subject.name, decided.newest(), error);
        let (subscriber, digest) = (&subject.name, decided.newest().short());
        let is_ready = proven.is_ok();
        let (proven, mut note) = match proven {
            Ok(handler) => (Loadable::Version(handler), None),
            Err(error) => {
                let component = decided.find(decided.proven).map_or(decided.proven, |kept| kept.wasm);
                let halted = UnavailableVersion::halted(subject.name.clone(), decided.proven, component, &error);
                let note = halted.reason.to_string();
                (Loadable::Unavailable(halted), Some(note))
            }
        };
        match tried {
            None => running.versions().run(proven).await.map_err(not_called)?,
            Some((tried, Ok(candidate))) => {
                let passed = decided.tried_for(tried.version, self.shared.clock.now_ns());
                let terms = terms(subject.plan().trial, tried.lanes, passed);
                let trial = running.versions().run_with_trial(proven, (candidate, terms)).await.map_err(not_called)?;
                self.judge(index, trial);
            }
            Some((tried, Err(error))) => {
                running.versions().run(proven).await.map_err(not_called)?;
                let digest = tried.version.short();
                tracing::error!(subscriber, digest, %error, "the candidate cannot run until a later start");
                note.get_or_insert(format!("the candidate {digest} cannot run: {error}"));
            }
        }
        if note.is_some() {
            self.note(subject, note);
        }
        if is_ready {
            tracing::info!(subscriber, digest, took = ?began.elapsed(), "plugin ready");
        }
        Ok(())
    }

    /// Logs what is compiled, if that takes more than a moment. Does not end.
    async fn tell_slow(&self, subject: &Subject) -> Infallible {
        tokio::time::sleep(MOMENT).await;
        let component = self.shown().0.subscribers.get(&subject.name).and_then(Decisions::component);
        let bytes = match component {
            Some(component) => self.component_bytes(component).await.ok(),
            None => None,
        };
        let size = bytes.map(|bytes| format!(" ({})", show_rough_size(bytes))).unwrap_or_default();
        tracing::info!("compiling {}{size}…", subject.name);
        future::pending().await
    }
}
