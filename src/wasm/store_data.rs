//! The data of a store: the current call and event, and the resources that the instance has used.
//!
//! Everything that a plugin can observe comes from here, and depends only on the current event:
//!
//! ```text
//! instantiate, describe      handle(batch of n)
//! ───────────────────────    ─────────────────────────────────────────────────────────────
//! no event: clocks at 0,     current(0)        current(1)              …  return
//! random from a fixed seed,  clocks at e0.time clocks at e1.time
//! no state                   random from seed0 random from seed1
//!                            state: savepoint  state: savepoint
//! ```
//!
//! (A call with a single event begins with it.) Nothing of one event is left when the next one begins, except its
//! writes to the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use super::limits::{CLOCK_STEP_NS, RANDOM_BYTES_MAX, STATE_CALL_BYTES_MAX, TABLE_ELEMENTS, crossing_bytes};
use super::logs::{Audience, Log, Stream};
use super::overlay::{EventState, Overlay};
use super::published::PublishedOutputs;
use super::ticker::Timer;
use super::words;
use crate::model::call::{Batch, EventContext, Limits, LogLevel, StateError, StateWrite};

/// Why the host ended a call. Travels through wasmtime as the cause of a trap.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopCause {
    #[error("it used up its time")]
    Timeout,
    #[error("it broke the contract: {0}")]
    Protocol(String),
    #[error("it asked for {0} random bytes at once; one request may ask for {RANDOM_BYTES_MAX}")]
    Random(u64),
    #[error("it called exit; a handler returns instead")]
    Exit,
    #[error("it has {0} handles open, which is the limit")]
    Handles(u32),
    #[error("it called `{0}`, but there are no files")]
    Files(String),
    #[error("it called `{0}`, but there is no network")]
    Network(String),
    #[error("its state cannot be read: {0}")]
    State(StateError),
    #[error("the events of this call write more state together than {STATE_CALL_BYTES_MAX} bytes hold")]
    StateOfCall,
    #[error("the events of this call publish more together than a call may return")]
    Published,
    #[error("it used its state outside of an event; state belongs to an event: call `current` first")]
    StateOutside,
}

/// The data of a store.
pub(super) struct StoreData {
    pub(super) table: ResourceTable,
    pub(super) meter: Meter,
    pub(super) timer: Timer,
    pub(super) log: Log,
    pub(super) ports: Arc<[String]>,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) published: PublishedOutputs,
    handles: u32,
    call: Option<Arc<dyn EventContext>>,
    overlay: Option<Overlay>,
    times_ns: Vec<(u64, u64)>,
    named: Option<u32>,
    moment: Moment,
}

impl StoreData {
    pub(super) fn new(
        limits: &Limits,
        timer: Timer,
        log: Log,
        ports: Arc<[String]>,
        config: Arc<BTreeMap<String, String>>,
    ) -> StoreData {
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(limits.handles).unwrap_or(usize::MAX));
        StoreData {
            table,
            meter: Meter::new(limits.memory_bytes),
            timer,
            log,
            ports,
            config,
            published: PublishedOutputs::new(crossing_bytes(limits)),
            handles: limits.handles,
            call: None,
            overlay: None,
            times_ns: Vec::new(),
            named: None,
            moment: Moment::default(),
        }
    }

    /// Begins a call.
    pub(super) fn enter(&mut self, batch: &Batch<'_>) {
        self.times_ns.clear();
        self.times_ns.extend(batch.events.iter().map(|event| (event.time_ns, event.trusted_time_ns)));
        self.call = Some(Arc::clone(&batch.context));
        self.overlay = Some(Overlay::new(Arc::clone(&batch.state)));
        self.published.clear();
        self.named = None;
        self.meter.refused = None;
        self.log.forget();
        self.timer.restart();
        self.moment = match *self.times_ns.as_slice() {
            [times_ns] => Moment::of(0, times_ns),
            _ => Moment::default(),
        };
    }

    /// Ends the call: sends its log lines, and drops its data.
    pub(super) fn leave(&mut self) {
        self.flush();
        self.call = None;
        self.overlay = None;
        self.named = None;
        self.moment = Moment::default();
    }

    /// Makes an event the current one.
    pub(super) fn turn_to(&mut self, index: u32) -> Result<(), StopCause> {
        let times_ns = usize::try_from(index).ok().and_then(|index| self.times_ns.get(index)).copied();
        let (Some(times_ns), Some(_)) = (times_ns, &self.call) else {
            let events = if self.call.is_some() { self.times_ns.len() } else { 0 };
            return Err(StopCause::Protocol(format!("`current` names event {index} of a call with {events} events")));
        };
        if let Some(before) = self.named.filter(|before| index <= *before) {
            return Err(StopCause::Protocol(format!(
                "`current` names event {index} after event {before}: each is to be named once, in order"
            )));
        }
        self.named = Some(index);
        if self.event() == Some(index) {
            // A call with a single event began with it: nothing is reset, whatever the plugin did before.
            return Ok(());
        }
        self.flush();
        self.log.forget();
        self.meter.refused = None;
        if let Some(overlay) = &mut self.overlay {
            overlay.next_event();
        }
        self.moment = Moment::of(index, times_ns);
        self.timer.restart();
        Ok(())
    }

    /// The current event.
    pub(super) fn event(&self) -> Option<u32> {
        self.moment.index
    }

    /// The attributes of the current event; "" outside of one.
    pub(super) fn attributes(&self) -> String {
        match (&self.call, self.moment.index) {
            (Some(call), Some(index)) => call.attributes(index),
            _ => String::new(),
        }
    }

    /// The state as the current event sees it.
    pub(super) fn store(&mut self) -> Result<EventState<'_>, StopCause> {
        match (&mut self.overlay, self.moment.index) {
            (Some(overlay), Some(index)) => Ok(overlay.at(index, self.moment.trusted_time_ns)),
            _ => Err(StopCause::StateOutside),
        }
    }

    /// Reports the reads of the call's events, if requested.
    pub(super) fn tell_reads(&mut self) {
        if let Some(overlay) = &mut self.overlay {
            overlay.tell_reads();
        }
    }

    /// The writes of the events before `end` in this call; `None`: of all events.
    pub(super) fn take_writes(&mut self, end: Option<u32>) -> Vec<StateWrite> {
        self.overlay.take().map(|overlay| overlay.into_writes(end)).unwrap_or_default()
    }

    /// The number of open handles.
    pub(super) fn open_handles(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    pub(super) fn say(&mut self, level: LogLevel, context: &str, line: &str) {
        self.log.line(audience(&self.call, &self.moment), level, context, line);
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.log.write(audience(&self.call, &self.moment), stream, bytes);
    }

    fn flush(&mut self) {
        self.log.flush(audience(&self.call, &self.moment));
    }

    /// Nanoseconds since 1970: the event's time plus the time that the plugin slept.
    pub(super) fn wall_ns(&self) -> u64 {
        self.moment.time_ns.saturating_add(self.moment.slept_ns)
    }

    /// The monotonic clock, which advances a little with each read.
    pub(super) fn monotonic_ns(&mut self) -> u64 {
        self.moment.reads = self.moment.reads.saturating_add(1);
        self.wall_ns().saturating_add(self.moment.reads.saturating_mul(CLOCK_STEP_NS))
    }

    /// Advances the monotonic clock to this time instead of waiting.
    pub(super) fn sleep_until(&mut self, monotonic_ns: u64) {
        let now = self.wall_ns().saturating_add(self.moment.reads.saturating_mul(CLOCK_STEP_NS));
        self.moment.slept_ns = self.moment.slept_ns.saturating_add(monotonic_ns.saturating_sub(now));
    }

    /// Fills a buffer with the event's random bytes. Each request continues the sequence.
    pub(super) fn random(&mut self, bytes: &mut [u8]) {
        let call = &self.call;
        let index = self.moment.index;
        let reader = self.moment.random.get_or_insert_with(|| {
            let seed = match (call, index) {
                (Some(call), Some(index)) => call.seed(index),
                _ => [0; 32],
            };
            Box::new(blake3::Hasher::new_keyed(&seed).finalize_xof())
        });
        reader.fill(bytes);
    }

    /// Adds a handle. A full table ends the call; other errors with handles are the plugin's fault.
    pub(super) fn push<T: Send + 'static>(
        &mut self,
        entry: T,
    ) -> Result<wasmtime::component::Resource<T>, wasmtime::Error> {
        self.table.push(entry).map_err(|_| StopCause::Handles(self.handles).into())
    }
}

