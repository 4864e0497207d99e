//! Runs one version over events, like a lane, without committing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use xxhash_rust::xxh3;

use super::record::Selection;
use super::{ShadowError, TopicNames, output_of};
use crate::api::{Cost, ShadowResult, StateOfPartition};
use crate::dispatch::lane::batch::{BatchEvent, Context, ParsedEvent, call_events, content_type};
use crate::dispatch::lane::failure::LastFailure;
use crate::dispatch::lane::outputs::{Emitter, Fit};
use crate::dispatch::lane::state::{entry_bytes, too_large};
use crate::dispatch::ops::subscriber::Subscriber;
use crate::engine::Engine;
use crate::model::call::{
    Batch, HandleError, Handled, Handler, Keys, Output, Reads, StateError, StateView, StateWrite,
};
use crate::model::slices::records;
use crate::topology::{StatePlan, SubscriberPlan};

/// Maximum number of events in a call: enough to reveal a dependence on batches, and few enough to find a failing event
/// quickly.
const CALL_EVENTS_MAX: u64 = 64;

/// The result of a version for an event.
pub(super) struct EventRun {
    /// Index of the event.
    pub(super) at: usize,
    pub(super) seen: ShadowResult,
    /// Whether it has read its state.
    pub(super) has_read: bool,
}

/// Runs versions over the events of one partition.
pub(super) struct Runner {
    held: Arc<Vec<BatchEvent>>,
    partition: u32,
    plan: SubscriberPlan,
    emitter: Emitter,
    topics: TopicNames,
}

impl<E: Engine> Subscriber<E> {
    pub(super) fn runner(&self, part: &Selection) -> Option<Runner> {
        let (held, partition) = (part.held.clone(), part.partition);
        let (plan, emitter, topics) = (self.plan().clone(), self.emitter(partition)?, self.topics_behind());
        Some(Runner { held, partition, plan, emitter, topics })
    }
}

impl Runner {
    /// Runs a version over its copy of the state. Returns one [`EventRun`] per event, in order. `seed` determines the
    /// sizes of calls.
    pub(super) async fn run(
        &self,
        handler: &impl Handler,
        state: &Arc<ShadowState>,
        seed: u64,
        cost: &mut Cost,
    ) -> Result<Vec<EventRun>, ShadowError> {
        let parsed = self.held.iter().map(BatchEvent::parse).collect::<Result<Vec<_>, _>>();
        let events = parsed.map_err(|error| ShadowError::Unreadable(error.to_string()))?;
        let mut ran: Vec<EventRun> = Vec::with_capacity(events.len());
        // Up to this event, events run alone, to find out which one fails.
        let (mut attempt, mut alone_to) = (1, 0);
        while let Some(rest) = events.get(ran.len()..).filter(|rest| !rest.is_empty()) {
            let at = ran.len();
            let count = if attempt > 1 || at < alone_to { 1 } else { self.call_size(rest, seed, at) };
            let run = rest.get(..count).unwrap_or_default();
            let failure = match self.call(handler, state, at, run, attempt, cost).await {
                Ok(handled) => {
                    let done = handled.unfinished().map_or(run.len(), |(at, _)| at);
                    if self.take(run, &handled, done, state, &mut ran)? {
                        attempt = 1;
                        cost.failed += 1;
                        continue; // the outputs of an event were refused; the events after it run again
                    }
                    attempt = if done > 0 { 1 } else { attempt };
                    let Some((at, verdict)) = handled.unfinished() else {
                        attempt = 1;
                        continue;
                    };
                    (LastFailure::of_verdict(verdict), at as u32)
                }
                Err(HandleError::Instance(error)) => return Err(error.into()),
                Err(HandleError::Call(_)) if count > 1 => {
                    alone_to = at + count;
                    continue;
                }
                Err(HandleError::Call(error)) => (LastFailure::of_call(error), 0),
            };
            let (LastFailure { kind, reason, may_pass, .. }, index) = failure;
            if may_pass && attempt < self.plan.retry.attempts {
                attempt += 1;
                continue;
            }
            cost.failed += 1;
            let seen = ShadowResult { failure: Some((kind.to_owned(), reason)), ..ShadowResult::default() };
            ran.push(EventRun { at: ran.len(), seen, has_read: state.has_read(index) });
            attempt = 1;
        }
        Ok(ran)
    }

    /// Number of these events that go into a call.
    fn call_size(&self, rest: &[ParsedEvent<'_>], seed: u64, at: usize) -> usize {
        // A few events are split into several calls as well, or there would be only one way to split them.
        let most = (self.held.len() as u64).div_ceil(2).min(CALL_EVENTS_MAX).min(self.plan.batch.max_events.into());
        let size = 1 + xxh3::xxh3_64_with_seed(&(at as u64).to_le_bytes(), seed) % most.max(1);
        let content_type = rest.first().and_then(|event| event.view.content_type);
        let mut bytes = 0;
        let goes_along = |event: &&ParsedEvent<'_>| {
            bytes += event.view.encoded().len();
            event.view.content_type == content_type && bytes <= self.plan.batch.max_bytes
        };
        rest.iter().take(size as usize).take_while(goes_along).count().max(1)
    }

