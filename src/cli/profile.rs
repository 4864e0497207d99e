//! `wattle profile`: connections by name, kept in a file of the user.
//!
//! Promises: the file is replaced whole or not at all, only this user can read it, and it names secrets by their files
//! but has none itself; every failure names it. Must not know: how a connection is made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::words::plain;
use super::{Exit, Failure, Outcome, Output};
use crate::client::{CertificateFiles, ConnectOptions, ServerAddress, TlsOptions};
use crate::effects;

/// The file in the folder of what users configure.
const FILE: &str = "wattle/profiles.toml";
/// Largest file in bytes: some hundred profiles.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Longest name.
const NAME_BYTES_MAX: usize = 64;
/// Why there is no file.
pub(super) const NO_FOLDER: &str = "neither XDG_CONFIG_HOME nor HOME names a directory for profiles.toml";

/// Manage connections to buses by name
///
/// Profiles are kept in $XDG_CONFIG_HOME/wattle/profiles.toml, by default ~/.config/wattle/profiles.toml. Commands use
/// the profile of --profile or WATTLE_PROFILE; without one, the current profile, unless --server or WATTLE_SERVER
/// names a bus.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle profile add prod --server https://bus.example.org --token-file ~/.secrets/bus
  wattle profile use prod
  wattle status --profile staging"
)]
pub(super) struct ProfileArgs {
    #[command(subcommand)]
    command: ProfileCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ProfileCommand {
    Add(AddArgs),
    Use(UseArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Add a profile
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle profile add staging --server https://staging.example.org --tls-ca ca.pem
  wattle profile add prod --server https://bus.example.org --client-cert me.pem --client-key me.key --force")]
struct AddArgs {
    /// Name of the profile: at most 64 of a-z, 0-9 and `-`
    #[arg(value_parser = name)]
    name: String,

    /// Address of the bus; https:// is TLS, and the default port is 7411
    #[arg(long = "server", value_parser = server, value_name = "[https://]HOST[:PORT]")]
    address: String,

    /// File of the token that says who calls
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Certificate authorities of the bus, in PEM [default: the authorities of the system]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Client certificate that says who calls, in PEM
    #[arg(long, requires = "client_key", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// Private key of the client certificate, in PEM
    #[arg(long, requires = "client_cert", value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// Replace a profile of this name
    #[arg(long)]
    force: bool,
}

/// Make a profile the current one
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle profile use prod
  wattle profile use --none")]
struct UseArgs {
    /// Name of the profile
    #[arg(value_parser = name, required_unless_present = "none")]
    name: Option<String>,

    /// Have no current profile
    #[arg(long, conflicts_with = "name")]
    none: bool,
}

/// List the profiles; the current one is marked
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle profile list
  wattle profile list -o json | jq -r '.[] | select(.current) | .server'")]
struct ListArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Remove a profile; the files that it names stay
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle profile remove staging")]
struct RemoveArgs {
    /// Name of the profile
    #[arg(value_parser = name)]
    name: String,
}

/// A name of a profile.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match text {
        "" => Err("the name is empty".to_owned()),
        _ if text.len() > NAME_BYTES_MAX => Err(format!("a name has at most {NAME_BYTES_MAX} letters")),
        _ if !text.bytes().all(is_known) => Err("a name has only a-z, 0-9 and `-`".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn server(text: &str) -> Result<String, String> {
    text.parse::<ServerAddress>().map(|_| text.to_owned())
}

/// Where the profiles of this user are; `None` if the environment does not say.
pub(super) fn path() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(folder.join(FILE))
}

/// How a bus is reached: an address, and the files of who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// It is there in each profile of a file.
    pub(super) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_key: Option<PathBuf>,
}

impl Profile {
    /// Why it cannot be one.
    fn check(&self) -> Result<(), String> {
        let server = self.server.as_ref().ok_or("`server` is missing")?;
        let address: ServerAddress = server.parse().map_err(|why| format!("`server` is no address: {why}"))?;
        let files = [
            ("token_file", &self.token_file),
            ("tls_ca", &self.tls_ca),
            ("client_cert", &self.client_cert),
            ("client_key", &self.client_key),
        ];
        for (key, file) in files {
            if let Some(file) = file.as_ref().filter(|file| !file.is_absolute()) {
                return Err(format!("`{key}` is {}, which has to be an absolute path", file.display()));
            }
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err("`client_cert` and `client_key` need each other".to_owned());
        }
        let certificate = self.client_cert.clone().zip(self.client_key.clone());
        let tls = TlsOptions {
            authorities: self.tls_ca.clone(),
            certificate: certificate.map(|(chain, key)| CertificateFiles { chain, key }),
        };
        ConnectOptions { tls, ..ConnectOptions::default() }.tls_for(&address).map(drop)
    }
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    profile: BTreeMap<String, Profile>,
}

/// The profiles of a user, and their file.
#[derive(Debug)]
pub(super) struct ProfileFile {
    path: PathBuf,
    profiles: Profiles,
}

impl ProfileFile {
    /// Reads the file. One that does not exist has no profiles.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let profiles = match fs::File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
                read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                parsed(&text).map_err(|why| format!("{}: {why}", path.display()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Profiles::default(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(Self { path: path.to_owned(), profiles })
    }

    /// The profile of this name.
    pub(super) fn get(&self, name: &str) -> Result<Profile, String> {
        self.profiles.profile.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.profiles.profile.keys().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "no profile".to_owned() } else { format!("only {}", known.join(", ")) };
            format!("{} has no profile `{name}`, {known}; `wattle profile add` makes one", self.path.display())
        })
    }

    /// The profile that counts where nothing else is said.
    pub(super) fn current(&self) -> Result<Option<Profile>, String> {
        let Some(current) = &self.profiles.current else { return Ok(None) };
        self.profiles.profile.get(current).cloned().map(Some).ok_or_else(|| {
            format!(
                "{} says that `{current}` is the current profile, and has none of this name: `wattle profile use NAME` \
                 chooses another one, `wattle profile use --none` none",
                self.path.display()
            )
        })
    }

    /// Replaces the file.
    fn write(&self) -> Result<(), String> {
        let fault = |why: &dyn std::fmt::Display| format!("cannot write {}: {why}", self.path.display());
        let text = toml::to_string(&self.profiles).map_err(|error| fault(&error))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(fault(&format_args!("it would be larger than {} KiB", FILE_BYTES_MAX >> 10)));
        }
        // Where the file is a link to that of a repository, it stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path.parent() {
            effects::create_private(folder).map_err(|error| fault(&error))?;
        }
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        let written = effects::write_private(&new, text.as_bytes()).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| {
            drop(fs::remove_file(&new));
            fault(&error)
        })
    }
}

