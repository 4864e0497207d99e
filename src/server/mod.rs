//! The service: gRPC on one port.
//!
//! Promises: bad input gets the right code and harms nobody else; every connection, stream and reader is bounded; health
//! says NOT_SERVING before anything is refused; [`Server::stop`] answers what was admitted.
//! Relies on: the engine for what durable means, [`crate::dispatch::Publisher`] for what an event must be.
//! Must not know: files, signals, how the tree is put together, Wasm.

mod admin;
mod bounds;
mod calls;
mod capsule;
mod door;
mod listener;
mod plugin;
mod publish;
mod pull;
mod read;
mod refusal;
mod room;
mod shadow;
mod subscriber;
mod topology;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::v1::admin_service_server::AdminServiceServer;
use crate::api::v1::capsule_service_server::CapsuleServiceServer;
use crate::api::v1::plugin_service_server::PluginServiceServer;
use crate::api::v1::publisher_service_server::PublisherServiceServer;
use crate::api::v1::reader_service_server::ReaderServiceServer;
use crate::api::v1::shadow_service_server::ShadowServiceServer;
use crate::api::v1::subscriber_service_server::SubscriberServiceServer;
use crate::api::v1::topology_service_server::TopologyServiceServer;
use crate::deploy::{Compile, Reloader};
use crate::dispatch::Tree;
use crate::engine::{Engine, Health};
use crate::wasm::Host;
use crate::{api, limits};
use calls::Calls;
pub use capsule::{Capsules, Listed, Opened};

/// A runtime for a service. It has a thread for every two processors: a request takes it a few tens of microseconds, less than
/// two of its threads would spend to wake each other for it, and the lanes need the processors more.
///
/// # Errors
/// As the operating system says.
pub fn runtime() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = processors.div_ceil(2);
    Builder::new_multi_thread().worker_threads(threads).thread_name("service").enable_all().build()
}

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listen also where other machines can reach it, although nothing is encrypted and nobody is asked who they are.
    pub insecure_allow_remote: bool,
}

/// An address that is taken but does not answer yet: connections wait until [`Server::start`].
///
/// So that an address which cannot be had is known before anything slow is done. It is listened on at once, since a socket
/// that is only bound keeps no other from being bound to the same address (`SO_REUSEADDR`).
pub struct Port {
    listener: TcpListener,
    listen: SocketAddr,
}

impl Port {
    /// Takes an address.
    ///
    /// # Errors
    /// [`StartError::Remote`], [`StartError::Bind`].
    pub fn take(options: &Options) -> Result<Self, StartError> {
        let listen = options.listen;
        if !listen.ip().is_loopback() && !options.insecure_allow_remote {
            return Err(StartError::Remote(listen));
        }
        let listener = || {
            let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // The last run's connections may still be closing.
            socket.set_reuseaddr(true)?;
            socket.bind(listen)?;
            socket.listen(bounds::BACKLOG)
        };
        Ok(Self { listener: listener().map_err(|source| StartError::Bind { listen, source })?, listen })
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {0}: other machines can reach it, and there is neither encryption nor authentication yet; \
         listen on 127.0.0.1, or say --insecure-allow-remote if everybody who can reach it may do all that this bus can: publish, read, run plugins \
         of their own, and have them told what is in the files below its folders of secrets (--secrets)"
    )]
    Remote(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}{}", hint(source))]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The contract in the binary is damaged: a fault of the build.
    #[error("the gRPC contract in this binary cannot be read: {0}")]
    Contract(String),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process has the port, perhaps another wattle: choose one with --listen"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose one with --listen",
        std::io::ErrorKind::AddrNotAvailable => "; the machine has no such address",
        _ => "",
    }
}

/// The running service.
pub struct Server {
    address: SocketAddr,
    health: HealthReporter,
    closing: CancellationToken,
    calls: Calls,
    cut: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    watching: JoinHandle<()>,
}

