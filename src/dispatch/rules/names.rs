//! Names of topics and subscribers that callers ask for.

use std::fmt;

use crate::limits;

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    Topic,
    Subscriber,
}

impl fmt::Display for NameKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Topic => "topic",
            Self::Subscriber => "subscriber",
        })
    }
}

/// Why a name does not select one topic or subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is none with this name.
    #[error("there is no {kind} `{name}`{}", suggestion(*kind, nearest.as_deref()))]
    Unknown {
        kind: NameKind,
        /// The requested name, cut to a length fit for a message.
        name: String,
        /// The closest existing name.
        nearest: Option<String>,
    },
    /// A short name that exists in several namespaces.
    #[error("`{name}` is the name of several {kind}s: use one of {}", candidates.join(", "))]
    Ambiguous {
        kind: NameKind,
        /// The requested name.
        name: String,
        /// The full names.
        candidates: Vec<String>,
    },
}

impl NameError {
    /// There is none with this name among these full names.
    pub(crate) fn unknown<'a>(kind: NameKind, name: &str, full_names: impl Iterator<Item = &'a str>) -> Self {
        Self::Unknown { kind, name: shown(name), nearest: nearest(full_names, name) }
    }

    /// A subscriber that is gone although its full name was found before.
    pub(crate) fn gone(subscriber: &str) -> Self {
        Self::unknown(NameKind::Subscriber, subscriber, std::iter::empty())
    }
}

fn suggestion(kind: NameKind, nearest: Option<&str>) -> String {
    match (nearest, kind) {
        (Some(nearest), _) => format!("; did you mean `{nearest}`?"),
        (None, NameKind::Subscriber) => "; `wattle status` lists them".to_owned(),
        (None, NameKind::Topic) => String::new(),
    }
}

/// The full name (`namespace/name`) closest to a requested name, compared with and without its namespace.
fn nearest<'a>(full_names: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    let candidates = full_names.flat_map(|full| [full, full.split_once('/').map_or("", |n| n.1)]);
    // The comparison takes memory and time proportional to both lengths, and the requested one comes from outside.
    let characters = name.chars().count();
    candidates
        .filter(|candidate| candidate.chars().count().abs_diff(characters) <= limits::SUGGESTION_EDITS_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .filter(|(distance, _)| *distance <= limits::SUGGESTION_EDITS_MAX)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// A requested name, cut to a length fit for an error message.
pub(crate) fn shown(name: &str) -> String {
    match name.get(name.floor_char_boundary(limits::NAME_SHOWN_BYTES_MAX)..) {
        None | Some("") => name.to_owned(),
        Some(rest) => format!("{}…", name.strip_suffix(rest).unwrap_or_default()),
    }
}
