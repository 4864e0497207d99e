//! TLS: what encrypts connections, and who a client says it is by its certificate.
//!
//! Promises: TLS 1.2 and 1.3 only; a certificate and the authority of clients change together, and a pair that does
//! not fit changes nothing. Must not know: files, who may do what.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::bounds;
use crate::access::CertificateNames;

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Those that have one.
    Optional,
    /// All; others get no connection.
    Required,
}

/// The texts of the files, in PEM.
pub struct TlsTexts {
    /// The certificate of the bus, and those between it and its authority.
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    /// The authorities of the certificates of clients; none: clients are asked for none.
    pub client_authorities: Option<(Vec<u8>, ClientCertificates)>,
}

/// Why a bus cannot encrypt by these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is none in the text, or it is damaged.
    #[error("the {what} cannot be read: {why}; it has to be in PEM")]
    Unreadable { what: &'static str, why: String },
    /// The parts do not make a whole.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(rustls::Error),
    /// The authorities cannot verify anything.
    #[error("the authorities of clients cannot be used: {0}")]
    Authorities(String),
}

/// What connections are encrypted by at the moment. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Encrypts by these texts.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(texts: &TlsTexts) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(config(texts)?))))
    }

    /// Handshakes from now on use these texts; connections that are open keep theirs.
    ///
    /// # Errors
    /// [`TlsError`]; the ones before stay in use then.
    pub fn replace(&self, texts: &TlsTexts) -> Result<(), TlsError> {
        let config = config(texts)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certificates(text: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |why: String| TlsError::Unreadable { what, why };
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("there is none in it".to_owned()));
    }
    Ok(certificates)
}

fn config(texts: &TlsTexts) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&texts.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&texts.key)
        .map_err(|error| TlsError::Unreadable { what: "key", why: error.to_string() })?;
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(TlsError::Unusable)?;
    let config = match &texts.client_authorities {
        None => config.with_no_client_auth(),
        Some((text, wanted)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(text, "authority of clients")? {
                roots.add(certificate).map_err(|error| TlsError::Authorities(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match wanted {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::Required => verifier,
            };
            config
                .with_client_cert_verifier(verifier.build().map_err(|error| TlsError::Authorities(error.to_string()))?)
        }
    };
    let mut config = config.with_single_cert(chain, key).map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Encrypts a connection: the names in the certificate that the client has shown, if it has shown one.
pub(super) async fn handshake(
    tls: &Tls,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Option<CertificateNames>)> {
    // Silent peers are bounded as connections: places for handshakes of their own, once taken by them, would keep all
    // others out.
    let shaken = TlsAcceptor::from(tls.config()).accept(stream);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
    let stream = tokio::time::timeout(bounds::HANDSHAKE_WITHIN, shaken).await.map_err(late)??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let names = certificate.map(names).transpose()?;
    Ok((stream, names))
}

/// The subject's alternative names. The common name is none of them.
fn names(certificate: &CertificateDer<'_>) -> io::Result<CertificateNames> {
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(io::Error::other)?;
    let uris = certificate.valid_uri_names().map(str::to_owned).collect();
    let dns = certificate.valid_dns_names().map(str::to_owned).collect();
    Ok(CertificateNames { uris, dns })
}
