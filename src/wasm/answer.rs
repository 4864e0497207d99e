//! Checks the answers of plugins, so that the rest of the bus can rely on them.
//!
//! An error in one output is a failure of its event, as if the plugin had rejected it: the events before it stay
//! handled. An error that makes the whole answer unreliable (wrong order, unknown event) is an error of the call, and
//! blames an event only if that is certain.

use std::collections::BTreeSet;
use std::time::Duration;

use super::contract::wattle::plugin::types;
use super::limits::OUTPUTS_PER_EVENT_MAX;
use super::logs::cut;
use crate::model::EventError;
use crate::model::call::{Action, CallError, CallErrorKind, Failure, Handled, Output, StateWrite};
use crate::model::event::{bad_character, check_text};

/// The requirements for an answer.
pub(super) struct Terms<'a> {
    /// The number of events in the call.
    pub(super) events: usize,
    /// The batch's content type.
    pub(super) content_type: &'a str,
    /// The ports, in the plugin's order.
    pub(super) ports: &'a [String],
    /// For each of them, its index in the caller's order.
    pub(super) port_order: &'a [u32],
    /// The limit of one event's outputs.
    pub(super) output_bytes: u64,
}

/// Attributes that are fields of an output, or set only by the bus.
const RESERVED_ATTRIBUTES: [&str; 8] =
    ["id", "source", "specversion", "type", "time", "datacontenttype", "partitionkey", "data"];

/// CloudEvents: "SHOULD NOT exceed 20 characters"; here it is a rule, so that any engine can carry them.
const ATTRIBUTE_NAME_CHARACTERS_MAX: usize = 20;

/// An answer as far as it was checked: what the plugin wrote to the state is not in it.
#[derive(Debug)]
pub(super) struct PluginAnswer {
    /// Of events before the failed one.
    pub(super) outputs: Vec<Output>,
    pub(super) failed: Option<Failure>,
}

impl PluginAnswer {
    /// As an answer of any handler: a verdict for each of the events.
    pub(super) fn handled(self, events: usize, writes: Vec<StateWrite>) -> Handled {
        Handled { outputs: self.outputs, writes, ..Handled::in_order(events, self.failed) }
    }
}

impl Terms<'_> {
    pub(super) fn check(&self, answer: types::Handled) -> Result<PluginAnswer, CallError> {
        let mut failed = answer.failed.map(|failure| self.failure(failure)).transpose()?;
        // Events from here on have no outputs.
        let end = failed.as_ref().map(|failure| failure.event);

        let mut outputs = Vec::with_capacity(answer.outputs.len());
        let mut event = None;
        let mut event_start = 0;
        let mut event_bytes = 0_u64;
        for output in answer.outputs {
            let index = output.event;
            if usize::try_from(index).map_or(true, |index| index >= self.events) {
                return Err(broken(self.lonely(), format!("an output answers event {index} of {}", self.events)));
            }
            if event.is_some_and(|before| index < before) {
                let before = event.unwrap_or_default();
                let words = format!("an output for event {index} comes after one for event {before}");
                return Err(broken(self.lonely(), words));
            }
            if let Some(end) = end.filter(|end| index >= *end) {
                let words =
                    format!("an output answers event {index}, although the plugin says that event {end} failed");
                return Err(broken(Some(end), words));
            }
            if event != Some(index) {
                event = Some(index);
                event_start = outputs.len();
                event_bytes = 0;
            }
            event_bytes = event_bytes.saturating_add(weight(&output));
            if event_bytes > self.output_bytes {
                let message =
                    format!("its outputs have more than {} bytes, which is the limit for one event", self.output_bytes);
                return Err(CallError {
                    event: Some(index),
                    kind: CallErrorKind::OutputTooLarge,
                    message,
                    backtrace: None,
                });
            }
            if outputs.len() - event_start >= OUTPUTS_PER_EVENT_MAX {
                let message =
                    format!("it has more than {OUTPUTS_PER_EVENT_MAX} outputs, which is the limit for one event");
                return Err(CallError {
                    event: Some(index),
                    kind: CallErrorKind::OutputTooLarge,
                    message,
                    backtrace: None,
                });
            }
            match self.output(output) {
                Ok(output) => outputs.push(output),
                Err(reason) => {
                    outputs.truncate(event_start);
                    failed = Some(Failure { event: index, action: Action::Reject, reason });
                    break;
                }
            }
        }
        Ok(PluginAnswer { outputs, failed })
    }

    /// The event of a call with a single event, which every error concerns.
    fn lonely(&self) -> Option<u32> {
        (self.events == 1).then_some(0)
    }

    fn failure(&self, failure: types::Failure) -> Result<Failure, CallError> {
        let types::Failure { event, action, reason } = failure;
        if usize::try_from(event).map_or(true, |event| event >= self.events) {
            let words = format!("the plugin says that event {event} of {} failed", self.events);
            return Err(broken(self.lonely(), words));
        }
        let action = match action {
            types::Action::Retry(after_ms) => Action::Retry(after_ms.map(Duration::from_millis)),
            types::Action::Reject => Action::Reject,
        };
        Ok(Failure { event, action, reason: cut(&reason).into_owned() })
    }

    /// Converts one output; the error describes the problem.
    fn output(&self, output: types::Output) -> Result<Output, String> {
        let types::Output { event, port, key, type_, content_type, attributes, data } = output;
        let place = usize::try_from(port).ok();
        let name = place.and_then(|place| self.ports.get(place));
        let order = place.and_then(|place| self.port_order.get(place));
        let (Some(name), Some(order)) = (name, order) else {
            return Err(self.no_such_port(port));
        };
        if let Some(wrong) = wrong_attributes(&attributes) {
            return Err(format!("an output for port `{name}` has an attribute that cannot be: {wrong}"));
        }
        for (what, text) in
            [("key", key.as_deref().unwrap_or_default()), ("type", &type_), ("content type", &content_type)]
        {
            if let Some(wrong) = bad_character(text) {
                return Err(format!("the {what} of an output for port `{name}` is {wrong}"));
            }
        }
        Ok(Output {
            event,
            port: *order,
            key,
            r#type: if type_.is_empty() { name.clone() } else { type_ },
            content_type: if content_type.is_empty() { self.content_type.to_owned() } else { content_type },
            attributes,
            data,
        })
    }

    fn no_such_port(&self, port: u32) -> String {
        if self.ports.is_empty() {
            return format!("an output is for port {port}, but the topology connects no port of this subscriber");
        }
        let ports = self.ports.iter().zip(0..).map(|(name, number)| format!("{number} `{name}`"));
        let ports = ports.collect::<Vec<_>>().join(", ");
        format!("an output is for port {port}, but the topology connects only {ports}")
    }
}

