//! Publishes events from outside to root topics: checks, keys, partitions and appends them. A call is all or nothing.

mod refused;
mod targets;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::backlog::{self, Admission, Backlog, Reservation};
use crate::api::{AddressedEvent, DivertedEvent, Numbering, PublishReceipt};
use crate::dispatch::apart;
use crate::dispatch::rules::{delay, guards, keys};
use crate::engine::{
    AppendError, Engine, Fence, Guard, GuardRefusal, Health, Mark, ProducerUnknown, SliceFull, Slices,
};
use crate::limits;
use crate::model::event::bad_character;
use crate::model::{EventId, EventView, PartitionId, ProducerId, Record, partition_of};
pub use refused::{EventRefusal, NumberingRefusal, PublishError};
pub use targets::{PublishTarget, Targets};

impl Numbering {
    /// Checks the numbering for a call with `count` events at this time.
    fn check(&self, count: usize, now_ns: u64) -> Result<(), NumberingRefusal> {
        let (bytes, max) = (self.producer.len(), limits::PRODUCER_BYTES_MAX);
        if bytes == 0 || bytes > max {
            return Err(NumberingRefusal::Producer { bytes, max });
        }
        let ahead = Duration::from_nanos(self.began_ns.map_or(0, |began_ns| began_ns.saturating_sub(now_ns)));
        if ahead > limits::CLOCK_JUMP_MAX {
            return Err(NumberingRefusal::Ahead { ahead });
        }
        let first_sequence = self.first_sequence;
        match first_sequence.checked_add(count as u64) {
            Some(_) => Ok(()),
            None => Err(NumberingRefusal::Exhausted { first_sequence, count }),
        }
    }
}

/// Publishes from outside. Cheap to clone.
pub struct Publisher<E> {
    engine: E,
    targets: Arc<RwLock<Arc<Targets>>>,
    /// Limits the concurrent calls that take long to check.
    turns: Arc<Semaphore>,
}

impl<E: Clone> Clone for Publisher<E> {
    fn clone(&self) -> Self {
        Self { engine: self.engine.clone(), targets: self.targets.clone(), turns: self.turns.clone() }
    }
}

impl<E: Engine> Publisher<E> {
    /// A publisher for the topics of a tree.
    pub fn new(engine: E, targets: Arc<Targets>) -> Self {
        Self { engine, targets: Arc::new(RwLock::new(targets)), turns: Arc::new(Semaphore::new(apart::turns())) }
    }

    /// The current topics.
    pub fn targets(&self) -> Arc<Targets> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the topics.
    pub(crate) fn publish_into(&self, targets: Targets) {
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(targets);
    }

    /// Publishes events, each in the CloudEvents protobuf format, to one root, all or nothing. Resolves when they are
    /// durable.
    ///
    /// Duplicates are not published again. With a `numbering` they are detected by number, without a time limit;
    /// otherwise by `source` and `id`, within the window of the topic's settings.
    ///
    /// # Errors
    /// [`PublishError`]. Nothing was published, unless [`AppendError::has_no_side_effects`] is false.
    pub async fn publish(
        &self,
        topic: &str,
        events: &[Bytes],
        numbering: Option<Numbering>,
    ) -> Result<PublishReceipt, PublishError> {
        let admission = self.admit(topic, events.len()).await?;
        self.publish_admitted(topic, events, numbering, admission, None).await
    }

    /// Reserves room for `events` events in a topic. If the topology limits its backlog, a call may be refused or wait;
    /// otherwise this returns at once.
    ///
    /// # Errors
    /// [`PublishError`]: the topic, its backlog, or an engine that has stopped.
    pub async fn admit(&self, topic: &str, events: usize) -> Result<Admission, PublishError> {
        let targets = self.targets();
        let target = targets.root(topic)?;
        let wanted = target.backlog.iter().map(|backlog| (backlog.clone(), events as u64));
        let admission = self.reserve(wanted.collect()).await?;
        Ok(self.turn(admission, target.takes_long()).await)
    }