fn parsed(text: &str) -> Result<Profiles, String> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} KiB", FILE_BYTES_MAX >> 10));
    }
    let profiles: Profiles = toml::from_str(text).map_err(|error| {
        // Without the line itself: it may contain a token that was pasted into the file.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })?;
    for (key, profile) in &profiles.profile {
        name(key).and_then(|_| profile.check()).map_err(|why| format!("profile `{key}`: {why}"))?;
    }
    Ok(profiles)
}

/// The file to change.
fn opened() -> Result<ProfileFile, Failure> {
    let path = path().ok_or_else(|| Failure::new(Exit::Usage, NO_FOLDER))?;
    ProfileFile::read(&path).map_err(|why| Failure::new(Exit::Usage, why))
}

pub(super) fn run(args: &ProfileArgs) -> Outcome {
    let mut file = opened()?;
    let mut out = anstream::stdout().lock();
    match &args.command {
        ProfileCommand::Add(args) => {
            let is_current = file.profiles.current.as_ref() == Some(&args.name);
            add(&mut file, args)?;
            file.write().map_err(Failure::failed)?;
            let hint = if is_current { "" } else { "; `wattle profile use` makes it the current one" };
            writeln!(out, "added profile `{}` to {}{hint}", args.name, plain(&file.path.display().to_string()))?;
        }
        ProfileCommand::Use(args) => {
            if let Some(name) = &args.name {
                file.get(name).map_err(|why| Failure::new(Exit::Usage, why))?;
            }
            file.profiles.current.clone_from(&args.name);
            file.write().map_err(Failure::failed)?;
            match &args.name {
                Some(name) => writeln!(out, "`{name}` is the current profile")?,
                None => writeln!(out, "there is no current profile")?,
            }
        }
        ProfileCommand::List(args) => list(&file.profiles, args.output, &mut out)?,
        ProfileCommand::Remove(args) => {
            file.get(&args.name).map_err(|why| Failure::new(Exit::Usage, why))?;
            file.profiles.profile.remove(&args.name);
            let was_current = file.profiles.current.take_if(|current| *current == args.name).is_some();
            file.write().map_err(Failure::failed)?;
            let hint = if was_current { "; it was the current one, and now there is none" } else { "" };
            writeln!(out, "removed profile `{}`{hint}", args.name)?;
        }
    }
    Ok(out.flush()?)
}

fn add(file: &mut ProfileFile, args: &AddArgs) -> Outcome {
    if !args.force && file.profiles.profile.contains_key(&args.name) {
        let (path, name) = (file.path.display(), &args.name);
        return Err(Failure::failed(format!("{path} has a profile `{name}` already; --force replaces it")));
    }
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_ref().map(std::path::absolute).transpose();
        let path = path.map_err(|error| Failure::failed(format!("the current directory is not known: {error}")))?;
        match &path {
            Some(path) if path.to_str().is_none() => {
                Err(Failure::new(Exit::Usage, format!("{} is not UTF-8, as the file of profiles is", path.display())))
            }
            _ => Ok(path),
        }
    };
    let profile = Profile {
        server: Some(args.address.clone()),
        token_file: absolute(&args.token_file)?,
        tls_ca: absolute(&args.tls_ca)?,
        client_cert: absolute(&args.client_cert)?,
        client_key: absolute(&args.client_key)?,
    };
    profile.check().map_err(|why| Failure::new(Exit::Usage, format!("profile `{}`: {why}", args.name)))?;
    file.profiles.profile.insert(args.name.clone(), profile);
    Ok(())
}

