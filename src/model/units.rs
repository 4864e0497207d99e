//! Durations and sizes with units, as people write them (`10m`, `1m30s`, `1.5GiB`), and as they are shown.
//!
//! Promises: keys of topologies, flags and attributes of events accept and refuse the same texts, with the same words;
//! what [`show_duration`] and [`show_size`] write is read back as the same value.
//!
//! A number without a unit is refused, since nobody agrees on what it would mean; so are units that some people read
//! one way and some another (`M` of time, `G` of size).

use std::time::Duration;

/// Units of time, in nanoseconds.
const TIME_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 604_800 * 1_000_000_000),
];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The units that a time without one may be meant in.
pub(crate) const TIMES_LIKELY: [&str; 5] = ["ms", "s", "m", "h", "d"];
/// The units that a size without one may be meant in.
pub(crate) const SIZES_LIKELY: [&str; 4] = ["B", "KiB", "MiB", "GiB"];

/// Units that `delay` accepted before it followed the rules above, beside those of [`TIME_UNITS`].
const FORMER_TIME_UNITS: [(&str, u64); 31] = [
    ("nanos", 1),
    ("nsec", 1),
    ("usec", 1_000),
    ("\u{b5}s", 1_000),
    ("millis", 1_000_000),
    ("msec", 1_000_000),
    ("seconds", 1_000_000_000),
    ("second", 1_000_000_000),
    ("secs", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("minutes", 60 * 1_000_000_000),
    ("minute", 60 * 1_000_000_000),
    ("mins", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("hours", 3_600 * 1_000_000_000),
    ("hour", 3_600 * 1_000_000_000),
    ("hrs", 3_600 * 1_000_000_000),
    ("hr", 3_600 * 1_000_000_000),
    ("days", 86_400 * 1_000_000_000),
    ("day", 86_400 * 1_000_000_000),
    ("weeks", 604_800 * 1_000_000_000),
    ("week", 604_800 * 1_000_000_000),
    ("wks", 604_800 * 1_000_000_000),
    ("wk", 604_800 * 1_000_000_000),
    ("months", 2_630_016 * 1_000_000_000),
    ("month", 2_630_016 * 1_000_000_000),
    ("M", 2_630_016 * 1_000_000_000),
    ("years", 31_557_600 * 1_000_000_000),
    ("year", 31_557_600 * 1_000_000_000),
    ("yrs", 31_557_600 * 1_000_000_000),
    ("yr", 31_557_600 * 1_000_000_000),
];

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// There is no number where one is needed.
    #[error("a number with a unit is needed")]
    NoNumber,
    /// A number stands alone.
    #[error("the unit is missing")]
    NoUnit,
    /// The unit is none.
    #[error("`{unit}` is not a unit{meant}")]
    UnknownUnit {
        /// What stands there.
        unit: String,
        /// What may be meant by it, to follow.
        meant: &'static str,
    },
    /// It does not fit.
    #[error("this is too large")]
    TooLarge,
}

/// A number with each of these units: "`7s`, `7m` or `7h`".
pub(crate) fn likely(number: &str, units: &[&str]) -> String {
    let with: Vec<String> = units.iter().map(|unit| format!("`{}{unit}`", number.trim())).collect();
    match with.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// What may be meant by what is no unit of time.
fn time_meant(unit: &str) -> &'static str {
    match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => ": milliseconds are `ms`",
        "s" | "sec" | "secs" | "second" | "seconds" => ": seconds are `s`",
        "m" | "min" | "mins" | "minute" | "minutes" => ": minutes are `m`",
        "h" | "hr" | "hrs" | "hour" | "hours" => ": hours are `h`",
        "d" | "day" | "days" => ": days are `d`",
        "w" | "week" | "weeks" => ": weeks are `w`",
        "mo" | "month" | "months" | "y" | "year" | "years" => {
            ": no two of them are as long as each other, write days (`d`)"
        }
        _ => "",
    }
}