    /// Like [`Self::admit`], for events of several topics.
    ///
    /// # Errors
    /// Like [`Self::admit`].
    pub async fn admit_together(&self, events: &[AddressedEvent]) -> Result<Admission, PublishError> {
        let targets = self.targets();
        let mut wanted: BTreeMap<&str, (Arc<Backlog>, u64)> = BTreeMap::new();
        let mut takes_long = false;
        for (target, _) in targets.addressed(events)? {
            takes_long |= target.takes_long();
            if let Some(backlog) = &target.backlog {
                wanted.entry(&target.name).or_insert_with(|| (backlog.clone(), 0)).1 += 1;
            }
        }
        let admission = self.reserve(wanted.into_values().collect()).await?;
        Ok(self.turn(admission, takes_long).await)
    }

    /// Waits for a permit if the call takes long: such calls occupy few processors, however many there are.
    async fn turn(&self, admission: Admission, takes_long: bool) -> Admission {
        match takes_long {
            true => match self.turns.clone().acquire_owned().await {
                Ok(turn) => admission.with_turn(turn),
                Err(_) => admission, // the semaphore is never closed
            },
            false => admission,
        }
    }

    async fn reserve(&self, wanted: Vec<Reservation>) -> Result<Admission, PublishError> {
        if wanted.is_empty() {
            return Ok(Admission::default());
        }
        let health = self.engine.health();
        backlog::admit(wanted, || match &*health.borrow() {
            Health::Serving => Ok(()),
            Health::Stopped(stopped) => Err(AppendError::from(stopped.clone()).into()),
        })
        .await
    }

    /// [`Self::publish`] for admitted events. With a `fence`, they follow other calls of the same stream, and are
    /// refused if one of those was refused.
    ///
    /// # Errors
    /// Like [`Self::publish`].
    pub async fn publish_admitted(
        &self,
        topic: &str,
        events: &[Bytes],
        numbering: Option<Numbering>,
        until_durable: Admission,
        fence: Option<Fence>,
    ) -> Result<PublishReceipt, PublishError> {
        let targets = self.targets();
        let target = targets.root(topic)?;
        let marks = self.marks(numbering, target.dedupes, events.len())?;
        let room = BufferSizes::of(events, target.partitions);
        self.append(events.iter().map(|event| (target, event)), room, marks, fence, until_durable).await
    }

