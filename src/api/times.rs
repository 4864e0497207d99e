//! Times, which are Unix nanoseconds inside and protobuf's own on the wire.

use prost_types::Timestamp;

/// What is wrong with a time of which [`nanoseconds`] makes nothing.
pub const INVALID_TIME: &str = "is not a time after 1970 with 0 to 999,999,999 nanoseconds";

/// A time for the wire.
pub fn timestamp(time_ns: u64) -> Timestamp {
    // both fit: 2^64 ns are 584 years
    Timestamp { seconds: (time_ns / 1_000_000_000) as i64, nanos: (time_ns % 1_000_000_000) as i32 }
}

/// A time from the wire; `None` where it is before 1970, too far away, or no time.
pub fn nanoseconds(time: &Timestamp) -> Option<u64> {
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    u64::try_from(time.seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}
