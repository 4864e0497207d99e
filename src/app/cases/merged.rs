//! Merges the state of a subscriber in several partitions.
//!
//! A case gives each partition the same state, because the partition of an event is not known in advance. The result is
//! the given state with the changes of all partitions. A key that two partitions have changed appears under two names:
//! such a case depends on its partitions.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::{Buckets, bytes_of};

/// The state merged so far.
#[derive(Default)]
pub(super) struct MergedState {
    /// By bucket and key.
    pub(super) buckets: Buckets,
    partitions: u32,
    /// The changed keys, with the partition.
    changed: BTreeMap<(String, String), u32>,
}

impl MergedState {
    /// Adds a partition that began with the given state.
    pub(super) fn add(&mut self, kept: Buckets, given: Option<&BTreeMap<String, BTreeMap<String, Value>>>) {
        let partition = self.partitions;
        self.partitions += 1;
        let given = given.into_iter().flatten().flat_map(|(bucket, values)| {
            values.iter().filter_map(move |(key, value)| Some(((bucket.clone(), key.clone()), bytes_of(value)?)))
        });
        let mut given: BTreeMap<(String, String), Bytes> = given.collect();
        let kept = kept
            .into_iter()
            .flat_map(|(bucket, values)| values.into_iter().map(move |(key, value)| ((bucket.clone(), key), value)));
        for (place, value) in kept {
            match given.remove(&place) {
                Some(before) if before == value => {
                    if !self.changed.contains_key(&place) {
                        self.put(place, value);
                    }
                }
                _ => self.change(partition, place, Some(value)),
            }
        }
        // Given entries that were deleted.
        given.into_keys().for_each(|place| self.change(partition, place, None));
    }

    fn change(&mut self, partition: u32, (bucket, key): (String, String), value: Option<Bytes>) {
        let before = self.changed.insert((bucket.clone(), key.clone()), partition);
        let place = match before {
            None => (bucket, key),
            Some(_) => (bucket, format!("{key} (partition {partition})")),
        };
        match value {
            Some(value) => self.put(place, value),
            None => drop(self.buckets.get_mut(&place.0).and_then(|values| values.remove(&place.1))),
        }
    }

    fn put(&mut self, (bucket, key): (String, String), value: Bytes) {
        self.buckets.entry(bucket).or_default().insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(values: &[(&str, &str)]) -> Buckets {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        [("b".to_owned(), values.collect())].into()
    }

    #[test]
    fn what_changed_in_any_partition_is_what_it_comes_to() {
        let given = [("b".to_owned(), [("a", "1"), ("gone", "2"), ("stays", "3")])];
        let given: BTreeMap<_, _> = given
            .into_iter()
            .map(|(bucket, values)| (bucket, values.map(|(key, value)| (key.to_owned(), Value::from(value))).into()))
            .collect();
        let partitions = [
            kept(&[("a", "1"), ("gone", "2"), ("stays", "3"), ("new", "x")]),
            kept(&[("a", "9"), ("stays", "3")]),
            kept(&[("a", "1"), ("gone", "2"), ("stays", "3"), ("other", "y")]),
        ];
        // In any order.
        for first in 0..3 {
            let mut merged = MergedState::default();
            for at in 0..3 {
                merged.add(partitions[(first + at) % 3].clone(), Some(&given));
            }
            let expected = kept(&[("a", "9"), ("stays", "3"), ("new", "x"), ("other", "y")]);
            assert_eq!(merged.buckets, expected, "{first}");
        }
    }

    #[test]
    fn what_changed_in_two_is_shown_twice() {
        let mut merged = MergedState::default();
        merged.add(kept(&[("count", "1")]), None);
        merged.add(kept(&[("count", "1")]), None);
        assert_eq!(merged.buckets, kept(&[("count", "1"), ("count (partition 1)", "1")]));
    }
}
