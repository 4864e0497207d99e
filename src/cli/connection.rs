//! Where the bus is, how it is reached, and as whom: flags, variables, and profiles.
//!
//! Promises: a flag counts before its variable, both before the profile that is named, that before the current one, and
//! that before the default. What belongs to a profile goes to no other bus unless the profile is named: with an address
//! of its own, a command does not use the current one. A command connects each time to the same bus as the same caller.
//! Must not know: what a command asks.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use super::profile::{self, Profile, ProfileFile};
use super::{args, say};
use crate::client::{CertificateFiles, Client, ClientError, ConnectOptions, Patience, Secret, TlsOptions, Token};

/// The token itself. It has no flag: arguments are visible to all users of a machine.
const TOKEN_VARIABLE: &str = "WATTLE_TOKEN";

/// Where help texts have the arguments of a connection. It is said for each of them: those of the commands come after.
const HEADING: &str = "Connection";

/// How the bus is reached: every command that talks to one has this, and no other way to it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArg {
    /// Address of the bus; https:// is TLS, and the default port is 7411 [default: that of the current profile, else
    /// 127.0.0.1:7411]
    #[arg(long, help_heading = HEADING, env = "WATTLE_SERVER", value_name = "[https://]HOST[:PORT]")]
    server: Option<String>,

    /// Longest wait for an answer or progress of the bus, such as 10s; `none` or 0 waits without limit [default: 30s,
    /// and 5m where it compiles plugins]
    #[arg(long, help_heading = HEADING, env = "WATTLE_TIMEOUT", value_parser = timeout, value_name = "TIME")]
    timeout: Option<Timeout>,

    /// Connect as this profile says (`wattle profile`); other flags and variables of the connection take precedence.
    /// Without it, the current profile counts where no address is given
    #[arg(long, env = "WATTLE_PROFILE", value_parser = profile::name, value_name = "NAME")]
    #[arg(help_heading = HEADING, hide_short_help = true)]
    profile: Option<String>,

    /// File of the token that says who calls; it is read again when it changes. Without a file, WATTLE_TOKEN is the
    /// token itself
    #[arg(long, env = "WATTLE_TOKEN_FILE", value_name = "FILE")]
    #[arg(help_heading = HEADING, hide_short_help = true)]
    token_file: Option<PathBuf>,

    /// Certificate authorities of the bus, in PEM [default: the authorities of the system]
    #[arg(long, env = "WATTLE_TLS_CA", value_name = "FILE")]
    #[arg(help_heading = HEADING, hide_short_help = true)]
    tls_ca: Option<PathBuf>,

    /// Client certificate that says who calls, in PEM
    #[arg(long, env = "WATTLE_CLIENT_CERT", requires = "client_key", value_name = "FILE")]
    #[arg(help_heading = HEADING, hide_short_help = true)]
    client_cert: Option<PathBuf>,

    /// Private key of the client certificate, in PEM
    #[arg(long, env = "WATTLE_CLIENT_KEY", requires = "client_cert", value_name = "FILE")]
    #[arg(help_heading = HEADING, hide_short_help = true)]
    client_key: Option<PathBuf>,

    /// What all this comes to, once it is known.
    #[arg(skip)]
    target: OnceLock<Target>,
}

/// A bus, and how to connect to it.
#[derive(Debug, Clone)]
struct Target {
    server: String,
    tls: TlsOptions,
    token: Option<Token>,
    /// The file of the token.
    token_file: Option<PathBuf>,
}

/// How long the bus is waited for; `None`: as long as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timeout(Option<Duration>);

/// The default timeout, and the one where the bus compiles plugins.
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_COMPILING: Duration = Duration::from_secs(300);

fn timeout(text: &str) -> Result<Timeout, String> {
    match text {
        "none" | "0" => Ok(Timeout(None)),
        _ => {
            let time = args::duration(text).map_err(|error| format!("{error}, or `none`"))?;
            Ok(Timeout((time > Duration::ZERO).then_some(time)))
        }
    }
}

impl ServerArg {
    fn patience(&self) -> Patience {
        match self.timeout {
            Some(Timeout(time)) => Patience::of(time),
            None => Patience { compiling: Some(TIMEOUT_COMPILING), ..Patience::of(Some(TIMEOUT)) },
        }
    }

    /// Connects to the bus.
    pub(super) async fn connect(&self) -> Result<Client, ClientError> {
        if self.target.get().is_none() {
            let target = self.target()?;
            target.warn();
        }
        self.connect_for(self.patience()).await
    }

    /// The same, with another patience and without a word.
    pub(super) async fn connect_for(&self, patience: Patience) -> Result<Client, ClientError> {
        let Target { server, tls, token, .. } = self.target()?.clone();
        Client::connect_with(&server, ConnectOptions { patience, tls, token }).await
    }

