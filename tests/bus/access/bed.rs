//! A bus with TLS and rules, certificates, tokens, and raw calls of any method.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MethodDescriptor, ReflectMessage, Value};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use wattle::access::{self, Access, Files, NewToken};
use wattle::api;
use wattle::effects::{Clock, ManualClock};
use wattle::server::{
    CapsulePage, Capsules, ClientCertificates, FileReader, Gate, Options, Port, Server, Tls, TlsTexts,
};
use wattle::topology::Source;

use crate::reload::bed::{Bus, World};

/// The topic and the subscriber of the bus.
pub(crate) const TOPIC: &str = "t/in";
pub(crate) const SUBSCRIBER: &str = "t/work";

/// When tests begin, seconds since 1970.
pub(crate) const NOW_S: u64 = 1_800_000_000;

/// An authority of certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name: a URI where it has a scheme.
    pub(crate) fn issue(&self, name: &str, is_expired: bool) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = vec![match name.contains("://") {
            true => SanType::URI(name.try_into().unwrap()),
            false => SanType::DnsName(name.try_into().unwrap()),
        }];
        if is_expired {
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The key of an issuer of JWT.
pub(crate) struct Issuer {
    key: EncodingKey,
    pub(crate) keys: String,
    pub(crate) id: &'static str,
}

impl Issuer {
    pub(crate) fn new(id: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = key.serialize_der();
        // An uncompressed point: a byte, and two coordinates.
        let point = key.public_key_raw().to_vec();
        let text = |bytes: &[u8]| {
            use base64::Engine;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
        };
        let jwk = serde_json::json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
            "x": text(&point[1..33]), "y": text(&point[33..65]),
        });
        let keys = serde_json::json!({ "keys": [jwk] }).to_string();
        Self { key: EncodingKey::from_ec_der(&der), keys, id }
    }

    pub(crate) fn sign(&self, claims: &serde_json::Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

struct NoCapsules;

impl Capsules for NoCapsules {
    fn list(&self, _: &dyn Fn(&str) -> bool, _: &str, _: usize) -> io::Result<CapsulePage> {
        Ok((Vec::new(), None))
    }

    fn open(&self, _: &str, _: &str) -> io::Result<FileReader> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn open_component(&self, _: &str) -> io::Result<FileReader> {
        Err(io::ErrorKind::NotFound.into())
    }
}

struct KeyFile(String);

impl Files for KeyFile {
    fn text(&self, _: &std::path::Path, _: usize) -> Result<String, String> {
        Ok(self.0.clone())
    }
}

/// The rules in a text, whose key file has this.
pub(crate) fn rules(text: &str, keys: &str) -> Access {
    let source = Source { path: "access.yaml".into(), text: text.to_owned() };
    let (access, problems) = access::check(&source, &KeyFile(keys.to_owned()));
    access.unwrap_or_else(|| panic!("{problems:#?}"))
}

/// A new token, and its hash as access files have it.
pub(crate) fn token(number: u8) -> (String, String) {
    let token = NewToken::from_random(&zeroize::Zeroizing::new([number; NewToken::RANDOM_BYTES]));
    (token.text().reveal().to_owned(), token.hash())
}

/// A bus that encrypts and judges.
pub(crate) struct House {
    pub(crate) gate: Gate,
    clock: Arc<ManualClock>,
    pub(crate) tls: Tls,
    pub(crate) authority: Authority,
    pub(crate) bus: Bus,
    address: std::net::SocketAddr,
    _server: Server,
    _world: World,
}

impl House {
    /// Starts with these rules. Certificates of clients are those of its authority.
    pub(crate) async fn open(text: &str, keys: &str) -> Self {
        let clock = Arc::new(ManualClock::default());
        let authority = Authority::new();
        let tls = Tls::new(&Self::texts(&authority)).unwrap();
        let shared: Arc<dyn Clock> = clock.clone();
        let gate = Gate::by(rules(text, keys), shared);
        let world = World::new("a");
        let bus = world.start().await;
        let options =
            Options { tls: Some(tls.clone()), gate: gate.clone(), ..Options::open("127.0.0.1:0".parse().unwrap()) };
        let port = Port::take(&options).unwrap();
        let (tree, reloader) = (bus.tree.clone(), Some(bus.reloader.clone()));
        let server = Server::start_with(port, tree, reloader, Some(Arc::new(NoCapsules))).await.unwrap();
        let house =
            Self { gate, clock, tls, authority, bus, address: server.address(), _server: server, _world: world };
        house.set_clock(NOW_S);
        house
    }

    /// Sets the clock of the bus, seconds since 1970.
    pub(crate) fn set_clock(&self, time_s: u64) {
        self.clock.0.store(time_s * 1_000_000_000, Ordering::Relaxed);
    }

    /// What a bus with a certificate of this authority encrypts by.
    pub(crate) fn texts(authority: &Authority) -> TlsTexts {
        let Identity { certificate, key } = authority.issue("localhost", false);
        let client_authorities = Some((authority.pem().into_bytes(), ClientCertificates::Optional));
        TlsTexts { certificate: certificate.into_bytes(), key: key.into_bytes(), client_authorities }
    }

    /// A connection that shows a certificate, or none.
    ///
    /// # Errors
    /// Those of the handshake. In TLS 1.3 a refused certificate is an error of the first call only.
    pub(crate) async fn connect(&self, shown: Option<&Identity>) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.address);
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        Endpoint::from_static("https://localhost").connect_with_connector(connect).await
    }
}

