//! The gRPC services, and how a refusal is rendered as a status.
//!
//! Promises: no service sees a request whose caller may not make it: the right of each method stands in the contract,
//! and [`authorized`] judges by it.

mod admin;
mod authorized;
pub(super) mod capsule;
mod deadline;
mod plugin;
mod publish;
mod read;
mod recorded;
mod shadow;
mod stream;
mod subscriber;
mod topology;

use std::collections::HashMap;
use std::sync::Arc;

use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_types::{ErrorDetails, StatusExt};
use tower_service::Service;

use super::audit::{Audit, OpenRecord, Subject};
use super::auth::{Caller, Gate, Names, Right};
use super::calls::Calls;
use super::listener::Peer;
use super::refusal::{Class, Refusal};
use super::room::ByteBudget;
use super::{StartError, bounds};
use crate::api::v1::admin_service_server::AdminServiceServer;
use crate::api::v1::capsule_service_server::CapsuleServiceServer;
use crate::api::v1::plugin_service_server::PluginServiceServer;
use crate::api::v1::publisher_service_server::PublisherServiceServer;
use crate::api::v1::reader_service_server::ReaderServiceServer;
use crate::api::v1::shadow_service_server::ShadowServiceServer;
use crate::api::v1::subscriber_service_server::SubscriberServiceServer;
use crate::api::v1::topology_service_server::TopologyServiceServer;
use crate::api::{self, ERROR_DOMAIN, reason};
use crate::deploy::{Compile, Reloader};
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::limits;
use authorized::AuthorizedService;
use capsule::Capsules;
use deadline::Deadlines;

/// Names by which health can be asked for; the empty one is the whole.
pub(super) const HEALTH_NAMES: [&str; 9] = [
    "",
    api::v1::publisher_service_server::SERVICE_NAME,
    api::v1::reader_service_server::SERVICE_NAME,
    api::v1::admin_service_server::SERVICE_NAME,
    api::v1::subscriber_service_server::SERVICE_NAME,
    api::v1::plugin_service_server::SERVICE_NAME,
    api::v1::shadow_service_server::SERVICE_NAME,
    api::v1::topology_service_server::SERVICE_NAME,
    api::v1::capsule_service_server::SERVICE_NAME,
];

/// The name by which health of the plugins can be asked for: SERVING if each can be called.
pub(super) const HEALTH_OF_PLUGINS: &str = "wattle.plugins";

