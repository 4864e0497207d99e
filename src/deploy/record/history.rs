//! What has changed since a topology was looked at.
//!
//! Promises: a caller that applies on top of what was looked at before, and is refused since something else is applied by now, is
//! told what came between, as far back as the last [`REMEMBERED`] changes since the start.

use std::collections::VecDeque;

/// Changes that are remembered.
const REMEMBERED: usize = 32;

/// The latest changes of what is applied, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Each with the revision that was changed.
    changes: VecDeque<(String, String)>,
}

impl History {
    /// A revision is not what is applied any more; what has changed, in words.
    pub(crate) fn add(&mut self, revision: String, changed: String) {
        self.changes.push_back((revision, changed));
        if self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
    }

    /// What has changed since a revision was applied, in words.
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