    /// Publishes an event of the bus itself to a topic that only the bus writes to; resolves when it is durable.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_internal(&self, topic: &str, event: &Bytes) -> Result<(), PublishError> {
        let targets = self.targets();
        let target = targets.find(topic)?;
        let room = BufferSizes::of(std::slice::from_ref(event), target.partitions);
        let events = std::iter::once((target, event));
        self.append(events, room, Marks::Nothing, None, Admission::default()).await.map(drop)
    }

    /// Publishes events to several roots, all in one commit or none; resolves when they are durable. Events keep their
    /// order within each partition. Duplicates as in [`Self::publish`]: they are left out, and the other events are
    /// published.
    ///
    /// # Errors
    /// Like [`Self::publish`].
    pub async fn publish_together(
        &self,
        events: &[AddressedEvent],
        numbering: Option<Numbering>,
    ) -> Result<PublishReceipt, PublishError> {
        let admission = self.admit_together(events).await?;
        self.publish_together_admitted(events, numbering, admission).await
    }

    /// [`Self::publish_together`] for admitted events.
    ///
    /// # Errors
    /// Like [`Self::publish`].
    pub async fn publish_together_admitted(
        &self,
        events: &[AddressedEvent],
        numbering: Option<Numbering>,
        until_durable: Admission,
    ) -> Result<PublishReceipt, PublishError> {
        let targets = self.targets();
        let addressed = targets.addressed(events)?;
        // All events of a frame have the same kind of mark; topics without deduplication ignore it.
        let dedupes = addressed.iter().any(|(target, _)| target.dedupes);
        let marks = self.marks(numbering, dedupes, events.len())?;
        self.append(addressed.into_iter(), BufferSizes::default(), marks, None, until_durable).await
    }

    /// The marks that identify duplicates among the `count` events of a call; `dedupes`: a topic detects them by the
    /// events themselves.
    fn marks(&self, numbering: Option<Numbering>, dedupes: bool, count: usize) -> Result<Marks, PublishError> {
        if count > limits::PUBLISH_EVENTS_MAX {
            return Err(PublishError::TooMany { count, max: limits::PUBLISH_EVENTS_MAX });
        }
        match numbering {
            Some(numbering) => {
                // by the clock that is ahead, since the other one may stay behind for long
                numbering.check(count, self.engine.now_ns().max(self.engine.trusted_now_ns()))?;
                Ok(Marks::Numbers(numbering))
            }
            None if dedupes => Ok(Marks::Identities),
            None => Ok(Marks::Nothing),
        }
    }

    /// Checks the events and passes them to the engine at the first poll. The engine may refuse them later.
    async fn append<'a>(
        &self,
        events: impl Iterator<Item = (&'a PublishTarget, &'a Bytes)> + Clone + Send,
        room: BufferSizes,
        marks: Marks,
        fence: Option<Fence>,
        mut until_durable: Admission,
    ) -> Result<PublishReceipt, PublishError> {
        let mut slices = Slices::with_room(room.bytes, room.partitions);
        if let Marks::Numbers(numbering) = &marks {
            numbering.began_ns.into_iter().for_each(|began_ns| slices.set_began(began_ns));
            slices.set_producer(match numbering.began_ns {
                Some(began_ns) => ProducerId::begun(&numbering.producer, began_ns),
                None => ProducerId::new(&numbering.producer),
            });
        }
        let (mut placed, mut targets) = (Vec::with_capacity(events.size_hint().0), Vec::new());
        let now_ns = self.engine.now_ns();
        let takes_long = takes_long(events.clone());
        apart::run(takes_long, || {
            for (index, (target, event)) in events.enumerate() {
                let refused = |error| PublishError::Event { index, topic: target.name.clone(), error };
                placed.push(place(target, event, &marks, index, now_ns, &mut slices).map_err(refused)?);
                targets.push(target);
            }
            Ok::<_, PublishError>(())
        })?;
        until_durable.end_turn();
        if slices.is_empty() {
            return Ok(PublishReceipt::default());
        }
        if let Some(fence) = fence {
            slices.set_fence(fence);
        }
        let partitions: Vec<PartitionId> = slices.partitions().collect();
        let appended = self.engine.append(slices).await.map_err(|error| match error {
            AppendError::Guard(GuardRefusal { of, why }) => PublishError::Event {
                index: of as usize,
                topic: targets.get(of as usize).map(|target: &&PublishTarget| target.name.clone()).unwrap_or_default(),
                error: EventRefusal::Lifecycle(why),
            },
            AppendError::Producer(ProducerUnknown { partition, since_ns }) => {
                let at = partitions.iter().position(|of| *of == partition);
                let first = placed.iter().position(|(slice, _)| Some(*slice) == at);
                let target = first.and_then(|first| targets.get(first));
                let Marks::Numbers(Numbering { producer, began_ns, .. }) = &marks else { return error.into() };
                PublishError::ProducerUnknown {
                    topic: target.map(|target: &&PublishTarget| target.name.clone()).unwrap_or_default(),
                    producer: producer.clone(),
                    began_ns: *began_ns,
                    since_ns,
                }
            }
            error => error.into(),
        })?;
        let mut published = PublishReceipt { epoch: appended.epoch, ..PublishReceipt::default() };
        for (index, ((slice, record), target)) in (0..).zip(placed.into_iter().zip(targets)) {
            let Some(PartitionId { topic, partition }) = partitions.get(slice) else { continue };
            let mut place = appended.place(slice, record, *partition);
            if let Some(aside) = appended.aside(slice, record) {
                let diverted = target.guard.as_ref().and_then(|guard| guard.diverted.as_ref());
                match diverted.filter(|(topic, _)| *topic == aside.to.topic) {
                    Some((_, topic)) => published.diverted.push(DivertedEvent { index, topic: topic.clone() }),
                    None => {
                        place.offset = None; // it is the offset in the hidden topic of held events
                        published.held.push(index);
                    }
                }
            }
            if target.delayed == Some(*topic) {
                place.offset = None; // it is the offset in the hidden topic of delayed events
                published.delayed.push(index);
            }
            published.places.push(place);
        }
        Ok(published)
    }
}

/// Whether checking the events may take long, by the expressions of their topics or by the size of their data.
fn takes_long<'a>(events: impl Iterator<Item = (&'a PublishTarget, &'a Bytes)>) -> bool {
    let mut bytes = 0;
    for (target, event) in events {
        bytes += if target.reads_data() { event.len() } else { 0 };
        if bytes > limits::DATA_READ_AT_ONCE_BYTES_MAX || target.takes_long() {
            return true;
        }
    }
    false
}

