//! Events in the CloudEvents JSON format: what people publish from files and what `tail` prints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::event::{Attribute, Data, Event, EventError, is_attribute_name};

/// Why a JSON value is not an event.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// JSON, but not an object.
    #[error("a CloudEvent is a JSON object, this is {0}")]
    NotAnObject(&'static str),
    /// An attribute of the wrong JSON type or with an impossible value.
    #[error("attribute `{name}` {what}")]
    Attribute {
        /// The attribute.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A rule of CloudEvents is broken.
    #[error(transparent)]
    Event(#[from] EventError),
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a content type says JSON (RFC 6839 suffixes included); the JSON format assumes it where there is none.
pub fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json")
        || media.eq_ignore_ascii_case("text/json")
        || media.ends_with("+json")
}

/// Reads one event in the JSON format. `data` that is JSON is stored as its text in bytes, with `datacontenttype`
/// `application/json` where the event names none.
///
/// # Errors
/// [`JsonError`] names the attribute and what is wrong with it.
pub fn from_json(text: &str) -> Result<Event, JsonError> {
    let value: Value = serde_json::from_str(text)?;
    let Value::Object(fields) = value else { return Err(JsonError::NotAnObject(kind(&value))) };
    from_fields(fields)
}

fn from_fields(mut fields: Map<String, Value>) -> Result<Event, JsonError> {
    let mut required = |name: &'static str| match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) | None | Some(Value::Null) => Err(JsonError::Event(EventError::Missing(name))),
        Some(other) => Err(wrong(name, format!("must be a string, not {}", kind(&other)))),
    };
    let (id, source, r#type, version) =
        (required("id")?, required("source")?, required("type")?, required("specversion")?);
    if version != "1.0" {
        return Err(EventError::SpecVersion(version).into());
    }
    let (data, base64) = (fields.remove("data"), fields.remove("data_base64"));
    let mut event = Event { id, source, r#type, ..Event::default() };
    for (name, value) in fields {
        if !is_attribute_name(&name) {
            return Err(EventError::AttributeName(name).into());
        }
        let value = match value {
            Value::Null => continue, // the JSON format: as if it were not there
            Value::Bool(value) => Attribute::Boolean(value),
            Value::Number(number) => {
                let integer = number.as_i64().and_then(|integer| i32::try_from(integer).ok());
                Attribute::Integer(integer.ok_or_else(|| wrong(&name, "must be an integer of 32 bits".into()))?)
            }
            Value::String(text) if name == "time" => {
                let time = text.parse().map_err(|_| wrong(&name, format!("is not an RFC 3339 time: {text:?}")))?;
                Attribute::Timestamp(time)
            }
            Value::String(text) if name == "dataschema" => Attribute::Uri(text),
            Value::String(text) => Attribute::String(text),
            other => return Err(wrong(&name, format!("must be a string, integer or boolean, not {}", kind(&other)))),
        };
        event.attributes.insert(name, value);
    }
    event.data = match (data, base64) {
        (Some(_), Some(_)) => return Err(wrong("data", "and `data_base64` exclude each other".into())),
        (None | Some(Value::Null), None) => None,
        (_, Some(Value::String(text))) => {
            let bytes = STANDARD.decode(text).map_err(|_| wrong("data_base64", "is not base64".into()))?;
            Some(Data::Binary(bytes.into()))
        }
        (_, Some(other)) => return Err(wrong("data_base64", format!("must be a string, not {}", kind(&other)))),
        (Some(data), None) => {
            let content_type = event.attributes.get("datacontenttype").map(ToString::to_string);
            match (data, content_type) {
                (Value::String(text), Some(content_type)) if !is_json(&content_type) => Some(Data::Text(text)),
                (data, content_type) => {
                    if content_type.is_none() {
                        let json = Attribute::String("application/json".into());
                        event.attributes.insert("datacontenttype".into(), json);
                    }
                    Some(Data::Binary(serde_json::to_vec(&data)?.into()))
                }
            }
        }
    };
    Ok(event)
}

fn wrong(name: &str, what: String) -> JsonError {
    JsonError::Attribute { name: name.to_owned(), what }
}

/// The event in the JSON format: JSON data as it is, text as a string, all else as `data_base64`.
pub fn to_json(event: &Event) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("specversion".into(), "1.0".into());
    fields.insert("id".into(), event.id.clone().into());
    fields.insert("source".into(), event.source.clone().into());
    fields.insert("type".into(), event.r#type.clone().into());
    for (name, value) in &event.attributes {
        let value = match value {
            Attribute::Boolean(value) => Value::Bool(*value),
            Attribute::Integer(value) => Value::from(*value),
            other => Value::String(other.to_string()),
        };
        fields.insert(name.clone(), value);
    }
    if let Some(data) = &event.data {
        let content_type = event.attributes.get("datacontenttype").map(ToString::to_string);
        let bytes = data.as_bytes();
        let json = || serde_json::from_slice::<Value>(bytes).ok();
        let text = || std::str::from_utf8(bytes).ok().map(|text| Value::from(text.to_owned()));
        let readable = match content_type.as_deref() {
            Some(content_type) if is_json(content_type) => json(),
            Some(_) => text().filter(|_| matches!(data, Data::Text(_))),
            // Without a content type a string would be taken for JSON when it is read again.
            None => None,
        };
        match readable {
            Some(value) => fields.insert("data".into(), value),
            None => fields.insert("data_base64".into(), STANDARD.encode(bytes).into()),
        };
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_json() {
        for text in [
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,2.5,null]},"datacontenttype":"application/json"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"x","time":"2026-01-02T03:04:05.678Z","count":3,"yes":true}"#,
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"hello"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AAEC/w=="}"#,
        ] {
            let event = from_json(text).unwrap();
            let decoded = Event::decode(&event.encode()).unwrap();
            assert_eq!(decoded, event);
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(Value::Object(to_json(&decoded)), expected);
        }
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
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"today"}"#, "`time` is not an RFC 3339"),
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
