//! The cache of segment reads: windows of bytes that all readers share.
//!
//! ```text
//!   segment   ├──block──┼──block──┼──block──┼─ … ─┤
//!   windows   └────────── one ────────┘
//!                                 └────────── next ──────┘    begins with the block that the previous one cuts off
//! ```
//!
//! Promises: the total size is bounded for any number of readers: the more readers, the smaller the windows. Several
//! readers of the same bytes wait for one read. An idle reader holds nothing. Relies on: the bytes of a segment up to
//! the length in the state store never change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::segment::SegmentId;
use crate::limits;

pub(super) struct ColdCache {
    state: Mutex<CacheState>,
    /// Number of readers of cold data.
    readers: AtomicUsize,
    bytes_max: usize,
}

#[derive(Default)]
struct CacheState {
    /// By segment and position of the first byte.
    windows: BTreeMap<(SegmentId, u64), CachedRange>,
    bytes: usize,
    /// Counts lookups, which orders windows by their last use.
    looks: u64,
}

struct CachedRange {
    length: usize,
    wanted: u64,
    content: Arc<Content>,
}

/// Locked by the thread that reads it from the disk; others wait for the lock.
type Content = Mutex<Option<Bytes>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CacheState {
    /// The window that contains these bytes, and its first position.
    fn find(&mut self, id: SegmentId, position: u64, length: usize) -> Option<(Arc<Content>, u64)> {
        self.looks += 1;
        let ((of, first), window) = self.windows.range_mut(..=(id, position)).next_back()?;
        if *of != id || position + length as u64 > *first + window.length as u64 {
            return None;
        }
        window.wanted = self.looks;
        Some((window.content.clone(), *first))
    }

    fn insert(&mut self, at: (SegmentId, u64), length: usize, bytes_max: usize) -> Arc<Content> {
        self.remove(at);
        let content = Arc::new(Content::default());
        self.windows.insert(at, CachedRange { length, wanted: self.looks, content: content.clone() });
        self.bytes += length;
        while self.bytes > bytes_max
            && let Some((oldest, _)) = self.windows.iter().min_by_key(|(_, window)| window.wanted)
        {
            let oldest = *oldest;
            self.remove(oldest);
        }
        content
    }

    fn remove(&mut self, at: (SegmentId, u64)) {
        if let Some(window) = self.windows.remove(&at) {
            self.bytes -= window.length;
        }
    }
}

impl ColdCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), readers: AtomicUsize::new(0), bytes_max }
    }

    /// Registers a reader, until [`ColdCache::left`].
    pub(super) fn joined(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes in the cache.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// How much to read at once: every reader can have a window, and a window has room for at least one block.
    fn length(&self) -> usize {
        let share = self.bytes_max / self.readers.load(Ordering::Relaxed).max(1);
        share.clamp(limits::COLD_READ_BYTES_MIN, limits::COLD_READ_BYTES)
    }

    /// Bytes of a segment from a position on, at least `length` of them unless the segment is shorter, if they are
    /// cached.
    pub(super) fn find(&self, id: SegmentId, position: u64, length: usize) -> Option<Bytes> {
        let (content, first) = lock(&self.state).find(id, position, length)?;
        let bytes = content.try_lock().ok()?.clone()?;
        Some(behind(bytes, position - first))
    }

    /// As [`ColdCache::find`], but reads from the disk if necessary. `end` is the length of the segment; `read` gets a
    /// position and a length.
    pub(super) fn get<E>(
        &self,
        id: SegmentId,
        position: u64,
        length: usize,
        end: u64,
        read: impl FnOnce(u64, usize) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let left = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = length.max(self.length()).min(left);
        let (content, first) = {
            let mut state = lock(&self.state);
            match state.find(id, position, length) {
                Some(found) => found,
                None => (state.insert((id, position), wanted, self.bytes_max), position),
            }
        };
        let mut bytes = lock(&content);
        if let Some(bytes) = &*bytes {
            return Ok(behind(bytes.clone(), position - first));
        }
        match read(position, wanted) {
            // A reader that waited for a failed read continues at its own position, which is after the window's.
            Ok(found) if first == position => {
                *bytes = Some(found.clone());
                Ok(found)
            }
            Ok(found) => Ok(found),
            Err(error) => {
                lock(&self.state).remove((id, first));
                Err(error)
            }
        }
    }

    /// Drops the windows of a segment that was removed or is damaged.
    pub(super) fn forget(&self, id: SegmentId) {
        let mut state = lock(&self.state);
        let of: Vec<_> = state.windows.range((id, 0)..=(id, u64::MAX)).map(|(at, _)| *at).collect();
        of.into_iter().for_each(|at| state.remove(at));
    }
}

