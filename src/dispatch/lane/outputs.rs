//! Turns the outputs of a handler into a unit: id, key, partition, lineage; and makes dead letters.

use std::borrow::Cow;
use std::sync::Arc;

use super::batch::ParsedEvent;
use super::failure::{ATTRIBUTE_TEXT_BYTES_MAX, LastFailure, cut};
use crate::dispatch::apart;
use crate::dispatch::rules::guards::{self, TopicGuard};
use crate::dispatch::rules::{delay, keys};
use crate::engine::{SliceFull, Slices};
use crate::limits;
use crate::model::call::Output;
use crate::model::event::{ATTRIBUTE_VALUE_BYTES_MAX, EventWriter, bad_character};
use crate::model::record::KEY_BYTES_MAX;
use crate::model::{
    EventView, Lineage, OutputIds, PartitionId, Record, SubscriberId, TopicId, VersionId, partition_of,
};
use crate::topology::{DataSchema, KeyExpression};

/// A topic that a subscriber writes to.
#[derive(Clone)]
pub(crate) struct OutputTopic {
    pub(crate) topic: TopicId,
    pub(crate) partitions: u32,
    pub(crate) key: Option<KeyExpression>,
    /// The hidden topic of delayed events.
    pub(crate) delayed: Option<TopicId>,
    pub(crate) guard: Option<TopicGuard>,
    pub(crate) schema: Option<DataSchema>,
}

impl OutputTopic {
    /// Whether checking an output may take much longer than parsing it.
    fn takes_long(&self) -> bool {
        let state = self.guard.as_ref().map(|guard| &guard.plan.state);
        self.key.iter().chain(state).any(KeyExpression::takes_long)
            || self.schema.as_ref().is_some_and(DataSchema::takes_long)
    }
}

/// Makes a lane's units.
pub(crate) struct Emitter {
    pub(crate) subscriber: SubscriberId,
    /// Full name of the subscriber.
    pub(crate) name: String,
    /// Full name of the topic that it consumes.
    pub(crate) from: String,
    pub(crate) source: String,
    pub(crate) partition: u32,
    pub(crate) version: VersionId,
    pub(crate) digest: String,
    /// By port.
    pub(crate) targets: Vec<OutputTopic>,
    pub(crate) dead_letters: Option<OutputTopic>,
    pub(crate) ids: OutputIds,
    /// The subscriber's original name, from which ids derive; renames do not change it.
    pub(crate) origin: Arc<str>,
}

/// How far the outputs of a call can be committed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// All of them.
    All,
    /// Those of the events before this one: the rest exceeds a unit, and is run again.
    UpTo(u32),
    /// Those of the events before this one, whose own outputs are refused.
    Refused(u32, String),
}

/// Why not all outputs of an answer are taken.
struct OutputStop {
    /// The first event whose outputs are not taken.
    at: u32,
    fit: Fit,
}

/// The first attribute that a failure adds; everything before it is the original event.
pub(crate) const FIRST_OF_FAILURE: &str = "wattlesubscriber";
/// Size of an output's record in addition to its texts: lengths, lineage, field headers, its id.
const RECORD_HEAD_BYTES: usize = 128;
/// Size of an attribute in addition to its name and value: headers of the entry, the name, the value and its text.
const ATTRIBUTE_HEAD_BYTES: usize = 24;
const _: () = assert!(ATTRIBUTE_VALUE_BYTES_MAX <= 1 << 14, "a head is a tag and a length of two bytes");

