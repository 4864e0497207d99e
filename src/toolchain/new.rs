//! New plugin projects: folders that build by themselves.
//!
//! Plugins in Rust of one folder are one Cargo workspace, so that common dependencies are built once:
//!
//! ```text
//!   the folder around it is a workspace ───────────────> the plugin is a member of it
//!   no package is in the folder around it or below it ─> that is a workspace from now on
//!   any other folder ──────────────────────────────────> the plugin is a workspace of its own
//! ```
//!
//! A workspace would take in whatever package is below it, so none begins around others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::language::Language;
use super::scaffold::{self, SDK_FOLDER};
use crate::deploy::sources;

/// A plugin that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlugin {
    pub name: String,
    pub language: Language,
    /// The folder around its own.
    pub parent: PathBuf,
}

/// Why there is no new folder.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The name cannot be one.
    #[error("`{name}` cannot be a plugin's name: {why}")]
    Name {
        name: String,
        /// The problem with it.
        why: &'static str,
    },
    /// There is something already.
    #[error("{} exists and is not empty: choose another name, or remove it first", folder.display())]
    Exists { folder: PathBuf },
    /// A file could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Where a new plugin belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workspace {
    /// To the workspace that the folder around it is.
    Joined,
    /// To a new workspace in the folder around it.
    Begun,
    /// It is one of its own, for this reason.
    Own(&'static str),
}

/// A folder that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedPlugin {
    pub folder: PathBuf,
    /// The file with the handler.
    pub handler: PathBuf,
    /// Where a plugin in Rust belongs.
    pub workspace: Option<Workspace>,
}

/// Writes the folder.
///
/// # Errors
/// When the name cannot be one, when the folder is there and not empty, or when it cannot be written.
pub fn create(plugin: &NewPlugin) -> Result<CreatedPlugin, NewError> {
    let NewPlugin { name, language, parent } = plugin;
    if let Some(why) = wrong_name(name) {
        return Err(NewError::Name { name: name.clone(), why });
    }
    let folder = parent.join(name);
    if !is_empty(&folder)? {
        return Err(NewError::Exists { folder });
    }
    let handler = folder.join(scaffold::handler(*language).unwrap_or_default());
    let workspace = match language {
        Language::Rust => Some(create_in_workspace(name, parent, &folder)?),
        _ => None,
    };
    if workspace.is_none() {
        for file in scaffold::files(*language) {
            write(&folder.join(file.0), &scaffold::content(file, name, ""))?;
        }
    }
    Ok(CreatedPlugin { folder, handler, workspace })
}

/// Writes the folder of a plugin in Rust, and the workspace that it belongs to.
fn create_in_workspace(name: &str, parent: &Path, folder: &Path) -> Result<Workspace, NewError> {
    let workspace = workspace(parent);
    let (top, sdk) = match workspace {
        Workspace::Joined | Workspace::Begun => (parent, format!("../{SDK_FOLDER}")),
        Workspace::Own(_) => (folder, SDK_FOLDER.to_owned()),
    };
    let text = |text: &str| scaffold::text(text, name, &sdk);
    // An SDK that exists belongs to the user.
    let has_sdk = top.join(SDK_FOLDER).join("Cargo.toml").exists();
    for file in scaffold::files(Language::Rust) {
        let is_of_sdk = scaffold::is_of_sdk(file.0);
        if !(is_of_sdk && has_sdk) {
            let path = if is_of_sdk { top.join(file.0) } else { folder.join(file.0) };
            write(&path, &scaffold::content(file, name, &sdk))?;
        }
    }
    let manifest = folder.join(MANIFEST);
    let member = text(scaffold::MEMBER);
    let own = format!("{member}\n{}\n# A folder of its own, wherever it lies.\n[workspace]\n", scaffold::PROFILE);
    let is_own = matches!(workspace, Workspace::Own(_));
    write(&manifest, if is_own { own.as_bytes() } else { member.as_bytes() })?;
    if workspace != Workspace::Joined {
        for (path, of) in scaffold::BESIDE.into_iter().filter(|(path, _)| !top.join(path).exists()) {
            write(&top.join(path), of.as_bytes())?;
        }
    }
    // Last: a workspace has no member that is not there.
    let manifest = top.join(MANIFEST);
    match workspace {
        Workspace::Own(_) => {}
        Workspace::Begun => {
            write(&manifest, format!("{}{}", text(scaffold::WORKSPACE), scaffold::PROFILE).as_bytes())?;
        }
        Workspace::Joined => {
            let failed = |source| NewError::Write { path: manifest.clone(), source };
            let before = fs::read_to_string(&manifest).map_err(failed)?;
            if let Some(joined) = joined(&before, name) {
                write(&manifest, joined.as_bytes())?;
            }
        }
    }
    Ok(workspace)
}