fn code(class: Class) -> Code {
    match class {
        Class::Invalid => Code::InvalidArgument,
        Class::NotFound => Code::NotFound,
        Class::Precondition => Code::FailedPrecondition,
        Class::Exhausted => Code::ResourceExhausted,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::Forbidden => Code::PermissionDenied,
        Class::Conflict => Code::Aborted,
        Class::Unavailable => Code::Unavailable,
        Class::TimedOut => Code::DeadlineExceeded,
        Class::Unsupported => Code::Unimplemented,
        Class::Internal => Code::Internal,
        Class::DataLoss => Code::DataLoss,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { class, reason, message, fields, metadata, retry_after, is_outcome_unknown } = refusal;
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut metadata: HashMap<String, String> = metadata.collect();
        if is_outcome_unknown {
            metadata.insert(reason::OUTCOME.to_owned(), reason::OUTCOME_UNKNOWN.to_owned());
        }
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        for field in fields {
            details.add_bad_request_violation(field, message.clone());
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Self::with_error_details(code(class), message, details)
    }
}

/// What the services are made of.
pub(super) struct Services<E, C> {
    pub(super) tree: Tree<E>,
    pub(super) reloader: Option<Reloader<E, C>>,
    pub(super) capsules: Option<Arc<dyn Capsules>>,
    pub(super) closing: CancellationToken,
    pub(super) calls: Calls,
}

impl<E: Engine, C: Compile> Services<E, C> {
    /// All of them.
    pub(super) fn routes<H: Health>(self, health: HealthServer<H>) -> Result<Grpc, StartError> {
        let Self { tree, reloader, capsules, closing, calls } = self;
        let (publisher, engine) = (tree.publisher().clone(), tree.engine().clone());
        let audit = Audit::new(publisher.clone(), calls.clone());
        let names: Arc<dyn Names> = Arc::new(TreeNames(tree.clone()));
        let waiting = ByteBudget::of(bounds::WAITING_BYTES_MAX);
        let (closing, calls) = (&closing, &calls);
        let publishing = publish::Publishing {
            publisher,
            closing: closing.clone(),
            calls: calls.clone(),
            waiting,
            names: names.clone(),
        };
        let reading = read::Reading { tree: tree.clone(), engine, closing: closing.clone() };
        let admin = admin::Admin { tree: tree.clone(), reloader: reloader.clone(), closing: closing.clone() };
        let contract = |error: tonic_reflection::server::Error| StartError::Contract(error.to_string());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(api::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let authorized = AuthorizedService::by(&names);
        let mut routes = Routes::builder();
        routes
            .add_service(health)
            .add_service(reflection().build_v1().map_err(contract)?)
            .add_service(reflection().build_v1alpha().map_err(contract)?)
            .add_service(Deadlines(
                PublisherServiceServer::new(authorized.with(publishing))
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(Deadlines(
                ReaderServiceServer::new(authorized.with(reading)).max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(Deadlines(AdminServiceServer::new(authorized.with(admin))));
        if let Some(reloader) = reloader {
            let plugins = plugin::Plugins::new(reloader.clone(), closing.clone(), calls.clone());
            let topologies =
                topology::Topologies { reloader: reloader.clone(), closing: closing.clone(), calls: calls.clone() };
            let shadows = shadow::Shadows::new(reloader, names.clone(), closing.clone(), calls.clone());
            routes
                .add_service(Deadlines(
                    PluginServiceServer::new(authorized.with(plugins))
                        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
                ))
                .add_service(Deadlines(
                    ShadowServiceServer::new(authorized.with(shadows))
                        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
                ))
                .add_service(Deadlines(
                    TopologyServiceServer::new(authorized.with(topologies))
                        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
                ));
        }
        if let Some(capsules) = capsules {
            let stored = capsule::StoredCapsules::new(tree.clone(), capsules, closing.clone());
            routes.add_service(Deadlines(
                CapsuleServiceServer::new(authorized.with(stored)).max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ));
        }
        let subscribers = subscriber::Subscribers { tree, closing: closing.clone(), calls: calls.clone() };
        routes.add_service(Deadlines(
            SubscriberServiceServer::new(authorized.with(subscribers))
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
        ));
        Ok(Grpc::new(routes.routes().prepare(), audit))
    }
}

struct TreeNames<E>(Tree<E>);

impl<E: Engine> Names for TreeNames<E> {
    fn topic(&self, name: &str) -> Option<String> {
        self.0.topic(name).ok().map(|topic| topic.name().to_owned())
    }

    fn subscriber(&self, name: &str) -> Option<(String, String)> {
        let subscriber = self.0.subscriber(name).ok()?;
        Some((subscriber.name(), subscriber.from()))
    }
}

/// The services, by the paths of their methods.
#[derive(Clone)]
pub(super) struct Grpc {
    routes: Routes,
    audit: Audit,
    rights: Arc<HashMap<&'static str, Right>>,
}

/// Health is for everybody who can connect.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// A call that is not made.
struct Denial {
    /// Who called, where that is known.
    caller: Option<Caller>,
    refusal: Refusal,
}

impl Grpc {
    fn new(routes: Routes, audit: Audit) -> Self {
        Self { routes, audit, rights: Arc::new(authorized::RIGHTS.iter().copied().collect()) }
    }

    /// Answers a request, once its caller may make it.
    pub(super) async fn answer(
        &self,
        gate: &Gate,
        peer: &Arc<Peer>,
        mut request: http::Request<Incoming>,
    ) -> http::Response<Body> {
        if request.uri().path().starts_with(HEALTH_PATH) {
            return self.call(request).await;
        }
        let (caller, right) = match self.caller(gate, peer, &request) {
            Ok(judged) => judged,
            Err(denial) => {
                let Denial { caller, refusal } = *denial;
                let (path, subject) = (request.uri().path(), Subject::default());
                let (caller, reason) = (caller.as_ref().map(Caller::name), refusal.reason);
                self.audit.denied(caller, peer, path, &subject, reason).await;
                return Status::from(refusal).into_http();
            }
        };
        let Some(right) = right.filter(|right| right.is_audited || !caller.is_unjudged()) else {
            request.extensions_mut().insert(caller);
            return self.call(request).await;
        };
        let (subject, path) = (Subject::default(), request.uri().path().to_owned());
        request.extensions_mut().insert(caller.clone());
        let record = right.is_audited.then(|| {
            request.extensions_mut().insert(subject.clone());
            self.audit.open(caller.name(), peer, &path, &subject)
        });
        let granted = || caller.granted(right.verbs, Vec::new());
        let answer = match right.streams_requests.then(granted).flatten() {
            None => self.call(request).await,
            Some(grant) => tokio::select! {
                biased;
                answer = self.call(request) => answer,
                refusal = grant.revoked() => Status::from(refusal).into_http(),
            },
        };
        // An error has its status among the headers, since it has no body.
        let status = Status::from_header_map(answer.headers());
        match (status.as_ref().map(Status::code), record) {
            (Some(Code::PermissionDenied | Code::Unauthenticated), record) => {
                record.into_iter().for_each(OpenRecord::withdraw);
                self.audit.denied(Some(caller.name()), peer, &path, &subject, reason::FORBIDDEN).await;
            }
            (code, Some(record)) => {
                let outcome = code.map_or_else(|| "OK".to_owned(), |code| format!("{code:?}"));
                record.close(&outcome).await;
            }
            (_, None) => {}
        }
        answer
    }

    async fn call(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let mut routes = self.routes.clone();
        match routes.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    /// Who calls; an error if it may not, judged by the method alone.
    fn caller(
        &self,
        gate: &Gate,
        peer: &Arc<Peer>,
        request: &http::Request<Incoming>,
    ) -> Result<(Caller, Option<Right>), Box<Denial>> {
        let caller = gate.caller(request.headers(), peer).map_err(|refusal| Denial { caller: None, refusal })?;
        let right = self.rights.get(request.uri().path()).copied();
        let judged = match &right {
            Some(right) => caller.check_right(right),
            // Reflection, and what does not exist: a stranger does not learn which.
            None => caller.check_known(),
        };
        match judged {
            Ok(()) => Ok((caller, right)),
            Err(refusal) => Err(Box::new(Denial { caller: Some(caller), refusal })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_class_has_a_code_of_its_own_and_nothing_of_a_refusal_is_lost() {
        let table = [
            (Class::Invalid, Code::InvalidArgument),
            (Class::NotFound, Code::NotFound),
            (Class::Precondition, Code::FailedPrecondition),
            (Class::Exhausted, Code::ResourceExhausted),
            (Class::Unauthenticated, Code::Unauthenticated),
            (Class::Forbidden, Code::PermissionDenied),
            (Class::Conflict, Code::Aborted),
            (Class::Unavailable, Code::Unavailable),
            (Class::TimedOut, Code::DeadlineExceeded),
            (Class::Unsupported, Code::Unimplemented),
            (Class::Internal, Code::Internal),
            (Class::DataLoss, Code::DataLoss),
        ];
        for (number, (class, code)) in table.into_iter().enumerate() {
            let refusal = Refusal {
                class,
                reason: reason::BUSY,
                message: format!("message {number}"),
                fields: vec!["a".to_owned(), "b[1]".to_owned()],
                metadata: [("topic", "t".to_owned())].into(),
                retry_after: Some(Duration::from_millis(7)),
                is_outcome_unknown: number % 2 == 0,
            };
            let status = Status::from(refusal);
            assert_eq!((status.code(), status.message()), (code, format!("message {number}").as_str()));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.domain.as_str(), info.reason.as_str()), (ERROR_DOMAIN, reason::BUSY));
            assert_eq!(info.metadata.get("topic").map(String::as_str), Some("t"));
            let outcome = info.metadata.get(reason::OUTCOME).map(String::as_str);
            assert_eq!(outcome, (number % 2 == 0).then_some(reason::OUTCOME_UNKNOWN));
            let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|of| &of.field).collect();
            assert_eq!(fields, ["a", "b[1]"]);
            assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(7)));
        }
    }
}
