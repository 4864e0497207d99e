//! The verdict on guarded records, in the order of their offsets ([`super::guard`] describes the entries).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::guard::{
    Diversion, DivertedRecord, ENDED, ENDED_MARK, FORGOTTEN_AT_ONCE, Guard, GuardReason, GuardRefusal, GuardStates,
    HELD, Identities, KeyState, LIVING, Lifecycle, SLOT_BYTES, Slots, Verdict, check_order, identities_of, number_of,
    slot_key,
};
use super::identity::{Offset, PartitionId};
use super::slices::{Duplicate, Slices};
use super::writes::LaneWrite;
use crate::model::{KEY_IDENTITIES_MAX, TopicId};

/// Judges the guarded records of one append or unit, in order, and collects the entries that they change.
#[derive(Debug)]
pub struct GuardJudge<'s, S> {
    states: &'s S,
    now_ns: u64,
    changed: BTreeMap<PartitionId, BTreeMap<Bytes, Option<Bytes>>>,
}

impl<'s, S: GuardStates> GuardJudge<'s, S> {
    /// Judges on top of the stored states, at a time that never goes back.
    pub fn new(states: &'s S, now_ns: u64) -> Self {
        Self { states, now_ns, changed: BTreeMap::new() }
    }

    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        match self.changed.get(&partition).and_then(|changed| changed.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.states.get(partition, key),
        }
    }

    /// Judges the next record, which gets `offset` if it may follow.
    ///
    /// # Errors
    /// [`GuardRefusal`]: none of the judged records may be appended.
    pub fn judge(
        &mut self,
        partition: PartitionId,
        lifecycle: &Lifecycle,
        guard: &Guard,
        offset: Offset,
    ) -> Result<Verdict, GuardRefusal> {
        if let Some(id) = guard.id {
            let stored = self.get(partition, &guard.key.to_be_bytes());
            let stored = stored.map_err(|why| GuardRefusal { of: guard.of, why: GuardReason::Unreadable(why) })?;
            if let Some(first) = identities_of(stored.as_deref(), lifecycle, self.now_ns).find(id) {
                return Ok(Verdict::Known(first));
            }
        }
        let verdict = match (self.decide(partition, lifecycle, guard, offset), guard.aside) {
            (Ok(()), _) => Ok(Verdict::Follows),
            (Err(why @ GuardReason::Order { .. }), Some(Diversion { to, held_max })) => {
                let aside = match held_max {
                    None => Ok(Verdict::Aside(to)),
                    Some(_) if self.has_ended(partition, lifecycle, guard) => Err(why),
                    Some(max) => self.hold(partition, (to, max), why),
                };
                aside.and_then(|aside| self.recognise_aside(partition, lifecycle, guard).map(|()| aside))
            }
            (Err(why), _) => Err(why),
        };
        verdict.map_err(|why| GuardRefusal { of: guard.of, why })
    }

    /// Judges the guarded records of slices in order, except known duplicates. Records whose identity their key
    /// remembers are added to `duplicates`, with offsets as if nothing were set aside. `next_offset` returns the next
    /// offset of a partition. Returns the records to set aside.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub(crate) fn judge_all<'l>(
        &mut self,
        slices: &Slices,
        lifecycle_of: impl Fn(TopicId) -> Option<&'l Arc<Lifecycle>>,
        duplicates: &mut Vec<Duplicate>,
        mut next_offset: impl FnMut(PartitionId) -> Offset,
    ) -> Result<Vec<DivertedRecord>, GuardRefusal> {
        let (mut aside, mut repeated) = (Vec::new(), Vec::new());
        for (number, slice) in (0..).zip(slices.iter()) {
            let Some(lifecycle) = lifecycle_of(slice.partition.topic) else { continue };
            let (base, partition) = (next_offset(slice.partition), slice.partition.partition);
            // The number of new records, and the indices among them of the ones appended here.
            let (mut new, mut follow) = (0, Vec::new());
            for (record, guard) in (0..).zip(&slice.guards) {
                let at = duplicates.binary_search_by_key(&(number, record), |known| (known.slice, known.record));
                if at.is_ok() {
                    continue;
                }
                match self.judge(slice.partition, lifecycle, guard, base + follow.len() as Offset)? {
                    Verdict::Follows => follow.push(new),
                    Verdict::Aside(to) => aside.push(DivertedRecord { slice: number, record, to, at: (0, 0) }),
                    Verdict::Known(first) => {
                        let of_these =
                            first.and_then(|first| follow.get(usize::try_from(first.checked_sub(base)?).ok()?));
                        let offset = of_these.map(|number| base + number).or(first);
                        repeated.push(Duplicate { slice: number, record, partition, offset });
                        continue;
                    }
                }
                new += 1;
            }
        }
        if !repeated.is_empty() {
            duplicates.append(&mut repeated);
            duplicates.sort_unstable_by_key(|known| (known.slice, known.record));
        }
        for (partition, count) in slices.released() {
            self.release(*partition, *count)?;
        }
        Ok(aside)
    }

    /// Whether the key has ended, so that holding the record would not help.
    fn has_ended(&self, partition: PartitionId, lifecycle: &Lifecycle, guard: &Guard) -> bool {
        let stored = self.get(partition, &guard.key.to_be_bytes()).ok().flatten();
        lifecycle.next_of(&KeyState::parse(stored.as_deref()), self.now_ns).is_err()
    }

    fn hold(
        &mut self,
        partition: PartitionId,
        (to, max): (PartitionId, u64),
        why: GuardReason,
    ) -> Result<Verdict, GuardReason> {
        let held = number_of(self.get(partition, HELD).map_err(GuardReason::Unreadable)?.as_deref());
        if held >= max {
            return Err(GuardReason::HeldFull { why: Box::new(why), max });
        }
        self.put(partition, HELD, Some(Bytes::copy_from_slice(&(held + 1).to_le_bytes())));
        Ok(Verdict::Aside(to))
    }

    /// Adds the identity of a record that is set aside to the entry of its key.
    fn recognise_aside(
        &mut self,
        partition: PartitionId,
        lifecycle: &Lifecycle,
        guard: &Guard,
    ) -> Result<(), GuardReason> {
        let Some(id) = guard.id else { return Ok(()) };
        let key = guard.key.to_be_bytes();
        let stored = self.get(partition, &key).map_err(GuardReason::Unreadable)?;
        let identities = identities_of(stored.as_deref(), lifecycle, self.now_ns);
        if !identities.has_room() {
            return Err(GuardReason::Recognised { max: KEY_IDENTITIES_MAX });
        }
        let mut value = identities.with(Some((id, None)));
        let known = KeyState::parse(stored.as_deref());
        let slot = match known {
            KeyState::Living(_) => None,
            KeyState::Ended { ended_ns, .. } if !lifecycle.forgets(ended_ns, self.now_ns) => None,
            KeyState::Ended { slot, .. } => Some(Some(slot)),
            KeyState::Nothing => Some(None),
        };
        let Some(slot_before) = slot else {
            let (_, rest) = stored.as_deref().map(Identities::split).unwrap_or_default();
            value.extend_from_slice(rest);
            self.put(partition, &key, Some(value.into()));
            return Ok(());
        };
        let before = self.slots(partition)?;
        let mut slots = before;
        if let Some(slot) = slot_before {
            self.put(partition, &slot_key(slot), Some(Bytes::new()));
        }
        self.put_ended(partition, key, value, "", &mut slots);
        self.forget(partition, lifecycle, &mut slots);
        self.put_slots(partition, before, slots);
        Ok(())
    }

    fn slots(&self, partition: PartitionId) -> Result<Slots, GuardReason> {
        Ok(Slots::parse(self.get(partition, ENDED).map_err(GuardReason::Unreadable)?.as_deref()))
    }

    fn put_slots(&mut self, partition: PartitionId, before: Slots, slots: Slots) {
        if slots != before {
            let rows = [slots.first.to_le_bytes(), slots.next.to_le_bytes()].concat();
            self.put(partition, ENDED, Some(rows.into()));
        }
    }

    /// Stores the end of a key's life after its identities, and assigns a slot.
    fn put_ended(&mut self, partition: PartitionId, key: [u8; 16], mut value: Vec<u8>, state: &str, slots: &mut Slots) {
        value.put_u8(ENDED_MARK);
        value.put_u64_le(slots.next);
        value.put_u64_le(self.now_ns);
        value.put_slice(state.as_bytes());
        self.put(partition, &key, Some(value.into()));
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_u64_le(self.now_ns);
        slot.put_slice(&key);
        self.put(partition, &slot_key(slots.next), Some(slot.into()));
        slots.next += 1;
    }

    /// Records that `count` events of a partition are no longer held.
    ///
    /// # Errors
    /// The entries cannot be read.
    pub fn release(&mut self, partition: PartitionId, count: u32) -> Result<(), GuardRefusal> {
        let held =
            self.get(partition, HELD).map_err(|why| GuardRefusal { of: 0, why: GuardReason::Unreadable(why) })?;
        let held = number_of(held.as_deref()).saturating_sub(count.into());
        self.put(partition, HELD, Some(Bytes::copy_from_slice(&held.to_le_bytes())));
        Ok(())
    }

    fn decide(
        &mut self,
        partition: PartitionId,
        lifecycle: &Lifecycle,
        guard: &Guard,
        offset: Offset,
    ) -> Result<(), GuardReason> {
        let key = guard.key.to_be_bytes();
        let stored = self.get(partition, &key).map_err(GuardReason::Unreadable)?;
        let known = KeyState::parse(stored.as_deref());
        check_order(lifecycle, &known, &guard.state, self.now_ns)?;
        let identities = identities_of(stored.as_deref(), lifecycle, self.now_ns);
        if guard.id.is_some() && !identities.has_room() {
            return Err(GuardReason::Recognised { max: KEY_IDENTITIES_MAX });
        }
        let mut value = identities.with(guard.id.map(|id| (id, Some(offset))));
        let goes_on = lifecycle.follows(&guard.state).is_some();
        let went_on = matches!(known, KeyState::Living(_));
        if went_on != goes_on {
            let living = number_of(self.get(partition, LIVING).map_err(GuardReason::Unreadable)?.as_deref());
            if goes_on && living >= lifecycle.keys_max {
                return Err(GuardReason::Full { max: lifecycle.keys_max });
            }
            let living = if goes_on { living + 1 } else { living.saturating_sub(1) };
            self.put(partition, LIVING, Some(Bytes::copy_from_slice(&living.to_le_bytes())));
        }
        let before = self.slots(partition)?;
        let mut slots = before;
        if let KeyState::Ended { slot, .. } = known {
            self.put(partition, &slot_key(slot), Some(Bytes::new()));
        }
        if goes_on {
            value.extend_from_slice(guard.state.as_bytes());
            self.put(partition, &key, Some(value.into()));
        } else if lifecycle.remember.is_some() {
            self.put_ended(partition, key, value, &guard.state, &mut slots);
        } else if stored.is_some() {
            self.put(partition, &key, None);
        }
        self.forget(partition, lifecycle, &mut slots);
        self.put_slots(partition, before, slots);
        Ok(())
    }

    /// Forgets the oldest ends that exceed the time or the number to remember.
    fn forget(&mut self, partition: PartitionId, lifecycle: &Lifecycle, slots: &mut Slots) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            if slots.count() == 0 {
                return;
            }
            let key = slot_key(slots.first);
            let is_one_too_many = slots.count() > lifecycle.remembered_max;
            let changed = self.changed.get(&partition).and_then(|changed| changed.get(key.as_slice())).cloned();
            let at_hand = changed.or_else(|| self.states.glance(partition, &key));
            // an end that is only too old can be forgotten with a later record
            let Some(slot) = at_hand.or_else(|| self.states.get(partition, &key).ok().filter(|_| is_one_too_many))
            else {
                return;
            };
            let mut slot = slot.unwrap_or_default();
            if let Ok(ended_ns) = slot.try_get_u64_le() {
                if !is_one_too_many && !lifecycle.forgets(ended_ns, self.now_ns) {
                    return;
                }
                self.put(partition, &slot, None);
            }
            self.put(partition, &key, None);
            slots.first += 1;
        }
    }

    fn put(&mut self, partition: PartitionId, key: &[u8], value: Option<Bytes>) {
        self.changed.entry(partition).or_default().insert(Bytes::copy_from_slice(key), value);
    }

    /// The changed entries of partitions, valid once the records have their offsets.
    pub fn writes(self) -> Vec<(PartitionId, Vec<LaneWrite>)> {
        let writes = |changed: BTreeMap<Bytes, Option<Bytes>>| {
            changed.into_iter().map(|(key, value)| LaneWrite { key, value }).collect()
        };
        self.changed.into_iter().map(|(partition, changed)| (partition, writes(changed))).collect()
    }
}
