//! A disk cache of compiled code.
//!
//! Compiled code is machine code that runs unchecked, so only code that this user wrote on this machine is loaded: each
//! entry is authenticated with a random key, created with the folder, that only this user can read. A folder from
//! elsewhere (in a clone or an archive) has no such key, or another one. In addition, the folder and each file must
//! belong to this user, must not be links, and must not be writable for others.
//!
//! ```text
//! key          32 random bytes, mode 0600
//! functions    single functions, of commands for authors: see `functions`
//! WASM-ENGINE.code
//!              magic 16 | wasm hash 32 | engine 32 | MAC 32 | code …        MAC: BLAKE3 with the key, of all the rest
//! ```

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::OFlags;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::api::Digest;

/// The version in it changes with the layout.
const MAGIC: &[u8; 16] = b"wattle code v002";

/// Entries beyond this are removed, the oldest first. A Rust plugin takes 0.4 MB, a Python one 35 MB.
const FOLDER_BYTES_MAX: u64 = 1 << 30;

const EXTENSION: &str = "code";
const KEY: &str = "key";
pub(super) const KEY_BYTES: usize = 32;

/// Mode bits that are forbidden for code.
pub(super) const WRITABLE_FOR_OTHERS: u32 = 0o022;
/// Mode bits that are forbidden for secrets.
const ANYTHING_FOR_OTHERS: u32 = 0o077;

pub(super) struct Cache {
    folder: PathBuf,
    engine: Digest,
    key: [u8; KEY_BYTES],
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Cache> {
        let key = secret(folder)?;
        let mut hasher = EngineHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = Digest::from(*hasher.0.finalize().as_bytes());
        Ok(Cache { folder: folder.to_owned(), engine, key })
    }

    /// Whether there is an entry, which may still turn out to be damaged.
    pub(super) fn has(&self, wasm: &Digest) -> bool {
        self.path(wasm).exists()
    }

    /// The compiled component from the cache, for the same settings.
    pub(super) fn load(&self, engine: &Engine, wasm: &Digest) -> Option<Component> {
        let path = self.path(wasm);
        let entry = match read(&path, WRITABLE_FOR_OTHERS, FOLDER_BYTES_MAX) {
            Ok(entry) => entry,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "an entry of the code cache is not used: {error}");
                return None;
            }
        };
        let Some(code) = self.verified(&entry, wasm) else {
            tracing::warn!(path = %path.display(), "an entry of the code cache is damaged: compiling again");
            return None;
        };
        #[allow(unsafe_code, reason = "the only way to load compiled code; see SAFETY")]
        // SAFETY: the bytes are the output of `Component::serialize` for an engine with the same settings and version:
        // they have a MAC that `store` made of exactly that, with a key that only this user's processes can read. They
        // are in memory, so that they cannot change between the check and here.
        let component = unsafe { Component::deserialize(engine, code) };
        match component {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), "an entry of the code cache does not load: {error:#}");
                None
            }
        }
    }

    /// Stores a component's code. A failure is logged: the cache only saves time.
    pub(super) fn store(&self, component: &Component, wasm: &Digest) {
        if let Err(error) = self.try_store(component, wasm) {
            let folder = self.folder.display();
            tracing::warn!(%folder, "could not keep compiled code, it will be compiled again next time: {error}");
        }
    }

    fn try_store(&self, component: &Component, wasm: &Digest) -> io::Result<()> {
        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let aside = write_aside(&self.folder, &[&self.header(&code, wasm), &code])?;
        // Renamed, so that no reader sees an incomplete file, whatever other processes do.
        let done = fs::rename(&aside, self.path(wasm));
        if done.is_err() {
            let _ = fs::remove_file(&aside);
        }
        done?;
        self.prune()
    }

    fn path(&self, wasm: &Digest) -> PathBuf {
        self.folder.join(format!("{wasm}-{}.{EXTENSION}", self.engine.short()))
    }

    fn header(&self, code: &[u8], wasm: &Digest) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let said: [&[u8]; 3] = [MAGIC, wasm.as_bytes(), self.engine.as_bytes()];
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        for part in said {
            mac.update(part);
        }
        let mac = mac.update(code).finalize();
        for (to, from) in header.iter_mut().zip(said.into_iter().chain([mac.as_bytes().as_slice()]).flatten()) {
            *to = *from;
        }
        header
    }

    fn verified<'a>(&self, entry: &'a [u8], wasm: &Digest) -> Option<&'a [u8]> {
        let (header, code) = entry.split_at_checked(HEADER_BYTES)?;
        // Comparing in constant time would gain nothing: a process that can try thousands of entries can write to the
        // folder.
        (*header == self.header(code, wasm)).then_some(code)
    }

    /// Removes entries beyond the maximum size, and incomplete ones.
    fn prune(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder)?.filter_map(Result::ok) {
            // Another process may remove the same files.
            let Ok(about) = file.metadata() else { continue };
            let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let path = file.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => entries.push((changed, about.len(), path)),
                Some(ASIDE) if changed.elapsed().is_ok_and(|age| age.as_secs() > 3600) => fs::remove_file(path)?,
                _ => {}
            }
        }
        entries.sort();
        let mut excess_bytes = entries.iter().map(|(_, bytes, _)| bytes).sum::<u64>().saturating_sub(FOLDER_BYTES_MAX);
        for (_, bytes, path) in entries {
            if excess_bytes == 0 {
                break;
            }
            fs::remove_file(path)?;
            excess_bytes = excess_bytes.saturating_sub(bytes);
        }
        Ok(())
    }
}

