//! Trusted time, held against the time that really passes.
//!
//! Promised: it never goes back; within a life a duration by it is right to one per cent, whatever the wall clock does,
//! until somebody confirms that; a start adds no more than a day; and where the wall clock never jumped, it is the wall
//! clock. That whoever reads an event again sees the trusted time that it had at first is looked at with the events, in
//! `check.rs`.

use super::plan::DAY;

#[derive(Default)]
pub(crate) struct Trust {
    /// Trusted time and true time at the last look.
    last: Option<(u64, u64)>,
    /// The wall clock was not always right, or a bus was off for long.
    is_spoilt: bool,
}

impl Trust {
    pub(crate) fn jumped(&mut self) {
        self.is_spoilt = true;
    }

    /// A life begins; the last unit that is there had a trusted time of `last_ns`.
    pub(crate) fn started(&mut self, trusted_ns: u64, true_ns: u64, wall_ns: u64, last_ns: Option<u64>) {
        // what is known of the time before is not older than this
        self.is_spoilt |= last_ns.is_none_or(|last_ns| wall_ns.saturating_sub(last_ns) > DAY) && self.last.is_some();
        if let (Some((before_ns, _)), Some(last_ns)) = (self.last, last_ns) {
            assert!(trusted_ns >= last_ns, "trusted time goes back to {trusted_ns}, behind an event of {last_ns}");
            assert!(trusted_ns <= before_ns + DAY, "a start takes trusted time from {before_ns} to {trusted_ns}");
        }
        self.last = None;
        self.look(trusted_ns, true_ns, wall_ns);
    }

    pub(crate) fn look(&mut self, trusted_ns: u64, true_ns: u64, wall_ns: u64) {
        if let Some((before_ns, then_ns)) = self.last {
            let passed_ns = true_ns - then_ns;
            assert!(trusted_ns >= before_ns, "trusted time goes back from {before_ns} to {trusted_ns}");
            let wrong_ns = (trusted_ns - before_ns).abs_diff(passed_ns);
            assert!(wrong_ns <= passed_ns / 100, "{passed_ns} ns are {} by trusted time", trusted_ns - before_ns);
        }
        assert!(
            self.is_spoilt || trusted_ns == wall_ns,
            "trusted time is {trusted_ns}, and the clock is right: {wall_ns}"
        );
        self.last = Some((trusted_ns, true_ns));
    }

    pub(crate) fn confirmed(&mut self, trusted_ns: u64, true_ns: u64, wall_ns: u64) {
        let (before_ns, _) = self.last.unwrap_or_default();
        assert_eq!(trusted_ns, before_ns.max(wall_ns), "the wall clock is confirmed");
        self.last = Some((trusted_ns, true_ns));
    }
}