impl Emitter {
    /// Puts outputs of an answer into a unit, as far as they fit. `events` are the events of the call, `first` is
    /// the first one of the unit.
    pub(crate) fn emit(&self, events: &[ParsedEvent<'_>], first: u32, outputs: &[Output]) -> (Slices, Fit) {
        match self.emit_all(events, first, outputs) {
            Ok(slices) => (slices, Fit::All),
            // Nothing can be removed from a unit, so it is built again; this is rare.
            Err(OutputStop { at, fit }) => {
                let end = outputs.partition_point(|output| output.event < at);
                match self.emit_all(events, first, outputs.get(..end).unwrap_or_default()) {
                    Ok(slices) => (slices, fit),
                    // they were checked before, so this is a bug; nothing may be committed beyond it
                    Err(OutputStop { fit, .. }) => (Slices::default(), fit),
                }
            }
        }
    }

    fn emit_all(&self, events: &[ParsedEvent<'_>], first: u32, outputs: &[Output]) -> Result<Slices, OutputStop> {
        let takes_long = !outputs.is_empty() && self.targets.iter().any(OutputTopic::takes_long);
        apart::run(takes_long, || self.put_all(events, first, outputs))
    }

    fn put_all(&self, events: &[ParsedEvent<'_>], first: u32, outputs: &[Output]) -> Result<Slices, OutputStop> {
        let room = outputs.iter().map(|output| self.expected_bytes(output)).sum();
        // outputs mostly keep their key, and so their partition: one slice per port
        let mut slices = Slices::with_room(room, self.targets.len().min(outputs.len()));
        let (mut of, mut index, mut bytes) = (None, 0, 0);
        for output in outputs {
            let Some(event) = events.get(output.event as usize) else { continue };
            // its index among the outputs of its event
            index = if of == Some(output.event) { index + 1 } else { 0 };
            of = Some(output.event);
            let at = output.event;
            match self.put(&mut slices, event, output, index) {
                Ok(size) => bytes += size,
                Err(reason) => return Err(OutputStop { at, fit: Fit::Refused(at, reason) }),
            }
            if bytes > limits::UNIT_BYTES_MAX {
                let max = limits::UNIT_BYTES_MAX;
                let fit = if at == first {
                    Fit::Refused(at, format!("its outputs are more than one unit may have ({max} bytes)"))
                } else {
                    Fit::UpTo(at)
                };
                return Err(OutputStop { at, fit });
            }
        }
        Ok(slices)
    }

    /// Approximate size of an output in a unit.
    fn expected_bytes(&self, output: &Output) -> usize {
        let texts = output.r#type.len() + output.content_type.len() + output.attributes.len();
        RECORD_HEAD_BYTES + self.source.len() + texts + output.data.len()
    }

    /// Adds an output to a unit, unless it is refused. Returns an upper bound of its size there.
    fn put(&self, slices: &mut Slices, event: &ParsedEvent<'_>, output: &Output, index: u32) -> Result<usize, String> {
        let target =
            self.targets.get(output.port as usize).ok_or_else(|| format!("port {} is not one", output.port))?;
        let mut size = RECORD_HEAD_BYTES + self.source.len() + output.data.len();
        let texts = [("type", output.r#type.as_str()), ("content type", &output.content_type)];
        for (name, value) in texts.into_iter().chain(attributes(output)) {
            if value.len() > ATTRIBUTE_TEXT_BYTES_MAX {
                let length = value.len();
                return Err(format!(
                    "the {name} of an output is {length} bytes long, at most {ATTRIBUTE_TEXT_BYTES_MAX} are accepted"
                ));
            }
            size += ATTRIBUTE_HEAD_BYTES + name.len() + value.len();
        }
        if size > limits::EVENT_BYTES_MAX {
            let max = limits::EVENT_BYTES_MAX;
            return Err(format!("an output of {size} bytes is more than an event may have ({max})"));
        }
        if let Some(schema) = &target.schema {
            let content_type = Some(output.content_type.as_str()).filter(|content_type| !content_type.is_empty());
            schema.check(Some(&output.data), content_type).map_err(|misfit| {
                format!("the data of an output does not fit the schema of the topic behind its port: {misfit}")
            })?;
        }
        let id = self.ids.id(event.offset, index);
        let key = self.key(target, event, output, &id)?;
        if key.is_empty() {
            return Err("the key of an output is empty: leave it out to inherit that of the event".to_owned());
        }
        if key.len() > KEY_BYTES_MAX {
            let length = key.len();
            return Err(format!("the key of an output is {length} bytes long, at most {KEY_BYTES_MAX} are accepted"));
        }
        // the event's own key was checked when it was published
        if let Some(what) = if matches!(key, Cow::Owned(_)) { bad_character(&key) } else { None } {
            return Err(format!("the key of an output is {what}"));
        }
        let is_delayed =
            delay::is_delayed(attributes(output), event.append_time_ns).map_err(|error| error.to_string())?;
        let guard = match &target.guard {
            Some(guard) => Some((
                guard,
                self.encoded(output, &id, |view| {
                    guards::state_of(&guard.plan, view, Some(&key)).map_err(|error| error.to_string())
                })?,
            )),
            None => None,
        };
        let partition = match target.delayed {
            Some(delayed) if is_delayed => PartitionId { topic: delayed, partition: 0 },
            _ => PartitionId { topic: target.topic, partition: partition_of(&key, target.partitions) },
        };
        let lineage = Some(self.lineage(event));
        let (slice, _) = slices
            .push(partition, |out| {
                put_event(Record::start(out, &key, lineage, &id, &self.source, &output.r#type)?, output);
                Ok(())
            })
            .map_err(|error: SliceFull<crate::model::RecordError>| error.to_string())?;
        if let Some((guard, state)) = guard.filter(|_| !is_delayed) {
            slices.guard_last(slice, guard.of(partition.partition, &key, state, output.event));
        }
        Ok(size + key.len())
    }

    /// The key that the plugin set, or the topic's expression yields, or else the key of the input event.
    fn key<'a>(
        &self,
        target: &OutputTopic,
        event: &ParsedEvent<'a>,
        output: &'a Output,
        id: &str,
    ) -> Result<Cow<'a, str>, String> {
        match (&output.key, &target.key) {
            (Some(key), _) => Ok(Cow::Borrowed(key)),
            (None, None) => Ok(Cow::Borrowed(event.key)),
            (None, Some(expression)) => {
                let key = self.encoded(output, id, |view| keys::evaluate(expression, view, Some(event.key)));
                key.map(Cow::Owned)
                    .map_err(|error| format!("the key expression of the topic behind its port gives no key: {error}"))
            }
        }
    }

    /// Calls `see` with an output in its stored form.
    fn encoded<T>(
        &self,
        output: &Output,
        id: &str,
        look: impl FnOnce(&EventView<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut encoded = Vec::new();
        put_event(EventWriter::new(&mut encoded, id, &self.source, &output.r#type), output);
        look(&EventView::parse(&encoded).map_err(|error| error.to_string())?)
    }

    fn lineage(&self, event: &ParsedEvent<'_>) -> Lineage {
        Lineage { subscriber: self.subscriber, partition: self.partition, offset: event.offset, version: self.version }
    }

    /// The dead letter of an event that failed at `failed_ns`: the original event, followed by attributes with the
    /// failure. For a redriven dead
    /// letter the new failure replaces the earlier one; `wattletopic` and `wattleoffset` say where the earlier one was,
    /// whose attributes come with it when it is handled.
    pub(crate) fn dead_letter(
        &self,
        event: &ParsedEvent<'_>,
        failure: &LastFailure,
        attempts: u32,
        failed_ns: u64,
    ) -> Slices {
        let mut slices = Slices::default();
        let Some(target) = &self.dead_letters else { return slices };
        let partition = PartitionId { topic: target.topic, partition: partition_of(event.key, target.partitions) };
        let lineage = Some(self.lineage(event));
        let pushed = slices.push(partition, |out| {
            // the record of the original event, then more fields of the same message
            Record { key: event.key, lineage, event: &[] }.write(out)?;
            let encoded = event.view.encoded();
            let (original, former) = event.view.split_failure(FIRST_OF_FAILURE).unwrap_or((encoded, &[]));
            let mut writer = EventWriter::extend(out, original)
                .attribute(FIRST_OF_FAILURE, &self.name)
                .attribute("wattletopic", &self.from)
                .attribute("wattlepartition", &self.partition.to_string())
                .attribute("wattleoffset", &event.offset.to_string())
                .attribute("wattleappended", &event.append_time_ns.to_string())
                .attribute("wattlefailed", &failed_ns.to_string())
                .attribute("wattleattempts", &attempts.to_string())
                .attribute("wattledigest", &self.digest)
                .attribute("wattlefailure", failure.kind)
                .attribute("wattlereason", &cut(&failure.reason));
            if let Some(backtrace) = &failure.backtrace {
                writer = writer.attribute("wattlebacktrace", &cut(backtrace));
            }
            if !former.is_empty() {
                writer.former_failure(former);
            }
            Ok::<_, crate::model::RecordError>(())
        });
        debug_assert!(pushed.is_ok(), "a key that was stored before fits again");
        slices
    }
}

/// The additional attributes of an output, without those that have no value.
fn attributes(output: &Output) -> impl Iterator<Item = (&str, &str)> {
    output.attributes.split('\n').filter_map(|line| line.split_once('=')).filter(|(_, value)| !value.is_empty())
}

fn put_event(mut writer: EventWriter<'_>, output: &Output) {
    if !output.content_type.is_empty() {
        writer = writer.attribute("datacontenttype", &output.content_type);
    }
    for (name, value) in attributes(output) {
        writer = writer.attribute(name, value);
    }
    writer.data(&output.data);
}
