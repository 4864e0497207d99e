//! Compiled code on disk, so that a start does not compile what it compiled before.
//!
//! An entry is named after the component's hash and the engine's settings. Compiled code is machine code that runs
//! unchecked, so an entry is loaded only when it is exactly what this module once wrote; anything else is compiled again
//! and replaced. Whoever may write to the folder may run code as this process: it is created for its owner only.
//!
//! ```text
//! magic 16 | wasm hash 32 | engine 32 | hash of the code 32 | code …
//! ```

use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::digest::Digest;

/// The version in it changes with the layout.
const MAGIC: &[u8; 16] = b"wattle code v001";

/// Entries beyond this are removed, the oldest first. A Rust plugin's is 0.4 MB, a Python one's 35 MB.
const FOLDER_BYTES_MAX: u64 = 1 << 30;

const EXTENSION: &str = "code";

pub(super) struct Cache {
    folder: PathBuf,
    engine: Digest,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Cache> {
        create_private_folder(folder)?;
        let mut hasher = EngineHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { folder: folder.to_owned(), engine: Digest::from(*hasher.0.finalize().as_bytes()) })
    }

    /// The component, when it was compiled before with these settings.
    pub(super) fn load(&self, engine: &Engine, wasm: &Digest) -> Option<Component> {
        let path = self.path(wasm);
        let entry = fs::read(&path).ok()?;
        let Some(code) = self.verified(&entry, wasm) else {
            tracing::warn!(path = %path.display(), "an entry of the code cache is damaged: compiling again");
            return None;
        };
        #[allow(unsafe_code, reason = "the only way to load compiled code; see SAFETY")]
        // SAFETY: the bytes are what `Component::serialize` gave for an engine with the same settings and version: they
        // match a checksum that `store` computed from exactly that, and cannot change between the check and here.
        let component = unsafe { Component::deserialize(engine, code) };
        match component {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), "an entry of the code cache does not load: {error:#}");
                None
            }
        }
    }

    /// Keeps a component's code. A failure is logged: the cache only saves time.
    pub(super) fn store(&self, component: &Component, wasm: &Digest) {
        if let Err(error) = self.try_store(component, wasm) {
            let folder = self.folder.display();
            tracing::warn!(%folder, "could not keep compiled code, it will be compiled again next time: {error}");
        }
    }

    fn try_store(&self, component: &Component, wasm: &Digest) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);

        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let mut entry = Vec::with_capacity(HEADER_BYTES + code.len());
        entry.extend_from_slice(&self.header(&code, wasm));
        entry.extend_from_slice(&code);
        // Written aside and renamed, so that no reader sees half of it, whatever other processes do.
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        let aside = self.folder.join(format!("{}.{}.{write}.new", wasm.short(), std::process::id()));
        let done = fs::write(&aside, &entry).and_then(|()| fs::rename(&aside, self.path(wasm)));
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
        let code = Digest::of(code);
        let parts: [&[u8]; 4] = [MAGIC, wasm.as_bytes(), self.engine.as_bytes(), code.as_bytes()];
        for (to, from) in header.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        header
    }

    fn verified<'a>(&self, entry: &'a [u8], wasm: &Digest) -> Option<&'a [u8]> {
        let (header, code) = entry.split_at_checked(HEADER_BYTES)?;
        (*header == self.header(code, wasm)).then_some(code)
    }

    /// Removes what exceeds the folder's size, and what an interrupted write left.
    fn prune(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder)?.filter_map(Result::ok) {
            // Another process may remove the same files.
            let Ok(about) = file.metadata() else { continue };
            let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let path = file.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => entries.push((changed, about.len(), path)),
                Some("new") if changed.elapsed().is_ok_and(|age| age.as_secs() > 3600) => fs::remove_file(path)?,
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

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Feeds what wasmtime hashes of its settings to BLAKE3, whose result is the same in every process.
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