fn list(profiles: &Profiles, output: Output, out: &mut dyn Write) -> io::Result<()> {
    let is_current = |name: &String| profiles.current.as_ref() == Some(name);
    if output == Output::Json {
        let list: Vec<_> =
            profiles.profile.iter().map(|(name, profile)| json(name, profile, is_current(name))).collect();
        return writeln!(out, "{}", json!(list));
    }
    let server = |profile: &Profile| plain(profile.server.as_deref().unwrap_or_default());
    let name_width = profiles.profile.keys().map(String::len).max().unwrap_or(0).max(4);
    let width = profiles.profile.values().map(|profile| server(profile).chars().count()).max().unwrap_or(0).max(6);
    writeln!(out, "  {:name_width$}  {:width$}  CALLER", "NAME", "SERVER")?;
    for (name, profile) in &profiles.profile {
        let mark = if is_current(name) { '*' } else { ' ' };
        let file = |path: &PathBuf| plain(&path.display().to_string());
        let token = profile.token_file.as_ref().map(|path| format!("token {}", file(path)));
        let certificate = profile.client_cert.as_ref().map(|path| format!("certificate {}", file(path)));
        let caller: Vec<_> = token.into_iter().chain(certificate).collect();
        let caller = if caller.is_empty() { "-".to_owned() } else { caller.join(", ") };
        writeln!(out, "{mark} {name:name_width$}  {:width$}  {caller}", server(profile))?;
    }
    Ok(())
}

