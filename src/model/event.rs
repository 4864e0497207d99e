//! A CloudEvents 1.0 event, owned ([`Event`]) and as a view over its encoding ([`EventView`]).
//!
//! The encoding is the CloudEvents protobuf format (`io.cloudevents.v1.CloudEvent`), from the publisher's bytes to the
//! journal to the reader's: an event is framed once and never translated on the way.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::wire::{self, Field, Fields};

/// Longest name of a context attribute in bytes. The specification advises 20; more is accepted, without end is not.
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
    /// Not a protobuf message at all.
    #[error("the event is not a CloudEvent in the protobuf format (io.cloudevents.v1.CloudEvent)")]
    Malformed,
    /// A required attribute is missing or empty.
    #[error("the event has no `{0}`: CloudEvents requires `id`, `source`, `specversion` and `type`, none empty")]
    Missing(&'static str),
    /// Another version of the specification.
    #[error("the event's specversion is {0:?}: this bus speaks CloudEvents \"1.0\"")]
    SpecVersion(String),
    /// A string that is not UTF-8.
    #[error("`{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// A name that CloudEvents does not allow.
    #[error(
        "{0:?} is not an attribute name: use lower-case letters and digits, at most {ATTRIBUTE_NAME_BYTES_MAX} of them"
    )]
    AttributeName(String),
    /// A value that is not what its attribute needs.
    #[error("attribute `{name}` is {what}")]
    AttributeValue {
        /// The attribute.
        name: String,
        /// What is wrong with it, to follow "is".
        what: String,
    },
    /// `proto_data`, whose type the bus cannot know.
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
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An absolute URI.
    Uri(String),
    /// A URI or a relative reference.
    UriRef(String),
    /// A point in time.
    Timestamp(jiff::Timestamp),
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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Unique together with `source`.
    pub id: String,
    /// Who made it, a URI reference.
    pub source: String,
    /// What happened.
    pub r#type: String,
    /// All other context attributes: `subject`, `time`, `datacontenttype`, `dataschema` and extensions.
    pub attributes: BTreeMap<String, Attribute>,
    /// The payload.
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

    /// The event that `bytes` encode.
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
            wire::put_varint_field(&mut stamp, 1, value.as_second() as u64);
            wire::put_varint_field(&mut stamp, 2, i64::from(value.subsec_nanosecond()) as u64);
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

/// Writes an event straight into `out`, for the path on which every output of every handler goes.
pub struct EventWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> EventWriter<'a> {
    /// Starts an event with its required attributes, none empty.
    pub fn new(out: &'a mut Vec<u8>, id: &str, source: &str, r#type: &str) -> Self {
        put_required(out, id, source, r#type);
        Self { out }
    }

    /// Adds a text attribute. `name` must be a valid name, once.
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

    /// Adds attributes to an event that is already encoded, each name new to it. Nothing of the original changes:
    /// fields of a protobuf message may follow in any order.
    pub fn extend(out: &'a mut Vec<u8>, encoded: &[u8]) -> Self {
        out.extend_from_slice(encoded);
        Self { out }
    }
}

/// An encoded event, looked into but not copied.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// Unique together with `source`.
    pub id: &'a str,
    /// Who made it.
    pub source: &'a str,
    /// What happened.
    pub r#type: &'a str,
    /// The `subject` attribute.
    pub subject: Option<&'a str>,
    /// The `partitionkey` extension.
    pub partition_key: Option<&'a str>,
    /// The `datacontenttype` attribute.
    pub content_type: Option<&'a str>,
    /// The payload.
    pub data: Option<&'a [u8]>,
    /// The payload was given as text.
    pub data_is_text: bool,
    /// There is a `deliverat` or a `delay` extension.
    pub has_delay: bool,
    encoded: &'a [u8],
}

