//! Names in error messages.

use crate::limits;

/// The full name (`namespace/name`) closest to a requested name, compared with and without its namespace.
pub(crate) fn nearest<'a>(full_names: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
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
