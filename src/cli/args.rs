//! The settings of a bus: flags, each also a `WATTLE_*` variable.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;

use crate::app::{Listening, Options};
use crate::client::{Address, DEFAULT_PORT};
use crate::deploy::SecretFolders;
use crate::engine::embedded::Durability;
use crate::model::units::{self, UnitError};
use crate::server::ClientCertificates;
use crate::wasm::HostOptions;

/// The default address, for buses and clients.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:7411";
/// The default data directory.
pub(super) const DEFAULT_DATA: &str = ".wattle";
/// The folder of compiled plugins in that of what can be made again.
const CODE_CACHE: &str = "wattle/code";

/// How the bus listens, whatever it runs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Settings of the bus")]
pub(super) struct BusArgs {
    /// Address to listen on; the default port is 7411, and port 0 takes a free one [default: 127.0.0.1:7411]
    #[arg(long, env = "WATTLE_LISTEN", value_parser = listen, value_name = "HOST[:PORT]")]
    pub(super) listen: Option<SocketAddr>,

    /// Certificate chain of the bus, in PEM: connections are encrypted. The files of TLS and access are read again when
    /// they change
    #[arg(long, env = "WATTLE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, env = "WATTLE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,

    /// Certificate authorities of clients, in PEM: a client certificate says who calls
    #[arg(long, env = "WATTLE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_client_ca: Option<PathBuf>,

    /// Whether each client has to show a certificate
    #[arg(long, env = "WATTLE_TLS_CLIENT_CERTIFICATES", value_enum, default_value_t, value_name = "WHETHER")]
    pub(super) tls_client_certificates: WantedCertificates,

    /// Access file: which callers may do what. What it does not allow is denied; without it, everything is allowed
    #[arg(long, env = "WATTLE_ACCESS", value_name = "FILE")]
    pub(super) access: Option<PathBuf>,

    /// Listen on non-loopback addresses without TLS or without an access file: anyone who can connect may use the whole
    /// API, and read the secrets below --secrets through plugins of their own
    #[arg(long, env = "WATTLE_INSECURE_ALLOW_REMOTE", value_parser = FalseyValueParser::new())]
    pub(super) insecure_allow_remote: bool,

    /// Directory of secrets; `{ file: NAME }` in `config` names a file below it. Separate several with colons.
    /// Clients of the API can read components and, through plugins, files below these directories; only topologies
    /// given at the start may name secrets elsewhere, by absolute path [default: the directories of the topology
    /// files]
    #[arg(long, env = "WATTLE_SECRETS", value_delimiter = ':', value_name = "FOLDER")]
    pub(super) secrets: Vec<PathBuf>,

    /// When a publish is acknowledged: after fsync (`sync`), with an fsync every TIME (`interval=TIME`), or once the
    /// operating system has the data (`os`)
    #[arg(long, env = "WATTLE_DURABILITY", default_value = "sync", value_parser = durability, value_name = "WHEN")]
    pub(super) durability: Durability,

    /// Memory limit of all plugins together, such as 2GiB [default: two instances of four plugins per core]
    #[arg(long, env = "WATTLE_PLUGIN_MEMORY", value_parser = size, value_name = "SIZE")]
    pub(super) plugin_memory: Option<u64>,

    /// Graceful shutdown timeout
    #[arg(long, env = "WATTLE_DRAIN_DEADLINE", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(super) drain_deadline: Duration,
}

/// Whether clients have to show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WantedCertificates {
    /// A client may show one
    #[default]
    Optional,
    /// A client without one is not connected
    Required,
}

