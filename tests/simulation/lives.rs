//! The lives of keys as guards promise them: which states may follow, which ends are remembered, what is held
//! meanwhile.

use std::collections::{BTreeMap, VecDeque};

use wattle::model::PartitionId;

use super::plan::{ENDED_MAX, Guarding, HELD_MAX, LIVING_MAX};

/// What an event says of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brings {
    pub(crate) key: u8,
    /// `a`, `b` or `z`.
    pub(crate) state: &'static str,
    /// What becomes of it where its state may not follow now.
    pub(crate) aside: Option<Aside>,
    /// Where others of its partition may be held.
    pub(crate) beside: Option<PartitionId>,
    /// By what it is recognised for as long as its key is known.
    pub(crate) id: Option<u64>,
}

/// Where an event goes whose state may not follow now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aside {
    Held(PartitionId),
    Diverted(PartitionId),
}

impl Brings {
    /// Where events of its partition may be, besides.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let diverted = match self.aside {
            Some(Aside::Diverted(to)) => Some(to),
            Some(Aside::Held(_)) | None => None,
        };
        self.beside.into_iter().chain(diverted)
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Follows,
    /// It is held there, or diverted there.
    Aside(PartitionId),
    /// It came before, and got this offset then if it got one.
    Known(Option<u64>),
    Refused,
}

/// The end of a key, or of one that has yet to begin what is recognised of it.
#[derive(Debug, Clone, Copy)]
struct End {
    /// `None`: it has begun since.
    key: Option<u8>,
    at_ns: u64,
    has_begun: bool,
}

/// Of each partition.
#[derive(Debug, Clone, Default)]
struct Of {
    living: BTreeMap<u8, &'static str>,
    /// Those that are remembered, oldest first, by trusted time.
    ended: VecDeque<End>,
    /// What is recognised of each key, and its offset.
    identities: BTreeMap<u8, Vec<(u64, Option<u64>)>>,
    held: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Lives(BTreeMap<PartitionId, Of>);

impl Of {
    fn end(&mut self, key: u8) -> Option<&mut End> {
        self.ended.iter_mut().find(|end| end.key == Some(key))
    }

    /// Forgets some ends that are too old, or one too many.
    fn forget(&mut self, is_old: impl Fn(&End) -> bool) {
        for _ in 0..2 {
            let Some(first) = self.ended.front() else { return };
            if first.key.is_some() && !is_old(first) && self.ended.len() <= ENDED_MAX as usize {
                return;
            }
            let first = self.ended.pop_front();
            first.and_then(|first| first.key).map(|key| self.identities.remove(&key));
        }
    }
}

impl Lives {
    /// The next event of a partition, which is to have an offset: `a`, any number of `b`, `z`, as
    /// [`super::plan::lifecycle`] has it.
    pub(crate) fn judge(
        &mut self,
        id: PartitionId,
        brings: Brings,
        offset: u64,
        now_ns: u64,
        guarding: &Guarding,
    ) -> Verdict {
        let of = self.0.entry(id).or_default();
        let is_old = |end: &End| guarding.remember_ns.is_none_or(|remember_ns| end.at_ns + remember_ns <= now_ns);
        let key = brings.key;
        let end = of.end(key).copied();
        if end.as_ref().is_some_and(is_old) {
            of.identities.remove(&key);
        }
        let known = of.identities.get(&key).into_iter().flatten().find(|(of, _)| Some(*of) == brings.id);
        if let Some((_, offset)) = known {
            return Verdict::Known(*offset);
        }
        let has_ended = end.is_some_and(|end| end.has_begun && !is_old(&end));
        match (of.living.get(&key).copied(), brings.state) {
            (None, "a") if !has_ended && of.living.len() as u64 == LIVING_MAX => return Verdict::Refused,
            (None, "a") if !has_ended => {
                of.living.insert(key, "a");
                of.end(key).into_iter().for_each(|end| end.key = None);
            }
            (Some(_), "b") => {
                of.living.insert(key, "b");
            }
            (Some(_), "z") => {
                of.living.remove(&key);
                match guarding.remember_ns {
                    Some(_) => of.ended.push_back(End { key: Some(key), at_ns: now_ns, has_begun: true }),
                    None => {
                        of.identities.remove(&key);
                        of.forget(is_old);
                        return Verdict::Follows;
                    }
                }
            }
            (living, _) => {
                let to = match brings.aside {
                    Some(Aside::Diverted(to)) => to,
                    Some(Aside::Held(to)) if !has_ended && of.held < HELD_MAX => {
                        of.held += 1;
                        to
                    }
                    Some(Aside::Held(_)) | None => return Verdict::Refused,
                };
                if let Some(id) = brings.id {
                    of.identities.entry(key).or_default().push((id, None));
                    if living.is_none() && end.is_none_or(|end| is_old(&end)) {
                        of.end(key).into_iter().for_each(|end| end.key = None);
                        of.ended.push_back(End { key: Some(key), at_ns: now_ns, has_begun: false });
                        of.forget(is_old);
                    }
                }
                return Verdict::Aside(to);
            }
        }
        if let Some(id) = brings.id {
            of.identities.entry(key).or_default().push((id, Some(offset)));
        }
        of.forget(is_old);
        Verdict::Follows
    }

    /// So many events are held no longer.
    pub(crate) fn release(&mut self, id: PartitionId, count: u32) {
        let of = self.0.entry(id).or_default();
        of.held = of.held.saturating_sub(count.into());
    }

    /// Keys whose lives go on, ends that are remembered at a time, and events that are held.
    pub(crate) fn counts(&self, id: PartitionId) -> (u64, u64, u64) {
        let Some(Of { living, ended, held, .. }) = self.0.get(&id) else { return (0, 0, 0) };
        (living.len() as u64, ended.len() as u64, *held)
    }
}
