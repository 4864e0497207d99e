//! A file of the folder of plugins: a line with its format and checksum, and a body.
//!
//! Promises: a file is replaced whole and durably, or not at all; a record says its version, and the earliest version that a reader
//! may be of; a damaged file is an error and is never repaired.
//! Must not know: what records say.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use serde::Deserialize;

use crate::deploy::record::error::StoreError;
use crate::deploy::record::values::Values;
use crate::effects::Disk;
use crate::wasm::Digest;

/// The ending of a file that is being written, and takes the place of another when it is complete.
pub(crate) const NEW: &str = ".new";
/// The ending of a component.
pub(crate) const WASM: &str = ".wasm";

/// Why a component is not on the shelf, and whether it may be all the same.
pub(crate) struct NotKept {
    pub(super) error: StoreError,
    pub(super) is_unknown: bool,
}

pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::Disk { what, error: Arc::new(error) }
}

/// A record: how it is kept, and how it is read.
pub(crate) trait Written: Sized + PartialEq {
    /// Its file.
    const FILE: &'static str;
    /// What its file begins with.
    const MAGIC: &'static str;
    /// What its file began with in the format before.
    const OLD_MAGIC: &'static str;
    /// The version that is written, and the latest that is read.
    const VERSION: u32;

    /// As JSON, without the values of variables.
    fn text(&self, values: &Values) -> Result<String, String>;

    fn parse(text: &str, values: &Values) -> Result<Self, Unread>;

    /// The same in the format before.
    fn parse_old(text: &str) -> Result<Self, Unread>;

    /// That it is damaged, and what to do.
    fn damaged(why: String) -> StoreError;

    /// The values of the variables in it.
    fn variables(&self) -> BTreeSet<String>;

    /// Whether it has something that only the salt can tell again.
    fn is_sealed(&self) -> bool {
        !self.variables().is_empty()
    }
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) struct Unread(pub(crate) String);

impl From<serde_json::Error> for Unread {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// What every record says of itself, whatever else it says.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    reader: u32,
}

/// A record as it is kept.
pub(super) fn text_of(magic: &str, body: &str) -> String {
    format!("{magic}{}\n{body}\n", Digest::of(format!("{body}\n").as_bytes()))
}

/// What a record says.
pub(super) fn parse<R: Written>(bytes: &[u8], values: &Values) -> Result<R, StoreError> {
    let damaged = |Unread(why)| R::damaged(why);
    if bytes.starts_with(R::OLD_MAGIC.as_bytes()) {
        return R::parse_old(body(R::OLD_MAGIC, bytes).map_err(R::damaged)?).map_err(damaged);
    }
    let text = body(R::MAGIC, bytes).map_err(R::damaged)?;
    // first, since of what a later release writes nothing else may be as it was
    let Head { version, reader } = serde_json::from_str(text).map_err(|error| R::damaged(error.to_string()))?;
    if reader > R::VERSION {
        return Err(StoreError::Later { file: R::FILE, version, reader, ours: R::VERSION });
    }
    R::parse(text, values).map_err(damaged)
}

/// What follows the first line of a file, or what is wrong with it.
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

/// Puts a file in the place of the one that may be there, durably. Where that fails before it has its name, nothing is left.
pub(super) fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), NotKept> {
    let new = format!("{name}{NEW}");
    let aside = || {
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        // a component says by its name what it is, whenever it is read
        match name.ends_with(WASM) || read(disk, &new)? == bytes {
            true => Ok(()),
            false => Err(io::Error::other("what was written is not there")),
        }
    };
    let renamed = || disk.rename(&new, name);
    // Until it has its name nothing has happened.
    let named = aside().map_err(failed("write a file")).and_then(|()| renamed().map_err(failed("rename a file")));
    if let Err(error) = named {
        let _ = disk.remove(&new); // it would only take room, which may be what is missing
        return Err(NotKept { error, is_unknown: false });
    }
    sync_folder(disk)
}

pub(super) fn sync_folder(disk: &dyn Disk) -> Result<(), NotKept> {
    disk.sync_folder().map_err(|error| NotKept { error: failed("sync the folder")(error), is_unknown: true })
}

pub(super) fn read(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let length = usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(file.read_bytes(0, length)?.into())
}
