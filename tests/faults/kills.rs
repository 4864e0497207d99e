//! A process that is killed at any moment, again and again (row 18): the sum of what all lives were told is there.

use std::path::Path;
use std::time::Duration;

use crate::common::random::Random;
use crate::is_thorough;
use crate::ledger::{End, Ledger};
use crate::life::Life;

fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::env::var("WATTLE_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("WATTLE_SEED is a number"))
}

/// As many appends as there is time for.
fn endless(folder: &Path, number: u64) -> Life {
    let life = if number.is_multiple_of(4) { Life::of_large_appends } else { Life::of_small_appends };
    Life { appends: u64::MAX, ..life(folder, number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_nothing_acknowledged() {
    let seed = seed();
    let mut random = Random::new(seed);
    let kills = if is_thorough() { 2_000 } else { 200 };
    let (mut ledger, mut acked, mut lives) = (Ledger::new(), 0, 0);
    for kill in 0..kills {
        let context = format!("WATTLE_SEED={seed}, kill {kill}");
        let end = ledger.live_for(endless, Duration::from_millis(5 + random.below(100)));
        assert_eq!(end, End::Killed, "{context}: {}", ledger.said);
        if random.one_in(5) {
            ledger.check(&context).await;
        }
        if random.one_in(40) || kill + 1 == kills {
            ledger.check(&context).await;
            acked += ledger.acked();
            lives += 1;
            ledger = Ledger::new();
        }
    }
    eprintln!("{kills} kills in {lives} folders, {acked} events acknowledged, WATTLE_SEED={seed}");
    assert!(acked > 0);
}
