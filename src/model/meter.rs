//! Counts events within the last minute.
//!
//! ```text
//!   slots of five seconds   │ part │ whole │ whole │ ... │ whole │ being filled │
//!                           └──────────── the last minute ───────────────┘ now
//! ```
//!
//! Promises: counting changes one number, reading looks at thirteen. The slot in which the minute begins counts in
//! proportion, so a steady rate is exact. Relies on: writers and readers use the same clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The width of a slot.
const SLOT_NS: u64 = 5_000_000_000;
/// One minute of slots, and the one in which it begins.
const SLOTS: u64 = 13;

/// Counts events by their time.
#[derive(Debug, Default)]
pub struct Meter {
    /// The number of a five-second period since the clock's zero, and in the lower half the count within it.
    slots: [AtomicU64; SLOTS as usize],
}

fn pack(period: u64, count: u32) -> u64 {
    (period << 32) | u64::from(count)
}

/// The low half of the period, which is unambiguous for 680 years, and the count.
fn unpack(slot: u64) -> (u32, u32) {
    ((slot >> 32) as u32, slot as u32)
}

impl Meter {
    fn change(&self, now_ns: u64, change: impl Fn(u32) -> u32) {
        let period = now_ns / SLOT_NS;
        let Some(slot) = self.slots.get((period % SLOTS) as usize) else { return };
        let changed = |slot: u64| match unpack(slot) {
            (of, count) if of == period as u32 => Some(pack(period, change(count))),
            // a writer with an older time: it would remove newer counts
            (of, _) if of > period as u32 => None,
            _ => Some(pack(period, change(0))),
        };
        // unchanged if this writer has an older time
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// Adds to the count.
    pub fn add(&self, now_ns: u64, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.change(now_ns, |before| before.saturating_add(count));
    }

    /// Subtracts events that were counted just now.
    pub fn take_back(&self, now_ns: u64, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.change(now_ns, |before| before.saturating_sub(count));
    }

    /// The count within the last minute.
    pub fn per_minute(&self, now_ns: u64) -> u64 {
        let period = now_ns / SLOT_NS;
        let of = |ago: u64| {
            let wanted = period.checked_sub(ago)?;
            let (found, count) = unpack(self.slots.get((wanted % SLOTS) as usize)?.load(Ordering::Relaxed));
            (found == wanted as u32).then_some(u64::from(count))
        };
        let whole: u64 = (0..SLOTS - 1).filter_map(of).sum();
        let left_ns = SLOT_NS - now_ns % SLOT_NS;
        whole + of(SLOTS - 1).unwrap_or(0) * left_ns / SLOT_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_minute_is_counted_and_what_is_older_is_not() {
        let meter = Meter::default();
        assert_eq!(meter.per_minute(7 * SECOND), 0);
        meter.add(SECOND, 10);
        meter.add(4 * SECOND, 2);
        assert_eq!(meter.per_minute(4 * SECOND), 12);
        assert_eq!(meter.per_minute(59 * SECOND), 12);
        assert_eq!(
            meter.per_minute(62 * SECOND),
            7,
            "of the five seconds in which the minute begins three are within it"
        );
        assert_eq!(meter.per_minute(65 * SECOND), 0);
        meter.add(66 * SECOND, 1);
        assert_eq!(meter.per_minute(66 * SECOND), 1, "the same slot, of another time");
        assert_eq!(meter.per_minute(1_000_000 * SECOND), 0);
    }

    #[test]
    fn a_steady_rate_is_told_exactly_at_any_time() {
        let meter = Meter::default();
        for second in 0..600 {
            meter.add(second * SECOND, 5);
            if second >= 66 {
                assert_eq!(meter.per_minute((second + 1) * SECOND - 1), 300, "at {second}");
            }
        }
    }

    #[test]
    fn what_is_taken_back_does_not_count_and_nobody_who_is_behind_takes_anything_away() {
        let meter = Meter::default();
        meter.add(100 * SECOND, 7);
        meter.take_back(101 * SECOND, 3);
        assert_eq!(meter.per_minute(101 * SECOND), 4);
        meter.take_back(101 * SECOND, 30);
        assert_eq!(meter.per_minute(101 * SECOND), 0);
        meter.add(100 * SECOND, 7);
        meter.add(35 * SECOND, 5); // the same slot, one round earlier
        assert_eq!(meter.per_minute(101 * SECOND), 7);
        meter.add(100 * SECOND, u64::MAX);
        meter.add(100 * SECOND, u64::MAX);
        assert_eq!(meter.per_minute(101 * SECOND), u64::from(u32::MAX));
    }
}
