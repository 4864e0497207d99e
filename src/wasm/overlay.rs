//! The state of a lane as a plugin sees it during a call: the state when the call began, and the writes of the call.
//!
//! ```text
//!                 StateView        writes of the call, in order
//!              ┌────────────┐  ┌────────┬─────────┬─────────────┐
//!              │ at begin   │  │ event 0│ event 1 │ event 2 …   │
//!              └────────────┘  └────────┴─────────┴─────────────┘
//! event 2 reads ◀─────────────────────────────────┤ the newest value of a key
//! event 2 fails: ◀───────────── these are kept ───┤ these are dropped
//! ```
//!
//! Invariants: writes are in the order of events; an event has at most one write per key; `newest` refers to the last
//! write of each key. So the writes up to any event are a prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::{
    STATE_BATCH_BYTES_MAX, STATE_BATCH_KEYS_MAX, STATE_BUCKET_BYTES_MAX, STATE_CALL_BYTES_MAX, STATE_EVENT_BYTES_MAX,
    STATE_EVENT_WRITES_MAX, STATE_KEY_BYTES_MAX, STATE_PAGE_KEYS, STATE_VALUE_BYTES_MAX, STATE_WRITE_BYTES,
};
use super::store_data::StopCause;
use crate::model::call::{Keys, Reads, StateError, StateRead, StateView, StateWrite};

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request is not allowed; the plugin gets this message.
    Refused(String),
    /// The call ends.
    Stop(StopCause),
}

impl From<StateError> for Trouble {
    fn from(error: StateError) -> Trouble {
        Trouble::Stop(StopCause::State(error))
    }
}

fn refused<T>(words: String) -> Result<T, Trouble> {
    Err(Trouble::Refused(words))
}

/// The name of a bucket that a plugin opens with an identifier.
pub(super) fn bucket_name(identifier: &str) -> Result<Arc<str>, Trouble> {
    match identifier {
        "" => Ok("default".into()),
        name if name.len() > STATE_BUCKET_BYTES_MAX => {
            let bytes = name.len();
            refused(format!("the bucket's name has {bytes} bytes, and at most {STATE_BUCKET_BYTES_MAX} are allowed"))
        }
        name if name.contains('\0') => refused("the bucket's name has a zero byte in it".to_owned()),
        name => Ok(name.into()),
    }
}

/// Keys and their values.
pub(super) type KeyValues = Vec<(String, Option<Vec<u8>>)>;

/// The writes of a call, on top of the previous state.
pub(super) struct Overlay {
    view: Arc<dyn StateView>,
    writes: Vec<StateWrite>,
    /// The append time of the event of each write.
    times_ns: Vec<u64>,
    /// By bucket and key, the index of the last write.
    newest: BTreeMap<Arc<str>, BTreeMap<String, usize>>,
    /// The size of the writes, and of those of the current event.
    call_bytes: usize,
    event_bytes: usize,
    event_writes: usize,
    /// The reads of events, if requested, and the keys that the current event has read, by bucket.
    reads: Option<Reads>,
    has_read: BTreeMap<String, BTreeSet<String>>,
}

impl Overlay {
    pub(super) fn new(view: Arc<dyn StateView>) -> Overlay {
        Overlay {
            reads: view.wants_reads().then(Reads::default),
            has_read: BTreeMap::new(),
            view,
            writes: Vec::new(),
            times_ns: Vec::new(),
            newest: BTreeMap::new(),
            call_bytes: 0,
            event_bytes: 0,
            event_writes: 0,
        }
    }

    /// A savepoint: later writes belong to another event.
    pub(super) fn next_event(&mut self) {
        self.event_bytes = 0;
        self.event_writes = 0;
        self.has_read.clear();
    }

    /// Reports the reads of the call's events, if requested.
    pub(super) fn tell_reads(&mut self) {
        if let Some(reads) = self.reads.take() {
            self.view.have_read(reads);
        }
    }

    /// The state as this event sees it.
    pub(super) fn at(&mut self, event: u32, time_ns: u64) -> EventState<'_> {
        EventState { overlay: self, event, time_ns }
    }

    /// The writes of the events before `end`; `None`: of all events.
    pub(super) fn into_writes(mut self, end: Option<u32>) -> Vec<StateWrite> {
        if let Some(end) = end {
            let count = self.writes.partition_point(|write| write.event < end);
            self.writes.truncate(count);
        }
        self.writes
    }

    /// The last write of a key.
    fn place(&self, bucket: &str, key: &str) -> Option<usize> {
        self.newest.get(bucket)?.get(key).copied()
    }
}

