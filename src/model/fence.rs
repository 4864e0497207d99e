//! What ties appends together that come one behind another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Appends of one stream: once one of them is refused where places are given, none behind it is stored. Otherwise events
/// would be out of order, and a producer's numbers would pass over what was refused.
///
/// Only those who decide in the order of the appends may shut it: what is in front of a refusal is not refused with it.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// One of the appends was refused.
    pub fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether an append in front was refused.
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
