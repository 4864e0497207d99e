//! The conformance probe in Rust, the reference for those of other languages: [`sdk/probe/README.md`] says what each
//! verb does. The type of an event is the verb.
//!
//! [`sdk/probe/README.md`]: ../../../sdk/probe/README.md

mod failures;
mod keys;
mod world;

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, Outputs, Port, config, plugin, state_version};

plugin!(handle, ports: { OUT = "out", OTHER = "other" });
state_version!(3);

config! {
    /// What the probe shows of its configuration.
    struct Settings {
        /// A text.
        word: String = "hello",
        /// A whole number.
        times: u32 = 3,
        /// A number.
        ratio: f64 = 0.5,
        /// A switch.
        loud: bool = false,
        /// A text that may be missing.
        end: Option<String>,
    }
}

#[derive(Deserialize, Serialize)]
struct Shape {
    text: String,
    integer: i64,
    unsigned: u64,
    real: f64,
    flag: bool,
    list: Vec<i64>,
    nested: Nested,
    maybe: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Nested {
    name: String,
}

#[derive(Deserialize)]
struct Message {
    port: String,
    data: String,
    key: Option<String>,
    r#type: Option<String>,
    content_type: Option<String>,
    subject: Option<String>,
}

#[derive(Deserialize)]
struct Attribute {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Count {
    count: u32,
}

#[derive(Serialize)]
struct Envelope<'a> {
    topic: &'a str,
    partition: u32,
    key: &'a str,
    r#type: &'a str,
    content_type: &'a str,
    time_ns: String,
    attempt: u32,
}

#[derive(Serialize)]
struct Shown<'a> {
    word: &'a str,
    times: u32,
    ratio: f64,
    loud: bool,
    end: Option<&'a str>,
}

fn handle(event: Event) -> Result<Outputs, Failure> {
    if let Some(answer) = keys::handle(&event).or_else(|| failures::handle(&event)).or_else(|| world::handle(&event)) {
        return Ok(answer?.into());
    }
    let outputs = match verb(&event) {
        "echo" => OUT.bytes(event.data).kind(event.kind).into(),
        "length" => text(&event, event.text()?.chars().count()).into(),
        "json" => json(&event, &event.json::<Shape>()?)?.into(),
        "send" => send(&event.json()?).into(),
        "attribute" => {
            let Attribute { name, value } = event.json()?;
            OUT.bytes("").kind(event.kind).attribute(&name, &value).into()
        }
        "many" => {
            let Count { count } = event.json()?;
            let port = |number| if number % 2 == 0 { OUT } else { OTHER };
            (0..count).map(|number| Output { port: port(number), ..text(&event, number) }).collect()
        }
        "nothing" => Outputs::none(),
        "event" => json(&event, &envelope(&event))?.into(),
        "attributes" => {
            let lines: Vec<_> = event.attributes().iter().map(|(name, value)| format!("{name}={value}")).collect();
            text(&event, lines.join("\n")).into()
        }
        "config" => {
            let Settings { word, times, ratio, loud, end } = Settings::get()?;
            json(&event, &Shown { word, times: *times, ratio: *ratio, loud: *loud, end: end.as_deref() })?.into()
        }
        "setting" => text(&event, config(event.text()?).unwrap_or_else(|| "none".to_owned())).into(),
        verb => return Err(Failure::reject(format!("no verb {verb}"))),
    };
    Ok(outputs)
}

/// The type of the event without `probe.`.
fn verb<'a>(event: &Event<'a>) -> &'a str {
    event.kind.strip_prefix("probe.").unwrap_or(event.kind)
}

fn text(event: &Event, text: impl ToString) -> Output {
    OUT.bytes(text.to_string()).kind(event.kind).content_type("text/plain")
}

fn json(event: &Event, value: &impl Serialize) -> Result<Output, Failure> {
    Ok(OUT.json(value)?.kind(event.kind))
}

fn envelope<'a>(event: &Event<'a>) -> Envelope<'a> {
    Envelope {
        topic: event.topic,
        partition: event.partition,
        key: event.key,
        r#type: event.kind,
        content_type: event.content_type,
        time_ns: event.time_ns.to_string(),
        attempt: event.attempt,
    }
}

fn send(message: &Message) -> Output {
    let port = Port::named(&message.port).unwrap_or_else(|| panic!("there is no port {:?}", message.port));
    let mut output = port.bytes(message.data.as_bytes());
    output.key = message.key.clone();
    output.kind = message.r#type.clone().unwrap_or_default();
    output.content_type = message.content_type.clone().unwrap_or_default();
    match &message.subject {
        Some(subject) => output.attribute("subject", subject),
        None => output,
    }
}
