//! Outputs on their way from a handler into a unit: identity, key, partition, lineage; and dead letters.

use std::time::Duration;

use super::batch::Parsed;
use super::keys;
use crate::engine::{SliceFull, Slices};
use crate::limits;
use crate::model::event::{ATTRIBUTE_VALUE_BYTES_MAX, EventWriter};
use crate::model::record::KEY_BYTES_MAX;
use crate::model::{
    EventView, Lineage, OutputIds, PartitionId, Record, SubscriberId, TopicId, VersionId, partition_of,
};
use crate::topology::KeyExpression;
use crate::wasm::Output;

/// A topic that a subscriber writes to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) topic: TopicId,
    pub(super) partitions: u32,
    pub(super) key: Option<KeyExpression>,
}

/// Makes a lane's units.
pub(super) struct Emitter {
    pub(super) subscriber: SubscriberId,
    /// Full name of the subscriber.
    pub(super) name: String,
    /// Full name of the topic that it consumes.
    pub(super) from: String,
    /// `/namespace/subscriber`.
    pub(super) source: String,
    pub(super) partition: u32,
    pub(super) version: VersionId,
    /// Hexadecimal.
    pub(super) digest: String,
    /// By port.
    pub(super) targets: Vec<Target>,
    pub(super) dead_letters: Option<Target>,
    pub(super) ids: OutputIds,
}

/// How far the outputs of a call can be committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// All of them.
    All,
    /// Those of the events in front of this one: the rest is more than a unit may have, and is to be run again.
    UpTo(u32),
    /// Those of the events in front of this one, whose own outputs are refused.
    Refused(u32, String),
}

