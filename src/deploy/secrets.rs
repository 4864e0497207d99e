//! Which files a topology may name as secrets.
//!
//! Anyone who can connect to a bus may apply a topology, whose plugins are then told what is in the files that it names, read as
//! the user of the bus. So a topology that is applied names files below folders that the start of the bus named, and no
//! others. The files of a start are written by those who start the bus, so they may name any file; what is applied already
//! goes on. A relative path starts from those folders, so that a topology means the same whoever applies it, wherever.
//!
//! Relies on: nobody else writes into these folders. A link that leads out of them is refused where it is named; one that is
//! put there later, by someone who may write there, is followed.
//! Must not know: who starts, and why it is these folders.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::topology::{ConfigValue, Plan};

/// The folders of secrets of a bus, absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretFolders(Vec<PathBuf>);

impl SecretFolders {
    /// Absolute paths of folders, each once.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut seen = HashSet::new();
        Self(folders.into_iter().filter(|folder| seen.insert(folder.clone())).collect())
    }

    /// Makes the paths of secrets absolute in a plan of files that may name any: which ones are in several folders, in words.
    ///
    /// # Errors
    /// As said; those have not changed.
    pub fn root(&self, plan: &mut Plan) -> Result<(), Vec<String>> {
        let mut refused = Vec::new();
        each(plan, |of, path| {
            let candidates: Vec<PathBuf> = self.0.iter().map(|folder| folder.join(&*path)).collect();
            let mut there = candidates.iter().filter(|path| path.exists());
            match (there.next(), there.next()) {
                (Some(_), Some(_)) => refused.push(format!("{of} {}", self.in_several(path))),
                // One that is nowhere is missed where it is read.
                (found, _) => *path = found.or(candidates.first()).unwrap_or(path).clone(),
            }
        });
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// The first file that a path may name, where any may be named.
    pub(crate) fn first(&self, path: &Path) -> Option<PathBuf> {
        self.0.iter().map(|folder| folder.join(path)).find(|path| path.exists())
    }

    /// Makes the paths of secrets absolute in a plan that is to take the place of another: which ones it may not name, in words.
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

    /// The file that a path names. A path outside of the folders is refused in the same words whether or not there is such a file.
    fn find(&self, path: &Path) -> Result<PathBuf, String> {
        // by where they are, whatever links lead there
        let folders: Vec<PathBuf> = self.0.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
        let is_within = |path: &PathBuf| {
            let found = fs::canonicalize(path).ok();
            found.is_some_and(|found| folders.iter().any(|folder| found.starts_with(folder)) && found.is_file())
        };
        // Where the path is absolute, each of these is that path.
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
            true => "this bus has no folder of secrets".to_owned(),
            false => format!("the folders of secrets of this bus are {}", self.listed()),
        };
        format!(
            "names the secret `{}`, which is no file below a folder of secrets of the bus: {folders}. Put the secret there, \
             or start the bus with another folder (`wattle run --secrets FOLDER`)",
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

/// The files that subscribers of a plan name as secrets.
pub(super) fn secrets(plan: &Plan) -> impl Iterator<Item = &Path> {
    plan.subscribers.iter().flat_map(|subscriber| &subscriber.config).filter_map(|(_, value)| match value {
        ConfigValue::SecretFile(path) => Some(path.as_path()),
        ConfigValue::Text(_) | ConfigValue::Variable { .. } => None,
    })
}

/// The same, to be changed, each with the setting that names it.
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

    /// Two folders of secrets, `a` and `b`, and one that is none, `c`, each with a `token`.
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
        symlink("deep/er/key", at("a/inside")).unwrap(); // as secrets are mounted into containers
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
            assert!(why.contains("no file below a folder of secrets") && why.contains("--secrets"), "{path:?}: {why}");
        }
        let several = secrets.find(Path::new("token")).unwrap_err();
        assert!(several.contains("several folders"), "{several}");
        assert_eq!(secrets.find(&at("b/token")), Ok(at("b/token")));
        let without = SecretFolders::default().find(&at("a/own")).unwrap_err();
        assert!(without.contains("this bus has no folder of secrets"), "{without}");
    }
}
