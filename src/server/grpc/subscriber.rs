//! Operations on subscribers: failed events, positions, state, snapshots.
//!
//! Promises: an answer is bounded in bytes and, but for a lane that is in a long call, in time; what reads a disk is
//! done on blocking threads.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::api::times::{INVALID_TIME, nanoseconds};
use crate::api::v1::subscriber_service_server::SubscriberService;
use crate::api::{Filter, Seek, SnapshotCause, StateFilter, StateOfPartition, v1};
use crate::dispatch::snapshots::KEPT_DEFAULT;
use crate::dispatch::{ControlError, Subscriber, Tree};
use crate::effects;
use crate::engine::Engine;
use crate::server::calls::Calls;
use crate::server::{bounds, refusal};
use crate::wasm::{STATE_BUCKET_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};

/// The bucket of a handler that names none.
const DEFAULT_BUCKET: &str = "default";

pub(super) struct Subscribers<E> {
    pub(super) tree: Tree<E>,
    pub(super) closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    pub(super) calls: Calls,
}

fn filter(filter: Option<v1::FailedFilter>) -> Result<Filter, Status> {
    let filter = filter.map(TryInto::try_into).transpose();
    let filter: Filter = filter.map_err(|what| refusal::field("filter.older_than", what))?.unwrap_or_default();
    // Every reason contains the empty text, so this would select all events by mistake.
    match filter.reason.as_deref() {
        Some("") => Err(refusal::field("filter.reason", "is empty: leave it out for events of every reason").into()),
        _ => Ok(filter),
    }
}

impl<E: Engine> Subscribers<E> {
    /// The subscriber that a request names, unless the bus stops.
    fn subscriber(&self, name: &str) -> Result<Subscriber<E>, Status> {
        self.check_open()?;
        self.tree.subscriber(name).map_err(|error| refusal::name(&error).into())
    }

    /// Does what may read from a disk.
    async fn reading<T: Send + 'static>(
        &self,
        name: &str,
        read: impl FnOnce(&Subscriber<E>) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Status> {
        let subscriber = self.subscriber(name)?;
        let read = tokio::task::spawn_blocking(move || read(&subscriber)).await;
        let read = read.map_err(|error| Status::internal(format!("the read was not finished: {error}")))?;
        read.map_err(|error| refusal::control(&error).into())
    }