/// The manifest of a package or workspace in Rust.
const MANIFEST: &str = "Cargo.toml";

/// Where a plugin in a folder belongs.
fn workspace(parent: &Path) -> Workspace {
    match fs::read_to_string(parent.join("Cargo.toml")) {
        Ok(manifest) if manifest.lines().any(|line| line.trim() == "[workspace]") => return Workspace::Joined,
        Ok(_) => return Workspace::Own("the folder around it is a package"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return Workspace::Own("the manifest around it cannot be read"),
    }
    let (mut is_around, mut count) = (false, 0);
    sources(parent, &mut |path, _| {
        count += 1;
        is_around |= path.file_name().is_some_and(|name| name == "Cargo.toml");
    });
    match () {
        () if is_around => Workspace::Own("there are other packages below the folder around it"),
        () if count > LOOKED_AT_MAX => Workspace::Own("there is much in the folder around it"),
        () => Workspace::Begun,
    }
}

/// Files and folders below a folder that is to be a workspace: one with more is not for plugins alone.
const LOOKED_AT_MAX: usize = 5_000;

/// The manifest of a workspace with another member; none where it is one already.
fn joined(manifest: &str, name: &str) -> Option<String> {
    let mut at = 0;
    let (mut is_within, mut begins) = (false, None);
    for line in manifest.split_inclusive('\n') {
        let (text, from) = (line.trim(), at);
        at += line.len();
        if text.starts_with('[') {
            is_within = text == "[workspace]";
            begins = if is_within { Some(at) } else { begins };
        } else if is_within && text.strip_prefix("members").is_some_and(|rest| rest.trim_start().starts_with('=')) {
            let list = from + manifest.get(from..)?.find('[')? + 1;
            let members = manifest.get(list..)?.split(']').next()?;
            let is_there = [name, "*"].iter().any(|member| members.contains(&format!("\"{member}\"")));
            let (head, tail) = manifest.split_at_checked(list)?;
            let separator = if members.trim().is_empty() { "" } else { ", " };
            return (!is_there).then(|| format!("{head}\"{name}\"{separator}{}", tail.trim_start_matches(' ')));
        }
    }
    let (head, tail) = manifest.split_at_checked(begins?)?;
    Some(format!("{head}members = [\"{name}\"]\n{tail}"))
}

/// Names of packages, and of folders that tools make, that this one would get in the way of.
const TAKEN: [&str; 12] = [
    "wattle",
    "wattle-plugin",
    "target",
    "venv",
    "test",
    "core",
    "std",
    "alloc",
    "proc-macro",
    "serde",
    "wit-bindgen",
    "node-modules",
];

/// Words that one of the languages does not take for a name. A name that is good in one is good in all.
const KEYWORDS: &str = "\
    abstract alignas alignof and anytype as asm assert async auto await become bool box break case catch chan char \
    class const continue crate debugger def default defer del delete do double dyn elif else enum errdefer except \
    explicit export extends extern fallthrough false final finally float fn for friend from func function gen \
    global go goto if impl implements import in inline instanceof int interface is lambda let long loop macro map \
    match mod move mut mutable namespace new noexcept none nonlocal not null nullptr operator or override package \
    pass priv private protected pub public raise range ref register restrict return select self short signed \
    sizeof static struct super switch template this throw trait true try type typedef typename typeof union \
    unreachable unsafe unsigned unsized use using var virtual void volatile where while with xor yield";

const NAME_CHARACTERS_MAX: usize = 64;

fn wrong_name(name: &str) -> Option<&'static str> {
    let letter = |c: char| c.is_ascii_lowercase();
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains(['/', '\\']) {
        Some("it is a path; say where with `--in FOLDER`")
    } else if !name.starts_with(letter) {
        Some("it must begin with a lower-case letter")
    } else if !name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-') || name.ends_with('-') {
        Some("it may have lower-case letters, digits, and `-` between them")
    } else if name.len() > NAME_CHARACTERS_MAX {
        Some("it is longer than 64 characters")
    } else if KEYWORDS.split(' ').any(|word| word == name) {
        Some("it is a word of a language of plugins")
    } else if TAKEN.contains(&name) {
        Some("a package that it uses, or a folder, has this name")
    } else {
        None
    }
}

