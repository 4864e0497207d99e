//! The digest of files: of their own bytes, and of the files that they refer to.
//!
//! Promises: the same files in the same place, with the same variables and schemas, have the same digest, whatever a
//! release makes of them. Whether a plugin is there is no part of it. Files in which only keys were renamed, as a
//! release asked for, can be recognised ([`FilesDigest::with_former_keys`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::base::check_with;
use super::diagnostic::{Diagnostic, Span};
use super::reader::ReadContext;
use super::{ConfigValue, MergedPlan, PathKind, Plan, PluginSource, Source, Surroundings};
use crate::api::Base;

/// A digest of what files say. Values of variables are in it, so it is not to be kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesDigest {
    digest: [u8; 32],
    /// The digest of the same files with the former names of keys.
    former: [u8; 32],
}

impl FilesDigest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The digest of the same files as they were before keys were renamed, where that was all that was done to them.
    pub fn with_former_keys(&self) -> &[u8; 32] {
        &self.former
    }

    /// Of any bytes that say what files say.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = *blake3::hash(bytes).as_bytes();
        Self { digest, former: digest }
    }
}

/// Surroundings with a record of the questions.
struct RecordedSurroundings<'s> {
    of: &'s dyn Surroundings,
    variables: RefCell<BTreeMap<String, Option<String>>>,
    folders: RefCell<BTreeMap<PathBuf, bool>>,
    texts: RefCell<BTreeMap<PathBuf, Option<String>>>,
}

impl Surroundings for RecordedSurroundings<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        let value = self.of.variable(name);
        self.variables.borrow_mut().insert(name.to_owned(), value.clone());
        value
    }

    fn at(&self, path: &Path) -> PathKind {
        let found = self.of.at(path);
        self.folders.borrow_mut().insert(path.to_owned(), matches!(found, PathKind::Folder { .. }));
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
) -> (Option<Plan>, Vec<Diagnostic>, FilesDigest) {
    let (merged, diagnostics, said) = check_said_on(sources, surroundings, here, (&Base::default(), false));
    (merged.map(|merged| merged.plan), diagnostics, said)
}

/// As [`super::check_on`], and what the files say by themselves, whatever is applied. Relative paths start from `here`,
/// which is a part of that.
pub fn check_said_on(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    here: &Path,
    (base, prune): (&Base, bool),
) -> (Option<MergedPlan>, Vec<Diagnostic>, FilesDigest) {
    let heard = RecordedSurroundings {
        of: surroundings,
        variables: RefCell::default(),
        folders: RefCell::default(),
        texts: RefCell::default(),
    };
    let mut shared = ReadContext::default();
    let (merged, diagnostics) = check_with(sources, &heard, (base, prune), &mut shared);
    let digest = heard.digest(sources, here);
    let former = match shared.former_keys.is_empty() {
        true => digest,
        false => heard.digest(&with_former_keys(sources, &shared.former_keys), here),
    };
    (merged, diagnostics, FilesDigest { digest, former })
}

/// The files with the former names of keys.
fn with_former_keys(sources: &[Source], keys: &BTreeMap<Span, (&str, &str)>) -> Vec<Source> {
    let mut sources = sources.to_vec();
    // from the back, so that places before stay what they are
    for (key, (name, former)) in keys.iter().rev() {
        let (start, end) = (key.start as usize, key.end as usize);
        let text = sources.get_mut(key.source as usize).map(|source| &mut source.text);
        if let Some((text, written)) =
            text.and_then(|text| text.get(start..end).map(str::to_owned).map(|of| (text, of)))
        {
            text.replace_range(start..end, &written.replacen(name, former, 1)); // it may be quoted
        }
    }
    sources
}

impl RecordedSurroundings<'_> {
    fn digest(&self, sources: &[Source], here: &Path) -> [u8; 32] {
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
        for (name, value) in self.variables.borrow().iter() {
            part(if value.is_some() { b"variable" } else { b"no variable" });
            part(name.as_bytes());
            part(value.as_deref().unwrap_or_default().as_bytes());
        }
        for (path, _) in self.folders.borrow().iter().filter(|(_, is_folder)| **is_folder) {
            part(b"folder");
            part(&bytes(path));
        }
        for (path, text) in self.texts.borrow().iter() {
            part(b"text");
            part(&bytes(path));
            part(text.as_deref().unwrap_or_default().as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}
