//! Names as refusals show them.

use crate::limits;

/// Of full names (`namespace/name`), the one that is nearest to a name that was asked for, with its namespace or without.
pub(crate) fn nearest<'a>(full_names: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    let candidates = full_names.flat_map(|full| [full, full.split_once('/').map_or("", |n| n.1)]);
    // To compare takes memory and time by both lengths, and a stranger chose the one.
    let characters = name.chars().count();
    candidates
        .filter(|candidate| candidate.chars().count().abs_diff(characters) <= limits::SUGGESTION_EDITS_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .filter(|(distance, _)| *distance <= limits::SUGGESTION_EDITS_MAX)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// As much of a name as anybody wants to be told again.
pub(crate) fn shown(name: &str) -> String {
    match name.get(name.floor_char_boundary(limits::NAME_SHOWN_BYTES_MAX)..) {
        None | Some("") => name.to_owned(),
        Some(rest) => format!("{}…", name.strip_suffix(rest).unwrap_or_default()),
    }
}
