//! The identity of a plugin's version.

use crate::api::Digest;
use crate::model::call::Limits;

/// Log lines per second of all plugins before topologies could set a limit.
const LOG_LINES_UNSAID: u32 = 100;

impl Digest {
    /// The digest of a version, without the values of secrets. The layout is a promise: a released digest must not
    /// change for the same inputs (in the first one, those without a secret).
    ///
    /// Every part is preceded by its length or count as a little-endian u64, so that the encoding is unambiguous.
    pub fn of_version<'a>(
        wasm: &Digest,
        config: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
        limits: &Limits,
        ports: &[String],
    ) -> Digest {
        let has_secrets = config.clone().any(|(_, value)| value.is_none());
        let mut parts = Parts::of(if has_secrets { "wattle plugin version 2" } else { "wattle plugin version 1" });
        parts.add(wasm.as_bytes());
        if has_secrets {
            parts.told(config);
        } else {
            parts.add(&(config.clone().count() as u64).to_le_bytes());
            for (key, value) in config {
                parts.add(key.as_bytes());
                parts.add(value.unwrap_or_default().as_bytes());
            }
        }
        let Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second } = limits;
        parts.add(&memory_bytes.to_le_bytes());
        parts.add(&time.as_nanos().to_le_bytes());
        parts.add(&output_bytes.to_le_bytes());
        parts.add(&handles.to_le_bytes());
        parts.add(&log_lines_per_second.to_le_bytes());
        parts.ports(ports);
        parts.end()
    }

    /// The digest of a version's settings in a topology, without the component. Settings that topologies cannot express
    /// are excluded, so that a release that changes them changes no topology.
    pub fn of_settings<'a>(
        config: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
        limits: &Limits,
        ports: &[String],
    ) -> Digest {
        let mut parts = Parts::of("wattle plugin settings 1");
        parts.told(config);
        let Limits { memory_bytes, time, output_bytes, log_lines_per_second, .. } = limits;
        parts.add(&memory_bytes.to_le_bytes());
        parts.add(&time.as_nanos().to_le_bytes());
        parts.add(&output_bytes.to_le_bytes());
        // a setting that older topologies could not express has no effect at its former value; no port has such a name
        if *log_lines_per_second != LOG_LINES_UNSAID {
            parts.add(b"\0log");
            parts.add(&log_lines_per_second.to_le_bytes());
        }
        parts.ports(ports);
        parts.end()
    }
}

struct Parts(blake3::Hasher);

impl Parts {
    fn of(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// A configuration; secrets have no value.
    fn told<'a>(&mut self, config: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone) {
        self.add(&(config.clone().count() as u64).to_le_bytes());
        for (key, value) in config {
            self.add(key.as_bytes());
            self.add(&[u8::from(value.is_some())]);
            self.add(value.unwrap_or_default().as_bytes());
        }
    }

    fn ports(&mut self, ports: &[String]) {
        ports.iter().for_each(|port| self.add(port.as_bytes()));
    }

    fn end(self) -> Digest {
        Digest::from(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn version(wasm: &[u8], config: &[(&str, Option<&str>)], limits: Limits, ports: &[&str]) -> Digest {
        let ports: Vec<_> = ports.iter().map(|port| (*port).to_owned()).collect();
        Digest::of_version(&Digest::of(wasm), config.iter().copied(), &limits, &ports)
    }

    #[test]
    fn a_change_of_anything_is_another_version() {
        let limits = Limits::default();
        let slower = Limits { time: Duration::from_secs(2), ..limits };
        let versions = [
            version(b"x", &[], limits, &["a"]),
            version(b"y", &[], limits, &["a"]),
            version(b"x", &[("a", Some("b"))], limits, &["a"]),
            version(b"x", &[("ab", Some(""))], limits, &["a"]),
            version(b"x", &[("ab", None)], limits, &["a"]),
            version(b"x", &[("ab", None), ("b", Some(""))], limits, &["a"]),
            version(b"x", &[("ab", Some("")), ("b", None)], limits, &["a"]),
            version(b"x", &[], slower, &["a"]),
            version(b"x", &[], limits, &[]),
        ];
        for (i, a) in versions.iter().enumerate() {
            assert!(versions.iter().skip(i + 1).all(|b| a != b), "version {i} is not unique");
        }
    }

    #[test]
    fn settings_are_what_a_topology_says() {
        let of = |config: &[(&str, Option<&str>)], limits, ports: &[String]| {
            Digest::of_settings(config.iter().copied(), &limits, ports)
        };
        let limits = Limits::default();
        let slower = Limits { time: Duration::from_secs(2), ..limits };
        let quieter = Limits { log_lines_per_second: 7, ..limits };
        let settings = [
            of(&[], limits, &[]),
            of(&[("a", Some(""))], limits, &[]),
            of(&[("a", None)], limits, &[]),
            of(&[], slower, &[]),
            of(&[], quieter, &[]),
            of(&[], limits, &["a".to_owned()]),
        ];
        for (i, a) in settings.iter().enumerate() {
            assert!(settings.iter().skip(i + 1).all(|b| a != b), "settings {i} are not unique");
        }
        let other_release = Limits { handles: 7, ..limits };
        assert_eq!(of(&[], other_release, &[]), of(&[], limits, &[]));
    }

    #[test]
    fn a_version_keeps_its_digest_from_release_to_release() {
        let ports = ["accepted", "refused"];
        assert_eq!(
            version(b"\0asm", &[("currency", Some("EUR"))], Limits::default(), &ports).to_string(),
            "50eeee37fd8035f882839c89069a45a4c03c2cec0f2790b254d5673330c3e259",
        );
        assert_eq!(
            version(b"\0asm", &[("currency", Some("EUR")), ("key", None)], Limits::default(), &ports).to_string(),
            "5552e282842c50771ca823215bfe2e65f331d65889a349cfbd6eeb7028e4b753",
        );
    }
}
