//! Events out: by range, or followed for as long as the reader stays.
//!
//! Promises: events of a partition in order, each once, only durable ones; partitions take turns; a position that is no
//! longer what it was is refused. A reader costs one answer at a time, made when the transport has room for it: a slow
//! one delays no other caller and fills no buffer.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::stream::{AnswerStream, Source};
use super::{authorized, deadline};
use crate::access::{Resource, Verb};
use crate::api::times::{INVALID_TIME, nanoseconds, timestamp};
use crate::api::v1::read_request::Start;
use crate::api::v1::reader_service_server::ReaderService;
use crate::api::{Bounds, PendingFilter, PendingKind, TraceQuery, v1};
use crate::dispatch::{PendingPage, Topic, TraceError, Tree};
use crate::engine::{Chunk, Engine, ReadBudget, ReadError, StopReason};
use crate::model::{Offset, PartitionId, Record, partition_of};
use crate::server::bounds;
use crate::server::refusal::{self, ReadRefusal};

pub(super) struct Reading<E> {
    pub(super) tree: Tree<E>,
    pub(super) engine: E,
    pub(super) closing: CancellationToken,
}

#[tonic::async_trait]
impl<E: Engine> ReaderService for Reading<E> {
    type ReadStream = AnswerStream<Reader<E>>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let deadline = deadline::deadline(&request);
        let request = request.into_inner();
        let topic = self.tree.topic(&request.topic).map_err(|error| refusal::name(&error))?;
        let reader = self.open(&topic, request, deadline).await.map_err(|error| refusal::read(&error))?;
        Ok(Response::new(AnswerStream::new(reader)))
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceResponse>, Status> {
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::TraceRequest { id, source, topic, since } = request.into_inner();
        if id.is_empty() {
            return Err(refusal::field("id", "is missing: say which event").into());
        }
        let since_ns = match since {
            Some(time) => Some(nanoseconds(&time).ok_or_else(|| refusal::field("since", INVALID_TIME))?),
            None => None,
        };
        let of = TraceQuery { id, source, topic, since_ns };
        let trace = self.tree.trace(&of);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
            trace = trace => {
                let shown = trace.and_then(|trace| match caller.is_unjudged() {
                    true => Ok(trace),
                    false => trace
                        .restricted(
                            |topic| caller.may(Verb::Inspect, Resource::Topic(topic)),
                            |subscriber| caller.may(Verb::Inspect, Resource::Subscriber(subscriber)),
                        )
                        .ok_or_else(|| TraceError::NotFound { id: of.id.clone(), topic: of.topic.clone() }),
                });
                Ok(Response::new(shown.map_err(|error| refusal::trace(&error))?.into()))
            }
        }
    }

    async fn list_pending(
        &self,
        request: Request<v1::ListPendingRequest>,
    ) -> Result<Response<v1::ListPendingResponse>, Status> {
        let v1::ListPendingRequest { topic, kind, key, page_token, page_size } = request.into_inner();
        let filter = PendingFilter { kind: self::kind(kind)?, key };
        let from = Some(page_token).filter(|token| !token.is_empty());
        let topic = self.tree.topic(&topic).map_err(|error| refusal::name(&error))?;
        let page = topic.pending(filter, from, bounds::page_size(page_size));
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
            page = page => {
                let PendingPage { events, next } = page.map_err(|error| refusal::pending(&error))?;
                let events = events.into_iter().map(Into::into).collect();
                Ok(Response::new(v1::ListPendingResponse { events, next_page_token: next.unwrap_or_default() }))
            }
        }
    }
}

/// Which kind is asked for; `None`: all.
fn kind(kind: i32) -> Result<Option<PendingKind>, Status> {
    match v1::PendingKind::try_from(kind) {
        Ok(v1::PendingKind::Unspecified) => Ok(None),
        Ok(v1::PendingKind::Held) => Ok(Some(PendingKind::Held)),
        Ok(v1::PendingKind::Delayed) => Ok(Some(PendingKind::Delayed)),
        Err(_) => Err(refusal::field("kind", "is not a known value").into()),
    }
}

