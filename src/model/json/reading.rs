//! The definition of valid JSON, shared by all parts that read it.
//!
//! A key, a condition, a schema and a lifecycle may read the same data, some of them one value, some all of it. All of
//! them accept the same texts, because each reads the whole text in the same way: strings are Unicode (no unpaired
//! surrogates), numbers are finite, nesting is at most 127 levels, and of repeated names in an object the last counts.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value that is read completely and dropped. `IgnoredAny` would skip invalid content.
pub struct ValidJson;

/// Whether bytes are valid JSON.
///
/// # Errors
/// The error and its position.
pub fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<ValidJson>(json).map(drop)
}

impl<'de> Deserialize<'de> for ValidJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = ValidJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_bool<E>(self, _: bool) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_i64<E>(self, _: i64) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_u64<E>(self, _: u64) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_f64<E>(self, _: f64) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_str<E>(self, _: &str) -> Result<ValidJson, E> {
        Ok(ValidJson)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ValidJson, A::Error> {
        while list.next_element::<ValidJson>()?.is_some() {}
        Ok(ValidJson)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<ValidJson, A::Error> {
        while object.next_entry::<ValidJson, ValidJson>()?.is_some() {}
        Ok(ValidJson)
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
            text in concat!(
                r#"([{}\[\]:,"0-9eE+.\\u-]|true|null|"[a-z]{0,3}"|"\\ud[89a-f]00"|"#,
                r#"[0-9]{1,3}|1e[0-9]{1,3}| ){0,12}"#
            ),
        ) {
            prop_assert_eq!(check(text.as_bytes()).is_ok(), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
