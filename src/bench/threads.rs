//! Processor time of this process by thread.

use std::collections::BTreeMap;
use std::time::Duration;

/// Processor time by thread name, of which the kernel keeps at most 15 bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct ThreadTimes(BTreeMap<String, Duration>);

impl ThreadTimes {
    /// The times of the current threads since their start. Empty if the kernel does not report them.
    pub(super) fn now() -> Self {
        let mut times = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Self(times) };
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
            // a thread that has just ended has no files
            if let (Some(name), Some(time)) = (read("comm"), read("schedstat").as_deref().and_then(running)) {
                *times.entry(name.trim_end().to_owned()).or_default() += time;
            }
        }
        Self(times)
    }

    /// The times since `earlier`, highest first, without threads that ended in between.
    pub(super) fn since(&self, earlier: &Self) -> Vec<(String, Duration)> {
        let spent = |(name, time): (&String, &Duration)| {
            (name.clone(), time.saturating_sub(earlier.0.get(name).copied().unwrap_or_default()))
        };
        let mut spent: Vec<_> = self.0.iter().map(spent).filter(|(_, time)| !time.is_zero()).collect();
        spent.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        spent
    }
}

/// The first figure of `schedstat`: nanoseconds on a processor.
fn running(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_that_of_the_thread_that_works() {
        assert_eq!(running("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(running(""), None);
        let times = |of: &[(&str, u64)]| {
            ThreadTimes(of.iter().map(|(name, ns)| ((*name).to_owned(), Duration::from_nanos(*ns))).collect())
        };
        let spent = times(&[("a", 10), ("b", 7), ("new", 9)]).since(&times(&[("a", 4), ("b", 7)]));
        assert_eq!(spent, [("new".to_owned(), Duration::from_nanos(9)), ("a".to_owned(), Duration::from_nanos(6))]);
    }
}
