//! Rights: a verb, and the resource that it is for.

use std::fmt;
use std::str::FromStr;

/// A kind of use of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Append events to a topic.
    Publish,
    /// Read the events of a topic.
    Read,
    /// Read and import the state of a subscriber's handler.
    State,
    /// See status, settings, versions, and lineage without the data of events.
    Inspect,
    /// Pause, resume, seek, release, redrive, drop, take snapshots; of the bus: confirm the clock.
    Operate,
    /// Take events of a subscriber whose handler runs outside, and settle them.
    Consume,
    /// Deploy, promote, pin and roll back versions of a plugin, and compare them.
    Deploy,
    /// Read and change the topology of a namespace; of the bus: delete the data of removed topics.
    Apply,
    /// Write a backup of the whole bus.
    Backup,
    /// Read metrics.
    Metrics,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 10] = [
        Self::Publish,
        Self::Read,
        Self::State,
        Self::Inspect,
        Self::Operate,
        Self::Consume,
        Self::Deploy,
        Self::Apply,
        Self::Backup,
        Self::Metrics,
    ];

    /// The verb as access files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::State => "state",
            Self::Inspect => "inspect",
            Self::Operate => "operate",
            Self::Consume => "consume",
            Self::Deploy => "deploy",
            Self::Apply => "apply",
            Self::Backup => "backup",
            Self::Metrics => "metrics",
        }
    }

    /// The kinds of resources that it can be a right to.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Publish | Self::Read => &[Kind::Topics],
            Self::State | Self::Consume | Self::Deploy => &[Kind::Subscribers],
            Self::Inspect => &[Kind::Topics, Kind::Subscribers, Kind::Bus],
            Self::Operate => &[Kind::Subscribers, Kind::Bus],
            Self::Apply => &[Kind::Namespaces, Kind::Bus],
            Self::Backup | Self::Metrics => &[Kind::Bus],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no right `{0}`")]
pub struct UnknownVerb(String);

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or_else(|| UnknownVerb(text.to_owned()))
    }
}

/// A set of verbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verbs(u16);

impl Verbs {
    pub(super) fn insert(&mut self, verb: Verb) {
        self.0 |= 1 << verb as u16;
    }

    pub(super) fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u16) != 0
    }
}

/// A kind of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Topics,
    Subscribers,
    /// All topics and subscribers of a namespace.
    Namespaces,
    Bus,
}

/// What a caller asks for. Names are full ones: `NAMESPACE/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    Topic(&'a str),
    Subscriber(&'a str),
    /// All of a namespace, also what is not declared yet: allowed by a pattern of a rule for all of its topics or
    /// subscribers (`NAMESPACE/*`).
    Namespace(&'a str),
    /// What belongs to no topic and no subscriber: allowed by a rule with `bus: true`.
    Bus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_read_back_from_its_word() {
        for verb in Verb::ALL {
            assert_eq!(verb.to_string().parse(), Ok(verb));
        }
        assert_eq!("Publish".parse::<Verb>().unwrap_err().to_string(), "there is no right `Publish`");
    }

    #[test]
    fn a_set_has_the_verbs_that_were_put_into_it() {
        let mut verbs = Verbs::default();
        verbs.insert(Verb::Read);
        verbs.insert(Verb::Metrics);
        let found: Vec<_> = Verb::ALL.into_iter().filter(|verb| verbs.contains(*verb)).collect();
        assert_eq!(found, [Verb::Read, Verb::Metrics]);
    }
}