    /// The address of the bus, as far as it is known before a connection.
    pub(super) fn address(&self) -> &str {
        match self.target.get() {
            Some(target) => &target.server,
            None => self.server.as_deref().unwrap_or(args::DEFAULT_LISTEN),
        }
    }

    fn target(&self) -> Result<&Target, ClientError> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let token = std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        let found = self.resolve(token, profile::path().as_deref());
        let target = found.map_err(|why| ClientError::Options { server: self.address().to_owned(), why })?;
        Ok(self.target.get_or_init(|| target))
    }

    /// What the flags, a token in the environment, and the file of profiles come to.
    fn resolve(&self, token: Option<OsString>, file: Option<&Path>) -> Result<Target, String> {
        let profile = self.profile(file)?.unwrap_or_default();
        let token_text = token
            .map(|token| token.into_string().map_err(|_| format!("{TOKEN_VARIABLE} is not a token: it is no text")))
            .transpose()?;
        let (token, token_file) = match (&self.token_file, token_text) {
            (None, Some(text)) => (Some(Token::from_secret(Secret::new(text))), None),
            (file, _) => {
                let file = file.clone().or(profile.token_file);
                (file.clone().map(Token::from_file), file)
            }
        };
        let own = self.client_cert.clone().zip(self.client_key.clone());
        let certificate = own.or(profile.client_cert.zip(profile.client_key));
        let tls = TlsOptions {
            authorities: self.tls_ca.clone().or(profile.tls_ca),
            certificate: certificate.map(|(chain, key)| CertificateFiles { chain, key }),
        };
        let server = self.server.clone().or(profile.server);
        Ok(Target { server: server.unwrap_or(args::DEFAULT_LISTEN.to_owned()), tls, token, token_file })
    }

    /// The profile that counts.
    fn profile(&self, file: Option<&Path>) -> Result<Option<Profile>, String> {
        match (&self.profile, &self.server, file) {
            (Some(name), _, Some(file)) => ProfileFile::read(file)?.get(name).map(Some),
            (Some(name), _, None) => Err(format!("there is no profile `{name}`: {}", profile::NO_FOLDER)),
            (None, None, Some(file)) => ProfileFile::read(file)?.current(),
            (None, _, _) => Ok(None),
        }
    }

    /// The arguments of the connection in a line that is not whole yet.
    pub(super) fn of_unfinished(words: &[String]) -> Option<Self> {
        Self::of_words(words, Line::command())
    }

    fn of_words(words: &[String], command: clap::Command) -> Option<Self> {
        let names = command.get_opts().filter_map(|option| option.get_long()).map(|name| format!("--{name}"));
        let names: Vec<String> = names.collect();
        let mut line = vec!["wattle".to_owned()];
        for (at, word) in words.iter().enumerate() {
            match word.split_once('=') {
                Some((name, _)) if names.iter().any(|known| known == name) => line.push(word.clone()),
                None if names.contains(word) => line.extend(words.get(at + 1).map(|value| format!("{word}={value}"))),
                _ => {}
            }
        }
        let parsed = command.try_get_matches_from(line).and_then(|matches| Line::from_arg_matches(&matches));
        parsed.ok().map(|line| line.server)
    }
}

/// Only the arguments of a connection, of which the last of several counts.
#[derive(Debug, clap::Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    server: ServerArg,
}

impl Target {
    /// Says whether others of this machine can read the secrets.
    fn warn(&self) {
        let key = self.tls.certificate.as_ref().map(|files| &files.key);
        for path in self.token_file.iter().chain(key) {
            if let Some(warning) = warning(path) {
                say(&warning);
            }
        }
    }
}

