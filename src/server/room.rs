//! Memory that callers share.
//!
//! Promises: bytes are counted before they come in.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::{self, Refusal};

/// Bytes, as many as may be taken together. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ByteBudget {
    /// In units, since a semaphore counts to 32 bits at once.
    units: Arc<Semaphore>,
    max: u32,
}

const UNIT_BYTES: u64 = 1 << 10;

impl ByteBudget {
    pub(super) fn of(bytes: u64) -> Self {
        let max = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(max as usize)), max }
    }

    fn units(&self, bytes: u64) -> u32 {
        // A request larger than the whole takes the whole.
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.max)
    }

    /// Waits for room.
    pub(super) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let taken = self.units.clone().acquire_many_owned(self.units(bytes)).await;
        taken.map_err(|_| refusal::shutting_down())
    }

    /// Room that is there now.
    pub(super) fn try_take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.units.clone().try_acquire_many_owned(self.units(bytes)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_is_taken_than_there_is() {
        let room = ByteBudget::of(10 * UNIT_BYTES);
        let small = room.try_take(1).unwrap();
        assert!(room.try_take(10 * UNIT_BYTES).is_none());
        let most = room.try_take(9 * UNIT_BYTES).unwrap();
        assert!(room.try_take(1).is_none());
        drop((small, most));
        let all = room.take(u64::MAX).await.unwrap();
        assert!(room.try_take(1).is_none(), "what is larger than all of it has all of it");
        drop(all);
        assert!(room.try_take(1).is_some());
    }
}
