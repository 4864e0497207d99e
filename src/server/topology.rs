//! Changing the topology.
//!
//! Promises: what was begun is done to its end, whether or not whoever asked for it waits.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::calls::Calls;
use super::refusal;
use crate::engine::Engine;
use crate::reload::{Compile, Reloader};
use crate::rpc::v1;
use crate::rpc::v1::topology_service_server::TopologyService;

/// The service.
pub(super) struct Topologies<E, C> {
    pub(super) reloader: Reloader<E, C>,
    pub(super) closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    pub(super) calls: Calls,
}

fn present(topology: Option<v1::Topology>) -> Result<v1::Topology, Status> {
    topology.ok_or_else(|| refusal::field("topology", "is missing"))
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> TopologyService for Topologies<E, C> {
    async fn plan_topology(
        &self,
        request: Request<v1::PlanTopologyRequest>,
    ) -> Result<Response<v1::PlanTopologyResponse>, Status> {
        let proposal = present(request.into_inner().topology)?.into();
        let reloader = self.reloader.clone();
        let looked = tokio::task::spawn_blocking(move || reloader.changes(&proposal)).await;
        let changes = looked.map_err(|error| Status::internal(error.to_string()))?;
        let changes = changes.map_err(|error| refusal::topology(&error))?;
        Ok(Response::new(changes.into()))
    }

    async fn apply_topology(
        &self,
        request: Request<v1::ApplyTopologyRequest>,
    ) -> Result<Response<v1::ApplyTopologyResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down());
        }
        let _call = self.calls.token();
        let v1::ApplyTopologyRequest { topology, allow_loss } = request.into_inner();
        let applied = self.reloader.apply(present(topology)?.into(), allow_loss).await;
        let changes = applied.map_err(|error| refusal::topology(&error))?.changes;
        Ok(Response::new(v1::ApplyTopologyResponse { changes: changes.into_iter().map(Into::into).collect() }))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<v1::CollectGarbageResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down());
        }
        let _call = self.calls.token();
        let collected = self.reloader.collect(request.into_inner().allow_loss).await;
        let subscribers = collected.map_err(|error| refusal::topology(&error))?;
        Ok(Response::new(v1::CollectGarbageResponse { subscribers }))
    }
}