fn is_empty(folder: &Path) -> Result<bool, NewError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(source) => Err(NewError::Write { path: folder.to_owned(), source }),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), NewError> {
    let failed = |source| NewError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_crate_a_subscriber_and_a_folder_can_have() {
        for good in ["greet", "greet-2", "a"] {
            assert_eq!(wrong_name(good), None, "{good}");
        }
        for bad in [
            "", "Greet", "2greet", "greet_it", "greet-", "a b", "../greet", "gruß", "match", "lambda", "func", "serde",
            "-x",
        ] {
            assert!(wrong_name(bad).is_some(), "{bad:?}");
        }
        assert!(wrong_name(&"x".repeat(65)).is_some());
    }

    #[test]
    fn plugins_beside_each_other_are_one_workspace_that_takes_in_nothing_else() {
        let around = tempfile::tempdir().unwrap();
        let new = |parent: &Path, name: &str| {
            create(&NewPlugin { name: name.into(), language: Language::Rust, parent: parent.to_owned() }).unwrap()
        };
        let read = |path: &str| fs::read_to_string(around.path().join(path)).unwrap();
        let shop = around.path().join("shop");
        assert_eq!(new(&shop, "one").workspace, Some(Workspace::Begun));
        assert_eq!(new(&shop, "two").workspace, Some(Workspace::Joined));
        assert!(read("shop/Cargo.toml").contains("members = [\"two\", \"one\"]"), "{}", read("shop/Cargo.toml"));
        assert!(
            read("shop/two/Cargo.toml").contains("path = \"../wattle-plugin\"")
                && read("shop/Cargo.toml").contains("lto")
        );
        assert!(shop.join("wattle-plugin/src/lib.rs").is_file() && !shop.join("two/wattle-plugin").exists());
        // Around those, and in a package, there is none.
        assert!(matches!(new(around.path(), "three").workspace, Some(Workspace::Own(_))));
        assert!(read("three/Cargo.toml").ends_with("[workspace]\n") && !around.path().join("Cargo.toml").exists());
        assert!(matches!(new(&around.path().join("three"), "four").workspace, Some(Workspace::Joined)));
        fs::create_dir(around.path().join("package")).unwrap();
        fs::write(around.path().join("package/Cargo.toml"), "[package]\n").unwrap();
        assert!(matches!(new(&around.path().join("package"), "five").workspace, Some(Workspace::Own(_))));
        assert!(new(&around.path().join("package"), "six").folder.join("wattle-plugin/Cargo.toml").is_file());
    }

    #[test]
    fn a_member_is_added_to_whatever_list_there_is() {
        for (before, after) in [
            ("[workspace]\n", Some("[workspace]\nmembers = [\"x\"]\n")),
            ("[workspace]\nmembers = []\n", Some("[workspace]\nmembers = [\"x\"]\n")),
            (
                "[a]\nmembers = []\n[workspace]\n# members\nmembers=[\n  \"a\",\n]\n",
                Some("[a]\nmembers = []\n[workspace]\n# members\nmembers=[\"x\", \n  \"a\",\n]\n"),
            ),
            ("[workspace]\nmembers = [\"*\"]\n", None),
            ("[workspace]\nmembers = [\"x\"]\n", None),
        ] {
            assert_eq!(joined(before, "x").as_deref(), after, "{before}");
        }
    }

    #[test]
    fn a_folder_of_each_language_is_what_its_list_says_with_the_name_in_it() {
        for language in Language::ALL.into_iter().filter(|language| *language != Language::Rust) {
            let parent = tempfile::tempdir().unwrap();
            let plugin = NewPlugin { name: "greet-all".into(), language, parent: parent.path().to_owned() };
            let created = create(&plugin).unwrap();
            assert_eq!(Language::of(&created.folder), Some(language));
            assert!(created.handler.is_file() && created.workspace.is_none(), "{}", created.handler.display());
            for (path, content) in scaffold::files(language) {
                let written = fs::read(created.folder.join(path)).unwrap();
                let marks = written.windows(2).filter(|two| two == b"{{").count();
                assert!(!scaffold::is_of_sdk(path) && marks == 0 || written == *content, "{language:?}: {path}");
            }
            let topology = fs::read_to_string(created.folder.join("topology.yaml")).unwrap();
            assert!(topology.contains("greet-all"), "{topology}");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let args = NewPlugin { name: "greet".into(), language: Language::Rust, parent: parent.path().to_owned() };
        fs::create_dir(parent.path().join("greet")).unwrap();
        create(&args).unwrap();
        assert!(matches!(create(&args), Err(NewError::Exists { .. })));
        fs::write(parent.path().join("file"), "").unwrap();
        let onto_a_file = NewPlugin { name: "file".into(), ..args };
        assert!(matches!(create(&onto_a_file), Err(NewError::Exists { .. })));
    }
}