// A function of two fields, so that the log can be borrowed mutably at the same time.
fn audience<'a>(call: &'a Option<Arc<dyn EventContext>>, moment: &Moment) -> Audience<'a> {
    call.as_deref().map(|call| (call, moment.index))
}

/// The current event, and what it has used of its clocks and random bytes.
#[derive(Default)]
struct Moment {
    index: Option<u32>,
    time_ns: u64,
    /// The clock of state expiry.
    trusted_time_ns: u64,
    slept_ns: u64,
    reads: u64,
    random: Option<Box<blake3::OutputReader>>,
}

impl Moment {
    fn of(index: u32, (time_ns, trusted_time_ns): (u64, u64)) -> Moment {
        Moment { index: Some(index), time_ns, trusted_time_ns, ..Moment::default() }
    }
}

/// Sums the memories of an instance and enforces their limit.
pub(super) struct Meter {
    limit_bytes: u64,
    used_bytes: u64,
    /// The last allowed growth, which may still fail.
    allowed_bytes: u64,
    refused: Option<String>,
}

impl Meter {
    fn new(limit_bytes: u64) -> Meter {
        Meter { limit_bytes, used_bytes: 0, allowed_bytes: 0, refused: None }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The growth that was refused to this event, as a message.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.allowed_bytes = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Its own declared maximum, not our limit.
            return Ok(false);
        }
        let more_bytes = desired.saturating_sub(current) as u64;
        let sum_bytes = self.used_bytes.saturating_add(more_bytes);
        if sum_bytes > self.limit_bytes {
            self.refused = Some(format!(
                "it holds {} bytes of memory and asked for {more_bytes} more; its limit is {}",
                self.used_bytes, self.limit_bytes
            ));
            return Ok(false);
        }
        self.used_bytes = sum_bytes;
        self.allowed_bytes = more_bytes;
        Ok(true)
    }

    /// The system could not provide the allowed memory, or a memory cannot be that large.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!("a plugin's memory did not grow: {}", words::error(&error));
        self.used_bytes = self.used_bytes.saturating_sub(std::mem::take(&mut self.allowed_bytes));
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.refused = Some(format!("it asked for a table of {desired} elements; the limit is {TABLE_ELEMENTS}"));
            return Ok(false);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_not_given_is_not_counted() {
        let mut meter = Meter::new(1_000);
        assert!(meter.memory_growing(0, 100, Some(200)).unwrap());
        assert!(!meter.memory_growing(100, 300, Some(200)).unwrap(), "more than it may have by itself");
        assert_eq!((meter.used_bytes(), meter.refused()), (100, None));
        assert!(meter.memory_growing(100, 900, None).unwrap());
        meter.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(meter.used_bytes(), 100);
        // Once per allowed growth.
        meter.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(meter.used_bytes(), 100);
        assert!(!meter.memory_growing(100, 2_000, None).unwrap());
        assert!(meter.refused().is_some());
    }
}
