//! What a test file says, before names are looked up in a topology: the one list of its keys.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

use crate::model;
use crate::topology::one_or_more::OneOrMore;
use crate::topology::reader::{FromNode, Owner, Reader, choice, keys};
use crate::topology::schema_parts;
use crate::topology::values::{Count, FilePath, List, MS_MAX, Period, Table, Word};
use crate::topology::yaml::{NodeRef, View};

keys! {
    /// Cases for topologies: input events and the expected results of the real plugins.
    struct TestFile {
        /// The topologies that the cases are about: a file, or a list of files. Default: the topology next to it,
        /// `shop.yaml` for `shop.test.yaml`.
        topology: OneOrMore<FilePath>,
        /// The cases, each by itself: nothing of one is left for the next.
        cases(required): List<Case>,
    }
}

keys! {
    /// Input events and expected results. A case runs twice: with one partition for every topic, and with as
    /// many as they have. The same has to come of both.
    struct Case {
        /// Name of the case.
        name(required): Word,
        /// The only subscriber that runs. Default: all of them.
        subscriber: Word,
        /// `1`: the case runs with one partition for every topic only, since its results depend on that.
        partitions: Count<1, 1>,
        /// A file that was saved when an event failed: the case is one attempt at that event, with what its plugin had
        /// read of its state. Plugin, configuration and limits are those of the topology.
        capsule: FilePath,
        /// The time at which the events are appended, unless they say. Default 2026-01-01T00:00:00Z.
        at: Time,
        /// State of the subscribers before the first event: values by subscriber, bucket and key. A text is kept as it
        /// is, all else as JSON.
        state: Table<Table<Table<Json>>>,
        /// The events, in their order.
        events: List<Given>,
        /// Expected results. An event that fails, and is not expected to, fails the case.
        expect(required): Expect,
    }
}

keys! {
    /// An event that is published.
    struct Given {
        /// Where it is published. Default: the only root, or the topic of the case's subscriber.
        topic: Word,
        /// Time of the append; all events before it are handled by then.
        at: Time,
        /// The same, as the time since the previous event.
        after: Period<1, MS_MAX>,
        /// Its id. Default: its place among the events of the case, from 1.
        id: Word,
        /// Its source. Default `/test`.
        source: Word,
        /// Its type. Default `test`.
        kind as "type": Word,
        /// Its ordering key, where the topic's `key` does not say.
        key: Word,
        /// What kind of data it has. Default `application/json`, and `text/plain` for a text.
        content_type: Word,
        /// Further CloudEvents attributes: `subject`, `time`, extensions.
        attributes: Table<Json>,
        /// Its data: a text as it is, all else as JSON. Default: none.
        data: Json,
    }
}

keys! {
    /// Expected results of the events of a case.
    struct Expect {
        /// Content of topics afterwards, by topic, in order per key: all events of each listed topic. `none`: no topic
        /// has anything that a subscriber sent. Of a case with a `subscriber`, topics that are not named are empty.
        /// Without this key no topic is looked at.
        outputs: Outputs,
        /// What the subscribers keep afterwards, by subscriber, bucket and key: all of it in the buckets that are
        /// named.
        state: Table<Table<Table<Json>>>,
        /// The events that are not handled in the end: all of them.
        failures: List<Failure>,
        /// The events that are not even taken in, since the topic's `key`, `schema` or `lifecycle` refuses them: all of
        /// them. Each event is published by itself then.
        refused: List<Refused>,
    }
}

keys! {
    /// An expected output. Missing keys match anything.
    struct Output {
        /// Its CloudEvents type.
        kind as "type": Word,
        /// Its ordering key.
        key: Word,
        /// CloudEvents attributes that it has among others; `null`: it has none of this name.
        attributes: Table<Json>,
        /// All of its data.
        data: Json,
        /// A part of its data: objects may have more keys than are said here.
        has: Json,
    }
}

keys! {
    /// An event that is not handled in the end. Missing keys match anything.
    struct Failure {
        /// Whose failure it is.
        subscriber: Word,
        /// The id of the event.
        event: Word,
        /// What kind of failure it is: `reject`, `retry`, `trap`, `timeout`, `memory`, `stack`, `refused`, `when` and
        /// others.
        kind: Word,
        /// What its reason has in it.
        reason: Word,
        /// How often it was tried.
        attempts: Count<0, { u32::MAX }>,
        /// What became of it.
        end: End,
    }
}

