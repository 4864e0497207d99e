//! Giving out capsules, and the components that they are of.
//!
//! Promises: an answer has a page, or a part of a file that is read when the transport has room for it; reads run
//! on blocking threads, few at a time.
//! Must not know: where capsules are, how they are encoded.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::authorized;
use super::stream::{AnswerStream, Source};
use crate::access::{Resource, Verb};
use crate::api::reason;
use crate::api::v1;
use crate::api::v1::capsule_service_server::CapsuleService;
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::server::{bounds, refusal};

/// What a bus keeps of events that failed.
pub trait Capsules: Send + Sync + 'static {
    /// Capsules of some subscribers, by subscriber and id: those after a place, at most a number and fewer where they
    /// are large, and the token of the next page; `None`: there are no more. Reads from a disk.
    ///
    /// # Errors
    /// Those of reading.
    fn list(&self, is_wanted: &dyn Fn(&str) -> bool, behind: &str, count: usize) -> io::Result<CapsulePage>;

    /// A capsule. An error of the kind [`io::ErrorKind::NotFound`] says that there is none.
    ///
    /// # Errors
    /// Those of reading.
    fn open(&self, subscriber: &str, id: &str) -> io::Result<FileReader>;

    /// A component, by its hash in hexadecimal; otherwise as [`Self::open`].
    ///
    /// # Errors
    /// Those of reading.
    fn open_component(&self, hash: &str) -> io::Result<FileReader>;
}

/// A page of capsules, and the token of the next page.
pub type CapsulePage = (Vec<v1::Capsule>, Option<String>);

/// A file, to be read from its beginning.
pub type FileReader = Box<dyn Read + Send>;

pub(super) struct StoredCapsules<E> {
    tree: Tree<E>,
    capsules: Arc<dyn Capsules>,
    closing: CancellationToken,
    /// Listings and files at a time.
    places: Arc<Semaphore>,
}

impl<E: Engine> StoredCapsules<E> {
    pub(super) fn new(tree: Tree<E>, capsules: Arc<dyn Capsules>, closing: CancellationToken) -> Self {
        Self { tree, capsules, closing, places: Arc::new(Semaphore::new(bounds::CAPSULE_READERS_MAX)) }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
            place = self.places.clone().acquire_owned() => place.map_err(|_| refusal::shutting_down().into()),
        }
    }

    /// The full name of a subscriber, which may be gone.
    fn full_name(&self, name: &str) -> Result<String, Status> {
        match self.tree.subscriber(name) {
            Ok(found) => Ok(found.name()),
            Err(_) if name.contains('/') => Ok(name.to_owned()),
            Err(error) => Err(refusal::name(&error).into()),
        }
    }

    /// A file to be given out in parts.
    async fn opened(
        &self,
        open: impl FnOnce(&dyn Capsules) -> io::Result<FileReader> + Send + 'static,
        (what, reason): (String, &'static str),
    ) -> Result<File, Status> {
        let (place, capsules) = (self.place().await?, self.capsules.clone());
        let opened = blocking(move || open(&*capsules)).await?;
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => refusal::unknown_capsule(reason, &what),
            _ => refusal::unreadable_capsule(&error),
        })?;
        Ok(File { file: Some(file), closing: self.closing.clone(), _place: place })
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let ran = tokio::task::spawn_blocking(run).await;
    ran.map_err(|error| Status::internal(format!("it was not finished: {error}")))
}

/// A file that is given out.
struct File {
    /// Not there while it is read from, nor at its end.
    file: Option<FileReader>,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl File {
    /// The next part; `None` at the end.
    async fn part(&mut self) -> Result<Option<Bytes>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let read = blocking(move || {
            let mut part = Vec::new();
            let read = file.by_ref().take(bounds::CAPSULE_PART_BYTES).read_to_end(&mut part);
            read.map(|_| (file, part))
        });
        let (file, part) = read.await?.map_err(|error| refusal::unreadable_capsule(&error))?;
        self.file = Some(file);
        Ok((!part.is_empty()).then(|| part.into()))
    }
}

/// A capsule that is given out.
pub(super) struct CapsuleParts(File);

impl Source for CapsuleParts {
    type Item = v1::FetchCapsuleResponse;

    async fn next(&mut self) -> Option<Result<Self::Item, Status>> {
        Some(self.0.part().await.transpose()?.map(|chunk| v1::FetchCapsuleResponse { chunk }))
    }
}

/// A component that is given out.
pub(super) struct ComponentParts(File);

impl Source for ComponentParts {
    type Item = v1::FetchComponentResponse;

    async fn next(&mut self) -> Option<Result<Self::Item, Status>> {
        Some(self.0.part().await.transpose()?.map(|chunk| v1::FetchComponentResponse { chunk }))
    }
}

#[tonic::async_trait]
impl<E: Engine> CapsuleService for StoredCapsules<E> {
    type FetchCapsuleStream = AnswerStream<CapsuleParts>;
    type FetchComponentStream = AnswerStream<ComponentParts>;

    async fn list_capsules(
        &self,
        request: Request<v1::ListCapsulesRequest>,
    ) -> Result<Response<v1::ListCapsulesResponse>, Status> {
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::ListCapsulesRequest { subscriber, page_token, page_size } = request.into_inner();
        let subscriber = Some(subscriber).filter(|name| !name.is_empty());
        let subscriber = subscriber.map(|name| self.full_name(&name)).transpose()?;
        if let Some(name) = &subscriber {
            caller.check(Verb::Inspect, Resource::Subscriber(name))?;
        }
        let (_place, capsules, count) = (self.place().await?, self.capsules.clone(), bounds::page_size(page_size));
        let listed = blocking(move || {
            let is_wanted = |name: &str| match &subscriber {
                Some(wanted) => wanted == name,
                None => caller.may(Verb::Inspect, Resource::Subscriber(name)),
            };
            capsules.list(&is_wanted, &page_token, count)
        });
        let listed = listed.await?;
        let (capsules, next) = listed.map_err(|error| refusal::unreadable_capsule(&error))?;
        Ok(Response::new(v1::ListCapsulesResponse { capsules, next_page_token: next.unwrap_or_default() }))
    }

    async fn fetch_capsule(
        &self,
        request: Request<v1::FetchCapsuleRequest>,
    ) -> Result<Response<Self::FetchCapsuleStream>, Status> {
        let v1::FetchCapsuleRequest { subscriber, id } = request.into_inner();
        let subscriber = self.full_name(&subscriber)?;
        let what = format!("capsule `{id}` of subscriber `{subscriber}`");
        let open = move |capsules: &dyn Capsules| capsules.open(&subscriber, &id);
        Ok(Response::new(AnswerStream::new(CapsuleParts(self.opened(open, (what, reason::UNKNOWN_CAPSULE)).await?))))
    }

    async fn fetch_component(
        &self,
        request: Request<v1::FetchComponentRequest>,
    ) -> Result<Response<Self::FetchComponentStream>, Status> {
        let v1::FetchComponentRequest { wasm_digest } = request.into_inner();
        let what = format!("component `{wasm_digest}`");
        let open = move |capsules: &dyn Capsules| capsules.open_component(&wasm_digest);
        Ok(Response::new(AnswerStream::new(ComponentParts(self.opened(open, (what, reason::UNKNOWN_VERSION)).await?))))
    }
}
