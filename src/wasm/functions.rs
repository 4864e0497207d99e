//! A disk cache of compiled functions, for plugins that are compiled again and again while they are written: of a Go or
//! Python plugin nearly all functions are those of its runtime, which did not change.
//!
//! Compiled functions are as dangerous as compiled components, so they are in the same folder and have a MAC with the
//! same key (see `cache`). One file has them all. Processes share it, such as `wattle test` and `wattle dev`: each
//! locks it while it adds a function, and reads what others have added since.
//!
//! ```text
//! functions    magic 16 | number 8, entries                 another number after each new beginning
//!   entry      key 32 | MAC 32 | length u32 LE | value …        MAC: BLAKE3 with the folder's key, of key and value
//! ```
//!
//! Entries are only appended. A file that would grow beyond its maximum begins anew, and is filled by what is compiled
//! next.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use wasmtime::CacheStore;

use super::cache;
use crate::effects::random;

/// The version in it changes with the layout.
const MAGIC: &[u8; 16] = b"wattle funs v002";
const FILE: &str = "functions";
/// A Python plugin has 60 MB of them.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// A function's code: the largest that is compiled has some megabytes.
const VALUE_BYTES_MAX: u32 = 64 << 20;
const KEY_BYTES: usize = 32;
const HEADER_BYTES: u64 = 32 + 32 + 4;
/// To add one takes microseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_micros(100);
/// The magic and the number.
const BEGIN_BYTES: usize = MAGIC.len() + 8;

/// The open cache of each folder. All hosts of this process share it, and it is closed with the last of them.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<FunctionCache>>> = Mutex::new(BTreeMap::new());

/// The cache of a folder.
pub(super) struct FunctionCache {
    file: File,
    secret: [u8; cache::KEY_BYTES],
    bytes_max: u64,
    /// Whether the lock could not be had the last time: then it is not waited for.
    is_stuck: AtomicBool,
    entries: Mutex<Entries>,
}

/// Where entries are.
#[derive(Default)]
struct Entries {
    /// The offset of each value, and its length.
    places: HashMap<[u8; KEY_BYTES], (u64, u32)>,
    /// What the file begins with, if it is one of functions.
    begin: [u8; BEGIN_BYTES],
    /// 0 if there is no such file yet.
    end: u64,
}

impl std::fmt::Debug for FunctionCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FunctionCache").field("functions", &self.entries().places.len()).finish_non_exhaustive()
    }
}

impl FunctionCache {
    /// The cache in a folder of compiled code.
    ///
    /// # Errors
    /// The folder is not this user's, or the file cannot be opened.
    pub(super) fn open(folder: &Path) -> io::Result<Arc<Self>> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = open.get(folder).and_then(Weak::upgrade) {
            return Ok(cache);
        }
        let cache = Arc::new(Self::open_file(folder, FILE_BYTES_MAX)?);
        open.insert(folder.to_owned(), Arc::downgrade(&cache));
        Ok(cache)
    }

    fn open_file(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let secret = cache::secret(folder)?;
        let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
        let file = options.open(folder.join(FILE))?;
        let about = file.metadata()?;
        cache::check(&about, cache::WRITABLE_FOR_OTHERS)?;
        let mut entries = Entries::default();
        entries.refresh(&file)?;
        Ok(Self { file, secret, bytes_max, is_stuck: AtomicBool::new(false), entries: Mutex::new(entries) })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the file. A process that is stopped while it has the lock holds up no other for long: the cache only saves
    /// time.
    fn lock(&self) -> io::Result<()> {
        let patience = if self.is_stuck.load(Ordering::Relaxed) { Duration::ZERO } else { LOCK_PATIENCE };
        let start = Instant::now();
        let locked = loop {
            match self.file.try_lock() {
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => break Err(io::Error::other("another process has the lock")),
                Err(TryLockError::Error(error)) => break Err(error),
                Ok(()) => break Ok(()),
            }
        };
        self.is_stuck.store(locked.is_err(), Ordering::Relaxed);
        locked
    }

    fn mac(&self, key: &[u8; KEY_BYTES], value: &[u8]) -> [u8; 32] {
        let mut mac = blake3::Hasher::new_keyed(&self.secret);
        mac.update(b"function").update(key).update(value);
        *mac.finalize().as_bytes()
    }

    fn load(&self, key: &[u8; KEY_BYTES]) -> Option<Vec<u8>> {
        let (at, length) = {
            let mut entries = self.entries();
            if !entries.places.contains_key(key) {
                entries.refresh(&self.file).ok()?;
            }
            *entries.places.get(key)?
        };
        let mut value = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut value, at).ok()?;
        let mut mac = [0; 32];
        self.file.read_exact_at(&mut mac, at.checked_sub(HEADER_BYTES - KEY_BYTES as u64)?).ok()?;
        // Damaged, not written yet by its process, or of a file that began anew in the meantime.
        (mac == self.mac(key, &value)).then_some(value)
    }

    fn store(&self, key: [u8; KEY_BYTES], value: &[u8]) -> io::Result<()> {
        let length = u32::try_from(value.len()).ok().filter(|length| *length <= VALUE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a function is too large"))?;
        let mut entry = Vec::with_capacity(value.len() + 68);
        entry.extend_from_slice(&key);
        entry.extend_from_slice(&self.mac(&key, value));
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(value);
        let mut entries = self.entries();
        self.lock()?;
        let added = entries.add(&self.file, key, &entry, self.bytes_max);
        self.file.unlock()?;
        added
    }
}

