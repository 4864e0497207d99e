//! Events that are to come later: a durable queue of timers for each topic.
//!
//! ```text
//!   deliverat, delay                    a lane of its own
//!   publish, outputs ──> `T@delayed` ──────────────────────> entries by time ── due ──> `T`
//!                        a hidden topic, one partition       06 due offset since partition, offset, append time
//! ```
//!
//! An event with the attribute `deliverat` (a time) or `delay` (a duration such as `90s`, from when it is appended) waits
//! outside of its topic, and gets its place there when it is due: those that are due at the same time in the order in which
//! they came. It is not changed. One that the topic's lifecycle refuses then goes to `T@refused`, with the reason.
//!
//! What is due is decided by trusted time: so a clock that jumps delivers nothing early, and one that was ahead and is put
//! back nothing late. An event with `deliverat` waits for the wall clock as well, where that was put back by up to a day.
//!
//! Promises: each is delivered once, never early but for what trusted time may be wrong by, however often the bus is killed
//! meanwhile. Waiting costs the disk and no memory: only the time of the next one is looked at.
//! Relies on: the engine's units, as any lane; the engine's trusted time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::batch::{Held, Unreadable};
use super::command::Command;
use super::entries::{DELAYED, TOLD, end_of};
use super::guards::{self, TopicGuard};
use super::hidden::{self, after, put, refuse};
use super::keys;
use super::lane::LaneError;
use super::supervisor::Supervised;
use super::together::Together;
use crate::engine::{
    Engine, Entries, Guard, LaneWrite, PageBudget, ReadBudget, ReadError, Session, SessionError, Slices, Unit,
};
use crate::limits;
use crate::model::{AttributeView, EventView, Offset, PartitionId, Record, Retention, Time, TopicId, partition_of};
use crate::topology::{self, KeyExpression};

/// What is behind the name of a topic in that of its hidden topic. No name in a topology has it.
pub(super) const SUFFIX: &str = "@delayed";
/// What is behind it in that of the topic of those that its lifecycle refuses when they are due.
pub(super) const REFUSED_SUFFIX: &str = "@refused";
/// The attribute with the time at which an event is to come.
const DELIVER_AT: &str = "deliverat";
/// The attribute with how long it is to come after its append.
const DELAY: &str = "delay";
/// In the hidden topic an event only passes by.
pub(super) const RETENTION: Retention =
    Retention { age: Some(Duration::from_secs(3600)), partition_bytes: None, force: false };
/// What does not happen where such a lane fails, for the log.
pub(super) const FAILS: &str = "what is to come later does not come";
/// How many wait, an u64 in little endian.
const COUNT: &[u8] = &[TOLD, b'c', b'o', b'u', b'n', b't'];

/// How many events wait, by what their lane keeps.
pub(super) fn waiting(entries: &impl Entries) -> Result<u64, ReadError> {
    let count = entries.get(COUNT)?;
    Ok(count.and_then(|count| Some(u64::from_le_bytes(count.get(..8)?.try_into().ok()?))).unwrap_or(0))
}

/// Why an event cannot come later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelayRefused {
    /// Not a time.
    #[error(
        "`deliverat` is not a time: it needs one as RFC 3339 has it, such as 2026-01-31T08:00:00Z, and this is {0:?}"
    )]
    Time(String),
    /// Not a duration.
    #[error("`delay` is not a duration such as 90s or 1h 30m, this is {0:?}: {1}")]
    Duration(String, String),
    /// Later than anybody will wait.
    #[error("`{name}` is too far away: at most {} days are accepted", limits::DELAY_MAX.as_secs() / (24 * 3600))]
    TooLate {
        /// The attribute.
        name: &'static str,
    },
    /// Both attributes.
    #[error("`deliverat` and `delay` are both there: only one of them can say when the event comes")]
    Both,
}

/// When an event comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// At a time, Unix nanoseconds.
    At(u64),
    /// So long after its append.
    After(Duration),
}