/// Names by which health can be asked for; the empty one is the whole.
const HEALTH_NAMES: [&str; 9] = [
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

async fn report(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Says NOT_SERVING as soon as the engine has stopped.
async fn watch<E: Engine>(engine: E, health: HealthReporter) {
    let mut changes = engine.health();
    // An engine that is gone serves as little as one that says so.
    if let Ok(stopped) = changes.wait_for(|health| *health != Health::Serving).await.map(|stopped| stopped.clone()) {
        tracing::error!(?stopped, "the engine has stopped");
    }
    report(&health, ServingStatus::NotServing).await;
}

fn transport() -> tonic::transport::Server {
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

impl Server {
    /// Listens and serves a tree whose plugins stay as they are, on the runtime on which this is called.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub async fn start<E: Engine>(port: Port, tree: Tree<E>) -> Result<Self, StartError> {
        Self::start_with(port, tree, None::<Reloader<E, Host>>, None).await
    }

    /// As [`Self::start`], with the versions of its plugins, which can be changed, and with what is kept of events that failed.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub async fn start_with<E: Engine, C: Compile>(
        port: Port,
        tree: Tree<E>,
        reloader: Option<Reloader<E, C>>,
        capsules: Option<Arc<dyn Capsules>>,
    ) -> Result<Self, StartError> {
        let Port { listener, listen } = port;
        let address = listener.local_addr().map_err(|source| StartError::Bind { listen, source })?;

        let (closing, cut, calls) = (CancellationToken::new(), CancellationToken::new(), Calls::default());
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, ServingStatus::Serving).await;
        let watching = tokio::spawn(watch(tree.engine().clone(), health.clone()));

        let (publisher, engine) = (tree.publisher().clone(), tree.engine().clone());
        let waiting = room::Room::of(bounds::WAITING_BYTES_MAX);
        let publishing = publish::Publishing { publisher, closing: closing.clone(), calls: calls.clone(), waiting };
        let reading = read::Reading { tree: tree.clone(), engine, closing: closing.clone() };
        let admin = admin::Admin { tree: tree.clone(), reloader: reloader.clone(), closing: closing.clone() };
        let capsules = capsules.map(|capsules| {
            let fetching = capsule::Fetching::new(tree.clone(), capsules, closing.clone());
            let fetching = CapsuleServiceServer::new(fetching);
            door::Door(fetching.max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let subscribers = subscriber::Subscribers { tree, closing: closing.clone(), calls: calls.clone() };
        let shadows = reloader.clone().map(|reloader| {
            let shadows = shadow::Shadows::new(reloader, closing.clone(), calls.clone());
            let shadows = ShadowServiceServer::new(shadows).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
            door::Door(shadows.max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let topologies = reloader.clone().map(|reloader| {
            let (closing, calls) = (closing.clone(), calls.clone());
            let topologies = topology::Topologies { reloader, closing, calls };
            door::Door(TopologyServiceServer::new(topologies).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let plugins = reloader.map(|reloader| {
            let plugins = plugin::Plugins::new(reloader, closing.clone(), calls.clone());
            door::Door(PluginServiceServer::new(plugins).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        });
        let contract = |error: tonic_reflection::server::Error| StartError::Contract(error.to_string());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(api::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };

        let router = transport()
            .add_service(health_service)
            .add_service(reflection().build_v1().map_err(contract)?)
            .add_service(reflection().build_v1alpha().map_err(contract)?)
            .add_service(door::Door(
                PublisherServiceServer::new(publishing)
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(door::Door(
                ReaderServiceServer::new(reading).max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ))
            .add_service(door::Door(AdminServiceServer::new(admin)))
            .add_optional_service(plugins)
            .add_optional_service(shadows)
            .add_optional_service(topologies)
            .add_optional_service(capsules)
            .add_service(door::Door(
                SubscriberServiceServer::new(subscribers)
                    .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::MESSAGE_BYTES_MAX),
            ));
        let incoming = listener::Incoming::new(listener, cut.clone());
        let serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned()));
        Ok(Self { address, health, closing, calls, cut, serving, watching })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: says NOT_SERVING, admits nothing more, answers what was admitted, ends all reads, closes all connections.
    /// Says whether everything that was admitted had been answered by the deadline. A caller that takes no answers is not
    /// waited for.
    pub async fn stop(self, deadline: Duration) -> bool {
        self.watching.abort();
        let _ = self.watching.await;
        report(&self.health, ServingStatus::NotServing).await;
        self.closing.cancel();
        let answered = self.calls.answered(deadline).await;
        // Ends the streams of those that watch the health; they have seen the last change.
        let mut health = self.health;
        for name in HEALTH_NAMES {
            health.clear_service_status(name).await;
        }
        let mut serving = self.serving;
        if tokio::time::timeout(bounds::CLOSE_GRACE, &mut serving).await.is_err() {
            self.cut.cancel();
            // It only waits for connections, which have just failed.
            let _ = tokio::time::timeout(bounds::CLOSE_GRACE, &mut serving).await;
        }
        answered
    }
}