/// The state as one event sees it.
pub(super) struct EventState<'a> {
    overlay: &'a mut Overlay,
    event: u32,
    time_ns: u64,
}

impl EventState<'_> {
    pub(super) fn get(&mut self, bucket: &str, key: &str) -> Result<Option<Bytes>, Trouble> {
        check_key(key)?;
        let place = self.overlay.place(bucket, key);
        let value = match place {
            Some(place) => self.written(bucket, place).cloned(),
            None => self.overlay.view.get(bucket, key, self.time_ns)?,
        };
        // Its own writes are not part of the state before it.
        let write = place.and_then(|place| self.overlay.writes.get(place));
        if write.is_none_or(|write| write.event != self.event) {
            self.note_value(bucket, key, &value);
        }
        Ok(value)
    }

    /// Records the value of a key, if requested.
    fn note_value(&mut self, bucket: &str, key: &str, value: &Option<Bytes>) {
        let Overlay { reads, has_read, .. } = &mut *self.overlay;
        let Some(reads) = reads.as_mut().filter(|reads| !reads.is_cut(self.event)) else { return };
        let known = match has_read.get_mut(bucket) {
            Some(known) => known,
            None => has_read.entry(bucket.to_owned()).or_default(),
        };
        if !known.contains(key) {
            known.insert(key.to_owned());
            let (bucket, key, value) = (bucket.to_owned(), key.to_owned(), value.clone());
            reads.add(self.event, StateRead::Value { bucket, key, value });
        }
    }

    pub(super) fn set(&mut self, bucket: &Arc<str>, key: String, value: Vec<u8>) -> Result<(), Trouble> {
        if value.len() > STATE_VALUE_BYTES_MAX {
            let bytes = value.len();
            return refused(format!("the value has {bytes} bytes, and at most {STATE_VALUE_BYTES_MAX} are allowed"));
        }
        self.write(bucket, key, Some(value.into()))
    }

    pub(super) fn delete(&mut self, bucket: &Arc<str>, key: String) -> Result<(), Trouble> {
        self.write(bucket, key, None)
    }

    /// Adds to the number under a key and returns the sum. A missing key counts as 0.
    pub(super) fn increment(&mut self, bucket: &Arc<str>, key: String, delta: i64) -> Result<i64, Trouble> {
        let number = match self.get(bucket, &key)? {
            None => 0,
            Some(value) => match std::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok()) {
                Some(number) => number,
                None => return refused("the value under this key is not a number in decimal digits".to_owned()),
            },
        };
        let Some(sum) = number.checked_add(delta) else {
            return refused(format!("{number} and {delta} are more than 64 bits hold"));
        };
        self.write(bucket, key, Some(sum.to_string().into()))?;
        Ok(sum)
    }

    /// The keys after `after`, in ascending order, at most one page.
    pub(super) fn keys(&mut self, bucket: &str, after: Option<&str>) -> Result<Keys, Trouble> {
        if let Some(after) = after.filter(|after| after.len() > STATE_KEY_BYTES_MAX) {
            let bytes = after.len();
            return refused(format!("the cursor has {bytes} bytes, which no key has: it is the last key of a page"));
        }
        let (mut keys, mut from) = (BTreeSet::new(), after.map(str::to_owned));
        let looked_to = loop {
            // One more than a page, to know whether there are more.
            let found = self.overlay.view.keys(bucket, from.as_deref(), STATE_PAGE_KEYS + 1, self.time_ns)?;
            let is_full = found.keys.len() > STATE_PAGE_KEYS;
            keys.extend(found.keys);
            // Writes after the end of the scanned part belong to a later page.
            let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let end = found.looked_to.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let written = self.overlay.newest.get(bucket).into_iter();
            for (key, place) in written.flat_map(|places| places.range::<str, _>((start, end))) {
                match self.written(bucket, *place) {
                    Some(_) => keys.insert(key.clone()),
                    None => keys.remove(key),
                };
            }
            // If the call has deleted much, the scan continues, but at most for as much as it may delete.
            if keys.len() > STATE_PAGE_KEYS || !is_full || found.looked_to.is_none() {
                break found.looked_to;
            }
            from = found.looked_to;
        };
        let has_more = keys.len() > STATE_PAGE_KEYS;
        let keys: Vec<String> = keys.into_iter().take(STATE_PAGE_KEYS).collect();
        let looked_to = if has_more { keys.last().cloned() } else { looked_to };
        let found = Keys { keys, looked_to };
        if let Some(reads) = self.overlay.reads.as_mut().filter(|reads| !reads.is_cut(self.event)) {
            // Includes the event's own writes, which does no harm.
            let (bucket, after) = (bucket.to_owned(), after.map(str::to_owned));
            reads.add(self.event, StateRead::Keys { bucket, after, found: found.clone() });
        }
        Ok(found)
    }

    /// The values of several keys, in order.
    pub(super) fn get_many(&mut self, bucket: &str, keys: Vec<String>) -> Result<KeyValues, Trouble> {
        check_count(keys.len())?;
        let mut bytes = 0;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.get(bucket, &key)?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > STATE_BATCH_BYTES_MAX {
                return refused(format!(
                    "the values under these keys have more than {STATE_BATCH_BYTES_MAX} bytes: ask for fewer at once"
                ));
            }
            found.push((key, value.map(|value| value.to_vec())));
        }
        Ok(found)
    }

    pub(super) fn set_many(&mut self, bucket: &Arc<str>, entries: Vec<(String, Vec<u8>)>) -> Result<(), Trouble> {
        check_count(entries.len())?;
        entries.into_iter().try_for_each(|(key, value)| self.set(bucket, key, value))
    }

    pub(super) fn delete_many(&mut self, bucket: &Arc<str>, keys: Vec<String>) -> Result<(), Trouble> {
        check_count(keys.len())?;
        keys.into_iter().try_for_each(|key| self.delete(bucket, key))
    }

    /// The value of a write in this call, unless it has expired.
    fn written(&self, bucket: &str, place: usize) -> Option<&Bytes> {
        let overlay = &*self.overlay;
        let value = overlay.writes.get(place)?.value.as_ref()?;
        let written_ns = overlay.times_ns.get(place).copied()?;
        (!overlay.view.has_expired(bucket, written_ns, self.time_ns)).then_some(value)
    }

    fn write(&mut self, bucket: &Arc<str>, key: String, value: Option<Bytes>) -> Result<(), Trouble> {
        check_key(&key)?;
        let overlay = &mut *self.overlay;
        let bytes = bucket.len() + key.len() + value.as_ref().map_or(0, Bytes::len);
        let place = overlay.place(bucket, &key);
        let mine = place.and_then(|place| overlay.writes.get_mut(place)).filter(|write| write.event == self.event);
        // A repeated write of this event replaces its earlier one in the sum.
        let gone = mine.as_ref().map_or(0, |write| weight(write));
        let event_bytes = overlay.event_bytes.saturating_sub(gone) + bytes;
        if event_bytes > STATE_EVENT_BYTES_MAX {
            return refused(format!(
                "what this event writes has more than {STATE_EVENT_BYTES_MAX} bytes, which is the limit for one event"
            ));
        }
        if mine.is_none() && overlay.event_writes >= STATE_EVENT_WRITES_MAX {
            return refused(format!(
                "this event writes more than {STATE_EVENT_WRITES_MAX} keys, which is the limit for one event"
            ));
        }
        let row_bytes = if mine.is_none() { STATE_WRITE_BYTES } else { 0 };
        let call_bytes = overlay.call_bytes.saturating_sub(gone) + bytes + row_bytes;
        if call_bytes > STATE_CALL_BYTES_MAX {
            return Err(Trouble::Stop(StopCause::StateOfCall));
        }
        (overlay.event_bytes, overlay.call_bytes) = (event_bytes, call_bytes);
        if let Some(write) = mine {
            write.value = value;
            return Ok(());
        }
        overlay.event_writes += 1;
        overlay.newest.entry(Arc::clone(bucket)).or_default().insert(key.clone(), overlay.writes.len());
        overlay.times_ns.push(self.time_ns);
        overlay.writes.push(StateWrite { event: self.event, bucket: bucket.to_string(), key, value });
        Ok(())
    }
}

