//! Comparing versions of plugins.
//!
//! Promises: one comparison at a time, since it takes processors from lanes, and at the same time one over future
//! events, which takes long; the component is received when the comparison has its permit; it ends when its caller goes
//! away.

use std::sync::Arc;

use prost::Message;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::stream::next_part;
use super::{authorized, deadline};
use crate::access::Verb;
use crate::api::v1::shadow_request::{Begin, Part};
use crate::api::v1::shadow_service_server::ShadowService;
use crate::api::{ShadowRange, StateOfPartition, v1};
use crate::deploy::{Compile, Reloader};
use crate::dispatch::shadow::ShadowOptions;
use crate::engine::Engine;
use crate::limits::{self, COMPONENT_BYTES_MAX};
use crate::server::audit::Subject;
use crate::server::auth::Names;
use crate::server::calls::Calls;
use crate::server::{bounds, refusal};

pub(super) struct Shadows<E, C> {
    reloader: Reloader<E, C>,
    names: Arc<dyn Names>,
    closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    calls: Calls,
    /// Comparisons at once.
    room: Arc<Semaphore>,
    /// The same over events that come.
    room_coming: Arc<Semaphore>,
}

/// The received component, and the state before the first event.
type ShadowInput = (Vec<u8>, Vec<StateOfPartition>);

impl<E: Engine, C: Compile> Shadows<E, C> {
    pub(super) fn new(
        reloader: Reloader<E, C>,
        names: Arc<dyn Names>,
        closing: CancellationToken,
        calls: Calls,
    ) -> Self {
        let room = |at_once| Arc::new(Semaphore::new(at_once));
        let (room, room_coming) = (room(bounds::SHADOWS_MAX), room(bounds::SHADOWS_COMING_MAX));
        Self { reloader, names, closing, calls, room, room_coming }
    }

    /// Over events that are kept, in time.
    async fn compare(
        &self,
        begin: Begin,
        parts: &mut Streaming<v1::ShadowRequest>,
    ) -> Result<v1::ShadowResponse, Status> {
        let _room = self.room.acquire().await.map_err(|_| refusal::shutting_down())?;
        let (wasm, state) = receive(&begin, parts).await?;
        let events = match begin.last {
            0 => bounds::SHADOW_EVENTS_DEFAULT,
            last if last > bounds::SHADOW_EVENTS_MAX => {
                let words = format!("is {last}, and at most {} are accepted", bounds::SHADOW_EVENTS_MAX);
                return Err(refusal::field("begin.last", words).into());
            }
            last => last,
        };
        let over = match begin.snapshot {
            Some(_) if !state.is_empty() => return Err(refusal::field("entry", STATE_TWICE).into()),
            Some(snapshot) => ShadowRange::Behind { snapshot, events },
            None => ShadowRange::Last { events, state },
        };
        self.compare_over(&begin, wasm, over, CancellationToken::new()).await
    }

    /// Over events that come, until there were enough, or the caller's messages end.
    async fn follow(
        &self,
        coming: v1::shadow_request::Coming,
        begin: Begin,
        parts: &mut Streaming<v1::ShadowRequest>,
    ) -> Result<v1::ShadowResponse, Status> {
        let _room = self.room_coming.try_acquire().map_err(|_| refusal::follows_already())?;
        let (wasm, state) = receive(&begin, parts).await?;
        if begin.snapshot.is_some() || !state.is_empty() {
            return Err(refusal::field("begin.coming", STATE_TWICE).into());
        }
        let time = coming
            .time
            .map(|time| std::time::Duration::try_from(time).map_err(|_| refusal::field("time", INVALID_DURATION)));
        let time = time.transpose()?;
        let over = ShadowRange::Coming { events: Some(coming.events).filter(|events| *events > 0), time };
        let enough = CancellationToken::new();
        let until = async {
            // any other message than the last says nothing
            while let Ok(Some(_)) = parts.message().await {}
            enough.cancel();
            std::future::pending().await
        };
        tokio::select! {
            compared = self.compare_over(&begin, wasm, over, enough.clone()) => compared,
            never = until => never,
        }
    }

    async fn compare_over(
        &self,
        begin: &Begin,
        wasm: Vec<u8>,
        over: ShadowRange,
        enough: CancellationToken,
    ) -> Result<v1::ShadowResponse, Status> {
        let shown = match begin.shown as usize {
            0 => bounds::SHADOW_SHOWN_MAX,
            shown => shown.min(bounds::SHADOW_SHOWN_MAX),
        };
        let options = ShadowOptions { over, shown, enough };
        let report = self.reloader.shadow(&begin.subscriber, wasm, &options).await;
        let mut response: v1::ShadowResponse = report.map_err(|error| refusal::compare(&error))?.into();
        // The differences may contain large events; fewer of them lose nothing that is counted.
        let mut bytes = 0;
        let fitting = response.shown.iter().take_while(|difference| {
            bytes += difference.encoded_len();
            bytes <= bounds::SHADOW_SHOWN_BYTES_MAX
        });
        let count = fitting.count();
        response.shown.truncate(count);
        Ok(response)
    }
}