/// Buffer sizes for the records of a call.
#[derive(Default)]
struct BufferSizes {
    bytes: usize,
    partitions: usize,
}

impl BufferSizes {
    /// For events of one topic.
    fn of(events: &[Bytes], partitions: u32) -> Self {
        let bytes = events.iter().map(|event| event.len() + RECORD_HEAD_BYTES).sum();
        Self { bytes, partitions: events.len().min(partitions as usize) }
    }
}

/// Estimated bytes of a record in addition to its event: length, a typical key, and the mark.
const RECORD_HEAD_BYTES: usize = 48;

/// What identifies duplicates among the events of a call.
enum Marks {
    Nothing,
    Identities,
    Numbers(Numbering),
}

impl Marks {
    /// The mark of the `index`-th event, which has this key, in its topic.
    fn mark(
        &self,
        index: usize,
        target: &PublishTarget,
        view: &EventView<'_>,
        key: &str,
    ) -> Result<Mark, EventRefusal> {
        Ok(match self {
            Self::Identities if target.dedupes => {
                Mark::Identity(keys::identity(target.id.as_ref(), view, key).map_err(EventRefusal::Id)?)
            }
            Self::Nothing => Mark::None,
            Self::Identities => Mark::Identity(EventId::new(view.source, view.id)),
            Self::Numbers(numbering) => Mark::Sequence(numbering.first_sequence + index as u64),
        })
    }
}

fn place(
    target: &PublishTarget,
    event: &Bytes,
    marks: &Marks,
    index: usize,
    now_ns: u64,
    slices: &mut Slices,
) -> Result<(usize, u32), EventRefusal> {
    if event.len() > limits::EVENT_BYTES_MAX {
        return Err(EventRefusal::TooLarge { bytes: event.len(), max: limits::EVENT_BYTES_MAX });
    }
    let view = match target.is_dead_letters {
        false => EventView::accept(event)?,
        true => EventView::accept_dead_letter(event)?,
    };
    if let Some(schema) = &target.schema {
        schema.check(view.data, view.content_type)?;
    }
    let computed;
    let key = match &target.key {
        Some(expression) => {
            computed = keys::evaluate(expression, &view, None).map_err(EventRefusal::Key)?;
            if let Some(what) = bad_character(&computed) {
                return Err(EventRefusal::Key(format!("`{}` is {what}", expression.text())));
            }
            computed.as_str()
        }
        None => view.default_key(),
    };
    let is_delayed = target.delayed.is_some() && delay::is_event_delayed(&view, now_ns)?;
    // also for a delayed event, whose state must be one of the lifecycle whenever it is due
    let state = target.guard.as_ref().map(|guard| guards::state_of(&guard.plan, &view, Some(key))).transpose()?;
    let partition = match target.delayed {
        Some(delayed) if is_delayed => PartitionId { topic: delayed, partition: 0 },
        _ => PartitionId { topic: target.topic, partition: partition_of(key, target.partitions) },
    };
    let id = match marks {
        Marks::Numbers(_) => None,
        _ if !target.per_key => None,
        _ => Some(keys::identity(target.id.as_ref(), &view, key).map_err(EventRefusal::Id)?),
    };
    let mark = marks.mark(index, target, &view, key)?;
    let write = |out: &mut Vec<u8>| Record { key, lineage: None, event }.write(out);
    let place = slices.push_marked(partition, mark, write).map_err(|error| match error {
        SliceFull::Record(error) => EventRefusal::from(error),
        SliceFull::TooLarge => EventRefusal::TooLarge { bytes: event.len(), max: limits::EVENT_BYTES_MAX },
    })?;
    // a duplicate is detected whether either occurrence is delayed or not
    if let (Mark::Identity(_), Some(delayed)) = (mark, target.delayed) {
        slices.known_in(place.0, if is_delayed { target.topic } else { delayed });
    }
    if let Some((guard, state)) = target.guard.as_ref().zip(state).filter(|_| !is_delayed) {
        let guard = guard.of(partition.partition, key, state, index as u32);
        slices.guard_last(place.0, id.into_iter().fold(guard, Guard::recognised_by));
    }
    Ok(place)
}
