//! The outputs that a lane would commit, for cases and capsules, which run events without a lane.

use bytes::Bytes;

use super::subscriber::Subscriber;
use crate::dispatch::lane::capsule::{Capsule, CapsuleError, ReplayError};
use crate::dispatch::lane::outputs::Fit;
use crate::engine::Engine;
use crate::model::call::Output;
use crate::model::slices::records;

impl<E: Engine> Subscriber<E> {
    /// The outputs that a lane would commit for the event of one of its capsules: records with the index of their
    /// port, in the order of the ports, and in output order per port. `Ok(Err(_))`: why the lane would refuse them.
    ///
    /// Does not check what depends on other events: transitions of the lifecycle, and room in the backlog.
    ///
    /// # Errors
    /// [`ReplayError::Capsule`] if the capsule's event cannot be read, or its partition has no lane.
    pub fn would_commit(
        &self,
        capsule: &Capsule,
        outputs: &[Output],
    ) -> Result<Result<Vec<(usize, Bytes)>, String>, ReplayError> {
        let malformed = |error: String| ReplayError::Capsule(CapsuleError::Malformed(error));
        let emitter =
            self.emitter(capsule.partition).ok_or_else(|| malformed("its subscriber has no lane".to_owned()))?;
        let held = capsule.held()?;
        let event = held.parse().map_err(|error| malformed(error.to_string()))?;
        let (slices, fit) = emitter.emit(&[event], 0, outputs);
        if let Fit::Refused(_, reason) = fit {
            return Ok(Err(reason));
        }
        let mut committed = Vec::new();
        for slice in slices.iter() {
            let topic = Some(slice.partition.topic);
            // Delayed events end up in the topic.
            let is_it = |target: &crate::dispatch::lane::outputs::OutputTopic| {
                Some(target.topic) == topic || target.delayed == topic
            };
            let Some(port) = emitter.targets.iter().position(is_it) else { continue };
            committed.extend(records(&slice.records).map(|record| (port, Bytes::copy_from_slice(record))));
        }
        Ok(Ok(committed))
    }
}
