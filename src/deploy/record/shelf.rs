//! Components by digest, each in a file of its own.
//!
//! Promises: a component gets its name only after it is durable. Components are written one at a time, and no record
//! waits for one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::Digest;
use crate::deploy::record::error::StoreError;
use crate::deploy::record::file::{StoreFailure, WASM, failed, read, sync_folder, write};
use crate::effects::Disk;

/// Writes components one at a time.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) one_at_a_time: Arc<Mutex<()>>,
}

impl Shelf {
    /// A stored component.
    pub(crate) fn get(&self, wasm: Digest) -> Result<Vec<u8>, StoreError> {
        match read(&*self.disk, &name_of(wasm)) {
            Ok(bytes) if Digest::of(&bytes) == wasm => Ok(bytes),
            Ok(_) => Err(StoreError::Component { wasm, what: "damaged" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Component { wasm, what: "missing" })
            }
            Err(error) => Err(failed("read a component")(error)),
        }
    }

    /// Its length in bytes.
    pub(crate) fn length(&self, wasm: Digest) -> Result<u64, StoreError> {
        let length = self.disk.open(&name_of(wasm)).and_then(|file| file.length());
        length.map_err(failed("read a component"))
    }

    /// Stores a component durably, unless it exists.
    pub(crate) fn put(&self, wasm: Digest, bytes: &[u8]) -> Result<(), StoreFailure> {
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name_of(wasm);
        match read(&*self.disk, &name) {
            // its name may not be durable yet
            Ok(there) if Digest::of(&there) == wasm => sync_folder(&*self.disk),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreFailure { error: failed("read a component")(error), is_unknown: false })
            }
            Ok(_) | Err(_) => write(&*self.disk, &name, bytes),
        }
    }
}

pub(super) fn name_of(wasm: Digest) -> String {
    format!("{wasm}{WASM}")
}