const STATE_TWICE: &str = "cannot be combined with `entry`: a snapshot and future events come with their own state";
const INVALID_DURATION: &str = "is not a duration";

/// The request of a comparison.
async fn begin(parts: &mut Streaming<v1::ShadowRequest>) -> Result<Begin, Status> {
    let first = next_part(parts).await?.and_then(|message| message.part);
    let Some(Part::Begin(begin)) = first else {
        return Err(refusal::field("part", "is not `begin`, which the first message has to be").into());
    };
    if begin.size_bytes > COMPONENT_BYTES_MAX {
        let words = format!("is {}, and at most {COMPONENT_BYTES_MAX} are accepted", begin.size_bytes);
        return Err(refusal::field("begin.size_bytes", words).into());
    }
    Ok(begin)
}

async fn receive(begin: &Begin, parts: &mut Streaming<v1::ShadowRequest>) -> Result<ShadowInput, Status> {
    let received = tokio::time::timeout(bounds::PARTS_WITHIN, receive_parts(begin, parts)).await;
    received.map_err(|_| refusal::deadline())?
}

async fn receive_parts(begin: &Begin, parts: &mut Streaming<v1::ShadowRequest>) -> Result<ShadowInput, Status> {
    let (mut wasm, mut state, mut state_bytes) = (Vec::new(), Vec::new(), 0);
    // Over events that come, the end of the messages is still to come.
    let is_whole = |wasm: &Vec<u8>| begin.coming.is_some() && wasm.len() as u64 == begin.size_bytes;
    while !is_whole(&wasm)
        && let Some(message) = next_part(parts).await?
    {
        match message.part {
            Some(Part::Chunk(chunk)) => wasm.extend_from_slice(&chunk),
            Some(Part::Entry(entry)) => {
                state_bytes += entry.encoded_len();
                state.push(entry.into());
            }
            Some(Part::Begin(_)) | None => {
                return Err(refusal::field(
                    "part",
                    "is neither `chunk` nor `entry`, which all but the first have to be",
                )
                .into());
            }
        }
        if wasm.len() as u64 > begin.size_bytes {
            break;
        }
        if state_bytes > limits::SHADOW_BYTES_MAX {
            let words = format!("are more than {} bytes together", limits::SHADOW_BYTES_MAX);
            return Err(refusal::field("entry", words).into());
        }
    }
    if wasm.len() as u64 != begin.size_bytes {
        let words = format!("is {}, and {} came or more", begin.size_bytes, wasm.len());
        return Err(refusal::field("begin.size_bytes", words).into());
    }
    Ok((wasm, state))
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> ShadowService for Shadows<E, C> {
    async fn shadow(
        &self,
        request: Request<Streaming<v1::ShadowRequest>>,
    ) -> Result<Response<v1::ShadowResponse>, Status> {
        let (deadline, now) = (deadline::deadline(&request), tokio::time::Instant::now());
        let caller = authorized::caller(request.extensions())?.clone();
        let subject = request.extensions().get::<Subject>().cloned().unwrap_or_default();
        let mut parts = request.into_inner();
        let _call = self.calls.token();
        let compared = async {
            let within = deadline.unwrap_or(now + bounds::SHADOW_WITHIN);
            let in_time = |_| refusal::deadline();
            let begin = tokio::time::timeout_at(within, begin(&mut parts)).await.map_err(in_time)??;
            subject.set("subscriber", begin.subscriber.clone());
            caller.check_subscriber(&*self.names, Verb::Deploy, &begin.subscriber)?;
            // Differences show the data of events.
            caller.check_subscriber(&*self.names, Verb::Read, &begin.subscriber)?;
            match (begin.coming, deadline) {
                (None, _) => {
                    let compared = self.compare(begin, &mut parts);
                    tokio::time::timeout_at(within, compared).await.map_err(in_time)?
                }
                (Some(coming), None) => self.follow(coming, begin, &mut parts).await,
                (Some(coming), Some(within)) => {
                    let followed = self.follow(coming, begin, &mut parts);
                    tokio::time::timeout_at(within, followed).await.map_err(in_time)?
                }
            }
        };
        tokio::select! {
            compared = compared => Ok(Response::new(compared?)),
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
        }
    }
}