impl<E: Engine> Reading<E> {
    async fn open(
        &self,
        topic: &Topic<E>,
        request: v1::ReadRequest,
        deadline: Option<Instant>,
    ) -> Result<Reader<E>, ReadRefusal> {
        let filter = request.filter.unwrap_or_default();
        let mut cursors = Vec::new();
        for partition in partitions(topic, &request.partitions, &filter)? {
            let id = PartitionId { topic: topic.number(), partition };
            let bounds = self.engine.durable_bounds(id).await?.ok_or(ReadError::UnknownPartition)?;
            let next = self.first(id, bounds, request.start.as_ref()).await?;
            let until = if request.follow { Offset::MAX } else { bounds.durable };
            cursors.push(Cursor { partition: id, next, until });
        }
        Ok(Reader {
            engine: self.engine.clone(),
            ready: (0..cursors.len()).collect(),
            cursors,
            waiting: JoinSet::new(),
            filter,
            left: if request.limit == 0 { u64::MAX } else { request.limit },
            deadline,
            closing: self.closing.clone(),
        })
    }

    /// The offset to read first.
    async fn first(&self, id: PartitionId, bounds: Bounds, start: Option<&Start>) -> Result<Offset, ReadRefusal> {
        match start {
            None | Some(Start::Earliest(_)) => Ok(bounds.start),
            Some(Start::Latest(_)) => Ok(bounds.durable),
            Some(Start::Offset(offset)) => {
                let offset = (*offset).min(bounds.durable);
                self.check(id, bounds, offset, None).await
            }
            Some(Start::Time(time)) => {
                let time_ns = nanoseconds(time).ok_or(ReadRefusal::Field { field: "time", what: INVALID_TIME })?;
                Ok(self.engine.offset_at_time(id, time_ns).await?.min(bounds.durable))
            }
            Some(Start::Positions(positions)) => {
                let position = positions.positions.iter().find(|position| position.partition == id.partition);
                match position {
                    Some(position) => self.check(id, bounds, position.offset, position.epoch).await,
                    None => Ok(bounds.start),
                }
            }
        }
    }

    /// Refuses a position that is not, or no longer, one to read from.
    async fn check(
        &self,
        id: PartitionId,
        bounds: Bounds,
        offset: Offset,
        epoch: Option<u32>,
    ) -> Result<Offset, ReadRefusal> {
        let partition = id.partition;
        if offset < bounds.start {
            return Err(ReadRefusal::Expired { partition, offset, start: bounds.start });
        }
        if offset > bounds.durable {
            return Err(ReadRefusal::BeyondEnd { partition, offset, end: bounds.durable });
        }
        // The event before the first retained one cannot be compared any more, and no event is missed.
        if let Some(expected) = epoch
            && offset > bounds.start
        {
            let one = ReadBudget { events: 1, bytes: 0 };
            let chunks = self.engine.read(id, offset - 1, one).await?;
            let before = chunks.first().and_then(|chunk| chunk.iter().next());
            match before {
                Some(stored) if stored.offset + 1 == offset && stored.epoch == expected => {}
                found => {
                    let epoch = found.map_or(0, |stored| stored.epoch);
                    return Err(ReadRefusal::Lost { partition, offset, expected, epoch });
                }
            }
        }
        Ok(offset)
    }
}

/// The partitions to read: those asked for, or all, or the only one in which the key can be.
fn partitions<E: Engine>(topic: &Topic<E>, wanted: &[u32], filter: &v1::Filter) -> Result<Vec<u32>, ReadRefusal> {
    let partitions = topic.partitions();
    for &partition in wanted {
        if partition >= partitions {
            let topic = topic.name().to_owned();
            return Err(ReadRefusal::UnknownPartition { topic, partition, partitions });
        }
    }
    if wanted.is_empty() {
        return Ok(match &filter.key {
            Some(key) => vec![partition_of(key, partitions)],
            None => (0..partitions).collect(),
        });
    }
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

/// A read that is under way.
pub(super) struct Reader<E> {
    engine: E,
    cursors: Vec<Cursor>,
    /// Partitions that may have events, in the order of their turns.
    ready: VecDeque<usize>,
    /// Partitions without events: resolves to the first partition that has one.
    waiting: JoinSet<(usize, Result<(), StopReason>)>,
    filter: v1::Filter,
    left: u64,
    deadline: Option<Instant>,
    closing: CancellationToken,
}

/// How far a partition has been read.
struct Cursor {
    partition: PartitionId,
    next: Offset,
    /// Nothing from here on is read.
    until: Offset,
}

impl<E: Engine> Source for Reader<E> {
    type Item = v1::ReadResponse;

    async fn next(&mut self) -> Option<Result<v1::ReadResponse, Status>> {
        let (deadline, closing) = (self.deadline, self.closing.clone());
        let over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => Some(Err(refusal::shutting_down().into())),
            () = over => Some(Err(refusal::deadline().into())),
            events = self.events() => match events {
                Ok(events) if events.is_empty() => None,
                Ok(events) => Some(Ok(v1::ReadResponse { events })),
                Err(error) => Some(Err(refusal::read(&error).into())),
            },
        }
    }
}

