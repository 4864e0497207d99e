//! Outputs that a component publishes one by one, and not as the result of a call.

/// What an output costs the bus in addition to its bytes, until the call has ended.
const OUTPUT_BYTES: usize = 256;

/// An output for a port, with the key and the content type of its event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublishedOutput {
    /// The index of the event in its call.
    pub(super) event: u32,
    pub(super) port: u32,
    pub(super) attributes: String,
    pub(super) data: Vec<u8>,
}

/// The outputs of a call so far.
pub(super) struct PublishedOutputs {
    outputs: Vec<PublishedOutput>,
    bytes: usize,
    bytes_max: usize,
}

impl PublishedOutputs {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { outputs: Vec::new(), bytes: 0, bytes_max }
    }

    /// Begins a call.
    pub(super) fn clear(&mut self) {
        self.outputs.clear();
        self.bytes = 0;
    }

    /// Adds an output. False if the call would have more than it may.
    pub(super) fn push(&mut self, output: PublishedOutput) -> bool {
        let bytes = output.data.len() + output.attributes.len() + OUTPUT_BYTES;
        self.bytes = self.bytes.saturating_add(bytes);
        let has_room = self.bytes <= self.bytes_max;
        if has_room {
            self.outputs.push(output);
        }
        has_room
    }

    /// The outputs, in order.
    pub(super) fn take(&mut self) -> Vec<PublishedOutput> {
        std::mem::take(&mut self.outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_a_call_is_not_kept_and_each_call_begins_empty() {
        let output = |bytes| PublishedOutput { event: 0, port: 0, attributes: String::new(), data: vec![0; bytes] };
        let mut published = PublishedOutputs::new(2 * OUTPUT_BYTES + 10);
        assert!(published.push(output(5)) && published.push(output(5)));
        assert!(!published.push(output(0)), "its own cost counts");
        assert_eq!(published.take().len(), 2);
        published.clear();
        assert!(published.push(output(10)));
        published.clear();
        assert!(published.take().is_empty() && published.push(output(10)));
    }
}
