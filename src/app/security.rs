//! The files by which the bus encrypts connections and judges callers: read at a start, and again when they change.
//!
//! Promises: files that do not fit change nothing, and the log says so once. Must not know: how a handshake or a
//! decision is made.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::access::{self, Access, Files};
use crate::effects::Clock;
use crate::server::{self, ClientCertificates, Gate, Tls, TlsError, TlsTexts};
use crate::topology::Source;
use crate::topology::render::{self, Style};

/// How often files are looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a file of certificates, of a key, and of an access file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Width of what is wrong with an access file, in columns.
const WIDTH: usize = 140;

/// Where to listen, and the files that say who may come in.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Listen on non-loopback addresses also without encryption or without rules of access.
    pub insecure_allow_remote: bool,
    /// The certificate and the key; `None`: connections are in plain text.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The authorities of the certificates of clients.
    pub client_authorities: Option<(PathBuf, ClientCertificates)>,
    /// The rules of access; `None`: everybody who can connect may do everything.
    pub access: Option<PathBuf>,
}

impl Listening {
    /// In plain text, and everybody who can connect may do everything.
    pub fn open(address: SocketAddr) -> Self {
        Self { address, insecure_allow_remote: false, certificate: None, client_authorities: None, access: None }
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// The files of TLS make no certificate that works.
    #[error("{}: {error}", path.display())]
    Tls { path: PathBuf, error: TlsError },
    /// The access file, with all that is wrong with it.
    #[error("the access file {} is invalid:\n{problems}", path.display())]
    Access { path: PathBuf, problems: String },
}

/// What was made of the files.
pub(super) struct Security {
    files: Listening,
    pub(super) tls: Option<Tls>,
    pub(super) gate: Gate,
    seen: Vec<(PathBuf, Signature)>,
}

/// What tells one content of a file from another without reading it; `None`: there is none.
type Signature = Option<(u64, u64, i64, i64)>;

fn signature(path: &Path) -> Signature {
    // Followed through links, as Kubernetes mounts secrets.
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    let unreadable = |error| SecurityError::Unreadable { path: path.to_owned(), error };
    read_at_most(path, FILE_BYTES_MAX).map_err(unreadable)
}

fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::other(format!("it has more than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}

/// Reads key sets, and remembers which.
#[derive(Default)]
struct KeyFiles(RefCell<Vec<PathBuf>>);

impl Files for KeyFiles {
    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        self.0.borrow_mut().push(path.to_owned());
        let bytes = read_at_most(path, bytes_max as u64).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())
    }
}

/// The rules in an access file, and the files that it names.
fn rules(path: &Path) -> (Result<Access, SecurityError>, Vec<PathBuf>) {
    let text = match read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return (Err(error), Vec::new()),
    };
    let (source, files) = (Source { path: path.to_owned(), text }, KeyFiles::default());
    let (access, diagnostics) = access::check(&source, &files);
    // A token that was pasted into the file must not come into the log with its line.
    let shown = access::masked(&source).into_owned();
    let problems = render::text(&[shown], &diagnostics, Style { colour: false, width: WIDTH });
    let access = access.ok_or_else(|| SecurityError::Access { path: path.to_owned(), problems: problems.clone() });
    if access.is_ok() && !problems.is_empty() {
        tracing::warn!("the access file has warnings:\n{problems}");
    }
    (access, files.0.into_inner())
}

fn texts(files: &Listening, (certificate, key): &(PathBuf, PathBuf)) -> Result<TlsTexts, SecurityError> {
    let client_authorities = files.client_authorities.as_ref();
    let client_authorities = client_authorities.map(|(path, wanted)| Ok((read(path)?, *wanted))).transpose()?;
    Ok(TlsTexts { certificate: read(certificate)?, key: read(key)?, client_authorities })
}

impl Security {
    /// Reads the files.
    pub(super) fn read(files: &Listening, clock: Arc<dyn Clock>) -> Result<Self, SecurityError> {
        let mut security = Self { files: files.clone(), tls: None, gate: Gate::open(), seen: Vec::new() };
        // Before they are read: what changes meanwhile is read again.
        security.look(&[]);
        if let Some(pair) = &files.certificate {
            let tls = Tls::new(&texts(files, pair)?);
            security.tls = Some(tls.map_err(|error| SecurityError::Tls { path: pair.0.clone(), error })?);
        }
        if let Some(path) = &files.access {
            let (access, keys) = rules(path);
            security.gate = Gate::by(access?, clock);
            security.look(&keys);
        }
        Ok(security)
    }

    /// Where to listen by them.
    pub(super) fn options(&self) -> server::Options {
        server::Options {
            listen: self.files.address,
            insecure_allow_remote: self.files.insecure_allow_remote,
            tls: self.tls.clone(),
            gate: self.gate.clone(),
        }
    }

    /// Takes note of how the files are, and of further ones.
    fn look(&mut self, keys: &[PathBuf]) {
        let Listening { certificate, client_authorities, access, .. } = &self.files;
        let pair = certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        let named = pair.chain(client_authorities.iter().map(|(path, _)| path)).chain(access).chain(keys);
        self.seen = named.map(|path| (path.clone(), signature(path))).collect();
    }

    /// Follows the files for as long as it is polled.
    pub(super) async fn follow(mut self) {
        if self.seen.is_empty() {
            return;
        }
        loop {
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            if self.seen.iter().all(|(path, seen)| signature(path) == *seen) {
                continue;
            }
            match tokio::task::spawn_blocking(move || self.renewed()).await {
                Ok(renewed) => self = renewed,
                Err(error) => return tracing::error!(%error, "the files of TLS and access are no longer followed"),
            }
        }
    }

    /// Whether a file of TLS is not as it was.
    fn has_other_certificates(&self) -> bool {
        let pair = self.files.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut files = pair.chain(self.files.client_authorities.iter().map(|(path, _)| path));
        files.any(|path| self.seen.iter().any(|(seen, before)| seen == path && signature(path) != *before))
    }

    /// Reads the files again. What does not fit leaves what there is.
    fn renewed(mut self) -> Self {
        let (before, has_other_certificates) = (self.seen.clone(), self.has_other_certificates());
        let before: Vec<PathBuf> = before.into_iter().map(|(path, _)| path).collect();
        self.look(&before);
        if let (Some(tls), Some(pair)) = (&self.tls, &self.files.certificate)
            && has_other_certificates
        {
            let renewed = texts(&self.files, pair).and_then(|texts| {
                tls.replace(&texts).map_err(|error| SecurityError::Tls { path: pair.0.clone(), error })
            });
            match renewed {
                Ok(()) => tracing::info!(certificate = %pair.0.display(), "TLS files were read again"),
                Err(error) => tracing::warn!(%error, "new TLS files are not used; those before stay in use"),
            }
        }
        if let Some(path) = &self.files.access {
            let (access, keys) = rules(path);
            match access {
                Ok(access) => {
                    self.gate.replace(access);
                    tracing::info!(access = %path.display(), "the access file was read again");
                    self.look(&keys);
                }
                Err(error) => tracing::warn!(%error, "the new access file is not used; the one before stays in use"),
            }
        }
        self
    }
}
