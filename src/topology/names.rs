//! Names of namespaces, topics, subscribers and ports, and the nearest name to a mistyped one.
//!
//! A name starts with `a-z` or a digit, continues with those and `.`, `_`, `-`, and has at most 120 bytes: it goes into
//! URLs, file names, metric labels and other message systems unchanged.

use super::bounds::{DEAD_LETTERS_SUFFIX, NAME_BYTES_MAX, SUGGESTION_EDITS_MAX};

/// Why a text is not a name, and what to do.
pub(crate) fn problem(name: &str) -> Option<(String, String)> {
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-".contains(char);
    if name.len() > NAME_BYTES_MAX {
        let message = format!("this name has {} bytes, at most {NAME_BYTES_MAX} are possible", name.len());
        return Some((message, "shorten it".into()));
    }
    let message = match name.chars().find(|char| !allowed(*char)) {
        Some(' ') => "a name cannot have spaces".to_owned(),
        Some(char) => format!("a name cannot have `{}`", char.escape_debug()),
        None if name.is_empty() => "this name is empty".to_owned(),
        None if !name.starts_with(|char: char| char.is_ascii_alphanumeric()) => {
            "a name starts with a letter or a digit".to_owned()
        }
        None => return None,
    };
    let rule = "names have lower-case letters, digits, `.`, `_` and `-`";
    let help = match better(name) {
        Some(better) => format!("{rule}; for example `{better}`"),
        None => rule.to_owned(),
    };
    Some((message, help))
}

/// The name that a text would be.
fn better(text: &str) -> Option<String> {
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-".contains(char);
    let better: String = text.to_lowercase().chars().map(|char| if allowed(char) { char } else { '-' }).collect();
    let better = better.trim_matches(|char: char| "._-".contains(char));
    (!better.is_empty()).then(|| better.to_owned())
}

/// The other forms in which messages may show a text.
pub(crate) fn seemingly(text: &str) -> impl Iterator<Item = String> {
    better(text).into_iter().filter(|better| better.len() >= 4)
}

/// The subscriber whose dead letters a topic of this name has.
pub(crate) fn dead_letters_of(topic: &str) -> Option<&str> {
    topic.strip_suffix(DEAD_LETTERS_SUFFIX)
}

/// The known name that `name` was probably meant to be: the fewest edits, at most two, and not a different word.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let edits_max = SUGGESTION_EDITS_MAX.min(name.chars().count().saturating_sub(1));
    let mut nearest = None;
    for candidate in known {
        if candidate.len().abs_diff(name.len()) > edits_max {
            continue;
        }
        let edits = strsim::osa_distance(name, candidate);
        // Of two that are equally near the first in the alphabet wins, whatever the order of the known names is.
        if edits <= edits_max && nearest.is_none_or(|best| (edits, candidate) < best) {
            nearest = Some((edits, candidate));
        }
    }
    nearest.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_into_urls_and_file_names() {
        for good in ["a", "7", "orders", "orders.accepted", "a-b_c.d", &"x".repeat(120)] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in ["", "Orders", ".orders", "-x", "a b", "a/b", "ä", &"x".repeat(121)] {
            assert!(problem(bad).is_some(), "{bad}");
        }
        assert_eq!(problem("Order Lines").map(|(_, help)| help.ends_with("`order-lines`")), Some(true));
    }

    #[test]
    fn the_nearest_name_is_at_most_two_edits_away() {
        let known = ["partitions", "key", "retention"];
        assert_eq!(nearest("partition", known), Some("partitions"));
        assert_eq!(nearest("retnetion", known), Some("retention"));
        assert_eq!(nearest("kye", known), Some("key"));
        assert_eq!(nearest("parts", known), None);
        assert_eq!(nearest("k", ["m"]), None, "one letter is no evidence");
        assert_eq!(nearest("ab", ["cb", "aa"]), Some("aa"), "ties do not depend on order");
    }
}
