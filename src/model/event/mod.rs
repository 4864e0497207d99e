//! A CloudEvents 1.0 event, owned ([`Event`]) and as a view over its encoding ([`EventView`]).
//!
//! The encoding is the CloudEvents protobuf format (`io.cloudevents.v1.CloudEvent`), from the publisher to the journal
//! to the reader: an event is encoded once and never converted.

mod rules;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use rules::{RESERVED_PREFIX, bad_character, check_text, is_reserved};

use super::Time;
use super::wire::{self, Field, Fields};

/// Longest name of a context attribute in bytes. The specification recommends 20; longer names are accepted up to this
/// limit.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
/// Longest id, source, type, subject, key or other attribute value in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 16 * 1024;

mod number {
    //! Field numbers of `io.cloudevents.v1.CloudEvent` and of its attribute values.
    pub(super) const ID: u32 = 1;
    pub(super) const SOURCE: u32 = 2;
    pub(super) const SPEC_VERSION: u32 = 3;
    pub(super) const TYPE: u32 = 4;
    pub(super) const ATTRIBUTES: u32 = 5;
    pub(super) const BINARY_DATA: u32 = 6;
    pub(super) const TEXT_DATA: u32 = 7;
    pub(super) const PROTO_DATA: u32 = 8;
    /// Not part of CloudEvents, so other readers skip it: the data that an earlier failure had added to a dead letter.
    pub(super) const FORMER_FAILURE: u32 = 1000;

    pub(super) const BOOLEAN: u32 = 1;
    pub(super) const INTEGER: u32 = 2;
    pub(super) const STRING: u32 = 3;
    pub(super) const BYTES: u32 = 4;
    pub(super) const URI: u32 = 5;
    pub(super) const URI_REF: u32 = 6;
    pub(super) const TIMESTAMP: u32 = 7;
}

/// Why bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not a protobuf message.
    #[error("the event is not a CloudEvent in the protobuf format (io.cloudevents.v1.CloudEvent)")]
    Malformed,
    /// A required attribute is missing or empty.
    #[error("the event has no `{0}`: CloudEvents requires `id`, `source`, `specversion` and `type`, none empty")]
    Missing(&'static str),
    /// Another version of the specification.
    #[error("the event's specversion is {0:?}: this bus speaks CloudEvents \"1.0\"")]
    SpecVersion(String),
    /// An attribute, or the data, occurs more than once.
    #[error("`{0}` is there more than once: send it once")]
    Twice(String),
    /// A name that only the bus may use.
    #[error("attribute `{0}` is reserved: only the bus sets names that begin with `{RESERVED_PREFIX}`")]
    Reserved(String),
    /// A string that is not UTF-8.
    #[error("`{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// A name that CloudEvents does not allow.
    #[error(
        "{0:?} is not an attribute name: use lower-case letters and digits, at most {ATTRIBUTE_NAME_BYTES_MAX} of them"
    )]
    AttributeName(String),
    /// An invalid value of an attribute.
    #[error("attribute `{name}` is {what}")]
    AttributeValue {
        name: String,
        /// What is wrong with it, in words that follow "is".
        what: String,
    },
    /// `proto_data`, whose type the bus does not know.
    #[error("proto_data is not supported: send the message as binary_data with datacontenttype application/protobuf")]
    ProtoData,
}

/// A typed value of a context attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// `true` or `false`.
    Boolean(bool),
    /// A 32-bit integer.
    Integer(i32),
    String(String),
    Bytes(Vec<u8>),
    /// An absolute URI.
    Uri(String),
    /// A URI or a relative reference.
    UriRef(String),
    /// A point in time.
    Timestamp(Time),
}

impl std::fmt::Display for Attribute {
    /// The canonical text of the CloudEvents type system; bytes as base64.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine as _;
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::String(value) | Self::Uri(value) | Self::UriRef(value) => f.write_str(value),
            Self::Bytes(value) => f.write_str(&base64::engine::general_purpose::STANDARD.encode(value)),
            Self::Timestamp(value) => write!(f, "{value}"),
        }
    }
}

/// An event that owns its parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// Unique together with `source`.
    pub id: String,
    /// The creator, a URI reference.
    pub source: String,
    /// The kind of occurrence.
    pub r#type: String,
    /// All other context attributes: `subject`, `time`, `datacontenttype`, `dataschema` and extensions.
    pub attributes: BTreeMap<String, Attribute>,
    pub data: Option<Data>,
}

