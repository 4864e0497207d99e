//! The lives of keys as guards promise them: which states may follow, which ends are remembered, what is held meanwhile.

use std::collections::BTreeMap;

use wattle::model::PartitionId;

use super::plan::{ENDED_MAX, Guarding, HELD_MAX, LIVING_MAX};

/// What an event says of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brings {
    pub(crate) key: u8,
    /// `a`, `b` or `z`.
    pub(crate) state: &'static str,
    /// Where it is held where its state may not follow now.
    pub(crate) aside: Option<PartitionId>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Follows,
    Held(PartitionId),
    Refused,
}

/// Of each partition.
#[derive(Debug, Clone, Default)]
struct Of {
    living: BTreeMap<u8, &'static str>,
    /// Ends that are remembered, oldest first, by trusted time.
    ended: Vec<(u8, u64)>,
    held: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Lives(BTreeMap<PartitionId, Of>);

impl Lives {
    /// The next event of a partition: `a`, any number of `b`, `z`, as [`super::plan::lifecycle`] has it.
    pub(crate) fn judge(&mut self, id: PartitionId, brings: Brings, now_ns: u64, guarding: &Guarding) -> Verdict {
        let Of { living, ended, held } = self.0.entry(id).or_default();
        ended.retain(|(_, at_ns)| guarding.remember_ns.is_some_and(|remember_ns| at_ns + remember_ns > now_ns));
        let has_ended = ended.iter().any(|(key, _)| *key == brings.key);
        match (living.get(&brings.key).copied(), brings.state) {
            (None, "a") if !has_ended && living.len() as u64 == LIVING_MAX => return Verdict::Refused,
            (None, "a") if !has_ended => {
                living.insert(brings.key, "a");
            }
            (Some(_), "b") => {
                living.insert(brings.key, "b");
            }
            (Some(_), "z") => {
                living.remove(&brings.key);
                if guarding.remember_ns.is_some() {
                    ended.push((brings.key, now_ns));
                }
                ended.drain(..ended.len().saturating_sub(ENDED_MAX as usize));
            }
            _ => match brings.aside {
                Some(to) if !has_ended && *held < HELD_MAX => {
                    *held += 1;
                    return Verdict::Held(to);
                }
                _ => return Verdict::Refused,
            },
        }
        Verdict::Follows
    }

    /// So many events are held no longer.
    pub(crate) fn release(&mut self, id: PartitionId, count: u32) {
        let of = self.0.entry(id).or_default();
        of.held = of.held.saturating_sub(count.into());
    }

    /// Keys whose lives go on, ends that are remembered at a time, and events that are held.
    pub(crate) fn counts(&self, id: PartitionId) -> (u64, u64, u64) {
        let Some(Of { living, ended, held }) = self.0.get(&id) else { return (0, 0, 0) };
        (living.len() as u64, ended.len() as u64, *held)
    }
}
