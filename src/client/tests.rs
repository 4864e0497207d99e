//! A client and servers that it may or may not trust: real sockets, and certificates that are made here.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderValue};

use super::*;
use crate::effects;

/// An authority of certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

/// What a certificate is like.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Good,
    Expired,
    NotYet,
    OfAuthority,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], form: Form) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(number) => SanType::IpAddress(number),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let (from, to) = match form {
            Form::Good | Form::OfAuthority => (2020, 3000),
            Form::Expired => (2020, 2021),
            Form::NotYet => (2999, 3000),
        };
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        if form == Form::OfAuthority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// How a server speaks TLS.
struct ServerTls<'a> {
    identity: Identity,
    /// Those of its clients, which then have to show a certificate.
    clients: Option<&'a Authority>,
    version: &'static SupportedProtocolVersion,
    alpn: &'static [u8],
}

impl ServerTls<'_> {
    fn of(identity: Identity) -> Self {
        Self { identity, clients: None, version: &rustls::version::TLS13, alpn: b"h2" }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[self.version]).unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![self.alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server has heard, and how it speaks TLS from the next connection on.
#[derive(Default)]
struct Shared {
    acceptor: Mutex<Option<TlsAcceptor>>,
    authorizations: Mutex<Vec<Option<HeaderValue>>>,
    connections: AtomicU64,
}

/// A server that refuses each call, by which it is known that calls arrive. It closes a connection after a call.
struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Peer {
    async fn start(tls: Option<ServerTls<'_>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        *shared.acceptor.lock().unwrap() = tls.map(|tls| tls.acceptor());
        let serving = shared.clone();
        drop(effects::task(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, acceptor) = (serving.clone(), serving.acceptor.lock().unwrap().clone());
                drop(effects::task(async move {
                    match acceptor {
                        None => answer(stream, &shared).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, &shared).await;
                            }
                        }
                    }
                }));
            }
        }));
        Self { address, shared }
    }

    fn of_tls(&self) -> String {
        format!("https://{}", self.address)
    }

    fn change(&self, tls: &ServerTls<'_>) {
        *self.shared.acceptor.lock().unwrap() = Some(tls.acceptor());
    }

    fn authorizations(&self) -> Vec<Option<HeaderValue>> {
        self.shared.authorizations.lock().unwrap().clone()
    }

    fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

/// Refuses one call, as a server of gRPC without any of our details.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: &Arc<Shared>) {
    let shared = shared.clone();
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let done = Arc::new(Mutex::new(Some(done)));
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let header = request.headers().get(http::header::AUTHORIZATION).cloned();
        shared.authorizations.lock().unwrap().push(header);
        let done = done.lock().unwrap().take();
        let answer = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "7")
            .header("grpc-message", "not allowed here")
            .body(Body::empty());
        async move {
            drop(done);
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(connection.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut connection => return,
        _ = is_done => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Files of a client.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn trusting(&self, authority: &Authority) -> ConnectOptions {
        let authorities = Some(self.write("ca.pem", &authority.0.pem()));
        ConnectOptions { tls: TlsOptions { authorities, certificate: None }, ..ConnectOptions::default() }
    }

    fn certificate(&self, identity: &Identity) -> Option<CertificateFiles> {
        let chain = self.write("client.pem", &identity.certificate);
        Some(CertificateFiles { chain, key: self.write("client.key", &identity.key) })
    }
}

/// The failure of a connection, or of the first call over it.
async fn failure(server: &str, options: ConnectOptions) -> ClientError {
    match Client::connect_with(server, options).await {
        Err(error) => error,
        Ok(client) => client.status().await.unwrap_err(),
    }
}

/// Whether the call came to the server, which refuses it.
fn has_arrived(error: &ClientError) -> bool {
    error.is_denied() && !error.is_unauthenticated() && error.to_string() == "not allowed here"
}

#[track_caller]
fn check(error: &ClientError, words: &[&str]) {
    let said = error.to_string();
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
    assert!(error.has_no_side_effects() && !error.is_retryable(), "{error:?}");
}

const HERE: &[&str] = &["127.0.0.1", "localhost"];

#[tokio::test]
async fn a_bus_with_a_certificate_of_a_trusted_authority_is_called() {
    let (authority, files) = (Authority::new(), Files::new());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = ServerTls { version, ..ServerTls::of(authority.issue(HERE, Form::Good)) };
        let peer = Peer::start(Some(tls)).await;
        let port = peer.address.port();
        // Without a scheme, what is given for TLS means TLS.
        for server in [peer.of_tls(), peer.address.to_string(), format!("https://localhost:{port}/")] {
            let error = failure(&server, files.trusting(&authority)).await;
            assert!(has_arrived(&error), "{server}: {error}");
        }
    }
}