/// A profile for programs. Paths are those of secrets, and never what is in them.
fn json(name: &str, profile: &Profile, is_current: bool) -> serde_json::Value {
    json!({
        "name": name,
        "current": is_current,
        "server": profile.server,
        "token_file": profile.token_file,
        "tls_ca": profile.tls_ca,
        "client_cert": profile.client_cert,
        "client_key": profile.client_key,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn profile(server: &str) -> Profile {
        Profile { server: Some(server.to_owned()), ..Profile::default() }
    }

    fn file(path: &Path) -> ProfileFile {
        ProfileFile::read(path).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_and_only_this_user_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/wattle/profiles.toml");
        let mut new = file(&path);
        let strange = PathBuf::from("/a \"b\"\n= ü\\/token");
        new.profiles.current = Some("prod".to_owned());
        new.profiles.profile.insert("dev-1".to_owned(), profile("127.0.0.1"));
        new.profiles.profile.insert("prod".to_owned(), Profile { token_file: Some(strange), ..profile("https://bus") });
        new.write().unwrap();
        assert_eq!(file(&path).profiles, new.profiles);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        // One that was open to others is not after the next write, and a link stays one.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        ProfileFile { path: link.clone(), profiles: Profiles::default() }.write().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((mode(&path), file(&path).profiles), (0o600, Profiles::default()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.toml");
        let before = "[profile.a]\nserver = \"a\"\n";
        fs::write(&path, before).unwrap();
        let mut changed = file(&path);
        let long = PathBuf::from(format!("/{}", "x".repeat(300 << 10)));
        changed.profiles.profile.insert("b".to_owned(), Profile { token_file: Some(long), ..profile("b") });
        let why = changed.write().unwrap_err();
        assert!(why.contains("256 KiB") && why.contains("profiles.toml"), "{why}");
        // The new file cannot be written where a folder has its name.
        changed.profiles.profile.remove("b");
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        fs::create_dir(&new).unwrap();
        assert!(changed.write().unwrap_err().contains("profiles.toml"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_with_its_name_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.toml");
        let large = format!("# {}", "x".repeat(300 << 10));
        for (text, words) in [
            ("current = ", "line 1"),
            ("curent = \"x\"", "curent"),
            ("[profile.a]\nserver = \"a\"\ntoken = \"hunter2\"", "line 3: unknown field `token`"),
            ("[profile.a]\ntoken_file = \"/t\"", "`server` is missing"),
            ("[profile.a]\nserver = \"ftp://a\"", "ftp"),
            ("[profile.a]\nserver = \"a\"\ntoken_file = \"token\"", "absolute"),
            ("[profile.a]\nserver = \"a\"\nclient_key = \"/k\"", "need each other"),
            ("[profile.a]\nserver = \"http://a\"\ntls_ca = \"/ca\"", "plain text"),
            ("[profile.UP]\nserver = \"a\"", "a-z"),
            (&large, "256 KiB"),
        ] {
            fs::write(&path, text).unwrap();
            let why = ProfileFile::read(&path).unwrap_err();
            assert!(why.contains(words) && why.contains("profiles.toml"), "{text:.60}: {why}");
            assert!(!why.contains("hunter2") && !why.contains('\n'), "{why}");
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(ProfileFile::read(&path).unwrap_err().contains("profiles.toml"));
        assert!(ProfileFile::read(folder.path()).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn names_are_bounded() {
        for right in ["a", "prod-2", &"x".repeat(64)] {
            assert_eq!(name(right).as_deref(), Ok(right));
        }
        for wrong in ["", "A", "a b", "a.b", "../x", "ä", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_list_marks_the_current_profile() {
        let mut profiles = Profiles { current: Some("b".to_owned()), ..Profiles::default() };
        profiles.profile.insert("a".to_owned(), profile("a"));
        let token_file = Some(PathBuf::from("/t"));
        profiles.profile.insert("b".to_owned(), Profile { token_file, ..profile("https://bus") });
        let shown = |output| {
            let mut out = Vec::new();
            list(&profiles, output, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = "  NAME  SERVER       CALLER\n  a     a            -\n* b     https://bus  token /t\n";
        assert_eq!(shown(Output::Text), text);
        let json: serde_json::Value = serde_json::from_str(&shown(Output::Json)).unwrap();
        assert_eq!((&json[0]["current"], &json[1]["current"]), (&json!(false), &json!(true)));
        assert_eq!((&json[1]["token_file"], &json[1]["tls_ca"]), (&json!("/t"), &json!(null)));
    }
}
