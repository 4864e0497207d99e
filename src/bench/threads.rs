//! Processor time of this process by thread, so that a figure says who spends it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Processor time by the name of the threads that spent it, as the kernel has it: at most 15 bytes of each name.
#[derive(Debug, Clone, Default)]
pub(super) struct ThreadTimes(BTreeMap<String, Duration>);

impl ThreadTimes {
    /// Of the threads that live now, since each began. Empty where the kernel does not say.
    pub(super) fn now() -> Self {
        let mut times = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Self(times) };
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
            // a thread that ends meanwhile has no files
            if let (Some(name), Some(time)) = (read("comm"), read("schedstat").as_deref().and_then(running)) {
                *times.entry(name.trim_end().to_owned()).or_default() += time;
            }
        }
        Self(times)
    }

    /// What was spent since `earlier`, most first; threads that ended in between are missing.
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
