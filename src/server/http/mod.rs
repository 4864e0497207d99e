//! The HTTP API: the routes, and how a refusal is rendered as a problem document.

mod problem;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::body::Body;
use tower_service::Service;

use super::auth::Gate;
use super::listener::Peer;
use super::refusal;

/// Health is for everybody who can connect.
const HEALTH_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Whether the bus takes and gives out events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It is told to stop: nothing more is admitted.
    Stopping,
    /// Its storage has failed.
    Failed,
}

type IsReady = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// The routes, and what they ask to answer.
#[derive(Clone)]
pub(super) struct Http(Router);

impl Http {
    pub(super) fn new(is_ready: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        let router = Router::new()
            .route("/healthz", get(is_alive))
            .route("/readyz", get(is_ready_to_serve))
            .fallback(async || problem::Problem(refusal::unknown_route()))
            .method_not_allowed_fallback(async || problem::Problem(refusal::unknown_method()));
        Self(router.with_state(Arc::new(is_ready)))
    }

    /// Answers a request, once its caller may make it.
    pub(super) async fn answer(&self, gate: &Gate, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        if !HEALTH_PATHS.contains(&request.uri().path()) {
            let judged = gate.caller(request.headers(), peer).and_then(|caller| caller.check_known());
            if let Err(refusal) = judged {
                return problem::Problem(refusal).into_response().map(Body::new);
            }
        }
        let mut router = self.0.clone();
        match router.call(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(never) => match never {},
        }
    }
}

/// Whether the process should go on: not after its storage has failed.
async fn is_alive(State(is_ready): State<IsReady>) -> (StatusCode, &'static str) {
    match is_ready() {
        Readiness::Ready | Readiness::Stopping => (StatusCode::OK, "alive\n"),
        Readiness::Failed => (StatusCode::SERVICE_UNAVAILABLE, "the storage has failed: restart the bus\n"),
    }
}

/// Whether requests should be sent here.
async fn is_ready_to_serve(State(is_ready): State<IsReady>) -> (StatusCode, &'static str) {
    match is_ready() {
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "the bus is shutting down\n"),
        Readiness::Failed => (StatusCode::SERVICE_UNAVAILABLE, "the storage has failed\n"),
    }
}