impl Entries {
    /// Reads what was added to the file since. What is no entry, such as what a crash has cut off, is where it ends.
    fn refresh(&mut self, file: &File) -> io::Result<()> {
        let bytes = file.metadata()?.len();
        let mut begin = [0; BEGIN_BYTES];
        let is_file = bytes >= BEGIN_BYTES as u64 && {
            file.read_exact_at(&mut begin, 0)?;
            begin.starts_with(MAGIC)
        };
        if !is_file || begin != self.begin || bytes < self.end {
            let end = if is_file { BEGIN_BYTES as u64 } else { 0 };
            *self = Self { begin, end, ..Self::default() };
        }
        let mut header = [0; HEADER_BYTES as usize];
        while self.end > 0 && self.end + HEADER_BYTES <= bytes {
            file.read_exact_at(&mut header, self.end)?;
            let key = header.first_chunk::<KEY_BYTES>().ok_or(io::ErrorKind::InvalidData)?;
            let length = header.last_chunk::<4>().map_or(u32::MAX, |length| u32::from_le_bytes(*length));
            let at = self.end + HEADER_BYTES;
            if length > VALUE_BYTES_MAX || at + u64::from(length) > bytes {
                break;
            }
            self.places.insert(*key, (at, length));
            self.end = at + u64::from(length);
        }
        Ok(())
    }

    /// Adds an entry to a file that is locked.
    fn add(&mut self, file: &File, key: [u8; KEY_BYTES], entry: &[u8], bytes_max: u64) -> io::Result<()> {
        self.refresh(file)?;
        if self.end == 0 || self.end + entry.len() as u64 > bytes_max {
            let mut begin = [0; BEGIN_BYTES];
            let (magic, number) = begin.split_at_mut(MAGIC.len());
            magic.copy_from_slice(MAGIC);
            number.copy_from_slice(&random().to_le_bytes());
            *self = Self { begin, end: BEGIN_BYTES as u64, ..Self::default() };
            file.set_len(0)?;
            file.write_all_at(&begin, 0)?;
        } else if file.metadata()?.len() > self.end {
            file.set_len(self.end)?; // without what is no entry
        }
        let at = self.end;
        file.write_all_at(entry, at)?;
        self.end = at + entry.len() as u64;
        let length = entry.len() as u64 - HEADER_BYTES;
        self.places.insert(key, (at + HEADER_BYTES, u32::try_from(length).unwrap_or(u32::MAX)));
        Ok(())
    }
}

