//! What callers show, and who they are by it.
//!
//! Promises: what a caller has shown cannot be printed.

use std::fmt;
use std::sync::Arc;

/// The name of the caller that shows nothing.
pub(super) const ANONYMOUS: &str = "anonymous";

/// What a caller has shown.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    pub authorization: Authorization<'a>,
    /// The names in a client certificate that was verified.
    pub certificate: Option<&'a CertificateNames>,
}

/// The header `authorization` of a request.
#[derive(Clone, Copy)]
pub enum Authorization<'a> {
    Absent,
    /// There are several.
    Repeated,
    /// Its value, as it came.
    Value(&'a [u8]),
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Repeated => "Repeated",
            Self::Value(_) => "Value(…)",
        })
    }
}

/// The subject alternative names of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
}

/// Who a caller is. Cheap to clone. It counts only for the access file by which it was identified: after a change of
/// the file, the caller has to be identified again.
#[derive(Debug, Clone)]
pub struct Identity(Arc<IdentityData>);

struct IdentityData {
    file: FileMark,
    name: String,
    principals: Vec<(PrincipalIndex, Arc<str>)>,
    expires_s: Option<u64>,
    is_anonymous: bool,
}

impl fmt::Debug for IdentityData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let principals: Vec<_> = self.principals.iter().map(|(_, name)| name).collect();
        let mut shown = f.debug_struct("IdentityData");
        shown.field("name", &self.name).field("principals", &principals).field("expires_s", &self.expires_s);
        shown.finish_non_exhaustive()
    }
}

/// Position of a principal among those of its access file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PrincipalIndex(pub(super) u32);

/// Tells one reading of an access file from others.
#[derive(Debug, Clone, Default)]
pub(super) struct FileMark(Arc<()>);

impl FileMark {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Identity {
    /// A caller that is these principals, until this second.
    pub(super) fn new(
        file: &FileMark,
        name: String,
        principals: Vec<(PrincipalIndex, Arc<str>)>,
        expires_s: Option<u64>,
    ) -> Self {
        Self(Arc::new(IdentityData { file: file.clone(), name, principals, expires_s, is_anonymous: false }))
    }

    /// The caller without credentials, whose rules are those of this principal.
    pub(super) fn anonymous(file: &FileMark, principal: PrincipalIndex) -> Self {
        let principals = vec![(principal, ANONYMOUS.into())];
        let file = file.clone();
        Self(Arc::new(IdentityData { file, name: ANONYMOUS.into(), principals, expires_s: None, is_anonymous: true }))
    }

    /// The name for messages and for the audit: that of the principal; of a JWT, `ISSUER:SUBJECT`, where the access
    /// file names the issuer.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The names of the principals that it is.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        self.0.principals.iter().map(|(_, name)| &**name)
    }

    /// Whether the caller has shown no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_anonymous
    }

    /// From which second since 1970 on its credentials have to be judged again; `None`: they do not expire.
    pub fn expires_s(&self) -> Option<u64> {
        self.0.expires_s
    }

    /// Its principals, if it was identified by this file.
    pub(super) fn principals_of(&self, file: &FileMark) -> impl Iterator<Item = PrincipalIndex> {
        let is_valid = self.0.file.is(file);
        self.0.principals.iter().filter(move |_| is_valid).map(|(index, _)| *index)
    }
}
