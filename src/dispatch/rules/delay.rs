//! When an event comes that is to come later: the attributes that say so.
//!
//! ```text
//!   deliverat: 2026-01-31T08:00:00Z    at a time
//!   delay: 90s                         after its append
//! ```

use std::time::Duration;

use crate::model::{AttributeView, EventView, Time};
use crate::{limits, topology};

/// What is behind the name of a topic in that of its hidden topic. No name in a topology has it.
pub(crate) const SUFFIX: &str = "@delayed";
/// What is behind it in that of the topic of those that its lifecycle refuses when they are due.
pub(crate) const REFUSED_SUFFIX: &str = "@refused";
/// The attribute with the time at which an event is to come.
const DELIVER_AT: &str = "deliverat";
/// The attribute with how long it is to come after its append.
const DELAY: &str = "delay";

/// Why an event cannot come later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelayRefused {
    /// Not a time.
    #[error(
        "`deliverat` is not a time: it needs one as RFC 3339 has it, such as 2026-01-31T08:00:00Z, and this is {0:?}"
    )]
    Time(String),
    /// Not a duration.
    #[error("`delay` is not a duration such as 90s or 1h 30m, this is {0:?}: {1}")]
    Duration(String, String),
    /// Later than anybody will wait.
    #[error("`{name}` is too far away: at most {} days are accepted", limits::DELAY_MAX.as_secs() / (24 * 3600))]
    TooLate {
        /// The attribute.
        name: &'static str,
    },
    /// Both attributes.
    #[error("`deliverat` and `delay` are both there: only one of them can say when the event comes")]
    Both,
}

/// When an event comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At a time, Unix nanoseconds.
    At(u64),
    /// So long after its append.
    After(Duration),
}

impl When {
    pub(crate) fn due_ns(self, trusted_time_ns: u64) -> u64 {
        match self {
            Self::At(time_ns) => time_ns,
            Self::After(delay) => trusted_time_ns.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    fn parse(name: &str, value: &str) -> Result<Option<Self>, DelayRefused> {
        match name {
            DELIVER_AT => match Time::parse(value) {
                Some(time) => Ok(Some(Self::at(time))),
                None => Err(DelayRefused::Time(shown(value))),
            },
            DELAY => match topology::duration(value) {
                Ok(delay) if delay > limits::DELAY_MAX => Err(DelayRefused::TooLate { name: DELAY }),
                Ok(delay) => Ok(Some(Self::After(delay))),
                Err(error) => Err(DelayRefused::Duration(shown(value), error.to_string())),
            },
            _ => Ok(None),
        }
    }

    /// What releases took that had other grammars, of events that wait since then.
    fn parse_stored(name: &str, value: &str) -> Option<Self> {
        match name {
            DELIVER_AT => {
                let time = value.parse::<jiff::Timestamp>().ok()?;
                Some(Self::At(u64::try_from(time.as_nanosecond()).unwrap_or(0)))
            }
            DELAY => humantime::parse_duration(value).ok().map(Self::After),
            _ => None,
        }
    }

    fn at(time: Time) -> Self {
        Self::At(time.unix_ns().unwrap_or(if time.second() < 0 { 0 } else { u64::MAX }))
    }
}

fn shown(value: &str) -> String {
    value.chars().take(64).collect()
}

/// Whether an event of these attributes comes later, and that it can.
///
/// # Errors
/// [`DelayRefused`].
pub(crate) fn is_delayed<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    now_ns: u64,
) -> Result<bool, DelayRefused> {
    let mut found = None;
    for (name, value) in attributes {
        if let Some(when) = When::parse(name, value)? {
            check(when, now_ns)?;
            if found.replace(when).is_some() {
                return Err(DelayRefused::Both);
            }
        }
    }
    Ok(found.is_some())
}

fn check(when: When, now_ns: u64) -> Result<(), DelayRefused> {
    match when {
        When::At(time_ns) if Duration::from_nanos(time_ns.saturating_sub(now_ns)) > limits::DELAY_MAX => {
            Err(DelayRefused::TooLate { name: DELIVER_AT })
        }
        _ => Ok(()),
    }
}

/// As [`is_delayed`], of an encoded event.
///
/// # Errors
/// As there.
pub(crate) fn is_event_delayed(event: &EventView<'_>, now_ns: u64) -> Result<bool, DelayRefused> {
    let when = if event.has_delay { when_of(event, When::parse)? } else { None };
    Ok(when.map(|when| check(when, now_ns)).transpose()?.is_some())
}

/// Of an event that waits: at once, where that can no longer be told.
pub(crate) fn when_of_stored(event: &EventView<'_>) -> When {
    let when = when_of(event, |name, value| match When::parse(name, value) {
        Err(error) => When::parse_stored(name, value).map(Some).ok_or(error),
        when => when,
    });
    // it was looked at when it was published
    when.ok().flatten().unwrap_or(When::At(0))
}

fn when_of(
    event: &EventView<'_>,
    parse: impl Fn(&str, &str) -> Result<Option<When>, DelayRefused>,
) -> Result<Option<When>, DelayRefused> {
    let mut found = None;
    for (name, value) in event.attributes() {
        let when = match value {
            AttributeView::Timestamp(time) if name == DELIVER_AT => Some(When::at(time)),
            value => match value.as_text() {
                Some(text) => parse(name, text)?,
                None => parse(name, &value.to_owned().to_string())?,
            },
        };
        if when.is_some() && found.is_some() {
            return Err(DelayRefused::Both);
        }
        found = found.or(when);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    fn of(attributes: &[(&str, &str)]) -> Result<bool, DelayRefused> {
        is_delayed(attributes.iter().copied(), NOW_NS)
    }

    #[test]
    fn only_the_two_attributes_delay_an_event() {
        assert_eq!(of(&[("subject", "s"), ("delays", "3")]), Ok(false));
        assert_eq!(of(&[("delay", "1h 30m")]), Ok(true));
        assert_eq!(of(&[("deliverat", "2030-01-31T08:00:00+02:00")]), Ok(true));
        assert_eq!(of(&[("deliverat", "1999-01-31T08:00:00Z")]), Ok(true), "what is past is due");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (delay, says) in [
            ("5", "the unit is missing"),
            ("5M", "`M` is not a unit: minutes are `m`"),
            ("5min", "minutes are `m`"),
            ("1month", "`month` is not a unit"),
            ("", "a number with a unit is needed"),
            ("-5m", "a number with a unit is needed"),
        ] {
            let refused = of(&[("delay", delay)]).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        for time in ["tomorrow", "20300131T080000Z", "2030-01-31T08:00:00+24:00", "2030-01-31T08:00:00Z[Europe/Paris]"]
        {
            assert_eq!(of(&[("deliverat", time)]), Err(DelayRefused::Time(time.into())));
        }
        assert_eq!(of(&[("delay", "1s"), ("deliverat", "2030-01-31T08:00:00Z")]), Err(DelayRefused::Both));
        assert_eq!(of(&[("delay", "7300d")]), Err(DelayRefused::TooLate { name: "delay" }));
        assert_eq!(of(&[("deliverat", "2199-01-31T08:00:00Z")]), Err(DelayRefused::TooLate { name: "deliverat" }));
    }
}
