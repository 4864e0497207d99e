//! The event that a handler is given.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::contract::wattle::plugin::{context, types};
use crate::failure::Failure;

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The topic that it comes from.
    pub topic: &'a str,
    /// The partition of the topic.
    pub partition: u32,
    /// The content type of the data; "" when the producer gave none.
    pub content_type: &'a str,
    /// The ordering key.
    pub key: &'a str,
    /// The CloudEvents type.
    pub kind: &'a str,
    /// When it was appended to its topic, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
    /// The payload.
    pub data: &'a [u8],
}

impl<'a> Event<'a> {
    pub(crate) fn new(batch: &'a types::Batch, event: &'a types::Event) -> Event<'a> {
        Event {
            topic: &batch.topic,
            partition: batch.partition,
            content_type: &batch.content_type,
            key: &event.key,
            kind: &event.type_,
            time_ns: event.time,
            attempt: event.attempt,
            data: &event.data,
        }
    }

    /// The data, read as JSON. Of names that occur twice in an object the last one counts, as for the bus.
    ///
    /// # Errors
    /// Rejects the event, saying what does not fit and where.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Deserialize<'a>>(&self) -> Result<T, Failure> {
        read(self.data).map_err(|words| Failure::reject(format!("the data is not what this plugin reads: {words}")))
    }

    /// The data, read as text.
    ///
    /// # Errors
    /// Rejects the event when it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.data).map_err(|error| Failure::reject(format!("the data is not UTF-8: {error}")))
    }

    /// When it was appended to its topic.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time_ns)
    }

    /// One of its CloudEvents attributes: `id`, `source`, `subject`, `time` or an extension.
    pub fn attribute(&self, name: &str) -> Option<String> {
        context::attributes().lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
    }

    /// All its CloudEvents attributes beyond the fields of this struct.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let lines = context::attributes();
        lines.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

/// JSON as the bus reads it: what serde derives refuses a name that occurs twice, and a value takes the last one.
#[cfg(feature = "json")]
fn read<'a, T: serde::Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    let error = match serde_json::from_slice(data) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    if !error.starts_with("duplicate field") {
        return Err(with_path::<T>(data, error));
    }
    serde_json::from_slice::<serde_json::Value>(data).and_then(T::deserialize).map_err(|_| error)
}

/// An error after the path of its field. The data is read once more for that, since keeping the path takes time.
#[cfg(feature = "json")]
fn with_path<'a, T: serde::Deserialize<'a>>(data: &'a [u8], error: String) -> String {
    let mut reader = serde_json::Deserializer::from_slice(data);
    let Err(found) = serde_path_to_error::deserialize::<_, T>(&mut reader) else { return error };
    let mut path = found.path().to_string();
    if path == "." {
        path.clear();
    }
    // The path of a missing field ends at what it is missing in.
    if let Some((name, _)) = error.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        let dot = if path.is_empty() { "" } else { "." };
        path = format!("{path}{dot}{name}");
    }
    if path.is_empty() { error } else { format!("{path}: {error}") }
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::read;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Order {
        id: String,
        #[serde(default)]
        lines: Vec<Line>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Line {
        sku: u32,
    }

    #[test]
    fn of_names_that_occur_twice_the_last_one_counts() {
        let order = read::<Order>(br#"{"id":"a","\u0069d":"b","lines":[{"sku":1,"sku":2}]}"#).unwrap();
        assert_eq!(order, Order { id: "b".to_owned(), lines: vec![Line { sku: 2 }] });
        let error = read::<Order>(br#"{"id":"a","id":2}"#).unwrap_err();
        assert!(error.contains("invalid type") || error.contains("duplicate field"), "{error}");
        assert!(read::<&str>(br#""borrowed""#).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_said_with_the_path_of_its_field() {
        for (data, begin) in [
            (r#"{"id":"a","lines":[{"sku":1},{"sku":"b"}]}"#, "lines[1].sku: invalid type: string \"b\""),
            (r#"{"id":"a","lines":[{}]}"#, "lines[0].sku: missing field `sku`"),
            (r#"{"lines":[]}"#, "id: missing field `id`"),
            (r#"{"id":"#, "id: EOF while parsing"),
            ("[]", "invalid length 0"),
            ("", "EOF while parsing"),
        ] {
            let error = read::<Order>(data.as_bytes()).unwrap_err();
            assert!(error.starts_with(begin), "{data}: {error}");
        }
    }
}