const HEADER_BYTES: usize = 16 + 3 * 32;

/// Whether a folder can hold compiled code; it is created if it does not exist.
///
/// # Errors
/// It cannot, for this reason.
pub fn check_cache(folder: &Path) -> io::Result<()> {
    secret(folder).map(drop)
}

/// The extension of incomplete files.
const ASIDE: &str = "new";

/// The key of a folder that only this user can write to. Both are created if they are not there.
pub(super) fn secret(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Links are not followed.
    let about = fs::symlink_metadata(folder)?;
    if !about.is_dir() {
        return Err(io::Error::other("it is a link"));
    }
    check(&about, WRITABLE_FOR_OTHERS)?;
    key(folder)
}

/// The key of a folder, created if there is none.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY);
    match read_key(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut new = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut new)?;
    let aside = write_aside(folder, &[&new])?;
    // Another process may do the same: the first name counts, and both read that file.
    let named = fs::hard_link(&aside, &path);
    fs::remove_file(&aside)?;
    match named {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read_key(&path),
    }
}

fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let bytes = read(path, ANYTHING_FOR_OTHERS, KEY_BYTES as u64)?;
    bytes.try_into().map_err(|_| io::Error::other("its key is none"))
}

/// Reads a file that belongs to this user.
fn read(path: &Path, forbidden: u32, bytes_max: u64) -> io::Result<Vec<u8>> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    let about = file.metadata()?;
    check(&about, forbidden)?;
    if !about.is_file() || about.len() > bytes_max {
        return Err(io::Error::other("it is not a file of the cache"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default());
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file for this user under a temporary name.
fn write_aside(folder: &Path, parts: &[&[u8]]) -> io::Result<PathBuf> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let aside = folder.join(format!("{}.{write}.{ASIDE}", std::process::id()));
    // Left by a process with the same number.
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written.map(|()| aside)
}

/// Checks that something belongs to this user, and that its mode has no forbidden bits.
pub(super) fn check(about: &Metadata, forbidden: u32) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if about.uid() != user {
        return Err(io::Error::other(format!("it belongs to user {}, and this is user {user}", about.uid())));
    }
    if about.mode() & forbidden != 0 {
        return Err(io::Error::other(format!("its mode is {:o}, so that others may change it", about.mode() & 0o777)));
    }
    Ok(())
}

/// Feeds wasmtime's hash of its settings to BLAKE3, whose result is the same in every process.
struct EngineHasher(blake3::Hasher);

impl Hasher for EngineHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(self.0.finalize().as_bytes()) {
            *to = *from;
        }
        u64::from_le_bytes(first)
    }
}
