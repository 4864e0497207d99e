//! Events from lines: CloudEvents in JSON, or plain data.
//!
//! Promises: a line is an event, or is told with its place and what is wrong with it; nothing longer than an event can
//! be is read into memory.
//!
//! Must not know: buses and their clients.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::Failure;
use crate::api::AddressedEvent;
use crate::effects::random;
use crate::limits;
use crate::model::event::Data;
use crate::model::json::JsonError;
use crate::model::{Attribute, Event, EventView, json};

/// Longest line in bytes: an event of the largest size whose data is escaped or in base64.
const LINE_BYTES_MAX: u64 = 4 * limits::EVENT_BYTES_MAX as u64;

/// The attributes of an event.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) r#type: String,
    pub(super) source: String,
    pub(super) subject: Option<String>,
    pub(super) key: Option<String>,
    pub(super) attributes: Vec<(String, Attribute)>,
    /// Data is text, whatever it looks like.
    pub(super) is_text: bool,
}

/// Whether a text that is not JSON begins like JSON: a mistake, more often than a text that looks so.
fn is_broken_json(data: &str, error: &serde_json::Error) -> bool {
    let line = data.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.get(line.floor_char_boundary(error.column().saturating_sub(1))..).unwrap_or_default();
    match data.trim_ascii_start().bytes().next() {
        Some(b'{') => true,
        // lines of logs begin with it as well
        Some(b'[') => error.is_eof() || rest.starts_with([',', '{', '[']),
        // a string that does not end, or is none inside; `"quoted" and more` is a text
        Some(b'"') => !error.to_string().starts_with("trailing characters"),
        // a number that programs read in different ways
        Some(b'-' | b'0'..=b'9') => error.to_string().starts_with("number out of range"),
        _ => false,
    }
}

impl Template {
    /// An event with this data, which is JSON if it can be read as such, else text.
    ///
    /// # Errors
    /// The data is neither: it looks like JSON and is not.
    pub(super) fn event(&self, id: String, data: &str) -> Result<Event, BadText> {
        let is_json = !self.is_text
            && match json::check(data.as_bytes()) {
                Ok(()) => true,
                Err(error) if is_broken_json(data, &error) => {
                    let error = JsonError::syntax(&error, data);
                    let why = format!("this looks like JSON and is not: {error} (with --text it is published as text)");
                    return Err(BadText { column: error.column(), why });
                }
                Err(_) => false,
            };
        let (content_type, data) = match is_json {
            true => ("application/json", Data::Binary(Bytes::copy_from_slice(data.as_bytes()))),
            false => ("text/plain", Data::Text(data.to_owned())),
        };
        let mut event = Event {
            id,
            source: self.source.clone(),
            r#type: self.r#type.clone(),
            data: Some(data),
            ..Event::default()
        };
        let content_type = Some(content_type.to_owned());
        for (name, value) in
            [("datacontenttype", &content_type), ("subject", &self.subject), ("partitionkey", &self.key)]
        {
            if let Some(value) = value {
                event.attributes.insert(name.to_owned(), Attribute::String(value.clone()));
            }
        }
        let more = self.attributes.iter().cloned();
        event.attributes.extend(more);
        Ok(event)
    }
}

/// The problem with the data of one event, which may have several lines, with its line and column. `None` where it is
/// JSON, or a text that does not look like it.
pub(super) fn bad_data(data: &str) -> Option<String> {
    let error = json::check(data.as_bytes()).err().filter(|error| is_broken_json(data, error))?;
    let line = data.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = line.get(..line.floor_char_boundary(error.column().saturating_sub(1))).unwrap_or_default();
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    let column = before.chars().count() + 1;
    Some(format!(
        "{}:{column}: this looks like JSON and is not: {said}; with --text it is published as text",
        error.line()
    ))
}

