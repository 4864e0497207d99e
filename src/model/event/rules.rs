//! What CloudEvents 1.0, and the bus, ask of the attributes of an event that comes in. What is stored already is not asked.

use super::{Attribute, AttributeView, EventError};
use crate::model::Time;

/// What the names of attributes begin with that only the bus gives: those of dead letters.
pub const RESERVED_PREFIX: &str = "wattle";

const NO_TIME: &str = "not a time as RFC 3339 has it, such as 2026-01-31T08:00:00Z";
const NO_URI: &str = "not an absolute URI, such as https://example.com/order.json";

/// The first character of a text that CloudEvents does not allow in any: what it is, to follow "is". Those are control
/// characters, line ends among them, and what Unicode calls noncharacters.
#[inline]
pub fn bad_character(text: &str) -> Option<String> {
    // as nearly all texts are
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    let (at, char) = text.chars().enumerate().find(|(_, char)| char.is_control() || is_noncharacter(*char))?;
    let what = if char.is_control() { "control character" } else { "noncharacter" };
    Some(format!(
        "a text with the {what} U+{:04X} at position {}, which CloudEvents does not allow",
        char as u32,
        at + 1
    ))
}

fn is_noncharacter(char: char) -> bool {
    let code = u32::from(char);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// Whether only the bus gives an attribute of this name.
#[inline]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// Whether a text begins as an absolute URI does, with a scheme.
fn is_absolute(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.bytes().all(is_in_scheme)
        && !rest.is_empty()
        && !uri.contains(' ')
}

/// Checks an attribute that comes in; its name is one.
///
/// # Errors
/// [`EventError`], with the name.
#[inline]
pub(super) fn check(name: &str, value: &AttributeView<'_>) -> Result<(), EventError> {
    if is_reserved(name) {
        return Err(EventError::Reserved(name.to_owned()));
    }
    let text = value.as_text();
    if let Some(what) = text.and_then(bad_character) {
        return Err(super::wrong(name, &what));
    }
    let what = match (name, value) {
        ("time", AttributeView::Timestamp(_)) => return Ok(()),
        ("time", _) if text.and_then(Time::parse).is_none() => NO_TIME,
        ("dataschema", _) if !text.is_some_and(is_absolute) => NO_URI,
        (_, AttributeView::Uri(uri)) if !is_absolute(uri) => NO_URI,
        _ => return Ok(()),
    };
    Err(super::wrong(name, what))
}

/// Checks an attribute that comes in as a text.
///
/// # Errors
/// [`EventError`], with the name.
pub fn check_text(name: &str, value: &str) -> Result<(), EventError> {
    check(name, &AttributeView::String(value))
}

impl Attribute {
    /// What a text is as the value of an attribute: `time` and `dataschema` have types of their own.
    ///
    /// # Errors
    /// [`EventError`], with the name, for a `time` that is none.
    pub fn of_text(name: &str, text: String) -> Result<Self, EventError> {
        match name {
            "time" => Time::parse(&text).map(Self::Timestamp).ok_or_else(|| super::wrong(name, NO_TIME)),
            "dataschema" => Ok(Self::Uri(text)),
            _ => Ok(Self::String(text)),
        }
    }
}

/// Which names have been seen: never says "no" to one that was. So nothing is kept of names, of which there may be very many,
/// and nearly never looked again.
#[derive(Default)]
pub(super) struct Names(u128);

impl Names {
    /// Notes a name. Whether it may have been noted before.
    #[inline]
    pub(super) fn note(&mut self, name: &str) -> bool {
        let hash =
            name.bytes().fold(name.len() as u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let bit = 1 << (hash >> 25);
        let was = self.0 & bit != 0;
        self.0 |= bit;
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cloudevents_does_not_allow_in_text_is_found_and_named() {
        for good in ["", "a b~", "ü€😀", "\u{a0}\u{2028}\u{feff}\u{fffd}"] {
            assert_eq!(bad_character(good), None, "{good:?}");
        }
        for (bad, says) in [
            ("a\nb", "control character U+000A at position 2"),
            ("\0", "control character U+0000 at position 1"),
            ("é\u{7f}", "control character U+007F at position 2"),
            ("\u{85}", "control character U+0085"),
            ("\u{fdd0}", "noncharacter U+FDD0"),
            ("x\u{ffff}", "noncharacter U+FFFF at position 2"),
            ("\u{10fffe}", "noncharacter U+10FFFE"),
        ] {
            let found = bad_character(bad).unwrap();
            assert!(found.contains(says), "{bad:?}: {found}");
        }
    }

    #[test]
    fn an_absolute_uri_has_a_scheme() {
        for good in ["https://example.com/a?b=c", "urn:x", "a+b-1.0:x"] {
            assert!(is_absolute(good), "{good}");
        }
        for bad in ["", "5", "/relative", "x", ":x", "1a:x", "https:", "https://a b", "schéma:x"] {
            assert!(!is_absolute(bad), "{bad}");
        }
    }
}
