//! The beginning of a text that is too long to be stored whole.
//!
//! Promises: the first lines stay, where messages have their words; the result shows that something was cut, and fits
//! into the limit together with that mark.

use std::borrow::Cow;

/// Stands for the missing rest.
const MARK: &str = "…";

/// The text, or its beginning and a mark, in at most `bytes_max` bytes.
pub(crate) fn excerpt(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(MARK.len()));
    format!("{}{MARK}", text.get(..end).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_keeps_its_beginning_and_says_so() {
        assert_eq!(excerpt("as it is", 8), "as it is");
        assert_eq!(excerpt("one byte more", 12), "one byte …");
        assert_eq!(excerpt("éééé", 7), "éé…", "at a character");
        for bytes_max in 3..40 {
            let text = excerpt("a first line, and\na second one, which is too much", bytes_max).into_owned();
            assert!(text.len() <= bytes_max && text.ends_with(MARK), "{bytes_max}: {text:?}");
        }
    }
}
