//! Why a caller is not known.
//!
//! Promises: no message has a token or a part of one in it, and none says which principals there are.

/// Why credentials are not those of a principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The header is there several times.
    #[error("the header `authorization` is there more than once: send one")]
    Repeated,
    /// The header has another form.
    #[error("the header `authorization` has to be `Bearer TOKEN`: one blank, and nothing after the token")]
    Malformed,
    /// The text after `Bearer` has the form of no token that is accepted.
    #[error("this is neither a token from `wattle token new` nor a JWT of an issuer that the bus knows")]
    NotAToken,
    /// No principal has the token.
    #[error("no principal has this token: it was replaced, or is that of another bus")]
    UnknownToken,
    /// The principal is past its `expires`.
    #[error("these credentials have expired (`expires` of their principal)")]
    Expired,
    /// The JWT is refused.
    #[error("the JWT is refused: {0}")]
    Jwt(JwtError),
    /// The JWT is valid, and no principal is recognised by its claims.
    #[error("the JWT of `{0}` is valid, but no principal has its claims")]
    UnknownClaims(String),
    /// The certificate is valid, and no principal is recognised by it.
    #[error("no principal has a URI or DNS name of this client certificate ({0}); its common name does not count")]
    UnknownCertificate(String),
}

/// Why a JWT is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Its form is not that of a signed JWT.
    #[error("it cannot be read")]
    Unreadable,
    /// Its `iss` is that of no issuer in the access file.
    #[error("its issuer (`iss`) is not known")]
    Issuer,
    /// Its `alg` is not among the `algorithms` of its issuer.
    #[error("its issuer does not sign with its algorithm (`alg`)")]
    Algorithm,
    /// It does not say which of several keys it was signed with.
    #[error("its issuer has several keys, and it does not say which (`kid`)")]
    NoKey,
    /// Its `kid` is that of no key of its issuer, or the key is for another algorithm.
    #[error("its issuer has no key of that name (`kid`) for its algorithm (`alg`)")]
    UnknownKey,
    /// It was not signed with that key, or changed since.
    #[error("its signature is wrong")]
    Signature,
    /// A claim that is required is not there, or its value is of another kind.
    #[error("its claim `{0}` is missing, or of the wrong kind")]
    Claim(&'static str),
    /// It is for others.
    #[error("it is for another audience (`aud`)")]
    Audience,
    /// It is past its `exp`.
    #[error("it has expired (`exp`)")]
    Expired,
    /// It is before its `nbf`.
    #[error("it is not valid yet (`nbf`)")]
    NotYetValid,
    /// It is valid for longer than a JWT may be.
    #[error("it is valid for more than 24 hours (`exp`)")]
    LivesTooLong,
}