fn broken(event: Option<u32>, words: String) -> CallError {
    let message = format!("it broke the contract: {words}");
    CallError { event, kind: CallErrorKind::Protocol, message, backtrace: None }
}

fn weight(output: &types::Output) -> u64 {
    let key = output.key.as_ref().map_or(0, String::len);
    let rest = output.type_.len() + output.content_type.len() + output.attributes.len() + output.data.len();
    (key + rest) as u64
}

/// The first problem in the lines of attributes.
fn wrong_attributes(lines: &str) -> Option<String> {
    let mut names = BTreeSet::new();
    lines.split_terminator('\n').find_map(|line| {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        wrong_attribute(line).or_else(|| (!names.insert(name)).then(|| EventError::Twice(name.to_owned()).to_string()))
    })
}

/// The problem with a line of attributes.
fn wrong_attribute(line: &str) -> Option<String> {
    let Some((name, value)) = line.split_once('=') else {
        return Some(format!("{:?} is not like \"name=value\"", cut(line)));
    };
    if RESERVED_ATTRIBUTES.contains(&name) {
        return Some(format!("`{name}` is not the plugin's to give: it is a field of the output, or the bus's"));
    }
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > ATTRIBUTE_NAME_CHARACTERS_MAX || !name.bytes().all(allowed) {
        let most = ATTRIBUTE_NAME_CHARACTERS_MAX;
        return Some(format!("the name {:?} is not 1 to {most} lower-case letters and digits", cut(name)));
    }
    // an empty value is dropped
    (!value.is_empty()).then(|| check_text(name, value).err()).flatten().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms<'a>(events: usize, ports: &'a [String]) -> Terms<'a> {
        Terms { events, content_type: "text/plain", ports, port_order: &[1, 0], output_bytes: 100 }
    }

    fn ports() -> [String; 2] {
        ["left".to_owned(), "right".to_owned()]
    }

    fn output(event: u32, port: u32, data: &str) -> types::Output {
        types::Output {
            event,
            port,
            key: None,
            type_: String::new(),
            content_type: String::new(),
            attributes: String::new(),
            data: data.into(),
        }
    }

    fn answer(outputs: Vec<types::Output>, failed: Option<u32>) -> types::Handled {
        let failed =
            failed.map(|event| types::Failure { event, action: types::Action::Reject, reason: "no".to_owned() });
        types::Handled { outputs, failed }
    }

    #[test]
    fn what_the_plugin_leaves_open_is_filled_in_and_ports_are_the_callers() {
        let handled = terms(2, &ports()).check(answer(vec![output(1, 0, "x")], None)).unwrap();
        let [output] = handled.outputs.as_slice() else { panic!("{handled:?}") };
        assert_eq!((output.event, output.port), (1, 1));
        assert_eq!((output.r#type.as_str(), output.content_type.as_str()), ("left", "text/plain"));
    }

    #[test]
    fn a_port_that_is_not_there_fails_its_event_and_keeps_those_before() {
        let outputs = vec![output(0, 0, "a"), output(1, 0, "b"), output(1, 7, "c"), output(2, 0, "d")];
        let handled = terms(3, &ports()).check(answer(outputs, None)).unwrap();
        assert_eq!(handled.outputs.len(), 1);
        let failed = handled.failed.unwrap();
        assert_eq!((failed.event, failed.action), (1, Action::Reject));
        assert_eq!(failed.reason, "an output is for port 7, but the topology connects only 0 `left`, 1 `right`");
    }

    #[test]
    fn an_earlier_bad_output_comes_before_a_later_failure() {
        let handled = terms(3, &ports()).check(answer(vec![output(0, 9, "a")], Some(2))).unwrap();
        assert_eq!(handled.failed.unwrap().event, 0);
    }

    #[test]
    fn answers_out_of_order_or_out_of_range_are_not_believed() {
        let ports = ports();
        let error = |events, outputs, failed| terms(events, &ports).check(answer(outputs, failed)).unwrap_err();
        let disorder = error(3, vec![output(2, 0, ""), output(1, 0, "")], None);
        assert_eq!((disorder.kind, disorder.event), (CallErrorKind::Protocol, None));
        assert_eq!(error(1, vec![output(1, 0, "")], None).event, Some(0));
        assert_eq!(error(3, vec![], Some(3)).event, None);
        let late = error(3, vec![output(1, 0, "")], Some(1));
        assert_eq!((late.kind, late.event), (CallErrorKind::Protocol, Some(1)));
    }

    #[test]
    fn an_event_that_sends_too_much_is_named() {
        let half = "x".repeat(60);
        let fits = vec![output(0, 0, &half), output(1, 0, &half)];
        assert_eq!(terms(2, &ports()).check(answer(fits, None)).unwrap().outputs.len(), 2);
        let error = terms(2, &ports()).check(answer(vec![output(1, 0, &half), output(1, 0, &half)], None)).unwrap_err();
        assert_eq!((error.kind, error.event), (CallErrorKind::OutputTooLarge, Some(1)));
    }

    #[test]
    fn attributes_are_those_of_cloudevents() {
        for good in ["subject=a b", "traceparent=00-1", "x1=", "dataschema=http://x?y=z"] {
            assert_eq!(wrong_attribute(good), None, "{good}");
        }
        for bad in
            ["", "subject", "Subject=x", "a_b=1", "id=1", "type=x", "=x", "subject=a\u{7}", "abcdefghijklmnopqrstu=1"]
        {
            assert!(wrong_attribute(bad).is_some(), "{bad:?}");
        }
        for (lines, says) in [
            ("a=1\nb=2\na=3\n", "`a` is there more than once"),
            ("wattlereason=forged\n", "`wattlereason` is reserved"),
            ("a=1\r\n", "the control character U+000D at position 2"),
            ("a=\u{fdd0}\n", "the noncharacter U+FDD0"),
            ("dataschema=5\n", "attribute `dataschema` is not an absolute URI"),
            ("a=1\n\n", "is not like"),
        ] {
            let wrong = wrong_attributes(lines).unwrap();
            assert!(wrong.contains(says), "{lines:?}: {wrong}");
        }
        for lines in ["", "a=1", "a=1\nb=2\n", "a=\ndelay=1h\n"] {
            assert_eq!(wrong_attributes(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn texts_of_an_output_are_those_of_cloudevents() {
        let ports = ports();
        for (change, says) in [
            (
                (|output| output.key = Some("a\nb".to_owned())) as fn(&mut types::Output),
                "the key of an output for port `left`",
            ),
            (|output| output.type_ = "\u{7f}".to_owned(), "the type of an output"),
            (|output| output.content_type = "\u{ffff}".to_owned(), "the content type of an output"),
        ] {
            let mut bad = output(0, 0, "x");
            change(&mut bad);
            let failed = terms(1, &ports).check(answer(vec![bad], None)).unwrap().failed.unwrap();
            assert!(failed.reason.contains(says) && failed.reason.contains("character U+"), "{}", failed.reason);
        }
    }
}
