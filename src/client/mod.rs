//! A typed client of the service.
//!
//! Promises: events go out and come in as the bytes that they are; every failure says whether it may be tried again and
//! whether anything has happened. Nothing is published twice by this client on its own account. A bus that speaks TLS
//! is verified, and a token is sent in plain text only to this machine.
//! Must not know: the engine, the tree; types of the contract stay behind its door.

mod address;
mod capsules;
mod error;
mod line;
mod pending;
mod plugins;
mod publishing;
mod reading;
mod secret;
mod shadow;
mod subscribers;
#[cfg(test)]
mod tests;
mod tls;
mod topologies;
mod trouble;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Endpoint;

use crate::api::times::timestamp;
use crate::api::v1;
use crate::api::v1::admin_service_client::AdminServiceClient;
use crate::api::v1::capsule_service_client::CapsuleServiceClient;
use crate::api::v1::plugin_service_client::PluginServiceClient;
use crate::api::v1::publisher_service_client::PublisherServiceClient;
use crate::api::v1::reader_service_client::ReaderServiceClient;
use crate::api::v1::shadow_service_client::ShadowServiceClient;
use crate::api::v1::subscriber_service_client::SubscriberServiceClient;
use crate::api::v1::topology_service_client::TopologyServiceClient;
use crate::api::{AddressedEvent, Numbering, PublishReceipt, Snapshot, Storage, TopicStatus, Trace, TraceQuery};
use crate::limits;

pub use address::{Address, DEFAULT_PORT, Scheme, ServerAddress};
pub use capsules::{CapsuleInfo, CapsuleInfos};
pub use error::{ClientError, Refusal};
use line::Line;
pub use line::Patience;
pub use pending::Pending;
pub use publishing::{Publishing, Window};
pub use reading::{Position, ReadRequest, Reading, ReceivedEvent, Start};
pub use secret::{Secret, Token};
pub use subscribers::{FailedEvents, Listing, Part, Source, StateOfKey, States};
pub use tls::{CertificateFiles, TlsOptions};
use wire::Target;

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What a bus may have on its way to us without being asked, for one call and for all.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES: u32 = 256 << 10;
/// Silence after which the bus is asked whether it is there, and how long it may take to answer.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);

/// How a client connects. By default it waits for each answer as long as that takes, and shows nothing of itself.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// How long it waits for answers.
    pub patience: Patience,
    /// How it uses TLS. What is given here turns TLS on for an address that leaves it open.
    pub tls: TlsOptions,
    /// What it sends with each request to say who it is.
    pub token: Option<Token>,
}

impl ConnectOptions {
    /// What an address and these options mean together: TLS, or `None` for plain text.
    ///
    /// # Errors
    /// Words, if they contradict each other.
    pub fn tls_for(&self, server: &ServerAddress) -> Result<Option<TlsOptions>, String> {
        match server.scheme {
            Some(Scheme::Http) if self.tls.is_given() => Err(format!(
                "http:// is plain text, and --tls-ca and --client-cert are for TLS: write https://{}",
                server.address
            )),
            Some(Scheme::Https) => Ok(Some(self.tls.clone())),
            Some(Scheme::Http) | None => Ok(Some(self.tls.clone()).filter(TlsOptions::is_given)),
        }
    }
}

/// A connection to a bus. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    patience: Patience,
    publisher: PublisherServiceClient<Line>,
    reader: ReaderServiceClient<Line>,
    admin: AdminServiceClient<Line>,
    capsules: CapsuleServiceClient<Line>,
    subscribers: SubscriberServiceClient<Line>,
    plugins: PluginServiceClient<Line>,
    shadows: ShadowServiceClient<Line>,
    topologies: TopologyServiceClient<Line>,
}

/// How the bus is.
#[derive(Debug, Clone)]
pub struct BusStatus {
    pub version: String,
    /// Whether it takes and gives out events; if not, why.
    pub serving: Result<(), String>,
    /// State of its storage; `None` where the bus is too old to report it.
    pub storage: Option<Storage>,
    /// Why what the files of its start say does not run, each reason in words.
    pub files_refused: Vec<String>,
    /// Which topology is applied, in short.
    pub topology_revision: String,
    pub tree: Snapshot,
}

impl Client {
    /// Connects to the bus at `server`, a [`ServerAddress`], and waits for each of its answers as long as that takes.
    ///
    /// # Errors
    /// As of [`Self::connect_with`].
    pub async fn connect(server: &str) -> Result<Self, ClientError> {
        Self::connect_with(server, ConnectOptions::default()).await
    }

