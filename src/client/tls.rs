//! TLS of a client: whom it trusts, who it is, and what a failure means.
//!
//! Promises: TLS 1.2 and 1.3 only; the name of the address is verified, and nothing can turn that off; files are read
//! again for each connection; each failure says what to do about it. Must not know: how connections are made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore};

use super::address::Address;
use super::secret::read_bounded;
use super::trouble::{Stranger, Trouble};

/// Largest file of certificates or of a key: four times what systems trust.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// As many names of a certificate are shown, and as many letters of each.
const NAMES_SHOWN: usize = 4;
const LETTERS_SHOWN: usize = 80;
/// The protocol in TLS that gRPC needs.
pub(super) const HTTP2: &[u8] = b"h2";

/// How a client uses TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The file of the authorities that are trusted, in PEM; `None`: those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// What the client shows of itself.
    pub certificate: Option<CertificateFiles>,
}

/// The files of a certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its authority.
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl TlsOptions {
    /// Whether anything is given, which means that TLS is wanted.
    pub fn is_given(&self) -> bool {
        self.authorities.is_some() || self.certificate.is_some()
    }

    /// Reads the files.
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, String> {
        let roots = match &self.authorities {
            Some(path) => authorities(path)?,
            None => of_system()?,
        };
        // One that the program chose for all of itself would be another one, or none.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| format!("TLS cannot be used: {error}"))?
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = (chain(&files.chain)?, key(&files.key)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| misfit(files, &error))?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }

    /// What a failure of TLS means.
    pub(super) fn trouble(&self, address: &Address, error: &Error) -> Trouble {
        match error {
            Error::InvalidCertificate(why) => Trouble::Tls(self.distrust(address, why)),
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Trouble::Stranger(Stranger::Http),
            Error::AlertReceived(alert) => Trouble::Tls(self.rejection(address, *alert)),
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
                let why = format!("it does not speak TLS; if it is a bus without TLS, write http://{address}");
                Trouble::Tls(why)
            }
            Error::PeerIncompatible(why) => Trouble::Tls(format!("it speaks no TLS that this client does: {why:?}")),
            error => Trouble::Tls(error.to_string()),
        }
    }

    /// Why the certificate of the bus is not accepted.
    fn distrust(&self, address: &Address, why: &CertificateError) -> String {
        let host = address.host();
        match why {
            // The last one: an authority that is known has the name of the one that has signed it, and another key.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => match &self.authorities {
                Some(path) => format!(
                    "its certificate is signed by no authority of {}; --tls-ca has to name the file of its authority",
                    path.display()
                ),
                None => "its certificate is signed by no authority that this system trusts; --tls-ca names the file \
                         of its authority"
                    .to_owned(),
            },
            CertificateError::NotValidForName => {
                format!("its certificate is not for `{host}`; connect by a name that it is for")
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = shown(presented);
                format!("its certificate is not for `{host}`, but for {names}; connect by a name that it is for")
            }
            CertificateError::Expired => "its certificate has expired; the bus needs a new one".to_owned(),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "its certificate has expired at {}, and the clock here says {}; the bus needs a new one",
                moment(*not_after),
                moment(*time)
            ),
            CertificateError::NotValidYet => {
                "its certificate is not valid yet; is the clock of this machine right?".to_owned()
            }
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "its certificate is valid from {} on, and the clock here says {}; is that right?",
                moment(*not_before),
                moment(*time)
            ),
            CertificateError::Other(other) if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) => {
                "its certificate is that of an authority (`CA:TRUE`); the bus needs one that this authority has signed"
                    .to_owned()
            }
            why => format!("its certificate is not accepted: {why}"),
        }
    }

    /// Why the bus ended it.
    fn rejection(&self, address: &Address, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        let own = self.certificate.as_ref().map(|files| files.chain.display());
        match (alert, own) {
            (Alert::CertificateRequired, None) => {
                "it requires a client certificate; --client-cert and --client-key name one".to_owned()
            }
            (
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError,
                Some(own),
            ) => format!("it does not accept the client certificate {own} (--client-cert): {}", words(alert)),
            (Alert::HandshakeFailure, None) => {
                "it refuses the handshake; if it requires a client certificate, --client-cert and --client-key name one"
                    .to_owned()
            }
            (Alert::UnrecognisedName, _) => format!("it does not know the name `{}`", address.host()),
            (Alert::ProtocolVersion, _) => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
            (alert, _) => format!("it ends the handshake: {}", words(alert)),
        }
    }
}

