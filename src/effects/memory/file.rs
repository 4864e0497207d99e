//! A file: what a process sees of it, what is durable, and which blocks are neither.
//!
//! Promises:
//! - In a block that is neither `dirty` nor `doubtful`, `contents` and `synced` are the same, zeroes where one has
//!   ended.
//! - A sync costs by the blocks that are dirty, a write by its bytes; neither by the length of the file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{BLOCK_BYTES, Survival, Unsynced};

#[derive(Default)]
pub(super) struct File {
    /// The name it has, or had last.
    pub(super) name: Arc<str>,
    /// The folder has it, as a process sees the folder.
    pub(super) is_named: bool,
    pub(super) handles: usize,
    pub(super) contents: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Blocks that the next sync makes durable.
    dirty: BTreeSet<usize>,
    /// Blocks of which a sync has failed.
    doubtful: BTreeSet<usize>,
    /// A sync of the whole disk lost something of it: as Linux does, its own next sync is told as well.
    is_to_be_told: bool,
}

/// The `block`-th block of some contents, shorter or empty where they end.
fn block_of(contents: &[u8], block: usize) -> &[u8] {
    let start = (block * BLOCK_BYTES).min(contents.len());
    let end = (start + BLOCK_BYTES).min(contents.len());
    contents.get(start..end).unwrap_or_default()
}

/// Writes `bytes` at `position`, with zeroes where the contents end in front of it.
fn write(contents: &mut Vec<u8>, bytes: &[u8], position: usize) {
    if bytes.is_empty() {
        return;
    }
    let end = position + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    if let Some(place) = contents.get_mut(position..end) {
        place.copy_from_slice(bytes);
    }
}

/// Leaves of the new `block`, which begins at `position`, what survives. Its length is somebody else's to decide.
fn survive(left: &mut Vec<u8>, block: &[u8], position: usize, survival: Survival) {
    match survival {
        Survival::New => write(left, block, position),
        Survival::Old => {}
        Survival::Torn(length) => write(left, block.get(..usize::from(length)).unwrap_or(block), position),
        Survival::Zeroed => write(left, &[0; BLOCK_BYTES], position),
        Survival::Garbled(bit) => {
            write(left, block, position);
            let bit = usize::from(bit) % (block.len() * 8).max(1);
            if let Some(byte) = left.get_mut(position + bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

/// How many blocks such a length takes.
pub(super) fn blocks(length: usize) -> usize {
    length.div_ceil(BLOCK_BYTES)
}

impl File {
    /// One that whoever creates it has open. It gets its name in the folder.
    pub(super) fn created() -> Self {
        Self { handles: 1, ..Self::default() }
    }

    pub(super) fn durable(name: &str, contents: Vec<u8>) -> Self {
        Self { name: name.into(), is_named: true, synced: contents.clone(), contents, ..Self::default() }
    }

    /// These blocks are something else from now on.
    fn touch(&mut self, blocks: impl Iterator<Item = usize>) {
        for block in blocks {
            self.dirty.insert(block);
            self.doubtful.remove(&block);
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: usize) {
        if !bytes.is_empty() {
            write(&mut self.contents, bytes, position);
            self.touch(position / BLOCK_BYTES..blocks(position + bytes.len()));
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        if length < self.contents.len() {
            // what is cut off is zeroes from now on, also where the file grows again
            self.touch(length / BLOCK_BYTES..blocks(self.contents.len()));
        }
        // what is added differs from `synced` in nothing but that it is there: zeroes either way
        self.contents.resize(length, 0);
    }

    /// What is cut off is cut off of what is durable, too.
    pub(super) fn truncate_durably(&mut self, length: usize) {
        self.contents.truncate(length);
        self.synced.truncate(length);
        self.dirty.retain(|block| *block < blocks(length));
        self.doubtful.retain(|block| *block < blocks(length));
    }

    pub(super) fn sync(&mut self) {
        self.synced.resize(self.contents.len(), 0);
        for block in std::mem::take(&mut self.dirty) {
            write(&mut self.synced, block_of(&self.contents, block), block * BLOCK_BYTES);
        }
    }

    pub(super) fn fail_sync(&mut self) {
        self.doubtful.append(&mut self.dirty);
    }

    /// A sync of the whole disk has failed.
    pub(super) fn fail_sync_all(&mut self) {
        self.is_to_be_told |= !self.dirty.is_empty();
        self.fail_sync();
    }

    /// Whether a sync of its own fails for what was lost before. Once.
    pub(super) fn take_told(&mut self) -> bool {
        std::mem::take(&mut self.is_to_be_told)
    }

    pub(super) fn crash(&self, name: &str, choose: &mut dyn FnMut(Unsynced<'_>) -> Survival) -> Vec<u8> {
        let mut left = self.synced.clone();
        for block in self.dirty.union(&self.doubtful).copied() {
            let new = block_of(&self.contents, block);
            // of one that is cut off the length decides
            if !new.is_empty() {
                survive(&mut left, new, block * BLOCK_BYTES, choose(Unsynced::Block { name, block }));
            }
        }
        let is_old = self.contents.len() != self.synced.len() && choose(Unsynced::Length { name }) == Survival::Old;
        left.resize(if is_old { self.synced.len() } else { self.contents.len() }, 0);
        left
    }

    pub(super) fn takes_room(&self) -> bool {
        self.is_named || self.handles > 0
    }
}
