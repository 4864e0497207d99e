//! The state of a subscriber's handler: looked up, listed page by page, imported.

use super::error::ControlError;
use super::failed::is_full;
use super::subscriber::Subscriber;
use crate::api::{StateEntry, StateFilter, StateOfPartition, StatePosition};
use crate::dispatch::lane::command::Command;
use crate::dispatch::lane::state;
use crate::engine::Engine;

/// State entries that are read at once; each may be as large as the limit for values allows.
const STATE_ENTRIES: usize = 32;
/// State entries that one page reads at most.
const STATE_LOOKED_AT_MAX: usize = 10_000;

/// A page of a state listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePage {
    /// The entries of the page.
    pub found: Vec<StateOfPartition>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<StatePosition>,
}

/// What the handler of a subscriber has stored, by partition.
pub struct SubscriberState<'a, E>(&'a Subscriber<E>);

impl<E: Engine> Subscriber<E> {
    /// The state of its handler.
    pub fn state(&self) -> SubscriberState<'_, E> {
        SubscriberState(self)
    }
}

impl<E: Engine> SubscriberState<'_, E> {
    /// Whether there is none, in one partition or in all.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn is_empty(&self, partition: Option<u32>) -> Result<bool, ControlError> {
        self.0.check(partition)?;
        for partition in (0..self.0.partitions()).filter(|of| partition.is_none_or(|only| only == *of)) {
            if !state::list(&self.0.entries(partition)?, None, 1)?.0.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entries with this bucket and key. Since the keys of events determine the partition, several partitions may
    /// have one. Starts at partition `from`, and returns the partition to continue at if the page is full.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn get(
        &self,
        (bucket, key): (&str, &str),
        from: u32,
    ) -> Result<(Vec<StateOfPartition>, Option<u32>), ControlError> {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for partition in from..self.0.partitions() {
            let Some(entry) = state::get(&self.0.entries(partition)?, bucket, key)? else { continue };
            let size = entry.bucket.len() + entry.key.len() + entry.value.len();
            if is_full(some.len(), usize::MAX, bytes, size) {
                return Ok((some, Some(partition)));
            }
            bytes += size;
            some.push(StateOfPartition { partition, entry });
        }
        Ok((some, None))
    }

    /// The entries of a partition after the entry `behind` (bucket and key): at most `count`, fewer if they are large.
    /// Empty at the end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list(
        &self,
        partition: u32,
        behind: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<StateEntry>, ControlError> {
        let entries = self.0.entries(partition)?;
        let behind = behind.map(|(bucket, key)| state::position_behind(bucket, key));
        Ok(state::list(&entries, behind.as_deref(), count)?.0)
    }

    /// A page, sorted by partition, bucket and key. It may have fewer entries than requested, or none, although more
    /// pages follow. Reads from disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn page(&self, filter: &StateFilter, from: StatePosition, count: usize) -> Result<StatePage, ControlError> {
        self.0.check(filter.partition)?;
        let (mut entries, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for partition in from.partition..self.0.partitions() {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let kept = self.0.entries(partition)?;
            let is_begun = partition == from.partition && (&from.bucket, &from.key) != (&String::new(), &String::new());
            let mut behind = match (&filter.bucket, is_begun) {
                (_, true) => Some((from.bucket.clone(), from.key.clone())),
                (Some(bucket), false) => Some((bucket.clone(), String::new())),
                (None, false) => None,
            };
            'partition: loop {
                let position = behind.as_ref().map(|(bucket, key)| state::position_behind(bucket, key));
                let (page, is_last) = state::list(&kept, position.as_deref(), STATE_ENTRIES)?;
                for entry in page {
                    if filter.bucket.as_ref().is_some_and(|bucket| *bucket < entry.bucket) {
                        break 'partition;
                    }
                    let (bucket, key) = behind.clone().unwrap_or_default();
                    let size = entry.bucket.len() + entry.key.len() + entry.value.len();
                    if looked_at >= STATE_LOOKED_AT_MAX || is_full(entries.len(), count, bytes, size) {
                        return Ok(StatePage { found: entries, next: Some(StatePosition { partition, bucket, key }) });
                    }
                    looked_at += 1;
                    behind = Some((entry.bucket.clone(), entry.key.clone()));
                    if filter.bucket.as_ref().is_none_or(|bucket| *bucket == entry.bucket)
                        && entry.key.starts_with(&filter.prefix)
                    {
                        bytes += size;
                        entries.push(StateOfPartition { partition, entry });
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(StatePage { found: entries, next: None })
    }

    /// Writes entries into a partition, and replaces existing ones. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn import(&self, partition: u32, entries: &[StateEntry]) -> Result<u64, ControlError> {
        let writes = entries.iter().map(state::write_of).collect();
        self.0.tell(partition, |answer| Command::Import(writes, answer)).await
    }
}
