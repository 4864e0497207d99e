//! Delayed events: the attributes that set the delivery time.
//!
//! ```text
//!   deliverat: 2026-01-31T08:00:00Z    at a time
//!   delay: 90s                         after its append
//! ```

use std::time::Duration;

use crate::limits;
use crate::model::{AttributeView, EventView, Time, units};

/// Suffix of the hidden topic of delayed events. Names in a topology cannot contain it.
pub(crate) const SUFFIX: &str = "@delayed";
/// Suffix of the hidden topic of events that the lifecycle refuses when they are due.
pub(crate) const REFUSED_SUFFIX: &str = "@refused";
/// Attribute with the delivery time.
const DELIVER_AT: &str = "deliverat";
/// Attribute with the delay after the append.
const DELAY: &str = "delay";

/// Why an event cannot be delayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelayRefusal {
    /// Not a time.
    #[error(
        "`deliverat` is not a time: it needs one as RFC 3339 has it, such as 2026-01-31T08:00:00Z, and this is {0:?}"
    )]
    Time(String),
    /// Not a duration.
    #[error("`delay` is not a duration such as 90s or 1h 30m, this is {0:?}: {1}")]
    Duration(String, String),
    /// Further away than the maximum.
    #[error("`{name}` is too far away: at most {} days are accepted", limits::DELAY_MAX.as_secs() / (24 * 3600))]
    TooLate { name: &'static str },
    /// Both attributes.
    #[error("`deliverat` and `delay` are both there: only one of them can say when the event comes")]
    Both,
}

/// When an event is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At a time, Unix nanoseconds.
    At(u64),
    /// After this time since its append.
    After(Duration),
}

impl When {
    pub(crate) fn due_ns(self, trusted_time_ns: u64) -> u64 {
        match self {
            Self::At(time_ns) => time_ns,
            Self::After(delay) => trusted_time_ns.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    fn parse(name: &str, value: &str) -> Result<Option<Self>, DelayRefusal> {
        match name {
            DELIVER_AT => match Time::parse(value) {
                Some(time) => Ok(Some(Self::at(time))),
                None => Err(DelayRefusal::Time(shown(value))),
            },
            DELAY => match units::duration(value) {
                Ok(delay) if delay > limits::DELAY_MAX => Err(DelayRefusal::TooLate { name: DELAY }),
                Ok(delay) => Ok(Some(Self::After(delay))),
                Err(error) => Err(DelayRefusal::Duration(shown(value), error.to_string())),
            },
            _ => Ok(None),
        }
    }

    /// Also parses formats of earlier releases, for events that have waited since then.
    fn parse_stored(name: &str, value: &str) -> Option<Self> {
        match name {
            DELIVER_AT => {
                let time = value.parse::<jiff::Timestamp>().ok()?;
                Some(Self::At(u64::try_from(time.as_nanosecond()).unwrap_or(0)))
            }
            DELAY => units::stored_duration(value).ok().map(Self::After),
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

/// Whether an event with these attributes is delayed; checks the delay.
///
/// # Errors
/// [`DelayRefusal`].
pub(crate) fn is_delayed<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    now_ns: u64,
) -> Result<bool, DelayRefusal> {
    let mut found = None;
    for (name, value) in attributes {
        if let Some(when) = When::parse(name, value)? {
            check(when, now_ns)?;
            if found.replace(when).is_some() {
                return Err(DelayRefusal::Both);
            }
        }
    }
    Ok(found.is_some())
}

fn check(when: When, now_ns: u64) -> Result<(), DelayRefusal> {
    match when {
        When::At(time_ns) if Duration::from_nanos(time_ns.saturating_sub(now_ns)) > limits::DELAY_MAX => {
            Err(DelayRefusal::TooLate { name: DELIVER_AT })
        }
        _ => Ok(()),
    }
}

/// Like [`is_delayed`], for an encoded event.
///
/// # Errors
/// Like [`is_delayed`].
pub(crate) fn is_event_delayed(event: &EventView<'_>, now_ns: u64) -> Result<bool, DelayRefusal> {
    let when = if event.has_delay { when_of(event, When::parse)? } else { None };
    Ok(when.map(|when| check(when, now_ns)).transpose()?.is_some())
}

/// When a stored delayed event is due; at once if its attributes are no longer readable.
pub(crate) fn when_of_stored(event: &EventView<'_>) -> When {
    let when = when_of(event, |name, value| match When::parse(name, value) {
        Err(error) => When::parse_stored(name, value).map(Some).ok_or(error),
        when => when,
    });
    // publishing has checked it
    when.ok().flatten().unwrap_or(When::At(0))
}

fn when_of(
    event: &EventView<'_>,
    parse: impl Fn(&str, &str) -> Result<Option<When>, DelayRefusal>,
) -> Result<Option<When>, DelayRefusal> {
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
            return Err(DelayRefusal::Both);
        }
        found = found.or(when);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    fn of(attributes: &[(&str, &str)]) -> Result<bool, DelayRefusal> {
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
            assert_eq!(of(&[("deliverat", time)]), Err(DelayRefusal::Time(time.into())));
        }
        assert_eq!(of(&[("delay", "1s"), ("deliverat", "2030-01-31T08:00:00Z")]), Err(DelayRefusal::Both));
        assert_eq!(of(&[("delay", "7300d")]), Err(DelayRefusal::TooLate { name: "delay" }));
        assert_eq!(of(&[("deliverat", "2199-01-31T08:00:00Z")]), Err(DelayRefusal::TooLate { name: "deliverat" }));
    }
}
