//! Looking after the versions of plugins.
//!
//! Promises: a component comes in whole or not at all, and with the announced digest; components have a budget of
//! memory together, each no more than one may have, and a caller that sends nothing loses its part of that.

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::stream::next_part;
use super::{authorized, deadline};
use crate::access::{Resource, Verb};
use crate::api::v1::plugin_service_server::PluginService;
use crate::api::v1::upload_component_request::Part;
use crate::api::{Digest, NotADigest, UnpinResult, v1};
use crate::deploy::{Compile, ReloadError, Reloader};
use crate::engine::Engine;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::server::audit::Subject;
use crate::server::calls::Calls;
use crate::server::room::ByteBudget;
use crate::server::{bounds, refusal};

pub(super) struct Plugins<E, C> {
    reloader: Reloader<E, C>,
    closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    calls: Calls,
    /// For components.
    room: ByteBudget,
}

impl<E: Engine, C: Compile> Plugins<E, C> {
    pub(super) fn new(reloader: Reloader<E, C>, closing: CancellationToken, calls: Calls) -> Self {
        Self { reloader, closing, calls, room: ByteBudget::of(bounds::DEPLOYS_BYTES_MAX) }
    }

    async fn changing<T>(&self, change: impl Future<Output = Result<T, ReloadError>>) -> Result<T, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        change.await.map_err(|error| refusal::plugin(&error).into())
    }

    /// An announced component, whose memory is reserved while the permit is held. `None` if it is not needed.
    async fn receive(
        &self,
        parts: &mut Streaming<v1::UploadComponentRequest>,
    ) -> Result<Option<(Digest, Vec<u8>, OwnedSemaphorePermit)>, Status> {
        let first = next_part(parts).await?.and_then(|message| message.part);
        let Some(Part::Begin(begin)) = first else {
            return Err(refusal::field("part", "is not `begin`, which the first message has to be").into());
        };
        let component = digest(&begin.component, "begin.component")?;
        if begin.size_bytes > COMPONENT_BYTES_MAX {
            let words = format!("is {}, and at most {COMPONENT_BYTES_MAX} are accepted", begin.size_bytes);
            return Err(refusal::field("begin.size_bytes", words).into());
        }
        let is_needed = self.reloader.needs_upload(component, begin.size_bytes).await;
        if !is_needed.map_err(|error| refusal::plugin(&error))? {
            return Ok(None);
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
            true => Ok(Some((component, wasm, room))),
            false => {
                let words = format!("is {}, and {} came or more", begin.size_bytes, wasm.len());
                Err(refusal::field("begin.size_bytes", words).into())
            }
        }
    }
}

fn digest(text: &str, field: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error: NotADigest| refusal::field(field, format!("is no digest: {error}")).into())
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> PluginService for Plugins<E, C> {
    async fn find_missing_components(
        &self,
        request: Request<v1::FindMissingComponentsRequest>,
    ) -> Result<Response<v1::FindMissingComponentsResponse>, Status> {
        let components = request.into_inner().components;
        if components.len() > bounds::COMPONENTS_ASKED_MAX {
            let words = format!("has {}, and at most {} are accepted", components.len(), bounds::COMPONENTS_ASKED_MAX);
            return Err(refusal::field("components", words).into());
        }
        let components = components.iter().map(|component| digest(component, "components"));
        let components = components.collect::<Result<Vec<_>, _>>()?;
        let missing = self.changing(self.reloader.missing_components(components)).await?;
        let missing = missing.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::FindMissingComponentsResponse { missing }))
    }

    async fn upload_component(
        &self,
        request: Request<Streaming<v1::UploadComponentRequest>>,
    ) -> Result<Response<v1::UploadComponentResponse>, Status> {
        let within = tokio::time::Instant::now() + bounds::PARTS_WITHIN;
        let deadline = deadline::deadline(&request).map_or(within, |deadline| deadline.min(within));
        let subject = request.extensions().get::<Subject>().cloned().unwrap_or_default();
        let mut parts = request.into_inner();
        let receiving = self.receive(&mut parts);
        let received = tokio::select! {
            received = tokio::time::timeout_at(deadline, receiving) => received.map_err(|_| refusal::deadline())??,
            () = self.closing.cancelled() => return Err(refusal::shutting_down().into()),
        };
        if let Some((component, wasm, _room)) = received {
            subject.set("component", component.to_string());
            self.changing(self.reloader.upload(component, wasm)).await?;
            tracing::info!(component = component.short(), "uploaded");
        }
        Ok(Response::new(v1::UploadComponentResponse {}))
    }

    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::DeployResponse>, Status> {
        let request = request.into_inner();
        let policy = request.how().ok_or_else(|| refusal::field("policy", "is not a known value"))?;
        let v1::DeployRequest { subscriber, component, cause, if_version, .. } = request;
        let component = digest(&component, "component")?;
        let end = cause.floor_char_boundary(bounds::CAUSE_BYTES_MAX.min(cause.len()));
        let cause = format!("deployed: {}", cause.get(..end).unwrap_or_default());
        let reloaded = self.changing(async {
            let bytes = self.reloader.component_bytes(component).await?;
            let _room = self.room.take(bytes).await.map_err(|_| ReloadError::Closed)?;
            self.reloader.deploy_uploaded(&subscriber, component, (policy, &cause), if_version).await
        });
        Ok(Response::new(reloaded.await?.into()))
    }

    async fn list_plugins(
        &self,
        request: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsResponse>, Status> {
        let caller = authorized::caller(request.extensions())?;
        let plugins = self.reloader.list().into_iter();
        let plugins = plugins.filter(|of| caller.may(Verb::Inspect, Resource::Subscriber(&of.subscriber)));
        let plugins = plugins.map(Into::into).collect();
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
        let UnpinResult { tries, refused } = self.changing(self.reloader.unpin(&subscriber)).await?;
        let tries = tries.map(|version| version.to_string());
        tracing::info!(subscriber, tries, refused, "not pinned any more");
        Ok(Response::new(v1::UnpinResponse { tries, refused }))
    }
}
