//! The service: gRPC and HTTP on one port.
//!
//! Promises: bad input gets the right code and harms no other caller; every connection, stream and reader is bounded;
//! nobody does what the rules of access do not allow; health says NOT_SERVING before anything is refused;
//! [`Server::stop`] answers what was admitted.
//!
//! ```floors
//! grpc http
//! audit room
//! auth
//! listener
//! usage
//! refusal
//! calls tls
//! bounds
//! ```
//!
//! | module | content |
//! |---|---|
//! | `grpc` | the services, and how a refusal is a status |
//! | `http` | the routes, and how a refusal is a problem document |
//! | `auth` `audit` | who calls, whether that caller may, and the record of it |
//! | `listener` `tls` | connections, in plain text or encrypted |
//! | `bounds` `calls` `room` `usage` | what one connection, one call, one caller may take, whatever it speaks |
//! | `refusal` | errors as refusals, in no protocol's terms |
//!
//! Relies on: the engine for what durable means, [`crate::dispatch::Publisher`] for what an event must be.
//! Must not know: files, signals, how the tree is put together, how plugins run.

mod audit;
mod auth;
mod bounds;
mod calls;
mod grpc;
mod http;
mod listener;
mod refusal;
mod room;
mod tls;
mod usage;

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

use crate::deploy::{Compile, Reloader};
use crate::dispatch::Tree;
use crate::effects;
use crate::engine::{Engine, Health, StopReason};
use crate::wasm::Host;
pub use auth::Gate;
use calls::Calls;
pub use grpc::capsule::{CapsulePage, Capsules, FileReader};
use listener::{Listener, Peer, Serve};
pub use tls::{ClientCertificates, Tls, TlsError, TlsTexts};

/// A runtime for a service. It has a thread for every two processors: a request takes it a few tens of microseconds,
/// less than two of its threads would spend to wake each other for it, and the lanes need the processors more.
///
/// # Errors
/// As the operating system says.
pub fn runtime() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = processors.div_ceil(2);
    Builder::new_multi_thread().worker_threads(threads).thread_name("service").enable_all().build()
}

/// Where to listen, and who may come in.
#[derive(Clone)]
pub struct Options {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listen on non-loopback addresses also without encryption or without rules of access.
    pub insecure_allow_remote: bool,
    /// Encrypts connections; without it they are in plain text.
    pub tls: Option<Tls>,
    /// What callers may do.
    pub gate: Gate,
}

impl Options {
    /// In plain text, and everybody who can connect may do everything.
    pub fn open(listen: SocketAddr) -> Self {
        Self { listen, insecure_allow_remote: false, tls: None, gate: Gate::open() }
    }

    fn is_safe(&self) -> bool {
        self.listen.ip().is_loopback() || self.insecure_allow_remote || self.tls.is_some() && self.gate.has_rules()
    }
}

/// An address that is taken but does not answer yet: connections wait until [`Server::start`].
///
/// So that an address which cannot be had is known before anything slow is done. It is listened on at once, since a
/// socket that is only bound keeps no other from being bound to the same address (`SO_REUSEADDR`).
pub struct Port {
    listener: TcpListener,
    options: Options,
}

impl Port {
    /// Takes an address.
    ///
    /// # Errors
    /// [`StartError::Remote`], [`StartError::Bind`].
    pub fn take(options: &Options) -> Result<Self, StartError> {
        let listen = options.listen;
        if !options.is_safe() {
            return Err(StartError::Remote(listen));
        }
        let listener = || {
            let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // The last run's connections may still be closing.
            socket.set_reuseaddr(true)?;
            socket.bind(listen)?;
            socket.listen(bounds::BACKLOG)
        };
        let listener = listener().map_err(|source| StartError::Bind { listen, source })?;
        Ok(Self { listener, options: options.clone() })
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {0}: other machines can reach it, and that needs encryption (--tls-cert, --tls-key) and \
         rules of access (--access); listen on 127.0.0.1, or pass --insecure-allow-remote if everybody who can reach \
         it may do everything: publish, read, run plugins, and let these read the files below the folders of secrets \
         (--secrets)"
    )]
    Remote(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}{}", hint(source))]
    Bind { listen: SocketAddr, source: std::io::Error },
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
    serving: JoinHandle<()>,
    watching: JoinHandle<()>,
}

/// How often to look whether plugins can be called.
const PLUGINS_EVERY: Duration = Duration::from_millis(500);