    async fn call(
        &self,
        handler: &impl Handler,
        state: &Arc<ShadowState>,
        at: usize,
        run: &[ParsedEvent<'_>],
        attempt: u32,
        cost: &mut Cost,
    ) -> Result<Handled, HandleError> {
        let events = call_events(run, attempt);
        let (subscriber, origin) = (self.emitter.name.as_str().into(), self.emitter.origin.clone());
        let batch = Batch {
            topic: &self.emitter.from,
            partition: self.partition,
            content_type: content_type(run),
            events: &events,
            context: Arc::new(QuietContext(Context { subscriber, origin, held: self.held.clone(), first: at })),
            state: state.clone(),
        };
        state.begin();
        cost.calls += 1;
        let began = Instant::now();
        let handled = handler.handle(batch).await;
        cost.took += began.elapsed();
        let handled = handled?;
        handled.check(run.len())?;
        Ok(handled)
    }

    /// Takes the results that a lane would commit for the events before `done`. Whether one of them was refused, which
    /// ends it.
    fn take(
        &self,
        run: &[ParsedEvent<'_>],
        handled: &Handled,
        done: usize,
        state: &ShadowState,
        ran: &mut Vec<EventRun>,
    ) -> Result<bool, ShadowError> {
        for (index, event) in (0_u32..).zip(run.iter().take(done)) {
            let outputs = handled.outputs.iter().filter(|output| output.event == index);
            let outputs: Vec<Output> = outputs.map(|output| Output { event: 0, ..output.clone() }).collect();
            let (slices, fit) = self.emitter.emit(std::slice::from_ref(event), 0, &outputs);
            let has_read = state.has_read(index);
            let writes = handled.writes.iter().filter(|write| write.event == index);
            let too_large = state.too_large(writes.clone(), event.trusted_time_ns);
            let refused = too_large.or(match fit {
                Fit::Refused(_, reason) => Some(reason),
                _ => None,
            });
            if let Some(reason) = refused {
                let seen = ShadowResult { failure: Some(("refused".to_owned(), reason)), ..ShadowResult::default() };
                ran.push(EventRun { at: ran.len(), seen, has_read });
                return Ok(true);
            }
            let mut seen = ShadowResult::default();
            for slice in slices.iter() {
                let (topic, is_delayed) = self.topic_of(slice.partition.topic);
                for record in records(&slice.records) {
                    let output = output_of(&topic, record, is_delayed).map_err(ShadowError::Unreadable)?;
                    seen.outputs.insert(output.0, output.1);
                }
            }
            for write in writes {
                seen.writes.insert((write.bucket.clone(), write.key.clone()), write.value.clone());
                state.write(write, event.trusted_time_ns);
            }
            ran.push(EventRun { at: ran.len(), seen, has_read });
        }
        Ok(false)
    }

    /// The name of a topic, and whether it is the hidden topic of delayed events.
    fn topic_of(&self, number: crate::model::TopicId) -> (String, bool) {
        if let Some((name, _)) = self.topics.get(&number) {
            return (name.clone(), false);
        }
        let target = self.emitter.targets.iter().find(|target| target.delayed == Some(number));
        let named = target.and_then(|target| self.topics.get(&target.topic));
        (named.map(|(name, _)| name.clone()).unwrap_or_default(), true)
    }
}

/// A context that drops log lines, since the events were handled long ago.
struct QuietContext(Context);

impl crate::model::call::EventContext for QuietContext {
    fn attributes(&self, index: u32) -> String {
        self.0.attributes(index)
    }

    fn seed(&self, index: u32) -> [u8; 32] {
        self.0.seed(index)
    }

    fn log(&self, _: Option<u32>, _: crate::model::call::LogLevel, _: &str, _: &str) {}
}

/// Bucket and key.
type StateKey = (String, String);

/// Copies of the state in a partition, one for each run.
pub(super) struct States {
    pub(super) running: Arc<ShadowState>,
    pub(super) again: Arc<ShadowState>,
    pub(super) other: Arc<ShadowState>,
}

impl States {
    /// All runs begin with the same state.
    pub(super) fn of(state: &[StateOfPartition], partition: u32, plan: &SubscriberPlan) -> Self {
        let of = || {
            let entries = state.iter().filter(|entry| entry.partition == partition);
            Arc::new(ShadowState::of(entries, plan.state))
        };
        Self { running: of(), again: of(), other: of() }
    }

    /// Size of the largest copy.
    pub(super) fn bytes(&self) -> u64 {
        [&self.running, &self.again, &self.other].into_iter().map(|state| state.bytes()).max().unwrap_or(0)
    }
}

/// State in memory, which is dropped afterwards. It changes between calls only.
pub(super) struct ShadowState {
    kept: Mutex<ShadowEntries>,
    bytes_max: u64,
    ttl_ns: Option<u64>,
    /// The reads of a call's events, if they were reported; otherwise whether any event has read.
    reads: Mutex<(Option<Reads>, bool)>,
}

/// The copy of one run.
#[derive(Default)]
struct ShadowEntries {
    /// Values with their write times.
    entries: BTreeMap<StateKey, (Bytes, u64)>,
    /// Keys in the order of those times, if entries expire.
    by_time: BTreeSet<(u64, StateKey)>,
    /// Bytes of keys and values, counted like in a lane.
    bytes: u64,
}

impl ShadowEntries {
    fn put(&mut self, place: StateKey, value: Option<Bytes>, time_ns: u64, expires: bool) {
        if let Some((before, written_ns)) = self.entries.remove(&place) {
            self.bytes -= entry_bytes(&place.0, &place.1, &before);
            if expires {
                self.by_time.remove(&(written_ns, place.clone()));
            }
        }
        let Some(value) = value else { return };
        self.bytes += entry_bytes(&place.0, &place.1, &value);
        if expires {
            self.by_time.insert((time_ns, place.clone()));
        }
        self.entries.insert(place, (value, time_ns));
    }
}

impl ShadowState {
    fn of<'e>(entries: impl Iterator<Item = &'e StateOfPartition>, plan: StatePlan) -> Self {
        let ttl_ns = plan.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let mut kept = ShadowEntries::default();
        for StateOfPartition { entry, .. } in entries {
            let place = (entry.bucket.clone(), entry.key.clone());
            kept.put(place, Some(entry.value.clone()), entry.written_ns, ttl_ns.is_some());
        }
        Self { kept: Mutex::new(kept), bytes_max: plan.max_bytes, ttl_ns, reads: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, ShadowEntries> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        self.kept().bytes
    }

    /// The reason for refusing an event whose writes would exceed the limit; removes expired entries first.
    fn too_large<'w>(&self, writes: impl Iterator<Item = &'w StateWrite>, time_ns: u64) -> Option<String> {
        let mut kept = self.kept();
        while let Some((written_ns, _)) = kept.by_time.first()
            && self.has_expired("", *written_ns, time_ns)
            && let Some((_, place)) = kept.by_time.pop_first()
        {
            kept.put(place, None, time_ns, true);
        }
        let (mut bytes, mut sizes) = (kept.bytes, BTreeMap::new());
        for write in writes {
            let place = (write.bucket.clone(), write.key.clone());
            let size = write.value.as_ref().map_or(0, |value| entry_bytes(&place.0, &place.1, value));
            let kept = || kept.entries.get(&place).map_or(0, |(value, _)| entry_bytes(&place.0, &place.1, value));
            let before = sizes.get(&place).copied().unwrap_or_else(kept);
            let after = (bytes + size).saturating_sub(before);
            if size > before && after > self.bytes_max {
                return Some(too_large(after, self.bytes_max));
            }
            bytes = after;
            sizes.insert(place, size);
        }
        None
    }

    fn begin(&self) {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = (None, false);
    }

    fn has_read(&self, event: u32) -> bool {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        match &*reads {
            (Some(reads), _) => reads.of(event).is_none_or(|reads| !reads.is_empty()),
            (None, any) => *any,
        }
    }

    fn note(&self) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    }