impl CacheStore for FunctionCache {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Owned(self.load(key.try_into().ok()?)?))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Ok(key) = key.try_into() else { return false };
        let stored = self.store(key, &value);
        stored.inspect_err(|error| tracing::debug!(%error, "a compiled function is not kept")).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(folder: &Path, bytes_max: u64) -> io::Result<FunctionCache> {
        FunctionCache::open_file(folder, bytes_max)
    }

    fn key(number: u8) -> [u8; KEY_BYTES] {
        [number; KEY_BYTES]
    }

    #[test]
    fn functions_are_there_for_other_processes_at_once_and_for_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        assert!(cache.get(&key(1)).is_none());
        assert!(cache.insert(&key(1), b"one".to_vec()) && cache.insert(&key(2), Vec::new()));
        assert_eq!(cache.get(&key(1)).as_deref(), Some(&b"one"[..]));
        let other = open(folder.path(), FILE_BYTES_MAX).unwrap();
        assert_eq!(other.get(&key(1)).as_deref(), Some(&b"one"[..]));
        assert!(cache.insert(&key(3), b"three".to_vec()) && other.insert(&key(4), b"four".to_vec()));
        for (of, number, value) in [(&other, 3, "three"), (&cache, 4, "four"), (&other, 4, "four")] {
            assert_eq!(of.get(&key(number)).as_deref(), Some(value.as_bytes()));
        }
        drop((cache, other));
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        assert_eq!(cache.get(&key(1)).as_deref(), Some(&b"one"[..]));
        assert_eq!(cache.get(&key(2)).as_deref(), Some(&b""[..]));
        assert!(!cache.insert(b"short", Vec::new()) && cache.get(b"short").is_none());
    }

    #[test]
    fn hosts_of_one_process_share_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        let one = FunctionCache::open(folder.path()).unwrap();
        let two = FunctionCache::open(folder.path()).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        drop((one, two));
        FunctionCache::open(folder.path()).unwrap();
    }

    #[test]
    fn what_others_wrote_or_a_crash_cut_off_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        for number in 1..=3 {
            cache.insert(&key(number), vec![number; 100]);
        }
        drop(cache);
        let whole = fs::read(&file).unwrap();
        let mut changed = whole.clone();
        changed[BEGIN_BYTES + 68 + 50] ^= 1;
        changed.truncate(whole.len() - 1);
        fs::write(&file, &changed).unwrap();
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        let found = |number| cache.get(&key(number)).map(Cow::into_owned);
        assert_eq!([1, 2, 3].map(found), [None, Some(vec![2; 100]), None]);
        // The place of the one that was cut off is taken.
        assert!(cache.insert(&key(4), vec![4; 10]) && found(4) == Some(vec![4; 10]));
        assert_eq!(fs::metadata(&file).unwrap().len(), (BEGIN_BYTES + 3 * 68 + 2 * 100 + 10) as u64);
        drop(cache);
        fs::write(folder.path().join("key"), [7; 32]).unwrap();
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        assert_eq!([2, 4].map(|number| cache.get(&key(number))), [None, None], "with the key of another folder");
        drop(cache);
        fs::write(&file, "something else that is longer than what is stored then ".repeat(9)).unwrap();
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        assert!(cache.insert(&key(1), b"one".to_vec()) && cache.get(&key(1)).is_some());
        assert_eq!(fs::read(&file).unwrap().len(), BEGIN_BYTES + 68 + 3);
    }

    #[test]
    fn processes_that_add_at_once_lose_nothing_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let caches: Vec<_> = (0..4).map(|_| open(folder.path(), FILE_BYTES_MAX).unwrap()).collect();
        std::thread::scope(|scope| {
            for (cache, first) in caches.iter().zip([0_u8, 50, 100, 150]) {
                scope.spawn(move || (first..first + 50).all(|number| cache.insert(&key(number), vec![number; 99])));
            }
        });
        for cache in &caches {
            assert!((0..200).all(|number| cache.get(&key(number)).as_deref() == Some(&[number; 99][..])));
        }
    }

    #[test]
    fn a_process_that_keeps_the_lock_holds_up_no_other_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), FILE_BYTES_MAX).unwrap();
        let stopped = File::open(folder.path().join(FILE)).unwrap();
        stopped.lock().unwrap();
        assert!(!cache.insert(&key(1), b"one".to_vec()));
        assert!(cache.is_stuck.load(Ordering::Relaxed), "the next one does not wait");
        stopped.unlock().unwrap();
        assert!(cache.insert(&key(1), b"one".to_vec()) && cache.get(&key(1)).is_some());
        assert!(!cache.is_stuck.load(Ordering::Relaxed));
    }

    #[test]
    fn a_file_that_is_full_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), 500).unwrap();
        for number in 1..=4 {
            assert!(cache.insert(&key(number), vec![number; 100]));
        }
        let found = [1, 2, 3, 4].map(|number| cache.get(&key(number)).is_some());
        assert_eq!(found, [false, false, true, true]);
        // Another process sees that, although the file is as long as it was before.
        let other = open(folder.path(), 500).unwrap();
        for number in 5..=6 {
            assert!(cache.insert(&key(number), vec![number; 100]));
        }
        let found = [3, 4, 5, 6].map(|number| other.get(&key(number)).is_some());
        assert_eq!(found, [false, false, true, true]);
        assert!(other.insert(&key(1), vec![1; 100]) && cache.get(&key(1)).is_some());
        assert!(fs::metadata(folder.path().join(FILE)).unwrap().len() <= 500);
    }
}
