//! Comparing versions of plugins.
//!
//! Promises: one comparison at a time, since it takes processors from lanes; one whose caller goes away ends.

use std::sync::Arc;

use prost::Message;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::{bounds, door, refusal};
use crate::dispatch::StateOfPartition;
use crate::dispatch::shadow::ShadowOptions;
use crate::engine::Engine;
use crate::limits;
use crate::reload::{Compile, Reloader};
use crate::rpc::v1;
use crate::rpc::v1::shadow_request::{Begin, Part};
use crate::rpc::v1::shadow_service_server::ShadowService;
use crate::wasm::COMPONENT_BYTES_MAX;

/// The service.
pub(super) struct Shadows<E, C> {
    reloader: Reloader<E, C>,
    closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    calls: TaskTracker,
    /// Comparisons at once.
    room: Arc<Semaphore>,
}

impl<E: Engine, C: Compile> Shadows<E, C> {
    pub(super) fn new(reloader: Reloader<E, C>, closing: CancellationToken, calls: TaskTracker) -> Self {
        Self { reloader, closing, calls, room: Arc::new(Semaphore::new(bounds::SHADOWS_MAX)) }
    }

    async fn compare(&self, parts: &mut Streaming<v1::ShadowRequest>) -> Result<v1::ShadowResponse, Status> {
        let _room = self.room.acquire().await.map_err(|_| refusal::shutting_down())?;
        let (begin, wasm, state) = receive(parts).await?;
        let last = match begin.last {
            0 => bounds::SHADOW_EVENTS_DEFAULT,
            last if last > bounds::SHADOW_EVENTS_MAX => {
                let words = format!("is {last}, and at most {} are accepted", bounds::SHADOW_EVENTS_MAX);
                return Err(refusal::field("begin.last", words));
            }
            last => last,
        };
        let shown = match begin.shown as usize {
            0 => bounds::SHADOW_SHOWN_MAX,
            shown => shown.min(bounds::SHADOW_SHOWN_MAX),
        };
        let options = ShadowOptions { last, state, shown };
        let report = self.reloader.shadow(&begin.subscriber, wasm, &options).await;
        let mut response: v1::ShadowResponse = report.map_err(|error| refusal::compare(&error))?.into();
        // What is shown has large events in it, perhaps, and is only shown.
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

/// What is compared, the component, and the state in front of the first event.
async fn receive(parts: &mut Streaming<v1::ShadowRequest>) -> Result<(Begin, Vec<u8>, Vec<StateOfPartition>), Status> {
    let first = parts.message().await?.and_then(|message| message.part);
    let Some(Part::Begin(begin)) = first else {
        return Err(refusal::field("part", "is not `begin`, which the first message has to be"));
    };
    if begin.size_bytes > COMPONENT_BYTES_MAX {
        let words = format!("is {}, and at most {COMPONENT_BYTES_MAX} are accepted", begin.size_bytes);
        return Err(refusal::field("begin.size_bytes", words));
    }
    let (mut wasm, mut state, mut state_bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(message) = parts.message().await? {
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
                ));
            }
        }
        if wasm.len() as u64 > begin.size_bytes {
            break;
        }
        if state_bytes > limits::SHADOW_BYTES_MAX {
            let words = format!("are more than {} bytes together", limits::SHADOW_BYTES_MAX);
            return Err(refusal::field("entry", words));
        }
    }
    if wasm.len() as u64 != begin.size_bytes {
        let words = format!("is {}, and {} came or more", begin.size_bytes, wasm.len());
        return Err(refusal::field("begin.size_bytes", words));
    }
    Ok((begin, wasm, state))
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> ShadowService for Shadows<E, C> {
    async fn shadow(
        &self,
        request: Request<Streaming<v1::ShadowRequest>>,
    ) -> Result<Response<v1::ShadowResponse>, Status> {
        let deadline = door::deadline(&request).unwrap_or_else(|| tokio::time::Instant::now() + bounds::SHADOW_WITHIN);
        let mut parts = request.into_inner();
        let _call = self.calls.token();
        tokio::select! {
            compared = tokio::time::timeout_at(deadline, self.compare(&mut parts)) => {
                Ok(Response::new(compared.map_err(|_| refusal::deadline())??))
            }
            () = self.closing.cancelled() => Err(refusal::shutting_down()),
        }
    }
}