fn weight(write: &StateWrite) -> usize {
    write.bucket.len() + write.key.len() + write.value.as_ref().map_or(0, Bytes::len)
}

fn check_key(key: &str) -> Result<(), Trouble> {
    match key.len() {
        0 => refused(format!("the key is empty; keys have 1 to {STATE_KEY_BYTES_MAX} bytes")),
        1..=STATE_KEY_BYTES_MAX => Ok(()),
        bytes => refused(format!("the key has {bytes} bytes, and at most {STATE_KEY_BYTES_MAX} are allowed")),
    }
}

fn check_count(keys: usize) -> Result<(), Trouble> {
    if keys > STATE_BATCH_KEYS_MAX {
        return refused(format!("{keys} keys are too many at once: at most {STATE_BATCH_KEYS_MAX} are allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::call::{NoState, STATE_READS_BYTES_MAX};

    /// One key, with recording of reads.
    #[derive(Default)]
    struct WatchedState(std::sync::Mutex<Option<Reads>>);

    impl StateView for WatchedState {
        fn get(&self, _: &str, key: &str, _: u64) -> Result<Option<Bytes>, StateError> {
            Ok((key == "there").then(|| Bytes::from_static(b"0")))
        }

        fn keys(&self, _: &str, after: Option<&str>, _: usize, _: u64) -> Result<Keys, StateError> {
            let keys = if after.is_none() { vec!["there".to_owned()] } else { Vec::new() };
            Ok(Keys { keys, looked_to: None })
        }

        fn wants_reads(&self) -> bool {
            true
        }

        fn have_read(&self, reads: Reads) {
            *self.0.lock().unwrap() = Some(reads);
        }
    }

    fn value(key: &str, value: Option<&'static [u8]>) -> StateRead {
        StateRead::Value { bucket: "b".into(), key: key.into(), value: value.map(Bytes::from_static) }
    }

    #[test]
    fn what_each_event_has_read_is_told_as_it_was_in_front_of_it() {
        let view = Arc::new(WatchedState::default());
        let mut overlay = Overlay::new(view.clone());
        let bucket: Arc<str> = "b".into();
        overlay.at(0, 0).set(&bucket, "a".into(), b"1".to_vec()).unwrap();
        overlay.at(0, 0).get("b", "a").unwrap();
        overlay.at(0, 0).get("b", "there").unwrap();
        overlay.next_event();
        for key in ["a", "there", "not", "a"] {
            overlay.at(1, 0).get("b", key).unwrap();
        }
        overlay.at(1, 0).increment(&bucket, "there".into(), 5).unwrap();
        overlay.at(1, 0).get("b", "there").unwrap();
        overlay.at(1, 0).keys("b", None).unwrap();
        overlay.tell_reads();
        let reads = view.0.lock().unwrap().take().unwrap();
        assert_eq!(reads.of(0), Some(vec![value("there", Some(b"0"))]), "not what it wrote itself");
        let found = Keys { keys: vec!["a".into(), "there".into()], looked_to: None };
        let keys = StateRead::Keys { bucket: "b".into(), after: None, found };
        let expected = vec![value("a", Some(b"1")), value("there", Some(b"0")), value("not", None), keys];
        assert_eq!(reads.of(1), Some(expected), "each once, and what an earlier event wrote");
        assert_eq!(reads.of(2), Some(Vec::new()));
    }

    #[test]
    fn what_is_written_again_behind_a_savepoint_takes_nothing_back() {
        let mut overlay = Overlay::new(Arc::new(NoState));
        let bucket: Arc<str> = "b".into();
        overlay.at(0, 0).set(&bucket, "k".into(), vec![0; 10]).unwrap();
        overlay.next_event();
        overlay.at(0, 0).set(&bucket, "k".into(), vec![0; 1]).unwrap();
        assert_eq!(overlay.into_writes(None).len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_says_what_is_not() {
        let read =
            |bytes: usize| StateRead::Value { bucket: "b".into(), key: "k".into(), value: Some(vec![0; bytes].into()) };
        let mut reads = Reads::default();
        reads.add(0, read(STATE_READS_BYTES_MAX / 2));
        reads.add(1, read(STATE_READS_BYTES_MAX / 2));
        assert_eq!((reads.of(0), reads.of(1).map(|reads| reads.len())), (None, Some(1)), "the latest event is known");
        reads.add(1, read(STATE_READS_BYTES_MAX / 2));
        assert_eq!(reads.of(1), None);
        reads.add(2, read(1));
        assert_eq!(reads.of(2).map(|reads| reads.len()), Some(1), "and so is the next one");
    }
}
