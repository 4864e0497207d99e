//! Runs histories: one seed, many, or one twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::damage;
use super::notes::Notes;
use super::world::World;

/// A few dozen seconds of a machine with two cores, unoptimised.
const SEEDS: u64 = 600;

/// A whole history. The trace of its disk.
fn run(seed: u64, notes: Notes) -> u64 {
    let mut world = World::new(seed, false, notes);
    let lives = world.random.between(2, 5);
    for _ in 0..lives {
        let mut life = world.open();
        for _ in 0..world.random.below(3) {
            world.acquire(&mut life);
        }
        for _ in 0..world.random.pick(&[3, 15, 40, 80]) {
            world.step(&mut life);
            if life.is_poisoned && world.random.once_in(6) {
                break;
            }
        }
        world.end(life);
    }
    let life = world.open();
    drop(life);
    let trace = world.disk.trace();
    world.disk.clear_fault();
    trace
}

/// Nothing runs on it: a unit that waits for room wants a timer, and is not waited for.
fn timers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Runs a history, and says of one that fails all that is needed to see it again.
fn tell(seed: u64, is_printed: bool, run: impl FnOnce(u64, Notes) -> u64) -> Result<u64, String> {
    let timers = timers();
    let _entered = timers.enter();
    let notes = Notes::new(is_printed);
    let shown = notes.clone();
    catch_unwind(AssertUnwindSafe(|| run(seed, notes))).map_err(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let what = what.unwrap_or("it panics");
        format!("{}seed {seed} fails: {what}\nagain, with each step: WATTLE_SIM_SEED={seed}", shown.show())
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Runs seeds on all cores.
fn run_all(seeds: u64, run: impl Fn(u64, Notes) -> u64 + Sync) {
    if let Some(seed) = number("WATTLE_SIM_SEED") {
        if let Err(story) = tell(seed, true, &run) {
            panic!("{story}");
        }
        return;
    }
    let first = number("WATTLE_SIM_FIRST").unwrap_or(0);
    let seeds = number("WATTLE_SIM_SEEDS").unwrap_or(seeds);
    let failures_max = number("WATTLE_SIM_FAILURES").unwrap_or(1);
    let (next, failures) = (AtomicU64::new(first), AtomicU64::new(0));
    let work = || {
        let mut stories = Vec::new();
        while failures.load(Ordering::Relaxed) < failures_max {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            if let Err(story) = tell(seed, false, &run) {
                failures.fetch_add(1, Ordering::Relaxed);
                stories.push(story);
            }
        }
        stories
    };
    let stories: Vec<String> = std::thread::scope(|scope| {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let threads = number("WATTLE_SIM_THREADS").unwrap_or_else(cores);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(stories.is_empty(), "{}", stories.join("\n"));
}

#[test]
fn every_history_keeps_the_promises() {
    run_all(SEEDS, run);
}

#[test]
fn damage_is_refused_or_does_no_harm_or_costs_its_own_block() {
    run_all(SEEDS / 2, damage::run);
}

/// Or a seed would be no way to see a failure again.
#[test]
fn a_seed_run_twice_does_the_same() {
    let timers = timers();
    let _entered = timers.enter();
    if number("WATTLE_SIM_SEED").is_some() {
        return;
    }
    for seed in 0..50 {
        assert_eq!(run(seed, Notes::new(false)), run(seed, Notes::new(false)), "seed {seed}");
    }
}