/// The payload of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Any bytes.
    Binary(Bytes),
    /// Text, which stays text in the JSON format.
    Text(String),
}

impl Data {
    /// The payload's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Binary(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

impl Event {
    /// The event in the CloudEvents protobuf format.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.data.as_ref().map_or(0, |data| data.as_bytes().len()));
        put_required(&mut out, &self.id, &self.source, &self.r#type);
        for (name, value) in &self.attributes {
            let mut entry = Vec::with_capacity(64);
            encode_attribute(&mut entry, value);
            put_attribute(&mut out, name, &entry);
        }
        match &self.data {
            Some(Data::Binary(bytes)) => wire::put_bytes_field(&mut out, number::BINARY_DATA, bytes),
            Some(Data::Text(text)) => wire::put_bytes_field(&mut out, number::TEXT_DATA, text.as_bytes()),
            None => {}
        }
        out.into()
    }

    /// Decodes an event.
    ///
    /// # Errors
    /// As [`EventView::parse`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let view = EventView::parse(bytes)?;
        let mut attributes = BTreeMap::new();
        for (name, value) in view.attributes() {
            attributes.insert(name.to_owned(), value.to_owned());
        }
        let data = view.data.map(|data| match std::str::from_utf8(data) {
            Ok(text) if view.data_is_text => Data::Text(text.to_owned()),
            _ => Data::Binary(Bytes::copy_from_slice(data)),
        });
        Ok(Self {
            id: view.id.to_owned(),
            source: view.source.to_owned(),
            r#type: view.r#type.to_owned(),
            attributes,
            data,
        })
    }
}

fn encode_attribute(entry: &mut Vec<u8>, value: &Attribute) {
    match value {
        Attribute::Boolean(value) => wire::put_varint_field(entry, number::BOOLEAN, u64::from(*value)),
        // protobuf writes a negative int32 sign-extended to 64 bits
        Attribute::Integer(value) => wire::put_varint_field(entry, number::INTEGER, i64::from(*value) as u64),
        Attribute::String(value) => wire::put_bytes_field(entry, number::STRING, value.as_bytes()),
        Attribute::Bytes(value) => wire::put_bytes_field(entry, number::BYTES, value),
        Attribute::Uri(value) => wire::put_bytes_field(entry, number::URI, value.as_bytes()),
        Attribute::UriRef(value) => wire::put_bytes_field(entry, number::URI_REF, value.as_bytes()),
        Attribute::Timestamp(value) => {
            let mut stamp = Vec::with_capacity(16);
            wire::put_varint_field(&mut stamp, 1, value.second() as u64);
            wire::put_varint_field(&mut stamp, 2, u64::from(value.nanosecond()));
            wire::put_bytes_field(entry, number::TIMESTAMP, &stamp);
        }
    }
}

#[inline]
fn put_required(out: &mut Vec<u8>, id: &str, source: &str, r#type: &str) {
    wire::put_bytes_field(out, number::ID, id.as_bytes());
    wire::put_bytes_field(out, number::SOURCE, source.as_bytes());
    wire::put_bytes_field(out, number::SPEC_VERSION, b"1.0");
    wire::put_bytes_field(out, number::TYPE, r#type.as_bytes());
}

/// An entry of the attribute map; `value` is an encoded `CloudEventAttributeValue`.
fn put_attribute(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let length = wire::bytes_field_len(1, name.len()) + wire::bytes_field_len(2, value.len());
    wire::put_length(out, number::ATTRIBUTES, length);
    wire::put_bytes_field(out, 1, name.as_bytes());
    wire::put_bytes_field(out, 2, value);
}

/// Writes an event directly into `out`: the path of every output of every handler.
pub struct EventWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> EventWriter<'a> {
    /// Starts an event with its required attributes, which must not be empty.
    pub fn new(out: &'a mut Vec<u8>, id: &str, source: &str, r#type: &str) -> Self {
        put_required(out, id, source, r#type);
        Self { out }
    }

    /// Adds a text attribute. `name` must be valid and not used before.
    #[inline]
    pub fn attribute(self, name: &str, value: &str) -> Self {
        let inner = wire::bytes_field_len(number::STRING, value.len());
        let length = wire::bytes_field_len(1, name.len()) + wire::bytes_field_len(2, inner);
        wire::put_length(self.out, number::ATTRIBUTES, length);
        wire::put_bytes_field(self.out, 1, name.as_bytes());
        wire::put_length(self.out, 2, inner);
        wire::put_bytes_field(self.out, number::STRING, value.as_bytes());
        self
    }

    /// Ends the event with its payload.
    #[inline]
    pub fn data(self, data: &[u8]) {
        wire::put_bytes_field(self.out, number::BINARY_DATA, data);
    }

    /// Ends a dead letter with the data of its earlier failure.
    pub fn former_failure(self, failure: &[u8]) {
        wire::put_bytes_field(self.out, number::FORMER_FAILURE, failure);
    }

    /// Adds attributes with new names to an encoded event. The original bytes stay, because fields of a protobuf
    /// message may be in any order.
    pub fn extend(out: &'a mut Vec<u8>, encoded: &[u8]) -> Self {
        out.extend_from_slice(encoded);
        Self { out }
    }
}

/// An encoded event as a view of its bytes.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// Unique together with `source`.
    pub id: &'a str,
    pub source: &'a str,
    /// The kind of occurrence.
    pub r#type: &'a str,
    /// The `subject` attribute.
    pub subject: Option<&'a str>,
    /// The `partitionkey` extension.
    pub partition_key: Option<&'a str>,
    /// The `datacontenttype` attribute.
    pub content_type: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    /// The payload was sent as text.
    pub data_is_text: bool,
    /// It has a `deliverat` or a `delay` extension.
    pub has_delay: bool,
    encoded: &'a [u8],
}