impl Emitter {
    /// Puts the outputs of the events in front of `handled` into a unit. `events` are the events of the call.
    pub(super) fn emit(&self, events: &[Parsed<'_>], outputs: &[Output]) -> (Slices, Fit) {
        let (bound, fit) = self.check(events, outputs);
        let mut slices = Slices::default();
        let (mut of, mut index) = (None, 0);
        for output in outputs.iter().take_while(|output| output.event < bound) {
            // its position among the outputs of its event
            index = if of == Some(output.event) { index + 1 } else { 0 };
            of = Some(output.event);
            let event = events.get(output.event as usize);
            let target = self.targets.get(output.port as usize);
            if let (Some(event), Some(target)) = (event, target)
                && let Err(reason) = self.put(&mut slices, target, event, output, index)
            {
                // `check` has let it pass, so only a bug gets here; nothing may be committed past it
                return (Slices::default(), Fit::Refused(0, reason));
            }
        }
        (slices, fit)
    }

    /// Finds the first event whose outputs cannot be taken.
    fn check(&self, events: &[Parsed<'_>], outputs: &[Output]) -> (u32, Fit) {
        let mut bytes = 0;
        for output in outputs {
            let event = output.event;
            let Some(input) = events.get(event as usize) else { continue };
            if let Err(reason) = self.check_one(input, output) {
                return (event, Fit::Refused(event, reason));
            }
            // Key, id, source and heads beside what the handler gave; their bounds are small.
            bytes += output.data.len() + output.attributes.len() + 4 * KEY_BYTES_MAX;
            if bytes > limits::UNIT_BYTES_MAX {
                if event > 0 {
                    return (event, Fit::UpTo(event));
                }
                let max = limits::UNIT_BYTES_MAX;
                return (0, Fit::Refused(0, format!("its outputs are more than one unit may have ({max} bytes)")));
            }
        }
        (u32::MAX, Fit::All)
    }

    fn check_one(&self, event: &Parsed<'_>, output: &Output) -> Result<(), String> {
        let size = output.data.len() + output.attributes.len();
        if size > limits::EVENT_BYTES_MAX {
            let max = limits::EVENT_BYTES_MAX;
            return Err(format!("an output of {size} bytes is more than an event may have ({max})"));
        }
        for (what, length, max) in [
            ("key", output.key.as_ref().map_or(0, String::len), KEY_BYTES_MAX),
            ("type", output.r#type.len(), ATTRIBUTE_VALUE_BYTES_MAX),
            ("content type", output.content_type.len(), ATTRIBUTE_VALUE_BYTES_MAX),
        ] {
            if length > max {
                return Err(format!("the {what} of an output is {length} bytes long, at most {max} are accepted"));
            }
        }
        let target =
            self.targets.get(output.port as usize).ok_or_else(|| format!("port {} is not one", output.port))?;
        if output.key.is_none() && target.key.is_some() {
            let mut encoded = Vec::new();
            self.put_event(EventWriter::new(&mut encoded, "0", &self.source, &output.r#type), output);
            self.key(target, event, output, &encoded).map(drop)?;
        }
        Ok(())
    }

    /// What the plugin set, else what the topic's expression says, else the key of the event that it answers.
    fn key(&self, target: &Target, event: &Parsed<'_>, output: &Output, encoded: &[u8]) -> Result<String, String> {
        if let Some(key) = &output.key {
            return Ok(key.clone());
        }
        let Some(expression) = &target.key else { return Ok(event.key.to_owned()) };
        let view = EventView::parse(encoded).map_err(|error| error.to_string())?;
        let key = keys::evaluate(expression, &view, Some(event.key))
            .map_err(|error| format!("the key expression of the topic behind its port gives no key: {error}"))?;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!(
                "the key of an output is {} bytes long, at most {KEY_BYTES_MAX} are accepted",
                key.len()
            ));
        }
        Ok(key)
    }

    fn put(
        &self,
        slices: &mut Slices,
        target: &Target,
        event: &Parsed<'_>,
        output: &Output,
        index: u32,
    ) -> Result<(), String> {
        let id = self.ids.id(event.offset, index);
        let computed;
        let key = match (&output.key, &target.key) {
            (Some(key), _) => key.as_str(),
            (None, None) => event.key,
            (None, Some(_)) => {
                let mut encoded = Vec::new();
                self.put_event(EventWriter::new(&mut encoded, &id, &self.source, &output.r#type), output);
                computed = self.key(target, event, output, &encoded)?;
                computed.as_str()
            }
        };
        let partition = PartitionId { topic: target.topic, partition: partition_of(key, target.partitions) };
        let lineage = Some(self.lineage(event));
        slices
            .push(partition, |out| {
                let writer = Record::start(out, key, lineage, &id, &self.source, &output.r#type)?;
                self.put_event(writer, output);
                Ok(())
            })
            .map_err(|error: SliceFull<crate::model::RecordError>| error.to_string())?;
        Ok(())
    }

    fn put_event(&self, mut writer: EventWriter<'_>, output: &Output) {
        if !output.content_type.is_empty() {
            writer = writer.attribute("datacontenttype", &output.content_type);
        }
        for line in output.attributes.lines() {
            if let Some((name, value)) = line.split_once('=')
                && !value.is_empty()
            {
                writer = writer.attribute(name, value);
            }
        }
        writer.data(&output.data);
    }

    fn lineage(&self, event: &Parsed<'_>) -> Lineage {
        Lineage { subscriber: self.subscriber, partition: self.partition, offset: event.offset, version: self.version }
    }

    /// The dead letter of an event: the event untouched, and behind it why it is here.
    pub(super) fn dead_letter(&self, event: &Parsed<'_>, failure: &LastFailure, attempts: u32) -> Slices {
        let mut slices = Slices::default();
        let Some(target) = &self.dead_letters else { return slices };
        let partition = PartitionId { topic: target.topic, partition: partition_of(event.key, target.partitions) };
        let lineage = Some(self.lineage(event));
        let pushed = slices.push(partition, |out| {
            // the record of the original event, then more fields of the same message
            Record { key: event.key, lineage, event: &[] }.write(out)?;
            let writer = EventWriter::extend(out, event.view.encoded())
                .attribute("wattlesubscriber", &self.name)
                .attribute("wattletopic", &self.from)
                .attribute("wattlepartition", &self.partition.to_string())
                .attribute("wattleoffset", &event.offset.to_string())
                .attribute("wattleattempts", &attempts.to_string())
                .attribute("wattledigest", &self.digest)
                .attribute("wattlefailure", failure.kind)
                .attribute("wattlereason", cut(&failure.reason));
            if let Some(backtrace) = &failure.backtrace {
                writer.attribute("wattlebacktrace", cut(backtrace));
            }
            Ok::<_, crate::model::RecordError>(())
        });
        debug_assert!(pushed.is_ok(), "a key that was stored before fits again");
        slices
    }
}

/// Why an event failed last.
#[derive(Debug, Clone)]
pub(super) struct LastFailure {
    /// `reject`, `retry`, `refused`, or the kind of a call's failure.
    pub(super) kind: &'static str,
    pub(super) reason: String,
    pub(super) backtrace: Option<String>,
    /// Trying again can help.
    pub(super) may_pass: bool,
    /// How long the handler itself asked to wait.
    pub(super) delay: Option<Duration>,
}

/// As much of a text as an attribute may have.
fn cut(text: &str) -> &str {
    // the value's own head is a few bytes
    let end = text.floor_char_boundary((ATTRIBUTE_VALUE_BYTES_MAX - 16).min(text.len()));
    match text.get(..end) {
        Some("") | None => "unknown",
        Some(text) => text,
    }
}
