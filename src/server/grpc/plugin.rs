//! Looking after the versions of plugins.
//!
//! Promises: a component comes in whole or not at all; components have a budget of memory together, each no more than
//! one may have, and who sends nothing gives its part of that away.

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::deadline;
use super::stream::next_part;
use crate::api::v1::deploy_request::{Begin, Part};
use crate::api::v1::plugin_service_server::PluginService;
use crate::api::{Unpinned, v1};
use crate::deploy::{Compile, ReloadError, Reloader};
use crate::engine::Engine;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::server::calls::Calls;
use crate::server::room::Room;
use crate::server::{bounds, refusal};

pub(super) struct Plugins<E, C> {
    reloader: Reloader<E, C>,
    closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    calls: Calls,
    /// For components.
    room: Room,
}

impl<E: Engine, C: Compile> Plugins<E, C> {
    pub(super) fn new(reloader: Reloader<E, C>, closing: CancellationToken, calls: Calls) -> Self {
        Self { reloader, closing, calls, room: Room::of(bounds::DEPLOYS_BYTES_MAX) }
    }

    async fn changing<T>(&self, change: impl Future<Output = Result<T, ReloadError>>) -> Result<T, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        change.await.map_err(|error| refusal::plugin(&error).into())
    }

    /// The deployment and its component, whose memory is reserved while the permit is held.
    async fn receive(
        &self,
        parts: &mut Streaming<v1::DeployRequest>,
    ) -> Result<(Begin, Vec<u8>, OwnedSemaphorePermit), Status> {
        let first = next_part(parts).await?.and_then(|message| message.part);
        let Some(Part::Begin(begin)) = first else {
            return Err(refusal::field("part", "is not `begin`, which the first message has to be").into());
        };
        if begin.size_bytes > COMPONENT_BYTES_MAX {
            let words = format!("is {}, and at most {COMPONENT_BYTES_MAX} are accepted", begin.size_bytes);
            return Err(refusal::field("begin.size_bytes", words).into());
        }
        let room = self.room.take(begin.size_bytes).await?;
        let mut wasm = Vec::new();
        while let Some(message) = next_part(parts).await? {
            let Some(Part::Chunk(chunk)) = message.part else {
                return Err(
                    refusal::field("part", "is not `chunk`, which all messages but the first have to be").into()
                );
            };
            wasm.extend_from_slice(&chunk);
            if wasm.len() as u64 > begin.size_bytes {
                break;
            }
        }
        match wasm.len() as u64 == begin.size_bytes {
            true => Ok((begin, wasm, room)),
            false => {
                let words = format!("is {}, and {} came or more", begin.size_bytes, wasm.len());
                Err(refusal::field("begin.size_bytes", words).into())
            }
        }
    }
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> PluginService for Plugins<E, C> {
    async fn deploy(
        &self,
        request: Request<Streaming<v1::DeployRequest>>,
    ) -> Result<Response<v1::DeployResponse>, Status> {
        let within = tokio::time::Instant::now() + bounds::PARTS_WITHIN;
        let deadline = deadline::deadline(&request).map_or(within, |deadline| deadline.min(within));
        let mut parts = request.into_inner();
        let receiving = self.receive(&mut parts);
        let (begin, wasm, _room) = tokio::select! {
            received = tokio::time::timeout_at(deadline, receiving) => received.map_err(|_| refusal::deadline())??,
            () = self.closing.cancelled() => return Err(refusal::shutting_down().into()),
        };
        let policy = begin.how().ok_or_else(|| refusal::field("begin.policy", "is not a known value"))?;
        let end = begin.cause.floor_char_boundary(bounds::CAUSE_BYTES_MAX.min(begin.cause.len()));
        let cause = format!("deployed: {}", begin.cause.get(..end).unwrap_or_default());
        let deploying = self.reloader.deploy_if(&begin.subscriber, wasm, policy, &cause, begin.if_version);
        let reloaded = self.changing(deploying).await?;
        Ok(Response::new(reloaded.into()))
    }

    async fn list_plugins(
        &self,
        _: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsResponse>, Status> {
        let plugins = self.reloader.list().into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListPluginsResponse { plugins }))
    }

    async fn list_versions(
        &self,
        request: Request<v1::ListVersionsRequest>,
    ) -> Result<Response<v1::ListVersionsResponse>, Status> {
        let versions = self.reloader.versions(&request.into_inner().subscriber);
        let versions = versions.map_err(|error| refusal::plugin(&error))?;
        Ok(Response::new(v1::ListVersionsResponse { versions: versions.into_iter().map(Into::into).collect() }))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let v1::RollbackRequest { subscriber, if_version } = request.into_inner();
        let version = self.changing(self.reloader.rollback_if(&subscriber, if_version)).await?.to_string();
        tracing::info!(subscriber, version, "went back to a version");
        Ok(Response::new(v1::RollbackResponse { version }))
    }

    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        let v1::PromoteRequest { subscriber, if_version } = request.into_inner();
        let version = self.changing(self.reloader.promote_if(&subscriber, if_version)).await?.to_string();
        tracing::info!(subscriber, version, "promoted");
        Ok(Response::new(v1::PromoteResponse { version }))
    }

    async fn pin(&self, request: Request<v1::PinRequest>) -> Result<Response<v1::PinResponse>, Status> {
        let v1::PinRequest { subscriber, version, if_version } = request.into_inner();
        let pinning = self.reloader.pin_if(&subscriber, version.as_deref(), if_version);
        let version = self.changing(pinning).await?.to_string();
        tracing::info!(subscriber, version, "pinned");
        Ok(Response::new(v1::PinResponse { version }))
    }

    async fn unpin(&self, request: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        let subscriber = request.into_inner().subscriber;
        let Unpinned { tries, refused } = self.changing(self.reloader.unpin(&subscriber)).await?;
        let tries = tries.map(|version| version.to_string());
        tracing::info!(subscriber, tries, refused, "not pinned any more");
        Ok(Response::new(v1::UnpinResponse { tries, refused }))
    }
}