/// The value of a context attribute as a view of its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttributeView<'a> {
    /// `true` or `false`.
    Boolean(bool),
    /// A 32-bit integer.
    Integer(i32),
    String(&'a str),
    Bytes(&'a [u8]),
    /// An absolute URI.
    Uri(&'a str),
    /// A URI or a relative reference.
    UriRef(&'a str),
    /// A point in time.
    Timestamp(Time),
}

impl<'a> EventView<'a> {
    /// Parses a stored event in one pass: required attributes, names, text.
    ///
    /// # Errors
    /// [`EventError`] states the violated rule of CloudEvents and the attribute.
    pub fn parse(encoded: &'a [u8]) -> Result<Self, EventError> {
        Self::look::<false, true>(encoded)
    }

    /// Parses an incoming event, which must satisfy all rules of CloudEvents for attributes, without repetitions.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn accept(encoded: &'a [u8]) -> Result<Self, EventError> {
        Self::look::<true, false>(encoded)
    }

    /// As [`Self::accept`], for a dead letter, which has attributes that only the bus sets.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn accept_dead_letter(encoded: &'a [u8]) -> Result<Self, EventError> {
        Self::look::<true, true>(encoded)
    }

    fn look<const IS_INCOMING: bool, const IS_FROM_BUS: bool>(encoded: &'a [u8]) -> Result<Self, EventError> {
        let (mut id, mut source, mut spec_version, mut r#type) = ("", "", &[][..], "");
        let (mut subject, mut partition_key, mut content_type) = (None, None, None);
        let (mut data, mut data_is_text, mut has_delay) = (None, false, false);
        let (mut names, mut is_perhaps_twice) = (rules::NameFilter::default(), false);
        let twice = |name: &str| Err(EventError::Twice(name.to_owned()));
        let mut fields = Fields::new(encoded);
        while let Some((field, value)) = fields.next().map_err(|_| EventError::Malformed)? {
            let Field::Bytes(bytes) = value else {
                if field <= number::PROTO_DATA {
                    return Err(EventError::Malformed);
                }
                continue;
            };
            match field {
                number::ID if IS_INCOMING && !id.is_empty() => return twice("id"),
                number::SOURCE if IS_INCOMING && !source.is_empty() => return twice("source"),
                number::SPEC_VERSION if IS_INCOMING && !spec_version.is_empty() => return twice("specversion"),
                number::TYPE if IS_INCOMING && !r#type.is_empty() => return twice("type"),
                number::BINARY_DATA | number::TEXT_DATA if IS_INCOMING && data.is_some() => return twice("data"),
                number::ID => id = text::<IS_INCOMING>("id", bytes)?,
                number::SOURCE => source = text::<IS_INCOMING>("source", bytes)?,
                number::SPEC_VERSION => spec_version = bytes,
                number::TYPE => r#type = text::<IS_INCOMING>("type", bytes)?,
                number::ATTRIBUTES => {
                    let (name, value) = parse_attribute::<IS_INCOMING>(bytes)?;
                    if IS_INCOMING {
                        if !(IS_FROM_BUS && is_reserved(name)) {
                            rules::check(name, &value)?;
                        }
                        is_perhaps_twice |= names.note(name);
                    }
                    match name {
                        "subject" => subject = Some(value.required_text(name)?),
                        "partitionkey" => partition_key = Some(value.required_text(name)?),
                        "datacontenttype" => content_type = Some(value.required_text(name)?),
                        "deliverat" | "delay" => has_delay = true,
                        _ => {}
                    }
                }
                number::BINARY_DATA => (data, data_is_text) = (Some(bytes), false),
                number::TEXT_DATA => {
                    std::str::from_utf8(bytes).map_err(|_| EventError::NotUtf8("text_data"))?;
                    (data, data_is_text) = (Some(bytes), true);
                }
                number::PROTO_DATA => return Err(EventError::ProtoData),
                _ => {}
            }
        }
        for (name, is_empty) in [
            ("id", id.is_empty()),
            ("source", source.is_empty()),
            ("specversion", spec_version.is_empty()),
            ("type", r#type.is_empty()),
        ] {
            if is_empty {
                return Err(EventError::Missing(name));
            }
        }
        if IS_INCOMING && !IS_FROM_BUS {
            rules::check_source(source)?;
        }
        if spec_version != b"1.0" {
            return Err(EventError::SpecVersion(text::<false>("specversion", spec_version)?.to_owned()));
        }
        let view =
            Self { id, source, r#type, subject, partition_key, content_type, data, data_is_text, has_delay, encoded };
        if is_perhaps_twice && let Some(name) = view.name_that_is_there_twice() {
            return twice(name);
        }
        Ok(view)
    }

    /// Compares all names, because there may be a repetition.
    #[cold]
    fn name_that_is_there_twice(&self) -> Option<&'a str> {
        let mut names: Vec<&str> = self.attributes().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(*one),
            _ => None,
        })
    }

    /// Splits a dead letter into the event without its last failure, and the data of that failure: the attributes from
    /// `first` on, which only the bus sets. `None` if it is not a dead letter.
    pub fn split_failure(&self, first: &str) -> Option<(&'a [u8], &'a [u8])> {
        let (mut fields, mut found) = (Fields::new(self.encoded), None);
        loop {
            let start = self.encoded.len() - fields.left();
            match fields.next().ok()? {
                Some((number::ATTRIBUTES, Field::Bytes(bytes))) => match parse_attribute::<false>(bytes) {
                    Ok((name, _)) if name == first => found = Some(start),
                    Ok((name, _)) if is_reserved(name) => {}
                    // a field that no failure adds, so the fields before it are not the failure's
                    _ => found = None,
                },
                Some((number::FORMER_FAILURE, _)) => {}
                Some(_) => found = None,
                None => return self.encoded.split_at_checked(found?),
            }
        }
    }

    /// The original event of a dead letter; if that was a dead letter itself, with its former failure.
    pub fn before_failure(&self, first: &str) -> Option<Bytes> {
        let (event, failure) = self.split_failure(first)?;
        let mut was = event.to_vec();
        let mut fields = Fields::new(failure);
        while let Some((number, value)) = fields.next().ok()? {
            if let (number::FORMER_FAILURE, Field::Bytes(former)) = (number, value) {
                was.extend_from_slice(former);
            }
        }
        Some(was.into())
    }

    /// The encoded event.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// The ordering key of topics without a key expression: `partitionkey`, else `subject`, else the id.
    #[inline]
    pub fn default_key(&self) -> &'a str {
        self.partition_key.or(self.subject).unwrap_or(self.id)
    }

    /// As [`Self::attributes`], without repetitions, which only old stored events can have: the last one counts.
    pub fn attributes_once(&self) -> Vec<(&'a str, AttributeView<'a>)> {
        let mut all: Vec<_> = self.attributes().collect();
        if self.name_that_is_there_twice().is_some() {
            let last: BTreeMap<&str, AttributeView<'_>> = all.iter().copied().collect();
            all = last.into_iter().collect();
        }
        all
    }

    /// All context attributes except the required four, in the order of the encoding.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, AttributeView<'a>)> + use<'a> {
        let mut fields = Fields::new(self.encoded);
        std::iter::from_fn(move || {
            loop {
                match fields.next() {
                    Ok(Some((number::ATTRIBUTES, Field::Bytes(bytes)))) => return parse_attribute::<false>(bytes).ok(),
                    Ok(Some(_)) => {}
                    // `parse` has read it to the end before
                    Ok(None) | Err(_) => return None,
                }
            }
        })
    }
}

