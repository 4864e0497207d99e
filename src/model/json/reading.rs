//! What JSON is to the bus: one verdict, for every part that looks.
//!
//! A key, a condition, a schema and a lifecycle may look at the same data, some for one value, some for all of it. What one of
//! them can read each of the others can, since all read the whole text in the same way: texts are Unicode (no half of a pair of
//! surrogates), numbers are finite, there are at most 127 levels, and of names that occur twice in an object the last counts.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value that is read as if it were wanted, and not kept. `IgnoredAny` would pass over what nobody could read.
pub struct Checked;

/// Whether bytes are JSON.
///
/// # Errors
/// What is not, and where.
pub fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Checked>(json).map(drop)
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Checked, A::Error> {
        while list.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Checked, A::Error> {
        while object.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_no_value_could_hold_is_not_json() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for good in [r#"{"a":1,"a":2}"#, r#""\ud83d\ude00""#, "-0", "18446744073709551616", "1e308", &nested(127)] {
            assert!(check(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [r#""\ud800""#, r#"{"\udc00":1}"#, "1e400", "-1e400", &nested(128), "", "1 2", "\u{feff}1", "NaN"] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"\"\xff\"").is_err());
    }

    proptest! {
        #[test]
        fn what_is_checked_is_what_can_be_kept(
            text in r#"([{}\[\]:,"0-9eE+.\\u-]|true|null|"[a-z]{0,3}"|"\\ud[89a-f]00"|[0-9]{1,3}|1e[0-9]{1,3}| ){0,12}"#,
        ) {
            prop_assert_eq!(check(text.as_bytes()).is_ok(), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
