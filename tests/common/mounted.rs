//! A small file system in memory, gone at the end: a disk that really is full when it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where this is 1, tests that need root and have it not pass without having tested anything.
const SKIP: &str = "WATTLE_SKIP_ROOT";

/// The file system.
pub struct Mounted(TempDir);

impl Mounted {
    /// Fails where this process may not mount anything: nothing would be tested, and nobody would see that. `None`
    /// where it was told to pass nevertheless.
    pub fn of(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        let refused = match mount.output() {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let is_skipped = std::env::var_os(SKIP).is_some_and(|value| value == "1");
        assert!(
            is_skipped,
            "no file system can be mounted here, which needs root ({refused}): {SKIP}=1 leaves this out"
        );
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes room, all that is left where there is less.
    pub fn take(&self, bytes: usize) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let page = [1; 4096];
        for _ in 0..bytes.div_ceil(page.len()) {
            if std::io::Write::write_all(&mut file, &page).is_err() {
                break;
            }
        }
        ballast
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, since what is on it may still be about to end.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}