/// All of standard input, without the line end behind it: the data of one event.
///
/// # Errors
/// It cannot be read, is no text, or is more than an event may be.
pub(super) fn whole_input() -> Result<String, Failure> {
    let bad = |why: String| Failure::failed(format!("{}: {why}", InputSource::Stdin.label()));
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LINE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| bad(format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 == LINE_BYTES_MAX {
        return Err(bad(format!(
            "it has more than {LINE_BYTES_MAX} bytes, and no event does; --file publishes an event of each line"
        )));
    }
    content(&bytes, 1).map(str::to_owned).map_err(|BadText { why, .. }| bad(why))
}

/// Why a text is no event.
#[derive(Debug)]
pub(super) struct BadText {
    /// Where in its line, in characters from 1, where that is known.
    pub(super) column: Option<usize>,
    pub(super) why: String,
}

impl From<String> for BadText {
    fn from(why: String) -> Self {
        Self { column: None, why }
    }
}

impl From<JsonError> for BadText {
    fn from(error: JsonError) -> Self {
        Self { column: error.column(), why: error.to_string() }
    }
}

/// An id that no other event has: 128 random bits.
pub(super) fn fresh_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// What a line is.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// A CloudEvent in the JSON format.
    CloudEvents,
    /// The data of an event.
    Plain(Template),
}

/// Where lines come from.
#[derive(Debug, Clone)]
pub(super) enum InputSource {
    File(PathBuf),
    Stdin,
}

impl InputSource {
    /// A path, or `-` for standard input.
    pub(super) fn from_argument(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// What messages call it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }

    /// Its size in bytes, where that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len()),
            Self::Stdin => None,
        }
    }

    pub(super) fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        Ok(match self {
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
            Self::Stdin => Box::new(BufReader::new(std::io::stdin())),
        })
    }
}

/// An event of a line.
pub(super) struct ParsedLine {
    pub(super) line: u64,
    pub(super) event: Bytes,
    /// Length of the line.
    pub(super) bytes: u64,
}

/// A line that is no event.
pub(super) struct BadLine {
    pub(super) line: u64,
    pub(super) bad: BadText,
}

/// The text of a line, which is all of it but its end, and a byte order mark before the first one.
fn content(line: &[u8], number: u64) -> Result<&str, BadText> {
    let line = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(line);
    let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(line);
    std::str::from_utf8(line).map_err(|error| {
        let is_utf16 = number == 1 && (line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff"));
        let before = line.get(..error.valid_up_to()).unwrap_or_default();
        let column = Some(String::from_utf8_lossy(before).chars().count() + 1);
        let why = if is_utf16 { "it is UTF-16 and not UTF-8: save it as UTF-8" } else { "it is not UTF-8" };
        BadText { column, why: why.to_owned() }
    })
}

/// Whether JSON has nothing on a line.
fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// Reads lines until their end, or the first bad one, or until the receiver is gone.
pub(super) fn read(mut lines: Box<dyn BufRead + Send>, form: &Form, to: &mpsc::Sender<Result<ParsedLine, BadLine>>) {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let parsed = match lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return,
            Ok(bytes) if bytes as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') => {
                Err(format!("the line is longer than {LINE_BYTES_MAX} bytes, and no event is").into())
            }
            Ok(bytes) => match content(&text, line) {
                Ok(text) if matches!(form, Form::CloudEvents) && is_blank(text) => continue,
                Ok(text) => parse(text, form).map(|event| ParsedLine { line, event, bytes: bytes as u64 }),
                Err(bad) => Err(bad),
            },
            Err(error) => Err(format!("it cannot be read: {error}").into()),
        };
        let is_last = parsed.is_err();
        if to.blocking_send(parsed.map_err(|bad| BadLine { line, bad })).is_err() || is_last {
            return;
        }
    }
}

fn parse(line: &str, form: &Form) -> Result<Bytes, BadText> {
    let event = match form {
        Form::CloudEvents => json::from_json(line)?,
        Form::Plain(template) => template.event(fresh_id(), line)?,
    };
    let encoded = event.encode();
    EventView::accept(&encoded).map_err(|error| error.to_string())?;
    Ok(encoded)
}

/// A line with an event and its topic; what else `tail` says of it is nothing to a publish.
#[derive(Deserialize)]
struct AddressedLine<'t> {
    topic: String,
    #[serde(borrow)]
    event: &'t RawValue,
}