/// The same of size.
fn size_meant(unit: &str) -> &'static str {
    match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => ": bytes are `B`",
        "k" | "kb" | "kib" => ": write `kB` for 1,000 bytes, `KiB` for 1,024",
        "m" | "mb" | "mib" => ": write `MB` for 1,000 kB, `MiB` for 1,024 KiB",
        "g" | "gb" | "gib" => ": write `GB` for 1,000 MB, `GiB` for 1,024 MiB",
        "t" | "tb" | "tib" => ": write `TB` for 1,000 GB, `TiB` for 1,024 GiB",
        _ => "",
    }
}

/// A duration such as `7d`, `1m30s`, `100ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    let nanos = quantity(text, &TIME_UNITS, true)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| UnitError::TooLarge)
}

/// The duration of a stored `delay`, also where it was accepted by the rules of an earlier build.
pub(crate) fn stored_duration(text: &str) -> Result<Duration, UnitError> {
    let units: Vec<_> =
        TIME_UNITS.into_iter().chain(FORMER_TIME_UNITS).chain([("y", 31_557_600 * 1_000_000_000)]).collect();
    u64::try_from(quantity(text, &units, true)?).map(Duration::from_nanos).map_err(|_| UnitError::TooLarge)
}

/// A size such as `10GiB`, in bytes.
pub(crate) fn size(text: &str) -> Result<u64, UnitError> {
    u64::try_from(quantity(text, &SIZE_UNITS, false)?).map_err(|_| UnitError::TooLarge)
}

/// How a duration is written: the largest units first, nothing lost.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut shown = String::new();
    // Weeks are rarely what was written.
    for (unit, nanos) in TIME_UNITS.iter().rev().filter(|(unit, _)| *unit != "w") {
        let count = rest / u128::from(*nanos);
        rest %= u128::from(*nanos);
        if count > 0 {
            shown += &format!("{count}{unit}");
        }
    }
    if shown.is_empty() { "0s".into() } else { shown }
}

/// How a size is written: the largest unit that loses nothing.
pub(crate) fn show_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().rev().filter(|(unit, _)| unit.len() != 2);
    for (unit, scale) in binary {
        if bytes.is_multiple_of(*scale) && bytes >= *scale {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

/// How a size is shown where its exact value does not matter: with one digit after the point at most.
pub(crate) fn show_rough_size(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().rev().find(|(unit, scale)| unit.len() == 3 && bytes >= *scale);
    match unit {
        Some((unit, scale)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*scale);
            let tenth = if tenths % 10 == 0 { String::new() } else { format!(".{}", tenths % 10) };
            format!("{}{tenth} {unit}", tenths / 10)
        }
        None => format!("{bytes} B"),
    }
}

/// The sum of numbers with units; only one of them unless `many`.
fn quantity(text: &str, units: &[(&str, u64)], many: bool) -> Result<u128, UnitError> {
    let mut rest = text.trim();
    let mut sum: u128 = 0;
    loop {
        let digits_end = rest.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits_end).ok_or(UnitError::NoNumber)?;
        let after = after.trim_start();
        let unit_end = after.find(|char: char| !char.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end).ok_or(UnitError::NoUnit)?;
        let scale = match units.iter().find(|(name, _)| *name == unit) {
            Some((_, scale)) => *scale,
            None if number.is_empty() => return Err(UnitError::NoNumber),
            None if unit.is_empty() => return Err(UnitError::NoUnit),
            None => return Err(unknown(unit.into(), many)),
        };
        sum = sum.checked_add(scaled(number, scale)?).ok_or(UnitError::TooLarge)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(sum);
        }
        if !many {
            return Err(unknown(format!("{unit} {rest}"), many));
        }
    }
}

fn unknown(unit: String, is_time: bool) -> UnitError {
    let meant = if is_time { time_meant(&unit) } else { size_meant(&unit) };
    UnitError::UnknownUnit { unit, meant }
}

