//! One value out of a JSON text, without building the rest of it.
//!
//! Reads the whole text, so that broken JSON is an error wherever it breaks, and of names that occur twice the last
//! counts: both as when the text is parsed into values (`model/json/reading.rs`).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::model::json::ValidJson;

/// The value at a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lookup {
    Value(Outcome),
    /// The number of names of the path that do exist.
    Missing(usize),
}

/// What an expression comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Text(String),
    /// Any whole number of 64 bits, with a sign or without.
    Whole(i128),
    Bool(bool),
    /// A value that has no text, with its article.
    Other(&'static str),
}

pub(super) const NULL: &str = "null";
pub(super) const FRACTION: &str = "a number that is not whole";
pub(super) const LIST: &str = "a list";
pub(super) const OBJECT: &str = "an object";

/// The value at `path` of a JSON text.
pub(super) fn find(json: &[u8], path: &[String]) -> Result<Lookup, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = PathVisitor { path, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// A value that is reached after `depth` names, with `path` still to go.
#[derive(Clone, Copy)]
struct PathVisitor<'p> {
    path: &'p [String],
    depth: usize,
}

impl PathVisitor<'_> {
    fn scalar(self, value: Outcome) -> Lookup {
        if self.path.is_empty() { Lookup::Value(value) } else { Lookup::Missing(self.depth) }
    }
}

impl<'de> DeserializeSeed<'de> for PathVisitor<'_> {
    type Value = Lookup;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Lookup, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PathVisitor<'_> {
    type Value = Lookup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Lookup, E> {
        Ok(self.scalar(Outcome::Other(NULL)))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Lookup, E> {
        Ok(self.scalar(Outcome::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Lookup, E> {
        Ok(self.scalar(Outcome::Whole(value.into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Lookup, E> {
        Ok(self.scalar(Outcome::Whole(value.into())))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Lookup, E> {
        Ok(self.scalar(Outcome::Other(FRACTION)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Lookup, E> {
        Ok(match self.path {
            [] => Lookup::Value(Outcome::Text(value.to_owned())),
            _ => Lookup::Missing(self.depth),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lookup, A::Error> {
        while list.next_element::<ValidJson>()?.is_some() {}
        Ok(self.scalar(Outcome::Other(LIST)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Lookup, A::Error> {
        let Some((name, path)) = self.path.split_first() else {
            while object.next_entry::<ValidJson, ValidJson>()?.is_some() {}
            return Ok(Lookup::Value(Outcome::Other(OBJECT)));
        };
        let mut found = Lookup::Missing(self.depth);
        while let Some(is_it) = object.next_key_seed(KeyMatch(name))? {
            if is_it {
                found = object.next_value_seed(PathVisitor { path, depth: self.depth + 1 })?;
            } else {
                object.next_value::<ValidJson>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a key is the wanted one; compares without copying it.
struct KeyMatch<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for KeyMatch<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyMatch<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
