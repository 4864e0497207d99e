//! The kinds of values that only access files have: how each is read, and its JSON Schema.
//!
//! Promises: no message repeats a token or its hash. Variables of the environment are not replaced: the file says by
//! itself who may do what.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::bounds::VALUE_BYTES_MAX;
use super::pattern::{Pattern, PatternError};
use super::token::{HASH_PREFIX, PREFIX, TokenHash};
use crate::model::Time;
use crate::model::units::{self, UnitError};
use crate::topology::diagnostic::Span;
use crate::topology::reader::{FromNode, Owner, Reader};
use crate::topology::values::{List, inline_schema};
use crate::topology::yaml::{NodeRef, View};

/// The text of a scalar as it is written.
fn written<'t>(node: NodeRef<'t>, what: &str, reader: &mut Reader<'_>) -> Option<(&'t str, Span)> {
    let span = node.span();
    match node.view() {
        View::Scalar(scalar) if scalar.text.contains("${") => {
            let message = "variables are not replaced in an access file";
            reader.bad(span, message, "write the value itself")
        }
        View::Scalar(scalar) if scalar.text.len() > VALUE_BYTES_MAX => {
            let message = format!("this has {} bytes, at most {VALUE_BYTES_MAX} are possible", scalar.text.len());
            reader.bad(span, message, "shorten it")
        }
        View::Scalar(scalar) => Some((scalar.text, span)),
        _ => {
            // Reports what it is instead.
            reader.text(node, what)?;
            None
        }
    }
}

/// Any text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainText(pub(super) String);

inline_schema!(PlainText, json_schema!({ "type": "string", "minLength": 1, "maxLength": VALUE_BYTES_MAX }));

impl FromNode for PlainText {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "a text", reader)?;
        if text.trim().is_empty() {
            return reader.bad(span, format!("`{}` has an empty text", owner.key), "write a text, or remove it");
        }
        Some(Self(text.to_owned()))
    }
}

/// A list with at least one item.
#[derive(Debug, Clone)]
pub(super) struct Items<T> {
    pub(super) read: Vec<(Span, T)>,
    /// Some of them could not be read, and were reported.
    pub(super) has_unread: bool,
}

impl<T: JsonSchema> JsonSchema for Items<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ItemsOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "minItems": 1, "items": generator.subschema_for::<T>() })
    }
}

impl<T: FromNode> FromNode for Items<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let count = reader.list(node, "a list")?.count();
        if count == 0 {
            return reader.bad(
                node.span(),
                format!("`{}` names nothing", owner.key),
                "write at least one, or remove it",
            );
        }
        let List(read) = List::read(node, owner, reader)?;
        let has_unread = read.len() < count;
        Some(Self { read, has_unread })
    }
}

/// A file, by its path from the folder of the access file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile(pub(super) PathBuf);

inline_schema!(KeyFile, json_schema!({ "type": "string", "minLength": 1, "examples": ["jwks.json"] }));

impl FromNode for KeyFile {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let PlainText(path) = PlainText::read(node, owner, reader)?;
        if path.contains("://") {
            let message = format!("`{}` is a file: no keys are fetched over the network", owner.key);
            return reader.bad(node.span(), message, "fetch it with another program, and name the file here");
        }
        Some(Self(reader.resolve(path)))
    }
}

impl JsonSchema for TokenHash {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TokenHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" })
    }
}

impl FromNode for TokenHash {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "the hash of a token", reader)?;
        let help = "`wattle token new` prints a token, and its hash as it is written here: `sha256:` and 64 digits";
        if text.starts_with(PREFIX) {
            let message = format!("`{}` is the hash of a token, and this is a token itself", owner.key);
            let help = format!("{help}; replace this token, since others may have read it in this file");
            return reader.bad(span, message, help);
        }
        let hash = text.strip_prefix(HASH_PREFIX).and_then(Self::parse);
        hash.or_else(|| reader.bad(span, format!("`{}` is not the hash of a token", owner.key), help))
    }
}

/// A name in client certificates: a URI or a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum CertificateName {
    Uri(String),
    /// In lower case.
    Dns(String),
}

inline_schema!(
    CertificateName,
    json_schema!({
        "type": "string",
        "pattern": r"^([a-z][a-z0-9+.-]*:.+|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$",
        "examples": ["spiffe://prod/shop", "shop.example.test"],
    })
);

impl FromNode for CertificateName {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "a name in client certificates", reader)?;
        let is_host = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        let is_scheme = |scheme: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte);
            scheme.starts_with(|char: char| char.is_ascii_lowercase()) && scheme.bytes().all(is_allowed)
        };
        match text.split_once(':') {
            Some((scheme, rest))
                if is_scheme(scheme) && !rest.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Some(Self::Uri(text.to_owned()))
            }
            None if text.split('.').all(is_host) => Some(Self::Dns(text.to_ascii_lowercase())),
            _ => {
                let message = format!("`{}` is a URI or a DNS name, not `{}`", owner.key, text.escape_debug());
                let help = "write a whole name of a certificate, such as `spiffe://prod/shop` or `shop.example.test`; \
                    nothing stands for several names";
                reader.bad(span, message, help)
            }
        }
    }
}

/// When credentials expire, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry(pub(super) u64);

inline_schema!(
    Expiry,
    json_schema!({
        "type": "string",
        "pattern": r"^\d{4}-\d{2}-\d{2}([Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2}))?$",
        "examples": ["2027-01-31", "2027-01-31T12:00:00Z"],
    })
);

impl FromNode for Expiry {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "a date or a time", reader)?;
        let midnight = format!("{text}T00:00:00Z");
        let time = Time::parse(if text.len() == "2027-01-31".len() { &midnight } else { text });
        match time.and_then(|time| u64::try_from(time.second()).ok()) {
            Some(second) => Some(Self(second)),
            None => {
                let message = format!("`{}` is a date or a time, not `{}`", owner.key, text.escape_debug());
                let help = "write `2027-01-31`, which is the begin of this day in UTC, or `2027-01-31T12:00:00Z`";
                reader.bad(span, message, help)
            }
        }
    }
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRate(pub(super) u64);

inline_schema!(
    ByteRate,
    json_schema!({
        "type": "string",
        "pattern": r"^\d+(\.\d+)?\s*([kMGT]B|[KMGT]iB|B)\s*/\s*s$",
        "examples": ["1MiB/s", "500kB/s"],
    })
);

impl FromNode for ByteRate {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "a size per second", reader)?;
        let size = text.split_once('/').filter(|(_, per)| per.trim() == "s").map(|(size, _)| units::size(size));
        let why = match size {
            Some(Ok(bytes)) if bytes > 0 => return Some(Self(bytes)),
            Some(Err(error @ UnitError::UnknownUnit { .. })) => format!(": {error}"),
            _ => String::new(),
        };
        let message = format!("`{}` is a size per second, not `{}`{why}", owner.key, text.escape_debug());
        reader.bad(span, message, "write it with its units, such as `1MiB/s` or `500kB/s`")
    }
}

inline_schema!(
    Pattern,
    json_schema!({
        "type": "string",
        "pattern": r"^[a-z0-9._@*-]+/[a-z0-9._@*-]+$",
        "examples": ["shop/orders", "shop/*"],
    })
);

impl FromNode for Pattern {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, span) = written(node, "a pattern of full names", reader)?;
        match Self::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(PatternError { message, help }) => reader.bad(span, message, help),
        }
    }
}