#[tokio::test]
async fn why_a_certificate_is_not_trusted_is_said_with_what_to_do() {
    let (authority, files) = (Authority::new(), Files::new());
    for (names, form, words) in [
        (&["bus.example", "10.0.0.1"][..], Form::Good, &["not for `127.0.0.1`", "`bus.example`, `10.0.0.1`"][..]),
        (&[], Form::Good, &["no name at all"]),
        (HERE, Form::Expired, &["expired at 2021-01-01T00:00:00Z", "new one"]),
        (HERE, Form::NotYet, &["valid from 2999-01-01T00:00:00Z", "clock"]),
        (HERE, Form::OfAuthority, &["CA:TRUE"]),
    ] {
        let peer = Peer::start(Some(ServerTls::of(authority.issue(names, form)))).await;
        let error = failure(&peer.of_tls(), files.trusting(&authority)).await;
        assert!(matches!(error, ClientError::Tls { .. }) && error.is_unreachable(), "{error:?}");
        check(&error, &[&[peer.of_tls().as_str()], words].concat());
        assert!(peer.authorizations().is_empty());
    }
    let peer = Peer::start(Some(ServerTls::of(authority.issue(HERE, Form::Good)))).await;
    let error = failure(&peer.of_tls(), files.trusting(&Authority::new())).await;
    check(&error, &["signed by no authority of", "ca.pem", "--tls-ca"]);
    // The system trusts others, or, on a small machine, none.
    check(&failure(&peer.of_tls(), ConnectOptions::default()).await, &["this system", "--tls-ca"]);
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_with_it() {
    let (authority, files) = (Authority::new(), Files::new());
    let plain = Peer::start(None).await;
    check(&failure(&plain.of_tls(), files.trusting(&authority)).await, &["does not speak TLS", "write http://127"]);

    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap();
    drop(effects::task(async move {
        let mut streams = Vec::new();
        for number in 0.. {
            let Ok((mut stream, _)) = web.accept().await else { return };
            match number {
                0 => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap(),
                1 => drop(stream.read_u8().await), // then it closes
                _ => {}
            }
            if number != 1 {
                streams.push(stream); // and is silent
            }
        }
    }));
    let server = format!("https://{address}");
    check(&failure(&server, files.trusting(&authority)).await, &["does not speak TLS", "http://"]);
    for words in ["closed the connection", "did not answer in TLS within 300ms"] {
        let patience = Patience::of(Some(Duration::from_millis(300)));
        let error = failure(&server, ConnectOptions { patience, ..files.trusting(&authority) }).await;
        assert!(error.is_unreachable() && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(words) && error.to_string().contains("http://"), "{error}");
    }

    let bus = Peer::start(Some(ServerTls::of(authority.issue(HERE, Form::Good)))).await;
    let error = failure(&bus.address.to_string(), ConnectOptions::default()).await;
    check(&error, &["speaks TLS", &format!("write https://{}", bus.address)]);

    let other = ServerTls { alpn: b"http/1.1", ..ServerTls::of(authority.issue(HERE, Form::Good)) };
    let other = Peer::start(Some(other)).await;
    check(&failure(&other.of_tls(), files.trusting(&authority)).await, &["no Wattle bus", "HTTP"]);
}

#[tokio::test]
async fn a_bus_that_requires_a_certificate_says_so() {
    let (authority, clients, files) = (Authority::new(), Authority::new(), Files::new());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let identity = authority.issue(HERE, Form::Good);
        let tls = ServerTls { clients: Some(&clients), version, ..ServerTls::of(identity) };
        let peer = Peer::start(Some(tls)).await;
        let error = failure(&peer.of_tls(), files.trusting(&authority)).await;
        check(&error, &["requires a client certificate", "--client-cert"]);
        let mut options = files.trusting(&authority);
        options.tls.certificate = files.certificate(&clients.issue(&["me"], Form::Good));
        let error = failure(&peer.of_tls(), options.clone()).await;
        assert!(has_arrived(&error), "{error}");
        options.tls.certificate = files.certificate(&authority.issue(&["me"], Form::Good));
        let error = failure(&peer.of_tls(), options.clone()).await;
        check(&error, &["does not accept the client certificate", "client.pem"]);
        options.tls.certificate = files.certificate(&clients.issue(&["me"], Form::Expired));
        check(&failure(&peer.of_tls(), options).await, &["certificate expired", "client.pem"]);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_and_nothing_is_sent() {
    let (authority, files) = (Authority::new(), Files::new());
    let peer = Peer::start(Some(ServerTls::of(authority.issue(HERE, Form::Good)))).await;
    let (one, other) = (authority.issue(&["one"], Form::Good), authority.issue(&["other"], Form::Good));
    let with = |chain: PathBuf, key: PathBuf| {
        let mut options = files.trusting(&authority);
        options.tls.certificate = Some(CertificateFiles { chain, key });
        options
    };
    let of_ca = |path: PathBuf| {
        let mut options = files.trusting(&authority);
        options.tls.authorities = Some(path);
        options
    };
    let (chain, key) = (files.write("one.pem", &one.certificate), files.write("one.key", &one.key));
    let others_key = files.write("other.key", &other.key);
    let empty = files.write("empty", "");
    let damaged = files.write("damaged", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let large = files.write("large", &"x".repeat(2 << 20));
    let none = empty.with_file_name("none");
    let token = |path: &PathBuf| {
        let token = Some(Token::from_file(path.clone()));
        ConnectOptions { token, ..files.trusting(&authority) }
    };
    for (options, words) in [
        (of_ca(none.clone()), &["none", "--tls-ca", "cannot be read"][..]),
        (of_ca(empty.clone()), &["empty", "no certificate"]),
        (of_ca(damaged.clone()), &["damaged", "--tls-ca"]),
        (of_ca(large.clone()), &["large", "1024 KiB"]),
        (with(chain.clone(), others_key), &["other.key", "not that of the certificate", "one.pem"]),
        (with(none.clone(), key.clone()), &["none", "--client-cert"]),
        (with(key, chain.clone()), &["one.key", "no certificate"]),
        (with(chain.clone(), chain), &["one.pem", "no private key"]),
        (token(&none), &["token file", "none"]),
        (token(&large), &["token file", "8 KiB"]),
    ] {
        let error = failure(&peer.of_tls(), options).await;
        assert!(matches!(error, ClientError::Options { .. }) && !error.is_unreachable(), "{error:?}");
        check(&error, words);
    }
    let plain = format!("http://{}", peer.address);
    check(&failure(&plain, files.trusting(&authority)).await, &["http:// is plain text", "--tls-ca", "https://"]);
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_is_made_again_uses_the_files_of_then() {
    let (before, after, files) = (Authority::new(), Authority::new(), Files::new());
    let peer = Peer::start(Some(ServerTls::of(before.issue(HERE, Form::Good)))).await;
    let token = files.write("token", "first");
    let options = ConnectOptions { token: Some(Token::from_file(token)), ..files.trusting(&before) };
    let client = Client::connect_with(&peer.of_tls(), options).await.unwrap();
    assert!(has_arrived(&client.status().await.unwrap_err()));

    peer.change(&ServerTls::of(after.issue(HERE, Form::Good)));
    // The server closes after each call. What is begun before the client has seen that is lost, and not trusted.
    let next = async |client: &Client| loop {
        match client.status().await.unwrap_err() {
            ClientError::Lost { .. } => {}
            error => return error,
        }
    };
    check(&next(&client).await, &["signed by no authority"]);
    files.write("ca.pem", &after.0.pem());
    files.write("token", "second");
    let error = next(&client).await;
    assert!(has_arrived(&error), "{error}");
    let heard = peer.authorizations();
    assert_eq!(heard.first().unwrap().as_ref().unwrap(), "Bearer first");
    assert_eq!(heard.last().unwrap().as_ref().unwrap(), "Bearer second");
}

#[tokio::test]
async fn a_token_goes_with_each_call_and_is_not_printed() {
    let (authority, files) = (Authority::new(), Files::new());
    let bus = Peer::start(Some(ServerTls::of(authority.issue(HERE, Form::Good)))).await;
    let near = Peer::start(None).await;
    let token = Some(Token::from_secret(Secret::new("wtl_1_hunter2".to_owned())));
    let options = ConnectOptions { token: token.clone(), ..files.trusting(&authority) };
    let client = Client::connect_with(&bus.of_tls(), options).await.unwrap();
    assert!(!format!("{client:?}").contains("hunter2"));
    assert!(has_arrived(&client.status().await.unwrap_err()));
    // Plain text does not leave this machine here.
    let options = ConnectOptions { token, ..ConnectOptions::default() };
    for server in [near.address.to_string(), format!("http://localhost:{}", near.address.port())] {
        let error = failure(&server, options.clone()).await;
        assert!(has_arrived(&error), "{error}");
    }
    for heard in bus.authorizations().into_iter().chain(near.authorizations()) {
        assert_eq!(heard.unwrap(), "Bearer wtl_1_hunter2");
    }
    assert_eq!((bus.authorizations().len(), near.authorizations().len()), (1, 2));

    let anonymous = Peer::start(None).await;
    assert!(has_arrived(&failure(&anonymous.address.to_string(), ConnectOptions::default()).await));
    assert_eq!(anonymous.authorizations(), [None]);
}

#[tokio::test]
async fn a_token_is_not_sent_in_plain_text_to_another_machine() {
    let token = Some(Token::from_secret(Secret::new("hunter2".to_owned())));
    // Addresses that are reserved for documentation.
    for server in ["192.0.2.1:7411", "http://192.0.2.1", "[2001:db8::1]:7411", "::ffff:192.0.2.1"] {
        let options = ConnectOptions { token: token.clone(), ..ConnectOptions::default() };
        let error = failure(server, options).await;
        assert!(matches!(error, ClientError::Options { .. }), "{server}: {error:?}");
        check(&error, &["a token would be readable on the way", "use https://"]);
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn a_caller_who_is_not_known_is_denied_and_not_told_that_there_is_no_bus() {
    for (code, is_unauthenticated) in [(Code::Unauthenticated, true), (Code::PermissionDenied, false)] {
        let error = ClientError::from_status("bus", &tonic::Status::new(code, "why"));
        assert!(error.is_denied() && error.has_no_side_effects() && !error.is_retryable(), "{error:?}");
        assert_eq!((error.is_unauthenticated(), error.to_string().as_str()), (is_unauthenticated, "why"));
        assert!(!error.is_unreachable());
    }
    let refused = ClientError::from_status("bus", &tonic::Status::new(Code::NotFound, "why"));
    assert!(!refused.is_denied() && !refused.is_unauthenticated());
}
