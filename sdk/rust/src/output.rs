//! The events that a handler answers with.

use crate::contract::wattle::plugin::types;

/// One of the plugin's ports, made by [`plugin!`](crate::plugin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(u32);

impl Port {
    #[doc(hidden)]
    pub const fn numbered(index: u32) -> Port {
        Port(index)
    }

    /// The port with this name, for plugins that send to whatever ports the topology connects.
    pub fn named(name: &str) -> Option<Port> {
        let ports = crate::contract::wattle::plugin::context::ports();
        let index = ports.iter().position(|port| port == name)?;
        u32::try_from(index).ok().map(Port)
    }

    /// An event with these bytes.
    pub fn bytes(self, data: impl Into<Vec<u8>>) -> Output {
        Output {
            port: self,
            key: None,
            kind: String::new(),
            content_type: String::new(),
            attributes: String::new(),
            data: data.into(),
        }
    }

    /// An event with this value as JSON.
    ///
    /// # Errors
    /// Rejects the event when the value cannot be JSON, such as a map whose keys are not strings.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> Result<Output, crate::Failure> {
        let data = serde_json::to_vec(value)
            .map_err(|error| crate::Failure::reject(format!("the output cannot be written as JSON: {error}")))?;
        Ok(self.bytes(data).content_type("application/json"))
    }
}

/// One event for a port. Its id, source and time are given by the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// Where it goes.
    pub port: Port,
    /// Its ordering key; none: that of the event it answers.
    pub key: Option<String>,
    /// Its CloudEvents type; "": the name of the port.
    pub kind: String,
    /// The content type of its data; "": that of the event it answers.
    pub content_type: String,
    /// Further attributes, as "name=value\n" lines: [`Output::attribute`] adds one, whatever is in its value.
    pub attributes: String,
    /// Its payload.
    pub data: Vec<u8>,
}

impl Output {
    /// Gives it another ordering key than that of the event it answers. A new key starts a new order.
    pub fn key(mut self, key: impl Into<String>) -> Output {
        self.key = Some(key.into());
        self
    }

    /// Sets its CloudEvents type.
    pub fn kind(mut self, kind: impl Into<String>) -> Output {
        self.kind = kind.into();
        self
    }

    /// Sets the content type of its data.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Output {
        self.content_type = content_type.into();
        self
    }

    /// Adds an attribute: `subject`, `dataschema`, or an extension, whose name is lower-case letters and digits. The
    /// bus rejects the event when it is none of these, or when the value has line ends or other control characters.
    pub fn attribute(mut self, name: &str, value: &str) -> Output {
        // A line end would begin a further attribute, which could be anything, such as `delay`. A zero byte in its
        // place is what the bus refuses, and names.
        self.attributes.extend(name.chars().map(|char| if matches!(char, '\n' | '\r' | '=') { '\0' } else { char }));
        self.attributes.push('=');
        self.attributes.extend(value.chars().map(|char| if matches!(char, '\n' | '\r') { '\0' } else { char }));
        self.attributes.push('\n');
        self
    }

    /// Says which event of the batch it answers.
    pub(crate) fn answering(self, event: u32) -> types::Output {
        types::Output {
            event,
            port: self.port.0,
            key: self.key,
            type_: self.kind,
            content_type: self.content_type,
            attributes: self.attributes,
            data: self.data,
        }
    }
}

/// What a handler answers one event with: any number of outputs, stored in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outputs(pub Vec<Output>);

impl Outputs {
    /// Nothing: the event is done.
    pub const fn none() -> Outputs {
        Outputs(Vec::new())
    }

    /// Adds one more.
    pub fn and(mut self, output: Output) -> Outputs {
        self.0.push(output);
        self
    }
}

impl From<()> for Outputs {
    fn from((): ()) -> Outputs {
        Outputs::none()
    }
}

impl From<Output> for Outputs {
    fn from(output: Output) -> Outputs {
        Outputs(vec![output])
    }
}

impl From<Option<Output>> for Outputs {
    fn from(output: Option<Output>) -> Outputs {
        output.into_iter().collect()
    }
}

impl From<Vec<Output>> for Outputs {
    fn from(outputs: Vec<Output>) -> Outputs {
        Outputs(outputs)
    }
}

impl FromIterator<Output> for Outputs {
    fn from_iter<I: IntoIterator<Item = Output>>(outputs: I) -> Outputs {
        Outputs(outputs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_one_line_whatever_its_value_is() {
        let of = |name, value| Port::numbered(0).bytes("").attribute(name, value).attributes;
        assert_eq!(of("subject", "a b=c"), "subject=a b=c\n");
        for (name, value) in [("subject", "x\ndelay=30d"), ("subject", "x\r\n"), ("a=1\ndelay", "30d"), ("a=b", "c")] {
            let lines = of(name, value);
            assert_eq!(lines.lines().count(), 1, "{lines:?}");
            let (before, after) = lines.split_once('=').unwrap();
            assert!(before.contains('\0') || after.contains('\0'), "{lines:?} is one that the bus refuses");
        }
    }
}
