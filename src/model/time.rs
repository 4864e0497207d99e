//! Times in events: RFC 3339, and the `Timestamp` of protobuf.
//!
//! One grammar for all inputs: JSON, gRPC, arguments, outputs, topologies. Every protobuf library can read the accepted
//! times, so years range from 1 to 9999, and fractions have nine digits: further ones are cut off.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, in seconds since 1970.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A point in time, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    second: i64,
    nanosecond: u32,
}

impl Time {
    /// From seconds since 1970 and nanoseconds. `None` if protobuf cannot represent the time.
    pub fn new(second: i64, nanosecond: u32) -> Option<Self> {
        (SECONDS.contains(&second) && i128::from(nanosecond) < NANOS).then_some(Self { second, nanosecond })
    }

    /// The nearest valid time to one that an earlier release stored without a check.
    pub(super) fn nearest(second: i64, nanosecond: i32) -> Self {
        let nanoseconds = i128::from(second) * NANOS + i128::from(nanosecond);
        let second = i64::try_from(nanoseconds.div_euclid(NANOS)).unwrap_or(second);
        let second = second.clamp(*SECONDS.start(), *SECONDS.end());
        Self { second, nanosecond: nanoseconds.rem_euclid(NANOS) as u32 }
    }

    /// Parses a text that is exactly an RFC 3339 time: `2026-01-31T08:00:00Z`, `2026-01-31t09:00:00.5+01:00`. A leap
    /// second is the end of the second before it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = &mut text.as_bytes();
        let year = number(rest, 4)?;
        let month = behind(rest, b'-', 2)?;
        let day = behind(rest, b'-', 2)?;
        take(rest, |byte| byte.eq_ignore_ascii_case(&b'T'))?;
        let hour = number(rest, 2)?;
        let minute = behind(rest, b':', 2)?;
        let second = behind(rest, b':', 2)?;
        let mut nanosecond = 0;
        if take(rest, |byte| *byte == b'.').is_some() {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, after) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
            let nine = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
            nanosecond = nine.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
            *rest = after;
        }
        let offset_minutes = match take(rest, |byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'))? {
            b'Z' | b'z' => 0,
            sign => {
                let (hours, minutes) = (number(rest, 2)?, behind(rest, b':', 2)?);
                let is_offset = hours < 24 && minutes < 60;
                let offset = is_offset.then_some(i64::from(hours * 60 + minutes))?;
                if sign == b'-' { -offset } else { offset }
            }
        };
        if !rest.is_empty() {
            return None;
        }
        let is_leap = second == 60;
        let second = if is_leap { 59 } else { second };
        let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|part| part as i8);
        let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let seconds = local.duration_since(EPOCH).as_secs() - offset_minutes * 60;
        if is_leap {
            // leap seconds are at the end of a month in UTC
            let next = EPOCH.checked_add(SignedDuration::from_secs(seconds + 1)).ok()?;
            if (next.day(), next.time()) != (1, jiff::civil::Time::midnight()) {
                return None;
            }
            nanosecond = 999_999_999;
        }
        Self::new(seconds, nanosecond)
    }

    /// Seconds since 1970, rounded down.
    pub fn second(self) -> i64 {
        self.second
    }

    /// Nanoseconds after [`Self::second`].
    pub fn nanosecond(self) -> u32 {
        self.nanosecond
    }

    /// Nanoseconds since 1970; `None` if that does not fit into a u64.
    pub fn unix_ns(self) -> Option<u64> {
        u64::try_from(i128::from(self.second) * NANOS + i128::from(self.nanosecond)).ok()
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, with only the necessary digits of a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = SignedDuration::new(self.second, self.nanosecond as i32);
        let time = EPOCH.checked_add(since).map_err(|_| fmt::Error)?;
        write!(f, "{time}Z")
    }
}

/// The next byte, if it satisfies `is_one`.
fn take(rest: &mut &[u8], is_one: impl Fn(&u8) -> bool) -> Option<u8> {
    let (first, after) = rest.split_first().filter(|(first, _)| is_one(first))?;
    *rest = after;
    Some(*first)
}

/// A number of exactly this many digits, up to four.
fn number(rest: &mut &[u8], digits: usize) -> Option<i16> {
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    number.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
}

/// The same after a separator.
fn behind(rest: &mut &[u8], mark: u8, digits: usize) -> Option<i16> {
    take(rest, |byte| *byte == mark)?;
    number(rest, digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Option<String> {
        Time::parse(text).map(|time| time.to_string())
    }

    #[test]
    fn what_rfc_3339_says_is_a_time() {
        for (text, same) in [
            ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
            ("2026-01-31t08:00:00.250z", "2026-01-31T08:00:00.25Z"),
            ("2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00.123456789Z"),
            ("2026-01-01T00:00:00.9999999999999999Z", "2026-01-01T00:00:00.999999999Z"),
            ("2026-01-31T08:00:00+23:59", "2026-01-30T08:01:00Z"),
            ("2026-01-31T08:00:00-00:00", "2026-01-31T08:00:00Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.5Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59.999999999Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(same), "{text}");
        }
    }

    #[test]
    fn what_it_does_not_say_is_none() {
        for text in [
            "",
            "yesterday",
            "1700000000",
            "2026-01-31",
            "2026-01-31T08:00Z",
            "2026-01-31T08:00:00",
            "2026-01-31 08:00:00Z",
            "20260131T080000Z",
            "2026-01-31T08:00:00,5Z",
            "2026-01-31T08:00:00.Z",
            "2026-01-31T08:00:00+24:00",
            "2026-01-31T08:00:00+01:60",
            "2026-01-31T08:00:00+01",
            "2026-01-31T08:00:00+0100",
            "2026-01-31T08:00:00Z[Europe/Paris]",
            "2026-01-31T08:00:00+01:00[Europe/Paris]",
            "2026-01-31T08:00:00Z ",
            " 2026-01-31T08:00:00Z",
            "+002026-01-31T08:00:00Z",
            "-2026-01-31T08:00:00Z",
            "2026-W05-6T08:00:00Z",
            "2026-02-29T08:00:00Z",
            "2026-13-01T08:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T08:60:00Z",
            "2026-01-31T08:00:61Z",
            "2026-01-31T08:00:60Z",
            "2016-12-30T23:59:60Z",
            "2026-1-31T08:00:00Z",
            "2026-01-31T8:00:00Z",
            "２０２６-01-31T08:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_survives_its_text(second in SECONDS, nanosecond in 0..1_000_000_000u32) {
            let time = Time::new(second, nanosecond).unwrap();
            prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}|[0-9TtZz:+.-]{0,40}") {
            let _ = Time::parse(&text);
        }

        #[test]
        fn what_was_stored_is_near(second in any::<i64>(), nanosecond in any::<i32>()) {
            prop_assert!(Time::parse(&Time::nearest(second, nanosecond).to_string()).is_some());
        }
    }
}
