//! Errors of lanes.

use super::batch::Unreadable;
use super::waiting::WaitingError;
use crate::engine::{ReadError, SessionError};

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// It was stopped.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Waiting(#[from] WaitingError),
    #[error(transparent)]
    Read(#[from] ReadError),
}
