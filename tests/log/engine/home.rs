//! Where an engine lives while a case runs.

use std::path::Path;

use wattle::engine::Engine;
use wattle::engine::embedded::{EmbeddedEngine, EmbeddedError};
use wattle::engine::memory::MemoryEngine;
use wattle::log::Durability;

/// Opens an engine; what it keeps goes away with the home.
pub(crate) trait Home {
    type Engine: Engine;

    fn open(&self) -> Self::Engine;
}

pub(crate) struct Memory;

impl Memory {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl Home for Memory {
    type Engine = MemoryEngine;

    fn open(&self) -> MemoryEngine {
        MemoryEngine::default()
    }
}

pub(crate) struct OnDisk {
    folder: tempfile::TempDir,
    durability: Durability,
}

impl OnDisk {
    pub(crate) fn new(durability: Durability) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), durability }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn try_open(&self) -> Result<EmbeddedEngine, EmbeddedError> {
        EmbeddedEngine::open(self.folder(), self.durability)
    }
}

impl Home for OnDisk {
    type Engine = EmbeddedEngine;

    fn open(&self) -> EmbeddedEngine {
        self.try_open().unwrap()
    }
}