#[inline]
fn text<'a, const IS_INCOMING: bool>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, EventError> {
    if bytes.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(too_long(name, bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| EventError::NotUtf8(name))?;
    match bad_character(text).filter(|_| IS_INCOMING) {
        Some(what) => Err(wrong(name, &what)),
        None => Ok(text),
    }
}

fn too_long(name: &str, length: usize) -> EventError {
    EventError::AttributeValue {
        name: name.to_owned(),
        what: format!("{length} bytes long: at most {ATTRIBUTE_VALUE_BYTES_MAX} are accepted, put the rest into data"),
    }
}

/// Whether CloudEvents allows this as the name of an attribute.
#[inline]
pub fn is_attribute_name(name: &str) -> bool {
    (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Parses and checks an entry of the attribute map.
fn parse_attribute<const IS_INCOMING: bool>(entry: &[u8]) -> Result<(&str, AttributeView<'_>), EventError> {
    let (mut name, mut encoded): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    let mut fields = Fields::new(entry);
    while let Some((field, value)) = fields.next().map_err(|_| EventError::Malformed)? {
        match (field, value) {
            // libraries differ in the meaning of a repetition
            (1, Field::Bytes(_)) if IS_INCOMING && name.is_some() => return Err(EventError::Malformed),
            (2, Field::Bytes(_)) if IS_INCOMING && encoded.is_some() => return Err(EventError::Malformed),
            (1, Field::Bytes(bytes)) => name = Some(bytes),
            (2, Field::Bytes(bytes)) => encoded = Some(bytes),
            (1 | 2, _) if IS_INCOMING => return Err(EventError::Malformed),
            _ => {}
        }
    }
    let (name, encoded) = (name.unwrap_or_default(), encoded.unwrap_or_default());
    let name = std::str::from_utf8(name).map_err(|_| EventError::NotUtf8("attribute name"))?;
    if !is_attribute_name(name) || matches!(name, "id" | "source" | "specversion" | "type" | "data") {
        return Err(EventError::AttributeName(name.to_owned()));
    }
    if encoded.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(too_long(name, encoded.len()));
    }
    Ok((name, parse_value::<IS_INCOMING>(encoded).map_err(|what| wrong(name, what))?))
}

fn wrong(name: &str, what: &str) -> EventError {
    EventError::AttributeValue { name: name.to_owned(), what: what.to_owned() }
}

/// Parses an encoded `CloudEventAttributeValue`. The error follows "is".
fn parse_value<const IS_INCOMING: bool>(encoded: &[u8]) -> Result<AttributeView<'_>, &'static str> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "not UTF-8");
    let mut fields = Fields::new(encoded);
    let mut last = None;
    while let Some(field) = fields.next().map_err(|_| "not an attribute value")? {
        if last.replace(field).is_some() && IS_INCOMING {
            return Err("of several values"); // in a oneof the last one counts, except that messages are merged
        }
    }
    Ok(match last.ok_or("without a value")? {
        (number::BOOLEAN, Field::Varint(value)) => AttributeView::Boolean(value != 0),
        (number::INTEGER, Field::Varint(value)) => AttributeView::Integer(value as i32),
        (number::STRING, Field::Bytes(bytes)) => AttributeView::String(text(bytes)?),
        (number::URI, Field::Bytes(bytes)) => AttributeView::Uri(text(bytes)?),
        (number::URI_REF, Field::Bytes(bytes)) => AttributeView::UriRef(text(bytes)?),
        (number::BYTES, Field::Bytes(bytes)) => AttributeView::Bytes(bytes),
        (number::TIMESTAMP, Field::Bytes(bytes)) => AttributeView::Timestamp(parse_timestamp::<IS_INCOMING>(bytes)?),
        _ => return Err("of a type that CloudEvents does not have"),
    })
}

