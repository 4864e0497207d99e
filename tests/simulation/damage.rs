//! Damage to what had been durable: bits that flip, files that are cut off or gone.
//!
//! Promised: the start is refused, with the name of the file, and nothing in the journal and the segments was changed;
//! or reads of the damaged block fail, with the name of the file, and everything else is right; or it does no harm.
//! Never a wrong event, never fewer than there were, never a fresh start. Not promised: that damage is told from a torn
//! write where nothing behind it proves that it had been durable. So all is proved here before it is damaged, by a mark
//! or a clean end.

use std::collections::BTreeMap;

use wattle::log::OpenError;

use super::notes::Notes;
use super::world::World;

const KINDS: [&str; 6] = ["journal-", "segment-", "segment-", "index-", "state", "spare-"];

/// Lives without a fault, then damage, then lives with it.
pub(crate) fn run(seed: u64, notes: Notes) -> u64 {
    let mut world = World::new(seed, true, notes);
    for _ in 0..world.random.between(1, 3) {
        let mut life = world.open();
        for _ in 0..world.random.pick(&[15, 40, 80]) {
            world.step(&mut life);
        }
        world.prove(&mut life);
        world.end(life);
    }
    let kind = world.random.pick(&KINDS);
    let contents = world.disk.contents();
    let names: Vec<&String> = contents.keys().filter(|name| name.starts_with(kind)).collect();
    if names.is_empty() {
        return finish(&world);
    }
    let name = world.random.pick(&names).clone();
    if plant(&mut world, &name, contents[&name].len() as u64) && survives(&mut world, &name) {
        world.damaged = Some(name);
        for _ in 0..2 {
            let mut life = world.open();
            for _ in 0..world.random.pick(&[5, 20]) {
                world.step(&mut life);
            }
            world.prove(&mut life);
            world.end(life);
        }
        drop(world.open());
    }
    finish(&world)
}

fn finish(world: &World) -> u64 {
    let trace = world.disk.trace();
    world.disk.clear_fault();
    trace
}

/// Damages a file. False where that came to nothing.
fn plant(world: &mut World, name: &str, length: u64) -> bool {
    let is_cut = world.random.once_in(8) && !name.starts_with("journal-") && !name.starts_with("spare-");
    if is_cut && name.starts_with("index-") && world.random.once_in(2) {
        world.note(format!("{name} is removed"));
        return world.disk.remove_durably(name);
    }
    if is_cut {
        let to = world.random.below(length);
        world.note(format!("{name} of {length} bytes is cut off at {to}"));
        return world.disk.truncate_durably(name, to);
    }
    let mut is_done = false;
    // of the journal one: a second one could hit the mark that proves what the first one damaged
    for _ in 0..if name.starts_with("journal-") { 1 } else { world.random.pick(&[1, 1, 3]) } {
        // mostly where something is written
        let to = if world.random.once_in(2) { length } else { length.min(4_000) };
        let (at, mask) = (world.random.below(to), 1 << world.random.below(8));
        world.note(format!("{name}: byte {at} ^ {mask}"));
        is_done |= world.disk.damage(name, at, mask);
    }
    is_done
}

/// Whether the log starts in spite of the damage; where it does not, it says why and has changed nothing.
fn survives(world: &mut World, name: &str) -> bool {
    let kept = |world: &World| -> BTreeMap<String, Vec<u8>> {
        let contents = world.disk.contents().into_iter();
        contents.filter(|(name, _)| name.starts_with("journal-") || name.starts_with("segment-")).collect()
    };
    let before = kept(world);
    let error = match world.try_open() {
        Ok(_) => return true,
        Err(error) => error,
    };
    world.note(format!("refused: {error}"));
    assert!(matches!(error, OpenError::Damaged(_)), "it is not told that this is damage: {error}");
    assert!(error.to_string().contains(name), "{name} is damaged, but not named: {error}");
    assert!(kept(world) == before, "something was changed, though the start was refused: {error}");
    false
}
