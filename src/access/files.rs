//! The files that an access file names.

use std::path::Path;

/// Reads the files that an access file names.
pub trait Files {
    /// The text of a file, if it has at most `bytes_max` bytes; else the reason, in words.
    ///
    /// # Errors
    /// A reason for the author of the access file.
    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String>;
}
