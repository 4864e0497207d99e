//! What files say, in short: their own bytes, and those of what they refer to.
//!
//! Promises: the same files in the same place, with the same variables and schemas, have the same digest, whatever a release
//! makes of them. Whether a plugin is there is no part of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ConfigValue, Found, Merged, Plan, PluginSource, Source, Surroundings, check_on, diagnostic::Diagnostic};
use crate::api::Base;

/// A digest of what files say. Values of variables are in it, so it is not to be kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said([u8; 32]);

impl Said {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of any bytes that say what files say.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Surroundings, and what was asked of them.
struct Heard<'s> {
    of: &'s dyn Surroundings,
    variables: RefCell<BTreeMap<String, Option<String>>>,
    folders: RefCell<BTreeMap<PathBuf, bool>>,
    texts: RefCell<BTreeMap<PathBuf, Option<String>>>,
}

impl Surroundings for Heard<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        let value = self.of.variable(name);
        self.variables.borrow_mut().insert(name.to_owned(), value.clone());
        value
    }

    fn at(&self, path: &Path) -> Found {
        let found = self.of.at(path);
        self.folders.borrow_mut().insert(path.to_owned(), matches!(found, Found::Folder { .. }));
        found
    }

    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        let text = self.of.text(path, bytes_max);
        self.texts.borrow_mut().insert(path.to_owned(), text.clone().ok());
        text
    }

    fn config_schema(&self, plugin: &PluginSource) -> Result<Option<String>, String> {
        self.of.config_schema(plugin)
    }

    fn ports(&self, plugin: &PluginSource, told: &BTreeMap<String, ConfigValue>) -> Option<Vec<String>> {
        self.of.ports(plugin, told)
    }
}

/// As [`super::check`], and what the files say. Relative paths start from `here`, which is a part of that.
pub fn check_said(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    here: &Path,
) -> (Option<Plan>, Vec<Diagnostic>, Said) {
    let (merged, diagnostics, said) = check_said_on(sources, surroundings, here, (&Base::default(), false));
    (merged.map(|merged| merged.plan), diagnostics, said)
}

/// As [`check_on`], and what the files say by themselves, whatever is applied. Relative paths start from `here`, which is a part
/// of that.
pub fn check_said_on(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    here: &Path,
    (base, prune): (&Base, bool),
) -> (Option<Merged>, Vec<Diagnostic>, Said) {
    let heard = Heard {
        of: surroundings,
        variables: RefCell::default(),
        folders: RefCell::default(),
        texts: RefCell::default(),
    };
    let (merged, diagnostics) = check_on(sources, &heard, base, prune);
    let mut hasher = blake3::Hasher::new_derive_key("wattle topology files 1");
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let bytes = |path: &Path| here.join(path).as_os_str().as_encoded_bytes().to_vec();
    for Source { path, text } in sources {
        part(b"source");
        part(&bytes(path));
        part(text.as_bytes());
    }
    for (name, value) in heard.variables.into_inner() {
        part(if value.is_some() { b"variable" } else { b"no variable" });
        part(name.as_bytes());
        part(value.unwrap_or_default().as_bytes());
    }
    for (path, _) in heard.folders.into_inner().into_iter().filter(|(_, is_folder)| *is_folder) {
        part(b"folder");
        part(&bytes(&path));
    }
    for (path, text) in heard.texts.into_inner() {
        part(b"text");
        part(&bytes(&path));
        part(text.unwrap_or_default().as_bytes());
    }
    (merged, diagnostics, Said(*hasher.finalize().as_bytes()))
}