    /// Connects to the bus at `server`, a [`ServerAddress`], in the way that the options say.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Options`], [`ClientError::Tls`], [`ClientError::NoBus`],
    /// [`ClientError::Unreachable`].
    pub async fn connect_with(server: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        let parsed = server.parse().map_err(|why| ClientError::Address { server: server.to_owned(), why });
        let address: ServerAddress = parsed?;
        let tls = options.tls_for(&address).map_err(|why| ClientError::Options { server: server.to_owned(), why })?;
        let ConnectOptions { patience, token, .. } = options;
        let address = address.address;
        let scheme = if tls.is_some() { "https" } else { "http" };
        // The zone of an address is for this machine only and is never sent.
        let uri = Endpoint::from_shared(format!("{scheme}://{address}"))
            .or_else(|_| Endpoint::from_shared(format!("{scheme}://bus")));
        let endpoint = uri
            .unwrap_or(Endpoint::from_static("http://bus"))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_AFTER)
            .keep_alive_timeout(KEEPALIVE_WITHIN);
        let server = if tls.is_some() { format!("https://{address}") } else { address.to_string() };
        let within = patience.usual.map_or(CONNECT_WITHIN, |time| time.min(CONNECT_WITHIN));
        let channel = Line::connect(&endpoint, Target { address, within, tls, token }, patience)
            .await
            .map_err(|status| ClientError::of_connect(&server, &status))?;
        Ok(Self {
            server,
            patience,
            publisher: PublisherServiceClient::new(channel.clone())
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            reader: ReaderServiceClient::new(channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            admin: AdminServiceClient::new(channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            capsules: CapsuleServiceClient::new(channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            plugins: PluginServiceClient::new(channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            shadows: ShadowServiceClient::new(channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            topologies: TopologyServiceClient::new(channel.clone())
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
            subscribers: SubscriberServiceClient::new(channel)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX),
        })
    }

    fn failed(&self, status: &tonic::Status) -> ClientError {
        ClientError::from_status(&self.server, status)
    }

    /// The same of a call that changes nothing.
    fn failed_read(&self, status: &tonic::Status) -> ClientError {
        ClientError::of_read(&self.server, status)
    }

    /// Publishes events, each in the CloudEvents protobuf format, to a root, all or nothing; returns when they are
    /// durable.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish(&self, topic: &str, events: Vec<Bytes>) -> Result<PublishReceipt, ClientError> {
        self.publish_request(v1::PublishRequest { topic: topic.to_owned(), events, numbering: None }).await
    }

    /// As [`Self::publish`], and events published with these numbers before are not published again, however long ago
    /// that was. So after any error the same call can be made again; not the next one, until this one has succeeded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish_numbered(
        &self,
        topic: &str,
        events: Vec<Bytes>,
        numbering: Numbering,
    ) -> Result<PublishReceipt, ClientError> {
        let numbering = Some(numbering.into());
        self.publish_request(v1::PublishRequest { topic: topic.to_owned(), events, numbering }).await
    }

    /// Publishes events to several roots in one commit, all or nothing; returns when they are durable. Where they are
    /// numbered, that is as in [`Self::publish_numbered`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish_together(
        &self,
        events: Vec<AddressedEvent>,
        numbering: Option<Numbering>,
    ) -> Result<PublishReceipt, ClientError> {
        let events = events.into_iter().map(Into::into).collect();
        let request = v1::PublishTogetherRequest { events, numbering: numbering.map(Into::into) };
        let answer = self.publisher.clone().publish_together(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().into())
    }

    async fn publish_request(&self, request: v1::PublishRequest) -> Result<PublishReceipt, ClientError> {
        let answer = self.publisher.clone().publish(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().into())
    }

    /// Publishes one batch after another, without waiting for each.
    pub fn publishing(&self, topic: &str, window: Window) -> Publishing {
        Publishing::new(self.clone(), topic.to_owned(), window)
    }

    /// Reads events of a topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, read: ReadRequest) -> Result<Reading, ClientError> {
        Reading::open(self, read).await
    }

    /// The lineage of an event: its ancestors, all their descendants, and the outcome of each.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace(&self, of: TraceQuery) -> Result<Trace, ClientError> {
        let TraceQuery { id, source, topic, since_ns } = of;
        let request = v1::TraceRequest { id, source, topic, since: since_ns.map(timestamp) };
        let answer = self.reader.clone().trace(request).await.map_err(|status| self.failed_read(&status))?;
        Ok(answer.into_inner().into())
    }

    /// All topics, parents before children.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topics(&self) -> Result<Vec<TopicStatus>, ClientError> {
        let request = v1::ListTopicsRequest {};
        let answer = self.admin.clone().list_topics(request).await.map_err(|status| self.failed_read(&status))?;
        Ok(answer.into_inner().topics.into_iter().map(Into::into).collect())
    }

    /// How the bus and its tree are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<BusStatus, ClientError> {
        let request = v1::GetStatusRequest {};
        let mut answer =
            self.admin.clone().get_status(request).await.map_err(|status| self.failed_read(&status))?.into_inner();
        let serving = match answer.state() {
            v1::ServingState::Serving => Ok(()),
            v1::ServingState::Stopping | v1::ServingState::Failed | v1::ServingState::Unspecified => {
                Err(answer.reason.clone())
            }
        };
        let storage = answer.storage.take().map(Into::into);
        let (version, files_refused) = (answer.version.clone(), answer.files_refused.clone());
        let topology_revision = answer.topology_revision.clone();
        Ok(BusStatus { version, serving, storage, files_refused, topology_revision, tree: answer.into_snapshot() })
    }

    /// Says that the clock of the bus's machine is right, so that what waited for that may expire. Whether anything
    /// had.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn confirm_clock(&self) -> Result<bool, ClientError> {
        let request = v1::ConfirmClockRequest {};
        let answer = self.admin.clone().confirm_clock(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().was_waiting)
    }
}