fn warning(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let is_open = metadata.permissions().mode() & 0o004 != 0;
    is_open.then(|| format!("every user of this machine can read {0}: chmod 600 {0}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Without the environment variables of the test process.
    fn parsed(words: &[&str]) -> Option<ServerArg> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        ServerArg::of_words(&words, Line::command().mut_args(|argument| argument.env(None::<&str>)))
    }

    fn arguments(words: &[&str]) -> ServerArg {
        parsed(words).unwrap()
    }

    /// A file of two profiles, of which `near` is the current one.
    fn profiles() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.toml");
        let text = "current = \"near\"\n\
            [profile.near]\nserver = \"near:1\"\ntoken_file = \"/near/token\"\n\
            [profile.far]\nserver = \"https://far\"\ntoken_file = \"/far/token\"\ntls_ca = \"/far/ca\"\n\
            client_cert = \"/far/cert\"\nclient_key = \"/far/key\"\n";
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    /// The address, the file of the token, that of the authorities, and the certificate.
    fn shown(target: &Target) -> String {
        let path = |path: Option<&PathBuf>| path.map_or("-".to_owned(), |path| path.display().to_string());
        let certificate = target.tls.certificate.as_ref().map(|files| &files.chain);
        let token = match (&target.token, &target.token_file) {
            (Some(_), None) => "text".to_owned(),
            (_, file) => path(file.as_ref()),
        };
        format!("{} {token} {} {}", target.server, path(target.tls.authorities.as_ref()), path(certificate))
    }

    #[test]
    fn flags_count_before_the_named_profile_and_that_before_the_current_one() {
        let (_folder, file) = profiles();
        for (words, token, expected) in [
            (&[][..], None, "near:1 /near/token - -"),
            (&["--token-file", "t"], None, "near:1 t - -"),
            (&["--token-file", "t"], Some("x"), "near:1 t - -"),
            (&[], Some("x"), "near:1 text - -"),
            (&["--tls-ca", "ca"], None, "near:1 /near/token ca -"),
            (&["--profile", "far"], None, "https://far /far/token /far/ca /far/cert"),
            (&["--profile", "far"], Some("x"), "https://far text /far/ca /far/cert"),
            (&["--profile", "far", "--server", "other"], None, "other /far/token /far/ca /far/cert"),
            (
                &["--profile", "far", "--client-cert", "c", "--client-key", "k"],
                None,
                "https://far /far/token /far/ca c",
            ),
            // The token of a profile goes to no bus that is not its own.
            (&["--server", "other"], None, "other - - -"),
            (&["--server", "near:1"], Some("x"), "near:1 text - -"),
        ] {
            let target = arguments(words).resolve(token.map(Into::into), Some(&file)).unwrap();
            assert_eq!(shown(&target), expected, "{words:?} {token:?}");
        }
        let nowhere = arguments(&[]).resolve(None, None).unwrap();
        assert_eq!(shown(&nowhere), "127.0.0.1:7411 - - -");
        let none_yet = arguments(&[]).resolve(None, Some(&file.with_extension("none"))).unwrap();
        assert_eq!(shown(&none_yet), "127.0.0.1:7411 - - -");
    }

    #[test]
    fn a_profile_that_does_not_exist_is_an_error_and_not_the_default() {
        let (_folder, file) = profiles();
        let error = |words: &[&str], file: Option<&Path>| arguments(words).resolve(None, file).unwrap_err();
        let why = error(&["--profile", "fra"], Some(&file));
        assert!(why.contains("`fra`") && why.contains("`far`") && why.contains("profiles.toml"), "{why}");
        assert!(error(&["--profile", "far"], None).contains("HOME"));
        fs::write(&file, "current = \"gone\"\n").unwrap();
        let why = error(&[], Some(&file));
        assert!(why.contains("`gone`") && why.contains("profile use") && why.contains("profiles.toml"), "{why}");
        assert!(arguments(&["--server", "other"]).resolve(None, Some(&file)).is_ok(), "it does not count there");
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_name_is_one_of_a_profile() {
        for wrong in [&["--client-cert", "c"][..], &["--client-key", "k"], &["--profile", "UP"], &["--timeout", "5"]] {
            assert!(parsed(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_connection_of_an_unfinished_line_is_the_one_that_it_names() {
        let server = |line: &str| arguments(&line.split(' ').collect::<Vec<_>>()).server;
        assert_eq!(server("wattle -- wattle tail --server a:1 or"), Some("a:1".to_owned()));
        assert_eq!(server("wattle -- wattle tail --server=b or"), Some("b".to_owned()));
        assert_eq!(server("wattle -- wattle tail --server a --server b or"), Some("b".to_owned()));
        assert_eq!(server("wattle -- wattle tail or"), None);
        assert_eq!(server("wattle -- wattle tail or --server"), None);
        assert_eq!(server("wattle -- wattle tail --profile x --from y --serverless z"), None);
    }

    #[test]
    fn a_secret_that_every_user_can_read_is_pointed_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "x").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(warning(&path).is_some(), is_open, "{mode:o}");
        }
        assert_eq!(warning(&folder.path().join("none")), None);
    }

    #[test]
    fn a_timeout_has_a_unit_or_is_none() {
        assert_eq!(timeout("10s"), Ok(Timeout(Some(Duration::from_secs(10)))));
        assert_eq!(timeout("1m30s"), Ok(Timeout(Some(Duration::from_secs(90)))));
        for none in ["none", "0", "0s"] {
            assert_eq!(timeout(none), Ok(Timeout(None)), "{none}");
        }
        for wrong in ["", "5", "-1s", "5M", "forever"] {
            assert!(timeout(wrong).unwrap_err().contains("`none`"), "{wrong:?}");
        }
    }
}
