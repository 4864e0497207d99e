//! The history of the applied topology.
//!
//! Promises: a caller whose expected revision is outdated is told the changes since then, as far back as the last
//! [`REMEMBERED`] changes since the start.

use std::collections::VecDeque;

/// Number of remembered changes.
const REMEMBERED: usize = 32;

/// The latest changes of the applied topology, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The revision before each change, and the change.
    changes: VecDeque<(String, String)>,
}

impl History {
    /// Adds a change of a revision, as a message.
    pub(crate) fn add(&mut self, revision: String, changed: String) {
        self.changes.push_back((revision, changed));
        if self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
    }

    /// The changes since a revision, as a message.
    pub(crate) fn since(&self, revision: &str) -> String {
        match self.changes.iter().rposition(|(before, _)| before == revision) {
            None => "what has changed since then is not remembered".to_owned(),
            Some(at) => {
                let changed: Vec<_> = self.changes.iter().skip(at).map(|(_, changed)| changed.as_str()).collect();
                format!("since then {}", changed.join("; then "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_between_is_said_as_long_as_it_is_remembered() {
        let mut history = History::default();
        for number in 0..=REMEMBERED {
            history.add(number.to_string(), format!("change {number}"));
        }
        let last = (REMEMBERED - 1).to_string();
        assert_eq!(history.since(&last), format!("since then change {last}; then change {REMEMBERED}"));
        assert_eq!(history.since("0"), "what has changed since then is not remembered");
        history.add("1".into(), "change of what was there again".into());
        assert_eq!(history.since("1"), "since then change of what was there again");
    }
}