fn behind(bytes: Bytes, skip: u64) -> Bytes {
    usize::try_from(skip).ok().filter(|skip| *skip <= bytes.len()).map_or_else(Bytes::new, |skip| bytes.slice(skip..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PartitionId, TopicId};

    fn id(partition: u32) -> SegmentId {
        SegmentId { partition: PartitionId { topic: TopicId(1), partition }, base_offset: 0 }
    }

    /// A segment whose bytes show their position.
    fn of(position: u64, length: usize) -> Result<Bytes, ()> {
        Ok((position..position + length as u64).map(|at| at as u8).collect::<Vec<_>>().into())
    }

    fn never(position: u64, length: usize) -> Result<Bytes, ()> {
        panic!("{length} bytes at {position} are read once more");
    }

    #[test]
    fn what_one_has_read_the_others_find() {
        let cache = ColdCache::new(limits::COLD_CACHE_BYTES);
        cache.joined();
        let end = 10 * limits::COLD_READ_BYTES as u64;
        assert_eq!(cache.get(id(0), 100, 10, end, of).unwrap().len(), limits::COLD_READ_BYTES);
        let behind = cache.get(id(0), 103, 10, end, never).unwrap();
        assert_eq!((behind.len(), behind[0]), (limits::COLD_READ_BYTES - 3, 103));
        assert_eq!(cache.find(id(0), 103, 10).unwrap(), behind);
        assert!(cache.find(id(1), 103, 10).is_none(), "of another segment");
        assert!(cache.find(id(0), 99, 10).is_none(), "in front of it");
        assert!(cache.find(id(0), 100 + limits::COLD_READ_BYTES as u64 - 9, 10).is_none(), "not all of it");
        assert_eq!(cache.get(id(0), end - 5, 10, end, of).unwrap().len(), 5, "the segment ends there");
        cache.forget(id(0));
        assert!(cache.find(id(0), 103, 10).is_none());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_read_that_failed_leaves_nothing() {
        let cache = ColdCache::new(limits::COLD_CACHE_BYTES);
        assert!(cache.get(id(0), 0, 10, 1_000, |_, _| Err(())).is_err());
        assert_eq!(cache.bytes(), 0);
        assert_eq!(cache.get(id(0), 0, 10, 1_000, of).unwrap().len(), 1_000);
    }

    #[test]
    fn the_more_readers_the_smaller_their_windows_and_never_more_than_may_be() {
        let cache = ColdCache::new(limits::COLD_CACHE_BYTES);
        let lengths = [1, 64, 3_072].map(|readers| {
            while cache.readers.load(Ordering::Relaxed) < readers {
                cache.joined();
            }
            let lengths = (0..readers as u32)
                .map(|reader| cache.get(id(reader), 7, 10, 1 << 20, |_, length| Ok::<_, ()>(vec![0; length].into())));
            let lengths: Vec<_> = lengths.map(|bytes| bytes.unwrap().len()).collect();
            assert!(cache.bytes() <= limits::COLD_CACHE_BYTES, "{} bytes for {readers}", cache.bytes());
            (0..readers as u32).for_each(|reader| cache.forget(id(reader)));
            lengths.last().copied().unwrap()
        });
        assert_eq!(lengths, [limits::COLD_READ_BYTES, limits::COLD_READ_BYTES, limits::COLD_READ_BYTES_MIN]);
    }
}
