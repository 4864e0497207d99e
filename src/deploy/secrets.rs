//! Restricts the files that a topology may use as secrets.
//!
//! Anyone who can connect to a bus may apply a topology, whose plugins get the content of secret files, read with the
//! permissions of the bus. So an applied topology can only name files below folders that were given at the start of the
//! bus. The files of a start are written by those who start the bus, so they may name any file; secrets already in use
//! stay allowed. Relative paths start from those folders, so that a topology means the same from any machine.
//!
//! Relies on: no one else can write to these folders. A link that leads out of them is refused when it is named; one
//! that is created later by someone with write permission is followed. Must not know: who starts the bus, and why these
//! folders were chosen.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::topology::{ConfigValue, Plan};

/// The secret folders of a bus, with absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretFolders(Vec<PathBuf>);

impl SecretFolders {
    /// Absolute paths without repetitions.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut seen = HashSet::new();
        Self(folders.into_iter().filter(|folder| seen.insert(folder.clone())).collect())
    }

    /// Makes the secret paths of a plan absolute, where any file is allowed.
    ///
    /// # Errors
    /// The paths that exist in several folders, as messages; these are unchanged.
    pub fn root(&self, plan: &mut Plan) -> Result<(), Vec<String>> {
        let mut refused = Vec::new();
        each(plan, |of, path| {
            let candidates: Vec<PathBuf> = self.0.iter().map(|folder| folder.join(&*path)).collect();
            let mut there = candidates.iter().filter(|path| path.exists());
            match (there.next(), there.next()) {
                (Some(_), Some(_)) => refused.push(format!("{of} {}", self.in_several(path))),
                // A missing file is reported when it is read.
                (found, _) => *path = found.or(candidates.first()).unwrap_or(path).clone(),
            }
        });
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// The first existing file of a path, where any file is allowed.
    pub(crate) fn first(&self, path: &Path) -> Option<PathBuf> {
        self.0.iter().map(|folder| folder.join(path)).find(|path| path.exists())
    }

    /// Makes the secret paths of a plan absolute that replaces another. Returns the paths that are not allowed, as
    /// messages.
    pub(crate) fn admit(&self, plan: &mut Plan, applied: &Plan) -> Vec<String> {
        let known: HashSet<&Path> = secrets(applied).collect();
        let mut refused = Vec::new();
        each(plan, |of, path| {
            if known.contains(path.as_path()) {
                return;
            }
            match self.find(path) {
                Ok(found) => *path = found,
                Err(why) => refused.push(format!("{of} {why}")),
            }
        });
        refused
    }

    /// The file of a path. A path outside of the folders is refused with the same message whether or not it exists.
    fn find(&self, path: &Path) -> Result<PathBuf, String> {
        // by real location, with links resolved
        let folders: Vec<PathBuf> = self.0.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
        let is_within = |path: &PathBuf| {
            let found = fs::canonicalize(path).ok();
            found.is_some_and(|found| folders.iter().any(|folder| found.starts_with(folder)) && found.is_file())
        };
        // If the path is absolute, each of these is that path.
        let mut candidates: Vec<PathBuf> = self.0.iter().map(|folder| folder.join(path)).collect();
        candidates.dedup();
        candidates.retain(is_within);
        match candidates.as_slice() {
            [] => Err(self.in_none(path)),
            [found] => Ok(found.clone()),
            _ => Err(self.in_several(path)),
        }
    }

    fn in_none(&self, path: &Path) -> String {
        let folders = match self.0.is_empty() {
            true => "this bus has no secret folder".to_owned(),
            false => format!("the secret folders of this bus are {}", self.listed()),
        };
        format!(
            "names the secret `{}`, which is not a file below a secret folder of the bus: {folders}. Put the secret \
             there, or start the bus with another folder (`wattle run --secrets FOLDER`)",
            path.display()
        )
    }

    fn in_several(&self, path: &Path) -> String {
        let (path, folders) = (path.display(), self.listed());
        format!(
            "names the secret `{path}`, which is in several folders of secrets ({folders}): write its absolute path"
        )
    }

    fn listed(&self) -> String {
        self.0.iter().map(|folder| format!("`{}`", folder.display())).collect::<Vec<_>>().join(", ")
    }
}

/// The secret files of a plan's subscribers.
pub(super) fn secrets(plan: &Plan) -> impl Iterator<Item = &Path> {
    plan.subscribers.iter().flat_map(|subscriber| &subscriber.config).filter_map(|(_, value)| match value {
        ConfigValue::SecretFile(path) => Some(path.as_path()),
        ConfigValue::Text(_) | ConfigValue::Variable { .. } => None,
    })
}

/// Calls `change` for each secret path and its setting.
fn each(plan: &mut Plan, mut change: impl FnMut(&str, &mut PathBuf)) {
    for subscriber in &mut plan.subscribers {
        let label = subscriber.label();
        for (name, value) in &mut subscriber.config {
            if let ConfigValue::SecretFile(path) = value {
                change(&format!("subscriber `{label}`: `config.{name}`"), path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two secret folders, `a` and `b`, and another folder, `c`, each with a `token`.
    fn folders() -> (tempfile::TempDir, SecretFolders) {
        let home = tempfile::tempdir().unwrap();
        for folder in ["a", "b", "c"] {
            fs::create_dir(home.path().join(folder)).unwrap();
            fs::write(home.path().join(folder).join("token"), folder).unwrap();
        }
        let secrets = ["a", "b"].map(|folder| home.path().join(folder));
        (home, SecretFolders::new(secrets))
    }

    #[test]
    fn a_path_leads_to_a_file_below_the_folders_or_nowhere() {
        let (home, secrets) = folders();
        let at = |path: &str| home.path().join(path);
        fs::create_dir_all(at("a/deep/er")).unwrap();
        for path in ["a/deep/er/key", "a/own", "b/other"] {
            fs::write(at(path), "x").unwrap();
        }
        symlink(at("c/token"), at("a/out")).unwrap();
        symlink(at("c"), at("a/outside")).unwrap();
        symlink("deep/er/key", at("a/inside")).unwrap(); // as in mounts of container platforms
        symlink(at("b/other"), at("a/across")).unwrap();
        symlink("loop", at("a/loop")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("a/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for (path, found) in [
            ("own", "a/own"),
            ("deep/er/key", "a/deep/er/key"),
            ("inside", "a/inside"),
            ("across", "a/across"),
            ("other", "b/other"),
        ] {
            assert_eq!(secrets.find(Path::new(path)), Ok(at(found)), "{path}");
            assert_eq!(secrets.find(&at(found)), Ok(at(found)), "{path}, absolute");
        }
        let none = ["nothing", "out", "outside/token", "loop", "pipe", "deep", "", ".", "../c/token", "a/own"];
        let absolute = ["c/token", "c/nothing", "a/../c/token", "a/out", "a/outside/token", "a", "a/pipe"].map(at);
        for path in none.map(PathBuf::from).into_iter().chain(absolute).chain(["/etc/passwd".into()]) {
            let why = secrets.find(&path).unwrap_err();
            assert!(why.contains("not a file below a secret folder") && why.contains("--secrets"), "{path:?}: {why}");
        }
        let several = secrets.find(Path::new("token")).unwrap_err();
        assert!(several.contains("several folders"), "{several}");
        assert_eq!(secrets.find(&at("b/token")), Ok(at("b/token")));
        let without = SecretFolders::default().find(&at("a/own")).unwrap_err();
        assert!(without.contains("this bus has no secret folder"), "{without}");
    }
}
