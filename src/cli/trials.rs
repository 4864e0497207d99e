//! How the trial of a version goes, in words and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::TrialStatus;

/// Such as "12 of 1,000 events, 20 s of 1 min, ends at the latest in 59 min".
pub(super) fn words(trial: &TrialStatus) -> String {
    let TrialStatus { handled, events, lasted, time, ends_in, .. } = trial;
    let least = if time.is_zero() { String::new() } else { format!(", {} of {}", short(*lasted), short(*time)) };
    let (handled, events) = (thousands(*handled), thousands(*events));
    format!("{handled} of {events} events{least}, ends at the latest in {}", short(*ends_in))
}

/// The same for programs.
pub(super) fn json(trial: &TrialStatus) -> Value {
    let TrialStatus { digest, lanes, handled, events, lasted, time, ends_in } = trial;
    let ms = |period: &Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    json!({
        "digest": digest,
        "lanes": lanes,
        "handled": handled,
        "events": events,
        "lasted_ms": ms(lasted),
        "for_ms": ms(time),
        "ends_in_ms": ms(ends_in),
    })
}

/// A number with its thousands apart.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A time in the largest unit of which there is one, rounded.
fn short(time: Duration) -> String {
    let seconds = (time.as_millis() + 500) / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(length, _)| seconds >= *length);
    match unit {
        Some((length, unit)) => format!("{} {unit}", (seconds + length / 2) / length),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_says_where_it_stands() {
        let seconds = Duration::from_secs;
        let trial = TrialStatus {
            handled: 12,
            events: 1_000,
            lasted: seconds(20),
            time: seconds(60),
            ends_in: seconds(3_580),
            ..TrialStatus::default()
        };
        assert_eq!(words(&trial), "12 of 1,000 events, 20 s of 1 min, ends at the latest in 60 min");
        let trial = TrialStatus { events: 1_234_567, time: Duration::ZERO, ends_in: seconds(7 * 86_400), ..trial };
        assert_eq!(words(&trial), "12 of 1,234,567 events, ends at the latest in 7 d");
        assert_eq!(
            (thousands(0), thousands(999), short(Duration::from_millis(400))),
            ("0".into(), "999".into(), "0 s".into())
        );
    }
}