keys! {
    /// An event that is refused. Missing keys match anything.
    struct Refused {
        /// The id of the event.
        event: Word,
        /// What the reason has in it.
        reason: Word,
    }
}

choice! {
    /// What becomes of an event that is not handled.
    enum End {
        /// It is in the topic of its subscriber's dead letters.
        DeadLetter = "dead_letter",
        /// It waits until it is released.
        Parked = "parked",
        /// Its lane stands still.
        Halted = "halted",
    }
}

/// A point in time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) u64);

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema_parts::text(
            r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$",
            &["2026-01-01T12:00:00Z"],
        )
    }
}

impl FromNode for Time {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a time")?;
        match model::Time::parse(&text.text).and_then(model::Time::unix_ns) {
            Some(time_ns) => Some(Time(time_ns)),
            None => {
                let message = format!("`{}` is a time from 1970 to 2554, not `{}`", owner.key, text.text);
                reader.bad(text.span, message, "write a time with its zone, such as 2026-01-01T12:00:00Z")
            }
        }
    }
}

/// Any value, as JSON: the value, and its text with the numbers and the order that it was written with. Variables are
/// not replaced in it: it is data, not a setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Json(pub(crate) serde_json::Value, pub(crate) String);

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

impl FromNode for Json {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut text = String::new();
        json(node, reader, &mut text).map(|value| Json(value, text))
    }
}

/// A value, whose text is written behind `text`.
fn json(node: NodeRef<'_>, reader: &mut Reader<'_>, text: &mut String) -> Option<serde_json::Value> {
    use serde_json::Value;
    let value = match node.view() {
        View::Null => Value::Null,
        View::Scalar(scalar) if scalar.plain => {
            if let Some((value, number)) = number(scalar.text) {
                text.push_str(number);
                return Some(value);
            }
            plain(scalar.text)
        }
        View::Scalar(scalar) => scalar.text.into(),
        View::Sequence(items) => {
            text.push('[');
            let mut values = Vec::new();
            for item in items {
                text.push_str(if values.is_empty() { "" } else { "," });
                values.push(json(item, reader, text)?);
            }
            text.push(']');
            return Some(values.into());
        }
        View::Mapping(_) => {
            text.push('{');
            let mut values = serde_json::Map::new();
            for entry in reader.mapping(node, "a mapping")? {
                text.push_str(if values.is_empty() { "" } else { "," });
                text.push_str(&Value::from(entry.key).to_string());
                text.push(':');
                values.insert(entry.key.to_owned(), json(entry.value, reader, text)?);
            }
            text.push('}');
            return Some(Value::Object(values));
        }
        View::Tagged => return reader.bad(node.span(), "tags (`!name`) mean nothing here", "remove the tag"),
        View::Unknown => return None,
    };
    text.push_str(&value.to_string());
    Some(value)
}

/// A number, and how JSON writes it: as it is written here. JSON's are YAML's, but for a sign or a point in front.
fn number(text: &str) -> Option<(serde_json::Value, &str)> {
    let number = text.strip_prefix('+').unwrap_or(text);
    Some((serde_json::from_str::<serde_json::Number>(number).ok()?.into(), number))
}

/// What a scalar without quotes is by YAML's core schema that is no number.
fn plain(text: &str) -> serde_json::Value {
    match text {
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        text => text.into(),
    }
}

/// Outputs by topic, or the word `none`.
#[derive(Debug, Clone)]
pub(crate) enum Outputs {
    None,
    ByTopic(Table<List<Output>>),
}

impl JsonSchema for Outputs {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let by_topic = generator.subschema_for::<Table<List<Output>>>();
        json_schema!({ "anyOf": [by_topic, { "const": "none", "description": "Nothing is sent." }] })
    }
}

impl FromNode for Outputs {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !matches!(node.view(), View::Scalar(_)) {
            let topics = Table::read(node, owner, reader)?;
            if topics.0.is_empty() {
                let message = "`outputs` names no topic, so that nothing would be looked at";
                return reader.bad(node.span(), message, "write `none` where nothing may be sent, or remove the key");
            }
            return Some(Outputs::ByTopic(topics));
        }
        let text = reader.text(node, "outputs by topic, or `none`")?;
        if text.text == "none" {
            return Some(Outputs::None);
        }
        let message = format!("`outputs` are lists by topic or `none`, not `{}`", text.text);
        reader.bad(text.span, message, "write `none`, or `{ topic: [{ data: … }] }`")
    }
}