    /// Does what changes something, and is answered also where the bus is told to stop meanwhile. Where the caller goes
    /// away, what a lane has begun by then is done, and nothing else. The operation and its subscriber are logged
    /// before, its result after.
    async fn changing<T, F>(
        &self,
        (what, name): (&'static str, &str),
        change: impl FnOnce(Subscriber<E>) -> F,
    ) -> Result<T, Status>
    where
        T: std::fmt::Debug + Send + 'static,
        F: Future<Output = Result<T, ControlError>> + Send + 'static,
    {
        let (subscriber, call) = (self.subscriber(name)?, self.calls.token());
        let (name, change) = (subscriber.name(), change(subscriber));
        tracing::info!(subscriber = name, what, "asked for");
        let gone = CancellationToken::new();
        let _caller = gone.clone().drop_guard();
        let changed = effects::task(async move {
            let _call = call;
            tokio::select! {
                changed = change => {
                    match &changed {
                        Ok(done) => tracing::info!(subscriber = name, what, ?done, "done"),
                        Err(error) => tracing::warn!(subscriber = name, what, %error, "not done, or not all of it"),
                    }
                    changed.map_err(|error| refusal::control(&error).into())
                }
                () = gone.cancelled() => {
                    tracing::warn!(
                        subscriber = name,
                        what,
                        "the caller is gone: steps that have not started are skipped"
                    );
                    Err(Status::cancelled("the caller is gone"))
                }
            }
        });
        changed.await.map_err(|error| Status::internal(format!("it was not finished: {error}")))?
    }

    /// Runs one part of an operation that can be resumed; it is abandoned when the bus stops.
    async fn changing_some<T>(&self, change: impl Future<Output = Result<T, ControlError>>) -> Result<T, Status> {
        let _call = self.calls.token();
        tokio::select! {
            done = change => done.map_err(|error| refusal::control(&error).into()),
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
        }
    }

    fn check_open(&self) -> Result<(), Status> {
        if self.closing.is_cancelled() { Err(refusal::shutting_down().into()) } else { Ok(()) }
    }
}

#[tonic::async_trait]
impl<E: Engine> SubscriberService for Subscribers<E> {
    async fn list_retry_queue(
        &self,
        request: Request<v1::ListRetryQueueRequest>,
    ) -> Result<Response<v1::ListRetryQueueResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter)?;
        let (from, count) = (request.from.map(Into::into).unwrap_or_default(), bounds::page_size(request.page_size));
        let list = move |subscriber: &Subscriber<E>| subscriber.retry_queue().list(&filter, from, count);
        let page = self.reading(&request.subscriber, list).await?;
        let events = page.found.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListRetryQueueResponse { events, next: page.next.map(Into::into) }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter)?;
        let release = async move |subscriber: Subscriber<E>| subscriber.retry_queue().release(&filter).await;
        let released = self.changing(("release events that wait", &request.subscriber), release).await?;
        Ok(Response::new(v1::ReleaseResponse { released }))
    }

    async fn drop_retry_queue(
        &self,
        request: Request<v1::DropRetryQueueRequest>,
    ) -> Result<Response<v1::DropRetryQueueResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter)?;
        let drop = async move |subscriber: Subscriber<E>| subscriber.retry_queue().drop(&filter).await;
        let dropped = self.changing(("drop events that wait", &request.subscriber), drop).await?;
        Ok(Response::new(v1::DropRetryQueueResponse { dropped }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let (subscriber, filter) = (self.subscriber(&request.subscriber)?, filter(request.filter)?);
        let (from, count) = (request.from.map(Into::into).unwrap_or_default(), bounds::page_size(request.page_size));
        let page = subscriber.dead_letters().list(&filter, from, count).await;
        let page = page.map_err(|error| refusal::control(&error))?;
        let events = page.found.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListDeadLettersResponse { events, next: page.next.map(Into::into) }))
    }

    async fn count_dead_letters(
        &self,
        request: Request<v1::CountDeadLettersRequest>,
    ) -> Result<Response<v1::CountDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let subscriber = self.subscriber(&request.subscriber)?;
        let (filter, from) = (filter(request.filter)?, request.from.map(Into::into));
        let counted = subscriber.dead_letters().count_some(&filter, from).await;
        let (reasons, next) = counted.map_err(|error| refusal::control(&error))?;
        let reasons = reasons.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::CountDeadLettersResponse { reasons, next: next.map(Into::into) }))
    }

    async fn redrive(&self, request: Request<v1::RedriveRequest>) -> Result<Response<v1::RedriveResponse>, Status> {
        let request = request.into_inner();
        let (filter, from) = (filter(request.filter)?, request.from.map(Into::into));
        let subscriber = self.subscriber(&request.subscriber)?;
        let done = self.changing_some(subscriber.dead_letters().redrive_some(&filter, from)).await?;
        tracing::info!(subscriber = request.subscriber, redriven = done.count, "redrove dead letters");
        Ok(Response::new(v1::RedriveResponse { redriven: done.count, next: done.next.map(Into::into) }))
    }

    async fn drop_dead_letters(
        &self,
        request: Request<v1::DropDeadLettersRequest>,
    ) -> Result<Response<v1::DropDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let (filter, from) = (filter(request.filter)?, request.from.map(Into::into));
        let subscriber = self.subscriber(&request.subscriber)?;
        let done = self.changing_some(subscriber.dead_letters().drop_some(&filter, from)).await?;
        tracing::info!(subscriber = request.subscriber, dropped = done.count, "dropped dead letters");
        Ok(Response::new(v1::DropDeadLettersResponse { dropped: done.count, next: done.next.map(Into::into) }))
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        let v1::PauseRequest { subscriber } = request.into_inner();
        self.changing(("pause", &subscriber), async move |subscriber| subscriber.pause().await).await?;
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        let v1::ResumeRequest { subscriber } = request.into_inner();
        self.changing(("resume", &subscriber), async move |subscriber| subscriber.resume().await).await?;
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn seek(&self, request: Request<v1::SeekRequest>) -> Result<Response<v1::SeekResponse>, Status> {
        let request = request.into_inner();
        let seek = Seek::try_from(&request).map_err(|(field, what)| refusal::field(field, what))?;
        let v1::SeekRequest { subscriber, .. } = request;
        let what = if seek.dry_run { "say where it would be moved" } else { "move" };
        let moved = self.changing((what, &subscriber), async move |subscriber| subscriber.seek(seek).await).await?;
        Ok(Response::new(v1::SeekResponse { moved: moved.into_iter().map(Into::into).collect() }))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let v1::TakeSnapshotRequest { subscriber, keep, note } = request.into_inner();
        if note.len() > bounds::NOTE_BYTES_MAX {
            return Err(refusal::field("note", format!("has more than {} bytes", bounds::NOTE_BYTES_MAX)).into());
        }
        let keep = if keep == 0 { KEPT_DEFAULT } else { keep as usize };
        let take =
            async move |subscriber: Subscriber<E>| subscriber.snapshots().take(SnapshotCause::Hand, &note, keep).await;
        let snapshot = self.changing(("take a snapshot", &subscriber), take).await?;
        Ok(Response::new(v1::TakeSnapshotResponse { snapshot: Some(snapshot.into()) }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let v1::ListSnapshotsRequest { subscriber } = request.into_inner();
        let snapshots = self.reading(&subscriber, |subscriber| subscriber.snapshots().list()).await?;
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots: snapshots.into_iter().map(Into::into).collect() }))
    }

    async fn drop_snapshot(
        &self,
        request: Request<v1::DropSnapshotRequest>,
    ) -> Result<Response<v1::DropSnapshotResponse>, Status> {
        let v1::DropSnapshotRequest { subscriber, number } = request.into_inner();
        self.reading(&subscriber, move |subscriber| subscriber.snapshots().remove(number)).await?;
        tracing::info!(subscriber, number, "removed a snapshot");
        Ok(Response::new(v1::DropSnapshotResponse {}))
    }

    async fn get_state(&self, request: Request<v1::GetStateRequest>) -> Result<Response<v1::GetStateResponse>, Status> {
        let v1::GetStateRequest { subscriber, mut bucket, key, from_partition } = request.into_inner();
        if bucket.is_empty() {
            DEFAULT_BUCKET.clone_into(&mut bucket);
        }
        let get = move |subscriber: &Subscriber<E>| subscriber.state().get((&bucket, &key), from_partition);
        let found = self.reading(&subscriber, get).await?;
        let (entries, next_partition) = (found.0.into_iter().map(Into::into).collect(), found.1);
        Ok(Response::new(v1::GetStateResponse { entries, next_partition }))
    }

    async fn list_state(
        &self,
        request: Request<v1::ListStateRequest>,
    ) -> Result<Response<v1::ListStateResponse>, Status> {
        let v1::ListStateRequest { subscriber, partition, bucket, prefix, from, page_size } = request.into_inner();
        let (filter, count) = (StateFilter { partition, bucket, prefix }, bounds::page_size(page_size));
        let from = from.map(Into::into).unwrap_or_default();
        let page = self.reading(&subscriber, move |subscriber| subscriber.state().page(&filter, from, count)).await?;
        let entries = page.found.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListStateResponse { entries, next: page.next.map(Into::into) }))
    }

    async fn import_state(
        &self,
        request: Request<v1::ImportStateRequest>,
    ) -> Result<Response<v1::ImportStateResponse>, Status> {
        let v1::ImportStateRequest { subscriber, entries } = request.into_inner();
        if entries.len() > bounds::IMPORTED_MAX {
            let (count, most) = (entries.len(), bounds::IMPORTED_MAX);
            return Err(
                refusal::field("entries", format!("has {count} entries; at most {most} are taken at once")).into()
            );
        }
        let Some(partition) = entries.first().map(|entry| entry.partition) else {
            return Ok(Response::new(v1::ImportStateResponse { imported: 0 }));
        };
        for (index, entry) in entries.iter().enumerate() {
            if let Some((name, what)) = wrong(entry, partition) {
                return Err(refusal::field(format!("entries[{index}].{name}"), what).into());
            }
        }
        let entries: Vec<_> =
            entries.into_iter().map(StateOfPartition::from).map(|StateOfPartition { entry, .. }| entry).collect();
        let import = async move |subscriber: Subscriber<E>| subscriber.state().import(partition, &entries).await;
        let imported = self.changing(("import state", &subscriber), import).await?;
        Ok(Response::new(v1::ImportStateResponse { imported }))
    }
}

