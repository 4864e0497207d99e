//! The subscribers whose versions are managed, following changes of the topology.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Proposal;
use crate::deploy::compile::Compile;
use crate::deploy::record::store::Store;
use crate::deploy::reloader::{Reloader, ReloaderInner, Subject};
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Manages the versions of a tree that was started with the result of [`super::begin`]. Tasks run on `runtime`.
    pub(crate) fn run_versions(
        tree: Tree<E>,
        compiler: C,
        plan: &Plan,
        (store, notes): (Store, Vec<Option<String>>),
        runtime: &Handle,
    ) -> Self {
        let subject = |subscriber: &SubscriberPlan| Arc::new(Subject::new(plan, subscriber));
        let applied = store.topology().map(|(plan, components)| Arc::new(Proposal::of(&plan, &components)));
        let shared = ReloaderInner {
            tree,
            compiler,
            clock: store.clock().clone(),
            shown: store.shown(),
            store: Mutex::new(store),
            subjects: RwLock::new(plan.subscribers.iter().map(subject).collect()),
            applying: tokio::sync::Mutex::new(()),
            is_unfinished: AtomicBool::new(false),
            history: Mutex::default(),
            files_refused: Mutex::default(),
            secrets: RwLock::default(),
            forgotten: Sender::default(),
            topology: Sender::new(applied.unwrap_or_default()),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: runtime.clone(),
        };
        let reloader = Self { shared: Arc::new(shared) };
        for (index, note) in (0..).zip(notes) {
            let Ok(subject) = reloader.at(index) else { continue };
            reloader.note(&subject, note);
            if let Ok(Some(trial)) = reloader.running(&subject).map(|running| running.versions().trial()) {
                reloader.judge(index, trial);
            }
        }
        reloader.go_on_forgetting();
        reloader
    }

    /// Follows another plan, with notes for the subscribers that it started, by name.
    pub(crate) fn follow(&self, plan: &Plan, mut notes: BTreeMap<String, Option<String>>) {
        for subscriber in &plan.subscribers {
            let name = subscriber.label();
            let Some(note) = notes.remove(&name) else {
                if let Some(subject) = self.all().iter().find(|subject| subject.name == name) {
                    subject.follow(plan, subscriber);
                }
                continue;
            };
            let (index, subject) = {
                let mut subjects = self.shared.subjects.write().unwrap_or_else(PoisonError::into_inner);
                let known = subjects.iter().position(|subject| subject.name == name);
                let index = known.unwrap_or_else(|| {
                    subjects.push(Arc::new(Subject::new(plan, subscriber)));
                    subjects.len() - 1
                });
                let Some(subject) = subjects.get(index).cloned() else { continue };
                (index, subject)
            };
            subject.follow(plan, subscriber);
            self.note(&subject, note);
            if let Ok(Some(trial)) = self.running(&subject).map(|running| running.versions().trial()) {
                self.judge(index, trial);
            }
        }
    }
}
