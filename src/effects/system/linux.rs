//! Linux, 5.8 or newer.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, syncfs};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// Makes everything in a folder's file system durable. Reports also what failed since the folder was opened, also of
/// files that another process wrote and closed.
pub(in crate::effects) fn sync_all(folder: &File, _: &Path) -> io::Result<()> {
    Ok(syncfs(folder)?)
}

/// Starts to write what was changed in a part of a file, and does not wait.
pub(in crate::effects) fn start_writing(file: &File, position: u64, length: u64) {
    // This advice starts the writeback, and pages under writeback stay cached.
    let _ = fadvise(file, position, NonZeroU64::new(length), Advice::DontNeed);
}

/// Reserves room for a file up to this length. The file never gets shorter.
pub(in crate::effects) fn allocate(file: &File, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(()); // the system call treats 0 as an error
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::INTR) => {}
            // a file system without preallocation: later writes may find no room
            Err(Errno::OPNOTSUPP) => return file.set_len(length.max(file.metadata()?.len())),
            done => return Ok(done?),
        }
    }
}

/// Time since the machine started. It also counts while the machine is suspended; `Instant` does not.
pub(in crate::effects) fn elapsed() -> Duration {
    let since_boot = clock_gettime(ClockId::Boottime);
    Duration::new(since_boot.tv_sec as u64, since_boot.tv_nsec as u32)
}