fn parse_timestamp<const IS_INCOMING: bool>(bytes: &[u8]) -> Result<Time, &'static str> {
    let (mut second, mut nanosecond) = (0i64, 0i64);
    let mut fields = Fields::new(bytes);
    while let Some((field, value)) = fields.next().map_err(|_| "not a timestamp")? {
        match (field, value) {
            (1, Field::Varint(value)) => second = value as i64,
            (2, Field::Varint(value)) => nanosecond = value as i64,
            (1 | 2, _) if IS_INCOMING => return Err("not a timestamp"),
            _ => {}
        }
    }
    let time = u32::try_from(nanosecond).ok().and_then(|nanosecond| Time::new(second, nanosecond));
    match time {
        None if IS_INCOMING => Err("a timestamp out of range: the years 1 to 9999, and 0 to 999,999,999 nanoseconds"),
        time => Ok(time.unwrap_or_else(|| Time::nearest(second, nanosecond as i32))),
    }
}

impl<'a> AttributeView<'a> {
    /// The value if it is text of any kind.
    #[inline]
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) => Some(text),
            _ => None,
        }
    }

    fn required_text(&self, name: &str) -> Result<&'a str, EventError> {
        match self.as_text() {
            Some("") => Err(wrong(name, "empty: leave it out instead")),
            Some(text) => Ok(text),
            None => Err(wrong(name, "not text")),
        }
    }

    /// The value, copied.
    pub fn to_owned(&self) -> Attribute {
        match *self {
            Self::Boolean(value) => Attribute::Boolean(value),
            Self::Integer(value) => Attribute::Integer(value),
            Self::String(text) => Attribute::String(text.to_owned()),
            Self::Uri(text) => Attribute::Uri(text.to_owned()),
            Self::UriRef(text) => Attribute::UriRef(text.to_owned()),
            Self::Bytes(bytes) => Attribute::Bytes(bytes.to_vec()),
            Self::Timestamp(time) => Attribute::Timestamp(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            any::<bool>().prop_map(Attribute::Boolean),
            any::<i32>().prop_map(Attribute::Integer),
            "[a-zA-Z0-9 ü/:]{0,20}".prop_map(Attribute::String),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Attribute::Bytes),
            "[a-z]{1,9}:[a-z/]{1,9}".prop_map(Attribute::Uri),
            "[a-z/]{1,9}".prop_map(Attribute::UriRef),
            (-62_135_596_800i64..253_402_300_800, 0..1_000_000_000u32)
                .prop_map(|(second, nano)| Attribute::Timestamp(Time::new(second, nano).unwrap())),
        ]
    }

    fn event() -> impl Strategy<Value = Event> {
        (
            ".{1,20}",
            "[a-z/:]{1,20}",
            "[a-z.]{1,20}",
            proptest::collection::btree_map("x[a-z0-9]{1,10}", attribute(), 0..5),
            proptest::option::of(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Data::Binary(bytes.into())),
                ".{0,40}".prop_map(Data::Text),
            ]),
        )
            .prop_map(|(id, source, r#type, attributes, data)| Event { id, source, r#type, attributes, data })
    }

    proptest! {
        #[test]
        fn an_event_survives_its_encoding(event in event()) {
            prop_assert_eq!(Event::decode(&event.encode()).unwrap(), event);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(view) = EventView::parse(&bytes) {
                let _ = view.attributes().count();
            }
        }

        #[test]
        fn a_damaged_event_never_panics(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = event.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Event::decode(&bytes);
        }
    }

    #[test]
    fn the_writer_agrees_with_the_encoder() {
        let mut out = Vec::new();
        EventWriter::new(&mut out, "1", "/a", "t").attribute("datacontenttype", "text/plain").data(b"hi");
        let event = Event::decode(&out).unwrap();
        assert_eq!(event.attributes["datacontenttype"], Attribute::String("text/plain".into()));
        assert_eq!(event.encode(), out);
    }

    #[test]
    fn a_dead_letter_of_a_dead_letter_has_one_failure_and_gives_the_former_one_back() {
        let event = Event { id: "1".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() }.encode();
        let fail = |of: &[u8], reason: &str| {
            let view = EventView::parse(of).unwrap();
            let (event, former) = view.split_failure("wattlesubscriber").unwrap_or((of, &[]));
            let mut out = Vec::new();
            let writer = EventWriter::extend(&mut out, event);
            let writer = writer.attribute("wattlesubscriber", reason).attribute("wattlereason", reason);
            if !former.is_empty() {
                writer.former_failure(former);
            }
            out
        };
        let all = [
            event.to_vec(),
            fail(&event, "a"),
            fail(&fail(&event, "a"), "b"),
            fail(&fail(&fail(&event, "a"), "b"), "c"),
        ];
        for (of, reason) in all.iter().skip(1).zip(["a", "b", "c"]) {
            let view = EventView::parse(of).unwrap();
            assert_eq!(view.attributes().count(), 2);
            assert_eq!(view.attributes_once()[1], ("wattlereason", AttributeView::String(reason)));
        }
        for (before, of) in all.iter().zip(&all[1..]) {
            assert_eq!(EventView::parse(of).unwrap().before_failure("wattlesubscriber").unwrap(), before);
        }
        assert_eq!(EventView::parse(&event).unwrap().before_failure("wattlesubscriber"), None);
        // from a release that accepted forged failures
        let mut forged = fail(&event, "forged");
        wire::put_bytes_field(&mut forged, number::BINARY_DATA, b"data");
        assert_eq!(EventView::parse(&forged).unwrap().split_failure("wattlesubscriber"), None);
        let dead = fail(&forged, "real");
        assert_eq!(EventView::parse(&dead).unwrap().before_failure("wattlesubscriber").unwrap(), forged);
        let seen = EventView::parse(&dead).unwrap().attributes_once();
        assert!(seen.contains(&("wattlereason", AttributeView::String("real"))) && seen.len() == 2, "{seen:?}");
    }

    /// A message with these fields in order, as no library would write it.
    fn raw(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        put_required(&mut out, "1", "/s", "t");
        fields.iter().for_each(|(number, value)| wire::put_bytes_field(&mut out, *number, value));
        out
    }

    fn entry(name: &str, value: &Attribute) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode_attribute(&mut encoded, value);
        let mut out = Vec::new();
        wire::put_bytes_field(&mut out, 1, name.as_bytes());
        wire::put_bytes_field(&mut out, 2, &encoded);
        out
    }

    #[test]
    fn what_comes_in_is_there_once() {
        let (one, other) = (entry("x", &Attribute::Boolean(true)), entry("x", &Attribute::Integer(1)));
        for (fields, name) in [
            (&[(number::ID, &b"2"[..])][..], "id"),
            (&[(number::SOURCE, b"/s")], "source"),
            (&[(number::SPEC_VERSION, b"1.0")], "specversion"),
            (&[(number::TYPE, b"u")], "type"),
            (&[(number::BINARY_DATA, b"a"), (number::BINARY_DATA, b"a")], "data"),
            (&[(number::TEXT_DATA, b"a"), (number::BINARY_DATA, b"a")], "data"),
            (&[(number::ATTRIBUTES, &one), (number::BINARY_DATA, b"a"), (number::ATTRIBUTES, &other)], "x"),
        ] {
            let event = raw(fields);
            assert_eq!(EventView::accept(&event).unwrap_err(), EventError::Twice(name.to_owned()));
            assert!(EventView::parse(&event).is_ok(), "what is stored is read as before");
        }
        // an entry with two names, with two values, and with a value of two kinds
        let mut named = one.clone();
        wire::put_bytes_field(&mut named, 1, b"y");
        let mut valued = one.clone();
        wire::put_bytes_field(&mut valued, 2, &[8, 1]);
        let mut mixed = Vec::new();
        wire::put_bytes_field(&mut mixed, 1, b"x");
        wire::put_bytes_field(&mut mixed, 2, &[8, 1, 16, 1]);
        for entry in [named, valued, mixed] {
            assert!(EventView::accept(&raw(&[(number::ATTRIBUTES, &entry)])).is_err());
        }
    }

    #[test]
    fn many_attributes_are_each_there_once() {
        let mut event = Event { id: "1".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
        event.attributes.extend((0..5_000).map(|number| (format!("x{number}"), Attribute::Integer(number))));
        let mut encoded = event.encode().to_vec();
        assert!(EventView::accept(&encoded).is_ok());
        wire::put_bytes_field(&mut encoded, number::ATTRIBUTES, &entry("x4711", &Attribute::Boolean(true)));
        assert_eq!(EventView::accept(&encoded).unwrap_err(), EventError::Twice("x4711".to_owned()));
    }

    #[test]
    fn what_cloudevents_does_not_allow_does_not_come_in() {
        let text = |text: &str| Attribute::String(text.to_owned());
        for (name, value, says) in [
            ("wattlereason", text("forged"), "`wattlereason` is reserved"),
            ("wattle", text("x"), "`wattle` is reserved"),
            ("subject", text("a\nb"), "attribute `subject` is a text with the control character U+000A at position 2"),
            ("partitionkey", text("\0"), "attribute `partitionkey` is a text with the control character U+0000"),
            ("x", text("\u{9b}"), "attribute `x` is a text with the control character U+009B"),
            ("x", Attribute::UriRef("\u{fffe}".into()), "attribute `x` is a text with the noncharacter U+FFFE"),
            ("x", Attribute::Uri("relative".into()), "attribute `x` is not an absolute URI"),
            ("time", text("yesterday"), "attribute `time` is not an RFC 3339 time"),
            ("time", Attribute::Integer(1_700_000_000), "attribute `time` is not an RFC 3339 time"),
            ("time", Attribute::Boolean(true), "attribute `time` is not an RFC 3339 time"),
            ("time", Attribute::Bytes(b"2026-01-01T00:00:00Z".to_vec()), "attribute `time` is not an RFC 3339 time"),
            ("dataschema", Attribute::Integer(5), "attribute `dataschema` is not an absolute URI"),
            ("dataschema", text(""), "attribute `dataschema` is not an absolute URI"),
            ("subject", Attribute::Integer(5), "attribute `subject` is not text"),
            ("datacontenttype", Attribute::Boolean(true), "attribute `datacontenttype` is not text"),
        ] {
            let event = raw(&[(number::ATTRIBUTES, &entry(name, &value))]);
            let error = EventView::accept(&event).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let spaced = Event { id: "1".into(), source: "the shop".into(), r#type: "t".into(), ..Event::default() };
        let spaced = spaced.encode();
        let error = EventView::accept(&spaced).unwrap_err().to_string();
        assert!(error.contains("`source` is not a URI reference"), "{error}");
        assert_eq!(EventView::parse(&spaced).unwrap().source, "the shop", "stored before there was this rule");
        for (id, source, r#type, name) in
            [("a\u{1}", "/s", "t", "id"), ("1", "/s\r", "t", "source"), ("1", "/s", "t\u{7f}", "type")]
        {
            let event = Event { id: id.into(), source: source.into(), r#type: r#type.into(), ..Event::default() };
            let error = EventView::accept(&event.encode()).unwrap_err().to_string();
            assert!(error.contains(&format!("attribute `{name}` is a text with the control character")), "{error}");
            assert!(EventView::parse(&event.encode()).is_ok(), "what is stored is read as before");
        }
        for (name, value) in [
            ("time", text("2026-01-01T00:00:00+01:00")),
            ("time", Attribute::Timestamp(Time::new(0, 1).unwrap())),
            ("dataschema", text("https://example.com/a.json")),
            ("dataschema", Attribute::Uri("urn:a".into())),
            ("subject", text("a ü\u{a0}b")),
            ("x", Attribute::Bytes(vec![0, 10])),
            ("x", text("")),
        ] {
            assert!(EventView::accept(&raw(&[(number::ATTRIBUTES, &entry(name, &value))])).is_ok(), "{name} {value:?}");
        }
    }

    #[test]
    fn times_that_no_library_of_protobuf_reads_do_not_come_in() {
        for (second, nanosecond) in
            [(-62_135_596_801i64, 0i64), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000), (0, 1 << 33)]
        {
            let mut stamp = Vec::new();
            wire::put_varint_field(&mut stamp, 1, second as u64);
            wire::put_varint_field(&mut stamp, 2, nanosecond as u64);
            let mut value = Vec::new();
            wire::put_bytes_field(&mut value, number::TIMESTAMP, &stamp);
            let mut entry = Vec::new();
            wire::put_bytes_field(&mut entry, 1, b"x");
            wire::put_bytes_field(&mut entry, 2, &value);
            let event = raw(&[(number::ATTRIBUTES, &entry)]);
            assert!(
                EventView::accept(&event)
                    .unwrap_err()
                    .to_string()
                    .contains("attribute `x` is a timestamp out of range")
            );
            assert!(EventView::parse(&event).is_ok(), "what is stored is read as before");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut event = Event { id: "1".into(), source: "/s".into(), ..Event::default() };
        assert_eq!(EventView::parse(&event.encode()).unwrap_err(), EventError::Missing("type"));
        event.r#type = "t".into();
        event.attributes.insert("Bad".into(), Attribute::Boolean(true));
        assert_eq!(EventView::parse(&event.encode()).unwrap_err(), EventError::AttributeName("Bad".into()));
    }

    #[test]
    fn the_key_is_partitionkey_then_subject_then_id() {
        let mut event = Event { id: "i".into(), source: "/s".into(), r#type: "t".into(), ..Event::default() };
        assert_eq!(EventView::parse(&event.encode()).unwrap().default_key(), "i");
        event.attributes.insert("subject".into(), Attribute::String("s".into()));
        assert_eq!(EventView::parse(&event.encode()).unwrap().default_key(), "s");
        event.attributes.insert("partitionkey".into(), Attribute::String("p".into()));
        assert_eq!(EventView::parse(&event.encode()).unwrap().default_key(), "p");
    }
}