async fn report(health: &HealthReporter, status: ServingStatus) {
    for name in grpc::HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// The health of the plugins, which has a name of its own: events are taken for those that cannot be called, too.
async fn report_plugins(health: &HealthReporter, are_ready: bool) {
    let status = if are_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status(grpc::HEALTH_OF_PLUGINS, status).await;
}

/// Says NOT_SERVING as soon as the engine has stopped, and whether plugins can be called.
async fn watch<E: Engine>(tree: Tree<E>, health: HealthReporter, mut were_ready: bool) {
    let mut changes = tree.engine().health();
    let mut stopping = std::pin::pin!(changes.wait_for(|health| *health != Health::Serving));
    let stopped = loop {
        tokio::select! {
            stopped = &mut stopping => break stopped.map(|stopped| stopped.clone()),
            () = tokio::time::sleep(PLUGINS_EVERY) => {}
        }
        let are_ready = tree.has_all_plugins();
        if are_ready != were_ready {
            report_plugins(&health, are_ready).await;
            were_ready = are_ready;
        }
    };
    // An engine that was dropped does not serve either.
    if let Ok(stopped) = stopped {
        tracing::error!(?stopped, "the engine has stopped");
    }
    report(&health, ServingStatus::NotServing).await;
    report_plugins(&health, false).await;
}

impl Server {
    /// Listens and serves a tree whose plugins stay as they are, on the runtime on which this is called.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub async fn start<E: Engine>(port: Port, tree: Tree<E>) -> Result<Self, StartError> {
        Self::start_with(port, tree, None::<Reloader<E, Host>>, None).await
    }

    /// As [`Self::start`], with the versions of its plugins, which can be changed, and with the recordings of failed
    /// events.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub async fn start_with<E: Engine, C: Compile>(
        port: Port,
        tree: Tree<E>,
        reloader: Option<Reloader<E, C>>,
        capsules: Option<Arc<dyn Capsules>>,
    ) -> Result<Self, StartError> {
        let Port { listener, options: Options { listen, tls, gate, .. } } = port;
        let address = listener.local_addr().map_err(|source| StartError::Bind { listen, source })?;

        let (closing, cut, calls) = (CancellationToken::new(), CancellationToken::new(), Calls::default());
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, ServingStatus::Serving).await;
        let are_ready = tree.has_all_plugins();
        report_plugins(&health, are_ready).await;
        let watching = effects::task(watch(tree.clone(), health.clone(), are_ready));
        let is_ready = {
            let (health, closing) = (tree.engine().health(), closing.clone());
            move || match *health.borrow() {
                Health::Serving if closing.is_cancelled() => http::Readiness::Stopping,
                Health::Serving => http::Readiness::Ready,
                Health::Stopped(StopReason::Closed) => http::Readiness::Stopping,
                Health::Stopped(StopReason::Poisoned(_)) => http::Readiness::Failed,
            }
        };

        let services = grpc::Services { tree, reloader, capsules, closing: closing.clone(), calls: calls.clone() };
        let grpc = services.routes(health_service)?;
        let http = http::Http::new(is_ready);
        let service = Router(Arc::new(Routes { grpc, http, gate }));
        let listener = Listener { listener, tls, service, closing: closing.clone(), cut: cut.clone() };
        let serving = effects::task(listener.run());
        Ok(Self { address, health, closing, calls, cut, serving, watching })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: says NOT_SERVING, admits nothing more, answers what was admitted, ends all reads, closes all connections.
    /// Says whether everything that was admitted had been answered by the deadline. A caller that takes no answers is
    /// not waited for.
    pub async fn stop(self, deadline: Duration) -> bool {
        self.watching.abort();
        let _ = self.watching.await;
        report(&self.health, ServingStatus::NotServing).await;
        report_plugins(&self.health, false).await;
        self.closing.cancel();
        let answered = self.calls.answered(deadline).await;
        // Ends the streams of health watchers; they have seen the last change.
        let mut health = self.health;
        for name in grpc::HEALTH_NAMES.into_iter().chain([grpc::HEALTH_OF_PLUGINS]) {
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

/// Each request to the API that it speaks.
#[derive(Clone)]
struct Router(Arc<Routes>);

struct Routes {
    grpc: grpc::Grpc,
    http: http::Http,
    gate: Gate,
}

impl Serve for Router {
    fn answer(
        self,
        peer: Arc<Peer>,
        request: ::http::Request<hyper::body::Incoming>,
    ) -> impl Future<Output = ::http::Response<tonic::body::Body>> + Send + 'static {
        let routes = self.0;
        async move {
            let kind = request.headers().get(::http::header::CONTENT_TYPE);
            match kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC_CONTENT_TYPE)) {
                true => routes.grpc.answer(&routes.gate, &peer, request).await,
                false => routes.http.answer(&routes.gate, &peer, request).await,
            }
        }
    }
}

/// How the content type of all gRPC begins.
const GRPC_CONTENT_TYPE: &[u8] = b"application/grpc";
