//! Status: topics, subscribers, storage, serving state.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::authorized;
use crate::access::{Resource, Verb};
use crate::api::v1;
use crate::api::v1::admin_service_server::AdminService;
use crate::deploy::{Compile, Reloader};
use crate::dispatch::Tree;
use crate::engine::{Engine, Health, StopReason};

pub(super) struct Admin<E, C> {
    pub(super) tree: Tree<E>,
    pub(super) reloader: Option<Reloader<E, C>>,
    pub(super) closing: CancellationToken,
}

#[tonic::async_trait]
impl<E: Engine, C: Compile> AdminService for Admin<E, C> {
    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let caller = authorized::caller(request.extensions())?;
        let topics = self.tree.topics();
        let topics = topics.iter().filter(|topic| caller.may(Verb::Inspect, Resource::Topic(&topic.name)));
        let topics = topics.map(Into::into).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let caller = authorized::caller(request.extensions())?;
        let tree = self.tree.clone();
        // it may read from a disk
        let snapshot = tokio::task::spawn_blocking(move || tree.snapshot()).await;
        let mut snapshot = snapshot.map_err(|error| Status::internal(error.to_string()))?;
        if let Some(reloader) = &self.reloader {
            reloader.tell(&mut snapshot.subscribers);
        }
        snapshot.topics.retain(|topic| caller.may(Verb::Inspect, Resource::Topic(&topic.name)));
        snapshot.subscribers.retain(|subscriber| caller.may(Verb::Inspect, Resource::Subscriber(&subscriber.name)));
        // What is wrong with the files may be of any namespace.
        let files_refused = self.reloader.as_ref().filter(|_| caller.may(Verb::Inspect, Resource::Bus));
        let health = self.tree.engine().health().borrow().clone();
        let (state, reason) = match health {
            Health::Stopped(stopped @ StopReason::Poisoned(_)) => (v1::ServingState::Failed, stopped.to_string()),
            Health::Stopped(stopped @ StopReason::Closed) => (v1::ServingState::Stopping, stopped.to_string()),
            Health::Serving if self.closing.is_cancelled() => {
                (v1::ServingState::Stopping, StopReason::Closed.to_string())
            }
            Health::Serving => (v1::ServingState::Serving, String::new()),
        };
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.into(),
            reason,
            topics: snapshot.topics.iter().map(Into::into).collect(),
            subscribers: snapshot.subscribers.iter().map(Into::into).collect(),
            storage: Some(self.tree.engine().storage().into()),
            uptime: snapshot.uptime.try_into().ok(),
            files_refused: files_refused.map(Reloader::files_refused).unwrap_or_default(),
            topology_revision: self.reloader.as_ref().map(Reloader::revision).unwrap_or_default(),
        }))
    }

    async fn confirm_clock(
        &self,
        _: Request<v1::ConfirmClockRequest>,
    ) -> Result<Response<v1::ConfirmClockResponse>, Status> {
        let engine = self.tree.engine().clone();
        // it waits for a checkpoint that is being made
        let confirmed = tokio::task::spawn_blocking(move || engine.confirm_clock()).await;
        let was_waiting = confirmed.map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!(was_waiting, "the clock is confirmed");
        Ok(Response::new(v1::ConfirmClockResponse { was_waiting }))
    }
}
