//! A file: the content that a process sees, the durable content, and the blocks in which they differ.
//!
//! Promises:
//! - In a block that is neither `dirty` nor `doubtful`, `contents` and `synced` are equal, with zeroes after the end of
//!   either.
//! - The cost of a sync depends on the dirty blocks, that of a write on its bytes; neither depends on the length of the
//!   file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{BLOCK_BYTES, Survival, UnsyncedChange};

#[derive(Default)]
pub(super) struct File {
    /// Its name, or its last one.
    pub(super) name: Arc<str>,
    /// The folder, as a process sees it, contains the file.
    pub(super) is_named: bool,
    pub(super) handles: usize,
    pub(super) contents: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Blocks that the next sync makes durable.
    dirty: BTreeSet<usize>,
    /// Blocks whose sync has failed.
    doubtful: BTreeSet<usize>,
    /// A sync of the whole disk lost data of this file: as in Linux, the next sync of the file fails as well.
    is_to_be_told: bool,
}

/// Block `block` of these contents, shorter or empty at the end.
fn block_of(contents: &[u8], block: usize) -> &[u8] {
    let start = (block * BLOCK_BYTES).min(contents.len());
    let end = (start + BLOCK_BYTES).min(contents.len());
    contents.get(start..end).unwrap_or_default()
}

/// Writes `bytes` at `position`, and fills a gap before it with zeroes.
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

/// Applies the outcome of the new `block`, which begins at `position`. The caller decides the length.
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

/// Number of blocks of a length.
pub(super) fn blocks(length: usize) -> usize {
    length.div_ceil(BLOCK_BYTES)
}

impl File {
    /// A new file with one open handle; the folder names it.
    pub(super) fn created() -> Self {
        Self { handles: 1, ..Self::default() }
    }

    pub(super) fn durable(name: &str, contents: Vec<u8>) -> Self {
        Self { name: name.into(), is_named: true, synced: contents.clone(), contents, ..Self::default() }
    }

    /// Marks blocks as changed.
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
            // the removed part is zeroes from now on, also if the file grows again
            self.touch(length / BLOCK_BYTES..blocks(self.contents.len()));
        }
        // the added part is zeroes in both versions
        self.contents.resize(length, 0);
    }

    /// Truncates the durable content as well.
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

    /// Handles a failed sync of the whole disk.
    pub(super) fn fail_sync_all(&mut self) {
        self.is_to_be_told |= !self.dirty.is_empty();
        self.fail_sync();
    }

    /// Returns once whether the file's own sync must fail for earlier losses.
    pub(super) fn take_told(&mut self) -> bool {
        std::mem::take(&mut self.is_to_be_told)
    }

    pub(super) fn crash(&self, name: &str, choose: &mut dyn FnMut(UnsyncedChange<'_>) -> Survival) -> Vec<u8> {
        let mut left = self.synced.clone();
        for block in self.dirty.union(&self.doubtful).copied() {
            let new = block_of(&self.contents, block);
            // a truncated block is decided by the length
            if !new.is_empty() {
                survive(&mut left, new, block * BLOCK_BYTES, choose(UnsyncedChange::Block { name, block }));
            }
        }
        let is_old =
            self.contents.len() != self.synced.len() && choose(UnsyncedChange::Length { name }) == Survival::Old;
        left.resize(if is_old { self.synced.len() } else { self.contents.len() }, 0);
        left
    }

    pub(super) fn takes_room(&self) -> bool {
        self.is_named || self.handles > 0
    }
}