/// All events of a file that has their topics, each with the number of its line.
///
/// # Errors
/// The first line that is no such event, or more lines than one publish may have.
pub(super) fn addressed(source: &InputSource) -> Result<Vec<(u64, AddressedEvent)>, Failure> {
    let bad = |line: u64, bad: BadText| Failure::failed(format!("{}; nothing was published", at(source, line, &bad)));
    let (mut lines, mut all) = (source.open()?, Vec::new());
    for line in 1.. {
        let mut text = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| bad(line, format!("it cannot be read: {error}").into()))? == 0 {
            break;
        }
        let text = content(&text, line).map_err(|error| bad(line, error))?;
        if is_blank(text) {
            continue;
        }
        if all.len() >= limits::PUBLISH_EVENTS_MAX {
            return Err(bad(line, format!("one commit has at most {} events", limits::PUBLISH_EVENTS_MAX).into()));
        }
        let parsed: AddressedLine<'_> = serde_json::from_str(text).map_err(|error| {
            let said = JsonError::syntax(&error, text);
            let why = format!("it is not `{{\"topic\": \"…\", \"event\": {{…}}}}`: {said}");
            bad(line, BadText { column: said.column().filter(|_| !error.is_data()), why })
        })?;
        if parsed.topic.is_empty() {
            return Err(bad(line, "its topic has no name".to_owned().into()));
        }
        let event = parse(parsed.event.get(), &Form::CloudEvents).map_err(|mut error| {
            let before = parsed.event.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
            let characters = text.get(..before).unwrap_or_default().chars().count();
            error.column = error.column.map(|column| column + characters);
            bad(line, error)
        })?;
        all.push((line, AddressedEvent { topic: parsed.topic, event }));
    }
    Ok(all)
}