impl When {
    fn due_ns(self, trusted_time_ns: u64) -> u64 {
        match self {
            Self::At(time_ns) => time_ns,
            Self::After(delay) => trusted_time_ns.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    fn parse(name: &str, value: &str) -> Result<Option<Self>, DelayRefused> {
        match name {
            DELIVER_AT => match Time::parse(value) {
                Some(time) => Ok(Some(Self::at(time))),
                None => Err(DelayRefused::Time(shown(value))),
            },
            DELAY => match topology::duration(value) {
                Ok(delay) if delay > limits::DELAY_MAX => Err(DelayRefused::TooLate { name: DELAY }),
                Ok(delay) => Ok(Some(Self::After(delay))),
                Err(error) => Err(DelayRefused::Duration(shown(value), error.to_string())),
            },
            _ => Ok(None),
        }
    }

    /// What releases took that had other grammars, of events that wait since then.
    fn parse_stored(name: &str, value: &str) -> Option<Self> {
        match name {
            DELIVER_AT => {
                let time = value.parse::<jiff::Timestamp>().ok()?;
                Some(Self::At(u64::try_from(time.as_nanosecond()).unwrap_or(0)))
            }
            DELAY => humantime::parse_duration(value).ok().map(Self::After),
            _ => None,
        }
    }

    fn at(time: Time) -> Self {
        Self::At(time.unix_ns().unwrap_or(if time.second() < 0 { 0 } else { u64::MAX }))
    }
}

fn shown(value: &str) -> String {
    value.chars().take(64).collect()
}

/// Whether an event of these attributes comes later, and that it can.
///
/// # Errors
/// [`DelayRefused`].
pub(super) fn is_delayed<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    now_ns: u64,
) -> Result<bool, DelayRefused> {
    let mut found = None;
    for (name, value) in attributes {
        if let Some(when) = When::parse(name, value)? {
            check(when, now_ns)?;
            if found.replace(when).is_some() {
                return Err(DelayRefused::Both);
            }
        }
    }
    Ok(found.is_some())
}

fn check(when: When, now_ns: u64) -> Result<(), DelayRefused> {
    match when {
        When::At(time_ns) if Duration::from_nanos(time_ns.saturating_sub(now_ns)) > limits::DELAY_MAX => {
            Err(DelayRefused::TooLate { name: DELIVER_AT })
        }
        _ => Ok(()),
    }
}

/// As [`is_delayed`], of an encoded event.
///
/// # Errors
/// As there.
pub(super) fn is_event_delayed(event: &EventView<'_>, now_ns: u64) -> Result<bool, DelayRefused> {
    let when = if event.has_delay { when_of(event, When::parse)? } else { None };
    Ok(when.map(|when| check(when, now_ns)).transpose()?.is_some())
}

/// Of an event that waits: at once, where that can no longer be told.
fn when_of_stored(event: &EventView<'_>) -> When {
    let when = when_of(event, |name, value| match When::parse(name, value) {
        Err(error) => When::parse_stored(name, value).map(Some).ok_or(error),
        when => when,
    });
    // it was looked at when it was published
    when.ok().flatten().unwrap_or(When::At(0))
}

fn when_of(
    event: &EventView<'_>,
    parse: impl Fn(&str, &str) -> Result<Option<When>, DelayRefused>,
) -> Result<Option<When>, DelayRefused> {
    let mut found = None;
    for (name, value) in event.attributes() {
        let when = match value {
            AttributeView::Timestamp(time) if name == DELIVER_AT => Some(When::at(time)),
            value => match value.as_text() {
                Some(text) => parse(name, text)?,
                None => parse(name, &value.to_owned().to_string())?,
            },
        };
        if when.is_some() && found.is_some() {
            return Err(DelayRefused::Both);
        }
        found = found.or(when);
    }
    Ok(found)
}

/// What its lane has beside what all of hidden topics have.
pub(super) struct Own {
    pub(super) topic: TopicId,
    pub(super) partitions: u32,
    pub(super) guard: Option<TopicGuard>,
    /// Where events are recognised for as long as their key is known: the topic's `id:`.
    pub(super) per_key: Option<Option<KeyExpression>>,
    /// How many are due by the wall clock, but not by trusted time, as far as they are counted.
    pub(super) awaits_clock: Arc<AtomicU64>,
}

/// What a queue is made of.
pub(super) type Parts<E> = hidden::Parts<E, Own>;

/// The queue of a topic.
pub(super) struct DelayLane<E: Engine> {
    parts: Box<Parts<E>>,
    position: Offset,
    count: u64,
    /// When the first one is due.
    next_ns: Option<u64>,
    /// No entry is in front of this key. What was deleted there since the last checkpoint has to be passed over by whoever
    /// looks from further in front, and that may be very much.
    front: Vec<u8>,
    /// How many become due in one unit, where the guard refuses some.
    together: Together,
}

fn entry_key(due_ns: u64, offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(DELAYED);
    key.extend_from_slice(&due_ns.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The key of the entry of an event that waits: its place among them, then when it came, by the clock of the bus. Entries of earlier
/// versions do not have that.
fn since_key(due_ns: u64, offset: Offset, since_ns: Option<u64>) -> Vec<u8> {
    let mut key = entry_key(due_ns, offset);
    key.extend(since_ns.iter().flat_map(|since_ns| since_ns.to_be_bytes()));
    key
}

fn number_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(at..)?.first_chunk()?))
}