    fn write(&self, write: &StateWrite, time_ns: u64) {
        let place = (write.bucket.clone(), write.key.clone());
        self.kept().put(place, write.value.clone(), time_ns, self.ttl_ns.is_some());
    }
}

impl StateView for ShadowState {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError> {
        self.note();
        let kept = self.kept();
        let found = kept.entries.get(&(bucket.to_owned(), key.to_owned()));
        Ok(found
            .filter(|(_, written_ns)| !self.has_expired(bucket, *written_ns, time_ns))
            .map(|(value, _)| value.clone()))
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError> {
        self.note();
        let kept = self.kept();
        let start = (bucket.to_owned(), after.unwrap_or_default().to_owned());
        let start = if after.is_some() { Bound::Excluded(start) } else { Bound::Included(start) };
        let found = kept.entries.range((start, Bound::Unbounded)).take_while(|((of, _), _)| of == bucket);
        let found = found.filter(|(_, (_, written_ns))| !self.has_expired(bucket, *written_ns, time_ns));
        Ok(Keys::first(&mut found.map(|((_, key), _)| key.clone()), count))
    }

    fn has_expired(&self, _: &str, written_ns: u64, time_ns: u64) -> bool {
        self.ttl_ns.is_some_and(|ttl_ns| written_ns.saturating_add(ttl_ns) <= time_ns)
    }

    fn wants_reads(&self) -> bool {
        true
    }

    fn have_read(&self, reads: Reads) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(reads);
    }
}