/// All methods of the contract.
pub(crate) fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(api::DESCRIPTORS).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "wattle.v1");
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The verbs of a method's right, in lower case, and the field of the right that says what it is for.
pub(crate) fn right(method: &MethodDescriptor) -> (Vec<String>, &'static str) {
    let extension = method.parent_pool().get_extension_by_name("wattle.v1.right").unwrap();
    let (options, verbs) = (method.options(), "verbs");
    let right = options.get_extension(&extension).into_owned();
    let right = right.as_message().unwrap();
    let kind = right.descriptor().get_field_by_name(verbs).unwrap().kind();
    let kind = kind.as_enum().unwrap().clone();
    let named = right.get_field_by_name(verbs).unwrap().into_owned();
    let verbs = named.as_list().unwrap().iter().map(|verb| {
        let name = kind.get_value(verb.as_enum_number().unwrap()).unwrap().name().to_owned();
        name.trim_start_matches("VERB_").to_lowercase()
    });
    let subjects = ["topic", "subscriber", "namespaces", "bus", "each"];
    let subject = subjects.into_iter().find(|field| right.has_field_by_name(field)).unwrap();
    (verbs.collect(), subject)
}

/// A request of a method that names the topic, the subscriber, or the namespace of the bus, wherever it can.
pub(crate) fn request(method: &MethodDescriptor) -> Bytes {
    let mut message = DynamicMessage::new(method.input());
    for field in method.input().fields() {
        let value = match (field.name(), field.kind()) {
            ("topic", Kind::String) => Value::String(TOPIC.to_owned()),
            ("subscriber", Kind::String) => Value::String(SUBSCRIBER.to_owned()),
            ("namespaces", Kind::String) => Value::List(vec![Value::String("t".to_owned())]),
            ("events", Kind::Message(inner)) if inner.get_field_by_name("topic").is_some() => {
                let mut event = DynamicMessage::new(inner);
                event.set_field_by_name("topic", Value::String(TOPIC.to_owned()));
                Value::List(vec![Value::Message(event)])
            }
            ("begin", Kind::Message(inner)) if inner.get_field_by_name("subscriber").is_some() => {
                let mut begin = DynamicMessage::new(inner);
                begin.set_field_by_name("subscriber", Value::String(SUBSCRIBER.to_owned()));
                Value::Message(begin)
            }
            ("topology", Kind::Message(inner)) => {
                let mut topology = DynamicMessage::new(inner);
                let text = "wattle: v1\nname: t\ntopics: {}\n".to_owned();
                topology.set_field_by_name("documents", Value::List(vec![Value::String(text)]));
                Value::Message(topology)
            }
            _ => continue,
        };
        message.set_field(&field, value);
    }
    prost::Message::encode_to_vec(&message).into()
}

#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// All calls end by themselves long before.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// Calls any method with one message, whatever it streams: `Ok` where the caller was not refused as such. With
/// `is_open` nothing is sent, and the stream of requests stays open.
pub(crate) async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    headers: &[(&str, &str)],
    is_open: bool,
) -> Result<(), Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    call_path(channel, &path, request(method), headers, is_open).await
}

/// The same of a path.
pub(crate) async fn call_path(
    channel: &Channel,
    path: &str,
    message: Bytes,
    headers: &[(&str, &str)],
    is_open: bool,
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    if !is_open {
        sender.send(message).await.unwrap();
    }
    let _open = is_open.then_some(sender);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(messages));
    for (name, value) in headers {
        let name: tonic::metadata::MetadataKey<_> = name.parse().unwrap();
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    let path = path.parse().unwrap();
    let called = async {
        let mut answers = client.streaming(request, path, Raw).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    tokio::time::timeout(ENDED_WITHIN, called).await.expect("the call ends")
}