impl BusArgs {
    /// Where to listen.
    pub(super) fn listen_or_default(&self) -> SocketAddr {
        self.listen.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT))
    }

    fn listening(&self, address: SocketAddr) -> Listening {
        let wanted = match self.tls_client_certificates {
            WantedCertificates::Optional => ClientCertificates::Optional,
            WantedCertificates::Required => ClientCertificates::Required,
        };
        Listening {
            address,
            insecure_allow_remote: self.insecure_allow_remote,
            certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_authorities: self.tls_client_ca.clone().map(|path| (path, wanted)),
            access: self.access.clone(),
        }
    }

    /// The settings, with those that differ between commands.
    pub(super) fn options(&self, data: PathBuf, listen: SocketAddr) -> Options {
        Options {
            listen: self.listening(listen),
            data,
            durability: self.durability,
            plugin_memory_bytes: self.plugin_memory,
            code_cache: code_cache(),
            keeps_functions: false,
            secrets: SecretFolders::default(),
            allow_loss: false,
            confirm_clock: false,
        }
    }
}

/// The host of a command that an author runs again and again while a plugin is written.
pub(super) fn authors_host() -> HostOptions {
    HostOptions { cache_folder: code_cache(), keeps_functions: true, ..HostOptions::default() }
}

/// Where compiled plugins are cached: in the user's cache folder, not in the project or the data folder. So a cloned
/// project cannot bring machine code along.
pub(super) fn code_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join(CODE_CACHE))
}

/// Where to listen. Of a name with several addresses it is the first of IPv4, as of the address where nothing is said:
/// who looks for the bus by that name tries all.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: Address = text.parse()?;
    let found = (address.host(), address.port()).to_socket_addrs();
    let found: Vec<_> = found.map_err(|error| format!("`{}` is not known here: {error}", address.host()))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    first.ok_or_else(|| format!("`{}` stands for no address", address.host()))
}

fn durability(text: &str) -> Result<Durability, String> {
    match text.split_once('=') {
        None if text == "sync" => Ok(Durability::Sync),
        None if text == "os" => Ok(Durability::Os),
        Some(("interval", time)) => match duration(time)? {
            Duration::ZERO => Err("an interval of nothing is `sync`".to_owned()),
            time => Ok(Durability::Interval(time)),
        },
        _ => Err("write `sync`, `os`, or an interval such as `interval=50ms`".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|error| match error {
        UnitError::NoUnit => format!("`{text}` has no unit: write {}", units::likely(text, &units::TIMES_LIKELY)),
        error => format!("{error}; write a time with its unit, such as 10s or 1m30s"),
    })
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    units::size(text).map_err(|error| match error {
        UnitError::NoUnit => format!("`{text}` has no unit: write {}", units::likely(text, &units::SIZES_LIKELY)),
        error => format!("{error}; write a size with its unit, such as 512MiB or 2GiB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_the_same_for_both_sides() {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT);
        assert_eq!(address.to_string(), DEFAULT_LISTEN);
    }

    #[test]
    fn a_bus_listens_on_names_and_numbers() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:7411"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost", "127.0.0.1:7411"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]:7411"),
        ] {
            assert_eq!(listen(text), Ok(address.parse().unwrap()), "{text}");
        }
        for (wrong, words) in
            [("", "host is missing"), (":7411", "host is missing"), ("no.such.host.invalid", "not known here")]
        {
            assert!(listen(wrong).unwrap_err().contains(words), "{wrong:?}");
        }
    }

    #[test]
    fn durability_is_one_of_three() {
        assert_eq!(durability("sync"), Ok(Durability::Sync));
        assert_eq!(durability("os"), Ok(Durability::Os));
        assert_eq!(durability("interval=50ms"), Ok(Durability::Interval(Duration::from_millis(50))));
        for wrong in ["", "never", "interval", "interval=", "interval=50", "interval=0s", "sync=1s"] {
            assert!(durability(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5").unwrap_err(), "`5` has no unit: write `5ms`, `5s`, `5m`, `5h` or `5d`");
        assert_eq!(size("5").unwrap_err(), "`5` has no unit: write `5B`, `5KiB`, `5MiB` or `5GiB`");
        for wrong in ["", "5", "GiB", "5 parsecs", "-1GiB"] {
            assert!(size(wrong).is_err() && duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