/// `number`, with at most nine digits after the point, times `scale`; fractions of one are cut.
fn scaled(number: &str, scale: u64) -> Result<u128, UnitError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(UnitError::NoNumber);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let fraction_scale = 10_u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().map_err(|_| UnitError::NoNumber)?;
    let scale = u128::from(scale);
    Ok(u128::from(whole) * scale + fraction * scale / fraction_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes_know_powers_of_ten_and_of_two() {
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("10 GB"), Ok(10_000_000_000));
        assert_eq!(size("1.5KiB"), Ok(1_536));
        assert_eq!(size("7B"), Ok(7));
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        assert_eq!(duration("10"), Err(UnitError::NoUnit));
        assert_eq!(duration("10M"), Err(unknown("M".into(), true)));
        assert_eq!(duration("-1s"), Err(UnitError::NoNumber));
        assert_eq!(duration(""), Err(UnitError::NoNumber));
        assert_eq!(duration("1..5s"), Err(UnitError::NoNumber));
        assert_eq!(duration("99999999999d"), Err(UnitError::TooLarge));
        assert_eq!(size("10G"), Err(unknown("G".into(), false)));
        assert_eq!(size("1GiB 5B"), Err(unknown("GiB 5B".into(), false)));
        assert_eq!(size("99999999999999999999B"), Err(UnitError::TooLarge));
    }

    #[test]
    fn what_is_nearly_a_unit_is_told_which() {
        for (text, says) in [
            ("5M", "`M` is not a unit: minutes are `m`"),
            ("5 min", "`min` is not a unit: minutes are `m`"),
            ("2S", "`S` is not a unit: seconds are `s`"),
            ("3fortnights", "`fortnights` is not a unit"),
        ] {
            assert_eq!(duration(text).unwrap_err().to_string(), says);
        }
        let says = "`M` is not a unit: write `MB` for 1,000 kB, `MiB` for 1,024 KiB";
        assert_eq!(size("5M").unwrap_err().to_string(), says);
    }

    proptest::proptest! {
        #[test]
        fn every_value_that_is_shown_is_read_back(nanos: u64, bytes: u64, shift in 0..64_u32) {
            let (nanos, bytes) = (nanos >> shift, bytes >> shift << shift);
            let shown = show_duration(Duration::from_nanos(nanos));
            proptest::prop_assert_eq!(duration(&shown), Ok(Duration::from_nanos(nanos)), "{}", shown);
            proptest::prop_assert_eq!(stored_duration(&shown), Ok(Duration::from_nanos(nanos)), "{}", shown);
            let shown = show_size(bytes);
            proptest::prop_assert_eq!(size(&shown), Ok(bytes), "{}", shown);
        }

        #[test]
        fn no_text_is_read_in_two_ways(text in "[0-9]{0,3}[.]?[0-9]{0,2} ?[a-zA-Z\u{b5}]{0,4} ?[0-9]{0,2}[a-z]{0,2}") {
            if let Ok(time) = duration(&text) {
                proptest::prop_assert_eq!(stored_duration(&text), Ok(time));
                proptest::prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            }
            if let Ok(bytes) = size(&text) {
                proptest::prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            }
        }
    }

    #[test]
    fn stored_delays_of_earlier_builds_are_read() {
        for (text, seconds) in [("1month", 2_630_016), ("2 years", 63_115_200), ("1hr 30min", 5_400), ("90s", 90)] {
            assert_eq!(stored_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(stored_duration("soon").is_err());
    }

    #[test]
    fn rough_sizes_are_short() {
        let sizes = [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (64 << 20, "64 MiB"), ((5 << 30) + 1, "5 GiB")];
        for (bytes, shown) in sizes {
            assert_eq!(show_rough_size(bytes), shown);
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for nanos in [0, 1, 999, 1_500_000_000, 90_000_000_000, 86_400_000_000_000 * 7, 123_456_789_012_345] {
            let shown = show_duration(Duration::from_nanos(nanos));
            assert_eq!(duration(&shown), Ok(Duration::from_nanos(nanos)), "{shown}");
        }
        for bytes in [0, 1, 1_000, 1_024, 1 << 20, (1 << 30) + 1, 5 << 40] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(show_size(64 << 20), "64MiB");
    }
}
