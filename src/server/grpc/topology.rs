//! Changing the topology.
//!
//! Promises: an apply that has started runs to its end, whether or not its caller waits.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::authorized;
use crate::access::{Resource, Verb};
use crate::api::v1::topology_service_server::TopologyService;
use crate::api::{Changes, NotADigest, Proposal, topologies, v1};
use crate::deploy::{Compile, Reloader};
use crate::engine::Engine;
use crate::server::auth::Caller;
use crate::server::calls::Calls;
use crate::server::refusal;

pub(super) struct Topologies<E, C> {
    pub(super) reloader: Reloader<E, C>,
    pub(super) closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    pub(super) calls: Calls,
}

fn proposal(topology: Option<v1::Topology>) -> Result<Proposal, Status> {
    let topology = topology.ok_or_else(|| refusal::field("topology", "is missing"))?;
    let invalid = |error| refusal::field("topology.components", format!("has a value that is no digest: {error}"));
    Ok(topology.try_into().map_err(|error: NotADigest| invalid(error))?)
}

impl<E: Engine, C: Compile> Topologies<E, C> {
    /// Refuses a topology of namespaces that the caller may not change. It touches no other: topics and subscribers
    /// are of one namespace, and `prune` removes only what is in those that are named.
    async fn check(&self, caller: &Caller, proposal: &Proposal) -> Result<(), Status> {
        if caller.is_unjudged() {
            return Ok(());
        }
        let (caller, proposal) = (caller.clone(), proposal.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let namespaces = proposal.namespaces();
            namespaces.iter().try_for_each(|name| caller.check(Verb::Apply, Resource::Namespace(name)))
        });
        Ok(checked.await.map_err(|error| Status::internal(error.to_string()))??)
    }
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> TopologyService for Topologies<E, C> {
    async fn get_topology(
        &self,
        request: Request<v1::GetTopologyRequest>,
    ) -> Result<Response<v1::GetTopologyResponse>, Status> {
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::GetTopologyRequest { namespaces } = request.into_inner();
        let reloader = self.reloader.clone();
        let is_asked_for = move |name: &str| match namespaces.as_slice() {
            [] => caller.may(Verb::Apply, Resource::Namespace(name)),
            wanted => wanted.iter().any(|wanted| wanted == name),
        };
        let looked = tokio::task::spawn_blocking(move || reloader.base(is_asked_for)).await;
        let base = looked.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(topologies::applied(base)))
    }

    async fn plan_topology(
        &self,
        request: Request<v1::PlanTopologyRequest>,
    ) -> Result<Response<v1::PlanTopologyResponse>, Status> {
        let caller = authorized::caller(request.extensions())?.clone();
        let proposal = proposal(request.into_inner().topology)?;
        self.check(&caller, &proposal).await?;
        let reloader = self.reloader.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let revision = reloader.revision();
            reloader.changes(&proposal).map(|changes| (changes, revision))
        });
        let looked = looked.await.map_err(|error| Status::internal(error.to_string()))?;
        let (changes, revision) = looked.map_err(|error| refusal::topology(&error))?;
        Ok(Response::new(topologies::planned(changes, revision)))
    }

    async fn apply_topology(
        &self,
        request: Request<v1::ApplyTopologyRequest>,
    ) -> Result<Response<v1::ApplyTopologyResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::ApplyTopologyRequest { topology, allow_loss, if_revision } = request.into_inner();
        let proposal = proposal(topology)?;
        self.check(&caller, &proposal).await?;
        let applied = self.reloader.apply_if(proposal, allow_loss, if_revision).await;
        let Changes { changes, differs, .. } = applied.map_err(|error| refusal::topology(&error))?;
        Ok(Response::new(v1::ApplyTopologyResponse {
            changes: changes.into_iter().map(Into::into).collect(),
            revision: self.reloader.revision(),
            differs,
        }))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<v1::CollectGarbageResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        let v1::CollectGarbageRequest { allow_loss, dry_run } = request.into_inner();
        let collected = match dry_run {
            true => self.reloader.garbage().await,
            false => self.reloader.collect(allow_loss).await,
        };
        Ok(Response::new(collected.map_err(|error| refusal::topology(&error))?.into()))
    }
}
