//! What a lane would commit of outputs, for cases and capsules, which run events outside of a lane.

use bytes::Bytes;

use crate::dispatch::lane::capsule::{Capsule, CapsuleError, ReplayError};
use crate::dispatch::lane::outputs::Fit;
use crate::dispatch::tree::Tree;
use crate::engine::Engine;
use crate::model::call::Output;
use crate::model::slices::records;

impl<E: Engine> Tree<E> {
    /// What a lane of the capsule's subscriber would commit of outputs for its event: records, each with the index of its port,
    /// in the order of the ports and of what is sent to each. `Ok(Err(_))`: why the lane would refuse them.
    ///
    /// What depends on other events is not looked at: whether a state may follow, whether there is room.
    ///
    /// # Errors
    /// [`ReplayError::Capsule`] where the capsule's event cannot be read, or its subscriber is not here.
    pub fn would_commit(
        &self,
        capsule: &Capsule,
        outputs: &[Output],
    ) -> Result<Result<Vec<(usize, Bytes)>, String>, ReplayError> {
        let malformed = |error: String| ReplayError::Capsule(CapsuleError::Malformed(error));
        let found = self.subscriber(&capsule.subscriber).map_err(|error| malformed(error.to_string()))?;
        let emitter = self.emitter_of(found.index, capsule.partition);
        let emitter = emitter.ok_or_else(|| malformed("its subscriber has no lane".to_owned()))?;
        let held = capsule.held()?;
        let event = held.parse().map_err(|error| malformed(error.to_string()))?;
        let (slices, fit) = emitter.emit(&[event], 0, outputs);
        if let Fit::Refused(_, reason) = fit {
            return Ok(Err(reason));
        }
        let mut committed = Vec::new();
        for slice in slices.iter() {
            let topic = Some(slice.partition.topic);
            // What comes later is there in the end.
            let is_it = |target: &crate::dispatch::lane::outputs::Target| {
                Some(target.topic) == topic || target.delayed == topic
            };
            let Some(port) = emitter.targets.iter().position(is_it) else { continue };
            committed.extend(records(&slice.records).map(|record| (port, Bytes::copy_from_slice(record))));
        }
        Ok(Ok(committed))
    }
}
