//! The gRPC services, and how a refusal is rendered as a status.

mod admin;
pub(super) mod capsule;
mod deadline;
mod plugin;
mod publish;
mod read;
mod shadow;
mod stream;
mod subscriber;
mod topology;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::calls::Calls;
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

/// The transport, with its bounds.
pub(super) fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(bounds::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(bounds::CONNECTION_WINDOW_BYTES)
        .max_frame_size(bounds::FRAME_BYTES)
        .max_concurrent_streams(bounds::STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(bounds::HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(bounds::PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(bounds::ERROR_RESETS_MAX))
        .http2_keepalive_interval(Some(bounds::KEEPALIVE_AFTER))
        .http2_keepalive_timeout(Some(bounds::KEEPALIVE_WITHIN))
}

fn code(class: Class) -> Code {
    match class {
        Class::Invalid => Code::InvalidArgument,
        Class::NotFound => Code::NotFound,
        Class::Precondition => Code::FailedPrecondition,
        Class::Exhausted => Code::ResourceExhausted,
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
    /// Adds all of them.
    pub(super) fn added_to(self, router: Router) -> Result<Router, StartError> {
        let Self { tree, reloader, capsules, closing, calls } = self;
        let (publisher, engine) = (tree.publisher().clone(), tree.engine().clone());
        let waiting = ByteBudget::of(bounds::WAITING_BYTES_MAX);
        let publishing = publish::Publishing { publisher, closing: closing.clone(), calls: calls.clone(), waiting };
        let reading = read::Reading { tree: tree.clone(), engine, closing: closing.clone() };
        let admin = admin::Admin { tree: tree.clone(), reloader: reloader.clone(), closing: closing.clone() };
        let capsules = capsules.map(|capsules| {
            let fetching = capsule::StoredCapsules::new(tree.clone(), capsules, closing.clone());
            let fetching = CapsuleServiceServer::new(fetching);
            Deadlines(fetching.max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let subscribers = subscriber::Subscribers { tree, closing: closing.clone(), calls: calls.clone() };
        let shadows = reloader.clone().map(|reloader| {
            let shadows = shadow::Shadows::new(reloader, closing.clone(), calls.clone());
            let shadows = ShadowServiceServer::new(shadows).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
            Deadlines(shadows.max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let topologies = reloader.clone().map(|reloader| {
            let (closing, calls) = (closing.clone(), calls.clone());
            let topologies = topology::Topologies { reloader, closing, calls };
            Deadlines(TopologyServiceServer::new(topologies).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let plugins = reloader.map(|reloader| {
            let plugins = plugin::Plugins::new(reloader, closing.clone(), calls.clone());
            Deadlines(PluginServiceServer::new(plugins).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let contract = |error: tonic_reflection::server::Error| StartError::Contract(error.to_string());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(api::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };

        let router = router
            .add_service(reflection().build_v1().map_err(contract)?)
            .add_service(reflection().build_v1alpha().map_err(contract)?)
            .add_service(Deadlines(
                PublisherServiceServer::new(publishing)
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(Deadlines(
                ReaderServiceServer::new(reading).max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(Deadlines(AdminServiceServer::new(admin)))
            .add_optional_service(plugins)
            .add_optional_service(shadows)
            .add_optional_service(topologies)
            .add_optional_service(capsules)
            .add_service(Deadlines(
                SubscriberServiceServer::new(subscribers)
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ));
        Ok(router)
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
