//! The rules of CloudEvents 1.0, and of the bus, for attributes of incoming events. They do not apply to stored events.

use super::{Attribute, AttributeView, EventError};
use crate::model::Time;

/// Prefix of attribute names that only the bus sets: those of dead letters.
pub const RESERVED_PREFIX: &str = "wattle";

const NO_TIME: &str = "not an RFC 3339 time such as 2026-01-31T08:00:00Z";
const NO_REFERENCE: &str = "not a URI reference, such as /orders or https://example.com/orders: blanks and \"<>\\^`{|} \
    are written as % and two hexadecimal digits";
const NO_URI: &str = "not an absolute URI, such as https://example.com/order.json";

/// Describes the first character that CloudEvents does not allow in a text, in words that follow "is". These are
/// control characters, including line ends, and Unicode noncharacters.
#[inline]
pub fn bad_character(text: &str) -> Option<String> {
    // the usual case
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

/// Whether only the bus sets an attribute of this name.
#[inline]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// Whether a text begins like an absolute URI, with a scheme.
fn is_absolute(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.bytes().all(is_in_scheme)
        && !rest.is_empty()
        && !uri.contains(' ')
}

/// Whether a text has only the characters of a URI reference. Letters beyond ASCII are among them, as in most libraries
/// for CloudEvents.
#[inline]
fn is_reference(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte);
    // the usual case
    if text.bytes().all(is_plain) {
        return true;
    }
    let mut parts = text.split('%');
    let begins = parts.next().unwrap_or_default();
    let is_escape =
        |part: &&str| part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let is_part = |part: &str| {
        part.chars().all(|char| match u8::try_from(char) {
            Ok(byte) if byte.is_ascii() => is_plain(byte),
            _ => !char.is_whitespace() && !char.is_control(),
        })
    };
    is_part(begins) && parts.all(|part| is_escape(&part) && is_part(part))
}

/// Checks the `source` of an incoming event.
///
/// # Errors
/// [`EventError`].
#[inline]
pub(super) fn check_source(source: &str) -> Result<(), EventError> {
    if is_reference(source) { Ok(()) } else { Err(super::wrong("source", NO_REFERENCE)) }
}

/// Checks an incoming attribute whose name is valid.
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

/// Checks an incoming attribute with a text value.
///
/// # Errors
/// [`EventError`], with the name.
pub fn check_text(name: &str, value: &str) -> Result<(), EventError> {
    check(name, &AttributeView::String(value))
}

impl Attribute {
    /// Converts a text into the value of an attribute: `time` and `dataschema` have types of their own.
    ///
    /// # Errors
    /// [`EventError`], with the name, for an invalid `time`.
    pub fn of_text(name: &str, text: String) -> Result<Self, EventError> {
        match name {
            "time" => Time::parse(&text).map(Self::Timestamp).ok_or_else(|| super::wrong(name, NO_TIME)),
            "dataschema" => Ok(Self::Uri(text)),
            _ => Ok(Self::String(text)),
        }
    }
}

/// A set of names without false negatives. It stores no names, of which there may be many, and false positives are
/// rare.
#[derive(Default)]
pub(super) struct NameFilter(u128);

impl NameFilter {
    /// Adds a name. Returns whether it may have been added before.
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
    fn a_source_is_a_uri_reference() {
        for good in
            ["/s", "s", "urn:uuid:1", "https://example.com/a?b=c#d", "a%20b%c3%bc", "../x", "mailto:a@b", "/ü/€", ""]
        {
            assert!(is_reference(good), "{good}");
        }
        let bad = [
            "a b", " ", "a\u{a0}b", "a\tb", "<x>", "\"", "a\\b", "a^b", "`", "{x}", "a|b", "%", "a%2", "%zz",
            "%2\u{e4}",
        ];
        for bad in bad {
            assert!(!is_reference(bad), "{bad:?}");
            assert!(check_source(bad).unwrap_err().to_string().contains("`source` is not a URI reference"));
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