/// What no handler could have written, and why.
fn wrong(entry: &v1::StateEntry, partition: u32) -> Option<(&'static str, String)> {
    let v1::StateEntry { bucket, key, value, .. } = entry;
    let long = |bytes: usize, most: usize| format!("has {bytes} bytes, and at most {most} are allowed");
    if entry.partition != partition {
        return Some(("partition", format!("is {}, but that of the first entry is {partition}", entry.partition)));
    }
    if bucket.is_empty() || bucket.contains('\0') {
        return Some(("bucket", "is empty or has a zero byte in it".to_owned()));
    }
    if bucket.len() > STATE_BUCKET_BYTES_MAX {
        return Some(("bucket", long(bucket.len(), STATE_BUCKET_BYTES_MAX)));
    }
    if key.is_empty() {
        return Some(("key", "is empty".to_owned()));
    }
    if key.len() > STATE_KEY_BYTES_MAX {
        return Some(("key", long(key.len(), STATE_KEY_BYTES_MAX)));
    }
    if value.len() > STATE_VALUE_BYTES_MAX {
        return Some(("value", long(value.len(), STATE_VALUE_BYTES_MAX)));
    }
    let is_time = entry.write_time.as_ref().is_some_and(|time| nanoseconds(time).is_some());
    (!is_time).then(|| ("write_time", INVALID_TIME.to_owned()))
}