/// The value of a context attribute, looked into but not copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttributeView<'a> {
    /// `true` or `false`.
    Boolean(bool),
    /// A 32-bit integer.
    Integer(i32),
    /// Text.
    String(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// An absolute URI.
    Uri(&'a str),
    /// A URI or a relative reference.
    UriRef(&'a str),
    /// A point in time.
    Timestamp(jiff::Timestamp),
}

impl<'a> EventView<'a> {
    /// Looks through an encoded event once and checks it as a bus must: required attributes, names, text.
    ///
    /// # Errors
    /// [`EventError`] says which rule of CloudEvents is broken, and where.
    pub fn parse(encoded: &'a [u8]) -> Result<Self, EventError> {
        let (mut id, mut source, mut spec_version, mut r#type) = ("", "", &[][..], "");
        let (mut subject, mut partition_key, mut content_type) = (None, None, None);
        let (mut data, mut data_is_text, mut has_delay) = (None, false, false);
        let mut fields = Fields::new(encoded);
        while let Some((field, value)) = fields.next().map_err(|_| EventError::Malformed)? {
            let Field::Bytes(bytes) = value else {
                if field <= number::PROTO_DATA {
                    return Err(EventError::Malformed);
                }
                continue;
            };
            match field {
                number::ID => id = text("id", bytes)?,
                number::SOURCE => source = text("source", bytes)?,
                number::SPEC_VERSION => spec_version = bytes,
                number::TYPE => r#type = text("type", bytes)?,
                number::ATTRIBUTES => {
                    let (name, value) = parse_attribute(bytes)?;
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
        if spec_version != b"1.0" {
            return Err(EventError::SpecVersion(text("specversion", spec_version)?.to_owned()));
        }
        Ok(Self { id, source, r#type, subject, partition_key, content_type, data, data_is_text, has_delay, encoded })
    }

    /// The encoding in front of the last attribute of this name: what [`EventWriter::extend`] was given, where that was the
    /// first one which it added. `None` where there is no such attribute.
    pub fn in_front_of_last(&self, name: &str) -> Option<&'a [u8]> {
        let (mut fields, mut found) = (Fields::new(self.encoded), None);
        loop {
            let start = self.encoded.len() - fields.left();
            match fields.next() {
                Ok(Some((number::ATTRIBUTES, Field::Bytes(bytes)))) => {
                    if parse_attribute(bytes).is_ok_and(|(of, _)| of == name) {
                        found = Some(start);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return self.encoded.get(..found?),
            }
        }
    }

    /// The encoding that this looks into.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// The ordering key where the topic has no expression of its own: `partitionkey`, else `subject`, else the id.
    #[inline]
    pub fn default_key(&self) -> &'a str {
        self.partition_key.or(self.subject).unwrap_or(self.id)
    }

    /// Every context attribute but the required four, in the order of the encoding.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, AttributeView<'a>)> + use<'a> {
        let mut fields = Fields::new(self.encoded);
        std::iter::from_fn(move || {
            loop {
                match fields.next() {
                    Ok(Some((number::ATTRIBUTES, Field::Bytes(bytes)))) => return parse_attribute(bytes).ok(),
                    Ok(Some(_)) => {}
                    // `parse` has read it to its end before
                    Ok(None) | Err(_) => return None,
                }
            }
        })
    }
}

#[inline]
fn text<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, EventError> {
    if bytes.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(too_long(name, bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|_| EventError::NotUtf8(name))
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

/// An entry of the attribute map, checked.
fn parse_attribute(entry: &[u8]) -> Result<(&str, AttributeView<'_>), EventError> {
    let (mut name, mut encoded): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(entry);
    while let Some((field, value)) = fields.next().map_err(|_| EventError::Malformed)? {
        match (field, value) {
            (1, Field::Bytes(bytes)) => name = bytes,
            (2, Field::Bytes(bytes)) => encoded = bytes,
            _ => {}
        }
    }
    let name = std::str::from_utf8(name).map_err(|_| EventError::NotUtf8("attribute name"))?;
    if !is_attribute_name(name) || matches!(name, "id" | "source" | "specversion" | "type" | "data") {
        return Err(EventError::AttributeName(name.to_owned()));
    }
    if encoded.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(too_long(name, encoded.len()));
    }
    Ok((name, parse_value(encoded).map_err(|what| wrong(name, what))?))
}

fn wrong(name: &str, what: &str) -> EventError {
    EventError::AttributeValue { name: name.to_owned(), what: what.to_owned() }
}

/// An encoded `CloudEventAttributeValue`; what is wrong with it, to follow "is".
fn parse_value(encoded: &[u8]) -> Result<AttributeView<'_>, &'static str> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "not UTF-8");
    let mut fields = Fields::new(encoded);
    let mut last = None;
    while let Some(field) = fields.next().map_err(|_| "not an attribute value")? {
        last = Some(field); // of a oneof, the last one counts
    }
    Ok(match last.ok_or("without a value")? {
        (number::BOOLEAN, Field::Varint(value)) => AttributeView::Boolean(value != 0),
        (number::INTEGER, Field::Varint(value)) => AttributeView::Integer(value as i32),
        (number::STRING, Field::Bytes(bytes)) => AttributeView::String(text(bytes)?),
        (number::URI, Field::Bytes(bytes)) => AttributeView::Uri(text(bytes)?),
        (number::URI_REF, Field::Bytes(bytes)) => AttributeView::UriRef(text(bytes)?),
        (number::BYTES, Field::Bytes(bytes)) => AttributeView::Bytes(bytes),
        (number::TIMESTAMP, Field::Bytes(bytes)) => AttributeView::Timestamp(parse_timestamp(bytes)?),
        _ => return Err("of no type that CloudEvents has"),
    })
}

fn parse_timestamp(bytes: &[u8]) -> Result<jiff::Timestamp, &'static str> {
    let (mut second, mut nanosecond) = (0i64, 0i32);
    let mut fields = Fields::new(bytes);
    while let Some((field, value)) = fields.next().map_err(|_| "not a timestamp")? {
        match (field, value) {
            (1, Field::Varint(value)) => second = value as i64,
            (2, Field::Varint(value)) => nanosecond = value as i32,
            _ => {}
        }
    }
    jiff::Timestamp::new(second, nanosecond).map_err(|_| "a timestamp out of range")
}

impl<'a> AttributeView<'a> {
    /// The value where it is text of any kind.
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
            (-62_135_596_800i64..253_402_207_200, 0..1_000_000_000i32)
                .prop_map(|(second, nano)| Attribute::Timestamp(jiff::Timestamp::new(second.max(0), nano).unwrap())),
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
