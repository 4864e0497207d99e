//! What each principal uses at the moment, against the limits that the access file gives it.
//!
//! Promises: a caller over its limit harms nobody else; what it uses is given back when its call or its connection
//! ends, however that ends. Must not know: how limits are written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::refusal::{self, Refusal};
use crate::access::PrincipalLimits;

/// How far ahead of its rate a principal may publish; for as long a publish waits rather than being refused.
const BURST: Duration = Duration::from_secs(1);

/// What all principals with limits use. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage(Arc<Mutex<HashMap<String, Used>>>);

/// What one uses.
#[derive(Debug, Default)]
struct Used {
    connections: u32,
    in_flight_bytes: u64,
    /// Until when what it has published takes at its rate.
    paid_until: Option<Instant>,
}

impl Used {
    fn is_nothing(&self, now: Instant) -> bool {
        self.connections == 0 && self.in_flight_bytes == 0 && self.paid_until.is_none_or(|until| until <= now)
    }
}

/// A share that is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    usage: Usage,
    name: String,
    connections: u32,
    in_flight_bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get_mut(&self.name) {
            used.connections = used.connections.saturating_sub(self.connections);
            used.in_flight_bytes = used.in_flight_bytes.saturating_sub(self.in_flight_bytes);
            if used.is_nothing(Instant::now()) {
                all.remove(&self.name);
            }
        }
    }
}

impl Share {
    /// Whose it is.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Usage {
    /// One more connection of a principal.
    pub(super) fn connect(&self, name: &str, connections_max: u32) -> Result<Share, Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry(name.to_owned()).or_default();
        if used.connections >= connections_max {
            return Err(refusal::over_limit(name, &format!("{connections_max} connections at once"), BURST));
        }
        used.connections += 1;
        drop(all);
        Ok(Share { usage: self.clone(), name: name.to_owned(), connections: 1, in_flight_bytes: 0 })
    }

    /// Events of a principal that are published, and counted until the share is dropped. Waits while it is a little
    /// ahead of its rate.
    pub(super) async fn publish(&self, name: &str, limits: PrincipalLimits, bytes: u64) -> Result<Share, Refusal> {
        let (share, wait) = self.take(name, limits, bytes, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(share)
    }

    /// Counts a publish: how long it has to wait.
    fn take(
        &self,
        name: &str,
        limits: PrincipalLimits,
        bytes: u64,
        now: Instant,
    ) -> Result<(Share, Duration), Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry(name.to_owned()).or_default();
        if let Some(max) = limits.in_flight_bytes
            // One request is always taken, however large.
            && used.in_flight_bytes > 0
            && used.in_flight_bytes.saturating_add(bytes) > max
        {
            return Err(refusal::over_limit(name, &format!("{max} bytes of events in flight"), BURST / 10));
        }
        let mut wait = Duration::ZERO;
        if let Some(rate) = limits.publish_bytes_per_s {
            let begin = used.paid_until.map_or(now, |until| until.max(now));
            wait = begin.duration_since(now);
            if wait > BURST {
                return Err(refusal::over_limit(name, &format!("{rate} bytes of events per second"), wait - BURST));
            }
            let takes_ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
            used.paid_until = Some(begin + Duration::from_nanos(u64::try_from(takes_ns).unwrap_or(u64::MAX / 4)));
        }
        used.in_flight_bytes = used.in_flight_bytes.saturating_add(bytes);
        let share = Share { usage: self.clone(), name: name.to_owned(), connections: 0, in_flight_bytes: bytes };
        Ok((share, wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(usage: &Usage) -> usize {
        usage.0.lock().unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_and_bytes_in_flight_are_given_back() {
        let usage = Usage::default();
        let two = [usage.connect("ci", 2).unwrap(), usage.connect("ci", 2).unwrap()];
        usage.connect("ci", 2).unwrap_err();
        let other = usage.connect("shop", 2).unwrap();
        drop(two);
        drop(usage.connect("ci", 2).unwrap());
        drop(other);

        let limits = PrincipalLimits { in_flight_bytes: Some(100), ..PrincipalLimits::default() };
        let large = usage.publish("ci", limits, 1_000).await.unwrap();
        usage.publish("ci", limits, 1).await.unwrap_err();
        drop(large);
        let small = usage.publish("ci", limits, 60).await.unwrap();
        usage.publish("ci", limits, 60).await.unwrap_err();
        drop((small, usage.publish("ci", limits, 40).await));
        assert_eq!(used(&usage), 0, "nothing is kept of who uses nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn who_publishes_too_fast_waits_and_then_is_refused_with_the_time_to_wait() {
        let (usage, begin) = (Usage::default(), Instant::now());
        let limits = PrincipalLimits { publish_bytes_per_s: Some(1_000), ..PrincipalLimits::default() };
        for second in 0..5 {
            drop(usage.publish("ci", limits, 1_000).await.unwrap());
            assert_eq!(begin.elapsed(), Duration::from_secs(second));
        }
        let late = begin + Duration::from_secs(4);
        // Two seconds' worth at once.
        let (first, wait) = usage.take("ci", limits, 2_000, late).unwrap();
        assert_eq!(wait, Duration::from_secs(1));
        let refused = usage.take("ci", limits, 1, late).unwrap_err();
        assert_eq!(refused.retry_after, Some(Duration::from_secs(2)));
        drop(first);
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(usage.publish("ci", limits, 1).await.unwrap());
    }
}