/// When an event is due.
pub(super) fn due_of(key: &[u8]) -> Option<u64> {
    number_at(key, 1)
}

/// When it came.
pub(super) fn since_of(key: &[u8]) -> Option<u64> {
    number_at(key, 17)
}

impl<E: Engine> Supervised for DelayLane<E> {
    type Parts = Parts<E>;

    fn load(parts: Box<Parts<E>>) -> Result<Self, (LaneError, Box<Parts<E>>)> {
        let position = parts.session.next_offset();
        let mut lane =
            Self { parts, position, count: 0, next_ns: None, front: vec![DELAYED], together: Together::default() };
        match lane.read() {
            Ok(()) => Ok(lane),
            Err(error) => Err((error, lane.parts)),
        }
    }

    async fn run(mut self, _: Option<Command>) -> (LaneError, Box<Parts<E>>) {
        let ended = self.work().await.map_or_else(|error| error, |()| LaneError::Stopped);
        (ended, self.parts)
    }
}

impl<E: Engine> DelayLane<E> {
    /// Reads what is kept of it.
    fn read(&mut self) -> Result<(), LaneError> {
        self.count = waiting(&self.parts.entries)?;
        self.look()?;
        self.parts.seen.set_count(self.count);
        self.parts.seen.set_failure(None);
        Ok(())
    }

    /// Finds out when the first one is due.
    fn look(&mut self) -> Result<(), LaneError> {
        let first = self.parts.entries.range(Bound::Included(&self.front), &end_of(DELAYED), PageBudget::of(1))?;
        self.next_ns = first.entries.first().and_then(|(key, _)| due_of(key));
        Ok(())
    }

    /// Works until it is told to stop or cannot go on.
    async fn work(&mut self) -> Result<(), LaneError> {
        let budget = ReadBudget { events: limits::BATCH_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
        let mut counts_from = Instant::now();
        loop {
            self.parts.seen.set_next(self.next_ns);
            let now_ns = self.parts.engine.trusted_now_ns();
            // It may be confirmed, so it is looked at again and again.
            let pause = self.next_ns.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
            if pause == Some(Duration::ZERO) && !self.parts.stop.is_cancelled() {
                self.deliver(now_ns).await?;
                continue;
            }
            if Instant::now() >= counts_from {
                self.parts.own.awaits_clock.store(self.count_early(now_ns)?, Ordering::Release);
                counts_from = Instant::now() + limits::DELAY_LOOK_EVERY;
            }
            let pause = pause.map(|pause| pause.min(limits::DELAY_LOOK_EVERY));
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return Ok(self.parts.session.flush().await?),
                () = after(pause) => {}
                chunks = self.parts.session.read(budget) => self.take_in(&Held::all(&chunks?)).await?,
            }
        }
    }

    /// How many are due by the wall clock and not yet, of the first ones.
    fn count_early(&self, now_ns: u64) -> Result<u64, LaneError> {
        let wall_ns = self.parts.engine.now_ns();
        if self.next_ns.is_none_or(|next_ns| next_ns > wall_ns) {
            return Ok(0); // as nearly always
        }
        let (mut from, until) = (entry_key(now_ns.saturating_add(1), 0), entry_key(wall_ns.saturating_add(1), 0));
        let mut count = 0;
        while count < limits::AWAITS_CLOCK_COUNTED && from < until {
            let budget = PageBudget::of(limits::AWAITS_CLOCK_COUNTED - count);
            let page = self.parts.entries.range(Bound::Included(&from), &until, budget)?;
            count += page.entries.len();
            match page.entries.last() {
                Some((last, _)) if !page.is_last => from = [last.as_ref(), &[0]].concat(),
                _ => break,
            }
        }
        Ok(count as u64)
    }