/// The problem with a line, after its place.
pub(super) fn at(source: &InputSource, line: u64, BadText { column, why }: &BadText) -> String {
    let column = column.map(|column| format!(":{column}")).unwrap_or_default();
    format!("{}:{line}{column}: {why}", source.label())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static [u8], form: &Form) -> Vec<Result<(u64, Event), (u64, BadText)>> {
        let (sender, mut receiver) = mpsc::channel(100);
        read(Box::new(text), form, &sender);
        drop(sender);
        let mut all = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            let event = |event: &Bytes| Event::decode(event).unwrap();
            all.push(line.map(|line| (line.line, event(&line.event))).map_err(|line| (line.line, line.bad)));
        }
        all
    }

    fn lines(text: &'static str, form: &Form) -> Vec<Result<(u64, String), (u64, String)>> {
        let all = events(text.as_bytes(), form).into_iter();
        all.map(|line| line.map(|(line, event)| (line, event.id)).map_err(|(line, bad)| (line, bad.why))).collect()
    }

    fn template() -> Template {
        Template {
            r#type: "t".into(),
            source: "/s".into(),
            subject: None,
            key: Some("k".into()),
            attributes: Vec::new(),
            is_text: false,
        }
    }

    /// The data of plain lines, and whether it is JSON.
    fn plain(text: &'static [u8]) -> Vec<(String, bool)> {
        let data = |event: Event| {
            let is_json = event.attributes["datacontenttype"].to_string() == "application/json";
            (String::from_utf8(event.data.unwrap().as_bytes().to_vec()).unwrap(), is_json)
        };
        events(text, &Form::Plain(template())).into_iter().map(|line| data(line.unwrap().1)).collect()
    }

    #[test]
    fn of_a_plain_line_only_its_end_goes() {
        let text = "  a  \n\n \t \n\u{a0}x\u{a0}\nb\r\n {\"a\":1} \n\r\nlast";
        let expected = ["  a  ", "", " \t ", "\u{a0}x\u{a0}", "b", " {\"a\":1} ", "", "last"];
        let found = plain(text.as_bytes());
        assert_eq!(found.iter().map(|(data, _)| data.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(found.iter().position(|(_, is_json)| *is_json), Some(5));
        assert_eq!(plain(b"a"), plain(b"a\n"));
    }

    #[test]
    fn a_byte_order_mark_is_removed_and_another_encoding_is_named() {
        assert_eq!(plain(b"\xef\xbb\xbf{\"a\":1}\n2\n"), [("{\"a\":1}".to_owned(), true), ("2".to_owned(), true)]);
        let event =
            b"\xef\xbb\xbf{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"/s\",\"type\":\"t\"}\n\xef\xbb\xbf{}";
        let mut found = events(event, &Form::CloudEvents).into_iter();
        assert_eq!(found.next().unwrap().unwrap().1.id, "a");
        assert!(found.next().unwrap().unwrap_err().1.why.contains("byte order mark"));
        for form in [Form::CloudEvents, Form::Plain(template())] {
            for utf16 in [&b"\xff\xfea\0\n\0"[..], b"\xfe\xff\0a\0\n"] {
                assert!(events(utf16, &form)[0].as_ref().unwrap_err().1.why.contains("UTF-16"));
            }
            let (line, bad) =
                events("é\u{a0}".as_bytes(), &form).remove(0).map(|_| ()).err().unwrap_or((0, String::new().into()));
            assert!(line == 0 || bad.column == Some(1), "{bad:?}");
            let bad = events(b"ab\xff", &form).remove(0).unwrap_err().1;
            assert_eq!((bad.column, bad.why.as_str()), (Some(3), "it is not UTF-8"));
        }
    }

    #[test]
    fn what_looks_like_json_and_is_not_is_no_text() {
        for (line, column, says) in [
            (&b"{"[..], 1, "on a line of its own"),
            (b"[\n1\n]\n", 1, "on a line of its own"),
            (b"{\"a\":1},\n", 8, "a comma follows"),
            (b"{\"a\":1} {\"a\":2}\n", 9, "more text follows"),
            (b"[1],\n", 4, "a comma follows"),
            (b"{\"a\":1,}\n", 8, "trailing comma"),
            (b"{a}\n", 2, "key must be a string"),
            (b"{\"s\":\"\\ud800\"}\n", 13, "hex escape"),
            (b"\"unterminated\n", 14, "it ends before the event does"),
            (b"\"C:\\dir\"\n", 5, "--text"),
            (b"1e999\n", 5, "number out of range"),
            (b"-1e999\n", 6, "number out of range"),
        ] {
            let shown = String::from_utf8_lossy(line);
            let bad = events(line, &Form::Plain(template())).remove(0).unwrap_err().1;
            assert!(bad.why.contains(says) && bad.why.contains("--text"), "{shown}: {}", bad.why);
            assert!(bad.column.is_some_and(|found| found.abs_diff(column) <= 1), "{shown}: {bad:?}");
            let text = Template { is_text: true, ..template() };
            assert!(events(line, &Form::Plain(text)).remove(0).is_ok(), "{shown}");
        }
        for text in [&b"[info] started"[..], b"[12] started", b"5 apples", b"\"quoted\" and more", b"}", b"it's \"so\""]
        {
            assert_eq!(plain(text), [(String::from_utf8(text.to_vec()).unwrap(), false)]);
        }
        let number = events(b"5", &Form::Plain(Template { is_text: true, ..template() })).remove(0).unwrap().1;
        assert_eq!(number.attributes["datacontenttype"].to_string(), "text/plain");
    }

    #[test]
    fn what_is_wrong_with_the_data_of_one_event_is_said_with_its_line_and_column() {
        for (data, place) in [
            ("{\"a\":1,}", "1:8:"),
            ("{\n  \"a\": 1\n  \"b\": 2\n}", "3:3:"),
            ("{\n  \"é\": x\n}", "2:8:"),
            ("{\"a\":", "1:"),
            ("[\n  1,\n", "3:1:"),
            ("[1]\n[2]", "2:1:"),
            ("\"unterminated", "1:13:"),
            (" \"a\\q\"", "1:"),
        ] {
            let why = bad_data(data).unwrap();
            assert!(why.starts_with(place) && why.contains("--text"), "{data}: {why}");
        }
        for good in ["{}", "{\n}\n", "[info] started", "[12] a\nb", "5 apples", "", "\"quoted\" and more"] {
            assert_eq!(bad_data(good), None, "{good}");
        }
    }

    #[test]
    fn lines_are_events_up_to_the_first_that_is_none() {
        let text = "\n{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"/s\",\"type\":\"t\"}\n\n{\n{}\n";
        let lines = lines(text, &Form::CloudEvents);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], Ok((2, "a".to_owned())));
        let (line, why) = lines[1].clone().unwrap_err();
        assert_eq!(line, 4);
        assert!(why.contains("not JSON"), "{why}");
    }

    #[test]
    fn plain_lines_are_json_or_text_and_all_different_events() {
        let template = template();
        let json = template.event("1".into(), "{\"a\":1}").unwrap();
        assert_eq!(json.attributes["datacontenttype"], Attribute::String("application/json".into()));
        let text = template.event("1".into(), "a}").unwrap();
        assert_eq!(text.data, Some(Data::Text("a}".into())));
        assert_eq!(text.attributes["partitionkey"], Attribute::String("k".into()));
        let ids: Vec<String> =
            lines("a\na\n", &Form::Plain(template)).into_iter().map(|line| line.unwrap().1).collect();
        assert_ne!(ids[0], ids[1]);
    }
}
