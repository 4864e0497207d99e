//! Events in the CloudEvents JSON format, for publishing from files and for `tail`.
//!
//! Data is bytes: JSON data is the text between `"data":` and its end, on input and output, including its numbers,
//! order and spaces. Data that cannot be on one line unchanged (with line ends or surrounding spaces, or not JSON)
//! becomes `data_base64`, so that printed events can be published again unchanged.

mod reading;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::event::{Attribute, Data, Event, EventError, is_attribute_name};
pub use reading::{ValidJson, check};

/// Why a text is not an event.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not exactly one event.
    #[error("{what}")]
    Syntax {
        /// What is wrong.
        what: String,
        /// The position in the text, in characters from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("a CloudEvent is a JSON object, this is {0}{hint}", hint = array_hint(.0))]
    NotAnObject(&'static str),
    /// An attribute of the wrong JSON type or with an invalid value.
    #[error("attribute `{name}` {what}")]
    Attribute {
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A rule of CloudEvents is broken.
    #[error(transparent)]
    Event(#[from] EventError),
}

impl JsonError {
    /// The position in the text, in characters from 1.
    pub fn column(&self) -> Option<usize> {
        match self {
            Self::Syntax { column, .. } => Some(*column),
            Self::NotAnObject(_) | Self::Attribute { .. } | Self::Event(_) => None,
        }
    }

    /// The error for a text that should be an event on one line.
    pub fn syntax(error: &serde_json::Error, text: &str) -> Self {
        let at = text.floor_char_boundary(error.column().saturating_sub(1));
        let rest = text.get(at..).unwrap_or_default();
        let said = error.to_string();
        let what = match rest.chars().next() {
            _ if text.starts_with('\u{feff}') => "it begins with a byte order mark: remove it".to_owned(),
            _ if error.is_eof() => {
                "not JSON: it ends before the event does. Each event must be on a line of its own; `jq -c .` \
                         puts JSON on one line"
                    .to_owned()
            }
            Some(',') if is_more(&said) => {
                "a comma follows the event: one event on each line, nothing between them".to_owned()
            }
            Some(_) if is_more(&said) => "more text follows the event: one event on each line".to_owned(),
            _ => {
                let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
                format!("{}{said}", if error.is_data() { "" } else { "not JSON: " })
            }
        };
        Self::Syntax { what, column: text.get(..at).unwrap_or_default().chars().count() + 1 }
    }
}

/// serde_json's message for trailing characters after a value.
fn is_more(said: &str) -> bool {
    said.starts_with("trailing characters")
}

const ARRAY: &str = "an array";

fn array_hint(kind: &str) -> &'static str {
    match kind {
        ARRAY => ": put each event on a line of its own, as `jq -c '.[]'` does",
        _ => "",
    }
}

/// The JSON type of a value, by its first character.
fn kind(value: &str) -> &'static str {
    match value.bytes().next() {
        Some(b'{') => "an object",
        Some(b'[') => ARRAY,
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Whether a content type means JSON: its subtype is `json`, or ends in `+json`, ignoring case. Events without a
/// content type are also JSON; the caller handles that.
pub fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = media.split_once('/') else { return false };
    let suffix = subtype.len().checked_sub(5).and_then(|at| subtype.get(at..));
    subtype.eq_ignore_ascii_case("json") || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// The members of an object, each as its text.
struct Object<'t> {
    members: BTreeMap<String, &'t RawValue>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object { members: BTreeMap::new(), twice: None };
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if object.members.insert(name.clone(), value).is_some() {
                        object.twice.get_or_insert(name);
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Reads one event in the JSON format. JSON in `data` is stored as its text, byte for byte, with `datacontenttype`
/// `application/json` if the event has none. A member that is `null` counts as missing.
///
/// # Errors
/// [`JsonError`] names the attribute and the problem.
pub fn from_json(text: &str) -> Result<Event, JsonError> {
    let begin = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if !begin.starts_with('{') {
        let value = serde_json::from_str::<&RawValue>(text);
        // also an array that spans several lines
        return match value {
            _ if begin.starts_with('[') => Err(JsonError::NotAnObject(ARRAY)),
            Ok(value) => Err(JsonError::NotAnObject(kind(value.get()))),
            Err(error) => Err(JsonError::syntax(&error, text)),
        };
    }
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| JsonError::syntax(&error, text))?;
    match object.twice {
        Some(name) => Err(EventError::Twice(name).into()),
        None => from_members(object.members),
    }
}

fn from_members(mut members: BTreeMap<String, &RawValue>) -> Result<Event, JsonError> {
    members.retain(|_, value| value.get() != "null");
    let mut required = |name: &'static str| {
        let Some(value) = members.remove(name) else { return Err(JsonError::Event(EventError::Missing(name))) };
        match scalar(name, value)? {
            Value::String(text) if text.is_empty() => Err(JsonError::Event(EventError::Missing(name))),
            Value::String(text) => Ok(text),
            _ => Err(wrong(name, format!("must be a string, not {}", kind(value.get())))),
        }
    };
    let (id, source, r#type, version) =
        (required("id")?, required("source")?, required("type")?, required("specversion")?);
    if version != "1.0" {
        return Err(EventError::SpecVersion(version).into());
    }
    let (data, base64) = (members.remove("data"), members.remove("data_base64"));
    let mut event = Event { id, source, r#type, ..Event::default() };
    for (name, value) in members {
        if !is_attribute_name(&name) {
            return Err(EventError::AttributeName(name).into());
        }
        let attribute = match scalar(&name, value)? {
            Value::Bool(value) => Attribute::Boolean(value),
            Value::Number(number) => {
                let integer = number.as_i64().and_then(|integer| i32::try_from(integer).ok());
                Attribute::Integer(integer.ok_or_else(|| wrong(&name, "must be an integer of 32 bits".into()))?)
            }
            Value::String(text) => Attribute::of_text(&name, text)?,
            _ => return Err(wrong(&name, format!("must be a string, integer or boolean, not {}", kind(value.get())))),
        };
        event.attributes.insert(name, attribute);
    }
    event.data = match (data, base64) {
        (Some(_), Some(_)) => return Err(wrong("data", "and `data_base64` exclude each other".into())),
        (None, None) => None,
        (None, Some(value)) => {
            let Value::String(text) = scalar("data_base64", value)? else {
                return Err(wrong("data_base64", format!("must be a string, not {}", kind(value.get()))));
            };
            let bytes = STANDARD.decode(text).map_err(|_| wrong("data_base64", "is not base64".into()))?;
            Some(Data::Binary(bytes.into()))
        }
        (Some(value), None) => {
            let content_type = event.attributes.get("datacontenttype").map(ToString::to_string);
            let is_text = content_type.as_deref().is_some_and(|content_type| !is_json(content_type));
            if content_type.is_none() {
                let json = Attribute::String("application/json".into());
                event.attributes.insert("datacontenttype".into(), json);
            }
            match value.get() {
                text if is_text && text.starts_with('"') => {
                    let text = serde_json::from_str(text).map_err(|error| unreadable("data", &error))?;
                    Some(Data::Text(text))
                }
                json => Some(Data::Binary(json.to_owned().into())),
            }
        }
    };
    Ok(event)
}

/// Parses a member that must be a scalar.
fn scalar(name: &str, value: &RawValue) -> Result<Value, JsonError> {
    match value.get().bytes().next() {
        Some(b'{') => Ok(Value::Object(serde_json::Map::new())),
        Some(b'[') => Ok(Value::Array(Vec::new())),
        _ => serde_json::from_str(value.get()).map_err(|error| unreadable(name, &error)),
    }
}

fn unreadable(name: &str, error: &serde_json::Error) -> JsonError {
    let said = error.to_string();
    wrong(name, format!("cannot be read: {}", said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what)))
}

fn wrong(name: &str, what: String) -> JsonError {
    JsonError::Attribute { name: name.to_owned(), what }
}

/// The members of an object by name, each as its text.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// A value as its JSON text.
pub fn member(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    // fails only for a map with keys that are not strings
    to_raw_value(value).unwrap_or_default()
}

/// The members of a JSON object.
pub fn members(value: Value) -> Members {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, member(&value))).collect(),
        _ => Members::new(),
    }
}

