//! The real program and the real kernel, from outside: a disk that fails, is full or slow to be freed, descriptors that
//! run out, and a process that dies at any call of the system. Whatever happens, what was acknowledged is there
//! afterwards, once.
//!
//! Faults come from `strace`, which lets the nth call of a kind fail, or kills at it. It counts for each thread, so
//! "the third" is the third of whichever thread gets there first. `WATTLE_TEST_SEEDS`, set to anything, takes every n
//! and more lives, as a nightly run does.

mod bus;
mod calls;
mod crashes;
mod deciding;
mod descriptors;
mod full;
mod kills;
mod ledger;
mod life;
mod strace;
mod syncs;

/// Whether there is time for everything.
fn is_thorough() -> bool {
    std::env::var_os("WATTLE_TEST_SEEDS").is_some()
}

/// Numbers from `first` to `last`: close together where they are small, all of them where there is time.
fn steps(first: u32, last: u32) -> Vec<u32> {
    let next = |n: &u32| Some(if is_thorough() { n + 1 } else { n + 1 + n / 3 });
    std::iter::successors(Some(first), next).take_while(|n| *n <= last).collect()
}
