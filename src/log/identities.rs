//! The checkpointer's part of deduplication: writes the identities since the last checkpoint as runs, and removes runs
//! that are outside of their window.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::runs::{Generation, Hashing, Horizon, StoredRuns, TopicRuns};
use super::store::{Changes, Contents, IdentityRow, StoreError, StoreReader};
use super::window::Batch;
use super::{LogInner, Settings};
use crate::model::TopicId;

/// The runs of all topics, and the identities that are not in a run yet.
pub(super) struct Identities {
    hashing: Hashing,
    sealed: StoredRuns,
    pending: BTreeMap<TopicId, Vec<Batch>>,
    pending_bytes: usize,
    /// Rows in the format before runs: their content is pending.
    old_rows: Vec<(TopicId, u64)>,
}

/// The runs of topics that a checkpoint changes.
pub(super) type ChangedRuns = BTreeMap<TopicId, Arc<TopicRuns>>;

/// The identities of each topic in the format before runs, in the order of the events.
pub(super) fn old_batches(contents: &Contents) -> impl Iterator<Item = (TopicId, Batch)> {
    contents.old_identities.iter().map(|(topic, all)| {
        let events: Vec<IdentityRow> = all.iter().flat_map(|(_, events)| events.iter().copied()).collect();
        (*topic, Batch::of(contents.runs.get(topic).map_or(0, TopicRuns::next_number), &events))
    })
}

impl Identities {
    pub(super) fn new(contents: &Contents, hashing: Hashing) -> Self {
        let topics = contents.runs.iter().map(|(topic, runs)| (*topic, Arc::new(runs.clone()))).collect();
        let mut sealed = StoredRuns { position: 0, topics };
        sealed.keep_within(hashing.options.filter_bytes_max);
        let old_rows = contents.old_identities.iter();
        let old_rows = old_rows.flat_map(|(topic, all)| all.iter().map(|(position, _)| (*topic, *position))).collect();
        let mut identities = Self { hashing, sealed, pending: BTreeMap::new(), pending_bytes: 0, old_rows };
        for (topic, batch) in old_batches(contents) {
            identities.pending.entry(topic).or_default().push(batch);
        }
        identities
    }

    pub(super) fn sealed(&self) -> Arc<StoredRuns> {
        Arc::new(self.sealed.clone())
    }

    /// Bytes of the identities since the last checkpoint.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Takes the identities of moved groups. A topic without settings keeps them: a replay makes checkpoints before the
    /// log is configured.
    pub(super) fn take<'a>(&mut self, settings: &Settings, moved: impl Iterator<Item = &'a (TopicId, Batch)>) {
        for (topic, batch) in moved {
            if settings.gone.contains_key(topic)
                || settings.topics.get(topic).is_some_and(|settings| settings.dedupe.is_none())
            {
                continue;
            }
            self.pending_bytes += batch.bytes();
            self.pending.entry(*topic).or_default().push(batch.clone());
        }
    }

    /// The horizon of a topic's window; `None`: the topic does not deduplicate.
    fn horizon(&self, settings: &Settings, topic: TopicId, now_ns: u64) -> Option<Horizon> {
        let last = self.pending.get(&topic).and_then(|batches| batches.last());
        let next_number = || match (last, self.sealed.topics.get(&topic)) {
            (Some(batch), _) => batch.end_number(),
            (None, runs) => runs.map_or(0, |runs| runs.next_number()),
        };
        match settings.topics.get(&topic) {
            _ if settings.gone.contains_key(&topic) => None,
            None => Some(Horizon::everything()),
            Some(settings) => settings.dedupe.map(|dedupe| Horizon::new(dedupe, now_ns, next_number())),
        }
    }

    /// Writes pending identities and forgets old ones, as changes of a checkpoint. They take effect with
    /// [`Self::happened`].
    pub(super) fn seal(
        &self,
        settings: &Settings,
        now_ns: u64,
        store: &StoreReader,
        changes: &mut Changes,
    ) -> Result<ChangedRuns, StoreError> {
        let position = changes.checkpoint.link.position;
        let options = &self.hashing.options;
        let mut resealed = ChangedRuns::new();
        let topics: BTreeSet<TopicId> = self.pending.keys().chain(self.sealed.topics.keys()).copied().collect();
        for topic in topics {
            let known = self.sealed.topics.get(&topic);
            let pending = self.pending.get(&topic).map(Vec::as_slice).unwrap_or_default();
            let horizon = self.horizon(settings, topic, now_ns);
            let is_old = known.is_some_and(|runs| horizon.is_none_or(|horizon| runs.is_old(horizon)));
            if pending.is_empty() && !is_old {
                continue; // the usual case: nothing is copied
            }
            let mut runs = known.map(|runs| TopicRuns::clone(runs)).unwrap_or_default();
            let mut gone: Vec<u64>;
            if let Some(horizon) = horizon {
                gone = runs.forget(horizon, options);
                let is_kept = |row: &IdentityRow| horizon.has(row.trusted_time_ns, row.number);
                let mut rows: Vec<IdentityRow> = pending.iter().flat_map(Batch::events).filter(is_kept).collect();
                for run in if rows.is_empty() { Vec::new() } else { runs.take_small(rows.len(), options) } {
                    rows.extend(store.run(topic, run.position)?.into_iter().filter(is_kept));
                    gone.push(run.position);
                }
                if !rows.is_empty() {
                    // of several rows with one identity, the last one counts
                    rows.sort_unstable_by_key(|row| (row.identity, Reverse(row.number)));
                    rows.dedup_by_key(|row| row.identity);
                    runs.push(Generation::of(position, &rows, &self.hashing), options);
                    changes.runs.push((topic, position, rows));
                    std::thread::yield_now(); // lets threads run whose sync has finished
                }
            } else {
                gone = runs.positions().collect();
                runs = TopicRuns::default();
            }
            changes.runs_gone.extend(gone.into_iter().map(|position| (topic, position)));
            resealed.insert(topic, Arc::new(runs));
        }
        changes.old_identities_gone.clone_from(&self.old_rows);
        Ok(resealed)
    }

    /// A checkpoint at this position is durable: publishes the new runs.
    pub(super) fn happened(&mut self, shared: &LogInner, position: u64, resealed: ChangedRuns) {
        for (topic, runs) in resealed {
            match runs.is_empty() {
                true => drop(self.sealed.topics.remove(&topic)),
                false => drop(self.sealed.topics.insert(topic, runs)),
            }
        }
        self.sealed.position = position;
        self.sealed.keep_within(self.hashing.options.filter_bytes_max);
        (self.pending, self.pending_bytes, self.old_rows) = (BTreeMap::new(), 0, Vec::new());
        shared.set_sealed(self.sealed());
    }
}