/// The event in the JSON format: JSON data unchanged, text as a string, other data as `data_base64`.
pub fn to_json(event: &Event) -> Members {
    let mut members = Members::new();
    let required = [("specversion", "1.0"), ("id", &event.id), ("source", &event.source), ("type", &event.r#type)];
    for (name, value) in required {
        members.insert(name.to_owned(), member(value));
    }
    for (name, value) in &event.attributes {
        let value = match value {
            Attribute::Boolean(value) => member(value),
            Attribute::Integer(value) => member(value),
            other => member(&other.to_string()),
        };
        members.insert(name.clone(), value);
    }
    if let Some(data) = &event.data {
        let content_type = event.attributes.get("datacontenttype").map(ToString::to_string);
        let readable = match (content_type.as_deref(), data) {
            (Some(content_type), data) if is_json(content_type) => json_on_one_line(data.as_bytes()),
            (Some(_), Data::Text(text)) => Some(member(text)),
            // Without a content type, a string would be read as JSON.
            (Some(_), Data::Binary(_)) | (None, _) => None,
        };
        match readable {
            Some(value) => members.insert("data".into(), value),
            None => members.insert("data_base64".into(), member(&STANDARD.encode(data.as_bytes()))),
        };
    }
    members
}

/// JSON that can follow `"data":` on a line and is read again unchanged.
pub fn json_on_one_line(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains(['\n', '\r']) && *text != "null")?;
    let value = RawValue::from_string(text.to_owned()).ok()?;
    (value.get().len() == text.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_json() {
        for text in [
            concat!(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","#,
                r#""data":{"a":[1,2.5,null]},"datacontenttype":"application/json"}"#
            ),
            concat!(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","#,
                r#""subject":"x","time":"2026-01-02T03:04:05.678Z","count":3,"yes":true}"#
            ),
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"hello"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AAEC/w=="}"#,
        ] {
            let event = from_json(text).unwrap();
            let decoded = Event::decode(&event.encode()).unwrap();
            assert_eq!(decoded, event);
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(to_json(&decoded)).unwrap(), expected);
        }
    }

    const HEAD: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t""#;

    fn with(members: &str) -> String {
        format!("{HEAD},{members}}}")
    }

    fn printed(event: &Event) -> String {
        serde_json::to_string(&to_json(event)).unwrap()
    }

    #[test]
    fn data_is_the_bytes_between_its_colon_and_its_end() {
        for data in [
            r#"{"b":1,"a":1.10,"z":-0,"n":18446744073709551616,"u":"\u00e9"}"#,
            r#"{ "a" : [ 1 ,2 ] }"#,
            r#"{"a":1,"a":2}"#,
            r#""\ud800""#,
            "1e400",
            "-0",
            "1.10",
            "\"\"",
            "false",
            r#"{"\u0061":"\/"}"#,
        ] {
            let event = from_json(&with(&format!("\"data\" :  {data} "))).unwrap();
            assert_eq!(event.data, Some(Data::Binary(data.to_owned().into())));
            let printed = printed(&event);
            assert!(printed.contains(&format!("\"data\":{data}")), "{printed}");
            assert_eq!(from_json(&printed).unwrap(), event);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let event = from_json(&with(&format!("\"data\":{deep}"))).unwrap();
        assert_eq!(from_json(&printed(&event)).unwrap(), event);
    }

    #[test]
    fn what_could_not_be_read_again_as_it_is_is_printed_in_base64() {
        for data in ["null", " 1", "1\t", "{\n}", "{\r\n}", "", "{", "1 2", "\u{feff}1"] {
            let mut event = from_json(HEAD_ALONE).unwrap();
            event.attributes.insert("datacontenttype".into(), Attribute::String("application/json".into()));
            event.data = Some(Data::Binary(data.into()));
            let printed = printed(&event);
            assert!(printed.contains("data_base64") && !printed.contains('\n'), "{printed}");
            assert_eq!(from_json(&printed).unwrap(), event);
        }
    }

    const HEAD_ALONE: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

    #[test]
    fn null_is_as_if_it_were_not_there() {
        let plain = from_json(HEAD_ALONE).unwrap();
        for members in
            [r#""subject":null"#, r#""data":null"#, r#""data_base64":null"#, r#""data":null,"data_base64":null"#]
        {
            assert_eq!(from_json(&with(members)).unwrap(), plain, "{members}");
        }
        let other = from_json(&with(r#""data":null,"data_base64":"AA==""#)).unwrap();
        assert_eq!(other.data, Some(Data::Binary(vec![0].into())));
        let other = from_json(&with(r#""data":1,"data_base64":null"#)).unwrap();
        assert_eq!(other.data, Some(Data::Binary("1".into())));
    }

    #[test]
    fn a_member_that_is_there_twice_is_named() {
        for (members, name) in [
            (r#""id":"2""#, "id"),
            (r#""\u0069d":"1""#, "id"),
            (r#""specversion":"1.0""#, "specversion"),
            (r#""x":"1","x":"1""#, "x"),
            (r#""x":"1","x":null"#, "x"),
            (r#""data":1,"data":2"#, "data"),
            (r#""data_base64":"","data_base64":"""#, "data_base64"),
        ] {
            let error = from_json(&with(members)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}` is there more than once")), "{members}: {error}");
        }
    }

    #[test]
    fn what_is_not_one_event_on_a_line_says_where_and_what_to_do() {
        for (text, column, words) in [
            ("{", Some(1), "on a line of its own"),
            (r#"{"id":"#, Some(6), "`jq -c .`"),
            (&format!("{HEAD_ALONE},"), Some(56), "a comma follows the event"),
            (&format!("{HEAD_ALONE} {HEAD_ALONE}"), Some(57), "one event on each line"),
            (&format!("{HEAD_ALONE} é"), Some(57), "more text follows the event"),
            (r#"{"é":x}"#, Some(6), "not JSON: expected value"),
            (r#"{"id":"a",}"#, Some(11), "not JSON: trailing comma"),
            ("[", None, "`jq -c '.[]'`"),
            ("[{},", None, "an array"),
            (" 5", None, "this is a number"),
            ("\u{feff}{}", Some(1), "byte order mark"),
            ("hello", Some(1), "not JSON"),
        ] {
            let error = from_json(text).unwrap_err();
            assert_eq!(error.column(), column, "{text}: {error}");
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert!(!error.to_string().contains("line 1"), "{text}: {error}");
        }
    }

    #[test]
    fn one_rule_says_what_is_json() {
        for json in ["application/json", "Foo/JSON", "text/json; charset=utf-8", "application/problem+JSON", "a/b+json"]
        {
            assert!(is_json(json), "{json}");
        }
        for other in ["", " ", "json", "+json", "application/jsonl", "application/x-json", "text/plain", "a/b+json+xml"]
        {
            assert!(!is_json(other), "{other}");
        }
        let event = from_json(&with(r#""datacontenttype":"application/problem+JSON","data":"text""#)).unwrap();
        assert_eq!(event.data.as_ref().unwrap().as_bytes(), br#""text""#);
    }

    #[test]
    fn json_data_without_a_content_type_is_json() {
        let event = from_json(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"text"}"#).unwrap();
        assert_eq!(event.data.as_ref().unwrap().as_bytes(), br#""text""#);
        assert_eq!(event.attributes["datacontenttype"], Attribute::String("application/json".into()));
    }

    #[test]
    fn every_invalid_event_is_refused_with_its_attribute_named() {
        for (text, words) in [
            ("[]", "this is an array"),
            ("{", "not JSON"),
            (r#"{"specversion":"1.0","source":"/s","type":"t"}"#, "no `id`"),
            (r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#, "no `id`"),
            (r#"{"specversion":"1.0","id":1,"source":"/s","type":"t"}"#, "`id` must be a string"),
            (r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#, "specversion is \"0.3\""),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"today"}"#,
                "`time` is not an RFC 3339 time",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","Foo":"x"}"#,
                "\"Foo\" is not an attribute name",
            ),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","foo":{}}"#, "`foo` must be"),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","foo":1.5}"#, "`foo` must be an integer"),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":""}"#,
                "exclude each other",
            ),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"*"}"#, "is not base64"),
        ] {
            let error = from_json(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