impl<E: Engine> Reader<E> {
    /// Some events of the partition whose turn it is; none at the end.
    async fn events(&mut self) -> Result<Vec<v1::ReadEvent>, ReadRefusal> {
        while self.left > 0 {
            let Some(turn) = self.turn().await? else { break };
            let Some(cursor) = self.cursors.get_mut(turn) else { continue };
            if cursor.next >= cursor.until {
                continue;
            }
            let budget = ReadBudget { events: self.filter.read_at_once(self.left), bytes: bounds::READ_BYTES };
            let chunks = self.engine.read(cursor.partition, cursor.next, budget).await?;
            let Some(last) = chunks.last() else {
                self.wait(turn);
                continue;
            };
            let (partition, from, until) = (cursor.partition.partition, cursor.next, cursor.until);
            cursor.next = last.end_offset();
            self.ready.push_back(turn);

            let mut events = Vec::new();
            for chunk in &chunks {
                take(partition, chunk, from..until, &self.filter, self.left, &mut events)?;
            }
            self.left -= events.len() as u64;
            if !events.is_empty() {
                return Ok(events);
            }
            // A filter that lets nothing through must not keep the others from the processor.
            tokio::task::yield_now().await;
        }
        Ok(Vec::new())
    }

    /// The partition whose turn it is, waiting until there is one; `None` when all have been read.
    async fn turn(&mut self) -> Result<Option<usize>, ReadRefusal> {
        // Partitions with new events queue after partitions that always have some.
        while let Some(woken) = self.waiting.try_join_next() {
            self.wake(woken)?;
        }
        if self.ready.is_empty()
            && let Some(woken) = self.waiting.join_next().await
        {
            self.wake(woken)?;
        }
        Ok(self.ready.pop_front())
    }

    fn wake(
        &mut self,
        woken: Result<(usize, Result<(), StopReason>), tokio::task::JoinError>,
    ) -> Result<(), ReadRefusal> {
        // A task is cancelled only together with the runtime.
        let (turn, result) = woken.map_err(|_| StopReason::Closed)?;
        result?;
        self.ready.push_back(turn);
        Ok(())
    }

    fn wait(&mut self, turn: usize) {
        let Some(cursor) = self.cursors.get(turn) else { return };
        if cursor.until != Offset::MAX {
            return; // the rest up to the end that was fixed is a gap
        }
        let (engine, partition, offset) = (self.engine.clone(), cursor.partition, cursor.next);
        self.waiting.spawn(async move { (turn, engine.wait_durable(partition, offset).await) });
    }
}

impl v1::Filter {
    /// Events to read at once where `left` more are asked for: all of those only where each one counts.
    fn read_at_once(&self, left: u64) -> u32 {
        let all_count = self.key.is_none() && self.r#type.is_none();
        u32::try_from(left).ok().filter(|_| all_count).map_or(bounds::READ_EVENTS, |left| left.min(bounds::READ_EVENTS))
    }
}

/// Appends the events of a chunk that are asked for, sharing its bytes.
fn take(
    partition: u32,
    chunk: &Chunk,
    range: std::ops::Range<Offset>,
    filter: &v1::Filter,
    limit: u64,
    events: &mut Vec<v1::ReadEvent>,
) -> Result<(), ReadRefusal> {
    let unreadable = |offset, why: String| {
        ReadError::Storage(Arc::from(format!("the event at offset {offset} differs from the stored one: {why}")))
    };
    for stored in chunk.iter().filter(|stored| range.contains(&stored.offset)) {
        if events.len() as u64 >= limit {
            break;
        }
        let record = Record::parse(stored.record).map_err(|error| unreadable(stored.offset, error.to_string()))?;
        if filter.key.as_ref().is_some_and(|key| key != record.key) {
            continue;
        }
        if let Some(wanted) = &filter.r#type {
            let view = record.view().map_err(|error| unreadable(stored.offset, error.to_string()))?;
            if view.r#type != wanted {
                continue;
            }
        }
        events.push(v1::ReadEvent {
            partition,
            offset: stored.offset,
            epoch: stored.epoch,
            append_time: Some(timestamp(stored.append_time_ns)),
            key: record.key.to_owned(),
            event: chunk.records.slice_ref(record.event),
        });
    }
    Ok(())
}
