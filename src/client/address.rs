//! Where a bus is: a host and a port, of which the port may be left out, and for clients whether it speaks TLS.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The default port of a bus.
pub const DEFAULT_PORT: u16 = 7411;

/// A host, by name or by number, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host; a number of IPv6 without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port: as given, or the default one.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn is_ipv6(host: &str) -> bool {
    // An address of one link names the interface as well.
    let (number, zone) = host.split_once('%').map_or((host, None), |(number, zone)| (number, Some(zone)));
    let is_name = |zone: &str| {
        !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    number.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is not a port, which is a number up to 65535"))
}

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// Encrypted with TLS 1.2 or 1.3.
    Https,
}

/// The address of a bus as its clients write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// `None` if it is left open.
    pub scheme: Option<Scheme>,
    pub address: Address,
}

impl FromStr for ServerAddress {
    type Err = String;

    /// An [`Address`]; `http://` or `https://` may stand before it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some((scheme, _)) => return Err(format!("the scheme {scheme} is not spoken, only http and https are")),
        };
        let rest = if scheme.is_some() { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
        Ok(Self { scheme, address: Address::without_scheme(rest)? })
    }
}

impl FromStr for Address {
    type Err = String;

    /// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, or a number of IPv6 alone; `http://` may stand before it.
    fn from_str(text: &str) -> Result<Self, String> {
        let ServerAddress { scheme, address } = text.parse()?;
        match scheme {
            Some(Scheme::Https) => Err("only clients write https://; --tls-cert lets a bus speak TLS".to_owned()),
            Some(Scheme::Http) | None => Ok(address),
        }
    }
}

impl Address {
    fn without_scheme(rest: &str) -> Result<Self, String> {
        if let Some(rest) = rest.strip_prefix('[') {
            let (host, behind) = rest.split_once(']').ok_or("the bracket is not closed")?;
            if !is_ipv6(host) {
                return Err(format!("`{host}` is not an IPv6 address"));
            }
            let port = match behind.strip_prefix(':') {
                Some(text) => port(text)?,
                None if behind.is_empty() => DEFAULT_PORT,
                None => return Err(format!("`{behind}` behind the bracket is not a port")),
            };
            return Ok(Self { host: host.to_owned(), port });
        }
        if is_ipv6(rest) {
            return Ok(Self { host: rest.to_owned(), port: DEFAULT_PORT });
        }
        let (host, port) = match rest.split_once(':') {
            Some((host, text)) if !text.contains(':') => (host, port(text)?),
            Some(_) => {
                return Err(
                    "it has several colons: an IPv6 address with a port is in brackets, `[::1]:7411`".to_owned()
                );
            }
            None => (rest, DEFAULT_PORT),
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        match host.chars().find(|letter| !letter.is_alphanumeric() && !"-._".contains(*letter)) {
            Some(letter) => Err(format!("no host has {letter:?} in its name")),
            None => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_be_a_name_or_a_number_and_the_port_may_be_left_out() {
        for (text, host, port, shown) in [
            ("localhost", "localhost", 7411, "localhost:7411"),
            ("localhost:80", "localhost", 80, "localhost:80"),
            ("127.0.0.1", "127.0.0.1", 7411, "127.0.0.1:7411"),
            ("127.0.0.1:0", "127.0.0.1", 0, "127.0.0.1:0"),
            ("bus-1.example_net.org:65535", "bus-1.example_net.org", 65535, "bus-1.example_net.org:65535"),
            ("::1", "::1", 7411, "[::1]:7411"),
            ("[::1]", "::1", 7411, "[::1]:7411"),
            ("[::1]:80", "::1", 80, "[::1]:80"),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
            ("http://localhost:80/", "localhost", 80, "localhost:80"),
            ("http://[::1]:80", "::1", 80, "[::1]:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn clients_say_whether_the_bus_speaks_tls_or_leave_it_open() {
        for (text, scheme, shown) in [
            ("bus", None, "bus:7411"),
            ("http://bus/", Some(Scheme::Http), "bus:7411"),
            ("https://bus", Some(Scheme::Https), "bus:7411"),
            ("https://[::1]:80/", Some(Scheme::Https), "[::1]:80"),
        ] {
            let server: ServerAddress = text.parse().unwrap();
            assert_eq!((server.scheme, server.address.to_string().as_str()), (scheme, shown), "{text}");
        }
        for wrong in ["https://", "https:///", "bus/", "https://bus/path", "wss://bus", "https://u@bus"] {
            assert!(wrong.parse::<ServerAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for (text, words) in [
            ("", "host is missing"),
            (":7411", "host is missing"),
            ("https://localhost", "--tls-cert"),
            ("ftp://localhost", "ftp"),
            ("http://http://localhost", "not a port"),
            ("localhost:", "not a port"),
            ("localhost:x", "not a port"),
            ("localhost:65536", "65535"),
            ("localhost:-1", "not a port"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("user@host", "'@'"),
            ("1:2:3", "brackets"),
            ("[::1", "not closed"),
            ("[x]:1", "not an IPv6 address"),
            ("[::1]80", "not a port"),
            ("[::1%]:80", "not an IPv6 address"),
            ("localhost\n", "\\n"),
        ] {
            let why = text.parse::<Address>().unwrap_err();
            assert!(why.contains(words), "{text:?}: {why}");
        }
    }
}