    /// Takes in events that were read.
    async fn take_in(&mut self, held: &[Held]) -> Result<(), LaneError> {
        let Some(last) = held.last() else { return Ok(()) };
        let mut writes = Vec::with_capacity(held.len() + 1);
        for held in held {
            let parsed = held.parse()?;
            let due_ns = when_of_stored(&parsed.view).due_ns(held.trusted_time_ns);
            self.next_ns = Some(self.next_ns.map_or(due_ns, |next_ns| next_ns.min(due_ns)));
            let key = since_key(due_ns, held.offset, Some(held.append_time_ns));
            if key < self.front {
                self.front.clone_from(&key);
            }
            writes.push(LaneWrite::put(key, held.record.clone()));
        }
        self.count += held.len() as u64;
        let unit = Unit { consumed_to: last.offset + 1, writes, ..Unit::default() };
        // In front of the position: whoever sees that all was read sees that something waits.
        self.parts.seen.set_count(self.count);
        self.commit(unit).await
    }

    /// Gives what is due its place.
    async fn deliver(&mut self, now_ns: u64) -> Result<(), LaneError> {
        let until = entry_key(now_ns.saturating_add(1), 0);
        let budget = PageBudget { entries: self.together.most(), bytes: limits::BATCH_BYTES_MAX };
        let mut due = self.parts.entries.range(Bound::Included(&self.front), &until, budget)?.entries;
        let front = due.last().map(|(last, _)| last.to_vec());
        let put_back = self.put_back(&mut due, now_ns)?;
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        loop {
            let mut unit = Unit { consumed_to: self.position, writes: put_back.clone(), ..Unit::default() };
            for (index, (key, record)) in due.iter().enumerate() {
                if !refused.contains_key(&index)
                    && let Err(why) = self.place(&mut unit.emits, index, record)?
                {
                    refused.insert(index, why);
                }
                if let Some(why) = refused.get(&index) {
                    self.refuse(&mut unit.emits, record, why)?;
                }
                unit.writes.push(LaneWrite::delete(key.clone()));
            }
            let count = self.count;
            self.count = count.saturating_sub(due.len() as u64);
            match self.commit(unit).await {
                Ok(()) => break,
                Err(LaneError::Session(SessionError::Guard(guard))) if guard.is_for_its_event() => {
                    self.count = count;
                    // those behind it come with the next unit
                    let at = guard.of as usize;
                    due.truncate(at + 1);
                    self.together.refused(at);
                    refused.insert(at, guard.why.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            self.together.passed(due.len());
        }
        // What is counted no longer is in its topic.
        self.parts.session.flush().await?;
        self.parts.seen.set_count(self.count);
        self.front = front.unwrap_or(std::mem::take(&mut self.front));
        self.look()
    }

    /// Takes out what is due only because the wall clock was put back: it waits on, for as long as that says.
    fn put_back(&self, due: &mut Vec<(Bytes, Bytes)>, now_ns: u64) -> Result<Vec<LaneWrite>, LaneError> {
        let wall_ns = self.parts.engine.now_ns();
        let is_right = wall_ns >= now_ns;
        let is_far_off = Duration::from_nanos(now_ns.saturating_sub(wall_ns)) > limits::CLOCK_JUMP_MAX;
        let (mut writes, mut left) = (Vec::new(), Vec::with_capacity(due.len()));
        if is_right || is_far_off {
            return Ok(writes);
        }
        for (key, record) in due.drain(..) {
            let when = when_of_stored(&self.parse(&record)?.1);
            match (when, number_at(&key, 9)) {
                (When::At(time_ns), Some(offset)) if time_ns > wall_ns => {
                    let due_ns = now_ns.saturating_add(time_ns - wall_ns);
                    writes.push(LaneWrite::put(since_key(due_ns, offset, since_of(&key)), record));
                    writes.push(LaneWrite::delete(key));
                }
                _ => left.push((key, record)),
            }
        }
        *due = left;
        Ok(writes)
    }

    /// Puts an event that is due into its topic, or says why not.
    fn place(&self, emits: &mut Slices, index: usize, record: &[u8]) -> Result<Result<(), String>, LaneError> {
        let (parsed, view) = self.parse(record)?;
        let partition = partition_of(parsed.key, self.parts.own.partitions);
        let partition = PartitionId { topic: self.parts.own.topic, partition };
        let Some(guard) = &self.parts.own.guard else {
            put(emits, partition, record);
            return Ok(Ok(()));
        };
        let id = self.parts.own.per_key.as_ref().map(|id| keys::identity(id.as_ref(), &view, parsed.key)).transpose();
        let id = match id {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match guards::state_of(&guard.plan, &view, Some(parsed.key)) {
            Ok(state) => {
                let slice = put(emits, partition, record);
                let guard = guard.of(partition.partition, parsed.key, state, index as u32);
                emits.guard_last(slice, id.into_iter().fold(guard, Guard::recognised_by));
                Ok(())
            }
            Err(unknown) => Err(unknown.to_string()),
        })
    }

    /// Its topic does not take an event that is due, and nobody is there any more to be told: it is kept beside it.
    fn refuse(&self, emits: &mut Slices, record: &[u8], why: &str) -> Result<(), LaneError> {
        let Some(guard) = &self.parts.own.guard else { return Ok(()) };
        Ok(refuse(emits, guard.refused, record, why).map_err(|error| Unreadable::new(self.position, error))?)
    }

    fn parse<'r>(&self, record: &'r [u8]) -> Result<(Record<'r>, EventView<'r>), LaneError> {
        let parse = || {
            let record = Record::parse(record)?;
            Ok((record, record.view()?))
        };
        Ok(parse().map_err(|error| Unreadable::new(self.position, error))?)
    }

    async fn commit(&mut self, mut unit: Unit) -> Result<(), LaneError> {
        self.position = unit.consumed_to;
        unit.writes.push(LaneWrite::put(COUNT, self.count.to_le_bytes().to_vec()));
        Ok(self.parts.session.commit(unit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    fn of(attributes: &[(&str, &str)]) -> Result<bool, DelayRefused> {
        is_delayed(attributes.iter().copied(), NOW_NS)
    }

    #[test]
    fn only_the_two_attributes_delay_an_event() {
        assert_eq!(of(&[("subject", "s"), ("delays", "3")]), Ok(false));
        assert_eq!(of(&[("delay", "1h 30m")]), Ok(true));
        assert_eq!(of(&[("deliverat", "2030-01-31T08:00:00+02:00")]), Ok(true));
        assert_eq!(of(&[("deliverat", "1999-01-31T08:00:00Z")]), Ok(true), "what is past is due");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (delay, says) in [
            ("5", "the unit is missing"),
            ("5M", "`M` is not a unit: minutes are `m`"),
            ("5min", "minutes are `m`"),
            ("1month", "`month` is not a unit"),
            ("", "a number with a unit is needed"),
            ("-5m", "a number with a unit is needed"),
        ] {
            let refused = of(&[("delay", delay)]).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        for time in ["tomorrow", "20300131T080000Z", "2030-01-31T08:00:00+24:00", "2030-01-31T08:00:00Z[Europe/Paris]"]
        {
            assert_eq!(of(&[("deliverat", time)]), Err(DelayRefused::Time(time.into())));
        }
        assert_eq!(of(&[("delay", "1s"), ("deliverat", "2030-01-31T08:00:00Z")]), Err(DelayRefused::Both));
        assert_eq!(of(&[("delay", "7300d")]), Err(DelayRefused::TooLate { name: "delay" }));
        assert_eq!(of(&[("deliverat", "2199-01-31T08:00:00Z")]), Err(DelayRefused::TooLate { name: "deliverat" }));
    }

    #[test]
    fn entries_are_in_the_order_of_their_times_and_then_of_their_arrival() {
        let keys = [entry_key(5, 9), since_key(6, 1, Some(7)), entry_key(256, 0), since_key(256, 1, Some(3))];
        assert!(keys.is_sorted());
        assert_eq!(keys.each_ref().map(|key| due_of(key)), [Some(5), Some(6), Some(256), Some(256)]);
        assert_eq!(keys.each_ref().map(|key| since_of(key)), [None, Some(7), None, Some(3)]);
    }
}