/// Its name without the capitals.
fn words(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for letter in name.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        before = letter;
    }
    words
}

/// Names as a verifier tells them: `DnsName("bus")`.
fn shown(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        format!("`{}`", inner.trim_matches('"').chars().take(LETTERS_SHOWN).collect::<String>())
    };
    let mut names: Vec<_> = presented.iter().take(NAMES_SHOWN).map(bare).collect();
    if presented.len() > NAMES_SHOWN {
        names.push(format!("{} more", presented.len() - NAMES_SHOWN));
    }
    names.join(", ")
}

fn moment(time: UnixTime) -> jiff::Timestamp {
    i64::try_from(time.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default()
}

/// The name that the certificate of a bus has to have.
pub(super) fn server_name(address: &Address) -> Result<ServerName<'static>, String> {
    // The zone of an IPv6 address says something to this machine only.
    let host = address.host().split_once('%').map_or(address.host(), |(number, _)| number);
    ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can be for `{host}`"))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let fault = |why: &str| format!("the file of authorities {} (--tls-ca) {why}", path.display());
    let (pem, _) = read_bounded(path, PEM_BYTES_MAX).map_err(|why| fault(&why))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fault(&format!("is not in PEM: {error}")))?;
        roots.add(certificate).map_err(|error| fault(&format!("has a damaged certificate: {error}")))?;
    }
    if roots.is_empty() { Err(fault("has no certificate in PEM")) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("this system has no trusted authorities{why}; --tls-ca names the file of those of the bus"))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |why: &str| format!("the certificate {} (--client-cert) {why}", path.display());
    let (pem, _) = read_bounded(path, PEM_BYTES_MAX).map_err(|why| fault(&why))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| fault(&format!("is not in PEM: {error}")))?;
    if chain.is_empty() { Err(fault("has no certificate in PEM")) } else { Ok(chain) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let fault = |why: &str| format!("the key {} (--client-key) {why}", path.display());
    let (pem, _) = read_bounded(path, PEM_BYTES_MAX).map_err(|why| fault(&why))?;
    // The error of the library would show a line of the file.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| fault("has no private key in PEM, or one that is encrypted"))
}

fn misfit(files: &CertificateFiles, error: &Error) -> String {
    let (chain, key) = (files.chain.display(), files.key.display());
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("the key {key} (--client-key) is not that of the certificate {chain} (--client-cert)")
        }
        error => format!("the certificate {chain} (--client-cert) and its key {key} cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_are_shown_and_bounded() {
        let names = |names: &[&str]| shown(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), "no name at all");
        assert_eq!(names(&["DnsName(\"bus\")", "IpAddress(::1)"]), "`bus`, `::1`");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f"]), "`a`, `b`, `c`, `d`, 2 more");
        assert_eq!(names(&[&"x".repeat(500)]).len(), LETTERS_SHOWN + 2);
        assert_eq!(words(AlertDescription::CertificateExpired), "certificate expired");
        assert_eq!(words(AlertDescription::UnknownCA), "unknown ca");
    }

    #[test]
    fn the_name_is_that_of_the_address() {
        for (text, name) in
            [("bus:1", "bus"), ("[::1]:1", "::1"), ("[fe80::1%eth0]:1", "fe80::1"), ("127.0.0.1", "127.0.0.1")]
        {
            let expected = ServerName::try_from(name).unwrap();
            assert_eq!(server_name(&text.parse().unwrap()).unwrap(), expected, "{text}");
        }
        assert!(server_name(&"ä..b".parse().unwrap()).is_err());
    }
}
