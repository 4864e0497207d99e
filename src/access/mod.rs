//! Access: who a caller is, and what it may do.
//!
//! ```text
//! access file ──check──▶ Access ◀── credentials and the time ──▶ Identity
//!                          ▲───── identity, verb, resource ──▶ yes or no
//! ```
//!
//! Promises: [`check`] says everything that is wrong with a file at once, each with its place and what to do; what no
//! rule allows is refused; credentials that are wrong are an error, never those of another caller; no message and no
//! `Debug` shows a token. Bounded, whatever callers and files say ([`bounds`]).
//!
//! Relies on its caller for the world outside: here are no files ([`Files`]), no clock, no random numbers, and no
//! network. Certificates are verified before their names come here.
//!
//! Must not know: protocols, which topics and subscribers there are, who asked.

pub mod bounds;
mod cache;
mod check;
mod error;
mod files;
mod identity;
mod jwt;
mod keyset;
mod pattern;
mod raw;
mod resolve;
mod right;
mod rules;
mod token;
mod values;

pub use check::{check, check_numbered, is_access_file, masked, principal_name_problem, schema};
pub use error::{CredentialsError, CredentialsError as Unauthenticated, JwtError};
pub use files::Files;
pub use identity::{Authorization, CertificateNames, Credentials, Identity};
pub use right::{Resource, UnknownVerb, Verb};
pub use rules::{Access, PrincipalLimits};
pub use token::{NewToken, Secret};

#[cfg(test)]
mod tests;
