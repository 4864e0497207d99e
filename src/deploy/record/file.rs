//! A file in the folder of plugins: a line with its format and checksum, and a body.
//!
//! Promises: a file is replaced completely and durably, or not at all; a record states its version and the earliest
//! version of a reader; a damaged file is an error and is never repaired. Must not know: the content of records.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use serde::Deserialize;

use crate::api::Digest;
use crate::deploy::record::error::StoreError;
use crate::deploy::record::values::Values;
use crate::effects::Disk;

/// The extension of a file while it is written, before it replaces another.
pub(crate) const NEW: &str = ".new";
/// The ending of a component.
pub(crate) const WASM: &str = ".wasm";

/// Why a component was not stored, and whether it may have been nevertheless.
pub(crate) struct StoreFailure {
    pub(super) error: StoreError,
    pub(super) is_unknown: bool,
}

pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::Disk { what, error: Arc::new(error) }
}

/// The format of a record.
pub(crate) trait RecordFormat: Sized + PartialEq {
    const FILE: &'static str;
    /// The beginning of its file.
    const MAGIC: &'static str;
    /// The beginning of its file in the previous format.
    const OLD_MAGIC: &'static str;
    /// The version that is written, and the latest that is read.
    const VERSION: u32;

    /// As JSON, without the values of variables.
    fn text(&self, values: &Values) -> Result<String, String>;

    fn parse(text: &str, values: &Values) -> Result<Self, RecordError>;

    /// Parses the previous format.
    fn parse_old(text: &str) -> Result<Self, RecordError>;

    /// The error for damage, with advice.
    fn damaged(why: String) -> StoreError;

    /// The values of the variables in it.
    fn variables(&self) -> BTreeSet<String>;

    /// Whether it contains hashes that depend on the salt.
    fn is_sealed(&self) -> bool {
        !self.variables().is_empty()
    }
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) struct RecordError(pub(crate) String);

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// The part that all versions of records have.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    reader: u32,
}

/// The file of a record.
pub(super) fn text_of(magic: &str, body: &str) -> String {
    format!("{magic}{}\n{body}\n", Digest::of(format!("{body}\n").as_bytes()))
}

/// Parses a record.
pub(super) fn parse<R: RecordFormat>(bytes: &[u8], values: &Values) -> Result<R, StoreError> {
    let damaged = |RecordError(why)| R::damaged(why);
    if bytes.starts_with(R::OLD_MAGIC.as_bytes()) {
        return R::parse_old(body(R::OLD_MAGIC, bytes).map_err(R::damaged)?).map_err(damaged);
    }
    let text = body(R::MAGIC, bytes).map_err(R::damaged)?;
    // first, because everything else may differ in a later release
    let Head { version, reader } = serde_json::from_str(text).map_err(|error| R::damaged(error.to_string()))?;
    if reader > R::VERSION {
        return Err(StoreError::Later { file: R::FILE, version, reader, ours: R::VERSION });
    }
    R::parse(text, values).map_err(damaged)
}

/// The part after the first line of a file, or its damage.
pub(super) fn body<'b>(magic: &str, bytes: &'b [u8]) -> Result<&'b str, String> {
    let damaged = str::to_owned;
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let (head, body) = text.split_once('\n').ok_or_else(|| damaged("it has one line"))?;
    let sum = head.strip_prefix(magic).ok_or_else(|| damaged("it is not of this format, or of a later release"))?;
    if sum.parse() != Ok(Digest::of(body.as_bytes())) {
        return Err(damaged("its checksum is another"));
    }
    Ok(body)
}

/// Replaces a file, durably. If that fails before the rename, nothing is left.
pub(super) fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), StoreFailure> {
    let new = format!("{name}{NEW}");
    let aside = || {
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        // a component is verified by its name whenever it is read
        match name.ends_with(WASM) || read(disk, &new)? == bytes {
            true => Ok(()),
            false => Err(io::Error::other("what was written is not there")),
        }
    };
    let renamed = || disk.rename(&new, name);
    // Before the rename, nothing has happened.
    let named = aside().map_err(failed("write a file")).and_then(|()| renamed().map_err(failed("rename a file")));
    if let Err(error) = named {
        let _ = disk.remove(&new); // it would only take room, which may be the problem
        return Err(StoreFailure { error, is_unknown: false });
    }
    sync_folder(disk)
}

pub(super) fn sync_folder(disk: &dyn Disk) -> Result<(), StoreFailure> {
    disk.sync_folder().map_err(|error| StoreFailure { error: failed("sync the folder")(error), is_unknown: true })
}

pub(super) fn read(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let length = usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(file.read_bytes(0, length)?.into())
}
