//! A fence keeps the appends of one stream in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the appends of one stream: after one of them is refused, later ones are refused too. Otherwise events
/// would be stored out of order, and a producer's numbers would skip the refused ones.
///
/// Only the code that decides appends in order may shut the fence: earlier appends are not affected.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// Called when one of the appends was refused.
    pub fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether an earlier append was refused.
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
